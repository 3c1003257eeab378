//! CIFAR, IDX and gzipped IDX files, raw bytes or well-formed ones: what is read gives the same bytes when it is put
//! together again; nothing panics.
#![no_main]

use arbitrary::Arbitrary;
use flate2::{Compression, write::GzEncoder};
use libfuzzer_sys::fuzz_target;
use rectify::data::cifar::{self, Cifar};
use rectify::data::{FormatError, idx};
use std::io::Write;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Raw(&'a [u8]),
    /// Records with these labels, their pixels counted up from `first`; some bytes too many.
    Cifar {
        hundred: bool,
        labels: Vec<[u8; 2]>,
        first: u8,
        more: &'a [u8],
    },
    /// A header with these dimensions and these values; the packed stream changed in places, and cut.
    Idx {
        dims: [u32; 3],
        values: &'a [u8],
        edits: Vec<(u16, u8)>,
        length: Option<u16>,
    },
}

fn check_cifar(bytes: &[u8], set: Cifar) {
    let record = if set == Cifar::Ten { 3073 } else { 3074 };
    match cifar::parse(bytes, set) {
        Ok(images) => {
            images.check().expect("the lengths fit");
            assert_eq!((images.c, images.h, images.w), (3, 32, 32));
            assert_eq!(images.len() * record, bytes.len());
            for (i, bytes) in bytes.chunks_exact(record).enumerate() {
                let (head, pixels) = bytes.split_at(record - 3072);
                assert_eq!(images.labels[i], u32::from(head[head.len() - 1]));
                assert!((images.labels[i] as usize) < set.classes());
                assert_eq!(images.image(i), Some(pixels));
            }
        }
        Err(FormatError::Size { got, want }) => {
            assert!(got == bytes.len() as u64 && want > got && want % record as u64 == 0);
        }
        Err(FormatError::Label { record: i, label, classes }) => {
            assert_eq!(u32::from(bytes[(i + 1) * record - 3073]), label);
            assert!(classes == set.classes() && label as usize >= classes);
        }
        Err(other) => panic!("{other}"),
    }
}

fn header(dims: &[usize]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|&d| bytes.extend((d as u32).to_be_bytes()));
    bytes
}

fn check_idx<const D: usize>(bytes: &[u8]) {
    if let Ok((dims, values)) = idx::parse::<D>(bytes) {
        assert_eq!(values.len(), dims.iter().product::<usize>());
        assert_eq!([&header(&dims), values].concat(), bytes);
        assert_eq!(idx::gunzip::<D>(&gzip(bytes)).as_deref(), Ok(bytes));
    }
    if let Ok(unpacked) = idx::gunzip::<D>(bytes)
        && let Ok((dims, values)) = idx::parse::<D>(&unpacked)
    {
        assert_eq!([&header(&dims), values].concat(), unpacked);
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut stream = GzEncoder::new(Vec::new(), Compression::fast());
    stream.write_all(bytes).expect("memory takes every byte");
    stream.finish().expect("memory takes every byte")
}

fuzz_target!(|input: Input| match input {
    Input::Raw(bytes) => {
        check_cifar(bytes, Cifar::Ten);
        check_cifar(bytes, Cifar::Hundred);
        check_idx::<1>(bytes);
        check_idx::<3>(bytes);
    }
    Input::Cifar { hundred, labels, first, more } => {
        let mut bytes = Vec::new();
        for (i, label) in labels.iter().take(8).enumerate() {
            bytes.extend(if hundred { &label[..] } else { &label[1..] });
            bytes.extend((0..3072).map(|at| first.wrapping_add((at + i) as u8)));
        }
        bytes.extend(more);
        check_cifar(&bytes, if hundred { Cifar::Hundred } else { Cifar::Ten });
    }
    Input::Idx { dims, values, edits, length } => {
        for count in [1, 3] {
            let dims: Vec<usize> = dims[..count].iter().map(|&d| d as usize).collect();
            let bytes = [&header(&dims), values].concat();
            let fits = dims.iter().map(|&d| d as u128).product::<u128>() == values.len() as u128;
            let read = if count == 1 { idx::parse::<1>(&bytes).is_ok() } else { idx::parse::<3>(&bytes).is_ok() };
            assert_eq!(read, fits && !values.is_empty());
            let mut packed = gzip(&bytes);
            for &(at, value) in &edits {
                let at = usize::from(at) % packed.len();
                packed[at] = value;
            }
            packed.truncate(length.map_or(usize::MAX, usize::from));
            check_idx::<1>(&packed);
            check_idx::<3>(&packed);
        }
    }
});

use super::*;
use flate2::{Compression, write::GzEncoder};
use std::io::Write;

fn idx(dims: &[u32], values: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    dims.iter().for_each(|d| bytes.extend(d.to_be_bytes()));
    bytes.extend(values);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut stream = GzEncoder::new(Vec::new(), Compression::default());
    stream.write_all(bytes).unwrap();
    stream.finish().unwrap()
}

/// The values 0, 1, 2 and so on, but for their overflow.
fn counted(len: usize) -> Vec<u8> {
    (0..len).map(|i| i as u8).collect()
}

/// Writes 3 training and 2 test images of 4 rows and 5 columns; `name` gives each file its name, `pack` its bytes.
fn write(folder: &Path, name: impl Fn(&str) -> String, pack: impl Fn(&[u8]) -> Vec<u8>) {
    for (role, bytes) in [
        ("train-images-idx3-ubyte", idx(&[3, 4, 5], &counted(60))),
        ("train-labels-idx1-ubyte", idx(&[3], &[2, 0, 6])),
        ("t10k-images-idx3-ubyte", idx(&[2, 4, 5], &counted(40))),
        ("t10k-labels-idx1-ubyte", idx(&[2], &[6, 1])),
    ] {
        std::fs::write(folder.join(name(role)), pack(&bytes)).unwrap();
    }
}

fn good(folder: &Path) {
    write(folder, str::to_owned, <[u8]>::to_vec);
}

#[test]
fn plain_and_packed_files_of_either_spelling_hold_the_same() {
    type Name = fn(&str) -> String;
    type Pack = fn(&[u8]) -> Vec<u8>;
    let forms: [(Name, Pack); 4] = [
        (str::to_owned, <[u8]>::to_vec),
        (|n| n.replace("-idx", ".idx"), <[u8]>::to_vec),
        (|n| format!("{n}.gz"), gzip),
        // Two members, as when archives are appended.
        (|n| n.replace("-idx", ".idx") + ".gz", |b| [gzip(&b[..7]), gzip(&b[7..])].concat()),
    ];
    for (name, pack) in forms {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), name, pack);
        let data = load(home.path()).unwrap();
        assert_eq!((data.train.c, data.train.h, data.train.w), (1, 4, 5));
        assert_eq!((data.train.pixels, data.train.labels), (counted(60), vec![2, 0, 6]));
        assert_eq!((data.test.pixels, data.test.labels), (counted(40), vec![6, 1]));
        assert_eq!(data.classes, ["0", "1", "2", "3", "4", "5", "6"]);
    }
}

#[test]
fn the_plain_file_is_read_first() {
    let home = tempfile::tempdir().unwrap();
    good(home.path());
    std::fs::write(home.path().join("train-labels-idx1-ubyte.gz"), b"not read").unwrap();
    assert_eq!(load(home.path()).unwrap().train.labels, [2, 0, 6]);
}

#[test]
fn headers_are_checked_before_anything_is_read() {
    let size = |got, want| FormatError::Size { got, want };
    let file = idx(&[2, 3, 2], &counted(12));
    assert_eq!(parse::<3>(&file), Ok(([2, 3, 2], &counted(12)[..])));
    for len in 0..file.len() {
        let want = if len < 16 { 16 } else { 28 };
        assert_eq!(parse::<3>(&file[..len]), Err(size(len as u64, want)), "{len}");
    }
    assert_eq!(parse::<3>(&[&file[..], &[0]].concat()), Err(size(29, 28)));
    let text = |bytes: &[u8]| parse::<3>(bytes).unwrap_err().to_string();
    assert!(text(&idx(&[16], &counted(16))).contains("begins with 00000801, not with 00000803"));
    assert!(text(&[0, 0, 13, 3].repeat(4)).contains("begins with 00000d03"));
    assert!(text(&idx(&[2, 0, 2], &[])).contains("[2, 0, 2]"));
    let most = u32::MAX;
    assert!(text(&idx(&[most, most, most], &[])).contains("bytes: 18446744073709551615, but at most 4294967296"));
    assert!(text(&idx(&[1 << 12, 1 << 12, 1 << 8], &[])).contains("bytes: 4294967312, but at most 4294967296"));
    assert!(text(&idx(&[1 << 12, 1 << 12, 1 << 7], &[])).contains("16 bytes, but 2147483664 are expected"));
}

#[test]
fn damaged_streams_are_refused() {
    let file = idx(&[2, 3, 2], &counted(12));
    let packed = gzip(&file);
    assert_eq!(gunzip::<3>(&packed), Ok(file.clone()));
    for len in 0..packed.len() {
        assert!(gunzip::<3>(&packed[..len]).is_err(), "{len}");
    }
    let mut wrong = packed.clone();
    let sum = wrong.len() - 8;
    wrong[sum] ^= 1;
    assert!(matches!(gunzip::<3>(&wrong), Err(FormatError::Decode(_))), "the checksum");
    // What a few bytes claim to unpack to is unpacked only as far as the header goes.
    let endless = gzip(&[&file[..], &vec![0; 1 << 20]].concat());
    let unpacked = gunzip::<3>(&endless).unwrap();
    assert_eq!(parse::<3>(&unpacked), Err(FormatError::Size { got: 29, want: 28 }));
    assert!(matches!(gunzip::<3>(&gzip(&vec![0; 1 << 20])), Err(FormatError::Header(_))));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    for (name, bytes, part) in [
        ("train-labels-idx1-ubyte", idx(&[2], &[0, 1]), "2 labels, but there are 3 images in "),
        ("t10k-labels-idx1-ubyte", idx(&[2], &[6, 7]), "record 1: label 7 is not below 7"),
        ("t10k-images-idx3-ubyte", idx(&[2, 5, 4], &counted(40)), "images of 5×4, but those to train on are 4×5"),
        ("t10k-images-idx3-ubyte", idx(&[2, 4, 5], &counted(39)), "55 bytes, but 56 are expected"),
        ("train-images-idx3-ubyte", idx(&[60], &counted(60)), "begins with 00000801"),
    ] {
        let home = tempfile::tempdir().unwrap();
        good(home.path());
        std::fs::write(home.path().join(name), bytes).unwrap();
        let error = load(home.path()).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}: ")) && error.contains(part), "{error}");
    }
    let home = tempfile::tempdir().unwrap();
    good(home.path());
    std::fs::remove_file(home.path().join("t10k-labels-idx1-ubyte")).unwrap();
    let error = load(home.path()).unwrap_err().to_string();
    assert!(error.ends_with(": holds no t10k-labels-idx1-ubyte[.gz]"), "{error}");
}

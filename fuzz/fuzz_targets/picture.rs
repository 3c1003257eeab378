//! Pictures of an image folder, raw bytes or a good one with some bytes changed: what is decoded is of the size that it
//! says, within the bound, and the same again; nothing panics.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use rectify::data::folder::decode;

/// Small, so that a run is short.
const MOST: usize = 1 << 16;

const GOOD: [&[u8]; 3] = [
    include_bytes!("../../src/data/folder/picture/colour.jpg"),
    include_bytes!("../../src/data/folder/picture/grey.jpg"),
    include_bytes!("../../src/data/folder/picture/alpha.png"),
];

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Raw(&'a [u8]),
    /// What follows a PNG's signature, or a JPEG's.
    Signed {
        png: bool,
        rest: &'a [u8],
    },
    Edited {
        which: u8,
        edits: Vec<(u16, u8)>,
        length: Option<u16>,
    },
}

fn check(bytes: &[u8]) {
    let first = decode(bytes, MOST);
    if let Ok(picture) = &first {
        assert!(picture.h * picture.w <= MOST && picture.h * picture.w > 0);
        assert_eq!(picture.rgb.len(), 3 * picture.h * picture.w);
        assert!(!picture.grey || picture.rgb.chunks_exact(3).all(|p| p[0] == p[1] && p[1] == p[2]));
    }
    assert_eq!(decode(bytes, MOST), first);
}

fuzz_target!(|input: Input| match input {
    Input::Raw(bytes) => check(bytes),
    Input::Signed { png, rest } => {
        let signature: &[u8] = if png { b"\x89PNG\r\n\x1a\n" } else { b"\xff\xd8" };
        check(&[signature, rest].concat());
    }
    Input::Edited { which, edits, length } => {
        let mut bytes = GOOD[usize::from(which) % GOOD.len()].to_vec();
        for (at, value) in edits {
            let at = usize::from(at) % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(length.map_or(usize::MAX, usize::from));
        check(&bytes);
    }
});

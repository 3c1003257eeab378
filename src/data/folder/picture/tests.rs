use super::*;
use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};

/// 20×18 pixels, 4:2:0: blocks of the last row and column are part outside the picture.
const COLOUR: &[u8] = include_bytes!("colour.jpg");
/// The same in grey, progressive.
const GREY: &[u8] = include_bytes!("grey.jpg");
/// The colours of the first in CMYK, as Pillow and libjpeg write it.
const CMYK: &[u8] = include_bytes!("cmyk.jpg");
/// 20×18 pixels with transparency.
const ALPHA: &[u8] = include_bytes!("alpha.png");

pub(in crate::data::folder) fn png(bytes: &[u8], w: u32, h: u32, kind: ExtendedColorType) -> Vec<u8> {
    let mut out = Vec::new();
    PngEncoder::new(&mut out).write_image(bytes, w, h, kind).unwrap();
    out
}

#[test]
fn a_jpeg_decodes_to_these_bytes() {
    let picture = decode(COLOUR, 360).unwrap();
    assert_eq!((picture.h, picture.w, picture.grey), (18, 20, false));
    assert_eq!(picture.rgb, include_bytes!("colour.rgb"));
    let picture = decode(GREY, 360).unwrap();
    assert_eq!((picture.h, picture.w, picture.grey), (18, 20, true));
    let planes = include_bytes!("grey.bytes").iter().flat_map(|&v| [v; 3]).collect::<Vec<_>>();
    assert_eq!(picture.rgb, planes);
}

#[test]
fn inks_become_colours() {
    let picture = decode(CMYK, 360).unwrap();
    assert_eq!((picture.h, picture.w, picture.grey), (18, 20, false));
    // Lost to another conversion and another compression: 6 levels in Pillow's hands, too.
    let worst = picture.rgb.iter().zip(include_bytes!("colour.rgb")).map(|(a, b)| a.abs_diff(*b)).max();
    assert!(worst <= Some(8), "{worst:?}");
}

/// A JPEG with an Exif orientation, in either order of bytes.
fn oriented(orientation: u16, big: bool) -> Vec<u8> {
    let two = |v: u16| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let four = |v: u32| if big { v.to_be_bytes() } else { v.to_le_bytes() };
    let mut exif = b"Exif\0\0".to_vec();
    exif.extend(if big { b"MM" } else { b"II" });
    exif.extend(
        [&two(42)[..], &four(8), &two(1), &two(0x112), &two(3), &four(1), &two(orientation), &two(0), &four(0)]
            .concat(),
    );
    let len = (exif.len() as u16 + 2).to_be_bytes();
    [&COLOUR[..2], &[0xff, 0xe1], &len, &exif, &COLOUR[2..]].concat()
}

#[test]
fn pictures_are_turned_as_their_orientation_says() {
    let plain = decode(COLOUR, 360).unwrap();
    let at = |p: &Picture, row: usize, column: usize| p.rgb[3 * (row * p.w + column)..][..3].to_vec();
    // Where the stored first row and first column are to be seen (Exif 2.3, section 4.6.4): the pixel that is to be
    // shown at a place, from the stored ones.
    type From = fn(usize, usize) -> (usize, usize);
    let turned: [From; 8] = [
        |r, c| (r, c),
        |r, c| (r, 19 - c),
        |r, c| (17 - r, 19 - c),
        |r, c| (17 - r, c),
        |r, c| (c, r),
        |r, c| (17 - c, r),
        |r, c| (17 - c, 19 - r),
        |r, c| (c, 19 - r),
    ];
    for (from, orientation) in turned.into_iter().zip(1..) {
        for big in [false, true] {
            let picture = decode(&oriented(orientation, big), 360).unwrap();
            let size = if orientation < 5 { (18, 20) } else { (20, 18) };
            assert_eq!((picture.h, picture.w), size, "{orientation}");
            for (row, column) in (0..picture.h).flat_map(|r| (0..picture.w).map(move |c| (r, c))) {
                let (r, c) = from(row, column);
                assert_eq!(at(&picture, row, column), at(&plain, r, c), "{orientation}: {row}, {column}");
            }
        }
    }
    // What is no orientation is none.
    for orientation in [0, 9, 0xffff] {
        assert_eq!(decode(&oriented(orientation, true), 360).unwrap(), plain);
    }
}

#[test]
fn a_png_keeps_its_bytes() {
    let bytes: Vec<u8> = (0..48).map(|i| i * 5).collect();
    let same = |grey, rgb: Vec<u8>| Picture { h: 2, w: 3, grey, rgb };
    let of = |channels: usize, kind| decode(&png(&bytes[..6 * channels], 3, 2, kind), 6).unwrap();
    assert_eq!(of(3, ExtendedColorType::Rgb8), same(false, bytes[..18].to_vec()));
    let three = |i: usize| [bytes[i]; 3];
    assert_eq!(of(1, ExtendedColorType::L8), same(true, (0..6).flat_map(three).collect()));
    assert_eq!(of(2, ExtendedColorType::La8), same(true, (0..6).flat_map(|i| three(2 * i)).collect()));
    let colour = bytes.chunks(4).take(6).flat_map(|p| &p[..3]).copied().collect();
    assert_eq!(of(4, ExtendedColorType::Rgba8), same(false, colour));
    // Of two bytes the nearest level of 255.
    let deep: Vec<u8> = [0u16, 128, 129, 257, 0xff7e, 0xff7f].iter().flat_map(|v| v.to_ne_bytes()).collect();
    let picture = decode(&png(&deep, 3, 2, ExtendedColorType::L16), 6).unwrap();
    assert_eq!(picture, same(true, [0, 0, 1, 1, 254, 255].into_iter().flat_map(|v| [v; 3]).collect()));
}

#[test]
fn transparency_is_dropped() {
    let rgb = (0..360).flat_map(|i| [i % 20 * 12, i / 20 * 13, i % 20 * (i / 20)].map(|v: u32| v as u8)).collect();
    assert_eq!(decode(ALPHA, 360).unwrap(), Picture { h: 18, w: 20, grey: false, rgb });
}

#[test]
fn a_code_that_no_table_holds_is_refused() {
    // Of a scan's data nothing is left but ones, of which no code consists.
    let scan = COLOUR.windows(2).position(|w| w == [0xff, 0xda]).unwrap();
    let ones = [0xff, 0].repeat(8);
    let error = decode(&[&COLOUR[..scan + 14], &ones, &[0xff, 0xd9]].concat(), 360).unwrap_err().to_string();
    assert!(error.contains("Huffman"), "{error}");
}

#[test]
fn a_cut_file_is_refused_wherever_it_is_cut() {
    let noise: Vec<u8> = (0..300u32).map(|i| ((i * i * 7919) >> 3) as u8).collect();
    for whole in [COLOUR, GREY, ALPHA, &png(&noise, 10, 10, ExtendedColorType::Rgb8)] {
        decode(whole, 360).unwrap();
        for len in 0..whole.len() {
            assert!(decode(&whole[..len], 360).is_err(), "{len} of {} bytes", whole.len());
        }
        // What follows the end does no harm.
        assert_eq!(decode(&[whole, b"more"].concat(), 360), decode(whole, 360));
    }
}

#[test]
fn a_changed_byte_of_a_png_is_noticed() {
    let whole = png(&[1; 300], 10, 10, ExtendedColorType::Rgb8);
    let noticed = (0..whole.len()).filter(|&at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x40;
        decode(&bytes, 360).is_err()
    });
    // All but the checksum of the end, which holds nothing.
    assert!(noticed.count() >= whole.len() - 4);
}

#[test]
fn a_huge_size_is_refused_before_memory_is_taken() {
    // The size is at a fixed place of the header: SOF's, and IHDR's with its checksum.
    let frame = COLOUR.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    let mut bytes = COLOUR.to_vec();
    bytes[frame + 5..frame + 9].fill(0xff);
    let large = |got, most| FormatError::Large { what: "pixels", got, most };
    assert_eq!(decode(&bytes, MOST_PIXELS), Err(large(65535 * 65535, MOST_PIXELS as u64)));
    assert_eq!(decode(COLOUR, 359), Err(large(360, 359)));
    let flat = png(&[0; 36], 6, 6, ExtendedColorType::L8);
    assert_eq!(decode(&flat, 35), Err(large(36, 35)));
    let mut huge = flat.clone();
    huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let sum = crc(&huge[12..29]);
    huge[29..33].copy_from_slice(&sum.to_be_bytes());
    let error = decode(&huge, MOST_PIXELS).unwrap_err();
    assert!(matches!(error, FormatError::Large { .. } | FormatError::Decode(_)), "{error}");
}

/// The checksum of a PNG's chunk.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[test]
fn what_is_no_picture_is_refused() {
    for (bytes, part) in [
        (&b""[..], "neither a JPEG nor a PNG"),
        (b"GIF89a", "neither a JPEG nor a PNG"),
        (b"\xff\xd8\xff\xd9", "cannot decode"),
        (b"\xff\xd8", "it ends before the end of its picture"),
        (b"\x89PNG\r\n\x1a\n", "it ends before the end of its picture"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\0IEND\0\0\0\0", "cannot decode"),
    ] {
        let error = decode(bytes, 100).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

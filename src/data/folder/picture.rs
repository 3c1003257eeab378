//! Pictures from JPEG and PNG files.

use super::FormatError;
use image::{DynamicImage, ImageDecoder, Limits, RgbImage, codecs::png::PngDecoder, metadata::Orientation};
use std::io::Cursor;
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::{bytestream::ZCursor, colorspace::ColorSpace, options::DecoderOptions};

/// Pixels of the largest picture that an image folder may hold.
pub const MOST_PIXELS: usize = 1 << 26;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const JPEG: &[u8] = b"\xff\xd8";

/// A decoded picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Height in pixels, at least 1.
    pub h: usize,
    /// Width in pixels, at least 1.
    pub w: usize,
    /// Whether the file holds one channel; red, green and blue are equal then.
    pub grey: bool,
    /// Red, green and blue of each pixel, row by row: `3 * h * w` values.
    pub rgb: Vec<u8>,
}

/// Decodes a JPEG or a PNG of at most `most` pixels, whichever its first bytes say.
///
/// The bytes are the same on every machine. A JPEG is turned and mirrored as its Exif orientation says; one in CMYK or
/// YCCK, inverted as Adobe writes it, becomes the product of each ink with black. Transparency is dropped; colour
/// profiles and gamma are not looked at; 16 bits a channel are rounded to 8.
///
/// # Errors
/// [`FormatError`] if it is neither, too large, or damaged. A file that lacks its end is damaged. A PNG has checksums;
/// wrong bits in a JPEG's data are noticed only if they break its form.
pub fn decode(bytes: &[u8], most: usize) -> Result<Picture, FormatError> {
    if bytes.starts_with(PNG) {
        png(bytes, most)
    } else if bytes.starts_with(JPEG) {
        jpeg(bytes, most)
    } else {
        Err(FormatError::Header("neither a JPEG nor a PNG".into()))
    }
}

fn damaged(e: impl std::fmt::Display) -> FormatError {
    FormatError::Decode(e.to_string().trim().to_owned())
}

/// The number of values of a picture of this size, three a pixel.
fn checked(h: usize, w: usize, most: usize) -> Result<usize, FormatError> {
    match h.checked_mul(w) {
        Some(0) => Err(FormatError::Header(format!("a picture of {h}×{w} pixels"))),
        Some(pixels) if pixels <= most => Ok(3 * pixels),
        pixels => {
            let got = pixels.unwrap_or(usize::MAX) as u64;
            Err(FormatError::Large { what: "pixels", got, most: most as u64 })
        }
    }
}

fn jpeg(bytes: &[u8], most: usize) -> Result<Picture, FormatError> {
    if !jpeg_ends(bytes) {
        return Err(FormatError::Decode("it ends before the end of its picture".into()));
    }
    // No intrinsics, even if another crate compiles them in.
    let options = DecoderOptions::new_safe()
        .set_use_unsafe(false)
        .set_strict_mode(true)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(damaged)?;
    let (w, h) = decoder.dimensions().ok_or_else(|| damaged("it has no size"))?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let mut rgb = vec![0; checked(h, w, most)?];
    decoder.decode_into(&mut rgb).map_err(damaged)?;
    let picture = Picture { h, w, grey, rgb };
    match decoder.exif().and_then(|exif| Orientation::from_exif_chunk(exif)) {
        None | Some(Orientation::NoTransforms) => Ok(picture),
        Some(orientation) => turn(picture, orientation),
    }
}

/// Turns and mirrors a picture as whoever took it held the camera.
fn turn(picture: Picture, orientation: Orientation) -> Result<Picture, FormatError> {
    let Picture { h, w, grey, rgb } = picture;
    let (got, want) = (rgb.len() as u64, 3 * h as u64 * w as u64);
    let image = RgbImage::from_raw(w as u32, h as u32, rgb).ok_or(FormatError::Size { got, want })?;
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    Ok(Picture { h: image.height() as usize, w: image.width() as usize, grey, rgb: image.into_rgb8().into_raw() })
}

/// Whether the marker of a JPEG's end is reached. Without this, a file whose last row of blocks is cut off would pass.
fn jpeg_ends(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(JPEG.len()..).unwrap_or_default();
    // The next marker, over a scan's data: stuffed bytes and restarts are part of it.
    let marker = |w: &[u8]| w[0] == 0xff && !matches!(w[1], 0 | 0xd0..=0xd7 | 0xff);
    while let Some(at) = rest.windows(2).position(marker) {
        if rest[at + 1] == 0xd9 {
            return true;
        }
        let Some(&[high, low]) = rest.get(at + 2..at + 4) else { return false };
        rest = rest.get(at + 2 + usize::from(u16::from_be_bytes([high, low]))..).unwrap_or_default();
    }
    false
}

fn png(bytes: &[u8], most: usize) -> Result<Picture, FormatError> {
    if !png_ends(bytes) {
        return Err(FormatError::Decode("it ends before the end of its picture".into()));
    }
    let mut limits = Limits::default();
    // 4 channels of 16 bits, and something for what describes the picture.
    limits.max_alloc = Some(8 * most as u64 + (1 << 20));
    let decoder = PngDecoder::with_limits(Cursor::new(bytes), limits).map_err(damaged)?;
    let (w, h) = decoder.dimensions();
    let (h, w) = (h as usize, w as usize);
    let len = checked(h, w, most)?;
    let kind = decoder.color_type();
    let mut raw = vec![0; usize::from(kind.bytes_per_pixel()) * (len / 3)];
    decoder.read_image(&mut raw).map_err(damaged)?;
    let channels = usize::from(kind.channel_count());
    if usize::from(kind.bytes_per_pixel()) > channels {
        let round = |v: u16| ((u32::from(v) + 128) / 257) as u8;
        raw = raw.as_chunks::<2>().0.iter().map(|v| round(u16::from_ne_bytes(*v))).collect();
    }
    let grey = !kind.has_color();
    let mut rgb = Vec::with_capacity(len);
    for pixel in raw.chunks_exact(channels) {
        match *pixel {
            [r, g, b, ..] => rgb.extend([r, g, b]),
            [v, ..] => rgb.extend([v; 3]),
            [] => {}
        }
    }
    Ok(Picture { h, w, grey, rgb })
}

/// Whether the chunk of a PNG's end is whole.
fn png_ends(bytes: &[u8]) -> bool {
    let mut rest = bytes.get(PNG.len()..).unwrap_or_default();
    while let Some((head, behind)) = rest.split_first_chunk::<8>() {
        let [a, b, c, d, kind @ ..] = *head;
        let end = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some(next) = end.checked_add(4).and_then(|end| behind.get(end..)) else { return false };
        if kind == *b"IEND" {
            return true;
        }
        rest = next;
    }
    false
}

#[cfg(test)]
pub(super) mod tests;

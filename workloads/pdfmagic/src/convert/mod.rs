//! From the bytes of an image to the bytes of a PDF with one page.
//!
//! Pixels are not touched where PDF can hold them as they are: a JPEG's coded data goes in whole (DCTDecode), a PNG's
//! compressed rows too (FlateDecode with a PNG predictor). Only PNGs with an alpha channel or interlacing are decoded.
//!
//! Nothing in here does I/O, and no input makes it panic or allocate in proportion to dimensions that a header merely
//! claims.

mod error;
mod exif;
mod icc;
mod jpeg;
mod page;
mod pdf;
mod png;

pub use error::{ConvertError, Format};
pub use page::{DEFAULT_DENSITY, MAX_PAGE_UNITS};

use std::time::Instant;

/// Neither side of an image may be longer, in pixels. JPEG cannot express more; for PNG it keeps one row, and with it
/// the memory of a streaming conversion, below 512 KiB.
pub const MAX_SIDE: u32 = 65_535;

/// What one conversion may use.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Width times height, in pixels.
    pub max_pixels: u64,
    /// Bytes of pixels that may be in memory at once. Only an interlaced PNG needs the whole picture.
    pub max_decoded_bytes: u64,
    /// When to give up. Looked at between blocks of work of about a millisecond.
    pub deadline: Option<Instant>,
}

impl Limits {
    /// 100 megapixels: more than any camera's frame, less than a scanned newspaper page at 1200 dpi.
    pub const DEFAULT_MAX_PIXELS: u64 = 100_000_000;
    pub const DEFAULT_MAX_DECODED_BYTES: u64 = 256 << 20;

    fn check_pixels(&self, format: Format, width: u32, height: u32) -> Result<(), ConvertError> {
        if width == 0 || height == 0 {
            return Err(ConvertError::damaged(
                format,
                format!("its size is given as {width} x {height} pixels"),
            ));
        }
        if u64::from(width) * u64::from(height) > self.max_pixels {
            return Err(ConvertError::TooManyPixels { width, height, limit: self.max_pixels });
        }
        if width > MAX_SIDE || height > MAX_SIDE {
            let what = format!("{width} x {height} pixels have a side longer than {MAX_SIDE}");
            return Err(ConvertError::unsupported(format, what));
        }
        Ok(())
    }

    fn check_time(&self) -> Result<(), ConvertError> {
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(ConvertError::OutOfTime),
            _ => Ok(()),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_pixels: Self::DEFAULT_MAX_PIXELS,
            max_decoded_bytes: Self::DEFAULT_MAX_DECODED_BYTES,
            deadline: None,
        }
    }
}

/// The format of a file by its first bytes; file names and content types are claims, these are facts.
pub fn detect(image: &[u8]) -> Result<Format, ConvertError> {
    const OTHERS: [(&[u8], &str); 7] = [
        (b"GIF8", "a GIF"),
        (b"%PDF", "a PDF"),
        (b"RIFF", "a WebP or another RIFF file"),
        (b"BM", "a BMP"),
        (b"II*\0", "a TIFF"),
        (b"MM\0*", "a TIFF"),
        (b"<", "text or markup, perhaps an SVG"),
    ];
    if image.starts_with(&[0xFF, 0xD8, 0xFF]) {
        return Ok(Format::Jpeg);
    }
    if image.starts_with(png::SIGNATURE) {
        return Ok(Format::Png);
    }
    if image.is_empty() {
        return Err(ConvertError::NotAnImage { looks_like: "an empty one" });
    }
    let known = OTHERS.iter().find(|(magic, _)| image.starts_with(magic));
    Err(ConvertError::NotAnImage { looks_like: known.map_or("something else", |(_, name)| name) })
}

/// Converts a JPEG or PNG to a PDF of one page that has the image's size at its density.
pub fn convert(image: &[u8], limits: &Limits) -> Result<Vec<u8>, ConvertError> {
    limits.check_time()?;
    match detect(image)? {
        Format::Jpeg => jpeg::convert(image, limits),
        Format::Png => png::convert(image, limits),
    }
}

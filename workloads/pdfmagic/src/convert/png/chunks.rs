//! The file's chunks and what they say.

use super::super::exif::{self, Exif};
use super::super::icc::MAX_PROFILE;
use super::super::page::Density;
use super::{ConvertError, Format, Limits, damaged, unsupported};
use flate2::read::ZlibDecoder;
use std::borrow::Cow;
use std::io::Read;

pub const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    Gray,
    Rgb,
    Palette,
    GrayAlpha,
    Rgba,
}

impl Colour {
    pub fn channels(self) -> usize {
        match self {
            Colour::Gray | Colour::Palette => 1,
            Colour::GrayAlpha => 2,
            Colour::Rgb => 3,
            Colour::Rgba => 4,
        }
    }
}

/// A PNG whose chunks are whole and in order. Its rows have not been looked at yet.
pub struct Png<'a> {
    pub width: u32,
    pub height: u32,
    /// A sample's, 1 to 16.
    pub bits: u8,
    pub colour: Colour,
    pub interlaced: bool,
    /// Three bytes an entry, 1 to 256 entries; empty unless the picture has a palette.
    palette: &'a [u8],
    /// Of the right length for the colour type.
    pub trns: Option<&'a [u8]>,
    pub density: Option<Density>,
    pub exif: Exif,
    compressed_profile: Option<&'a [u8]>,
    /// Consecutive pieces of one zlib stream.
    pub data: Vec<&'a [u8]>,
}

struct Chunk<'a> {
    kind: [u8; 4],
    payload: &'a [u8],
}

impl<'a> Png<'a> {
    /// Reads every chunk up to IEND. The header's limits are applied before anything behind it is looked at.
    pub fn read(file: &'a [u8], limits: &Limits) -> Result<Self, ConvertError> {
        let mut rest = &file[SIGNATURE.len()..];
        let first = next_chunk(&mut rest)?;
        if first.kind != *b"IHDR" {
            return Err(damaged("it does not begin with its header (IHDR)"));
        }
        let mut png = Self::header(first.payload, limits)?;
        let mut data_ended = false;
        loop {
            let chunk = next_chunk(&mut rest)?;
            data_ended |= !png.data.is_empty() && chunk.kind != *b"IDAT";
            match &chunk.kind {
                b"IEND" => break,
                b"IDAT" if data_ended => return Err(damaged("other chunks stand between its IDAT chunks")),
                b"IDAT" => png.data.push(chunk.payload),
                b"PLTE" => png.set_palette(chunk.payload)?,
                b"tRNS" => png.set_transparency(chunk.payload)?,
                b"IHDR" => return Err(damaged("it has a second header (IHDR)")),
                b"pHYs" => png.density = density(chunk.payload),
                b"eXIf" => png.exif = exif::parse(chunk.payload),
                b"iCCP" => png.compressed_profile = Some(chunk.payload),
                kind if kind[0].is_ascii_uppercase() => {
                    return Err(unsupported(format!("it needs the unknown chunk {}", kind.escape_ascii())));
                }
                _ => {}
            }
        }
        if png.data.is_empty() {
            return Err(damaged("it holds no picture (no IDAT chunk)"));
        }
        if png.colour == Colour::Palette && png.palette.is_empty() {
            return Err(damaged("it has no palette (PLTE) although its colours are indexes"));
        }
        Ok(png)
    }

    fn header(payload: &[u8], limits: &Limits) -> Result<Self, ConvertError> {
        let &[w3, w2, w1, w0, h3, h2, h1, h0, bits, colour, compression, filter, interlace] = payload else {
            return Err(damaged("its header (IHDR) does not have 13 bytes"));
        };
        let width = u32::from_be_bytes([w3, w2, w1, w0]);
        let height = u32::from_be_bytes([h3, h2, h1, h0]);
        limits.check_pixels(Format::Png, width, height)?;
        let colour = match (colour, bits) {
            (0, 1 | 2 | 4 | 8 | 16) => Colour::Gray,
            (2, 8 | 16) => Colour::Rgb,
            (3, 1 | 2 | 4 | 8) => Colour::Palette,
            (4, 8 | 16) => Colour::GrayAlpha,
            (6, 8 | 16) => Colour::Rgba,
            _ => return Err(damaged(format!("there is no PNG of colour type {colour} with {bits} bits"))),
        };
        if compression != 0 || filter != 0 || interlace > 1 {
            return Err(damaged("its header states an unknown compression, filter or interlace method"));
        }
        Ok(Png {
            width,
            height,
            bits,
            colour,
            interlaced: interlace == 1,
            palette: &[],
            trns: None,
            density: None,
            exif: Exif::default(),
            compressed_profile: None,
            data: Vec::new(),
        })
    }

    fn set_palette(&mut self, payload: &'a [u8]) -> Result<(), ConvertError> {
        // In RGB pictures the palette is only a suggestion.
        if self.colour == Colour::Palette {
            if payload.is_empty() || payload.len() > 768 || !payload.len().is_multiple_of(3) {
                return Err(damaged(format!("its palette has the impossible length {}", payload.len())));
            }
            self.palette = payload;
        }
        Ok(())
    }

    fn set_transparency(&mut self, payload: &'a [u8]) -> Result<(), ConvertError> {
        let fits = match self.colour {
            Colour::Gray => payload.len() == 2,
            Colour::Rgb => payload.len() == 6,
            Colour::Palette => (1..=256).contains(&payload.len()),
            Colour::GrayAlpha | Colour::Rgba => return Ok(()),
        };
        if !fits {
            return Err(damaged(format!(
                "its transparency (tRNS) has the impossible length {}",
                payload.len()
            )));
        }
        self.trns = Some(payload);
        Ok(())
    }

    /// Bytes of one row without its filter type.
    pub fn row_bytes(&self) -> usize {
        (self.width as usize * self.colour.channels() * usize::from(self.bits)).div_ceil(8)
    }

    /// The zlib stream in one piece.
    pub fn rows(&self) -> Cow<'a, [u8]> {
        match self.data.as_slice() {
            [only] => Cow::Borrowed(only),
            pieces => Cow::Owned(pieces.concat()),
        }
    }

    /// The palette with an entry for every index that the samples can express. An index beyond the file's own palette
    /// is an error of the file; it is shown black, as libpng does, where readers of the PDF would each differ.
    pub fn full_palette(&self) -> Vec<u8> {
        let mut palette = self.palette.to_vec();
        if self.colour == Colour::Palette {
            palette.resize(3 << self.bits, 0);
        }
        palette
    }

    /// The colour profile, if it can be inflated within [`MAX_PROFILE`].
    pub fn profile(&self) -> Option<Vec<u8>> {
        let chunk = self.compressed_profile?;
        let name = chunk.iter().position(|&byte| byte == 0)?;
        let &[_, 0, ref compressed @ ..] = chunk.get(name..)? else { return None };
        let mut profile = Vec::new();
        ZlibDecoder::new(compressed).take(MAX_PROFILE as u64 + 1).read_to_end(&mut profile).ok()?;
        (profile.len() <= MAX_PROFILE).then_some(profile)
    }
}

fn next_chunk<'a>(rest: &mut &'a [u8]) -> Result<Chunk<'a>, ConvertError> {
    let cut_off = || damaged("it ends before its end chunk (IEND); the file was cut off");
    let (length, after) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
    let length = u32::from_be_bytes(*length) as usize;
    let &kind = after.first_chunk::<4>().ok_or_else(cut_off)?;
    let checked = after.get(..4 + length).ok_or_else(cut_off)?;
    let (checksum, after) = after[4 + length..].split_first_chunk::<4>().ok_or_else(cut_off)?;
    if crc32fast::hash(checked) != u32::from_be_bytes(*checksum) {
        return Err(damaged(format!("the checksum of its {} chunk is wrong", kind.escape_ascii())));
    }
    *rest = after;
    Ok(Chunk { kind, payload: &checked[4..] })
}

/// pHYs: pixels per unit on both axes, then the unit: 1 the metre, 0 none.
fn density(payload: &[u8]) -> Option<Density> {
    let &[x3, x2, x1, x0, y3, y2, y1, y0, unit] = payload else { return None };
    let (x, y) = (u32::from_be_bytes([x3, x2, x1, x0]).into(), u32::from_be_bytes([y3, y2, y1, y0]).into());
    match unit {
        1 => Density::per_metre(x, y),
        0 if x != y => Density::aspect_ratio(x, y),
        _ => None,
    }
}

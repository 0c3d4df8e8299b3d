//! Decoding a PNG and packing colour and alpha again, each as a PNG's rows, a row at a time.
//!
//! Memory is one row and the packed planes, unless the picture is interlaced: then all of its pixels, which
//! [`Limits::max_decoded_bytes`] bounds.

use super::chunks::{Colour, Png, SIGNATURE};
use super::{ConvertError, Format, Limits, damaged, unsupported};
use png::{
    BitDepth, ColorType, DecodingError, DeflateCompression, EncodingError, Filter, InterlaceInfo,
    expand_interlaced_row,
};
use std::io::{Cursor, Write};

/// What the decoder may allocate for itself: two rows of the longest side with 8 bytes a pixel, its window and chunks
/// that it buffers.
const DECODER_BYTES: usize = 16 << 20;

/// Compressed data is handed on in pieces of this size while a plane is written.
const PIECE: usize = 64 << 10;

/// Packs a 640 x 480 RGBA plasma in 7 ms of one core, all included, to less than zlib's first level makes of it in 14 ms.
/// Noise can come out a little larger than it went in, as png documents for this mode.
const LEVEL: DeflateCompression = DeflateCompression::FdeflateUltraFast;

/// Zlib streams of rows. `None` where nothing had to be packed.
#[derive(Default)]
pub struct Planes {
    pub colour: Option<Vec<u8>>,
    pub alpha: Option<AlphaPlane>,
}

pub struct AlphaPlane {
    pub bits: u8,
    pub data: Vec<u8>,
}

/// Decodes `file`, which `png` describes, to its alpha plane and, if `with_colour`, its colour plane. A plane that
/// turns out to be opaque everywhere is left out.
pub fn decode(
    file: &[u8],
    png: &Png<'_>,
    with_colour: bool,
    limits: &Limits,
) -> Result<Planes, ConvertError> {
    let mut decoder = png::Decoder::new_with_limits(Cursor::new(file), png::Limits { bytes: DECODER_BYTES });
    decoder.set_transformations(png::Transformations::IDENTITY);
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let mut reader = decoder.read_info().map_err(decoding)?;
    let splitter = Splitter::new(png);
    let mut colour_file = Vec::new();
    let mut alpha_file = Vec::new();
    let opaque = {
        let mut colour = match with_colour {
            true => Some(plane(&mut colour_file, png, splitter.colour_type, png.bits)?),
            false => None,
        };
        let mut alpha = match splitter.alpha_bits {
            Some(bits) => Some(plane(&mut alpha_file, png, ColorType::Grayscale, bits)?),
            None => None,
        };
        pack(&mut reader, png, &splitter, [rows_of(&mut colour)?, rows_of(&mut alpha)?], limits)?
    };
    let colour = if with_colour { Some(data_of(&colour_file)) } else { None };
    let alpha =
        splitter.alpha_bits.filter(|_| !opaque).map(|bits| AlphaPlane { bits, data: data_of(&alpha_file) });
    Ok(Planes { colour, alpha })
}

type PlaneWriter<'a> = png::Writer<&'a mut Vec<u8>>;
type Rows<'w, 'a> = png::StreamWriter<'w, &'a mut Vec<u8>>;

fn plane<'a>(
    file: &'a mut Vec<u8>,
    png: &Png<'_>,
    colour: ColorType,
    bits: u8,
) -> Result<PlaneWriter<'a>, ConvertError> {
    let mut encoder = png::Encoder::new(file, png.width, png.height);
    encoder.set_color(colour);
    encoder.set_depth(BitDepth::from_u8(bits).unwrap_or(BitDepth::Eight));
    encoder.set_deflate_compression(LEVEL);
    encoder.set_filter(if bits < 8 || png.colour == Colour::Palette {
        Filter::NoFilter
    } else {
        Filter::Adaptive
    });
    encoder.write_header().map_err(encoding)
}

fn rows_of<'w, 'a>(plane: &'w mut Option<PlaneWriter<'a>>) -> Result<Option<Rows<'w, 'a>>, ConvertError> {
    plane.as_mut().map(|writer| writer.stream_writer_with_size(PIECE)).transpose().map_err(encoding)
}

/// Sends every row of the picture to the planes for colour and alpha. True if all of it is opaque.
fn pack(
    reader: &mut png::Reader<Cursor<&[u8]>>,
    png: &Png<'_>,
    splitter: &Splitter<'_>,
    [mut colour, mut alpha]: [Option<Rows<'_, '_>>; 2],
    limits: &Limits,
) -> Result<bool, ConvertError> {
    let mut opaque = true;
    let mut split = Row::default();
    let mut take = |row: &[u8]| -> Result<(), ConvertError> {
        limits.check_time()?;
        splitter.split(row, &mut split);
        opaque &= split.alpha.iter().all(|&value| value == 0xFF);
        for (plane, samples) in [(&mut colour, &split.colour), (&mut alpha, &split.alpha)] {
            if let Some(plane) = plane {
                plane.write_all(samples).map_err(|error| encoding(error.into()))?;
            }
        }
        Ok(())
    };
    if png.interlaced {
        whole_picture(reader, png, limits)?.chunks_exact(png.row_bytes()).try_for_each(&mut take)?;
    } else {
        while let Some(row) = reader.next_row().map_err(decoding)? {
            take(row.data())?;
        }
    }
    reader.finish().map_err(decoding)?;
    for plane in [colour, alpha].into_iter().flatten() {
        plane.finish().map_err(encoding)?;
    }
    Ok(opaque)
}

/// The pixels of an interlaced picture in their places.
fn whole_picture(
    reader: &mut png::Reader<Cursor<&[u8]>>,
    png: &Png<'_>,
    limits: &Limits,
) -> Result<Vec<u8>, ConvertError> {
    let needed = png.row_bytes() as u64 * u64::from(png.height);
    if needed > limits.max_decoded_bytes {
        return Err(ConvertError::TooMuchMemory { needed, limit: limits.max_decoded_bytes });
    }
    let mut pixels = vec![0; needed as usize];
    while let Some(row) = reader.next_interlaced_row().map_err(decoding)? {
        limits.check_time()?;
        if let InterlaceInfo::Adam7(pass) = row.interlace() {
            let bits_per_pixel = png.colour.channels() as u8 * png.bits;
            expand_interlaced_row(&mut pixels, png.row_bytes(), row.data(), pass, bits_per_pixel);
        }
    }
    Ok(pixels)
}

/// The IDAT data of a PNG that was just written here.
fn data_of(file: &[u8]) -> Vec<u8> {
    let mut data = Vec::with_capacity(file.len());
    let mut rest = file.get(SIGNATURE.len()..).unwrap_or_default();
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (Some(kind), Some(payload)) = (after.get(..4), after.get(4..4 + length)) else { break };
        if kind == b"IDAT" {
            data.extend_from_slice(payload);
        }
        rest = after.get(4 + length + 4..).unwrap_or_default();
    }
    data
}

/// One row, colour and alpha apart.
#[derive(Default)]
struct Row {
    colour: Vec<u8>,
    alpha: Vec<u8>,
}

struct Splitter<'a> {
    colour_type: ColorType,
    /// `None`: the picture has no alpha that a mask must hold.
    alpha_bits: Option<u8>,
    /// Bytes of a pixel's colour and of its alpha channel; meaningful from 8 bits a sample.
    colour_bytes: usize,
    alpha_bytes: usize,
    png: &'a Png<'a>,
}

impl<'a> Splitter<'a> {
    fn new(png: &'a Png<'a>) -> Self {
        let sample = usize::from(png.bits / 8);
        let (colour_type, channels) = match png.colour {
            // A palette's indexes are packed as if they were greys; the PDF says what they mean.
            Colour::Gray | Colour::GrayAlpha | Colour::Palette => (ColorType::Grayscale, 1),
            Colour::Rgb | Colour::Rgba => (ColorType::Rgb, 3),
        };
        let alpha_bits = match (png.colour, super::Alpha::of(png)) {
            (Colour::GrayAlpha | Colour::Rgba, _) => Some(png.bits),
            (_, super::Alpha::Partial | super::Alpha::Wide) => Some(8),
            _ => None,
        };
        let alpha_bytes = if matches!(png.colour, Colour::GrayAlpha | Colour::Rgba) { sample } else { 0 };
        Splitter { colour_type, alpha_bits, colour_bytes: channels * sample, alpha_bytes, png }
    }

    fn split(&self, row: &[u8], into: &mut Row) {
        into.colour.clear();
        into.alpha.clear();
        if self.alpha_bytes > 0 {
            for pixel in row.chunks_exact(self.colour_bytes + self.alpha_bytes) {
                let (colour, alpha) = pixel.split_at(self.colour_bytes);
                into.colour.extend_from_slice(colour);
                into.alpha.extend_from_slice(alpha);
            }
            return;
        }
        into.colour.extend_from_slice(row);
        let (Some(trns), Some(_)) = (self.png.trns, self.alpha_bits) else { return };
        if self.png.colour == Colour::Palette {
            let alpha_of = |index: u8| trns.get(usize::from(index)).copied().unwrap_or(0xFF);
            into.alpha.extend(indexes(row, self.png.bits).take(self.png.width as usize).map(alpha_of));
        } else {
            let clear = |pixel: &[u8]| if pixel == trns { 0 } else { 0xFF };
            into.alpha.extend(row.chunks_exact(self.colour_bytes).map(clear));
        }
    }
}

/// The samples of a row with up to 8 bits each, the leftmost in the highest bits.
fn indexes(row: &[u8], bits: u8) -> impl Iterator<Item = u8> + '_ {
    let per_byte = 8 / bits;
    let mask = (0xFF_u16 >> (8 - bits)) as u8;
    row.iter().flat_map(move |&byte| (0..per_byte).map(move |at| byte >> (8 - bits * (at + 1)) & mask))
}

fn decoding(error: DecodingError) -> ConvertError {
    match error {
        DecodingError::LimitsExceeded => {
            unsupported("its chunks are larger than the decoder's limit of 16 MiB")
        }
        DecodingError::IoError(_) => damaged("it ends before its picture does; the file was cut off"),
        DecodingError::Format(error) => damaged(error.to_string()),
        DecodingError::Parameter(error) => ConvertError::damaged(Format::Png, error.to_string()),
    }
}

fn encoding(error: EncodingError) -> ConvertError {
    unsupported(format!("its picture could not be packed again: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_taken_from_the_left() {
        assert_eq!(indexes(&[0b1010_0001], 1).collect::<Vec<_>>(), [1, 0, 1, 0, 0, 0, 0, 1]);
        assert_eq!(indexes(&[0b11_10_01_00], 2).collect::<Vec<_>>(), [3, 2, 1, 0]);
        assert_eq!(indexes(&[0xA5], 4).collect::<Vec<_>>(), [0xA, 5]);
        assert_eq!(indexes(&[7, 200], 8).collect::<Vec<_>>(), [7, 200]);
    }
}

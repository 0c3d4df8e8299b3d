//! PNG: the compressed rows go into the PDF as they are where PDF can express the picture, and are decoded and packed
//! anew, colour and alpha apart, where it cannot.
//!
//! ```text
//! chunks.rs   the file's chunks, their checksums, the header's facts
//! rows.rs     inflating compressed rows to see that they are whole, in fixed memory
//! planes.rs   decoding into a colour and an alpha plane
//! ```
//!
//! | picture | colour | transparency |
//! |---|---|---|
//! | grey, RGB, palette | as it is | |
//! | grey or RGB up to 8 bits with a transparent colour | as it is | colour key |
//! | palette with clear entries next to each other | as it is | colour key |
//! | palette with other alpha values | as it is | decoded mask |
//! | grey or RGB with alpha, or 16 bits with a transparent colour | packed anew | decoded mask |
//! | anything interlaced | packed anew | as above |
//!
//! Source: W3C, Portable Network Graphics (Third Edition).

mod chunks;
mod planes;
mod rows;

use super::Limits;
use super::error::{ConvertError, Format};
use super::icc::{self, Space};
use super::page::Placement;
use super::pdf::{self, Coding, Colours, Picture, Transparency};
use chunks::{Colour, Png};
use std::borrow::Cow;

pub use chunks::SIGNATURE;

fn damaged(what: impl Into<String>) -> ConvertError {
    ConvertError::damaged(Format::Png, what)
}

fn unsupported(what: impl Into<String>) -> ConvertError {
    ConvertError::unsupported(Format::Png, what)
}

pub fn convert(image: &[u8], limits: &Limits) -> Result<Vec<u8>, ConvertError> {
    let png = Png::read(image, limits)?;
    let alpha = Alpha::of(&png);
    let keeps_rows =
        !png.interlaced && !matches!(png.colour, Colour::GrayAlpha | Colour::Rgba) && alpha != Alpha::Wide;
    let planes = if keeps_rows && alpha != Alpha::Partial {
        rows::check(&png, limits)?;
        planes::Planes::default()
    } else {
        planes::decode(image, &png, !keeps_rows, limits)?
    };
    let data = match &planes.colour {
        Some(packed) => Cow::Borrowed(packed.as_slice()),
        None => png.rows(),
    };
    let transparency = match (&planes.alpha, alpha) {
        (Some(plane), _) => Transparency::Mask { bits: plane.bits, data: &plane.data },
        (None, Alpha::Key(ranges)) => Transparency::Key(ranges),
        (None, _) => Transparency::None,
    };
    let profile = png.profile();
    let palette = png.full_palette();
    let picture = Picture {
        width: png.width,
        height: png.height,
        bits: png.bits,
        colours: colours(&png, profile.as_deref(), &palette),
        coding: Coding::PngRows,
        data: &data,
        transparency,
    };
    let density = png.density.or(png.exif.density).unwrap_or_default();
    pdf::write(&picture, &Placement::new(png.width, png.height, density, png.exif.orientation))
}

fn colours<'a>(png: &Png<'_>, profile: Option<&'a [u8]>, palette: &'a [u8]) -> Colours<'a> {
    let space = match png.colour {
        Colour::Palette => return Colours::Palette(palette),
        Colour::Gray | Colour::GrayAlpha => Space::Gray,
        Colour::Rgb | Colour::Rgba => Space::Rgb,
    };
    match profile.and_then(|profile| icc::usable(profile, space)) {
        Some(profile) => Colours::Profiled(space, profile),
        None => Colours::Device(space),
    }
}

/// What the tRNS chunk asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Alpha {
    None,
    /// PDF's colour key: low and high of each component.
    Key(Vec<i32>),
    /// Palette entries that are neither clear nor opaque, or clear ones that are not one range.
    Partial,
    /// A transparent colour of 16 bits: readers compare only the upper eight, so it becomes a mask.
    Wide,
}

impl Alpha {
    fn of(png: &Png<'_>) -> Self {
        let Some(trns) = png.trns else { return Alpha::None };
        match png.colour {
            Colour::GrayAlpha | Colour::Rgba => Alpha::None,
            Colour::Gray | Colour::Rgb if png.bits == 16 => Alpha::Wide,
            Colour::Gray | Colour::Rgb => {
                let mask = (1_i32 << png.bits) - 1;
                let sample = |pair: &[u8]| i32::from(pair[0]) << 8 | i32::from(pair[1]);
                Alpha::Key(trns.chunks_exact(2).flat_map(|pair| [sample(pair) & mask; 2]).collect())
            }
            Colour::Palette => {
                let clear = |&(_, &alpha): &(usize, &u8)| alpha == 0;
                let entries = trns.iter().enumerate();
                if trns.iter().all(|&alpha| alpha == 255) {
                    return Alpha::None;
                }
                let (first, last) = (entries.clone().find(clear), entries.clone().rev().find(clear));
                match (first, last) {
                    (Some((first, _)), Some((last, _)))
                        if entries.clone().all(|(at, &alpha)| {
                            alpha == if (first..=last).contains(&at) { 0 } else { 255 }
                        }) =>
                    {
                        Alpha::Key(vec![first as i32, last as i32])
                    }
                    _ => Alpha::Partial,
                }
            }
        }
    }
}

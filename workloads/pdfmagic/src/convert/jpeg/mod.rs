//! JPEG: read closely enough to know that it is whole and how to lay it on the page, then embedded byte for byte.
//!
//! ```text
//! segments.rs   markers and their payloads, the coded data between them
//! tables.rs     quantisation and Huffman tables: well formed, and which are defined
//! frame.rs      the picture's size and components; the scans that must fill them
//! ```
//!
//! No pixel is decoded. What is checked instead makes a file that ends early or lies about its size fail here and not
//! in front of its reader: every segment lies inside the file, every scan names tables that exist, holds the least
//! number of bits that its blocks need and all of its restart markers, every component is covered, and the file ends
//! with an end marker. Damage inside the coded data that keeps to this is passed on, as it is by every JPEG tool that
//! does not decode.
//!
//! Source: ITU-T T.81 (1992), Annex B; Adobe Technical Note 5116 for the APP14 segment; JFIF 1.02 for APP0.

mod frame;
mod segments;
mod tables;

use super::Limits;
use super::error::{ConvertError, Format};
use super::exif::{self, Exif};
use super::icc::{self, Space};
use super::page::{Density, Placement};
use super::pdf::{self, Coding, Colours, Picture, Transparency};
use frame::Frame;
use segments::{Reader, marker};
use tables::Tables;

fn damaged(what: impl Into<String>) -> ConvertError {
    ConvertError::damaged(Format::Jpeg, what)
}

fn unsupported(what: impl Into<String>) -> ConvertError {
    ConvertError::unsupported(Format::Jpeg, what)
}

pub fn convert(image: &[u8], limits: &Limits) -> Result<Vec<u8>, ConvertError> {
    let jpeg = Jpeg::read(image, limits)?;
    let space = jpeg.frame.space();
    let profile = jpeg.profile();
    let colours = match profile.as_deref().and_then(|profile| icc::usable(profile, space)) {
        Some(profile) => Colours::Profiled(space, profile),
        None => Colours::Device(space),
    };
    let picture = Picture {
        width: jpeg.frame.width,
        height: jpeg.frame.height,
        bits: 8,
        colours,
        coding: jpeg.coding(),
        data: &image[..jpeg.end],
        transparency: Transparency::None,
    };
    let density = jpeg.jfif_density.or(jpeg.exif.density).unwrap_or_default();
    let placement = Placement::new(picture.width, picture.height, density, jpeg.exif.orientation);
    pdf::write(&picture, &placement)
}

/// What the segments of a file say.
struct Jpeg<'a> {
    frame: Frame,
    /// Adobe's colour transform: 0 none, 1 YCbCr, 2 YCCK.
    adobe: Option<u8>,
    has_jfif: bool,
    jfif_density: Option<Density>,
    exif: Exif,
    /// The pieces of a colour profile with their numbers, as found.
    profile: Vec<(u8, &'a [u8])>,
    /// Just after the end marker. Cameras append further pictures there, which are not this one.
    end: usize,
}

/// Applications' segments, before it is known that the frame is sound.
#[derive(Default)]
struct Remarks<'a> {
    adobe: Option<u8>,
    has_jfif: bool,
    jfif_density: Option<Density>,
    exif: Option<Exif>,
    profile: Vec<(u8, &'a [u8])>,
}

impl<'a> Jpeg<'a> {
    fn read(image: &'a [u8], limits: &Limits) -> Result<Self, ConvertError> {
        let mut reader = Reader::after_start(image);
        let mut tables = Tables::default();
        let mut remarks = Remarks::default();
        let mut frame: Option<Frame> = None;
        loop {
            match reader.marker()? {
                marker::END => break,
                code if marker::is_frame(code) => {
                    if frame.is_some() {
                        return Err(damaged("it has a second frame header"));
                    }
                    frame = Some(Frame::parse(code, reader.payload("frame header")?, limits)?);
                }
                marker::QUANTISATION => tables.quantisation(reader.payload("quantisation table")?)?,
                marker::HUFFMAN => tables.huffman(reader.payload("Huffman table")?)?,
                marker::RESTART_INTERVAL => tables.restart_interval(reader.payload("restart interval")?)?,
                marker::SCAN => {
                    limits.check_time()?;
                    let header = reader.payload("scan header")?;
                    let frame =
                        frame.as_mut().ok_or_else(|| damaged("a scan comes before the frame header"))?;
                    let scan = frame.scan(header, &tables)?;
                    scan.check(reader.coded_data())?;
                }
                code if marker::is_application(code) => {
                    remarks.note(code, reader.payload("application segment")?);
                }
                code if marker::has_payload(code) => {
                    reader.payload("segment")?;
                }
                code => return Err(damaged(format!("marker {code:#04x} stands where none of its kind may"))),
            }
        }
        let frame = frame.ok_or_else(|| damaged("it ends without a frame header"))?;
        frame.check_complete()?;
        let Remarks { adobe, has_jfif, jfif_density, exif, profile } = remarks;
        let exif = exif.unwrap_or_default();
        Ok(Jpeg { frame, adobe, has_jfif, jfif_density, exif, profile, end: reader.position() })
    }

    /// Adobe's CMYK is stored with 255 for no ink. What the file says by its own marker, a PDF reader follows without
    /// being told; three components with neither marker are RGB only if they are named so.
    fn coding(&self) -> Coding {
        let inverted = self.frame.space() == Space::Cmyk && self.adobe.is_some();
        let unmarked = self.adobe.is_none() && !self.has_jfif;
        let transform = (unmarked && self.frame.named_rgb()).then_some(false);
        Coding::Dct { transform, inverted }
    }

    /// The profile put together, if its pieces are all there.
    fn profile(&self) -> Option<Vec<u8>> {
        let mut pieces = self.profile.clone();
        pieces.sort_by_key(|(number, _)| *number);
        let complete = pieces.iter().zip(1_u8..).all(|((number, _), expected)| *number == expected);
        (complete && !pieces.is_empty())
            .then(|| pieces.iter().flat_map(|(_, piece)| piece.iter().copied()).collect())
    }
}

impl<'a> Remarks<'a> {
    /// The first segment of each kind counts; one that is too short is somebody else's.
    fn note(&mut self, code: u8, payload: &'a [u8]) {
        match code {
            marker::APP0 if payload.starts_with(b"JFIF\0") && !self.has_jfif => {
                self.has_jfif = true;
                self.jfif_density = payload.get(7..12).and_then(jfif_density);
            }
            marker::APP1 if self.exif.is_none() => {
                self.exif = payload.strip_prefix(b"Exif\0\0").map(exif::parse);
            }
            marker::APP2 => {
                if let Some([number, _count, piece @ ..]) = payload.strip_prefix(b"ICC_PROFILE\0") {
                    self.profile.push((*number, piece));
                }
            }
            marker::APP14 if payload.starts_with(b"Adobe") && self.adobe.is_none() => {
                self.adobe = payload.get(11).copied();
            }
            _ => {}
        }
    }
}

/// `[units, x, x, y, y]` of JFIF's APP0.
fn jfif_density(fields: &[u8]) -> Option<Density> {
    let &[units, x0, x1, y0, y1] = fields else { return None };
    let (x, y) = (u16::from_be_bytes([x0, x1]).into(), u16::from_be_bytes([y0, y1]).into());
    match units {
        1 => Density::per_inch(x, y),
        2 => Density::per_centimetre(x, y),
        // Equal figures say that pixels are square, which leaves room for EXIF to say more.
        0 if x != y => Density::aspect_ratio(x, y),
        _ => None,
    }
}

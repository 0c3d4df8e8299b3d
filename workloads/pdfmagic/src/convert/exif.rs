//! The three things of EXIF that matter on paper: orientation, resolution and its unit.
//!
//! Source: CIPA DC-008 (Exif 3.0), 4.6.2 and 4.6.5; TIFF 6.0, section 2. EXIF that makes no sense is ignored, as every
//! viewer does: the picture itself is sound.

use super::page::{Density, Orientation};

const ORIENTATION: u16 = 0x0112;
const X_RESOLUTION: u16 = 0x011A;
const Y_RESOLUTION: u16 = 0x011B;
const RESOLUTION_UNIT: u16 = 0x0128;

const SHORT: u16 = 3;
const RATIONAL: u16 = 5;
const UNIT_CENTIMETRE: u16 = 3;

/// Entries of the first directory that are looked at; real files have about twenty.
const MAX_ENTRIES: usize = 512;

#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Exif {
    pub orientation: Orientation,
    pub density: Option<Density>,
}

/// Reads a TIFF structure as it stands in a JPEG's APP1 segment (after `Exif\0\0`) or a PNG's eXIf chunk.
pub fn parse(tiff: &[u8]) -> Exif {
    Tiff::new(tiff).and_then(|tiff| tiff.first_directory()).unwrap_or_default()
}

struct Tiff<'a> {
    bytes: &'a [u8],
    big_endian: bool,
}

impl<'a> Tiff<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = match bytes.get(..4)? {
            b"II*\0" => false,
            b"MM\0*" => true,
            _ => return None,
        };
        Some(Tiff { bytes, big_endian })
    }

    fn short(&self, at: usize) -> Option<u16> {
        let raw: [u8; 2] = self.bytes.get(at..at.checked_add(2)?)?.try_into().ok()?;
        Some(if self.big_endian { u16::from_be_bytes(raw) } else { u16::from_le_bytes(raw) })
    }

    fn long(&self, at: usize) -> Option<u32> {
        let raw: [u8; 4] = self.bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
        Some(if self.big_endian { u32::from_be_bytes(raw) } else { u32::from_le_bytes(raw) })
    }

    fn rational(&self, at: usize) -> Option<f64> {
        let (numerator, denominator) = (self.long(at)?, self.long(at.checked_add(4)?)?);
        (denominator != 0).then(|| f64::from(numerator) / f64::from(denominator))
    }

    fn first_directory(&self) -> Option<Exif> {
        let start = usize::try_from(self.long(4)?).ok()?;
        let entries = usize::from(self.short(start)?).min(MAX_ENTRIES);
        let mut exif = Exif::default();
        let (mut x, mut y, mut per_centimetre) = (None, None, false);
        for entry in 0..entries {
            let at = start.checked_add(2 + entry * 12)?;
            let (Some(tag), Some(kind)) = (self.short(at), self.short(at + 2)) else { break };
            match (tag, kind) {
                (ORIENTATION, SHORT) => {
                    exif.orientation = self.short(at + 8).and_then(Orientation::new).unwrap_or_default();
                }
                (X_RESOLUTION, RATIONAL) => x = self.rational(self.long(at + 8)? as usize),
                (Y_RESOLUTION, RATIONAL) => y = self.rational(self.long(at + 8)? as usize),
                (RESOLUTION_UNIT, SHORT) => per_centimetre = self.short(at + 8) == Some(UNIT_CENTIMETRE),
                _ => {}
            }
        }
        exif.density = match (x.or(y), y.or(x)) {
            (Some(x), Some(y)) if per_centimetre => Density::per_centimetre(x, y),
            (Some(x), Some(y)) => Density::per_inch(x, y),
            _ => None,
        };
        Some(exif)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One directory with an orientation, 300/1 by 150/1, and the given unit.
    fn sample(big_endian: bool, orientation: u16, unit: u16) -> Vec<u8> {
        let short = |v: u16| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        let long = |v: u32| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        let mut tiff = if big_endian { b"MM\0*".to_vec() } else { b"II*\0".to_vec() };
        tiff.extend(long(8));
        tiff.extend(short(4));
        let data = 8 + 2 + 4 * 12;
        for (tag, kind, value) in [
            (ORIENTATION, SHORT, [short(orientation), [0, 0]].concat()),
            (X_RESOLUTION, RATIONAL, long(data).to_vec()),
            (Y_RESOLUTION, RATIONAL, long(data + 8).to_vec()),
            (RESOLUTION_UNIT, SHORT, [short(unit), [0, 0]].concat()),
        ] {
            tiff.extend(short(tag));
            tiff.extend(short(kind));
            tiff.extend(long(1));
            tiff.extend(value);
        }
        for value in [300, 1, 150, 1] {
            tiff.extend(long(value));
        }
        tiff
    }

    #[test]
    fn both_byte_orders_and_units_are_read() {
        for big_endian in [false, true] {
            let exif = parse(&sample(big_endian, 6, 2));
            assert_eq!(exif.orientation, Orientation::new(6).unwrap());
            assert_eq!(exif.density, Density::per_inch(300.0, 150.0));
            let exif = parse(&sample(big_endian, 1, 3));
            assert_eq!(exif.density, Density::per_centimetre(300.0, 150.0));
        }
    }

    #[test]
    fn nonsense_is_the_same_as_none() {
        assert_eq!(parse(b""), Exif::default());
        assert_eq!(parse(b"II*\0\xFF\xFF\xFF\xFF"), Exif::default());
        assert_eq!(parse(&sample(true, 9, 2)).orientation, Orientation::default());
        let mut zero_denominator = sample(false, 1, 2);
        let end = zero_denominator.len();
        zero_denominator[end - 4..].fill(0);
        zero_denominator[end - 12..end - 8].fill(0);
        assert_eq!(parse(&zero_denominator).density, None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..256), big in any::<bool>()) {
            parse(&bytes);
            bytes.splice(0..0, if big { *b"MM\0*" } else { *b"II*\0" });
            parse(&bytes);
        }
    }
}

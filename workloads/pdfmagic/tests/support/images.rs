//! Inputs: JPEGs from an encoder with segments spliced in, PNGs of every kind written chunk by chunk.

use super::Pixels;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use jpeg_encoder::{ColorType, Encoder};
use std::io::Write;

pub fn gradient(width: usize, height: usize) -> Pixels {
    Pixels::from_fn(width, height, |x, y| {
        [
            (x * 255 / width.max(2)) as u8,
            (y * 255 / height.max(2)) as u8,
            ((x + y) * 127 / (width + height)) as u8,
        ]
    })
}

/// Smooth and different in every quarter, so that a turned or mirrored picture cannot be taken for another.
pub fn quarters(width: usize, height: usize) -> Pixels {
    Pixels::from_fn(width, height, |x, y| match (x < width / 2, y < height / 2) {
        (true, true) => [220, 30, 30],
        (false, true) => [30, 200, 30],
        (true, false) => [30, 30, 220],
        (false, false) => [230, 220, 40],
    })
}

/// Random, as a photograph's noise: hard to compress.
pub fn noise(width: usize, height: usize) -> Vec<u8> {
    use rand::RngExt;
    let mut rng = rand::rng();
    (0..width * height * 3).map(|_| rng.random()).collect()
}

pub fn jpeg(pixels: &Pixels) -> Vec<u8> {
    jpeg_with(&pixels.rgb, pixels.width, pixels.height, ColorType::Rgb, |_| {})
}

pub fn jpeg_with(
    samples: &[u8],
    width: usize,
    height: usize,
    colour: ColorType,
    configure: impl FnOnce(&mut Encoder<&mut Vec<u8>>),
) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = Encoder::new(&mut file, 92);
    configure(&mut encoder);
    encoder.encode(samples, width as u16, height as u16, colour).unwrap();
    file
}

/// Puts a segment right behind the start marker.
pub fn splice(jpeg: &[u8], marker: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xFF, marker], &length, payload, &jpeg[2..]].concat()
}

/// Removes every segment with this marker that stands before the first scan.
pub fn without(jpeg: &[u8], marker: u8) -> Vec<u8> {
    let mut kept = jpeg[..2].to_vec();
    let mut at = 2;
    loop {
        let code = jpeg[at + 1];
        let end = at + 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
        if code == 0xDA {
            kept.extend_from_slice(&jpeg[at..]);
            return kept;
        }
        if code != marker {
            kept.extend_from_slice(&jpeg[at..end]);
        }
        at = end;
    }
}

/// Position of the first segment with this marker.
pub fn find(jpeg: &[u8], marker: u8) -> usize {
    let mut at = 2;
    while jpeg[at + 1] != marker {
        at += 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]));
    }
    at
}

/// JFIF's density in the segment that the encoder wrote.
pub fn with_density(mut jpeg: Vec<u8>, units: u8, x: u16, y: u16) -> Vec<u8> {
    let at = find(&jpeg, 0xE0) + 4;
    assert_eq!(&jpeg[at..at + 5], b"JFIF\0");
    jpeg[at + 7] = units;
    jpeg[at + 8..at + 10].copy_from_slice(&x.to_be_bytes());
    jpeg[at + 10..at + 12].copy_from_slice(&y.to_be_bytes());
    jpeg
}

/// EXIF with an orientation and, if given, a resolution in pixels per inch.
pub fn exif(orientation: u16, dpi: Option<u32>) -> Vec<u8> {
    let mut tiff = b"MM\0*\0\0\0\x08".to_vec();
    let entries: u16 = if dpi.is_some() { 4 } else { 1 };
    let data = 8 + 2 + u32::from(entries) * 12 + 4;
    tiff.extend(entries.to_be_bytes());
    let mut entry = |tag: u16, kind: u16, value: [u8; 4]| {
        tiff.extend(tag.to_be_bytes());
        tiff.extend(kind.to_be_bytes());
        tiff.extend(1_u32.to_be_bytes());
        tiff.extend(value);
    };
    let [high, low] = orientation.to_be_bytes();
    entry(0x0112, 3, [high, low, 0, 0]);
    if dpi.is_some() {
        entry(0x011A, 5, data.to_be_bytes());
        entry(0x011B, 5, data.to_be_bytes());
        entry(0x0128, 3, [0, 2, 0, 0]);
    }
    tiff.extend([0; 4]);
    if let Some(dpi) = dpi {
        tiff.extend(dpi.to_be_bytes());
        tiff.extend(1_u32.to_be_bytes());
    }
    [b"Exif\0\0", tiff.as_slice()].concat()
}

/// A PNG's colour types.
pub const GRAY: u8 = 0;
pub const RGB: u8 = 2;
pub const PALETTE: u8 = 3;
pub const GRAY_ALPHA: u8 = 4;
pub const RGBA: u8 = 6;

/// A PNG to be written. Samples are 16-bit numbers of which the lowest `bits` count, channel by channel.
#[derive(Clone)]
pub struct PngFile {
    pub width: usize,
    pub height: usize,
    pub bits: u8,
    pub colour: u8,
    pub interlaced: bool,
    /// Chunks between the header and the picture.
    pub extra: Vec<([u8; 4], Vec<u8>)>,
    pub samples: Vec<u16>,
}

/// Start and step of Adam7's passes, across and down.
const PASSES: [(usize, usize, usize, usize); 7] =
    [(0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2)];

impl PngFile {
    pub fn channels(&self) -> usize {
        match self.colour {
            GRAY | PALETTE => 1,
            GRAY_ALPHA => 2,
            RGB => 3,
            _ => 4,
        }
    }

    pub fn sample(&self, x: usize, y: usize, channel: usize) -> u16 {
        self.samples[(y * self.width + x) * self.channels() + channel]
    }

    fn row(&self, y: usize, columns: impl Iterator<Item = usize>) -> Vec<u8> {
        let (mut row, mut pending, mut filled) = (Vec::new(), 0_u8, 0);
        for x in columns {
            for channel in 0..self.channels() {
                let value = self.sample(x, y, channel);
                match self.bits {
                    16 => row.extend(value.to_be_bytes()),
                    8 => row.push(value as u8),
                    bits => {
                        pending |= (value as u8) << (8 - bits - filled);
                        filled += bits;
                        if filled == 8 {
                            row.push(pending);
                            (pending, filled) = (0, 0);
                        }
                    }
                }
            }
        }
        if filled > 0 {
            row.push(pending);
        }
        row
    }

    /// Rows with their filter bytes. Without interlacing all five filters are used in turn.
    fn filtered(&self) -> Vec<u8> {
        let mut data = Vec::new();
        if self.interlaced {
            for (x0, dx, y0, dy) in PASSES {
                for y in (y0..self.height).step_by(dy) {
                    let row = self.row(y, (x0..self.width).step_by(dx));
                    if !row.is_empty() {
                        data.push(0);
                        data.extend(row);
                    }
                }
            }
            return data;
        }
        let step = (self.channels() * usize::from(self.bits)).div_ceil(8);
        let mut above = vec![0; self.row(0, 0..self.width).len()];
        for y in 0..self.height {
            let row = self.row(y, 0..self.width);
            let filter = (y % 5) as u8;
            data.push(filter);
            for at in 0..row.len() {
                let left = if at >= step { row[at - step] } else { 0 };
                let corner = if at >= step { above[at - step] } else { 0 };
                let predicted = match filter {
                    0 => 0,
                    1 => left,
                    2 => above[at],
                    3 => ((u16::from(left) + u16::from(above[at])) / 2) as u8,
                    _ => paeth(left, above[at], corner),
                };
                data.push(row[at].wrapping_sub(predicted));
            }
            above = row;
        }
        data
    }

    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(&zlib(&self.filtered()))
    }

    /// With the given bytes in place of the compressed rows, in two chunks.
    pub fn encode_with(&self, data: &[u8]) -> Vec<u8> {
        let mut header = Vec::new();
        header.extend((self.width as u32).to_be_bytes());
        header.extend((self.height as u32).to_be_bytes());
        header.extend([self.bits, self.colour, 0, 0, u8::from(self.interlaced)]);
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        file.extend(chunk(b"IHDR", &header));
        for (kind, payload) in &self.extra {
            file.extend(chunk(kind, payload));
        }
        let (first, second) = data.split_at(data.len() / 2);
        file.extend(chunk(b"IDAT", first));
        file.extend(chunk(b"IDAT", second));
        file.extend(chunk(b"IEND", b""));
        file
    }

    pub fn compressed(&self) -> Vec<u8> {
        zlib(&self.filtered())
    }
}

fn paeth(left: u8, above: u8, corner: u8) -> u8 {
    let estimate = i16::from(left) + i16::from(above) - i16::from(corner);
    let distance = |value: u8| (estimate - i16::from(value)).abs();
    let (a, b, c) = (distance(left), distance(above), distance(corner));
    if a <= b && a <= c {
        left
    } else if b <= c {
        above
    } else {
        corner
    }
}

pub fn chunk(kind: &[u8; 4], payload: &[u8]) -> Vec<u8> {
    let checked = [kind, payload].concat();
    let checksum = crc32fast::hash(&checked).to_be_bytes();
    [&(payload.len() as u32).to_be_bytes()[..], &checked, &checksum].concat()
}

pub fn zlib(data: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

/// An RGB colour profile whose red is blue and whose blue is red: a reader that honours it swaps the two.
pub fn swapping_profile() -> Vec<u8> {
    let fixed = |value: f64| ((value * 65536.0).round() as i32).to_be_bytes();
    let xyz = |x, y, z| {
        [b"XYZ \0\0\0\0".to_vec(), fixed(x).to_vec(), fixed(y).to_vec(), fixed(z).to_vec()].concat()
    };
    let text = b"desc\0\0\0\0\0\0\0\x05swap\0".iter().copied().chain([0; 79]).collect::<Vec<u8>>();
    let copyright = b"text\0\0\0\0none\0\0\0\0".to_vec();
    let gamma = b"curv\0\0\0\0\0\0\0\x01\x02\x33\0\0".to_vec();
    let red = xyz(0.4360, 0.2225, 0.0139);
    let green = xyz(0.3851, 0.7169, 0.0971);
    let blue = xyz(0.1431, 0.0606, 0.7141);
    let tags: [(&[u8; 4], Vec<u8>); 9] = [
        (b"desc", text),
        (b"cprt", copyright),
        (b"wtpt", xyz(0.9642, 1.0, 0.8249)),
        (b"rXYZ", blue),
        (b"gXYZ", green),
        (b"bXYZ", red),
        (b"rTRC", gamma.clone()),
        (b"gTRC", gamma.clone()),
        (b"bTRC", gamma),
    ];
    let mut table = (tags.len() as u32).to_be_bytes().to_vec();
    let mut data = Vec::new();
    let start = 128 + 4 + tags.len() * 12;
    for (tag, value) in &tags {
        table.extend(*tag);
        table.extend(((start + data.len()) as u32).to_be_bytes());
        table.extend((value.len() as u32).to_be_bytes());
        data.extend(value);
        data.resize(data.len().next_multiple_of(4), 0);
    }
    let mut profile = vec![0; 128];
    profile[8..12].copy_from_slice(&[2, 0x10, 0, 0]);
    profile[12..24].copy_from_slice(b"mntrRGB XYZ ");
    profile[36..40].copy_from_slice(b"acsp");
    profile[68..80].copy_from_slice(&[fixed(0.9642), fixed(1.0), fixed(0.8249)].concat());
    profile.extend(table);
    profile.extend(data);
    let length = (profile.len() as u32).to_be_bytes();
    profile[..4].copy_from_slice(&length);
    profile
}

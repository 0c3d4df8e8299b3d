//! Random pictures, a different one for each request, without paying for an encoder during the load.
//!
//! Encoding a picture of noise takes milliseconds of a core, which would be taken from the service on the same
//! machine and would delay the requests that are due. So a pool is encoded beforehand, and a request only
//! copies from it:
//!
//! - **JPEG**: the pictures are encoded with a restart marker after each row of blocks, which makes rows
//!   independent of each other (ITU-T T.81, E.1.4). A request's picture takes each row from a random picture
//!   of the pool: with `n` pictures of `r` rows there are `n^r` of them, so their pixels differ in practice
//!   whenever there is more than one row, and their bytes always do, by a comment with the request's number.
//! - **PNG**: rows depend on each other through the compressor, so a request's picture is a random one of the
//!   pool with a text chunk that holds the request's number: files always differ, pixels repeat after
//!   [`MAX_POOL_PICTURES`] or fewer pictures.
//!
//! Noise hardly compresses: files are larger than photographs of the same size, and decoders work harder.

use crate::error::LoadError;
use crate::spec::{ImageFormat, ImageSpec};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Most different pictures encoded beforehand.
pub const MAX_POOL_PICTURES: usize = 16;
/// Memory that a pool may take, by its pictures' uncompressed size; at least two pictures are made whatever
/// their size.
pub const MAX_POOL_BYTES: u64 = 64 << 20;
/// Side of a block row in JPEG with 4:2:0 subsampling.
const BLOCK: u16 = 16;
/// PNG's signature and IHDR chunk, the only things that must come before any other chunk.
const PNG_PREAMBLE: usize = 8 + 25;
const SERIAL_DIGITS: usize = 16;

/// Pictures of one size and format, ready to be mixed.
#[derive(Debug)]
pub struct PicturePool {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Jpeg {
        /// Everything before the start-of-scan marker.
        tables: Vec<u8>,
        /// The start-of-scan segment.
        scan: Vec<u8>,
        /// `rows[y][n]`: row `y` of picture `n`, without its restart marker.
        rows: Vec<Vec<Vec<u8>>>,
    },
    Png {
        pictures: Vec<Vec<u8>>,
    },
}

impl PicturePool {
    /// Encodes the pool: tens of milliseconds for 640 × 480, so not for a thread that serves others.
    pub fn new(spec: ImageSpec, seed: u64) -> Result<PicturePool, LoadError> {
        spec.check()?;
        let raw = u64::from(spec.width) * u64::from(spec.height) * 3;
        let count = (MAX_POOL_BYTES / raw).clamp(2, MAX_POOL_PICTURES as u64) as usize;
        let failed = |source| LoadError::Picture { width: spec.width, height: spec.height, source };
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut pixels = vec![0u8; raw as usize];
        let mut encoded = Vec::with_capacity(count);
        for _ in 0..count {
            rng.fill_bytes(&mut pixels);
            encoded.push(encode(spec, &pixels).map_err(failed)?);
        }
        let kind = match spec.format {
            ImageFormat::Png => Kind::Png { pictures: encoded },
            ImageFormat::Jpeg { .. } => {
                let rows = usize::from(spec.height.div_ceil(BLOCK));
                split_jpegs(&encoded, rows)
                    .ok_or_else(|| failed("the encoder set no restart markers".into()))?
            }
        };
        Ok(PicturePool { kind })
    }

    /// Appends a whole file to `out`. `serial` makes it different from every other of the same load.
    pub fn append(&self, serial: u64, rng: &mut impl Rng, out: &mut Vec<u8>) {
        let digits = hex(serial);
        match &self.kind {
            Kind::Jpeg { tables, scan, rows } => {
                out.extend_from_slice(tables);
                out.extend_from_slice(&[0xff, 0xfe, 0, SERIAL_DIGITS as u8 + 2]);
                out.extend_from_slice(&digits);
                out.extend_from_slice(scan);
                for (y, variants) in rows.iter().enumerate() {
                    if y > 0 {
                        out.extend_from_slice(&[0xff, 0xd0 + ((y - 1) % 8) as u8]);
                    }
                    out.extend_from_slice(&variants[rng.random_range(0..variants.len())]);
                }
                out.extend_from_slice(&[0xff, 0xd9]);
            }
            Kind::Png { pictures } => {
                let picture = &pictures[rng.random_range(0..pictures.len())];
                let (preamble, rest) = picture.split_at(PNG_PREAMBLE);
                let keyword = b"tEXtComment\0";
                out.extend_from_slice(preamble);
                out.extend_from_slice(&((keyword.len() - 4 + SERIAL_DIGITS) as u32).to_be_bytes());
                let checked = out.len();
                out.extend_from_slice(keyword);
                out.extend_from_slice(&digits);
                let sum = crc32fast::hash(&out[checked..]);
                out.extend_from_slice(&sum.to_be_bytes());
                out.extend_from_slice(rest);
            }
        }
    }
}

fn hex(number: u64) -> [u8; SERIAL_DIGITS] {
    std::array::from_fn(|place| b"0123456789abcdef"[(number >> (60 - 4 * place) & 15) as usize])
}

fn encode(spec: ImageSpec, pixels: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let mut out = Vec::new();
    match spec.format {
        ImageFormat::Jpeg { quality } => {
            let mut encoder = jpeg_encoder::Encoder::new(&mut out, quality);
            encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_2_2);
            encoder.set_restart_interval(spec.width.div_ceil(BLOCK));
            encoder.encode(pixels, spec.width, spec.height, jpeg_encoder::ColorType::Rgb)?;
        }
        ImageFormat::Png => {
            let mut encoder = png::Encoder::new(&mut out, u32::from(spec.width), u32::from(spec.height));
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            encoder.set_compression(png::Compression::Fast);
            encoder.write_header()?.write_image_data(pixels)?;
        }
    }
    Ok(out)
}

/// Cuts each file at its restart markers; None unless all have `rows` rows and the same tables.
fn split_jpegs(files: &[Vec<u8>], rows: usize) -> Option<Kind> {
    let mut by_row: Vec<Vec<Vec<u8>>> = vec![Vec::new(); rows];
    let (tables_end, scan_end) = scan_header(files.first()?)?;
    let (tables, scan) = (&files[0][..tables_end], &files[0][tables_end..scan_end]);
    for file in files {
        if scan_header(file)? != (tables_end, scan_end) || !file.starts_with(&files[0][..scan_end]) {
            return None;
        }
        let cut = cut_at_restarts(&file[scan_end..])?;
        if cut.len() != rows {
            return None;
        }
        for (row, bytes) in by_row.iter_mut().zip(cut) {
            row.push(bytes.to_vec());
        }
    }
    Some(Kind::Jpeg { tables: tables.to_vec(), scan: scan.to_vec(), rows: by_row })
}

/// Where the start-of-scan segment begins and ends.
fn scan_header(file: &[u8]) -> Option<(usize, usize)> {
    let mut at = 2;
    loop {
        let marker = file.get(at..at + 4)?;
        let end = at + 2 + usize::from(u16::from_be_bytes([marker[2], marker[3]]));
        match (marker[0], marker[1]) {
            (0xff, 0xda) => return Some((at, end)),
            (0xff, _) => at = end,
            _ => return None,
        }
    }
}

/// The pieces of entropy-coded data between restart markers, up to the end of the image.
fn cut_at_restarts(data: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut pieces, mut from, mut at) = (Vec::new(), 0, 0);
    loop {
        match data.get(at..at + 2)? {
            [0xff, 0xd0..=0xd7] => {
                pieces.push(&data[from..at]);
                at += 2;
                from = at;
            }
            [0xff, 0xd9] => {
                pieces.push(&data[from..at]);
                return Some(pieces);
            }
            // 0xff 0x00 is a data byte of 0xff.
            [0xff, _] => at += 2,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn pictures(size: &str, count: u64) -> Vec<Vec<u8>> {
        let pool = PicturePool::new(size.parse().expect(size), 7).expect(size);
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        (0..count)
            .map(|serial| {
                let mut out = Vec::new();
                pool.append(serial, &mut rng, &mut out);
                out
            })
            .collect()
    }

    fn jpeg_pixels(file: &[u8]) -> (usize, usize, Vec<u8>) {
        let options = zune_jpeg::zune_core::options::DecoderOptions::default().set_strict_mode(true);
        let cursor = zune_jpeg::zune_core::bytestream::ZCursor::new(file);
        let mut decoder = zune_jpeg::JpegDecoder::new_with_options(cursor, options);
        let pixels = decoder.decode().expect("a valid JPEG");
        let (width, height) = decoder.dimensions().expect("dimensions");
        (width, height, pixels)
    }

    #[test]
    fn every_jpeg_is_valid_and_another_picture() {
        for (size, width, height) in [("64x48", 64, 48), ("640x480", 640, 480), ("33x170", 33, 170)] {
            let mut seen = HashSet::new();
            for file in pictures(size, 20) {
                let (w, h, pixels) = jpeg_pixels(&file);
                assert_eq!((w, h, pixels.len()), (width, height, width * height * 3), "{size}");
                assert!(seen.insert(pixels), "{size}: the same picture twice");
            }
        }
    }

    #[test]
    fn a_picture_of_one_row_still_is_another_file() {
        for size in ["1x1", "16x16", "1x1.png"] {
            let files: HashSet<_> = pictures(size, 100).into_iter().collect();
            assert_eq!(files.len(), 100, "{size}");
        }
    }

    #[test]
    fn every_png_is_valid_and_another_file() {
        let files = pictures("40x30.png", 50);
        for (serial, file) in files.iter().enumerate() {
            let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a valid PNG");
            let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
            let info = reader.next_frame(&mut pixels).expect("its pixels");
            assert_eq!((info.width, info.height), (40, 30));
            let text = &reader.info().uncompressed_latin1_text[0];
            assert_eq!((text.keyword.as_str(), text.text.clone()), ("Comment", format!("{serial:016x}")));
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(pictures("64x48", 3), pictures("64x48", 3));
    }
}

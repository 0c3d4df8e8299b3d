//! Random pictures, a different one for each request, without paying for an encoder during the load.
//!
//! Encoding a picture of noise takes milliseconds of a core, which would be taken from the service on the same
//! machine and would delay the requests that are due. So a pool of pictures is encoded beforehand and cut into
//! pieces that do not depend on each other, and a request's picture takes each piece from a random picture of the
//! pool: `n` pictures of `p` pieces make `n^p`.
//!
//! - **JPEG** is cut at restart markers, at each row of coding units (16 × 16 pixels) or, in pictures with few rows,
//!   more often. The combinations are so many that pictures differ in practice; only with fewer than ten units there
//!   are so few that pixels may repeat. Files never do: a comment holds the request's number.
//! - **PNG** is cut into stored blocks. The first pixels hold the request's number besides, scrambled, and its row
//!   filters carry a difference there on to all that follow: no two pictures of a load have the same pixels (with fewer
//!   than 2^64 requests; 2^24 for a picture one pixel wide, 2^48 for two).
//!
//! Noise hardly compresses: files are larger than photographs of the same size.

mod jpeg;
mod png;

use crate::error::LoadError;
use crate::spec::{ImageFormat, ImageSpec};
use jpeg::JpegPool;
use png::PngPool;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Most different pictures encoded beforehand.
pub const MAX_POOL_PICTURES: usize = 16;
/// Memory that a pool may take, by its pictures' uncompressed size; at least two pictures are made whatever
/// their size.
pub const MAX_POOL_BYTES: usize = 64 << 20;
const SERIAL_DIGITS: usize = 16;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Pictures of one size and format, ready to be mixed. It is only read during the load: what is random comes from the
/// caller's generator.
#[derive(Debug)]
pub struct PicturePool {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Jpeg(JpegPool),
    Png(PngPool),
}

impl PicturePool {
    /// Encodes the pool: tens of milliseconds for 640 × 480, so not for a thread that serves others.
    pub fn new(spec: ImageSpec, seed: u64) -> Result<PicturePool, LoadError> {
        spec.check()?;
        let ImageSpec { width, height, format } = spec;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let kind = match format {
            ImageFormat::Png => Kind::Png(PngPool::new(width, height, &mut rng)),
            ImageFormat::Jpeg { quality } => Kind::Jpeg(
                JpegPool::new(width, height, quality, &mut rng).map_err(|source| LoadError::Picture {
                    width,
                    height,
                    source,
                })?,
            ),
        };
        Ok(PicturePool { kind })
    }

    /// Appends a whole file to `out`. `serial` makes it different from every other of the same load.
    pub fn append(&self, serial: u64, rng: &mut impl Rng, out: &mut Vec<u8>) {
        match &self.kind {
            Kind::Jpeg(pool) => pool.append(serial, rng, out),
            Kind::Png(pool) => pool.append(serial, rng, out),
        }
    }
}

/// How many pictures of this size, uncompressed and in bytes, a pool holds.
fn variants(bytes: usize) -> usize {
    (MAX_POOL_BYTES / bytes).clamp(2, MAX_POOL_PICTURES)
}

fn serial_text(number: u64) -> [u8; SERIAL_DIGITS] {
    std::array::from_fn(|place| b"0123456789abcdef"[(number >> (60 - 4 * place) & 15) as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::hash::{DefaultHasher, Hash, Hasher};

    /// Width, height and RGB samples.
    type Decoded = (usize, usize, Vec<u8>);

    fn each_picture(size: &str, count: u64, mut look: impl FnMut(&[u8])) {
        let pool = PicturePool::new(size.parse().expect(size), 7).expect(size);
        let mut rng = ChaCha8Rng::seed_from_u64(8);
        let mut file = Vec::new();
        for serial in 0..count {
            file.clear();
            pool.append(serial, &mut rng, &mut file);
            look(&file);
        }
    }

    fn pictures(size: &str, count: u64) -> Vec<Vec<u8>> {
        let mut files = Vec::new();
        each_picture(size, count, |file| files.push(file.to_vec()));
        files
    }

    fn jpeg_pixels(file: &[u8]) -> Decoded {
        let options = zune_jpeg::zune_core::options::DecoderOptions::default().set_strict_mode(true);
        let cursor = zune_jpeg::zune_core::bytestream::ZCursor::new(file);
        let mut decoder = zune_jpeg::JpegDecoder::new_with_options(cursor, options);
        let pixels = decoder.decode().expect("a valid JPEG");
        let (width, height) = decoder.dimensions().expect("dimensions");
        (width, height, pixels)
    }

    fn png_pixels(file: &[u8]) -> Decoded {
        let mut reader = ::png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a valid PNG");
        let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
        let info = reader.next_frame(&mut pixels).expect("its pixels");
        reader.finish().expect("a valid end");
        (info.width as usize, info.height as usize, pixels)
    }

    /// Decodes them all: the right size, and no pixels twice.
    fn assert_all_different(size: &str, count: u64, decode: fn(&[u8]) -> Decoded) {
        let spec: ImageSpec = size.parse().expect(size);
        let (width, height) = (usize::from(spec.width), usize::from(spec.height));
        let mut seen = HashSet::new();
        each_picture(size, count, |file| {
            let (w, h, pixels) = decode(file);
            assert_eq!((w, h, pixels.len()), (width, height, width * height * 3), "{size}");
            // Contents would not fit in memory; the chance that two of a thousand share a hash is 3 in 10^14.
            let mut hasher = DefaultHasher::new();
            pixels.hash(&mut hasher);
            assert!(seen.insert(hasher.finish()), "{size}: the same picture twice");
        });
        assert_eq!(seen.len() as u64, count);
    }

    #[test]
    fn every_jpeg_is_valid_and_another_picture() {
        assert_all_different("64x48", 1000, jpeg_pixels);
        for size in ["33x170", "170x9", "300x10.jpg"] {
            assert_all_different(size, 50, jpeg_pixels);
        }
        assert_all_different("640x480", 10, jpeg_pixels);
    }

    #[test]
    fn every_png_is_valid_and_another_picture() {
        assert_all_different("160x120.png", 1000, png_pixels);
        // From no piece over one to many, and a row that is longer than a piece may be.
        for size in ["1x1.png", "1x2.png", "2x1.png", "3x1.png", "40x30.png"] {
            assert_all_different(size, 1000, png_pixels);
        }
        for size in ["640x480.png", "22000x2.png"] {
            assert_all_different(size, 20, png_pixels);
        }
    }

    #[test]
    fn two_pngs_have_nothing_in_common() {
        let files = pictures("640x480.png", 40);
        for pair in files.windows(2) {
            let [(.., one), (.., other)] = [&pair[0], &pair[1]].map(|file| png_pixels(file));
            let same = one.chunks(3).zip(other.chunks(3)).filter(|(one, other)| one == other).count();
            assert!(same < 640 * 480 / 100, "{same} pixels are the same");
        }
    }

    #[test]
    fn a_png_is_hardly_larger_than_its_pixels() {
        for (size, pixels) in
            [("640x480.png", 640 * 480 * 3 + 480), ("1920x1080.png", 1920 * 1080 * 3 + 1080)]
        {
            let length = pictures(size, 1)[0].len();
            assert!(length < pixels + pixels / 1000, "{size}: {length} bytes for {pixels}");
        }
    }

    #[test]
    fn the_requests_number_can_be_read_from_a_file() {
        let files = pictures("40x30.png", 20);
        for (serial, file) in files.iter().enumerate() {
            let reader = ::png::Decoder::new(std::io::Cursor::new(file)).read_info().expect("a valid PNG");
            let text = &reader.info().uncompressed_latin1_text[0];
            assert_eq!((text.keyword.as_str(), text.text.clone()), ("Comment", format!("{serial:016x}")));
        }
        let comment = [b"\xff\xfe\0\x12", format!("{:016x}", 19).as_bytes()].concat();
        assert!(pictures("16x16", 20)[19].windows(comment.len()).any(|found| found == comment));
    }

    #[test]
    fn a_picture_of_one_piece_still_is_another_file() {
        for size in ["1x1", "16x16", "1x1.png"] {
            let files: HashSet<_> = pictures(size, 100).into_iter().collect();
            assert_eq!(files.len(), 100, "{size}");
        }
    }

    #[test]
    fn the_seed_decides() {
        for size in ["64x48", "64x48.png"] {
            assert_eq!(pictures(size, 3), pictures(size, 3), "{size}");
            let [one, other] = [1, 2].map(|seed| {
                let mut out = Vec::new();
                let pool = PicturePool::new(size.parse().expect(size), seed).expect(size);
                pool.append(0, &mut ChaCha8Rng::seed_from_u64(8), &mut out);
                out
            });
            assert_ne!(one, other, "{size}");
        }
    }
}

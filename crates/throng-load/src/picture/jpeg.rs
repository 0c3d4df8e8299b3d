//! JPEG: pictures cut at their restart markers, which make what follows independent of what came before
//! (ITU-T T.81, E.1.4), and put together from pieces of several.

use super::{BoxError, SERIAL_DIGITS, serial_text, variants};
use jpeg_encoder::{ColorType, Encoder, SamplingFactor};
use rand::{Rng, RngExt};

/// Side of a coding unit with 4:2:0 subsampling, in pixels.
const UNIT: u16 = 16;
/// A picture with fewer rows of units than this is cut within its rows, or it would soon be put together anew.
const LEAST_PIECES: usize = 16;

#[derive(Debug)]
pub(super) struct JpegPool {
    /// Everything before the start-of-scan marker.
    tables: Vec<u8>,
    /// The start-of-scan segment.
    scan: Vec<u8>,
    /// `pieces[at][n]`: piece `at` of picture `n`, without its restart marker.
    pieces: Vec<Vec<Vec<u8>>>,
}

impl JpegPool {
    pub fn new(width: u16, height: u16, quality: u8, rng: &mut impl Rng) -> Result<JpegPool, BoxError> {
        let (across, down) = (width.div_ceil(UNIT), height.div_ceil(UNIT));
        let units = usize::from(across) * usize::from(down);
        let interval = usize::from(across).min(units.div_ceil(LEAST_PIECES)) as u16;
        let mut pixels = vec![0; usize::from(width) * usize::from(height) * 3];
        let files: Vec<Vec<u8>> = (0..variants(pixels.len()))
            .map(|_| {
                rng.fill_bytes(&mut pixels);
                let mut file = Vec::new();
                let mut encoder = Encoder::new(&mut file, quality);
                encoder.set_sampling_factor(SamplingFactor::F_2_2);
                encoder.set_restart_interval(interval);
                encoder.encode(&pixels, width, height, ColorType::Rgb)?;
                Ok(file)
            })
            .collect::<Result<_, BoxError>>()?;
        let count = units.div_ceil(usize::from(interval));
        split(&files, count).ok_or_else(|| "the encoder did not set the restart markers asked for".into())
    }

    pub fn append(&self, serial: u64, rng: &mut impl Rng, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.tables);
        out.extend_from_slice(&[0xff, 0xfe, 0, SERIAL_DIGITS as u8 + 2]);
        out.extend_from_slice(&serial_text(serial));
        out.extend_from_slice(&self.scan);
        for (at, variants) in self.pieces.iter().enumerate() {
            if at > 0 {
                out.extend_from_slice(&[0xff, 0xd0 + ((at - 1) % 8) as u8]);
            }
            out.extend_from_slice(&variants[rng.random_range(0..variants.len())]);
        }
        out.extend_from_slice(&[0xff, 0xd9]);
    }
}

/// Cuts each file at its restart markers; None unless all have `count` pieces and the same tables.
fn split(files: &[Vec<u8>], count: usize) -> Option<JpegPool> {
    let mut pieces: Vec<Vec<Vec<u8>>> = vec![Vec::new(); count];
    let (tables_end, scan_end) = scan_header(files.first()?)?;
    let (tables, scan) = (&files[0][..tables_end], &files[0][tables_end..scan_end]);
    for file in files {
        if scan_header(file)? != (tables_end, scan_end) || !file.starts_with(&files[0][..scan_end]) {
            return None;
        }
        let cut = cut_at_restarts(&file[scan_end..])?;
        if cut.len() != count {
            return None;
        }
        for (variants, bytes) in pieces.iter_mut().zip(cut) {
            variants.push(bytes.to_vec());
        }
    }
    Some(JpegPool { tables: tables.to_vec(), scan: scan.to_vec(), pieces })
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

//! No bytes make the converter panic, and what it accepts is a PDF.

#![allow(clippy::unwrap_used)] // a test whose set-up fails has failed

mod support;

use jpeg_encoder::ColorType;
use pdfmagic::convert::{Limits, convert};
use proptest::prelude::*;
use std::sync::LazyLock;
use support::images::{GRAY_ALPHA, PngFile, chunk, exif, gradient, jpeg_with, splice};

/// Small, so that a mutation that enlarges the picture cannot make the test slow.
const LIMITS: Limits = Limits { max_pixels: 1 << 20, max_decoded_bytes: 1 << 22, deadline: None };

static VALID: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let picture = gradient(40, 24);
    let jpeg = |progressive| {
        jpeg_with(&picture.rgb, 40, 24, ColorType::Rgb, |e| {
            e.set_progressive(progressive);
            e.set_restart_interval(if progressive { 0 } else { 3 });
        })
    };
    let png = |colour, bits, interlaced| {
        let samples = (0..40 * 24 * 2_u16).map(|value| value % 256).collect();
        PngFile { width: 40, height: 24, bits, colour, interlaced, extra: Vec::new(), samples }.encode()
    };
    vec![
        splice(&jpeg(false), 0xE1, &exif(6, Some(300))),
        jpeg(true),
        png(0, 8, false),
        png(GRAY_ALPHA, 8, false),
        png(GRAY_ALPHA, 8, true),
    ]
});

fn acceptable(image: &[u8]) -> Result<(), TestCaseError> {
    if let Ok(pdf) = convert(image, &LIMITS) {
        prop_assert!(pdf.starts_with(b"%PDF-") && pdf.ends_with(b"%%EOF"));
    }
    Ok(())
}

/// Puts right the checksums of a PNG's chunks, so that mutations get past them.
fn repaired(png: &[u8]) -> Vec<u8> {
    let (mut file, mut rest) = (png[..8.min(png.len())].to_vec(), png.get(8..).unwrap_or_default());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        let (Some(kind), Some(payload)) =
            (after.first_chunk::<4>(), after.get(4..4_usize.saturating_add(length)))
        else {
            break;
        };
        file.extend(chunk(kind, payload));
        rest = after.get(4 + length + 4..).unwrap_or_default();
    }
    file.extend(rest);
    file
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..2048), start in 0..3_usize) {
        let prefix: &[u8] = [&b""[..], &[0xFF, 0xD8, 0xFF], b"\x89PNG\r\n\x1a\n"][start];
        acceptable(&[prefix, bytes.as_slice()].concat())?;
    }

    #[test]
    fn mutated_files(
        which in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut file = which.get(&VALID).clone();
        for (at, value) in changes {
            let at = at.index(file.len());
            file[at] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        acceptable(&file)?;
        acceptable(&repaired(&file))?;
    }

    #[test]
    fn shuffled_pieces(
        which in any::<prop::sample::Index>(),
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
        length in 1..200_usize,
    ) {
        let mut file = which.get(&VALID).clone();
        let from = from.index(file.len());
        let piece: Vec<u8> = file[from..file.len().min(from + length)].to_vec();
        let to = to.index(file.len());
        file.splice(to..to, piece);
        acceptable(&file)?;
        acceptable(&repaired(&file))?;
    }
}

#[test]
fn the_unchanged_files_are_accepted() {
    for file in VALID.iter() {
        convert(file, &LIMITS).unwrap();
        assert!(convert(&repaired(file), &LIMITS).is_ok());
    }
}

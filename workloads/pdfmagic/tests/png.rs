//! PNGs of every kind become pages that show the same picture.

#![allow(clippy::unwrap_used)] // a test whose set-up fails has failed

mod support;

use pdfmagic::convert::{ConvertError, Limits, convert};
use support::images::{GRAY, GRAY_ALPHA, PALETTE, PngFile, RGB, RGBA, exif, noise, swapping_profile, zlib};
use support::{Pixels, check_with_qpdf, has_pdf_tools, numbers, render};

const WIDTH: usize = 37;
const HEIGHT: usize = 23;

fn to_pdf(image: &[u8]) -> Vec<u8> {
    let pdf = convert(image, &Limits::default()).unwrap();
    check_with_qpdf(&pdf);
    pdf
}

/// Samples that vary in both directions and use the whole range of their bits.
fn sample_file(colour: u8, bits: u8, interlaced: bool) -> PngFile {
    let mut file = PngFile {
        width: WIDTH,
        height: HEIGHT,
        bits,
        colour,
        interlaced,
        extra: Vec::new(),
        samples: Vec::new(),
    };
    let max = (1_u32 << bits) - 1;
    let entries = if colour == PALETTE { max.min(199) } else { max };
    for y in 0..HEIGHT {
        for x in 0..WIDTH {
            for channel in 0..file.channels() {
                let step = (x * (channel + 3) + y * 7 + channel * 50) as u32;
                let value = if bits < 8 {
                    step % (entries + 1)
                } else {
                    step * (entries / 300).max(1) % (entries + 1)
                };
                file.samples.push(value as u16);
            }
        }
    }
    if colour == PALETTE {
        let palette =
            (0..=entries).flat_map(|at| [(at * 37) as u8, (at * 91 + 40) as u8, 255 - (at * 5) as u8]);
        file.extra.push((*b"PLTE", palette.collect()));
    }
    file
}

/// The pixel's colour and alpha by the definition of its kind, 8 bits each.
fn pixel(file: &PngFile, x: usize, y: usize) -> ([u8; 3], u8) {
    let trns = file.extra.iter().find(|(kind, _)| kind == b"tRNS").map(|(_, payload)| payload.as_slice());
    let raw: Vec<u16> = (0..file.channels()).map(|channel| file.sample(x, y, channel)).collect();
    let eight = |value: u16| match file.bits {
        16 => (value >> 8) as u8,
        bits => (u32::from(value) * 255 / ((1 << bits) - 1)) as u8,
    };
    let keyed = |colours: &[u16]| {
        let key: Option<Vec<u16>> =
            trns.map(|t| t.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect());
        if key.as_deref() == Some(colours) { 0 } else { 255 }
    };
    match file.colour {
        GRAY => ([eight(raw[0]); 3], keyed(&raw)),
        RGB => ([eight(raw[0]), eight(raw[1]), eight(raw[2])], keyed(&raw)),
        GRAY_ALPHA => ([eight(raw[0]); 3], eight(raw[1])),
        RGBA => ([eight(raw[0]), eight(raw[1]), eight(raw[2])], eight(raw[3])),
        _ => {
            let (_, palette) = file.extra.iter().find(|(kind, _)| kind == b"PLTE").unwrap();
            let index = usize::from(raw[0]);
            let colour = [palette[index * 3], palette[index * 3 + 1], palette[index * 3 + 2]];
            (colour, trns.and_then(|trns| trns.get(index).copied()).unwrap_or(255))
        }
    }
}

/// On white paper.
fn expected(file: &PngFile) -> Pixels {
    Pixels::from_fn(file.width, file.height, |x, y| {
        let (colour, alpha) = pixel(file, x, y);
        colour.map(|value| {
            ((u32::from(value) * u32::from(alpha) + 255 * (255 - u32::from(alpha)) + 127) / 255) as u8
        })
    })
}

fn every_kind() -> Vec<(String, PngFile)> {
    let kinds: [(u8, &[u8]); 5] = [
        (GRAY, &[1, 2, 4, 8, 16]),
        (RGB, &[8, 16]),
        (PALETTE, &[1, 2, 4, 8]),
        (GRAY_ALPHA, &[8, 16]),
        (RGBA, &[8, 16]),
    ];
    let mut files = Vec::new();
    for (colour, depths) in kinds {
        for &bits in depths {
            for interlaced in [false, true] {
                let name = format!("colour type {colour}, {bits} bits, interlaced {interlaced}");
                let plain = sample_file(colour, bits, interlaced);
                let key = |file: &PngFile| -> Vec<u8> {
                    (0..file.channels())
                        .flat_map(|channel| file.sample(5, 5, channel).to_be_bytes())
                        .collect()
                };
                let with_trns = |payload: Vec<u8>| {
                    let mut copy = plain.clone();
                    copy.extra.push((*b"tRNS", payload));
                    copy
                };
                match colour {
                    GRAY | RGB => files.push((format!("{name}, transparent colour"), with_trns(key(&plain)))),
                    PALETTE => {
                        files.push((format!("{name}, one clear entry"), with_trns(vec![255, 0])));
                        files.push((format!("{name}, alpha in the palette"), with_trns(vec![0, 100])));
                    }
                    _ => {}
                }
                files.push((name, plain));
            }
        }
    }
    files
}

#[test]
fn every_kind_renders_as_defined() {
    if !has_pdf_tools("every_kind_renders_as_defined") {
        return;
    }
    for (name, file) in every_kind() {
        let pdf = to_pdf(&file.encode());
        assert_eq!(numbers(&pdf, "/MediaBox"), Some(vec![0.0, 0.0, 37.0, 23.0]), "{name}");
        render(&pdf).assert_like(&expected(&file), 1, &name);
    }
}

#[test]
fn rows_are_embedded_as_they_are_where_pdf_can_hold_them() {
    for (name, file) in every_kind() {
        let pdf = convert(&file.encode(), &Limits::default()).unwrap();
        let kept = memchr::memmem::find(&pdf, &file.compressed()).is_some();
        let wide_key = file.bits == 16 && name.contains("transparent colour");
        let expected = !file.interlaced && !matches!(file.colour, GRAY_ALPHA | RGBA) && !wide_key;
        assert_eq!(kept, expected, "{name}");
    }
}

#[test]
fn an_alpha_channel_that_is_opaque_costs_no_mask() {
    let mut file = sample_file(RGBA, 8, false);
    for alpha in file.samples.iter_mut().skip(3).step_by(4) {
        *alpha = 255;
    }
    let pdf = convert(&file.encode(), &Limits::default()).unwrap();
    assert!(memchr::memmem::find(&pdf, b"/SMask").is_none());
}

#[test]
fn density_orientation_and_profile_are_honoured() {
    if !has_pdf_tools("density_orientation_and_profile_are_honoured") {
        return;
    }
    let mut file = sample_file(RGB, 8, false);
    let metres = |x: u32, y: u32, unit: u8| [&x.to_be_bytes()[..], &y.to_be_bytes(), &[unit]].concat();
    let page = |file: &PngFile| numbers(&to_pdf(&file.encode()), "/MediaBox").unwrap()[2..].to_vec();
    file.extra = vec![(*b"pHYs", metres(5669, 5669, 1))];
    let size = page(&file);
    assert!((size[0] - 18.5).abs() < 0.01 && (size[1] - 11.5).abs() < 0.01, "144 dpi: {size:?}");
    file.extra = vec![(*b"pHYs", metres(1, 2, 0))];
    assert_eq!(page(&file), [37.0, 11.5], "only the shape of a pixel");
    file.extra = vec![(*b"eXIf", exif(6, None)[6..].to_vec())];
    let pdf = to_pdf(&file.encode());
    let upright = expected(&file);
    let turned = Pixels::from_fn(HEIGHT, WIDTH, |x, y| upright.at(y, HEIGHT - 1 - x));
    render(&pdf).assert_like(&turned, 1, "orientation 6");

    let mut red = PngFile { width: 8, height: 8, samples: [250, 5, 5].repeat(64), ..file };
    red.extra = vec![(*b"iCCP", [b"swap\0\0", zlib(&swapping_profile()).as_slice()].concat())];
    let [r, _, b] = render(&to_pdf(&red.encode())).at(4, 4);
    assert!(r < 60 && b > 200, "the profile swaps red and blue, but the page shows {r} and {b}");
}

#[test]
fn indexes_beyond_the_palette_are_black() {
    if !has_pdf_tools("indexes_beyond_the_palette_are_black") {
        return;
    }
    let mut file = sample_file(PALETTE, 8, false);
    file.samples[0] = 250;
    assert_eq!(render(&to_pdf(&file.encode())).at(0, 0), [0, 0, 0]);
}

#[test]
fn a_png_cut_off_anywhere_is_refused() {
    for interlaced in [false, true] {
        let file = sample_file(RGBA, 8, interlaced).encode();
        for length in 8..file.len() {
            let error = convert(&file[..length], &Limits::default()).unwrap_err();
            assert!(matches!(error, ConvertError::Damaged { .. }), "{length} of {}: {error}", file.len());
        }
    }
}

#[test]
fn every_changed_byte_of_a_png_is_found() {
    let file = sample_file(GRAY, 8, false).encode();
    for at in 8..file.len() {
        let mut copy = file.clone();
        copy[at] ^= 0x10;
        assert!(convert(&copy, &Limits::default()).is_err(), "byte {at}");
    }
}

#[test]
fn a_lying_png_is_refused_with_what_is_wrong() {
    let honest = sample_file(RGB, 8, false);
    let error = |image: &[u8]| convert(image, &Limits::default()).unwrap_err().to_string();
    let taller = PngFile { height: HEIGHT + 1, ..honest.clone() };
    let flatter = PngFile { height: HEIGHT - 1, ..honest.clone() };
    let mut bad_filter = vec![5];
    bad_filter.extend(vec![0; WIDTH * 3]);
    let one_row = PngFile { height: 1, ..honest.clone() };
    for (expected, error) in [
        ("it holds 23 of its 24 rows", error(&taller.encode_with(&honest.compressed()))),
        ("more than the", error(&flatter.encode_with(&honest.compressed()))),
        ("row 0 has an unknown filter", error(&one_row.encode_with(&zlib(&bad_filter)))),
        ("cannot be inflated", error(&honest.encode_with(b"not a zlib stream"))),
        (
            "no PNG of colour type 2 with 4 bits",
            error(&PngFile { bits: 4, ..honest.clone() }.encode_with(b"x")),
        ),
        ("no palette", error(&PngFile { colour: PALETTE, ..honest.clone() }.encode_with(b"x"))),
        ("its size is given as 0 x 23", error(&PngFile { width: 0, ..honest.clone() }.encode_with(b"x"))),
        (
            "60000 x 60000 pixels, more than the limit of 100000000",
            error(&PngFile { width: 60_000, height: 60_000, ..honest.clone() }.encode_with(b"x")),
        ),
        (
            "longer than 65535",
            error(&PngFile { width: 70_000, height: 1, ..honest.clone() }.encode_with(b"x")),
        ),
    ] {
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
}

#[test]
fn a_bomb_is_inflated_no_further_than_its_pixels() {
    // 64 MiB of zeros in 64 KiB, stated as a picture of one pixel.
    let bomb = zlib(&vec![0; 64 << 20]);
    let one = PngFile { width: 1, height: 1, ..sample_file(GRAY, 8, false) };
    let start = std::time::Instant::now();
    let error = convert(&one.encode_with(&bomb), &Limits::default()).unwrap_err();
    assert!(error.to_string().contains("more than the 2 bytes"), "{error}");
    assert!(start.elapsed().as_millis() < 500, "{:?}", start.elapsed());
}

#[test]
fn memory_and_time_have_limits() {
    let interlaced = sample_file(RGBA, 16, true).encode();
    let little = Limits { max_decoded_bytes: 1000, ..Limits::default() };
    assert!(matches!(convert(&interlaced, &little), Err(ConvertError::TooMuchMemory { limit: 1000, .. })));
    let late = Limits { deadline: Some(std::time::Instant::now()), ..Limits::default() };
    assert_eq!(convert(&interlaced, &late), Err(ConvertError::OutOfTime));
    let few = Limits { max_pixels: 10, ..Limits::default() };
    assert!(matches!(convert(&interlaced, &few), Err(ConvertError::TooManyPixels { limit: 10, .. })));
}

#[test]
fn a_large_picture_with_alpha_survives_packing() {
    if !has_pdf_tools("a_large_picture_with_alpha_survives_packing") {
        return;
    }
    let samples =
        noise(120, 90).chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], p[0]].map(u16::from)).collect();
    let file = PngFile { width: 120, height: 90, samples, ..sample_file(RGBA, 8, false) };
    render(&to_pdf(&file.encode())).assert_like(&expected(&file), 1, "noise");
}

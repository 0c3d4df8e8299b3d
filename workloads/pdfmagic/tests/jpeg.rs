//! JPEGs become pages that show the same picture.

#![allow(clippy::unwrap_used)] // a test whose set-up fails has failed

mod support;

use jpeg_encoder::{ColorType, SamplingFactor};
use pdfmagic::convert::{ConvertError, Limits, convert};
use support::images::{
    exif, find, gradient, jpeg, jpeg_with, quarters, splice, swapping_profile, with_density, without,
};
use support::{Pixels, check_with_qpdf, has_pdf_tools, numbers, render};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

/// Decoders may round differently, in the inverse transform and in the colours.
const ROUNDING: u8 = 6;

fn to_pdf(image: &[u8]) -> Vec<u8> {
    let pdf = convert(image, &Limits::default()).unwrap();
    check_with_qpdf(&pdf);
    pdf
}

fn decoded(jpeg: &[u8]) -> Pixels {
    let options = DecoderOptions::default().jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(jpeg), options);
    let rgb = decoder.decode().unwrap();
    let info = decoder.info().unwrap();
    Pixels { width: info.width.into(), height: info.height.into(), rgb }
}

#[test]
fn every_coding_renders_as_it_decodes() {
    if !has_pdf_tools("every_coding_renders_as_it_decodes") {
        return;
    }
    let picture = gradient(67, 45);
    let rgb = |configure: fn(&mut jpeg_encoder::Encoder<&mut Vec<u8>>)| {
        jpeg_with(&picture.rgb, 67, 45, ColorType::Rgb, configure)
    };
    let grey: Vec<u8> = picture.rgb.chunks_exact(3).map(|pixel| pixel[0]).collect();
    let files = [
        ("baseline", rgb(|_| {})),
        ("no subsampling", rgb(|e| e.set_sampling_factor(SamplingFactor::F_1_1))),
        ("separate scans", rgb(|e| e.set_optimized_huffman_tables(true))),
        ("restart markers", rgb(|e| e.set_restart_interval(2))),
        ("progressive", rgb(|e| e.set_progressive(true))),
        ("grey", jpeg_with(&grey, 67, 45, ColorType::Luma, |_| {})),
        ("grey progressive", jpeg_with(&grey, 67, 45, ColorType::Luma, |e| e.set_progressive(true))),
    ];
    for (name, file) in files {
        let pdf = to_pdf(&file);
        assert_eq!(numbers(&pdf, "/MediaBox"), Some(vec![0.0, 0.0, 67.0, 45.0]), "{name}");
        assert!(memchr::memmem::find(&pdf, &file).is_some(), "{name}: the file is not embedded as it was");
        render(&pdf).assert_like(&decoded(&file), ROUNDING, name);
    }
}

#[test]
fn every_orientation_is_turned_upright() {
    if !has_pdf_tools("every_orientation_is_turned_upright") {
        return;
    }
    let upright = quarters(48, 32);
    for orientation in 1..=8_u16 {
        // The stored picture, from which EXIF says how to get back: pixel (x, y) of the upright one is stored at …
        let (stored_width, stored_height) = if orientation >= 5 { (32, 48) } else { (48, 32) };
        let stored = Pixels::from_fn(stored_width, stored_height, |x, y| match orientation {
            1 => upright.at(x, y),
            2 => upright.at(47 - x, y),
            3 => upright.at(47 - x, 31 - y),
            4 => upright.at(x, 31 - y),
            5 => upright.at(y, x),
            6 => upright.at(47 - y, x),
            7 => upright.at(47 - y, 31 - x),
            _ => upright.at(y, 31 - x),
        });
        let plain = jpeg_with(&stored.rgb, stored_width, stored_height, ColorType::Rgb, |e| {
            e.set_sampling_factor(SamplingFactor::F_1_1);
        });
        let pdf = to_pdf(&splice(&plain, 0xE1, &exif(orientation, None)));
        let what = format!("orientation {orientation}");
        render(&pdf).assert_like(&upright, 12, &what);
    }
}

#[test]
fn rgb_components_are_not_taken_for_luminance() {
    if !has_pdf_tools("rgb_components_are_not_taken_for_luminance") {
        return;
    }
    // What the encoder takes for Y, Cb and Cr are red, green and blue; only the components' names say so.
    let picture = quarters(32, 32);
    let file =
        jpeg_with(&picture.rgb, 32, 32, ColorType::Ycbcr, |e| e.set_sampling_factor(SamplingFactor::F_1_1));
    let mut named = without(&file, 0xE0);
    let frame = find(&named, 0xC0);
    let scan = find(&named, 0xDA);
    for (component, name) in b"RGB".iter().enumerate() {
        named[frame + 10 + component * 3] = *name;
        named[scan + 5 + component * 2] = *name;
    }
    let pdf = to_pdf(&named);
    assert_eq!(numbers(&pdf, "/ColorTransform"), Some(vec![0.0]));
    render(&pdf).assert_like(&picture, 12, "named components");
    let adobe = splice(&without(&file, 0xE0), 0xEE, b"Adobe\0\x64\0\0\0\0\0");
    render(&to_pdf(&adobe)).assert_like(&picture, 12, "Adobe's transform 0");
}

#[test]
fn the_page_has_the_size_that_the_file_asks_for() {
    if !has_pdf_tools("the_page_has_the_size_that_the_file_asks_for") {
        return;
    }
    let plain = jpeg(&gradient(100, 50));
    let bare = without(&plain, 0xE0);
    let page = |file: &[u8]| {
        let found = numbers(&to_pdf(file), "/MediaBox").unwrap();
        (found[2], found[3])
    };
    assert_eq!(page(&plain), (100.0, 50.0), "no density");
    assert_eq!(page(&with_density(plain.clone(), 1, 144, 144)), (50.0, 25.0), "JFIF, inches");
    assert_eq!(page(&with_density(plain.clone(), 2, 100, 50)), (28.346_457, 28.346_457), "JFIF, centimetres");
    assert_eq!(page(&with_density(plain.clone(), 0, 1, 2)), (100.0, 25.0), "JFIF, shape of a pixel");
    assert_eq!(page(&splice(&bare, 0xE1, &exif(1, Some(36)))), (200.0, 100.0), "EXIF");
    assert_eq!(page(&splice(&bare, 0xE1, &exif(6, Some(36)))), (100.0, 200.0), "EXIF, turned");
    let both = splice(&with_density(plain.clone(), 1, 144, 144), 0xE1, &exif(1, Some(36)));
    assert_eq!(page(&both), (50.0, 25.0), "JFIF goes before EXIF");
    let tiny_density = with_density(jpeg(&gradient(400, 8)), 1, 1, 1);
    let pdf = to_pdf(&tiny_density);
    assert_eq!(numbers(&pdf, "/UserUnit"), Some(vec![2.0]), "400 inches are more than a page may have");
    assert_eq!(page(&tiny_density), (14_400.0, 288.0));
}

#[test]
fn a_colour_profile_is_honoured_and_a_broken_one_ignored() {
    if !has_pdf_tools("a_colour_profile_is_honoured_and_a_broken_one_ignored") {
        return;
    }
    let plain = jpeg(&Pixels::from_fn(16, 16, |_, _| [250, 5, 5]));
    let profile = swapping_profile();
    let segment = |profile: &[u8]| [b"ICC_PROFILE\0\x01\x01", profile].concat();
    let swapped = to_pdf(&splice(&plain, 0xE2, &segment(&profile)));
    let [red, _, blue] = render(&swapped).at(8, 8);
    assert!(red < 60 && blue > 200, "the profile swaps red and blue, but the page shows {red} and {blue}");
    let broken = to_pdf(&splice(&plain, 0xE2, &segment(&profile[..100])));
    let [red, _, blue] = render(&broken).at(8, 8);
    assert!(red > 200 && blue < 60);
}

#[test]
fn what_follows_the_end_marker_is_left_behind() {
    let file = jpeg(&gradient(20, 20));
    let pdf = convert(&file, &Limits::default()).unwrap();
    let with_more = [file.as_slice(), b"a second picture of the same camera"].concat();
    assert_eq!(convert(&with_more, &Limits::default()).unwrap(), pdf);
}

#[test]
fn a_jpeg_cut_off_anywhere_is_refused() {
    for progressive in [false, true] {
        let picture = gradient(64, 48);
        let file = jpeg_with(&picture.rgb, 64, 48, ColorType::Rgb, |e| e.set_progressive(progressive));
        for length in 3..file.len() {
            let error = convert(&file[..length], &Limits::default()).unwrap_err();
            assert!(
                matches!(error, ConvertError::Damaged { .. }),
                "{length} bytes of {}: {error}",
                file.len()
            );
        }
    }
}

#[test]
fn a_lying_jpeg_is_refused_with_what_is_wrong() {
    let file = jpeg(&gradient(64, 48));
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut copy = file.clone();
        change(&mut copy);
        convert(&copy, &Limits::default()).unwrap_err().to_string()
    };
    let frame = find(&file, 0xC0);
    let scan = find(&file, 0xDA);
    let size = |copy: &mut Vec<u8>, height: u16, width: u16| {
        copy[frame + 5..frame + 7].copy_from_slice(&height.to_be_bytes());
        copy[frame + 7..frame + 9].copy_from_slice(&width.to_be_bytes());
    };
    for (expected, error) in [
        ("should have 65535 bytes", changed(&|copy| copy[find(&file, 0xDB) + 2..][..2].fill(0xFF))),
        ("a scan of this size takes at least", changed(&|copy| size(copy, 8000, 8000))),
        ("0 x 64 pixels", changed(&|copy| size(copy, 64, 0))),
        ("64 x 0 pixels", changed(&|copy| size(copy, 0, 64))),
        ("more than the limit of 100000000 pixels", changed(&|copy| size(copy, 60_000, 60_000))),
        ("Huffman table", changed(&|copy| *copy = without(copy, 0xC4))),
        ("quantisation table", changed(&|copy| *copy = without(copy, 0xDB))),
        ("before the frame header", changed(&|copy| *copy = without(copy, 0xC0))),
        ("component 9", changed(&|copy| copy[scan + 5] = 9)),
        ("should begin a marker", changed(&|copy| copy[scan] = 0)),
        ("impossible length 1", changed(&|copy| copy[frame + 2..frame + 4].copy_from_slice(&[0, 1]))),
        ("without a frame header", changed(&|copy| *copy = vec![0xFF, 0xD8, 0xFF, 0xD9])),
    ] {
        assert!(error.contains(expected), "{error:?} does not say {expected:?}");
    }
    let restarts = jpeg_with(&gradient(64, 48).rgb, 64, 48, ColorType::Rgb, |e| e.set_restart_interval(2));
    let last = (0..restarts.len() - 1)
        .rev()
        .find(|&at| restarts[at] == 0xFF && (0xD0..=0xD7).contains(&restarts[at + 1]));
    let shortened = [&restarts[..last.unwrap()], &[0xFF, 0xD9]].concat();
    let error = convert(&shortened, &Limits::default()).unwrap_err().to_string();
    assert!(error.contains("restart markers"), "{error}");
}

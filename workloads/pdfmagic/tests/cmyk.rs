//! CMYK and YCCK JPEGs become pages that show the same inks, pixel for pixel.
//!
//! What a renderer makes of inks is its own affair: poppler mixes measured colours of the sixteen full combinations.
//! So the page is compared with one that holds the same inks as plain samples, without any coding or inversion, drawn by
//! the same renderer. Those samples come from an independent decoder, and are compared with what was encoded.

#![allow(clippy::unwrap_used)] // a test whose set-up fails has failed

mod support;

use jpeg_encoder::{ColorType, SamplingFactor};
use pdf_writer::{Content, Name, Pdf, Rect, Ref};
use pdfmagic::convert::{Limits, convert};
use std::process::Command;
use support::images::{jpeg_with, without};
use support::{Pixels, check_with_qpdf, has_pdf_tools, numbers, render};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

const WIDTH: usize = 67;
const HEIGHT: usize = 45;

/// Decoders may round differently; poppler's colours change by no more than the inks do.
const ROUNDING: u8 = 4;

/// What coding at quality 92 may change of an ink; the most, where chroma has a quarter of the picture's samples.
const LOSS: u8 = 32;

/// 0 is no ink, 255 all of it; cyan, magenta, yellow and black for each pixel.
type Inks = Vec<u8>;

/// A picture with content in every channel, each another: two slopes, waves, and a disc of black.
fn picture() -> Inks {
    let wave = |at: usize| (127.0 + 110.0 * (at as f64 / 9.0).sin()) as u8;
    (0..WIDTH * HEIGHT)
        .flat_map(|at| {
            let (x, y) = (at % WIDTH, at / WIDTH);
            let from_middle = (x.abs_diff(WIDTH / 2).pow(2) + y.abs_diff(HEIGHT / 2).pow(2)) as f64;
            let black = (250.0 - 7.0 * from_middle.sqrt()).clamp(0.0, 255.0) as u8;
            [(x * 250 / WIDTH) as u8, (250 - y * 250 / HEIGHT) as u8, wave(x + 2 * y), black]
        })
        .collect()
}

/// What a file holds: how its samples are to be read as inks follows from how it was made.
#[derive(Clone, Copy, PartialEq)]
enum Stored {
    /// As Adobe does it: 255 is no ink.
    Inverted,
    /// Inverted, and the inverted cyan, magenta and yellow, taken for red, green and blue, turned to luminance and chroma.
    Ycck,
    Plain,
}

/// The inks as an independent decoder finds them.
fn decoded(file: &[u8], stored: Stored) -> Inks {
    let space = if stored == Stored::Ycck { ColorSpace::YCCK } else { ColorSpace::CMYK };
    // The same space in and out: the samples as they are coded, after the inverse transform and upsampling alone.
    let options = DecoderOptions::default().set_strict_mode(true).jpeg_set_out_colorspace(space);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    let samples = decoder.decode().unwrap();
    assert_eq!(decoder.input_colorspace(), Some(space));
    assert_eq!((decoder.dimensions(), samples.len()), (Some((WIDTH, HEIGHT)), WIDTH * HEIGHT * 4));
    let inks = |pixel: &[u8]| match stored {
        Stored::Plain => [pixel[0], pixel[1], pixel[2], pixel[3]],
        Stored::Inverted => [255 - pixel[0], 255 - pixel[1], 255 - pixel[2], 255 - pixel[3]],
        Stored::Ycck => {
            // T.871, section 7; the outcome is 255 less the stored value, which is 255 less the ink.
            let [y, cb, cr] = [f64::from(pixel[0]), f64::from(pixel[1]) - 128.0, f64::from(pixel[2]) - 128.0];
            let byte = |value: f64| value.round().clamp(0.0, 255.0) as u8;
            let (c, m) = (byte(y + 1.402 * cr), byte(y - 0.344_136 * cb - 0.714_136 * cr));
            [c, m, byte(y + 1.772 * cb), 255 - pixel[3]]
        }
    };
    samples.chunks_exact(4).flat_map(inks).collect()
}

/// A page with the inks as they are: no coding, no Decode array.
fn plain_page(inks: &[u8]) -> Pixels {
    let [catalog, pages, page, content, image] = [1, 2, 3, 4, 5].map(Ref::new);
    let (width, height) = (WIDTH as f32, HEIGHT as f32);
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(pages);
    pdf.pages(pages).kids([page]).count(1);
    let mut sheet = pdf.page(page);
    sheet.parent(pages).contents(content).media_box(Rect::new(0.0, 0.0, width, height));
    sheet.resources().x_objects().pair(Name(b"Im"), image);
    drop(sheet);
    let mut operators = Content::new();
    operators.transform([width, 0.0, 0.0, height, 0.0, 0.0]).x_object(Name(b"Im"));
    pdf.stream(content, &operators.finish());
    let mut samples = pdf.image_xobject(image, inks);
    samples.width(WIDTH as i32).height(HEIGHT as i32).bits_per_component(8).color_space().device_cmyk();
    drop(samples);
    render(&pdf.finish())
}

fn files() -> Vec<(&'static str, Vec<u8>, Stored)> {
    let inks = picture();
    let file = |kind, configure: fn(&mut jpeg_encoder::Encoder<&mut Vec<u8>>)| {
        jpeg_with(&inks, WIDTH, HEIGHT, kind, configure)
    };
    let inverted: Vec<u8> = inks.iter().map(|ink| 255 - ink).collect();
    // The encoder inverts, as Adobe does: twice is not at all, and the marker that would say so goes.
    let plain = without(&jpeg_with(&inverted, WIDTH, HEIGHT, ColorType::Cmyk, |_| {}), 0xEE);
    use {ColorType::Cmyk, ColorType::CmykAsYcck, Stored::Inverted, Stored::Ycck};
    vec![
        ("CMYK", file(Cmyk, |_| {}), Inverted),
        ("CMYK, progressive", file(Cmyk, |e| e.set_progressive(true)), Inverted),
        ("CMYK, separate scans", file(Cmyk, |e| e.set_optimized_huffman_tables(true)), Inverted),
        ("CMYK, restart markers", file(Cmyk, |e| e.set_restart_interval(3)), Inverted),
        ("YCCK", file(CmykAsYcck, |_| {}), Ycck),
        ("YCCK, progressive", file(CmykAsYcck, |e| e.set_progressive(true)), Ycck),
        ("YCCK, subsampled", file(CmykAsYcck, |e| e.set_sampling_factor(SamplingFactor::F_2_2)), Ycck),
        ("unmarked", plain, Stored::Plain),
    ]
}

#[test]
fn every_pixel_shows_the_inks_that_were_encoded() {
    if !has_pdf_tools("every_pixel_shows_the_inks_that_were_encoded") {
        return;
    }
    for (name, file, stored) in files() {
        let pdf = convert(&file, &Limits::default()).unwrap();
        check_with_qpdf(&pdf);
        let inverting = || vec![1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        assert_eq!(numbers(&pdf, "/Decode"), (stored != Stored::Plain).then(inverting), "{name}");
        assert_eq!(numbers(&pdf, "/MediaBox"), Some(vec![0.0, 0.0, WIDTH as f64, HEIGHT as f64]), "{name}");
        let inks = decoded(&file, stored);
        let loss = inks.iter().zip(picture()).map(|(found, encoded)| found.abs_diff(encoded)).max();
        assert!(loss <= Some(LOSS), "{name}: an ink is {loss:?} off, which coding does not explain");
        render(&pdf).assert_like(&plain_page(&inks), ROUNDING, name);
    }
}

/// The comparison above sees each of the channels, and inversion: otherwise it would pass whatever is in them.
#[test]
fn the_comparison_sees_every_channel() {
    if !has_pdf_tools("the_comparison_sees_every_channel") {
        return;
    }
    let page = plain_page(&picture());
    let differing = |inks: Inks| {
        let other = plain_page(&inks);
        let pairs = page.rgb.chunks_exact(3).zip(other.rgb.chunks_exact(3));
        pairs.filter(|(one, other)| one.iter().zip(*other).any(|(a, b)| a.abs_diff(*b) > ROUNDING)).count()
    };
    for channel in 0..4 {
        let mut without = picture();
        without.iter_mut().skip(channel).step_by(4).for_each(|ink| *ink = 0);
        let count = differing(without);
        assert!(count > WIDTH * HEIGHT / 2, "channel {channel} shows in {count} pixels only");
    }
    let count = differing(picture().iter().map(|ink| 255 - ink).collect());
    assert!(count > WIDTH * HEIGHT * 9 / 10, "inverted inks show in {count} pixels only");
}

#[test]
fn the_file_comes_out_of_the_page_as_it_went_in() {
    if !has_pdf_tools("the_file_comes_out_of_the_page_as_it_went_in") {
        return;
    }
    for (name, file, _) in files() {
        let folder = tempfile::tempdir().unwrap();
        let pdf = folder.path().join("page.pdf");
        std::fs::write(&pdf, convert(&file, &Limits::default()).unwrap()).unwrap();
        let output = Command::new("pdfimages")
            .arg("-all")
            .arg(&pdf)
            .arg(folder.path().join("found"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let found = std::fs::read(folder.path().join("found-000.jpg")).unwrap();
        assert!(found == file, "{name}: {} bytes became {}", file.len(), found.len());
    }
}

#[test]
fn each_ink_has_its_colour() {
    if !has_pdf_tools("each_ink_has_its_colour") {
        return;
    }
    // Four stripes of 16 pixels: paper, cyan, magenta, black.
    let inks = [[0, 0, 0, 0], [255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 0, 255]];
    let samples: Vec<u8> = (0..64 * 16).flat_map(|at| inks[at % 64 / 16]).collect();
    let inverted: Vec<u8> = samples.iter().map(|ink| 255 - ink).collect();
    // The encoder stores inks inverted, as Adobe does. Inverted once more and without the marker they are plain.
    let plain = without(&jpeg_with(&inverted, 64, 16, ColorType::Cmyk, |_| {}), 0xEE);
    let files = [
        ("CMYK", jpeg_with(&samples, 64, 16, ColorType::Cmyk, |_| {}), true),
        ("YCCK", jpeg_with(&samples, 64, 16, ColorType::CmykAsYcck, |_| {}), true),
        ("progressive", jpeg_with(&samples, 64, 16, ColorType::Cmyk, |e| e.set_progressive(true)), true),
        ("unmarked", plain, false),
    ];
    for (name, file, adobe) in files {
        let pdf = convert(&file, &Limits::default()).unwrap();
        check_with_qpdf(&pdf);
        assert_eq!(
            numbers(&pdf, "/Decode"),
            adobe.then(|| vec![1.0, 0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]),
            "{name}"
        );
        let page = render(&pdf);
        let [paper, cyan, magenta, black] = [8, 24, 40, 56].map(|x| page.at(x, 8));
        assert!(paper.iter().all(|&value| value > 245), "{name}: paper is {paper:?}");
        assert!(cyan[0] < 60 && cyan[1] > 140 && cyan[2] > 190, "{name}: cyan is {cyan:?}");
        assert!(magenta[0] > 190 && magenta[1] < 60, "{name}: magenta is {magenta:?}");
        assert!(black.iter().all(|&value| value < 70), "{name}: black is {black:?}");
    }
}

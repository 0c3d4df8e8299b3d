//! Images made by hand or by encoders, and pages rendered by poppler.
#![allow(dead_code)] // each test binary uses its own part of this
#![allow(clippy::unwrap_used)] // a test whose set-up fails has failed

pub mod images;
pub mod server;

use std::io::Write;
use std::process::{Command, Stdio};

/// Tells the harness that a test did not run, or fails where everything must.
pub fn skip(test: &str, reason: &str) {
    assert!(std::env::var_os("THRONG_REQUIRE_ALL").is_none(), "{test} must run, but {reason}");
    eprintln!("SKIPPED {test}: {reason}");
}

/// False, after saying so, if qpdf or pdftoppm is missing.
pub fn has_pdf_tools(test: &str) -> bool {
    for (tool, package) in [("qpdf", "qpdf"), ("pdftoppm", "poppler-utils")] {
        let found = Command::new(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_err() {
            skip(test, &format!("{tool} is missing (apt-get install {package})"));
            return false;
        }
    }
    true
}

/// Fails unless qpdf finds the file in order, without so much as a warning.
pub fn check_with_qpdf(pdf: &[u8]) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(pdf).unwrap();
    let checked = Command::new("qpdf").arg("--check").arg(file.path()).output().unwrap();
    let said = [checked.stdout, checked.stderr].concat();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&said));
}

/// 8-bit RGB pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

impl Pixels {
    pub fn at(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    pub fn from_fn(width: usize, height: usize, pixel: impl Fn(usize, usize) -> [u8; 3]) -> Self {
        let rgb = (0..width * height).flat_map(|at| pixel(at % width, at / width)).collect();
        Pixels { width, height, rgb }
    }

    /// Fails where a sample differs by more than `tolerance`.
    pub fn assert_like(&self, expected: &Pixels, tolerance: u8, what: &str) {
        assert_eq!((self.width, self.height), (expected.width, expected.height), "{what}: size");
        for y in 0..self.height {
            for x in 0..self.width {
                let (found, wanted) = (self.at(x, y), expected.at(x, y));
                let differs =
                    found.iter().zip(wanted).any(|(found, wanted)| found.abs_diff(wanted) > tolerance);
                assert!(!differs, "{what}: {found:?} instead of {wanted:?} at {x},{y}");
            }
        }
    }
}

/// Device pixels to a PDF unit. Poppler draws a picture one device pixel too wide and too high, and interpolates below
/// a factor of four: at eight, the middle of each pixel is exactly that pixel.
const ZOOM: usize = 8;

/// The only page of a picture without a density, one pixel to each of the picture's.
pub fn render(pdf: &[u8]) -> Pixels {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(pdf).unwrap();
    let output =
        Command::new("pdftoppm").args(["-r", &(72 * ZOOM).to_string()]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let large = parse_ppm(&output.stdout);
    Pixels::from_fn(large.width / ZOOM, large.height / ZOOM, |x, y| {
        large.at(x * ZOOM + ZOOM / 2, y * ZOOM + ZOOM / 2)
    })
}

fn parse_ppm(ppm: &[u8]) -> Pixels {
    let mut fields = ppm.splitn(4, |byte| byte.is_ascii_whitespace());
    let mut field = || String::from_utf8(fields.next().unwrap().to_vec()).unwrap();
    assert_eq!(field(), "P6");
    let (width, height) = (field().parse().unwrap(), field().parse().unwrap());
    let rest = fields.next().unwrap().strip_prefix(b"255\n").unwrap();
    assert_eq!(rest.len(), width * height * 3);
    Pixels { width, height, rgb: rest.to_vec() }
}

/// Numbers after a key of the PDF, which is not compressed outside of its pictures: `/MediaBox [0 0 10 20]`.
pub fn numbers(pdf: &[u8], key: &str) -> Option<Vec<f64>> {
    let text = String::from_utf8_lossy(pdf);
    let after = &text[text.find(key)? + key.len()..];
    let value = after.trim_start();
    let value = if let Some(list) = value.strip_prefix('[') {
        list.split(']').next()?
    } else {
        value.split(['\n', '/', '>']).next()?
    };
    Some(value.split_ascii_whitespace().map(|number| number.parse().unwrap()).collect())
}

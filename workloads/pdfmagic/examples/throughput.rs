//! Conversions per second on one core, next to the same conversion by ImageMagick's `convert`.
//!
//! Both turn different random 640 x 480 JPEGs into PDFs, one after another: this crate within the process, as its
//! service does for each request, and `convert` as a process for each image, as a service that calls it would. Prints
//! one line of JSON. `convert_per_second_per_core` is null, and `convert_error` says why, where ImageMagick is missing or
//! refuses: Debian's /etc/ImageMagick-6/policy.xml forbids it to write PDFs until its line for the coder PDF is removed.
//!
//! `cargo run --release -p pdfmagic --example throughput`

use jpeg_encoder::{ColorType, Encoder};
use pdfmagic::convert::{Limits, convert};
use rand::RngExt;
use serde_json::json;
use std::error::Error;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const WIDTH: u16 = 640;
const HEIGHT: u16 = 480;

/// Different pictures, so that no cache holds the only one.
const PICTURES: usize = 64;

/// Each side is measured for this long after a warm-up of a tenth of it.
const MEASURED: Duration = Duration::from_secs(3);

fn main() -> Result<(), Box<dyn Error>> {
    let pictures: Vec<Vec<u8>> = (0..PICTURES).map(|_| random_jpeg()).collect::<Result<_, _>>()?;
    let bytes = pictures.iter().map(Vec::len).sum::<usize>() / PICTURES;
    let limits = Limits::default();
    let ours = rate(|at| {
        let pdf = convert(&pictures[at % PICTURES], &limits)?;
        std::hint::black_box(pdf);
        Ok(())
    })?;
    let theirs = match image_magick() {
        Some(program) => rate_of(&program, &pictures).map_err(|error| error.to_string()),
        None => Err("ImageMagick is missing (apt-get install imagemagick)".to_owned()),
    };
    let line = json!({
        "conversions_per_second_per_core": ours.round(),
        "convert_per_second_per_core": theirs.as_ref().ok().map(|rate| (rate * 10.0).round() / 10.0),
        "convert_error": theirs.as_ref().err(),
        "times_faster": theirs.as_ref().ok().map(|rate| (ours / rate).round()),
        "image": { "width": WIDTH, "height": HEIGHT, "mean_bytes": bytes },
    });
    println!("{line}");
    Ok(())
}

fn random_jpeg() -> Result<Vec<u8>, Box<dyn Error>> {
    let mut rng = rand::rng();
    let pixels: Vec<u8> = (0..usize::from(WIDTH) * usize::from(HEIGHT) * 3).map(|_| rng.random()).collect();
    let mut file = Vec::new();
    Encoder::new(&mut file, 85).encode(&pixels, WIDTH, HEIGHT, ColorType::Rgb)?;
    Ok(file)
}

/// How often a second the work can be done.
fn rate(mut work: impl FnMut(usize) -> Result<(), Box<dyn Error>>) -> Result<f64, Box<dyn Error>> {
    let mut run = |time: Duration| -> Result<f64, Box<dyn Error>> {
        let (start, mut done) = (Instant::now(), 0);
        while start.elapsed() < time {
            work(done)?;
            done += 1;
        }
        Ok(done as f64 / start.elapsed().as_secs_f64())
    };
    run(MEASURED / 10)?;
    run(MEASURED)
}

/// `convert` is given one thread, so that its rate is also one core's.
fn rate_of(program: &Path, pictures: &[Vec<u8>]) -> Result<f64, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let file = |at: usize| folder.path().join(format!("{at}.jpg"));
    for (at, picture) in pictures.iter().enumerate() {
        std::fs::write(file(at), picture)?;
    }
    let output = folder.path().join("out.pdf");
    rate(|at| {
        let mut command = Command::new(program);
        command.env("MAGICK_THREAD_LIMIT", "1").arg(file(at % pictures.len())).arg(&output);
        let run = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&run.stderr);
        if run.status.success() {
            Ok(())
        } else {
            Err(format!("{}: {}", program.display(), said.trim()).into())
        }
    })
}

/// The first `convert` or `magick` on the path that is a compiled program: a wrapper script would be charged to it.
fn image_magick() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let candidates =
        ["convert", "magick"].iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    candidates.into_iter().find(|candidate| is_compiled_program(candidate))
}

fn is_compiled_program(path: &Path) -> bool {
    let runs =
        std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
    runs && std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"\x7FELF"))
}

//! What a generated picture costs: `pictures [SIZE…]` prints a line of JSON for each size, `640x480` or
//! `640x480.png`, with the mean size of its files and the time that one takes, copying included.

use rand::SeedableRng;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use throng_load::picture::PicturePool;

/// Each size is measured for this long.
const MEASURED: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let given: Vec<String> = std::env::args().skip(1).collect();
    let usual = ["640x480.png", "1920x1080.png", "640x480", "1920x1080"].map(str::to_owned);
    let sizes = if given.is_empty() { usual.to_vec() } else { given };
    for size in sizes {
        if let Err(error) = measure(&size) {
            eprintln!("error: {size}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(size: &str) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let pool = PicturePool::new(size.parse()?, 1)?;
    let prepared = start.elapsed();
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(2);
    let (mut file, mut bytes, mut count) = (Vec::new(), 0_u64, 0_u32);
    let start = Instant::now();
    while start.elapsed() < MEASURED {
        file.clear();
        pool.append(u64::from(count), &mut rng, &mut file);
        bytes += std::hint::black_box(&file).len() as u64;
        count += 1;
    }
    let each = start.elapsed() / count;
    println!(
        "{{\"size\":\"{size}\",\"prepared_ms\":{:.1},\"us_each\":{:.1},\"mean_bytes\":{}}}",
        prepared.as_secs_f64() * 1e3,
        each.as_secs_f64() * 1e6,
        bytes / u64::from(count)
    );
    Ok(())
}

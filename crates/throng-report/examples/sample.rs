//! Writes sample reports from simulated runs: `cargo run -p throng-report --example sample -- FOLDER`.

#[path = "../tests/sample/mod.rs"]
mod sample;

use sample::{CLASSIC, Shape, classic, crowd};
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "sample-report".into()));
    let one = classic(CLASSIC);
    println!("{}", throng_report::write(&one, &out.join("classic"))?.report.display());
    print!("{}", throng_report::summary_text(&one, 80));

    let repeated = classic(Shape { seed: 21, repetitions: 5, failing: 90, ..CLASSIC });
    println!("{}", throng_report::write(&repeated, &out.join("repeated"))?.report.display());
    print!("{}", throng_report::summary_text_boxed(&repeated, 80));

    println!("{}", throng_report::write(&crowd(2_000, 120), &out.join("crowd"))?.report.display());

    let faster = classic(Shape { seed: 33, service: 6_000.0, ..CLASSIC });
    let runs = [one, faster, repeated];
    let page = out.join("compare.html");
    std::fs::write(&page, throng_report::compare_html(&runs))?;
    println!("{}", page.display());
    print!("{}", throng_report::compare_text(&runs, 80));
    Ok(())
}

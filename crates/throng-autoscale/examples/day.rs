//! How long a day of ten thousand replicas takes: `cargo run --release -p throng-autoscale --example day`.

use std::time::Instant;
use throng_autoscale::Spec;
use throng_autoscale::simulate::{Demand, Scenario, Shape, Synthetic, Unit, simulate};
use throng_autoscale::spec::RawSpec;

const TIMES: usize = 5;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let raw: RawSpec = serde_json::from_str(r#"{"minReplicas": 10, "maxReplicas": 10000, "behavior": {}}"#)?;
    let spec = Spec::new(raw, false).map_err(|violations| format!("{violations:?}"))?;
    let day =
        Synthetic { shape: Shape::Day, unit: Unit::Requests, seconds: 86_400, base: 500.0, peak: 810_000.0 };
    let demand = Demand::synthetic(&day).with_noise(0.05, 1);
    println!("CPU at 80 %, 24 h, looked at every 15 s");
    for _ in 0..TIMES {
        let start = Instant::now();
        let outcome = simulate(&spec, &demand, &Scenario::default())?;
        let (figures, looks) = (outcome.figures, outcome.periods.len());
        println!("{looks} looks, up to {} replicas: {:?}", figures.replicas_most, start.elapsed());
    }
    Ok(())
}

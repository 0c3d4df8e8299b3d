//! Measures how long a replica takes from `create` to its first TCP answer, one after another and several at once,
//! and prints JSON: `start_rate [serial] [parallel] [at-once]`. Needs root.

#[path = "../tests/common/mod.rs"]
mod common;

use common::{Bench, first_answer};
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(10);

async fn start_one(bench: &Bench, ordinal: u32) -> Duration {
    let spec = bench.spec("web", ordinal, &["serve"]);
    let begin = Instant::now();
    bench.engine.create(&spec).await.expect("created");
    bench.engine.start(&spec.id, 1).await.expect("started");
    let answer = first_answer(&bench.engine, spec.networks[0].address, PATIENCE).await.expect("an answer");
    assert_eq!(answer, "ok\n");
    begin.elapsed()
}

async fn remove_one(bench: &Bench, ordinal: u32) {
    let id = bench.spec("web", ordinal, &[]).id;
    bench.engine.stop(&id, 1, 9, Duration::from_secs(5)).await.expect("stopped");
    bench.engine.remove(&id, 1).await.expect("removed");
}

fn quantiles(mut times: Vec<Duration>) -> serde_json::Value {
    times.sort();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize].as_secs_f64() * 1e3;
    serde_json::json!({ "count": times.len(), "median_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": at(1.0) })
}

#[tokio::main]
async fn main() {
    let argument =
        |n: usize, default: u32| std::env::args().nth(n).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (serial, parallel, at_once) = (argument(1, 200), argument(2, 200), argument(3, 8));
    let bench = Arc::new(Bench::new("startrate", 250).await);
    let mut times = Vec::new();
    let mut removals = Vec::new();
    for number in 0..serial {
        times.push(start_one(&bench, 1 + number % 200).await);
        let begin = Instant::now();
        remove_one(&bench, 1 + number % 200).await;
        removals.push(begin.elapsed());
    }
    let begin = Instant::now();
    let gate = Arc::new(tokio::sync::Semaphore::new(at_once as usize));
    let mut tasks = tokio::task::JoinSet::new();
    for ordinal in 1..=parallel.min(250) {
        let (bench, gate) = (bench.clone(), gate.clone());
        tasks.spawn(async move {
            let _permit = gate.acquire().await;
            start_one(&bench, ordinal).await
        });
    }
    let together = tasks.join_all().await;
    let rate = together.len() as f64 / begin.elapsed().as_secs_f64();
    let begin = Instant::now();
    for ordinal in 1..=parallel.min(250) {
        let bench = bench.clone();
        tasks_remove(&bench, ordinal).await;
    }
    let report = serde_json::json!({
        "serial": quantiles(times), "serial_stop_and_remove": quantiles(removals),
        "parallel": quantiles(together), "at_once": at_once, "starts_per_second": rate,
        "removed_per_second": f64::from(parallel.min(250)) / begin.elapsed().as_secs_f64(),
    });
    println!("{report:#}");
    bench.engine.sweep(&bench.project).await.expect("swept");
}

async fn tasks_remove(bench: &Bench, ordinal: u32) {
    remove_one(bench, ordinal).await;
}

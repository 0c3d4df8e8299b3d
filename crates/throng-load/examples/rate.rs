//! The highest rate of a closed loop, for comparison with other generators:
//! `rate URL CLIENTS SECONDS [THREADS]` prints `{"rate":…,"p99_us":…}`.

use std::process::ExitCode;
use std::time::Duration;
use throng_load::{LoadSpec, Progress, Requests, Schedule};
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match measure().await {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn measure() -> Result<String, Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, clients, seconds, threads) = match arguments.as_slice() {
        [url, clients, seconds] => (url, clients, seconds, "0"),
        [url, clients, seconds, threads] => (url, clients, seconds, threads.as_str()),
        _ => return Err("usage: rate URL CLIENTS SECONDS [THREADS]".into()),
    };
    let schedule = Schedule::Closed {
        clients: clients.parse()?,
        requests: Requests::For(Duration::try_from_secs_f64(seconds.parse()?)?),
        think: Duration::ZERO,
    };
    let spec = LoadSpec { threads: threads.parse()?, ..LoadSpec::new(url.parse()?, schedule) };
    let (progress, _) = tokio::sync::watch::channel(Progress::default());
    let result = throng_load::run(spec, progress, CancellationToken::new()).await?;
    if result.succeeded == 0 || result.succeeded < result.requests {
        return Err(format!(
            "{} of {} requests failed: {:?}",
            result.requests - result.succeeded,
            result.requests,
            result.errors
        )
        .into());
    }
    let p99 = result.latency.percentiles.get("99").copied().unwrap_or_default();
    Ok(format!("{{\"rate\":{:.1},\"p99_us\":{p99}}}", result.rate))
}

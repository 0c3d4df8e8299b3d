//! `throng load`: flags to a load, a load to a table, thresholds to an exit code.

use crate::cli::{ArrivalsArgument, ImageFormatArgument, LoadArguments, LoadShape};
use crate::failure::{Failure, Kind, Result, chain, io};
use crate::project::Context;
use crate::terminal::{Progress, Style, table};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use throng_load::{
    Arrivals, Body, ErrorKind, ImageFormat, ImageSpec, Load, LoadError, LoadSpec, Part, PartContent,
    RequestSpec, Requests, Schedule, Threshold, default_connections,
};
use throng_model::run::{LoadResult, ThresholdResult};
use throng_model::units::{format_bytes, format_micros, parse_duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

/// Requests of each client when neither a number nor a duration is given.
const REQUESTS_USUAL: u64 = 100;

pub async fn run(context: &Context, arguments: LoadArguments) -> Result<ExitCode> {
    let interrupted = super::interrupted()?;
    let thresholds: Vec<Threshold> =
        arguments.require.iter().map(|text| text.parse().map_err(failure)).collect::<Result<_>>()?;
    let target = target(context, arguments.target.as_deref().unwrap_or_default()).await?;
    let spec = spec(target, &arguments.shape)?;
    // Before the load: a minute of measuring must not end with a file that cannot be made.
    let log = arguments.hdr_log.as_deref().map(|path| (open_log(path), path));
    let log = log.map(|(file, path)| Ok::<_, Failure>((file?, path))).transpose()?;
    let begin = SystemTime::now();
    let load = with_progress(spec, interrupted.clone()).await?;
    let results: Vec<_> = thresholds.iter().map(|threshold| threshold.evaluate(&load.result)).collect();
    if arguments.json {
        outln!("{:#}", json(&load.result, &results));
    } else {
        out!("{}", text(&load.result));
        let style = Style::for_stdout();
        for result in &results {
            let mark = if result.held { style.green("✔") } else { style.red("✘") };
            outln!("{mark} {}  (measured {})", result.expression, result.measured);
        }
    }
    if let Some((mut file, path)) = log {
        throng_load::write_hdr_log(&load, begin, &mut file).map_err(|error| {
            let hint = "the figures above are complete";
            Failure::new(Kind::Host, format!("{}: {}", path.display(), chain(&error))).hint(hint)
        })?;
    }
    if interrupted.is_cancelled() {
        return Ok(ExitCode::from(Kind::Interrupted.code()));
    }
    let broken = results.iter().filter(|result| !result.held).count();
    if broken > 0 {
        return Err(Failure::new(
            Kind::NotHeld,
            format!("{broken} of {} did not hold", plural(results.len() as u64, "threshold")),
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// The load that the flags describe, checked.
pub fn spec(target: Url, shape: &LoadShape) -> Result<LoadSpec> {
    let mut spec = LoadSpec::new(target, schedule(shape)?);
    spec.request = request(shape)?;
    spec.timeout = duration(&shape.timeout)?;
    spec.threads = shape.threads.unwrap_or(0);
    spec.seed = shape.seed;
    spec.follow_redirects = shape.follow_redirects;
    spec.success = shape.success.parse().map_err(failure)?;
    spec.http2 = shape.http2;
    spec.check().map_err(failure)?;
    Ok(spec)
}

pub fn failure(error: LoadError) -> Failure {
    let hint = error.hint().map(str::to_owned);
    Failure { hint, ..Failure::new(Kind::Input, chain(&error)) }
}

pub fn duration(text: &str) -> Result<Duration> {
    parse_duration(text).map_err(|error| Failure::new(Kind::Input, error.to_string()))
}

/// A URL as it is; otherwise `SERVICE[:PORT][/PATH]` of the app that is up.
pub async fn target(context: &Context, text: &str) -> Result<Url> {
    let wrong = |error: url::ParseError| {
        Failure::new(Kind::Input, format!("{text}: {error}")).hint(match error {
            url::ParseError::InvalidPort => "ports go from 1 to 65535",
            _ => "write a URL such as http://127.0.0.1:8080/, or SERVICE:PORT as in web:8080",
        })
    };
    if text.contains("://") {
        return Url::parse(text).map_err(wrong);
    }
    let (place, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    let (service, port) = match place.split_once(':') {
        Some((service, port)) => {
            let port = port.parse().map_err(|_| {
                Failure::new(Kind::Input, format!("{port:?} is not a port, which goes from 1 to 65535"))
                    .hint("write a URL, or SERVICE:PORT as in web:8080")
            })?;
            (service, Some(port))
        }
        None => (place, None),
    };
    if service == "localhost" || service.parse::<std::net::IpAddr>().is_ok() {
        let message = format!("{service} is an address, not a service of the app that is up");
        return Err(Failure::new(Kind::Input, message).hint(format!("write http://{text}")));
    }
    let client = context.running().await.map_err(|failure| or_url(failure, text))?;
    let address = client.endpoint(service, port).await.map_err(|error| or_url(error.into(), text))?;
    Url::parse(&format!("http://{address}{}", if path.is_empty() { "/" } else { path })).map_err(wrong)
}

/// Whoever meant a host learns how to write that.
fn or_url(failure: Failure, text: &str) -> Failure {
    match &failure.hint {
        Some(hint) if failure.kind == Kind::NotFound && text.contains([':', '.']) => {
            let hint = format!("{hint}; if it is a host, write http://{text}");
            failure.hint(hint)
        }
        _ => failure,
    }
}

fn schedule(shape: &LoadShape) -> Result<Schedule> {
    let length = shape.duration.as_deref().map(duration).transpose()?;
    if let Some(rate) = shape.rate {
        let arrivals = match shape.arrivals {
            ArrivalsArgument::Poisson => Arrivals::Poisson,
            ArrivalsArgument::Constant => Arrivals::Constant,
        };
        let duration = length.unwrap_or_default();
        let max_connections = shape.max_connections.unwrap_or_else(default_connections);
        return Ok(Schedule::Open { rate, duration, arrivals, max_connections });
    }
    let requests = match (shape.requests, length) {
        (Some(_), Some(_)) => {
            return Err(Failure::new(Kind::Input, "--requests and --duration both end the load")
                .hint("give one of them"));
        }
        (None, Some(length)) => Requests::For(length),
        (count, None) => Requests::PerClient(count.unwrap_or(REQUESTS_USUAL)),
    };
    let think = shape.think.as_deref().map(duration).transpose()?.unwrap_or_default();
    Ok(Schedule::Closed { clients: shape.clients, requests, think })
}

fn request(shape: &LoadShape) -> Result<RequestSpec> {
    let header = |text: &String| match text.split_once(':') {
        Some((name, value)) => Ok((name.trim().to_owned(), value.trim().to_owned())),
        None => {
            Err(Failure::new(Kind::Input, format!("{text:?} is not a header")).hint("write `Name: value`"))
        }
    };
    let headers = shape.header.iter().map(header).collect::<Result<_>>()?;
    let body = body(shape)?;
    let usual = if matches!(body, Body::Empty) { "GET" } else { "POST" };
    let method = shape.method.clone().unwrap_or_else(|| usual.into());
    Ok(RequestSpec { method, headers, body })
}

fn body(shape: &LoadShape) -> Result<Body> {
    let image = shape.image.as_deref().map(|size| image(size, shape.image_format)).transpose()?;
    let mut parts: Vec<Part> = shape.form.iter().map(|text| part(text)).collect::<Result<_>>()?;
    match (image, &shape.image_field) {
        (Some(image), Some(field)) => parts.push(Part {
            name: field.clone(),
            filename: Some(match image.format {
                ImageFormat::Jpeg { .. } => "image.jpg".into(),
                ImageFormat::Png => "image.png".into(),
            }),
            content_type: Some(image.format.content_type().into()),
            content: PartContent::Image(image),
        }),
        (Some(image), None) if parts.is_empty() => return Ok(Body::Image(image)),
        (Some(_), None) => {
            return Err(Failure::new(Kind::Input, "the generated image has no field in the form")
                .hint("name one with --image-field"));
        }
        (None, _) => {}
    }
    if !parts.is_empty() {
        return Ok(Body::Multipart(parts));
    }
    match &shape.data {
        Some(data) => Ok(Body::Bytes(content(data)?.into())),
        None => Ok(Body::Empty),
    }
}

fn image(size: &str, format: ImageFormatArgument) -> Result<ImageSpec> {
    let mut spec: ImageSpec = size.parse().map_err(failure)?;
    if format == ImageFormatArgument::Png {
        spec.format = ImageFormat::Png;
    }
    Ok(spec)
}

fn part(text: &str) -> Result<Part> {
    let (name, value) = text.split_once('=').ok_or_else(|| {
        Failure::new(Kind::Input, format!("{text:?} is not a form field"))
            .hint("write NAME=VALUE or NAME=@FILE")
    })?;
    let filename = value.strip_prefix('@').map(|path| {
        std::path::Path::new(path)
            .file_name()
            .map_or_else(|| path.into(), |name| name.to_string_lossy().into_owned())
    });
    let content_type = filename.as_ref().map(|_| "application/octet-stream".to_owned());
    Ok(Part {
        name: name.into(),
        filename,
        content_type,
        content: PartContent::Bytes(content(value)?.into()),
    })
}

/// The text itself, or the content of `@FILE`.
fn content(text: &str) -> Result<Vec<u8>> {
    match text.strip_prefix('@') {
        Some(path) => std::fs::read(path)
            .map_err(|error| Failure::new(Kind::Input, format!("cannot read {path}: {error}"))),
        None => Ok(text.as_bytes().to_vec()),
    }
}

async fn with_progress(spec: LoadSpec, interrupted: CancellationToken) -> Result<Load> {
    let label = format!("load {}", spec.target);
    let (sender, mut progress) = watch::channel(throng_load::Progress::default());
    let load = throng_load::run_detailed(spec, sender, interrupted);
    tokio::pin!(load);
    let mut shown = Progress::new(&label);
    loop {
        tokio::select! {
            result = &mut load => {
                return match result {
                    Ok(load) => {
                        let requests = plural(load.result.requests, "request");
                        match load.result.succeeded {
                            0 => shown.warned(&format!("{requests}, none succeeded: {}", failures(&load.result))),
                            _ => shown.done(&requests),
                        }
                        Ok(load)
                    }
                    Err(error) => {
                        shown.failed("");
                        Err(failure(error))
                    }
                };
            }
            Ok(()) = progress.changed() => show(&mut shown, &progress.borrow_and_update()),
        }
    }
}

/// Puts a load's progress into a bar: by requests where their number is known, else by time.
pub fn show(shown: &mut Progress, now: &throng_load::Progress) {
    let errors = if now.errors > 0 { format!("  {} errors", now.errors) } else { String::new() };
    let left = time_left(now).map(|left| format!("  {} s left", left.as_secs())).unwrap_or_default();
    let message = format!(
        "{:.0}/s{left}{errors}  p50 {}  p99 {}",
        now.rate,
        format_micros(now.p50_micros),
        format_micros(now.p99_micros)
    );
    match (now.total, now.duration) {
        (Some(total), _) => shown.part(now.done, total, &message),
        (None, Some(duration)) => {
            let elapsed = now.elapsed.min(duration);
            shown.part(elapsed.as_millis() as u64, duration.as_millis() as u64, &message);
        }
        (None, None) => shown.say(&message),
    }
}

fn time_left(now: &throng_load::Progress) -> Option<Duration> {
    match (now.total, now.duration) {
        (_, Some(duration)) => Some(duration.saturating_sub(now.elapsed)),
        (Some(total), None) if now.rate > 0.0 => {
            Duration::try_from_secs_f64(total.saturating_sub(now.done) as f64 / now.rate).ok()
        }
        _ => None,
    }
}

fn open_log(path: &std::path::Path) -> Result<std::fs::File> {
    std::fs::File::create(path).map_err(|error| {
        io(format!("write {}", path.display()), &error).hint("name a file that can be written with --hdr-log")
    })
}

/// The whole result. A latency of nothing is no latency of 0.
fn json(result: &LoadResult, thresholds: &[ThresholdResult]) -> serde_json::Value {
    let mut value = serde_json::json!({"result": result, "thresholds": thresholds});
    if result.latency.count == 0 {
        let latency = &mut value["result"]["latency"];
        for figure in ["min", "mean", "stdev", "max"] {
            latency[figure] = serde_json::Value::Null;
        }
        let percentiles = latency["percentiles"].as_object_mut();
        percentiles.into_iter().flatten().for_each(|(_, figure)| *figure = serde_json::Value::Null);
    }
    value
}

/// `3 × connect, 1 × status 502`, with what can be done about it.
fn failures(result: &LoadResult) -> String {
    let each = result.errors.iter().map(|(kind, count)| match ErrorKind::hint(kind) {
        Some(hint) => format!("{count} × {kind} ({hint})"),
        None if kind == "connect" => format!("{count} × {kind} (nobody listens there, or nobody answers)"),
        None => format!("{count} × {kind}"),
    });
    let text = each.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "stopped before the first answer".into() } else { text }
}

fn plural(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// What a load came to, for people.
fn text(result: &LoadResult) -> String {
    let style = Style::for_stdout();
    let latency = &result.latency;
    // Where nothing succeeded there is no latency.
    let micros = |figure: u64| if latency.count == 0 { "–".to_owned() } else { format_micros(figure) };
    let mut text = format!("\n{}\n", style.bold(&result.schedule));
    text += &format!(
        "{} requests in {:.2} s, {} succeeded, {:.1}/s, {} sent, {} received\n\n",
        result.requests,
        result.seconds,
        result.succeeded,
        result.rate,
        format_bytes(result.bytes_sent),
        format_bytes(result.bytes_received)
    );
    let mut headings = vec!["MIN".to_owned(), "MEAN".into()];
    let mut row = vec![micros(latency.min), micros(latency.mean as u64)];
    for percentile in ["50", "90", "95", "99", "99.9", "99.99"] {
        if let Some(value) = latency.percentiles.get(percentile) {
            headings.push(format!("P{percentile}"));
            row.push(micros(*value));
        }
    }
    headings.push("MAX".into());
    row.push(micros(latency.max));
    text += &table(&headings.iter().map(String::as_str).collect::<Vec<_>>(), &[row]);
    if !result.errors.is_empty() {
        let rows: Vec<Vec<String>> = result
            .errors
            .iter()
            .map(|(kind, count)| {
                let share = *count as f64 * 100.0 / result.requests.max(1) as f64;
                vec![kind.clone(), count.to_string(), format!("{share:.2} %")]
            })
            .collect();
        text += &format!("\n{}", table(&["ERROR", "COUNT", "SHARE"], &rows));
    }
    if result.by_replica.len() > 1 {
        let rows: Vec<Vec<String>> =
            result.by_replica.iter().map(|(name, count)| vec![name.clone(), count.to_string()]).collect();
        text += &format!("\n{}", table(&["ANSWERED BY", "COUNT"], &rows));
    }
    text + "\n"
}

//! The `pdfmagic` program: `serve`, `convert`, `healthcheck`.
//!
//! Exit codes: 0 done; 1 it could not be done, with the reason on standard error; 2 the arguments make no sense.

mod health_check;
mod units;

use crate::convert::{self, Limits};
use crate::service::{self, ConnectionLimits, ResultsMode, ServiceConfig};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsStr;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  it could not be done, with the reason on standard error: a damaged image, a
     port taken, requests cut off when the service ended
  2  the arguments make no sense";

/// Turns a JPEG or PNG image into a PDF of one page, over HTTP or on the command line.
#[derive(Debug, Parser)]
#[command(name = "pdfmagic", version, max_term_width = 100, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer HTTP requests until SIGTERM or SIGINT, then finish what is in flight.
    Serve(Box<Serve>),
    /// Convert one file. `-` stands for standard input or output.
    Convert(Convert),
    /// Exit with 0 if the service at URL answers its health check with 200, else with 1.
    Healthcheck(HealthCheck),
}

#[derive(Debug, Args)]
struct Serve {
    /// Address and port to listen on; port 0 lets the kernel choose, and the start message names it.
    #[arg(long, env = "PDFMAGIC_LISTEN", default_value = "127.0.0.1:8080", value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Worker threads, and conversions of large or alpha images at once. One, because the replica is the unit that is
    /// scaled.
    #[arg(long, env = "PDFMAGIC_THREADS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// Where PDFs go: `stateless` answers with the PDF; `local[=DIR]` keeps it on this replica's disk and redirects to
    /// it; `shared=DIR` does so in a folder that all replicas have.
    #[arg(long, env = "PDFMAGIC_RESULTS", default_value = "stateless", value_name = "MODE")]
    results: ResultsMode,
    /// With kept results: how many; the oldest go first.
    #[arg(long, env = "PDFMAGIC_KEEP", default_value_t = 1000, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    keep: u32,
    /// Largest image accepted.
    #[arg(long, env = "PDFMAGIC_MAX_BYTES", default_value = "20MiB", value_parser = units::max_bytes, value_name = "SIZE")]
    max_bytes: usize,
    #[command(flatten)]
    picture: PictureLimits,
    /// Longest that one request may take, from its headers to its answer.
    #[arg(long, env = "PDFMAGIC_TIMEOUT", default_value = "30s", value_parser = units::time_limit, value_name = "TIME")]
    timeout: Duration,
    /// Conversion requests at once; more are answered with 503 and Retry-After.
    #[arg(long, env = "PDFMAGIC_MAX_IN_FLIGHT", default_value_t = 64, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    max_in_flight: u32,
    /// Connections at once; more wait in the kernel's queue.
    #[arg(long, env = "PDFMAGIC_MAX_CONNECTIONS", default_value_t = 1024, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_connections: u32,
    /// How long a connection may wait for a whole request head; the default is more than the 60 s after which common
    /// balancers close theirs, so that it is they who close.
    #[arg(long, env = "PDFMAGIC_IDLE_TIMEOUT", default_value = "75s", value_parser = units::time_limit, value_name = "TIME")]
    idle_timeout: Duration,
    /// How long a client may take nothing of its answer before it is cut off.
    #[arg(long, env = "PDFMAGIC_SEND_TIMEOUT", default_value = "30s", value_parser = units::time_limit, value_name = "TIME")]
    send_timeout: Duration,
    /// After SIGTERM: how long to go on answering, with /healthz at 503, before new connections are refused.
    #[arg(long, env = "PDFMAGIC_DRAIN_DELAY", default_value = "0s", value_parser = units::duration, value_name = "TIME")]
    drain_delay: Duration,
    /// After that: how long requests in flight may take to finish.
    #[arg(long, env = "PDFMAGIC_GRACE", default_value = "8s", value_parser = units::duration, value_name = "TIME")]
    grace: Duration,
    /// Name of this replica in the X-Replica header; the host name unless given.
    #[arg(long, env = "PDFMAGIC_REPLICA", value_name = "NAME")]
    replica: Option<String>,
}

#[derive(Debug, Args)]
struct PictureLimits {
    /// Largest width times height.
    #[arg(long, env = "PDFMAGIC_MAX_PIXELS", default_value_t = Limits::DEFAULT_MAX_PIXELS, value_name = "PIXELS")]
    max_pixels: u64,
    /// Most memory for the pixels of an interlaced PNG, the only kind that is held as a whole.
    #[arg(long, env = "PDFMAGIC_MAX_DECODED_BYTES", default_value = "256MiB", value_parser = units::bytes,
          value_name = "SIZE")]
    max_decoded_bytes: u64,
}

#[derive(Debug, Args)]
struct Convert {
    /// A JPEG or PNG file.
    input: PathBuf,
    /// The PDF to write. It appears only once it is complete.
    output: PathBuf,
    /// Largest file accepted.
    #[arg(long, default_value = "1GiB", value_parser = units::max_bytes, value_name = "SIZE")]
    max_bytes: usize,
    #[command(flatten)]
    picture: PictureLimits,
}

#[derive(Debug, Args)]
struct HealthCheck {
    /// `http://IP[:PORT][/PATH]`; by default /healthz at the port of PDFMAGIC_LISTEN, or 8080, on loopback.
    url: Option<String>,
    /// Longest wait for the answer.
    #[arg(long, default_value = "2s", value_parser = units::duration, value_name = "TIME")]
    timeout: Duration,
}

/// Runs the program with the process's own arguments.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Serve(options) => serve(*options),
        Command::Convert(options) => convert_file(&options),
        Command::Healthcheck(options) => health_check::run(options.url.as_deref(), options.timeout),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("pdfmagic: {message}");
            ExitCode::FAILURE
        }
    }
}

impl PictureLimits {
    fn limits(&self) -> Limits {
        Limits { max_pixels: self.max_pixels, max_decoded_bytes: self.max_decoded_bytes, deadline: None }
    }
}

fn serve(options: Serve) -> Result<(), String> {
    let config = ServiceConfig {
        listen: options.listen,
        threads: usize::from(options.threads),
        results: options.results,
        keep: options.keep as usize,
        max_bytes: options.max_bytes,
        picture: options.picture.limits(),
        timeout: options.timeout,
        max_in_flight: options.max_in_flight as usize,
        connections: ConnectionLimits {
            connections: options.max_connections as usize,
            idle: options.idle_timeout,
            send: options.send_timeout,
        },
        drain_delay: options.drain_delay,
        grace: options.grace,
        replica: options.replica.unwrap_or_else(service::host_name),
    };
    service::run(config).map_err(|error| error.to_string())
}

fn convert_file(options: &Convert) -> Result<(), String> {
    let image = read(&options.input, options.max_bytes)?;
    let pdf = convert::convert(&image, &options.picture.limits())
        .map_err(|error| format!("{}: {error}", options.input.display()))?;
    if options.output == Path::new("-") {
        let mut out = std::io::stdout().lock();
        return out
            .write_all(&pdf)
            .and_then(|()| out.flush())
            .map_err(|error| format!("standard output: {error}"));
    }
    write_whole(&options.output, &pdf).map_err(|error| {
        let path = options.output.display();
        format!("cannot write {path}: {error}\nhint: name a file in a folder that is there, or - for standard output")
    })
}

/// Stops reading one byte beyond the limit, so that a pipe without an end costs no more than that.
fn read(path: &Path, limit: usize) -> Result<Vec<u8>, String> {
    let source = |path: &Path| -> std::io::Result<Box<dyn Read>> {
        Ok(if path == Path::new("-") {
            Box::new(std::io::stdin().lock())
        } else {
            Box::new(std::fs::File::open(path)?)
        })
    };
    let mut bytes = Vec::new();
    source(path).and_then(|source| source.take(limit as u64 + 1).read_to_end(&mut bytes)).map_err(
        |error| {
            let path = path.display();
            format!("cannot read {path}: {error}\nhint: name a JPEG or PNG file, or - for standard input")
        },
    )?;
    if bytes.len() > limit {
        let path = path.display();
        return Err(format!("{path}: more than {limit} bytes; raise the limit with --max-bytes"));
    }
    Ok(bytes)
}

/// A file that is there is complete: written beside its place, then renamed. Devices and pipes are written to as is.
fn write_whole(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return std::fs::write(path, bytes);
    }
    let name = path.file_name().unwrap_or(OsStr::new("out.pdf"));
    let mut temporary_name = name.to_os_string();
    temporary_name.push(format!(".{}.part", std::process::id()));
    let temporary = path.with_file_name(temporary_name);
    let written = std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a leftover that cannot be removed has the same cause.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn nothing_listens_beyond_loopback_unless_asked() {
        let Command::Serve(options) = Arguments::try_parse_from(["pdfmagic", "serve"]).unwrap().command
        else {
            panic!("serve is another command")
        };
        assert!(options.listen.ip().is_loopback());
    }
}

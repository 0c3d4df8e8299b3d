#![forbid(unsafe_code)]
//! `hello serve` answers every request with the name of the host it runs on; `hello healthcheck` asks it how it is.
//!
//! It is what one runs to look at scaling itself: one thread, one file, little memory, and each answer names the replica
//! that gave it.

mod server;

use clap::{Parser, Subcommand};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// A web server that says who it is
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer `GET /` with this host's name, `/healthz` with "ok" and `/metrics` with the number of requests
    Serve(server::Options),
    /// Exit with 0 if the server answers `GET /healthz` with 200, with 1 otherwise
    Healthcheck {
        /// Where it listens
        #[arg(default_value = "127.0.0.1:8080")]
        address: SocketAddr,
    },
}

/// How long a server may take to say that it is well.
const PATIENCE: Duration = Duration::from_secs(2);

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve(options) => server::run(&options),
        Command::Healthcheck { address } => check(address),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn check(address: SocketAddr) -> std::io::Result<()> {
    const WELL: &[u8] = b"HTTP/1.1 200 ";
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(
        format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut start = [0; WELL.len()];
    stream.read_exact(&mut start)?;
    if start == *WELL { Ok(()) } else { Err(std::io::Error::other("the server does not answer with 200")) }
}

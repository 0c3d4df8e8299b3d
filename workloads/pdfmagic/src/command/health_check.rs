//! A health check without a second program in the image.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

const DEFAULT_PORT: u16 = 8080;

/// A status line is about 20 bytes; whatever answers with more before its line ends is not this service.
const MAX_STATUS_LINE: usize = 512;

#[derive(Debug, PartialEq, Eq)]
struct Target {
    address: SocketAddr,
    path: String,
}

/// Asks once. `Ok` only for an answer of 200.
pub fn run(url: Option<&str>, timeout: Duration) -> Result<(), String> {
    let target = match url {
        Some(url) => parse(url)?,
        None => default_target(std::env::var("PDFMAGIC_LISTEN").ok().as_deref()),
    };
    let status = ask(&target, timeout).map_err(|error| format!("{}: {error}", target.address))?;
    if status.split_ascii_whitespace().nth(1) == Some("200") {
        Ok(())
    } else {
        Err(format!("{} answered {status:?} to {}", target.address, target.path))
    }
}

/// The address that `serve` would listen on with the same environment.
fn default_target(listen: Option<&str>) -> Target {
    let listen: Option<SocketAddr> = listen.and_then(|listen| listen.parse().ok());
    let mut address = listen.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)));
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    Target { address, path: "/healthz".to_owned() }
}

/// Addresses only: a static program has no name service, and a health check asks its own host.
fn parse(url: &str) -> Result<Target, String> {
    let hint = "write it like http://127.0.0.1:8080/healthz";
    let rest =
        url.strip_prefix("http://").ok_or_else(|| format!("{url:?} does not begin with http://; {hint}"))?;
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/healthz"),
    };
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("the path of {url:?} has characters that a URL may not have; {hint}"));
    }
    let authority = match authority.strip_prefix("localhost") {
        Some(port) => format!("127.0.0.1{port}"),
        None => authority.to_owned(),
    };
    let address = authority.parse().ok().or_else(|| {
        let ip: IpAddr = authority.trim_start_matches('[').trim_end_matches(']').parse().ok()?;
        Some(SocketAddr::new(ip, 80))
    });
    let address = address.ok_or_else(|| format!("{authority:?} is not an address; {hint}"))?;
    Ok(Target { address, path: path.to_owned() })
}

/// The first line of the answer.
fn ask(target: &Target, timeout: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&target.address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    let Target { address, path } = target;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < MAX_STATUS_LINE && stream.read(&mut byte)? == 1 && byte != [b'\n'] {
        line.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_understood() {
        let target = |url: &str| parse(url).map(|target| (target.address.to_string(), target.path));
        let expect = |address: &str, path: &str| Ok((address.to_owned(), path.to_owned()));
        assert_eq!(target("http://127.0.0.1:9000/x"), expect("127.0.0.1:9000", "/x"));
        assert_eq!(target("http://localhost:9000"), expect("127.0.0.1:9000", "/healthz"));
        assert_eq!(target("http://127.0.0.2"), expect("127.0.0.2:80", "/healthz"));
        assert_eq!(target("http://[::1]/"), expect("[::1]:80", "/"));
        for url in ["127.0.0.1", "https://127.0.0.1", "http://example.org", "http://127.0.0.1/a b", "http://"]
        {
            assert!(parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn the_default_follows_the_listening_address() {
        let default = |listen| default_target(listen).address.to_string();
        assert_eq!(default(None), "127.0.0.1:8080");
        assert_eq!(default(Some("0.0.0.0:81")), "127.0.0.1:81");
        assert_eq!(default(Some("[::]:81")), "[::1]:81");
        assert_eq!(default(Some("127.0.0.7:81")), "127.0.0.7:81");
        assert_eq!(default(Some("nonsense")), "127.0.0.1:8080");
    }
}

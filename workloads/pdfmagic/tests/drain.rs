//! SIGTERM and SIGINT: what is in flight is finished, within limits, and a second signal ends it all.

#![allow(clippy::unwrap_used)] // a test whose set-up fails has failed

mod support;

use rustix::process::Signal;
use std::io::{BufReader, Read, Write};
use std::time::{Duration, Instant};
use support::images::{gradient, jpeg};
use support::server::{Answer, Server, unfinished};

/// Much longer than ending takes, much shorter than the waits that are cut short here.
const AT_ONCE: Duration = Duration::from_secs(5);

#[test]
fn on_sigterm_requests_in_flight_are_finished() {
    let mut server = Server::start(&["--drain-delay", "600ms"]);
    let image = jpeg(&gradient(32, 24));
    let mut stream = unfinished(&server, image.len());
    server.wait_for_metric("pdfmagic_in_flight 1");
    server.signal(Signal::TERM);
    assert!(server.said().contains("drains: 1 requests in flight"));
    let health = server.get("/healthz");
    assert_eq!((health.status, health.text().as_str()), (503, "draining\n"));
    // Once the delay is over the port is closed, and still the request is answered.
    let start = Instant::now();
    while std::net::TcpStream::connect(server.address).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10), "it goes on listening");
        std::thread::sleep(Duration::from_millis(20));
    }
    stream.write_all(&image).unwrap();
    let answer = Answer::read(&mut BufReader::new(stream));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn idle_connections_do_not_delay_the_end() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start(&[]);
        let mut idle = server.connect();
        idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        assert_eq!(Answer::read(&mut BufReader::new(idle.try_clone().unwrap())).status, 200);
        let start = Instant::now();
        server.signal(signal);
        assert_eq!(server.wait().code(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        assert_eq!(idle.read(&mut [0]).unwrap(), 0);
    }
}

#[test]
fn what_does_not_finish_in_its_grace_is_cut_off() {
    let mut server = Server::start(&["--grace", "100ms"]);
    let _stream = unfinished(&server, 1000);
    server.wait_for_metric("pdfmagic_in_flight 1");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(1));
    assert!(server.said().contains("drains: 1"));
    assert!(server.said().contains("1 connections were cut off"));
}

#[test]
fn a_second_signal_ends_the_delay_at_once() {
    let mut server = Server::start(&["--drain-delay", "60s"]);
    let _stream = unfinished(&server, 1000);
    server.wait_for_metric("pdfmagic_in_flight 1");
    server.signal(Signal::TERM);
    assert!(server.said().contains("drains: 1"));
    let start = Instant::now();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(1));
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    assert_eq!(server.said(), "pdfmagic: a second signal ended the service before it had drained\n");
}

#[test]
fn a_second_signal_ends_the_grace_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mode = format!("local={}", folder.path().display());
    let mut server = Server::start(&["--grace", "60s", "--results", &mode]);
    let image = jpeg(&gradient(32, 24));
    let mut stream = unfinished(&server, image.len());
    stream.write_all(&image[..image.len() / 2]).unwrap();
    server.wait_for_metric("pdfmagic_in_flight 1");
    server.signal(Signal::TERM);
    assert!(server.said().contains("drains: 1"));
    let start = Instant::now();
    while std::net::TcpStream::connect(server.address).is_ok() {
        assert!(start.elapsed() < AT_ONCE, "it goes on listening");
        std::thread::sleep(Duration::from_millis(20));
    }
    server.signal(Signal::INT);
    assert_eq!(server.wait().code(), Some(1));
    assert!(start.elapsed() < 2 * AT_ONCE, "{:?}", start.elapsed());
    assert_eq!(server.said(), "pdfmagic: a second signal ended the service before it had drained\n");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing half made");
}

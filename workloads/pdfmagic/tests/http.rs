//! The service over real sockets: the page, every refusal of an image, results, the command line.

#![allow(clippy::unwrap_used)] // a test whose set-up fails has failed

mod support;

use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use bytes::Bytes;
use pdfmagic::service::{FIELD, from_multipart};
use proptest::prelude::*;
use std::io::{BufReader, Write};
use std::process::Command;
use std::time::{Duration, Instant};
use support::images::{PngFile, RGBA, gradient, jpeg};
use support::server::{Answer, Server, form};

fn small_jpeg() -> Vec<u8> {
    jpeg(&gradient(32, 24))
}

fn png(width: usize, height: usize, interlaced: bool) -> PngFile {
    let samples = (0..width * height * 4).map(|at| (at % 251) as u16).collect();
    PngFile { width, height, bits: 8, colour: RGBA, interlaced, extra: Vec::new(), samples }
}

#[test]
fn a_form_and_a_bare_image_are_answered_with_a_pdf() {
    let server = Server::start(&["--replica", "web-7<"]);
    let page = server.get("/");
    assert_eq!((page.status, page.header("content-type")), (200, "text/html; charset=utf-8"));
    assert!(
        page.text().contains(&format!("name=\"{FIELD}\"")) && page.text().contains("multipart/form-data")
    );

    assert!(page.text().contains("Up to 20 MiB and 100,000,000 pixels"), "{}", page.text());
    assert!(page.text().contains("Served by replica web-7&lt;"), "{}", page.text());

    let form = server.upload(FIELD, "../holi day.jpg", &small_jpeg());
    assert_eq!((form.status, form.header("content-type")), (200, "application/pdf"), "{}", form.text());
    assert_eq!(form.header("content-disposition"), "inline; filename=\"holi day.pdf\"");
    assert_eq!(form.header("x-replica"), "web-7<");
    assert!(form.body.starts_with(b"%PDF-") && form.body.ends_with(b"%%EOF"));

    let bare = server.send("POST", "/", "Content-Type: image/jpeg\r\n", &small_jpeg());
    assert_eq!(bare.body, form.body);
    let png = server.send("POST", "/", "Content-Type: image/png\r\n", &png(20, 20, true).encode());
    assert_eq!((png.status, png.header("content-disposition")), (200, "inline; filename=\"image.pdf\""));
}

#[test]
fn every_refusal_has_its_status_and_a_sentence() {
    let server = Server::start(&["--max-bytes", "64KiB", "--max-pixels", "10000", "--replica", "web-1"]);
    let upload = |image: &[u8]| server.upload(FIELD, "x", image);
    let raw = |kind: &str, body: &[u8]| server.send("POST", "/", &format!("Content-Type: {kind}\r\n"), body);
    let (_, body) = form(FIELD, "x", &small_jpeg());
    let cut_off = &small_jpeg()[..300];
    let huge = PngFile { width: 60_000, height: 60_000, ..png(1, 1, false) }.encode_with(b"x");
    for (answer, status, sentence) in [
        (upload(b""), 400, "the file is empty"),
        (server.upload("other", "x", &small_jpeg()), 400, "no file field named myfile"),
        (raw("multipart/form-data", &body), 400, "no boundary"),
        (raw("multipart/form-data; boundary=edge", &body[..body.len() - 20]), 400, "the form cannot be read"),
        (raw("multipart/form-data; boundary=other", &body), 400, "the form"),
        (server.get("/nothing"), 404, "there is nothing at this address"),
        (server.send("DELETE", "/", "", b""), 405, "takes GET, HEAD and POST only"),
        (server.send("POST", "/healthz", "", b""), 405, "takes GET and HEAD only"),
        (upload(&vec![0xFF; 70_000]), 413, "larger than the limit of 65536 bytes"),
        (upload(&vec![0xFF; 5_000_000]), 413, "larger than the limit of 65536 bytes"),
        (upload(&huge), 413, "60000 x 60000 pixels, more than the limit of 10000"),
        (upload(b"GIF89a..."), 415, "neither a JPEG nor a PNG file, but a GIF"),
        (raw("application/json", b"{}"), 415, "the content type \"application/json\" is not accepted"),
        (server.send("POST", "/", "", b"x"), 415, "send a form"),
        (upload(cut_off), 422, "the JPEG is damaged"),
        (raw("image/png", cut_off), 422, "the JPEG is damaged"),
    ] {
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(sentence), "{:?} does not say {sentence:?}", answer.text());
        assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
        assert_eq!(answer.header("x-replica"), "web-1");
    }
    assert_eq!(server.send("DELETE", "/", "", b"").header("allow"), "GET, HEAD, POST");
    let metrics = server.get("/metrics").text();
    for line in [
        "pdfmagic_requests_total{outcome=\"bad_request\"} 5",
        "pdfmagic_requests_total{outcome=\"too_large\"} 3",
        "pdfmagic_requests_total{outcome=\"unsupported_type\"} 3",
        "pdfmagic_requests_total{outcome=\"unprocessable\"} 2",
        "pdfmagic_requests_total{outcome=\"converted\"} 0",
        "pdfmagic_in_flight 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}

#[test]
fn a_chunked_body_has_the_same_limit() {
    let server = Server::start(&["--max-bytes", "64KiB"]);
    let mut stream = server.connect();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    for _ in 0..200 {
        stream.write_all(b"400\r\n").unwrap();
        stream.write_all(&[b'x'; 1024]).unwrap();
        stream.write_all(b"\r\n").unwrap();
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    assert_eq!(Answer::read(&mut BufReader::new(stream)).status, 413);
}

#[test]
fn slow_conversions_do_not_hold_up_other_requests() {
    let server = Server::start(&["--threads", "1"]);
    let slow = png(2400, 2400, true).encode();
    std::thread::scope(|scope| {
        let conversion = scope.spawn(|| (server.upload(FIELD, "x", &slow).status, Instant::now()));
        server.wait_for_metric("pdfmagic_in_flight 1");
        assert_eq!(server.upload(FIELD, "x", &small_jpeg()).status, 200);
        let quick = Instant::now();
        let (status, ended) = conversion.join().unwrap();
        assert_eq!(status, 200);
        assert!(quick < ended, "the small request waited for the large one");
    });
}

#[test]
fn local_results_are_redirected_to_and_belong_to_one_replica() {
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mode = |at: usize| format!("local={}", folders[at].path().display());
    let one = Server::start(&["--results", &mode(0), "--keep", "2", "--replica", "web-1"]);
    let two = Server::start(&["--results", &mode(1), "--replica", "web-2"]);
    let answer = one.upload(FIELD, "x", &small_jpeg());
    assert_eq!(answer.status, 303, "{}", answer.text());
    let location = answer.header("location").to_owned();
    assert!(location.starts_with("/results/") && location.ends_with(".pdf"), "{location}");
    let found = one.get(&location);
    assert_eq!((found.status, found.header("content-type")), (200, "application/pdf"));
    assert!(found.body.starts_with(b"%PDF-"));
    let missing = two.get(&location);
    assert_eq!(missing.status, 404);
    assert!(
        missing.text().contains("replica web-2 has no such result: each replica keeps its own"),
        "{}",
        missing.text()
    );
    for path in ["/results/..%2F..%2Fetc%2Fpasswd", "/results/x.pdf", "/results/.pdf"] {
        assert_eq!(one.get(path).status, 404, "{path}");
    }
    std::thread::sleep(Duration::from_millis(20));
    for _ in 0..2 {
        assert_eq!(one.upload(FIELD, "x", &small_jpeg()).status, 303);
    }
    assert_eq!(one.get(&location).status, 404, "the oldest result made room");
    assert_eq!(std::fs::read_dir(folders[0].path()).unwrap().count(), 2);
}

#[test]
fn shared_results_are_found_on_every_replica() {
    let folder = tempfile::tempdir().unwrap();
    let mode = format!("shared={}", folder.path().display());
    let [one, two] = [Server::start(&["--results", &mode]), Server::start(&["--results", &mode])];
    let location = one.upload(FIELD, "x", &small_jpeg()).header("location").to_owned();
    assert_eq!(two.get(&location).body, one.get(&location).body);
    assert_eq!(two.get(&location).status, 200);
}

#[test]
fn stateless_replicas_have_no_results() {
    let server = Server::start(&[]);
    let answer = server.get("/results/00000000-0000-4000-8000-000000000000.pdf");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("it keeps none"), "{}", answer.text());
}

#[test]
fn a_folder_that_cannot_be_written_to_stops_the_start() {
    let folder = tempfile::NamedTempFile::new().unwrap();
    let mode = format!("shared={}/results", folder.path().display());
    let output = Command::new(env!("CARGO_BIN_EXE_pdfmagic"))
        .args(["serve", "--listen", "127.0.0.1:0", "--results", &mode])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("cannot keep results in") && said.contains("mount a writable folder"), "{said}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let server = Server::start(&[]);
    let output = Command::new(env!("CARGO_BIN_EXE_pdfmagic"))
        .args(["serve", "--listen", &server.address.to_string()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("cannot listen on {}", server.address)), "{said}");
}

#[test]
fn the_health_check_tells_by_its_exit_code() {
    let server = Server::start(&[]);
    let check = |url: String| {
        Command::new(env!("CARGO_BIN_EXE_pdfmagic"))
            .args(["healthcheck", &url])
            .output()
            .unwrap()
            .status
            .code()
    };
    let base = format!("http://{}", server.address);
    assert_eq!(check(format!("{base}/healthz")), Some(0));
    assert_eq!(check(base.clone()), Some(0));
    assert_eq!(check(format!("{base}/nothing")), Some(1));
    drop(server);
    assert_eq!(check(base), Some(1));
}

#[test]
fn a_file_is_converted_on_the_command_line() {
    let folder = tempfile::tempdir().unwrap();
    let [input, output] = ["in.jpg", "out.pdf"].map(|name| folder.path().join(name));
    let run = || {
        Command::new(env!("CARGO_BIN_EXE_pdfmagic")).arg("convert").args([&input, &output]).output().unwrap()
    };
    let missing = run();
    assert_eq!(missing.status.code(), Some(1));
    std::fs::write(&input, &small_jpeg()[..200]).unwrap();
    let damaged = run();
    assert_eq!(damaged.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&damaged.stderr).contains("in.jpg: the JPEG is damaged"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing half made");
    std::fs::write(&input, small_jpeg()).unwrap();
    assert!(run().status.success());
    assert!(std::fs::read(&output).unwrap().starts_with(b"%PDF-"));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    let usage = Command::new(env!("CARGO_BIN_EXE_pdfmagic")).arg("convert").output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

fn extract(
    content_type: &str,
    body: Vec<u8>,
) -> Result<pdfmagic::service::Upload, pdfmagic::service::Rejection> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut headers = HeaderMap::new();
    if let Ok(value) = content_type.parse() {
        headers.insert(CONTENT_TYPE, value);
    }
    runtime.block_on(from_multipart(&headers, Bytes::from(body)))
}

proptest! {
    /// Whatever the file holds, boundary-like bytes included, it comes out as it went in.
    #[test]
    fn a_form_gives_back_its_file(pieces in proptest::collection::vec(
        prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..64),
            Just(b"\r\n--edg".to_vec()),
            Just(b"--edge".to_vec()),
            Just(b"\r\n\r\n".to_vec()),
            Just(b"\n--edge--".to_vec()),
        ],
        0..20,
    )) {
        let file = pieces.concat();
        prop_assume!(memchr::memmem::find(&[b"\r\n", file.as_slice()].concat(), b"\r\n--edge").is_none());
        let (_, body) = form(FIELD, "a.png", &file);
        let upload = extract("multipart/form-data; boundary=edge", body).unwrap();
        prop_assert_eq!(upload.bytes, file);
        prop_assert_eq!(upload.file_name.as_deref(), Some("a.png"));
    }

    /// No body and no content type make the parser panic or hang.
    #[test]
    fn broken_forms_are_refused(
        content_type in prop_oneof![
            Just("multipart/form-data; boundary=edge".to_owned()),
            "multipart/form-data; boundary=[ -~]{0,80}",
            "[ -~]{0,40}",
        ],
        cut in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let (_, mut body) = form(FIELD, "a.png", b"some bytes of a file");
        for (at, value) in changes {
            let at = at.index(body.len());
            body[at] = value;
        }
        body.truncate(cut.index(body.len() + 1));
        if let Err(rejection) = extract(&content_type, body) {
            prop_assert_eq!(rejection.outcome.status().as_u16(), 400);
        }
    }
}

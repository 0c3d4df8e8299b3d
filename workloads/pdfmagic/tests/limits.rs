//! What each limit answers when it is reached, that it frees what it held, and that nothing half made is left.

#![allow(clippy::unwrap_used)] // a test whose set-up fails has failed

mod support;

use flate2::{Compress, Compression, FlushCompress};
use pdfmagic::service::FIELD;
use std::io::{BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::images::{PngFile, RGBA, gradient, jpeg, splice};
use support::server::{Answer, Server, unfinished};
use support::skip;

fn small_jpeg() -> Vec<u8> {
    jpeg(&gradient(32, 24))
}

/// A sound JPEG of about so many bytes, nearly all of it comments: too much for a connection's buffers.
fn heavy_jpeg(bytes: usize) -> Vec<u8> {
    let segment = vec![b' '; 65_000];
    (0..bytes / segment.len()).fold(small_jpeg(), |file, _| splice(&file, 0xFE, &segment))
}

fn rest_of(stream: &mut impl Read) -> std::io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).map(|_| rest)
}

#[test]
fn beyond_the_limit_of_requests_in_flight_the_answer_is_503() {
    let server = Server::start(&["--max-in-flight", "1"]);
    let image = small_jpeg();
    let mut first = unfinished(&server, image.len());
    server.wait_for_metric("pdfmagic_in_flight 1");
    let second = server.upload(FIELD, "x", &image);
    assert_eq!((second.status, second.header("retry-after")), (503, "1"), "{}", second.text());
    assert!(second.text().contains("1 requests in flight already; --max-in-flight allows more"));
    let third = Answer::read(&mut BufReader::new(unfinished(&server, image.len())));
    assert_eq!((third.status, third.header("connection")), (503, "close"), "it has not been read");
    assert_eq!(server.get("/healthz").status, 200, "a full replica is not an ill one");
    first.write_all(&image).unwrap();
    assert_eq!(Answer::read(&mut BufReader::new(first)).status, 200);
    server.wait_for_metric("pdfmagic_in_flight 0");
    assert_eq!(server.upload(FIELD, "x", &image).status, 200);
}

#[test]
fn a_client_that_stops_sending_gets_408() {
    let server = Server::start(&["--timeout", "200ms"]);
    let mut stream = BufReader::new(unfinished(&server, 1000));
    let answer = Answer::read(&mut stream);
    assert_eq!(answer.status, 408, "{}", answer.text());
    assert_eq!(answer.text(), "the image did not arrive in time; the limit is set by --timeout\n");
    assert_eq!(answer.header("connection"), "close");
    assert!(rest_of(&mut stream).unwrap().is_empty(), "the connection is of no more use");
    server.wait_for_metric("pdfmagic_in_flight 0");
}

/// The time is for all of the request: a byte now and then does not extend it.
#[test]
fn a_client_that_dribbles_is_not_waited_for() {
    let server = Server::start(&["--timeout", "300ms"]);
    let mut stream = unfinished(&server, 1_000_000);
    stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let start = Instant::now();
    let answered = loop {
        assert!(start.elapsed() < Duration::from_secs(10), "the service goes on waiting");
        match stream.peek(&mut [0]) {
            Ok(_) => break true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => break false,
        }
        if stream.write_all(b"x").is_err() {
            break false;
        }
    };
    assert!(start.elapsed() >= Duration::from_millis(300), "cut off after {:?}", start.elapsed());
    // A byte on its way when the connection closes makes it a reset, which may take the answer with it.
    if answered {
        assert_eq!(Answer::read(&mut BufReader::new(stream)).status, 408);
    }
    server.wait_for_metric("pdfmagic_requests_total{outcome=\"slow_client\"} 1");
    server.wait_for_metric("pdfmagic_in_flight 0");
}

#[test]
fn a_connection_without_a_whole_request_head_is_closed() {
    let server = Server::start(&["--idle-timeout", "300ms"]);
    let mut silent = server.connect();
    let mut slow = server.connect();
    slow.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Ty").unwrap();
    let mut unused = server.connect();
    unused.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut unused = BufReader::new(unused);
    assert_eq!(Answer::read(&mut unused).status, 200);
    for (name, rest) in
        [("silent", rest_of(&mut silent)), ("slow", rest_of(&mut slow)), ("unused", rest_of(&mut unused))]
    {
        assert_eq!(rest.unwrap(), b"", "{name}");
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_client_that_stops_reading_is_cut_off() {
    let server = Server::start(&["--send-timeout", "300ms"]);
    let image = heavy_jpeg(19 << 20);
    let mut stream = unfinished(&server, image.len());
    // The kernel would take many megabytes for us, more on some machines than on others.
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 64 << 10).unwrap();
    stream.write_all(&image).unwrap();
    server.wait_for_metric("pdfmagic_conversion_seconds_count 1");
    // What it held is free again although the client is still there.
    server.wait_for_metric("pdfmagic_in_flight 0");
    let received = rest_of(&mut stream).map_or(0, |rest| rest.len());
    assert!(received < image.len(), "{received} bytes of a PDF with {}", image.len());
    assert_eq!(server.upload(FIELD, "x", &small_jpeg()).status, 200);
}

/// The time is for standing still: a client that takes something now and then gets all of it.
#[test]
fn a_client_that_reads_slowly_is_not_cut_off() {
    let server = Server::start(&["--send-timeout", "2s"]);
    let image = heavy_jpeg(19 << 20);
    let mut stream = unfinished(&server, image.len());
    stream.write_all(&image).unwrap();
    let (mut received, mut piece) = (Vec::new(), vec![0; 1 << 20]);
    let start = Instant::now();
    while received.len() < image.len() {
        std::thread::sleep(Duration::from_millis(130));
        let count = stream.read(&mut piece).unwrap();
        assert!(count > 0, "cut off after {} bytes", received.len());
        received.extend_from_slice(&piece[..count]);
    }
    assert!(start.elapsed() > Duration::from_secs(2), "too quick to show anything: {:?}", start.elapsed());
    server.wait_for_metric("pdfmagic_in_flight 0");
}

#[test]
fn beyond_the_limit_of_connections_they_wait_for_their_turn() {
    let server = Server::start(&["--max-connections", "2"]);
    let ask = |stream: &mut TcpStream| stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let status = |stream: &TcpStream| Answer::read(&mut BufReader::new(stream)).status;
    let mut served = [server.connect(), server.connect()];
    for stream in &mut served {
        ask(stream);
        assert_eq!(status(stream), 200);
    }
    let mut third = server.connect();
    ask(&mut third);
    third.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let waiting = third.read(&mut [0]).unwrap_err();
    assert_eq!(waiting.kind(), ErrorKind::WouldBlock, "it is neither answered nor refused");
    // Those that have their place keep it.
    ask(&mut served[0]);
    assert_eq!(status(&served[0]), 200);
    let [first, _second] = served;
    drop(first);
    third.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    assert_eq!(status(&third), 200);
}

/// The zlib stream of so many zeros, without compressing them all: deflate's blocks of one mebibyte, again and again.
fn zlib_of_zeros(count: usize) -> Vec<u8> {
    const PIECE: usize = 1 << 20;
    let block = |length: usize| {
        let mut block = Vec::with_capacity(PIECE);
        let mut deflate = Compress::new(Compression::fast(), false);
        deflate.compress_vec(&vec![0; length], &mut block, FlushCompress::Full).unwrap();
        assert_eq!(deflate.total_in(), length as u64);
        block
    };
    let mut stream = vec![0x78, 0x01];
    stream.extend(block(PIECE).repeat(count / PIECE));
    stream.extend(block(count % PIECE));
    // An empty last block, and Adler-32: the sum of n ones above, one below.
    stream.extend([1, 0, 0, 0xFF, 0xFF]);
    stream.extend((((count % 65_521) as u32) << 16 | 1).to_be_bytes());
    stream
}

#[test]
fn a_conversion_that_takes_too_long_gets_503() {
    // 144 megabytes of pixels, to be put in their places one by one, in a file of 650 kilobytes.
    let side = 6000;
    let shape = PngFile {
        width: side,
        height: side,
        bits: 8,
        colour: RGBA,
        interlaced: true,
        extra: Vec::new(),
        samples: Vec::new(),
    };
    // Rows of Adam7's passes: for every 8 rows of the picture 15, each with its filter byte.
    let slow = shape.encode_with(&zlib_of_zeros(side * side * 4 + side / 8 * 15));
    let server = Server::start(&["--timeout", "150ms"]);
    let answer = server.upload(FIELD, "x", &slow);
    assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{}", answer.text());
    assert!(answer.text().starts_with("the conversion did not finish in its time; "), "{}", answer.text());
    server.wait_for_metric("pdfmagic_in_flight 0");
    // The thread that was at it is free as well.
    assert_eq!(server.upload(FIELD, "x", &small_jpeg()).status, 200);
}

/// `unshare` with what this user needs to mount something that nobody else sees, and that goes with the program.
fn own_mounts() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--propagation", "private"]);
    command
}

const MOUNT_SMALL_DISK: &str = "mount -t tmpfs -o size=64k tmpfs \"$0\"";

/// Says why this machine lets us mount nothing.
fn without_mounts(folder: &Path) -> Option<String> {
    match own_mounts().args(["sh", "-c", MOUNT_SMALL_DISK]).arg(folder).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!("no tmpfs here: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Some(format!("unshare is missing (apt-get install util-linux): {error}")),
    }
}

#[test]
fn a_full_disk_is_answered_with_500_and_keeps_what_it_had() {
    let folder = tempfile::tempdir().unwrap();
    if let Some(reason) = without_mounts(folder.path()) {
        skip("a_full_disk_is_answered_with_500_and_keeps_what_it_had", &reason);
        return;
    }
    for mode in ["local", "shared"] {
        let mut command = own_mounts();
        let program = format!("{MOUNT_SMALL_DISK} && exec \"$1\" serve --results {mode}=\"$0\"");
        command.args(["sh", "-c", &program]).arg(folder.path()).arg(env!("CARGO_BIN_EXE_pdfmagic"));
        let mut server = Server::spawn(command);
        // The folder as the program sees it.
        let inside = PathBuf::from(format!("/proc/{}/root{}", server.id(), folder.path().display()));
        let names = || -> Vec<String> {
            let entries = std::fs::read_dir(&inside).unwrap();
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
        };
        let before = server.upload(FIELD, "x", &small_jpeg());
        assert_eq!(before.status, 303, "{}", before.text());
        let kept = names();
        assert_eq!(kept.len(), 1, "{kept:?}");

        let full = server.upload(FIELD, "x", &heavy_jpeg(200_000));
        assert_eq!(full.status, 500, "{}", full.text());
        let sentence = "the result could not be kept, because its folder has no space left; make some, keep fewer with \
                        --keep, or none with --results stateless\n";
        assert_eq!(full.text(), sentence);
        assert_eq!(names(), kept, "nothing half written, and nothing lost");
        assert!(server.said().contains("cannot keep a result: No space left on device"));
        server.wait_for_metric("pdfmagic_requests_total{outcome=\"failed\"} 1");

        assert_eq!(server.get(before.header("location")).status, 200);
        assert_eq!(server.upload(FIELD, "x", &small_jpeg()).status, 303, "there is room for a small one");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was written outside");
}

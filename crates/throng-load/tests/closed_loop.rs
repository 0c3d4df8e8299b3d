//! A closed loop against servers that answer in all the ways HTTP allows: counts are exact.

mod common;

use common::{Reply, Server, closed, ok, run, status};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use throng_load::{Body, LoadSpec, Part, PartContent, Progress, RequestSpec, Requests, Schedule};
use tokio_util::sync::CancellationToken;

#[test]
fn every_client_makes_its_requests_and_no_more() {
    for threads in [1, 3] {
        let server = Server::start(|_| ok("abc"));
        let spec = LoadSpec { threads, ..closed(server.url(), 10, Requests::PerClient(100)) };
        let result = run(spec);
        assert_eq!((result.requests, result.succeeded, server.served()), (1000, 1000, 1000));
        assert_eq!(result.status, BTreeMap::from([(200, 1000)]));
        assert!(result.errors.is_empty());
        assert_eq!(result.latency.count, 1000);
        assert_eq!(result.timeline.iter().map(|point| point.requests).sum::<u64>(), 1000);
        assert_eq!(server.connections.load(std::sync::atomic::Ordering::SeqCst), 10);
        assert_eq!(
            result.bytes_received,
            1000 * "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc".len() as u64
        );
        assert_eq!((result.schedule.as_str(), result.backlog_max), ("closed: 10 clients × 100 requests", 0));
        assert!((result.rate - 1000.0 / result.seconds).abs() < 1.0);
    }
}

#[test]
fn a_total_is_shared_by_the_clients() {
    let server = Server::start(|_| ok(""));
    let result = run(LoadSpec { threads: 2, ..closed(server.url(), 5, Requests::Total(77)) });
    assert_eq!((result.requests, server.served()), (77, 77));
}

#[test]
fn a_duration_ends_the_load_after_the_requests_under_way() {
    let server = Server::start(|_| {
        std::thread::sleep(Duration::from_millis(30));
        ok("")
    });
    let result = run(closed(server.url(), 2, Requests::For(Duration::from_millis(300))));
    assert_eq!(result.requests, server.served());
    assert!(result.requests >= 4 && result.requests <= 20, "{}", result.requests);
    assert!(result.seconds >= 0.3, "{}", result.seconds);
}

#[test]
fn clients_think_between_requests() {
    let server = Server::start(|_| ok(""));
    let mut spec = closed(server.url(), 1, Requests::PerClient(4));
    spec.schedule =
        Schedule::Closed { clients: 1, requests: Requests::PerClient(4), think: Duration::from_millis(50) };
    let result = run(spec);
    assert_eq!(result.requests, 4);
    assert!(result.seconds >= 0.15, "three pauses took {} s", result.seconds);
    assert!(result.latency.percentiles["50"] < 50_000, "the pause is not latency");
}

#[test]
fn framings_of_all_kinds_are_read_to_the_end() {
    type Replies = [(&'static str, fn() -> Reply); 5];
    let replies: Replies = [
        ("chunked", || {
            Reply::Keep(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec(),
            )
        }),
        ("until close", || Reply::Close(b"HTTP/1.1 200 OK\r\n\r\nabc".to_vec())),
        ("announced close", || {
            Reply::Close(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc".to_vec())
        }),
        ("no content", || Reply::Keep(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec())),
        ("interim", || {
            Reply::Keep(b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na".to_vec())
        }),
    ];
    for (name, reply) in replies {
        let server = Server::start(move |_| reply());
        let result = run(closed(server.url(), 3, Requests::PerClient(20)));
        assert_eq!((result.requests, result.succeeded, server.served()), (60, 60, 60), "{name}: {result:?}");
    }
}

#[test]
fn an_answer_to_head_is_not_waited_for_in_vain() {
    let server = Server::start(|_| Reply::Keep(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n".to_vec()));
    let mut spec = closed(server.url(), 2, Requests::PerClient(10));
    spec.request.method = "HEAD".into();
    assert_eq!(run(spec).succeeded, 20);
}

#[test]
fn a_connection_that_the_server_closed_while_idle_is_replaced() {
    let server = Server::start(|_| Reply::Close(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na".to_vec()));
    let mut spec = closed(server.url(), 1, Requests::PerClient(5));
    spec.schedule =
        Schedule::Closed { clients: 1, requests: Requests::PerClient(5), think: Duration::from_millis(50) };
    let result = run(spec);
    assert_eq!((result.succeeded, result.errors), (5, BTreeMap::new()));
}

#[test]
fn answers_are_counted_by_the_replica_that_names_itself() {
    let server = Server::start(|request| {
        status(
            if request.number % 4 == 3 { 503 } else { 200 },
            &format!("X-Replica: web-{}\r\n", request.number % 2),
        )
    });
    let result = run(closed(server.url(), 1, Requests::Total(40)));
    assert_eq!(result.by_replica, BTreeMap::from([("web-0".into(), 20), ("web-1".into(), 20)]));
    assert_eq!(result.errors, BTreeMap::from([("status 503".into(), 10)]));
    assert_eq!((result.succeeded, result.latency.count), (30, 30));
}

#[test]
fn success_can_be_told_otherwise() {
    let server = Server::start(|_| status(404, ""));
    let spec =
        LoadSpec { success: "404".parse().expect("a rule"), ..closed(server.url(), 1, Requests::Total(3)) };
    assert_eq!(run(spec).succeeded, 3);
}

/// What the original pdfmagic does: the result lies on the replica that made it, and the client is sent there.
#[test]
fn a_redirect_to_a_replica_without_the_result_is_a_failure() {
    let server = Server::start(|request| match request.line.split(' ').collect::<Vec<_>>()[..] {
        ["POST", "/", _] => status(303, &format!("Location: /results/{}\r\n", request.number)),
        // Every other replica has no such file.
        ["GET", path, _] if request.body.is_empty() => {
            std::thread::sleep(Duration::from_millis(5));
            let number: Option<u64> = path.strip_prefix("/results/").and_then(|number| number.parse().ok());
            match number {
                Some(number) if number % 4 == 0 => ok("%PDF"),
                Some(_) => status(404, ""),
                None => status(400, ""),
            }
        }
        _ => status(400, ""),
    });
    let mut spec = LoadSpec { follow_redirects: 3, ..closed(server.url(), 1, Requests::Total(10)) };
    spec.request =
        RequestSpec { method: "POST".into(), body: Body::Bytes("x".into()), ..RequestSpec::default() };
    let result = run(spec.clone());
    assert_eq!(server.served(), 20);
    assert_eq!((result.requests, result.succeeded), (10, 5), "{result:?}");
    assert_eq!(result.errors, BTreeMap::from([("status 404".into(), 5)]));
    assert!(result.latency.min >= 5_000, "the latency is that of the whole chain");

    spec.follow_redirects = 0;
    let result = run(spec);
    assert_eq!(result.status, BTreeMap::from([(303, 10)]), "not followed, a redirect is an answer");
}

#[test]
fn redirects_end_somewhere() {
    for location in ["/again", "http://127.0.0.2:1/elsewhere", "http://[bad", ""] {
        let server = Server::start(move |_| status(302, &format!("Location: {location}\r\n")));
        let spec = LoadSpec { follow_redirects: 4, ..closed(server.url(), 1, Requests::Total(2)) };
        assert_eq!(run(spec).errors, BTreeMap::from([("redirect".into(), 2)]), "{location:?}");
    }
}

#[test]
fn every_form_carries_another_picture() {
    let bodies = Arc::new(Mutex::new(HashSet::new()));
    let seen = bodies.clone();
    let server = Server::start(move |request| {
        assert!(request.head.contains("multipart/form-data; boundary="), "{}", request.head);
        seen.lock().expect("no panic").insert(request.body.clone());
        ok("%PDF")
    });
    let mut spec = LoadSpec { threads: 2, ..closed(server.url(), 4, Requests::PerClient(25)) };
    let part = Part {
        name: "myfile".into(),
        filename: Some("picture.jpg".into()),
        content_type: None,
        content: PartContent::Image("64x48".parse().expect("a size")),
    };
    spec.request =
        RequestSpec { method: "POST".into(), body: Body::Multipart(vec![part]), ..RequestSpec::default() };
    let result = run(spec);
    assert_eq!((result.succeeded, bodies.lock().expect("no panic").len()), (100, 100));
    let sent: usize = bodies.lock().expect("no panic").iter().map(Vec::len).sum();
    assert!(result.bytes_sent > sent as u64);
}

#[test]
fn cancelling_ends_the_load_with_what_there_is() {
    let server = Server::start(|request| if request.number < 50 { ok("") } else { Reply::Hang });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let cancel = CancellationToken::new();
    let (progress, seen) = tokio::sync::watch::channel(Progress::default());
    let spec = closed(server.url(), 4, Requests::For(Duration::from_secs(600)));
    let begin = Instant::now();
    let result = runtime.block_on(async {
        let after = async {
            while server.served() < 54 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            cancel.cancel();
        };
        tokio::join!(throng_load::run(spec, progress, cancel.clone()), after).0
    });
    let result = result.expect("what there is");
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!((result.requests, result.succeeded), (50, 50), "requests under way are not counted");
    assert!(result.seconds < 20.0);
    let last = seen.borrow();
    assert_eq!((last.done, last.total, last.duration), (50, None, Some(Duration::from_secs(600))));
}

#[test]
fn dropping_the_load_closes_its_connections() {
    let gone = Arc::new(Mutex::new(0));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address")).parse().expect("a URL");
    let count = gone.clone();
    let server = std::thread::spawn(move || {
        for mut stream in listener.incoming().take(2).flatten() {
            // Ends when the other side is closed: nothing is ever answered.
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
            *count.lock().expect("no panic") += 1;
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (progress, _) = tokio::sync::watch::channel(Progress::default());
    runtime.block_on(async {
        let load = throng_load::run(closed(url, 2, Requests::Total(2)), progress, CancellationToken::new());
        assert!(tokio::time::timeout(Duration::from_millis(200), load).await.is_err());
    });
    server.join().expect("both connections were closed");
    assert_eq!(*gone.lock().expect("no panic"), 2);
}

#[test]
fn progress_tells_how_far_the_load_is() {
    let server = Server::start(|_| {
        std::thread::sleep(Duration::from_millis(10));
        ok("")
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (progress, mut seen) = tokio::sync::watch::channel(Progress::default());
    let spec = closed(server.url(), 2, Requests::PerClient(60));
    let reports = runtime.block_on(async {
        let watching = async {
            let mut reports = Vec::new();
            while seen.changed().await.is_ok() {
                reports.push(seen.borrow_and_update().clone());
            }
            reports
        };
        let (result, reports) =
            tokio::join!(throng_load::run(spec, progress, CancellationToken::new()), watching);
        result.expect("the load runs");
        reports
    });
    assert!(
        reports.windows(2).all(|pair| pair[0].done <= pair[1].done && pair[0].elapsed <= pair[1].elapsed)
    );
    let between = reports.iter().filter(|report| report.done > 0 && report.done < 120);
    assert!(between.clone().count() >= 1, "{reports:?}");
    assert!(
        between.clone().all(|report| report.p50_micros >= 10_000 && report.p99_micros >= report.p50_micros)
    );
    let last = reports.last().expect("a report");
    assert_eq!((last.done, last.total, last.errors), (120, Some(120), 0));
    assert!(last.rate > 0.0);
}

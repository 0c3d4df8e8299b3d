//! Memory does not grow with the number of requests. Alone in its binary: it looks at the whole process.

mod common;

use common::{Server, closed, ok, run};
use throng_load::Requests;

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("this process's status");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a resident size");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number")
}

#[test]
fn ten_thousand_requests_take_no_more_memory_than_a_thousand() {
    // Every answer differs in length and none is kept.
    let server = Server::start(|request| ok(&"x".repeat(1 + request.number as usize % 10_000)));
    for _ in 0..2 {
        run(closed(server.url(), 4, Requests::Total(1_000)));
    }
    let before = resident_kib();
    let result = run(closed(server.url(), 4, Requests::Total(10_000)));
    let grown = resident_kib().saturating_sub(before);
    assert_eq!(result.succeeded, 10_000);
    assert!(grown < 4 * 1024, "resident memory grew by {grown} KiB");
}

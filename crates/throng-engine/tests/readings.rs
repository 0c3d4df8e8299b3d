//! What replicas use, where it is known without being read: it is what the kernel says all the same. Root only.

mod common;

use common::Bench;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;
use throng_engine::Engine;
use throng_model::replica::{ReplicaId, ReplicaSpec, Statistics};
use throng_runtime::{ExecSpec, Runtime};

/// Readings after which those of whom nothing is heard are not read any more, and some.
const UNTIL_QUIET: usize = 5;
/// Fewer than it takes until each is read in its turn.
const SOON: usize = 2;
const NOBODY_LISTENS: u16 = 9;

async fn read(engine: &Engine, ids: &[ReplicaId]) -> Vec<Statistics> {
    engine.statistics(ids).await.into_iter().map(|read| read.expect("it runs")).collect()
}

/// What the kernel counts of its interfaces, told by a file that the replica has as well.
fn counted(pid: u32) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).expect("its interfaces");
    throng_runtime::counters::traffic(&text)
}

/// CPU time in nanoseconds (proc_pid_schedstat in the kernel's Documentation/scheduler).
fn ran(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("its time");
    text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse().ok()).expect("a number")
}

struct Crowd {
    bench: Bench,
    ids: Vec<ReplicaId>,
    pids: Vec<u32>,
    specs: Vec<ReplicaSpec>,
}

impl Crowd {
    async fn of(count: u32, project: &str, block: u8) -> Crowd {
        let bench = Bench::new(project, block).await;
        let specs: Vec<ReplicaSpec> = (1..=count).map(|n| bench.spec("web", n, &["serve"])).collect();
        let mut pids = Vec::new();
        for spec in &specs {
            bench.engine.create(spec).await.expect("created");
            pids.push(bench.engine.start(&spec.id, 1).await.expect("started"));
        }
        for spec in &specs {
            let address = spec.networks[0].address;
            common::first_answer(&bench.engine, address, Duration::from_secs(30)).await.expect("an answer");
        }
        Crowd { ids: specs.iter().map(|spec| spec.id.clone()).collect(), bench, pids, specs }
    }

    fn address(&self, place: usize, port: u16) -> SocketAddr {
        (self.specs[place].networks[0].address, port).into()
    }

    /// Reads until whatever has been is told, and nobody has anything to tell.
    async fn calm(&self) {
        for _ in 0..UNTIL_QUIET {
            read(&self.bench.engine, &self.ids).await;
        }
    }

    /// Fails unless the next reading, or the one after it where the kernel was still at it, says what the kernel does.
    async fn is_told(&self, what: &str) {
        for last in (0..SOON).map(|turn| turn + 1 == SOON) {
            let before: Vec<_> = self.pids.iter().map(|pid| counted(*pid)).collect();
            let told = read(&self.bench.engine, &self.ids).await;
            let told: Vec<_> = told.iter().map(|one| (one.network_received, one.network_sent)).collect();
            if told == before {
                return;
            }
            let after: Vec<_> = self.pids.iter().map(|pid| counted(*pid)).collect();
            assert!(!last, "{what}: {told:?} told, {before:?} before that, {after:?} after it");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn traffic_that_a_program_takes_no_part_in_is_told_at_once() {
    if !common::is_root() {
        return common::skip("traffic_that_a_program_takes_no_part_in_is_told_at_once", "it takes root");
    }
    let crowd = Crowd::of(4, "engine-quiet", 61).await;
    for turn in 0..3 {
        // From outside: the kernel answers that nobody listens.
        crowd.calm().await;
        let (before, time) = (counted(crowd.pids[1]), ran(crowd.pids[1]));
        TcpStream::connect(crowd.address(1, NOBODY_LISTENS)).expect_err("refused");
        assert_eq!(ran(crowd.pids[1]), time, "the program had nothing to do");
        assert!(counted(crowd.pids[1]).0 > before.0);
        crowd.is_told(&format!("{turn}: refused by the kernel")).await;
        // From one to another one behind the same parent, which carries none of it.
        crowd.calm().await;
        let (before, time) = (counted(crowd.pids[2]), ran(crowd.pids[2]));
        let address = crowd.address(2, NOBODY_LISTENS).to_string();
        common::exec(&crowd.bench.engine, &crowd.ids[0], &["/probe", "dial", &address]).await;
        assert_eq!(ran(crowd.pids[2]), time, "the program had nothing to do");
        assert!(counted(crowd.pids[2]).0 > before.0);
        crowd.is_told(&format!("{turn}: among themselves")).await;
        // To everybody.
        crowd.calm().await;
        let before: Vec<_> = crowd.pids.iter().map(|pid| counted(*pid)).collect();
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        socket.set_broadcast(true).expect("allowed");
        let everybody = crowd.bench.network.subnet.broadcast();
        socket.send_to(b"hello", (everybody, NOBODY_LISTENS)).expect("sent");
        std::thread::sleep(Duration::from_millis(20));
        let heard = crowd.pids.iter().zip(&before).all(|(pid, before)| counted(*pid).0 > before.0);
        assert!(heard, "all hear it");
        crowd.is_told(&format!("{turn}: to everybody")).await;
    }
    crowd.bench.end().await;
}

/// Only the first process of most replicas is looked at, so whoever brings another one in has to say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_a_replica_is_counted_at_once() {
    if !common::is_root() {
        return common::skip("a_command_in_a_replica_is_counted_at_once", "it takes root");
    }
    let crowd = Crowd::of(2, "engine-joined", 62).await;
    crowd.calm().await;
    let before = read(&crowd.bench.engine, &crowd.ids).await;
    assert_eq!((before[0].pids, before[1].pids), (1, 1));
    let command = ["/probe", "sleep", "60"].map(str::to_owned).to_vec();
    let (io, _reader) = common::pipe_io();
    let (engine, id) = (crowd.bench.engine.clone(), crowd.ids[0].clone());
    let spec = ExecSpec { args: command, ..ExecSpec::default() };
    let sleeping = tokio::spawn(async move { engine.exec(&id, &spec, io).await });
    let group = format!("/throng/{}/{}", crowd.bench.project, crowd.ids[0].name());
    let inside = || {
        let processes = std::fs::read_dir("/proc").expect("processes").flatten();
        let groups = processes.filter_map(|one| std::fs::read_to_string(one.path().join("cgroup")).ok());
        groups.filter(|text| text.lines().any(|line| line.ends_with(&group))).count()
    };
    let begin = std::time::Instant::now();
    while inside() < 2 {
        assert!(begin.elapsed() < Duration::from_secs(30), "it never began");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // The engine is told a moment after that.
    tokio::time::sleep(Duration::from_millis(100)).await;
    let now = read(&crowd.bench.engine, &crowd.ids).await;
    assert_eq!((now[0].pids, now[1].pids), (2, 1));
    assert!(now[0].memory > before[0].memory && now[0].cpu > before[0].cpu, "{now:?} after {before:?}");
    sleeping.abort();
    // It counts until whoever waits for it has taken note of its end.
    let begin = std::time::Instant::now();
    while read(&crowd.bench.engine, &crowd.ids).await[0].pids > 1 {
        assert!(begin.elapsed() < Duration::from_secs(30), "it never ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    crowd.bench.end().await;
}

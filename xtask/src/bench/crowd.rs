//! Ten thousand replicas of one small server in one network, by the command as people use it: how fast they come, what
//! each costs the host, whether all of them answer, and how fast they go.

use super::readings::{self, Readings};
use super::record::{Bar, Better, Comparison, Role, Subject, median};
use super::{Measured, Session, built, machine, probe};
use crate::{dist, process};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

const PROJECT: &str = "throng-bench-crowd";
const IMAGE: &str = "hello:latest";
const PORT: u16 = 8080;
/// The longest that one command may take.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long one replica may take to answer when all are asked.
const ANSWER: Duration = Duration::from_secs(10);
/// Before the replica is there, nobody says that its address does not exist, so each attempt is short.
const ATTEMPT: Duration = Duration::from_millis(1);
/// Replicas that are asked at the same time.
const ASKING: usize = 32;
/// Replicas started one after another for the median of a first answer.
const SINGLES: usize = 30;
/// Programs started outside containers, to know what the program itself takes.
const ALONE: usize = 200;
/// How a wall is named.
const WALL: &str = "the wall is ";
/// Replicas of one row of the curve.
const ROW: usize = 1_000;
/// How long the kernel gets to give memory back before it is counted, how often, and what may still change then.
const RECLAIM: Duration = Duration::from_secs(3);
const STEADY_TRIES: usize = 10;
const STEADY: f64 = 2e6;

struct Sizes {
    crowd: usize,
    /// The smaller crowd, whose start and end have bars of their own.
    small: usize,
}

pub fn measure(session: &Session) -> Result<Measured> {
    if !rustix::process::geteuid().is_root() {
        bail!("the bars are those of root; run as root");
    }
    let sizes = Sizes { crowd: session.size(10_000, 300), small: session.size(1_000, 100) };
    let crowd = Crowd::prepare(session, None)?;
    let busy_before = session.settle()?;
    let own = crowd.own_memory(session)?;
    eprintln!("the program itself takes {:.2} MB", own / 1e6);
    let first = crowd.first_answers(session)?;
    eprintln!("one replica answers after {:.1} ms (median)", median(&first));
    let small = crowd.rise_and_fall(session, sizes.small, own)?;
    let mut read = Vec::new();
    let large = crowd.rise_and_fall_with(session, sizes.crowd, own, |crowd, listed| {
        read = readings::measure(session, crowd, listed)?;
        Ok(())
    })?;
    let mut compared = comparisons(&sizes, &first, &small, &large);
    compared.extend(readings::comparisons(&read, sizes.crowd));
    Ok(Measured {
        busy_before,
        versions: machine::versions(&[]),
        method: method(&sizes, own, &read),
        comparisons: compared,
    })
}

/// What one crowd showed.
pub struct Seen {
    /// From the order to the last replica that is ready.
    pub start: Duration,
    /// From the order to the end of `throng down`.
    pub down: Duration,
    /// Replicas that answered on their own addresses and whose names were resolved to them.
    pub well: usize,
    /// Bytes of the host for each beyond the program's own.
    pub memory: f64,
    /// Milliseconds between one start and the next, averaged over each [`ROW`] of replicas.
    rows: Vec<f64>,
}

/// One line of `throng ps --format json`, as far as it matters.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Listed {
    pub state: String,
    ordinal: usize,
    addresses: Vec<Ipv4Addr>,
}

impl Listed {
    /// Where its server is.
    pub fn server(&self) -> Option<SocketAddr> {
        self.addresses.first().map(|address| SocketAddr::from((*address, PORT)))
    }
}

pub struct Crowd {
    throng: PathBuf,
    home: PathBuf,
    compose: PathBuf,
    /// What replicas run on instead of the engine.
    docker: Option<Daemon>,
}

/// A Docker daemon, and how many daemons inside it run the replicas, if it does not itself.
pub struct Daemon {
    pub host: String,
    pub nodes: usize,
}

impl Crowd {
    pub fn prepare(session: &Session, docker: Option<Daemon>) -> Result<Crowd> {
        dist::build()?;
        let folder = session.folder.path();
        let crowd = Crowd {
            throng: built::program(&["-p", "throng", "--bin", "throng"])?,
            home: folder.join("throng"),
            compose: folder.join("crowd.yaml"),
            docker,
        };
        let workload = process::root().join("workloads/hello");
        let build =
            serde_json::json!({"context": workload.join("dist"), "dockerfile": workload.join("Dockerfile")});
        let service = serde_json::json!({"image": IMAGE, "build": build, "stop_grace_period": "5s"});
        // YAML takes JSON as it is.
        let text = serde_json::json!({"services": {"web": service}}).to_string();
        std::fs::write(&crowd.compose, text).context("cannot write the Compose file")?;
        crowd.throng(session, &["build"])?;
        Ok(crowd)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.throng);
        command
            .env("THRONG_HOME", &self.home)
            .arg("-f")
            .arg(&self.compose)
            .args(["-p", PROJECT])
            .args(arguments);
        if let Some(Daemon { host, nodes }) = &self.docker {
            let on = if *nodes == 0 { "docker".to_owned() } else { format!("docker:{nodes}") };
            command.env("DOCKER_HOST", host).args(["--on", &on]);
        }
        command
    }

    pub fn throng(&self, session: &Session, arguments: &[&str]) -> Result<String> {
        session.children.output(self.command(arguments), PATIENCE)
    }

    pub fn scale(&self, session: &Session, count: usize) -> Result<Duration> {
        self.scale_within(session, count, PATIENCE)
    }

    pub fn scale_within(&self, session: &Session, count: usize, limit: Duration) -> Result<Duration> {
        let begin = Instant::now();
        let seconds = limit.as_secs().max(1).to_string();
        self.throng(session, &["scale", "--wait-timeout", &seconds, &format!("web={count}")])?;
        Ok(begin.elapsed())
    }

    pub fn listed(&self, session: &Session) -> Result<Vec<Listed>> {
        let text = self.throng(session, &["ps", "--format", "json"])?;
        text.lines().map(|line| serde_json::from_str(line).context("throng ps gives no JSON")).collect()
    }

    /// Walls that `throng events` names.
    pub fn walls(&self, session: &Session) -> Result<Vec<String>> {
        let events = self.throng(session, &["events", "--no-follow"])?;
        let named = events.lines().filter_map(|line| line.find(WALL).map(|place| line[place..].to_owned()));
        let walls: std::collections::BTreeSet<String> = named.collect();
        Ok(walls.into_iter().collect())
    }

    /// Memory that one server takes of the host outside any container.
    pub fn own_memory(&self, session: &Session) -> Result<f64> {
        let program = process::root().join("workloads/hello/dist/hello");
        let start = |number: usize| {
            let listen = format!("127.1.{}.{}:{PORT}", number / 250, 1 + number % 250);
            let mut command = Command::new(&program);
            command.args(["serve", "--listen", &listen]).stdout(Stdio::null());
            let child = Alone(command.spawn().context("cannot start the server")?);
            probe::first_answer(listen.parse().context("an address")?, ANSWER)
                .context("the server does not answer")?;
            Ok(child)
        };
        // The first one brings the program into memory for all.
        let first = start(0)?;
        let before = steady(session)?;
        let all = (1..=ALONE).map(start).collect::<Result<Vec<Alone>>>()?;
        let used = before - steady(session)?;
        drop((first, all));
        Ok((used / ALONE as f64).max(0.0))
    }

    /// Milliseconds from the order of one more replica to its first answer.
    pub fn first_answers(&self, session: &Session) -> Result<Vec<f64>> {
        self.throng(session, &["up", "-d", "--wait"])?;
        let address = self.listed(session)?.first().and_then(|replica| replica.addresses.first().copied());
        let first = u32::from(address.context("the first replica is not listed")?);
        let one = |number: usize| {
            // Free addresses are given out from the lowest, so that one knows it before the replica is there.
            let address = SocketAddr::from((Ipv4Addr::from(first + number as u32), PORT));
            let begin = Instant::now();
            let mut order = self.command(&["scale", "--no-wait", &format!("web={}", number + 1)]);
            let mut order = order.stderr(Stdio::null()).spawn().context("cannot start throng")?;
            let answered =
                probe::answer_by(address, ANSWER, ATTEMPT).map(|()| begin.elapsed().as_secs_f64() * 1e3);
            order.wait().context("cannot wait for throng")?;
            answered.with_context(|| format!("replica {} does not answer", number + 1))
        };
        let times = (1..=session.size(SINGLES, 5)).map(one).collect::<Result<Vec<f64>>>()?;
        self.throng(session, &["down"])?;
        Ok(times)
    }

    fn rise_and_fall(&self, session: &Session, count: usize, own: f64) -> Result<Seen> {
        self.rise_and_fall_with(session, count, own, |_, _| Ok(()))
    }

    /// `above` does something with the crowd at its largest, before it goes down again.
    pub fn rise_and_fall_with(
        &self,
        session: &Session,
        count: usize,
        own: f64,
        above: impl FnOnce(&Crowd, &[Listed]) -> Result<()>,
    ) -> Result<Seen> {
        self.throng(session, &["up", "-d", "--scale", "web=0"])?;
        let before = steady(session)?;
        // Containers of Docker have their control groups elsewhere.
        let watch = self.docker.is_none().then(|| Watch::start(count));
        let start = self.scale(session, count)?;
        let rows = watch.map(Watch::rows).unwrap_or_default();
        let memory = (before - steady(session)?) / count as f64 - own;
        let listed = self.listed(session)?;
        if listed.len() != count {
            bail!("{} of {count} replicas are listed", listed.len());
        }
        let well = well(&listed)?;
        above(self, &listed)?;
        let begin = Instant::now();
        self.throng(session, &["down"])?;
        let down = begin.elapsed();
        eprintln!(
            "{count}: up in {:.1} s, {well} well, {:.2} MB each, down in {:.1} s",
            start.as_secs_f64(),
            memory / 1e6,
            down.as_secs_f64()
        );
        Ok(Seen { start, down, well, memory, rows })
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Whatever ended the measurement; an error says that there is nothing to take down.
        let _ = self.command(&["down", "-t", "1"]).output();
    }
}

struct Alone(Child);

impl Drop for Alone {
    fn drop(&mut self) {
        // One that has ended already needs neither.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Counts replicas while they come, by their control groups: nothing that is measured does any work for it.
struct Watch(std::thread::JoinHandle<Vec<Duration>>);

impl Watch {
    fn start(count: usize) -> Watch {
        let begin = Instant::now();
        Watch(std::thread::spawn(move || {
            let rows = count / ROW;
            let mut reached = Vec::new();
            while reached.len() < rows && begin.elapsed() < PATIENCE {
                while groups() >= (reached.len() + 1) * ROW && reached.len() < rows {
                    reached.push(begin.elapsed());
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            reached
        }))
    }

    /// Milliseconds for each replica of each row.
    fn rows(self) -> Vec<f64> {
        let reached = self.0.join().unwrap_or_default();
        let before = std::iter::once(Duration::ZERO).chain(reached.iter().copied());
        reached
            .iter()
            .zip(before)
            .map(|(at, before)| (*at - before).as_secs_f64() * 1e3 / ROW as f64)
            .collect()
    }
}

/// Replicas that are there: each has a folder in the hierarchy of the pids controller. A folder's links are its
/// children and two (stat(2)), so that counting reads nothing.
fn groups() -> usize {
    use std::os::unix::fs::MetadataExt;
    let v1 = format!("/sys/fs/cgroup/pids/throng/{PROJECT}");
    let v2 = format!("/sys/fs/cgroup/throng/{PROJECT}");
    let links = [v1, v2].iter().find_map(|path| Some(std::fs::metadata(path).ok()?.nlink()));
    links.map_or(0, |links| links.saturating_sub(2) as usize)
}

/// Bytes that the host could still give to programs, once what came before has been given back: as soon as they do not
/// change any more, and after [`STEADY_TRIES`] looks in any case.
pub fn steady(session: &Session) -> Result<f64> {
    let mut last = available()?;
    for _ in 0..STEADY_TRIES {
        session.children.pause(RECLAIM)?;
        let now = available()?;
        if (now - last).abs() < STEADY {
            return Ok(now);
        }
        last = now;
    }
    Ok(last)
}

fn available() -> Result<f64> {
    Ok(machine::memory("MemAvailable").context("/proc/meminfo has no MemAvailable")? as f64)
}

/// How many replicas answer at their own addresses and are found under their own names.
pub fn well(listed: &[Listed]) -> Result<usize> {
    let first =
        listed.iter().filter_map(|replica| replica.addresses.first()).min().context("nobody is listed")?;
    // The network's gateway, where its names are answered, comes just before its first replica.
    let server = SocketAddr::from((Ipv4Addr::from(u32::from(*first) - 1), 53));
    let (next, well) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..ASKING {
            scope.spawn(|| {
                while let Some(replica) = listed.get(next.fetch_add(1, Relaxed)) {
                    let Some(own) = replica.server() else { continue };
                    let name = format!("web-{}", replica.ordinal);
                    let answers = probe::first_answer(own, ANSWER).is_ok();
                    if answers && resolve(server, &name).ok().map(IpAddr::V4) == Some(own.ip()) {
                        well.fetch_add(1, Relaxed);
                    }
                }
            });
        }
    });
    Ok(well.into_inner())
}

/// The address of a name: one question of type A over UDP (RFC 1035).
fn resolve(server: SocketAddr, name: &str) -> Result<Ipv4Addr> {
    let mut question = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).context("a label of 63 bytes at most")?);
        question.extend(label.bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0").context("cannot open a socket")?;
    socket.set_read_timeout(Some(ANSWER)).context("cannot set a timeout")?;
    socket.send_to(&question, server).context("cannot ask")?;
    let mut answer = [0; 512];
    let (length, _) = socket.recv_from(&mut answer).context("no answer")?;
    // One record of type A ends with its four bytes.
    let four = answer[..length].last_chunk::<4>().filter(|_| answer[7] == 1).context("not one address")?;
    Ok(Ipv4Addr::from(*four))
}

fn comparisons(sizes: &Sizes, first: &[f64], small: &Seen, large: &Seen) -> Vec<Comparison> {
    let rate = |seen: &Seen, count: usize| count as f64 / seen.start.as_secs_f64();
    let (all, few) = (super::page::number(sizes.crowd as f64), super::page::number(sizes.small as f64));
    let mut found = vec![
        ours(
            "well",
            format!("Replicas that run, answer at their own addresses and have names, of {all}"),
            "replicas",
            vec![large.well as f64],
            Bar::AtLeast(sizes.crowd as f64),
        ),
        ours(
            "start-small",
            format!("Start, average to {few}"),
            "replicas/s",
            vec![rate(small, sizes.small)],
            Bar::AtLeast(250.0),
        ),
        ours(
            "start",
            format!("Start, average to {all}"),
            "replicas/s",
            vec![rate(large, sizes.crowd)],
            Bar::AtLeast(120.0),
        ),
        ours(
            "memory",
            format!("Memory of the host for each of {all}, beyond the program's own"),
            "MB",
            vec![large.memory / 1e6],
            Bar::AtMost(0.8),
        ),
        ours(
            "down-small",
            format!("`throng down` of {few}"),
            "s",
            vec![small.down.as_secs_f64()],
            Bar::AtMost(4.0),
        ),
        ours(
            "down",
            format!("`throng down` of {all}"),
            "s",
            vec![large.down.as_secs_f64()],
            Bar::AtMost(40.0),
        ),
        ours(
            "first",
            "From the order to the first answer of one more replica, the command included".into(),
            "ms",
            first.to_vec(),
            Bar::AtMost(15.0),
        ),
    ];
    if let (Some(begin), Some(end)) = (large.rows.first(), large.rows.last()) {
        let title = "The last thousand starts, times the first thousand".to_owned();
        found.push(ours("flat", title, "times", vec![end / begin], Bar::AtMost(3.0)));
        found.push(curve(&large.rows));
    }
    found
}

/// One of our own figures. What is to be reached says which direction is better.
fn ours(key: &str, title: String, unit: &str, rounds: Vec<f64>, bar: Bar) -> Comparison {
    Comparison {
        key: key.into(),
        title,
        unit: unit.into(),
        better: if matches!(bar, Bar::AtMost(_)) { Better::Lower } else { Better::Higher },
        subjects: vec![Subject { name: "throng".into(), role: Role::Ours, rounds }],
        bar: Some(bar),
    }
}

/// What a start costs as the crowd grows: one row for each thousand.
fn curve(rows: &[f64]) -> Comparison {
    let subject = |(row, cost): (usize, &f64)| Subject {
        name: format!("to {}", super::page::number(((row + 1) * ROW) as f64)),
        role: Role::Reference,
        rounds: vec![*cost],
    };
    Comparison {
        key: "curve".into(),
        title: "Time for each start as the crowd grows".into(),
        unit: "ms".into(),
        better: Better::Lower,
        subjects: rows.iter().enumerate().map(subject).collect(),
        bar: None,
    }
}

fn method(sizes: &Sizes, own: f64, read: &[Readings]) -> Vec<String> {
    let (all, few) = (super::page::number(sizes.crowd as f64), super::page::number(sizes.small as f64));
    let mut said = vec![
        "One service with workloads/hello as its image, FROM scratch with one static binary; one network; no health check, no limits; `throng scale` and `throng down` as people type them.".into(),
        format!("Start: from `throng scale web={few}`, and later `web={all}`, of an app without replicas, until the command returns with all of them ready."),
        "Each replica is then asked for `GET /healthz` at its own address from this host, and its name (`web-17`) at the network's name server, which must give that address.".into(),
        format!("Memory: what MemAvailable has fallen by after all are up, divided by their number, less {:.2} MB, which is what one such server takes of the host outside any container (mean of {ALONE}).", own / 1e6),
        "First answer: from starting the command `throng scale --no-wait` with one more to the 200 of the new replica, tried about every 1.3 ms.".into(),
        "The curve counts control groups every 20 ms.".into(),
    ];
    said.extend(readings::method(read));
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_and_its_address_read() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = server.local_addr().expect("an address");
        let answering = std::thread::spawn(move || {
            let mut question = [0; 512];
            let (length, client) = server.recv_from(&mut question).expect("a question");
            assert_eq!(&question[12..length], b"\x06web-17\x00\x00\x01\x00\x01");
            let mut answer = question[..length].to_vec();
            answer[7] = 1;
            answer.extend(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x01\x00\x04\x0a\x80\x00\x12");
            server.send_to(&answer, client).expect("sent");
        });
        assert_eq!(resolve(address, "web-17").expect("an address"), Ipv4Addr::new(10, 128, 0, 18));
        answering.join().expect("asked as expected");
    }
}

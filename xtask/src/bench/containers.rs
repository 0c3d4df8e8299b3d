//! From the order to start a container to its first answer, against Docker on the same image.

use super::children::Children;
use super::docker::{Docker, Image};
use super::record::{Bar, Better, Comparison, Role, Subject, median};
use super::{Measured, Session, built, machine, probe};
use crate::{dist, packages, process};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::cell::Cell;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const IMAGE: &str = "throng-bench:latest";
const PROJECT: &str = "throng-bench";
const PORT: u16 = 8080;
const ARGUMENTS: [&str; 3] = ["serve", "--listen", "0.0.0.0:8080"];
/// As many as the bar speaks of.
const AT_ONCE: usize = 8;
/// At least this much faster than Docker.
const TIMES: f64 = 10.0;
/// The longest that one container, or one command about many, may take.
const PATIENCE: Duration = Duration::from_secs(300);

struct Sizes {
    rounds: usize,
    /// Containers started one after another in each round.
    serial: usize,
    /// Containers started [`AT_ONCE`] at a time in each round.
    together: usize,
    /// Whole apps brought up from nothing in each round.
    apps: usize,
}

/// What one way of starting containers took in one round, in milliseconds.
struct Round {
    /// Median of one, started after the one before has answered.
    serial: f64,
    /// Of all that were started at once, divided by their number.
    together: f64,
}

pub fn measure(session: &Session) -> Result<Measured> {
    check_host()?;
    let sizes = Sizes {
        rounds: session.size(3, 1),
        serial: session.size(50, 5),
        together: session.size(100, 10),
        apps: session.size(10, 2),
    };
    let ours = Ours::prepare(session)?;
    let docker = Docker::start(&session.children, &session.folder.path().join("docker"))?;
    docker.load(&ours.archive)?;
    let busy_before = session.settle()?;
    let mut found = Found::default();
    for round in 0..sizes.rounds {
        // Forwards and backwards in turn, so that neither side always comes first.
        let mut order = [Way::Engine, Way::Daemon, Way::Throng, Way::DockerRun];
        if round % 2 == 1 {
            order.reverse();
        }
        for way in order {
            let measured = way.measure(session, &ours, &docker, &sizes)?;
            let (name, serial, together) = (way.name(), measured.serial, measured.together);
            eprintln!("round {}: {name:>12} {serial:8.2} ms each, {together:8.2} ms at once", round + 1);
            found.rounds.push((way, measured));
        }
        found.apps.push(ours.apps_from_nothing(&session.children, sizes.apps)?);
    }
    Ok(Measured {
        busy_before,
        versions: versions(),
        method: method(&sizes),
        comparisons: found.comparisons(),
    })
}

fn check_host() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("Docker's daemon needs root; run as root");
    }
    for program in ["dockerd", "containerd", "ip"] {
        if !packages::present(program) {
            bail!("{program} is not installed");
        }
    }
    Ok(())
}

/// Docker's own command, from Debian's package if it is there: another one on the path may be of another version.
fn docker_command() -> &'static str {
    if Path::new("/usr/bin/docker").exists() { "/usr/bin/docker" } else { "docker" }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// `throng-engine` called as a library.
    Engine,
    /// Docker's daemon asked over its socket.
    Daemon,
    /// `throng scale`.
    Throng,
    /// `docker run -d`.
    DockerRun,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Way::Engine => "throng-engine",
            Way::Daemon => "dockerd's API",
            Way::Throng => "throng scale",
            Way::DockerRun => "docker run -d",
        }
    }

    fn measure(self, session: &Session, ours: &Ours, docker: &Docker, sizes: &Sizes) -> Result<Round> {
        let children = &session.children;
        let image = Image { name: IMAGE, arguments: &ARGUMENTS };
        let by_command = || {
            let mut command = Command::new(docker_command());
            command.env("DOCKER_HOST", docker.host()).args(["run", "-d", "--no-healthcheck", IMAGE]);
            command.args(ARGUMENTS);
            Ok(children.output(command, PATIENCE)?.trim().to_owned())
        };
        match self {
            Way::Engine => ours.engine_round(children, sizes),
            Way::Daemon => docker_round(children, docker, sizes, &|| docker.run(&image)),
            Way::Throng => ours.command_round(children, sizes),
            Way::DockerRun => docker_round(children, docker, sizes, &by_command),
        }
    }
}

fn docker_round(
    children: &Children,
    docker: &Docker,
    sizes: &Sizes,
    run: &(dyn Fn() -> Result<String> + Sync),
) -> Result<Round> {
    let one = || -> Result<f64> {
        children.check()?;
        let begin = Instant::now();
        let container = run()?;
        answer_of(docker.address(&container)?)?;
        Ok(milliseconds(begin))
    };
    let serial = (0..sizes.serial).map(|_| one()).collect::<Result<Vec<f64>>>()?;
    clear(docker)?;
    let begin = Instant::now();
    at_once(sizes.together, &|_| one().map(drop))?;
    let together = milliseconds(begin) / sizes.together as f64;
    clear(docker)?;
    Ok(Round { serial: median(&serial), together })
}

fn clear(docker: &Docker) -> Result<()> {
    let containers = docker.containers()?;
    at_once(containers.len(), &|number| docker.remove(&containers[number]))
}

/// Does the work `count` times, [`AT_ONCE`] at a time, until one fails.
fn at_once(count: usize, work: &(dyn Fn(usize) -> Result<()> + Sync)) -> Result<()> {
    let next = AtomicUsize::new(0);
    let failed = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(count) {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    if let Err(error) = work(number) {
                        next.store(count, Ordering::Relaxed);
                        *failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}

fn answer_of(address: Ipv4Addr) -> Result<()> {
    probe::first_answer((address, PORT).into(), PATIENCE)
        .with_context(|| format!("{address} does not answer"))
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// This project's side: its programs, and a home with the image.
struct Ours {
    throng: PathBuf,
    engine: PathBuf,
    home: PathBuf,
    compose: PathBuf,
    /// The app that was brought up last. Each one is new, so that nothing of an earlier one helps or hinders it.
    app: Cell<usize>,
    /// The image as `docker load` takes it.
    archive: PathBuf,
}

#[derive(Deserialize)]
struct EngineTimes {
    one_after_another_ms: Vec<f64>,
    at_once_seconds: f64,
}

/// A line of `throng ps --format json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    ordinal: usize,
    addresses: Vec<Ipv4Addr>,
}

impl Ours {
    fn prepare(session: &Session) -> Result<Ours> {
        dist::build()?;
        let folder = session.folder.path();
        let ours = Ours {
            throng: built::program(&["-p", "throng", "--bin", "throng"])?,
            engine: built::program(&["-p", "xtask", "--example", "engine_starts"])?,
            home: folder.join("throng"),
            compose: folder.join("compose.yaml"),
            archive: folder.join("image.tar"),
            app: Cell::new(0),
        };
        let service = serde_json::json!({
            "image": IMAGE, "command": ARGUMENTS, "healthcheck": {"disable": true}, "stop_grace_period": "1s",
        });
        // YAML takes JSON as it is.
        let text = serde_json::json!({"services": {"web": service}}).to_string();
        std::fs::write(&ours.compose, text).context("cannot write the Compose file")?;
        let workload = process::root().join("workloads/pdfmagic");
        let (dockerfile, context) = (workload.join("Dockerfile"), workload.join("dist"));
        let mut build = ours.command(&["build", "-t", IMAGE, "--dockerfile"]);
        build.arg(dockerfile).arg(context);
        session.children.output(build, PATIENCE)?;
        let mut save = ours.command(&["save", IMAGE, "-o"]);
        save.arg(&ours.archive);
        session.children.output(save, PATIENCE)?;
        Ok(ours)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.throng);
        command.env("THRONG_HOME", &self.home).arg("-f").arg(&self.compose);
        command.arg("-p").arg(format!("{PROJECT}-{}", self.app.get())).args(arguments);
        command
    }

    /// Brings a new app up.
    fn up(&self, children: &Children, arguments: &[&str]) -> Result<()> {
        self.app.set(self.app.get() + 1);
        self.throng(children, &[&["up", "-d"], arguments].concat()).map(drop)
    }

    fn throng(&self, children: &Children, arguments: &[&str]) -> Result<String> {
        children.output(self.command(arguments), PATIENCE)
    }

    fn engine_round(&self, children: &Children, sizes: &Sizes) -> Result<Round> {
        let mut command = Command::new(&self.engine);
        command.arg(&self.home).args([IMAGE, &PORT.to_string(), &sizes.serial.to_string()]);
        command.args([AT_ONCE.to_string(), sizes.together.to_string()]).args(ARGUMENTS);
        let times: EngineTimes = serde_json::from_str(&children.output(command, PATIENCE)?)?;
        let together = times.at_once_seconds * 1e3 / sizes.together as f64;
        Ok(Round { serial: median(&times.one_after_another_ms), together })
    }

    fn command_round(&self, children: &Children, sizes: &Sizes) -> Result<Round> {
        let empty = ["--scale", "web=0"];
        self.up(children, &empty)?;
        let one = |number: usize| -> Result<f64> {
            let begin = Instant::now();
            self.scale(children, number)?;
            let newest = self.listed(children)?.into_iter().find(|replica| replica.ordinal == number);
            let address = newest.and_then(|replica| replica.addresses.first().copied());
            answer_of(address.with_context(|| format!("replica {number} is not listed"))?)?;
            Ok(milliseconds(begin))
        };
        let serial = (1..=sizes.serial).map(one).collect::<Result<Vec<f64>>>()?;
        self.throng(children, &["down"])?;
        self.up(children, &empty)?;
        let begin = Instant::now();
        self.scale(children, sizes.together)?;
        let addresses: Vec<Ipv4Addr> =
            self.listed(children)?.iter().filter_map(|replica| replica.addresses.first().copied()).collect();
        if addresses.len() != sizes.together {
            bail!("{} of {} replicas are listed", addresses.len(), sizes.together);
        }
        at_once(addresses.len(), &|number| answer_of(addresses[number]))?;
        let together = milliseconds(begin) / sizes.together as f64;
        self.throng(children, &["down"])?;
        Ok(Round { serial: median(&serial), together })
    }

    fn scale(&self, children: &Children, count: usize) -> Result<()> {
        self.throng(children, &["scale", &format!("web={count}")]).map(drop)
    }

    fn listed(&self, children: &Children) -> Result<Vec<Listed>> {
        let text = self.throng(children, &["ps", "--format", "json"])?;
        text.lines().map(|line| serde_json::from_str(line).context("throng ps gives no JSON")).collect()
    }

    /// A whole app of one replica, its supervisor included: the median time to the first answer.
    fn apps_from_nothing(&self, children: &Children, count: usize) -> Result<f64> {
        let one = |_| -> Result<f64> {
            let begin = Instant::now();
            self.up(children, &[])?;
            let listed = self.listed(children)?;
            let address = listed.first().and_then(|replica| replica.addresses.first().copied());
            answer_of(address.context("the only replica is not listed")?)?;
            let time = milliseconds(begin);
            self.throng(children, &["down"])?;
            Ok(time)
        };
        Ok(median(&(0..count).map(one).collect::<Result<Vec<f64>>>()?))
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        // Whatever ended the measurement; an error says that there is nothing to take down.
        let _ = self.command(&["down", "-t", "1"]).output();
    }
}

#[derive(Default)]
struct Found {
    rounds: Vec<(Way, Round)>,
    apps: Vec<f64>,
}

impl Found {
    fn comparisons(&self) -> Vec<Comparison> {
        let subject = |way: Way, role, figure: fn(&Round) -> f64| Subject {
            name: way.name().into(),
            role,
            rounds: self.rounds.iter().filter(|(w, _)| *w == way).map(|(_, round)| figure(round)).collect(),
        };
        let compare = |key: &str, title: &str, ours: Way, peer: Way, figure| Comparison {
            key: key.into(),
            title: title.into(),
            unit: "ms a container".into(),
            better: Better::Lower,
            subjects: vec![subject(ours, Role::Ours, figure), subject(peer, Role::Peer, figure)],
            bar: Some(Bar::Times(TIMES)),
        };
        let serial: fn(&Round) -> f64 = |round| round.serial;
        let together: fn(&Round) -> f64 = |round| round.together;
        let one = Subject { name: "throng up -d".into(), role: Role::Ours, rounds: self.apps.clone() };
        vec![
            compare("engine-serial", "Engines, one after another", Way::Engine, Way::Daemon, serial),
            compare("engine-at-once", "Engines, 8 at once", Way::Engine, Way::Daemon, together),
            compare("command-serial", "Commands, one after another", Way::Throng, Way::DockerRun, serial),
            compare("command-at-once", "Commands, 8 at once", Way::Throng, Way::DockerRun, together),
            Comparison {
                key: "from-nothing".into(),
                title: "One container where no supervisor runs yet".into(),
                unit: "ms".into(),
                better: Better::Lower,
                subjects: vec![one, subject(Way::DockerRun, Role::Peer, serial)],
                bar: None,
            },
        ]
    }
}

fn versions() -> std::collections::BTreeMap<String, String> {
    machine::versions(&[
        ("dockerd", &["dockerd", "--version"]),
        ("docker", &[docker_command(), "--version"]),
        ("containerd", &["containerd", "--version"]),
        ("runc", &["runc", "--version"]),
    ])
}

fn method(sizes: &Sizes) -> Vec<String> {
    let Sizes { rounds, serial, together, apps } = sizes;
    vec![
        "The image is the same: workloads/pdfmagic, FROM scratch with one static binary, built by `throng build` and \
         given to Docker by `throng save`. Neither side checks the container's health, limits it, or publishes a port."
            .into(),
        "Time runs from the order to the first answer: a connection to the container's own address on its bridge and \
         a 200 to `GET /healthz`, tried every 0.3 ms from this host."
            .into(),
        format!(
            "Rounds: {rounds}. In each, every side starts {serial} containers one after another (all stay; the \
             figure is their median) and then {together} containers (the figure is the time until all have answered, \
             divided by their number); every other round goes backwards."
        ),
        format!(
            "Engines: throng-engine called as a library, against create and start over dockerd's socket, {AT_ONCE} \
             orders under way at a time in both."
        ),
        format!(
            "Commands: `throng scale` with the next number, or at once from 0 to {together}, each with the `throng ps` \
             that tells the addresses; against `docker run -d`, {AT_ONCE} commands at a time."
        ),
        format!(
            "Where no supervisor runs yet: the median of {apps} `throng up -d`, each starting a supervisor and a \
             network too, against `docker run -d` with its daemon and its bridge already there."
        ),
        "dockerd is the distribution's, started for this with folders, a containerd and a bridge of its own, without \
         changing the packet filter."
            .into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_at_once_is_all_done_once() {
        let done: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
        at_once(done.len(), &|number| {
            done[number].fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
        .expect("nothing fails");
        assert!(done.iter().all(|count| count.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn the_first_failure_ends_work_at_once() {
        let done = AtomicUsize::new(0);
        let error = at_once(1_000_000, &|number| {
            done.fetch_add(1, Ordering::Relaxed);
            if number >= 3 { bail!("number {number}") } else { Ok(()) }
        });
        assert!(error.expect_err("it fails").to_string().contains("number"));
        assert!(done.load(Ordering::Relaxed) <= 3 + 2 * AT_ONCE);
    }

    #[test]
    fn each_way_is_compared_with_its_like() {
        let round = |serial, together| Round { serial, together };
        let found = Found {
            rounds: vec![
                (Way::Engine, round(2.0, 1.0)),
                (Way::Daemon, round(200.0, 9.0)),
                (Way::Throng, round(10.0, 3.0)),
                (Way::DockerRun, round(300.0, 150.0)),
            ],
            apps: vec![60.0],
        };
        let comparisons = found.comparisons();
        let ratio = |key: &str| {
            let found = comparisons.iter().find(|comparison| comparison.key == key);
            found.and_then(|found| Some((found.ratio()?.median, found.held())))
        };
        assert_eq!(ratio("engine-serial"), Some((100.0, Some(true))));
        assert_eq!(ratio("engine-at-once"), Some((9.0, Some(false))));
        assert_eq!(ratio("command-serial"), Some((30.0, Some(true))));
        assert_eq!(ratio("command-at-once"), Some((50.0, Some(true))));
        assert_eq!(ratio("from-nothing"), Some((5.0, None)));
    }
}

//! How many replicas Docker holds on this host, on one daemon that all share and on daemons of their own inside it, and
//! what either way costs. The same commands as people use them, up to a number or to the end of a time.

use super::crowd::{Crowd, Daemon, steady, well};
use super::docker::Docker;
use super::record::{Better, Comparison, Role, Subject};
use super::{Measured, Session, crowd_docker, page};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// The longest that one way may take to come up, its nodes included. To go down takes about a third as long.
const RISE_WITHIN: Duration = Duration::from_secs(480);
/// Replicas that are ordered at once, so that what was reached counts when time or room ends.
const STEP: usize = 50;
/// The longest for nodes alone, and for one step.
const STEP_WITHIN: Duration = Duration::from_secs(240);

/// One way of spreading replicas.
struct Way {
    /// Daemons inside the one daemon; 0: replicas share that one.
    nodes: usize,
    replicas: usize,
}

impl Way {
    fn name(&self) -> String {
        match self.nodes {
            0 => "one daemon for all".into(),
            nodes => format!("{nodes} daemons inside it"),
        }
    }
}

/// What one way showed.
struct Found {
    name: String,
    nodes: usize,
    /// Replicas that run, answer at their own addresses and have names.
    well: usize,
    wanted: usize,
    /// From the order of the app without replicas until its nodes are there.
    nodes_time: Duration,
    /// For the replicas alone.
    replicas_time: Duration,
    /// Bytes of the host for all nodes, and for all replicas beside them.
    nodes_memory: f64,
    replicas_memory: f64,
    down: Duration,
    /// What ended it before all were there.
    stopped: Option<String>,
    /// What `throng events` says of walls when not all do well.
    walls: Vec<String>,
}

pub fn measure(session: &Session) -> Result<Measured> {
    if !rustix::process::geteuid().is_root() {
        bail!("Docker's daemon needs root; run as root");
    }
    crowd_docker::needed()?;
    let ways = if session.quick {
        vec![Way { nodes: 0, replicas: 100 }, Way { nodes: 4, replicas: 40 }]
    } else {
        // As many as one network of one daemon holds; nearly as many on few nodes; and one on each of many.
        vec![
            Way { nodes: 0, replicas: crowd_docker::PORTS },
            Way { nodes: 30, replicas: 1_020 },
            Way { nodes: 100, replicas: 100 },
        ]
    };
    eprintln!(
        "{} ways; each comes up for {} s at most and then goes down",
        ways.len(),
        RISE_WITHIN.as_secs()
    );
    let busy_before = session.settle()?;
    let own = own_memory(session)?;
    let mut all = Vec::new();
    for way in &ways {
        all.push(one_way(session, way)?);
    }
    Ok(Measured {
        busy_before,
        versions: crowd_docker::versions(),
        method: method(&all, own),
        comparisons: comparisons(&all, own),
    })
}

/// Bytes that one server takes of the host outside any container.
fn own_memory(session: &Session) -> Result<f64> {
    // An app on the engine of which nothing is started.
    Crowd::prepare(session, None)?.own_memory(session)
}

fn one_way(session: &Session, way: &Way) -> Result<Found> {
    // A daemon with a folder of its own for each, so that none inherits what another has kept.
    let folder = session.folder.path().join(format!("docker-{}", way.nodes));
    let docker = Docker::start(&session.children, &folder)?;
    let crowd = Crowd::prepare(session, Some(Daemon { host: docker.host(), nodes: way.nodes }))?;
    // What the way before has left is given back meanwhile.
    session.settle()?;
    let before = steady(session)?;
    let begin = Instant::now();
    crowd.throng(session, &["up", "-d", "--scale", "web=0"])?;
    let nodes_time = begin.elapsed();
    let with_nodes = steady(session)?;
    let (replicas_time, mut stopped) = rise(session, &crowd, way.replicas, begin)?;
    let with_replicas = steady(session)?;
    let mut listed = crowd.listed(session)?;
    listed.retain(|replica| replica.state == "running");
    let well = if listed.is_empty() { 0 } else { well(&listed)? };
    let walls = if well < way.replicas { crowd.walls(session)? } else { vec![] };
    let begin = Instant::now();
    if let Err(error) = crowd.throng(session, &["down"]) {
        session.children.check()?;
        // The daemon ends with all that it holds in any case.
        stopped = stopped.or(Some(format!("`throng down`: {}", cause(&error))));
    }
    let found = Found {
        name: way.name(),
        nodes: way.nodes,
        well,
        wanted: way.replicas,
        nodes_time,
        replicas_time,
        nodes_memory: if way.nodes == 0 { 0.0 } else { before - with_nodes },
        replicas_memory: with_nodes - with_replicas,
        down: begin.elapsed(),
        stopped,
        walls,
    };
    eprintln!(
        "{}: nodes in {:.1} s, {} of {} replicas in {:.1} s, {:.0} MB and {:.0} MB, down in {:.1} s",
        found.name,
        found.nodes_time.as_secs_f64(),
        found.well,
        found.wanted,
        found.replicas_time.as_secs_f64(),
        found.nodes_memory / 1e6,
        found.replicas_memory / 1e6,
        found.down.as_secs_f64()
    );
    if let Some(less) = less(&found) {
        eprintln!("{less}");
    }
    // The app is taken down before its daemon ends.
    drop(crowd);
    drop(docker);
    Ok(found)
}

/// Starts replicas step by step. Returns how long that took, and what ended it before all were there.
fn rise(
    session: &Session,
    crowd: &Crowd,
    wanted: usize,
    begin: Instant,
) -> Result<(Duration, Option<String>)> {
    let (mut time, mut reached) = (Duration::ZERO, 0);
    while reached < wanted {
        let left = RISE_WITHIN.saturating_sub(begin.elapsed());
        if left.is_zero() {
            return Ok((time, Some(format!("its {} s were over", RISE_WITHIN.as_secs()))));
        }
        reached = wanted.min(reached + STEP);
        let step = Instant::now();
        let done = crowd.scale_within(session, reached, left.min(STEP_WITHIN));
        time += step.elapsed();
        session.children.check()?;
        if let Err(error) = done {
            return Ok((time, Some(cause(&error))));
        }
    }
    Ok((time, None))
}

/// The error that a command ended with; before it come lines of its progress, after it a hint.
fn cause(error: &anyhow::Error) -> String {
    let said = format!("{error:#}");
    let mut lines = said.lines().rev();
    let named = said.lines().find(|line| line.contains("error: "));
    named.or_else(|| lines.next()).unwrap_or_default().trim().to_owned()
}

fn comparisons(all: &[Found], own: f64) -> Vec<Comparison> {
    let figure = |key: &str, title: &str, unit: &str, better: Better, of: &dyn Fn(&Found) -> Option<f64>| {
        let subjects = all.iter().filter_map(|found| {
            Some(Subject { name: found.name.clone(), role: Role::Reference, rounds: vec![of(found)?] })
        });
        Comparison {
            key: key.into(),
            title: title.into(),
            unit: unit.into(),
            better,
            subjects: subjects.collect(),
            bar: None,
        }
    };
    let each = |value: f64, found: &Found| (found.well > 0).then(|| value / found.well as f64);
    let of_node = |value: f64, found: &Found| (found.nodes > 0).then(|| value / found.nodes as f64);
    vec![
        figure(
            "well",
            "Replicas that run, answer at their own addresses and have names",
            "replicas",
            Better::Higher,
            &|found| Some(found.well as f64),
        ),
        figure(
            "start",
            "Start of replicas, on nodes that are there",
            "replicas/s",
            Better::Higher,
            &|found| Some(found.well as f64 / found.replicas_time.as_secs_f64()),
        ),
        figure(
            "memory",
            "Memory of the host for each replica beyond the program's own, without nodes",
            "MB",
            Better::Lower,
            &|found| each(found.replicas_memory, found).map(|bytes| (bytes - own) / 1e6),
        ),
        figure(
            "memory-all",
            "Memory of the host for each replica beyond the program's own, with its share of the nodes",
            "MB",
            Better::Lower,
            &|found| each(found.replicas_memory + found.nodes_memory, found).map(|bytes| (bytes - own) / 1e6),
        ),
        figure("node-memory", "Memory of the host for each empty node", "MB", Better::Lower, &|found| {
            of_node(found.nodes_memory / 1e6, found)
        }),
        figure("node-start", "Time for each node to come", "s", Better::Lower, &|found| {
            of_node(found.nodes_time.as_secs_f64(), found)
        }),
        figure("down", "`throng down` of all", "s", Better::Lower, &|found| Some(found.down.as_secs_f64())),
    ]
}

fn method(all: &[Found], own: f64) -> Vec<String> {
    let mut sentences = vec![
        format!(
            "The crowd's server, by `throng --on docker` and `throng --on docker:N`, {STEP} more replicas at a time with \
             `throng scale`, for {} s at most; a daemon started anew for each way. A node is a Docker daemon in a \
             container of that daemon, with layers of its own; the image is handed to each node once, with its first \
             replica.",
            RISE_WITHIN.as_secs()
        ),
        format!(
            "Memory: what MemAvailable has fallen by; {:.2} MB, which is what one such server takes outside any \
             container, is taken off for each replica. Replicas of one daemon are on ports of a bridge, those of nodes \
             on macvlan.",
            own / 1e6
        ),
    ];
    sentences.extend(all.iter().filter_map(less));
    sentences
}

/// Why there are fewer than were wanted.
fn less(found: &Found) -> Option<String> {
    let (well, wanted) = (page::number(found.well as f64), page::number(found.wanted as f64));
    let why = match &found.stopped {
        Some(stopped) => format!("then: {stopped}"),
        None if found.well < found.wanted => {
            "the rest run and cannot be reached by address or by name".into()
        }
        None => return None,
    };
    let told = match found.walls.is_empty() {
        true => "`throng events` names no wall".to_owned(),
        false => format!("`throng events`: {}", found.walls.join("; ")),
    };
    Some(format!("{}: {well} of {wanted}, {why}; {told}.", found.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_of_nodes_are_told_where_there_are_nodes() {
        let found = |nodes, well| Found {
            name: format!("{nodes} nodes"),
            nodes,
            well,
            wanted: 10,
            nodes_time: Duration::from_secs(8),
            replicas_time: Duration::from_secs(5),
            nodes_memory: 400e6,
            replicas_memory: 60e6,
            down: Duration::from_secs(2),
            stopped: (well == 0).then(|| "no room".to_owned()),
            walls: vec!["the wall is memory (memory)".into()],
        };
        let all = [found(0, 10), found(4, 10), found(2, 0), found(3, 8)];
        let compared = comparisons(&all, 1e6);
        let values = |key: &str| -> Vec<f64> {
            let one = compared.iter().find(|one| one.key == key).expect("a figure");
            one.subjects.iter().map(|subject| subject.rounds[0]).collect()
        };
        assert_eq!(values("start")[..3], [2.0, 2.0, 0.0]);
        assert_eq!(values("memory")[..2], [5.0, 5.0]);
        assert_eq!(values("memory").len(), 3, "of nobody there is no share");
        assert_eq!(values("memory-all")[..2], [45.0, 45.0]);
        assert_eq!(values("node-memory")[..2], [100.0, 200.0]);
        assert_eq!(values("node-start")[..2], [2.0, 4.0]);
        let told = |found: &Found| less(found).unwrap_or_default();
        assert_eq!((told(&all[0]), told(&all[1])), Default::default());
        assert!(told(&all[2]).contains("0 of 10, then: no room; `throng events`: the wall is memory"));
        assert!(told(&all[3]).contains("8 of 10, the rest run and cannot be reached"));
        assert_eq!(method(&all, 1e6).len(), 4);
    }
}

//! The same crowd by the same commands over a Docker daemon: as many replicas as one of its networks holds.

use super::crowd::{Crowd, Daemon, Seen};
use super::docker::Docker;
use super::record::{Better, Comparison, Role, Subject};
use super::{Measured, Session, machine};
use crate::packages;
use anyhow::{Result, bail};

/// Ports of a bridge (the kernel's BR_MAX_PORTS, 1,024, of which one is not given out).
pub const PORTS: usize = 1_023;

pub fn measure(session: &Session) -> Result<Measured> {
    if !rustix::process::geteuid().is_root() {
        bail!("Docker's daemon needs root; run as root");
    }
    needed()?;
    let count = session.size(PORTS, 50);
    let docker = Docker::start(&session.children, &session.folder.path().join("docker"))?;
    let crowd = Crowd::prepare(session, Some(Daemon { host: docker.host(), nodes: 0 }))?;
    let busy_before = session.settle()?;
    let own = crowd.own_memory(session)?;
    let first = crowd.first_answers(session)?;
    let mut more = None;
    let seen = crowd.rise_and_fall_with(session, count, own, |crowd, _| {
        if count == PORTS {
            more = Some(one_more(session, crowd, count)?);
        }
        Ok(())
    })?;
    // The app is taken down before its daemon ends.
    drop(crowd);
    drop(docker);
    Ok(Measured {
        busy_before,
        versions: versions(),
        method: method(count, own, more),
        comparisons: comparisons(count, &first, &seen),
    })
}

/// Fails unless the programs of Docker are there.
pub fn needed() -> Result<()> {
    for program in ["dockerd", "containerd", "ip"] {
        if !packages::present(program) {
            bail!("{program} is not installed");
        }
    }
    Ok(())
}

/// What is written down of the programs that take part.
pub fn versions() -> std::collections::BTreeMap<String, String> {
    machine::versions(&[
        ("dockerd", &["dockerd", "--version"]),
        ("containerd", &["containerd", "--version"]),
        ("runc", &["runc", "--version"]),
    ])
}

/// Asks for one replica more than there are ports and returns how many run then.
fn one_more(session: &Session, crowd: &Crowd, count: usize) -> Result<usize> {
    let wanted = format!("web={}", count + 1);
    // It does not come up as a rule, which is what is to be seen.
    let ordered = crowd.throng(session, &["scale", "--wait-timeout", "30", &wanted]);
    if let Err(error) = &ordered {
        eprintln!("{} replicas: {error:#}", count + 1);
    }
    Ok(crowd.listed(session)?.iter().filter(|replica| replica.state == "running").count())
}

fn comparisons(count: usize, first: &[f64], seen: &Seen) -> Vec<Comparison> {
    let all = super::page::number(count as f64);
    let figure = |key: &str, title: String, unit: &str, better: Better, rounds: Vec<f64>| Comparison {
        key: key.into(),
        title,
        unit: unit.into(),
        better,
        subjects: vec![Subject { name: "throng --on docker".into(), role: Role::Reference, rounds }],
        bar: None,
    };
    let rate = count as f64 / seen.start.as_secs_f64();
    vec![
        figure(
            "well",
            format!("Replicas that run, answer at their own addresses and have names, of {all}"),
            "replicas",
            Better::Higher,
            vec![seen.well as f64],
        ),
        figure("start", format!("Start, average to {all}"), "replicas/s", Better::Higher, vec![rate]),
        figure(
            "memory",
            format!("Memory of the host for each of {all}, beyond the program's own"),
            "MB",
            Better::Lower,
            vec![seen.memory / 1e6],
        ),
        figure("down", format!("`throng down` of {all}"), "s", Better::Lower, vec![seen.down.as_secs_f64()]),
        figure(
            "first",
            "From the order to the first answer of one more replica, the command included".into(),
            "ms",
            Better::Lower,
            first.to_vec(),
        ),
    ]
}

fn method(count: usize, own: f64, more: Option<usize>) -> Vec<String> {
    let all = super::page::number(count as f64);
    let more = more.map(|running| {
        let running = super::page::number(running as f64);
        format!("With one more ordered than a bridge has ports, {running} replicas run.")
    });
    let mut sentences = vec![
        format!(
            "As the crowd before, with `--on docker`: the same commands over dockerd's socket, {all} replicas of the \
             same image in one network; less {:.2} MB for the program itself.",
            own / 1e6
        ),
        "dockerd is the distribution's, started for this with folders, a containerd and a bridge of its own, without \
         changing the packet filter. Memory counts what dockerd, containerd and one shim for each replica take."
            .into(),
    ];
    sentences.extend(more);
    sentences
}

//! A daemon of a test's own, and the command that drives it.

use crate::support::{self, Bench, Done, Running};
use rustix::process::Signal;
use serde_json::Value;
use std::path::Path;
use std::process::Command;
use throng_dockerd::{Dockerd, Options, request};

/// A bench whose commands reach a daemon of its own.
pub struct There {
    pub bench: Bench,
    pub daemon: Dockerd,
}

impl There {
    /// `tag` and `number` must differ between tests: they are in the names and addresses of the daemon's bridge.
    pub fn new(name: &str, tag: &str, number: u8) -> Option<There> {
        if let Some(reason) = throng_dockerd::missing() {
            support::skip(name, &reason);
            return None;
        }
        let bench = Bench::with_probe(name)?;
        let folder = bench.folder.parent().expect("a folder").join("d");
        let bridge = format!("10.202.{number}.1/24");
        let options = Options { folder: &folder, name: tag, bridge: &bridge };
        let daemon = Dockerd::start(&options).expect("a daemon");
        Some(There { bench, daemon })
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bench.command(arguments);
        command.env("DOCKER_HOST", self.daemon.host());
        command
    }

    #[track_caller]
    pub fn fails(&self, code: i32, arguments: &[&str]) -> Done {
        let done = self.spawn(arguments).wait();
        assert_eq!(done.code, code, "throng {}\n{}{}", arguments.join(" "), done.out, done.err);
        done
    }

    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Done {
        self.fails(0, arguments)
    }

    pub fn spawn(&self, arguments: &[&str]) -> Running {
        self.bench.spawn_with(self.command(arguments))
    }

    /// What the daemon has of a kind, as its API lists it.
    pub fn listed(&self, path: &str) -> Vec<Value> {
        listed(&self.daemon.socket(), path)
    }

    /// What the daemon says of a replica's container.
    pub fn container(&self, replica: &str) -> Value {
        ask(&self.daemon.socket(), &format!("/containers/{}-{replica}/json", self.bench.project))
    }

    /// The first processes of these replicas; 0 of one that does not run.
    pub fn pids(&self, replicas: &[&str]) -> Vec<u64> {
        let pid = |replica: &&str| self.container(replica)["State"]["Pid"].as_u64().unwrap_or(0);
        replicas.iter().map(pid).collect()
    }

    /// What the listing says of a replica; nothing if it is not there.
    pub fn replica(&self, name: &str) -> Value {
        let name = format!("{}-{name}", self.bench.project);
        self.bench.ps().into_iter().find(|replica| replica["Name"] == name.as_str()).unwrap_or_default()
    }

    /// Names of replicas in a state.
    pub fn in_state(&self, state: &str) -> Vec<String> {
        self.bench.states().into_iter().filter(|(_, is)| is == state).map(|(name, _)| name).collect()
    }

    pub fn kill_supervisor(&self) {
        support::kill(self.bench.supervisor().expect("a supervisor"), Signal::KILL);
        support::until("it listens no more", || (!self.bench.listens()).then_some(()));
    }

    /// Takes the app down and looks that nothing of it is left anywhere.
    #[track_caller]
    pub fn down(&self) {
        self.ok(&["down", "--volumes"]).says("everything removed");
        assert_eq!(self.left(), Vec::<String>::new());
        self.bench.assert_clean();
    }

    /// Names and ids of the replicas on a node.
    pub fn on_node(&self, node: u32) -> Vec<(String, String)> {
        let folder = format!("run/{}.node-{node}/docker.sock", self.bench.project);
        named(&listed(&self.bench.home.join(folder), "/containers/json"))
    }

    /// Containers, networks beside Docker's own three, images and volumes.
    pub fn left(&self) -> Vec<String> {
        let name = |value: &Value| value["Names"][0].as_str().or(value["Name"].as_str()).map(str::to_owned);
        let own = |name: &String| !["bridge", "host", "none"].contains(&name.as_str());
        let containers = self.listed("/containers/json?all=1");
        let mut left: Vec<String> = containers.iter().filter_map(name).collect();
        left.extend(self.listed("/networks").iter().filter_map(name).filter(own));
        left.extend(self.listed("/images/json").iter().map(|image| image["RepoTags"].to_string()));
        let volumes = ask(&self.daemon.socket(), "/volumes");
        left.extend(volumes["Volumes"].as_array().into_iter().flatten().filter_map(name));
        left
    }
}

pub fn ask(socket: &Path, path: &str) -> Value {
    let (status, text) = request(socket, "GET", path, &[]).expect("the daemon answers");
    assert_eq!(status, 200, "{path}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
}

pub fn listed(socket: &Path, path: &str) -> Vec<Value> {
    ask(socket, path).as_array().cloned().unwrap_or_else(|| panic!("{path} lists nothing"))
}

/// Names and ids of containers.
pub fn named(containers: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().trim_start_matches('/').to_owned();
    let mut named: Vec<_> = containers.iter().map(|c| (text(&c["Names"][0]), text(&c["Id"]))).collect();
    named.sort();
    named
}

/// Container of each replica, by its name.
pub fn lives(there: &There) -> Vec<(String, String)> {
    named(&there.listed("/containers/json"))
}

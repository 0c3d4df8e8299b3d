//! Walls at which the kernel, or a registry, refuses something.

use crate::inside::{Crowd, Group, Setting, inside, inside_after, ip, run, tmpfs};
use crate::support::{leftovers, skip};
use crate::{assert_ceiling, assert_names, comes_up, idle, refused};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use throng_walls::WallId;

#[test]
fn a_disk_is_full() {
    inside("refused::a_disk_is_full", &["-m"], |bench| {
        tmpfs(&bench.home, "size=16m");
        idle(&bench, "");
        // The order itself is recorded in a file that is there; the replicas' folders are what is too much.
        bench.ok(&["scale", "web=1"]);
        let filler = bench.home.join("filler");
        fs::write(&filler, vec![1u8; 32 << 20]).expect_err("more than fits");
        let done = refused(&bench, 4);
        assert_names(&done.err, WallId::Disk);
        fs::remove_file(&filler).expect("removed");
        comes_up(&bench, 4);
    });
}

#[test]
fn inodes_are_used_up() {
    inside("refused::inodes_are_used_up", &["-m"], |bench| {
        tmpfs(&bench.home, "size=64m,nr_inodes=400");
        idle(&bench, "");
        let fillers = bench.home.join("fillers");
        fs::create_dir(&fillers).expect("a folder");
        let filled = (0..400).find(|number| fs::write(fillers.join(number.to_string()), "").is_err());
        // Enough for the record of the order, not for a replica.
        let filled = filled.expect("more files than inodes");
        (0..3).for_each(|less| {
            fs::remove_file(fillers.join((filled - 1 - less).to_string())).expect("removed")
        });
        let done = refused(&bench, 4);
        assert_names(&done.err, WallId::Disk);
        let events = bench.ok(&["events", "--no-follow"]).out;
        assert_names(&events, WallId::Disk);
        fs::remove_dir_all(&fillers).expect("removed");
        comes_up(&bench, 4);
    });
}

/// The soft limit of open files of a process, which is put back when this is dropped.
struct Files<'a> {
    process: &'a str,
    before: String,
}

impl Files<'_> {
    fn put(process: &str, most: &str) -> Result<String, String> {
        run("prlimit", &["--pid", process, &format!("--nofile={most}:")])
    }

    fn limit(process: &str, most: usize) -> Result<Files<'_>, String> {
        let before = run("prlimit", &["--pid", process, "--nofile", "--noheadings", "--output", "SOFT"])?;
        Self::put(process, &most.to_string())?;
        Ok(Files { process, before: before.trim().to_owned() })
    }
}

impl Drop for Files<'_> {
    fn drop(&mut self) {
        let put = Self::put(self.process, &self.before);
        assert!(put.is_ok() || std::thread::panicking(), "{put:?}");
    }
}

#[test]
fn descriptors_are_used_up() {
    let name = "refused::descriptors_are_used_up";
    inside(name, &["-m"], |bench| {
        idle(&bench, "");
        let supervisor = bench.supervisor().expect("a supervisor").to_string();
        let open = fs::read_dir(format!("/proc/{supervisor}/fd")).expect("descriptors").count();
        // Room for who asks.
        let limit = match Files::limit(&supervisor, open + 6) {
            Ok(limit) => limit,
            Err(error) => return skip(name, &error),
        };
        let done = refused(&bench, 20);
        assert_names(&done.err, WallId::Descriptors);
        drop(limit);
        comes_up(&bench, 20);
    });
}

#[test]
fn a_group_refuses_tasks() {
    let name = "refused::a_group_refuses_tasks";
    inside(name, &["-m"], |bench| {
        idle(&bench, "");
        let Some(group) = Group::around(bench.supervisor().expect("a supervisor"), "pids") else {
            return skip(name, "no controller pids of version 1");
        };
        group.write("pids.max", group.read("pids.current"));
        let done = refused(&bench, 3);
        assert_names(&done.err, WallId::PidsCgroup);
        done.says(&format!("{}: ", group.path.display()));
        group.write("pids.max", "max");
        comes_up(&bench, 3);
    });
}

#[test]
fn process_ids_are_used_up() {
    let name = "refused::process_ids_are_used_up";
    inside(name, &["-p", "-m", "--fork", "--mount-proc"], |bench| {
        let host = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = host.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
        if (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < (6, 14) {
            return skip(name, "kernel.pid_max is the whole host's before Linux 6.14");
        }
        // Numbers up to 300 are given once only (RESERVED_PIDS in the kernel's pid.c).
        fs::write("/proc/sys/kernel/pid_max", "600").expect("a limit of this namespace");
        idle(&bench, "");
        let mut crowd = Crowd::until_refused(700);
        // Room for the command that asks.
        crowd.end(60);
        let done = refused(&bench, 70);
        assert_names(&done.err, WallId::ProcessIds);
        drop(crowd);
        comes_up(&bench, 70);
    });
}

#[test]
fn a_bridge_is_full() {
    inside("refused::a_bridge_is_full", &["-n", "-m"], |bench| {
        idle(&bench, "");
        let bridge = leftovers::bridge(&format!("{}_default", bench.project));
        let port = |number: u32| {
            format!("link add d{number} type veth peer name e{number}\nlink set d{number} master {bridge}\n")
        };
        let error = ip(&(0..1_024).map(port).collect::<String>()).expect_err("one port too many");
        assert!(error.contains("xchange full"), "{error}");
        let done = refused(&bench, 1);
        assert_names(&done.err, WallId::BridgePorts);
        (0..8).for_each(|number| drop(ip(&format!("link delete d{number}\n"))));
        comes_up(&bench, 1);
    });
}

#[test]
fn a_namespace_has_too_many_mounts() {
    /// The most that a definition may have.
    const VOLUMES: u64 = 127;
    let name = "refused::a_namespace_has_too_many_mounts";
    inside(name, &["-m"], |bench| {
        let here = fs::read_to_string("/proc/self/mountinfo").expect("mounts").lines().count() as u64;
        if here * 2 > VOLUMES {
            return skip(name, "this host has many mounts itself");
        }
        bench.build_probe();
        bench.write("data/file", "");
        let volumes: String = (0..VOLUMES).map(|number| format!("'./data:/d/{number}',")).collect();
        bench.compose(&format!(
            "services:\n  web: {{image: probe, command: [say, x], volumes: [{volumes}]}}\n"
        ));
        let Some(setting) = Setting::put("fs.mount-max", VOLUMES) else {
            return skip(name, "no fs.mount-max");
        };
        let done = bench.fails(1, &["up", "-d", "--wait", "--wait-timeout", "3"]);
        assert_names(&done.err, WallId::MountCount);
        drop(setting);
        comes_up(&bench, 1);
    });
}

#[test]
fn namespaces_are_used_up() {
    let name = "refused::namespaces_are_used_up";
    // In a user namespace of its own, whose limits are its own.
    inside(name, &["-r", "-p", "-m", "-n", "--fork", "--mount-proc"], |bench| {
        idle(&bench, "");
        fs::write("/proc/sys/user/max_net_namespaces", "4").expect("a limit of this user namespace");
        let done = refused(&bench, 8);
        assert_names(&done.err, WallId::Namespaces);
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}

#[test]
fn ports_to_choose_from_are_used_up() {
    inside("refused::ports_to_choose_from_are_used_up", &["-n", "-m"], |bench| {
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50001")
            .expect("a range of this namespace");
        bench.build_probe();
        let ports = "'127.0.0.1::80', '127.0.0.1::81', '127.0.0.1::82'";
        bench.compose(&format!(
            "services:\n  web: {{image: probe, command: [serve, '80'], ports: [{ports}]}}\n"
        ));
        let done = bench.fails(4, &["up", "-d"]);
        assert_names(&done.err, WallId::PublishedPorts);
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50020")
            .expect("a range of this namespace");
        bench.ok(&["up", "-d", "--wait"]);
        comes_up(&bench, 2);
    });
}

#[test]
fn a_network_has_no_address_left() {
    inside("refused::a_network_has_no_address_left", &["-n", "-m"], |bench| {
        idle(&bench, "networks: {default: {ipam: {config: [{subnet: 10.213.11.0/29}]}}}\n");
        let done = refused(&bench, 6);
        assert_names(&done.err, WallId::AddressPools);
        bench.ok(&["scale", "web=2"]);
        let found = bench.ok(&["ceiling", "web", "--most", "8", "--hold", "10ms", "--format", "json"]);
        assert_ceiling(&found, WallId::AddressPools);
        comes_up(&bench, 5);
    });
}

const INSTANCES: &str = "fs.inotify.max_user_instances";

/// Instances of inotify that are open on this host.
fn instances() -> u64 {
    let processes = fs::read_dir("/proc").expect("processes").flatten();
    let open = processes.filter_map(|process| fs::read_dir(process.path().join("fd")).ok());
    let targets = open.flat_map(|open| open.flatten()).filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("inotify")).count() as u64
}

/// The limit is each user's, and its replicas have it together: programs that watch files, as Debian's `inotifywait`.
#[test]
fn instances_of_inotify_are_used_up() {
    const PROGRAM: &str = "/usr/bin/inotifywait";
    let name = "refused::instances_of_inotify_are_used_up";
    if !Path::new(PROGRAM).exists() {
        return skip(name, "no inotifywait (Debian package inotify-tools)");
    }
    let lower =
        || Setting::put(INSTANCES, instances() + 4).ok_or("fs.inotify.max_user_instances cannot be set");
    inside_after(lower, name, &["-n", "-m"], |bench| {
        let most = Setting::value(INSTANCES).expect("a limit");
        bench.build_probe();
        // The program's libraries are this host's.
        let libraries: Vec<String> = ["/usr", "/lib", "/lib64"]
            .into_iter()
            .filter(|folder| Path::new(folder).exists())
            .map(|folder| format!("'{folder}:{folder}:ro'"))
            .collect();
        bench.compose(&format!(
            "services:
  web:
    image: probe
    entrypoint: [{PROGRAM}, --monitor, /]
    user: '64994'
    volumes: [{}]
    healthcheck: {{test: [CMD, /probe, print, well], interval: 1s}}
    deploy: {{replicas: 0}}
",
            libraries.join(", ")
        ));
        bench.ok(&["up", "-d", "--wait"]);
        let done = refused(&bench, most as u32 + 2);
        assert_names(&done.err, WallId::Inotify);
        done.says(&format!("{INSTANCES} is {most}"));
        bench.ok(&["scale", "web=0"]);
        comes_up(&bench, most as u32);
    });
}

#[test]
fn a_registry_has_had_enough() {
    inside("refused::a_registry_has_had_enough", &["-n", "-m"], |bench| {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut lines = BufReader::new(stream.try_clone().expect("a descriptor")).lines();
                while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                let body = "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"You have reached your pull rate limit\"}]}";
                let _ = write!(
                    stream,
                    "HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
                     Connection: close\r\n\r\n{body}",
                    body.len()
                );
            }
        });
        bench.compose(&format!("services:\n  web: {{image: '{address}/some/thing:1'}}\n"));
        let done = bench.fails(5, &["up", "-d"]);
        assert_names(&done.err, WallId::ImagePulls);
        bench.assert_clean();
    });
}

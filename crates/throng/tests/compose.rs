//! Keys of Compose files from the text to what a replica sees inside.

mod support;

use std::os::unix::fs::MetadataExt;
use support::{Bench, until};

/// What a command in the first replica of a service prints.
#[track_caller]
fn inside(bench: &Bench, service: &str, args: &[&str]) -> String {
    bench.ok(&[&["exec", service, "/probe"], args].concat()).out
}

#[test]
fn configs_and_secrets_are_files_that_cannot_be_changed() {
    let Some(bench) = Bench::with_probe("configs_and_secrets_are_files_that_cannot_be_changed") else {
        return;
    };
    bench.write("token.txt", "from a file");
    bench.write(".env", "PASSWORD=from a variable\n");
    let text = |content: &str| {
        format!(
            "
services:
  web:
    image: probe
    command: [sleep, '600']
    user: '1234'
    configs:
      - settings
      - {{source: settings, target: /etc/app/settings, uid: '1234', gid: '77', mode: 0440}}
    secrets:
      - token
      - {{source: password, target: pass, mode: 0o444}}
configs:
  settings: {{content: '{content}'}}
secrets:
  token: {{file: ./token.txt}}
  password: {{environment: PASSWORD}}
"
        )
    };
    bench.compose(&text("colour: green"));
    bench.ok(&["up", "-d", "--wait"]);
    for (path, expected) in [
        ("/settings", "colour: green"),
        ("/etc/app/settings", "colour: green"),
        ("/run/secrets/token", "from a file"),
        ("/run/secrets/pass", "from a variable"),
    ] {
        assert_eq!(inside(&bench, "web", &["read", path]), expected, "{path}");
    }
    let written = bench.run(&["exec", "--user", "0", "web", "/probe", "append", "/run/secrets/token", "x"]);
    assert_ne!(written.code, 0, "a secret can be written to");
    assert_eq!(std::fs::read_to_string(bench.folder.join("token.txt")).expect("the secret"), "from a file");
    let pid = bench.pids("web-1")[0];
    let seen = std::fs::metadata(format!("/proc/{pid}/root/etc/app/settings")).expect("the config");
    assert_eq!((seen.uid(), seen.gid(), seen.mode() & 0o7777), (1234, 77, 0o440));
    // The value is not shown, and another content is another replica.
    let config = bench.ok(&["config"]);
    config.prints("environment: PASSWORD");
    assert!(!config.out.contains("from a variable"), "{}", config.out);
    bench.compose(&text("colour: blue"));
    bench.ok(&["up", "-d", "--wait"]);
    until("the new content", || {
        (inside(&bench, "web", &["read", "/settings"]) == "colour: blue").then_some(())
    });
    std::fs::remove_file(bench.folder.join("token.txt")).expect("removed");
    bench.run(&["up", "-d"]).says("token.txt for token: No such file");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn privileges_names_and_limits_reach_the_replica() {
    let Some(bench) = Bench::with_probe("privileges_names_and_limits_reach_the_replica") else { return };
    bench.compose(
        "
services:
  web:
    image: probe
    command: [sleep, '600']
    read_only: true
    tmpfs: '/scratch:size=64k,mode=700'
    cap_drop: [ALL]
    cap_add: [NET_RAW]
    group_add: ['77']
    ulimits: {nofile: {soft: 100, hard: 200}}
    sysctls: [net.core.somaxconn=99]
    extra_hosts: ['printer:192.0.2.9', 'outside=host-gateway']
    dns_search: shop.example
    hostname: box
    domainname: shop.example
    oom_score_adj: 300
    cpu_shares: 512
    working_dir: /scratch
    logging: {driver: json-file, options: {max-size: 1k, max-file: '2'}}
    post_start: [{command: [/probe, append, /scratch/hook, started]}]
    links: ['other:neighbour']
  other:
    image: probe
    command: [sleep, '600']
  alone:
    image: probe
    command: [sleep, '600']
    network_mode: none
",
    );
    let up = bench.ok(&["up", "-d", "--wait"]);
    assert!(!up.err.contains("no effect"), "{}", up.err);
    let status = inside(&bench, "web", &["read", "/proc/1/status"]);
    assert!(status.contains("CapBnd:\t0000000000002000") && status.contains("Groups:\t77"), "{status}");
    let limits = inside(&bench, "web", &["read", "/proc/1/limits"]);
    let files = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    assert_eq!(files.split_whitespace().skip(3).take(2).collect::<Vec<_>>(), ["100", "200"]);
    assert_eq!(inside(&bench, "web", &["read", "/proc/sys/net/core/somaxconn"]), "99\n");
    assert_eq!(inside(&bench, "web", &["read", "/proc/1/oom_score_adj"]), "300\n");
    let hosts = inside(&bench, "web", &["read", "/etc/hosts"]);
    assert!(hosts.contains("192.0.2.9\tprinter\n") && hosts.contains("\toutside\n"), "{hosts}");
    assert!(hosts.contains("box.shop.example box\n"), "{hosts}");
    assert!(inside(&bench, "web", &["read", "/etc/resolv.conf"]).contains("search shop.example\n"));
    assert_eq!(inside(&bench, "web", &["read", "/scratch/hook"]), "started\n");
    assert_eq!(inside(&bench, "web", &["where"]), "/scratch\n");
    assert_ne!(
        bench.run(&["exec", "web", "/probe", "append", "/new", "x"]).code,
        0,
        "the root can be written to"
    );
    let linked = inside(&bench, "web", &["resolve", "neighbour"]);
    assert_eq!(linked, inside(&bench, "web", &["resolve", "other"]));
    assert_ne!(linked.trim(), "");
    assert!(!inside(&bench, "alone", &["read", "/proc/net/dev"]).contains("eth0"));
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn volumes_of_the_host_of_others_and_folders_in_them() {
    let Some(bench) = Bench::with_probe("volumes_of_the_host_of_others_and_folders_in_them") else { return };
    bench.write("disk/inner/file", "deep");
    bench.compose(
        "
services:
  owner:
    image: probe
    command: [sleep, '600']
    volumes:
      - disk:/disk
      - {type: volume, source: disk, target: /inner, volume: {subpath: inner}}
      - {type: tmpfs, target: /memory, tmpfs: {mode: 0711, size: 64k}}
  guest:
    image: probe
    command: [sleep, '600']
    volumes_from: ['owner:ro']
volumes:
  disk: {driver: local, driver_opts: {type: none, o: bind, device: ./disk}}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(inside(&bench, "owner", &["read", "/disk/inner/file"]), "deep");
    assert_eq!(inside(&bench, "owner", &["read", "/inner/file"]), "deep");
    inside(&bench, "owner", &["append", "/inner/more", "x"]);
    assert!(bench.folder.join("disk/inner/more").exists());
    assert_eq!(inside(&bench, "guest", &["read", "/inner/file"]), "deep");
    assert_ne!(
        bench.run(&["exec", "guest", "/probe", "append", "/disk/no", "x"]).code,
        0,
        "ro of volumes_from"
    );
    let memory = format!("/proc/{}/root/memory", bench.pids("owner-1")[0]);
    assert_eq!(std::fs::metadata(memory).expect("mounted").mode() & 0o7777, 0o711);
    bench.ok(&["down", "--volumes"]);
    assert!(bench.folder.join("disk/inner/file").exists(), "what the app did not make stays");
    std::os::unix::fs::symlink("/etc", bench.folder.join("disk/way-out")).expect("a link");
    bench.compose(
        "
services:
  web:
    image: probe
    volumes: [{type: volume, source: disk, target: /x, volume: {subpath: way-out}}]
volumes:
  disk: {driver_opts: {o: bind, device: ./disk}}
",
    );
    let refused = bench.run(&["up", "-d"]);
    assert_ne!(refused.code, 0);
    refused.says("has no folder way-out");
    bench.run(&["down"]);
}

#[test]
fn an_app_of_several_files_comes_up() {
    let Some(bench) = Bench::with_probe("an_app_of_several_files_comes_up") else { return };
    bench.write(
        "common/base.yaml",
        "services: {base: {image: probe, command: [sleep, '600'], environment: {A: base, B: base}}}\n",
    );
    bench.write(
        "part/part.yaml",
        "services: {db: {extends: {file: ../common/base.yaml, service: base}, volumes: ['./data:/data']}}\n",
    );
    bench.write("part/data/file", "of the part");
    bench
        .write("compose.override.yaml", "services: {web: {environment: {B: override}, labels: !reset {}}}\n");
    bench.compose(
        "include: [part/part.yaml]
services:
  web: {extends: {file: common/base.yaml, service: base}, depends_on: [db], labels: {a: b}}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(inside(&bench, "web", &["env", "A"]), "base\n");
    assert_eq!(inside(&bench, "web", &["env", "B"]), "override\n");
    assert_eq!(inside(&bench, "db", &["read", "/data/file"]), "of the part");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn an_only_replica_has_a_name_of_its_own() {
    let Some(bench) = Bench::with_probe("an_only_replica_has_a_name_of_its_own") else { return };
    let text = "
services:
  web: {image: probe, command: [say, here], container_name: the.site}
  guest: {image: probe, command: [sleep, '600']}
";
    bench.compose(text);
    bench.ok(&["up", "-d", "--wait"]);
    let shown = bench.ok(&["ps", "--format", "json", "the.site"]).json();
    assert_eq!(
        shown.iter().map(|r| r["Name"].as_str().unwrap_or_default()).collect::<Vec<_>>(),
        ["the.site"]
    );
    bench.ok(&["ps"]).prints("the.site").prints(&format!("{}-guest-1", bench.project));
    let address = inside(&bench, "guest", &["resolve", "web"]);
    assert_eq!(inside(&bench, "guest", &["resolve", "the.site"]), address);
    assert_ne!(address.trim(), "");
    assert_eq!(inside(&bench, "the.site", &["where"]), "/\n");
    until("it has said so", || bench.ok(&["logs", "the.site"]).out.contains("the.site | here").then_some(()));
    bench.fails(2, &["scale", "web=2"]).says("2 replicas of web cannot all be called the.site").says("hint:");
    bench.fails(2, &["up", "-d", "--scale", "web=2"]).says("cannot all be called the.site");
    // Another name is no other replica.
    let pids = bench.pids("web-1");
    assert!(!pids.is_empty());
    bench.compose(&text.replace("the.site", "site"));
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(bench.pids("web-1"), pids);
    assert_eq!(inside(&bench, "guest", &["resolve", "site"]), address);
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn cores_memory_and_privileges_are_as_the_file_says() {
    let Some(bench) = Bench::with_probe("cores_memory_and_privileges_are_as_the_file_says") else { return };
    bench.compose(
        "
services:
  one:
    image: probe
    command: [sleep, '600']
    cpuset: '0'
    mem_limit: 64m
    mem_swappiness: 7
    oom_kill_disable: true
    security_opt: ['no-new-privileges:true', 'seccomp:unconfined']
  plain: {image: probe, command: [sleep, '600']}
  waits: {image: probe, command: [cat], stdin_open: true}
  ends: {image: probe, command: [cat]}
",
    );
    let up = bench.ok(&["up", "-d"]);
    assert!(!up.err.contains("\" of a service has no effect"), "{}", up.err);
    let state = |service: &str| {
        let replicas = bench.ok(&["ps", "--all", "--format", "json"]).json();
        let found = replicas.iter().find(|replica| replica["Service"] == service);
        found.map(|replica| replica["State"].as_str().unwrap_or_default().to_owned()).unwrap_or_default()
    };
    for service in ["one", "plain", "waits"] {
        until("it runs", || (state(service) == "running").then_some(()));
    }
    let field = |service: &str, name: &str| {
        let status = inside(&bench, service, &["read", "/proc/1/status"]);
        status_field(&status, name)
    };
    let own = std::fs::read_to_string("/proc/self/status").expect("a status");
    assert_eq!(field("one", "Cpus_allowed_list"), "0");
    assert_eq!(field("plain", "Cpus_allowed_list"), status_field(&own, "Cpus_allowed_list"));
    // A command inside is held to them as well.
    let command = inside(&bench, "one", &["read", "/proc/self/status"]);
    assert_eq!(status_field(&command, "Cpus_allowed_list"), "0");
    assert_eq!((field("one", "Seccomp"), field("plain", "Seccomp")), ("0".to_owned(), "2".to_owned()));
    assert_eq!(field("one", "NoNewPrivs"), "1");
    let group = format!("/sys/fs/cgroup/memory/throng/{}/one-1", bench.project);
    if std::path::Path::new(&group).exists() {
        let read = |file: &str| std::fs::read_to_string(format!("{group}/{file}")).expect("a control file");
        assert_eq!(read("memory.swappiness").trim(), "7");
        assert!(read("memory.oom_control").contains("oom_kill_disable 1"));
    } else {
        bench.ok(&["up", "-d"]).says("mem_swappiness has no effect").says("oom_kill_disable has no effect");
    }
    // An input that stays open keeps who reads it; one that is at its end does not.
    until("the other one has ended", || (state("ends") == "exited").then_some(()));
    assert_eq!(state("waits"), "running");
    bench.ok(&["down"]);
    bench.assert_clean();
}

/// A field of a process' status (proc_pid_status(5)).
fn status_field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim).unwrap_or_default().to_owned()
}

#[test]
fn a_core_that_is_not_there_is_said() {
    let Some(bench) = Bench::with_probe("a_core_that_is_not_there_is_said") else { return };
    bench.compose("services:\n  web: {image: probe, command: [sleep, '600'], cpuset: '1000'}\n");
    let done = bench.run(&["up", "-d", "--wait"]);
    assert_ne!(done.code, 0);
    done.says("1000").says("cpuset");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn devices_of_the_host_are_where_the_file_says() {
    let name = "devices_of_the_host_are_where_the_file_says";
    let Some(bench) = Bench::with_probe(name) else { return };
    if !std::path::Path::new("/dev/net/tun").exists() {
        return support::skip(name, "this kernel has no /dev/net/tun");
    }
    let compose = |device: &str| {
        bench.compose(&format!(
            "
services:
  one: {{image: probe, command: [sleep, '600'], user: '0', devices: ['{device}']}}
  plain: {{image: probe, command: [sleep, '600']}}
"
        ));
    };
    compose("/dev/net/tun:/dev/own/tun");
    let up = bench.ok(&["up", "-d", "--wait"]);
    assert!(!up.err.contains("no effect"), "{}", up.err);
    let read = |service: &str, path: &str| inside(&bench, service, &["read", path]);
    // It can be opened; to read from one that is attached to no interface is EBADFD (the kernel's tun_chr_read_iter).
    assert_eq!(read("one", "/dev/own/tun"), "File descriptor in bad state (os error 77)");
    assert!(read("plain", "/dev/own/tun").contains("No such file"));
    bench.ok(&["config"]).prints("source: /dev/net/tun");
    bench.ok(&["down"]);
    for (device, said) in [
        ("/dev/net/tun:r", "/dev/net/tun cannot be given with \"r\" alone"),
        ("/dev/net/nowhere", "there is no device /dev/net/nowhere"),
        ("/etc/hostname", "/etc/hostname is no device"),
    ] {
        compose(device);
        bench.fails(1, &["up", "-d", "--wait", "one"]).says(said).says("hint: ");
        bench.ok(&["down"]);
    }
    bench.assert_clean();
}

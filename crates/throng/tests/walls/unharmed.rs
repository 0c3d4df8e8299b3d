//! Walls of others that this engine does not have: under the limit that stops them it goes on as before.

use crate::idle;
use crate::inside::{Setting, inside, run, tmpfs};
use crate::support::skip;
use std::fs;

#[test]
fn keys_are_not_needed() {
    let name = "unharmed::keys_are_not_needed";
    inside(name, &["-n", "-m"], |bench| {
        bench.build_probe();
        let Some(_setting) = Setting::put("kernel.keys.maxkeys", 1) else {
            return skip(name, "no keys here");
        };
        bench.compose(
            "services:\n  web: {image: probe, command: [say, x], user: '64993', deploy: {replicas: 5}}\n",
        );
        bench.ok(&["up", "-d", "--wait"]);
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}

#[test]
fn mounts_of_the_host_are_not_copied() {
    inside("unharmed::mounts_of_the_host_are_not_copied", &["-n", "-m"], |bench| {
        let many = bench.folder.join("many");
        tmpfs(&many, "size=16m");
        let script = "mkdir one; for n in $(seq 500); do mkdir $n && mount --bind one $n || exit; done";
        run("sh", &["-c", &format!("cd '{}' && {script}", many.display())]).expect("500 mounts");
        idle(&bench, "");
        bench.ok(&["scale", "web=1"]);
        let inside = bench.ok(&["exec", "web", "/probe", "read", "/proc/self/mountinfo"]).out;
        assert!(inside.lines().count() < 60, "{} mounts in a replica", inside.lines().count());
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}

#[test]
fn a_published_port_is_one_listener_whatever_the_replicas() {
    inside("unharmed::a_published_port_is_one_listener_whatever_the_replicas", &["-n", "-m"], |bench| {
        bench.build_probe();
        bench.compose(
            "services:\n  web: {image: probe, command: [serve, '80'], ports: ['127.0.0.1:8080:80']}\n",
        );
        // The fourth column is the state, of which 0A is LISTEN (proc_net(5)).
        let listeners = || {
            let text = fs::read_to_string("/proc/net/tcp").expect("sockets");
            text.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A")).count()
        };
        bench.ok(&["up", "-d", "--wait"]);
        let one = listeners();
        bench.ok(&["scale", "web=30"]);
        assert_eq!(listeners(), one);
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}

//! Connection tracking, source ports and the packet filter.

use crate::inside::{assert_counted, assert_named, here, inside, ip, is_outside, run};
use crate::support::skip;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use throng_walls::{Demand, Evidence, State, WallId, explain, predict};

/// More connections than this take a test too long, and too much memory.
const MOST_TRACKED: u64 = 300_000;

#[test]
fn connection_tracking_is_full() {
    let name = "packets::connection_tracking_is_full";
    let most = here().setting("net.netfilter.nf_conntrack_max");
    if is_outside() && most.is_none_or(|most| most > MOST_TRACKED) {
        return skip(name, "connections are not tracked here, or too many");
    }
    inside(name, &["-n"], || {
        ip("link set lo up\n").expect("loopback");
        let rules = "add table ip t; add chain ip t c { type filter hook output priority 0; }; \
                     add rule ip t c ct state established accept";
        if let Err(error) = run("nft", &[rules]) {
            return skip(name, &error);
        }
        let most = most.expect("a limit");
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let mut sent = 0u64;
        assert_counted(WallId::ConnectionTracking, || {
            // A port that nobody listens at is answered by an error that a later call returns.
            while sent < most + 2_000 {
                let (host, port) = (1 + sent / 60_000, 1_024 + sent % 60_000);
                let _ = socket.send_to(b"x", format!("127.0.1.{host}:{port}"));
                sent += 1;
            }
            sent -= 2_000;
        });
        let host = here();
        assert!(host.setting("net.netfilter.nf_conntrack_count").is_some_and(|count| count >= most * 9 / 10));
        let report = predict(&host, &Demand { connections: 100, ..Demand::of(1_000) });
        assert_eq!(report.finding(WallId::ConnectionTracking).map(|f| f.state), Some(State::InTheWay));
    });
}

#[test]
fn source_ports_are_used_up() {
    inside("packets::source_ports_are_used_up", &["-n"], || {
        ip("link set lo up\n").expect("loopback");
        std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "50000 50009")
            .expect("a range of this namespace");
        let listener = TcpListener::bind("127.0.0.1:80").expect("a listener");
        let before = here();
        assert_eq!(before.setting("net.ipv4.ip_local_port_range"), Some(10));
        let mut open = Vec::new();
        let error = loop {
            match TcpStream::connect("127.0.0.1:80") {
                Ok(stream) => open.push((stream, listener.accept().expect("accepted"))),
                Err(error) => break error,
            }
            assert!(open.len() <= 10, "more connections than ports");
        };
        let report = predict(&before, &Demand { clients: 11, ..Demand::of(1) });
        assert_eq!(report.finding(WallId::SourcePorts).map(|f| f.state), Some(State::InTheWay));
        let messages = vec![format!("connect to 127.0.0.1:80: {error}")];
        assert_named(
            &Evidence { messages, before: Some(before), after: Some(here()), ..Evidence::default() },
            WallId::SourcePorts,
        );
    });
}

/// A process that holds a network namespace with one address, behind a port of the bridge.
struct Member(Child);

impl Member {
    fn new(number: u32) -> Member {
        let child =
            Command::new("unshare").args(["-n", "sleep", "600"]).stdin(Stdio::null()).spawn().expect("one");
        let pid = child.id();
        let own = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
        let other = || std::fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|its| its != own);
        while !other() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        let member = Member(child);
        let batch = format!(
            "link add thrv{number} type veth peer name m{number}\nlink set m{number} netns {pid} name eth0\n\
             link set thrv{number} master thr0\nlink set thrv{number} up\n"
        );
        ip(&batch).expect("a port");
        member
            .enter(&["ip", "addr", "add", &format!("10.9.0.{number}/24"), "dev", "eth0"])
            .expect("an address");
        member.enter(&["ip", "link", "set", "eth0", "up"]).expect("up");
        member
    }

    fn enter(&self, command: &[&str]) -> Result<String, String> {
        let pid = self.0.id().to_string();
        run("nsenter", &[&["-t", &pid, "-n", "--"], command].concat())
    }

    /// What a program there says if it gets no answer: nobody listens, so a refusal is one.
    fn lost(&self, address: &str) -> Option<String> {
        let program = format!(
            "use Socket; $SIG{{ALRM}} = sub {{ print 'Connection timed out'; exit }}; alarm 2; \
             socket(S, AF_INET, SOCK_STREAM, 0); connect(S, sockaddr_in(9, inet_aton('{address}'))); print $!"
        );
        let text = self.enter(&["perl", "-e", &program]).expect("perl runs");
        (text != "Connection refused").then(|| format!("connect to {address}:9: {text}"))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_filter_like_dockers_swallows_bridged_frames() {
    let name = "packets::a_filter_like_dockers_swallows_bridged_frames";
    for program in ["nft", "iptables"] {
        if let Err(error) = run(program, &["--version"]) {
            return skip(name, &error);
        }
    }
    inside(name, &["-n"], || {
        let setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
        if std::fs::write(setting, "1").is_err() {
            return skip(name, "the kernel shows its filter no bridged frames (br_netfilter)");
        }
        ip("link add thr0 type bridge\nlink set thr0 up\n").expect("a bridge");
        let (one, _two) = (Member::new(2), Member::new(3));
        assert_eq!(one.lost("10.9.0.3"), None, "before there is a rule");
        run("iptables", &["-P", "FORWARD", "DROP"]).expect("Docker's policy");
        let before = here();
        let lost = one.lost("10.9.0.3").expect("frames vanish");
        let demand = Some(Demand::of(2));
        let evidence = Evidence { messages: vec![lost], before: Some(before), demand, ..Evidence::default() };
        let hit = Evidence { after: Some(here()), ..evidence.clone() };
        assert_named(&hit, WallId::DockerFilter);
        let remedy = explain(&hit).and_then(|e| e.finding?.remedy).expect("a remedy");
        run("sh", &["-c", &remedy.command]).expect("the remedy works");
        assert_eq!(one.lost("10.9.0.3"), None, "with the remedy");
        let moved = Evidence { after: Some(here()), ..evidence };
        assert_ne!(explain(&moved).map(|e| e.row.id), Some(WallId::DockerFilter));
        run("sh", &["-c", &remedy.undo.expect("a way back")]).expect("undone");
        assert!(one.lost("10.9.0.3").is_some(), "after the undo");
    });
}

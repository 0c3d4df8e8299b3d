//! Counters that tell of walls which print nothing. All only grow while the host runs, but for those that say "now".

use super::filter::OURS;
use super::{Source, keyed};
use serde::Serialize;

/// `None` is what could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counters {
    /// Packets dropped because a CPU's queue was full (`softnet_stat`, second column, all CPUs).
    pub backlog_drops: Option<u64>,
    /// Packets that were dropped on their way to interfaces of this namespace that are not this program's, for whatever
    /// reason; those of a full queue are among the above.
    pub other_drops: Option<u64>,
    /// How often the table of IPv4, and of IPv6, neighbours was full.
    pub arp_fulls: Option<u64>,
    pub ndisc_fulls: Option<u64>,
    /// Packets that connection tracking dropped, and connections that it forgot early, both for want of room.
    pub conntrack_drops: Option<u64>,
    /// Connections that a full accept queue refused.
    pub listen_overflows: Option<u64>,
    /// Connections whose TIME_WAIT was cut short, too many being there.
    pub time_wait_overflows: Option<u64>,
    /// Now: TCP connections in TIME_WAIT.
    pub time_wait: Option<u64>,
    /// Tasks killed for want of memory, on the whole host.
    pub oom_kills: Option<u64>,
    /// Now: network namespaces, those that are being torn down counted. Root alone may read it. Since Linux 6.13 those
    /// that were removed last count until others are, so that alone it does not say that any is left.
    pub net_namespaces: Option<u64>,
    /// Now: a worker of the kernel is removing network namespaces.
    pub removing_namespaces: Option<bool>,
    /// Now: processes of Docker that forward published ports, one for each port of each container.
    pub port_proxies: Option<u64>,
}

impl Counters {
    pub(super) fn read(source: &Source) -> Counters {
        Counters {
            port_proxies: port_proxies(source),
            removing_namespaces: removing_namespaces(source),
            net_namespaces: net_namespaces(source),
            ..Counters::pulse(source)
        }
    }

    /// All but what takes a look at many processes, or at all that the kernel has in slabs, which are milliseconds.
    pub(super) fn pulse(source: &Source) -> Counters {
        let netstat = source.read("proc/net/netstat").unwrap_or_default();
        let sockets = source.read("proc/net/sockstat").unwrap_or_default();
        let table = |path: &str, column: &str| source.read(path).and_then(|text| sum_column(&text, column));
        let tracking = "proc/net/stat/nf_conntrack";
        let conntrack = table(tracking, "drop").zip(table(tracking, "early_drop"));
        Counters {
            backlog_drops: source.read("proc/net/softnet_stat").and_then(|text| backlog_drops(&text)),
            other_drops: source.read("proc/net/dev").map(|text| other_drops(&text)),
            arp_fulls: table("proc/net/stat/arp_cache", "table_fulls"),
            ndisc_fulls: table("proc/net/stat/ndisc_cache", "table_fulls"),
            conntrack_drops: conntrack.map(|(dropped, forgotten)| dropped + forgotten),
            listen_overflows: paired(&netstat, "TcpExt:", "ListenOverflows"),
            time_wait_overflows: paired(&netstat, "TcpExt:", "TCPTimeWaitOverflow"),
            time_wait: time_wait(&sockets),
            oom_kills: source.read("proc/vmstat").and_then(|text| keyed(&text, "oom_kill")),
            net_namespaces: None,
            removing_namespaces: None,
            port_proxies: None,
        }
    }
}

pub(super) fn net_namespaces(source: &Source) -> Option<u64> {
    source.read("proc/slabinfo").and_then(|text| slab(&text, "net_namespace"))
}

/// A line for each CPU, in hexadecimal: processed, dropped, …
fn backlog_drops(text: &str) -> Option<u64> {
    let drops = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    text.lines().map(drops).sum()
}

/// Two lines of headings, then `name: bytes packets errs drop …` of what was received (proc_net(5)).
fn other_drops(text: &str) -> u64 {
    let dropped = |line: &str| {
        let (name, figures) = line.split_once(':')?;
        let drops = figures.split_whitespace().nth(3)?.parse::<u64>().ok()?;
        (!name.trim_start().starts_with(OURS)).then_some(drops)
    };
    text.lines().filter_map(dropped).fold(0, u64::saturating_add)
}

/// A heading, then a line for each CPU, in hexadecimal.
fn sum_column(text: &str, column: &str) -> Option<u64> {
    let mut lines = text.lines();
    let place = lines.next()?.split_whitespace().position(|name| name == column)?;
    let value = |line: &str| u64::from_str_radix(line.split_whitespace().nth(place)?, 16).ok();
    lines.map(value).sum()
}

/// Two lines with the same beginning: names, then values.
fn paired(text: &str, prefix: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(prefix));
    let place = lines.next()?.split_whitespace().position(|word| word == name)?;
    lines.next()?.split_whitespace().nth(place)?.parse().ok()
}

/// `TCP: inuse 5 orphan 0 tw 3 alloc 7 mem 1`.
fn time_wait(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("TCP: "))?;
    let mut words = line.split_whitespace().skip_while(|word| *word != "tw");
    words.nth(1)?.parse().ok()
}

/// The objects in use of one kind (slabinfo(5)).
fn slab(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The kernel's threads are children of process 2. A worker's name ends in the queue that it works for, after a plus sign
/// while it does (`wq_worker_comm` in kernel/workqueue.c).
pub(super) fn removing_namespaces(source: &Source) -> Option<bool> {
    let name = |pid: &str| source.read(format!("proc/{pid}/comm"));
    // In a PID namespace of its own process 2 is another one, if there is one.
    if name("2")?.trim_end() != "kthreadd" {
        return None;
    }
    let threads = source.read("proc/2/task/2/children")?;
    let removes = |pid: &str| name(pid).is_some_and(|name| name.trim_end().ends_with("+netns"));
    Some(threads.split_whitespace().any(removes))
}

fn port_proxies(source: &Source) -> Option<u64> {
    let processes = std::fs::read_dir(source.root.join("proc")).ok()?;
    let is_proxy = |entry: &std::fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| name.bytes().all(|b| b.is_ascii_digit()))
            && std::fs::read(entry.path().join("comm")).is_ok_and(|name| name == b"docker-proxy\n")
    };
    Some(processes.flatten().filter(is_proxy).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_kernels_threads_say_that_it_removes_namespaces() {
        let removing = |processes: &[(&str, &str)], children: &str| {
            let folder = tempfile::tempdir().expect("a folder");
            let put = |file: &str, text: &str| {
                let path = folder.path().join("proc").join(file);
                std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
                std::fs::write(path, text).expect("a file");
            };
            processes.iter().for_each(|(pid, name)| put(&format!("{pid}/comm"), &format!("{name}\n")));
            put("2/task/2/children", children);
            removing_namespaces(&Source { root: folder.path().into(), state: "/var/lib/throng".into() })
        };
        let (idle, at_work) = (("7", "kworker/u8:0-netns"), ("7", "kworker/u8:0+netns"));
        assert_eq!(removing(&[("2", "kthreadd"), idle], "7 8 "), Some(false));
        assert_eq!(removing(&[("2", "kthreadd"), at_work], "7 8 "), Some(true));
        // In a PID namespace of its own.
        assert_eq!(removing(&[("2", "sh"), idle], "7 "), None);
        assert_eq!(removing(&[], ""), None);
    }

    #[test]
    fn counters_of_all_cpus_are_added() {
        assert_eq!(backlog_drops("0a4c381e 00000010 0\n09806afe 0000000f 0\n"), Some(31));
        assert_eq!(backlog_drops("0a4c381e\n"), None);
        let dev = "Inter-|   Receive\n face |bytes    packets errs drop fifo\n    lo: 90 29 0   77    0\n\
                   thr0363d51dp0: 1 1 0 5 0\neth0:3 1 0 2 0\n";
        assert_eq!(other_drops(dev), 79);
        let stat = "entries  allocs table_fulls\n000038ea 0001000b 000004ed\n000038ea 0000e61c 00000003\n";
        assert_eq!(sum_column(stat, "table_fulls"), Some(0x4f0));
        assert_eq!(sum_column(stat, "drop"), None);
        let netstat = "TcpExt: A ListenOverflows B\nTcpExt: 1 22 3\nIpExt: X\nIpExt: 4\n";
        assert_eq!(paired(netstat, "TcpExt:", "ListenOverflows"), Some(22));
        assert_eq!(paired(netstat, "TcpExt:", "X"), None);
        assert_eq!(time_wait("sockets: used 9\nTCP: inuse 5 orphan 0 tw 3 alloc 7 mem 1\n"), Some(3));
        assert_eq!(slab("net_namespace   36   70   4288\n", "net_namespace"), Some(36));
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text: String) {
            let _ = (backlog_drops(&text), sum_column(&text, "drop"), paired(&text, "T", "a"), time_wait(&text));
            let _ = other_drops(&text);
        }
    }
}

//! The forms in which the kernel's files tell counters, as far as several back ends read them.

/// A number by itself. What stands for "no limit" is none.
pub fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of a line `key value`.
pub fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| number(line.strip_prefix(key)?.strip_prefix(' ')?))
}

/// Bytes received and sent, those of the loopback left out, by `/proc/PID/net/dev`: two lines of headings, then `name:
/// received` and seven more, `sent` and seven more (proc_pid_net(5)).
pub fn traffic(text: &str) -> (u64, u64) {
    let counters = |line: &str| {
        let (name, counters) = line.split_once(':')?;
        let mut counters = counters.split_ascii_whitespace().map(|n| n.parse::<u64>().unwrap_or(0));
        (name.trim() != "lo").then_some((counters.next()?, counters.nth(7)?))
    };
    text.lines().skip(2).filter_map(counters).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_whole_words() {
        assert_eq!(field("rss_huge 1\nrss 20\n", "rss"), Some(20));
        assert_eq!(field("total_rss 1\n", "rss"), None);
        assert_eq!(field("low 0\noom_kill 2\noom_kill_x 9\n", "oom_kill"), Some(2));
        assert_eq!((number("7\n"), number("max\n"), number("")), (Some(7), None, None));
    }

    #[test]
    fn traffic_with_itself_is_nobodys() {
        let text = "Inter-|   Receive      |  Transmit\n face |bytes    packets |bytes    packets\n    \
                    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0:  100 2 0 0 0 0 0 0 30 3 0 0 0 0 0 0\n\
                    eth1:5 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(text), (105, 37));
        assert_eq!(traffic(""), (0, 0));
    }
}

//! The host's own line: CPU, memory, pressure.

use std::fs;

#[derive(Debug, Clone, Default)]
pub struct Host {
    pub cores: usize,
    /// Share of the cores' time since the reading before, 0 to 1; nothing in the first one.
    pub busy: Option<f64>,
    pub memory_used: u64,
    pub memory: u64,
    /// Share of the last ten seconds in which some task waited for CPU, memory, storage; nothing where the kernel does
    /// not count it.
    pub pressure: Option<[f64; 3]>,
    ticks: Ticks,
}

/// Since the host started, of all cores.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Ticks {
    idle: u64,
    all: u64,
}

impl Host {
    pub fn read(before: Option<&Host>) -> Host {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let ticks = parse_stat(&read("/proc/stat"));
        let (memory, available) = parse_meminfo(&read("/proc/meminfo"));
        let pressure =
            |what: &str| parse_pressure(&fs::read_to_string(format!("/proc/pressure/{what}")).ok()?);
        let all_pressure = || Some([pressure("cpu")?, pressure("memory")?, pressure("io")?]);
        Host {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            busy: before.and_then(|before| busy(before.ticks, ticks)),
            memory_used: memory.saturating_sub(available),
            memory,
            pressure: all_pressure(),
            ticks,
        }
    }
}

fn busy(old: Ticks, new: Ticks) -> Option<f64> {
    let all = new.all.checked_sub(old.all).filter(|all| *all > 0)?;
    Some(1.0 - new.idle.saturating_sub(old.idle).min(all) as f64 / all as f64)
}

/// The first line of proc_stat(5). Its first eight numbers are times; idle and waiting for storage are the fourth and
/// fifth. Guests are counted in the first two already.
fn parse_stat(text: &str) -> Ticks {
    let line = text.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let numbers: Vec<u64> =
        line.into_iter().flat_map(str::split_whitespace).take(8).filter_map(|n| n.parse().ok()).collect();
    Ticks { idle: numbers.iter().skip(3).take(2).sum(), all: numbers.iter().sum() }
}

/// Bytes that there are, and that programs could get.
fn parse_meminfo(text: &str) -> (u64, u64) {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
    };
    (field("MemTotal"), field("MemAvailable"))
}

/// `avg10` of the line `some`, as a share.
fn parse_pressure(text: &str) -> Option<f64> {
    Some(throng_walls::Stall::parse(text)?.average / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_are_understood() {
        let ticks = parse_stat("cpu  10 0 10 60 20 0 0 0 5 0\ncpu0 1 1 1 1\n");
        assert_eq!(ticks, Ticks { idle: 80, all: 100 });
        let later = Ticks { idle: 120, all: 200 };
        assert_eq!((busy(ticks, later), busy(ticks, ticks)), (Some(0.6), None));
        assert_eq!(
            parse_meminfo("MemTotal:  8 kB\nMemFree: 1 kB\nMemAvailable:   3 kB\n"),
            (8 << 10, 3 << 10)
        );
        assert_eq!(parse_meminfo(""), (0, 0));
        assert_eq!(
            parse_pressure("some avg10=12.50 avg60=0.00 avg300=0.00 total=9\nfull avg10=1\n"),
            Some(0.125)
        );
        assert_eq!(parse_pressure(""), None);
    }
}

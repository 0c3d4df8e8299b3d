//! How pressed the host is, from the kernel's own counters.

use std::fs;
use std::time::{Duration, Instant};
use throng_control::pace::Reading;
use throng_model::replica::Pressure;
use throng_walls::Stall;

pub struct Host {
    cores: f64,
    at: Instant,
    memory: Duration,
    disk: Duration,
}

impl Host {
    pub fn new(cores: usize) -> Host {
        let memory = stalled("/proc/pressure/memory");
        Host { cores: cores.max(1) as f64, at: Instant::now(), memory, disk: stalled("/proc/pressure/io") }
    }

    /// Costs three small reads.
    pub fn read(&mut self) -> Reading {
        let now = Instant::now();
        let passed = now.saturating_duration_since(self.at).as_secs_f64().max(1e-3);
        let (memory, disk) = (stalled("/proc/pressure/memory"), stalled("/proc/pressure/io"));
        let share = |new: Duration, old: Duration| new.saturating_sub(old).as_secs_f64() / passed;
        let others = runnable(&fs::read_to_string("/proc/loadavg").unwrap_or_default()).saturating_sub(1);
        let reading = Reading {
            runnable: others as f64 / self.cores,
            memory: share(memory, self.memory),
            disk: share(disk, self.disk),
        };
        (self.at, self.memory, self.disk) = (now, memory, disk);
        reading
    }
}

/// Tasks that run or could run, this one included: the fourth field of proc_loadavg(5), `2/345`.
fn runnable(loadavg: &str) -> u64 {
    let field = loadavg.split(' ').nth(3).and_then(|field| field.split('/').next());
    field.and_then(|count| count.parse().ok()).unwrap_or(1)
}

/// Time in which some task waited, since the host started; zero where the kernel does not count it.
fn stalled(path: &str) -> Duration {
    total(&fs::read_to_string(path).unwrap_or_default())
}

/// Time since the host started in which some task waited; nothing where the kernel does not count it.
pub fn pressure() -> Option<Pressure> {
    let stalled =
        |what: &str| fs::read_to_string(format!("/proc/pressure/{what}")).ok().map(|text| total(&text));
    Some(Pressure { cpu: stalled("cpu")?, memory: stalled("memory")?, storage: stalled("io")? })
}

fn total(pressure: &str) -> Duration {
    Duration::from_micros(Stall::parse(pressure).map_or(0, |stall| stall.total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_and_their_absence_is_calm() {
        assert_eq!(runnable("0.20 0.18 0.12 5/80 11206\n"), 5);
        assert_eq!(runnable(""), 1);
        let text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(total(text), Duration::from_micros(1234));
        assert_eq!(total(""), Duration::ZERO);
    }
}

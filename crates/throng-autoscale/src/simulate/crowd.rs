//! Replicas as they come, get ready, are measured and go.
//!
//! Load is spread evenly, so replicas that began together are alike in everything. They are kept as one cohort, and
//! cohorts that nothing tells apart any more become one: ten thousand replicas are a handful of entries.

use super::{Source, World};
use crate::case::{Age, Container, Phase, Pod, PodMetrics};
use crate::quantity::Quantity;
use std::collections::{BTreeMap, VecDeque};

/// A container has figures of its first moments only from this age on, in seconds, as metrics-server does it
/// (its `freshContainerMinMetricsResolution`).
const FRESH_LEAST: i64 = 10;

/// What one look at a replica found: means over a window that ends at `at`.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sample {
    at: i64,
    window: i64,
    /// Cores in use.
    cpu: f64,
    /// Cores of work done for requests.
    served: f64,
    /// Core-seconds that waited for this replica at `at`.
    waiting: f64,
}

#[derive(Debug, Clone)]
struct Cohort {
    replicas: u32,
    created: i64,
    ready_at: i64,
    /// Core-seconds of each replica since the last look.
    used: f64,
    served: f64,
    /// Taken but not published yet, the oldest first.
    taken: VecDeque<Sample>,
    published: Option<Sample>,
}

impl Cohort {
    fn new(replicas: u32, created: i64, startup: i64) -> Cohort {
        let ready_at = created + startup;
        Cohort {
            replicas,
            created,
            ready_at,
            used: 0.0,
            served: 0.0,
            taken: VecDeque::new(),
            published: None,
        }
    }

    fn is_ready(&self, now: i64) -> bool {
        self.ready_at <= now
    }

    fn sample(&mut self, at: i64, resolution: i64, waiting: f64) {
        let age = at - self.created;
        let window = match age {
            // It was there at the last look.
            age if age >= resolution => Some(resolution),
            age if age >= FRESH_LEAST => Some(age),
            _ => None,
        };
        let (used, served) = (std::mem::take(&mut self.used), std::mem::take(&mut self.served));
        if let Some(window) = window {
            let mean = |sum: f64| sum / window as f64;
            let waiting = if self.ready_at <= at { waiting } else { 0.0 };
            self.taken.push_back(Sample { at, window, cpu: mean(used), served: mean(served), waiting });
        }
    }

    fn publish(&mut self, until: i64) {
        while let Some(sample) = self.taken.front().filter(|sample| sample.at <= until) {
            self.published = Some(*sample);
            self.taken.pop_front();
        }
    }

    /// Whether no decision from `now` on could tell the two apart. Beyond the time of the start, `settled` seconds, a
    /// replica that has stayed ready is judged by its figures alone.
    fn is_like(&self, other: &Cohort, now: i64, settled: i64) -> bool {
        let old = |cohort: &Cohort| cohort.is_ready(now) && now - cohort.created >= settled;
        old(self)
            && old(other)
            && self.used == other.used
            && self.served == other.served
            && self.published == other.published
            && self.taken == other.taken
    }
}

/// All replicas of the target.
#[derive(Debug, Default)]
pub struct Crowd {
    /// The oldest first.
    cohorts: VecDeque<Cohort>,
}

impl Crowd {
    pub fn replicas(&self) -> i64 {
        self.cohorts.iter().map(|cohort| i64::from(cohort.replicas)).sum()
    }

    pub fn ready(&self, now: i64) -> i64 {
        let ready = self.cohorts.iter().filter(|cohort| cohort.is_ready(now));
        ready.map(|cohort| i64::from(cohort.replicas)).sum()
    }

    /// Makes or removes replicas until there are `wanted`. As with ReplicaSets, those that are not ready go first, and
    /// then those that have been ready for the shortest time: the youngest, where all take equally long to start.
    pub fn scale(&mut self, wanted: i64, now: i64, startup: i64) {
        let mut surplus = self.replicas() - wanted;
        if surplus < 0 {
            let more = u32::try_from(-surplus).unwrap_or(u32::MAX);
            self.cohorts.push_back(Cohort::new(more, now, startup));
            return;
        }
        while surplus > 0 {
            let Some(youngest) = self.cohorts.back_mut() else { return };
            if i64::from(youngest.replicas) > surplus {
                youngest.replicas -= u32::try_from(surplus).unwrap_or(0);
                return;
            }
            surplus -= i64::from(youngest.replicas);
            self.cohorts.pop_back();
        }
    }

    /// One second in which every ready replica does `served` core-seconds of work, and the others start.
    pub fn second(&mut self, now: i64, served: f64, startup_cpu: f64) {
        for cohort in &mut self.cohorts {
            if cohort.is_ready(now) {
                cohort.used += served;
                cohort.served += served;
            } else {
                cohort.used += startup_cpu;
            }
        }
    }

    /// Looks at every replica at the end of a window. `waiting`: core-seconds that wait, for each ready replica.
    pub fn measure(&mut self, at: i64, resolution: i64, waiting: f64) {
        for cohort in &mut self.cohorts {
            cohort.sample(at, resolution, waiting);
        }
    }

    /// Hands out what was seen until then.
    pub fn publish(&mut self, until: i64) {
        for cohort in &mut self.cohorts {
            cohort.publish(until);
        }
    }

    /// Makes one cohort of those that are alike.
    pub fn merge(&mut self, now: i64, settled: i64) {
        while let [first, second, ..] = self.cohorts.make_contiguous() {
            if !first.is_like(second, now, settled) {
                return;
            }
            first.replicas = first.replicas.saturating_add(second.replicas);
            self.cohorts.remove(1);
        }
    }

    /// The replicas as a controller sees them at `now`; each entry stands for a cohort.
    pub fn pods(&self, now: i64, world: &World, container: &str, metrics: &[(String, Source)]) -> Vec<Pod> {
        let seen = self.cohorts.iter().enumerate();
        seen.map(|(number, cohort)| pod(cohort, number, now, world, container, metrics)).collect()
    }
}

fn pod(
    cohort: &Cohort,
    number: usize,
    now: i64,
    world: &World,
    container: &str,
    metrics: &[(String, Source)],
) -> Pod {
    let age = |since: i64| Age::from_seconds(now - since);
    let ready = cohort.is_ready(now);
    let mut requests = BTreeMap::from([("cpu".to_owned(), Quantity::from_milli(world.cpu_request))]);
    if let Some(memory) = world.memory {
        requests.insert("memory".to_owned(), memory.request);
    }
    let custom = |sample: &Sample| {
        let value = |source: &Source| match source {
            Source::Rate => sample.served / world.work_of_one(),
            Source::Waiting => sample.waiting / world.work_of_one(),
        };
        metrics.iter().map(|(name, source)| (name.clone(), quantity(value(source)))).collect()
    };
    Pod {
        name: format!("replica-{number}"),
        phase: Phase::Running,
        deleted: false,
        ready: Some(ready),
        ready_changed: Some(age(if ready { cohort.ready_at } else { cohort.created })),
        started: Some(age(cohort.created)),
        containers: vec![Container { name: container.to_owned(), requests }],
        metrics: cohort.published.map(|sample| {
            let mut usage = BTreeMap::from([("cpu".to_owned(), quantity(sample.cpu))]);
            if let Some(memory) = world.memory {
                usage.insert("memory".to_owned(), memory.usage);
            }
            PodMetrics {
                age: age(sample.at),
                window: Age::from_seconds(sample.window),
                containers: BTreeMap::from([(container.to_owned(), usage)]),
            }
        }),
        custom: cohort.published.as_ref().map(custom).unwrap_or_default(),
        alike: cohort.replicas - 1,
    }
}

/// A figure as meters report it. To a billionth, so that what rounding adds to 0.4 does not make it 401 thousandths.
pub fn quantity(value: f64) -> Quantity {
    Quantity::from_nanos((value * 1e9).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(crowd: &Crowd) -> Vec<(u32, i64)> {
        crowd.cohorts.iter().map(|cohort| (cohort.replicas, cohort.created)).collect()
    }

    #[test]
    fn the_youngest_go_first() {
        let mut crowd = Crowd::default();
        crowd.scale(5, 0, 10);
        crowd.scale(8, 60, 10);
        crowd.scale(9, 61, 10);
        assert_eq!((crowd.replicas(), crowd.ready(70), crowd.ready(71)), (9, 8, 9));
        crowd.scale(7, 80, 10);
        assert_eq!(names(&crowd), [(5, 0), (2, 60)]);
        crowd.scale(5, 81, 10);
        assert_eq!(names(&crowd), [(5, 0)]);
        crowd.scale(0, 82, 10);
        assert_eq!(crowd.replicas(), 0);
        crowd.scale(0, 83, 10);
        assert!(names(&crowd).is_empty());
    }

    #[test]
    fn figures_of_the_young_come_as_from_metrics_server() {
        // Looks at 15, 30, 45 …: what was made at 2 is old enough at 15, what was made at 7 is not and waits until 30.
        let mut crowd = Crowd::default();
        crowd.scale(1, 0, 0);
        crowd.scale(2, 2, 3);
        crowd.scale(3, 7, 3);
        let mut windows = Vec::new();
        for now in 0..30 {
            crowd.second(now, 0.5, 0.1);
            if (now + 1) % 15 == 0 {
                crowd.measure(now + 1, 15, 0.0);
                crowd.publish(now + 1);
                windows.push(
                    crowd.cohorts.iter().map(|c| c.published.map(|s| (s.at, s.window))).collect::<Vec<_>>(),
                );
            }
        }
        assert_eq!(windows[0], [Some((15, 15)), Some((15, 13)), None]);
        assert_eq!(windows[1], [Some((30, 15)); 3]);
        crowd.merge(400, 300);
        assert_eq!(names(&crowd), [(3, 0)], "all did the same since the last look");
    }

    #[test]
    fn the_young_and_the_different_stay_apart() {
        let mut crowd = Crowd::default();
        crowd.scale(1, 0, 0);
        crowd.scale(2, 100, 0);
        crowd.merge(399, 300);
        assert_eq!(crowd.cohorts.len(), 2, "one is 299 seconds old");
        crowd.cohorts[1].used = 1.0;
        crowd.merge(400, 300);
        assert_eq!(crowd.cohorts.len(), 2);
    }

    #[test]
    fn usage_is_reported_to_a_billionth() {
        assert_eq!(quantity(0.1 + 0.3).milli(), 400);
        assert_eq!(quantity(0.400_000_1).milli(), 401);
        assert_eq!(quantity(1e300).milli(), i64::MAX / 1_000_000 + 1);
    }
}

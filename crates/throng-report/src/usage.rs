//! CPU and memory of replicas: a line each for a few, quantiles across them for a crowd.

use crate::data::{Load, figure, time};
use std::collections::BTreeMap;
use throng_model::run::{ReplicaSeries, Run, Sample};

/// Up to this many replicas of a service are drawn one by one; above, as bands of quantiles.
pub const MAX_SINGLE: usize = 12;
/// Points over time of one replica or one band.
pub const MAX_POINTS: usize = 240;
/// What a band shows of the replicas at one moment.
pub const QUANTILES: [f64; 5] = [0.0, 0.1, 0.5, 0.9, 1.0];
pub const QUANTILE_NAMES: [&str; 5] = ["minimum", "10 %", "median", "90 %", "maximum"];

pub struct ServiceUse<'a> {
    pub service: &'a str,
    pub series: Series<'a>,
    pub totals: Vec<Totals<'a>>,
    /// Cores and bytes that each of its replicas may use, where all have the same limit.
    pub cpu_limit: Option<f64>,
    pub memory_limit: Option<f64>,
    members: Vec<&'a ReplicaSeries>,
}

pub enum Series<'a> {
    Single(Vec<(&'a str, Vec<Usage>)>),
    Bands(Vec<Band>),
}

/// Cores and bytes at a moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    pub at: f64,
    pub cpu: f64,
    pub memory: f64,
}

/// [`QUANTILES`] across replicas in one interval.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    pub at: f64,
    pub cpu: [f64; QUANTILES.len()],
    pub memory: [f64; QUANTILES.len()],
}

/// One replica over the whole run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Totals<'a> {
    pub service: &'a str,
    pub name: &'a str,
    pub samples: usize,
    pub cpu_mean: f64,
    pub cpu_max: f64,
    pub memory_mean: f64,
    pub memory_max: f64,
    /// Answers it gave in all loads, where it named itself.
    pub answers: Option<u64>,
}

impl ServiceUse<'_> {
    /// Mean cores of one replica, taken over the samples inside any of the spans; averaged over the replicas that ran.
    pub fn mean_cpu(&self, spans: &[(f64, f64)]) -> Option<f64> {
        let inside = |s: &&Sample| spans.iter().any(|(from, to)| s.at > *from && s.at <= *to);
        let means: Vec<f64> = self
            .members
            .iter()
            .filter_map(|r| mean(r.samples.iter().filter(inside).filter_map(|s| figure(s.cpu))))
            .collect();
        mean(means.into_iter())
    }
}

pub fn service_uses<'a>(run: &'a Run, loads: &[Load<'a>]) -> Vec<ServiceUse<'a>> {
    let mut answers: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in loads.iter().flat_map(Load::by_replica) {
        let sum = answers.entry(name).or_default();
        *sum = sum.saturating_add(count);
    }
    let mut services: BTreeMap<&str, Vec<&ReplicaSeries>> = BTreeMap::new();
    for replica in &run.replicas {
        services.entry(&replica.service).or_default().push(replica);
    }
    services
        .into_iter()
        .map(|(service, members)| {
            let totals = members.iter().map(|r| totals(r, answers.get(r.name.as_str()).copied())).collect();
            ServiceUse {
                service,
                series: series(&members),
                totals,
                cpu_limit: common(members.iter().map(|r| r.cpu_limit.and_then(figure).filter(|v| *v > 0.0))),
                memory_limit: common(
                    members.iter().map(|r| r.memory_limit.map(|v| v as f64).filter(|v| *v > 0.0)),
                ),
                members,
            }
        })
        .collect()
}

fn series<'a>(members: &[&'a ReplicaSeries]) -> Series<'a> {
    let times = || members.iter().flat_map(|r| &r.samples).filter_map(|s| time(s.at));
    let (first, last) = times().fold((f64::MAX, 0.0f64), |(low, high), at| (low.min(at), high.max(at)));
    let grid = Grid { first, width: ((last - first) / MAX_POINTS as f64).max(f64::MIN_POSITIVE) };
    if members.len() <= MAX_SINGLE {
        return Series::Single(members.iter().map(|r| (r.name.as_str(), grid.thinned(&r.samples))).collect());
    }
    let mut cells: Vec<Vec<Usage>> = vec![Vec::new(); MAX_POINTS];
    for replica in members {
        for (index, usage) in grid.averaged(&replica.samples) {
            cells[index].push(usage);
        }
    }
    Series::Bands(cells.iter_mut().filter_map(|cell| band(cell)).collect())
}

/// Equal intervals of time over all samples of a service.
struct Grid {
    first: f64,
    width: f64,
}

impl Grid {
    /// The samples themselves while they are few, else their average in each interval.
    fn thinned(&self, samples: &[Sample]) -> Vec<Usage> {
        if samples.len() > MAX_POINTS {
            return self.averaged(samples).map(|(_, usage)| usage).collect();
        }
        let mut all: Vec<Usage> = samples.iter().filter_map(usage).collect();
        all.sort_by(|a, b| a.at.total_cmp(&b.at));
        all
    }

    fn averaged(&self, samples: &[Sample]) -> impl Iterator<Item = (usize, Usage)> {
        let mut sums = vec![(0.0f64, 0.0f64, 0.0f64, 0.0f64); MAX_POINTS];
        for usage in samples.iter().filter_map(usage) {
            let index = (((usage.at - self.first) / self.width) as usize).min(MAX_POINTS - 1);
            let sum = &mut sums[index];
            *sum = (sum.0 + usage.at, sum.1 + usage.cpu, sum.2 + usage.memory, sum.3 + 1.0);
        }
        sums.into_iter().enumerate().filter(|(_, sum)| sum.3 > 0.0).map(|(index, (at, cpu, memory, n))| {
            (index, Usage { at: at / n, cpu: cpu / n, memory: memory / n })
        })
    }
}

fn usage(sample: &Sample) -> Option<Usage> {
    Some(Usage { at: time(sample.at)?, cpu: figure(sample.cpu)?, memory: figure(sample.memory as f64)? })
}

fn band(cell: &mut [Usage]) -> Option<Band> {
    let at = mean(cell.iter().map(|u| u.at))?;
    let mut quantiles = |value: fn(&Usage) -> f64| {
        cell.sort_by(|a, b| value(a).total_cmp(&value(b)));
        QUANTILES.map(|share| value(&cell[((cell.len() - 1) as f64 * share).round() as usize]))
    };
    Some(Band { at, cpu: quantiles(|u| u.cpu), memory: quantiles(|u| u.memory) })
}

fn totals<'a>(replica: &'a ReplicaSeries, answers: Option<u64>) -> Totals<'a> {
    let usages = || replica.samples.iter().filter_map(usage);
    Totals {
        service: &replica.service,
        name: &replica.name,
        samples: usages().count(),
        cpu_mean: mean(usages().map(|u| u.cpu)).unwrap_or(0.0),
        cpu_max: usages().map(|u| u.cpu).fold(0.0, f64::max),
        memory_mean: mean(usages().map(|u| u.memory)).unwrap_or(0.0),
        memory_max: usages().map(|u| u.memory).fold(0.0, f64::max),
        answers,
    }
}

pub fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

fn common(mut limits: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let first = limits.next()??;
    limits.all(|limit| limit == Some(first)).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(replicas: usize, samples: usize) -> Run {
        let series = |r: usize| ReplicaSeries {
            service: "web".into(),
            name: format!("web-{r}"),
            cpu_limit: Some(0.5),
            samples: (0..samples)
                .map(|i| Sample { at: i as f64, cpu: r as f64, memory: 1 << 20, ..Default::default() })
                .collect(),
            ..Default::default()
        };
        Run { replicas: (0..replicas).map(series).collect(), ..Default::default() }
    }

    #[test]
    fn a_few_replicas_keep_their_samples_and_a_crowd_becomes_quantiles() {
        let few = crowd(3, 5);
        let uses = service_uses(&few, &[]);
        let Series::Single(lines) = &uses[0].series else { panic!("three replicas are drawn one by one") };
        assert_eq!(
            lines.iter().map(|(name, points)| (*name, points.len())).collect::<Vec<_>>(),
            [("web-0", 5), ("web-1", 5), ("web-2", 5)]
        );
        assert_eq!(uses[0].cpu_limit, Some(0.5));
        assert_eq!(uses[0].mean_cpu(&[(0.5, 3.5)]), Some(1.0));
        assert_eq!(uses[0].mean_cpu(&[(100.0, 101.0)]), None);

        let many = crowd(101, 1_000);
        let uses = service_uses(&many, &[]);
        let Series::Bands(bands) = &uses[0].series else { panic!("a hundred replicas are bands") };
        assert!(bands.len() <= MAX_POINTS);
        assert!(bands.iter().all(|b| b.cpu == [0.0, 10.0, 50.0, 90.0, 100.0]));
    }

    #[test]
    fn different_limits_are_no_common_limit() {
        assert_eq!(common([Some(1.0), Some(1.0)].into_iter()), Some(1.0));
        assert_eq!(common([Some(1.0), Some(2.0)].into_iter()), None);
        assert_eq!(common([Some(1.0), None].into_iter()), None);
        assert_eq!(common(std::iter::empty()), None);
    }
}

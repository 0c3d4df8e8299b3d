//! Which replicas are replaced because what they request is far from what is recommended, as the updater of Kubernetes'
//! vertical autoscaler decides it (`vertical-pod-autoscaler/pkg/updater`, with the defaults of its flags). Pure.

use crate::vertical::{milli, within};
use std::cmp::Ordering;
use std::time::Duration;
use throng_model::app::Resources;
use throng_model::autoscale::{ControlledValues, Recommendation, Vertical};

/// How often it is looked at what replicas request (`--updater-interval`).
pub const LOOK_EVERY: Duration = Duration::from_secs(60);
/// Share of the wanted replicas that may be missing at a time, cut to whole ones (`--eviction-tolerance`).
const TOLERANCE: f64 = 0.5;
/// Who has run for so long (`--in-recommendation-bounds-eviction-lifetime-threshold`) …
const SETTLED: Duration = Duration::from_secs(12 * 3600);
/// … is replaced for such a relative difference, that of CPU and that of memory added up (`--pod-update-threshold`).
const DIFFERENCE: f64 = 0.1;

/// A replica that is not about to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    pub ordinal: u32,
    /// Thousandths of a core, and bytes.
    pub cpu: Option<u64>,
    pub memory: Option<u64>,
    /// For how long it has run; `None` while it does not, and then it gets what is recommended when it starts.
    pub runs: Option<Duration>,
}

impl Candidate {
    pub fn new(ordinal: u32, resources: &Resources, runs: Option<Duration>) -> Candidate {
        let (cpu, memory) = (resources.cpu_request().map(milli), resources.memory_request());
        Candidate { ordinal, cpu, memory, runs }
    }
}

/// What is recommended of one resource, within the policy's bounds.
#[derive(Debug, Clone, Copy)]
struct Range {
    lower: u64,
    target: u64,
    upper: u64,
}

/// How far from what is recommended somebody's requests are.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Distance {
    /// Something is requested that lies outside its range, or nothing at all.
    outside: bool,
    grows: bool,
    difference: f64,
}

/// Ordinals of those to be replaced now, the most urgent first. `resources`: what the definition asks for; `wanted`: how
/// many replicas there should be. Those that are missing or do not run count as replaced already.
pub fn evictions(
    policy: &Vertical,
    recommendation: &Recommendation,
    resources: &Resources,
    wanted: u32,
    candidates: &[Candidate],
) -> Vec<u32> {
    if candidates.len() < policy.min_replicas as usize {
        return Vec::new();
    }
    let cpu = range(policy, recommendation, resources, Resource::Cpu);
    let memory = range(policy, recommendation, resources, Resource::Memory);
    let mut chosen: Vec<(Distance, u32)> = candidates
        .iter()
        .filter_map(|candidate| {
            let age = candidate.runs?;
            let distance = distance([(cpu, candidate.cpu, 1.0), (memory, candidate.memory, MILLI)]);
            let settled = age >= SETTLED && distance.difference >= DIFFERENCE;
            (distance.outside || settled).then_some((distance, candidate.ordinal))
        })
        .collect();
    chosen.sort_by(|(one, _), (other, _)| urgency(other, one));
    let running = candidates.iter().filter(|candidate| candidate.runs.is_some()).count();
    chosen.truncate(room(wanted as usize, running));
    chosen.into_iter().map(|(_, ordinal)| ordinal).collect()
}

/// How many may be taken from so many that run.
fn room(wanted: usize, running: usize) -> usize {
    let tolerance = (wanted as f64 * TOLERANCE) as usize;
    // A single one that may be replaced at all cannot be without being missed.
    if tolerance == 0 && running == wanted {
        return 1;
    }
    running.saturating_sub(wanted - tolerance)
}

enum Resource {
    Cpu,
    Memory,
}

/// Amounts are compared in thousandths of their unit, and a request of nothing counts as one of these.
const MILLI: f64 = 1_000.0;

fn range(
    policy: &Vertical,
    recommendation: &Recommendation,
    resources: &Resources,
    of: Resource,
) -> Option<Range> {
    let Recommendation { lower, target, upper, .. } = recommendation;
    let (least, most) = (policy.min_allowed, policy.max_allowed);
    let (controlled, amounts, least, most, limit) = match of {
        Resource::Cpu => {
            let limit = resources.cpus.map(milli);
            (policy.controlled_resources.cpu, [lower.0, target.0, upper.0], least.cpu, most.cpu, limit)
        }
        Resource::Memory => {
            let amounts = [lower.1, target.1, upper.1];
            (policy.controlled_resources.memory, amounts, least.memory, most.memory, resources.memory)
        }
    };
    let limit = limit.filter(|_| policy.controlled_values == ControlledValues::RequestsOnly);
    let [lower, target, upper] =
        amounts.map(|amount| within(amount, least, most).min(limit.unwrap_or(u64::MAX)));
    controlled.then_some(Range { lower, target, upper })
}

fn distance(resources: [(Option<Range>, Option<u64>, f64); 2]) -> Distance {
    let mut found = Distance { outside: false, grows: false, difference: 0.0 };
    for (range, request, unit) in resources {
        let Some(Range { lower, target, upper }) = range else { continue };
        found.outside |= request.is_none_or(|request| request < lower || request > upper);
        found.grows |= request.is_none_or(|request| request < target);
        let request = (request.unwrap_or(0) as f64 * unit).max(1.0);
        found.difference += (request - target as f64 * unit).abs() / request;
    }
    found
}

/// Who needs more goes first, then who is further off.
fn urgency(one: &Distance, other: &Distance) -> Ordering {
    one.grows.cmp(&other.grows).then(one.difference.total_cmp(&other.difference))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use throng_model::autoscale::{Allowed, Controlled};

    const HOUR: Duration = Duration::from_secs(3600);

    fn recommendation() -> Recommendation {
        Recommendation { lower: (100, 1_000), target: (200, 2_000), upper: (400, 4_000), confidence: 1.0 }
    }

    fn candidate(ordinal: u32, cpu: u64, memory: u64, hours: u32) -> Candidate {
        Candidate { ordinal, cpu: Some(cpu), memory: Some(memory), runs: Some(HOUR * hours) }
    }

    /// Whether one of ten that all else is well with is replaced.
    fn evicts(policy: &Vertical, one: Candidate) -> bool {
        let rest = (2..=10).map(|ordinal| candidate(ordinal, 200, 2_000, 100));
        let all: Vec<Candidate> = [one].into_iter().chain(rest).collect();
        let resources = Resources { memory: Some(1_500), ..Resources::default() };
        let evicted = evictions(policy, &recommendation(), &resources, 10, &all);
        assert!(evicted.is_empty() || evicted == [1], "{evicted:?}");
        !evicted.is_empty()
    }

    #[test]
    fn who_is_out_of_bounds_is_replaced_and_who_is_settled_for_a_tenth() {
        let policy = Vertical::default();
        for (cpu, memory, hours, expected) in [
            (200, 2_000, 0, false),
            // The bounds themselves are within.
            (100, 1_000, 0, false),
            (400, 4_000, 11, false),
            (99, 2_000, 0, true),
            (401, 2_000, 0, true),
            (200, 999, 0, true),
            (200, 4_001, 0, true),
            // Within the bounds, but for half a day.
            (400, 4_000, 12, true),
            (200, 2_000, 12, false),
            // 0.1 and 0.05 are more than a tenth, each alone is a tenth and less than one.
            (222, 2_000, 12, false),
            (223, 2_000, 12, true),
            (200, 2_105, 12, false),
            (212, 2_105, 12, true),
        ] {
            assert_eq!(evicts(&policy, candidate(1, cpu, memory, hours)), expected, "{cpu} {memory} {hours}");
        }
        assert!(
            evicts(&policy, Candidate { memory: None, ..candidate(1, 200, 0, 0) }),
            "it requests nothing"
        );
        assert!(
            !evicts(&policy, Candidate { runs: None, ..candidate(1, 1, 1, 0) }),
            "it will when it starts"
        );
    }

    #[test]
    fn what_is_allowed_and_controlled_counts() {
        let most = |cpu| Allowed { cpu: Some(cpu), memory: None };
        for (policy, one, expected) in [
            (Vertical { max_allowed: most(50), ..Vertical::default() }, candidate(1, 50, 2_000, 100), false),
            (Vertical { max_allowed: most(50), ..Vertical::default() }, candidate(1, 51, 2_000, 0), true),
            (
                Vertical { min_allowed: most(900), ..Vertical::default() },
                candidate(1, 900, 2_000, 100),
                false,
            ),
            (
                Vertical {
                    controlled_resources: Controlled { cpu: false, memory: true },
                    ..Vertical::default()
                },
                candidate(1, 1, 2_000, 100),
                false,
            ),
            // Limits stay, and nobody can request more than that.
            (
                Vertical { controlled_values: ControlledValues::RequestsOnly, ..Vertical::default() },
                candidate(1, 200, 1_500, 100),
                false,
            ),
        ] {
            let rest: Vec<Candidate> = (2..=10).map(|ordinal| Candidate { ordinal, ..one }).collect();
            let all: Vec<Candidate> = [one].into_iter().chain(rest).collect();
            let resources = Resources { memory: Some(1_500), ..Resources::default() };
            let evicted = evictions(&policy, &recommendation(), &resources, 10, &all);
            assert_eq!(!evicted.is_empty(), expected, "{policy:?} {one:?}");
        }
    }

    #[test]
    fn half_may_be_missing_and_one_alone_stays() {
        let run = |wanted: u32, running: u32, pending: u32, min_replicas: u32| {
            let policy = Vertical { min_replicas, ..Vertical::default() };
            let all: Vec<Candidate> = (1..=running + pending)
                .map(|ordinal| {
                    let far = candidate(ordinal, 1, 1, 0);
                    Candidate { runs: far.runs.filter(|_| ordinal <= running), ..far }
                })
                .collect();
            evictions(&policy, &recommendation(), &Resources::default(), wanted, &all).len()
        };
        for (wanted, running, pending, min_replicas, expected) in [
            (10, 10, 0, 2, 5),
            (3, 3, 0, 2, 1),
            (2, 2, 0, 2, 1),
            // Those that are missing, or are being started, are part of the half.
            (10, 8, 0, 2, 3),
            (10, 5, 5, 2, 0),
            (10, 2, 8, 2, 0),
            (2, 1, 1, 2, 0),
            // Fewer than the policy wants there to be.
            (1, 1, 0, 2, 0),
            (4, 4, 0, 5, 0),
            (1, 1, 0, 1, 1),
            (1, 0, 1, 1, 0),
            // More than are wanted, as in the middle of an update.
            (4, 6, 0, 2, 4),
            (0, 0, 0, 0, 0),
        ] {
            assert_eq!(
                run(wanted, running, pending, min_replicas),
                expected,
                "{running} of {wanted} run, {pending} do not, at least {min_replicas}"
            );
        }
    }

    #[test]
    fn who_needs_more_goes_first_and_then_who_is_further_off() {
        let all = [
            candidate(1, 900, 2_000, 0),
            candidate(2, 90, 2_000, 0),
            candidate(3, 10_000, 2_000, 0),
            candidate(4, 10, 2_000, 0),
            candidate(5, 200, 2_000, 0),
            candidate(6, 200, 2_000, 0),
        ];
        let evicted = evictions(&Vertical::default(), &recommendation(), &Resources::default(), 6, &all);
        assert_eq!(evicted, [4, 2, 3]);
    }

    proptest! {
        /// Whatever is recommended, no more than half are missing at a time, and who has what it would be given stays.
        #[test]
        fn never_more_than_half_and_never_for_nothing(
            wanted in 0u32..20,
            cpus in prop::collection::vec(prop::option::of(0u64..2_000), 0..30),
            target in 0u64..2_000, below in 0u64..2_000, above in 0u64..2_000, hours in 0u32..24,
        ) {
            let bounds = (target.saturating_sub(below), 7);
            let recommendation =
                Recommendation { lower: bounds, target: (target, 7), upper: (target + above, 7), confidence: 1.0 };
            let all: Vec<Candidate> = (1..).zip(&cpus)
                .map(|(ordinal, cpu)| Candidate { ordinal, cpu: *cpu, memory: Some(7), runs: Some(HOUR * hours) })
                .collect();
            let policy = Vertical::default();
            let evicted = evictions(&policy, &recommendation, &Resources::default(), wanted, &all);
            let left = all.len() - evicted.len();
            prop_assert!(evicted.is_empty() || left >= wanted as usize - wanted as usize / 2 || wanted < 2);
            for ordinal in evicted {
                prop_assert_ne!(all[ordinal as usize - 1].cpu, Some(target));
            }
        }
    }
}

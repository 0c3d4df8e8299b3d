//! When an app was whole again after a fault: read from what was recorded, and nothing else.
//!
//! It is whole while of each service concerned as many replicas are ready as there are to be, and no answer of the load
//! that runs fails. It has recovered at the first moment, the fault's end or later, from which it is whole for a given
//! time without interruption. Failures are known by the second in which they ended, so that whole second counts as one of
//! failures. When the load ends before that time is over, it must have answered without failure after its last failure.

use throng_model::run::TimelinePoint;

/// Numbers over time, one point at each change.
pub type Steps = Vec<(f64, u32)>;

/// What is recorded of a service.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Replicas {
    pub ready: Steps,
    pub wanted: Steps,
}

/// What is known, all in seconds since the run's start.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Of the services concerned.
    pub services: Vec<Replicas>,
    /// Seconds of the load, if there was one.
    pub timeline: Vec<TimelinePoint>,
    /// Up to when replicas are known.
    pub known: f64,
}

/// How many seconds after `from` the app had recovered; `None` if it had not, as far as is known.
pub fn recovered(evidence: &Evidence, from: f64, steady: f64) -> Option<f64> {
    let mut moment = from;
    for (begin, end) in evidence.broken() {
        if begin >= moment + steady {
            break;
        }
        moment = moment.max(end);
    }
    let known = moment + steady <= evidence.known;
    (known && evidence.answers_after(from, moment)).then_some(moment - from)
}

impl Evidence {
    /// Spans in which it was not whole, by their beginnings. They may overlap.
    fn broken(&self) -> Vec<(f64, f64)> {
        let failing = self.timeline.iter().filter(|point| point.errors > 0);
        let failing = failing.map(|point| (point.at - point.width / 2.0, point.at + point.width / 2.0));
        let mut broken: Vec<(f64, f64)> =
            failing.chain(self.services.iter().flat_map(Replicas::too_few)).collect();
        broken.sort_by(|a, b| a.0.total_cmp(&b.0));
        broken
    }

    /// Whether the load, if it failed after `from`, answered well from `moment` on.
    fn answers_after(&self, from: f64, moment: f64) -> bool {
        let failed =
            self.timeline.iter().any(|point| point.errors > 0 && point.at + point.width / 2.0 > from);
        let well = |point: &TimelinePoint| point.errors == 0 && point.requests > 0 && point.at >= moment;
        !failed || self.timeline.iter().any(well)
    }
}

impl Replicas {
    /// Spans in which fewer were ready than there were to be, none before the first point.
    fn too_few(&self) -> Vec<(f64, f64)> {
        let mut changes: Vec<f64> = self.ready.iter().chain(&self.wanted).map(|(at, _)| *at).collect();
        changes.sort_by(f64::total_cmp);
        changes.dedup();
        let ends = changes.iter().skip(1).copied().chain([f64::INFINITY]);
        let (mut ready, mut wanted) = (At::new(&self.ready), At::new(&self.wanted));
        let short =
            |(begin, end): (f64, f64)| (ready.value(begin) < wanted.value(begin)).then_some((begin, end));
        changes.iter().copied().zip(ends).filter_map(short).collect()
    }
}

/// Reads steps at times that only grow.
struct At<'a> {
    rest: std::iter::Peekable<std::slice::Iter<'a, (f64, u32)>>,
    value: u32,
}

impl At<'_> {
    fn new(steps: &[(f64, u32)]) -> At<'_> {
        At { rest: steps.iter().peekable(), value: 0 }
    }

    /// That of the last point up to then, 0 before the first.
    fn value(&mut self, at: f64) -> u32 {
        while let Some((_, value)) = self.rest.next_if(|(time, _)| *time <= at) {
            self.value = *value;
        }
        self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(number: u32, requests: u64, errors: u64) -> TimelinePoint {
        let at = f64::from(number) + 0.5;
        TimelinePoint { at, width: 1.0, requests, errors, ..TimelinePoint::default() }
    }

    /// Three replicas, one of which is not ready from 10.2 s to 14.7 s.
    fn one_falls() -> Evidence {
        let ready = vec![(1.0, 3), (10.2, 2), (14.7, 3)];
        let service = Replicas { ready, wanted: vec![(0.0, 3)] };
        Evidence { services: vec![service], timeline: Vec::new(), known: 30.0 }
    }

    fn after(evidence: &Evidence, from: f64, steady: f64) -> Option<f64> {
        recovered(evidence, from, steady).map(|seconds| (seconds * 1e6).round() / 1e6)
    }

    #[test]
    fn replicas_alone_say_when_it_was_whole() {
        let evidence = one_falls();
        assert_eq!(after(&evidence, 10.0, 5.0), Some(4.7), "it was whole at first, but not for long");
        assert_eq!(after(&evidence, 12.0, 5.0), Some(2.7));
        assert_eq!(after(&evidence, 15.0, 5.0), Some(0.0), "nothing was to recover from");
        assert_eq!(after(&Evidence { known: 19.0, ..one_falls() }, 10.0, 5.0), None, "not long enough yet");
        assert_eq!(after(&Evidence { known: 19.7, ..one_falls() }, 10.0, 5.0), Some(4.7));
    }

    #[test]
    fn a_fall_back_begins_anew() {
        let mut evidence = one_falls();
        evidence.services[0].ready.extend([(16.0, 2), (18.0, 3)]);
        assert_eq!(after(&evidence, 10.0, 5.0), Some(8.0));
        assert_eq!(after(&evidence, 10.0, 1.0), Some(4.7));
        evidence.services[0].wanted.push((21.0, 4));
        assert_eq!(after(&evidence, 10.0, 5.0), None, "more are wanted than there are");
    }

    #[test]
    fn a_long_restless_record_is_read_at_once() {
        // Every tenth of a second another count for most of three hours: as many points as are kept at the most.
        let ready = (0..50_000u32).map(|n| (f64::from(n) / 10.0, n % 3)).collect();
        let service = Replicas { ready, wanted: vec![(0.0, 3)] };
        let evidence = Evidence { services: vec![service; 4], timeline: Vec::new(), known: 6_000.0 };
        let begin = std::time::Instant::now();
        assert_eq!(after(&evidence, 0.0, 1.0), None);
        // It is asked ten times a second while somebody waits. Squares of these numbers would take minutes.
        assert!(begin.elapsed().as_secs() < 3, "{:?}", begin.elapsed());
    }

    #[test]
    fn every_service_counts() {
        let mut evidence = one_falls();
        evidence
            .services
            .push(Replicas { ready: vec![(0.0, 1), (11.0, 0), (17.5, 1)], wanted: vec![(0.0, 1)] });
        assert_eq!(after(&evidence, 10.0, 5.0), Some(7.5));
        evidence.services.push(Replicas { ready: vec![], wanted: vec![(0.0, 1)] });
        assert_eq!(after(&evidence, 10.0, 5.0), None, "one that never was ready");
    }

    #[test]
    fn failures_count_by_their_second() {
        let mut evidence = one_falls();
        evidence.timeline = (0..30).map(|n| second(n, 100, u64::from((10..=17).contains(&n)))).collect();
        assert_eq!(after(&evidence, 10.0, 5.0), Some(8.0));
        evidence.timeline[20].errors = 1;
        assert_eq!(after(&evidence, 10.0, 5.0), Some(11.0));
    }

    #[test]
    fn a_load_that_ends_must_have_answered_well_before() {
        let mut evidence = one_falls();
        let load =
            |last: u32| (0..=last).map(|n| second(n, 100, u64::from((10..=17).contains(&n)))).collect();
        evidence.timeline = load(17);
        assert_eq!(after(&evidence, 10.0, 5.0), None, "it failed to its end");
        evidence.timeline = load(18);
        assert_eq!(after(&evidence, 10.0, 5.0), Some(8.0));
        evidence.timeline[18].requests = 0;
        assert_eq!(after(&evidence, 10.0, 5.0), None, "no answer is no good answer");
        evidence.timeline = (0..=9).map(|n| second(n, 100, 1)).collect();
        assert_eq!(after(&evidence, 10.0, 5.0), Some(4.7), "what failed before is not of this fault");
    }
}

//! What the replicas of each service should request, from what they use.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};
use throng_autoscale::vertical::{Amounts, Recommended, Vertical};
use throng_model::autoscale::Recommendation;

/// How often the recommender of a cluster takes samples.
const EVERY: Duration = Duration::from_secs(60);

pub struct Recommenders {
    epoch: Instant,
    /// Of the epoch since that of Unix: moments go on where those of an earlier supervisor ended.
    offset: Duration,
    next: Instant,
    services: BTreeMap<String, Vertical>,
    /// When it was last looked at what the replicas of a service request.
    looked: BTreeMap<String, Instant>,
}

impl Recommenders {
    /// With what an earlier supervisor knew.
    pub fn new(now: Instant, mut known: BTreeMap<String, Vertical>) -> Recommenders {
        known.retain(|_, vertical| vertical.is_sound());
        // A clock before 1970 makes what was known old, and harms nothing.
        let offset = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Recommenders { epoch: now, offset, next: now, services: known, looked: BTreeMap::new() }
    }

    /// What the next supervisor is to know.
    pub fn known(&self) -> &BTreeMap<String, Vertical> {
        &self.services
    }

    pub fn knows(&self, service: &str) -> bool {
        self.services.contains_key(service)
    }

    /// Forgets services that are no more.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.services.retain(|service, _| keep(service));
        self.looked.retain(|service, _| keep(service));
    }

    fn moment(&self, now: Instant) -> Duration {
        self.offset + now.saturating_duration_since(self.epoch)
    }

    /// Whether samples are due; from now on they are not for a minute.
    pub fn due(&mut self, now: Instant) -> bool {
        let due = now >= self.next;
        if due {
            self.next = now + EVERY;
        }
        due
    }

    /// Whether it is time to look at what the replicas of a service request: as soon as something is recommended, and then
    /// each time after `every`.
    pub fn look(&mut self, service: &str, now: Instant, every: Duration) -> bool {
        let last = self.looked.get(service);
        let due = last.is_none_or(|last| now.saturating_duration_since(*last) >= every);
        if due && self.knows(service) {
            self.looked.insert(service.to_owned(), now);
        }
        due && self.knows(service)
    }

    /// What one replica uses now, and how many cores it requests.
    pub fn sample(&mut self, service: &str, now: Instant, cores: f64, bytes: u64, request: f64) {
        let at = self.moment(now);
        let vertical = self.of(service);
        vertical.cpu(at, cores, request);
        vertical.memory(at, bytes as f64);
    }

    /// A replica that may have had so many bytes was killed for want of more.
    pub fn out_of_memory(&mut self, service: &str, now: Instant, had: u64) {
        let at = self.moment(now);
        self.of(service).out_of_memory(at, had as f64);
    }

    fn of(&mut self, service: &str) -> &mut Vertical {
        self.services.entry(service.to_owned()).or_default()
    }

    pub fn recommendation(&self, service: &str) -> Option<Recommendation> {
        let vertical = self.services.get(service)?;
        let Recommended { lower, target, upper } = vertical.recommend(1)?;
        let pair = |Amounts { cpu, memory }| (cpu, memory);
        Some(Recommendation {
            lower: pair(lower),
            target: pair(target),
            upper: pair(upper),
            confidence: vertical.confidence(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_a_minute_apart_and_make_a_recommendation() {
        let begin = Instant::now();
        let mut all = Recommenders::new(begin, BTreeMap::new());
        assert!(all.due(begin) && !all.due(begin + EVERY / 2) && all.due(begin + EVERY));
        assert_eq!(all.recommendation("web"), None);
        assert!(!all.look("web", begin, EVERY), "nothing is recommended yet");
        all.sample("web", begin, 0.5, 1 << 30, 0.25);
        let first = all.recommendation("web").expect("known");
        assert!(first.target.0 > 500 && first.target.1 > 1 << 30, "{first:?}");
        assert!(all.look("web", begin, EVERY) && !all.look("web", begin + EVERY / 2, EVERY));
        assert!(all.look("web", begin + EVERY, EVERY));
        assert!(first.upper.0 > first.target.0 && first.lower.0 <= first.target.0, "{first:?}");
        all.out_of_memory("web", begin + EVERY, 2 << 30);
        let after = all.recommendation("web").expect("known");
        assert!(after.target.1 > 2 << 30, "{after:?}");
        let next = Recommenders::new(begin, all.known().clone());
        assert_eq!(next.recommendation("web"), Some(after));
    }
}

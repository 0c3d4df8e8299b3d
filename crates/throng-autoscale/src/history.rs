//! What kube-controller-manager remembers of an autoscaler from one look to the next. Nothing of it outlives the
//! controller.

use crate::answer::Answer;
use crate::case::{Age, Case, Controller, Recommendation, ScaleEvent, ScaleEvents};
use crate::spec::{Rules, Spec};
use std::collections::VecDeque;

/// Recommendations and changes of one autoscaler. Moments are times since one that the caller chooses, and never fall.
#[derive(Debug)]
pub struct History {
    /// Before stabilisation.
    recommendations: VecDeque<(Age, i32)>,
    /// Replicas added or removed.
    ups: VecDeque<(Age, i32)>,
    downs: VecDeque<(Age, i32)>,
    /// How long recommendations and changes can count.
    window: Age,
    period: Age,
    has_behavior: bool,
}

impl History {
    pub fn new(spec: &Spec, controller: &Controller) -> History {
        let mut history = History {
            recommendations: VecDeque::new(),
            ups: VecDeque::new(),
            downs: VecDeque::new(),
            window: Age::default(),
            period: Age::default(),
            has_behavior: false,
        };
        history.follow(spec, controller);
        history
    }

    /// Goes on with another spec, whose windows count from now on.
    pub fn follow(&mut self, spec: &Spec, controller: &Controller) {
        let own = controller.downscale_stabilization;
        let seconds = |seconds: i32| Age::from_seconds(seconds.into());
        let longest = |rules: &Rules| rules.policies.iter().map(|policy| policy.period_seconds).max();
        (self.window, self.period) = match &spec.behavior {
            None => (own, Age::default()),
            Some(behavior) => {
                let (up, down) = (&behavior.scale_up, &behavior.scale_down);
                let window = down.window_seconds.map_or(own, seconds);
                // Either direction looks at what was added and at what was removed.
                let period = longest(up).max(longest(down));
                (
                    window.max(up.window_seconds.map_or(Age::default(), seconds)),
                    period.map_or(Age::default(), seconds),
                )
            }
        };
        self.has_behavior = spec.behavior.is_some();
    }

    /// Writes what is remembered into the case that is decided on at `now`.
    pub fn recall(&mut self, now: Age, case: &mut Case) {
        if self.recommendations.is_empty() {
            // A controller that meets a target for the first time notes what it finds.
            self.recommendations.push_back((now, case.current_replicas));
        }
        let events = |list: &VecDeque<(Age, i32)>| {
            list.iter().map(|&(at, change)| ScaleEvent { age: now - at, change }).collect()
        };
        let noted = self.recommendations.iter();
        case.recommendations =
            noted.map(|&(at, replicas)| Recommendation { age: now - at, replicas }).collect();
        case.scale_events = ScaleEvents { up: events(&self.ups), down: events(&self.downs) };
    }

    /// Remembers what was decided at `now`, when there were `current` replicas, and forgets what no later look could
    /// count.
    pub fn note(&mut self, now: Age, current: i32, answer: &Answer) {
        if let Some(recommended) = answer.unstabilized {
            self.recommend(now, recommended);
        }
        let change = answer.desired_replicas - current;
        // Without behavior there are no policies to remember changes for, and the controller does not.
        if change != 0 && self.has_behavior {
            let side = if change > 0 { &mut self.ups } else { &mut self.downs };
            side.push_back((now, change.abs()));
        }
        // The newest recommendation stays: none at all would mean a fresh controller.
        while self.recommendations.len() > 1 && self.recommendations[0].0 < now - self.window {
            self.recommendations.pop_front();
        }
        for list in [&mut self.ups, &mut self.downs] {
            while list.front().is_some_and(|(at, _)| *at < now - self.period) {
                list.pop_front();
            }
        }
    }

    /// Notes a recommendation that was not made by metrics.
    pub fn recommend(&mut self, now: Age, replicas: i32) {
        self.recommendations.push_back((now, replicas));
    }
}

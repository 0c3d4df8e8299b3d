//! What kube-controller-manager remembers of an autoscaler between two looks.

use crate::case::{Age, Case, Controller, Recommendation, ScaleEvent, ScaleEvents};
use crate::quantity::Quantity;
use crate::spec::{Rules, Spec};
use crate::{Answer, Pod, decide};
use std::collections::{BTreeMap, VecDeque};

/// A case that is looked at again and again.
#[derive(Debug)]
pub struct Autoscaler {
    pub case: Case,
    /// Moments in seconds, and recommendations before stabilisation.
    recommendations: VecDeque<(i64, i32)>,
    /// Moments in seconds, and replicas added or removed.
    ups: VecDeque<(i64, i32)>,
    downs: VecDeque<(i64, i32)>,
    window: i64,
    periods: (i64, i64),
}

impl Autoscaler {
    pub fn new(spec: &Spec, controller: &Controller, replicas: i32) -> Autoscaler {
        let own = i64::from(controller.downscale_stabilization.whole_seconds());
        let window = match &spec.behavior {
            None => own,
            Some(behavior) => {
                let down = behavior.scale_down.window_seconds.map_or(own, i64::from);
                down.max(behavior.scale_up.window_seconds.map_or(0, i64::from))
            }
        };
        let longest =
            |rules: &Rules| rules.policies.iter().map(|policy| i64::from(policy.period_seconds)).max();
        let periods = spec.behavior.as_ref().map(|behavior| {
            (longest(&behavior.scale_up).unwrap_or(0), longest(&behavior.scale_down).unwrap_or(0))
        });
        Autoscaler {
            case: Case {
                id: String::new(),
                spec: spec.clone(),
                controller: *controller,
                current_replicas: replicas,
                status_replicas: replicas,
                recommendations: Vec::new(),
                scale_events: ScaleEvents::default(),
                pods: Vec::new(),
                objects: BTreeMap::new(),
                external: BTreeMap::new(),
            },
            recommendations: VecDeque::new(),
            ups: VecDeque::new(),
            downs: VecDeque::new(),
            window,
            periods: periods.unwrap_or_default(),
        }
    }

    /// Looks at the target as it is at `now`, decides, and remembers. `totals` are values of metrics of the target as a
    /// whole, by their names.
    pub fn look(
        &mut self,
        now: i64,
        pods: Vec<Pod>,
        totals: &[(String, Quantity)],
        watch: &mut dyn FnMut(&Case, &Answer),
    ) -> Answer {
        let current = self.case.current_replicas;
        if self.recommendations.is_empty() {
            // A controller that meets a target for the first time notes what it finds.
            self.recommendations.push_back((now, current));
        }
        let age = |at: i64| Age::from_seconds(now - at);
        let events = |list: &VecDeque<(i64, i32)>| {
            list.iter().map(|&(at, change)| ScaleEvent { age: age(at), change }).collect()
        };
        let noted = self.recommendations.iter();
        self.case.recommendations =
            noted.map(|&(at, replicas)| Recommendation { age: age(at), replicas }).collect();
        self.case.scale_events = ScaleEvents { up: events(&self.ups), down: events(&self.downs) };
        self.case.pods = pods;
        for (name, value) in totals {
            self.case.objects.insert(name.clone(), *value);
            self.case.external.insert(name.clone(), vec![*value]);
        }
        let answer = decide(&self.case);
        watch(&self.case, &answer);
        if let Some(recommended) = answer.unstabilized {
            self.recommendations.push_back((now, recommended));
        }
        let change = answer.desired_replicas - current;
        // Without behavior there are no policies to remember changes for, and the controller does not.
        if change != 0 && self.case.spec.behavior.is_some() {
            let side = if change > 0 { &mut self.ups } else { &mut self.downs };
            side.push_back((now, change.abs()));
        }
        self.forget(now);
        self.case.current_replicas = answer.desired_replicas;
        self.case.status_replicas = answer.desired_replicas;
        answer
    }

    /// Drops what no later look could count. The newest recommendation stays: none at all would mean a fresh controller.
    fn forget(&mut self, now: i64) {
        while self.recommendations.len() > 1 && self.recommendations[0].0 < now - self.window {
            self.recommendations.pop_front();
        }
        for (list, period) in [(&mut self.ups, self.periods.0), (&mut self.downs, self.periods.1)] {
            while list.front().is_some_and(|(at, _)| *at < now - period) {
                list.pop_front();
            }
        }
    }
}

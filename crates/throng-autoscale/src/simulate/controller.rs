//! A case that is looked at again and again.

use crate::case::{Age, Case, Controller, ScaleEvents};
use crate::history::History;
use crate::quantity::Quantity;
use crate::spec::Spec;
use crate::{Answer, Pod, decide};
use std::collections::BTreeMap;

/// A controller's view of one target.
#[derive(Debug)]
pub struct Autoscaler {
    pub case: Case,
    history: History,
}

impl Autoscaler {
    pub fn new(spec: &Spec, controller: &Controller, replicas: i32) -> Autoscaler {
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
            history: History::new(spec, controller),
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
        let (now, current) = (Age::from_seconds(now), self.case.current_replicas);
        self.history.recall(now, &mut self.case);
        self.case.pods = pods;
        for (name, value) in totals {
            self.case.objects.insert(name.clone(), *value);
            self.case.external.insert(name.clone(), vec![*value]);
        }
        let answer = decide(&self.case);
        watch(&self.case, &answer);
        self.history.note(now, current, &answer);
        self.case.current_replicas = answer.desired_replicas;
        self.case.status_replicas = answer.desired_replicas;
        answer
    }
}

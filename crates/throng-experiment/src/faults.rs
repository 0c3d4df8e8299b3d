//! Faults as they befall the app, when they began and when they were over.

use crate::file::Fault;
use crate::recorder::Recorder;
use std::time::{Duration, SystemTime};
use throng_model::app::App;
use throng_model::node::NodeChange;
use throng_model::run::FaultSpan;
use throng_runtime::cluster::{Cluster, ClusterError};
use tokio_util::sync::CancellationToken;

/// All that was done to the app in a run, in its order.
#[derive(Debug, Default)]
pub struct Faults(Vec<Befallen>);

#[derive(Debug)]
pub struct Befallen {
    pub fault: Fault,
    pub span: FaultSpan,
}

impl Befallen {
    /// When the time for recovering from it began.
    pub fn over(&self) -> f64 {
        self.span.end.unwrap_or(self.span.begin)
    }
}

impl Faults {
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Those after the first so many.
    pub fn since(&self, first: usize) -> &[Befallen] {
        self.0.get(first..).unwrap_or_default()
    }

    /// Has a fault begin or end. The cluster tells it as events, too.
    pub async fn befall(
        &mut self,
        cluster: &dyn Cluster,
        recorder: &Recorder,
        app: &App,
        fault: &Fault,
    ) -> Result<(), ClusterError> {
        let begin = recorder.seconds(SystemTime::now());
        match fault {
            Fault::Nodes { choice, change, lasts } => cluster.change_nodes(choice, change, *lasts).await?,
            Fault::Replicas { victims, fault: what, lasts } => {
                let befallen = cluster.befall(victims, what, *lasts).await?;
                if befallen.is_empty() {
                    recorder.event("warning", &victims.service, format!("{fault}: it befell no replica"));
                }
            }
        }
        let now = recorder.seconds(SystemTime::now());
        self.note(fault.clone(), begin, now, app);
        Ok(())
    }

    /// `now`: it has befallen the app, or those before are over by it.
    fn note(&mut self, fault: Fault, begin: f64, now: f64, app: &App) {
        // Links that are healed are so of all that was done to them before.
        let (ending, at) = match (&fault, fault.lasts()) {
            (Fault::Nodes { choice, .. }, Some(lasts)) => {
                let heal = Fault::Nodes { choice: choice.clone(), change: NodeChange::Heal, lasts: None };
                (heal, now + lasts.as_secs_f64())
            }
            _ => (fault.clone(), now),
        };
        for earlier in self.0.iter_mut().filter(|earlier| earlier.span.end.is_none_or(|end| end > at)) {
            if earlier.fault.is_ended_by(&ending, app) {
                earlier.span.end = Some(at);
            }
        }
        let end = match (&fault, fault.lasts()) {
            (_, Some(lasts)) => Some(now + lasts.as_secs_f64()),
            (Fault::Replicas { fault: what, .. }, None) => what.end().is_none().then_some(now),
            (Fault::Nodes { .. }, None) => (!fault.harms()).then_some(now),
        };
        self.0.push(Befallen { span: FaultSpan { what: fault.to_string(), begin, end }, fault });
    }

    /// Has each of them befall the app at its time from now on, until `over`: then what is under way is still carried
    /// out, or it would befall the app without anybody knowing.
    pub async fn at_their_times(
        &mut self,
        cluster: &dyn Cluster,
        recorder: &Recorder,
        app: &App,
        faults: &[(Duration, Fault)],
        over: &CancellationToken,
    ) -> Result<(), ClusterError> {
        let begin = tokio::time::Instant::now();
        for (at, fault) in faults {
            let due = tokio::time::sleep_until(begin + *at);
            if over.run_until_cancelled(due).await.is_none() {
                break;
            }
            self.befall(cluster, recorder, app, fault).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng_model::fault::{ReplicaFault, Victims};
    use throng_model::node::{Node, NodeChoice};

    fn on(service: &str, fault: ReplicaFault, lasts: Option<u64>) -> Fault {
        let lasts = lasts.map(Duration::from_secs);
        Fault::Replicas { victims: Victims::all_of(service), fault, lasts }
    }

    #[test]
    fn a_fault_is_over_by_itself_by_its_end_or_not_at_all() {
        let mut app = App::default();
        app.nodes.insert("far".into(), Node { region: Some("shed".into()), ..Node::default() });
        app.nodes.insert("near".into(), Node::default());
        let region = NodeChoice { regions: vec!["shed".into()], ..NodeChoice::default() };
        let cut = |choice| Fault::Nodes { choice, change: NodeChange::cut(), lasts: None };
        let heal = |name: &str| Fault::Nodes {
            choice: NodeChoice::one(name),
            change: NodeChange::Heal,
            lasts: None,
        };
        let mut faults = Faults::default();
        for (at, fault) in [
            (1.0, on("web", ReplicaFault::KILL, None)),
            (2.0, on("web", ReplicaFault::Pause, Some(20))),
            (3.0, cut(region)),
            (4.0, cut(NodeChoice::one("near"))),
            (5.0, on("db", ReplicaFault::Unpause, None)),
            (6.0, heal("far")),
            (7.0, on("web", ReplicaFault::Unpause, None)),
        ] {
            faults.note(fault, at, at + 0.5, &app);
        }
        let spans: Vec<(f64, Option<f64>)> =
            faults.since(0).iter().map(|one| (one.span.begin, one.span.end)).collect();
        assert_eq!(
            spans,
            [
                (1.0, Some(1.5)),
                (2.0, Some(7.5)),
                (3.0, Some(6.5)),
                (4.0, None),
                (5.0, Some(5.5)),
                (6.0, Some(6.5)),
                (7.0, Some(7.5)),
            ]
        );
        let brief = Fault::Nodes {
            choice: NodeChoice::one("near"),
            change: NodeChange::cut(),
            lasts: Some(Duration::from_secs(2)),
        };
        assert_eq!(faults.since(3)[0].over(), 4.0);
        faults.note(brief, 8.0, 8.5, &app);
        assert_eq!(faults.since(3)[0].over(), 10.5, "its link is healed with that of the next fault");
        faults.0.pop();
        assert_eq!((faults.count(), faults.since(7).len(), faults.since(9).len()), (7, 0, 0));
        assert_eq!(faults.since(1)[0].span.what, "pause web for 20s");
    }
}

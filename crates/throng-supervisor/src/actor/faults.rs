//! What is done to replicas on purpose: whom it befalls, and what of it is remembered. Carrying it out is in
//! [`crate::server`].

use super::*;
use throng_model::fault::{ReplicaFault, Victims};
use throng_model::units::format_bytes;
use throng_proxy::Proxy;

/// A replica that something befalls, with what it takes to carry that out.
pub struct Victim {
    pub id: ReplicaId,
    /// What people call it.
    pub name: String,
    pub generation: u64,
    /// How it is asked to leave.
    pub signal: i32,
    pub grace: Duration,
    /// Who gives it work.
    pub proxies: Vec<Arc<Proxy>>,
}

impl Actor {
    /// Chooses whom something befalls. Who is stopped is given no work from now on, and who is to start is started.
    pub(super) fn befall(&mut self, victims: &Victims, fault: &ReplicaFault) -> Result<Vec<Victim>, Refusal> {
        let service = self.service_called(&victims.service).unwrap_or(&victims.service).to_owned();
        if !self.durable.app.services.contains_key(&service) && !self.world.contains_key(&service) {
            return Err(self.no_service(&service));
        }
        let fits = self.replicas(&service).filter(|(_, view, detail)| can_befall(fault, view, detail));
        let chosen = victims.choose(fits.map(|(ordinal, ..)| ordinal).collect());
        match fault {
            ReplicaFault::Stop { .. } => self.hold(&service, &chosen)?,
            ReplicaFault::Start => self.release(&service, &chosen)?,
            ReplicaFault::Kill { signal: 9 } => self.say(&service, &chosen, "fault", "killed"),
            ReplicaFault::Kill { signal } => {
                self.say(&service, &chosen, "fault", &format!("is sent signal {signal}"));
            }
            _ => {}
        }
        let grace = match fault {
            ReplicaFault::Stop { grace } => *grace,
            _ => None,
        };
        let proxies: Vec<Arc<Proxy>> =
            self.fronts.get(&service).into_iter().flatten().map(|front| front.proxy.clone()).collect();
        let victim = |ordinal| {
            let key = (service.clone(), ordinal);
            let detail = self.detail(&key)?;
            let (signal, own) = detail.stop.unwrap_or((begin::STOP_SIGNAL, begin::STOP_GRACE));
            let (id, generation, proxies) = (self.id(&key), detail.generation, proxies.clone());
            let name = self.called(&service).cloned().unwrap_or_else(|| id.name());
            Some(Victim { id, name, generation, signal, grace: grace.unwrap_or(own), proxies })
        };
        Ok(chosen.into_iter().filter_map(victim).collect())
    }

    fn say(&mut self, service: &str, ordinals: &[u32], kind: &str, message: &str) {
        for ordinal in ordinals {
            self.event(kind, &replica_name(&(service.to_owned(), *ordinal)), message);
        }
    }

    /// Keeps replicas down from now on, also under later supervisors. Nobody gives them work when this returns.
    fn hold(&mut self, service: &str, ordinals: &[u32]) -> Result<(), Refusal> {
        let mut durable = self.durable.clone();
        durable.stopped.entry(service.to_owned()).or_default().extend(ordinals);
        self.save(&durable)?;
        self.durable = durable;
        for (ordinal, view) in self.world.get_mut(service).into_iter().flatten() {
            view.stopped |= ordinals.contains(ordinal);
        }
        self.say(service, ordinals, "fault", "stopped");
        self.tell(service);
        Ok(())
    }

    fn release(&mut self, service: &str, ordinals: &[u32]) -> Result<(), Refusal> {
        let mut durable = self.durable.clone();
        if let Some(stopped) = durable.stopped.get_mut(service) {
            stopped.retain(|ordinal| !ordinals.contains(ordinal));
        }
        durable.stopped.retain(|_, stopped| !stopped.is_empty());
        self.save(&durable)?;
        self.durable = durable;
        for ordinal in ordinals {
            self.start_again(&(service.to_owned(), *ordinal));
        }
        self.say(service, ordinals, "replica", "is started again");
        Ok(())
    }

    /// One that was stopped starts whatever its restart rule says, and as if it had not run before.
    fn start_again(&mut self, key: &Key) {
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) else { return };
        view.stopped = false;
        match view.phase {
            Phase::Exited { .. } | Phase::Failed { .. } => view.phase = Phase::Created,
            // It has not ended yet.
            Phase::Running { .. } => detail.start_again = true,
            Phase::Created => {}
        }
    }

    /// Starts those that were stopped and are not to be so any more: their services have been brought up again.
    pub(super) fn start_stopped(&mut self) {
        let stays = |service: &String, ordinal| {
            self.durable.stopped.get(service).is_some_and(|stopped| stopped.contains(ordinal))
        };
        let mut starting = Vec::new();
        for (service, views) in &self.world {
            let stopped = views.iter().filter(|(ordinal, view)| view.stopped && !stays(service, ordinal));
            starting.extend(stopped.map(|(ordinal, _)| (service.clone(), *ordinal)));
        }
        starting.iter().for_each(|key| self.start_again(key));
    }

    /// Forgets that a replica was stopped which is not there any more: the next one of its number is another.
    pub(super) fn forget_stopped(&mut self, key: &Key) {
        let stopped = self.durable.stopped.get_mut(&key.0);
        if stopped.is_some_and(|stopped| stopped.remove(&key.1))
            && let Err(refusal) = self.save(&self.durable.clone())
        {
            tracing::warn!("{refusal}");
        }
    }

    /// Takes in what has befallen these replicas.
    pub(super) fn befallen(&mut self, fault: &ReplicaFault, done: Vec<(ReplicaId, u64, u64)>) {
        for (id, generation, bytes) in done {
            let key = (id.service, id.ordinal);
            let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else {
                continue;
            };
            // It has ended meanwhile, and what held it with it.
            if detail.generation != generation || !view.runs() {
                continue;
            }
            let (kind, message) = match fault {
                ReplicaFault::Pause => {
                    detail.paused = true;
                    ("fault", "paused".to_owned())
                }
                ReplicaFault::Unpause => {
                    detail.paused = false;
                    ("replica", "goes on".to_owned())
                }
                ReplicaFault::Fill { bytes: asked } => {
                    let again = detail.filled.replace(*asked).is_some();
                    let taken = format_bytes(bytes);
                    let message = match again {
                        true => format!("{taken} of its disk are taken again"),
                        false => format!("{taken} of its disk are taken"),
                    };
                    ("fault", message)
                }
                ReplicaFault::Empty => {
                    detail.filled = None;
                    ("replica", "its disk is given back".to_owned())
                }
                _ => continue,
            };
            self.event(kind, &replica_name(&key), &message);
        }
    }

    /// What held a replica that has ended is gone: a pause for good; what fills its disk comes again with its next life.
    pub(super) fn let_go(detail: &mut Detail, view: &mut ReplicaView) {
        detail.paused = false;
        if std::mem::take(&mut detail.start_again) {
            view.phase = Phase::Created;
        }
    }

    /// A replica whose disk is full starts with a full disk.
    pub(super) fn fill_again(&mut self, key: &Key) {
        let Some(detail) = self.detail(key) else { return };
        let Some(bytes) = detail.filled else { return };
        let (runtime, id, generation) = (self.fixed.runtime.clone(), self.id(key), detail.generation);
        let name = replica_name(key);
        tokio::spawn(async move {
            if let Err(error) = runtime.fill(&id, generation, bytes).await {
                tracing::warn!("the disk of {name} was to be filled again: {error}");
            }
        });
    }
}

fn can_befall(fault: &ReplicaFault, view: &ReplicaView, detail: &Detail) -> bool {
    if view.leaving {
        return false;
    }
    match fault {
        ReplicaFault::Kill { .. } | ReplicaFault::Fill { .. } => view.runs(),
        ReplicaFault::Pause => view.runs() && !detail.paused,
        ReplicaFault::Unpause => detail.paused,
        // One that is being started ends as soon as it runs, or not at all.
        ReplicaFault::Stop { .. } => !view.stopped && (view.runs() || !view.busy),
        ReplicaFault::Start => view.stopped,
        ReplicaFault::Empty => detail.filled.is_some(),
    }
}

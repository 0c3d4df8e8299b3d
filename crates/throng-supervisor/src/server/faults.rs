//! Faults as somebody asks for them: carried out by the runtime, ended when their time is over.

use crate::actor::{Fixed, Handles, Order, Victim};
use crate::protocol::Refusal;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_model::fault::{Portion, ReplicaFault, Victims};
use throng_model::node::{NodeChange, NodeChoice};
use throng_runtime::{ErrorKind, RuntimeError};
use tokio::task::JoinSet;

/// Replicas that something befalls at the same time; more wait for their turn.
const AT_ONCE: usize = 64;

/// Has something befall replicas and returns their names when it has. What lasts ends by itself after `lasts`.
pub async fn befall(
    fixed: &Arc<Fixed>,
    handles: &Handles,
    victims: Victims,
    fault: ReplicaFault,
    lasts: Option<Duration>,
) -> Result<Vec<String>, Refusal> {
    let (befallen, failed) = carry_out(fixed, handles, &victims, &fault).await?;
    // Whatever became of the others: it has befallen some.
    if let (Some(lasts), Some(end), false) = (lasts, fault.end(), befallen.is_empty()) {
        let among = befallen.iter().map(|(ordinal, _)| *ordinal).collect();
        let (fixed, handles) = (fixed.clone(), handles.clone());
        let same = Victims { portion: Portion::ALL, seed: None, among, ..victims };
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            let refusal = match carry_out(&fixed, &handles, &same, &end).await {
                Ok((_, failed)) => failed,
                Err(refusal) => Some(refusal),
            };
            if let Some(refusal) = refusal {
                tell(&handles, &same.service, format!("{}: {refusal}", end.of(&same))).await;
            }
        });
    }
    match failed {
        Some(refusal) => Err(refusal),
        None => Ok(befallen.into_iter().map(|(_, name)| name).collect()),
    }
}

/// Changes nodes, and heals their links after `lasts`.
pub async fn change_nodes(
    fixed: &Arc<Fixed>,
    handles: &Handles,
    choice: NodeChoice,
    change: NodeChange,
    lasts: Option<Duration>,
) -> Result<(), Refusal> {
    change_now(fixed, handles, choice.clone(), change.clone()).await?;
    if let (Some(lasts), NodeChange::Link(_)) = (lasts, change) {
        let (fixed, handles) = (fixed.clone(), handles.clone());
        tokio::spawn(async move {
            tokio::time::sleep(lasts).await;
            if let Err(refusal) = change_now(&fixed, &handles, choice.clone(), NodeChange::Heal).await {
                tell(&handles, "nodes", format!("heal {choice}: {refusal}")).await;
            }
        });
    }
    Ok(())
}

async fn change_now(
    fixed: &Arc<Fixed>,
    handles: &Handles,
    choice: NodeChoice,
    change: NodeChange,
) -> Result<(), Refusal> {
    let _order = fixed.nodes.lock().await;
    let nodes = handles.ask(|reply| Order::ChangeNodes { choice, change, reply }).await??;
    for (name, node) in nodes {
        fixed.runtime.set_node(&fixed.project, &name, &node).await?;
    }
    Ok(())
}

/// Nobody waits for it any more who could be told otherwise.
async fn tell(handles: &Handles, subject: &str, message: String) {
    let said = Order::Say { kind: "warning", subject: subject.to_owned(), message };
    // The app may have been taken down.
    let _ = handles.orders.send(said).await;
}

/// Ordinals and names of those that were chosen, and why it has not befallen all of them, if it has not.
type Befallen = (Vec<(u32, String)>, Option<Refusal>);

/// An error says that it has befallen nobody.
async fn carry_out(
    fixed: &Arc<Fixed>,
    handles: &Handles,
    victims: &Victims,
    fault: &ReplicaFault,
) -> Result<Befallen, Refusal> {
    let chosen = handles
        .ask(|reply| Order::Befall { victims: victims.clone(), fault: fault.clone(), reply })
        .await??;
    let names = chosen.iter().map(|victim| (victim.id.ordinal, victim.name.clone())).collect();
    let (done, failed) = match fault {
        // The actor's own.
        ReplicaFault::Start => return Ok((names, None)),
        ReplicaFault::Fill { bytes } => fill_all(fixed, chosen, *bytes).await,
        _ => all_at_once(fixed, chosen, fault).await,
    };
    let done = Order::Befallen { fault: fault.clone(), done };
    handles.orders.send(done).await.map_err(|_| crate::actor::taken_down())?;
    Ok((names, failed.map(Refusal::from)))
}

/// Who it has befallen with the generation that it was, and bytes; and the first failure.
type Carried = (Vec<(throng_model::replica::ReplicaId, u64, u64)>, Option<RuntimeError>);

async fn all_at_once(fixed: &Arc<Fixed>, victims: Vec<Victim>, fault: &ReplicaFault) -> Carried {
    let (mut done, mut failed) = (Vec::new(), None);
    let mut waiting = victims.into_iter();
    let mut tasks = JoinSet::new();
    loop {
        while tasks.len() < AT_ONCE
            && let Some(victim) = waiting.next()
        {
            let (fixed, fault) = (fixed.clone(), fault.clone());
            tasks.spawn(async move {
                let result = one(&fixed, &victim, &fault).await;
                (victim, result)
            });
        }
        match tasks.join_next().await {
            None => return (done, failed),
            // A panic has been reported by its own message.
            Some(Err(_)) => {}
            Some(Ok((victim, result))) => match result {
                Ok(()) => done.push((victim.id, victim.generation, 0)),
                // It has ended meanwhile, which is no worse.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => failed = failed.or(Some(error)),
            },
        }
    }
}

async fn one(fixed: &Fixed, victim: &Victim, fault: &ReplicaFault) -> Result<(), RuntimeError> {
    let (runtime, id, generation) = (&fixed.runtime, &victim.id, victim.generation);
    match fault {
        ReplicaFault::Kill { signal: 9 } => runtime.stop(id, generation, 9, Duration::ZERO).await.map(drop),
        ReplicaFault::Kill { signal } => runtime.signal(id, generation, *signal).await,
        ReplicaFault::Stop { .. } => {
            let begin = Instant::now();
            let left = || victim.grace.saturating_sub(begin.elapsed());
            for proxy in &victim.proxies {
                // Whatever is left of its requests then is cut off with it.
                let _ = proxy.drained(&id.name(), left()).await;
            }
            runtime.stop(id, generation, victim.signal, left()).await.map(drop)
        }
        ReplicaFault::Pause => runtime.pause(id, generation).await,
        ReplicaFault::Unpause => runtime.unpause(id, generation).await,
        ReplicaFault::Empty => runtime.give_back(id, generation).await,
        ReplicaFault::Start | ReplicaFault::Fill { .. } => Ok(()),
    }
}

/// One after another, so that each sees what the ones before have left of the host's disk; all or none.
async fn fill_all(fixed: &Fixed, victims: Vec<Victim>, bytes: Option<u64>) -> Carried {
    let mut done = Vec::new();
    for victim in victims {
        match fixed.runtime.fill(&victim.id, victim.generation, bytes).await {
            Ok(taken) => done.push((victim.id, victim.generation, taken)),
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => {
                for (id, generation, _) in &done {
                    // Best effort: it is given back with the replica or this process at the latest.
                    let _ = fixed.runtime.give_back(id, *generation).await;
                }
                return (Vec::new(), Some(error));
            }
        }
    }
    (done, None)
}

//! One connection: a request is read, carried out, answered.

use super::faults;
use crate::actor::{Fixed, Handles, Order, taken_down};
use crate::apply::apply;
use crate::protocol::{Exec, MESSAGE_MOST, Refusal, RefusalKind, Reply, Request};
use crate::{last_words, silent, walls};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use throng_model::status::{Event, Readiness};
use throng_model::update::UpdateState;
use throng_runtime::{ExecIo, ExecSpec};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::{broadcast, oneshot};

/// How long who asks for walls waits for a look at the host, which may take the time of [`silent`] for what must last.
const LOOKED_WITHIN: Duration = Duration::from_secs(5);

const PAUSED: &str =
    "see `throng events` and `throng logs`; `throng up` goes on with it, corrected or as it is";

struct Connection {
    stream: BufReader<UnixStream>,
    fixed: Arc<Fixed>,
    handles: Handles,
}

pub async fn serve(stream: UnixStream, fixed: Arc<Fixed>, handles: Handles) -> std::io::Result<()> {
    let peer = stream.peer_cred()?.uid();
    if peer != rustix::process::geteuid().as_raw() && peer != 0 && peer != rustix::process::getuid().as_raw()
    {
        return Ok(());
    }
    let mut connection = Connection { stream: BufReader::new(stream), fixed, handles };
    let request = match connection.read().await? {
        Some(Ok(request)) => request,
        Some(Err(error)) => {
            let message = format!("not a request: {error}");
            return connection.refuse(Refusal::new(RefusalKind::Invalid, message)).await;
        }
        None => return Ok(()),
    };
    connection.serve(request).await
}

impl Connection {
    async fn read(&mut self) -> std::io::Result<Option<Result<Request, serde_json::Error>>> {
        let mut line = String::new();
        let read = (&mut self.stream).take(MESSAGE_MOST as u64).read_line(&mut line).await?;
        Ok((read > 0).then(|| serde_json::from_str(&line)))
    }

    async fn send(&mut self, reply: &Reply) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).await
    }

    async fn refuse(&mut self, error: Refusal) -> std::io::Result<()> {
        self.send(&Reply::Error { error: walls::named(error) }).await
    }

    /// Refuses with what the replica that is to blame wrote last.
    async fn refuse_quoting(
        &mut self,
        error: Refusal,
        services: &BTreeMap<String, Readiness>,
    ) -> std::io::Result<()> {
        let log = last_words::of(&self.fixed, &self.handles, services).await;
        let replicas = services.values().map(|readiness| u64::from(readiness.wanted)).sum();
        let hint = error.hint.or_else(|| walls::met_inside(&log, replicas));
        self.refuse(Refusal { log, hint, ..error }).await
    }

    async fn answer(&mut self, result: Result<Reply, Refusal>) -> std::io::Result<()> {
        match result {
            Ok(reply) => self.send(&reply).await,
            Err(refusal) => self.refuse(refusal).await,
        }
    }

    /// Gives the actor an order and waits for its answer.
    async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Refusal> {
        self.handles.ask(order).await
    }

    async fn serve(&mut self, request: Request) -> std::io::Result<()> {
        match request {
            Request::Apply { app, only, manner } => {
                let result = apply(&self.fixed, &self.handles, *app, &only, manner).await;
                self.answer(result.map(|()| Reply::Done)).await
            }
            Request::Scale { replicas } => {
                let result = self.ask(|reply| Order::Scale { replicas, reply }).await;
                self.answer(result.and_then(|inner| inner).map(|()| Reply::Done)).await
            }
            Request::Wait { services, timeout, update } => self.wait(services, timeout, update).await,
            Request::Status => {
                let result = self.ask(|reply| Order::Status { reply }).await;
                self.answer(result.map(|status| Reply::Status { status: Box::new(status) })).await
            }
            Request::Endpoint { service, port } => {
                let result = self.ask(|reply| Order::Endpoint { service, port, reply }).await;
                self.answer(result.and_then(|inner| inner).map(|address| Reply::Endpoint { address })).await
            }
            Request::LogFiles { services } => {
                let result = self.log_files(services).await;
                self.answer(result).await
            }
            Request::Metrics { replicas_most } => {
                let result = self.ask(|reply| Order::Metrics { replicas_most, reply }).await;
                self.answer(result.map(|text| Reply::Metrics { text })).await
            }
            Request::Targets { service } => {
                let result = self.ask(|reply| Order::Targets { service, reply }).await;
                self.answer(result.and_then(|inner| inner).map(|targets| Reply::Targets { targets })).await
            }
            Request::Describe { service } => {
                let result =
                    self.ask(|reply| Order::Describe { service, reply }).await.and_then(|inner| inner);
                let described = |description| Reply::Description { description: Box::new(description) };
                self.answer(result.map(described)).await
            }
            Request::Exec { exec } => self.exec(exec).await,
            Request::Events { follow } => self.events(follow, |_| true).await,
            Request::Walls { since, follow } => self.walls(since, follow).await,
            Request::Watch => self.watch().await,
            Request::Down { volumes, grace } => self.down(volumes, grace).await,
            Request::Lease { volumes } => self.lease(volumes).await,
            Request::Release => self.send(&Reply::Done).await,
            Request::Nodes => {
                let result = self.nodes().await;
                self.answer(result).await
            }
            Request::ChangeNodes { choice, change, lasts } => {
                let result = faults::change_nodes(&self.fixed, &self.handles, choice, change, lasts).await;
                self.answer(result.map(|()| Reply::Done)).await
            }
            Request::Befall { victims, fault, lasts } => {
                let result = faults::befall(&self.fixed, &self.handles, victims, fault, lasts).await;
                self.answer(result.map(|replicas| Reply::Befallen { replicas })).await
            }
        }
    }

    /// `update`: one that was taken back before this began counts, too.
    async fn wait(
        &mut self,
        services: Vec<String>,
        timeout: Duration,
        mut update: bool,
    ) -> std::io::Result<()> {
        let mut readiness = self.handles.readiness.clone();
        let deadline = tokio::time::Instant::now() + timeout.min(throng_model::units::LONGEST);
        loop {
            let now = readiness.borrow_and_update().clone();
            let chosen: BTreeMap<_, _> = now
                .iter()
                .filter(|(name, _)| services.is_empty() || services.contains(name))
                .map(|(name, readiness)| (name.clone(), readiness.clone()))
                .collect();
            self.send(&Reply::Readiness { services: chosen.clone() }).await?;
            // First, because nothing is wanted of an app that is being taken down.
            if let Some((name, refusal)) = given_up(&chosen, update) {
                let alone = BTreeMap::from([(name.clone(), chosen[&name].clone())]);
                return self.refuse_quoting(refusal, &alone).await;
            }
            let under_way = |readiness: &Readiness| {
                readiness.update.as_ref().is_some_and(|update| update.state != UpdateState::RolledBack)
            };
            update |= chosen.values().any(under_way);
            if !chosen.is_empty() && chosen.values().all(|readiness| readiness.settled()) {
                return self.send(&Reply::Done).await;
            }
            match tokio::time::timeout_at(deadline, readiness.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return self.refuse(taken_down()).await,
                Err(_) => return self.refuse_quoting(not_in_time(&chosen, timeout), &chosen).await,
            }
        }
    }

    async fn nodes(&mut self) -> Result<Reply, Refusal> {
        let mut nodes = self.ask(|reply| Order::Nodes { reply }).await?;
        let mut traffic = self.fixed.runtime.link_traffic(&self.fixed.project).await;
        nodes.iter_mut().for_each(|node| node.traffic = traffic.remove(&node.name));
        Ok(Reply::Nodes { nodes })
    }

    async fn log_files(&mut self, services: Vec<String>) -> Result<Reply, Refusal> {
        let ids = self.ask(|reply| Order::List { services, reply }).await??;
        let mut files = Vec::new();
        for (id, name) in ids {
            // A replica that has left between the two questions has no log any more.
            if let Ok(paths) = self.fixed.runtime.log_files(&id).await {
                files.push((name, paths));
            }
        }
        Ok(Reply::LogFiles { files })
    }

    async fn exec(&mut self, exec: Exec) -> std::io::Result<()> {
        let Exec { service, ordinal, args, env, cwd, user } = exec;
        let picked = self.ask(|reply| Order::Pick { service, ordinal, reply }).await;
        let id = match picked.and_then(|inner| inner) {
            Ok(id) => id,
            Err(refusal) => return self.refuse(refusal).await,
        };
        self.send(&Reply::SendDescriptors).await?;
        let io = receive_descriptors(self.stream.get_mut()).await?;
        let spec = ExecSpec { args, env, cwd, user, timeout: None };
        let result = tokio::select! {
            result = self.fixed.runtime.exec(&id, &spec, io) => result,
            // The command goes with whoever asked for it; nothing more is ever sent on this connection.
            _ = self.stream.read_u8() => return Ok(()),
        };
        let result = result.map(|exit| Reply::Exited { exit }).map_err(Refusal::from);
        self.answer(result).await
    }

    /// What the host has in the way of the app. It is looked at anew, so that what has just happened is told as well.
    async fn walls(&mut self, since: SystemTime, follow: bool) -> std::io::Result<()> {
        let (reply, looked) = oneshot::channel();
        // One that cannot look, or looks too long, tells later.
        if self.handles.looks.try_send(reply).is_ok() {
            let _ = tokio::time::timeout(LOOKED_WITHIN, looked).await;
        }
        self.events(follow, |event| {
            event.at >= since && event.kind == "warning" && event.subject == silent::SUBJECT
        })
        .await
    }

    /// Past events, and new ones if they are followed, as far as they are `wanted`.
    async fn events(&mut self, follow: bool, wanted: impl Fn(&Event) -> bool) -> std::io::Result<()> {
        let mut feed = self.handles.feed.subscribe();
        match self.ask(|reply| Order::Events { reply }).await {
            Ok(events) => {
                for event in events.into_iter().filter(&wanted) {
                    self.send(&Reply::Event { event }).await?;
                }
            }
            Err(refusal) => return self.refuse(refusal).await,
        }
        if !follow {
            return self.send(&Reply::Done).await;
        }
        let mut gone = self.handles.gone.clone();
        loop {
            let reply = tokio::select! {
                reply = feed.recv() => reply,
                _ = gone.changed() => return self.send(&Reply::Done).await,
            };
            match reply {
                Ok(reply) if matches!(&*reply, Reply::Event { event } if wanted(event)) => {
                    self.send(&reply).await?;
                }
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return self.send(&Reply::Done).await,
            }
        }
    }

    async fn watch(&mut self) -> std::io::Result<()> {
        let mut feed = self.handles.feed.subscribe();
        let services = (**self.handles.readiness.borrow()).clone();
        self.send(&Reply::Counts { at: SystemTime::now(), services }).await?;
        let mut gone = self.handles.gone.clone();
        loop {
            tokio::select! {
                reply = feed.recv() => match reply {
                    Ok(reply) => self.send(&reply).await?,
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        tracing::warn!("a watcher was too slow and missed {missed} messages");
                    }
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                _ = gone.changed() => return Ok(()),
            }
        }
    }

    async fn down(&mut self, volumes: bool, grace: Option<Duration>) -> std::io::Result<()> {
        let mut readiness = self.handles.readiness.clone();
        let mut gone = self.handles.gone.clone();
        if self.handles.orders.send(Order::Down { volumes, grace }).await.is_err() {
            return self.send(&Reply::Done).await;
        }
        loop {
            let services = (**readiness.borrow_and_update()).clone();
            self.send(&Reply::Readiness { services }).await?;
            tokio::select! {
                changed = readiness.changed() => if changed.is_err() { break },
                _ = gone.wait_for(|gone| *gone) => break,
            }
        }
        // The actor's end of the channel closes a little before the end is announced.
        let _ = gone.wait_for(|gone| *gone).await;
        match self.handles.left.get() {
            Some(error) => self.send(&Reply::Error { error: error.clone() }).await,
            None => self.send(&Reply::Done).await,
        }
    }

    async fn lease(&mut self, volumes: bool) -> std::io::Result<()> {
        self.send(&Reply::Done).await?;
        let mut gone = self.handles.gone.clone();
        let next = tokio::select! {
            next = self.read() => next,
            _ = gone.wait_for(|gone| *gone) => return Ok(()),
        };
        if let Ok(Some(Ok(Request::Release))) = next {
            return self.send(&Reply::Done).await;
        }
        tracing::info!("the lease ended without a word: taking the app down");
        let _ = self.handles.orders.send(Order::Down { volumes, grace: None }).await;
        Ok(())
    }
}

/// The first service that waiting longer is of no use for, and why. `update`: a roll-out that was taken back is a reason.
fn given_up(services: &BTreeMap<String, Readiness>, update: bool) -> Option<(String, Refusal)> {
    let refusal = |name: &String, readiness: &Readiness| {
        let rollout = readiness.update.as_ref();
        let reason = || rollout.and_then(|update| update.reason.clone()).unwrap_or_default();
        let refuse =
            |what: &str| Refusal::new(RefusalKind::App, format!("{name}: the update {what}: {}", reason()));
        match rollout.map(|update| update.state) {
            Some(UpdateState::Paused) => Some(refuse("is paused").hint(PAUSED)),
            Some(UpdateState::RollbackPaused) => Some(refuse("could not be rolled back").hint(PAUSED)),
            Some(UpdateState::RolledBack) if update => {
                let hint =
                    "the replicas are what they were before; correct the service, then run `throng up` again";
                Some(refuse("was rolled back").hint(hint))
            }
            _ if readiness.hopeless => {
                let reason = readiness.waiting.clone().or(readiness.trouble.clone());
                let reason = reason.unwrap_or_else(|| "the app is being taken down".into());
                Some(Refusal::new(RefusalKind::App, format!("{name} does not come up: {reason}")))
            }
            _ => None,
        }
    };
    services.iter().find_map(|(name, readiness)| Some((name.clone(), refusal(name, readiness)?)))
}

fn not_in_time(services: &BTreeMap<String, Readiness>, timeout: Duration) -> Refusal {
    let behind: Vec<String> = services
        .iter()
        .filter(|(_, readiness)| !readiness.settled())
        .map(|(name, r)| {
            let why = r.waiting.as_ref().or(r.trouble.as_ref()).map(|why| format!(" ({why})"));
            let update = r.update.as_ref().filter(|update| update.state != UpdateState::RolledBack);
            let replaced =
                update.map(|update| format!(", {} of them replaced", update.done)).unwrap_or_default();
            format!("{name} has {} of {} ready{replaced}{}", r.ready, r.wanted, why.unwrap_or_default())
        })
        .collect();
    let after = throng_model::units::format_duration(timeout);
    Refusal::new(RefusalKind::App, format!("not ready after {after}: {}", behind.join("; ")))
}

/// Three descriptors, sent in one message with a single byte.
async fn receive_descriptors(stream: &UnixStream) -> std::io::Result<ExecIo> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let received = stream.async_io(tokio::io::Interest::READABLE, || {
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0u8; 1];
        let mut iov = [std::io::IoSliceMut::new(&mut byte)];
        recvmsg(stream, &mut iov, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
        let mut descriptors: Vec<OwnedFd> = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
        Ok(descriptors)
    });
    let mut descriptors = received.await?.into_iter();
    match (descriptors.next(), descriptors.next(), descriptors.next()) {
        (Some(stdin), Some(stdout), Some(stderr)) => Ok(ExecIo { stdin, stdout, stderr }),
        _ => Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "three descriptors were expected")),
    }
}

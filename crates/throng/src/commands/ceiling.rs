//! `throng ceiling`: scales a service up until something gives, finds the largest count that holds, and names what
//! stops more.

use super::{app, load};
use crate::cli::{CeilingArguments, Format};
use crate::failure::{Failure, Kind, Result};
use crate::project::Context;
use crate::terminal::{Progress, Style, table, wrap};
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use throng_control::ceiling::{Next, Search};
use throng_load::{LoadSpec, Threshold};
use throng_model::run::ThresholdResult;
use throng_model::status::{Event, Readiness, Status};
use throng_supervisor::client::Client;
use throng_supervisor::host::Host as Pulse;
use throng_walls::{Demand, Evidence, Explanation, Host, KernelLog, Source, explain};

/// How long the host is watched, before anything starts, to know what is usual.
const USUAL: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(100);
/// Looks in a row that must find the host at rest.
const CALM_LOOKS: u32 = 3;
/// How long failures may go on without a change before a count is given up.
const STUCK: Duration = Duration::from_secs(2);
/// Percent of a limit on CPU in use from which it is what holds the replicas up.
const AT_LIMIT: f64 = 90.0;
/// The longest wait for the app to be put back to its first count.
const BACK_WITHIN: Duration = Duration::from_secs(300);
/// Width of the explanation.
const WIDTH: usize = 80;

/// One count that was tried.
#[derive(Serialize)]
struct Trial {
    replicas: u32,
    held: bool,
    /// From the order until it was ready and settled.
    seconds: f64,
    /// Why it did not hold.
    reason: Option<String>,
    thresholds: Vec<ThresholdResult>,
    wall: Option<Explanation>,
    /// The service's own limit, where it stops more before the host does.
    own_limit: Option<OwnLimit>,
    /// What the supervisor has said of the host meanwhile, the newest of each kind.
    told: Vec<String>,
}

/// A limit on CPU that all replicas of a service are at.
#[derive(Debug, Clone, Serialize)]
struct OwnLimit {
    service: String,
    /// Cores of each replica.
    cpus: f64,
    /// Of that in use during the last second of the load, all replicas together.
    used_percent: f64,
}

impl OwnLimit {
    /// `None` if the service has none, or uses less of it.
    fn of(service: &str, status: &Status) -> Option<OwnLimit> {
        let cpus = status.services.get(service)?.limits.cpus.filter(|_| !status.unlimited)?;
        let running = status.replicas.iter().filter(|replica| replica.service == service);
        let (count, used) = running.fold((0.0, 0.0), |sum, replica| (sum.0 + 1.0, sum.1 + replica.cpu));
        let used_percent = 100.0 * used / (cpus * count);
        // Not a number without replicas.
        (used_percent >= AT_LIMIT).then(|| OwnLimit { service: service.to_owned(), cpus, used_percent })
    }
}

#[derive(Serialize)]
struct Outcome<'a> {
    service: &'a str,
    /// The largest count that held, twice.
    stable: u32,
    /// The smallest that did not.
    broke: Option<u32>,
    trials: &'a [Trial],
}

struct Bench<'a> {
    client: &'a Client,
    service: String,
    source: Source,
    pulse: Pulse,
    /// Runnable tasks for each core before anything was scaled.
    usual: f64,
    patience: Duration,
    hold: Duration,
    load: Option<LoadSpec>,
    until: Vec<Threshold>,
}

pub async fn run(context: &Context, arguments: &CeilingArguments) -> Result<ExitCode> {
    let interrupted = super::interrupted()?;
    let step = match arguments.batch.as_str() {
        "auto" => None,
        text => Some(text.parse::<u32>().ok().filter(|step| *step > 0).ok_or_else(|| {
            Failure::new(Kind::Input, format!("--batch {text}: neither `auto` nor a number above zero"))
        })?),
    };
    let client = context.running().await?;
    let mut bench = Bench::new(context, &client, arguments).await?;
    let before = client.status().await?.services.get(&bench.service).map(|status| status.readiness.wanted);
    let before =
        before.ok_or_else(|| Failure::new(Kind::NotFound, format!("no service {}", bench.service)))?;
    bench.watch_usual().await;
    let mut search = Search::new(arguments.most, step);
    let mut trials = Vec::new();
    let climbed = tokio::select! {
        climbed = climb(&mut bench, &mut search, &mut trials) => climbed,
        () = interrupted.cancelled() => Err(Failure::new(Kind::Interrupted, "")),
    };
    let count = if arguments.stay && climbed.is_ok() { search.held() } else { before };
    let services = [bench.service.clone()];
    client.scale(BTreeMap::from([(bench.service.clone(), count)])).await?;
    app::wait(&client, &services, BACK_WITHIN, &format!("back to {count}")).await?;
    climbed?;
    let outcome =
        Outcome { service: &bench.service, stable: search.held(), broke: search.broke(), trials: &trials };
    match arguments.format {
        Format::Json => outln!("{}", serde_json::json!(outcome)),
        Format::Table => out!("{}", show(&outcome)),
    }
    Ok(ExitCode::SUCCESS)
}

async fn climb(bench: &mut Bench<'_>, search: &mut Search, trials: &mut Vec<Trial>) -> Result<()> {
    loop {
        let (count, word) = match search.next() {
            Next::Try(count) => (count, "try"),
            Next::Confirm(count) => (count, "confirm"),
            Next::Done(_) => return Ok(()),
        };
        let mut progress = Progress::new(&format!("{word} {count}"));
        let trial = bench.attempt(count, &mut progress).await?;
        match &trial.reason {
            None => {
                progress.done(&said(&trial));
                search.holds(count);
            }
            Some(reason) => {
                progress.failed(reason);
                search.breaks(count);
            }
        }
        trials.push(trial);
    }
}

/// `3.2 s, p99<50ms 12 ms`.
fn said(trial: &Trial) -> String {
    let measured = trial.thresholds.iter().map(|t| format!(", {} measured {}", t.expression, t.measured));
    format!("holds, {:.1} s{}", trial.seconds, measured.collect::<String>())
}

impl<'a> Bench<'a> {
    async fn new(context: &Context, client: &'a Client, arguments: &CeilingArguments) -> Result<Bench<'a>> {
        let parse = |text: &String| text.parse().map_err(load::failure);
        let until: Vec<Threshold> = arguments.until.iter().map(parse).collect::<Result<_>>()?;
        let service = arguments.target.split([':', '/']).next().unwrap_or_default().to_owned();
        let load = match until.as_slice() {
            [] => None,
            _ => Some(load::spec(load::target(context, &arguments.target).await?, &arguments.shape)?),
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Bench {
            client,
            service,
            source: Source::live(&context.paths.data),
            pulse: Pulse::new(cores),
            usual: 0.0,
            patience: load::duration(&arguments.patience)?,
            hold: load::duration(&arguments.hold)?,
            load,
            until,
        })
    }

    async fn watch_usual(&mut self) {
        let looks = (USUAL.as_millis() / LOOK.as_millis()).max(1) as u32;
        for _ in 0..looks {
            tokio::time::sleep(LOOK).await;
            self.usual += self.pulse.read().runnable / f64::from(looks);
        }
    }

    /// Scales to the count and says whether it holds; if not, which wall it hit.
    async fn attempt(&mut self, count: u32, progress: &mut Progress) -> Result<Trial> {
        let before = Host::read(&self.source);
        let log = KernelLog::open();
        let ran = self.present().await?;
        let (begin, since) = (Instant::now(), SystemTime::now());
        let mut thresholds = Vec::new();
        let broken = self.holds(count, progress, &mut thresholds).await?.err();
        let (reason, messages) = broken.unzip();
        let under_load = thresholds.iter().any(|threshold| !threshold.held);
        let own_limit = if under_load { self.own_limit().await? } else { None };
        let wall = reason.is_some().then(|| {
            let evidence = Evidence {
                messages: messages.unwrap_or_default(),
                kernel_log: log.map(|log| log.lines()).unwrap_or_default(),
                before: Some(before),
                after: Some(Host::read(&self.source)),
                replicas: Some((u64::from(ran), u64::from(count))),
                demand: Some(Demand::of(u64::from(count))),
                ..Evidence::default()
            };
            explain(&evidence)
        });
        let (seconds, held) = (begin.elapsed().as_secs_f64(), reason.is_none());
        // At its own limit a service is slow whatever the host does.
        let wall = wall.flatten().filter(|_| own_limit.is_none());
        let told = if held { Vec::new() } else { self.told(since).await? };
        Ok(Trial { replicas: count, held, seconds, reason, thresholds, wall, own_limit, told })
    }

    async fn own_limit(&self) -> Result<Option<OwnLimit>> {
        Ok(OwnLimit::of(&self.service, &self.client.status().await?))
    }

    /// How pressed the supervisor has found the host since then, and whether its health checks came in time.
    async fn told(&self, since: SystemTime) -> Result<Vec<String>> {
        let mut newest = BTreeMap::new();
        let mut note = |event: Event| {
            if event.at >= since && ["host", "warning"].contains(&event.kind.as_str()) {
                newest.insert(event.kind, event.message);
            }
        };
        self.client.events(false, &mut note).await?;
        Ok(newest.into_values().collect())
    }

    async fn present(&self) -> Result<u32> {
        let status = self.client.status().await?;
        Ok(status.services.get(&self.service).map_or(0, |service| service.readiness.present))
    }

    /// The reason and the errors of replicas, if the count does not hold.
    async fn holds(
        &mut self,
        count: u32,
        progress: &mut Progress,
        thresholds: &mut Vec<ThresholdResult>,
    ) -> Result<std::result::Result<(), (String, Vec<String>)>> {
        let services = [self.service.clone()];
        self.client.scale(BTreeMap::from([(self.service.clone(), count)])).await?;
        let begin = Instant::now();
        let seen = Mutex::new(Seen::default());
        let mut note = |services: &BTreeMap<String, Readiness>| {
            app::show(progress, services);
            lock(&seen).note(services);
        };
        let ready = tokio::select! {
            ready = self.client.wait(&services, self.patience, &mut note) => ready.map_err(|e| Failure::from(e).message),
            () = stuck(&seen) => Err("some replicas fail, and the others are ready".to_owned()),
        };
        let trouble = seen.into_inner().unwrap_or_else(PoisonError::into_inner).trouble;
        if let Err(reason) = ready {
            let reason = trouble.iter().fold(reason, |reason, trouble| format!("{reason}; {trouble}"));
            return Ok(Err((reason, trouble.into_iter().collect())));
        }
        if let Err(reason) = self.settle(self.patience.saturating_sub(begin.elapsed())).await {
            return Ok(Err((reason, trouble.into_iter().collect())));
        }
        progress.say("ready, must stay so");
        tokio::time::sleep(self.hold).await;
        let status = self.client.status().await?;
        let ready = status.services.get(&self.service).map_or(0, |service| service.readiness.ready);
        if ready < count {
            let said =
                status.services.get(&self.service).and_then(|service| service.readiness.trouble.clone());
            return Ok(Err((format!("only {ready} of {count} stay ready"), said.into_iter().collect())));
        }
        let Some(spec) = self.load.clone() else { return Ok(Ok(())) };
        progress.say("under load");
        let (sender, _) = tokio::sync::watch::channel(throng_load::Progress::default());
        let result = throng_load::run(spec, sender, Default::default()).await.map_err(load::failure)?;
        *thresholds = self.until.iter().map(|threshold| threshold.evaluate(&result)).collect();
        let broken = thresholds.iter().find(|threshold| !threshold.held);
        Ok(match broken {
            None => Ok(()),
            Some(broken) => {
                let errors = result.errors.keys().cloned().collect();
                Err((format!("{} but measured {}", broken.expression, broken.measured), errors))
            }
        })
    }

    /// Waits until the host is as calm as it was before.
    async fn settle(&mut self, patience: Duration) -> std::result::Result<(), String> {
        let begin = Instant::now();
        let mut calm = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            let reading = self.pulse.read();
            calm = if reading.settled(self.usual) { calm + 1 } else { 0 };
            if calm >= CALM_LOOKS {
                return Ok(());
            }
            if begin.elapsed() >= patience {
                return Err(format!(
                    "all are ready, but the host does not settle: {:.1} tasks a core want to run",
                    reading.runnable
                ));
            }
        }
    }
}

/// What a wait for readiness has seen so far.
#[derive(Default)]
struct Seen {
    /// Ready and failed replicas, and since when.
    counts: (u32, u32),
    since: Option<Instant>,
    /// The last error of a replica.
    trouble: Option<String>,
}

impl Seen {
    fn note(&mut self, services: &BTreeMap<String, Readiness>) {
        let all = services.values();
        let counts = all.fold((0, 0), |sum, now| (sum.0 + now.ready + now.completed, sum.1 + now.failed));
        if self.counts != counts || self.since.is_none() {
            (self.counts, self.since) = (counts, Some(Instant::now()));
        }
        let trouble = services.values().find_map(|readiness| readiness.trouble.clone());
        self.trouble = trouble.or(self.trouble.take());
    }
}

/// Returns when replicas have failed and nothing has changed for a while: what failed is tried again only after ten
/// seconds, and fails again.
async fn stuck(seen: &Mutex<Seen>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let seen = lock(seen);
        if seen.counts.1 > 0 && seen.since.is_some_and(|since| since.elapsed() >= STUCK) {
            return;
        }
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    // Every change of it is complete in itself.
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

fn show(outcome: &Outcome<'_>) -> String {
    let style = Style::for_stdout();
    let rows: Vec<Vec<String>> = outcome
        .trials
        .iter()
        .map(|trial| {
            let held = if trial.held { style.green("holds") } else { style.red("breaks") };
            let own = trial.own_limit.as_ref().map(|_| "its own CPU limit".to_owned());
            let what = trial.wall.as_ref().map(|wall| wall.row.title.to_owned()).or(own);
            vec![
                trial.replicas.to_string(),
                format!("{:.1} s", trial.seconds),
                held,
                what.unwrap_or_default(),
            ]
        })
        .collect();
    let mut text = format!("\n{}\n", table(&["REPLICAS", "AFTER", "RESULT", "WALL"], &rows));
    let count = style.bold(&outcome.stable.to_string());
    text += &match outcome.broke {
        None => format!(
            "{} holds {count} replicas; nothing gave way, and no more were asked for\n",
            outcome.service
        ),
        Some(broke) => format!("{} holds {count} replicas; {broke} did not hold\n", outcome.service),
    };
    let Some(last) = outcome.trials.iter().rev().find(|trial| !trial.held) else { return text };
    let mut lines = vec![format!("what gave: {}", last.reason.as_deref().unwrap_or_default())];
    lines.extend(reasons(last));
    for line in lines {
        text += &format!("{}\n", wrap(&line, WIDTH));
    }
    text
}

/// What stopped more than that, and what would move it.
fn reasons(trial: &Trial) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(OwnLimit { service, cpus, used_percent }) = &trial.own_limit {
        lines.push(format!(
            "the wall: the limit of {service} itself, {cpus} cores for each replica (deploy.resources.limits.cpus)"
        ));
        lines.push(format!("says so: {used_percent:.0} % of that was in use under load"));
        lines.push("moves it: a higher limit, less load, or more replicas to share the load".into());
    } else if let Some(wall) = &trial.wall {
        lines.push(format!("the wall: {} ({})", wall.row.title, wall.row.limit));
        lines.extend(wall.evidence.iter().map(|evidence| format!("says so: {evidence}")));
        let remedy = wall.finding.as_ref().and_then(|finding| finding.remedy.as_ref());
        lines.push(match remedy {
            Some(remedy) => format!("moves it: {} ({})", remedy.command, remedy.why),
            None => format!("moves it: {}", wall.row.moves),
        });
    } else {
        lines.push(
            "the wall: none that is known of the host; see `throng logs` and `throng events --no-follow` for what the \
             replicas say"
                .into(),
        );
    }
    lines.extend(trial.told.iter().map(|message| format!("meanwhile: {message}")));
    lines
}

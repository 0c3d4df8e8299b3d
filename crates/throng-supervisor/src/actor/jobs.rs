//! Jobs as they concern the one app: what of them is told, and what a supervisor that comes after this one must know.

use super::*;
use crate::state::KeptJob;
use throng_control::job::{self, Change, Work};
use throng_model::job::{JobState, JobStatus};
use throng_model::replica::ReplicaSpec;

/// Where a replica of a job finds its index, as in Kubernetes.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";

/// The job that a service is, if it is one. That its schedule is one has been seen before.
pub(super) fn work(prepared: &Prepared) -> Option<Work> {
    let job = prepared.service.job.clone()?;
    Work::new(job).inspect_err(|error| tracing::error!("{}: {error}", prepared.service.name)).ok()
}

/// What the next supervisor must know of jobs.
pub(super) fn kept(services: &BTreeMap<String, WantedService>) -> BTreeMap<String, KeptJob> {
    let kept = |(name, service): (&String, &WantedService)| {
        let progress = service.job.as_ref()?.progress.clone();
        Some((name.clone(), KeptJob { hash: service.config_hash.clone(), progress }))
    };
    services.iter().filter_map(kept).collect()
}

impl Actor {
    /// Takes in what has become of jobs. All of it is on the disk before anything follows from it, so that no failure is
    /// forgotten when this process is killed.
    pub(super) fn look_at_jobs(&mut self) {
        let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = self.now();
        let changes = job::observe(&mut self.wanted, &self.world, now, clock);
        if changes.is_empty() {
            return;
        }
        // Counts that wait for the disk lie where the state is written to.
        if let Err(refusal) = self.commit() {
            self.answers.iter_mut().for_each(|(_, result)| *result = Err(refusal.clone()));
        }
        self.durable.jobs = kept(&self.wanted.services);
        if let Err(refusal) = tokio::task::block_in_place(|| self.save(&self.durable)) {
            self.event("warning", &self.fixed.project.clone(), &refusal.to_string());
        }
        for (name, change) in changes {
            if let Some(message) = message(change) {
                self.event("job", &name, &message);
            }
        }
    }

    /// A replica of a job knows its index, and its run by the hash of its definition.
    pub(super) fn of_job(&self, key: &Key, mut spec: ReplicaSpec) -> ReplicaSpec {
        let work = self.wanted.services.get(&key.0).and_then(|service| service.job.as_ref());
        if let Some((mark, index)) = work.and_then(|work| work.mark(&spec.config_hash, key.1)) {
            spec.config_hash = mark;
            spec.process
                .env
                .retain(|pair| pair.split_once('=').is_none_or(|(name, _)| name != INDEX_VARIABLE));
            spec.process.env.push(format!("{INDEX_VARIABLE}={index}"));
        }
        spec
    }

    pub(super) fn job_status(&self, service: &str) -> Option<JobStatus> {
        let wanted = self.wanted.services.get(service)?;
        let work = wanted.job.as_ref()?;
        let running = self.replicas(service).filter(|(_, view, _)| view.runs() && !view.leaving).count();
        Some(work.status(wanted.replicas, u32::try_from(running).unwrap_or(u32::MAX), self.now()))
    }

    /// Fills in what is different about a job.
    pub(super) fn job_readiness(&self, service: &str, readiness: &mut Readiness) {
        let Some(job) = self.job_status(service) else { return };
        readiness.hopeless = job.state == JobState::Failed && job.next.is_none();
        readiness.completed = job.completed;
        if let (JobState::Failed, Some(reason)) = (job.state, &job.reason) {
            let last = readiness.trouble.take().map(|trouble| format!(", {trouble}")).unwrap_or_default();
            readiness.trouble = Some(format!("{reason}{last}"));
        }
        readiness.job = Some(job);
    }

    /// Why a replica is ended though it lives.
    pub(super) fn job_over(&self, service: &str) -> Option<String> {
        let reason = self.job_status(service)?.reason?;
        Some(format!("job failed: {reason}"))
    }
}

fn message(change: Change) -> Option<String> {
    Some(match change {
        Change::Counted => return None,
        Change::Begun { run, completions } => format!("run {run} begins: {completions} to complete"),
        Change::Complete { run, completions, failures: 0 } => {
            format!("run {run} is complete: {completions} of {completions}")
        }
        Change::Complete { run, completions, failures } => {
            format!("run {run} is complete: {completions} of {completions}, after {failures} failures")
        }
        Change::Failed { run, reason } => format!("run {run} has failed: {reason}"),
        Change::Missed { scheduled } => {
            let at = SystemTime::UNIX_EPOCH + scheduled;
            let late = at.elapsed().unwrap_or_default();
            format!("a run is left out: its time was {} s ago (MissSchedule)", late.as_secs())
        }
        Change::HeldBack { under_way: 1 } => "its time has come, and the run before goes on".to_owned(),
        Change::HeldBack { under_way } => format!("its time has come, and {under_way} runs go on"),
        Change::Replaced { run } => format!("run {run} is ended for the next one"),
    })
}

//! The figures by name. `docs/metrics.md` lists them; a test holds it to that.

use super::exposition::{Exposition, Kind};
use super::{Metrics, Own};
use std::collections::BTreeMap;
use std::time::Duration;
use throng_model::job::{JobState, JobStatus};
use throng_model::replica::Pressure;
use throng_model::status::{Readiness, ReplicaStatus};

/// One replica, as listings have it, and how old its figures are.
pub struct Row {
    pub status: ReplicaStatus,
    pub age: Option<Duration>,
}

/// What belongs to the app as a whole.
pub struct Head<'a> {
    pub project: &'a str,
    pub on: &'a str,
    pub readiness: &'a BTreeMap<String, Readiness>,
    pub autoscalers: &'a BTreeMap<String, Bounds>,
    /// Replicas that start at a time, and that start now.
    pub batch: usize,
    pub starting: usize,
    /// Replicas that have series of their own at most.
    pub replicas_most: usize,
}

/// An autoscaler's bounds, and whether it has metrics to decide by.
pub struct Bounds {
    pub least: i32,
    pub most: i32,
    pub active: bool,
}

const STATES: [&str; 8] =
    ["created", "starting", "running", "paused", "restarting", "leaving", "exited", "failed"];

/// All figures. `rows` come in the order of services and ordinals.
pub fn text(head: &Head<'_>, metrics: &Metrics, rows: &[Row]) -> String {
    let mut out = Exposition::default();
    about(&mut out, head, rows);
    states(&mut out, head, rows);
    autoscalers(&mut out, head.autoscalers);
    jobs(&mut out, head.readiness);
    work(&mut out, metrics);
    gauges(&mut out, head, rows);
    used(&mut out, metrics);
    supervisor(&mut out, head, metrics);
    process(&mut out, &Own::read());
    let shown = rows.get(..head.replicas_most.min(rows.len())).unwrap_or_default();
    replicas(&mut out, shown);
    out.finish()
}

fn about(out: &mut Exposition, head: &Head<'_>, rows: &[Row]) {
    out.family("throng_app_info", Kind::Gauge, "Always 1; what the app is called and runs on.")
        .sample(&[("project", head.project), ("on", head.on), ("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let omitted = rows.len().saturating_sub(head.replicas_most);
    out.family(
        "throng_replicas_omitted",
        Kind::Gauge,
        "Replicas without series of their own, because there are more than `throng metrics --replicas` allows.",
    )
    .sample(&[], omitted as f64);
}

fn states(out: &mut Exposition, head: &Head<'_>, rows: &[Row]) {
    let mut counts: BTreeMap<(&str, &str), u32> = BTreeMap::new();
    for service in head.readiness.keys() {
        STATES.iter().for_each(|state| {
            counts.insert((service, state), 0);
        });
    }
    for row in rows {
        *counts.entry((&row.status.service, &row.status.state)).or_default() += 1;
    }
    out.family("throng_service_replicas", Kind::Gauge, "Replicas by state.");
    for ((service, state), count) in counts {
        out.sample(&[("service", service), ("state", state)], f64::from(count));
    }
    out.family("throng_service_replicas_wanted", Kind::Gauge, "Replicas that there should be.");
    for (service, readiness) in head.readiness {
        out.sample(&[("service", service)], f64::from(readiness.wanted));
    }
    out.family("throng_service_replicas_ready", Kind::Gauge, "Replicas that are given work.");
    for (service, readiness) in head.readiness {
        out.sample(&[("service", service)], f64::from(readiness.ready));
    }
}

fn autoscalers(out: &mut Exposition, autoscalers: &BTreeMap<String, Bounds>) {
    if autoscalers.is_empty() {
        return;
    }
    type Of = fn(&Bounds) -> f64;
    let families: [(&str, &str, Of); 3] = [
        ("throng_autoscaler_replicas_min", "Fewest replicas that the autoscaler makes.", |b| b.least.into()),
        ("throng_autoscaler_replicas_max", "Most replicas that the autoscaler makes.", |b| b.most.into()),
        ("throng_autoscaler_active", "1 if there are metrics to decide by, else 0.", |b| b.active.into()),
    ];
    for (name, help, of) in families {
        out.family(name, Kind::Gauge, help);
        for (service, bounds) in autoscalers {
            out.sample(&[("service", service)], of(bounds));
        }
    }
}

/// Of the latest run of each job.
fn jobs(out: &mut Exposition, readiness: &BTreeMap<String, Readiness>) {
    let jobs: Vec<_> = readiness.iter().filter_map(|(name, of)| Some((name, of.job.as_ref()?))).collect();
    if jobs.is_empty() {
        return;
    }
    type Of = fn(&JobStatus) -> f64;
    let families: [(&str, &str, Of); 6] = [
        ("throng_job_run", "The number of the latest run, 0 before the first.", |job| job.run as f64),
        ("throng_job_completions_wanted", "Replicas that must succeed.", |job| job.completions.into()),
        ("throng_job_succeeded", "Replicas that have succeeded.", |job| job.completed.into()),
        ("throng_job_failures", "Failures so far; a replica may have several.", |job| job.failed.into()),
        ("throng_job_active", "Replicas that run.", |job| job.running.into()),
        ("throng_job_failed", "1 if the latest run has failed, else 0.", |job| {
            (job.state == JobState::Failed).into()
        }),
    ];
    for (name, help, of) in families {
        out.family(name, Kind::Gauge, help);
        for (service, job) in &jobs {
            out.sample(&[("service", service)], of(job));
        }
    }
}

fn work(out: &mut Exposition, metrics: &Metrics) {
    out.family("throng_service_starts_total", Kind::Counter, "Starts and restarts, by how they ended.");
    for (service, totals) in &metrics.services {
        out.sample(&[("service", service), ("result", "started")], totals.started as f64);
        out.sample(&[("service", service), ("result", "failed")], totals.not_started as f64);
    }
    out.family("throng_service_restarts_total", Kind::Counter, "Starts of replicas that had run before.");
    for (service, totals) in &metrics.services {
        out.sample(&[("service", service)], totals.restarts as f64);
    }
    out.family("throng_service_health_checks_total", Kind::Counter, "Health checks, by how they ended.");
    for (service, totals) in &metrics.services {
        out.sample(&[("service", service), ("result", "passed")], totals.checks_passed as f64);
        out.sample(&[("service", service), ("result", "failed")], totals.checks_failed as f64);
    }
}

/// What the replicas of each service hold now.
fn gauges(out: &mut Exposition, head: &Head<'_>, rows: &[Row]) {
    #[derive(Default)]
    struct Held {
        memory: u64,
        unreclaimable: u64,
        tasks: u64,
        age: Duration,
    }
    let mut held: BTreeMap<&str, Held> = BTreeMap::new();
    head.readiness.keys().for_each(|service| {
        held.insert(service, Held::default());
    });
    for row in rows {
        let Some(used) = row.status.statistics else { continue };
        let sum = held.entry(&row.status.service).or_default();
        sum.memory += used.memory;
        sum.unreclaimable += used.memory_unreclaimable;
        sum.tasks += used.pids;
        sum.age = sum.age.max(row.age.unwrap_or_default());
    }
    type Of = fn(&Held) -> f64;
    let families: [(&str, &str, Of); 4] = [
        ("throng_service_memory_bytes", "Memory of all replicas, page cache included.", |h| h.memory as f64),
        ("throng_service_memory_unreclaimable_bytes", "Of this what cannot be dropped.", |h| {
            h.unreclaimable as f64
        }),
        ("throng_service_tasks", "Processes and threads of all replicas.", |h| h.tasks as f64),
        ("throng_service_reading_age_seconds", "Age of the oldest figure, CPU time apart.", |h| {
            h.age.as_secs_f64()
        }),
    ];
    for (name, help, of) in families {
        out.family(name, Kind::Gauge, help);
        for (service, held) in &held {
            out.sample(&[("service", service)], of(held));
        }
    }
}

fn used(out: &mut Exposition, metrics: &Metrics) {
    let seconds = "CPU time that replicas used, those that have left included.";
    out.family("throng_service_cpu_seconds_total", Kind::Counter, seconds);
    for (service, totals) in &metrics.services {
        out.sample(&[("service", service)], totals.used.cpu.as_secs_f64());
    }
    let bytes = "Bytes over the replicas' network interfaces but for loopback.";
    out.family("throng_service_network_bytes_total", Kind::Counter, bytes);
    for (service, totals) in &metrics.services {
        out.sample(&[("service", service), ("direction", "received")], totals.used.received as f64);
        out.sample(&[("service", service), ("direction", "sent")], totals.used.sent as f64);
    }
    let bytes = "Bytes fetched from storage and sent to it.";
    out.family("throng_service_storage_bytes_total", Kind::Counter, bytes);
    for (service, totals) in &metrics.services {
        out.sample(&[("service", service), ("direction", "read")], totals.used.storage_read as f64);
        out.sample(&[("service", service), ("direction", "written")], totals.used.storage_written as f64);
    }
    let known: Vec<_> = metrics.services.iter().filter_map(|(s, t)| Some((s, t.used.pressure?))).collect();
    if !known.is_empty() {
        let help = "Sum over replicas of the time in which some task waited for a resource.";
        out.family("throng_service_pressure_seconds_total", Kind::Counter, help);
        for (service, pressure) in known {
            pressure_samples(out, &[("service", service)], &pressure);
        }
    }
}

fn pressure_samples(out: &mut Exposition, labels: &[(&str, &str)], pressure: &Pressure) {
    let each = [("cpu", pressure.cpu), ("memory", pressure.memory), ("storage", pressure.storage)];
    for (resource, waited) in each {
        out.sample(&[labels, &[("resource", resource)]].concat(), waited.as_secs_f64());
    }
}

fn supervisor(out: &mut Exposition, head: &Head<'_>, metrics: &Metrics) {
    let help = "From the order to make a replica until its process runs.";
    out.family("throng_start_duration_seconds", Kind::Histogram, help).histogram(&[], &metrics.starts);
    let help = "Time that one look at the whole app took, with what followed from it at once.";
    out.family("throng_plan_duration_seconds", Kind::Histogram, help).histogram(&[], &metrics.plans);
    let help = "Time that reading what all running replicas use took.";
    out.family("throng_reading_duration_seconds", Kind::Histogram, help).histogram(&[], &metrics.readings);
    let help = "Replicas that may start at a time while the host is pressed as it is.";
    out.family("throng_start_batch", Kind::Gauge, help).sample(&[], head.batch as f64);
    out.family("throng_starting", Kind::Gauge, "Starts under way.").sample(&[], head.starting as f64);
}

/// Under the names that Prometheus' own clients use, and the host's pressure.
fn process(out: &mut Exposition, own: &Own) {
    let help = "CPU time of the supervisor.";
    out.family("process_cpu_seconds_total", Kind::Counter, help).sample(&[], own.cpu.as_secs_f64());
    if let Some(resident) = own.resident {
        let help = "Memory of the supervisor.";
        out.family("process_resident_memory_bytes", Kind::Gauge, help).sample(&[], resident as f64);
    }
    if let Some(descriptors) = own.descriptors {
        let help = "Descriptors that the supervisor has open.";
        out.family("process_open_fds", Kind::Gauge, help).sample(&[], descriptors as f64);
    }
    if let Some(pressure) = &own.pressure {
        let help = "Time in which some task of the host waited for a resource.";
        out.family("throng_host_pressure_seconds_total", Kind::Counter, help);
        pressure_samples(out, &[], pressure);
    }
}

fn replicas(out: &mut Exposition, rows: &[Row]) {
    type Of = fn(&Row) -> Option<f64>;
    let families: [(&str, Kind, &str, Of); 9] = [
        ("throng_replica_running", Kind::Gauge, "1 while the replica's process lives.", |row| {
            Some(f64::from(u8::from(row.status.state == "running")))
        }),
        ("throng_replica_restarts", Kind::Gauge, "Restarts of the replica.", |row| {
            Some(f64::from(row.status.restarts))
        }),
        ("throng_replica_cpu_seconds_total", Kind::Counter, "CPU time since its start.", |row| {
            Some(row.status.statistics?.cpu.as_secs_f64())
        }),
        ("throng_replica_memory_bytes", Kind::Gauge, "Memory, page cache included.", |row| {
            Some(row.status.statistics?.memory as f64)
        }),
        ("throng_replica_memory_limit_bytes", Kind::Gauge, "Limit of its memory, if it has one.", |row| {
            Some(row.status.statistics?.memory_limit? as f64)
        }),
        ("throng_replica_tasks", Kind::Gauge, "Processes and threads.", |row| {
            Some(row.status.statistics?.pids as f64)
        }),
        ("throng_replica_network_received_bytes_total", Kind::Counter, "Bytes received.", |row| {
            Some(row.status.statistics?.network_received as f64)
        }),
        ("throng_replica_network_sent_bytes_total", Kind::Counter, "Bytes sent.", |row| {
            Some(row.status.statistics?.network_sent as f64)
        }),
        ("throng_replica_reading_age_seconds", Kind::Gauge, "Age of its figures, CPU time apart.", |row| {
            Some(row.age?.as_secs_f64())
        }),
    ];
    let more: [(&str, Kind, &str, Of); 2] = [
        ("throng_replica_storage_read_bytes_total", Kind::Counter, "Bytes fetched from storage.", |row| {
            Some(row.status.statistics?.storage_read? as f64)
        }),
        ("throng_replica_storage_written_bytes_total", Kind::Counter, "Bytes sent to storage.", |row| {
            Some(row.status.statistics?.storage_written? as f64)
        }),
    ];
    for (name, kind, help, of) in families.into_iter().chain(more) {
        let known: Vec<_> = rows.iter().filter_map(|row| Some((row, of(row)?))).collect();
        if known.is_empty() {
            continue;
        }
        out.family(name, kind, help);
        for (row, value) in known {
            let name = format!("{}-{}", row.status.service, row.status.ordinal);
            out.sample(&[("service", &row.status.service), ("replica", &name)], value);
        }
    }
    let pressed: Vec<_> =
        rows.iter().filter_map(|row| Some((row, row.status.statistics?.pressure?))).collect();
    if !pressed.is_empty() {
        let help = "Time in which some task of the replica waited for a resource.";
        out.family("throng_replica_pressure_seconds_total", Kind::Counter, help);
        for (row, pressure) in pressed {
            let name = format!("{}-{}", row.status.service, row.status.ordinal);
            pressure_samples(out, &[("service", &row.status.service), ("replica", &name)], &pressure);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Totals;
    use std::collections::BTreeSet;
    use std::time::SystemTime;
    use throng_model::replica::Statistics;

    fn row(service: &str, ordinal: u32) -> Row {
        let status = ReplicaStatus {
            name: format!("shop-{service}-{ordinal}"),
            service: service.into(),
            ordinal,
            image: String::new(),
            command: String::new(),
            state: "running".into(),
            health: String::new(),
            exit: None,
            error: None,
            ended_for: None,
            restarts: 0,
            addresses: vec![],
            networks: vec![],
            node: None,
            created_at: SystemTime::UNIX_EPOCH,
            started_at: None,
            finished_at: None,
            next_start: None,
            statistics: Some(Statistics {
                memory: 1 << 20,
                memory_limit: Some(1 << 30),
                pids: 2,
                storage_read: Some(1),
                storage_written: Some(2),
                pressure: Some(Pressure::default()),
                ..Statistics::default()
            }),
            cpu: 0.0,
        };
        Row { status, age: Some(Duration::from_secs(u64::from(ordinal))) }
    }

    fn written(rows: &[Row], replicas_most: usize) -> String {
        let job =
            JobStatus { run: 2, completions: 5, completed: 3, running: 1, failed: 4, ..JobStatus::default() };
        let nightly = Readiness { job: Some(job), ..Readiness::default() };
        let web = Readiness { wanted: 3, ..Readiness::default() };
        let readiness = BTreeMap::from([("web".to_owned(), web), ("nightly".to_owned(), nightly)]);
        let mut metrics = Metrics::default();
        metrics.services.insert("web".into(), Totals::default());
        metrics.service("web").used.pressure = Some(Pressure::default());
        let bounds = Bounds { least: 1, most: 9, active: true };
        let autoscalers = BTreeMap::from([("web".to_owned(), bounds)]);
        let head = Head {
            project: "shop",
            on: "local",
            readiness: &readiness,
            autoscalers: &autoscalers,
            batch: 8,
            starting: 0,
            replicas_most,
        };
        text(&head, &metrics, rows)
    }

    #[test]
    fn services_are_sums_and_replicas_are_bounded() {
        let rows: Vec<Row> = (1..=3).map(|ordinal| row("web", ordinal)).collect();
        let all = written(&rows, 10);
        for line in [
            "throng_service_replicas{service=\"web\",state=\"running\"} 3",
            "throng_service_replicas{service=\"web\",state=\"failed\"} 0",
            "throng_service_memory_bytes{service=\"web\"} 3145728",
            "throng_service_reading_age_seconds{service=\"web\"} 3",
            "throng_replica_tasks{service=\"web\",replica=\"web-3\"} 2",
            "throng_replicas_omitted 0",
            "throng_job_run{service=\"nightly\"} 2",
            "throng_job_completions_wanted{service=\"nightly\"} 5",
            "throng_job_succeeded{service=\"nightly\"} 3",
            "throng_job_failures{service=\"nightly\"} 4",
            "throng_job_active{service=\"nightly\"} 1",
            "throng_job_failed{service=\"nightly\"} 0",
        ] {
            assert!(all.lines().any(|found| found == line), "no {line}\n{all}");
        }
        let few = written(&rows, 2);
        assert!(few.contains("throng_replicas_omitted 1\n") && !few.contains("web-3"), "{few}");
        assert!(!written(&rows, 0).contains("throng_replica_"));
        let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
        let crowd: Vec<Row> = (1..=5_000).map(|ordinal| row("web", ordinal)).collect();
        assert_eq!(series(&written(&crowd, 0)), series(&written(&rows, 0)), "a crowd has no more than a few");
    }

    #[test]
    fn the_page_lists_every_figure_and_no_other() {
        let page = include_str!("../../../../docs/metrics.md");
        let listed: BTreeSet<&str> =
            page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
        let text = written(&[row("web", 1)], 10);
        let mut told: BTreeSet<&str> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        // Not every kernel counts it.
        told.insert("throng_host_pressure_seconds_total");
        assert_eq!(told, listed);
    }
}

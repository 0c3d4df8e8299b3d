//! Runs as a real experiment would record them, from a seeded simulation of queues: clients that wait for each answer,
//! a balancer that picks the shortest queue, replicas that serve one request at a time.

use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Serializer, V2DeflateSerializer};
use std::collections::BTreeMap;
use throng_model::run::*;

/// What a simulation varies.
#[derive(Clone, Copy)]
pub struct Shape {
    pub seed: u64,
    pub clients: u64,
    pub requests: u64,
    pub repetitions: u64,
    /// Mean service time of a lone request in microseconds.
    pub service: f64,
    /// One in so many requests fails; 0 for none.
    pub failing: u64,
}

pub const CLASSIC: Shape =
    Shape { seed: 7, clients: 10, requests: 100, repetitions: 1, service: 11_500.0, failing: 0 };

/// SplitMix64 of Steele, Lea and Flood: enough for a sample, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Log-normal around 1, with a rare pause on top as a scheduler makes them.
    fn service(&mut self) -> f64 {
        let normal: f64 = (0..12).map(|_| self.unit()).sum::<f64>() - 6.0;
        let pause = if self.unit() < 0.006 { 2.0 + 3.0 * self.unit() } else { 0.0 };
        (0.16 * normal).exp() + pause
    }
}

struct Answer {
    end: f64,
    micros: u64,
    replica: usize,
    failed: bool,
}

/// Each client sends its next request when its last one has been answered.
fn closed_loop(
    random: &mut Random,
    shape: &Shape,
    clients: u64,
    requests: u64,
    replicas: usize,
    begin: f64,
) -> Vec<Answer> {
    let mut free = vec![begin; replicas];
    let mut next: Vec<f64> = (0..clients).map(|i| begin + i as f64 * 1e-4).collect();
    let mut answers = Vec::new();
    for _ in 0..clients * requests {
        let client = (0..next.len()).min_by(|a, b| next[*a].total_cmp(&next[*b])).expect("a client");
        let replica = (0..replicas).min_by(|a, b| free[*a].total_cmp(&free[*b])).expect("a replica");
        let sent = next[client];
        let end = sent.max(free[replica]) + shape.service * random.service() / 1e6;
        free[replica] = end;
        next[client] = end + 2e-4;
        let failed = shape.failing > 0 && random.next().is_multiple_of(shape.failing);
        answers.push(Answer { end, micros: ((end - sent) * 1e6) as u64, replica, failed });
    }
    answers
}

fn summarise(latencies: &[u64]) -> LatencySummary {
    let mut histogram = Histogram::<u64>::new(3).expect("three digits");
    for micros in latencies {
        histogram.record(*micros).expect("a growing histogram");
    }
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(&histogram, &mut bytes).expect("memory");
    let keys = ["50", "75", "90", "95", "99", "99.9", "99.99"];
    LatencySummary {
        count: histogram.len(),
        min: histogram.min(),
        mean: histogram.mean(),
        stdev: histogram.stdev(),
        max: histogram.max(),
        percentiles: keys
            .map(|k| (k.to_string(), histogram.value_at_percentile(k.parse().expect("a number"))))
            .into(),
        buckets: histogram
            .iter_recorded()
            .map(|v| (v.value_iterated_to(), v.count_since_last_iteration()))
            .collect(),
        hdr: base64::engine::general_purpose::STANDARD.encode(bytes),
    }
}

fn timeline(answers: &[Answer], begin: f64, end: f64) -> Vec<TimelinePoint> {
    let count = (end - begin).ceil().max(1.0) as usize;
    (0..count)
        .map(|i| {
            let (from, to) = (begin + i as f64, (begin + i as f64 + 1.0).min(end));
            let inside: Vec<&Answer> = answers.iter().filter(|a| a.end > from && a.end <= to).collect();
            let mut micros: Vec<u64> = inside.iter().filter(|a| !a.failed).map(|a| a.micros).collect();
            micros.sort_unstable();
            let at = |share: f64| {
                micros.get(((micros.len() as f64 * share) as usize).min(micros.len().saturating_sub(1)))
            };
            TimelinePoint {
                at: (from + to) / 2.0,
                width: to - from,
                requests: inside.len() as u64,
                errors: inside.iter().filter(|a| a.failed).count() as u64,
                p50: at(0.5).copied().unwrap_or(0),
                p95: at(0.95).copied().unwrap_or(0),
                max: micros.last().copied().unwrap_or(0),
            }
        })
        .collect()
}

fn load(random: &mut Random, shape: &Shape, clients: u64, replicas: usize, begin: f64) -> LoadResult {
    let answers = closed_loop(random, shape, clients, shape.requests, replicas, begin);
    let end = answers.iter().map(|a| a.end).fold(begin, f64::max);
    let fine: Vec<u64> = answers.iter().filter(|a| !a.failed).map(|a| a.micros).collect();
    let failed = (answers.len() - fine.len()) as u64;
    let mut by_replica = BTreeMap::new();
    for answer in &answers {
        *by_replica.entry(format!("pdfmagic-{}", answer.replica + 1)).or_insert(0) += 1;
    }
    let noun = if clients == 1 { "client" } else { "clients" };
    LoadResult {
        target: "pdfmagic".into(),
        schedule: format!("closed: {clients} {noun} × {} requests", shape.requests),
        demand: None,
        begin,
        seconds: end - begin,
        requests: answers.len() as u64,
        succeeded: fine.len() as u64,
        errors: if failed > 0 { [("status 502".to_string(), failed)].into() } else { BTreeMap::new() },
        status: [(200, fine.len() as u64)].into(),
        bytes_sent: answers.len() as u64 * 41_000,
        bytes_received: fine.len() as u64 * 42_100,
        rate: fine.len() as f64 / (end - begin),
        latency: summarise(&fine),
        timeline: timeline(&answers, begin, end),
        by_replica,
        backlog_max: 0,
    }
}

/// Start, one client, many clients, three replicas, many clients again.
pub fn classic(shape: Shape) -> Run {
    let mut random = Random(shape.seed);
    let mut run = skeleton(&shape);
    let mut now = 1.4;
    run.stages.push(Stage {
        name: "Start".into(),
        kind: "up".into(),
        detail: "1 replica".into(),
        end: now,
        ..Default::default()
    });
    run.replica_counts.insert("pdfmagic".into(), vec![(0.0, 0), (0.6, 1)]);
    let event = |at: f64, kind: &str, subject: &str, message: &str| Event {
        at,
        kind: kind.into(),
        subject: subject.into(),
        message: message.into(),
    };
    run.events.push(event(0.6, "replica", "pdfmagic-1", "started"));
    run.events.push(event(1.3, "health", "pdfmagic-1", "ready"));
    for (name, clients, replicas) in [
        ("One client", 1, 1),
        ("Ten clients", shape.clients, 1),
        ("Ten clients, three replicas", shape.clients, 3),
    ] {
        if replicas == 3 {
            let stage = Stage {
                name: "Scale out".into(),
                kind: "scale".into(),
                detail: "pdfmagic to 3 replicas".into(),
                begin: now,
                end: now + 1.1,
                ..Default::default()
            };
            run.events.push(event(now, "scale", "pdfmagic", "from 1 to 3 replicas"));
            for i in 2..=3 {
                run.events.push(event(now + 0.3, "replica", &format!("pdfmagic-{i}"), "started"));
                run.events.push(event(now + 1.0, "health", &format!("pdfmagic-{i}"), "ready"));
            }
            run.replica_counts.entry("pdfmagic".into()).or_default().push((now + 0.3, 3));
            now = stage.end;
            run.stages.push(stage);
        }
        let begin = now;
        let loads: Vec<LoadResult> = (0..shape.repetitions)
            .map(|_| {
                let result = load(&mut random, &shape, clients, replicas, now + 0.1);
                now = result.begin + result.seconds + 0.1;
                result
            })
            .collect();
        let p95 = loads[0].latency.percentiles["95"];
        run.stages.push(Stage {
            name: name.into(),
            kind: "load".into(),
            detail: format!("{clients} × {} images", shape.requests),
            begin,
            end: now,
            replicas: Some(replicas as u32),
            thresholds: vec![
                ThresholdResult {
                    expression: "p95<60ms".into(),
                    measured: format!("{:.1} ms", p95 as f64 / 1e3),
                    held: p95 < 60_000,
                },
                ThresholdResult {
                    expression: "errors<1%".into(),
                    measured: "0 %".into(),
                    held: shape.failing == 0,
                },
            ],
            loads,
            ..Default::default()
        });
    }
    run.seconds = now;
    run.replicas = (0..3).map(|i| series(&mut random, &run, i)).collect();
    if run.stages.iter().flat_map(|s| &s.thresholds).any(|t| !t.held) {
        run.outcome = Outcome::Failed;
    }
    run
}

fn skeleton(shape: &Shape) -> Run {
    Run {
        version: RUN_VERSION,
        id: format!("20261122-1415{:02}-pdfmagic", shape.seed % 60),
        project: "pdfmagic".into(),
        title: "Scaling a web service".into(),
        description: "Pictures become PDF documents: first for one client, then for many at once, then with three replicas behind a balancer.".into(),
        started_at: format!("2026-11-22T14:15:{:02}Z", shape.seed % 60),
        environment: Environment {
            throng: "0.1.0".into(),
            kernel: "6.18.5".into(),
            operating_system: "Debian GNU/Linux 12 (bookworm)".into(),
            cpu: "AMD EPYC 9R14".into(),
            cores: 2,
            memory_bytes: 24 << 30,
            cgroup: "v1".into(),
            isolation: "containers (own namespaces)".into(),
            unlimited: false,
            user: "root".into(),
            details: [
                ("balancing policy".to_string(), "least requests of two choices".to_string()),
                ("image of pdfmagic".into(), "sha256:5f1c7a9e02b44f".into()),
            ]
            .into(),
        },
        variables: [("clients".to_string(), shape.clients.to_string())].into(),
        ..Default::default()
    }
}

/// Samples each quarter second: busy while a load runs that reaches this replica.
fn series(random: &mut Random, run: &Run, index: usize) -> ReplicaSeries {
    let name = format!("pdfmagic-{}", index + 1);
    let born = if index == 0 { 0.6 } else { run.replica_counts["pdfmagic"][2].0 };
    let mut samples = Vec::new();
    let mut at = born;
    while at < run.seconds {
        at += 0.25;
        let busy =
            run.stages.iter().flat_map(|s| &s.loads).find(|l| at > l.begin && at <= l.begin + l.seconds);
        let share = busy.and_then(|l| Some(*l.by_replica.get(&name)? as f64 / l.seconds)).unwrap_or(0.0);
        let cpu = (share * 0.0059).min(0.5) * (0.97 + 0.05 * random.unit());
        samples.push(Sample {
            at,
            cpu: cpu.min(0.5),
            memory: 6_300_000 + (share * 31_000.0) as u64 + (random.unit() * 90_000.0) as u64,
            pids: 4,
            received: share * 41_000.0,
            sent: share * 42_100.0,
        });
    }
    ReplicaSeries {
        service: "pdfmagic".into(),
        name,
        cpu_limit: Some(0.5),
        memory_limit: Some(64 << 20),
        samples,
    }
}

/// A crowd: so many replicas with so many samples each.
pub fn crowd(replicas: usize, samples: usize) -> Run {
    let mut random = Random(11);
    let mut run = skeleton(&CLASSIC);
    run.seconds = samples as f64;
    run.title = format!("A crowd of {replicas}");
    let mut result = load(&mut random, &CLASSIC, 50, 8, 5.0);
    result.by_replica =
        (0..replicas).map(|i| (format!("pdfmagic-{}", i + 1), 80 + random.next() % 40)).collect();
    run.stages.push(Stage {
        name: "Crowd".into(),
        kind: "load".into(),
        detail: "50 × 100 images".into(),
        begin: 5.0,
        end: 5.0 + result.seconds,
        replicas: Some(replicas as u32),
        loads: vec![result],
        ..Default::default()
    });
    run.replica_counts.insert(
        "pdfmagic".into(),
        (0..=replicas)
            .map(|i| (i as f64 * samples as f64 / replicas.max(1) as f64 / 4.0, i as u32))
            .collect(),
    );
    run.replicas = (0..replicas)
        .map(|i| ReplicaSeries {
            service: "pdfmagic".into(),
            name: format!("pdfmagic-{}", i + 1),
            cpu_limit: Some(0.5),
            memory_limit: None,
            samples: (0..samples)
                .map(|s| {
                    let wave = 0.2 + 0.15 * (s as f64 / samples as f64 * 9.0).sin();
                    Sample {
                        at: s as f64,
                        cpu: wave * (0.5 + random.unit()) * 8.0 / replicas as f64,
                        memory: 5_000_000 + random.next() % 900_000,
                        pids: 3,
                        ..Default::default()
                    }
                })
                .collect(),
        })
        .collect();
    run.events = (0..replicas)
        .map(|i| Event {
            at: i as f64 * 0.01,
            kind: "replica".into(),
            subject: format!("pdfmagic-{i}"),
            message: "started".into(),
        })
        .collect();
    run
}

//! How long a large file takes.

use crate::common::{converted, loaded};
use std::fmt::Write;
use std::time::{Duration, Instant};
use throng_kube::{Format, Options, files};

/// Services with most of what a service may say, each asking for another one.
fn large(services: usize) -> String {
    let mut text = String::from("services:\n");
    for n in 0..services {
        let next = (n + 1) % services;
        let _ = write!(
            text,
            "  s{n}:\n    image: 'reg.example/s{n}:1.{n}'\n    command: [serve, --peer, 's{next}:8080']\n    \
             environment: {{PEER: 'http://s{next}:8080', DB_PASSWORD: p{n}, A: '1', B: '2', C: '3'}}\n    \
             ports: ['{}:8080']\n    volumes: ['d{n}:/data', '/scratch']\n    networks: [front, back]\n    \
             healthcheck: {{test: [CMD, check], interval: 5s}}\n    user: '1000'\n    \
             deploy: {{replicas: 1, resources: {{limits: {{cpus: '0.5', memory: 64M}}}}, update_config: {{order: \
             start-first}}}}\n",
            20_000 + n
        );
    }
    text.push_str("networks: {front: , back: {internal: true}}\nvolumes:\n");
    for n in 0..services {
        let _ = writeln!(text, "  d{n}:");
    }
    text
}

#[test]
fn two_hundred_services_take_less_than_a_tenth_of_a_second() {
    let loaded = loaded(&large(200)).unwrap();
    // Unoptimised code is many times slower, and the machine may be busy: the best of several runs is what counts.
    let limit = Duration::from_millis(if cfg!(debug_assertions) { 1500 } else { 100 });
    let best = (0..5)
        .map(|_| {
            let start = Instant::now();
            let converted = converted(&loaded, &Options::default()).unwrap();
            let text: usize = files(&converted.objects, Format::Yaml).values().map(String::len).sum();
            assert!(text > 200 * 1000, "{text} bytes are too few for 200 services");
            start.elapsed()
        })
        .min()
        .unwrap();
    eprintln!("200 services: {best:?}");
    assert!(best < limit, "{best:?}");
}

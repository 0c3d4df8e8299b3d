//! Generated files through Docker's own Compose: what both accept means the same, merged or extended.

use crate::peers::{both, is_here};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Services of one file, so that one run of docker-compose, which takes a second, tries many.
const SERVICES: usize = 6;
/// Files; docker-compose is started for each.
const CASES: u32 = 10;

/// Keys of a service with what may stand there, in the forms that there are. Without `group_add`, of which that version
/// keeps the last list alone where the specification joins them.
const KEYS: &[(&str, &[&str])] = &[
    ("command", &["run", "[a, 'b c']", "'x \"y z\" w'", "[]"]),
    ("entrypoint", &["e", "[e, f]"]),
    ("environment", &["{A: 1, B: two}", "[A=9, 'C=x y', D=]", "{A: null, E: 'true', F: 1.5}", "{N: 0x10}"]),
    ("labels", &["{a: b, c: '1'}", "[a=z, d]", "{e: 5, f: 'true'}"]),
    ("user", &["me", "'1000:7'"]),
    ("working_dir", &["/a", "/b/c"]),
    ("hostname", &["host-a"]),
    ("restart", &["always", "'no'", "on-failure:5", "unless-stopped"]),
    ("stop_signal", &["SIGINT", "SIGTERM"]),
    ("stop_grace_period", &["5s", "1m30s", "90s"]),
    ("expose", &["['80']", "['81', '82']"]),
    (
        "volumes",
        &[
            "['data:/d', './x:/x:ro']",
            "[{type: bind, source: /h, target: /b}, '/anon']",
            "['other:/d']",
            "[{type: volume, source: data, target: /d, read_only: true}]",
        ],
    ),
    ("tmpfs", &["/t", "[/t, /u]"]),
    ("dns", &["1.1.1.1", "[9.9.9.9, 8.8.8.8]"]),
    ("dns_search", &["a.example", "[b.example]"]),
    ("cap_add", &["[NET_ADMIN]", "[SYS_TIME, NET_RAW]"]),
    ("cap_drop", &["[ALL]"]),
    ("ulimits", &["{nofile: 10}", "{nofile: {soft: 1, hard: 2}, core: 0}", "{nproc: 5}"]),
    ("sysctls", &["{net.core.somaxconn: 5}", "['net.ipv4.tcp_syncookies=1']"]),
    ("extra_hosts", &["['a:1.2.3.4']", "['b:5.6.7.8', 'a:1.1.1.1']"]),
    ("shm_size", &["1m", "65536"]),
    ("mem_limit", &["64m", "1g", "1000000"]),
    ("cpus", &["0.5", "2"]),
    ("pids_limit", &["7"]),
    ("cpuset", &["'0'", "0-1"]),
    ("mem_swappiness", &["0", "60"]),
    ("oom_score_adj", &["-10", "500"]),
    ("cpu_shares", &["512"]),
    ("read_only", &["true", "false"]),
    ("init", &["true", "false"]),
    ("stdin_open", &["true", "false"]),
    (
        "healthcheck",
        &[
            "{test: curl x, interval: 5s}",
            "{test: [CMD, a, b], retries: 9, start_period: 1m}",
            "{disable: true}",
            "{test: [NONE]}",
        ],
    ),
    ("logging", &["{driver: json-file, options: {max-size: 2m}}", "{driver: local}"]),
    ("networks", &["[one]", "{one: {aliases: [x, y]}, two: }", "{two: {}}"]),
    ("build", &["{context: ., args: {A: 1}}", "{context: ./web, target: t}", "./web"]),
    (
        "deploy",
        &[
            "{replicas: 3}",
            "{labels: {l: m}, resources: {reservations: {memory: 9M}}}",
            "{update_config: {parallelism: 2, order: start-first}}",
            "{restart_policy: {condition: on-failure, max_attempts: 2, delay: 3s}}",
        ],
    ),
];

/// Which of the forms of some keys a service has.
fn service() -> impl Strategy<Value = Vec<(usize, usize)>> {
    prop::collection::btree_map(0..KEYS.len(), 0usize..12, 0..9)
        .prop_map(|keys| keys.into_iter().map(|(key, form)| (key, form % KEYS[key].1.len())).collect())
}

fn text(name: &str, keys: &[(usize, usize)], more: &str) -> String {
    let keys: Vec<String> =
        keys.iter().map(|(key, form)| format!("    {}: {}\n", KEYS[*key].0, KEYS[*key].1[*form])).collect();
    format!("  {name}:\n{more}{}", keys.concat())
}

/// Files whose services are merged with those of a second file, or begin as others.
fn files() -> impl Strategy<Value = (String, String)> {
    let pairs = prop::collection::vec((service(), service(), 0..3u8), SERVICES);
    pairs.prop_map(|services| {
        let (mut first, mut second) =
            ("version: '3.8'\nservices:\n".to_owned(), "version: '3.8'\nservices:\n".to_owned());
        for (number, (base, over, kind)) in services.iter().enumerate() {
            let name = format!("s{number}");
            first += &text(&name, base, "    image: a\n");
            match kind {
                0 => second += &text(&name, over, "    image: b\n"),
                1 => first += &text(&format!("e{number}"), over, &format!("    extends: {name}\n")),
                _ => {}
            }
        }
        second += "  last: {image: last}\n";
        let declared = "networks: {one: , two: }\nvolumes: {data: , other: }\n";
        (first + declared, second)
    })
}

#[test]
fn generated_files_mean_the_same_to_docker_compose() {
    if !is_here("generated_files_mean_the_same_to_docker_compose") {
        return;
    }
    let config =
        Config { cases: CASES, max_shrink_iters: 60, failure_persistence: None, ..Config::default() };
    // The same files each time: what the two disagree about by design is left out above, one by one.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let tried = TestRunner::new_with_rng(config, rng).run(&files(), |(first, second)| {
        let (ours, theirs) = both(&[("a.yaml", &first), ("b.yaml", &second)]);
        // The two need not accept the same: theirs is a version of 2021.
        if let Ok(theirs) = theirs {
            prop_assert!(
                ours == theirs,
                "{first}{second}\n{}",
                crate::peers::difference("", &ours, &theirs).join("\n")
            );
        }
        Ok(())
    });
    tried.unwrap_or_else(|failed| panic!("{failed}"));
}

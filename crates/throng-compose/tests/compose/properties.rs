//! What must hold for every file.

use crate::common::Case;
use proptest::prelude::*;
use throng_compose::{LoadOptions, load, render, to_yaml};

/// A file that uses most of what is honoured; changes of it reach far into the reader.
const RICH: &str = r#"
name: shop
x-base: &base {restart: "on-failure:3", labels: [a=b, c]}
services:
  web:
    <<: *base
    image: reg.example:5000/web:1
    build: {context: ./web, dockerfile: D, target: t, args: {A: "1"}}
    command: serve --port "80 80"
    entrypoint: []
    environment: {A: "${X:-1}", B: null, C: "$$x", D: "multi\nline"}
    ports: ["8080-8082:80-82", "127.0.0.1::9000/tcp", {target: 90, published: "91", app_protocol: grpc, host_ip: "::1"}]
    expose: [70, 71/udp]
    volumes: [data:/data:ro, ./src:/src, /anon, {type: tmpfs, target: /t, tmpfs: {size: 1m}}]
    tmpfs: /run:size=64k
    deploy: {replicas: 3, resources: {limits: {cpus: "0.25", memory: 64m, pids: 10}}}
    healthcheck: {test: curl -f http://localhost, interval: 1m30s, timeout: 1500us, retries: 5, start_period: 1s}
    depends_on: {db: {condition: service_healthy, restart: true}}
    networks: {front: {aliases: [www]}, default: }
    user: "1000:1000"
    working_dir: /srv
    hostname: web.local
    stop_signal: SIGQUIT
    stop_grace_period: 1h
    read_only: true
    init: true
    cap_add: [net_admin]
    cap_drop: [ALL]
    group_add: [1, audio]
    ulimits: {nofile: {soft: 10, hard: -1}, core: 0}
    sysctls: {net.core.somaxconn: "128"}
    extra_hosts: ["a:1.2.3.4", "b=host-gateway", "a=[::1]"]
    dns: 1.1.1.1
    dns_search: [a.example]
    dns_opt: ["timeout:1"]
    domainname: shop.example
    shm_size: 1m
    oom_score_adj: 5
    cpu_shares: 512
    mem_reservation: 32m
    memswap_limit: -1
    storage_opt: {size: 1g}
    logging: {driver: local, options: {max-size: 1m, max-file: 3}}
    annotations: {x: "y $$z"}
    configs: [settings, {source: settings, target: /etc/x, mode: "0440", uid: 5}]
    secrets: [{source: token, target: t, gid: "7"}]
    post_start: [{command: a b, user: me, working_dir: /x, environment: [A=b]}]
    pre_stop: [{command: [c]}]
    links: ["db:database"]
    volumes_from: [db:ro]
  db:
    image: db
    volumes: [{type: volume, source: data, target: /sub, volume: {subpath: a/b}}, {type: tmpfs, target: /m, tmpfs: {mode: 0700}}]
    scale: 0
    healthcheck: {test: [CMD, check, "$$HOME"]}
    restart: unless-stopped
    networks: [front]
  careful:
    image: c
    deploy:
      update_config: {parallelism: 3, delay: 1500ms, order: start-first, monitor: 0s, max_failure_ratio: 0.1, failure_action: rollback}
      rollback_config: {parallelism: 0, failure_action: continue}
      restart_policy: {condition: on-failure, delay: 2s, max_attempts: 4, window: 1m}
    x-throng: {restart: {initial: 500ms, factor: 1.5, max: 1m}}
  alone: {image: a, network_mode: none}
  named:
    container_name: the-one
    build:
      context: ./web
      dockerfile_inline: "FROM a\nRUN $$x"
      tags: [a, 'reg.example/b:1']
      labels: {a: b}
      no_cache: true
      pull: true
      additional_contexts: {one: ./x, two: 'docker-image://y', three: 'service:db'}
      secrets: [token, {source: token, target: t, uid: 1, gid: '2', mode: 0400}]
      extra_hosts: ['a:1.2.3.4']
      shm_size: 1m
      ulimits: {nofile: {soft: 1, hard: 2}}
      network: none
    pull_policy: every_1w2d
    cpuset: 0-1,3
    mem_limit: 64m
    mem_swappiness: 10
    oom_kill_disable: true
    stdin_open: true
    security_opt: ['seccomp:unconfined']
    deploy: {labels: {c: d}}
  job: {image: job, healthcheck: {disable: true}, profiles: [never]}
networks:
  front: {internal: true, labels: {l: m}, ipam: {config: [{subnet: 10.1.0.0/16}]}}
volumes:
  data: {name: "my data", external: true}
  other: {name: other, labels: [a]}
  bound: {driver: local, driver_opts: {type: none, o: bind, device: /srv}}
configs:
  settings: {content: "a: $$b"}
  file: {file: ./x}
secrets:
  token: {file: /t}
"#;

/// Loads a text and, if it is good, what is printed of it: both must be the same app.
fn round_trip(text: &str) -> Result<(), TestCaseError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("compose.yaml");
    let options = LoadOptions {
        directory: folder.path().into(),
        files: vec![path.clone()],
        profiles: vec!["*".into()],
        ..LoadOptions::default()
    };
    std::fs::write(&path, text).unwrap();
    match load(&options) {
        Err(findings) => {
            prop_assert!(!findings.is_empty(), "an error without a finding");
            render(&findings, true);
        }
        Ok(loaded) => {
            render(&loaded.warnings, true);
            let printed = to_yaml(&loaded.app);
            std::fs::write(&path, &printed).unwrap();
            let again = load(&options).map_err(|e| TestCaseError::fail(format!("{printed}\n{e:?}")))?;
            prop_assert_eq!(&again.app, &loaded.app, "{}", printed);
            prop_assert!(again.warnings.is_empty(), "{:?}\n{}", again.warnings, printed);
        }
    }
    Ok(())
}

#[test]
fn a_rich_file_comes_back_the_same() {
    let good = RICH.replace("my data", "my-data");
    let case = Case { files: &[("compose.yaml", &good)], ..Case::default() };
    let loaded = case.load().0.unwrap_or_else(|findings| panic!("{}", render(&findings, false)));
    assert_eq!(loaded.app.services.len(), 5);
    let messages: Vec<&str> = loaded.warnings.iter().map(|warning| warning.message.as_str()).collect();
    assert_eq!(messages, ["/m of db belongs to each of its replicas alone"]);
    round_trip(&good).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_loader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("compose.yaml"), &bytes).unwrap();
        let options = LoadOptions { directory: folder.path().into(), ..LoadOptions::default() };
        if let Err(findings) = load(&options) {
            render(&findings, false);
        }
    }

    #[test]
    fn no_change_of_a_good_file_makes_the_loader_panic(
        at in 0..RICH.len(),
        length in 0usize..30,
        with in prop_oneof!["[\\[\\]{}:,&*<!|>?%@`\"'$#0-9a-z \n\t/.-]{0,10}", "\\PC{0,4}"],
        indent in 0usize..3,
    ) {
        let good = RICH.replace("my data", "my-data");
        let to = (at + length).min(good.len());
        let with = with.replace('\n', &format!("\n{}", "  ".repeat(indent)));
        round_trip(&format!("{}{with}{}", &good[..at.min(good.len())], &good[to..]))?;
    }

    #[test]
    fn any_text_comes_back_the_same(
        value in any::<String>(),
        label in "\\PC{1,12}",
        word in "\\PC{0,12}",
        nanos in 0u64..10_000_000_000_000,
        cpus in 0.01f64..512.0,
    ) {
        prop_assume!(!value.contains('\0') && !label.contains('=') && label != "<<");
        let quote = |text: &str| serde_json::to_string(&text.replace('$', "$$")).unwrap();
        // JSON leaves characters as they are that YAML does not allow; those come out of escapes alone.
        let escape = |text: String| -> String {
            text.chars().map(|c| if c.is_ascii() && !c.is_control() { c.to_string() } else { format!("\\U{:08x}", u32::from(c)) }).collect()
        };
        let (value, word) = (escape(quote(&value)), escape(quote(&word)));
        let label = escape(serde_json::to_string(&label).unwrap());
        round_trip(&format!(
            "services:\n  web:\n    image: a\n    environment: {{A: {value}}}\n    labels: {{{label}: {value}}}\n    command: [{word}, {value}]\n    stop_grace_period: {nanos}ns\n    cpus: {cpus}\n"
        ))?;
    }
}

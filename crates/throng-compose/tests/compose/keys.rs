//! The table of keys says what the reader does: each honoured key changes the app, each other one is warned about.

use crate::common::Case;
use std::collections::BTreeSet;
use throng_compose::{Status, key_table};
use throng_model::app::App;
use throng_model::diagnostic::Severity;

/// A file in which the place under test is free to be filled.
const BASE: &str = "
services:
  web:
    image: web
    profiles: []
  db:
    image: db
    volumes: ['data:/db']
networks:
  front: {}
volumes:
  data: {}
configs:
  settings: {file: s}
  more: {content: m}
secrets:
  token: {file: t}
  other: {file: o}
";

/// What may be extended or included.
const OTHER: &str = "
services:
  more:
    build: .
    user: me
    environment: {A: '${A-}'}
  other:
    image: other
";

/// For each honoured key two overrides of [`BASE`] that differ in this key alone and must give different apps.
/// `web:` stands for the service.
const PAIRS: &[(&str, &str, &str)] = &[
    ("name", "name: a", "name: b"),
    ("include", "include: []", "include: [sub/x.yaml]"),
    ("include.*.path", "include: [{path: sub/x.yaml}]", "include: [{path: sub/y.yaml}]"),
    (
        "include.*.env_file",
        "include: [{path: sub/x.yaml, env_file: a.env}]",
        "include: [{path: sub/x.yaml, env_file: b.env}]",
    ),
    (
        "include.*.project_directory",
        "include: [{path: sub/x.yaml, project_directory: .}]",
        "include: [{path: sub/x.yaml, project_directory: sub}]",
    ),
    ("services", "services: {}", "services: {new: {image: a}}"),
    ("networks", "networks: {}", "networks: {new: {}}"),
    ("volumes", "volumes: {}", "volumes: {new: {}}"),
    ("networks.*.internal", "networks: {front: {internal: true}}", "networks: {front: {internal: false}}"),
    (
        "networks.*.ipam",
        "networks: {front: {ipam: {}}}",
        "networks: {front: {ipam: {config: [{subnet: 10.9.0.0/24}]}}}",
    ),
    (
        "networks.*.ipam.config",
        "networks: {front: {ipam: {config: []}}}",
        "networks: {front: {ipam: {config: [{subnet: 10.9.0.0/24}]}}}",
    ),
    (
        "networks.*.ipam.config.*.subnet",
        "networks: {front: {ipam: {config: [{subnet: 10.8.0.0/24}]}}}",
        "networks: {front: {ipam: {config: [{subnet: 10.9.0.0/24}]}}}",
    ),
    (
        "networks.*.ipam.config.*.ip_range",
        "networks: {front: {ipam: {config: [{subnet: 10.9.0.0/24, ip_range: 10.9.0.0/28}]}}}",
        "networks: {front: {ipam: {config: [{subnet: 10.9.0.0/24}]}}}",
    ),
    (
        "networks.*.ipam.config.*.gateway",
        "networks: {front: {ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.9}]}}}",
        "networks: {front: {ipam: {config: [{subnet: 10.9.0.0/24, gateway: 10.9.0.8}]}}}",
    ),
    (
        "networks.*.ipam.config.*.aux_addresses",
        "networks: {front: {ipam: {config: [{subnet: 10.9.0.0/24, aux_addresses: {a: 10.9.0.9}}]}}}",
        "networks: {front: {ipam: {config: [{subnet: 10.9.0.0/24}]}}}",
    ),
    (
        "services.*.networks.*.ipv4_address",
        "{services: {web: {networks: {front: {ipv4_address: 10.9.0.7}}}}, networks: {front: {ipam: {config: \
         [{subnet: 10.9.0.0/24}]}}}}",
        "{services: {web: {networks: {front: {ipv4_address: 10.9.0.8}}}}, networks: {front: {ipam: {config: \
         [{subnet: 10.9.0.0/24}]}}}}",
    ),
    ("volumes.*.name", "volumes: {data: {name: a}}", "volumes: {data: {name: b}}"),
    ("volumes.*.external", "volumes: {data: {name: a, external: true}}", "volumes: {data: {name: a}}"),
    (
        "volumes.*.external.name",
        "volumes: {data: {external: {name: a}}}",
        "volumes: {data: {external: {name: b}}}",
    ),
    ("services.*.image", "web: {image: a}", "web: {image: b}"),
    ("services.*.build", "web: {build: a}", "web: {}"),
    ("services.*.build.context", "web: {build: {context: a}}", "web: {build: {context: b}}"),
    ("services.*.build.dockerfile", "web: {build: {dockerfile: a}}", "web: {build: {dockerfile: b}}"),
    ("services.*.build.args", "web: {build: {args: {A: a}}}", "web: {build: {args: [A=b]}}"),
    ("services.*.build.target", "web: {build: {target: a}}", "web: {build: {target: b}}"),
    ("services.*.command", "web: {command: a}", "web: {command: [b]}"),
    ("services.*.cpus", "web: {cpus: 1}", "web: {cpus: 2}"),
    ("services.*.depends_on", "web: {depends_on: [db]}", "web: {}"),
    (
        "services.*.depends_on.*.condition",
        "web: {depends_on: {db: {condition: service_healthy}}}",
        "web: {depends_on: {db: {condition: service_started}}}",
    ),
    (
        "services.*.depends_on.*.required",
        "web: {depends_on: {db: {required: false}}}",
        "web: {depends_on: {db: {required: true}}}",
    ),
    (
        "services.*.depends_on.*.restart",
        "web: {depends_on: {db: {restart: false}}}",
        "web: {depends_on: {db: {restart: true}}}",
    ),
    ("services.*.deploy", "web: {deploy: {}}", "web: {deploy: {replicas: 2}}"),
    ("services.*.deploy.replicas", "web: {deploy: {replicas: 3}}", "web: {deploy: {replicas: 2}}"),
    (
        "services.*.deploy.resources",
        "web: {deploy: {resources: {}}}",
        "web: {deploy: {resources: {limits: {pids: 2}}}}",
    ),
    (
        "services.*.deploy.resources.limits",
        "web: {deploy: {resources: {limits: {}}}}",
        "web: {deploy: {resources: {limits: {pids: 2}}}}",
    ),
    (
        "services.*.deploy.resources.limits.cpus",
        "web: {deploy: {resources: {limits: {cpus: 1}}}}",
        "web: {deploy: {resources: {limits: {cpus: '0.5'}}}}",
    ),
    (
        "services.*.deploy.resources.limits.memory",
        "web: {deploy: {resources: {limits: {memory: 1m}}}}",
        "web: {deploy: {resources: {limits: {memory: 2m}}}}",
    ),
    (
        "services.*.deploy.resources.limits.pids",
        "web: {deploy: {resources: {limits: {pids: 1}}}}",
        "web: {deploy: {resources: {limits: {pids: 2}}}}",
    ),
    ("services.*.deploy.restart_policy", "web: {deploy: {}}", "web: {deploy: {restart_policy: {}}}"),
    (
        "services.*.deploy.restart_policy.condition",
        "web: {deploy: {restart_policy: {condition: any}}}",
        "web: {deploy: {restart_policy: {condition: none}}}",
    ),
    (
        "services.*.deploy.restart_policy.max_attempts",
        "web: {deploy: {restart_policy: {condition: on-failure, max_attempts: 1}}}",
        "web: {deploy: {restart_policy: {condition: on-failure, max_attempts: 2}}}",
    ),
    ("services.*.deploy.update_config", "web: {deploy: {}}", "web: {deploy: {update_config: {}}}"),
    (
        "services.*.deploy.update_config.parallelism",
        "web: {deploy: {update_config: {parallelism: 2}}}",
        "web: {deploy: {update_config: {parallelism: 0}}}",
    ),
    (
        "services.*.deploy.update_config.delay",
        "web: {deploy: {update_config: {delay: 1s}}}",
        "web: {deploy: {update_config: {delay: 2s}}}",
    ),
    (
        "services.*.deploy.update_config.failure_action",
        "web: {deploy: {update_config: {failure_action: pause}}}",
        "web: {deploy: {update_config: {failure_action: continue}}}",
    ),
    (
        "services.*.deploy.update_config.monitor",
        "web: {deploy: {update_config: {monitor: 1s}}}",
        "web: {deploy: {update_config: {monitor: 2s}}}",
    ),
    (
        "services.*.deploy.update_config.max_failure_ratio",
        "web: {deploy: {update_config: {max_failure_ratio: 0.1}}}",
        "web: {deploy: {update_config: {max_failure_ratio: 1}}}",
    ),
    (
        "services.*.deploy.update_config.order",
        "web: {deploy: {update_config: {order: stop-first}}}",
        "web: {deploy: {update_config: {order: start-first}}}",
    ),
    ("services.*.deploy.rollback_config", "web: {deploy: {}}", "web: {deploy: {rollback_config: {}}}"),
    (
        "services.*.deploy.rollback_config.parallelism",
        "web: {deploy: {rollback_config: {parallelism: 2}}}",
        "web: {deploy: {rollback_config: {parallelism: 0}}}",
    ),
    (
        "services.*.deploy.rollback_config.delay",
        "web: {deploy: {rollback_config: {delay: 1s}}}",
        "web: {deploy: {rollback_config: {delay: 2s}}}",
    ),
    (
        "services.*.deploy.rollback_config.failure_action",
        "web: {deploy: {rollback_config: {failure_action: pause}}}",
        "web: {deploy: {rollback_config: {failure_action: continue}}}",
    ),
    (
        "services.*.deploy.rollback_config.monitor",
        "web: {deploy: {rollback_config: {monitor: 1s}}}",
        "web: {deploy: {rollback_config: {monitor: 2s}}}",
    ),
    (
        "services.*.deploy.rollback_config.max_failure_ratio",
        "web: {deploy: {rollback_config: {max_failure_ratio: 0.1}}}",
        "web: {deploy: {rollback_config: {max_failure_ratio: 1}}}",
    ),
    (
        "services.*.deploy.rollback_config.order",
        "web: {deploy: {rollback_config: {order: stop-first}}}",
        "web: {deploy: {rollback_config: {order: start-first}}}",
    ),
    (
        "services.*.deploy.restart_policy.delay",
        "web: {deploy: {restart_policy: {delay: 1s}}}",
        "web: {deploy: {restart_policy: {delay: 2s}}}",
    ),
    (
        "services.*.deploy.restart_policy.window",
        "web: {deploy: {restart_policy: {window: 1s}}}",
        "web: {deploy: {restart_policy: {window: 2s}}}",
    ),
    ("services.*.entrypoint", "web: {entrypoint: []}", "web: {entrypoint: null}"),
    ("services.*.env_file", "web: {env_file: a.env}", "web: {}"),
    ("services.*.env_file.*.path", "web: {env_file: [{path: a.env}]}", "web: {env_file: [{path: b.env}]}"),
    (
        "services.*.env_file.*.format",
        "web: {env_file: [{path: a.env}]}",
        "web: {env_file: [{path: a.env, format: raw}]}",
    ),
    ("services.*.environment", "web: {environment: {A: a}}", "web: {environment: [A=b]}"),
    ("services.*.expose", "web: {expose: [80]}", "web: {expose: [80/udp]}"),
    ("services.*.extends", "web: {extends: {service: more, file: sub/x.yaml}}", "web: {}"),
    (
        "services.*.extends.service",
        "web: {extends: {service: more, file: sub/x.yaml}}",
        "web: {extends: {service: other, file: sub/x.yaml}}",
    ),
    (
        "services.*.extends.file",
        "web: {extends: {service: more, file: sub/x.yaml}}",
        "web: {extends: {service: more, file: sub/y.yaml}}",
    ),
    ("services.*.healthcheck", "web: {healthcheck: {test: a}}", "web: {}"),
    (
        "services.*.healthcheck.disable",
        "web: {healthcheck: {test: a, disable: true}}",
        "web: {healthcheck: {test: a}}",
    ),
    (
        "services.*.healthcheck.interval",
        "web: {healthcheck: {test: a, interval: 1s}}",
        "web: {healthcheck: {test: a, interval: 2s}}",
    ),
    (
        "services.*.healthcheck.retries",
        "web: {healthcheck: {test: a, retries: 1}}",
        "web: {healthcheck: {test: a, retries: 2}}",
    ),
    ("services.*.healthcheck.test", "web: {healthcheck: {test: a}}", "web: {healthcheck: {test: [CMD, a]}}"),
    (
        "services.*.healthcheck.timeout",
        "web: {healthcheck: {test: a, timeout: 1s}}",
        "web: {healthcheck: {test: a, timeout: 2s}}",
    ),
    (
        "services.*.healthcheck.start_period",
        "web: {healthcheck: {test: a, start_period: 1s}}",
        "web: {healthcheck: {test: a, start_period: 2s}}",
    ),
    (
        "services.*.healthcheck.start_interval",
        "web: {healthcheck: {test: a, start_interval: 1s}}",
        "web: {healthcheck: {test: a, start_interval: 2s}}",
    ),
    ("services.*.hostname", "web: {hostname: a}", "web: {hostname: b}"),
    ("services.*.labels", "web: {labels: {a: b}}", "web: {labels: [a]}"),
    ("services.*.mem_limit", "web: {mem_limit: 1m}", "web: {mem_limit: 2m}"),
    ("services.*.networks", "web: {networks: [front]}", "web: {networks: [default]}"),
    (
        "services.*.networks.*.aliases",
        "web: {networks: {front: {aliases: [a]}}}",
        "web: {networks: {front: {aliases: [b]}}}",
    ),
    ("services.*.pids_limit", "web: {pids_limit: 1}", "web: {pids_limit: 2}"),
    ("services.*.storage_opt", "web: {storage_opt: {size: 8m}}", "web: {}"),
    ("services.*.storage_opt.size", "web: {storage_opt: {size: 8m}}", "web: {storage_opt: {size: 9m}}"),
    ("services.*.ports", "web: {ports: [80]}", "web: {ports: ['81:80']}"),
    ("services.*.ports.*.target", "web: {ports: [{target: 80}]}", "web: {ports: [{target: 81}]}"),
    (
        "services.*.ports.*.published",
        "web: {ports: [{target: 80, published: 1}]}",
        "web: {ports: [{target: 80, published: 2}]}",
    ),
    (
        "services.*.ports.*.host_ip",
        "web: {ports: [{target: 80, host_ip: 127.0.0.1}]}",
        "web: {ports: [{target: 80, host_ip: 0.0.0.0}]}",
    ),
    (
        "services.*.ports.*.protocol",
        "web: {ports: [{target: 80, protocol: udp}]}",
        "web: {ports: [{target: 80, protocol: tcp}]}",
    ),
    (
        "services.*.ports.*.app_protocol",
        "web: {ports: [{target: 80, app_protocol: grpc}]}",
        "web: {ports: [{target: 80, app_protocol: http}]}",
    ),
    ("services.*.profiles", "web: {profiles: [off]}", "web: {}"),
    ("services.*.restart", "web: {restart: always}", "web: {restart: on-failure:3}"),
    ("services.*.scale", "web: {scale: 2}", "web: {scale: 3}"),
    ("services.*.stop_signal", "web: {stop_signal: SIGINT}", "web: {stop_signal: SIGTERM}"),
    ("services.*.stop_grace_period", "web: {stop_grace_period: 1s}", "web: {stop_grace_period: 1m}"),
    ("services.*.tmpfs", "web: {tmpfs: /a}", "web: {tmpfs: ['/a:size=1m']}"),
    ("services.*.user", "web: {user: a}", "web: {user: 1000:1000}"),
    ("services.*.volumes", "web: {volumes: ['data:/a']}", "web: {volumes: ['data:/a:ro']}"),
    (
        "services.*.volumes.*.type",
        "web: {volumes: [{type: tmpfs, target: /a}]}",
        "web: {volumes: [{type: volume, target: /a}]}",
    ),
    (
        "services.*.volumes.*.source",
        "web: {volumes: [{type: bind, source: /a, target: /a}]}",
        "web: {volumes: [{type: bind, source: /b, target: /a}]}",
    ),
    (
        "services.*.volumes.*.target",
        "web: {volumes: [{type: tmpfs, target: /a}]}",
        "web: {volumes: [{type: tmpfs, target: /b}]}",
    ),
    (
        "services.*.volumes.*.read_only",
        "web: {volumes: [{type: tmpfs, target: /a, read_only: true}]}",
        "web: {volumes: [{type: tmpfs, target: /a}]}",
    ),
    (
        "services.*.volumes.*.bind",
        "web: {volumes: [{type: bind, source: /a, target: /a, bind: {}}]}",
        "web: {volumes: [{type: bind, source: /a, target: /a, bind: {create_host_path: false}}]}",
    ),
    (
        "services.*.volumes.*.bind.create_host_path",
        "web: {volumes: [{type: bind, source: /a, target: /a, bind: {create_host_path: true}}]}",
        "web: {volumes: [{type: bind, source: /a, target: /a, bind: {create_host_path: false}}]}",
    ),
    (
        "services.*.volumes.*.tmpfs",
        "web: {volumes: [{type: tmpfs, target: /a, tmpfs: {}}]}",
        "web: {volumes: [{type: tmpfs, target: /a, tmpfs: {size: 1m}}]}",
    ),
    (
        "services.*.volumes.*.tmpfs.size",
        "web: {volumes: [{type: tmpfs, target: /a, tmpfs: {size: 2m}}]}",
        "web: {volumes: [{type: tmpfs, target: /a, tmpfs: {size: 1m}}]}",
    ),
    ("services.*.working_dir", "web: {working_dir: /a}", "web: {working_dir: /b}"),
    ("configs", "configs: {}", "configs: {new: {file: a}}"),
    ("configs.*.file", "configs: {settings: {file: a}}", "configs: {settings: {file: b}}"),
    ("configs.*.content", "configs: {new: {content: a}}", "configs: {new: {content: b}}"),
    ("configs.*.environment", "configs: {new: {environment: ONE}}", "configs: {new: {environment: TWO}}"),
    ("secrets", "secrets: {}", "secrets: {new: {file: a}}"),
    ("secrets.*.file", "secrets: {token: {file: a}}", "secrets: {token: {file: b}}"),
    ("secrets.*.environment", "secrets: {new: {environment: ONE}}", "secrets: {new: {environment: TWO}}"),
    ("networks.*.labels", "networks: {front: {labels: [a]}}", "networks: {front: {labels: [b]}}"),
    ("volumes.*.labels", "volumes: {data: {labels: [a]}}", "volumes: {data: {labels: [b]}}"),
    (
        "volumes.*.driver_opts",
        "volumes: {data: {driver_opts: {type: none, o: bind, device: /a}}}",
        "volumes: {data: {driver_opts: {type: none, o: 'ro,bind', device: /b}}}",
    ),
    ("services.*.annotations", "web: {annotations: {a: b}}", "web: {annotations: [a=c]}"),
    ("services.*.cap_add", "web: {cap_add: [NET_ADMIN]}", "web: {cap_add: [CAP_SYS_TIME]}"),
    ("services.*.cap_drop", "web: {cap_drop: [chown]}", "web: {cap_drop: [ALL]}"),
    ("services.*.configs", "web: {configs: [settings]}", "web: {configs: []}"),
    (
        "services.*.configs.*.source",
        "web: {configs: [{source: settings, target: /x}]}",
        "web: {configs: [{source: more, target: /x}]}",
    ),
    (
        "services.*.configs.*.target",
        "web: {configs: [{source: settings, target: /x}]}",
        "web: {configs: [{source: settings}]}",
    ),
    (
        "services.*.configs.*.uid",
        "web: {configs: [{source: settings, uid: '1'}]}",
        "web: {configs: [{source: settings, uid: 2}]}",
    ),
    (
        "services.*.configs.*.gid",
        "web: {configs: [{source: settings, gid: '1'}]}",
        "web: {configs: [{source: settings, gid: 2}]}",
    ),
    (
        "services.*.configs.*.mode",
        "web: {configs: [{source: settings, mode: 0440}]}",
        "web: {configs: [{source: settings, mode: 440}]}",
    ),
    ("services.*.secrets", "web: {secrets: [token]}", "web: {secrets: []}"),
    (
        "services.*.secrets.*.source",
        "web: {secrets: [{source: token, target: x}]}",
        "web: {secrets: [{source: other, target: x}]}",
    ),
    (
        "services.*.secrets.*.target",
        "web: {secrets: [{source: token, target: x}]}",
        "web: {secrets: [{source: token, target: /x}]}",
    ),
    (
        "services.*.secrets.*.uid",
        "web: {secrets: [{source: token, uid: '1'}]}",
        "web: {secrets: [{source: token, uid: 2}]}",
    ),
    (
        "services.*.secrets.*.gid",
        "web: {secrets: [{source: token, gid: '1'}]}",
        "web: {secrets: [{source: token, gid: 2}]}",
    ),
    (
        "services.*.secrets.*.mode",
        "web: {secrets: [{source: token, mode: '0440'}]}",
        "web: {secrets: [{source: token, mode: 0o400}]}",
    ),
    ("services.*.cpu_shares", "web: {cpu_shares: 2}", "web: {cpu_shares: 0}"),
    ("services.*.cpu_quota", "web: {cpu_quota: 50000}", "web: {cpu_quota: -1}"),
    (
        "services.*.cpu_period",
        "web: {cpu_quota: 50000, cpu_period: 50000}",
        "web: {cpu_quota: 50000, cpu_period: 100000}",
    ),
    (
        "services.*.deploy.resources.reservations",
        "web: {deploy: {resources: {reservations: {memory: 1m}}}}",
        "web: {deploy: {resources: {reservations: {}}}}",
    ),
    (
        "services.*.deploy.resources.reservations.cpus",
        "web: {deploy: {resources: {reservations: {cpus: 0.5}}}}",
        "web: {deploy: {resources: {reservations: {cpus: 1}}}}",
    ),
    (
        "services.*.deploy.resources.reservations.memory",
        "web: {deploy: {resources: {reservations: {memory: 1m}}}}",
        "web: {deploy: {resources: {reservations: {memory: 2m}}}}",
    ),
    ("services.*.dns", "web: {dns: 1.1.1.1}", "web: {dns: [9.9.9.9]}"),
    ("services.*.dns_opt", "web: {dns_opt: [timeout:1]}", "web: {dns_opt: [timeout:2]}"),
    ("services.*.dns_search", "web: {dns_search: a.example}", "web: {dns_search: [b.example]}"),
    ("services.*.domainname", "web: {domainname: a.example}", "web: {domainname: b.example}"),
    ("services.*.extra_hosts", "web: {extra_hosts: ['a:1.1.1.1']}", "web: {extra_hosts: {a: host-gateway}}"),
    ("services.*.group_add", "web: {group_add: [1]}", "web: {group_add: [a]}"),
    ("services.*.init", "web: {init: true}", "web: {init: false}"),
    ("services.*.label_file", "web: {label_file: a.env}", "web: {label_file: [b.env]}"),
    ("services.*.links", "web: {links: [db]}", "web: {links: ['db:database']}"),
    ("services.*.logging", "web: {logging: {options: {max-size: 1m}}}", "web: {logging: {}}"),
    (
        "services.*.logging.options",
        "web: {logging: {driver: local, options: {max-size: 1m}}}",
        "web: {logging: {driver: json-file, options: {max-file: '5'}}}",
    ),
    ("services.*.mem_reservation", "web: {mem_reservation: 1m}", "web: {mem_reservation: 2m}"),
    (
        "services.*.memswap_limit",
        "web: {mem_limit: 1m, memswap_limit: 2m}",
        "web: {mem_limit: 1m, memswap_limit: -1}",
    ),
    ("services.*.network_mode", "web: {network_mode: none}", "web: {network_mode: bridge}"),
    ("services.*.oom_score_adj", "web: {oom_score_adj: 500}", "web: {oom_score_adj: -1}"),
    ("services.*.post_start", "web: {post_start: [{command: a}]}", "web: {post_start: []}"),
    (
        "services.*.post_start.*.command",
        "web: {post_start: [{command: a b}]}",
        "web: {post_start: [{command: [a b]}]}",
    ),
    (
        "services.*.post_start.*.user",
        "web: {post_start: [{command: a, user: a}]}",
        "web: {post_start: [{command: a, user: b}]}",
    ),
    (
        "services.*.post_start.*.working_dir",
        "web: {post_start: [{command: a, working_dir: /a}]}",
        "web: {post_start: [{command: a, working_dir: /b}]}",
    ),
    (
        "services.*.post_start.*.environment",
        "web: {post_start: [{command: a, environment: {A: a}}]}",
        "web: {post_start: [{command: a, environment: [A=b]}]}",
    ),
    ("services.*.pre_stop", "web: {pre_stop: [{command: a}]}", "web: {pre_stop: []}"),
    ("services.*.pre_stop.*.command", "web: {pre_stop: [{command: a}]}", "web: {pre_stop: [{command: b}]}"),
    (
        "services.*.pre_stop.*.user",
        "web: {pre_stop: [{command: a, user: a}]}",
        "web: {pre_stop: [{command: a, user: b}]}",
    ),
    (
        "services.*.pre_stop.*.working_dir",
        "web: {pre_stop: [{command: a, working_dir: /a}]}",
        "web: {pre_stop: [{command: a, working_dir: /b}]}",
    ),
    (
        "services.*.pre_stop.*.environment",
        "web: {pre_stop: [{command: a, environment: {A: a}}]}",
        "web: {pre_stop: [{command: a, environment: [A=b]}]}",
    ),
    ("services.*.read_only", "web: {read_only: true}", "web: {read_only: false}"),
    ("services.*.shm_size", "web: {shm_size: 1m}", "web: {shm_size: 2m}"),
    (
        "services.*.sysctls",
        "web: {sysctls: {net.core.somaxconn: 9}}",
        "web: {sysctls: [net.core.somaxconn=8]}",
    ),
    ("services.*.ulimits", "web: {ulimits: {nofile: 100}}", "web: {ulimits: {nproc: -1}}"),
    (
        "services.*.ulimits.*.soft",
        "web: {ulimits: {nofile: {soft: 1, hard: 9}}}",
        "web: {ulimits: {nofile: {soft: 2, hard: 9}}}",
    ),
    (
        "services.*.ulimits.*.hard",
        "web: {ulimits: {nofile: {soft: 1, hard: 9}}}",
        "web: {ulimits: {nofile: {soft: 1, hard: -1}}}",
    ),
    (
        "services.*.volumes.*.tmpfs.mode",
        "web: {volumes: [{type: tmpfs, target: /a, tmpfs: {mode: 0700}}]}",
        "web: {volumes: [{type: tmpfs, target: /a, tmpfs: {mode: 0o1777}}]}",
    ),
    (
        "services.*.volumes.*.volume",
        "web: {volumes: [{type: volume, source: data, target: /a, volume: {subpath: x}}]}",
        "web: {volumes: [{type: volume, source: data, target: /a, volume: {}}]}",
    ),
    (
        "services.*.volumes.*.volume.subpath",
        "web: {volumes: [{type: volume, source: data, target: /a, volume: {subpath: x}}]}",
        "web: {volumes: [{type: volume, source: data, target: /a, volume: {subpath: y}}]}",
    ),
    ("services.*.deploy.mode", "web: {deploy: {mode: global}}", "web: {deploy: {mode: replicated}}"),
    (
        "services.*.deploy.placement",
        "{services: {web: {deploy: {placement: {max_replicas_per_node: 1}}}}, x-throng: {nodes: {a: {cpus: 1}}}}",
        "{services: {web: {deploy: {placement: {}}}}, x-throng: {nodes: {a: {cpus: 1}}}}",
    ),
    (
        "services.*.deploy.placement.constraints",
        "{services: {web: {deploy: {placement: {constraints: [node.role == worker]}}}}, x-throng: {nodes: {a: {cpus: 1}}}}",
        "{services: {web: {deploy: {placement: {constraints: [node.role != worker]}}}}, x-throng: {nodes: {a: {cpus: 1}}}}",
    ),
    (
        "services.*.deploy.placement.preferences",
        "{services: {web: {deploy: {placement: {preferences: [{spread: node.hostname}]}}}}, x-throng: {nodes: {a: {cpus: 1}}}}",
        "{services: {web: {deploy: {placement: {preferences: []}}}}, x-throng: {nodes: {a: {cpus: 1}}}}",
    ),
    (
        "services.*.deploy.placement.preferences.*.spread",
        "{services: {web: {deploy: {placement: {preferences: [{spread: node.hostname}]}}}}, x-throng: {nodes: {a: {cpus: 1}}}}",
        "{services: {web: {deploy: {placement: {preferences: [{spread: node.region}]}}}}, x-throng: {nodes: {a: {cpus: 1}}}}",
    ),
    (
        "services.*.deploy.placement.max_replicas_per_node",
        "{services: {web: {deploy: {placement: {max_replicas_per_node: 1}}}}, x-throng: {nodes: {a: {cpus: 1}}}}",
        "{services: {web: {deploy: {placement: {max_replicas_per_node: 2}}}}, x-throng: {nodes: {a: {cpus: 1}}}}",
    ),
    ("services.*.volumes_from", "web: {volumes_from: [db]}", "web: {volumes_from: ['db:ro']}"),
    ("services.*.deploy.labels", "web: {deploy: {labels: {a: b}}}", "web: {deploy: {labels: [a=c]}}"),
    ("services.*.container_name", "web: {container_name: aa}", "web: {container_name: bb}"),
    ("services.*.cpuset", "web: {cpuset: 0-1}", "web: {cpuset: '0'}"),
    ("services.*.mem_swappiness", "web: {mem_swappiness: 0}", "web: {mem_swappiness: -1}"),
    (
        "services.*.oom_kill_disable",
        "web: {mem_limit: 64m, oom_kill_disable: true}",
        "web: {mem_limit: 64m, oom_kill_disable: false}",
    ),
    ("services.*.pull_policy", "web: {pull_policy: always}", "web: {pull_policy: every_12h}"),
    (
        "services.*.pull_refresh_after",
        "web: {pull_policy: refresh, pull_refresh_after: 1d}",
        "web: {pull_policy: refresh, pull_refresh_after: 2d}",
    ),
    (
        "services.*.security_opt",
        "web: {security_opt: ['seccomp:unconfined']}",
        "web: {security_opt: ['no-new-privileges:true']}",
    ),
    ("services.*.devices", "web: {devices: [/dev/fuse]}", "web: {devices: ['/dev/fuse:/dev/other']}"),
    (
        "services.*.devices.*.source",
        "web: {devices: [{source: /dev/a, target: /dev/x}]}",
        "web: {devices: [{source: /dev/b, target: /dev/x}]}",
    ),
    (
        "services.*.devices.*.target",
        "web: {devices: [{source: /dev/a, target: /dev/x}]}",
        "web: {devices: [{source: /dev/a, target: /dev/y}]}",
    ),
    (
        "services.*.devices.*.permissions",
        "web: {devices: [{source: /dev/a, permissions: r}]}",
        "web: {devices: [{source: /dev/a, permissions: rw}]}",
    ),
    ("services.*.stdin_open", "web: {stdin_open: true}", "web: {stdin_open: false}"),
    (
        "services.*.build.additional_contexts",
        "web: {build: {additional_contexts: {a: ./x}}}",
        "web: {build: {additional_contexts: [a=service:db]}}",
    ),
    (
        "services.*.build.dockerfile_inline",
        "web: {build: {dockerfile_inline: FROM a}}",
        "web: {build: {dockerfile_inline: FROM b}}",
    ),
    (
        "services.*.build.extra_hosts",
        "web: {build: {extra_hosts: ['a:1.1.1.1']}}",
        "web: {build: {extra_hosts: {a: 2.2.2.2}}}",
    ),
    ("services.*.build.labels", "web: {build: {labels: {a: b}}}", "web: {build: {labels: [a=c]}}"),
    ("services.*.build.network", "web: {build: {network: none}}", "web: {build: {network: host}}"),
    ("services.*.build.no_cache", "web: {build: {no_cache: true}}", "web: {build: {no_cache: false}}"),
    ("services.*.build.pull", "web: {build: {pull: true}}", "web: {build: {pull: false}}"),
    ("services.*.build.secrets", "web: {build: {secrets: [token]}}", "web: {build: {secrets: []}}"),
    (
        "services.*.build.secrets.*.source",
        "web: {build: {secrets: [{source: token, target: x}]}}",
        "web: {build: {secrets: [{source: other, target: x}]}}",
    ),
    (
        "services.*.build.secrets.*.target",
        "web: {build: {secrets: [{source: token, target: x}]}}",
        "web: {build: {secrets: [{source: token}]}}",
    ),
    (
        "services.*.build.secrets.*.uid",
        "web: {build: {secrets: [{source: token, uid: '1'}]}}",
        "web: {build: {secrets: [{source: token, uid: 2}]}}",
    ),
    (
        "services.*.build.secrets.*.gid",
        "web: {build: {secrets: [{source: token, gid: '1'}]}}",
        "web: {build: {secrets: [{source: token, gid: 2}]}}",
    ),
    (
        "services.*.build.secrets.*.mode",
        "web: {build: {secrets: [{source: token, mode: 0400}]}}",
        "web: {build: {secrets: [{source: token, mode: 0o440}]}}",
    ),
    ("services.*.build.shm_size", "web: {build: {shm_size: 1m}}", "web: {build: {shm_size: 2m}}"),
    (
        "services.*.build.tags",
        "web: {build: {tags: [a]}}",
        "web: {build: {tags: ['a:1', 'reg.example:5000/b']}}",
    ),
    (
        "services.*.build.ulimits",
        "web: {build: {ulimits: {nofile: 10}}}",
        "web: {build: {ulimits: {nofile: 20}}}",
    ),
    (
        "services.*.build.ulimits.*.soft",
        "web: {build: {ulimits: {nofile: {soft: 1, hard: 9}}}}",
        "web: {build: {ulimits: {nofile: {soft: 2, hard: 9}}}}",
    ),
    (
        "services.*.build.ulimits.*.hard",
        "web: {build: {ulimits: {nofile: {soft: 1, hard: 9}}}}",
        "web: {build: {ulimits: {nofile: {soft: 1, hard: 8}}}}",
    ),
];

fn load(change: &str) -> App {
    let change = match change.strip_prefix("web: ") {
        Some(keys) => format!("services: {{web: {keys}}}"),
        None => change.to_owned(),
    };
    let files = [
        ("a.yaml", BASE),
        ("b.yaml", &change),
        ("a.env", "A='a'\n"),
        ("b.env", "A=b\n"),
        ("sub/x.yaml", OTHER),
        ("sub/y.yaml", &OTHER.replace("user: me", "user: you")),
    ];
    let environment = &[("ONE", "1"), ("TWO", "2")];
    let (result, _) = Case { files: &files, environment, ..Case::default() }.load();
    let loaded = result.unwrap_or_else(|findings| panic!("{change}: {findings:?}"));
    // A UDP port changes the app but is not published yet, which is a warning of its own.
    let unexpected = loaded.warnings.iter().find(|warning| !warning.message.contains("UDP port"));
    assert_eq!(unexpected, None, "{change}");
    let mut app = loaded.app;
    app.directory = "/".into();
    app
}

#[test]
fn an_honoured_key_changes_the_app() {
    // What is right about them changes nothing, and what is wrong is an error: see the findings.
    let shown_elsewhere = [
        "services.*.env_file.*.required",
        "services.*.logging.driver",
        "services.*.platform",
        "volumes.*.driver",
    ];
    let tried: BTreeSet<&str> = PAIRS.iter().map(|(path, ..)| *path).chain(shown_elsewhere).collect();
    let honoured: BTreeSet<&str> =
        key_table().iter().filter(|row| row.status == Status::Honoured).map(|row| row.path).collect();
    assert_eq!(tried, honoured, "each honoured key needs a pair in this test");
    for (path, one, other) in PAIRS {
        assert_ne!(load(one), load(other), "{path} makes no difference");
    }
}

/// Paths whose `*` is a name in a mapping; every other one is an element of a list.
const NAMED: [(&str, &str); 8] = [
    ("configs", "settings"),
    ("secrets", "token"),
    ("services", "web"),
    ("networks", "default"),
    ("volumes", "data"),
    ("services.*.networks", "default"),
    ("services.*.depends_on", "db"),
    ("services.*.build.ulimits", "x"),
];

/// A value for `path` in which the key at its end asks for something.
fn using(path: &str, from: usize) -> String {
    let Some(rest) = path.get(from..).filter(|rest| !rest.is_empty()) else { return "{x-own: 1}".into() };
    let part = rest.split('.').next().unwrap_or(rest);
    let inner = using(path, from + part.len() + 1);
    let parent = path[..from].trim_end_matches('.');
    match NAMED.iter().find(|(named, _)| *named == parent) {
        _ if part != "*" => format!("{{{part}: {inner}}}"),
        Some((_, name)) => format!("{{{name}: {inner}}}"),
        None => format!("[{inner}]"),
    }
}

#[test]
fn every_other_key_is_warned_about_or_refused_at_its_place() {
    for row in key_table().iter().filter(|row| row.status != Status::Honoured) {
        let key = row.path.rsplit('.').next().unwrap();
        let parent = &row.path[..row.path.len() - key.len()];
        let parent_is_warned = key_table()
            .iter()
            .any(|other| other.status != Status::Honoured && parent.starts_with(&format!("{}.", other.path)));
        if parent_is_warned {
            // The warning about the outer key covers what is in it.
            continue;
        }
        let text = using(row.path, 0);
        let files = [("a.yaml", BASE), ("b.yaml", text.as_str())];
        let (result, _) = Case { files: &files, ..Case::default() }.load();
        let findings = result.map(|loaded| loaded.warnings).unwrap_or_else(|findings| findings);
        let column = text.rfind(&format!("{key}: ")).unwrap() + 1;
        let found = findings.iter().any(|finding| {
            let place = finding.location.as_ref().map(|at| (at.line, at.column));
            let severity = match row.status {
                Status::Refused => Severity::Error,
                _ => Severity::Warning,
            };
            finding.message.starts_with(&format!("{key:?} "))
                && finding.severity == severity
                && finding.hint.is_some()
                && place == Some((1, column))
        });
        assert!(found, "{}: {text}\n{findings:#?}", row.path);
    }
}

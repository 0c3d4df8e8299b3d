//! Files through Docker's own Compose: those that try one thing after the other, and some as people write them.

use crate::peers::{compare, is_here};

/// Files of a project; those that end in `.yaml` and lie in no folder below are merged in this order.
type Project = &'static [(&'static str, &'static str)];

/// A project of one file.
const fn alone(text: &'static str) -> [(&'static str, &'static str); 1] {
    [("compose.yaml", text)]
}

const PROJECTS: &[Project] = &[
    &alone("version: '3.8'
services:
  web:
    image: web:${TAG:-1}
    command: serve --port 80 \"a b\"
    environment: [A=1, 'B=two words']
    labels: {c: d}
    user: '1000'
    working_dir: /srv
    hostname: web
    restart: on-failure:3
    stop_grace_period: 90s
    expose: ['70']
    healthcheck: {test: [CMD, a], interval: 90s, timeout: 1s, retries: 2, start_period: 5s}
    depends_on: [db]
  db:
    image: db
    entrypoint: [run, fast]
"),
    &alone("version: '3.8'
services:
  web:
    image: a
    ports: ['8080:80', '127.0.0.1:9000:90/udp', {target: 70, published: 71}]
    volumes: ['data:/data', './src:/src:ro', {type: bind, source: /a, target: /b}]
    deploy: {replicas: 2, resources: {limits: {cpus: '0.5', memory: 64M}}}
volumes: {data: }
"),
    &alone("version: '3.8'
x-base: &base {environment: {A: 1, B: 2}, image: a}
services:
  web:
    <<: *base
    build: {context: ./web, target: t, args: [X=y]}
    networks: {front: {aliases: [www]}, back: }
    command: [echo, '$$HOME']
networks: {front: {internal: true}, back: }
"),
    // Privileges, limits and names.
    &alone("version: '3.8'
services:
  web:
    image: a
    cap_add: [NET_ADMIN]
    cap_drop: [ALL]
    group_add: ['7', audio]
    ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5}
    sysctls: [net.core.somaxconn=9]
    extra_hosts: ['a:1.2.3.4', 'b:5.6.7.8']
    dns: 1.1.1.1
    dns_search: [a.example]
    dns_opt: ['timeout:1']
    domainname: x.example
    tmpfs: /run
    read_only: true
    shm_size: 1m
    stop_signal: SIGINT
    network_mode: none
    oom_score_adj: 5
    cpu_shares: 50
    logging: {driver: json-file, options: {max-size: 1m}}
"),
    // The older places of limits.
    &alone("version: '3.8'
services:
  web: {image: a, mem_limit: 64m, cpus: 0.5, pids_limit: 5, mem_reservation: 32m}
  two: {image: a, deploy: {resources: {limits: {memory: 64m}, reservations: {memory: 32m}}}}
"),
    // What stands beside the services.
    &alone("version: '3.8'
services:
  web:
    image: a
    secrets: [s, {source: two, target: t, mode: 0440, uid: '5'}]
    networks: {n: {aliases: [x]}}
secrets: {s: {file: ./s}, two: {file: /two}}
networks: {n: {internal: true, ipam: {config: [{subnet: 10.1.0.0/16}]}, labels: [a=b]}}
volumes: {v: {driver: local, driver_opts: {type: none, o: bind, device: /x}, labels: {c: d}}, w: {external: true}}
"),
    // One file over another.
    &[
        (
            "a.yaml",
            "version: '3.8'
services:
  web:
    image: a
    command: [one, two]
    environment: {A: 1, B: 1}
    labels: [x=1]
    expose: ['1']
    ports: ['1:1']
    volumes: ['data:/data', './a:/a']
    cap_add: [NET_ADMIN]
    dns: 1.1.1.1
    ulimits: {nproc: 1, core: 0}
    logging: {driver: json-file, options: {max-size: 1m}}
    extra_hosts: ['a:1.2.3.4']
    sysctls: {net.core.somaxconn: 9}
    build: {context: ., args: {A: 1}}
    healthcheck: {test: [CMD, a], interval: 5s, timeout: 1s, retries: 2, start_period: 5s}
volumes: {data: }
",
        ),
        (
            "b.yaml",
            "version: '3.8'
services:
  web:
    image: b
    command: three
    environment: [B=2, C=3]
    labels: {y: 2}
    expose: ['2']
    ports: ['2:2']
    volumes: ['other:/data']
    cap_add: [SYS_TIME]
    dns: [9.9.9.9]
    ulimits: {nproc: {soft: 1, hard: 2}}
    extra_hosts: ['b:5.6.7.8']
    sysctls: [net.ipv4.tcp_syncookies=1]
    build: {args: [B=2], target: t}
    healthcheck: {test: [CMD, b]}
  db: {image: db}
volumes: {other: }
",
        ),
    ],
    // Services that begin as others.
    &[
        (
            "compose.yaml",
            "version: '3.8'
services:
  base: {image: a, environment: {A: 1, B: 1}, expose: ['1'], labels: [x=y], command: [a]}
  web: {extends: base, environment: [B=2], expose: ['2'], command: [b]}
  more: {extends: {service: web}, user: me}
  other: {extends: {file: sub/o.yaml, service: o}, environment: {X: 9}}
",
        ),
        (
            "sub/o.yaml",
            "version: '3.8'
services:
  o: {extends: {file: ../deep/p.yaml, service: p}, env_file: e.env, volumes: ['./d:/d'], build: {context: .}}
",
        ),
        ("sub/e.env", "X=1\nY=two words\n# c\nexport Z='q'\n"),
        ("deep/p.yaml", "version: '3.8'\nservices: {p: {image: p, volumes: ['../up:/up'], hostname: p}}\n"),
    ],
    // Variables.
    &[
        (
            "compose.yaml",
            "version: '3.8'
services:
  web:
    image: a:${TAG}
    user: ${NO-u}${NO:-v}${EMPTY-w}${EMPTY:-x}
    hostname: ${TAG:?needed}
    environment:
      A: ${NO:-word} ${NO-}
      B: $$TAG $${TAG}
      C: ${TAG:-never}
",
        ),
        (".env", "TAG=one\nEMPTY=\n"),
    ],
];

/// As they stand in repositories of web shops, dashboards and tools.
const AS_PEOPLE_WRITE: &[Project] = &[
    // A site, its database and its cache.
    &[
        (
            "compose.yaml",
            "version: '3.8'
x-logging: &logging
  driver: json-file
  options: {max-size: \"10m\", max-file: \"3\"}
x-env: &env
  TZ: Europe/Berlin
  LOG_LEVEL: ${LOG_LEVEL:-info}
services:
  web:
    image: \"nginx:${NGINX_VERSION:-1.25}-alpine\"
    ports:
      - \"8080:80\"
      - \"127.0.0.1:8443:443/tcp\"
      - 3000-3002:3000-3002
      - {target: 9000, published: 9001, protocol: tcp, mode: host}
      - 7000
    environment:
      <<: *env
      EMPTY:
      NUM: 5
      BOOL: \"true\"
    env_file: [a.env, b.env]
    healthcheck:
      test: curl -f http://localhost || exit 1
      interval: 1m30s
      timeout: 10s
      retries: 3
      start_period: 40s
    depends_on:
      db: {condition: service_healthy}
      cache: {condition: service_started}
    logging: *logging
    networks:
      front: {aliases: [www, site]}
      back: {}
    volumes:
      - ./html:/usr/share/nginx/html:ro
      - type: bind
        source: ./conf
        target: /etc/nginx
        read_only: true
      - {type: tmpfs, target: /cache}
      - logs:/var/log
      - /anon
    tmpfs: [/run, '/tmp:size=64m']
    labels:
      traefik.enable: \"true\"
      traefik.http.routers.web.rule: Host(`a.example`)
    restart: unless-stopped
    container_name: the-web
  db:
    image: postgres:15
    environment: [POSTGRES_PASSWORD=secret, \"POSTGRES_DB=app\"]
    healthcheck: {test: [CMD-SHELL, \"pg_isready -U postgres\"], interval: 5s}
    volumes: [\"pg:/var/lib/postgresql/data\"]
    networks: [back]
    secrets: [pw]
    configs: [{source: conf, target: /etc/pg.conf, mode: 0440}]
    shm_size: 128mb
    ulimits: {nofile: {soft: 20000, hard: 40000}, nproc: 65535}
    stop_grace_period: 1m
    init: true
    privileged: false
    cpuset: 0,1
    mem_swappiness: 10
    stdin_open: true
    tty: false
    security_opt: [no-new-privileges:true]
  cache:
    image: redis
    command: [\"redis-server\", \"--appendonly\", \"yes\"]
    entrypoint: docker-entrypoint.sh --x 'a b'
    healthcheck: {disable: true}
    networks: {back: {}}
secrets: {pw: {file: ./pw.txt}}
configs: {conf: {file: ./pg.conf}}
networks:
  front: {driver: bridge}
  back: {internal: true}
volumes: {pg: {}, logs: {name: my-logs}}
",
        ),
        ("a.env", "A=1\nB=\"two words\"\n# c\nexport D=4\nE=\n"),
        ("b.env", "A=2\nF=x#y\nG='single $HOME'\n"),
    ],
    // A queue with workers, for a swarm.
    &alone("version: '3.8'
services:
  worker:
    image: worker
    deploy:
      replicas: 6
      labels: [com.example=x, flag]
      update_config: {parallelism: 2, delay: 10s, order: start-first, failure_action: rollback, monitor: 30s, max_failure_ratio: 0.25}
      rollback_config: {parallelism: 0, order: stop-first}
      restart_policy: {condition: on-failure, delay: 5s, max_attempts: 3, window: 120s}
      resources:
        limits: {cpus: '0.50', memory: 50M}
        reservations: {cpus: '0.25', memory: 20M}
  queue:
    image: rabbitmq:3-management
    hostname: queue
    ports: ['15672:15672', '5672']
    volumes:
      - type: volume
        source: data
        target: /var/lib/rabbitmq
        volume: {nocopy: true}
volumes:
  data:
    driver: local
    labels: {backup: 'yes'}
"),
    // What services share, merged into each.
    &alone("version: '3.8'
x-common: &common
  restart: always
  environment: &environment {A: one, B: two}
  networks: [default, other]
x-more: &more {user: '1000:1000', labels: {x: y}}
services:
  a:
    <<: *common
    image: a
    environment:
      <<: *environment
      B: three
      C: four
  b:
    <<: [*common, *more]
    image: b
    labels: {own: label}
    x-note: [anything]
networks:
  other:
    labels: [a=b]
    x-mine: 1
x-last: {deep: {deeper: [1, 2]}}
"),
    // Base, development and test over one another.
    &[
        (
            "base.yaml",
            "version: '3.8'
services:
  app:
    image: app:latest
    command: serve
    environment: {MODE: production, KEEP: me}
    ports: ['80:80']
    volumes: ['./data:/data', 'cache:/cache']
    depends_on: [db]
    healthcheck: {test: [CMD, ok], interval: 10s}
    deploy: {resources: {limits: {memory: 1g}}}
    dns: [1.1.1.1]
    labels: [a=1]
  db: {image: postgres, expose: ['5432']}
volumes: {cache: }
",
        ),
        (
            "dev.yaml",
            "version: '3.8'
services:
  app:
    build: {context: ., target: dev, args: {DEBUG: 1}}
    command: [serve, --reload]
    environment: [MODE=development, DEBUG=1]
    ports: ['9229:9229']
    volumes: ['.:/data', '/app/node_modules']
    depends_on: [mail]
    labels: {a: 2, b: 3}
  mail: {image: mailhog, ports: ['8025:8025']}
",
        ),
        (
            "test.yaml",
            "version: '3.8'
services:
  app:
    command: test
    healthcheck: {interval: 1s, retries: 9}
    deploy: {resources: {limits: {cpus: '2'}}, replicas: 2}
    dns: 9.9.9.9
  db: {environment: {POSTGRES_PASSWORD: x}}
",
        ),
    ],
    // Variables with every operator, in keys' values of all kinds.
    &[
        (
            "compose.yaml",
            "version: '3.8'
services:
  web:
    image: ${REGISTRY:-reg.example}/${NAME}:${TAG-latest}
    command: ['${A}', \"${EMPTY:-default}\", '${EMPTY-kept}', '$NAME-x', '$${A}', '${NO:-a:b/c}']
    environment:
      - URL=http://${NAME}:${PORT}/${NO:-}?x=$$y
      - ${NAME}_KEY=value
      - INHERIT=${NO-}
    ports: ['${PORT}:${PORT:-80}', '${NO:-127.0.0.1}:81:81']
    volumes: ['${DIR:-./here}:/there:${ACCESS:-ro}']
    labels: {'a.b': '${A:?must be set}', c: '${EMPTY?may be empty}'}
    mem_limit: ${MEMORY:-64}m
    deploy: {replicas: 2}
",
        ),
        (".env", "NAME=shop\nPORT=8000\nA=one\nEMPTY=\nQUOTED='it is'\n"),
    ],
    // Ports in every form.
    &alone("version: '3.8'
services:
  web:
    image: a
    ports:
      - '3000'
      - '3001-3003'
      - '8000:8000'
      - '9090-9091:8080-8081'
      - '127.0.0.1:8001:8001'
      - '127.0.0.1:5000-5002:5000-5002'
      - '[::1]:6001:6001'
      - '12400-12401:1240-1241/tcp'
    expose: ['3000', '8000']
"),
    // Volumes in every form.
    &alone("version: '3.8'
services:
  web:
    image: a
    volumes:
      - /var/lib/mysql
      - /opt/data:/var/lib/data
      - ./cache:/tmp/cache
      - ../up:/up:ro
      - named:/var/lib/named
      - named:/var/lib/again:ro
      - {type: volume, source: named, target: /long, read_only: true}
      - {type: bind, source: ./bind, target: /bound, bind: {propagation: rprivate}}
      - {type: tmpfs, target: /memory, tmpfs: {size: 1000}}
      - {type: volume, target: /nameless}
    working_dir: /srv
    read_only: true
volumes:
  named: {external: true, name: actual}
"),
    // Health checks in every form.
    &alone("version: '3.8'
services:
  a: {image: a, healthcheck: {test: 'curl -f http://x/ || exit 1', interval: 1m, timeout: 1h2m3s}}
  b: {image: b, healthcheck: {test: [CMD, 'a b', c], retries: 1}}
  c: {image: c, healthcheck: {test: [CMD-SHELL, 'a && b | c'], start_period: 2m30s}}
  d: {image: d, healthcheck: {test: [NONE]}}
  e: {image: e, healthcheck: {disable: true}}
"),
    // What begins as something else, over three files.
    &[
        (
            "compose.yaml",
            "version: '3.8'
services:
  api:
    extends: {file: common/services.yaml, service: python}
    command: api
    ports: ['8000:8000']
    environment: {ROLE: api}
  worker:
    extends: {file: common/services.yaml, service: python}
    command: worker
    environment: {ROLE: worker}
  tool:
    extends: {service: worker}
    entrypoint: [tool]
    labels: [t=1]
",
        ),
        (
            "common/services.yaml",
            "version: '3.8'
services:
  base: {image: base, logging: {driver: json-file, options: {max-size: 5m}}, cap_drop: [ALL]}
  python:
    extends: base
    build: {context: ../app, args: [A=1]}
    env_file: [common.env]
    environment: {ROLE: none, PYTHONUNBUFFERED: 1}
    volumes: ['../app:/app', './cache:/cache']
    cap_add: [NET_BIND_SERVICE]
",
        ),
        ("common/common.env", "FROM_FILE=yes\nROLE=file\n"),
    ],
    // Networks and who is called what in them.
    &alone("version: '3.8'
services:
  proxy: {image: a, networks: {front: , back: {aliases: [gate, proxy.internal]}}}
  app: {image: b, networks: [back], hostname: app, domainname: example.org, extra_hosts: ['db.example:10.0.0.5', 'x:10.0.0.6']}
  lonely: {image: c, network_mode: none}
  plain: {image: d, dns: [8.8.8.8, 8.8.4.4], dns_search: example.com}
networks:
  front: {driver: bridge}
  back: {internal: true, ipam: {driver: default, config: [{subnet: 172.28.0.0/16}]}, labels: {a: b}}
"),
    // Secrets and configs, short and long.
    &alone("version: '3.8'
services:
  web:
    image: a
    secrets:
      - one
      - {source: two, target: /etc/two, uid: '103', gid: '103', mode: 0440}
      - {source: two, target: three}
    configs:
      - plain
      - {source: other, target: /other.conf, mode: 0444}
secrets: {one: {file: ./one.txt}, two: {file: ~/two.txt}}
configs: {plain: {file: ./plain}, other: {file: /abs/other}}
"),
    // A build as a team has it.
    &alone("version: '3.8'
services:
  web:
    image: team/web:dev
    build:
      context: ./web
      dockerfile: docker/Dockerfile.dev
      args: {NODE_ENV: development, EMPTY: '', N: 5}
      labels: [com.example.a=1]
      target: builder
      shm_size: 64mb
      extra_hosts: ['a:1.2.3.4']
      network: host
    stop_signal: SIGUSR1
    pids_limit: 100
    oom_score_adj: -5
    group_add: ['1000']
    sysctls: {net.core.somaxconn: 1024, net.ipv4.tcp_syncookies: 0}
    ulimits: {nofile: 1024}
  plain: {build: .}
  args: {build: {context: web, args: [A=1, 'B=x=y']}}
"),
];

#[test]
fn files_that_both_accept_mean_the_same_to_docker_compose() {
    if is_here("files_that_both_accept_mean_the_same_to_docker_compose") {
        compare(PROJECTS);
    }
}

#[test]
fn files_as_people_write_them_mean_the_same_to_docker_compose() {
    if is_here("files_as_people_write_them_mean_the_same_to_docker_compose") {
        compare(AS_PEOPLE_WRITE);
    }
}

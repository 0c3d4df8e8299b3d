//! What is said about Compose files, word by word and place by place.

use crate::common::{Case, check};

/// Checks keys of a service that is otherwise good; they begin in column 5 of line 4.
#[track_caller]
fn check_service(keys: &str, expected: &str) {
    check(&format!("services:\n  web:\n    image: web\n    {keys}\n"), expected);
}

#[test]
fn a_file_without_faults_has_no_findings() {
    check(
        "services:
  web:
    image: web:1
    x-note: {anything: [goes]}
    privileged: false
    cap_add: []
x-more: 1
",
        "",
    );
}

#[test]
fn a_number_is_no_image() {
    check(
        "services:\n  web: {image: 3}\n",
        "compose.yaml:2:16: error: expected an image, found the number 3 (hint: quote it if an image is called so)",
    );
    check("services:\n  web: {image: '3'}\n", "");
}

#[test]
fn not_yaml() {
    check(
        "services: [\n",
        "compose.yaml:1:11: error: not valid YAML: nothing closes this bracket (hint: put a `]` where it ends, or quote it if it is text)",
    );
    check(
        "services:\n\t web:\n",
        "compose.yaml:2:3: error: not valid YAML: tabs disallowed within this context (block indentation) (hint: indent with spaces: YAML allows no tabs there)",
    );
    check(
        "services:\n  web: {image: a\n",
        "compose.yaml:2:8: error: not valid YAML: nothing closes this bracket (hint: put a `}` where it ends, or quote it if it is text)",
    );
    check(
        "services: *nope\n",
        "compose.yaml:1:11: error: not valid YAML: while parsing node, found unknown anchor (hint: define the anchor with `&name` above its first use)",
    );
    check(
        "services: &a [*a]\n",
        "compose.yaml:1:15: error: this alias stands inside the value it refers to (hint: a value cannot contain itself)",
    );
    check(
        "a: 1\n---\nb: 2\n",
        "compose.yaml:2:1: error: more than one YAML document in the file (hint: keep one document to a file; several files can be merged)",
    );
    check(
        "a: 1\na: 2\n",
        r#"compose.yaml:2:1: error: the key "a" is given twice (hint: it is first given on line 1; keep one of them)"#,
    );
    check(
        "{[a]: 1}\n",
        "compose.yaml:1:2: error: expected a text as key, found a list (hint: quote a value that starts with [ or {)",
    );
    check("<<: 5\n", "compose.yaml:1:5: error: expected a mapping to merge with <<, found a number");
    check(&"[".repeat(100), "compose.yaml:1:65: error: nested more than 64 levels deep");
}

#[test]
fn too_little() {
    check("", r#"compose.yaml:1:1: error: the file is empty (hint: a Compose file has at least "services")"#);
    check(
        "# nothing\n",
        r#"compose.yaml:1:1: error: the file is empty (hint: a Compose file has at least "services")"#,
    );
    check(
        "just text\n",
        r#"compose.yaml:1:1: error: a Compose file is a mapping, found a text (hint: a Compose file has at least "services")"#,
    );
    check(
        "- a\n",
        r#"compose.yaml:1:1: error: a Compose file is a mapping, found a list (hint: a Compose file has at least "services")"#,
    );
    check(
        "name: shop\n",
        r#"compose.yaml:1:1: error: the file has no services (hint: add a mapping "services" with at least one service)"#,
    );
    check(
        "services:\n",
        r#"compose.yaml:1:1: error: the file has no services (hint: add a mapping "services" with at least one service)"#,
    );
    check(
        "services: {}\n",
        r#"compose.yaml:1:11: error: "services" is empty (hint: add at least one service with an image or a build)"#,
    );
    check("services: []\n", "compose.yaml:1:11: error: expected a mapping, found a list");
    check(
        "services:\n  web:\n",
        r#"compose.yaml:2:3: error: the service "web" has neither image nor build (hint: add image: with a reference, or build: with a folder)"#,
    );
    check(
        "services:\n  web: {}\n",
        r#"compose.yaml:2:3: error: the service "web" has neither image nor build (hint: add image: with a reference, or build: with a folder)"#,
    );
    check(
        "services:\n  web: {command: a}\n",
        r#"compose.yaml:2:3: error: the service "web" has neither image nor build (hint: add image: with a reference, or build: with a folder)"#,
    );
    check("services:\n  web: []\n", "compose.yaml:2:8: error: expected a mapping, found a list");
    check("services:\n  web: {image: ''}\n", "compose.yaml:2:16: error: expected a text, found an empty one");
}

#[test]
fn keys_that_are_unknown_without_effect_or_refused() {
    check(
        "version: '3'\nservices: {web: {image: a}}\n",
        r#"compose.yaml:1:1: warning: "version" has no effect (hint: remove it: the specification has no versions any more)"#,
    );
    check(
        "service: {}\nservices: {web: {image: a}}\n",
        r#"compose.yaml:1:1: warning: unknown key "service" at the top level (hint: did you mean "services"?)"#,
    );
    check_service(
        "imagee: a",
        r#"compose.yaml:4:5: warning: unknown key "imagee" of a service (hint: did you mean "image"?)"#,
    );
    check_service(
        "zzz: a",
        r#"compose.yaml:4:5: warning: unknown key "zzz" of a service (hint: it has no effect; keys of your own start with x-)"#,
    );
    check_service(
        "tty: true",
        r#"compose.yaml:4:5: warning: "tty" of a service has no effect (hint: output goes to a log; use `throng exec` for a terminal)"#,
    );
    check_service(
        "pid: host",
        r#"compose.yaml:4:5: error: "pid" of a service cannot be honoured (hint: every replica has process numbers of its own)"#,
    );
    check_service(
        "deploy: {replica: 3, mode: global}",
        r#"compose.yaml:4:14: warning: unknown key "replica" under deploy (hint: did you mean "replicas"?)"#,
    );
    check_service(
        "deploy: {mode: replicated, endpoint_mode: dnsrr}",
        r#"compose.yaml:4:32: warning: "endpoint_mode" under deploy has no effect (hint: a name of a service leads to all of its ready replicas in turn)"#,
    );
    check_service("ports: [{target: 80, mode: host}, {target: 81, mode: ingress}]", "");
    check_service(
        "healthcheck: {test: a, start_intervall: 1s}",
        r#"compose.yaml:4:28: warning: unknown key "start_intervall" under healthcheck (hint: did you mean "start_interval"?)"#,
    );
    check(
        "services: {web: {image: a}}\nsecrets: {s: {external: true}}\nnetworks: {default: {driver: macvlan, name: mine}}\n",
        r#"compose.yaml:2:15: error: "external" of a secret cannot be honoured (hint: there is no store of secrets; name a file, or a variable with environment)
compose.yaml:3:22: error: "driver" of a network cannot be honoured (hint: a network is a bridge of this host)
compose.yaml:3:39: warning: "name" of a network has no effect (hint: a network belongs to its app and is named after it)"#,
    );
    check("services: {web: {image: a}}\nnetworks: {default: {driver: bridge, name: shop_default}}\n", "");
}

#[test]
fn values_of_the_wrong_kind() {
    check_service("ports: 80", r#"compose.yaml:4:12: error: expected a list, found "80""#);
    check_service("environment: 5", r#"compose.yaml:4:18: error: expected a mapping, found "5""#);
    check_service("environment: [{A: b}]", "compose.yaml:4:19: error: expected NAME=value, found a mapping");
    check_service("environment: {A: [b]}", "compose.yaml:4:22: error: expected a text, found a list");
    check_service("command: {a: b}", "compose.yaml:4:14: error: expected a list, found a mapping");
    check_service("command: [a, [b]]", "compose.yaml:4:18: error: expected a text, found a list");
    check_service(
        "command: 'a \"b'",
        "compose.yaml:4:14: error: a quote that does not end (hint: close the quote, or write the words as a list)",
    );
    check_service("deploy: 3", r#"compose.yaml:4:13: error: expected a mapping, found "3""#);
    check_service(
        "deploy: {replicas: [3]}",
        "compose.yaml:4:24: error: expected a whole number of replicas, 0 or more, found a list",
    );
    check_service(
        "deploy: {replicas: many}",
        r#"compose.yaml:4:24: error: expected a whole number of replicas, 0 or more, found "many""#,
    );
    check_service(
        "deploy: {replicas: -1}",
        r#"compose.yaml:4:24: error: expected a whole number of replicas, 0 or more, found "-1""#,
    );
    check_service(
        "deploy: {replicas: 1.5}",
        r#"compose.yaml:4:24: error: expected a whole number of replicas, 0 or more, found "1.5""#,
    );
    check_service(
        "scale: 1000000",
        "compose.yaml:4:12: error: scale asks for more than 100000 replicas, the most of one service",
    );
    check_service("labels: {a: {b: c}}", "compose.yaml:4:17: error: expected a text, found a mapping");
    check_service("profiles: a", r#"compose.yaml:4:15: error: expected a list, found "a""#);
    check_service("depends_on: 5", r#"compose.yaml:4:17: error: expected a mapping, found "5""#);
    check_service("volumes: {a: b}", "compose.yaml:4:14: error: expected a list, found a mapping");
    check_service("healthcheck: []", "compose.yaml:4:18: error: expected a mapping, found a list");
}

#[test]
fn sizes_durations_and_numbers() {
    check_service(
        "mem_limit: 12q",
        r#"compose.yaml:4:16: error: "12q" is not a size; write a number with b, k, m, g or t, as in 64m"#,
    );
    check_service(
        "cpus: fast",
        r#"compose.yaml:4:11: error: expected a number of cores such as 0.5, found "fast""#,
    );
    check_service(
        "cpus: -1",
        r#"compose.yaml:4:11: error: expected a number of cores such as 0.5, found "-1""#,
    );
    check_service("cpus: .001", "compose.yaml:4:11: error: 0.01 of a core is the least that can be given");
    check_service(
        "cpus: .inf",
        r#"compose.yaml:4:11: error: expected a number of cores such as 0.5, found ".inf""#,
    );
    check_service(
        "pids_limit: -7",
        r#"compose.yaml:4:17: error: expected a whole number of processes, or -1 for no limit, found "-7""#,
    );
    check_service(
        "stop_grace_period: 10",
        r#"compose.yaml:4:24: error: "10" is not a duration; write numbers with units, as in 1m30s or 200ms"#,
    );
    check_service(
        "stop_signal: SIGNOPE",
        r#"compose.yaml:4:18: error: "SIGNOPE" is not a signal (hint: write a name such as SIGTERM, or a number from 1 to 64)"#,
    );
    check_service(
        "healthcheck: {test: a, interval: 0s, timeout: soon, retries: -1}",
        r#"compose.yaml:4:38: error: a health check's interval must be longer than 0
compose.yaml:4:51: error: "soon" is not a duration; write numbers with units, as in 1m30s or 200ms
compose.yaml:4:66: error: expected a whole number of tries, found "-1""#,
    );
    check(
        "services:\n  web:\n    image: a\n    cpus: 1\n    deploy: {resources: {limits: {cpus: 2}}}\n",
        "compose.yaml:4:11: error: cpus and deploy.resources.limits.cpus say different things; compose.yaml:5:41: deploy.resources.limits.cpus is given here (hint: keep deploy.resources.limits.cpus)",
    );
    check(
        "services:\n  web:\n    image: a\n    scale: 1\n    deploy: {replicas: 2}\n",
        "compose.yaml:4:12: error: scale and deploy.replicas say different things; compose.yaml:5:24: deploy.replicas is given here (hint: keep deploy.replicas)",
    );
}

#[test]
fn health_tests() {
    check_service(
        "healthcheck: {test: []}",
        "compose.yaml:4:25: error: an empty health test (hint: begin the list with CMD, CMD-SHELL or NONE, or write the shell command as one text)",
    );
    check_service("healthcheck: {test: ''}", r#"compose.yaml:4:25: error: expected a command, found """#);
    check_service(
        "healthcheck: {test: [curl, x]}",
        r#"compose.yaml:4:25: error: "curl" is no kind of health test (hint: begin the list with CMD, CMD-SHELL or NONE, or write the shell command as one text)"#,
    );
    check_service(
        "healthcheck: {test: [CMD]}",
        "compose.yaml:4:25: error: CMD is not followed by a command (hint: begin the list with CMD, CMD-SHELL or NONE, or write the shell command as one text)",
    );
    check_service(
        "healthcheck: {test: [CMD-SHELL, a, b]}",
        "compose.yaml:4:25: error: CMD-SHELL is followed by several texts (hint: write the whole shell command as one text after CMD-SHELL)",
    );
    check_service(
        "healthcheck: {interval: 1s}",
        "compose.yaml:4:18: warning: changing only the times of the image's own check is not honoured yet (hint: name the command in test: [CMD, …] to have it checked)",
    );
}

#[test]
fn names() {
    check(
        "name: My Shop\nservices: {web: {image: a}}\n",
        r#"compose.yaml:1:7: error: "My Shop" is not a valid project name (hint: use lower-case letters, digits, - and _, and begin with a letter or digit)"#,
    );
    check(
        "services: {'we b': {image: a}}\n",
        r#"compose.yaml:1:12: error: "we b" is not a valid name of a service (hint: use letters, digits, -, _ and .)"#,
    );
    check(
        "services: {web: {image: Web}}\n",
        r#"compose.yaml:1:25: error: "Web" is not an image reference (hint: write [REGISTRY/]NAME[:TAG], with the name in lower case)"#,
    );
    check(
        "services: {web: {image: 'a b'}}\n",
        r#"compose.yaml:1:25: error: "a b" is not an image reference (hint: write [REGISTRY/]NAME[:TAG], with the name in lower case)"#,
    );
    check(
        "services: {web: {image: a}}\nvolumes: {'a/b': }\n",
        r#"compose.yaml:2:11: error: "a/b" is not a valid name of a volume (hint: use letters, digits, -, _ and .)"#,
    );
    check_service(
        "hostname: -a-",
        r#"compose.yaml:4:15: error: "-a-" is not a host name (hint: use letters, digits, hyphens and dots)"#,
    );
    check_service(
        "working_dir: here",
        r#"compose.yaml:4:18: error: the working directory must be absolute, and "here" is not (hint: begin it with /)"#,
    );
    check_service(
        "restart: sometimes",
        r#"compose.yaml:4:14: error: expected one of no, always, on-failure[:TIMES], unless-stopped, found "sometimes""#,
    );
    check_service(
        "restart: 'on-failure:x'",
        r#"compose.yaml:4:14: error: expected one of no, always, on-failure[:TIMES], unless-stopped, found "on-failure:x""#,
    );
    check_service(
        "build: https://example.org/x.git",
        "compose.yaml:4:12: error: a build from a remote repository is not supported (hint: clone it and name the folder)",
    );
    check_service(
        "networks: {default: {aliases: ['a b']}}",
        r#"compose.yaml:4:35: error: "a b" is not a host name"#,
    );
}

#[test]
fn references() {
    check_service(
        "depends_on: [db]",
        r#"compose.yaml:4:18: error: unknown service "db" (hint: declare db under the top-level services)"#,
    );
    check(
        "services: {web: {image: a, depends_on: [bd]}, db: {image: a}}\n",
        r#"compose.yaml:1:41: error: unknown service "bd" (hint: did you mean "db"?)"#,
    );
    check_service(
        "networks: [front]",
        r#"compose.yaml:4:16: error: unknown network "front" (hint: declare front under the top-level networks)"#,
    );
    check_service(
        "volumes: ['data:/x']",
        r#"compose.yaml:4:15: error: unknown volume "data" (hint: declare data under the top-level volumes, or begin a folder's path with ./)"#,
    );
    check(
        "services: {web: {image: a, volumes: ['dat:/x']}}\nvolumes: {data: }\n",
        r#"compose.yaml:1:38: error: unknown volume "dat" (hint: did you mean "data"?)"#,
    );
    check_service("depends_on: {db: {condition: service_healthy, required: false}}", "");
    check(
        "services: {web: {image: a, depends_on: {web: {condition: done}}}}\n",
        r#"compose.yaml:1:41: error: services wait for each other in a circle: web → web (hint: remove one of these dependencies; no service of the circle could ever start)
compose.yaml:1:58: error: expected one of service_started, service_healthy, service_completed_successfully, found "done""#,
    );
}

#[test]
fn mounts() {
    check_service(
        "volumes: ['./a:b']",
        r#"compose.yaml:4:15: error: the path inside the container must be absolute, and "b" is not (hint: begin it with /)"#,
    );
    check_service(
        "volumes: ['./a:/']",
        "compose.yaml:4:15: error: nothing can be mounted over the root of a container",
    );
    check_service(
        "volumes: ['a:b:c:d']",
        r#"compose.yaml:4:15: error: "a:b:c:d" has too many colons (hint: write SOURCE:TARGET[:ro]; paths with colons need the long form)"#,
    );
    check_service("volumes: [':/x']", "compose.yaml:4:15: error: the source before the colon is empty");
    check_service(
        "volumes: ['./a:/b:nocopy,ro']",
        r#"compose.yaml:4:15: warning: the volume option "nocopy" has no effect (hint: ro and rw are)"#,
    );
    check_service(
        "volumes: [/x, /x/]",
        "compose.yaml:4:19: warning: /x is mounted twice; the last one counts; compose.yaml:4:15: first mounted here",
    );
    check_service(
        "volumes: [{type: bind, target: /x}]",
        "compose.yaml:4:15: error: a bind mount without source (hint: add source: with a path)",
    );
    check_service(
        "volumes: [{type: npipe, target: /x}]",
        "compose.yaml:4:22: error: expected one of bind, volume, tmpfs, found \"npipe\"",
    );
    check_service(
        "volumes: [{type: bnd, target: /x}]",
        r#"compose.yaml:4:22: error: expected one of bind, volume, tmpfs, found "bnd""#,
    );
    check_service(
        "volumes: [{type: tmpfs, source: a}]",
        "compose.yaml:4:15: error: a mount without target (hint: add target: with a path inside)",
    );
    check_service(
        "volumes: [{type: tmpfs, source: a, target: /x}]",
        "compose.yaml:4:37: error: a tmpfs has no source (hint: remove source:)",
    );
    check_service(
        "tmpfs: ['/run:size=1x', 'run', '/a:mode=9,uid=1,rw']",
        r#"compose.yaml:4:13: error: "1x" is not a size; write a number with b, k, m, g or t, as in 64m
compose.yaml:4:29: error: the path inside the container must be absolute, and "run" is not (hint: begin it with /)
compose.yaml:4:36: error: "9" is no mode such as 1777
compose.yaml:4:36: warning: the tmpfs option "uid=1" has no effect (hint: size and mode have)"#,
    );
}

#[test]
fn host_ports() {
    check_service(
        "ports: ['8080:80', '8080:81']",
        "compose.yaml:4:24: error: port 8080 of the host is published twice by web; compose.yaml:4:13: web publishes it here (hint: give one of them another port of the host, or let several replicas share one entry)",
    );
    // Neither another protocol nor another address is the same port.
    check_service(
        "ports: ['8080:80', '8080:80/udp', '127.0.0.2:8080:80']",
        "compose.yaml:4:24: warning: publishing a UDP port is not honoured yet (hint: replicas reach each other over UDP by name; from the host, use a replica's own address)",
    );
    check_service(
        "ports: [80, 80]",
        "compose.yaml:4:17: warning: port 80 is given twice; compose.yaml:4:13: first given here",
    );
    check(
        "services:
  b: {image: a, ports: ['8000-8002:1-3']}
  a: {image: a, ports: ['0.0.0.0:8001:80']}
",
        "compose.yaml:3:25: error: port 8001 of the host is published twice, by b and by a; compose.yaml:2:25: b publishes it here (hint: give one of them another port of the host, or let several replicas share one entry)",
    );
    check_service(
        "ports: ['99999:80']",
        r#"compose.yaml:4:13: error: "99999" is not a port: ports are numbers from 1 to 65535 (hint: write TARGET, PUBLISHED:TARGET or ADDRESS:PUBLISHED:TARGET, as in "8080:80")"#,
    );
    check_service(
        "ports: [{published: 80}]",
        "compose.yaml:4:13: error: a port without target (hint: add target: with the port inside)",
    );
    check_service(
        "ports: [{target: 80, protocol: sctp, host_ip: x}]",
        r#"compose.yaml:4:36: error: "sctp" is not a protocol that is supported: tcp or udp"#,
    );
    check_service(
        "expose: [0, a]",
        r#"compose.yaml:4:14: error: "0" is not a port: ports are numbers from 1 to 65535
compose.yaml:4:17: error: "a" is not a port: ports are numbers from 1 to 65535"#,
    );
}

#[test]
fn several_replicas_share_a_published_port() {
    check("services: {web: {image: a, ports: ['8080:80'], deploy: {replicas: 5}}}\n", "");
}

#[test]
fn cycles() {
    check(
        "services:\n  a:\n    image: x\n    depends_on: [a]\n",
        "compose.yaml:4:18: error: services wait for each other in a circle: a → a (hint: remove one of these dependencies; no service of the circle could ever start)",
    );
    check(
        "services:
  a: {image: x, depends_on: [b, d]}
  b: {image: x, depends_on: [c]}
  c: {image: x, depends_on: [a]}
  d: {image: x, depends_on: [c]}
",
        "compose.yaml:4:30: error: services wait for each other in a circle: a → b → c → a; compose.yaml:2:30: a waits for b; compose.yaml:3:30: b waits for c (hint: remove one of these dependencies; no service of the circle could ever start)",
    );
    check(
        "services: {a: {image: x, depends_on: [b, c]}, b: {image: x, depends_on: [c]}, c: {image: x}}\n",
        "",
    );
}

#[test]
fn variables() {
    check_service("command: echo ${A} $B ${C:-c} $$D", "compose.yaml:4:19: warning: the variable A is not set and counts as empty (hint: set it, or give a default: ${A:-…})
compose.yaml:4:24: warning: the variable B is not set and counts as empty (hint: set it, or give a default: ${B:-…})");
    check_service(
        "command: ${A:?set A}",
        "compose.yaml:4:14: error: the variable A is required: set A (hint: set it in the environment or in the .env file beside the Compose file)",
    );
    check_service(
        "command: '${A'",
        "compose.yaml:4:15: error: ${A has no closing brace (hint: close it with })",
    );
    check_service(
        "command: a $ b",
        "compose.yaml:4:16: error: a dollar sign that no variable follows (hint: write $$ for a dollar sign)",
    );
    check_service(
        "image2: ${",
        r#"compose.yaml:4:5: warning: unknown key "image2" of a service (hint: did you mean "image"?)
compose.yaml:4:13: error: ${ is not followed by the name of a variable (hint: write ${NAME}, or $$ for a dollar sign)"#,
    );
}

#[test]
fn profiles() {
    let text = "services:
  web: {image: a, depends_on: [db]}
  db: {image: a, profiles: [data]}
";
    check(
        text,
        r#"compose.yaml:2:32: error: the service "db" that this one needs is off by its profiles (hint: enable one of its profiles: data)"#,
    );
    Case { files: &[("compose.yaml", text)], profiles: &["data"], ..Case::default() }.check("");
    check(
        "services:\n  db: {image: a, profiles: [data]}\n",
        "compose.yaml:2:3: error: every service is off by its profiles (hint: enable one with --profile)",
    );
}

#[test]
fn environment_files() {
    let text = "services:\n  web: {image: a, env_file: [a.env, {path: b.env, required: false}]}\n";
    check(
        text,
        "compose.yaml:2:30: error: cannot read a.env: No such file or directory (os error 2) (hint: create it, or write required: false beside its path)",
    );
    let files = [("compose.yaml", text), ("a.env", "A=1\nnot good=2\n")];
    Case { files: &files, ..Case::default() }.check(r#"a.env:2:1: error: "not good" is not the name of a variable (hint: write NAME=value, one to a line)"#);
}

#[test]
fn tags_of_merging() {
    check_service(
        "command: !frob a",
        "compose.yaml:4:14: warning: the tag !frob has no meaning here (hint: Compose knows !reset and !override)",
    );
    check_service("command: !reset a", "");
}

#[test]
fn findings_are_limited_in_number() {
    let keys: String = (0..300).map(|n| format!("    key{n}: 1\n")).collect();
    let text = format!("services:\n  web:\n    image: a\n{keys}");
    let (result, _) = Case { files: &[("compose.yaml", &text)], ..Case::default() }.load();
    let warnings = result.unwrap().warnings;
    assert_eq!(warnings.len(), throng_compose::yaml::MAX_FINDINGS + 1);
    let last = warnings.last().unwrap();
    assert!(last.message.contains("more than 100 findings"), "{last}");
}

#[test]
fn aliases_cannot_be_made_to_explode() {
    let mut text = String::from("x-a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for n in 1..10 {
        let last = n - 1;
        text += &format!("x-a{n}: &a{n} [{}]\n", vec![format!("*a{last}"); 10].join(", "));
    }
    text += "services: {web: {image: a}}\n";
    check(
        &text,
        "compose.yaml:5:7: error: more than 200000 values once aliases are replaced by what they stand for (hint: split the file, or use fewer aliases of aliases)",
    );
}

#[test]
fn privileges_and_limits_of_the_kernel() {
    check_service(
        "cap_add: [NET_ADMINN, cap_chown, All]",
        r#"compose.yaml:4:15: error: "NET_ADMINN" is not a capability (hint: did you mean "NET_ADMIN"?)"#,
    );
    check_service(
        "ulimits: {nofiles: 1}",
        r#"compose.yaml:4:15: error: "nofiles" is not a limit (hint: did you mean "nofile"?)"#,
    );
    check_service(
        "ulimits: {nofile: -2, nproc: {soft: 1}, core: {soft: 2, hard: 1}, cpu: {soft: -1, hard: 1}}",
        r#"compose.yaml:4:23: error: expected a whole number, or -1 for no limit, found "-2"
compose.yaml:4:27: error: the limit "nproc" needs both soft and hard
compose.yaml:4:58: error: the soft limit of "core" is above the hard one
compose.yaml:4:83: error: the soft limit of "cpu" is above the hard one"#,
    );
    check_service(
        "sysctls: {vm.swappiness: 1, net..x: 1, net.core/x: 1, net.core.somaxconn: 1}",
        r#"compose.yaml:4:15: error: the kernel parameter vm.swappiness is the whole host's (hint: a container has its own net.*, fs.mqueue.*, and kernel.msg*, sem and shm*; set others with `sysctl -w`)
compose.yaml:4:33: error: "net..x" is not a kernel parameter
compose.yaml:4:44: error: "net.core/x" is not a kernel parameter"#,
    );
    check_service(
        "oom_score_adj: 2000",
        r#"compose.yaml:4:20: error: expected a whole number from -1000 to 1000, found "2000""#,
    );
    check_service(
        "memswap_limit: 1g",
        "compose.yaml:4:20: error: memswap_limit needs mem_limit (hint: add the limit of memory, or remove memswap_limit)",
    );
    check(
        "services: {web: {image: a, mem_limit: 2g, memswap_limit: 1g}}\n",
        "compose.yaml:1:58: error: memswap_limit is below the limit of memory (hint: it counts memory and swap together)",
    );
    check_service(
        "cpu_shares: 1",
        r#"compose.yaml:4:17: error: expected a whole number from 2 to 262144, found "1""#,
    );
    check_service(
        "cpu_period: 5",
        r#"compose.yaml:4:17: error: expected a whole number of microseconds from 1000 to 1000000, found "5""#,
    );
}

#[test]
fn names_and_networks() {
    check_service(
        "extra_hosts: ['a:1.2.3.4', 'b=host-gateway', 'c', 'd:nowhere', 'e_ f:1.1.1.1', 'v6=[::1]', 'w6:::1']",
        r#"compose.yaml:4:50: error: expected NAME=ADDRESS, found "c"
compose.yaml:4:55: error: expected an address, or host-gateway, found "nowhere"
compose.yaml:4:68: error: "e_ f" is not a host name"#,
    );
    check_service(
        "dns: [1.1.1.1, dns.example]",
        r#"compose.yaml:4:20: error: expected the address of a name server, found "dns.example""#,
    );
    check_service("dns_search: ['a b']", r#"compose.yaml:4:18: error: expected one word, found "a b""#);
    check_service(
        "network_mode: host",
        "compose.yaml:4:19: error: replicas cannot share the host's network: each needs an address of its own (hint: publish its ports with ports:, and reach the host as host-gateway under extra_hosts)",
    );
    check_service(
        "network_mode: 'service:db'",
        r#"compose.yaml:4:19: error: replicas cannot share the network of "service:db": each needs an address of its own (hint: let them reach each other by the service's name)"#,
    );
    check_service("network_mode: own", r#"compose.yaml:4:19: error: expected none or bridge, found "own""#);
    check(
        "services: {web: {image: a, network_mode: none, networks: [default], ports: [80]}}\n",
        "compose.yaml:1:58: error: a service without a network cannot be in one (hint: keep one of network_mode and networks)
compose.yaml:1:77: error: a service without a network can publish no port (hint: remove the ports, or network_mode: none)",
    );
    check(
        "services: {web: {image: a, links: [db, 'web:x y'], volumes_from: ['container:x', 'db', 'web:w']}}\n",
        r#"compose.yaml:1:36: error: unknown service "db"
compose.yaml:1:40: error: "x y" is not a host name
compose.yaml:1:67: error: containers of others are not known here (hint: name a service of this app)
compose.yaml:1:82: error: unknown service "db"
compose.yaml:1:88: error: "w" is no mode (hint: write ro or rw)"#,
    );
}

#[test]
fn configs_secrets_and_hooks() {
    check(
        "services:
  web:
    image: a
    configs: [a, {source: nothing}, {target: x}, {source: a, mode: 9}, {source: a, uid: root, target: /}]
    secrets: [b]
    post_start: [{}, {command: []}, {command: a, privileged: true}]
    pre_stop: {command: a}
configs: {a: {content: x, file: y}, c: , d: {environment: NOPE}}
secrets: {b: {file: x, content: y}}
",
        r#"compose.yaml:4:27: error: unknown config "nothing" (hint: declare nothing under the top-level configs)
compose.yaml:4:37: error: expected a source, found none
compose.yaml:4:89: error: expected the number of a user or group, found "root"
compose.yaml:4:103: error: a file cannot take the place of the root
compose.yaml:6:18: error: a hook without command (hint: add command:)
compose.yaml:6:22: error: a hook with an empty command
compose.yaml:6:50: warning: "privileged" under post_start has no effect (hint: a hook has the privileges of its replica)
compose.yaml:7:15: error: expected a list of commands, found a mapping
compose.yaml:8:11: error: the config "a" has more than one content (hint: keep one of file, content and environment)
compose.yaml:8:37: error: the config "c" has no content (hint: add file:, content: or environment:)
compose.yaml:8:59: error: the variable NOPE that the config "d" holds is not set (hint: set it in the environment or in .env)
compose.yaml:9:24: warning: unknown key "content" of a secret (hint: it has no effect; keys of your own start with x-)"#,
    );
    check(
        "services: {web: {image: a}}
volumes:
  a: {driver: nfs, driver_opts: {share: x}}
  b: {driver_opts: {type: nfs, o: addr=1.2.3.4, device: ':/x'}}
  c: {driver: local, driver_opts: {type: tmpfs, device: tmpfs}}
  d: {driver_opts: {size: 1g}}
  e: {driver: local, driver_opts: {type: none, o: bind, device: /x}}
",
        r#"compose.yaml:3:15: error: volumes are folders of this host, not of the driver "nfs" (hint: mount it on the host, and name the folder with driver: local, o: bind and device:)
compose.yaml:4:20: error: nothing of the type "nfs" is mounted for a volume (hint: mount it on the host, and name the folder with type: none, o: bind and device:)
compose.yaml:5:35: error: no memory is shared between replicas as a volume (hint: give each replica its own with tmpfs: under the service)
compose.yaml:6:21: error: the local driver has no option "size" (hint: it has type, o and device)"#,
    );
    check_service(
        "platform: linux/riscv64",
        &format!(
            "compose.yaml:4:15: error: nothing for linux/riscv64 runs here (hint: this host runs linux/{}; remove platform, and use an image that is built for it)",
            if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
        ),
    );
    check_service(
        "logging: {driver: syslog, options: {syslog-address: x}}",
        r#"compose.yaml:4:23: warning: logs are kept on this host, not by the driver "syslog" (hint: read them with `throng logs`, which others can follow)"#,
    );
    check_service(
        "logging: {options: {max-size: 0, max-file: 0, compress: a}}",
        r#"compose.yaml:4:35: error: expected a size of at least one byte, found "0"
compose.yaml:4:48: error: expected a whole number of files from 1 to 1000, found "0"
compose.yaml:4:51: warning: the log option "compress" has no effect (hint: max-size and max-file have)"#,
    );
}

//! The container of a service: its program, what it is given, and its limits.

use crate::context::Context;
use crate::context::of_service;
use crate::findings::Findings;
use crate::labels;
use crate::object::Notes;
use crate::plan::{Kind, Plan};
use crate::probes::{self, probes};
use crate::quantity;
use crate::user;
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, Lifecycle, LifecycleHandler,
    ResourceRequirements, SecretKeySelector, SecurityContext, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use throng_model::build::PullPolicy;
use throng_model::sandbox::Hook;

/// The Secret of variables that are not shown, and their names.
type Hidden = Option<(String, BTreeSet<String>)>;

pub(crate) fn container(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    (mounts, hidden): (&[VolumeMount], Hidden),
    notes: &mut Notes,
    findings: &mut Findings<'_>,
) -> Container {
    let service = plan.service;
    let (command, args) = program(plan, findings);
    let probes::Probes { readiness, liveness, startup } = probes(plan, notes);
    origins(cx, plan, notes);
    let ports: Vec<ContainerPort> = plan.ports.iter().map(|port| container_port(plan, port)).collect();
    Container {
        name: plan.name.clone(),
        image: Some(image(plan, findings)),
        image_pull_policy: Some(pull_policy(plan).to_owned()),
        command,
        args,
        working_dir: service.working_dir.clone(),
        stdin: service.sandbox.stdin_open.then_some(true),
        ports: (!ports.is_empty()).then_some(ports),
        env: variables(plan, hidden, findings),
        resources: resources(plan, findings),
        volume_mounts: (!mounts.is_empty()).then(|| mounts.to_vec()),
        readiness_probe: readiness,
        liveness_probe: liveness,
        startup_probe: startup,
        lifecycle: lifecycle(plan, findings),
        security_context: security(plan, findings),
        ..Container::default()
    }
}

fn origins(cx: &Context<'_>, plan: &Plan<'_>, notes: &mut Notes) {
    let name = &plan.service.name;
    for (pointer, keys) in [
        ("image", &["image", "build"][..]),
        ("imagePullPolicy", &["pull_policy"]),
        ("command", &["entrypoint"]),
        ("args", &["command"]),
        ("workingDir", &["working_dir"]),
        ("ports", &["ports", "expose"]),
        ("env", &["environment", "env_file"]),
        ("resources", &["deploy.resources", "mem_limit", "cpus"]),
        ("volumeMounts", &["volumes", "configs", "secrets", "tmpfs"]),
        ("lifecycle/postStart", &["post_start"]),
        ("lifecycle/preStop", &["pre_stop"]),
        ("securityContext/runAsUser", &["user"]),
        ("securityContext/readOnlyRootFilesystem", &["read_only"]),
        ("livenessProbe", &["x-throng.liveness"]),
        ("startupProbe", &["x-throng.startup"]),
        ("readinessProbe", &["x-throng.readiness", "healthcheck"]),
    ] {
        notes.at(format!("/{pointer}"), cx.origin(name, keys));
    }
    for (probe, label) in [("readiness", &plan.hints.readiness), ("liveness", &plan.hints.liveness)] {
        if label.is_some() {
            notes.say(format!("/{probe}Probe"), format!("kompose.service.healthcheck.{probe}"));
        }
    }
}

/// The image, with a word on names that mean something else on each node, or nothing on any.
fn image(plan: &Plan<'_>, findings: &mut Findings<'_>) -> String {
    let service = plan.service;
    let image = &service.image;
    let first = image.split('/').next().unwrap_or(image);
    let has_registry = image.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    if service.build.is_some() && !has_registry {
        let path = of_service(&service.name, "build");
        let message = format!("the image {image} is built here, and no node of a cluster has it");
        findings.warn(
            &path,
            message,
            "give image: the name of a registry, and send it there with `throng push`",
        );
    } else if !image.contains('@') && labels::tag(image).is_none_or(|tag| tag == "latest") {
        let path = of_service(&service.name, "image");
        let message = format!("{image} is whatever is newest when a node fetches it: pods may differ");
        findings.warn(&path, message, "name a tag that stays, as in nginx:1.27, or a digest");
    }
    image.clone()
}

/// Always said, since the default follows from the tag.
fn pull_policy(plan: &Plan<'_>) -> &'static str {
    if let Some(policy) = plan.hints.pull_policy {
        return policy;
    }
    match plan.service.pull {
        PullPolicy::Always => "Always",
        PullPolicy::Never => "Never",
        PullPolicy::Missing | PullPolicy::Build | PullPolicy::Every(_) => "IfNotPresent",
    }
}

type Words = Option<Vec<String>>;

/// `command` and `args`: what Compose calls `entrypoint` and `command`.
fn program(plan: &Plan<'_>, findings: &mut Findings<'_>) -> (Words, Words) {
    let literal = |words: &Vec<String>| words.iter().map(|word| literal(word)).collect::<Vec<_>>();
    let some = |words: Vec<String>| (!words.is_empty()).then_some(words);
    let args = plan.service.command.as_ref().map(literal);
    match plan.service.entrypoint.as_ref().map(literal) {
        None => (None, args.and_then(some)),
        Some(entrypoint) if !entrypoint.is_empty() => (Some(entrypoint), args.and_then(some)),
        // The image's own entry point is left out, so that the command is the program.
        Some(_) => match args.and_then(some) {
            Some(args) => (Some(args), None),
            None => {
                let path = of_service(&plan.service.name, "entrypoint");
                let message = "a pod cannot leave out the image's entry point and keep its command";
                findings.warn(&path, message, "write the command under command:");
                (None, None)
            }
        },
    }
}

/// A text that stands for itself: Kubernetes expands `$(NAME)`, and takes `$$` for `$`.
fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '$' {
            out.push(c);
            continue;
        }
        let mut run = 1;
        while chars.next_if_eq(&'$').is_some() {
            run += 1;
        }
        let doubled = run > 1 || chars.peek() == Some(&'(');
        out.extend(std::iter::repeat_n('$', if doubled { 2 * run } else { run }));
    }
    out
}

fn container_port(plan: &Plan<'_>, port: &crate::plan::PodPort) -> ContainerPort {
    let published = port.published.iter().find_map(|port| *port);
    ContainerPort {
        container_port: i32::from(port.port),
        host_port: published.filter(|_| plan.hints.host_ports).map(i32::from),
        name: Some(port.name.clone()),
        // TCP is the default, and left out by most people.
        protocol: (port.protocol() != "TCP").then(|| port.protocol().to_owned()),
        ..ContainerPort::default()
    }
}

fn variables(plan: &Plan<'_>, hidden: Hidden, findings: &mut Findings<'_>) -> Option<Vec<EnvVar>> {
    let mut variables = Vec::new();
    for (name, value) in &plan.service.environment {
        if !is_variable(name) {
            let mut path = of_service(&plan.service.name, "environment");
            path.push(name);
            let message = format!("{name:?} cannot be the name of a variable in a pod");
            findings.warn(&path, message, "use letters, digits, _, - and ., and begin with no digit");
            continue;
        }
        let secret = hidden.as_ref().filter(|(_, names)| names.contains(name));
        let value_from = secret.map(|(secret, _)| EnvVarSource {
            secret_key_ref: Some(SecretKeySelector {
                name: secret.clone(),
                key: name.clone(),
                ..SecretKeySelector::default()
            }),
            ..EnvVarSource::default()
        });
        let value = value_from.is_none().then(|| literal(value));
        variables.push(EnvVar { name: name.clone(), value, value_from });
    }
    (!variables.is_empty()).then_some(variables)
}

/// What every version since 1.29 takes.
fn is_variable(name: &str) -> bool {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    name.starts_with(|c: char| good(c) && !c.is_ascii_digit())
        && name.chars().all(good)
        && name != "."
        && name != ".."
}

type Amounts = BTreeMap<String, Quantity>;

fn resources(plan: &Plan<'_>, findings: &mut Findings<'_>) -> Option<ResourceRequirements> {
    let resources = &plan.service.resources;
    let (cpu, memory) = (resources.cpu_reservation, resources.memory_reservation);
    for (key, over) in [
        ("cpus", cpu.zip(resources.cpus).is_some_and(|(reserved, most)| reserved > most)),
        ("memory", memory.zip(resources.memory).is_some_and(|(reserved, most)| reserved > most)),
    ] {
        if over {
            let said = format!("deploy.resources.reservations.{key}");
            let path = of_service(&plan.service.name, &said);
            let message = "more is reserved than allowed, which a cluster refuses: the limit is requested";
            findings.warn(&path, message, format!("lower it, or raise deploy.resources.limits.{key}"));
        }
    }
    let cpu = cpu.map(|cores| cores.min(resources.cpus.unwrap_or(f64::MAX)));
    let memory = memory.map(|bytes| bytes.min(resources.memory.unwrap_or(u64::MAX)));
    let amounts = |cpu: Option<f64>, memory: Option<u64>, disk: Option<Quantity>| {
        let mut amounts = Amounts::new();
        amounts.extend(cpu.map(|cores| ("cpu".to_owned(), quantity::cores(cores))));
        amounts.extend(memory.map(|bytes| ("memory".to_owned(), quantity::bytes(bytes))));
        amounts.extend(disk.map(|disk| ("ephemeral-storage".to_owned(), disk)));
        (!amounts.is_empty()).then_some(amounts)
    };
    let disk = plan.hints.ephemeral_limit.clone().map(Quantity).or(resources.disk.map(quantity::bytes));
    let limits = amounts(resources.cpus, resources.memory, disk);
    let requests = amounts(cpu, memory, plan.hints.ephemeral_request.clone().map(Quantity));
    let some = limits.is_some() || requests.is_some();
    some.then_some(ResourceRequirements { limits, requests, ..ResourceRequirements::default() })
}

fn lifecycle(plan: &Plan<'_>, findings: &mut Findings<'_>) -> Option<Lifecycle> {
    let sandbox = &plan.service.sandbox;
    let mut handler = |key: &'static str, hooks: &[Hook]| {
        if hooks.iter().any(|hook| hook.user.is_some() || !hook.environment.is_empty()) {
            let path = of_service(&plan.service.name, key);
            let message = "a hook runs as the container's own user, with its variables";
            findings.warn(&path, message, "remove user and environment, or set them inside the command");
        }
        one_command(hooks).map(|command| LifecycleHandler {
            exec: Some(ExecAction { command: Some(command) }),
            ..LifecycleHandler::default()
        })
    };
    let post_start = handler("post_start", &sandbox.post_start);
    let pre_stop = handler("pre_stop", &sandbox.pre_stop);
    let some = post_start.is_some() || pre_stop.is_some();
    some.then_some(Lifecycle { post_start, pre_stop, ..Lifecycle::default() })
}

/// Hooks as the one command that a pod has room for; several, or one in a folder of its own, need a shell.
fn one_command(hooks: &[Hook]) -> Option<Vec<String>> {
    if let [Hook { command, working_dir: None, .. }] = hooks {
        return Some(command.clone());
    }
    let quoted = |hook: &Hook| {
        let words = hook.command.iter().map(String::as_str);
        let command = shlex::try_join(words).unwrap_or_else(|_| hook.command.join(" "));
        match &hook.working_dir {
            Some(folder) => format!("(cd {} && {command})", shlex::try_quote(folder).unwrap_or_default()),
            None => command,
        }
    };
    let script = hooks.iter().map(quoted).collect::<Vec<_>>().join(" && ");
    (!hooks.is_empty()).then(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), script])
}

fn security(plan: &Plan<'_>, findings: &mut Findings<'_>) -> Option<SecurityContext> {
    let service = plan.service;
    let user = user::numeric(service.user.as_deref());
    if let (Some(name), None) = (&service.user, user) {
        let path = of_service(&service.name, "user");
        let message = format!("a cluster knows users by their numbers, and {name:?} is a name");
        let hint = "write the number, as in \"1000:1000\"; until then the image's own user is taken";
        findings.warn(&path, message, hint);
    }
    for group in service.sandbox.groups.iter().filter(|group| group.parse::<i64>().is_err()) {
        let path = of_service(&service.name, "group_add");
        let message = format!("a cluster knows groups by their numbers, and {group:?} is a name");
        findings.warn(&path, message, "write its number");
    }
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let (add, drop) = (some(&service.sandbox.cap_add), some(&service.sandbox.cap_drop));
    let capabilities = (add.is_some() || drop.is_some()).then_some(Capabilities { add, drop });
    let context = SecurityContext {
        run_as_user: user.map(|user| user.uid),
        run_as_group: user.and_then(|user| user.gid),
        // Known only where the file says the user; the image's may be root.
        run_as_non_root: user.filter(|user| user.uid != 0).map(|_| true),
        read_only_root_filesystem: service.read_only.then_some(true),
        capabilities,
        ..SecurityContext::default()
    };
    (context != SecurityContext::default()).then_some(context)
}

/// Whether a service's pods are counted by its own number of replicas.
pub(crate) fn counts(plan: &Plan<'_>) -> bool {
    plan.kind.scales() && !plan.autoscaled && plan.kind != Kind::DaemonSet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_for_themselves() {
        for (text, written) in [
            ("plain", "plain"),
            ("$HOME", "$HOME"),
            ("$(HOME)", "$$(HOME)"),
            ("$$x", "$$$$x"),
            ("a$", "a$"),
            ("$$(x)", "$$$$(x)"),
            ("echo $((1+1))", "echo $$((1+1))"),
        ] {
            assert_eq!(literal(text), written);
        }
    }

    #[test]
    fn several_hooks_become_one_command() {
        let hook = |words: &[&str], folder: Option<&str>| Hook {
            command: words.iter().map(|word| word.to_string()).collect(),
            working_dir: folder.map(str::to_owned),
            ..Hook::default()
        };
        assert_eq!(one_command(&[]), None);
        assert_eq!(one_command(&[hook(&["a", "b c"], None)]), Some(vec!["a".into(), "b c".into()]));
        let both = one_command(&[hook(&["a", "b c"], None), hook(&["d"], Some("/x y"))]).expect("a command");
        assert_eq!(both[2], "a 'b c' && (cd '/x y' && d)");
    }
}

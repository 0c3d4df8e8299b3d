//! The pod of a service: its containers, their surroundings, and what they mount.

use crate::container;
use crate::context::{Context, of_service};
use crate::files::Files;
use crate::findings::Findings;
use crate::gates;
use crate::labels;
use crate::names::{dns_label, is_label};
use crate::object::{Notes, Object};
use crate::placement;
use crate::plan::{Kind, Plan, Plans};
use crate::quantity;
use crate::user;
use crate::volumes::{self, Mounted, Surroundings};
use k8s_openapi::api::core::v1::{
    HostAlias, LocalObjectReference, PersistentVolumeClaim, PodDNSConfig, PodDNSConfigOption,
    PodSecurityContext, PodSpec, PodTemplateSpec, SeccompProfile, Sysctl,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use throng_model::app::FileKind;
use throng_model::sandbox::HostAddress;

/// A pod's template with what stands beside it.
pub(crate) struct Pod {
    pub template: PodTemplateSpec,
    pub claims: Vec<PersistentVolumeClaim>,
    /// By pointers below the template.
    pub notes: Notes,
}

pub(crate) fn pod(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    plans: &Plans<'_>,
    files: &mut Files,
    objects: &mut Vec<Object>,
    findings: &mut Findings<'_>,
) -> Pod {
    let service = plan.service;
    let variables = crate::files::secret_variables(cx, service, &plan.name, files, objects);
    let mut mounted = volumes::mounted(cx, plan, plans, &mut Surroundings { files, objects, findings });
    if let Some((secret, _)) = &variables {
        mounted.contents.insert((FileKind::Secret, secret.clone()));
    }
    let mut notes = Notes::default();
    let mut of_container = Notes::default();
    let main = container::container(cx, plan, (&mounted.mounts, variables), &mut of_container, findings);
    notes.below("/spec/containers/0", of_container);
    let gates = gates::gates(cx, plan, plans, findings);
    notes.below("/spec", gates.notes);
    notes.below("/spec", std::mem::take(&mut mounted.notes));
    let account = match gates.jobs.as_slice() {
        [] => plan.hints.service_account.clone(),
        jobs => Some(gates::account(cx, plan, jobs, objects)),
    };
    let mut init = gates.containers;
    init.extend(plan.hints.init.as_ref().map(|init| gates::of_label(plan, init, &mounted.mounts)));
    let placed = placement::placed(cx, plan, findings);
    origins(cx, plan, &mut notes);
    let spec = PodSpec {
        // A token for the API is of use only to who asks it.
        automount_service_account_token: account.is_none().then_some(false),
        service_account_name: account,
        enable_service_links: Some(false),
        image_pull_secrets: plan.hints.pull_secret.clone().map(|name| vec![LocalObjectReference { name }]),
        restart_policy: plan.kind.ends().then(|| "Never".to_owned()),
        termination_grace_period_seconds: Some(i64::from(quantity::seconds(service.stop_grace_period, 0))),
        hostname: hostname(plan, findings),
        node_selector: placed.selector,
        affinity: placed.affinity,
        topology_spread_constraints: placed.spread,
        host_aliases: host_aliases(plan, findings),
        dns_config: dns(plan),
        security_context: Some(security(plan, &mounted, &mut notes)),
        init_containers: (!init.is_empty()).then_some(init),
        containers: vec![main],
        volumes: (!mounted.volumes.is_empty()).then(|| std::mem::take(&mut mounted.volumes)),
        ..PodSpec::default()
    };
    let metadata = metadata(cx, plan, plans, (files, &mounted.contents), findings);
    Pod {
        template: PodTemplateSpec { metadata: Some(metadata), spec: Some(spec) },
        claims: mounted.templates,
        notes,
    }
}

/// Comments beside values that are the pod's own.
fn origins(cx: &Context<'_>, plan: &Plan<'_>, notes: &mut Notes) {
    let name = &plan.service.name;
    let grace = cx.origin(name, &["stop_grace_period"]);
    let grace = grace.unwrap_or_else(|| "Compose's default; that of Kubernetes is 30".to_owned());
    notes.say("/spec/terminationGracePeriodSeconds", grace);
    notes.say("/spec/enableServiceLinks", "no variables such as DB_PORT that Compose would not set either");
    for (pointer, keys) in [
        ("nodeSelector", &["deploy.placement.constraints", "x-throng.node"][..]),
        ("affinity", &["deploy.placement"]),
        ("topologySpreadConstraints", &["deploy.placement.preferences"]),
        ("hostAliases", &["extra_hosts"]),
        ("dnsConfig", &["dns", "dns_search", "dns_opt"]),
        ("hostname", &["hostname"]),
    ] {
        notes.at(format!("/spec/{pointer}"), cx.origin(name, keys));
    }
}

fn metadata(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    plans: &Plans<'_>,
    (files, contents): (&Files, &BTreeSet<(FileKind, String)>),
    findings: &mut Findings<'_>,
) -> ObjectMeta {
    let mut labels = labels::recommended(cx, Some(&plan.name));
    labels.extend(labels::version(&plan.service.image).map(|v| ("app.kubernetes.io/version".to_owned(), v)));
    if crate::network::are_separated(cx) {
        let networks = plan.service.networks.keys().filter_map(|key| plans.names.networks.get(key));
        labels.extend(networks.map(|name| labels::in_network(name)));
    }
    let mut annotations = labels::pod_annotations(plan.service, findings);
    if let Some(hash) = hash(files, contents) {
        annotations.insert("checksum/config".to_owned(), hash);
    }
    ObjectMeta {
        labels: Some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        ..ObjectMeta::default()
    }
}

/// Tells contents apart, so that pods are replaced when a ConfigMap or Secret of theirs changes: a file that is mounted
/// by itself, and a variable, would stay as they were.
fn hash(files: &Files, contents: &BTreeSet<(FileKind, String)>) -> Option<String> {
    if contents.is_empty() {
        return None;
    }
    let mut hasher = Sha256::new();
    for used in contents {
        for (key, bytes) in files.contents.get(used).into_iter().flatten() {
            // Lengths keep two contents from running into one.
            for part in [used.1.as_bytes(), key.as_bytes(), bytes] {
                hasher.update((part.len() as u64).to_le_bytes());
                hasher.update(part);
            }
        }
    }
    Some(hasher.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect())
}

/// One name for all pods is of use where there is one pod.
fn hostname(plan: &Plan<'_>, findings: &mut Findings<'_>) -> Option<String> {
    let wanted = plan.service.hostname.as_deref()?;
    let first = wanted.split('.').next().unwrap_or(wanted);
    let name = dns_label(first);
    if plan.kind == Kind::StatefulSet && name != plan.name {
        let path = of_service(&plan.service.name, "hostname");
        let message = format!("pods of a StatefulSet are called by it: {}-0, not {wanted}", plan.name);
        findings.warn(&path, message, "remove hostname");
        return None;
    }
    is_label(&name).then_some(name).filter(|_| plan.kind != Kind::StatefulSet)
}

fn host_aliases(plan: &Plan<'_>, findings: &mut Findings<'_>) -> Option<Vec<HostAlias>> {
    let mut by_address: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for (name, address) in &plan.service.sandbox.hosts {
        match address {
            HostAddress::Address(ip) => by_address.entry(*ip).or_default().push(name.clone()),
            HostAddress::Gateway => {
                let path = of_service(&plan.service.name, "extra_hosts");
                let message =
                    format!("{name} has no address in a cluster: there is no host that all pods share");
                findings.warn(
                    &path,
                    message,
                    "name the program that is meant, by a Service without a selector say",
                );
            }
        }
    }
    let alias = |(ip, names): (IpAddr, Vec<String>)| HostAlias { ip: ip.to_string(), hostnames: Some(names) };
    (!by_address.is_empty()).then(|| by_address.into_iter().map(alias).collect())
}

/// Name servers beside the cluster's own, which goes on to know the app's names.
fn dns(plan: &Plan<'_>) -> Option<PodDNSConfig> {
    let sandbox = &plan.service.sandbox;
    if sandbox.dns.is_empty() && sandbox.dns_search.is_empty() && sandbox.dns_options.is_empty() {
        return None;
    }
    let option = |text: &String| {
        let (name, value) = match text.split_once(':') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text.as_str(), None),
        };
        PodDNSConfigOption { name: Some(name.to_owned()), value }
    };
    let some = |texts: Vec<String>| (!texts.is_empty()).then_some(texts);
    let options: Vec<PodDNSConfigOption> = sandbox.dns_options.iter().map(option).collect();
    Some(PodDNSConfig {
        nameservers: some(sandbox.dns.iter().map(ToString::to_string).collect()),
        searches: some(sandbox.dns_search.clone()),
        options: (!options.is_empty()).then_some(options),
    })
}

fn security(plan: &Plan<'_>, mounted: &Mounted, notes: &mut Notes) -> PodSecurityContext {
    let sandbox = &plan.service.sandbox;
    let user = user::numeric(plan.service.user.as_deref());
    // A new disk belongs to root, where a volume of Compose takes over the image's owner.
    let of_user = user.filter(|user| user.uid != 0 && mounted.has_disk);
    let of_user = of_user.map(|user| user.gid.unwrap_or(user.uid));
    if plan.hints.fs_group.is_none() && of_user.is_some() {
        notes.say("/spec/securityContext/fsGroup", "so that the user can write to the volume");
    }
    let groups: Vec<i64> = sandbox.groups.iter().filter_map(|group| group.parse().ok()).collect();
    let sysctls: Vec<Sysctl> = sandbox
        .sysctls
        .iter()
        .map(|(name, value)| Sysctl { name: name.clone(), value: value.clone() })
        .collect();
    let fs_group = plan.hints.fs_group.or(of_user);
    let profile = if sandbox.unfiltered { "Unconfined" } else { "RuntimeDefault" };
    if !sandbox.unfiltered {
        notes.say("/spec/securityContext/seccompProfile", "as Docker filters system calls");
    }
    PodSecurityContext {
        fs_group,
        fs_group_change_policy: fs_group.map(|_| "OnRootMismatch".to_owned()),
        supplemental_groups: (!groups.is_empty()).then_some(groups),
        sysctls: (!sysctls.is_empty()).then_some(sysctls),
        seccomp_profile: Some(SeccompProfile { type_: profile.to_owned(), ..SeccompProfile::default() }),
        ..PodSecurityContext::default()
    }
}

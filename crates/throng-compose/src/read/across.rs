//! What can only be checked over all services: dependencies, cycles among them, ports of the host.

use super::{Other, Placed};
use crate::yaml::{Findings, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use throng_model::app::{Condition, Dependency, Mount, MountSource, Port};
use throng_model::build::BuildContext;
use throng_model::diagnostic::Diagnostic;

/// Most mounts that the services of an app take from others, all together: a chain of services has squares of them.
const SHARED_MOST: usize = 100_000;

/// Gives each service the mounts of those that its `volumes_from` names, unless it has something there itself.
pub(super) fn share_volumes(services: &mut BTreeMap<String, Placed>, findings: &mut Findings) {
    let order = {
        let placed = &*services;
        let others = |name: &str| {
            let others = placed.get(name).into_iter().flat_map(|placed| &placed.volumes_from);
            others.map(|other| other.name.as_str()).filter(|other| *other != name).collect()
        };
        let order = in_order(placed, others, |circle| {
            let Some(placed) = placed.get(circle[0]).filter(|_| !findings.is_full()) else { return };
            let message = format!("services take volumes from each other in a circle: {}", closed(circle));
            let hint = "remove one of these volumes_from, and give the volumes to both";
            findings.error_with_hint(&placed.key_at, message, hint);
        });
        order.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut shared = 0;
    for name in order {
        // Those that it takes from have all of theirs by now.
        let mounts = mounts_of_others(&name, services, findings);
        let Some(placed) = services.get_mut(&name) else { continue };
        let own = &mut placed.service.mounts;
        let mut targets: BTreeSet<String> = own.iter().map(|mount| mount.target.clone()).collect();
        for mount in mounts.into_iter().filter(|mount| targets.insert(mount.target.clone())) {
            shared += 1;
            own.push(mount);
        }
        if shared > SHARED_MOST {
            let message = format!("the services take more than {SHARED_MOST} mounts from each other");
            let hint = "share a folder that holds the others, or name the volumes where they are needed";
            findings.error_with_hint(&placed.key_at, message, hint);
            return;
        }
    }
}

/// Mounts of the services that `name` takes them from.
fn mounts_of_others(name: &str, services: &BTreeMap<String, Placed>, findings: &mut Findings) -> Vec<Mount> {
    let mut mounts = Vec::new();
    let others = services.get(name).into_iter().flat_map(|placed| &placed.volumes_from);
    for other in others {
        let Some(shared) = services.get(&other.name) else {
            findings.error(&other.at, format!("unknown service {:?}", other.name));
            continue;
        };
        if !matches!(other.rest.as_str(), "" | "ro" | "rw") {
            findings.error_with_hint(&other.at, format!("{:?} is no mode", other.rest), "write ro or rw");
        }
        if other.name == name {
            continue;
        }
        for mount in &shared.service.mounts {
            if matches!(mount.source, MountSource::Anonymous | MountSource::Tmpfs { .. }) {
                let message =
                    format!("{} of {} belongs to each of its replicas alone", mount.target, other.name);
                findings.warn_with_hint(&other.at, message, "give the volume a name to share it");
            } else {
                mounts.push(Mount { read_only: mount.read_only || other.rest == "ro", ..mount.clone() });
            }
        }
    }
    mounts
}

/// A link makes a service wait for the other one, and gives that a further name in the networks that both are in.
pub(super) fn link(services: &mut BTreeMap<String, Placed>, findings: &mut Findings) {
    let links: Vec<(String, String, String, Position)> = services
        .iter()
        .flat_map(|(name, placed)| {
            let link =
                |other: &Other| (name.clone(), other.name.clone(), other.rest.clone(), other.at.clone());
            placed.links.iter().map(link).collect::<Vec<_>>()
        })
        .collect();
    for (name, other, alias, at) in links {
        if !services.contains_key(&other) {
            findings.error(&at, format!("unknown service {other:?}"));
            continue;
        }
        if !alias.is_empty() && !super::names::is_host(&alias) {
            findings.error(&at, format!("{alias:?} is not a host name"));
            continue;
        }
        let Some(placed) = services.get_mut(&name) else { continue };
        let own: Vec<String> = placed.service.networks.keys().cloned().collect();
        if name != other && !placed.service.depends_on.contains_key(&other) {
            let dependency =
                Dependency { condition: Condition::ServiceStarted, required: true, restart: true };
            placed.service.depends_on.insert(other.clone(), dependency);
            placed.dependencies_at.insert(other.clone(), at);
        }
        let Some(linked) = services.get_mut(&other) else { continue };
        for (network, attachment) in &mut linked.service.networks {
            if !alias.is_empty() && own.contains(network) && !attachment.aliases.contains(&alias) {
                attachment.aliases.push(alias.clone());
            }
        }
    }
}

/// Drops optional dependencies on services that are off, and refuses required ones.
pub(super) fn check_dependencies(
    enabled: &mut BTreeMap<String, Placed>,
    disabled: &BTreeMap<String, Placed>,
    findings: &mut Findings,
) {
    for placed in enabled.values_mut() {
        let at = &placed.dependencies_at;
        placed.service.depends_on.retain(|name, dependency| {
            let Some(off) = disabled.get(name) else { return true };
            if dependency.required
                && let Some(at) = at.get(name)
            {
                let profiles = off.service.profiles.join(", ");
                let message = format!("the service {name:?} that this one needs is off by its profiles");
                findings.error_with_hint(at, message, format!("enable one of its profiles: {profiles}"));
            }
            false
        });
    }
}

/// One finding for each cycle of `depends_on`, at the dependency that closes it.
pub(super) fn check_cycles(services: &BTreeMap<String, Placed>, findings: &mut Findings) {
    in_order(services, |name| dependencies(services, name), |cycle| report_cycle(services, cycle, findings));
}

/// The services, each after those that `needs` names of it. Every circle is told once, and broken where it closes.
fn in_order<'a>(
    services: &'a BTreeMap<String, Placed>,
    needs: impl Fn(&str) -> Vec<&'a str>,
    mut circle: impl FnMut(&[&str]),
) -> Vec<&'a str> {
    let (mut order, mut done): (Vec<&str>, BTreeSet<&str>) = (Vec::new(), BTreeSet::new());
    for start in services.keys() {
        if done.contains(start.as_str()) {
            continue;
        }
        // Depth first with a stack of our own: a file may chain more services than the program's stack is deep.
        let mut path: Vec<(&str, Vec<&str>)> = vec![(start, needs(start))];
        let mut on_path: BTreeSet<&str> = BTreeSet::from([start.as_str()]);
        while let Some((name, waiting)) = path.last_mut() {
            let name: &str = name;
            let Some(next) = waiting.pop() else {
                done.insert(name);
                order.push(name);
                on_path.remove(name);
                path.pop();
                continue;
            };
            if on_path.contains(next) {
                let index = path.iter().position(|(name, _)| *name == next).unwrap_or(0);
                let names: Vec<&str> = path[index..].iter().map(|(name, _)| *name).collect();
                circle(&names);
            } else if !done.contains(next) && services.contains_key(next) {
                on_path.insert(next);
                path.push((next, needs(next)));
            }
        }
    }
    order
}

/// `a → b → a`.
fn closed(circle: &[&str]) -> String {
    let names: Vec<&str> = circle.iter().chain(circle.first()).copied().collect();
    names.join(" → ")
}

fn dependencies<'a>(services: &'a BTreeMap<String, Placed>, name: &str) -> Vec<&'a str> {
    let names = services.get(name).map(|placed| placed.service.depends_on.keys());
    names.into_iter().flatten().rev().map(String::as_str).collect()
}

fn report_cycle(services: &BTreeMap<String, Placed>, cycle: &[&str], findings: &mut Findings) {
    if findings.is_full() {
        return;
    }
    let place = |index: usize| -> Option<&Position> {
        let next = cycle[(index + 1) % cycle.len()];
        services.get(cycle[index])?.dependencies_at.get(next)
    };
    let mut finding =
        Diagnostic::error(format!("services wait for each other in a circle: {}", closed(cycle)))
            .hint("remove one of these dependencies; no service of the circle could ever start");
    let last = cycle.len() - 1;
    if let Some(at) = place(last) {
        finding = finding.at(at.location());
    }
    for (index, at) in (0..last).filter_map(|index| Some((index, place(index)?))) {
        finding = finding.related(at.location(), format!("{} waits for {}", cycle[index], cycle[index + 1]));
    }
    findings.push(finding);
}

/// One finding for each port of the host that two entries want, pointing at both.
pub(super) fn check_host_ports(services: &BTreeMap<String, Placed>, findings: &mut Findings) {
    let mut taken: BTreeMap<u16, Vec<(&str, &Port, &Position)>> = BTreeMap::new();
    for (name, placed) in services {
        for (port, at) in placed.service.ports.iter().zip(&placed.ports_at) {
            let Some(published) = port.published else { continue };
            let holders = taken.entry(published).or_default();
            if let Some((holder, _, holder_at)) = holders.iter().find(|(_, other, _)| overlap(port, other)) {
                // The later place in the text is the one to change.
                let ((first, first_at), (second, second_at)) =
                    if (holder_at.line, holder_at.column) <= (at.line, at.column) {
                        ((*holder, *holder_at), (name.as_str(), at))
                    } else {
                        ((name.as_str(), at), (*holder, *holder_at))
                    };
                let by = match first == second {
                    true => format!(" by {first}"),
                    false => format!(", by {first} and by {second}"),
                };
                let message = format!("port {published} of the host is published twice{by}");
                findings.push(
                    Diagnostic::error(message)
                        .at(second_at.location())
                        .related(first_at.location(), format!("{first} publishes it here"))
                        .hint("give one of them another port of the host, or let several replicas share one entry"),
                );
            } else {
                holders.push((name, port, at));
            }
        }
    }
}

/// Whether two ports with the same number cannot both be listened on. Without an address it is loopback's.
fn overlap(a: &Port, b: &Port) -> bool {
    let address = |port: &Port| port.host_ip.unwrap_or(IpAddr::from([127, 0, 0, 1]));
    let (x, y) = (address(a), address(b));
    a.protocol == b.protocol && (x == y || x.is_unspecified() || y.is_unspecified())
}

/// A name is one replica's alone.
pub(super) fn check_container_names(services: &BTreeMap<String, Placed>, findings: &mut Findings) {
    let mut holders: BTreeMap<&str, (&str, &Position)> = BTreeMap::new();
    for (service, placed) in services {
        let (Some(name), Some(at)) = (&placed.service.container_name, &placed.name_at) else { continue };
        match holders.get(name.as_str()) {
            None => {
                holders.insert(name, (service, at));
            }
            Some((holder, holder_at)) => findings.push(
                Diagnostic::error(format!(
                    "the containers of {holder} and of {service} are both called {name}"
                ))
                .at(at.location())
                .related(holder_at.location(), format!("{holder} is called so here"))
                .hint("give one of them another container_name"),
            ),
        }
    }
}

/// Services whose images are built from each other's must not do so in a circle.
pub(super) fn check_build_order(services: &BTreeMap<String, Placed>, findings: &mut Findings) {
    let needs = |name: &str| {
        let build = services.get(name).and_then(|placed| placed.service.build.as_ref());
        let contexts = build.into_iter().flat_map(|build| build.contexts.values());
        contexts
            .filter_map(|context| match context {
                BuildContext::Service(name) => Some(name.as_str()),
                BuildContext::Folder(_) | BuildContext::Image(_) => None,
            })
            .collect()
    };
    in_order(services, needs, |circle| {
        let Some(placed) = services.get(circle[0]).filter(|_| !findings.is_full()) else { return };
        let message = match circle {
            [alone] => format!("the image of {alone} is built from itself"),
            _ => format!("images are built from each other in a circle: {}", closed(circle)),
        };
        let hint = "remove service: from one of the additional_contexts";
        findings.error_with_hint(&placed.key_at, message, hint);
    });
}

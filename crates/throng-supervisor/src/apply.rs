//! From an app to what makes it: images looked up, networks made, ports bound. Only then does the actor hear of it, so
//! that a refusal leaves everything as it was.

mod left;

use crate::actor::{Applied, Before, Current, Fixed, Handles, Order, effective, own_address};
use crate::backend::Backend;
use crate::front::{self, Front, Fronts};
use crate::inside;
use crate::loopback;
use crate::paths::Paths;
use crate::protocol::{Manner, Refusal, RefusalKind};
use crate::spec::{self, Prepared};
use crate::state::{self, Durable, Kept, NodeOverride, STATE_VERSION};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use throng_control::address;
use throng_model::app::{App, Condition, Network, Port, Service};
use throng_model::node::LinkChange;
use throng_model::replica::NetworkSpec;

/// The longest wait for other supervisors that make networks at the same moment; each takes milliseconds.
const NETWORKS_WITHIN: Duration = Duration::from_secs(30);

/// Makes an app wanted: looks up images, makes networks, binds ports, and only then hands it to the actor, so
/// that a refusal leaves everything as it was.
pub async fn apply(
    fixed: &Arc<Fixed>,
    handles: &Handles,
    app: App,
    only: &[String],
    manner: Manner,
) -> Result<(), Refusal> {
    let current = handles.ask(|reply| Order::Current { reply }).await?;
    make_wanted(fixed, handles, current, app, only, manner, false).await
}

/// Takes up what an earlier supervisor was about, roll-outs under way included.
pub async fn resume(fixed: &Arc<Fixed>, handles: &Handles, durable: Durable) -> Result<(), Refusal> {
    let current = handles.ask(|reply| Order::Current { reply }).await?;
    make_wanted(fixed, handles, current, durable.app, &[], Manner::default(), true).await
}

/// What of an app is not new, and what that was made from.
struct Origins {
    resumed: bool,
    untouched: BTreeSet<String>,
    known: BTreeMap<String, Kept>,
}

async fn make_wanted(
    fixed: &Arc<Fixed>,
    handles: &Handles,
    current: Current,
    app: App,
    only: &[String],
    manner: Manner,
    resumed: bool,
) -> Result<(), Refusal> {
    let files = if manner.files.is_empty() { current.durable.files.clone() } else { manner.files };
    let Restricted { app, chosen, untouched } = restrict(app, only, manner.no_deps, &current.durable.app)?;
    let mut known = current.durable.rollouts.clone();
    known.retain(|name, _| resumed || untouched.contains(name));
    let origins = Origins { resumed, untouched, known };
    let mut recreated = current.durable.recreated.clone();
    recreated.retain(|name, _| app.services.contains_key(name));
    for name in app.services.keys().filter(|name| manner.recreate && chosen.contains(*name)) {
        *recreated.entry(name.clone()).or_default() += 1;
    }
    let mut made = Vec::new();
    let result = prepare_app(fixed, handles, &current, app, recreated, origins, &mut made).await;
    let result = match result {
        Ok(mut applied) => {
            applied.durable.files = files;
            let applied = Box::new(Applied { grace: manner.grace, ..applied });
            handles.ask(|reply| Order::Adopt { applied, reply }).await.and_then(|inner| inner)
        }
        Err(refusal) => Err(refusal),
    };
    if result.is_err() {
        for network in made {
            fixed.loopbacks.give_up(&network);
            if let Err(error) = fixed.runtime.remove_network(&network).await {
                tracing::warn!("network {network}: {error}");
            }
        }
    }
    result
}

struct Restricted {
    app: App,
    /// Services that were chosen by name, or all.
    chosen: BTreeSet<String>,
    /// Those that stay as they are now.
    untouched: BTreeSet<String>,
}

/// The chosen services and, unless they are left alone, what they depend on; others stay as they are now.
fn restrict(mut app: App, only: &[String], alone: bool, current: &App) -> Result<Restricted, Refusal> {
    if only.is_empty() {
        let chosen = app.services.keys().cloned().collect();
        return Ok(Restricted { app, chosen, untouched: BTreeSet::new() });
    }
    let mut chosen = BTreeSet::new();
    let mut open: Vec<String> = only.to_vec();
    while let Some(name) = open.pop() {
        let service = app.services.get(&name).ok_or_else(|| {
            let known: Vec<&str> = app.services.keys().map(String::as_str).collect();
            Refusal::new(RefusalKind::NotFound, format!("no service {name} in {}", app.name))
                .hint(format!("it has: {}", known.join(", ")))
        })?;
        if chosen.insert(name) && !alone {
            open.extend(service.depends_on.keys().cloned());
        }
    }
    app.services.retain(|name, _| chosen.contains(name));
    let others = current.services.iter().filter(|(name, _)| !chosen.contains(*name));
    let untouched = others.clone().map(|(name, _)| name.clone()).collect();
    app.services.extend(others.map(|(name, service)| (name.clone(), service.clone())));
    if alone {
        // Nothing can be waited for that is not there.
        let there: BTreeSet<String> = app.services.keys().cloned().collect();
        for service in app.services.values_mut() {
            service.depends_on.retain(|name, _| there.contains(name));
        }
    }
    for (name, network) in &current.networks {
        app.networks.entry(name.clone()).or_insert_with(|| network.clone());
    }
    Ok(Restricted { app, chosen: only.iter().cloned().collect(), untouched })
}

async fn prepare_app(
    fixed: &Arc<Fixed>,
    handles: &Handles,
    current: &Current,
    app: App,
    recreated: BTreeMap<String, u64>,
    origins: Origins,
    made: &mut Vec<String>,
) -> Result<Applied, Refusal> {
    if let Some(refusal) = app.services.values().find_map(|one| own_address(one, one.replicas)) {
        return Err(refusal);
    }
    let networks = make_networks(fixed, &current.durable, &app, made).await?;
    let (resumed, untouched) = (origins.resumed, origins.untouched.clone());
    let (prepared, before) = {
        let (fixed, app) = (fixed.clone(), app.clone());
        let (networks, recreated) = (networks.clone(), recreated.clone());
        let work = move || look_up(&fixed, &app, &networks, &recreated, &origins.known);
        tokio::task::spawn_blocking(work).await.map_err(|error| {
            Refusal::new(RefusalKind::Host, format!("looking up images failed: {error}"))
        })??
    };
    if let Some(refusal) = waits_in_vain(&app, &prepared).filter(|_| !resumed) {
        return Err(refusal);
    }
    let mut dns = BTreeMap::new();
    for (key, network) in &networks {
        if !current.named.contains(key) {
            let server = fixed.backend.serve_names(network, &fixed.directory).await?;
            dns.extend(server.map(|server| (key.clone(), server)));
        }
    }
    let mut stopped = current.durable.stopped.clone();
    stopped.retain(|service, _| resumed || untouched.contains(service));
    let nodes = match resumed {
        true => current.durable.nodes.clone(),
        false => kept_overrides(&current.durable.nodes, &app),
    };
    set_nodes(fixed, &app, &nodes).await?;
    let mut fronts = open_fronts(fixed, current, &app)?;
    let chosen_ports = chosen_ports(&current.durable.chosen_ports, &app, &fronts);
    let service_addresses = inside::open(fixed, handles, current, &prepared, &mut fronts).await?;
    let durable = Durable {
        version: STATE_VERSION,
        on: fixed.on.clone(),
        app,
        networks,
        chosen_ports,
        service_addresses,
        recreated,
        rollouts: BTreeMap::new(),
        jobs: BTreeMap::new(),
        nodes,
        stopped,
        files: Vec::new(),
        going_down: false,
    };
    Ok(Applied { durable, prepared, fronts, dns, grace: None, resumed, before, untouched })
}

/// Nobody becomes healthy who has no health check, neither in the file nor in its image.
fn waits_in_vain(app: &App, prepared: &BTreeMap<String, Prepared>) -> Option<Refusal> {
    let healthy = app.services.values().flat_map(|service| {
        let healthy = service.depends_on.iter().filter(|(_, on)| on.condition == Condition::ServiceHealthy);
        healthy.map(|(on, _)| (&service.name, on))
    });
    let unasked = |on: &Prepared| on.health.is_none() && on.service.startup.is_none();
    let mut vain = healthy.filter(|(_, on)| prepared.get(*on).is_some_and(unasked));
    let (service, on) = vain.next()?;
    let message = format!("{service} waits until {on} is healthy, but {on} has no health check");
    let hint =
        format!("give {on} a healthcheck or x-throng.readiness, or wait with condition: service_started");
    Some(Refusal::new(RefusalKind::Invalid, message).hint(hint))
}

/// What has been said about nodes and outlives a new definition: who is drained or cut off. How a link is the definition
/// says anew.
fn kept_overrides(said: &BTreeMap<String, NodeOverride>, app: &App) -> BTreeMap<String, NodeOverride> {
    let kept = |(name, said): (&String, &NodeOverride)| {
        let link = LinkChange { up: said.link.up, ..LinkChange::default() };
        app.nodes.contains_key(name).then(|| (name.clone(), NodeOverride { link, ..said.clone() }))
    };
    said.iter().filter_map(kept).collect()
}

async fn set_nodes(fixed: &Fixed, app: &App, said: &BTreeMap<String, NodeOverride>) -> Result<(), Refusal> {
    let _order = fixed.nodes.lock().await;
    for (name, state) in effective(&app.nodes, said) {
        fixed.runtime.set_node(&fixed.project, &name, &state.node).await?;
    }
    Ok(())
}

/// Services as they are to be, and as those were that are on their way there.
type LookedUp = (BTreeMap<String, Prepared>, BTreeMap<String, Before>);

/// Everything about the services' images. Those of roll-outs that were under way are known by their ids.
fn look_up(
    fixed: &Fixed,
    app: &App,
    networks: &BTreeMap<String, NetworkSpec>,
    recreated: &BTreeMap<String, u64>,
    known: &BTreeMap<String, Kept>,
) -> Result<LookedUp, Refusal> {
    let (store, paths) = (&*fixed.store, &fixed.paths);
    let from = |id: &str, hash: &str, app: &App, service: &Service| {
        let prepared = spec::prepare(id, app, service, networks, store, paths);
        // One that is gone cannot be gone back to; what runs of it goes on.
        let prepared = prepared.inspect_err(|refusal| tracing::warn!("{}: {refusal}", service.name)).ok()?;
        Some(Prepared { config_hash: hash.to_owned(), ..prepared })
    };
    let (mut prepared, mut before) = (BTreeMap::new(), BTreeMap::new());
    for (name, service) in &app.services {
        let kept = known.get(name);
        let one = match kept.and_then(|kept| from(&kept.image_id, &kept.hash, app, service)) {
            Some(one) => one,
            None => {
                let mut one = spec::prepare(&service.image, app, service, networks, store, paths)?;
                // What is to be made anew differs from what is there by nothing else.
                if let Some(times) = recreated.get(name) {
                    one.config_hash += &format!("-{times}");
                }
                one
            }
        };
        prepared.insert(name.clone(), one);
        let earlier = kept.and_then(|kept| kept.earlier.as_ref());
        before.extend(earlier.and_then(|earlier| {
            let service = earlier.app.services.get(name)?;
            let prepared = from(&earlier.image_id, &earlier.hash, &earlier.app, service)?;
            Some((name.clone(), Before { app: earlier.app.clone(), prepared }))
        }));
    }
    Ok((prepared, before))
}

/// Front doors for ports that this process does not listen on yet.
fn open_fronts(fixed: &Arc<Fixed>, current: &Current, app: &App) -> Result<Fronts, Refusal> {
    let mut fronts = Fronts::new();
    for (name, service) in &app.services {
        let open = current.ports.get(name);
        let is_open = |port: &Port| open.is_some_and(|open| open.contains(port));
        let chosen = current.durable.chosen_ports.get(name);
        for front in front::open_new(&service.ports, is_open, chosen, fixed.backend.dial()) {
            let front = front
                .map_err(|refusal| Refusal { message: format!("{name}: {}", refusal.message), ..refusal })?;
            fronts.entry(name.clone()).or_default().push(front);
        }
    }
    Ok(fronts)
}

/// The ports that the kernel has chosen, earlier ones of services that are still there and new ones.
fn chosen_ports(
    earlier: &BTreeMap<String, BTreeMap<u16, u16>>,
    app: &App,
    fronts: &Fronts,
) -> BTreeMap<String, BTreeMap<u16, u16>> {
    let mut chosen = earlier.clone();
    chosen.retain(|service, _| app.services.contains_key(service));
    for (service, fronts) in fronts {
        for (target, port) in fronts.iter().filter_map(Front::chosen) {
            chosen.entry(service.clone()).or_default().insert(target, port);
        }
    }
    chosen
}

/// Makes the networks that are not there yet. A lock keeps two projects from choosing the same subnet.
async fn make_networks(
    fixed: &Arc<Fixed>,
    current: &Durable,
    app: &App,
    made: &mut Vec<String>,
) -> Result<BTreeMap<String, NetworkSpec>, Refusal> {
    let _held = lock_networks().await?;
    // One that the file has no more stays until the app goes, or it could not come back at the same place.
    let mut networks = current.networks.clone();
    for (key, network) in &app.networks {
        let left = match current.networks.contains_key(key) {
            true => None,
            false => left::behind(fixed, key, network).await?,
        };
        let spec = match current.networks.get(key).or(left.as_ref()) {
            Some(spec) => match network.subnet.filter(|subnet| *subnet != spec.subnet) {
                None => spec.clone(),
                Some(other) => {
                    let message = format!("network {key} has {} and cannot change to {other}", spec.subnet);
                    return Err(Refusal::new(RefusalKind::Invalid, message)
                        .hint("take the app down first, or leave the subnet as it is"));
                }
            },
            None => new_network(fixed, key, network, networks.values())?,
        };
        if let Some(other) = network.gateway.filter(|gateway| *gateway != spec.gateway) {
            let message =
                format!("network {key} has the gateway {} and cannot change to {other}", spec.gateway);
            return Err(Refusal::new(RefusalKind::Invalid, message).hint("take the app down first"));
        }
        let made_it = fixed.runtime.create_network(&spec).await;
        made_it.map_err(|error| placed(Refusal::from(error), network))?;
        if fixed.backend.on_loopback()
            && let Err(error) = fixed.loopbacks.take(&spec)
        {
            tracing::warn!("network {}: others may take {}, too: {error}", spec.name, spec.subnet);
        }
        if !current.networks.contains_key(key) {
            made.push(spec.name.clone());
        }
        networks.insert(key.clone(), spec);
    }
    Ok(networks)
}

/// Where the file asks for the subnet, before what is wrong with it.
fn placed(refusal: Refusal, network: &Network) -> Refusal {
    match &network.subnet_at.0 {
        Some(at) => Refusal { message: format!("{at}: {}", refusal.message), ..refusal },
        None => refusal,
    }
}

/// What a network that is not there yet is to be; `others` are those of the same app.
fn new_network<'a>(
    fixed: &Fixed,
    key: &str,
    network: &Network,
    others: impl Iterator<Item = &'a NetworkSpec>,
) -> Result<NetworkSpec, Refusal> {
    let name = format!("{}_{key}", fixed.project);
    let (routes, of_projects) = (routes(), subnets_of_projects(&fixed.paths));
    let on_loopback = fixed.backend.on_loopback();
    // Plain processes have addresses of the host's own loopback and no others.
    let asked = network.subnet.filter(|_| !on_loopback);
    if let (Some(subnet), Backend::Local(_)) = (asked, &fixed.backend) {
        let taken = others.map(|other| (format!("is that of network {}", other.name), other.subnet));
        let taken = taken.chain(of_projects.iter().cloned());
        // Its own bridge may be left of a supervisor that was killed.
        let own = throng_engine::bridge_name(&name);
        let foreign = routes.iter().filter(|(interface, _)| *interface != own);
        let all =
            taken.chain(foreign.map(|(interface, net)| {
                (format!("is where this host has a route to, over {interface}"), *net)
            }));
        if let Some((whose, other)) = all.into_iter().find(|(_, other)| overlap(*other, subnet)) {
            let message = format!("the subnet {subnet} of network {key} overlaps {other}, which {whose}");
            let refusal = Refusal::new(RefusalKind::Invalid, message);
            return Err(placed(
                refusal.hint("choose another one, or leave it out to get a free one"),
                network,
            ));
        }
    }
    let mut in_use: Vec<_> = routes.iter().chain(&of_projects).map(|(_, net)| *net).collect();
    if on_loopback {
        in_use.extend(loopback::in_use());
    }
    let subnet = asked.or_else(|| address::free_subnet(&in_use, on_loopback)).ok_or_else(|| {
        Refusal::new(RefusalKind::Host, format!("no free subnet for network {key}"))
            .hint("take another project down, or give the network a `subnet` under `ipam`")
    })?;
    let gateway = network.gateway.filter(|gateway| subnet.contains(gateway));
    let gateway = gateway.or_else(|| address::gateway(subnet)).ok_or_else(|| {
        Refusal::new(RefusalKind::Invalid, format!("network {key}: {subnet} has no usable address"))
    })?;
    Ok(NetworkSpec { name, subnet, gateway, internal: network.internal })
}

fn overlap(a: ipnet::Ipv4Net, b: ipnet::Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

/// Takes a lock that every supervisor of this host shares, whoever's it is and wherever its folders are: subnets are
/// taken from the host's network namespace, so its own file is what is locked (flock(2), namespaces(7)).
async fn lock_networks() -> Result<std::fs::File, Refusal> {
    let refusal = |error: std::io::Error| {
        Refusal::new(RefusalKind::Host, format!("cannot lock the network namespace: {error}"))
    };
    let file = std::fs::File::open("/proc/self/ns/net").map_err(refusal)?;
    let deadline = tokio::time::Instant::now() + NETWORKS_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::Error(error)) => return Err(refusal(error)),
            Err(std::fs::TryLockError::WouldBlock) if tokio::time::Instant::now() >= deadline => {
                let message = format!("others have been making networks for {NETWORKS_WITHIN:?}");
                return Err(Refusal::new(RefusalKind::Host, message)
                    .hint("try again; `lslocks` names who holds the network namespace"));
            }
            Err(std::fs::TryLockError::WouldBlock) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}

/// Subnets that this host has routes to, with the interfaces that they lead over.
fn routes() -> Vec<(String, ipnet::Ipv4Net)> {
    // Without the table the choice may collide with a network of somebody else's; making it then fails and says so.
    parse_routes(&std::fs::read_to_string("/proc/net/route").unwrap_or_default())
}

/// Those of all of this user's projects, with whose they are.
fn subnets_of_projects(paths: &Paths) -> Vec<(String, ipnet::Ipv4Net)> {
    let mut subnets = Vec::new();
    for project in std::fs::read_dir(paths.projects()).into_iter().flatten().flatten() {
        if let Ok(Some(durable)) = state::load(&project.path().join("state.json")) {
            let each = durable.networks.values();
            subnets
                .extend(each.map(|network| (format!("is that of network {}", network.name), network.subnet)));
        }
    }
    subnets
}

/// The table of `/proc/net/route` (proc(5)): addresses and masks as hexadecimal in the host's byte order.
fn parse_routes(table: &str) -> Vec<(String, ipnet::Ipv4Net)> {
    let hex =
        |text: &str| u32::from_str_radix(text, 16).ok().map(|n| std::net::Ipv4Addr::from(n.to_ne_bytes()));
    let rows = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, mask) = (hex(fields.get(1)?)?, hex(fields.get(7)?)?);
        Some((fields.first()?.to_string(), ipnet::Ipv4Net::with_netmask(address, mask).ok()?))
    });
    // The default route overlaps everything and says nothing about what is in use.
    rows.filter(|(_, net)| net.prefix_len() > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_read_and_the_default_one_is_left_out() {
        let table = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t0102A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t0002A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        let expected = vec![("eth0".to_owned(), "192.168.2.0/24".parse().expect("a subnet"))];
        assert_eq!(parse_routes(table), if cfg!(target_endian = "little") { expected } else { vec![] });
    }
}

//! Names inside networks. Written by the supervisor's one task as replicas come, become ready and leave; read by the
//! name servers. A change costs the same whether a service has one replica or ten thousand.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{PoisonError, RwLock};
use throng_engine::dns::{Lookup, Resolve};

/// Replicas are also known as `PROJECT-SERVICE-ORDINAL`.
pub struct Directory {
    prefix: String,
    networks: RwLock<HashMap<String, Names>>,
}

#[derive(Default)]
struct Names {
    /// Services by their own names and by their aliases, in lower case.
    services: HashMap<String, BTreeSet<String>>,
    /// Addresses of ready replicas.
    ready: HashMap<String, Vec<Ipv4Addr>>,
    /// All replicas, ready or not, by service in lower case and ordinal.
    replicas: HashMap<String, HashMap<u32, Ipv4Addr>>,
    /// The services, in lower case, that replicas are of.
    owners: HashMap<Ipv4Addr, String>,
    /// Addresses of services themselves.
    doors: HashMap<String, Door>,
}

/// A service's own address, at which connections are held until one of its replicas is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Door {
    pub address: Ipv4Addr,
    /// Its name always means this address; otherwise only while no replica is ready.
    pub always: bool,
}

/// Which services answer to which names: by network, then by name.
pub type Definition = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

impl Directory {
    pub fn new(project: &str) -> Directory {
        Directory { prefix: format!("{}-", project.to_ascii_lowercase()), networks: RwLock::default() }
    }

    /// Replaces what names mean; replicas stay as they are known.
    pub fn define(&self, definition: Definition) {
        self.change(|networks| {
            networks.values_mut().for_each(|names| names.services.clear());
            for (network, services) in definition {
                let lower =
                    services.into_iter().map(|(name, services)| (name.to_ascii_lowercase(), services));
                networks.entry(network).or_default().services = lower.collect();
            }
        });
    }

    /// Makes a replica known under its own name.
    pub fn place(&self, network: &str, service: &str, ordinal: u32, address: Ipv4Addr) {
        self.change(|networks| {
            let names = networks.entry(network.to_owned()).or_default();
            let service = service.to_ascii_lowercase();
            names.owners.insert(address, service.clone());
            names.replicas.entry(service).or_default().insert(ordinal, address);
        });
    }

    pub fn forget(&self, network: &str, service: &str, ordinal: u32) {
        self.change(|networks| {
            let Some(names) = networks.get_mut(network) else { return };
            let replicas = names.replicas.get_mut(&service.to_ascii_lowercase());
            if let Some(address) = replicas.and_then(|replicas| replicas.remove(&ordinal)) {
                names.owners.remove(&address);
            }
        });
    }

    /// Replaces the addresses that a service's name stands for.
    pub fn set_ready(&self, network: &str, service: &str, addresses: Vec<Ipv4Addr>) {
        self.change(|networks| {
            networks.entry(network.to_owned()).or_default().ready.insert(service.to_owned(), addresses);
        });
    }

    /// Says where a service is to be reached when its replicas are not, if it is.
    pub fn set_door(&self, network: &str, service: &str, door: Option<Door>) {
        self.change(|networks| {
            let names = networks.entry(network.to_owned()).or_default();
            match door {
                Some(door) => drop(names.doors.insert(service.to_owned(), door)),
                None => drop(names.doors.remove(service)),
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut HashMap<String, Names>)) {
        // A poisoned lock means that a reader panicked, and readers change nothing.
        change(&mut self.networks.write().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Names {
    /// What the name of these services means to a client. Replicas of a service find each other and never its door: one
    /// that looks for others before any is ready is not to wait for itself.
    fn services(&self, services: &BTreeSet<String>, client: IpAddr) -> Vec<Ipv4Addr> {
        let owner = match client {
            IpAddr::V4(client) => self.owners.get(&client),
            IpAddr::V6(_) => None,
        };
        let door = |service: &String| {
            let own = owner.is_some_and(|owner| owner.eq_ignore_ascii_case(service));
            self.doors.get(service).filter(|_| !own)
        };
        let mut addresses = Vec::new();
        for service in services {
            match door(service).filter(|door| door.always) {
                Some(door) => addresses.push(door.address),
                None => addresses.extend(self.ready.get(service).into_iter().flatten()),
            }
        }
        if addresses.is_empty() {
            addresses.extend(services.iter().filter_map(door).map(|door| door.address));
        }
        addresses
    }

    /// `web-3`: one replica.
    fn replica(&self, name: &str) -> Option<Ipv4Addr> {
        let (service, digits) = name.rsplit_once('-')?;
        let ordinal: u32 = digits.parse().ok()?;
        let plain = ordinal.to_string() == digits;
        self.replicas.get(service)?.get(&ordinal).copied().filter(|_| plain)
    }
}

impl Resolve for Directory {
    fn lookup(&self, network: &str, name: &str, client: IpAddr) -> Lookup {
        let networks = self.networks.read().unwrap_or_else(PoisonError::into_inner);
        let Some(names) = networks.get(network) else { return Lookup::NoSuchName };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if let Some(services) = names.services.get(&name) {
            let addresses = names.services(services, client);
            return if addresses.is_empty() { Lookup::NoReplicas } else { Lookup::Addresses(addresses) };
        }
        let full = name.strip_prefix(&self.prefix).and_then(|rest| names.replica(rest));
        match names.replica(&name).or(full) {
            Some(address) => Lookup::Addresses(vec![address]),
            None => Lookup::NoSuchName,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    /// What a stranger is told.
    fn lookup(directory: &Directory, network: &str, name: &str) -> Lookup {
        directory.lookup(network, name, at(200).into())
    }

    #[test]
    fn names_mean_ready_replicas_and_replicas_mean_themselves() {
        let directory = Directory::new("Shop");
        let both = BTreeSet::from(["Web".to_owned(), "web2".to_owned()]);
        let names =
            BTreeMap::from([("Web".to_owned(), BTreeSet::from(["Web".to_owned()])), ("site".into(), both)]);
        directory.define(BTreeMap::from([("n".to_owned(), names)]));
        assert_eq!(lookup(&directory, "n", "web"), Lookup::NoReplicas);
        for ordinal in [1, 12] {
            directory.place("n", "Web", ordinal, at(ordinal as u8));
        }
        directory.set_ready("n", "Web", vec![at(12)]);
        directory.set_ready("n", "web2", vec![at(7)]);
        assert_eq!(lookup(&directory, "n", "WEB."), Lookup::Addresses(vec![at(12)]));
        assert_eq!(lookup(&directory, "n", "site"), Lookup::Addresses(vec![at(12), at(7)]));
        for name in ["web-1", "shop-web-1"] {
            assert_eq!(lookup(&directory, "n", name), Lookup::Addresses(vec![at(1)]), "{name}");
        }
        for name in ["web-01", "web-2", "web-+1", "other", "shop-web", "-1"] {
            assert_eq!(lookup(&directory, "n", name), Lookup::NoSuchName, "{name}");
        }
        assert_eq!(lookup(&directory, "m", "web"), Lookup::NoSuchName);
        directory.forget("n", "Web", 1);
        assert_eq!(lookup(&directory, "n", "web-1"), Lookup::NoSuchName);
        directory.define(Definition::new());
        assert_eq!(lookup(&directory, "n", "web"), Lookup::NoSuchName);
        assert_eq!(lookup(&directory, "n", "web-12"), Lookup::Addresses(vec![at(12)]));
    }

    #[test]
    fn a_door_is_for_those_who_find_nobody_and_for_no_replica_of_its_own() {
        let directory = Directory::new("shop");
        let names = |name: &str| (name.to_owned(), BTreeSet::from([name.to_owned()]));
        directory.define(BTreeMap::from([("n".to_owned(), BTreeMap::from([names("Web"), names("idle")]))]));
        directory.place("n", "Web", 1, at(1));
        let door = |last, always| Some(Door { address: at(last), always });
        directory.set_door("n", "Web", door(9, false));
        let of = |last: u8, name: &str| directory.lookup("n", name, at(last).into());
        assert_eq!(of(2, "web"), Lookup::Addresses(vec![at(9)]));
        assert_eq!(of(1, "web"), Lookup::NoReplicas, "it does not wait for itself");
        directory.set_ready("n", "Web", vec![at(1)]);
        assert_eq!(of(2, "web"), Lookup::Addresses(vec![at(1)]));
        directory.set_door("n", "Web", door(9, true));
        assert_eq!(of(2, "web"), Lookup::Addresses(vec![at(9)]));
        assert_eq!(of(1, "web"), Lookup::Addresses(vec![at(1)]));
        directory.set_door("n", "Web", None);
        directory.set_ready("n", "Web", Vec::new());
        assert_eq!(of(2, "web"), Lookup::NoReplicas);
        assert_eq!(of(2, "idle"), Lookup::NoReplicas);
        directory.set_door("n", "Web", door(9, false));
        directory.forget("n", "Web", 1);
        assert_eq!(of(1, "web"), Lookup::Addresses(vec![at(9)]), "somebody else's by now");
    }
}

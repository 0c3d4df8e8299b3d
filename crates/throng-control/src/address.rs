//! Which subnet and which address is the next free one.

use ipnet::Ipv4AddrRange;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use throng_model::replica::NetworkSpec;

/// Subnets given out to networks: 10.128.0.0/16 to 10.255.0.0/16, 65,533 replicas each.
const POOL: std::ops::RangeInclusive<u8> = 128..=255;

/// Subnets for plain processes, which get loopback addresses: 127.64.0.0/16 to 127.191.0.0/16.
const LOOPBACK_POOL: std::ops::RangeInclusive<u8> = 64..=191;

/// The first subnet of the pool that overlaps none of those in use; `None` when all 128 are taken.
pub fn free_subnet(in_use: &[ipnet::Ipv4Net], loopback: bool) -> Option<ipnet::Ipv4Net> {
    let (first, range) = if loopback { (127, LOOPBACK_POOL) } else { (10, POOL) };
    range
        .filter_map(|second| ipnet::Ipv4Net::new(Ipv4Addr::new(first, second, 0, 0), 16).ok())
        .find(|candidate| !in_use.iter().any(|used| used.contains(candidate) || candidate.contains(used)))
}

/// Whether an address is of one of the subnets for plain processes.
pub fn is_of_loopbacks(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 127 && LOOPBACK_POOL.contains(&second)
}

/// The gateway of a subnet: its first usable address.
pub fn gateway(subnet: ipnet::Ipv4Net) -> Option<Ipv4Addr> {
    subnet.hosts().next()
}

/// The addresses of one network that are given out.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    taken: BTreeSet<Ipv4Addr>,
    /// Everything below is taken, so that giving out the ten-thousandth address costs no more than the first.
    lowest: Option<Ipv4Addr>,
    /// What is given out to those who ask for none; `None` is all of the subnet.
    range: Option<ipnet::Ipv4Net>,
    /// Given to nobody but who asks for one of them.
    kept: BTreeSet<Ipv4Addr>,
}

impl Addresses {
    /// Says what may be given out to those who ask for no address in particular.
    pub fn define(&mut self, range: Option<ipnet::Ipv4Net>, kept: BTreeSet<Ipv4Addr>) {
        (self.range, self.kept) = (range, kept);
        self.lowest = None;
    }

    /// Gives out the lowest address that is neither the network's gateway nor taken nor kept; `None` when it is full.
    pub fn take(&mut self, network: &NetworkSpec) -> Option<Ipv4Addr> {
        let mut hosts = network.subnet.hosts();
        let (first, last) = (hosts.next()?, hosts.last()?);
        let (first, last) = match self.range {
            Some(range) => (first.max(range.network()), last.min(range.broadcast())),
            None => (first, last),
        };
        let from = self.lowest.map_or(first, |lowest| lowest.max(first));
        let free = |address: &Ipv4Addr| {
            *address != network.gateway && !self.taken.contains(address) && !self.kept.contains(address)
        };
        let found = Ipv4AddrRange::new(from, last).find(free);
        self.lowest = Some(found.unwrap_or(last));
        self.taken.extend(found);
        found
    }

    /// Gives out this address, if nobody has it.
    pub fn take_exactly(&mut self, address: Ipv4Addr) -> bool {
        self.taken.insert(address)
    }

    /// Notes an address that somebody else gave out.
    pub fn reserve(&mut self, address: Ipv4Addr) {
        self.taken.insert(address);
    }

    pub fn release(&mut self, address: Ipv4Addr) {
        self.taken.remove(&address);
        self.lowest = self.lowest.map(|lowest| lowest.min(address));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> ipnet::Ipv4Net {
        text.parse().expect("a subnet")
    }

    #[test]
    fn subnets_avoid_what_is_in_use_in_both_directions() {
        assert_eq!(free_subnet(&[], false), Some(net("10.128.0.0/16")));
        assert_eq!(free_subnet(&[net("10.128.9.0/24")], false), Some(net("10.129.0.0/16")));
        assert_eq!(free_subnet(&[net("10.0.0.0/8")], false), None);
        assert_eq!(free_subnet(&[net("10.0.0.0/8")], true), Some(net("127.64.0.0/16")));
    }

    #[test]
    fn addresses_come_from_the_range_and_kept_ones_are_for_who_asks() {
        let subnet = net("10.1.2.0/24");
        let gateway = "10.1.2.65".parse().expect("an address");
        let network = NetworkSpec { name: "n".into(), subnet, gateway, internal: false };
        let address = |last: u8| Ipv4Addr::new(10, 1, 2, last);
        let mut addresses = Addresses::default();
        addresses.define(Some(net("10.1.2.64/29")), BTreeSet::from([address(66), address(7)]));
        let drawn: Vec<_> = std::iter::from_fn(|| addresses.take(&network)).collect();
        assert_eq!(drawn, [64, 67, 68, 69, 70, 71].map(address), "neither the gateway's nor a kept one");
        assert!(addresses.take_exactly(address(66)) && addresses.take_exactly(address(7)));
        assert!(!addresses.take_exactly(address(7)), "it is somebody's");
        addresses.release(address(66));
        assert_eq!(addresses.take(&network), None, "it stays kept");
        addresses.define(None, BTreeSet::new());
        assert_eq!(addresses.take(&network), Some(address(1)), "no range any more");
    }

    #[test]
    fn addresses_fill_gaps_and_end() {
        let subnet = net("10.1.2.0/29");
        let network = NetworkSpec {
            name: "n".into(),
            subnet,
            gateway: gateway(subnet).expect("a gateway"),
            internal: false,
        };
        let mut addresses = Addresses::default();
        addresses.reserve(Ipv4Addr::new(10, 1, 2, 3));
        let given: Vec<u8> =
            std::iter::from_fn(|| addresses.take(&network)).map(|address| address.octets()[3]).collect();
        assert_eq!(given, [2, 4, 5, 6]);
        assert_eq!(addresses.take(&network), None);
        addresses.release(Ipv4Addr::new(10, 1, 2, 4));
        addresses.release(Ipv4Addr::new(10, 1, 2, 3));
        assert_eq!(addresses.take(&network), Some(Ipv4Addr::new(10, 1, 2, 3)));
        assert_eq!(addresses.take(&network), Some(Ipv4Addr::new(10, 1, 2, 4)));
        assert_eq!(addresses.take(&network), None);
    }
}

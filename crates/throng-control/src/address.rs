//! Which subnet and which address is the next free one.

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

/// The gateway of a subnet: its first usable address.
pub fn gateway(subnet: ipnet::Ipv4Net) -> Option<Ipv4Addr> {
    subnet.hosts().next()
}

/// The lowest address of the network that is neither its gateway nor taken; `None` when it is full.
pub fn free_address(network: &NetworkSpec, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
    network.subnet.hosts().find(|address| *address != network.gateway && !taken.contains(address))
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
    fn addresses_fill_gaps_and_end() {
        let subnet = net("10.1.2.0/29");
        let network = NetworkSpec {
            name: "n".into(),
            subnet,
            gateway: gateway(subnet).expect("a gateway"),
            internal: false,
        };
        let mut taken = BTreeSet::new();
        let mut given = Vec::new();
        while let Some(address) = free_address(&network, &taken) {
            taken.insert(address);
            given.push(address.octets()[3]);
        }
        assert_eq!(given, [2, 3, 4, 5, 6]);
        taken.remove(&Ipv4Addr::new(10, 1, 2, 4));
        assert_eq!(free_address(&network, &taken), Some(Ipv4Addr::new(10, 1, 2, 4)));
    }
}

//! Which parent a replica's interface is behind.

use super::{Control, Fabric, Links, parent_number};
use std::net::Ipv4Addr;

impl Fabric {
    /// Index of the parent that an address of a network is behind. None where nobody has opened the network yet, where the
    /// parent is not there, and where replicas have pairs of their own.
    pub fn parent_of(&self, network: &str, address: Ipv4Addr) -> Option<u32> {
        match self.links {
            Links::Macvlans => self.control().parent_of(network, address),
            Links::Pairs => None,
        }
    }
}

impl Control {
    fn parent_of(&mut self, network: &str, address: Ipv4Addr) -> Option<u32> {
        let segment = self.segments.get_mut(network)?;
        let number = parent_number(&segment.spec, address);
        self.connection.find_parent(segment, number).ok()?.map(|parent| parent.index)
    }
}

//! Subnets of the host's loopback, which plain processes have their addresses from. The kernel gives them to nobody and
//! so says nothing of who uses them: a route it has, of 127.0.0.0/8, is everybody's. What can be seen by everyone,
//! whoever's folders and whichever user's, is where sockets are bound.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use throng_control::address;
use throng_model::replica::NetworkSpec;

/// Where the kernel lists the sockets of this network namespace (proc(5)).
const TABLES: [&str; 4] = ["/proc/net/udp", "/proc/net/tcp", "/proc/net/udp6", "/proc/net/tcp6"];

/// Sockets that nobody sends to, one at the gateway of each network of this app: as long as they are open, others see
/// that the subnets are taken.
#[derive(Debug, Default)]
pub struct Claims(Mutex<BTreeMap<String, UdpSocket>>);

impl Claims {
    /// Marks the subnet of a network as taken until it is given up or this process ends.
    pub fn take(&self, network: &NetworkSpec) -> std::io::Result<()> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.contains_key(&network.name) {
            let socket = UdpSocket::bind(SocketAddr::from((network.gateway, 0)))?;
            held.insert(network.name.clone(), socket);
        }
        Ok(())
    }

    pub fn give_up(&self, network: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(network);
    }
}

/// Addresses in the subnets for plain processes at which anybody has a socket: supervisors that live, and replicas whose
/// supervisor does not.
pub fn in_use() -> Vec<ipnet::Ipv4Net> {
    // Without a table the choice may be somebody else's, too; then the second one who listens at a port there fails.
    let tables = TABLES.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    let addresses = tables.flat_map(|table| local_addresses(&table));
    addresses.filter(|address| address::is_of_loopbacks(*address)).map(ipnet::Ipv4Net::from).collect()
}

/// The local addresses in one of the tables, as far as they are of IPv4: hexadecimal words in the host's byte order.
fn local_addresses(table: &str) -> Vec<Ipv4Addr> {
    let address = |line: &str| {
        let (digits, _) = line.split_whitespace().nth(1)?.split_once(':')?;
        let word = |at: usize| u32::from_str_radix(digits.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
        match digits.len() {
            8 => Some(Ipv4Addr::from(word(0)?)),
            32 => {
                let words = [word(0)?, word(8)?, word(16)?, word(24)?];
                let octets: [u8; 16] = words.concat().try_into().ok()?;
                Ipv6Addr::from(octets).to_ipv4_mapped()
            }
            _ => None,
        }
    };
    table.lines().skip(1).filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn what_others_hold_or_listen_at_is_seen() {
        // An address of its own, whatever runs beside this test.
        let own = Ipv4Addr::new(127, 191, 254, 1);
        let seen = || in_use().iter().filter(|net| net.contains(&own)).count();
        assert_eq!(seen(), 0);
        let network = NetworkSpec {
            name: "a_b".into(),
            subnet: "127.191.0.0/16".parse().expect("a subnet"),
            gateway: own,
            internal: false,
        };
        let claims = Claims::default();
        claims.take(&network).expect("free");
        claims.take(&network).expect("its own already");
        assert_eq!(seen(), 1);
        claims.give_up("a_b");
        assert_eq!(seen(), 0);
        let listening = TcpListener::bind((own, 0)).expect("free");
        assert_eq!(seen(), 1);
        drop(listening);
        // As a plain process has it that listens on every address of both families.
        let mapped = TcpListener::bind((own.to_ipv6_mapped(), 0));
        assert!(mapped.is_err() || seen() == 1, "{:?}", in_use());
    }

    #[test]
    fn lines_that_are_none_are_passed_over() {
        for table in
            ["", "head\n", "head\n 0: 0100007F\n", "head\n 0: 01:02\n", "head\n 0: zz00007F:0050 x\n"]
        {
            assert_eq!(local_addresses(table), [] as [Ipv4Addr; 0], "{table:?}");
        }
    }
}

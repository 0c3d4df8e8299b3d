//! Which local addresses mean a plain process' own one.
//!
//! In a network namespace of its own a program that listens on every address, or on its loopback, gets an address
//! that nobody else has. Among plain processes they would all fight for the same port; so such an address is replaced
//! by the replica's own one. See [`crate::sys::notify`] for how.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Bytes of the largest address that matters, `struct sockaddr_in6`.
pub const LARGEST: usize = 28;
/// Bytes that the kernel wants at least of `struct sockaddr_in` and, since RFC 2133, of `struct sockaddr_in6`.
const SHORTEST_V4: usize = 16;
const SHORTEST_V6: usize = 24;

/// A `struct sockaddr` of IPv4 or IPv6, as ip(7) and ipv6(7) lay it out.
pub fn parse(bytes: &[u8]) -> Option<SocketAddr> {
    let family = i32::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let address: IpAddr = match family {
        libc::AF_INET if bytes.len() >= SHORTEST_V4 => {
            Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?).into()
        }
        libc::AF_INET6 if bytes.len() >= SHORTEST_V6 => {
            Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, port))
}

/// Writes another address of the same family over the one in `bytes`; its other fields stay.
pub fn replace(bytes: &mut [u8], address: SocketAddr) {
    let (place, octets): (usize, &[u8]) = match address.ip() {
        IpAddr::V4(v4) => (4, &v4.octets()),
        IpAddr::V6(v6) => (8, &v6.octets()),
    };
    if let Some(target) = bytes.get_mut(place..place + octets.len()) {
        target.copy_from_slice(octets);
    }
    if let Some(target) = bytes.get_mut(2..4) {
        target.copy_from_slice(&address.port().to_be_bytes());
    }
}

/// What the address becomes for the replica at `own`; `None` leaves it as it is. Port 0 is never in anybody's way and
/// stays, since a client that binds to it may want to reach the world.
pub fn own(address: SocketAddr, own: Ipv4Addr) -> Option<SocketAddr> {
    if address.port() == 0 || !is_local(address.ip()) {
        return None;
    }
    let ip = match address.ip() {
        IpAddr::V4(_) => IpAddr::V4(own),
        IpAddr::V6(_) => IpAddr::V6(own.to_ipv6_mapped()),
    };
    Some(SocketAddr::new(ip, address.port()))
}

/// Every address of this host, or its usual loopback address.
fn is_local(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_unspecified() || v4 == Ipv4Addr::LOCALHOST,
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_loopback(),
    }
}

/// Where a socket for IPv6 alone listens: nobody asks for it there, and it is in nobody's way.
pub const ASIDE: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 2);

    #[test]
    fn local_addresses_become_the_replicas_own() {
        for (given, expected) in [
            ("0.0.0.0:80", Some("127.77.0.2:80")),
            ("127.0.0.1:80", Some("127.77.0.2:80")),
            ("[::]:80", Some("[::ffff:127.77.0.2]:80")),
            ("[::1]:80", Some("[::ffff:127.77.0.2]:80")),
            ("[::ffff:0.0.0.0]:80", Some("[::ffff:127.77.0.2]:80")),
            ("[::ffff:127.0.0.1]:80", Some("[::ffff:127.77.0.2]:80")),
            ("0.0.0.0:0", None),
            ("[::]:0", None),
            ("127.0.0.2:80", None),
            ("127.77.0.2:80", None),
            ("192.168.1.1:80", None),
            ("[fe80::1]:80", None),
        ] {
            let given: SocketAddr = given.parse().expect(given);
            assert_eq!(own(given, OWN), expected.map(|e| e.parse().expect(e)), "{given}");
        }
    }

    #[test]
    fn what_is_no_internet_address_is_left_alone() {
        let unix = [&(libc::AF_UNIX as u16).to_ne_bytes()[..], b"/run/socket\0\0\0\0\0\0\0\0\0"].concat();
        assert_eq!(parse(&unix), None);
        let short = [&(libc::AF_INET as u16).to_ne_bytes()[..], &[0; 13]].concat();
        assert_eq!(parse(&short), None);
    }

    proptest! {
        #[test]
        fn nothing_read_from_a_process_does_harm(bytes: Vec<u8>) {
            if let Some(address) = parse(&bytes) {
                let mut copy = bytes.clone();
                replace(&mut copy, address);
                prop_assert_eq!(copy, bytes);
            }
        }

        #[test]
        fn a_replaced_address_reads_as_the_new_one(port in 1u16.., v6: bool, rest: [u8; LARGEST]) {
            let family = if v6 { libc::AF_INET6 } else { libc::AF_INET };
            let mut bytes = rest;
            bytes[..2].copy_from_slice(&(family as u16).to_ne_bytes());
            let given: SocketAddr =
                if v6 { (Ipv6Addr::UNSPECIFIED, port).into() } else { (Ipv4Addr::UNSPECIFIED, port).into() };
            replace(&mut bytes, given);
            let wanted = own(given, OWN).expect("every address is local");
            replace(&mut bytes, wanted);
            prop_assert_eq!(parse(&bytes), Some(wanted));
        }
    }
}

//! Which process listens on a port, for an error that says more than "address in use".

use std::fs;
use std::net::{IpAddr, SocketAddr};

/// State of a listening socket in /proc/net/tcp (`TCP_LISTEN`).
const LISTEN: &str = "0A";

/// Finds the listener that takes `address`, as `name (pid N)`, as far as this user may see it.
pub(crate) fn listener_of(address: SocketAddr) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .find_map(|table| inode_in(&fs::read_to_string(table).ok()?, address))?;
    let link = format!("socket:[{inode}]");
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) else { continue };
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = descriptors
            .flatten()
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == link.as_str()));
        if holds {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", command.trim()));
        }
    }
    None
}

/// The inode of the socket that listens on `address` or on its port at every address, out of a table like
/// /proc/net/tcp (see proc(5)).
fn inode_in(table: &str, address: SocketAddr) -> Option<u64> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (host, port) = fields.nth(1)?.split_once(':')?;
        let state = fields.nth(1)?;
        let inode = fields.nth(5)?.parse().ok()?;
        let same_port = u16::from_str_radix(port, 16).ok()? == address.port();
        let everywhere = host.bytes().all(|b| b == b'0');
        let same_host = everywhere || address.ip().is_unspecified() || host == hexadecimal(address.ip());
        (same_port && state == LISTEN && same_host).then_some(inode)
    })
}

/// An address as those tables print it: words of 32 bits in the machine's own byte order.
fn hexadecimal(ip: IpAddr) -> String {
    let word = |bytes: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(bytes));
    match ip {
        IpAddr::V4(ip) => word(ip.octets()),
        IpAddr::V6(ip) => {
            let octets = ip.octets();
            octets.chunks_exact(4).map(|c| word([c[0], c[1], c[2], c[3]])).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_of_this_process_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let owner = listener_of(listener.local_addr().unwrap()).unwrap();
        assert!(owner.ends_with(&format!("(pid {})", std::process::id())), "{owner}");
    }

    #[test]
    fn only_listeners_on_the_same_port_and_host_count() {
        let table = format!(
            "  sl  local_address rem_address   st tx rx tr tm retr uid timeout inode\n\
             0: {h}:1F90 00000000:0000 0A 00:00 00:00 00 0 0 77 1\n\
             1: {h}:1F91 00000000:0000 01 00:00 00:00 00 0 0 78 1\n\
             2: 00000000:1F92 00000000:0000 0A 00:00 00:00 00 0 0 79 1\n",
            h = hexadecimal([127, 0, 0, 1].into())
        );
        for (address, inode) in [
            ("127.0.0.1:8080", Some(77)),
            ("127.0.0.2:8080", None),
            ("0.0.0.0:8080", Some(77)),
            ("127.0.0.1:8081", None),
            ("127.0.0.9:8082", Some(79)),
        ] {
            assert_eq!(inode_in(&table, address.parse().unwrap()), inode, "{address}");
        }
    }
}

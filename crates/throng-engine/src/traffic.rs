//! What the interfaces of replicas have carried, asked for many at a time over one socket.
//!
//! A network namespace can be given a number that is valid in the namespace of a socket ("nsid" in ip-netns(8)), and a
//! request about an interface may name the number of the namespace that it is in (rtnetlink(7), `IFLA_TARGET_NETNSID`).
//! That takes a fifth of what it takes to open and print `/proc/PID/net/dev`, or half of it where neither has been in the
//! processor's caches for a while. To give a number, the kernel goes through
//! all that are there, so it is done once for each namespace; the number goes with the namespace, which it does not keep.

use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;

/// Types of messages and attributes, of linux/rtnetlink.h, linux/net_namespace.h and linux/if_link.h.
const ERROR: u16 = 2;
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;
const NEW_NSID: u16 = 88;
const GET_NSID: u16 = 90;
const NSID: u16 = 1;
const OF_PROCESS: u16 = 2;
const STATISTICS: u16 = 23;
const FILTER: u16 = 29;
const TARGET_NSID: u16 = 46;
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
/// Leaves out what the protocols above have counted, which is most of an answer.
const SKIP_PROTOCOLS: u32 = 1 << 3;
/// Bytes of the fixed part of each message, and of what follows in one about an interface and one about a number.
const HEADER: usize = 16;
const LINK: usize = 16;
const NAMESPACE: usize = 4;

/// Requests in one sending. Their answers are charged some 4 KB each and must fit the socket's buffer
/// (`net.core.rmem_default`, 208 KB).
const BATCH: usize = 32;
/// An answer has some 1,200 bytes.
const ANSWER: usize = 8 << 10;
/// Numbers are this and a process', away from those that the kernel gives out, which count from 0.
const FIRST: u32 = 1 << 24;

/// An interface by the number of its namespace and its index there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interface {
    /// None: that of the socket.
    pub namespace: Option<u32>,
    pub index: u32,
}

/// A socket of the namespace of the thread that opened it, wherever it is used. One user at a time.
pub struct Traffic {
    socket: Socket,
    batch: Vec<u8>,
    answer: Vec<u8>,
    /// Number of the next request.
    next: u32,
}

impl Traffic {
    pub fn open() -> io::Result<Traffic> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        Ok(Traffic { socket, batch: Vec::new(), answer: vec![0; ANSWER], next: 1 })
    }

    /// The number of the network namespace of a process, which gets one if it has none.
    pub fn number_of(&mut self, pid: u32) -> io::Result<u32> {
        let wanted = FIRST.checked_add(pid).and_then(|number| i32::try_from(number).ok()).unwrap_or(-1);
        for number in [wanted, -1] {
            match self.give(pid, number) {
                Ok(()) if number >= 0 => return Ok(number.unsigned_abs()),
                // An earlier supervisor gave it another one, or another namespace has this one.
                Err(error) if error.raw_os_error() != Some(libc::EEXIST) => return Err(error),
                _ => {}
            }
            if let Some(given) = self.given(pid)? {
                return Ok(given);
            }
        }
        Err(io::Error::other("the namespace gets no number"))
    }

    fn give(&mut self, pid: u32, number: i32) -> io::Result<()> {
        let attributes = [(NSID, number.cast_unsigned()), (OF_PROCESS, pid)];
        self.ask(NEW_NSID, REQUEST | ACKNOWLEDGE, &attributes)?;
        Ok(())
    }

    fn given(&mut self, pid: u32) -> io::Result<Option<u32>> {
        let answer = self.ask(GET_NSID, REQUEST, &[(OF_PROCESS, pid)])?;
        let number =
            attribute(answer.get(NAMESPACE..).unwrap_or_default(), NSID).and_then(|value| word(value, 0));
        // -1: it has none.
        Ok(number.filter(|number| i32::try_from(*number).is_ok()))
    }

    /// One request about a number; what follows the header of its answer, nothing for an acknowledgement.
    fn ask(&mut self, kind: u16, flags: u16, attributes: &[(u16, u32)]) -> io::Result<&[u8]> {
        self.batch.clear();
        let number = self.next;
        self.next = number.wrapping_add(1);
        append(&mut self.batch, (kind, flags, number), &[0; NAMESPACE], attributes);
        self.socket.send(&self.batch, 0)?;
        // The kernel has answered when it has taken the request.
        let length = self.socket.recv(&mut &mut self.answer[..], libc::MSG_DONTWAIT)?;
        let answer = Answer::parse(self.answer.get(..length).unwrap_or_default())
            .filter(|answer| answer.number == number)
            .ok_or_else(|| io::Error::other("an answer that was not asked for"))?;
        match answer.error() {
            Some(0) => Ok(&[]),
            Some(error) => Err(io::Error::from_raw_os_error(error)),
            None => Ok(answer.rest),
        }
    }

    /// Tells of each interface, by its place, the bytes that it has received and sent; nothing of one that is not there.
    pub fn read(
        &mut self,
        interfaces: &[Interface],
        mut tell: impl FnMut(usize, Option<(u64, u64)>),
    ) -> io::Result<()> {
        let mut place = 0;
        for some in interfaces.chunks(BATCH) {
            let first = self.next;
            self.next = first.wrapping_add(BATCH as u32);
            self.batch.clear();
            for (number, interface) in (0u32..).zip(some) {
                let mut link = [0; LINK];
                link[4..8].copy_from_slice(&interface.index.to_ne_bytes());
                let attributes = [(FILTER, SKIP_PROTOCOLS), (TARGET_NSID, interface.namespace.unwrap_or(0))];
                let attributes = &attributes[..1 + usize::from(interface.namespace.is_some())];
                append(&mut self.batch, (GET_LINK, REQUEST, first.wrapping_add(number)), &link, attributes);
            }
            self.socket.send(&self.batch, 0)?;
            for _ in some {
                let length = self.socket.recv(&mut &mut self.answer[..], libc::MSG_DONTWAIT)?;
                let answer = Answer::parse(self.answer.get(..length).unwrap_or_default());
                let Some(answer) = answer else { continue };
                let number = answer.number.wrapping_sub(first) as usize;
                if number < some.len() {
                    tell(place + number, answer.carried());
                }
            }
            place += some.len();
        }
        Ok(())
    }
}

/// One message of the kernel's.
struct Answer<'a> {
    kind: u16,
    number: u32,
    rest: &'a [u8],
}

impl<'a> Answer<'a> {
    fn parse(message: &'a [u8]) -> Option<Answer<'a>> {
        let kind = u16::from_ne_bytes(message.get(4..6)?.try_into().ok()?);
        let length = usize::try_from(word(message, 0)?).ok()?;
        Some(Answer { kind, number: word(message, 8)?, rest: message.get(HEADER..length)? })
    }

    /// The number of the error, 0 of an acknowledgement.
    fn error(&self) -> Option<i32> {
        (self.kind == ERROR).then(|| word(self.rest, 0).map_or(libc::EIO, |error| -error.cast_signed()))
    }

    /// `rx_bytes` and `tx_bytes` of `struct rtnl_link_stats64`, its third and fourth number.
    fn carried(&self) -> Option<(u64, u64)> {
        let statistics = attribute(self.rest.get(LINK..).filter(|_| self.kind == NEW_LINK)?, STATISTICS)?;
        let number =
            |place: usize| Some(u64::from_ne_bytes(statistics.get(place..place + 8)?.try_into().ok()?));
        Some((number(16)?, number(24)?))
    }
}

fn word(bytes: &[u8], place: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(place..place + 4)?.try_into().ok()?))
}

/// The value of the first attribute of this type: each is its length, its type, its value, at multiples of four.
fn attribute(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    while let (Some(length), Some(kind)) = (rest.get(0..2), rest.get(2..4)) {
        let length = usize::from(u16::from_ne_bytes(length.try_into().ok()?));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes(kind.try_into().ok()?) == wanted {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn append(
    batch: &mut Vec<u8>,
    (kind, flags, number): (u16, u16, u32),
    body: &[u8],
    attributes: &[(u16, u32)],
) {
    let length = (HEADER + body.len() + 8 * attributes.len()) as u32;
    batch.extend(length.to_ne_bytes());
    batch.extend(kind.to_ne_bytes());
    batch.extend(flags.to_ne_bytes());
    batch.extend(number.to_ne_bytes());
    batch.extend([0; 4]);
    batch.extend(body);
    for (kind, value) in attributes {
        batch.extend(8u16.to_ne_bytes());
        batch.extend(kind.to_ne_bytes());
        batch.extend(value.to_ne_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answered(attributes: &[u8]) -> Vec<u8> {
        let mut message = Vec::new();
        append(&mut message, (NEW_LINK, 0, 7), &[0; LINK], &[]);
        message.extend(attributes);
        let length = (message.len() as u32).to_ne_bytes();
        message[..4].copy_from_slice(&length);
        message
    }

    #[test]
    fn what_an_interface_carried_is_found_among_the_rest() {
        let mut attributes = Vec::new();
        // A name of five letters, which is followed by three bytes of nothing.
        attributes.extend(9u16.to_ne_bytes().into_iter().chain(3u16.to_ne_bytes()).chain(*b"eth0\0\0\0\0"));
        attributes.extend(36u16.to_ne_bytes().into_iter().chain(STATISTICS.to_ne_bytes()));
        attributes.extend([1u64, 2, 300, 400].into_iter().flat_map(u64::to_ne_bytes));
        let message = answered(&attributes);
        let answer = Answer::parse(&message).expect("a message");
        assert_eq!((answer.number, answer.error(), answer.carried()), (7, None, Some((300, 400))));
        let message = answered(&attributes[..20]);
        assert_eq!(Answer::parse(&message).and_then(|answer| answer.carried()), None, "cut");
    }

    #[test]
    fn the_kernel_knows_the_loopback_of_this_very_namespace() {
        let mut traffic = Traffic::open().expect("a socket");
        let read = |traffic: &mut Traffic, namespace| {
            let mut found = Vec::new();
            let interfaces = [1, u32::MAX >> 1].map(|index| Interface { namespace, index });
            traffic
                .read(&interfaces, |place, carried| found.push((place, carried.is_some())))
                .expect("answers");
            found
        };
        // Without the right to, and before it has a number.
        assert_eq!(read(&mut traffic, Some(u32::MAX >> 1)), [(0, false), (1, false)]);
        assert_eq!(read(&mut traffic, None), [(0, true), (1, false)], "the socket's own");
        match traffic.number_of(std::process::id()) {
            Ok(number) => {
                assert_eq!(traffic.number_of(std::process::id()).expect("again"), number, "it keeps it");
                assert_eq!(read(&mut traffic, Some(number)), [(0, true), (1, false)]);
            }
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM), "{error}"),
        }
    }

    proptest! {
        #[test]
        fn no_answer_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let answer = Answer::parse(&bytes);
            let _ = answer.map(|answer| (answer.error(), answer.carried(), attribute(answer.rest, NSID).is_some()));
        }
    }
}

//! What happens to packets on a link: pure, so that it can be tested without a network. Times are nanoseconds of a clock
//! that only goes forward. The helper that moves the packets is in [`crate::sys::wires`].
//!
//! Each of a link's two directions is a [`Lane`]. A packet that is not lost by chance waits until those before it have
//! been sent at the link's bandwidth, takes its own time at it, and is under way for the latency. One that finds more
//! waiting than [`BACKLOG`] or [`BACKLOG_LEAST`] allow is dropped, as by a router whose buffer is full.
//!
//! Nothing here allocates: the helper has been forked from a process with threads.

use throng_model::chance::Chance;
use throng_model::node::{Link, LinkTraffic};

/// Bytes of packets under way in one direction, their bookkeeping included; what a fast link of long latency holds.
pub const UNDER_WAY_MOST: usize = 16 << 20;
/// How long the packets that wait for their turn at the bandwidth may take, and how many bytes may wait all the same.
const BACKLOG: u64 = 100_000_000;
const BACKLOG_LEAST: u64 = 64 << 10;
/// Bytes of an Ethernet header, which the bandwidth does not count.
const ETHERNET: u64 = 14;
const SECOND: u128 = 1_000_000_000;

/// A link in the numbers that packets are judged by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub latency: u64,
    pub jitter: u64,
    /// Of 2³² packets.
    pub loss: u64,
    /// Bits a second; 0 is no limit.
    pub bandwidth: u64,
    pub up: bool,
    /// What chance begins with: the same packets have the same fate.
    pub seed: u64,
}

impl Shape {
    pub fn new(link: &Link, seed: u64) -> Shape {
        let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Shape {
            latency: nanos(link.latency),
            jitter: nanos(link.jitter),
            loss: (link.loss.clamp(0.0, 1.0) * (1u64 << 32) as f64).round() as u64,
            bandwidth: link.bandwidth.unwrap_or(0),
            up: link.up,
            seed,
        }
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Lost,
    Overflows,
    /// When it comes out.
    Arrives(u64),
}

/// One direction.
#[derive(Debug, Clone)]
pub struct Lane {
    shape: Shape,
    /// When the last packet that was taken in has been sent.
    free_at: u64,
    /// When the last one comes out: packets do not overtake each other.
    last: u64,
    chance: Chance,
    pub traffic: LinkTraffic,
}

impl Lane {
    pub fn new(shape: Shape) -> Lane {
        Lane { shape, free_at: 0, last: 0, chance: Chance::new(shape.seed), traffic: LinkTraffic::default() }
    }

    /// Packets that are under way keep the times that they have. The same shape again changes nothing.
    pub fn reshape(&mut self, shape: Shape) {
        if shape.seed != self.shape.seed {
            self.chance = Chance::new(shape.seed);
        }
        self.shape = shape;
        // A faster link need not wait for what a slower one would have taken.
        self.free_at = 0;
    }

    /// Judges a frame of so many bytes that is there now. One that arrives has been counted as passed.
    pub fn admit(&mut self, bytes: usize, now: u64) -> Fate {
        // Always drawn, so that what is lost does not depend on what else is set.
        let unlucky = u64::from(self.chance.next_half()) < self.shape.loss;
        if unlucky || !self.shape.up {
            self.traffic.lost += 1;
            return Fate::Lost;
        }
        let mut sent = now;
        if self.shape.bandwidth > 0 {
            let begin = now.max(self.free_at);
            let waiting = begin - now;
            let allowed = BACKLOG.max(duration(BACKLOG_LEAST, self.shape.bandwidth));
            if waiting > allowed {
                self.traffic.overflowed += 1;
                return Fate::Overflows;
            }
            sent = begin + duration((bytes as u64).saturating_sub(ETHERNET), self.shape.bandwidth);
            self.free_at = sent;
        }
        let arrival = sent.saturating_add(self.shape.latency).saturating_add(self.spread());
        self.last = self.last.max(arrival.saturating_sub(self.shape.jitter).max(sent));
        self.traffic.passed += 1;
        Fate::Arrives(self.last)
    }

    /// From 0 to twice the jitter.
    fn spread(&mut self) -> u64 {
        if self.shape.jitter == 0 {
            return 0;
        }
        let width = u128::from(self.shape.jitter) * 2;
        (u128::from(self.chance.next_word()).wrapping_mul(width + 1) >> 64) as u64
    }

    /// A packet that was to arrive did not find room after all.
    pub fn overflowed(&mut self) {
        self.traffic.passed -= 1;
        self.traffic.overflowed += 1;
    }
}

/// Nanoseconds that so many bytes take.
fn duration(bytes: u64, bandwidth: u64) -> u64 {
    u64::try_from(u128::from(bytes) * 8 * SECOND / u128::from(bandwidth.max(1))).unwrap_or(u64::MAX)
}

/// Frames in the order in which they come out, in memory of fixed size.
#[derive(Debug)]
pub struct Ring<'a> {
    memory: &'a mut [u8],
    /// Where the oldest record begins, and where the next one goes.
    head: usize,
    tail: usize,
    /// Bytes from `head` on that are in use, whether or not they wrap around.
    used: usize,
}

/// Before each frame: when it comes out, and its length.
const HEADER: usize = 12;
/// A length that says that nothing follows up to the end of the memory.
const SKIP: u32 = u32::MAX;

impl<'a> Ring<'a> {
    pub fn new(memory: &'a mut [u8]) -> Ring<'a> {
        Ring { memory, head: 0, tail: 0, used: 0 }
    }

    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Takes a frame in; `false` if there is no room.
    pub fn push(&mut self, due: u64, frame: &[u8]) -> bool {
        if self.used == 0 {
            // The first pages are used again and again, and the others stay untouched as long as little is under way.
            (self.head, self.tail) = (0, 0);
        }
        let needed = HEADER + frame.len();
        let to_end = self.memory.len() - self.tail;
        let skipped = if to_end < needed { to_end } else { 0 };
        if self.used + skipped + needed > self.memory.len() || u32::try_from(frame.len()).is_err() {
            return false;
        }
        if skipped > 0 {
            self.write_header(self.tail, 0, SKIP);
            (self.tail, self.used) = (0, self.used + skipped);
        }
        self.write_header(self.tail, due, frame.len() as u32);
        let begin = self.tail + HEADER;
        self.memory[begin..begin + frame.len()].copy_from_slice(frame);
        self.tail = (self.tail + needed) % self.memory.len();
        self.used += needed;
        true
    }

    /// As much of a header as fits before the end.
    fn write_header(&mut self, at: usize, due: u64, length: u32) {
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&length.to_ne_bytes());
        header[4..].copy_from_slice(&due.to_ne_bytes());
        let room = HEADER.min(self.memory.len() - at);
        self.memory[at..at + room].copy_from_slice(&header[..room]);
    }

    /// When the oldest frame comes out, and where it is.
    fn front_at(&self) -> Option<(u64, usize, usize)> {
        if self.used == 0 {
            return None;
        }
        let mut at = self.head;
        // What is too short for a length is skipped, too.
        if self.memory.len() - at < HEADER || self.length(at) == SKIP {
            at = 0;
        }
        let mut due = [0; 8];
        due.copy_from_slice(&self.memory[at + 4..at + HEADER]);
        Some((u64::from_ne_bytes(due), at + HEADER, self.length(at) as usize))
    }

    fn length(&self, at: usize) -> u32 {
        let mut length = [0; 4];
        length.copy_from_slice(&self.memory[at..at + 4]);
        u32::from_ne_bytes(length)
    }

    pub fn front(&self) -> Option<(u64, &[u8])> {
        let (due, begin, length) = self.front_at()?;
        Some((due, &self.memory[begin..begin + length]))
    }

    pub fn pop(&mut self) {
        let Some((_, begin, length)) = self.front_at() else { return };
        let end = begin + length;
        let skipped = if begin - HEADER < self.head { self.memory.len() - self.head } else { 0 };
        self.used -= skipped + HEADER + length;
        self.head = end % self.memory.len();
    }
}

/// Names of interfaces as the kernel has them, zeros included.
pub const NAME: usize = 16;

/// What the helper is asked to do with the link between two TAP interfaces, which it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Make it, or change it.
    Set { taps: [[u8; NAME]; 2], shape: Shape },
    /// Take it away; fine if there is none.
    Unset { taps: [[u8; NAME]; 2] },
    /// Tell what became of its packets.
    Tell { taps: [[u8; NAME]; 2] },
}

/// Bytes of an order and of an answer on their way.
pub const ORDER: usize = 2 * NAME + 7 * 8;
pub const ANSWER: usize = 4 * 8;

/// Writes numbers one after another, as far as there is room.
fn put(words: &[u64], bytes: &mut [u8]) {
    words.iter().zip(bytes.chunks_exact_mut(8)).for_each(|(word, place)| {
        place.copy_from_slice(&word.to_ne_bytes());
    });
}

/// Reads what [`put`] has written; what is not there is 0.
fn take<const COUNT: usize>(bytes: &[u8]) -> [u64; COUNT] {
    let mut words = [0; COUNT];
    bytes.chunks_exact(8).zip(&mut words).for_each(|(bytes, word)| {
        let mut eight = [0; 8];
        eight.copy_from_slice(bytes);
        *word = u64::from_ne_bytes(eight);
    });
    words
}

impl Order {
    pub fn encode(&self) -> [u8; ORDER] {
        let blank = Shape { latency: 0, jitter: 0, loss: 0, bandwidth: 0, up: false, seed: 0 };
        let (kind, taps, shape) = match self {
            Order::Set { taps, shape } => (1, taps, shape),
            Order::Unset { taps } => (2, taps, &blank),
            Order::Tell { taps } => (3, taps, &blank),
        };
        let mut bytes = [0; ORDER];
        bytes[..NAME].copy_from_slice(&taps[0]);
        bytes[NAME..2 * NAME].copy_from_slice(&taps[1]);
        let words =
            [kind, shape.latency, shape.jitter, shape.loss, shape.bandwidth, shape.up.into(), shape.seed];
        put(&words, &mut bytes[2 * NAME..]);
        bytes
    }

    pub fn decode(bytes: &[u8; ORDER]) -> Option<Order> {
        let mut taps = [[0; NAME]; 2];
        taps[0].copy_from_slice(&bytes[..NAME]);
        taps[1].copy_from_slice(&bytes[NAME..2 * NAME]);
        let [kind, latency, jitter, loss, bandwidth, up, seed] = take(&bytes[2 * NAME..]);
        match kind {
            1 => {
                let shape = Shape { latency, jitter, loss, bandwidth, up: up != 0, seed };
                Some(Order::Set { taps, shape })
            }
            2 => Some(Order::Unset { taps }),
            3 => Some(Order::Tell { taps }),
            _ => None,
        }
    }
}

/// The helper's answer: an error number of the kernel (0 if all is well) and what became of the packets.
pub fn encode_answer(errno: i32, traffic: LinkTraffic) -> [u8; ANSWER] {
    let mut bytes = [0; ANSWER];
    put(&[i64::from(errno) as u64, traffic.passed, traffic.lost, traffic.overflowed], &mut bytes);
    bytes
}

pub fn decode_answer(bytes: &[u8; ANSWER]) -> Result<LinkTraffic, i32> {
    let [errno, passed, lost, overflowed] = take(bytes);
    if errno == 0 { Ok(LinkTraffic { passed, lost, overflowed }) } else { Err(errno as i32) }
}

#[cfg(test)]
mod tests;

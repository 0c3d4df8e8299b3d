//! Reading one HTTP/1.1 answer (RFC 9112) out of chunks of bytes as they come.
//!
//! ```text
//!          1xx                          content-length, close-delimited
//!        ┌──────┐                     ┌─────────────> Body ──────┐
//!        v      │                     │                          v
//!  feed: Head ──┴──── final head ─────┤                        Done
//!                                     ├─> Size ─> Data ─> ... ─> │
//!                                     │   (chunked)    Trailer ──┤
//!                                     └── HEAD, 204, 304 ────────┘
//! ```
//!
//! Bodies are counted, not kept, so memory does not depend on their size. Only an incomplete head is kept
//! between chunks, up to [`MAX_HEAD_BYTES`].

use std::mem::MaybeUninit;

/// Longest head of an answer, and longest trailer section after a chunked body.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;
/// Most header fields of an answer.
pub const MAX_HEADERS: usize = 128;
/// Longest line with a chunk's size, extensions included.
pub const MAX_CHUNK_LINE: usize = 4 * 1024;

/// The answer is not HTTP/1, or exceeds a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the head is not that of an HTTP/1 answer")]
    Head,
    #[error("the head is longer than {MAX_HEAD_BYTES} bytes or has more than {MAX_HEADERS} fields")]
    HeadTooLong,
    #[error("the body's length is not a number, or is given twice")]
    Length,
    #[error("a chunk of the body is not framed as it should be")]
    Chunk,
    #[error("the protocol was switched without being asked")]
    Switched,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    UntilClose,
    Chunk(Chunk),
    Done,
}

/// Where a chunked body (RFC 9112, section 7.1) stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// In the size line: value and digits so far, length of the line so far.
    Size { value: u64, digits: u8, line: usize },
    /// In the size line after the digits: everything up to the line feed is skipped.
    Extension { value: u64, line: usize },
    /// Bytes of the chunk still to come.
    Data(u64),
    /// After the data: `\r\n`, of which `\r` has been seen or not.
    DataEnd { carriage_return: bool },
    /// After the last chunk: fields until an empty line.
    Trailer { line: usize, total: usize },
}

/// Reads one answer at a time; reused for all answers of a connection.
#[derive(Debug)]
pub struct ResponseReader {
    state: State,
    head: Vec<u8>,
    to_head_request: bool,
    status: u16,
    keep_alive: bool,
    replica: Vec<u8>,
    location: Vec<u8>,
}

impl Default for ResponseReader {
    fn default() -> Self {
        ResponseReader {
            state: State::Done,
            head: Vec::new(),
            to_head_request: false,
            status: 0,
            keep_alive: false,
            replica: Vec::new(),
            location: Vec::new(),
        }
    }
}

impl ResponseReader {
    /// Makes ready for the answer to the next request. An answer to HEAD has no body, whatever it says.
    pub fn expect(&mut self, to_head_request: bool) {
        self.state = State::Head;
        self.to_head_request = to_head_request;
        self.head.clear();
        self.status = 0;
        self.keep_alive = false;
        self.replica.clear();
        self.location.clear();
    }

    /// Takes the next bytes of the connection and says whether the answer is complete. Bytes after its end make
    /// the connection unfit for another request, since nothing was asked that they could answer.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<bool, Malformed> {
        while !bytes.is_empty() && self.state != State::Done {
            let used = match self.state {
                State::Head => self.take_head(bytes)?,
                State::Length(left) => {
                    let used = left.min(bytes.len() as u64);
                    self.state = if used == left { State::Done } else { State::Length(left - used) };
                    used as usize
                }
                State::UntilClose => bytes.len(),
                State::Chunk(chunk) => self.take_chunk(chunk, bytes)?,
                State::Done => 0,
            };
            bytes = &bytes[used..];
        }
        if !bytes.is_empty() {
            self.keep_alive = false;
        }
        Ok(self.state == State::Done)
    }

    /// The peer closed the connection: is the answer complete with that?
    pub fn close(&mut self) -> bool {
        self.keep_alive = false;
        if self.state == State::UntilClose {
            self.state = State::Done;
        }
        self.state == State::Done
    }

    /// Whether any byte of the answer has come.
    pub fn has_begun(&self) -> bool {
        self.status != 0 || !self.head.is_empty()
    }

    /// The status of the answer whose head was read last, 0 before.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Whether the connection may carry another request.
    pub fn keep_alive(&self) -> bool {
        self.keep_alive && self.state == State::Done
    }

    /// The answer's `X-Replica`, if it is text.
    pub fn replica(&self) -> Option<&str> {
        std::str::from_utf8(&self.replica).ok().filter(|name| !name.is_empty())
    }

    /// The answer's `Location`, if it is text.
    pub fn location(&self) -> Option<&str> {
        std::str::from_utf8(&self.location).ok().filter(|name| !name.is_empty())
    }

    /// Reads a head that may have begun in earlier chunks; returns how many of `bytes` belong to it.
    fn take_head(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        if self.head.is_empty() {
            return Ok(match self.parse_head(bytes)? {
                Some(length) => length,
                None => {
                    self.keep_for_later(bytes)?;
                    bytes.len()
                }
            });
        }
        let before = self.head.len();
        let room = MAX_HEAD_BYTES.saturating_sub(before).min(bytes.len());
        let mut head = std::mem::take(&mut self.head);
        head.extend_from_slice(&bytes[..room]);
        match self.parse_head(&head)? {
            Some(length) => {
                head.clear();
                self.head = head;
                // A head that ended within the kept bytes would have been recognised then.
                Ok(length.saturating_sub(before))
            }
            None if room < bytes.len() || head.len() >= MAX_HEAD_BYTES => Err(Malformed::HeadTooLong),
            None => {
                self.head = head;
                Ok(room)
            }
        }
    }

    fn keep_for_later(&mut self, bytes: &[u8]) -> Result<(), Malformed> {
        if bytes.len() >= MAX_HEAD_BYTES {
            return Err(Malformed::HeadTooLong);
        }
        self.head.extend_from_slice(bytes);
        Ok(())
    }

    /// The head's length if it is complete; then the state is what follows it.
    fn parse_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut fields = [const { MaybeUninit::uninit() }; MAX_HEADERS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut fields,
        );
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(httparse::Error::TooManyHeaders) => return Err(Malformed::HeadTooLong),
            Err(_) => return Err(Malformed::Head),
        };
        let status = response.code.filter(|code| *code >= 100).ok_or(Malformed::Head)?;
        if status == 101 {
            return Err(Malformed::Switched);
        }
        if status < 200 {
            // Interim answers (100, 103) come before the one that counts.
            return Ok(Some(length));
        }
        self.status = status;
        let mut framing = Framing { keep_alive: response.version == Some(1), ..Framing::default() };
        for field in response.headers.iter() {
            self.take_field(field, &mut framing)?;
        }
        self.keep_alive = framing.keep_alive;
        self.state =
            if self.to_head_request || matches!(status, 204 | 304) { State::Done } else { framing.body() };
        if self.state == State::UntilClose {
            self.keep_alive = false;
        }
        Ok(Some(length))
    }

    fn take_field(&mut self, field: &httparse::Header<'_>, framing: &mut Framing) -> Result<(), Malformed> {
        // By length first: most fields are none of these, and this runs for every field of every answer.
        let name = field.name;
        match name.len() {
            8 if name.eq_ignore_ascii_case("location") => self.location.extend_from_slice(field.value),
            9 if name.eq_ignore_ascii_case("x-replica") => self.replica.extend_from_slice(field.value),
            10 if name.eq_ignore_ascii_case("connection") => {
                for option in tokens(field.value) {
                    if option.eq_ignore_ascii_case(b"close") {
                        framing.keep_alive = false;
                        framing.close = true;
                    } else if option.eq_ignore_ascii_case(b"keep-alive") && !framing.close {
                        framing.keep_alive = true;
                    }
                }
            }
            14 if name.eq_ignore_ascii_case("content-length") => {
                let length = decimal(field.value).ok_or(Malformed::Length)?;
                if framing.length.is_some_and(|before| before != length) {
                    return Err(Malformed::Length);
                }
                framing.length = Some(length);
            }
            17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                framing.coded = true;
                framing.chunked =
                    tokens(field.value).last().is_some_and(|last| last.eq_ignore_ascii_case(b"chunked"));
            }
            _ => {}
        }
        Ok(())
    }

    /// Moves through a chunked body; returns how many of `bytes` were used, at least one.
    fn take_chunk(&mut self, chunk: Chunk, bytes: &[u8]) -> Result<usize, Malformed> {
        let byte = bytes[0];
        let next = match chunk {
            Chunk::Data(left) => {
                let used = left.min(bytes.len() as u64);
                let next = if used == left {
                    Chunk::DataEnd { carriage_return: false }
                } else {
                    Chunk::Data(left - used)
                };
                self.state = State::Chunk(next);
                return Ok(used as usize);
            }
            Chunk::Size { value, digits, line } => match char::from(byte).to_digit(16) {
                Some(_) if digits >= 16 => return Err(Malformed::Chunk),
                Some(digit) => {
                    Chunk::Size { value: value << 4 | u64::from(digit), digits: digits + 1, line: line + 1 }
                }
                None if digits == 0 => return Err(Malformed::Chunk),
                None if matches!(byte, b'\n' | b'\r' | b';' | b' ' | b'\t') => {
                    self.state = State::Chunk(Chunk::Extension { value, line });
                    return Ok(0);
                }
                None => return Err(Malformed::Chunk),
            },
            Chunk::Extension { value: 0, .. } if byte == b'\n' => Chunk::Trailer { line: 0, total: 0 },
            Chunk::Extension { value, .. } if byte == b'\n' => Chunk::Data(value),
            Chunk::Extension { line, .. } if line >= MAX_CHUNK_LINE => return Err(Malformed::Chunk),
            Chunk::Extension { value, line } => Chunk::Extension { value, line: line + 1 },
            Chunk::DataEnd { carriage_return: false } if byte == b'\r' => {
                Chunk::DataEnd { carriage_return: true }
            }
            Chunk::DataEnd { .. } if byte == b'\n' => Chunk::Size { value: 0, digits: 0, line: 0 },
            Chunk::DataEnd { .. } => return Err(Malformed::Chunk),
            Chunk::Trailer { line: 0, .. } if byte == b'\n' => {
                self.state = State::Done;
                return Ok(1);
            }
            Chunk::Trailer { total, .. } if total >= MAX_HEAD_BYTES => return Err(Malformed::Chunk),
            Chunk::Trailer { total, .. } if byte == b'\n' => Chunk::Trailer { line: 0, total: total + 1 },
            Chunk::Trailer { line, total } if byte == b'\r' => Chunk::Trailer { line, total: total + 1 },
            Chunk::Trailer { line, total } => Chunk::Trailer { line: line + 1, total: total + 1 },
        };
        self.state = State::Chunk(next);
        Ok(1)
    }
}

/// What the fields of a head say about its body and its connection.
#[derive(Debug, Default)]
struct Framing {
    keep_alive: bool,
    close: bool,
    length: Option<u64>,
    coded: bool,
    chunked: bool,
}

impl Framing {
    /// RFC 9112, section 6.3: a transfer coding outranks a length.
    fn body(&self) -> State {
        match (self.coded, self.chunked, self.length) {
            (true, true, _) => State::Chunk(Chunk::Size { value: 0, digits: 0, line: 0 }),
            (true, false, _) | (false, _, None) => State::UntilClose,
            (false, _, Some(0)) => State::Done,
            (false, _, Some(length)) => State::Length(length),
        }
    }
}

fn tokens(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

/// Digits only: no sign, no space, no overflow.
fn decimal(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0u64, |number, byte| match byte {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What reading `bytes` in pieces of the given sizes (repeated) ends in: complete, status, reusable.
    fn read(bytes: &[u8], pieces: &[usize], head_request: bool) -> Result<(bool, u16, bool), Malformed> {
        let mut reader = ResponseReader::default();
        reader.expect(head_request);
        let (mut rest, mut turn, mut complete) = (bytes, 0, false);
        while !rest.is_empty() {
            let piece = pieces[turn % pieces.len()].clamp(1, rest.len());
            complete = reader.feed(&rest[..piece])?;
            rest = &rest[piece..];
            turn += 1;
        }
        Ok((complete, reader.status(), reader.keep_alive()))
    }

    const WELL_FORMED: &[(&str, bool, u16, bool)] = &[
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", true, 200, true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", false, 200, false),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 3\r\n\r\nabc", true, 200, true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true, 200, true),
        ("HTTP/1.1 204 No Content\r\n\r\n", true, 204, true),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", true, 304, true),
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\na", true, 200, false),
        ("HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 1\r\n\r\na", true, 200, false),
        ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", true, 200, false),
        ("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", true, 200, true),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", false, 200, false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nContent-Length: 1\r\n\r\na", false, 200, false),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\na", true, 201, true),
        ("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 204 Done\r\n\r\n", true, 204, true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", true, 200, true),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, Chunked\r\nContent-Length: 7\r\n\r\n\
             A;x=\"y\"\r\n0123456789\r\n1\r\nz\r\n000\r\nTrailer: yes\r\n\r\n",
            true,
            200,
            true,
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", false, 200, false),
        ("HTTP/1.1 500\r\nContent-Length: 0\r\n\r\n", true, 500, true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nasurplus", true, 200, false),
    ];

    const MALFORMED: &[(&str, Malformed)] = &[
        ("SSH-2.0-OpenSSH_9.2\r\n\r\n", Malformed::Head),
        ("HTTP/1.1 abc\r\n\r\n", Malformed::Head),
        ("HTTP/1.1 099 Low\r\n\r\n", Malformed::Head),
        ("HTTP/1.1 101 Switching\r\n\r\n", Malformed::Switched),
        ("HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", Malformed::Length),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", Malformed::Chunk),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n", Malformed::Chunk),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", Malformed::Chunk),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n11111111111111111\r\n", Malformed::Chunk),
    ];

    #[test]
    fn answers_are_read_in_one_piece_and_byte_by_byte() {
        for (text, complete, status, keep_alive) in WELL_FORMED {
            for pieces in [&[usize::MAX][..], &[1], &[2], &[7, 1]] {
                let result = read(text.as_bytes(), pieces, false);
                assert_eq!(result, Ok((*complete, *status, *keep_alive)), "{text:?} in {pieces:?}");
            }
        }
    }

    #[test]
    fn malformed_answers_are_named() {
        for (text, error) in MALFORMED {
            for pieces in [&[usize::MAX][..], &[1], &[5]] {
                assert_eq!(read(text.as_bytes(), pieces, false), Err(*error), "{text:?} in {pieces:?}");
            }
        }
    }

    #[test]
    fn an_answer_to_head_has_no_body() {
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
        assert_eq!(read(head, &[3], true), Ok((true, 200, true)));
    }

    #[test]
    fn closing_ends_only_what_lasts_until_then() {
        for (text, complete) in [
            ("HTTP/1.1 200 OK\r\n\r\nsome", true),
            ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nsome", false),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome", false),
            ("HTTP/1.1 200", false),
            ("", false),
        ] {
            let mut reader = ResponseReader::default();
            reader.expect(false);
            assert_eq!(reader.feed(text.as_bytes()), Ok(false), "{text:?}");
            assert_eq!(reader.close(), complete, "{text:?}");
            assert_eq!(reader.has_begun(), !text.is_empty(), "{text:?}");
        }
    }

    #[test]
    fn names_are_taken_from_the_head() {
        let mut reader = ResponseReader::default();
        reader.expect(false);
        let text =
            b"HTTP/1.1 303 See Other\r\nx-RePlica: web-3\r\nLOCATION: /r/1\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(reader.feed(text), Ok(true));
        assert_eq!((reader.replica(), reader.location()), (Some("web-3"), Some("/r/1")));
        reader.expect(false);
        assert_eq!((reader.replica(), reader.location()), (None, None));
    }

    #[test]
    fn limits_hold_whatever_the_pieces() {
        let endless_head = [b"HTTP/1.1 200 OK\r\nx: ".to_vec(), vec![b'a'; 2 * MAX_HEAD_BYTES]].concat();
        let many = ["HTTP/1.1 200 OK\r\n".to_owned(), "a: b\r\n".repeat(MAX_HEADERS + 1), "\r\n".into()];
        let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        let endless_line = [chunked.clone(), b"1;".to_vec(), vec![b'x'; 2 * MAX_CHUNK_LINE]].concat();
        let endless_trailer = [chunked, b"0\r\n".to_vec(), b"a: b\r\n".repeat(MAX_HEAD_BYTES)].concat();
        for (bytes, error) in [
            (endless_head, Malformed::HeadTooLong),
            (many.concat().into_bytes(), Malformed::HeadTooLong),
            (endless_line, Malformed::Chunk),
            (endless_trailer, Malformed::Chunk),
        ] {
            for pieces in [&[usize::MAX][..], &[1000], &[16_384]] {
                assert_eq!(read(&bytes, pieces, false), Err(error));
            }
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            index in 0..WELL_FORMED.len(),
            pieces in prop::collection::vec(1usize..40, 1..8),
        ) {
            let (text, complete, status, keep_alive) = WELL_FORMED[index];
            prop_assert_eq!(read(text.as_bytes(), &pieces, false), Ok((complete, status, keep_alive)));
        }

        #[test]
        fn garbage_neither_panics_nor_hangs(
            start in prop::sample::select(vec![
                "", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", "HTTP/1.1 100 Continue\r\n\r\n",
            ]),
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            pieces in prop::collection::vec(1usize..40, 1..8),
        ) {
            let bytes = [start.as_bytes(), &bytes].concat();
            let whole = read(&bytes, &[usize::MAX], false);
            prop_assert_eq!(read(&bytes, &pieces, false), whole);
        }

        #[test]
        fn damaged_answers_neither_panic_nor_hang(
            index in 0..WELL_FORMED.len(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
            pieces in prop::collection::vec(1usize..40, 1..8),
        ) {
            let mut bytes = WELL_FORMED[index].0.as_bytes().to_vec();
            for (place, byte) in damage {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            let whole = read(&bytes, &[usize::MAX], false);
            prop_assert_eq!(read(&bytes, &pieces, false), whole);
        }
    }
}

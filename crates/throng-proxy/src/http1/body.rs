//! Where a message's body ends (RFC 9112, section 6), found without copying it. Pure.
//!
//! The chunked framing is read strictly: only CRLF ends a line, sizes are plain hexadecimal, and lines have limits.
//! Two parties that read a sloppy framing differently are what request smuggling is made of, so what is passed on
//! verbatim must leave nothing to interpretation.

/// How a message says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    Length(u64),
    Chunked,
    /// At the end of the connection; answers only.
    UntilClose,
}

/// Bytes of one chunk's size line, extensions included.
const MAX_SIZE_LINE: usize = 512;
/// Bytes of all trailers together.
const MAX_TRAILERS: usize = 8 << 10;
/// Hexadecimal digits of a chunk's size that fit into 64 bits.
const MAX_SIZE_DIGITS: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// `digits` seen so far of a size line; `length` bytes of it in all.
    Size {
        digits: usize,
        size: u64,
        length: usize,
    },
    Extension {
        size: u64,
        length: usize,
    },
    SizeLf {
        size: u64,
    },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    Done,
    /// Bytes still to come as they are.
    Data(u64),
    /// Bytes of the current chunk's data.
    ChunkData(u64),
    Chunk(State),
    UntilClose,
}

/// A chunked body that is not well formed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadChunk;

/// Follows a body to its end as its bytes come in, in pieces of any size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Body {
    progress: Progress,
    trailer_bytes: usize,
}

impl Body {
    pub fn new(framing: Framing) -> Self {
        let progress = match framing {
            Framing::None | Framing::Length(0) => Progress::Done,
            Framing::Length(n) => Progress::Data(n),
            Framing::Chunked => Progress::Chunk(State::Size { digits: 0, size: 0, length: 0 }),
            Framing::UntilClose => Progress::UntilClose,
        };
        Body { progress, trailer_bytes: 0 }
    }

    pub fn is_done(&self) -> bool {
        self.progress == Progress::Done
    }

    /// Whether the end of the connection is the body's proper end.
    pub fn may_end_here(&self) -> bool {
        matches!(self.progress, Progress::Done | Progress::UntilClose)
    }

    /// Says how many bytes at the front of `input` belong to the body, framing included.
    pub fn take(&mut self, input: &[u8]) -> Result<usize, BadChunk> {
        self.walk(input, |_| ())
    }

    /// The same, and appends the data without its framing to `out`, for those who do not understand chunks.
    pub fn take_data(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<usize, BadChunk> {
        self.walk(input, |data| out.extend_from_slice(data))
    }

    fn walk(&mut self, input: &[u8], mut data: impl FnMut(&[u8])) -> Result<usize, BadChunk> {
        let mut at = 0;
        while at < input.len() {
            let rest = &input[at..];
            match self.progress {
                Progress::Done => break,
                Progress::UntilClose => {
                    data(rest);
                    at = input.len();
                }
                Progress::Data(left) | Progress::ChunkData(left) => {
                    let n = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    data(&rest[..n]);
                    at += n;
                    let left = left - n as u64;
                    self.progress = match self.progress {
                        Progress::Data(_) if left == 0 => Progress::Done,
                        Progress::Data(_) => Progress::Data(left),
                        _ if left == 0 => Progress::Chunk(State::DataCr),
                        _ => Progress::ChunkData(left),
                    };
                }
                Progress::Chunk(state) => {
                    self.progress = self.step(state, rest[0])?;
                    at += 1;
                }
            }
        }
        Ok(at)
    }

    fn step(&mut self, state: State, byte: u8) -> Result<Progress, BadChunk> {
        let next = match (state, byte) {
            (State::Size { digits, size, length }, _) => return size_line(digits, size, length, byte),
            (State::Extension { size, .. }, b'\r') => State::SizeLf { size },
            (State::Extension { size, length }, _) if is_text(byte) && length < MAX_SIZE_LINE => {
                State::Extension { size, length: length + 1 }
            }
            (State::SizeLf { size: 0 }, b'\n') => State::TrailerStart,
            (State::SizeLf { size }, b'\n') => return Ok(Progress::ChunkData(size)),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { digits: 0, size: 0, length: 0 },
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::TrailerStart, _) if is_token(byte) => State::TrailerName,
            (State::TrailerName, b':') => State::TrailerValue,
            (State::TrailerName, _) if is_token(byte) => State::TrailerName,
            (State::TrailerValue, b'\r') => State::TrailerLf,
            (State::TrailerValue, _) if is_text(byte) => State::TrailerValue,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => return Ok(Progress::Done),
            _ => return Err(BadChunk),
        };
        if matches!(next, State::TrailerName | State::TrailerValue) {
            self.trailer_bytes += 1;
            if self.trailer_bytes > MAX_TRAILERS {
                return Err(BadChunk);
            }
        }
        Ok(Progress::Chunk(next))
    }
}

fn size_line(digits: usize, size: u64, length: usize, byte: u8) -> Result<Progress, BadChunk> {
    let state = match (byte, char::from(byte).to_digit(16)) {
        (_, Some(digit)) if digits < MAX_SIZE_DIGITS => {
            State::Size { digits: digits + 1, size: size << 4 | u64::from(digit), length: length + 1 }
        }
        (b'\r', _) if digits > 0 => State::SizeLf { size },
        (b';' | b' ' | b'\t', _) if digits > 0 => State::Extension { size, length: length + 1 },
        _ => return Err(BadChunk),
    };
    Ok(Progress::Chunk(state))
}

/// Visible characters, blanks and bytes above ASCII: what a header's value may consist of.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// A character of a token (RFC 9110, section 5.6.2).
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(framing: Framing, input: &[u8], taken: usize, data: &[u8], done: bool) {
        let (mut body, mut out) = (Body::new(framing), Vec::new());
        assert_eq!(body.take_data(input, &mut out), Ok(taken), "{input:?}");
        assert_eq!((out.as_slice(), body.is_done()), (data, done), "{input:?}");
    }

    #[test]
    fn bodies_end_where_their_framing_says() {
        check(Framing::None, b"GET", 0, b"", true);
        check(Framing::Length(3), b"abcGET", 3, b"abc", true);
        check(Framing::Length(9), b"abc", 3, b"abc", false);
        check(Framing::UntilClose, b"abc", 3, b"abc", false);
        check(Framing::Chunked, b"0\r\n\r\nGET", 5, b"", true);
        check(Framing::Chunked, b"3;a=\"b\"\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\nGET", 29, b"abc", true);
        check(Framing::Chunked, b"00a\r\n0123456789\r\n0\r\n\r\n", 22, b"0123456789", true);
    }

    #[test]
    fn sloppy_chunks_are_refused() {
        for input in [
            "3\nabc\r\n0\r\n\r\n",
            "\r\n",
            "g\r\n",
            "-1\r\n",
            "+3\r\nabc",
            "0x3\r\nabc",
            " 3\r\nabc",
            "11111111111111111\r\n",
            "3\r\nabcd\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3;\x01\r\nabc",
            "3;a\rb\r\n",
            "0\r\n bad: 1\r\n\r\n",
            "0\r\nno-colon\r\n\r\n",
            "0\r\nx: 1\n\r\n",
            "0\r\n\rx",
        ] {
            assert_eq!(Body::new(Framing::Chunked).take(input.as_bytes()), Err(BadChunk), "{input:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_have_limits() {
        let long = format!("3;{}", "a".repeat(MAX_SIZE_LINE + 1));
        assert_eq!(Body::new(Framing::Chunked).take(long.as_bytes()), Err(BadChunk));
        let long = format!("0\r\nx: {}", "a".repeat(MAX_TRAILERS + 1));
        assert_eq!(Body::new(Framing::Chunked).take(long.as_bytes()), Err(BadChunk));
    }

    proptest! {
        #[test]
        fn pieces_of_any_size_give_the_same_body(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 0..8),
            cuts in proptest::collection::vec(1usize..40, 1..20),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\nx-a: b\r\n\r\n");
            let end = wire.len();
            wire.extend_from_slice(b"GET / HTTP/1.1\r\n");
            let (mut body, mut out, mut at) = (Body::new(Framing::Chunked), Vec::new(), 0);
            for cut in cuts.iter().cycle() {
                let piece = &wire[at..wire.len().min(at + cut)];
                let taken = body.take_data(piece, &mut out).unwrap();
                at += taken;
                if body.is_done() {
                    break;
                }
                prop_assert_eq!(taken, piece.len());
            }
            prop_assert_eq!(at, end);
            prop_assert_eq!(out, chunks.concat());
        }

        #[test]
        fn no_input_makes_it_panic(input in proptest::collection::vec(any::<u8>(), 0..200)) {
            let taken = Body::new(Framing::Chunked).take(&input);
            prop_assert!(taken.is_err() || taken.unwrap() <= input.len());
        }
    }
}

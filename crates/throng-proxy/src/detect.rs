//! Which protocol a connection speaks, told from its first bytes. Pure.

/// What every HTTP/2 connection without TLS begins with (RFC 9113, section 3.4).
pub(crate) const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The longest method that is taken for HTTP; the longest registered one has 17 letters.
const MAX_METHOD: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guess {
    Http1,
    Http2,
    Tcp,
    /// What there is fits HTTP, but fits something else as well.
    Undecided,
}

/// Judges the bytes that a client sent first.
///
/// HTTP/1 is a method in capitals, one blank, and what a request target can begin with. The target has to be looked
/// at because other protocols begin their lines with a word in capitals too (`GET key`, `EHLO host`, `USER name`).
pub(crate) fn guess(bytes: &[u8]) -> Guess {
    let common = bytes.len().min(H2_PREFACE.len());
    if bytes[..common] == H2_PREFACE[..common] {
        // "PRI " could also be a method nobody has heard of; the whole preface is asked for.
        return if common == H2_PREFACE.len() { Guess::Http2 } else { Guess::Undecided };
    }
    let method = bytes.iter().take_while(|b| b.is_ascii_uppercase() || **b == b'-').count();
    if method > MAX_METHOD {
        return Guess::Tcp;
    }
    match &bytes[method..] {
        [] => Guess::Undecided,
        [b' ', ..] if method == 0 => Guess::Tcp,
        [b' '] => Guess::Undecided,
        [b' ', b'/' | b'*', ..] => Guess::Http1,
        [b' ', target @ ..] => absolute(target),
        _ => Guess::Tcp,
    }
}

fn absolute(target: &[u8]) -> Guess {
    const SCHEME: &[u8] = b"http://";
    let common = target.len().min(SCHEME.len());
    match target[..common].eq_ignore_ascii_case(&SCHEME[..common]) {
        true if common == SCHEME.len() => Guess::Http1,
        true => Guess::Undecided,
        false => Guess::Tcp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_bytes_tell_the_protocol() {
        for (bytes, expected) in [
            ("", Guess::Undecided),
            ("G", Guess::Undecided),
            ("GET ", Guess::Undecided),
            ("GET /", Guess::Http1),
            ("OPTIONS * HTTP/1.1", Guess::Http1),
            ("VERSION-CONTROL /x", Guess::Http1),
            ("GET http:", Guess::Undecided),
            ("GET HTTP://a/b", Guess::Http1),
            ("GET key\r\n", Guess::Tcp),
            ("EHLO host\r\n", Guess::Tcp),
            ("get / HTTP/1.1", Guess::Tcp),
            (" / ", Guess::Tcp),
            ("*1\r\n$4\r\nPING\r\n", Guess::Tcp),
            ("\u{16}\u{3}\u{1}", Guess::Tcp),
            ("ABCDEFGHIJKLMNOPQRSTUVWXYZ", Guess::Tcp),
            ("PRI", Guess::Undecided),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Guess::Http2),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0", Guess::Http2),
            ("PRI * HTTP/1.1\r\n", Guess::Http1),
        ] {
            assert_eq!(guess(bytes.as_bytes()), expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn a_decision_holds_whatever_follows(
            first in proptest::collection::vec(any::<u8>(), 0..30),
            more in proptest::collection::vec(any::<u8>(), 0..30),
        ) {
            let early = guess(&first);
            if early != Guess::Undecided {
                prop_assert_eq!(guess(&[first, more].concat()), early);
            }
        }
    }
}

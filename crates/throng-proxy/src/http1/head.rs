//! The heads of HTTP/1 messages: read, judged, and written anew for the next hop. Pure.
//!
//! A head is never passed on as it came. What frames the message (Content-Length, Transfer-Encoding) is understood,
//! left out, and written again from what was understood, so that the backend cannot read it differently than the
//! balancer did; what was meant for this hop alone (RFC 9110, section 7.6.1) is left out.

use super::body::Framing;
use httparse::Header;
use std::io::Write;
use std::mem::MaybeUninit;

/// Header lines of one head.
pub(crate) const MAX_HEADERS: usize = 128;

/// A request that is answered here instead of being passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub status: u16,
    /// A plain sentence for whoever reads the answer.
    pub sentence: &'static str,
}

const fn refuse(status: u16, sentence: &'static str) -> Refusal {
    Refusal { status, sentence }
}

/// What matters of a request once its head is rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Request {
    /// Bytes of the head as it came.
    pub length: usize,
    pub framing: Framing,
    /// HTTP/1.0: no chunks, no interim answers.
    pub old: bool,
    /// The connection can serve another request after this one.
    pub keep_alive: bool,
    pub is_head: bool,
    /// Sending it twice does what sending it once does (RFC 9110, section 9.2.2).
    pub idempotent: bool,
    /// It asks to leave HTTP for another protocol.
    pub upgrade: bool,
}

impl Request {
    /// Whether it may be sent again although the backend may have begun to work on it.
    pub fn is_replayable(&self) -> bool {
        self.idempotent && !self.has_body() && !self.upgrade
    }

    pub fn has_body(&self) -> bool {
        !matches!(self.framing, Framing::None | Framing::Length(0))
    }
}

/// What matters of an answer once its head is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Response {
    pub length: usize,
    pub status: u16,
    pub framing: Framing,
    /// The backend keeps its connection open.
    pub keep_alive: bool,
}

/// The fields that mean something to this hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Connection,
    ContentLength,
    TransferEncoding,
    Upgrade,
    Host,
    Expect,
    ForwardedFor,
    ForwardedProto,
    ForwardedHost,
    /// For this hop alone, and without a meaning here.
    HopByHop,
    Other,
}

/// Looked up for every line of every head, hence by length first: most names are dismissed without a comparison.
fn field(name: &str) -> Field {
    let known: &[(&str, Field)] = match name.len() {
        2 => &[("te", Field::HopByHop)],
        4 => &[("host", Field::Host)],
        6 => &[("expect", Field::Expect)],
        7 => &[("upgrade", Field::Upgrade)],
        10 => &[("connection", Field::Connection), ("keep-alive", Field::HopByHop)],
        14 => &[("content-length", Field::ContentLength)],
        15 => &[("x-forwarded-for", Field::ForwardedFor)],
        16 => &[("x-forwarded-host", Field::ForwardedHost), ("proxy-connection", Field::HopByHop)],
        17 => &[("transfer-encoding", Field::TransferEncoding), ("x-forwarded-proto", Field::ForwardedProto)],
        18 => &[("proxy-authenticate", Field::HopByHop)],
        19 => &[("proxy-authorization", Field::HopByHop)],
        _ => &[],
    };
    known.iter().find(|(k, _)| k.eq_ignore_ascii_case(name)).map_or(Field::Other, |(_, field)| *field)
}

/// What the hop-by-hop fields of a head say together.
#[derive(Debug, Default)]
struct Hop<'a> {
    close: bool,
    keep_alive: bool,
    upgrade: bool,
    /// Fields that Connection names as meant for this hop.
    named: Vec<&'a str>,
    protocol: Option<&'a [u8]>,
    length: Option<u64>,
    chunked: bool,
}

/// A framing that could be understood in more than one way, or not at all.
enum BadFraming {
    Ambiguous(&'static str),
    UnknownCoding,
}

impl<'a> Hop<'a> {
    fn read(headers: &[Header<'a>]) -> Result<Self, BadFraming> {
        let mut hop = Hop::default();
        for header in headers {
            match field(header.name) {
                Field::Connection => hop.connection(header.value),
                Field::Upgrade => hop.protocol = Some(header.value),
                Field::ContentLength => {
                    if hop.length.is_some() {
                        return Err(BadFraming::Ambiguous("Content-Length appears twice."));
                    }
                    let wrong = BadFraming::Ambiguous("Content-Length is not a number.");
                    hop.length = Some(parse_length(header.value).ok_or(wrong)?);
                }
                Field::TransferEncoding => {
                    if hop.chunked {
                        return Err(BadFraming::Ambiguous("Transfer-Encoding appears twice."));
                    }
                    if !header.value.eq_ignore_ascii_case(b"chunked") {
                        return Err(BadFraming::UnknownCoding);
                    }
                    hop.chunked = true;
                }
                _ => {}
            }
        }
        if hop.chunked && hop.length.is_some() {
            return Err(BadFraming::Ambiguous("Content-Length and Transfer-Encoding exclude each other."));
        }
        Ok(hop)
    }

    fn connection(&mut self, value: &'a [u8]) {
        let Ok(value) = std::str::from_utf8(value) else { return };
        for option in value.split(',').map(str::trim) {
            if option.eq_ignore_ascii_case("close") {
                self.close = true;
            } else if option.eq_ignore_ascii_case("keep-alive") {
                self.keep_alive = true;
            } else if option.eq_ignore_ascii_case("upgrade") {
                self.upgrade = true;
            } else if !option.is_empty() && self.named.len() < MAX_HEADERS {
                self.named.push(option);
            }
        }
    }

    fn names(&self, name: &str) -> bool {
        self.named.iter().any(|n| n.eq_ignore_ascii_case(name))
    }
}

/// Digits and nothing else; a sign, blanks or a list leave room for other readings.
fn parse_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

fn framing_line(out: &mut Vec<u8>, framing: Framing) {
    match framing {
        Framing::Length(n) => {
            // Writing to a vector cannot fail.
            let _ = write!(out, "Content-Length: {n}\r\n");
        }
        Framing::Chunked => line(out, b"Transfer-Encoding", b"chunked"),
        Framing::None | Framing::UntilClose => {}
    }
}

/// Reads the request at the front of `input` and writes its head for the backend to `out`, which is cleared first.
///
/// `Ok(None)`: the head is not complete yet. `peer` is the client's address, for X-Forwarded-For.
pub(crate) fn read_request(input: &[u8], peer: &str, out: &mut Vec<u8>) -> Result<Option<Request>, Refusal> {
    let mut slots = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let length = match parsed.parse_with_uninit_headers(input, &mut slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(refuse(431, "There are more than 128 header fields."));
        }
        Err(httparse::Error::Version) => {
            return Err(refuse(505, "Only HTTP/1.0 and HTTP/1.1 are understood here."));
        }
        Err(_) => return Err(refuse(400, "The request is not well-formed HTTP.")),
    };
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(refuse(400, "The request is not well-formed HTTP."));
    };
    if method == "CONNECT" {
        return Err(refuse(405, "CONNECT is not offered: this is the front of a service, not a way out."));
    }
    let old = minor == 0;
    let hop = Hop::read(parsed.headers).map_err(|e| match e {
        BadFraming::Ambiguous(sentence) => refuse(400, sentence),
        BadFraming::UnknownCoding => refuse(501, "Only the transfer coding \"chunked\" is understood."),
    })?;
    if hop.chunked && old {
        return Err(refuse(400, "HTTP/1.0 has no Transfer-Encoding."));
    }
    let framing = match (hop.chunked, hop.length) {
        (true, _) => Framing::Chunked,
        (_, Some(length)) => Framing::Length(length),
        _ => Framing::None,
    };
    // h2c by upgrade has been withdrawn (RFC 9113, section 3.1): such a request is answered over HTTP/1.1.
    let protocol = hop.protocol.filter(|p| hop.upgrade && !old && !p.eq_ignore_ascii_case(b"h2c"));
    let request = Request {
        length,
        framing,
        old,
        keep_alive: if old { hop.keep_alive && !hop.close } else { !hop.close },
        is_head: method == "HEAD",
        idempotent: matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"),
        upgrade: protocol.is_some(),
    };
    out.clear();
    let (target, authority) = origin_form(target);
    let _ = write!(out, "{method} {target} HTTP/1.1\r\n");
    write_request_fields(parsed.headers, &hop, old, authority, peer, out)?;
    framing_line(out, framing);
    if let Some(protocol) = protocol {
        line(out, b"Connection", b"upgrade");
        line(out, b"Upgrade", protocol);
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(request))
}

/// Splits `http://host/path` into `/path` and `host`; the host then outranks the Host field (RFC 9112, 3.2.2).
fn origin_form(target: &str) -> (&str, Option<&str>) {
    const SCHEME: &str = "http://";
    let absolute = target.get(..SCHEME.len()).is_some_and(|s| s.eq_ignore_ascii_case(SCHEME));
    if !absolute {
        return (target, None);
    }
    let rest = &target[SCHEME.len()..];
    match rest.find(['/', '?']) {
        Some(at) if rest[at..].starts_with('/') => (&rest[at..], Some(&rest[..at])),
        _ => ("/", Some(rest.split('?').next().unwrap_or(rest))),
    }
}

fn write_request_fields(
    headers: &[Header<'_>],
    hop: &Hop<'_>,
    old: bool,
    authority: Option<&str>,
    peer: &str,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let mut host = authority.map(str::as_bytes);
    let (mut hosts, mut proto, mut forwarded_host) = (0, false, false);
    let mut forwarded: Vec<&[u8]> = Vec::new();
    for header in headers {
        match field(header.name) {
            Field::Host => {
                hosts += 1;
                host = host.or(Some(header.value));
                continue;
            }
            Field::ForwardedFor => {
                forwarded.push(header.value);
                continue;
            }
            Field::Expect if !header.value.eq_ignore_ascii_case(b"100-continue") => {
                return Err(refuse(417, "Only the expectation \"100-continue\" is understood."));
            }
            // HTTP/1.0 knows no interim answers, so nobody would be waiting for one.
            Field::Expect if old => continue,
            Field::ForwardedProto => proto = true,
            Field::ForwardedHost => forwarded_host = true,
            Field::Expect => {}
            Field::Other if hop.names(header.name) => continue,
            Field::Other => {}
            Field::Connection
            | Field::ContentLength
            | Field::TransferEncoding
            | Field::Upgrade
            | Field::HopByHop => continue,
        }
        line(out, header.name.as_bytes(), header.value);
    }
    if hosts > 1 || (hosts == 0 && !old) {
        return Err(refuse(400, "HTTP/1.1 needs exactly one Host field."));
    }
    if let Some(host) = host {
        line(out, b"Host", host);
        if !forwarded_host {
            line(out, b"X-Forwarded-Host", host);
        }
    }
    if !proto {
        line(out, b"X-Forwarded-Proto", b"http");
    }
    out.extend_from_slice(b"X-Forwarded-For: ");
    for value in forwarded {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    out.extend_from_slice(peer.as_bytes());
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// How the client's side of an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The client's connection stays open after this answer.
    pub keep_alive: bool,
    /// The client speaks HTTP/1.0: it has to be told about keep-alive, and cannot take chunks.
    pub old: bool,
}

/// Reads the answer at the front of `input`. `Ok(None)`: incomplete; `Err` says what is wrong with it.
///
/// `write` is called with what was read and decides how the head is written to `out` (appended).
pub(crate) fn read_response(
    input: &[u8],
    is_head: bool,
    out: &mut Vec<u8>,
    deliver: impl FnOnce(&Response) -> Delivery,
) -> Result<Option<Response>, &'static str> {
    let mut slots = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut parsed, input, &mut slots) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err("with more than 128 header fields"),
        Err(_) => return Err("that is not well-formed HTTP"),
    };
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else {
        return Err("that is not well-formed HTTP");
    };
    let hop = Hop::read(parsed.headers).map_err(|e| match e {
        BadFraming::Ambiguous(_) => "whose length can be read in two ways",
        BadFraming::UnknownCoding => "with a transfer coding other than \"chunked\"",
    })?;
    let bodyless = is_head || status < 200 || status == 204 || status == 304;
    let framing = match (hop.chunked, hop.length) {
        _ if bodyless => Framing::None,
        (true, _) => Framing::Chunked,
        (_, Some(length)) => Framing::Length(length),
        _ => Framing::UntilClose,
    };
    let keep_alive = framing != Framing::UntilClose && if minor == 0 { hop.keep_alive } else { !hop.close };
    let response = Response { length, status, framing, keep_alive };
    let delivery = deliver(&response);
    let _ = write!(out, "HTTP/1.1 {status} {}\r\n", parsed.reason.unwrap_or_default());
    for header in parsed.headers.iter() {
        match field(header.name) {
            Field::Connection | Field::HopByHop | Field::ContentLength | Field::TransferEncoding => {}
            Field::Upgrade if status != 101 && status != 426 => {}
            Field::Other if hop.names(header.name) => {}
            _ => line(out, header.name.as_bytes(), header.value),
        }
    }
    match (bodyless, hop.length) {
        // The answer to HEAD and a 304 tell the length of a body that is not there; others must not have one.
        (true, Some(length)) if is_head || status == 304 => framing_line(out, Framing::Length(length)),
        (true, _) => {}
        (false, _) if delivery.old && framing == Framing::Chunked => {}
        (false, _) => framing_line(out, framing),
    }
    match status {
        101 => line(out, b"Connection", b"upgrade"),
        100..200 => {}
        _ if !delivery.keep_alive => line(out, b"Connection", b"close"),
        _ if delivery.old => line(out, b"Connection", b"keep-alive"),
        _ => {}
    }
    out.extend_from_slice(b"\r\n");
    Ok(Some(response))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewrite(input: &str) -> Result<Option<(Request, String)>, u16> {
        let mut out = Vec::new();
        let read = read_request(input.as_bytes(), "10.0.0.1", &mut out).map_err(|r| r.status)?;
        Ok(read.map(|request| (request, String::from_utf8(out).unwrap())))
    }

    #[test]
    fn a_plain_request_is_written_anew() {
        let (request, head) =
            rewrite("GET /a HTTP/1.1\r\nHost: shop\r\nAccept: */*\r\n\r\nrest").unwrap().unwrap();
        assert_eq!(
            head,
            "GET /a HTTP/1.1\r\nAccept: */*\r\nHost: shop\r\nX-Forwarded-Host: shop\r\n\
             X-Forwarded-Proto: http\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n"
        );
        assert_eq!(request.length, 44);
        assert!(request.keep_alive && request.is_replayable() && !request.upgrade);
    }

    #[test]
    fn what_may_be_sent_twice() {
        for (line, replayable) in [
            ("GET / HTTP/1.1\r\nHost: x", true),
            ("DELETE / HTTP/1.1\r\nHost: x\r\nContent-Length: 0", true),
            ("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1", false),
            ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked", false),
            ("POST / HTTP/1.1\r\nHost: x", false),
            ("PATCH / HTTP/1.1\r\nHost: x", false),
            ("BREW / HTTP/1.1\r\nHost: x", false),
            ("GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket", false),
        ] {
            let (request, _) = rewrite(&format!("{line}\r\n\r\n")).unwrap().unwrap();
            assert_eq!(request.is_replayable(), replayable, "{line}");
        }
    }

    #[test]
    fn framing_and_host_cannot_be_taken_away_by_naming_them() {
        let input =
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: host, content-length\r\nContent-Length: 3\r\n\r\n";
        let (request, head) = rewrite(input).unwrap().unwrap();
        assert_eq!(request.framing, Framing::Length(3));
        assert!(head.contains("Content-Length: 3\r\n") && head.contains("Host: x\r\n"), "{head}");
    }

    #[test]
    fn every_field_that_matters_here_is_known_in_any_case() {
        for name in ["TE", "Keep-Alive", "Proxy-Connection", "Proxy-Authenticate", "Proxy-Authorization"] {
            assert_eq!(field(name), Field::HopByHop, "{name}");
        }
        for (name, expected) in [
            ("HOST", Field::Host),
            ("Expect", Field::Expect),
            ("upgrade", Field::Upgrade),
            ("CONNECTION", Field::Connection),
            ("Content-Length", Field::ContentLength),
            ("Transfer-encoding", Field::TransferEncoding),
            ("X-Forwarded-For", Field::ForwardedFor),
            ("X-Forwarded-Host", Field::ForwardedHost),
            ("X-Forwarded-Proto", Field::ForwardedProto),
            ("Hose", Field::Other),
            ("X-Anything", Field::Other),
        ] {
            assert_eq!(field(name), expected, "{name}");
        }
    }

    #[test]
    fn targets_become_paths() {
        for (target, path, host) in [
            ("/a?b", "/a?b", None),
            ("*", "*", None),
            ("http://h/a", "/a", Some("h")),
            ("HTTP://h:1/", "/", Some("h:1")),
            ("http://h", "/", Some("h")),
            ("http://h?q=/", "/", Some("h")),
        ] {
            assert_eq!(origin_form(target), (path, host), "{target}");
        }
    }

    /// Lines that matter to framing and hops, well formed or not.
    fn field_line() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            "Content-Length",
            "content-length",
            "Transfer-Encoding",
            "TRANSFER-ENCODING",
            "Connection",
            "Host",
            "Upgrade",
            "Keep-Alive",
            "Expect",
            "X-A",
            "TE",
            "X-Forwarded-For",
            "Content-Length ",
            " Host",
        ]);
        let value = prop::sample::select(vec![
            "",
            "0",
            "3",
            "3, 3",
            "+3",
            "0x3",
            "chunked",
            "Chunked",
            "gzip, chunked",
            "identity",
            "close",
            "x-a",
            "keep-alive, X-A",
            "upgrade",
            "websocket",
            "h2c",
            "100-continue",
            "content-length",
            "a\rb",
            "\t5 ",
        ]);
        (name, value).prop_map(|(name, value)| format!("{name}: {value}"))
    }

    proptest! {
        #[test]
        fn what_is_passed_on_can_be_read_in_one_way_only(
            method in prop::sample::select(vec!["GET", "POST", "HEAD", "PUT"]),
            minor in 0..2,
            lines in prop::collection::vec(field_line(), 0..8),
        ) {
            let input = format!("{method} / HTTP/1.{minor}\r\n{}\r\n\r\n", lines.join("\r\n"));
            let Ok(Some((request, head))) = rewrite(&input) else { return Ok(()) };
            let mut slots = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Request::new(&mut slots);
            prop_assert_eq!(parsed.parse(head.as_bytes()).unwrap(), httparse::Status::Complete(head.len()));
            let values = |name: &str| -> Vec<String> {
                parsed.headers.iter().filter(|h| h.name.eq_ignore_ascii_case(name))
                    .map(|h| String::from_utf8_lossy(h.value).into_owned()).collect()
            };
            let (length, coding) = match request.framing {
                Framing::Length(n) => (vec![n.to_string()], vec![]),
                Framing::Chunked => (vec![], vec!["chunked".to_owned()]),
                _ => (vec![], vec![]),
            };
            prop_assert_eq!(values("content-length"), length);
            prop_assert_eq!(values("transfer-encoding"), coding);
            prop_assert!(values("host").len() <= 1);
            prop_assert!(values("keep-alive").is_empty() && values("te").is_empty());
            prop_assert_eq!(values("connection").len(), usize::from(request.upgrade));
            prop_assert_eq!(values("upgrade").len(), usize::from(request.upgrade));
            prop_assert_eq!(values("x-forwarded-for").len(), 1);
        }

        #[test]
        fn a_part_of_a_head_is_never_taken_for_a_head(
            lines in prop::collection::vec(field_line(), 0..5),
            cut in any::<prop::sample::Index>(),
        ) {
            let input = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", lines.join("\r\n"));
            let Ok(Some((request, _))) = rewrite(&input) else { return Ok(()) };
            let cut = cut.index(request.length);
            prop_assert_eq!(rewrite(&input[..cut]), Ok(None));
        }

        #[test]
        fn no_input_makes_it_panic(input in prop::collection::vec(any::<u8>(), 0..300)) {
            let read = read_request(&input, "::1", &mut Vec::new());
            prop_assert!(!matches!(read, Ok(Some(r)) if r.length > input.len()));
        }
    }
}

//! The bytes of a request: prepared once where they are always the same, put together by copying where a
//! picture makes each one different.

use crate::error::LoadError;
use crate::picture::PicturePool;
use crate::spec::{Body, ImageSpec, LoadSpec, Part, PartContent};
use base64::Engine;
use bytes::Bytes;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;
use std::sync::Arc;

/// Longest text of a content length: the digits of `u64::MAX`.
const LENGTH_DIGITS: usize = 20;
const USER_AGENT: &str = concat!("throng-load/", env!("CARGO_PKG_VERSION"));

/// A request that is ready but for what differs from one to the next.
#[derive(Debug)]
pub(crate) struct Template {
    pub method: String,
    /// `HOST[:PORT]` as `Host` and `:authority` name it.
    pub authority: String,
    pub path: String,
    /// All header fields but `Content-Length`, in the order they are sent.
    pub fields: Vec<(String, String)>,
    pieces: Vec<Piece>,
    /// How many of the pieces are pictures.
    pictures: u64,
    /// Head and body, where no picture is in it.
    fixed: Option<Bytes>,
    /// The head with blanks where the length goes, and where that is.
    head: Vec<u8>,
    length_at: usize,
}

#[derive(Debug, Clone)]
enum Piece {
    Bytes(Bytes),
    Picture(Arc<PicturePool>),
}

impl Template {
    /// Checks the request and prepares it; encodes the pictures if there are any.
    pub fn new(spec: &LoadSpec) -> Result<Template, LoadError> {
        let request = &spec.request;
        let method = request.method.clone();
        if !is_token(&method) || method == "CONNECT" {
            return Err(LoadError::spec(
                format!("{method:?} is not a method"),
                "write GET, POST or the like",
            ));
        }
        let mut rng = ChaCha8Rng::seed_from_u64(spec.seed);
        let (pieces, content_type) = body_pieces(&request.body, &mut rng)?;
        let authority = authority(&spec.target);
        let mut fields = check_fields(&request.headers)?;
        let mut usual = |name: &str, value: Option<String>| {
            if let Some(value) = value
                && !fields.iter().any(|(given, _)| given.eq_ignore_ascii_case(name))
            {
                fields.insert(0, (name.to_owned(), value));
            }
        };
        usual("Authorization", basic_authentication(&spec.target));
        usual("Content-Type", content_type);
        usual("Accept", Some("*/*".into()));
        usual("User-Agent", Some(USER_AGENT.into()));
        usual("Host", Some(authority.clone()));
        let path = origin_form(&spec.target);
        let pictures = pieces.iter().filter(|piece| matches!(piece, Piece::Picture(_))).count() as u64;
        let (fixed, head, length_at) = (None, Vec::new(), 0);
        let mut template =
            Template { method, authority, path, fields, pieces, pictures, fixed, head, length_at };
        template.prepare();
        Ok(template)
    }

    /// Whether all requests are the same, byte for byte.
    pub fn fixed(&self) -> Option<&Bytes> {
        self.fixed.as_ref()
    }

    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// Puts a request together in `out`, whose content is discarded.
    pub fn render(&self, serial: u64, rng: &mut impl Rng, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.head);
        let body_at = out.len();
        self.render_body(serial, rng, out);
        if self.length_at > 0 {
            let digits = (out.len() - body_at).to_string();
            let end = self.length_at + LENGTH_DIGITS;
            out[end - digits.len()..end].copy_from_slice(digits.as_bytes());
        }
    }

    /// Appends the body alone.
    pub fn render_body(&self, serial: u64, rng: &mut impl Rng, out: &mut Vec<u8>) {
        // Each picture of a form has a number of its own.
        let mut number = serial.wrapping_mul(self.pictures);
        for piece in &self.pieces {
            match piece {
                Piece::Bytes(bytes) => out.extend_from_slice(bytes),
                Piece::Picture(pool) => {
                    pool.append(number, rng, out);
                    number = number.wrapping_add(1);
                }
            }
        }
    }

    /// The request that follows a redirect: the same with another path (307, 308), or a GET without a body.
    pub fn render_redirect(&self, path: &str, original: &[u8], keep: bool, out: &mut Vec<u8>) {
        out.clear();
        let method = if keep || self.is_head() { self.method.as_str() } else { "GET" };
        out.extend_from_slice(format!("{method} {path} HTTP/1.1\r\n").as_bytes());
        if keep {
            // Everything after the request line stays as it was sent.
            let line_end =
                original.iter().position(|byte| *byte == b'\n').map_or(original.len(), |at| at + 1);
            out.extend_from_slice(&original[line_end..]);
        } else {
            for (name, value) in &self.fields {
                if !name.eq_ignore_ascii_case("content-type") {
                    push_field(out, name, value);
                }
            }
            out.extend_from_slice(b"\r\n");
        }
    }

    fn prepare(&mut self) {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path).into_bytes();
        for (name, value) in &self.fields {
            push_field(&mut head, name, value);
        }
        let pictures = self.pictures > 0;
        let body: usize = self
            .pieces
            .iter()
            .map(|piece| match piece {
                Piece::Bytes(bytes) => bytes.len(),
                Piece::Picture(_) => 0,
            })
            .sum();
        if pictures {
            head.extend_from_slice(b"Content-Length: ");
            // Blanks before a field's value mean nothing (RFC 9112, section 5), so the number can be set right
            // in place.
            self.length_at = head.len();
            head.extend_from_slice(&[b' '; LENGTH_DIGITS]);
            head.extend_from_slice(b"\r\n");
        } else if body > 0 || matches!(self.method.as_str(), "POST" | "PUT" | "PATCH") {
            push_field(&mut head, "Content-Length", &body.to_string());
        }
        head.extend_from_slice(b"\r\n");
        self.head = head;
        if !pictures {
            let mut whole = Vec::new();
            self.render(0, &mut ChaCha8Rng::seed_from_u64(0), &mut whole);
            self.fixed = Some(whole.into());
        }
    }
}

fn push_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn check_fields(fields: &[(String, String)]) -> Result<Vec<(String, String)>, LoadError> {
    for (name, value) in fields {
        if !is_token(name) || value.bytes().any(|b| b < 0x20 && b != b'\t' || b == 0x7f) {
            return Err(LoadError::spec(
                format!("{name:?}: {value:?} is not a header field"),
                "write NAME: VALUE, on one line",
            ));
        }
        if ["content-length", "transfer-encoding", "expect"].contains(&name.to_ascii_lowercase().as_str()) {
            return Err(LoadError::spec(
                format!("the header field {name} cannot be set"),
                "leave it out: it follows from the body",
            ));
        }
    }
    Ok(fields.to_vec())
}

fn authority(target: &url::Url) -> String {
    let host = target.host_str().unwrap_or_default();
    target.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Path and query, as a request line has them.
pub(crate) fn origin_form(target: &url::Url) -> String {
    match target.query() {
        Some(query) => format!("{}?{query}", target.path()),
        None => target.path().to_owned(),
    }
}

fn basic_authentication(target: &url::Url) -> Option<String> {
    if target.username().is_empty() && target.password().is_none() {
        return None;
    }
    let pair =
        format!("{}:{}", percent_decode(target.username()), percent_decode(target.password().unwrap_or("")));
    Some(format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)))
}

/// Undoes the URL's own escapes; what is not UTF-8 then stays escaped.
fn percent_decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        match escaped.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            Some(value) if *byte == b'%' => {
                out.push(value);
                rest = &after[2..];
            }
            _ => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

type Pieces = (Vec<Piece>, Option<String>);

fn body_pieces(body: &Body, rng: &mut ChaCha8Rng) -> Result<Pieces, LoadError> {
    match body {
        Body::Empty => Ok((Vec::new(), None)),
        Body::Bytes(bytes) => Ok((vec![Piece::Bytes(bytes.clone())], None)),
        Body::Image(spec) => {
            let pool = PicturePool::new(*spec, rng.random())?;
            Ok((vec![Piece::Picture(Arc::new(pool))], Some(spec.format.content_type().into())))
        }
        Body::Multipart(parts) => multipart(parts, rng),
    }
}

/// `multipart/form-data` (RFC 7578), names escaped as the HTML standard says.
fn multipart(parts: &[Part], rng: &mut ChaCha8Rng) -> Result<Pieces, LoadError> {
    // 128 random bits: no content that exists beforehand contains them.
    let boundary = format!("throng-{:032x}", rng.random::<u128>());
    let mut pools: HashMap<(u16, u16, String), Arc<PicturePool>> = HashMap::new();
    let (mut pieces, mut text) = (Vec::new(), String::new());
    for part in parts {
        text.push_str(&format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"",
            escape(&part.name)
        ));
        if let Some(filename) = &part.filename {
            text.push_str(&format!("; filename=\"{}\"", escape(filename)));
        }
        let kind = match &part.content {
            PartContent::Image(spec) => Some(spec.format.content_type()),
            PartContent::Bytes(_) => None,
        };
        if let Some(kind) = part.content_type.as_deref().or(kind) {
            check_fields(&[("Content-Type".into(), kind.into())])?;
            text.push_str(&format!("\r\nContent-Type: {kind}"));
        }
        text.push_str("\r\n\r\n");
        pieces.push(Piece::Bytes(std::mem::take(&mut text).into()));
        pieces.push(match &part.content {
            PartContent::Bytes(bytes) => Piece::Bytes(bytes.clone()),
            PartContent::Image(spec) => Piece::Picture(pool(&mut pools, *spec, rng)?),
        });
        text.push_str("\r\n");
    }
    text.push_str(&format!("--{boundary}--\r\n"));
    pieces.push(Piece::Bytes(text.into()));
    Ok((pieces, Some(format!("multipart/form-data; boundary={boundary}"))))
}

/// Parts with pictures of the same kind share a pool.
fn pool(
    pools: &mut HashMap<(u16, u16, String), Arc<PicturePool>>,
    spec: ImageSpec,
    rng: &mut ChaCha8Rng,
) -> Result<Arc<PicturePool>, LoadError> {
    let key = (spec.width, spec.height, format!("{:?}", spec.format));
    if let Some(pool) = pools.get(&key) {
        return Ok(pool.clone());
    }
    let pool = Arc::new(PicturePool::new(spec, rng.random())?);
    pools.insert(key, pool.clone());
    Ok(pool)
}

fn escape(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{RequestSpec, Requests, Schedule};
    use std::time::Duration;

    fn spec(url: &str, request: RequestSpec) -> LoadSpec {
        let schedule = Schedule::Closed { clients: 1, requests: Requests::Total(1), think: Duration::ZERO };
        LoadSpec { request, ..LoadSpec::new(url::Url::parse(url).expect(url), schedule) }
    }

    fn rendered(template: &Template, serial: u64) -> Vec<u8> {
        let mut out = Vec::new();
        template.render(serial, &mut ChaCha8Rng::seed_from_u64(serial), &mut out);
        out
    }

    fn post(body: Body) -> RequestSpec {
        RequestSpec { method: "POST".into(), headers: Vec::new(), body }
    }

    #[test]
    fn a_plain_request_is_what_a_client_sends() {
        let template =
            Template::new(&spec("http://web:8080/a%20b?c=d#e", RequestSpec::default())).expect("fine");
        let expected = format!(
            "GET /a%20b?c=d HTTP/1.1\r\nHost: web:8080\r\nUser-Agent: {USER_AGENT}\r\nAccept: */*\r\n\r\n"
        );
        assert_eq!(template.fixed().map(|bytes| bytes.to_vec()), Some(expected.into_bytes()));
    }

    #[test]
    fn own_fields_replace_the_usual_ones() {
        let headers = vec![("host".into(), "other".into()), ("X-A".into(), "1".into())];
        let request = RequestSpec { headers, ..post(Body::Bytes("xy".into())) };
        let template = Template::new(&spec("http://me:p%40ss@web/", request)).expect("fine");
        let text = String::from_utf8(rendered(&template, 1)).expect("text");
        assert!(text.contains("\r\nhost: other\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nxy"), "{text}");
        assert!(!text.contains("Host: web"), "{text}");
        // me:p@ss
        assert!(text.contains("Authorization: Basic bWU6cEBzcw=="), "{text}");
    }

    #[test]
    fn an_empty_post_says_so() {
        let template = Template::new(&spec("http://web/", post(Body::Empty))).expect("fine");
        assert!(rendered(&template, 0).ends_with(b"\r\nContent-Length: 0\r\n\r\n"));
    }

    #[test]
    fn a_form_with_a_picture_is_framed_and_differs_each_time() {
        let image = "32x32".parse().expect("a size");
        let part = |name: &str, content| Part {
            name: name.into(),
            filename: Some("a\"b.jpg".into()),
            content_type: None,
            content,
        };
        let body = Body::Multipart(vec![
            part("myfile", PartContent::Image(image)),
            part("note", PartContent::Bytes("hello".into())),
        ]);
        let template = Template::new(&spec("http://web/", post(body))).expect("fine");
        assert!(template.fixed().is_none());
        let mut lengths = std::collections::HashSet::new();
        for serial in 0..20 {
            let request = rendered(&template, serial);
            let split = request.windows(4).position(|w| w == b"\r\n\r\n").expect("a head") + 4;
            let head = String::from_utf8(request[..split].to_vec()).expect("text");
            let length = head.split("Content-Length:").nth(1).expect("a length").lines().next();
            assert_eq!(length.map(|l| l.trim().parse()), Some(Ok(request.len() - split)));
            let body = &request[split..];
            let jpeg = body.windows(2).position(|w| w == [0xff, 0xd8]).expect("a JPEG");
            let part_head = String::from_utf8_lossy(&body[..jpeg]);
            assert!(
                part_head.contains("name=\"myfile\"; filename=\"a%22b.jpg\"\r\nContent-Type: image/jpeg"),
                "{part_head}"
            );
            assert!(body.ends_with(b"--\r\n"));
            lengths.insert(request);
        }
        assert_eq!(lengths.len(), 20);
    }

    #[test]
    fn pictures_of_one_form_differ_too() {
        let part = |name: &str| Part {
            name: name.into(),
            filename: None,
            content_type: None,
            content: PartContent::Image("1x1.png".parse().expect("a size")),
        };
        let body = Body::Multipart(vec![part("left"), part("right")]);
        let template = Template::new(&spec("http://web/", post(body))).expect("fine");
        let signature = b"\x89PNG\r\n\x1a\n";
        let mut files = std::collections::HashSet::new();
        for serial in 0..50 {
            let request = rendered(&template, serial);
            let starts = (0..request.len()).filter(|at| request[*at..].starts_with(signature));
            let end = |start: usize| {
                let length = request[start..].windows(4).position(|w| w == b"IEND").expect("an end");
                start + length
            };
            files.extend(starts.map(|start| request[start..end(start)].to_vec()));
        }
        assert_eq!(files.len(), 100);
    }

    #[test]
    fn redirects_keep_or_drop_the_body() {
        let template = Template::new(&spec("http://web/x", post(Body::Bytes("xy".into())))).expect("fine");
        let (original, mut out) = (rendered(&template, 0), Vec::new());
        template.render_redirect("/y", &original, false, &mut out);
        let text = String::from_utf8(out.clone()).expect("text");
        assert!(text.starts_with("GET /y HTTP/1.1\r\nHost: web\r\n") && text.ends_with("\r\n\r\n"), "{text}");
        assert!(!text.contains("Content-Length"), "{text}");
        template.render_redirect("/y", &original, true, &mut out);
        let text = String::from_utf8(out).expect("text");
        assert!(text.starts_with("POST /y HTTP/1.1\r\n") && text.ends_with("Length: 2\r\n\r\nxy"), "{text}");
    }

    #[test]
    fn requests_that_would_not_be_http_are_refused() {
        let header = |name: &str, value: &str| RequestSpec {
            headers: vec![(name.into(), value.into())],
            ..RequestSpec::default()
        };
        for request in [
            RequestSpec { method: "GE T".into(), ..RequestSpec::default() },
            RequestSpec { method: String::new(), ..RequestSpec::default() },
            header("a b", "c"),
            header("a", "b\r\nc: d"),
            header("", "x"),
            header("Content-Length", "5"),
            header("transfer-encoding", "chunked"),
        ] {
            assert!(Template::new(&spec("http://web/", request.clone())).is_err(), "{request:?}");
        }
    }
}

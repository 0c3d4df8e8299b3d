//! What a load is, and the check that it can be carried out.

use crate::error::LoadError;
use bytes::Bytes;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;
use throng_model::units::format_duration;
use url::Url;

/// Most connections of one load: a descriptor each, and a process seldom may have more.
pub const MAX_CONNECTIONS: u32 = 100_000;
/// Most intended requests per second; above it, the clock's own cost would be what is measured.
pub const MAX_RATE: f64 = 5_000_000.0;
/// Most threads of one load.
pub const MAX_THREADS: usize = 256;
/// Most pixels of a generated picture: the rows of a whole pool of them are kept in memory.
pub const MAX_PICTURE_PIXELS: u64 = 50_000_000;
/// How many due requests may wait for a free connection unless the spec says otherwise, 16 bytes each.
pub const DEFAULT_BACKLOG: usize = 1_000_000;
/// The time limit of one request unless the spec says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest load, pause and time limit.
pub const MAX_TIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Connections of an open loop by default.
pub const DEFAULT_CONNECTIONS: u32 = 1_000;
/// Descriptors of the process that a load leaves to the rest of it.
const SPARE_DESCRIPTORS: u64 = 64;

/// A load on one target. [`LoadSpec::new`] fills in everything that has a usual value.
#[derive(Debug, Clone)]
pub struct LoadSpec {
    /// `http` or `https`; path and query are sent as they are, a user and password become basic authentication.
    pub target: Url,
    /// Dial this instead of resolving the target's host. `Host` and TLS still name the target.
    pub connect_to: Option<SocketAddr>,
    pub schedule: Schedule,
    pub request: RequestSpec,
    /// For one request from the moment it is sent (dialling included) to the end of its last answer.
    pub timeout: Duration,
    /// 0 means half the cores, at least one, so that what is loaded on the same machine keeps the rest.
    pub threads: usize,
    /// Of the arrivals and the pictures; the same seed gives the same load.
    pub seed: u64,
    pub success: SuccessRule,
    /// How many redirects to the same origin are followed; the latency is that of the whole chain. With 0 a
    /// redirect is an answer like any other.
    pub follow_redirects: u8,
    /// HTTP/2, with prior knowledge over `http` (h2c) and by ALPN over `https`. One stream at a time on each
    /// connection; a `grpc-status` other than 0 is a failure. Redirects are not followed.
    pub http2: bool,
    pub tls: TlsRoots,
    /// Open loop: how many due requests may wait for a free connection; more are dropped and counted. The
    /// limit is for all threads together, but each waits for the connections of its own thread.
    pub backlog: usize,
    /// Seconds between the run's start and the load's, added to every time in the result.
    pub begin_offset: f64,
}

impl LoadSpec {
    /// `GET target` by `schedule`; 2xx and 3xx are success, 30 s are the limit.
    pub fn new(target: Url, schedule: Schedule) -> LoadSpec {
        LoadSpec {
            target,
            connect_to: None,
            schedule,
            request: RequestSpec::default(),
            timeout: DEFAULT_TIMEOUT,
            threads: 0,
            seed: 0,
            success: SuccessRule::default(),
            follow_redirects: 0,
            http2: false,
            tls: TlsRoots::System,
            backlog: DEFAULT_BACKLOG,
            begin_offset: 0.0,
        }
    }

    /// Threads that this load will use: never more than it has connections.
    pub fn effective_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = if self.threads == 0 { (cores / 2).max(1) } else { self.threads };
        wanted.min(self.schedule.connections() as usize).max(1)
    }

    /// Everything that can be known to be wrong before a connection is opened.
    pub fn check(&self) -> Result<(), LoadError> {
        if !matches!(self.target.scheme(), "http" | "https") {
            return Err(LoadError::spec(
                format!("cannot load {}: its scheme is neither http nor https", self.target),
                "write the target as http://HOST:PORT/PATH",
            ));
        }
        if self.target.host().is_none() {
            return Err(LoadError::spec(format!("{} names no host", self.target), "add one: http://HOST/"));
        }
        if self.timeout.is_zero() {
            return Err(LoadError::spec("a time limit of zero fails every request", "give a longer timeout"));
        }
        let think = match &self.schedule {
            Schedule::Closed { think, .. } => *think,
            Schedule::Open { .. } => Duration::ZERO,
        };
        let longest = self.timeout.max(think).max(self.schedule.duration().unwrap_or_default());
        if longest > MAX_TIME {
            return Err(LoadError::spec(
                format!("{} is too long for a load", format_duration(longest)),
                "durations, pauses and time limits end at 30 days",
            ));
        }
        if self.threads > MAX_THREADS {
            return Err(LoadError::spec(
                format!("{} threads are more than {MAX_THREADS}", self.threads),
                "use at most as many threads as there are cores",
            ));
        }
        if self.http2 && self.follow_redirects > 0 {
            return Err(LoadError::spec(
                "redirects are not followed over HTTP/2",
                "drop one of the two options",
            ));
        }
        if !(self.begin_offset.is_finite() && self.begin_offset >= 0.0) {
            return Err(LoadError::spec("the begin offset is not a time", "give seconds from 0 on"));
        }
        self.schedule.check()?;
        check_descriptors(self.schedule.connections())
    }
}

/// The most connections of an open loop that nobody has set: [`DEFAULT_CONNECTIONS`], or fewer where this process may
/// not open as many files.
pub fn default_connections() -> u32 {
    let allowed = open_files().saturating_sub(SPARE_DESCRIPTORS).max(1);
    u32::try_from(allowed).unwrap_or(u32::MAX).min(DEFAULT_CONNECTIONS)
}

fn open_files() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

fn check_descriptors(connections: u32) -> Result<(), LoadError> {
    let limit = open_files();
    let needed = u64::from(connections) + SPARE_DESCRIPTORS;
    if needed > limit {
        return Err(LoadError::spec(
            format!("{connections} connections need {needed} open files, and the limit is {limit}"),
            "raise it with `ulimit -n`, or use fewer clients",
        ));
    }
    Ok(())
}

/// When requests are sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// A fixed number of clients, each sending its next request when the one before is over.
    Closed {
        clients: u32,
        requests: Requests,
        /// Pause of a client between its requests, to the millisecond.
        think: Duration,
    },
    /// Requests are due at given times, whatever became of the ones before.
    Open { rate: f64, duration: Duration, arrivals: Arrivals, max_connections: u32 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Requests {
    PerClient(u64),
    /// Shared by all clients: who is free takes the next.
    Total(u64),
    /// New requests are sent for this long; those under way then are waited for.
    For(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrivals {
    /// Equally spaced.
    Constant,
    /// Independent: exponential gaps with mean 1/rate, from the seed.
    Poisson,
}

impl Schedule {
    /// Connections open at most at the same time.
    pub fn connections(&self) -> u32 {
        match self {
            Schedule::Closed { clients, requests: Requests::Total(total), .. } => {
                (*clients).min(u32::try_from(*total).unwrap_or(u32::MAX))
            }
            Schedule::Closed { clients, .. } => *clients,
            Schedule::Open { max_connections, .. } => *max_connections,
        }
    }

    /// How many requests will be made, where that is known beforehand.
    pub fn total(&self) -> Option<u64> {
        match self {
            Schedule::Closed { clients, requests: Requests::PerClient(n), .. } => {
                Some(u64::from(*clients).saturating_mul(*n))
            }
            Schedule::Closed { requests: Requests::Total(n), .. } => Some(*n),
            Schedule::Closed { requests: Requests::For(_), .. } => None,
            Schedule::Open { rate, duration, arrivals: Arrivals::Constant, .. } => {
                Some((rate * duration.as_secs_f64()).ceil() as u64)
            }
            Schedule::Open { .. } => None,
        }
    }

    /// For how long requests are sent, where that is known beforehand.
    pub fn duration(&self) -> Option<Duration> {
        match self {
            Schedule::Closed { requests: Requests::For(duration), .. } | Schedule::Open { duration, .. } => {
                Some(*duration)
            }
            Schedule::Closed { .. } => None,
        }
    }

    fn check(&self) -> Result<(), LoadError> {
        let connections = match self {
            Schedule::Closed { clients, .. } => *clients,
            Schedule::Open { max_connections, .. } => *max_connections,
        };
        if connections == 0 || connections > MAX_CONNECTIONS {
            return Err(LoadError::spec(
                format!("{connections} clients or connections are not between 1 and {MAX_CONNECTIONS}"),
                "for more, run several loads side by side",
            ));
        }
        match self {
            Schedule::Closed { requests: Requests::PerClient(0) | Requests::Total(0), .. } => {
                Err(LoadError::spec("a load of no requests measures nothing", "ask for at least one request"))
            }
            Schedule::Open { rate, .. } if !(rate.is_finite() && *rate > 0.0 && *rate <= MAX_RATE) => {
                Err(LoadError::spec(
                    format!("a rate of {rate} requests per second is not between 0 and {MAX_RATE}"),
                    "give a rate such as 200",
                ))
            }
            _ if self.duration().is_some_and(|duration| duration.is_zero()) => {
                Err(LoadError::spec("a load of no length measures nothing", "give a duration such as 10s"))
            }
            _ => Ok(()),
        }
    }
}

/// `closed: 10 clients × 100 requests`, `open: 200/s for 30s, poisson`.
impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Schedule::Closed { clients, requests, think } => {
                let plural = if *clients == 1 { "" } else { "s" };
                match requests {
                    Requests::PerClient(n) => write!(f, "closed: {clients} client{plural} × {n} requests")?,
                    Requests::Total(n) => write!(f, "closed: {clients} client{plural}, {n} requests in all")?,
                    Requests::For(duration) => {
                        write!(f, "closed: {clients} client{plural} for {}", format_duration(*duration))?;
                    }
                }
                if think.is_zero() { Ok(()) } else { write!(f, ", pause {}", format_duration(*think)) }
            }
            Schedule::Open { rate, duration, arrivals, .. } => {
                let arrivals = match arrivals {
                    Arrivals::Constant => "constant",
                    Arrivals::Poisson => "poisson",
                };
                write!(f, "open: {rate}/s for {}, {arrivals}", format_duration(*duration))
            }
        }
    }
}

/// One request, sent again and again.
#[derive(Debug, Clone)]
pub struct RequestSpec {
    pub method: String,
    /// `Host`, `User-Agent`, `Accept` and `Content-Type` replace the usual ones; `Content-Length` and
    /// `Transfer-Encoding` are refused, since they follow from the body.
    pub headers: Vec<(String, String)>,
    pub body: Body,
}

impl Default for RequestSpec {
    fn default() -> Self {
        RequestSpec { method: "GET".into(), headers: Vec::new(), body: Body::Empty }
    }
}

#[derive(Debug, Clone)]
pub enum Body {
    Empty,
    Bytes(Bytes),
    /// `multipart/form-data`, as a form in a page sends it.
    Multipart(Vec<Part>),
    /// The picture alone, as `image/jpeg` or `image/png`.
    Image(ImageSpec),
}

/// One field of a form.
#[derive(Debug, Clone)]
pub struct Part {
    pub name: String,
    pub filename: Option<String>,
    pub content_type: Option<String>,
    pub content: PartContent,
}

#[derive(Debug, Clone)]
pub enum PartContent {
    Bytes(Bytes),
    Image(ImageSpec),
}

/// A generated picture of random pixels; see [`crate::picture`] for how far two of them differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageSpec {
    pub width: u16,
    pub height: u16,
    pub format: ImageFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// Baseline, 4:2:0, quality 1 to 100.
    Jpeg {
        quality: u8,
    },
    Png,
}

impl ImageFormat {
    pub fn content_type(self) -> &'static str {
        match self {
            ImageFormat::Jpeg { .. } => "image/jpeg",
            ImageFormat::Png => "image/png",
        }
    }
}

/// `640x480`, `640x480.png`, `640x480.jpg`; JPEG of quality 85 unless told otherwise.
impl FromStr for ImageSpec {
    type Err = LoadError;

    fn from_str(text: &str) -> Result<Self, LoadError> {
        let wrong = || {
            LoadError::spec(
                format!("{text:?} is not a picture's size"),
                format!(
                    "write WIDTHxHEIGHT, as in 640x480 or 640x480.png: each from 1 to {}, and at most \
                     {MAX_PICTURE_PIXELS} pixels",
                    u16::MAX
                ),
            )
        };
        let (size, format) = match text.split_once('.') {
            None => (text, ImageFormat::Jpeg { quality: 85 }),
            Some((size, "jpg" | "jpeg")) => (size, ImageFormat::Jpeg { quality: 85 }),
            Some((size, "png")) => (size, ImageFormat::Png),
            Some(_) => return Err(wrong()),
        };
        let (width, height) = size.split_once(['x', '×']).ok_or_else(wrong)?;
        let spec = ImageSpec {
            width: width.parse().map_err(|_| wrong())?,
            height: height.parse().map_err(|_| wrong())?,
            format,
        };
        spec.check()?;
        Ok(spec)
    }
}

impl ImageSpec {
    pub(crate) fn check(&self) -> Result<(), LoadError> {
        let pixels = u64::from(self.width) * u64::from(self.height);
        if pixels == 0 || pixels > MAX_PICTURE_PIXELS {
            return Err(LoadError::spec(
                format!("{} × {} pixels are not between 1 and {MAX_PICTURE_PIXELS}", self.width, self.height),
                "choose another size",
            ));
        }
        match self.format {
            ImageFormat::Jpeg { quality } if !(1..=100).contains(&quality) => Err(LoadError::spec(
                format!("a JPEG quality of {quality} is not between 1 and 100"),
                "85 is usual",
            )),
            _ => Ok(()),
        }
    }
}

/// Which certificates an `https` target may show.
#[derive(Debug, Clone)]
pub enum TlsRoots {
    /// Those that the system trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured).
    System,
    /// Those signed by these authorities, in PEM.
    Pem(Bytes),
}

/// Which answers count as success.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuccessRule {
    ranges: Vec<RangeInclusive<u16>>,
}

impl Default for SuccessRule {
    fn default() -> Self {
        SuccessRule { ranges: vec![200..=399] }
    }
}

impl SuccessRule {
    pub fn accepts(&self, status: u16) -> bool {
        self.ranges.iter().any(|range| range.contains(&status))
    }
}

/// `2xx,3xx`, `200`, `200-299,404`.
impl FromStr for SuccessRule {
    type Err = LoadError;

    fn from_str(text: &str) -> Result<Self, LoadError> {
        let wrong = || {
            LoadError::spec(
                format!("{text:?} does not say which statuses are success"),
                "write statuses, classes or ranges, as in 2xx,304 or 200-299",
            )
        };
        let status =
            |text: &str| text.parse::<u16>().ok().filter(|s| (100..=599).contains(s)).ok_or_else(wrong);
        let range = |item: &str| match item.as_bytes() {
            [class @ b'1'..=b'5', b'x' | b'X', b'x' | b'X'] => {
                let first = u16::from(class - b'0') * 100;
                Ok(first..=first + 99)
            }
            _ => match item.split_once('-') {
                Some((from, to)) => Ok(status(from)?..=status(to)?)
                    .and_then(|range| if range.is_empty() { Err(wrong()) } else { Ok(range) }),
                None => status(item).map(|status| status..=status),
            },
        };
        let ranges = text.split(',').map(|item| range(item.trim())).collect::<Result<_, _>>()?;
        Ok(SuccessRule { ranges })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(clients: u32, requests: Requests) -> Schedule {
        Schedule::Closed { clients, requests, think: Duration::ZERO }
    }

    #[test]
    fn schedules_say_what_they_do() {
        let open = Schedule::Open {
            rate: 200.0,
            duration: Duration::from_secs(30),
            arrivals: Arrivals::Poisson,
            max_connections: 10,
        };
        let thinking = Schedule::Closed {
            clients: 1,
            requests: Requests::For(Duration::from_secs(90)),
            think: Duration::from_millis(200),
        };
        for (schedule, text) in [
            (closed(10, Requests::PerClient(100)), "closed: 10 clients × 100 requests"),
            (closed(1, Requests::Total(7)), "closed: 1 client, 7 requests in all"),
            (thinking, "closed: 1 client for 1m30s, pause 200ms"),
            (open, "open: 200/s for 30s, poisson"),
        ] {
            assert_eq!(schedule.to_string(), text);
        }
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        let url = |text: &str| Url::parse(text).expect("a URL");
        let open = |rate: f64, millis: u64, max_connections: u32| Schedule::Open {
            rate,
            duration: Duration::from_millis(millis),
            arrivals: Arrivals::Constant,
            max_connections,
        };
        let one = closed(1, Requests::Total(1));
        assert!(LoadSpec::new(url("http://a/"), one.clone()).check().is_ok());
        let endless = LoadSpec { timeout: Duration::MAX, ..LoadSpec::new(url("http://a/"), one.clone()) };
        assert!(endless.check().is_err());
        for (target, schedule) in [
            ("http://a/", closed(1, Requests::For(Duration::MAX))),
            ("http://a/", open(10.0, u64::MAX, 1)),
            ("ftp://a/", one.clone()),
            ("unix:/run/x", one),
            ("http://a/", closed(0, Requests::Total(1))),
            ("http://a/", closed(1, Requests::Total(0))),
            ("http://a/", closed(1, Requests::PerClient(0))),
            ("http://a/", closed(1, Requests::For(Duration::ZERO))),
            ("http://a/", closed(MAX_CONNECTIONS + 1, Requests::PerClient(1))),
            ("http://a/", open(0.0, 10, 1)),
            ("http://a/", open(-1.0, 10, 1)),
            ("http://a/", open(f64::NAN, 10, 1)),
            ("http://a/", open(f64::INFINITY, 10, 1)),
            ("http://a/", open(10.0, 0, 1)),
            ("http://a/", open(10.0, 10, 0)),
        ] {
            let refused = LoadSpec::new(url(target), schedule.clone()).check();
            assert!(
                refused.is_err_and(|e| e.hint().is_some()),
                "{target} {schedule:?} must be refused with a hint"
            );
        }
    }

    #[test]
    fn success_is_what_the_rule_says() {
        for (rule, status, success) in [
            ("2xx,3xx", 204, true),
            ("2xx,3xx", 302, true),
            ("2xx,3xx", 404, false),
            ("200", 201, false),
            ("200-299, 404", 404, true),
            ("2XX", 299, true),
        ] {
            let parsed: SuccessRule = rule.parse().expect(rule);
            assert_eq!(parsed.accepts(status), success, "{rule} {status}");
        }
        for rule in ["", "6xx", "2x", "99", "300-200", "200,,", "abc", "1000"] {
            assert!(rule.parse::<SuccessRule>().is_err(), "{rule}");
        }
    }

    #[test]
    fn picture_sizes_read_as_written() {
        for (text, width, height, format) in [
            ("640x480", 640, 480, ImageFormat::Jpeg { quality: 85 }),
            ("1x1.png", 1, 1, ImageFormat::Png),
            ("20×10.jpeg", 20, 10, ImageFormat::Jpeg { quality: 85 }),
        ] {
            assert_eq!(text.parse::<ImageSpec>().expect(text), ImageSpec { width, height, format });
        }
        for text in ["", "640", "0x10", "10x", "70000x1", "60000x60000", "1x1.gif", "-1x4"] {
            assert!(text.parse::<ImageSpec>().is_err(), "{text}");
        }
    }
}

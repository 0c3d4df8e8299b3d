//! What a load says.

use super::stage::{read_service, service_names};
use super::{Keys, LoadAction};
use crate::schema;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;
use throng_compose::yaml::{Findings, Node};
use throng_load::spec::{DEFAULT_TIMEOUT, MAX_RATE};
use throng_load::{Arrivals, ImageSpec, LoadError, Requests, Schedule, SuccessRule};
use throng_model::app::{App, Protocol};

/// Connections of an open loop unless the file says otherwise.
const CONNECTIONS: u32 = 256;

pub(super) fn read(node: &Node, app: &App, findings: &mut Findings) -> Option<LoadAction> {
    let mut keys = Keys::open(&schema::LOAD, node, findings)?;
    let target = read_target(&mut keys, app, findings);
    let schedule = read_schedule(&mut keys, findings);
    let request = read_request(&mut keys, findings);
    let warmup = keys.duration("warmup", findings).unwrap_or_default();
    let timeout = keys.duration("timeout", findings).unwrap_or(DEFAULT_TIMEOUT);
    if timeout.is_zero() {
        findings.error(keys.at("timeout"), "a time limit of 0 fails every request");
    }
    let follow_redirects = keys.count("follow_redirects", findings).unwrap_or(0);
    let success = keys.take("success").map(|node| read_as::<SuccessRule>(node, findings));
    let http2 = keys.take("http2").and_then(|node| node.boolean(findings)).unwrap_or_default();
    if http2 && follow_redirects > 0 {
        let hint = "remove one of the two";
        findings.error_with_hint(keys.at("http2"), "redirects are not followed over HTTP/2", hint);
    }
    keys.close(findings);
    let (service, port, url) = target?;
    let request = request?;
    Some(LoadAction {
        service,
        port,
        url,
        path: request.path,
        method: request.method,
        headers: request.headers,
        body: request.body,
        image: request.image,
        field: request.field,
        schedule: schedule?,
        warmup,
        timeout,
        follow_redirects,
        success: success.unwrap_or_else(|| Some(SuccessRule::default()))?,
        http2,
    })
}

type Target = (Option<String>, Option<u16>, Option<String>);

fn read_target(keys: &mut Keys<'_>, app: &App, findings: &mut Findings) -> Option<Target> {
    let at = &keys.node.position;
    let service = keys.take("service");
    let port: Option<u16> = keys.count("port", findings);
    let url = keys.take("url");
    match (service, url) {
        (None, None) => {
            let hint = format!("add service: with one of {}, or url:", service_names(app));
            findings.error_with_hint(at, "a load without a target", hint);
            None
        }
        (Some(_), Some(url)) => {
            findings.error_with_hint(&url.position, "a load goes to a service or to a url", "keep one");
            None
        }
        (None, Some(url)) => {
            for key in ["port", "path"] {
                if keys.node.get(key).is_some() {
                    let hint = format!("put the {key} into the url");
                    findings.error_with_hint(keys.at(key), format!("{key:?} does not go with \"url\""), hint);
                }
            }
            Some((None, None, Some(read_url(url, findings)?)))
        }
        (Some(node), None) => {
            let service = read_service(node, app, findings)?;
            let port = choose_port(keys, &service, port, app, findings)?;
            Some((Some(service), Some(port), None))
        }
    }
}

/// The TCP ports of a service that a load can go to: published, then exposed.
fn choose_port(
    keys: &Keys<'_>,
    service: &str,
    asked: Option<u16>,
    app: &App,
    findings: &mut Findings,
) -> Option<u16> {
    let definition = app.services.get(service)?;
    let published =
        definition.ports.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.target);
    let exposed =
        definition.expose.iter().filter(|port| port.protocol == Protocol::Tcp).map(|port| port.port);
    let mut known: Vec<u16> = published.chain(exposed).collect();
    known.sort_unstable();
    known.dedup();
    let list = known.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
    if let Some(port) = asked {
        if known.contains(&port) {
            return Some(port);
        }
        let hint = if known.is_empty() {
            format!("add \"{port}\" under ports or expose of {service} in the Compose file")
        } else {
            format!("it has {list}; the number is the one inside the service")
        };
        let message = format!("the service {service:?} neither publishes nor exposes port {port}");
        findings.error_with_hint(keys.at("port"), message, hint);
        return None;
    }
    match known[..] {
        [port] => Some(port),
        // The key is there but its value was refused.
        _ if keys.node.get("port").is_some() => None,
        [] => {
            let hint = "add the port under ports or expose in the Compose file";
            let message = format!("the service {service:?} neither publishes nor exposes a TCP port");
            findings.error_with_hint(keys.at("service"), message, hint);
            None
        }
        _ => {
            let message = format!("the service {service:?} has several ports: {list}");
            findings.error_with_hint(keys.at("service"), message, "say which with port:");
            None
        }
    }
}

/// An address with scheme and host.
pub(super) fn read_url(node: &Node, findings: &mut Findings) -> Option<String> {
    let text = node.nonempty(findings)?;
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let authority = host.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
    match authority {
        Some(host) if !host.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control()) => {
            Some(text.to_owned())
        }
        _ => {
            let hint = "write it as http://HOST:PORT/PATH";
            findings.error_with_hint(
                &node.position,
                format!("{text:?} is no address to send requests to"),
                hint,
            );
            None
        }
    }
}

fn read_schedule(keys: &mut Keys<'_>, findings: &mut Findings) -> Option<Schedule> {
    const ARRIVALS: [(&str, Arrivals); 2] =
        [("constant", Arrivals::Constant), ("poisson", Arrivals::Poisson)];
    let at = &keys.node.position;
    let clients = keys.count("clients", findings);
    let requests = keys.count("requests", findings);
    let think = keys.duration("think", findings);
    let rate_node = keys.take("rate");
    let duration_node = keys.take("duration");
    let arrivals = keys.take("arrivals").map(|node| node.choice(&ARRIVALS, findings));
    let connections = keys.count("connections", findings);
    let duration = duration_node.map(|node| node.duration(findings));
    if let (Some(node), Some(Some(Duration::ZERO))) = (duration_node, duration) {
        findings.error(&node.position, "a load of no length measures nothing");
    }
    let other_loop: &[&str] = match rate_node {
        Some(_) => &["clients", "requests", "think"],
        None => &["arrivals", "connections"],
    };
    for key in other_loop.iter().filter(|key| keys.node.get(key).is_some()) {
        let message = match rate_node {
            Some(_) => format!("{key:?} does not go with \"rate\""),
            None => format!("{key:?} goes only with \"rate\""),
        };
        let hint = "clients, requests and think make a closed loop; rate, duration, arrivals and connections an open one";
        findings.error_with_hint(keys.at(key), message, hint);
    }
    if let Some(node) = rate_node {
        let rate = read_rate(node, findings)?;
        let Some(duration) = duration else {
            findings.error_with_hint(
                &node.position,
                "\"rate\" without duration",
                "add duration: such as 30s",
            );
            return None;
        };
        let arrivals = arrivals.unwrap_or(Some(Arrivals::Constant))?;
        let max_connections = connections.unwrap_or(CONNECTIONS);
        return Some(Schedule::Open { rate, duration: duration?, arrivals, max_connections });
    }
    let requests = match (keys.node.get("requests"), duration) {
        (Some(_), Some(_)) => {
            findings.error(keys.at("requests"), "\"requests\" does not go with \"duration\"");
            return None;
        }
        (Some(_), None) => Requests::PerClient(requests?),
        (None, Some(duration)) => Requests::For(duration?),
        (None, None) => {
            let hint = "add requests: (of each client), or duration:, or rate: and duration:";
            findings.error_with_hint(at, "a load that does not say how much", hint);
            return None;
        }
    };
    let clients = if keys.node.get("clients").is_some() { clients? } else { 1 };
    Some(Schedule::Closed { clients, requests, think: think.unwrap_or_default() })
}

fn read_rate(node: &Node, findings: &mut Findings) -> Option<f64> {
    let what = "a number of requests per second above 0";
    let rate: f64 = node.number(what, findings)?;
    if rate > MAX_RATE {
        findings.error(&node.position, format!("a load sends at most {MAX_RATE} requests per second"));
    } else if rate.is_nan() || rate <= 0.0 {
        node.mismatch(what, findings);
        return None;
    }
    Some(rate)
}

struct Request {
    path: String,
    method: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
    image: Option<ImageSpec>,
    field: Option<String>,
}

fn read_request(keys: &mut Keys<'_>, findings: &mut Findings) -> Option<Request> {
    let path = keys.text("path", findings).unwrap_or("/").to_owned();
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        findings.error(keys.at("path"), "a path begins with / and has no spaces; write %20 for a space");
    }
    let body = keys.take("body").and_then(|node| node.text(findings)).map(str::to_owned);
    let image = keys.take("image").map(|node| read_as::<ImageSpec>(node, findings));
    let field = keys.text("field", findings).map(str::to_owned);
    if body.is_some() && image.is_some() {
        findings.error_with_hint(keys.at("body"), "a request has one body", "keep body or image");
    }
    if field.is_some() && image.is_none() {
        findings.error_with_hint(
            keys.at("field"),
            "\"field\" names the file of a form",
            "add image: with a size",
        );
    }
    let usual = if body.is_some() || image.is_some() { "POST" } else { "GET" };
    let method = keys.text("method", findings).unwrap_or(usual).to_owned();
    if !is_token(&method) {
        findings.error(keys.at("method"), format!("{method:?} is not a method of HTTP"));
    } else if method.to_ascii_uppercase() != method {
        let hint = format!("write {}", method.to_ascii_uppercase());
        findings.warn_with_hint(keys.at("method"), "methods of HTTP are upper case", hint);
    }
    let mut headers = Vec::new();
    if let Some(node) = keys.take("headers") {
        for entry in node.map(findings).unwrap_or_default() {
            let value = entry.value.text(findings).unwrap_or_default();
            if !is_token(&entry.key) || value.contains(|c: char| c.is_control() && c != '\t') {
                findings.error(&entry.key_at, format!("{:?} is not a header field", entry.key));
            }
            if entry.key.eq_ignore_ascii_case("content-length")
                || entry.key.eq_ignore_ascii_case("transfer-encoding")
            {
                let message = format!("{:?} follows from the body and cannot be given", entry.key);
                findings.error(&entry.key_at, message);
            }
            headers.push((entry.key.clone(), value.to_owned()));
        }
    }
    let image = match image {
        Some(image) => Some(image?),
        None => None,
    };
    Some(Request { path, method, headers, body, image, field })
}

/// A token of RFC 9110, section 5.6.2: a method or a field's name.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
}

/// A text that the load generator has a notation for.
fn read_as<T: FromStr<Err = LoadError>>(node: &Node, findings: &mut Findings) -> Option<T> {
    let text = node.nonempty(findings)?;
    text.parse().map_err(|e| report(&e, node, findings)).ok()
}

/// Says at `node` what the load generator has to say about it.
pub(super) fn report(error: &LoadError, node: &Node, findings: &mut Findings) {
    match error {
        LoadError::Spec { what, hint } => findings.error_with_hint(&node.position, what, hint.as_ref()),
        other => findings.error(&node.position, other.to_string()),
    }
}

impl fmt::Display for LoadAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.service.as_deref().or(self.url.as_deref()).unwrap_or_default();
        write!(f, "load {target}: {}", self.schedule)
    }
}

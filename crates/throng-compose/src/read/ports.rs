//! `ports` and `expose`.

use crate::keys::Section;
use crate::yaml::{Findings, Node, Position};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use throng_model::app::{ExposedPort, Port, Protocol};
use throng_model::diagnostic::Diagnostic;

/// Most ports of one service, published or exposed; each published one is a listening socket.
const MAX_PORTS: usize = 4096;
const HINT: &str = "write TARGET, PUBLISHED:TARGET or ADDRESS:PUBLISHED:TARGET, as in \"8080:80\"";

/// Reads `ports`; each port comes with its place.
pub(super) fn read(node: &Node, findings: &mut Findings) -> Vec<(Port, Position)> {
    let mut ports: Vec<(Port, Position)> = Vec::new();
    for item in node.list(findings).unwrap_or_default() {
        let read = match item.scalar() {
            Some(text) => match short(text) {
                Ok((ports, warning)) => {
                    if let Some(warning) = warning {
                        findings.warn(&item.position, warning);
                    }
                    ports
                }
                Err(why) => {
                    findings.error_with_hint(&item.position, why, HINT);
                    continue;
                }
            },
            None => long(item, findings).unwrap_or_default(),
        };
        if read.iter().any(|port| port.protocol == Protocol::Udp) {
            let hint =
                "replicas reach each other over UDP by name; from the host, use a replica's own address";
            findings.warn_with_hint(&item.position, "publishing a UDP port is not honoured yet", hint);
        }
        for port in read {
            add(port, &item.position, &mut ports, findings);
        }
        if ports.len() > MAX_PORTS {
            findings.error(&item.position, format!("more than {MAX_PORTS} ports in one service"));
            ports.clear();
            break;
        }
    }
    ports
}

/// A later file that repeats an entry changes it; within one file a repeated entry is a mistake.
fn add(port: Port, at: &Position, ports: &mut Vec<(Port, Position)>, findings: &mut Findings) {
    let same = |old: &Port| {
        (old.host_ip, old.published, old.target, old.protocol)
            == (port.host_ip, port.published, port.target, port.protocol)
    };
    match ports.iter_mut().find(|(old, _)| same(old)) {
        None => ports.push((port, at.clone())),
        Some(old) if old.1.file != at.file => *old = (port, at.clone()),
        Some((_, first)) if port.published.is_none() => {
            let message = format!("port {} is given twice", port.target);
            findings.push(
                Diagnostic::warning(message).at(at.location()).related(first.location(), "first given here"),
            );
        }
        // The check over all services reports it with both places.
        Some(_) => ports.push((port, at.clone())),
    }
}

type Ports = (Vec<Port>, Option<String>);

fn short(text: &str) -> Result<Ports, String> {
    let (rest, protocol) = match text.trim().rsplit_once('/') {
        Some((rest, protocol)) => (rest, parse_protocol(protocol)?),
        None => (text.trim(), Protocol::Tcp),
    };
    let (rest, target) = match rest.rsplit_once(':') {
        Some((rest, target)) => (Some(rest), target),
        None => (None, rest),
    };
    // An IPv6 address has colons of its own; only brackets tell it from the rest.
    let (address, published) = match rest {
        None => (None, None),
        Some(rest) if rest.starts_with('[') => {
            let (address, published) =
                rest[1..].split_once("]:").ok_or_else(|| format!("{text:?} is not a port mapping"))?;
            (Some(address), Some(published))
        }
        Some(rest) => match rest.rsplit_once(':') {
            Some((address, published)) => (Some(address), Some(published)),
            None => (None, Some(rest)),
        },
    };
    let host_ip = address.filter(|address| !address.is_empty()).map(parse_address).transpose()?;
    let published = published.filter(|published| !published.is_empty()).map(range).transpose()?;
    let template = Port { host_ip, published: None, target: 0, protocol, app_protocol: None };
    pair(published, range(target)?, template)
}

/// One port for each target of a range, with the published port that belongs to it.
fn pair(
    published: Option<RangeInclusive<u16>>,
    target: RangeInclusive<u16>,
    template: Port,
) -> Result<Ports, String> {
    let targets = usize::from(target.end() - target.start()) + 1;
    if targets > MAX_PORTS {
        return Err(format!("a range of {targets} ports is more than {MAX_PORTS}, the most of one service"));
    }
    let mut warning = None;
    if let Some(published) = &published {
        let width = usize::from(published.end() - published.start()) + 1;
        if targets == 1 && width > 1 {
            let first = published.start();
            warning = Some(format!("choosing from a range of host ports is not honoured yet; it is {first}"));
        } else if width != targets {
            return Err(format!("{width} published ports cannot stand for {targets} target ports"));
        }
    }
    let ports = target
        .zip(0..)
        .map(|(target, offset)| {
            let published = published.as_ref().map(|range| range.start() + offset);
            Port { published, target, ..template.clone() }
        })
        .collect();
    Ok((ports, warning))
}

fn long(node: &Node, findings: &mut Findings) -> Option<Vec<Port>> {
    let mut section = Section::open("services.*.ports.*", node, findings)?;
    let target = section.take("target");
    let published = section.take("published");
    let host_ip = section.take("host_ip");
    let protocol = section.take("protocol");
    let app_protocol = section.take("app_protocol").and_then(|node| node.nonempty(findings));
    section.close(findings);
    let Some(target) = target else {
        findings.error_with_hint(&node.position, "a port without target", "add target: with the port inside");
        return None;
    };
    let target = parsed(target, range, findings)?;
    let protocol = match protocol {
        Some(node) => parsed(node, parse_protocol, findings)?,
        None => Protocol::Tcp,
    };
    let host_ip = match host_ip {
        Some(node) => Some(parsed(node, parse_address, findings)?),
        None => None,
    };
    let published = match published {
        // Compose says so for "let the system choose", in both notations.
        Some(node) if matches!(node.scalar(), Some("" | "0")) => None,
        Some(node) => Some(parsed(node, range, findings)?),
        None => None,
    };
    let app_protocol = app_protocol.map(str::to_owned);
    match pair(published, target, Port { host_ip, published: None, target: 0, protocol, app_protocol }) {
        Ok((ports, warning)) => {
            if let Some(warning) = warning {
                findings.warn(&node.position, warning);
            }
            Some(ports)
        }
        Err(why) => {
            findings.error(&node.position, why);
            None
        }
    }
}

fn parsed<T>(node: &Node, parse: impl Fn(&str) -> Result<T, String>, findings: &mut Findings) -> Option<T> {
    let text = node.text(findings)?;
    parse(text).map_err(|why| findings.error(&node.position, why)).ok()
}

/// Reads `expose`: `3000`, `"8000/udp"`, `"9000-9010"`.
pub(super) fn read_exposed(node: &Node, findings: &mut Findings) -> Vec<ExposedPort> {
    let mut exposed: Vec<ExposedPort> = Vec::new();
    for item in node.list(findings).unwrap_or_default() {
        let read = |text: &str| {
            let (ports, protocol) = match text.trim().split_once('/') {
                Some((ports, protocol)) => (ports, parse_protocol(protocol)?),
                None => (text.trim(), Protocol::Tcp),
            };
            Ok((range(ports)?, protocol))
        };
        let Some((ports, protocol)) = parsed(item, read, findings) else { continue };
        if exposed.len() + usize::from(ports.end() - ports.start()) >= MAX_PORTS {
            findings.error(&item.position, format!("more than {MAX_PORTS} ports in one service"));
            break;
        }
        for port in ports.map(|port| ExposedPort { port, protocol }) {
            if !exposed.contains(&port) {
                exposed.push(port);
            }
        }
    }
    exposed
}

fn range(text: &str) -> Result<RangeInclusive<u16>, String> {
    let wrong = || format!("{text:?} is not a port: ports are numbers from 1 to 65535");
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(wrong);
    match text.split_once('-') {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => {
            let (first, last) = (port(first)?, port(last)?);
            if first > last {
                return Err(format!("the range {text} ends before it begins"));
            }
            Ok(first..=last)
        }
    }
}

fn parse_protocol(text: &str) -> Result<Protocol, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        _ => Err(format!("{text:?} is not a protocol that is supported: tcp or udp")),
    }
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an address of this host; write one like 127.0.0.1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &str) {
        let found = match short(text) {
            Err(why) => format!("error: {why}"),
            Ok((ports, warning)) => {
                let one = |port: &Port| {
                    let host = port.host_ip.map_or(String::new(), |ip| format!("{ip} "));
                    let published = port.published.map_or("?".to_owned(), |port| port.to_string());
                    format!(
                        "{host}{published}>{}{}",
                        port.target,
                        if port.protocol == Protocol::Udp { "u" } else { "" }
                    )
                };
                let ports: Vec<String> = ports.iter().map(one).collect();
                ports.join(" ") + warning.map_or("", |_| " warning")
            }
        };
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn short_syntax() {
        check("80", "?>80");
        check("8080:80", "8080>80");
        check("127.0.0.1:8080:80", "127.0.0.1 8080>80");
        check("127.0.0.1::80", "127.0.0.1 ?>80");
        check("[::1]:8080:80/udp", "::1 8080>80u");
        check("53:53/UDP", "53>53u");
        check("3000-3002", "?>3000 ?>3001 ?>3002");
        check("9090-9091:8080-8081", "9090>8080 9091>8081");
        check("9000-9005:80", "9000>80 warning");
    }

    #[test]
    fn wrong_mappings_say_why() {
        check("", "error: \"\" is not a port: ports are numbers from 1 to 65535");
        check("0:80", "error: \"0\" is not a port: ports are numbers from 1 to 65535");
        check("70000:80", "error: \"70000\" is not a port: ports are numbers from 1 to 65535");
        check("80:web", "error: \"web\" is not a port: ports are numbers from 1 to 65535");
        check("81-80:81-80", "error: the range 81-80 ends before it begins");
        check("1-2:1-3", "error: 2 published ports cannot stand for 3 target ports");
        check("80/sctp", "error: \"sctp\" is not a protocol that is supported: tcp or udp");
        check("host:80:80", "error: \"host\" is not an address of this host; write one like 127.0.0.1");
        check("[::1:80", "error: \"[::1:80\" is not a port mapping");
        check("1-65535", "error: a range of 65535 ports is more than 4096, the most of one service");
    }
}

//! `build` and `pull_policy` of a service: how its image comes to be here.

use super::{Context, Declared, host_path, names, sandbox, service};
use crate::keys::Section;
use crate::load::paths::is_remote;
use crate::yaml::{Entry, Findings, Node, nearest};
use std::collections::BTreeMap;
use std::time::Duration;
use throng_model::app::Build;
use throng_model::build::{BuildContext, BuildSecret, PullPolicy};
use throng_model::sandbox::Sandbox;
use throng_model::units::parse_duration;

/// Most elements of one list or mapping.
const MAX_ELEMENTS: usize = 1_000;
const DAY: Duration = Duration::from_secs(24 * 3600);
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

pub(super) fn read(
    node: &Node,
    context: &Context<'_>,
    declared: &Declared,
    findings: &mut Findings,
) -> Option<Build> {
    let mut section = Section::open("services.*.build", node, findings)?;
    let place = section.take("context");
    let dockerfile = section.take("dockerfile");
    let inline = section.take("dockerfile_inline");
    if let (Some(file), Some(_)) = (dockerfile, inline) {
        let hint = "keep one of dockerfile and dockerfile_inline";
        findings.error_with_hint(&file.position, "a build has one Dockerfile", hint);
    }
    let target = section.take("target").and_then(|node| node.nonempty(findings)).map(str::to_owned);
    let args = section.take("args").map(|node| service::variables(node, context, findings));
    let labels = section.take("labels").and_then(|node| node.text_map(findings)).unwrap_or_default();
    let mut flag = |key| section.take(key).and_then(|node| node.boolean(findings)).unwrap_or_default();
    let (no_cache, pull) = (flag("no_cache"), flag("pull"));
    let mut build = Build {
        inline: inline.and_then(|node| node.nonempty(findings)).map(str::to_owned),
        target,
        args: args.unwrap_or_default(),
        tags: section.take("tags").map(|node| tags(node, findings)).unwrap_or_default(),
        labels,
        no_cache,
        pull,
        ..Build::default()
    };
    if let Some(node) = section.take("additional_contexts") {
        build.contexts = contexts(node, context, declared, findings);
    }
    if let Some(node) = section.take("secrets") {
        build.secrets = secrets(node, declared, findings);
    }
    read_surroundings(&mut section, &mut build, findings);
    section.close(findings);
    let text = match place {
        Some(node) => {
            let text = node.nonempty(findings)?;
            if is_remote(text) {
                let message = "a build from a remote repository is not supported";
                findings.error_with_hint(&node.position, message, "clone it and name the folder");
                return None;
            }
            text
        }
        None => ".",
    };
    build.context = host_path(text, context);
    let dockerfile = dockerfile.and_then(|node| node.nonempty(findings)).unwrap_or("Dockerfile");
    build.dockerfile = super::clean(&build.context.join(dockerfile));
    Some(build)
}

/// What surrounds RUN.
fn read_surroundings(section: &mut Section<'_>, build: &mut Build, findings: &mut Findings) {
    let mut surroundings = Sandbox::default();
    if let Some(node) = section.take("extra_hosts") {
        surroundings.hosts = sandbox::hosts(node, findings);
    }
    if let Some(node) = section.take("ulimits") {
        surroundings.ulimits = sandbox::ulimits("services.*.build.ulimits.*", node, findings);
    }
    if let Some(node) = section.take("shm_size") {
        surroundings.shm_size = node.bytes(findings).filter(|bytes| *bytes > 0);
    }
    build.sandbox = surroundings;
    let Some(node) = section.take("network") else { return };
    match node.scalar() {
        Some("none") => build.offline = true,
        Some("host" | "default") => {}
        _ => {
            let hint = "a build step has the host's network (host, default), or none";
            let name = node.scalar().unwrap_or_default();
            findings.warn_with_hint(&node.position, format!("the network {name:?} has no effect"), hint);
        }
    }
}

fn tags(node: &Node, findings: &mut Findings) -> Vec<String> {
    let mut tags: Vec<String> = Vec::new();
    for item in limited(node, findings) {
        let Some(text) = item.nonempty(findings) else { continue };
        if !names::is_image(text) || text.contains('@') {
            let hint = "write [REGISTRY/]NAME[:TAG], with the name in lower case";
            findings.error_with_hint(&item.position, format!("{text:?} is no name for an image"), hint);
        } else if !tags.iter().any(|known| known == text) {
            tags.push(text.to_owned());
        }
    }
    tags
}

fn limited<'a>(node: &'a Node, findings: &mut Findings) -> &'a [Node] {
    let items = node.list(findings).unwrap_or_default();
    if items.len() > MAX_ELEMENTS {
        findings.error(&node.position, format!("more than {MAX_ELEMENTS} elements"));
        return &[];
    }
    items
}

fn contexts(
    node: &Node,
    context: &Context<'_>,
    declared: &Declared,
    findings: &mut Findings,
) -> BTreeMap<String, BuildContext> {
    let mut contexts = BTreeMap::new();
    for entry in node.map(findings).unwrap_or_default() {
        if let Some(source) = one_context(entry, context, declared, findings) {
            contexts.insert(entry.key.clone(), source);
        }
    }
    contexts
}

fn one_context(
    entry: &Entry,
    context: &Context<'_>,
    declared: &Declared,
    findings: &mut Findings,
) -> Option<BuildContext> {
    let node = &entry.value;
    let text = node.nonempty(findings)?;
    if let Some(image) = text.strip_prefix("docker-image://") {
        if !names::is_image(image) {
            findings.error(&node.position, format!("{image:?} is not an image reference"));
            return None;
        }
        return Some(BuildContext::Image(image.to_owned()));
    }
    if let Some(name) = text.strip_prefix("service:") {
        if !declared.services.contains(name) {
            let near = nearest(name, declared.services.iter().map(String::as_str));
            let hint =
                near.map_or("name a service of this app".into(), |near| format!("did you mean {near:?}?"));
            findings.error_with_hint(&node.position, format!("unknown service {name:?}"), hint);
            return None;
        }
        return Some(BuildContext::Service(name.to_owned()));
    }
    if is_remote(text) {
        let hint = "name a folder, docker-image://IMAGE or service:NAME";
        findings.error_with_hint(&node.position, format!("the context {text:?} is not supported"), hint);
        return None;
    }
    Some(BuildContext::Folder(host_path(text, context)))
}

fn secrets(node: &Node, declared: &Declared, findings: &mut Findings) -> Vec<BuildSecret> {
    let mut secrets: Vec<BuildSecret> = Vec::new();
    for item in limited(node, findings) {
        let Some(secret) = secret(item, declared, findings) else { continue };
        secrets.retain(|known| known.id != secret.id);
        secrets.push(secret);
    }
    secrets
}

fn secret(item: &Node, declared: &Declared, findings: &mut Findings) -> Option<BuildSecret> {
    let mut secret =
        BuildSecret { source: String::new(), id: String::new(), uid: None, gid: None, mode: None };
    let (source, target) = if item.scalar().is_some() {
        (Some(item), None)
    } else {
        let mut section = Section::open("services.*.build.secrets.*", item, findings)?;
        let (source, target) = (section.take("source"), section.take("target"));
        let mut id =
            |key| section.take(key).and_then(|node| node.number("the number of a user or group", findings));
        (secret.uid, secret.gid) = (id("uid"), id("gid"));
        secret.mode = section.take("mode").and_then(|node| super::files::mode(node, findings));
        section.close(findings);
        (source, target)
    };
    let Some(source) = source else {
        findings.error(&item.position, "expected a source, found none");
        return None;
    };
    secret.source = source.nonempty(findings)?.to_owned();
    if !declared.secrets.contains_key(&secret.source) {
        let near = nearest(&secret.source, declared.secrets.keys().map(String::as_str));
        let hint = match near {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("declare {} under the top-level secrets", secret.source),
        };
        findings.error_with_hint(&source.position, format!("unknown secret {:?}", secret.source), hint);
        return None;
    }
    secret.id = match target {
        Some(node) => node.nonempty(findings)?.to_owned(),
        None => secret.source.clone(),
    };
    Some(secret)
}

/// `pull_policy`, and `pull_refresh_after` for the one that asks for a time.
pub(super) fn read_pull_policy(section: &mut Section<'_>, findings: &mut Findings) -> PullPolicy {
    let policy = section.take("pull_policy");
    let after = section.take("pull_refresh_after");
    let given = after.and_then(|node| Some((node, period(node.text(findings)?))));
    let given = given.and_then(|(node, period)| {
        if period.is_none() {
            node.mismatch(PERIOD, findings);
        }
        period
    });
    let text = policy.and_then(|node| node.text(findings));
    if let (Some(after), true) = (after, text != Some("refresh")) {
        let hint = "write pull_policy: refresh beside it";
        findings.warn_with_hint(&after.position, "pull_refresh_after has no effect", hint);
    }
    let (Some(node), Some(text)) = (policy, text) else { return PullPolicy::Missing };
    let every = |text: &str| text.strip_prefix("every_").and_then(period);
    match text {
        "missing" | "if_not_present" => PullPolicy::Missing,
        "always" => PullPolicy::Always,
        "never" => PullPolicy::Never,
        "build" => PullPolicy::Build,
        "daily" => PullPolicy::Every(DAY),
        "weekly" => PullPolicy::Every(WEEK),
        "refresh" => {
            if after.is_none() {
                let hint = "add pull_refresh_after: with a time such as 12h";
                findings.error_with_hint(&node.position, "a policy of refreshing without a time", hint);
            }
            given.map_or(PullPolicy::Missing, PullPolicy::Every)
        }
        text => match every(text) {
            Some(period) => PullPolicy::Every(period),
            None => {
                const WORDS: &str = "one of always, missing, never, build, refresh, daily, weekly, every_ with a time such as every_12h";
                node.mismatch(WORDS, findings);
                PullPolicy::Missing
            }
        },
    }
}

const PERIOD: &str = "a time such as 12h, 3d or 2w";

/// A time in which days and weeks can stand, which durations elsewhere in the specification have not: `1w2d12h`.
fn period(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    for (letter, unit) in [('w', WEEK), ('d', DAY)] {
        if let Some((count, after)) = rest.split_once(letter) {
            let count: u32 = count.parse().ok()?;
            sum = sum.checked_add(unit.checked_mul(count)?)?;
            rest = after;
        }
    }
    if !rest.is_empty() {
        sum = sum.checked_add(parse_duration(rest).ok()?)?;
    }
    (sum > Duration::ZERO).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn periods_have_days_and_weeks() {
        for (text, time) in [
            ("12h", Some(12 * HOUR)),
            ("1d", Some(DAY)),
            ("2w", Some(2 * WEEK)),
            ("1w2d12h", Some(WEEK + 2 * DAY + 12 * HOUR)),
            ("90s", Some(Duration::from_secs(90))),
            ("", None),
            ("0s", None),
            ("d", None),
            ("1d2w", None),
            ("soon", None),
            ("4294967295w4294967295d", Some(4_294_967_295 * WEEK + 4_294_967_295 * DAY)),
            ("99999999999w", None),
        ] {
            assert_eq!(period(text), time, "{text}");
        }
    }
}

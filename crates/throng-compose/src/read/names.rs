//! Which names are good: projects, services, networks, volumes, hosts.

use crate::yaml::{Findings, Position};
use std::path::Path;

/// Longest name; it is a label of DNS names, where RFC 1035 allows 63 octets.
const MAX_NAME: usize = 63;

/// Checks a project name.
///
/// # Errors
/// The message says which rule is broken.
pub(crate) fn project(name: &str) -> Result<(), String> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.len() > MAX_NAME {
        return Err(format!("the project name is longer than {MAX_NAME} characters"));
    }
    match name.chars().next() {
        Some(first) if good(first) && name.chars().all(|c| good(c) || matches!(c, '-' | '_')) => Ok(()),
        _ => Err(format!("{name:?} is not a valid project name")),
    }
}

/// The project name of a folder: its own name without the characters that a project name cannot have.
pub(crate) fn project_name_from(directory: &Path) -> String {
    let folder = directory.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let good: String = folder
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .collect();
    let name: String = good.trim_start_matches(['-', '_']).chars().take(MAX_NAME).collect();
    if name.is_empty() { "app".into() } else { name }
}

/// Checks the name of a service, network or volume, with a finding when it is wrong.
pub(crate) fn check(what: &str, name: &str, at: &Position, findings: &mut Findings) {
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(good) {
        let hint = "use letters, digits, -, _ and .";
        findings.error_with_hint(at, format!("{name:?} is not a valid name of a {what}"), hint);
    } else if name.len() > MAX_NAME {
        let message = format!("the name of this {what} is longer than {MAX_NAME} characters");
        findings.error(at, message);
    }
}

/// Whether a host name follows RFC 1123: labels of letters, digits and hyphens, joined by dots.
pub(crate) fn is_host(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= MAX_NAME
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Whether an image reference can be one: `[host[:port]/]path[:tag][@digest]`.
pub(crate) fn is_image(reference: &str) -> bool {
    let (rest, digest) = match reference.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (reference, None),
    };
    let digest_good = digest.is_none_or(|digest| {
        digest.split_once(':').is_some_and(|(algorithm, hex)| {
            !algorithm.is_empty() && hex.len() >= 32 && hex.chars().all(|c| c.is_ascii_hexdigit())
        })
    });
    let last = rest.rsplit('/').next().unwrap_or(rest);
    let (name_end, tag) = match last.split_once(':') {
        Some((name, tag)) => (rest.len() - last.len() + name.len(), Some(tag)),
        None => (rest.len(), None),
    };
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let tag_good = tag.is_none_or(|tag| !tag.is_empty() && tag.len() <= 128 && tag.chars().all(word));
    let mut parts: Vec<&str> = rest[..name_end].split('/').collect();
    // The first part of several is a registry when it has a dot or a port, and may then have capital letters.
    if parts.len() > 1 && (parts[0].contains(['.', ':']) || parts[0] == "localhost") {
        let host = parts.remove(0);
        if !host.chars().all(|c| word(c) || matches!(c, ':' | '[' | ']')) {
            return false;
        }
    }
    let part_good =
        |part: &&str| !part.is_empty() && part.chars().all(|c| word(c) && !c.is_ascii_uppercase());
    digest_good && tag_good && parts.iter().all(part_good)
}

/// Whether a stop signal is a name that the kernel knows (with or without `SIG`) or a number from 1 to 64.
pub(crate) fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "IOT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
        "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU",
        "XFSZ", "VTALRM", "PROF", "WINCH", "PWR", "SYS",
    ];
    const LAST: u8 = 64;
    if let Ok(number) = text.parse::<u8>() {
        return (1..=LAST).contains(&number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |prefix: &str| name.strip_prefix(prefix).and_then(|n| n.parse::<u8>().ok());
    matches!(name, "IO" | "POLL" | "RTMIN" | "RTMAX")
        || NAMES.contains(&name)
        || real_time("RTMIN+").is_some_and(|n| n <= 30)
        || real_time("RTMAX-").is_some_and(|n| n <= 30)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn project_names() {
        for good in ["a", "0", "shop-1_b"] {
            assert_eq!(project(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "_a", "Shop", "a b", "ä", &"a".repeat(64)] {
            assert!(project(bad).is_err(), "{bad}");
        }
        for (folder, name) in [("/x/My Shop", "myshop"), ("/x/-_a", "a"), ("/", "app"), ("/x/äö", "app")] {
            assert_eq!(project_name_from(Path::new(folder)), name);
        }
    }

    #[test]
    fn image_references() {
        let digest = format!("a@sha256:{}", "0".repeat(64));
        for good in ["web", "a/b:1.0", "localhost:5000/web", "Reg.example:1/a/b_c:T", "[::1]:5000/a", &digest]
        {
            assert!(is_image(good), "{good}");
        }
        for bad in ["", "Web", "a b", "a:", "a/", "/a", "a@sha256:12", "a:b:c", "a//b", "ä"] {
            assert!(!is_image(bad), "{bad}");
        }
    }

    #[test]
    fn signals() {
        for good in ["SIGTERM", "term", "9", "64", "SIGRTMIN+3", "RTMAX-1", "SIGUSR1"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["", "0", "65", "SIGNOPE", "RTMIN+99", "SIG"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}

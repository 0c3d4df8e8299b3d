//! Names of images, read the way Docker reads them.

use crate::error::{ImageError, Result};
use oci_spec::distribution::Reference;

const DOCKER_HUB: &str = "docker.io";
const OFFICIAL: &str = "library/";

/// Reads `[registry/]repository[:tag][@digest]`; without registry `docker.io` (and `library/`) is meant, without
/// tag and digest `latest`.
pub fn parse_reference(text: &str) -> Result<Reference> {
    text.parse().map_err(|error: oci_spec::distribution::ParseError| ImageError::InvalidReference {
        reference: text.into(),
        reason: error.to_string(),
    })
}

/// The repository as people write it: `nginx` for `docker.io/library/nginx`.
pub fn familiar_repository(reference: &Reference) -> String {
    if reference.registry() != DOCKER_HUB {
        return format!("{}/{}", reference.registry(), reference.repository());
    }
    let repository = reference.repository();
    match repository.strip_prefix(OFFICIAL) {
        Some(short) if !short.contains('/') => short.into(),
        // Without its registry this one would read back as the name of a registry.
        _ if repository
            .split('/')
            .next()
            .is_some_and(|first| first == "localhost" || first.contains('.')) =>
        {
            format!("{DOCKER_HUB}/{repository}")
        }
        _ => repository.into(),
    }
}

/// The whole reference as people write it: `nginx:1.27`, `ghcr.io/a/b@sha256:…`.
pub fn familiar(reference: &Reference) -> String {
    let mut text = familiar_repository(reference);
    if let Some(tag) = reference.tag() {
        text.push(':');
        text.push_str(tag);
    }
    if let Some(digest) = reference.digest() {
        text.push('@');
        text.push_str(digest);
    }
    text
}

/// True for registries on this machine, which are reached by plain HTTP as Docker does.
pub(crate) fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) { host } else { registry }
    });
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_as_docker_reads_them() {
        for (text, canonical, short) in [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("a/b:1", "docker.io/a/b:1", "a/b:1"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("127.0.0.1:5000/x/y:t", "127.0.0.1:5000/x/y:t", "127.0.0.1:5000/x/y:t"),
            ("index.docker.io/library/nginx:1", "docker.io/library/nginx:1", "nginx:1"),
        ] {
            let reference = parse_reference(text).unwrap();
            assert_eq!(reference.to_string(), canonical);
            assert_eq!(familiar(&reference), short);
        }
        for text in ["", "UPPER", "a b", "x:", ":x", "a@sha256:12", "http://x/y", "../x", "a//b"] {
            assert!(parse_reference(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for yes in ["localhost", "localhost:5000", "127.0.0.1:1", "127.9.9.9"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["docker.io", "localhost.example.org", "10.0.0.1:5000", "128.0.0.1"] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(
            registry in "(([a-z]{1,8}\\.[a-z]{2,3})(:[0-9]{1,4})?/)?",
            repository in "[a-z0-9]{1,8}(/[a-z0-9]{1,8}){0,2}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?",
        ) {
            let reference = parse_reference(&format!("{registry}{repository}{tag}")).unwrap();
            prop_assert_eq!(&parse_reference(&reference.to_string()).unwrap(), &reference);
            prop_assert_eq!(&parse_reference(&familiar(&reference)).unwrap(), &reference);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _ = parse_reference(&text);
        }
    }
}

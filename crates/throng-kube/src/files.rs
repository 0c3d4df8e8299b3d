//! Contents: ConfigMaps and Secrets from `configs`, `secrets`, files of the host, and variables that nobody should read.

use crate::context::{Context, of_service};
use crate::findings::Findings;
use crate::labels;
use crate::object::{Notes, Object};
use crate::plan::Plans;
use crate::source::{HostFile, MAX_CONFIG_BYTES};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use throng_model::app::{FileKind, FileSource, Service};

/// The file that all Secrets are written to, so that it can be kept out of version control.
pub(crate) const SECRETS_FILE: &str = "secrets";
pub(crate) const CONFIGS_FILE: &str = "configs";

/// A name and what it holds.
pub(crate) type Contents = BTreeMap<String, Vec<u8>>;

/// Names that are taken and contents that are known, over the whole app.
pub(crate) struct Files {
    pub config_maps: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
    /// What each of them holds, for the hash by which pods are replaced when it changes.
    pub contents: BTreeMap<(FileKind, String), Contents>,
}

/// The ConfigMaps and Secrets of the file's own `configs` and `secrets`.
pub(crate) fn declared(
    cx: &Context<'_>,
    plans: &Plans<'_>,
    objects: &mut Vec<Object>,
    findings: &mut Findings<'_>,
) -> Files {
    let mut files =
        Files { config_maps: BTreeSet::new(), secrets: BTreeSet::new(), contents: BTreeMap::new() };
    for (kind, section, sources, names) in [
        (FileKind::Config, "configs", &cx.app.configs, &plans.names.configs),
        (FileKind::Secret, "secrets", &cx.app.secrets, &plans.names.secrets),
    ] {
        for (key, source) in sources {
            let Some(name) = names.get(key) else { continue };
            let Some(content) = content(cx, &[section, key], source, findings) else { continue };
            let contents = Contents::from([(data_key(key, source), content)]);
            let head = cx.origin_at(&[section, key], &format!("{section}.{key}"));
            objects.push(object(cx, kind, name, None, &contents, head));
            files.taken(kind).insert(name.clone());
            files.contents.insert((kind, name.clone()), contents);
        }
    }
    files
}

impl Files {
    pub fn taken(&mut self, kind: FileKind) -> &mut BTreeSet<String> {
        match kind {
            FileKind::Config => &mut self.config_maps,
            FileKind::Secret => &mut self.secrets,
        }
    }

    /// Makes an object with such contents, called `wish` or nearly so; the name that it got.
    pub fn add(
        &mut self,
        cx: &Context<'_>,
        (kind, wish): (FileKind, &str),
        service: &str,
        contents: Contents,
        head: Option<String>,
        objects: &mut Vec<Object>,
    ) -> String {
        let name = crate::names::free(wish, self.taken(kind));
        let mut made = object(cx, kind, &name, Some(service), &contents, head);
        if kind == FileKind::Config {
            made.file = service.to_owned();
        }
        objects.push(made);
        self.contents.insert((kind, name.clone()), contents);
        name
    }
}

fn content(
    cx: &Context<'_>,
    path: &[&str],
    source: &FileSource,
    findings: &mut Findings<'_>,
) -> Option<Vec<u8>> {
    let file = match source {
        FileSource::Content(text) => return within_limit(path, text.clone().into_bytes(), findings),
        FileSource::Environment { value, .. } => {
            return within_limit(path, value.clone().into_bytes(), findings);
        }
        FileSource::File(file) => file,
    };
    match cx.source.read(file) {
        Ok(HostFile::File(bytes)) => within_limit(path, bytes, findings),
        Ok(_) => {
            let message = format!("{} is no file of at most {MAX_CONFIG_BYTES} bytes", cx.shown(file));
            findings.error(path, message, "a cluster keeps no more in one object: use a volume for it");
            None
        }
        Err(error) => {
            let message = format!("cannot read {}: {error}", cx.shown(file));
            findings.error(path, message, "create it, or leave out what uses it");
            None
        }
    }
}

fn within_limit(path: &[&str], bytes: Vec<u8>, findings: &mut Findings<'_>) -> Option<Vec<u8>> {
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        let message = format!("{} bytes are more than the {MAX_CONFIG_BYTES} of one object", bytes.len());
        findings.error(path, message, "use a volume for it");
        return None;
    }
    Some(bytes)
}

/// The name of a config's content inside its object: that of its file, or its own.
pub(crate) fn data_key(key: &str, source: &FileSource) -> String {
    let file = match source {
        FileSource::File(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        _ => None,
    };
    to_data_key(&file.unwrap_or_else(|| key.to_owned()))
}

/// Keys of ConfigMaps hold letters, digits and `-_.`, 253 of them at most.
pub(crate) fn to_data_key(name: &str) -> String {
    let good = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
    let key: String = name.chars().take(253).map(good).collect();
    match key.as_str() {
        "" | "." | ".." => "content".to_owned(),
        _ => key,
    }
}

fn object(
    cx: &Context<'_>,
    kind: FileKind,
    name: &str,
    service: Option<&str>,
    contents: &Contents,
    head: Option<String>,
) -> Object {
    let metadata = labels::metadata(cx, name, service);
    let mut texts = BTreeMap::new();
    let mut binary = BTreeMap::new();
    for (key, bytes) in contents {
        match std::str::from_utf8(bytes) {
            Ok(text) => texts.insert(key.clone(), text.to_owned()).map(|_| ()),
            Err(_) => binary.insert(key.clone(), ByteString(bytes.clone())).map(|_| ()),
        };
    }
    let texts = (!texts.is_empty()).then_some(texts);
    let binary = (!binary.is_empty()).then_some(binary);
    match kind {
        FileKind::Config => {
            let map = ConfigMap { metadata, data: texts, binary_data: binary, ..ConfigMap::default() };
            Object::new(CONFIGS_FILE, &map, Notes::default(), head)
        }
        FileKind::Secret => {
            let type_ = Some("Opaque".to_owned());
            let secret = Secret { metadata, string_data: texts, data: binary, type_, ..Secret::default() };
            Object::new(SECRETS_FILE, &secret, Notes::default(), head)
        }
    }
}

/// What a bind mount holds if it is small enough to travel with the app. Folders of the system are the node's own.
pub(crate) fn of_host(cx: &Context<'_>, path: &Path) -> Option<HostFile> {
    const SYSTEM: [&str; 7] = ["/dev", "/proc", "/sys", "/run", "/var/run", "/var/lib", "/lib"];
    if SYSTEM.iter().any(|folder| path.starts_with(folder)) {
        return None;
    }
    cx.source.read(path).ok().filter(|file| *file != HostFile::Other)
}

/// Whether a file holds a key, a password or the like, by its name or content.
pub(crate) fn is_private(name: &str, bytes: &[u8]) -> bool {
    const ENDINGS: [&str; 6] = [".key", ".p12", ".pfx", ".jks", ".keystore", ".env"];
    const NAMES: [&str; 7] = ["id_rsa", "id_ecdsa", "id_ed25519", ".htpasswd", ".pgpass", ".netrc", ".npmrc"];
    const MARK: &[u8] = b"PRIVATE KEY-----";
    ENDINGS.iter().any(|ending| name.ends_with(ending))
        || NAMES.contains(&name)
        || bytes.windows(MARK.len()).any(|part| part == MARK)
}

/// Whether a variable holds something that a manifest in version control should not show.
pub(crate) fn is_sensitive(name: &str, value: &str) -> bool {
    const WORDS: [&str; 10] = [
        "PASSWORD",
        "PASSWD",
        "PASSPHRASE",
        "SECRET",
        "TOKEN",
        "API_KEY",
        "APIKEY",
        "ACCESS_KEY",
        "PRIVATE_KEY",
        "CREDENTIAL",
    ];
    let upper = name.to_ascii_uppercase();
    // The name of a file that holds it, or a switch, is none.
    const NOT: [&str; 3] = ["_FILE", "_PATH", "_DIR"];
    let switch =
        matches!(value.to_ascii_lowercase().as_str(), "" | "true" | "false" | "yes" | "no" | "0" | "1");
    let named = WORDS.iter().any(|word| upper.contains(word)) && !NOT.iter().any(|end| upper.ends_with(end));
    (named && !switch) || has_password(value)
}

/// `scheme://user:password@host`.
fn has_password(value: &str) -> bool {
    let Some((_, rest)) = value.split_once("://") else { return false };
    let Some((user, _)) = rest.split('/').next().unwrap_or(rest).rsplit_once('@') else { return false };
    user.split_once(':').is_some_and(|(_, password)| !password.is_empty())
}

/// The Secret of a service's sensitive variables: its name, if there are any.
pub(crate) fn secret_variables(
    cx: &Context<'_>,
    service: &Service,
    name: &str,
    files: &mut Files,
    objects: &mut Vec<Object>,
) -> Option<(String, BTreeSet<String>)> {
    let sensitive = service.environment.iter().filter(|(name, value)| is_sensitive(name, value));
    let contents: Contents =
        sensitive.map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    let contents: Contents = contents.into_iter().filter(|(key, _)| to_data_key(key) == *key).collect();
    if contents.is_empty() {
        return None;
    }
    let names = contents.keys().cloned().collect();
    let head = cx.origin_at(&of_service(&service.name, "environment"), "environment");
    let made = files.add(cx, (FileKind::Secret, &format!("{name}-env")), name, contents, head, objects);
    Some((made, names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_files_are_told_by_name_or_content() {
        for (name, content) in [("tls.key", ""), (".env", ""), ("a.pem", "-----BEGIN RSA PRIVATE KEY-----\n")]
        {
            assert!(is_private(name, content.as_bytes()), "{name}");
        }
        for (name, content) in
            [("a.pem", "-----BEGIN CERTIFICATE-----"), ("nginx.conf", "ssl_key x"), ("keys", "")]
        {
            assert!(!is_private(name, content.as_bytes()), "{name}");
        }
    }

    #[test]
    fn what_should_not_be_read_is_told_by_name_or_form() {
        for (name, value) in [
            ("POSTGRES_PASSWORD", "x"),
            ("api_key", "k"),
            ("URL", "postgres://a:b@db/x"),
            ("GITHUB_TOKEN", "t"),
        ] {
            assert!(is_sensitive(name, value), "{name}");
        }
        for (name, value) in [
            ("PASSWORD_FILE", "/run/secrets/x"),
            ("URL", "http://db:80/a@b"),
            ("USER", "me"),
            ("ALLOW_EMPTY_PASSWORD", "yes"),
            ("URL", "redis://:@db"),
        ] {
            assert!(!is_sensitive(name, value), "{name}={value}");
        }
    }
}

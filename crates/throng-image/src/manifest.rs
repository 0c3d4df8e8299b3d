//! Manifests and indexes as registries and archives hold them, Docker's schema 2 and OCI alike.

use crate::error::{ImageError, Result};
use crate::limits::{MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, check_layer_count, check_size};
use crate::platform::machine_architecture;
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageManifest, Os};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Every type of layer that [`crate::Store::layers`] can unpack; the compression is told by the content.
const LAYER_TYPES: [&str; 8] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
];
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// What a digest or a tag may lead to.
pub(crate) enum Document {
    /// With its media type: the one it names, or else the one it was announced with.
    Manifest(Box<ImageManifest>, String),
    Index(Box<ImageIndex>),
}

/// The fields that tell the kinds apart.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    schema_version: Option<u32>,
    media_type: Option<String>,
    manifests: Option<serde::de::IgnoredAny>,
}

/// Reads a manifest or an index and checks all that can be checked without its blobs.
pub(crate) fn parse(what: &str, bytes: &[u8]) -> Result<Document> {
    check_size(what, bytes.len() as u64, MAX_MANIFEST_BYTES)?;
    let damaged = |error: serde_json::Error| ImageError::corrupt(what, error);
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(damaged)?;
    if envelope.schema_version != Some(2) {
        return Err(ImageError::unsupported(
            what,
            "it is not of schema version 2; push the image again with a current tool",
        ));
    }
    if envelope.manifests.is_some() {
        return Ok(Document::Index(Box::new(serde_json::from_slice(bytes).map_err(damaged)?)));
    }
    let manifest: ImageManifest = serde_json::from_slice(bytes).map_err(damaged)?;
    check_layer_count(what, manifest.layers().len())?;
    let config_type = manifest.config().media_type().to_string();
    if !CONFIG_TYPES.contains(&config_type.as_str()) {
        return Err(ImageError::unsupported(what, format!("it is no container image but a {config_type}")));
    }
    check_size(&format!("the configuration of {what}"), manifest.config().size(), MAX_CONFIG_BYTES)?;
    for layer in manifest.layers() {
        crate::digest::hex_of(layer.digest().as_ref())?;
        let media_type = layer.media_type().to_string();
        if !LAYER_TYPES.contains(&media_type.as_str()) {
            return Err(ImageError::unsupported(what, format!("it has a layer of the type {media_type}")));
        }
    }
    crate::digest::hex_of(manifest.config().digest().as_ref())?;
    let docker = config_type == CONFIG_TYPES[1];
    let media_type =
        envelope.media_type.unwrap_or_else(|| if docker { DOCKER_MANIFEST } else { OCI_MANIFEST }.into());
    Ok(Document::Manifest(Box::new(manifest), media_type))
}

/// The entry for this machine.
pub(crate) fn choose<'a>(what: &str, index: &'a ImageIndex) -> Result<&'a Descriptor> {
    let wanted = Arch::from(machine_architecture());
    let platform = |entry: &Descriptor| entry.platform().clone();
    let fits = |entry: &&Descriptor| {
        platform(entry)
            .is_none_or(|platform| *platform.os() == Os::Linux && *platform.architecture() == wanted)
    };
    if let Some(entry) = index.manifests().iter().find(fits) {
        return Ok(entry);
    }
    // Build tools add entries about an image (attestations) with the platform unknown/unknown.
    let offered: Vec<String> = index
        .manifests()
        .iter()
        .filter_map(platform)
        .filter(|platform| platform.architecture().to_string() != "unknown")
        .map(|platform| format!("{}/{}", platform.os(), platform.architecture()))
        .collect();
    Err(ImageError::WrongArchitecture {
        image: what.into(),
        built_for: if offered.is_empty() { "nothing".into() } else { offered.join(", ") },
        machine: format!("linux/{}", machine_architecture()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_gives_the_entry_of_this_machine() {
        let entry = |architecture: &str, digit: &str| {
            format!(
                r#"{{"mediaType":"{OCI_MANIFEST}","size":1,"digest":"sha256:{}",
                "platform":{{"os":"linux","architecture":"{architecture}"}}}}"#,
                digit.repeat(64)
            )
        };
        let index = |entries: &[String]| {
            let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
            match parse("x", text.as_bytes()).unwrap() {
                Document::Index(index) => index,
                Document::Manifest(..) => panic!("taken for a manifest"),
            }
        };
        let all = index(&[entry("s390x", "1"), entry(machine_architecture(), "2"), entry("unknown", "3")]);
        assert!(choose("x", &all).unwrap().digest().to_string().ends_with("222"));
        let error = choose("x", &index(&[entry("s390x", "1"), entry("unknown", "3")])).unwrap_err();
        assert!(error.to_string().contains("built for linux/s390x"), "{error}");
    }

    #[test]
    fn what_is_no_image_is_named() {
        for (text, expected) in [
            (r#"{"schemaVersion":1}"#, "schema version 2"),
            ("{", "damaged"),
            (
                r#"{"schemaVersion":2,"config":{"mediaType":"application/vnd.helm","size":1,
                "digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000"},"layers":[]}"#,
                "no container image",
            ),
        ] {
            let error = parse("x", text.as_bytes()).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}

//! Registries: pull and push by the OCI distribution specification, through the `oci-client` crate, which speaks
//! it and its token authentication; this module adds what it leaves out: resuming, verification to disk,
//! credentials, limits, and errors that name things.

mod credentials;
mod pull;
mod push;

pub use pull::pull;
pub use push::push;

use crate::error::{ImageError, Result};
use crate::reference::{familiar, is_loopback};
use oci_client::client::{ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::{Client, Reference};
use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

/// Transfers of one pull or push at the same time.
pub const DEFAULT_PARALLEL_TRANSFERS: usize = 3;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Without a single byte in this time a transfer counts as broken.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Characters of a registry's own words that are passed on.
const MAX_REASON: usize = 300;

/// How to reach a registry.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Use HTTP without TLS. Registries on this machine are reached that way anyhow.
    pub insecure: bool,
    /// The folder of Docker's `config.json`; `None` is `$DOCKER_CONFIG` or `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Blobs in transfer at the same time; at least 1.
    pub parallel: usize,
}

pub type PullOptions = RegistryOptions;
pub type PushOptions = RegistryOptions;

impl Default for RegistryOptions {
    fn default() -> Self {
        RegistryOptions { insecure: false, docker_config: None, parallel: DEFAULT_PARALLEL_TRANSFERS }
    }
}

/// Something to show while blobs move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferEvent<'a> {
    /// `total` in bytes.
    Started {
        digest: &'a str,
        total: u64,
    },
    /// So many more bytes have moved.
    Advanced {
        digest: &'a str,
        bytes: u64,
    },
    /// The connection broke; the transfer goes on from `at` bytes.
    Resumed {
        digest: &'a str,
        at: u64,
    },
    Finished {
        digest: &'a str,
    },
    /// The other side has it already.
    Present {
        digest: &'a str,
    },
}

pub trait TransferProgress: Send + Sync {
    fn event(&self, event: TransferEvent<'_>);
}

impl TransferProgress for crate::build::Silent {
    fn event(&self, _event: TransferEvent<'_>) {}
}

/// A client for the registry of `reference`.
fn client(reference: &Reference, options: &RegistryOptions) -> Result<Client> {
    // As people write it; the one behind docker.io is called otherwise.
    let registry = reference.registry();
    // An error means that the process has chosen a provider before, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let refused = |error: &(dyn Error + 'static)| ImageError::Registry {
        registry: registry.into(),
        reason: chain(error),
    };
    // The client below builds one with default settings too and cannot report that this failed.
    reqwest::Client::builder().build().map_err(|error| refused(&error))?;
    let loopback = is_loopback(registry);
    let protocol = if options.insecure || loopback { ClientProtocol::Http } else { ClientProtocol::Https };
    let mut config = ClientConfig {
        protocol,
        use_monolithic_push: true,
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(READ_TIMEOUT),
        user_agent: concat!("throng/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    if loopback {
        // A proxy from the environment must not be asked for this machine's own addresses.
        config.http_proxy = ["http_proxy", "HTTP_PROXY"].iter().find_map(|name| std::env::var(name).ok());
        config.no_proxy = Some("localhost,127.0.0.0/8,::1".into());
    }
    Client::try_from(config).map_err(|error| refused(&error))
}

/// The client's error in this crate's words.
fn registry_error(reference: &Reference, error: OciDistributionError) -> ImageError {
    let registry = reference.registry().to_string();
    let unauthorized =
        || ImageError::Unauthorized { registry: registry.clone(), reference: familiar(reference) };
    let missing = || ImageError::NotInRegistry { registry: registry.clone(), what: familiar(reference) };
    let status = match &error {
        OciDistributionError::RequestError(error) => error.status().map(|status| status.as_u16()),
        OciDistributionError::ServerError { code, .. } => Some(*code),
        _ => None,
    };
    match &error {
        _ if matches!(status, Some(401 | 403)) => unauthorized(),
        _ if status == Some(404) => missing(),
        OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => {
            unauthorized()
        }
        OciDistributionError::ImageManifestNotFoundError(_) => missing(),
        OciDistributionError::RegistryError { envelope, .. } => {
            match envelope.errors.first().map(|first| &first.code) {
                Some(OciErrorCode::Unauthorized | OciErrorCode::Denied) => unauthorized(),
                Some(
                    OciErrorCode::ManifestUnknown
                    | OciErrorCode::NameUnknown
                    | OciErrorCode::BlobUnknown
                    | OciErrorCode::NotFound,
                ) => missing(),
                _ => ImageError::Registry { registry, reason: short(&envelope.to_string()) },
            }
        }
        OciDistributionError::DigestError(DigestError::VerificationError { expected, actual }) => {
            ImageError::DigestMismatch {
                what: format!("the manifest of {}", familiar(reference)),
                expected: expected.clone(),
                actual: actual.clone(),
            }
        }
        OciDistributionError::ServerError { code, message, .. } => ImageError::Registry {
            registry,
            reason: short(&format!("it answered with status {code}: {message}")),
        },
        OciDistributionError::RequestError(error) => {
            ImageError::Registry { registry, reason: short(&root(error)) }
        }
        _ => ImageError::Registry { registry, reason: short(&chain(&error)) },
    }
}

/// An error, what caused it, what caused that, and so on.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// What an error comes down to. Those around it of an HTTP client say at length that a request was sent.
fn root(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string()
}

/// An error and its causes in one line, each part once.
fn chain(error: &(dyn Error + 'static)) -> String {
    causes(error).map(ToString::to_string).fold(String::new(), |text, part| match text.as_str() {
        "" => part,
        said if said.contains(&part) => text,
        _ => format!("{text}: {part}"),
    })
}

fn short(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MAX_REASON {
        line
    } else {
        line.chars().take(MAX_REASON).chain(['…']).collect()
    }
}

//! Asking an endpoint over TLS: whom it is trusted by, and the handshake.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes of a file with certificates: hundreds of them.
const CERTIFICATES_MOST: u64 = 1 << 20;

/// Whom an endpoint is trusted by: the certificates of a file, or those that this host trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trust {
    pub ca: Option<PathBuf>,
}

impl Trust {
    /// Makes of a connection to a host one that is encrypted, and refuses a host that is not who it should be.
    pub async fn connect(&self, stream: TcpStream, host: &str) -> Result<TlsStream<TcpStream>, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} is no name that a certificate can have"))?;
        let ca = self.ca.clone();
        // Reads files.
        let config = tokio::task::spawn_blocking(move || config(ca.as_deref()));
        let config = config.await.map_err(|error| error.to_string())??;
        let connector = TlsConnector::from(config);
        connector.connect(name, stream).await.map_err(|error| format!("TLS: {error}"))
    }
}

/// A file is read each time: it may be replaced while the app is up.
fn config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    static HOST: OnceLock<Result<Arc<ClientConfig>, String>> = OnceLock::new();
    let Some(path) = ca else {
        let of_host = || {
            let mut roots = RootCertStore::empty();
            // Single certificates of a system's store may be unreadable; it is enough that there are others.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            trusting(roots).map_err(|error| format!("{error}: install ca-certificates, or name a ca"))
        };
        return HOST.get_or_init(of_host).clone();
    };
    from_file(path).and_then(trusting).map_err(|error| format!("{}: {error}", path.display()))
}

fn from_file(path: &Path) -> Result<RootCertStore, String> {
    let mut pem = Vec::new();
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    file.take(CERTIFICATES_MOST + 1).read_to_end(&mut pem).map_err(|error| error.to_string())?;
    if pem.len() as u64 > CERTIFICATES_MOST {
        return Err(format!("it is longer than {CERTIFICATES_MOST} bytes"));
    }
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

fn trusting(roots: RootCertStore) -> Result<Arc<ClientConfig>, String> {
    if roots.is_empty() {
        return Err("no certificate authority is known".into());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

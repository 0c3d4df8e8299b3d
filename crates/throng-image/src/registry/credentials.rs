//! Docker's own credentials: `config.json` with plain entries, helpers and stores.

use super::RegistryOptions;
use crate::error::{ImageError, Result};
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use oci_client::secrets::RegistryAuth;
use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::PathBuf;

/// The key under which Docker keeps what belongs to Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";

/// What Docker would use for this registry; nothing if it has nothing. May start a helper program and wait for it.
pub(super) fn credentials(registry: &str, options: &RegistryOptions) -> Result<RegistryAuth> {
    let Some(path) = config_file(options) else { return Ok(RegistryAuth::Anonymous) };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
        Err(error) => return Err(ImageError::io("read", &path)(error)),
    };
    let key = if matches!(registry, "docker.io" | "index.docker.io") { DOCKER_HUB_KEY } else { registry };
    let failed = |reason: String| ImageError::Credentials { registry: registry.into(), reason };
    match get_credential_from_reader(BufReader::new(file), key) {
        Ok(DockerCredential::UsernamePassword(user, password)) => Ok(RegistryAuth::Basic(user, password)),
        Ok(DockerCredential::IdentityToken(_)) => Err(failed(
            "identity tokens are not supported; log in with an access token as the password".into(),
        )),
        Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(RegistryAuth::Anonymous),
        // The helpers' way to say that they know nothing about this registry.
        Err(CredentialRetrievalError::HelperFailure { stdout, .. })
            if stdout.contains("credentials not found") =>
        {
            Ok(RegistryAuth::Anonymous)
        }
        Err(CredentialRetrievalError::HelperFailure { helper, stdout, .. }) => {
            Err(failed(format!("{helper} failed: {}", super::short(&stdout))))
        }
        Err(error) => Err(failed(format!("{}: {error}", path.display()))),
    }
}

fn config_file(options: &RegistryOptions) -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker"));
    let folder = options.docker_config.clone();
    let folder = folder.or_else(|| std::env::var_os("DOCKER_CONFIG").map(PathBuf::from)).or_else(home)?;
    Some(folder.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str, registry: &str) -> Result<RegistryAuth> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.json"), config).unwrap();
        let options = RegistryOptions { docker_config: Some(dir.path().into()), ..Default::default() };
        credentials(registry, &options)
    }

    #[test]
    fn entries_of_dockers_file() {
        // u:p and h:q
        let config = r#"{"auths":{"localhost:5000":{"auth":"dTpw"},"https://index.docker.io/v1/":{"auth":"aDpx"},
            "token.example":{"identitytoken":"t"},"bad.example":{"auth":"%%"}}}"#;
        let basic = |user: &str, password: &str| RegistryAuth::Basic(user.into(), password.into());
        assert!(read(config, "localhost:5000").unwrap() == basic("u", "p"));
        assert!(read(config, "docker.io").unwrap() == basic("h", "q"));
        assert!(read(config, "other.example").unwrap() == RegistryAuth::Anonymous);
        assert!(read(config, "token.example").is_err());
        assert!(read(config, "bad.example").is_err());
        assert!(read("{", "x").is_err());
    }

    #[test]
    fn no_file_is_no_credential() {
        let options = RegistryOptions { docker_config: Some("/nonexistent".into()), ..Default::default() };
        assert!(credentials("x", &options).unwrap() == RegistryAuth::Anonymous);
    }

    #[test]
    fn a_helper_that_is_missing_is_an_error() {
        let error =
            read(r#"{"credHelpers":{"x.example":"throng-no-such-helper"}}"#, "x.example").unwrap_err();
        assert!(matches!(error, ImageError::Credentials { .. }), "{error}");
    }
}

//! Login and logout: credentials are tried, and filed where docker files them.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::auth::Access;
use super::client::{Call, Registry};
use super::config::RegistryConfig;
use super::credentials::{Credential, CredentialFile, config_file, key_of, run_helper};
use super::endpoint::Endpoint;
use super::error::{RegistryError, one_line};
use crate::cancel::CancelToken;

/// Where credentials were put, or were taken away from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialPlace {
    /// A file, in which they are not encrypted.
    File(PathBuf),
    /// A helper program (`docker-credential-NAME`).
    Helper(String),
}

impl Registry {
    /// Checks that a registry can be reached and lets the client in, with what credentials there are.
    ///
    /// # Errors
    /// Those of reaching and being let into a registry.
    pub fn ping(&self, domain: &str, cancel: &CancelToken) -> Result<(), RegistryError> {
        let endpoint = Endpoint::upstream(domain, &self.inner.config);
        let access = Access::base(&endpoint);
        let call = Call::get(&endpoint, &access, "a greeting", String::new(), cancel);
        let response = self.inner.call(&call)?;
        match response.status() {
            200..=299 => Ok(()),
            _ => Err(call.refusal(response)),
        }
    }

    /// Tries credentials on a registry, and files them if they are right.
    ///
    /// They go to the helper that `config.json` names for the registry, else into the file itself, which is replaced in one step,
    /// keeps its other members, and can be read by its owner only.
    ///
    /// # Errors
    /// [`RegistryError::Refused`] if they are wrong, [`RegistryError::CredentialFile`] or
    /// [`RegistryError::CredentialHelper`] if they cannot be filed, and those of reaching a registry.
    pub fn login(
        &self,
        domain: &str,
        username: &str,
        password: &str,
        cancel: &CancelToken,
    ) -> Result<CredentialPlace, RegistryError> {
        if username.is_empty() || username.contains(':') {
            return Err(RegistryError::Config {
                what: "the user name".to_owned(),
                reason: "it is empty or has a colon".to_owned(),
            });
        }
        let file = credential_file(&self.inner.config)?;
        let credential = Credential::Password { username: username.to_owned(), password: password.to_owned() };
        let mut config = self.inner.config.clone();
        config.credentials.insert(domain.to_owned(), credential);
        Self::new(config).ping(domain, cancel)?;

        let known = CredentialFile::read(&file)?.unwrap_or_default();
        let place = if let Some(helper) = known.helper(domain) {
            let entry = serde_json::json!({"ServerURL": key_of(domain), "Username": username, "Secret": password});
            tell_helper(helper, "store", entry.to_string().as_bytes(), cancel)?;
            CredentialPlace::Helper(helper.to_owned())
        } else {
            let auth = STANDARD.encode(format!("{username}:{password}"));
            change(&file, |auths| {
                auths.insert(key_of(domain).to_owned(), serde_json::json!({ "auth": auth }));
            })?;
            CredentialPlace::File(file)
        };
        self.inner.forget_credentials();
        Ok(place)
    }

    /// Takes the credentials of a registry away; `None` if there were none.
    ///
    /// # Errors
    /// [`RegistryError::CredentialFile`] or [`RegistryError::CredentialHelper`].
    pub fn logout(&self, domain: &str, cancel: &CancelToken) -> Result<Option<CredentialPlace>, RegistryError> {
        let file = credential_file(&self.inner.config)?;
        let Some(known) = CredentialFile::read(&file)? else { return Ok(None) };
        let mut place = None;
        if let Some(helper) = known.helper(domain) {
            tell_helper(helper, "erase", key_of(domain).as_bytes(), cancel)?;
            place = Some(CredentialPlace::Helper(helper.to_owned()));
        }
        if known.has_entry(domain) {
            change(&file, |auths| {
                auths.remove(key_of(domain));
            })?;
            place.get_or_insert(CredentialPlace::File(file));
        }
        self.inner.forget_credentials();
        Ok(place)
    }
}

fn credential_file(config: &RegistryConfig) -> Result<PathBuf, RegistryError> {
    config_file(config).ok_or_else(|| RegistryError::Config {
        what: "credentials".to_owned(),
        reason: "there is no docker configuration directory to keep them in".to_owned(),
    })
}

fn tell_helper(helper: &str, verb: &str, input: &[u8], cancel: &CancelToken) -> Result<(), RegistryError> {
    match run_helper(helper, verb, input, cancel)? {
        Ok(_) => Ok(()),
        Err(message) if verb == "erase" && message.contains("credentials not found") => Ok(()),
        Err(message) => Err(RegistryError::CredentialHelper {
            helper: format!("docker-credential-{helper}"),
            reason: one_line(&message),
        }),
    }
}

/// Rewrites the `auths` of a `config.json`, keeping everything else in it.
fn change(file: &Path, edit: impl FnOnce(&mut Map<String, Value>)) -> Result<(), RegistryError> {
    let error = |reason: String| RegistryError::CredentialFile { path: file.to_owned(), reason };
    let io_error = |source: io::Error| error(source.to_string());
    let mut document: Map<String, Value> = match std::fs::read(file) {
        Ok(bytes) if bytes.trim_ascii().is_empty() => Map::new(),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|other| error(other.to_string()))?,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => Map::new(),
        Err(other) => return Err(io_error(other)),
    };
    let auths = document.entry("auths").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(auths) = auths else { return Err(error("its member `auths` is not an object".to_owned())) };
    edit(auths);
    // Whoever keeps the file elsewhere and links to it keeps the link.
    let target = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let directory = target.parent().unwrap_or(Path::new("/"));
    if !directory.exists() {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(io_error)?;
    }
    // Temporary files are made with mode 0600.
    let mut temporary = tempfile::NamedTempFile::new_in(directory).map_err(io_error)?;
    let mut bytes = serde_json::to_vec_pretty(&document).map_err(|other| error(other.to_string()))?;
    bytes.push(b'\n');
    temporary.write_all(&bytes).map_err(io_error)?;
    temporary.as_file().sync_all().map_err(io_error)?;
    temporary.persist(&target).map_err(|failed| io_error(failed.error))?;
    Ok(())
}

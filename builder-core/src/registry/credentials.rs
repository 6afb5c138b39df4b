//! [`Credential`], and where credentials are found: docker's `config.json`, files like it, helper programs.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use std::{fmt, io};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::config::RegistryConfig;
use super::error::{RegistryError, one_line};
use crate::cancel::CancelToken;

/// The user name by which helpers say that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// The longest that a helper program may take; it may ask a person to unlock a keyring.
const HELPER_PATIENCE: Duration = Duration::from_secs(120);

/// The largest file with credentials that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// What lets someone in. Its debug form shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password, or what passes for one.
    Password {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// A token that a token server exchanges for others (OAuth 2 refresh token).
    IdentityToken(String),
    /// A token that the registry takes as it is.
    RegistryToken(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => write!(f, "Password({username}, …)"),
            Self::IdentityToken(_) => f.write_str("IdentityToken(…)"),
            Self::RegistryToken(_) => f.write_str("RegistryToken(…)"),
        }
    }
}

/// The parts of a `config.json` that are about credentials.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct CredentialFile {
    auths: BTreeMap<String, AuthEntry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl fmt::Debug for AuthEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthEntry(…)")
    }
}

/// Finds the credential for a repository, in the order: given by the caller, `config.json`, the other files.
pub(super) fn find(
    config: &RegistryConfig,
    domain: &str,
    path: &str,
    cancel: &CancelToken,
) -> Result<Option<Credential>, RegistryError> {
    if let Some(given) = config.credentials.get(domain) {
        return Ok(Some(given.clone()));
    }
    let docker = config.docker_config.iter().map(|directory| directory.join("config.json"));
    for file in docker.chain(config.auth_files.iter().cloned()) {
        let Some(read) = CredentialFile::read(&file)? else { continue };
        if let Some(found) = read.find(&file, domain, path, cancel)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The key under which docker keeps the credentials of a registry.
pub(super) fn key_of(domain: &str) -> &str {
    if domain == "docker.io" { "https://index.docker.io/v1/" } else { domain }
}

impl CredentialFile {
    /// Reads a file; `None` if there is none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, RegistryError> {
        let error = |reason: String| RegistryError::CredentialFile { path: path.to_owned(), reason };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(missing) if matches!(missing.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(other) => return Err(error(other.to_string())),
        };
        let mut bytes = Vec::new();
        file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|other| error(other.to_string()))?;
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|other| error(other.to_string()))
    }

    /// The helper program that keeps the credentials of a registry, if one does.
    pub(super) fn helper(&self, domain: &str) -> Option<&str> {
        let own = names(domain).into_iter().find_map(|name| self.cred_helpers.get(name));
        own.or(self.creds_store.as_ref()).map(String::as_str).filter(|helper| !helper.is_empty())
    }

    /// Says whether the file itself has an entry that login would have written.
    pub(super) fn has_entry(&self, domain: &str) -> bool {
        self.auths.contains_key(key_of(domain))
    }

    fn find(
        &self,
        file: &Path,
        domain: &str,
        path: &str,
        cancel: &CancelToken,
    ) -> Result<Option<Credential>, RegistryError> {
        if let Some(helper) = self.helper(domain)
            && let Some(found) = ask_helper(helper, domain, cancel)?
        {
            return Ok(Some(found));
        }
        let Some((key, entry)) = self.entry(domain, path) else { return Ok(None) };
        entry.credential().map_err(|reason| RegistryError::CredentialFile {
            path: file.to_owned(),
            reason: format!("the entry `{}` {reason}", one_line(key)),
        })
    }

    /// The entry of the longest part of the repository's name, or of its registry.
    fn entry(&self, domain: &str, path: &str) -> Option<(&str, &AuthEntry)> {
        let mut scope = path;
        loop {
            for name in names(domain) {
                let wanted = if scope.is_empty() { name.to_owned() } else { format!("{name}/{scope}") };
                let found =
                    self.auths.iter().find(|(key, _)| **key == wanted || (scope.is_empty() && bare(key) == name));
                if let Some((key, entry)) = found {
                    return Some((key, entry));
                }
            }
            if scope.is_empty() {
                return None;
            }
            scope = scope.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }
}

impl AuthEntry {
    fn credential(&self) -> Result<Option<Credential>, &'static str> {
        let filled = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
        if let Some(token) = filled(&self.registrytoken) {
            return Ok(Some(Credential::RegistryToken(token)));
        }
        if let Some(token) = filled(&self.identitytoken) {
            return Ok(Some(Credential::IdentityToken(token)));
        }
        if let Some(auth) = filled(&self.auth) {
            let bytes = STANDARD.decode(auth.trim()).map_err(|_| "is not base64")?;
            let text = String::from_utf8(bytes).map_err(|_| "is not text")?;
            let (username, password) = text.split_once(':').ok_or("has no password")?;
            // Old versions of docker padded the password with zeros.
            return Ok(Some(password_or_token(username, password.trim_end_matches('\0'))));
        }
        match (filled(&self.username), filled(&self.password)) {
            (Some(username), Some(password)) => Ok(Some(password_or_token(&username, &password))),
            // `docker login` with a helper leaves an empty entry behind.
            _ => Ok(None),
        }
    }
}

fn password_or_token(username: &str, secret: &str) -> Credential {
    if username == TOKEN_USER {
        return Credential::IdentityToken(secret.to_owned());
    }
    Credential::Password { username: username.to_owned(), password: secret.to_owned() }
}

/// The names under which a registry's credentials may be filed.
fn names(domain: &str) -> Vec<&str> {
    match domain {
        "docker.io" => vec!["https://index.docker.io/v1/", "index.docker.io", "docker.io", "registry-1.docker.io"],
        other => vec![other],
    }
}

/// The host of a key that is written as an address: `https://r.example/v1/` is `r.example`.
fn bare(key: &str) -> &str {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    match rest {
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => key,
    }
}

fn ask_helper(helper: &str, domain: &str, cancel: &CancelToken) -> Result<Option<Credential>, RegistryError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let failed = |reason: String| RegistryError::CredentialHelper { helper: program(helper), reason };
    match run_helper(helper, "get", key_of(domain).as_bytes(), cancel)? {
        Ok(output) => {
            let answer: Answer =
                serde_json::from_slice(&output).map_err(|error| failed(format!("malformed answer: {error}")))?;
            if answer.secret.is_empty() {
                return Ok(None);
            }
            Ok(Some(password_or_token(&answer.username, &answer.secret)))
        }
        Err(message) if message.contains("credentials not found") => Ok(None),
        Err(message) => Err(failed(one_line(&message))),
    }
}

fn program(helper: &str) -> String {
    format!("docker-credential-{helper}")
}

/// Runs `docker-credential-HELPER VERB` with `input`; gives its output, or what it said when it failed.
pub(super) fn run_helper(
    helper: &str,
    verb: &str,
    input: &[u8],
    cancel: &CancelToken,
) -> Result<Result<Vec<u8>, String>, RegistryError> {
    let failed = |reason: String| RegistryError::CredentialHelper { helper: one_line(&program(helper)), reason };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !helper.bytes().all(plain) {
        return Err(failed("its name is not valid".to_owned()));
    }
    let mut child = Command::new(program(helper))
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input says why in its output.
        let _ = stdin.write_all(input);
    }
    // The answer is a few hundred bytes, which a pipe holds.
    let deadline = Instant::now() + HELPER_PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(|error| failed(error.to_string()))? {
            break status;
        }
        if cancel.is_cancelled() || Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            cancel.check()?;
            return Err(failed("it took too long".to_owned()));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut output = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(1 << 20).read_to_end(&mut output).map_err(|error| failed(error.to_string()))?;
    }
    Ok(if status.success() { Ok(output) } else { Err(String::from_utf8_lossy(&output).trim().to_owned()) })
}

/// Docker's `config.json`, where the caller allows it.
pub(super) fn config_file(config: &RegistryConfig) -> Option<PathBuf> {
    config.docker_config.as_ref().map(|directory| directory.join("config.json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{"auths":{
        "https://index.docker.io/v1/":{"auth":"aHViOnB3"},
        "r.example:5000":{"auth":"dTpwOnc="},
        "https://old.example/v1/":{"username":"u","password":"p"},
        "scoped.example":{"auth":"YWxsOng="},
        "scoped.example/team/app":{"auth":"dGVhbTp4"},
        "id.example":{"auth":"PHRva2VuPjp0b2s="},
        "oauth.example":{"auth":"","identitytoken":"refresh"},
        "bearer.example":{"registrytoken":"direct"},
        "empty.example":{},
        "bad.example":{"auth":"!!"}},
        "HttpHeaders":{"X":"y"}}"#;

    fn find_in(text: &str, domain: &str, path: &str) -> Result<Option<Credential>, RegistryError> {
        let directory = tempfile::tempdir().expect("temporary directory");
        std::fs::write(directory.path().join("config.json"), text).expect("written");
        let config = RegistryConfig { docker_config: Some(directory.path().to_owned()), ..RegistryConfig::default() };
        find(&config, domain, path, &CancelToken::new())
    }

    fn password(username: &str, password: &str) -> Credential {
        Credential::Password { username: username.to_owned(), password: password.to_owned() }
    }

    #[test]
    fn credentials_are_found_as_docker_and_podman_file_them() {
        for (domain, path, expected) in [
            ("docker.io", "library/app", Some(password("hub", "pw"))),
            ("r.example:5000", "a", Some(password("u", "p:w"))),
            ("r.example", "a", None),
            ("old.example", "a", Some(password("u", "p"))),
            ("scoped.example", "team/app/sub", Some(password("team", "x"))),
            ("scoped.example", "team/app2", Some(password("all", "x"))),
            ("id.example", "a", Some(Credential::IdentityToken("tok".to_owned()))),
            ("oauth.example", "a", Some(Credential::IdentityToken("refresh".to_owned()))),
            ("bearer.example", "a", Some(Credential::RegistryToken("direct".to_owned()))),
            ("empty.example", "a", None),
            ("none.example", "a", None),
        ] {
            assert_eq!(find_in(FILE, domain, path).expect(domain), expected, "{domain}/{path}");
        }
    }

    #[test]
    fn broken_files_are_named_and_secrets_are_not_shown() {
        let error = find_in(FILE, "bad.example", "a").expect_err("not base64");
        assert!(error.to_string().contains("`bad.example` is not base64"), "{error}");
        assert!(find_in("{", "r.example", "a").expect_err("no JSON").to_string().contains("config.json"));
        assert_eq!(find_in("", "r.example", "a").expect("an empty file is no file"), None);
        let shown = format!("{:?}", Some(password("user", "secret")));
        assert!(shown.contains("user") && !shown.contains("secret"), "{shown}");
    }

    #[test]
    fn a_helper_is_not_a_path() {
        let error = find_in(r#"{"credsStore":"../../bin/sh"}"#, "r.example", "a").expect_err("refused");
        assert!(matches!(error, RegistryError::CredentialHelper { .. }), "{error}");
        let error =
            find_in(r#"{"credHelpers":{"r.example":"does-not-exist"}}"#, "r.example", "a").expect_err("missing");
        assert!(error.to_string().contains("docker-credential-does-not-exist"), "{error}");
    }
}

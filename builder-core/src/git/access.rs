//! What git may see of the host, and how it proves who it is.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::Address;
use super::error::GitError;

/// What git sees of the host, given by the caller: this library does not read the environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitEnvironment {
    /// Variables: `PATH`, proxies, certificates. Others are taken as they are, so the caller chooses.
    pub variables: Vec<(OsString, OsString)>,
    /// The socket of the caller's ssh agent, for repositories that the caller named; a Dockerfile is not handed it.
    pub ssh_agent: Option<PathBuf>,
    /// A file with keys of ssh servers that count besides those which the store remembers.
    pub known_hosts: Option<PathBuf>,
}

/// How git proves who it is; nothing of it is stored.
#[derive(Clone, Default)]
pub struct GitAccess {
    /// The value of an `Authorization` header.
    authorization: Option<String>,
    /// The socket of an ssh agent.
    pub(super) ssh_agent: Option<PathBuf>,
}

impl std::fmt::Debug for GitAccess {
    /// Never shows the header.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitAccess").field("ssh_agent", &self.ssh_agent).finish_non_exhaustive()
    }
}

impl GitAccess {
    /// The keys of an agent, for addresses of ssh.
    pub fn with_agent(ssh_agent: Option<PathBuf>) -> Self {
        Self { authorization: None, ssh_agent }
    }

    /// Looks for the secrets that count for an address of http or https: `GIT_AUTH_HEADER.HOST`,
    /// `GIT_AUTH_TOKEN.HOST`, `GIT_AUTH_HEADER`, `GIT_AUTH_TOKEN`, the first that there is.
    ///
    /// # Errors
    /// What `secret` returns, and [`GitError::Secret`] for a value that is not one line of text.
    pub fn for_address<E: From<GitError>>(
        address: &Address,
        mut secret: impl FnMut(&str) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Self, E> {
        let mut access = Self::default();
        if !address.is_http() {
            return Ok(access);
        }
        let host = address.host();
        let names = [
            format!("GIT_AUTH_HEADER.{host}"),
            format!("GIT_AUTH_TOKEN.{host}"),
            "GIT_AUTH_HEADER".into(),
            "GIT_AUTH_TOKEN".into(),
        ];
        for name in names {
            let Some(value) = secret(&name)? else { continue };
            let value = String::from_utf8(value).unwrap_or_else(|_| "\0".to_owned());
            let value = value.trim();
            if value.chars().any(char::is_control) {
                return Err(GitError::Secret(name).into());
            }
            access.authorization = Some(if name.starts_with("GIT_AUTH_TOKEN") {
                format!("basic {}", STANDARD.encode(format!("x-access-token:{value}")))
            } else {
                value.to_owned()
            });
            break;
        }
        Ok(access)
    }

    /// Configuration for git, as a name and a value.
    pub(super) fn configuration(&self, address: &Address) -> Option<(String, String)> {
        if let Some(authorization) = &self.authorization {
            let name = format!("http.{}.extraheader", scope(address.remote()));
            return Some((name, format!("Authorization: {authorization}")));
        }
        address.credentials()?;
        let scheme = address.remote().split("://").next().unwrap_or_default();
        Some((format!("credential.{scheme}://{}.helper", address.host()), HELPER.to_owned()))
    }

    /// Variables for the helper of [`GitAccess::configuration`].
    pub(super) fn variables(address: &Address) -> Vec<(&'static str, &str)> {
        let Some(credentials) = address.credentials() else { return Vec::new() };
        vec![("RBUILD_GIT_USER", &credentials.user), ("RBUILD_GIT_PASSWORD", &credentials.password)]
    }
}

/// What git runs when a server asks who it is; the values are in variables, which other users cannot see.
const HELPER: &str =
    r#"!f() { test "$1" != get || { echo "username=$RBUILD_GIT_USER"; echo "password=$RBUILD_GIT_PASSWORD"; }; }; f"#;

/// Which addresses a token is sent to: that of the repository alone, but all of GitHub, as `actions/checkout` does it,
/// so that submodules there can be fetched too.
fn scope(remote: &str) -> &str {
    ["https://github.com/", "https://www.github.com/"]
        .into_iter()
        .find(|prefix| remote.starts_with(prefix))
        .unwrap_or(remote)
}

/// The command that git uses as ssh. No configuration of a user, no question to a terminal, no keys but the agent's;
/// a server that nobody has seen is remembered, one whose key changed is refused.
pub(super) fn ssh_command(environment: &GitEnvironment, remembered: &Path) -> OsString {
    let mut files = quoted(remembered.as_os_str());
    if let Some(known) = &environment.known_hosts {
        files.push(" ");
        files.push(quoted(known.as_os_str()));
    }
    let mut command = OsString::from(
        "ssh -F /dev/null -o BatchMode=yes -o StrictHostKeyChecking=accept-new -o IdentityFile=none -o UserKnownHostsFile=",
    );
    command.push(shell_quoted(&files));
    command
}

/// For ssh, which splits the value at blanks.
fn quoted(path: &OsStr) -> OsString {
    let mut out = OsString::from("\"");
    out.push(path);
    out.push("\"");
    out
}

/// For the shell that git runs the command with.
fn shell_quoted(text: &OsStr) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut out = vec![b'\''];
    for byte in text.as_bytes() {
        match byte {
            b'\'' => out.extend(b"'\\''"),
            byte => out.push(*byte),
        }
    }
    out.push(b'\'');
    OsString::from_vec(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(address: &str, secrets: &[(&str, &str)]) -> Result<Option<String>, GitError> {
        let address = Address::parse(address).expect("git").expect("valid");
        let find = |name: &str| {
            Ok(secrets.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_bytes().to_vec()))
        };
        let access = GitAccess::for_address::<GitError>(&address, find)?;
        Ok(access.configuration(&address).map(|(name, value)| format!("{name}={value}")))
    }

    #[test]
    fn the_most_exact_secret_counts() {
        let all = [("GIT_AUTH_TOKEN", "t"), ("GIT_AUTH_HEADER.h:1", "bearer x\n"), ("GIT_AUTH_TOKEN.h:1", "u")];
        let get = |address: &str, secrets| access(address, secrets).expect("valid").unwrap_or_default();
        let scope = "http.https://h:1/r.git.extraheader=Authorization: ";
        assert_eq!(get("https://h:1/r.git", &all), format!("{scope}bearer x"));
        assert_eq!(get("https://a:b@h:1/r.git", &all[2..]), format!("{scope}basic eC1hY2Nlc3MtdG9rZW46dQ=="));
        assert_eq!(
            get("https://github.com/o/r.git", &all),
            "http.https://github.com/.extraheader=Authorization: basic eC1hY2Nlc3MtdG9rZW46dA=="
        );
        assert_eq!(get("git@h:r", &all), "");
        assert!(get("https://a:b@h:1/r.git", &[]).starts_with("credential.https://h:1.helper=!f()"));
        assert!(!get("https://a:secret@h:1/r.git", &[]).contains("secret"));
        assert!(matches!(access("https://h/r.git", &[("GIT_AUTH_HEADER", "a\nb")]), Err(GitError::Secret(_))));
    }

    #[test]
    fn the_ssh_command_survives_the_shell() {
        let environment = GitEnvironment { known_hosts: Some("/home/o'neil/x".into()), ..GitEnvironment::default() };
        let command = ssh_command(&environment, Path::new("/s t/known"));
        let command = command.to_str().expect("text");
        assert!(command.ends_with(r#"UserKnownHostsFile='"/s t/known" "/home/o'\''neil/x"'"#), "{command}");
    }
}

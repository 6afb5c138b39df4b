//! [`Session`]: what every command starts from.

use std::path::PathBuf;

use builder_core::build::{Engine, EngineOptions};
use builder_core::content::ContentStore;
use builder_core::executor::enter_user_namespace;
use builder_core::git::GitEnvironment;
use builder_core::registry::{ProxyConfig, RegistryConfig};

use crate::args::GlobalArgs;
use crate::command_error::CommandError;
use crate::config_file::ConfigFile;
use crate::environment::Environment;
use crate::ui;

/// Files with the certificates of the system, by distribution.
const CA_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The environment, the configuration, and where the store is. Nothing is opened yet.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) environment: Environment,
    pub(crate) config: ConfigFile,
    global: GlobalArgs,
}

impl Session {
    /// Reads the environment and the configuration file.
    pub(crate) fn new(global: GlobalArgs) -> Result<Self, CommandError> {
        let environment = Environment::of_process()?;
        let config = ConfigFile::load(global.config.as_deref(), &environment)?;
        Ok(Self { environment, config, global })
    }

    /// Where the store is: `--root`, `RBUILD_ROOT`, the configuration file, or the default.
    pub(crate) fn root(&self) -> Result<PathBuf, CommandError> {
        if let Some(root) = &self.global.root {
            return Ok(self.environment.absolute(root));
        }
        match &self.config.root {
            Some(root) if self.environment.get_os("RBUILD_ROOT").is_none() => Ok(root.clone()),
            _ => self.environment.default_root(),
        }
    }

    /// Opens the images of the store.
    pub(crate) fn content(&self) -> Result<ContentStore, CommandError> {
        ContentStore::open(&self.root()?).map_err(|error| CommandError::diagnostic(&error))
    }

    /// Opens everything. An ordinary user becomes root of a user namespace first, so this comes before any thread.
    pub(crate) fn engine(&self) -> Result<Engine, CommandError> {
        if !self.environment.is_root() {
            let entered = enter_user_namespace().map_err(|error| CommandError::diagnostic(&error))?;
            if let Some(reason) = entered.single_id {
                ui::note(&format!("files of images have one owner here: {reason}"));
            }
        }
        let options = EngineOptions { state: self.root()?, registry: self.registry()?, git: self.git() };
        let engine = Engine::open(options).map_err(CommandError::from)?;
        Ok(engine.with_retention(self.config.history()?))
    }

    /// Opens the store to look things up; nothing runs and no image is unpacked, so an ordinary user needs no namespace.
    pub(crate) fn reader(&self) -> Result<Engine, CommandError> {
        let options = EngineOptions { state: self.root()?, registry: self.registry()?, git: self.git() };
        Engine::open(options).map_err(CommandError::from)
    }

    /// What git sees of the host: how to find programs, proxies and certificates, and the keys of ssh servers.
    fn git(&self) -> GitEnvironment {
        const NAMES: [&str; 15] = [
            "PATH",
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "no_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
            "NO_PROXY",
            "SSL_CERT_FILE",
            "SSL_CERT_DIR",
            "GIT_SSL_CAINFO",
            "GIT_SSL_CAPATH",
            "GIT_EXEC_PATH",
            "TMPDIR",
        ];
        let environment = &self.environment;
        let variable = |name: &str| Some((name.into(), environment.get_os(name)?.to_owned()));
        GitEnvironment {
            variables: NAMES.into_iter().filter_map(variable).collect(),
            ssh_agent: environment.get_os("SSH_AUTH_SOCK").map(PathBuf::from),
            known_hosts: environment.home().map(|home| home.join(".ssh/known_hosts")),
        }
    }

    /// What the registry client may know.
    pub(crate) fn registry(&self) -> Result<RegistryConfig, CommandError> {
        let environment = &self.environment;
        let mut registry = RegistryConfig {
            docker_config: environment.docker_config(),
            auth_files: environment.auth_files(),
            ca_files: environment
                .get_os("SSL_CERT_FILE")
                .map_or_else(|| CA_FILES.map(PathBuf::from).to_vec(), |file| vec![PathBuf::from(file)]),
            certificate_directories: ["/etc/docker/certs.d", "/etc/containers/certs.d"].map(PathBuf::from).to_vec(),
            proxy: proxies(environment),
            ..RegistryConfig::default()
        };
        let variable = environment.get("RBUILD_REGISTRY_MIRROR").unwrap_or_default();
        let variable = variable.split([',', ' ']).filter(|text| !text.is_empty()).map(str::to_owned);
        for text in self.global.registry_mirror.iter().cloned().chain(variable) {
            let (domain, address) = mirror(&text)?;
            registry.mirrors.entry(domain).or_default().push(address);
        }
        for (domain, addresses) in &self.config.registry_mirrors {
            registry.mirrors.entry(domain.clone()).or_default().extend(addresses.iter().cloned());
        }
        registry.insecure =
            self.global.insecure_registry.iter().chain(&self.config.insecure_registries).cloned().collect();
        Ok(registry)
    }
}

/// `docker.io=http://127.0.0.1:5001`; without a registry it is one for docker.io.
fn mirror(text: &str) -> Result<(String, String), CommandError> {
    let (domain, address) = match text.split_once('=') {
        Some((domain, address)) if !domain.contains('/') => (domain, address),
        _ => ("docker.io", text),
    };
    if domain.is_empty() || address.is_empty() {
        return Err(CommandError::usage(format!("registry mirror `{text}` is not of the form `REGISTRY=ADDRESS`")));
    }
    Ok((domain.to_owned(), address.to_owned()))
}

fn proxies(environment: &Environment) -> ProxyConfig {
    let either =
        |name: &str| environment.get(&name.to_lowercase()).or_else(|| environment.get(name)).map(str::to_owned);
    let all = either("ALL_PROXY");
    ProxyConfig {
        http: either("HTTP_PROXY").or_else(|| all.clone()),
        https: either("HTTPS_PROXY").or(all),
        no_proxy: either("NO_PROXY")
            .map(|list| list.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()).collect())
            .unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_names_its_registry_or_is_one_for_docker_io() {
        let check = |text: &str, expected: Option<(&str, &str)>| {
            let found = mirror(text).ok();
            assert_eq!(found.as_ref().map(|(domain, address)| (domain.as_str(), address.as_str())), expected, "{text}");
        };
        check("docker.io=http://127.0.0.1:5001", Some(("docker.io", "http://127.0.0.1:5001")));
        check("ghcr.io=mirror.example/ghcr", Some(("ghcr.io", "mirror.example/ghcr")));
        check("http://127.0.0.1:5001", Some(("docker.io", "http://127.0.0.1:5001")));
        check("http://127.0.0.1:5001/?a=b", Some(("docker.io", "http://127.0.0.1:5001/?a=b")));
        check("=x", None);
        check("docker.io=", None);
    }
}

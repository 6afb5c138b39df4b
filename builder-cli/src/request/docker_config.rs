//! Proxies of docker's `config.json`: docker's client passes these to builds, and none of its own environment.

use serde::Deserialize;
use std::collections::BTreeMap;

use crate::environment::Environment;

#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    proxies: BTreeMap<String, Proxies>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
#[expect(clippy::struct_field_names, reason = "docker's names")]
struct Proxies {
    http_proxy: Option<String>,
    https_proxy: Option<String>,
    no_proxy: Option<String>,
    ftp_proxy: Option<String>,
    all_proxy: Option<String>,
}

/// Build arguments of `proxies.default`, in both spellings. A file that cannot be read has none: the library reports it
/// when it needs credentials.
pub(super) fn proxies(environment: &Environment) -> BTreeMap<String, String> {
    let config = environment
        .docker_config()
        .and_then(|directory| std::fs::read(directory.join("config.json")).ok())
        .and_then(|text| serde_json::from_slice::<DockerConfig>(&text).ok())
        .unwrap_or_default();
    let Some(proxies) = config.proxies.get("default") else { return BTreeMap::new() };
    let all = [
        ("HTTP_PROXY", &proxies.http_proxy),
        ("HTTPS_PROXY", &proxies.https_proxy),
        ("NO_PROXY", &proxies.no_proxy),
        ("FTP_PROXY", &proxies.ftp_proxy),
        ("ALL_PROXY", &proxies.all_proxy),
    ];
    all.into_iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)))
        .flat_map(|(name, value)| [(name.to_owned(), value.clone()), (name.to_lowercase(), value.clone())])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_come_from_dockers_file_only() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let text = r#"{"auths": {}, "proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "x"}}}"#;
        std::fs::write(directory.path().join("config.json"), text).expect("written");
        let path = directory.path().to_str().expect("text");
        let found = proxies(&Environment::with(&[("DOCKER_CONFIG", path), ("HTTPS_PROXY", "http://mine")]));
        let names: Vec<_> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["HTTP_PROXY", "NO_PROXY", "http_proxy", "no_proxy"]);
    }
}

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::diagnostic::Diagnostic;

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

fn with_password(server: &Server) -> RegistryConfig {
    let credential = Credential::Password { username: "me".to_owned(), password: "secret".to_owned() };
    RegistryConfig { credentials: [(server.host(), credential)].into(), ..quick() }
}

/// `me:secret` in base64.
const BASIC: &str = "Basic bWU6c2VjcmV0";

fn bearer_challenge(realm: &str) -> Reply {
    let challenge = format!(r#"Bearer realm="{realm}",service="the registry",scope="repository:team/app:pull""#);
    Reply::new(401).header("www-authenticate", challenge)
}

fn manifest() -> Reply {
    Reply::ok("{}").header("content-type", MANIFEST_TYPE)
}

#[test]
fn a_password_is_sent_when_asked_for_and_from_then_on_at_once() {
    let server = Server::new(|seen, _| match seen.header("authorization") {
        Some(BASIC) => manifest(),
        _ => Reply::new(401).header("www-authenticate", r#"Basic realm="r""#),
    });
    let registry = Registry::new(with_password(&server));
    registry.resolve(&image(&server), &never()).expect("let in");
    registry.resolve(&image(&server), &never()).expect("let in");
    assert_eq!(server.lines().len(), 3);
    let error = client().resolve(&image(&server), &never()).expect_err("no password");
    assert_eq!(
        error.to_string(),
        format!("registry `{}` wants credentials for `team/app`, or there is no such image", server.host())
    );
    assert!(error.hint().expect("a hint").contains(&format!("`rbuild login {}`", server.host())));
    let server = Server::new(|_, _| Reply::new(401).header("www-authenticate", "Basic"));
    let error = Registry::new(with_password(&server)).resolve(&image(&server), &never()).expect_err("wrong password");
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
    assert_eq!(server.lines().len(), 2, "a wrong password is not sent again and again");
}

/// A registry with its token server; tokens are `t1`, `t2`, …, and only `valid` ones are accepted.
fn token_registry(valid: &'static [&'static str]) -> Server {
    let given = std::sync::atomic::AtomicUsize::new(0);
    Server::new(move |seen, _| {
        if seen.target.starts_with("/token") {
            let number = given.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
            return Reply::ok(format!(r#"{{"token":"t{number}","expires_in":300}}"#));
        }
        match seen.header("authorization").and_then(|header| header.strip_prefix("Bearer ")) {
            Some(token) if valid.contains(&token) => manifest(),
            _ => bearer_challenge(&format!("http://{}/token", seen.header("host").expect("a host"))),
        }
    })
}

#[test]
fn a_token_is_fetched_for_the_scope_and_kept() {
    let server = token_registry(&["t1"]);
    let registry = Registry::new(with_password(&server));
    registry.resolve(&image(&server), &never()).expect("let in");
    registry.resolve(&image(&server), &never()).expect("let in");
    let lines = server.lines();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert_eq!(lines[1], "GET /token?service=the%20registry&scope=repository%3Ateam%2Fapp%3Apull&account=me");
    let seen = server.seen();
    assert_eq!(seen[1].header("authorization"), Some(BASIC));
    assert_eq!(seen[0].header("authorization"), None);
}

#[test]
fn a_token_that_ended_is_replaced_once() {
    // The first token is refused from the start, as if it had ended on the way.
    let server = token_registry(&["t2"]);
    let registry = client();
    let error = registry.resolve(&image(&server), &never()).expect_err("t1 is refused");
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    registry.resolve(&image(&server), &never()).expect("t1 is dropped and t2 is taken");
    assert_eq!(server.lines().iter().filter(|line| line.contains("/token")).count(), 2);
}

#[test]
fn a_password_does_not_go_to_another_host() {
    let tokens = Server::new(|_, _| Reply::ok(r#"{"access_token":"anonymous"}"#));
    // The same machine under another name: a name is what a registry can make up.
    let realm = format!("http://localhost:{}/token", tokens.port());
    let server = Server::new(move |_, _| bearer_challenge(&realm));
    let error = Registry::new(with_password(&server)).resolve(&image(&server), &never()).expect_err("not let in");
    assert_eq!(tokens.seen()[0].header("authorization"), None, "E-13");
    assert!(!tokens.lines()[0].contains("account"), "{:?}", tokens.lines());
    assert!(error.hint().expect("a hint").contains(&format!("localhost:{}", tokens.port())), "{error:?}");
    let config = RegistryConfig { token_hosts: ["localhost".to_owned()].into(), ..with_password(&server) };
    let _ = Registry::new(config).resolve(&image(&server), &never());
    assert_eq!(tokens.seen()[1].header("authorization"), Some(BASIC));
}

#[test]
fn an_identity_token_is_exchanged_and_a_registry_token_is_used_as_it_is() {
    let server = token_registry(&["t1", "direct"]);
    let with = |credential| RegistryConfig { credentials: [(server.host(), credential)].into(), ..quick() };
    let identity = Registry::new(with(Credential::IdentityToken("re fresh".to_owned())));
    identity.resolve(&image(&server), &never()).expect("let in");
    let exchange = &server.seen()[1];
    assert_eq!(exchange.line(), "POST /token");
    assert_eq!(
        String::from_utf8_lossy(&exchange.body),
        "grant_type=refresh_token&service=the%20registry&client_id=rbuild&scope=repository%3Ateam%2Fapp%3Apull&refresh_token=re%20fresh"
    );
    let direct = Registry::new(with(Credential::RegistryToken("direct".to_owned())));
    direct.resolve(&image(&server), &never()).expect("let in");
    assert_eq!(server.seen().last().expect("asked").header("authorization"), Some("Bearer direct"));
}

#[test]
fn redirects_elsewhere_go_without_credentials() {
    let bytes = pattern(1000);
    let served = bytes.clone();
    let elsewhere = Server::new(move |_, _| Reply::ok(&*served));
    let target = format!("http://{}/cdn?signature=x", elsewhere.host());
    let server = Server::new(move |seen, _| match (seen.header("authorization"), &*seen.target) {
        (None, _) => Reply::new(401).header("www-authenticate", "Basic"),
        (_, target) if target.ends_with("/here") => {
            Reply::new(302).header("location", target.replace("/here", "/there"))
        }
        (_, target_path) if target_path.contains("/blobs/") => Reply::new(307).header("location", &target),
        _ => manifest(),
    });
    let registry = Registry::new(with_password(&server));
    let found = registry.blob(&image(&server), &layer(&bytes), &never()).expect("fetched");
    assert_eq!(found, bytes);
    assert_eq!(elsewhere.seen()[0].header("authorization"), None, "E-12");
    assert!(server.seen().iter().skip(1).all(|seen| seen.header("authorization") == Some(BASIC)));
}

#[test]
fn redirects_are_counted_and_lead_to_no_odd_place() {
    let check = |location: &'static str, expected: &str| {
        let server = Server::new(move |_, _| Reply::new(307).header("location", location));
        let error = client().resolve(&image(&server), &never()).expect_err(location);
        assert!(error.to_string().contains(expected), "{error}");
        server.lines().len()
    };
    assert_eq!(check("/v2/again", "more than 10 redirects"), 11);
    check("ftp://127.0.0.1/x", "neither http nor https");
    check("http://me:secret@127.0.0.1/", "user name or password");
    check("http://169.254.169.254/latest/meta-data", "link-local");
}

#[test]
fn login_tries_the_password_and_keeps_what_else_is_in_the_file() {
    let server = Server::new(|seen, _| match seen.header("authorization") {
        Some(BASIC) => Reply::ok("{}"),
        _ => Reply::new(401).header("www-authenticate", "Basic"),
    });
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("docker/config.json");
    let registry = Registry::new(RegistryConfig { docker_config: Some(directory.path().join("docker")), ..quick() });
    let host = server.host();
    let error = registry.login(&host, "me", "wrong", &never()).expect_err("refused");
    assert!(matches!(error, RegistryError::Refused { .. }), "{error}");
    assert!(!file.exists());
    let place = registry.login(&host, "me", "secret", &never()).expect("right");
    assert_eq!(place, CredentialPlace::File(file.clone()));
    assert_eq!(file.metadata().expect("there").permissions().mode() & 0o777, 0o600);
    registry.ping(&host, &never()).expect("the new credentials are used");

    let mut document: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).expect("read")).expect("JSON");
    assert_eq!(document["auths"][&host]["auth"], "bWU6c2VjcmV0");
    document["HttpHeaders"] = serde_json::json!({"X": "kept"});
    document["auths"]["other.example"] = serde_json::json!({"auth": "a2VwdDprZXB0"});
    std::fs::write(&file, document.to_string()).expect("written");
    assert_eq!(registry.logout(&host, &never()).expect("logged out"), Some(CredentialPlace::File(file.clone())));
    assert_eq!(registry.logout(&host, &never()).expect("nothing to do"), None);
    let document: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).expect("read")).expect("JSON");
    assert_eq!(document["HttpHeaders"]["X"], "kept");
    assert!(document["auths"].get("other.example").is_some() && document["auths"].get(&host).is_none());
    assert!(matches!(registry.ping(&host, &never()), Err(RegistryError::Unauthorized { .. })));
    for bad in ["", "a:b"] {
        assert!(matches!(registry.login(&host, bad, "x", &never()), Err(RegistryError::Config { .. })));
    }
}

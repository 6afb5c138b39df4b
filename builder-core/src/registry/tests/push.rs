use std::io::{self, Read};
use std::sync::{Arc, Mutex};

use super::*;
use crate::oci::Digest;

/// A registry that takes uploads, as far as a test lets it.
#[derive(Default)]
struct Uploads {
    received: Vec<u8>,
    blobs: Vec<(String, Vec<u8>)>,
}

/// `fault` is asked first, with the number of the request.
fn upload_registry(
    fault: impl Fn(&Seen, usize) -> Option<Reply> + Send + Sync + 'static,
) -> (Server, Arc<Mutex<Uploads>>) {
    let uploads = Arc::new(Mutex::new(Uploads::default()));
    (Server::new(answers(&uploads, fault)), uploads)
}

fn answers(
    uploads: &Arc<Mutex<Uploads>>,
    fault: impl Fn(&Seen, usize) -> Option<Reply> + Send + Sync + 'static,
) -> impl Fn(&Seen, usize) -> Reply + Send + Sync + 'static {
    let state = Arc::clone(uploads);
    move |seen, number| {
        if let Some(reply) = fault(seen, number) {
            return reply;
        }
        let mut state = state.lock().expect("no panic while it was held");
        let session = "/v2/team/app/blobs/uploads/1?_state=x";
        match &*seen.method {
            "HEAD" => match state.blobs.iter().find(|(digest, _)| seen.target.ends_with(&**digest)) {
                Some((_, bytes)) => Reply::new(200).header("content-length", bytes.len()),
                None => Reply::new(404),
            },
            "POST" => {
                state.received.clear();
                Reply::new(202).header("location", session)
            }
            "GET" => {
                let end = state.received.len().saturating_sub(1);
                Reply::new(204).header("location", session).header("range", format!("0-{end}"))
            }
            "PATCH" => {
                state.received.extend(&seen.body);
                Reply::new(202).header("location", session)
            }
            "PUT" if seen.target.contains("/manifests/") => Reply::new(201),
            "PUT" => {
                state.received.extend(&seen.body);
                let received = std::mem::take(&mut state.received);
                let digest = Digest::sha256(&received).to_string();
                if !seen.target.ends_with(&format!("digest={digest}")) {
                    return Reply::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID","message":"no"}]}"#);
                }
                state.blobs.push((digest, received));
                Reply::new(201)
            }
            _ => Reply::new(405),
        }
    }
}

fn source(bytes: &[u8]) -> impl Fn() -> io::Result<Box<dyn Read + Send>> + Sync + use<> {
    let bytes = bytes.to_vec();
    move || Ok(Box::new(io::Cursor::new(bytes.clone())) as Box<dyn Read + Send>)
}

fn push(registry: &Registry, server: &Server, bytes: &[u8]) -> Result<(), RegistryError> {
    registry.push_blob(&image(server), &layer(bytes), &source(bytes), &|_| Ok(()), &never())
}

fn stored(uploads: &Mutex<Uploads>) -> Vec<Vec<u8>> {
    uploads.lock().expect("no panic").blobs.iter().map(|(_, bytes)| bytes.clone()).collect()
}

fn methods(server: &Server) -> Vec<String> {
    server.seen().into_iter().map(|seen| seen.method).collect()
}

#[test]
fn a_blob_goes_in_one_request() {
    let bytes = pattern(300_000);
    let (server, uploads) = upload_registry(|_, _| None);
    push(&client(), &server, &bytes).expect("pushed");
    assert_eq!(methods(&server), ["POST", "PUT"]);
    assert_eq!(stored(&uploads), std::slice::from_ref(&bytes));
    assert!(client().blob_exists(&image(&server), &layer(&bytes), &never()).expect("asks"));
    assert!(!client().blob_exists(&image(&server), &layer(b"other"), &never()).expect("asks"));
    push(&client(), &server, b"").expect("an empty blob is a blob");
}

#[test]
fn an_upload_that_breaks_goes_on_where_the_registry_is() {
    let bytes = pattern(3_000_000);
    let uploads = Arc::new(Mutex::new(Uploads::default()));
    let (state, kept) = (Arc::clone(&uploads), bytes.clone());
    let server = Server::breaking(answers(&uploads, |_, _| None), move |_, number| {
        (number == 1).then(|| {
            // The registry keeps a million bytes of what it got before the connection broke.
            state.lock().expect("no panic").received = kept[..1_000_000].to_vec();
            1_500_000
        })
    });
    push(&client(), &server, &bytes).expect("pushed");
    assert_eq!(methods(&server), ["POST", "PUT", "HEAD", "GET", "PUT"]);
    let last = server.seen().pop().expect("asked");
    assert_eq!(last.header("content-range"), Some("1000000-2999999"));
    assert_eq!(last.body.len(), 2_000_000);
    assert_eq!(stored(&uploads), [bytes]);
}

#[test]
fn a_registry_that_refuses_large_requests_gets_pieces() {
    let bytes = pattern(250_000);
    let (server, uploads) = upload_registry(|seen, _| {
        let length: usize = seen.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
        (length > 100_000).then(|| Reply::new(413))
    });
    let registry = Registry::new(RegistryConfig { upload_piece: 100_000, ..quick() });
    push(&registry, &server, &bytes).expect("pushed");
    assert_eq!(methods(&server), ["POST", "PUT", "POST", "PATCH", "PATCH", "PATCH", "PUT"]);
    assert_eq!(server.seen()[5].header("content-range"), Some("200000-249999"));
    assert_eq!(stored(&uploads), [bytes]);
}

#[test]
fn a_token_that_ends_during_an_upload_is_replaced() {
    let bytes = pattern(10_000);
    let (server, uploads) = upload_registry(|seen, number| {
        if seen.target.starts_with("/token") {
            return Some(Reply::ok(format!(r#"{{"token":"t{number}"}}"#)));
        }
        // The token of request 1 is good for the first request that carries it only.
        let good = match seen.header("authorization") {
            None => false,
            Some("Bearer t1") => number < 3,
            Some(_) => true,
        };
        let realm = format!("http://{}/token", seen.header("host").expect("a host"));
        (!good).then(|| Reply::new(401).header("www-authenticate", format!("Bearer realm=\"{realm}\"")))
    });
    push(&client(), &server, &bytes).expect("pushed");
    assert_eq!(stored(&uploads), [bytes]);
}

#[test]
fn a_location_on_another_host_gets_the_bytes_but_no_credentials() {
    let bytes = pattern(1000);
    let elsewhere = Server::new(|_, _| Reply::new(201));
    let target = format!("http://{}/store/1", elsewhere.host());
    let (server, _) = upload_registry(move |seen, _| match (&*seen.method, seen.header("authorization")) {
        (_, None) => Some(Reply::new(401).header("www-authenticate", "Basic")),
        ("POST", _) => Some(Reply::new(202).header("location", &target)),
        _ => None,
    });
    let credential = Credential::Password { username: "me".to_owned(), password: "secret".to_owned() };
    let config = RegistryConfig { credentials: [(server.host(), credential)].into(), ..quick() };
    push(&Registry::new(config), &server, &bytes).expect("pushed");
    let seen = elsewhere.seen();
    assert_eq!(seen[0].line(), format!("PUT /store/1?digest={}", layer(&bytes).digest));
    assert_eq!((seen[0].header("authorization"), &seen[0].body), (None, &bytes), "E-12");
}

/// A source that cannot be read.
struct Broken;

impl Read for Broken {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken"))
    }
}

#[test]
fn a_source_that_fails_or_ends_is_not_the_registrys_fault() {
    let (server, uploads) = upload_registry(|_, _| None);
    let bytes = pattern(100_000);
    let short = bytes[..50_000].to_vec();
    let check = |source: &BlobSource<'_>| {
        let error =
            client().push_blob(&image(&server), &layer(&bytes), source, &|_| Ok(()), &never()).expect_err("no source");
        assert!(matches!(error, RegistryError::Source { .. }), "{error}");
    };
    check(&source(&short));
    check(&|| Err(io::ErrorKind::PermissionDenied.into()));
    check(&|| Ok(Box::new(Broken)));
    assert!(stored(&uploads).is_empty());
}

#[test]
fn a_mount_that_is_refused_or_not_done_is_no_error() {
    let digest = Digest::sha256(b"x");
    for (status, mounted) in [(201, true), (202, false), (404, false), (403, false)] {
        let (server, _) = upload_registry(move |seen, _| match &*seen.method {
            "POST" => Some(Reply::new(status).header("location", "/v2/team/app/blobs/uploads/1")),
            "DELETE" => Some(Reply::new(204)),
            _ => None,
        });
        let result = client().mount_blob(&image(&server), &digest, "team/base", &never());
        assert_eq!(result.expect("an answer"), mounted, "{status}");
        assert_eq!(server.lines()[0], format!("POST /v2/team/app/blobs/uploads/?mount={digest}&from=team/base"));
        assert_eq!(methods(&server).contains(&"DELETE".to_owned()), status == 202, "an upload that was begun is ended");
    }
}

#[test]
fn an_image_goes_layers_first_then_config_then_manifest() {
    let (server, uploads) = upload_registry(|_, _| None);
    let layers: Vec<Vec<u8>> = vec![pattern(10_000), b"two".to_vec(), b"two".to_vec()];
    let sources: Vec<_> = layers.iter().map(|bytes| source(bytes)).collect();
    let blob = |bytes: &[u8], source| BlobToPush { descriptor: layer(bytes), source, mount_from: Vec::new() };
    let config_source = source(b"config");
    let image_to_push = || ImageToPush {
        manifest: b"{}",
        media_type: MediaType::OCI_MANIFEST,
        layers: layers.iter().zip(&sources).map(|(bytes, source)| blob(bytes, source)).collect(),
        config: Some(blob(b"config", &config_source)),
    };
    // One upload at a time is all that the test registry can do: two threads would mix their bytes.
    push(&client(), &server, &layers[0]).expect("pushed");
    let events = Mutex::new(Vec::new());
    let event = |event| events.lock().expect("no panic").push(event);
    let descriptor = client().push_image(&image(&server), &image_to_push(), &event, &never()).expect("pushed");
    assert_eq!(descriptor, Descriptor::of(MediaType::OCI_MANIFEST, b"{}"));
    assert_eq!(stored(&uploads), [layers[0].clone(), b"two".to_vec(), b"config".to_vec()]);
    assert_eq!(server.lines().last().map(String::as_str), Some("PUT /v2/team/app/manifests/1"));
    let events = events.into_inner().expect("no panic");
    assert!(events.contains(&TransferEvent::Exists(layer(&layers[0]))));
    assert!(events.contains(&TransferEvent::Progress(layer(b"two"), 3)));
    assert_eq!(events.last(), Some(&TransferEvent::Manifest(descriptor)));
}

#[test]
fn the_first_error_ends_a_push_before_the_manifest() {
    let (server, _) = upload_registry(|seen, _| {
        (seen.method == "POST")
            .then(|| Reply::new(400).body(r#"{"errors":[{"code":"DENIED","message":"quota\u001b[31m"}]}"#))
    });
    let layers: Vec<Vec<u8>> = (0..10u8).map(|n| vec![n; 100]).collect();
    let sources: Vec<_> = layers.iter().map(|bytes| source(bytes)).collect();
    let blobs = layers.iter().zip(&sources);
    let blobs = blobs.map(|(bytes, source)| BlobToPush { descriptor: layer(bytes), source, mount_from: Vec::new() });
    let image_to_push =
        ImageToPush { manifest: b"{}", media_type: MediaType::OCI_MANIFEST, layers: blobs.collect(), config: None };
    let error = client().push_image(&image(&server), &image_to_push, &|_| {}, &never()).expect_err("refused");
    assert!(
        error.to_string().ends_with("answered 400 to the beginning of an upload: DENIED quota\\u{1b}[31m"),
        "{error}"
    );
    assert!(!methods(&server).contains(&"PUT".to_owned()));
    let begun = methods(&server).iter().filter(|method| *method == "POST").count();
    assert!(begun <= 4, "{begun} uploads were begun");
}

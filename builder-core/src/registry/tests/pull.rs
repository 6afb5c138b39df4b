use std::io::Read;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;
use crate::content::ContentStore;
use crate::diagnostic::Diagnostic;
use crate::oci::{Digest, Index, MediaKind, Platform};

fn store() -> (tempfile::TempDir, ContentStore) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let store = ContentStore::open(&directory.path().join("state")).expect("opens");
    (directory, store)
}

fn fetch(server: &Server, descriptor: &Descriptor) -> Result<ContentStore, RegistryError> {
    let (_directory, store) = store();
    client().fetch_blob(&image(server), descriptor, &store, &|_| {}, &never())?;
    let bytes = store.read(&descriptor.digest, 1 << 30).expect("stored");
    assert_eq!(bytes.len() as u64, descriptor.size);
    Ok(store)
}

/// Serves `bytes`, whole or from where the request says.
fn ranged(seen: &Seen, bytes: &[u8]) -> Reply {
    match seen.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
    {
        Some(start) => Reply::new(206)
            .header("content-range", format!("bytes {start}-{}/{}", bytes.len() - 1, bytes.len()))
            .body(&bytes[start..]),
        None => Reply::ok(bytes),
    }
}

#[test]
fn a_broken_body_goes_on_where_it_broke() {
    let bytes = pattern(300_000);
    let served = bytes.clone();
    let server = Server::new(move |seen, number| match number {
        0 => ranged(seen, &served).cut(100_000),
        1 => ranged(seen, &served).cut(50_000),
        _ => ranged(seen, &served),
    });
    fetch(&server, &layer(&bytes)).expect("fetched");
    let ranges: Vec<Option<String>> =
        server.seen().iter().map(|seen| seen.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".to_owned()), Some("bytes=150000-".to_owned())]);
}

#[test]
fn a_server_without_ranges_is_read_again_from_the_start() {
    let bytes = pattern(100_000);
    let served = bytes.clone();
    let server = Server::new(move |_, number| {
        let whole = Reply::ok(&*served);
        if number == 0 { whole.cut(40_000) } else { whole }
    });
    fetch(&server, &layer(&bytes)).expect("fetched");
}

#[test]
fn faults_in_a_row_are_bounded_but_progress_is_not() {
    let bytes = pattern(1000);
    let served = bytes.clone();
    let server = Server::new(move |seen, number| ranged(seen, &served).cut(if number < 4 { 100 } else { 600 }));
    fetch(&server, &layer(&bytes)).expect("each try brings something");
    let server = Server::new(move |_, _| Reply::ok(pattern(1000)).cut(0));
    let error = fetch(&server, &layer(&bytes)).expect_err("nothing ever comes");
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert_eq!(server.lines().len(), 3);
}

#[test]
fn a_wrong_range_is_not_taken() {
    let bytes = pattern(1000);
    let (served, wrong) = (bytes.clone(), "bytes 0-999/1000");
    let server = Server::new(move |_, number| match number {
        0 => Reply::ok(&*served).cut(500),
        _ => Reply::new(206).header("content-range", wrong).body(&*served),
    });
    let error = fetch(&server, &layer(&bytes)).expect_err("refused");
    assert!(error.to_string().contains("another range"), "{error}");
}

#[test]
fn wrong_bytes_and_wrong_lengths_are_refused() {
    let right = pattern(5000);
    let check = |reply: fn(Vec<u8>) -> Reply, is_right: fn(&RegistryError) -> bool| {
        let served = right.clone();
        let server = Server::new(move |_, _| reply(served.clone()));
        let error = fetch(&server, &layer(&right)).expect_err("refused");
        assert!(is_right(&error), "{error:?}");
        let mut stream = client().open_blob(&image(&server), &layer(&right), &never()).expect("opens");
        let error = stream.read_to_end(&mut Vec::new()).expect_err("refused");
        assert!(is_right(&RegistryError::from_io(error).expect("a registry error")));
    };
    check(
        |mut bytes| {
            bytes[77] ^= 1;
            Reply::ok(bytes)
        },
        |error| matches!(error, RegistryError::DigestMismatch { .. }),
    );
    check(
        |mut bytes| {
            bytes.pop();
            Reply::ok(bytes)
        },
        |error| matches!(error, RegistryError::SizeMismatch { expected: 5000, actual: 4999, .. }),
    );
    check(
        |mut bytes| {
            bytes.push(0);
            let framed = format!("{:x}\r\n", bytes.len()).into_bytes();
            let body = [&framed, &*bytes, b"\r\n0\r\n\r\n"].concat();
            Reply::ok(body).header("transfer-encoding", "chunked")
        },
        |error| matches!(error, RegistryError::SizeMismatch { expected: 5000, actual: 5001, .. }),
    );
}

#[test]
fn a_stored_stream_can_be_read_while_it_comes_and_counts_only_when_finished() {
    let bytes = pattern(200_000);
    let served = bytes.clone();
    let server = Server::new(move |_, _| Reply::ok(&*served));
    let (_directory, store) = store();
    let descriptor = layer(&bytes);
    let open = || client().open_and_store_blob(&image(&server), &descriptor, &store, &never()).expect("opens");
    let mut stream = open();
    let mut head = [0; 1000];
    stream.read_exact(&mut head).expect("reads");
    assert_eq!(head, bytes[..1000]);
    drop(stream);
    assert_eq!(store.has(&descriptor.digest).expect("asks"), None);
    let mut stream = open();
    stream.read_exact(&mut head).expect("reads");
    stream.finish().expect("the rest is read and verified");
    assert_eq!(store.read(&descriptor.digest, 1 << 20).expect("stored"), bytes);
    let repository = image(&server).repository();
    assert_eq!(store.database().blob_sources(&descriptor.digest).expect("asks"), [repository]);
    let before = server.lines().len();
    client().fetch_blob(&image(&server), &descriptor, &store, &|_| {}, &never()).expect("is there");
    assert_eq!(server.lines().len(), before, "what is in the store is not fetched");
}

#[test]
fn too_many_requests_are_answered_with_patience() {
    let bytes = pattern(10);
    let served = bytes.clone();
    let server = Server::new(move |_, number| match number {
        0 => Reply::new(429).header("retry-after", 1),
        1 => Reply::new(503),
        _ => Reply::ok(&*served),
    });
    let begin = Instant::now();
    fetch(&server, &layer(&bytes)).expect("fetched in the end");
    assert!(begin.elapsed() >= Duration::from_secs(1), "Retry-After is honoured");
    let server = Server::new(|_, _| {
        Reply::new(429)
            .header("retry-after", 0)
            .body(r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"pull\nlimit"}]}"#)
    });
    let error = client().resolve(&image(&server), &never()).expect_err("limited");
    assert!(error.to_string().ends_with("limits the rate of requests: TOOMANYREQUESTS pull\\nlimit"), "{error}");
    assert_eq!(server.lines().len(), 3);
}

#[test]
fn a_manifest_is_what_its_bytes_say() {
    let manifest = br#"{"schemaVersion":2}"#;
    let server = Server::new(move |seen, _| {
        assert!(
            seen.header("accept").is_some_and(|accept| accept.contains("oci.image.index") && accept.contains("docker"))
        );
        Reply::ok(manifest).header("content-type", "application/vnd.oci.image.manifest.v1+json; charset=utf-8")
    });
    let resolved = client().resolve(&image(&server), &never()).expect("resolved");
    assert_eq!(resolved.descriptor, Descriptor::of(MediaType::OCI_MANIFEST, manifest));
    assert_eq!(resolved.bytes, manifest);
    assert_eq!(server.lines(), ["GET /v2/team/app/manifests/1"]);
    let pinned = image(&server).with_digest(Digest::sha256(b"other"));
    let error = client().resolve(&pinned, &never()).expect_err("other bytes");
    assert!(matches!(error, RegistryError::DigestMismatch { .. }), "{error}");
    let mut wrong = resolved.descriptor;
    wrong.size += 1;
    let error = client().manifest(&image(&server), &wrong, &never()).expect_err("another length");
    assert!(matches!(error, RegistryError::SizeMismatch { .. }), "{error}");
}

#[test]
fn documents_that_are_no_manifests_get_one_clear_line() {
    let check = |content_type: &'static str, body: &'static str, expected: &str| {
        let server = Server::new(move |_, _| Reply::ok(body).header("content-type", content_type));
        let error = client().resolve(&image(&server), &never()).expect_err(expected);
        let line = error.to_string().replace(&server.host(), "HOST");
        assert!(line.contains(expected) && !line.contains('\n'), "{line}");
    };
    check(
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        r#"{"schemaVersion":1}"#,
        "image `HOST/team/app:1` has a schema 1 manifest",
    );
    check("application/json", r#"{"schemaVersion":1,"fsLayers":[]}"#, "schema 1");
    check("text/html", "<html>\x1b[31m", "cannot use image `HOST/team/app:1`: malformed manifest");
    check("text/x", "{}", "its media type is `");
    check("", r#"{"schemaVersion":2,"mediaType":"application/x"}"#, "its media type is `application/x`");
    let server =
        Server::new(|_, _| Reply::ok("{").header("content-type", "application/vnd.oci.image.manifest.v1+json"));
    let resolved = client().resolve(&image(&server), &never()).expect("bytes are only bytes");
    let error =
        client().select_platform(&image(&server), &resolved, &Platform::host(), &never()).expect_err("malformed");
    assert!(matches!(error, RegistryError::Manifest { .. }), "{error}");
}

#[test]
fn a_document_that_does_not_name_its_type_is_known_by_its_members() {
    let check = |body: &'static str, expected: MediaType| {
        let server = Server::new(move |_, _| Reply::ok(body).header("content-type", "application/octet-stream"));
        let resolved = client().resolve(&image(&server), &never()).expect(body);
        assert_eq!(resolved.descriptor.media_type, expected);
    };
    check(r#"{"schemaVersion":2,"manifests":[]}"#, MediaType::OCI_INDEX);
    check(r#"{"schemaVersion":2,"layers":[]}"#, MediaType::OCI_MANIFEST);
}

#[test]
fn a_manifest_without_end_is_not_read_to_its_end() {
    let server = Server::new(|_, _| {
        Reply::ok(vec![b' '; 9 << 20]).header("content-type", "application/vnd.oci.image.manifest.v1+json")
    });
    let error = client().resolve(&image(&server), &never()).expect_err("too large");
    assert!(matches!(error, RegistryError::TooLarge { limit: 8_388_608, .. }), "{error}");
    let huge = Descriptor::new(MediaType::OCI_CONFIG, Digest::sha256(b""), u64::MAX);
    assert!(matches!(client().blob(&image(&server), &huge, &never()), Err(RegistryError::TooLarge { .. })));
}

fn index_of(manifests: Vec<Descriptor>) -> Vec<u8> {
    let index = Index {
        schema_version: 2,
        media_type: Some(MediaType::OCI_INDEX),
        artifact_type: None,
        manifests,
        subject: None,
        annotations: std::collections::BTreeMap::default(),
    };
    serde_json::to_vec(&index).expect("serialises")
}

/// Serves documents by digest, and the last one under any tag.
fn documents(documents: Vec<(MediaType, Vec<u8>)>) -> Server {
    Server::new(move |seen, _| {
        let asked = seen.target.rsplit('/').next().unwrap_or_default();
        let found = documents.iter().find(|(_, bytes)| Digest::sha256(bytes).as_str() == asked);
        match found.or(documents.last().filter(|_| !asked.contains(':'))) {
            Some((media_type, bytes)) => Reply::ok(&**bytes).header("content-type", media_type),
            None => Reply::new(404),
        }
    })
}

#[test]
fn the_nearest_platform_of_nested_indexes_is_chosen() {
    let manifest = |name: &str| {
        let config = Descriptor::of(MediaType::OCI_CONFIG, name.as_bytes());
        serde_json::json!({"schemaVersion":2, "mediaType":MediaType::OCI_MANIFEST, "config":config, "layers":[]})
            .to_string()
            .into_bytes()
    };
    let for_platform = |bytes: &[u8], os: &str, architecture: &str, variant| {
        let platform = Some(Platform::new(os, architecture, variant));
        Descriptor { platform, ..Descriptor::of(MediaType::OCI_MANIFEST, bytes) }
    };
    let (amd, v6, v7, attestation) = (manifest("amd"), manifest("v6"), manifest("v7"), manifest("attestation"));
    let inner = index_of(vec![
        for_platform(&attestation, "unknown", "unknown", None),
        for_platform(&amd, "linux", "amd64", None),
        for_platform(&v6, "linux", "arm", Some("v6")),
        for_platform(&v7, "linux", "arm", Some("v7")),
    ]);
    let outer = index_of(vec![Descriptor::of(MediaType::OCI_INDEX, &inner)]);
    let all = [amd.clone(), v6, v7.clone(), attestation].map(|bytes| (MediaType::OCI_MANIFEST, bytes));
    let mut all = Vec::from(all);
    all.extend([(MediaType::OCI_INDEX, inner), (MediaType::OCI_INDEX, outer)]);
    let server = documents(all);
    let select = |platform: &str| {
        let resolved = client().resolve(&image(&server), &never()).expect("resolved");
        assert_eq!(resolved.descriptor.media_type.kind(), MediaKind::Index);
        client().select_platform(&image(&server), &resolved, &platform.parse().expect(platform), &never())
    };
    assert_eq!(select("linux/amd64").expect("there").bytes, amd);
    let arm = select("linux/arm/v7").expect("there");
    assert_eq!(arm.bytes, v7);
    assert_eq!(arm.descriptor.platform, Some(Platform::new("linux", "arm", Some("v7"))));
    let error = select("linux/s390x").expect_err("not there");
    assert_eq!(error.to_string(), format!("image `{}/team/app:1` is not available for linux/s390x", server.host()));
    assert_eq!(error.hint().expect("a hint"), "it is available for linux/amd64, linux/arm/v6, linux/arm/v7");
}

#[test]
fn indexes_are_followed_four_levels_deep() {
    let mut all = vec![(MediaType::OCI_INDEX, index_of(Vec::new()))];
    for _ in 0..6 {
        let (_, below) = all.last().expect("one at least");
        let above = index_of(vec![Descriptor::of(MediaType::OCI_INDEX, below)]);
        all.push((MediaType::OCI_INDEX, above));
    }
    let server = documents(all);
    let resolved = client().resolve(&image(&server), &never()).expect("resolved");
    let error =
        client().select_platform(&image(&server), &resolved, &Platform::host(), &never()).expect_err("too deep");
    assert!(matches!(error, RegistryError::Nested { limit: 4, .. }), "{error}");
}

#[test]
fn mirrors_come_first_and_the_registry_heals_what_they_spoil() {
    let bytes = pattern(1000);
    let (served, spoiled) = (bytes.clone(), pattern(1001)[1..].to_vec());
    let upstream = Server::new(move |_, _| Reply::ok(&*served));
    let mirror = Server::new(
        move |seen, _| if seen.target.contains("manifests") { Reply::new(404) } else { Reply::ok(&*spoiled) },
    );
    let mut config = quick();
    let dead = "http://127.0.0.1:1".to_owned();
    config.mirrors.insert(upstream.host(), vec![dead, format!("http://{}/hub", mirror.host())]);
    let registry = Registry::new(config);
    let (_directory, store) = store();
    let told = Mutex::new(Vec::new());
    let progress = |sent| told.lock().expect("no panic").push(sent);
    registry.fetch_blob(&image(&upstream), &layer(&bytes), &store, &progress, &never()).expect("fetched");
    assert_eq!(mirror.lines(), [format!("GET /v2/hub/team/app/blobs/{}", layer(&bytes).digest)]);
    assert_eq!(upstream.lines().len(), 1);
    assert_eq!(told.lock().expect("no panic").last(), Some(&1000));
    let error = registry.resolve(&image(&upstream), &never()).expect_err("no manifest");
    assert!(error.to_string().contains("malformed"), "{error}: the registry's own answer counts");
}

#[test]
fn what_is_not_there_and_who_is_not_there_is_said_in_one_line() {
    let server = Server::new(|_, _| Reply::new(404));
    let error = client().resolve(&image(&server), &never()).expect_err("not there");
    assert_eq!(error.to_string(), format!("image `{}/team/app:1` is not in its registry", server.host()));
    let error = fetch(&server, &layer(b"x")).expect_err("not there");
    assert!(matches!(error, RegistryError::BlobNotFound { .. }), "{error}");
    let begin = Instant::now();
    let nobody: Reference = "127.0.0.1:1/app".parse().expect("valid");
    let error = client().resolve(&nobody, &never()).expect_err("nobody listens");
    assert_eq!(error.to_string(), "cannot reach registry `127.0.0.1:1`: connection refused");
    assert!(error.hint().is_some());
    assert!(begin.elapsed() < Duration::from_secs(2));
    let nowhere: Reference = "registry.invalid/app".parse().expect("valid");
    let error = client().resolve(&nowhere, &never()).expect_err("no such host");
    assert!(error.to_string().starts_with("cannot reach registry `registry.invalid`"), "{error}");
}

#[test]
fn a_silent_server_is_given_up_and_a_cancel_does_not_wait_for_it() {
    let server = Server::new(|_, _| Reply::new(200).stall(Duration::from_secs(5)));
    let begin = Instant::now();
    let error = Registry::new(RegistryConfig { attempts: 1, ..quick() })
        .resolve(&image(&server), &never())
        .expect_err("silent");
    assert!(matches!(error, RegistryError::Unreachable { .. }), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(2));
    let cancel = CancelToken::new();
    let begin = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            cancel.cancel();
        });
        let patient = Registry::new(RegistryConfig::default());
        let error = patient.resolve(&image(&server), &cancel).expect_err("cancelled");
        assert!(matches!(error, RegistryError::Cancelled(_)), "{error}");
    });
    assert!(begin.elapsed() < Duration::from_secs(1), "C-4");
}

#[test]
fn an_insecure_registry_may_speak_http() {
    let server = Server::new(|_, _| Reply::ok("{}"));
    let config = RegistryConfig { insecure: [server.host()].into(), ..quick() };
    let registry = Registry::new(config);
    registry.ping(&server.host(), &never()).expect("over http in the end");
    registry.ping(&server.host(), &never()).expect("at once");
    let greetings = server.lines().iter().filter(|line| *line == "GET /v2/").count();
    assert_eq!(greetings, 2);
}

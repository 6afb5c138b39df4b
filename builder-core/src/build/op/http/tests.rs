//! Against a server that counts.

use super::name::file_name;
use super::*;
use crate::oci::Algorithm;
use crate::registry::{ProxyConfig, RegistryConfig};
use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Answers one request after the other with these responses; returns what was asked.
fn serve(responses: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = format!("http://{}/dir/file.txt?x=1", listener.local_addr().expect("bound"));
    let asked = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for response in responses {
            let (mut stream, _) = listener.accept().expect("a request");
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("readable") == 1 {
                request.push(byte[0]);
            }
            asked.push(String::from_utf8(request).expect("text").to_lowercase());
            stream.write_all(response.as_bytes()).expect("writable");
        }
        asked
    });
    (address, asked)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n{body}", body.len())
}

fn fetcher<'a>(registry: &'a Registry, content: &'a ContentStore, cancel: &'a CancelToken) -> Fetcher<'a> {
    static NONE: BTreeMap<String, SecretSource> = BTreeMap::new();
    Fetcher { registry, content, secrets: &NONE, offline: false, progress: &|_, _| {}, cancel }
}

fn get(content: &ContentStore, url: &str, checksum: Option<&Digest>) -> Result<Fetched, FetchError> {
    let registry = Registry::new(RegistryConfig::default());
    fetcher(&registry, content, &CancelToken::new()).fetch(url, checksum)
}

// Rows: A103.
#[test]
fn a_file_is_fetched_once_and_asked_for_afterwards() {
    let state = tempfile::tempdir().expect("temporary directory");
    let content = ContentStore::open(state.path()).expect("opened");
    let headers = "ETag: \"a\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
    let (url, asked) = serve(vec![
        answer("200 OK", headers, "hello"),
        answer("304 Not Modified", "", ""),
        answer("200 OK", "", "other"),
    ]);
    let first = get(&content, &url, None).expect("fetched");
    assert_eq!((first.digest.clone(), first.size), (Digest::sha256(b"hello"), 5));
    assert_eq!((first.modified, file_name(&url).as_str()), (Some(784_111_777), "file.txt"));
    assert_eq!(first.content, ContentDigest::of(b"hello"));
    assert_eq!(get(&content, &url, None).expect("unchanged"), first);
    assert_eq!(get(&content, &url, None).expect("changed").digest, Digest::sha256(b"other"));
    let asked = asked.join().expect("no panic");
    assert!(!asked[0].contains("if-none-match") && asked[1].contains("if-none-match: \"a\""), "{asked:?}");
    assert!(asked[1].contains("if-modified-since: sun, 06 nov 1994"), "{asked:?}");
}

// Rows: A104.
#[test]
fn a_checksum_of_another_algorithm_is_compared_with_what_is_known() {
    let state = tempfile::tempdir().expect("temporary directory");
    let content = ContentStore::open(state.path()).expect("opened");
    let sha512 = |bytes: &[u8]| {
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(bytes);
        hasher.finish()
    };
    let unchanged = || answer("304 Not Modified", "", "");
    let (url, asked) = serve(vec![answer("200 OK", "ETag: \"a\"\r\n", "hello"), unchanged(), unchanged()]);
    let known = get(&content, &url, None).expect("fetched");
    assert_eq!(get(&content, &url, Some(&sha512(b"hello"))).expect("the same"), known);
    let wrong = get(&content, &url, Some(&sha512(b"other")));
    assert!(matches!(wrong, Err(FetchError::Checksum { actual, .. }) if actual == sha512(b"hello")));
    asked.join().expect("no panic");
}

// Rows: A104.
#[test]
fn checksums_and_refusals_are_errors() {
    let state = tempfile::tempdir().expect("temporary directory");
    let content = ContentStore::open(state.path()).expect("opened");
    let (url, asked) = serve(vec![answer("200 OK", "", "hello"), answer("404 Not Found", "", "no")]);
    let wrong = Digest::sha256(b"x");
    assert!(matches!(get(&content, &url, Some(&wrong)), Err(FetchError::Checksum { .. })));
    assert!(matches!(get(&content, &url, None), Err(FetchError::Status { .. })));
    asked.join().expect("no panic");
    let gone = get(&content, "http://user:secret@127.0.0.1:1/x", None).expect_err("nobody listens");
    assert!(!gone.to_string().contains("secret"), "{gone}");
}

// Rows: A103.
#[test]
fn what_may_pass_is_tried_again() {
    let state = tempfile::tempdir().expect("temporary directory");
    let content = ContentStore::open(state.path()).expect("opened");
    let cut = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhel".to_owned();
    let busy = answer("503 Service Unavailable", "Retry-After: 0\r\n", "");
    let (url, asked) = serve(vec![busy.clone(), cut, answer("200 OK", "", "hello")]);
    assert_eq!(get(&content, &url, None).expect("the third answer is whole").digest, Digest::sha256(b"hello"));
    assert_eq!(asked.join().expect("no panic").len(), 3);
    // As often as the registries of this client, and not more.
    let (url, asked) = serve(vec![busy; RegistryConfig::default().attempts as usize]);
    assert!(matches!(get(&content, &url, None), Err(FetchError::Status { .. })));
    asked.join().expect("no panic");
}

#[test]
fn a_silent_server_does_not_delay_a_cancel() {
    for greeting in ["", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun"] {
        let state = tempfile::tempdir().expect("temporary directory");
        let content = ContentStore::open(state.path()).expect("opened");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let url = format!("http://{}/", listener.local_addr().expect("bound"));
        let (cancel, done) = (CancelToken::new(), std::sync::mpsc::channel::<()>());
        let (ended, wait) = done;
        let (canceller, begun) = (cancel.clone(), Instant::now());
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a request");
            stream.write_all(greeting.as_bytes()).expect("writable");
            std::thread::sleep(Duration::from_millis(100));
            canceller.cancel();
            // Silent until the client is gone.
            let _ = wait.recv();
        });
        let registry = Registry::new(RegistryConfig::default());
        let result = fetcher(&registry, &content, &cancel).fetch(&url, None);
        assert!(matches!(result, Err(FetchError::Cancelled(_))), "{greeting}: {result:?}");
        assert!(begun.elapsed() < Duration::from_secs(10), "{greeting}");
        drop(ended);
        server.join().expect("no panic");
    }
}

#[test]
fn redirects_are_followed_and_proxies_used() {
    let state = tempfile::tempdir().expect("temporary directory");
    let content = ContentStore::open(state.path()).expect("opened");
    let (target, asked) = serve(vec![answer("200 OK", "", "moved")]);
    let (url, first) = serve(vec![answer("302 Found", &format!("Location: {target}\r\n"), "")]);
    let url = url.replace("http://", "http://user:secret@");
    assert_eq!(get(&content, &url, None).expect("followed").digest, Digest::sha256(b"moved"));
    assert!(first.join().expect("no panic")[0].contains("authorization: basic "));
    assert!(!asked.join().expect("no panic")[0].contains("authorization"), "another origin");

    let (address, asked) = serve(vec![answer("407 Proxy Authentication Required", "", "")]);
    let proxy = address.split_once("/dir").map(|(proxy, _)| proxy.to_owned());
    let config = RegistryConfig { proxy: ProxyConfig { http: proxy, ..Default::default() }, ..Default::default() };
    let url = "http://files.invalid/x";
    let refused = fetcher(&Registry::new(config), &content, &CancelToken::new()).fetch(url, None);
    assert!(refused.is_err());
    assert!(asked.join().expect("no panic")[0].contains("files.invalid"), "the proxy was asked");
}

#[test]
fn what_is_known_decides_how_much_is_asked() {
    let state = tempfile::tempdir().expect("temporary directory");
    let content = ContentStore::open(state.path()).expect("opened");
    let (url, asked) = serve(vec![
        answer("200 OK", "ETag: W/\"a\"\r\n", "hello"),
        answer("200 OK", "ETag: \"a\"\r\n", "not to be read"),
        answer("304 Not Modified", "", ""),
        answer("200 OK", "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "newer"),
        answer("200 OK", "", "newest"),
        answer("200 OK", "", "without a tag"),
    ]);
    let text = |fetched: Result<Fetched, FetchError>| {
        let fetched = fetched.expect("fetched");
        String::from_utf8(content.read(&fetched.digest, 100).expect("there")).expect("text")
    };
    assert_eq!(text(get(&content, &url, None)), "hello");
    assert_eq!(text(get(&content, &url, None)), "hello", "the same tag");
    assert_eq!(text(get(&content, &url, None)), "hello", "a 304 without a tag");
    assert_eq!(text(get(&content, &url, None)), "newer");
    assert_eq!(text(get(&content, &url, None)), "newest");
    // Nothing is asked for what is known by its digest, or without a network.
    assert_eq!(text(get(&content, &url, Some(&Digest::sha256(b"newest")))), "newest");
    let (registry, cancel) = (Registry::new(RegistryConfig::default()), CancelToken::new());
    let offline = Fetcher { offline: true, ..fetcher(&registry, &content, &cancel) };
    assert_eq!(text(offline.fetch(&url, None)), "newest");
    assert!(matches!(offline.fetch(&url, Some(&Digest::sha256(b"x"))), Err(FetchError::Checksum { .. })));
    assert_eq!(text(get(&content, &url, None)), "without a tag");
    let asked = asked.join().expect("no panic");
    let conditions = |request: &String| (request.contains("if-none-match"), request.contains("if-modified-since"));
    assert_eq!(
        asked.iter().map(conditions).collect::<Vec<_>>(),
        [(false, false), (true, false), (true, false), (true, false), (false, true), (false, false)]
    );
}

#[test]
fn secrets_of_a_host_become_a_header() {
    let state = tempfile::tempdir().expect("temporary directory");
    let content = ContentStore::open(state.path()).expect("opened");
    let file = state.path().join("token");
    std::fs::write(&file, "t0ken\n").expect("written");
    let whole = ("HTTP_AUTH_HEADER_127.0.0.1".to_owned(), SecretSource::Value(b"Custom x".to_vec()));
    let token = ("HTTP_AUTH_TOKEN_127.0.0.1".to_owned(), SecretSource::File(file));
    let other = ("HTTP_AUTH_TOKEN_elsewhere".to_owned(), SecretSource::Value(b"no".to_vec()));
    for (secrets, expected) in [
        (vec![whole.clone(), other.clone()], Some("authorization: custom x\r\n")),
        (vec![whole, token.clone()], Some("authorization: bearer t0ken\r\n")),
        (vec![other], None),
    ] {
        let (url, asked) = serve(vec![answer("401 Unauthorized", "", "")]);
        let (registry, cancel) = (Registry::new(RegistryConfig::default()), CancelToken::new());
        let secrets = secrets.into_iter().collect();
        let refused = Fetcher { secrets: &secrets, ..fetcher(&registry, &content, &cancel) }.fetch(&url, None);
        let hint = refused.expect_err("refused").hint();
        assert_eq!(hint.is_some_and(|hint| hint.contains("HTTP_AUTH_TOKEN_127.0.0.1")), expected.is_none());
        let asked = asked.join().expect("no panic");
        assert_eq!(asked[0].contains("authorization"), expected.is_some());
        assert!(expected.is_none_or(|line| asked[0].contains(line)), "{asked:?}");
    }
    // Another host that the first one leads to does not hear it.
    let (target, heard) = serve(vec![answer("200 OK", "", "moved")]);
    let (url, first) = serve(vec![answer("302 Found", &format!("Location: {target}\r\n"), "")]);
    let (registry, cancel, secrets) =
        (Registry::new(RegistryConfig::default()), CancelToken::new(), [token].into_iter().collect());
    let fetched = Fetcher { secrets: &secrets, ..fetcher(&registry, &content, &cancel) }.fetch(&url, None);
    assert!(fetched.is_ok());
    assert!(first.join().expect("no panic")[0].contains("bearer t0ken"));
    assert!(!heard.join().expect("no panic")[0].contains("authorization"));
}

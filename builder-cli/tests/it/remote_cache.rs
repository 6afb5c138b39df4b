//! `--cache-to` and `--cache-from`: a second machine builds nothing, and fetches what it reads.

use std::path::Path;

use base64::Engine as _;

use crate::actions::Actions;
use crate::env::{TestEnv, end, require_sandbox};
use crate::moto::Moto;
use crate::recorder::{Recorder, answering, behind_tokens};
use crate::registry::{Registry, base};

/// Builds with machine-readable progress; gives the names of the steps that ran, the id of the image, and warnings.
pub(crate) fn build(env: &TestEnv, options: &str) -> (Vec<String>, String, Vec<String>) {
    let ended = env.ok(&format!("build --progress=rawjson --iidfile ../id {options} ."));
    let (mut ran, mut warnings) = (Vec::new(), Vec::new());
    for line in ended.stderr.lines() {
        let status: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for vertex in status["vertexes"].as_array().into_iter().flatten() {
            let name = vertex["name"].as_str().expect("a name");
            let step = name.starts_with('[') && !name.starts_with("[internal]") && !name.contains("] FROM ");
            if step && vertex["completed"].is_string() && vertex["cached"] != true && vertex["error"].is_null() {
                ran.push(name.split("] ").nth(1).unwrap_or(name).to_owned());
            }
        }
        for warning in status["warnings"].as_array().into_iter().flatten() {
            let short = base64::engine::general_purpose::STANDARD.decode(warning["short"].as_str().unwrap_or_default());
            warnings.push(String::from_utf8(short.expect("base64")).expect("text"));
        }
    }
    (ran, std::fs::read_to_string(env.path("id")).expect("written"), warnings)
}

/// A project with two stages; the same files give the same steps on every machine.
pub(crate) fn project() -> TestEnv {
    let env = TestEnv::new();
    let dockerfile = format!(
        "FROM {} AS build\nCOPY src /src\nRUN cat /src/a > /all\nRUN cat /all > /app; echo built >> /app\n\
         FROM {}\nCOPY --from=build /app /app\nRUN echo more > /more\n",
        base(),
        base()
    );
    env.write("Dockerfile", dockerfile).write("src/a", "1\n");
    env
}

const NOTHING: [&str; 0] = [];

fn round_trip(test: &str, to: &str, from: &str) {
    if !require_sandbox(test) {
        return;
    }
    let first = project();
    let (ran, id, warnings) = build(&first, &format!("--output=type=image --cache-to {to}"));
    assert_eq!((ran.len(), warnings), (5, Vec::new()), "{ran:?}");
    let second = project();
    let options = format!("--output=type=oci,dest=../image.tar --cache-from {from}");
    let (ran, again, warnings) = build(&second, &options);
    assert_eq!((ran, warnings), (NOTHING.map(str::to_owned).to_vec(), Vec::new()));
    assert_eq!(again, id);
    // What was brought is there for the next build.
    assert_eq!(build(&second, "").0, NOTHING);
    // A change runs what sees it, on files that are fetched for it.
    let third = project();
    third.write("src/a", "2\n");
    let (ran, other, warnings) = build(&third, &format!("--cache-from {from} --cache-to {to}"));
    assert_eq!(ran.len(), 5, "{ran:?}");
    assert_eq!(warnings, NOTHING);
    assert_ne!(other, id);
    let fourth = project();
    fourth.write("src/a", "2\n");
    let (ran, again, _) = build(&fourth, &format!("--cache-from {from}"));
    assert_eq!((ran.as_slice(), again), (&NOTHING.map(str::to_owned)[..], other));
}

/// Pushes a base image with a directory `/made`.
pub(crate) fn publish_base(name: &str) {
    let publisher = TestEnv::new();
    publisher.write("Dockerfile", format!("FROM {}\nRUN mkdir /made\n", base()));
    publisher.ok(&format!("build -q --push -t {name} ."));
}

/// A project on that base image: a copy that asks it for a user, a command, and `more`.
pub(crate) fn project_on(base: &str, more: &str) -> TestEnv {
    let env = TestEnv::new();
    let dockerfile = format!("FROM {base}\nCOPY --chown=app a /made/\nRUN cat /made/a > /b\n{more}");
    env.write("Dockerfile", dockerfile).write("a", "content");
    env
}

// Rows: B10.
#[test]
fn a_cache_travels_through_a_registry() {
    let registry = Registry::start();
    let name = registry.name("cache/app:main");
    round_trip("a_cache_travels_through_a_registry", &format!("type=registry,ref={name}"), &name);
}

#[test]
fn a_cache_travels_through_a_bucket() {
    let server = Moto::start();
    let keys = "access_key_id=me,secret_access_key=secret,region=us-east-1";
    let place = format!(
        "type=s3,bucket=bucket,prefix=team/app/,endpoint_url=http://{},use_path_style=true,{keys}",
        server.address
    );
    round_trip(
        "a_cache_travels_through_a_bucket",
        &format!("{place},name=main;latest"),
        &format!("{place},name=latest"),
    );
    let listed = server.request("GET /bucket?list-type=2&prefix=team/app/manifests/");
    for name in ["main", "latest"] {
        assert!(listed.contains(&format!("<Key>team/app/manifests/{name}</Key>")), "{listed}");
    }
    // What a build still needs is made to look new.
    let env = project();
    let (_, _, warnings) = build(&env, &format!("--cache-to {place},touch_refresh=0s,upload_parallelism=1"));
    assert_eq!(warnings, NOTHING);
    // A large layer goes in parts.
    let large = TestEnv::new();
    let bytes: Vec<u8> =
        (0..5_u32 << 20).flat_map(|n| n.wrapping_mul(2_654_435_761).rotate_left(n % 29).to_le_bytes()).collect();
    large
        .write("Dockerfile", format!("FROM {}\nCOPY large /\nRUN cat /large > /copy\n", base()))
        .write("large", &bytes);
    let (_, id, warnings) = build(&large, &format!("--cache-to {place},name=large,compression=uncompressed"));
    assert_eq!(warnings, NOTHING);
    let again = TestEnv::new();
    again.write("Dockerfile", std::fs::read(large.context("Dockerfile")).expect("readable")).write("large", &bytes);
    let (ran, same, warnings) = build(&again, &format!("-t large:1 --cache-from {place},name=large"));
    assert_eq!((ran.as_slice(), warnings.as_slice(), same), (&[][..], &[][..], id));
    let missing = place.replace("bucket=bucket", "bucket=nothing");
    let (_, _, warnings) = build(&env, &format!("--cache-to {missing}"));
    assert!(warnings[0].contains("NoSuchBucket"), "{warnings:?}");
}

#[test]
fn a_cache_travels_through_github_actions() {
    let service = Actions::start();
    let place = format!("type=gha,url_v2={}/,token=t0ken,scope=main", service.url);
    round_trip("a_cache_travels_through_github_actions", &format!("{place},timeout=10m"), &place);
    service.take();
    // Nothing is new: no entry is made, whether the service is asked for each blob or GitHub for a list.
    let env = project();
    build(&env, &format!("--cache-from {place} --cache-to {place}"));
    service.take();
    let listed = format!("{place},repository=me/app,ghtoken=t0ken");
    for (place, asks) in [(&place, "GetCacheEntryDownloadURL"), (&listed, "/repos/me/app/actions/caches")] {
        let mut command = env.command(["build", "--progress=plain", "--cache-to", place, "."]);
        let ended = end(command.env("GITHUB_API_URL", &service.url));
        let requests = service.take();
        assert!(ended.code == 0 && !ended.stderr.contains("warning"), "{}", ended.stderr);
        assert!(requests.iter().all(|line| !line.contains("CreateCacheEntry")), "{requests:#?}");
        assert!(requests.iter().any(|line| line.contains(asks)), "{requests:#?}");
    }
    // GitHub removes entries as it likes.
    service.forget("rbuild-blob-");
    let (ran, _, warnings) = build(&project(), &format!("--cache-from {place}"));
    assert_eq!((ran.len(), warnings.len()), (5, 1), "{warnings:?}");
    // The next export brings them back, although nothing is new.
    build(&env, &format!("--cache-to {place}"));
    let (ran, _, warnings) = build(&project(), &format!("--cache-from {place}"));
    assert_eq!((ran, warnings), (vec![], vec![]));
    let (_, _, warnings) = build(&env, &format!("--cache-to {}", place.replace("t0ken", "wrong")));
    assert!(warnings[0].contains("CreateCacheEntry") || warnings[0].contains("status 401"), "{warnings:?}");
}

// Rows: B10.
#[test]
fn a_cache_travels_through_a_directory() {
    let shared = tempfile::tempdir().expect("a temporary directory");
    let directory = shared.path().join("cache").display().to_string();
    let to = format!("type=local,dest={directory},mode=max,compression=zstd");
    round_trip("a_cache_travels_through_a_directory", &to, &format!("type=local,src={directory}"));
    let blobs = || std::fs::read_dir(Path::new(&directory).join("blobs/sha256")).expect("listed").count();
    let env = project();
    env.write("src/a", "2\n");
    build(&env, &format!("--cache-to {to}"));
    let before = blobs();
    for number in 0..3 {
        env.write("src/a", format!("{number}\n"));
        build(&env, &format!("--cache-to {to}"));
    }
    assert_eq!(blobs(), before, "what no index names is gone");
    // Unless it is to stay: then an older cache can be read by its digest.
    let index = || {
        let index = std::fs::read(Path::new(&directory).join("index.json")).expect("readable");
        serde_json::from_slice::<serde_json::Value>(&index).expect("JSON")["manifests"][0]["digest"].clone()
    };
    let old = index();
    env.write("src/a", "new\n");
    build(&env, &format!("--cache-to {to},reset=false"));
    assert!(blobs() > before && index() != old, "{old}");
    let other = project();
    other.write("src/a", "2\n");
    let from = format!("type=local,src={directory},digest={}", old.as_str().expect("a digest"));
    assert_eq!(build(&other, &format!("--cache-from {from}")).0, NOTHING);
    env.write("src/a", "newer\n");
    build(&env, &format!("--cache-to {to},reset=true"));
    assert_eq!(blobs(), before);
}

// Rows: P15.
#[test]
fn a_push_of_an_unchanged_image_fetches_records_and_no_layer() {
    let test = "a_push_of_an_unchanged_image_fetches_records_and_no_layer";
    if !require_sandbox(test) {
        return;
    }
    let registry = Registry::start();
    let recorder = Recorder::before(&registry.address);
    let name = |name: &str| format!("{}/{name}", recorder.address);
    publish_base(&name("base:1"));
    let project = || project_on(&name("base:1"), "");
    let options =
        format!("--push -t {} --cache-to {} --cache-from {}", name("app:1"), name("cache:1"), name("cache:1"));
    let first = build(&project(), &options);
    assert_eq!(first.2, NOTHING, "a cache that is not there yet is no reason to warn");
    recorder.take();
    let fresh = project();
    let second = build(&fresh, &options);
    assert_eq!((second.0.as_slice(), &second.1), (&NOTHING.map(str::to_owned)[..], &first.1));
    let requests = recorder.take();
    let fetched: Vec<&str> = requests.iter().filter_map(|line| line.strip_prefix("GET /v2/")).collect();
    let of = |part: &str| fetched.iter().filter(|path| path.contains(part)).count();
    assert_eq!(of("base/manifests/"), 1, "{requests:#?}");
    assert_eq!(of("base/blobs/"), 1, "the config, and no layer: {requests:#?}");
    assert_eq!(of("app/"), 0, "{requests:#?}");
    assert_eq!(of("cache/manifests/"), 2, "for reading and for writing: {requests:#?}");
    assert_eq!(of("cache/blobs/"), 3, "the index, records and trees: {requests:#?}");
    let sent = requests.iter().filter(|line| line.starts_with("POST") || line.contains("PUT /v2/cache/"));
    assert_eq!(sent.count(), 0, "{requests:#?}");
    // With the files at hand a build asks nobody, and an export only whether anything is new.
    build(&fresh, &format!("--cache-from {}", name("cache:1")));
    recorder.take();
    build(&fresh, &format!("--cache-from {} --cache-to {}", name("cache:1"), name("cache:1")));
    let requests = recorder.take();
    let of_cache: Vec<_> = requests.iter().filter(|line| line.contains("/cache/")).collect();
    // The users of the base image come from the index: its layer was never unpacked here.
    assert!(of_cache.len() <= 3 && of_cache.iter().all(|line| line.starts_with("GET")), "{requests:#?}");
}

// Rows: P17.
#[test]
fn a_small_cache_has_the_layers_of_the_result_and_what_is_known_of_all_steps() {
    let test = "a_small_cache_has_the_layers_of_the_result_and_what_is_known_of_all_steps";
    if !require_sandbox(test) {
        return;
    }
    let shared = tempfile::tempdir().expect("a temporary directory");
    let place = |mode: &str| shared.path().join(mode).display().to_string();
    let first = project();
    let (_, id, _) = build(
        &first,
        &format!(
            "--output=type=oci,dest=../image.tar --cache-to type=local,dest={},mode=min --cache-to type=local,dest={}",
            place("min"),
            place("max")
        ),
    );
    let blobs = |mode: &str| std::fs::read_dir(Path::new(&place(mode)).join("blobs/sha256")).expect("listed").count();
    // What `RUN` made of `/app` and its copy are one layer.
    assert_eq!(blobs("max") - blobs("min"), 2, "what only the first stage has");
    let mut ids = Vec::new();
    for (mode, again) in [("min", true), ("max", false)] {
        let from = format!("--output=type=oci,dest=../image.tar --cache-from type=local,src={}", place(mode));
        let (ran, same, warnings) = build(&project(), &from);
        assert_eq!((ran.as_slice(), same, warnings.as_slice()), (&[][..], id.clone(), &[][..]), "{mode}");
        // A later step of the first stage needs files of an earlier one.
        let changed = project();
        let dockerfile = std::fs::read_to_string(changed.context("Dockerfile")).expect("there");
        changed.write("Dockerfile", dockerfile.replace("echo built", "echo rebuilt"));
        let (ran, other, warnings) = build(&changed, &from);
        assert_eq!(ran.contains(&"RUN cat /src/a > /all".to_owned()), again, "{mode}: {ran:?}");
        assert!(ran.iter().any(|step| step.contains("rebuilt")) && warnings.is_empty(), "{mode}: {ran:?} {warnings:?}");
        ids.push(other);
    }
    assert!(ids.iter().all(|other| *other != id), "{ids:?}");
}

// Rows: P18.
#[test]
fn image_and_cache_in_one_registry_share_what_was_sent_once() {
    if !require_sandbox("image_and_cache_in_one_registry_share_what_was_sent_once") {
        return;
    }
    let registry = Registry::start();
    let recorder = Recorder::before(&registry.address);
    let name = |name: &str| format!("{}/{name}", recorder.address);
    let env = project();
    build(&env, &format!("--push -t {} -t {} --cache-to {}", name("app:1"), name("other:1"), name("cache:1")));
    let requests = recorder.take();
    let sent = requests.iter().filter(|line| line.starts_with("PUT ") && line.contains("/blobs/uploads/"));
    let mut sent: Vec<&str> = sent.filter_map(|line| line.split("digest=").nth(1)).collect();
    let all = sent.len();
    sent.sort_unstable();
    sent.dedup();
    assert!(all >= 6 && sent.len() == all, "{requests:#?}");
    assert!(requests.iter().any(|line| line.starts_with("POST ") && line.contains("mount=")), "{requests:#?}");
}

// Rows: P15.
#[test]
fn layers_leave_while_later_steps_run() {
    if !require_sandbox("layers_leave_while_later_steps_run") {
        return;
    }
    let registry = Registry::start();
    let recorder = Recorder::before(&registry.address);
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nRUN echo one > /one\nRUN sleep 3; exit 1\n", base()));
    let to = format!("--cache-to type=registry,ref={}", format_args!("{}/cache/app:main", recorder.address));
    env.fails(&format!("build -q {to} ."));
    // The build failed, so nothing was exported at its end.
    let asked = recorder.take();
    assert!(
        asked.iter().any(|request| request.starts_with("PUT ") && request.contains("/blobs/uploads/")),
        "{asked:?}"
    );
    assert!(!asked.iter().any(|request| request.starts_with("PUT ") && request.contains("/manifests/")), "{asked:?}");
}

#[test]
fn tokens_that_end_in_the_middle_are_replaced() {
    let registry = Registry::start();
    // Several requests go at the same time: the last ones of a token belong to different threads.
    for requests in [8, 15] {
        let (gate, tokens) = behind_tokens(&registry.address, requests);
        let name = format!("{gate}/cache/tokens{requests}:main");
        round_trip("tokens_that_end_in_the_middle_are_replaced", &format!("type=registry,ref={name}"), &name);
        assert!(tokens.load(std::sync::atomic::Ordering::SeqCst) > 4, "{tokens:?}");
    }
}

/// An address at which connections are never made: nobody accepts any, and no more are kept waiting.
fn full() -> (Vec<std::net::TcpStream>, String) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    rustix::net::listen(&listener, 0).expect("listens already");
    let address = listener.local_addr().expect("bound");
    let mut held = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, std::time::Duration::from_millis(200)) {
        held.push(stream);
    }
    std::mem::forget(listener);
    (held, address.to_string())
}

// Rows: P16.
#[test]
fn a_cache_that_is_away_slow_or_wrong_costs_one_warning() {
    let test = "a_cache_that_is_away_slow_or_wrong_costs_one_warning";
    if !require_sandbox(test) {
        return;
    }
    let check = |what: &str, address: &str| {
        let env = TestEnv::new();
        env.write("Dockerfile", format!("FROM {}\nRUN echo a > /a\nRUN echo b > /b\n", base()));
        let source = format!("type=registry,ref={address}/cache:1,timeout=1s");
        let begun = std::time::Instant::now();
        let (ran, _, warnings) = build(&env, &format!("--cache-from {source}"));
        assert_eq!(ran.len(), 2, "{what}");
        assert_eq!(warnings.len(), 1, "{what}: {warnings:?}");
        assert!(warnings[0].contains("/cache:1` is not used any further: "), "{what}: {warnings:?}");
        assert!(begun.elapsed().as_secs() < 30, "{what}: {:?}", begun.elapsed());
    };
    check("nobody there", "127.0.0.1:1");
    let (_full, unreachable) = full();
    check("no connection", &unreachable);
    check("silence", &answering(None));
    check("errors", &answering(Some(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")));
    check(
        "limits",
        &answering(Some(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n")),
    );
    check("nonsense", &answering(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"schema")));
    check("refusal", &answering(Some(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n")));
    // What is sent while the build runs does not hold it either.
    for address in [
        answering(None),
        answering(Some(b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n")),
        unreachable,
    ] {
        let env = TestEnv::new();
        env.write("Dockerfile", format!("FROM {}\nRUN echo a > /a\n", base()));
        let begun = std::time::Instant::now();
        let (_, _, warnings) = build(&env, &format!("--cache-to type=registry,ref={address}/cache:1,timeout=1s"));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].contains("it did not answer within 1 second"), "{warnings:?}");
        assert!(begun.elapsed().as_secs() < 20, "{:?}", begun.elapsed());
    }
    // Writing fails the build only if that was asked for.
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nLABEL a=b\n");
    let (_, _, warnings) = build(&env, "--cache-to 127.0.0.1:1/cache:1");
    assert!(warnings[0].starts_with("the cache was not written to `127.0.0.1:1/cache:1`: "), "{warnings:?}");
    let quiet = env.ok("build -q --cache-to 127.0.0.1:1/cache:1 .").stderr;
    assert!(quiet.starts_with("warning: the cache was not written to `127.0.0.1:1/cache:1`: "), "{quiet}");
    let failed = env.fails("build --progress=quiet --cache-to type=registry,ref=127.0.0.1:1/cache:1,strict .");
    assert!(failed.contains("cannot write the cache to `127.0.0.1:[PORT]/cache:1`"), "{failed}");
}

/// A registry that has nothing, lets uploads begin, and reads nothing of them. Returns its address, and how many began.
fn swallowing() -> (String, std::sync::Arc<std::sync::atomic::AtomicUsize>) {
    use std::io::{BufRead as _, BufReader, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound").to_string();
    let begun = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let (location, count) = (format!("http://{address}/upload"), std::sync::Arc::clone(&begun));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (location, count) = (location.clone(), std::sync::Arc::clone(&count));
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().expect("duplicated")).lines();
                while let Some(Ok(first)) = lines.next() {
                    while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
                    let answer = match first.split(' ').next() {
                        Some("GET") if first.contains("/v2/ ") => "200 OK\r\n".to_owned(),
                        Some("POST") => format!("202 Accepted\r\nlocation: {location}\r\n"),
                        Some("PUT" | "PATCH") => {
                            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            std::thread::park();
                            return;
                        }
                        _ => "404 Not Found\r\n".to_owned(),
                    };
                    let answer = format!("HTTP/1.1 {answer}content-length: 0\r\n\r\n");
                    if (&stream).write_all(answer.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, begun)
}

// Rows: P16.
#[test]
fn a_place_that_stops_reading_or_answering_is_given_up() {
    let env = TestEnv::new();
    // More than the kernel takes on its way.
    env.write("large", vec![7; 12 << 20]).write("Dockerfile", "FROM scratch\nCOPY large /\n");
    let (address, uploads) = swallowing();
    let begun = std::time::Instant::now();
    let to = format!("type=registry,ref={address}/cache:1,compression=uncompressed,stall-timeout=1s");
    let (_, _, warnings) = build(&env, &format!("--cache-to {to}"));
    let reason = "nothing came or went for 1 seconds";
    assert_eq!(warnings, [format!("the cache was not written to `{address}/cache:1`: {reason}")]);
    assert!(uploads.load(std::sync::atomic::Ordering::SeqCst) >= 1);
    let failed = env.fails(&format!("build --progress=quiet --cache-to {to},strict ."));
    assert!(failed.contains(reason) && failed.contains("stall-timeout=2m"), "{failed}");
    // With all the time that it takes.
    let silent = answering(None);
    let source = format!("type=registry,ref={silent}/cache:1,timeout=10m,stall-timeout=1s");
    let (_, _, warnings) = build(&env, &format!("--no-cache --cache-from {source}"));
    assert_eq!(warnings, [""; 0], "nobody is asked with `--no-cache`");
    env.write("large", "other");
    let (_, _, warnings) = build(&env, &format!("--cache-from {source}"));
    assert_eq!(warnings, [format!("cache `{silent}/cache:1` is not used any further: {reason}")]);
    assert!(begun.elapsed().as_secs() < 25, "{:?}", begun.elapsed());
}

/// Damages a cache in a directory; a build that reads it has to give the right image all the same.
#[test]
fn a_damaged_cache_is_noticed_and_the_steps_run() {
    let test = "a_damaged_cache_is_noticed_and_the_steps_run";
    if !require_sandbox(test) {
        return;
    }
    let shared = tempfile::tempdir().expect("a temporary directory");
    let directory = shared.path().join("cache");
    let (_, id, _) = build(&project(), &format!("--cache-to type=local,dest={}", directory.display()));
    let copy = |number: usize| {
        let to = shared.path().join(format!("copy-{number}"));
        let copied = std::process::Command::new("cp").arg("-r").arg(&directory).arg(&to).status();
        assert!(copied.expect("cp").success());
        to
    };
    let blobs: Vec<_> = std::fs::read_dir(directory.join("blobs/sha256"))
        .expect("listed")
        .map(|blob| blob.expect("listed").file_name())
        .collect();
    assert!(blobs.len() >= 8, "a manifest, an index, records, trees, layers: {blobs:?}");
    for (number, blob) in blobs.iter().enumerate() {
        let directory = copy(number);
        let path = directory.join("blobs/sha256").join(blob);
        let good = std::fs::read(&path).expect("readable");
        match number % 3 {
            0 => std::fs::write(&path, &good[..good.len() / 2]).expect("written"),
            1 => std::fs::write(&path, vec![b'x'; good.len()]).expect("written"),
            _ => std::fs::remove_file(&path).expect("removed"),
        }
        let options =
            format!("--output=type=oci,dest=../image.tar --cache-from type=local,src={}", directory.display());
        let (_, again, warnings) = build(&project(), &options);
        assert!(again.starts_with("sha256:") && !id.is_empty());
        assert!(warnings.len() <= 2, "{warnings:?}");
    }
}

// Rows: P11.
#[test]
fn cache_mounts_travel() {
    let test = "cache_mounts_travel";
    if !require_sandbox(test) {
        return;
    }
    let registry = Registry::start();
    let options = |more: &str| format!("--cache-from {0} --cache-to {0}{more}", registry.name("mounts:1"));
    let options = |more: &str| options(more).replace("--cache-to ", "--cache-to type=registry,ref=");
    let project = |word: &str| {
        let env = TestEnv::new();
        let mount = "--mount=type=cache,id=words,target=/c";
        env.write(
            "Dockerfile",
            format!("FROM {}\nRUN {mount} echo {word} >> /c/words; cat /c/words > /seen\n", base()),
        );
        env
    };
    let seen = |env: &TestEnv| {
        build(env, &format!("--output=type=local,dest=../files {}", options(",mounts=all")));
        std::fs::read_to_string(env.path("files/seen")).expect("written")
    };
    assert_eq!(seen(&project("one")), "one\n");
    assert_eq!(seen(&project("two")), "one\ntwo\n", "a fresh machine has what the first one wrote");
    // A build whose steps all hit keeps what is there.
    let third = project("two");
    assert_eq!(seen(&third), "one\ntwo\n");
    assert_eq!(third.ok("cache mounts ls --format json").stdout, "", "nothing needed it");
    let fourth = project("four");
    assert_eq!(seen(&fourth), "one\ntwo\nfour\n");

    // As files, and gone.
    let listed = fourth.ok("cache mounts ls --format {{.ID}}").stdout;
    assert_eq!(listed, "words\n");
    fourth.ok("cache mounts export words -o ../words.mount");
    assert_eq!(fourth.ok("cache mounts rm words").stdout, "words\n");
    assert_eq!(fourth.ok("cache mounts ls --format {{.ID}}").stdout, "");
    assert_eq!(fourth.ok("cache mounts import ../words.mount").stdout, "words\n");
    fourth.write(
        "Dockerfile",
        std::fs::read_to_string(fourth.context("Dockerfile")).expect("there").replace("four", "five"),
    );
    build(&fourth, "--output=type=local,dest=../files");
    assert_eq!(std::fs::read_to_string(fourth.path("files/seen")).expect("written"), "one\ntwo\nfour\nfive\n");
    let missing = fourth.fails("cache mounts rm other");
    assert!(missing.contains("there is no cache mount `other`"), "{missing}");
    fourth.write("nonsense", "nonsense");
    let nonsense = fourth.fails("cache mounts import nonsense");
    assert!(nonsense.starts_with("exit code: 1\nerror: "), "{nonsense}");
}

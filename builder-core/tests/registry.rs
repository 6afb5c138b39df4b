//! The registry client against Debian's `docker-registry`, with `skopeo` as a foreign judge.
//!
//! Each test starts its own registry on a free loopback port. Where a program is not installed the test says so and
//! does nothing.
#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use builder_core::cancel::CancelToken;
use builder_core::content::ContentStore;
use builder_core::oci::{Descriptor, MediaType, Platform, Reference};
use builder_core::registry::{
    BlobToPush, Credential, ImageToPush, Registry, RegistryConfig, RegistryError, TransferEvent,
};
use flate2::{Compression, write::GzEncoder};

/// `me:secret` as `htpasswd -B` writes it.
const HTPASSWD: &str = "me:$2b$04$VTNZV4sfews0gX43/V/f9.NRmHjnNxN4OfbjMjp5R2Ageg9wc4Zeu\n";

/// A registry process; it ends with the test.
struct RegistryProcess {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl RegistryProcess {
    fn start(more: &str) -> Option<Self> {
        let program = Path::new("/usr/bin/docker-registry");
        if !program.exists() {
            println!("skipped: {} is not installed", program.display());
            return None;
        }
        // Between the moment when a port is found free and the moment when the registry listens on it somebody else may
        // take it; the registry ends then.
        let started = (0..10).find_map(|_| Self::try_start(program, more));
        Some(started.expect("the registry does not listen"))
    }

    fn try_start(program: &Path, more: &str) -> Option<Self> {
        let directory = tempfile::tempdir().expect("temporary directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a free port").port();
        let root = directory.path().display();
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {root}/data\n  delete:\n    enabled: true\n\
             http:\n  addr: 127.0.0.1:{port}\n{more}"
        );
        let file = directory.path().join("config.yml");
        std::fs::write(&file, config).expect("written");
        let child = Command::new(program)
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut process = Self { child, port, _directory: directory };
        let deadline = Instant::now() + Duration::from_secs(20);
        while process.child.try_wait().expect("a child of this process").is_none() && Instant::now() < deadline {
            if answers(port) {
                return Some(process);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        None
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn image(&self, name: &str) -> Reference {
        format!("{}/{name}", self.host()).parse().expect("a reference")
    }
}

/// Whether a registry speaks at a port. A connection alone says nothing: one to a port where nobody listens may reach
/// itself.
fn answers(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    let mut head = [0; 7];
    let asked = stream.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n").and_then(|()| stream.read_exact(&mut head));
    asked.is_ok() && &head == b"HTTP/1."
}

impl Drop for RegistryProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An image of a few layers, in a store.
struct Image {
    layers: Vec<Descriptor>,
    config: Descriptor,
    manifest: Vec<u8>,
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory does not fail");
    encoder.finish().expect("memory does not fail")
}

/// Bytes that do not compress.
fn noise(length: usize, mut seed: u64) -> Vec<u8> {
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    std::iter::repeat_with(|| next().to_le_bytes()).flatten().take(length).collect()
}

fn make_image(content: &ContentStore, layers: &[(usize, u64)]) -> Image {
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for (length, seed) in layers {
        let mut tar = tar::Builder::new(Vec::new());
        let bytes = noise(*length, *seed);
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("file{seed}"), &*bytes).expect("memory does not fail");
        let tar = tar.into_inner().expect("memory does not fail");
        diff_ids.push(builder_core::oci::Digest::sha256(&tar).to_string());
        let blob = gzip(&tar);
        content.put(&blob).expect("stored");
        descriptors.push(Descriptor::of(MediaType::OCI_LAYER_GZIP, &blob));
    }
    let config = serde_json::json!({"architecture":"amd64","os":"linux","config":{"Cmd":["/bin/true"]},
        "rootfs":{"type":"layers","diff_ids":diff_ids}});
    let config = config.to_string().into_bytes();
    content.put(&config).expect("stored");
    let config = Descriptor::of(MediaType::OCI_CONFIG, &config);
    let manifest =
        serde_json::json!({"schemaVersion":2,"mediaType":MediaType::OCI_MANIFEST,"config":config,"layers":descriptors});
    Image { layers: descriptors, config, manifest: manifest.to_string().into_bytes() }
}

fn push(
    registry: &Registry,
    reference: &Reference,
    image: &Image,
    content: &ContentStore,
    mount_from: &[String],
) -> Result<Vec<TransferEvent>, RegistryError> {
    let open = |descriptor: &Descriptor| -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(content.open_blob(&descriptor.digest).map_err(io::Error::other)?))
    };
    let sources: Vec<_> = image.layers.iter().map(|layer| move || open(layer)).collect();
    let config_source = || open(&image.config);
    let layers = image.layers.iter().zip(&sources);
    let layers =
        layers.map(|(layer, source)| BlobToPush { descriptor: layer.clone(), source, mount_from: mount_from.to_vec() });
    let pushed = ImageToPush {
        manifest: &image.manifest,
        media_type: MediaType::OCI_MANIFEST,
        layers: layers.collect(),
        config: Some(BlobToPush {
            descriptor: image.config.clone(),
            source: &config_source,
            mount_from: mount_from.to_vec(),
        }),
    };
    let events = Mutex::new(Vec::new());
    let event = |event| events.lock().expect("no panic").push(event);
    registry.push_image(reference, &pushed, &event, &CancelToken::new())?;
    Ok(events.into_inner().expect("no panic"))
}

fn store(directory: &Path) -> ContentStore {
    ContentStore::open(&directory.join("state")).expect("opens")
}

fn kinds(events: &[TransferEvent]) -> (usize, usize, usize) {
    let count = |is: fn(&TransferEvent) -> bool| events.iter().filter(|event| is(event)).count();
    (
        count(|event| matches!(event, TransferEvent::Sent(_))),
        count(|event| matches!(event, TransferEvent::Exists(_))),
        count(|event| matches!(event, TransferEvent::Mounted(..))),
    )
}

fn skopeo(arguments: &[&str]) -> Option<String> {
    if !Path::new("/usr/bin/skopeo").exists() {
        println!("skipped the foreign judge: skopeo is not installed");
        return None;
    }
    let output = Command::new("/usr/bin/skopeo").args(arguments).output().expect("skopeo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn what_is_pushed_comes_back_is_skipped_and_is_mounted() {
    let Some(server) = RegistryProcess::start("") else { return };
    let directory = tempfile::tempdir().expect("temporary directory");
    let (registry, cancel) = (Registry::new(RegistryConfig::default()), CancelToken::new());
    let content = store(directory.path());
    let image = make_image(&content, &[(3_000_000, 1), (1000, 2), (0, 3), (100_000, 4), (5, 5)]);
    let reference = server.image("team/app:1.0");
    let missing = registry.resolve(&reference, &cancel).expect_err("not pushed yet");
    assert!(matches!(missing, RegistryError::ImageNotFound { .. }), "{missing}");

    let events = push(&registry, &reference, &image, &content, &[]).expect("pushed");
    assert_eq!(kinds(&events), (6, 0, 0), "{events:?}");
    let again = push(&registry, &reference, &image, &content, &[]).expect("pushed again");
    assert_eq!(kinds(&again), (0, 6, 0));
    let other = server.image("other/name:2");
    let mounted = push(&registry, &other, &image, &content, &[reference.repository()]).expect("pushed elsewhere");
    assert_eq!(kinds(&mounted), (0, 0, 6));

    let resolved = registry.resolve(&other, &cancel).expect("resolved");
    assert_eq!(resolved.bytes, image.manifest);
    assert_eq!(registry.head(&other, &cancel).expect("asked"), Some(resolved.descriptor.clone()));
    let selected = registry.select_platform(&other, &resolved, &Platform::host(), &cancel).expect("selected");
    assert_eq!(selected.manifest.layers, image.layers);
    let config = registry.blob(&other, &selected.manifest.config, &cancel).expect("fetched");
    assert_eq!(content.read(&image.config.digest, 1 << 20).expect("stored"), config);

    let second = ContentStore::open(&directory.path().join("second")).expect("opens");
    std::thread::scope(|scope| {
        for layer in &image.layers {
            scope.spawn(|| registry.fetch_blob(&other, layer, &second, &|_| {}, &cancel).expect("fetched"));
        }
    });
    for layer in &image.layers {
        assert_eq!(second.has(&layer.digest).expect("asks"), Some(layer.size));
    }
    let pinned = other.with_digest(resolved.descriptor.digest);
    registry.resolve(&pinned, &cancel).expect("by digest");

    let name = format!("docker://{}/team/app:1.0", server.host());
    let Some(inspected) = skopeo(&["inspect", "--tls-verify=false", &name]) else { return };
    let inspected: serde_json::Value = serde_json::from_str(&inspected).expect("JSON");
    assert_eq!(inspected["Layers"].as_array().map(Vec::len), Some(5));
    let layout = format!("oci:{}:x", directory.path().join("layout").display());
    skopeo(&["copy", "--src-tls-verify=false", "--override-os=linux", "--override-arch=amd64", &name, &layout]);
}

#[test]
fn what_skopeo_pushes_in_dockers_format_can_be_pulled() {
    let Some(server) = RegistryProcess::start("") else { return };
    let directory = tempfile::tempdir().expect("temporary directory");
    let (registry, cancel) = (Registry::new(RegistryConfig::default()), CancelToken::new());
    let content = store(directory.path());
    let image = make_image(&content, &[(100_000, 6)]);
    push(&registry, &server.image("a:oci"), &image, &content, &[]).expect("pushed");
    let (from, to) = (format!("docker://{}/a:oci", server.host()), format!("docker://{}/a:docker", server.host()));
    let copy = ["copy", "-f", "v2s2", "--override-os=linux", "--override-arch=amd64"];
    let options = ["--src-tls-verify=false", "--dest-tls-verify=false", &from, &to];
    let Some(_) = skopeo(&[&copy[..], &options[..]].concat()) else { return };
    let docker = server.image("a:docker");
    let resolved = registry.resolve(&docker, &cancel).expect("resolved");
    assert_eq!(resolved.descriptor.media_type, MediaType::DOCKER_MANIFEST);
    let selected = registry.select_platform(&docker, &resolved, &Platform::host(), &cancel).expect("selected");
    let mut stream =
        registry.open_and_store_blob(&docker, &selected.manifest.layers[0], &content, &cancel).expect("opens");
    let mut first = [0; 2];
    stream.read_exact(&mut first).expect("reads");
    assert_eq!(first, [0x1f, 0x8b]);
    stream.finish().expect("the rest is right");
}

#[test]
fn passwords_are_tried_and_wrong_ones_are_named() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let htpasswd = directory.path().join("htpasswd");
    std::fs::write(&htpasswd, HTPASSWD).expect("written");
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", htpasswd.display());
    let Some(server) = RegistryProcess::start(&auth) else { return };
    let content = store(directory.path());
    let image = make_image(&content, &[(1000, 7)]);
    let reference = server.image("private/app");
    let with = |password: &str| {
        let credential = Credential::Password { username: "me".to_owned(), password: password.to_owned() };
        Registry::new(RegistryConfig { credentials: [(server.host(), credential)].into(), ..RegistryConfig::default() })
    };
    let error = push(&with("wrong"), &reference, &image, &content, &[]).expect_err("refused");
    assert_eq!(error.to_string(), format!("registry `{}` refused the credentials for `private/app`", server.host()));
    push(&with("secret"), &reference, &image, &content, &[]).expect("pushed");
    let docker = directory.path().join("docker");
    let registry = Registry::new(RegistryConfig { docker_config: Some(docker), ..RegistryConfig::default() });
    let cancel = CancelToken::new();
    let error = registry.resolve(&reference, &cancel).expect_err("not logged in");
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");
    registry.login(&server.host(), "me", "secret", &cancel).expect("logged in");
    registry.resolve(&reference, &cancel).expect("resolved");
}

/// A certificate for 127.0.0.1 that signs itself.
fn certificate(directory: &Path) -> Option<(PathBuf, PathBuf)> {
    let (certificate, key) = (directory.join("own.crt"), directory.join("own.key"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args([
            "-subj",
            "/CN=test",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
        ])
        .arg("-out")
        .arg(&certificate)
        .arg("-keyout")
        .arg(&key)
        .output();
    if !made.is_ok_and(|output| output.status.success()) {
        println!("skipped: openssl is not installed");
        return None;
    }
    Some((certificate, key))
}

#[test]
fn certificates_are_checked_unless_the_registry_is_listed_as_insecure() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let Some((certificate, key)) = certificate(directory.path()) else { return };
    let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", certificate.display(), key.display());
    let Some(server) = RegistryProcess::start(&tls) else { return };
    let cancel = CancelToken::new();
    let host = server.host();
    let certificates = directory.path().join("certs.d");
    // A directory of its own makes a loopback registry one that speaks https.
    std::fs::create_dir_all(certificates.join(&host)).expect("made");
    let config = || RegistryConfig { certificate_directories: vec![certificates.clone()], ..RegistryConfig::default() };
    let error = Registry::new(config()).ping(&host, &cancel).expect_err("an unknown certificate");
    assert!(matches!(error, RegistryError::Tls { .. }), "{error:?}");
    Registry::new(RegistryConfig { ca_files: vec![certificate.clone()], ..config() })
        .ping(&host, &cancel)
        .expect("trusted");
    let insecure = RegistryConfig { insecure: [host.clone()].into(), ..RegistryConfig::default() };
    Registry::new(insecure).ping(&host, &cancel).expect("not checked");
    std::fs::copy(&certificate, certificates.join(&host).join("ca.crt")).expect("copied");
    let registry = Registry::new(config());
    registry.ping(&host, &cancel).expect("trusted for this host");
    let content = store(directory.path());
    let image = make_image(&content, &[(500_000, 8)]);
    push(&registry, &server.image("tls/app"), &image, &content, &[]).expect("pushed over TLS");
    registry.resolve(&server.image("tls/app"), &cancel).expect("resolved over TLS");
}

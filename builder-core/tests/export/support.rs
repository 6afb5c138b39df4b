//! A store with images made of a few files, and a registry process.
#![expect(unreachable_pub, reason = "a module of a test")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use builder_core::cancel::CancelToken;
use builder_core::content::ContentStore;
use builder_core::export::{ExportContext, ExportError, ExportImage, Exported, Output, export};
use builder_core::image::{ImageLayer, ImageStep, LayerSource, UnassembledImage};
use builder_core::layer::Files;
use builder_core::oci::{HistoryEntry, ImageConfig};
use builder_core::progress::{Event, Sink, TaskId};
use builder_core::registry::{Registry, RegistryConfig};
use builder_core::rootfs::RootPath;
use builder_core::snapshot::SnapshotStore;
use builder_core::tree::{ContentDigest, Entry, Node, Time, Tree, TreeBuilder, TreeStore};

/// A store in a temporary directory.
pub struct Store {
    pub dir: tempfile::TempDir,
    pub content: ContentStore,
    pub snapshots: SnapshotStore,
    pub trees: TreeStore,
    pub registry: Registry,
    pub cancel: CancelToken,
    pub events: Events,
    pub epoch: Option<i64>,
}

/// Remembers what was told.
#[derive(Default)]
pub struct Events(Mutex<Vec<String>>);

impl Sink for Events {
    fn event(&self, event: Event) {
        if let Event::Status { id, finished: true, .. } = event {
            self.0.lock().unwrap().push(id);
        }
    }
}

impl Events {
    /// Takes what was told so far.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Store {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        Self {
            content: ContentStore::open(&state).unwrap(),
            snapshots: SnapshotStore::new(&state),
            trees: TreeStore::new(&state),
            registry: Registry::new(RegistryConfig::default()),
            cancel: CancelToken::new(),
            events: Events::default(),
            epoch: None,
            dir,
        }
    }

    /// A path beside the store.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn context(&self) -> ExportContext<'_> {
        ExportContext {
            content: &self.content,
            snapshots: &self.snapshots,
            trees: &self.trees,
            registry: &self.registry,
            cancel: &self.cancel,
            sink: &self.events,
            task: TaskId(1),
            source_date_epoch: self.epoch,
            multi_platform: false,
            stdout: None,
        }
    }

    /// Exports one image; `outputs` are what `--output` takes, with `DIR` for the directory beside the store.
    pub fn export(&self, image: &ExportImage, outputs: &[&str]) -> Result<Exported, ExportError> {
        let outputs: Vec<Output> = outputs
            .iter()
            .map(|text| Output::parse(&text.replace("DIR", self.dir.path().to_str().unwrap())).unwrap())
            .collect();
        export(&self.context(), std::slice::from_ref(image), &outputs)
    }
}

/// Files in a directory of the host, counting how many were opened.
pub struct SourceFiles {
    dir: tempfile::TempDir,
    pub opened: AtomicUsize,
}

impl Files for SourceFiles {
    fn open(&self, entry: &Entry) -> io::Result<File> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        File::open(self.dir.path().join(entry.path.as_relative()))
    }
}

/// A layer: `path=content`, `path/`, `path>target`, `-path`, `path==other` (hard link), `path@file` (copied from the
/// host, executable), each with a mode before a colon if it is not the usual one.
pub fn layer(entries: &[&str]) -> (Tree, Arc<SourceFiles>) {
    let dir = tempfile::tempdir().unwrap();
    let mut builder = TreeBuilder::new();
    let path = |text: &str| RootPath::clean(text).unwrap();
    let mtime = Time { seconds: 1_700_000_000, nanoseconds: 5 };
    let mut links: BTreeMap<String, u32> = BTreeMap::new();
    let mut contents: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for text in entries {
        let (mode, text) = match text.split_once(':') {
            Some((mode, rest)) if mode.bytes().all(|byte| byte.is_ascii_digit()) => {
                (Some(u32::from_str_radix(mode, 8).unwrap()), rest)
            }
            _ => (None, *text),
        };
        let entry = |name: &str, node, mode| Entry { node, ..Entry::directory(path(name), mode, 0, 0, mtime) };
        let mut file = |name: &str, content: Vec<u8>, link: u32, mode: u32| {
            let target = dir.path().join(name.trim_start_matches('/'));
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::write(target, &content).unwrap();
            let node = Node::File { size: content.len() as u64, content: ContentDigest::of(&content), link };
            contents.insert(name.to_owned(), content);
            entry(name, node, mode)
        };
        builder.push(if let Some(name) = text.strip_prefix('-') {
            Entry::whiteout(path(name))
        } else if let Some(name) = text.strip_suffix('/') {
            entry(name, Node::Directory { opaque: false }, mode.unwrap_or(0o755))
        } else if let Some((name, other)) = text.split_once("==") {
            let number = links[other];
            let content = fs::read(dir.path().join(other.trim_start_matches('/'))).unwrap();
            file(name, content, number, mode.unwrap_or(0o644))
        } else if let Some((name, host)) = text.split_once('@') {
            file(name, fs::read(host).unwrap(), 0, mode.unwrap_or(0o755))
        } else if let Some((name, target)) = text.split_once('>') {
            entry(name, Node::Symlink { target: target.into() }, 0o777)
        } else {
            let (name, content) = text.split_once('=').unwrap();
            let number = u32::try_from(links.len()).unwrap() + 1;
            // Numbered files can be linked to; a number of its own is not a link.
            let linked = entries.iter().any(|other| other.ends_with(&format!("=={name}")));
            links.insert(name.to_owned(), number);
            file(name, content.into(), if linked { number } else { 0 }, mode.unwrap_or(0o644))
        });
    }
    (builder.finish(), Arc::new(SourceFiles { dir, opened: AtomicUsize::new(0) }))
}

/// An image of layers that were made here.
pub fn image(layers: &[(Tree, Arc<SourceFiles>)]) -> ExportImage {
    let mut config = ImageConfig { architecture: "amd64".to_owned(), os: "linux".to_owned(), ..ImageConfig::default() };
    config.config.cmd = Some(vec!["/bin/busybox".to_owned(), "cat".to_owned(), "/etc/greeting".to_owned()]);
    config.config.env = vec!["PATH=/bin".to_owned()];
    let step = |number: usize| ImageStep {
        entry: HistoryEntry { created_by: format!("COPY {number}"), ..HistoryEntry::default() },
        layer: true,
        created: Some(jiff::Timestamp::from_second(1_700_000_000 + i64::try_from(number).unwrap()).unwrap()),
    };
    let source =
        |(tree, files): &(Tree, Arc<SourceFiles>)| LayerSource::Tree { tree: tree.clone(), files: files.clone() };
    let unassembled = UnassembledImage {
        config,
        steps: (0..layers.len()).map(step).collect(),
        layers: layers.iter().map(|layer| ImageLayer { diff_id: None, source: source(layer) }).collect(),
        ..UnassembledImage::default()
    };
    let files = layers.iter().map(|(tree, files)| (tree.clone(), files.clone() as _)).collect();
    ExportImage { image: unassembled, files, cache: None }
}

/// Two layers with everything in them that a layer can have.
pub fn sample() -> (ExportImage, Vec<Arc<SourceFiles>>) {
    let mut below = vec!["bin/", "etc/", "proc/", "dev/", "sys/", "1777:tmp/", "etc/old=x", "etc/greeting=old"];
    if Path::new("/bin/busybox").exists() {
        below.push("bin/busybox@/bin/busybox");
    }
    let above = [
        "etc/greeting=hello\n",
        "-etc/old",
        "link>etc/greeting",
        "data/",
        "data/a=same",
        "data/b==data/a",
        "4755:data/suid=s",
        "0700:private/",
        "private/key=k",
    ];
    let layers = [layer(&below), layer(&above)];
    (image(&layers), layers.iter().map(|(_, files)| Arc::clone(files)).collect())
}

/// A registry process on a free port of the loopback interface.
pub struct RegistryProcess {
    child: Child,
    pub address: String,
    _dir: tempfile::TempDir,
}

impl RegistryProcess {
    /// `None`, with a line that says why, if there is no registry program.
    pub fn start() -> Option<Self> {
        if !have("docker-registry") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        let text = format!(
            "version: 0.1\nlog:\n  level: info\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n",
            storage.display()
        );
        fs::write(&config, text).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = loop {
            let line = lines.next().expect("the registry says where it listens").unwrap();
            if let Some((_, rest)) = line.split_once("listening on ") {
                break rest.split('"').next().unwrap().to_owned();
            }
        };
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, address, _dir: dir })
    }
}

impl Drop for RegistryProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says whether a program is there, and that the test is skipped if it is not.
pub fn have(program: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|directory| directory.join(program).exists()));
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// Runs a program; its standard output, or a panic with what it said.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

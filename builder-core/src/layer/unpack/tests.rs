use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::*;
use crate::layer::{PackOptions, diff_id, fix_implied, pack, resolve_lower_links};
use crate::rootfs::tests::is_first_root;
use crate::snapshot::{Snapshot, SnapshotStore};
use crate::tar::{Header, Kind, encode, padding, trailer};
use crate::tree::{ContentDigest, Entry, Node, Time, TreeBuilder};

fn path(text: &str) -> RootPath {
    RootPath::clean(text).expect("clean")
}

/// `directory/`, `link>target`, `hard=>target`, `null` is a device, else `file=content`; times are 5.
fn header(text: &str) -> (Header, Vec<u8>) {
    let mut header = Header::new(Vec::new(), Kind::File);
    let mut content = Vec::new();
    if let Some((name, target)) = text.split_once("=>") {
        (header.path, header.kind, header.link) = (name.into(), Kind::HardLink, target.into());
    } else if let Some((name, target)) = text.split_once('>') {
        (header.path, header.kind, header.link) = (name.into(), Kind::Symlink, target.into());
    } else if text.ends_with('/') {
        (header.path, header.kind, header.mode) = (text.into(), Kind::Directory, 0o750);
    } else if let Some((name, text)) = text.split_once('=') {
        (header.path, header.mode, header.size) = (name.into(), 0o644, text.len() as u64);
        content = text.into();
    } else {
        header.path = text.into();
    }
    header.mtime = (5, 0);
    (header, content)
}

fn archive(files: impl IntoIterator<Item = (Header, Vec<u8>)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, content) in files {
        encode(&header, &mut bytes).expect("encoded");
        bytes.extend_from_slice(&content);
        bytes.extend_from_slice(padding(content.len() as u64));
    }
    bytes.extend_from_slice(trailer());
    bytes
}

/// A store in a folder that also holds what must never be touched.
struct Bench {
    folder: tempfile::TempDir,
    store: SnapshotStore,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("temporary directory");
        fs::write(folder.path().join("victim"), "precious").expect("written");
        fs::create_dir(folder.path().join("victims")).expect("made");
        let store = SnapshotStore::new(&folder.path().join("state"));
        Self { folder, store }
    }

    /// Everything outside of the store: names, metadata and content.
    fn outside(&self) -> Vec<(PathBuf, u32, u32, i64, i64, u64)> {
        let mut all = Vec::new();
        for name in ["", "victim", "victims"] {
            let found = self.folder.path().join(name);
            let meta = fs::symlink_metadata(&found).expect("still there");
            all.push((found, meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec(), meta.nlink()));
        }
        assert_eq!(fs::read(self.folder.path().join("victim")).expect("still there"), b"precious");
        assert_eq!(fs::read_dir(self.folder.path().join("victims")).expect("still there").count(), 0);
        all
    }

    fn unpack(&self, bytes: &[u8], options: &UnpackOptions<'_>) -> Result<(Unpacked, Active), UnpackError> {
        let active = self.store.begin().expect("begun");
        let before = self.outside();
        let unpacked = unpack(bytes, &active, options);
        assert_eq!(self.outside(), before, "nothing outside is touched");
        unpacked.map(|unpacked| (unpacked, active))
    }

    /// What `files` unpack to, checked against the disk; an error as its text.
    fn show(&self, files: &[&str]) -> String {
        let victim = self.folder.path().join("victim").display().to_string();
        let files = files.iter().map(|text| header(&text.replace("VICTIM", &victim)));
        match self.unpack(&archive(files), &UnpackOptions::default()) {
            Ok((unpacked, active)) => {
                let mut shown = describe(&unpacked.tree, &active.path());
                shown.extend(unpacked.lower_links.iter().map(|link| format!("{}=>{}", link.path, link.target)));
                shown.extend(unpacked.implied.iter().map(|path| format!("implied {path}")));
                self.verify(active, &unpacked.tree);
                shown.join(" ")
            }
            Err(error) => format!("error: {error}"),
        }
    }

    /// Compares the disk with the tree, as after a power loss.
    fn verify(&self, active: Active, tree: &Tree) -> Snapshot {
        let snapshot = self.store.commit(active, tree).expect("committed");
        let meta = snapshot.path().parent().expect("inside").join("meta");
        fs::write(meta, "boot another\nroot 0\n").expect("written");
        self.store.get_verified(tree).expect("asked").expect("the disk holds what the tree says")
    }
}

fn describe(tree: &Tree, root: &Path) -> Vec<String> {
    let describe = |entry: Entry| {
        let name = entry.path.as_relative().display().to_string();
        match &entry.node {
            Node::Whiteout => format!("-{name}"),
            Node::Directory { opaque } => format!("{name}{}", if *opaque { "//" } else { "/" }),
            Node::Symlink { target } => format!("{name}>{}", String::from_utf8_lossy(target)),
            Node::File { link, .. } => {
                let content = fs::read_to_string(root.join(&name)).expect("on disk");
                format!("{name}={content}{}", if *link == 0 { "" } else { "*" })
            }
            other => format!("{name} {other:?}"),
        }
    };
    tree.iter().map(describe).collect()
}

fn check(files: &[&str], expected: &str) {
    let bench = Bench::new();
    let shown = bench.show(files);
    if expected == "error" {
        assert!(shown.starts_with("error: "), "{files:?}: {shown}");
    } else {
        assert_eq!(shown, expected, "{files:?}");
    }
}

#[test]
fn ordinary_entries() {
    check(&["./", "./a/", "./a/f=hello", "l>a/f"], "./ a/ a/f=hello l>a/f");
    check(&["a/b/c=x"], "a/ a/b/ a/b/c=x implied /a implied /a/b");
    check(&["f=1", "g=>f", "h=>g"], "f=1* g=1* h=1*");
    check(&["f=>lower/file", "g=1"], "g=1 /f=>/lower/file");
}

#[test]
fn the_last_of_equal_paths_wins() {
    check(&["f=1", "f=2"], "f=2");
    check(&["d/", "d/f=1", "d/"], "d/ d/f=1");
    check(&["d/", "d/f=1", "d=file"], "d=file");
    check(&["l>x", "l/"], "l/");
    check(&["f=1", "f=>f"], "f=1");
    check(&["f=1", "g=>f", "f=2"], "f=2 g=1");
    check(&["f=>lower", "f=1"], "f=1");
}

#[test]
fn whiteouts_hide_what_is_below_and_only_that() {
    check(&["d/", "d/.wh.gone="], "d/ -d/gone");
    check(&["d/.wh.gone="], "d/ -d/gone implied /d");
    check(&["d/", "d/f=1", "d/.wh..wh..opq="], "d// d/f=1");
    check(&["d/.wh..wh..opq=", "d/", "d/f=1"], "d// d/f=1");
    check(&[".wh.f=", "f=1"], "f=1");
    check(&["f=1", ".wh.f="], "f=1");
    check(&[".wh.d=", "d/", "d/f=1"], "d// d/f=1");
    check(&["d/", "d/f=1", ".wh.d="], "d// d/f=1");
    check(&[".wh.d=", "d/f=1"], "d// d/f=1 implied /d");
    check(&[".wh..wh.plnk/", ".wh..wh.plnk/1.2=x", ".wh..wh.aufs="], "");
    check(&[".wh..wh..opq="], ".//");
}

#[test]
fn names_stay_inside() {
    check(&["../../victim=x"], "victim=x");
    check(&["/../victims/x=1"], "victims/ victims/x=1 implied /victims");
    check(&["/etc/f=1"], "etc/ etc/f=1 implied /etc");
    check(&["a/../../b=1"], "b=1");
    check(&["..=x"], "error");
    check(&["./=x"], "error");
}

#[test]
fn links_are_followed_inside_and_never_written_through() {
    check(&["l>VICTIM", "l=x"], "l=x");
    check(&["l>../../../../victims", "l/x=1"], "l>../../../../victims victims/ victims/x=1 implied /victims");
    check(&["d/", "l>/d", "l/x=1"], "d/ d/x=1 l>/d");
    check(&["l>l", "l/x=1"], "error");
    check(&["f=1", "f/x=1"], "error");
    check(&["l>.wh.x", "l/y=1"], "error");
    // A link, then a directory of its name: nothing of the link's target may change.
    check(&["l>../../../victims", "l/"], "l/");
    check(&["l>../../../victim", ".wh.l="], "l>../../../victim");
}

#[test]
fn hard_links_stay_inside() {
    check(&["h=>../../../victim"], "/h=>/victim");
    check(&["l>../../victims", "h=>l/x", "h2=>/l/../victim"], "l>../../victims /h=>/victims/x /h2=>/victim");
    check(&["d/", "h=>d"], "error");
    check(&[".wh.f=", "h=>f"], "error");
    check(&["h=>/"], "error");
    check(&["l>x", "h=>l", "h=2"], "h=2 l>x");
    check(&["l>x", "h=>l"], "h>x l>x");
}

#[test]
fn reserved_names_are_no_way_out() {
    for name in [".wh.=", ".wh..=", ".wh...=", "d/.wh.="] {
        check(&[name], "error");
    }
    check(&["d/.wh...=x"], "error");
    check(&[".wh.x/f=1"], "error");
    check(&["l>../../../", "l/.wh.victim="], "l>../../../ -victim");
}

#[test]
fn devices_keep_their_numbers_and_0_0_is_a_whiteout() {
    if !is_first_root() {
        return;
    }
    let bench = Bench::new();
    let device = |name: &str, kind, device| (Header { device, mode: 0o666, ..Header::new(name.into(), kind) }, vec![]);
    let bytes = archive([
        device("null", Kind::CharDevice, (1, 3)),
        device("disk", Kind::BlockDevice, (8, 17)),
        device("pipe", Kind::Fifo, (0, 0)),
        device("gone", Kind::CharDevice, (0, 0)),
    ]);
    let (unpacked, active) = bench.unpack(&bytes, &UnpackOptions::default()).expect("unpacked");
    let nodes: Vec<Node> = unpacked.tree.iter().map(|entry| entry.node).collect();
    let (disk, null) = (Node::BlockDevice { major: 8, minor: 17 }, Node::CharDevice { major: 1, minor: 3 });
    assert_eq!(nodes, [disk, Node::Whiteout, null, Node::Fifo]);
    bench.verify(active, &unpacked.tree);
}

#[test]
fn only_attributes_of_images_are_kept_and_setuid_survives_a_chown() {
    if !is_first_root() {
        return;
    }
    let bench = Bench::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
    let names =
        ["security.capability", "trusted.overlay.redirect", "user.ok", "user.overlay.opaque", "security.selinux"];
    let xattrs: Vec<_> = names.iter().map(|name| (name.as_bytes().to_vec(), capability.clone())).collect();
    let header = |name: &str, kind| {
        let header = Header::new(name.into(), kind);
        (Header { xattrs: xattrs.clone(), mode: 0o6755, uid: 77, gid: 88, ..header }, vec![])
    };
    let bytes = archive([header("f", Kind::File), header("d", Kind::Directory)]);
    let (unpacked, active) = bench.unpack(&bytes, &UnpackOptions::default()).expect("unpacked");
    for entry in unpacked.tree.iter() {
        let kept: Vec<_> = entry.xattrs.iter().map(|xattr| xattr.name.clone()).collect();
        assert_eq!(kept, [b"security.capability".to_vec(), b"user.ok".to_vec()]);
        assert_eq!((entry.mode, entry.uid, entry.gid), (0o6755, 77, 88));
    }
    if unpacked.approximated == 0 {
        bench.verify(active, &unpacked.tree);
    }
}

#[test]
fn limits_end_bombs() {
    let bench = Bench::new();
    let check = |bytes: &[u8], limits: UnpackLimits, what: &str| {
        let options = UnpackOptions { limits, archive: None };
        match bench.unpack(bytes, &options).map(|(unpacked, _)| unpacked.size) {
            Err(UnpackError::Limit { what: found, .. }) => assert_eq!(found, what),
            other => panic!("{what}: {other:?}"),
        }
    };
    let small = UnpackLimits { bytes: 100_000, entries: 10, metadata: 2000 };
    let many = archive((0..11).map(|number| header(&format!("{number}="))));
    check(&many, small, "entries");
    check(&archive([header(&format!("{}=", "n".repeat(2000)))]), small, "bytes of names and attributes");
    check(&archive([header(&format!("f={}", "x".repeat(200_000)))]), small, "bytes");
    // Zeros after the end of the archive count too.
    let mut padded = archive([header("f=1")]);
    padded.resize(200_000, 0);
    check(&padded, small, "bytes");
    let compressed = zstd::encode_all(padded.as_slice(), 1).expect("compressed");
    check(&compressed, small, "bytes");
}

#[test]
fn the_diff_id_is_that_of_the_whole_stream_in_every_compression() {
    let bench = Bench::new();
    let mut bytes = archive([header("f=hello")]);
    bytes.resize(bytes.len() + 10_240, 0);
    let expected = crate::oci::Digest::sha256(&bytes);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, &bytes).expect("written");
    for stream in [bytes.clone(), gzip.finish().expect("finished"), zstd::encode_all(&bytes[..], 1).expect("written")] {
        // What follows the compressed stream belongs to the blob.
        let mut source = std::io::Cursor::new(stream);
        let active = bench.store.begin().expect("begun");
        let unpacked = unpack(&mut source, &active, &UnpackOptions::default()).expect("unpacked");
        assert_eq!(unpacked.diff_id.digest(), &expected);
        assert_eq!(unpacked.size, bytes.len() as u64);
        assert_eq!(source.position(), source.get_ref().len() as u64, "read to its end");
    }
}

#[test]
fn damaged_archives_are_one_clear_error() {
    let bench = Bench::new();
    let bytes = archive([header(&format!("f={}", "x".repeat(5000)))]);
    for cut in [700, 3000] {
        let error = bench.unpack(&bytes[..cut], &UnpackOptions::default()).expect_err("cut off");
        assert!(matches!(&error, UnpackError::Tar { reason, .. } if reason == "the archive is cut off"), "{error}");
    }
    let mut gzip = zstd::encode_all(&bytes[..], 1).expect("written");
    gzip.truncate(gzip.len() - 9);
    assert!(matches!(bench.unpack(&gzip, &UnpackOptions::default()), Err(UnpackError::Read { .. })));
    assert!(matches!(bench.unpack(&[7; 600], &UnpackOptions::default()), Err(UnpackError::Tar { .. })));
}

#[test]
fn large_archives_go_through_a_second_thread_and_fail_as_clearly() {
    let bench = Bench::new();
    let large: Vec<String> = (0..20).map(|number| format!("f{number}={}", "large ".repeat(30_000 + number))).collect();
    let files = || large.iter().map(|text| header(text));
    let bytes = archive(files());
    assert!(bytes.len() > 10 * source::PIECE);
    for stream in [bytes.clone(), zstd::encode_all(&bytes[..], 1).expect("compressed")] {
        let (unpacked, active) = bench.unpack(&stream, &UnpackOptions::default()).expect("unpacked");
        assert_eq!(unpacked.diff_id.digest(), &crate::oci::Digest::sha256(&bytes));
        assert_eq!(unpacked.tree.len(), 20);
        bench.verify(active, &unpacked.tree);
        bench.store.remove(&unpacked.tree.id()).expect("removed");
    }
    let error = |bytes: &[u8], limits| {
        let options = UnpackOptions { limits, archive: None };
        bench.unpack(bytes, &options).map(|(unpacked, _)| unpacked.size).expect_err("refused")
    };
    let limits = UnpackLimits::default();
    let cut = error(&bytes[..bytes.len() - 5000], limits);
    assert!(matches!(&cut, UnpackError::Tar { reason, .. } if reason == "the archive is cut off"), "{cut}");
    let hostile = archive(files().take(2).chain([header("..=x")]).chain(files()));
    assert!(matches!(error(&hostile, limits), UnpackError::Entry { .. }));
    let bomb = error(&bytes, UnpackLimits { bytes: 2_000_000, ..limits });
    assert!(matches!(bomb, UnpackError::Limit { what: "bytes", .. }), "{bomb}");
    let compressed = zstd::encode_all(&bytes[..], 1).expect("compressed");
    assert!(matches!(error(&compressed[..compressed.len() / 2], limits), UnpackError::Read { .. }));
}

#[test]
fn implied_directories_look_as_they_do_below() {
    let bench = Bench::new();
    let (unpacked, active) =
        bench.unpack(&archive([header("a/b/c/f=1")]), &UnpackOptions::default()).expect("unpacked");
    let mut builder = TreeBuilder::new();
    builder.push(Entry::directory(path("a"), 0o711, 0, 0, Time::from_seconds(99)));
    builder.push(Entry { node: Node::Fifo, ..Entry::directory(path("a/b"), 0o700, 0, 0, Time::default()) });
    let lower = Stack::new(vec![builder.finish()]);
    let fixed = fix_implied(&active, &unpacked.tree, &unpacked.implied, &lower).expect("fixed");
    let facts = |name: &str| fixed.get(&path(name)).map(|entry| (entry.mode, entry.mtime.seconds));
    assert_eq!(facts("a"), Some((0o711, 99)));
    assert_eq!(facts("a/b"), Some((0o755, 0)), "what is below is replaced");
    assert_eq!(facts("a/b/c"), Some((0o755, 0)));
    bench.verify(active, &fixed);
}

#[test]
fn hard_links_into_lower_layers_become_files() {
    let bench = Bench::new();
    let (low, active) = bench
        .unpack(&archive([header("usr/lib/f=low"), header("lib>usr/lib")]), &UnpackOptions::default())
        .expect("low");
    let snapshot = bench.verify(active, &low.tree);
    let files = ["d/", "d/one=>lib/f", "d/two=>/usr/lib/f", "d/link=>lib"].map(header);
    let (high, active) = bench.unpack(&archive(files), &UnpackOptions::default()).expect("high");
    let lower = Stack::new(vec![low.tree]);
    let tree = resolve_lower_links(&active, &high.tree, &high.lower_links, &lower, &[&snapshot]).expect("resolved");
    assert_eq!(describe(&tree, &active.path()), ["d/", "d/link>usr/lib", "d/one=low*", "d/two=low*"]);
    bench.verify(active, &tree);
    let (bad, active) = bench.unpack(&archive([header("x=>nowhere")]), &UnpackOptions::default()).expect("unpacked");
    let error = resolve_lower_links(&active, &bad.tree, &bad.lower_links, &lower, &[&snapshot]).expect_err("missing");
    assert!(matches!(error, UnpackError::LinkTarget { .. }));
}

#[test]
fn names_in_archives_of_add_do_not_lead_out() {
    for (name, fine) in [("../f", false), ("./../f", false), ("a/../../f", false), ("a/../f", true), ("/../f", true)] {
        assert_eq!(!super::placer::leads_out(name.as_bytes()), fine, "{name}");
    }
}

#[test]
fn archives_of_add_are_no_layers() {
    let bench = Bench::new();
    let mut builder = TreeBuilder::new();
    let link = Node::Symlink { target: b"usr/lib".to_vec() };
    builder.push(Entry { node: link, ..Entry::directory(path("app/lib"), 0o777, 0, 0, Time::default()) });
    let lower = Stack::new(vec![builder.finish()]);
    let archived = Archive { into: path("app"), owner: Some(Owner { uid: 0, gid: 0 }), lower: &lower };
    let options = UnpackOptions { archive: Some(archived), ..UnpackOptions::default() };
    let files = ["./", "lib/f=1", "h=>lib/f", "/../x=2"].map(header);
    let (unpacked, active) = bench.unpack(&archive(files), &options).expect("unpacked");
    let shown = describe(&unpacked.tree, &active.path());
    assert_eq!(shown, ["app/", "app/h=1*", "app/usr/", "app/usr/lib/", "app/usr/lib/f=1*", "app/x=2"]);
    assert!(bench.unpack(&archive([header("d/.wh.x=")]), &options).is_err());
    let whiteout = Header::new(b"w".to_vec(), Kind::CharDevice);
    assert!(bench.unpack(&archive([(whiteout, vec![])]), &options).is_err());
}

#[test]
fn sparse_files_of_gnu_tar_stay_sparse_and_long_names_whole() {
    let bench = Bench::new();
    let folder = tempfile::tempdir().expect("temporary directory");
    let deep = folder.path().join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&deep).expect("made");
    let file = fs::File::create(deep.join("sparse\u{e9}")).expect("made");
    std::os::unix::fs::FileExt::write_all_at(&file, b"end", 50_000_000).expect("written");
    fs::write(deep.join("zeros"), vec![0; 3_000_000]).expect("written");
    for format in [&["--format=gnu"][..], &["--format=posix"], &["--format=posix", "--sparse-version=0.1"]] {
        let mut command = Command::new("tar");
        command.args(["--sparse", "-cf", "-", "-C"]).arg(folder.path()).args(format).arg(".");
        let Ok(output) = command.stderr(Stdio::null()).output() else {
            eprintln!("skipped: there is no tar program");
            return;
        };
        let (unpacked, active) = bench.unpack(&output.stdout, &UnpackOptions::default()).expect("unpacked");
        let inside = active.path().join("d".repeat(200)).join("e".repeat(200));
        let meta = fs::metadata(inside.join("sparse\u{e9}")).expect("there");
        assert_eq!(meta.len(), 50_000_003);
        assert!(meta.blocks() * 512 < 1_000_000, "{format:?}: {} blocks", meta.blocks());
        assert!(fs::metadata(inside.join("zeros")).expect("there").blocks() * 512 < 1_000_000);
        bench.verify(active, &unpacked.tree);
        bench.store.remove(&unpacked.tree.id()).expect("removed");
    }
}

mod properties {
    use proptest::prelude::*;

    use super::*;
    use crate::layer::Files;
    use crate::tree::Xattr;

    /// Files of a random tree, by digest.
    struct Memory(HashMap<ContentDigest, Vec<u8>>);

    impl Files for Memory {
        fn open(&self, entry: &Entry) -> std::io::Result<fs::File> {
            let Node::File { content, .. } = entry.node else { unreachable!("only files are opened") };
            let mut file = tempfile::tempfile()?;
            std::io::Write::write_all(&mut file, &self.0[&content])?;
            std::io::Seek::rewind(&mut file)?;
            Ok(file)
        }
    }

    /// Paths in few directories, so that they meet; the bytes need not be UTF-8.
    fn any_path() -> impl Strategy<Value = RootPath> {
        let component = prop_oneof![
            Just(b"d".to_vec()),
            Just(b"e-e".to_vec()),
            proptest::collection::vec(1_u8..=255, 1..120).prop_map(|mut bytes| {
                bytes.iter_mut().filter(|byte| matches!(byte, b'/' | b'.')).for_each(|byte| *byte = b'x');
                bytes
            }),
        ];
        proptest::collection::vec(component, 1..4).prop_map(|parts| RootPath::clean(parts.join(&b'/')).expect("clean"))
    }

    fn any_node() -> impl Strategy<Value = (Node, Vec<u8>)> {
        let link = || proptest::collection::vec(1_u8..=255, 1..150);
        prop_oneof![
            4 => (proptest::collection::vec(any::<u8>(), 0..2000), 0_u32..4).prop_map(|(content, link)| {
                // Files of one link group are one file.
                let content = if link == 0 { content } else { vec![b'0' + u8::try_from(link).expect("small"); 700] };
                let (size, digest) = (content.len() as u64, ContentDigest::of(&content));
                (Node::File { size, content: digest, link }, content)
            }),
            2 => any::<bool>().prop_map(|opaque| (Node::Directory { opaque }, vec![])),
            1 => link().prop_map(|target| (Node::Symlink { target }, vec![])),
            1 => (1_u32..4000, 0_u32..1 << 20).prop_map(|(major, minor)| (Node::CharDevice { major, minor }, vec![])),
            1 => Just((Node::Fifo, vec![])),
            1 => Just((Node::Whiteout, vec![])),
        ]
    }

    prop_compose! {
        fn any_entry()(
            path in any_path(), (node, content) in any_node(), mode in 0_u32..0o10000,
            uid in 0_u32..4_000_000_000, gid in 0_u32..70_000, seconds in -5_000_000_000_i64..50_000_000_000,
            xattr in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
        ) -> (Entry, Vec<u8>) {
            let files = matches!(node, Node::File { link: 0, .. } | Node::Directory { .. });
            let grouped = matches!(node, Node::File { link, .. } if link != 0);
            let xattrs = xattr.filter(|_| files).map(|value| Xattr { name: b"user.x".to_vec(), value });
            // One file has one set of metadata.
            let (mode, uid, gid, seconds) = if grouped { (0o644, 1, 2, 3) } else { (mode, uid, gid, seconds) };
            // ext4 with 128-byte inodes and most others keep times from 1901 to 2446.
            let seconds = seconds.clamp(-2_000_000_000, 15_000_000_000);
            let mtime = Time::from_seconds(seconds);
            let entry = Entry { path, node, mode, uid, gid, mtime, xattrs: xattrs.into_iter().collect() };
            (entry, content)
        }
    }

    /// A tree in which everything lies in a directory, and the content of its files.
    fn tree(entries: Vec<(Entry, Vec<u8>)>) -> (Tree, Memory) {
        let (mut builder, mut memory) = (TreeBuilder::new(), HashMap::new());
        let mut directories: Vec<RootPath> = Vec::new();
        for (entry, _) in &entries {
            directories.extend(entry.path.ancestors().filter(|ancestor| !ancestor.is_root()));
        }
        for (entry, content) in entries {
            if !directories.contains(&entry.path) {
                memory.insert(ContentDigest::of(&content), content);
                builder.push(entry);
            }
        }
        for path in directories {
            builder.push(Entry::directory(path, 0o755, 7, 8, Time::from_seconds(9)));
        }
        (builder.finish(), Memory(memory))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn unpacking_what_was_packed_gives_the_tree_back(entries in proptest::collection::vec(any_entry(), 0..12)) {
            if !is_first_root() {
                return Ok(());
            }
            let (expected, memory) = tree(entries);
            let mut bytes = Vec::new();
            pack(&expected, &memory, &mut bytes, &PackOptions::default()).expect("packed");
            let bench = Bench::new();
            let (unpacked, active) = bench.unpack(&bytes, &UnpackOptions::default()).expect("unpacked");
            prop_assert_eq!(&unpacked.tree, &expected);
            prop_assert_eq!(unpacked.implied, vec![]);
            let snapshot = bench.verify(active, &expected);
            prop_assert_eq!(diff_id(&expected, &snapshot, &PackOptions::default()).expect("packed"), unpacked.diff_id);
            // And the same through the directory.
            let active = bench.store.begin().expect("begun");
            crate::layer::materialise(&expected, &snapshot, &active).expect("written");
            bench.store.remove(&expected.id()).expect("removed");
            bench.verify(active, &expected);
        }
    }
}

//! The destination table, and what copies do to owners, modes, links and what was there.

use super::*;
use crate::context::Request;
use crate::diagnostic::Diagnostic;
use crate::graph::Files as From;
use crate::tree::TreeBuilder;

fn path(text: &str) -> RootPath {
    RootPath::clean(text).expect("clean")
}

fn at(seconds: i64) -> Time {
    Time::from_seconds(seconds)
}

/// `d/` or `d/:700` directory, `l>t` link, `f=text`, `f#1` hard link of group 1, `-x` whiteout; owner 7:8, mode 640.
fn tree(entries: &[&str]) -> Tree {
    let mut builder = TreeBuilder::new();
    for text in entries {
        let base = |name: &str| Entry::directory(path(name), 0o755, 7, 8, at(1));
        let file = |name: &str, content: &str, link| Entry {
            node: Node::File { size: content.len() as u64, content: ContentDigest::of(content.as_bytes()), link },
            mode: 0o640,
            ..base(name)
        };
        builder.push(if let Some(name) = text.strip_prefix('-') {
            Entry::whiteout(path(name))
        } else if let Some((name, target)) = text.split_once('>') {
            Entry { node: Node::Symlink { target: target.into() }, ..base(name) }
        } else if let Some((name, mode)) = text.split_once("/:") {
            Entry { mode: u32::from_str_radix(mode, 8).expect("octal"), ..base(name) }
        } else if let Some(name) = text.strip_suffix('/') {
            base(name)
        } else if let Some((name, link)) = text.split_once('#') {
            file(name, "linked", link.parse().expect("number"))
        } else {
            let (name, content) = text.split_once('=').unwrap_or((text, text));
            file(name, content, 0)
        });
    }
    builder.finish()
}

fn stack(layers: &[&[&str]]) -> Stack {
    Stack::new(layers.iter().map(|layer| tree(layer)).collect())
}

fn op(destination: &str) -> CopyOp {
    CopyOp {
        add: false,
        from: From::Vertex(None),
        sources: Vec::new(),
        destination: destination.to_owned(),
        workdir: path("/w"),
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        checksum: None,
        unpack: None,
        keep_git_dir: None,
    }
}

const PLAIN: Attributes = Attributes { owner: None, created: Time { seconds: 99, nanoseconds: 0 } };

/// Copies `sources` of a stack to another.
fn run(
    from: &Stack,
    sources: &[&str],
    op: &CopyOp,
    below: &Stack,
    attributes: Attributes,
) -> Result<CopyPlan, CopyError> {
    let select = |source: &&str| {
        let request = Request { source, parents: op.parents, exclude: &op.exclude };
        select(from, &request).map(CopySource::Stack)
    };
    let sources = sources.iter().map(select).collect::<Result<_, _>>()?;
    plan(op, sources, below, attributes)
}

/// `d/` directory, `l>t` link, `f<source` for files; what is made new or changed is 0:0, the rest was 7:8.
fn shown(plan: &CopyPlan) -> String {
    let one = |entry: Entry| match &entry.node {
        Node::Directory { .. } => format!("{}/", entry.path),
        Node::Symlink { target } => format!("{}>{}", entry.path, String::from_utf8_lossy(target)),
        _ => match plan.files.get(&entry).expect("a file") {
            FileSource::Layer { layer, path, .. } => format!("{}<{layer}{path}", entry.path),
            other => format!("{}<{other:?}", entry.path),
        },
    };
    plan.tree.iter().map(one).collect::<Vec<_>>().join(" ")
}

fn source() -> Stack {
    stack(&[&["a=1", "b=2", "d/:700", "d/x", "d/s/:711", "d/s/y", "d/l>x", "to>d", "tof>a"], &["b=3"]])
}

fn base() -> Stack {
    stack(&[&[
        "w/",
        "file=0",
        "dir/:750",
        "dir/a=old",
        "dir/sub/",
        "dir/sub/a/",
        "link>dir",
        "flink>file",
        "dang>/new/place",
        "tmp/:1777",
        "in/",
        "in/s>../dir",
    ]])
}

// Rows: A90.
#[test]
fn the_destination_table() {
    for (sources, destination, expected) in [
        (&["a"][..], "/n", "/n<0/a"),
        (&["a"], "/n/", "/n/ /n/a<0/a"),
        (&["a"], "/n/m/f", "/n/ /n/m/ /n/m/f<0/a"),
        (&["a"], "/file", "/file<0/a"),
        (&["a"], "/dir", "/dir/ /dir/a<0/a"),
        (&["a"], "/dir/", "/dir/ /dir/a<0/a"),
        (&["a"], "/dir/.", "/dir/ /dir/a<0/a"),
        (&["a"], "/link", "/dir/ /dir/a<0/a"),
        (&["a"], "/link/z", "/dir/ /dir/z<0/a"),
        (&["a"], "/flink", "/file<0/a"),
        (&["a"], "/dang", "/new/ /new/place<0/a"),
        (&["a"], ".", "/w/ /w/a<0/a"),
        (&["a"], "", "/w/ /w/a<0/a"),
        (&["a"], "r", "/w/ /w/r<0/a"),
        (&["a"], "../r", "/r<0/a"),
        (&["a"], "/../../r", "/r<0/a"),
        (&["a"], "/", "/a<0/a"),
        (&["a", "b"], "/n", "/n<1/b"),
        (&["a", "b"], "/n/", "/n/ /n/a<0/a /n/b<1/b"),
        (&["[ab]"], "/n/", "/n/ /n/a<0/a /n/b<1/b"),
        (&["d"], "/n", "/n/ /n/l>x /n/s/ /n/s/y<0/d/s/y /n/x<0/d/x"),
        (&["d/"], "/dir/", "/dir/ /dir/l>x /dir/s/ /dir/s/y<0/d/s/y /dir/x<0/d/x"),
        (&["d/s", "a"], "/n", "/n/ /n/a<0/a /n/y<0/d/s/y"),
        (&["to"], "/n", "/n/ /n/l>x /n/s/ /n/s/y<0/d/s/y /n/x<0/d/x"),
        (&["tof"], "/n/", "/n/ /n/tof<0/a"),
        (&["d/l"], "/n", "/n<0/d/x"),
        (&["zz*"], "/n/", ""),
        (&["d*"], "/n", "/n/ /n/l>x /n/s/ /n/s/y<0/d/s/y /n/x<0/d/x"),
    ] {
        let plan = run(&source(), sources, &op(destination), &base(), PLAIN).expect(destination);
        assert_eq!(shown(&plan), expected, "{sources:?} → {destination}");
    }
}

// Rows: A91.
#[test]
fn what_does_not_fit_is_an_error() {
    for (source_path, destination, expected) in [
        ("d", "/file", "cannot copy to `/file`: a file is in the way"),
        ("d", "/flink", "cannot copy to `/file`: a file is in the way"),
        ("a", "/file/x", "cannot copy to `/file`: a file is in the way"),
        ("a", "/file/", "cannot copy to `/file`: a file is in the way"),
        ("d", "/in", "cannot copy to `/in/s`: a symbolic link is in the way"),
        ("a", "/dir/sub", "cannot replace the directory `/dir/sub/a` by something that is not a directory"),
        ("none", "/n", "no such file: `/none`"),
        ("d/none*/x/../../q", "/n", "no such file: `/d/q`"),
    ] {
        let error = run(&source(), &[source_path], &op(destination), &base(), PLAIN).expect_err(destination);
        assert_eq!(error.to_string(), expected);
        assert!(error.hint().is_some());
    }
    let error =
        run(&stack(&[&["etc/", "etc/passwd"]]), &["etc/paswd"], &op("/n"), &base(), PLAIN).expect_err("missing");
    assert_eq!(error.hint().as_deref(), Some("did you mean `/etc/passwd`?"));
}

#[test]
fn directories_that_exist_keep_what_they_are_only_at_the_top() {
    let below = stack(&[&["dir/:750", "dir/s/:700"], &["dir/new"]]);
    let plan = run(&source(), &["d"], &op("/dir"), &below, PLAIN).expect("planned");
    let directory = |name: &str| {
        plan.tree.get(&path(name)).map(|entry| (entry.mode, entry.uid, entry.gid, entry.mtime)).expect(name)
    };
    assert_eq!(directory("/dir"), (0o750, 7, 8, at(1)));
    assert_eq!(directory("/dir/s"), (0o711, 7, 8, at(1)));
    let plan = run(&source(), &["d"], &op("/q/r"), &below, PLAIN).expect("planned");
    let directory = |name: &str| {
        plan.tree.get(&path(name)).map(|entry| (entry.mode, entry.uid, entry.gid, entry.mtime)).expect(name)
    };
    assert_eq!(directory("/q"), (0o755, 0, 0, at(99)));
    assert_eq!(directory("/q/r"), (0o755, 0, 0, at(1)), "not 0700 as the source is");
    assert_eq!(directory("/q/r/s"), (0o711, 7, 8, at(1)));
}

#[test]
fn owners_and_modes() {
    let mut copy = op("/q/r");
    copy.chmod = Some("u=rwX,go=".to_owned());
    let owner = Attributes { owner: Some(Owner { uid: 5, gid: 6 }), ..PLAIN };
    let plan = run(&source(), &["d"], &copy, &base(), owner).expect("planned");
    let found: Vec<_> =
        plan.tree.iter().map(|entry| (entry.path.to_string(), entry.mode, entry.uid, entry.gid)).collect();
    let expected =
        [("/q", 0o755), ("/q/r", 0o755), ("/q/r/l", 0o777), ("/q/r/s", 0o700), ("/q/r/s/y", 0o600), ("/q/r/x", 0o600)];
    assert_eq!(found, expected.map(|(path, mode)| (path.to_owned(), mode, 5, 6)));
    copy.chmod = Some("4751".to_owned());
    let plan = run(&source(), &["d"], &copy, &base(), owner).expect("planned");
    let modes: Vec<u32> = plan.tree.iter().map(|entry| entry.mode).collect();
    assert_eq!(modes, [0o751, 0o751, 0o777, 0o4751, 0o4751, 0o4751], "directories that are made get the nine bits");
    copy.chmod = Some("99".to_owned());
    assert!(matches!(run(&source(), &["d"], &copy, &base(), owner), Err(CopyError::Mode(_))));
}

#[test]
fn made_directories_get_the_group_of_a_set_group_id_directory() {
    let mut tree = TreeBuilder::new();
    tree.push(Entry::directory(path("/g"), 0o2775, 7, 8, at(1)));
    let below = Stack::new(vec![tree.finish()]);
    for (owner, expected) in [(None, (0, 8)), (Some(Owner { uid: 5, gid: 6 }), (5, 6))] {
        let attributes = Attributes { owner, ..PLAIN };
        let plan = run(&source(), &["a"], &op("/g/n/m/"), &below, attributes).expect("planned");
        let found: Vec<_> = plan.tree.iter().take(3).map(|entry| (entry.mode, (entry.uid, entry.gid))).collect();
        assert_eq!(found, [(0o2775, (7, 8)), (0o2755, expected), (0o2755, expected)]);
    }
}

#[test]
fn a_linked_copy_does_not_look_at_the_destination() {
    let mut copy = op("/link/tmp");
    copy.link = true;
    let plan = run(&source(), &["a"], &copy, &base(), PLAIN).expect("planned");
    assert_eq!(shown(&plan), "/link/ /link/tmp<0/a");
    assert!(plan.facts.is_empty());
    let again = run(&source(), &["a"], &copy, &Stack::default(), PLAIN).expect("planned");
    assert_eq!(plan.tree, again.tree);
}

#[test]
fn facts_say_what_the_result_rests_on() {
    let plan = run(&source(), &["a"], &op("/link/z"), &base(), PLAIN).expect("planned");
    let facts: Vec<String> = plan.facts.iter().map(|fact| format!("{} {}", fact.path, fact.kind)).collect();
    assert_eq!(facts, ["/dir a directory", "/dir/z missing", "/link a symbolic link"]);
    assert_eq!((plan.facts[0].mode, plan.facts[0].owner), (Some(0o750), Some((7, 8))));
    let digest = |below: &Stack| run(&source(), &["a"], &op("/dir/z"), below, PLAIN).expect("planned").tree.semantic();
    assert_eq!(digest(&base()), digest(&stack(&[&["dir/:750", "other"]])), "another base, the same directory");
    assert_ne!(digest(&base()), digest(&stack(&[&["dir/:700"]])), "the layer says what its directories are like");
}

#[test]
fn parents_and_excludes() {
    let from = stack(&[&["a/:700", "a/b/:710", "a/b/c=1", "a/n", "z.md", "a/b/k.md"]]);
    let check = |source: &str, exclude: &[&str], below: &[&str], expected: &str| {
        let mut copy = op("/p");
        copy.parents = true;
        copy.exclude = exclude.iter().map(|text| (*text).to_owned()).collect();
        let plan = run(&from, &[source], &copy, &stack(&[below]), PLAIN).expect(source);
        let modes = plan.tree.iter().map(|entry| format!("{}:{:o}", entry.path, entry.mode));
        assert_eq!(modes.collect::<Vec<_>>().join(" "), expected, "{source}");
    };
    check("a/b/c", &[], &[], "/p:755 /p/a:700 /p/a/b:710 /p/a/b/c:640");
    check("a/./b/c", &[], &[], "/p:755 /p/b:710 /p/b/c:640");
    check("**/*.md", &[], &[], "/p:755 /p/a:700 /p/a/b:710 /p/a/b/k.md:640 /p/z.md:640");
    check("a", &["**/*.md"], &[], "/p:755 /p/a:700 /p/a/b:710 /p/a/b/c:640 /p/a/n:640");
    check("a/b/c", &[], &["p/a/:2777", "p/a/b/"], "/p:755 /p/a:700 /p/a/b:710 /p/a/b/c:640");
    let mut copy = op("/p");
    copy.parents = true;
    assert!(matches!(run(&from, &["a/none"], &copy, &base(), PLAIN), Err(CopyError::NotFound { .. })));
}

#[test]
fn hard_links_hold_within_a_match_and_not_between() {
    let from = stack(&[&["d/", "d/a#1", "d/b#1", "e#1"], &["d/c#1", "d/d#1"]]);
    let plan = run(&from, &["d", "e"], &op("/n/"), &base(), PLAIN).expect("planned");
    let links: Vec<(String, u32)> = plan
        .tree
        .iter()
        .filter_map(|entry| match entry.node {
            Node::File { link, .. } => Some((entry.path.to_string(), link)),
            _ => None,
        })
        .collect();
    let expected = [("/n/a", 1), ("/n/b", 1), ("/n/c", 2), ("/n/d", 2), ("/n/e", 0)];
    assert_eq!(links, expected.map(|(path, link)| (path.to_owned(), link)));
}

#[test]
fn names_that_mean_deletions_are_refused() {
    let from = stack(&[&["d/", "d/.wh.x=1", "e/", "e/.wh./", "f=1", "g.wh.h=1"]]);
    for (source, destination, refused) in
        [("d", "/n", "/n/.wh.x"), ("e", "/n", "/n/.wh."), ("f", "/n/.wh.y", "/n/.wh.y"), ("f", "/.wh.z/n", "/.wh.z")]
    {
        let error = run(&from, &[source], &op(destination), &base(), PLAIN).expect_err(destination);
        assert!(matches!(&error, CopyError::ReservedName(at) if *at == path(refused)), "{source}: {error}");
        assert!(error.hint().is_some());
    }
    run(&from, &["g.wh.h", "f"], &op("/n/"), &base(), PLAIN).expect("only the beginning of a name counts");
}

#[test]
fn loose_files_and_archives() {
    let bytes: Arc<[u8]> = Arc::from(&b"text"[..]);
    let file = LooseFile {
        name: "EOF".to_owned(),
        mode: 0o644,
        mtime: at(5),
        size: 4,
        content: ContentDigest::of(&bytes),
        bytes: FileSource::Inline(Arc::clone(&bytes)),
    };
    let sources = vec![
        CopySource::File(file),
        CopySource::Unpacked(UnpackedArchive {
            tree: tree(&["dir/sub/", "dir/sub/a=file", "dir/new/", "dir/new/f#1", "dir/new/g#1"]),
            implied: HashSet::new(),
        }),
    ];
    let plan = plan(&op("/dir/"), sources, &base(), PLAIN).expect("planned");
    let paths: Vec<String> = plan.tree.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(paths, ["/dir", "/dir/EOF", "/dir/new", "/dir/new/f", "/dir/new/g", "/dir/sub", "/dir/sub/a"]);
    assert_eq!(plan.tree.get(&path("/dir")).map(|entry| entry.mode), Some(0o750));
    assert_eq!(plan.tree.get(&path("/dir/EOF")).map(|entry| (entry.mode, entry.uid)), Some((0o644, 0)));
    assert_eq!(landing(&op("/link/x"), &base()).expect("resolved"), path("/dir/x"));
    assert!(landing(&op("/flink"), &base()).is_err());
}

/// The times of directories: 1 was there before or is the source's, 99 is now.
#[test]
fn directories_in_which_something_is_made_change() {
    let from = stack(&[&["a=1", "d/", "d/s/", "d/s/y", "e/", "e/keep/", "e/keep/not", "e/keep/yes"]]);
    let shown = |tree: &Tree| {
        let directories = tree.iter().filter(|entry| entry.node.is_directory());
        directories.map(|entry| format!("{} {}", entry.path, entry.mtime.seconds)).collect::<Vec<_>>().join(", ")
    };
    for (source, destination, expected) in [
        ("a", "/dir/n", "/dir 99"),
        ("a", "/dir/a", "/dir 99"),
        ("a", "/dir/sub/x/", "/dir 1, /dir/sub 99, /dir/sub/x 99"),
        ("d", "/dir", "/dir 1, /dir/s 1"),
        ("d", "/dir/d", "/dir 99, /dir/d 1, /dir/d/s 1"),
        ("d", "/", "/s 1"),
        ("e", "/dir", "/dir 1, /dir/keep 99"),
    ] {
        let exclude = vec!["keep".to_owned(), "!keep/yes".to_owned()];
        let plan = run(&from, &[source], &CopyOp { exclude, ..op(destination) }, &base(), PLAIN).expect(source);
        assert_eq!(shown(&plan.tree), expected, "{source} {destination}");
    }
    let archive = tree(&["dir/", "dir/sub/", "dir/sub/f=", "dir/new/", "dir/new/f=", "dir/told/", "dir/told/f="]);
    let implied = ["/dir", "/dir/sub", "/dir/new"].into_iter().map(path).collect();
    let source = CopySource::Unpacked(UnpackedArchive { tree: archive, implied });
    let plan = plan(&op("/"), vec![source], &base(), PLAIN).expect("planned");
    assert_eq!(shown(&plan.tree), "/dir 99, /dir/new 99, /dir/sub 99, /dir/told 1");
}

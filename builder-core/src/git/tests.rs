//! Whole fetches from repositories of this machine.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::*;
use crate::cancel::CancelToken;

/// A repository to fetch from, made with the system's git.
struct Upstream {
    directory: tempfile::TempDir,
}

impl Upstream {
    fn new() -> Self {
        let upstream = Self { directory: tempfile::tempdir().expect("temporary directory") };
        upstream.git("init --quiet --initial-branch=main");
        upstream
    }

    fn git(&self, line: &str) -> String {
        let mut command = Command::new("git");
        command.args(line.split(' ')).current_dir(self.directory.path());
        for (name, value) in [
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@example.com"),
            ("GIT_COMMITTER_NAME", "c"),
            ("GIT_COMMITTER_EMAIL", "c@example.com"),
            ("GIT_AUTHOR_DATE", "1000000000 +0000"),
            ("GIT_COMMITTER_DATE", "1100000000 +0000"),
        ] {
            command.env(name, value);
        }
        let output = command.output().expect("git is installed");
        assert!(output.status.success(), "git {line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    /// Writes files and commits them; gives the commit.
    fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, content) in files {
            let path = self.directory.path().join(name);
            fs::create_dir_all(path.parent().expect("below")).expect("made");
            fs::write(path, content).expect("written");
        }
        self.git("add --all");
        self.git("commit --quiet --allow-empty -m x");
        self.git("rev-parse HEAD")
    }

    fn address(&self, rest: &str) -> String {
        format!("file://{}{rest}", self.directory.path().display())
    }
}

/// A store to fetch into.
struct Store {
    state: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        Self { state: tempfile::tempdir().expect("temporary directory") }
    }

    fn with<T>(&self, address: &str, work: impl FnOnce(&Wanted, &Repository<'_>) -> T) -> T {
        let wanted = Wanted::new(Address::parse(address).expect("git").expect("valid"));
        let (environment, access) = (GitEnvironment::default(), GitAccess::default());
        let cancel = CancelToken::new();
        let context = GitContext { environment: &environment, access: &access, log: &|_| {}, cancel: &cancel };
        work(&wanted, &Repositories::new(self.state.path()).open(&wanted, context))
    }

    fn resolve(&self, address: &str, ask: Ask) -> Result<String, GitError> {
        self.with(address, |_, repository| Ok(repository.resolve(ask)?.identity().to_owned()))
    }

    fn check_out(&self, address: &str, ask: Ask) -> Result<Tree, GitError> {
        self.with(address, |_, repository| {
            let resolved = repository.resolve(ask)?;
            let into = tempfile::tempdir().expect("temporary directory");
            repository.check_out(&repository.lock()?, ask, &resolved, into.path())?;
            Ok(Tree { into })
        })
    }
}

#[derive(Debug)]
struct Tree {
    into: tempfile::TempDir,
}

impl Tree {
    /// Every path with its mode, `.git` as one.
    fn list(&self) -> Vec<String> {
        fn walk(top: &Path, directory: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(directory).expect("readable") {
                let path = entry.expect("readable").path();
                let meta = path.symlink_metadata().expect("there");
                let name = path.strip_prefix(top).expect("below").display().to_string();
                let mode = if meta.is_symlink() { "link".to_owned() } else { format!("{:o}", meta.mode() & 0o7777) };
                found.push(format!("{name} {mode}"));
                if meta.is_dir() && path.file_name() != Some(".git".as_ref()) {
                    walk(top, &path, found);
                }
            }
        }
        let mut found = Vec::new();
        walk(self.into.path(), self.into.path(), &mut found);
        found.sort();
        found
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("readable")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.into.path().join(name)
    }
}

/// Files get root as their owner, which takes root.
fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("{test}: skipped, it needs root");
    }
    root
}

#[test]
fn every_way_to_name_a_commit() {
    let (upstream, store) = (Upstream::new(), Store::new());
    let first = upstream.commit(&[("f", "1")]);
    upstream.git("tag light");
    upstream.git("tag -a heavy -m x");
    let tag = upstream.git("rev-parse heavy");
    upstream.git("checkout --quiet -b side");
    let second = upstream.commit(&[("f", "2")]);
    upstream.git("update-ref refs/pull/1/head HEAD");
    upstream.git("checkout --quiet main");
    let third = upstream.commit(&[("f", "3")]);
    let check = |rest: &str, expected: &str| {
        let found = store.resolve(&upstream.address(rest), Ask::Server);
        assert_eq!(found.unwrap_or_else(|error| panic!("{rest}: {error}")), expected, "{rest}");
    };
    check("", &third);
    check("#HEAD", &third);
    check("#main", &third);
    check("#refs/heads/side", &second);
    check("?branch=side", &second);
    check("#pull/1/head", &second);
    check("#light", &first);
    check("#heavy", &first);
    check("?tag=heavy", &first);
    check(&format!("#{first}"), &first);
    check(&format!("#{}", &first[..9]), &first);
    check(&format!("?ref=heavy&checksum={}", &first[..8]), &first);
    check(&format!("?ref=heavy&checksum={}", &tag[..8]), &first);
    check(&format!("?ref=nowhere&checksum={second}&fetch-by-commit"), &second);

    let error = |rest: &str| store.resolve(&upstream.address(rest), Ask::Server).expect_err(rest).to_string();
    assert!(error("#nowhere").ends_with("has no `nowhere`"));
    assert!(error("#0123456").ends_with("has no `0123456`"));
    assert!(error("?ref=main&checksum=00").contains(&format!("is commit {third}, but its checksum says 00")));
    let gone = store.resolve("file:///nowhere/at/all", Ask::Server).expect_err("nothing there").to_string();
    assert!(
        gone.contains("cannot read `file:///nowhere/at/all`: '/nowhere/at/all' does not appear to be a git"),
        "{gone}"
    );
}

#[test]
fn a_checkout_has_plain_modes_and_nothing_of_git() {
    if !is_root("a_checkout_has_plain_modes_and_nothing_of_git") {
        return;
    }
    let (upstream, store) = (Upstream::new(), Store::new());
    fs::write(upstream.directory.path().join("run"), "#!/bin/sh\n").expect("written");
    fs::set_permissions(upstream.directory.path().join("run"), fs::Permissions::from_mode(0o775)).expect("set");
    std::os::unix::fs::symlink("d/f", upstream.directory.path().join("link")).expect("made");
    let attributes = "*.bin filter=lfs diff=lfs merge=lfs -text\n";
    let commit = upstream.commit(&[("d/f", "text"), (".gitattributes", attributes), ("big.bin", "version lfs")]);
    let tree = store.check_out(&upstream.address(""), Ask::Server).expect("checked out");
    assert_eq!(tree.list(), [".gitattributes 644", "big.bin 644", "d 755", "d/f 644", "link link", "run 755"]);
    assert_eq!((tree.read("link"), tree.read("big.bin")), ("text".to_owned(), "version lfs".to_owned()));

    let part = store.check_out(&upstream.address("#main:d/../d"), Ask::Server).expect("checked out");
    assert_eq!(part.list(), ["f 644"]);
    for subdir in ["nowhere", "run", "link"] {
        let error = store.check_out(&upstream.address(&format!("#:{subdir}")), Ask::Server).expect_err(subdir);
        assert!(matches!(error, GitError::Subdir { .. }), "{error}");
    }

    let times = store.check_out(&upstream.address("?mtime=commit"), Ask::Server).expect("checked out");
    for name in ["d", "d/f", "link", "run"] {
        assert_eq!(times.path(name).symlink_metadata().expect("there").mtime(), 1_100_000_000, "{name}");
    }
    store.with(&upstream.address(&format!("#{commit}")), |wanted, _| {
        let resolved = wanted.pinned().expect("fits").expect("a commit id");
        assert_eq!(Repositories::new(store.state.path()).time(wanted, &resolved), Some(1_100_000_000));
    });
}

#[test]
fn subdirectories_lead_nowhere_else() {
    if !is_root("subdirectories_lead_nowhere_else") {
        return;
    }
    let (upstream, store) = (Upstream::new(), Store::new());
    std::os::unix::fs::symlink("/etc", upstream.directory.path().join("etc")).expect("made");
    std::os::unix::fs::symlink("../../../../d", upstream.directory.path().join("up")).expect("made");
    upstream.commit(&[("d/f", "x")]);
    let error = store.check_out(&upstream.address("#:etc"), Ask::Server).expect_err("outside");
    assert!(matches!(error, GitError::Subdir { .. }), "{error}");
    // `..` stops at the top.
    assert_eq!(store.check_out(&upstream.address("#:up"), Ask::Server).expect("inside").list(), ["f 644"]);
}

#[test]
fn a_kept_git_directory_has_the_commit_under_its_name() {
    if !is_root("a_kept_git_directory_has_the_commit_under_its_name") {
        return;
    }
    let (upstream, store) = (Upstream::new(), Store::new());
    let commit = upstream.commit(&[("f", "1")]);
    upstream.git("tag -a v1 -m x");
    let git = |tree: &Tree, line: &str| {
        let path = tree.path("").display().to_string();
        upstream.git(&format!("-c safe.directory=* -C {path} {line}"))
    };
    for (rest, name) in [("", "refs/heads/main"), ("#v1", "refs/tags/v1"), (&format!("#{commit}"), "")] {
        let separator = if rest.is_empty() { "?keep-git-dir" } else { &rest.replace('#', "?keep-git-dir&ref=") };
        let tree = store.check_out(&upstream.address(separator), Ask::Server).expect("checked out");
        assert_eq!(tree.list(), [".git 755", "f 644"], "{rest}");
        assert_eq!(git(&tree, "rev-parse HEAD"), commit);
        assert_eq!(git(&tree, "status --porcelain"), "");
        assert_eq!(git(&tree, "for-each-ref --format=%(refname)"), name);
        assert_eq!(git(&tree, "remote get-url origin"), upstream.address(""));
        assert!(!tree.path(".git/hooks").exists() && !tree.path(".git/logs").exists());
    }
}

#[test]
fn what_was_fetched_needs_no_server() {
    if !is_root("what_was_fetched_needs_no_server") {
        return;
    }
    let (upstream, store) = (Upstream::new(), Store::new());
    let first = upstream.commit(&[("f", "1")]);
    let (by_name, by_id) = (upstream.address("#main"), upstream.address(&format!("#{first}")));
    assert!(matches!(store.check_out(&by_name, Ask::Nobody), Err(GitError::NotLocal { .. })));
    assert!(matches!(store.check_out(&by_id, Ask::Nobody), Err(GitError::NotLocal { .. })));
    assert_eq!(store.check_out(&by_name, Ask::Server).expect("fetched").read("f"), "1");
    upstream.commit(&[("f", "2")]);
    assert_eq!(store.check_out(&by_name, Ask::Nobody).expect("remembered").read("f"), "1");
    assert_eq!(store.check_out(&by_name, Ask::Server).expect("fetched").read("f"), "2");
    fs::remove_dir_all(upstream.directory.path()).expect("removed");
    assert_eq!(store.check_out(&by_id, Ask::Server).expect("here").read("f"), "1");
}

#[test]
fn a_moved_tag_and_a_damaged_mirror_do_no_harm() {
    if !is_root("a_moved_tag_and_a_damaged_mirror_do_no_harm") {
        return;
    }
    let (upstream, store) = (Upstream::new(), Store::new());
    upstream.commit(&[("f", "1")]);
    upstream.git("tag v");
    upstream.git("branch a");
    let read = |rest: &str| store.check_out(&upstream.address(rest), Ask::Server).expect(rest).read("f");
    assert_eq!((read("#v"), read("#a")), ("1".to_owned(), "1".to_owned()));
    upstream.commit(&[("f", "2")]);
    upstream.git("tag --force v");
    upstream.git("branch --delete a");
    upstream.git("branch a/b");
    assert_eq!((read("#v"), read("#a/b")), ("2".to_owned(), "2".to_owned()));
    upstream.commit(&[("f", "3")]);
    let mirror =
        fs::read_dir(store.state.path().join("git")).expect("readable").next().expect("one").expect("readable");
    fs::write(mirror.path().join("sha1/shallow"), "nonsense\n").expect("written");
    fs::write(mirror.path().join("sha1/config"), "nonsense\n").expect("written");
    assert_eq!(read(""), "3");
}

#[test]
fn sha256_repositories() {
    if !is_root("sha256_repositories") {
        return;
    }
    let upstream = Upstream { directory: tempfile::tempdir().expect("temporary directory") };
    upstream.git("init --quiet --initial-branch=main --object-format=sha256");
    let commit = upstream.commit(&[("f", "1")]);
    assert_eq!(commit.len(), 64);
    let store = Store::new();
    for rest in [String::new(), format!("#{commit}"), format!("#{}", &commit[..9]), "?keep-git-dir".to_owned()] {
        assert_eq!(store.check_out(&upstream.address(&rest), Ask::Server).expect("fetched").read("f"), "1");
    }
}

#[test]
fn submodules_of_this_machine_are_not_fetched() {
    if !is_root("submodules_of_this_machine_are_not_fetched") {
        return;
    }
    let (upstream, other, store) = (Upstream::new(), Upstream::new(), Store::new());
    other.commit(&[("secret", "x")]);
    upstream.git(&format!("-c protocol.file.allow=always submodule --quiet add {} sub", other.address("")));
    upstream.commit(&[("f", "1")]);
    let error = store.check_out(&upstream.address(""), Ask::Server).expect_err("not allowed");
    assert!(error.to_string().contains("cannot fetch submodules of"), "{error}");
    assert!(crate::diagnostic::Diagnostic::hint(&error).is_some(), "{error}");
    let without = store.check_out(&upstream.address("?submodules=false"), Ask::Server).expect("checked out");
    assert_eq!(without.list(), [".gitmodules 644", "f 644", "sub 755"]);
}

#[test]
fn without_git_there_is_a_clear_error() {
    let wanted = Wanted::new(Address::parse("https://user:pw@h/r.git").expect("git").expect("valid"));
    let environment =
        GitEnvironment { variables: vec![("PATH".into(), "/nowhere".into())], ..GitEnvironment::default() };
    let (access, cancel, state) = (GitAccess::default(), CancelToken::new(), tempfile::tempdir().expect("temporary"));
    let context = GitContext { environment: &environment, access: &access, log: &|_| {}, cancel: &cancel };
    let error = Repositories::new(state.path()).open(&wanted, context).resolve(Ask::Server).expect_err("no git");
    assert_eq!(error.to_string(), "cannot fetch `https://h/r.git`: `git` is not installed");
    cancel.cancel();
    let error = Repositories::new(state.path()).open(&wanted, context).resolve(Ask::Server).expect_err("cancelled");
    assert!(matches!(error, GitError::Cancelled(_)));
}

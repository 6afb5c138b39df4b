//! `rbuild.lock`: what names of sources stand for stays what it was.

use std::path::Path;

use crate::contexts::listing;
use crate::env::{TestEnv, end, require_sandbox};
use crate::git::Upstream;
use crate::registry::{Registry, base};
use crate::web::{Page, Web};

const BUILD: &str = "build --progress=quiet -o type=tar,dest=out.tar";

/// Pushes an image with one file under a name.
fn push(name: &str, content: &str, options: &str) {
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM scratch\nCOPY <<E /content\n{content}\nE\n"));
    env.ok(&format!("build --progress=quiet --push {options} -t {name} ."));
}

/// The file of the image that was built last.
fn content(env: &TestEnv, name: &str) -> String {
    let mut archive = tar::Archive::new(std::fs::File::open(env.context("out.tar")).expect("written"));
    let mut entries = archive.entries().expect("a tar").map(|entry| entry.expect("an entry"));
    let entry = entries.find(|entry| entry.path().expect("a path") == Path::new(name)).expect(name);
    std::io::read_to_string(entry).expect("text").trim().to_owned()
}

fn locked(env: &TestEnv) -> String {
    std::fs::read_to_string(env.context("rbuild.lock")).expect("a lock file")
}

fn id(env: &TestEnv, line: &str) -> String {
    env.ok(line).stdout
}

// Rows: P24.
#[test]
fn a_moved_tag_stays_what_it_was() {
    let (env, registry) = (TestEnv::new(), Registry::start());
    let name = registry.name("base:1");
    push(&name, "one", "");
    env.write("Dockerfile", format!("FROM {name}\nCOPY --from={name} /content /copy\n"));
    let begun = env.ok("build --progress=plain --lock -o type=tar,dest=out.tar .");
    assert!(begun.stderr.contains("note: 1 source added to `rbuild.lock`"), "{}", begun.stderr);
    insta::assert_snapshot!(env.stable(&locked(&env)));
    let before = id(&env, "build -q --source-date-epoch=0 .");

    // The lock changes no key: what it names is what the tag means.
    let same = env.ok("build --progress=plain --no-lock --pull .").stderr;
    assert!(same.contains("CACHED"), "{same}");
    assert_eq!(id(&env, "build -q --source-date-epoch=0 --no-lock --pull ."), before);

    push(&name, "two", "");
    assert_eq!(id(&env, "build -q --source-date-epoch=0 --pull ."), before);
    assert_eq!(id(&env, "build -q --source-date-epoch=0 --locked --pull --no-cache ."), before);
    let said = env.ok("build --progress=plain .").stderr;
    assert!(said.contains("note: `rbuild.lock` says what its 1 source stands for"), "{said}");
    // Writing again changes nothing.
    let text = locked(&env);
    assert!(env.ok("build --progress=plain --lock --pull .").stderr.contains("has every source already"));
    assert_eq!(locked(&env), text);

    let newer = id(&env, "build -q --source-date-epoch=0 --no-lock --pull .");
    assert_ne!(newer, before);
    let check = env.rbuild("lock check --progress=quiet");
    assert_eq!(check.code, 1, "{}", check.stderr);
    insta::assert_snapshot!(env.stable(&check.stdout));
    assert!(env.fails("lock update --only bas").contains("did you mean `base`?"));
    env.ok("lock update --progress=quiet --only base .");
    assert_eq!(id(&env, "build -q --source-date-epoch=0 --locked ."), newer);
    assert_eq!(env.ok("lock check --progress=quiet").stdout, "");
    env.ok(&format!("{BUILD} ."));
    assert_eq!((content(&env, "content"), content(&env, "copy")), ("two".to_owned(), "two".to_owned()));
}

// Rows: P24.
#[test]
fn a_store_that_has_the_content_needs_no_network() {
    let (env, registry, web) = (TestEnv::new(), Registry::start(), Web::start());
    let upstream = Upstream::new(&env, "upstream");
    let commit = upstream.commit(&[("a", "1")]);
    let name = registry.name("multi:1");
    let platforms = "--platform=linux/amd64,linux/arm64";
    push(&name, "x", platforms);
    let page =
        Page { body: b"hello".to_vec(), last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT"), ..Page::default() };
    let address = web.put("/x", page);
    env.write("Dockerfile", format!("FROM {name}\nADD {address} /x\nADD {} /git/\n", upstream.address()));
    env.ok("lock update --progress=quiet");
    let text = locked(&env);
    assert_eq!(text.matches("multi:1").count(), 1, "one index for all platforms\n{text}");
    assert!(text.contains(&commit) && text.contains("modified = 1994-11-06T08:49:37Z"), "{text}");
    let same = "--source-date-epoch=0 --rewrite-timestamp";
    let build = |options: &str| {
        env.ok(&format!("{options} build --progress=quiet --locked {platforms} {same} -o type=oci,dest=out.tar ."));
        std::fs::read(env.context("out.tar")).expect("written")
    };
    let first = build("");
    let second = build("--root ../second");
    assert!(first == second, "two stores make two images");
    drop((registry, web));
    upstream.git("checkout --quiet --orphan other");
    upstream.git("branch -D main");
    assert!(build("--root ../second") == first);
    let never = "--pull=never --no-cache -o type=oci,dest=out.tar";
    env.ok(&format!("--root ../second build --progress=quiet --locked {platforms} {same} {never} ."));
    assert!(std::fs::read(env.context("out.tar")).expect("written") == first);
}

// Rows: P24.
#[test]
fn what_is_not_locked_is_an_error_with_its_line() {
    let (env, registry, web) = (TestEnv::new(), Registry::start(), Web::start());
    let name = registry.name("base:1");
    push(&name, "one", "");
    let upstream = Upstream::new(&env, "upstream");
    upstream.commit(&[("a", "1")]);
    let mut shown = vec![env.dockerfile_fails_with("FROM scratch\n", "--locked")];
    env.write("rbuild.lock", "version = 1\n");
    shown.push(env.dockerfile_fails_with(&format!("FROM scratch\n\nFROM {name}\n"), "--locked"));
    let run = "FROM scratch\nCOPY <<E /e\nE\n";
    shown.push(env.dockerfile_fails_with(&format!("{run}ADD {} /x\n", web.bytes("/x", "x")), "--locked"));
    shown.push(env.dockerfile_fails_with(&format!("{run}ADD {}#main /x\n", upstream.address()), "--locked"));
    let context = format!("--locked --build-context=c={}", web.address);
    shown.push(env.dockerfile_fails_with("FROM scratch\nCOPY --from=c / /\n", &context));
    shown.push(env.dockerfile_fails_with("FROM scratch\n", "--locked --lock-file=other.lock"));
    insta::assert_snapshot!(shown.join("\n"));
    // What names its content needs no lock.
    let commit = upstream.git("rev-parse HEAD");
    env.write("Dockerfile", format!("FROM scratch\nADD {}#{commit} /x\n", upstream.address()));
    env.ok("build --progress=quiet --locked .");
    // Without `--locked` it is said.
    env.write("Dockerfile", format!("FROM {name}\n"));
    let said = env.ok("build --progress=plain .").stderr;
    assert!(
        env.stable(&said).contains("note: not in `rbuild.lock`: image `127.0.0.1:[PORT]/base:1`; `--lock`"),
        "{said}"
    );
    assert_eq!(locked(&env), "version = 1\n");
}

// Rows: P24.
#[test]
fn an_address_with_another_content_is_refused() {
    let (env, web) = (TestEnv::new(), Web::start());
    let page = |body: &str, date| Page { body: body.as_bytes().to_vec(), last_modified: Some(date), ..Page::default() };
    let address = web.put("/x", page("one", "Sun, 06 Nov 1994 08:49:37 GMT"));
    env.write("Dockerfile", format!("FROM scratch\nADD {address} /x\n"));
    env.ok("build --progress=quiet --lock .");
    let before = id(&env, "build -q --source-date-epoch=0 --no-cache .");
    // The same content at another time is the same.
    web.put("/x", page("one", "Mon, 07 Nov 1994 08:49:37 GMT"));
    assert_eq!(id(&env, "--root ../second build -q --source-date-epoch=0 ."), before);
    web.put("/x", page("two", "Tue, 08 Nov 1994 08:49:37 GMT"));
    insta::assert_snapshot!(env.fails("--root ../third build --progress=quiet ."));
    // Who has it needs nobody, also after others got the new one.
    web.asked();
    env.ok("build --progress=quiet --no-lock .");
    assert_eq!(web.asked(), ["GET /x 200"]);
    assert_eq!(id(&env, "build -q --source-date-epoch=0 --no-cache ."), before);
    assert_eq!(web.asked(), [""; 0]);
    // A checksum of the instruction and the lock have to agree.
    let two = "sha256:3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3";
    let both = env.dockerfile_fails(format!("FROM scratch\nADD --checksum={two} {address} /x\n"));
    assert!(both.contains("but `rbuild.lock` says"), "{both}");
    env.ok(&format!("lock update --progress=quiet --only {}", web.address));
    env.ok("build --progress=quiet --locked .");
}

// Rows: P24.
#[test]
fn a_moved_branch_is_built_from_its_commit() {
    let env = TestEnv::new();
    let upstream = Upstream::new(&env, "upstream");
    let first = upstream.commit(&[("a", "one")]);
    upstream.git("tag -a -m x v1");
    let at = upstream.address();
    env.write("Dockerfile", format!("FROM scratch\nADD {at} /x/\nADD --keep-git-dir {at}#v1 /y/\n"));
    env.ok(&format!("{BUILD} --lock ."));
    let before = id(&env, "build -q --source-date-epoch=0 .");
    let files = listing(&env, "out.tar");
    upstream.commit(&[("a", "two")]);
    upstream.git("tag -f -a -m x v1");
    assert_eq!(id(&env, "build -q --source-date-epoch=0 ."), before);
    env.ok(&format!("--root ../second {BUILD} ."));
    assert_eq!(
        (content(&env, "x/a"), content(&env, "y/a"), listing(&env, "out.tar")),
        ("one".into(), "one".into(), files)
    );
    assert_eq!(content(&env, "y/.git/HEAD"), first);
    let check = env.rbuild("lock check --progress=quiet");
    assert_eq!((check.code, check.stdout.matches("changed  git reference").count()), (1, 2), "{}", check.stdout);

    // A tag that is said to lead elsewhere is not remembered as that commit.
    let other = upstream.git("rev-parse HEAD");
    let text = locked(&env);
    env.write(
        "rbuild.lock",
        text.replace(
            &format!("commit = \"{first}\", name = \"refs/tags"),
            &format!("commit = \"{other}\", name = \"refs/tags"),
        ),
    );
    let wrong = env.fails("--root ../third build --progress=quiet .");
    assert!(wrong.contains(&format!("is commit {first}, and not {other}")), "{wrong}");
    env.write("rbuild.lock", &text);

    // A commit that is gone.
    upstream.git("tag -d v1");
    upstream.git("checkout --quiet --orphan new");
    upstream.commit(&[("a", "three")]);
    upstream.git("branch -D main");
    upstream.git("branch -m main");
    upstream.git("reflog expire --expire=now --all");
    upstream.git("gc --quiet --prune=now");
    let gone = env.fails("--root ../fourth build --progress=quiet .");
    assert!(gone.contains(&format!("hint: `rbuild.lock` says {first} for git reference")), "{gone}");
    assert_eq!(id(&env, "build -q --source-date-epoch=0 ."), before);
}

// Rows: P24.
#[test]
fn builds_at_once_lose_nothing() {
    let (env, web) = (TestEnv::new(), Web::start());
    let names: Vec<String> = (0..6).map(|number| format!("{number}.Dockerfile")).collect();
    for (number, name) in names.iter().enumerate() {
        let address = web.bytes(&format!("/{number}"), number.to_string());
        env.write(name, format!("FROM scratch\nADD {address} /x\n"));
    }
    let mut running: Vec<_> = names
        .iter()
        .map(|name| env.command(["build", "--progress=quiet", "--lock", "-f", name, "."]).spawn().expect("starts"))
        .collect();
    assert!(running.iter_mut().all(|build| build.wait().expect("ends").success()));
    assert_eq!(locked(&env).matches("digest = ").count(), 6, "{}", locked(&env));
    let left = std::fs::read_dir(env.context("")).expect("readable").count();
    assert_eq!(left, 7, "nothing but the Dockerfiles and the lock file");
    // What the other files use is said, and stays until it is to be taken out.
    let check = env.ok("lock check --progress=quiet -f 0.Dockerfile").stdout;
    assert_eq!(check.matches("unused   address").count(), 5, "{check}");
    env.ok("lock update --progress=quiet -f 0.Dockerfile");
    assert_eq!(locked(&env).matches("digest = ").count(), 6);
    env.ok("lock update --progress=quiet --prune -f 0.Dockerfile");
    assert_eq!(locked(&env).matches("digest = ").count(), 1);
}

// Rows: P24.
#[test]
fn a_file_that_cannot_be_used_is_one_clear_error() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\n");
    let mut shown = Vec::new();
    for text in
        ["version = 2\n[news]\n", "version = 1\n\n[images]\n\"a\" = \"sha256:1\"\n", "version = 1\n<<<<<<< HEAD\n"]
    {
        env.write("rbuild.lock", text);
        shown.push(env.fails("build --progress=quiet ."));
    }
    env.ok("build --progress=quiet --no-lock .");
    // Nor is one written by a build that did not begin.
    env.write("wrong", "FRMO x\n").fails("build --lock --lock-file=new.lock -f wrong .");
    assert!(!env.context("new.lock").exists());
    std::fs::remove_file(env.context("rbuild.lock")).expect("removed");
    std::os::unix::fs::symlink("/etc/passwd", env.context("rbuild.lock")).expect("a link");
    shown.push(env.fails("build --progress=quiet ."));
    shown.push(env.fails("build --lock --locked ."));
    shown.push(env.fails("build --lock --dry-run ."));
    shown.push(env.fails("build --lock https://127.0.0.1:1/x.tar"));
    shown.push(env.fails("lock update --check ."));
    insta::assert_snapshot!(shown.join("\n"));
    let stdin =
        end(env.command(["build", "--lock", "-f-", "."]).stdin(std::fs::File::open("/dev/null").expect("there")));
    assert!(stdin.stderr.contains("there is no Dockerfile beside which"), "{}", stdin.stderr);
}

// Rows: P24.
#[test]
fn contexts_from_elsewhere_are_locked() {
    let (env, web) = (TestEnv::new(), Web::start());
    let upstream = Upstream::new(&env, "upstream");
    upstream.commit(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "one")]);
    let files = web.bytes("/named", "x");
    let at = upstream.address();
    env.ok(&format!("{BUILD} --lock --lock-file=my.lock {at}"));
    upstream.commit(&[("a", "two")]);
    env.ok(&format!("{BUILD} --locked --lock-file=my.lock {at}"));
    assert_eq!(content(&env, "a"), "one");
    env.ok(&format!("{BUILD} {at}"));
    assert_eq!(content(&env, "a"), "two");

    env.write("Dockerfile", "FROM scratch\nCOPY --from=c context /c\n");
    let named = format!("--build-context=c={files}");
    env.ok(&format!("{BUILD} --lock {named} ."));
    web.bytes("/named", "y");
    env.ok(&format!("{BUILD} --locked {named} ."));
    assert_eq!(content(&env, "c"), "x");
    assert!(env.fails(&format!("--root ../second {BUILD} {named} .")).contains("but `rbuild.lock` says"));

    // One that is in a repository counts, too.
    let text = locked(&env);
    upstream.commit(&[("d/Dockerfile", "FROM scratch\nCOPY --from=c context /c\n"), ("d/rbuild.lock", &text)]);
    assert!(
        env.fails(&format!("--root ../second {BUILD} {named} -f d/Dockerfile {at}")).contains("`rbuild.lock` says")
    );
    env.ok(&format!("--root ../second {BUILD} {named} -f d/Dockerfile --no-lock {at}"));
}

// Rows: P12, P24.
#[test]
fn a_renewed_lock_is_the_reason_of_another_base() {
    if !require_sandbox("a_renewed_lock_is_the_reason_of_another_base") {
        return;
    }
    let (env, registry) = (TestEnv::new(), Registry::start());
    let name = registry.name("base:1");
    let push = |content: &str| {
        let made = TestEnv::new();
        made.write("Dockerfile", format!("FROM {}\nCOPY <<E /content\n{content}\nE\n", base()));
        made.ok(&format!("build --progress=quiet --push -t {name} ."));
    };
    env.write("Dockerfile", format!("FROM {name}\nRUN cat content >copy\n"));
    let base_of = |options: &str| {
        env.ok(&format!("build --progress=quiet {options} ."));
        let ended = env.ok("explain --json");
        let explained: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
        let reasons = explained["steps"][0]["reasons"].as_array().expect("reasons").clone();
        let found = reasons.into_iter().find(|reason| reason["reason"] == "base");
        (found.map(|reason| (reason["lock"].clone(), reason["lock_file"].clone())), env.ok("explain").stdout)
    };
    let lock_is = |change: &str| Some((change.into(), "rbuild.lock".into()));
    push("one");
    assert_eq!(base_of("").0, None);
    // What the name means does not change with the lock, so nothing runs.
    env.ok("lock update --progress=quiet");
    assert!(env.ok("build --progress=plain --locked .").stderr.contains("CACHED"));
    push("two");
    env.ok("lock update --progress=quiet");
    // Keys are known when the layers of the base are.
    env.write("other", format!("FROM {name}\nRUN true\n")).ok("build --progress=quiet -f other .");
    let probe = env.rbuild("cache probe --locked .");
    assert!(
        probe.code == 1 && probe.stdout.contains("; `rbuild.lock` was renewed"),
        "{}{}",
        probe.stdout,
        probe.stderr
    );
    let (found, text) = base_of("--locked");
    assert_eq!(found, lock_is("renewed"));
    assert!(text.contains("; `rbuild.lock` was renewed\n"), "{text}");
    push("three");
    assert_eq!(base_of("--no-lock --pull").0, lock_is("left"));
    push("four");
    env.ok("lock update --progress=quiet");
    assert_eq!(base_of("--pull").0, lock_is("added"));
}

// Rows: P24.
#[test]
fn what_only_the_store_has_is_not_locked() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY <<E /x\nE\n").ok("build -q --source-date-epoch=0 -t base .");
    env.write("Dockerfile", "FROM base\n");
    let said = env.ok("build --progress=plain --lock .").stderr;
    assert!(said.contains("not in `rbuild.lock`: image `base:latest` (only the local store has it)\n"), "{said}");
    assert!(!locked(&env).contains("base"));
    assert!(env.fails("build --progress=quiet --locked .").contains("image `base:latest` is not in `rbuild.lock`"));
}

// Rows: P24.
#[test]
fn what_cannot_be_had_is_said_after_everything_was_asked_for() {
    let (env, registry, web) = (TestEnv::new(), Registry::start(), Web::start());
    let name = registry.name("base:1");
    env.write("Dockerfile", "FROM scratch\nENV WHAT=changed\nCOPY <<E /content\none\nE\n");
    env.ok(&format!("build --progress=quiet --push -t {name} ."));
    let changed = web.bytes("/changed", "one");
    env.write("Dockerfile", format!("FROM {name}\nADD {}/$WHAT /x\n", web.address));
    env.ok("lock update --progress=quiet");
    // The tag is gone, and what it was is not.
    let gone = name.replace("base:1", "base:2");
    env.write("rbuild.lock", locked(&env).replace("base:1", "base:2"));
    web.bytes("/changed", "two");
    let text = format!("FROM {gone} AS a\nADD {}/$WHAT /x\nADD {0}/gone /y\nADD {0}/new /z\n", web.address);
    env.write("Dockerfile", format!("{text}FROM a\nCOPY --from={gone} /content /copy\n"));
    web.bytes("/new", "new");
    let before = locked(&env);
    let check = env.rbuild("--root ../second lock check --progress=quiet");
    let shown = format!("{}\n{}{}", check.code, check.stdout, check.stderr);
    insta::assert_snapshot!(env.stable(&shown));
    assert!(check.stdout.contains(&format!("changed  address `{changed}`")), "{shown}");
    // Nothing is written of what is not whole.
    let update = env.fails("lock update --progress=quiet");
    assert_eq!(update.matches("error: ").count(), 2, "{update}");
    assert_eq!(locked(&env), before);
}

// Rows: P24.
#[test]
fn a_lock_of_nothing_says_so_once() {
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let note = "note: `rbuild.lock` is empty: nothing comes from outside\n";
    assert_eq!(env.ok("lock update --progress=quiet").stderr, note);
    let built = env.ok("build --progress=plain --locked .").stderr;
    assert!(!built.contains("rbuild.lock"), "{built}");
}

// Rows: P24.
#[test]
fn a_dry_run_knows_what_a_locked_address_is() {
    let (env, web) = (TestEnv::new(), Web::start());
    let address = web.bytes("/x", "one");
    env.write("Dockerfile", format!("FROM scratch\nADD {address} /x\nCOPY Dockerfile /\n"));
    env.ok("build --progress=quiet --lock .");
    let dry = |options: &str| {
        let text = env.ok(&format!("{options} build --dry-run --format json .")).stdout;
        let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let steps = json["steps"].as_array().expect("steps").iter();
        steps.map(|step| step["prediction"].as_str().expect("text").to_owned()).collect::<Vec<_>>()
    };
    web.asked();
    assert_eq!(dry(""), ["hit", "hit"]);
    // Other builds bring other contents.
    web.bytes("/x", "two");
    env.ok("build --progress=quiet --no-lock .");
    web.asked();
    assert_eq!(dry(""), ["hit", "hit"]);
    assert_eq!(web.asked(), [""; 0], "nobody is asked");
    // Without a lock only the server knows, and a store that never had it knows the digest only.
    std::fs::rename(env.context("rbuild.lock"), env.context("other.lock")).expect("renamed");
    assert_eq!(dry("")[0], "unknown");
    assert_eq!(dry("--root ../second")[0], "unknown");
    env.write("Dockerfile", format!("FROM scratch\nADD {address} /y\n"));
    let locked = env.ok("build --dry-run --format json --lock-file=other.lock .").stdout;
    assert!(locked.contains("\"prediction\": \"run\""), "{locked}");
}

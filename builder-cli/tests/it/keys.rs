//! Keys are right: each known way in which a builder can deliver a stale result, or run a step for nothing.

use std::fs::{self, FileTimes};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::SystemTime;

use rustix::fs::{XattrFlags, setxattr};

use crate::cache::build;
use crate::env::{TestEnv, end, require_sandbox};
use crate::registry::base;

/// A change below a directory `tree`, and whether who sees the directory sees it.
type Change = (&'static str, bool, fn(&Path));

const CHANGES: [Change; 11] = [
    ("content", true, |tree| fs::write(tree.join("file"), "TWO").expect("written")),
    ("content in place, size and time restored", true, |tree| in_place(&tree.join("file"), "new")),
    ("mode", true, |tree| set_mode(&tree.join("file"), 0o755)),
    ("mode of a directory", true, |tree| set_mode(&tree.join("dir"), 0o700)),
    ("target of a link", true, |tree| {
        fs::remove_file(tree.join("link")).expect("removed");
        symlink("elsewhere", tree.join("link")).expect("linked");
    }),
    ("renamed", true, |tree| fs::rename(tree.join("file"), tree.join("renamed")).expect("renamed")),
    ("names swapped", true, |tree| {
        for (from, to) in [("file", "x"), ("other", "file"), ("x", "other")] {
            fs::rename(tree.join(from), tree.join(to)).expect("renamed");
        }
    }),
    ("new empty directory", true, |tree| fs::create_dir(tree.join("empty")).expect("made")),
    ("removed", true, |tree| fs::remove_file(tree.join("dir/inner")).expect("removed")),
    ("touched", false, |tree| touch(&tree.join("file"), SystemTime::UNIX_EPOCH)),
    ("written again", false, |tree| {
        let content = fs::read(tree.join("file")).expect("readable");
        fs::remove_file(tree.join("file")).expect("removed");
        fs::write(tree.join("file"), content).expect("written");
    }),
];

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
}

fn touch(path: &Path, time: SystemTime) {
    fs::File::open(path).and_then(|file| file.set_times(FileTimes::new().set_modified(time))).expect("touched");
}

/// Other bytes of the same length in the same file, whose time is then what it was.
pub(crate) fn in_place(path: &Path, content: &str) {
    let modified = fs::metadata(path).and_then(|found| found.modified()).expect("readable");
    let file = fs::File::options().write(true).open(path).expect("writable");
    std::os::unix::fs::FileExt::write_all_at(&file, content.as_bytes(), 0).expect("written");
    file.set_times(FileTimes::new().set_modified(modified)).expect("restored");
}

fn plant(tree: &Path) {
    let _ = fs::remove_dir_all(tree);
    fs::create_dir_all(tree.join("dir")).expect("made");
    for (name, content) in [("file", "one"), ("other", "two"), ("dir/inner", "in")] {
        fs::write(tree.join(name), content).expect("written");
        set_mode(&tree.join(name), 0o644);
        touch(&tree.join(name), SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000));
    }
    set_mode(&tree.join("dir"), 0o755);
    symlink("file", tree.join("link")).expect("linked");
}

/// Where the directory comes from: the Dockerfile, the options, and where the directory is in the context.
fn sources() -> [(&'static str, String, &'static str); 6] {
    let see = "find /seen | sort > /list; sha256sum /seen/file /seen/other /seen/renamed >> /list 2>&1; true";
    let run = |mount: &str| format!("FROM {}\nRUN --mount={mount},target=/seen {see}\n", base());
    [
        ("context", run("type=bind,source=tree"), ""),
        // Without a type it is a bind mount, too.
        ("named context", run("from=named"), "--build-context named=tree"),
        ("stage", format!("FROM scratch AS stage\nCOPY tree /tree\n{}", run("type=bind,from=stage,source=/tree")), ""),
        ("image", run("source=/tree,from=image:1"), ""),
        ("COPY", format!("FROM {}\nCOPY tree /seen\nRUN {see}\n", base()), ""),
        (
            "COPY --from",
            format!(
                "FROM scratch AS stage\nCOPY tree /tree\nFROM {}\nCOPY --from=stage /tree /seen\nRUN {see}\n",
                base()
            ),
            "",
        ),
    ]
}

// Rows: A96, P1, P2.
#[test]
fn whatever_a_step_sees_is_in_its_key() {
    if !require_sandbox("whatever_a_step_sees_is_in_its_key") {
        return;
    }
    for (source, dockerfile, options) in sources() {
        let env = TestEnv::new();
        env.write("Dockerfile", dockerfile).write("image", "FROM scratch\nCOPY tree /tree\n");
        env.write(".dockerignore", "id\n");
        let ran = || {
            if source == "image" {
                env.ok("build -q -f image -t image:1 .");
            }
            build(&env, options).0.iter().any(|step| step.starts_with("RUN"))
        };
        plant(&env.context("tree"));
        assert!(ran(), "{source}");
        assert!(!ran(), "{source}: nothing changed");
        for (change, seen, make) in CHANGES {
            plant(&env.context("tree"));
            make(&env.context("tree"));
            // Only what was never seen runs; each change makes a state of its own.
            assert_eq!(ran(), seen, "{source}: {change}");
        }
    }
}

// Rows: A96.
#[test]
fn attributes_that_an_image_keeps_are_in_the_key() {
    if !require_sandbox("attributes_that_an_image_keeps_are_in_the_key") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nCOPY file /file\nRUN true\n", base())).write("file", "x");
    let set = |value: &str| setxattr(env.context("file"), "user.test", value.as_bytes(), XattrFlags::empty());
    if set("1").is_err() {
        println!("attributes_that_an_image_keeps_are_in_the_key: skipped, no extended attributes here");
        return;
    }
    let (_, first) = build(&env, "");
    set("2").expect("set");
    let (ran, second) = build(&env, "");
    // Whether attributes of a context enter the image or not: the key and the image agree.
    assert_eq!(ran.is_empty(), first == second, "{ran:?}");
    set("1").expect("set");
    assert_eq!(build(&env, "").1, first);
}

// Rows: P1.
#[test]
fn files_of_two_projects_with_equal_size_and_time_are_not_mixed_up() {
    let env = TestEnv::new();
    let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    for (project, content) in [("one", "aaa"), ("two", "bbb")] {
        env.write(&format!("{project}/file"), content)
            .write(&format!("{project}/Dockerfile"), "FROM scratch\nCOPY file /\n");
        touch(&env.context(&format!("{project}/file")), time);
    }
    for (project, content) in [("one", "aaa"), ("two", "bbb"), ("one", "aaa")] {
        env.ok(&format!("build -q -o out {project}"));
        assert_eq!(fs::read_to_string(env.context("out/file")).expect("exported"), content, "{project}");
    }
    // Another directory with the same name.
    fs::rename(env.context("one"), env.context("three")).expect("renamed");
    fs::rename(env.context("two"), env.context("one")).expect("renamed");
    env.ok("build -q -o out one");
    assert_eq!(fs::read_to_string(env.context("out/file")).expect("exported"), "bbb");
}

#[test]
fn a_copy_from_a_stage_sees_its_files_and_nothing_else() {
    if !require_sandbox("a_copy_from_a_stage_sees_its_files_and_nothing_else") {
        return;
    }
    let env = TestEnv::new();
    let write = |how: &str| {
        let stage = format!("FROM {} AS stage\nCOPY input /input\nRUN {how}\n", base());
        env.write(
            "Dockerfile",
            stage + &format!("FROM {}\nCOPY --from=stage /out /out\nRUN cat /out > /seen\n", base()),
        );
    };
    env.write("input", "1").write(".dockerignore", "id\n");
    write("cat /input > /out");
    let (_, id) = build(&env, "");
    write("cp /input /out; touch /beside");
    let (ran, again) = build(&env, "");
    assert_eq!((ran.len(), again == id), (1, true), "another definition, the same file: {ran:?}");
    env.write("input", "2");
    let (ran, other) = build(&env, "");
    assert_eq!((ran.len(), other == id), (4, false), "the same definition, another file: {ran:?}");
}

#[test]
fn what_only_says_how_to_build_is_in_no_key() {
    if !require_sandbox("what_only_says_how_to_build_is_in_no_key") {
        return;
    }
    let env = TestEnv::new();
    let mount = "--mount=type=secret,id=s --mount=type=cache,id=c,target=/c";
    env.write(
        "Dockerfile",
        format!("FROM {}\nARG UNUSED\nRUN {mount} umask > /out; mkdir /d\nCOPY file /file\n", base()),
    );
    env.write("file", "x").write(".dockerignore", "id\ns\n").write("s", "one");
    set_mode(&env.context("file"), 0o644);
    let common = "--add-host a:1.1.1.1 --secret id=s,src=s";
    let (_, id) = build(&env, common);
    env.write("s", "two");
    for options in [
        common.to_owned(),
        common.replace("1.1.1.1", "2.2.2.2"),
        format!("{common} --ulimit nofile=2000:2000 --shm-size 2m --memory 1g --jobs 1"),
        format!("{common} --build-arg HTTP_PROXY=http://p --build-arg no_proxy=x"),
        format!("{common} --build-arg NOBODY=asks"),
    ] {
        assert_eq!(build(&env, &options), (Vec::new(), id.clone()), "{options}");
    }
    let line = format!("umask 077; {} build -q --no-cache {common} .", crate::env::program().display());
    let mut shell = std::process::Command::new("sh");
    let inner = env.command([""; 0]);
    shell.args(["-c", &line]).current_dir(env.context("")).env_clear();
    for (name, value) in inner.get_envs() {
        shell.env(name, value.unwrap_or_default());
    }
    let umask = end(&mut shell);
    assert_eq!((umask.code, umask.stdout.trim()), (0, id.as_str()), "the caller's umask: {}", umask.stderr);
}

#[test]
fn what_a_command_is_given_is_in_its_key() {
    if !require_sandbox("what_a_command_is_given_is_in_its_key") {
        return;
    }
    let env = TestEnv::new();
    env.write(".dockerignore", "id\nDockerfile\n");
    let check = |before: (&str, &str), after: (&str, &str), ran: usize| {
        for (index, (dockerfile, options)) in [before, after].into_iter().enumerate() {
            env.write("Dockerfile", format!("FROM {}\n{dockerfile}\n", base()));
            let found = build(&env, options).0;
            assert!(index == 0 || found.len() == ran, "{before:?} → {after:?}: {found:?}");
        }
    };
    let cache = |options: &str| format!("RUN --mount=type=cache,id=c,target=/c{options} echo {options:?}x > /o");
    let owner = cache("");
    check((&owner, ""), (&owner.replace("target=/c", "target=/c,uid=5"), ""), 1);
    check((&owner, ""), (&owner.replace("id=c", "id=d"), ""), 1);
    check(("ARG A=1\nRUN echo used", "--build-arg A=2"), ("ARG A=1\nRUN echo used", "--build-arg A=3"), 1);
    check(("RUN echo before\nARG A=1", "--build-arg A=2"), ("RUN echo before\nARG A=1", "--build-arg A=3"), 0);
    check(
        ("ARG HTTP_PROXY\nRUN echo p", "--build-arg HTTP_PROXY=a"),
        ("ARG HTTP_PROXY\nRUN echo p", "--build-arg HTTP_PROXY=b"),
        1,
    );
    check(("RUN echo net", "--network none"), ("RUN echo net", "--network host"), 1);
    check(("RUN echo host", "--add-host a:1.1.1.1"), ("RUN echo host", "--add-host b:1.1.1.1"), 1);
    check(("USER 1\nRUN echo u", ""), ("USER 2\nRUN echo u", ""), 1);
    check(("RUN --mount=type=tmpfs,target=/t echo t", ""), ("RUN --mount=type=tmpfs,target=/t,size=1m echo t", ""), 1);
}

#[test]
fn a_base_that_moved_counts_by_its_files() {
    if !require_sandbox("a_base_that_moved_counts_by_its_files") {
        return;
    }
    let env = TestEnv::new();
    env.write("Dockerfile", "FROM moving:1\nRUN cat /version > /out\nCOPY file /file\n").write("file", "x");
    env.write(".dockerignore", "id\n");
    let base_of = |rest: &str| {
        env.write("base", format!("FROM {}\n{rest}\n", base()));
        env.ok("build -q -f base -t moving:1 .");
    };
    base_of("RUN echo 1 > /version");
    build(&env, "");
    base_of("RUN echo 1 > /version\nLABEL new=label");
    assert_eq!(build(&env, "").0.len(), 0, "the files are the same");
    base_of("RUN echo 2 > /version");
    assert_eq!(build(&env, "").0, ["RUN cat /version > /out"]);
}

#[test]
fn an_equal_result_ends_the_chain_along_commands_copies_mounts_and_stages() {
    if !require_sandbox("an_equal_result_ends_the_chain_along_commands_copies_mounts_and_stages") {
        return;
    }
    let env = TestEnv::new();
    let dockerfile = format!(
        "FROM {base} AS one\n\
         RUN --mount=type=bind,source=script,target=/script sh /script\n\
         RUN cat /made > /second\n\
         FROM {base} AS two\n\
         RUN --mount=type=bind,from=one,source=/second,target=/second cp /second /third\n\
         FROM two AS three\n\
         COPY --from=one /made /made\n\
         RUN cat /made /third > /all\n\
         FROM scratch\n\
         COPY --from=three /all /all\n",
        base = base()
    );
    env.write("Dockerfile", dockerfile).write("script", "echo result > /made\n").write(".dockerignore", "id\n");
    let (ran, id) = build(&env, "");
    assert_eq!(ran.len(), 6);
    env.write("script", "# says why\necho result > /made\n");
    let (ran, again) = build(&env, "");
    assert_eq!((ran.len(), again), (1, id.clone()), "{ran:?}");
    assert!(env.ok("history inspect").stdout.contains("run, same result"));
    env.write("script", "echo other > /made\n");
    let (ran, other) = build(&env, "");
    assert_eq!((ran.len(), other == id), (6, false), "{ran:?}");
}

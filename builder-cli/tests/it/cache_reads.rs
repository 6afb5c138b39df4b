//! `--cache-reads` and `# cache=reads`: steps whose key has no result are looked up by what they read.
//!
//! Every hit is made again and compared (`--verify-cache=100%,strict`).

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::Value;

use crate::cache::build;
use crate::env::{TestEnv, require_sandbox};
use crate::random::dice::Dice;
use crate::registry::base;

const OPTIONS: &str = "--cache-reads --verify-cache=100%,strict";

/// A project whose last step is `run`.
fn project(run: &str) -> TestEnv {
    let env = TestEnv::new();
    env.write("Dockerfile", format!("FROM {}\nWORKDIR /app\nCOPY . .\n{run}\n", base()));
    env.write("main.c", "main\n").write("README", "text\n").write("doc/guide", "text\n").write("doc/more", "text\n");
    env.write("src/a.c", "a\n")
        .write("src/b.c", "b\n")
        .write("bin/tool", "#!/bin/sh\necho tool\n")
        .write("empty/x", "");
    env.write("run", "#!/app/interpreter -x\n").write("interpreter", "#!/bin/sh\necho interpreted\n");
    for program in ["bin/tool", "run", "interpreter"] {
        mode(&env, program, 0o755);
    }
    symlink("src/a.c", env.context("link")).expect("linked");
    symlink("doc", env.context("way")).expect("linked");
    env.write(".dockerignore", "id\nDockerfile\n.dockerignore\n");
    env
}

fn mode(env: &TestEnv, name: &str, mode: u32) {
    fs::set_permissions(env.context(name), fs::Permissions::from_mode(mode)).expect("set");
}

fn relink(env: &TestEnv, name: &str, target: &str) {
    let _ = fs::remove_file(env.context(name));
    symlink(target, env.context(name)).expect("linked");
}

/// The last step of the last build, as `explain --json` says.
fn last(env: &TestEnv) -> Value {
    let document: Value = serde_json::from_str(&env.ok("explain --json").stdout).expect("JSON");
    document["steps"].as_array().and_then(|steps| steps.last()).expect("a step").clone()
}

/// Builds after a change; says what looking the last step up by what it reads gave.
fn lookup(env: &TestEnv) -> String {
    build(env, OPTIONS);
    last(env)["by_reads"]["lookup"].as_str().unwrap_or("known by its key").to_owned()
}

type Change = fn(&TestEnv);

// Rows: P22, R5.
#[test]
fn what_a_step_looks_at_decides_whether_it_runs() {
    if !require_sandbox("what_a_step_looks_at_decides_whether_it_runs") {
        return;
    }
    let readme: (&str, Change) = ("another file", |env| _ = env.write("README", "new\n"));
    let check = |run: &str, hits: &[(&str, Change)], misses: &[(&str, Change)]| {
        let env = project(run);
        assert_eq!(lookup(&env), "nothing", "{run}");
        assert_eq!(last(&env)["by_reads"]["unrecorded"], Value::Null, "{run}");
        for (what, change) in hits {
            change(&env);
            assert_eq!(lookup(&env), "hit", "{run}: {what}");
        }
        for (what, change) in misses {
            change(&env);
            assert_eq!(lookup(&env), "differs", "{run}: {what}");
        }
    };
    check(
        "RUN cat main.c > /out || true",
        &[readme, ("a new file elsewhere", |env| _ = env.write("src/new.c", "n\n"))],
        &[
            ("content", |env| _ = env.write("main.c", "other\n")),
            ("mode", |env| mode(env, "main.c", 0o600)),
            ("a link to the same", |env| {
                env.write("same.c", "other\n");
                mode(env, "same.c", 0o600);
                relink(env, "main.c", "same.c");
            }),
            ("not there", |env| {
                fs::remove_file(env.context("main.c")).expect("removed");
            }),
        ],
    );
    check(
        "RUN test -e /app/src/none.h && echo there > /out; true",
        &[readme, ("content of a file beside it", |env| _ = env.write("src/a.c", "other\n"))],
        &[("it appears", |env| _ = env.write("src/none.h", ""))],
    );
    check(
        "RUN echo src/* > /out",
        &[readme, ("content of what is listed", |env| _ = env.write("src/a.c", "other\n"))],
        &[
            ("a new name", |env| _ = env.write("src/c.c", "")),
            ("one less", |env| fs::remove_file(env.context("src/b.c")).expect("removed")),
            ("another kind", |env| relink(env, "src/c.c", "a.c")),
        ],
    );
    check(
        "RUN cat link way/guide > /out",
        &[readme, ("what the link no more", |env| _ = env.write("src/b.c", "other\n"))],
        &[
            ("content behind the link", |env| _ = env.write("src/a.c", "other\n")),
            ("target of the link", |env| relink(env, "link", "src/b.c")),
            ("target of the link on the way", |env| {
                env.write("doc2/guide", "other\n");
                relink(env, "way", "doc2");
            }),
            ("a directory in place of the link", |env| {
                fs::remove_file(env.context("way")).expect("removed");
                env.write("way/guide", "third\n");
            }),
        ],
    );
    check(
        "RUN ./run > /out",
        &[readme],
        &[
            ("the interpreter of its interpreter", |env| {
                env.write("interpreter", "#!/bin/sh\necho other\n");
            }),
            ("its own line", |env| _ = env.write("run", "#!/app/interpreter -y\n")),
        ],
    );
    check(
        "RUN PATH=/app/bin/first:/app/bin:$PATH tool > /out",
        &[readme],
        &[("an earlier one on the path", |env| {
            env.write("bin/first/tool", "#!/bin/sh\necho first\n");
            mode(env, "bin/first/tool", 0o755);
        })],
    );
    check(
        "RUN echo changed > main.c",
        &[readme],
        &[
            ("what it writes over", |env| _ = env.write("main.c", "other\n")),
            ("a link there", |env| relink(env, "main.c", "README")),
        ],
    );
    check(
        "RUN mv doc moved",
        &[readme],
        &[
            ("what is below", |env| _ = env.write("doc/guide", "other\n")),
            ("a new file there", |env| _ = env.write("doc/deep/new", "")),
        ],
    );
    // The layer hides the whole directory: it depends on its names although nobody read them.
    check("RUN rm empty/x", &[readme], &[("another name there", |env| _ = env.write("empty/y", ""))]);
    check(
        "RUN cd doc && rm -rf ../src && cat guide > /out",
        &[readme],
        &[("a name in what it removes", |env| _ = env.write("src/deep/er", ""))],
    );
    check("RUN rmdir empty 2> /out; true", &[readme], &[("its names", |env| _ = env.write("empty/y", ""))]);
}

#[test]
fn a_comment_asks_for_one_step_and_a_flag_for_all() {
    if !require_sandbox("a_comment_asks_for_one_step_and_a_flag_for_all") {
        return;
    }
    let env = project("# cache=reads\nRUN cat main.c > /one\nRUN cat src/a.c > /two");
    let first = build(&env, "").0;
    assert_eq!(first.len(), 4, "{first:?}");
    env.write("README", "new\n");
    assert_eq!(build(&env, "--verify-cache=100%,strict").0, ["COPY . .", "RUN cat src/a.c > /two"]);
    let text = env.ok("explain").stdout;
    assert!(text.contains("RUN cat main.c > /one: hit\n    something changed, and none of "), "{text}");
    assert!(env.ok("history inspect").stdout.contains("hit by reads"));
    // Both were read now; the first leaves no record under its key.
    env.write("README", "newer\n");
    assert_eq!(build(&env, "--cache-reads").0, ["COPY . .", "RUN cat src/a.c > /two"]);
    env.write("README", "newest\n");
    assert!(
        env.ok("build --dry-run --cache-reads .").stdout.contains("3 hit, 1 would run, 0 may run"),
        "nothing is known of COPY"
    );
    assert_eq!(build(&env, "--cache-reads --verify-cache=100%,strict").0, ["COPY . ."]);
    let id = build(&env, "--cache-reads").1;
    assert_eq!(build(&env, "--cache-reads"), (Vec::new(), id));
    assert_eq!(build(&env, "").0, ["RUN cat src/a.c > /two"], "without the flag its key counts");
    env.write("main.c", "other\n");
    assert_eq!(build(&env, "--cache-reads").0.len(), 2);
    let text = env.ok("explain").stdout;
    assert!(text.contains("\n    of what it reads this is another: /app/main.c\n"), "{text}");
    // Whoever says so gets a run.
    assert_eq!(build(&env, "--cache-reads --no-cache").0.len(), 4);
    let wrong = env.dockerfile_fails("FROM scratch\n# cache=reads\nCOPY a /\n");
    assert!(wrong.contains("`# cache=reads` stands above COPY, which reads nothing"), "{wrong}");
}

#[test]
fn files_of_mounts_are_looked_up_in_them() {
    if !require_sandbox("files_of_mounts_are_looked_up_in_them") {
        return;
    }
    let env = TestEnv::new();
    let mounts = "--mount=type=bind,target=/src --mount=type=cache,target=/cache --mount=type=tmpfs,target=/tmp";
    let run = "cat /src/main.c /src/way/guide > /out; cp /src/main.c /cache/seen; echo > /tmp/x";
    env.write("Dockerfile", format!("FROM {}\n# cache=reads\nRUN {mounts} {run}\n", base()));
    env.write("main.c", "main\n").write("README", "text\n").write("doc/guide", "text\n").write("doc/more", "text\n");
    symlink("doc", env.context("way")).expect("linked");
    assert_eq!(lookup(&env), "nothing");
    env.write("README", "new\n").write("doc/more", "new\n");
    assert_eq!(lookup(&env), "hit");
    env.write("doc/guide", "new\n");
    assert_eq!(lookup(&env), "differs");
    assert_eq!(last(&env)["by_reads"]["paths"], serde_json::json!(["/src/doc/guide"]));
    // One that may be written to counts whole.
    let dockerfile = fs::read_to_string(env.context("Dockerfile")).expect("read");
    env.write("Dockerfile", dockerfile.replace("bind,", "bind,rw,"));
    assert_eq!(lookup(&env), "nothing");
    env.write("README", "newer\n");
    assert_eq!(lookup(&env), "nothing");
}

#[test]
fn what_cannot_be_followed_is_not_recorded() {
    if !require_sandbox("what_cannot_be_followed_is_not_recorded") {
        return;
    }
    let check = |run: &str, expected: &str| {
        let env = project(run);
        for _ in 0..2 {
            build(&env, "--cache-reads");
            let text = env.ok("explain").stdout;
            assert!(text.contains(&format!("\n    what it reads is not recorded: {expected}\n")), "{run}\n{text}");
            env.write("README", format!("new {}", text.len()));
        }
    };
    check("RUN cat /proc/self/cwd/main.c", "it goes through `/proc/self/cwd/main.c`");
    check("RUN busybox chroot / busybox true", "it calls `chroot`");
    check("RUN echo text > x; chmod 755 x; ./x; true", "what kind of program `/app/x` is, is not known");
    check(
        "RUN --mount=type=tmpfs,target=/a --mount=type=tmpfs,target=/a/b true",
        "its mounts at `/a` and `/a/b` lie in each other",
    );
}

/// A secret is in no key, so a hit can be wrong; then what was read is forgotten.
#[test]
fn a_wrong_hit_is_found_and_takes_everything_with_it() {
    if !require_sandbox("a_wrong_hit_is_found_and_takes_everything_with_it") {
        return;
    }
    let env = project("RUN --mount=type=secret,id=word cat /run/secrets/word main.c > /out");
    fs::write(env.path("word"), "one").expect("written");
    let options = format!("--cache-reads --secret=id=word,src={}", env.path("word").display());
    build(&env, &options);
    env.write("README", "new\n");
    build(&env, &options);
    assert_eq!(last(&env)["by_reads"]["lookup"], "hit");
    fs::write(env.path("word"), "two").expect("written");
    let ended = env.rbuild(&format!("build --progress=plain {options} --verify-cache=100%,strict ."));
    let said = "found by what the step reads; what one run of it read is forgotten";
    assert!(ended.code == 1 && ended.stderr.contains(said), "{}", ended.stderr);
    env.write("README", "newer\n");
    build(&env, &options);
    assert_eq!(last(&env)["by_reads"]["lookup"], "nothing");
}

#[test]
fn what_was_read_is_kept_and_goes_like_other_records() {
    if !require_sandbox("what_was_read_is_kept_and_goes_like_other_records") {
        return;
    }
    let sets = |env: &TestEnv| {
        let shards = fs::read_dir(env.path("state").join("cache/reads")).into_iter().flatten().flatten();
        let files = shards.flat_map(|shard| fs::read_dir(shard.path()).into_iter().flatten().flatten());
        files.map(|file| file.path()).collect::<Vec<_>>()
    };
    let env = project("RUN cat main.c > /out");
    build(&env, "");
    assert!(sets(&env).is_empty(), "nobody asked for it");
    build(&env, "--cache-reads --no-cache");
    let found = sets(&env);
    assert_eq!(found.len(), 1);
    let good = fs::read(&found[0]).expect("read");
    fs::write(&found[0], &good[1..]).expect("written");
    assert!(env.rbuild("cache verify").stdout.contains("record"));
    env.write("README", "new\n");
    assert_eq!(lookup(&env), "nothing", "a damaged one is none");
    let found = sets(&env);
    assert_eq!(found.len(), 1, "a new one");
    env.ok("cache verify");
    env.ok("du --verbose");
    env.ok("prune --all --force");
    assert!(sets(&env).is_empty());
    assert_eq!(build(&env, "--cache-reads").0.len(), 3);
}

/// Files and directories of random projects.
const PATHS: &str = "a b d d d d d/a d/b d/e d/e d/e/f l m d/l x d/x";

/// Further ones, which no command names.
const OTHERS: &str = "n d/n d/e/n d/n2 d/e/n2 m/n";

/// A random command about random paths, which ends well whatever they are, and always does the same.
fn command(dice: &mut Dice) -> String {
    let (one, two) = (dice.word(PATHS).to_owned(), dice.word(PATHS).to_owned());
    let command = match dice.below(26) {
        0 => format!("cat {one} >> /out"),
        1 => format!("echo {one}/* >> /out"),
        2 => format!("find {one} | sort >> /out"),
        3 => format!("rm -rf {one}"),
        4 => format!("rm {one}"),
        5 => format!("rm -rf {one} && mkdir {one} && echo n > {one}/new"),
        6 => format!("mkdir -p {one}"),
        7 => format!("mv {one} {two}"),
        8 => format!("ln -s {one} {two}"),
        9 => format!("ln {one} {two}"),
        10 => format!("cp -a {one} {two}"),
        11 => format!("chmod 700 {one}"),
        12 => format!("chown 5:6 {one}"),
        13 => format!("echo new > {one}"),
        14 => format!("echo more >> {one}"),
        15 => format!("test -e {one} && echo there >> /out"),
        16 => format!("test -d {one} || echo none >> /out"),
        17 => format!("(cd {one} && cat ../{two} >> /out)"),
        18 => format!("stat -c '%a %u %g %h %F' {one} >> /out"),
        19 => format!("(cd {one} && stat -c '%a %h' . .. >> /out)"),
        20 => format!("sh {one} >> /out"),
        21 => format!("./{one} >> /out"),
        22 => format!("(cd {one} && rm a b f x)"),
        23 => format!("touch {one}/t && rm {one}/t"),
        24 => "(PATH=/app/d:/app/d/e:$PATH; a >> /out; x >> /out)".to_owned(),
        _ => format!("ls -R {one} >> /out"),
    };
    if dice.chance(20) { format!("if test -f {one}; then {command}; fi") } else { command }
}

/// Changes something in the directories that are copied one over the other.
fn change(env: &TestEnv, dice: &mut Dice) -> String {
    let below = if dice.chance(70) { "low" } else { "high" };
    let paths = if dice.chance(50) { PATHS } else { OTHERS };
    let name = format!("{below}/{}", dice.word(paths));
    let path = env.context(&name);
    let gone = || match fs::symlink_metadata(&path) {
        Ok(found) if found.is_dir() => drop(fs::remove_dir_all(&path)),
        _ => drop(fs::remove_file(&path)),
    };
    // Nothing is written through a link.
    let mut above = env.context(below);
    for part in Path::new(&name).parent().expect("below a directory").components().skip(1) {
        above.push(part);
        if !fs::symlink_metadata(&above).is_ok_and(|found| found.is_dir()) {
            let _ = fs::remove_file(&above);
            fs::create_dir(&above).expect("made");
        }
    }
    let what = dice.below(8);
    match what {
        0 => gone(),
        1 => drop(fs::create_dir_all(&path)),
        2 => {
            gone();
            let _ = symlink(dice.word("a b d d/a ../b .. /app/d/e /out none l"), &path);
        }
        3 => {
            let modes = if path.is_dir() { [0o755, 0o711] } else { [0o755, 0o644] };
            if path.exists() && !path.is_symlink() {
                let _ = fs::set_permissions(&path, fs::Permissions::from_mode(modes[dice.below(2)]));
            }
        }
        4 => {
            gone();
            fs::write(&path, dice.pick(&["#!/bin/sh\necho s\n", "#!/app/b\n", "#!/app/d/e/f -x\n"])).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        }
        _ => {
            gone();
            fs::write(&path, dice.word("one two three")).expect("written");
        }
    }
    format!("{name} {what}")
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// `RBUILD_READS_SEED` and `RBUILD_READS_ROUNDS` make it long.
#[test]
fn random_steps_give_what_they_give_without_a_cache() {
    if !require_sandbox("random_steps_give_what_they_give_without_a_cache") {
        return;
    }
    let (mut hits, mut all) = (0, 0);
    let first = number("RBUILD_READS_SEED", 1);
    for seed in first..first + number("RBUILD_READS_ROUNDS", 3) {
        let (env, mut dice) = (TestEnv::new(), Dice::new(seed));
        for below in ["low", "high"] {
            fs::create_dir(env.context(below)).expect("made");
        }
        let mut log: Vec<String> = (0..15).map(|_| change(&env, &mut dice)).collect();
        let script: Vec<String> = (0..=dice.below(6)).map(|_| command(&mut dice)).collect();
        let before: Vec<String> = (0..dice.below(3)).map(|_| command(&mut dice)).collect();
        let mount =
            dice.pick(&["", "", "--mount=type=bind,source=low/d,target=/app/d", "--mount=type=cache,target=/app/d/e"]);
        let before: String = before.iter().map(|command| format!("{command}; ")).collect();
        let directory = "test -d d -a ! -L d || { rm -rf d; mkdir d; }";
        let dockerfile = format!(
            "FROM {}\nWORKDIR /app\nCOPY low /app\nRUN {before}{directory}\nCOPY high /app/d/\n# cache=reads\nRUN {mount} {}; true\n",
            base(),
            script.join("; ")
        );
        env.write("Dockerfile", &dockerfile);
        for _ in 0..10 {
            let ended = env.rbuild("build --progress=plain --verify-cache=100%,strict .");
            let said = format!("RBUILD_READS_SEED={seed}\n{dockerfile}{}\n{}", log.join("\n"), ended.stderr);
            // What a build says is wrong with the files is no matter of the cache.
            assert!(!ended.stderr.contains("not confirmed") && ended.code != 101, "{said}");
            if ended.code == 0 {
                all += 1;
                hits += usize::from(last(&env)["by_reads"]["lookup"] == "hit");
            }
            log.push("then".to_owned());
            log.extend((0..=dice.below(3) / 2).map(|_| change(&env, &mut dice)));
        }
    }
    println!("{hits} hits by what was read in {all} builds");
    assert!(hits > 0, "no build said anything");
}

//! Many processes do everything that can be done to one store at the same time, and some are killed on the way. What they
//! report is right, and the store is whole afterwards.
//!
//! `RBUILD_TEST_STRESS=SECONDS` makes it longer, `RBUILD_TEST_SEED=NUMBER` repeats one; the seed is in every failure.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::env::{Ended, TestEnv, require_sandbox};
use crate::registry::{Registry, base};
use crate::store::check_du;

const WORKERS: u64 = 6;

/// One command in so many is killed.
const KILLED: u64 = 4;

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[usize::try_from(self.below(words.len() as u64)).expect("small")]
    }
}

/// Projects that share some of their steps; what each has to come to is known.
#[derive(Clone, Copy)]
struct Variant(u64);

impl Variant {
    const ALL: u64 = 12;

    fn parts(self) -> (u64, u64, u64) {
        (self.0 % 2, self.0 / 2 % 3, self.0 / 6 % 2)
    }

    fn dockerfile(self) -> String {
        let (one, two, three) = self.parts();
        let base = base();
        format!(
            "FROM {base} AS base\nRUN sleep 0.05; mkdir /w; echo base{one} > /w/base\n\
             FROM base AS left\nCOPY src /w/src\nRUN sleep 0.0{two}5; cat /w/src/a /w/src/b > /w/left; echo {two} >> /w/left\n\
             FROM base AS right\n\
             RUN --mount=type=bind,source=src,target=/src cat /src/a > /w/right; echo {three} >> /w/right; dd if=/dev/zero of=/w/zero bs=1k count=300\n\
             FROM base\nCOPY --from=left /w/left /w/\nCOPY --from=right /w/right /w/zero /w/\n\
             RUN cat /w/left /w/right /w/base > /w/result; rm /w/zero\n"
        )
    }

    fn result(self) -> String {
        let (one, two, three) = self.parts();
        let (a, b) = (source("a"), source("b"));
        format!("{a}{b}{two}\n{a}{three}\nbase{one}\n")
    }
}

fn source(name: &str) -> String {
    format!("line of {name}\n").repeat(200)
}

/// What a command is, and what of its failures is to be expected.
struct Action {
    line: String,
    /// Beginnings or parts of messages that are no defect: others remove what it asks for.
    fails: &'static [&'static str],
    variant: Option<Variant>,
}

struct Worker<'a> {
    env: &'a TestEnv,
    registry: &'a Registry,
    random: Random,
    directory: PathBuf,
    done: u64,
}

impl Worker<'_> {
    fn next(&mut self) -> Action {
        let gone: &[&str] =
            &["no such image", "not in the store", "there is no build", "no build is recorded", "is running"];
        let random = &mut self.random;
        let tag = format!("t{}", random.below(5));
        let variant = Variant(random.below(Variant::ALL));
        let cache = match random.below(2) {
            0 => format!("type=registry,ref={}", self.registry.name(&format!("cache:{}", random.below(2)))),
            _ => format!("type=local,PLACE={}", self.env.path(&format!("cache{}", random.below(2))).display()),
        };
        let to = format!("--cache-to {}", cache.replace("PLACE", "dest"));
        let from = format!("--cache-from {}", cache.replace("PLACE", "src"));
        let tar = "-o type=tar,dest=out.tar";
        let action = |line: String, fails| Action { line, fails, variant: None };
        let build = |line: String| Action {
            line: format!("build --progress=plain {line} ."),
            fails: &[],
            variant: Some(variant),
        };
        match random.below(26) {
            0..6 => build(format!("-t {tag}")),
            6..10 => build(tar.to_owned()),
            10 => build(format!("--no-cache -t {tag}")),
            11 => build(format!("{tar} {to}")),
            12 => build(format!("-t {tag} {from} {to}")),
            13..16 => self.lock(),
            16 => action(format!("cache prune -f --max-used-space {}k", random.below(3000)), gone),
            17 => action(
                random
                    .of(&["prune -f", "prune -a -f", "image prune -f", "cache prune -f --keep-duration 1s"])
                    .to_owned(),
                gone,
            ),
            18 => action(random.of(&["cache verify", "cache verify --repair"]).to_owned(), &[]),
            19 => action(random.of(&["du", "du -v", "images", "cache ls"]).to_owned(), &[]),
            20 => action(
                random
                    .of(&["history ls", "history rm latest", "history inspect", "history logs", "explain"])
                    .to_owned(),
                gone,
            ),
            21 => action(format!("rmi {tag}"), gone),
            22 => action(format!("save -o saved.tar {tag}"), gone),
            23 if self.directory.join("good.tar").exists() => action("load -i good.tar".to_owned(), &[]),
            24 => action(
                random.of(&["cache mounts ls", "cache mounts rm locked", "cache mounts rm private"]).to_owned(),
                &["there is no cache mount", "is in use"],
            ),
            _ => action(format!("tag {tag} t{}", random.below(5)), gone),
        }
    }

    /// A step that notices whether it is alone.
    fn lock(&mut self) -> Action {
        let token = self.random.below(1 << 30);
        let sharing = self.random.of(&["locked", "private"]);
        let command = format!(
            "echo {token} > /c/holder; sleep 0.1; test $(cat /c/holder) = {token} || {{ echo NOT ALONE; exit 9; }}"
        );
        let mount = format!("--mount=type=cache,id={sharing},sharing={sharing},target=/c");
        self.write(&format!("FROM {}\nRUN {mount} {command}\n", base()));
        Action { line: "build --progress=plain -o type=cacheonly .".to_owned(), fails: &[], variant: None }
    }

    fn write(&self, dockerfile: &str) {
        fs::write(self.directory.join("Dockerfile"), dockerfile).expect("written");
    }

    /// Runs a command, and perhaps kills it; `None` if that had an effect.
    fn run(&mut self, line: &str) -> Option<Ended> {
        let [out, err] = ["stdout", "stderr"].map(|name| self.directory.join(name));
        let mut command = self.env.command(line.split_whitespace());
        command
            .current_dir(&self.directory)
            .stdout(File::create(&out).expect("made"))
            .stderr(File::create(&err).expect("made"));
        let mut child = command.spawn().expect("starts");
        let random = &mut self.random;
        let longest = [50, 300, 1000][usize::try_from(random.below(3)).expect("small")];
        let kill = (random.below(KILLED) == 0).then(|| Duration::from_millis(random.below(longest)));
        let signal =
            [Signal::KILL, Signal::KILL, Signal::TERM, Signal::INT][usize::try_from(random.below(4)).expect("small")];
        let (begun, mut killed) = (Instant::now(), false);
        let status = loop {
            if let Some(status) = child.try_wait().expect("waited for") {
                break status;
            }
            if !killed && kill.is_some_and(|after| begun.elapsed() >= after) {
                killed = true;
                let pid = Pid::from_raw(i32::try_from(child.id()).expect("small")).expect("a process");
                let _ = kill_process(pid, signal);
            }
            if begun.elapsed() > Duration::from_secs(120) {
                let _ = child.kill();
                let _ = child.wait();
                panic!("`{line}` hangs\n{}", fs::read_to_string(err).unwrap_or_default());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let text = |path: &Path| String::from_utf8_lossy(&fs::read(path).expect("readable")).into_owned();
        let code = status.code().unwrap_or(-1);
        let ended = Ended { code, stdout: text(&out), stderr: text(&err) };
        (!killed || matches!(code, 0 | 1)).then_some(ended)
    }

    fn step(&mut self) {
        let action = self.next();
        if let Some(variant) = action.variant {
            self.write(&variant.dockerfile());
        }
        let line = action.line;
        let Some(ended) = self.run(&line) else { return };
        self.done += 1;
        assert!(!ended.stderr.contains("panicked"), "{line}: {ended:?}");
        // What was killed while it ended may say anything, but not that the store is damaged.
        assert!(!ended.stdout.contains("damaged "), "{line}: {ended:?}");
        assert!(!ended.stderr.contains("NOT ALONE\n"), "{line}: {ended:?}");
        if ended.code != 0 {
            assert!(
                action.fails.iter().any(|known| ended.stderr.contains(known)) || ended.stderr.is_empty(),
                "{line}: {ended:?}"
            );
            return;
        }
        if let Some(variant) = action.variant.filter(|_| line.contains("type=tar")) {
            let result =
                Command::new("tar").args(["-xOf", "out.tar", "w/result"]).current_dir(&self.directory).output();
            assert_eq!(String::from_utf8_lossy(&result.expect("ran").stdout), variant.result(), "{line}");
        }
        if line.starts_with("save ") {
            judge(&self.directory.join("saved.tar"));
            fs::rename(self.directory.join("saved.tar"), self.directory.join("good.tar")).expect("renamed");
        }
    }
}

/// Another program reads every byte of a saved image.
fn judge(archive: &Path) {
    let layout = archive.with_extension("layout");
    let (from, to) = (format!("docker-archive:{}", archive.display()), format!("oci:{}:x", layout.display()));
    let copied = Command::new("skopeo").args(["copy", "-q", &from, &to]).output().expect("skopeo");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    fs::remove_dir_all(layout).expect("removed");
}

/// Makes everything in a store look old: nothing younger than a minute is taken for a leftover.
pub(crate) fn age(state: &Path) {
    let age = "find . ! -path '*/fs/*' -exec touch -h -d '2 minutes ago' {} +";
    assert!(Command::new("sh").args(["-c", age]).current_dir(state).stderr(Stdio::null()).status().is_ok());
}

/// Files of unfinished work.
pub(crate) fn leftovers(state: &Path) -> Vec<String> {
    let unfinished =
        ["-name", ".tmp*", "-o", "-name", "tmp-*", "-o", "-name", "new-*", "-o", "-path", "*/content/tmp/*"];
    let mut find = Command::new("find");
    find.arg(state).args(["-path", "*/fs/*", "-prune", "-o", "("]).args(unfinished);
    let found = find.args(["-o", "-path", "*/cache/locks/*", ")", "-print"]).output().expect("ran");
    String::from_utf8_lossy(&found.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn many_processes_share_a_store_and_some_are_killed() {
    if !require_sandbox("many_processes_share_a_store_and_some_are_killed") {
        return;
    }
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seconds = number("RBUILD_TEST_STRESS").unwrap_or(8);
    let seed = number("RBUILD_TEST_SEED").unwrap_or(u64::from(std::process::id()));
    let (env, registry) = (TestEnv::new(), Registry::start());
    let end_at = Instant::now() + Duration::from_secs(seconds);
    let run = |number: u64| {
        let directory = env.path(&format!("worker{number}"));
        fs::create_dir_all(directory.join("src")).expect("made");
        for name in ["a", "b"] {
            fs::write(directory.join("src").join(name), source(name)).expect("written");
        }
        let random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(number));
        let mut worker = Worker { env: &env, registry: &registry, random, directory, done: 0 };
        while Instant::now() < end_at {
            worker.step();
        }
        worker.done
    };
    let done: u64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|number| scope.spawn(move || run(number))).collect();
        workers.into_iter().map(|worker| worker.join().unwrap_or_else(|_| panic!("seed {seed}"))).sum()
    });
    assert!(done > WORKERS, "seed {seed}: only {done} commands came to an end");
    after(&env, seed);
}

/// The store is whole, says what it occupies, and keeps nothing of those that were killed.
fn after(env: &TestEnv, seed: u64) {
    let state = env.path("state");
    let mounted = fs::read_to_string("/proc/self/mountinfo").expect("readable");
    assert!(!mounted.contains(state.to_str().expect("text")), "seed {seed}: {mounted}");
    let verified = env.rbuild("cache verify");
    assert_eq!(verified.code, 0, "seed {seed}: {verified:?}");
    for name in env.ok("images --format {{.Repository}}:{{.Tag}}").stdout.lines().filter(|name| !name.contains('<')) {
        let archive = env.path("final.tar");
        env.ok(&format!("save -o {} {name}", archive.display()));
        judge(&archive);
        let result = env.ok(&format!("run --rm {name} cat /w/result")).stdout;
        assert!((0..Variant::ALL).any(|number| Variant(number).result() == result), "seed {seed}: {name}: {result}");
    }
    age(&state);
    env.ok("prune -f");
    assert_eq!(leftovers(&state), Vec::<String>::new(), "seed {seed}");
    check_du(env, &format!("seed {seed}"));
}

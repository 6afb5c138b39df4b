//! Builds of a [`World`], and what has to be true of them.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

use super::files::{self, Changed, EVERYTHING};
use super::image::Built;
use super::number;
use super::project::Given;
use super::reasons::{self, Flags, Past};
use super::world::{Place, World};
use crate::env::{end, program};

/// How a command ended.
struct Ran {
    built: Built,
    warnings: Vec<String>,
}

/// How the old store is asked to build.
struct Plan {
    options: Vec<String>,
    umask: String,
    /// An option that makes known steps run.
    again: &'static str,
    /// Something is new.
    may_run: bool,
    is_kept: bool,
    export: bool,
}

impl World {
    fn command(&mut self, store: &str, options: &[String], umask: &str) -> Command {
        self.hold_local(store);
        let context = self.give();
        let inner = self.env.command([""; 0]);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]).arg(program()).args(options).arg(&context);
        command.current_dir(self.env.context("")).env_clear().stdin(Stdio::null());
        if self.project.given == Given::Stream {
            command.stdin(std::fs::File::open(self.env.path("given.tar")).expect("written"));
        }
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command.env("RBUILD_ROOT", self.env.path(store));
        command
    }

    fn build(&mut self, store: &str, mut options: Vec<String>, umask: &str) -> Result<Ran, String> {
        let archive = self.env.path(&format!("{store}.tar"));
        let _ = std::fs::remove_file(&archive);
        options.push(format!("--output=type=oci,compression=uncompressed,dest={}", archive.display()));
        let ended = end(&mut self.command(store, &options, umask));
        let mut warnings = Vec::new();
        for line in ended.stderr.lines().filter(|line| line.starts_with('{')) {
            let status: Value = serde_json::from_str(line).map_err(|error| format!("{error}: {line}"))?;
            for warning in status["warnings"].as_array().into_iter().flatten() {
                let short = warning["short"].as_str().unwrap_or_default();
                let short = base64::engine::general_purpose::STANDARD.decode(short).expect("base64");
                warnings.push(String::from_utf8_lossy(&short).into_owned());
            }
        }
        for bad in ["memo", "deterministic", "is not what"] {
            if let Some(warning) = warnings.iter().find(|warning| warning.contains(bad)) {
                return Err(format!("{store}: {warning}"));
            }
        }
        let built = match ended.code {
            0 => Built::read(&archive, self.project.rewrite, false),
            1..=3 => Built::Failed,
            code => return Err(format!("{store}: exit code {code}\n{}", ended.stderr)),
        };
        if built == Built::Failed {
            let error: Vec<&str> = ended.stderr.lines().filter(|line| line.starts_with("error")).collect();
            let error = error.join(" ");
            self.refused = store == "empty" && error.contains("but `--checksum` says");
            self.log.push(format!("  {store} failed: {error}"));
        }
        Ok(Ran { built, warnings })
    }

    /// What an empty store makes of the state.
    fn anew(&mut self, state: &str) -> Result<Built, String> {
        if let Some(known) = self.fresh.get(state) {
            return Ok(known.clone());
        }
        let _ = std::fs::remove_dir_all(self.env.path("empty"));
        self.forget_local("empty");
        let mut options = self.options();
        options.push("--no-cache".to_owned());
        let built = self.build("empty", options, "022")?.built;
        if self.refused {
            self.only_known.insert(state.to_owned());
        }
        self.fresh.insert(state.to_owned(), built.clone());
        Ok(built)
    }

    /// How the old store is asked to build.
    fn plan(&mut self, state: &str) -> Plan {
        let mut options = self.options();
        let mut may_run = !self.seen.contains(state) || self.project.expires();
        let mut export = false;
        let mut again = "";
        let verify = number("RBUILD_RANDOM_VERIFY").is_some_and(|percent| self.dice.roll() % 100 < percent);
        match self.dice.below(40) {
            _ if verify => again = "--verify-cache=100",
            0 => (again, may_run) = ("--no-cache", true),
            1 if !self.project.expires() => (again, may_run) = ("--cache-ttl=1s", true),
            2 => again = "--verify-cache=100",
            3..13 => export = true,
            _ => {}
        }
        options.extend((!again.is_empty()).then(|| again.to_owned()));
        let is_kept = self.dice.chance(40);
        options.extend(is_kept.then(|| "--tag=app".to_owned()));
        options.extend(is_kept.then(|| "--load".to_owned()));
        let [to, from] = self.caches();
        let mounts = if self.place != Place::Inline && self.dice.chance(30) { ",mounts=all" } else { "" };
        options.extend(export.then(|| format!("--cache-to={to}{mounts}")));
        let import = self.dice.chance(15) && self.exported.is_some();
        options.extend(import.then(|| format!("--cache-from={from}")));
        for noise in
            ["--build-arg=NOBODY=asks", "--build-arg=no_proxy=x", "--jobs=1", "--shm-size=2m", "--ulimit=nofile=2000"]
        {
            options.extend(self.dice.chance(10).then(|| noise.to_owned()));
        }
        let umask = self.dice.pick(&["022", "022", "022", "077", "000"]).to_owned();
        self.log.push(format!("  built with umask {umask} {}", options[7..].join(" ")));
        Plan { options, umask, again, may_run, is_kept, export }
    }

    /// Some changes, a build, and what an empty store makes of the same.
    pub(super) fn step(&mut self) -> Result<(), String> {
        self.log.push(format!("step {}", self.figures.compared));
        for _ in 0..self.dice.below(4) {
            self.change();
        }
        if self.dice.chance(40) {
            // Long enough for the clock of the kernel to go on.
            std::thread::sleep(Duration::from_millis(25));
            self.log.push("  waited".to_owned());
        }
        for _ in 0..=number("RBUILD_RANDOM_DISTURB").unwrap_or(0) {
            self.disturb();
        }
        let state = self.state();
        let first = if self.dice.chance(50) { Some(self.anew(&state)?) } else { None };
        let foreseen = if self.dice.chance(10) { Some(self.foresee()) } else { None };
        let Plan { options, umask, again, may_run, is_kept, export } = self.plan(&state);
        // What others know is not asked for, nor what tags are now.
        let asks = self.project.expires() || self.images.must_be_asked();
        let foreseen = foreseen.filter(|_| !asks && !options.iter().any(|option| option.starts_with("--cache-from")));
        if again == "--cache-ttl=1s" {
            std::thread::sleep(Duration::from_millis(if self.dice.chance(20) { 1100 } else { 0 }));
        }
        let beside = self.dice.chance(6).then(|| {
            self.log.push("  beside another build".to_owned());
            let mut others = self.options();
            others.extend(self.dice.chance(50).then(|| "--no-cache".to_owned()));
            spawn(&mut self.command("state", &others, "022"))
        });
        let ran = self.build("state", options, &umask);
        let alone = beside.map(|mut child| child.wait()).is_none();
        let ran = ran?;
        // In the same instant, if nothing has to be known of what was built any more.
        let project = self.project.clone();
        let at_once = first.is_some() && self.dice.chance(40);
        let names = std::mem::take(&mut self.names);
        if at_once {
            let changed = files::change(&self.env.context(""), &mut self.dice);
            self.note(changed);
        }
        if alone {
            self.judge(&state, names, &ran, may_run, again, foreseen.as_ref())?;
        } else {
            // The last build may be the other one.
            self.names.push(EVERYTHING.to_owned());
        }
        let expected = match first {
            Some(first) => first,
            None => self.anew(&state)?,
        };
        self.figures.compared += 1;
        if self.only_known.contains(&state) && ran.built != Built::Failed {
            // The store has the file of that checksum, and asks nobody what the server has now.
            return Ok(());
        }
        compare("the empty store and the old one", &expected, &ran.built)?;
        if ran.built == Built::Failed {
            self.figures.failed += 1;
            self.failures += 1;
            if self.failures > 1 && !at_once {
                self.mend();
            }
            return Ok(());
        }
        self.failures = 0;
        self.figures.platforms += usize::from(self.project.has_platforms());
        // Of several platforms that of this machine is saved.
        if is_kept && !self.project.has_platforms() {
            self.compare_kept(&expected)?;
        }
        if export {
            self.exported = Some(state.clone());
            if self.place == Place::Inline {
                let cache = self.env.path("cache");
                let _ = std::fs::remove_dir_all(&cache);
                std::fs::create_dir(&cache).expect("made");
                let unpacked =
                    Command::new("tar").arg("-xf").arg(self.env.path("state.tar")).arg("-C").arg(&cache).status();
                assert!(unpacked.expect("tar").success());
            }
        }
        if !at_once {
            self.good = Some(project);
            self.keep_as("good");
            if self.exported.is_some() && self.dice.chance(30) {
                self.import(&state, &expected)?;
            }
        }
        Ok(())
    }

    /// After failures: back to what could be built.
    fn mend(&mut self) {
        self.failures = 0;
        if let Some(good) = self.good.clone() {
            self.project = good;
            self.restore("good");
        } else {
            self.project = self.another();
            self.write_dockerfile();
        }
        self.note(Changed::of("mended", EVERYTHING));
    }

    /// Whether the steps that ran had to, and have a reason.
    fn judge(
        &mut self,
        state: &str,
        names: Vec<String>,
        ran: &Ran,
        may_run: bool,
        again: &str,
        foreseen: Option<&Value>,
    ) -> Result<(), String> {
        let ended = end(&mut self.env.command(["explain", "--json"]));
        if ended.code != 0 {
            // A build that did not come to its steps.
            self.names = names;
            return if ran.built == Built::Failed { Ok(()) } else { Err(ended.stderr) };
        }
        let explained: Value = serde_json::from_str(&ended.stdout).map_err(|error| error.to_string())?;
        let id = explained["build"].as_str().unwrap_or_default().to_owned();
        let succeeded = ran.built != Built::Failed;
        if self.past.last().is_some_and(|last| last.id == id) {
            self.names.extend(names);
            return if succeeded { Err("the build is not in the history".to_owned()) } else { Ok(()) };
        }
        self.past.push(Past { id, names, succeeded });
        let steps = reasons::ran(&explained);
        self.log.push(format!("  ran: {}", steps.join(" ")));
        self.figures.ran += steps.len();
        self.figures.hit += explained["steps"].as_array().map_or(0, Vec::len) - steps.len();
        if !succeeded {
            return Ok(());
        }
        self.seen.insert(state.to_owned());
        if !may_run {
            self.figures.unchanged += 1;
            if !steps.is_empty() {
                return Err(format!("nothing changed, and it ran {}\n{:#}", steps.join(", "), explained));
            }
        }
        if again.is_empty() {
            let roots = [self.env.context(""), self.env.path("named")];
            let links: Vec<String> = roots.iter().flat_map(|root| files::links(root)).collect();
            let flags = Flags { was_pruned: self.was_pruned, may_expire: self.project.expires() };
            let wrong = reasons::wrong(&explained, &self.past, flags, &links);
            self.figures.expired += reasons::expired(&explained);
            if !wrong.is_empty() {
                return Err(format!("explained wrongly:\n{wrong}"));
            }
            for step in foreseen.and_then(|foreseen| foreseen["steps"].as_array()).into_iter().flatten() {
                let found =
                    explained["steps"].as_array().into_iter().flatten().find(|found| found["number"] == step["number"]);
                let verdict = found.map_or(&Value::Null, |found| &found["verdict"]);
                // Whether somebody will need files that are not here is not foreseen.
                let gone = found.is_some_and(|found| found["reasons"][0]["reason"] == "files-gone") && self.was_pruned;
                if (step["prediction"] == "hit" && verdict != "hit" && !gone)
                    || (step["prediction"] == "run" && verdict == "hit" && is_alone(step, &explained))
                {
                    return Err(format!("foreseen wrongly: {step}\n{found:?}"));
                }
            }
        }
        Ok(())
    }

    fn foresee(&mut self) -> Value {
        let mut options = self.options();
        options.extend(["--dry-run", "--format=json"].map(str::to_owned));
        options.retain(|option| !option.starts_with("--progress"));
        let ended = end(&mut self.command("state", &options, "022"));
        serde_json::from_str(&ended.stdout).unwrap_or(Value::Null)
    }

    /// The image as the store has it.
    fn compare_kept(&mut self, expected: &Built) -> Result<(), String> {
        let saved = self.env.path("saved.tar");
        let _ = std::fs::remove_file(&saved);
        let ended = end(&mut self.env.command(["save", "-o", saved.to_str().expect("text"), "app"]));
        if ended.code != 0 {
            return Err(format!("save: {}", ended.stderr));
        }
        compare("what was built and what is kept", expected, &Built::read(&saved, self.project.rewrite, true))
    }

    /// Builds with a store that knows only what the first one told.
    fn import(&mut self, state: &str, expected: &Built) -> Result<(), String> {
        let is_new = self.dice.chance(60);
        if is_new {
            let _ = std::fs::remove_dir_all(self.env.path("second"));
            self.forget_local("second");
        }
        let mut options = self.options();
        let [to, from] = self.caches();
        if self.dice.chance(25) && self.place != Place::Inline {
            // A part that is damaged is left out.
            let layers = self.dice.pick(&["--layers", "--json"]);
            let mut command = self.env.command(["cache", "import", layers, &from]);
            let ended = end(command.env("RBUILD_ROOT", self.env.path("second")));
            self.log.push(format!("  imported by hand: {}", ended.code));
        }
        options.push(format!("--cache-from={from}"));
        let replaces = self.dice.chance(15) && self.place != Place::Inline;
        options.extend(replaces.then(|| format!("--cache-to={to}")));
        let ran = self.build("second", options, "022")?;
        self.figures.imported += 1;
        self.log.push(format!("  imported, new: {is_new}"));
        compare("the empty store and one that imports", expected, &ran.built)?;
        let mut command = self.env.command(["explain", "--json"]);
        let ended = end(command.env("RBUILD_ROOT", self.env.path("second")));
        let explained: Value = serde_json::from_str(&ended.stdout).map_err(|error| error.to_string())?;
        let steps = reasons::ran(&explained);
        // What hangs on the key of one store is for that store.
        // A store that imported before may know layers by times that the cache has no files for any more.
        let told = !self.project.has_fingerprints() && !self.project.expires();
        let all = is_new && self.place != Place::Inline && told;
        let is_exported = self.exported.as_deref() == Some(state);
        if replaces {
            self.exported = Some(state.to_owned());
        }
        if is_exported && all && !steps.is_empty() {
            return Err(format!("imported, and ran {} {:?}\n{explained:#}", steps.join(", "), ran.warnings));
        }
        if self.dice.chance(20) {
            self.log.push("  which is the store from now on".to_owned());
            self.figures.replaced += 1;
            self.replace_store("second", "state");
            self.forget();
        }
        Ok(())
    }

    /// Something happens to the store.
    fn disturb(&mut self) {
        match self.dice.below(100) {
            0..8 => {
                let lines = [
                    "prune -f",
                    "prune -a -f",
                    "prune -f --max-used-space 1500000",
                    "prune -f --max-used-space 100000",
                    "prune -f --keep-duration 1s",
                    "prune -f --filter type=exec.cachemount",
                    "rmi -f app",
                    "image prune -a -f",
                ];
                let line = self.dice.pick(&lines).to_owned();
                let ended = end(&mut self.env.command(line.split(' ')));
                self.log.push(format!("  {line}: {}", ended.code));
                self.figures.pruned += 1;
                self.forget_local("state");
                self.forget();
                let _ = end(&mut self.env.command(["history", "rm", "--all"]));
            }
            8..14 => {
                let after = Duration::from_micros(self.dice.roll() % 250_000);
                let mut options = self.options();
                options.extend(["--tag=app".to_owned()]);
                let mut child = spawn(&mut self.command("state", &options, "022"));
                std::thread::sleep(after);
                let _ = child.kill();
                let _ = child.wait();
                self.log.push(format!("  killed after {after:?}"));
                // What a step came to is known a moment before its files are kept.
                self.was_pruned = true;
                self.figures.killed += 1;
                self.names.push(EVERYTHING.to_owned());
            }
            14..20 => {
                let mut options = self.options();
                options.extend(self.dice.chance(50).then(|| "--tag=app".to_owned()));
                let mut child = spawn(&mut self.command("state", &options, "022"));
                self.log.push("  while it builds:".to_owned());
                for _ in 0..=self.dice.below(4) {
                    std::thread::sleep(Duration::from_micros(self.dice.roll() % 20_000));
                    let changed = files::change(&self.env.context(""), &mut self.dice);
                    self.note(changed);
                }
                let _ = child.wait();
                self.names.push(EVERYTHING.to_owned());
            }
            20..23 => self.damage(),
            23 | 24 if self.place == Place::Directory => self.damage_cache(),
            _ => {}
        }
    }

    /// The store is not what it was.
    fn forget(&mut self) {
        self.seen.clear();
        self.past.clear();
        self.was_pruned = true;
    }

    /// A file of what is known about steps is not what it was.
    fn damage(&mut self) {
        let folder =
            self.dice.pick(&["cache/records", "cache/results", "contexts", "trees", "downloads", "snapshots/bases"]);
        let listed = end(Command::new("find").arg(self.env.path("state").join(folder)).args(["-type", "f"]));
        let mut files: Vec<&str> = listed.stdout.lines().collect();
        files.sort_unstable();
        if files.is_empty() {
            return;
        }
        let file = files[self.dice.below(files.len())];
        let mut bytes = std::fs::read(file).expect("readable");
        let at = self.dice.below(bytes.len().max(1));
        if self.dice.chance(30) {
            bytes.truncate(at);
        } else if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1;
        }
        std::fs::write(file, bytes).expect("written");
        self.log.push(format!("  damaged {folder}"));
        self.figures.damaged += 1;
        self.seen.clear();
        self.was_pruned = true;
    }
}

/// Whether no other step of a build has the key of this one: of two the second hits.
fn is_alone(step: &Value, explained: &Value) -> bool {
    let steps = explained["steps"].as_array().into_iter().flatten();
    steps.filter(|other| other["key"] == step["key"]).count() < 2
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell")
}

fn compare(what: &str, one: &Built, other: &Built) -> Result<(), String> {
    let differences = one.differences(other);
    if differences.is_empty() { Ok(()) } else { Err(format!("{what}:\n{differences}")) }
}

//! The cache is never wrong: what has to run again runs, what need not run does not, and the image says so.

#![expect(clippy::print_stderr, reason = "tests say why they are left out")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use builder_core::build::{BuildError, BuildRequest, BuildResult, ContextSource, Engine, EngineOptions};
use builder_core::cancel::CancelToken;
use builder_core::diagnostic::Source;
use builder_core::export::Output;
use builder_core::git::GitEnvironment;
use builder_core::progress::{Event, Outcome, Sink, TaskId};
use builder_core::registry::RegistryConfig;

/// Steps that ran, by their instruction as it is shown (`RUN make`), in the order in which they ended.
#[derive(Default)]
struct Ran {
    names: Mutex<BTreeMap<TaskId, String>>,
    ran: Mutex<Vec<String>>,
}

impl Sink for Ran {
    fn event(&self, event: Event) {
        match event {
            Event::Declared { task, name, .. } => {
                self.names.lock().expect("not poisoned").insert(task, name);
            }
            Event::Finished { task, outcome: Outcome::Done, .. } => {
                let name = self.names.lock().expect("not poisoned")[&task].clone();
                let instruction = name.split_once("] ").map_or(name.as_str(), |(_, instruction)| instruction);
                if ["RUN", "COPY", "ADD", "WORKDIR"].iter().any(|known| instruction.starts_with(known)) {
                    self.ran.lock().expect("not poisoned").push(instruction.to_owned());
                }
            }
            _ => {}
        }
    }
}

/// A store and a context with busybox in it.
struct Project {
    directory: tempfile::TempDir,
}

/// Makes a base of busybox, whose commands later steps use.
const BASE: &str =
    "FROM scratch AS base\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";

impl Project {
    /// `None` where steps cannot run; the reason is printed.
    fn new() -> Option<Self> {
        let busybox = Path::new("/bin/busybox");
        if !rustix::process::geteuid().is_root() || !busybox.exists() {
            eprintln!("skipped: needs root, and /bin/busybox (busybox-static)");
            return None;
        }
        let project = Self { directory: tempfile::tempdir().expect("temporary directory") };
        fs::create_dir(project.context()).expect("made");
        fs::copy(busybox, project.file("busybox")).expect("copied");
        Some(project)
    }

    fn context(&self) -> PathBuf {
        self.directory.path().join("context")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.context().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        fs::create_dir_all(self.file(name).parent().expect("below the context")).expect("made");
        fs::write(self.file(name), content).expect("written");
    }

    fn try_build(
        &self,
        dockerfile: &str,
        change: impl FnOnce(&mut BuildRequest),
    ) -> Result<(BuildResult, Ran), BuildError> {
        let state = self.directory.path().join("state");
        let engine =
            Engine::open(EngineOptions { state, registry: RegistryConfig::default(), git: GitEnvironment::default() })?;
        let context = ContextSource::Directory { path: self.context(), ignore_files: vec![self.file(".dockerignore")] };
        let mut request =
            BuildRequest::new(Source::new("Dockerfile", format!("{BASE}{dockerfile}").into_bytes()), context);
        request.outputs.push(Output::store(vec!["app".parse().expect("valid")]));
        change(&mut request);
        let ran = Ran::default();
        Ok((engine.build(&request, &ran, &CancelToken::new())?, ran))
    }

    /// Builds; returns the id of the image, and the steps that ran.
    fn build(&self, dockerfile: &str) -> (String, Vec<String>) {
        let (result, ran) = self.try_build(dockerfile, |_| {}).expect("builds");
        (result.image_id.expect("an image").to_string(), ran.ran.into_inner().expect("not poisoned"))
    }

    /// What the last step printed into `/out` of a fresh build, read through an export.
    fn out(&self, dockerfile: &str) -> String {
        let directory = tempfile::tempdir().expect("temporary directory");
        let output = format!("type=local,dest={}", directory.path().display());
        self.try_build(dockerfile, |request| request.outputs = vec![Output::parse(&output).expect("valid")])
            .expect("builds");
        fs::read_to_string(directory.path().join("out")).expect("the image has /out")
    }
}

const NOTHING: [&str; 0] = [];

#[test]
fn a_second_build_runs_nothing_and_gives_the_same_image() {
    let Some(project) = Project::new() else { return };
    project.write("a", "1");
    let dockerfile = "FROM base\nWORKDIR /w\nCOPY a .\nRUN cat a > b\n";
    let (first, ran) = project.build(dockerfile);
    assert_eq!(ran.len(), 5);
    assert_eq!(project.build(dockerfile), (first, NOTHING.map(str::to_owned).to_vec()));
}

#[test]
fn touching_a_file_runs_nothing_and_changing_it_runs_what_sees_it() {
    let Some(project) = Project::new() else { return };
    project.write("a", "1");
    project.write("b", "1");
    let dockerfile = "FROM base\nCOPY a /a\nRUN cat /a > /out\nCOPY b /b\n";
    let (first, _) = project.build(dockerfile);
    let later = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    fs::File::options().append(true).open(project.file("a")).and_then(|file| file.set_times(later)).expect("touched");
    assert_eq!(project.build(dockerfile), (first.clone(), vec![]));
    project.write("b", "2");
    let (second, ran) = project.build(dockerfile);
    assert_eq!(ran, ["COPY b /b"]);
    assert_ne!(second, first);
}

#[test]
fn a_file_changed_in_place_with_its_time_restored_is_noticed() {
    let Some(project) = Project::new() else { return };
    project.write("a", "one");
    let dockerfile = "FROM base\nCOPY a /out\n";
    assert_eq!(project.out(dockerfile), "one");
    let modified = fs::metadata(project.file("a")).and_then(|metadata| metadata.modified()).expect("readable");
    let file = fs::File::options().write(true).open(project.file("a")).expect("writable");
    std::os::unix::fs::FileExt::write_all_at(&file, b"two", 0).expect("written");
    file.set_times(fs::FileTimes::new().set_modified(modified)).expect("restored");
    drop(file);
    assert_eq!(project.out(dockerfile), "two");
}

#[test]
fn files_of_equal_size_and_time_in_two_contexts_are_two_files() {
    let Some(one) = Project::new() else { return };
    let epoch = fs::FileTimes::new().set_modified(std::time::SystemTime::UNIX_EPOCH);
    for (name, content) in [("left/f", "aaa"), ("right/f", "bbb")] {
        one.write(name, content);
        fs::File::options().append(true).open(one.file(name)).and_then(|file| file.set_times(epoch)).expect("set");
    }
    assert_eq!(one.out("FROM base\nCOPY left/f /out\n"), "aaa");
    assert_eq!(one.out("FROM base\nCOPY right/f /out\n"), "bbb");
    fs::rename(one.file("left"), one.file("middle")).expect("renamed");
    fs::rename(one.file("right"), one.file("left")).expect("renamed");
    assert_eq!(one.out("FROM base\nCOPY left/f /out\n"), "bbb", "another file has the name now");
}

#[test]
fn a_mode_is_content_and_a_time_is_not() {
    let Some(project) = Project::new() else { return };
    project.write("tool", "#!/bin/sh\n");
    let dockerfile = "FROM base\nCOPY tool /tool\nRUN stat -c %a /tool > /out\n";
    project.build(dockerfile);
    fs::set_permissions(project.file("tool"), fs::Permissions::from_mode(0o755)).expect("set");
    assert_eq!(project.build(dockerfile).1, ["COPY tool /tool", "RUN stat -c %a /tool > /out"]);
    assert_eq!(project.out(dockerfile), "755\n");
}

#[test]
fn an_edit_below_a_bind_mount_is_seen_and_one_beside_it_is_not() {
    let Some(project) = Project::new() else { return };
    project.write("src/a", "1");
    project.write("other", "1");
    let dockerfile = "FROM base\nRUN --mount=type=bind,source=src,target=/src cat /src/a > /out\n";
    let (first, _) = project.build(dockerfile);
    project.write("other", "2");
    assert_eq!(project.build(dockerfile), (first, vec![]));
    project.write("src/a", "2");
    assert_eq!(project.build(dockerfile).1.len(), 1);
    assert_eq!(project.out(dockerfile), "2");
}

#[test]
fn a_step_with_an_equal_result_lets_all_later_steps_hit() {
    let Some(project) = Project::new() else { return };
    project.write("make.sh", "echo result > /made\n");
    let dockerfile = "FROM base AS build\n\
        RUN --mount=type=bind,source=make.sh,target=/make.sh sh /make.sh\n\
        RUN cat /made > /second\n\
        FROM base\nCOPY --from=build /second /out\nRUN true\n";
    let (first, ran) = project.build(dockerfile);
    assert_eq!(ran.len(), 6);
    project.write("make.sh", "# a comment\necho result > /made\n");
    let (second, ran) = project.build(dockerfile);
    assert_eq!(ran.len(), 1, "{ran:?}");
    assert_eq!(second, first, "the image is bit-identical");
    project.write("make.sh", "echo other > /made\n");
    let (third, ran) = project.build(dockerfile);
    assert_eq!(ran.len(), 4, "{ran:?}");
    assert_ne!(third, first);
}

#[test]
fn a_copy_from_a_stage_asks_for_its_files_and_not_for_how_they_were_made() {
    let Some(project) = Project::new() else { return };
    let dockerfile =
        |how: &str| format!("FROM base AS build\nRUN {how}\nFROM base\nCOPY --from=build /f /out\nRUN true\n");
    let (first, _) = project.build(&dockerfile("echo x > /f"));
    let (second, ran) = project.build(&dockerfile("printf 'x\\n' > /f; touch /unrelated"));
    assert_eq!((second, ran.len()), (first, 1));
    assert_eq!(project.out(&dockerfile("echo y > /f")), "y\n");
}

// Rows: P14, P25.
#[test]
fn a_new_base_does_not_copy_again() {
    let Some(project) = Project::new() else { return };
    project.write("a", "1");
    project.build("FROM base AS one\nRUN echo 1 > /version\nFROM one\nCOPY a /srv/a\n");
    let (_, ran) = project.build("FROM base AS one\nRUN echo 2 > /version\nFROM one\nCOPY a /srv/a\n");
    assert_eq!(ran, ["RUN echo 2 > /version"]);
    let (_, ran) = project.build("FROM base AS one\nRUN mkdir -m 700 /srv\nFROM one\nCOPY a /srv/a\n");
    assert_eq!(ran.len(), 2, "the directory above has another mode: {ran:?}");
}

#[test]
fn arguments_count_where_they_are_visible() {
    let Some(project) = Project::new() else { return };
    let dockerfile = "FROM base\nRUN echo before > /b\nARG V\nRUN echo $V > /out\n";
    let build = |value: &str, proxy: &str| {
        let (_, ran) = project
            .try_build(dockerfile, |request| {
                request.options.build_args.insert("V".into(), value.into());
                request.options.build_args.insert("HTTP_PROXY".into(), proxy.into());
                request.options.build_args.insert("UNUSED".into(), value.into());
            })
            .expect("builds");
        ran.ran.into_inner().expect("not poisoned")
    };
    build("1", "http://one");
    assert_eq!(build("1", "http://two"), NOTHING);
    assert_eq!(build("2", "http://two"), ["RUN echo 2 > /out"], "names show values, as in BuildKit");
}

#[test]
fn files_that_were_pruned_are_made_again_when_they_are_needed() {
    let Some(project) = Project::new() else { return };
    let dockerfile = "FROM base AS build\nRUN echo x > /f\nFROM base\nCOPY --from=build /f /out\n";
    let (first, _) = project.build(dockerfile);
    let snapshots = project.directory.path().join("state/snapshots");
    fs::remove_dir_all(&snapshots).expect("removed");
    assert_eq!(project.out(dockerfile), "x\n", "the files are made again");
    fs::remove_dir_all(&snapshots).expect("removed");
    let (second, _) = project.build(dockerfile);
    assert_eq!(second, first, "and are the same");
}

#[test]
fn damaged_records_and_trees_are_made_again() {
    let Some(project) = Project::new() else { return };
    let dockerfile = "FROM base\nRUN echo x > /out\n";
    project.build(dockerfile);
    for area in ["cache/records", "cache/results", "trees"] {
        damage(&project.directory.path().join("state").join(area));
        assert_eq!(project.out(dockerfile), "x\n", "{area}");
        assert_eq!(project.build(dockerfile).1, NOTHING, "{area}: what was damaged is there again");
    }
}

fn damage(directory: &Path) {
    for entry in fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() {
            damage(&entry);
        } else {
            let mut bytes = fs::read(&entry).expect("readable");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            fs::write(&entry, bytes).expect("written");
        }
    }
}

#[test]
fn secrets_are_nowhere_in_the_store() {
    let Some(project) = Project::new() else { return };
    let secret = "correct-horse-battery-staple";
    let dockerfile = "FROM base\n\
        RUN --mount=type=secret,id=key test \"$(cat /run/secrets/key)\" = correct-horse-battery-staple\n\
        RUN --mount=type=secret,id=key,env=KEY test \"$KEY\" = correct-horse-battery-staple\n"
        .replace(secret, "$(printf %s correct-horse; printf %s -battery-staple)");
    project
        .try_build(&dockerfile, |request| {
            let value = builder_core::build::SecretSource::Value(secret.into());
            request.secrets.insert("key".into(), value);
        })
        .expect("the step sees the secret");
    let found = std::process::Command::new("grep").args(["-rlF", secret]).arg(project.directory.path()).output();
    assert_eq!(String::from_utf8(found.expect("grep runs").stdout).expect("text"), "");
}

#[test]
fn a_failed_step_says_where_and_leaves_the_earlier_ones() {
    let Some(project) = Project::new() else { return };
    let error = project.try_build("FROM base\nRUN echo fine\nRUN echo said; exit 7\n", |_| {}).err().expect("fails");
    let BuildError::Step { location, error, .. } = &error else { panic!("{error}") };
    let location = location.as_ref().expect("it is in the Dockerfile");
    assert_eq!(location.source.line(location.span.start), 6);
    assert!(error.to_string().ends_with("exit code: 7"), "{error}");
    let (_, ran) = project.build("FROM base\nRUN echo fine\n");
    assert_eq!(ran, NOTHING);
}

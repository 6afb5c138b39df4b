//! `rbuild build`.

use std::io::{self, IsTerminal as _, Read as _};
use std::path::Path;
use std::sync::Mutex;

use builder_core::build::{
    BuildError, BuildRequest, BuildResult, Engine, FetchOptions, FetchedContext, PlatformsError, PullPolicy,
    RemoteContext,
};
use builder_core::cancel::CancelToken;
use builder_core::diagnostic::Source;
use builder_core::export::Output;
use builder_core::oci::Platform;
use rustix::event::{PollFd, PollFlags, poll};

use super::{Outcome, call, dry_run, lock, print, probe, verify};
use crate::args::{BuildArgs, Call};
use crate::command_error::CommandError;
use crate::request::{self, Bring, Display, Settled};
use crate::session::Session;
use crate::signals::Signals;
use crate::ui::{self, Mode, Progress, units};

pub(super) fn run(session: &Session, args: BuildArgs) -> Outcome {
    let only = args.lock_only.clone();
    let mut beginning = Beginning { session, begun: None };
    let mut settled = request::from_args(args, &session.environment, &session.config, &mut beginning)?;
    for note in &settled.notes {
        ui::note(note);
    }
    for warning in &settled.warnings {
        ui::warning(warning);
    }
    if settled.call == Call::Build {
        return build(beginning, settled);
    }
    if let Call::DryRun { json } = settled.call {
        let begun = beginning.begin(settled.display)?;
        if settled.all_platforms {
            // Nobody is asked, as for everything else.
            let request = BuildRequest { pull: PullPolicy::Never, ..settled.request.clone() };
            settled.request.platforms = begun.all_platforms(&request)?;
        }
        begun.progress.finish(ui::paint());
        return dry_run::run(&begun.engine, &begun.cancel, &settled.request, json);
    }
    if let Call::Lock(action) = settled.call {
        let begun = beginning.begin(settled.display)?;
        let resolved = begun.engine.resolve_sources(&settled.request, &begun.progress, &begun.cancel);
        begun.progress.finish(ui::paint());
        let failed = begun.ended(resolved)?.into_iter().map(CommandError::from).collect();
        return lock::run(&settled.lock, action, &only, failed);
    }
    if let Call::Probe { json } = settled.call {
        let begun = beginning.begin(settled.display)?;
        if settled.all_platforms {
            settled.request.platforms = begun.all_platforms(&settled.request)?;
        }
        begun.progress.finish(ui::paint());
        return probe::run(&begun.engine, &begun.cancel, &settled.request, json)
            .map_err(|error| begun.signals.explain(error));
    }
    if let Some(begun) = &beginning.begun {
        begun.progress.finish(ui::paint());
    }
    let request = &settled.request;
    match settled.call {
        Call::Build | Call::DryRun { .. } | Call::Probe { .. } | Call::Lock(_) => Ok(0),
        Call::Check(format) => call::check(session, request, format, settled.fix.as_deref()),
        Call::Outline { json } => call::outline(session, request, json),
        Call::Targets { json } => call::targets(request, json),
        Call::Describe { json } => call::describe(json),
    }
}

/// Everything that works, from the moment when something is to be done.
struct Begun {
    engine: Engine,
    cancel: CancelToken,
    signals: Signals,
    progress: Progress,
}

/// A command that may have begun.
struct Beginning<'a> {
    session: &'a Session,
    begun: Option<Begun>,
}

impl Beginning<'_> {
    fn begin(&mut self, display: Display) -> Result<&Begun, CommandError> {
        if self.begun.is_none() {
            let engine = self.session.engine()?;
            let cancel = CancelToken::new();
            let signals = Signals::watch(&cancel)?;
            let progress = Progress::new(display.mode, ui::paint(), display.log_lines).expanded(display.debug);
            self.begun = Some(Begun { engine, cancel, signals, progress });
        }
        Ok(self.begun.as_ref().expect("set just above"))
    }
}

impl Begun {
    /// Ends the display if something failed.
    fn ended<T>(&self, result: Result<T, BuildError>) -> Result<T, CommandError> {
        result.map_err(|error| {
            self.progress.finish(ui::paint());
            self.signals.explain(CommandError::from(error))
        })
    }
}

impl Begun {
    /// Which platforms `--all-platforms` means.
    fn all_platforms(&self, request: &BuildRequest) -> Result<Vec<Platform>, CommandError> {
        match self.engine.all_platforms(request, &self.cancel) {
            Ok(platforms) => {
                let names: Vec<String> = platforms.iter().map(ToString::to_string).collect();
                ui::note(&format!("the platforms are {}", names.join(", ")));
                Ok(platforms)
            }
            Err(PlatformsError::Build(error)) => self.ended(Err(error)),
            Err(error) => {
                Err(CommandError::failed(error.to_string()).with_hint("name the platforms with `--platform`"))
            }
        }
    }
}

impl Bring for Beginning<'_> {
    fn context(
        &mut self,
        remote: &RemoteContext,
        options: FetchOptions<'_>,
        display: Display,
    ) -> Result<FetchedContext, CommandError> {
        let begun = self.begin(display)?;
        begun.ended(begun.engine.fetch_context(remote, options, &begun.progress, &begun.cancel))
    }

    fn archive(&mut self, first: Vec<u8>, display: Display) -> Result<FetchedContext, CommandError> {
        let begun = self.begin(display)?;
        let mut stream = io::Cursor::new(first).chain(Stdin(&begun.cancel));
        begun.ended(begun.engine.unpack_context(&mut stream, &begun.progress, &begun.cancel))
    }

    fn dockerfile(
        &mut self,
        address: &str,
        options: FetchOptions<'_>,
        display: Display,
    ) -> Result<Source, CommandError> {
        let begun = self.begin(display)?;
        begun.ended(begun.engine.fetch_dockerfile(address, options, &begun.progress, &begun.cancel))
    }
}

/// Standard input; reading it ends when the build is cancelled.
struct Stdin<'a>(&'a CancelToken);

impl io::Read for Stdin<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let stdin = rustix::stdio::stdin();
        let cancel = self.0.fd()?;
        let mut waiting = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(&cancel, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut waiting, None))?;
        self.0.check().map_err(io::Error::other)?;
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(stdin, &mut *buffer))?)
    }
}

fn build(mut beginning: Beginning<'_>, mut settled: Settled) -> Outcome {
    let to_stdout = settled.request.outputs.iter().any(Output::is_stdout);
    if to_stdout && io::stdout().is_terminal() {
        return Err(CommandError::usage("an archive would be written to the terminal")
            .with_hint("redirect standard output, or name a file: `--output type=tar,dest=FILE`"));
    }
    for file in settled.iidfile.iter().chain(&settled.iidfile_raw) {
        // A stale id must not be taken for the result of a build that failed.
        remove(file)?;
    }
    let session = beginning.session;
    let begun = beginning.begin(settled.display)?;
    if settled.all_platforms {
        settled.request.platforms = begun.all_platforms(&settled.request)?;
    }
    let Begun { engine, cancel, progress, .. } = begun;
    let stdout: Mutex<io::Stdout> = Mutex::new(io::stdout());
    let stdout: Option<&Mutex<dyn io::Write + Send>> = if to_stdout { Some(&stdout) } else { None };
    let built = engine.build_to(&settled.request, progress, cancel, stdout);
    progress.finish(ui::paint());
    // What a name stands for is true whatever becomes of the build.
    let locked = settled.lock.finish(built.is_ok());
    let built = begun.ended(built)?;
    for note in locked?.iter().filter(|_| settled.display.mode != Mode::Quiet) {
        ui::note(note);
    }
    let outcome = report(&settled, &built, progress, to_stdout)?;
    let strict = settled.strict;
    // A context that was fetched holds the store.
    drop(settled);
    if built.cached < built.steps {
        collect_garbage(session, engine, cancel);
    }
    if strict {
        return verify::strictly(&built.verified).map(|()| outcome);
    }
    Ok(outcome)
}

/// Something new was stored: keeps the build cache within its limits. The build went well whatever comes of this.
fn collect_garbage(session: &Session, engine: &Engine, cancel: &CancelToken) {
    let Ok(policies) = session.config.gc() else { return };
    match engine.collect_garbage(&policies, cancel) {
        Ok(None) => {}
        Ok(Some(pruned)) => ui::note(&format!(
            "removed {} from the build cache, {} over its limits",
            units::size(pruned.bytes),
            units::count(pruned.items.len(), "item")
        )),
        Err(error) => ui::note(&format!("the build cache could not be kept within its limits: {error}")),
    }
}

/// What is left to do after a build that went well: the files that were asked for, and the id.
fn report(settled: &Settled, built: &BuildResult, progress: &Progress, to_stdout: bool) -> Outcome {
    let id = built.image_id.as_ref().map(ToString::to_string).unwrap_or_default();
    if let Some(file) = &settled.iidfile {
        write(file, id.as_bytes())?;
    }
    if let Some(file) = &settled.iidfile_raw {
        write(file, id.split_once(':').map_or("", |(_, hex)| hex).as_bytes())?;
    }
    if let Some(file) = &settled.metadata_file {
        let mut metadata = built.metadata.clone();
        if settled.metadata_warnings {
            metadata.insert("buildx.build.warnings".to_owned(), progress.warnings().into());
        }
        let text = serde_json::to_string_pretty(&metadata).expect("a map by string") + "\n";
        write(file, text.as_bytes())?;
    }
    match &built.image_id {
        Some(id) if settled.quiet && !to_stdout => print(format!("{id}\n")),
        _ => Ok(0),
    }
}

fn remove(file: &Path) -> Result<(), CommandError> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(CommandError::io(&format!("cannot replace `{}`", file.display()), &error))
        }
        _ => Ok(()),
    }
}

/// Writes a whole file; readers see the old one or the new one.
fn write(file: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    let fail = |error: &io::Error| CommandError::io(&format!("cannot write `{}`", file.display()), error);
    let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !file.metadata().map_or(true, |found| found.is_file()) {
        // A pipe or a device is written to, not replaced.
        return std::fs::write(file, bytes).map_err(|error| fail(&error));
    }
    let mut made = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(directory)
        .map_err(|error| fail(&error))?;
    io::Write::write_all(&mut made, bytes).map_err(|error| fail(&error))?;
    made.persist(file).map(drop).map_err(|error| fail(&error.error))
}

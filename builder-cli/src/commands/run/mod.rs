//! `rbuild run`: starts a container from an image, with the sandbox of RUN steps.

mod terminal;

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use builder_core::build::images;
use builder_core::build::{BuildError, PullPolicy, StartRequest, StepError};
use builder_core::cancel::CancelToken;
use builder_core::content::ContentStore;
use builder_core::executor::{ExecFailure, ExecuteError, Exit, Limits, Network, Stdio, Terminal};
use builder_core::oci::{Platform, Reference};
use builder_core::rootfs::RootPath;

use super::Outcome;
use crate::args::{RunArgs, RunNetwork};
use crate::command_error::{CommandError, Kind};
use crate::environment::Environment;
use crate::request::values;
use crate::session::Session;
use crate::signals::Signals;
use crate::ui::{self, Mode, Progress};

pub(super) fn run(session: &Session, args: RunArgs) -> Outcome {
    let environment = &session.environment;
    let stdin = io::stdin();
    if args.tty && args.interactive && !stdin.is_terminal() {
        return Err(CommandError::usage("standard input is not a terminal").with_hint("leave out `-t`"));
    }
    let engine = session.engine()?;
    let mut request = request(args, environment, engine.content())?;
    if matches!(request.start.pull, PullPolicy::Missing) && !request.stored {
        ui::note(&format!("image `{}` is not in the store, asking its registry", request.start.image.familiar()));
    }
    let cancel = CancelToken::new();
    let signals = Signals::watch(&cancel)?;
    let paint = ui::paint();
    let progress = Progress::new(Mode::Auto, paint, None);
    let started = match request.terminal {
        Some(interactive) => {
            let fail = |error: io::Error| CommandError::io("cannot make a terminal", &error).with_kind(Kind::Usage);
            let (terminal, controller) = Terminal::open().map_err(fail)?;
            request.start.stdio = Stdio::Terminal(terminal);
            let attached = terminal::attach(controller, interactive).map_err(fail)?;
            let ended = engine.start(request.start, &progress, &cancel);
            attached.finish();
            ended
        }
        None => engine.start(request.start, &progress, &cancel),
    };
    progress.finish(paint);
    match started {
        Ok(exit) => {
            if exit == Exit::OutOfMemory {
                ui::warning("the program was killed because memory ran out");
            }
            Ok(u8::try_from(exit.code()).unwrap_or(u8::MAX))
        }
        Err(error) => {
            let kind = kind(&error);
            Err(signals.explain(CommandError::from(error).with_kind(kind)))
        }
    }
}

/// Docker's exit codes: 126 and 127 are about the program, 125 about everything before it.
fn kind(error: &BuildError) -> Kind {
    let BuildError::Base { error, .. } = error else { return Kind::Usage };
    match &**error {
        StepError::Execute(ExecuteError::Exec { reason, .. }) => match reason {
            ExecFailure::NotFound | ExecFailure::NotInPath | ExecFailure::NoInterpreter(_) => Kind::NotFound,
            _ => Kind::NotExecutable,
        },
        _ => Kind::Usage,
    }
}

/// What to start; with a terminal (and then: with our input?) or with our own streams.
struct Settled {
    start: StartRequest,
    terminal: Option<bool>,
    /// The image is in the store.
    stored: bool,
}

fn request(args: RunArgs, environment: &Environment, content: &ContentStore) -> Result<Settled, CommandError> {
    let hosts = args.add_host.iter().map(|host| values::host(host)).collect::<Result<_, _>>()?;
    let bytes = |name, value: &Option<String>| value.as_deref().map(|text| values::bytes(name, text)).transpose();
    let limits = Limits {
        ulimits: values::ulimits(&args.ulimit)?,
        shm_size: bytes("--shm-size", &args.shm_size)?,
        memory: bytes("--memory", &args.memory)?,
        ..Limits::default()
    };
    if !args.interactive && !args.tty {
        let fail = |error: io::Error| CommandError::io("cannot open /dev/null", &error);
        let null = std::fs::File::open("/dev/null").map_err(fail)?;
        rustix::stdio::dup2_stdin(&null).map_err(|error| fail(error.into()))?;
    }
    let platform = args.platform.as_deref().map(values::platform).transpose()?;
    let mut command = args.image_and_command;
    let image = command.remove(0);
    let (image, stored) = name(content, &image)?;
    let start = StartRequest {
        image,
        platform: platform.unwrap_or_else(Platform::host),
        pull: match args.pull.as_str() {
            "always" => PullPolicy::Always,
            "never" => PullPolicy::Never,
            _ => PullPolicy::Missing,
        },
        command,
        entrypoint: args.entrypoint.map(|program| if program.is_empty() { Vec::new() } else { vec![program] }),
        env: args.env.iter().filter_map(|text| variable(text, environment)).collect(),
        user: args.user,
        workdir: args.workdir,
        hostname: args.hostname.unwrap_or_else(hostname),
        network: match args.network {
            RunNetwork::Host => Network::Host,
            RunNetwork::None => Network::None,
        },
        add_hosts: hosts,
        volumes: args.volume.iter().map(|text| volume(text, environment)).collect::<Result<_, _>>()?,
        tmpfs: args.tmpfs.iter().map(|text| root_path(text)).collect::<Result<_, _>>()?,
        privileged: args.privileged,
        limits,
        resolv_conf: std::fs::read("/etc/resolv.conf").ok(),
        stdio: Stdio::Inherit,
    };
    Ok(Settled { start, terminal: args.tty.then_some(args.interactive), stored })
}

/// A name, or an image id: as many of its digits as a name may have; and whether there is such an image.
fn name(content: &ContentStore, text: &str) -> Result<(Reference, bool), CommandError> {
    const DIGITS: usize = 32;
    let found = images::find(content, text);
    let stored = found.is_ok();
    let reference = match found {
        Ok(image) if image.id.digest().hex().starts_with(text.trim_start_matches("sha256:")) => {
            values::reference(&image.id.digest().hex()[..DIGITS])
        }
        _ => values::reference(text),
    };
    Ok((reference?, stored))
}

fn variable(text: &str, environment: &Environment) -> Option<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) => Some((name.to_owned(), value.to_owned())),
        None => Some((text.to_owned(), environment.lookup(text)?.to_str()?.to_owned())),
    }
}

/// `SOURCE:TARGET[:ro|:rw]`
fn volume(text: &str, environment: &Environment) -> Result<(PathBuf, RootPath, bool), CommandError> {
    let wrong = |reason: &str| CommandError::usage(format!("--volume `{text}`: {reason}"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match parts[..] {
        [source, target] | [source, target, "rw"] => (source, target, false),
        [source, target, "ro"] => (source, target, true),
        _ => return Err(wrong("expected `SOURCE:TARGET[:ro]`")),
    };
    if !source.starts_with(['/', '.']) {
        return Err(wrong("the source is not a path; named volumes are not supported"));
    }
    Ok((environment.absolute(source.as_ref()), root_path(target)?, read_only))
}

fn root_path(text: &str) -> Result<RootPath, CommandError> {
    if !text.starts_with('/') {
        return Err(CommandError::usage(format!("mount target `{text}` is not an absolute path")));
    }
    RootPath::clean(text).map_err(|error| CommandError::usage(format!("mount target `{text}`: {error}")))
}

/// The name of this machine, cut to what a host name may have.
fn hostname() -> String {
    let name = rustix::system::uname();
    name.nodename().to_str().ok().filter(|name| !name.is_empty() && name.len() <= 64).unwrap_or("rbuild").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_paths_with_a_target() {
        let environment = Environment::with(&[]);
        let check = |text: &str, expected: Option<(&str, &str, bool)>| {
            let found = volume(text, &environment).ok();
            let found =
                found.as_ref().map(|(source, target, ro)| (source.to_str().expect("text"), target.to_string(), *ro));
            assert_eq!(found, expected.map(|(source, target, ro)| (source, target.to_owned(), ro)), "{text}");
        };
        check("/a:/b", Some(("/a", "/b", false)));
        check("./a:/b:ro", Some(("/cwd/a", "/b", true)));
        check("name:/b", None);
        check("/a:b", None);
        check("/a", None);
        check("/a:/b:rx", None);
    }
}

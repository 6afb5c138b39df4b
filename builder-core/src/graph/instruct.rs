//! Instructions that change only the config, and `WORKDIR`.

use super::checks::OnceKind;
use super::error::{GraphError, GraphErrorKind};
use super::lower::{ArgumentValue, At, Current, Lowering};
use super::names::{duration, list, quoted_list, upper_case_name};
use super::state::State;
use super::{Op, WorkdirOp};
use crate::dockerfile::{
    ArgDeclaration, CommandLine, Healthcheck, InstructionKind, KeyValue, Word, parse_ports, parse_signal,
};
use crate::oci;

impl<'a> Lowering<'a> {
    /// Applies one instruction to the stage. Errors are collected; what is wrong changes nothing.
    pub(super) fn instruct(&mut self, current: &mut Current, at: &At<'a>) {
        if self.is_overdrawn() {
            return;
        }
        // An instruction either works or reports why not: the option only cuts it short.
        let _: Option<()> = match &at.instruction.kind {
            InstructionKind::From(_) => None,
            InstructionKind::Run(run) => self.run(current, at, run),
            InstructionKind::Copy(copy) => self.copy(current, at, copy),
            InstructionKind::Add(add) => self.add_files(current, at, add),
            InstructionKind::Workdir(word) => self.workdir(current, at, word),
            InstructionKind::Arg(arguments) => self.arg(current, at, arguments),
            InstructionKind::Env(pairs) => self.env(current, at, pairs),
            InstructionKind::Label(pairs) => self.label(current, at, pairs),
            InstructionKind::Expose(words) => self.expose(current, at, words),
            InstructionKind::Volume(words) => self.volume(current, at, words),
            InstructionKind::User(word) => self.user(current, at, word),
            InstructionKind::Stopsignal(word) => self.stop_signal(current, at, word),
            InstructionKind::Healthcheck(check) => {
                self.healthcheck(current, at, check);
                Some(())
            }
            InstructionKind::Cmd(command) => {
                self.check_once(current, at, OnceKind::Cmd);
                self.check_command(current, at, command);
                let args = with_shell(&current.state, command);
                self.record(current, at, format!("CMD {}", quoted_list(&args)), None);
                let config = &mut current.state.config.config;
                config.cmd = Some(args).filter(|args| !args.is_empty());
                config.args_escaped = true;
                current.cmd_set = true;
                Some(())
            }
            InstructionKind::Entrypoint(command) => {
                self.check_once(current, at, OnceKind::Entrypoint);
                self.check_command(current, at, command);
                let args = with_shell(&current.state, command);
                self.record(current, at, format!("ENTRYPOINT {}", quoted_list(&args)), None);
                let config = &mut current.state.config.config;
                config.entrypoint = Some(args).filter(|args| !args.is_empty());
                if !current.cmd_set {
                    config.cmd = None;
                }
                Some(())
            }
            InstructionKind::Shell(words) => {
                self.record(current, at, format!("SHELL {}", list(words)), None);
                current.state.config.config.shell.clone_from(words);
                Some(())
            }
            InstructionKind::Maintainer(word) => {
                self.record(current, at, format!("MAINTAINER {}", word.text), None);
                current.state.config.author = word.text.to_string();
                Some(())
            }
            InstructionKind::Onbuild { text, .. } => {
                current.state.config.config.on_build.push(text.to_string());
                Some(())
            }
        };
    }

    fn workdir(&mut self, current: &mut Current, at: &At<'a>, word: &Word) -> Option<()> {
        let written = self.word(current, at, word)?;
        self.check_workdir(current, at, word.span, &written);
        current.state.workdir_set = true;
        let path = match current.state.workdir.join(&written) {
            Ok(path) => path,
            Err(error) => {
                self.error(at, word.span, error);
                return None;
            }
        };
        current.state.workdir = path.clone();
        // As in BuildKit an absolute path is stored as it is written, a relative one cleaned.
        let stored = match (written.as_bytes().first(), &current.state.config.config.working_dir) {
            (Some(b'/'), _) => written,
            // Nothing changes, not even a slash at the end.
            (None, before) if !before.is_empty() => before.clone(),
            _ => path.to_string(),
        };
        let created_by = format!("WORKDIR {stored}");
        current.state.config.config.working_dir = stored;
        let vertex = if path.is_root() {
            None
        } else {
            let name = self.shown(current, at);
            let user = current.state.config.config.user.clone();
            Some(self.add(current, at, Op::Workdir(WorkdirOp { path, user }), name))
        };
        self.record(current, at, created_by, vertex);
        Some(())
    }

    /// The next vertex's name for an instruction whose quotes the builder removes.
    pub(super) fn shown(&self, current: &mut Current, at: &At<'a>) -> String {
        let original = &*at.instruction.original;
        let scope = &current.state.scope;
        let expanded = self.names.word(original, &|name| scope.get(name).map(str::to_owned));
        let text = expanded.map_or_else(|_| original.to_owned(), |expanded| expanded.text);
        current.counter.next(&upper_case_name(&text), at.on_build(), Some(scope))
    }

    fn arg(&mut self, current: &mut Current, at: &At<'a>, arguments: &[ArgDeclaration]) -> Option<()> {
        self.check_arguments(at, arguments);
        let mut history = Vec::with_capacity(arguments.len());
        for argument in arguments {
            let name = &argument.name.text;
            // Each one sees those before it, unlike the pairs of an `ENV`.
            let ArgumentValue { value, in_env } = self.argument(current, at, argument)?;
            history.push(match &value {
                Some(value) => format!("{name}={value}"),
                None => name.to_string(),
            });
            if let Some(value) = &value
                && in_env
            {
                current.state.set_argument(name, value);
            }
            current.state.declare(name, value);
        }
        self.record(current, at, format!("ARG {}", history.join(" ")), None);
        Some(())
    }

    /// The pairs of `ENV` or `LABEL`, all expanded with what was in scope before the instruction.
    fn pairs(&mut self, current: &Current, at: &At<'a>, pairs: &[KeyValue]) -> Option<Vec<(String, String)>> {
        let mut expanded = Vec::with_capacity(pairs.len());
        for pair in pairs {
            let key = self.word(current, at, &pair.key)?;
            expanded.push((key, self.word(current, at, &pair.value)?));
        }
        Some(expanded)
    }

    fn env(&mut self, current: &mut Current, at: &At<'a>, pairs: &[KeyValue]) -> Option<()> {
        let expanded = self.pairs(current, at, pairs)?;
        self.check_legacy(at, pairs);
        for (pair, (name, _)) in pairs.iter().zip(&expanded) {
            self.check_secret(at, pair.key.span, "ENV", name);
        }
        for (name, value) in &expanded {
            current.state.set_env(name, value);
        }
        self.record(current, at, pairs_text("ENV", &expanded), None);
        Some(())
    }

    fn label(&mut self, current: &mut Current, at: &At<'a>, pairs: &[KeyValue]) -> Option<()> {
        let expanded = self.pairs(current, at, pairs)?;
        self.check_legacy(at, pairs);
        self.record(current, at, pairs_text("LABEL", &expanded), None);
        current.state.config.config.labels.extend(expanded);
        Some(())
    }

    fn expose(&mut self, current: &mut Current, at: &At<'a>, words: &[Word]) -> Option<()> {
        let mut ports = Vec::new();
        // BuildKit sorts them as they are written.
        let mut words: Vec<&Word> = words.iter().collect();
        words.sort_by(|a, b| a.text.cmp(&b.text));
        for word in words {
            let scope = &current.state.scope;
            let expanded = match self.expander.words(&word.text, &|name| scope.get(name).map(str::to_owned)) {
                Ok(expanded) => expanded,
                Err(error) => {
                    self.error(at, word.span, error);
                    return None;
                }
            };
            // BuildKit says nothing of variables that are not set here.
            for spec in &expanded.words {
                match parse_ports(spec) {
                    Ok(found) => ports.extend(found),
                    Err(error) => {
                        self.error(at, word.span, error);
                        return None;
                    }
                }
                self.check_port(at, word, spec);
            }
        }
        self.record(current, at, format!("EXPOSE {}", list(&ports)), None);
        current.state.config.config.exposed_ports.extend(ports);
        Some(())
    }

    fn volume(&mut self, current: &mut Current, at: &At<'a>, words: &[Word]) -> Option<()> {
        let volumes = self.words(current, at, words)?;
        if let Some(empty) = volumes.iter().position(String::is_empty) {
            self.error(at, words[empty].span, GraphErrorKind::Empty { instruction: "VOLUME" });
            return None;
        }
        self.record(current, at, format!("VOLUME {}", list(&volumes)), None);
        current.state.config.config.volumes.extend(volumes);
        Some(())
    }

    fn user(&mut self, current: &mut Current, at: &At<'a>, word: &Word) -> Option<()> {
        let user = self.word(current, at, word)?;
        self.record(current, at, format!("USER {user}"), None);
        current.state.config.config.user = user;
        Some(())
    }

    fn stop_signal(&mut self, current: &mut Current, at: &At<'a>, word: &Word) -> Option<()> {
        let signal = self.word(current, at, word)?;
        if parse_signal(&signal).is_none() {
            let error = GraphError::new(GraphErrorKind::Signal(signal));
            self.report(at, word.span, error.hint("use a number from 1 to 64 or a name such as `SIGTERM`"));
            return None;
        }
        self.record(current, at, format!("STOPSIGNAL {signal}"), None);
        current.state.config.config.stop_signal = signal;
        Some(())
    }

    fn healthcheck(&mut self, current: &mut Current, at: &At<'a>, check: &Healthcheck) {
        self.check_once(current, at, OnceKind::Healthcheck);
        let time = |time: Option<std::time::Duration>| time.unwrap_or_default();
        let nanoseconds = |value| i64::try_from(time(value).as_nanos()).unwrap_or(i64::MAX);
        let (config, [interval, timeout, start_period, start_interval]) = match check {
            Healthcheck::None => {
                (oci::Healthcheck { test: vec!["NONE".to_owned()], ..oci::Healthcheck::default() }, [None; 4])
            }
            Healthcheck::Command(probe) => {
                let test = match &probe.command {
                    CommandLine::Exec(args) => std::iter::once("CMD").chain(args.iter().map(String::as_str)).collect(),
                    CommandLine::Shell(line) => vec!["CMD-SHELL", line],
                };
                let config = oci::Healthcheck {
                    test: test.into_iter().map(str::to_owned).collect(),
                    interval: nanoseconds(probe.interval),
                    timeout: nanoseconds(probe.timeout),
                    start_period: nanoseconds(probe.start_period),
                    start_interval: nanoseconds(probe.start_interval),
                    retries: probe.retries.map_or(0, i64::from),
                };
                (config, [probe.interval, probe.timeout, probe.start_period, probe.start_interval])
            }
        };
        let time = |value| duration(time(value));
        // As BuildKit has it since 2026: Go's `%+v` of the whole structure. It was `%q` before.
        let created_by = format!(
            "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            list(&config.test),
            time(interval),
            time(timeout),
            time(start_period),
            time(start_interval),
            config.retries,
        );
        self.record(current, at, created_by, None);
        current.state.config.config.healthcheck = Some(config);
    }
}

/// A command as argv: the shell form behind the shell of the stage.
pub(super) fn with_shell(state: &State, command: &CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(args) => args.clone(),
        CommandLine::Shell(line) => shell_args(state, line),
    }
}

/// The shell of the stage with one argument.
pub(super) fn shell_args(state: &State, line: &str) -> Vec<String> {
    let shell = &state.config.config.shell;
    let mut args = if shell.is_empty() { vec!["/bin/sh".to_owned(), "-c".to_owned()] } else { shell.clone() };
    args.push(line.to_owned());
    args
}

fn pairs_text(instruction: &str, pairs: &[(String, String)]) -> String {
    pairs.iter().fold(instruction.to_owned(), |text, (name, value)| text + " " + name + "=" + value)
}

//! What a `RUN` executes: words, or a line for the shell of the stage.

use super::Script;
use super::error::{GraphError, GraphErrorKind};
use super::instruct::shell_args;
use super::lower::{At, Current, Lowering};
use crate::dockerfile::{Run, RunCommand, is_posix_shell};

/// Where an executable here-document appears.
const PIPES: &str = "/dev/pipes/";

/// Longest argument that the kernel takes, in bytes (execve(2), `MAX_ARG_STRLEN` without the NUL).
const MAX_ARGUMENT: usize = (128 << 10) - 1;

/// Name of the file with a line that is too long for an argument.
const LONG_LINE: &str = "RUN";

/// A command, ready to be executed.
pub(super) struct Command {
    pub(super) args: Vec<String>,
    pub(super) script: Option<Script>,
    /// What the history shows instead of `args`.
    pub(super) shown: Vec<String>,
}

impl<'a> Lowering<'a> {
    pub(super) fn command(&mut self, current: &Current, at: &At<'a>, run: &Run) -> Option<Command> {
        let state = &current.state;
        let (args, script) = match &run.command {
            RunCommand::Exec(args) => (args.clone(), None),
            RunCommand::Script(script) => {
                let args = shell_args(state, &format!("{PIPES}{}", script.name));
                (args, Some(Script { name: script.name.to_string(), body: script.body.to_string() }))
            }
            RunCommand::Shell(line) => {
                let strict = self.heredoc_errexit() && !at.on_build() && run.lone_heredoc().is_some();
                let line = if strict { format!("set -e\n{line}") } else { line.to_string() };
                let posix = is_posix_shell(&state.config.config.shell);
                if strict && !posix {
                    let error = GraphError::new(GraphErrorKind::ErrexitShell(state.config.config.shell.join(" ")));
                    self.report(at, at.instruction.name_span(), error.hint("begin the here-document with a `#!` line"));
                    return None;
                }
                let shown = shell_args(state, &line);
                if posix && line.len() > MAX_ARGUMENT {
                    // The shell reads the line from a file: to it nothing changes.
                    let script = Some(Script { name: LONG_LINE.to_owned(), body: line });
                    return Some(Command { args: shell_args(state, &format!(". {PIPES}{LONG_LINE}")), script, shown });
                }
                (shown, None)
            }
        };
        Some(Command { shown: args.clone(), args, script })
    }
}

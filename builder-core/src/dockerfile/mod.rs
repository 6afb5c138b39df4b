//! Dockerfile text becomes a [`Dockerfile`]: typed instructions with spans, all errors at once, and warnings.
//!
//! ```text
//! Source ── syntax::read ──▶ Node (words, flags, heredocs) ── parse ──▶ Instruction ── lint ──▶ LintWarning
//!                                                                          │
//!                                    Expander::{word, words, heredoc} ◀────┘ (called by the graph, values known)
//! ```
//!
//! The grammar is BuildKit's, as its parser behaves and not as its manual describes it; deliberate differences are
//! listed in `docs/reference/dockerfile.md`. Everything here is pure: text in, data out.

mod ast;
mod build;
mod directive;
mod duration;
mod error;
pub mod expand;
mod flags;
mod heredoc;
mod instruction;
mod lines;
pub mod lint;
mod mount;
mod own;
mod parse;
mod port;
mod signal;
mod syntax;
mod text;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod words;

use crate::diagnostic::Source;

pub use ast::{WordsRequestError, ast_json, words_json};
pub use directive::detect_syntax;
pub use error::{ParseError, ParseErrors, Problem};
pub use expand::{ExpandError, Expanded, ExpandedWords, Expander};
pub(crate) use instruction::is_posix_shell;
pub use instruction::{
    Add, ArgDeclaration, CommandLine, Copy, CopySource, Device, Flag, From, Healthcheck, Heredoc, Instruction,
    InstructionKind, KeyValue, Network, Probe, Run, RunCommand, RunParts, Script, Security, StageName, Word,
};
pub use lint::{LintWarning, Rule};
pub use mount::{Mount, MountError, MountKind, Ownership, Sharing};
pub use port::{PortError, parse_ports};
pub use signal::parse_signal;
pub use syntax::MAX_SIZE;
pub use text::Text;

/// A parsed Dockerfile.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// The text; all spans point into it.
    pub source: Source,
    /// The directives at the top.
    pub directives: Directives,
    /// Every instruction, in file order. `ARG` before the first `FROM` is global scope; each `FROM` begins a stage.
    /// The parser has checked that nothing else stands before the first `FROM`, and that there is one.
    pub instructions: Vec<Instruction>,
    /// What is accepted but doubtful, found while reading (`NoEmptyContinuation`); not yet filtered by `# check=`.
    pub warnings: Vec<LintWarning>,
}

impl Dockerfile {
    /// The `ARG` instructions before the first `FROM`.
    pub fn global_args(&self) -> &[Instruction] {
        &self.instructions[..self.first_from()]
    }

    /// The stages in file order: each slice begins with its `FROM`.
    pub fn stages(&self) -> Vec<&[Instruction]> {
        let mut stages = Vec::new();
        let mut rest = &self.instructions[self.first_from()..];
        while let Some((_, after)) = rest.split_first() {
            let len = 1 + after.iter().position(Instruction::is_from).unwrap_or(after.len());
            let (stage, next) = rest.split_at(len);
            stages.push(stage);
            rest = next;
        }
        stages
    }

    /// The instruction that a byte of the source belongs to, or the next one.
    pub(crate) fn instruction_at(&self, offset: usize) -> Option<&Instruction> {
        self.instructions.get(self.instructions.partition_point(|instruction| instruction.span.end <= offset))
    }

    fn first_from(&self) -> usize {
        self.instructions.iter().position(Instruction::is_from).unwrap_or(self.instructions.len())
    }
}

/// The parser directives: `# key=value` lines at the very top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: the image of a frontend.
    pub syntax: Option<Word>,
    /// `# escape=`: a backslash or a backtick.
    pub escape: char,
    /// `# check=`, as written.
    pub check: Option<Word>,
    /// `# rbuild: heredoc=errexit`: a lone heredoc of `RUN` ends at its first failing command.
    pub heredoc_errexit: bool,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None, heredoc_errexit: false }
    }
}

/// Parses a whole Dockerfile.
///
/// # Errors
/// All errors of the file (up to a hundred), in file order; there is at least one.
pub fn parse(source: &Source) -> Result<Dockerfile, ParseErrors> {
    let mut builder = build::Builder::new(source);
    // Statements are not collected: a file of tiny ones is many times smaller than they are.
    let syntax = syntax::read(source, &mut |node| builder.push(node));
    builder.finish(syntax)
}

/// Parses one ONBUILD trigger, as the config of a base image holds it (`RUN make /app`).
///
/// The source holds the trigger's text only; the escape character is the backslash, as in BuildKit.
///
/// # Errors
/// If it is not exactly one instruction, or one that may not be a trigger.
pub fn parse_trigger(source: &Source) -> Result<Instruction, ParseErrors> {
    let mut nodes = Vec::new();
    let syntax = syntax::read(source, &mut |node| nodes.push(node));
    let mut errors = syntax.errors;
    let mut nodes = nodes.into_iter();
    if let (Some(node), None) = (nodes.next(), nodes.next()) {
        if parse::check_trigger(&node, source, &mut errors).is_some()
            && let Some(instruction) = parse::instruction(node, source, &mut errors)
            && errors.is_empty()
        {
            return Ok(instruction);
        }
    } else if errors.is_empty() {
        let whole = crate::diagnostic::Span::new(0, source.text().len());
        errors.push(ParseError::new(source, whole, Problem::TriggerCount));
    }
    Err(ParseErrors::new(errors))
}

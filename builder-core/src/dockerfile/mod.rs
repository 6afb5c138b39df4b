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
mod parse;
mod port;
mod signal;
mod syntax;
#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;
mod words;

use crate::diagnostic::Source;

pub use ast::{WordsRequestError, ast_json, words_json};
pub use directive::detect_syntax;
pub use error::{ParseError, ParseErrors, Problem};
pub use expand::{ExpandError, Expanded, ExpandedWords, Expander};
pub use instruction::{
    Add, ArgDeclaration, CommandLine, Copy, CopySource, Device, Flag, From, Healthcheck, Heredoc, Instruction,
    InstructionKind, KeyValue, Network, Probe, Run, RunCommand, Security, StageName, Word,
};
pub use lint::{LintWarning, Rule};
pub use mount::{Mount, MountError, MountKind, Ownership, Sharing};
pub use port::{PortError, parse_ports};
pub use signal::parse_signal;
pub use syntax::MAX_SIZE;

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
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None }
    }
}

/// Parses a whole Dockerfile.
///
/// # Errors
/// All errors of the file (up to a hundred), in file order; there is at least one.
pub fn parse(source: &Source) -> Result<Dockerfile, ParseErrors> {
    let syntax = syntax::read(source);
    let mut errors = syntax.errors;
    if let Some(check) = &syntax.directives.check
        && let Err(option) = lint::Options::parse(&check.text)
    {
        errors.push(ParseError::new(source, check.span, Problem::CheckOption(option)));
    }
    let mut instructions = Vec::with_capacity(syntax.nodes.len());
    let mut stages = Stages::None;
    for node in recover(syntax.nodes) {
        if errors.len() >= syntax::MAX_ERRORS {
            break;
        }
        let (keyword, place) = (node.keyword, node.name.span);
        let errors_before = errors.len();
        instructions.extend(parse::instruction(node, source, &mut errors));
        match (keyword, stages) {
            (Some(syntax::Keyword::From), _) => stages = Stages::Some,
            (Some(keyword), Stages::None) if keyword != syntax::Keyword::Arg && errors.len() == errors_before => {
                errors.push(ParseError::new(source, place, Problem::NoStage));
                // The rest of the file lacks its stage for the same reason.
                stages = Stages::Some;
            }
            _ => {}
        }
    }
    if stages == Stages::None && errors.is_empty() {
        let end = instructions.last().map_or_else(Default::default, |last: &Instruction| last.span);
        errors.push(ParseError::new(source, end, Problem::NoStages));
    }
    if !errors.is_empty() {
        return Err(ParseErrors::new(errors));
    }
    Ok(Dockerfile { source: source.clone(), directives: syntax.directives, instructions, warnings: syntax.warnings })
}

/// Whether a `FROM` was seen.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stages {
    None,
    Some,
}

/// Drops the statements that are the body of a heredoc behind a misspelled instruction, so that one error does not
/// become fifty.
fn recover(nodes: Vec<syntax::Node>) -> Vec<syntax::Node> {
    let opens = |node: &syntax::Node| node.keyword.is_none() && node.original.contains("<<");
    if !nodes.iter().any(opens) {
        return nodes;
    }
    // Each delimiter is looked for once, so this stays linear.
    let mut last_line = std::collections::HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        last_line.insert(node.original.trim().to_owned(), index);
    }
    let mut kept = Vec::with_capacity(nodes.len());
    let mut skip_to: Option<String> = None;
    for (index, node) in nodes.into_iter().enumerate() {
        if let Some(end) = &skip_to {
            if node.original.trim() == end {
                skip_to = None;
            }
            continue;
        }
        if opens(&node) {
            let name = node.original.split_whitespace().find_map(|word| heredoc::parse_token(word).ok().flatten());
            skip_to = name.map(|token| token.name).filter(|name| last_line.get(name).is_some_and(|at| *at > index));
        }
        kept.push(node);
    }
    kept
}

/// Parses one ONBUILD trigger, as the config of a base image holds it (`RUN make /app`).
///
/// The source holds the trigger's text only; the escape character is the backslash, as in BuildKit.
///
/// # Errors
/// If it is not exactly one instruction, or one that may not be a trigger.
pub fn parse_trigger(source: &Source) -> Result<Instruction, ParseErrors> {
    let syntax = syntax::read(source);
    let mut errors = syntax.errors;
    let mut nodes = syntax.nodes.into_iter();
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

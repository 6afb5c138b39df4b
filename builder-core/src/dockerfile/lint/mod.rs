//! Checks: what is accepted but doubtful. [`Rule`] is the list, [`LintWarning`] one finding.
//!
//! [`check`] finds what the file alone shows. Rules about the instructions of a stage with their values, about
//! contexts and about images are found by those who know them: the graph, with the functions here that word the
//! findings. [`Options::filter`] then applies `# check=` to all of them. Rules and wording are BuildKit's.

mod check;
mod detail;
mod options;
mod rules;
#[cfg(test)]
mod tests;

use crate::diagnostic::{Diagnostic, Location, Source, Span};

pub use check::check;
pub use detail::Detail;
pub(crate) use detail::suggest;
pub use options::Options;
pub use rules::{Level, Rule};

/// One finding of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintWarning {
    /// The rule.
    pub rule: Rule,
    /// The place.
    pub span: Span,
    /// The first line of the instruction, from 1. What comes from a base image has that of its `FROM`.
    pub line: usize,
    /// The last line of the instruction.
    pub last_line: usize,
    /// What was found, in words.
    pub detail: String,
}

impl LintWarning {
    /// Warnings are shown by line, those of a line in the order in which BuildKit finds them.
    pub(crate) fn order(&self) -> (usize, u8) {
        (self.line, self.rule.phase())
    }

    /// The warning as something that can show its place in `source`.
    pub fn locate<'a>(&'a self, source: &'a Source) -> impl Diagnostic + 'a {
        Located { warning: self, source }
    }
}

struct Located<'a> {
    warning: &'a LintWarning,
    source: &'a Source,
}

impl std::fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.warning.rule.name(), self.warning.detail)
    }
}

impl Diagnostic for Located<'_> {
    fn location(&self) -> Option<Location> {
        Some(Location { source: self.source.clone(), span: self.warning.span })
    }

    fn hint(&self) -> Option<String> {
        self.warning.rule.url().map(|url| format!("see {url}"))
    }
}

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
    /// What would mend it, where a program can say that.
    pub fix: Option<Fix>,
}

/// A text that mends a file when it is put into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fix {
    /// Where, as an offset in bytes: the beginning of a line.
    pub at: usize,
    /// Whole lines, with their ends.
    pub insert: String,
}

/// The text with all fixes of `warnings`, which are those of this text; none if there is nothing to mend.
pub fn fixed<'a>(text: &[u8], warnings: impl IntoIterator<Item = &'a LintWarning>) -> Option<Vec<u8>> {
    let mut fixes: Vec<&Fix> = warnings.into_iter().filter_map(|warning| warning.fix.as_ref()).collect();
    fixes.sort_by_key(|fix| fix.at);
    let (mut out, mut done) = (Vec::with_capacity(text.len()), 0);
    for fix in &fixes {
        out.extend_from_slice(text.get(done..fix.at)?);
        out.extend_from_slice(fix.insert.as_bytes());
        done = fix.at;
    }
    out.extend_from_slice(&text[done..]);
    (!fixes.is_empty()).then_some(out)
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

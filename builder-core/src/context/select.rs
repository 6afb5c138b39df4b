//! What a source of `COPY` or `ADD` stands for: [`Request`] → [`Match`]es of [`Selected`] entries.

use super::ContextError;
use super::glob::{BadPattern, Glob};
use super::pattern::{Above, Matcher};
use crate::rootfs::{ParseRootPathError, RootPath};
use crate::tree::Entry;

/// One source as written, with the flags that decide what it stands for.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// A path or a pattern; leading slashes and `..` end at the root.
    pub source: &'a str,
    /// `--parents`: the source is a pattern for everything below the root or below its `/./`.
    pub parents: bool,
    /// `--exclude`, each: patterns for paths below what matches.
    pub exclude: &'a [String],
}

/// One path that a source stands for, with everything below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Match {
    /// The last component of the path as it was matched: the name of a copy that is put into a directory. Empty for
    /// the root.
    pub name: Vec<u8>,
    /// Where it is, symbolic links followed.
    pub root: RootPath,
    /// The entry at `root`, then what is below it, in order. Hard links have a common number within one match.
    pub entries: Vec<Selected>,
}

/// One entry of a match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// The entry, with its path in the place where it comes from.
    pub entry: Entry,
    /// False for a directory which is there only for something below it: it was excluded, or is above what `--parents`
    /// asks for.
    pub included: bool,
    /// The layer that has it, in sources that are stacks; 0 in a context.
    pub layer: usize,
}

/// A request that was understood.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The elements before the first pattern.
    pub literal: RootPath,
    /// The elements from the first pattern on.
    pub globs: Vec<Glob>,
    /// What is taken of the entries below a match.
    pub filter: Filter,
    /// With `--parents`: a path without patterns, relative to the match, that has to be there.
    pub required: Option<RootPath>,
}

/// Which entries below a match are taken: those that `include` matches, if there is one, and `exclude` does not.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    include: Option<Matcher>,
    exclude: Option<Matcher>,
}

/// What a filter knows of a directory; needed for everything in it.
#[derive(Debug, Clone, Default)]
pub struct FilterAbove {
    include: Above,
    exclude: Above,
}

/// A source or a pattern can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The pattern breaks the syntax.
    #[error("invalid pattern `{pattern}`: {problem}")]
    Pattern {
        /// It.
        pattern: String,
        /// Why.
        problem: BadPattern,
    },
    /// The path can't be one.
    #[error(transparent)]
    Path(#[from] ParseRootPathError),
}

impl From<RequestError> for ContextError {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::Pattern { pattern, problem } => Self::SourcePattern { pattern, problem },
            RequestError::Path(error) => Self::Path(error),
        }
    }
}

impl Request<'_> {
    /// Splits the source and compiles its patterns.
    ///
    /// # Errors
    /// If a pattern is not valid, or the source holds a NUL byte or is too long.
    pub fn compile(&self) -> Result<Compiled, RequestError> {
        let bad = |pattern: &[u8], problem| {
            let pattern = String::from_utf8_lossy(pattern).into_owned();
            RequestError::Pattern { pattern, problem }
        };
        let matcher = |patterns: Vec<&[u8]>| {
            let numbered = patterns.into_iter().enumerate();
            Matcher::new(numbered).map_err(|(_, pattern, problem)| bad(&pattern, problem))
        };
        let mut source = self.source;
        let mut filter = Filter::default();
        let mut required = None;
        if self.parents {
            let (base, pattern) = source.split_once("/./").unwrap_or(("/", source));
            let pattern = RootPath::clean(pattern)?;
            // The root itself is everything: no pattern.
            if !pattern.is_root() {
                filter.include = Some(matcher(vec![pattern.as_bytes()])?);
                if !Glob::is_pattern(base.as_bytes()) && !Glob::is_pattern(pattern.as_bytes()) {
                    required = Some(pattern);
                }
            }
            source = base;
        }
        if !self.exclude.is_empty() {
            filter.exclude = Some(matcher(self.exclude.iter().map(String::as_bytes).collect())?);
        }
        let path = RootPath::clean(source)?;
        let mut literal = RootPath::root();
        let mut globs = Vec::new();
        for element in path.components() {
            if globs.is_empty() && !Glob::is_pattern(element) {
                literal = literal.child(element);
            } else {
                globs.push(Glob::new(element).map_err(|problem| bad(self.source.as_bytes(), problem))?);
            }
        }
        Ok(Compiled { literal, globs, filter, required })
    }
}

impl Filter {
    /// Whether it takes everything.
    pub fn is_empty(&self) -> bool {
        self.include.is_none() && self.exclude.is_none()
    }

    /// The state at a match, which is always taken.
    pub fn root(&self) -> FilterAbove {
        let root = |matcher: &Option<Matcher>| matcher.as_ref().map(Matcher::root).unwrap_or_default();
        FilterAbove { include: root(&self.include), exclude: root(&self.exclude) }
    }

    /// Whether an entry that is not a directory is taken. `below` is its path relative to the match.
    pub fn takes(&self, above: &FilterAbove, below: &[u8]) -> bool {
        let included = self.include.as_ref().is_none_or(|matcher| matcher.judge(&above.include, below).matched);
        included && !self.exclude.as_ref().is_some_and(|matcher| matcher.judge(&above.exclude, below).matched)
    }

    /// Judges a directory: whether it is taken itself, and the state for what is in it, if something there can be.
    pub fn enter(&self, above: &FilterAbove, below: &[u8]) -> (bool, Option<FilterAbove>) {
        let mut inside = FilterAbove::default();
        let (mut taken, mut worth) = (true, true);
        if let Some(matcher) = &self.include {
            let verdict;
            (verdict, inside.include) = matcher.enter(&above.include, below);
            taken &= verdict.matched;
            worth &= verdict.matched || matcher.can_match_below(below);
        }
        if let Some(matcher) = &self.exclude {
            let verdict;
            (verdict, inside.exclude) = matcher.enter(&above.exclude, below);
            taken &= !verdict.matched;
            worth &= !verdict.matched || matcher.can_take_back_below(&inside.exclude, below);
        }
        (taken, worth.then_some(inside))
    }
}

//! [`epoch_source`]: what `SOURCE_DATE_EPOCH` names, if it is no number.
//!
//! ```text
//! 1700000000     that time
//! (empty)        none, whatever the environment says
//! context        the time of the build context: of its commit, of its address, of the newest file of its archive
//! NAME           the same of a `--build-context`, or of the one remote ADD of a stage `FROM scratch`
//! ```

use super::copy::{git_address, git_source, is_http};
use super::env::Scope;
use super::error::{GraphError, GraphErrorKind, GraphErrors};
use super::globals::{Globals, SOURCE_DATE_EPOCH};
use super::stages::Input;
use super::{AddSource, ContextId, Images, NamedContext, Options};
use crate::dockerfile::{Add, CopySource, Dockerfile, Expander, Instruction, InstructionKind, Word};

/// Something with a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EpochSource {
    /// A build context.
    Context(ContextId),
    /// What a stage adds: an address or a repository.
    Remote(AddSource),
    /// An image, which gives none.
    Nothing,
}

/// What the source of [`EpochSource`] came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResolvedEpoch {
    /// It has no time: `SOURCE_DATE_EPOCH` is not set.
    Unset,
    /// Seconds since 1970.
    At(i64),
}

/// Finds what `SOURCE_DATE_EPOCH` names; `None` for a number, or if it is not set.
///
/// The caller finds out its time, and sets [`Options::resolved_epoch`] before it plans.
///
/// # Errors
/// A name of nothing, and a stage that is more than one remote `ADD`.
pub fn epoch_source(dockerfile: &Dockerfile, options: &Options) -> Result<Option<EpochSource>, GraphErrors> {
    let is_declared = |instruction: &Instruction| match &instruction.kind {
        InstructionKind::Arg(arguments) => arguments.iter().any(|argument| argument.name.text == SOURCE_DATE_EPOCH),
        _ => false,
    };
    let given = options.build_args.contains_key(SOURCE_DATE_EPOCH);
    if !given && !dockerfile.global_args().iter().any(is_declared) {
        return Ok(None);
    }
    let expander = Expander::new(dockerfile.directives.escape);
    let images = Images::new();
    let input = Input { dockerfile, options, images: &images, expander: &expander };
    let mut errors = Vec::new();
    let globals = Globals::new(input, "", &mut errors);
    GraphErrors::check(errors)?;
    let value = match options.build_args.get(SOURCE_DATE_EPOCH) {
        Some(value) => Some(value.clone()),
        None => globals.value(SOURCE_DATE_EPOCH),
    };
    let Some(value) = value.filter(|value| !value.is_empty() && value.parse::<i64>().is_err()) else {
        return Ok(None);
    };
    if value == "context" {
        return Ok(Some(EpochSource::Context(ContextId::Main)));
    }
    match options.context(&value, &options.platform) {
        Some((name, NamedContext::Directory)) => {
            return Ok(Some(EpochSource::Context(ContextId::Named(name.to_owned()))));
        }
        Some((_, NamedContext::Image(_) | NamedContext::Scratch | NamedContext::Layout(_))) => {
            return Ok(Some(EpochSource::Nothing));
        }
        None => {}
    }
    let named = |stage: &&[Instruction]| {
        matches!(stage.first().map(|first| &first.kind),
        Some(InstructionKind::From(from))
            if from.stage.as_ref().is_some_and(|stage| stage.name.eq_ignore_ascii_case(&value)))
    };
    let stages = dockerfile.stages();
    let Some(stage) = stages.into_iter().find(named) else {
        let hint = "it is a number of seconds since 1970, `context`, or the name of a build context or of a stage";
        return Err(GraphError::new(GraphErrorKind::SourceDateEpoch(value)).hint(hint).into());
    };
    Reader { input, scope: globals.into_scope() }.stage(stage).map(|source| Some(EpochSource::Remote(source)))
}

/// Reads a stage that does nothing but fetch something.
struct Reader<'a> {
    input: Input<'a>,
    scope: Scope,
}

impl Reader<'_> {
    fn stage(mut self, stage: &[Instruction]) -> Result<AddSource, GraphErrors> {
        let (first, body) = stage.split_first().expect("a stage begins with its FROM");
        let InstructionKind::From(from) = &first.kind else { unreachable!("a stage begins with its FROM") };
        if self.expand(&from.image)? != "scratch" {
            return Err(self.wrong(first, "it is not `FROM scratch`"));
        }
        let mut found = None;
        for instruction in body {
            match &instruction.kind {
                InstructionKind::Arg(arguments) => {
                    for argument in arguments {
                        let name = &*argument.name.text;
                        let value = match (self.input.options.build_args.get(name), &argument.default) {
                            (Some(value), _) => value.clone(),
                            (None, Some(word)) => self.expand(word)?,
                            (None, None) => continue,
                        };
                        self.scope.set(name, &value);
                    }
                }
                InstructionKind::Add(add) if found.is_none() => found = Some(self.add(instruction, add)?),
                InstructionKind::Add(_) => return Err(self.wrong(instruction, "it has more than one ADD")),
                _ => return Err(self.wrong(instruction, "it has other instructions than ARG and ADD")),
            }
        }
        found.ok_or_else(|| self.wrong(first, "it has no ADD"))
    }

    fn add(&self, instruction: &Instruction, add: &Add) -> Result<AddSource, GraphErrors> {
        let [CopySource::Path(word)] = &add.sources[..] else {
            return Err(self.wrong(instruction, "its ADD has more than one source"));
        };
        let source = self.expand(word)?;
        if let Some(parsed) = git_address(&source) {
            let checksum = add.checksum.as_ref().map(|word| self.expand(word)).transpose()?;
            let git = git_source(source, parsed, checksum.as_deref(), add.keep_git_dir);
            git.map_err(|error| (*error).at(self.input.location(word.span)).into())
        } else if is_http(&source) {
            Ok(AddSource::Http(source))
        } else {
            Err(self.wrong(instruction, "its ADD does not fetch anything"))
        }
    }

    fn expand(&self, word: &Word) -> Result<String, GraphErrors> {
        let expanded = self.input.expander.word(&word.text, &|name| self.scope.get(name).map(str::to_owned));
        let located = |error| GraphErrors::from(GraphError::new(error).at(self.input.location(word.span)));
        expanded.map(|expanded| expanded.text).map_err(located)
    }

    fn wrong(&self, instruction: &Instruction, reason: &'static str) -> GraphErrors {
        let error = GraphError::new(GraphErrorKind::EpochStage(reason)).at(self.input.location(instruction.span));
        error.hint("such a stage is `FROM scratch AS name` and `ADD` of one address or repository").into()
    }
}

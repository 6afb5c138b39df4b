//! Checks: what is accepted but doubtful. [`Rule`] is the list, [`LintWarning`] one finding.

use crate::diagnostic::Span;

/// A rule of the checker. Names, texts and addresses are BuildKit's where the rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Stage names are in lower case.
    StageNameCasing,
    /// `AS` has the case of `FROM`.
    FromAsCasing,
    /// No empty lines in continued lines.
    NoEmptyContinuation,
    /// All instructions have one case.
    ConsistentInstructionCasing,
    /// Stage names are unique.
    DuplicateStageName,
    /// No stage is called `scratch` or `context`.
    ReservedStageName,
    /// `CMD` and `ENTRYPOINT` have the exec form.
    JsonArgsRecommended,
    /// `MAINTAINER` is old.
    MaintainerDeprecated,
    /// `FROM` uses declared arguments.
    UndefinedArgInFrom,
    /// A relative `WORKDIR` follows an absolute one.
    WorkdirRelativePath,
    /// Variables are defined before use.
    UndefinedVar,
    /// One `CMD`, `ENTRYPOINT` and `HEALTHCHECK` a stage.
    MultipleInstructionsDisallowed,
    /// `ENV key=value` instead of `ENV key value`.
    LegacyKeyValueFormat,
    /// A base has the platform that is built.
    InvalidBaseImagePlatform,
    /// `--platform=$TARGETPLATFORM` is the default.
    RedundantTargetPlatform,
    /// No secrets in `ARG` or `ENV`.
    SecretsUsedInArgOrEnv,
    /// `FROM` is valid with the defaults of its arguments.
    InvalidDefaultArgInFrom,
    /// `FROM --platform` is not a constant.
    FromPlatformFlagConstDisallowed,
    /// What is copied is not excluded by the ignore file.
    CopyIgnoredFile,
    /// A comment above a stage or argument describes it.
    InvalidDefinitionDescription,
    /// Protocols in `EXPOSE` are in lower case.
    ExposeProtoCasing,
    /// `EXPOSE` takes ports, not addresses.
    ExposeInvalidFormat,
}

/// One finding of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LintWarning {
    /// The rule.
    pub rule: Rule,
    /// The place.
    pub span: Span,
    /// The line, from 1.
    pub line: usize,
    /// What was found, in words.
    pub detail: String,
}

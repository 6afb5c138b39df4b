//! What is wrong with a Dockerfile: [`ParseErrors`].

use std::fmt;

use super::expand::ExpandError;
use super::syntax::{Keyword, MAX_SIZE};
use super::{MountError, PortError};
use crate::diagnostic::{Diagnostic, Errors, Location, Source, Span, nearest};

/// One error and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// What is wrong.
    pub problem: Problem,
    location: Location,
}

impl ParseError {
    /// An error at a place of a text.
    pub fn new(source: &Source, span: Span, problem: Problem) -> Self {
        Self { problem, location: Location { source: source.clone(), span } }
    }

    /// The place.
    pub fn span(&self) -> Span {
        self.location.span
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(f)
    }
}

impl std::error::Error for ParseError {}

impl Diagnostic for ParseError {
    fn location(&self) -> Option<Location> {
        Some(self.location.clone())
    }

    fn hint(&self) -> Option<String> {
        self.problem.hint()
    }
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nothing but comments and blank lines.
    #[error("file with no instructions")]
    NoInstructions,
    /// `ARG` alone makes no stage.
    #[error("dockerfile contains no stages to build")]
    NoStages,
    /// More than the size that is read.
    #[error("the file is larger than {} MiB", MAX_SIZE >> 20)]
    TooLarge,
    /// Bytes that are no text.
    #[error("invalid UTF-8")]
    NotUtf8,
    /// A zero byte, which ends strings in every system call.
    #[error("NUL byte")]
    Nul,
    /// A name that is no instruction.
    #[error("unknown instruction: {0}")]
    UnknownInstruction(String),
    /// Something else than `ARG` before the first `FROM`.
    #[error("no build stage in current context")]
    NoStage,
    /// The same directive twice.
    #[error("only one {0} parser directive can be used")]
    DuplicateDirective(String),
    /// `# escape=` with something else than a backslash or a backtick.
    #[error("invalid escape token `{0}` does not match ` or \\")]
    EscapeDirective(String),
    /// `# rbuild:` with an option that does not exist.
    #[error("unknown option `{0}` of `# rbuild:`")]
    OwnOption(String),
    /// `# cache=` above a `RUN` with something else than a duration.
    #[error("invalid duration `{0}` in `# cache=`")]
    TimeToLive(String),
    /// `# cache=12h` above something else.
    #[error("`# cache=` stands above {0}, whose result does not expire")]
    TimeToLiveElsewhere(String),
    /// `# cache=reads` above something else.
    #[error("`# cache=reads` stands above {0}, which reads nothing")]
    CacheReadsElsewhere(String),
    /// `# check=` with an option that does not exist.
    #[error("invalid check option `{0}`")]
    CheckOption(String),
    /// A flag that the instruction does not have.
    #[error("unknown flag: --{name}")]
    UnknownFlag {
        /// Without dashes.
        name: String,
        /// Those that it has.
        known: &'static [&'static str],
    },
    /// A flag twice that may stand once.
    #[error("duplicate flag specified: --{0}")]
    DuplicateFlag(String),
    /// A flag without its value.
    #[error("missing a value on flag: --{0}")]
    FlagValue(String),
    /// Something else than `true` or `false`.
    #[error("expecting boolean value for flag --{name}, not: {value}")]
    FlagBool {
        /// Without dashes.
        name: String,
        /// As written.
        value: String,
    },
    /// A value that the flag does not take.
    #[error("invalid value `{value}` for flag --{name}")]
    FlagChoice {
        /// Without dashes.
        name: &'static str,
        /// As written.
        value: String,
        /// Those that it takes.
        known: &'static [&'static str],
    },
    /// Nothing where something must be.
    #[error("{0} requires at least one argument")]
    AtLeastOne(&'static str),
    /// Nothing, or more than one.
    #[error("{0} requires exactly one argument")]
    ExactlyOne(&'static str),
    /// `COPY` or `ADD` with less than two words.
    #[error("{0} requires at least two arguments, but only one was provided; destination could not be determined")]
    NoDestination(&'static str),
    /// `FROM a b`
    #[error("FROM requires either one or three arguments")]
    FromArguments,
    /// A stage name with a digit first, or with other letters.
    #[error("invalid name for build stage: `{0}`, name can't start with a number or contain symbols")]
    StageName(String),
    /// A heredoc as destination.
    #[error("{0} cannot accept a heredoc as a destination")]
    HeredocDestination(&'static str),
    /// A heredoc without its last line.
    #[error("unterminated heredoc")]
    UnterminatedHeredoc(String),
    /// A heredoc whose delimiter is malformed.
    #[error(transparent)]
    Heredoc(ExpandError),
    /// A JSON array with something else than strings.
    #[error("when using JSON array syntax, arrays must be comprised of strings only")]
    JsonNotStrings,
    /// `SHELL` in shell form.
    #[error("SHELL requires the arguments to be in JSON form")]
    ShellNotJson,
    /// `ENV =value`
    #[error("{0} names can not be blank")]
    BlankName(&'static str),
    /// `ENV key`
    #[error("{0} must have two arguments")]
    OnlyKey(String),
    /// `ENV a=b c`
    #[error("can't find = in `{0}`, must be of the form: name=value")]
    NoEquals(String),
    /// `VOLUME [""]`
    #[error("VOLUME specified can not be an empty string")]
    EmptyVolume,
    /// `ONBUILD ONBUILD`
    #[error("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")]
    OnbuildChain,
    /// `ONBUILD FROM` or `ONBUILD MAINTAINER`
    #[error("{0} isn't allowed as an ONBUILD trigger")]
    OnbuildForbidden(String),
    /// A trigger that is not one instruction.
    #[error("onbuild trigger should be a single expression")]
    TriggerCount,
    /// `HEALTHCHECK NONE x`
    #[error("HEALTHCHECK NONE takes no arguments")]
    HealthNone,
    /// `HEALTHCHECK CMD` alone
    #[error("missing command after HEALTHCHECK CMD")]
    HealthCommand,
    /// Neither `NONE` nor `CMD`
    #[error("unknown type `{0}` in HEALTHCHECK (try CMD)")]
    HealthType(String),
    /// A time that is none.
    #[error("invalid duration `{0}`")]
    Duration(String),
    /// A time below 1 ms.
    #[error("interval `{0}` cannot be less than 1ms")]
    ShortDuration(String),
    /// A number of retries that is none.
    #[error("invalid number of retries `{0}`")]
    Retries(String),
    /// Fewer than no retries.
    #[error("--retries cannot be negative ({0})")]
    NegativeRetries(i64),
    /// `COPY --from=$x`
    #[error(
        "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround"
    )]
    FromVariable,
    /// A `--mount` that is none.
    #[error(transparent)]
    Mount(MountError),
    /// A `--device` that is none.
    #[error("invalid device `{value}`: {reason}")]
    Device {
        /// As written.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An `EXPOSE` that is no port.
    #[error(transparent)]
    Port(PortError),
    /// A `STOPSIGNAL` that is no signal.
    #[error("invalid signal: {0}")]
    Signal(String),
}

impl Problem {
    fn hint(&self) -> Option<String> {
        let mean = |word: &str| format!("did you mean `{word}`?");
        let nearest = |word: &str, known: &[&'static str]| {
            // Comparing costs the product of the lengths, and no long word is near.
            if word.len() > 64 { None } else { nearest(word, known.iter().copied()) }
        };
        match self {
            Self::UnknownInstruction(name) => nearest(&name.to_uppercase(), Keyword::NAMES).map(mean),
            Self::UnknownFlag { name, known } => match nearest(name, known) {
                Some(flag) => Some(mean(&format!("--{flag}"))),
                None if known.is_empty() => Some("this instruction has no flags".to_owned()),
                None => Some(format!("its flags are --{}", known.join(", --"))),
            },
            Self::FlagChoice { value, known, .. } => Some(match nearest(value, known) {
                Some(word) => mean(word),
                None => format!("it takes {}", known.join(", ")),
            }),
            Self::NoStage | Self::NoStages => Some("begin a stage with `FROM image` or `FROM scratch`".to_owned()),
            Self::NoInstructions => Some("a Dockerfile begins with `FROM image` or `FROM scratch`".to_owned()),
            Self::UnterminatedHeredoc(name) => Some(format!("end it with a line that holds `{name}` and nothing else")),
            Self::ShellNotJson => Some("write `SHELL [\"executable\", \"parameter\"]`".to_owned()),
            Self::FromArguments => Some("write `FROM image AS name`".to_owned()),
            Self::TimeToLive(_) => {
                Some("write how long the result counts: `# cache=12h`, `# cache=7d`; or `# cache=reads`".to_owned())
            }
            Self::CacheReadsElsewhere(_) => {
                Some("write it above a `RUN`; `--cache-reads` is for all commands of a build".to_owned())
            }
            Self::TimeToLiveElsewhere(_) => {
                Some("write it above a `RUN`; `--cache-ttl STAGE=12h` is for all commands of a stage".to_owned())
            }
            Self::OwnOption(_) => Some("it takes `heredoc=errexit`".to_owned()),
            Self::NotUtf8 => Some("save the file as UTF-8".to_owned()),
            Self::HealthType(_) => Some("write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`".to_owned()),
            Self::Duration(_) => Some("write a number and a unit: `300ms`, `30s`, `1m30s`".to_owned()),
            Self::NoEquals(_) => Some("quote values with blanks: `NAME=\"a value\"`".to_owned()),
            Self::Mount(error) => error.hint(),
            _ => None,
        }
    }
}

/// All errors of a file, in file order.
pub type ParseErrors = Errors<ParseError>;

impl ParseErrors {
    /// Sorts them by place.
    ///
    /// # Panics
    /// If there is none.
    pub fn new(mut errors: Vec<ParseError>) -> Self {
        errors.sort_by_key(ParseError::span);
        Self::of(errors)
    }
}

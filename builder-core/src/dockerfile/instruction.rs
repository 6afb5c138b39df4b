//! The instructions of a Dockerfile as types. Words that are expanded later are kept raw.

use std::borrow::Cow;
use std::time::Duration;

use crate::diagnostic::Span;

use super::mount::MountError;
use super::own;
use super::syntax::Node;
use super::words::split_first;
use super::{Expander, Mount, Text};

/// A piece of the text, quotes, escapes and variables as written; line continuations are already removed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Word {
    /// The text.
    pub text: Text,
    /// Where it stands. With continuation lines inside it is longer than `text`.
    pub span: Span,
}

impl Word {
    /// A word at a place.
    pub fn new(text: impl Into<Text>, span: Span) -> Self {
        Self { text: text.into(), span }
    }
}

/// A flag of an instruction, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The whole word: `--from=build`.
    pub text: Text,
    /// Where it stands.
    pub span: Span,
}

impl Flag {
    /// The name without dashes: `from`.
    pub fn name(&self) -> &str {
        let body = self.text.strip_prefix("--").unwrap_or(&self.text);
        body.split_once('=').map_or(body, |(name, _)| name)
    }

    /// What follows the first `=`, if there is one.
    pub fn value(&self) -> Option<&str> {
        self.text.split_once('=').map(|(_, value)| value)
    }
}

/// A here-document of `RUN`, `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes; the file name in `COPY` and `ADD`.
    pub name: Text,
    /// The body as it stands in the file, line ends included, delimiter line excluded.
    pub content: Text,
    /// Variables are expanded (the delimiter was not quoted).
    pub expand: bool,
    /// Leading tabs are stripped (`<<-`).
    pub chomp: bool,
    /// The file descriptor before `<<`; 0 if none was written.
    pub fd: u32,
    /// Where the `<<NAME` token stands.
    pub span: Span,
    /// Where the body stands.
    pub body: Span,
}

impl Heredoc {
    /// The body as the instruction sees it: without leading tabs for `<<-`. Not expanded.
    pub fn text(&self) -> Cow<'_, str> {
        if !self.chomp {
            return Cow::Borrowed(&self.content);
        }
        Cow::Owned(self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect())
    }
}

/// One instruction. Kept small, as a file may hold millions of them: texts are shared, what few have is behind a box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// From the name to the end of the last line, heredoc bodies included.
    pub span: Span,
    /// What it says.
    pub kind: InstructionKind,
    /// The instruction as one logical line: continuations joined, comments dropped, without bodies of heredocs. Begins
    /// with the name.
    pub original: Text,
    /// First and last line.
    lines: (u32, u32),
    parts: Option<Box<Parts>>,
}

/// What many instructions do not have.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    flags: Box<[Flag]>,
    comments: Box<[Word]>,
}

impl Instruction {
    /// The instruction of a statement.
    pub(super) fn new(node: Node, kind: InstructionKind) -> Self {
        let Node { flags, original, span, start_line, end_line, comments, .. } = node;
        let line = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let parts = (!flags.is_empty() || !comments.is_empty())
            .then(|| Box::new(Parts { flags: flags.into(), comments: comments.into() }));
        // Nothing stands before the name; blanks may stand at the end.
        Self { span, kind, original: original.trim_end(), lines: (line(start_line), line(end_line)), parts }
    }

    /// The name as written (`run`, `RUN`).
    pub fn name(&self) -> &str {
        split_first(&self.original).0
    }

    /// The flags as written, in order.
    pub fn flags(&self) -> &[Flag] {
        self.parts.as_ref().map_or(&[], |parts| &parts.flags)
    }

    /// The comment lines above, without `#` and the blanks around; those above an empty comment do not count.
    pub fn comments(&self) -> &[Word] {
        self.parts.as_ref().map_or(&[], |parts| &parts.comments)
    }

    /// First line, from 1.
    pub fn start_line(&self) -> usize {
        self.lines.0 as usize
    }

    /// Last line, from 1.
    pub fn end_line(&self) -> usize {
        self.lines.1 as usize
    }

    /// Where the name stands.
    pub fn name_span(&self) -> Span {
        Span::new(self.span.start, (self.span.start + self.name().len()).min(self.span.end))
    }

    /// How long the result of a `RUN` counts, as a comment above it says: `# cache=12h`.
    pub fn time_to_live(&self) -> Option<Duration> {
        let found = own::time_to_live(self.comments()).ok().flatten();
        found.filter(|_| matches!(self.kind, InstructionKind::Run(_))).map(|(time, _)| time)
    }

    /// Whether a `RUN` is looked up by what it reads, as a comment above it says: `# cache=reads`.
    pub fn is_cached_by_reads(&self) -> bool {
        matches!(self.kind, InstructionKind::Run(_)) && own::by_reads(self.comments()).is_some()
    }

    /// Whether it begins a stage.
    pub fn is_from(&self) -> bool {
        matches!(self.kind, InstructionKind::From(_))
    }

    /// What the comments above say about `name` (a stage or an argument): the text after `name ` of the first comment
    /// line that begins so.
    pub fn description(&self, name: &str) -> Option<&str> {
        self.comments().iter().find_map(|comment| comment.text.strip_prefix(name)?.strip_prefix(' ')).map(str::trim)
    }
}

/// What an instruction says, one variant for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstructionKind {
    /// `FROM`
    From(Box<From>),
    /// `RUN`
    Run(Run),
    /// `CMD`
    Cmd(CommandLine),
    /// `LABEL`
    Label(Vec<KeyValue>),
    /// `MAINTAINER`; not expanded.
    Maintainer(Word),
    /// `EXPOSE`; each word may expand to several ports.
    Expose(Vec<Word>),
    /// `ENV`
    Env(Vec<KeyValue>),
    /// `ADD`
    Add(Box<Add>),
    /// `COPY`
    Copy(Box<Copy>),
    /// `ENTRYPOINT`; `[]` gives an empty exec form, which resets it.
    Entrypoint(CommandLine),
    /// `VOLUME`
    Volume(Vec<Word>),
    /// `USER`
    User(Word),
    /// `WORKDIR`
    Workdir(Word),
    /// `ARG`
    Arg(Vec<ArgDeclaration>),
    /// `ONBUILD`
    Onbuild {
        /// What the image config stores: the text after `ONBUILD`, heredocs included.
        text: Text,
        /// The same, parsed (and so checked).
        trigger: Box<Instruction>,
    },
    /// `STOPSIGNAL`
    Stopsignal(Word),
    /// `HEALTHCHECK`
    Healthcheck(Box<Healthcheck>),
    /// `SHELL`
    Shell(Vec<String>),
}

/// `FROM [--platform=] image [AS name]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// An image, a stage or `scratch`; expanded with global arguments.
    pub image: Word,
    /// `--platform`; expanded with global arguments.
    pub platform: Option<Word>,
    /// The name that later stages use.
    pub stage: Option<StageName>,
}

/// `AS name`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageName {
    /// In lower case, as it is compared.
    pub name: String,
    /// As written.
    pub written: Word,
    /// The keyword `AS` as written.
    pub keyword: Word,
}

/// A command: words for `execve`, or one text for the shell of the stage. Never expanded by the builder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// The JSON form.
    Exec(Vec<String>),
    /// Anything else.
    Shell(Text),
}

/// `RUN`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What runs.
    pub command: RunCommand,
    pub(super) parts: Option<Box<RunParts>>,
}

/// What a `RUN` has besides its command.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunParts {
    /// `--mount` values, raw: variables in them are expanded at [`Run::mounts`].
    pub mounts: Vec<Word>,
    /// `--network`
    pub network: Option<Network>,
    /// `--security`
    pub security: Option<Security>,
    /// `--device`
    pub devices: Vec<Device>,
    /// The heredocs as written; `command` has already taken them in.
    pub heredocs: Vec<Heredoc>,
}

/// Those of a `RUN` that is its command and nothing else.
const NO_PARTS: &RunParts =
    &RunParts { mounts: Vec::new(), network: None, security: None, devices: Vec::new(), heredocs: Vec::new() };

/// Whether a `SHELL` reads POSIX shell language: by the name of one of its words, as in `["busybox", "sh", "-c"]`.
pub(crate) fn is_posix_shell(words: &[String]) -> bool {
    let is_known = |word: &String| {
        let name = word.rsplit('/').next().unwrap_or(word);
        matches!(name, "sh" | "ash" | "bash" | "dash" | "ksh" | "mksh" | "zsh")
    };
    words.is_empty() || words.iter().any(is_known)
}

impl Run {
    /// Flags and heredocs.
    pub fn parts(&self) -> &RunParts {
        self.parts.as_deref().unwrap_or(NO_PARTS)
    }

    /// The heredoc that is the whole command (`RUN <<EOF`), if it has that form.
    pub fn lone_heredoc(&self) -> Option<&Heredoc> {
        match (&self.parts().heredocs[..], &self.command) {
            ([heredoc], RunCommand::Shell(line)) => (**line == *heredoc.text()).then_some(heredoc),
            ([heredoc], RunCommand::Script(_)) => Some(heredoc),
            _ => None,
        }
    }

    /// The mounts with their variables expanded, in order, each with the place of its flag's value.
    ///
    /// # Errors
    /// The first mount that can't be expanded or is not a mount, with its place.
    pub fn mounts(
        &self,
        expander: &Expander,
        lookup: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<(Mount, Span)>, (MountError, Span)> {
        self.parts()
            .mounts
            .iter()
            .map(|word| match Mount::expand(&word.text, expander, lookup) {
                Ok(mount) => Ok((mount, word.span)),
                Err(error) => Err((error, word.span)),
            })
            .collect()
    }
}

/// What a `RUN` runs, heredocs taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunCommand {
    /// The JSON form: run as it is.
    Exec(Vec<String>),
    /// One argument for the shell of the stage. A lone heredoc is its body; heredocs with a command are reassembled
    /// with their bodies for the shell to read.
    Shell(Text),
    /// A lone heredoc that begins with `#!`: the body is a read-only file `/dev/pipes/NAME` of mode 0755, and that
    /// path is the one argument of the shell.
    Script(Box<Script>),
}

/// A file that a `RUN` executes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// The file name.
    pub name: Text,
    /// The whole file.
    pub body: Text,
}

/// `RUN --network`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// What the build says.
    Default,
    /// Loopback only.
    None,
    /// The network of the host; needs an entitlement.
    Host,
}

/// `RUN --security`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// The normal sandbox.
    Sandbox,
    /// All capabilities, no filters; needs an entitlement.
    Insecure,
}

/// `RUN --device=name[,required]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The CDI name (`vendor.com/class=name`) or class; raw, expanded later.
    pub name: Word,
    /// Missing is an error.
    pub required: bool,
}

/// `KEY=VALUE` of `ENV` and `LABEL`; both sides are expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Left side.
    pub key: Word,
    /// Right side.
    pub value: Word,
    /// Written without `=`: `ENV KEY rest of the line`.
    pub legacy: bool,
}

/// `ARG NAME[=DEFAULT]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// The name; expanded like a word.
    pub name: Word,
    /// The default; expanded.
    pub default: Option<Word>,
}

/// One source of `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, pattern or, in `ADD`, a URL.
    Path(Word),
    /// An inline file.
    Heredoc(Box<Heredoc>),
}

/// `COPY`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// At least one, in written order.
    pub sources: Vec<CopySource>,
    /// The last word.
    pub destination: Word,
    /// `--from`: stage, index, image or named context. Not expanded: the parser refuses variables in it.
    pub from: Option<Word>,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, each
    pub exclude: Vec<Word>,
}

/// `ADD`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Add {
    /// At least one, in written order.
    pub sources: Vec<CopySource>,
    /// The last word.
    pub destination: Word,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--exclude`, each
    pub exclude: Vec<Word>,
    /// `--keep-git-dir`, if given
    pub keep_git_dir: Option<bool>,
    /// `--checksum`
    pub checksum: Option<Word>,
    /// `--unpack`, if given
    pub unpack: Option<bool>,
}

/// `HEALTHCHECK`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`: switches off what the base has.
    None,
    /// `CMD …`
    Command(Probe),
}

/// The check of a `HEALTHCHECK CMD`. Unset times are inherited (the config stores 0).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What runs. The exec form is stored as `CMD`, the shell form as `CMD-SHELL`.
    pub command: CommandLine,
    /// `--interval`
    pub interval: Option<Duration>,
    /// `--timeout`
    pub timeout: Option<Duration>,
    /// `--start-period`
    pub start_period: Option<Duration>,
    /// `--start-interval`
    pub start_interval: Option<Duration>,
    /// `--retries`
    pub retries: Option<u32>,
}

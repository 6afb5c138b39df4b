//! From statements to typed instructions: which words, flags and forms each instruction takes.

use std::borrow::Cow;

use super::duration;
use super::flags::Flags;
use super::heredoc;
use super::mount::{self, Mount};
use super::own;
use super::syntax::{Args, Keyword, Node};
use super::{
    Add, ArgDeclaration, CommandLine, Copy, CopySource, Device, From, Healthcheck, Heredoc, Instruction,
    InstructionKind, KeyValue, Network, ParseError, Probe, Problem, Run, RunCommand, RunParts, Script, Security,
    StageName, Text, Word, parse_signal, words,
};
use crate::diagnostic::{Source, Span};

/// Turns one statement into an instruction. `None` if it is not one; then at least one error was added.
pub(super) fn instruction(mut node: Node, source: &Source, errors: &mut Vec<ParseError>) -> Option<Instruction> {
    let before = errors.len();
    let kind = match node.keyword {
        Some(Keyword::Onbuild) => onbuild(&mut node, source, errors),
        Some(keyword) => Parser { source, node: &mut node, errors }.kind(keyword),
        None => {
            let problem = Problem::UnknownInstruction(clip(&node.name.text));
            errors.push(ParseError::new(source, node.name.span, problem));
            None
        }
    };
    check_time_to_live(&node, source, errors);
    if errors.len() > before {
        return None;
    }
    Some(Instruction::new(node, kind?))
}

/// A comment that says how long a result counts has to say it right, and of a command; so has one that it is looked up by what
/// it reads.
fn check_time_to_live(node: &Node, source: &Source, errors: &mut Vec<ParseError>) {
    let is_run = node.keyword == Some(Keyword::Run);
    let (problem, span) = match own::time_to_live(&node.comments) {
        Ok(Some((_, span))) if !is_run => (Problem::TimeToLiveElsewhere(clip(&node.name.text)), span),
        Err(wrong) if is_run => wrong,
        _ => match own::by_reads(&node.comments).filter(|_| !is_run) {
            Some(span) => (Problem::CacheReadsElsewhere(clip(&node.name.text)), span),
            None => return,
        },
    };
    errors.push(ParseError::new(source, span, problem));
}

struct Parser<'a> {
    source: &'a Source,
    node: &'a mut Node,
    errors: &'a mut Vec<ParseError>,
}

impl Parser<'_> {
    fn kind(mut self, keyword: Keyword) -> Option<InstructionKind> {
        Some(match keyword {
            Keyword::From => InstructionKind::From(Box::new(self.from()?)),
            Keyword::Run => InstructionKind::Run(self.run()?),
            Keyword::Cmd => InstructionKind::Cmd(self.command()),
            Keyword::Entrypoint => InstructionKind::Entrypoint(self.command()),
            Keyword::Label => InstructionKind::Label(self.pairs("LABEL")?),
            Keyword::Env => InstructionKind::Env(self.pairs("ENV")?),
            Keyword::Arg => InstructionKind::Arg(self.arg()?),
            Keyword::Copy => InstructionKind::Copy(Box::new(self.copy()?)),
            Keyword::Add => InstructionKind::Add(Box::new(self.add()?)),
            Keyword::Maintainer => InstructionKind::Maintainer(self.one("MAINTAINER")?),
            Keyword::User => InstructionKind::User(self.one("USER")?),
            Keyword::Workdir => InstructionKind::Workdir(self.one("WORKDIR")?),
            Keyword::Stopsignal => InstructionKind::Stopsignal(self.stopsignal()?),
            Keyword::Expose => InstructionKind::Expose(self.expose()?),
            Keyword::Volume => InstructionKind::Volume(self.volume()?),
            Keyword::Shell => InstructionKind::Shell(self.shell()?),
            Keyword::Healthcheck => InstructionKind::Healthcheck(Box::new(self.healthcheck()?)),
            Keyword::Onbuild => return None,
        })
    }

    fn fail<T>(&mut self, problem: Problem, span: Span) -> Option<T> {
        self.errors.push(ParseError::new(self.source, span, problem));
        None
    }

    /// An error that has no better place than the instruction's name and words.
    fn fail_whole<T>(&mut self, problem: Problem) -> Option<T> {
        let words = self.words();
        let end = words.last().map_or(self.node.name.span, |word| word.span);
        let start = words.first().map_or(self.node.name.span, |word| word.span);
        self.fail(problem, start.to(end))
    }

    fn flags(&mut self, known: &'static [&'static str], many: &[&str]) -> Flags<'_> {
        Flags::new(self.source, &self.node.flags, known, many, self.errors)
    }

    fn no_flags(&mut self) {
        self.flags(&[], &[]);
    }

    /// The words, in either form.
    fn words(&self) -> &[Word] {
        match &self.node.args {
            Args::Words(words) | Args::Json(words) => words,
            Args::Pairs(_) | Args::Health { .. } | Args::Child(_) => &[],
        }
    }

    /// The words, in either form, moved out.
    fn take_words(&mut self) -> Vec<Word> {
        match &mut self.node.args {
            Args::Words(words) | Args::Json(words) => std::mem::take(words),
            Args::Pairs(_) | Args::Health { .. } | Args::Child(_) => Vec::new(),
        }
    }

    fn one(&mut self, name: &'static str) -> Option<Word> {
        self.no_flags();
        match self.words().len() {
            1 => self.take_words().pop(),
            _ => self.fail_whole(Problem::ExactlyOne(name)),
        }
    }

    fn command(&mut self) -> CommandLine {
        self.no_flags();
        self.command_line()
    }

    fn command_line(&mut self) -> CommandLine {
        let is_json = self.node.is_json();
        let mut words = self.take_words().into_iter().map(|word| word.text);
        if is_json {
            CommandLine::Exec(words.map(String::from).collect())
        } else {
            CommandLine::Shell(words.next().unwrap_or_default())
        }
    }

    fn pairs(&mut self, name: &'static str) -> Option<Vec<KeyValue>> {
        self.no_flags();
        let Args::Pairs(pairs) = &mut self.node.args else { return None };
        let pairs = std::mem::take(pairs);
        if pairs.is_empty() {
            return self.fail_whole(Problem::AtLeastOne(name));
        }
        if let Some(blank) = pairs.iter().find(|pair| pair.key.text.is_empty()) {
            return self.fail(Problem::BlankName(name), blank.key.span.to(blank.value.span));
        }
        Some(pairs)
    }

    fn arg(&mut self) -> Option<Vec<ArgDeclaration>> {
        self.no_flags();
        if self.words().is_empty() {
            return self.fail_whole(Problem::AtLeastOne("ARG"));
        }
        let declare = |word: &Word| match words::split_pair(word) {
            Some((name, default)) => ArgDeclaration { name, default: Some(default) },
            None => ArgDeclaration { name: word.clone(), default: None },
        };
        let args: Vec<_> = self.words().iter().map(declare).collect();
        match args.iter().find(|arg| arg.name.text.is_empty()) {
            Some(blank) => self.fail(Problem::BlankName("ARG"), blank.name.span),
            None => Some(args),
        }
    }

    fn from(&mut self) -> Option<From> {
        let platform = self.flags(&["platform"], &[]).text("platform");
        let (image, stage) = match self.words() {
            [_] => (self.take_words().pop()?, None),
            [_, keyword, _] if keyword.text.eq_ignore_ascii_case("as") => {
                let [image, keyword, name] = <[Word; 3]>::try_from(self.take_words()).ok()?;
                (image, Some((keyword, name)))
            }
            _ => return self.fail_whole(Problem::FromArguments),
        };
        let stage = match stage {
            None => None,
            Some((keyword, written)) => {
                let name = written.text.to_lowercase();
                let valid = |ch: char| ch.is_ascii_lowercase() || ch.is_ascii_digit() || "-_.".contains(ch);
                if !name.starts_with(|ch: char| ch.is_ascii_lowercase()) || !name.chars().all(valid) {
                    return self.fail(Problem::StageName(clip(&written.text)), written.span);
                }
                Some(StageName { name, written, keyword })
            }
        };
        Some(From { image, platform, stage })
    }

    fn run(&mut self) -> Option<Run> {
        let mut flags = self.flags(&["mount", "network", "security", "device"], &["mount", "device"]);
        let mounts = flags.texts("mount");
        let network =
            flags.choice("network", &["default", "none", "host"], &[Network::Default, Network::None, Network::Host]);
        let security = flags.choice("security", &["sandbox", "insecure"], &[Security::Sandbox, Security::Insecure]);
        let devices = flags.texts("device");
        for mount in &mounts {
            if let Err(error) = Mount::check(&mount.text) {
                self.fail::<()>(Problem::Mount(error), mount.span);
            }
        }
        let devices = devices.iter().filter_map(|word| self.device(word)).collect();
        let command = self.run_command()?;
        let heredocs = std::mem::take(&mut self.node.heredocs);
        let parts = RunParts { mounts, network, security, devices, heredocs };
        Some(Run { command, parts: (parts != RunParts::default()).then(|| Box::new(parts)) })
    }

    fn device(&mut self, word: &Word) -> Option<Device> {
        match mount::parse_device(word) {
            Ok(device) => Some(device),
            Err(reason) => self.fail(Problem::Device { value: word.text.to_string(), reason }, word.span),
        }
    }

    fn run_command(&mut self) -> Option<RunCommand> {
        if self.node.is_json() && self.words().is_empty() {
            return self.fail_whole(Problem::AtLeastOne("RUN"));
        }
        let text = match self.command_line() {
            CommandLine::Exec(words) => return Some(RunCommand::Exec(words)),
            CommandLine::Shell(text) => text,
        };
        let heredocs = &self.node.heredocs;
        let Some(first) = heredocs.first() else { return Some(RunCommand::Shell(text)) };
        if heredoc::parse_token(&text).ok().flatten().is_some() {
            let body = match first.text() {
                Cow::Borrowed(_) => first.content.clone(),
                Cow::Owned(body) => Text::from(body),
            };
            return Some(if first.content.starts_with("#!") {
                RunCommand::Script(Box::new(Script { name: first.name.clone(), body }))
            } else {
                RunCommand::Shell(body)
            });
        }
        Some(RunCommand::Shell(with_bodies(&text, heredocs).into()))
    }

    fn copy(&mut self) -> Option<Copy> {
        let mut flags = self.flags(&["from", "chown", "chmod", "link", "parents", "exclude"], &["exclude"]);
        let from = flags.text("from");
        let (chown, chmod) = (flags.text("chown"), flags.text("chmod"));
        let link = flags.switch("link").unwrap_or_default();
        let parents = flags.switch("parents").unwrap_or_default();
        let exclude = flags.texts("exclude");
        if let Some(from) = &from
            && from.text.find('$').is_some_and(|at| at + 1 < from.text.len())
        {
            self.fail::<()>(Problem::FromVariable, from.span);
        }
        let (sources, destination) = self.sources("COPY")?;
        Some(Copy { sources, destination, from, chown, chmod, link, parents, exclude })
    }

    fn add(&mut self) -> Option<Add> {
        let mut flags =
            self.flags(&["chown", "chmod", "link", "exclude", "keep-git-dir", "checksum", "unpack"], &["exclude"]);
        let (chown, chmod) = (flags.text("chown"), flags.text("chmod"));
        let link = flags.switch("link").unwrap_or_default();
        let exclude = flags.texts("exclude");
        let keep_git_dir = flags.switch("keep-git-dir");
        let checksum = flags.text("checksum");
        let unpack = flags.switch("unpack");
        let (sources, destination) = self.sources("ADD")?;
        Some(Add { sources, destination, chown, chmod, link, exclude, keep_git_dir, checksum, unpack })
    }

    fn sources(&mut self, name: &'static str) -> Option<(Vec<CopySource>, Word)> {
        if self.words().len() < 2 {
            return self.fail_whole(Problem::NoDestination(name));
        }
        let mut sources = self.take_words();
        let destination = sources.pop()?;
        if heredoc::parse_token(&destination.text).ok().flatten().is_some() {
            return self.fail(Problem::HeredocDestination(name), destination.span);
        }
        let bodies = heredoc::Bodies::new(&self.node.heredocs);
        let resolve = |word: Word| match bodies.resolve(&word) {
            Some(heredoc) => CopySource::Heredoc(Box::new(heredoc)),
            None => CopySource::Path(word),
        };
        Some((sources.into_iter().map(resolve).collect(), destination))
    }

    fn stopsignal(&mut self) -> Option<Word> {
        let signal = self.one("STOPSIGNAL")?;
        if is_literal(&signal.text) && parse_signal(&signal.text).is_none() {
            return self.fail(Problem::Signal(signal.text.into()), signal.span);
        }
        Some(signal)
    }

    fn expose(&mut self) -> Option<Vec<Word>> {
        self.no_flags();
        if self.words().is_empty() {
            return self.fail_whole(Problem::AtLeastOne("EXPOSE"));
        }
        let ports = self.take_words();
        for port in ports.iter().filter(|port| is_literal(&port.text)) {
            if let Err(error) = super::port::parse_range(&port.text) {
                self.fail::<()>(Problem::Port(error), port.span);
            }
        }
        Some(ports)
    }

    fn volume(&mut self) -> Option<Vec<Word>> {
        self.no_flags();
        if self.words().is_empty() {
            return self.fail_whole(Problem::AtLeastOne("VOLUME"));
        }
        let trim = |word: Word| Word::new(word.text.part(word.text.trim()), word.span);
        let paths: Vec<_> = self.take_words().into_iter().map(trim).collect();
        match paths.iter().find(|path| path.text.is_empty()) {
            Some(empty) => self.fail(Problem::EmptyVolume, empty.span),
            None => Some(paths),
        }
    }

    fn shell(&mut self) -> Option<Vec<String>> {
        self.no_flags();
        if self.words().is_empty() {
            return self.fail_whole(Problem::AtLeastOne("SHELL"));
        }
        if !self.node.is_json() {
            return self.fail_whole(Problem::ShellNotJson);
        }
        Some(self.take_words().into_iter().map(|word| word.text.into()).collect())
    }

    fn healthcheck(&mut self) -> Option<Healthcheck> {
        let mut flags = self.flags(&["interval", "timeout", "start-period", "start-interval", "retries"], &[]);
        let times = ["interval", "timeout", "start-period", "start-interval"].map(|name| flags.text(name));
        let retries = flags.text("retries");
        let args = std::mem::replace(&mut self.node.args, Args::Words(Vec::new()));
        let Args::Health { kind, command, json } = args else {
            return self.fail_whole(Problem::AtLeastOne("HEALTHCHECK"));
        };
        match kind.text.to_ascii_uppercase().as_str() {
            "NONE" => match command {
                Some(command) if json.is_none_or(|words| !words.is_empty()) => {
                    self.fail(Problem::HealthNone, command.span)
                }
                _ => Some(Healthcheck::None),
            },
            "CMD" => {
                // With `NONE` nobody looks at them.
                let [interval, timeout, start_period, start_interval] = times.map(|word| self.duration(&word?));
                let retries = retries.and_then(|word| self.retries(&word));
                let command = match (json, command) {
                    (Some(words), _) if !words.is_empty() => {
                        CommandLine::Exec(words.into_iter().map(|word| word.text.into()).collect())
                    }
                    (None, Some(command)) => CommandLine::Shell(command.text),
                    _ => return self.fail(Problem::HealthCommand, kind.span),
                };
                Some(Healthcheck::Command(Probe { command, interval, timeout, start_period, start_interval, retries }))
            }
            _ => self.fail(Problem::HealthType(kind.text.into()), kind.span),
        }
    }

    /// A time of at least 1 ms; 0 is the same as none.
    fn duration(&mut self, word: &Word) -> Option<std::time::Duration> {
        match duration::parse(&word.text) {
            None => self.fail(Problem::Duration(word.text.to_string()), word.span),
            Some(Ok(time)) if time.is_zero() => None,
            Some(Ok(time)) if time.as_millis() > 0 => Some(time),
            Some(_) => self.fail(Problem::ShortDuration(word.text.to_string()), word.span),
        }
    }

    fn retries(&mut self, word: &Word) -> Option<u32> {
        match word.text.parse::<i32>().map(u32::try_from) {
            Ok(Ok(retries)) => Some(retries),
            Ok(Err(_)) => {
                let number = word.text.parse().unwrap_or_default();
                self.fail(Problem::NegativeRetries(number), word.span)
            }
            Err(_) => self.fail(Problem::Retries(word.text.to_string()), word.span),
        }
    }
}

/// `ONBUILD`: the text for the image config, and the same parsed.
fn onbuild(node: &mut Node, source: &Source, errors: &mut Vec<ParseError>) -> Option<InstructionKind> {
    let args = std::mem::replace(&mut node.args, Args::Words(Vec::new()));
    let mut parser = Parser { source, node, errors };
    parser.no_flags();
    let Args::Child(mut child) = args else {
        return parser.fail_whole(Problem::AtLeastOne("ONBUILD"));
    };
    check_trigger(&child, source, errors)?;
    let text = with_bodies(child_text(node), &node.heredocs).into();
    child.heredocs.clone_from(&node.heredocs);
    let trigger = instruction(*child, source, errors)?;
    Some(InstructionKind::Onbuild { text, trigger: Box::new(trigger) })
}

/// Refuses the instructions that may not be a trigger.
pub(super) fn check_trigger(node: &Node, source: &Source, errors: &mut Vec<ParseError>) -> Option<()> {
    let problem = match node.keyword {
        Some(Keyword::Onbuild) => Problem::OnbuildChain,
        Some(Keyword::From) => Problem::OnbuildForbidden("FROM".to_owned()),
        Some(Keyword::Maintainer) => Problem::OnbuildForbidden("MAINTAINER".to_owned()),
        _ => return Some(()),
    };
    errors.push(ParseError::new(source, node.name.span, problem));
    None
}

/// What follows the word ONBUILD, blanks at the end included: the image config stores it so.
fn child_text(node: &Node) -> &str {
    node.original.get(node.name.text.len()..).unwrap_or_default().trim_start()
}

/// A command with the bodies of its heredocs behind it, as the shell reads them.
fn with_bodies(text: &str, heredocs: &[Heredoc]) -> String {
    let mut text = text.to_owned();
    for heredoc in heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    text
}

/// The beginning of a word that is shown in a message.
fn clip(word: &str) -> String {
    match word.char_indices().nth(64) {
        Some((at, _)) => format!("{}…", &word[..at]),
        None => word.to_owned(),
    }
}

/// Whether a word is its own expansion.
fn is_literal(text: &str) -> bool {
    !text.contains(['$', '\\', '`', '\'', '"'])
}

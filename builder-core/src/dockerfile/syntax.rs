//! The syntax tree: statements as flags, words and heredocs, before anything is said about their meaning.
//!
//! This is what BuildKit calls the parser: it accepts instructions that it does not know and any number of words.

use std::borrow::Cow;

use super::directive::{self, bom_length};
use super::heredoc;
use super::lines::{Joined, Joining, Line, Lines, continued};
use super::lint::{LintWarning, Rule};
use super::own;
use super::words::{self, Json, Piece};
use super::{Directives, Flag, Heredoc, KeyValue, ParseError, Problem, Text, Word};
use crate::diagnostic::{Source, Span};

/// Largest Dockerfile, in bytes.
pub const MAX_SIZE: usize = 16 << 20;

/// Deepest nesting of `ONBUILD` that the tree shows; none but the first is allowed anyway.
const MAX_ONBUILD: usize = 8;

/// Errors after which reading stops.
pub(super) const MAX_ERRORS: usize = 100;

macro_rules! keywords {
    ($($name:ident $text:literal)*) => {
        /// The name of an instruction.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Keyword { $($name),* }

        impl Keyword {
            /// All names in upper case.
            pub(super) const NAMES: &[&str] = &[$($text),*];

            /// Finds a name, in any case.
            pub(super) fn find(name: &str) -> Option<Self> {
                $(if name.eq_ignore_ascii_case($text) { return Some(Self::$name); })*
                // A letter outside ASCII may have its lower case there: the Kelvin sign.
                let lower = if name.is_ascii() { None } else { Some(lower_case(name)) };
                lower.filter(|lower| lower.is_ascii()).and_then(|lower| Self::find(&lower))
            }
        }
    };
}

keywords! {
    Run "RUN" Copy "COPY" Env "ENV" From "FROM" Arg "ARG" Label "LABEL" Add "ADD" Cmd "CMD" Entrypoint "ENTRYPOINT"
    Expose "EXPOSE" Healthcheck "HEALTHCHECK" Maintainer "MAINTAINER" Onbuild "ONBUILD" Shell "SHELL"
    Stopsignal "STOPSIGNAL" User "USER" Volume "VOLUME" Workdir "WORKDIR"
}

/// What a file says besides its statements.
pub(super) struct Syntax {
    pub(super) directives: Directives,
    pub(super) warnings: Vec<LintWarning>,
    pub(super) errors: Vec<ParseError>,
}

/// A statement.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: Word,
    pub(super) keyword: Option<Keyword>,
    pub(super) flags: Vec<Flag>,
    pub(super) args: Args,
    pub(super) heredocs: Vec<Heredoc>,
    /// The logical line; blanks at its end are still there.
    pub(super) original: Text,
    pub(super) span: Span,
    pub(super) start_line: usize,
    pub(super) end_line: usize,
    pub(super) comments: Vec<Word>,
}

/// What follows the flags.
#[derive(Debug)]
pub(super) enum Args {
    /// Words, or the whole rest as one word, as the instruction has it.
    Words(Vec<Word>),
    /// The JSON form.
    Json(Vec<Word>),
    /// `ENV` and `LABEL`.
    Pairs(Vec<KeyValue>),
    /// `HEALTHCHECK`: its first word, and the rest.
    Health { kind: Word, command: Option<Word>, json: Option<Vec<Word>> },
    /// `ONBUILD`
    Child(Box<Node>),
}

/// Reads a file, and gives each statement to `sink` in order.
pub(super) fn read(source: &Source, sink: &mut dyn FnMut(Node)) -> Syntax {
    let mut reader = Reader {
        source,
        escape: '\\',
        bad: Vec::new(),
        sink,
        is_empty: true,
        warnings: Vec::new(),
        errors: Vec::new(),
    };
    let bytes = source.text();
    if bytes.len() > MAX_SIZE {
        reader.error(Problem::TooLarge, Span::new(0, 0));
        return reader.finish(Directives::default());
    }
    let text = Text::from(reader.decode(bytes).into_owned());
    let start = bom_length(bytes);
    let block = directive::read(&text, start);
    reader.escape = block.directives.escape;
    let own = own::read(&text, block.end);
    for (problem, span) in block.errors.into_iter().chain(own.errors) {
        reader.error(problem, span);
    }
    reader.statements(&text, start, block.end);
    if reader.is_empty && reader.errors.is_empty() {
        reader.error(Problem::NoInstructions, Span::new(0, 0));
    }
    reader.finish(Directives { heredoc_errexit: own.heredoc_errexit, ..block.directives })
}

struct Reader<'a> {
    source: &'a Source,
    sink: &'a mut dyn FnMut(Node),
    /// No statement was read yet.
    is_empty: bool,
    escape: char,
    /// Offsets of bytes that are not UTF-8, or NUL. They may stand in comments only.
    bad: Vec<usize>,
    warnings: Vec<LintWarning>,
    errors: Vec<ParseError>,
}

impl Reader<'_> {
    fn error(&mut self, problem: Problem, span: Span) {
        self.errors.push(ParseError::new(self.source, span, problem));
    }

    fn finish(self, directives: Directives) -> Syntax {
        Syntax { directives, warnings: self.warnings, errors: self.errors }
    }

    /// The text with each byte that is no text replaced by a `?`, so that offsets stay.
    fn decode<'t>(&mut self, bytes: &'t [u8]) -> Cow<'t, str> {
        let text = if let Ok(text) = std::str::from_utf8(bytes) {
            Cow::Borrowed(text)
        } else {
            let mut text = String::with_capacity(bytes.len());
            for chunk in bytes.utf8_chunks() {
                text.push_str(chunk.valid());
                for _ in chunk.invalid() {
                    self.bad.push(text.len());
                    text.push('?');
                }
            }
            Cow::Owned(text)
        };
        if bytes.contains(&0) {
            self.bad.extend(bytes.iter().enumerate().filter(|(_, byte)| **byte == 0).map(|(at, _)| at));
            self.bad.sort_unstable();
        }
        text
    }

    /// Reports the first byte in a range that is no text.
    fn check_bytes(&mut self, start: usize, end: usize) {
        let index = self.bad.partition_point(|at| *at < start);
        if let Some(at) = self.bad.get(index).copied().filter(|at| *at < end) {
            let problem = if self.source.text()[at] == 0 { Problem::Nul } else { Problem::NotUtf8 };
            self.error(problem, Span::new(at, at + 1));
        }
    }

    fn statements(&mut self, text: &Text, start: usize, directives_end: usize) {
        let mut lines = Lines::new(text, start);
        let mut comments = Vec::new();
        while let Some(line) = lines.next() {
            if self.errors.len() >= MAX_ERRORS {
                return;
            }
            let body = line.text.trim_start();
            if body.is_empty() {
                continue;
            }
            if body.starts_with('#') {
                if line.start >= directives_end {
                    collect_comment(&line, text, &mut comments);
                }
                continue;
            }
            self.statement(text, &mut lines, &line, std::mem::take(&mut comments));
        }
    }

    /// One statement: its logical line, then the heredocs that it opens.
    fn statement<'t>(&mut self, file: &Text, lines: &mut Lines<'t>, first: &Line<'t>, comments: Vec<Word>) {
        let start_line = lines.number();
        let body = first.text.trim_start();
        let start = first.end() - body.len();
        let (joined, mut end) = self.join(lines, body, start);
        let joined = joined.end(file);
        let mut node = match self.node(&joined, 0, joined.text().len(), 0) {
            Ok(node) => node,
            Err((problem, span)) => {
                self.error(problem, span);
                return;
            }
        };
        if node.takes_heredocs() && joined.text().as_bytes().windows(2).any(|pair| pair == b"<<") {
            match heredoc::tokens(&joined) {
                Ok(tokens) => {
                    for (token, span) in tokens {
                        let Some((heredoc, body_end)) = self.body(file, lines, token, span, first.start) else {
                            return;
                        };
                        node.heredocs.push(heredoc);
                        end = body_end;
                    }
                }
                Err(error) => self.error(Problem::Heredoc(error), node.span),
            }
        }
        node.original = joined.text().clone();
        node.span = Span::new(start, end);
        node.comments = comments;
        node.set_lines(start_line, lines.number());
        self.is_empty = false;
        (self.sink)(node);
    }

    /// Joins continuation lines; returns also where the last line ends.
    fn join<'t>(&mut self, lines: &mut Lines<'t>, body: &'t str, start: usize) -> (Joining<'t>, usize) {
        let mut end = start + body.len();
        self.check_bytes(start, end);
        let Some(before) = continued(body, self.escape) else { return (Joining::new(body, start), end) };
        let mut joined = Joining::new(before, start);
        let mut empty_line = None;
        for line in lines.by_ref() {
            if line.is_comment() {
                continue;
            }
            if line.text.trim_start().is_empty() {
                empty_line = Some(line.start);
                continue;
            }
            end = line.end();
            self.check_bytes(line.start, end);
            let Some(before) = continued(line.text, self.escape) else {
                joined.push(line.text, line.start);
                break;
            };
            joined.push(before, line.start);
        }
        if let Some(at) = empty_line {
            self.warnings.push(LintWarning {
                rule: Rule::NoEmptyContinuation,
                span: Span::new(at, at),
                line: lines.number(),
                last_line: lines.number(),
                detail: "Empty continuation line".to_owned(),
                fix: None,
            });
        }
        (joined, end)
    }

    /// Reads the body of a heredoc up to its delimiter; returns also where the delimiter's line ends.
    fn body(
        &mut self,
        file: &Text,
        lines: &mut Lines<'_>,
        token: heredoc::Token,
        span: Span,
        statement: usize,
    ) -> Option<(Heredoc, usize)> {
        let mut start = None;
        for line in lines.by_ref() {
            let start = *start.get_or_insert(line.start);
            let possible = if token.chomp { line.text.trim_start_matches('\t') } else { line.text };
            if possible == token.name {
                self.check_bytes(start, line.start);
                let content = file.part(&file[start..line.start]);
                return Some((token.with_body(content, span, Span::new(start, line.start)), line.end()));
            }
        }
        let span = if span.end > span.start { span } else { Span::new(statement, statement) };
        self.error(Problem::UnterminatedHeredoc(token.name), span);
        None
    }

    /// The statement in a range of a logical line.
    fn node(&self, joined: &Joined, start: usize, end: usize, depth: usize) -> Result<Node, (Problem, Span)> {
        let line = &joined.text()[start..end];
        let trimmed = line.trim();
        let start = start + line.len() - line.trim_start().len();
        let (name, rest) = words::split_first(trimmed);
        let keyword = Keyword::find(name);
        let name = Word::new(joined.text().part(name), joined.span(start, start + name.len()));
        let rest = rest.unwrap_or_default();
        let rest_at = start + trimmed.len() - rest.len();
        let (flags, consumed) = words::flags(rest, self.escape, rest_at);
        let flags = flags.into_iter().map(|piece| flag(piece, joined)).collect();
        let tail = rest[consumed..].trim();
        let tail_at = start + trimmed.len() - rest[consumed..].trim_start().len();
        let args = self.args(keyword, tail, tail_at, joined, &name, depth)?;
        Ok(Node {
            keyword,
            flags,
            args,
            heredocs: Vec::new(),
            original: if depth > 0 { joined.text().part(line) } else { Text::default() },
            span: joined.span(start, start + trimmed.len()),
            start_line: 0,
            end_line: 0,
            comments: Vec::new(),
            name,
        })
    }

    fn args(
        &self,
        keyword: Option<Keyword>,
        text: &str,
        at: usize,
        joined: &Joined,
        name: &Word,
        depth: usize,
    ) -> Result<Args, (Problem, Span)> {
        let part = |part: &str| joined.text().part(part);
        let whole = || Word::new(part(text), joined.span(at, at + text.len()));
        let convert = |pieces: Vec<Piece<'_>>| pieces.into_iter().map(|piece| word(piece, joined)).collect::<Vec<_>>();
        let json = |json: Json<'_>| match json {
            Json::Strings(pieces) => Ok(Some(convert(pieces))),
            Json::OtherArray => Err((Problem::JsonNotStrings, joined.span(at, at + text.len()))),
            Json::None => Ok(None),
        };
        let one = || Args::Words(if text.is_empty() { Vec::new() } else { vec![whole()] });
        Ok(match keyword {
            None => Args::Words(vec![Word::new(Text::default(), name.span)]),
            Some(Keyword::From | Keyword::Expose) => Args::Words(convert(words::split_blanks(text, at))),
            Some(Keyword::Add | Keyword::Copy | Keyword::Volume) => match json(words::json(text, at))? {
                Some(words) => Args::Json(words),
                None => Args::Words(convert(words::split_blanks(text, at))),
            },
            Some(Keyword::Cmd | Keyword::Entrypoint | Keyword::Run | Keyword::Shell) => {
                json(words::json(text, at))?.map_or_else(one, Args::Json)
            }
            Some(Keyword::Maintainer | Keyword::Stopsignal | Keyword::User | Keyword::Workdir) => one(),
            Some(Keyword::Arg) => Args::Words(convert(words::quoted_words(text, self.escape, at))),
            Some(Keyword::Env | Keyword::Label) => Args::Pairs(self.pairs(text, at, joined, name)?),
            Some(Keyword::Healthcheck) => {
                // BuildKit looks at bytes here: a blank outside ASCII separates nothing.
                let blank = |ch: char| ch.is_ascii_whitespace() || ch == '\u{b}';
                let length = text.find(blank).unwrap_or(text.len());
                if length == 0 {
                    return Ok(Args::Words(Vec::new()));
                }
                let rest = text[length..].trim_start_matches(blank);
                let rest_at = at + text.len() - rest.len();
                let command = Word::new(part(rest), joined.span(rest_at, rest_at + rest.len()));
                Args::Health {
                    kind: Word::new(part(&text[..length]), joined.span(at, at + length)),
                    json: json(words::json(rest, rest_at))?,
                    command: (!rest.is_empty()).then_some(command),
                }
            }
            Some(Keyword::Onbuild) if text.is_empty() => Args::Words(Vec::new()),
            Some(Keyword::Onbuild) if depth == MAX_ONBUILD => return Err((Problem::OnbuildChain, name.span)),
            Some(Keyword::Onbuild) => Args::Child(Box::new(self.node(joined, at, at + text.len(), depth + 1)?)),
        })
    }

    /// `KEY=VALUE …`, or the old form `KEY rest of the line` where the first word has no `=`.
    fn pairs(&self, text: &str, at: usize, joined: &Joined, name: &Word) -> Result<Vec<KeyValue>, (Problem, Span)> {
        let pieces = words::quoted_words(text, self.escape, at);
        if pieces.first().is_some_and(|first| !first.text.contains('=')) {
            let (key, rest) = words::split_first(text);
            let Some(rest) = rest else {
                return Err((Problem::OnlyKey(name.text.to_uppercase()), joined.span(at, at + text.len())));
            };
            let rest_at = at + text.len() - rest.len();
            return Ok(vec![KeyValue {
                key: Word::new(joined.text().part(key), joined.span(at, at + key.len())),
                value: Word::new(joined.text().part(rest), joined.span(rest_at, at + text.len())),
                legacy: true,
            }]);
        }
        let pair = |piece| {
            let word = word(piece, joined);
            let (key, value) = words::split_pair(&word).ok_or((Problem::NoEquals(word.text.into()), word.span))?;
            Ok(KeyValue { key, value, legacy: false })
        };
        pieces.into_iter().map(pair).collect()
    }
}

impl Node {
    /// Whether `<<` in it opens a heredoc.
    fn takes_heredocs(&self) -> bool {
        let node = if let Args::Child(child) = &self.args { child } else { self };
        matches!(node.keyword, Some(Keyword::Add | Keyword::Copy | Keyword::Run)) && !node.is_json()
    }

    /// Whether it has the JSON form.
    pub(super) fn is_json(&self) -> bool {
        matches!(self.args, Args::Json(_) | Args::Health { json: Some(_), .. })
    }

    fn set_lines(&mut self, start: usize, end: usize) {
        (self.start_line, self.end_line) = (start, end);
        if let Args::Child(child) = &mut self.args {
            child.set_lines(start, end);
        }
    }
}

/// A text in lower case as Go has it, which knows no letters that become two.
pub(super) fn lower_case(text: &str) -> String {
    text.chars().filter_map(|ch| ch.to_lowercase().next()).collect()
}

fn word(piece: Piece<'_>, joined: &Joined) -> Word {
    let text = match piece.text {
        Cow::Borrowed(text) => joined.text().part(text),
        Cow::Owned(text) => Text::from(text),
    };
    Word { text, span: joined.span(piece.start, piece.end) }
}

fn flag(piece: Piece<'_>, joined: &Joined) -> Flag {
    let Word { text, span } = word(piece, joined);
    Flag { text, span }
}

/// Keeps a comment line for the instruction below it; an empty one drops those above.
fn collect_comment(line: &Line<'_>, file: &Text, comments: &mut Vec<Word>) {
    // As in BuildKit the first character goes away, whatever it is: of an indented comment the `#` stays.
    let mut rest = line.text.chars();
    rest.next();
    let text = rest.as_str().trim();
    if text.is_empty() {
        comments.clear();
        return;
    }
    let start = line.end() - rest.as_str().trim_start().len();
    comments.push(Word::new(file.part(text), Span::new(start, start + text.len())));
}

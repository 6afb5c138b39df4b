//! The text of a lock file → [`LockFile`]. Pure.

use std::ops::Range;

use super::file::{LockFile, LockFileError, TABLES, VERSION};
use super::{Pin, SourceKind, SourceName, UrlPin};
use crate::diagnostic::{Location, Source, Span};
use crate::git::Resolved;
use crate::oci::{Algorithm, Digest, Reference};

/// What is wrong, and where in the line.
type Wrong = (String, Range<usize>);

pub(super) fn parse(source: &Source) -> Result<LockFile, LockFileError> {
    let mut reader = Reader::default();
    let mut start = 0;
    let location = |range: Range<usize>| {
        let span = Span::new(range.start, range.end);
        Box::new(Location { source: source.clone(), span })
    };
    for bytes in source.text().split_inclusive(|byte| *byte == b'\n') {
        if let Err((reason, range)) = reader.line(bytes) {
            let location = location(start + range.start..start + range.end);
            return Err(match reader.newer {
                Some(found) => LockFileError::Newer { found, location },
                None => LockFileError::Damaged { reason, location },
            });
        }
        start += bytes.len();
    }
    if !reader.has_version {
        return Err(LockFileError::Damaged { reason: "the file has no version".to_owned(), location: location(0..0) });
    }
    Ok(reader.file)
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    file: LockFile,
    has_version: bool,
    /// A version that is not known.
    newer: Option<u32>,
    table: Option<SourceKind>,
}

impl Reader {
    fn line(&mut self, bytes: &[u8]) -> Result<(), Wrong> {
        let text = std::str::from_utf8(bytes).map_err(|_| ("the line is no text".to_owned(), 0..1))?;
        let line = text.trim_end();
        let mut scanner = Scanner { line, at: 0 };
        scanner.blanks();
        match scanner.peek() {
            None | Some('#') => return Ok(()),
            Some('[') => self.table = Some(title(&mut scanner)?),
            _ if ["<<<<<<<", "=======", ">>>>>>>"].iter().any(|mark| line.starts_with(mark)) => {
                let reason = "two versions of the file were merged here, and disagree";
                return Err((reason.to_owned(), 0..line.len()));
            }
            _ => {
                let begin = scanner.at;
                let key = scanner.key()?;
                let key = (key, begin..scanner.at);
                scanner.expect('=')?;
                let value = scanner.value()?;
                scanner.end()?;
                self.entry(key, value, 0..line.len())?;
            }
        }
        if !self.has_version {
            return Err(("the file does not begin with its version".to_owned(), 0..line.len()));
        }
        Ok(())
    }

    fn entry(&mut self, (key, at): (String, Range<usize>), value: Value, line: Range<usize>) -> Result<(), Wrong> {
        if let Some(kind) = self.table.filter(|_| self.has_version) {
            let name = source_name(kind, key, &at)?;
            let pin = pin(kind, value, line)?;
            return match self.file.insert(name.clone(), pin) {
                Some(_) => Err((format!("{name} is there twice"), at)),
                None => Ok(()),
            };
        }
        if self.has_version {
            return Err((format!("unknown field `{key}`"), at));
        }
        match value {
            Value::Bare(digits, at) if key == "version" => match digits.parse() {
                Ok(VERSION) => self.has_version = true,
                Ok(found) if found > VERSION => {
                    self.newer = Some(found);
                    return Err((String::new(), at));
                }
                _ => return Err((format!("`{digits}` is not a version"), at)),
            },
            _ if key == "version" => return Err(("the version is not a number".to_owned(), line)),
            _ => {}
        }
        Ok(())
    }
}

fn title(scanner: &mut Scanner<'_>) -> Result<SourceKind, Wrong> {
    let begin = scanner.at;
    scanner.expect('[')?;
    let name = scanner.key()?;
    scanner.expect(']')?;
    scanner.end()?;
    let known = TABLES.into_iter().find(|(_, table)| *table == name);
    known.map(|(kind, _)| kind).ok_or_else(|| (format!("unknown table `{name}`"), begin..scanner.line.len()))
}

fn source_name(kind: SourceKind, key: String, at: &Range<usize>) -> Result<SourceName, Wrong> {
    if kind != SourceKind::Image {
        return Ok(SourceName { kind, name: key });
    }
    let reference: Reference = key.parse().map_err(|error| (format!("{error}"), at.clone()))?;
    match reference.digest() {
        Some(_) => Err((format!("image `{key}` has a digest already"), at.clone())),
        None => Ok(SourceName::image(&reference)),
    }
}

fn pin(kind: SourceKind, value: Value, line: Range<usize>) -> Result<Pin, Wrong> {
    match (kind, value) {
        (SourceKind::Image, Value::Text(text, at)) => digest(&text, at).map(Pin::Image),
        (SourceKind::Url, Value::Table(mut fields)) => {
            let (text, at) = required(&mut fields, "digest", line)?;
            let digest = digest(&text, at.clone())?;
            if digest.algorithm() != Algorithm::Sha256 {
                return Err((format!("`{text}` is not of the algorithm sha256"), at));
            }
            let modified = take(&mut fields, "modified").map(|(text, at)| {
                let time: Result<jiff::Timestamp, _> = text.parse();
                time.map(jiff::Timestamp::as_second).map_err(|_| (format!("`{text}` is not a time"), at))
            });
            let modified = modified.transpose()?;
            nothing_else(&fields)?;
            Ok(Pin::Url(UrlPin { digest, modified }))
        }
        (SourceKind::Git, Value::Table(mut fields)) => {
            let (commit, _) = required(&mut fields, "commit", line.clone())?;
            let name = take(&mut fields, "name").map(|(name, _)| name);
            let resolved = match take(&mut fields, "tag") {
                Some((object, _)) => Resolved { object, commit: Some(commit), name },
                None => Resolved { object: commit, commit: None, name },
            };
            nothing_else(&fields)?;
            if !resolved.is_well_formed() {
                return Err(("this is not a commit with the name that led to it".to_owned(), line));
            }
            Ok(Pin::Git(resolved))
        }
        (SourceKind::Image, _) => Err(("an image has a digest, as `\"sha256:…\"`".to_owned(), line)),
        (SourceKind::Url, _) => Err(("an address has a digest, as `{ digest = \"sha256:…\" }`".to_owned(), line)),
        (SourceKind::Git, _) => Err(("a git reference has a commit, as `{ commit = \"…\" }`".to_owned(), line)),
    }
}

fn digest(text: &str, at: Range<usize>) -> Result<Digest, Wrong> {
    text.parse().map_err(|_| (format!("`{text}` is not a digest"), at))
}

type Field = (String, String, Range<usize>);

fn take(fields: &mut Vec<Field>, name: &str) -> Option<(String, Range<usize>)> {
    let at = fields.iter().position(|(field, ..)| field == name)?;
    let (_, value, range) = fields.remove(at);
    Some((value, range))
}

fn required(fields: &mut Vec<Field>, name: &str, line: Range<usize>) -> Result<(String, Range<usize>), Wrong> {
    take(fields, name).ok_or_else(|| (format!("there is no `{name}`"), line))
}

fn nothing_else(fields: &[Field]) -> Result<(), Wrong> {
    match fields.first() {
        Some((name, _, at)) => Err((format!("unknown field `{name}`"), at.clone())),
        None => Ok(()),
    }
}

/// A value, with its place in the line.
enum Value {
    Text(String, Range<usize>),
    /// A number or a time.
    Bare(String, Range<usize>),
    /// Fields, in order; a name that is there twice is found out when one of them is left over.
    Table(Vec<Field>),
}

struct Scanner<'a> {
    line: &'a str,
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<char> {
        self.line[self.at..].chars().next()
    }

    fn blanks(&mut self) {
        while let Some(' ' | '\t') = self.peek() {
            self.at += 1;
        }
    }

    fn wrong(&self, what: &str) -> Wrong {
        (format!("{what} is expected here"), self.at..self.line.len().max(self.at + 1))
    }

    fn expect(&mut self, character: char) -> Result<(), Wrong> {
        self.blanks();
        if self.peek() != Some(character) {
            return Err(self.wrong(&format!("`{character}`")));
        }
        self.at += character.len_utf8();
        self.blanks();
        Ok(())
    }

    /// Nothing but a comment follows.
    fn end(&mut self) -> Result<(), Wrong> {
        self.blanks();
        match self.peek() {
            None | Some('#') => Ok(()),
            Some(_) => Err(self.wrong("the end of the line")),
        }
    }

    fn key(&mut self) -> Result<String, Wrong> {
        match self.peek() {
            Some('"') => self.text(),
            _ => match self.bare(|character| character.is_ascii_alphanumeric() || "_-".contains(character)) {
                name if name.is_empty() => Err(self.wrong("a name")),
                name => Ok(name),
            },
        }
    }

    fn bare(&mut self, belongs: impl Fn(char) -> bool) -> String {
        let begin = self.at;
        while self.peek().is_some_and(&belongs) {
            self.at += 1;
        }
        self.line[begin..self.at].to_owned()
    }

    fn text(&mut self) -> Result<String, Wrong> {
        let begin = self.at;
        self.at += 1;
        let mut text = String::new();
        loop {
            let Some(character) = self.peek() else { return Err(("the text has no end".to_owned(), begin..self.at)) };
            self.at += character.len_utf8();
            match character {
                '"' => return Ok(text),
                '\\' => text.push(self.escaped()?),
                character => text.push(character),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, Wrong> {
        let begin = self.at;
        let wrong = |end: usize| ("this is not an escape of TOML".to_owned(), begin - 1..end);
        let Some(character) = self.peek() else { return Err(wrong(begin)) };
        self.at += character.len_utf8();
        let digits = match character {
            '"' | '\\' => return Ok(character),
            'n' => return Ok('\n'),
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'u' => 4,
            'U' => 8,
            _ => return Err(wrong(self.at)),
        };
        let hex = self.line.get(self.at..self.at + digits).ok_or_else(|| wrong(self.line.len()))?;
        self.at += digits;
        let plain = hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = u32::from_str_radix(hex, 16).ok().filter(|_| plain);
        code.and_then(char::from_u32).ok_or_else(|| wrong(self.at))
    }

    fn value(&mut self) -> Result<Value, Wrong> {
        let begin = self.at;
        match self.peek() {
            Some('"') => self.text().map(|text| Value::Text(text, begin..self.at)),
            Some('{') => self.table().map(Value::Table),
            _ => match self.bare(|character| character.is_ascii_alphanumeric() || "+-:.".contains(character)) {
                text if text.is_empty() => Err(self.wrong("a value")),
                text => Ok(Value::Bare(text, begin..self.at)),
            },
        }
    }

    fn table(&mut self) -> Result<Vec<Field>, Wrong> {
        let mut fields = Vec::new();
        self.expect('{')?;
        loop {
            let name = self.key()?;
            self.expect('=')?;
            match self.value()? {
                Value::Text(text, at) | Value::Bare(text, at) => fields.push((name, text, at)),
                Value::Table(_) => return Err(self.wrong("a text")),
            }
            self.blanks();
            if self.peek() == Some('}') {
                self.at += 1;
                return Ok(fields);
            }
            self.expect(',')?;
        }
    }
}

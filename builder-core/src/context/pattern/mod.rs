//! [`Matcher`]: lists of patterns with moby's patternmatcher semantics, for ignore files, `--exclude` and `--parents`.
//!
//! Patterns are cleaned like paths; `**` stands for any number of elements; a pattern that matches a directory matches
//! everything below it; `!` takes back what earlier patterns matched; the last pattern that says something wins. A directory
//! is judged before what is in it, and a pattern that says nothing new of it has no say in it: see [`Matcher::enter`].

use regex::Regex;

use super::glob::{BadPattern, Glob, decode};

#[cfg(test)]
mod tests;

/// A list of patterns, compiled.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    patterns: Vec<Pattern>,
    /// See [`Matcher::strict`].
    strict: bool,
}

/// What the patterns said of a directory and those above it. What [`Matcher::enter`] returns for a directory is needed for
/// everything in it.
#[derive(Debug, Clone, Default)]
pub struct Above(Vec<Said>);

/// What one pattern said of a directory and those above it.
#[derive(Debug, Clone, Copy, Default)]
struct Said {
    /// It matches one of them.
    matches: bool,
    /// It matches one of them, and that changed the verdict on it.
    counts: bool,
}

/// What a list of patterns says about a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether the path matches.
    pub matched: bool,
    /// The line of the pattern that decided, 0 if none had anything to say.
    pub line: usize,
}

#[derive(Debug, Clone)]
struct Pattern {
    line: usize,
    negated: bool,
    /// Cleaned, without `!`.
    text: Vec<u8>,
    kind: Kind,
    elements: Vec<Element>,
}

#[derive(Debug, Clone)]
enum Kind {
    Exact,
    /// `text/**`: the bytes before the `**`.
    Prefix(usize),
    /// `**/text` and `**text`.
    Suffix,
    /// The rest. A path has to start and end with these bytes for the expression to be tried.
    Regex {
        start: usize,
        end: usize,
        regex: Regex,
    },
}

/// What one element of a pattern says about the elements of a path, as far as pruning needs it.
#[derive(Debug, Clone)]
enum Element {
    Literal(Vec<u8>),
    Glob(Glob),
    /// Anything may follow from here on.
    Rest,
}

impl Matcher {
    /// Compiles patterns; each comes with the line that it stands in.
    ///
    /// # Errors
    /// The first pattern that is not valid: its line, its text and what is wrong.
    pub fn new<P: AsRef<[u8]>>(
        patterns: impl IntoIterator<Item = (usize, P)>,
    ) -> Result<Self, (usize, Vec<u8>, BadPattern)> {
        let mut compiled = Vec::new();
        for (line, text) in patterns {
            let text = trim(text.as_ref());
            if text.is_empty() {
                continue;
            }
            compiled.push(Pattern::new(line, text).map_err(|bad| (line, text.to_vec(), bad))?);
        }
        Ok(Self { patterns: compiled, strict: false })
    }

    /// The patterns of an ignore file: also what has to be left out by the definition, that the last pattern decides which
    /// matches a path or a directory above it, is left out. BuildKit's client makes such a file, and then leaves it empty.
    #[must_use]
    pub fn strict(self) -> Self {
        Self { strict: true, ..self }
    }

    /// Whether it can match nothing.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a `!` takes something back.
    pub(super) fn has_negated(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.negated)
    }

    /// The state at the root, which no pattern matches.
    pub fn root(&self) -> Above {
        Above(vec![Said::default(); self.patterns.len()])
    }

    /// Judges a path in a directory whose state is known. `path` is the whole path, without a leading slash.
    pub fn judge(&self, above: &Above, path: &[u8]) -> Verdict {
        self.look(above, path, None)
    }

    /// Judges a directory, and returns the state for what is in it.
    ///
    /// A pattern that could not change the verdict does not count for what is in the directory either: `d`, `!d/f`, `d`
    /// lets `d/f` in, and `**/x`, `!d` leaves `d/x` out. So it is in moby.
    pub fn enter(&self, above: &Above, path: &[u8]) -> (Verdict, Above) {
        let mut inside = Above(Vec::with_capacity(self.patterns.len()));
        (self.look(above, path, Some(&mut inside)), inside)
    }

    fn look(&self, above: &Above, path: &[u8], mut inside: Option<&mut Above>) -> Verdict {
        let (mut counted, mut defined) = (Verdict::default(), Verdict::default());
        for (pattern, above) in self.patterns.iter().zip(&above.0) {
            let can_count = pattern.negated == counted.matched;
            let can_define = self.strict && pattern.negated == defined.matched;
            // A pattern that could not change anything is not tried.
            let counts = !above.counts && can_count;
            let matches = !above.matches && (can_define || (self.strict && inside.is_some()));
            let here = (counts || matches) && pattern.matches(path);
            let said = Said { matches: above.matches || here, counts: above.counts || (can_count && here) };
            let verdict = Verdict { matched: !pattern.negated, line: pattern.line };
            if can_count && said.counts {
                counted = verdict;
            }
            if can_define && said.matches {
                defined = verdict;
            }
            if let Some(inside) = &mut inside {
                inside.0.push(said);
            }
        }
        if defined.matched { defined } else { counted }
    }

    /// Judges a path whose directories nobody has judged yet.
    pub fn judge_path(&self, path: &[u8]) -> Verdict {
        let mut above = self.root();
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            above = self.enter(&above, &path[..at]).1;
        }
        self.judge(&above, path)
    }

    /// Whether something below a directory that matches (its state is `above`) can be taken back by a `!` pattern.
    pub fn can_take_back_below(&self, above: &Above, directory: &[u8]) -> bool {
        let can = |says: fn(&Said) -> bool| {
            // What lies before the last pattern that matches the directory has no say in it any more.
            let mut patterns = self.patterns.iter().zip(&above.0);
            let last = patterns.rposition(|(pattern, said)| says(said) && !pattern.negated);
            let mut rest = self.patterns.iter().zip(&above.0).skip(last.map_or(0, |at| at + 1));
            rest.any(|(pattern, said)| pattern.negated && (says(said) || pattern.can_match_below(directory)))
        };
        can(|said| said.counts) && (!self.strict || can(|said| said.matches))
    }

    /// Whether something below a directory that does not match can match.
    pub fn can_match_below(&self, directory: &[u8]) -> bool {
        self.patterns.iter().any(|pattern| !pattern.negated && pattern.can_match_below(directory))
    }
}

impl Pattern {
    fn new(line: usize, text: &[u8]) -> Result<Self, BadPattern> {
        let cleaned = clean(text);
        let negated = cleaned.first() == Some(&b'!');
        let text = if negated { cleaned[1..].to_vec() } else { cleaned };
        if text.is_empty() {
            return Err(BadPattern::Negation);
        }
        Glob::new(&text)?;
        let kind = compile(&text)?;
        let elements = elements(&text);
        Ok(Self { line, negated, text, kind, elements })
    }

    fn matches(&self, path: &[u8]) -> bool {
        match &self.kind {
            Kind::Exact => path == self.text,
            Kind::Prefix(length) => path.starts_with(&self.text[..*length]),
            Kind::Suffix => {
                let suffix = &self.text[2..];
                path.ends_with(suffix) || suffix.strip_prefix(b"/") == Some(path)
            }
            Kind::Regex { start, end, regex } => {
                path.starts_with(&self.text[..*start])
                    && path.ends_with(&self.text[*end..])
                    && match std::str::from_utf8(path) {
                        Ok(text) => regex.is_match(text),
                        Err(_) => regex.is_match(&lossy(path)),
                    }
            }
        }
    }

    /// Whether a path strictly below `directory` can match, other than by `directory` itself matching.
    fn can_match_below(&self, directory: &[u8]) -> bool {
        let mut elements = self.elements.iter();
        for name in directory.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let fits = match elements.next() {
                None => false,
                Some(Element::Rest) => return true,
                Some(Element::Literal(literal)) => literal == name,
                Some(Element::Glob(glob)) => glob.matches(name),
            };
            if !fits {
                return false;
            }
        }
        elements.next().is_some()
    }
}

fn elements(text: &[u8]) -> Vec<Element> {
    let mut elements = Vec::new();
    for element in text.split(|byte| *byte == b'/') {
        let plain = !element.windows(2).any(|two| two == b"**") && !element.iter().any(|b| b"[]\\^".contains(b));
        elements.push(match Glob::new(element) {
            Ok(glob) if plain && element.iter().any(|b| b"*?".contains(b)) => Element::Glob(glob),
            Ok(_) if plain => Element::Literal(element.to_vec()),
            _ => {
                elements.push(Element::Rest);
                break;
            }
        });
    }
    elements
}

/// Finds the kind of a pattern as moby does, the oddities included: what comes first decides between prefix and
/// suffix, and a later wildcard makes it an expression.
fn compile(text: &[u8]) -> Result<Kind, BadPattern> {
    #[derive(PartialEq)]
    enum Seen {
        Exact,
        Prefix,
        Suffix,
        Regex,
    }
    let pattern = lossy(text);
    let mut expression = String::from("^");
    let mut seen = Seen::Exact;
    let mut characters = pattern.chars().peekable();
    let mut first = true;
    while let Some(character) = characters.next() {
        match character {
            '*' if characters.peek() == Some(&'*') => {
                characters.next();
                // `**/` is `**`.
                characters.next_if_eq(&'/');
                if characters.peek().is_some() {
                    expression.push_str("(.*/)?");
                    seen = Seen::Regex;
                } else if seen == Seen::Exact {
                    seen = Seen::Prefix;
                } else {
                    expression.push_str(".*");
                    seen = Seen::Regex;
                }
                if first {
                    seen = Seen::Suffix;
                }
            }
            '*' => {
                expression.push_str("[^/]*");
                seen = Seen::Regex;
            }
            '?' => {
                expression.push_str("[^/]");
                seen = Seen::Regex;
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => expression.extend(['\\', character]),
            '\\' => {
                expression.push('\\');
                if let Some(escaped) = characters.next() {
                    expression.push(escaped);
                    seen = Seen::Regex;
                }
            }
            '[' | ']' => {
                expression.push(character);
                seen = Seen::Regex;
            }
            other => expression.push(other),
        }
        first = false;
    }
    Ok(match seen {
        Seen::Exact => Kind::Exact,
        Seen::Prefix => Kind::Prefix(text.len() - 2),
        Seen::Suffix => Kind::Suffix,
        Seen::Regex => {
            let special = |byte: &u8| b"*?[]\\^".contains(byte);
            let start = text.iter().position(special).unwrap_or(0);
            // After `**` may come a slash that it has eaten.
            let end = text.iter().rposition(special).map_or(0, |at| at + 1);
            let end = if text.get(end) == Some(&b'/') { end + 1 } else { end };
            let escaped = text.contains(&b'\\') || text.contains(&b'[') || text.contains(&b']') || text.contains(&b'^');
            let (start, end) = if escaped { (0, text.len()) } else { (start, end) };
            expression.push('$');
            let regex = Regex::new(&translate(&expression)).map_err(|_| BadPattern::Syntax)?;
            Kind::Regex { start, end, regex }
        }
    })
}

/// Rewrites the character classes of a Go expression for the `regex` crate, where `[`, `&&`, `--` and `~~` in a class
/// mean more.
fn translate(expression: &str) -> String {
    let mut out = String::with_capacity(expression.len() + 8);
    let mut rest = expression.chars().peekable();
    while let Some(character) = rest.next() {
        out.push(character);
        match character {
            '\\' => out.extend(rest.next()),
            '[' => {
                out.extend(rest.next_if_eq(&'^'));
                if rest.next_if_eq(&']').is_some() {
                    out.push_str("\\]");
                }
                while let Some(inside) = rest.next() {
                    match inside {
                        ']' => {
                            out.push(']');
                            break;
                        }
                        '\\' => {
                            out.push('\\');
                            out.extend(rest.next());
                        }
                        '[' if rest.peek() == Some(&':') => {
                            // A named class, `[:alpha:]`.
                            out.push('[');
                            for named in rest.by_ref() {
                                out.push(named);
                                if named == ']' {
                                    break;
                                }
                            }
                        }
                        '-' => {
                            out.push('-');
                            if rest.next_if_eq(&'-').is_some() {
                                out.push_str("\\-");
                            }
                        }
                        '[' | '&' | '~' => out.extend(['\\', inside]),
                        other => out.push(other),
                    }
                }
            }
            _ => {}
        }
    }
    out
}

/// Go's `filepath.Clean`.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut elements: Vec<&[u8]> = Vec::new();
    for element in path.split(|byte| *byte == b'/') {
        match element {
            b"" | b"." => {}
            b".." => match elements.last() {
                Some(last) if *last != b".." => drop(elements.pop()),
                _ if rooted => {}
                _ => elements.push(element),
            },
            name => elements.push(name),
        }
    }
    let joined = elements.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

/// Takes away white space at both ends, as Go's `strings.TrimSpace`.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    match std::str::from_utf8(text) {
        Ok(valid) => valid.trim().as_bytes(),
        Err(_) => text.trim_ascii(),
    }
}

/// Each byte that is not UTF-8 becomes U+FFFD, as when Go reads it rune by rune.
fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let (character, length) = decode(rest);
        text.push(character);
        rest = &rest[length..];
    }
    text
}

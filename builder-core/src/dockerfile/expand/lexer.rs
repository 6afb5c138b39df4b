//! The lexer behind the expander: one pass over the characters, recursing into `${…}` only.

use std::cell::Cell;
use std::collections::HashSet;

use super::pattern::Pattern;
use super::{ExpandError, Lookup, MAX_DEPTH, MAX_TOTAL, MAX_WORD};

/// What happens to quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Quotes {
    /// They group, and disappear.
    Remove,
    /// They group, and stay.
    Keep,
    /// They are letters like any other.
    Ignore,
}

#[derive(Clone, Copy)]
pub(super) struct Options {
    pub(super) escape: char,
    pub(super) quotes: Quotes,
    /// Escape characters stay in the result.
    pub(super) keep_escapes: bool,
    /// A variable that is not set stays as it was written.
    pub(super) keep_unset: bool,
}

pub(super) struct Lexer<'a> {
    input: &'a str,
    at: usize,
    options: Options,
    lookup: Lookup<'a>,
    remaining: &'a Cell<usize>,
    /// Longest allowed result.
    limit: usize,
    depth: usize,
    /// How many operands of substitutions were read.
    operands: usize,
    seen: HashSet<String>,
    used: Vec<String>,
    unset: Vec<String>,
}

/// Collects words while text is produced.
#[derive(Default)]
struct Splitter {
    words: Vec<(String, usize)>,
    word: String,
    start: usize,
    in_word: bool,
}

impl Splitter {
    /// Adds a character that ends a word if it is a blank.
    fn push(&mut self, ch: char, at: usize) {
        if !ch.is_whitespace() {
            self.push_quoted(ch, at);
        } else if self.in_word && !self.word.is_empty() {
            self.words.push((std::mem::take(&mut self.word), self.start));
            self.in_word = false;
        }
    }

    /// Adds a character that never ends a word.
    fn push_quoted(&mut self, ch: char, at: usize) {
        if self.word.is_empty() {
            self.start = at;
        }
        self.word.push(ch);
        self.in_word = true;
    }

    fn push_quoted_str(&mut self, text: &str, at: usize) {
        if self.word.is_empty() {
            self.start = at;
        }
        self.word.push_str(text);
        self.in_word = true;
    }

    /// Drops what was read of a word. BuildKit collects the words of an operand in the same buffer, so of
    /// `80${X:-81}` only what follows the `$` is left.
    fn forget(&mut self) {
        self.word.clear();
    }

    fn finish(mut self) -> Vec<(String, usize)> {
        if !self.word.is_empty() {
            self.words.push((self.word, self.start));
        }
        self.words
    }
}

impl<'a> Lexer<'a> {
    pub(super) fn new(input: &'a str, options: Options, lookup: Lookup<'a>, remaining: &'a Cell<usize>) -> Self {
        let limit = MAX_WORD.max(input.len());
        // BuildKit's scanner skips a byte order mark, wherever the text came from.
        let at = if input.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self {
            input,
            at,
            options,
            lookup,
            remaining,
            limit,
            depth: 0,
            operands: 0,
            seen: HashSet::new(),
            used: Vec::new(),
            unset: Vec::new(),
        }
    }

    /// The whole input as one text.
    pub(super) fn text(&mut self) -> Result<String, ExpandError> {
        self.until(None, None)
    }

    /// The whole input as words, each with the offset in the input where it begins.
    pub(super) fn words(&mut self) -> Result<Vec<(String, usize)>, ExpandError> {
        let mut splitter = Splitter::default();
        self.until(None, Some(&mut splitter))?;
        Ok(splitter.finish())
    }

    /// The names that were looked up: set, and not set.
    pub(super) fn names(self) -> (Vec<String>, Vec<String>) {
        (self.used, self.unset)
    }

    fn peek(&self) -> Option<char> {
        self.input[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let ch = self.peek()?;
        self.at += ch.len_utf8();
        Some(ch)
    }

    /// Reads up to `stop`, which is consumed, or to the end of the input.
    fn until(&mut self, stop: Option<char>, mut words: Option<&mut Splitter>) -> Result<String, ExpandError> {
        let mut result = String::new();
        let quotes = self.options.quotes;
        while let Some(ch) = self.peek() {
            let (at, operands) = (self.at, self.operands);
            if Some(ch) == stop {
                self.next();
                return Ok(result);
            }
            match ch {
                '$' => {
                    let value = self.dollar()?;
                    if let Some(words) = &mut words {
                        if self.operands > operands {
                            words.forget();
                        }
                        value.chars().for_each(|ch| words.push(ch, at));
                    }
                    result.push_str(&value);
                }
                '\'' | '"' | '<' if ch == '<' || quotes != Quotes::Ignore => {
                    let text = match ch {
                        '"' => self.double_quoted()?,
                        '<' => self.angle().to_owned(),
                        _ => self.single_quoted()?,
                    };
                    if let Some(words) = &mut words {
                        if self.operands > operands {
                            words.forget();
                        }
                        words.push_quoted_str(&text, at);
                    }
                    result.push_str(&text);
                }
                _ => {
                    self.next();
                    let mut ch = ch;
                    let escaped = ch == self.options.escape;
                    if escaped {
                        if self.options.keep_escapes {
                            result.push(ch);
                            if let Some(words) = &mut words {
                                words.push_quoted(ch, at);
                            }
                        }
                        // An escape character at the very end disappears.
                        let Some(next) = self.next() else { break };
                        ch = next;
                    }
                    result.push(ch);
                    if let Some(words) = &mut words {
                        if escaped { words.push_quoted(ch, at) } else { words.push(ch, at) }
                    }
                }
            }
            self.check_length(&result)?;
        }
        if stop.is_some() { Err(ExpandError::MissingBrace) } else { Ok(result) }
    }

    fn check_length(&self, result: &str) -> Result<(), ExpandError> {
        if result.len() > self.limit { Err(ExpandError::TooLong { limit: self.limit }) } else { Ok(()) }
    }

    /// `<`, or `<<` with the blanks behind it: they belong to the word that a heredoc's name ends, and nobody asks
    /// whether it is one.
    fn angle(&mut self) -> &'a str {
        let rest = &self.input[self.at..];
        let length = match rest.strip_prefix("<<") {
            Some(after) => rest.len() - after.trim_start_matches(['\t', '\r', ' ']).len(),
            None => 1,
        };
        self.at += length;
        &rest[..length]
    }

    fn single_quoted(&mut self) -> Result<String, ExpandError> {
        let open = self.at;
        let body = open + 1;
        let length = self.input[body..].find('\'').ok_or(ExpandError::UnclosedQuote { quote: "single" })?;
        self.at = body + length + 1;
        let range = if self.options.quotes == Quotes::Keep { open..self.at } else { body..self.at - 1 };
        Ok(self.input[range].to_owned())
    }

    fn double_quoted(&mut self) -> Result<String, ExpandError> {
        let mut result = String::new();
        let keep = self.options.quotes == Quotes::Keep;
        self.next();
        if keep {
            result.push('"');
        }
        while let Some(ch) = self.peek() {
            match ch {
                '"' => {
                    self.next();
                    if keep {
                        result.push('"');
                    }
                    return Ok(result);
                }
                '$' => result.push_str(&self.dollar()?),
                _ => {
                    self.next();
                    let mut ch = ch;
                    if ch == self.options.escape {
                        if self.options.keep_escapes {
                            result.push(ch);
                        }
                        match self.peek() {
                            None => continue,
                            // Only these can be escaped here; before anything else the escape character stays.
                            Some(next) if next == '"' || next == '$' || next == self.options.escape => {
                                self.next();
                                ch = next;
                            }
                            Some(_) => {}
                        }
                    }
                    result.push(ch);
                }
            }
            self.check_length(&result)?;
        }
        Err(ExpandError::UnclosedQuote { quote: "double" })
    }

    /// What follows a `$`.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            return Ok(match self.get(name)? {
                Some(value) => value,
                None if self.options.keep_unset => format!("${name}"),
                None => String::new(),
            });
        }
        self.next();
        match self.peek() {
            None => return Err(ExpandError::MissingBrace),
            Some('{' | '}' | ':') => return Err(ExpandError::BadSubstitution),
            Some(_) => {}
        }
        if self.depth == MAX_DEPTH {
            return Err(ExpandError::TooDeep);
        }
        self.depth += 1;
        let value = self.substitution();
        self.depth -= 1;
        value
    }

    /// What is inside `${` and `}`.
    fn substitution(&mut self) -> Result<String, ExpandError> {
        let name = self.name();
        let operator = self.next().ok_or(ExpandError::MissingBrace)?;
        match operator {
            '}' => Ok(match self.get(name)? {
                Some(value) => value,
                None if self.options.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            ':' => match self.next() {
                Some(operator @ ('-' | '+' | '?')) => self.conditional(name, operator, true),
                Some(operator @ ('#' | '%')) => Err(ExpandError::UnsupportedModifier(format!(":{operator}"))),
                Some(operator) => {
                    let word = self.operand('}', false)?;
                    if self.options.keep_unset && self.get(name)?.is_none() {
                        // Nobody looks at the operator of a variable that stays as it is: `${v:0:3}` is the shell's.
                        return Ok(format!("${{{name}:{operator}{word}}}"));
                    }
                    Err(ExpandError::UnsupportedModifier(format!(":{operator}")))
                }
                None => Err(ExpandError::MissingBrace),
            },
            '-' | '+' | '?' => self.conditional(name, operator, false),
            '#' | '%' => self.removal(name, operator),
            '/' => self.replacement(name),
            _ => Err(ExpandError::UnsupportedModifier(operator.to_string())),
        }
    }

    /// Reads up to `stop` with or without escape characters kept.
    fn operand(&mut self, stop: char, keep_escapes: bool) -> Result<String, ExpandError> {
        self.operands += 1;
        let before = std::mem::replace(&mut self.options.keep_escapes, keep_escapes);
        let result = self.until(Some(stop), None);
        self.options.keep_escapes = before;
        result
    }

    /// `-`, `+` and `?`; with a colon before, empty counts as not set.
    fn conditional(&mut self, name: &str, operator: char, colon: bool) -> Result<String, ExpandError> {
        let word = self.operand('}', false)?;
        let value = self.get(name)?;
        if value.is_none() && self.options.keep_unset {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let is_unset = value.is_none();
        let value = value.filter(|value| !colon || !value.is_empty());
        match (operator, value) {
            ('-' | '?', Some(value)) => Ok(value),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('+', None) => Ok(String::new()),
            (_, _) => {
                let default = if is_unset { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { default.to_owned() } else { word };
                Err(ExpandError::Required { name: name.to_owned(), message })
            }
        }
    }

    /// `#`, `##`, `%` and `%%`.
    fn removal(&mut self, name: &str, operator: char) -> Result<String, ExpandError> {
        let word = self.operand('}', true)?;
        let value = match self.get(name)? {
            Some(value) => value,
            None if self.options.keep_unset => return Ok(format!("${{{name}{operator}{word}}}")),
            None => String::new(),
        };
        let (pattern, longest) = match word.strip_prefix(operator) {
            Some(pattern) => (pattern, true),
            None => (word.as_str(), false),
        };
        let pattern = Pattern::parse(pattern)?;
        self.spend(pattern.cost(&value))?;
        Ok(if operator == '#' {
            pattern.without_prefix(&value, longest)
        } else {
            pattern.without_suffix(&value, longest)
        })
    }

    /// `/` and `//`.
    fn replacement(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.peek() == Some('/');
        if all {
            self.next();
        }
        let pattern = self.operand('/', true).map_err(|error| match error {
            ExpandError::MissingBrace => ExpandError::MissingSlash,
            other => other,
        })?;
        let replacement = self.operand('}', true)?;
        let value = match self.get(name)? {
            Some(value) => value,
            None if self.options.keep_unset => return Ok(format!("${{{name}/{pattern}/{replacement}}}")),
            None => String::new(),
        };
        let pattern = Pattern::parse(&pattern)?;
        self.spend(pattern.cost(&value))?;
        pattern.replace(&value, &replacement, all, self.limit).ok_or(ExpandError::TooLong { limit: self.limit })
    }

    /// A variable's name: letters, digits and `_`; or digits only; or one special parameter.
    fn name(&mut self) -> &'a str {
        let rest = &self.input[self.at..];
        let mut chars = rest.chars();
        let length = match chars.next() {
            Some(ch) if is_digit(ch) => rest.find(|ch| !is_digit(ch)).unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest.find(|ch: char| !(ch.is_alphabetic() || is_digit(ch) || ch == '_')).unwrap_or(rest.len()),
        };
        self.at += length;
        &rest[..length]
    }

    /// Looks a variable up, pays for it, and remembers its name.
    fn get(&mut self, name: &str) -> Result<Option<String>, ExpandError> {
        let value = (self.lookup)(name);
        if let Some(value) = &value {
            self.spend(value.len())?;
        }
        if !name.is_empty() && self.seen.insert(name.to_owned()) {
            let names = if value.is_some() { &mut self.used } else { &mut self.unset };
            names.push(name.to_owned());
        }
        Ok(value)
    }

    fn spend(&self, amount: usize) -> Result<(), ExpandError> {
        let left = self.remaining.get().checked_sub(amount).ok_or(ExpandError::TooLong { limit: MAX_TOTAL })?;
        self.remaining.set(left);
        Ok(())
    }
}

fn is_digit(ch: char) -> bool {
    ch.is_ascii_digit() || (!ch.is_ascii() && ch.is_numeric())
}

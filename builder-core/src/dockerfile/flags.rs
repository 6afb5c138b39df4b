//! Taking an instruction's flags apart.

use super::mount::value_span;
use super::{Flag, ParseError, Problem, Word};
use crate::diagnostic::Source;

/// The flags of one instruction against the list of those that it has. Errors collect on the side.
pub(super) struct Flags<'a> {
    source: &'a Source,
    given: &'a [Flag],
    errors: &'a mut Vec<ParseError>,
}

impl<'a> Flags<'a> {
    /// Checks names: those in `once` may stand once, those in `many` any number of times.
    pub(super) fn new(
        source: &'a Source,
        flags: &'a [Flag],
        known: &'static [&'static str],
        many: &[&str],
        errors: &'a mut Vec<ParseError>,
    ) -> Self {
        // One bit for each known flag; no instruction has more than seven.
        let mut seen = 0_u32;
        for flag in flags {
            let name = flag.name();
            let problem = match known.iter().position(|known| *known == name) {
                None => Problem::UnknownFlag { name: name.to_owned(), known },
                Some(index) if seen & (1 << index) != 0 && !many.contains(&name) => {
                    Problem::DuplicateFlag(name.to_owned())
                }
                Some(index) => {
                    seen |= 1 << index;
                    continue;
                }
            };
            errors.push(ParseError::new(source, flag.span, problem));
            break;
        }
        Self { source, given: flags, errors }
    }

    fn find(&self, name: &str) -> Option<&'a Flag> {
        self.given.iter().find(|flag| flag.name() == name)
    }

    /// The value of a flag that must have one. An empty value counts as not given, as in BuildKit.
    pub(super) fn text(&mut self, name: &str) -> Option<Word> {
        let word = self.value(self.find(name)?)?;
        (!word.text.is_empty()).then_some(word)
    }

    /// The values of a flag that may stand many times.
    pub(super) fn texts(&mut self, name: &str) -> Vec<Word> {
        let given = self.given;
        given.iter().filter(|flag| flag.name() == name).filter_map(|flag| self.value(flag)).collect()
    }

    /// A flag that is a switch: `--link`, `--link=true`, `--link=false`.
    pub(super) fn switch(&mut self, name: &str) -> Option<bool> {
        let flag = self.find(name)?;
        let Some(value) = flag.value() else { return Some(true) };
        match value.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            "" => {
                self.error(flag, Problem::FlagValue(name.to_owned()));
                None
            }
            _ => {
                self.error(flag, Problem::FlagBool { name: name.to_owned(), value: value.to_owned() });
                None
            }
        }
    }

    /// A flag with a closed set of values.
    pub(super) fn choice<T: Copy>(
        &mut self,
        name: &'static str,
        known: &'static [&'static str],
        values: &[T],
    ) -> Option<T> {
        let word = self.text(name)?;
        let index = known.iter().position(|known| word.text == *known);
        if index.is_none() {
            let problem = Problem::FlagChoice { name, value: word.text.into(), known };
            self.errors.push(ParseError::new(self.source, word.span, problem));
        }
        values.get(index?).copied()
    }

    fn value(&mut self, flag: &Flag) -> Option<Word> {
        if let Some(value) = flag.value() {
            return Some(Word::new(flag.text.part(value), value_span(flag)));
        }
        self.error(flag, Problem::FlagValue(flag.name().to_owned()));
        None
    }

    fn error(&mut self, flag: &Flag, problem: Problem) {
        self.errors.push(ParseError::new(self.source, flag.span, problem));
    }
}

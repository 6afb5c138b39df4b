//! `# check=skip=…;experimental=…;error=…`

use super::super::directive::check_in_comments;
use super::super::{Dockerfile, Instruction};
use super::{Level, LintWarning, Rule};

/// Which rules are applied, and how much a finding weighs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    /// No rules but experimental ones that were asked for.
    pub skip_all: bool,
    /// Names of rules that are not applied.
    pub skip: Vec<String>,
    /// All experimental rules.
    pub experimental_all: bool,
    /// Names of experimental rules that are applied.
    pub experimental: Vec<String>,
    /// A finding is an error.
    pub error: bool,
}

impl Options {
    /// Reads `skip=A,B;experimental=C;error=true`. Rules that do not exist are accepted, as in BuildKit: they may
    /// come with a later version.
    ///
    /// # Errors
    /// The option that does not exist or has no value.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut options = Self::default();
        let text = text.trim();
        if text.is_empty() {
            return Ok(options);
        }
        for option in text.splitn(3, ';') {
            let (key, value) = option.split_once('=').ok_or(option)?;
            let value = value.trim();
            let names = || value.split(',').map(|name| name.trim().to_owned()).collect();
            match key.trim() {
                "skip" if value == "all" => options.skip_all = true,
                "skip" => options.skip = names(),
                "experimental" if value == "all" => options.experimental_all = true,
                "experimental" => options.experimental = names(),
                "error" => {
                    options.error = match value {
                        "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                        "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                        _ => return Err(option.to_owned()),
                    }
                }
                other => return Err(other.to_owned()),
            }
        }
        Ok(options)
    }

    /// The options of a file's `# check=` directive.
    pub fn of(file: &Dockerfile) -> Self {
        let check = file.directives.check.as_ref();
        check.and_then(|check| Self::parse(&check.text).ok()).unwrap_or_default()
    }

    /// Whether a rule is applied.
    pub fn applies(&self, rule: Rule) -> bool {
        let named = |names: &[String]| names.iter().any(|name| name == rule.name());
        match rule.level() {
            Level::Own => named(&self.experimental),
            Level::Experimental => self.experimental_all || named(&self.experimental),
            Level::Warning => !self.skip_all && !named(&self.skip),
        }
    }

    /// These options and those in the comments above an instruction. `error` counts for the file only.
    fn merged(&self, other: Self) -> Self {
        let mut merged = self.clone();
        merged.skip_all |= other.skip_all;
        merged.experimental_all |= other.experimental_all;
        merged.skip.extend(other.skip);
        merged.experimental.extend(other.experimental);
        merged
    }

    /// The warnings that remain, in line order: those of rules that apply to the file and to the instruction that
    /// they are about. Warnings of `ONBUILD` triggers are not for it: nothing stands above those.
    pub fn filter(&self, file: &Dockerfile, mut warnings: Vec<LintWarning>) -> Vec<LintWarning> {
        warnings.sort_by_key(LintWarning::order);
        // The options of the instruction that the warning before this one was about.
        let mut last: Option<(usize, Option<Self>)> = None;
        warnings.retain(|warning| {
            let index = file.instructions.partition_point(|instruction| instruction.span.end <= warning.span.start);
            if last.as_ref().is_none_or(|(last, _)| *last != index) {
                let comments = file.instructions.get(index).map_or(&[][..], Instruction::comments);
                let check = check_in_comments(comments);
                let own = check.and_then(|check| Self::parse(&check.text).ok()).map(|own| self.merged(own));
                last = Some((index, own));
            }
            let own = last.as_ref().and_then(|(_, own)| own.as_ref()).filter(|_| !warning.rule.is_of_file());
            own.unwrap_or(self).applies(warning.rule)
        });
        warnings
    }
}

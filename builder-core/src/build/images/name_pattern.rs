//! [`NamePattern`]: names with wildcards, as `docker images` takes them.

use super::ImageError;
use crate::oci::Reference;

/// A pattern for names, with Go's `path.Match` wildcards: `*`, `?` and `[…]` never match a slash.
#[derive(Debug, Clone)]
pub(super) struct NamePattern {
    pattern: Vec<char>,
}

impl NamePattern {
    /// # Errors
    /// [`ImageError::Pattern`] if a bracket or an escape has no end.
    pub(super) fn new(text: &str) -> Result<Self, ImageError> {
        let pattern: Vec<char> = text.chars().collect();
        if is_valid(&pattern) { Ok(Self { pattern }) } else { Err(ImageError::Pattern { pattern: text.to_owned() }) }
    }

    /// Whether it matches a name with its tag, or without.
    pub(super) fn matches(&self, name: &Reference) -> bool {
        self.is_match(&name.familiar()) || self.is_match(&name.familiar_name()) || self.is_match(&name.to_string())
    }

    /// Whether it matches a repository (`domain/path`).
    pub(super) fn matches_repository(&self, repository: &str) -> bool {
        self.is_match(repository) || self.is_match(&super::list::familiar(repository))
    }

    fn is_match(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        glob(&self.pattern, &text)
    }
}

fn is_valid(mut pattern: &[char]) -> bool {
    while let [first, rest @ ..] = pattern {
        pattern = match (first, rest) {
            ('\\', []) => return false,
            ('\\', [_, rest @ ..]) => rest,
            ('[', _) => match class_end(rest) {
                Some(end) => &rest[end..],
                None => return false,
            },
            _ => rest,
        };
    }
    true
}

/// One past the bracket that closes a class, whose first one is not in `class`.
fn class_end(class: &[char]) -> Option<usize> {
    let mut at = usize::from(class.first() == Some(&'^'));
    let first = at;
    while at < class.len() {
        match class[at] {
            ']' if at > first => return Some(at + 1),
            '\\' => at += 2,
            _ => at += 1,
        }
    }
    None
}

/// Matches in time linear in both lengths for each star: only the last star is ever tried again.
fn glob(pattern: &[char], text: &[char]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if p == pattern.len() && t == text.len() {
            return true;
        }
        if pattern.get(p) == Some(&'*') {
            p += 1;
            retry = Some((p, t));
            continue;
        }
        if let (Some(character), true) = (text.get(t), p < pattern.len())
            && let Some(used) = one(&pattern[p..], *character)
        {
            p += used;
            t += 1;
            continue;
        }
        match retry {
            Some((star, from)) if text.get(from).is_some_and(|character| *character != '/') => {
                retry = Some((star, from + 1));
                (p, t) = (star, from + 1);
            }
            _ => return false,
        }
    }
}

/// How many characters of the pattern match `character`, if they do.
fn one(pattern: &[char], character: char) -> Option<usize> {
    match pattern {
        ['?', ..] => (character != '/').then_some(1),
        ['\\', escaped, ..] => (*escaped == character).then_some(2),
        ['[', class @ ..] => {
            let end = class_end(class)?;
            (character != '/' && class_has(&class[..end - 1], character)).then_some(end + 1)
        }
        [plain, ..] => (*plain == character).then_some(1),
        [] => None,
    }
}

fn class_has(class: &[char], character: char) -> bool {
    let (negated, mut rest) = match class {
        ['^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    while !rest.is_empty() {
        let (low, after) = literal(rest);
        let (high, after) = match after {
            ['-', after @ ..] if !after.is_empty() => literal(after),
            _ => (low, after),
        };
        found |= (low..=high).contains(&character);
        rest = after;
    }
    found != negated
}

fn literal(class: &[char]) -> (char, &[char]) {
    match class {
        ['\\', escaped, rest @ ..] => (*escaped, rest),
        [plain, rest @ ..] => (*plain, rest),
        [] => ('\0', class),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stay_between_slashes() {
        for (pattern, name, expected) in [
            ("app", "app:1", true),
            ("app:1", "app:1", true),
            ("app:2", "app:1", false),
            ("a*", "app:1", true),
            ("*p*:1", "app:1", true),
            ("*", "team/app:1", false),
            ("*/*", "team/app:1", true),
            ("te?m/a[o-q]p:[^2]", "team/app:1", true),
            ("te?m/a[^o-q]p", "team/app:1", false),
            ("r.io/*", "r.io/app:1", true),
            ("docker.io/library/app:1", "app:1", true),
            (r"a\pp", "app:1", true),
            ("a*a*a*a*b", &"a".repeat(60), false),
        ] {
            let name: Reference = name.parse().expect("a name");
            assert_eq!(NamePattern::new(pattern).expect("valid").matches(&name), expected, "{pattern} {name}");
        }
        for bad in ["[", "a[b", "x\\", "[^", "[]"] {
            assert!(NamePattern::new(bad).is_err(), "{bad}");
        }
    }
}

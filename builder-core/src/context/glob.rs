//! [`Glob`]: the patterns of COPY sources, one path element at a time.

/// A pattern with the meaning of Go's `path/filepath.Match`: `*` and `?` stand for anything but `/`, `[a-z]` and `[^a-z]`
/// for one character, `\` takes away the meaning of the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

/// A pattern breaks the syntax.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// `[` without its end, or an empty or half range.
    #[error("a character class is not complete")]
    Class,
    /// Nothing follows the last `\`.
    #[error("it ends in the middle of an escape")]
    Escape,
    /// `!` with nothing after it.
    #[error("`!` negates nothing")]
    Negation,
    /// A `\x` that means nothing, or a range whose end comes before its start.
    #[error("it is not a valid pattern")]
    Syntax,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Any,
    Star,
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// Whether a text means more than itself.
    pub fn is_pattern(text: &[u8]) -> bool {
        let mut bytes = text.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' => drop(bytes.next()),
                b'*' | b'?' | b'[' => return true,
                _ => {}
            }
        }
        false
    }

    /// Compiles a pattern.
    ///
    /// # Errors
    /// [`BadPattern`] where Go's `Match` gives `ErrBadPattern`.
    pub fn new(pattern: &[u8]) -> Result<Self, BadPattern> {
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut rest = pattern;
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            tokens.push(match byte {
                b'*' if tokens.last() == Some(&Token::Star) => continue,
                b'*' => Token::Star,
                b'?' => Token::Any,
                b'[' => class(&mut rest)?,
                b'\\' => {
                    let (&escaped, after) = rest.split_first().ok_or(BadPattern::Escape)?;
                    rest = after;
                    Token::Byte(escaped)
                }
                literal => Token::Byte(literal),
            });
        }
        Ok(Self { tokens })
    }

    /// Whether the pattern stands for the whole of `name`.
    ///
    /// Steps back to the last `*` only, so the time is at most the product of the two lengths.
    pub fn matches(&self, name: &[u8]) -> bool {
        let (mut token, mut at) = (0, 0);
        let mut star: Option<(usize, usize)> = None;
        loop {
            let step = match self.tokens.get(token) {
                None if at == name.len() => return true,
                None => None,
                Some(Token::Star) => {
                    star = Some((token, at));
                    token += 1;
                    continue;
                }
                Some(one) => one.takes(&name[at..]),
            };
            if let Some(length) = step {
                token += 1;
                at += length;
            } else {
                // The star takes one byte more, unless that is a separator.
                let Some((star_token, taken)) = star.filter(|(_, taken)| name.get(*taken).is_some_and(|b| *b != b'/'))
                else {
                    return false;
                };
                star = Some((star_token, taken + 1));
                (token, at) = (star_token + 1, taken + 1);
            }
        }
    }
}

impl Token {
    /// How many bytes it takes from the start of `text`, if it can.
    fn takes(&self, text: &[u8]) -> Option<usize> {
        let first = *text.first()?;
        match self {
            Self::Byte(byte) => (first == *byte).then_some(1),
            Self::Any => (first != b'/').then(|| decode(text).1),
            Self::Class { negated, ranges } => {
                let (character, length) = decode(text);
                let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&character));
                (inside != *negated).then_some(length)
            }
            Self::Star => None,
        }
    }
}

/// The first character and its length; a byte that is not UTF-8 counts as U+FFFD of length 1, as in Go.
pub(super) fn decode(text: &[u8]) -> (char, usize) {
    let head = &text[..text.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(valid) => valid,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).expect("checked up to here"),
    };
    valid.chars().next().map_or((char::REPLACEMENT_CHARACTER, 1), |character| (character, character.len_utf8()))
}

fn class(rest: &mut &[u8]) -> Result<Token, BadPattern> {
    let negated = rest.first() == Some(&b'^');
    if negated {
        *rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        if rest.first() == Some(&b']') && !ranges.is_empty() {
            *rest = &rest[1..];
            return Ok(Token::Class { negated, ranges });
        }
        let low = class_character(rest)?;
        let mut high = low;
        if rest.first() == Some(&b'-') {
            *rest = &rest[1..];
            high = class_character(rest)?;
        }
        ranges.push((low, high));
    }
}

fn class_character(rest: &mut &[u8]) -> Result<char, BadPattern> {
    match rest.first() {
        None | Some(b'-' | b']') => return Err(BadPattern::Class),
        Some(b'\\') => *rest = &rest[1..],
        Some(_) => {}
    }
    if rest.is_empty() {
        return Err(BadPattern::Escape);
    }
    let (character, length) = decode(rest);
    if (character, length) == (char::REPLACEMENT_CHARACTER, 1) {
        return Err(BadPattern::Syntax);
    }
    *rest = &rest[length..];
    // Something has to follow: at least the closing bracket.
    if rest.is_empty() { Err(BadPattern::Class) } else { Ok(character) }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Rows: A88.
    #[test]
    fn patterns_mean_what_they_mean_in_go() {
        for (pattern, name, expected) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "abc", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a☺b", true),
            ("a[^a]b", "a☺b", true),
            ("a???b", "a☺b", false),
            ("[a-ζ]*", "α", true),
            ("*[a-ζ]", "A", false),
            ("a?b", "a/b", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("[x\\-]", "z", false),
            ("*x", "xxx", true),
            ("arr[[]0].txt", "arr[0].txt", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(
                Glob::new(pattern.as_bytes()).expect(pattern).matches(name.as_bytes()),
                expected,
                "{pattern} {name}"
            );
        }
        assert!(Glob::new(b"a?").expect("valid").matches(b"a\xff"));
    }

    #[test]
    fn bad_patterns_are_refused() {
        for pattern in ["[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[", "[^", "[^bc", "a[", "\\", "a\\", "[\\"] {
            assert!(Glob::new(pattern.as_bytes()).is_err(), "{pattern}");
        }
    }

    #[test]
    fn time_is_linear_in_the_name() {
        let glob = Glob::new(&b"*a".repeat(50)).expect("valid");
        assert!(!glob.matches(&b"a".repeat(20_000).iter().chain(b"b").copied().collect::<Vec<_>>()));
    }

    #[test]
    fn escapes_do_not_make_a_pattern() {
        assert!(Glob::is_pattern(b"a*") && Glob::is_pattern(b"[[]"));
        assert!(!Glob::is_pattern(b"a\\*b") && !Glob::is_pattern(b"plain") && !Glob::is_pattern(b"a\\"));
    }
}

//! [`Text`]: pieces of a Dockerfile that share its bytes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, Range};
use std::sync::Arc;

/// A text that is a range of another one. Clones and parts share the bytes: a file of a million small instructions is
/// in memory once, and not once more in as many small strings.
#[derive(Clone, Default)]
pub struct Text {
    /// `None` is empty.
    whole: Option<Arc<String>>,
    /// Offsets are below 4 GiB (`dockerfile::MAX_SIZE` is far less), so that a text is two machine words.
    start: u32,
    end: u32,
}

impl Text {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        self.whole.as_ref().map_or("", |whole| &whole[self.start as usize..self.end as usize])
    }

    /// The part that `part` is: its bytes are shared if it points into this text, else they are copied.
    #[must_use]
    pub(super) fn part(&self, part: &str) -> Self {
        let (own, other) = (self.as_str().as_bytes().as_ptr_range(), part.as_bytes().as_ptr_range());
        if part.is_empty() || other.start < own.start || other.end > own.end {
            return Self::from(part);
        }
        let offset = other.start.addr() - own.start.addr();
        self.range(offset..offset + part.len())
    }

    /// The part in a range of bytes, which must be in the text.
    fn range(&self, range: Range<usize>) -> Self {
        let offset = |at: usize| self.start + u32::try_from(at).expect("not longer than the whole text");
        Self { whole: self.whole.clone(), start: offset(range.start), end: offset(range.end) }
    }

    /// Without blanks at the end.
    #[must_use]
    pub(super) fn trim_end(&self) -> Self {
        self.range(0..self.as_str().trim_end().len())
    }
}

impl From<String> for Text {
    /// # Panics
    /// If the text is 4 GiB long.
    fn from(text: String) -> Self {
        if text.is_empty() {
            return Self::default();
        }
        let end = u32::try_from(text.len()).expect("texts of Dockerfiles are shorter than 4 GiB");
        Self { whole: Some(Arc::new(text)), start: 0, end }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::from(text.to_owned())
    }
}

impl From<Text> for String {
    fn from(text: Text) -> Self {
        text.as_str().to_owned()
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.as_str(), f)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialEq<str> for Text {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Text {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl PartialEq<String> for Text {
    fn eq(&self, other: &String) -> bool {
        self.as_str() == other
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_share_the_bytes() {
        let whole = Text::from("RUN a  ");
        assert_eq!(std::mem::size_of::<Text>(), 16);
        let part = whole.part(&whole[4..]);
        assert_eq!((&part[..], &part.trim_end()[..], &part.part(&part[1..2])[..]), ("a  ", "a", " "));
        assert!(std::ptr::eq(&raw const part.trim_end()[..1], &raw const whole[4..5]));
        // What points elsewhere is copied.
        assert_eq!(part.part("RUN"), "RUN");
        assert_eq!(part.part(&whole[..3]), "RUN");
        assert_eq!((whole.part(""), Text::from(String::new())), (Text::default(), Text::default()));
    }
}

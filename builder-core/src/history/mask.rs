//! [`Mask`]: values of secrets never reach a log.

/// Values shorter than this are left as they are: hiding every `1` would hide everything, and they hide nothing.
const SHORTEST: usize = 4;

/// Lines of a secret of several lines that are hidden on their own, too.
const SHORTEST_LINE: usize = 8;

/// What stands for a hidden value.
const STARS: &[u8] = b"***";

/// Values that must not be written.
#[derive(Debug, Clone, Default)]
pub struct Mask {
    /// Longest first, so that a value which begins with another one is hidden as a whole.
    values: Vec<Vec<u8>>,
}

impl Mask {
    /// Hides a value, apart from white space around it, and its lines.
    pub fn hide(&mut self, value: &[u8]) {
        let lines =
            value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| line.len() >= SHORTEST_LINE);
        let whole = Some(value.trim_ascii()).filter(|value| value.len() >= SHORTEST);
        for value in lines.chain(whole) {
            if !self.values.iter().any(|known| known == value) {
                self.values.push(value.to_vec());
            }
        }
        self.values.sort_by_key(|value| std::cmp::Reverse(value.len()));
    }

    /// Takes from `pending` what can be written, with every value hidden. Unless it is the end, bytes that may be the
    /// beginning of a value stay.
    pub fn take(&self, pending: &mut Vec<u8>, end: bool) -> Vec<u8> {
        if self.values.is_empty() {
            return std::mem::take(pending);
        }
        let mut out = Vec::with_capacity(pending.len());
        let mut at = 0;
        while at < pending.len() {
            let rest = &pending[at..];
            // What may become a longer value with the next bytes has to wait for them.
            if !end && self.values.iter().any(|value| value.len() > rest.len() && value.starts_with(rest)) {
                break;
            }
            if let Some(value) = self.values.iter().find(|value| rest.starts_with(value)) {
                out.extend_from_slice(STARS);
                at += value.len();
            } else {
                out.push(pending[at]);
                at += 1;
            }
        }
        pending.drain(..at);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(secrets: &[&str], text: &str, expected: &str) {
        let mut mask = Mask::default();
        for secret in secrets {
            mask.hide(secret.as_bytes());
        }
        for size in 1..=text.len() {
            let (mut pending, mut out) = (Vec::new(), Vec::new());
            for piece in text.as_bytes().chunks(size) {
                pending.extend_from_slice(piece);
                out.extend(mask.take(&mut pending, false));
            }
            out.extend(mask.take(&mut pending, true));
            assert_eq!(String::from_utf8_lossy(&out), expected, "pieces of {size}");
        }
    }

    #[test]
    fn values_are_hidden_however_the_output_is_split() {
        check(&["hunter2\n"], "the password is hunter2, really\n", "the password is ***, really\n");
        check(&["abcd", "abcdef"], "abcdefg abcd abc", "***g *** abc");
        check(&["first line of a key\nsecond line of it\n"], "x second line of it\n", "x ***\n");
        check(&["123"], "123", "123");
        check(&[], "text", "text");
    }
}

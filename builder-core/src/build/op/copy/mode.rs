//! [`ModeChange`]: the value of `--chmod`.

use super::CopyError;

/// What `--chmod` does to the permission bits of everything but symbolic links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModeChange(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Exactly(u32),
    Steps(Vec<Step>),
}

/// One `+`, `-` or `=` of a symbolic mode, applied in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    Clear(u32),
    Set(u32),
    /// Sets bits of directories, and of files that somebody could execute before.
    SetIfExecutable(u32),
    /// Takes the bits of one class (shift 6, 3 or 0) to others.
    Copy {
        from: u32,
        to: u32,
        operator: u8,
    },
}

/// Everything that `a` stands for: permissions and both set-id bits, not the sticky bit.
const ALL: u32 = 0o6777;

const STICKY: u32 = 0o1000;

impl ModeChange {
    /// Parses an octal number up to 07777, or a symbolic mode as of `chmod(1)`: `u=rwX,go=rX`, `+x`, `g=u`.
    ///
    /// # Errors
    /// [`CopyError::Mode`] for anything else.
    pub fn parse(text: &str) -> Result<Self, CopyError> {
        let bad = || CopyError::Mode(text.to_owned());
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let octal = text.bytes().all(|byte| matches!(byte, b'0'..=b'7'));
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| octal && *mode <= 0o7777);
            return mode.map(|mode| Self(Kind::Exactly(mode))).ok_or_else(bad);
        }
        let mut steps = Vec::new();
        for clause in text.split(',') {
            parse_clause(clause.as_bytes(), &mut steps).ok_or_else(bad)?;
        }
        Ok(Self(Kind::Steps(steps)))
    }

    /// The bits of a directory that is made for what is copied: those of a number, less set-id and sticky bits.
    pub fn of_made_directory(&self) -> Option<u32> {
        match self.0 {
            Kind::Exactly(mode) => Some(mode & 0o777),
            Kind::Steps(_) => None,
        }
    }

    /// The bits of a file or directory that has had `mode`.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let steps = match &self.0 {
            Kind::Exactly(mode) => return *mode,
            Kind::Steps(steps) => steps,
        };
        let mut bits = mode;
        for step in steps {
            match *step {
                Step::Clear(cleared) => bits &= !cleared,
                Step::Set(set) => bits |= set,
                Step::SetIfExecutable(set) if is_directory || mode & 0o111 != 0 => bits |= set,
                Step::SetIfExecutable(_) => {}
                Step::Copy { from, to, operator } => {
                    let class = bits >> from & 0o7;
                    let everywhere = (class << 6 | class << 3 | class) & to;
                    bits = match operator {
                        b'+' => bits | everywhere,
                        b'-' => bits & !everywhere,
                        _ => bits & !(to & 0o777) | everywhere,
                    };
                }
            }
        }
        bits
    }
}

/// `[ugoa…]` then any number of `+-=` each with `[rwxXstugo…]`.
fn parse_clause(clause: &[u8], steps: &mut Vec<Step>) -> Option<()> {
    let length = clause.iter().take_while(|byte| b"ugoa".contains(byte)).count();
    let (named, mut rest) = clause.split_at(length);
    let who = named.iter().fold(0, |who, byte| who | bits_of_class(*byte));
    if rest.is_empty() {
        return None;
    }
    while let Some((&operator, after)) = rest.split_first() {
        if !b"+-=".contains(&operator) {
            return None;
        }
        let length = after.iter().take_while(|byte| !b"+-=".contains(byte)).count();
        let (permissions, next) = after.split_at(length);
        parse_permissions(operator, who, permissions, steps)?;
        rest = next;
    }
    Some(())
}

fn parse_permissions(operator: u8, who: u32, permissions: &[u8], steps: &mut Vec<Step>) -> Option<()> {
    // Only `o` has no set-id bits to change.
    let special = who == 0 || who & !0o007 != 0;
    let mut who = who;
    let mut bits = Bits::default();
    let mut cleared = operator != b'=';
    for permission in permissions {
        match permission {
            b'r' => bits.set |= 0o444,
            b'w' => bits.set |= 0o222,
            b'x' => bits.set |= 0o111,
            // `-X` means nothing to the mode library that BuildKit uses.
            b'X' if operator != b'-' => bits.set_if_executable |= 0o111,
            b's' if special => bits.set |= 0o6000,
            b't' if special => {
                // With nobody named this is the only bit that changes.
                who |= STICKY;
                bits.set |= STICKY;
            }
            b'X' | b's' | b't' => {}
            b'u' | b'g' | b'o' => {
                if bits.set != 0 {
                    bits.push(operator, who, steps);
                }
                cleared = true;
                bits.push_conditional(who, steps);
                let from = if *permission == b'u' {
                    6
                } else if *permission == b'g' {
                    3
                } else {
                    0
                };
                let to = if who == 0 { 0o777 } else { who & 0o777 };
                steps.push(Step::Copy { from, to, operator });
            }
            _ => return None,
        }
    }
    if bits.set != 0 || !cleared {
        bits.push(operator, who, steps);
    }
    bits.push_conditional(who, steps);
    Some(())
}

/// Permissions that were read and not made into steps yet.
#[derive(Debug, Default)]
struct Bits {
    set: u32,
    set_if_executable: u32,
}

impl Bits {
    fn push(&mut self, operator: u8, who: u32, steps: &mut Vec<Step>) {
        let bits = std::mem::take(&mut self.set) & if who == 0 { !0 } else { who };
        if operator == b'=' {
            steps.push(Step::Clear(if who == 0 { ALL } else { who }));
        }
        steps.push(if operator == b'-' { Step::Clear(bits) } else { Step::Set(bits) });
    }

    fn push_conditional(&mut self, who: u32, steps: &mut Vec<Step>) {
        let bits = std::mem::take(&mut self.set_if_executable) & if who == 0 { !0 } else { who };
        if bits != 0 {
            steps.push(Step::SetIfExecutable(bits));
        }
    }
}

fn bits_of_class(class: u8) -> u32 {
    match class {
        b'u' => 0o4700,
        b'g' => 0o2070,
        b'o' => 0o0007,
        _ => ALL,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Rows: A94.
    #[test]
    fn modes_change_as_with_chmod() {
        for (text, before, is_directory, after) in [
            ("755", 0o644, false, 0o755),
            ("0", 0o777, true, 0),
            ("07777", 0o644, false, 0o7777),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("+w", 0o444, false, 0o666),
            ("a=u", 0o740, false, 0o777),
            ("ug=u", 0o2740, false, 0o2770),
            ("g=rwu", 0o140, false, 0o110),
            ("go=u-w", 0o700, false, 0o755),
            ("=X", 0o755, true, 0o111),
            ("-X", 0o755, true, 0o755),
            ("=t", 0o640, false, 0o1640),
            ("+xt", 0o640, false, 0o1640),
            ("go-w", 0o666, false, 0o644),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("a+X", 0o640, false, 0o640),
            ("a+X", 0o640, true, 0o751),
            ("g=u", 0o740, false, 0o770),
            ("o=g", 0o751, false, 0o755),
            ("go=", 0o777, false, 0o700),
            ("=r", 0o777, false, 0o444),
            ("u+s", 0o755, false, 0o4755),
            ("g+s,o+t", 0o755, true, 0o2755),
            ("a+t", 0o777, true, 0o1777),
            ("+t", 0o777, true, 0o1777),
            ("u=rwx", 0o4711, false, 0o711),
            ("u-x+w", 0o555, false, 0o655),
            ("ug-rwx", 0o777, false, 0o007),
            ("go-u", 0o757, false, 0o700),
            ("a=rx", 0o1777, true, 0o1555),
        ] {
            assert_eq!(ModeChange::parse(text).expect(text).apply(before, is_directory), after, "{text} {before:o}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "8", "10000", "0o755", "u", "x", "u+z", "u+x,", ",u+x", "755x", "u*x", "+x,8"] {
            assert!(ModeChange::parse(text).is_err(), "{text}");
        }
    }
}

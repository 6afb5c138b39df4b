//! What vertices and history entries are called: BuildKit's texts, letter by letter, because people and tools read them.

use std::fmt::Write as _;
use std::time::Duration;

use super::env::Scope;
use crate::oci::Platform;

/// Numbers the vertices of a stage: `[build 2/4] `.
#[derive(Debug, Clone, Default)]
pub(super) struct Counter {
    /// The stage; empty if it needs no name.
    pub(super) label: String,
    pub(super) shown: usize,
    pub(super) total: usize,
    /// The platform, if names show it.
    pub(super) platform: Option<Platform>,
}

impl Counter {
    /// Counts a vertex that has its name from elsewhere.
    pub(super) fn skip(&mut self) {
        self.shown += 1;
    }

    /// The name of the next vertex. `scope` tells the platform that a command compiles for.
    pub(super) fn next(&mut self, text: &str, on_build: bool, scope: Option<&Scope>) -> String {
        if self.total == 0 {
            return text.to_owned();
        }
        self.shown += 1;
        let mut name = "[".to_owned();
        if let Some(platform) = &self.platform {
            let compiled = scope.map_or_else(String::new, |scope| cross(platform, scope));
            let _ = write!(name, "{platform}{compiled} ");
        }
        if !self.label.is_empty() {
            let _ = write!(name, "{} ", self.label);
        }
        let width = self.total.ilog10() as usize + 1;
        let _ = write!(name, "{:width$}/{}] ", self.shown, self.total);
        if on_build {
            name.push_str("ONBUILD ");
        }
        name.push_str(text);
        name
    }
}

/// `->arm64`, where `TARGETPLATFORM` or its parts are in scope and differ from the platform of the stage.
fn cross(base: &Platform, scope: &Scope) -> String {
    let whole = scope.get("TARGETPLATFORM").and_then(|text| text.parse::<Platform>().ok());
    let (os, architecture) = (scope.get("TARGETOS"), scope.get("TARGETARCH"));
    let parts = || {
        let os = os.filter(|os| !os.is_empty()).unwrap_or(&base.os);
        let architecture = architecture.filter(|name| !name.is_empty()).unwrap_or(&base.architecture);
        Platform::new(os, architecture, scope.get("TARGETVARIANT"))
    };
    let declared = os.is_some() || architecture.is_some() || scope.get("TARGETVARIANT").is_some();
    let Some(target) = whole.or_else(|| declared.then(parts)) else { return String::new() };
    if target.os != base.os {
        return format!("->{target}");
    }
    if target.architecture == base.architecture {
        return String::new();
    }
    let variant = target.variant.map(|variant| format!("/{variant}")).unwrap_or_default();
    format!("->{}{variant}", target.architecture)
}

/// The first word in capitals.
pub(super) fn upper_case_name(text: &str) -> String {
    let (name, rest) = text.split_at(text.find(' ').unwrap_or(text.len()));
    name.to_uppercase() + rest
}

/// A here-document in short: its first line, and dots if there are more.
pub(super) fn summary(body: &str) -> String {
    let body = body.trim();
    let first = body.lines().next().unwrap_or("");
    if body.contains('\n') { format!("{first}...") } else { first.to_owned() }
}

/// `[a b]`, as Go prints a list.
pub(super) fn list(words: &[String]) -> String {
    format!("[{}]", words.join(" "))
}

/// `["a" "b"]`, as Go prints a list of quoted words.
pub(super) fn quoted_list(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| quote(word)).collect();
    list(&quoted)
}

/// A word in double quotes, as Go's `%q`.
pub(super) fn quote(word: &str) -> String {
    let mut quoted = "\"".to_owned();
    for ch in word.chars() {
        escape(&mut quoted, ch);
    }
    quoted.push('"');
    quoted
}

/// Writes a letter as Go does between double quotes.
fn escape(quoted: &mut String, ch: char) {
    match ch {
        '"' | '\\' => quoted.extend(['\\', ch]),
        '\x07' => quoted.push_str("\\a"),
        '\x08' => quoted.push_str("\\b"),
        '\x0c' => quoted.push_str("\\f"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        '\x0b' => quoted.push_str("\\v"),
        ch if ch.is_ascii_control() => {
            let _ = write!(quoted, "\\x{:02x}", u32::from(ch));
        }
        ch if !is_printable(ch) => {
            let code = u32::from(ch);
            let _ = if code < 0x1_0000 { write!(quoted, "\\u{code:04x}") } else { write!(quoted, "\\U{code:08x}") };
        }
        ch => quoted.push(ch),
    }
}

/// Whether Go shows a letter as it is: no control, format, private or separating character but the blank.
fn is_printable(ch: char) -> bool {
    let hidden = matches!(ch,
        '\u{a0}' | '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
        | '\u{8e2}' | '\u{1680}' | '\u{180e}' | '\u{2000}'..='\u{200f}' | '\u{2028}'..='\u{202f}'
        | '\u{205f}'..='\u{206f}' | '\u{3000}' | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
        | '\u{fffe}'..='\u{ffff}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e00ff}'
        | '\u{e01f0}'..='\u{10ffff}');
    !hidden && !ch.is_control()
}

/// `1m30s`, as Go prints a duration.
pub(super) fn duration(time: Duration) -> String {
    let nanoseconds = time.as_nanos();
    let fraction = |unit: u128, name: &str| {
        let digits = unit.ilog10() as usize;
        let part = format!("{:0digits$}", nanoseconds % unit);
        let part = part.trim_end_matches('0');
        let dot = if part.is_empty() { "" } else { "." };
        format!("{}{dot}{part}{name}", nanoseconds / unit)
    };
    if nanoseconds == 0 {
        return "0s".to_owned();
    }
    match nanoseconds {
        0..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => fraction(1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(1_000_000, "ms"),
        _ => {
            let (hours, minutes) = (time.as_secs() / 3600, time.as_secs() / 60 % 60);
            let seconds = Duration::new(time.as_secs() % 60, time.subsec_nanos());
            let part = format!("{:09}", seconds.subsec_nanos());
            let part = part.trim_end_matches('0');
            let dot = if part.is_empty() { "" } else { "." };
            let seconds = format!("{}{dot}{part}s", seconds.as_secs());
            match (hours, minutes) {
                (0, 0) => seconds,
                (0, _) => format!("{minutes}m{seconds}"),
                _ => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_look_as_in_go() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (300_000_000, "300ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (3_661_250_000_000, "1h1m1.25s"),
        ] {
            assert_eq!(duration(Duration::from_nanos(nanoseconds)), text);
        }
    }

    #[test]
    fn words_are_quoted_as_in_go() {
        assert_eq!(quote("a \"b\"\\\n\t\x01\x7fé\u{85}"), r#""a \"b\"\\\n\t\x01\x7fé\u0085""#);
        assert_eq!(quote("\u{a0}\u{200b}☃\u{10ffff}"), r#""\u00a0\u200b☃\U0010ffff""#);
        assert_eq!(quoted_list(&["sh".into(), "-c".into()]), r#"["sh" "-c"]"#);
        assert_eq!(quoted_list(&[]), "[]");
    }

    #[test]
    fn vertices_are_numbered() {
        let mut counter = Counter { label: "build".into(), total: 12, ..Counter::default() };
        assert_eq!(counter.next("RUN a", false, None), "[build  1/12] RUN a");
        assert_eq!(counter.next("RUN b", true, None), "[build  2/12] ONBUILD RUN b");
        let mut counter = Counter { total: 3, ..Counter::default() };
        assert_eq!(counter.next("RUN a", false, None), "[1/3] RUN a");
        assert_eq!(Counter::default().next("FROM a", false, None), "FROM a");
    }

    #[test]
    fn names_show_what_is_compiled_for() {
        let name = |variables: &[(&str, &str)]| {
            let mut scope = Scope::default();
            for (name, value) in variables {
                scope.set(name, value);
            }
            let platform = Some(Platform::new("linux", "amd64", None));
            Counter { total: 1, platform, ..Counter::default() }.next("RUN", false, Some(&scope))
        };
        assert_eq!(name(&[]), "[linux/amd64 1/1] RUN");
        assert_eq!(name(&[("TARGETPLATFORM", "linux/arm64")]), "[linux/amd64->arm64 1/1] RUN");
        assert_eq!(name(&[("TARGETARCH", "arm"), ("TARGETVARIANT", "v6")]), "[linux/amd64->arm/v6 1/1] RUN");
        assert_eq!(name(&[("TARGETOS", "windows")]), "[linux/amd64->windows/amd64 1/1] RUN");
        assert_eq!(name(&[("TARGETARCH", "amd64")]), "[linux/amd64 1/1] RUN");
    }

    #[test]
    fn here_documents_are_shortened() {
        assert_eq!(summary("\nset -e\nmake\n"), "set -e...");
        assert_eq!(summary("make\n"), "make");
        assert_eq!(upper_case_name("run make"), "RUN make");
    }
}

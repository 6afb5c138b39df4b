//! Patterns as moby's patternmatcher reads them.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn matcher(patterns: &[&str]) -> Matcher {
    Matcher::new(patterns.iter().enumerate().map(|(at, text)| (at + 1, text))).expect("valid patterns")
}

// Rows: E7.
#[test]
fn single_patterns_match_as_in_moby() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/", "file", true),
        ("**/", "dir/file/", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir", false),
        ("dir/**", "dir2/file", false),
        ("**/dir", "dir", true),
        ("**/dir", "a/b/dir", true),
        ("**/dir", "a/b/dirx", false),
        ("**/dir2/*", "dir/dir2/file", true),
        ("**/dir2/*", "dir2/file", true),
        ("**/dir2/**", "dir/dir2/dir2/file", true),
        ("**file", "file", true),
        ("**file", "dir/dir/file", true),
        ("**/file", "dir/dir/file", true),
        ("**/file*", "dir/dir/file.txt", true),
        ("**/file*txt", "dir/dir/file.txt", true),
        ("**/file*.txt*", "dir/dir/file.txt", true),
        ("**/**/*.txt", "dir/dir/file.txt", true),
        ("**/**/*.txt2", "dir/dir/file.txt", false),
        ("**/*.txt", "file.txt", true),
        ("**/**/*.txt", "file.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/**/*.txt", "a/file.txt", true),
        ("a[b-d]e", "ace", true),
        ("a[b-d]e", "aae", false),
        ("a[^b-d]e", "aze", true),
        (".*", ".foo", true),
        (".*", "foo", false),
        ("abc.def", "abcdef", false),
        ("abc.def", "abc.def", true),
        ("abc?def", "abcZdef", true),
        ("abc?def", "abcdef", false),
        ("a\\\\", "a\\", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/dir2/foo/bar", true),
        ("abc/**", "abc/def/ghi", true),
        ("**/.foo", ".foo", true),
        ("**/.foo", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a(b)c/def", "a(b)c/xyz", false),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        (
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            "dist/proxy.py-2.4.0rc3.dev36+g08acad9-py3-none-any.whl",
            true,
        ),
        ("./bin/../src/", "src", true),
        ("a", "a/b/c", true),
        ("{a,b}", "a", false),
        ("[!a]", "!", true),
        ("[[:alpha:]]", "q", true),
        ("?", "é", true),
        ("a&&[b]", "a&&b", true),
        ("[&&a]", "&", true),
        (" spaced ", "spaced", true),
    ] {
        assert_eq!(
            matcher(&[pattern]).judge_path(path.trim_end_matches('/').as_bytes()).matched,
            expected,
            "{pattern} {path}"
        );
    }
}

#[test]
fn the_last_pattern_wins_and_is_named() {
    let check = |patterns: &[&str], path: &str, matched: bool, line: usize| {
        assert_eq!(matcher(patterns).judge_path(path.as_bytes()), Verdict { matched, line }, "{patterns:?} {path}");
    };
    check(&["*.md", "!README.md"], "README.md", false, 2);
    check(&["*.md", "!README.md"], "other.md", true, 1);
    check(&["!README.md", "*.md"], "README.md", true, 2);
    check(&["a", "!a/b"], "a/b/c", false, 2);
    check(&["a", "!a/b", "a/b/c"], "a/b/c", true, 3);
    check(&["**", "!util/docker/web"], "util/docker/web/foo", false, 2);
    check(&["**", "!util/docker/web", "util/docker/web/foo"], "util/docker/web/foo", true, 3);
    check(&["x"], "y", false, 0);
    // `node_modules` changes nothing for the directory, so it does not count in it.
    check(&["*", "!**/*.md", "node_modules"], "node_modules/x.md", false, 2);
    check(&["**/d", "!*"], "d/f", false, 2);
    check(&["**/d", "!*"], "g/d/f", true, 1);
    check(&["**/d", "!*", "**/d"], "g/d/f", true, 1);
    check(&["d", "!d/f", "d"], "d/f", false, 2);
    let strictly = |patterns: &[&str], path: &str| matcher(patterns).strict().judge_path(path.as_bytes());
    let check = |patterns: &[&str], path: &str, matched: bool, line: usize| {
        assert_eq!(strictly(patterns, path), Verdict { matched, line }, "{patterns:?} {path}");
    };
    check(&["*", "!**/*.md", "node_modules"], "node_modules/x.md", true, 3);
    check(&["*", "!**/*.md", "node_modules"], "x.md", false, 2);
    check(&["**/d", "!*"], "g/d/f", true, 1);
    check(&["d", "!d/f", "d"], "d/f", true, 3);
    check(&["a", "!a/b"], "a/b/c", false, 2);
    check(&["*", "a"], "a", true, 1);
}

#[test]
fn bad_patterns_name_their_line() {
    for (pattern, bad) in [
        ("!", BadPattern::Negation),
        ("[", BadPattern::Class),
        ("a\\", BadPattern::Escape),
        ("[z-a]", BadPattern::Syntax),
    ] {
        assert_eq!(Matcher::new([(7, pattern)]).expect_err(pattern), (7, pattern.as_bytes().to_vec(), bad));
    }
}

// Rows: E8.
#[test]
fn only_directories_that_can_hold_a_match_are_entered() {
    let entered = |patterns: &[&str], directory: &str| {
        let matcher = matcher(patterns);
        let (verdict, above) = matcher.enter(&matcher.root(), directory.as_bytes());
        assert!(verdict.matched, "{patterns:?} {directory}");
        matcher.can_take_back_below(&above, directory.as_bytes())
    };
    assert!(!entered(&["*"], "a"));
    assert!(entered(&["*", "!a/b"], "a"));
    assert!(!entered(&["*", "!a/b"], "c"));
    assert!(!entered(&["*", "!a"], "ab"));
    assert!(entered(&["*", "!*/keep"], "c"));
    assert!(entered(&["*", "!**/*.md"], "c"));
    assert!(entered(&["*", "!**/*.md", "node_modules"], "node_modules"));
    assert!(!entered(&["!**/*.md", "node_modules"], "node_modules"));
    let strict = matcher(&["*", "!**/*.md", "node_modules"]).strict();
    let (_, above) = strict.enter(&strict.root(), b"node_modules");
    assert!(!strict.can_take_back_below(&above, b"node_modules"));
    assert!(entered(&["*", "!x[a]/b"], "xa"));
    let include = matcher(&["src/*/main.rs"]);
    assert!(include.can_match_below(b"src") && include.can_match_below(b"src/app"));
    assert!(!include.can_match_below(b"lib") && !include.can_match_below(b"src/app/main.rs"));
}

#[test]
fn names_that_are_not_text_match_byte_by_byte() {
    assert!(matcher(&["a?c*"]).judge_path(b"a\xffcd").matched);
    let bytes = Matcher::new([(1, &b"\xfe"[..])]).expect("valid");
    assert!(bytes.judge_path(b"\xfe").matched && !bytes.judge_path(b"\xff").matched);
}

fn any_pattern() -> impl Strategy<Value = String> {
    let element = prop::sample::select(vec!["a", "b", "ab", "*", "**", "?", "a*", "*b", "[ab]", "a**"]);
    (any::<bool>(), prop::collection::vec(element, 1..4))
        .prop_map(|(negated, elements)| format!("{}{}", if negated { "!" } else { "" }, elements.join("/")))
}

/// The last pattern decides that matches the path or a directory above it.
fn by_definition(patterns: &[String], path: &str) -> bool {
    let elements: Vec<&str> = path.split('/').collect();
    let prefixes: Vec<String> = (1..=elements.len()).map(|length| elements[..length].join("/")).collect();
    patterns.iter().fold(false, |matched, pattern| {
        let one = Matcher::new([(1, pattern.trim_start_matches('!'))]).expect("valid");
        let says = prefixes.iter().any(|prefix| one.judge(&one.root(), prefix.as_bytes()).matched);
        if says { !pattern.starts_with('!') } else { matched }
    })
}

/// The last pattern decides that matches the path, or that had a say in a directory above it.
fn slowly(patterns: &[String], path: &str) -> bool {
    let elements: Vec<&str> = path.split('/').collect();
    let mut had_a_say = BTreeSet::new();
    let mut matched = false;
    for length in 1..=elements.len() {
        let prefix = elements[..length].join("/");
        matched = false;
        for (at, pattern) in patterns.iter().enumerate() {
            let negated = pattern.starts_with('!');
            let one = Matcher::new([(1, pattern.trim_start_matches('!'))]).expect("valid");
            if negated == matched && one.judge(&one.root(), prefix.as_bytes()).matched {
                had_a_say.insert(at);
            }
            if had_a_say.contains(&at) {
                matched = !negated;
            }
        }
    }
    matched
}

proptest! {
    #[test]
    fn judging_on_the_way_down_is_judging_the_path(
        patterns in prop::collection::vec(any_pattern(), 0..6),
        path in prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "c"]), 1..5),
    ) {
        let path = path.join("/");
        let matcher = Matcher::new(patterns.iter().enumerate()).expect("valid");
        prop_assert_eq!(matcher.judge_path(path.as_bytes()).matched, slowly(&patterns, &path));
        let strictly = matcher.strict().judge_path(path.as_bytes()).matched;
        prop_assert_eq!(strictly, slowly(&patterns, &path) || by_definition(&patterns, &path));
    }

    #[test]
    fn nothing_is_missed_in_a_directory_that_is_not_entered(
        patterns in prop::collection::vec(any_pattern(), 0..6),
        path in prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "c"]), 2..5),
        strict in any::<bool>(),
    ) {
        let path = path.join("/");
        let matcher = Matcher::new(patterns.iter().enumerate()).expect("valid");
        let matcher = if strict { matcher.strict() } else { matcher };
        let mut above = matcher.root();
        for (at, _) in path.match_indices('/') {
            let directory = &path.as_bytes()[..at];
            let (verdict, inside) = matcher.enter(&above, directory);
            if verdict.matched && !matcher.can_take_back_below(&inside, directory) {
                prop_assert!(matcher.judge_path(path.as_bytes()).matched);
            }
            if !verdict.matched && !matcher.can_match_below(directory) {
                prop_assert!(!matcher.judge_path(path.as_bytes()).matched);
            }
            above = inside;
        }
    }

    #[test]
    fn any_bytes_are_a_pattern_or_an_error(text in prop::collection::vec(any::<u8>(), 0..40), path in "[a-c/]{0,12}") {
        if let Ok(matcher) = Matcher::new([(1, &text)]) {
            matcher.judge_path(path.as_bytes());
            matcher.can_match_below(path.as_bytes());
        }
        if let Ok(glob) = Glob::new(&text) {
            glob.matches(path.as_bytes());
        }
    }

    #[test]
    fn any_class_is_understood_or_an_error(text in "[\\[\\]a-c^&~\\\\:!-]{0,12}", path in "[a-c&~!^:-]{0,4}") {
        if let Ok(matcher) = Matcher::new([(1, &text)]) {
            matcher.judge_path(path.as_bytes());
        }
    }
}

//! Any bytes as an ignore file: no panic; what the walk prunes agrees with what the patterns say of each path, and a
//! pruned directory has nothing in it that a pattern takes back.
#![no_main]

use builder_core::context::{Glob, IgnoreFile, Matcher};
use builder_core::diagnostic::Source;

/// Small enough that every path below three levels is tried.
const NAMES: [&[u8]; 4] = [b"a", b"b", b"a.b", b"\xc3\xa9\xff"];

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = IgnoreFile::parse(Source::new(".dockerignore", bytes));
    let _ = Glob::new(bytes).map(|glob| NAMES.map(|name| glob.matches(name)));
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let Ok(matcher) = Matcher::new(lines) else { return };
    for first in NAMES {
        let (verdict, above) = matcher.enter(&matcher.root(), first);
        assert_eq!(verdict, matcher.judge_path(first));
        let pruned = verdict.matched && !matcher.can_take_back_below(&above, first);
        for second in NAMES {
            let path = [first, second].join(&b'/');
            let verdict = matcher.judge_path(&path);
            assert_eq!(verdict, matcher.judge(&above, &path));
            assert!(!pruned || verdict.matched);
        }
    }
});

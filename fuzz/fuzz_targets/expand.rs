//! Any text as a word, a mount, a port and a signal: no panic, and no result that is longer than its limit.
#![no_main]

use builder_core::dockerfile::expand::MAX_WORD;
use builder_core::dockerfile::{Expander, Mount, parse_ports, parse_signal};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let lookup = |name: &str| match name.len() {
        0 | 3.. => None,
        1 => Some("a/b*c".repeat(3)),
        _ => Some(String::new()),
    };
    for escape in ['\\', '`'] {
        let expander = Expander::new(escape);
        let limit = MAX_WORD.max(text.len());
        if let Ok(expanded) = expander.word(text, &lookup) {
            assert!(expanded.text.len() <= limit);
        }
        if let Ok(expanded) = expander.words(text, &lookup) {
            assert!(expanded.words.iter().map(String::len).sum::<usize>() <= limit);
            assert!(expanded.words.iter().all(|word| !word.is_empty()));
        }
        let _ = expander.heredoc(text, &lookup);
        let _ = Mount::expand(text, &expander, &lookup);
    }
    let _ = parse_ports(text);
    let _ = parse_signal(text);
});

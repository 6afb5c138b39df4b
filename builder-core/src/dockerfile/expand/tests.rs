use super::*;

/// The variables of all tables here.
fn lookup(name: &str) -> Option<String> {
    let value = match name {
        "X" => "x",
        "E" => "",
        "SP" => "a  b",
        "PORTS" => "80 81",
        "P" => "/usr/lib/libfoo.so.1",
        "V" => "abcabc",
        "STAR" => "a*c",
        "LINES" => "one\ntwo",
        "DOLLAR" => "$1",
        "Äb" => "umlaut",
        _ => return None,
    };
    Some(value.to_owned())
}

fn check(input: &str, expected: &str) {
    match Expander::new('\\').word(input, &lookup) {
        Ok(expanded) => assert_eq!(expanded.text, expected, "{input}"),
        Err(error) => panic!("{input}: {error}"),
    }
}

fn check_error(input: &str, expected: &str) {
    let error = Expander::new('\\').word(input, &lookup).expect_err(input);
    assert_eq!(error.to_string(), expected, "{input}");
}

fn check_words(input: &str, expected: &[&str]) {
    let words = Expander::new('\\').words(input, &lookup).expect(input).words;
    assert_eq!(words, expected, "{input}");
}

// Rows: A20.
#[test]
fn plain_variables() {
    check("a", "a");
    check("$X", "x");
    check("${X}", "x");
    check("a$X-b${X}c", "ax-bxc");
    check("$X_", "");
    check("$X.y", "x.y");
    check("$", "$");
    check("a$ b", "a$ b");
    check("$/x", "$/x");
    check("$$", "");
    check("$1a$12", "a");
    check("$@$*$#$?$-$!$0|", "|");
    check("${1}${@}|", "|");
    check("$Äb", "umlaut");
}

// Rows: A21, A22.
#[test]
fn conditional_operators() {
    check("${N:-d}${N-d}${X:-d}${X-d}", "ddxx");
    check("${E:-d}|${E-d}|", "d||");
    check("${N:+d}${N+d}${X:+d}${X+d}", "dd");
    check("${E:+d}|${E+d}|", "|d|");
    check("${N:-${M:-$X}}", "x");
    check("${N:-\"a b\"}${N:-'$X'}", "a b$X");
    check("${N:-a\\}b}", "a}b");
    check("${X:?m}${X?}${E?}", "xx");
    check_error("${N:?need it}", "N: need it");
    check_error("${N?}", "N: is not allowed to be unset");
    check_error("${E:?}", "E: is not allowed to be empty");
}

// Rows: A23.
#[test]
fn removal_of_prefixes_and_suffixes() {
    check("${P#/usr/}", "lib/libfoo.so.1");
    check("${P#*/}", "usr/lib/libfoo.so.1");
    check("${P##*/}", "libfoo.so.1");
    check("${P%/*}", "/usr/lib");
    check("${P%%/*}", "");
    check("${P%.*}", "/usr/lib/libfoo.so");
    check("${P%%.*}", "/usr/lib/libfoo");
    check("${P%.?}", "/usr/lib/libfoo.so");
    check("${P##*nothing}", "/usr/lib/libfoo.so.1");
    check("${STAR#a\\*}", "c");
    check("${STAR#a?}", "c");
    check("${V##*b*c}|${V#*b*c}", "|abc");
    check("${V%b*}|${V%%b*}", "abca|a");
    check("${LINES#*o}|", "ne\ntwo|");
    check("${LINES##*o}|", "ne\ntwo|");
    check("${N#a}${E##*}", "");
    check_error("${V#a\\b}", "invalid pattern `a\\b` in substitution: invalid escape `\\b`");
    check_error("${V:#a}", "unsupported modifier `:#` in substitution");
}

// Rows: A24.
#[test]
fn replacement() {
    check("${V/b/X}", "aXcabc");
    check("${V//b/X}", "aXcaXc");
    check("${V/b/}|${V//b/}", "acabc|acac");
    check("${V/b*/-}|${V//b*/-}", "a-|a-");
    check("${V//?/.}", "......");
    check("${V/nothing/x}", "abcabc");
    check("${P//\\//.}", ".usr.lib.libfoo.so.1");
    check("${V///-}", "-a-b-c-a-b-c-");
    check("${V//b/$X}", "axcaxc");
    check("${V//b/$DOLLAR}", "a$1ca$1c");
    check("${V//*z/-}", "abcabc");
    check("${LINES//*/-}", "-\n-");
    check_error("${V//b}", "syntax error: missing `/` in `${}`");
    check_error("${V/b/c", "syntax error: missing `}`");
}

// Rows: A25, A26.
#[test]
fn quotes_and_escapes() {
    check("'$X'", "$X");
    check("\"$X\"", "x");
    check("'a\\b'", "a\\b");
    check("\"a\\b\\\"\\$\\\\\"", "a\\b\"$\\");
    check("a\\bc", "abc");
    check("\\$X", "$X");
    check("\\${X}", "${X}");
    check("a\\", "a");
    check("a''b\"\"c", "abc");
    check("\"'\"'\"'", "'\"");
    check_error("'a", "unexpected end of statement while looking for the matching single quote");
    check_error("\"a", "unexpected end of statement while looking for the matching double quote");
    let backtick = Expander::new('`').word("a`$X\\b", &lookup).expect("a backtick escapes").text;
    assert_eq!(backtick, "a$X\\b");
}

#[test]
fn malformed_substitutions() {
    for input in ["${", "${X", "${X:", "${X:-", "${X:-a", "${X-${X}"] {
        check_error(input, "syntax error: missing `}`");
    }
    for input in ["${}", "${{X}}", "${:X}"] {
        check_error(input, "syntax error: bad substitution");
    }
    check_error("${X!a}", "unsupported modifier `!` in substitution");
    check_error("${X:=a}", "unsupported modifier `:=` in substitution");
    check_error("${N:0:3}", "unsupported modifier `:0` in substitution");
    check_error("${X[@]}", "unsupported modifier `[` in substitution");
}

// Rows: A31.
#[test]
fn words_are_split_after_expansion() {
    check_words("", &[]);
    check_words("  a  b ", &["a", "b"]);
    check_words("$PORTS", &["80", "81"]);
    check_words("\"$PORTS\" x", &["80 81", "x"]);
    check_words("a$SP", &["aa", "b"]);
    check_words("a\\ b c", &["a b", "c"]);
    check_words("'' a ''b", &["a", "b"]);
    check_words("$N", &[]);
    // What stands before a substitution with an operand is lost, as in BuildKit.
    check_words("80${N:-81} 1$X${X+2}3", &["81", "23"]);
    check_words("a b${X-}c \"d${X-}\"", &["a", "xc", "dx"]);
}

#[test]
fn blanks_after_two_angles_belong_to_the_word() {
    check_words("a << b", &["a", "<< b"]);
    check_words("<< \t$X", &["<< \tx"]);
    check_words("a<<  b < c", &["a<<  b", "<", "c"]);
    check_words("\\<< b", &["<<", "b"]);
    check_words("'<<' b", &["<<", "b"]);
    check_words("<<\u{b}b", &["<<", "b"]);
    check("a << b", "a << b");
}

#[test]
fn a_byte_order_mark_at_the_beginning_is_skipped() {
    check("\u{feff}a\u{feff}", "a\u{feff}");
    check_words("\u{feff}$X", &["x"]);
}

// Rows: A39.
#[test]
fn heredoc_bodies_keep_quotes() {
    let body = |text| Expander::new('`').heredoc(text, &lookup).expect(text).text;
    assert_eq!(body("\"$X\" '$X'\n"), "\"x\" 'x'\n");
    assert_eq!(body("\\$X \\\\ it's\n"), "$X \\ it's\n");
}

#[test]
fn names_are_reported() {
    let expanded = Expander::new('\\').word("$X$X${N}${M:-a}$E${O#a}$N", &lookup).expect("well formed");
    assert_eq!(expanded.used, ["X", "E"]);
    assert_eq!(expanded.unset, ["N", "M", "O"]);
}

#[test]
fn depth_is_bounded() {
    let nested = |depth: usize| format!("{}a{}", "${N:-".repeat(depth), "}".repeat(depth));
    check(&nested(MAX_DEPTH), "a");
    let error = Expander::new('\\').word(&nested(200_000), &lookup).expect_err("too deep");
    assert_eq!(error, ExpandError::TooDeep);
}

#[test]
fn length_is_bounded() {
    let long = |_: &str| Some("x".repeat(MAX_WORD / 2));
    let expander = Expander::new('\\');
    assert_eq!(expander.word("$a$a", &long).expect("just fits").text.len(), MAX_WORD);
    assert_eq!(expander.word("$a$a$a", &long), Err(ExpandError::TooLong { limit: MAX_WORD }));
    let mut rounds = 0;
    while expander.word("${a:+}", &long).is_ok() {
        rounds += 1;
        assert!(rounds < 100, "nothing counts what is looked up");
    }
}

#[test]
fn raw_words_keep_everything() {
    let words = |line| raw_words(line).map(|words| words.into_iter().map(|(word, _)| word).collect::<Vec<_>>());
    let expected = ["RUN", "cat", "<<'E'", "3<<-\"F\"", "\\$X", "${X:-a}"].map(str::to_owned).to_vec();
    assert_eq!(words("RUN cat <<'E' 3<<-\"F\" \\$X ${X:-a}"), Some(expected));
    assert_eq!(words("RUN echo it's <<E"), None);
    let shell = ["RUN", "${X:0:3}", "${X:=a", "b}", "<< E"].map(str::to_owned).to_vec();
    assert_eq!(words("RUN ${X:0:3} ${X:=a b} << E"), Some(shell));
    assert_eq!(words("RUN ${X[0]} <<E"), None);
    assert_eq!(words("RUN ${X:#a} <<E"), None);
    assert_eq!(raw_words("ab  cd").map(|words| words[1].1), Some(4));
}

proptest::proptest! {
    #[test]
    fn any_text_expands_or_fails(input in "\\PC{0,40}", dollars in "[${}:?+#%/*'\"\\\\aX -]{0,30}") {
        for escape in ['\\', '`'] {
            let expander = Expander::new(escape);
            for text in [&input, &dollars] {
                let _ = expander.word(text, &lookup);
                let _ = expander.words(text, &lookup);
                let _ = expander.heredoc(text, &lookup);
                let _ = raw_words(text);
            }
        }
    }
}

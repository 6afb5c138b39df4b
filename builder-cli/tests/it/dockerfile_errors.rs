//! Mistakes in a Dockerfile: place, line, caret, hint.

use crate::env::TestEnv;

// Rows: A8, A9, A10, A17, A44.
#[test]
fn the_parser_shows_the_place_of_each_mistake() {
    let env = TestEnv::new();
    let cases = [
        ("unknown instruction", "FROM scratch\nRNU apt-get update\n"),
        ("several", "FROM scratch\nRNU x\nCOPY a\nCOYP b c\n"),
        ("empty", "# nothing\n"),
        ("before from", "RUN x\nFROM scratch\n"),
        ("unknown flag", "FROM scratch\nCOPY --form=a b c\n"),
        ("heredoc", "FROM scratch\nRUN <<EOF\necho\n"),
        ("directive", "# escape=x\nFROM scratch\n"),
        ("quote", "FROM scratch\nENV a=\"b\n"),
        ("control bytes", "FROM scratch\nR\x1b[31mUN x\n"),
        ("mount", "FROM scratch\nRUN --mount=type=cahce,target=/x true\n"),
    ];
    let shown: String =
        cases.iter().map(|(name, text)| format!("== {name}\n{}\n", env.dockerfile_fails(text))).collect();
    insta::assert_snapshot!(shown);
}

#[test]
fn no_bytes_make_it_panic() {
    let env = TestEnv::new();
    for bytes in [
        &b"\xff\xfe\x00"[..],
        b"FROM \xff\n",
        b"\0",
        b"FROM a\\",
        b"# syntax=\xf0\x9f\n",
        b"FROM ${",
        b"FROM a AS \xc3\x28",
    ] {
        let shown = env.dockerfile_fails(bytes);
        assert!(shown.starts_with("exit code: 1\nerror: "), "{bytes:?}\n{shown}");
    }
}

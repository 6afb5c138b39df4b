//! The corpus in `testdata/dockerfiles`, and the properties that hold for any text.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::diagnostic::Diagnostic;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/dockerfiles")
}

fn parse_text(text: &str) -> Result<Dockerfile, ParseErrors> {
    parse(&Source::new("Dockerfile", text.as_bytes()))
}

fn only_instruction(text: &str) -> InstructionKind {
    let file = parse_text(&format!("FROM scratch\n{text}")).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(file.instructions.len(), 2, "{text}");
    file.instructions[1].kind.clone()
}

/// An error as a person would see it, without colours.
fn render(error: &ParseError, out: &mut String) {
    let location = error.location().expect("parse errors have a place");
    let (line, column) = (location.source.line(location.span.start), location.source.column(location.span.start));
    writeln!(out, "{line}:{column}: {error}").unwrap();
    let text = String::from_utf8_lossy(location.source.text()).into_owned();
    if let Some(text) = text.lines().nth(line - 1) {
        let width = (location.span.end - location.span.start).clamp(1, (text.len() + 1).saturating_sub(column).max(1));
        writeln!(out, "  | {text}\n  | {}{}", " ".repeat(column - 1), "^".repeat(width)).unwrap();
    }
    if let Some(hint) = error.hint() {
        writeln!(out, "  hint: {hint}").unwrap();
    }
}

/// What the parser says about a file: the syntax tree, then the errors or else the directives and warnings.
fn describe(source: &Source) -> String {
    let mut out = String::new();
    match ast_json(source) {
        Ok(tree) => {
            for node in tree.as_array().expect("an array") {
                writeln!(out, "{node}").unwrap();
            }
        }
        Err(errors) => writeln!(out, "no tree: {errors}").unwrap(),
    }
    match parse(source) {
        Ok(file) => {
            if file.directives != Directives::default() {
                let text = |word: &Option<Word>| word.as_ref().map(|word| word.text.clone()).unwrap_or_default();
                let Directives { syntax, escape, check, .. } = &file.directives;
                writeln!(out, "syntax={} escape={escape} check={}", text(syntax), text(check)).unwrap();
            }
            for warning in lint::Options::of(&file).filter(&file, lint::check(&file)) {
                writeln!(out, "{}: {}: {}", warning.line, warning.rule.name(), warning.detail).unwrap();
            }
        }
        Err(errors) => errors.iter().for_each(|error| render(error, &mut out)),
    }
    out
}

#[test]
fn corpus_matches_its_snapshots() {
    let mut names: Vec<PathBuf> = fs::read_dir(corpus()).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    assert!(names.len() > 60, "the corpus is missing");
    for case in names {
        let text = fs::read(case.join("Dockerfile")).unwrap();
        insta::with_settings!({ snapshot_path => &case, prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!("syntax", describe(&Source::new("Dockerfile", text)));
        });
    }
}

#[test]
fn run_takes_its_heredocs_in() {
    let check = |text: &str, expected: RunCommand| match only_instruction(text) {
        InstructionKind::Run(run) => assert_eq!(run.command, expected, "{text}"),
        other => panic!("{text}: {other:?}"),
    };
    let shell = |text: &str| RunCommand::Shell(text.into());
    check("RUN a b", shell("a b"));
    check("RUN", shell(""));
    check("RUN [\"a\", \"b\"]", RunCommand::Exec(vec!["a".to_owned(), "b".to_owned()]));
    check("RUN <<EOF\na\nb\nEOF\n", shell("a\nb\n"));
    check("RUN <<-EOF\n\ta\n\t\tb\n\tEOF\n", shell("a\nb\n"));
    check("RUN <<EOF cat\na\nEOF\n", shell("<<EOF cat\na\nEOF"));
    check("RUN cat <<A - <<-B\n1\nA\n\t2\nB\n", shell("cat <<A - <<-B\n1\nA\n\t2\nB"));
    let script = RunCommand::Script(Box::new(Script { name: "EOF".into(), body: "#!/bin/x\na\n".into() }));
    check("RUN <<EOF\n#!/bin/x\na\nEOF\n", script);
}

#[test]
fn copy_and_add_have_typed_flags() {
    let text = "COPY --from=b --chown=$U --link --exclude=x --exclude=y a <<f /d/\nbody\nf\n";
    let InstructionKind::Copy(copy) = only_instruction(text) else { panic!("a COPY") };
    let [CopySource::Path(path), CopySource::Heredoc(heredoc)] = copy.sources.as_slice() else { panic!("two sources") };
    assert_eq!((path.text.as_str(), heredoc.name.as_str(), &*heredoc.text()), ("a", "f", "body\n"));
    assert_eq!(copy.from.map(|from| from.text).as_deref(), Some("b"));
    assert_eq!(copy.chown.map(|chown| chown.text).as_deref(), Some("$U"));
    assert!(copy.link && !copy.parents);
    assert_eq!(copy.exclude.len(), 2);
    let InstructionKind::Add(add) = only_instruction("ADD --unpack=false --keep-git-dir a b") else { panic!("an ADD") };
    assert_eq!((add.unpack, add.keep_git_dir, add.link), (Some(false), Some(true), false));
}

#[test]
fn healthcheck_has_times() {
    let check = only_instruction("HEALTHCHECK --interval=1m30s --timeout=0 --retries=3 CMD a b");
    let InstructionKind::Healthcheck(check) = check else { panic!("a HEALTHCHECK") };
    let Healthcheck::Command(probe) = *check else { panic!("a command") };
    assert_eq!(probe.command, CommandLine::Shell("a b".into()));
    assert_eq!(probe.interval, Some(std::time::Duration::from_secs(90)));
    assert_eq!((probe.timeout, probe.retries), (None, Some(3)));
}

#[test]
fn onbuild_keeps_its_text() {
    let check = |text: &str, expected: &str| match only_instruction(text) {
        InstructionKind::Onbuild { text: found, trigger } => {
            assert_eq!(found, expected, "{text}");
            let source = Source::new("ONBUILD of x", found.as_bytes());
            let parsed = parse_trigger(&source).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(parsed.name(), trigger.name(), "{text}");
        }
        other => panic!("{text}: {other:?}"),
    };
    check("ONBUILD RUN a", "RUN a");
    check("onbuild \\\n  RUN a \\\n  b", "RUN a   b");
    check("ONBUILD COPY <<A <<B /x/\n1\nA\n2\nB\n", "COPY <<A <<B /x/\n1\nA\n2\nB");
}

#[test]
fn triggers_are_one_instruction() {
    let check_error = |text: &str, expected: &str| {
        let error = parse_trigger(&Source::new("ONBUILD of x", text.as_bytes())).expect_err(text);
        assert_eq!(error.to_string(), expected, "{text}");
    };
    check_error("RUN a\nRUN b", "onbuild trigger should be a single expression");
    check_error("", "file with no instructions");
    check_error("FROM a", "FROM isn't allowed as an ONBUILD trigger");
    check_error(
        "COPY a",
        "COPY requires at least two arguments, but only one was provided; destination could not be determined",
    );
    check_error("RNU a", "unknown instruction: RNU");
}

#[test]
fn spans_point_at_the_words() {
    let text = "FROM a AS b\nRUN --mount=type=cache,target=/x \\\n  # comment\n  make \\\n  it\nENV A=1 \\\n  BB=22\n";
    let file = parse_text(text).expect("well formed");
    let at = |span: crate::diagnostic::Span| &text[span.range()];
    let InstructionKind::From(from) = &file.instructions[0].kind else { panic!("a FROM") };
    assert_eq!(at(from.stage.as_ref().expect("a name").written.span), "b");
    let InstructionKind::Run(run) = &file.instructions[1].kind else { panic!("a RUN") };
    assert_eq!(at(run.parts().mounts[0].span), "type=cache,target=/x");
    assert_eq!(at(file.instructions[1].flags()[0].span), "--mount=type=cache,target=/x");
    let InstructionKind::Env(pairs) = &file.instructions[2].kind else { panic!("an ENV") };
    assert_eq!((at(pairs[1].key.span), at(pairs[1].value.span)), ("BB", "22"));
    assert_eq!(at(file.instructions[1].span), "RUN --mount=type=cache,target=/x \\\n  # comment\n  make \\\n  it");
    assert_eq!((file.instructions[1].start_line(), file.instructions[1].end_line()), (2, 5));
}

#[test]
fn comments_describe_what_is_below() {
    let file = parse_text("# syntax=a/b\n# A the first\n# B the other\n\nARG A B\n# lost\n#\nFROM x AS y\n")
        .expect("well formed");
    assert_eq!(file.instructions[0].description("A"), Some("the first"));
    assert_eq!(file.instructions[0].description("B"), Some("the other"));
    assert_eq!(file.instructions[0].description("C"), None);
    assert!(file.instructions[1].comments().is_empty());
}

#[test]
fn all_errors_are_found_but_not_more_than_a_hundred() {
    let errors = parse_text(&format!("FROM a\n{}", "NOPE\n".repeat(1000))).expect_err("unknown instructions");
    assert_eq!(errors.iter().count(), 100);
    let lines: Vec<_> = errors.iter().map(ParseError::span).collect();
    assert!(lines.is_sorted());
    assert_eq!(
        parse_text("FROM a\nNOPE\nNOPE\n").expect_err("two").to_string(),
        "unknown instruction: NOPE (and 1 more error)"
    );
}

#[test]
fn large_files_are_refused() {
    let text = vec![b'#'; MAX_SIZE + 1];
    let errors = parse(&Source::new("Dockerfile", text)).expect_err("too large");
    assert_eq!(errors.first().problem, Problem::TooLarge);
}

/// The same files, read by the crate `dockerfile-parser`, where it can: it knows neither heredocs nor newer flags,
/// and keeps continuation lines apart.
#[test]
fn the_oracle_agrees() {
    let files = [
        "FROM alpine:3.20 AS build\nRUN apk add \\\n  gcc\nCOPY --from=build /a /b\nENV A=b C=d\nLABEL x=y\n\
         ENTRYPOINT [\"/x\", \"y\"]\nCMD run it\nARG V=1\nARG W\nUSER me\nWORKDIR /w\n",
        "ARG BASE=debian\nFROM $BASE\nFROM scratch AS last\nCOPY a b c/\nRUN [\"a\"]\n",
    ];
    for text in files {
        let oracle = dockerfile_parser::Dockerfile::parse(text).expect("the oracle reads it");
        let ours = parse_text(text).expect("well formed");
        assert_eq!(ours.instructions.len(), oracle.instructions.len(), "{text}");
        for (our, their) in ours.instructions.iter().zip(&oracle.instructions) {
            assert_eq!(our.span.start, their.span().start, "{text}");
            match (&our.kind, their) {
                (InstructionKind::From(our), dockerfile_parser::Instruction::From(their)) => {
                    assert_eq!(our.image.text, their.image.content);
                    let alias = their.alias.as_ref().map(|alias| alias.content.as_str());
                    assert_eq!(our.stage.as_ref().map(|stage| stage.written.text.as_str()), alias);
                }
                (InstructionKind::Copy(our), dockerfile_parser::Instruction::Copy(their)) => {
                    assert_eq!(our.sources.len(), their.sources.len());
                    assert_eq!(our.destination.text, their.destination.content);
                    assert_eq!(our.from.is_some(), their.flags.iter().any(|flag| flag.name.content == "from"));
                }
                (InstructionKind::Env(our), dockerfile_parser::Instruction::Env(their)) => {
                    let theirs: Vec<_> =
                        their.vars.iter().map(|var| (var.key.content.clone(), var.value.to_string())).collect();
                    let ours: Vec<_> =
                        our.iter().map(|pair| (pair.key.text.to_string(), pair.value.text.to_string())).collect();
                    assert_eq!(ours, theirs);
                }
                (
                    InstructionKind::Entrypoint(CommandLine::Exec(our)),
                    dockerfile_parser::Instruction::Entrypoint(their),
                ) => {
                    assert_eq!(
                        Some(our.clone()),
                        their
                            .as_exec()
                            .map(dockerfile_parser::StringArray::as_str_vec)
                            .map(|words| words.into_iter().map(str::to_owned).collect())
                    );
                }
                _ => {}
            }
        }
    }
}

/// Texts made of what Dockerfiles are made of, so that they get far into the parser.
fn dockerfile_like() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;
    let pieces = [
        "FROM a",
        "RUN ",
        "COPY ",
        "ADD ",
        "ENV ",
        "LABEL ",
        "ARG ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "CMD ",
        "SHELL ",
        "EXPOSE ",
        "VOLUME ",
        "# ",
        "# escape=`",
        "# check=skip=all",
        "\n",
        "\r\n",
        "\\\n",
        "`\n",
        " ",
        "\t",
        "<<EOF",
        "<<-E",
        "EOF\n",
        "E\n",
        "\"",
        "'",
        "[\"a\"]",
        "[",
        "]",
        "--from=",
        "--mount=type=cache,target=",
        "--x",
        "a=b",
        "=",
        "$X",
        "${X:-",
        "}",
        "é",
        "\u{a0}",
        "\u{feff}",
        "\0",
        "--",
        "CMD",
        "NONE",
        "80/tcp",
        "\\",
        "`",
    ];
    prop::collection::vec(prop::sample::select(pieces.to_vec()), 0..60).prop_map(|pieces| pieces.concat())
}

/// What holds for every text: spans are inside it and on its characters, and the tree exists if the file is right.
fn check_any(bytes: &[u8]) {
    let source = Source::new("Dockerfile", bytes);
    let tree = ast_json(&source);
    match parse(&source) {
        Ok(file) => {
            assert!(tree.is_ok());
            let text = String::from_utf8_lossy(bytes);
            for instruction in &file.instructions {
                assert!(instruction.span.end <= bytes.len() && instruction.start_line() <= instruction.end_line());
                assert!(text.len() != bytes.len() || text.get(instruction.span.range()).is_some());
                for flag in instruction.flags() {
                    assert!(flag.span.start >= instruction.span.start && flag.span.end <= instruction.span.end);
                }
            }
            let _ = lint::Options::of(&file).filter(&file, lint::check(&file));
        }
        Err(errors) => {
            for error in &errors {
                assert!(error.span().end <= bytes.len(), "{error}: {:?}", error.span());
                let _ = (error.to_string(), error.hint());
            }
        }
    }
    let _ = parse_trigger(&source);
    let _ = detect_syntax(&source);
}

proptest::proptest! {
    #[test]
    fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(proptest::arbitrary::any::<u8>(), 0..200)) {
        check_any(&bytes);
    }

    #[test]
    fn anything_like_a_dockerfile_parses_or_fails(text in dockerfile_like()) {
        check_any(text.as_bytes());
    }
}

/// The corpora of the fuzz targets and all Dockerfiles of the test data, through the same checks.
#[test]
fn fuzz_corpora_hold() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let files = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let texts = files(root.join("dockerfile_parse")).chain(files(corpus()).map(|case| case.join("Dockerfile")));
    let mut count = 0;
    for path in texts {
        check_any(&fs::read(path).unwrap());
        count += 1;
    }
    let lookup = |name: &str| (name.len() == 1).then(|| "a/b*c".repeat(3));
    for path in files(root.join("expand")) {
        let bytes = fs::read(path).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        for expander in ['\\', '`'].map(Expander::new) {
            let _ = expander.word(&text, &lookup);
            let _ = expander.words(&text, &lookup);
            let _ = expander.heredoc(&text, &lookup);
            let _ = Mount::expand(&text, &expander, &lookup);
        }
        let _ = (parse_ports(&text), parse_signal(&text));
        count += 1;
    }
    assert!(count > 80, "the corpora are missing");
}

/// What this thread has used so far.
fn processor_time() -> std::time::Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    std::time::Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("below a second"))
}

/// Inputs that are quadratic in parsers that are not careful, each with its size as a parameter.
#[test]
fn time_is_linear() {
    type Shape = (&'static str, fn(usize) -> String);
    let shapes: [Shape; 12] = [
        ("continuations", |n| format!("FROM a\nRUN a{}", " \\\n b".repeat(n))),
        ("heredocs", |n| format!("FROM a\nCOPY {}/d/\n{}", "<<a ".repeat(n), "a\n".repeat(n))),
        ("heredoc lines", |n| format!("FROM a\nRUN <<E\n{}E\n", "x\n".repeat(n))),
        ("unterminated", |n| format!("FROM a\n{}", "RUN <<E\n".repeat(n))),
        ("unknown", |n| format!("FROM a\n{}", "X <<E\n".repeat(n))),
        ("stages", |n| (0..n).fold(String::new(), |text, i| text + &format!("FROM s{i} AS s{}\n", i + 1))),
        ("env", |n| format!("FROM a\nENV {}", "a=b ".repeat(n))),
        ("flags", |n| format!("FROM a\nRUN {}x", "--mount=target=/x ".repeat(n))),
        ("comments", |n| format!("{}FROM a AS x\nEXPOSE {}", "# c\n".repeat(n), "80/TCP ".repeat(n))),
        ("json", |n| format!("FROM a\nRUN [{}\"a\"]", "\"a\",".repeat(n))),
        ("unknown arguments", |n| format!("{}{}", "ARG a\n".repeat(n), "FROM $bcde\n".repeat(n))),
        ("long word", |n| format!("FROM a\n{}", "x".repeat(4 * n))),
    ];
    for (name, shape) in shapes {
        let time = |n: usize| {
            let source = Source::new("Dockerfile", shape(n).into_bytes());
            let once = || {
                let start = processor_time();
                if let Ok(file) = parse(&source) {
                    let _ = lint::Options::of(&file).filter(&file, lint::check(&file));
                }
                processor_time().saturating_sub(start)
            };
            (0..3).map(|_| once()).min().expect("three runs")
        };
        // Sixteen times the input costs 256 times as much if anything is quadratic. Time of the processor, not of the
        // clock: the machine may be busy.
        let (small, large) = (time(1_000), time(16_000));
        let limit = small * 100 + std::time::Duration::from_millis(50);
        assert!(large < limit, "{name}: {small:?} for 1,000 and {large:?} for 16,000");
    }
}

/// P-2: a file of the smallest instructions takes some ten times its size.
#[test]
fn small_instructions_take_little_memory() {
    assert!(std::mem::size_of::<Instruction>() <= 88, "{} bytes", std::mem::size_of::<Instruction>());
    let file = parse_text("FROM scratch\nRUN a\n").unwrap();
    let InstructionKind::Run(run) = &file.instructions[1].kind else { panic!("a RUN") };
    let RunCommand::Shell(line) = &run.command else { panic!("a line") };
    let original = file.instructions[1].original.as_bytes().as_ptr_range();
    assert!(original.contains(&line.as_ptr()) && run.parts.is_none(), "nothing but the file itself holds its text");
}

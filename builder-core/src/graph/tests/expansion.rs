//! Where variables are expanded, and with which values. Their forms have tables in `dockerfile::expand`.

use serde_json::{Value, json};

use super::{lowered, options, render, try_lower};

/// What comes before each line: a variable of each kind that matters.
const BEFORE: &str = "FROM alpine:3.20\nENV V=value P=\"80 81\" N=9 M=700 U=5:6 E=\n";

/// Checks a key of the config after `line`.
fn check(line: &str, key: &str, expected: &Value) {
    let config = serde_json::to_value(lowered(&format!("{BEFORE}{line}\n")).target.config.config).expect("serialises");
    assert_eq!(&config[key], expected, "{line}");
}

/// Checks that `line` is `text` in the history of the image, or is what the last vertex is called.
fn check_name(line: &str, text: &str) {
    let graph = lowered(&format!("{BEFORE}{line}\n"));
    let names: Vec<&str> = graph.vertices.iter().map(|vertex| vertex.name.as_str()).collect();
    assert!(names.last().is_some_and(|name| name.ends_with(text)), "{line}: {names:?}");
}

// Rows: A28.
#[test]
fn an_instruction_sees_the_values_before_it() {
    let env = |line: &str| {
        let config = lowered(&format!("FROM alpine:3.20\nENV A=old\n{line}\n")).target.config.config;
        config.env.into_iter().skip(1).collect::<Vec<_>>().join(" ")
    };
    for (line, expected) in [
        ("ENV A=new B=$A", "A=new B=old"),
        ("ENV B=$A A=new", "A=new B=old"),
        ("ENV A=$A:$A", "A=old:old"),
        ("ENV A=new\nENV B=$A", "A=new B=new"),
        ("ENV C=$B B=$A", "A=old C= B=old"),
        // An ARG declares its variables one after the other.
        ("ARG X=$A Y=$X\nENV Z=$Y", "A=old Z=old"),
    ] {
        assert_eq!(env(line), expected, "{line}");
    }
}

// Rows: A29.
#[test]
fn words_of_these_instructions_are_expanded_and_commands_are_not() {
    check("LABEL $V=$V", "Labels", &json!({"value": "value"}));
    check("STOPSIGNAL $N", "StopSignal", &json!("9"));
    check("USER $V:$V", "User", &json!("value:value"));
    check("VOLUME /$V [x", "Volumes", &json!({"/value": {}, "[x": {}}));
    check("WORKDIR /$V/$N", "WorkingDir", &json!("/value/9"));
    check("EXPOSE $N/udp", "ExposedPorts", &json!({"9/udp": {}}));
    check("ARG D=$V-d\nLABEL a=$D", "Labels", &json!({"a": "value-d"}));
    check("ENV A=$V\nLABEL a=$A", "Labels", &json!({"a": "value"}));
    check("ONBUILD LABEL a=$V", "OnBuild", &json!(["LABEL a=$V"]));
    check("CMD $V", "Cmd", &json!(["/bin/sh", "-c", "$V"]));
    check("CMD [\"$V\"]", "Cmd", &json!(["$V"]));
    check("ENTRYPOINT $V", "Entrypoint", &json!(["/bin/sh", "-c", "$V"]));
    check("SHELL [\"$V\"]", "Shell", &json!(["$V"]));
    check("HEALTHCHECK CMD $V", "Healthcheck", &json!({"Test": ["CMD-SHELL", "$V"]}));
    check_name("COPY $V /$V/", "COPY value /value/");
    check_name("ADD $V /$V", "ADD value /value");
    let base = lowered("ARG B=alpine:3.20\nFROM ${B}\n").target.config.config;
    assert_eq!(base.env, ["PATH=/usr/bin:/bin"]);
}

// Rows: A30.
#[test]
fn values_of_flags_are_expanded_but_those_of_from() {
    let shown = |line: &str| {
        let text = format!("{BEFORE}{line}\n");
        match try_lower(&text, &options()) {
            Ok(graph) => format!("{:?}", graph.vertices.last().expect("a step").op),
            Err(errors) => render::errors(&errors),
        }
    };
    let check = |line: &str, part: &str| assert!(shown(line).contains(part), "{line}: {}", shown(line));
    check("COPY --chown=$U a /", "\"5:6\"");
    check("COPY --chmod=$M a /", "Some(\"700\")");
    check("COPY --chmod=u=rwx,go=$E a /", "u=rwx,go=\"");
    check("COPY --exclude=*.$V a /", "*.value");
    check("ADD --checksum=sha256:$V https://example.com/a /", "sha256:value");
    check("RUN --mount=type=cache,target=/$V x", "/value");
    check("RUN --mount=type=bind,source=$V,target=/t x", "\"value\"");
    let parsed = crate::dockerfile::parse(&crate::diagnostic::Source::new("x", &b"FROM a\nCOPY --from=$V a /\n"[..]));
    assert!(parsed.expect_err("a variable").to_string().contains("variable expansion is not supported for --from"));
}

// Rows: A31.
#[test]
fn ports_are_split_after_expansion_and_paths_are_not() {
    check("EXPOSE $P", "ExposedPorts", &json!({"80/tcp": {}, "81/tcp": {}}));
    check("EXPOSE $P$P", "ExposedPorts", &json!({"80/tcp": {}, "8180/tcp": {}, "81/tcp": {}}));
    check("VOLUME $P", "Volumes", &json!({"80 81": {}}));
    check("LABEL a=$P", "Labels", &json!({"a": "80 81"}));
    check_name("COPY $P /d/", "COPY 80 81 /d/");
    let graph = lowered(&format!("{BEFORE}COPY $P /d/\n"));
    let op = format!("{:?}", graph.vertices.last().expect("a COPY").op);
    assert!(op.contains("\"80 81\""), "one source: {op}");
}

// Rows: A33.
#[test]
fn the_old_form_takes_the_rest_of_the_line() {
    let env = |line: &str| {
        let config = lowered(&format!("FROM alpine:3.20\n{line}\n")).target.config.config;
        config.env.into_iter().skip(1).collect::<Vec<_>>()
    };
    for (line, expected) in [
        ("ENV A b", "A=b"),
        ("ENV ONE TWO= THREE=x", "ONE=TWO= THREE=x"),
        ("ENV A  b   c ", "A=b   c"),
        ("ENV A \"b  c\" d", "A=b  c d"),
        ("ENV A $PATH", "A=/usr/bin:/bin"),
        ("ENV A b \\\n  c", "A=b   c"),
    ] {
        assert_eq!(env(line), [expected], "{line}");
    }
}

//! The tests themselves: no file is forgotten, every flag is documented.

use std::path::Path;

use crate::env::{TestEnv, end};

#[test]
fn every_file_here_is_a_module() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let main = std::fs::read_to_string(dir.join("main.rs")).expect("readable");
    for entry in std::fs::read_dir(dir).expect("readable") {
        let name = entry.expect("readable").file_name().into_string().expect("text");
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            assert!(main.contains(&format!("mod {module};")), "{name} is not part of the test program");
        }
    }
}

#[test]
fn every_flag_is_documented() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/cli.md");
    let text = std::fs::read_to_string(reference).expect("readable");
    let env = TestEnv::new();
    for command in [
        "build", "run", "push", "pull", "images", "rmi", "inspect", "history", "explain", "save", "load", "login",
        "prune", "du", "lock",
    ] {
        let help = end(env.command([command, "--help"]).env("COLUMNS", "100")).stdout;
        let options = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
        for flag in options.filter_map(|line| line.split_whitespace().find(|word| word.starts_with("--"))) {
            let flag = flag.split(['=', '[']).next().unwrap_or(flag);
            assert!(text.contains(&format!("`{flag}")), "docs/reference/cli.md does not mention {flag} of {command}");
        }
    }
}

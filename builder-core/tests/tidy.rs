//! What holds for the sources as a whole.

use std::fs;
use std::path::{Path, PathBuf};

/// The modules of `lib.rs` in the order of their declaration.
fn modules(lib: &str) -> Vec<&str> {
    lib.lines()
        .filter_map(|line| {
            line.trim()
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub ")
                .strip_prefix("mod ")?
                .strip_suffix(';')
        })
        .collect()
}

/// The modules of this crate that a source names by `crate::…`, each with its line.
fn used(source: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (index, line) in source.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for (at, _) in code.match_indices("crate::") {
            let rest = &code[at + "crate::".len()..];
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push((index + 1, &rest[..end]));
        }
    }
    found
}

/// Uses of modules that are declared below the one that a source belongs to.
fn violations(order: &[&str], module: &str, source: &str) -> Vec<String> {
    let position = |name: &str| order.iter().position(|known| *known == name);
    let own = position(module).expect("every source belongs to a declared module");
    used(source)
        .into_iter()
        .filter(|(_, name)| position(name).is_some_and(|other| other > own))
        .map(|(line, name)| format!("line {line}: `{module}` is declared above `{name}` and may not use it"))
        .collect()
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() {
            files.extend(sources(&entry));
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            files.push(entry);
        }
    }
    files
}

fn library() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn modules_use_only_what_is_declared_above_them() {
    let lib = fs::read_to_string(library().join("lib.rs")).expect("readable");
    let order = modules(&lib);
    assert!(order.len() > 15, "the declarations were not found: {order:?}");
    let mut wrong = Vec::new();
    for file in sources(&library()) {
        let relative = file.strip_prefix(library()).expect("below it");
        let first = relative.components().next().expect("not empty").as_os_str().to_str().expect("ASCII");
        let module = first.strip_suffix(".rs").unwrap_or(first);
        if module != "lib" {
            let source = fs::read_to_string(&file).expect("readable");
            wrong.extend(
                violations(&order, module, &source).iter().map(|text| format!("{}: {text}", relative.display())),
            );
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_violation_is_found() {
    let order = modules("pub mod oci;\n#[allow(x)]\npub mod tree;\npub mod build;\n");
    assert_eq!(order, ["oci", "tree", "build"]);
    assert_eq!(violations(&order, "tree", "use crate::oci::Digest;\n// crate::build is above\n"), [""; 0]);
    let wrong = violations(&order, "tree", "\nuse crate::build::Engine;");
    assert_eq!(wrong, ["line 2: `tree` is declared above `build` and may not use it"]);
}

#[test]
fn no_module_is_a_dumping_ground() {
    for file in sources(&library()) {
        let name = file.file_stem().expect("a file").to_string_lossy().into_owned();
        let parent = file.parent().and_then(Path::file_name).expect("a folder").to_string_lossy().into_owned();
        for banned in ["util", "utils", "helper", "helpers", "common", "misc"] {
            assert!(name != banned && parent != banned, "{} says nothing about what is in it", file.display());
        }
    }
}

#[test]
fn files_stay_readable() {
    for file in sources(&library()) {
        let lines = fs::read_to_string(&file).expect("readable").lines().count();
        assert!(lines <= 800 || file.ends_with("seccomp/table.rs"), "{} has {lines} lines", file.display());
    }
}

#[test]
fn every_test_file_beside_the_code_is_included() {
    for file in sources(&library()).into_iter().filter(|file| file.ends_with("tests.rs")) {
        let front = file.with_file_name("mod.rs");
        let text = fs::read_to_string(&front).unwrap_or_default();
        assert!(text.contains("mod tests;"), "{} is not part of {}", file.display(), front.display());
    }
}

#[test]
fn the_tests_of_invariants_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let page = fs::read_to_string(root.join("docs/concepts/security.md")).expect("the page");
    let is_name = |word: &&str| {
        word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let named: Vec<&str> = page.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(named.len() > 80, "{}", named.len());
    let folders = ["builder-core/src", "builder-core/tests", "builder-cli/src", "builder-cli/tests"];
    let files = folders.iter().flat_map(|folder| sources(&root.join(folder)));
    let text: String = files.map(|file| fs::read_to_string(file).expect("readable")).collect();
    let missing: Vec<&&str> = named.iter().filter(|name| !text.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "no such tests: {missing:?}");
}

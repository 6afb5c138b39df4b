//! Each row of `testdata/rows.toml` is shown by a case or a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// The rows with their sections: lines `A1 = "…"` below `[section]`.
fn rows(text: &str) -> BTreeMap<&str, &str> {
    let mut section = "";
    let mut rows = BTreeMap::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name;
        } else if let Some((row, _)) = line.split_once(" = \"") {
            assert!(rows.insert(row, section).is_none(), "{row} is listed twice");
        }
    }
    rows
}

/// The rows that the tests of a source show: `// Rows: A1, B2.` above `#[test]`, and numbers that begin a test's name.
fn of_tests(source: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut comment = "";
    let mut in_test = false;
    for line in source.lines().map(str::trim) {
        if let Some(named) = line.strip_prefix("// Rows: ") {
            comment = named;
        } else if line == "#[test]" {
            in_test = true;
            found.extend(comment.trim_end_matches('.').split(", ").filter(|row| !row.is_empty()).map(str::to_owned));
        } else if let Some(name) = line.strip_prefix("fn ") {
            if in_test {
                found.extend(of_name(name));
            }
            (comment, in_test) = ("", false);
        }
    }
    found
}

/// `a74_to_a80_mounts` shows A74 to A80, `b18_hosts` shows B18.
fn of_name(name: &str) -> Vec<String> {
    let row = |word: &str| Some((word.chars().next()?.to_ascii_uppercase(), word.get(1..)?.parse::<u32>().ok()?));
    let words: Vec<&str> = name.split('_').collect();
    match (words.first().and_then(|word| row(word)), words.get(1), words.get(2).and_then(|word| row(word))) {
        (Some((letter, first)), Some(&"to"), Some((_, last))) => {
            (first..=last).map(|n| format!("{letter}{n}")).collect()
        }
        (Some((letter, number)), ..) => vec![format!("{letter}{number}")],
        _ => Vec::new(),
    }
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("readable").map(|entry| entry.expect("readable").path()) {
        if entry.is_dir() {
            sources(&entry, found);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            found.push(entry);
        }
    }
}

#[test]
fn each_row_has_its_case_or_test() {
    let list = fs::read_to_string(workspace().join("testdata/rows.toml")).expect("the list");
    let rows = rows(&list);
    assert!(rows.len() > 150, "{} rows", rows.len());
    let mut by_case = BTreeSet::new();
    let mut wrong = Vec::new();
    for folder in ["testdata/cases", "testdata/dockerfiles"] {
        for case in fs::read_dir(workspace().join(folder)).expect("cases").map(|case| case.expect("a case").path()) {
            if !case.is_dir() || case.ends_with("__pycache__") {
                continue;
            }
            let named = fs::read_to_string(case.join("rows")).unwrap_or_default();
            if named.trim().is_empty() {
                wrong.push(format!("{} does not name its rows in a file `rows`", case.display()));
            }
            for row in named.split_whitespace() {
                if !rows.contains_key(row) {
                    wrong.push(format!("{}: there is no row {row}", case.display()));
                }
                by_case.insert(row.to_owned());
            }
        }
    }
    let mut files = Vec::new();
    for folder in ["builder-core/src", "builder-core/tests", "builder-cli/src", "builder-cli/tests"] {
        sources(&workspace().join(folder), &mut files);
    }
    let by_test: BTreeSet<String> =
        files.iter().flat_map(|file| of_tests(&fs::read_to_string(file).expect("readable"))).collect();
    for (row, section) in rows {
        let (case, test) = (by_case.contains(row), by_test.contains(row));
        if !case && !test {
            wrong.push(format!("no case and no test shows {row}"));
        } else if section == "expansion" && !(case && test) {
            wrong.push(format!("{row} needs a table in a test and a case"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn tests_name_their_rows() {
    let source = "    // Rows: A1, B2.\n    #[test]\n    fn x() {}\n\n#[test]\nfn a74_to_a76_y() {}\n#[test]\nfn b18_z() {}\n\
                  // Rows: A9.\nfn no_test() {}\n#[test]\nfn s10_users() {}\n";
    let expected = ["A1", "A74", "A75", "A76", "B18", "B2", "S10"].map(str::to_owned);
    assert_eq!(of_tests(source), BTreeSet::from(expected));
    let list = rows("# [not]\n[one]\nA1 = \"x\"\n\n[two]\nB2 = \"y\"\n");
    assert_eq!(list, BTreeMap::from([("A1", "one"), ("B2", "two")]));
}

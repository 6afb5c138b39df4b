//! `rbuild -t app .` means `rbuild build -t app .`

use std::ffi::{OsStr, OsString};

use clap::CommandFactory as _;

/// Puts `build` before the first argument that is neither an option of every command nor a command.
pub(crate) fn normalize(arguments: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut at = 1;
    while let Some(argument) = arguments.get(at).and_then(|argument| argument.to_str()) {
        match argument {
            "--root" | "--config" | "--registry-mirror" | "--insecure-registry" => at += 2,
            _ if ["--root=", "--config=", "--registry-mirror=", "--insecure-registry="]
                .iter()
                .any(|option| argument.starts_with(option)) =>
            {
                at += 1;
            }
            _ => break,
        }
    }
    match arguments.get(at) {
        Some(argument) if !is_command(argument) => arguments.insert(at, "build".into()),
        _ => {}
    }
    arguments
}

/// Says whether the argument is understood without `build` before it.
fn is_command(argument: &OsStr) -> bool {
    let Some(word) = argument.to_str() else { return false };
    if matches!(word, "-h" | "--help" | "-V" | "--version") {
        return true;
    }
    // A word that starts like an option or a path cannot be a command: no need to build the list.
    !word.starts_with(['-', '.', '/'])
        && super::Cli::command()
            .get_subcommands()
            .any(|command| command.get_name() == word || command.get_all_aliases().any(|alias| alias == word))
}

/// The command whose name is nearest to a word that is none: `imagse` may be no directory but a slip.
pub(crate) fn nearest_command(word: &str) -> Option<String> {
    let command = super::Cli::command();
    let names: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).collect();
    builder_core::diagnostic::nearest(word, names).map(str::to_owned)
}

/// The first word when it is no command, and the command that was meant: `buidl -t app .`
pub(crate) fn mistaken_command(arguments: &[OsString]) -> Option<(&str, String)> {
    let word = arguments.iter().skip(1).find_map(|word| word.to_str().filter(|word| !word.starts_with('-')))?;
    nearest_command(word).filter(|nearest| nearest != word).map(|nearest| (word, nearest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let typed = std::iter::once("rbuild").chain(line.split_whitespace()).map(OsString::from);
        let words: Vec<_> =
            normalize(typed).into_iter().skip(1).map(|word| word.into_string().expect("text")).collect();
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn a_bare_build_is_recognised() {
        check("-t app:1.0 .", "build -t app:1.0 .");
        check(".", "build .");
        check("--root /x -t a .", "--root /x build -t a .");
        check("--root=/x dir", "--root=/x build dir");
        check("build .", "build .");
        check("--root /x images", "--root /x images");
        check("b .", "b .");
        check("buildx build .", "buildx build .");
        check("--help", "--help");
        check("-V", "-V");
        check("", "");
        check("--root", "--root");
    }
}

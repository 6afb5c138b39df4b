//! [`Profile`]: keys and region from the files of the AWS command line ("Configuration and credential file settings").

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::Result;
use crate::command_error::CommandError;
use crate::environment::Environment;

/// The values of one profile of `~/.aws/credentials` and `~/.aws/config`, by name.
#[derive(Default)]
pub(super) struct Profile(BTreeMap<String, String>);

impl Profile {
    /// Reads the profile of `AWS_PROFILE`, or `default`. Files that are not there say nothing.
    pub(super) fn load(environment: &Environment) -> Result<Self> {
        let named = environment.get("AWS_PROFILE").or_else(|| environment.get("AWS_DEFAULT_PROFILE"));
        let name = named.unwrap_or("default");
        let path = |variable: &str, file: &str| -> Option<PathBuf> {
            let said = environment.get_os(variable).map(|path| environment.absolute(path.as_ref()));
            said.or_else(|| Some(environment.home()?.join(".aws").join(file)))
        };
        let (mut values, mut found) = (BTreeMap::new(), false);
        for (variable, file, section) in [
            ("AWS_CONFIG_FILE", "config", format!("profile {name}")),
            ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name.to_owned()),
        ] {
            let Some(path) = path(variable, file) else { continue };
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                Err(error) => return Err(CommandError::io(&format!("cannot read `{}`", path.display()), &error)),
            };
            let of_section = section_of(&text, &section).or_else(|| section_of(&text, name));
            found |= of_section.is_some();
            values.extend(of_section.unwrap_or_default());
        }
        match named {
            Some(name) if !found => Err(CommandError::usage(format!("there is no AWS profile `{name}`"))),
            _ => Ok(Self(values)),
        }
    }

    /// A variable of the environment, or what the profile says instead. Keys belong together: those of the profile
    /// count only if the environment has none.
    pub(super) fn variable(&self, name: &str, environment: &Environment) -> Option<String> {
        let key = match name {
            "AWS_ACCESS_KEY_ID" => "aws_access_key_id",
            "AWS_SECRET_ACCESS_KEY" => "aws_secret_access_key",
            "AWS_SESSION_TOKEN" => "aws_session_token",
            "AWS_REGION" if environment.get("AWS_DEFAULT_REGION").is_none() => "region",
            _ => return environment.get(name).map(str::to_owned),
        };
        let is_set = key != "region" && environment.get("AWS_ACCESS_KEY_ID").is_some();
        let of_profile = || if is_set { None } else { self.0.get(key).cloned() };
        environment.get(name).map(str::to_owned).or_else(of_profile)
    }
}

/// The values of a section; `None` if there is none.
fn section_of(text: &str, wanted: &str) -> Option<BTreeMap<String, String>> {
    let (mut values, mut inside) = (None, false);
    for line in text.lines() {
        // What is indented belongs to the setting before it.
        if line.starts_with([' ', '\t', '#', ';']) {
            continue;
        }
        if let Some(section) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            inside = section.split_whitespace().eq(wanted.split_whitespace());
            if inside {
                values.get_or_insert_with(BTreeMap::new);
            }
        } else if let (true, Some((name, value))) = (inside, line.split_once('=')) {
            values.get_or_insert_with(BTreeMap::new).insert(name.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_from_the_environment_or_from_one_profile() {
        let home = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(home.path().join(".aws")).expect("a directory");
        let write =
            |name: &str, text: &str| std::fs::write(home.path().join(".aws").join(name), text).expect("written");
        write(
            "credentials",
            "# keys\n[default]\naws_access_key_id = A\naws_secret_access_key=a\n[ci]\naws_access_key_id=C\n  nested = x\naws_secret_access_key = c=\naws_session_token = t\n",
        );
        write("config", "[default]\nregion = eu-1\n[profile ci]\nregion=eu-2\n");
        let home = home.path().to_str().expect("text");
        let check = |more: &[(&str, &str)], expected: [Option<&str>; 4]| {
            let environment = Environment::with(&[&[("HOME", home)], more].concat());
            let profile = Profile::load(&environment).expect("readable");
            let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"];
            let found = names.map(|name| profile.variable(name, &environment));
            assert_eq!(found.each_ref().map(Option::as_deref), expected, "{more:?}");
        };
        check(&[], [Some("A"), Some("a"), None, Some("eu-1")]);
        check(&[("AWS_PROFILE", "ci")], [Some("C"), Some("c="), Some("t"), Some("eu-2")]);
        check(&[("AWS_PROFILE", "ci"), ("AWS_REGION", "r")], [Some("C"), Some("c="), Some("t"), Some("r")]);
        let own = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_SECRET_ACCESS_KEY", "e"), ("AWS_PROFILE", "ci")];
        check(&own, [Some("E"), Some("e"), None, Some("eu-2")]);
        let none = Environment::with(&[("HOME", home), ("AWS_PROFILE", "nobody")]);
        assert!(Profile::load(&none).is_err_and(|error| error.to_string().contains("no AWS profile `nobody`")));
        let nowhere = Environment::with(&[("HOME", "/nowhere")]);
        assert_eq!(Profile::load(&nowhere).expect("nothing").variable("AWS_REGION", &nowhere), None);
    }
}

//! [`Challenge`]: what a `WWW-Authenticate` header asks for (RFC 9110, section 11).

/// One way to be let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User name and password with each request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// Address of the token server.
        realm: String,
        /// What the token server calls this registry.
        service: Option<String>,
        /// What the token has to allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best challenge of several header values: a token before a password. Unknown schemes are passed over.
    pub(super) fn best<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        headers.flat_map(parse).max_by_key(|challenge| matches!(challenge, Self::Bearer { .. }))
    }
}

/// Splits a header value into its challenges. What cannot be understood ends the reading.
fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',', '\t']);
    while let Some((scheme, after)) = token(rest) {
        let (parameters, after) = parameters(after);
        let parameter = |name: &str| {
            parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
        };
        if scheme.eq_ignore_ascii_case("basic") {
            challenges.push(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer")
            && let Some(realm) = parameter("realm")
        {
            challenges.push(Challenge::Bearer { realm, service: parameter("service"), scope: parameter("scope") });
        }
        if after.len() == rest.len() {
            break;
        }
        rest = after;
    }
    challenges
}

/// Reads `name=value` pairs until something else comes: the next challenge, or nonsense.
fn parameters(mut rest: &str) -> (Vec<(String, String)>, &str) {
    let mut found = Vec::new();
    loop {
        let start = rest.trim_start_matches([' ', ',', '\t']);
        let Some((name, after)) = token(start) else { return (found, start) };
        let Some(after) = after.trim_start().strip_prefix('=') else { return (found, start) };
        let after = after.trim_start();
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted),
            None => match token(after) {
                Some((value, after)) => (value.to_owned(), after),
                None => return (found, ""),
            },
        };
        found.push((name.to_owned(), value));
        rest = after;
    }
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|character: char| !(character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:/".contains(character)))
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

fn quoted_string(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bearer(realm: &str, service: Option<&str>, scope: Option<&str>) -> Challenge {
        Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        }
    }

    fn check(headers: &[&str], expected: Option<&Challenge>) {
        assert_eq!(Challenge::best(headers.iter().copied()).as_ref(), expected, "{headers:?}");
    }

    #[test]
    fn challenges_of_real_registries_are_understood() {
        check(
            &[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
            ],
            Some(&bearer("https://auth.docker.io/token", Some("registry.docker.io"), Some("repository:a/b:pull,push"))),
        );
        check(&["Basic realm=\"Registry Realm\""], Some(&Challenge::Basic));
        check(&["basic"], Some(&Challenge::Basic));
        check(
            &[r#"Basic realm="a, b", BEARER Realm = "https://x/y" , service=s"#],
            Some(&bearer("https://x/y", Some("s"), None)),
        );
        check(&["Basic realm=\"x\"", r#"Bearer realm="r\"q""#], Some(&bearer("r\"q", None, None)));
        check(&[r#"Negotiate abc==, Basic realm="x""#], None);
        check(&["Digest nonce=\"1\"", "", "Bearer service=\"no realm\""], None);
        check(&[r#"Bearer realm="unterminated"#], Some(&bearer("unterminated", None, None)));
    }

    proptest! {
        #[test]
        fn no_text_panics_or_hangs(text in "[ -~\"\\\\,=é]{0,60}") {
            let _ = Challenge::best(std::iter::once(&*text));
        }
    }
}

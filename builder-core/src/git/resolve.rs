//! What a reference means: read from the answer of `git ls-remote`. Pure.

use super::address::{is_commit_id, is_reference};

/// What a reference came to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Resolved {
    /// The commit, or the annotated tag.
    pub object: String,
    /// The commit of an annotated tag.
    pub commit: Option<String>,
    /// The full name, `refs/heads/main`; none where a commit was asked for.
    pub name: Option<String>,
}

impl Resolved {
    /// A commit that was named by its id.
    pub(super) fn id(object: &str) -> Self {
        Self { object: object.to_owned(), commit: None, name: None }
    }

    /// Whether the commit or the tag has an id that begins so.
    pub(super) fn matches(&self, checksum: &str) -> bool {
        std::iter::once(&self.object).chain(&self.commit).any(|id| id.starts_with(checksum))
    }

    /// Whether its parts can be what a server says: whole ids, and a name that is one.
    pub fn is_well_formed(&self) -> bool {
        let ids = std::iter::once(&self.object).chain(&self.commit).all(|id| is_commit_id(id));
        ids && self.name.as_ref().is_none_or(|name| name.starts_with("refs/") && is_reference(name))
    }

    /// What is checked out: the same for a branch, for a tag and for an id that name one commit.
    pub fn identity(&self) -> &str {
        self.commit.as_ref().unwrap_or(&self.object)
    }
}

/// The arguments that ask for a reference, or for the default branch, in one question.
pub(super) fn question(remote: &str, reference: Option<&str>) -> Vec<String> {
    let mut arguments: Vec<String> = ["ls-remote", "--symref", "--", remote, "HEAD"].map(str::to_owned).into();
    if let Some(reference) = reference {
        arguments.push(reference.to_owned());
        arguments.push(format!("{reference}^{{}}"));
    }
    arguments
}

/// Reads the answer. As BuildKit does it: below `refs/` first, then a branch, then a tag.
pub(super) fn answer(text: &str, reference: Option<&str>) -> Option<Resolved> {
    let id_of = |wanted: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once('\t'));
        lines.find(|(id, name)| *name == wanted && is_commit_id(id)).map(|(id, _)| id.to_owned())
    };
    let reference = match reference {
        Some(reference) if reference != "HEAD" => reference.to_owned(),
        _ => {
            let target = text.lines().find_map(|line| line.strip_prefix("ref: ")?.strip_suffix("\tHEAD"));
            let Some(target) = target else { return id_of("HEAD").map(|id| Resolved::id(&id)) };
            return id_of("HEAD").map(|object| Resolved { object, commit: None, name: Some(target.to_owned()) });
        }
    };
    let below = |prefix: &str| format!("{prefix}{}", reference.strip_prefix(prefix).unwrap_or(&reference));
    for name in [below("refs/"), below("refs/heads/"), below("refs/tags/")] {
        if let Some(object) = id_of(&name) {
            let commit = id_of(&format!("{name}^{{}}"));
            return Some(Resolved { object, commit, name: Some(name) });
        }
    }
    None
}

/// Whether the repository names its objects by SHA-256.
pub(super) fn is_sha256(text: &str) -> bool {
    text.lines().any(|line| line.split('\t').next().is_some_and(|id| id.len() == 64 && is_commit_id(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_before_tags_and_tags_peeled() {
        let id = |digit: char| digit.to_string().repeat(40);
        let text = format!(
            "ref: refs/heads/main\tHEAD\n{a}\tHEAD\n{a}\trefs/heads/main\n{b}\trefs/heads/x/main\n{c}\trefs/heads/v1\n\
             {d}\trefs/tags/v1\n{e}\trefs/tags/v2\n{f}\trefs/tags/v2^{{}}\n{b}\trefs/pull/1/head\nnonsense\trefs/heads/bad\n",
            a = id('a'),
            b = id('b'),
            c = id('c'),
            d = id('d'),
            e = id('e'),
            f = id('f'),
        );
        let check = |reference: Option<&str>, expected: Option<(char, Option<char>, &str)>| {
            let expected = expected.map(|(object, commit, name)| Resolved {
                object: id(object),
                commit: commit.map(id),
                name: Some(name.to_owned()),
            });
            assert_eq!(answer(&text, reference), expected, "{reference:?}");
        };
        check(None, Some(('a', None, "refs/heads/main")));
        check(Some("HEAD"), Some(('a', None, "refs/heads/main")));
        check(Some("main"), Some(('a', None, "refs/heads/main")));
        check(Some("x/main"), Some(('b', None, "refs/heads/x/main")));
        check(Some("v1"), Some(('c', None, "refs/heads/v1")));
        check(Some("tags/v1"), Some(('d', None, "refs/tags/v1")));
        check(Some("refs/tags/v2"), Some(('e', Some('f'), "refs/tags/v2")));
        check(Some("v2"), Some(('e', Some('f'), "refs/tags/v2")));
        check(Some("pull/1/head"), Some(('b', None, "refs/pull/1/head")));
        check(Some("1/head"), None);
        check(Some("bad"), None);
        assert_eq!(answer("", None), None);
        assert_eq!(answer(&format!("{}\tHEAD\n", id('a')), None), Some(Resolved::id(&id('a'))));
        assert!(!is_sha256(&text) && is_sha256(&format!("{}\tHEAD\n", "a".repeat(64))));
        let tag = answer(&text, Some("v2")).expect("known");
        assert!(tag.matches("eee") && tag.matches("fff") && !tag.matches("ef"));
    }
}

//! [`Env`]: the environment at one point of a stage.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// An environment that shares everything with the one that it was made from.
///
/// A stage of `n` `ENV` lines and `n` `RUN` lines would otherwise hold n² pairs.
#[derive(Clone, Default)]
pub struct Env {
    newest: Option<Arc<Assignment>>,
}

struct Assignment {
    name: Arc<str>,
    value: Arc<str>,
    before: Option<Arc<Assignment>>,
}

impl Env {
    /// The empty environment.
    pub fn new() -> Self {
        Self::default()
    }

    /// This environment with one variable set.
    #[must_use]
    pub fn with(&self, name: impl Into<Arc<str>>, value: impl Into<Arc<str>>) -> Self {
        let assignment = Assignment { name: name.into(), value: value.into(), before: self.newest.clone() };
        Self { newest: Some(Arc::new(assignment)) }
    }

    /// The value of a variable. Takes time for each assignment that was ever made.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.assignments().find(|assignment| &*assignment.name == name).map(|assignment| &*assignment.value)
    }

    /// Names and values, in order of their last assignment; each name once.
    pub fn to_vec(&self) -> Vec<(&str, &str)> {
        let mut seen = HashSet::new();
        let mut pairs: Vec<_> = self
            .assignments()
            .filter(|assignment| seen.insert(&*assignment.name))
            .map(|assignment| (&*assignment.name, &*assignment.value))
            .collect();
        pairs.reverse();
        pairs
    }

    /// Whether nothing is set.
    pub fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    /// Newest first, replaced ones included.
    fn assignments(&self) -> impl Iterator<Item = &Assignment> {
        std::iter::successors(self.newest.as_deref(), |assignment| assignment.before.as_deref())
    }
}

impl Drop for Env {
    /// One after the other: the derived drop would recurse as deep as the list is long.
    fn drop(&mut self) {
        let mut next = self.newest.take();
        while let Some(mut assignment) = next.and_then(Arc::into_inner) {
            next = assignment.before.take();
        }
    }
}

impl<N: Into<Arc<str>>, V: Into<Arc<str>>> FromIterator<(N, V)> for Env {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(pairs: T) -> Self {
        pairs.into_iter().fold(Self::new(), |env, (name, value)| env.with(name, value))
    }
}

impl PartialEq for Env {
    fn eq(&self, other: &Self) -> bool {
        self.to_vec() == other.to_vec()
    }
}

impl Eq for Env {}

impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.to_vec()).finish()
    }
}

impl serde::Serialize for Env {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.to_vec().into_iter().map(|(name, value)| format!("{name}={value}")))
    }
}

/// An [`Env`] that is being built, with fast look-ups.
#[derive(Debug, Clone, Default)]
pub(super) struct Scope {
    env: Env,
    values: Arc<HashMap<Arc<str>, Arc<str>>>,
    /// Names are compared without case.
    ignore_case: bool,
}

impl Scope {
    /// An empty one; on Windows names are compared without case.
    pub(super) fn new(windows: bool) -> Self {
        Self { ignore_case: windows, ..Self::default() }
    }

    /// What a name is compared by.
    pub(super) fn key<'n>(&self, name: &'n str) -> Cow<'n, str> {
        if self.ignore_case { Cow::Owned(name.to_uppercase()) } else { Cow::Borrowed(name) }
    }

    pub(super) fn set(&mut self, name: &str, value: &str) {
        let key = self.key(name);
        let value: Arc<str> = value.into();
        self.env = self.env.with(name, value.clone());
        Arc::make_mut(&mut self.values).insert(key.as_ref().into(), value);
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.values.get(&*self.key(name)).map(|value| &**value)
    }

    /// The environment as it is now.
    pub(super) fn snapshot(&self) -> Env {
        self.env.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_assignment_replaces_and_moves_to_the_end() {
        let env: Env = [("A", "1"), ("B", "2"), ("A", "3")].into_iter().collect();
        assert_eq!(env.to_vec(), [("B", "2"), ("A", "3")]);
        assert_eq!(env.get("A"), Some("3"));
        assert_eq!(env.get("C"), None);
    }

    #[test]
    fn what_was_taken_before_does_not_change() {
        let mut scope = Scope::default();
        scope.set("A", "1");
        let before = scope.snapshot();
        let other = scope.clone();
        scope.set("A", "2");
        assert_eq!((before.get("A"), other.get("A"), scope.get("A")), (Some("1"), Some("1"), Some("2")));
    }

    // Rows: A32.
    #[test]
    fn names_on_windows_have_no_case() {
        for (windows, expected) in [(true, Some("2")), (false, Some("1"))] {
            let mut scope = Scope::new(windows);
            scope.set("Path", "1");
            scope.set("PATH", "2");
            assert_eq!(scope.get("Path"), expected);
            assert_eq!(scope.get("path"), expected.filter(|_| windows));
        }
    }

    #[test]
    fn a_long_list_is_dropped_without_recursion() {
        let env: Env = (0..1_000_000).map(|_| ("A", "1")).collect();
        let shared = env.clone();
        drop(env);
        assert_eq!(shared.to_vec(), [("A", "1")]);
    }
}

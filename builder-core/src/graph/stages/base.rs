//! What a `FROM` begins with.

use super::{Base, Foreign, Stages};
use crate::diagnostic::{Span, nearest};
use crate::dockerfile::From;
use crate::graph::error::{GraphError, GraphErrorKind};
use crate::oci::Platform;

impl Stages<'_> {
    /// What the expanded name of a base means: an earlier stage, nothing, a context or an image.
    pub(super) fn base(&mut self, name: &str, platform: Platform, span: Span) -> Base {
        // Unlike `--from` this looks a stage up as it is written, as BuildKit does: stages have lower-case names.
        if let Some(index) = self.numbers.get(name).and_then(|numbers| numbers.last()) {
            return Base::Stage(*index);
        }
        if name == "scratch" {
            return Base::Scratch;
        }
        match self.image_or_context(name, platform) {
            Ok(Foreign::Directory(context)) => Base::Directory(context),
            Ok(Foreign::Image(request)) => Base::Image(request),
            Ok(Foreign::Scratch) => Base::Scratch,
            Ok(Foreign::Stage(_)) => Base::Broken,
            Err(error) => {
                self.errors.push(error.at(self.input.location(span)));
                Base::Broken
            }
        }
    }

    /// The expanded name of the base.
    pub(super) fn base_name(&mut self, from: &From, used_args: &mut Vec<String>) -> Option<String> {
        let location = self.input.location(from.image.span);
        let expanded = match self.input.expander.word(&from.image.text, &|name| self.globals.value(name)) {
            Ok(expanded) => expanded,
            Err(error) => {
                self.errors.push(GraphError::new(error).at(location));
                return None;
            }
        };
        let unset = self.undeclared_hint(&expanded.unset);
        used_args.extend(expanded.used);
        if expanded.text.is_empty() {
            let error = GraphError::new(GraphErrorKind::BlankBase(from.image.text.to_string())).at(location);
            let hint = unset.unwrap_or_else(|| "give the argument a default value, or `--build-arg`".to_owned());
            self.errors.push(error.hint(hint));
            return None;
        }
        Some(expanded.text)
    }

    pub(super) fn platform(&mut self, from: &From, used_args: &mut Vec<String>) -> Option<Platform> {
        let word = from.platform.as_ref()?;
        let location = self.input.location(word.span);
        let expanded = match self.input.expander.word(&word.text, &|name| self.globals.value(name)) {
            Ok(expanded) => expanded,
            Err(error) => {
                self.errors.push(GraphError::new(error).at(location));
                return None;
            }
        };
        let unset = self.undeclared_hint(&expanded.unset);
        used_args.extend(expanded.used);
        if expanded.text.is_empty() {
            let error = GraphError::new(GraphErrorKind::BlankPlatform(word.text.to_string())).at(location);
            self.errors.push(match unset {
                Some(hint) => error.hint(hint),
                None => error,
            });
            return None;
        }
        match expanded.text.parse::<Platform>() {
            Ok(platform) => Some(platform),
            Err(error) => {
                let error = GraphError::new(error).at(location);
                self.errors.push(match unset {
                    Some(hint) => error.hint(hint),
                    None => error,
                });
                None
            }
        }
    }

    /// What to do about arguments that nobody declared.
    fn undeclared_hint(&self, unset: &[String]) -> Option<String> {
        let name = unset.iter().find(|name| !self.globals.is_declared(name))?;
        Some(match nearest(name, self.globals.names()) {
            Some(near) => format!("argument `{name}` is not declared; did you mean `{near}`?"),
            None => format!("declare it before the first `FROM`: `ARG {name}=…`"),
        })
    }
}

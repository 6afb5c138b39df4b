//! `# syntax=`: which frontend a file is written for. The one of `docker/dockerfile`, in any version, is built in.

use super::Input;
use crate::dockerfile::detect_syntax;
use crate::graph::NamedContext;
use crate::graph::error::{GraphError, GraphErrorKind};
use crate::oci::Reference;

/// What BuildKit calls the frontend that is built in.
const BUILT_IN: &str = "dockerfile.v0";

/// The error of a file that asks for another frontend. The build argument wins over the file, and a context with the
/// name of the frontend takes its place.
pub(super) fn check(input: Input<'_>) -> Option<GraphError> {
    let argument = input.options.build_args.get("BUILDKIT_SYNTAX").map(|value| value.trim());
    let (wanted, span) = if let Some(value) = argument.filter(|value| !value.is_empty()) {
        (value.to_owned(), None)
    } else {
        let word = detect_syntax(&input.dockerfile.source)?;
        (word.text.to_string(), Some(word.span))
    };
    let wanted = wanted.split_whitespace().next()?;
    let meant = match input.options.context(wanted, &input.options.build_platform) {
        None if wanted == BUILT_IN || is_dockers(wanted) => return None,
        None => wanted.to_owned(),
        Some((_, NamedContext::Image(image))) if is_dockers(&image.familiar()) => return None,
        Some((_, NamedContext::Image(image))) => image.familiar(),
        Some((_, NamedContext::Layout(layout))) => layout.to_string(),
        Some((name, _)) => name.to_owned(),
    };
    let error = GraphError::new(GraphErrorKind::Frontend(meant)).hint(
        "only that of `docker/dockerfile` is built in: use it, or pass `--build-arg BUILDKIT_SYNTAX=dockerfile.v0`",
    );
    Some(match span {
        Some(span) => error.at(input.location(span)),
        None => error,
    })
}

/// Docker's frontend in any version, from any mirror.
fn is_dockers(name: &str) -> bool {
    let Ok(reference) = name.parse::<Reference>() else { return false };
    let mut parts = reference.path().rsplit('/');
    let last = parts.next().unwrap_or_default();
    matches!(last, "dockerfile" | "dockerfile-upstream") && parts.next() == Some("docker")
}

#[cfg(test)]
mod tests {
    use crate::diagnostic::Source;
    use crate::graph::{Images, NamedContext, Options, plan};
    use crate::oci::Platform;

    fn check(text: &str, argument: Option<&str>, context: Option<(&str, &str)>, expected: Option<&str>) {
        let file = crate::dockerfile::parse(&Source::new("Dockerfile", text.as_bytes())).expect("it parses");
        let mut options = Options::new(Platform::host());
        options.build_args.extend(argument.map(|value| ("BUILDKIT_SYNTAX".to_owned(), value.to_owned())));
        let context =
            context.map(|(name, image)| (name.to_owned(), NamedContext::Image(image.parse().expect("a reference"))));
        options.contexts.extend(context);
        let error = plan(&file, &options, &Images::new()).err().map(|errors| errors.to_string());
        assert_eq!(
            error,
            expected.map(|name| format!("the frontend `{name}` is not supported")),
            "{text} {argument:?}"
        );
    }

    // Rows: A13.
    #[test]
    fn only_dockers_frontend_is_built_in() {
        let docker = "# syntax=docker/dockerfile:1\nFROM scratch\n";
        let other = "# syntax=example.com/other:2\nFROM scratch\n";
        check("FROM scratch\n", None, None, None);
        check(docker, None, None, None);
        check("# syntax=docker/dockerfile-upstream:master-labs\nFROM scratch\n", None, None, None);
        check(
            "# syntax=mirror.local:5000/docker.io/docker/dockerfile:1.7@sha256:0123456789012345678901234567890123456789012345678901234567890123\nFROM scratch\n",
            None,
            None,
            None,
        );
        check(other, None, None, Some("example.com/other:2"));
        check("# syntax=dockerfile\nFROM scratch\n", None, None, Some("dockerfile"));
        check(other, Some("dockerfile.v0"), None, None);
        check(other, Some(" docker/dockerfile:1 cmdline"), None, None);
        check(other, Some(""), None, Some("example.com/other:2"));
        check(docker, Some("example.com/x"), None, Some("example.com/x"));
        check(docker, None, Some(("docker/dockerfile:1", "mine/frontend")), Some("mine/frontend:latest"));
        check(other, None, Some(("example.com/other:2", "docker/dockerfile:1.4")), None);
    }
}

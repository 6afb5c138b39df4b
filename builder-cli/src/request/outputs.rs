//! `--output`, `--push`, `--load` and `--annotation` become the outputs of a build.

use std::path::PathBuf;

use builder_core::export::{Annotation, AnnotationLevel, Destination, ImageFormat, ImageOutput, LayoutOutput, Output};
use builder_core::oci::Reference;

use super::{Result, values};
use crate::args::BuildArgs;
use crate::command_error::CommandError;
use crate::environment::Environment;

/// The outputs; without any option the local store.
pub(super) fn settle(args: &BuildArgs, tags: &[Reference], environment: &Environment) -> Result<Vec<Output>> {
    let mut outputs = Vec::new();
    for text in &args.output {
        let output = Output::parse(text).map_err(|error| {
            let hint = builder_core::diagnostic::Diagnostic::hint(&error);
            let made = CommandError::usage(format!("--output `{text}`: {error}"));
            match hint {
                Some(hint) => made.with_hint(hint),
                None => made,
            }
        })?;
        outputs.push(absolute(output, environment).with_default_names(tags));
    }
    if args.push {
        // `--output=type=image --push` is one output, as in buildx.
        match outputs.iter_mut().find_map(image) {
            Some(image) => image.push = true,
            None => outputs.push(Output::push(tags.to_vec())),
        }
    }
    if args.load || outputs.is_empty() {
        match outputs.iter_mut().find_map(image) {
            Some(image) => image.store = true,
            None => outputs.push(Output::store(tags.to_vec())),
        }
    }
    for output in &outputs {
        if let Output::Image(ImageOutput { names, push: true, push_by_digest: false, .. }) = output
            && names.is_empty()
        {
            return Err(CommandError::usage("an image needs a name to be pushed").with_hint("give one with `--tag`"));
        }
    }
    for text in &args.annotation {
        let annotations = annotations(text)?;
        for format in outputs.iter_mut().filter_map(format) {
            format.annotations.0.extend(annotations.iter().cloned());
        }
    }
    for output in &mut outputs {
        let (rewrite, epoch) = match output {
            Output::Image(ImageOutput { format, .. })
            | Output::Oci(LayoutOutput { format, .. })
            | Output::Docker(LayoutOutput { format, .. }) => {
                (&mut format.rewrite_timestamp, &mut format.source_date_epoch)
            }
            Output::Local { format, .. } | Output::Tar { format, .. } => {
                (&mut format.rewrite_timestamp, &mut format.source_date_epoch)
            }
            Output::CacheOnly => continue,
        };
        *rewrite |= args.edits.rewrite_timestamp || args.edits.timestamp.is_some();
        *epoch = epoch.or(args.edits.timestamp);
    }
    if !args.annotation.is_empty() && !outputs.iter().any(Output::needs_image) {
        return Err(CommandError::usage("--annotation needs an output that is an image"));
    }
    Ok(outputs)
}

fn image(output: &mut Output) -> Option<&mut ImageOutput> {
    match output {
        Output::Image(image) => Some(image),
        _ => None,
    }
}

fn format(output: &mut Output) -> Option<&mut ImageFormat> {
    match output {
        Output::Image(ImageOutput { format, .. })
        | Output::Oci(LayoutOutput { format, .. })
        | Output::Docker(LayoutOutput { format, .. }) => Some(format),
        _ => None,
    }
}

/// Paths of the command line start in the current directory, which the library does not know.
fn absolute(mut output: Output, environment: &Environment) -> Output {
    let path = |path: &mut PathBuf| *path = environment.absolute(path);
    match &mut output {
        Output::Local { directory, .. } => path(directory),
        Output::Oci(LayoutOutput { destination, .. })
        | Output::Docker(LayoutOutput { destination, .. })
        | Output::Tar { destination, .. } => match destination {
            Destination::File(file) => path(file),
            Destination::Directory(directory) => path(directory),
            Destination::Stdout => {}
        },
        Output::Image(_) | Output::CacheOnly => {}
    }
    output
}

/// `[TYPE[PLATFORM],…:]KEY=VALUE`, as in buildx: `index,manifest[linux/amd64]:org.example=x`.
fn annotations(text: &str) -> Result<Vec<Annotation>> {
    let wrong = |reason: &str| CommandError::usage(format!("--annotation `{text}`: {reason}"));
    let (key, value) = text.split_once('=').ok_or_else(|| wrong("expected `KEY=VALUE`"))?;
    let (types, key) = key.split_once(':').unwrap_or(("manifest", key));
    if key.is_empty() {
        return Err(wrong("the key is empty"));
    }
    let one = |kind: &str| {
        let (kind, platform) = match kind.split_once('[') {
            None => (kind, None),
            Some((kind, rest)) => {
                let platform = rest.strip_suffix(']').ok_or_else(|| wrong("`]` is missing"))?;
                (kind, Some(values::platform(platform)?))
            }
        };
        let level = match kind {
            "manifest" => AnnotationLevel::Manifest,
            "manifest-descriptor" => AnnotationLevel::ManifestDescriptor,
            "index" => AnnotationLevel::Index,
            "index-descriptor" => AnnotationLevel::IndexDescriptor,
            _ => return Err(wrong("the type is not one of manifest, index, manifest-descriptor, index-descriptor")),
        };
        Ok(Annotation { level, platform, key: key.to_owned(), value: value.to_owned() })
    };
    types.split(',').map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Rows: B7.
    #[test]
    fn annotations_say_where_they_belong() {
        let levels = |text: &str| {
            annotations(text).map(|all| all.iter().map(|one| (one.level, one.platform.is_some())).collect::<Vec<_>>())
        };
        assert_eq!(levels("a=b").ok(), Some(vec![(AnnotationLevel::Manifest, false)]));
        assert_eq!(
            levels("index,manifest[linux/amd64]:a=b").ok(),
            Some(vec![(AnnotationLevel::Index, false), (AnnotationLevel::Manifest, true)])
        );
        for bad in ["a", "foo:a=b", "manifest[linux:a=b", "manifest:=b", "manifest[x y]:a=b"] {
            assert!(levels(bad).is_err(), "{bad}");
        }
    }
}

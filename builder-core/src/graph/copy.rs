//! `COPY` and `ADD`.

use std::fmt::Write as _;

use super::error::{GraphError, GraphErrorKind};
use super::lower::{At, Current, ImageUsed, Lowering};
use super::stages::Foreign;
use super::{AddSource, ContextId, CopyOp, Files, Op};
use crate::diagnostic::Diagnostic as _;
use crate::dockerfile::{Add, Copy, CopySource, Heredoc, Word};
use crate::git::{self, Address, AddressError, Wanted};
use crate::oci::Digest;

impl<'a> Lowering<'a> {
    pub(super) fn copy(&mut self, current: &mut Current, at: &At<'a>, copy: &'a Copy) -> Option<()> {
        let from = match &copy.from {
            Some(word) => self.files(current, at, word, &word.text)?,
            None => Files::Context(ContextId::Main),
        };
        let op =
            CopyOp { link: copy.link, parents: copy.parents, ..CopyOp::new(from, "", current.state.workdir.clone()) };
        let words = Words {
            sources: &copy.sources,
            destination: &copy.destination,
            chown: copy.chown.as_ref(),
            chmod: copy.chmod.as_ref(),
            checksum: None,
            exclude: &copy.exclude,
        };
        self.copy_op(current, at, op, &words)
    }

    pub(super) fn add_files(&mut self, current: &mut Current, at: &At<'a>, add: &'a Add) -> Option<()> {
        let files = Files::Context(ContextId::Main);
        let op = CopyOp {
            add: true,
            link: add.link,
            unpack: add.unpack,
            keep_git_dir: add.keep_git_dir,
            ..CopyOp::new(files, "", current.state.workdir.clone())
        };
        let words = Words {
            sources: &add.sources,
            destination: &add.destination,
            chown: add.chown.as_ref(),
            chmod: add.chmod.as_ref(),
            checksum: add.checksum.as_ref(),
            exclude: &add.exclude,
        };
        self.copy_op(current, at, op, &words)
    }

    /// What `--from` or `from=` names. `None` if it is wrong, which was reported when the stages were put together.
    pub(super) fn files(&mut self, current: &Current, at: &At<'a>, word: &Word, name: &str) -> Option<Files> {
        Some(match self.stages.foreign(name).ok()? {
            Foreign::Scratch => Files::Vertex(None),
            Foreign::Stage(other) if other < current.index => Files::Vertex(self.root_of(other)),
            Foreign::Stage(_) => return None,
            Foreign::Directory(context) => Files::Context(ContextId::Named(context)),
            Foreign::Image(request) => {
                if !self.is_known(&request) {
                    self.error(at, word.span, GraphErrorKind::UnresolvedImage(request.reference));
                    return None;
                }
                let context = self.options.context(name, &request.platform).map(|(name, _)| name);
                let location = at.location(at.instruction.span);
                let used = ImageUsed { stage: &current.title, location, origin: at.origin.clone() };
                Files::Vertex(self.image(&request, used, |reference| match context {
                    Some(name) => format!("[context {name}] {reference}"),
                    None => format!("FROM {reference}"),
                }))
            }
        })
    }

    fn copy_op(&mut self, current: &mut Current, at: &At<'a>, mut op: CopyOp, words: &Words<'_>) -> Option<()> {
        op.chown = self.flag(current, at, words.chown)?;
        op.chmod = self.flag(current, at, words.chmod)?;
        op.checksum = self.flag(current, at, words.checksum)?;
        op.exclude = self.words(current, at, words.exclude)?;
        if let (Some(mode), Some(word)) = (&op.chmod, words.chmod)
            && !is_mode(mode)
        {
            self.error(at, word.span, GraphErrorKind::Chmod(mode.clone()));
            return None;
        }
        // As in BuildKit, where a mode needs the destination. So it keeps the modes of the directories above.
        op.link &= op.chmod.as_ref().is_none_or(String::is_empty);
        let mut inline = Vec::new();
        for source in words.sources {
            match source {
                CopySource::Path(word) => {
                    let source = self.source(current, at, word, &op)?;
                    op.sources.push(source);
                }
                // As in BuildKit here-documents are copied after everything else.
                CopySource::Heredoc(heredoc) => inline.push(self.inline(current, at, heredoc)?),
            }
        }
        op.sources.extend(inline);
        let destination = self.word(current, at, words.destination)?;
        let created_by = created_by(&op, &destination);
        op.destination = if matches!(destination.as_str(), "" | ".") { "./".to_owned() } else { destination };
        if let (Some(_), Some(word)) = (&op.checksum, words.checksum) {
            self.check_checksum(at, word, &op)?;
        }
        let name = without_passwords(self.shown(current, at), &op);
        let vertex = self.add(current, at, Op::Copy(op), name);
        self.record(current, at, created_by, Some(vertex));
        Some(())
    }

    fn source(&mut self, current: &Current, at: &At<'a>, word: &Word, op: &CopyOp) -> Option<AddSource> {
        let add = op.add;
        let source = self.word(current, at, word)?;
        let source = if let Some(parsed) = git_address(&source) {
            if add {
                let git = git_source(source, parsed, op.checksum.as_deref(), op.keep_git_dir);
                return git.map_err(|error| self.report(at, word.span, *error)).ok();
            }
            AddSource::Http(source)
        } else if is_http(&source) {
            AddSource::Http(source)
        } else {
            return Some(AddSource::Path(source));
        };
        if let (AddSource::Http(address), false) = (&source, add) {
            let address = git::redacted(address);
            let error = GraphError::new(GraphErrorKind::RemoteCopy(address));
            self.report(at, word.span, error.hint("use `ADD`"));
            return None;
        }
        Some(source)
    }

    fn inline(&mut self, current: &Current, at: &At<'a>, heredoc: &Heredoc) -> Option<AddSource> {
        let name = heredoc.name.to_string();
        let body = heredoc.text();
        if !heredoc.expand {
            return Some(AddSource::Inline { name, body: body.into_owned() });
        }
        let scope = &current.state.scope;
        match self.expander.heredoc(&body, &|name| scope.get(name).map(str::to_owned)) {
            Ok(expanded) => {
                self.warn_unset(current, at, heredoc.span, &expanded.unset);
                Some(AddSource::Inline { name, body: expanded.text })
            }
            Err(error) => {
                self.error(at, heredoc.body, error);
                None
            }
        }
    }

    fn check_checksum(&mut self, at: &At<'a>, word: &Word, op: &CopyOp) -> Option<()> {
        match &op.sources[..] {
            [AddSource::Git(..)] => Some(()),
            [AddSource::Http(_)] => match op.checksum.as_deref().map(str::parse::<Digest>) {
                Some(Err(error)) => {
                    self.error(at, word.span, error);
                    None
                }
                Some(Ok(_)) | None => Some(()),
            },
            [AddSource::Path(path)] => {
                self.error(at, word.span, GraphErrorKind::ChecksumLocal(path.clone()));
                None
            }
            _ => {
                self.error(at, word.span, GraphErrorKind::ChecksumSources);
                None
            }
        }
    }
}

/// The words of a copy that are expanded.
struct Words<'w> {
    sources: &'w [CopySource],
    destination: &'w Word,
    chown: Option<&'w Word>,
    chmod: Option<&'w Word>,
    checksum: Option<&'w Word>,
    exclude: &'w [Word],
}

/// The text of a step without user and password of its addresses.
fn without_passwords(mut shown: String, op: &CopyOp) -> String {
    for source in &op.sources {
        if let AddSource::Http(word) | AddSource::Git(word, _) = source {
            shown = shown.replace(word, &git::redacted(word));
        }
    }
    shown
}

/// The entry of the history, with those flags that BuildKit shows there.
fn created_by(op: &CopyOp, destination: &str) -> String {
    let mut text = if op.add { "ADD" } else { "COPY" }.to_owned();
    if op.parents {
        text.push_str(" --parents");
    }
    for (name, value) in [("chown", &op.chown), ("chmod", &op.chmod)] {
        if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
            let _ = write!(text, " --{name}={value}");
        }
    }
    for source in &op.sources {
        match source {
            AddSource::Path(word) => {
                text.push(' ');
                text.push_str(word);
            }
            AddSource::Http(word) | AddSource::Git(word, _) => {
                text.push(' ');
                text.push_str(&git::redacted(word));
            }
            AddSource::Inline { name, .. } => {
                text.push_str(" <<");
                text.push_str(name);
            }
        }
    }
    text + " " + destination + " # buildkit"
}

pub(super) fn is_http(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// A git repository, with what the flags of `ADD` say about it.
pub(super) fn git_source(
    text: String,
    parsed: Result<Address, AddressError>,
    checksum: Option<&str>,
    keep_git_dir: Option<bool>,
) -> Result<AddSource, Box<GraphError>> {
    let parsed = parsed.and_then(|mut address| {
        checksum.map_or(Ok(()), |checksum| address.check(checksum))?;
        Ok(address)
    });
    let address = parsed.map_err(|error| {
        let hint = error.hint();
        let error = GraphError::new(error);
        Box::new(match hint {
            Some(hint) => error.hint(hint),
            None => error,
        })
    })?;
    match (keep_git_dir, address.keep_git_dir) {
        (Some(flag), Some(said)) if flag != said => Err(Box::new(GraphError::new(GraphErrorKind::KeepGitDir { flag }))),
        (flag, said) => {
            let keep_git_dir = flag.or(said).unwrap_or_default();
            Ok(AddSource::Git(text, Box::new(Wanted { address, keep_git_dir })))
        }
    }
}

/// The repository that a source names. `github.com/owner/name` is a path here, as in BuildKit.
pub(super) fn git_address(source: &str) -> Option<Result<Address, AddressError>> {
    Address::parse(source).filter(|_| !source.starts_with("github.com/"))
}

/// Octal digits up to 7777, or symbols as chmod(1) takes them; empty is not given.
fn is_mode(mode: &str) -> bool {
    if mode.is_empty() {
        return true;
    }
    if mode.bytes().all(|byte| byte.is_ascii_digit()) {
        return u32::from_str_radix(mode, 8).is_ok_and(|mode| mode <= 0o7777);
    }
    mode.split(',').all(|clause| {
        let actions = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let mut parts = actions.split(['+', '-', '=']);
        // The part before the first operator is empty: only the letters above may stand there.
        let permissions = |part: &str| part.bytes().all(|byte| b"rwxXstugo".contains(&byte));
        actions.starts_with(['+', '-', '=']) && parts.next() == Some("") && parts.all(permissions)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for mode in
            ["", "0", "755", "0755", "7777", "+x", "u=rwX,go=rX", "a-w", "g=u", "ug+rw-x", "+s", "=", "o+t", "u=ug"]
        {
            assert!(is_mode(mode), "{mode}");
        }
        for mode in ["8", "10000", "77777777777777", "x", "u", "u=y", "rwx", ",", "u+r,", "-1"] {
            assert!(!is_mode(mode), "{mode}");
        }
    }
}

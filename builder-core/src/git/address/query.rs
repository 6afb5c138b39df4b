//! The query of an address.

use std::collections::BTreeSet;

use super::{Address, AddressError, Mtime};

/// Every word that a query may have.
pub(super) const WORDS: [&str; 10] =
    ["ref", "branch", "tag", "subdir", "checksum", "commit", "keep-git-dir", "submodules", "mtime", "fetch-by-commit"];

/// Applies a query to an address that has what its fragment says.
pub(super) fn apply(address: &mut Address, query: &str) -> Result<(), AddressError> {
    let (mut tag, mut branch) = (None, None);
    let mut seen = BTreeSet::new();
    for word in query.split('&').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let decode = |part: &str| unescape(part, true).ok_or_else(|| AddressError::Escape(address.remote.clone()));
        let (name, value) = (decode(name)?, decode(value)?);
        if !WORDS.contains(&name.as_str()) {
            return Err(AddressError::UnknownQuery(name));
        }
        if !seen.insert(name.clone()) {
            return Err(AddressError::Repeated(name));
        }
        let is_switch = matches!(name.as_str(), "keep-git-dir" | "submodules" | "fetch-by-commit");
        if value.is_empty() && !is_switch {
            return Err(AddressError::NoValue(name));
        }
        match name.as_str() {
            "ref" => address.reference = Some(agree("refs", address.reference.take(), value)?),
            "tag" => tag = Some(below("refs/tags/", value)),
            "branch" => branch = Some(below("refs/heads/", value)),
            "subdir" => {
                let known = Some(std::mem::take(&mut address.subdir)).filter(|subdir| !subdir.is_empty());
                address.subdir = agree("subdirectories", known, value)?;
            }
            "checksum" | "commit" => {
                address.checksum = Some(agree("commits", address.checksum.take(), checksum(&value)?)?);
            }
            "keep-git-dir" => address.keep_git_dir = Some(switch("keep-git-dir", value)?),
            "submodules" => address.submodules = Some(switch("submodules", value)?),
            "fetch-by-commit" => address.fetch_by_commit = switch("fetch-by-commit", value)?,
            _ => address.mtime = mtime(value)?,
        }
    }
    if let (Some(tag), Some(branch)) = (&tag, &branch) {
        return Err(AddressError::Conflict { what: "refs", first: tag.clone(), second: branch.clone() });
    }
    if let Some(named) = tag.or(branch) {
        address.reference = Some(agree("refs", address.reference.take(), named)?);
    }
    if address.reference.is_none() {
        address.reference.clone_from(&address.checksum);
    }
    Ok(())
}

/// The beginning of a commit id.
pub(super) fn checksum(value: &str) -> Result<String, AddressError> {
    if value.is_empty() || value.len() > 64 || !value.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        let expected = "it is not the beginning of a commit id";
        return Err(AddressError::Value { name: "checksum", value: value.to_owned(), expected });
    }
    Ok(value.to_ascii_lowercase())
}

fn agree(what: &'static str, known: Option<String>, value: String) -> Result<String, AddressError> {
    match known {
        Some(first) if first != value => Err(AddressError::Conflict { what, first, second: value }),
        _ => Ok(value),
    }
}

fn below(prefix: &str, value: String) -> String {
    if value.starts_with(prefix) { value } else { format!("{prefix}{value}") }
}

/// What Go's `strconv.ParseBool` takes; nothing at all means yes.
fn switch(name: &'static str, value: String) -> Result<bool, AddressError> {
    match value.as_str() {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(AddressError::Value { name, value, expected: "`true` or `false`" }),
    }
}

fn mtime(value: String) -> Result<Mtime, AddressError> {
    match value.as_str() {
        "checkout" => Ok(Mtime::Checkout),
        "commit" => Ok(Mtime::Commit),
        _ => Err(AddressError::Value { name: "mtime", value, expected: "`checkout` or `commit`" }),
    }
}

/// Decodes `%41` and, in a query, `+` (RFC 3986, section 2.1; HTML forms). `None` if that is not text.
pub(super) fn unescape(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' if plus_is_blank => b' ',
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                let value = digit(bytes.next()?)? * 16 + digit(bytes.next()?)?;
                u8::try_from(value).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(out).ok()
}

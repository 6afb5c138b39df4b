//! The syntax tree and the expansion of words as JSON, for tools and tests: an interface of its own, described in
//! `docs/reference/dockerfile.md`.

use serde_json::{Value, json};

use super::expand::Expander;
use super::syntax::{self, Args, Keyword, Node};
use super::{Heredoc, KeyValue, ParseErrors};
use crate::diagnostic::Source;

/// The syntax tree of a Dockerfile: an array with one object an instruction.
///
/// This is the tree before meaning: instructions that do not exist and words that are missing are errors of
/// [`super::parse`], not of this.
///
/// # Errors
/// All errors that keep the text from being read as statements.
pub fn ast_json(source: &Source) -> Result<Value, ParseErrors> {
    let mut nodes = Vec::new();
    let syntax = syntax::read(source, &mut |node| nodes.push(node_json(&node, true)));
    if syntax.errors.is_empty() { Ok(Value::Array(nodes)) } else { Err(ParseErrors::new(syntax.errors)) }
}

/// A child has no lines of its own, as in BuildKit's tree: they are 0.
fn node_json(node: &Node, top: bool) -> Value {
    let child = match &node.args {
        Args::Child(child) => node_json(child, false),
        _ => Value::Null,
    };
    json!({
        "instruction": syntax::lower_case(&node.name.text),
        "flags": node.flags.iter().map(|flag| &*flag.text).collect::<Vec<_>>(),
        "args": args(node),
        "json": node.is_json(),
        "child": child,
        "heredocs": node.heredocs.iter().map(heredoc_json).collect::<Vec<_>>(),
        "start_line": if top { node.start_line } else { 0 },
        "end_line": if top { node.end_line } else { 0 },
        "original": &*node.original,
    })
}

fn args(node: &Node) -> Vec<&str> {
    match &node.args {
        Args::Words(words) if node.keyword == Some(Keyword::Arg) => words
            .iter()
            .flat_map(|word| match word.text.split_once('=') {
                Some((name, default)) => [name, default, "="],
                None => [&*word.text, "", ""],
            })
            .collect(),
        Args::Words(words) | Args::Json(words) => words.iter().map(|word| &*word.text).collect(),
        Args::Pairs(pairs) => pairs.iter().flat_map(triple).collect(),
        Args::Health { kind, json: Some(words), .. } => {
            std::iter::once(kind).chain(words).map(|word| &*word.text).collect()
        }
        Args::Health { kind, command, .. } => std::iter::once(kind).chain(command).map(|word| &*word.text).collect(),
        Args::Child(_) => Vec::new(),
    }
}

fn triple(pair: &KeyValue) -> [&str; 3] {
    [&pair.key.text, &pair.value.text, if pair.legacy { "" } else { "=" }]
}

fn heredoc_json(heredoc: &Heredoc) -> Value {
    json!({
        "name": &*heredoc.name,
        "content": &*heredoc.content,
        "expand": heredoc.expand,
        "chomp": heredoc.chomp,
    })
}

/// A list of requests to [`words_json`] is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("request {index}: {reason}")]
pub struct WordsRequestError {
    /// Which request, from 0.
    pub index: usize,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// Expands words: takes an array of `{"mode": "word"|"words", "input": "…", "env": ["K=V", …]}` and returns an array
/// of `{"ok": …}` and `{"error": "…"}` in the same order. The escape character is the backslash; of two entries of
/// `env` with one name the later one wins.
///
/// # Errors
/// If a request is not of that form.
pub fn words_json(requests: &[Value]) -> Result<Vec<Value>, WordsRequestError> {
    let answer = |(index, request)| answer(request).map_err(|reason| WordsRequestError { index, reason });
    requests.iter().enumerate().map(answer).collect()
}

fn answer(request: &Value) -> Result<Value, &'static str> {
    let input = request["input"].as_str().ok_or("`input` must be a string")?;
    let mut env = std::collections::HashMap::new();
    if let Some(entries) = request.get("env").filter(|env| !env.is_null()) {
        for entry in entries.as_array().ok_or("`env` must be an array of strings")? {
            let entry = entry.as_str().ok_or("`env` must be an array of strings")?;
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            env.insert(name, value);
        }
    }
    let lookup = |name: &str| env.get(name).map(|value| (*value).to_owned());
    let expander = Expander::new('\\');
    let result = match request["mode"].as_str() {
        Some("word") => expander.word(input, &lookup).map(|expanded| json!({ "ok": expanded.text })),
        Some("words") => expander.words(input, &lookup).map(|expanded| json!({ "ok": expanded.words })),
        _ => return Err("`mode` must be `word` or `words`"),
    };
    Ok(result.unwrap_or_else(|error| json!({ "error": error.to_string() })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_interface() {
        let requests = json!([
            {"mode": "word", "input": "a${X:-b}", "env": ["X=1", "X=2"]},
            {"mode": "words", "input": "$P \"a b\"", "env": ["P=80 81"]},
            {"mode": "word", "input": "${X", "env": []},
            {"mode": "word", "input": "$X|${Y-d}", "env": ["Y"]},
        ]);
        let expected = json!([
            {"ok": "a2"},
            {"ok": ["80", "81", "a b"]},
            {"error": "syntax error: missing `}`"},
            {"ok": "|"},
        ]);
        let requests = requests.as_array().expect("an array").as_slice();
        assert_eq!(Value::from(words_json(requests).expect("well formed")), expected);
        let error = words_json(&[json!({"mode": "x", "input": ""})]).expect_err("no such mode");
        assert_eq!(error.to_string(), "request 0: `mode` must be `word` or `words`");
    }
}

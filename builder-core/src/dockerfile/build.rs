//! Collects the instructions of a file, and what is wrong with their order.

use super::syntax::{Keyword, MAX_ERRORS, Node, Syntax};
use super::{Dockerfile, Instruction, ParseError, ParseErrors, Problem, heredoc, lint, parse};
use crate::diagnostic::{Source, Span};

pub(super) struct Builder<'a> {
    source: &'a Source,
    instructions: Vec<Instruction>,
    errors: Vec<ParseError>,
    /// A `FROM` was seen, or its absence was reported.
    in_stage: bool,
    held: Option<Held>,
}

/// What follows a misspelled instruction that would open a heredoc. If the heredoc's end comes, it was the body, and
/// one error does not become fifty; if not, it is read as instructions after all.
struct Held {
    end: String,
    nodes: Vec<Node>,
}

impl<'a> Builder<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, instructions: Vec::new(), errors: Vec::new(), in_stage: false, held: None }
    }

    /// Takes the next statement.
    pub(super) fn push(&mut self, node: Node) {
        match &mut self.held {
            Some(held) if node.original.trim() == held.end => self.held = None,
            Some(held) => held.nodes.push(node),
            None => {
                let end = if node.keyword.is_none() { heredoc_end(&node) } else { None };
                self.instruction(node);
                self.held = end.map(|end| Held { end, nodes: Vec::new() });
            }
        }
    }

    fn instruction(&mut self, node: Node) {
        if self.errors.len() >= MAX_ERRORS {
            return;
        }
        let (keyword, place, errors_before) = (node.keyword, node.name.span, self.errors.len());
        self.instructions.extend(parse::instruction(node, self.source, &mut self.errors));
        match keyword {
            Some(Keyword::From) => self.in_stage = true,
            None | Some(Keyword::Arg) => {}
            Some(_) if self.in_stage || self.errors.len() > errors_before => {}
            Some(_) => {
                self.errors.push(ParseError::new(self.source, place, Problem::NoStage));
                // The rest of the file lacks its stage for the same reason.
                self.in_stage = true;
            }
        }
    }

    /// The whole file, or all that is wrong with it.
    pub(super) fn finish(mut self, syntax: Syntax) -> Result<Dockerfile, ParseErrors> {
        for node in self.held.take().map(|held| held.nodes).unwrap_or_default() {
            self.instruction(node);
        }
        let Self { source, instructions, mut errors, in_stage, .. } = self;
        errors.extend(syntax.errors);
        if let Some(check) = &syntax.directives.check
            && let Err(option) = lint::Options::parse(&check.text)
        {
            errors.push(ParseError::new(source, check.span, Problem::CheckOption(option)));
        }
        if !in_stage && errors.is_empty() {
            let last = instructions.last().map_or_else(Span::default, |last| last.span);
            errors.push(ParseError::new(source, last, Problem::NoStages));
        }
        if !errors.is_empty() {
            return Err(ParseErrors::new(errors));
        }
        let (directives, warnings) = (syntax.directives, syntax.warnings);
        Ok(Dockerfile { source: source.clone(), directives, instructions, warnings })
    }
}

/// The end of the first heredoc that a statement would open.
fn heredoc_end(node: &Node) -> Option<String> {
    let mut words = node.original.split_whitespace();
    words.find_map(|word| heredoc::parse_token(word).ok().flatten()).map(|token| token.name)
}

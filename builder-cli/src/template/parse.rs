//! Template text to nodes.

use serde_json::Value;

use super::eval::FUNCTIONS;

/// Deepest nesting of actions and parentheses.
const MAX_DEPTH: usize = 100;

/// A piece of a template.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Print(Pipeline),
    If { condition: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    With { value: Pipeline, then: Vec<Node>, otherwise: Vec<Node> },
    Range { list: Pipeline, body: Vec<Node>, otherwise: Vec<Node> },
}

/// Commands joined by `|`; the value may be kept in variables.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    /// `$x :=`, or `$k, $v :=` in a range.
    pub(super) variables: Vec<String>,
    pub(super) commands: Vec<Vec<Operand>>,
}

/// One argument, or the function of a command.
#[derive(Debug, Clone)]
pub(super) enum Operand {
    /// `.A.B`
    Field(Vec<String>),
    /// `$.A`, `$x.A`
    Variable(String, Vec<String>),
    Literal(Value),
    Function(String),
    /// `( … ).A`
    Group(Box<Pipeline>, Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Field(String),
    Dot,
    Variable(String),
    Word(String),
    Literal(Value),
    Pipe,
    Open,
    Close,
    Assign,
    Comma,
}

type Result<T> = std::result::Result<T, String>;

/// Text and actions in order.
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>> {
    let mut pieces = pieces(text)?.into_iter();
    let (nodes, end) = block(&mut pieces, 0)?;
    match end {
        None => Ok(nodes),
        Some(mut end) => match end.remove(0) {
            Token::Word(word) => Err(format!("unexpected `{{{{{word}}}}}`")),
            _ => Err("unexpected end".to_owned()),
        },
    }
}

fn pieces(mut rest: &str) -> Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut trim_next = false;
    while let Some(at) = rest.find("{{") {
        let mut text = &rest[..at];
        let mut action = &rest[at + 2..];
        if trim_next {
            text = text.trim_start();
        }
        if let Some(trimmed) = action.strip_prefix("- ") {
            action = trimmed;
            text = text.trim_end();
        }
        if !text.is_empty() {
            pieces.push(Piece::Text(text.to_owned()));
        }
        let comment = action.trim_start().starts_with("/*");
        let close = if comment {
            action.find("*/").and_then(|at| Some(at + action[at..].find("}}")?))
        } else {
            closing(action)?
        };
        let close = close.ok_or("an action `{{` is not closed")?;
        rest = &action[close + 2..];
        let mut inside = &action[..close];
        trim_next = inside.ends_with(" -");
        if trim_next {
            inside = &inside[..inside.len() - 2];
        }
        if !comment {
            pieces.push(Piece::Action(tokens(inside)?));
        }
    }
    let text = if trim_next { rest.trim_start() } else { rest };
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
    Ok(pieces)
}

/// Where an action ends: the first `}}` outside of strings.
fn closing(action: &str) -> Result<Option<usize>> {
    let mut quote = None;
    let mut chars = action.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            Some('"') if c == '\\' => drop(chars.next()),
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '`' => quote = Some(c),
            None if action[at..].starts_with("}}") => return Ok(Some(at)),
            _ => {}
        }
    }
    if quote.is_some() { Err("a string is not closed".to_owned()) } else { Ok(None) }
}

fn tokens(text: &str) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    let word = |text: &str| text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    while let Some(first) = rest.chars().next() {
        let used = match first {
            '|' | '(' | ')' | ',' => {
                let token = [Token::Pipe, Token::Open, Token::Close, Token::Comma];
                tokens.push(token["|(),".find(first).unwrap_or(0)].clone());
                1
            }
            ':' if rest.starts_with(":=") => {
                tokens.push(Token::Assign);
                2
            }
            '.' => {
                let end = word(&rest[1..]);
                let name = rest[1..=end].to_owned();
                tokens.push(if name.is_empty() { Token::Dot } else { Token::Field(name) });
                end + 1
            }
            '$' => {
                let end = word(&rest[1..]);
                tokens.push(Token::Variable(rest[1..=end].to_owned()));
                end + 1
            }
            '"' | '`' => {
                let (value, used) = string(rest, first)?;
                tokens.push(Token::Literal(value.into()));
                used
            }
            c if c.is_ascii_digit() || c == '-' => {
                let end = rest[1..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(rest.len(), |at| at + 1);
                let number: serde_json::Number =
                    rest[..end].parse().map_err(|_| format!("`{}` is not a number", &rest[..end]))?;
                tokens.push(Token::Literal(number.into()));
                end
            }
            c if c.is_alphabetic() || c == '_' => {
                let end = word(rest);
                tokens.push(match &rest[..end] {
                    "true" => Token::Literal(true.into()),
                    "false" => Token::Literal(false.into()),
                    "nil" => Token::Literal(Value::Null),
                    name => Token::Word(name.to_owned()),
                });
                end
            }
            c => return Err(format!("unexpected `{c}`")),
        };
        // A chain is written without blanks: `.A.B`, `$x.A`, `(…).A`; a blank begins a new operand.
        let after = &rest[used..];
        rest = after.trim_start();
        if rest.len() < after.len() && rest.starts_with('.') {
            separate(&mut tokens);
        }
    }
    if tokens.is_empty() { Err("an action is empty".to_owned()) } else { Ok(tokens) }
}

/// Marks that the next field begins an operand of its own.
fn separate(tokens: &mut Vec<Token>) {
    if matches!(tokens.last(), Some(Token::Field(_) | Token::Variable(_) | Token::Close | Token::Dot)) {
        tokens.push(Token::Word(String::new()));
    }
}

fn string(text: &str, quote: char) -> Result<(String, usize)> {
    let mut value = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Ok((value, at + 1)),
            '\\' if quote == '"' => match chars.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some('t') => value.push('\t'),
                Some('r') => value.push('\r'),
                Some(c @ ('"' | '\\')) => value.push(c),
                _ => return Err("a string has an unknown escape".to_owned()),
            },
            c => value.push(c),
        }
    }
    Err("a string is not closed".to_owned())
}

/// Nodes up to `end`, `else` or the end of the template; the tokens of what ended it.
fn block(pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<(Vec<Node>, Option<Vec<Token>>)> {
    if depth > MAX_DEPTH {
        return Err("it is nested too deeply".to_owned());
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let tokens = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(tokens) => tokens,
        };
        let keyword = match &tokens[0] {
            Token::Word(word) => word.as_str(),
            _ => "",
        };
        match keyword {
            "end" | "else" => return Ok((nodes, Some(tokens))),
            "if" | "with" | "range" => nodes.push(control(keyword, &tokens[1..], pieces, depth)?),
            _ => nodes.push(Node::Print(pipeline(&tokens)?)),
        }
    }
    Ok((nodes, None))
}

fn control(keyword: &str, tokens: &[Token], pieces: &mut std::vec::IntoIter<Piece>, depth: usize) -> Result<Node> {
    let condition = pipeline(tokens)?;
    let (then, end) = block(pieces, depth + 1)?;
    let end = end.ok_or("`{{end}}` is missing")?;
    let otherwise = match &end[..] {
        [Token::Word(word)] if word == "end" => Vec::new(),
        [Token::Word(_)] => {
            let (nodes, end) = block(pieces, depth + 1)?;
            match end.as_deref() {
                Some([Token::Word(word)]) if word == "end" => nodes,
                _ => return Err("`{{end}}` is missing".to_owned()),
            }
        }
        // `else if …` shares the `end` of the `if`.
        [Token::Word(word), Token::Word(again), rest @ ..] if word == "else" && again == keyword => {
            vec![control(keyword, rest, pieces, depth + 1)?]
        }
        _ => return Err("`{{else}}` is not well formed".to_owned()),
    };
    Ok(match keyword {
        "if" => Node::If { condition, then, otherwise },
        "with" => Node::With { value: condition, then, otherwise },
        _ => Node::Range { list: condition, body: then, otherwise },
    })
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline> {
    let (variables, rest) = match tokens {
        [Token::Variable(name), Token::Assign, rest @ ..] => (vec![name.clone()], rest),
        [Token::Variable(key), Token::Comma, Token::Variable(value), Token::Assign, rest @ ..] => {
            (vec![key.clone(), value.clone()], rest)
        }
        rest => (Vec::new(), rest),
    };
    let mut at = 0;
    let commands = commands(rest, &mut at, 0)?;
    if at < rest.len() {
        return Err("unexpected `)`".to_owned());
    }
    Ok(Pipeline { variables, commands })
}

fn commands(tokens: &[Token], at: &mut usize, depth: usize) -> Result<Vec<Vec<Operand>>> {
    if depth > MAX_DEPTH {
        return Err("it is nested too deeply".to_owned());
    }
    let mut commands = vec![Vec::new()];
    while let Some(token) = tokens.get(*at) {
        *at += 1;
        let operand = match token {
            Token::Pipe => {
                commands.push(Vec::new());
                continue;
            }
            // The mark between operands.
            Token::Word(word) if word.is_empty() => continue,
            Token::Close => {
                *at -= 1;
                break;
            }
            Token::Dot => Operand::Field(Vec::new()),
            Token::Field(name) => {
                let mut path = vec![name.clone()];
                path.extend(chain(tokens, at));
                Operand::Field(path)
            }
            Token::Variable(name) => Operand::Variable(name.clone(), chain(tokens, at)),
            Token::Literal(value) => Operand::Literal(value.clone()),
            Token::Word(name) if FUNCTIONS.contains(&name.as_str()) => Operand::Function(name.clone()),
            Token::Word(name) => return Err(format!("function `{name}` is not defined")),
            Token::Open => {
                let inner = self::commands(tokens, at, depth + 1)?;
                if tokens.get(*at) != Some(&Token::Close) {
                    return Err("`)` is missing".to_owned());
                }
                *at += 1;
                let pipeline = Pipeline { variables: Vec::new(), commands: inner };
                Operand::Group(Box::new(pipeline), chain(tokens, at))
            }
            Token::Assign | Token::Comma => return Err("`:=` is only for variables".to_owned()),
        };
        commands.last_mut().expect("starts with one").push(operand);
    }
    if commands.iter().any(Vec::is_empty) { Err("a command is missing".to_owned()) } else { Ok(commands) }
}

fn chain(tokens: &[Token], at: &mut usize) -> Vec<String> {
    let mut path = Vec::new();
    while let Some(Token::Field(name)) = tokens.get(*at) {
        path.push(name.clone());
        *at += 1;
    }
    path
}

//! Nodes to text.

use serde_json::Value;

use super::parse::{Node, Operand, Pipeline};

/// The functions of docker and Go that exist here.
pub(super) const FUNCTIONS: [&str; 25] = [
    "json", "join", "split", "lower", "upper", "title", "len", "index", "print", "println", "printf", "eq", "ne", "lt",
    "le", "gt", "ge", "and", "or", "not", "truncate", "pad", "slice", "html", "js",
];

type Result<T> = std::result::Result<T, String>;

/// Variables by name; the innermost is last.
type Scope = Vec<(String, Value)>;

pub(super) fn render(nodes: &[Node], value: &Value) -> Result<String> {
    let mut out = String::new();
    let mut scope = vec![(String::new(), value.clone())];
    run(nodes, value, &mut scope, &mut out)?;
    Ok(out)
}

fn run(nodes: &[Node], dot: &Value, scope: &mut Scope, out: &mut String) -> Result<()> {
    let depth = scope.len();
    for node in nodes {
        match node {
            Node::Text(text) => out.push_str(text),
            Node::Print(pipeline) => {
                let value = evaluate(pipeline, dot, scope)?;
                match &pipeline.variables[..] {
                    [] => out.push_str(&show(&value)),
                    [name, ..] => scope.push((name.clone(), value)),
                }
            }
            Node::If { condition, then, otherwise } => {
                let value = evaluate(condition, dot, scope)?;
                run(if truth(&value) { then } else { otherwise }, dot, scope, out)?;
            }
            Node::With { value, then, otherwise } => {
                let inner = evaluate(value, dot, scope)?;
                if truth(&inner) {
                    run(then, &inner, scope, out)?;
                } else {
                    run(otherwise, dot, scope, out)?;
                }
            }
            Node::Range { list, body, otherwise } => range(list, body, otherwise, dot, scope, out)?,
        }
    }
    scope.truncate(depth);
    Ok(())
}

fn range(
    list: &Pipeline,
    body: &[Node],
    otherwise: &[Node],
    dot: &Value,
    scope: &mut Scope,
    out: &mut String,
) -> Result<()> {
    let items: Vec<(Value, Value)> = match evaluate(list, dot, scope)? {
        Value::Array(items) => items.into_iter().enumerate().map(|(at, item)| (at.into(), item)).collect(),
        Value::Object(map) => map.into_iter().map(|(key, item)| (key.into(), item)).collect(),
        Value::Null => Vec::new(),
        other => return Err(format!("`range` cannot go over `{}`", show(&other))),
    };
    if items.is_empty() {
        return run(otherwise, dot, scope, out);
    }
    for (key, item) in items {
        let depth = scope.len();
        match &list.variables[..] {
            [] => {}
            [value] => scope.push((value.clone(), item.clone())),
            [first, value, ..] => {
                scope.push((first.clone(), key));
                scope.push((value.clone(), item.clone()));
            }
        }
        run(body, &item, scope, out)?;
        scope.truncate(depth);
    }
    Ok(())
}

fn evaluate(pipeline: &Pipeline, dot: &Value, scope: &Scope) -> Result<Value> {
    let mut last = None;
    for command in &pipeline.commands {
        let (first, rest) = command.split_first().ok_or("a command is missing")?;
        let mut arguments = rest.iter().map(|operand| value(operand, dot, scope)).collect::<Result<Vec<_>>>()?;
        arguments.extend(last.take());
        last = Some(match first {
            Operand::Function(name) => call(name, &arguments)?,
            _ if arguments.is_empty() => value(first, dot, scope)?,
            _ => return Err("only a function takes arguments".to_owned()),
        });
    }
    last.ok_or_else(|| "a command is missing".to_owned())
}

fn value(operand: &Operand, dot: &Value, scope: &Scope) -> Result<Value> {
    match operand {
        Operand::Field(path) => field(dot, path),
        Operand::Variable(name, path) => {
            let found = scope.iter().rev().find(|(known, _)| known == name);
            let (_, value) = found.ok_or_else(|| format!("variable `${name}` is not defined"))?;
            field(value, path)
        }
        Operand::Literal(value) => Ok(value.clone()),
        Operand::Function(name) => call(name, &[]),
        Operand::Group(pipeline, path) => field(&evaluate(pipeline, dot, scope)?, path),
    }
}

fn field(value: &Value, path: &[String]) -> Result<Value> {
    let mut at = value;
    for name in path {
        at = match at {
            Value::Object(map) => map.get(name).ok_or_else(|| format!("there is no field `{name}`"))?,
            Value::Null => return Ok(Value::Null),
            other => return Err(format!("`{}` has no field `{name}`", show(other))),
        };
    }
    Ok(at.clone())
}

fn call(name: &str, arguments: &[Value]) -> Result<Value> {
    let need = |count: usize| {
        if arguments.len() < count { Err(format!("`{name}` needs more arguments")) } else { Ok(()) }
    };
    match name {
        "print" => return Ok(arguments.iter().map(show).collect::<String>().into()),
        "println" => return Ok((arguments.iter().map(show).collect::<Vec<_>>().join(" ") + "\n").into()),
        _ => need(1)?,
    }
    let first = &arguments[0];
    Ok(match name {
        "json" => serde_json::to_string(first).map_err(|error| error.to_string())?.into(),
        "lower" => show(first).to_lowercase().into(),
        "upper" => show(first).to_uppercase().into(),
        "title" => title(&show(first)).into(),
        "html" | "js" => show(first).into(),
        "len" => length(first).ok_or_else(|| format!("`{}` has no length", show(first)))?.into(),
        "not" => (!truth(first)).into(),
        "and" => arguments.iter().find(|value| !truth(value)).unwrap_or(&arguments[arguments.len() - 1]).clone(),
        "or" => arguments.iter().find(|value| truth(value)).unwrap_or(&arguments[arguments.len() - 1]).clone(),
        "printf" => printf(&show(first), &arguments[1..]).into(),
        _ => {
            need(2)?;
            call_two(name, first, arguments)?
        }
    })
}

/// The functions with at least two arguments.
fn call_two(name: &str, first: &Value, arguments: &[Value]) -> Result<Value> {
    let second = &arguments[1];
    Ok(match name {
        "join" => {
            let (list, separator) = if first.is_array() { (first, second) } else { (second, first) };
            let items = list.as_array().map(|items| items.iter().map(show).collect::<Vec<_>>()).unwrap_or_default();
            items.join(&show(separator)).into()
        }
        "split" => show(first).split(&show(second)).map(str::to_owned).collect::<Vec<_>>().into(),
        "index" => {
            let mut at = first.clone();
            for key in &arguments[1..] {
                at = item(&at, key)?;
            }
            at
        }
        "slice" => {
            let text = show(first);
            let bound = |value: &Value| value.as_u64().and_then(|at| usize::try_from(at).ok());
            let end = arguments.get(2).map_or(Some(text.len()), bound);
            let part = bound(second).zip(end).and_then(|(start, end)| text.get(start..end));
            part.ok_or_else(|| format!("`slice` is outside of `{text}`"))?.into()
        }
        "truncate" => show(first).chars().take(count(second)).collect::<String>().into(),
        "pad" => {
            let after = arguments.get(2).map_or(0, count).min(1000);
            format!("{}{}{}", " ".repeat(count(second).min(1000)), show(first), " ".repeat(after)).into()
        }
        "eq" => arguments[1..].iter().any(|other| other == first).into(),
        "ne" => (first != second).into(),
        _ => {
            let order = match (first.as_f64(), second.as_f64()) {
                (Some(a), Some(b)) => a.partial_cmp(&b),
                _ => Some(show(first).cmp(&show(second))),
            };
            let order = order.ok_or("the values have no order")?;
            match name {
                "lt" => order.is_lt(),
                "le" => order.is_le(),
                "gt" => order.is_gt(),
                _ => order.is_ge(),
            }
            .into()
        }
    })
}

fn count(value: &Value) -> usize {
    value.as_u64().and_then(|count| usize::try_from(count).ok()).unwrap_or(0)
}

fn item(value: &Value, key: &Value) -> Result<Value> {
    match value {
        // A missing key of a map is its zero value.
        Value::Object(map) => Ok(map.get(&show(key)).cloned().unwrap_or_else(|| "".into())),
        Value::Array(items) => key
            .as_u64()
            .and_then(|at| items.get(usize::try_from(at).ok()?))
            .cloned()
            .ok_or_else(|| format!("index `{}` is outside of the list", show(key))),
        other => Err(format!("`{}` cannot be indexed", show(other))),
    }
}

fn length(value: &Value) -> Option<usize> {
    match value {
        Value::String(text) => Some(text.len()),
        Value::Array(items) => Some(items.len()),
        Value::Object(map) => Some(map.len()),
        Value::Null => Some(0),
        _ => None,
    }
}

fn truth(value: &Value) -> bool {
    match value {
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        other => length(other) != Some(0),
    }
}

/// `%s`, `%d`, `%v` and `%q`; a width is ignored.
fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.find(|c| !c.is_ascii_digit() && *c != '-' && *c != '.') {
            Some('%') => out.push('%'),
            Some('q') => out.push_str(&arguments.next().map(|value| format!("{:?}", show(value))).unwrap_or_default()),
            _ => out.push_str(&arguments.next().map(show).unwrap_or_default()),
        }
    }
    out
}

fn title(text: &str) -> String {
    let mut start = true;
    let upper = |c: char| {
        let shown = if start { c.to_uppercase().collect::<String>() } else { c.to_string() };
        start = c.is_whitespace();
        shown
    };
    text.chars().map(upper).collect()
}

/// A value as Go prints it.
fn show(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let items: Vec<_> = map.iter().map(|(key, value)| format!("{key}:{}", show(value))).collect();
            format!("map[{}]", items.join(" "))
        }
        other => other.to_string(),
    }
}

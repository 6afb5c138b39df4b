//! `--format` of commands with a table: `table`, `json`, a template, or `table TEMPLATE`, as in docker.

use serde_json::{Map, Value};

use crate::command_error::CommandError;
use crate::template::Template;
use crate::ui::{escape, table};

/// The columns of a command: the heading and the field of each.
pub(super) type Columns = &'static [(&'static str, &'static str)];

/// One line: fields by name.
pub(super) type Row = Map<String, Value>;

/// Makes a row from names and texts.
pub(super) fn row<const N: usize>(fields: [(&str, String); N]) -> Row {
    fields.into_iter().map(|(name, text)| (name.to_owned(), Value::from(text))).collect()
}

/// Writes rows as `--format` says. `columns` are those of the table without a template, `headings` all that there are.
pub(super) fn write(
    format: Option<&str>,
    columns: Columns,
    headings: Columns,
    rows: &[Row],
) -> Result<String, CommandError> {
    match format {
        None | Some("" | "table") => {
            let heading = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
            let cells = |row: &Row| columns.iter().map(|(_, field)| cell(row.get(*field))).collect();
            let lines: Vec<Vec<String>> = std::iter::once(heading).chain(rows.iter().map(cells)).collect();
            Ok(table::align(&lines))
        }
        Some("json") => Ok(rows.iter().map(|row| Value::Object(row.clone()).to_string() + "\n").collect()),
        Some(format) => template(format, headings, rows),
    }
}

fn template(format: &str, headings: Columns, rows: &[Row]) -> Result<String, CommandError> {
    let (with_heading, text) = match format.strip_prefix("table ") {
        Some(text) => (true, text.trim_start()),
        None => (false, format),
    };
    // A shell passes `\t` on as it is typed.
    let text = text.replace("\\t", "\t").replace("\\n", "\n");
    let template = Template::parse(&text)?;
    let mut lines = Vec::new();
    if with_heading {
        let names: Row = headings.iter().map(|(heading, field)| ((*field).to_owned(), Value::from(*heading))).collect();
        lines.push(template.render(&Value::Object(names))?);
    }
    for row in rows {
        lines.push(template.render(&Value::Object(row.clone()))?);
    }
    if with_heading {
        let cells = |line: &String| line.split('\t').map(|cell| escape::line(cell).into_owned()).collect();
        let cells: Vec<Vec<String>> = lines.iter().map(cells).collect();
        return Ok(table::align(&cells));
    }
    Ok(lines.into_iter().map(|line| line + "\n").collect())
}

fn cell(value: Option<&Value>) -> String {
    let text = match value {
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
        None => String::new(),
    };
    escape::line(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: Columns = &[("REPOSITORY", "Repository"), ("IMAGE ID", "ID")];

    fn check(format: Option<&str>, expected: &str) {
        let rows = [row([("Repository", "app".to_owned()), ("ID", "1\x1b2".to_owned())])];
        assert_eq!(write(format, COLUMNS, COLUMNS, &rows).expect("valid"), expected, "{format:?}");
    }

    #[test]
    fn formats_are_dockers() {
        check(None, "REPOSITORY   IMAGE ID\napp          1\\x1b2\n");
        check(Some("table {{.ID}}\\t{{.Repository}}"), "IMAGE ID   REPOSITORY\n1\\x1b2     app\n");
        check(Some("{{.Repository}}:{{.ID}}"), "app:1\x1b2\n");
        check(Some("json"), "{\"ID\":\"1\\u001b2\",\"Repository\":\"app\"}\n");
        check(Some("{{json .}}"), "{\"ID\":\"1\\u001b2\",\"Repository\":\"app\"}\n");
    }
}

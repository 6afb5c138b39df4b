//! Tables as docker prints them: columns of at least ten characters, three blanks between them.

use super::escape;

/// Smallest width of a column with its padding (docker's tabwriter).
const MIN_WIDTH: usize = 10;

/// Blanks between columns.
const PADDING: usize = 3;

/// Aligns rows of cells; the last cell of a row is not padded. Ends with a line end if there is a row.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    columns(rows, MIN_WIDTH, PADDING)
}

/// The same with columns as narrow as their cells, and this many blanks between them.
pub(crate) fn narrow(rows: &[Vec<String>], padding: usize) -> String {
    columns(rows, 0, padding)
}

fn columns(rows: &[Vec<String>], min_width: usize, padding: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![min_width; columns];
    for row in rows {
        for (column, cell) in row.iter().enumerate().take(row.len().saturating_sub(1)) {
            widths[column] = widths[column].max(escape::width(cell) + padding);
        }
    }
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            line.push_str(cell);
            if column + 1 < row.len() {
                line.push_str(&" ".repeat(widths[column] - escape::width(cell)));
            }
        }
        out.push_str(&line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_dockers() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
        let table = align(&[row(&["REPOSITORY", "TAG", "SIZE"]), row(&["app", "1.0", "5MB"])]);
        assert_eq!(table, "REPOSITORY   TAG       SIZE\napp          1.0       5MB\n");
    }
}

//! [`sarif`]: findings and errors in the Static Analysis Results Interchange Format, version 2.1.0 (OASIS).

use builder_core::diagnostic::{Location, Source};
use builder_core::dockerfile::{LintWarning, Rule};
use serde_json::{Value, json};

use super::check::Findings;
use crate::command_error::Report;

/// One run. What is wrong with the file is a notification of it: the checks did not come to their end.
pub(super) fn sarif(warnings: &Findings, reports: &[Report], source: &Source) -> Value {
    let rules: Vec<Value> = Rule::ALL
        .iter()
        .map(|rule| {
            let mut object = json!({
                "id": rule.name(),
                "shortDescription": { "text": rule.text() },
                "defaultConfiguration": { "level": "warning" },
            });
            if let Some(url) = rule.url() {
                object["helpUri"] = url.into();
            }
            object
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "rbuild", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "invocations": [{
                "executionSuccessful": reports.is_empty(),
                "toolExecutionNotifications": reports.iter().map(notification).collect::<Vec<_>>(),
            }],
            "results": warnings.iter().map(|finding| result(finding, source)).collect::<Vec<_>>(),
        }],
    })
}

fn notification(report: &Report) -> Value {
    let mut object = json!({ "level": "error", "message": { "text": report.message } });
    if let Some(location) = &report.location {
        object["locations"] = json!([physical(location.source.name(), &region(location))]);
    }
    object
}

fn result((warning, location): &(LintWarning, Location), source: &Source) -> Value {
    // A finding may be shown at another line than the one where its text begins, in another text even.
    let here = location.source == *source && source.line(location.span.start) == warning.line;
    let region = if here { region(location) } else { json!({ "startLine": warning.line }) };
    let mut result = json!({
        "ruleId": warning.rule.name(),
        "ruleIndex": Rule::ALL.iter().position(|rule| *rule == warning.rule),
        "level": "warning",
        "message": { "text": warning.detail },
        "locations": [physical(source.name(), &region)],
    });
    if let Some(fix) = &warning.fix {
        let line = location.source.line(fix.at);
        let place = json!({ "startLine": line, "startColumn": 1, "endLine": line, "endColumn": 1 });
        result["fixes"] = json!([{ "artifactChanges": [{
            "artifactLocation": { "uri": uri(location.source.name()) },
            "replacements": [{ "deletedRegion": place, "insertedContent": { "text": fix.insert } }],
        }] }]);
    }
    result
}

fn physical(name: &str, region: &Value) -> Value {
    json!({ "physicalLocation": { "artifactLocation": { "uri": uri(name) }, "region": region } })
}

fn region(location: &Location) -> Value {
    let (source, span) = (&location.source, location.span);
    json!({
        "startLine": source.line(span.start),
        "startColumn": column(source, span.start),
        "endLine": source.line(span.end),
        "endColumn": column(source, span.end),
    })
}

/// Column of an offset in characters, from 1.
fn column(source: &Source, offset: usize) -> usize {
    let start = offset + 1 - source.column(offset);
    1 + String::from_utf8_lossy(&source.text()[start..offset.min(source.text().len())]).chars().count()
}

/// A path as a relative URI (RFC 3986).
fn uri(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_in_sarif() {
        let source = Source::new("a b/é", "FROM x\nENV é=ü z\n".as_bytes());
        assert_eq!(uri(source.name()), "a%20b/%C3%A9");
        assert_eq!((column(&source, 0), column(&source, 7), column(&source, 17)), (1, 1, 9));
    }
}

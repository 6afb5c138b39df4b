//! `--format`: the part of Go's `text/template` that people use with docker.
//!
//! Fields and chains, pipelines, `if`/`else`, `range`, `with`, variables, comments, trim markers, and the functions
//! `json join split lower upper title len index println printf eq ne lt le gt ge and or not truncate pad slice`.
//! Values are JSON. Source: pkg.go.dev/text/template, docs.docker.com/engine/cli/formatting.

mod eval;
mod parse;

use serde_json::Value;

/// A parsed template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    text: String,
    nodes: Vec<parse::Node>,
}

/// The template is wrong, or does not fit the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template `{template}`: {reason}")]
pub(crate) struct TemplateError {
    template: String,
    reason: String,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// Where it is not well formed, or names a function that does not exist.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        match parse::parse(text) {
            Ok(nodes) => Ok(Self { text: text.to_owned(), nodes }),
            Err(reason) => Err(TemplateError { template: text.to_owned(), reason }),
        }
    }

    /// Writes the template for a value.
    ///
    /// # Errors
    /// Where a field does not exist or a function does not take its arguments.
    pub(crate) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        eval::render(&self.nodes, value).map_err(|reason| TemplateError { template: self.text.clone(), reason })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(template: &str, expected: &str) {
        let value = json!({
            "ID": "sha256:abc", "Size": 5, "Config": {"Env": ["A=1", "B=2"], "Labels": {"k": "v", "z": "w"}, "Cmd": null},
            "Tags": ["a", "b"], "On": true,
        });
        let shown = Template::parse(template).and_then(|template| template.render(&value));
        assert_eq!(shown.as_deref(), Ok(expected), "{template}");
    }

    fn fails(template: &str, reason: &str) {
        let value = json!({"ID": "x", "Config": {}});
        let error = Template::parse(template).and_then(|template| template.render(&value)).expect_err(template);
        assert_eq!(error.reason, reason, "{template}");
    }

    #[test]
    fn templates_read_as_gos() {
        check("plain", "plain");
        check("{{.ID}} {{ .Size }}", "sha256:abc 5");
        check("{{.Config.Env}}", "[A=1 B=2]");
        check("{{.Config.Labels}}", "map[k:v z:w]");
        check("{{.Config.Cmd}}", "<no value>");
        check("{{json .Config.Env}}", r#"["A=1","B=2"]"#);
        check("{{.Config.Labels | json}}", r#"{"k":"v","z":"w"}"#);
        check("{{range .Tags}}<{{.}}>{{end}}", "<a><b>");
        check("{{range $i, $t := .Tags}}{{if $i}},{{end}}{{$t}}{{end}}", "a,b");
        check("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "k=v;z=w;");
        check("{{range .Config.Cmd}}x{{else}}none{{end}}", "none");
        check("{{if .On}}on{{else}}off{{end}}", "on");
        check("{{if not .On}}a{{else if eq .Size 5}}b{{else}}c{{end}}", "b");
        check("{{with .Config.Labels}}{{.k}}{{end}}", "v");
        check("{{index .Config.Labels \"k\"}}{{index .Tags 1}}", "vb");
        check("{{join .Tags \", \"}}", "a, b");
        check("{{len .Tags}}{{upper .ID}}", "2SHA256:ABC");
        check("a  {{- .Size -}}  b", "a5b");
        check("{{/* comment */}}x", "x");
        check("{{$x := .Size}}{{$x}}", "5");
        check("{{printf \"%s-%d\" .ID .Size}}", "sha256:abc-5");
        check("{{(index .Tags 0) | upper}}", "A");
        check("{{slice .ID 0 6}}", "sha256");
        check("{{range .Tags}}{{$.Size}}{{end}}", "55");
        check("{{println .ID}}", "sha256:abc\n");
    }

    #[test]
    fn errors_name_what_is_wrong() {
        fails("{{.Nope}}", "there is no field `Nope`");
        fails("{{.ID", "an action `{{` is not closed");
        fails("{{if .ID}}", "`{{end}}` is missing");
        fails("{{end}}", "unexpected `{{end}}`");
        fails("{{nofn .ID}}", "function `nofn` is not defined");
        fails("{{index .ID}}", "`index` needs more arguments");
        fails("{{$x}}", "variable `$x` is not defined");
        fails("{{}}", "an action is empty");
        fails("{{\"a}}", "a string is not closed");
    }
}

//! A graph as JSON and as DOT, to look at: [`to_json`], [`to_dot`].

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::{AddSource, ContextId, CopyOp, Files, Graph, MountOp, MountTarget, Op, RunOp, Step, Vertex, VertexId};
use crate::diagnostic::Location;
use crate::dockerfile::{Network, Security, Sharing};
use crate::git;

/// Describes a graph as JSON. Keys stay as they are from release to release; new ones may come.
///
/// ```text
/// { "vertices": [{ "id", "name", "stage", "root", "op": { "type", … }, "line" }],
///   "target": { "root", "config", "history" }, "warnings": [{ "rule", "line", "detail" }], "unusedBuildArgs": [] }
/// ```
pub fn to_json(graph: &Graph) -> Value {
    let vertices: Vec<Value> = graph.vertices.iter().enumerate().map(|(id, vertex)| describe(id, vertex)).collect();
    let warnings: Vec<Value> = graph
        .warnings
        .iter()
        .map(|(warning, location)| {
            json!({ "rule": warning.rule.name(), "file": location.source.name(), "line": warning.line,
                    "detail": warning.detail })
        })
        .collect();
    let steps = |step: &Step| json!({ "createdBy": step.entry.created_by, "vertex": step.vertex });
    json!({
        "vertices": vertices,
        "target": {
            "root": graph.target.root,
            "config": graph.target.config,
            "baseHistory": graph.target.base_history,
            "history": graph.target.history.iter().map(steps).collect::<Vec<_>>(),
        },
        "warnings": warnings,
        "unusedBuildArgs": graph.unused_build_args,
        "sourceDateEpoch": graph.source_date_epoch,
    })
}

fn describe(id: usize, vertex: &Vertex) -> Value {
    let mut described = json!({
        "id": id,
        "name": vertex.name,
        "stage": vertex.stage,
        "root": vertex.root,
        "op": op(&vertex.op),
        "location": vertex.location.as_ref().map(place),
        "origin": vertex.origin.as_ref().map(place),
        "noCache": vertex.no_cache,
        "timeToLive": vertex.time_to_live.map(|time| time.as_secs()),
    });
    if vertex.cache_reads {
        described["cacheReads"] = true.into();
    }
    described
}

fn place(location: &Location) -> Value {
    let Location { source, span } = location;
    json!({ "file": source.name(), "line": source.line(span.start), "column": source.column(span.start) })
}

fn op(op: &Op) -> Value {
    match op {
        Op::Image(image) => json!({
            "type": "image",
            "reference": image.reference,
            "platform": image.platform.to_string(),
            "digest": image.digest.as_str(),
        }),
        Op::Workdir(workdir) => {
            json!({ "type": "workdir", "path": workdir.path.to_string(), "user": workdir.user })
        }
        Op::Run(op) => run(op),
        Op::Copy(op) => copy(op),
    }
}

fn run(op: &RunOp) -> Value {
    json!({
        "type": "run",
        "args": op.args,
        "env": op.env,
        "unkeyedEnv": op.unkeyed_env.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "workdir": op.workdir.to_string(),
        "user": op.user,
        "mounts": op.mounts.iter().map(mount).collect::<Vec<_>>(),
        "network": match op.network {
            Network::Default => "default",
            Network::None => "none",
            Network::Host => "host",
        },
        "security": match op.security {
            Security::Sandbox => "sandbox",
            Security::Insecure => "insecure",
        },
        "devices": op.devices.iter().map(|device| &device.name).collect::<Vec<_>>(),
        "hostname": op.hostname,
        "hosts": op.add_hosts.iter().map(|(name, address)| format!("{name}={address}")).collect::<Vec<_>>(),
        "script": op.script.as_ref().map(|script| &script.body),
    })
}

fn mount(mount: &MountOp) -> Value {
    let mut value = match &mount.kind {
        MountTarget::Bind { from, source, writable } => {
            json!({ "type": "bind", "from": files(from), "source": source.to_string(), "writable": writable })
        }
        MountTarget::Cache(cache) => json!({
            "type": "cache",
            "id": cache.id,
            "sharing": match cache.sharing {
                Sharing::Shared => "shared",
                Sharing::Private => "private",
                Sharing::Locked => "locked",
            },
            "readOnly": cache.read_only,
            "seed": cache.seed.as_ref().map(|(from, path)| json!({ "from": files(from), "source": path.to_string() })),
            "mode": format!("{:04o}", cache.mode),
            "owner": format!("{}:{}", cache.uid, cache.gid),
        }),
        MountTarget::Tmpfs { size } => json!({ "type": "tmpfs", "size": size }),
        MountTarget::Secret(secret) => json!({
            "type": "secret",
            "id": secret.id,
            "required": secret.required,
            "env": secret.env,
            "file": secret.file,
            "mode": format!("{:04o}", secret.mode),
            "owner": format!("{}:{}", secret.uid, secret.gid),
        }),
        MountTarget::Ssh(ssh) => json!({
            "type": "ssh",
            "id": ssh.id,
            "required": ssh.required,
            "mode": format!("{:04o}", ssh.mode),
            "owner": format!("{}:{}", ssh.uid, ssh.gid),
        }),
    };
    value["target"] = mount.target.to_string().into();
    value
}

fn files(files: &Files) -> Value {
    match files {
        Files::Context(ContextId::Main) => json!("context"),
        Files::Context(ContextId::Named(name)) => json!(format!("context {name}")),
        Files::Vertex(None) => json!("scratch"),
        Files::Vertex(Some(VertexId(id))) => json!(id),
    }
}

fn copy(op: &CopyOp) -> Value {
    let source = |source: &AddSource| match source {
        AddSource::Path(path) => json!(path),
        AddSource::Http(address) => json!({ "http": address }),
        AddSource::Git(address, _) => json!({ "git": git::redacted(address) }),
        AddSource::Inline { name, body } => json!({ "name": name, "body": body }),
    };
    json!({
        "type": if op.add { "add" } else { "copy" },
        "from": files(&op.from),
        "sources": op.sources.iter().map(source).collect::<Vec<_>>(),
        "destination": op.destination,
        "workdir": op.workdir.to_string(),
        "chown": op.chown,
        "chmod": op.chmod,
        "link": op.link,
        "parents": op.parents,
        "exclude": op.exclude,
        "checksum": op.checksum,
        "unpack": op.unpack,
        "keepGitDir": op.keep_git_dir,
    })
}

/// Draws a graph in the DOT language: solid edges are root filesystems, dashed ones are files that are read.
pub fn to_dot(graph: &Graph) -> String {
    let mut text = "digraph build {\n  rankdir=LR;\n  node [shape=box, fontname=monospace];\n".to_owned();
    for (id, vertex) in graph.vertices.iter().enumerate() {
        let style = if graph.target.root == Some(VertexId(id)) { ", style=bold" } else { "" };
        let _ = writeln!(text, "  v{id} [label=\"{}\"{style}];", escape(&vertex.name));
        if let Some(VertexId(root)) = vertex.root {
            let _ = writeln!(text, "  v{root} -> v{id};");
        }
        for VertexId(input) in vertex.op.inputs() {
            let _ = writeln!(text, "  v{input} -> v{id} [style=dashed];");
        }
    }
    text + "}\n"
}

/// A label: quotes and backslashes escaped, line ends shown.
fn escape(name: &str) -> String {
    name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

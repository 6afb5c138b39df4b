//! `RUN`.

use std::fmt::Write as _;

use super::error::{GraphError, GraphErrorKind};
use super::globals::proxies;
use super::lower::{At, Current, Lowering};
use super::names::{summary, upper_case_name};
use super::shell_line::Command;
use super::state::State;
use super::{CacheMount, ContextId, DeviceOp, Files, MountOp, MountTarget, Op, RunOp, SecretMount, SshMount};
use crate::diagnostic::Diagnostic as _;
use crate::dockerfile::{Mount, MountKind, Network, Ownership, Run, Security, Word};
use crate::rootfs::RootPath;

/// Host name of every step, as in BuildKit.
const HOSTNAME: &str = "buildkitsandbox";

impl<'a> Lowering<'a> {
    pub(super) fn run(&mut self, current: &mut Current, at: &At<'a>, run: &'a Run) -> Option<()> {
        let Command { args, script, shown } = self.command(current, at, run)?;
        let (mounts, names) = self.mounts(current, at, run)?;
        let devices = self.devices(current, at, run)?;

        let mut env = current.state.scope.snapshot();
        if let (Some(socket), None) = (&names.ssh_socket, current.state.scope.get("SSH_AUTH_SOCK")) {
            env = env.with("SSH_AUTH_SOCK", socket.to_string());
        }
        let unkeyed_env = proxies(self.options);
        let hostname =
            self.options.hostname.as_ref().or_else(|| self.options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME"));

        let created_by = created_by(&shown, &current.state);
        let op = RunOp {
            args,
            env,
            unkeyed_env,
            workdir: current.state.workdir.clone(),
            platform: current.state.platform.clone(),
            user: current.state.config.config.user.clone(),
            mounts,
            network: match run.parts().network {
                None | Some(Network::Default) => self.options.network,
                Some(network) => network,
            },
            security: run.parts().security.unwrap_or(Security::Sandbox),
            devices,
            hostname: hostname.map_or_else(|| HOSTNAME.to_owned(), Clone::clone),
            add_hosts: self.options.add_hosts.clone(),
            no_hosts: self.options.no_hosts,
            no_new_privileges: self.options.no_new_privileges,
            script,
        };
        let name = self.run_name(current, at, run, &names.secret_variables);
        let vertex = self.add(current, at, Op::Run(op), name);
        self.record(current, at, created_by, Some(vertex));
        Some(())
    }

    /// Variables are shown with their values, quotes stay; a secret's variable is shown as stars.
    fn run_name(&self, current: &mut Current, at: &At<'a>, run: &Run, secrets: &[String]) -> String {
        let scope = &current.state.scope;
        let lookup = |name: &str| {
            let secret = secrets.iter().any(|secret| secret == name);
            if secret { Some("****".to_owned()) } else { scope.get(name).map(str::to_owned) }
        };
        let mut text = at.instruction.original.to_string();
        if let Some(heredoc) = run.lone_heredoc() {
            let _ = write!(text, " ({})", summary(&heredoc.content));
        }
        let text = self.names.display(&text, &lookup);
        current.counter.next(&upper_case_name(&text), at.on_build(), Some(scope))
    }

    fn devices(&mut self, current: &Current, at: &At<'a>, run: &Run) -> Option<Vec<DeviceOp>> {
        let names = self.words(current, at, run.parts().devices.iter().map(|device| &device.name))?;
        let asked = names.into_iter().zip(&run.parts().devices);
        let asked = asked.map(|(name, device)| DeviceOp { name, required: device.required });
        Some(self.options.devices.iter().cloned().chain(asked).collect())
    }

    fn mounts(&mut self, current: &Current, at: &At<'a>, run: &Run) -> Option<(Vec<MountOp>, MountNames)> {
        let mut mounts = Vec::with_capacity(run.parts().mounts.len());
        let mut names = MountNames::default();
        for word in &run.parts().mounts {
            let scope = &current.state.scope;
            let lookup = |name: &str| scope.get(name).map(str::to_owned);
            mounts.push(match Mount::expand(&word.text, self.expander, &lookup) {
                Ok(mount) => {
                    // Only for the warnings: the fields were expanded one by one.
                    if let Ok(expanded) = self.names.word(&word.text, &lookup) {
                        self.warn_unset(current, at, word.span, &expanded.unset);
                    }
                    self.mount(current, at, word, &mount, &mut names)
                }
                Err(error) => {
                    let hint = error.hint();
                    self.report(at, word.span, GraphError { hint, ..GraphError::new(error) });
                    None
                }
            });
        }
        // All of them were looked at, so that every error is reported.
        Some((mounts.into_iter().collect::<Option<_>>()?, names))
    }

    fn mount(
        &mut self,
        current: &Current,
        at: &At<'a>,
        word: &Word,
        mount: &Mount,
        names: &mut MountNames,
    ) -> Option<MountOp> {
        let written = mount.target.as_deref();
        let line = at.instruction.start_line();
        let kind = match &mount.kind {
            MountKind::Bind { from, source, writable } => MountTarget::Bind {
                from: match from {
                    Some(name) => self.files(current, at, word, name)?,
                    None => Files::Context(ContextId::Main),
                },
                source: self.path(at, word, &RootPath::root(), source.as_deref().unwrap_or("/"))?,
                writable: *writable,
            },
            MountKind::Cache { id, from, source, sharing, read_only, ownership } => {
                let seed = match from {
                    Some(name) => {
                        let files = self.files(current, at, word, name)?;
                        Some((files, self.path(at, word, &RootPath::root(), source.as_deref().unwrap_or("/"))?))
                    }
                    None => None,
                };
                let (mode, uid, gid) = owner(*ownership, 0o755);
                let id = id.clone().unwrap_or_else(|| clean(written.unwrap_or(".")));
                self.outline.cache(&id, line);
                let id = self.in_namespace(&id);
                let (sharing, read_only) = (*sharing, *read_only);
                MountTarget::Cache(CacheMount { id, sharing, read_only, seed, mode, uid, gid })
            }
            MountKind::Tmpfs { size } => MountTarget::Tmpfs { size: *size },
            MountKind::Secret { id, env, required, ownership } => {
                let (mode, uid, gid) = owner(*ownership, 0o400);
                names.secret_variables.extend(env.clone());
                self.outline.secret(id, *required, line);
                let file = env.is_none() || written.is_some();
                let (id, env, required) = (id.clone(), env.clone(), *required);
                MountTarget::Secret(SecretMount { id, required, env, file, mode, uid, gid })
            }
            MountKind::Ssh { id, required, ownership } => {
                let (mode, uid, gid) = owner(*ownership, 0o600);
                self.outline.ssh(id, *required, line);
                MountTarget::Ssh(SshMount { id: id.clone(), required: *required, mode, uid, gid })
            }
        };
        let default = match &kind {
            MountTarget::Secret(secret) if secret.file => format!("/run/secrets/{}", base_name(&secret.id)),
            MountTarget::Ssh(_) => format!("/run/buildkit/ssh_agent.{}", names.ssh_mounts),
            MountTarget::Secret(_) => "/".to_owned(),
            // WORKDIR itself.
            _ => ".".to_owned(),
        };
        let target = self.path(at, word, &current.state.workdir, written.unwrap_or(&default))?;
        let needs_place = !matches!(&kind, MountTarget::Secret(secret) if !secret.file);
        if target.is_root() && needs_place {
            self.error(at, word.span, GraphErrorKind::MountRoot(written.unwrap_or("/").to_owned()));
            return None;
        }
        if matches!(kind, MountTarget::Ssh(_)) {
            names.ssh_mounts += 1;
            names.ssh_socket.get_or_insert_with(|| target.clone());
        }
        Some(MountOp { target, kind })
    }

    fn path(&mut self, at: &At<'a>, word: &Word, from: &RootPath, path: &str) -> Option<RootPath> {
        match from.join(path) {
            Ok(path) => Some(path),
            Err(error) => {
                self.error(at, word.span, error);
                None
            }
        }
    }

    /// The name of a cache directory in the namespace of the build.
    fn in_namespace(&self, id: &str) -> String {
        match self.options.build_args.get("BUILDKIT_CACHE_MOUNT_NS").filter(|namespace| !namespace.is_empty()) {
            Some(namespace) => format!("{namespace}/{id}"),
            None => id.to_owned(),
        }
    }
}

/// What the mounts of a `RUN` mean for the rest of it.
#[derive(Default)]
struct MountNames {
    /// Variables that hold secrets.
    secret_variables: Vec<String>,
    ssh_mounts: usize,
    /// The first one is what `SSH_AUTH_SOCK` names.
    ssh_socket: Option<RootPath>,
}

fn owner(ownership: Ownership, mode: u32) -> (u32, u32, u32) {
    (ownership.mode.unwrap_or(mode), ownership.uid.unwrap_or(0), ownership.gid.unwrap_or(0))
}

/// `|1 A=1 /bin/sh -c make`: the arguments in scope with their values, then the command.
fn created_by(args: &[String], state: &State) -> String {
    let mut text = "RUN".to_owned();
    if !state.arguments.is_empty() {
        let _ = write!(text, " |{}", state.arguments.len());
    }
    for (name, value) in &state.arguments {
        let value = state.scope.get(name).or(value.as_deref()).unwrap_or("");
        let _ = write!(text, " {name}={value}");
    }
    for arg in args {
        text.push(' ');
        text.push_str(arg);
    }
    text + " # buildkit"
}

/// A path as Go's `path.Clean` leaves it: a relative one stays relative.
fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    let is_absolute = path.starts_with('/');
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    match (is_absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

fn base_name(id: &str) -> &str {
    id.trim_end_matches('/').rsplit('/').next().unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_in_go() {
        for (path, expected) in [
            ("/root/.cache/", "/root/.cache"),
            ("/a/../../b", "/b"),
            ("a//b/./c", "a/b/c"),
            ("../a/../..", "../.."),
            ("a/..", "."),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), expected, "{path}");
        }
        assert_eq!(base_name("a/b/"), "b");
    }
}

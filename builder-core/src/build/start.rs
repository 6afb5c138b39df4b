//! [`Engine::start`]: runs a command in an image, with the sandbox that RUN has (`rbuild run`).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::base::{self, BaseImage};
use super::engine::Engine;
use super::error::{BuildError, StepError};
use super::events::{Events, TaskNumbers};
use super::filesystem::{Access, Filesystem, Work};
use super::op::mounts::{Prepared, ShownMount};
use super::op::run::{Root, duplicate, hosts, resolve_user};
use super::request::PullPolicy;
use crate::cancel::CancelToken;
use crate::executor::{
    Exit, HostLoopback, Identity, Limits, MountSource, Network, Process, Security, Stdio, resolv_conf,
};
use crate::graph::ImageRequest;
use crate::oci::{ContainerConfig, Platform, Reference};
use crate::pins::Pins;
use crate::progress::Sink;
use crate::rootfs::RootPath;
use crate::sys::mount::{Attributes, bind_path};

/// What to run, and how it differs from what the image says.
#[derive(Debug)]
pub struct StartRequest {
    /// The image.
    pub image: Reference,
    /// Its platform.
    pub platform: Platform,
    /// When a registry is asked.
    pub pull: PullPolicy,
    /// Replaces CMD; empty keeps it.
    pub command: Vec<String>,
    /// Replaces ENTRYPOINT, and drops CMD.
    pub entrypoint: Option<Vec<String>>,
    /// Added to ENV, or replacing it by name.
    pub env: Vec<(String, String)>,
    /// Replaces USER.
    pub user: Option<String>,
    /// Replaces WORKDIR.
    pub workdir: Option<String>,
    /// Host name.
    pub hostname: String,
    /// Network.
    pub network: Network,
    /// Extra lines of `/etc/hosts`: name, address.
    pub add_hosts: Vec<(String, String)>,
    /// Directories and files of the host: source, target, read-only.
    pub volumes: Vec<(std::path::PathBuf, RootPath, bool)>,
    /// New tmpfs mounts.
    pub tmpfs: Vec<RootPath>,
    /// All capabilities, no filters.
    pub privileged: bool,
    /// Limits.
    pub limits: Limits,
    /// Text of the host's `resolv.conf`.
    pub resolv_conf: Option<Vec<u8>>,
    /// Where its streams lead.
    pub stdio: Stdio,
}

impl Engine {
    /// Runs a command in an image until it ends. What it writes to its root filesystem is dropped afterwards.
    ///
    /// # Errors
    /// If the image cannot be had, the command cannot be started, or the token is cancelled.
    pub fn start(&self, request: StartRequest, sink: &dyn Sink, cancel: &CancelToken) -> Result<Exit, BuildError> {
        let wanted = ImageRequest::new(request.image.clone(), request.platform.clone());
        let failed = |suggestion: Option<String>, error: StepError| {
            BuildError::of(error, |error| BuildError::Base {
                location: None,
                origin: None,
                suggestion,
                error: Box::new(error),
            })
        };
        let _lease = self.content.lease(cancel).map_err(|error| failed(None, error.into()))?;
        let access =
            Access { engine: self, events: Events::Direct(sink), cancel: cancel.clone(), remote: None, dry: false };
        let image = base::resolve(self, &wanted, request.pull, &Pins::default(), cancel)
            .map_err(|error| failed(base::other_platforms(self, &wanted), error))?;
        self.run_image(request, image, &access).map_err(|error| failed(None, error))
    }

    fn run_image(&self, request: StartRequest, image: BaseImage, access: &Access<'_>) -> Result<Exit, StepError> {
        let task =
            TaskNumbers::default().declare(&access.events, &format!("pull {}", request.image.familiar()), Vec::new());
        image.layers.belongs_to(task);
        let config = image.known.config.config;
        match image.layers.snapshots(access) {
            // A cache had said something else of a layer than it holds: what it holds is known now.
            Err(StepError::OtherBase) => image.layers.snapshots(access)?,
            other => other?,
        };
        let filesystem = Filesystem { base: Some(Arc::clone(&image.layers)), built: Vec::new() };
        let stack = filesystem.stack(access, Work::Allowed)?.unwrap_or_default();

        let args = arguments(&request, &config)?;
        let user = resolve_user(access, &filesystem, &stack, request.user.as_deref().unwrap_or(&config.user))?;
        let workdir = RootPath::clean("/")
            .and_then(|root| root.join(&config.working_dir))
            .and_then(|workdir| workdir.join(request.workdir.as_deref().unwrap_or_default()))
            .map_err(|error| StepError::Unsupported(error.to_string()))?;
        let mut env = environment(&request, &config);
        if !env.iter().any(|(name, _)| name == b"HOME") {
            env.push((b"HOME".to_vec(), user.home.clone().unwrap_or_else(|| "/".to_owned()).into_bytes()));
        }

        let mut prepared = Prepared::default();
        let loopback =
            if matches!(request.network, Network::Host) { HostLoopback::Reachable } else { HostLoopback::Unreachable };
        let resolv = String::from_utf8_lossy(request.resolv_conf.as_deref().unwrap_or_default());
        let hosts = hosts(&request.hostname, &request.add_hosts, Some(IpAddr::V4(Ipv4Addr::LOCALHOST)))?;
        prepared.file(&stack, "/etc/hosts", hosts, false)?;
        prepared.file(&stack, "/etc/resolv.conf", resolv_conf(&resolv, None, loopback).into_bytes(), false)?;
        for (source, target, read_only) in &request.volumes {
            let io = |error| StepError::Io { what: format!("cannot mount {}", source.display()), source: error };
            let is_directory = source.metadata().map_err(io)?.is_dir();
            let shown = MountSource::Detached(bind_path(source, Attributes::empty()).map_err(io)?);
            let shown = ShownMount { source: shown, read_only: *read_only, is_directory };
            prepared.add(stack.resolve(target, true)?, shown)?;
        }
        for target in &request.tmpfs {
            let source = MountSource::Tmpfs { size: None, mode: 0o1777 };
            prepared.add(stack.resolve(target, true)?, ShownMount { source, read_only: false, is_directory: true })?;
        }
        let active = self.snapshots.begin()?;
        let root =
            Root { filesystem: &filesystem, stack: &stack, prepared: &prepared }.mount(access, &active, &workdir)?;
        let process = Process {
            root: duplicate(&root)
                .map_err(|source| StepError::Io { what: "cannot open the root".to_owned(), source })?,
            args,
            env,
            cwd: stack.resolve(&workdir, true)?,
            user: Identity { uid: user.uid, gid: user.gid, groups: user.groups },
            mounts: prepared.mounts,
            devices: Vec::new(),
            network: request.network,
            hostname: request.hostname,
            security: if request.privileged { Security::Insecure } else { Security::Sandbox },
            no_new_privileges: false,
            limits: request.limits,
            stdio: request.stdio,
            trace: None,
        };
        Ok(self.executor.run(process, &mut |_, _| {}, &access.cancel)?)
    }
}

/// Entrypoint and command as docker combines them.
fn arguments(request: &StartRequest, config: &ContainerConfig) -> Result<Vec<Vec<u8>>, StepError> {
    let entrypoint = request.entrypoint.clone().or_else(|| config.entrypoint.clone()).unwrap_or_default();
    let keeps_cmd = request.command.is_empty() && request.entrypoint.is_none();
    let command = if keeps_cmd { config.cmd.clone().unwrap_or_default() } else { request.command.clone() };
    let args: Vec<Vec<u8>> = entrypoint.into_iter().chain(command).map(String::into_bytes).collect();
    if args.is_empty() {
        return Err(StepError::Unsupported(
            "no command specified: the image has neither CMD nor ENTRYPOINT".to_owned(),
        ));
    }
    Ok(args)
}

fn environment(request: &StartRequest, config: &ContainerConfig) -> Vec<(Vec<u8>, Vec<u8>)> {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut env: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| {
        env.retain(|(known, _)| known != name);
        env.push((name.to_owned(), value.to_owned()));
    };
    // Entries without `=` are dropped, never looked up on the host (security invariant S-9).
    for (name, value) in
        std::iter::once(PATH).chain(config.env.iter().map(String::as_str)).filter_map(|pair| pair.split_once('='))
    {
        set(name, value);
    }
    set("HOSTNAME", &request.hostname);
    if matches!(request.stdio, Stdio::Terminal(_)) {
        set("TERM", "xterm");
    }
    for (name, value) in &request.env {
        set(name, value);
    }
    env.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(command: &[&str], entrypoint: Option<&[&str]>) -> StartRequest {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        StartRequest {
            image: "app".parse().expect("valid"),
            platform: Platform::host(),
            pull: PullPolicy::Missing,
            command: owned(command),
            entrypoint: entrypoint.map(owned),
            env: vec![("A".into(), "2".into())],
            user: None,
            workdir: None,
            hostname: "h".into(),
            network: Network::Host,
            add_hosts: Vec::new(),
            volumes: Vec::new(),
            tmpfs: Vec::new(),
            privileged: false,
            limits: Limits::default(),
            resolv_conf: None,
            stdio: Stdio::Captured,
        }
    }

    #[test]
    fn a_command_replaces_cmd_and_an_entrypoint_drops_it() {
        let config = ContainerConfig {
            entrypoint: Some(vec!["/e".into()]),
            cmd: Some(vec!["c".into()]),
            ..ContainerConfig::default()
        };
        let check = |command: &[&str], entrypoint: Option<&[&str]>, expected: &str| {
            let args = arguments(&request(command, entrypoint), &config).expect("a command");
            assert_eq!(args.join(&b' '), expected.as_bytes());
        };
        check(&[], None, "/e c");
        check(&["x", "y"], None, "/e x y");
        check(&[], Some(&["/f"]), "/f");
        check(&["x"], Some(&["/f"]), "/f x");
        check(&["x"], Some(&[]), "x");
        assert!(arguments(&request(&[], Some(&[])), &config).is_err());
    }

    #[test]
    fn the_environment_is_the_images_and_never_the_hosts() {
        let config = ContainerConfig { env: vec!["A=1".into(), "SHELL".into()], ..ContainerConfig::default() };
        let env = environment(&request(&[], None), &config);
        let text: Vec<String> =
            env.iter().map(|(n, v)| format!("{}={}", String::from_utf8_lossy(n), String::from_utf8_lossy(v))).collect();
        assert_eq!(text[1..], ["HOSTNAME=h", "A=2"]);
    }
}

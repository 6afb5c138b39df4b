//! [`RunOptions`]: what every RUN of a build gets from its surroundings, and what it may ask for.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Mutex;

use super::error::{BuildError, StepError};
use super::solve::step_error;
use crate::dockerfile::{Network, Security};
use crate::executor::{self, Dns, HostLoopback, NetworkHelper, PrivateNetwork, PrivateNetworkError};
use crate::graph::{Graph, Op, RunOp, VertexId};
use crate::lock::lock;
use crate::ssh::SshSource;

/// What every RUN of a build gets, apart from its limits. Nothing of this is part of a key.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// `--ssh`: agents by id.
    pub ssh: BTreeMap<String, SshSource>,
    /// `--allow`: what a Dockerfile may ask for.
    pub entitlements: Entitlements,
    /// Where specifications of devices are.
    pub cdi_directories: Vec<PathBuf>,
    /// The network of a RUN that does not ask for another.
    pub network: StepNetwork,
    /// `--dns`, `--dns-option`, `--dns-search`
    pub dns: Dns,
}

/// What `--network=default` is to a RUN.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StepNetwork {
    /// The network of the host.
    #[default]
    Host,
    /// One of its own, the same for all steps of a build, that reaches out through the first of these programs that works.
    Private(Vec<NetworkHelper>),
    /// The same; if none of them works, that of the host, with a warning.
    PrivateOrHost(Vec<NetworkHelper>),
    /// A namespace that exists, by path.
    Namespace(PathBuf),
}

/// The network of one build; made when the first step needs it.
#[derive(Debug, Default)]
pub(super) struct BuildNetwork(Mutex<Option<Made>>);

#[derive(Debug)]
enum Made {
    Private(PrivateNetwork),
    /// There is none.
    Host,
}

/// What a step can reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// What the host can.
    Host,
    /// Nothing.
    Nothing,
    /// What another namespace can.
    Namespace,
    /// The world, through a helper.
    Outside {
        /// The name server that it plays.
        server: IpAddr,
        /// The address of this machine.
        gateway: Option<IpAddr>,
    },
}

impl BuildNetwork {
    /// The network of a step. `warn` is told once if it is the host's for want of another.
    pub(super) fn of(
        &self,
        asked: Network,
        options: &RunOptions,
        warn: impl FnOnce(String),
    ) -> Result<(executor::Network, Reach), StepError> {
        let io = |what: &str, source| StepError::Io { what: what.to_owned(), source };
        let (helpers, needed) = match (asked, &options.network) {
            (Network::None, _) => return Ok((executor::Network::None, Reach::Nothing)),
            (Network::Host, _) | (Network::Default, StepNetwork::Host) => {
                return Ok((executor::Network::Host, Reach::Host));
            }
            (Network::Default, StepNetwork::Namespace(path)) => {
                let what = || format!("cannot join the network namespace `{}`", path.display());
                let opened = executor::open_network_namespace(path).map_err(|source| io(&what(), source))?;
                return Ok((executor::Network::Joined(opened), Reach::Namespace));
            }
            (Network::Default, StepNetwork::Private(helpers)) => (helpers, true),
            (Network::Default, StepNetwork::PrivateOrHost(helpers)) => (helpers, false),
        };
        let mut made = lock(&self.0);
        let network = match made.take() {
            Some(network) => network,
            None => match start(helpers) {
                Ok(network) => Made::Private(network),
                Err(Some(error)) if needed => return Err(error.into()),
                Err(error) => {
                    warn(host_instead(error.as_ref()));
                    Made::Host
                }
            },
        };
        match made.insert(network) {
            Made::Host => Ok((executor::Network::Host, Reach::Host)),
            Made::Private(network) => {
                let namespace = network.namespace().map_err(|source| io("cannot join the private network", source))?;
                let reach = Reach::Outside { server: network.name_server(), gateway: network.gateway() };
                Ok((executor::Network::Joined(namespace), reach))
            }
        }
    }
}

/// Starts the first helper that works; gives the error of the first that does not.
fn start(helpers: &[NetworkHelper]) -> Result<PrivateNetwork, Option<PrivateNetworkError>> {
    let mut first = None;
    for helper in helpers {
        match PrivateNetwork::start(helper) {
            Ok(network) => return Ok(network),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first)
}

fn host_instead(error: Option<&PrivateNetworkError>) -> String {
    let reason = error.map_or_else(
        || {
            let names = executor::HelperKind::ALL.map(|kind| format!("`{}`", kind.name()));
            format!("neither {} is installed", names.join(" nor "))
        },
        ToString::to_string,
    );
    format!(
        "steps use the network of this machine, its loopback device too: {reason} (`--network=host` says that this is meant)"
    )
}

impl Reach {
    /// The address under which a step reaches this machine, if it does.
    pub(super) fn gateway(self) -> Option<IpAddr> {
        match self {
            Self::Host | Self::Nothing => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            Self::Namespace => None,
            Self::Outside { gateway, .. } => gateway,
        }
    }

    /// The text of `/etc/resolv.conf` for a step, from that of the host.
    pub(super) fn resolv_conf(self, dns: &Dns, host: &str) -> String {
        let text = match self {
            Self::Nothing => executor::resolv_conf(host, None, HostLoopback::Unreachable),
            Self::Outside { server, .. } => Dns { servers: vec![server], ..Dns::default() }.apply(host),
            Self::Host | Self::Namespace => executor::resolv_conf(host, None, HostLoopback::Reachable),
        };
        dns.apply(&text)
    }
}

/// What the Dockerfile may ask for because the caller said so: it can ask, never grant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entitlements {
    /// `network.host`: `RUN --network=host`.
    pub network_host: bool,
    /// `security.insecure`: `RUN --security=insecure`.
    pub security_insecure: bool,
    /// `device`: `RUN --device` of any device.
    pub all_devices: bool,
    /// `device=NAME[,alias=ALIAS]`: names that a `RUN --device` may ask for, or kinds (`vendor.com/class`), each with the
    /// device that it stands for.
    pub devices: BTreeMap<String, String>,
}

/// The text is not an entitlement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown entitlement `{0}`")]
pub struct UnknownEntitlement(String);

impl Entitlements {
    /// Every entitlement, for messages.
    pub const NAMES: &str = "`network.host`, `security.insecure`, `device` and `device=NAME`";

    /// Grants what a `--allow` names.
    ///
    /// # Errors
    /// If there is no such entitlement.
    pub fn grant(&mut self, text: &str) -> Result<(), UnknownEntitlement> {
        let unknown = || UnknownEntitlement(text.to_owned());
        match text {
            "network.host" => self.network_host = true,
            "security.insecure" => self.security_insecure = true,
            "device" => self.all_devices = true,
            _ if text.starts_with("device=") => {
                let mut fields = text["device=".len()..].split(',');
                let name = fields.next().filter(|name| !name.is_empty()).ok_or_else(unknown)?;
                let alias = fields.next().map(|field| field.strip_prefix("alias=").ok_or_else(unknown)).transpose()?;
                if fields.next().is_some() {
                    return Err(unknown());
                }
                self.devices.insert(alias.unwrap_or(name).to_owned(), name.to_owned());
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// Refuses what was not granted. Every step asks again right before its process is started.
    pub(super) fn check(&self, op: &RunOp) -> Result<(), StepError> {
        let refused = |entitlement: &str| Err(StepError::NotAllowed { entitlement: entitlement.to_owned() });
        if op.network == Network::Host && !self.network_host {
            return refused("network.host");
        }
        if op.security == Security::Insecure && !self.security_insecure {
            return refused("security.insecure");
        }
        for device in &op.devices {
            let kind = device.name.split('=').next().unwrap_or_default();
            let named = |name: &str| self.devices.contains_key(name);
            if !self.all_devices && !named(&device.name) && !named(kind) && !named(&format!("{kind}=*")) {
                return refused(&format!("device={}", device.name));
            }
        }
        Ok(())
    }

    /// Refuses a graph that asks for what was not granted, before anything of it runs.
    pub(super) fn check_all(&self, graph: &Graph) -> Result<(), BuildError> {
        for (number, vertex) in graph.vertices.iter().enumerate() {
            if let Op::Run(op) = &vertex.op {
                self.check(op).map_err(|error| step_error(graph, VertexId(number), error))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_helper_that_works_the_host_is_said_to_be_used_once() {
        let network = BuildNetwork::default();
        let helper = NetworkHelper {
            kind: executor::HelperKind::Pasta,
            program: "/no/such/program".into(),
            options: Vec::new(),
        };
        let with = |network| RunOptions { network, ..RunOptions::default() };
        let mut said = Vec::new();
        for _ in 0..2 {
            let options = with(StepNetwork::PrivateOrHost(vec![helper.clone()]));
            let (_, reach) = network.of(Network::Default, &options, |text| said.push(text)).expect("the host's");
            assert_eq!(reach, Reach::Host);
        }
        assert!(said.len() == 1 && said[0].contains("cannot run `/no/such/program`"), "{said:?}");
        let strict = with(StepNetwork::Private(vec![helper]));
        assert!(BuildNetwork::default().of(Network::Default, &strict, |_| {}).is_err());
        assert!(host_instead(None).contains("neither `slirp4netns` nor `pasta` is installed"));
    }

    #[test]
    fn entitlements_are_a_closed_set() {
        let mut entitlements = Entitlements::default();
        for unknown in [
            "",
            "network",
            "security.insecure=1",
            "fs.read=/",
            "network.host ",
            "device=",
            "device=a,b",
            "device=a,alias=b,c",
        ] {
            assert!(entitlements.grant(unknown).is_err(), "{unknown}");
        }
        assert_eq!(entitlements, Entitlements::default());
        entitlements.grant("security.insecure").expect("known");
        assert_eq!(entitlements, Entitlements { security_insecure: true, ..Entitlements::default() });
    }

    #[test]
    fn devices_are_allowed_by_name_kind_or_alias() {
        let mut op = RunOp {
            args: Vec::new(),
            env: std::iter::empty::<(&str, &str)>().collect(),
            unkeyed_env: Vec::new(),
            platform: crate::oci::Platform::host(),
            workdir: crate::rootfs::RootPath::root(),
            user: String::new(),
            mounts: Vec::new(),
            network: Network::Default,
            security: Security::Sandbox,
            devices: Vec::new(),
            hostname: String::new(),
            add_hosts: Vec::new(),
            no_hosts: false,
            no_new_privileges: false,
            script: None,
        };
        let mut check = |allowed: &str, asked: &str| {
            let mut entitlements = Entitlements::default();
            entitlements.grant(allowed).expect("known");
            op.devices = vec![crate::graph::DeviceOp { name: asked.to_owned(), required: false }];
            entitlements.check(&op).is_ok()
        };
        assert!(check("device", "a.com/b=c"));
        assert!(check("device=a.com/b=c", "a.com/b=c"));
        assert!(check("device=a.com/b", "a.com/b=c"));
        assert!(check("device=a.com/b=*", "a.com/b=c"));
        assert!(check("device=a.com/b=c,alias=x", "x"));
        assert!(!check("device=a.com/b=c,alias=x", "a.com/b=c"));
        assert!(!check("device=a.com/b=d", "a.com/b=c"));
        assert!(!check("device=a.com/b=c", "a.com/b"));
        assert!(!check("security.insecure", "a.com/b=c"));
    }
}

//! What RUN steps get, and what they may ask for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use builder_core::build::{Entitlements, RunOptions, StepNetwork};
use builder_core::dockerfile::Network;
use builder_core::executor::{Dns, HelperKind, Limits, NetworkHelper};
use builder_core::graph::{DeviceOp, Options};
use builder_core::ssh::{Key, SshSource};

use super::{Result, values};
use crate::args::{LimitArgs, StepArgs};
use crate::command_error::CommandError;
use crate::environment::Environment;

/// Where specifications of devices are (Container Device Interface, "Specification files").
const CDI_DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// Where helpers of private networks are looked for after the directories of `PATH`.
const MORE_DIRECTORIES: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// What every RUN gets; what of that the graph has to know goes into `options`.
pub(super) fn settle(args: &StepArgs, options: &mut Options, environment: &Environment) -> Result<RunOptions> {
    let mut run = RunOptions { ssh: ssh(&args.ssh, environment)?, ..RunOptions::default() };
    for text in args.allow.iter().flat_map(|list| entitlements(list)) {
        run.entitlements.grant(&text).map_err(|error| {
            CommandError::usage(format!("--allow: {error}")).with_hint(format!("there are {}", Entitlements::NAMES))
        })?;
    }
    for name in &args.device {
        options.devices.push(DeviceOp { name: name.clone(), required: true });
        run.entitlements.devices.entry(name.clone()).or_insert_with(|| name.clone());
    }
    run.cdi_directories = args.cdi_spec_dir.iter().map(|directory| environment.absolute(directory)).collect();
    if run.cdi_directories.is_empty() {
        run.cdi_directories = CDI_DIRECTORIES.map(PathBuf::from).into();
    }
    (options.network, run.network) = network(&args.network, environment)?;
    // As in buildx: who asks for it on the command line need not allow it there too.
    run.entitlements.network_host |= options.network == Network::Host;
    if args.no_hosts && !args.add_host.is_empty() {
        return Err(CommandError::usage("--no-hosts and --add-host exclude each other"));
    }
    // As in docker one flag may list several.
    let hosts = args.add_host.iter().flat_map(|hosts| hosts.split(','));
    options.add_hosts = hosts.map(values::host).collect::<Result<_>>()?;
    options.no_hosts = args.no_hosts;
    options.no_new_privileges = no_new_privileges(&args.security_opt)?;
    run.dns = dns(args)?;
    Ok(run)
}

/// Commas separate entitlements, but not the parts of a device's.
fn entitlements(text: &str) -> Vec<String> {
    if text.starts_with("device=") { vec![text.to_owned()] } else { text.split(',').map(str::to_owned).collect() }
}

fn network(mode: &str, environment: &Environment) -> Result<(Network, StepNetwork)> {
    Ok(match mode {
        "default" | "" => (Network::Default, StepNetwork::PrivateOrHost(helpers(environment))),
        "host" => (Network::Host, StepNetwork::Host),
        "none" => (Network::None, StepNetwork::Host),
        "private" => {
            let helpers = helpers(environment);
            if helpers.is_empty() {
                let names = HelperKind::ALL.map(|kind| format!("`{}`", kind.name()));
                return Err(missing("private", &names.join(" or ")));
            }
            (Network::Default, StepNetwork::Private(helpers))
        }
        "slirp4netns" => (Network::Default, only(HelperKind::Slirp4netns, Vec::new(), environment)?),
        "pasta" => (Network::Default, only(HelperKind::Pasta, Vec::new(), environment)?),
        mode if mode.starts_with("pasta:") => {
            let options = mode["pasta:".len()..].split(',').filter(|option| !option.is_empty());
            (Network::Default, only(HelperKind::Pasta, options.map(str::to_owned).collect(), environment)?)
        }
        mode => match mode.strip_prefix("ns:").filter(|path| !path.is_empty()) {
            Some(path) => (Network::Default, StepNetwork::Namespace(environment.absolute(Path::new(path)))),
            None => {
                return Err(CommandError::usage(format!("--network: `{mode}` is not a network"))
                    .with_hint("the modes are default, host, none, private, slirp4netns, pasta[:OPTIONS], ns:PATH"));
            }
        },
    })
}

/// The helpers that are installed, the best first.
fn helpers(environment: &Environment) -> Vec<NetworkHelper> {
    HelperKind::ALL.into_iter().filter_map(|kind| helper(kind, environment)).collect()
}

fn helper(kind: HelperKind, environment: &Environment) -> Option<NetworkHelper> {
    let path = environment.get_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(path).chain(MORE_DIRECTORIES.map(PathBuf::from));
    let program = directories.map(|directory| directory.join(kind.name())).find(|program| program.is_file())?;
    Some(NetworkHelper { kind, program, options: Vec::new() })
}

fn only(kind: HelperKind, options: Vec<String>, environment: &Environment) -> Result<StepNetwork> {
    let found = helper(kind, environment).ok_or_else(|| missing(kind.name(), &format!("`{}`", kind.name())))?;
    Ok(StepNetwork::Private(vec![NetworkHelper { options, ..found }]))
}

fn missing(mode: &str, programs: &str) -> CommandError {
    CommandError::failed(format!("--network={mode} needs {programs}, which is not installed"))
        .with_hint("install it, or use `--network=host` or `--network=none`")
}

/// `ID[=SOCKET|KEY[,KEY]]`, and `raw=true` for a socket that is passed on as it is.
fn ssh(given: &[String], environment: &Environment) -> Result<BTreeMap<String, SshSource>> {
    let mut sources = BTreeMap::new();
    for text in given {
        let (id, paths) = text.split_once('=').unwrap_or((text, ""));
        let id = if id.is_empty() { "default" } else { id };
        let source = ssh_source(text, paths, environment)?;
        if sources.insert(id.to_owned(), source).is_some() {
            return Err(CommandError::usage(format!("--ssh: `{id}` is given twice")));
        }
    }
    Ok(sources)
}

fn ssh_source(text: &str, paths: &str, environment: &Environment) -> Result<SshSource> {
    let wrong = |reason: &str| CommandError::usage(format!("--ssh `{text}`: {reason}"));
    let mut raw = false;
    let mut files = Vec::new();
    for field in paths.split(',').filter(|field| !field.is_empty()) {
        match field.strip_prefix("raw=") {
            Some("true" | "1") => raw = true,
            Some("false" | "0") => raw = false,
            Some(_) => return Err(wrong("`raw` is neither `true` nor `false`")),
            None => files.push(environment.absolute(Path::new(field))),
        }
    }
    if files.is_empty() {
        let agent = environment.get_os("SSH_AUTH_SOCK").ok_or_else(|| {
            wrong("SSH_AUTH_SOCK is not set").with_hint("start an agent, or name a socket or a key: `--ssh ID=FILE`")
        })?;
        files.push(environment.absolute(Path::new(agent)));
    }
    let is_socket = |path: &Path| -> Result<bool> {
        let found = std::fs::metadata(path);
        let found =
            found.map_err(|error| CommandError::io(&format!("--ssh: cannot open `{}`", path.display()), &error))?;
        Ok(found.file_type().is_socket())
    };
    let sockets = files.iter().map(|path| is_socket(path)).collect::<Result<Vec<bool>>>()?;
    match (&files[..], &sockets[..]) {
        ([socket], [true]) if raw => Ok(SshSource::Raw(socket.clone())),
        ([socket], [true]) => Ok(SshSource::Agent(socket.clone())),
        _ if raw => Err(wrong("`raw` takes exactly one socket")),
        (files, sockets) if !sockets.contains(&true) => {
            let keys = files.iter().map(|path| Key::read(path).map_err(|error| CommandError::diagnostic(&error)));
            Ok(SshSource::Keys(keys.collect::<Result<Vec<Key>>>()?.into()))
        }
        _ => Err(wrong("a socket can be neither with another one nor with keys")),
    }
}

fn no_new_privileges(options: &[String]) -> Result<bool> {
    let mut on = false;
    for option in options {
        let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
        on = match (name, value) {
            ("no-new-privileges", "" | "true") => true,
            ("no-new-privileges", "false") => false,
            ("seccomp" | "apparmor" | "label" | "systempaths", "unconfined" | "disable") => {
                return Err(CommandError::usage(format!("--security-opt: `{option}` is not supported"))
                    .with_hint("steps run in docker's default sandbox; `RUN --security=insecure` with `--allow security.insecure` has none"));
            }
            _ => {
                return Err(CommandError::usage(format!("--security-opt: `{option}` is not supported"))
                    .with_hint("there is `no-new-privileges`"));
            }
        };
    }
    Ok(on)
}

fn dns(args: &StepArgs) -> Result<Dns> {
    let server = |text: &String| {
        text.parse::<IpAddr>().map_err(|_| CommandError::usage(format!("--dns: `{text}` is not an address")))
    };
    let word = |option: &str, text: &String| {
        if text.is_empty() || text.contains(char::is_whitespace) {
            return Err(CommandError::usage(format!("{option}: `{}` is not one word", text.escape_debug())));
        }
        Ok(text.clone())
    };
    let words = |option: &str, given: &[String]| given.iter().map(|text| word(option, text)).collect::<Result<_>>();
    Ok(Dns {
        servers: args.dns.iter().map(server).collect::<Result<_>>()?,
        options: words("--dns-option", &args.dns_option)?,
        search: words("--dns-search", &args.dns_search)?,
    })
}

/// Limits of RUN steps. What `--resource` says and its own option too is an error.
pub(super) fn limits(args: &LimitArgs) -> Result<Limits> {
    let mut args = args.clone();
    for text in &args.resource.clone() {
        resource(text, &mut args)?;
    }
    // 0 is no limit, as in docker.
    let some = |number: Option<u64>| number.filter(|number| *number != 0);
    let bytes = |name, value: &Option<String>| -> Result<Option<u64>> {
        Ok(some(value.as_deref().map(|text| values::bytes(name, text)).transpose()?))
    };
    let memory = bytes("--memory", &args.memory)?;
    Ok(Limits {
        ulimits: values::ulimits(&args.ulimit)?,
        shm_size: bytes("--shm-size", &args.shm_size)?,
        memory,
        memory_swap: memory_swap(args.memory_swap.as_deref(), memory)?,
        cpu_shares: some(args.cpu_shares),
        cpu_quota: without_end("--cpu-quota", args.cpu_quota)?,
        cpu_period: some(args.cpu_period),
        cpuset_cpus: args.cpuset_cpus.filter(|list| !list.is_empty()),
        cpuset_mems: args.cpuset_mems.filter(|list| !list.is_empty()),
        pids: without_end("--pids-limit", args.pids_limit)?,
        cgroup_parent: args.cgroup_parent.filter(|parent| !parent.is_empty()),
    })
}

/// Memory and swap together cannot be less than memory alone, and mean nothing without it.
fn memory_swap(text: Option<&str>, memory: Option<u64>) -> Result<Option<i64>> {
    let both = match text {
        None => return Ok(None),
        Some("-1") => return Ok(Some(-1)),
        Some(text) => values::bytes("--memory-swap", text)?,
    };
    match memory {
        _ if both == 0 => Ok(None),
        None => Err(CommandError::usage("--memory-swap needs --memory").with_hint("it is memory and swap together")),
        Some(memory) if both < memory => Err(CommandError::usage("--memory-swap is less than --memory")
            .with_hint("it is memory and swap together: as much as `--memory` is no swap")),
        Some(_) => Ok(i64::try_from(both).ok()),
    }
}

/// A number of which -1, and 0 too, is no limit.
fn without_end(option: &str, number: Option<i64>) -> Result<Option<u64>> {
    match number {
        None | Some(-1 | 0) => Ok(None),
        Some(number) => u64::try_from(number)
            .map(Some)
            .map_err(|_| CommandError::usage(format!("{option}: `{number}` is below zero; -1 is no limit"))),
    }
}

fn resource(text: &str, args: &mut LimitArgs) -> Result<()> {
    let wrong = |reason: &str| {
        CommandError::usage(format!("--resource `{text}`: {reason}")).with_hint(
            "the limits are memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems, pids",
        )
    };
    let (name, value) = text.split_once('=').ok_or_else(|| wrong("expected `LIMIT=VALUE`"))?;
    let number = || value.parse::<u64>().map_err(|_| wrong("the value is not a number"));
    let signed = || value.parse::<i64>().map_err(|_| wrong("the value is not a number"));
    let before = match name {
        "memory" => args.memory.replace(value.to_owned()).is_some(),
        "memory-swap" => args.memory_swap.replace(value.to_owned()).is_some(),
        "cpu-shares" => args.cpu_shares.replace(number()?).is_some(),
        "cpu-period" => args.cpu_period.replace(number()?).is_some(),
        "cpu-quota" => args.cpu_quota.replace(signed()?).is_some(),
        "pids" => args.pids_limit.replace(signed()?).is_some(),
        "cpuset-cpus" => args.cpuset_cpus.replace(value.to_owned()).is_some(),
        "cpuset-mems" => args.cpuset_mems.replace(value.to_owned()).is_some(),
        _ => return Err(wrong("there is no such limit")),
    };
    if before { Err(wrong("this limit is given twice")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use builder_core::oci::Platform;

    use super::*;

    fn settled(change: impl FnOnce(&mut StepArgs), variables: &[(&str, &str)]) -> Result<(Options, RunOptions)> {
        let mut args = StepArgs::default();
        change(&mut args);
        let mut options = Options::new(Platform::host());
        let run = settle(&args, &mut options, &Environment::with(variables))?;
        Ok((options, run))
    }

    fn message(change: impl FnOnce(&mut StepArgs)) -> String {
        settled(change, &[]).expect_err("refused").to_string()
    }

    // Rows: B16, B21.
    #[test]
    fn networks_and_entitlements() {
        let of = |mode: &str| {
            let (options, run) = settled(|args| args.network = mode.into(), &[]).expect("a network");
            (options.network, run.network, run.entitlements.network_host)
        };
        assert!(matches!(of("default"), (Network::Default, StepNetwork::PrivateOrHost(_), false)));
        assert_eq!(of("none"), (Network::None, StepNetwork::Host, false));
        // The flag is the grant, as in buildx.
        assert_eq!(of("host"), (Network::Host, StepNetwork::Host, true));
        assert_eq!(of("ns:/run/netns/a"), (Network::Default, StepNetwork::Namespace("/run/netns/a".into()), false));
        assert_eq!(message(|args| args.network = "bridge".into()), "--network: `bridge` is not a network");
        let (_, run) = settled(|args| args.allow = vec!["network.host,security.insecure".into()], &[]).expect("known");
        assert!(run.entitlements.network_host && run.entitlements.security_insecure);
        assert_eq!(message(|args| args.allow = vec!["fs.read=/".into()]), "--allow: unknown entitlement `fs.read=/`");
    }

    #[test]
    fn agents_are_sockets_or_keys() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let _listener = std::os::unix::net::UnixListener::bind(path("socket")).expect("bound");
        std::fs::write(path("text"), "no key").expect("written");
        let of = |text: &str| ssh(&[text.to_owned()], &Environment::with(&[("SSH_AUTH_SOCK", &path("socket"))]));
        let socket = path("socket");
        assert!(
            matches!(of("default").expect("a source")["default"], SshSource::Agent(ref found) if *found == Path::new(&socket))
        );
        assert!(matches!(of(&format!("a={socket}")).expect("a source")["a"], SshSource::Agent(_)));
        assert!(matches!(of(&format!("a={socket},raw=true")).expect("a source")["a"], SshSource::Raw(_)));
        let text = path("text");
        for (wrong, part) in [
            (format!("a={text}"), "is not a private key"),
            (format!("a={socket},{text}"), "a socket can be neither"),
            (format!("a={text},raw=true"), "`raw` takes exactly one socket"),
            (format!("a={socket},raw=maybe"), "`raw` is neither"),
            (format!("a={}", path("none")), "cannot open"),
        ] {
            let message = of(&wrong).expect_err("refused").to_string();
            assert!(message.contains(part), "{message}");
        }
        assert!(message(|args| args.ssh = vec!["default".into()]).contains("SSH_AUTH_SOCK is not set"));
    }

    // Rows: B19, B20.
    #[test]
    fn limits_by_name_are_those_of_the_options() {
        let of = |resource: &[&str]| {
            let resource = resource.iter().map(|text| (*text).to_owned()).collect();
            limits(&LimitArgs { resource, memory_swap: Some("-1".into()), ..LimitArgs::default() })
        };
        let found = of(&["memory=16m", "cpu-quota=50000", "cpuset-cpus=0", "pids=9"]).expect("limits");
        assert_eq!(found.pids, Some(9));
        assert_eq!((found.memory, found.memory_swap, found.cpu_quota), (Some(16 << 20), Some(-1), Some(50_000)));
        assert_eq!(found.cpuset_cpus.as_deref(), Some("0"));
        for (wrong, reason) in [
            (&["memory"][..], "expected `LIMIT=VALUE`"),
            (&["memory=1g", "memory=2g"], "this limit is given twice"),
            (&["memory-swap=1g"], "this limit is given twice"),
            (&["cpu-quota=x"], "the value is not a number"),
            (&["gpu=1"], "there is no such limit"),
        ] {
            let message = of(wrong).expect_err("refused").to_string();
            assert!(message.ends_with(reason), "{message}");
        }
    }

    #[test]
    fn limits_that_are_none_and_limits_that_contradict_each_other() {
        let none = LimitArgs {
            memory: Some("0".into()),
            memory_swap: Some("0".into()),
            shm_size: Some("0".into()),
            cpu_quota: Some(-1),
            cpu_shares: Some(0),
            pids_limit: Some(-1),
            ..LimitArgs::default()
        };
        assert_eq!(limits(&none).expect("limits"), Limits::default());
        let refused = |memory: Option<&str>, swap: &str| {
            let args = LimitArgs {
                memory: memory.map(str::to_owned),
                memory_swap: Some(swap.to_owned()),
                ..LimitArgs::default()
            };
            limits(&args).expect_err("refused").to_string()
        };
        assert_eq!(refused(Some("2m"), "1m"), "--memory-swap is less than --memory");
        assert_eq!(refused(None, "1m"), "--memory-swap needs --memory");
        let args = LimitArgs { pids_limit: Some(-5), ..LimitArgs::default() };
        let message = limits(&args).expect_err("refused").to_string();
        assert_eq!(message, "--pids-limit: `-5` is below zero; -1 is no limit");
    }

    #[test]
    fn resolver_hosts_and_privileges() {
        let (options, run) = settled(
            |args| {
                args.dns = vec!["9.9.9.9".into(), "::1".into()];
                args.dns_search = vec!["corp".into()];
                args.security_opt = vec!["no-new-privileges".into()];
                args.no_hosts = true;
            },
            &[],
        )
        .expect("fine");
        assert_eq!(run.dns.apply(""), "nameserver 9.9.9.9\nnameserver ::1\nsearch corp\n");
        assert!(options.no_new_privileges && options.no_hosts);
        assert_eq!(message(|args| args.dns = vec!["x".into()]), "--dns: `x` is not an address");
        assert_eq!(message(|args| args.dns_option = vec!["a b".into()]), "--dns-option: `a b` is not one word");
        let seccomp = message(|args| args.security_opt = vec!["seccomp=unconfined".into()]);
        assert_eq!(seccomp, "--security-opt: `seccomp=unconfined` is not supported");
    }
}

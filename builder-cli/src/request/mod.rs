//! What was typed, the environment and the configuration file become a [`BuildRequest`]: every default and every
//! conflict is settled here.

mod aws;
pub(crate) mod caches;
mod dockerfile;
mod contexts;
mod docker_config;
mod elsewhere;
mod lock;
mod outputs;
mod steps;
mod vcs;
pub(crate) mod values;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use builder_core::build::{BuildRequest, ContextSource, FetchOptions, PullPolicy, RemoteContext};
use builder_core::diagnostic::Diagnostic as _;
use builder_core::graph::{ConfigEdits, NamedContext, NoCache, Options};
use builder_core::oci::{Platform, Reference};
use builder_core::pins::Pins;

use crate::args::{BuildArgs, Call, CallFormat, CheckFormat, EditArgs, PullArg, RefusedArgs, UselessArgs};
use crate::command_error::CommandError;
use crate::config_file::ConfigFile;
use crate::environment::Environment;
use crate::ui::Mode;

pub(crate) use dockerfile::read_file;
pub(crate) use elsewhere::{Bring, Display};
pub(crate) use lock::{Lock, is_same};

use elsewhere::Elsewhere;

type Result<T> = std::result::Result<T, CommandError>;

/// A build, and what the command does around it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Settled {
    /// What the library gets.
    pub(crate) request: BuildRequest,
    /// Build, or only look at the Dockerfile.
    pub(crate) call: Call,
    /// How progress is shown.
    pub(crate) display: Display,
    /// Print the id of the image.
    pub(crate) quiet: bool,
    /// `--verify-cache=N%,strict`
    pub(crate) strict: bool,
    /// `--iidfile`
    pub(crate) iidfile: Option<PathBuf>,
    /// `--iidfile-raw`
    pub(crate) iidfile_raw: Option<PathBuf>,
    /// `--metadata-file`
    pub(crate) metadata_file: Option<PathBuf>,
    /// `BUILDX_METADATA_WARNINGS`: findings are part of it.
    pub(crate) metadata_warnings: bool,
    /// `--all-platforms`: the platforms are found out when the build begins.
    pub(crate) all_platforms: bool,
    /// `--fix`: the Dockerfile that is mended.
    pub(crate) fix: Option<PathBuf>,
    /// The lock file.
    pub(crate) lock: Lock,
    /// What the user should know before the build starts.
    pub(crate) notes: Vec<String>,
    /// What was asked for and cannot be had, before the build starts.
    pub(crate) warnings: Vec<String>,
}

/// Settles everything about a build; reads the Dockerfile and what else files hold that were named.
pub(crate) fn from_args(
    args: BuildArgs,
    environment: &Environment,
    config: &ConfigFile,
    bring: &mut dyn Bring,
) -> Result<Settled> {
    refuse(&args.refused)?;
    let call = call(&args)?;
    for_this_call(&args, call)?;
    let mut notes = useless(&args.useless);
    let tags = references(&args.tag)?;
    let outputs = outputs::settle(&args, &tags, environment)?;
    if outputs.iter().filter(|output| output.is_stdout()).count() > 1 {
        return Err(CommandError::usage("two outputs are written to standard output"));
    }
    let mut context = context(&args, environment)?;
    let (named_contexts, contexts) = contexts::named(&args.build_context, environment)?;
    let context_mode = contexts::mode(args.context_mode, environment, config)?;
    let platforms = platforms(&args, environment)?;
    let mut options = options(&args, &platforms, contexts, environment)?;
    options.all_stages = matches!(call, Call::Check(_) | Call::Lock(_)) && options.target.is_none();
    if let Context::Remote(remote) = &mut context {
        remote.apply(&options.build_args);
    }
    let multi_platform = multi_platform(&options, platforms.len())?;
    let run = steps::settle(&args.steps, &mut options, environment)?;
    let display = display(&args, environment, config)?;
    let secrets = values::secrets(&args.secret, environment)?;
    let limits = steps::limits(&args.limits)?;
    let pull = pull(args.pull);
    let verify_cache = args.verify_cache.as_deref().map(values::share).transpose()?;
    let git_labels = vcs::wanted(environment)?.filter(|_| call == Call::Build);
    let early = lock::named(&args, call, &context, environment)?;
    // Last, when all else is known to be right: it may take long.
    let no_pins = Pins::default();
    let pins = early.as_ref().map_or(&no_pins, |lock| &lock.pins);
    let fetch = FetchOptions { secrets: &secrets, ssh: run.ssh.get("default"), pull, pins };
    let mut elsewhere = Elsewhere { bring, options: fetch, display };
    let loaded = dockerfile::load(args.file.as_deref(), context, environment, &mut elsewhere)?;
    let lock = early.map_or_else(|| lock::beside(&args, call, &loaded), Ok)?;
    let mut warnings = Vec::new();
    notes.extend(lock.is_used(call, display));
    let is_directory = |source: &ContextSource| matches!(source, ContextSource::Directory { .. });
    if args.context_mode.is_some() && !named_contexts.values().chain([&loaded.context]).any(is_directory) {
        notes.push("--context-mode changes nothing: it is about contexts that are directories".to_owned());
    }
    if let (Some(wanted), ContextSource::Directory { path, .. }) = (git_labels, &loaded.context)
        && let Err(reason) = wanted.add(&mut options.labels, path, loaded.file.as_deref())
    {
        warnings.push(format!("labels of BUILDX_GIT_LABELS are missing: {reason}"));
    }
    if args.fix && loaded.file.is_none() {
        return Err(CommandError::usage("--fix changes a file, and the Dockerfile is none here"));
    }
    let fix = loaded.file.clone().filter(|_| args.fix);
    let cache_from = caches::usable("--cache-from", &args.cache_from, environment, &mut warnings)?;
    let cache_to = caches::usable("--cache-to", &args.cache_to, environment, &mut warnings)?;
    let (cache_to, inline_cache) = caches::destinations("--cache-to", &cache_to, environment)?;
    let request = BuildRequest {
        dockerfile: loaded.text,
        context: loaded.context,
        named_contexts,
        context_mode,
        options,
        platforms,
        multi_platform,
        omit_history: args.edits.omit_history,
        pull,
        pins: Arc::clone(&lock.pins),
        secrets,
        limits,
        run,
        tags,
        outputs,
        cache_from: caches::sources("--cache-from", &cache_from, environment)?,
        cache_to,
        inline_cache,
        cache_ttl: values::cache_ttl(&args.cache_ttl)?,
        hashed_secrets: values::hashed_secrets(&args.secret),
        secret_epochs: values::secret_epochs(&args.secret),
        mount_sizes: values::mount_sizes(&args.cache_mount_size, config.mount_sizes()?)?,
        expected_mounts: values::mount_ids(&args.cache_mount_size),
        trace_reads: args.trace_reads,
        cache_reads: args.cache_reads,
        verify_cache: verify_cache.map(|(percent, _)| percent),
        jobs: args.jobs.map(|jobs| jobs as usize).or(config.jobs),
        resolv_conf: std::fs::read("/etc/resolv.conf").ok(),
    };
    Ok(Settled {
        request,
        call,
        display,
        quiet: args.quiet,
        strict: verify_cache.is_some_and(|(_, strict)| strict),
        iidfile: args.iidfile.map(|path| environment.absolute(&path)),
        iidfile_raw: args.iidfile_raw.map(|path| environment.absolute(&path)),
        metadata_file: args.metadata_file.map(|path| environment.absolute(&path)),
        metadata_warnings: environment.get("BUILDX_METADATA_WARNINGS").and_then(values::boolean).unwrap_or(false),
        all_platforms: args.all_platforms,
        fix,
        lock,
        notes,
        warnings,
    })
}

/// Options that only some calls have.
fn for_this_call(args: &BuildArgs, call: Call) -> Result<()> {
    if args.all_platforms && !matches!(call, Call::Build | Call::DryRun { .. } | Call::Probe { .. }) {
        return Err(CommandError::usage("--all-platforms is for builds, dry runs and `cache probe`")
            .with_hint("name a platform with `--platform`"));
    }
    if args.fix && !matches!(call, Call::Check(_)) {
        return Err(CommandError::usage("--fix is for --check"));
    }
    Ok(())
}

fn display(args: &BuildArgs, environment: &Environment, config: &ConfigFile) -> Result<Display> {
    let progress = if args.quiet { Some(Mode::Quiet) } else { args.progress };
    let progress = match progress {
        Some(mode) => mode,
        None => environment_mode(environment)?.or_else(|| config.progress()).unwrap_or_default(),
    };
    Ok(Display {
        mode: progress,
        log_lines: environment.get("BUILDKIT_TTY_LOG_LINES").and_then(|text| text.parse().ok()),
        debug: args.debug,
    })
}

fn pull(given: PullArg) -> PullPolicy {
    match given {
        PullArg::Always => PullPolicy::Always,
        PullArg::Newer => PullPolicy::Newer,
        PullArg::Missing => PullPolicy::Missing,
        PullArg::Never => PullPolicy::Never,
    }
}

/// Where the context is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Context {
    Directory(PathBuf),
    /// `-`
    Stdin,
    Remote(RemoteContext),
}

/// An address as a context, if it is one.
fn remote(text: &str) -> Result<Option<RemoteContext>> {
    RemoteContext::parse(text).map_err(|error| {
        let hint = error.hint();
        let error = CommandError::usage(error.to_string());
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    })
}

fn context(args: &BuildArgs, environment: &Environment) -> Result<Context> {
    if args.context == Path::new("-") {
        if args.file.as_deref() == Some(Path::new("-")) {
            return Err(CommandError::usage("standard input cannot be both the context and the Dockerfile"));
        }
        return Ok(Context::Stdin);
    }
    let path = environment.absolute(&args.context);
    let shown = args.context.display();
    let found = std::fs::metadata(&path);
    if let (Err(_), Some(text)) = (&found, args.context.to_str()) {
        if let Some(remote) = remote(text)? {
            return Ok(Context::Remote(remote));
        }
        if text.contains("://") {
            return Err(CommandError::usage(format!("context `{text}` is of an unknown kind"))
                .with_hint("give a directory, an address with `http://` or `https://`, a git repository, or `-`"));
        }
    }
    match found {
        Ok(found) if found.is_dir() => Ok(Context::Directory(path)),
        Ok(_) => Err(CommandError::failed(format!("context `{shown}` is not a directory")).with_hint(format!(
            "a Dockerfile is given with `--file`: `rbuild -f {shown} .`; an archive is sent: `rbuild - < {shown}`"
        ))),
        Err(error) => {
            let error = CommandError::io(&format!("cannot open context `{shown}`"), &error);
            Err(match args.context.to_str().and_then(crate::args::nearest_command) {
                Some(command) => error.with_hint(format!("did you mean `rbuild {command}`?")),
                None => error,
            })
        }
    }
}

fn options(
    args: &BuildArgs,
    platforms: &[Platform],
    contexts: BTreeMap<String, NamedContext>,
    environment: &Environment,
) -> Result<Options> {
    let mut options = Options::new(platforms.first().cloned().unwrap_or_else(Platform::host));
    options.explicit_platform = !platforms.is_empty();
    options.target.clone_from(&args.target);
    options.build_args = build_args(args, environment)?;
    for label in &args.label {
        let (key, value) = label.split_once('=').unwrap_or((label, ""));
        if key.is_empty() {
            return Err(CommandError::usage(format!("label `{label}` has no key")));
        }
        options.labels.insert(key.to_owned(), value.to_owned());
    }
    options.first_base.clone_from(&args.edits.from);
    options.edits = edits(&args.edits, environment)?;
    options.contexts = contexts;
    options.no_cache = match (args.no_cache, args.no_cache_filter.is_empty()) {
        (true, true) => NoCache::Always,
        (true, false) => return Err(CommandError::usage("--no-cache and --no-cache-filter exclude each other")),
        (false, true) => NoCache::Never,
        (false, false) => NoCache::Stages(args.no_cache_filter.iter().map(|name| name.to_lowercase()).collect()),
    };
    Ok(options)
}

/// `--env` and its like.
fn edits(args: &EditArgs, environment: &Environment) -> Result<ConfigEdits> {
    let mut env = BTreeMap::new();
    for text in &args.env {
        build_arg(text, environment, &mut env)?;
    }
    Ok(ConfigEdits {
        env: env.into_iter().collect(),
        unset_env: args.unsetenv.clone(),
        unset_labels: args.unsetlabel.clone(),
        drop_labels: !args.inherit_labels,
    })
}

/// The platforms that were asked for, each once.
fn platforms(args: &BuildArgs, environment: &Environment) -> Result<Vec<Platform>> {
    let default = environment.get("DOCKER_DEFAULT_PLATFORM").map(str::to_owned);
    if args.all_platforms {
        return Ok(Vec::new());
    }
    let given: Vec<_> = if args.platform.is_empty() { default.into_iter().collect() } else { args.platform.clone() };
    let mut platforms = Vec::new();
    for text in given {
        let platform = values::platform(&text)?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// `BUILDKIT_MULTI_PLATFORM`
fn multi_platform(options: &Options, platforms: usize) -> Result<Option<bool>> {
    let Some(text) = options.build_args.get("BUILDKIT_MULTI_PLATFORM").filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match values::boolean(text) {
        Some(false) if platforms > 1 => {
            Err(CommandError::usage("BUILDKIT_MULTI_PLATFORM is `false`, and several platforms are asked for"))
        }
        Some(wanted) => Ok(Some(wanted)),
        None => Err(CommandError::usage(format!("BUILDKIT_MULTI_PLATFORM is `{text}`, which is not true or false"))),
    }
}

/// Files first, then the command line, then docker's proxies where nothing else was said.
fn build_args(args: &BuildArgs, environment: &Environment) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for file in &args.build_arg_file {
        let text = values::text_file(&environment.absolute(file), "build argument file")?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            build_arg(line, environment, &mut all)?;
        }
    }
    for text in &args.build_arg {
        build_arg(text, environment, &mut all)?;
    }
    for (name, value) in docker_config::proxies(environment) {
        all.entry(name).or_insert(value);
    }
    // buildx hands this one on although nobody asked.
    let epoch = args.source_date_epoch.as_deref().or_else(|| environment.get("SOURCE_DATE_EPOCH"));
    if let Some(epoch) = epoch {
        all.entry("SOURCE_DATE_EPOCH".to_owned()).or_insert_with(|| epoch.to_owned());
    }
    Ok(all)
}

fn build_arg(text: &str, environment: &Environment, all: &mut BTreeMap<String, String>) -> Result<()> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, environment.lookup(text).and_then(OsStr::to_str).map(str::to_owned)),
    };
    if name.is_empty() {
        return Err(CommandError::usage(format!("build argument `{text}` has no name")));
    }
    // Without a value here or in the environment it is not set, as in docker.
    if let Some(value) = value {
        all.insert(name.to_owned(), value);
    }
    Ok(())
}

fn references(names: &[String]) -> Result<Vec<Reference>> {
    let mut tags: Vec<Reference> = Vec::new();
    for name in names {
        let tag = values::reference(name)?;
        if tag.digest().is_some() {
            return Err(CommandError::usage(format!("`{name}` has a digest; an image is tagged by name")));
        }
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    Ok(tags)
}

fn environment_mode(environment: &Environment) -> Result<Option<Mode>> {
    let Some(text) = environment.get("BUILDKIT_PROGRESS") else { return Ok(None) };
    <Mode as clap::ValueEnum>::from_str(text, false).map(Some).map_err(|_| {
        CommandError::usage(format!("BUILDKIT_PROGRESS is `{text}`, which is not a progress mode"))
            .with_hint("the modes are auto, tty, plain, quiet, rawjson")
    })
}

fn call(args: &BuildArgs) -> Result<Call> {
    let (method, option) = args.call.split_once(',').map_or((args.call.as_str(), None), |(m, o)| (m, Some(o)));
    let written = match option {
        None => None,
        Some("format=text") => Some(CallFormat::Text),
        Some("format=json") => Some(CallFormat::Json),
        Some("format=sarif") => Some(CallFormat::Sarif),
        Some(option) => return Err(CommandError::usage(format!("`{option}` is not an option of --call"))),
    };
    if written.is_some() && args.format.is_some() {
        return Err(CommandError::usage("the format is given twice, by --call and by --format"));
    }
    let format = args.format.or(written);
    if let Some(action) = args.lock_action {
        let plain = method == "build" && !args.check && !args.dry_run && format.is_none();
        let reason = "`rbuild lock` is no build: --check, --call, --dry-run and --format are not for it";
        return if plain { Ok(Call::Lock(action)) } else { Err(CommandError::usage(reason)) };
    }
    if let Some(json) = args.probe {
        let plain = method == "build" && !args.check && !args.dry_run;
        return match format {
            None | Some(CallFormat::Text) if plain => Ok(Call::Probe { json }),
            Some(CallFormat::Json) if plain => Ok(Call::Probe { json: true }),
            _ => Err(CommandError::usage(
                "`cache probe` is no build: --check, --call, --dry-run and SARIF are not for it",
            )),
        };
    }
    if args.dry_run && args.check {
        return Err(CommandError::usage("--dry-run and --check exclude each other"));
    }
    let is_check = matches!(method, "check" | "lint") || (method == "build" && args.check);
    if is_check {
        return Ok(Call::Check(match format {
            None | Some(CallFormat::Text) => CheckFormat::Text,
            Some(CallFormat::Sarif) => CheckFormat::Sarif,
            Some(CallFormat::Json) if written.is_some() => CheckFormat::Buildx,
            Some(CallFormat::Json) => CheckFormat::Json,
        }));
    }
    if format == Some(CallFormat::Sarif) {
        return Err(CommandError::usage("only a check has findings for the format sarif"));
    }
    let json = format == Some(CallFormat::Json);
    if args.dry_run {
        return match method {
            "build" => Ok(Call::DryRun { json }),
            _ => Err(CommandError::usage("--dry-run and --call exclude each other")),
        };
    }
    match method {
        "build" if format.is_some() => Err(CommandError::usage(
            "--format is about the result of --check, --call and --dry-run, and a build has none",
        )),
        "build" => Ok(Call::Build),
        "targets" => Ok(Call::Targets { json }),
        "outline" => Ok(Call::Outline { json }),
        "subrequests.describe" => Ok(Call::Describe { json }),
        _ => Err(CommandError::usage(format!("unknown method `{method}` of --call"))
            .with_hint("the methods are build, check, outline, targets, subrequests.describe")),
    }
}

fn useless(args: &UselessArgs) -> Vec<String> {
    let flags = [
        (args.rm, "--rm", "steps leave no containers behind"),
        (args.force_rm, "--force-rm", "steps leave no containers behind"),
        (args.compress, "--compress", "the context is read in place"),
        (args.layers, "--layers", "steps are always cached"),
        (args.no_hostname, "--no-hostname", "steps have no /etc/hostname but that of the image"),
        (args.builder.is_some(), "--builder", "there is no daemon to choose"),
    ];
    flags.iter().filter(|(given, ..)| *given).map(|(_, flag, why)| format!("{flag} changes nothing: {why}")).collect()
}

fn refuse(args: &RefusedArgs) -> Result<()> {
    let asked = |value: &Option<String>| value.as_deref().is_some_and(|value| value != "false");
    let flags = [
        (!args.attest.is_empty(), "--attest", "leave the flag out, and attest the pushed image with another tool"),
        (asked(&args.provenance), "--provenance", "leave the flag out, and attest the pushed image with another tool"),
        (asked(&args.sbom), "--sbom", "leave the flag out, and scan the image with another tool"),
        (!args.policy.is_empty(), "--policy", "pin base images by digest in the Dockerfile"),
        (args.isolation.as_deref().is_some_and(|value| value != "default"), "--isolation", "leave the flag out"),
        (args.squash, "--squash", "copy the result into a last stage: `FROM scratch` and `COPY --from=... / /`"),
    ];
    match flags.iter().find(|(given, ..)| *given) {
        Some((_, flag, instead)) => Err(CommandError::usage(format!("{flag} is not supported")).with_hint(*instead)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;

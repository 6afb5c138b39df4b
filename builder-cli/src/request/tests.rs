//! The command line as a request.

use builder_core::build::FetchedContext;
use builder_core::diagnostic::Source;

use super::*;
use crate::args::Command;

/// Settles `rbuild build OPTIONS DIRECTORY` for a directory with a Dockerfile.
fn settle(options: &[&str], variables: &[(&str, &str)]) -> Result<Settled> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(directory.path().join("Dockerfile"), "FROM scratch\n").expect("written");
    let context = directory.path().to_str().expect("text");
    let line = ["rbuild", "build"].iter().chain(options).chain([&context]).copied();
    let cli = crate::args::parse(line).expect("well-formed arguments");
    let Command::Build(args) = cli.command else { panic!("a build") };
    from_args(*args, &Environment::with(variables), &ConfigFile::default(), &mut Nothing)
}

/// Nothing is elsewhere.
struct Nothing;

impl Bring for Nothing {
    fn context(&mut self, remote: &RemoteContext, _: FetchOptions<'_>, _: Display) -> Result<FetchedContext> {
        Err(CommandError::failed(format!("no {remote}")))
    }

    fn archive(&mut self, _: Vec<u8>, _: Display) -> Result<FetchedContext> {
        Err(CommandError::failed("no archive"))
    }

    fn dockerfile(&mut self, address: &str, _: FetchOptions<'_>, _: Display) -> Result<Source> {
        Err(CommandError::failed(format!("no {address}")))
    }
}

fn error(options: &[&str]) -> String {
    settle(options, &[]).expect_err("refused").to_string()
}

#[test]
fn without_options_the_result_goes_to_the_store() {
    let settled = settle(&["-t", "app:1.0"], &[]).expect("valid");
    assert_eq!(settled.request.outputs, [builder_core::export::Output::store(settled.request.tags.clone())]);
    assert_eq!(settled.display.mode, Mode::Auto);
    assert_eq!(settled.call, Call::Build);
}

// Rows: B13.
#[test]
fn of_an_option_for_one_value_the_last_counts() {
    let options = ["--progress=tty", "--progress=plain", "--network", "host", "--network=none", "-q", "-q=false"];
    let settled = settle(&[&options[..], &["-t", "a:1", "-t", "b:1", "--print=check", "--call=build"]].concat(), &[]);
    let settled = settled.expect("fine");
    assert_eq!((settled.display.mode, settled.quiet, settled.call), (Mode::Plain, false, Call::Build));
    assert_eq!(settled.request.tags.len(), 2);
    let hosts = settle(&["--add-host", "a:1.2.3.4,b=::1", "--add-host=c:host-gateway"], &[]).expect("fine");
    assert_eq!(hosts.request.options.add_hosts.len(), 3);
    assert!(error(&["--all-platforms", "--check"]).contains("is for builds"));
}

#[test]
fn push_and_load_are_outputs_and_join() {
    let kinds = |options: &[&str]| {
        let outputs = settle(options, &[]).expect("valid").request.outputs;
        outputs.iter().map(builder_core::export::Output::kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&["-t", "r.io/a", "--push"]), ["registry"]);
    assert_eq!(kinds(&["-t", "r.io/a", "--push", "--load"]), ["image"]);
    assert_eq!(kinds(&["-o", "out", "--load"]), ["local", "image"]);
    assert_eq!(kinds(&["-o", "type=oci,dest=x.tar", "-o", "-"]), ["oci", "tar"]);
    assert_eq!(kinds(&["--push=false"]), ["image"]);
}

// Rows: A55, B5.
#[test]
fn values_come_from_where_docker_takes_them() {
    let variables =
        [("FROM_ENV", "1"), ("SOURCE_DATE_EPOCH", "17"), ("BUILDKIT_PROGRESS", "plain"), ("HTTP_PROXY", "x")];
    let settled = settle(&["--build-arg", "FROM_ENV", "--build-arg", "A=b=c", "--build-arg", "UNSET"], &variables)
        .expect("valid");
    let args: Vec<_> = settled.request.options.build_args.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(args, [("A", "b=c"), ("FROM_ENV", "1"), ("SOURCE_DATE_EPOCH", "17")]);
    assert_eq!(settled.display.mode, Mode::Plain);
    let settled = settle(&["--progress=tty", "-q"], &variables).expect("valid");
    assert_eq!(settled.display.mode, Mode::Quiet);
}

#[test]
fn conflicts_and_bad_values_are_errors() {
    for (options, expected) in [
        (&["--no-cache", "--no-cache-filter", "a"][..], "--no-cache and --no-cache-filter exclude each other"),
        (&["-t", "App"], "invalid reference `App`: the repository name must be lowercase"),
        (&["--push"], "an image needs a name to be pushed"),
        (&["-o", "-", "-o", "type=tar,dest=-"], "two outputs are written to standard output"),
        (&["--cache-from", "type=x"], "--cache-from `type=x`: unknown cache type `x`"),
        (&["--provenance"], "--provenance is not supported"),
        (&["--memory", "x"], "--memory: `x` is not a size"),
        (&["--call", "x"], "unknown method `x` of --call"),
        (&["--label", "=x"], "label `=x` has no key"),
        (&["--build-context", "x"], "build context `x` is not of the form `NAME=VALUE`"),
    ] {
        assert_eq!(error(options), expected, "{options:?}");
    }
    assert!(settle(&["--provenance=false", "--sbom=false"], &[]).is_ok());
    assert!(settle(&[], &[("BUILDKIT_PROGRESS", "x")]).is_err());
}

#[test]
fn flags_without_effect_say_so() {
    let settled = settle(&["--force-rm", "--builder", "x"], &[]).expect("valid");
    assert_eq!(settled.notes.len(), 2);
    assert!(settle(&["--rm=false"], &[]).expect("valid").notes.is_empty());
}

#[test]
fn caches_of_github_are_left_out_where_no_job_of_it_runs() {
    let options = ["--cache-from", "type=gha,scope=a", "--cache-to", "type=gha", "--cache-to", "type=inline"];
    let settled = settle(&options, &[]).expect("a warning each");
    assert_eq!((settled.warnings.len(), settled.request.cache_from.len(), settled.request.cache_to.len()), (2, 0, 0));
    assert!(settled.request.inline_cache);
    let job = [("ACTIONS_RESULTS_URL", "http://h/"), ("ACTIONS_RUNTIME_TOKEN", "t")];
    let settled = settle(&options, &job).expect("valid");
    assert_eq!((settled.warnings.len(), settled.request.cache_from.len(), settled.request.cache_to.len()), (0, 1, 1));
    assert!(settle(&["--cache-to", "type=gha,mod=max"], &job).is_err());
}

#[test]
fn ignore_files_are_tried_in_buildkits_order() {
    let ignore_files = dockerfile::ignore_files;
    let found = ignore_files(Some(Path::new("/x/app.Dockerfile")), Path::new("/c"));
    let expected = ["/x/app.Dockerfile.dockerignore", "/c/.dockerignore", "/c/.containerignore"];
    assert_eq!(found, expected.map(PathBuf::from));
    assert_eq!(ignore_files(None, Path::new("/c")).len(), 2);
}

//! Values of options, as docker writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use builder_core::build::{CacheTtl, SecretSource, Space};
use builder_core::executor::Ulimit;
use builder_core::oci::{Platform, Reference};

use super::Result;
use crate::command_error::CommandError;
use crate::environment::Environment;
use crate::ui::units;

/// The largest file with build arguments that is read.
const MAX_TEXT: u64 = 16 << 20;

/// The name of an image.
pub(crate) fn reference(text: &str) -> Result<Reference> {
    text.parse::<Reference>().map_err(|error| CommandError::usage(error.to_string()))
}

/// A platform; `local` is that of this machine.
pub(crate) fn platform(text: &str) -> Result<Platform> {
    if text == "local" {
        return Ok(Platform::host());
    }
    text.parse::<Platform>().map_err(|error| CommandError::usage(error.to_string()))
}

/// A truth value, as Go's `strconv.ParseBool` reads it.
pub(crate) fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A number of bytes in powers of 1024: `64m`, `1.5g`, `2GiB` (github.com/docker/go-units).
pub(crate) fn bytes(option: &str, text: &str) -> Result<u64> {
    let wrong = || {
        CommandError::usage(format!("{option}: `{text}` is not a size"))
            .with_hint("a size is a number with a unit: `512k`, `64m`, `2g`")
    };
    let lower = text.to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let power = match unit.trim_start().trim_end_matches('b').trim_end_matches('i') {
        "" if !unit.contains('i') => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(wrong()),
    };
    let factor = 1u64 << (10 * power);
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor).ok_or_else(wrong);
    }
    let value = number.parse::<f64>().map_err(|_| wrong())?;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a fraction of a unit is not exact; the digits admit no sign"
    )]
    let bytes = (value * factor as f64) as u64;
    Ok(bytes)
}

/// Bytes, or hundredths of the disk: `20%`.
pub(crate) fn space(option: &str, text: &str) -> Result<Space> {
    match text.strip_suffix('%') {
        None => bytes(option, text).map(Space::Bytes),
        Some(percent) => match percent.parse() {
            Ok(percent @ 0..=100) => Ok(Space::Percent(percent)),
            _ => Err(CommandError::usage(format!("{option}: `{text}` is not between 0% and 100%"))),
        },
    }
}

/// A duration: `48h`, `60d`.
pub(crate) fn keep(option: &str, text: &str) -> Result<Duration> {
    units::go_duration(text).ok_or_else(|| {
        CommandError::usage(format!("{option}: `{text}` is not a duration")).with_hint("write `48h`, `1h30m` or `60d`")
    })
}

/// `HOST:ADDRESS`, `HOST=ADDRESS`, with brackets around IPv6, or `host-gateway`.
pub(crate) fn host(text: &str) -> Result<(String, String)> {
    let wrong = |reason: &str| CommandError::usage(format!("--add-host `{text}`: {reason}"));
    let (name, address) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(|| wrong("expected `HOST:ADDRESS`"))?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)) {
        return Err(wrong("the host name is not valid"));
    }
    if address == "host-gateway" {
        // What that is depends on the network of the step.
        return Ok((name.to_owned(), address.to_owned()));
    }
    let bare = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    let address: IpAddr = bare.parse().map_err(|_| wrong("the address is not valid"))?;
    Ok((name.to_owned(), address.to_string()))
}

/// `--ulimit`
pub(crate) fn ulimits(given: &[String]) -> Result<Vec<Ulimit>> {
    given.iter().map(|text| text.parse().map_err(|error| CommandError::usage(format!("--ulimit: {error}")))).collect()
}

/// `--cache-ttl [STAGE=]DURATION`
pub(super) fn cache_ttl(given: &[String]) -> Result<CacheTtl> {
    let mut ttl = CacheTtl::default();
    for text in given {
        match text.split_once('=') {
            Some((stage, time)) => {
                ttl.stages.insert(stage.to_ascii_lowercase(), keep("--cache-ttl", time)?);
            }
            None => ttl.all = Some(keep("--cache-ttl", text)?),
        }
    }
    Ok(ttl)
}

/// `--cache-mount-size ID=SIZE` over what the configuration says; 0 is no limit.
pub(super) fn mount_sizes(given: &[String], config: BTreeMap<String, u64>) -> Result<BTreeMap<String, u64>> {
    let mut sizes = config;
    for text in given {
        let (id, size) = text.rsplit_once('=').filter(|(id, _)| !id.is_empty()).ok_or_else(|| {
            CommandError::usage(format!("--cache-mount-size: `{text}` is not `ID=SIZE`"))
                .with_hint("`rbuild cache mounts ls` shows the ids")
        })?;
        sizes.insert(id.to_owned(), bytes("--cache-mount-size", size)?);
    }
    sizes.retain(|_, size| *size > 0);
    Ok(sizes)
}

/// The ids of `--cache-mount-size`, whose texts are right.
pub(super) fn mount_ids(given: &[String]) -> BTreeSet<String> {
    given.iter().filter_map(|text| Some(text.rsplit_once('=')?.0.to_owned())).collect()
}

/// What `--secret …,KEY=VALUE`, whose texts are right, says, by id. Of two with one id the last counts.
fn of_secrets(given: &[String], key: &str) -> BTreeMap<String, Option<String>> {
    let field = |text: &str, wanted: &str| {
        let mut pairs = text.split(',').filter_map(|field| field.split_once('='));
        pairs.rfind(|(key, _)| key.trim().eq_ignore_ascii_case(wanted)).map(|(_, value)| value.to_owned())
    };
    given.iter().filter_map(|text| Some((field(text, "id")?, field(text, key)))).collect()
}

/// The ids of `--secret …,cache=hash`.
pub(super) fn hashed_secrets(given: &[String]) -> BTreeSet<String> {
    let hashed = of_secrets(given, "cache").into_iter().filter(|(_, cache)| cache.as_deref() == Some("hash"));
    hashed.map(|(id, _)| id).collect()
}

/// The words of `--secret …,epoch=WORD`, by id.
pub(super) fn secret_epochs(given: &[String]) -> BTreeMap<String, String> {
    of_secrets(given, "epoch").into_iter().filter_map(|(id, epoch)| Some((id, epoch?))).collect()
}

/// `--secret id=NAME[,src=FILE|env=VARIABLE][,type=file|env][,cache=hash][,epoch=WORD]`, by id.
pub(super) fn secrets(given: &[String], environment: &Environment) -> Result<BTreeMap<String, SecretSource>> {
    let mut secrets = BTreeMap::new();
    for text in given {
        let (id, source) = secret(text, environment)?;
        secrets.insert(id, source);
    }
    Ok(secrets)
}

fn secret(text: &str, environment: &Environment) -> Result<(String, SecretSource)> {
    let wrong = |reason: String| {
        CommandError::usage(format!("--secret `{text}`: {reason}"))
            .with_hint("write `id=NAME,src=FILE` or `id=NAME,env=VARIABLE`")
    };
    let (mut id, mut file, mut variable, mut kind, mut cache, mut epoch) = (None, None, None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field.split_once('=').ok_or_else(|| wrong(format!("`{field}` has no `=`")))?;
        let slot = match key.trim().to_ascii_lowercase().as_str() {
            "id" => &mut id,
            "src" | "source" => &mut file,
            "env" => &mut variable,
            "type" => &mut kind,
            "cache" => &mut cache,
            "epoch" => &mut epoch,
            _ => return Err(wrong(format!("unknown key `{key}`"))),
        };
        *slot = Some(value);
    }
    let id = id.filter(|id| !id.is_empty()).ok_or_else(|| wrong("it has no `id`".to_owned()))?;
    if kind.is_some_and(|kind| kind != "file" && kind != "env") {
        return Err(wrong("its `type` is neither `file` nor `env`".to_owned()));
    }
    if cache.is_some_and(|cache| cache != "hash" && cache != "ignore") {
        return Err(wrong("its `cache` is neither `hash` nor `ignore`".to_owned()));
    }
    if epoch.is_some_and(str::is_empty) {
        return Err(wrong("its `epoch` is empty".to_owned()));
    }
    if file.is_some() && variable.is_some() {
        return Err(wrong("it has both `src` and `env`".to_owned()));
    }
    // As buildx: `type=env,src=X` is a variable; with the id alone a variable of that name wins over a file.
    let variable = match (kind, file, variable) {
        (Some("env"), file, variable) => Some(variable.or(file).unwrap_or(id)),
        (None, None, None) if environment.lookup(id).is_some() => Some(id),
        (_, _, variable) => variable,
    };
    if let Some(name) = variable {
        let value = environment.lookup(name).ok_or_else(|| wrong(format!("variable `{name}` is not set")))?;
        return Ok((id.to_owned(), SecretSource::Value(value.as_encoded_bytes().to_vec())));
    }
    let path = file_path(file.unwrap_or(id), environment);
    if let Err(error) = std::fs::metadata(&path) {
        return Err(CommandError::io(&format!("secret `{id}`: cannot read `{}`", path.display()), &error));
    }
    Ok((id.to_owned(), SecretSource::File(path)))
}

/// A path on the command line; `~/` inside a value is not expanded by the shell.
fn file_path(text: &str, environment: &Environment) -> PathBuf {
    match text.strip_prefix("~/").and_then(|rest| Some(environment.home()?.join(rest))) {
        Some(path) => path,
        None => environment.absolute(Path::new(text)),
    }
}

/// A whole text file of the user.
pub(crate) fn text_file(path: &Path, what: &str) -> Result<String> {
    let fail = |error: &std::io::Error| CommandError::io(&format!("cannot read {what} `{}`", path.display()), error);
    let found = std::fs::metadata(path).map_err(|error| fail(&error))?;
    if !found.is_file() || found.len() > MAX_TEXT {
        return Err(CommandError::failed(format!("{what} `{}` is not a small regular file", path.display())));
    }
    std::fs::read_to_string(path).map_err(|error| fail(&error))
}

/// `--verify-cache`: `10%`, `10`, `10%,strict`.
pub(crate) fn share(text: &str) -> Result<(u8, bool)> {
    let (number, strict) = match text.split_once(',') {
        Some((number, "strict")) => (number, true),
        _ => (text, false),
    };
    let percent = number.strip_suffix('%').unwrap_or(number).parse::<u8>().ok().filter(|percent| *percent <= 100);
    percent.map(|percent| (percent, strict)).ok_or_else(|| {
        CommandError::usage(format!("`{text}` is not a share for --verify-cache"))
            .with_hint("write a percentage from 0 to 100, as `10%` or `100%,strict`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, expected) in [
            ("64m", Some(64 << 20)),
            ("1g", Some(1 << 30)),
            ("1.5k", Some(1536)),
            ("2GiB", Some(2 << 30)),
            ("10b", Some(10)),
            ("10", Some(10)),
            ("1 mb", Some(1 << 20)),
            ("", None),
            ("m", None),
            ("-1", None),
            ("1x", None),
            ("1.2.3m", None),
            ("99999999999999999999", None),
            ("99999999p", None),
        ] {
            let found = bytes("--memory", text).ok();
            // The largest float is not an error but the largest number of bytes.
            assert_eq!(found.filter(|bytes| *bytes != u64::MAX), expected, "{text}");
        }
    }

    // Rows: B17.
    #[test]
    fn hosts_have_a_name_and_an_address() {
        for (text, expected) in [
            ("db:10.0.0.1", Some(("db", "10.0.0.1"))),
            ("db=10.0.0.1", Some(("db", "10.0.0.1"))),
            ("db:[::1]", Some(("db", "::1"))),
            ("db:::1", Some(("db", "::1"))),
            ("db=::1", Some(("db", "::1"))),
            ("db:host-gateway", Some(("db", "host-gateway"))),
            ("db", None),
            ("db:x", None),
            (":1.2.3.4", None),
            ("a b:1.2.3.4", None),
            ("a\nb:1.2.3.4", None),
        ] {
            let found = host(text).ok();
            assert_eq!(found.as_ref().map(|(name, address)| (name.as_str(), address.as_str())), expected, "{text}");
        }
    }

    // Rows: B14.
    #[test]
    fn secrets_come_from_files_or_variables() {
        let environment = Environment::with(&[("TOKEN", "t0p"), ("EMPTY", "")]);
        let check = |text: &str, expected: std::result::Result<(&str, SecretSource), &str>| {
            let found = secret(text, &environment).map_err(|error| error.to_string());
            let expected = expected
                .map(|(id, source)| (id.to_owned(), source))
                .map_err(|reason| format!("--secret `{text}`: {reason}"));
            assert_eq!(found, expected, "{text}");
        };
        let value = |text: &str| SecretSource::Value(text.as_bytes().to_vec());
        check("id=a,env=TOKEN", Ok(("a", value("t0p"))));
        check("id=TOKEN", Ok(("TOKEN", value("t0p"))));
        check("id=a,type=env,src=TOKEN", Ok(("a", value("t0p"))));
        check("id=a,env=EMPTY", Ok(("a", value(""))));
        check("id=a,src=/dev/null", Ok(("a", SecretSource::File("/dev/null".into()))));
        check("id=TOKEN,src=/dev/null", Ok(("TOKEN", SecretSource::File("/dev/null".into()))));
        check("id=a,env=NOPE", Err("variable `NOPE` is not set"));
        check("src=x", Err("it has no `id`"));
        check("id=a,foo=b", Err("unknown key `foo`"));
        check("id=a,src=x,env=y", Err("it has both `src` and `env`"));
        check("id", Err("`id` has no `=`"));
    }
}

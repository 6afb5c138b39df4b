//! [`Mount`]: the value of `RUN --mount=…`.

use std::borrow::Cow;

use super::expand::Lookup;
use super::{Device, ExpandError, Expander, Text, Word};
use crate::diagnostic::{Diagnostic, Span, nearest};

/// One mount of a `RUN`, variables expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it appears; relative paths are under WORKDIR. `None` is the WORKDIR itself, but the default place of a
    /// secret and of an ssh socket, and nowhere for a secret that is an environment variable.
    pub target: Option<String>,
    /// What appears there.
    pub kind: MountKind,
}

/// The types of mounts with their options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A directory or file of the context, a stage or an image.
    Bind {
        /// Stage, image or named context; the build context if `None`.
        from: Option<String>,
        /// Path in it.
        source: Option<String>,
        /// Writes are allowed, and dropped after the step.
        writable: bool,
    },
    /// A directory that lives across builds.
    Cache {
        /// Its name; the cleaned target if `None`.
        id: Option<String>,
        /// What an empty cache begins as: stage, image or named context.
        from: Option<String>,
        /// Path in `from`.
        source: Option<String>,
        /// What concurrent steps do.
        sharing: Sharing,
        /// No writes.
        read_only: bool,
        /// Of the new directory.
        ownership: Ownership,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Limit in bytes.
        size: Option<u64>,
    },
    /// A secret as a file, or as an environment variable.
    Secret {
        /// Its name; from `id`, `source` or the base name of the target.
        id: String,
        /// The environment variable that holds it; then there is a file only if there is a target.
        env: Option<String>,
        /// Missing is an error.
        required: bool,
        /// Of the file.
        ownership: Ownership,
    },
    /// An ssh agent's socket.
    Ssh {
        /// Its name (`default`).
        id: String,
        /// Missing is an error.
        required: bool,
        /// Of the socket.
        ownership: Ownership,
    },
}

/// `mode`, `uid` and `gid` where they were given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ownership {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// `sharing=` of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sharing {
    /// Any number of steps at once.
    #[default]
    Shared,
    /// A step that finds it in use gets another one.
    Private,
    /// A step that finds it in use waits.
    Locked,
}

/// Why a `--mount` value is not a mount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// A variable in it could not be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
    /// It is not a list of comma-separated values: a quote is open or stands inside a field.
    #[error("failed to parse csv mounts: `{0}`")]
    Csv(String),
    /// The type is none of the five.
    #[error("unsupported mount type `{0}`")]
    Type(String),
    /// No mount has this key.
    #[error("unexpected key `{key}` in `{field}`")]
    Key {
        /// In lower case.
        key: String,
        /// The whole field.
        field: String,
    },
    /// This type of mount does not have this key.
    #[error("unexpected key `{key}` for mount type `{kind}`")]
    KeyOfOtherType {
        /// The key.
        key: &'static str,
        /// The type.
        kind: &'static str,
    },
    /// A key that needs a value has none.
    #[error("invalid field `{0}` must be a key=value pair")]
    NoValue(String),
    /// A value that the key does not take.
    #[error("invalid value for {key}: `{value}`")]
    Value {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// `from=$x`
    #[error("`from` doesn't support variable expansion, define alias stage instead")]
    FromVariable,
    /// A secret without a name.
    #[error("invalid secret mount: one of id, source or target is required")]
    NoSecret,
    /// Two names for a secret.
    #[error("both source and id can't be set")]
    TwoNames,
}

const KEYS: [&str; 18] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "id",
    "sharing",
    "required",
    "mode",
    "uid",
    "gid",
    "size",
];

impl Diagnostic for MountError {
    fn hint(&self) -> Option<String> {
        let word = match self {
            Self::Type(kind) => nearest(kind, ["bind", "cache", "tmpfs", "secret", "ssh"])?,
            Self::Key { key, .. } => nearest(key, KEYS.into_iter().chain(["env"]))?,
            Self::Value { key: "sharing", value } => nearest(value, ["shared", "private", "locked"])?,
            _ => return None,
        };
        Some(format!("did you mean `{word}`?"))
    }
}

/// All keys as given, before the type decides which of them make sense.
#[derive(Default)]
struct Fields {
    kind: Kind,
    from: Option<String>,
    source: Option<String>,
    target: Option<String>,
    id: Option<String>,
    env: Option<String>,
    sharing: Option<Sharing>,
    read_only: Option<bool>,
    required: bool,
    size: Option<u64>,
    ownership: Ownership,
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

impl Mount {
    /// Parses a value without variables: `type=bind,source=src,target=/src`.
    ///
    /// # Errors
    /// [`MountError`] says which key or value is wrong.
    pub fn parse(value: &str) -> Result<Self, MountError> {
        Self::from_fields(value, &|value| Ok(value.to_owned()))
    }

    /// Parses a value and expands the variables in each field. `from` may not hold any.
    ///
    /// # Errors
    /// As [`Mount::parse`], and [`MountError::Expand`].
    pub fn expand(value: &str, expander: &Expander, lookup: Lookup<'_>) -> Result<Self, MountError> {
        Self::from_fields(value, &|value| Ok(expander.word(value, lookup)?.text))
    }

    /// What `from=` names, without looking at the other keys: variables in them have no values yet.
    pub fn source_name(value: &str) -> Option<String> {
        let fields = csv_fields(value)?;
        let field = |key: &str| {
            let pairs = fields.iter().filter_map(|field| field.split_once('='));
            pairs.filter(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value).next_back()
        };
        let is_memory = field("type").is_some_and(|kind| kind.eq_ignore_ascii_case("tmpfs"));
        field("from").filter(|name| !name.is_empty() && !is_memory).map(str::to_owned)
    }

    /// Checks what can be checked before variables have values: everything if there are none.
    pub(super) fn check(value: &str) -> Result<(), MountError> {
        if !value.contains(['$', '\\', '`', '\'']) {
            return Self::parse(value).map(|_| ());
        }
        for field in csv_fields(value).ok_or_else(|| MountError::Csv(value.to_owned()))? {
            check_from(&field)?;
        }
        Ok(())
    }

    fn from_fields(value: &str, expand: &dyn Fn(&str) -> Result<String, MountError>) -> Result<Self, MountError> {
        let mut fields = Fields::default();
        for field in csv_fields(value).ok_or_else(|| MountError::Csv(value.to_owned()))? {
            check_from(&field)?;
            match field.split_once('=') {
                Some((key, value)) => fields.set(key, expand(value)?, &field)?,
                None => fields.set_bare(&field)?,
            }
        }
        fields.finish()
    }
}

fn check_from(field: &str) -> Result<(), MountError> {
    let variable = |value: &str| value.find('$').is_some_and(|at| at + 1 < value.len());
    match field.split_once('=') {
        Some((key, value)) if key.eq_ignore_ascii_case("from") && variable(value) => Err(MountError::FromVariable),
        _ => Ok(()),
    }
}

impl Fields {
    fn set_bare(&mut self, field: &str) -> Result<(), MountError> {
        match field.to_ascii_lowercase().as_str() {
            "readonly" | "ro" => self.read_only = Some(true),
            "readwrite" | "rw" => self.read_only = Some(false),
            "required" => self.set_required(true)?,
            _ => return Err(MountError::NoValue(field.to_owned())),
        }
        Ok(())
    }

    fn set_required(&mut self, required: bool) -> Result<(), MountError> {
        if !matches!(self.kind, Kind::Secret | Kind::Ssh) {
            return Err(MountError::KeyOfOtherType { key: "required", kind: self.kind.name() });
        }
        self.required = required;
        Ok(())
    }

    fn set(&mut self, key: &str, value: String, field: &str) -> Result<(), MountError> {
        let key = key.to_ascii_lowercase();
        match key.as_str() {
            "type" => {
                self.kind = match value.to_ascii_lowercase().as_str() {
                    "bind" => Kind::Bind,
                    "cache" => Kind::Cache,
                    "tmpfs" => Kind::Tmpfs,
                    "secret" => Kind::Secret,
                    "ssh" => Kind::Ssh,
                    _ => return Err(MountError::Type(value)),
                }
            }
            "from" => self.from = given(value),
            "source" | "src" => self.source = given(value),
            "target" | "dst" | "destination" => self.target = given(value),
            "id" => self.id = given(value),
            "env" => self.env = given(value),
            "readonly" | "ro" => self.read_only = Some(boolean("readonly", value)?),
            "readwrite" | "rw" => self.read_only = Some(!boolean("readwrite", value)?),
            "required" => {
                let required = boolean("required", value)?;
                self.set_required(required)?;
            }
            "sharing" => {
                self.sharing = Some(match value.to_ascii_lowercase().as_str() {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => return Err(MountError::Value { key: "sharing", value }),
                });
            }
            // What stands before the type counts for a bind mount.
            "size" if self.kind != Kind::Tmpfs => {
                return Err(MountError::KeyOfOtherType { key: "size", kind: self.kind.name() });
            }
            "size" => self.size = Some(bytes(&value).ok_or(MountError::Value { key: "size", value })?),
            "mode" => self.ownership.mode = Some(number("mode", value, 8)?),
            "uid" => self.ownership.uid = Some(number("uid", value, 10)?),
            "gid" => self.ownership.gid = Some(number("gid", value, 10)?),
            _ => return Err(MountError::Key { key, field: field.to_owned() }),
        }
        Ok(())
    }

    fn finish(self) -> Result<Mount, MountError> {
        let kind = self.kind;
        let forbid = |key, given: bool| {
            if given { Err(MountError::KeyOfOtherType { key, kind: kind.name() }) } else { Ok(()) }
        };
        if matches!(kind, Kind::Bind | Kind::Tmpfs) {
            forbid("mode", self.ownership.mode.is_some())?;
            forbid("uid", self.ownership.uid.is_some())?;
            forbid("gid", self.ownership.gid.is_some())?;
        }
        forbid("sharing", self.sharing.is_some() && kind != Kind::Cache)?;
        if kind == Kind::Secret {
            forbid("from", self.from.is_some())?;
            if self.source.is_some() && self.id.is_some() {
                return Err(MountError::TwoNames);
            }
        }
        let Self { from, source, target, id, env, sharing, read_only, required, size, ownership, .. } = self;
        let kind = match kind {
            Kind::Bind => MountKind::Bind { from, source, writable: read_only == Some(false) },
            Kind::Cache => MountKind::Cache {
                id,
                from,
                source,
                sharing: sharing.unwrap_or_default(),
                read_only: read_only == Some(true),
                ownership,
            },
            Kind::Tmpfs => MountKind::Tmpfs { size },
            Kind::Secret => {
                let base_name = || target.as_deref().and_then(|path| path.trim_end_matches('/').rsplit('/').next());
                let id = id.or(source).or_else(|| base_name().map(str::to_owned)).ok_or(MountError::NoSecret)?;
                MountKind::Secret { id, env, required, ownership }
            }
            Kind::Ssh => MountKind::Ssh { id: id.unwrap_or_else(|| "default".to_owned()), required, ownership },
        };
        Ok(Mount { target, kind })
    }
}

/// Reads the value of `RUN --device`: `name[,required]`, or `name=…,required=…`.
pub(super) fn parse_device(value: &Word) -> Result<Device, String> {
    let fields = csv_fields(&value.text).ok_or("failed to parse csv devices")?;
    let mut device = Device { name: Word::new("", value.span), required: false };
    for field in fields {
        let (key, text) = field.split_once('=').map_or((&*field, None), |(key, text)| (key, Some(text)));
        match (key.to_ascii_lowercase().as_str(), text) {
            ("required", None) => device.required = true,
            ("required", Some(text)) => {
                device.required =
                    boolean("required", text.to_owned()).map_err(|_| format!("`required` is not `{text}`"))?;
            }
            ("name", Some(_)) if !device.name.text.is_empty() => return Err("it has two names".to_owned()),
            ("name", Some(text)) => device.name.text = Text::from(text),
            _ if device.name.text.is_empty() => device.name.text = Text::from(field.into_owned()),
            (_, None) => return Err(format!("field `{field}` must be a key=value pair")),
            (_, Some(_)) => return Err(format!("unexpected key `{key}`")),
        }
    }
    Ok(device)
}

/// An empty value counts as not given.
fn given(value: String) -> Option<String> {
    (!value.is_empty()).then_some(value)
}

/// As Go's `strconv.ParseBool`.
fn boolean(key: &'static str, value: String) -> Result<bool, MountError> {
    match value.as_str() {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(MountError::Value { key, value }),
    }
}

fn number(key: &'static str, value: String, radix: u32) -> Result<u32, MountError> {
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    match u32::from_str_radix(&value, radix) {
        Ok(number) if digits => Ok(number),
        _ => Err(MountError::Value { key, value }),
    }
}

/// A size as docker writes it: a number, which may have a fraction, and a binary unit (`100m`, `1.5GiB`, `64 kb`).
fn bytes(value: &str) -> Option<u64> {
    let length = value.find(|ch: char| !ch.is_ascii_digit() && ch != '.').unwrap_or(value.len());
    let (number, unit) = value.split_at(length);
    let number: f64 = number.parse().ok()?;
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let shift = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    #[expect(clippy::cast_precision_loss, reason = "a power of two is exact")]
    let size = number * (1_u64 << shift) as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates; no sign is read")]
    let size = size as u64;
    Some(size)
}

/// The fields of one line of comma-separated values (RFC 4180). `None` if it is malformed or empty.
fn csv_fields(text: &str) -> Option<Vec<Cow<'_, str>>> {
    let mut fields = Vec::new();
    let mut rest = text;
    if rest.is_empty() || rest.contains('\n') {
        return None;
    }
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut from = quoted;
            loop {
                let (part, after) = from.split_once('"')?;
                field.push_str(part);
                from = after;
                let Some(more) = after.strip_prefix('"') else { break };
                field.push('"');
                from = more;
            }
            fields.push(Cow::Owned(field));
            match from.strip_prefix(',') {
                Some(next) => rest = next,
                None if from.is_empty() => return Some(fields),
                None => return None,
            }
        } else {
            let (field, next) = rest.split_once(',').map_or((rest, None), |(field, next)| (field, Some(next)));
            if field.contains('"') {
                return None;
            }
            fields.push(Cow::Borrowed(field));
            match next {
                Some(next) => rest = next,
                None => return Some(fields),
            }
        }
    }
}

/// The place of a flag's value in its flag.
pub(super) fn value_span(flag: &super::Flag) -> Span {
    let name = flag.text.find('=').map_or(0, |at| at + 1);
    Span::new((flag.span.start + name).min(flag.span.end), flag.span.end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, target: &str, kind: &MountKind) {
        let mount = Mount::parse(value).expect(value);
        assert_eq!(mount.target.as_deref().unwrap_or_default(), target, "{value}");
        assert_eq!(&mount.kind, kind, "{value}");
    }

    fn check_error(value: &str, expected: &str) {
        assert_eq!(Mount::parse(value).expect_err(value).to_string(), expected, "{value}");
    }

    #[test]
    fn bind_mounts() {
        let bind = |from: Option<&str>, source: Option<&str>, writable| MountKind::Bind {
            from: from.map(str::to_owned),
            source: source.map(str::to_owned),
            writable,
        };
        check("target=/a", "/a", &bind(None, None, false));
        check("type=bind,from=b,src=s,dst=/a,rw", "/a", &bind(Some("b"), Some("s"), true));
        check("TYPE=BIND,Destination=/a,ro=false", "/a", &bind(None, None, true));
        check("\"target=/a,b\",readonly", "/a,b", &bind(None, None, false));
        check("type=bind,source=s", "", &bind(None, Some("s"), false));
        check_error("target=/a,mode=755", "unexpected key `mode` for mount type `bind`");
        check_error("target=/a,sharing=shared", "unexpected key `sharing` for mount type `bind`");
        check_error("target=/a,required", "unexpected key `required` for mount type `bind`");
        check_error("target=/a,from=$x", "`from` doesn't support variable expansion, define alias stage instead");
    }

    #[test]
    fn cache_and_tmpfs_mounts() {
        let ownership = Ownership { mode: Some(0o750), uid: Some(1), gid: Some(2) };
        let kind = MountKind::Cache {
            id: Some("i".to_owned()),
            from: Some("b".to_owned()),
            source: None,
            sharing: Sharing::Locked,
            read_only: true,
            ownership,
        };
        check("type=cache,target=/c,id=i,from=b,sharing=Locked,ro,mode=0750,uid=1,gid=2", "/c", &kind);
        check("type=tmpfs,target=/t,size=1.5m", "/t", &MountKind::Tmpfs { size: Some(3 << 19) });
        check("type=tmpfs,target=/t,size=10KiB", "/t", &MountKind::Tmpfs { size: Some(10_240) });
        check_error("type=tmpfs,target=/t,size=1ib", "invalid value for size: `1ib`");
        check_error("type=cache,target=/t,size=1", "unexpected key `size` for mount type `cache`");
        check_error("size=1,type=tmpfs,target=/t", "unexpected key `size` for mount type `bind`");
        check_error("type=tmpfs,target=/t,size=x", "invalid value for size: `x`");
        check_error("type=cache,target=/c,uid=-1", "invalid value for uid: `-1`");
        check_error("type=cache,target=/c,mode=8", "invalid value for mode: `8`");
    }

    #[test]
    fn secret_and_ssh_mounts() {
        let secret = |id: &str, env: Option<&str>, required| MountKind::Secret {
            id: id.to_owned(),
            env: env.map(str::to_owned),
            required,
            ownership: Ownership::default(),
        };
        check("type=secret,id=a", "", &secret("a", None, false));
        check("type=secret,target=/x/y,required", "/x/y", &secret("y", None, true));
        check("type=secret,source=a,env=A,required=0", "", &secret("a", Some("A"), false));
        check_error("type=secret", "invalid secret mount: one of id, source or target is required");
        check_error("type=secret,id=a,source=b", "both source and id can't be set");
        check_error("type=secret,id=a,from=b", "unexpected key `from` for mount type `secret`");
        let ssh = MountKind::Ssh { id: "default".to_owned(), required: false, ownership: Ownership::default() };
        check("type=ssh", "", &ssh);
    }

    // Rows: A79.
    #[test]
    fn malformed_mounts() {
        check_error("", "failed to parse csv mounts: ``");
        check_error("target=\"/a", "failed to parse csv mounts: `target=\"/a`");
        check_error("foo", "invalid field `foo` must be a key=value pair");
        check_error("tagret=/a", "unexpected key `tagret` in `tagret=/a`");
        check_error("type=cahce,target=/a", "unsupported mount type `cahce`");
        let hint = |value| Mount::parse(value).expect_err(value).hint();
        assert_eq!(hint("type=cahce,target=/a").as_deref(), Some("did you mean `cache`?"));
        assert_eq!(hint("tagret=/a").as_deref(), Some("did you mean `target`?"));
    }

    #[test]
    fn variables_in_values() {
        let expander = Expander::new('\\');
        let lookup = |name: &str| (name == "X").then(|| "cache".to_owned());
        let mount = Mount::expand("type=$X,target=/${X}/a,id=${N:-i}", &expander, &lookup).expect("a mount");
        assert_eq!(mount.target.as_deref(), Some("/cache/a"));
        assert!(matches!(mount.kind, MountKind::Cache { id: Some(id), .. } if id == "i"));
        assert!(Mount::check("type=$X,target=$Y").is_ok());
        assert!(Mount::check("target=$Y,from=$Z").is_err());
    }

    #[test]
    fn devices() {
        let device = |text: &str| {
            parse_device(&Word::new(text, Span::default()))
                .map(|device| (device.name.text.to_string(), device.required))
        };
        assert_eq!(device("vendor.com/gpu=all"), Ok(("vendor.com/gpu=all".to_owned(), false)));
        assert_eq!(device("name=a,required"), Ok(("a".to_owned(), true)));
        assert_eq!(device("a,required=false"), Ok(("a".to_owned(), false)));
        assert!(device("a,b").is_err());
        assert!(device("a,name=b").is_err());
        assert!(device("a,b=c").is_err());
    }
}

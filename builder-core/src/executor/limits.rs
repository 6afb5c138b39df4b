//! [`Limits`]: how much a process may use.

use std::fmt;
use std::str::FromStr;

/// Limits of one process and everything that it starts. The default sets none of them but the size of `/dev/shm`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Resource limits (`setrlimit(2)`) that differ from the caller's.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm` in bytes; `None` is 64 MiB.
    pub shm_size: Option<u64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory and swap together, in bytes; `Some(-1)` is no limit.
    pub memory_swap: Option<i64>,
    /// Relative weight, 2 to 262144; 1024 is what a process has without.
    pub cpu_shares: Option<u64>,
    /// Microseconds of CPU time in each period.
    pub cpu_quota: Option<u64>,
    /// Length of a period in microseconds; `None` is 100000.
    pub cpu_period: Option<u64>,
    /// CPUs to run on, as `0-2,4`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use, as `0,1`.
    pub cpuset_mems: Option<String>,
    /// Number of tasks.
    pub pids: Option<u64>,
    /// The cgroup to make the process's own in, as a path from the root of the hierarchy; `None` is the caller's own cgroup.
    pub cgroup_parent: Option<String>,
}

/// One resource limit, written `nofile=1024:2048`; −1 is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    /// What is limited.
    pub resource: Resource,
    /// The limit in force; `None` is none.
    pub soft: Option<u64>,
    /// How far the process may raise it; `None` is without bound.
    pub hard: Option<u64>,
}

/// A resource of `setrlimit(2)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Resource(u32);

/// Names as docker and bash know them.
const RESOURCES: [(&str, u32); 15] = [
    ("core", libc::RLIMIT_CORE),
    ("cpu", libc::RLIMIT_CPU),
    ("data", libc::RLIMIT_DATA),
    ("fsize", libc::RLIMIT_FSIZE),
    ("locks", libc::RLIMIT_LOCKS),
    ("memlock", libc::RLIMIT_MEMLOCK),
    ("msgqueue", libc::RLIMIT_MSGQUEUE),
    ("nice", libc::RLIMIT_NICE),
    ("nofile", libc::RLIMIT_NOFILE),
    ("nproc", libc::RLIMIT_NPROC),
    ("rss", libc::RLIMIT_RSS),
    ("rtprio", libc::RLIMIT_RTPRIO),
    ("rttime", libc::RLIMIT_RTTIME),
    ("sigpending", libc::RLIMIT_SIGPENDING),
    ("stack", libc::RLIMIT_STACK),
];

impl Resource {
    /// The number of the resource in `setrlimit(2)`.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name(self.0))
    }
}

/// Name of a resource, for people.
pub(super) fn name(resource: u32) -> &'static str {
    RESOURCES.iter().find(|(_, number)| *number == resource).map_or("a resource", |(name, _)| name)
}

/// The text is not a resource limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseUlimitError {
    /// There is no `=`.
    #[error("`{0}` is not a limit: expected `NAME=SOFT[:HARD]`")]
    Form(String),
    /// The name is unknown.
    #[error("unknown resource `{0}`")]
    Resource(String),
    /// A limit is not a number.
    #[error("`{0}` is not a number")]
    Number(String),
    /// The soft limit is above the hard one.
    #[error("the soft limit of `{0}` is above the hard one")]
    Order(String),
}

impl FromStr for Ulimit {
    type Err = ParseUlimitError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, values) = text.split_once('=').ok_or_else(|| ParseUlimitError::Form(text.to_owned()))?;
        let (_, number) = RESOURCES
            .iter()
            .find(|(known, _)| *known == name)
            .ok_or_else(|| ParseUlimitError::Resource(name.to_owned()))?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (limit(soft)?, limit(hard)?);
        if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
            return Err(ParseUlimitError::Order(text.to_owned()));
        }
        Ok(Self { resource: Resource(*number), soft, hard })
    }
}

fn limit(text: &str) -> Result<Option<u64>, ParseUlimitError> {
    if text == "-1" || text == "unlimited" {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| ParseUlimitError::Number(text.to_owned()))
}

impl fmt::Display for Ulimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let show = |limit: Option<u64>| limit.map_or_else(|| "-1".to_owned(), |limit| limit.to_string());
        write!(f, "{}={}:{}", self.resource, show(self.soft), show(self.hard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_docker_writes_them() {
        for (text, expected) in [
            ("nofile=1024", "nofile=1024:1024"),
            ("nofile=1024:2048", "nofile=1024:2048"),
            ("core=0:-1", "core=0:-1"),
            ("stack=unlimited", "stack=-1:-1"),
        ] {
            assert_eq!(text.parse::<Ulimit>().map(|limit| limit.to_string()).as_deref(), Ok(expected));
        }
        for (text, expected) in [
            ("nofile", "`nofile` is not a limit: expected `NAME=SOFT[:HARD]`"),
            ("files=1", "unknown resource `files`"),
            ("nofile=a", "`a` is not a number"),
            ("nofile=-1:5", "the soft limit of `nofile=-1:5` is above the hard one"),
        ] {
            assert_eq!(text.parse::<Ulimit>().expect_err("refused").to_string(), expected);
        }
    }
}

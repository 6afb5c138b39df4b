//! [`Accounts`]: the users and groups of an image, from its own `/etc/passwd` and `/etc/group`.
//!
//! Nothing of the host is asked (no NSS). Lines that do not follow `passwd(5)` or `group(5)` are skipped: a damaged
//! number must not become root.

use std::fmt;
use std::io::{self, Read};

use super::{RootDir, RootPath};
use crate::diagnostic::{Diagnostic, nearest};

/// A user and perhaps a group, as `USER`, `--chown` and `--user` take them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UserSpec {
    /// The part before the colon.
    pub user: NameOrId,
    /// The part after it.
    pub group: Option<NameOrId>,
}

/// A user or a group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NameOrId {
    /// A number inside the image.
    Id(u32),
    /// A name, to be looked up.
    Name(String),
}

/// Who a command runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, sorted.
    pub groups: Vec<u32>,
    /// Home directory, if passwd has one.
    pub home: Option<String>,
}

/// Who owns a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A user or group that cannot be found out.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// The text is not `user[:group]`.
    #[error("`{0}` is not a user, or a user and a group as in `user:group`")]
    Spec(String),
    /// The kernel has it, runc does not.
    #[error("user or group {0} is above {ID_MAX}, the largest that a command can run as")]
    Range(u32),
    /// The image has no such user.
    #[error("user `{name}` is not in the image's /etc/passwd")]
    UnknownUser {
        /// The name.
        name: String,
        /// The name that was perhaps meant.
        near: Option<String>,
    },
    /// The image has no such group.
    #[error("group `{name}` is not in the image's /etc/group")]
    UnknownGroup {
        /// The name.
        name: String,
        /// The name that was perhaps meant.
        near: Option<String>,
    },
    /// One of the files cannot be read.
    #[error("cannot read the image's {path}")]
    Read {
        /// The file.
        path: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Diagnostic for AccountsError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::UnknownUser { near: Some(near), .. } | Self::UnknownGroup { near: Some(near), .. } => {
                Some(format!("did you mean `{near}`?"))
            }
            Self::UnknownUser { .. } => {
                Some("create the user with a `RUN` before it is used, or write a number".into())
            }
            Self::UnknownGroup { .. } => {
                Some("create the group with a `RUN` before it is used, or write a number".into())
            }
            Self::Spec(_) | Self::Range(_) | Self::Read { .. } => None,
        }
    }
}

impl UserSpec {
    /// Reads `user`, `user:group`, `user:`, `:group` or nothing; a user that is not named is root.
    ///
    /// # Errors
    /// [`AccountsError::Spec`] if both are missing around a colon, a number is larger than 4294967294, or a
    /// name holds white space, a colon or a control byte.
    pub fn parse(text: &str) -> Result<Self, AccountsError> {
        let error = || AccountsError::Spec(text.to_owned());
        if text.is_empty() {
            return Ok(Self { user: NameOrId::Id(0), group: None });
        }
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let user = match user {
            "" if !group.is_empty() => NameOrId::Id(0),
            user => NameOrId::parse(user).ok_or_else(error)?,
        };
        let group = if group.is_empty() { None } else { Some(NameOrId::parse(group).ok_or_else(error)?) };
        Ok(Self { user, group })
    }
}

impl NameOrId {
    fn parse(text: &str) -> Option<Self> {
        let bad = |character: char| character.is_whitespace() || character.is_control() || character == ':';
        if text.is_empty() || text.contains(bad) {
            return None;
        }
        if text.bytes().all(|byte| byte.is_ascii_digit()) {
            // The largest number means "leave as it is" to chown(2).
            return text.parse().ok().filter(|number| *number != u32::MAX).map(Self::Id);
        }
        Some(Self::Name(text.to_owned()))
    }
}

impl fmt::Display for NameOrId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for UserSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.group {
            Some(group) => write!(f, "{}:{group}", self.user),
            None => self.user.fmt(f),
        }
    }
}

/// Most bytes of either file that are read, as in BuildKit since 0.31.1; larger ones are refused (invariant S-10).
const FILE_MAX: u64 = 10 * 1024 * 1024;

/// The users and groups of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

/// Largest id of a process, as in runc.
const ID_MAX: u32 = 0x7fff_ffff;

#[derive(Debug, Clone, PartialEq, Eq)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    /// Reads the content of both files; a missing file is empty.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        let users = lines(passwd).filter_map(|fields| match fields.as_slice() {
            [name, _, uid, gid, rest @ ..] => Some(User {
                name: name.clone(),
                uid: uid.parse().ok()?,
                gid: gid.parse().ok()?,
                home: rest.get(1).cloned().unwrap_or_default(),
            }),
            _ => None,
        });
        let groups = lines(group).filter_map(|fields| match fields.as_slice() {
            [name, _, gid, rest @ ..] => {
                let members = rest.first().map(String::as_str).unwrap_or_default();
                let members = members.split(',').filter(|member| !member.is_empty()).map(str::to_owned).collect();
                Some(Group { name: name.clone(), gid: gid.parse().ok()?, members })
            }
            _ => None,
        });
        Self { users: users.collect(), groups: groups.collect() }
    }

    /// Reads `/etc/passwd` and `/etc/group` of an image.
    ///
    /// # Errors
    /// [`AccountsError::Read`] if one is there but is no regular file, or is larger than 10 MiB.
    pub fn read(root: &RootDir) -> Result<Self, AccountsError> {
        Ok(Self::parse(&read(root, "/etc/passwd")?, &read(root, "/etc/group")?))
    }

    /// Who `spec` runs a command as, as runc and containerd see it.
    ///
    /// A number without a group has the group that passwd gives it, else 0. Supplementary groups are the primary one, and, only if no
    /// group is asked for, those of the user.
    ///
    /// # Errors
    /// If a name is unknown, or a number is above 2147483647. Numbers need not be in the files.
    pub fn run_as(&self, spec: &UserSpec) -> Result<Identity, AccountsError> {
        let found = match &spec.user {
            NameOrId::Id(uid) => self.users.iter().find(|user| user.uid == *uid),
            NameOrId::Name(name) => Some(self.user(name)?),
        };
        let uid = match (&spec.user, found) {
            (NameOrId::Id(uid), _) => *uid,
            (NameOrId::Name(_), user) => user.map_or(0, |user| user.uid),
        };
        let home = found.map(|user| user.home.clone());
        let mut identity = Identity { uid, gid: found.map_or(0, |user| user.gid), groups: Vec::new(), home };
        if let Some(group) = &spec.group {
            identity.gid = self.gid(group)?;
        } else {
            // A number that stands in the file is that user, with the groups of the name.
            let name = found.map(|user| user.name.as_str()).unwrap_or_default();
            let member = |group: &&Group| group.members.iter().any(|member| member == name);
            identity.groups = self.groups.iter().filter(member).map(|group| group.gid).collect();
            identity.groups.sort_unstable();
            identity.groups.dedup();
        }
        // The primary group is one of them: a file that denies its group what others may would be open otherwise (CVE-2022-36109).
        identity.groups.retain(|group| *group != identity.gid);
        identity.groups.insert(0, identity.gid);
        match [identity.uid, identity.gid].into_iter().find(|id| *id > ID_MAX) {
            Some(id) => Err(AccountsError::Range(id)),
            None => Ok(identity),
        }
    }

    /// Who `spec` makes the owner of copied files, as BuildKit's `--chown` sees it: a number without a group is also
    /// the number of the group, a name without a group brings its group from passwd. `root` need not be in the files.
    ///
    /// # Errors
    /// If another name is unknown.
    pub fn owner(&self, spec: &UserSpec) -> Result<Owner, AccountsError> {
        let owner = match &spec.user {
            NameOrId::Id(uid) => Owner { uid: *uid, gid: *uid },
            NameOrId::Name(name) => match self.user(name) {
                Ok(user) => Owner { uid: user.uid, gid: user.gid },
                Err(_) if name == "root" => Owner::default(),
                Err(error) => return Err(error),
            },
        };
        match &spec.group {
            Some(NameOrId::Name(name)) if name == "root" && self.gid(&NameOrId::Name(name.clone())).is_err() => {
                Ok(Owner { gid: 0, ..owner })
            }
            Some(group) => Ok(Owner { gid: self.gid(group)?, ..owner }),
            None => Ok(owner),
        }
    }

    fn user(&self, name: &str) -> Result<&User, AccountsError> {
        self.users.iter().find(|user| user.name == name).ok_or_else(|| AccountsError::UnknownUser {
            name: name.to_owned(),
            near: nearest(name, self.users.iter().map(|user| user.name.as_str())).map(str::to_owned),
        })
    }

    fn gid(&self, group: &NameOrId) -> Result<u32, AccountsError> {
        match group {
            NameOrId::Id(gid) => Ok(*gid),
            NameOrId::Name(name) => {
                let found = self.groups.iter().find(|group| group.name == *name);
                found.map(|group| group.gid).ok_or_else(|| AccountsError::UnknownGroup {
                    name: name.clone(),
                    near: nearest(name, self.groups.iter().map(|group| group.name.as_str())).map(str::to_owned),
                })
            }
        }
    }
}

/// The lines of a file, split at colons; comments and empty lines left out.
fn lines(bytes: &[u8]) -> impl Iterator<Item = Vec<String>> + '_ {
    bytes.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        let skip = line.is_empty() || line.starts_with(['#', '+', '-', ':']);
        (!skip).then(|| line.split(':').map(|field| field.trim().to_owned()).collect())
    })
}

fn read(root: &RootDir, path: &'static str) -> Result<Vec<u8>, AccountsError> {
    let error = |source| AccountsError::Read { path, source };
    let inside = RootPath::clean(path).expect("a constant path without NUL");
    let file = match root.open_file(&inside) {
        Ok(file) => file,
        Err(failed) if matches!(failed.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(failed) => return Err(error(failed)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(error)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(error(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 10 MiB")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# comment\nbroken:x:no:0::/:\n\
        app:x:1000:1001:App:/home/app:/bin/sh\nbare:x:7:8\n1000:x:5:5::/five:\n";
    const GROUP: &[u8] = b"root:x:0:root\nwheel:x:10:app,root\nusers:x:9:app\napp:x:1001:\nbad:x:-1:app\n";

    fn run_as(spec: &str) -> String {
        let accounts = Accounts::parse(PASSWD, GROUP);
        match UserSpec::parse(spec).and_then(|spec| accounts.run_as(&spec)) {
            Ok(Identity { uid, gid, groups, home }) => format!("{uid}:{gid} {groups:?} {}", home.unwrap_or_default()),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn commands_run_as_runc_would_run_them() {
        for (spec, expected) in [
            ("", "0:0 [0, 10] /root"),
            ("root", "0:0 [0, 10] /root"),
            ("app", "1000:1001 [1001, 9, 10] /home/app"),
            ("app:", "1000:1001 [1001, 9, 10] /home/app"),
            ("app:wheel", "1000:10 [10] /home/app"),
            ("app:77", "1000:77 [77] /home/app"),
            ("1000", "1000:1001 [1001, 9, 10] /home/app"),
            ("1000:1001", "1000:1001 [1001] /home/app"),
            ("1234", "1234:0 [0] "),
            ("1234:users", "1234:9 [9] "),
            ("bare", "7:8 [8] "),
            ("broken", "user `broken` is not in the image's /etc/passwd"),
            ("app:bad", "group `bad` is not in the image's /etc/group"),
            (":5", "0:5 [5] /root"),
            (":", "`:` is not a user, or a user and a group as in `user:group`"),
            ("2147483648", "user or group 2147483648 is above 2147483647, the largest that a command can run as"),
            ("a:b:c", "`a:b:c` is not a user, or a user and a group as in `user:group`"),
            ("4294967295", "`4294967295` is not a user, or a user and a group as in `user:group`"),
        ] {
            assert_eq!(run_as(spec), expected, "{spec}");
        }
    }

    #[test]
    fn copied_files_belong_to_whom_buildkit_would_give_them() {
        let accounts = Accounts::parse(PASSWD, GROUP);
        for (spec, expected) in [("55", (55, 55)), ("app", (1000, 1001)), ("app:wheel", (1000, 10)), ("5:0", (5, 0))] {
            let owner = accounts.owner(&UserSpec::parse(spec).expect(spec)).expect(spec);
            assert_eq!((owner.uid, owner.gid), expected, "{spec}");
        }
        let unknown = accounts.owner(&UserSpec::parse("ap").expect("parses")).expect_err("unknown");
        assert_eq!(unknown.hint().as_deref(), Some("did you mean `app`?"));
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let folder = tempfile::tempdir().expect("temporary directory");
        let root = RootDir::open(folder.path()).expect("opens");
        assert_eq!(Accounts::read(&root).expect("nothing to read"), Accounts::default());
        let etc = folder.path().join("etc");
        std::fs::create_dir(&etc).expect("made");
        std::os::unix::fs::symlink("/etc/real", etc.join("passwd")).expect("linked");
        std::fs::write(etc.join("real"), PASSWD).expect("written");
        assert_eq!(Accounts::read(&root).expect("reads").users.len(), 4, "an absolute link stays inside the root");
        root.directory().open_dir(b"etc").and_then(|etc| etc.make_node(b"group", Kind::Fifo, (0, 0))).expect("made");
        assert!(matches!(Accounts::read(&root), Err(AccountsError::Read { path: "/etc/group", .. })));
        std::fs::remove_file(etc.join("group")).expect("removed");
        let file = std::fs::File::create(etc.join("group")).expect("made");
        file.set_len(FILE_MAX + 1).expect("grown");
        assert!(matches!(Accounts::read(&root), Err(AccountsError::Read { path: "/etc/group", .. })));
    }

    use crate::rootfs::Kind;
}

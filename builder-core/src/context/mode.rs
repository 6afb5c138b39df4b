//! [`ContextMode`]: which rights of files in a context count.

use crate::tree::{Entry, Node};

/// What of the rights of files in a directory of this machine lands in the image.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContextMode {
    /// All, as docker has it.
    #[default]
    Docker,
    /// What git keeps: whether the owner may execute a file. A checkout with any umask then counts as one with umask 022:
    /// files are 0644 or 0755, directories 0755, nothing has extended attributes.
    Git,
}

impl std::fmt::Display for ContextMode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Docker => "docker",
            Self::Git => "git",
        })
    }
}

impl ContextMode {
    /// Turns what was found into what lands.
    pub(super) fn apply(self, entry: &mut Entry) {
        if self == Self::Docker {
            return;
        }
        entry.mode = match entry.node {
            Node::Symlink { .. } => 0o777,
            Node::Directory { .. } => 0o755,
            // git asks for the owner's bit only.
            _ if entry.mode & 0o100 != 0 => 0o755,
            _ => 0o644,
        };
        // Access control lists are rights, too, and a checkout has no others.
        entry.xattrs.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::RootPath;
    use crate::tree::{ContentDigest, Time, Xattr};

    #[test]
    fn only_the_owners_right_to_execute_counts_for_git() {
        let file = Node::File { size: 0, content: ContentDigest::of(b""), link: 0 };
        let directory = Node::Directory { opaque: false };
        let link = Node::Symlink { target: b"x".to_vec() };
        for (node, mode, expected) in [
            (&file, 0o600, 0o644),
            (&file, 0o666, 0o644),
            (&file, 0o6644, 0o644),
            (&file, 0o655, 0o644),
            (&file, 0o700, 0o755),
            (&file, 0o4711, 0o755),
            (&file, 0o100, 0o755),
            (&directory, 0o700, 0o755),
            (&directory, 0o2775, 0o755),
            (&directory, 0o1777, 0o755),
            (&link, 0o777, 0o777),
            (&Node::Fifo, 0o660, 0o644),
        ] {
            let xattrs = vec![Xattr { name: b"user.a".to_vec(), value: b"1".to_vec() }];
            let found =
                Entry { node: node.clone(), xattrs, ..Entry::directory(RootPath::root(), mode, 3, 4, Time::default()) };
            let mut landed = found.clone();
            ContextMode::Docker.apply(&mut landed);
            assert_eq!(landed, found);
            ContextMode::Git.apply(&mut landed);
            assert_eq!(landed, Entry { mode: expected, xattrs: Vec::new(), ..found }, "{mode:o}");
        }
    }
}

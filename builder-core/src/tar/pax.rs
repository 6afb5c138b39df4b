//! Extended headers of pax: `length key=value\n`, where the length counts itself.

use super::numbers;

/// What an extended header says; what it does not say is `None`.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseKeys,
}

/// GNU's records for sparse files, in the formats 0.0, 0.1 and 1.0.
#[derive(Debug, Default)]
pub(super) struct SparseKeys {
    pub(super) version: (Option<u64>, Option<u64>),
    pub(super) real_size: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// Offsets and lengths in turn, as `GNU.sparse.map` or the pairs of 0.0 give them.
    pub(super) map: Option<Vec<u64>>,
}

/// Largest value of an extended attribute (`xattr(7)`).
const XATTR_MAX: usize = 64 * 1024;

/// Most extended attributes of one file; their names alone must fit into 64 KiB (`listxattr(2)`).
const XATTRS_MOST: usize = 1024;

impl Pax {
    /// Reads all records. An empty value means that the header block's holds.
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Self, &'static str> {
        let mut pax = Self::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or("a pax record is malformed")?;
            bytes = rest;
            pax.set(key, value)?;
        }
        pax.xattrs.sort();
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if name.is_empty() || name.contains(&0) || name.len() > 255 || value.len() > XATTR_MAX {
                return Err("an extended attribute is malformed");
            }
            self.xattrs.retain(|(other, _)| other != name);
            if self.xattrs.len() >= XATTRS_MOST {
                return Err("a file has too many extended attributes");
            }
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        let text = || match value {
            [] => Ok(None),
            value if value.contains(&0) => Err("a pax path holds a NUL byte"),
            value => Ok(Some(value.to_vec())),
        };
        let number = || match value {
            [] => Ok(None),
            value => numbers::decimal(value).map(Some).ok_or("a pax number is malformed"),
        };
        let sparse = &mut self.sparse;
        match key {
            b"path" => self.path = text()?,
            b"linkpath" => self.link = text()?,
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => {
                self.mtime = match value {
                    [] => None,
                    value => Some(numbers::time(value).ok_or("a pax time is malformed")?),
                }
            }
            b"GNU.sparse.major" => sparse.version.0 = number()?,
            b"GNU.sparse.minor" => sparse.version.1 = number()?,
            b"GNU.sparse.name" => sparse.name = text()?,
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => sparse.real_size = number()?,
            b"GNU.sparse.map" => {
                let numbers = value.split(|byte| *byte == b',').map(numbers::decimal).collect::<Option<Vec<_>>>();
                sparse.map = Some(numbers.ok_or("a sparse map is malformed")?);
            }
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                let map = sparse.map.get_or_insert_default();
                let expects_offset = map.len().is_multiple_of(2);
                if expects_offset != (key == b"GNU.sparse.offset") {
                    return Err("a sparse map is malformed");
                }
                map.push(number()?.ok_or("a sparse map is malformed")?);
            }
            _ => {}
        }
        Ok(())
    }
}

/// The first record of `bytes`: key, value and the rest.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
    let length = usize::try_from(numbers::decimal(&bytes[..space])?).ok()?;
    let (record, rest) = bytes.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    if equals == 0 {
        return None;
    }
    Some((&body[..equals], &body[equals + 1..], rest))
}

/// Appends a record.
pub(super) fn write_record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // Space, `=` and newline, and the length itself, which may make itself longer.
    let body = key.len() + value.len() + 3;
    let mut length = body + body.to_string().len();
    if length.to_string().len() > body.to_string().len() {
        length = body + length.to_string().len();
    }
    out.extend_from_slice(length.to_string().as_bytes());
    out.push(b' ');
    out.extend_from_slice(key);
    out.push(b'=');
    out.extend_from_slice(value);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_length() {
        for length in [0, 1, 80, 88, 89, 90, 91, 92, 93, 980, 990, 995, 999] {
            let mut bytes = Vec::new();
            let value = vec![b'v'; length];
            write_record(&mut bytes, b"path", &value);
            write_record(&mut bytes, b"uid", b"7");
            let (key, found, rest) = record(&bytes).expect("well formed");
            assert_eq!((key, found), (&b"path"[..], value.as_slice()));
            assert_eq!(Pax::parse(rest).expect("well formed").uid, Some(7));
        }
    }

    #[test]
    fn malformed_records_are_fatal() {
        for bytes in [
            &b"5 a=b\n"[..],
            b"7 a=b\n",
            b"99 a=b\n",
            b" a=b\n",
            b"6 =bb\n",
            b"6 a=b x",
            b"7 abc\n\n",
            b"\0\0\0",
            b"99999999999999999999999 a=b\n",
            b"11 size=-1\n",
            b"11 path=\0x\n",
            b"20 GNU.sparse.map=1\n\n",
            b"25 GNU.sparse.numbytes=1\n",
        ] {
            assert!(Pax::parse(bytes).is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        assert!(Pax::parse(b"6 a=b\n").is_ok());
        assert_eq!(Pax::parse(b"11 uid=7\n9 uid=\n").ok().and_then(|pax| pax.uid), None);
    }

    #[test]
    fn the_last_attribute_of_a_name_wins() {
        let mut bytes = Vec::new();
        write_record(&mut bytes, b"SCHILY.xattr.user.a", b"z");
        write_record(&mut bytes, b"SCHILY.xattr.user.a", b"b=\0\n");
        let pax = Pax::parse(&bytes).expect("well formed");
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"b=\0\n".to_vec())]);
    }
}

//! Headers as bytes. Equal headers give equal bytes.

use super::header::{Header, Kind};
use super::numbers::write_octal;
use super::{BLOCK, pax};

/// The name of an extended attribute has a `=`, which would end the key of a pax record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("extended attribute `{0}` has a `=` in its name")]
pub struct XattrNameError(pub String);

/// Appends the header of one file to `out`: ustar, and before it a pax header for what has no room there.
///
/// Only whole seconds of the time are written, as containerd and BuildKit do. The map of a sparse file is ignored: the
/// content has to follow in full. After `header.size` bytes of content comes [`padding`].
///
/// # Errors
/// If the name of an extended attribute has a `=`.
pub fn encode(header: &Header, out: &mut Vec<u8>) -> Result<(), XattrNameError> {
    let mut records = Vec::new();
    let block = file_block(header, &mut records);
    let mut xattrs: Vec<&(Vec<u8>, Vec<u8>)> = header.xattrs.iter().collect();
    xattrs.sort();
    for (name, value) in xattrs {
        if name.contains(&b'=') {
            return Err(XattrNameError(String::from_utf8_lossy(name).into_owned()));
        }
        pax::write_record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    if !records.is_empty() {
        let mut block = Block::new();
        let base = header.path.trim_ascii_end().split(|byte| *byte == b'/').rfind(|name| !name.is_empty());
        let name = [b"PaxHeaders.0/", base.unwrap_or_default()].concat();
        block.text(0..100, &name);
        block.octal(124..136, records.len() as u64);
        block.bytes[156] = b'x';
        out.extend_from_slice(&block.finish());
        out.extend_from_slice(&records);
        out.resize(out.len() + padding(records.len() as u64).len(), 0);
    }
    out.extend_from_slice(&block);
    Ok(())
}

/// The zeros after `size` bytes of content.
pub fn padding(size: u64) -> &'static [u8] {
    let rest = usize::try_from(size % BLOCK as u64).expect("less than a block");
    &[0; BLOCK][..(BLOCK - rest) % BLOCK]
}

/// The end of an archive.
pub fn trailer() -> &'static [u8] {
    &[0; 2 * BLOCK]
}

/// The ustar block; what does not fit goes to `records`, sorted by key.
fn file_block(header: &Header, records: &mut Vec<u8>) -> [u8; BLOCK] {
    let mut block = Block::new();
    let link = matches!(header.kind, Kind::HardLink | Kind::Symlink);
    if !block.octal(116..124, header.gid.into()) {
        pax::write_record(records, b"gid", header.gid.to_string().as_bytes());
    }
    if link && !block.text(157..257, &header.link) {
        pax::write_record(records, b"linkpath", &header.link);
    }
    let seconds = header.mtime.0;
    if !u64::try_from(seconds).is_ok_and(|seconds| block.octal(136..148, seconds)) {
        block.octal(136..148, 0);
        pax::write_record(records, b"mtime", seconds.to_string().as_bytes());
    }
    if !block.text(0..100, &header.path) {
        pax::write_record(records, b"path", &header.path);
    }
    let size = if header.kind == Kind::File { header.size } else { 0 };
    if !block.octal(124..136, size) {
        pax::write_record(records, b"size", size.to_string().as_bytes());
    }
    if !block.octal(108..116, header.uid.into()) {
        pax::write_record(records, b"uid", header.uid.to_string().as_bytes());
    }
    block.octal(100..108, (header.mode & 0o7777).into());
    // Linux has 12 bits of major and 20 of minor number: both fit into 21.
    block.octal(329..337, header.device.0.into());
    block.octal(337..345, header.device.1.into());
    block.bytes[156] = match header.kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    };
    block.finish()
}

struct Block {
    bytes: [u8; BLOCK],
}

impl Block {
    fn new() -> Self {
        let mut bytes = [0; BLOCK];
        for field in [100..108, 108..116, 116..124, 124..136, 136..148, 329..337, 337..345] {
            let end = field.end - 1;
            bytes[field.start..end].fill(b'0');
        }
        bytes[257..265].copy_from_slice(b"ustar\x0000");
        Self { bytes }
    }

    /// Writes a text; one that is too long or not ASCII is cut and only stands in for the one in a pax record.
    fn text(&mut self, field: std::ops::Range<usize>, text: &[u8]) -> bool {
        let fits = text.len() <= field.len() && text.is_ascii();
        let written: Vec<u8> = text.iter().copied().filter(u8::is_ascii).take(field.len()).collect();
        self.bytes[field.start..field.start + written.len()].copy_from_slice(&written);
        fits
    }

    /// Writes a number; 0 stands in for one that is too large.
    fn octal(&mut self, field: std::ops::Range<usize>, value: u64) -> bool {
        write_octal(&mut self.bytes[field], value).is_some()
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.bytes[148..156].fill(b' ');
        let sum: u64 = self.bytes.iter().map(|byte| u64::from(*byte)).sum();
        // Six digits, NUL, space: as every program writes it.
        write_octal(&mut self.bytes[148..155], sum).expect("512 bytes add up to less than 8^6");
        self.bytes
    }
}

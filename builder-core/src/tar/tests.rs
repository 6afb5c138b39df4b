use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

fn read_all(bytes: &[u8]) -> Result<Vec<(Header, Vec<u8>)>, TarError> {
    let mut reader = Reader::new(bytes);
    let mut all = Vec::new();
    while let Some(header) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        all.push((header, content));
    }
    Ok(all)
}

fn write_all(files: &[(Header, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (header, content) in files {
        encode(header, &mut bytes).expect("attribute names without `=`");
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(padding(content.len() as u64));
    }
    bytes.extend_from_slice(trailer());
    bytes
}

fn file(path: &[u8], content: &[u8]) -> (Header, Vec<u8>) {
    let header = Header { mode: 0o644, size: content.len() as u64, ..Header::new(path.to_vec(), Kind::File) };
    (header, content.to_vec())
}

prop_compose! {
    fn any_header()(
        path in proptest::collection::vec(1_u8..=255, 1..300),
        link in proptest::collection::vec(1_u8..=255, 1..300),
        kind in prop_oneof![
            Just(Kind::File), Just(Kind::HardLink), Just(Kind::Symlink), Just(Kind::CharDevice),
            Just(Kind::BlockDevice), Just(Kind::Directory), Just(Kind::Fifo),
        ],
        mode in 0_u32..0o10000, uid in 0..u32::MAX, gid in 0..u32::MAX, seconds in any::<i32>(),
        device in (0_u32..4096, 0_u32..1 << 20),
        xattrs in proptest::collection::btree_map("user\\.[a-z]{1,9}", proptest::collection::vec(any::<u8>(), 0..99), 0..3),
        content in proptest::collection::vec(any::<u8>(), 0..1500),
    ) -> (Header, Vec<u8>) {
        let mut header = Header::new(path, kind);
        // A file whose name ends in a slash is a directory to every reader.
        while kind == Kind::File && header.path.ends_with(b"/") {
            header.path.push(b'x');
        }
        (header.mode, header.uid, header.gid) = (mode, uid, gid);
        header.mtime = (i64::from(seconds) * 20, 0);
        header.xattrs = xattrs.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        match kind {
            Kind::HardLink | Kind::Symlink => header.link = link,
            Kind::CharDevice | Kind::BlockDevice => header.device = device,
            _ => {}
        }
        let content = if kind == Kind::File { content } else { Vec::new() };
        header.size = content.len() as u64;
        (header, content)
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(files in proptest::collection::vec(any_header(), 0..6)) {
        let bytes = write_all(&files);
        prop_assert_eq!(read_all(&bytes).expect("well formed"), files);
    }

    #[test]
    fn the_tar_crate_reads_what_is_written(mut files in proptest::collection::vec(any_header(), 0..6)) {
        // That crate takes a newline in a value for the end of the pax record.
        for (header, _) in &mut files {
            let values = header.xattrs.iter_mut().map(|(_, value)| value);
            for byte in values.chain([&mut header.path, &mut header.link]).flatten() {
                *byte = (*byte).max(b' ');
            }
        }
        let bytes = write_all(&files);
        let mut archive = ::tar::Archive::new(bytes.as_slice());
        let mut entries = archive.entries().expect("an archive");
        for (header, content) in &files {
            let mut entry = entries.next().expect("as many").expect("well formed");
            prop_assert_eq!(&entry.path_bytes()[..], header.path.as_slice());
            prop_assert_eq!(entry.header().mode().expect("mode"), header.mode);
            if matches!(header.kind, Kind::HardLink | Kind::Symlink) {
                let link = entry.link_name_bytes().expect("a link");
                prop_assert_eq!(&link[..], header.link.as_slice());
            }
            let mut found = Vec::new();
            entry.read_to_end(&mut found).expect("content");
            prop_assert_eq!(&found, content);
        }
        prop_assert!(entries.next().is_none());
    }

    #[test]
    fn noise_never_panics(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), file in any_header()) {
        let _ = read_all(&bytes);
        let mut whole = write_all(&[file]);
        let length = whole.len();
        for byte in bytes.drain(..bytes.len().min(3)) {
            whole[usize::from(byte) * 7 % length] ^= 0x40;
        }
        let _ = read_all(&whole);
    }
}

#[test]
fn small_files_need_no_pax_header() {
    let bytes = write_all(&[file(b"a/b", b"hello")]);
    assert_eq!(bytes.len(), BLOCK * 4);
    assert_eq!(&bytes[257..265], b"ustar\x0000");
    let long = write_all(&[file(&[b'n'; 101], b"")]);
    assert_eq!(long.len(), BLOCK * 5);
    let equals = Header { xattrs: vec![(b"user.a=b".to_vec(), vec![])], ..file(b"f", b"").0 };
    assert_eq!(encode(&equals, &mut Vec::new()), Err(XattrNameError("user.a=b".to_owned())));
}

#[test]
fn the_tar_crate_writes_what_can_be_read() {
    let mut builder = ::tar::Builder::new(Vec::new());
    let long = format!("{}/file", "directory".repeat(30));
    let mut header = ::tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o4755);
    header.set_uid(3_000_000_000);
    header.set_mtime(77);
    builder.append_data(&mut header, &long, &b"abc"[..]).expect("written");
    let mut header = ::tar::Header::new_gnu();
    header.set_entry_type(::tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "link", &long).expect("written");
    let all = read_all(&builder.into_inner().expect("finished")).expect("well formed");
    assert_eq!(all[0].0.path, long.as_bytes());
    assert_eq!((all[0].0.mode, all[0].0.uid, all[0].0.mtime), (0o4755, 3_000_000_000, (77, 0)));
    assert_eq!(all[0].1, b"abc");
    assert_eq!((all[1].0.kind, &all[1].0.link[..]), (Kind::Symlink, long.as_bytes()));
}

/// Archives a file with holes through GNU tar and reads it.
fn check_gnu_sparse(arguments: &[&str]) {
    let folder = tempfile::tempdir().expect("temporary directory");
    let name = format!("{}-sparse", "long".repeat(40));
    let mut content = std::fs::File::create(folder.path().join(&name)).expect("made");
    for region in 0..40_u64 {
        content.write_all_at(b"data", region * 100_000 + 5).expect("written");
    }
    content.set_len(9_000_000).expect("grown");
    content.flush().expect("flushed");
    std::fs::write(folder.path().join("after"), "after").expect("written");
    let mut command = Command::new("tar");
    command.args(["--sparse", "-cf", "-"]).args(arguments).arg("-C").arg(folder.path()).arg(&name).arg("after");
    let Ok(output) = command.stderr(Stdio::null()).output() else {
        eprintln!("skipped: there is no tar program");
        return;
    };
    let all = read_all(&output.stdout).expect("well formed");
    assert_eq!(all.len(), 2, "{arguments:?}");
    let (header, stored) = &all[0];
    assert_eq!((&header.path[..], header.size), (name.as_bytes(), 9_000_000), "{arguments:?}");
    let map = header.sparse.as_ref().expect("sparse");
    assert!(map.len() >= 40);
    let mut whole = vec![0; 9_000_000];
    let mut rest = &stored[..];
    for (offset, length) in map {
        let (region, after) = rest.split_at(usize::try_from(*length).expect("small"));
        let start = usize::try_from(*offset).expect("small");
        whole[start..start + region.len()].copy_from_slice(region);
        rest = after;
    }
    assert!(whole == std::fs::read(folder.path().join(&name)).expect("read"), "{arguments:?}");
    assert_eq!((&all[1].0.path[..], &all[1].1[..]), (&b"after"[..], &b"after"[..]));
}

#[test]
fn sparse_files_of_gnu_tar_in_every_format() {
    for arguments in [
        &["--format=gnu"][..],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ] {
        check_gnu_sparse(arguments);
    }
}

#[test]
fn hostile_archives_are_refused() {
    let good = write_all(&[file(b"f", b"hello")]);
    let check = |what: &str, bytes: Vec<u8>| {
        assert!(matches!(read_all(&bytes), Err(TarError::Malformed { .. } | TarError::Io(_))), "{what}");
    };
    check("wrong checksum", [b"g", &good[1..]].concat());
    check("cut in a header", good[..300].to_vec());
    check("cut in the content", good[..BLOCK + 3].to_vec());
    check("lone empty block", [&good[..2 * BLOCK], &[0; BLOCK], &good[..2 * BLOCK]].concat());
    assert_eq!(read_all(&good[..2 * BLOCK]).expect("no trailer is fine").len(), 1);
    assert_eq!(read_all(&good[..3 * BLOCK]).expect("half a trailer is fine").len(), 1);

    let extended = |kind: u8, content: &[u8]| {
        let (mut header, content) = file(b"PaxHeaders/x", content);
        header.mode = 0;
        let mut bytes = write_all(&[(header, content)]);
        bytes.truncate(bytes.len() - trailer().len());
        bytes[156] = kind;
        bytes[148..156].fill(b' ');
        let sum: u64 = bytes[..BLOCK].iter().map(|byte| u64::from(*byte)).sum();
        bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        bytes
    };
    let pax = extended(b'x', b"9 path=x\n");
    assert_eq!(read_all(&[&pax[..], &good[..]].concat()).expect("well formed")[0].0.path, b"x");
    check("two extended headers", [&pax[..], &pax[..], &good[..]].concat());
    check("an extended header of nothing", [&pax[..], trailer()].concat());
    check("long name of both kinds", [&pax[..], &extended(b'L', b"y\0")[..], &good[..]].concat());
    check("global header in between", [&pax[..], &extended(b'g', b"9 path=y\n")[..], &good[..]].concat());
    check("malformed record", [&extended(b'x', b"8 path=x\n")[..], &good[..]].concat());
    check("huge extended header", [&extended(b'x', &vec![b'a'; 1 << 21])[..], &good[..]].concat());
    check("unknown type", extended(b'Q', b""));
    check("owner too large", [&extended(b'x', b"18 uid=4294967295\n")[..], &good[..]].concat());
    let global = [&extended(b'g', b"9 path=y\n")[..], &good[..]].concat();
    assert_eq!(read_all(&global).expect("ignored")[0].0.path, b"f");

    // The size of the pax header wins, and the bytes in the file are no members of this archive.
    let nested = write_all(&[file(b"inner", b"")]);
    let (header, _) = file(b"outer", b"");
    let mut smuggled = extended(b'x', format!("13 size={}\n", nested.len()).as_bytes());
    encode(&header, &mut smuggled).expect("written");
    smuggled.extend_from_slice(&nested);
    smuggled.extend_from_slice(trailer());
    let all = read_all(&smuggled).expect("well formed");
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].1.len(), nested.len());
    // A size that is only declared allocates nothing.
    let huge = extended(b'x', b"28 size=9223372036854775000\n");
    check("declared size", [&huge[..], &good[..]].concat());
}

proptest! {
    #[test]
    fn tar_core_reads_what_is_written(files in proptest::collection::vec(any_header(), 0..6)) {
        let bytes = write_all(&files);
        let mut parser = tar_core::parse::Parser::with_defaults();
        // It knows no times before 1970.
        parser.set_ignore_pax_errors(true);
        let mut rest = bytes.as_slice();
        for (header, content) in &files {
            let event = parser.parse(rest).expect("well formed");
            let tar_core::parse::ParseEvent::Entry { consumed, entry } = event else {
                panic!("{event:?} instead of {header:?}");
            };
            prop_assert_eq!(&entry.path[..], header.path.as_slice());
            prop_assert_eq!((entry.mode, entry.uid, entry.gid), (header.mode, header.uid.into(), header.gid.into()));
            prop_assert_eq!(entry.mtime, u64::try_from(header.mtime.0).unwrap_or(0));
            prop_assert_eq!(entry.size, header.size);
            prop_assert_eq!(entry.xattrs.len(), header.xattrs.len());
            rest = &rest[consumed..];
            prop_assert_eq!(&rest[..content.len()], content.as_slice());
            rest = &rest[content.len() + padding(header.size).len()..];
        }
        let end = matches!(parser.parse(rest), Ok(tar_core::parse::ParseEvent::End { .. }));
        prop_assert!(end);
    }
}

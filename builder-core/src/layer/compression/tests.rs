use std::process::{Command, Stdio};

use super::*;

/// Bytes that compress about as text does.
fn sample(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let mut bytes = Vec::with_capacity(length + 64);
    while bytes.len() < length {
        bytes.extend_from_slice(format!("line {} of {}\n", next() % 5000, next() % 50).as_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn compress(compression: Compression, threads: usize, bytes: &[u8], piece: usize) -> Vec<u8> {
    let mut compressor = Compressor::with_threads(compression, None, Vec::new(), threads).expect("starts");
    for piece in bytes.chunks(piece) {
        compressor.write_all(piece).expect("written");
        compressor.flush().expect("flushed");
    }
    compressor.finish().expect("finished")
}

fn decompress(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut decompressed = Vec::new();
    let mut decompressor = Decompressor::new(bytes)?;
    decompressor.read_to_end(&mut decompressed)?;
    decompressor.drain()?;
    Ok(decompressed)
}

#[test]
fn equal_bytes_for_any_number_of_threads_and_pieces() {
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Uncompressed] {
        for length in [0, 1, 1000, 1 << 20, (1 << 20) + 1, 5_300_000] {
            let bytes = sample(length);
            let one = compress(compression, 1, &bytes, 100_000);
            for (threads, piece) in [(2, 1 << 20), (5, 4096), (16, 77_777)] {
                let many = compress(compression, threads, &bytes, piece);
                assert!(many == one, "{compression:?} of {length} bytes with {threads} threads");
            }
            assert!(decompress(&one).expect("decompresses") == bytes, "{compression:?} of {length} bytes");
        }
    }
}

#[test]
fn the_gzip_program_reads_what_is_written() {
    let bytes = sample(3_000_000);
    let compressed = compress(Compression::Gzip, 2, &bytes, 1 << 16);
    assert!(compressed.len() < bytes.len() / 2);
    let Ok(mut child) = Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
        eprintln!("skipped: there is no gzip program");
        return;
    };
    let mut input = child.stdin.take().expect("piped");
    let writer = std::thread::spawn(move || input.write_all(&compressed));
    let output = child.wait_with_output().expect("ended");
    writer.join().expect("no panic").expect("written");
    assert!(output.status.success());
    assert!(output.stdout == bytes);
}

#[test]
fn what_other_programs_write_is_read() {
    let bytes = sample(100_000);
    let two = [compress(Compression::Gzip, 1, &bytes, 1 << 16), compress(Compression::Gzip, 1, b"end", 1 << 16)];
    assert!(decompress(&two.concat()).expect("two members") == [&bytes[..], b"end"].concat());
    let frames = [compress(Compression::Zstd, 1, &bytes, 1 << 16), compress(Compression::Zstd, 1, b"end", 1 << 16)];
    assert!(decompress(&frames.concat()).expect("two frames") == [&bytes[..], b"end"].concat());
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9][..], &frames[1]].concat();
    assert_eq!(decompress(&skippable).expect("a skippable frame"), b"end");
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&bytes).expect("written");
    assert!(decompress(&xz.finish().expect("finished")).expect("xz") == bytes);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&bytes).expect("written");
    assert!(decompress(&bzip2.finish().expect("finished")).expect("bzip2") == bytes);
    assert_eq!(decompress(b"plain").expect("nothing"), b"plain");
    assert_eq!(decompress(b"").expect("nothing"), b"");
}

#[test]
fn damaged_streams_are_errors() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let mut compressed = compress(compression, 1, &sample(50_000), 1 << 16);
        assert!(decompress(&compressed[..compressed.len() - 5]).is_err(), "{compression:?} cut off");
        let middle = compressed.len() / 2;
        compressed[middle] ^= 0xff;
        assert!(decompress(&compressed).is_err(), "{compression:?} changed");
    }
}

#[test]
fn a_sink_that_fails_ends_the_stream() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for compression in [Compression::Gzip, Compression::Zstd, Compression::Uncompressed] {
        let mut compressor = Compressor::with_threads(compression, None, Full, 3).expect("starts");
        let written = compressor.write_all(&sample(9_000_000)).and_then(|()| compressor.finish().map(drop));
        assert_eq!(written.expect_err("full").kind(), io::ErrorKind::StorageFull, "{compression:?}");
    }
}

#[test]
fn levels_have_limits() {
    assert_eq!(Level::new(Compression::Gzip, 10), None);
    assert_eq!(Level::new(Compression::Zstd, 22).map(Level::get), Some(22));
    let small = Compressor::with_threads(Compression::Gzip, Level::new(Compression::Gzip, 9), Vec::new(), 1);
    let mut large = Compressor::with_threads(Compression::Gzip, Level::new(Compression::Gzip, 0), Vec::new(), 1);
    let (mut small, large) = (small.expect("starts"), large.as_mut().expect("starts"));
    small.write_all(&sample(100_000)).expect("written");
    large.write_all(&sample(100_000)).expect("written");
    assert!(small.finish().expect("finished").len() < 60_000);
}

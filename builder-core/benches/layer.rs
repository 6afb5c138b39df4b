//! Layers in and out: how fast a tree is packed, and a blob unpacked.
//!
//! Two shapes: many small files, where system calls and headers count, and one large file, where bytes do.

use std::cell::RefCell;
use std::fs;
use std::hint::black_box;
use std::io;

use builder_core::layer::{self, LayerFormat, PackOptions, UnpackOptions};
use builder_core::oci::Compression;
use builder_core::snapshot::{Snapshot, SnapshotStore};
use builder_core::tree::{Stack, Tree};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

/// Words that compress about as source code does.
fn text(length: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 16
    };
    let mut bytes = Vec::with_capacity(length + 64);
    while bytes.len() < length {
        bytes.extend_from_slice(format!("let value_{} = call({});\n", next() % 5000, next() % 50).as_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Commits a snapshot of `files` files of `size` bytes each.
fn snapshot(store: &SnapshotStore, files: usize, size: usize) -> (Tree, Snapshot) {
    let active = store.begin().expect("begun");
    let content = text(size);
    for number in 0..files {
        let directory = active.path().join(format!("d{}", number % 50));
        fs::create_dir_all(&directory).expect("made");
        fs::write(directory.join(format!("f{number}")), &content).expect("written");
    }
    let tree = layer::capture(&active, &Stack::default()).expect("captured");
    let snapshot = store.commit(active, &tree).expect("committed");
    (tree, snapshot)
}

fn layers(criterion: &mut Criterion) {
    let state = tempfile::tempdir().expect("temporary directory");
    let store = SnapshotStore::new(state.path());
    for (name, files, size) in [("5000 files of 4 KiB", 5000, 4096), ("one file of 64 MiB", 1, 64 << 20)] {
        let (tree, snapshot) = snapshot(&store, files, size);
        let options = PackOptions::default();
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10).throughput(Throughput::Bytes((files * size) as u64));
        group.bench_function("diff id", |bencher| {
            bencher.iter(|| layer::diff_id(&tree, &snapshot, &options).expect("hashed"));
        });
        for compression in [Compression::Uncompressed, Compression::Gzip, Compression::Zstd] {
            let format = LayerFormat { compression, ..LayerFormat::default() };
            group.bench_function(format!("pack, {compression:?}"), |bencher| {
                bencher.iter(|| layer::write_layer(&tree, &snapshot, &format, &options, io::sink()).expect("packed"));
            });
            let mut blob = Vec::new();
            layer::write_layer(&tree, &snapshot, &format, &options, &mut blob).expect("packed");
            // Removed at the end: for five seconds ext4 makes a detour around every inode that was just freed, and files
            // that are made in that time cost twenty times as much.
            let kept = RefCell::new(Vec::new());
            group.bench_function(format!("unpack, {compression:?}"), |bencher| {
                bencher.iter_batched(
                    || store.begin().expect("begun"),
                    |active| {
                        let unpacked = layer::unpack(blob.as_slice(), &active, &UnpackOptions::default());
                        black_box(unpacked.expect("unpacked").size);
                        // Only where files are small: they take the time, and large ones the space.
                        if files > 1 {
                            kept.borrow_mut().push(active);
                        }
                    },
                    BatchSize::PerIteration,
                );
            });
        }
        group.finish();
    }
}

criterion_group!(benches, layers);
criterion_main!(benches);

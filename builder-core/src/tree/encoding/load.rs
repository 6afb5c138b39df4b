//! Trees from files: every piece is compared with its digest while it is read.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::{HEADER, Tree, TreeError};
use crate::tree::piece::{Piece, ROW, Row};

/// Bytes of pieces from which on several threads read them.
const WORTH_THREADS: u64 = 256 << 10;

/// What came of reading: an error of the file system is not one of what is in the file.
type Loaded<T> = io::Result<Result<T, TreeError>>;

impl Tree {
    /// Reads the encoding from `start` to the end of a file. The pieces that `rest` has are not in it.
    pub(in crate::tree) fn load(file: &File, start: u64, rest: Option<&Self>) -> Loaded<Self> {
        let end = file.metadata()?.len();
        let rows = match rows(file, start, end)? {
            Ok(rows) => rows,
            Err(error) => return Ok(Err(error)),
        };
        let known = rest.into_iter().flat_map(Self::pieces).map(|piece| (piece.row.digest, piece));
        let known: HashMap<[u8; 32], &Piece> = known.collect();
        let known =
            |row: &Row| known.get(&row.digest).filter(|piece| piece.row == *row).map(|piece| Piece::clone(piece));
        let known: Vec<Option<Piece>> = rows.iter().map(known).collect();
        let own = rows.iter().zip(&known).filter(|(_, known)| known.is_none());
        let own: Vec<Row> = own.map(|(row, _)| *row).collect();
        let start = start + (HEADER + rows.len() * ROW) as u64;
        let length: u64 = own.iter().map(|row| row.length() as u64).sum();
        if start + length != end {
            return Ok(Err(if start + length > end { TreeError::SHORT } else { TreeError::LONG }));
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
        if !read_all(file, start, &own, &mut bytes)? {
            return Ok(Err(TreeError::Malformed("a piece has another digest")));
        }
        Ok(Self::assembled(&rows, known, bytes, 0))
    }
}

/// What a tree says of its pieces.
fn rows(file: &File, start: u64, end: u64) -> Loaded<Vec<Row>> {
    let mut head = [0; HEADER];
    if end < start + HEADER as u64 {
        return Ok(Err(TreeError::SHORT));
    }
    file.read_exact_at(&mut head, start)?;
    let length = match super::count(&head) {
        Ok(count) => count as u64 * ROW as u64,
        Err(error) => return Ok(Err(error)),
    };
    if end - start - (HEADER as u64) < length {
        return Ok(Err(TreeError::SHORT));
    }
    let mut bytes = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, start + HEADER as u64)?;
    Ok(Ok(super::rows(&bytes)))
}

/// Reads pieces that follow each other; says whether each has its digest.
fn read_all(file: &File, start: u64, rows: &[Row], bytes: &mut [u8]) -> io::Result<bool> {
    if (bytes.len() as u64) < WORTH_THREADS {
        return read(file, start, rows, bytes);
    }
    let (mut length, half) = (0, bytes.len() / 2);
    let first = rows.iter().take_while(|row| {
        length += row.length();
        length <= half
    });
    let (one, other) = rows.split_at(first.count());
    let middle = one.iter().map(Row::length).sum();
    let (first, second) = bytes.split_at_mut(middle);
    std::thread::scope(|scope| {
        let one = scope.spawn(|| read(file, start, one, first));
        let other = read(file, start + middle as u64, other, second);
        Ok(other? && one.join().expect("it does not panic")?)
    })
}

fn read(file: &File, mut at: u64, rows: &[Row], mut bytes: &mut [u8]) -> io::Result<bool> {
    for row in rows {
        let (piece, rest) = std::mem::take(&mut bytes).split_at_mut(row.length());
        file.read_exact_at(piece, at)?;
        if *blake3::hash(piece).as_bytes() != row.digest {
            return Ok(false);
        }
        at += row.length() as u64;
        bytes = rest;
    }
    Ok(true)
}

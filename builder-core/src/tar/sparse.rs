//! Sparse files of GNU tar: where their bytes belong.

use super::BLOCK;
use super::numbers;

/// Most bytes that a map may take in the archive; each region is at least 4 of them (CVE-2025-58183).
pub(super) const MAP_MAX: usize = 1024 * 1024;

/// Most regions of one file.
const REGIONS_MAX: usize = MAP_MAX / 16;

/// Reads the regions of one block of the old format: 12 bytes of offset and 12 of length each, up to an empty one.
pub(super) fn push_regions(fields: &[u8], map: &mut Vec<u64>) -> Result<(), &'static str> {
    for region in fields.chunks_exact(24) {
        if region[0] == 0 {
            break;
        }
        if map.len() / 2 >= REGIONS_MAX {
            return Err("a sparse file has too many regions");
        }
        for field in [&region[..12], &region[12..]] {
            let number = numbers::parse(field).and_then(|number| u64::try_from(number).ok());
            map.push(number.ok_or("a sparse map is malformed")?);
        }
    }
    Ok(())
}

/// Reads the map of format 1.0, decimal lines in front of the content, block by block: the number of regions, then
/// offset and length of each. Returns the numbers and how many bytes the map took.
pub(super) fn read_lines(
    mut next_block: impl FnMut() -> Result<[u8; BLOCK], super::TarError>,
) -> Result<Result<(Vec<u64>, u64), &'static str>, super::TarError> {
    let (mut numbers, mut line, mut taken) = (Vec::new(), Vec::new(), 0);
    let mut expected = None;
    while expected.is_none_or(|expected| numbers.len() < expected) {
        if taken >= MAP_MAX {
            return Ok(Err("a sparse map is too long"));
        }
        let block = next_block()?;
        taken += BLOCK;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let Some(number) = numbers::decimal(&line) else { return Ok(Err("a sparse map is malformed")) };
            line.clear();
            match expected {
                None if number > REGIONS_MAX as u64 => return Ok(Err("a sparse file has too many regions")),
                None => expected = usize::try_from(number * 2).ok(),
                Some(_) => numbers.push(number),
            }
            if expected.is_some_and(|expected| numbers.len() == expected) {
                break;
            }
        }
    }
    Ok(Ok((numbers, taken as u64)))
}

/// Checks that the regions ascend, lie in the file, and are as long as what is stored. Empty ones are left out.
pub(super) fn check(map: &[u64], real_size: u64, stored: u64) -> Result<Vec<(u64, u64)>, &'static str> {
    if !map.len().is_multiple_of(2) || map.len() / 2 > REGIONS_MAX {
        return Err("a sparse map is malformed");
    }
    let (mut regions, mut end, mut total) = (Vec::new(), 0_u64, 0_u64);
    for pair in map.chunks_exact(2) {
        let (offset, length) = (pair[0], pair[1]);
        let next = offset.checked_add(length).filter(|next| *next <= real_size && offset >= end);
        end = next.ok_or("the regions of a sparse file overlap or lie outside of it")?;
        total += length;
        if length > 0 {
            regions.push((offset, length));
        }
    }
    if total != stored {
        return Err("the regions of a sparse file are not as long as what is stored");
    }
    Ok(regions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_ascend_and_fit() {
        assert_eq!(check(&[0, 2, 4, 1, 9, 0], 9, 3), Ok(vec![(0, 2), (4, 1)]));
        for (map, real, stored) in [
            (&[0, 2, 1, 1][..], 9, 3),
            (&[4, 1, 0, 2], 9, 3),
            (&[0, 10], 9, 10),
            (&[0, 2], 9, 3),
            (&[0], 9, 0),
            (&[u64::MAX, 2], u64::MAX, 2),
        ] {
            assert!(check(map, real, stored).is_err(), "{map:?}");
        }
    }
}

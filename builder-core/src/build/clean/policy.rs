//! [`Policy`]: which items of the build cache go. Pure.
//!
//! What is kept is what would be expensive to have again: an item is worth the seconds that its step took for each byte
//! that it occupies, and less the longer nobody used it. (`max_used_space`, `reserved_space` and `min_free_space` mean
//! what they mean in BuildKit's garbage collection.)

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::item::{CacheItem, CacheKind};
use crate::tree::TreeId;

/// An amount of space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Bytes.
    Bytes(u64),
    /// Hundredths of the file system that the store is on.
    Percent(u8),
}

impl Space {
    /// In bytes, on a file system of this size.
    fn of(self, total: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => total / 100 * u64::from(percent),
        }
    }
}

/// Decides for each item whether a policy is about it.
#[derive(Clone)]
pub struct ItemFilter {
    test: Arc<dyn Fn(&CacheItem) -> bool + Send + Sync>,
    parents: bool,
    descriptions: bool,
}

impl ItemFilter {
    /// Lets through what `test` is true for. What is costly to find out is looked up only if it is said that the test looks
    /// at it: `parents`, and `descriptions` as the history has them.
    pub fn new(test: impl Fn(&CacheItem) -> bool + Send + Sync + 'static, parents: bool, descriptions: bool) -> Self {
        Self { test: Arc::new(test), parents, descriptions }
    }
}

impl fmt::Debug for ItemFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ItemFilter(..)")
    }
}

impl PartialEq for ItemFilter {
    /// Whether it is the same one: what two functions do cannot be compared.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.test, &other.test)
    }
}

impl Eq for ItemFilter {}

/// Which items go. Without any limit: all that match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Only these kinds; all if empty.
    pub kinds: Vec<CacheKind>,
    /// Only items that it lets through.
    pub filter: Option<ItemFilter>,
    /// Only items that were not used for so long.
    pub keep_duration: Option<Duration>,
    /// The most that the build cache may take.
    pub max_used_space: Option<Space>,
    /// What the build cache may take in any case.
    pub reserved_space: Option<Space>,
    /// What should be free on the file system.
    pub min_free_space: Option<Space>,
}

impl Policy {
    /// What runs after builds where nothing else is configured: downloads and fetched sources go after two days,
    /// everything after sixty, and the build cache takes at most 60 % of the file system and leaves 20 % of it free,
    /// as long as it has 10 %.
    pub fn defaults() -> Vec<Self> {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        vec![
            Self {
                kinds: vec![CacheKind::Source, CacheKind::Git, CacheKind::Download],
                keep_duration: Some(2 * DAY),
                ..Self::default()
            },
            Self { keep_duration: Some(60 * DAY), ..Self::default() },
            Self {
                max_used_space: Some(Space::Percent(60)),
                reserved_space: Some(Space::Percent(10)),
                min_free_space: Some(Space::Percent(20)),
                ..Self::default()
            },
        ]
    }

    /// Whether the parents of items have to be known.
    pub(super) fn needs_parents(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.parents)
    }

    /// Whether the descriptions have to be those of the history.
    pub(super) fn needs_descriptions(&self) -> bool {
        self.filter.as_ref().is_some_and(|filter| filter.descriptions)
    }

    /// The most that the cache may keep; `None` if the policy has no limit.
    fn keep_bytes(&self, used: u64, disk: Disk) -> Option<u64> {
        if self.max_used_space.is_none() && self.reserved_space.is_none() && self.min_free_space.is_none() {
            return None;
        }
        let mut keep = self.max_used_space.map(|space| space.of(disk.total));
        if let Some(wanted) = self.min_free_space {
            let missing = wanted.of(disk.total).saturating_sub(disk.free);
            keep =
                Some(keep.unwrap_or(u64::MAX).min(if missing > 0 { used.saturating_sub(missing) } else { u64::MAX }));
        }
        let reserved = self.reserved_space.map_or(0, |space| space.of(disk.total));
        // With a reserve alone everything above it goes.
        Some(keep.unwrap_or(reserved).max(reserved))
    }

    fn matches(&self, item: &CacheItem, now: i64) -> bool {
        let idle = u64::try_from(now.saturating_sub(item.last_used)).unwrap_or(0);
        !item.in_use
            && (self.kinds.is_empty() || self.kinds.contains(&item.kind))
            && self.filter.as_ref().is_none_or(|filter| (filter.test)(item))
            && self.keep_duration.is_none_or(|keep| idle >= keep.as_secs())
    }

    /// What goes: indexes into `items`.
    ///
    /// Under a limit the files of steps go before what is known about them, which is small: a step whose files are gone
    /// still hits, and runs again only if somebody needs the files.
    pub(super) fn choose(&self, items: &[CacheItem], disk: Disk, now: i64) -> Chosen {
        let mut candidates: Vec<usize> = (0..items.len()).filter(|at| self.matches(&items[*at], now)).collect();
        let mut used: u64 = items.iter().map(CacheItem::own_size).sum();
        let Some(keep) = self.keep_bytes(used, disk) else {
            let chosen: HashSet<usize> = candidates.iter().copied().collect();
            let needed = bases(items.iter().enumerate().filter(|(at, _)| !chosen.contains(at)).map(|(_, item)| item));
            candidates.retain(|at| items[*at].tree().is_none_or(|tree| !needed.contains_key(&tree)));
            return Chosen { whole: candidates, files: Vec::new() };
        };
        let mut chosen = Chosen::default();
        candidates.sort_by(|left, right| items[*left].worth(now).total_cmp(&items[*right].worth(now)));
        // Nothing is free when a base goes whose derived snapshots stay: it comes after them.
        let mut needed = bases(items);
        let is_base = |at: &usize| items[*at].tree().is_some_and(|tree| needed.contains_key(&tree));
        let (after, before): (Vec<usize>, Vec<usize>) = candidates.iter().partition(|at| is_base(at));
        for at in before.into_iter().chain(after) {
            let item = &items[at];
            let is_needed = item.tree().is_some_and(|tree| needed.get(&tree).is_some_and(|count| *count > 0));
            if used > keep && item.files > 0 && !item.shared && !is_needed {
                used -= item.files;
                chosen.files.push(at);
                if let Some(count) = item.base.and_then(|base| needed.get_mut(&base)) {
                    *count -= 1;
                }
            }
        }
        candidates.sort_by_key(|at| items[*at].last_used);
        for at in candidates {
            let item = &items[at];
            if used > keep && item.facts > 0 {
                used -= item.facts;
                chosen.whole.push(at);
            }
        }
        let whole: HashSet<usize> = chosen.whole.iter().copied().collect();
        chosen.files.retain(|at| !whole.contains(at));
        chosen
    }
}

/// How many snapshots are derived from each base.
fn bases<'a>(items: impl IntoIterator<Item = &'a CacheItem>) -> HashMap<TreeId, usize> {
    let mut bases = HashMap::new();
    for base in items.into_iter().filter(|item| item.files > 0).filter_map(|item| item.base) {
        *bases.entry(base).or_default() += 1;
    }
    bases
}

/// The file system that the store is on, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Disk {
    pub(super) total: u64,
    pub(super) free: u64,
}

/// What a policy came to; indexes of items.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Chosen {
    /// Items that go with all that is known about them.
    pub(super) whole: Vec<usize>,
    /// Items of which only the files go.
    pub(super) files: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::super::item::Place;
    use super::*;

    const DISK: Disk = Disk { total: 1000 << 20, free: 500 << 20 };

    fn item(id: usize, files: u64, milliseconds: u64, last_used: i64) -> CacheItem {
        CacheItem { files: files << 20, milliseconds, last_used, ..CacheItem::of(id.to_string(), CacheKind::Step) }
    }

    fn chosen(policy: &Policy, items: &[CacheItem], disk: Disk) -> Vec<usize> {
        let chosen = policy.choose(items, disk, 1000);
        let mut all = [chosen.whole, chosen.files].concat();
        all.sort_unstable();
        all
    }

    #[test]
    fn without_limits_everything_that_matches_goes() {
        let mut items = vec![item(0, 1, 0, 0), item(1, 1, 0, 990), item(2, 1, 0, 0)];
        items[2].in_use = true;
        assert_eq!(chosen(&Policy::default(), &items, DISK), [0, 1]);
        let old = Policy { keep_duration: Some(Duration::from_secs(100)), ..Policy::default() };
        assert_eq!(chosen(&old, &items, DISK), [0]);
        let one = Policy { filter: Some(ItemFilter::new(|item| item.id == "1", false, false)), ..Policy::default() };
        assert_eq!(chosen(&one, &items, DISK), [1]);
        let mounts = Policy { kinds: vec![CacheKind::Mount], ..Policy::default() };
        assert_eq!(chosen(&mounts, &items, DISK), [0; 0]);
    }

    #[test]
    fn limits_mean_what_they_mean_in_buildkit() {
        let items: Vec<CacheItem> =
            (0..10).zip((0..).step_by(100)).map(|(id, used)| item(id, 10, 1000, used)).collect();
        let mib = |number: u64| Some(Space::Bytes(number << 20));
        let check = |policy: Policy, free: u64, left: usize| {
            let gone = chosen(&policy, &items, Disk { free: free << 20, ..DISK });
            // The longest unused go first where everything else is equal.
            assert_eq!(gone, (0..10 - left).collect::<Vec<_>>(), "{policy:?}");
        };
        check(Policy { max_used_space: mib(55), ..Policy::default() }, 500, 5);
        check(Policy { max_used_space: mib(100), ..Policy::default() }, 0, 10);
        check(Policy { reserved_space: mib(30), ..Policy::default() }, 500, 3);
        check(Policy { min_free_space: mib(100), ..Policy::default() }, 500, 10);
        check(Policy { min_free_space: mib(100), ..Policy::default() }, 75, 7);
        check(Policy { min_free_space: mib(900), reserved_space: mib(40), ..Policy::default() }, 0, 4);
        check(Policy { max_used_space: mib(90), min_free_space: mib(100), ..Policy::default() }, 60, 6);
        check(Policy { max_used_space: Some(Space::Percent(2)), ..Policy::default() }, 500, 2);
    }

    #[test]
    fn what_is_quick_to_make_again_goes_first() {
        let items = [item(0, 100, 100, 900), item(1, 100, 60_000, 900), item(2, 1, 60_000, 900)];
        let policy = Policy { max_used_space: Some(Space::Bytes(150 << 20)), ..Policy::default() };
        assert_eq!(chosen(&policy, &items, DISK), [0]);
        let policy = Policy { max_used_space: Some(Space::Bytes(50 << 20)), ..Policy::default() };
        assert_eq!(chosen(&policy, &items, DISK), [0, 1]);
    }

    #[test]
    fn what_others_are_derived_from_goes_after_them() {
        let tree = |number: u8| TreeId::new([number; 32]);
        let mut items = [item(0, 100, 0, 0), item(1, 1, 60_000, 900), item(2, 1, 60_000, 900), item(3, 10, 60_000, 0)];
        for (number, item) in (0..).zip(&mut items) {
            item.place = Place::Tree(tree(number), Vec::new());
        }
        items[1].base = Some(tree(0));
        items[2].base = Some(tree(0));
        let keep = |mebibytes: u64| Policy { max_used_space: Some(Space::Bytes(mebibytes << 20)), ..Policy::default() };
        assert_eq!(chosen(&keep(111), &items, DISK), [3]);
        assert_eq!(chosen(&keep(99), &items, DISK), [0, 1, 2, 3]);
        let two = ItemFilter::new(|item| matches!(item.id.as_str(), "0" | "1"), false, false);
        let two = Policy { filter: Some(two), ..Policy::default() };
        assert_eq!(chosen(&two, &items, DISK), [1], "the other one still needs it");
        assert_eq!(chosen(&Policy::default(), &items, DISK), [0, 1, 2, 3]);
    }

    #[test]
    fn facts_outlive_files() {
        let items: Vec<CacheItem> = (0..3).map(|id| CacheItem { facts: 4096, ..item(id, 1, 0, 0) }).collect();
        let policy = Policy { max_used_space: Some(Space::Bytes(3 * 4096)), ..Policy::default() };
        assert_eq!(policy.choose(&items, DISK, 1000), Chosen { whole: Vec::new(), files: vec![0, 1, 2] });
        let policy = Policy { max_used_space: Some(Space::Bytes(2 * 4096)), ..Policy::default() };
        assert_eq!(policy.choose(&items, DISK, 1000), Chosen { whole: vec![0], files: vec![1, 2] });
    }

    /// Steps are used again and again, each at its own pace; a cache half as large as all of them is kept by two orders.
    #[test]
    fn seconds_for_bytes_save_more_time_than_the_last_use() {
        let simulate = |worth: fn(&CacheItem, i64) -> f64| {
            let mut random = 1u64;
            let mut next = move |below: u64| {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (random >> 33) % below
            };
            let items: Vec<(u64, u64)> = (0..60).map(|_| (1 + next(200), 100 + next(60) * next(1000))).collect();
            let limit = items.iter().map(|(files, _)| files << 20).sum::<u64>() / 2;
            let (mut cached, mut lost): (Vec<CacheItem>, u64) = (Vec::new(), 0);
            for time in 0..5000i64 {
                let wanted = usize::try_from(next(60) * next(60) / 60).expect("small");
                let name = wanted.to_string();
                if let Some(hit) = cached.iter_mut().find(|item| item.id == name) {
                    hit.last_used = time * 600;
                    continue;
                }
                lost += items[wanted].1;
                cached.push(item(wanted, items[wanted].0, items[wanted].1, time * 600));
                while cached.iter().map(|item| item.files).sum::<u64>() > limit {
                    let least = cached.iter().enumerate();
                    let least = least.min_by(|a, b| worth(a.1, time * 600).total_cmp(&worth(b.1, time * 600)));
                    cached.remove(least.expect("over the limit").0);
                }
            }
            lost
        };
        let ours = simulate(CacheItem::worth);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let last_use = simulate(|item, _| item.last_used as f64);
        assert!(ours * 10 < last_use * 7, "{ours} ms against {last_use} ms");
    }
}

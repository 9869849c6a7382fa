//! The regions of a peer as they come and go: changed by what the peer says, read by submitters without a lock.
//!
//! A table that is read is never changed. What is new goes into a level of its own, and levels of like size are joined,
//! so a change costs the logarithm of their number on average, and a table has few levels. What is gone is left out by
//! its id until it is an eighth of all, and then all levels become one. So readers never make a table.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::remote_level::{Entry, Level};
use super::remote_table::{RemoteRegion, RemoteTable};
use crate::control::wire::{AnnouncedRegion, Change, MAX_ANNOUNCED, RegionChanges, RegionEntry, WireError};
use crate::sync::{Mutex, Swap, SwapGuard, lock};

/// Regions that are gone and remembered, so that transfers with their keys are refused; the newest of them.
const REMEMBERED: usize = 65_536;

/// The regions of one peer.
#[derive(Debug)]
pub struct RemoteRegions {
    /// Held by the connection's task, or its helper, while it takes changes.
    state: Mutex<State>,
    table: Swap<RemoteTable>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    remembered: usize,
    /// Everything up to it is known.
    version: u64,
    /// While the peer begins anew: the version at which what it has not named again is gone.
    reset: Option<u64>,
    /// Counts the resets.
    generation: u64,
    by_id: HashMap<u64, Known>,
    /// Entries of all levels of the table.
    entries: usize,
    /// Ids of regions that are gone and still in the table.
    gone: HashSet<u64>,
    /// See [`RemoteTable::flushes_unknown`].
    has_gpu_flush: bool,
    /// Of a further rail: its keys are those of the first one.
    has_first_keys: bool,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    region: RemoteRegion,
    /// The reset after which it was last named.
    generation: u64,
    /// See [`Entry::first`].
    first: u64,
    /// See [`Entry::first_rkey`].
    first_rkey: Option<u32>,
}

/// What changes do to the table.
#[derive(Default)]
struct Effect {
    added: Vec<Entry>,
    gone: Vec<u64>,
    /// Ids of regions that are gone, and to be forgotten: their keys name other memory.
    forgotten: HashSet<u64>,
    /// A known region has changed.
    replaced: bool,
}

impl RemoteRegions {
    /// As announced at the handshake.
    pub fn new(regions: &[RegionEntry]) -> Self {
        Self::with_limits(regions, MAX_ANNOUNCED, REMEMBERED)
    }

    /// Of the peer's NIC of a further rail: none until it has told them. A key that is not among them is of the first rail.
    pub fn of_rail() -> Self {
        Self::new(&[])
    }

    /// The same where that NIC is the one of the first rail: memory has the same keys there, and the peer does not name them twice.
    pub fn of_rail_over_first_nic() -> Self {
        let made = Self::of_rail();
        lock(&made.state).has_first_keys = true;
        made
    }

    /// The same of a peer of which memory of unknown keys is flushed from the start, or not: see
    /// [`Features::NEEDS_GPU_FLUSH`](crate::control::wire::Features::NEEDS_GPU_FLUSH).
    pub fn of_peer(regions: &[RegionEntry], flushes_unknown: bool) -> Self {
        let made = Self::new(regions);
        if flushes_unknown {
            let mut state = lock(&made.state);
            state.has_gpu_flush = true;
            let table = made.table.load();
            let (levels, gone) = (table.levels.clone(), table.gone.clone());
            made.table.store(Arc::new(RemoteTable { levels, gone, has_gpu_flush: true }));
        }
        made
    }

    /// As [`RemoteRegions::new`]; `limit`: regions that are kept; `remembered`: regions that are gone and known as such.
    pub fn with_limits(regions: &[RegionEntry], limit: usize, remembered: usize) -> Self {
        let region = |entry: &RegionEntry| RemoteRegion {
            base: entry.base,
            size: entry.size,
            rkey: entry.rkey,
            read_only: entry.read_only,
            gpu_flush: entry.gpu_flush,
        };
        let (mut entries, mut by_id) = (Vec::with_capacity(regions.len()), HashMap::new());
        for entry in regions {
            let (id, region) = (entry.id.into(), region(entry));
            let first = first_of(&by_id, id, &region, entry.continues);
            entries.push(Entry { id, first, region, first_rkey: None, gone: false });
            if id != 0 {
                by_id.insert(id, Known { region, generation: 0, first, first_rkey: None });
            }
        }
        let has_gpu_flush = regions.iter().any(|entry| entry.gpu_flush);
        let table =
            RemoteTable { levels: vec![Arc::new(Level::new(entries))], gone: Vec::new(), has_gpu_flush };
        let version = by_id.keys().copied().max().unwrap_or(0);
        let state = State {
            limit,
            remembered,
            version,
            reset: None,
            generation: 0,
            by_id,
            entries: regions.len(),
            gone: HashSet::new(),
            has_gpu_flush,
            has_first_keys: false,
        };
        Self { state: Mutex::new(state), table: Swap::from_pointee(table) }
    }

    /// The regions now.
    #[inline]
    pub fn table(&self) -> SwapGuard<RemoteTable> {
        self.table.load()
    }

    /// How many regions the peer has that changes can name, and the version up to which it has told all changes.
    pub fn known(&self) -> (usize, u64) {
        let state = lock(&self.state);
        (state.by_id.len(), state.version)
    }

    /// Whether [`RemoteRegions::apply`] takes little time: a few microseconds.
    pub fn is_quick(&self, changes: &RegionChanges) -> bool {
        let state = lock(&self.state);
        changes.entries.len() <= QUICK_ENTRIES
            && state.entries <= QUICK_TABLE
            && !changes.entries.iter().any(|entry| state.makes_all_anew(entry))
    }

    /// Takes changes. True if regions that were there are gone, or others than before. An error is the peer's, and final.
    pub fn apply(&self, changes: &RegionChanges) -> Result<bool, WireError> {
        let mut state = lock(&self.state);
        let effect = state.take(changes)?;
        let has_lost = !effect.gone.is_empty() || effect.replaced;
        if has_lost || !effect.added.is_empty() || !effect.forgotten.is_empty() {
            let table = state.renew(&self.table.load(), effect);
            self.table.store(Arc::new(table));
        }
        Ok(has_lost)
    }
}

impl State {
    fn take(&mut self, changes: &RegionChanges) -> Result<Effect, WireError> {
        let version = changes.version;
        if changes.change == Change::Reset {
            self.generation += 1;
            (self.version, self.reset) = (0, Some(version));
        } else if version < self.version {
            return Err(error(format!("version {version} after version {}", self.version)));
        } else {
            self.version = version;
        }
        let mut effect = Effect::default();
        for entry in &changes.entries {
            match changes.change {
                Change::Add | Change::Update => self.put(entry, &mut effect)?,
                Change::Remove => self.remove(entry, &mut effect),
                Change::Reset => {}
            }
        }
        if self.reset.is_some_and(|target| self.version >= target) {
            self.reset = None;
            let generation = self.generation;
            let old = self.by_id.extract_if(|_, known| known.generation != generation);
            effect.gone.extend(old.map(|(id, _)| id));
        }
        Ok(effect)
    }

    /// Whether a change of this entry makes the whole table anew, as far as that can be told beforehand.
    fn makes_all_anew(&self, entry: &AnnouncedRegion) -> bool {
        entry.flags & AnnouncedRegion::KEY_IN_USE != 0
            || self
                .by_id
                .get(&entry.id)
                .is_some_and(|known| entry.rkey.is_some_and(|rkey| known.region != region_of(entry, rkey)))
    }

    fn put(&mut self, entry: &AnnouncedRegion, effect: &mut Effect) -> Result<(), WireError> {
        // What a later version announces without a key cannot be reached by one.
        let Some(rkey) = entry.rkey else { return Ok(()) };
        let region = region_of(entry, rkey);
        self.has_gpu_flush |= region.gpu_flush;
        let continues = entry.flags & AnnouncedRegion::CONTINUES != 0;
        let first = first_of(&self.by_id, entry.id, &region, continues);
        let first_rkey = entry.first_rkey.or_else(|| self.has_first_keys.then_some(rkey));
        let known = Known { region, generation: self.generation, first, first_rkey };
        let before = self.by_id.insert(entry.id, known);
        match before {
            Some(before) => {
                effect.replaced |=
                    (before.region, before.first, before.first_rkey) != (region, first, first_rkey)
            }
            None if self.by_id.len() > self.limit * self.generations() => {
                return Err(error(format!("more than {} regions", self.limit)));
            }
            None => effect.added.push(Entry { id: entry.id, first, region, first_rkey, gone: false }),
        }
        Ok(())
    }

    /// During a reset what was there before stays beside what is named again.
    fn generations(&self) -> usize {
        1 + usize::from(self.reset.is_some())
    }

    fn remove(&mut self, entry: &AnnouncedRegion, effect: &mut Effect) {
        let was_there = self.by_id.remove(&entry.id).is_some();
        if was_there {
            effect.gone.push(entry.id);
        }
        // Nothing is done for an id that the table does not have: the peer could ask for it without end.
        let is_known = was_there || self.gone.contains(&entry.id);
        if is_known && entry.flags & AnnouncedRegion::KEY_IN_USE != 0 {
            effect.forgotten.insert(entry.id);
        }
    }

    fn renew(&mut self, old: &RemoteTable, effect: Effect) -> RemoteTable {
        let mut levels = old.levels.clone();
        let mut gone = old.gone.clone();
        let has_gpu_flush = self.has_gpu_flush;
        self.entries += effect.added.len();
        if !effect.added.is_empty() {
            levels.push(Arc::new(Level::new(effect.added)));
        }
        self.gone.extend(&effect.gone);
        gone.extend(effect.gone);
        gone.sort_unstable();
        if effect.replaced || !effect.forgotten.is_empty() || gone.len() > 64 + self.entries / 8 {
            let entries = self.all_in_one(&levels, &effect.forgotten);
            self.entries = entries.len();
            self.gone = entries.iter().filter(|entry| entry.gone).map(|entry| entry.id).collect();
            return RemoteTable {
                levels: vec![Arc::new(Level::new(entries))],
                gone: Vec::new(),
                has_gpu_flush,
            };
        }
        join_like_sizes(&mut levels);
        RemoteTable { levels, gone, has_gpu_flush }
    }

    /// The entries of all levels as they are now, the oldest first. Of those that are gone the newest.
    fn all_in_one(&self, levels: &[Arc<Level>], forgotten: &HashSet<u64>) -> Vec<Entry> {
        let entries = levels.iter().flat_map(|level| level.entries());
        let mut entries: Vec<_> = entries
            .filter(|entry| !forgotten.contains(&entry.id))
            .map(|entry| match self.by_id.get(&entry.id) {
                Some(known) => {
                    Entry { region: known.region, first: known.first, first_rkey: known.first_rkey, ..*entry }
                }
                None => Entry { gone: entry.id != 0, ..*entry },
            })
            .collect();
        // A peer that uses an id twice gets one region of it.
        let mut seen = HashSet::new();
        entries.retain(|entry| entry.gone || entry.id == 0 || seen.insert(entry.id));
        let mut too_many = entries.iter().filter(|entry| entry.gone).count().saturating_sub(self.remembered);
        entries.retain(|entry| {
            let drop = entry.gone && too_many > 0;
            too_many -= usize::from(drop);
            !drop
        });
        entries
    }
}

/// Joins the last levels until each is more than twice as large as the next.
fn join_like_sizes(levels: &mut Vec<Arc<Level>>) {
    while let [.., before, last] = levels.as_slice()
        && before.entries().len() <= 2 * last.entries().len()
    {
        let joined = Level::new([before.entries(), last.entries()].concat());
        levels.truncate(levels.len() - 2);
        levels.push(Arc::new(joined));
    }
}

/// See [`Entry::first`]. What says that it continues another region, and does not lie behind it, is a region of its own.
///
/// So is what lies behind a short segment that is not the first: a registration is cut at pages. A transfer has a work request for each
/// segment that it crosses, and a peer must not make them as many as its bytes.
fn first_of(by_id: &HashMap<u64, Known>, id: u64, region: &RemoteRegion, continues: bool) -> u64 {
    let before = id.checked_sub(1).filter(|_| continues).and_then(|before| by_id.get(&before));
    let is_behind = |before: &&Known| {
        before.region.read_only == region.read_only
            && before.region.base.checked_add(before.region.size) == Some(region.base)
            && (id - 1 == before.first || before.region.size >= SHORTEST_WITHIN)
    };
    before.filter(is_behind).map_or(id, |before| before.first)
}

/// Bytes of the segments between the first and the last of a region, at least: the smallest page there is.
const SHORTEST_WITHIN: u64 = 4096;

fn region_of(entry: &AnnouncedRegion, rkey: u32) -> RemoteRegion {
    let has = |flag| entry.flags & flag != 0;
    let (read_only, gpu_flush) = (has(AnnouncedRegion::READ_ONLY), has(AnnouncedRegion::GPU_FLUSH));
    RemoteRegion { base: entry.base, size: entry.size, rkey, read_only, gpu_flush }
}

fn error(problem: String) -> WireError {
    WireError::new("region changes of the peer", problem)
}

/// Above one of these, changes are taken by a helper thread: a table of 4,096 regions is made in less than a millisecond.
const QUICK_ENTRIES: usize = 64;
const QUICK_TABLE: usize = 4096;

#[cfg(test)]
#[cfg(not(flagcx_p2p_loom))]
mod tests;

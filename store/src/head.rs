//! The series in memory: a slab of slots, found by label set and by postings.
//!
//! Owns which series exist since the last cut and what is known about them. Must not know files or locks.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};
use std::sync::Arc;

use model::hashing::FoldState;
use model::source::{Exemplar, Metadata};
use model::{Labels, Matcher, NativeHistogram};

use crate::exemplars::Exemplars;
use crate::postings::{self, Postings};
use crate::record::{Definition, Visitor};
use crate::series::{NOT_LIVE, Outcome, Series};

/// Names whose metadata is kept, at most.
const MAX_METADATA: usize = 100_000;

/// A series of this process, as [`crate::Store::series_id`] gives it. It is valid until the series has been idle for
/// so long that it leaves memory; samples for it are handed back then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeriesId(u64);

// === impl SeriesId ===

impl SeriesId {
    /// The series that is refused because there are too many.
    pub(crate) const REFUSED: SeriesId = SeriesId(u64::MAX);

    pub(crate) fn new(slot: u32, generation: u32) -> Self {
        SeriesId(u64::from(generation) << 32 | u64::from(slot))
    }

    #[inline]
    pub(crate) fn slot(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    pub(crate) fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Passes on a number that is a hash already.
#[derive(Debug, Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, _: &[u8]) {}
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Everything in memory since the last cut.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) slots: Vec<Series>,
    free: Vec<u32>,
    by_hash: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    /// Series whose hash another one has.
    collided: HashMap<Labels, u32>,
    hashing: FoldState,
    pub(crate) postings: Postings,
    generation: u32,
    pub(crate) exemplars: Exemplars,
    pub(crate) metadata: BTreeMap<String, Metadata>,
    /// Samples since the last cut.
    pub(crate) samples: u64,
    /// Bounds of the samples since the last cut.
    pub(crate) min_t: i64,
    pub(crate) max_t: i64,
}

// === impl Head ===

impl Head {
    pub(crate) fn new(max_exemplars: usize) -> Self {
        Head {
            slots: Vec::new(),
            free: Vec::new(),
            by_hash: HashMap::default(),
            collided: HashMap::new(),
            hashing: FoldState::default(),
            postings: Postings::default(),
            generation: 0,
            exemplars: Exemplars::new(max_exemplars),
            metadata: BTreeMap::new(),
            samples: 0,
            min_t: i64::MAX,
            max_t: i64::MIN,
        }
    }

    /// How many series there are.
    pub(crate) fn series_count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(crate) fn find(&self, labels: &Labels) -> Option<u32> {
        self.find_packed(labels.as_packed().as_bytes())
    }

    /// The series whose packed labels these are.
    pub(crate) fn find_packed(&self, packed: &[u8]) -> Option<u32> {
        let slot = *self.by_hash.get(&self.hash(packed))?;
        if self.slots[slot as usize].labels.as_packed().as_bytes() == packed {
            return Some(slot);
        }
        let mut others = self.collided.iter();
        let found = others.find(|(labels, _)| labels.as_packed().as_bytes() == packed);
        found.map(|(_, slot)| *slot)
    }

    /// The same. Who appends again what was appended before finds it at `guess`, the slot after the one before.
    #[inline]
    pub(crate) fn find_near(&self, packed: &[u8], guess: u32) -> Option<u32> {
        let there = self.slots.get(guess as usize);
        match there {
            Some(s) if s.is_live() && s.labels.as_packed().as_bytes() == packed => Some(guess),
            _ => self.find_packed(packed),
        }
    }

    /// The series of a valid id.
    #[inline]
    pub(crate) fn get(&self, id: SeriesId) -> Option<&Series> {
        self.slots
            .get(id.slot() as usize)
            .filter(|s| s.generation == id.generation() && s.is_live())
    }

    pub(crate) fn id(&self, slot: u32) -> SeriesId {
        SeriesId::new(slot, self.slots[slot as usize].generation)
    }

    /// Adds a series that does not exist.
    pub(crate) fn create(&mut self, labels: &Labels) -> u32 {
        let slot = self.free.pop().unwrap_or(self.slots.len() as u32);
        self.place(slot, labels.clone());
        slot
    }

    fn place(&mut self, slot: u32, labels: Labels) {
        let hash = self.hash(labels.as_packed().as_bytes());
        self.postings.insert(slot, &labels);
        match self.by_hash.get(&hash) {
            Some(_) => {
                self.collided.insert(labels.clone(), slot);
            }
            None => {
                self.by_hash.insert(hash, slot);
            }
        }
        let series = Series::new(labels, self.generation);
        match self.slots.get_mut(slot as usize) {
            Some(place) => *place = series,
            None => self.slots.push(series),
        }
    }

    /// Removes series and makes their slots free. Ids of them become invalid.
    pub(crate) fn evict(&mut self, gone: &HashSet<u32>) {
        if gone.is_empty() {
            return;
        }
        self.postings.remove(gone);
        for slot in gone {
            let labels = std::mem::take(&mut self.slots[*slot as usize].labels);
            let hash = self.hash(labels.as_packed().as_bytes());
            self.collided.remove(&labels);
            if self.by_hash.get(&hash) == Some(slot) {
                self.by_hash.remove(&hash);
                self.promote(hash);
            }
            let series = &mut self.slots[*slot as usize];
            *series = Series::new(Labels::empty(), NOT_LIVE);
            self.free.push(*slot);
        }
        self.exemplars.remove(gone);
        self.generation = self.generation.wrapping_add(1) % (u32::MAX - 1);
    }

    /// After the first series of a hash has gone, another one of that hash takes its place.
    fn promote(&mut self, hash: u64) {
        let next = self
            .collided
            .iter()
            .find(|(labels, _)| self.hash(labels.as_packed().as_bytes()) == hash)
            .map(|(labels, slot)| (labels.clone(), *slot));
        if let Some((labels, slot)) = next {
            self.collided.remove(&labels);
            self.by_hash.insert(hash, slot);
        }
    }

    /// The slots in use that match, ascending.
    pub(crate) fn matching(&self, matchers: &[Matcher]) -> Vec<u32> {
        let accepts = |slot: &u32| {
            let series = &self.slots[*slot as usize];
            series.is_live() && matchers.iter().all(|m| m.matches_labels(&series.labels))
        };
        match self.postings.candidates(matchers) {
            None => (0..self.slots.len() as u32).filter(accepts).collect(),
            Some(mut slots) => {
                if matchers.iter().any(|m| !postings::is_narrowing(m)) {
                    slots.retain(accepts);
                }
                slots
            }
        }
    }

    pub(crate) fn note(&mut self, t_ms: i64) {
        self.samples += 1;
        self.min_t = self.min_t.min(t_ms);
        self.max_t = self.max_t.max(t_ms);
    }

    pub(crate) fn set_metadata(&mut self, name: String, metadata: Metadata) -> bool {
        if self.metadata.len() >= MAX_METADATA && !self.metadata.contains_key(&name) {
            return false;
        }
        self.metadata.insert(name, metadata);
        true
    }

    /// About how many bytes the series take, index included.
    pub(crate) fn bytes(&self) -> u64 {
        const INDEX_PER_SERIES: usize = 100;
        let heap: usize = self
            .slots
            .iter()
            .map(|s| size_of::<Series>() + s.labels.as_packed().len() + s.heap_bytes())
            .sum();
        (heap + INDEX_PER_SERIES * self.series_count()) as u64
    }

    /// Seeded, so that nobody outside can choose collisions.
    fn hash(&self, packed: &[u8]) -> u64 {
        let mut hasher = self.hashing.build_hasher();
        hasher.write(packed);
        hasher.finish()
    }
}

/// Puts records of the log back into memory. Deciding again what was decided before, from the same state.
#[derive(Debug)]
pub(crate) struct Replay<'a> {
    pub(crate) head: &'a mut Head,
    pub(crate) window_ms: i64,
    /// Run and slot number in the log to the slot in memory.
    slots: HashMap<u64, u32, BuildHasherDefault<Identity>>,
    run: u32,
    /// Whether samples count: not those of segments that a block holds already.
    pub(crate) with_samples: bool,
    pub(crate) replayed: u64,
    /// Samples whose series' definition is damaged or missing.
    pub(crate) orphans: u64,
}

// === impl Replay ===

impl<'a> Replay<'a> {
    pub(crate) fn new(head: &'a mut Head, window_ms: i64) -> Self {
        Replay {
            head,
            window_ms,
            slots: HashMap::default(),
            run: 0,
            with_samples: true,
            replayed: 0,
            orphans: 0,
        }
    }

    fn key(&self, logged: u32) -> u64 {
        u64::from(self.run) << 32 | u64::from(logged)
    }

    fn slot(&mut self, logged: u32) -> Option<u32> {
        if !self.with_samples {
            return None;
        }
        let slot = self.slots.get(&self.key(logged)).copied();
        self.orphans += u64::from(slot.is_none());
        slot
    }
}

impl Visitor for Replay<'_> {
    fn run(&mut self, run: u32) {
        self.run = run;
    }

    fn series(&mut self, definition: Definition) {
        let known = self.head.find(&definition.labels);
        let slot = known.unwrap_or_else(|| self.head.create(&definition.labels));
        let series = &mut self.head.slots[slot as usize];
        series.overflow = definition.overflow;
        if let Some(t) = definition.last_t {
            series.set_last_t(t);
        }
        self.slots.insert(self.key(definition.slot), slot);
    }

    fn float(&mut self, slot: u32, t_ms: i64, start_ms: i64, value: f64) {
        if let Some(slot) = self.slot(slot) {
            let series = &mut self.head.slots[slot as usize];
            if series.push_float(t_ms, start_ms, value, self.window_ms) == Outcome::Appended {
                self.head.note(t_ms);
                self.replayed += 1;
            }
        }
    }

    fn histogram(&mut self, slot: u32, t_ms: i64, start_ms: i64, value: Arc<NativeHistogram>) {
        if let Some(slot) = self.slot(slot) {
            let series = &mut self.head.slots[slot as usize];
            if series.push_histogram(t_ms, start_ms, value, self.window_ms) == Outcome::Appended {
                self.head.note(t_ms);
                self.replayed += 1;
            }
        }
    }

    fn exemplar(&mut self, slot: u32, exemplar: Exemplar) {
        if let Some(slot) = self.slots.get(&self.key(slot)) {
            self.head.exemplars.push(*slot, exemplar);
        }
    }

    fn metadata(&mut self, name: String, metadata: Metadata) {
        self.head.set_metadata(name, metadata);
    }
}

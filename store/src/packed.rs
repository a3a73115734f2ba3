//! [`PackedBatch`]: float samples whose series are named by packed labels or by ids, in one piece of memory; and
//! [`Finder`], by which a receiver learns ids.
//!
//! Owns the shape of the batch. Must not know how series are found.

use std::sync::RwLockReadGuard;

use model::{AscendingLabels, Labels, UncheckedLabels};

use crate::head::SeriesId;
use crate::store::State;

/// Float samples of any series, gathered by a receiver without an allocation a sample. Use it again after
/// [`PackedBatch::clear`].
#[derive(Debug, Clone, Default)]
pub struct PackedBatch {
    /// Packed labels, one series after another.
    text: String,
    samples: Vec<PackedSample>,
    /// That of the samples to come.
    series: Key,
}

/// How a sample's series is named: an id, or a range of the batch's text.
#[derive(Debug, Clone, Copy)]
enum Key {
    Text(u32, u32),
    Id(SeriesId),
}

impl Default for Key {
    fn default() -> Self {
        Key::Text(0, 0)
    }
}

#[derive(Debug, Clone, Copy)]
struct PackedSample {
    series: Key,
    t_ms: i64,
    value: f64,
}

/// How a sample's series is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeriesName<'a> {
    /// By its packed labels.
    Packed(&'a str),
    /// By its id.
    Id(SeriesId),
}

// === impl PackedBatch ===

impl PackedBatch {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.samples.clear();
        self.series = Key::default();
    }

    /// Begins a series: the samples pushed from now on are its. False, and nothing begins, when the batch holds 4 GiB of
    /// labels.
    pub fn begin(&mut self, labels: &AscendingLabels) -> bool {
        self.begin_packed(labels.as_packed())
    }

    /// The same for finished labels.
    pub fn begin_labels(&mut self, labels: &Labels) -> bool {
        self.begin_packed(labels.as_packed())
    }

    fn begin_packed(&mut self, packed: &str) -> bool {
        let from = self.text.len();
        let Ok(to) = u32::try_from(from + packed.len()) else {
            return false;
        };
        self.text.push_str(packed);
        self.series = Key::Text(from as u32, to);
        true
    }

    /// Begins a series whose id is known from [`Finder::find`] or [`crate::Store::find_id`].
    #[inline]
    pub fn begin_id(&mut self, id: SeriesId) {
        self.series = Key::Id(id);
    }

    /// A sample of the current series: when (Unix milliseconds) and what.
    #[inline]
    pub fn push(&mut self, t_ms: i64, value: f64) {
        self.samples.push(PackedSample {
            series: self.series,
            t_ms,
            value,
        });
    }

    /// Takes back all but the first `len` samples; the current series stays.
    pub fn truncate(&mut self, len: usize) {
        self.samples.truncate(len);
    }

    /// How many samples there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The samples in order: series, time, value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (SeriesName<'_>, i64, f64)> + Clone {
        self.samples.iter().map(|s| {
            let series = match s.series {
                Key::Text(from, to) => SeriesName::Packed(&self.text[from as usize..to as usize]),
                Key::Id(id) => SeriesName::Id(id),
            };
            (series, s.t_ms, s.value)
        })
    }
}

/// Finds series in memory. Appends wait while one is held, so let go of it soon.
#[derive(Debug)]
pub struct Finder<'a> {
    state: RwLockReadGuard<'a, State>,
}

// === impl Finder ===

impl<'a> Finder<'a> {
    pub(crate) fn new(state: RwLockReadGuard<'a, State>) -> Self {
        Finder { state }
    }

    /// The id of a series that is in memory and takes samples of its own; `None` for any other.
    #[inline]
    #[must_use]
    pub fn find(&self, labels: &UncheckedLabels) -> Option<SeriesId> {
        self.find_bytes(labels.as_bytes())
    }

    pub(crate) fn find_bytes(&self, packed: &[u8]) -> Option<SeriesId> {
        let head = &self.state.head;
        let slot = head.find_packed(packed)?;
        (!head.slots[slot as usize].overflow).then(|| head.id(slot))
    }
}

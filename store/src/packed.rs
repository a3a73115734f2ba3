//! [`PackedBatch`]: float samples whose series are named by packed labels, in one piece of memory.
//!
//! Owns the shape of the batch. Must not know how series are found.

use model::AscendingLabels;

/// Float samples of any series, gathered by a receiver without an allocation a sample. Use it again after
/// [`PackedBatch::clear`].
#[derive(Debug, Clone, Default)]
pub struct PackedBatch {
    /// Packed labels, one series after another.
    text: String,
    samples: Vec<PackedSample>,
    /// Where the labels of the current series are in `text`.
    series: (u32, u32),
}

/// One sample; its labels are a range of the batch's text.
#[derive(Debug, Clone, Copy)]
struct PackedSample {
    labels: (u32, u32),
    t_ms: i64,
    value: f64,
}

// === impl PackedBatch ===

impl PackedBatch {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.text.clear();
        self.samples.clear();
        self.series = (0, 0);
    }

    /// Begins a series: the samples pushed from now on are its. False, and nothing begins, when the batch holds 4 GiB of
    /// labels.
    pub fn begin(&mut self, labels: &AscendingLabels) -> bool {
        let packed = labels.as_packed();
        let from = self.text.len();
        let Ok(to) = u32::try_from(from + packed.len()) else {
            return false;
        };
        self.text.push_str(packed);
        self.series = (from as u32, to);
        true
    }

    /// A sample of the current series: when (Unix milliseconds) and what.
    #[inline]
    pub fn push(&mut self, t_ms: i64, value: f64) {
        self.samples.push(PackedSample {
            labels: self.series,
            t_ms,
            value,
        });
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

    /// The samples in order: packed labels, time, value.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, i64, f64)> + Clone {
        self.samples.iter().map(|s| {
            let labels = &self.text[s.labels.0 as usize..s.labels.1 as usize];
            (labels, s.t_ms, s.value)
        })
    }
}

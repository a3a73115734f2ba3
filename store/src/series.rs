//! One series in memory: a few samples as they came, those before them in small chunks.
//!
//! Owns the order of samples within a series: what is in order, late, a duplicate. Must not know other series, files
//! or locks. Small on purpose: with five labels and forty samples a series takes about 600 bytes, index included.

use std::sync::Arc;

use model::{Labels, NativeHistogram, Points, Value};

use crate::chunk::{self, HistogramAt, Times};
use crate::frames::{self, Frames};
use crate::merge::{self, Run};
use crate::reading::{Copies, Open, Part};
use crate::wire::{Damaged, Reader};

/// Samples that are held as they came before they become a chunk.
pub(crate) const OPEN: usize = 16;

/// Late samples that are held as they came before they become chunks.
const LATE: usize = 128;

/// What became of one sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is in.
    Appended,
    /// There is a sample at that time already; the first one stays.
    Duplicate,
    /// It is older than the window for late samples.
    TooLate,
}

/// A series and its samples since the last block was cut.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) labels: Labels,
    /// Chunks, see [`frames`].
    closed: Vec<u8>,
    /// Values of the newest samples, at most [`OPEN`].
    open: Vec<f64>,
    /// Times of `open` when they are not regular.
    irregular: Option<Box<[i64; OPEN]>>,
    open_first: i64,
    open_step: i64,
    /// When the samples in `open` began to count, 0 for unknown: one time for all of them.
    open_start: i64,
    /// The newest sample in order; means nothing while `has_last` is false.
    last_t: i64,
    extra: Option<Box<Extra>>,
    pub(crate) generation: u32,
    pub(crate) has_last: bool,
    /// Some of `closed` came late: their times do not ascend from chunk to chunk.
    has_late_chunks: bool,
    /// Whether the log knows this series.
    pub(crate) logged: bool,
    /// Whether samples of many label sets fold into it.
    pub(crate) overflow: bool,
    /// Whether the slot is in use.
    pub(crate) live: bool,
}

/// What few series have.
#[derive(Debug, Default)]
struct Extra {
    histograms: Vec<HistogramAt>,
    /// Time, start time, value.
    late: Vec<(i64, i64, Value)>,
}

// === impl Series ===

impl Series {
    pub(crate) fn new(labels: Labels, generation: u32) -> Self {
        Series {
            labels,
            closed: Vec::new(),
            open: Vec::new(),
            irregular: None,
            open_first: 0,
            open_step: 0,
            open_start: 0,
            last_t: 0,
            extra: None,
            generation,
            has_last: false,
            has_late_chunks: false,
            logged: false,
            overflow: false,
            live: true,
        }
    }

    /// The newest sample in order, ever (a cut does not forget it).
    pub(crate) fn last_t(&self) -> Option<i64> {
        self.has_last.then_some(self.last_t)
    }

    pub(crate) fn set_last_t(&mut self, t: i64) {
        if !self.has_last || t > self.last_t {
            self.last_t = t;
            self.has_last = true;
        }
    }

    /// Whether a sample at `t` is newer than all others: the common case.
    #[inline]
    pub(crate) fn is_in_order(&self, t: i64) -> bool {
        !self.has_last || t > self.last_t
    }

    /// Whether there is no sample since the last cut.
    pub(crate) fn is_empty(&self) -> bool {
        self.closed.is_empty() && self.open.is_empty() && self.extra.is_none()
    }

    /// Bytes on the heap, labels and index left out.
    pub(crate) fn heap_bytes(&self) -> usize {
        let extra = self.extra.as_ref().map_or(0, |e| {
            size_of::<Extra>() + 24 * e.histograms.capacity() + 32 * e.late.capacity()
        });
        self.closed.capacity()
            + self.open.capacity() * 8
            + self.irregular.as_ref().map_or(0, |_| OPEN * 8)
            + extra
    }

    /// Says what would become of a sample that is not in order, without adding it.
    pub(crate) fn judge_late(&self, t: i64, window_ms: i64) -> Outcome {
        if t == self.last_t {
            return Outcome::Duplicate;
        }
        if self.last_t.saturating_sub(t) > window_ms {
            return Outcome::TooLate;
        }
        if self.holds(t) {
            return Outcome::Duplicate;
        }
        Outcome::Appended
    }

    /// Adds a float that began to count at `start` (0: unknown).
    #[inline]
    pub(crate) fn push_float(&mut self, t: i64, start: i64, value: f64, window_ms: i64) -> Outcome {
        if !self.is_in_order(t) {
            return self.push_late((t, start, Value::Float(value)), window_ms);
        }
        if start != self.open_start {
            self.close_floats();
            self.open_start = start;
        }
        if self.extra.is_some() {
            self.close_histograms();
        }
        self.note_time(t);
        if self.open.capacity() == 0 {
            self.open.reserve_exact(4);
        } else if self.open.len() == self.open.capacity() {
            self.open.reserve_exact(OPEN - self.open.len());
        }
        self.open.push(value);
        self.last_t = t;
        self.has_last = true;
        if self.open.len() >= OPEN {
            self.close_floats();
        }
        Outcome::Appended
    }

    /// Adds a histogram.
    pub(crate) fn push_histogram(
        &mut self,
        t: i64,
        start: i64,
        value: Arc<NativeHistogram>,
        window_ms: i64,
    ) -> Outcome {
        if !self.is_in_order(t) {
            return self.push_late((t, start, Value::Histogram(value)), window_ms);
        }
        self.close_floats();
        let extra = self.extra.get_or_insert_default();
        extra.histograms.push((t, start, value));
        let full = extra.histograms.len() >= OPEN;
        self.last_t = t;
        self.has_last = true;
        if full {
            self.close_histograms();
        }
        Outcome::Appended
    }

    #[cold]
    fn push_late(&mut self, sample: (i64, i64, Value), window_ms: i64) -> Outcome {
        let t = sample.0;
        let outcome = self.judge_late(t, window_ms);
        if outcome != Outcome::Appended {
            return outcome;
        }
        let late = &mut self.extra.get_or_insert_default().late;
        let at = late.partition_point(|(other, _, _)| *other < t);
        late.insert(at, sample);
        if late.len() >= LATE {
            self.close_late();
        }
        Outcome::Appended
    }

    /// Keeps the times of `open` as first and step for as long as they are regular.
    #[inline]
    fn note_time(&mut self, t: i64) {
        let len = self.open.len();
        if let Some(times) = &mut self.irregular {
            times[len] = t;
        } else if len == 0 {
            self.open_first = t;
        } else if len == 1 {
            self.open_step = t.wrapping_sub(self.open_first);
        } else if t != self.open_time(len) {
            let mut times = Box::new([0; OPEN]);
            for (index, slot) in times[..len].iter_mut().enumerate() {
                *slot = self.open_time(index);
            }
            times[len] = t;
            self.irregular = Some(times);
        }
    }

    fn open_time(&self, index: usize) -> i64 {
        match &self.irregular {
            Some(times) => times[index],
            None => self
                .open_first
                .wrapping_add(self.open_step.wrapping_mul(index as i64)),
        }
    }

    fn close_floats(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let count = self.open.len();
        let times = match &self.irregular {
            Some(all) => Times::Listed(&all[..count]),
            None => Times::Regular {
                first: self.open_first,
                step: self.open_step,
                count,
            },
        };
        let mut chunk = Vec::with_capacity(64);
        let starts = [self.open_start; OPEN];
        chunk::encode_floats(&mut chunk, times, &starts[..count], &self.open);
        frames::append(&mut self.closed, &chunk);
        self.open.clear();
        self.irregular = None;
    }

    fn close_histograms(&mut self) {
        let Some(extra) = &mut self.extra else { return };
        if !extra.histograms.is_empty() {
            let mut chunk = Vec::new();
            chunk::encode_histograms(&mut chunk, &extra.histograms);
            frames::append(&mut self.closed, &chunk);
            extra.histograms = Vec::new();
        }
        if extra.late.is_empty() {
            self.extra = None;
        }
    }

    fn close_late(&mut self) {
        let Some(extra) = &mut self.extra else { return };
        self.has_late_chunks |= !extra.late.is_empty();
        let mut points = Points::default();
        for (t, start, value) in extra.late.drain(..) {
            push(&mut points, t, start, value);
        }
        let closed = &mut self.closed;
        chunk::encode_points(&points, LATE, |c| frames::append(closed, c));
        if extra.histograms.is_empty() {
            self.extra = None;
        }
    }

    /// Hands out every sample as framed chunks and starts anew.
    pub(crate) fn cut(&mut self) -> Vec<u8> {
        self.close_floats();
        self.close_histograms();
        self.close_late();
        self.extra = None;
        self.has_late_chunks = false;
        self.open = Vec::new();
        std::mem::take(&mut self.closed)
    }

    /// Whether there is a sample at exactly `t` since the last cut. O(samples), for late ones only.
    fn holds(&self, t: i64) -> bool {
        let mut runs = Vec::new();
        let known = self.collect(t, t, &mut runs).is_ok();
        known && !runs.is_empty()
    }

    /// The first and last time of what is held, or `None`.
    pub(crate) fn bounds(&self) -> Option<(i64, i64)> {
        let mut bounds: Option<(i64, i64)> = None;
        let mut cover = |from: i64, to: i64| {
            bounds = Some(bounds.map_or((from, to), |(a, b)| (a.min(from), b.max(to))));
        };
        for chunk in Frames::new(&self.closed).flatten() {
            if let Ok(header) = chunk::read_header(&mut Reader::new(chunk)) {
                cover(header.min_t, header.max_t);
            }
        }
        if !self.open.is_empty() {
            cover(self.open_time(0), self.last_t);
        }
        if let Some(extra) = &self.extra {
            for t in extra.histograms.iter().map(|h| h.0) {
                cover(t, t);
            }
            for t in extra.late.iter().map(|l| l.0) {
                cover(t, t);
            }
        }
        bounds
    }

    /// Copies what may hold samples in `start..=end`, as it is: decoding needs no lock. `None` when there is nothing;
    /// late samples and histograms that are still open are decoded at once.
    pub(crate) fn copy(
        &self,
        start: i64,
        end: i64,
        copies: &mut Copies,
    ) -> Result<Option<Part>, Damaged> {
        if self.has_late_chunks || self.extra.is_some() {
            let mut runs = Vec::new();
            self.collect(start, end, &mut runs)?;
            return Ok((!runs.is_empty()).then_some(Part::Runs(runs)));
        }
        let mut closed = Frames::from(&self.closed, start).rest();
        if end < self.last_t {
            closed = frames::until(closed, end);
        }
        let closed = copies.closed(closed);
        let inside = !self.open.is_empty() && self.open_time(0) <= end && self.last_t >= start;
        let open = inside.then(|| Open {
            first: self.open_first,
            step: self.open_step,
            start: self.open_start,
            irregular: self.irregular.clone(),
            values: copies.open(&self.open),
        });
        Ok((!closed.is_empty() || open.is_some()).then_some(Part::Copied { closed, open }))
    }

    /// Appends the runs that hold the samples in `start..=end`, oldest written first.
    pub(crate) fn collect(&self, start: i64, end: i64, runs: &mut Vec<Run>) -> Result<(), Damaged> {
        frames::collect(&self.closed, !self.has_late_chunks, (start, end), runs)?;
        if !self.open.is_empty() && self.open_time(0) <= end && self.last_t >= start {
            let run = merge::last_run_before(runs, self.open_time(0));
            for (index, value) in self.open.iter().enumerate() {
                let t = self.open_time(index);
                if t >= start && t <= end {
                    run.push_float(t, *value);
                    if self.open_start != 0 {
                        run.set_last_start(self.open_start);
                    }
                }
            }
        }
        if let Some(extra) = &self.extra {
            extra.collect(start, end, runs);
        }
        runs.retain(|r| !r.is_empty());
        Ok(())
    }
}

/// Appends a sample with its start time.
fn push(points: &mut Points, t: i64, start: i64, value: Value) {
    points.push(t, value);
    if start != 0 {
        points.set_last_start(start);
    }
}

// === impl Extra ===

impl Extra {
    fn collect(&self, start: i64, end: i64, runs: &mut Vec<Run>) {
        let inside = |t: i64| (start..=end).contains(&t);
        for (t, start, h) in self.histograms.iter().filter(|h| inside(h.0)) {
            let run = merge::last_run_before(runs, *t);
            push(run, *t, *start, Value::Histogram(Arc::clone(h)));
        }
        let mut late = Points::default();
        for (t, start, value) in self.late.iter().filter(|l| inside(l.0)) {
            push(&mut late, *t, *start, value.clone());
        }
        runs.push(late);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: i64 = 1_000_000;

    fn read(series: &Series, start: i64, end: i64) -> Vec<(i64, f64)> {
        let mut runs = Vec::new();
        series.collect(start, end, &mut runs).expect("own bytes");
        let points = merge::merge(runs);
        points.t_ms.iter().copied().zip(points.values).collect()
    }

    fn new() -> Series {
        Series::new(Labels::empty(), 0)
    }

    #[test]
    fn samples_come_back_through_many_chunks() {
        let mut series = new();
        let all: Vec<(i64, f64)> = (0..100).map(|i| (i * 10 + i % 3, i as f64 / 4.0)).collect();
        for (t, v) in &all {
            assert_eq!(series.push_float(*t, 0, *v, WINDOW), Outcome::Appended);
        }
        assert_eq!(read(&series, i64::MIN, i64::MAX), all);
        assert_eq!(read(&series, 500, 509), [(502, 12.5)]);
        assert_eq!(series.bounds(), Some((0, 990)));
    }

    #[test]
    fn late_samples_are_merged_and_duplicates_refused() {
        let mut series = new();
        for i in 0..40 {
            series.push_float(i * 10, 0, i as f64, WINDOW);
        }
        assert_eq!(series.push_float(55, 0, 5.5, WINDOW), Outcome::Appended);
        assert_eq!(series.push_float(55, 0, 6.5, WINDOW), Outcome::Duplicate);
        assert_eq!(series.push_float(50, 0, 9.0, WINDOW), Outcome::Duplicate);
        assert_eq!(series.push_float(390, 0, 9.0, WINDOW), Outcome::Duplicate);
        assert_eq!(series.push_float(5, 0, 9.0, 100), Outcome::TooLate);
        assert_eq!(read(&series, 50, 60), [(50, 5.0), (55, 5.5), (60, 6.0)]);
        assert_eq!(read(&series, 51, 59), [(55, 5.5)]);
    }

    #[test]
    fn many_late_samples_become_chunks() {
        let mut series = new();
        series.push_float(10_000, 0, 0.0, WINDOW);
        for i in (0..300).rev() {
            assert_eq!(series.push_float(i, 0, i as f64, WINDOW), Outcome::Appended);
        }
        assert_eq!(series.push_float(7, 0, 1.0, WINDOW), Outcome::Duplicate);
        let all = read(&series, 0, 20_000);
        assert_eq!(all.len(), 301);
        assert!(all.windows(2).all(|w| w[0].0 < w[1].0));
    }

    #[test]
    fn kinds_mix_and_a_cut_hands_out_everything() {
        let mut series = new();
        let h = Arc::new(NativeHistogram::default());
        series.push_float(1, 0, 1.0, WINDOW);
        series.push_histogram(2, 0, Arc::clone(&h), WINDOW);
        series.push_float(3, 0, 3.0, WINDOW);
        series.push_float(0, 0, 0.5, WINDOW);
        let mut runs = Vec::new();
        series.collect(0, 9, &mut runs).expect("own bytes");
        let points = merge::merge(runs);
        assert_eq!(points.t_ms, [0, 1, 2, 3]);
        assert_eq!(points.value(2), Value::Histogram(h));
        let framed = series.cut();
        assert!(series.is_empty());
        assert_eq!(series.last_t(), Some(3));
        let mut runs = Vec::new();
        frames::collect(&framed, false, (0, 9), &mut runs).expect("own bytes");
        assert_eq!(merge::merge(runs), points);
    }
}

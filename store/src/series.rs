//! One series in memory: a few samples one by one, those before them in small chunks.
//!
//! Owns the order of samples within a series: what is in order, late, a duplicate. Must not know other series, files
//! or locks. Small on purpose: with five labels and forty samples a series takes about 400 bytes, index included.

use std::sync::Arc;

use model::{Labels, NativeHistogram, Points, Value};

use crate::chunk::{self, HistogramAt, Times};
use crate::frames::{self, Frames};
use crate::merge::{self, Run};
use crate::open::{self, MAX_MISSES, OPEN, OPEN_BYTES, Opened, SAMPLE_BYTES, Values};
use crate::reading::{Copies, Open, Part};
use crate::wire::{Damaged, Reader};

/// Histograms that are held as they came before they become a chunk.
const HISTOGRAMS: usize = 16;

/// Bytes that memory for the newest samples grows by, at least.
const ROOM_BYTES: usize = 16;

/// Late samples that are held as they came before they become chunks.
const LATE: usize = 128;

/// Bytes that memory for the samples after a chunk is asked for with it, at most.
const ROOM_AFTER_CHUNK: usize = 80;

/// The generation of no series.
pub(crate) const NOT_LIVE: u32 = u32::MAX;

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
    /// Chunks, see [`frames`], then the newest samples, at most [`OPEN`], see [`crate::open`].
    data: Vec<u8>,
    /// Where the newest samples begin in `data`.
    open_at: u32,
    /// How many they are.
    open_len: u8,
    open_places: u8,
    open_misses: u8,
    open_repeats: u8,
    open_number: i64,
    /// How far apart they are, unless they say otherwise.
    step_ms: i64,
    /// When they began to count, 0 for unknown: one time for all of them.
    open_start: i64,
    /// The newest sample in order; means nothing while `has_last` is false.
    last_t: i64,
    extra: Option<Box<Extra>>,
    /// Ids of another one mean another series; [`NOT_LIVE`] when the slot is not in use.
    pub(crate) generation: u32,
    pub(crate) has_last: bool,
    /// Some chunks came late: their times do not ascend from chunk to chunk.
    has_late_chunks: bool,
    /// Whether the log knows this series.
    pub(crate) logged: bool,
    /// Whether samples of many label sets fold into it.
    pub(crate) overflow: bool,
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
            data: Vec::new(),
            open_at: 0,
            open_len: 0,
            open_places: 0,
            open_misses: 0,
            open_repeats: 0,
            open_number: 0,
            step_ms: 0,
            open_start: 0,
            last_t: 0,
            extra: None,
            generation,
            has_last: false,
            has_late_chunks: false,
            logged: false,
            overflow: false,
        }
    }

    /// Whether the slot is in use.
    pub(crate) fn is_live(&self) -> bool {
        self.generation != NOT_LIVE
    }

    /// The newest sample in order, ever (a cut does not forget it).
    pub(crate) fn last_t(&self) -> Option<i64> {
        self.has_last.then_some(self.last_t)
    }

    pub(crate) fn set_last_t(&mut self, t: i64) {
        if !self.has_last || t > self.last_t {
            // Their times are counted back from the last one.
            self.close_floats();
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
        self.data.is_empty() && self.extra.is_none()
    }

    /// Bytes on the heap, labels and index left out.
    pub(crate) fn heap_bytes(&self) -> usize {
        let extra = self.extra.as_ref().map_or(0, |e| {
            size_of::<Extra>() + 24 * e.histograms.capacity() + 32 * e.late.capacity()
        });
        self.data.capacity() + extra
    }

    fn chunks(&self) -> &[u8] {
        &self.data[..self.open_at as usize]
    }

    /// The newest samples, if there are any.
    fn open(&self) -> Result<Option<Opened>, Damaged> {
        let bytes = &self.data[self.open_at as usize..];
        if bytes.is_empty() {
            return Ok(None);
        }
        Opened::read(bytes, self.step_ms, self.last_t).map(Some)
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
        self.put_open(t, value);
        self.last_t = t;
        self.has_last = true;
        if self.open_len as usize >= OPEN || self.data.len() - self.open_at as usize >= OPEN_BYTES {
            self.close_floats();
        }
        Outcome::Appended
    }

    #[inline]
    fn put_open(&mut self, t: i64, value: f64) {
        let delta = t.wrapping_sub(self.last_t);
        if self.open_len == 1 {
            self.step_ms = delta;
        }
        let first = self.open_len == 0;
        let mut values = Values {
            number: self.open_number,
            places: self.open_places,
            misses: self.open_misses,
            repeats: self.open_repeats,
        };
        let open_at = self.open_at as usize;
        let room = |data: &mut Vec<u8>, bytes| make_room(data, open_at, bytes);
        let near = !first && delta == self.step_ms && values.put_near(&mut self.data, value, room);
        if !near {
            let late_ms = match first {
                true => 0,
                false => delta.wrapping_sub(self.step_ms),
            };
            make_room(&mut self.data, open_at, SAMPLE_BYTES);
            values.put(&mut self.data, first, late_ms, value);
            (self.open_places, self.open_misses) = (values.places, values.misses);
        }
        (self.open_number, self.open_repeats) = (values.number, values.repeats);
        self.open_len += 1;
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
        let full = extra.histograms.len() >= HISTOGRAMS;
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

    fn close_floats(&mut self) {
        if self.open_len == 0 {
            return;
        }
        // Our own bytes; were they damaged, they would stay, and every read would say so.
        if let Ok(chunk) = self.chunk_of_open() {
            let open_bytes = self.data.len() - self.open_at as usize;
            self.data.truncate(self.open_at as usize);
            let whole = chunk.len() + frames::MAX_FRAME_BYTES;
            if self.data.capacity() - self.data.len() < whole {
                // With room for the samples after it, which will take about as many bytes.
                reserve(&mut self.data, whole + open_bytes.min(ROOM_AFTER_CHUNK));
            }
            frames::append(&mut self.data, &chunk);
        }
        self.open_ends();
    }

    fn chunk_of_open(&self) -> Result<Vec<u8>, Damaged> {
        let bytes = &self.data[self.open_at as usize..];
        let mut chunk = Vec::with_capacity(bytes.len() + 48);
        let count = self.open_len as usize;
        let starts = [self.open_start; OPEN];
        let starts = &starts[..if self.open_start == 0 { 0 } else { count }];
        let before = (count as i64 - 1).wrapping_mul(self.step_ms);
        let regular = Times::Regular {
            first: self.last_t.wrapping_sub(before),
            step: self.step_ms,
            count,
        };
        let mut numbers = [0; OPEN];
        if let Some((places, len)) = open::numbers(bytes, &mut numbers)
            && len == count
            && chunk::encode_numbers(&mut chunk, regular, starts, &numbers[..len], places.into())
                .is_some()
        {
            return Ok(chunk);
        }
        let open = Opened::read(bytes, self.step_ms, self.last_t)?;
        let (times, values) = (open.times(), open.values());
        if values.len() != count {
            return Err(Damaged("samples are missing"));
        }
        let times = match open.regular {
            true => regular,
            false => Times::Listed(times),
        };
        chunk::encode_floats(&mut chunk, times, starts, values);
        Ok(chunk)
    }

    /// What is in `data` are chunks now.
    fn open_ends(&mut self) {
        self.open_at = self.data.len() as u32;
        self.open_len = 0;
        // What comes next may be of another kind: one try.
        self.open_misses = self.open_misses.min(MAX_MISSES - 1);
    }

    fn close_histograms(&mut self) {
        let Some(extra) = &mut self.extra else { return };
        if !extra.histograms.is_empty() {
            let mut chunk = Vec::new();
            chunk::encode_histograms(&mut chunk, &extra.histograms);
            frames::append(&mut self.data, &chunk);
            self.open_at = self.data.len() as u32;
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
        let open = self.data.split_off(self.open_at as usize);
        let data = &mut self.data;
        chunk::encode_points(&points, LATE, |c| frames::append(data, c));
        self.open_at = self.data.len() as u32;
        self.data.extend_from_slice(&open);
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
        self.open_at = 0;
        std::mem::take(&mut self.data)
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
        for chunk in Frames::new(self.chunks()).flatten() {
            if let Ok(header) = chunk::read_header(&mut Reader::new(chunk)) {
                cover(header.min_t, header.max_t);
            }
        }
        if let Ok(Some(open)) = self.open() {
            cover(open.times()[0], self.last_t);
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
        let mut closed = Frames::from(self.chunks(), start).rest();
        if end < self.last_t {
            closed = frames::until(closed, end);
        }
        let closed = copies.keep(closed);
        let inside = self.open_len > 0 && self.last_t >= start;
        let open = inside.then(|| Open {
            bytes: copies.keep(&self.data[self.open_at as usize..]),
            step_ms: self.step_ms,
            last_t: self.last_t,
            start: self.open_start,
        });
        Ok((!closed.is_empty() || open.is_some()).then_some(Part::Copied { closed, open }))
    }

    /// Appends the runs that hold the samples in `start..=end`, oldest written first.
    pub(crate) fn collect(&self, start: i64, end: i64, runs: &mut Vec<Run>) -> Result<(), Damaged> {
        frames::collect(self.chunks(), !self.has_late_chunks, (start, end), runs)?;
        if let Some(open) = self.open()?.filter(|_| self.last_t >= start) {
            self.collect_open(&open, (start, end), runs);
        }
        if let Some(extra) = &self.extra {
            extra.collect(start, end, runs);
        }
        runs.retain(|r| !r.is_empty());
        Ok(())
    }

    fn collect_open(&self, open: &Opened, (start, end): (i64, i64), runs: &mut Vec<Run>) {
        let times = open.times();
        let from = times.partition_point(|t| *t < start);
        let to = times.partition_point(|t| *t <= end);
        if from >= to {
            return;
        }
        let run = merge::last_run_before(runs, times[0]);
        for (t, value) in times[from..to].iter().zip(&open.values()[from..to]) {
            run.push_float(*t, *value);
            if self.open_start != 0 {
                run.set_last_start(self.open_start);
            }
        }
    }
}

/// Makes room for `bytes` more of the samples that begin at `open_at`. Asks for memory seldom: that costs more than what
/// it is asked for.
#[inline]
fn make_room(data: &mut Vec<u8>, open_at: usize, bytes: usize) {
    if data.capacity() - data.len() < bytes {
        let half = (data.len() - open_at) / 2;
        reserve(data, bytes.max(half).max(ROOM_BYTES));
    }
}

/// Asks for memory in the sizes that allocators have: 8 more than a multiple of 16.
#[cold]
fn reserve(data: &mut Vec<u8>, bytes: usize) {
    let len = data.len();
    data.reserve_exact(((len + bytes + 7) & !15 | 8) - len);
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
    fn a_series_is_small() {
        assert!(size_of::<Series>() <= 96, "{}", size_of::<Series>());
        let mut counter = new();
        for i in 0..40 {
            counter.push_float(i * 10_000, 0, (1_000 + i * 50) as f64, WINDOW);
        }
        assert!(counter.heap_bytes() <= 120, "{}", counter.heap_bytes());
    }

    #[test]
    fn a_newest_time_from_elsewhere_moves_nothing() {
        let mut series = new();
        for t in [10, 20, 35] {
            series.push_float(t, 7, t as f64, WINDOW);
        }
        series.set_last_t(100);
        assert_eq!(series.push_float(90, 0, 1.0, 5), Outcome::TooLate);
        series.push_float(110, 7, 110.0, WINDOW);
        let expected = [(10, 10.0), (20, 20.0), (35, 35.0), (110, 110.0)];
        assert_eq!(read(&series, 0, 200), expected);
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

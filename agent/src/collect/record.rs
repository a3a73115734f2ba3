//! [`Recorder`]: turns the readings of one collector into samples, and marks series that are no longer read as stale.
//!
//! Owns the cache from a reading's name and labels to its label set, so that a series that was seen before costs no
//! allocation. Must not know what is read. A reading that is not repeated ends its series: no old value lives on.

use std::collections::{HashMap, HashSet};

use model::source::Metadata;
use model::{Labels, stale_nan};

use crate::ingest::{Appended, Ingest, Sample};

/// The most series that one collector may have; further ones are dropped and counted.
pub(crate) const MAX_SERIES: usize = 50_000;

/// Collects the readings of one round of one collector.
pub(crate) struct Recorder {
    base: Vec<(String, String)>,
    entries: HashMap<Box<str>, Entry>,
    round: u64,
    t_ms: i64,
    key: String,
    batch: Vec<Sample>,
    described: HashSet<&'static str>,
    new_descriptions: Vec<(&'static str, &'static str)>,
    dropped: u64,
}

struct Entry {
    labels: Labels,
    round: u64,
    /// Was appended at least once; readings of a round that failed were not.
    written: bool,
}

// === impl Recorder ===

impl Recorder {
    /// A recorder whose series all carry `base`.
    pub(crate) fn new(base: &[(&str, &str)]) -> Self {
        Recorder {
            base: base
                .iter()
                .map(|(n, v)| ((*n).into(), (*v).into()))
                .collect(),
            entries: HashMap::new(),
            round: 0,
            t_ms: 0,
            key: String::new(),
            batch: Vec::new(),
            described: HashSet::new(),
            new_descriptions: Vec::new(),
            dropped: 0,
        }
    }

    /// Begins a round whose samples are of `t_ms`.
    pub(crate) fn begin(&mut self, t_ms: i64) {
        self.round += 1;
        self.t_ms = t_ms;
        self.batch.clear();
    }

    /// A value that goes up and down.
    pub(crate) fn gauge(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        self.reading("gauge", name, labels, value);
    }

    /// A value that only grows, or begins again at 0.
    pub(crate) fn counter(&mut self, name: &'static str, labels: &[(&str, &str)], value: f64) {
        self.reading("counter", name, labels, value);
    }

    fn reading(
        &mut self,
        kind: &'static str,
        name: &'static str,
        labels: &[(&str, &str)],
        value: f64,
    ) {
        if self.described.insert(name) {
            self.new_descriptions.push((name, kind));
        }
        self.sample(name, labels, value);
    }

    /// A sample without metadata (buckets, passed-through names).
    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.key.clear();
        self.key.push_str(name);
        for (n, v) in labels {
            self.key.push('\u{0}');
            self.key.push_str(n);
            self.key.push('\u{1}');
            self.key.push_str(v);
        }
        let (round, full) = (self.round, self.entries.len() >= MAX_SERIES);
        let labels = match self.entries.get_mut(self.key.as_str()) {
            Some(entry) if entry.round == round => return,
            Some(entry) => {
                entry.round = round;
                entry.labels.clone()
            }
            None if full => {
                self.dropped += 1;
                return;
            }
            None => {
                let base = self.base.iter().map(|(n, v)| (n.as_str(), v.as_str()));
                let own = labels.iter().copied();
                let all = Labels::from_pairs(base.chain(own).chain([("__name__", name)]));
                let entry = Entry {
                    labels: all.clone(),
                    round,
                    written: false,
                };
                self.entries.insert(self.key.as_str().into(), entry);
                all
            }
        };
        self.batch.push(Sample::float(labels, self.t_ms, value));
    }

    /// Ends the round: appends its samples and, for series of the round before that were not read again, the marker.
    pub(crate) fn commit(&mut self, ingest: &Ingest) -> Appended {
        for (name, kind) in self.new_descriptions.drain(..) {
            ingest.metadata(
                name,
                Metadata {
                    kind: kind.into(),
                    ..Metadata::default()
                },
            );
        }
        let (round, t_ms, batch) = (self.round, self.t_ms, &mut self.batch);
        self.entries.retain(|_, entry| {
            let live = entry.round == round;
            if !live && entry.written {
                batch.push(Sample::float(entry.labels.clone(), t_ms, stale_nan()));
            }
            entry.written = true;
            live
        });
        let report = ingest.append(batch);
        batch.clear();
        report
    }

    /// Readings that were dropped because there were [`MAX_SERIES`].
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::testing::read;

    #[test]
    fn a_series_that_is_not_read_again_ends() {
        let ingest = Ingest::in_memory(100);
        let mut recorder = Recorder::new(&[("instance", "a")]);
        recorder.begin(1000);
        recorder.gauge("x", &[("d", "1")], 1.0);
        recorder.gauge("x", &[("d", "2")], 2.0);
        recorder.gauge("x", &[("d", "2")], 3.0);
        recorder.commit(&ingest);
        recorder.begin(2000);
        recorder.gauge("x", &[("d", "1")], 5.0);
        recorder.commit(&ingest);
        recorder.begin(3000);
        recorder.commit(&ingest);
        let got = read(&ingest, "x");
        let of = |d: &str| {
            got.iter()
                .find(|s| s.labels.get("d") == Some(d))
                .unwrap()
                .points
                .clone()
        };
        assert_eq!(of("1").values[..2], [1.0, 5.0]);
        assert!(model::is_stale(of("1").values[2]));
        assert_eq!(of("2").t_ms, [1000, 2000]);
        assert_eq!(of("2").values[0], 2.0);
        assert!(model::is_stale(of("2").values[1]));
        assert_eq!(got[0].labels.get("instance"), Some("a"));
        assert_eq!(recorder.dropped(), 0);
    }
}

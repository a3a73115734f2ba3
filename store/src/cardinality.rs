//! Limits on how many series a metric, a source and the whole store may have, and who is to blame.
//!
//! Owns the decision where a new series goes. Must not know samples.

use std::collections::{BTreeMap, HashSet};

use model::{Labels, LabelsBuilder, METRIC_NAME};

use crate::head::Head;
use crate::options::StoreOptions;

/// The label of the series that the excess folds into (OpenTelemetry's `otel.metric.overflow`).
pub const OVERFLOW_LABEL: &str = "otel_metric_overflow";

/// Offenders that are remembered, at most.
const MAX_OFFENDERS: usize = 1_000;

/// Series looked at to find the label to blame.
const MAX_SURVEYED: usize = 20_000;

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Series of one metric.
    Metric,
    /// Series of one source.
    Source,
    /// All series.
    Store,
}

/// A limit that was reached, and the label that makes so many series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offender {
    /// Which limit.
    pub scope: Scope,
    /// The metric's name or the source's value; empty for the whole store.
    pub name: String,
    /// The limit, in series.
    pub limit: usize,
    /// Label sets that were folded or refused; one that comes again counts again.
    pub excess: u64,
    /// The label with the most values among the series that are in.
    pub label: String,
    /// How many values it has among those looked at.
    pub distinct_values: usize,
}

/// What is known about reached limits.
#[derive(Debug, Default)]
pub(crate) struct Cardinality {
    offenders: BTreeMap<(Scope, String), Offender>,
}

/// Where the samples of a new label set go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Into a series of its own.
    Own,
    /// Into this overflow series.
    Fold(Labels),
    /// Nowhere.
    Refuse,
}

// === impl Cardinality ===

impl Cardinality {
    pub(crate) fn offenders(&self) -> impl Iterator<Item = &Offender> {
        self.offenders.values()
    }

    /// Decides for a label set that has no series yet.
    pub(crate) fn admit(
        &mut self,
        head: &Head,
        options: &StoreOptions,
        labels: &Labels,
    ) -> Admission {
        if head.series_count() >= options.max_series {
            self.blame(head, Scope::Store, "", options.max_series);
            return Admission::Refuse;
        }
        let source_label = options.source_label.as_str();
        if labels.get(OVERFLOW_LABEL).is_some() {
            return Admission::Own;
        }
        let metric = labels.name();
        let source = labels.get(source_label).unwrap_or("");
        let full = |name: &str, value: &str, limit: usize| {
            !value.is_empty() && head.postings.count(name, value) >= limit
        };
        if full(METRIC_NAME, metric, options.max_series_per_metric) {
            self.blame(head, Scope::Metric, metric, options.max_series_per_metric);
        } else if full(source_label, source, options.max_series_per_source) {
            self.blame_source(head, source_label, source, options.max_series_per_source);
        } else {
            return Admission::Own;
        }
        Admission::Fold(overflow_labels(metric, source_label, source))
    }

    fn blame(&mut self, head: &Head, scope: Scope, name: &str, limit: usize) {
        let slots: Vec<u32> = match scope {
            Scope::Metric => surveyed(head.postings.slots(METRIC_NAME, name)),
            _ => (0..head.slots.len().min(MAX_SURVEYED) as u32).collect(),
        };
        self.count(head, scope, name, limit, &slots);
    }

    fn blame_source(&mut self, head: &Head, label: &str, source: &str, limit: usize) {
        let slots = surveyed(head.postings.slots(label, source));
        self.count(head, Scope::Source, source, limit, &slots);
    }

    fn count(&mut self, head: &Head, scope: Scope, name: &str, limit: usize, slots: &[u32]) {
        let key = (scope, name.to_owned());
        if self.offenders.len() >= MAX_OFFENDERS && !self.offenders.contains_key(&key) {
            return;
        }
        let offender = self.offenders.entry(key).or_insert_with(|| Offender {
            scope,
            name: name.to_owned(),
            limit,
            excess: 0,
            label: String::new(),
            distinct_values: 0,
        });
        offender.excess += 1;
        if offender.excess.is_power_of_two() {
            (offender.label, offender.distinct_values) = most_varied(head, slots);
        }
    }
}

fn surveyed(slots: &[u32]) -> Vec<u32> {
    slots.iter().take(MAX_SURVEYED).copied().collect()
}

/// The label with the most distinct values among the slots.
fn most_varied(head: &Head, slots: &[u32]) -> (String, usize) {
    let mut values: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for slot in slots {
        for (name, value) in &head.slots[*slot as usize].labels {
            values.entry(name).or_default().insert(value);
        }
    }
    values
        .into_iter()
        .map(|(name, set)| (name.to_owned(), set.len()))
        .max_by_key(|(_, distinct)| *distinct)
        .unwrap_or_default()
}

fn overflow_labels(metric: &str, source_label: &str, source: &str) -> Labels {
    let mut labels = LabelsBuilder::default();
    labels.set(METRIC_NAME, metric);
    labels.set(source_label, source);
    labels.set(OVERFLOW_LABEL, "true");
    labels.build()
}

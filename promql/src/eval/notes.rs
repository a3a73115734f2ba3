//! Annotations: what a query's author should know about the answer.
//!
//! Owns their wording and their places. Must not know what raised them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::hist::bucket::go_float;
use crate::syntax::ast::Span;
use crate::syntax::diagnose::line_column;

/// One annotation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Note {
    InvalidQuantile(f64),
    InvalidRatio(f64, f64),
    BadBucket(String, String),
    MixedFloatsHistograms(String),
    MixedFloatsHistogramsAgg,
    MixedClassicNative(String),
    NotCounter(String),
    NotGauge(String),
    MixedSchemas(String),
    IncompatibleBuckets(&'static str),
    SortInRange,
    ResetCollision(&'static str),
    StartOverlap(String),
    MaybeNotCounter(String),
    MaybeNotCounterType(String, String),
    IncompatibleTypes(&'static str, &'static str, &'static str),
    IgnoredInAggregation(&'static str),
    IgnoredInRange(String),
    QuantileNan(String),
    QuantileSkew(String),
    FractionNan(String),
    BoundsReconciled(&'static str),
}

/// Histograms that had to be repaired for one metric and place, summed up.
#[derive(Debug, Clone, Copy)]
struct Forced {
    min_t: i64,
    max_t: i64,
    lowest: f64,
    highest: f64,
    drop: f64,
    count: usize,
}

/// The annotations of one query, each once, in order of appearance.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    seen: RefCell<Vec<(Note, Span)>>,
    forced: RefCell<BTreeMap<(String, usize, usize), Forced>>,
}

/// More different annotations than this are not kept.
const LIMIT: usize = 1_000;

// === impl Notes ===

impl Notes {
    pub(crate) fn add(&self, note: Note, span: Span) {
        let mut seen = self.seen.borrow_mut();
        if seen.len() < LIMIT && !seen.iter().any(|(n, s)| *s == span && same(n, &note)) {
            seen.push((note, span));
        }
    }

    pub(crate) fn forced_monotonic(
        &self,
        name: &str,
        span: Span,
        t_ms: i64,
        lifted: crate::hist::quantile::Lifted,
    ) {
        let mut forced = self.forced.borrow_mut();
        let key = (name.to_owned(), span.start, span.end);
        let entry = forced.entry(key).or_insert(Forced {
            min_t: t_ms,
            max_t: t_ms,
            lowest: lifted.lowest,
            highest: lifted.highest,
            drop: lifted.largest_drop,
            count: 0,
        });
        entry.min_t = entry.min_t.min(t_ms);
        entry.max_t = entry.max_t.max(t_ms);
        entry.lowest = entry.lowest.min(lifted.lowest);
        entry.highest = entry.highest.max(lifted.highest);
        entry.drop = entry.drop.max(lifted.largest_drop);
        entry.count += 1;
    }

    /// The warnings and infos as texts. `text` gives the positions lines and columns.
    pub(crate) fn finish(&self, text: Option<&str>) -> (Vec<String>, Vec<String>) {
        let place = |start: usize| {
            let (line, column) = text.map_or((1, start + 1), |t| line_column(t, start));
            format!("({line}:{column})")
        };
        let (mut warnings, mut infos) = (Vec::new(), Vec::new());
        for (note, span) in self.seen.borrow().iter() {
            let (is_warning, message) = message(note);
            let (list, word) = if is_warning {
                (&mut warnings, "warning")
            } else {
                (&mut infos, "info")
            };
            list.push(format!("PromQL {word}: {message} {}", place(span.start)));
        }
        for ((name, start, _), f) in self.forced.borrow().iter() {
            infos.push(forced_message(name, f, &place(*start)));
        }
        (warnings, infos)
    }
}

fn same(a: &Note, b: &Note) -> bool {
    match (a, b) {
        (Note::InvalidQuantile(x), Note::InvalidQuantile(y)) => x.to_bits() == y.to_bits(),
        _ => a == b,
    }
}

fn named(what: &str, name: &str) -> String {
    if name.is_empty() {
        what.to_owned()
    } else {
        format!("{what} for metric name {name:?}")
    }
}

/// Whether it is a warning, and its text without the place.
fn message(note: &Note) -> (bool, String) {
    match note {
        Note::InvalidQuantile(q) => (
            true,
            format!(
                "quantile value should be between 0 and 1, got {}",
                go_float(*q)
            ),
        ),
        Note::InvalidRatio(r, to) => (
            true,
            format!(
                "ratio value should be between -1 and 1, got {}, capping to {}",
                go_float(*r),
                go_float(*to)
            ),
        ),
        Note::BadBucket(name, label) => (
            true,
            named(
                &format!("bucket label \"le\" is missing or has a malformed value of {label:?}"),
                name,
            ),
        ),
        Note::MixedFloatsHistograms(name) => (
            true,
            format!("encountered a mix of histograms and floats for metric name {name:?}"),
        ),
        Note::MixedFloatsHistogramsAgg => (
            true,
            "encountered a mix of histograms and floats for aggregation".into(),
        ),
        Note::MixedClassicNative(name) => (
            true,
            named(
                "vector contains a mix of classic and native histograms",
                name,
            ),
        ),
        Note::NotCounter(name) => (
            true,
            format!("this native histogram metric is not a counter: {name:?}"),
        ),
        Note::NotGauge(name) => (
            true,
            format!("this native histogram metric is not a gauge: {name:?}"),
        ),
        Note::MixedSchemas(name) => (
            true,
            format!(
                "vector contains a mix of histograms with exponential and custom buckets schemas for metric name {name:?}"
            ),
        ),
        Note::IncompatibleBuckets(op) => (
            true,
            format!("incompatible bucket layout encountered for binary operator {op}"),
        ),
        Note::SortInRange => (
            true,
            "sort is ineffective for range queries since results are always ordered by labels"
                .into(),
        ),
        Note::ResetCollision(what) => (
            true,
            format!("conflicting counter resets during histogram {what}"),
        ),
        Note::StartOverlap(name) => (
            true,
            format!(
                "sample has start time that overlaps with previous sample timestamp for metric {name:?}"
            ),
        ),
        other => (false, info_message(other)),
    }
}

fn info_message(note: &Note) -> String {
    match note {
        Note::MaybeNotCounter(name) => format!(
            "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: {name:?}"
        ),
        Note::MaybeNotCounterType(name, kind) => format!(
            "metric might not be a counter, __type__ label is not set to \"counter\" or \"histogram\", got {kind:?}: {name:?}"
        ),
        Note::IncompatibleTypes(left, op, right) => format!(
            "incompatible sample types encountered for binary operator {op:?}: {left} {op} {right}"
        ),
        Note::IgnoredInAggregation(op) => format!("ignored histogram in {op} aggregation"),
        Note::IgnoredInRange(name) => format!(
            "ignored histograms in a range containing both floats and histograms for metric name {name:?}"
        ),
        Note::QuantileNan(name) => named(
            "input to histogram_quantile has NaN observations, result is NaN",
            name,
        ),
        Note::QuantileSkew(name) => named(
            "input to histogram_quantile has NaN observations, result is skewed higher",
            name,
        ),
        Note::FractionNan(name) => named(
            "input to histogram_fraction has NaN observations, which are excluded from all fractions",
            name,
        ),
        Note::BoundsReconciled(what) => {
            format!("mismatched custom buckets were reconciled during {what}")
        }
        _ => String::new(),
    }
}

fn forced_message(name: &str, f: &Forced, place: &str) -> String {
    let base = "PromQL info: input to histogram_quantile needed to be fixed for monotonicity (see https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile)";
    let named = if name.is_empty() {
        base.to_owned()
    } else {
        format!("{base} for metric name {name:?}")
    };
    let clock = |t_ms: i64| {
        model::timestamp::format_rfc3339(t_ms.div_euclid(1000) * 1000).replace(".000Z", "Z")
    };
    format!(
        "{named}, from buckets {} to {}, with a max diff of {}, over {} samples from {} to {} {place}",
        go_float(f.lowest),
        go_float(f.highest),
        two_digits(f.drop),
        f.count,
        clock(f.min_t),
        clock(f.max_t)
    )
}

/// A number with two significant digits.
fn two_digits(v: f64) -> String {
    let rounded: f64 = format!("{v:.1e}").parse().unwrap_or(v);
    if rounded != 0.0 && rounded.abs() >= 100.0 {
        let text = format!("{v:.1e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        return format!(
            "{}e+{exponent:0>2}",
            mantissa.trim_end_matches('0').trim_end_matches('.')
        );
    }
    go_float(rounded)
}

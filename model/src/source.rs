//! [`Source`]: the one way to read series.
//!
//! Owns the read interface that the embedded store, a remote Prometheus-compatible server and a test corpus share.
//! PromQL, alerts, dashboards and screens cannot tell which they read. Must not know how any of them works.

use std::ops::ControlFlow;

use crate::labels::Labels;
use crate::matcher::Matcher;
use crate::query::QueryData;
use crate::sample::{Points, SeriesData};

/// What to read. Both bounds are inclusive, Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct SelectRequest<'a> {
    /// Every one must match.
    pub matchers: &'a [Matcher],
    /// The first instant wanted.
    pub start_ms: i64,
    /// The last instant wanted.
    pub end_ms: i64,
    /// Refuse rather than return more points than this, over all series. `usize::MAX` for no limit.
    pub max_points: usize,
}

/// A whole query, offered to a source that can evaluate PromQL itself. With `step_ms` 0 it is an instant query at
/// `end_ms`.
#[derive(Debug, Clone, Copy)]
pub struct WholeQuery<'a> {
    /// The PromQL text.
    pub text: &'a str,
    /// First evaluation, Unix milliseconds.
    pub start_ms: i64,
    /// Last evaluation, Unix milliseconds.
    pub end_ms: i64,
    /// Distance of evaluations in milliseconds; 0 for an instant query.
    pub step_ms: i64,
}

/// One exemplar of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct Exemplar {
    /// The exemplar's own labels, such as `trace_id`.
    pub labels: Labels,
    /// The observed value.
    pub value: f64,
    /// When, Unix milliseconds.
    pub t_ms: i64,
}

/// What is known about a metric's name.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Metadata {
    /// `counter`, `gauge`, `histogram`, `summary`, `info`, `stateset` or `unknown`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The help text.
    pub help: String,
    /// The unit, or empty.
    pub unit: String,
}

/// Why a source could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// More points than the request allows.
    #[error("the query would read more than {limit} samples; narrow the selector or the range")]
    TooManyPoints {
        /// The request's limit.
        limit: usize,
    },
    /// Data on disk is damaged; what could be read is not returned as if it were whole.
    #[error("corrupt data: {0}")]
    Corrupt(String),
    /// The source cannot be reached or took too long.
    #[error("source unavailable: {0}")]
    Unavailable(String),
    /// The source refused the request.
    #[error("source refused: {0}")]
    Refused(String),
}

/// Takes one series after another, see [`Source::visit`]. `Break`: no more.
pub type Visit<'a> = dyn FnMut(&Labels, &mut Points) -> ControlFlow<()> + 'a;

/// Reads series. Implementations are cheap to share and safe to call from many threads; a call may block (on disk or
/// on the network), so async callers wrap it in `spawn_blocking`.
pub trait Source: Send + Sync {
    /// The series that match, each with its points in the bounds, ascending. Series without a point in the bounds are
    /// left out. Order of series is unspecified. Staleness markers are returned as points.
    fn select(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError>;

    /// The same series as [`Source::select`], in the same order, handed over one after another, so that nobody has to hold
    /// the points of all. `visit` may take or change the points: they are the next call's to overwrite. An error may come
    /// after some series.
    fn visit(&self, request: &SelectRequest<'_>, visit: &mut Visit<'_>) -> Result<(), SourceError> {
        for mut series in self.select(request)? {
            if visit(&series.labels, &mut series.points).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The label sets of the matching series that have a point in the bounds (approximate at the granularity of the
    /// source's blocks: never missing one, possibly one too many).
    fn series(&self, request: &SelectRequest<'_>) -> Result<Vec<Labels>, SourceError> {
        Ok(self
            .select(request)?
            .into_iter()
            .map(|s| s.labels)
            .collect())
    }

    /// The names of labels on matching series, ascending, without repeats.
    fn label_names(&self, request: &SelectRequest<'_>) -> Result<Vec<String>, SourceError> {
        let series = self.series(request)?;
        let names: std::collections::BTreeSet<&str> = series
            .iter()
            .flat_map(|l| l.iter().map(|(n, _)| n))
            .collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    /// The values of label `name` on matching series, ascending, without repeats.
    fn label_values(
        &self,
        name: &str,
        request: &SelectRequest<'_>,
    ) -> Result<Vec<String>, SourceError> {
        let series = self.series(request)?;
        let values: std::collections::BTreeSet<&str> =
            series.iter().filter_map(|l| l.get(name)).collect();
        Ok(values.into_iter().map(str::to_owned).collect())
    }

    /// Exemplars of the matching series in the bounds.
    fn exemplars(
        &self,
        _request: &SelectRequest<'_>,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, SourceError> {
        Ok(Vec::new())
    }

    /// What is known about metrics, by name.
    fn metadata(&self) -> Result<std::collections::BTreeMap<String, Metadata>, SourceError> {
        Ok(std::collections::BTreeMap::new())
    }

    /// Evaluates a whole query, when the source can do that better than by handing out its series (a remote server
    /// can). `None` means: evaluate it yourself over [`Source::select`].
    fn evaluate(&self, _query: &WholeQuery<'_>) -> Option<Result<QueryData, SourceError>> {
        None
    }
}

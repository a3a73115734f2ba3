//! [`RemoteSource`]: a Prometheus-compatible server as a [`Source`].
//!
//! Owns the translation of `Source` calls to HTTP calls. Must not know which server it is.

use std::collections::BTreeMap;
use std::future::Future;

use model::labels::Labels;
use model::matcher::Matcher;
use model::query::QueryData;
use model::sample::SeriesData;
use model::source::{Exemplar, Metadata, SelectRequest, Source, SourceError, WholeQuery};
use tokio::runtime::Handle;

use crate::error::ClientError;
use crate::http::Client;

/// Series of a Prometheus-compatible server. Calls block: from async code call them inside `spawn_blocking`.
///
/// Differences that the API forces: staleness markers and native histograms are not in its answers.
#[derive(Debug, Clone)]
pub struct RemoteSource {
    client: Client,
    runtime: Handle,
}

// === impl RemoteSource ===

impl RemoteSource {
    /// A source that asks through `client` on `runtime`.
    #[must_use]
    pub fn new(client: Client, runtime: Handle) -> Self {
        RemoteSource { client, runtime }
    }

    fn wait<T>(
        &self,
        answer: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, SourceError> {
        self.runtime.block_on(answer).map_err(SourceError::from)
    }
}

/// The matchers as a selector.
fn selector(matchers: &[Matcher]) -> String {
    let all: Vec<String> = matchers.iter().map(ToString::to_string).collect();
    format!("{{{}}}", all.join(","))
}

impl Source for RemoteSource {
    fn select(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        // A range is open at its left end: one millisecond more takes the first instant in.
        let range_ms = request
            .end_ms
            .saturating_sub(request.start_ms)
            .saturating_add(1);
        if range_ms <= 0 {
            return Ok(Vec::new());
        }
        let text = format!("{}[{range_ms}ms]", selector(request.matchers));
        let answer = self.wait(self.client.query(&text, request.end_ms))?;
        let QueryData::Matrix(series) = answer else {
            let kind = answer.type_name();
            let problem = format!("a range selector was answered with a {kind}");
            return Err(SourceError::Unavailable(problem));
        };
        let points: usize = series.iter().map(|s| s.points.len()).sum();
        if points > request.max_points {
            return Err(SourceError::TooManyPoints {
                limit: request.max_points,
            });
        }
        let with_points = series.into_iter().filter(|s| !s.points.is_empty());
        Ok(with_points
            .map(|s| SeriesData {
                labels: s.labels,
                points: s.points,
            })
            .collect())
    }

    fn series(&self, request: &SelectRequest<'_>) -> Result<Vec<Labels>, SourceError> {
        let matches = [selector(request.matchers)];
        self.wait(
            self.client
                .series(&matches, request.start_ms, request.end_ms),
        )
    }

    fn label_names(&self, request: &SelectRequest<'_>) -> Result<Vec<String>, SourceError> {
        let matches = narrowing(request.matchers);
        self.wait(
            self.client
                .label_names(&matches, request.start_ms, request.end_ms),
        )
    }

    fn label_values(
        &self,
        name: &str,
        request: &SelectRequest<'_>,
    ) -> Result<Vec<String>, SourceError> {
        let matches = narrowing(request.matchers);
        self.wait(
            self.client
                .label_values(name, &matches, request.start_ms, request.end_ms),
        )
    }

    fn exemplars(
        &self,
        request: &SelectRequest<'_>,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, SourceError> {
        let text = selector(request.matchers);
        self.wait(
            self.client
                .exemplars(&text, request.start_ms, request.end_ms),
        )
    }

    fn metadata(&self) -> Result<BTreeMap<String, Metadata>, SourceError> {
        self.wait(self.client.metadata())
    }

    fn evaluate(&self, query: &WholeQuery<'_>) -> Option<Result<QueryData, SourceError>> {
        let (start_ms, end_ms) = (query.start_ms, query.end_ms);
        Some(match query.step_ms {
            0 => self.wait(self.client.query(query.text, end_ms)),
            step_ms => self.wait(
                self.client
                    .query_range(query.text, start_ms, end_ms, step_ms),
            ),
        })
    }
}

/// The selector, or none at all where it selects everything: a server refuses `{}`.
fn narrowing(matchers: &[Matcher]) -> Vec<String> {
    match matchers.iter().all(Matcher::matches_empty) {
        true => Vec::new(),
        false => vec![selector(matchers)],
    }
}

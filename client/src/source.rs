//! [`RemoteSource`]: a Prometheus-compatible server as a [`Source`].
//!
//! Owns the translation of `Source` calls to HTTP calls. Must not know which server it is.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::labels::Labels;
use model::matcher::Matcher;
use model::prompb::ReadQuery;
use model::query::QueryData;
use model::sample::{Points, SeriesData};
use model::source::{Exemplar, Metadata, SelectRequest, Source, SourceError, WholeQuery};
use tokio::runtime::Handle;

use crate::error::ClientError;
use crate::http::Client;
use crate::remote_read::RemoteRead;

/// Where PromQL is evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Evaluate {
    /// By the server, as its version and vendor have it.
    #[default]
    There,
    /// By us, over the server's samples: our semantics on any server, at the price of fetching the samples.
    Here,
}

/// Series of a Prometheus-compatible server. Calls block: from async code call them inside `spawn_blocking`.
///
/// Samples are fetched by remote read. A server without it is asked for ranges (`x[5m]`) instead; that API's answers
/// have lost staleness markers and native histograms.
#[derive(Debug, Clone)]
pub struct RemoteSource {
    client: Client,
    runtime: Handle,
    evaluate: Evaluate,
    no_remote_read: Arc<AtomicBool>,
}

// === impl RemoteSource ===

impl RemoteSource {
    /// A source that asks through `client` on `runtime`, and leaves evaluation to the server.
    #[must_use]
    pub fn new(client: Client, runtime: Handle) -> Self {
        RemoteSource {
            client,
            runtime,
            evaluate: Evaluate::There,
            no_remote_read: Arc::default(),
        }
    }

    /// Says where whole queries are evaluated.
    #[must_use]
    pub fn evaluating(mut self, evaluate: Evaluate) -> Self {
        self.evaluate = evaluate;
        self
    }

    /// Whether the server turned out to have no remote read.
    #[must_use]
    pub fn lacks_remote_read(&self) -> bool {
        self.no_remote_read.load(Ordering::Relaxed)
    }

    /// The samples by remote read; `None` when the server has none.
    fn read(&self, request: &SelectRequest<'_>) -> Result<Option<Vec<SeriesData>>, SourceError> {
        if self.lacks_remote_read() {
            return Ok(None);
        }
        let query = ReadQuery {
            start_ms: request.start_ms,
            end_ms: request.end_ms,
            matchers: request.matchers.to_vec(),
        };
        match self.wait(self.client.remote_read(&query, request.max_points))? {
            RemoteRead::Series(series) => Ok(Some(series)),
            RemoteRead::TooMany => Err(SourceError::TooManyPoints {
                limit: request.max_points,
            }),
            RemoteRead::Unsupported => {
                self.no_remote_read.store(true, Ordering::Relaxed);
                Ok(None)
            }
        }
    }

    /// The samples by a range selector.
    fn ask_for_range(&self, request: &SelectRequest<'_>) -> Result<Vec<SeriesData>, SourceError> {
        // A range is open at its left end: one millisecond more takes the first instant in.
        let range_ms = request
            .end_ms
            .saturating_sub(request.start_ms)
            .saturating_add(1);
        let text = format!("{}[{range_ms}ms]", selector(request.matchers));
        let answer = self.wait(self.client.query(&text, request.end_ms))?;
        let QueryData::Matrix(series) = answer else {
            let kind = answer.type_name();
            let problem = format!("a range selector was answered with a {kind}");
            return Err(SourceError::Unavailable(problem));
        };
        let series = series.into_iter().map(|s| SeriesData {
            labels: s.labels,
            points: s.points,
        });
        Ok(series.collect())
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
        if request.end_ms < request.start_ms {
            return Ok(Vec::new());
        }
        let mut series = match self.read(request)? {
            Some(series) => series,
            None => self.ask_for_range(request)?,
        };
        for one in &mut series {
            within(&mut one.points, request.start_ms, request.end_ms);
        }
        series.retain(|s| !s.points.is_empty());
        let points: usize = series.iter().map(|s| s.points.len()).sum();
        if points > request.max_points {
            return Err(SourceError::TooManyPoints {
                limit: request.max_points,
            });
        }
        Ok(series)
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
        if self.evaluate == Evaluate::Here {
            return None;
        }
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

/// Cuts what servers send beyond the bounds: whole chunks, or the left edge that version 2 takes for inside.
fn within(points: &mut Points, start_ms: i64, end_ms: i64) {
    let to = points.t_ms.partition_point(|t| *t <= end_ms);
    let from = points.t_ms.partition_point(|t| *t < start_ms).min(to);
    cut(&mut points.t_ms, from, to);
    cut(&mut points.values, from, to);
    cut(&mut points.histograms, from, to);
    cut(&mut points.start_ms, from, to);
}

fn cut<T>(column: &mut Vec<T>, from: usize, to: usize) {
    if !column.is_empty() {
        column.truncate(to);
        column.drain(..from);
    }
}

/// The selector, or none at all where it selects everything: a server refuses `{}`.
fn narrowing(matchers: &[Matcher]) -> Vec<String> {
    match matchers.iter().all(Matcher::matches_empty) {
        true => Vec::new(),
        false => vec![selector(matchers)],
    }
}

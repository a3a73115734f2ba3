//! The API's calls, typed.
//!
//! Owns parameters and bodies of each call. Must not know HTTP's details.

use std::collections::BTreeMap;

use model::api::{AlertEvent, AlertsBody, RulesBody, SelfStatus, path, query_data_from_json};
use model::labels::Labels;
use model::log::LogRecord;
use model::query::QueryData;
use model::slo::SloStatus;
use model::source::{Exemplar, Metadata};
use model::span::{Span, TraceId, TraceSummary};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::ClientError;
use crate::http::Client;
use crate::search::{LogSearch, TraceSearch};

/// One scrape target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its job.
    #[serde(rename = "scrapePool", default)]
    pub job: String,
    /// What is fetched.
    #[serde(rename = "scrapeUrl", default)]
    pub url: String,
    /// Why the last scrape failed; empty when it did not.
    #[serde(rename = "lastError", default)]
    pub last_error: String,
    /// When it was last scraped, RFC 3339.
    #[serde(rename = "lastScrape", default)]
    pub last_scrape: String,
    /// How long that took, seconds.
    #[serde(rename = "lastScrapeDuration", default)]
    pub last_seconds: f64,
    /// `up`, `down` or `unknown`.
    #[serde(default)]
    pub health: String,
}

/// The data of `GET targets`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Targets {
    /// Targets that are scraped.
    #[serde(rename = "activeTargets", default)]
    pub active: Vec<Target>,
}

#[derive(Deserialize)]
struct ExemplarSeries {
    #[serde(rename = "seriesLabels")]
    labels: Labels,
    exemplars: Vec<ExemplarBody>,
}

#[derive(Deserialize)]
struct ExemplarBody {
    labels: Labels,
    value: Json,
    timestamp: f64,
}

/// Unix milliseconds as the API takes them: seconds with a fraction.
pub(crate) fn seconds(t_ms: i64) -> String {
    let sign = if t_ms < 0 { "-" } else { "" };
    let ms = t_ms.unsigned_abs();
    format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
}

fn selection(matches: &[String], start_ms: i64, end_ms: i64) -> Vec<(&'static str, String)> {
    let mut out: Vec<_> = matches.iter().map(|m| ("match[]", m.clone())).collect();
    out.push(("start", seconds(start_ms)));
    out.push(("end", seconds(end_ms)));
    out
}

// === impl Client ===

impl Client {
    /// Evaluates PromQL at `t_ms` (Unix milliseconds). Native histograms in the answer are left out: the API's form
    /// has lost their schema.
    pub async fn query(&self, text: &str, t_ms: i64) -> Result<QueryData, ClientError> {
        Ok(self.query_annotated(text, t_ms).await?.0)
    }

    /// [`Client::query`] with what the server says of the query: warnings, then remarks.
    pub async fn query_annotated(
        &self,
        text: &str,
        t_ms: i64,
    ) -> Result<(QueryData, Vec<String>), ClientError> {
        let parameters = [("query", text.to_owned()), ("time", seconds(t_ms))];
        self.query_at(path::QUERY, &parameters).await
    }

    /// Evaluates PromQL from `start_ms` to `end_ms` (both inclusive) every `step_ms` (at least 1).
    pub async fn query_range(
        &self,
        text: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<QueryData, ClientError> {
        let answer = self.query_range_annotated(text, start_ms, end_ms, step_ms);
        Ok(answer.await?.0)
    }

    /// [`Client::query_range`] with what the server says of the query: warnings, then remarks.
    pub async fn query_range_annotated(
        &self,
        text: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<(QueryData, Vec<String>), ClientError> {
        let parameters = [
            ("query", text.to_owned()),
            ("start", seconds(start_ms)),
            ("end", seconds(end_ms)),
            ("step", seconds(step_ms.max(1))),
        ];
        self.query_at(path::QUERY_RANGE, &parameters).await
    }

    async fn query_at(
        &self,
        path: &str,
        parameters: &[(&str, String)],
    ) -> Result<(QueryData, Vec<String>), ClientError> {
        let (data, notes): (Json, _) = self.post_form_annotated(path, parameters).await?;
        let data = query_data_from_json(&data).map_err(|e| ClientError::Protocol {
            url: format!("{}{path}", self.base_url()),
            status: 200,
            reason: e.to_string(),
        })?;
        Ok((data, notes))
    }

    /// The label sets of series that match any of `matches` (selectors) between two instants (Unix milliseconds).
    pub async fn series(
        &self,
        matches: &[String],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<Labels>, ClientError> {
        let parameters = selection(matches, start_ms, end_ms);
        self.post_form(path::SERIES, &parameters).await
    }

    /// Names of labels on matching series; all series when `matches` is empty.
    pub async fn label_names(
        &self,
        matches: &[String],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<String>, ClientError> {
        let parameters = selection(matches, start_ms, end_ms);
        self.get(path::LABELS, &parameters).await
    }

    /// Values of the label `name` on matching series; all series when `matches` is empty.
    pub async fn label_values(
        &self,
        name: &str,
        matches: &[String],
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<String>, ClientError> {
        let encoded: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
        let path = path::LABEL_VALUES.replace("{name}", &encoded);
        let parameters = selection(matches, start_ms, end_ms);
        self.get(&path, &parameters).await
    }

    /// What is known about metrics, by name; the first entry of each.
    pub async fn metadata(&self) -> Result<BTreeMap<String, Metadata>, ClientError> {
        let all: BTreeMap<String, Vec<Metadata>> = self.get(path::METADATA, &[]).await?;
        let first = all
            .into_iter()
            .filter_map(|(name, list)| Some((name, list.into_iter().next()?)));
        Ok(first.collect())
    }

    /// Exemplars of a query's series between two instants (Unix milliseconds).
    pub async fn exemplars(
        &self,
        text: &str,
        start_ms: i64,
        end_ms: i64,
    ) -> Result<Vec<(Labels, Vec<Exemplar>)>, ClientError> {
        let mut parameters = selection(&[], start_ms, end_ms);
        parameters.push(("query", text.to_owned()));
        let all: Vec<ExemplarSeries> = self.post_form(path::EXEMPLARS, &parameters).await?;
        let read = |e: ExemplarBody| {
            let value = match &e.value {
                Json::String(text) => model::api::parse_float(text)?,
                other => other.as_f64()?,
            };
            Some(Exemplar {
                labels: e.labels,
                value,
                t_ms: (e.timestamp * 1000.0).round() as i64,
            })
        };
        let series = all.into_iter().map(|s| {
            let exemplars = s.exemplars.into_iter().filter_map(read).collect();
            (s.labels, exemplars)
        });
        Ok(series.collect())
    }

    /// Rules and their state.
    pub async fn rules(&self) -> Result<RulesBody, ClientError> {
        self.get(path::RULES, &[]).await
    }

    /// Active alerts.
    pub async fn alerts(&self) -> Result<AlertsBody, ClientError> {
        self.get(path::ALERTS, &[]).await
    }

    /// The log of alert transitions and deliveries.
    pub async fn alert_events(&self) -> Result<Vec<AlertEvent>, ClientError> {
        self.get(path::ALERT_EVENTS, &[]).await
    }

    /// Service level objectives.
    pub async fn slos(&self) -> Result<Vec<SloStatus>, ClientError> {
        self.get(path::SLOS, &[]).await
    }

    /// Scrape targets.
    pub async fn targets(&self) -> Result<Targets, ClientError> {
        self.get(path::TARGETS, &[]).await
    }

    /// Traces by search.
    pub async fn traces(&self, search: &TraceSearch) -> Result<Vec<TraceSummary>, ClientError> {
        self.get(path::TRACES, &search.parameters()).await
    }

    /// The spans of one trace; [`ClientError::is_not_found`] when it is not kept.
    pub async fn trace(&self, id: TraceId) -> Result<Vec<Span>, ClientError> {
        let path = path::TRACE.replace("{id}", &id.to_string());
        self.get(&path, &[]).await
    }

    /// Log records by search.
    pub async fn logs(&self, search: &LogSearch) -> Result<Vec<LogRecord>, ClientError> {
        self.get(path::LOGS, &search.parameters()).await
    }

    /// The agent's own state.
    pub async fn self_status(&self) -> Result<SelfStatus, ClientError> {
        self.get(path::SELF, &[]).await
    }

    /// Waits until everything that the agent has received can be queried.
    pub async fn flush(&self) -> Result<(), ClientError> {
        let _said: Json = self.post_form(path::FLUSH, &[]).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_with_a_fraction() {
        assert_eq!(seconds(1_234), "1.234");
        assert_eq!(seconds(-5), "-0.005");
        assert_eq!(seconds(60_000), "60.000");
    }
}

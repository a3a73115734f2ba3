//! Series, label names and values, metadata and exemplars.
//!
//! Owns the reading of `match[]` and time bounds. Must not know how series are found.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::{Path, State};
use axum::response::Response;
use model::api::Envelope;
use model::source::{Metadata, SelectRequest};
use model::{Labels, Matcher, Source};
use promql::ExprKind;
use serde_json::{Value as Json, json};

use super::form::Params;
use super::respond::{ApiError, json as json_body, success};
use super::state::{Api, blocking};

/// Points that looking for series may read.
const MAX_POINTS: usize = 50_000_000;

/// A time bound that leaves nothing out and can be added to, milliseconds.
const EVER_MS: i64 = 1 << 53;

/// Selectors and time bounds of a request.
struct Wanted {
    selectors: Vec<Vec<Matcher>>,
    start_ms: i64,
    end_ms: i64,
    limit: usize,
}

/// `series?match[]&start&end&limit`.
pub(super) async fn series(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let wanted = Wanted::read(&params)?;
    if wanted.selectors.is_empty() {
        return Err(ApiError::bad_data("no match[] parameter provided"));
    }
    let found = blocking(move || {
        let source = api.pipeline.ingest.source();
        let mut all: BTreeSet<Labels> = BTreeSet::new();
        for request in wanted.requests() {
            all.extend(source.series(&request)?);
        }
        Ok(limited(all, wanted.limit))
    })
    .await?;
    Ok(answer(found))
}

/// At most `limit` of them, and whether some were left out.
fn limited<T>(all: BTreeSet<T>, limit: usize) -> (Vec<T>, bool) {
    let cut = all.len() > limit;
    (all.into_iter().take(limit).collect(), cut)
}

fn answer<T: serde::Serialize>((found, cut): (Vec<T>, bool)) -> Response {
    let mut envelope = Envelope::success(found);
    if cut {
        let warning = "results truncated due to limit";
        envelope.warnings.push(warning.into());
    }
    json_body(&envelope)
}

/// `labels?match[]&start&end&limit`.
pub(super) async fn labels(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let wanted = Wanted::read(&params)?;
    collect(api, wanted, |source, request| source.label_names(request)).await
}

/// `label/{name}/values?match[]&start&end&limit`.
pub(super) async fn label_values(
    State(api): State<Api>,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let name = unescape(&name);
    if name.is_empty() {
        return Err(ApiError::bad_data("invalid label name: \"\""));
    }
    let wanted = Wanted::read(&params)?;
    collect(api, wanted, move |source, request| {
        source.label_values(&name, request)
    })
    .await
}

/// `metadata?metric&limit&limit_per_metric`.
pub(super) async fn metadata(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let metric = params.get("metric").map(str::to_owned);
    let limit = params.count("limit")?.unwrap_or(usize::MAX);
    let found = blocking(move || {
        let all = api.pipeline.ingest.source().metadata()?;
        let named = all
            .into_iter()
            .filter(|(name, _)| metric.as_ref().is_none_or(|m| m == name));
        // A list for each metric, because targets may disagree.
        let listed = named.map(|(name, metadata)| (name, [metadata]));
        Ok(listed
            .take(limit)
            .collect::<BTreeMap<String, [Metadata; 1]>>())
    })
    .await?;
    Ok(success(found))
}

/// `query_exemplars?query&start&end`.
pub(super) async fn exemplars(
    State(api): State<Api>,
    params: Params,
) -> Result<Response, ApiError> {
    let expr = promql::parse(params.get("query").unwrap_or(""))
        .map_err(|e| ApiError::parameter("query", e))?;
    let mut wanted = Wanted::bounds(&params)?;
    if wanted.end_ms < wanted.start_ms {
        let problem = "end timestamp must not be before start timestamp";
        return Err(ApiError::bad_data(problem));
    }
    selectors_of(&expr, &mut wanted.selectors);
    let found = blocking(move || {
        let source = api.pipeline.ingest.source();
        let mut out: Vec<Json> = Vec::new();
        for request in wanted.requests() {
            for (series, exemplars) in source.exemplars(&request)? {
                let exemplars: Vec<Json> = exemplars
                    .iter()
                    .filter(|e| (wanted.start_ms..=wanted.end_ms).contains(&e.t_ms))
                    .map(|e| {
                        json!({
                            "labels": e.labels,
                            "value": model::api::format_float(e.value),
                            "timestamp": e.t_ms as f64 / 1000.0,
                        })
                    })
                    .collect();
                if !exemplars.is_empty() {
                    out.push(json!({"seriesLabels": series, "exemplars": exemplars}));
                }
            }
        }
        Ok(out)
    })
    .await?;
    Ok(success(found))
}

async fn collect(
    api: Api,
    wanted: Wanted,
    read: impl Fn(&dyn Source, &SelectRequest<'_>) -> Result<Vec<String>, model::SourceError>
    + Send
    + 'static,
) -> Result<Response, ApiError> {
    let found = blocking(move || {
        let source = api.pipeline.ingest.source();
        let mut all: BTreeSet<String> = BTreeSet::new();
        if wanted.selectors.is_empty() && wanted.start_ms <= wanted.end_ms {
            all.extend(read(source.as_ref(), &wanted.request(&[]))?);
        }
        for request in wanted.requests() {
            all.extend(read(source.as_ref(), &request)?);
        }
        Ok(limited(all, wanted.limit))
    })
    .await?;
    Ok(answer(found))
}

// === impl Wanted ===

impl Wanted {
    fn bounds(params: &Params) -> Result<Self, ApiError> {
        let wanted = Wanted {
            selectors: Vec::new(),
            start_ms: params.time("start")?.unwrap_or(-EVER_MS),
            end_ms: params.time("end")?.unwrap_or(EVER_MS),
            limit: params
                .count("limit")?
                .filter(|n| *n > 0)
                .unwrap_or(usize::MAX),
        };
        Ok(wanted)
    }

    fn read(params: &Params) -> Result<Self, ApiError> {
        let mut wanted = Wanted::bounds(params)?;
        for text in params.all("match[]") {
            let expr = promql::parse(text).map_err(|e| ApiError::parameter("match[]", e))?;
            let ExprKind::Selector(selector) = &expr.kind else {
                return Err(ApiError::parameter(
                    "match[]",
                    format!("{text:?} is not a selector"),
                ));
            };
            let matchers = selector.all_matchers();
            if matchers.iter().all(Matcher::matches_empty) {
                let problem = "match[] must contain at least one non-empty matcher";
                return Err(ApiError::bad_data(problem));
            }
            wanted.selectors.push(matchers);
        }
        Ok(wanted)
    }

    /// Nothing when the bounds are the wrong way round, as in Prometheus.
    fn requests(&self) -> impl Iterator<Item = SelectRequest<'_>> {
        let forward = self.start_ms <= self.end_ms;
        let selectors = self.selectors.iter().filter(move |_| forward);
        selectors.map(|matchers| self.request(matchers))
    }

    fn request<'a>(&self, matchers: &'a [Matcher]) -> SelectRequest<'a> {
        SelectRequest {
            matchers,
            start_ms: self.start_ms,
            end_ms: self.end_ms,
            max_points: MAX_POINTS,
        }
    }
}

fn selectors_of(expr: &promql::Expr, out: &mut Vec<Vec<Matcher>>) {
    match &expr.kind {
        ExprKind::Number(_) | ExprKind::String(_) => {}
        ExprKind::Selector(selector) => out.push(selector.all_matchers()),
        ExprKind::Matrix(matrix) => out.push(matrix.selector.all_matchers()),
        ExprKind::Subquery(subquery) => selectors_of(&subquery.expr, out),
        ExprKind::Call(call) => call.args.iter().for_each(|a| selectors_of(a, out)),
        ExprKind::Aggregate(aggregate) => {
            if let Some(param) = &aggregate.param {
                selectors_of(param, out);
            }
            selectors_of(&aggregate.expr, out);
        }
        ExprKind::Binary(binary) => {
            selectors_of(&binary.lhs, out);
            selectors_of(&binary.rhs, out);
        }
        ExprKind::Unary(unary) => selectors_of(&unary.expr, out),
        ExprKind::Paren(inner) => selectors_of(inner, out),
    }
}

/// A label's name in a path may be escaped as `U__a_2e_b` when it is not an identifier.
fn unescape(name: &str) -> String {
    let Some(rest) = name.strip_prefix("U__") else {
        return name.to_owned();
    };
    let mut out = String::new();
    let mut parts = rest.split('_');
    out.push_str(parts.next().unwrap_or(""));
    while let Some(code) = parts.next() {
        if code.is_empty() {
            out.push('_');
        } else {
            match u32::from_str_radix(code, 16).ok().and_then(char::from_u32) {
                Some(c) => out.push(c),
                None => return name.to_owned(),
            }
        }
        match parts.next() {
            Some(text) => out.push_str(text),
            None => break,
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_names() {
        for (given, wanted) in [
            ("job", "job"),
            ("U__http_2e_status", "http.status"),
            ("U__a__b", "a_b"),
            ("U__a_zz_b", "U__a_zz_b"),
        ] {
            assert_eq!(unescape(given), wanted);
        }
    }
}

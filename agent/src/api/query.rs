//! PromQL over HTTP: instant and range queries, formatting, the syntax tree.
//!
//! Owns parameters, limits, timeouts and Prometheus' error shapes. Must not know the language.

use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use promql::{QueryError, RangeData, RangeOutput, Stop};

use super::body::AnswerBody;
use super::form::Params;
use super::respond::{ApiError, success};
use super::state::Api;
use super::tree;
use crate::clock;
use crate::own_spans::TARGET;

/// Points of one series that a range query may ask for, as in Prometheus.
const MAX_POINTS: i64 = 11_000;

/// `query?query&time&timeout&limit&lookback_delta`.
pub(super) async fn instant(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let text = query_text(&params)?;
    let t_ms = params.time("time")?.unwrap_or_else(clock::now_ms);
    let engine = engine(&api, &params)?;
    evaluate(api, &params, "instant", move |source, stop| {
        let output = engine.with_stop(stop).instant(source, &text, t_ms)?;
        Ok(RangeOutput {
            data: RangeData::Data(output.data),
            warnings: output.warnings,
            infos: output.infos,
        })
    })
    .await
}

/// `query_range?query&start&end&step&timeout&limit&lookback_delta`.
pub(super) async fn range(State(api): State<Api>, params: Params) -> Result<Response, ApiError> {
    let text = query_text(&params)?;
    let required = |name: &str, value: Option<i64>| {
        value.ok_or_else(|| ApiError::parameter(name, "cannot parse \"\" to a valid timestamp"))
    };
    let start_ms = required("start", params.time("start")?)?;
    let end_ms = required("end", params.time("end")?)?;
    if end_ms < start_ms {
        return Err(ApiError::parameter(
            "end",
            "end timestamp must not be before start time",
        ));
    }
    let step_ms = params
        .duration("step")?
        .ok_or_else(|| ApiError::parameter("step", "cannot parse \"\" to a valid duration"))?;
    if step_ms <= 0 {
        let problem = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(ApiError::parameter("step", problem));
    }
    if (end_ms - start_ms) / step_ms > MAX_POINTS {
        return Err(ApiError::bad_data(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution (?step=XX)",
        ));
    }
    let engine = engine(&api, &params)?;
    evaluate(api, &params, "range", move |source, stop| {
        engine
            .with_stop(stop)
            .range_table(source, &text, start_ms, end_ms, step_ms)
    })
    .await
}

/// `format_query?query`.
pub(super) async fn format(params: Params) -> Result<Response, ApiError> {
    Ok(success(promql::format(&parse(&params)?)))
}

/// `parse_query?query`.
pub(super) async fn parse_tree(params: Params) -> Result<Response, ApiError> {
    Ok(success(tree::of(&parse(&params)?)))
}

fn query_text(params: &Params) -> Result<String, ApiError> {
    Ok(params.get("query").unwrap_or("").to_owned())
}

fn parse(params: &Params) -> Result<promql::Expr, ApiError> {
    promql::parse(params.get("query").unwrap_or("")).map_err(|e| ApiError::parameter("query", e))
}

fn engine(api: &Api, params: &Params) -> Result<promql::Engine, ApiError> {
    let mut engine = api.engine.clone();
    if let Some(lookback_ms) = params.duration("lookback_delta")? {
        engine.options.lookback_ms = lookback_ms;
    }
    Ok(engine)
}

/// Cancels a query whose asker has gone: the handler is dropped, and this with it.
struct Asker(Stop);

impl Drop for Asker {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Waits for a turn, evaluates off the async threads, gives up at the timeout. The evaluation then ends too.
async fn evaluate(
    api: Api,
    params: &Params,
    kind: &'static str,
    work: impl FnOnce(&dyn model::Source, Stop) -> Result<RangeOutput, QueryError> + Send + 'static,
) -> Result<Response, ApiError> {
    let begun = Instant::now();
    let timeout = timeout(&api, params)?;
    let limit = params.count("limit")?.filter(|n| *n > 0);
    let telemetry = std::sync::Arc::clone(&api.telemetry);
    let asker = Asker(Stop::new());
    let stop = asker.0.clone();
    let answer = tokio::time::timeout(timeout, async move {
        let turn = std::sync::Arc::clone(&api.turns).acquire_owned().await;
        let source = api.pipeline.ingest.source();
        tokio::task::spawn_blocking(move || {
            // Held until the work is done, even when nobody waits for it any more.
            let _turn = turn;
            let span = tracing::info_span!(target: TARGET, "query", kind);
            let _entered = span.enter();
            let output = work(source.as_ref(), stop).map_err(|e| query_error(&e))?;
            Ok(AnswerBody::new(output, limit).into_response())
        })
        .await
        .unwrap_or_else(|_| Err(ApiError::new("internal", "the query's worker failed")))
    })
    .await
    .unwrap_or_else(|_| {
        asker.0.expire();
        let late = QueryError::Timeout;
        Err(ApiError::new(late.kind(), late.to_string()))
    });
    telemetry.query(kind, begun.elapsed().as_secs_f64());
    match answer {
        Ok(response) => Ok(response),
        Err(error) => {
            let failures = &telemetry.query_failures;
            failures.with_label_values(&[error.kind()]).inc();
            Err(error)
        }
    }
}

fn timeout(api: &Api, params: &Params) -> Result<Duration, ApiError> {
    let most = api.config.query.timeout.0;
    let asked = params.duration("timeout")?.filter(|ms| *ms > 0);
    let ms = asked.map_or(most, |asked| asked.min(most));
    Ok(Duration::from_millis(ms.max(1).unsigned_abs()))
}

fn query_error(error: &QueryError) -> ApiError {
    match error {
        QueryError::Parse(error) => ApiError::parameter("query", error),
        other => ApiError::new(other.kind(), other.to_string()),
    }
}

//! Owns what an agent is asked about a run: series over its seconds, an even sample of its traces, and the spans of the
//! traces that stand for typical, slow and failed requests. Must not know what follows from the answers.

use std::time::Duration;

use client::{Client, ClientError, TraceSearch};
use futures_util::StreamExt;
use model::QueryData;
use model::span::{Span, TraceId, TraceSummary};

use super::{Line, Observed, Symptom, What, tail};
use crate::plan::trace_key;
use crate::report::Report;

/// Most steps of a series.
const STEPS: f64 = 600.0;
/// Parts of the run that are searched for traces one by one, so that a sample is even over time.
const SLICES: i64 = 16;
/// Traces of a part.
const SAMPLE: usize = 120;
/// Parts that are searched for slow and for failed traces.
const QUARTERS: i64 = 4;
/// Slow traces of a quarter that are listed, and of those the slowest that are kept.
const LISTED: usize = 1_000;
const SLOWEST: usize = 120;
/// Series of one query that are kept.
const SERIES: usize = 64;
/// How long to wait for spans that are still on their way.
const PATIENCE: Duration = Duration::from_secs(6);

/// What is asked: PromQL, with `W` for a window that holds several samples.
const QUERIES: &[(What, &str)] = &[
    (What::Utilization, "nines_use_utilization_ratio"),
    (What::Saturation, "nines_use_saturation"),
    (
        What::ServiceRate,
        "sum by (service_name) (rate(traces_span_metrics_calls_total{span_kind=\"SPAN_KIND_SERVER\"}[W]))",
    ),
    (
        What::ServiceErrors,
        "sum by (service_name) (rate(traces_span_metrics_calls_total{span_kind=\"SPAN_KIND_SERVER\",status_code=\"STATUS_CODE_ERROR\"}[W]))",
    ),
    (
        What::ServiceP99,
        "histogram_quantile(0.99, sum by (service_name) (rate(traces_span_metrics_duration_seconds{span_kind=\"SPAN_KIND_SERVER\"}[W])))",
    ),
    (
        What::EdgeRate,
        "sum by (client, server, connection_type) (rate(traces_service_graph_request_total[W]))",
    ),
    (
        What::EdgeFailed,
        "sum by (client, server, connection_type) (rate(traces_service_graph_request_failed_total[W]))",
    ),
    (
        What::ProcessCpu,
        "sum by (job, instance) (irate(process_cpu_seconds_total{job!=\"nines-agent\"}[30s]))",
    ),
    (
        What::ProcessCpu,
        "topk(8, sum by (executable_name, pid) (irate(process_cpu_time_seconds_total[30s])))",
    ),
    (What::PoolMax, "sum by (pool) (db_pool_max)"),
    (What::PoolInUse, "sum by (pool) (db_pool_in_use)"),
    (
        What::CacheHits,
        "sum by (source, tier) (rate(nines_cache_hits_total[W]))",
    ),
    (What::Circuit, "max by (dependency) (circuit_state)"),
    (
        What::Limited,
        "sum by (service_name) (rate(traces_span_metrics_calls_total{span_kind=\"SPAN_KIND_SERVER\",http_response_status_code=\"429\"}[W]))",
    ),
];

/// Asks the agent about the run. Waits a few seconds for spans of its end. What cannot be had is in `problems`; an agent
/// that does not answer at all is an error.
///
/// # Errors
/// When the agent cannot be reached.
pub async fn observe(client: &Client, report: &Report) -> Result<Observed, ClientError> {
    client.flush().await?;
    let start_ms = report.started_ms;
    let length_s = report.duration_s.max(1.0);
    let end_ms = start_ms + (length_s * 1e3).ceil() as i64;
    let mut seen = Observed {
        url: client.base_url().to_owned(),
        step_s: (length_s / STEPS).ceil().max(1.0),
        ..Observed::default()
    };
    wait_for_spans(client, start_ms, end_ms).await;
    let window = format!("{}s", 3.0 * seen.step_s);
    for (what, text) in QUERIES {
        let step_ms = (seen.step_s * 1e3) as i64;
        let query = text.replace('W', &window);
        match client
            .query_range(&query, start_ms + step_ms, end_ms, step_ms)
            .await
        {
            Ok(data) => seen
                .lines
                .extend(lines(*what, data, start_ms, seen.step_s, length_s)),
            Err(e) => seen
                .problems
                .push(format!("the agent could not answer {query}: {e}")),
        }
    }
    if let Err(e) = traces(client, report, &mut seen, (start_ms, end_ms)).await {
        seen.problems
            .push(format!("the agent's traces could not be read: {e}"));
    }
    Ok(seen)
}

/// Exporters send in batches: waits until a trace of the last second and a half is there.
async fn wait_for_spans(client: &Client, start_ms: i64, end_ms: i64) {
    let begun = tokio::time::Instant::now();
    let mut newest = None;
    while begun.elapsed() < PATIENCE {
        let search = TraceSearch {
            start_ms: Some(start_ms),
            end_ms: Some(end_ms),
            limit: Some(1),
            ..TraceSearch::default()
        };
        let Ok(found) = client.traces(&search).await else {
            return;
        };
        let at = found.first().map(|t| (t.start_ns / 1_000_000) as i64);
        // Without any trace, or with none that is new, there is nothing to wait for.
        if at.is_none() && begun.elapsed() > Duration::from_secs(2)
            || at.is_some_and(|t| t >= end_ms - 1_500)
        {
            return;
        }
        if newest != at {
            newest = at;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        if client.flush().await.is_err() {
            return;
        }
    }
}

fn lines(what: What, data: QueryData, start_ms: i64, step_s: f64, length_s: f64) -> Vec<Line> {
    let QueryData::Matrix(all) = data else {
        return Vec::new();
    };
    let steps = (length_s / step_s).ceil() as usize;
    let each = all.into_iter().take(SERIES).map(|series| {
        // Those that are not among the top have no point: next to nothing.
        let absent = if series.labels.get("executable_name").is_some() {
            0.0
        } else {
            f64::NAN
        };
        let mut values = vec![absent; steps];
        for (t, v) in series.points.t_ms.iter().zip(&series.points.values) {
            let at = ((t - start_ms) as f64 / 1e3 / step_s).round() as usize;
            if let Some(slot) = at.checked_sub(1).and_then(|i| values.get_mut(i)) {
                *slot = *v;
            }
        }
        Line {
            what,
            labels: series.labels.retain(|n| n != "__name__"),
            values,
        }
    });
    each.collect()
}

async fn traces(
    client: &Client,
    report: &Report,
    seen: &mut Observed,
    (start_ms, end_ms): (i64, i64),
) -> Result<(), ClientError> {
    let symptom = Symptom::of(report);
    let p90_ms = match report.service_time.is_empty() {
        true => 0,
        false => report.service_time.value_at_quantile(0.9) * 8 / 10 / 1000,
    };
    let mut failed: Vec<TraceSummary> = Vec::new();
    let part = |i: i64, of: i64, limit: usize| {
        let length = ((end_ms - start_ms) / of).max(1);
        TraceSearch {
            start_ms: Some(start_ms + i * length),
            end_ms: Some((start_ms + (i + 1) * length - 1).min(end_ms)),
            limit: Some(limit),
            ..TraceSearch::default()
        }
    };
    for i in 0..SLICES {
        let found = client.traces(&part(i, SLICES, SAMPLE)).await?;
        seen.sample.extend(found);
    }
    for i in 0..QUARTERS {
        let slow = TraceSearch {
            min_duration_ms: Some(p90_ms),
            ..part(i, QUARTERS, LISTED)
        };
        let mut slow = client.traces(&slow).await?;
        slow.sort_by_key(|t| std::cmp::Reverse(t.duration_ns));
        slow.truncate(SLOWEST);
        seen.slowest.extend(slow);
        let errors = TraceSearch {
            error: Some(true),
            ..part(i, QUARTERS, SLOWEST)
        };
        failed.extend(client.traces(&errors).await?);
    }
    let lists = [&mut seen.sample, &mut seen.slowest, &mut failed];
    if !only_of_run(lists, trace_key(&report.run_id)) {
        seen.problems.push("no trace of this run is named after it: traces are taken by their time, others' traffic may be among them".to_owned());
    }
    let good = |start_ns: u64| {
        let at_s = (start_ns as f64 / 1e6 - start_ms as f64) / 1e3;
        symptom.stands_out() && !symptom.is_bad_at(at_s) && !symptom.is_bad_at(at_s + 1.0)
    };
    seen.chosen = tail::choose(&seen.sample, &seen.slowest, &failed, good);
    let mut ids: Vec<TraceId> = [&seen.chosen.typical, &seen.chosen.slow, &seen.chosen.failed]
        .into_iter()
        .flatten()
        .copied()
        .collect();
    ids.sort();
    ids.dedup();
    let read = futures_util::stream::iter(ids)
        .map(|id| client.trace(id))
        .buffer_unordered(4);
    let read: Vec<Result<Vec<Span>, ClientError>> = read.collect().await;
    for spans in read {
        match spans {
            Ok(spans) => seen.traces.push(spans),
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e),
        }
    }
    seen.traces
        .sort_by_key(|spans| spans.first().map(|s| s.trace_id));
    Ok(())
}

/// Keeps the traces that the run itself began. False when there are none such (another generator sent it, or something
/// on the way replaced the ids); then only what is no answer to a request is left out.
fn only_of_run(lists: [&mut Vec<TraceSummary>; 3], key: u64) -> bool {
    let own = |t: &TraceSummary| t.trace_id.0[..8] == key.to_be_bytes();
    let named = lists.iter().any(|list| list.iter().any(own));
    let empty = lists.iter().all(|list| list.is_empty());
    for list in lists {
        if named {
            list.retain(own);
        } else {
            ours(list);
        }
    }
    named || empty
}

/// Leaves out what is not an answer to a request: health checks, scrapes, and, where requests have a status, traces whose
/// root has none, such as those of background jobs.
fn ours(list: &mut Vec<TraceSummary>) {
    const NOISE: [&str; 5] = ["/health", "/metrics", "/-/", "/ready", "/live"];
    let with_status = list.iter().any(|t| t.status_code != 0);
    list.retain(|t| {
        let noise = NOISE.iter().any(|n| t.route.starts_with(n));
        !noise && (t.status_code != 0 || !with_status)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runs_own_traces_are_told_from_others_by_their_ids() {
        let trace = |key: u64, low: u8| {
            let mut id = [low; 16];
            id[..8].copy_from_slice(&key.to_be_bytes());
            TraceSummary {
                trace_id: TraceId(id),
                route: "/a".into(),
                status_code: 200,
                ..TraceSummary::default()
            }
        };
        let (ours, others) = (trace_key("run-1"), trace_key("run-2"));
        assert_ne!(ours, others);
        let mut lists = [
            vec![trace(ours, 1), trace(others, 2)],
            vec![trace(others, 3)],
            vec![],
        ];
        let [a, b, c] = &mut lists;
        assert!(only_of_run([a, b, c], ours));
        assert_eq!(lists, [vec![trace(ours, 1)], vec![], vec![]]);
        let mut lists = [vec![trace(others, 1)], vec![], vec![]];
        let [a, b, c] = &mut lists;
        assert!(!only_of_run([a, b, c], ours), "taken by time");
        assert_eq!(lists[0].len(), 1);
    }

    #[test]
    fn background_jobs_and_health_checks_are_no_requests() {
        let trace = |route: &str, status_code| TraceSummary {
            route: route.into(),
            status_code,
            ..TraceSummary::default()
        };
        let mut http = vec![trace("/a", 200), trace("", 0), trace("/healthz", 200)];
        ours(&mut http);
        assert_eq!(http, [trace("/a", 200)]);
        let mut rpc = vec![trace("", 0), trace("/metrics", 0)];
        ours(&mut rpc);
        assert_eq!(rpc, [trace("", 0)]);
    }

    #[test]
    fn steps_lie_on_the_runs_axis_and_gaps_stay_gaps() {
        let mut points = model::Points::default();
        points.push_float(11_000, 1.0);
        points.push_float(13_000, 3.0);
        let series = model::RangeSeries {
            labels: model::Labels::from_pairs([("pool", "a")]),
            points,
        };
        let read = lines(
            What::PoolMax,
            QueryData::Matrix(vec![series]),
            10_000,
            1.0,
            3.4,
        );
        assert_eq!(read.len(), 1);
        let v = &read[0].values;
        assert!(
            v.len() == 4 && v[0] == 1.0 && v[1].is_nan() && v[2] == 3.0 && v[3].is_nan(),
            "{v:?}"
        );
    }
}

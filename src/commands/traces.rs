//! `nines traces`: search, or one trace as a tree.
//!
//! Owns its flags and output. Must not know how traces are kept.

use std::collections::HashMap;

use clap::Args as ClapArgs;
use client::TraceSearch;
use model::span::{Span, SpanId, SpanStatus, TraceId};
use model::timestamp;

use super::reach::{Format, Reach, clean, json, table};
use crate::console::{CommandResult, Outcome, block_on, duration_ms, now_ms, print, usage};

/// Flags of `nines traces`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// A trace id (32 hex digits): show that trace
    id: Option<String>,

    /// Only traces with a span of this service
    #[arg(long)]
    service: Option<String>,

    /// Only traces whose root has this http.route
    #[arg(long)]
    route: Option<String>,

    /// At least this long
    #[arg(long, value_name = "DURATION")]
    min: Option<String>,

    /// Status of the root: 500, or a class such as 5xx
    #[arg(long)]
    status: Option<String>,

    /// Only traces with a failed span
    #[arg(long)]
    errors: bool,

    /// How far back
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    since: String,

    /// At most so many
    #[arg(long, default_value_t = 20)]
    limit: usize,

    /// Output
    #[arg(long, value_enum, default_value = "text")]
    format: Format,

    #[command(flatten)]
    reach: Reach,
}

/// Searches or shows, and prints.
pub fn run(args: Args) -> CommandResult {
    let client = args.reach.client();
    if let Some(id) = &args.id {
        let id = TraceId::from_hex(id)
            .ok_or_else(|| usage(format!("{id:?} is not a trace id; write its 32 hex digits")))?;
        let spans = block_on(async { Ok(client.trace(id).await?) })?;
        match args.format {
            Format::Json => print(&json(&spans)?)?,
            Format::Text => print(&tree(&spans))?,
        }
        return Ok(Outcome::Good);
    }
    let min = args.min.as_deref().map(duration_ms).transpose()?;
    let search = TraceSearch {
        service: args.service,
        route: args.route,
        min_duration_ms: min.map(i64::unsigned_abs),
        status: args.status,
        error: args.errors.then_some(true),
        start_ms: Some(now_ms() - duration_ms(&args.since)?),
        limit: Some(args.limit),
        ..TraceSearch::default()
    };
    let found = block_on(async { Ok(client.traces(&search).await?) })?;
    if args.format == Format::Json {
        print(&json(&found)?)?;
        return Ok(Outcome::Good);
    }
    let row = |t: &model::span::TraceSummary| {
        vec![
            t.trace_id.to_string(),
            timestamp::format_clock(i64::try_from(t.start_ns / 1_000_000).unwrap_or(0)),
            clean(&format!("{} {}", t.root_service, t.root_name)),
            t.spans.to_string(),
            milliseconds(t.duration_ns),
            t.errors.to_string(),
            if t.status_code == 0 {
                "-".into()
            } else {
                t.status_code.to_string()
            },
        ]
    };
    let rows: Vec<Vec<String>> = found.iter().map(row).collect();
    print(&table(
        &[
            "TRACE", "START", "ROOT", "SPANS", "DURATION", "ERRORS", "STATUS",
        ],
        &rows,
    ))?;
    Ok(Outcome::Good)
}

fn milliseconds(ns: u64) -> String {
    format!("{:.2} ms", ns as f64 / 1e6)
}

/// One line a span, children under their parent in order of their start; orphans become roots. Below a span stand its
/// status' message and its events.
fn tree(spans: &[Span]) -> String {
    let begin = spans.iter().map(|s| s.start_ns).min().unwrap_or(0);
    let ordered = order(spans);
    let row = |(span, depth): &(&Span, usize)| {
        let status = match span.status {
            SpanStatus::Error => "error",
            SpanStatus::Ok => "ok",
            SpanStatus::Unset => "",
        };
        vec![
            format!("{}{}", indent(*depth), clean(&span.name)),
            clean(&span.service),
            format!("+{}", milliseconds(span.start_ns - begin)),
            milliseconds(span.duration_ns()),
            status.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = ordered.iter().map(row).collect();
    let header = ["SPAN", "SERVICE", "START", "DURATION", "STATUS"];
    let text = table(&header, &rows);
    let mut lines = text.lines();
    let mut out = String::new();
    out.extend(lines.next().map(|l| format!("{l}\n")));
    for (line, (span, depth)) in lines.zip(&ordered) {
        out += &format!("{line}\n");
        out += &remarks(span, begin, &format!("{}    ", indent(*depth)));
    }
    out
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth.min(40))
}

/// The status' message and the events of a span, one line each.
fn remarks(span: &Span, begin_ns: u64, indent: &str) -> String {
    let mut out = String::new();
    if !span.status_message.is_empty() {
        out += &format!("{indent}message: {}\n", clean(&span.status_message));
    }
    for event in &span.events {
        let at = milliseconds(event.time_ns.saturating_sub(begin_ns));
        let attributes = event
            .attributes
            .iter()
            .map(|(name, value)| format!("  {}={}", clean(name), clean(value)));
        let attributes: String = attributes.collect();
        let name = clean(&event.name);
        out += &format!("{indent}event +{at}: {name}{attributes}\n");
    }
    out
}

/// Spans with their depth, parents before children, siblings by their start.
fn order(spans: &[Span]) -> Vec<(&Span, usize)> {
    let known: HashMap<SpanId, usize> = spans
        .iter()
        .enumerate()
        .map(|(i, s)| (s.span_id, i))
        .collect();
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    let mut roots = Vec::new();
    for (i, span) in spans.iter().enumerate() {
        match known.get(&span.parent_id) {
            Some(parent) if *parent != i => children.entry(*parent).or_default().push(i),
            _ => roots.push(i),
        }
    }
    let latest_first =
        |list: &mut Vec<usize>| list.sort_by_key(|i| std::cmp::Reverse(spans[*i].start_ns));
    latest_first(&mut roots);
    let mut stack: Vec<(usize, usize)> = roots.into_iter().map(|i| (i, 0)).collect();
    let mut out = Vec::new();
    while let Some((at, depth)) = stack.pop() {
        out.push((&spans[at], depth));
        let mut below = children.remove(&at).unwrap_or_default();
        latest_first(&mut below);
        stack.extend(below.into_iter().map(|i| (i, depth + 1)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::span::SpanEvent;

    fn span(id: u8, parent: u8, start_ns: u64) -> Span {
        Span {
            span_id: SpanId([id; 8]),
            parent_id: SpanId([parent; 8]),
            name: format!("s{id}"),
            service: "svc".into(),
            start_ns,
            end_ns: start_ns + 1_000_000,
            ..Span::default()
        }
    }

    #[test]
    fn children_stand_under_their_parent_in_order() {
        let text = tree(&[span(3, 1, 5), span(2, 1, 2), span(1, 0, 1), span(4, 2, 3)]);
        let names = text
            .lines()
            .skip(1)
            .map(|l| l.split("  svc").next().unwrap().trim_end());
        assert_eq!(names.collect::<Vec<_>>(), ["s1", "  s2", "    s4", "  s3"]);
    }

    #[test]
    fn a_cycle_ends() {
        assert_eq!(tree(&[span(1, 2, 1), span(2, 1, 2)]).lines().count(), 1);
        assert_eq!(tree(&[]).lines().count(), 1);
    }

    #[test]
    fn messages_and_events_stand_below_their_span_and_cannot_steer_the_terminal() {
        let failed = Span {
            status: SpanStatus::Error,
            status_message: "no\x1b[2J answer".into(),
            events: vec![SpanEvent {
                time_ns: 2_500_001,
                name: "exception".into(),
                attributes: vec![("exception.type".into(), "Timeout".into())],
            }],
            ..span(2, 1, 1_000_001)
        };
        assert_eq!(
            tree(&[span(1, 0, 1), failed]),
            "SPAN  SERVICE  START     DURATION  STATUS\n\
             s1    svc      +0.00 ms  1.00 ms\n  \
             s2  svc      +1.00 ms  1.00 ms   error\n      \
             message: no\u{fffd}[2J answer\n      \
             event +2.50 ms: exception  exception.type=Timeout\n"
        );
    }
}

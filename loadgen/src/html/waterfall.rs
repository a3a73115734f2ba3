//! Owns small waterfalls of the slowest traces: a row a span, the critical path solid, the rest pale. Pure.

use std::fmt::Write;

use model::critical::{CriticalPath, critical_path};
use model::span::{Span, SpanStatus};

use super::{Out, esc, short, us};
use crate::explain::Observed;

/// Traces that are drawn.
const TRACES: usize = 5;
/// Spans of a trace that are drawn.
const SPANS: usize = 30;

pub(super) fn section(out: &mut Out<'_>, seen: &Observed) {
    let mut list: Vec<(&[Span], CriticalPath, u64)> = seen
        .traces
        .iter()
        .filter_map(|spans| {
            let path = critical_path(spans);
            let length = spans[path.root?].duration_ns();
            Some((spans.as_slice(), path, length))
        })
        .collect();
    list.sort_by_key(|(spans, _, length)| {
        (
            std::cmp::Reverse(*length),
            spans.first().map(|s| s.trace_id),
        )
    });
    list.truncate(TRACES);
    if list.is_empty() {
        return;
    }
    out.push("<h2>Slowest traces</h2>\n<p class=\"soft small\">Solid is the critical path: where the request was waiting. Pale is what ran beside it.</p>\n");
    for (i, (spans, path, length)) in list.iter().enumerate() {
        let Some(root) = path.root.map(|i| &spans[i]) else {
            continue;
        };
        let status = root.attribute("http.response.status_code").unwrap_or("");
        let open = if i < 2 { " open" } else { "" };
        out.line(format_args!(
            "<details class=\"card trace\"{open}><summary><b>{}</b> {} {} <span class=\"soft\">{} · {} spans</span></summary><p><code class=\"cmd\">nines traces {} --url {}</code></p><div class=\"wf\">{}</div></details>",
            us(*length as f64 / 1e3),
            esc(&short(&root.service, 60)),
            esc(&short(&root.name, 120)),
            esc(&short(status, 8)),
            spans.len(),
            root.trace_id,
            esc(&short(&seen.url, 200)),
            rows(spans, path)
        ));
    }
}

/// Parents before children, siblings by start; at most [`SPANS`], those with time on the path first.
fn rows(spans: &[Span], path: &CriticalPath) -> String {
    let Some(root) = path.root else {
        return String::new();
    };
    let own = path.exclusive_ns();
    let (begin, whole) = (
        spans[root].start_ns,
        spans[root].duration_ns().max(1) as f64,
    );
    let mut order: Vec<(usize, usize)> = Vec::new();
    let mut stack = vec![(root, 0)];
    while let Some((at, depth)) = stack.pop() {
        order.push((at, depth));
        let mut below: Vec<usize> = (0..spans.len())
            .filter(|i| path.parents[*i] == Some(at))
            .collect();
        below.sort_by_key(|i| std::cmp::Reverse(spans[*i].start_ns));
        stack.extend(below.into_iter().map(|i| (i, depth + 1)));
        if order.len() > 2_000 {
            break;
        }
    }
    let left = order.len().saturating_sub(SPANS);
    if left > 0 {
        let mut by_time: Vec<usize> = order.iter().map(|(i, _)| *i).collect();
        by_time.sort_by_key(|i| (std::cmp::Reverse(own[*i]), *i));
        by_time.truncate(SPANS);
        order.retain(|(i, _)| by_time.contains(i) || *i == root);
    }
    let share = |ns: u64| (ns.saturating_sub(begin) as f64 / whole * 100.0).clamp(0.0, 100.0);
    let mut services: Vec<&str> = order
        .iter()
        .map(|(i, _)| spans[*i].service.as_str())
        .collect();
    services.sort_unstable();
    services.dedup();
    let mut out = String::new();
    for (i, depth) in order {
        let s = &spans[i];
        let colour = services.iter().position(|n| *n == s.service).unwrap_or(0) % 8;
        let failed = if s.status == SpanStatus::Error {
            " err"
        } else {
            ""
        };
        let (from, to) = (share(s.start_ns), share(s.end_ns));
        let mut bars = format!("<i style=\"left:{from:.2}%;width:{:.2}%\"></i>", to - from);
        for seg in path.segments.iter().filter(|g| g.span == i).take(40) {
            let (from, to) = (share(seg.from_ns), share(seg.to_ns));
            let _ = write!(
                bars,
                "<b style=\"left:{from:.2}%;width:{:.2}%\"></b>",
                to - from
            );
        }
        let title = esc(&format!(
            "{} {}: {} in all, {} on the critical path",
            s.service,
            s.name,
            us(s.duration_ns() as f64 / 1e3),
            us(own[i] as f64 / 1e3)
        ));
        let _ = write!(
            out,
            "<div class=\"nm\" style=\"padding-left:{}px\" title=\"{title}\">{} <small>{}</small></div><div class=\"tr k{colour}{failed}\">{bars}</div><div class=\"du\">{}</div>",
            depth.min(12) * 10,
            esc(&short(&s.name, 80)),
            esc(&short(&s.service, 40)),
            us(s.duration_ns() as f64 / 1e3)
        );
    }
    if left > 0 {
        let _ = write!(
            out,
            "<div class=\"nm soft\">and {left} more</div><div></div><div></div>"
        );
    }
    out
}

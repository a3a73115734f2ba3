//! Owns what the page shows of the server: rate, errors and duration by service, use of its resources, on the run's own
//! time axis, what grows between typical and slow requests, and the slowest traces. Pure.

use super::chart::{Chart, Draw, Series};
use super::{Out, esc, short, us, waterfall};
use crate::explain::{Line, What};

/// Lines of one chart.
const LINES: usize = 8;

pub(super) fn sections(out: &mut Out<'_>) {
    let Some(seen) = out.page.seen else {
        return;
    };
    out.line(format_args!(
        "<h2>What the server did</h2>\n<p class=\"soft small\">From the agent at <code>{}</code>, on the same time axis.</p>",
        esc(&short(&seen.url, 200))
    ));
    let mut charts = Vec::new();
    let service = |l: &Line| l.label("service_name").to_owned();
    charts.push(chart(
        out,
        "Requests by service",
        "Server spans per second",
        "/s",
        &[What::ServiceRate],
        1.0,
        service,
        |_| true,
    ));
    charts.push(chart(
        out,
        "p99 by service",
        "Of server spans",
        "ms",
        &[What::ServiceP99],
        1e3,
        service,
        |_| true,
    ));
    charts.push(chart(
        out,
        "Errors by service",
        "Failed server spans per second",
        "/s",
        &[What::ServiceErrors],
        1.0,
        service,
        some,
    ));
    charts.push(chart(
        out,
        "Failed calls",
        "From service to service, per second",
        "/s",
        &[What::EdgeFailed],
        1.0,
        |l| format!("{} → {}", l.label("client"), l.label("server")),
        some,
    ));
    let resource = |l: &Line| {
        let (kind, name) = (l.label("kind"), l.label("resource"));
        if kind == name || name.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind} {name}")
        }
    };
    let near = |l: &Line| l.label("kind") != "filesystem" && peak(l) > 0.02;
    charts.push(chart(
        out,
        "Resources in use",
        "Share of what there is; 100 % is used up",
        "%",
        &[What::Utilization],
        1.0,
        resource,
        near,
    ));
    charts.push(chart(
        out,
        "Waiting for a resource",
        "Requests, tasks or messages that wait",
        "",
        &[What::Saturation],
        1.0,
        |l| format!("{} ({})", resource(l), l.label("unit").replace('_', " ")),
        |l| {
            !l.label("unit").ends_with("ratio")
                && !l.label("unit").ends_with("per_second")
                && some(l)
        },
    ));
    charts.push(chart(
        out,
        "Pressure (PSI)",
        "Share of the time in which some task waits",
        "%",
        &[What::Saturation],
        1.0,
        resource,
        |l| l.label("unit") == "psi_some_ratio",
    ));
    charts.push(chart(
        out,
        "Processor time by process",
        "Cores in use",
        "",
        &[What::ProcessCpu],
        1.0,
        |l| match l.label("executable_name") {
            "" => l.label("job").to_owned(),
            name => format!("{name} ({})", l.label("pid")),
        },
        |l| peak(l) > 0.02,
    ));
    charts.push(chart(
        out,
        "Cache hits",
        "Per second",
        "/s",
        &[What::CacheHits],
        1.0,
        |l| format!("{} {}", l.label("source"), l.label("tier")),
        |_| true,
    ));
    let drawn: Vec<Chart> = charts.into_iter().flatten().collect();
    if drawn.is_empty() {
        out.push("<p class=\"soft\">The agent has no series of these seconds.</p>\n");
    }
    out.push("<div class=\"grid2\">\n");
    for chart in drawn {
        out.chart(chart);
    }
    out.push("</div>\n");
    growth(out);
    waterfall::section(out, seen);
}

fn some(line: &Line) -> bool {
    peak(line) > 0.0
}

fn peak(line: &Line) -> f64 {
    line.values
        .iter()
        .copied()
        .filter(|v| v.is_finite())
        .fold(0.0, f64::max)
}

#[expect(
    clippy::too_many_arguments,
    reason = "a chart is described by all of these; each call reads like a row"
)]
fn chart(
    out: &Out<'_>,
    title: &str,
    note: &str,
    unit: &'static str,
    what: &[What],
    factor: f64,
    name: impl Fn(&Line) -> String,
    wanted: impl Fn(&Line) -> bool,
) -> Option<Chart> {
    let seen = out.page.seen?;
    let mut lines: Vec<&Line> = seen
        .lines
        .iter()
        .filter(|l| what.contains(&l.what) && wanted(l))
        .collect();
    lines.retain(|l| l.values.iter().any(|v| v.is_finite()));
    if lines.is_empty() {
        return None;
    }
    lines.sort_by(|a, b| peak(b).total_cmp(&peak(a)));
    let left = lines.len().saturating_sub(LINES);
    lines.truncate(LINES);
    let series = lines.iter().enumerate().map(|(i, line)| {
        let scaled: Vec<f64> = line.values.iter().map(|v| v * factor).collect();
        Series {
            name: short(&name(line), 60),
            draw: Draw::Line,
            colour: i,
            values: out.axis.resample(&scaled, seen.step_s),
        }
    });
    let series: Vec<Series> = series.collect();
    let more = if left > 0 {
        format!("{note}; the {LINES} highest of {}", left + LINES)
    } else {
        note.to_owned()
    };
    let full = unit == "%" && lines.iter().all(|l| peak(l) <= 1.0);
    Some(Chart {
        title: title.to_owned(),
        note: more,
        unit,
        series,
        low: true,
        top: full.then_some(1.0),
    })
}

/// The operations whose own time differs between typical and slow requests.
fn growth(out: &mut Out<'_>) {
    let rows = &out.page.why.growth;
    if rows.is_empty() {
        return;
    }
    let most = rows
        .iter()
        .map(|g| g.slow_ns.max(g.typical_ns))
        .fold(1.0, f64::max);
    out.push("<h2>What grows in slow requests</h2>\n<div class=\"card scroll\"><p class=\"soft small\">Own time on the critical path, mean of typical and of slow traces: what the request was waiting for.</p><table id=\"growth\">\n<thead><tr><th>Operation</th><th>Part</th><th class=\"n\">typical</th><th class=\"n\">slow</th><th style=\"width:30%\"><span class=\"sr\">as a bar</span></th></tr></thead>\n<tbody>\n");
    for g in rows {
        let width = |ns: f64| (ns / most * 100.0).clamp(0.2, 100.0);
        out.line(format_args!(
            "<tr><td class=\"t\">{} <span class=\"soft\">{}</span></td><td>{} {}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td><div class=\"bar\" style=\"height:8px;margin-bottom:3px\"><i class=\"k1\" style=\"width:{:.1}%\"></i></div><div class=\"bar\" style=\"height:8px\"><i class=\"k3\" style=\"width:{:.1}%\"></i></div></td></tr>",
            esc(&short(&g.name, 120)),
            esc(&short(&g.service, 60)),
            g.part.kind.as_str(),
            esc(&short(&g.part.name, 60)),
            us(g.typical_ns / 1e3),
            us(g.slow_ns / 1e3),
            width(g.typical_ns),
            width(g.slow_ns)
        ));
    }
    out.push("</tbody></table></div>\n");
}

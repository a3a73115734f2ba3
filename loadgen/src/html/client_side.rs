//! Owns what the page shows of the run as this generator saw it: rate, percentiles, heat map, failures, the split of the
//! latency, routes, and the seconds as a table. Pure.

use std::collections::BTreeMap;
use std::fmt::Write;

use hdrhistogram::Histogram;

use super::chart::{Chart, Draw, Series};
use super::{Out, count, esc, percent, short, us};
use crate::hdr;
use crate::report::{Quantiles, Report, RouteReport, Second};

/// Rows of the heat map.
const ROWS: usize = 26;
/// Columns of the heat map at most.
const COLUMNS: usize = 150;
/// Most routes that are listed.
const ROUTES: usize = 64;
/// Most kinds of failure with a colour of their own.
const KINDS: usize = 7;

pub(super) fn sections(out: &mut Out<'_>) {
    out.push("<h2>Rate and latency</h2>\n");
    rate(out);
    percentiles(out);
    heat(out);
    failures(out);
    split(out);
    routes(out);
    seconds(out);
}

fn series(name: &str, draw: Draw, colour: usize, values: Vec<f64>) -> Series {
    Series {
        name: name.to_owned(),
        draw,
        colour,
        values,
    }
}

/// A value a second, by point: the mean, or the worst.
fn by_point(out: &Out<'_>, get: impl Fn(&Second) -> Option<f64>, worst: bool) -> Vec<f64> {
    let groups = out.axis.group(out.page.report);
    let each = groups.iter().map(|group| {
        let values = group
            .iter()
            .filter_map(|s| get(s))
            .filter(|v| v.is_finite());
        if worst {
            return values.reduce(f64::max).unwrap_or(f64::NAN);
        }
        let (sum, n) = values.fold((0.0, 0), |(sum, n), v| (sum + v, n + 1));
        if n > 0 { sum / f64::from(n) } else { f64::NAN }
    });
    each.collect()
}

fn rate(out: &mut Out<'_>) {
    // The drain after the last request has no offered rate.
    let per =
        |n: u64, s: &Second| Some(n as f64 / s.length_s.max(0.05)).filter(|_| s.length_s > 0.2);
    let offered = by_point(out, |s| Some(s.offered).filter(|_| s.length_s > 0.2), false);
    let sent = by_point(out, |s| per(s.sent, s), false);
    let answered = by_point(out, |s| per(s.responses, s), false);
    out.chart(Chart {
        title: "Rate, requests per second".into(),
        note: "Offered is what the schedule asked for; answered is what came back in that second."
            .into(),
        unit: "/s",
        series: vec![
            series("answered", Draw::Area, 0, answered),
            series("sent", Draw::Line, 1, sent),
            series("offered", Draw::Dashed, 4, offered),
        ],
        low: false,
        top: None,
    });
}

fn percentiles(out: &mut Out<'_>) {
    let of = |get: fn(&Quantiles) -> u64| {
        move |s: &Second| (s.latency.count > 0).then(|| get(&s.latency) as f64 / 1e3)
    };
    let list = [
        ("max", Draw::Dashed, 4, by_point(out, of(|q| q.max), true)),
        ("p99", Draw::Line, 2, by_point(out, of(|q| q.p99), true)),
        ("p95", Draw::Line, 0, by_point(out, of(|q| q.p95), true)),
        ("p50", Draw::Line, 1, by_point(out, of(|q| q.p50), true)),
    ];
    out.chart(Chart {
        title: "Latency percentiles".into(),
        note: "From the planned send, of what ended in each second".into(),
        unit: "ms",
        series: list
            .into_iter()
            .map(|(n, d, k, v)| series(n, d, k, v))
            .collect(),
        low: false,
        top: None,
    });
}

/// Latencies of a second as (microseconds, count): its histogram, or an approximation from its percentiles.
fn weights(s: &Second) -> Vec<(f64, f64)> {
    if let Some(h) = s.hdr.as_deref().and_then(|text| hdr::decode(text).ok()) {
        return h
            .iter_recorded()
            .map(|v| {
                (
                    v.value_iterated_to().max(1) as f64,
                    v.count_at_value() as f64,
                )
            })
            .collect();
    }
    let q = &s.latency;
    if q.count == 0 {
        return Vec::new();
    }
    let steps = [
        (q.min, q.p50, 0.5),
        (q.p50, q.p75, 0.25),
        (q.p75, q.p90, 0.15),
        (q.p90, q.p95, 0.05),
        (q.p95, q.p99, 0.04),
        (q.p99, q.max, 0.01),
    ];
    let mut out = Vec::new();
    for (low, high, share) in steps {
        // Evenly on the logarithm between two percentiles.
        let (low, high) = (low.max(1) as f64, high.max(1) as f64);
        for i in 0..8 {
            let at = low * (high / low).powf((f64::from(i) + 0.5) / 8.0);
            out.push((at, q.count as f64 * share / 8.0));
        }
    }
    out
}

fn heat(out: &mut Out<'_>) {
    let report = out.page.report;
    let groups = out.axis.group(report);
    let join = groups.len().div_ceil(COLUMNS).max(1);
    let columns = groups.len().div_ceil(join);
    let kept = groups.iter().flatten().any(|s| s.hdr.is_some());
    let bounds = |pick: fn(&Quantiles) -> u64| {
        let all = groups.iter().flatten().filter(|s| s.latency.count > 0);
        all.map(|s| pick(&s.latency).max(1) as f64)
            .collect::<Vec<_>>()
    };
    let low = bounds(|q| q.min).into_iter().fold(f64::INFINITY, f64::min);
    let high = bounds(|q| q.max).into_iter().fold(1.0, f64::max) * 1.02;
    if !low.is_finite() {
        return;
    }
    let high = high.max(low * 2.0);
    let row =
        |us: f64| (((us / low).ln() / (high / low).ln() * ROWS as f64) as usize).min(ROWS - 1);
    let mut cells = vec![[0.0_f64; ROWS]; columns];
    for (i, group) in groups.iter().enumerate() {
        for s in group {
            for (us, n) in weights(s) {
                cells[i / join][row(us.max(low))] += n;
            }
        }
    }
    let most = cells.iter().flatten().copied().fold(0.0, f64::max).max(1.0);
    // Eight depths, by the square root so that single slow requests stay visible; one path each.
    let mut paths = vec![String::new(); 8];
    for (x, column) in cells.iter().enumerate() {
        for (y, n) in column.iter().enumerate().filter(|(_, n)| **n > 0.004) {
            let depth = (((n / most).sqrt() * 8.0).ceil() as usize).clamp(1, 8) - 1;
            let _ = write!(paths[depth], "M{x} {}h1v1h-1z", ROWS - 1 - y);
        }
    }
    let mut svg = String::new();
    for (i, path) in paths.iter().enumerate() {
        let _ = write!(
            svg,
            "<path class=\"h\" opacity=\"{:.2}\" d=\"{path}\"/>",
            0.12 + 0.88 * (i as f64 + 0.5) / 8.0
        );
    }
    let mut labels = String::new();
    let mut decade = 10_f64.powf(low.log10().ceil());
    let mut marks = Vec::new();
    while decade < high {
        marks.push(decade);
        decade *= 10.0;
    }
    if marks.len() < 2 {
        marks = vec![low, (low * high).sqrt(), high];
    }
    for mark in marks {
        let at = 100.0 - (mark / low).ln() / (high / low).ln() * 100.0;
        let _ = write!(
            labels,
            "<span class=\"y\" style=\"top:{at:.1}%\">{}</span>",
            us(mark)
        );
    }
    for (at, text) in out.axis.ticks() {
        let _ = write!(
            labels,
            "<span class=\"x\" style=\"left:{:.2}%\">{text}</span>",
            at * 100.0
        );
    }
    let how = if kept {
        ""
    } else {
        " Approximated from each second's percentiles: the run kept no histograms by second."
    };
    let width = if join as f64 * out.axis.step_s > 1.0 {
        format!(" A column is {:.0} s.", join as f64 * out.axis.step_s)
    } else {
        String::new()
    };
    out.line(format_args!(
        "<div class=\"card\"><h3>Where the latencies lie</h3><div class=\"soft small\">Seconds across, latency up (log scale), the darker the more requests.{width}{how}</div>\
         <div class=\"plot\" style=\"margin-top:10px\" role=\"img\" aria-label=\"Heat map of latency over time, from {} to {}\"><svg viewBox=\"0 0 {columns} {ROWS}\" preserveAspectRatio=\"none\" shape-rendering=\"crispEdges\" aria-hidden=\"true\">{svg}</svg>{labels}</div></div>",
        us(low),
        us(high)
    ));
}

/// Failures of a second by kind: no answer by its kind, answers from 400 on by their status.
fn kinds(s: &Second) -> impl Iterator<Item = (String, u64)> {
    let errors = s.error_kinds.iter().map(|(k, n)| (k.clone(), *n));
    let refused = s.status.iter().filter(|(c, _)| **c >= 400);
    errors.chain(refused.map(|(c, n)| (c.to_string(), *n)))
}

fn failures(out: &mut Out<'_>) {
    let report = out.page.report;
    let mut totals: BTreeMap<String, u64> = BTreeMap::new();
    let groups = out.axis.group(report);
    for (kind, n) in groups.iter().flatten().flat_map(|s| kinds(s)) {
        *totals.entry(kind).or_default() += n;
    }
    let status: Vec<String> = report
        .status
        .iter()
        .map(|(c, n)| format!("<code>{c}</code> {}", count(*n)))
        .collect();
    let mut list = if status.is_empty() {
        "no answers".to_owned()
    } else {
        status.join(" · ")
    };
    for (kind, n) in &report.errors {
        let _ = write!(
            list,
            " · <span class=\"bad\"><code>{}</code> {}</span>",
            esc(kind),
            count(*n)
        );
    }
    if report.unsent > 0 {
        let _ = write!(
            list,
            " · <span class=\"bad\"><code>unsent</code> {}</span>",
            count(report.unsent)
        );
    }
    out.line(format_args!(
        "<h2>Answers and failures</h2>\n<p class=\"soft\" id=\"status\">{list}</p>"
    ));
    if totals.is_empty() {
        out.push("<p class=\"good\">No answer from 400 on, and none missing.</p>\n");
        return;
    }
    let mut order: Vec<(String, u64)> = totals.into_iter().collect();
    order.sort_by_key(|(kind, n)| (std::cmp::Reverse(*n), kind.clone()));
    let named: Vec<String> = order.iter().take(KINDS).map(|(k, _)| k.clone()).collect();
    let colours = [3, 6, 5, 2, 4, 7, 1];
    let mut all: Vec<Series> = named
        .iter()
        .enumerate()
        .map(|(i, kind)| {
            let sum = |group: &Vec<&Second>| {
                group
                    .iter()
                    .flat_map(|s| kinds(s))
                    .filter(|(k, _)| k == kind)
                    .map(|(_, n)| n as f64)
                    .sum::<f64>()
            };
            series(
                kind,
                Draw::Stack,
                colours[i % colours.len()],
                groups.iter().map(|g| sum(g) / out.axis.step_s).collect(),
            )
        })
        .collect();
    if order.len() > KINDS {
        let sum = |group: &Vec<&Second>| {
            group
                .iter()
                .flat_map(|s| kinds(s))
                .filter(|(k, _)| !named.contains(k))
                .map(|(_, n)| n as f64)
                .sum::<f64>()
        };
        all.push(series(
            "other",
            Draw::Stack,
            4,
            groups.iter().map(|g| sum(g) / out.axis.step_s).collect(),
        ));
    }
    out.chart(Chart {
        title: "Failures per second".into(),
        note: "Answers from status 400 on, and requests without an answer by what went wrong"
            .into(),
        unit: "/s",
        series: all,
        low: true,
        top: None,
    });
}

fn mean_of(h: &Histogram<u64>, of: u64) -> f64 {
    if h.is_empty() {
        0.0
    } else {
        h.mean() * h.len() as f64 / of.max(1) as f64
    }
}

/// The latency's parts, planned and actual side by side: means, which add up, as bars; percentiles as a table.
fn split(out: &mut Out<'_>) {
    let r = out.page.report;
    let words = [
        "waiting for the generator",
        "waiting for a connection",
        "connecting",
        "TLS",
        "server (to the first byte)",
        "transfer",
    ];
    let colours = [4, 3, 5, 6, 0, 1];
    let requests = r.responses.max(1);
    let parts: Vec<(usize, f64)> = r
        .phases
        .named()
        .iter()
        .enumerate()
        .map(|(i, (_, h))| (i, mean_of(h, if i < 2 { h.len() } else { requests })))
        .collect();
    let planned: f64 = parts.iter().map(|p| p.1).sum();
    let actual: f64 = parts.iter().skip(4).map(|p| p.1).sum();
    out.push("<h2>Where the time goes</h2>\n<div class=\"card\">\n<div class=\"legend\">");
    for (i, word) in words.iter().enumerate() {
        if parts[i].1 > 0.0 {
            out.line(format_args!(
                "<span class=\"k{}\">{word}</span>",
                colours[i]
            ));
        }
    }
    out.push("</div>\n<div class=\"bars\">\n");
    for (name, skip, total) in [
        ("planned: from due", 0, planned),
        ("actual: from sent", 4, actual),
    ] {
        let mut bar = String::new();
        for (i, mean) in parts.iter().skip(skip).filter(|p| p.1 > 0.0) {
            let _ = write!(
                bar,
                "<i class=\"k{}\" style=\"width:{:.2}%\" title=\"{}: {} on average\"></i>",
                colours[*i],
                mean / planned.max(1e-9) * 100.0,
                words[*i],
                us(*mean)
            );
        }
        out.line(format_args!(
            "<span>{name}</span><div class=\"bar\">{bar}</div><span>{}</span>",
            us(total)
        ));
    }
    out.push("</div>\n<p class=\"soft small\">Means of answered requests, which add up; the percentiles of the parts do not.</p>\n<div class=\"scroll\"><table id=\"split\">\n<thead><tr><th>ms</th><th class=\"n\">count</th><th class=\"n\">mean</th><th class=\"n\">p50</th><th class=\"n\">p90</th><th class=\"n\">p95</th><th class=\"n\">p99</th><th class=\"n\">p99.9</th><th class=\"n\">max</th></tr></thead>\n<tbody>\n");
    let row = |out: &mut Out<'_>, name: &str, h: &Histogram<u64>, strong: bool| {
        if h.is_empty() {
            return;
        }
        let q = Quantiles::of(h);
        let (a, b) = if strong { ("<b>", "</b>") } else { ("", "") };
        let mut cells = String::new();
        for v in [
            q.mean,
            q.p50 as f64,
            q.p90 as f64,
            q.p95 as f64,
            q.p99 as f64,
            q.p999 as f64,
            q.max as f64,
        ] {
            let _ = write!(cells, "<td class=\"n\">{:.2}</td>", v / 1e3);
        }
        out.line(format_args!(
            "<tr><td>{a}{name}{b}</td><td class=\"n\">{}</td>{cells}</tr>",
            count(q.count)
        ));
    };
    row(out, "latency, from the planned send", &r.latency, true);
    row(
        out,
        "service time, from the actual send",
        &r.service_time,
        true,
    );
    for (i, (_, h)) in r.phases.named().iter().enumerate() {
        row(out, words[i], h, false);
    }
    row(out, "until a failure", &r.failure_time, false);
    row(out, "unsent, waited", &r.unsent_wait, false);
    out.line(format_args!(
        "</tbody></table></div>\n<p class=\"soft small\" style=\"margin-top:8px\">The generator released requests late by {} (p50), {} (p99). {} connections opened.</p></div>",
        us(r.late_p50_us as f64),
        us(r.late_p99_us as f64),
        count(r.connections_opened)
    ));
}

fn routes(out: &mut Out<'_>) {
    let report = out.page.report;
    if report.routes.is_empty() {
        return;
    }
    let mut list: Vec<(usize, &String, &RouteReport)> = report
        .routes
        .iter()
        .enumerate()
        .map(|(i, (n, r))| (i, n, r))
        .collect();
    list.sort_by_key(|(_, name, r)| (std::cmp::Reverse(r.requests), *name));
    let left = list.len().saturating_sub(ROUTES);
    list.truncate(ROUTES);
    out.push("<h2>Routes</h2>\n<div class=\"card scroll\"><table id=\"routes\">\n<thead><tr><th aria-sort=\"none\">Route</th><th class=\"n\" aria-sort=\"descending\">requests</th><th class=\"n\" aria-sort=\"none\">failed</th><th class=\"n\" aria-sort=\"none\">p50</th><th class=\"n\" aria-sort=\"none\">p95</th><th class=\"n\" aria-sort=\"none\">p99</th><th class=\"n\" aria-sort=\"none\">max</th><th>p95 over time</th></tr></thead>\n<tbody>\n");
    for (i, name, r) in list {
        let bad = r.errors.values().sum::<u64>()
            + r.status
                .iter()
                .filter(|(c, _)| **c >= 400)
                .map(|(_, n)| n)
                .sum::<u64>();
        let share = bad as f64 / r.requests.max(1) as f64;
        let q = Quantiles::of(&r.latency);
        let mut cells = String::new();
        for v in [q.p50, q.p95, q.p99, q.max] {
            let text = if q.count == 0 {
                "–".to_owned()
            } else {
                us(v as f64)
            };
            let _ = write!(cells, "<td class=\"n\" data-v=\"{v}\">{text}</td>");
        }
        let class = if bad > 0 { "n bad" } else { "n" };
        let spark = spark(report, i, out.axis.points);
        out.line(format_args!(
            "<tr><td class=\"t\"><code>{}</code></td><td class=\"n\" data-v=\"{}\">{}</td><td class=\"{class}\" data-v=\"{share}\">{}</td>{cells}<td>{spark}</td></tr>",
            esc(&short(name, 200)),
            r.requests,
            count(r.requests),
            percent(share)
        ));
    }
    out.push("</tbody></table></div>\n");
    if left > 0 {
        out.line(format_args!(
            "<p class=\"soft small\">{left} routes with fewer requests are not listed.</p>"
        ));
    }
}

/// A route's p95 over time, at most 60 points.
fn spark(report: &Report, route: usize, points: usize) -> String {
    let values: Vec<Option<u64>> = report
        .per_second
        .iter()
        .filter(|s| !s.warm_up)
        .map(|s| {
            let of = s.routes.get(route).filter(|r| r.count > 0).map(|r| r.p95);
            of.or_else(|| {
                (report.routes.len() == 1 && s.latency.count > 0).then_some(s.latency.p95)
            })
        })
        .collect();
    let join = values.len().div_ceil(points.clamp(1, 60)).max(1);
    let joined: Vec<Option<u64>> = values
        .chunks(join)
        .map(|c| c.iter().flatten().copied().max())
        .collect();
    let most = joined.iter().flatten().copied().max().unwrap_or(0).max(1) as f64;
    if joined.iter().flatten().count() < 2 {
        return String::new();
    }
    let mut path = String::new();
    let mut pen = 'M';
    for (i, v) in joined.iter().enumerate() {
        match v {
            Some(v) => {
                let _ = write!(path, "{pen}{i} {:.1}", 22.0 - *v as f64 / most * 20.0);
                pen = 'L';
            }
            None => pen = 'M',
        }
    }
    format!(
        "<svg class=\"spark k0\" viewBox=\"0 0 {} 24\" preserveAspectRatio=\"none\" aria-hidden=\"true\"><path class=\"ln\" d=\"{path}\"/></svg>",
        joined.len().saturating_sub(1).max(1)
    )
}

/// The numbers behind the charts.
fn seconds(out: &mut Out<'_>) {
    let groups = out.axis.group(out.page.report);
    let step = out.axis.step_s;
    out.push("<details><summary>The seconds as a table</summary><div class=\"card scroll\" style=\"margin-top:10px\"><table id=\"seconds\">\n<thead><tr><th class=\"n\">s</th><th class=\"n\">offered/s</th><th class=\"n\">sent</th><th class=\"n\">answered</th><th class=\"n\">failed</th><th class=\"n\">p50</th><th class=\"n\">p95</th><th class=\"n\">p99</th><th class=\"n\">max</th></tr></thead>\n<tbody>\n");
    for (i, group) in groups.iter().enumerate() {
        if group.is_empty() {
            continue;
        }
        let sum = |get: fn(&Second) -> u64| group.iter().map(|s| get(s)).sum::<u64>();
        let offered = group.iter().map(|s| s.offered).sum::<f64>() / group.len() as f64;
        let failed: u64 = group.iter().flat_map(|s| kinds(s)).map(|(_, n)| n).sum();
        let mut cells = String::new();
        for get in [
            (|q: &Quantiles| q.p50) as fn(&Quantiles) -> u64,
            |q| q.p95,
            |q| q.p99,
            |q| q.max,
        ] {
            let worst = group
                .iter()
                .filter(|s| s.latency.count > 0)
                .map(|s| get(&s.latency))
                .max();
            let _ = write!(
                cells,
                "<td class=\"n\">{}</td>",
                worst.map_or("–".to_owned(), |v| us(v as f64))
            );
        }
        out.line(format_args!(
            "<tr><td class=\"n\">{:.0}</td><td class=\"n\">{offered:.1}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{failed}</td>{cells}</tr>",
            i as f64 * step,
            sum(|s| s.sent),
            sum(|s| s.responses)
        ));
    }
    out.push("</tbody></table></div></details>\n");
}

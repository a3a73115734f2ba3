//! Owns the report of a run as one HTML page: no network, no script but its own, readable without it. Everything that
//! comes from the run, its target or its spans is escaped. Pure: text from values.

mod axis;
mod chart;
mod client_side;
mod server_side;
#[cfg(test)]
mod tests;
mod waterfall;

use std::fmt::Write;

use serde_json::{Value, json};

use crate::compare::Change;
use crate::explain::{Explanation, Observed};
use crate::gate::Check;
use crate::report::{Quantiles, Report};
use axis::Axis;
use chart::Chart;

const STYLE: &str = include_str!("html/style.css");
const SCRIPT: &str = include_str!("html/script.js");

/// What is shown.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The run.
    pub report: &'a Report,
    /// The verdicts of the gate.
    pub checks: &'a [Check],
    /// What differs from the baseline; empty without one.
    pub changes: &'a [Change],
    /// What an agent saw of the run.
    pub seen: Option<&'a Observed>,
    /// Why it was slow.
    pub why: &'a Explanation,
}

/// What is written so far.
struct Out<'a> {
    page: Page<'a>,
    axis: Axis,
    html: String,
    charts: Vec<Value>,
}

/// The page. At most 1 MB: seconds are joined so that no chart has more than 300 points.
pub fn page(page: &Page<'_>) -> String {
    let mut out = Out {
        page: *page,
        axis: Axis::of(page.report, &page.why.symptom),
        html: String::new(),
        charts: Vec::new(),
    };
    out.head();
    out.header();
    out.tiles();
    out.why();
    out.rules();
    out.changes();
    client_side::sections(&mut out);
    server_side::sections(&mut out);
    out.foot();
    out.html
}

/// Text for HTML, in elements and in attributes.
fn esc(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c => out.push(visible(c)),
        }
    }
    out
}

/// A character, unless it is a control character or one that turns the direction of what follows.
fn visible(c: char) -> char {
    match c {
        '\n' | '\t' => c,
        '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => '\u{fffd}',
        c => c,
    }
}

/// At most so many characters.
fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most.saturating_sub(1)).collect();
    kept + "…"
}

/// Microseconds with the unit that suits.
fn us(us: f64) -> String {
    match us {
        u if u >= 10e6 => format!("{:.1} s", u / 1e6),
        u if u >= 1e6 => format!("{:.2} s", u / 1e6),
        u if u >= 100e3 => format!("{:.0} ms", u / 1e3),
        u if u >= 10e3 => format!("{:.1} ms", u / 1e3),
        u => format!("{:.2} ms", u / 1e3),
    }
}

/// A count with thousands apart.
fn count(n: u64) -> String {
    let digits = n.to_string();
    let first = digits.len() % 3;
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && i % 3 == first {
            out.push('\u{202f}');
        }
        out.push(c);
    }
    out
}

fn percent(share: f64) -> String {
    match share * 100.0 {
        0.0 => "0 %".to_owned(),
        p if p < 0.01 => "&lt; 0.01 %".to_owned(),
        p if p < 10.0 => format!("{p:.2} %"),
        p => format!("{p:.1} %"),
    }
}

impl Out<'_> {
    fn push(&mut self, text: &str) {
        self.html += text;
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        let _ = self.html.write_fmt(text);
        self.html.push('\n');
    }

    fn chart(&mut self, chart: Chart) {
        let (html, data) = chart.render(&self.axis, self.charts.len());
        self.html += &html;
        self.charts.push(data);
    }

    fn verdict(&self) -> (&'static str, String) {
        let broken = self.page.checks.iter().filter(|c| !c.passed).count();
        match self.page.checks.len() {
            n if !self.page.report.valid && broken > 1 => {
                ("bad", format!("Invalid run, {broken} of {n} rules broken"))
            }
            _ if !self.page.report.valid => ("bad", "Invalid run".to_owned()),
            n if broken > 0 => ("bad", format!("{broken} of {n} rules broken")),
            n if n > 1 => ("good", format!("All {n} rules kept")),
            _ => ("good", "Valid run".to_owned()),
        }
    }

    fn head(&mut self) {
        let title = esc(&format!(
            "Load run {}",
            short(&self.page.report.target, 120)
        ));
        self.line(format_args!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:\">\n\
             <meta name=\"generator\" content=\"nines\">\n<link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>"
        ));
    }

    fn header(&mut self) {
        let r = self.page.report;
        let (class, verdict) = self.verdict();
        let shard = r
            .shard
            .map_or(String::new(), |(i, n)| format!(" · worker {i} of {n}"));
        let stopped = if r.stopped {
            " · stopped before its end"
        } else {
            ""
        };
        self.line(format_args!(
            "<header>\n<div>\n<h1>{}</h1>\n<div class=\"sub\">run <code>{}</code> · scenario {} · {} · {:.1} s measured{shard}{stopped}</div>\n\
             <div class=\"verdict {class}\" id=\"verdict\">{verdict}</div>\n</div>\n<button id=\"theme\" type=\"button\" hidden>Light / dark</button>\n</header>",
            esc(&short(&r.target, 300)),
            esc(&short(&r.run_id, 100)),
            esc(&short(&r.scenario, 100)),
            model::timestamp::format_rfc3339(r.started_ms),
            r.duration_s
        ));
        if !r.reasons.is_empty() {
            self.push("<ul class=\"small soft\" style=\"margin:10px 0 0;padding-left:18px\">\n");
            for reason in &r.reasons {
                self.line(format_args!("<li>{}</li>", esc(reason)));
            }
            self.push("</ul>\n");
        }
    }

    fn tiles(&mut self) {
        let r = self.page.report;
        let q = Quantiles::of(&r.latency);
        let planned = r.planned as f64 / r.duration_s.max(1e-9);
        let bad_status: u64 = r
            .status
            .iter()
            .filter(|(c, _)| **c >= 500)
            .map(|(_, n)| n)
            .sum();
        let failed = (r.error_count() + r.unsent + bad_status) as f64 / r.planned.max(1) as f64;
        let latency = |us_of: u64| {
            if q.count == 0 {
                "–".to_owned()
            } else {
                us(us_of as f64)
            }
        };
        let tiles = [
            (
                "responses",
                count(r.responses),
                match r.requests == r.planned && r.responses == r.planned {
                    true => "all that were planned".to_owned(),
                    false => format!("{} planned, {} sent", count(r.planned), count(r.requests)),
                },
            ),
            (
                "achieved rate",
                format!("{:.1}/s", r.achieved_rate()),
                format!("{planned:.1}/s offered"),
            ),
            ("median", latency(q.p50), "from the planned send".to_owned()),
            ("p95", latency(q.p95), format!("p90 {}", latency(q.p90))),
            ("p99", latency(q.p99), format!("p99.9 {}", latency(q.p999))),
            (
                "failed",
                percent(failed),
                format!(
                    "{} without answer, {} 5xx",
                    count(r.error_count() + r.unsent),
                    count(bad_status)
                ),
            ),
        ];
        self.push("<div class=\"tiles\">\n");
        for (name, value, more) in tiles {
            self.line(format_args!(
                "<div class=\"tile\"><span>{name}</span><b>{value}</b><i>{more}</i></div>"
            ));
        }
        self.push("</div>\n");
    }

    fn why(&mut self) {
        let why = self.page.why;
        self.push("<h2 class=\"sr\">Why</h2>\n");
        let Some(first) = why.causes.first() else {
            self.line(format_args!(
                "<div class=\"card why none\" style=\"margin-top:20px\"><div class=\"eyebrow\">Why</div><p>{}</p>{}</div>",
                esc(&why.nothing()),
                self.notes()
            ));
            return;
        };
        self.line(format_args!(
            "<div class=\"card why\" style=\"margin-top:20px\" id=\"why\"><div class=\"eyebrow\">Why</div><h2>{}</h2><p>{}</p>",
            esc(&first.title()),
            esc(&first.headline)
        ));
        if let Some(when) = why.when() {
            self.line(format_args!("<p class=\"soft\">{}</p>", esc(&when)));
        }
        if !first.evidence.is_empty() {
            self.push("<ul>\n");
            for line in &first.evidence {
                self.line(format_args!("<li>{}</li>", esc(line)));
            }
            self.push("</ul>\n");
        }
        if let Some(open) = first.open(why.agent.as_deref()) {
            self.line(format_args!("<code class=\"cmd\">{}</code>", esc(&open)));
        }
        if why.causes.len() > 1 {
            self.push("<div class=\"also\"><div class=\"eyebrow\">Also seen</div><ul>\n");
            for cause in &why.causes[1..] {
                self.line(format_args!(
                    "<li><b>{}</b>: {}</li>",
                    esc(&cause.title()),
                    esc(&cause.headline)
                ));
            }
            self.push("</ul></div>\n");
        }
        let notes = self.notes();
        self.line(format_args!("{notes}</div>"));
    }

    fn notes(&self) -> String {
        let mut notes = self.page.why.notes.clone();
        if self.page.why.agent.is_none() {
            notes.push(
                "From the report alone; with an agent near also from traces and resources."
                    .to_owned(),
            );
        }
        notes
            .iter()
            .map(|n| {
                format!(
                    "<p class=\"small soft\" style=\"margin-top:8px\">{}</p>",
                    esc(n)
                )
            })
            .collect()
    }

    fn rules(&mut self) {
        let checks = self.page.checks;
        // That the run is valid is the first rule of every gate, and said above.
        if checks.len() <= 1 && checks.iter().all(|c| c.passed) {
            return;
        }
        self.push("<h2>Rules</h2>\n<div class=\"card scroll\"><table id=\"rules\">\n<thead><tr><th>Verdict</th><th>Rule</th><th>Seen</th></tr></thead>\n<tbody>\n");
        let mut sorted: Vec<&Check> = checks.iter().collect();
        sorted.sort_by_key(|c| c.passed);
        for c in sorted {
            let (class, word) = if c.passed {
                ("good", "kept")
            } else {
                ("bad", "broken")
            };
            self.line(format_args!(
                "<tr><td class=\"{class}\"><b>{word}</b></td><td class=\"t\"><code>{}</code></td><td class=\"t\">{}</td></tr>",
                esc(&c.rule),
                esc(&c.seen)
            ));
        }
        self.push("</tbody></table></div>\n");
    }

    fn changes(&mut self) {
        let changes = self.page.changes;
        if changes.is_empty() {
            return;
        }
        let bounds = changes
            .iter()
            .flat_map(|c| [c.interval.0, c.interval.1, c.change]);
        let reach = bounds
            .filter(|v| v.is_finite())
            .fold(0.05_f64, |m, v| m.max(v.abs()))
            .min(3.0);
        let against = crate::compare::against(changes);
        let at = |v: f64| ((v / reach).clamp(-1.0, 1.0) + 1.0) * 50.0;
        self.line(format_args!(
            "<h2>Against {against}</h2>\n<div class=\"card scroll\"><table id=\"changes\">\n<thead><tr><th>Verdict</th><th>Of</th><th class=\"n\">Was</th><th class=\"n\">Is</th><th class=\"n\">Change</th><th>95 % interval, ±{:.0} %</th></tr></thead>\n<tbody>",
            reach * 100.0
        ));
        for c in changes {
            let (class, k) = match c.verdict {
                crate::compare::Verdict::Better => ("good", "var(--good)"),
                crate::compare::Verdict::Worse => ("bad", "var(--bad)"),
                crate::compare::Verdict::NoEvidence => ("soft", "var(--faint)"),
            };
            let (low, high) = (at(c.interval.0), at(c.interval.1));
            self.line(format_args!(
                "<tr><td class=\"{class}\">{}</td><td class=\"t\">{} {}</td><td class=\"n\">{}</td><td class=\"n\">{}</td><td class=\"n\">{:+.1} %</td>\
                 <td title=\"{:+.1} to {:+.1} %\"><div class=\"forest\" style=\"--k:{k}\"><span class=\"z\" style=\"left:50%\"></span><span class=\"ci\" style=\"left:{low:.1}%;width:{:.1}%\"></span><span class=\"pt\" style=\"left:{:.1}%\"></span></div></td></tr>",
                c.verdict.as_str(),
                esc(c.route.as_deref().unwrap_or("all requests")),
                c.metric,
                us(c.before_us),
                us(c.after_us),
                c.change * 100.0,
                c.interval.0 * 100.0,
                c.interval.1 * 100.0,
                high - low,
                at(c.change)
            ));
        }
        self.push("</tbody></table></div>\n");
    }

    fn foot(&mut self) {
        let data =
            json!({"at": self.axis.starts(), "step": self.axis.step_s, "charts": self.charts});
        // A name in it may hold "</script>".
        let data = data
            .to_string()
            .replace('<', "\\u003c")
            .replace('\u{2028}', "\\u2028")
            .replace('\u{2029}', "\\u2029");
        let joined = self.axis.joined();
        self.line(format_args!(
            "<footer>Latency counts from the instant at which a request was due, so waiting for a connection is in it; service time counts from the actual send. {joined}\
             Charts: hover, or focus one and use the arrow keys. Made by nines; this file needs no network.</footer>\n</main>\n\
             <div id=\"said\" class=\"sr\" aria-live=\"polite\"></div>\n<script type=\"application/json\" id=\"data\">{data}</script>\n<script>\n{SCRIPT}</script>\n</body>\n</html>"
        ));
    }
}

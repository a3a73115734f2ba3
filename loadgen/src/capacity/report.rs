//! Owns what a search found and its forms: text, JSON, Markdown. Computes nothing.

use std::fmt::Write;

use serde_json::{Value, json};

use super::judge::{Judged, Observed, Verdict, Why};
use super::resource::Resource;
use super::search::{End, Trial};
use super::usl::Fit;

/// What a search found.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Base URL.
    pub target: String,
    /// Name of the run.
    pub run_id: String,
    /// The rules as written.
    pub rules: Vec<String>,
    /// How it ended.
    pub end: End,
    /// The highest rate that met the rules, per second.
    pub capacity: Option<f64>,
    /// 95 % interval of the rate up to which the rules are met; the upper end may be infinite.
    pub interval: (f64, f64),
    /// The lowest rate that was too much, and what it was like.
    pub beyond: Option<(f64, Judged)>,
    /// The law fitted to the steps.
    pub law: Option<Fit>,
    /// The steps in order.
    pub rows: Vec<StepRow>,
    /// What was full at the capacity, when an agent was asked.
    pub resources: Option<Vec<Resource>>,
    /// Start, milliseconds since 1970.
    pub started_ms: i64,
    /// Length in seconds.
    pub elapsed_s: f64,
}

/// One step, for tables.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRow {
    /// What it was for.
    pub purpose: &'static str,
    /// When it began, milliseconds since 1970.
    pub started_ms: i64,
    /// Requests per second due.
    pub rate: f64,
    /// Its length, seconds.
    pub length_s: f64,
    /// Most connections.
    pub connections: usize,
    /// Responses per second while steady.
    pub throughput: f64,
    /// Median latency from the planned send, microseconds.
    pub p50_us: u64,
    /// 99th percentile.
    pub p99_us: u64,
    /// Requests in the server.
    pub concurrency: f64,
    /// Its verdict: `under`, `over`, `unclear`, `generator` or `dead`.
    pub verdict: &'static str,
    /// Why.
    pub why: String,
}

impl StepRow {
    pub(super) fn of(trial: &Trial, judged: &Judged, seen: Option<&Observed>) -> StepRow {
        let latency = |q| {
            let h = &judged.latency;
            if h.is_empty() {
                0
            } else {
                h.value_at_quantile(q)
            }
        };
        let (verdict, why) = words(judged);
        StepRow {
            purpose: trial.purpose.as_str(),
            started_ms: seen.map_or(0, |o| o.started_ms),
            rate: trial.rate,
            length_s: seen.map_or(0.0, |o| o.slices.iter().map(|s| s.length_s).sum()),
            connections: trial.connections,
            throughput: judged.throughput,
            p50_us: latency(0.5),
            p99_us: latency(0.99),
            concurrency: judged.concurrency,
            verdict,
            why,
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let ms = |us: u64| {
            if us >= 10_000_000 {
                format!("{:.1} s", us as f64 / 1e6)
            } else {
                format!("{:.2} ms", us as f64 / 1e3)
            }
        };
        format!(
            "{:11} {:>10.1} {:>6.1} {:>10.1} {:>11} {:>11} {:>9.1}  {}{}",
            self.purpose,
            self.rate,
            self.length_s,
            self.throughput,
            ms(self.p50_us),
            ms(self.p99_us),
            self.concurrency,
            self.verdict,
            if self.why.is_empty() {
                String::new()
            } else {
                format!(": {}", self.why)
            }
        )
    }

    /// The names above [`StepRow::line`]'s columns.
    pub fn head() -> String {
        format!(
            "{:11} {:>10} {:>6} {:>10} {:>11} {:>11} {:>9}  {}",
            "step", "rate/s", "s", "answered/s", "p50", "p99", "in server", "verdict"
        )
    }
}

fn words(judged: &Judged) -> (&'static str, String) {
    let broken = |text: &str| {
        let check = judged.checks.iter().find(|c| c.rule == text);
        check.map_or_else(|| text.to_owned(), |c| format!("{} ({})", c.rule, c.seen))
    };
    let over = |why: &Why| match why {
        Why::Backlog => format!("the backlog grows by {:.1}/s", judged.growth),
        Why::Rule(text) => broken(text),
    };
    match &judged.verdict {
        Verdict::Under => ("under", String::new()),
        Verdict::Over(why) => ("over", over(why)),
        Verdict::Unclear(so_far) => (
            "unclear",
            match so_far.as_ref() {
                Verdict::Over(why) => over(why),
                _ => "a rule is kept by little".to_owned(),
            },
        ),
        Verdict::Generator(why) => ("generator", why.clone()),
        Verdict::Dead(why) => ("dead", why.clone()),
    }
}

/// A rate with as many digits as it deserves.
fn rate(r: f64) -> String {
    if r >= 10_000.0 {
        format!("{r:.0}/s")
    } else {
        format!("{r:.1}/s")
    }
}

/// Seconds that hold two scrapes of the usual 5 s.
const SCRAPES_S: f64 = 11.0;

type Windows = ((f64, i64), (f64, i64));

/// As [`Answer::windows`]; `beyond` is the lowest rate that was too much.
fn windows(
    rows: &[StepRow],
    started_ms: i64,
    capacity: Option<f64>,
    beyond: Option<f64>,
) -> Option<Windows> {
    let rate = capacity.or(rows.last().map(|r| r.rate))?;
    let ends = |r: &StepRow| r.started_ms + (r.length_s * 1e3) as i64;
    // The steps at the end of the search that are all near it, or near what is known to be too much: what limits is as full
    // there, and when the time was up early the capacity's own step may be a short one among others on the way up.
    let most = 1.25 * beyond.unwrap_or(rate).max(rate);
    let is_near = |r: &&StepRow| (0.75 * rate..=most).contains(&r.rate);
    let near: Vec<&StepRow> = rows
        .iter()
        .rev()
        .skip_while(|r| !is_near(r))
        .take_while(is_near)
        .collect();
    let (last, first) = (near.first()?, near.last()?);
    let length_s = ((ends(last) - first.started_ms) as f64 / 1e3).max(SCRAPES_S);
    let light = rows.iter().take_while(|r| r.rate <= rate / 2.0).last();
    let light = light.map_or(started_ms, ends);
    Some(((length_s, ends(last)), (SCRAPES_S, light)))
}

impl Answer {
    /// When to look at resources: a window near the capacity, and one that ends with light load (half of it at most);
    /// length in seconds and end in milliseconds since 1970. None before any step.
    pub fn windows(&self) -> Option<Windows> {
        let beyond = self.beyond.as_ref().map(|(rate, _)| *rate);
        windows(&self.rows, self.started_ms, self.capacity, beyond)
    }

    /// The answer in one or two lines.
    pub fn headline(&self) -> String {
        let lo = self.capacity.map(rate);
        let (low, high) = self.interval;
        let between = if high.is_finite() {
            format!("95 % interval {} to {}", rate(low), rate(high))
        } else {
            format!("95 % interval from {}", rate(low))
        };
        match (&self.end, lo) {
            (End::Found(confirmed), Some(lo)) => {
                let word = if *confirmed {
                    "confirmed"
                } else {
                    "not confirmed: the time was up"
                };
                format!("capacity {lo} ({between}); {word}")
            }
            (End::AtLeast, Some(lo)) => {
                format!("capacity at least {lo}, the highest rate allowed ({between})")
            }
            (End::Generator(at, why), lo) => {
                let met = lo.map_or_else(
                    || "no rate was met before".to_owned(),
                    |lo| format!("the rules are met up to {lo}"),
                );
                format!(
                    "not known: at {} the generator, not the server, was the limit ({why}); {met}",
                    rate(*at)
                )
            }
            (End::Dead(why), _) => format!("not known: nothing answered ({why})"),
            (End::Stopped, Some(lo)) => format!("not known: stopped; the rules are met up to {lo}"),
            (End::Stopped, None) => "not known: stopped".to_owned(),
            (_, None) => {
                let lowest = self
                    .rows
                    .iter()
                    .map(|r| r.rate)
                    .fold(f64::INFINITY, f64::min);
                format!("none: the rules are not met at {} either", rate(lowest))
            }
            (End::Nothing, Some(lo)) => format!("not known; the rules are met up to {lo}"),
        }
    }

    /// Text for a terminal.
    pub fn summary(&self) -> String {
        let mut out = format!("{}\n", self.headline());
        if let Some((at, judged)) = &self.beyond {
            let _ = writeln!(out, "at {}: {}", rate(*at), words(judged).1);
        }
        let _ = writeln!(
            out,
            "{} under {}; run {}, {:.1} s\n\n{}",
            self.target,
            self.rules.join(", "),
            self.run_id,
            self.elapsed_s,
            StepRow::head().trim_end()
        );
        for row in &self.rows {
            let _ = writeln!(out, "{}", row.line());
        }
        out += "\n";
        for line in self.law_lines() {
            let _ = writeln!(out, "{line}");
        }
        for line in self.resource_lines() {
            let _ = writeln!(out, "{line}");
        }
        out
    }

    fn law_lines(&self) -> Vec<String> {
        let Some(law) = &self.law else {
            return vec![
                "scalability law: not fitted; no step had two requests in the server at once, or there were fewer than four"
                    .to_owned(),
            ];
        };
        let at = |point: Option<(f64, f64)>| {
            point.map_or_else(
                || "none".to_owned(),
                |(n, x)| format!("{} with {n:.1} in the server", rate(x)),
            )
        };
        vec![
            format!(
                "scalability law: {} one at a time; contention {:.4} ({:.4} to {:.4}), coherency {:.6} ({:.6} to {:.6})",
                rate(law.lambda),
                law.sigma,
                law.sigma_interval.0,
                law.sigma_interval.1,
                law.kappa,
                law.kappa_interval.0,
                law.kappa_interval.1
            ),
            format!(
                "  knee {}; peak {}; limit by contention {}",
                at(law.knee()),
                at(law.peak()),
                law.limit().map_or_else(|| "none".to_owned(), rate)
            ),
        ]
    }

    fn resource_lines(&self) -> Vec<String> {
        let Some(all) = &self.resources else {
            return Vec::new();
        };
        if all.is_empty() {
            return vec!["resources: the agent knows none in use".to_owned()];
        }
        all.iter().map(Resource::line).collect()
    }

    /// The whole answer.
    pub fn to_json(&self) -> Value {
        let finite = |x: f64| if x.is_finite() { json!(x) } else { Value::Null };
        let (end, why) = match &self.end {
            End::Found(true) => ("found", None),
            End::Found(false) => ("not confirmed", None),
            End::AtLeast => ("at least", None),
            End::Nothing => ("none", None),
            End::Generator(_, why) => ("generator", Some(why)),
            End::Dead(why) => ("dead", Some(why)),
            End::Stopped => ("stopped", None),
        };
        let steps = self.rows.iter().map(|r| {
            json!({
                "purpose": r.purpose, "started_ms": r.started_ms, "rate": r.rate, "length_s": r.length_s,
                "connections": r.connections, "throughput": r.throughput, "p50_us": r.p50_us, "p99_us": r.p99_us,
                "concurrency": r.concurrency, "verdict": r.verdict, "why": r.why,
            })
        });
        let pair = |p: Option<(f64, f64)>| p.map(|(n, x)| json!({"concurrency": n, "rate": x}));
        let law = self.law.as_ref().map(|l| {
            json!({
                "lambda": l.lambda, "sigma": l.sigma, "sigma_interval": [l.sigma_interval.0, l.sigma_interval.1],
                "kappa": l.kappa, "kappa_interval": [l.kappa_interval.0, l.kappa_interval.1], "points": l.points,
                "knee": pair(l.knee()), "peak": pair(l.peak()), "limit": l.limit(),
            })
        });
        let resources = self.resources.as_ref().map(|all| {
            let each = all
                .iter()
                .map(|r| json!({"name": r.name, "value": r.value, "light": r.light, "saturated": r.saturated}));
            each.collect::<Vec<_>>()
        });
        json!({ "nines_capacity": {
            "target": self.target, "run_id": self.run_id, "rules": self.rules, "started_ms": self.started_ms,
            "elapsed_s": self.elapsed_s, "end": end, "why": why, "capacity": self.capacity,
            "interval": [finite(self.interval.0), finite(self.interval.1)],
            "beyond": self.beyond.as_ref().map(|(at, judged)| json!({"rate": at, "why": words(judged).1})),
            "steps": steps.collect::<Vec<_>>(), "law": law, "resources": resources,
        }})
    }

    /// Markdown for a job summary.
    pub fn markdown(&self) -> String {
        let mut out = format!(
            "## {}\n\n{} under `{}`, {:.0} s\n\n| step | rate/s | answered/s | p50 ms | p99 ms | in server | verdict |\n|---|---|---|---|---|---|---|\n",
            self.headline(),
            self.target,
            self.rules.join("`, `"),
            self.elapsed_s
        );
        for r in &self.rows {
            let _ = writeln!(
                out,
                "| {} | {:.1} | {:.1} | {:.2} | {:.2} | {:.1} | {} {} |",
                r.purpose,
                r.rate,
                r.throughput,
                r.p50_us as f64 / 1e3,
                r.p99_us as f64 / 1e3,
                r.concurrency,
                r.verdict,
                r.why.replace('|', "\\|")
            );
        }
        out += "\n";
        for line in self.law_lines().iter().chain(&self.resource_lines()) {
            let _ = writeln!(out, "- {}", line.trim());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(steps: &[(f64, f64)]) -> Vec<StepRow> {
        let mut at_ms = 0;
        let mut row = |(rate, length_s): &(f64, f64)| {
            let started_ms = at_ms;
            at_ms += (length_s * 1e3) as i64;
            StepRow {
                purpose: "climb",
                started_ms,
                rate: *rate,
                length_s: *length_s,
                connections: 1,
                throughput: *rate,
                p50_us: 0,
                p99_us: 0,
                concurrency: 0.0,
                verdict: "under",
                why: String::new(),
            }
        };
        steps.iter().map(&mut row).collect()
    }

    #[test]
    fn resources_are_looked_at_near_the_capacity_and_under_light_load() {
        let climb = [(4.0, 2.0), (16.0, 2.0), (64.0, 2.0), (128.0, 2.0)];
        let found = rows(&[&climb[..], &[(80.0, 10.0), (90.0, 10.0), (85.0, 8.0)]].concat());
        let seen = windows(&found, 0, Some(85.0), Some(90.0));
        assert_eq!(seen, Some(((28.0, 36_000), (11.0, 4_000))));
        // The time was up: only what was too much came after the capacity's own step.
        let cut = rows(&[&climb[..], &[(95.0, 4.0), (95.0, 6.0), (91.0, 3.0)]].concat());
        let seen = windows(&cut, 0, Some(64.0), Some(95.0));
        assert_eq!(seen, Some(((13.0, 21_000), (11.0, 4_000))));
        assert_eq!(windows(&[], 0, None, None), None);
    }
}

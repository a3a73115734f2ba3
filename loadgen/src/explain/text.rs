//! Owns the explanation as text for a terminal and as JSON. Only reads.

use std::fmt::Write;

use serde_json::{Value, json};

use super::{Cause, Explanation, ms};
use crate::export::{cell, code};

/// Names come from spans and labels: control characters would move a terminal's cursor.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

impl Cause {
    /// The command that opens the trace which shows it.
    pub fn open(&self, agent: Option<&str>) -> Option<String> {
        let id = self.trace?;
        Some(match agent {
            Some(url) => format!("nines traces {id} --url {url}"),
            None => format!("nines traces {id}"),
        })
    }

    /// `database sqlite`
    pub fn title(&self) -> String {
        format!("{}: {}", self.kind.as_str(), self.subject)
    }
}

impl Explanation {
    /// When it was bad, as a sentence.
    pub fn when(&self) -> Option<String> {
        let s = &self.symptom;
        let (from, until) = s.stretch.filter(|_| s.stands_out())?;
        let us = |us: f64| ms(us * 1e3);
        let mut text = format!(
            "from second {from:.0} to {until:.0}: p95 {}, {} otherwise",
            us(s.p95_us.0),
            us(s.p95_us.1)
        );
        if s.failed.0 > 0.001 {
            let _ = write!(
                text,
                "; {} failed, {} otherwise",
                super::percent(s.failed.0),
                super::percent(s.failed.1)
            );
        }
        if s.silent > 0 {
            let _ = write!(text, "; no answer at all in {} seconds", s.silent);
        }
        Some(text)
    }

    /// For a terminal: the first cause with all that speaks for it, the others with a line each.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let row = |out: &mut String, name: &str, text: &str| {
            let _ = writeln!(out, "{name:6} {}", clean(text));
        };
        match self.causes.first() {
            None => row(&mut out, "why", &self.nothing()),
            Some(first) => {
                row(&mut out, "why", &first.title());
                row(&mut out, "", &first.headline);
                if let Some(when) = self.when() {
                    row(&mut out, "", &when);
                }
                for line in &first.evidence {
                    row(&mut out, "", &format!("- {line}"));
                }
                if let Some(open) = first.open(self.agent.as_deref()) {
                    row(&mut out, "open", &open);
                }
            }
        }
        for cause in self.causes.iter().skip(1) {
            row(
                &mut out,
                "also",
                &format!("{}: {}", cause.title(), cause.headline),
            );
        }
        for note in &self.notes {
            row(&mut out, "note", note);
        }
        if self.agent.is_none() {
            row(
                &mut out,
                "note",
                "from the report alone; with --agent URL also from traces and resources",
            );
        }
        out
    }

    /// A section of Markdown.
    pub fn markdown(&self) -> String {
        let Some(first) = self.causes.first() else {
            return format!("\n#### Why\n\n{}\n", cell(&self.nothing()));
        };
        let mut out = format!(
            "\n#### Why: {}\n\n{}\n",
            cell(&first.title()),
            cell(&first.headline)
        );
        if let Some(when) = self.when() {
            let _ = writeln!(out, "\n{}\n", cell(&when));
        }
        for line in &first.evidence {
            let _ = writeln!(out, "- {}", cell(line));
        }
        if let Some(open) = first.open(self.agent.as_deref()) {
            let _ = writeln!(out, "- open {}", code(&open));
        }
        for cause in &self.causes[1..] {
            let _ = writeln!(
                out,
                "- also {}: {}",
                cell(&cause.title()),
                cell(&cause.headline)
            );
        }
        out
    }

    /// What is said when there is no cause.
    pub fn nothing(&self) -> String {
        match self.when() {
            Some(when) => format!("no cause stands out, though some seconds do: {when}"),
            None => "no cause stands out: no second is slower, or fails more, than chance has it"
                .to_owned(),
        }
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let agent = self.agent.as_deref();
        let cause = |c: &Cause| {
            json!({
                "kind": c.kind.as_str(), "subject": c.subject, "headline": c.headline, "evidence": c.evidence,
                "weight": (c.weight * 1e3).round() / 1e3, "trace": c.trace.map(|t| t.to_string()), "open": c.open(agent),
            })
        };
        let growth = self.growth.iter().map(|g| {
            json!({
                "service": g.service, "span": g.name, "part": g.part.kind.as_str(), "of": g.part.name,
                "typical_ms": g.typical_ns / 1e6, "slow_ms": g.slow_ns / 1e6,
                "typical_calls": g.typical_calls, "slow_calls": g.slow_calls,
            })
        });
        let s = &self.symptom;
        json!({
            "causes": self.causes.iter().map(cause).collect::<Vec<_>>(),
            "when": s.stretch.filter(|_| s.stands_out()).map(|(from, until)| json!({"from_s": from, "until_s": until})),
            "bad_seconds": s.bad.iter().filter(|b| **b).count(),
            "p95_us": {"bad": s.p95_us.0, "otherwise": s.p95_us.1},
            "failed": {"bad": s.failed.0, "otherwise": s.failed.1},
            "growth": growth.collect::<Vec<_>>(),
            "notes": self.notes,
            "agent": self.agent,
        })
    }
}

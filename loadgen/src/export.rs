//! Owns the forms in which other tools read a run and its verdict: JUnit, CSV, Markdown, HDR logs, GitHub, GitLab.
//! Pure: text from a report and its checks.

use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::IntervalLogWriterBuilder;

use crate::compare::{self, Change};
use crate::gate::Check;
use crate::hdr;
use crate::report::{Quantiles, Report};

/// JUnit XML: one test case a check.
pub fn junit(report: &Report, checks: &[Check]) -> String {
    let failed = checks.iter().filter(|c| !c.passed).count();
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    let _ = writeln!(
        out,
        "<testsuites>\n  <testsuite name=\"nines gate\" tests=\"{}\" failures=\"{failed}\" errors=\"0\" skipped=\"0\" time=\"{:.3}\" timestamp=\"{}\">\n    <properties>\n      <property name=\"run_id\" value=\"{}\"/>\n      <property name=\"target\" value=\"{}\"/>\n    </properties>",
        checks.len(),
        report.duration_s,
        model::timestamp::format_rfc3339(report.started_ms),
        xml(&report.run_id),
        xml(&report.target)
    );
    for check in checks {
        let name = xml(&check.rule);
        let class = xml(&report.scenario);
        let open = format!("    <testcase classname=\"nines.{class}\" name=\"{name}\"");
        let seen = xml(&check.seen);
        let _ = if check.passed {
            writeln!(
                out,
                "{open}>\n      <system-out>{seen}</system-out>\n    </testcase>"
            )
        } else {
            writeln!(
                out,
                "{open}>\n      <failure message=\"{seen}\">{name}: {seen}</failure>\n    </testcase>"
            )
        };
    }
    out + "  </testsuite>\n</testsuites>\n"
}

/// Text for XML; characters that XML 1.0 forbids become a question mark.
fn xml(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\t' | '\n' | '\r' => out.push(' '),
            c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// One line a second, times in milliseconds; empty cells where nothing was measured.
pub fn csv(report: &Report) -> String {
    let mut out = String::from(
        "at_s,length_s,warm_up,offered,sent,responses,errors,min_ms,mean_ms,p50_ms,p90_ms,p95_ms,p99_ms,p999_ms,max_ms\n",
    );
    for s in &report.per_second {
        let _ = write!(
            out,
            "{:.3},{:.3},{},{:.3},{},{},{}",
            s.at_s, s.length_s, s.warm_up, s.offered, s.sent, s.responses, s.errors
        );
        let q = s.latency;
        for us in [
            q.min as f64,
            q.mean,
            q.p50 as f64,
            q.p90 as f64,
            q.p95 as f64,
            q.p99 as f64,
            q.p999 as f64,
            q.max as f64,
        ] {
            let _ = if q.count == 0 {
                write!(out, ",")
            } else {
                write!(out, ",{:.3}", us / 1e3)
            };
        }
        out.push('\n');
    }
    out
}

/// Markdown: verdict, checks, figures, routes, changes against the baseline.
pub fn markdown(report: &Report, checks: &[Check], changes: &[Change]) -> String {
    let broken = checks.iter().filter(|c| !c.passed).count();
    let mut out = String::new();
    let verdict = match (checks.len(), broken) {
        (0, _) if report.valid => "valid run".to_owned(),
        (0, _) => "invalid run".to_owned(),
        (n, 0) => format!("all {n} rules kept"),
        (n, broken) => format!("{broken} of {n} rules broken"),
    };
    let _ = writeln!(
        out,
        "### Load run: {verdict}\n\n{} against {}, {:.1} s, {:.1} responses/s, {} errors\n",
        code(&report.run_id),
        code(&report.target),
        report.duration_s,
        report.achieved_rate(),
        report.error_count()
    );
    if !checks.is_empty() {
        out += "| | rule | seen |\n|---|---|---|\n";
        for c in checks {
            let mark = if c.passed { "kept" } else { "**broken**" };
            let _ = writeln!(out, "| {mark} | {} | {} |", code(&c.rule), cell(&c.seen));
        }
        out.push('\n');
    }
    out += "| latency, ms | count | p50 | p90 | p95 | p99 | p99.9 | max |\n|---|---|---|---|---|---|---|---|\n";
    line(&mut out, "from planned send", &report.latency);
    line(&mut out, "from actual send", &report.service_time);
    for (name, h) in report.phases.named() {
        line(&mut out, &name.replace('_', " "), h);
    }
    if report.routes.len() > 1 {
        for (name, route) in &report.routes {
            line(&mut out, &code(name), &route.latency);
        }
    }
    if !changes.is_empty() {
        let against = compare::against(changes);
        let _ = writeln!(
            out,
            "\n| against {against} | | change | 95 % interval | was, ms | is, ms |\n|---|---|---|---|---|---|"
        );
        for c in changes {
            let _ = writeln!(
                out,
                "| {} | {} {} | {:+.1} % | {:+.1} to {:+.1} % | {:.2} | {:.2} |",
                c.verdict.as_str(),
                c.route.as_deref().map_or("all requests".to_owned(), code),
                c.metric,
                c.change * 100.0,
                c.interval.0 * 100.0,
                c.interval.1 * 100.0,
                c.before_us / 1e3,
                c.after_us / 1e3
            );
        }
    }
    if !report.reasons.is_empty() {
        out.push('\n');
        for reason in &report.reasons {
            let _ = writeln!(out, "- {}", cell(reason));
        }
    }
    out
}

fn line(out: &mut String, name: &str, h: &Histogram<u64>) {
    if h.is_empty() {
        return;
    }
    let q = Quantiles::of(h);
    let _ = write!(out, "| {name} | {}", q.count);
    for us in [q.p50, q.p90, q.p95, q.p99, q.p999, q.max] {
        let _ = write!(out, " | {:.2}", us as f64 / 1e3);
    }
    out.push_str(" |\n");
}

/// Text in a table's cell: nothing in it is markup, a mention or a link.
pub(crate) fn cell(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '~' | '#' => out.extend(['\\', c]),
            // A mention would reach people; an entity is not one.
            '@' => out += "&#64;",
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// A name from the run, in a table's cell or a sentence, as code. A bar is escaped in code too: tables come first.
pub(crate) fn code(text: &str) -> String {
    let text: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let text = text.replace('|', "\\|");
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    match longest {
        0 => format!("`{text}`"),
        _ => format!("{fence} {text} {fence}"),
    }
}

/// GitHub workflow commands: an error annotation a broken rule.
pub fn github(checks: &[Check]) -> String {
    let escape = |text: &str| {
        text.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let broken = checks.iter().filter(|c| !c.passed);
    broken
        .map(|c| {
            format!(
                "::error title=nines gate::{}\n",
                escape(&format!("{} (seen: {})", c.rule, c.seen))
            )
        })
        .collect()
}

/// OpenMetrics text for GitLab's `artifacts:reports:metrics`.
pub fn gitlab(report: &Report, checks: &[Check]) -> String {
    let mut out = String::new();
    let mut gauge = |name: &str, labels: &str, value: f64| {
        let _ = writeln!(out, "nines_{name}{labels} {value}");
    };
    gauge("requests_planned", "", report.planned as f64);
    gauge("responses", "", report.responses as f64);
    gauge("errors", "", report.error_count() as f64);
    gauge("unsent", "", report.unsent as f64);
    gauge(
        "responses_per_second",
        "",
        (report.achieved_rate() * 1e3).round() / 1e3,
    );
    for (name, h) in [
        ("latency", &report.latency),
        ("service_time", &report.service_time),
    ] {
        for q in [0.5, 0.9, 0.95, 0.99, 0.999] {
            if !h.is_empty() {
                let ms = h.value_at_quantile(q) as f64 / 1e3;
                gauge(
                    &format!("{name}_milliseconds"),
                    &format!("{{quantile=\"{q}\"}}"),
                    ms,
                );
            }
        }
    }
    let broken = checks.iter().filter(|c| !c.passed).count();
    gauge("rules", "", checks.len() as f64);
    gauge("rules_broken", "", broken as f64);
    out + "# EOF\n"
}

/// An HDR V2 interval log of the latency in microseconds, as HdrHistogram's tools read it: an interval a second when
/// the run kept its seconds' histograms, one interval otherwise. The warm-up is left out.
///
/// # Errors
/// When a stored histogram cannot be read.
pub fn hdr_log(report: &Report) -> Result<String, String> {
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let started = UNIX_EPOCH + Duration::from_millis(report.started_ms.max(0).unsigned_abs());
    let warm_up = report.warm_up_s();
    let failed = |e: &dyn std::fmt::Debug| format!("cannot write the log: {e:?}");
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!(
            "nines run {}, latency from planned send",
            one_line(&report.run_id)
        ))
        .add_comment("values in microseconds, maximum in milliseconds")
        .with_start_time(started)
        .with_base_time(SystemTime::UNIX_EPOCH)
        .with_max_value_divisor(1000.0)
        .begin_log_with(&mut bytes, &mut serializer)
        .map_err(|e| failed(&e))?;
    let base = Duration::from_millis(report.started_ms.max(0).unsigned_abs());
    let seconds: Vec<_> = report.per_second.iter().filter(|s| !s.warm_up).collect();
    if !seconds.is_empty() && seconds.iter().all(|s| s.hdr.is_some()) {
        for s in seconds {
            let histogram = hdr::decode(s.hdr.as_deref().unwrap_or_default())?;
            let at = base + Duration::from_secs_f64((s.at_s - warm_up).max(0.0));
            log.write_histogram(&histogram, at, Duration::from_secs_f64(s.length_s), None)
                .map_err(|e| failed(&e))?;
        }
    } else {
        let length = Duration::from_secs_f64(report.duration_s.max(0.0));
        log.write_histogram(&report.latency, base, length, None)
            .map_err(|e| failed(&e))?;
    }
    String::from_utf8(bytes).map_err(|e| failed(&e))
}

fn one_line(text: &str) -> String {
    text.replace(['\r', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::compare::Verdict;
    use crate::gate::{Rule, validity};
    use crate::report::sample;

    fn checks(report: &Report) -> Vec<Check> {
        let rules = ["p95<200ms", "error_rate<5%", "p50[GET /a<b]<600ms"];
        let kept = rules.iter().map(|r| Rule::parse(r).unwrap().check(report));
        std::iter::once(validity(report)).chain(kept).collect()
    }

    fn change() -> Change {
        Change {
            route: None,
            baselines: 1,
            paired: false,
            metric: "p50",
            before_us: 2000.0,
            after_us: 2100.0,
            change: 0.05,
            interval: (0.04, 0.06),
            p: 0.001,
            verdict: Verdict::Worse,
        }
    }

    #[test]
    fn every_output_is_as_recorded() {
        let mut report = sample();
        report.per_second.truncate(2);
        report.reasons = vec!["a note".into()];
        let checks = checks(&report);
        for (name, text) in [
            ("gate.junit.xml", junit(&report, &checks)),
            ("gate.csv", csv(&report)),
            ("gate.md", markdown(&report, &checks, &[change()])),
            ("gate.github", github(&checks)),
            ("gate.gitlab", gitlab(&report, &checks)),
        ] {
            let path = format!("{}/tests/snapshots/{name}", env!("CARGO_MANIFEST_DIR"));
            if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
                std::fs::create_dir_all(format!("{}/tests/snapshots", env!("CARGO_MANIFEST_DIR")))
                    .unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            let recorded = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(text, recorded, "{name}: UPDATE_SNAPSHOTS=1 records it anew");
        }
    }

    #[test]
    fn markdown_says_how_many_baselines_there_were() {
        let several = Change {
            baselines: 5,
            ..change()
        };
        let text = |change: Change| markdown(&sample(), &[], &[change]);
        assert!(text(several).contains("| against the mean of 5 baselines | |"));
        assert!(text(change()).contains("| against the baseline | |"));
    }

    #[test]
    fn hostile_names_stay_inside_their_fields() {
        let check = Check::new("a\"<b>&\u{1}\nc|d%", false, "x\n::error::y");
        let mut report = sample();
        report.target = "http://h/\"><x>".into();
        let all = [check];
        assert!(junit(&report, &all).contains("name=\"a&quot;&lt;b&gt;&amp;? c|d%\""));
        assert_eq!(github(&all).lines().count(), 1);
        assert!(markdown(&report, &all, &[]).contains("c\\|d%"));
        let route = report.routes.values().next().unwrap().clone();
        report.routes = BTreeMap::from([
            ("GET /*a*_`b` @team #1|x".into(), route.clone()),
            ("b".into(), route),
        ]);
        let text = markdown(&report, &[Check::new("r", false, "*x* @team <b>")], &[]);
        assert!(
            text.contains("| `` GET /*a*_`b` @team #1\\|x `` | 1000 |"),
            "{text}"
        );
        assert!(text.contains("| \\*x\\* &#64;team &lt;b> |"), "{text}");
    }

    #[test]
    fn hdr_logs_are_read_back() {
        use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
        let mut report = sample();
        let intervals = |log: &str| {
            let entries = IntervalLogIterator::new(log.as_bytes()).map(|e| e.unwrap());
            let read = entries.filter_map(|e| match e {
                LogEntry::Interval(i) => Some(hdr::decode(i.encoded_histogram()).unwrap().len()),
                _ => None,
            });
            read.collect::<Vec<_>>()
        };
        assert_eq!(intervals(&hdr_log(&report).unwrap()), [1000]);
        let mut h = crate::stats::histogram();
        h.record_n(5, 7).unwrap();
        for s in &mut report.per_second {
            s.hdr = Some(hdr::encode(&h));
        }
        report.per_second[0].warm_up = true;
        assert_eq!(intervals(&hdr_log(&report).unwrap()), [7; 9]);
    }
}

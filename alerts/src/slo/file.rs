//! From YAML to [`SloFile`].
//!
//! Owns the format's keys, defaults and errors. Must not know what becomes of an SLO.

use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{Events, Part, Slo, SloFile};
use crate::file_error::{FileError, Place};
use crate::rules::locate;
use crate::rules::parse::Pairs;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    slos: Vec<Spanned<RawSlo>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSlo {
    name: Spanned<String>,
    #[serde(default)]
    description: String,
    objective: Spanned<f64>,
    #[serde(default)]
    period: Option<Spanned<String>>,
    #[serde(default)]
    good: Option<Spanned<String>>,
    #[serde(default)]
    bad: Option<Spanned<String>>,
    total: Spanned<String>,
    #[serde(default)]
    min_bad_events: Option<Spanned<f64>>,
    #[serde(default)]
    page: Option<Spanned<String>>,
    #[serde(default)]
    ticket: Option<Spanned<String>>,
    #[serde(default)]
    runbook: String,
    #[serde(default)]
    labels: Option<Pairs>,
}

/// Bad events below which nothing alerts, unless the file says otherwise.
const MIN_BAD_EVENTS: f64 = 5.0;

struct Reader<'a> {
    file: &'a str,
    text: &'a str,
}

pub(super) fn parse(file: &str, text: &str) -> Result<SloFile, FileError> {
    let reader = Reader { file, text };
    let raw: RawFile =
        serde_saphyr::from_str(text).map_err(|e| FileError::from_yaml(file, text, &e))?;
    let mut slos: Vec<Slo> = Vec::new();
    for entry in raw.slos {
        let place = Place::from(entry.referenced);
        let name_place = Place::from(entry.value.name.referenced);
        let slo = reader.slo(place, entry.value)?;
        if slos.iter().any(|s| s.name == slo.name) {
            return Err(reader.error(
                name_place,
                format!("the SLO name {:?} is repeated", slo.name),
            ));
        }
        slos.push(slo);
    }
    Ok(SloFile {
        name: file.to_owned(),
        slos,
    })
}

// === impl Reader ===

impl Reader<'_> {
    fn error(&self, place: Place, message: impl Into<String>) -> FileError {
        FileError::at(self.file, self.text, place, message)
    }

    fn slo(&self, place: Place, raw: RawSlo) -> Result<Slo, FileError> {
        let name = raw.name.value;
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || !name.chars().all(plain) {
            return Err(self
                .error(
                    raw.name.referenced.into(),
                    format!("{name:?} cannot name an SLO"),
                )
                .hint("use lower-case letters, digits and -, as in checkout-latency"));
        }
        let percent = raw.objective.value;
        if !(percent > 0.0 && percent < 100.0) {
            return Err(self
                .error(
                    raw.objective.referenced.into(),
                    format!("the objective {percent} is not a percentage"),
                )
                .hint("write a number between 0 and 100, both excluded, as in 99.9"));
        }
        let part = match (raw.good, raw.bad) {
            (Some(good), None) => Part::Good(self.query("good", good)?),
            (None, Some(bad)) => Part::Bad(self.query("bad", bad)?),
            (Some(_), Some(bad)) => {
                return Err(self.error(
                    bad.referenced.into(),
                    "only one of 'good' and 'bad' can be given",
                ));
            }
            (None, None) => {
                return Err(self
                    .error(place, format!("the SLO {name:?} needs 'good' or 'bad'"))
                    .hint("good: sum(increase(requests_total{status!~\"5..\"}[$window]))"));
            }
        };
        let (period, period_ms) = match raw.period {
            None => ("30d".to_owned(), 30 * 86_400_000),
            Some(p) => {
                let ms = model::duration::parse_ms(&p.value)
                    .map_err(|e| self.error(p.referenced.into(), e.to_string()))?;
                if ms <= 0 {
                    return Err(self.error(
                        p.referenced.into(),
                        "the period must be longer than nothing",
                    ));
                }
                (p.value, ms)
            }
        };
        let min_bad_events = match raw.min_bad_events {
            None => MIN_BAD_EVENTS,
            Some(m) if m.value >= 0.0 => m.value,
            Some(m) => {
                return Err(self.error(m.referenced.into(), "min_bad_events cannot be negative"));
            }
        };
        Ok(Slo {
            description: raw.description,
            objective: percent / 100.0,
            period,
            period_ms,
            events: Events {
                part,
                total: self.query("total", raw.total)?,
            },
            min_bad_events,
            page: self.severity(raw.page, "critical")?,
            ticket: self.severity(raw.ticket, "warning")?,
            runbook: raw.runbook,
            labels: raw
                .labels
                .unwrap_or_default()
                .0
                .into_iter()
                .map(|(k, v)| (k, v.value))
                .collect(),
            name,
        })
    }

    fn severity(
        &self,
        raw: Option<Spanned<String>>,
        default: &str,
    ) -> Result<Option<String>, FileError> {
        match raw {
            None => Ok(Some(default.to_owned())),
            Some(s) if s.value == "none" => Ok(None),
            Some(s) if matches!(s.value.as_str(), "critical" | "warning" | "info") => {
                Ok(Some(s.value))
            }
            Some(s) => Err(self
                .error(
                    s.referenced.into(),
                    format!("{:?} is not a severity", s.value),
                )
                .hint("write critical, warning, info, or none for no such alert")),
        }
    }

    /// A query with `$window` in it, checked with a window in its place.
    fn query(&self, key: &str, raw: Spanned<String>) -> Result<String, FileError> {
        let place = Place::from(raw.referenced);
        let text = raw.value.trim().to_owned();
        if !text.contains("$window") {
            return Err(self
                .error(place, format!("{key:?} does not use $window"))
                .hint("it counts events in a window: sum(increase(requests_total[$window]))"));
        }
        // As long as the word it replaces, so that places in the error are places in the file.
        let probe = text.replace("$window", "100000s");
        match promql::parse(&probe) {
            Ok(_) => Ok(text),
            Err(e) => {
                let place = locate::inside(self.text, place, &raw.value, e.span.start);
                let out = self.error(place, format!("could not parse {key:?}: {}", e.message));
                Err(match e.hint {
                    Some(hint) => out.hint(hint),
                    None => out,
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "slos:\n  - name: a\n    objective: 99.9\n    good: sum(increase(x{ok=\"1\"}[$window]))\n    total: sum(increase(x[$window]))\n";

    #[test]
    fn reads_with_defaults() {
        let file = parse("s.yaml", GOOD).unwrap();
        let slo = &file.slos[0];
        assert_eq!((slo.period_ms, slo.min_bad_events), (2_592_000_000, 5.0));
        assert!((slo.objective - 0.999).abs() < 1e-12);
        assert_eq!(slo.page.as_deref(), Some("critical"));
    }

    #[test]
    fn errors_have_places_and_hints() {
        for (from, to, want) in [
            (
                "objective",
                "objctive",
                "s.yaml:3:5: unknown key \"objctive\"",
            ),
            ("99.9", "100", "s.yaml:3:16: the objective 100"),
            (
                "[$window]))\n    total",
                "[5m]))\n    total",
                "s.yaml:4:11: \"good\" does not use $window",
            ),
            (
                "sum(increase(x[",
                "sum(incraese(x[",
                "s.yaml:5:16: could not parse \"total\"",
            ),
            (
                "    good",
                "    bad: sum(increase(y[$window]))\n    good",
                "only one of",
            ),
            ("name: a", "name: A b", "s.yaml:2:11:"),
            (
                "    total",
                "    page: loud\n    total",
                "is not a severity",
            ),
            (
                "    total",
                "    period: 30 days\n    total",
                "is not a duration",
            ),
        ] {
            let text = GOOD.replacen(from, to, 1);
            assert_ne!(text, GOOD);
            let error = parse("s.yaml", &text).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }
}

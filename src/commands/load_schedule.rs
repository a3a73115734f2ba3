//! The flags of `nines load rate` that say when requests are due.
//!
//! Owns those flags. Must not know how arrivals are computed.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use loadgen::{Model, Plan, Shape};
use model::duration;

use super::load::Common;
use crate::console::{note, read_file, usage};

/// When requests are due.
#[derive(Debug, ClapArgs)]
pub struct Schedule {
    /// Requests a second; also 50/1s, 3000/m
    #[arg(short = 'R', long, value_parser = per_second, required_unless_present = "replay")]
    rate: Option<f64>,

    /// Poisson arrivals instead of even spacing
    #[arg(long)]
    poisson: bool,

    /// End at this rate: a ramp
    #[arg(long, value_name = "RATE", conflicts_with_all = ["poisson", "steps", "spike", "sine", "replay"])]
    ramp_to: Option<f64>,

    /// So much more after each time: 50/10s climbs from --rate by 50 requests a second every 10 s
    #[arg(long, value_name = "BY/EVERY", conflicts_with_all = ["poisson", "spike", "sine", "replay"])]
    steps: Option<String>,

    /// Another rate for a while: 500@20s+5s is 500 requests a second from second 20 to 25
    #[arg(long, value_name = "RATE@AT+LENGTH", conflicts_with_all = ["poisson", "sine", "replay"])]
    spike: Option<String>,

    /// Swing about --rate: 80/30s is by 80 requests a second, once in 30 s
    #[arg(long, value_name = "BY/PERIOD", conflicts_with_all = ["poisson", "replay"])]
    sine: Option<String>,

    /// Send what this access log holds (common or combined format; GET and HEAD), when it came
    #[arg(long, value_name = "FILE", conflicts_with_all = ["rate", "poisson", "targets", "method", "headers", "body", "body_file", "url_weight", "warm_up"])]
    replay: Option<PathBuf>,

    /// So many times as fast
    #[arg(
        long,
        value_name = "FACTOR",
        default_value_t = 1.0,
        requires = "replay"
    )]
    speed: f64,
}

impl Schedule {
    /// Sets the plan's model, and for a replay its requests and length.
    pub fn apply(&self, plan: &mut Plan, common: &Common) -> anyhow::Result<()> {
        if let Some(path) = &self.replay {
            return self.replay(path, plan, common);
        }
        let rate = self.rate.unwrap_or_default();
        plan.model = if let Some(to) = self.ramp_to {
            Model::Ramp { from: rate, to }
        } else if let Some(text) = &self.steps {
            let (by, every) = number_and_time("--steps", text)?;
            Model::Shape(Shape::Steps {
                from: rate,
                by,
                every,
            })
        } else if let Some(text) = &self.sine {
            let (amplitude, period) = number_and_time("--sine", text)?;
            Model::Shape(Shape::Sine {
                mean: rate,
                amplitude,
                period,
            })
        } else if let Some(text) = &self.spike {
            spike(rate, text)?
        } else {
            Model::Rate {
                per_second: rate,
                poisson: self.poisson,
            }
        };
        Ok(())
    }

    fn replay(
        &self,
        path: &std::path::Path,
        plan: &mut Plan,
        common: &Common,
    ) -> anyhow::Result<()> {
        let (name, text) = read_file(path)?;
        let log = loadgen::targets::access_log(&text).map_err(|e| usage(format!("{name}: {e}")))?;
        for (count, what) in [
            (
                log.skipped_methods,
                "requests that are neither GET nor HEAD",
            ),
            (log.skipped_lines, "lines that are no log entries"),
        ] {
            if count > 0 {
                note(&format!("{name}: left out {count} {what}"));
            }
        }
        let last = log.entries.last().map(|(at, _)| *at).unwrap_or_default();
        if common.duration.is_none() && self.speed > 0.0 && self.speed.is_finite() {
            plan.duration = last.div_f64(self.speed) + Duration::from_millis(10);
        }
        plan.requests = log.requests;
        plan.recorded = log.entries;
        plan.model = Model::Replay { speed: self.speed };
        Ok(())
    }
}

/// Requests a second, from a number or vegeta's NUMBER/TIME.
pub(super) fn per_second(text: &str) -> Result<f64, String> {
    let wrong = || format!("{text:?} is no rate; write it as 50, 50/1s or 3000/m");
    let (number, span) = text.split_once('/').unwrap_or((text, "1s"));
    let number: f64 = number.trim().parse().map_err(|_| wrong())?;
    // A unit alone is one of it.
    let span = if span.starts_with(|c: char| c.is_ascii_digit()) {
        span.to_owned()
    } else {
        format!("1{span}")
    };
    let ms = duration::parse_ms(&span).map_err(|_| wrong())?;
    if ms <= 0 {
        return Err(wrong());
    }
    Ok(number * 1e3 / ms as f64)
}

fn time(flag: &str, text: &str) -> anyhow::Result<Duration> {
    let ms = duration::parse_ms(text).map_err(|e| usage(format!("{flag}: {e}")))?;
    Ok(Duration::from_millis(ms.unsigned_abs()))
}

fn number_and_time(flag: &str, text: &str) -> anyhow::Result<(f64, Duration)> {
    let parts = text.split_once('/');
    let Some((number, span)) = parts.and_then(|(n, t)| Some((n.parse().ok()?, t))) else {
        return Err(usage(format!("{flag} {text:?} is not such as 50/10s")));
    };
    Ok((number, time(flag, span)?))
}

fn spike(base: f64, text: &str) -> anyhow::Result<Model> {
    let parts = text
        .split_once('@')
        .and_then(|(peak, rest)| Some((peak.parse().ok()?, rest.split_once('+')?)));
    let Some((peak, (at, length))) = parts else {
        return Err(usage(format!("--spike {text:?} is not such as 500@20s+5s")));
    };
    Ok(Model::Shape(Shape::Spike {
        base,
        peak,
        at: time("--spike", at)?,
        length: time("--spike", length)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_as_vegeta_writes_them() {
        for (text, rate) in [
            ("50", 50.0),
            ("50/1s", 50.0),
            ("3000/m", 50.0),
            ("1/2s", 0.5),
        ] {
            assert_eq!(per_second(text), Ok(rate), "{text}");
        }
        for text in ["", "x", "5/", "5/0s", "5/x", "/s"] {
            assert!(per_second(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shapes_are_read() {
        let s = Duration::from_secs;
        let read = spike(5.0, "500@20s+5s").unwrap();
        let expected = Shape::Spike {
            base: 5.0,
            peak: 500.0,
            at: s(20),
            length: s(5),
        };
        assert_eq!(read, Model::Shape(expected));
        assert_eq!(
            number_and_time("--steps", "-50/1m").unwrap(),
            (-50.0, s(60))
        );
        for text in ["", "5", "x/1s", "5/x"] {
            assert!(number_and_time("--sine", text).is_err());
        }
        assert!(spike(1.0, "5@1s").is_err());
    }
}

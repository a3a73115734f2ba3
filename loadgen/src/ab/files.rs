//! Owns the files of `-e` (CSV of percentiles) and `-g` (a line for each request).
//! Must not know sockets.

use std::fmt::Write;

use super::column::whole_ms;
use super::tally::{Sample, Tally};
use super::{AbError, Options, os_text};

/// Writes what was asked for; nothing when no request ended.
pub(super) fn write(options: &Options, tally: &Tally) -> Result<(), AbError> {
    if tally.done == 0 || options.html.is_some() {
        return Ok(());
    }
    let put = |path: &str, kind: &str, text: String| {
        std::fs::write(path, text).map_err(|e| {
            AbError::new(
                1,
                format!("Cannot open {kind} output file: {}\n", os_text(&e)),
            )
        })
    };
    if let Some(path) = &options.csv_file {
        put(path, "CSV", csv(tally))?;
    }
    if let (Some(path), Some(samples)) = (&options.gnuplot_file, &tally.samples) {
        put(path, "gnuplot", gnuplot(samples))?;
    }
    Ok(())
}

/// The time within which each percentage from 0 to 100 was served, in ms.
pub(super) fn csv(tally: &Tally) -> String {
    let mut out = "Percentage served,Time in ms\n".to_owned();
    for percent in 0..=100_u64 {
        let place = (0.5 + tally.done as f64 * percent as f64 / 100.0) as u64;
        let us = match percent {
            0 => tally.total.least(),
            _ => tally.total.at(place),
        };
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{percent},{:.3}", us as f64 / 1e3);
    }
    out
}

/// One tab-separated line per request, fastest first; times in whole ms.
pub(super) fn gnuplot(samples: &[Sample]) -> String {
    let mut out = "starttime\tseconds\tctime\tdtime\tttime\twait\n".to_owned();
    let mut samples = samples.to_vec();
    samples.sort_by_key(|s| s.total);
    let ms = |us: u32| whole_ms(u64::from(us));
    for s in &samples {
        let seconds = s.started.as_secs();
        let _ = writeln!(
            out,
            "{}\t{seconds}\t{}\t{}\t{}\t{}",
            clock_text(seconds),
            ms(s.connect),
            ms(s.total.saturating_sub(s.connect)),
            ms(s.total),
            ms(s.waiting)
        );
    }
    out
}

/// C's `ctime` in UTC: `Sat Nov 21 06:24:33 2026`.
fn clock_text(seconds: u64) -> String {
    let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let ms = i64::try_from(seconds).unwrap_or(0).saturating_mul(1000);
    let c = model::timestamp::civil_from_ms(ms);
    let day = days[c.weekday as usize % 7];
    let month = months[(c.month as usize).saturating_sub(1) % 12];
    format!(
        "{day} {month} {:02} {:02}:{:02}:{:02} {}",
        c.day, c.hour, c.minute, c.second, c.year
    )
}

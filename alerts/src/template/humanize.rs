//! Numbers for people, exactly as Prometheus' template functions write them.
//!
//! Owns `humanize*`. Must not know templates. Source: `template/template.go` of prometheus/prometheus.

use super::printf::general;

const SMALL: [&str; 8] = ["m", "u", "n", "p", "f", "a", "z", "y"];

fn g4(v: f64) -> String {
    general(v, Some(4))
}

fn is_plain(v: f64) -> bool {
    v == 0.0 || !v.is_finite()
}

/// Four significant digits with a metric prefix: `1.235M`.
#[must_use]
pub fn humanize(v: f64) -> String {
    if is_plain(v) {
        return g4(v);
    }
    if v.abs() >= 1.0 {
        return with_prefix(v, 1000.0, ["", "k", "M", "G", "T", "P", "E", "Z", "Y"]);
    }
    let (value, prefix) = shrink(v);
    format!("{}{prefix}", g4(value))
}

/// Four significant digits with a binary prefix: `2ki`.
#[must_use]
pub(super) fn humanize_1024(v: f64) -> String {
    if v.abs() <= 1.0 || !v.is_finite() {
        return g4(v);
    }
    with_prefix(
        v,
        1024.0,
        ["", "ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi", "Yi"],
    )
}

fn with_prefix(v: f64, base: f64, prefixes: [&str; 9]) -> String {
    let (mut value, mut prefix) = (v, "");
    for p in prefixes {
        prefix = p;
        if value.abs() < base {
            break;
        }
        if p != prefixes[8] {
            value /= base;
        }
    }
    format!("{}{prefix}", g4(value))
}

fn shrink(v: f64) -> (f64, &'static str) {
    let (mut value, mut prefix) = (v, "");
    for p in SMALL {
        if value.abs() >= 1.0 {
            break;
        }
        prefix = p;
        value *= 1000.0;
    }
    (value, prefix)
}

/// Seconds for people: `1h 1m 1s`, `12.3ms`.
#[must_use]
pub fn humanize_duration(v: f64) -> String {
    if !v.is_finite() {
        return g4(v);
    }
    if v == 0.0 {
        return format!("{}s", g4(v));
    }
    if v.abs() < 1.0 {
        let (value, prefix) = shrink(v);
        return format!("{}{prefix}s", g4(value));
    }
    let sign = if v < 0.0 { "-" } else { "" };
    let whole = v.abs() as u64;
    let (seconds, minutes) = (whole % 60, whole / 60 % 60);
    let (hours, days) = (whole / 3_600 % 24, whole / 86_400);
    if days != 0 {
        format!("{sign}{days}d {hours}h {minutes}m {seconds}s")
    } else if hours != 0 {
        format!("{sign}{hours}h {minutes}m {seconds}s")
    } else if minutes != 0 {
        format!("{sign}{minutes}m {seconds}s")
    } else {
        format!("{sign}{}s", g4(v.abs()))
    }
}

/// A ratio as a percentage with four significant digits: `5.123%`.
#[must_use]
pub fn humanize_percentage(v: f64) -> String {
    format!("{}%", g4(v * 100.0))
}

/// Unix seconds as Go prints a time in UTC.
#[must_use]
pub(super) fn humanize_timestamp(seconds: f64) -> String {
    if !seconds.is_finite() {
        return g4(seconds);
    }
    let t_ms = (seconds * 1000.0).round() as i64;
    let c = model::timestamp::civil_from_ms(t_ms);
    let fraction = if c.millis == 0 {
        String::new()
    } else {
        format!(".{:03}", c.millis).trim_end_matches('0').to_owned()
    };
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}{fraction} +0000 UTC",
        c.year, c.month, c.day, c.hour, c.minute, c.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The cases of Prometheus' `template/template_test.go`.
    #[test]
    fn agrees_with_prometheus() {
        for (v, want) in [
            (0.0, "0"),
            (1.0, "1"),
            (1_234_567.0, "1.235M"),
            (0.12, "120m"),
            (-12_345.0, "-12.35k"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(humanize(v), want);
        }
        for (v, want) in [(0.0, "0"), (1.0, "1"), (1_048_576.0, "1Mi"), (0.12, "0.12")] {
            assert_eq!(humanize_1024(v), want);
        }
        for (v, want) in [
            (0.0, "0s"),
            (1.0, "1s"),
            (60.0, "1m 0s"),
            (3_600.0, "1h 0m 0s"),
            (86_400.0, "1d 0h 0m 0s"),
            (86_400.0 + 3_600.0, "1d 1h 0m 0s"),
            (-86_523.0, "-1d 0h 2m 3s"),
            (899.99, "14m 59s"),
            (0.1, "100ms"),
            (0.0001, "100us"),
            (0.12345, "123.5ms"),
            (60.1, "1m 0s"),
            (12.345, "12.35s"),
        ] {
            assert_eq!(humanize_duration(v), want, "{v}");
        }
        for (v, want) in [(0.0, "0%"), (0.1, "10%"), (0.1234, "12.34%"), (1.0, "100%")] {
            assert_eq!(humanize_percentage(v), want);
        }
        assert_eq!(
            humanize_timestamp(1_435_065_584.128),
            "2015-06-23 13:19:44.128 +0000 UTC"
        );
    }
}

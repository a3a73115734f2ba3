//! Prometheus durations: `5m`, `1h30m`, `500ms`.
//!
//! Owns parsing and printing of that syntax. Must not know clocks or sleeping.

/// Units from the longest to the shortest, with their length in milliseconds.
const UNITS: [(&str, i64); 7] = [
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a duration; write a number with a unit (ms, s, m, h, d, w, y), as in 5m or 1h30m"
)]
pub struct InvalidDuration {
    /// The text as written.
    pub text: String,
}

/// Reads a Prometheus duration into milliseconds. Units must descend, each at most once; `0` needs no unit.
/// Errors on anything else, and on more than `i64` milliseconds hold.
pub fn parse_ms(text: &str) -> Result<i64, InvalidDuration> {
    let invalid = || InvalidDuration {
        text: text.to_owned(),
    };
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total = 0i64;
    let mut next_unit = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: i64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let letters = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let at = UNITS
            .iter()
            .position(|(u, _)| *u == &rest[..letters])
            .ok_or_else(invalid)?;
        if at < next_unit {
            return Err(invalid());
        }
        next_unit = at + 1;
        rest = &rest[letters..];
        total = number
            .checked_mul(UNITS[at].1)
            .and_then(|ms| total.checked_add(ms))
            .ok_or_else(invalid)?;
    }
    if next_unit == 0 {
        Err(invalid())
    } else {
        Ok(total)
    }
}

/// Writes milliseconds as Prometheus does: `1h30m`, `0s` for nothing; years, weeks and days only when exact.
#[must_use]
pub fn format_ms(ms: i64) -> String {
    if ms == 0 {
        return "0s".into();
    }
    let mut out = String::new();
    if ms < 0 {
        out.push('-');
    }
    let mut rest = ms.unsigned_abs();
    for (unit, length) in UNITS {
        let length = length.unsigned_abs();
        let exact_only = matches!(unit, "y" | "w" | "d");
        if rest < length || (exact_only && !rest.is_multiple_of(length)) {
            continue;
        }
        out.push_str(&format!("{}{unit}", rest / length));
        rest %= length;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_what_prometheus_reads() {
        for (text, ms) in [
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("0", 0),
            ("100ms", 100),
            ("1d", 86_400_000),
            ("1y2w3d4h5m6s7ms", 33_019_506_007),
        ] {
            assert_eq!(parse_ms(text), Ok(ms), "{text}");
        }
        for text in [
            "",
            "5",
            "m",
            "1m1h",
            "1s1s",
            "1.5h",
            "-1s",
            "5M",
            "99999999999999y",
        ] {
            assert!(parse_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn writes_what_prometheus_writes() {
        for (ms, text) in [
            (0, "0s"),
            (5_400_000, "1h30m"),
            (86_400_000, "1d"),
            (90_000_000, "25h"),
            (1_500, "1s500ms"),
        ] {
            assert_eq!(format_ms(ms), text);
        }
    }

    proptest! {
        #[test]
        fn round_trips(ms in 0i64..10_000_000_000_000) {
            prop_assert_eq!(parse_ms(&format_ms(ms)), Ok(ms));
        }
    }
}

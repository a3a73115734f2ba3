//! Civil time from and to Unix time, UTC only: RFC 3339 and its parts.
//!
//! Owns calendar arithmetic (proleptic Gregorian, Howard Hinnant's `days_from_civil`). Must not know the system clock.

/// A UTC instant in parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Civil {
    /// Year.
    pub year: i64,
    /// Month, 1 to 12.
    pub month: u32,
    /// Day of the month, 1 to 31.
    pub day: u32,
    /// Hour, 0 to 23.
    pub hour: u32,
    /// Minute, 0 to 59.
    pub minute: u32,
    /// Second, 0 to 59.
    pub second: u32,
    /// Millisecond, 0 to 999.
    pub millis: u32,
    /// Day of the week, 0 for Sunday.
    pub weekday: u32,
    /// Day of the year, from 1.
    pub year_day: u32,
}

/// Days from 1970-01-01 to a civil date.
fn days_from_civil(year: i64, month: u32, day: u32) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let yoe = y.rem_euclid(400);
    let shifted = i64::from((month + 9) % 12);
    let doy = (153 * shifted + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468
}

/// Splits Unix milliseconds into UTC parts.
#[must_use]
pub fn civil_from_ms(t_ms: i64) -> Civil {
    let days = t_ms.div_euclid(86_400_000);
    let in_day = u32::try_from(t_ms.rem_euclid(86_400_000)).unwrap_or(0);
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = u32::try_from(doy - (153 * mp + 2) / 5 + 1).unwrap_or(1);
    let month = u32::try_from(if mp < 10 { mp + 3 } else { mp - 9 }).unwrap_or(1);
    let year = yoe + era * 400 + i64::from(month <= 2);
    Civil {
        year,
        month,
        day,
        hour: in_day / 3_600_000,
        minute: in_day / 60_000 % 60,
        second: in_day / 1_000 % 60,
        millis: in_day % 1_000,
        weekday: u32::try_from((days + 4).rem_euclid(7)).unwrap_or(0),
        year_day: u32::try_from(days - days_from_civil(year, 1, 1) + 1).unwrap_or(1),
    }
}

/// Days in a month.
#[must_use]
pub fn days_in_month(year: i64, month: u32) -> u32 {
    let (next_year, next_month) = if month == 12 {
        (year + 1, 1)
    } else {
        (year, month + 1)
    };
    u32::try_from(days_from_civil(next_year, next_month, 1) - days_from_civil(year, month, 1))
        .unwrap_or(30)
}

/// RFC 3339 in UTC with milliseconds: `2026-11-20T20:36:26.120Z`.
#[must_use]
pub fn format_rfc3339(t_ms: i64) -> String {
    let c = civil_from_ms(t_ms);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        c.year, c.month, c.day, c.hour, c.minute, c.second, c.millis
    )
}

/// The time of day in UTC: `20:36:26`.
#[must_use]
pub fn format_clock(t_ms: i64) -> String {
    let c = civil_from_ms(t_ms);
    format!("{:02}:{:02}:{:02}", c.hour, c.minute, c.second)
}

/// Reads RFC 3339 (`Z` or a numeric offset, fraction optional) into Unix milliseconds; `None` when it is not that.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| part.parse().ok())?
    };
    let is = |at: usize, any: &str| text.get(at..=at).is_some_and(|c| any.contains(c));
    if !(is(4, "-") && is(7, "-") && is(10, "Tt ") && is(13, ":") && is(16, ":")) {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let month = u32::try_from(month).ok().filter(|m| (1..=12).contains(m))?;
    let day = u32::try_from(day)
        .ok()
        .filter(|d| (1..=days_in_month(year, month)).contains(d))?;
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut millis = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return None;
        }
        let padded: String = fraction[..digits]
            .chars()
            .chain("000".chars())
            .take(3)
            .collect();
        millis = padded.parse().ok()?;
        rest = &fraction[digits..];
    }
    let offset_minutes = parse_offset(rest)?;
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    Some((seconds - offset_minutes * 60) * 1_000 + millis)
}

fn parse_offset(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let sign = match text.get(..1)? {
        "+" => 1,
        "-" => -1,
        _ => return None,
    };
    let (hours, minutes) = (text.get(1..3)?, text.get(4..)?);
    if text.get(3..4)? != ":" || minutes.len() != 2 {
        return None;
    }
    Some(sign * (hours.parse::<i64>().ok()? * 60 + minutes.parse::<i64>().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_instants() {
        assert_eq!(format_rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(format_rfc3339(951_782_400_123), "2000-02-29T00:00:00.123Z");
        assert_eq!(
            parse_rfc3339("2026-11-20T20:36:26Z"),
            Some(1_795_206_986_000)
        );
        assert_eq!(
            parse_rfc3339("2026-11-20T21:36:26.5+01:00"),
            Some(1_795_206_986_500)
        );
        assert_eq!(civil_from_ms(0).weekday, 4);
        assert_eq!(civil_from_ms(951_782_400_000).year_day, 60);
        assert_eq!(
            (
                days_in_month(2024, 2),
                days_in_month(2023, 2),
                days_in_month(2023, 12)
            ),
            (29, 28, 31)
        );
    }

    #[test]
    fn refuses_what_is_not_rfc3339() {
        for text in [
            "",
            "2026-11-20",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-11-20T20:36:26",
            "2026-11-20T20:36:26.Z",
            "é026-11-20T20:36:26Z",
        ] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn round_trips(t_ms in -62_000_000_000_000i64..250_000_000_000_000) {
            prop_assert_eq!(parse_rfc3339(&format_rfc3339(t_ms)), Some(t_ms));
        }
    }
}

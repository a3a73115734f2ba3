//! How long to wait before the next attempt.
//!
//! Owns exponential backoff with full jitter and the reading of Retry-After. Pure: the dice are an argument.
//! Source: AWS Architecture Blog, "Exponential Backoff And Jitter" (2015), the "full jitter" variant.

/// The longest Retry-After that is obeyed, milliseconds.
const RETRY_AFTER_MAX_MS: i64 = 3_600_000;

/// Milliseconds to wait after the `attempt`-th failure (from 1). `dice` is in 0..1.
pub(super) fn full_jitter(attempt: u32, min_ms: i64, max_ms: i64, dice: f64) -> i64 {
    let doublings = attempt.saturating_sub(1).min(30);
    let ceiling = min_ms.saturating_mul(1 << doublings).min(max_ms).max(1);
    (dice.clamp(0.0, 1.0) * ceiling as f64) as i64
}

/// Milliseconds to wait when the receiver said how long: never less, at most a tenth more.
pub(super) fn obey(retry_after_ms: i64, dice: f64) -> i64 {
    let ms = retry_after_ms.clamp(0, RETRY_AFTER_MAX_MS);
    ms + (ms as f64 * 0.1 * dice.clamp(0.0, 1.0)) as i64
}

/// Reads a Retry-After header: seconds, or an HTTP date relative to `now_ms`.
pub(super) fn retry_after_ms(header: &str, now_ms: i64) -> Option<i64> {
    let header = header.trim();
    if let Ok(seconds) = header.parse::<u32>() {
        return Some(i64::from(seconds) * 1000);
    }
    // IMF-fixdate: `Sun, 06 Nov 1994 08:49:37 GMT`.
    let parts: Vec<&str> = header.split_ascii_whitespace().collect();
    let [_, day, month, year, clock, "GMT"] = parts.as_slice() else {
        return None;
    };
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = MONTHS.iter().position(|m| m == month)? + 1;
    let at = model::timestamp::parse_rfc3339(&format!("{year}-{month:02}-{day:0>2}T{clock}Z"))?;
    Some((at - now_ms).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_the_ceiling() {
        let longest: Vec<i64> = (1..6).map(|n| full_jitter(n, 1_000, 6_000, 1.0)).collect();
        assert_eq!(longest, [1_000, 2_000, 4_000, 6_000, 6_000]);
        assert_eq!(full_jitter(3, 1_000, 6_000, 0.0), 0);
        assert_eq!(full_jitter(u32::MAX, 1_000, 6_000, 0.5), 3_000);
    }

    #[test]
    fn obeys_retry_after() {
        assert_eq!(retry_after_ms("120", 0), Some(120_000));
        let date = "Fri, 20 Nov 2026 20:36:36 GMT";
        assert_eq!(retry_after_ms(date, 1_795_206_986_000), Some(10_000));
        assert_eq!(retry_after_ms("soon", 0), None);
        assert_eq!((obey(10_000, 0.0), obey(10_000, 1.0)), (10_000, 11_000));
        assert_eq!(obey(i64::MAX, 0.0), RETRY_AFTER_MAX_MS);
    }
}

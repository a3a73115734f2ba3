//! The arithmetic of error budgets, as pure functions.
//!
//! Owns formulas. Must not know PromQL. Source: Google, The Site Reliability Workbook, chapter 5 "Alerting on SLOs"
//! (table 5-8), <https://sre.google/workbook/alerting-on-slos/>.
//!
//! Ratios are in 0..=1, times in milliseconds, burn rate 1.0 spends the budget exactly over the period.

/// One pair of windows of a burn-rate alert.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BurnWindow {
    /// Burn rate above which both windows must be.
    pub rate: f64,
    /// The long window, milliseconds.
    pub long_ms: i64,
    /// The short window, milliseconds: the alert ends soon after the burn does.
    pub short_ms: i64,
}

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// Fast burns, which page: 2 % of a 30-day budget in 1 h, 5 % in 6 h.
pub const PAGE: [BurnWindow; 2] = [
    BurnWindow {
        rate: 14.4,
        long_ms: HOUR,
        short_ms: 5 * MINUTE,
    },
    BurnWindow {
        rate: 6.0,
        long_ms: 6 * HOUR,
        short_ms: 30 * MINUTE,
    },
];

/// Slow burns, which make a ticket: 10 % of a 30-day budget in 1 d, 10 % in 3 d.
pub const TICKET: [BurnWindow; 2] = [
    BurnWindow {
        rate: 3.0,
        long_ms: DAY,
        short_ms: 2 * HOUR,
    },
    BurnWindow {
        rate: 1.0,
        long_ms: 3 * DAY,
        short_ms: 6 * HOUR,
    },
];

/// Every window that is recorded, shortest first.
pub const WINDOWS_MS: [i64; 7] = [
    5 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    6 * HOUR,
    DAY,
    3 * DAY,
];

/// The share of events that may be bad.
#[must_use]
pub fn budget_ratio(objective: f64) -> f64 {
    1.0 - objective
}

/// How fast the budget goes at this error ratio. Infinite when the objective leaves no budget and something is bad.
#[must_use]
pub fn burn_rate(error_ratio: f64, objective: f64) -> f64 {
    if error_ratio == 0.0 {
        0.0
    } else {
        error_ratio / budget_ratio(objective)
    }
}

/// The share of the budget left after a period with this error ratio; negative when overspent.
#[must_use]
pub fn budget_left(error_ratio: f64, objective: f64) -> f64 {
    1.0 - burn_rate(error_ratio, objective)
}

/// The error ratio at which a window pair alerts.
#[must_use]
pub fn threshold(rate: f64, objective: f64) -> f64 {
    rate * budget_ratio(objective)
}

/// The burn rate that spends `share` of the budget within `window_ms`.
#[must_use]
pub fn rate_for(share: f64, window_ms: i64, period_ms: i64) -> f64 {
    share * period_ms as f64 / window_ms as f64
}

/// The share of the budget that a burn rate spends in `window_ms`.
#[must_use]
pub fn share_spent(rate: f64, window_ms: i64, period_ms: i64) -> f64 {
    rate * window_ms as f64 / period_ms as f64
}

/// Milliseconds until what is left is spent at this burn rate; `None` when the budget does not shrink, 0 when it is
/// spent already.
#[must_use]
pub fn empty_in_ms(left: f64, rate: f64, period_ms: i64) -> Option<i64> {
    if left <= 0.0 {
        return Some(0);
    }
    if rate.is_nan() || rate <= 0.0 {
        return None;
    }
    let ms = left / rate * period_ms as f64;
    (ms < i64::MAX as f64).then_some(ms as i64)
}

/// Full outage time that the budget allows in a period, milliseconds: 99.9 % of 30 d is 43.2 min.
#[must_use]
pub fn outage_budget_ms(objective: f64, period_ms: i64) -> i64 {
    (budget_ratio(objective) * period_ms as f64).round() as i64
}

/// How long a constant error ratio, after a clean time, lasts before a window pair alerts: the long window must hold
/// `threshold / error_ratio` of errors. `None` when it never does.
#[must_use]
pub fn detection_ms(window: &BurnWindow, error_ratio: f64, objective: f64) -> Option<i64> {
    let needed = threshold(window.rate, objective);
    if error_ratio <= needed {
        return None;
    }
    let share = needed / error_ratio;
    Some((share * window.long_ms.max(window.short_ms) as f64).round() as i64)
}

/// The share of the budget gone when a constant error ratio is detected.
#[must_use]
pub fn spent_at_detection(
    window: &BurnWindow,
    error_ratio: f64,
    objective: f64,
    period_ms: i64,
) -> Option<f64> {
    let ms = detection_ms(window, error_ratio, objective)?;
    Some(share_spent(
        burn_rate(error_ratio, objective),
        ms,
        period_ms,
    ))
}

/// Health checks: the shortest and the longest time from a failure to the verdict, milliseconds, when a check runs
/// every `every_ms`, `fall` failures in a row decide, and a failing check takes up to `timeout_ms`.
#[must_use]
pub fn probe_detection_ms(every_ms: i64, fall: u32, timeout_ms: i64) -> (i64, i64) {
    let fall = i64::from(fall.max(1));
    ((fall - 1) * every_ms, fall * every_ms + timeout_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PERIOD: i64 = 30 * DAY;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
    }

    #[test]
    fn the_workbooks_table() {
        for (window, share) in PAGE.iter().chain(&TICKET).zip([0.02, 0.05, 0.1, 0.1]) {
            assert!(close(rate_for(share, window.long_ms, PERIOD), window.rate));
            assert!(close(
                share_spent(window.rate, window.long_ms, PERIOD),
                share
            ));
            assert_eq!(window.long_ms, window.short_ms * 12);
        }
        assert!(close(threshold(14.4, 0.999), 0.0144));
    }

    #[test]
    fn the_gap_that_burn_rates_close() {
        // 99.9 % of 30 d allow 43.2 min of full outage.
        assert_eq!(outage_budget_ms(0.999, PERIOD), 2_592_000);
        // 5 % errors burn 50 times; at 0.9 % the budget is gone in 3.3 days and neither 1 % nor 5 % rules see it.
        assert!(close(burn_rate(0.05, 0.999), 50.0));
        let days = empty_in_ms(1.0, burn_rate(0.009, 0.999), PERIOD).unwrap() as f64 / DAY as f64;
        assert!((days - 3.333).abs() < 0.001, "{days}");
        assert!((detection_ms(&PAGE[1], 0.009, 0.999).unwrap() - 4 * HOUR).abs() < 1_000);
        // A full outage is seen by the fast window in under a minute.
        assert_eq!(detection_ms(&PAGE[0], 1.0, 0.999), Some(51_840));
        assert_eq!(detection_ms(&PAGE[0], 0.0144, 0.999), None);
    }

    #[test]
    fn probes() {
        // 2 checks of 10 s with 1 s timeout: 10 s to 21 s.
        assert_eq!(probe_detection_ms(10_000, 2, 1_000), (10_000, 21_000));
    }

    #[test]
    fn edges() {
        assert_eq!(burn_rate(0.0, 1.0), 0.0);
        assert_eq!(empty_in_ms(0.5, 0.0, PERIOD), None);
        assert_eq!(empty_in_ms(0.5, f64::NAN, PERIOD), None);
        assert_eq!(empty_in_ms(-0.1, 2.0, PERIOD), Some(0));
    }

    proptest! {
        #[test]
        fn budget_and_burn_agree(error in 0.0f64..1.0, objective in 0.5f64..0.9999) {
            let left = budget_left(error, objective);
            prop_assert!(left <= 1.0);
            prop_assert!(close(left + burn_rate(error, objective), 1.0));
            prop_assert_eq!(left < 0.0, error > budget_ratio(objective));
        }

        /// Burning at the rate until the predicted time spends exactly what is left.
        #[test]
        fn time_to_empty_spends_the_rest(left in 0.01f64..1.0, rate in 0.01f64..100.0) {
            let ms = empty_in_ms(left, rate, PERIOD).unwrap();
            prop_assert!((share_spent(rate, ms, PERIOD) - left).abs() < 1e-6);
        }

        /// More errors are never detected later, and never beyond the long window.
        #[test]
        fn detection_is_monotonic(a in 0.0f64..1.0, b in 0.0f64..1.0, objective in 0.9f64..0.9999) {
            let (low, high) = if a < b { (a, b) } else { (b, a) };
            for window in PAGE.iter().chain(&TICKET) {
                if let Some(slow) = detection_ms(window, low, objective) {
                    let fast = detection_ms(window, high, objective).unwrap();
                    prop_assert!(fast <= slow && slow <= window.long_ms);
                }
            }
        }
    }
}

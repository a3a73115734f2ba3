//! Parts of a date, UTC.
//!
//! Owns the functions from a Unix time to a part of its date. Must not know series.

use model::timestamp::{Civil, civil_from_ms, days_in_month};

/// The part of a Unix time (seconds) that function `name` gives.
pub(crate) fn part(name: &str, seconds: f64) -> f64 {
    let civil: Civil = civil_from_ms((seconds as i64).saturating_mul(1000));
    match name {
        "year" => civil.year as f64,
        "month" => f64::from(civil.month),
        "day_of_month" => f64::from(civil.day),
        "day_of_week" => f64::from(civil.weekday),
        "day_of_year" => f64::from(civil.year_day),
        "days_in_month" => f64::from(days_in_month(civil.year, civil.month)),
        "hour" => f64::from(civil.hour),
        _ => f64::from(civil.minute),
    }
}

/// Whether `name` is such a function.
pub(crate) fn is_date_function(name: &str) -> bool {
    matches!(
        name,
        "year"
            | "month"
            | "day_of_month"
            | "day_of_week"
            | "day_of_year"
            | "days_in_month"
            | "hour"
            | "minute"
    )
}

//! Owns Student's distribution: how likely so large a t is, and which t 5 % exceed. Pure.

use crate::beta::incomplete_beta;

/// Chance of |T| >= |t| under Student's distribution with so many degrees of freedom.
pub(super) fn two_sided(t: f64, freedom: f64) -> f64 {
    incomplete_beta(freedom / 2.0, 0.5, freedom / (freedom + t * t))
}

/// The t of which 5 % lie beyond on both sides.
pub(super) fn critical(freedom: f64) -> f64 {
    let (mut low, mut high) = (1.0, 200.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if two_sided(middle, freedom) > 0.05 {
            low = middle;
        } else {
            high = middle;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn student_matches_the_tables() {
        for (freedom, t) in [
            (2.0, 4.302_65),
            (6.0, 2.446_91),
            (22.0, 2.073_87),
            (1000.0, 1.962_34),
        ] {
            assert!((critical(freedom) - t).abs() < 1e-4, "{freedom}");
        }
    }
}

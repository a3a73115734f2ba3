//! Exponential backoff with full jitter, as a pure function of the attempt and a random number.
//! Must not know any clock.

use crate::settings;

/// Wait before try number `attempt` (2 = the first retry), in ms. `random` is in 0..1; `None` gives the whole
/// step (no jitter). The exponent is `attempt - 2`: the seed's printed table (1, 2, 4, 8) needs it.
pub fn wait_ms(config: &settings::Retry, attempt: u32, random: Option<f64>) -> u64 {
    let step = config
        .base_ms
        .saturating_mul(1 << attempt.saturating_sub(2).min(30))
        .min(config.cap_ms);
    match random {
        Some(r) => (step as f64 * r.clamp(0.0, 1.0)) as u64,
        None => step,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap_and_jitter_stays_below_the_step() {
        let c = settings::Retry {
            attempts: 5,
            base_ms: 1000,
            cap_ms: 8000,
        };
        let waits: Vec<u64> = (2..8).map(|a| wait_ms(&c, a, None)).collect();
        assert_eq!(waits, [1000, 2000, 4000, 8000, 8000, 8000]);
        assert_eq!(wait_ms(&c, 3, Some(0.25)), 500);
        assert_eq!(wait_ms(&c, 4_000_000, None), 8000);
    }
}

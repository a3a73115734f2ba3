//! Owns how much before an instant a wait for it must end. A timer wakes a thread some ten microseconds late, and about
//! equally late each time: who asks for it that much earlier is on time, and spins for the few microseconds that are
//! left. Reads no clock.

use std::time::Duration;

/// Never ask for more: longer delays are a busy machine's, not the timer's.
const MOST: Duration = Duration::from_micros(60);

/// What is known of the delay.
#[derive(Debug, Default)]
pub(super) struct Early {
    ahead: Duration,
}

impl Early {
    /// How long to wait when something is due after `left`. What is nearer than the delay is waited for as it is, lest
    /// a quick schedule make the thread spin all the time; `woken` when the last wait was for it.
    pub(super) fn shorten(&self, left: Duration, woken: bool) -> Duration {
        if left <= self.ahead && !woken {
            return left;
        }
        left.saturating_sub(self.ahead)
    }

    /// A wait of `wait` ended so long after the instant it was to end at. The estimate settles where one in five is
    /// shorter.
    pub(super) fn observe(&mut self, late: Duration, wait: Duration) {
        if wait.is_zero() {
            return;
        }
        if late < self.ahead {
            self.ahead -= (self.ahead - late).min(MOST) / 8;
        } else {
            self.ahead = (self.ahead + (late - self.ahead).min(MOST) / 32).min(MOST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_settles_near_the_shortest_delays() {
        let us = Duration::from_micros;
        let mut early = Early::default();
        assert_eq!(early.shorten(us(100), false), us(100));
        for i in 0..1000_u64 {
            // 30 to 49 us, now and then a millisecond.
            let late = if i % 50 == 0 { 1000 } else { 30 + i * 7 % 20 };
            early.observe(us(late), us(500));
        }
        let ahead = us(100) - early.shorten(us(100), false);
        assert!((us(30)..us(42)).contains(&ahead), "{ahead:?}");
        early.observe(us(0), us(0));
        assert_eq!(us(100) - early.shorten(us(100), true), ahead);
        assert_eq!(
            (early.shorten(us(20), true), early.shorten(us(20), false)),
            (us(0), us(20))
        );
        (0..1000).for_each(|_| early.observe(us(5000), us(500)));
        assert_eq!(us(100) - early.shorten(us(100), false), MOST);
    }
}

//! Owns the thread that releases requests when they are due: it sleeps between arrivals, spins the last microseconds,
//! and measures its own lateness. Knows nothing of HTTP.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio_util::sync::CancellationToken;

use crate::schedule::Schedule;
use crate::stats::{histogram, micros};

/// The longest sleep between looks at the stop token.
const NAP: Duration = Duration::from_millis(20);
/// How far before the due instant to wake; kept above what the kernel's timers usually overshoot.
const EARLY: Duration = Duration::from_micros(70);

/// What the pacer did.
pub(crate) struct Paced {
    /// Arrivals released, warm-up included.
    pub(crate) released: u64,
    /// Of those, the ones due in the measured part.
    pub(crate) measured: u64,
    /// Release minus due, measured part, microseconds.
    pub(crate) late: Histogram<u64>,
    /// True when it was stopped before the schedule's end.
    pub(crate) stopped: bool,
}

/// Calls `release(n)` as each batch of `n` arrivals falls due, until the schedule's end or a stop. Blocks its thread.
pub(crate) fn pace(
    schedule: &Schedule,
    start: Instant,
    warm_up: Duration,
    stop: &CancellationToken,
    mut release: impl FnMut(usize),
) -> Paced {
    let mut paced = Paced {
        released: 0,
        measured: 0,
        late: histogram(),
        stopped: false,
    };
    let mut arrivals = schedule.arrivals().peekable();
    while let Some(due) = arrivals.peek().copied() {
        if !sleep_until(start + due, stop) {
            paced.stopped = true;
            return paced;
        }
        let now = start.elapsed();
        let mut batch = 0;
        while let Some(due) = arrivals.next_if(|due| *due <= now) {
            batch += 1;
            if due >= warm_up {
                paced.measured += 1;
                paced.late.saturating_record(micros(now - due));
            }
            // A late batch is handed over in pieces so that no worker waits for the whole of it.
            if batch >= 1024 {
                break;
            }
        }
        paced.released += batch as u64;
        release(batch);
    }
    paced.stopped = !sleep_until(start + schedule.end(), stop);
    paced
}

/// False when stopped first. Never returns early.
fn sleep_until(due: Instant, stop: &CancellationToken) -> bool {
    loop {
        if stop.is_cancelled() {
            return false;
        }
        let left = due.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        if left > EARLY {
            std::thread::sleep((left - EARLY).min(NAP));
        } else {
            std::hint::spin_loop();
        }
    }
}

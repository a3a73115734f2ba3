//! Owns the clock of a run: it waits for each arrival to fall due, releases it, and measures its own lateness.
//! Knows nothing of HTTP.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio_util::sync::CancellationToken;

#[cfg(target_os = "linux")]
use crate::fast::timer::Timer;
use crate::schedule::Schedule;
use crate::stats::{histogram, micros};

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

/// Calls `release(n)` as each batch of `n` arrivals falls due, until the schedule's end or a stop.
pub(crate) async fn pace(
    schedule: &Schedule,
    start: Instant,
    warm_up: Duration,
    stop: &CancellationToken,
    mut release: impl FnMut(u64),
) -> Paced {
    let mut paced = Paced {
        released: 0,
        measured: 0,
        late: histogram(),
        stopped: false,
    };
    let mut alarm = Alarm::new();
    let mut arrivals = schedule.arrivals().peekable();
    while let Some(due) = arrivals.peek().copied() {
        if !alarm.until_or(start + due, stop).await {
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
            if batch >= 256 {
                break;
            }
        }
        paced.released += batch;
        release(batch);
        if batch >= 256 {
            tokio::task::yield_now().await;
        }
    }
    paced.stopped = !alarm.until_or(start + schedule.end(), stop).await;
    paced
}

/// Wakes at an instant. tokio's own timers know whole milliseconds only; a timer descriptor wakes the same event loop
/// within some ten microseconds and without a thread of its own.
pub(crate) struct Alarm {
    #[cfg(target_os = "linux")]
    timer: Option<tokio::io::unix::AsyncFd<Timer>>,
}

impl Alarm {
    /// Must be called within a tokio runtime. Falls back to tokio's timers when no descriptor can be had.
    pub(crate) fn new() -> Alarm {
        Alarm {
            #[cfg(target_os = "linux")]
            timer: timer_fd(),
        }
    }

    /// False when stopped first. Never returns early.
    async fn until_or(&mut self, due: Instant, stop: &CancellationToken) -> bool {
        if due <= Instant::now() {
            return !stop.is_cancelled();
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => false,
            () = self.until(due) => true,
        }
    }

    /// Returns at `due` or as soon after it as the machine lets it.
    pub(crate) async fn until(&mut self, due: Instant) {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            #[cfg(target_os = "linux")]
            if let Some(timer) = &mut self.timer
                && wait(timer, left).await.is_ok()
            {
                continue;
            }
            tokio::time::sleep(left).await;
        }
    }
}

#[cfg(target_os = "linux")]
#[expect(
    deprecated,
    reason = "a timer keeps its number while it is registered, which is all that the unsafe successor asks for"
)]
fn timer_fd() -> Option<tokio::io::unix::AsyncFd<Timer>> {
    let timer = Timer::new(rustix::time::TimerfdFlags::NONBLOCK).ok()?;
    tokio::io::unix::AsyncFd::new(timer).ok()
}

#[cfg(target_os = "linux")]
async fn wait(timer: &mut tokio::io::unix::AsyncFd<Timer>, left: Duration) -> std::io::Result<()> {
    timer.get_mut().within(left)?;
    loop {
        let mut ready = timer.readable().await?;
        let read = ready.try_io(|timer| Ok(rustix::io::read(&timer.get_ref().fd, &mut [0_u8; 8])?));
        if let Ok(read) = read {
            timer.get_mut().fired();
            return read.map(|_| ());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_alarm_is_never_early_and_a_stop_ends_the_wait() {
        let mut alarm = Alarm::new();
        for us in [1, 50, 1500] {
            let due = Instant::now() + Duration::from_micros(us);
            alarm.until(due).await;
            assert!(Instant::now() >= due);
        }
        let stop = CancellationToken::new();
        stop.cancel();
        let far = Instant::now() + Duration::from_secs(600);
        assert!(!alarm.until_or(far, &stop).await);
    }
}

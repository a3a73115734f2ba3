//! Owns a timer of the kernel that can be waited for like a socket (`timerfd_create(2)`), and when it fires. Must not know
//! who waits.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

/// Fires once each time it is set.
pub(crate) struct Timer {
    pub(crate) fd: OwnedFd,
    /// When it fires, since boot; zero when it is not set.
    fires: Duration,
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Timer {
    /// # Errors
    /// When there are no more descriptors.
    pub(crate) fn new(flags: TimerfdFlags) -> io::Result<Timer> {
        let flags = flags | TimerfdFlags::CLOEXEC;
        Ok(Timer {
            fd: timerfd_create(TimerfdClockId::Monotonic, flags)?,
            fires: Duration::ZERO,
        })
    }

    /// When it fires, since boot; zero when it is not set.
    pub(super) fn fires(&self) -> Duration {
        self.fires
    }

    /// It was seen to have fired.
    pub(crate) fn fired(&mut self) {
        self.fires = Duration::ZERO;
    }

    /// Sets it unless it fires within `left` already; a wake too early only costs another wait.
    pub(crate) fn within(&mut self, left: Duration) -> io::Result<()> {
        let now = since_boot();
        let at = now + left;
        if self.fires > now && self.fires <= at {
            return Ok(());
        }
        self.set(at)
    }

    /// Sets it to fire then, since boot.
    pub(super) fn set(&mut self, at: Duration) -> io::Result<()> {
        let spec = Itimerspec {
            it_interval: Timespec::default(),
            it_value: timespec(at),
        };
        timerfd_settime(&self.fd, TimerfdTimerFlags::ABSTIME, &spec)?;
        self.fires = at;
        Ok(())
    }
}

/// The clock that timers are set by.
pub(super) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// The kernel's form of a time.
fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: time.as_secs() as i64,
        tv_nsec: time.subsec_nanos().into(),
    }
}

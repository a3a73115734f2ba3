//! Owns sleeping until instants that are known ahead. Of two timers one is slept on and the other is set already for the
//! instant after: when the first fires, the kernel sets the hardware for the second while it is at it, and setting a timer
//! that is not the next to fire touches memory only. Set one at a time, the hardware would have to be set again by each
//! sleep, and of a virtual machine that is a trip to the hypervisor. Must not know what falls due.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::time::TimerfdFlags;

use super::timer::{Timer, since_boot};

/// A timer that was set ahead serves when it fires so little before or after the instant that is wanted now.
const ABOUT: Duration = Duration::from_micros(10);

/// Both timers.
pub(super) struct Naps {
    timers: [Timer; 2],
    /// Which is slept on next.
    turn: usize,
}

impl Naps {
    /// # Errors
    /// When there are no more descriptors.
    pub(super) fn new() -> io::Result<Naps> {
        let timer = || Timer::new(TimerfdFlags::empty());
        Ok(Naps {
            timers: [timer()?, timer()?],
            turn: 0,
        })
    }

    /// Sleeps for about `left`, and sets a timer for the sleep after it, which ends in `then` from now if that is known. A
    /// signal ends it early.
    pub(super) fn sleep(&mut self, left: Duration, then: Option<Duration>) -> io::Result<()> {
        let now = since_boot();
        let (at, [first, second]) = (now + left, &mut self.timers);
        let (this, other) = match self.turn {
            0 => (first, second),
            _ => (second, first),
        };
        if this.fires() <= now || this.fires().abs_diff(at) > ABOUT {
            this.set(at)?;
        }
        if let Some(then) = then.filter(|then| *then > left) {
            other.set(now + then)?;
        }
        match rustix::io::read(&this.fd, &mut [0_u8; 8]) {
            Ok(_) => {
                this.fired();
                self.turn ^= 1;
                Ok(())
            }
            Err(Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_end_at_their_instants_in_whatever_way_the_timers_were_set() {
        let ms = Duration::from_millis;
        let far = Duration::from_secs(20);
        let mut naps = Naps::new().unwrap();
        // What is known ahead, and then comes as foretold, earlier, later, or not at all.
        for (left, then) in [
            (ms(2), Some(ms(4))),
            (ms(2), Some(ms(3))),
            (ms(3), None),
            (ms(1), Some(ms(1))),
            (ms(1), Some(far)),
            (ms(1), Some(ms(2))),
            (Duration::from_micros(995), None),
        ] {
            let before = since_boot();
            naps.sleep(left, then).unwrap();
            let slept = since_boot() - before;
            assert!(slept + ABOUT >= left, "{slept:?} of {left:?}");
            assert!(slept < far / 2, "{slept:?} of {left:?}");
        }
    }
}

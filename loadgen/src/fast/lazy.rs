//! Owns when responses may lie until the next request is due. The kernel notes when each arrives, so reading it later
//! changes no figure and saves a wake of the thread, the dearest part of a request of a slow load. It may not be done
//! where somebody waits for what we do on reading: a peer whose response is not all sent yet. Reads no clock.

use std::time::Duration;

/// A response is never left lying for longer.
const MOST: Duration = Duration::from_millis(5);
/// So many responses in a row must have come in one piece, with the time of their arrival.
const PROVEN: u32 = 100;

/// What is known of the responses.
#[derive(Default)]
pub(super) struct Lazy {
    whole: u32,
    never: bool,
}

impl Lazy {
    /// A response came in one piece; `stamped` when it is known at what time.
    pub(super) fn whole(&mut self, stamped: bool) {
        self.whole = if stamped {
            self.whole.saturating_add(1)
        } else {
            0
        };
    }

    /// A response came in pieces, or ends with its connection: from now on each is read at once.
    pub(super) fn pieces(&mut self) {
        self.never = true;
    }

    /// Whether to wait for the next instant, so far away, and not for responses.
    pub(super) fn allows(&self, left: Option<Duration>) -> bool {
        !self.never && self.whole >= PROVEN && left.is_some_and(|left| left <= MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_lie_only_where_all_of_them_come_whole_and_stamped() {
        let soon = Some(Duration::from_millis(2));
        let mut lazy = Lazy::default();
        (1..PROVEN).for_each(|_| lazy.whole(true));
        assert!(!lazy.allows(soon), "not proven yet");
        lazy.whole(true);
        assert!(lazy.allows(soon));
        assert!(!lazy.allows(None), "nothing falls due");
        assert!(!lazy.allows(Some(Duration::from_millis(6))), "too long");
        lazy.whole(false);
        assert!(!lazy.allows(soon), "without its time");
        (0..PROVEN).for_each(|_| lazy.whole(true));
        assert!(lazy.allows(soon));
        lazy.pieces();
        (0..PROVEN).for_each(|_| lazy.whole(true));
        assert!(!lazy.allows(soon), "never again");
    }
}

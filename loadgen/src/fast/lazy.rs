//! Owns when responses may lie until the next request is due. The kernel notes when each arrives, so reading it later
//! changes no figure and saves a wake of the thread, the dearest part of a request of a slow load. It may not be done
//! where somebody waits for what we do on reading: a peer whose response is not all sent yet. And owns which sockets are
//! looked at then. Reads no clock.

use std::time::Duration;

/// A response is never left lying for longer.
const MOST: Duration = Duration::from_millis(5);
/// Of so few sockets each is asked whether its response is there; of more it is cheaper to be told which has one.
const FEW: usize = 2;
/// Of so many naps one looks at all sockets, also those on which nothing is expected but their end.
const ALL: u32 = 8;
/// So many responses in a row must have come in one piece, with the time of their arrival.
const PROVEN: u32 = 100;

/// What is known of the responses.
#[derive(Default)]
pub(super) struct Lazy {
    whole: u32,
    never: bool,
    /// Connections close when nothing is expected, and must be seen to have closed before they are used.
    close: bool,
    naps: u32,
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

    /// A connection was used once more and had closed.
    pub(super) fn surprised(&mut self) {
        self.close = true;
    }

    /// Whether, after the nap that begins now, only those sockets are looked at that carry one of so many requests.
    pub(super) fn asks(&mut self, flying: usize) -> bool {
        self.naps = self.naps.wrapping_add(1);
        !self.close && flying <= FEW && !self.naps.is_multiple_of(ALL)
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

    #[test]
    fn only_what_carries_a_request_is_looked_at_but_for_one_nap_in_some() {
        let mut lazy = Lazy::default();
        let asked = (0..80).filter(|_| lazy.asks(2)).count();
        assert_eq!(asked, 70);
        assert!((0..80).all(|_| !lazy.asks(3)), "too many");
        lazy.surprised();
        assert!((0..80).all(|_| !lazy.asks(1)), "ends come unannounced");
    }
}

//! Owns which request is sent next: of an open load, what fell due, in order; of a closed one, the next number. Reads no
//! clock and sends nothing.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::dispatch::Ticket;
use crate::pacer::Paced;
use crate::plan::{Model, Plan};
use crate::schedule::{Arrival, Arrivals, Schedule, share};
use crate::stats::{growing, micros, note};

/// So many are counted at once: one at a time, each would find its histogram gone from the CPU's caches.
const MANY: usize = 32;

/// The queue of an open load. Requests wait as a count and the first of them only: the others' instants come from the
/// schedule, once more, when they are taken.
pub(super) struct Queue {
    /// What falls due next, and after it.
    next: Option<Arrival>,
    after: Option<Arrival>,
    /// What falls due after that.
    due: Arrivals,
    /// The released request that is taken next, while any waits.
    first: Option<Arrival>,
    /// Goes on after it.
    rest: Arrivals,
    taken: u64,
    paced: Paced,
    /// How late those released last were, microseconds; counted when they are many: see [`MANY`].
    late: Vec<u64>,
    warm_up: Duration,
    end: Duration,
    drain: Duration,
    /// Nothing is taken from this instant on; set once nothing more falls due.
    cut: Option<Duration>,
}

impl Queue {
    pub(super) fn new(schedule: &Schedule, plan: &Plan) -> Queue {
        let mut due = schedule.arrivals();
        Queue {
            next: due.arrival(),
            after: due.arrival(),
            due,
            first: None,
            rest: schedule.arrivals(),
            taken: 0,
            paced: Paced {
                released: 0,
                measured: 0,
                late: growing(),
                stopped: false,
            },
            late: Vec::with_capacity(MANY),
            warm_up: plan.warm_up,
            end: schedule.end(),
            drain: plan.drain(),
            cut: None,
        }
    }

    /// Releases the next request if it is due; `blocked` when no connection was free for it, so that nothing woke for it.
    pub(super) fn release(&mut self, now: Duration, blocked: bool) -> bool {
        if self.cut.is_some() {
            return false;
        }
        let Some(arrival) = self.next.filter(|next| next.due <= now) else {
            return false;
        };
        self.next = std::mem::replace(&mut self.after, self.due.arrival());
        self.first.get_or_insert(arrival);
        let due = arrival.due;
        self.paced.released += 1;
        if due >= self.warm_up {
            self.paced.measured += 1;
            self.late.push(if blocked { 0 } else { micros(now - due) });
            if self.late.len() == MANY {
                self.count_late();
            }
        }
        true
    }

    fn count_late(&mut self) {
        for late in self.late.drain(..) {
            note(&mut self.paced.late, late);
        }
    }

    /// What was released, and how late.
    pub(super) fn paced(&mut self) -> &mut Paced {
        self.count_late();
        &mut self.paced
    }

    /// Ends the schedule when its time is over, or at once when `stop`.
    pub(super) fn maybe_end(&mut self, now: Duration, stop: bool) {
        if self.cut.is_some() {
            return;
        }
        let over = self.next.is_none() && now >= self.end;
        if over || stop {
            self.paced.stopped = !over;
            self.cut = Some(now + self.drain);
        }
    }

    /// Requests that fell due and are not taken.
    pub(super) fn waiting(&self) -> u64 {
        self.paced.released - self.taken
    }

    /// Nothing falls due any more.
    pub(super) fn over(&self) -> bool {
        self.cut.is_some()
    }

    /// The time to take what waits is over too.
    pub(super) fn closed(&self, now: Duration) -> bool {
        self.cut.is_some_and(|cut| now >= cut)
    }

    /// When there is something to do without anything having happened. While all connections are `blocked`, what falls due
    /// waits for a response anyway, and is released with it.
    pub(super) fn wakes(&mut self, blocked: bool) -> Option<Duration> {
        match self.cut {
            None if blocked => Some(self.end),
            None => Some(self.next.map_or(self.end, |next| next.due)),
            Some(cut) => (self.waiting() > 0).then_some(cut),
        }
    }

    /// What falls due after the next.
    pub(super) fn after(&self) -> Option<Duration> {
        self.after.map(|after| after.due)
    }

    /// Takes the request that waits longest; `queued` when no connection was free as it fell due.
    pub(super) fn take(&mut self, queued: bool) -> Option<Ticket> {
        let first = self.first.take()?;
        self.taken += 1;
        if self.waiting() > 0 {
            self.rest.go_on_after(first);
            self.first = self.rest.arrival();
        }
        let Arrival { index, due, .. } = first;
        Some(Ticket { index, due, queued })
    }

    /// Takes all that waits: when each was due.
    pub(super) fn rest(&mut self) -> Vec<Duration> {
        let all = std::iter::from_fn(|| self.take(true));
        all.map(|ticket| ticket.due).collect()
    }
}

/// What the closed model has handed out, to all threads.
#[derive(Default)]
pub(super) struct Counter {
    next: AtomicU64,
    /// Requests whose due instant lies in the measured part.
    measured: AtomicU64,
}

impl Counter {
    /// The next request, due now; none when the run is over.
    pub(super) fn take(&self, plan: &Plan, now: Duration) -> Option<Ticket> {
        let Model::Closed { requests } = plan.model else {
            return None;
        };
        let (first, step) = share(plan);
        let enough = |n: u64| n.saturating_sub(first).div_ceil(step);
        if now >= plan.warm_up + plan.duration {
            return None;
        }
        if now >= plan.warm_up
            && let Some(requests) = requests
            && self.measured.fetch_add(1, Ordering::Relaxed) >= enough(requests)
        {
            return None;
        }
        let index = first + self.next.fetch_add(1, Ordering::Relaxed) * step;
        Some(Ticket {
            index,
            due: now,
            queued: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_hands_out_what_fell_due_in_order_and_ends() {
        let plan = Plan {
            duration: Duration::from_millis(450),
            drain: Some(Duration::from_secs(1)),
            ..Plan::new("http://localhost").unwrap()
        };
        let ms = Duration::from_millis;
        let mut queue = Queue::new(&Schedule::of(&plan).unwrap(), &plan);
        assert_eq!(queue.wakes(false), Some(ms(0)));
        assert!(queue.release(ms(0), false) && !queue.release(ms(99), false));
        assert!(
            queue.release(ms(250), false)
                && queue.release(ms(250), false)
                && !queue.release(ms(250), false)
        );
        assert_eq!((queue.waiting(), queue.paced().late.max() / 1000), (3, 150));
        let first = queue.take(false).unwrap();
        assert_eq!((first.index, first.due, queue.waiting()), (0, ms(0), 2));
        assert_eq!(queue.take(true).unwrap().due, ms(100));
        assert!(queue.release(ms(440), false) && queue.release(ms(440), false));
        assert_eq!(queue.wakes(false), Some(ms(450)));
        queue.maybe_end(ms(449), false);
        assert!(!queue.over());
        queue.maybe_end(ms(451), false);
        assert!(queue.over() && !queue.paced.stopped && !queue.closed(ms(1450)));
        assert_eq!(queue.wakes(false), Some(ms(1451)));
        assert!(queue.closed(ms(1451)));
        let mut blocked = Queue::new(&Schedule::of(&plan).unwrap(), &plan);
        assert_eq!(blocked.wakes(true), Some(ms(450)));
        while blocked.release(ms(449), true) {}
        assert_eq!((blocked.waiting(), blocked.paced().late.max()), (5, 0));
        let mut stopped = Queue::new(&Schedule::of(&plan).unwrap(), &plan);
        stopped.maybe_end(ms(10), true);
        assert!(stopped.paced.stopped && !stopped.release(ms(400), false));
        assert_eq!(stopped.wakes(false), None);
    }

    #[test]
    fn a_closed_load_counts_the_measured_requests() {
        let ms = Duration::from_millis;
        let plan = Plan {
            model: Model::Closed { requests: Some(3) },
            warm_up: ms(100),
            shard: Some((2, 2)),
            ..Plan::new("http://localhost").unwrap()
        };
        let counter = Counter::default();
        let indices: Vec<_> = [0, 50, 100, 101]
            .map(|at| counter.take(&plan, ms(at)).map(|t| t.index))
            .into();
        // Of requests 0, 1 and 2 the second of two workers has one.
        assert_eq!(indices, [Some(1), Some(3), Some(5), None]);
        assert_eq!(counter.take(&plan, ms(10_100)), None);
    }
}

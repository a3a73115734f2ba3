//! Owns which connection takes which request: the freest one at once, or the first to become free, in due order.
//! Reads no clock and sends nothing.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::schedule::{Arrival, Arrivals};

/// One request to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    /// Its number among all workers' requests, from 0.
    pub(crate) index: u64,
    /// When it is due, from the run's start.
    pub(crate) due: Duration,
    /// No connection was free when it fell due.
    pub(crate) queued: bool,
}

/// What to do with a request that fell due.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Placed {
    /// A waiting worker has it, or it waits for one.
    Done,
    /// Start another worker with it.
    Start(Ticket),
}

/// What a free worker does next.
pub(crate) enum Next {
    /// Send this.
    Take(Ticket),
    /// Wait for a ticket; the sender's end means that there is no more work.
    Wait(oneshot::Receiver<Ticket>),
    /// There is no more work.
    End,
}

/// The queue of an open load. Requests wait as a count only: their instants come from the schedule when they are taken.
pub(crate) struct Dispatch {
    /// What is not yet taken.
    pub(crate) arrivals: Arrivals,
    /// Taken so far.
    pub(crate) taken: u64,
    released: u64,
    /// Workers waiting; the last to become free is the first to be used, so that few connections stay warm.
    idle: Vec<oneshot::Sender<Ticket>>,
    workers: usize,
    limit: usize,
    over: bool,
}

impl Dispatch {
    /// For at most `limit` workers.
    pub(crate) fn new(arrivals: Arrivals, limit: usize) -> Dispatch {
        Dispatch {
            arrivals,
            taken: 0,
            released: 0,
            idle: Vec::new(),
            workers: 0,
            limit,
            over: false,
        }
    }

    fn take(&mut self, queued: bool) -> Option<Ticket> {
        let Arrival { index, due, .. } = self.arrivals.arrival()?;
        self.taken += 1;
        Some(Ticket { index, due, queued })
    }

    /// The next request fell due.
    pub(crate) fn release(&mut self) -> Placed {
        self.released += 1;
        // Whoever waits longer goes first.
        if self.released > self.taken + 1 {
            return Placed::Done;
        }
        if let Some(worker) = self.idle.pop() {
            let Some(ticket) = self.take(false) else {
                return Placed::Done;
            };
            return match worker.send(ticket) {
                Ok(()) => Placed::Done,
                Err(ticket) => Placed::Start(ticket),
            };
        }
        if self.workers < self.limit {
            self.workers += 1;
            return self.take(false).map_or(Placed::Done, Placed::Start);
        }
        Placed::Done
    }

    /// A worker is free; `late` when the time to take requests is over.
    pub(crate) fn next(&mut self, late: bool) -> Next {
        if late {
            return Next::End;
        }
        if self.released > self.taken {
            return self.take(true).map_or(Next::End, Next::Take);
        }
        if self.over {
            return Next::End;
        }
        let (worker, ticket) = oneshot::channel();
        self.idle.push(worker);
        Next::Wait(ticket)
    }

    /// No further request falls due: waiting workers end.
    pub(crate) fn close(&mut self) {
        self.over = true;
        self.idle.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Plan;
    use crate::schedule::Schedule;

    #[test]
    fn the_limit_holds_and_the_queue_is_first_in_first_out() {
        let plan = Plan::new("http://localhost").unwrap();
        let mut d = Dispatch::new(Schedule::of(&plan).unwrap().arrivals(), 2);
        let Placed::Start(first) = d.release() else {
            panic!("the first request starts a worker")
        };
        assert_eq!((first.index, first.queued), (0, false));
        assert!(matches!(
            d.release(),
            Placed::Start(Ticket { index: 1, .. })
        ));
        assert_eq!(d.release(), Placed::Done);
        assert_eq!(d.release(), Placed::Done);
        let Next::Take(third) = d.next(false) else {
            panic!("the third waits")
        };
        assert_eq!((third.index, third.queued), (2, true));
        assert!(matches!(d.next(false), Next::Take(Ticket { index: 3, .. })));
        let Next::Wait(mut older) = d.next(false) else {
            panic!("nothing waits")
        };
        let Next::Wait(mut newer) = d.next(false) else {
            panic!("nothing waits")
        };
        assert_eq!(d.release(), Placed::Done);
        assert_eq!(
            newer.try_recv().map(|t| (t.index, t.queued)),
            Ok((4, false))
        );
        d.close();
        assert!(older.try_recv().is_err());
        assert!(matches!(d.next(false), Next::End));
    }
}

//! Owns who is woken when. Reads no clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::Waker;
use std::time::Instant;

/// When to wake whom; equal instants in the order of their numbers.
struct Alarm {
    at: Instant,
    number: u64,
    waker: Waker,
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Alarm) -> bool {
        self.number == other.number
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Alarm) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Alarm) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// All of them, the earliest first. Whoever no longer waits is woken for nothing.
#[derive(Default)]
pub(super) struct Alarms {
    heap: BinaryHeap<Reverse<Alarm>>,
    numbers: u64,
}

impl Alarms {
    pub(super) fn set(&mut self, at: Instant, waker: Waker) {
        self.numbers += 1;
        let number = self.numbers;
        self.heap.push(Reverse(Alarm { at, number, waker }));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    /// The earliest instant.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(alarm)| alarm.at)
    }

    /// Wakes everybody whose instant has come.
    pub(super) fn ring(&mut self, now: Instant) {
        while self.next().is_some_and(|at| at <= now) {
            if let Some(Reverse(alarm)) = self.heap.pop() {
                alarm.waker.wake();
            }
        }
    }
}

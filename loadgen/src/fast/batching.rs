//! Owns how many responses a closed loop waits for at once. Waiting for several saves system calls and costs latency, so
//! it is done only while the generator's own CPU is what limits it, and given up when the rate falls or nothing is saved.
//! Of an open load every response is taken at once. Knows no socket.

use std::time::{Duration, Instant};

use rustix::thread::Timespec;

use super::cpu_time;

/// How long responses are let gather where the kernel cannot be told for how many to wait.
const NAP: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 150_000,
};

/// Judged so often.
const WINDOW: Duration = Duration::from_millis(30);
/// Of its time a thread is busy, one response at a time, before waiting for several pays.
const BUSY: f64 = 0.7;
/// A rate, or a cost, of which so much is left is no other.
const SAME: f64 = 0.97;
/// It is given up after so many windows in which it did not pay.
const PATIENCE: u32 = 3;

/// What is known of the rate.
pub(crate) struct Batching {
    /// Most responses to wait for.
    most: usize,
    now: usize,
    window: Option<Window>,
    done: u64,
    /// CPU seconds a request costs when each is taken at once.
    cost: f64,
    /// Requests a second when each was taken at once.
    rate: f64,
    /// Windows in a row in which waiting for several did not pay.
    worse: u32,
    /// Windows left in which it is not tried again.
    rest: u32,
}

struct Window {
    since: Instant,
    cpu: Duration,
    done: u64,
}

impl Batching {
    /// For a closed loop of so many connections (or requests at once), or for an open load.
    pub(crate) fn new(closed: Option<usize>) -> Batching {
        Batching {
            most: closed.map_or(1, most),
            now: 1,
            window: None,
            done: 0,
            cost: 0.0,
            rate: 0.0,
            worse: 0,
            rest: 0,
        }
    }

    /// The loop has so many connections now.
    pub(super) fn limit(&mut self, connections: usize) {
        self.most = most(connections);
        if self.now > 1 || self.most == 1 {
            self.now = self.most;
        }
    }

    /// How many responses to wait for.
    pub(crate) fn enough(&self) -> usize {
        self.now
    }

    /// So many more are done.
    pub(crate) fn tick(&mut self, more: usize) {
        if self.most == 1 {
            self.window = None;
            return;
        }
        self.done += more as u64;
        let now = Instant::now();
        let Some(window) = &self.window else {
            self.window = Some(Window {
                since: now,
                cpu: cpu_time(),
                done: self.done,
            });
            return;
        };
        let wall = now - window.since;
        if wall < WINDOW {
            return;
        }
        let cpu = cpu_time();
        let (used, done) = (cpu - window.cpu, self.done - window.done);
        self.window = Some(Window {
            since: now,
            cpu,
            done: self.done,
        });
        self.judge(done, wall.as_secs_f64(), used.as_secs_f64());
    }

    fn judge(&mut self, done: u64, wall: f64, cpu: f64) {
        let rate = done as f64 / wall;
        if self.now == 1 {
            self.rate = rate;
            self.cost = cpu / done.max(1) as f64;
            self.rest = self.rest.saturating_sub(1);
            if cpu / wall > BUSY && self.rest == 0 {
                self.now = self.most;
                self.worse = 0;
            }
        } else if rate < 0.85 * self.rate
            || rate * self.cost < BUSY * 0.8
            || (rate < SAME * self.rate && cpu > SAME * self.cost * done as f64)
        {
            // It slows the loop down, or there is no longer so much to do, or nothing is saved; or the machine was busy with
            // something else.
            self.worse += 1;
            if self.worse == PATIENCE {
                self.now = 1;
                self.rest = 10;
            }
        } else {
            self.worse = 0;
        }
    }
}

/// Sleeps until several responses are likely to be there: asleep, the thread is not woken for each.
pub(crate) fn let_gather() {
    let _ = rustix::thread::nanosleep(&NAP);
}

/// Of so many connections, the most responses to wait for.
fn most(connections: usize) -> usize {
    (connections / 2).clamp(1, 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_are_waited_for_only_while_the_cpu_is_the_limit() {
        let mut b = Batching::new(Some(64));
        b.judge(1000, 0.05, 0.02);
        assert_eq!(b.enough(), 1, "40 % busy");
        b.judge(6000, 0.05, 0.048);
        assert_eq!(b.enough(), 32);
        b.judge(6500, 0.05, 0.038);
        assert_eq!(b.enough(), 32, "cheaper and no slower");
        for expected in [32, 32] {
            b.judge(4000, 0.05, 0.02);
            assert_eq!(b.enough(), expected, "a window or two may be the machine's");
        }
        b.judge(6500, 0.05, 0.038);
        for expected in [32, 32, 1] {
            b.judge(4000, 0.05, 0.02);
            assert_eq!(b.enough(), expected, "it slows the loop down");
        }
        b.judge(6000, 0.05, 0.048);
        assert_eq!(b.enough(), 1, "not again at once");
        for _ in 0..10 {
            b.judge(6000, 0.05, 0.048);
        }
        assert_eq!(b.enough(), 32);
        b.judge(6000, 0.05, 0.046);
        for expected in [32, 32, 1] {
            b.judge(5500, 0.05, 0.044);
            assert_eq!(b.enough(), expected, "slower, and no cheaper");
        }
        for mut never in [Batching::new(Some(1)), Batching::new(None)] {
            never.judge(6000, 0.05, 0.05);
            assert_eq!(never.enough(), 1);
        }
    }
}

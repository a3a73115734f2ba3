//! Circuit breaker as a pure state machine: time and outcomes in, state out.
//! Must not know what it protects, nor any clock.

use crate::settings;

/// State of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls pass and are counted.
    Closed,
    /// A few trials pass.
    HalfOpen,
    /// Calls fail at once.
    Open,
}

impl State {
    /// Number of the `circuit_state` gauge: 0 closed, 1 half-open, 2 open.
    pub fn number(self) -> i64 {
        match self {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        }
    }

    /// Lower-case name.
    pub fn name(self) -> &'static str {
        match self {
            State::Closed => "closed",
            State::HalfOpen => "half_open",
            State::Open => "open",
        }
    }
}

/// The machine. Times are milliseconds of any monotonic clock.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: settings::Breaker,
    state: State,
    since_ms: u64,
    calls: u32,
    failures: u32,
    trials_begun: u32,
    trials_good: u32,
}

// === impl Breaker ===

impl Breaker {
    /// A closed breaker.
    pub fn new(config: settings::Breaker) -> Self {
        Breaker {
            config,
            state: State::Closed,
            since_ms: 0,
            calls: 0,
            failures: 0,
            trials_begun: 0,
            trials_good: 0,
        }
    }

    /// Current state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Whether a call may be made now. A `true` in half-open takes one of the trials: report its outcome.
    pub fn admit(&mut self, now_ms: u64) -> bool {
        match self.state {
            State::Closed => {
                if now_ms.saturating_sub(self.since_ms) >= self.config.window_ms {
                    self.enter(State::Closed, now_ms);
                }
                true
            }
            State::Open if now_ms.saturating_sub(self.since_ms) >= self.config.open_ms => {
                self.enter(State::HalfOpen, now_ms);
                self.trials_begun = 1;
                true
            }
            State::Open => false,
            State::HalfOpen => {
                // A trial whose outcome never came (a cancelled call) must not close the door for ever.
                if now_ms.saturating_sub(self.since_ms) >= self.config.open_ms {
                    self.enter(State::HalfOpen, now_ms);
                }
                let free = self.trials_begun < self.config.half_open_trials.max(1);
                self.trials_begun += u32::from(free);
                free
            }
        }
    }

    /// Outcome of an admitted call.
    pub fn report(&mut self, now_ms: u64, ok: bool) {
        match self.state {
            State::Closed => {
                self.calls += 1;
                self.failures += u32::from(!ok);
                let ratio = f64::from(self.failures) / f64::from(self.calls);
                if !ok
                    && self.calls >= self.config.min_calls.max(1)
                    && ratio >= self.config.failure_ratio
                {
                    self.enter(State::Open, now_ms);
                }
            }
            State::HalfOpen if ok => {
                self.trials_good += 1;
                if self.trials_good >= self.config.half_open_trials.max(1) {
                    self.enter(State::Closed, now_ms);
                }
            }
            State::HalfOpen => self.enter(State::Open, now_ms),
            State::Open => {}
        }
    }

    fn enter(&mut self, state: State, now_ms: u64) {
        self.state = state;
        self.since_ms = now_ms;
        self.calls = 0;
        self.failures = 0;
        self.trials_begun = 0;
        self.trials_good = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn machine() -> Breaker {
        Breaker::new(settings::Breaker::default())
    }

    #[test]
    fn opens_at_half_after_the_minimum_waits_and_closes_after_three_trials() {
        let mut b = machine();
        for i in 0..9 {
            assert!(b.admit(i));
            b.report(i, i % 2 == 0);
        }
        assert_eq!(b.state(), State::Closed, "nine calls are below the minimum");
        b.admit(9);
        b.report(9, false);
        assert_eq!(b.state(), State::Open);
        assert!(!b.admit(60_008));
        assert!(b.admit(60_009));
        assert_eq!(b.state(), State::HalfOpen);
        assert!(b.admit(60_010) && b.admit(60_010));
        assert!(!b.admit(60_010), "only three trials");
        for _ in 0..3 {
            b.report(60_020, true);
        }
        assert_eq!(b.state(), State::Closed);
    }

    #[test]
    fn a_failed_trial_opens_again_and_lost_trials_are_replaced() {
        let mut b = machine();
        for _ in 0..10 {
            b.admit(0);
            b.report(0, false);
        }
        assert!(b.admit(60_000));
        b.report(60_001, false);
        assert_eq!(b.state(), State::Open);
        for _ in 0..3 {
            assert!(b.admit(120_001));
        }
        assert!(!b.admit(120_002));
        assert!(b.admit(180_001), "three lost trials do not block for ever");
    }

    proptest! {
        #[test]
        fn never_admits_more_trials_than_allowed(steps in proptest::collection::vec((0u64..30_000, any::<bool>()), 1..300)) {
            let mut b = machine();
            let (mut now, mut trials) = (0, 0);
            for (gap, ok) in steps {
                now += gap;
                let before = b.state();
                let admitted = b.admit(now);
                if before == State::Open && !admitted { prop_assert_eq!(b.state(), State::Open); }
                if b.state() != State::HalfOpen { trials = 0; }
                if admitted {
                    if b.state() == State::HalfOpen { trials += 1; prop_assert!(trials <= 3); }
                    b.report(now, ok);
                }
            }
        }
    }
}

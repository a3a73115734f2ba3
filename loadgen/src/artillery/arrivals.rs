//! Owns when virtual users arrive: offsets from the run's start, a pure function of the phases and a seed.
//! Reads no clock.

use std::time::Duration;

use super::script::{Phase, PhaseKind};
use crate::schedule::mix;

/// Something the schedule says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Due {
    /// The phase of this index begins.
    Begins(usize),
    /// A user of this phase arrives.
    User(usize),
    /// The phase of this index is over.
    Ends(usize),
}

/// All that is due, in order, each with its offset.
pub(crate) fn schedule(phases: &[Phase], seed: u64) -> impl Iterator<Item = (Duration, Due)> + '_ {
    let mut start = 0.0;
    phases.iter().enumerate().flat_map(move |(index, phase)| {
        let (from, length) = (start, phase.length.as_secs_f64());
        start += length;
        let at = |offset: f64| Duration::from_secs_f64(offset);
        let users = offsets(phase, mix(seed, index as u64, 11));
        let users = users.map(move |o| (at(from + o), Due::User(index)));
        let begins = (at(from), Due::Begins(index));
        let ends = (at(from + length), Due::Ends(index));
        std::iter::once(begins).chain(users).chain([ends])
    })
}

/// From the first user to the second, a second at most; nothing where there are not two.
pub(crate) fn first_gap(phases: &[Phase], seed: u64) -> Duration {
    let mut users = schedule(phases, seed).filter(|(_, due)| matches!(due, Due::User(_)));
    match (users.next(), users.next()) {
        (Some((first, _)), Some((second, _))) => (second - first).min(Duration::from_secs(1)),
        _ => Duration::ZERO,
    }
}

/// When users of a phase arrive, in seconds from its start.
fn offsets(phase: &Phase, seed: u64) -> Box<dyn Iterator<Item = f64> + Send> {
    let length = phase.length.as_secs_f64();
    let evenly = move |count: u64, from: f64, length: f64| {
        let gap = length / count.max(1) as f64;
        (0..count).map(move |i| from + i as f64 * gap)
    };
    match phase.kind {
        PhaseKind::Pause => Box::new(std::iter::empty()),
        PhaseKind::Count(count) => Box::new(evenly(count, 0.0, length)),
        PhaseKind::Rate {
            rate,
            poisson: false,
        } => {
            let count = (rate * length + 1e-9).floor() as u64;
            Box::new((0..count).map(move |i| i as f64 / rate))
        }
        PhaseKind::Rate {
            rate,
            poisson: true,
        } => {
            let mut at = 0.0;
            let gaps = (0_u64..).map(move |i| {
                let uniform = (mix(seed, i, 12) >> 11) as f64 / (1_u64 << 53) as f64;
                at += -(1.0 - uniform).ln() / rate;
                at
            });
            Box::new(gaps.take_while(move |at| *at < length))
        }
        PhaseKind::Ramp { from, to } => {
            // A step a second, the first at `from`, the last at `to`; a ramp of one second takes their mean.
            let seconds = length.ceil().max(1.0) as u64;
            let in_second = move |i: u64| {
                let rate = if seconds == 1 {
                    f64::midpoint(from, to)
                } else {
                    from + (to - from) * i as f64 / (seconds - 1) as f64
                };
                evenly(rate.round() as u64, i as f64, 1.0)
            };
            Box::new(
                (0..seconds)
                    .flat_map(in_second)
                    .take_while(move |at| *at < length),
            )
        }
    }
}

/// Users a second at most.
pub(crate) fn peak(phases: &[Phase]) -> f64 {
    let rate = |phase: &Phase| match phase.kind {
        PhaseKind::Pause => 0.0,
        PhaseKind::Rate { rate, .. } => rate,
        PhaseKind::Ramp { from, to } => from.max(to),
        PhaseKind::Count(count) => count as f64 / phase.length.as_secs_f64().max(1.0),
    };
    phases.iter().map(rate).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn phase(seconds: f64, kind: PhaseKind) -> Phase {
        Phase {
            name: None,
            length: Duration::from_secs_f64(seconds),
            kind,
            max_vusers: None,
        }
    }

    fn users(phases: &[Phase]) -> Vec<f64> {
        schedule(phases, 1)
            .filter(|(_, due)| matches!(due, Due::User(_)))
            .map(|(at, _)| at.as_secs_f64())
            .collect()
    }

    #[test]
    fn users_arrive_as_the_phases_say() {
        let rate = |rate, poisson| PhaseKind::Rate { rate, poisson };
        assert_eq!(users(&[phase(2.0, rate(2.0, false))]), [0.0, 0.5, 1.0, 1.5]);
        assert_eq!(users(&[phase(10.0, rate(0.25, false))]), [0.0, 4.0]);
        let two = [
            phase(1.0, PhaseKind::Pause),
            phase(3.0, PhaseKind::Count(3)),
        ];
        assert_eq!(users(&two), [1.0, 2.0, 3.0]);
        let ramp = users(&[phase(3.0, PhaseKind::Ramp { from: 1.0, to: 3.0 })]);
        assert_eq!(ramp.iter().filter(|t| **t < 1.0).count(), 1);
        assert_eq!(ramp.iter().filter(|t| **t >= 2.0).count(), 3);
        assert_eq!(
            users(&[phase(1.0, PhaseKind::Ramp { from: 2.0, to: 6.0 })]).len(),
            4
        );
        let poisson = users(&[phase(100.0, rate(20.0, true))]);
        assert!((1_850..2_150).contains(&poisson.len()), "{}", poisson.len());
        assert!(poisson.is_sorted());
        assert!(peak(&two) <= 1.0);
    }

    #[test]
    fn the_first_gap_is_that_of_the_first_two_users() {
        let rate = |rate| PhaseKind::Rate {
            rate,
            poisson: false,
        };
        let gap = |phases: &[Phase]| first_gap(phases, 1).as_millis();
        let pause = phase(5.0, PhaseKind::Pause);
        assert_eq!(gap(&[pause, phase(1.0, rate(50.0))]), 20);
        assert_eq!(gap(&[phase(10.0, rate(0.25))]), 1000, "a second at most");
        assert_eq!(gap(&[phase(1.0, PhaseKind::Count(1))]), 0);
    }

    #[test]
    fn phases_begin_and_end() {
        let phases = [
            phase(1.0, PhaseKind::Pause),
            phase(2.0, PhaseKind::Count(1)),
        ];
        let all: Vec<_> = schedule(&phases, 1)
            .map(|(at, due)| (at.as_secs(), due))
            .collect();
        let want = [
            (0, Due::Begins(0)),
            (1, Due::Ends(0)),
            (1, Due::Begins(1)),
            (1, Due::User(1)),
            (3, Due::Ends(1)),
        ];
        assert_eq!(all, want);
    }
}

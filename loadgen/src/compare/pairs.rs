//! Owns which seconds of several runs are compared with which: those of one time where two runs took place at the same
//! time, otherwise those of one place in their runs. Pure.

use crate::beside;
use crate::report::{Report, Second};

/// A step is the same in two runs that lasts as long but for this part of it, and begins as much apart at most.
const ALIKE: f64 = 0.5;

/// The measured seconds of a run and its baselines.
pub(super) struct Seconds<'a> {
    /// The run's, then those of each baseline.
    runs: Vec<Vec<&'a Second>>,
    /// The seconds at one place are of one time in all runs.
    pub(super) paired: bool,
}

impl<'a> Seconds<'a> {
    pub(super) fn of(baselines: &[&'a Report], after: &'a Report) -> Seconds<'a> {
        let all = |run: &'a Report| measured(run).collect::<Vec<_>>();
        let paired = beside::of(baselines, after).map(|one| pairs(one, after));
        Seconds {
            paired: paired.is_some(),
            runs: paired.unwrap_or_else(|| {
                let runs = std::iter::once(after).chain(baselines.iter().copied());
                runs.map(all).collect()
            }),
        }
    }

    /// A value of each second, first of the run and then of each baseline; `get` knows a run by this number. A second that
    /// has none is left out, and with it the other of its pair.
    pub(super) fn series(
        &self,
        get: impl Fn(usize, &Second) -> Option<f64>,
    ) -> (Vec<f64>, Vec<Vec<f64>>) {
        let values = self.runs.iter().enumerate();
        let values: Vec<Vec<Option<f64>>> = values
            .map(|(run, seconds)| seconds.iter().map(|s| get(run, s)).collect())
            .collect();
        let all_have = |t: usize| values.iter().all(|run| run[t].is_some());
        let mut kept = values.iter().map(|run| -> Vec<f64> {
            let each = run.iter().enumerate();
            let there = each.filter(|(t, _)| !self.paired || all_have(*t));
            there.filter_map(|(_, v)| *v).collect()
        });
        (kept.next().unwrap_or_default(), kept.collect())
    }
}

/// Whole seconds of the measured part.
pub(super) fn measured(r: &Report) -> impl Iterator<Item = &Second> {
    r.per_second
        .iter()
        .filter(|s| !s.warm_up && s.length_s > 0.9)
}

/// The seconds (after ten minutes: steps) that both runs measured at the same time: those of the second run, then those
/// of the first.
fn pairs<'a>(before: &'a Report, after: &'a Report) -> Vec<Vec<&'a Second>> {
    // Where the second run's clock stands when the first's is at 0.
    let ahead = (after.started_ms - before.started_ms) as f64 / 1e3 + before.warm_up_s()
        - after.warm_up_s();
    let mut theirs = measured(before).peekable();
    let mut out = vec![Vec::new(), Vec::new()];
    for ours in measured(after) {
        let at = ours.at_s + ahead;
        let apart = ALIKE * ours.length_s;
        while theirs.next_if(|s| s.at_s < at - apart).is_some() {}
        let same = |s: &&Second| {
            (s.at_s - at).abs() <= apart && (s.length_s - ours.length_s).abs() <= apart
        };
        if let Some(other) = theirs.next_if(same) {
            out[0].push(ours);
            out[1].push(other);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Quantiles, sample};

    /// A run that began so many milliseconds late; its seconds say at which time they were.
    fn run(late_ms: i64, warm_up: u32, seconds: u32, without: &[u32]) -> Report {
        let mut run = sample();
        run.started_ms += late_ms;
        let all = (0..warm_up + seconds).filter(|i| !without.contains(i));
        run.per_second = all
            .map(|i| Second {
                at_s: f64::from(i) + 0.001,
                length_s: 1.0,
                warm_up: i < warm_up,
                latency: Quantiles {
                    count: 1,
                    p50: 100 + u64::from(i - i.min(warm_up)),
                    ..Quantiles::default()
                },
                ..Second::default()
            })
            .collect();
        run
    }

    fn times(before: &Report, after: &Report) -> (bool, Vec<f64>, Vec<f64>) {
        let seconds = Seconds::of(&[before], after);
        let (a, b) = seconds.series(|_, s| Some(s.latency.p50 as f64));
        (seconds.paired, a, b[0].clone())
    }

    #[test]
    fn seconds_are_paired_by_time_and_not_by_what_is_left() {
        let (paired, a, b) = times(&run(0, 0, 12, &[3]), &run(1, 0, 12, &[7, 8]));
        assert!(paired && a == b, "{a:?} {b:?}");
        assert_eq!(a.len(), 9);
        // Other warm-ups, one begun half a second later, one that ended early.
        let (paired, a, b) = times(&run(0, 2, 12, &[]), &run(400, 5, 9, &[]));
        assert!(paired && a == b && a.len() == 9, "{a:?} {b:?}");
        let (paired, a, b) = times(&run(0, 0, 12, &[3]), &run(5000, 0, 12, &[]));
        assert_eq!((paired, a.len(), b.len()), (false, 12, 11));
    }

    #[test]
    fn a_second_without_a_value_leaves_its_pair_out() {
        let (before, after) = (run(0, 0, 12, &[]), run(0, 0, 12, &[]));
        let seconds = Seconds::of(&[&before], &after);
        let (a, b) = seconds.series(|run, s| {
            let t = s.latency.p50 - 100;
            (t != 4 + run as u64).then_some(t as f64)
        });
        assert_eq!(a, [0.0, 1.0, 2.0, 3.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
        assert_eq!(b, [a]);
        // Of runs at different times each keeps its own.
        let later = run(60_000, 0, 12, &[]);
        let (a, b) = Seconds::of(&[&before], &later)
            .series(|run, s| (run == 1 || s.at_s > 2.0).then_some(1.0));
        assert_eq!((a.len(), b[0].len()), (10, 12));
    }

    #[test]
    fn joined_steps_pair_with_steps_as_long() {
        let (mut before, after) = (run(0, 0, 12, &[]), run(0, 0, 12, &[1]));
        before.per_second[0].length_s = 2.0;
        before.per_second.remove(1);
        let (paired, a, b) = times(&before, &after);
        assert!(paired && a == b && a.len() == 10, "{a:?} {b:?}");
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_missing_only_seconds_of_one_time_are_paired(
            without in proptest::collection::vec(0..40_u32, 0..20),
            other in proptest::collection::vec(0..40_u32, 0..20),
            late_ms in -300..300_i64,
        ) {
            let (paired, a, b) = times(&run(0, 0, 40, &without), &run(late_ms, 0, 40, &other));
            proptest::prop_assert!(paired);
            proptest::prop_assert_eq!(&a, &b);
            let both = (0..40).filter(|i| !without.contains(i) && !other.contains(i));
            proptest::prop_assert_eq!(a.len(), both.count());
        }
    }
}

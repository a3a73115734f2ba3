//! Runs of samples, and how several become one answer.
//!
//! Owns the rule for samples at the same time: the one written first stays. Must not know where runs come from.

use model::Points;

use crate::chunk;
use crate::wire::{Damaged, Reader};

/// Samples of one series, strictly ascending.
pub(crate) type Run = Points;

/// The last run when what begins at `t` can be appended to it, else a new one.
pub(crate) fn last_run_before(runs: &mut Vec<Run>, t: i64) -> &mut Run {
    let fits = runs
        .last()
        .is_some_and(|r| r.t_ms.last().is_none_or(|last| *last < t));
    if !fits {
        runs.push(Run::default());
    }
    let last = runs.len() - 1;
    &mut runs[last]
}

/// Decodes what of a chunk is in `start..=end` to the end of the last run, or to a new one when it overlaps that. Says
/// whether the chunk begins after `end`.
pub(crate) fn decode_into(
    chunk: &[u8],
    start: i64,
    end: i64,
    runs: &mut Vec<Run>,
) -> Result<bool, Damaged> {
    let mut reader = Reader::new(chunk);
    let header = chunk::read_header(&mut reader)?;
    if header.overlaps(start, end) {
        let run = last_run_before(runs, header.min_t);
        chunk::decode_rest(reader, &header, start, end, run)?;
    }
    Ok(header.min_t > end)
}

/// Merges runs into one. Of samples at the same time the one in the earliest run stays.
pub(crate) fn merge(mut runs: Vec<Run>) -> Points {
    runs.retain(|r| !r.is_empty());
    if runs.len() < 2 {
        return runs.pop().unwrap_or_default();
    }
    if runs
        .windows(2)
        .all(|w| w[0].t_ms.last() < w[1].t_ms.first())
    {
        return concatenate(runs);
    }
    let mut order: Vec<(i64, usize, usize)> = runs
        .iter()
        .enumerate()
        .flat_map(|(r, run)| run.t_ms.iter().enumerate().map(move |(i, t)| (*t, r, i)))
        .collect();
    order.sort_unstable();
    order.dedup_by_key(|(t, _, _)| *t);
    let mut merged = Points::default();
    for (t, r, i) in order {
        merged.push(t, runs[r].value(i));
        if runs[r].start(i) != 0 {
            merged.set_last_start(runs[r].start(i));
        }
    }
    merged
}

fn concatenate(runs: Vec<Run>) -> Points {
    let total = runs.iter().map(Points::len).sum();
    let mixed = runs.iter().any(|r| !r.histograms.is_empty());
    let started = runs.iter().any(|r| !r.start_ms.is_empty());
    let mut all = Points::default();
    all.t_ms.reserve_exact(total);
    all.values.reserve_exact(total);
    for run in runs {
        if mixed {
            all.histograms.extend(run.histograms);
            all.histograms.resize(all.t_ms.len() + run.t_ms.len(), None);
        }
        if started {
            all.start_ms.extend(run.start_ms);
            all.start_ms.resize(all.t_ms.len() + run.t_ms.len(), 0);
        }
        all.t_ms.extend(run.t_ms);
        all.values.extend(run.values);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn run(pairs: &[(i64, f64)]) -> Run {
        let mut run = Run::default();
        for (t, v) in pairs {
            run.push_float(*t, *v);
        }
        run
    }

    #[test]
    fn the_first_written_sample_stays() {
        let merged = merge(vec![
            run(&[(1, 1.0), (4, 4.0)]),
            run(&[(1, 9.0), (2, 2.0)]),
            run(&[(3, 3.0), (4, 9.0)]),
        ]);
        assert_eq!(merged, run(&[(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]));
    }

    #[test]
    fn runs_that_follow_one_another_are_joined_with_their_kinds() {
        let mut h = Run::default();
        h.push_histogram(2, Arc::new(model::NativeHistogram::default()));
        let merged = merge(vec![run(&[(1, 1.0)]), h, run(&[(3, 3.0)])]);
        assert_eq!(merged.t_ms, [1, 2, 3]);
        assert_eq!(merged.histograms.len(), 3);
        assert!(merged.histogram(1).is_some() && merged.histogram(2).is_none());
    }
}

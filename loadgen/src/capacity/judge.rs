//! Owns what a step at one rate says: where it is steady, whether its backlog grows, whether the rules are kept, and
//! whether the generator itself was the limit. Pure.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;

use crate::beta::incomplete_beta;
use crate::gate::{Check, Part, Rule};
use crate::hdr;
use crate::report::Second;
use crate::schedule::mix;
use crate::stats::histogram;
use crate::truth::normal_quantile;

/// Growth of the backlog below this share of the rate is not told from none: 0.4 %.
pub(super) const LEAST_GROWTH: f64 = 0.004;
/// The backlog's growth over a step in units of its scatter: beyond the first it may grow, beyond the second it does.
const GROWS: (f64, f64) = (3.0, 6.0);
/// A rule is kept or broken when so large a share of the draws says so. More would take most of the time for looks at one
/// rate; what a wrong turn does is seen by the confirmation and is in the interval.
const SURE: f64 = 0.85;
/// Resamples of a step's slices.
pub(super) const RESAMPLES: u64 = 200;
/// The generator's CPU time, as a share of what it can have, from which on it is saturated.
const BUSY: f64 = 0.95;

/// A short part of a step.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Slice {
    /// Its length in seconds.
    pub length_s: f64,
    /// Requests that fell due in it.
    pub due: f64,
    /// Requests started in it.
    pub sent: u64,
    /// Requests that failed in it.
    pub errors: u64,
    /// Responses that arrived in it, by status.
    pub status: BTreeMap<u16, u64>,
    /// Latencies of what ended in it: microseconds and how often, ascending.
    pub latency: Vec<(u64, u64)>,
}

impl Slice {
    /// From a second (or less) of a run that keeps its histograms ([`crate::Plan::keep_seconds`]).
    pub fn of(second: &Second) -> Slice {
        let read = second
            .hdr
            .as_deref()
            .and_then(|text| hdr::decode(text).ok());
        let pairs = read.iter().flat_map(Histogram::iter_recorded);
        Slice {
            length_s: second.length_s,
            due: second.offered * second.length_s,
            sent: second.sent,
            errors: second.errors,
            status: second.status.clone(),
            latency: pairs
                .map(|v| (v.value_iterated_to(), v.count_at_value()))
                .collect(),
        }
    }

    pub(super) fn responses(&self) -> u64 {
        self.status.values().sum()
    }

    fn ended(&self) -> u64 {
        self.responses() + self.errors
    }

    /// Mean latency in microseconds; none when nothing ended.
    fn mean_us(&self) -> Option<f64> {
        let count: u64 = self.latency.iter().map(|(_, n)| n).sum();
        let sum: f64 = self
            .latency
            .iter()
            .map(|(v, n)| *v as f64 * *n as f64)
            .sum();
        (count > 0).then(|| sum / count as f64)
    }
}

/// What was seen of one trial.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Requests per second that fell due.
    pub rate: f64,
    /// In order; what came after the last request fell due is left out.
    pub slices: Vec<Slice>,
    /// Mean time from the actual send to the response, microseconds; 0 when there was none.
    pub service_us: f64,
    /// 99th percentile of the generator's own lateness, microseconds.
    pub late_p99_us: u64,
    /// The generator's CPU time as a share of what it can have (1 is all of it); 0 when not known.
    pub busy: f64,
    /// Requests that failed because this machine ran out of descriptors or ports.
    pub local_errors: u64,
    /// More than 1 % of the requests waited for a connection.
    pub connections_ran_out: bool,
    /// Of each rule that a part of a run cannot tell: its value over the whole trial.
    pub whole: Vec<Option<f64>>,
    /// The failures of a trial without a response, as text.
    pub dead: Option<String>,
    /// When it began, milliseconds since 1970.
    pub started_ms: i64,
}

/// What a rate turned out to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The server keeps up and the rules are kept.
    Under,
    /// It does not, or they are not.
    Over(Why),
    /// Not yet known: a longer look is needed. What it looks like so far.
    Unclear(Box<Verdict>),
    /// The generator, not the server, shaped the figures.
    Generator(String),
    /// No response arrived at all.
    Dead(String),
}

/// Why a rate is too high.
#[derive(Debug, Clone, PartialEq)]
pub enum Why {
    /// More falls due than is answered.
    Backlog,
    /// This rule is broken.
    Rule(String),
}

/// A rate's figures over the steady part of all its trials.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// Each rule's.
    pub checks: Vec<Check>,
    /// Responses per second.
    pub throughput: f64,
    /// Mean number of requests in the server: rate times time when steady (Little's law), counted otherwise.
    pub concurrency: f64,
    /// Growth of the backlog, requests per second.
    pub growth: f64,
    /// The same over the longest trial, in units of the backlog's scatter.
    pub growth_sigma: f64,
    /// Seconds judged.
    pub steady_s: f64,
    /// Latencies of the steady part.
    pub latency: Histogram<u64>,
}

/// Judges all trials at one rate.
pub fn judge(rules: &[Rule], trials: &[Observed]) -> Judged {
    let steady: Vec<&[Slice]> = trials.iter().map(|t| steady(&t.slices)).collect();
    let all: Vec<&Slice> = steady.iter().flat_map(|s| s.iter()).collect();
    let steady_s: f64 = all.iter().map(|s| s.length_s).sum();
    let responses: u64 = all.iter().map(|s| s.responses()).sum();
    let throughput = responses as f64 / steady_s.max(1e-9);
    let longest = trials.iter().max_by_key(|t| t.slices.len());
    let Growth {
        per_s: growth,
        sigma: growth_sigma,
        in_flight,
        ..
    } = longest.map(growth).unwrap_or_default();
    let rate = trials.first().map_or(0.0, |t| t.rate);
    let mut scratch = Resampler::new(rules, trials);
    let values = scratch.values(all.iter().copied());
    let latency = scratch.latency.clone();
    let seen = rules.iter().zip(&values);
    let checks: Vec<Check> = seen
        .map(|(rule, value)| match value {
            Some(value) => rule.judged(*value),
            None => Check::new(rule.text(), false, "nothing was measured"),
        })
        .collect();
    let grows = growth > LEAST_GROWTH * rate;
    let mut verdict = match growth_sigma {
        s if grows && s > GROWS.1 => Verdict::Over(Why::Backlog),
        s if grows && s > GROWS.0 => Verdict::Unclear(Box::new(Verdict::Over(Why::Backlog))),
        _ => by_rules(rules, &checks, &mut scratch, &all),
    };
    if let Some(why) = generator_fault(rules, trials, &verdict) {
        verdict = Verdict::Generator(why);
    }
    if responses == 0
        && let Some(why) = trials.iter().find_map(|t| t.dead.clone())
    {
        verdict = Verdict::Dead(why);
    }
    let service_s =
        trials.iter().map(|t| t.service_us).sum::<f64>() / 1e6 / trials.len().max(1) as f64;
    let concurrency = if matches!(verdict, Verdict::Over(Why::Backlog)) {
        in_flight
    } else {
        throughput * service_s
    };
    Judged {
        verdict,
        checks,
        throughput,
        concurrency,
        growth,
        growth_sigma,
        steady_s,
        latency,
    }
}

fn by_rules(
    rules: &[Rule],
    checks: &[Check],
    scratch: &mut Resampler<'_>,
    all: &[&Slice],
) -> Verdict {
    let mut kept = vec![0_u64; rules.len()];
    let seen = scratch.values(all.iter().copied());
    let errors = scratch.errors(all, &seen);
    for resample in 0..RESAMPLES {
        let values = scratch.drawn(all, &seen, &errors, resample);
        for ((kept, rule), value) in kept.iter_mut().zip(rules).zip(values) {
            *kept += u64::from(value.is_some_and(|v| rule.keeps(v)));
        }
    }
    let share = |kept: u64| kept as f64 / RESAMPLES as f64;
    let broken = |i: usize| Verdict::Over(Why::Rule(rules[i].text().to_owned()));
    let unlikely = |i: usize| chance(&rules[i], all).is_none_or(|p| p <= 1.0 - SURE);
    let mut sides = kept.iter().enumerate();
    if let Some((i, _)) = sides.find(|(i, k)| share(**k) <= 1.0 - SURE && unlikely(*i)) {
        return broken(i);
    }
    if kept.iter().all(|k| share(*k) >= SURE) {
        return Verdict::Under;
    }
    let so_far = checks.iter().position(|c| !c.passed);
    Verdict::Unclear(Box::new(so_far.map_or(Verdict::Under, broken)))
}

/// The chance that so many requests are beyond the bound of a rule on a quantile when just as many as it allows are in
/// the long run: one slow request of forty says little of p99.
fn chance(rule: &Rule, all: &[&Slice]) -> Option<f64> {
    let (q, bound) = (rule.latency_quantile()?, rule.bound_us()?);
    let (mut count, mut beyond) = (0.0, 0.0);
    for (value, n) in all.iter().flat_map(|s| &s.latency) {
        count += *n as f64;
        beyond += if *value as f64 > bound {
            *n as f64
        } else {
            0.0
        };
    }
    let worth = independent(all).min(count);
    let hits = beyond / f64::max(count, 1.0) * worth;
    Some(binomial_at_least(hits, worth, 1.0 - q))
}

/// What the generator itself did wrong, if anything.
fn generator_fault(rules: &[Rule], trials: &[Observed], verdict: &Verdict) -> Option<String> {
    let local: u64 = trials.iter().map(|t| t.local_errors).sum();
    if local > 0 {
        return Some(format!(
            "this machine ran out of file descriptors or ports {local} times"
        ));
    }
    // What keeps the rules in spite of a late generator keeps them.
    let Verdict::Over(why) = verdict else {
        return None;
    };
    let last = trials.last()?;
    let late = last.late_p99_us as f64;
    let too_late = match why {
        // A late generator holds requests back; a slow server has them.
        Why::Backlog => late > 1e4 && growth(last).held > 0.5,
        Why::Rule(text) => {
            let bound = rules.iter().find(|r| r.text() == text)?.bound_us();
            bound.is_some_and(|bound| late > bound / 4.0)
        }
    };
    if too_late {
        return Some(format!(
            "1 % of the requests left {:.1} ms or more after they were due with a connection free",
            late / 1e3
        ));
    }
    (last.busy > BUSY).then(|| format!("its CPU was {:.0} % busy", (last.busy * 100.0).min(100.0)))
}

/// The slices after the warm-up. The first fifth never counts: connections open and queues fill. A server that is cold
/// shows as slices slower than any of the second half; they are left out too, up to the half. (A cut that makes the rest
/// look most even, as MSER does, removes a queue's own peaks and with them the percentiles.)
pub(super) fn steady(slices: &[Slice]) -> &[Slice] {
    let n = slices.len();
    if n < 4 {
        return slices;
    }
    let mean = |i: usize| slices[i].mean_us().unwrap_or(0.0);
    let slowest = (n / 2..n).map(mean).fold(0.0, f64::max);
    let mut from = n.div_ceil(5);
    while from < n / 2 && mean(from) > slowest {
        from += 1;
    }
    &slices[from..]
}

/// How the backlog (due and not ended) grows over the last three quarters of a trial.
#[derive(Debug, Clone, Copy, Default)]
struct Growth {
    /// Requests per second.
    per_s: f64,
    /// The growth over that time in units of the scatter about the line.
    sigma: f64,
    /// Mean number of requests under way.
    in_flight: f64,
    /// The share of the growth that was not even sent.
    held: f64,
}

fn growth(trial: &Observed) -> Growth {
    let (mut t, mut backlog, mut flight) = (0.0, 0.0, 0.0);
    let mut points = Vec::with_capacity(trial.slices.len());
    for slice in &trial.slices {
        t += slice.length_s;
        backlog += slice.due - slice.ended() as f64;
        flight += slice.sent as f64 - slice.ended() as f64;
        points.push((t, backlog, flight));
    }
    let points = &points[points.len() / 4..];
    let n = points.len() as f64;
    if points.len() < 3 {
        return Growth::default();
    }
    let mean_t = points.iter().map(|p| p.0).sum::<f64>() / n;
    let mean_b = points.iter().map(|p| p.1).sum::<f64>() / n;
    let in_flight = points.iter().map(|p| p.2).sum::<f64>() / n;
    let spread: f64 = points.iter().map(|p| (p.0 - mean_t).powi(2)).sum();
    let slope = points
        .iter()
        .map(|p| (p.0 - mean_t) * (p.1 - mean_b))
        .sum::<f64>()
        / spread.max(1e-12);
    let rest: f64 = points
        .iter()
        .map(|p| (p.1 - mean_b - slope * (p.0 - mean_t)).powi(2))
        .sum();
    // Requests are whole: the backlog is not known better than that.
    let scatter = (rest / (n - 2.0)).sqrt().max(0.6);
    let (first, last) = (points[0], points[points.len() - 1]);
    let (grown, sent) = (last.1 - first.1, last.2 - first.2);
    Growth {
        per_s: slope,
        sigma: slope * (last.0 - first.0) / scatter,
        in_flight,
        held: (grown - sent) / grown.max(1.0),
    }
}

/// Blocks of neighbouring slices drawn with replacement, as many slices as there are (circular block bootstrap).
fn blocks<'a>(all: &[&'a Slice], resample: u64) -> impl Iterator<Item = &'a Slice> {
    let n = all.len();
    // Neighbours resemble each other, the more the fuller the server: six blocks, however long the look.
    let block = n.div_ceil(6).max(2);
    (0..n).map(move |i| {
        let from = mix(n as u64, resample, (i / block) as u64) % n.max(1) as u64;
        all[(from as usize + i % block) % n]
    })
}

/// The chance of at least so many hits of n at a probability each; also between whole numbers (the incomplete beta
/// function, DLMF 8.17.5).
fn binomial_at_least(hits: f64, n: f64, p: f64) -> f64 {
    if hits <= 0.0 {
        return 1.0;
    }
    incomplete_beta(hits, (n - hits).max(0.0) + 1.0, p)
}

/// A standard normal number.
pub(super) fn noise(stream: u64, resample: u64) -> f64 {
    let uniform = (mix(stream, resample, 5) >> 11) as f64 + 0.5;
    normal_quantile(uniform / (1_u64 << 53) as f64)
}

/// How many independent requests those of some slices are worth: their number over the design effect of sampling in
/// clusters (Kish, Survey Sampling, 1965, 5.4), since requests of one moment wait in one queue, and over the
/// autocorrelation time of the slices.
fn independent(all: &[&Slice]) -> f64 {
    let means: Vec<f64> = all.iter().filter_map(|s| s.mean_us()).collect();
    let (mut count, mut sum, mut squares) = (0.0, 0.0, 0.0);
    for (value, n) in all.iter().flat_map(|s| &s.latency) {
        let (value, n) = (*value as f64, *n as f64);
        (count, sum, squares) = (count + n, sum + n * value, squares + n * value * value);
    }
    let k = means.len() as f64;
    if means.len() < 3 || count < 3.0 {
        return 1.0;
    }
    let within = (squares / count - (sum / count).powi(2)).max(1e-9);
    let mean = means.iter().sum::<f64>() / k;
    let between = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (k - 1.0);
    let follows = means
        .windows(2)
        .map(|w| (w[0] - mean) * (w[1] - mean))
        .sum::<f64>()
        / k;
    let kept = (follows / between.max(1e-9)).clamp(0.0, 0.8);
    let effect = (between * count / k / within).max(1.0);
    (count / effect * (1.0 - kept) / (1.0 + kept)).max(1.0)
}

/// The standard error of a quantile in microseconds: sqrt(q (1 - q) / n) over the density there. Beyond p90 the density
/// is that of an exponential tail through the quantile and the one with ten times as much beyond it.
fn quantile_error(latency: &Histogram<u64>, q: f64, independent: f64) -> f64 {
    let at = |q: f64| latency.value_at_quantile(q) as f64;
    let q = q.clamp(0.001, 1.0 - 1.0 / (latency.len() as f64 + 1.0));
    if q >= 0.9 {
        let scale = (at(q) - at(1.0 - 10.0 * (1.0 - q))).max(0.0) / 10_f64.ln();
        return scale * (q / ((1.0 - q) * independent)).sqrt();
    }
    let beside = q.min(1.0 - q) / 2.0;
    let slope = (at(q + beside) - at(q - beside)) / (2.0 * beside);
    slope * (q * (1.0 - q) / independent).sqrt()
}

/// Evaluates the rules on any choice of a rate's slices.
pub(super) struct Resampler<'a> {
    rules: &'a [Rule],
    whole: Vec<Option<f64>>,
    latency: Histogram<u64>,
}

impl<'a> Resampler<'a> {
    pub(super) fn new(rules: &'a [Rule], trials: &[Observed]) -> Resampler<'a> {
        Resampler {
            rules,
            whole: trials.last().map(|t| t.whole.clone()).unwrap_or_default(),
            latency: histogram(),
        }
    }

    /// Draws each rule's value: on resampled slices, and for quantiles of the latency from what was seen and its error,
    /// since a few slices without a queue's rare peaks do not know of them.
    pub(super) fn drawn(
        &mut self,
        all: &[&Slice],
        seen: &[Option<f64>],
        errors: &[Option<f64>],
        resample: u64,
    ) -> Vec<Option<f64>> {
        // Where each value comes from what was seen, nothing need be drawn.
        let all_seen = seen
            .iter()
            .zip(errors)
            .all(|(s, e)| s.is_some() && e.is_some());
        let mut values = if all_seen {
            vec![None; self.rules.len()]
        } else {
            self.values(blocks(all, resample))
        };
        for ((value, seen), error) in values.iter_mut().zip(seen).zip(errors) {
            if let (Some(seen), Some(error)) = (seen, error) {
                let moved = noise(seen.to_bits(), resample) * error;
                *value = Some(seen * moved.exp());
            }
        }
        values
    }

    /// The relative error of each rule's value, of those on quantiles of the latency ([`quantile_error`]).
    pub(super) fn errors(&mut self, all: &[&Slice], seen: &[Option<f64>]) -> Vec<Option<f64>> {
        self.values(all.iter().copied());
        let counted = independent(all);
        let each = self.rules.iter().zip(seen);
        each.map(|(rule, seen)| {
            let (q, seen) = (rule.latency_quantile()?, seen.filter(|v| *v > 0.0)?);
            Some(quantile_error(&self.latency, q, counted) / seen)
        })
        .collect()
    }

    /// Each rule's value; none when nothing was measured.
    pub(super) fn values<'s>(
        &mut self,
        slices: impl Iterator<Item = &'s Slice>,
    ) -> Vec<Option<f64>> {
        self.latency.reset();
        let mut status = BTreeMap::new();
        let (mut ended, mut failed) = (0, 0);
        for slice in slices {
            for (value, count) in &slice.latency {
                self.latency.saturating_record_n(*value, *count);
            }
            for (code, count) in &slice.status {
                *status.entry(*code).or_default() += count;
            }
            ended += slice.ended();
            failed += slice.errors;
        }
        let part = Part {
            latency: &self.latency,
            ended,
            failed,
            status: &status,
        };
        let rules = self.rules.iter().enumerate();
        rules
            .map(|(i, rule)| {
                let whole = self.whole.get(i).copied().flatten();
                rule.of_part(&part).unwrap_or(whole)
            })
            .collect()
    }
}

/// Whether a running step need not go on: its backlog is large and the server has fallen behind for a second. `seen`
/// are seconds since its start and requests ended until then; `latency_s` is what the server took at lower rates.
pub fn hopeless(rate: f64, latency_s: f64, seen: &[(f64, u64)]) -> bool {
    let Some((now, ended)) = seen.last().copied() else {
        return false;
    };
    let before = seen.iter().rev().find(|(t, _)| *t <= now - 0.99);
    let Some((then, earlier)) = before.copied().filter(|_| now >= 1.5 + 3.0 * latency_s) else {
        return false;
    };
    let lately = (ended - earlier) as f64 / (now - then);
    rate * now - ended as f64 > (0.25 * rate).max(32.0) && lately < 0.8 * rate
}

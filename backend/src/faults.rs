//! Fault knobs: what is injected, where, from when to when, and with which seed. Decisions are pure over the
//! time that is passed in. Must not know how a fault is carried out.

use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};

/// Every knob, with what its fields mean.
pub const KNOBS: &[(&str, &str)] = &[
    (
        "latency",
        "target waits: dist fixed|uniform|lognormal|pause, ms (and ms2: upper bound, or sigma x 1000)",
    ),
    (
        "error",
        "target fails with probability rate; status is the answer of a service",
    ),
    ("cache_off", "cache is bypassed"),
    (
        "cache_refuse",
        "every cache call fails at once, as if the server were down",
    ),
    ("cache_slow", "every cache call takes ms more"),
    ("cache_stale", "deleted keys stay"),
    ("skip_invalidation", "writes do not delete cache keys"),
    ("pool_size", "database pools hold at most value connections"),
    ("slow_query", "every query holds its connection for ms more"),
    ("lock", "every write transaction is held open for ms"),
    ("replica_lag", "the replica applies writes ms later"),
    ("publish_fail", "publishing fails with probability rate"),
    ("worker_crash", "a consumer fails with probability rate"),
    (
        "worker_stop",
        "consumers of queue target (all without one) stop",
    ),
    (
        "poison",
        "a message fails on every delivery, chosen with probability rate",
    ),
    ("external_latency", "third parties take ms more"),
    ("external_error", "third parties fail with probability rate"),
    (
        "clock_skew",
        "the clock that tokens and log lines read is value seconds ahead (behind when negative)",
    ),
    ("disk_full", "nothing can be written to the blob store"),
    ("cpu_burn", "every request burns ms of processor time"),
    ("memory_growth", "value bytes more are kept each second"),
    (
        "health_lie",
        "target healthy: /health says 200 whatever happens; failing: 503 though all is well",
    ),
    ("breaker_off", "breakers always admit"),
    ("retries_off", "one try only"),
    ("no_jitter", "retries wait the whole step"),
    ("limiter_off", "no request is limited"),
    (
        "drop_traceparent",
        "the gateway does not pass the trace context on",
    ),
    ("log_burst", "value extra log lines each second"),
    ("version", "text is the version label"),
    (
        "kill_instance",
        "gateway instance number value refuses connections",
    ),
];

/// One injected fault.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// Name out of [`KNOBS`].
    pub knob: String,
    /// Part it strikes; empty: all.
    pub target: String,
    /// Shape of a latency.
    pub dist: String,
    /// Milliseconds.
    pub ms: f64,
    /// Second parameter of a distribution.
    pub ms2: f64,
    /// Probability 0..=1; unset means always.
    pub rate: Option<f64>,
    /// HTTP status of an injected error.
    pub status: Option<u16>,
    /// Number of a knob that takes one.
    pub value: f64,
    /// Text of a knob that takes one.
    pub text: String,
    /// Seed of its random numbers.
    pub seed: u64,
    /// Begins this many seconds after it was set.
    pub start_s: f64,
    /// Ends this many seconds after it was set; unset: never.
    pub end_s: Option<f64>,
}

/// Body of `PUT /admin/faults`: replaces what was set.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultList {
    /// The faults.
    pub faults: Vec<Fault>,
}

/// Start or end of a fault.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Change {
    /// Unix ms at which it took effect (not at which it was noticed).
    pub at_ms: u64,
    /// Knob.
    pub knob: String,
    /// Target.
    pub target: String,
    /// Whether it began.
    pub on: bool,
}

#[derive(Debug)]
struct Active {
    fault: Fault,
    from_ms: u64,
    until_ms: u64,
    draws: AtomicU64,
    on: bool,
}

/// The faults in force.
#[derive(Debug, Default)]
pub struct Faults {
    any: AtomicBool,
    list: RwLock<Vec<Active>>,
}

/// A fault that strikes now, with its random number.
#[derive(Clone, Debug)]
pub struct Hit {
    /// The fault.
    pub fault: Fault,
    /// Drawn from its seed, 0..1.
    pub random: f64,
}

// === impl Faults ===

impl Faults {
    /// Replaces all faults; an unknown knob or a bad number is an error that says what was meant.
    pub fn set(&self, faults: Vec<Fault>, now_ms: u64) -> Result<Vec<Change>, String> {
        for f in &faults {
            check(f)?;
        }
        let mut list = self.list.write().unwrap_or_else(|e| e.into_inner());
        let mut changes: Vec<Change> = list
            .iter()
            .filter(|a| a.on)
            .map(|a| change(a, now_ms, false))
            .collect();
        *list = faults.into_iter().map(|f| activate(f, now_ms)).collect();
        self.any.store(!list.is_empty(), Ordering::Release);
        drop(list);
        changes.extend(self.tick(now_ms));
        Ok(changes)
    }

    /// What was set.
    pub fn list(&self) -> Vec<Fault> {
        self.list
            .read()
            .unwrap_or_else(|e| e.into_inner())
            .iter()
            .map(|a| a.fault.clone())
            .collect()
    }

    /// Changes since the last call, in order.
    pub fn tick(&self, now_ms: u64) -> Vec<Change> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut list = self.list.write().unwrap_or_else(|e| e.into_inner());
        let mut changes = Vec::new();
        for a in list.iter_mut() {
            let on = a.from_ms <= now_ms && now_ms < a.until_ms;
            if on != a.on {
                changes.push(change(a, if on { a.from_ms } else { a.until_ms }, on));
                a.on = on;
            }
        }
        changes.sort_by_key(|c| c.at_ms);
        changes
    }

    /// Whether the thing called `key` is chosen, the same answer every time it is asked.
    pub fn chosen(&self, knob: &str, target: &str, key: u64, now_ms: u64) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let list = self.list.read().unwrap_or_else(|e| e.into_inner());
        list.iter().any(|a| {
            a.matches(knob, target, now_ms)
                && number(a.fault.seed, key) < a.fault.rate.unwrap_or(1.0)
        })
    }

    /// The fault of this knob and target that strikes now. A rate draws the next number of the fault's own seed.
    pub fn hit(&self, knob: &str, target: &str, now_ms: u64) -> Option<Hit> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        let list = self.list.read().unwrap_or_else(|e| e.into_inner());
        list.iter().find_map(|a| a.strikes(knob, target, now_ms))
    }
}

impl Active {
    fn matches(&self, knob: &str, target: &str, now_ms: u64) -> bool {
        let f = &self.fault;
        let named = f.knob == knob && (f.target.is_empty() || f.target == target);
        named && (self.from_ms..self.until_ms).contains(&now_ms)
    }

    fn strikes(&self, knob: &str, target: &str, now_ms: u64) -> Option<Hit> {
        let f = &self.fault;
        if !self.matches(knob, target, now_ms) {
            return None;
        }
        let draw = self.draws.fetch_add(2, Ordering::Relaxed);
        if f.rate.is_some_and(|rate| number(f.seed, draw) >= rate) {
            return None;
        }
        Some(Hit {
            fault: f.clone(),
            random: number(f.seed, draw + 1),
        })
    }
}

impl Hit {
    /// Milliseconds to wait; `pause` waits until its fault ends, at most `ms` (or a minute).
    pub fn wait_ms(&self) -> f64 {
        let f = &self.fault;
        match f.dist.as_str() {
            "uniform" => f.ms + (f.ms2 - f.ms).max(0.0) * self.random,
            "lognormal" => lognormal(f.ms, f.ms2 / 1000.0, self.random),
            "pause" if f.ms <= 0.0 => 60_000.0,
            _ => f.ms,
        }
    }
}

/// Lognormal with median `median` at quantile `u` (0..1), by a logistic approximation of the normal quantile.
pub fn lognormal(median: f64, sigma: f64, u: f64) -> f64 {
    let u = u.clamp(1e-6, 1.0 - 1e-6);
    median * (sigma * (u / (1.0 - u)).ln() / 1.702).exp()
}

fn number(seed: u64, draw: u64) -> f64 {
    StdRng::seed_from_u64(seed ^ draw.wrapping_mul(0x9E37_79B9_7F4A_7C15)).random()
}

fn change(a: &Active, at_ms: u64, on: bool) -> Change {
    Change {
        at_ms,
        knob: a.fault.knob.clone(),
        target: a.fault.target.clone(),
        on,
    }
}

/// The fault that a request brings for itself: `knob=latency,target=product,ms=300`. Only `latency` and `error` can
/// strike one request alone.
pub fn of_header(text: &str) -> Result<Fault, String> {
    let mut map = serde_json::Map::new();
    for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (key, value) = part
            .split_once('=')
            .ok_or_else(|| format!("x-fault: `{part}` is not key=value"))?;
        let number = value
            .parse::<f64>()
            .ok()
            .filter(|_| key != "target" && key != "text");
        let value = match number {
            Some(n) if n.fract() == 0.0 && (0.0..1e15).contains(&n) => (n as u64).into(),
            Some(n) => n.into(),
            None => value.into(),
        };
        map.insert(key.to_owned(), value);
    }
    let fault: Fault = serde_json::from_value(map.into()).map_err(|e| format!("x-fault: {e}"))?;
    check(&fault).map_err(|e| format!("x-fault: {e}"))?;
    if !["latency", "error"].contains(&fault.knob.as_str()) {
        return Err(format!(
            "x-fault: knob `{}` cannot strike one request alone; expected latency or error",
            fault.knob
        ));
    }
    Ok(fault)
}

fn activate(fault: Fault, now_ms: u64) -> Active {
    let at = |s: f64| now_ms + (s.max(0.0) * 1000.0) as u64;
    let (from_ms, until_ms) = (at(fault.start_s), fault.end_s.map_or(u64::MAX, at));
    Active {
        fault,
        from_ms,
        until_ms,
        draws: AtomicU64::new(0),
        on: false,
    }
}

fn check(f: &Fault) -> Result<(), String> {
    if !KNOBS.iter().any(|(name, _)| *name == f.knob) {
        let best = KNOBS.iter().map(|(n, _)| (distance(n, &f.knob), *n)).min();
        let hint = best
            .filter(|(d, _)| *d <= 4)
            .map_or(String::new(), |(_, n)| format!("; did you mean `{n}`?"));
        return Err(format!("unknown knob `{}`{hint}", f.knob));
    }
    if f.rate.is_some_and(|r| !(0.0..=1.0).contains(&r)) {
        return Err(format!("knob `{}`: rate is outside 0..=1", f.knob));
    }
    if !["", "fixed", "uniform", "lognormal", "pause"].contains(&f.dist.as_str()) {
        return Err(format!(
            "knob `{}`: dist `{}` is not fixed, uniform, lognormal or pause",
            f.knob, f.dist
        ));
    }
    if f.end_s.is_some_and(|end| end <= f.start_s)
        || [f.ms, f.ms2, f.value, f.start_s]
            .iter()
            .any(|n| !n.is_finite() || *n < 0.0 && f.knob != "clock_skew")
    {
        return Err(format!(
            "knob `{}`: numbers must be finite, not negative, and end_s after start_s",
            f.knob
        ));
    }
    if f.status.is_some_and(|s| !(400..600).contains(&s)) {
        return Err(format!("knob `{}`: status must be 400..=599", f.knob));
    }
    Ok(())
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = if x == *y {
                corner
            } else {
                1 + corner.min(row[j]).min(row[j + 1])
            };
            corner = row[j + 1];
            row[j + 1] = cost;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(knob: &str) -> Fault {
        Fault {
            knob: knob.into(),
            ..Fault::default()
        }
    }

    #[test]
    fn a_schedule_begins_and_ends_and_tells() {
        let faults = Faults::default();
        let f = Fault {
            start_s: 1.0,
            end_s: Some(2.0),
            ..fault("cache_refuse")
        };
        assert_eq!(faults.set(vec![f], 10_000).unwrap(), []);
        assert!(faults.hit("cache_refuse", "", 10_999).is_none());
        assert!(faults.hit("cache_refuse", "", 11_000).is_some());
        assert!(faults.hit("cache_refuse", "", 12_000).is_none());
        let told: Vec<_> = faults
            .tick(11_500)
            .iter()
            .chain(&faults.tick(13_000))
            .map(|c| (c.at_ms, c.on))
            .collect();
        assert_eq!(told, [(11_000, true), (12_000, false)]);
    }

    #[test]
    fn the_same_seed_gives_the_same_failures_near_the_rate() {
        let run = || {
            let faults = Faults::default();
            faults
                .set(
                    vec![Fault {
                        rate: Some(0.3),
                        seed: 9,
                        ..fault("error")
                    }],
                    0,
                )
                .unwrap();
            (0..2000)
                .map(|_| faults.hit("error", "db", 1).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(run(), run());
        let n = run().iter().filter(|x| **x).count();
        assert!((500..700).contains(&n), "{n}");
    }

    #[test]
    fn a_header_brings_a_fault_or_says_why_not() {
        let f = of_header("knob=latency, target=product,ms=12.5").unwrap();
        assert_eq!(
            (f.knob.as_str(), f.target.as_str(), f.ms),
            ("latency", "product", 12.5)
        );
        assert_eq!(
            of_header("knob=error,status=503").unwrap().status,
            Some(503)
        );
        for (text, why) in [
            ("latency", "is not key=value"),
            ("knob=latenzy", "did you mean `latency`"),
            ("knob=cache_off", "cannot strike one request alone"),
            ("knob=latency,millis=3", "unknown field `millis`"),
            ("knob=error,status=99999999", "x-fault"),
        ] {
            let error = of_header(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_typo_is_named() {
        let error = Faults::default()
            .set(vec![fault("cache_refus")], 0)
            .unwrap_err();
        assert!(error.contains("did you mean `cache_refuse`"), "{error}");
    }
}

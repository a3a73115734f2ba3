//! Owns what is recorded of each request: totals, histograms, this second's window and the live counters, in constant
//! memory however long the run is. Reads no clock and sends nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use model::Labels;

use crate::conn::{ErrorKind, Opened, Timings};
use crate::hdr;
use crate::report::{Phases, Quantiles, RouteReport, RouteSecond, Second};
use crate::seconds::Kept;

/// Upper bounds of the exported latency buckets, in seconds.
pub(crate) const BUCKETS: [f64; 15] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// Beyond so many routes the seconds are not split by route: each costs a histogram.
const ROUTES_PER_SECOND: usize = 32;

/// The longest time a histogram tells from others, in microseconds: 10 minutes.
pub(crate) const LONGEST_US: u64 = 600_000_000;

/// An empty histogram of microseconds: 3 digits, 1 us to 10 minutes, fixed size (about 170 KB).
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST_US, 3)
        .expect("the bounds are constants hdrhistogram accepts")
}

/// The same, growing as values need it: from 16 KB (2 ms) by 8 KB each time they double. Values go in by [`note`];
/// `saturating_record` would cut them off where it has grown to.
pub(crate) fn growing() -> Histogram<u64> {
    let mut h = Histogram::new_with_bounds(1, 2000, 3)
        .expect("the bounds are constants hdrhistogram accepts");
    h.auto(true);
    h
}

/// Counts a value; one that is too long counts as the longest.
pub(crate) fn note(h: &mut Histogram<u64>, us: u64) {
    h.record(us.min(LONGEST_US))
        .expect("a histogram that grows takes any value up to the longest");
}

/// Whole microseconds, rounded.
pub(crate) fn micros(d: Duration) -> u64 {
    d.as_secs().saturating_mul(1_000_000) + u64::from((d.subsec_nanos() + 500) / 1000)
}

/// One finished request; instants as offsets from the run's start.
pub(crate) struct Sample {
    pub(crate) route: usize,
    /// When it should have been sent.
    pub(crate) due: Duration,
    /// When a worker took it.
    pub(crate) picked: Duration,
    /// When it was handed to an open connection (or failed to be).
    pub(crate) sent: Duration,
    pub(crate) ended: Duration,
    /// The worker found it waiting, all connections having been busy.
    pub(crate) queued: bool,
    /// A connection was opened for it.
    pub(crate) opened: Option<Opened>,
    /// It was sent again after a stale connection.
    pub(crate) reconnected: bool,
    pub(crate) outcome: Result<Answer, ErrorKind>,
}

/// What a response came to.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) bytes: u64,
    pub(crate) timings: Timings,
}

/// Cumulative classic histogram.
#[derive(Default)]
struct Classic {
    counts: [u64; BUCKETS.len() + 1],
    sum: f64,
}

impl Classic {
    fn record(&mut self, d: Duration) {
        let seconds = d.as_secs_f64();
        self.counts[BUCKETS.partition_point(|b| *b < seconds)] += 1;
        self.sum += seconds;
    }

    fn series(&self, name: &str, base: &Labels, out: &mut Vec<(Labels, f64)>) {
        let mut total = 0;
        for (i, count) in self.counts.iter().enumerate() {
            total += count;
            let le = BUCKETS
                .get(i)
                .map_or_else(|| "+Inf".to_owned(), |b| b.to_string());
            out.push((
                named(base, &format!("{name}_bucket")).with("le", &le),
                total as f64,
            ));
        }
        out.push((named(base, &format!("{name}_sum")), self.sum));
        out.push((named(base, &format!("{name}_count")), total as f64));
    }
}

fn named(base: &Labels, name: &str) -> Labels {
    base.with("__name__", name)
}

/// Everything recorded so far.
pub(crate) struct Stats {
    warm_up: Duration,
    pub(crate) requests: u64,
    pub(crate) responses: u64,
    pub(crate) reconnects: u64,
    pub(crate) connections_opened: u64,
    pub(crate) bytes: u64,
    pub(crate) waited_for_connection: u64,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) status: BTreeMap<u16, u64>,
    pub(crate) failure_time: Histogram<u64>,
    pub(crate) timeouts: u64,
    pub(crate) phases: Phases,
    pub(crate) routes: Vec<RouteReport>,
    pub(crate) per_second: Vec<Second>,
    /// Keep each second's whole histogram, encoded.
    keep_seconds: bool,
    kept: Kept,
    window: Window,
    live: Live,
}

/// The current second, warm-up included.
struct Window {
    sent: u64,
    responses: u64,
    status: BTreeMap<u16, u64>,
    errors: BTreeMap<String, u64>,
    latency: Histogram<u64>,
    first_byte: Histogram<u64>,
    /// Latency by route; empty when there is one route or too many.
    routes: Vec<Histogram<u64>>,
}

/// Since the start, warm-up included.
#[derive(Default)]
struct Live {
    sent: u64,
    status: BTreeMap<u16, u64>,
    errors: BTreeMap<&'static str, u64>,
    latency: Classic,
    service_time: Classic,
}

impl Stats {
    pub(crate) fn new(warm_up: Duration, routes: usize) -> Stats {
        Stats {
            warm_up,
            requests: 0,
            responses: 0,
            reconnects: 0,
            connections_opened: 0,
            bytes: 0,
            waited_for_connection: 0,
            errors: BTreeMap::new(),
            status: BTreeMap::new(),
            failure_time: growing(),
            timeouts: 0,
            phases: Phases::new(),
            routes: (0..routes).map(|_| RouteReport::new()).collect(),
            per_second: Vec::new(),
            keep_seconds: false,
            kept: Kept::default(),
            window: Window {
                sent: 0,
                responses: 0,
                status: BTreeMap::new(),
                errors: BTreeMap::new(),
                latency: growing(),
                first_byte: growing(),
                routes: if (2..=ROUTES_PER_SECOND).contains(&routes) {
                    (0..routes).map(|_| growing()).collect()
                } else {
                    Vec::new()
                },
            },
            live: Live::default(),
        }
    }

    /// Keeps each second's whole histogram, or not.
    pub(crate) fn keep_seconds(mut self, keep: bool) -> Stats {
        self.keep_seconds = keep;
        self
    }

    /// Counts a request as it starts.
    pub(crate) fn started(&mut self, due: Duration) {
        self.started_many(1, u64::from(due >= self.warm_up));
    }

    /// Counts requests as they start, and those of them due in the measured part.
    pub(crate) fn started_many(&mut self, all: u64, measured: u64) {
        self.live.sent += all;
        self.window.sent += all;
        self.requests += measured;
    }

    /// Records a finished request.
    pub(crate) fn record(&mut self, s: &Sample) {
        let latency = s.ended.saturating_sub(s.due);
        let service = s.ended.saturating_sub(s.sent);
        // A request that ran out of time waited at least so long: leaving it out would flatter the tail.
        let waited = matches!(s.outcome, Ok(_) | Err(ErrorKind::Timeout));
        if waited {
            self.live.latency.record(latency);
            note(&mut self.window.latency, micros(latency));
            if let Some(route) = self.window.routes.get_mut(s.route) {
                note(route, micros(latency));
            }
        }
        match &s.outcome {
            Ok(answer) => {
                *self.live.status.entry(answer.status).or_default() += 1;
                self.live.service_time.record(service);
                self.window.responses += 1;
                *self.window.status.entry(answer.status).or_default() += 1;
                note(
                    &mut self.window.first_byte,
                    micros(answer.timings.first_byte),
                );
            }
            Err(kind) => {
                *self.live.errors.entry(kind.as_str()).or_default() += 1;
                let kind = kind.as_str().to_owned();
                *self.window.errors.entry(kind).or_default() += 1;
            }
        }
        if s.due >= self.warm_up {
            self.measure(s, waited.then_some(micros(latency)), micros(service));
        }
    }

    fn measure(&mut self, s: &Sample, latency: Option<u64>, service: u64) {
        let route = &mut self.routes[s.route];
        route.requests += 1;
        if let Some(latency) = latency {
            note(&mut route.latency, latency);
        }
        let wait = s.picked.saturating_sub(s.due);
        let (generator, connection) = if s.queued {
            (Duration::ZERO, wait)
        } else {
            (wait, Duration::ZERO)
        };
        note(&mut self.phases.generator, micros(generator));
        note(&mut self.phases.connection, micros(connection));
        self.waited_for_connection += u64::from(connection >= Duration::from_millis(10));
        self.reconnects += u64::from(s.reconnected);
        if let Some(opened) = s.opened {
            self.connections_opened += 1;
            note(&mut self.phases.connect, micros(opened.dns + opened.tcp));
            if !opened.tls.is_zero() {
                note(&mut self.phases.tls, micros(opened.tls));
            }
        }
        match &s.outcome {
            Ok(answer) => {
                self.responses += 1;
                self.bytes += answer.bytes;
                *self.status.entry(answer.status).or_default() += 1;
                note(
                    &mut self.phases.first_byte,
                    micros(answer.timings.first_byte),
                );
                note(&mut self.phases.transfer, micros(answer.timings.transfer));
                route.responses += 1;
                *route.status.entry(answer.status).or_default() += 1;
                note(&mut route.service_time, service);
            }
            Err(kind) => {
                note(
                    &mut self.failure_time,
                    micros(s.ended.saturating_sub(s.due)),
                );
                self.timeouts += u64::from(*kind == ErrorKind::Timeout);
                *self.errors.entry(kind.as_str().to_owned()).or_default() += 1;
                *route.errors.entry(kind.as_str().to_owned()).or_default() += 1;
            }
        }
    }

    /// Closes the current second, which began at `from` and lasted `length`.
    pub(crate) fn close_second(
        &mut self,
        from: Duration,
        length: Duration,
        offered: f64,
    ) -> Second {
        let w = &mut self.window;
        let second = Second {
            at_s: from.as_secs_f64(),
            length_s: length.as_secs_f64(),
            warm_up: from < self.warm_up,
            offered,
            sent: w.sent,
            responses: w.responses,
            errors: w.errors.values().sum(),
            status: std::mem::take(&mut w.status),
            error_kinds: std::mem::take(&mut w.errors),
            latency: Quantiles::of(&w.latency),
            first_byte: Quantiles::of(&w.first_byte),
            routes: w.routes.iter().map(RouteSecond::of).collect(),
            hdr: self.keep_seconds.then(|| hdr::encode(&w.latency)),
        };
        let copy = second.clone();
        self.kept
            .push(&mut self.per_second, copy, &w.latency, &w.first_byte);
        (w.sent, w.responses) = (0, 0);
        w.latency.reset();
        w.first_byte.reset();
        w.routes.iter_mut().for_each(Histogram::reset);
        second
    }

    /// Latency from the planned instant, and from the real one, of all routes.
    pub(crate) fn whole(&self) -> (Histogram<u64>, Histogram<u64>) {
        let (mut latency, mut service_time) = (growing(), growing());
        for route in &self.routes {
            // All have the same bounds.
            let _ = latency.add(&route.latency);
            let _ = service_time.add(&route.service_time);
        }
        (latency, service_time)
    }

    /// Sent, answered and failed since the start, warm-up included.
    pub(crate) fn totals(&self) -> (u64, u64, u64) {
        (
            self.live.sent,
            self.live.status.values().sum(),
            self.live.errors.values().sum(),
        )
    }

    /// The cumulative samples of this moment.
    pub(crate) fn series(&self, base: &Labels) -> Vec<(Labels, f64)> {
        let mut out = Vec::new();
        for (status, count) in &self.live.status {
            let labels =
                named(base, "nines_load_requests_total").with("status", &status.to_string());
            out.push((labels, *count as f64));
        }
        for (kind, count) in &self.live.errors {
            out.push((
                named(base, "nines_load_errors_total").with("kind", kind),
                *count as f64,
            ));
        }
        self.live
            .latency
            .series("nines_load_latency_seconds", base, &mut out);
        self.live
            .service_time
            .series("nines_load_service_time_seconds", base, &mut out);
        out
    }
}

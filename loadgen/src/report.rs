//! Owns the report of a run: its fields, its verdict on itself, and its text. The JSON form is in `json`.
//! Sends nothing and reads no clock.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::stats::growing;

/// What a run saw. Counts cover the measured part only; every histogram is in microseconds.
#[derive(Debug, Clone)]
pub struct Report {
    /// Name of the run.
    pub run_id: String,
    /// Scenario label.
    pub scenario: String,
    /// This worker's number, from 1, and the number of workers, when the run is one of several.
    pub shard: Option<(u32, u32)>,
    /// Base URL.
    pub target: String,
    /// Start of the measured part, milliseconds since 1970.
    pub started_ms: i64,
    /// From the start of the measured part until the last request was over, in seconds.
    pub duration_s: f64,
    /// Requests that fell due.
    pub planned: u64,
    /// Requests started.
    pub requests: u64,
    /// Complete responses, whatever their status.
    pub responses: u64,
    /// Failures by kind ([`crate::conn::ErrorKind::as_str`]).
    pub errors: BTreeMap<String, u64>,
    /// Responses by status code.
    pub status: BTreeMap<u16, u64>,
    /// Bytes received, headers included.
    pub bytes: u64,
    /// Requests repeated once because a kept connection had gone stale.
    pub reconnects: u64,
    /// Connections opened.
    pub connections_opened: u64,
    /// Requests that waited 10 ms or more for a free connection.
    pub waited_for_connection: u64,
    /// From the instant a request was due until its end; timeouts and unsent requests enter as lower bounds.
    pub latency: Histogram<u64>,
    /// From the instant a request was due until it failed, timeouts included. Failures other than timeouts are here
    /// and not in `latency`: a refusal is quick, and would make a server that is down look fast.
    pub failure_time: Histogram<u64>,
    /// From the hand-over to an open connection until the end; responses only.
    pub service_time: Histogram<u64>,
    /// Where the time went.
    pub phases: Phases,
    /// Median lateness of the generator itself.
    pub late_p50_us: u64,
    /// 99th percentile lateness of the generator itself.
    pub late_p99_us: u64,
    /// Requests that ran out of time; in `latency` with the time they had waited.
    pub timeouts: u64,
    /// Requests due that were never started; in `latency` with the time they had waited.
    pub unsent: u64,
    /// How long those had waited when the run ended.
    pub unsent_wait: Histogram<u64>,
    /// True when the run was stopped before its end.
    pub stopped: bool,
    /// False when the generator, not the server, shaped the figures, or when there are none.
    pub valid: bool,
    /// Why the run is invalid, and notes on valid ones.
    pub reasons: Vec<String>,
    /// Second by second, warm-up included; after ten minutes neighbouring seconds are joined in pairs, oldest first, so
    /// that there are never more than 600 steps and a few.
    pub per_second: Vec<Second>,
    /// What was counted of the transport where it was asked for: `redirects_followed`, `redirects_refused`,
    /// `body_bytes`, `decoded_bytes`, `server_max_streams`.
    pub counts: BTreeMap<String, u64>,
    /// By request name.
    pub routes: BTreeMap<String, RouteReport>,
    /// Requests that left more than 1 ms after they were due though a connection was free.
    pub late_sends: u64,
    /// The generator itself.
    pub own: Own,
}

/// What sent the load, and what that cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Own {
    /// `io_uring`, `epoll` or `hyper`; empty when a report does not say.
    pub engine: String,
    /// Threads that sent.
    pub threads: u32,
    /// Their CPU time, user and system, in seconds; of hyper, the whole process'.
    pub cpu_s: f64,
    /// Share of its time that the busiest thread used its core, 0 to 1.
    pub busy: f64,
    /// This machine's processors were kept from sleeping ([`crate::awake`]).
    pub kept_awake: bool,
}

impl Own {
    /// Of threads that sent, by the CPU time of each, in a run that took so long.
    pub(crate) fn of_threads(
        engine: &str,
        cpu: &[Duration],
        over: Duration,
        kept_awake: bool,
    ) -> Own {
        let busiest = cpu.iter().max().copied().unwrap_or_default();
        Own {
            engine: engine.to_owned(),
            threads: cpu.len() as u32,
            cpu_s: cpu.iter().map(Duration::as_secs_f64).sum(),
            busy: busiest.as_secs_f64() / over.as_secs_f64().max(1e-9),
            kept_awake,
        }
    }
}

/// Where the time of each request went.
#[derive(Debug, Clone)]
pub struct Phases {
    /// From due until taken, with a connection free: the generator's own delay.
    pub generator: Histogram<u64>,
    /// From due until taken, all connections busy.
    pub connection: Histogram<u64>,
    /// Name resolution and TCP handshake; requests that opened a connection only.
    pub connect: Histogram<u64>,
    /// TLS handshake; requests that opened a connection only.
    pub tls: Histogram<u64>,
    /// From sent until the response's headers.
    pub first_byte: Histogram<u64>,
    /// From the headers until the end of the body.
    pub transfer: Histogram<u64>,
}

impl Phases {
    pub(crate) fn new() -> Phases {
        Phases {
            generator: growing(),
            connection: growing(),
            connect: growing(),
            tls: growing(),
            first_byte: growing(),
            transfer: growing(),
        }
    }

    /// Each phase with its name, in the order they happen.
    pub fn named(&self) -> [(&'static str, &Histogram<u64>); 6] {
        [
            ("generator_wait", &self.generator),
            ("connection_wait", &self.connection),
            ("connect", &self.connect),
            ("tls", &self.tls),
            ("first_byte", &self.first_byte),
            ("transfer", &self.transfer),
        ]
    }
}

/// The figures of one request name.
#[derive(Debug, Clone)]
pub struct RouteReport {
    /// Requests finished, well or not.
    pub requests: u64,
    /// Complete responses.
    pub responses: u64,
    /// Failures by kind.
    pub errors: BTreeMap<String, u64>,
    /// Responses by status code.
    pub status: BTreeMap<u16, u64>,
    /// As [`Report::latency`], without unsent requests.
    pub latency: Histogram<u64>,
    /// As [`Report::service_time`].
    pub service_time: Histogram<u64>,
}

impl RouteReport {
    pub(crate) fn new() -> RouteReport {
        RouteReport {
            requests: 0,
            responses: 0,
            errors: BTreeMap::new(),
            status: BTreeMap::new(),
            latency: growing(),
            service_time: growing(),
        }
    }
}

/// One route in one second, microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RouteSecond {
    /// Latencies recorded.
    pub count: u64,
    /// Median.
    pub p50: u64,
    /// 95th percentile.
    pub p95: u64,
    /// 99th percentile.
    pub p99: u64,
}

impl RouteSecond {
    pub(crate) fn of(h: &Histogram<u64>) -> RouteSecond {
        if h.is_empty() {
            return RouteSecond::default();
        }
        RouteSecond {
            count: h.len(),
            p50: h.value_at_quantile(0.5),
            p95: h.value_at_quantile(0.95),
            p99: h.value_at_quantile(0.99),
        }
    }
}

/// So many routes are kept apart where files name them: each keeps two histograms, up to some 100 KB.
pub(crate) const MOST_ROUTES: usize = 64;
/// What the rest is called.
pub(crate) const OTHER_ROUTE: &str = "other";

/// Gives routes their names; those of each second, in the order of the names, as [`Second::routes`] has them.
pub(crate) fn named(
    names: &[String],
    mut per_second: Vec<Second>,
    routes: Vec<RouteReport>,
) -> (Vec<Second>, BTreeMap<String, RouteReport>) {
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_unstable_by_key(|i| &names[*i]);
    for second in per_second.iter_mut().filter(|s| !s.routes.is_empty()) {
        second.routes = order.iter().map(|i| second.routes[*i]).collect();
    }
    (per_second, names.iter().cloned().zip(routes).collect())
}

/// One second of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Second {
    /// Start, seconds since the run began.
    pub at_s: f64,
    /// Length in seconds: 1, or less for the last.
    pub length_s: f64,
    /// True when it began in the warm-up.
    pub warm_up: bool,
    /// Requests per second due; for the closed model, those sent.
    pub offered: f64,
    /// Requests started.
    pub sent: u64,
    /// Responses completed.
    pub responses: u64,
    /// Requests failed.
    pub errors: u64,
    /// Responses by status code.
    pub status: BTreeMap<u16, u64>,
    /// Failures by kind.
    pub error_kinds: BTreeMap<String, u64>,
    /// Latency of what ended in it.
    pub latency: Quantiles,
    /// Time to first byte of what ended in it.
    pub first_byte: Quantiles,
    /// Latency by route, in the order of [`Report::routes`]; empty with one route or more than 32.
    pub routes: Vec<RouteSecond>,
    /// The latency's whole histogram (HDR V2, deflated, base64), when the plan asks to keep it.
    pub hdr: Option<String>,
}

/// A histogram's summary, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Quantiles {
    /// Values recorded.
    pub count: u64,
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
    /// Mean.
    pub mean: f64,
    /// 25th percentile; 0 in a run stored before it was recorded.
    pub p25: u64,
    /// Median.
    pub p50: u64,
    /// 75th percentile.
    pub p75: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 95th percentile.
    pub p95: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
}

impl Quantiles {
    /// The summary of a histogram; all zero when it is empty.
    pub fn of(h: &Histogram<u64>) -> Quantiles {
        if h.is_empty() {
            return Quantiles::default();
        }
        Quantiles::new(h.len(), h.min(), h.max(), h.mean(), |q| {
            h.value_at_quantile(q)
        })
    }

    /// A summary whose value at each quantile is what `at` says.
    pub(crate) fn new(
        count: u64,
        min: u64,
        max: u64,
        mean: f64,
        at: impl Fn(f64) -> u64,
    ) -> Quantiles {
        Quantiles {
            count,
            min,
            max,
            mean,
            p25: at(0.25),
            p50: at(0.5),
            p75: at(0.75),
            p90: at(0.9),
            p95: at(0.95),
            p99: at(0.99),
            p999: at(0.999),
        }
    }
}

impl Report {
    /// Sets `valid` and `reasons` from the figures.
    pub(crate) fn judge(&mut self, connections: usize) {
        let mut faults = Vec::new();
        let mut notes = Vec::new();
        if self.late_p99_us > 10_000 {
            faults.push(format!(
                "the generator was late: 1 % of the requests left {} or more after they were due with a connection free",
                ms(self.late_p99_us)
            ));
        }
        let waited = self.waited_for_connection as f64 / self.requests.max(1) as f64;
        if waited > 0.01 {
            notes.push(format!(
                "{:.0} % of the requests waited 10 ms or more for one of {connections} connections; their wait is in the latency",
                waited * 100.0
            ));
        }
        if self.unsent > 0 {
            notes.push(format!(
                "{} requests that were due never left: no connection came free in time",
                self.unsent
            ));
        }
        let cut = (self.timeouts + self.unsent) as f64 / self.latency.len().max(1) as f64;
        if cut > 0.0 {
            notes.push(format!(
                "{} requests are in the latency with the time they had waited when they were given up, a lower bound: percentiles above p{:.2} may be higher",
                self.timeouts + self.unsent,
                (1.0 - cut) * 100.0
            ));
        }
        if let Some(local) = self.errors.get("local") {
            faults.push(format!(
                "this machine ran out of file descriptors or ports {local} times"
            ));
        }
        if self.responses == 0 {
            faults.push("no response arrived".to_owned());
        }
        if self.own.busy > 0.9 {
            notes.push(format!(
                "the generator's own thread was busy {:.0} % of the time: a quicker one, or more threads, might see more",
                self.own.busy * 100.0
            ));
        }
        if self.step_s() > 1 {
            notes.push(format!(
                "a long run: what is told second by second is told in steps of up to {} s",
                self.step_s()
            ));
        }
        if self.stopped {
            notes.push("stopped before its end".to_owned());
        }
        self.valid = faults.is_empty();
        faults.append(&mut notes);
        self.reasons = faults;
    }

    /// The longest step of [`Report::per_second`] in whole seconds, at least 1.
    pub fn step_s(&self) -> u64 {
        // A short run has none; a second that was long was so because the machine slept.
        if self.per_second.len() <= crate::seconds::MOST / 2 {
            return 1;
        }
        let longest = self.per_second.iter().map(|s| s.length_s);
        (longest.fold(1.0, f64::max) + 0.1) as u64
    }

    /// Length of the warm-up in seconds: what lies between [`Second::at_s`] and the measured part's own axis.
    pub fn warm_up_s(&self) -> f64 {
        let warm_up = self.per_second.iter().filter(|s| s.warm_up);
        warm_up.map(|s| s.length_s).sum()
    }

    /// Failures of all kinds.
    pub fn error_count(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Responses per second of the measured part.
    pub fn achieved_rate(&self) -> f64 {
        self.responses as f64 / self.duration_s.max(1e-9)
    }

    /// The report as text for a terminal, planned and actual side by side.
    pub fn summary(&self) -> String {
        let mut out = String::new();
        self.write_summary(&mut out)
            .expect("writing to a string does not fail");
        out
    }

    fn write_summary(&self, out: &mut String) -> std::fmt::Result {
        writeln!(
            out,
            "run {} of {} against {}",
            self.run_id, self.scenario, self.target
        )?;
        let verdict = if self.valid { "valid" } else { "INVALID" };
        writeln!(out, "{verdict}; {:.1} s measured", self.duration_s)?;
        for reason in &self.reasons {
            writeln!(out, "  {reason}")?;
        }
        writeln!(
            out,
            "\nrequests   planned {}   sent {}   unsent {}",
            self.planned, self.requests, self.unsent
        )?;
        let (responses, rate, errors) = (self.responses, self.achieved_rate(), self.error_count());
        writeln!(
            out,
            "responses  {responses} ({rate:.1}/s)   errors {errors}   {} bytes",
            self.bytes
        )?;
        let list = |pairs: Vec<String>| {
            if pairs.is_empty() {
                "none".to_owned()
            } else {
                pairs.join("  ")
            }
        };
        writeln!(
            out,
            "status     {}",
            list(
                self.status
                    .iter()
                    .map(|(k, v)| format!("{k}: {v}"))
                    .collect()
            )
        )?;
        if !self.errors.is_empty() {
            writeln!(
                out,
                "errors     {}",
                list(
                    self.errors
                        .iter()
                        .map(|(k, v)| format!("{k}: {v}"))
                        .collect()
                )
            )?;
        }
        if !self.counts.is_empty() {
            let counts = self.counts.iter();
            let counts = counts.map(|(k, v)| format!("{}: {v}", k.replace('_', " ")));
            writeln!(out, "counted    {}", list(counts.collect()))?;
        }
        row(
            out,
            "\n",
            ["min", "p50", "p90", "p95", "p99", "p99.9", "max"].map(str::to_owned),
        )?;
        quantile_row(out, "from planned send", &self.latency)?;
        quantile_row(out, "from actual send", &self.service_time)?;
        for (name, h) in self.phases.named() {
            if !h.is_empty() {
                quantile_row(out, &format!("  {}", name.replace('_', " ")), h)?;
            }
        }
        if !self.failure_time.is_empty() {
            quantile_row(out, "until failure", &self.failure_time)?;
        }
        let late = (ms(self.late_p50_us), ms(self.late_p99_us));
        writeln!(out, "generator late by {} (p50), {} (p99)", late.0, late.1)?;
        if !self.own.engine.is_empty() {
            let Own {
                engine,
                threads,
                cpu_s,
                busy,
                kept_awake,
            } = &self.own;
            writeln!(
                out,
                "generator {engine}, {threads} thread{}, {cpu_s:.2} CPU s, {:.0} % busy{}",
                if *threads == 1 { "" } else { "s" },
                busy * 100.0,
                if *kept_awake {
                    ", processors kept awake"
                } else {
                    ""
                }
            )?;
        }
        if self.routes.len() > 1 {
            writeln!(out)?;
            for (name, route) in &self.routes {
                let failed: u64 = route.errors.values().sum();
                quantile_row(out, name, &route.latency)?;
                writeln!(
                    out,
                    "{:22} {} responses, {failed} errors",
                    "", route.responses
                )?;
            }
        }
        Ok(())
    }
}

fn quantile_row(out: &mut String, name: &str, h: &Histogram<u64>) -> std::fmt::Result {
    if h.is_empty() {
        return row(out, name, std::array::from_fn(|_| "-".to_owned()));
    }
    let q = Quantiles::of(h);
    row(
        out,
        name,
        [q.min, q.p50, q.p90, q.p95, q.p99, q.p999, q.max].map(ms),
    )
}

fn row(out: &mut String, name: &str, cells: [String; 7]) -> std::fmt::Result {
    let (lead, name) = name
        .strip_prefix('\n')
        .map_or(("", name), |rest| ("\n", rest));
    write!(out, "{lead}{name:22}")?;
    for cell in cells {
        write!(out, " {cell:>10}")?;
    }
    writeln!(out)
}

/// Microseconds as milliseconds, or seconds from 10 s on.
fn ms(us: u64) -> String {
    if us >= 10_000_000 {
        format!("{:.2} s", us as f64 / 1e6)
    } else {
        format!("{:.2} ms", us as f64 / 1e3)
    }
}

/// A run of 1,000 requests of 1 to 1,000 ms with 1 % failures and 1 % of status 503, for tests of outputs.
#[cfg(test)]
pub(crate) fn sample() -> Report {
    use crate::stats::histogram;

    let mut latency = histogram();
    let mut service_time = histogram();
    let mut failure_time = histogram();
    (1..=1000).for_each(|i| latency.saturating_record(i * 1000));
    service_time.saturating_record_n(2000, 990);
    failure_time.saturating_record_n(50, 10);
    let errors = BTreeMap::from([("refused".to_owned(), 10)]);
    let status = BTreeMap::from([(200, 980), (503, 10)]);
    let route = RouteReport {
        requests: 1000,
        responses: 990,
        errors: errors.clone(),
        status: status.clone(),
        latency: latency.clone(),
        service_time: service_time.clone(),
    };
    let second = |i: u32| Second {
        at_s: f64::from(i),
        length_s: 1.0,
        offered: 100.0,
        sent: 100,
        responses: 99,
        errors: 1,
        status: BTreeMap::from([(200, 98), (503, 1)]),
        error_kinds: BTreeMap::from([("refused".to_owned(), 1)]),
        latency: Quantiles::of(&latency),
        ..Second::default()
    };
    Report {
        run_id: "run-1".into(),
        scenario: "default".into(),
        shard: None,
        target: "http://127.0.0.1:8080".into(),
        started_ms: 1_700_000_000_000,
        duration_s: 10.0,
        planned: 1000,
        requests: 1000,
        responses: 990,
        errors,
        status,
        bytes: 99_000,
        reconnects: 0,
        connections_opened: 4,
        waited_for_connection: 0,
        per_second: (0..10).map(second).collect(),
        latency,
        failure_time,
        service_time,
        phases: Phases::new(),
        late_p50_us: 20,
        late_p99_us: 90,
        timeouts: 0,
        unsent: 0,
        unsent_wait: histogram(),
        stopped: false,
        valid: true,
        reasons: Vec::new(),
        counts: BTreeMap::new(),
        routes: BTreeMap::from([("GET /a<b".to_owned(), route)]),
        late_sends: 0,
        own: Own::default(),
    }
}

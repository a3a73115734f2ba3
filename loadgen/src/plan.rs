//! Owns the typed plan of a run: target, weighted requests, arrival model, bounds, and the rules a plan must keep.
//! Opens no connection and reads no clock beyond naming a run.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use crate::LoadError;
use crate::beside::Beside;
use crate::conn::Target;
use crate::outgoing::{Outgoing, Source};
use crate::schedule::mix;
use crate::shape::Shape;
use crate::transport::Transport;

/// The highest rate accepted for a host that is not this machine without [`Plan::own_target`].
pub const MAX_RATE_ELSEWHERE: f64 = 100.0;

/// What to send, where, when and for how long.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Base URL, `http(s)://host[:port]`.
    pub target: String,
    /// The requests, picked at random by weight.
    pub requests: Vec<RequestSpec>,
    /// When requests are due.
    pub model: Model,
    /// Length of the measured part. With `Closed { requests: Some(_) }` the run ends at whichever comes first.
    pub duration: Duration,
    /// Load before the measured part, left out of the report.
    pub warm_up: Duration,
    /// Most connections open at once (1 to 65,536).
    pub connections: usize,
    /// Longest wait for one request, from its actual start (at most 10 minutes).
    pub timeout: Duration,
    /// How long, after the last request fell due, those that still wait may start; the timeout when none is given
    /// (at most an hour). What has not started by then is `unsent`, and in the latency with the time it had waited.
    pub drain: Option<Duration>,
    /// Decides the picks, the random numbers, the trace ids and Poisson gaps.
    pub seed: u64,
    /// Sent in `x-nines-run-id` and put on every sample.
    pub run_id: String,
    /// Put on every sample.
    pub scenario: String,
    /// Trust any certificate.
    pub insecure: bool,
    /// The statement that a target elsewhere belongs to the user.
    pub own_target: bool,
    /// Send only this worker's share: (number from 1, of how many). The workers of one run share plan and seed; each
    /// request belongs to exactly one of them.
    pub shard: Option<(u32, u32)>,
    /// Send the requests in turn, as they are, instead of at random by weight; `{n}` is not replaced.
    pub in_turn: bool,
    /// The arrivals that [`Model::Replay`] repeats: offset from the first, in order, and index of the request.
    pub recorded: Arc<[(Duration, u32)]>,
    /// Keep each second's whole latency histogram in the report (about 1 KB a second).
    pub keep_seconds: bool,
    /// Which engine sends.
    pub engine: Engine,
    /// Threads that send, each with its share of the connections (1 to 64); chosen when none is given.
    pub threads: Option<usize>,
    /// How often the run sums up ([`crate::Second`], [`crate::Progress`]): a second, or less (at least 10 ms) for one
    /// who watches closely.
    pub tick: Duration,
    /// How the requests travel.
    pub transport: Transport,
    /// The closed model: the pause of a connection (of a stream with HTTP/2) between an answer and its next request.
    pub think: Duration,
    /// Hold [`crate::awake::Awake`] as long as the run lasts.
    pub keep_awake: bool,
    /// Set by [`crate::beside::run`]: this plan is run beside another.
    pub beside: Option<Beside>,
}

/// What moves the bytes of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Engine {
    /// The quickest that this machine has and that can carry the plan.
    #[default]
    Auto,
    /// Our own HTTP/1.1 client over io_uring (Linux 6.1).
    IoUring,
    /// Our own HTTP/1.1 client over epoll (Linux).
    Epoll,
    /// hyper over tokio.
    Hyper,
}

/// One kind of request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestSpec {
    /// Name in the report; specs of one name share a row.
    pub name: String,
    /// HTTP method.
    pub method: String,
    /// Path and query; each `{n}` becomes the request's random number.
    pub path: String,
    /// The random number lies in 1 to `range`.
    pub range: u64,
    /// Extra headers.
    pub headers: Vec<(String, String)>,
    /// Body; each `{n}` becomes the same number as in the path.
    pub body: Option<String>,
    /// Relative frequency.
    pub weight: u32,
}

impl RequestSpec {
    /// A GET of this path, named `GET <path>`, weight 1.
    pub fn get(path: &str) -> RequestSpec {
        RequestSpec {
            name: format!("GET {path}"),
            method: "GET".to_owned(),
            path: path.to_owned(),
            range: 1,
            headers: Vec::new(),
            body: None,
            weight: 1,
        }
    }
}

/// When requests are due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Model {
    /// Open arrivals at a constant rate.
    Rate {
        /// Requests per second.
        per_second: f64,
        /// Random (exponential) gaps instead of even ones.
        poisson: bool,
    },
    /// Open arrivals, the rate changing evenly over the measured part; the warm-up runs at `from`.
    Ramp {
        /// Requests per second at the start.
        from: f64,
        /// Requests per second at the end.
        to: f64,
    },
    /// Open arrivals at a rate that changes with time.
    Shape(Shape),
    /// The recorded arrivals of [`Plan::recorded`], so many times as fast. There is no warm-up.
    Replay {
        /// 2 is twice as fast.
        speed: f64,
    },
    /// Each connection sends its next request when the last is answered.
    Closed {
        /// Stop after so many measured requests.
        requests: Option<u64>,
    },
}

impl Plan {
    /// A plan of defaults: `GET /` at 10/s for 10 s, 64 connections, 10 s timeout, a fresh run id.
    ///
    /// # Errors
    /// When the target is no http(s) base URL.
    pub fn new(target: &str) -> Result<Plan, LoadError> {
        Target::parse(target)?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let nanos = now.as_nanos() as u64;
        Ok(Plan {
            target: target.to_owned(),
            requests: vec![RequestSpec::get("/")],
            model: Model::Rate {
                per_second: 10.0,
                poisson: false,
            },
            duration: Duration::from_secs(10),
            warm_up: Duration::ZERO,
            connections: 64,
            timeout: Duration::from_secs(10),
            drain: None,
            seed: 1,
            run_id: format!(
                "{:012x}",
                mix(nanos, u64::from(std::process::id()), 9) >> 16
            ),
            scenario: "default".to_owned(),
            insecure: false,
            own_target: false,
            shard: None,
            in_turn: false,
            recorded: Arc::new([]),
            keep_seconds: false,
            engine: Engine::Auto,
            threads: None,
            tick: Duration::from_secs(1),
            transport: Transport::default(),
            think: Duration::ZERO,
            keep_awake: false,
            beside: None,
        })
    }

    /// How long what waits at the end may still start.
    pub fn drain(&self) -> Duration {
        self.drain.unwrap_or(self.timeout)
    }

    /// The highest rate the model asks for, requests a second; none for the closed model.
    pub(crate) fn peak_rate(&self) -> Option<f64> {
        match self.model {
            Model::Rate { per_second, .. } => Some(per_second),
            Model::Ramp { from, to } => Some(from.max(to)),
            Model::Shape(shape) => Some(shape.peak(self.duration.as_secs_f64())),
            Model::Replay { speed } => self.replay_rate(speed).ok(),
            Model::Closed { .. } => None,
        }
    }

    /// How many requests may be under way at once.
    pub fn slots(&self) -> usize {
        self.connections * self.transport.streams * self.transport.pipeline
    }

    /// The highest rate of a whole second of the replay.
    fn replay_rate(&self, speed: f64) -> Result<f64, LoadError> {
        let bad = |text: String| Err(LoadError::Plan(text));
        if !(speed.is_finite() && speed > 0.0 && speed <= 1000.0) {
            return bad(format!("speed {speed} is not above 0 and at most 1000"));
        }
        if !self.warm_up.is_zero() {
            return bad("a replay has no warm-up".to_owned());
        }
        let sorted = self.recorded.is_sorted_by_key(|(at, _)| *at);
        let known = |(_, i): &(Duration, u32)| (*i as usize) < self.requests.len();
        if self.recorded.is_empty() || !sorted || !self.recorded.iter().all(known) {
            return bad("nothing is recorded, or not in order, or of unknown requests".to_owned());
        }
        let second = |at: Duration| (at.as_secs_f64() / speed) as u64;
        let busiest = self
            .recorded
            .chunk_by(|a, b| second(a.0) == second(b.0))
            .map(<[_]>::len)
            .max();
        Ok(busiest.unwrap_or(1) as f64)
    }

    /// Whether the plan can be run at all and may be run against its target.
    ///
    /// # Errors
    /// The first rule broken, with what to change.
    pub fn check(&self) -> Result<(), LoadError> {
        let target = Target::parse(&self.target)?;
        let bad = |text: String| Err(LoadError::Plan(text));
        let rate = match self.model {
            Model::Rate { per_second, .. } => Some(per_second),
            Model::Ramp { from, to } => {
                if !(from.is_finite() && to.is_finite() && from >= 0.0 && to >= 0.0) {
                    return bad(format!(
                        "a ramp from {from} to {to} is not between two rates of at least 0"
                    ));
                }
                Some(from.max(to))
            }
            Model::Shape(shape) => {
                if let Some(fault) = shape.fault() {
                    return bad(fault);
                }
                Some(shape.peak(self.duration.as_secs_f64()))
            }
            Model::Replay { speed } => Some(self.replay_rate(speed)?),
            Model::Closed { requests: Some(0) } => {
                return bad("0 requests: ask for at least 1".to_owned());
            }
            Model::Closed { .. } => None,
        };
        if let Some(rate) = rate.filter(|r| !(r.is_finite() && *r > 0.0 && *r <= 1e6)) {
            return bad(format!(
                "rate {rate} is not above 0 and at most 1,000,000 per second"
            ));
        }
        if self.duration.is_zero() {
            return bad("the duration is 0".to_owned());
        }
        if self.tick < Duration::from_millis(10) || self.tick > Duration::from_secs(1) {
            return bad(format!("tick {:?} is not 10 ms to 1 s", self.tick));
        }
        if !(1..=65_536).contains(&self.connections) {
            return bad(format!(
                "{} connections are not 1 to 65,536",
                self.connections
            ));
        }
        if self.threads.is_some_and(|n| !(1..=64).contains(&n)) {
            return bad("threads are not 1 to 64".to_owned());
        }
        if self.timeout.is_zero() || self.timeout > Duration::from_secs(600) {
            return bad(format!(
                "timeout {:?} is not above 0 and at most 10 minutes",
                self.timeout
            ));
        }
        if let Some((number, of)) = self.shard
            && !(1..=of).contains(&number)
        {
            return bad(format!(
                "shard {number}/{of} is not one of 1/{of} to {of}/{of}"
            ));
        }
        if self.drain() > Duration::from_secs(3600) {
            return bad(format!("drain {:?} is more than an hour", self.drain()));
        }
        if !self.think.is_zero() && !matches!(self.model, Model::Closed { .. }) {
            return bad(
                "think time is for the closed model; an open load has a schedule".to_owned(),
            );
        }
        if self.think > Duration::from_secs(3600) {
            return bad(format!("think time {:?} is more than an hour", self.think));
        }
        if self.transport.pipeline > 1 && !matches!(self.model, Model::Closed { .. }) {
            return bad(
                "pipelining is for the closed model: a request of an open load that waits behind another on its connection would not leave when it is due".to_owned(),
            );
        }
        if let Some(fault) = self.transport.fault(&target) {
            return bad(fault);
        }
        if self.transport.http2 && self.threads.is_some_and(|n| n > 1) {
            return bad("HTTP/2 goes over one thread".to_owned());
        }
        if self.slots() > 65_536 {
            let (connections, each) = (self.connections, self.slots() / self.connections);
            return bad(format!(
                "{connections} connections of {each} requests each are more than 65,536 requests at once"
            ));
        }
        let here = self.transport.stays_here(&target);
        if !self.own_target && !here && rate.is_none_or(|r| r > MAX_RATE_ELSEWHERE) {
            let rate =
                rate.map_or_else(|| "as fast as it answers".to_owned(), |r| format!("{r}/s"));
            let elsewhere = self.transport.goes_elsewhere();
            return Err(LoadError::NotYours {
                host: elsewhere.unwrap_or(target.host),
                rate,
            });
        }
        Requests::prepare(self).map(|_| ())
    }
}

/// The high 64 bits of the trace ids of a run: who knows the run's name knows its traces. The low ones are random, as
/// samplers that decide by trace id want them (W3C Trace Context level 2, "random trace id").
pub(crate) fn trace_key(run_id: &str) -> u64 {
    let octets = run_id.bytes().enumerate();
    octets.fold(1, |key, (i, octet)| mix(key, i as u64, u64::from(octet)))
}

/// A `traceparent` of a request of a run (its [`trace_key`]) whose other parts are drawn at random.
pub(crate) fn random_parent(key: u64) -> [u8; 55] {
    let [low, span] = [0, 1].map(|least| rand::random::<u64>() | least);
    parent([key, low, span])
}

/// A W3C trace context header, sampled: <https://www.w3.org/TR/trace-context/#traceparent-header>.
pub(crate) fn parent([high, low, span]: [u64; 3]) -> [u8; 55] {
    let mut text = *b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-01";
    text[3..19].copy_from_slice(&hex(high));
    text[19..35].copy_from_slice(&hex(low));
    text[36..52].copy_from_slice(&hex(span));
    text
}

/// Sixteen hexadecimal digits, eight at a time: each of a half's nibbles is moved to a byte of its own, and made a digit
/// there without carrying into the next.
fn hex(n: u64) -> [u8; 16] {
    let half = |half: u64| {
        let pairs = (half & 0xffff_0000) << 16 | half & 0xffff;
        let bytes = (pairs & 0xff00_0000_ff00) << 8 | pairs & 0xff_0000_00ff;
        let nibbles = (bytes & 0x00f0_00f0_00f0_00f0) << 4 | bytes & 0x000f_000f_000f_000f;
        let letters = (nibbles + 0x0606_0606_0606_0606) >> 4 & 0x0101_0101_0101_0101;
        nibbles + 0x3030_3030_3030_3030 + letters * u64::from(b'a' - b'0' - 10)
    };
    let text = u128::from(half(n >> 32)) << 64 | u128::from(half(n & 0xffff_ffff));
    text.to_be_bytes()
}

/// The plan's requests, checked and ready to be rendered.
pub(crate) struct Requests {
    pub(crate) prepared: Vec<Prepared>,
    /// Upper ends of each spec's share of the total weight.
    ends: Vec<u64>,
    seed: u64,
    /// The high half of its trace ids.
    key: u64,
    /// The requests as they are, in turn.
    in_turn: bool,
    /// Which request each index is; empty when picked otherwise.
    recorded: Arc<[(Duration, u32)]>,
    /// The body of every request, instead of its own.
    body: Option<Source>,
    /// Distinct names, in order of appearance.
    pub(crate) names: Vec<String>,
}

pub(crate) struct Prepared {
    pub(crate) route: usize,
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<String>,
    range: u64,
}

impl Requests {
    pub(crate) fn prepare(plan: &Plan) -> Result<Requests, LoadError> {
        let mut all = Requests {
            prepared: Vec::new(),
            ends: Vec::new(),
            seed: plan.seed,
            key: trace_key(&plan.run_id),
            in_turn: plan.in_turn,
            recorded: match plan.model {
                Model::Replay { .. } => Arc::clone(&plan.recorded),
                _ => Arc::new([]),
            },
            body: plan.transport.body.clone(),
            names: Vec::new(),
        };
        let mut total = 0_u64;
        for spec in &plan.requests {
            let bad = |why: String| LoadError::Plan(format!("request {:?}: {why}", spec.name));
            let method = Method::from_bytes(spec.method.as_bytes())
                .map_err(|e| bad(format!("method {:?}: {e}", spec.method)))?;
            if !spec.path.starts_with('/') {
                return Err(bad(format!("path {:?} does not begin with /", spec.path)));
            }
            let sample = spec.path.replace("{n}", "1");
            sample
                .parse::<Uri>()
                .map_err(|e| bad(format!("path {:?}: {e}", spec.path)))?;
            if spec.range == 0 {
                return Err(bad("range 0: numbers are drawn from 1 to range".to_owned()));
            }
            let mut headers = HeaderMap::new();
            let run = [
                ("user-agent", "nines"),
                ("x-nines-run-id", plan.run_id.as_str()),
            ];
            if plan.transport.compressed {
                let accept = HeaderValue::from_static(crate::decode::ACCEPT);
                headers.insert(http::header::ACCEPT_ENCODING, accept);
            }
            let own = spec.headers.iter().map(|(n, v)| (n.as_str(), v.as_str()));
            let mut given = std::collections::HashSet::new();
            for (i, (name, value)) in run.into_iter().chain(own).enumerate() {
                let name = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|e| bad(format!("header {name:?}: {e}")))?;
                let value =
                    HeaderValue::from_str(value).map_err(|e| bad(format!("header {name}: {e}")))?;
                // A header of ours is replaced; one that is given twice is sent twice.
                if i >= 2 && !given.insert(name.clone()) {
                    headers.append(name, value);
                } else {
                    headers.insert(name, value);
                }
            }
            let route = all
                .names
                .iter()
                .position(|n| *n == spec.name)
                .unwrap_or_else(|| {
                    all.names.push(spec.name.clone());
                    all.names.len() - 1
                });
            total += u64::from(spec.weight);
            all.ends.push(total);
            let (path, body) = (spec.path.clone(), spec.body.clone());
            all.prepared.push(Prepared {
                route,
                method,
                path,
                headers,
                body,
                range: spec.range,
            });
        }
        if total == 0 {
            return Err(LoadError::Plan(
                "no request has a weight above 0".to_owned(),
            ));
        }
        Ok(all)
    }

    /// Which of the prepared requests this index is: the same for the same seed and index.
    pub(crate) fn pick(&self, index: u64) -> usize {
        if let Some((_, request)) = self.recorded.get(index as usize) {
            *request as usize
        } else if self.in_turn {
            (index % self.prepared.len() as u64) as usize
        } else if self.prepared.len() == 1 {
            0
        } else {
            let total = self.ends.last().copied().unwrap_or(1);
            let draw = mix(self.seed, index, 1) % total;
            self.ends.partition_point(|end| *end <= draw)
        }
    }

    /// True when `{n}` stands for itself.
    pub(crate) fn literal(&self) -> bool {
        self.in_turn || !self.recorded.is_empty()
    }

    /// What `{n}` stands for in this index's request.
    pub(crate) fn number(&self, index: u64, picked: usize) -> u64 {
        mix(self.seed, index, 2) % self.prepared[picked].range + 1
    }

    /// Trace id, as two halves, and span id of this index's request. The high half is the run's ([`trace_key`]).
    pub(crate) fn trace(&self, index: u64) -> [u64; 3] {
        let [low, span] = [4, 5].map(|stream| mix(self.seed, index, stream));
        [self.key, low, span | 1]
    }

    /// The route of a request, and whether it is the same each time but for its `traceparent`.
    pub(crate) fn constant(&self, picked: usize) -> (usize, bool) {
        let spec = &self.prepared[picked];
        let own_body = spec.body.as_deref().filter(|_| self.body.is_none());
        let texts = [Some(spec.path.as_str()), own_body];
        let varies = !self.literal() && texts.into_iter().flatten().any(|t| t.contains("{n}"));
        (spec.route, !varies)
    }

    /// The index's `traceparent` (W3C Trace Context: version, trace id, parent id, the flag for sampled).
    pub(crate) fn parent(&self, index: u64) -> [u8; 55] {
        parent(self.trace(index))
    }

    /// The request of this index and its route: the same for the same seed and index.
    pub(crate) fn render(&self, index: u64) -> (usize, Request<Outgoing>) {
        let picked = self.pick(index);
        let spec = &self.prepared[picked];
        let n = self.number(index, picked).to_string();
        let fill = |text: &str| {
            if self.literal() {
                text.to_owned()
            } else {
                text.replace("{n}", &n)
            }
        };
        let body = self.body.clone().unwrap_or_else(|| {
            let own = spec.body.as_ref().map(|b| Bytes::from(fill(b)));
            Source::from(own.unwrap_or_default())
        });
        let mut request = Request::new(Outgoing::from(body));
        *request.method_mut() = spec.method.clone();
        // The template was checked with a number in place, and any number is as good as another.
        *request.uri_mut() = fill(&spec.path).parse().unwrap_or_default();
        *request.headers_mut() = spec.headers.clone();
        if let Ok(value) = HeaderValue::from_bytes(&self.parent(index)) {
            request.headers_mut().insert("traceparent", value);
        }
        (spec.route, request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan::new("http://127.0.0.1:1").unwrap()
    }

    proptest::proptest! {
        #[test]
        fn ids_are_written_in_hexadecimal(ids: [u64; 3]) {
            let [high, low, span] = ids;
            let expected = format!("00-{high:016x}{low:016x}-{span:016x}-01");
            proptest::prop_assert_eq!(&parent(ids)[..], expected.as_bytes());
        }
    }

    #[test]
    fn other_peoples_hosts_are_spared() {
        let mut p = Plan {
            target: "http://example.com".into(),
            ..plan()
        };
        assert_eq!(p.check(), Ok(()));
        p.model = Model::Rate {
            per_second: 101.0,
            poisson: false,
        };
        assert!(p.check().unwrap_err().to_string().contains("is yours"));
        p.model = Model::Closed { requests: None };
        assert!(p.check().is_err());
        p.own_target = true;
        assert_eq!(p.check(), Ok(()));
    }

    #[test]
    fn bad_plans_are_refused() {
        let bad = |change: fn(&mut Plan)| {
            let mut p = plan();
            change(&mut p);
            p.check().unwrap_err().to_string()
        };
        assert!(
            bad(|p| p.model = Model::Rate {
                per_second: f64::NAN,
                poisson: false
            })
            .contains("rate NaN")
        );
        assert!(bad(|p| p.model = Model::Ramp { from: 0.0, to: 0.0 }).contains("rate 0"));
        assert!(bad(|p| p.requests.clear()).contains("weight"));
        assert!(bad(|p| p.requests[0].path = "x".into()).contains("begin with /"));
        assert!(bad(|p| p.requests[0].method = "G T".into()).contains("method"));
        assert!(bad(|p| p.connections = 0).contains("connections"));
        assert!(bad(|p| p.target = "file:///x".into()).contains("scheme"));
    }

    #[test]
    fn requests_depend_on_seed_and_index_only() {
        let mut p = plan();
        p.requests[0] = RequestSpec {
            range: 10,
            weight: 3,
            ..RequestSpec::get("/a/{n}")
        };
        p.requests.push(RequestSpec {
            body: Some("[{n}]".into()),
            range: 5,
            ..RequestSpec::get("/b/{n}")
        });
        let (one, two) = (
            Requests::prepare(&p).unwrap(),
            Requests::prepare(&p).unwrap(),
        );
        let mut routes = [0_u64; 2];
        for index in 0..4000 {
            let ((route, a), (_, b)) = (one.render(index), two.render(index));
            assert_eq!((a.uri(), a.headers()), (b.uri(), b.headers()));
            let n: u64 = a.uri().path()[3..].parse().unwrap();
            assert!((1..=if route == 0 { 10 } else { 5 }).contains(&n));
            routes[route] += 1;
        }
        assert!((2850..3150).contains(&routes[0]), "{routes:?}");
        let one_parent = format!(
            "00-{:016x}{:016x}-{:016x}-01",
            trace_key(&p.run_id),
            mix(1, 9, 4),
            mix(1, 9, 5) | 1
        );
        assert_eq!(one.parent(9), one_parent.as_bytes());
        let ids = |i| one.render(i).1.headers()["traceparent"].clone();
        assert!(ids(1) != ids(2) && ids(1).len() == 55);
    }
}

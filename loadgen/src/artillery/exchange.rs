//! Owns one request of a virtual user from the script's words to what its response left behind: counted, timed,
//! redirects followed, cookies kept, values captured, expectations checked. Must not know the order of steps.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;
use url::Url;

use super::capture::Extractor;
use super::expect::{self, Seen};
use super::expr::{self, Expr};
use super::hooks;
use super::net::{NoExchange, Outgoing, Trip, node_name};
use super::request::{Ready, decoded, full_url};
use super::run::Event;
use super::script::{AfterResponse, Capture, Expectation, Fixed, Match, RequestStep, Script};
use super::template::{self, as_text};
use super::vu::{Failure, Vu, lock};
use crate::conn::{ErrorKind, Target};
use crate::fast::reactor::Answered;
use crate::plan::random_parent;
use crate::stats::{Answer, Sample, micros};

/// What a request's endpoint is called by: URL and name, templates not filled in.
type Endpoint = (String, Option<String>);

/// Responses that satisfied, were tolerated, frustrated.
pub(crate) const APDEX: [&str; 3] = ["apdex.satisfied", "apdex.tolerated", "apdex.frustrated"];
/// The most redirects followed.
const MAX_REDIRECTS: usize = 10;

impl Vu {
    pub(crate) async fn request(
        &self,
        step: &RequestStep,
        clock: &mut Duration,
    ) -> Result<(), Failure> {
        // The time of hooks is the script's own, like time thought.
        let began = self.shared.script.processor.as_ref().map(|_| self.now());
        if !self.wanted(step).await {
            return Ok(());
        }
        let script = &self.shared.script;
        let hooked = self.before_request(step).await?;
        let number = hooked.as_ref().map(|h| h.number);
        if let Some(began) = began {
            *clock += self.now().saturating_sub(began);
        }
        let (step, fixed) = match &hooked {
            Some(hooked) => (&hooked.step, None),
            None => (step, self.fixed(step)),
        };
        let mut ready = match fixed {
            Some(fixed) => Arc::clone(&fixed.ready),
            None => Arc::new(Ready::make(step, script, self)?),
        };
        let endpoint = |sent: &Url| {
            if let Some(fixed) = fixed.filter(|f| f.ready.url == *sent) {
                return fixed.endpoint.clone();
            }
            let at = match &hooked {
                Some(hooked) => hooked.endpoint.clone(),
                None => written(step, script),
            };
            self.endpoint(&at, step, sent).map(Arc::from)
        };
        let keep = number.is_some() || self.reads_body(step);
        self.own_cookies(step, &ready.url);
        let mut hops = 0;
        loop {
            self.allowed(&ready.url)?;
            let exchange = match self.hop(&ready, step, keep, clock).await {
                Ok(exchange) => exchange,
                Err(code) => {
                    if let Some(number) = number {
                        self.after_failure(number, &code).await;
                    }
                    if let Some(name) = endpoint(&ready.url) {
                        let space = &script.endpoints.namespace;
                        self.count(&format!("{space}.{name}.errors.{code}"));
                    }
                    return Err(code);
                }
            };
            if step.follow
                && let Some(next) = ready.redirected(exchange.status(), &exchange.headers)
            {
                hops += 1;
                if hops > MAX_REDIRECTS {
                    return Err("ERR_TOO_MANY_REDIRECTS".to_owned());
                }
                ready = Arc::new(next);
                continue;
            }
            return self
                .finish(step, &ready, &endpoint, number, &exchange, clock)
                .await;
        }
    }

    /// What a step sends, made once for all, when it is always the same.
    fn fixed<'a>(&self, step: &'a RequestStep) -> Option<&'a Fixed> {
        let script = &self.shared.script;
        let fixed = step.fixed.get_or_init(|| {
            if !Ready::is_fixed(step, script) {
                return None;
            }
            let ready = Arc::new(Ready::make(step, script, self).ok()?);
            let endpoint = self.endpoint(&written(step, script), step, &ready.url);
            let endpoint = endpoint.map(Arc::from);
            Some(Fixed { ready, endpoint })
        });
        fixed.as_ref()
    }

    /// Whether anything looks at the body of its response.
    fn reads_body(&self, step: &RequestStep) -> bool {
        let expects = |p: &AfterResponse| *p == AfterResponse::Expect;
        !step.capture.is_empty()
            || !step.matches.is_empty()
            || self.shared.script.after_response.iter().any(expects)
    }

    pub(crate) fn count(&self, name: &str) {
        if self.counted {
            self.shared.count(name, 1);
        }
    }

    /// Whether `probability` and `ifTrue` let it be sent. As in Artillery, a name that stands for nothing is not true, nor
    /// is what cannot be computed.
    async fn wanted(&self, step: &RequestStep) -> bool {
        if step
            .probability
            .is_some_and(|p| rand::random_range(0.0..100.0) >= p)
        {
            return false;
        }
        if let (Some(Expr::Name(name)), Some(processor)) =
            (&step.if_true, &self.shared.script.processor)
            && processor.has(name)
        {
            return self.condition(name).await;
        }
        let find = |name: &str| {
            let value = template::Variables::find(self, &template::path(name));
            Some(value.unwrap_or(Value::Null))
        };
        let value = step.if_true.as_ref().map(|e| e.value(&find));
        value.is_none_or(|v| v.as_ref().is_ok_and(expr::truthy))
    }

    fn own_cookies(&self, step: &RequestStep, url: &Url) {
        let defaults = &self.shared.script.http.cookie;
        for (name, value) in defaults.iter().chain(&step.cookie) {
            let value = as_text(template::fill(value, self).as_ref());
            lock(&self.jar).set(&format!("{name}={value}"), url, SystemTime::now());
        }
    }

    /// A run that is too fast for other people's hosts stays on this machine and at its target.
    pub(crate) fn allowed(&self, url: &Url) -> Result<(), Failure> {
        if !self.shared.confined {
            return Ok(());
        }
        let host = url.host_str();
        let own = &self.shared.http_target;
        if host.is_some() && host == own.as_ref().and_then(Url::host_str) {
            return Ok(());
        }
        let target = Target::parse(url.as_str()).map_err(|e| e.to_string())?;
        if target.is_loopback() {
            return Ok(());
        }
        Err(format!("{} needs --i-own-this-target", target.host))
    }

    /// One request and its response, counted and timed.
    async fn hop(
        &self,
        ready: &Ready,
        step: &RequestStep,
        keep_body: bool,
        clock: &mut Duration,
    ) -> Result<Answered, Failure> {
        let shared = &self.shared;
        let cookies = self.keeps_cookies.load(Ordering::Relaxed) || !step.cookie.is_empty();
        let cookie = cookies
            .then(|| lock(&self.jar).header(&ready.url, SystemTime::now()))
            .flatten();
        let due = *clock;
        if self.counted {
            lock(&shared.metrics).request(shared.now_ms());
            lock(&shared.stats).started(due);
        }
        let mut trip = Trip::default();
        let timeout = step.timeout.unwrap_or(shared.script.http.timeout);
        let mut bytes = std::mem::take(&mut *lock(&self.buffer));
        ready.write(&mut bytes, cookie.as_deref(), |out| self.add_fields(out));
        let outgoing = Outgoing {
            url: &ready.url,
            origin: &ready.origin,
            bytes: &bytes,
            method: &ready.method,
            keep_body,
        };
        let sent = self.pool.send(&outgoing, timeout, &mut trip).await;
        *lock(&self.buffer) = bytes;
        let since = |at: Instant| at.saturating_duration_since(shared.start);
        let now = self.now();
        let ended = match &sent {
            Ok(answered) => since(answered.ended),
            Err(_) => now,
        };
        // What follows is due now, not when the response arrived: a user acts on what it has read.
        *clock = now;
        if self.counted {
            self.record(step.route, due, ended, &trip, &sent);
        }
        let exchange = match sent {
            Ok(exchange) => exchange,
            Err(NoExchange::Url(why)) => return Err(why),
            Err(NoExchange::Conn(error)) => return Err(node_name(&error).to_owned()),
        };
        for cookie in exchange.headers.get_all(header::SET_COOKIE) {
            let text = String::from_utf8_lossy(cookie.as_bytes());
            self.keeps_cookies.store(true, Ordering::Relaxed);
            if !lock(&self.jar).set(&text, &ready.url, SystemTime::now()) {
                self.count("errors.cookie_parse_error_invalid_cookie");
            }
        }
        Ok(exchange)
    }

    /// What we add to each request: its trace and the run it belongs to.
    fn add_fields(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"traceparent: ");
        out.extend_from_slice(&random_parent(self.shared.trace_key));
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&self.shared.run_field);
    }

    fn record(
        &self,
        route: usize,
        due: Duration,
        ended: Duration,
        trip: &Trip,
        sent: &Result<Answered, NoExchange>,
    ) {
        let shared = &self.shared;
        let since = |at: Instant| at.saturating_duration_since(shared.start);
        let offset = |at: Option<Instant>| at.map_or(ended, since);
        let outcome = match sent {
            Ok(answered) => Ok(Answer {
                status: answered.status,
                bytes: answered.wire_bytes,
                timings: answered.timings,
            }),
            Err(NoExchange::Conn(error)) => Err(error.kind),
            Err(NoExchange::Url(_)) => Err(ErrorKind::Protocol),
        };
        let at = match sent {
            Ok(answered) => Some(answered.sent),
            Err(_) => trip.sent,
        };
        lock(&shared.stats).record(&Sample {
            route,
            due,
            picked: offset(trip.picked),
            sent: offset(at),
            ended,
            queued: trip.queued,
            opened: trip.opened,
            reconnected: trip.reconnected,
            outcome,
        });
        let Ok(answered) = sent else { return };
        let now = shared.now_ms();
        let first_byte = micros(answered.timings.first_byte);
        let mut metrics = lock(&shared.metrics);
        metrics.response(answered.status, answered.body_len, first_byte, now);
        if shared.script.http.extended_metrics {
            let total = first_byte + micros(answered.timings.transfer);
            metrics.time("http.total", total, now);
            if let Some(opened) = trip.opened {
                metrics.time("http.dns", micros(opened.dns), now);
                metrics.time("http.tcp", micros(opened.tcp), now);
                metrics.time("http.tls", micros(opened.tls), now);
            }
        }
    }

    /// What the last response is for: captures, matches, endpoint figures, expectations.
    async fn finish(
        &self,
        step: &RequestStep,
        ready: &Ready,
        endpoint: &(dyn Fn(&Url) -> Option<Arc<str>> + Sync),
        number: Option<u64>,
        exchange: &Answered,
        clock: &mut Duration,
    ) -> Result<(), Failure> {
        let url = &ready.url;
        let body = decoded(&exchange.headers, &exchange.body);
        let captured = step.capture.is_empty() && step.matches.is_empty()
            || self.capture(&step.capture, &step.matches, &exchange.headers, &body);
        let hooked = |names: &[String]| number.filter(|_| !names.is_empty());
        let began = number.map(|_| self.now());
        let params = || hooks::sent(url.as_str(), &ready.headers, step, self);
        let response = || {
            let ms = exchange.timings.first_byte.as_secs_f64() * 1e3;
            hooks::response(exchange.status(), &exchange.headers, &body, ms)
        };
        if let Some(number) = hooked(&self.hooks.after) {
            let last = step.hooks.after.is_empty();
            self.after_response(number, &self.hooks.after, last, params(), response())
                .await?;
        }
        if self.counted {
            for plugin in &self.shared.script.after_response {
                match plugin {
                    AfterResponse::Endpoint => {
                        if let Some(name) = endpoint(url) {
                            self.count_endpoint(&name, exchange);
                        }
                    }
                    AfterResponse::Apdex => self.count_apdex(exchange),
                    AfterResponse::Expect => {
                        self.expect(step, url, exchange.status(), &exchange.headers, &body)?;
                    }
                }
            }
        }
        if let Some(number) = hooked(&step.hooks.after) {
            self.after_response(number, &step.hooks.after, true, params(), response())
                .await?;
        }
        if let Some(began) = began {
            *clock += self.now().saturating_sub(began);
        }
        match captured {
            true => Ok(()),
            false => Err("Failed capture or match".to_owned()),
        }
    }

    /// False when a strict capture or match failed; then nothing is captured.
    pub(crate) fn capture(
        &self,
        captures: &[Capture],
        matches: &[Match],
        headers: &HeaderMap,
        body: &[u8],
    ) -> bool {
        let fill = |text: &str| template::string(text, self);
        let mut fine = true;
        let mut found = Vec::new();
        for capture in captures {
            let value = capture.from.take(headers, body, &fill);
            let missing = value.is_none() || value == Some(Value::from(""));
            let strict = capture
                .strict
                .unwrap_or(self.shared.script.http.strict_capture);
            fine &= !(missing && strict);
            let empty = match capture.from {
                Extractor::Regexp { .. } | Extractor::Header(_) => Some(Value::from("")),
                _ => None,
            };
            found.push((&capture.name, value.or(empty)));
        }
        for wanted in matches {
            let value = wanted.from.take(headers, body, &fill);
            let expected = template::fill(&wanted.value, self);
            let same = match (&value, &expected) {
                (Some(Value::Number(a)), Some(Value::Number(b))) => a.as_f64() == b.as_f64(),
                (a, b) => a == b,
            };
            if !same {
                tracing::debug!(
                    from = wanted.from.shown(),
                    ?value,
                    ?expected,
                    "match failed"
                );
            }
            fine &= same || !wanted.strict;
        }
        if fine {
            let mut vars = lock(&self.vars);
            for (name, value) in found {
                match value {
                    Some(value) => vars.insert(name.clone(), value),
                    None => vars.remove(name),
                };
            }
        }
        fine
    }

    /// The name of a request's endpoint; none when its figures are not wanted.
    fn endpoint(&self, at: &Endpoint, step: &RequestStep, sent: &Url) -> Option<String> {
        let script = &self.shared.script;
        let options = &script.endpoints;
        let (raw, name) = at;
        let name = if options.group_dynamic {
            name
        } else {
            &step.name
        };
        let name = name.as_ref().filter(|n| !n.is_empty());
        if name.is_none() && options.ignore_unnamed {
            return None;
        }
        if let (Some(name), true) = (name, options.only_names) {
            return Some(name.clone());
        }
        let raw = options.group_dynamic.then(|| Url::parse(raw));
        let base = match (&raw, &self.shared.target_url) {
            (Some(Ok(raw)), Some(target)) => base_url(raw, target, options.strip_query),
            (None, Some(target)) => base_url(sent, target, options.strip_query),
            (Some(_), _) => at.0.clone(),
            (None, None) => sent.as_str().to_owned(),
        };
        Some(match name {
            Some(name) => format!("{base} ({name})"),
            None => base,
        })
    }

    fn count_endpoint(&self, name: &str, exchange: &Answered) {
        let space = &self.shared.script.endpoints.namespace;
        let now = self.shared.now_ms();
        let timing = exchange.headers.get("server-timing");
        let us = micros(exchange.timings.first_byte);
        let mut metrics = lock(&self.shared.metrics);
        if let Some(ms) = timing.and_then(|t| server_total(t.to_str().ok()?)) {
            let us = (ms * 1e3) as u64;
            metrics.time(&format!("{space}.server-timing.{name}"), us, now);
        }
        metrics.endpoint(space, name, exchange.status, us, now);
    }

    fn count_apdex(&self, exchange: &Answered) {
        let Some(limit) = self.shared.script.apdex else {
            return;
        };
        let took = exchange.timings.first_byte + exchange.timings.transfer;
        let class = if took <= limit {
            0
        } else if took <= 4 * limit {
            1
        } else {
            2
        };
        for (i, name) in APDEX.iter().enumerate() {
            self.shared.count(name, u64::from(i == class));
        }
    }

    fn expect(
        &self,
        step: &RequestStep,
        url: &Url,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
    ) -> Result<(), Failure> {
        let Some(options) = &self.shared.script.expect else {
            return Ok(());
        };
        let default = [Expectation {
            kind: "statusCode".to_owned(),
            value: 200.into(),
        }];
        let all = match step.expect.as_slice() {
            [] if options.default_200 => &default[..],
            given => given,
        };
        let seen = Seen {
            status,
            headers,
            body,
        };
        let mut failed = false;
        for expectation in all {
            let outcome = expect::check(expectation, &seen, self);
            let word = if outcome.ok { "ok" } else { "failed" };
            self.count(&format!("plugins.expect.{word}"));
            self.count(&format!("plugins.expect.{word}.{}", outcome.kind));
            if !outcome.ok {
                failed = true;
                let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
                self.shared.tell(Event::Log(format!(
                    "* {} {path}\n  not ok {}\n  expected: {}\n       got: {}",
                    step.method, outcome.kind, outcome.expected, outcome.got
                )));
            }
        }
        if !failed {
            return Ok(());
        }
        self.shared
            .expectation_failed
            .store(true, Ordering::Relaxed);
        if !options.failures_are_errors {
            return Ok(());
        }
        let name = step.name.as_ref().filter(|_| options.only_names);
        let name = name.cloned().unwrap_or_else(|| url.to_string());
        Err(format!("Failed expectations for request {name}"))
    }
}

/// What the endpoint of a step without hooks is called by.
fn written(step: &RequestStep, script: &Script) -> Endpoint {
    (full_url(&step.url, &script.target), step.name.clone())
}

/// `/path?query`, before it the host and port where they are not the target's.
fn base_url(parsed: &Url, target: &Url, strip_query: bool) -> String {
    let mut out = String::new();
    if parsed.host_str() != target.host_str() {
        out.push_str(parsed.host_str().unwrap_or_default());
    }
    if let Some(port) = parsed.port().filter(|p| Some(*p) != target.port()) {
        out.push_str(&format!(":{port}"));
    }
    out.push_str(&percent_decoded(parsed.path()));
    if let (Some(query), false) = (parsed.query(), strip_query) {
        out.push('?');
        out.push_str(query);
    }
    out
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let digits = text.get(at + 1..at + 3).filter(|_| *byte == b'%');
        match digits.and_then(|d| u8::from_str_radix(d, 16).ok()) {
            Some(decoded) => {
                out.push(decoded);
                at += 3;
            }
            None => {
                out.push(*byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The total of a `Server-Timing` header, in milliseconds.
fn server_total(header: &str) -> Option<f64> {
    let lower = header.to_ascii_lowercase();
    let (_, rest) = lower.split_once("total;dur=")?;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
    rest[..end.unwrap_or(rest.len())].parse().ok()
}

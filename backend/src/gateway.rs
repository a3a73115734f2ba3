//! The front: balancer (least connections, health checks) and gateway (filter, token, limits, deadline, hop).
//! Must not know the services' logic.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, State};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::json;

use crate::app::App;
use crate::clock;
use crate::faults::{Fault, of_header};
use crate::jwt::{self, Claims};
use crate::record::Event;
use crate::routes::{self, Access, Match, Route};
use crate::services::{self, Reply, Req};
use crate::telemetry::{Cx, Kind, Role, attr, fail, parse_traceparent};

/// One gateway instance as the balancer sees it.
#[derive(Debug, Default)]
pub(crate) struct Instance {
    open: AtomicI64,
    out: AtomicBool,
    bad: AtomicU64,
    good: AtomicU64,
}

/// The balancer.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) app: Arc<App>,
    pub(crate) instances: Vec<Instance>,
}

/// One way in: our own balancer, or an instance that a balancer in front of us has chosen.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    pub(crate) front: Arc<Front>,
    pub(crate) instance: Option<usize>,
}

// === impl Front ===

impl Front {
    /// All instances in service.
    pub(crate) fn new(app: Arc<App>) -> Self {
        let real = app.settings.real.as_ref().map(|r| r.fronts.len());
        let n = real.filter(|n| *n > 0);
        let instances: Vec<Instance> = (0..n.unwrap_or(app.settings.balancer.instances))
            .map(|_| Instance::default())
            .collect();
        // Behind another balancer this one checks nothing, so it has nothing to tell.
        if n.is_none() {
            for i in 0..instances.len() {
                app.metrics.backend_up.with_label_values(&[&name(i)]).set(1);
            }
        }
        Front { app, instances }
    }

    /// One health check of every instance; counts towards fall and rise.
    pub(crate) fn check(&self) {
        for (i, instance) in self.instances.iter().enumerate() {
            let healthy = !self.killed(i) && !lies_failing(&self.app);
            let (b, out) = (
                &self.app.settings.balancer,
                instance.out.load(Ordering::Relaxed),
            );
            if healthy {
                instance.bad.store(0, Ordering::Relaxed);
            } else {
                instance.good.store(0, Ordering::Relaxed);
            }
            let streak = if healthy {
                &instance.good
            } else {
                &instance.bad
            }
            .fetch_add(1, Ordering::Relaxed)
                + 1;
            let turn = if healthy {
                out && streak >= u64::from(b.rise)
            } else {
                !out && streak >= u64::from(b.fall)
            };
            if turn {
                instance.out.store(!healthy, Ordering::Relaxed);
                self.app
                    .metrics
                    .backend_up
                    .with_label_values(&[&name(i)])
                    .set(i64::from(healthy));
                let to = if healthy { "up" } else { "down" };
                self.app.truth.event(Event {
                    at_ms: clock::unix_ms(),
                    kind: "backend",
                    name: name(i),
                    to: to.into(),
                });
                self.app
                    .note("WARN", &format!("balancer: {} is {to}", name(i)));
            }
        }
    }

    fn killed(&self, i: usize) -> bool {
        self.app
            .faults
            .hit("kill_instance", "", clock::unix_ms())
            .is_some_and(|h| h.fault.value as usize == i)
    }

    fn pick(&self) -> Option<usize> {
        let up = self
            .instances
            .iter()
            .enumerate()
            .filter(|(_, i)| !i.out.load(Ordering::Relaxed));
        let turn = self.app.ids.load(Ordering::Relaxed) as usize;
        let n = self.instances.len();
        // Ties go round, so that an idle system still spreads its load.
        up.min_by_key(|(i, x)| (x.open.load(Ordering::Relaxed), (i + n - turn % n) % n))
            .map(|(i, _)| i)
    }
}

fn name(i: usize) -> String {
    format!("gateway-{}", i + 1)
}

/// Every request of the front port.
pub(crate) async fn front(
    State(door): State<Door>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request<axum::body::Body>,
) -> Response<axum::body::Body> {
    let front = &door.front;
    let app = &front.app;
    let begin = Instant::now();
    let id = app.ids.fetch_add(1, Ordering::Relaxed);
    let (parts, body) = request.into_parts();
    let method = parts.method.as_str().to_owned();
    let found = routes::find(&method, parts.uri.path());
    let route = match &found {
        Match::Found(route, _) => route.template,
        _ => "unmatched",
    };
    // The scrape of /metrics itself is not counted: the numbers it prints would never agree with the truth.
    if route == "/metrics" {
        return finish(
            Reply {
                status: 200,
                body: app.metrics.text().into(),
                headers: vec![("content-type", "text/plain; version=0.0.4".into())],
            },
            "",
            false,
        );
    }
    let request_id = header_text(&parts.headers, "x-request-id")
        .filter(|r| r.len() <= 100)
        .unwrap_or_else(|| format!("req-{id:x}"));
    let cx = Cx::root(request_id);
    let remote = header_text(&parts.headers, "traceparent").and_then(|t| parse_traceparent(&t));
    let span = if app.telemetry.on() {
        app.telemetry.span(
            &cx,
            Role::Gateway,
            Kind::Server,
            &format!("{method} {route}"),
            remote,
        )
    } else {
        tracing::Span::none()
    };
    attr(&span, "http.request.method", method.clone());
    attr(&span, "http.route", route);
    attr(&span, "url.path", parts.uri.path().to_owned());
    let mut cx = cx.below(&span);
    let reply = match door.instance.or_else(|| front.pick()) {
        None => Reply::problem(503, "no_backend", "no healthy instance"),
        Some(i) if front.killed(i) => {
            app.metrics.lb.with_label_values(&[&name(i), "502"]).inc();
            Reply::problem(502, "connection_refused", "instance refused the connection")
        }
        Some(i) => {
            let _open = Open::new(&front.instances[i].open);
            let limit = Duration::from_millis(app.settings.timeouts.client_ms);
            let work = gateway(app, &mut cx, &parts, body, peer, found);
            let reply = tokio::time::timeout(limit, work)
                .await
                .unwrap_or_else(|_| Reply::problem(504, "timeout", "balancer deadline"));
            app.metrics
                .lb
                .with_label_values(&[&name(i), &reply.status.to_string()])
                .inc();
            reply
        }
    };
    record(app, &cx, &span, route, &method, &reply, begin);
    finish(reply, &cx.request_id, method == "HEAD")
}

/// Counts a connection as open until it is dropped, however the request ends.
struct Open<'a>(&'a AtomicI64);

impl<'a> Open<'a> {
    fn new(n: &'a AtomicI64) -> Self {
        n.fetch_add(1, Ordering::Relaxed);
        Open(n)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(crate) fn record(
    app: &App,
    cx: &Cx,
    span: &tracing::Span,
    route: &'static str,
    method: &str,
    reply: &Reply,
    begin: Instant,
) {
    let seconds = begin.elapsed().as_secs_f64();
    let method = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
        .into_iter()
        .find(|m| *m == method)
        .unwrap_or("_OTHER");
    let status = reply.status.to_string();
    app.truth
        .request(route, method, reply.status, clock::unix_ms());
    let labels = [app.settings.service(), route, method, status.as_str()];
    app.metrics.requests.with_label_values(&labels).inc();
    app.metrics
        .durations
        .with_label_values(&labels)
        .observe(seconds);
    attr(span, "http.response.status_code", i64::from(reply.status));
    if reply.status >= 500 {
        fail(span, &status);
    }
    if app.settings.access_log {
        let level = if reply.status >= 500 { "ERROR" } else { "INFO" };
        let error = (reply.status >= 500).then_some(status.as_str());
        app.telemetry.log(
            level,
            Role::Gateway,
            cx,
            &format!("{method} {route} {status}"),
            error,
            Some(seconds * 1000.0),
        );
    }
}

pub(crate) fn finish(reply: Reply, request_id: &str, head: bool) -> Response<axum::body::Body> {
    let mut builder = Response::builder()
        .status(StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        .header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")
        .header("x-request-id", request_id);
    if !reply.headers.iter().any(|(k, _)| *k == "cache-control") {
        builder = builder.header(header::CACHE_CONTROL, "no-store");
    }
    for (key, value) in reply.headers {
        builder = builder.header(key, value);
    }
    let body = if head { Bytes::new() } else { reply.body };
    builder
        .body(body.into())
        .unwrap_or_else(|_| Response::new(axum::body::Body::empty()))
}

pub(crate) fn header_text(headers: &HeaderMap, key: &str) -> Option<String> {
    headers
        .get(key)
        .and_then(|v| v.to_str().ok())
        .map(str::to_owned)
}

async fn gateway(
    app: &Arc<App>,
    cx: &mut Cx,
    parts: &http::request::Parts,
    body: axum::body::Body,
    peer: SocketAddr,
    found: Match<'_>,
) -> Reply {
    let (route, parameter) = match found {
        Match::Found(route, parameter) => (route, parameter.to_owned()),
        Match::WrongMethod if parts.method == http::Method::OPTIONS => return preflight(),
        Match::WrongMethod => {
            return Reply::problem(
                405,
                "method_not_allowed",
                "the path exists with other methods",
            );
        }
        Match::Unmatched => return Reply::problem(404, "not_found", "no such route"),
    };
    let body = match http_body_util::Limited::new(body, app.settings.waf_max_body_bytes)
        .collect()
        .await
    {
        Ok(body) => body.to_bytes(),
        Err(_) => return Reply::problem(403, "waf", "body is too long or broke off"),
    };
    if suspicious(parts.uri.query().unwrap_or(""), &body, route) {
        return Reply::problem(403, "waf", "request was refused by the filter");
    }
    let claims = match claims(app, &parts.headers, route) {
        Ok(claims) => claims,
        Err(reply) => return reply,
    };
    cx.user_id = claims.as_ref().map(|c| c.sub);
    if !route.template.starts_with("/health")
        && let Err(reply) = limit(app, claims.as_ref(), client(app, &parts.headers, peer))
    {
        return reply;
    }
    burn(app.knob_ms("cpu_burn", ""));
    let query = parts.uri.query().map(parse_query).unwrap_or_default();
    let method = if parts.method == http::Method::HEAD {
        "GET"
    } else {
        parts.method.as_str()
    };
    let req = Req {
        method: method.to_owned(),
        route: route.template,
        parameter,
        query,
        body,
        claims,
        traceparent: None,
        fault: match own_fault(app, &parts.headers) {
            Ok(fault) => fault,
            Err(e) => return Reply::problem(400, "validation", &e),
        },
        forward: ["authorization", "x-fault"]
            .into_iter()
            .filter_map(|k| header_text(&parts.headers, k).map(|v| (k, v)))
            .collect(),
    };
    app.delay("gateway").await;
    if req.fault.as_ref().is_some_and(|f| f.target == "gateway")
        && let Some(reply) = services::own_fault(&req).await
    {
        return reply;
    }
    if route.role == Role::Gateway {
        return crate::edge::own(app, &req, &parts.headers).await;
    }
    hop(app, cx, route, req).await
}

/// The fault in `x-fault`, when the setting allows it.
pub(crate) fn own_fault(app: &App, headers: &HeaderMap) -> Result<Option<Fault>, String> {
    if !app.settings.fault_header {
        return Ok(None);
    }
    header_text(headers, "x-fault")
        .map(|text| of_header(&text))
        .transpose()
}

/// The call to the service: CLIENT span here, `traceparent` handed over, SERVER span there.
async fn hop(app: &Arc<App>, cx: &Cx, route: &'static Route, mut req: Req) -> Reply {
    let span = if app.telemetry.on() {
        app.telemetry.span(
            cx,
            Role::Gateway,
            Kind::Client,
            &format!("{} {}", req.method, route.template),
            None,
        )
    } else {
        tracing::Span::none()
    };
    attr(&span, "http.request.method", req.method.clone());
    attr(&span, "peer.service", route.role.name());
    attr(&span, "server.address", route.role.name());
    let below = cx.below(&span);
    // A fault with another target is none of this service's.
    let target = |f: &Fault| f.target.is_empty() || f.target == route.role.name();
    req.fault = req.fault.filter(target);
    if !app.struck("drop_traceparent", "") {
        req.traceparent = below.traceparent();
    }
    let limit = Duration::from_millis(app.settings.timeouts.gateway_ms);
    let split = app.settings.split.as_ref();
    let peer = split.filter(|s| !s.has(route.role));
    let work = async {
        match peer.and_then(|s| s.peers.get(&route.role)) {
            Some(base) => app.peers.call(base, &below, route.role, &req).await,
            None => services::serve(app, &below, route.role, req).await,
        }
    };
    let answer = tokio::time::timeout(limit, work).await;
    let reply = answer.unwrap_or_else(|_| Reply::problem(504, "timeout", "gateway deadline"));
    attr(&span, "http.response.status_code", i64::from(reply.status));
    if reply.status >= 400 {
        fail(&span, &reply.status.to_string());
    }
    reply
}

fn preflight() -> Reply {
    let headers = vec![
        (
            "access-control-allow-methods",
            "GET, POST, PUT, PATCH, DELETE".to_owned(),
        ),
        (
            "access-control-allow-headers",
            "authorization, content-type, traceparent".to_owned(),
        ),
    ];
    Reply {
        status: 204,
        body: Bytes::new(),
        headers,
    }
}

/// A small filter in the manner of a web application firewall. Blobs may hold anything.
fn suspicious(query: &str, body: &[u8], route: &Route) -> bool {
    const PATTERNS: [&str; 6] = [
        "<script",
        "union select",
        "' or '1'='1",
        "../",
        "; drop table",
        "/etc/passwd",
    ];
    let bad = |text: &str| {
        let text = text.to_ascii_lowercase();
        PATTERNS.iter().any(|p| text.contains(p))
    };
    query.len() > 4096
        || bad(&decode(query))
        || (!route.template.starts_with("/blobs") && bad(&String::from_utf8_lossy(body)))
}

pub(crate) fn claims(
    app: &App,
    headers: &HeaderMap,
    route: &Route,
) -> Result<Option<Claims>, Reply> {
    let token = header_text(headers, "authorization")
        .and_then(|v| v.strip_prefix("Bearer ").map(str::to_owned));
    let refuse = |reason: &str| {
        app.metrics.auth_failures.with_label_values(&[reason]).inc();
        let mut reply = Reply::problem(401, "unauthorized", &format!("token: {reason}"));
        reply.headers.push(("www-authenticate", "Bearer".into()));
        reply
    };
    let claims = match token {
        None if route.access == Access::Public => return Ok(None),
        None => return Err(refuse("missing")),
        Some(token) => jwt::verify(
            &token,
            app.settings.jwt_secret.as_bytes(),
            app.wall_ms() / 1000,
        )
        .map_err(refuse)?,
    };
    if route.access == Access::Admin && claims.role != "admin" {
        app.metrics.auth_failures.with_label_values(&["role"]).inc();
        return Err(Reply::problem(403, "forbidden", "role admin is needed"));
    }
    Ok(Some(claims))
}

/// Whose request it is: behind a real balancer the address that this one saw, which is the last that it forwards.
fn client(app: &App, headers: &HeaderMap, peer: SocketAddr) -> IpAddr {
    if app.settings.real.is_none() {
        return peer.ip();
    }
    let forwarded = header_text(headers, "x-forwarded-for");
    let last = forwarded.as_deref().and_then(|f| f.rsplit(',').next());
    last.and_then(|ip| ip.trim().parse().ok())
        .unwrap_or(peer.ip())
}

fn limit(app: &App, claims: Option<&Claims>, client: IpAddr) -> Result<(), Reply> {
    let l = &app.settings.limits;
    if !l.enabled || app.struck("limiter_off", "") {
        return Ok(());
    }
    let (tier, per_user) = match claims {
        Some(c) if c.role == "admin" => ("admin", l.admin),
        Some(c) if c.tier == "free" => ("free", l.tier_free),
        Some(c) if c.tier == "premium" => ("premium", l.tier_premium),
        Some(_) => ("standard", l.per_user),
        None => ("anonymous", l.per_ip),
    };
    let checks = [
        ("user", claims.map(|c| format!("u{}", c.sub)), per_user),
        ("ip", Some(format!("i{client}")), l.per_ip),
    ];
    for (scope, key, allowed) in checks {
        let Some(key) = key else { continue };
        let verdict = app.limiter.lock().unwrap_or_else(|e| e.into_inner()).check(
            &key,
            allowed,
            clock::unix_ms(),
        );
        let result = if verdict.is_ok() {
            "allowed"
        } else {
            "limited"
        };
        app.metrics
            .limits
            .with_label_values(&[scope, tier, result])
            .inc();
        if let Err(wait_ms) = verdict {
            let mut reply = Reply::problem(
                429,
                "rate_limited",
                &format!("more than {allowed} requests per window by this {scope}"),
            );
            reply
                .headers
                .push(("retry-after", wait_ms.div_ceil(1000).max(1).to_string()));
            return Err(reply);
        }
    }
    Ok(())
}

fn burn(ms: f64) {
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() * 1000.0 < ms {
        std::hint::spin_loop();
    }
}

pub(crate) fn parse_query(query: &str) -> HashMap<String, String> {
    query
        .split('&')
        .filter_map(|kv| kv.split_once('='))
        .map(|(k, v)| (decode(k), decode(v)))
        .collect()
}

/// Percent decoding, `+` as a blank; what is malformed stays as it is.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let hex = bytes
            .get(i + 1..i + 3)
            .and_then(|h| std::str::from_utf8(h).ok())
            .and_then(|h| u8::from_str_radix(h, 16).ok());
        match (bytes[i], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                i += 3;
                continue;
            }
            (b'+', _) => out.push(b' '),
            (byte, _) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether `/health` is told to fail although all is well.
fn lies_failing(app: &App) -> bool {
    app.faults
        .hit("health_lie", "failing", clock::unix_ms())
        .is_some_and(|h| h.fault.target == "failing")
}

/// The version label now.
pub(crate) fn version(app: &App) -> String {
    app.faults
        .hit("version", "", clock::unix_ms())
        .map_or_else(|| app.settings.version.clone(), |h| h.fault.text)
}

/// Body of `/health` as the seed prints it. It stays 200 without a database, for what is cached is still served, and a
/// balancer that took every instance out would end that too; `ready` asks for all.
pub(crate) fn health(app: &App, ready: bool) -> Reply {
    let database = app.data.is_up();
    let lie = app
        .faults
        .hit("health_lie", "healthy", clock::unix_ms())
        .is_some_and(|h| h.fault.target == "healthy");
    let bad = lies_failing(app) || (ready && !database && !lie);
    let status = if bad { 503 } else { 200 };
    let open = app
        .breaker_states()
        .iter()
        .any(|(d, s)| *d == "cache" && *s != crate::breaker::State::Closed);
    let value = json!({
        "status": if status == 200 { "healthy" } else { "unhealthy" },
        "database": if database || lie { "connected" } else { "disconnected" },
        "cache": if open { "disconnected" } else { "connected" },
        "uptime": app.started.elapsed().as_secs(),
    });
    Reply::json(status, &value)
}

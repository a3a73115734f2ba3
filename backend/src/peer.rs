//! The hop between processes: the gateway's call to a role that is elsewhere, and that role's own front.
//! Must not know what a service does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, State};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;

use crate::app::App;
use crate::gateway::{claims, finish, header_text, own_fault, parse_query, record};
use crate::routes::{self, Match};
use crate::services::{self, Reply, Req};
use crate::telemetry::{Cx, Role};

/// Connections to peers, kept alive.
#[derive(Clone, Debug)]
pub(crate) struct Peers(Client<HttpConnector, Full<Bytes>>);

/// Headers of an answer that are handed on.
const HANDED_ON: [&str; 5] = [
    "content-type",
    "x-cache",
    "etag",
    "cache-control",
    "retry-after",
];
/// Longest answer of a peer, bytes.
const LONGEST: usize = 16 << 20;

// === impl Peers ===

impl Peers {
    pub(crate) fn new() -> Self {
        let executor = hyper_util::rt::TokioExecutor::new();
        Peers(Client::builder(executor).build_http())
    }

    /// Asks the role at `base`; a peer that does not answer is a 502 that says so.
    pub(crate) async fn call(&self, base: &str, cx: &Cx, role: Role, req: &Req) -> Reply {
        let fail = |what: String| {
            Reply::problem(502, "peer", &format!("{} at {base}: {what}", role.name()))
        };
        let mut builder = Request::builder()
            .method(req.method.as_str())
            .uri(format!("{}{}", base.trim_end_matches('/'), target(req)))
            .header("x-request-id", &cx.request_id);
        if let Some(context) = &req.traceparent {
            builder = builder.header("traceparent", context);
        }
        for (name, value) in &req.forward {
            builder = builder.header(*name, value);
        }
        let request = match builder.body(Full::new(req.body.clone())) {
            Ok(request) => request,
            Err(e) => return fail(e.to_string()),
        };
        let response = match self.0.request(request).await {
            Ok(response) => response,
            Err(e) => {
                let cause = std::error::Error::source(&e)
                    .map_or_else(|| e.to_string(), ToString::to_string);
                return fail(cause);
            }
        };
        let (parts, body) = response.into_parts();
        let body = match Limited::new(body, LONGEST).collect().await {
            Ok(body) => body.to_bytes(),
            Err(e) => return fail(e.to_string()),
        };
        let headers = HANDED_ON
            .into_iter()
            .filter_map(|k| header_text(&parts.headers, k).map(|v| (k, v)))
            .collect();
        Reply {
            status: parts.status.as_u16(),
            body,
            headers,
        }
    }
}

/// Path and query of the request, as the client sent them but for the encoding.
fn target(req: &Req) -> String {
    let path = match (req.route.find('{'), req.route.find('}')) {
        (Some(from), Some(to)) => {
            format!(
                "{}{}{}",
                &req.route[..from],
                req.parameter,
                &req.route[to + 1..]
            )
        }
        _ => req.route.to_owned(),
    };
    let mut pairs: Vec<_> = req.query.iter().collect();
    pairs.sort();
    let query: Vec<String> = pairs
        .iter()
        .map(|(k, v)| format!("{}={}", encode(k), encode(v)))
        .collect();
    if query.is_empty() {
        path
    } else {
        format!("{path}?{}", query.join("&"))
    }
}

fn encode(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    text.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

/// Every request to a process that is not the gateway: the same token is verified again, the same routes hold.
pub(crate) async fn service_front(
    State(app): State<Arc<App>>,
    ConnectInfo(_): ConnectInfo<SocketAddr>,
    request: Request<axum::body::Body>,
) -> Response<axum::body::Body> {
    let begin = Instant::now();
    let (parts, body) = request.into_parts();
    let request_id = header_text(&parts.headers, "x-request-id").unwrap_or_default();
    let mut cx = Cx::root(request_id);
    let method = parts.method.as_str().to_owned();
    let (route, parameter) = match routes::find(&method, parts.uri.path()) {
        Match::Found(route, parameter) => (route, parameter.to_owned()),
        _ => return finish(Reply::problem(404, "not_found", "no such route"), "", false),
    };
    if route.template == "/metrics" {
        let headers = vec![("content-type", "text/plain; version=0.0.4".to_owned())];
        let body = app.metrics.text().into();
        return finish(
            Reply {
                status: 200,
                body,
                headers,
            },
            "",
            false,
        );
    }
    let reply = match read(&app, &parts.headers, &parts.uri, body, route, parameter).await {
        Err(reply) => reply,
        Ok(req) if route.role == Role::Gateway => {
            if ["/health", "/health/live", "/health/ready", "/version"].contains(&route.template) {
                crate::edge::own(&app, &req, &parts.headers).await
            } else {
                Reply::problem(404, "not_found", "the gateway answers this route")
            }
        }
        Ok(_) if !app.settings.has(route.role) => {
            Reply::problem(404, "not_found", "another role answers this route")
        }
        Ok(req) => {
            cx.user_id = req.claims.as_ref().map(|c| c.sub);
            services::serve(
                &app,
                &cx,
                route.role,
                Req {
                    method: method.clone(),
                    ..req
                },
            )
            .await
        }
    };
    let span = tracing::Span::none();
    record(&app, &cx, &span, route.template, &method, &reply, begin);
    finish(reply, &cx.request_id, method == "HEAD")
}

async fn read(
    app: &App,
    headers: &HeaderMap,
    uri: &http::Uri,
    body: axum::body::Body,
    route: &'static routes::Route,
    parameter: String,
) -> Result<Req, Reply> {
    let limit = app.settings.waf_max_body_bytes;
    let body = Limited::new(body, limit).collect().await;
    let body =
        body.map_err(|_| Reply::problem(413, "too_long", "body is too long or broke off"))?;
    Ok(Req {
        method: String::new(),
        route: route.template,
        parameter,
        query: uri.query().map(parse_query).unwrap_or_default(),
        body: body.to_bytes(),
        claims: claims(app, headers, route)?,
        traceparent: header_text(headers, "traceparent"),
        fault: own_fault(app, headers).map_err(|e| Reply::problem(400, "validation", &e))?,
        forward: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn req(route: &'static str, parameter: &str, query: &[(&str, &str)]) -> Req {
        Req {
            method: "GET".into(),
            route,
            parameter: parameter.into(),
            query: query
                .iter()
                .map(|(k, v)| ((*k).into(), (*v).into()))
                .collect(),
            body: Bytes::new(),
            claims: None,
            traceparent: None,
            fault: None,
            forward: Vec::new(),
        }
    }

    #[test]
    fn path_and_query_are_built_again() {
        assert_eq!(
            target(&req("/api/users/{id}/orders", "7", &[])),
            "/api/users/7/orders"
        );
        let q = [("q", "a b&c=d/ü"), ("page", "2")];
        assert_eq!(
            target(&req("/api/search", "", &q)),
            "/api/search?page=2&q=a%20b%26c%3Dd%2F%C3%BC"
        );
    }
}

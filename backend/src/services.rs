//! The services' own logic: user, product, order, payment, task. One function a route, explicit context.
//! Must not know sockets, limits or the gateway.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::app::App;
use crate::cache::Cache;
use crate::clock;
use crate::data::DbError;
use crate::faults::Fault;
use crate::inventory::{self, StockReply};
use crate::jwt::{self, Claims};
use crate::telemetry::{Cx, Kind, Role, attr, fail, parse_traceparent};
use crate::{backoff, schema};

/// A request inside the backend.
#[derive(Clone, Debug)]
pub(crate) struct Req {
    /// Method.
    pub method: String,
    /// Route template.
    pub route: &'static str,
    /// Value of the template's parameter.
    pub parameter: String,
    /// Decoded query.
    pub query: HashMap<String, String>,
    /// Body.
    pub body: Bytes,
    /// Token's claims.
    pub claims: Option<Claims>,
    /// Trace context that came with the hop.
    pub traceparent: Option<String>,
    /// Fault that this request brought for its service.
    pub fault: Option<Fault>,
    /// Headers that go on to a service in another process.
    pub forward: Vec<(&'static str, String)>,
}

/// An answer inside the backend.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Body.
    pub body: Bytes,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

// === impl Reply ===

impl Reply {
    /// JSON.
    pub(crate) fn json(status: u16, value: &Value) -> Self {
        Reply {
            status,
            body: Bytes::from(value.to_string()),
            headers: vec![("content-type", "application/json".into())],
        }
    }

    /// RFC 9457 problem.
    pub(crate) fn problem(status: u16, kind: &str, detail: &str) -> Self {
        let value = json!({"type": format!("about:blank#{kind}"), "title": kind, "status": status, "detail": detail});
        Reply {
            status,
            body: Bytes::from(value.to_string()),
            headers: vec![("content-type", "application/problem+json".into())],
        }
    }
}

impl From<DbError> for Reply {
    fn from(e: DbError) -> Self {
        match e {
            DbError::Refused(why) => Reply::problem(409, "conflict", why),
            DbError::PoolTimeout(_) => Reply::problem(503, "pool_exhausted", &e.to_string()),
            _ => Reply::problem(500, "database", &e.to_string()),
        }
    }
}

type Answer = Result<Reply, Reply>;

/// Runs a request in its service: the hop's far end, with its own SERVER span and deadline.
pub(crate) async fn serve(app: &Arc<App>, cx: &Cx, role: Role, req: Req) -> Reply {
    let remote = req.traceparent.as_deref().and_then(parse_traceparent);
    let cx = Cx {
        span: tracing::Span::none(),
        ..cx.clone()
    };
    let span = if app.telemetry.on() {
        app.telemetry.span(
            &cx,
            role,
            Kind::Server,
            &format!("{} {}", req.method, req.route),
            remote,
        )
    } else {
        tracing::Span::none()
    };
    attr(&span, "http.request.method", req.method.clone());
    attr(&span, "http.route", req.route);
    let cx = cx.below(&span);
    let limit = Duration::from_millis(app.settings.timeouts.service_a_ms);
    let work = async {
        app.delay(role.name()).await;
        if let Some(reply) = own_fault(&req).await {
            return Err(reply);
        }
        if let Some(hit) = app.faults.hit("error", role.name(), clock::unix_ms()) {
            return Err(Reply::problem(
                hit.fault.status.unwrap_or(500),
                "injected",
                "injected error",
            ));
        }
        route(app, &cx, &req).await
    };
    let answer = tokio::time::timeout(limit, work).await;
    let reply = answer
        .unwrap_or_else(|_| Err(Reply::problem(504, "timeout", "service deadline")))
        .unwrap_or_else(|e| e);
    attr(&span, "http.response.status_code", i64::from(reply.status));
    if reply.status >= 500 {
        fail(&span, &reply.status.to_string());
    }
    reply
}

/// Carries out the fault that the request brought: waits, or answers.
pub(crate) async fn own_fault(req: &Req) -> Option<Reply> {
    let fault = req.fault.as_ref()?;
    if fault.knob == "latency" {
        clock::wait_ms(fault.ms).await;
        return None;
    }
    let status = fault.status.unwrap_or(500);
    Some(Reply::problem(
        status,
        "injected",
        "error asked for by x-fault",
    ))
}

async fn route(app: &Arc<App>, cx: &Cx, req: &Req) -> Answer {
    match (req.method.as_str(), req.route) {
        ("POST", "/api/v1/auth/register") => register(app, cx, req).await,
        ("POST", "/api/v1/auth/login") => login(app, cx, req).await,
        ("GET", "/api/v1/auth/me") => user(app, cx, req.claims.as_ref().map_or(0, |c| c.sub)).await,
        (_, "/api/users/{id}") => user(app, cx, owned(req)?).await,
        (_, "/api/users/{id}/orders") => user_orders(app, cx, owned(req)?).await,
        (_, "/api/products") => products(app, cx, req).await,
        (_, "/api/products/{id}") => product(app, cx, number(&req.parameter)?).await,
        (_, "/api/search") => search(app, cx, req).await,
        ("POST", "/api/orders") => create_order(app, cx, req).await,
        (_, "/api/orders/{id}") => order(app, cx, req).await,
        ("POST", "/api/payments") => {
            let v = object(&req.body)?;
            let (order, amount) = (
                v["orderId"].as_i64().unwrap_or(0),
                v["amountCents"].as_i64().unwrap_or(0),
            );
            let paid = pay(app, cx, order, amount).await;
            paid.map(|()| Reply::json(201, &json!({"orderId": order, "status": "completed"})))
                .map_err(|e| Reply::problem(503, "payment", &e))
        }
        _ => crate::tasks::route(app, cx, req).await,
    }
}

pub(crate) fn number(text: &str) -> Result<i64, Reply> {
    text.parse()
        .map_err(|_| Reply::problem(400, "validation", "the id in the path is not a number"))
}

pub(crate) fn object(body: &Bytes) -> Result<Value, Reply> {
    let value: Value = serde_json::from_slice(body)
        .map_err(|e| Reply::problem(400, "validation", &format!("body is not JSON: {e}")))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(Reply::problem(
            400,
            "validation",
            "body must be a JSON object",
        ))
    }
}

/// The id in the path, when the caller is that user or an admin.
fn owned(req: &Req) -> Result<i64, Reply> {
    let id = number(&req.parameter)?;
    match &req.claims {
        Some(c) if c.sub == id || c.role == "admin" => Ok(id),
        _ => Err(Reply::problem(403, "forbidden", "not your own")),
    }
}

// --- user ---

async fn register(app: &App, cx: &Cx, req: &Req) -> Answer {
    let v = object(&req.body)?;
    let (Some(email), Some(password)) = (v["email"].as_str(), v["password"].as_str()) else {
        return Err(Reply::problem(
            400,
            "validation",
            "email and password are required",
        ));
    };
    let tier = v["tier"]
        .as_str()
        .filter(|t| ["free", "premium"].contains(t))
        .unwrap_or("standard")
        .to_owned();
    if !email.contains('@') || email.len() > 200 || password.is_empty() {
        return Err(Reply::problem(
            400,
            "validation",
            "email must contain @, password must not be empty",
        ));
    }
    let (email, digest, t) = (email.to_owned(), jwt::digest(email, password), tier.clone());
    let id = app.write(cx, Role::User, "users", move |tx| {
        Box::pin(async move {
            let sql = "INSERT INTO users(email, password, role, tier) VALUES(?1, ?2, 'user', ?3) ON CONFLICT DO NOTHING RETURNING id";
            let id = tx.insert(sql, vec![email.into(), digest.into(), t.into()]);
            id.await?.ok_or(DbError::Refused("email is taken"))
        })
    });
    let id = id.await?;
    Ok(Reply::json(
        201,
        &json!({"id": id, "token": token(app, id, "user", &tier)}),
    ))
}

async fn login(app: &App, cx: &Cx, req: &Req) -> Answer {
    let v = object(&req.body)?;
    let email = v["email"].as_str().unwrap_or("").to_owned();
    let digest = jwt::digest(&email, v["password"].as_str().unwrap_or(""));
    let sql = "SELECT id, role, tier FROM users WHERE email = ?1 AND password = ?2";
    let values = vec![email.into(), digest.into()];
    let rows = app
        .read(cx, Role::User, false, "users", sql, values)
        .await?;
    let Some(row) = rows.first() else {
        app.metrics
            .auth_failures
            .with_label_values(&["password"])
            .inc();
        return Err(Reply::problem(
            401,
            "unauthorized",
            "wrong email or password",
        ));
    };
    Ok(Reply::json(
        200,
        &json!({"id": row.int(0), "token": token(app, row.int(0), row.text(1).unwrap_or(""), row.text(2).unwrap_or(""))}),
    ))
}

fn token(app: &App, id: i64, role: &str, tier: &str) -> String {
    let iat = app.wall_ms() / 1000;
    let claims = Claims {
        sub: id,
        role: role.into(),
        tier: tier.into(),
        iat,
        exp: iat + app.settings.jwt_ttl_s,
    };
    jwt::sign(&claims, app.settings.jwt_secret.as_bytes())
}

async fn user(app: &App, cx: &Cx, id: i64) -> Answer {
    let sql = "SELECT email, role, tier FROM users WHERE id = ?1";
    let rows = app.read(cx, Role::User, true, "users", sql, vec![id.into()]);
    rows.await?
        .first()
        .map(|r| json!({"id": id, "email": r.text(0), "role": r.text(1), "tier": r.text(2)}))
        .map(|v| Reply::json(200, &v))
        .ok_or_else(|| Reply::problem(404, "not_found", "no such user"))
}

// --- product ---

/// Cache-aside: GET, on a miss the replica, SET with the TTL; without a cache straight to the database.
async fn product(app: &App, cx: &Cx, id: i64) -> Answer {
    let key = format!("product:{id}");
    let down = match app.cache_get(cx, Role::Product, &key).await {
        Ok(Some(bytes)) => return Ok(fresh(app, id, bytes, "HIT")),
        Ok(None) => false,
        Err(_) => true,
    };
    if down {
        app.metrics
            .degraded
            .with_label_values(&["cache_bypass"])
            .inc();
        return Ok(fresh(app, id, load_product(app, cx, id).await?, "BYPASS"));
    }
    if !app.settings.cache.single_flight {
        let bytes = load_product(app, cx, id).await?;
        app.cache_set(
            cx,
            Role::Product,
            &key,
            bytes.clone(),
            app.settings.cache.product_ttl_s,
        )
        .await;
        return Ok(fresh(app, id, bytes, "MISS"));
    }
    let flight = {
        let mut flights = app.flights.lock().unwrap_or_else(|e| e.into_inner());
        Arc::clone(flights.entry(key.clone()).or_default())
    };
    let (guard, waited) = match flight.try_lock() {
        Ok(guard) => (guard, false),
        Err(_) => (flight.lock().await, true),
    };
    // Whoever loaded it while this one waited has left it in the cache; should it not answer, this one loads it too.
    // A second look costs a server a round trip and a miss, so it is for those who waited.
    let look = waited || matches!(app.cache, Cache::Memory(_));
    let left = if look {
        app.cache.get(&key).await
    } else {
        Ok(None)
    };
    let loaded = match left {
        Ok(Some(bytes)) => Ok(bytes),
        _ => match load_product(app, cx, id).await {
            Ok(bytes) => {
                app.cache_set(
                    cx,
                    Role::Product,
                    &key,
                    bytes.clone(),
                    app.settings.cache.product_ttl_s,
                )
                .await;
                Ok(bytes)
            }
            Err(e) => Err(e),
        },
    };
    drop(guard);
    app.flights
        .lock()
        .unwrap_or_else(|e| e.into_inner())
        .remove(&key);
    Ok(fresh(app, id, loaded?, "MISS"))
}

async fn load_product(app: &App, cx: &Cx, id: i64) -> Result<Bytes, Reply> {
    let (sql, values) = (schema::PRODUCT, vec![id.into()]);
    let rows = app.read(cx, Role::Product, true, "products", sql, values);
    rows.await?
        .first()
        .map(|r| Bytes::from(schema::product_json(r).to_string()))
        .ok_or_else(|| Reply::problem(404, "not_found", "no such product"))
}

/// Answers with a product and counts it as stale when a newer version was committed before.
fn fresh(app: &App, id: i64, bytes: Bytes, x_cache: &str) -> Reply {
    let newest = app
        .versions
        .lock()
        .unwrap_or_else(|e| e.into_inner())
        .get(&id)
        .copied();
    if let Some(newest) = newest {
        let served = serde_json::from_slice::<Value>(&bytes)
            .ok()
            .and_then(|v| v["version"].as_i64());
        if served.is_some_and(|v| v < newest) {
            app.truth.stale.fetch_add(1, Ordering::Relaxed);
            app.metrics.stale.inc();
        }
    }
    let headers = vec![
        ("content-type", "application/json".into()),
        ("x-cache", x_cache.into()),
    ];
    Reply {
        status: 200,
        body: bytes,
        headers,
    }
}

/// `page` from 1 and `limit` 1..=100 of a query.
pub(crate) fn page(req: &Req) -> (i64, i64) {
    let n = |k: &str, d: i64| req.query.get(k).and_then(|v| v.parse().ok()).unwrap_or(d);
    (
        n("page", 1).clamp(1, 1_000_000),
        n("limit", 10).clamp(1, 100),
    )
}

async fn products(app: &App, cx: &Cx, req: &Req) -> Answer {
    let (page, limit) = page(req);
    let (sql, values) = (
        schema::PRODUCTS,
        vec![limit.into(), ((page - 1) * limit).into()],
    );
    let rows = app.read(cx, Role::Product, true, "products", sql, values);
    let items: Vec<Value> = rows.await?.iter().map(schema::product_json).collect();
    Ok(Reply::json(
        200,
        &json!({"page": page, "limit": limit, "items": items}),
    ))
}

async fn search(app: &App, cx: &Cx, req: &Req) -> Answer {
    let q = req.query.get("q").cloned().unwrap_or_default();
    if q.is_empty() || q.len() > 200 {
        return Err(Reply::problem(
            400,
            "validation",
            "q must have 1 to 200 bytes",
        ));
    }
    let like = format!("%{}%", q.replace(['%', '_'], ""));
    let (sql, values) = (schema::SEARCH, vec![like.into()]);
    let rows = app.read(cx, Role::Product, true, "search", sql, values);
    let items: Vec<Value> = rows.await?.iter().map(schema::product_json).collect();
    Ok(Reply::json(200, &json!({"q": q, "items": items})))
}

// --- order ---

#[derive(Clone, Copy, Debug)]
struct Line {
    product: i64,
    quantity: i64,
    price: i64,
}

async fn create_order(app: &Arc<App>, cx: &Cx, req: &Req) -> Answer {
    let user = req.claims.as_ref().map_or(0, |c| c.sub);
    let lines = order_lines(&object(&req.body)?)?;
    let mut priced = Vec::with_capacity(lines.len());
    for line in lines {
        let stock = check_inventory(app, cx, line).await?;
        if stock.price_cents < 0 {
            return Err(Reply::problem(404, "not_found", "no such product"));
        }
        if !stock.available {
            app.metrics
                .orders
                .with_label_values(&["out_of_stock"])
                .inc();
            return Err(Reply::problem(409, "out_of_stock", "not enough stock"));
        }
        priced.push(Line {
            price: stock.price_cents,
            ..line
        });
    }
    let amount: i64 = priced
        .iter()
        .map(|l| l.price.saturating_mul(l.quantity))
        .fold(0, i64::saturating_add);
    let items: Vec<Value> = priced
        .iter()
        .map(|l| json!({"productId": l.product, "quantity": l.quantity}))
        .collect();
    let (work, headers) = (priced.clone(), cx.traceparent());
    let items_value = Value::Array(items);
    let written = app.write(cx, Role::Order, "orders", move |tx| {
        Box::pin(async move {
            let lines: Vec<_> = work.iter().map(|l| (l.product, l.quantity)).collect();
            schema::insert_order(tx, user, amount, &items_value, &lines, headers).await
        })
    });
    let (id, versions) = match written.await {
        Ok(done) => done,
        Err(DbError::Refused(why)) => {
            app.metrics
                .orders
                .with_label_values(&["out_of_stock"])
                .inc();
            return Err(Reply::problem(409, "out_of_stock", why));
        }
        Err(e) => return Err(e.into()),
    };
    app.versions
        .lock()
        .unwrap_or_else(|e| e.into_inner())
        .extend(versions);
    for line in &priced {
        app.cache_del(cx, Role::Order, &format!("product:{}", line.product))
            .await;
    }
    app.cache_del(cx, Role::Order, &format!("user:orders:{user}"))
        .await;
    app.truth.orders.fetch_add(1, Ordering::Relaxed);
    app.metrics.orders.with_label_values(&["created"]).inc();
    Ok(Reply::json(
        201,
        &json!({"orderId": id, "status": "pending", "amountCents": amount}),
    ))
}

fn order_lines(v: &Value) -> Result<Vec<Line>, Reply> {
    let bad = |text: &str| Reply::problem(400, "validation", text);
    let items = v["items"]
        .as_array()
        .filter(|i| (1..=20).contains(&i.len()))
        .ok_or_else(|| bad("items must be an array of 1 to 20"))?;
    let line = |i: &Value| {
        let product = i["productId"]
            .as_i64()
            .ok_or_else(|| bad("productId must be a number"))?;
        let quantity = i["quantity"].as_i64().unwrap_or(1);
        if !(1..=1000).contains(&quantity) {
            return Err(bad("quantity must be 1 to 1000"));
        }
        Ok(Line {
            product,
            quantity,
            price: 0,
        })
    };
    items.iter().map(line).collect()
}

/// Over gRPC, with breaker, deadline and retries with full jitter.
async fn check_inventory(app: &Arc<App>, cx: &Cx, line: Line) -> Result<StockReply, Reply> {
    let channel = app
        .inventory
        .lock()
        .unwrap_or_else(|e| e.into_inner())
        .clone();
    let Some(channel) = channel else {
        return Err(Reply::problem(
            503,
            "unavailable",
            "inventory is not connected",
        ));
    };
    let attempts = if app.struck("retries_off", "") {
        1
    } else {
        app.settings.retry.attempts.max(1)
    };
    let limit = Duration::from_millis(app.settings.timeouts.service_b_ms);
    let mut last = String::from("circuit breaker of inventory is open");
    for attempt in 1..=attempts {
        if attempt > 1 {
            let jitter = (!app.struck("no_jitter", "")).then(rand::random::<f64>);
            clock::wait_ms(backoff::wait_ms(&app.settings.retry, attempt, jitter) as f64).await;
        }
        if !app.admit("inventory") {
            break;
        }
        if attempt > 1 {
            app.metrics.retries.with_label_values(&["inventory"]).inc();
        }
        let call = tokio::time::timeout(
            limit,
            inventory::check(app, cx, channel.clone(), line.product, line.quantity),
        );
        let answer = call
            .await
            .unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("deadline")));
        app.outcome("inventory", answer.is_ok());
        match answer {
            Ok(stock) => return Ok(stock),
            Err(status) => last = status.message().to_owned(),
        }
    }
    Err(Reply::problem(503, "inventory_unavailable", &last))
}

async fn order(app: &App, cx: &Cx, req: &Req) -> Answer {
    let id = number(&req.parameter)?;
    let (sql, values) = (schema::ORDER, vec![id.into()]);
    let rows = app.read(cx, Role::Order, false, "orders", sql, values);
    let rows = rows.await?;
    let value = rows
        .first()
        .map(schema::order_json)
        .ok_or_else(|| Reply::problem(404, "not_found", "no such order"))?;
    match &req.claims {
        Some(c) if c.role == "admin" || value["userId"].as_i64() == Some(c.sub) => {
            Ok(Reply::json(200, &value))
        }
        _ => Err(Reply::problem(403, "forbidden", "not your own")),
    }
}

async fn user_orders(app: &App, cx: &Cx, user: i64) -> Answer {
    let key = format!("user:orders:{user}");
    let cached = app.cache_get(cx, Role::Order, &key).await;
    if let Ok(Some(bytes)) = cached {
        return Ok(Reply {
            status: 200,
            body: bytes,
            headers: vec![
                ("content-type", "application/json".into()),
                ("x-cache", "HIT".into()),
            ],
        });
    }
    let (sql, values) = (schema::USER_ORDERS, vec![user.into()]);
    let rows = app.read(cx, Role::Order, false, "orders", sql, values);
    let items: Vec<Value> = rows.await?.iter().map(schema::order_json).collect();
    let reply = Reply::json(200, &json!({"userId": user, "items": items}));
    if cached.is_ok() {
        app.cache_set(
            cx,
            Role::Order,
            &key,
            reply.body.clone(),
            app.settings.cache.product_ttl_s,
        )
        .await;
    }
    Ok(reply)
}

// --- payment ---

/// Charges through the third party (breaker `payment`) and writes the payment.
pub(crate) async fn pay(app: &App, cx: &Cx, order: i64, amount: i64) -> Result<(), String> {
    if !app.admit("payment") {
        return Err("circuit breaker of payment is open".into());
    }
    let span = app
        .telemetry
        .span(cx, Role::Payment, Kind::Client, "POST /v1/charges", None);
    attr(&span, "http.request.method", "POST");
    attr(&span, "peer.service", "payment-provider");
    attr(&span, "server.address", "payment-provider");
    clock::wait_ms(app.knob_ms("external_latency", "payment")).await;
    app.delay("payment-provider").await;
    let ok = !app.struck("external_error", "payment");
    app.outcome("payment", ok);
    if !ok {
        fail(&span, "503");
        return Err("payment provider answered 503".into());
    }
    drop(span);
    let trace = cx.traceparent();
    let done = app.write(cx, Role::Payment, "payments", move |tx| {
        Box::pin(schema::insert_payment(tx, order, amount, trace))
    });
    done.await.map_err(|e| e.to_string())
}

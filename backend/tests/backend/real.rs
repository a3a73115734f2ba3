//! Real mode: the same handlers on Redis, PostgreSQL and RabbitMQ of `backend/stack`, with parts of it failing.

use std::time::Duration;

use backend::settings::{Breaker, Cache, Queue, Real, Role, SeedData, Split};
use backend::{Backend, Settings};
use serde_json::{Value, json};

#[allow(dead_code, reason = "the unit tests of the parts use the rest of it")]
#[path = "../../src/stack_test.rs"]
mod stack;

use super::{call, get, login, set_faults, settings, wait_for};

async fn start(stack: &stack::Stack) -> Backend {
    let mut settings = real_settings(stack);
    if let Some(real) = &mut settings.real {
        real.fronts.clear();
    }
    backend::start(settings).await.unwrap()
}

fn real_settings(stack: &stack::Stack) -> Settings {
    let real = Real::from_variables(|name| stack.variable(name)).unwrap();
    Settings {
        real: Some(real),
        queue: Queue {
            backoff_ms: 20,
            poll_ms: 20,
            ..Queue::default()
        },
        breaker: Breaker {
            open_ms: 1000,
            min_calls: 5,
            window_ms: 1000,
            ..Breaker::default()
        },
        cache: Cache {
            timeout_ms: 100,
            ..Cache::default()
        },
        seed_data: SeedData {
            products: 50,
            users: 60,
            tasks: 20,
            stock: 20,
        },
        ..settings()
    }
}

async fn order(b: &Backend, token: &str, product: u32) -> u16 {
    let body = json!({"items": [{"productId": product, "quantity": 1}]});
    call(b.front_addr, "POST", "/api/orders", token, &body)
        .await
        .0
}

fn metric(b: &Backend, name: &str) -> f64 {
    let text = b.metrics();
    let values = text
        .lines()
        .filter(|l| l.starts_with(name) && !l.starts_with('#'))
        .filter_map(|l| l.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum()
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{what} did not come about within 30 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis, postgresql, rabbitmq"]
async fn the_same_backend_on_real_servers_and_with_each_of_them_failing() {
    let stack = stack::Stack::up("redis,postgres,rabbitmq");
    let b = start(&stack).await;
    let token = login(&b, 2).await;
    reads_fill_the_cache(&b).await;
    stock_is_sold_exactly(&b).await;
    an_event_that_comes_twice_counts_once(&b, &stack).await;
    poison_is_dead_after_four_deliveries(&b, &token).await;
    without_redis_reads_go_on(&b, &stack).await;
    without_rabbitmq_orders_wait_in_the_outbox(&b, &stack, &token).await;
    the_replica_tells_its_lag(&b, &stack, &token).await;
    let (_, state) = get(b.admin_addr, "/admin/state").await;
    assert_eq!(state["requests"]["errors_5xx"], 0, "{state}");
    without_the_primary_reads_go_on(&b, &stack, &token).await;
    let (_, state) = get(b.admin_addr, "/admin/state").await;
    let counted = metric(&b, "http_server_requests_total");
    assert_eq!(state["requests"]["total"].as_f64(), Some(counted));
    b.shutdown().await;

    // What was written is there for the next one, and is not seeded again.
    let b = start(&stack).await;
    let (_, product) = get(b.front_addr, "/api/products/7").await;
    assert_eq!(product["quantity"], 0);
    let (_, task) = call(
        b.front_addr,
        "POST",
        "/api/v1/tasks",
        &login(&b, 3).await,
        &json!({"title": "new"}),
    )
    .await;
    assert_eq!(task["id"], 21, "ids go on behind the seeded rows");
    b.shutdown().await;
}

async fn reads_fill_the_cache(b: &Backend) {
    for _ in 0..3 {
        assert_eq!(get(b.front_addr, "/api/products/3").await.0, 200);
    }
    assert_eq!(get(b.front_addr, "/api/products/999").await.0, 404);
    let (_, state) = get(b.admin_addr, "/admin/state").await;
    assert_eq!(
        state["cache"],
        json!({"hits": 2, "misses": 2, "errors": 0, "bypass": 0})
    );
    let (_, found) = get(b.front_addr, "/api/search?q=PRODUCT%204").await;
    assert_eq!(
        found["items"].as_array().unwrap().len(),
        11,
        "4 and 40 to 49"
    );
}

async fn stock_is_sold_exactly(b: &Backend) {
    let mut tokens = Vec::new();
    for user in 2..52 {
        tokens.push(login(b, user).await);
    }
    let buyers = tokens.iter().map(|t| order(b, t, 7));
    let answers = futures_util::future::join_all(buyers).await;
    let sold = answers.iter().filter(|s| **s == 201).count();
    let refused = answers.iter().filter(|s| **s == 409).count();
    assert_eq!((sold, refused), (20, 30), "{answers:?}");
    let (_, product) = get(b.front_addr, "/api/products/7").await;
    assert_eq!(product["quantity"], 0);
    // Each order: four consumers of order.created and one of payment.completed.
    let state = wait_for(b, "/admin/state", |s| s["queue"]["acked"] == 100).await;
    assert_eq!(state["queue"]["published"], 40, "{state}");
    assert_eq!(state["queue"]["retried"], 0);
    let (_, orders) = call(
        b.front_addr,
        "GET",
        "/api/users/2/orders",
        &tokens[0],
        &Value::Null,
    )
    .await;
    let mine = orders["items"].as_array().unwrap();
    assert!(mine.iter().all(|o| o["status"] == "paid"), "{orders}");
}

/// What a relay leaves that dies between the broker's confirm and its own commit: the event goes out again.
async fn an_event_that_comes_twice_counts_once(b: &Backend, stack: &stack::Stack) {
    let url = stack.env("NINES_PG_PRIMARY");
    let (sql, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let counts = async || {
        let text = "SELECT (SELECT count(*) FROM orders WHERE status = 'paid'), (SELECT count(*) FROM payments), (SELECT count(*) FROM audit)";
        let row = sql.query_one(text, &[]).await.unwrap();
        [row.get::<_, i64>(0), row.get(1), row.get(2)]
    };
    assert_eq!(counts().await, [20, 20, 20]);
    let again = "INSERT INTO outbox(topic, body, at_ms) SELECT topic, body, at_ms FROM audit ORDER BY id LIMIT 1";
    assert_eq!(sql.execute(again, &[]).await.unwrap(), 1);
    wait_for(b, "/admin/state", |s| s["queue"]["acked"] == 104).await;
    assert_eq!(counts().await, [20, 20, 20]);
}

async fn poison_is_dead_after_four_deliveries(b: &Backend, token: &str) {
    set_faults(b, json!([{"knob": "poison", "target": "email"}])).await;
    let (_, before) = get(b.admin_addr, "/admin/state").await;
    assert_eq!(order(b, token, 8).await, 201);
    let state = wait_for(b, "/admin/state", |s| s["queue"]["dead"] == 1).await;
    assert_eq!(state["queue"]["retried"], 3);
    wait_for(b, "/admin/queue", |q| q["queues"]["email"]["dead"] == 1).await;
    until("dlq_depth", || {
        metric(b, r#"dlq_depth{queue="email"}"#) == 1.0
    })
    .await;
    set_faults(b, json!([])).await;
    let (status, moved) = call(
        b.admin_addr,
        "POST",
        "/admin/dlq/requeue?queue=email",
        "",
        &Value::Null,
    )
    .await;
    assert_eq!((status, &moved["requeued"]), (200, &json!(1)), "{moved}");
    let acked = before["queue"]["acked"].as_u64().unwrap() + 5;
    wait_for(b, "/admin/state", |s| s["queue"]["acked"] == acked).await;
    wait_for(b, "/admin/queue", |q| q["queues"]["email"]["dead"] == 0).await;
}

async fn without_redis_reads_go_on(b: &Backend, stack: &stack::Stack) {
    stack.kill("redis");
    for _ in 0..20 {
        assert_eq!(get(b.front_addr, "/api/products/3").await.0, 200);
    }
    let (_, state) = get(b.admin_addr, "/admin/state").await;
    assert_eq!(state["breakers"]["cache"], "open", "{state}");
    assert!(state["cache"]["bypass"].as_u64().unwrap() > 0);
    stack.fault("redis-start");
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(get(b.front_addr, "/api/products/3").await.0, 200);
        if get(b.admin_addr, "/admin/state").await.1["breakers"]["cache"] == "closed" {
            let (_, before) = get(b.admin_addr, "/admin/state").await;
            get(b.front_addr, "/api/products/3").await;
            let (_, after) = get(b.admin_addr, "/admin/state").await;
            let hits = |s: &Value| s["cache"]["hits"].as_u64().unwrap();
            assert_eq!(hits(&after), hits(&before) + 1);
            return;
        }
    }
    panic!("the breaker did not close within 10 s of the return of Redis");
}

async fn without_rabbitmq_orders_wait_in_the_outbox(
    b: &Backend,
    stack: &stack::Stack,
    token: &str,
) {
    let (_, before) = get(b.admin_addr, "/admin/state").await;
    let acked = before["queue"]["acked"].as_u64().unwrap();
    stack.fault("rabbitmq-stop");
    for _ in 0..3 {
        assert_eq!(order(b, token, 9).await, 201);
    }
    until("outbox_pending", || metric(b, "outbox_pending") == 3.0).await;
    stack.fault("rabbitmq-start");
    until("the outbox", || metric(b, "outbox_pending") == 0.0).await;
    until("the consumers", || {
        metric(
            b,
            r#"worker_jobs_total{queue="order_payments",result="ok"}"#,
        ) >= 24.0
    })
    .await;
    let state = wait_for(b, "/admin/state", |s| {
        s["queue"]["acked"].as_u64() >= Some(acked + 15)
    })
    .await;
    // At least once: a message may come twice, its effect does not.
    let (_, orders) = call(
        b.front_addr,
        "GET",
        "/api/users/2/orders",
        token,
        &Value::Null,
    )
    .await;
    assert!(
        orders["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|o| o["status"] == "paid"),
        "{orders} {state}"
    );
}

async fn the_replica_tells_its_lag(b: &Backend, stack: &stack::Stack, token: &str) {
    let lag = || metric(b, "db_replication_lag_seconds");
    until("no lag", || lag() == 0.0).await;
    // Silence before a write is no lag: the age of the last replay would say 4 s here.
    tokio::time::sleep(Duration::from_secs(4)).await;
    stack.fault("replica-pause");
    assert_eq!(order(b, token, 10).await, 201);
    until("some lag", || lag() > 0.0).await;
    assert!(lag() < 3.0, "{}", lag());
    until("a lag of a second", || lag() >= 1.0).await;
    stack.fault("replica-resume");
    until("no lag again", || lag() == 0.0).await;
}

async fn without_the_primary_reads_go_on(b: &Backend, stack: &stack::Stack, token: &str) {
    stack.fault("pg-stop");
    let mut noticed = false;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if get(b.front_addr, "/health").await.1["database"] == "disconnected" {
            noticed = true;
            break;
        }
    }
    assert!(noticed, "/health tells that the database is gone");
    assert_eq!(get(b.front_addr, "/health").await.0, 200);
    assert_eq!(get(b.front_addr, "/health/ready").await.0, 503);
    // Not cached: from the replica.
    assert_eq!(get(b.front_addr, "/api/products/44").await.0, 200);
    assert!(order(b, token, 11).await >= 500);
    stack.fault("pg-start");
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if order(b, token, 11).await == 201 {
            return;
        }
    }
    panic!("no order within 10 s of the return of PostgreSQL");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx, haproxy, redis, postgresql, rabbitmq"]
async fn nginx_and_haproxy_spread_requests_over_the_instances() {
    let parts = "nginx,haproxy,redis,postgres,rabbitmq";
    let stack = stack::Stack::up_with(parts, &["--inter", "1s"]);
    let b = backend::start(real_settings(&stack)).await.unwrap();
    let address = |name: &str| -> std::net::SocketAddr {
        let url = stack.env(name);
        url.trim_start_matches("http://").parse().unwrap()
    };
    let (nginx, haproxy) = (address("NINES_NGINX_URL"), address("NINES_HAPROXY_URL"));
    // Both may have seen the instances away before these listened.
    for balancer in [nginx, haproxy] {
        let mut good = 0;
        for _ in 0..300 {
            let healthy = get(balancer, "/health").await.0 == 200;
            good = if healthy { good + 1 } else { 0 };
            if good == 60 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(good, 60, "{balancer} finds no instance");
    }
    let served = |i: u32| {
        let series = format!(r#"lb_requests_total{{backend="gateway-{i}",status="200""#);
        metric(&b, &series)
    };
    let before = [served(1), served(2), served(3)];
    for i in 0..30 {
        let balancer = if i % 2 == 0 { nginx } else { haproxy };
        let path = format!("/api/products/{}", i + 1);
        assert_eq!(get(balancer, &path).await.0, 200);
    }
    let each: Vec<f64> = (1..=3)
        .map(|i| served(i) - before[i as usize - 1])
        .collect();
    assert!(each.iter().all(|n| *n >= 3.0), "{each:?}");
    assert_eq!(
        metric(&b, "backend_up"),
        0.0,
        "their balancer, their numbers"
    );
    // One instance fails: nginx asks another, HAProxy takes it out after two checks.
    set_faults(&b, json!([{"knob": "kill_instance", "value": 1}])).await;
    for i in 0..15 {
        let path = format!("/api/products/{}", i + 1);
        assert_eq!(get(nginx, &path).await.0, 200);
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    for i in 0..15 {
        let path = format!("/api/products/{}", i + 1);
        assert_eq!(get(haproxy, &path).await.0, 200);
    }
    // Health checks go on between the looks.
    let before = metric(&b, "http_server_requests_total");
    let (_, state) = get(b.admin_addr, "/admin/state").await;
    let after = metric(&b, "http_server_requests_total");
    let total = state["requests"]["total"].as_f64().unwrap();
    assert!(
        (before..=after).contains(&total),
        "{before} {total} {after}"
    );
    b.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis, postgresql, rabbitmq"]
async fn roles_in_processes_of_their_own_are_one_backend() {
    let stack = stack::Stack::up("redis,postgres,rabbitmq");
    let receiver = super::Receiver::default();
    let endpoint = super::receive(receiver.clone()).await;
    let one = async |roles: &[Role], peers: &[(Role, &Backend)], inventory: Option<&Backend>| {
        let mut real = Real::from_variables(|name| stack.variable(name)).unwrap();
        real.fronts.clear();
        let split = Split {
            roles: roles.to_vec(),
            peers: peers
                .iter()
                .map(|(r, b)| (*r, format!("http://{}", b.front_addr)))
                .collect(),
            inventory_url: inventory.map(|b| format!("http://{}", b.inventory_addr)),
            ..Split::default()
        };
        let settings = Settings {
            real: Some(real),
            split: Some(split),
            otlp_endpoint: Some(endpoint.clone()),
            ..settings()
        };
        backend::start(settings).await.unwrap()
    };
    let product = one(&[Role::Product], &[], None).await;
    let order_ = one(&[Role::Order], &[], Some(&product)).await;
    let rest = one(
        &[
            Role::User,
            Role::Payment,
            Role::Task,
            Role::Notification,
            Role::Worker,
        ],
        &[],
        None,
    )
    .await;
    let peers = [
        (Role::Product, &product),
        (Role::Order, &order_),
        (Role::User, &rest),
        (Role::Payment, &rest),
        (Role::Task, &rest),
    ];
    let gateway = one(&[Role::Gateway], &peers, None).await;
    let token = login(&gateway, 2).await;
    assert_eq!(order(&gateway, &token, 7).await, 201);
    assert_eq!(
        get(gateway.front_addr, "/api/products/7").await.1["quantity"],
        999
    );
    assert_eq!(
        get(gateway.front_addr, "/api/search?q=t%2099").await.1["q"],
        "t 99"
    );
    assert_eq!(
        get(product.front_addr, "/api/v1/tasks").await.0,
        404,
        "another role answers it"
    );
    assert_eq!(
        call(order_.front_addr, "GET", "/api/orders/1", "", &Value::Null)
            .await
            .0,
        401
    );
    until("both consumers of the order role and the rest", || {
        metric(
            &order_,
            r#"worker_jobs_total{queue="order_payments",result="ok"}"#,
        ) == 1.0
            && metric(&rest, "worker_jobs_total") == 4.0
    })
    .await;
    assert_eq!(
        metric(
            &gateway,
            r#"http_server_requests_total{method="POST",route="/api/orders",service="gateway""#
        ),
        1.0
    );
    assert_eq!(
        metric(
            &order_,
            r#"http_server_requests_total{method="POST",route="/api/orders",service="order""#
        ),
        1.0
    );
    // A peer that is gone is a 502 that names it; the others go on.
    let gone = product.front_addr;
    product.shutdown().await;
    let (status, problem) = get(gateway.front_addr, "/api/products/7").await;
    assert_eq!(status, 502);
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains(&format!("product at http://{gone}")),
        "{problem}"
    );
    assert_eq!(get(gateway.front_addr, "/api/v1/tasks").await.0, 200);
    for b in [gateway, order_, rest] {
        b.shutdown().await;
    }
    let spans = receiver.0.lock().unwrap().clone();
    let begin = spans
        .iter()
        .find(|(s, span)| s.contains("\"gateway\"") && span.name == "POST /api/orders");
    let trace = begin.unwrap().1.trace_id.clone();
    for service in [
        "gateway",
        "order",
        "product",
        "payment",
        "notification",
        "worker",
    ] {
        let name = format!("\"{service}\"");
        let found = spans
            .iter()
            .any(|(s, span)| s.contains(&name) && span.trace_id == trace);
        assert!(found, "{service} is in the order's trace");
    }
}

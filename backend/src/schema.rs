//! Tables, statements and rows as JSON. Must not know HTTP, faults or telemetry.

use serde_json::{Value, json};

use crate::clock;
use crate::data::{Cell, Data, DbError, Row, Tx};
use crate::jwt;
use crate::settings::SeedData;

/// Tables of the primary (the replica starts as a copy).
pub(crate) const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS users(id INTEGER PRIMARY KEY, email TEXT UNIQUE NOT NULL, password TEXT NOT NULL, role TEXT NOT NULL, tier TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS products(id INTEGER PRIMARY KEY, name TEXT NOT NULL, price_cents INTEGER NOT NULL, version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS inventory(product_id INTEGER PRIMARY KEY, quantity INTEGER NOT NULL CHECK(quantity >= 0));
CREATE TABLE IF NOT EXISTS orders(id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL, status TEXT NOT NULL, amount_cents INTEGER NOT NULL, items TEXT NOT NULL, created_ms INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS orders_user ON orders(user_id, id);
CREATE TABLE IF NOT EXISTS payments(order_id INTEGER PRIMARY KEY, amount_cents INTEGER NOT NULL, at_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS tasks(id INTEGER PRIMARY KEY, title TEXT NOT NULL, status TEXT NOT NULL, priority INTEGER NOT NULL, created_by INTEGER NOT NULL, created_ms INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS tasks_created ON tasks(created_ms DESC);
CREATE TABLE IF NOT EXISTS audit(id INTEGER PRIMARY KEY, topic TEXT NOT NULL, body TEXT NOT NULL, at_ms INTEGER NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS audit_once ON audit(topic, body);
CREATE TABLE IF NOT EXISTS outbox(id INTEGER PRIMARY KEY, topic TEXT NOT NULL, body TEXT NOT NULL, trace TEXT, at_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages(id INTEGER PRIMARY KEY, queue TEXT NOT NULL, topic TEXT NOT NULL, body TEXT NOT NULL, trace TEXT, attempts INTEGER NOT NULL, due_ms INTEGER NOT NULL, at_ms INTEGER NOT NULL, state TEXT NOT NULL, error TEXT);
CREATE INDEX IF NOT EXISTS messages_due ON messages(queue, state, due_ms);
";

pub(crate) const PRODUCT: &str = "SELECT p.id, p.name, p.price_cents, p.version, i.quantity FROM products p JOIN inventory i ON i.product_id = p.id WHERE p.id = ?1";
pub(crate) const PRODUCTS: &str = "SELECT p.id, p.name, p.price_cents, p.version, i.quantity FROM products p JOIN inventory i ON i.product_id = p.id ORDER BY p.id LIMIT ?1 OFFSET ?2";
pub(crate) const SEARCH: &str = "SELECT p.id, p.name, p.price_cents, p.version, i.quantity FROM products p JOIN inventory i ON i.product_id = p.id WHERE lower(p.name) LIKE lower(?1) ORDER BY p.id LIMIT 20";
pub(crate) const ORDER: &str =
    "SELECT id, user_id, status, amount_cents, items, created_ms FROM orders WHERE id = ?1";
pub(crate) const USER_ORDERS: &str = "SELECT id, user_id, status, amount_cents, items, created_ms FROM orders WHERE user_id = ?1 ORDER BY id DESC LIMIT 50";

pub(crate) fn product_json(r: &Row) -> Value {
    json!({"id": r.int(0), "name": r.text(1), "priceCents": r.int(2), "version": r.int(3), "quantity": r.int(4)})
}

pub(crate) fn order_json(r: &Row) -> Value {
    let items: Value = serde_json::from_str(r.text(4).unwrap_or("")).unwrap_or(Value::Null);
    json!({"orderId": r.int(0), "userId": r.int(1), "status": r.text(2), "amountCents": r.int(3), "items": items, "createdMs": r.int(5)})
}

/// The order's transaction: order, guarded stock, event in the outbox. Gives the id and the products' new versions.
pub(crate) async fn insert_order(
    tx: &mut Tx,
    user: i64,
    amount: i64,
    items: &Value,
    lines: &[(i64, i64)],
    trace: Option<String>,
) -> Result<(i64, Vec<(i64, i64)>), DbError> {
    let now = clock::unix_ms() as i64;
    let values = vec![
        user.into(),
        amount.into(),
        items.to_string().into(),
        now.into(),
    ];
    let id = tx.insert("INSERT INTO orders(user_id, status, amount_cents, items, created_ms) VALUES(?1, 'pending', ?2, ?3, ?4) RETURNING id", values);
    let id = id.await?.unwrap_or(0);
    let mut versions = Vec::with_capacity(lines.len());
    // In the order of their ids, so that two orders of the same products never wait for each other in a ring.
    let mut lines = lines.to_vec();
    lines.sort_unstable();
    for (product, quantity) in lines {
        let taken = tx.exec(
            "UPDATE inventory SET quantity = quantity - ?2 WHERE product_id = ?1 AND quantity >= ?2",
            vec![product.into(), quantity.into()],
        );
        if taken.await? == 0 {
            return Err(DbError::Refused("not enough stock"));
        }
        tx.exec(
            "UPDATE products SET version = version + 1 WHERE id = ?1",
            vec![product.into()],
        )
        .await?;
        let rows = tx.rows(
            "SELECT version FROM products WHERE id = ?1",
            vec![product.into()],
        );
        versions.push((product, rows.await?.first().map_or(0, |r| r.int(0))));
    }
    let event = json!({"orderId": id, "userId": user, "items": items, "amount": amount});
    outbox(tx, "order.created", &event, trace).await?;
    Ok((id, versions))
}

/// A payment (once per order) and its event.
pub(crate) async fn insert_payment(
    tx: &mut Tx,
    order: i64,
    amount: i64,
    trace: Option<String>,
) -> Result<(), DbError> {
    let now = clock::unix_ms() as i64;
    let n = tx.exec(
        "INSERT INTO payments(order_id, amount_cents, at_ms) VALUES(?1, ?2, ?3) ON CONFLICT DO NOTHING",
        vec![order.into(), amount.into(), now.into()],
    );
    if n.await? == 1 {
        let event = json!({"orderId": order, "amount": amount});
        outbox(tx, "payment.completed", &event, trace).await?;
    }
    Ok(())
}

/// Puts an event into the outbox of the open transaction.
pub(crate) async fn outbox(
    tx: &mut Tx,
    topic: &str,
    event: &Value,
    trace: Option<String>,
) -> Result<(), DbError> {
    let now = clock::unix_ms() as i64;
    let values = vec![
        topic.into(),
        event.to_string().into(),
        trace.into(),
        now.into(),
    ];
    tx.local(
        "INSERT INTO outbox(topic, body, trace, at_ms) VALUES(?1, ?2, ?3, ?4)",
        values,
    )
    .await?;
    Ok(())
}

/// Fills empty tables.
pub(crate) async fn seed(data: &Data, rows: SeedData) -> Result<(), DbError> {
    data.write(0.0, move |tx| Box::pin(fill(tx, rows))).await
}

async fn fill(tx: &mut Tx, rows: SeedData) -> Result<(), DbError> {
    tx.alone().await?;
    let there = tx.rows("SELECT id FROM products LIMIT 1", Vec::new());
    if !there.await?.is_empty() {
        return Ok(());
    }
    for i in 1..=i64::from(rows.products) {
        let values: Vec<Cell> = vec![
            i.into(),
            format!("product {i}").into(),
            (100 + i * 7 % 9900).into(),
        ];
        tx.exec(
            "INSERT INTO products(id, name, price_cents, version) VALUES(?1, ?2, ?3, 1)",
            values,
        )
        .await?;
        tx.exec(
            "INSERT INTO inventory(product_id, quantity) VALUES(?1, ?2)",
            vec![i.into(), rows.stock.into()],
        )
        .await?;
    }
    for i in 1..=i64::from(rows.users) {
        let email = format!("user{i}@example.com");
        let digest = jwt::digest(&email, "password");
        let role = if i == 1 { "admin" } else { "user" };
        let tier = ["standard", "free", "premium"][(i % 3) as usize];
        let values = vec![
            i.into(),
            email.into(),
            digest.into(),
            role.into(),
            tier.into(),
        ];
        tx.exec(
            "INSERT INTO users(id, email, password, role, tier) VALUES(?1, ?2, ?3, ?4, ?5)",
            values,
        )
        .await?;
    }
    for i in 1..=i64::from(rows.tasks) {
        let values = vec![
            i.into(),
            format!("task {i}").into(),
            (i % 3).into(),
            (1 + i % i64::from(rows.users.max(1))).into(),
            i.into(),
        ];
        tx.exec("INSERT INTO tasks(id, title, status, priority, created_by, created_ms) VALUES(?1, ?2, 'open', ?3, ?4, ?5)", values).await?;
    }
    tx.go_on_behind(&["products", "users", "tasks"]).await
}

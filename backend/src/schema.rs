//! Tables, statements and rows as JSON. Must not know HTTP, faults or telemetry.

use rusqlite::types::Value as Sql;
use rusqlite::{Row, params};
use serde_json::{Value, json};

use crate::clock;
use crate::db::{Db, DbError, Tx};
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
CREATE TABLE IF NOT EXISTS outbox(id INTEGER PRIMARY KEY, topic TEXT NOT NULL, body TEXT NOT NULL, trace TEXT, at_ms INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages(id INTEGER PRIMARY KEY, queue TEXT NOT NULL, topic TEXT NOT NULL, body TEXT NOT NULL, trace TEXT, attempts INTEGER NOT NULL, due_ms INTEGER NOT NULL, at_ms INTEGER NOT NULL, state TEXT NOT NULL, error TEXT);
CREATE INDEX IF NOT EXISTS messages_due ON messages(queue, state, due_ms);
";

pub(crate) const PRODUCT: &str = "SELECT p.id, p.name, p.price_cents, p.version, i.quantity FROM products p JOIN inventory i ON i.product_id = p.id WHERE p.id = ?1";
pub(crate) const PRODUCTS: &str = "SELECT p.id, p.name, p.price_cents, p.version, i.quantity FROM products p JOIN inventory i ON i.product_id = p.id ORDER BY p.id LIMIT ?1 OFFSET ?2";
pub(crate) const SEARCH: &str = "SELECT p.id, p.name, p.price_cents, p.version, i.quantity FROM products p JOIN inventory i ON i.product_id = p.id WHERE p.name LIKE ?1 ORDER BY p.id LIMIT 20";
pub(crate) const ORDER: &str =
    "SELECT id, user_id, status, amount_cents, items, created_ms FROM orders WHERE id = ?1";
pub(crate) const USER_ORDERS: &str = "SELECT id, user_id, status, amount_cents, items, created_ms FROM orders WHERE user_id = ?1 ORDER BY id DESC LIMIT 50";

pub(crate) fn product_json(r: &Row<'_>) -> rusqlite::Result<Value> {
    Ok(
        json!({"id": r.get::<_, i64>(0)?, "name": r.get::<_, String>(1)?, "priceCents": r.get::<_, i64>(2)?, "version": r.get::<_, i64>(3)?, "quantity": r.get::<_, i64>(4)?}),
    )
}

pub(crate) fn order_json(r: &Row<'_>) -> rusqlite::Result<Value> {
    let items: Value = serde_json::from_str(&r.get::<_, String>(4)?).unwrap_or(Value::Null);
    Ok(
        json!({"orderId": r.get::<_, i64>(0)?, "userId": r.get::<_, i64>(1)?, "status": r.get::<_, String>(2)?, "amountCents": r.get::<_, i64>(3)?, "items": items, "createdMs": r.get::<_, i64>(5)?}),
    )
}

/// The order's transaction: order, guarded stock, event in the outbox. Gives the id and the products' new versions.
pub(crate) fn insert_order(
    tx: &mut Tx<'_>,
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
    tx.exec("INSERT INTO orders(user_id, status, amount_cents, items, created_ms) VALUES(?1, 'pending', ?2, ?3, ?4)", values)?;
    let id = tx.last_id();
    let mut versions = Vec::with_capacity(lines.len());
    for &(product, quantity) in lines {
        let taken = tx.exec(
            "UPDATE inventory SET quantity = quantity - ?2 WHERE product_id = ?1 AND quantity >= ?2",
            vec![product.into(), quantity.into()],
        )?;
        if taken == 0 {
            return Err(DbError::Refused("not enough stock"));
        }
        tx.exec(
            "UPDATE products SET version = version + 1 WHERE id = ?1",
            vec![product.into()],
        )?;
        let version = tx.conn().query_row(
            "SELECT version FROM products WHERE id = ?1",
            [product],
            |r| r.get(0),
        )?;
        versions.push((product, version));
    }
    let event = json!({"orderId": id, "userId": user, "items": items, "amount": amount});
    outbox(tx, "order.created", &event, trace)?;
    Ok((id, versions))
}

/// A payment (once per order) and its event.
pub(crate) fn insert_payment(
    tx: &mut Tx<'_>,
    order: i64,
    amount: i64,
    trace: Option<String>,
) -> Result<(), DbError> {
    let now = clock::unix_ms() as i64;
    let n = tx.exec(
        "INSERT OR IGNORE INTO payments(order_id, amount_cents, at_ms) VALUES(?1, ?2, ?3)",
        vec![order.into(), amount.into(), now.into()],
    )?;
    if n == 1 {
        outbox(
            tx,
            "payment.completed",
            &json!({"orderId": order, "amount": amount}),
            trace,
        )?;
    }
    Ok(())
}

/// Puts an event into the outbox of the open transaction.
pub(crate) fn outbox(
    tx: &mut Tx<'_>,
    topic: &str,
    event: &Value,
    trace: Option<String>,
) -> Result<(), DbError> {
    let now = clock::unix_ms() as i64;
    let trace = trace.map_or(Sql::Null, Sql::Text);
    let values = vec![
        topic.to_owned().into(),
        event.to_string().into(),
        trace,
        now.into(),
    ];
    tx.local(
        "INSERT INTO outbox(topic, body, trace, at_ms) VALUES(?1, ?2, ?3, ?4)",
        values,
    )?;
    Ok(())
}

/// Fills empty tables.
pub(crate) async fn seed(db: &Db, rows: SeedData) -> Result<(), DbError> {
    db.write(0.0, move |tx| {
        let there: i64 = tx.conn().query_row("SELECT count(*) FROM products", params![], |r| r.get(0))?;
        if there > 0 {
            return Ok(());
        }
        for i in 1..=i64::from(rows.products) {
            let values = vec![i.into(), format!("product {i}").into(), (100 + i * 7 % 9900).into()];
            tx.exec("INSERT INTO products(id, name, price_cents, version) VALUES(?1, ?2, ?3, 1)", values)?;
            tx.exec("INSERT INTO inventory(product_id, quantity) VALUES(?1, ?2)", vec![i.into(), rows.stock.into()])?;
        }
        for i in 1..=i64::from(rows.users) {
            let email = format!("user{i}@example.com");
            let digest = jwt::digest(&email, "password");
            let role = if i == 1 { "admin" } else { "user" };
            let tier = ["standard", "free", "premium"][(i % 3) as usize];
            let values = vec![i.into(), email.into(), digest.into(), role.to_owned().into(), tier.to_owned().into()];
            tx.exec("INSERT INTO users(id, email, password, role, tier) VALUES(?1, ?2, ?3, ?4, ?5)", values)?;
        }
        for i in 1..=i64::from(rows.tasks) {
            let values = vec![i.into(), format!("task {i}").into(), (i % 3).into(), (1 + i % i64::from(rows.users.max(1))).into(), i.into()];
            tx.exec("INSERT INTO tasks(id, title, status, priority, created_by, created_ms) VALUES(?1, ?2, 'open', ?3, ?4, ?5)", values)?;
        }
        Ok(())
    })
    .await
}

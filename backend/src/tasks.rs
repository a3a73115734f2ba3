//! The task service: CRUD with pagination, and `?naive=1`, which asks one query per row (N+1).
//! Must not know the gateway.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::app::App;
use crate::clock;
use crate::data::{Cell, Row};
use crate::schema;
use crate::services::{Reply, Req, number, object, page};
use crate::telemetry::{Cx, Role};

/// Answers the routes below `/api/v1/tasks`.
pub(crate) async fn route(app: &Arc<App>, cx: &Cx, req: &Req) -> Result<Reply, Reply> {
    match (req.method.as_str(), req.parameter.is_empty()) {
        ("GET", true) => list(app, cx, req).await,
        ("POST", _) => create(app, cx, req).await,
        ("GET", false) => one(app, cx, number(&req.parameter)?).await,
        ("PUT" | "PATCH", _) => update(app, cx, req).await,
        ("DELETE", _) => delete(app, cx, number(&req.parameter)?).await,
        _ => Err(Reply::problem(404, "not_found", "no such route")),
    }
}

fn row(r: &Row) -> Value {
    json!({"id": r.int(0), "title": r.text(1), "status": r.text(2), "priority": r.int(3), "createdBy": r.int(4), "createdMs": r.int(5)})
}

const COLUMNS_DESC: &str = "SELECT id, title, status, priority, created_by, created_ms FROM tasks ORDER BY created_ms DESC, id DESC LIMIT ?1 OFFSET ?2";
const COLUMNS_ASC: &str = "SELECT id, title, status, priority, created_by, created_ms FROM tasks ORDER BY created_ms, id LIMIT ?1 OFFSET ?2";
const ONE: &str =
    "SELECT id, title, status, priority, created_by, created_ms FROM tasks WHERE id = ?1";

async fn list(app: &App, cx: &Cx, req: &Req) -> Result<Reply, Reply> {
    let (page, limit) = page(req);
    let sql = if req.query.get("sort").is_some_and(|s| s == "createdAt") {
        COLUMNS_ASC
    } else {
        COLUMNS_DESC
    };
    let values = vec![limit.into(), ((page - 1) * limit).into()];
    let rows = app.read(cx, Role::Task, false, "tasks", sql, values);
    let mut items: Vec<Value> = rows.await?.iter().map(row).collect();
    if req.query.get("naive").is_some_and(|n| n == "1") {
        for item in &mut items {
            let user = item["createdBy"].as_i64().unwrap_or(0);
            let sql = "SELECT email FROM users WHERE id = ?1";
            let email = app.read(cx, Role::Task, false, "users", sql, vec![user.into()]);
            item["createdByEmail"] = json!(email.await?.first().and_then(|r| r.text(0)));
        }
    }
    Ok(Reply::json(
        200,
        &json!({"page": page, "limit": limit, "items": items}),
    ))
}

/// Cache-aside: a task lives `task_ttl_s` in the cache, or until it is changed.
async fn one(app: &App, cx: &Cx, id: i64) -> Result<Reply, Reply> {
    let key = format!("task:{id}");
    let json = |body, x_cache: &str| Reply {
        status: 200,
        body,
        headers: vec![
            ("content-type", "application/json".into()),
            ("x-cache", x_cache.to_owned()),
        ],
    };
    let cached = app.cache_get(cx, Role::Task, &key).await;
    if let Ok(Some(bytes)) = cached {
        return Ok(json(bytes, "HIT"));
    }
    let found = app.read(cx, Role::Task, false, "tasks", ONE, vec![id.into()]);
    let found = found.await?;
    let Some(task) = found.first() else {
        return Err(Reply::problem(404, "not_found", "no such task"));
    };
    let bytes = bytes::Bytes::from(row(task).to_string());
    if cached.is_err() {
        return Ok(json(bytes, "BYPASS"));
    }
    let ttl = app.settings.cache.task_ttl_s;
    app.cache_set(cx, Role::Task, &key, bytes.clone(), ttl)
        .await;
    Ok(json(bytes, "MISS"))
}

async fn create(app: &App, cx: &Cx, req: &Req) -> Result<Reply, Reply> {
    let v = object(&req.body)?;
    let title = v["title"].as_str().unwrap_or("").to_owned();
    if title.is_empty() || title.len() > 500 {
        return Err(Reply::problem(
            400,
            "validation",
            "title must have 1 to 500 bytes",
        ));
    }
    let priority = v["priority"].as_i64().unwrap_or(0);
    let user = req.claims.as_ref().map_or(0, |c| c.sub);
    let (t, trace) = (title.clone(), cx.traceparent());
    let id = app.write(cx, Role::Task, "tasks", move |tx| {
        Box::pin(async move {
            let values = vec![t.as_str().into(), priority.into(), user.into(), (clock::unix_ms() as i64).into()];
            let sql = "INSERT INTO tasks(title, status, priority, created_by, created_ms) VALUES(?1, 'open', ?2, ?3, ?4) RETURNING id";
            let id = tx.insert(sql, values).await?.unwrap_or(0);
            let event = json!({"taskId": id, "title": t, "userId": user});
            schema::outbox(tx, "task.created", &event, trace).await?;
            Ok(id)
        })
    });
    Ok(Reply::json(
        201,
        &json!({"id": id.await?, "title": title, "status": "open", "priority": priority, "createdBy": user}),
    ))
}

async fn update(app: &App, cx: &Cx, req: &Req) -> Result<Reply, Reply> {
    let id = number(&req.parameter)?;
    let v = object(&req.body)?;
    let text = |k: &str| Cell::from(v[k].as_str().map(str::to_owned));
    let (title, status) = (text("title"), text("status"));
    let done = app.write(cx, Role::Task, "tasks", move |tx| {
        Box::pin(async move {
            let sql = "UPDATE tasks SET title = coalesce(?2, title), status = coalesce(?3, status) WHERE id = ?1";
            if tx.exec(sql, vec![id.into(), title, status]).await? == 0 {
                return Ok(None);
            }
            Ok(tx.rows(ONE, vec![id.into()]).await?.first().map(row))
        })
    });
    let done = done.await?;
    app.cache_del(cx, Role::Task, &format!("task:{id}")).await;
    done.map(|v| Reply::json(200, &v))
        .ok_or_else(|| Reply::problem(404, "not_found", "no such task"))
}

async fn delete(app: &App, cx: &Cx, id: i64) -> Result<Reply, Reply> {
    let done = app.write(cx, Role::Task, "tasks", move |tx| {
        Box::pin(tx.exec("DELETE FROM tasks WHERE id = ?1", vec![id.into()]))
    });
    let done = done.await?;
    app.cache_del(cx, Role::Task, &format!("task:{id}")).await;
    match done {
        0 => Err(Reply::problem(404, "not_found", "no such task")),
        _ => Ok(Reply {
            status: 204,
            body: bytes::Bytes::new(),
            headers: Vec::new(),
        }),
    }
}

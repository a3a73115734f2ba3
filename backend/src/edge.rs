//! What the gateway answers itself: health, version, static files, blobs. Must not know services.

use base64::Engine as _;
use bytes::Bytes;
use http::HeaderMap;
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::app::App;
use crate::gateway::{health, version};
use crate::services::{Reply, Req};

const STATIC: [(&str, &str, &str); 3] = [
    (
        "app.js",
        "text/javascript",
        "console.log('reference backend');\n",
    ),
    ("style.css", "text/css", "body { font: 16px sans-serif; }\n"),
    (
        "logo.svg",
        "image/svg+xml",
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 8 8\"><circle cx=\"4\" cy=\"4\" r=\"4\"/></svg>\n",
    ),
];

pub(crate) async fn own(app: &App, req: &Req, headers: &HeaderMap) -> Reply {
    match (req.method.as_str(), req.route) {
        (_, "/health") => health(app, false),
        (_, "/health/ready") => health(app, true),
        (_, "/health/live") => Reply::json(200, &json!({"status": "alive"})),
        (_, "/version") => Reply::json(
            200,
            &json!({"service": "gateway", "version": version(app), "mode": app.settings.mode()}),
        ),
        (_, "/static/{file}") => static_file(&req.parameter, headers),
        ("PUT", _) => put_blob(app, &req.parameter, req.body.clone()).await,
        _ => get_blob(app, &req.parameter).await,
    }
}

fn static_file(name: &str, headers: &HeaderMap) -> Reply {
    let Some((_, kind, text)) = STATIC.iter().find(|(n, ..)| *n == name) else {
        return Reply::problem(404, "not_found", "no such file");
    };
    let digest = Sha256::digest(text);
    let etag = format!(
        "\"{}\"",
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&digest[..12])
    );
    let known = headers
        .get("if-none-match")
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.split(',').any(|t| t.trim() == etag));
    let headers = vec![
        ("content-type", (*kind).to_owned()),
        ("etag", etag),
        ("cache-control", "public, max-age=3600".to_owned()),
    ];
    let body = if known {
        Bytes::new()
    } else {
        Bytes::from_static(text.as_bytes())
    };
    Reply {
        status: if known { 304 } else { 200 },
        body,
        headers,
    }
}

/// A key is one path segment of letters, digits, dot, dash and underscore that does not begin with a dot.
fn blob_path(app: &App, key: &str) -> Option<std::path::PathBuf> {
    let plain = key
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    (plain && !key.starts_with('.') && (1..=100).contains(&key.len())).then(|| app.blobs.join(key))
}

async fn put_blob(app: &App, key: &str, body: Bytes) -> Reply {
    let Some(path) = blob_path(app, key) else {
        return Reply::problem(400, "validation", "bad blob key");
    };
    if app.struck("disk_full", "") {
        return Reply::problem(507, "storage", "no space left on device (injected)");
    }
    let bytes = body.len();
    match tokio::task::spawn_blocking(move || std::fs::write(path, body)).await {
        Ok(Ok(())) => Reply::json(201, &json!({"key": key, "bytes": bytes})),
        _ => Reply::problem(507, "storage", "blob could not be written"),
    }
}

async fn get_blob(app: &App, key: &str) -> Reply {
    let Some(path) = blob_path(app, key) else {
        return Reply::problem(400, "validation", "bad blob key");
    };
    match tokio::task::spawn_blocking(move || std::fs::read(path)).await {
        Ok(Ok(bytes)) => Reply {
            status: 200,
            body: bytes.into(),
            headers: vec![("content-type", "application/octet-stream".into())],
        },
        _ => Reply::problem(404, "not_found", "no such blob"),
    }
}

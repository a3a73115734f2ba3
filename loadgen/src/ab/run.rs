//! Owns ab's closed loop: `concurrency` workers, each sends its next request when the last one ended.
//! Must not know the report's layout.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderValue, Request, Version, header};
use http_body_util::Full;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::report::{AbReport, Sample};
use super::{AbError, Method, Options};
use crate::LoadError;
use crate::conn::{ConnError, Connection, Connector, Target};

const MAX_BODY: u64 = 1 << 32;

struct Shared {
    options: Options,
    connector: Connector,
    request: Request<Full<Bytes>>,
    tickets: AtomicU64,
    report: Mutex<AbReport>,
    failed: Mutex<Option<AbError>>,
    stop: CancellationToken,
}

/// Runs ab's closed loop until `-n`, `-t` or `stop`. Certificates are not verified, as in ab.
///
/// # Errors
/// [`AbError`]: an unusable target or body file, or a socket error without `-r`.
pub async fn run(options: Options, stop: CancellationToken) -> Result<AbReport, AbError> {
    let target = Target::parse(&options.url)?;
    if !target.is_loopback() && !options.owned {
        return Err(AbError::Load(LoadError::NotYours {
            host: target.host.clone(),
            rate: "as many requests as it answers".to_owned(),
        }));
    }
    let (method, body) = body(&options).await?;
    let request = request(&options, method, body.clone())?;
    let report = AbReport::new(&options, &target, &request, body.len());
    let shared = Arc::new(Shared {
        connector: Connector::new(target, true)?,
        request,
        tickets: AtomicU64::new(0),
        report: Mutex::new(report),
        failed: Mutex::new(None),
        stop: stop.child_token(),
        options,
    });
    let began = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..shared.options.concurrency {
        workers.spawn(worker(Arc::clone(&shared)));
    }
    if let Some(limit) = shared.options.time_limit {
        let stop = shared.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(limit) => stop.cancel(),
            () = async { while workers.join_next().await.is_some() {} } => {}
        }
    }
    while workers.join_next().await.is_some() {}
    let elapsed = began.elapsed();
    let failed = shared
        .failed
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    if let Some(error) = failed {
        return Err(error);
    }
    let mut report = shared
        .report
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    report.elapsed = elapsed;
    Ok(report)
}

async fn body(options: &Options) -> Result<(http::Method, Bytes), AbError> {
    let (method, path) = match &options.method {
        Method::Get => return Ok((http::Method::GET, Bytes::new())),
        Method::Head => return Ok((http::Method::HEAD, Bytes::new())),
        Method::Custom(name) => {
            let method = http::Method::from_bytes(name.as_bytes())
                .map_err(|e| AbError::Usage(format!("read -m {name:?}: {e}")))?;
            return Ok((method, Bytes::new()));
        }
        Method::Post(path) => (http::Method::POST, path),
        Method::Put(path) => (http::Method::PUT, path),
    };
    let text = tokio::fs::read(path).await.map_err(|e| AbError::File {
        path: path.clone(),
        why: e.to_string(),
    })?;
    Ok((method, Bytes::from(text)))
}

fn request(
    options: &Options,
    method: http::Method,
    body: Bytes,
) -> Result<Request<Full<Bytes>>, AbError> {
    let usage = |e: String| AbError::Usage(format!("build the request: {e}"));
    let url = url::Url::parse(&options.url).map_err(|e| usage(e.to_string()))?;
    let has_body = matches!(options.method, Method::Post(_) | Method::Put(_));
    let mut request = Request::builder()
        .method(method)
        .uri(&url[url::Position::BeforePath..url::Position::AfterQuery])
        .version(Version::HTTP_10)
        .body(Full::new(body))
        .map_err(|e| usage(e.to_string()))?;
    let headers = request.headers_mut();
    if options.keep_alive {
        headers.insert(header::CONNECTION, HeaderValue::from_static("Keep-Alive"));
    }
    headers.insert(header::USER_AGENT, HeaderValue::from_static("nines-ab/2.3"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
    if has_body {
        let kind =
            HeaderValue::from_str(&options.content_type).map_err(|e| usage(e.to_string()))?;
        headers.insert(header::CONTENT_TYPE, kind);
    }
    let mut set = std::collections::HashSet::new();
    for (name, value) in &options.headers {
        // The first -H of a name replaces a default of ours; a repeated one is sent again.
        if set.insert(name) {
            headers.insert(name, value.clone());
        } else {
            headers.append(name, value.clone());
        }
    }
    Ok(request)
}

async fn worker(shared: Arc<Shared>) {
    let mut idle: Option<Connection> = None;
    let mut dials_failed = 0;
    while !shared.stop.is_cancelled() {
        if shared.tickets.fetch_add(1, Ordering::Relaxed) >= shared.options.requests {
            return;
        }
        let outcome = tokio::select! {
            outcome = once(&shared, &mut idle) => outcome,
            () = shared.stop.cancelled() => return,
        };
        match outcome {
            Ok(()) => dials_failed = 0,
            Err(error) => {
                idle = None;
                dials_failed = if error.never_sent {
                    dials_failed + 1
                } else {
                    0
                };
                let mut report = shared.report.lock().unwrap_or_else(PoisonError::into_inner);
                report.failed(error.never_sent);
                if !shared.options.keep_going || dials_failed >= 10 {
                    let done = report.complete;
                    let mut slot = shared.failed.lock().unwrap_or_else(PoisonError::into_inner);
                    slot.get_or_insert(AbError::Aborted {
                        kind: error.kind,
                        detail: error.to_string(),
                        done,
                    });
                    shared.stop.cancel();
                    return;
                }
            }
        }
    }
}

async fn once(shared: &Shared, idle: &mut Option<Connection>) -> Result<(), ConnError> {
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut connect = std::time::Duration::ZERO;
    let mut reused = idle.take().filter(Connection::is_open);
    loop {
        let fresh = reused.is_none();
        let mut conn = match reused.take() {
            Some(conn) => conn,
            None => {
                let began = Instant::now();
                let conn = shared.connector.open(shared.options.timeout).await?;
                connect = began.elapsed();
                conn
            }
        };
        let sent = conn.send_discarding(shared.request.clone(), shared.options.timeout, MAX_BODY);
        let exchange = match sent.await {
            Ok(exchange) => exchange,
            // The server closed an idle connection: dial again, as ab does.
            Err(e) if !fresh && e.nothing_received && e.kind != crate::conn::ErrorKind::Timeout => {
                continue;
            }
            Err(e) => return Err(e),
        };
        let sample = Sample {
            started,
            connect,
            waiting: exchange.timings.first_byte,
            processing: exchange.timings.first_byte + exchange.timings.transfer,
        };
        let kept = shared.options.keep_alive && conn.is_open();
        let mut report = shared.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.completed(&sample, &exchange, kept);
        drop(report);
        if kept {
            *idle = Some(conn);
        }
        return Ok(());
    }
}

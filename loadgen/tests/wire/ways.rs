//! Servers that behave: HTTP/2, TLS with certificates on both sides, Unix sockets, proxies, names, churn, cookies,
//! redirects, compression, streamed bodies.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use loadgen::outgoing::Source;
use loadgen::transport::{Dns, Proxy, TlsVersion};
use loadgen::{Engine, Model, Plan, Report, RequestSpec};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{MS, app, raw, run};

fn plan(target: &str, per_second: f64, duration: Duration) -> Plan {
    super::plan(Engine::Auto, target, per_second, duration)
}

fn closed(target: &str, requests: u64) -> Plan {
    Plan {
        model: Model::Closed {
            requests: Some(requests),
        },
        connections: 2,
        ..plan(target, 1.0, Duration::from_secs(30))
    }
}

fn all_well(report: &Report, count: u64) {
    assert_eq!(
        (report.responses, report.error_count()),
        (count, 0),
        "{:?} {:?}",
        report.errors,
        report.reasons
    );
}

/// Bodies of any length both ways, and what a request looked like.
fn everything() -> Router {
    Router::new()
        .route("/", get(async || "hello"))
        .route(
            "/long/{n}",
            get(async |axum::extract::Path(n): axum::extract::Path<usize>| vec![b'x'; n]),
        )
        .route(
            "/length",
            post(async |body: axum::body::Bytes| body.len().to_string()),
        )
        .route(
            "/seen",
            any(
                async |method: Method, uri: axum::http::Uri, headers: HeaderMap| {
                    assert_eq!(headers["traceparent"].len(), 55);
                    assert_eq!(headers["x-nines-run-id"], "r");
                    (
                        StatusCode::IM_A_TEAPOT,
                        format!("{method} {uri} {headers:?}"),
                    )
                },
            ),
        )
        .layer(axum::extract::DefaultBodyLimit::max(64 << 20))
}

#[tokio::test]
async fn http2_counts_are_exact_both_ways() {
    let target = app(everything()).await;
    let h2 = |plan: Plan| {
        let mut plan = Plan {
            run_id: "r".into(),
            ..plan
        };
        plan.transport.http2 = true;
        plan.transport.streams = 4;
        plan.requests = vec![
            RequestSpec::get("/"),
            RequestSpec {
                range: 9,
                ..RequestSpec::get("/long/{n}")
            },
            RequestSpec {
                method: "HEAD".into(),
                ..RequestSpec::get("/seen")
            },
            RequestSpec {
                method: "POST".into(),
                body: Some("{n}".repeat(9)),
                ..RequestSpec::get("/length")
            },
            RequestSpec::get("/long/200000"),
        ];
        plan
    };
    let (closed, _) = run(h2(closed(&target, 400))).await;
    all_well(&closed, 400);
    assert_eq!(closed.connections_opened, 2);
    let teapots = closed.routes["GET /seen"].status.get(&418).copied();
    assert_eq!(teapots, Some(closed.routes["GET /seen"].requests));
    assert!(closed.bytes > closed.routes["GET /long/200000"].responses * 200_000);
    assert!(!closed.phases.connect.is_empty() && closed.phases.first_byte.len() == 400);
    let open = Plan {
        connections: 2,
        ..plan(&target, 200.0, 500 * MS)
    };
    let (open, _) = run(h2(open)).await;
    all_well(&open, 100);
    assert!(open.connections_opened <= 2);
    assert_eq!(
        open.routes["GET /seen"].status.get(&418).copied(),
        Some(open.routes["GET /seen"].requests)
    );
}

#[tokio::test]
async fn http2_flow_control_is_kept_in_both_directions() {
    let target = app(everything()).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("body");
    std::fs::write(&path, vec![7; 3_000_000]).unwrap();
    for (streams, closed_model) in [(3, true), (3, false)] {
        let mut up = closed(&target, 12);
        if !closed_model {
            (up.model, up.duration) = (plan(&target, 40.0, MS).model, 300 * MS);
        }
        up.transport.http2 = true;
        up.transport.streams = streams;
        let mut down = up.clone();
        up.requests[0].method = "POST".into();
        up.requests[0].path = "/length".into();
        up.transport.body = Some(Source::file(&path).unwrap());
        down.requests[0].path = "/long/20000000".into();
        let (report, _) = run(up).await;
        all_well(&report, 12);
        // The answer is the length: seven digits.
        assert!(report.status.contains_key(&200), "{:?}", report.status);
        let (report, _) = run(down).await;
        all_well(&report, 12);
        assert!(report.bytes >= 12 * 20_000_000);
    }
}

/// A certificate authority, a server's certificate for `api.test` and a client's.
struct Certificates {
    ca: String,
    server: (Vec<rustls::pki_types::CertificateDer<'static>>, Vec<u8>),
    client: (String, String),
}

fn certificates() -> Certificates {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = || KeyPair::generate().unwrap();
    let ca_key = key();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(params, ca_key);
    let signed = |name: &str| {
        let key = key();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let (server, server_key) = signed("api.test");
    let (client, client_key) = signed("client.test");
    Certificates {
        ca: ca.pem(),
        server: (vec![server.der().clone()], server_key.serialize_der()),
        client: (client.pem(), client_key.serialize_pem()),
    }
}

/// Serves TLS; `client` asks for a certificate of that authority.
async fn tls_app(
    router: Router,
    certificates: &Certificates,
    client: bool,
    protocols: &[&[u8]],
) -> u16 {
    use rustls::pki_types::pem::PemObject;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = if client {
        let mut roots = rustls::RootCertStore::empty();
        let ca = rustls::pki_types::CertificateDer::from_pem_slice(certificates.ca.as_bytes());
        roots.add(ca.unwrap()).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        builder.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let (chain, key) = certificates.server.clone();
    let mut config = builder
        .with_single_cert(chain, key.try_into().unwrap())
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|p| p.to_vec()).collect();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, router) = (acceptor.clone(), router.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = TowerToHyperService::new(router);
                let server = auto::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn tls_trusts_whom_it_is_told_and_shows_its_certificate() {
    let made = certificates();
    let port = tls_app(everything(), &made, true, &[b"h2", b"http/1.1"]).await;
    let with = |change: &dyn Fn(&mut Plan)| {
        let mut plan = closed(&format!("https://api.test:{port}"), 8);
        let t = &mut plan.transport;
        t.connect_to = Some(("127.0.0.1".into(), port));
        t.ca = Some(made.ca.as_bytes().into());
        let (chain, key) = &made.client;
        t.identity = Some((chain.as_bytes().into(), key.as_bytes().into()));
        change(&mut plan);
        run(plan)
    };
    for http2 in [false, true] {
        for tls in [None, Some(TlsVersion::V12), Some(TlsVersion::V13)] {
            let (report, _) = with(&|p| (p.transport.http2, p.transport.tls) = (http2, tls)).await;
            all_well(&report, 8);
            assert!(!report.phases.tls.is_empty());
        }
        type Change<'a> = &'a dyn Fn(&mut Plan);
        let failing: [(&str, Change<'_>); 3] = [
            ("no certificate", &|p| p.transport.identity = None),
            ("an unknown authority", &|p| p.transport.ca = None),
            ("another name", &|p| {
                p.target = p.target.replace("api.", "other.")
            }),
        ];
        for (name, change) in failing {
            let (report, _) = with(&|p| {
                p.transport.http2 = http2;
                change(p);
            })
            .await;
            let kinds: Vec<_> = report.errors.keys().map(String::as_str).collect();
            // With TLS 1.3 the server's refusal comes after the handshake, as an alert or a closed connection.
            let named = kinds.iter().all(|k| ["tls", "reset", "closed"].contains(k));
            assert!(report.responses == 0 && named, "{name}: {kinds:?}");
            assert!(
                name == "no certificate" || kinds == ["tls"],
                "{name}: {kinds:?}"
            );
        }
        let (report, _) = with(&|p| {
            p.transport.http2 = http2;
            (p.transport.ca, p.insecure) = (None, true);
        })
        .await;
        all_well(&report, 8);
    }
    let (report, _) = with(&|p| {
        p.transport.connect_to = None;
        p.transport.resolve = vec!["127.0.0.1".parse().unwrap()];
    })
    .await;
    all_well(&report, 8);
}

#[tokio::test]
async fn a_server_without_http2_is_told_apart() {
    let made = certificates();
    let port = tls_app(everything(), &made, false, &[b"http/1.1"]).await;
    let mut plan = closed(&format!("https://127.0.0.1:{port}"), 4);
    plan.insecure = true;
    plan.transport.http2 = true;
    let (report, _) = run(plan).await;
    // rustls ends the handshake when no protocol is shared; other servers go on without one.
    let kinds: Vec<_> = report.errors.keys().map(String::as_str).collect();
    assert!(kinds == ["tls"] || kinds == ["protocol"], "{kinds:?}");
}

#[tokio::test]
async fn wrong_certificates_are_refused_before_the_run() {
    let failed = |change: &dyn Fn(&mut Plan)| {
        let mut plan = closed("https://localhost:1", 1);
        change(&mut plan);
        let (progress, _) = tokio::sync::watch::channel(loadgen::Progress::default());
        async move {
            let stop = tokio_util::sync::CancellationToken::new();
            loadgen::run(plan, progress, stop)
                .await
                .unwrap_err()
                .to_string()
        }
    };
    let made = certificates();
    let pem = |text: &str| text.as_bytes().into();
    let e = failed(&|p| p.transport.ca = Some(pem("nothing"))).await;
    assert!(e.contains("holds no certificate"), "{e}");
    let e = failed(&|p| p.transport.identity = Some((pem(&made.client.0), pem(&made.ca)))).await;
    assert!(e.contains("no private key"), "{e}");
    let other = certificates().client.1;
    let e = failed(&|p| p.transport.identity = Some((pem(&made.client.0), pem(&other)))).await;
    assert!(e.contains("go together"), "{e}");
}

#[tokio::test]
async fn unix_sockets_and_ipv6_are_spoken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("socket");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let router = Router::new().route(
        "/",
        get(async |headers: HeaderMap| {
            assert_eq!(headers["host"], "any.test");
        }),
    );
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    for http2 in [false, true] {
        let mut plan = closed("http://any.test", 6);
        plan.transport.unix_socket = Some(path.clone());
        plan.transport.http2 = http2;
        if http2 {
            // hyper's server shows the authority as URI, not as Host.
            plan.requests[0].headers = vec![("host".into(), "any.test".into())];
            plan.requests[0].path = "/none".into();
        }
        let (report, _) = run(plan).await;
        all_well(&report, 6);
        assert!(report.status.contains_key(if http2 { &404 } else { &200 }));
    }
    let mut gone = closed("http://any.test", 2);
    gone.transport.unix_socket = Some(dir.path().join("none"));
    let (report, _) = run(gone).await;
    assert_eq!(
        report.errors.get("refused"),
        Some(&2),
        "{:?}",
        report.errors
    );
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        return; // No IPv6 on this machine.
    };
    let target = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, everything()).await.unwrap() });
    let (report, _) = run(closed(&target, 6)).await;
    all_well(&report, 6);
}

#[tokio::test]
async fn names_are_looked_up_once_or_each_time() {
    let target = app(everything()).await.replace("127.0.0.1", "localhost");
    for dns in [Dns::Run, Dns::Connection] {
        let mut plan = closed(&target, 20);
        plan.transport.dns = dns;
        plan.transport.requests_per_connection = Some(1);
        let (report, _) = run(plan).await;
        // `localhost` is ::1 first on most machines, where nobody listens: the next address is tried.
        all_well(&report, 20);
        assert_eq!(report.connections_opened, 20);
    }
    let mut nowhere = closed("http://name.invalid", 2);
    nowhere.own_target = true;
    let (report, _) = run(nowhere).await;
    assert_eq!(report.errors.get("dns"), Some(&2), "{:?}", report.errors);
}

/// An HTTP proxy that asks for `user:pass` and says what it was asked.
async fn proxy(seen: Arc<Mutex<Vec<String>>>) -> String {
    raw(move |stream: TcpStream| {
        let seen = Arc::clone(&seen);
        async move {
            let mut stream = BufReader::new(stream);
            loop {
                let mut head = Vec::new();
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                        return;
                    }
                    if line == "\r\n" {
                        break;
                    }
                    head.push(line.trim().to_owned());
                }
                let first = head[0].clone();
                seen.lock().unwrap().push(first.clone());
                let auth = head
                    .iter()
                    .any(|l| l.eq_ignore_ascii_case("proxy-authorization: Basic dXNlcjpwYXNz"));
                if !auth {
                    let _ = stream
                        .write_all(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n")
                        .await;
                    continue;
                }
                if let Some(place) = first.strip_prefix("CONNECT ") {
                    let place = place.split(' ').next().unwrap();
                    let port = place.rsplit(':').next().unwrap();
                    let mut to = TcpStream::connect(format!("127.0.0.1:{port}"))
                        .await
                        .unwrap();
                    let _ = stream.write_all(b"HTTP/1.1 200 Go\r\nx: y\r\n\r\n").await;
                    let _ = tokio::io::copy_bidirectional(&mut stream, &mut to).await;
                    return;
                }
                let _ = stream
                    .write_all(b"HTTP/1.1 203 By proxy\r\ncontent-length: 0\r\n\r\n")
                    .await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn proxies_forward_and_tunnel() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let address = proxy(Arc::clone(&seen)).await;
    let known = Proxy::parse(&address.replace("http://", "http://user:pass@")).unwrap();
    let through = |mut plan: Plan, proxy: &Proxy| {
        plan.transport.proxy = Some(proxy.clone());
        run(plan)
    };
    let mut forward = closed("http://far.test", 4);
    forward.own_target = true;
    let (report, _) = through(forward.clone(), &known).await;
    assert_eq!(report.status.get(&203), Some(&4), "{:?}", report.errors);
    assert_eq!(seen.lock().unwrap()[0], "GET http://far.test/ HTTP/1.1");
    let stranger = Proxy::parse(&address).unwrap();
    let (report, _) = through(forward, &stranger).await;
    assert_eq!(
        report.status.get(&407),
        Some(&4),
        "the proxy's own answer is an answer"
    );
    let made = certificates();
    let port = tls_app(everything(), &made, false, &[b"h2", b"http/1.1"]).await;
    for http2 in [false, true] {
        let mut tunnel = closed(&format!("https://api.test:{port}"), 4);
        tunnel.own_target = true;
        tunnel.transport.http2 = http2;
        tunnel.transport.ca = Some(made.ca.as_bytes().into());
        let (report, _) = through(tunnel.clone(), &known).await;
        all_well(&report, 4);
        let last = seen.lock().unwrap().last().cloned().unwrap();
        assert_eq!(last, format!("CONNECT api.test:{port} HTTP/1.1"));
        let (report, _) = through(tunnel, &stranger).await;
        assert_eq!(report.errors.get("proxy"), Some(&4), "{:?}", report.errors);
    }
}

#[tokio::test]
async fn connections_are_closed_as_often_as_asked() {
    let target = app(everything()).await;
    for http2 in [false, true] {
        for (each, expected) in [(1, 12), (4, 3)] {
            let mut plan = closed(&target, 12);
            plan.connections = 1;
            plan.transport.http2 = http2;
            plan.transport.requests_per_connection = Some(each);
            let (report, _) = run(plan).await;
            all_well(&report, 12);

            assert_eq!(report.connections_opened, expected, "{each}, http2 {http2}");
        }
    }
}

#[tokio::test]
async fn cookies_stay_with_their_connection() {
    let (fresh, known) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (f, k) = (Arc::clone(&fresh), Arc::clone(&known));
    let router = Router::new().route(
        "/",
        get(
            async move |headers: HeaderMap| match headers.get(header::COOKIE) {
                None => {
                    let id = f.fetch_add(1, Ordering::SeqCst);
                    ([(header::SET_COOKIE, format!("id={id}; Path=/"))], "").into_response()
                }
                Some(cookie) => {
                    let id: u64 = cookie.to_str().unwrap()[3..].parse().unwrap();
                    assert!(id < 2);
                    k.fetch_add(1, Ordering::SeqCst);
                    "".into_response()
                }
            },
        ),
    );
    let target = app(router).await;
    for http2 in [false, true] {
        fresh.store(0, Ordering::SeqCst);
        known.store(0, Ordering::SeqCst);
        let mut plan = closed(&target, 20);
        plan.transport.cookies = true;
        plan.transport.http2 = http2;
        let (report, _) = run(plan).await;
        all_well(&report, 20);
        let seen = (fresh.load(Ordering::SeqCst), known.load(Ordering::SeqCst));
        // A fast connection may have sent all of them.
        assert!(seen.0 <= 2 && seen.0 + seen.1 == 20, "{seen:?}");
    }
}

#[tokio::test]
async fn redirects_are_followed_as_far_as_told() {
    let strays = Arc::new(AtomicU64::new(0));
    let s = Arc::clone(&strays);
    let elsewhere = app(Router::new().fallback(async move |headers: HeaderMap| {
        assert!(!headers.contains_key(header::AUTHORIZATION));
        s.fetch_add(1, Ordering::SeqCst);
        "elsewhere"
    }))
    .await
    .replace("127.0.0.1", "localhost");
    let away = format!("{elsewhere}/x");
    let to = |status: StatusCode, place: String| (status, [(header::LOCATION, place)]);
    let router = Router::new()
        .route(
            "/a",
            any(async move || to(StatusCode::FOUND, "/b?x".into())),
        )
        .route(
            "/b",
            get(async move || to(StatusCode::PERMANENT_REDIRECT, "c".into())),
        )
        .route("/c", get(async || StatusCode::ACCEPTED))
        .route(
            "/away",
            get(async move || to(StatusCode::FOUND, away.clone())),
        )
        .route(
            "/round",
            get(async move || to(StatusCode::FOUND, "/round".into())),
        );
    let target = app(router).await;
    let with = |path: &str, redirects: u32, change: &dyn Fn(&mut Plan)| {
        let mut plan = closed(&target, 4);
        plan.requests[0].path = path.into();
        plan.requests[0].headers = vec![("authorization".into(), "Basic x".into())];
        plan.transport.redirects = redirects;
        change(&mut plan);
        run(plan)
    };
    for http2 in [false, true] {
        let h2 = |p: &mut Plan| p.transport.http2 = http2;
        let (report, _) = with("/a", 5, &h2).await;
        assert_eq!(report.status.get(&202), Some(&4), "{:?}", report.status);
        assert_eq!(report.counts.get("redirects_followed"), Some(&8));
        let posted = |p: &mut Plan| {
            h2(p);
            p.requests[0].method = "POST".into();
            p.requests[0].body = Some("x".into());
        };
        let (report, _) = with("/a", 5, &posted).await;
        assert_eq!(report.status.get(&202), Some(&4), "a POST becomes a GET");
        let (report, _) = with("/a", 1, &h2).await;
        assert_eq!(report.status.get(&308), Some(&4), "{:?}", report.status);
        assert_eq!(report.counts.get("redirects_refused"), Some(&4));
        let (report, _) = with("/a", 0, &h2).await;
        assert_eq!(report.status.get(&302), Some(&4));
        let (report, _) = with("/round", 20, &h2).await;
        assert_eq!(report.counts.get("redirects_followed"), Some(&80));
        let (report, _) = with("/away", 5, &h2).await;
        assert_eq!(
            report.status.get(&302),
            Some(&4),
            "another host is not followed to"
        );
        assert_eq!(
            (
                report.counts.get("redirects_refused"),
                strays.load(Ordering::SeqCst)
            ),
            (Some(&4), 0)
        );
    }
    for (http2, seen) in [(false, 4), (true, 8)] {
        let (report, _) = with("/away", 5, &|p| {
            p.transport.redirect_hosts = true;
            p.transport.http2 = http2;
        })
        .await;
        assert_eq!(
            (report.status.get(&200), strays.load(Ordering::SeqCst)),
            (Some(&4), seen),
            "{:?}",
            report.errors
        );
        // The other origin's connections are kept, too.
        assert!(
            report.connections_opened <= 8,
            "{}",
            report.connections_opened
        );
    }
}

#[tokio::test]
async fn compressed_bodies_are_counted_in_both_sizes() {
    use std::io::Write;
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gz.write_all(&[b'a'; 100_000]).unwrap();
    let gz = gz.finish().unwrap();
    let length = gz.len() as u64;
    let router = Router::new()
        .route(
            "/",
            get(async move |headers: HeaderMap| {
                assert_eq!(headers[header::ACCEPT_ENCODING], "gzip, br");
                ([(header::CONTENT_ENCODING, "gzip")], gz)
            }),
        )
        .route(
            "/lie",
            get(async || ([(header::CONTENT_ENCODING, "br")], "this is plain")),
        );
    let target = app(router).await;
    for http2 in [false, true] {
        let mut plan = closed(&target, 5);
        plan.transport.compressed = true;
        plan.transport.http2 = http2;
        let (report, _) = run(plan.clone()).await;
        all_well(&report, 5);
        assert_eq!(report.counts.get("body_bytes"), Some(&(5 * length)));
        assert_eq!(report.counts.get("decoded_bytes"), Some(&500_000));
        plan.requests[0].path = "/lie".into();
        let (report, _) = run(plan).await;
        assert_eq!(
            report.errors.get("encoding"),
            Some(&5),
            "{:?}",
            report.errors
        );
    }
}

#[tokio::test]
async fn users_think_and_the_law_is_told() {
    let target =
        app(Router::new().route("/", get(async || tokio::time::sleep(50 * MS).await))).await;
    let mut plan = Plan {
        model: Model::Closed { requests: None },
        ..closed(&target, 1)
    };
    (plan.connections, plan.duration, plan.think) = (4, 600 * MS, 100 * MS);
    assert!(loadgen::little::before(&plan, None)[0].contains("at most 40.0/s"));
    let (report, _) = run(plan).await;
    // 4 users, 150 ms a round, 600 ms: 16, and fewer when the machine is busy.
    assert!((4..=20).contains(&report.responses), "{}", report.responses);
    let mut plan = self::plan(&target, 100.0, 500 * MS);
    plan.connections = 2;
    let (report, _) = run(plan).await;
    assert!(
        report
            .reasons
            .iter()
            .any(|r| r.contains("Little's law") && r.contains("there are 2")),
        "{:?}",
        report.reasons
    );
}

#[tokio::test]
async fn a_trickle_of_the_proxy_is_bounded() {
    let endless = raw(async |mut s: TcpStream| {
        let _ = s.read(&mut [0_u8; 1024]).await;
        while s.write_all(&[b'x'; 1000]).await.is_ok() {}
    });
    let mut plan = closed("https://far.test", 2);
    plan.own_target = true;
    plan.transport.proxy = Proxy::parse(&endless.await).ok();
    let (report, _) = run(plan).await;
    assert_eq!(report.errors.get("proxy"), Some(&2), "{:?}", report.errors);
}

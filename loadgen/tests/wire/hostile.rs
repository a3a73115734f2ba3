//! Servers that misbehave, over HTTP/1 and HTTP/2: each failure is counted by its kind, in bounded time and memory.

use std::time::{Duration, Instant};

use loadgen::{Engine, Model, Plan, Report, RequestSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{MS, raw, run};

fn plan(target: &str, per_second: f64, duration: Duration) -> Plan {
    super::plan(Engine::Auto, target, per_second, duration)
}

/// The kinds that this server's connections come to.
async fn kinds(mut plan: Plan) -> (String, Report) {
    plan.timeout = 400 * MS;
    plan.connections = 2;
    let began = Instant::now();
    let (report, _) = run(plan).await;
    assert!(began.elapsed() < Duration::from_secs(20));
    let kinds: Vec<&str> = report.errors.keys().map(String::as_str).collect();
    (kinds.join(" "), report)
}

async fn request(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0_u8; 4096]).await.is_ok_and(|n| n > 0)
}

#[tokio::test]
async fn http1_servers_that_misbehave_are_named() {
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc";
    let check = async |name: &str, server: String, kind: &str| {
        for engine in [Engine::Hyper, Engine::Epoll, Engine::Auto] {
            let plan = super::plan(engine, &server, 20.0, 300 * MS);
            let (kinds, report) = kinds(plan).await;
            let got = (kinds.as_str(), report.responses);
            assert_eq!(got, (kind, 0), "{name}, {engine:?}");
            assert_eq!(report.error_count(), report.requests, "{name}, {engine:?}");
        }
    };
    let server = raw(async |mut s: TcpStream| {
        request(&mut s).await;
        let _ = s.write_all(OK).await;
        // Closing with the linger of zero sends a reset.
        let _ = s.set_zero_linger();
    });
    check("reset in the body", server.await, "reset").await;
    let server = raw(async |mut s: TcpStream| {
        request(&mut s).await;
        for byte in OK.iter().cycle() {
            if s.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(20 * MS).await;
        }
    });
    check("a byte now and then", server.await, "timeout").await;
    let server = raw(async |mut s: TcpStream| {
        request(&mut s).await;
        let _ = s.write_all(&[0xfe; 3000]).await;
    });
    check("garbage", server.await, "protocol").await;
    let server = raw(async |mut s: TcpStream| {
        request(&mut s).await;
        let _ = s.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while s
            .write_all(&[b"x-more: ", &[b'y'; 4000][..], b"\r\n"].concat())
            .await
            .is_ok()
        {}
    });
    check("headers without end", server.await, "too_large").await;
    let server = raw(async |mut s: TcpStream| {
        request(&mut s).await;
        let _ = s.write_all(OK).await;
    });
    check("a shorter body than said", server.await, "closed").await;
    let server = raw(async |mut s: TcpStream| {
        request(&mut s).await;
        let lies = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 5\r\n\r\nabcde";
        let _ = s.write_all(lies).await;
    });
    check("two lengths", server.await, "protocol").await;
    let server = raw(async |mut s: TcpStream| {
        request(&mut s).await;
        let _ = s.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        let _ = s.set_zero_linger();
        tokio::time::sleep(10 * MS).await;
    });
    check("a body without a length, reset", server.await, "reset").await;
    let server = raw(async |mut s: TcpStream| {
        request(&mut s).await;
        let _ = s.write_all(b"220 this is no TLS at all\r\n").await;
        request(&mut s).await;
    });
    let tls = server.await.replace("http://", "https://");
    check("no TLS", tls, "tls").await;
}

#[tokio::test]
async fn a_longer_body_than_said_spoils_its_connection_only() {
    let server = raw(async |mut s: TcpStream| {
        while request(&mut s).await {
            let long = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdefgh";
            if s.write_all(long).await.is_err() {
                return;
            }
        }
    });
    let (kinds, report) = kinds(plan(&server.await, 40.0, 300 * MS)).await;
    assert!(report.responses > 0, "{kinds}");
    assert_eq!(report.responses + report.error_count(), report.requests);
    assert!(kinds.is_empty() || kinds == "protocol", "{kinds}");
}

/// A frame: length, type, flags, stream, payload.
fn frame(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&id.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// `:status 200`, by the static table.
const STATUS: u8 = 0x88;

/// Reads frames and calls `each` with the number and id of every request; what it gives is written.
async fn h2_server<F>(each: F) -> String
where
    F: Fn(u32) -> Vec<u8> + Send + Sync + Clone + 'static,
{
    raw(move |mut stream: TcpStream| {
        let each = each.clone();
        async move {
            let mut preface = [0; 24];
            if stream.read_exact(&mut preface).await.is_err() {
                return;
            }
            assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
            if stream.write_all(&frame(4, 0, 0, &[])).await.is_err() {
                return;
            }
            let mut head = [0; 9];
            while stream.read_exact(&mut head).await.is_ok() {
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; length];
                if stream.read_exact(&mut payload).await.is_err() {
                    return;
                }
                let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                if head[3] == 1 && stream.write_all(&each(id)).await.is_err() {
                    return;
                }
            }
        }
    })
    .await
}

fn over_h2(server: &str, streams: usize) -> Plan {
    let mut plan = plan(server, 20.0, 300 * MS);
    plan.transport.http2 = true;
    plan.transport.streams = streams;
    plan
}

/// Both ways a run goes over HTTP/2: by schedule, and closed at full speed.
async fn both(server: &str, each: impl Fn(String, Report, &str)) {
    let (kinds_open, report) = kinds(over_h2(server, 2)).await;
    each(kinds_open, report, "open");
    let closed = Plan {
        model: Model::Closed { requests: Some(20) },
        duration: Duration::from_secs(2),
        ..over_h2(server, 2)
    };
    let (kinds_closed, report) = kinds(closed).await;
    each(kinds_closed, report, "closed");
}

#[tokio::test]
async fn http2_servers_that_misbehave_are_named() {
    let ok = |id| frame(1, 5, id, &[STATUS]);
    type Answer = fn(u32) -> Vec<u8>;
    let table: [(&str, &str, Answer); 16] = [
        ("floods of PING", "flood", |_| {
            frame(6, 0, 0, &[1; 8]).repeat(20_000)
        }),
        ("floods of SETTINGS", "flood", |_| {
            frame(4, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(20_000)
        }),
        ("floods of empty DATA", "flood", |id| {
            [
                frame(1, 4, id, &[STATUS]),
                frame(0, 0, id, &[]).repeat(20_000),
            ]
            .concat()
        }),
        ("floods of CONTINUATION", "flood", |id| {
            [
                frame(1, 0, id, &[STATUS]),
                frame(9, 0, id, &[]).repeat(20_000),
            ]
            .concat()
        }),
        ("headers without end", "too_large", |id| {
            [
                frame(1, 0, id, &[STATUS]),
                frame(9, 0, id, &[0; 16_000]).repeat(40),
            ]
            .concat()
        }),
        ("a header bomb", "too_large", |id| {
            let mut block = vec![STATUS, 0x40, 1, b'a', 0x7f, 0x81, 0x1e];
            block.extend([b'x'; 4000]);
            block.extend([0xbe; 2000]);
            frame(1, 4, id, &block)
        }),
        ("a reset of each stream", "stream_reset", |id| {
            frame(3, 0, id, &[0, 0, 0, 2])
        }),
        ("streams refused", "stream_reset", |id| {
            frame(3, 0, id, &[0, 0, 0, 7])
        }),
        ("going away", "goaway", |_| {
            frame(7, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 11])
        }),
        ("a shorter body than said", "protocol", |id| {
            // content-length: 9, by static index 28.
            [
                frame(1, 4, id, &[STATUS, 0x0f, 0x0d, 1, b'9']),
                frame(0, 1, id, b"abc"),
            ]
            .concat()
        }),
        ("a body before headers", "protocol", |id| {
            frame(0, 1, id, b"abc")
        }),
        ("no status", "protocol", |id| {
            frame(1, 5, id, &[0x0f, 0x0d, 1, b'0'])
        }),
        ("an index beyond the table", "protocol", |id| {
            frame(1, 5, id, &[0xff, 0x40])
        }),
        ("a stream never opened", "protocol", |_| {
            frame(1, 5, 4001, &[STATUS])
        }),
        ("a push", "protocol", |id| {
            frame(5, 4, id, &[0, 0, 0, 2, 0x82])
        }),
        ("a frame too long", "protocol", |id| {
            frame(0, 0, id, &[0; 16_385])
        }),
    ];
    for (name, kind, answer) in table {
        let server = h2_server(answer).await;
        both(&server, |kinds, report, way| {
            assert_eq!(
                (kinds.as_str(), report.responses),
                (kind, 0),
                "{name}, {way}"
            );
            assert_eq!(report.error_count(), report.requests, "{name}, {way}");
        })
        .await;
    }
    let silent = h2_server(|_| Vec::new()).await;
    both(&silent, |kinds, report, way| {
        assert_eq!((kinds.as_str(), report.responses), ("timeout", 0), "{way}");
    })
    .await;
    let closing = raw(async |mut s: TcpStream| {
        request(&mut s).await;
    });
    both(&closing.await, |kinds, report, way| {
        assert!(kinds == "closed" || kinds == "reset", "{kinds}, {way}");
        assert_eq!(report.responses, 0);
    })
    .await;
    let http1 = raw(async |mut s: TcpStream| {
        request(&mut s).await;
        let _ = s
            .write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
            .await;
    });
    both(&http1.await, |kinds, _, way| {
        assert_eq!(kinds, "protocol", "{way}")
    })
    .await;
    // One that does all right, so that the table's servers fail for what they do.
    let good = h2_server(ok).await;
    both(&good, |kinds, report, way| {
        assert_eq!(
            (kinds.as_str(), report.responses),
            ("", report.requests),
            "{way}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_server_that_goes_between_requests_costs_nothing() {
    // Each connection answers its first request and goes; what it did not act on is sent again elsewhere.
    let server = h2_server(|id| {
        if id == 1 {
            let gone = frame(7, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]);
            [frame(1, 5, id, &[STATUS]), gone].concat()
        } else {
            Vec::new()
        }
    })
    .await;
    both(&server, |kinds, report, way| {
        assert_eq!(
            (kinds.as_str(), report.responses),
            ("", report.requests),
            "{way}"
        );
        assert!(report.connections_opened > 2, "{way}");
    })
    .await;
}

#[tokio::test]
async fn few_streams_are_not_exceeded() {
    // Two streams at once; a third is a mistake that this server answers with its end.
    let server = raw(async |mut stream: TcpStream| {
        let mut preface = [0; 24];
        if stream.read_exact(&mut preface).await.is_err() {
            return;
        }
        let two = frame(4, 0, 0, &[0, 3, 0, 0, 0, 2]);
        let _ = stream.write_all(&two).await;
        let (mut open, mut head) = (Vec::new(), [0; 9]);
        let mut told = false;
        while stream.read_exact(&mut head).await.is_ok() {
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            if stream.read_exact(&mut payload).await.is_err() {
                return;
            }
            told |= head[3] == 4 && head[4] == 1;
            let id = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
            if head[3] == 1 {
                open.push(id);
                // Before it acknowledged the settings, the client cannot know.
                if open.len() > 2 && told {
                    return;
                }
            }
            if told && !open.is_empty() {
                tokio::time::sleep(5 * MS).await;
                for id in open.drain(..) {
                    let _ = stream.write_all(&frame(1, 5, id, &[STATUS])).await;
                }
            }
        }
    })
    .await;
    let mut plan = over_h2(&server, 8);
    plan.model = Model::Closed { requests: Some(60) };
    plan.duration = Duration::from_secs(5);
    let (kinds, report) = kinds(plan).await;
    assert_eq!((kinds.as_str(), report.responses), ("", 60));
    assert_eq!(report.counts.get("server_max_streams"), Some(&2));
    assert!(
        report.reasons.iter().any(|r| r.contains("takes 2 streams")),
        "{:?}",
        report.reasons
    );
}

/// A server that answers each connection's first request with a body of so many bytes, as its windows grant them.
async fn h2_body(length: u64) -> String {
    raw(move |mut stream: TcpStream| async move {
        let mut preface = [0; 24];
        if stream.read_exact(&mut preface).await.is_err() {
            return;
        }
        let _ = stream.write_all(&frame(4, 0, 0, &[])).await;
        let (mut id, mut left) = (0, length);
        // What the client grants: a stream's first window, this stream's, the connection's (RFC 9113, 6.9).
        let (mut first, mut of_stream, mut of_all) = (65_535_i64, 0_i64, 65_535_i64);
        let mut head = [0; 9];
        let part = [b'x'; 16_384];
        while left > 0 {
            let room = if id == 0 {
                0
            } else {
                (first + of_stream).min(of_all)
            };
            if room > 0 {
                let n = left.min(room.unsigned_abs()).min(part.len() as u64) as usize;
                left -= n as u64;
                of_stream -= n as i64;
                of_all -= n as i64;
                let data = frame(0, u8::from(left == 0), id, &part[..n]);
                if stream.write_all(&data).await.is_err() {
                    return;
                }
                continue;
            }
            if stream.read_exact(&mut head).await.is_err() {
                return;
            }
            let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; size];
            if stream.read_exact(&mut payload).await.is_err() {
                return;
            }
            let number = |b: &[u8]| u32::from_be_bytes([b[0], b[1], b[2], b[3]]);
            match head[3] {
                1 => {
                    id = number(&head[5..]);
                    let _ = stream.write_all(&frame(1, 4, id, &[STATUS])).await;
                }
                4 if head[4] == 0 => {
                    let window = payload.chunks_exact(6).find(|s| s[1] == 4);
                    first = window.map_or(first, |s| i64::from(number(&s[2..])));
                    let _ = stream.write_all(&frame(4, 1, 0, &[])).await;
                }
                8 if number(&head[5..]) == 0 => of_all += i64::from(number(&payload)),
                8 => of_stream += i64::from(number(&payload)),
                _ => {}
            }
        }
        // Stays until the client goes.
        while stream.read(&mut [0; 64]).await.is_ok_and(|n| n > 0) {}
    })
    .await
}

/// The most memory that this process ever had, in KiB.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "moves several gigabytes"]
async fn a_body_of_a_gigabyte_costs_no_memory() {
    let before = peak_kib();
    let endless = raw(async |mut s: TcpStream| {
        request(&mut s).await;
        let _ = s.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while s.write_all(&[b'x'; 1 << 16]).await.is_ok() {}
    })
    .await;
    let one = |target: &str, http2: bool| {
        let mut plan = plan(target, 1.0, Duration::from_secs(120));
        plan.model = Model::Closed { requests: Some(1) };
        plan.timeout = Duration::from_secs(120);
        plan.connections = 1;
        plan.transport.http2 = http2;
        plan
    };
    let (report, _) = run(one(&endless, false)).await;
    assert_eq!(
        report.errors.get("too_large"),
        Some(&1),
        "{:?}",
        report.errors
    );
    // The same over HTTP/2: a gigabyte is read, as the windows allow, and one byte more is too much.
    let (report, _) = run(one(&h2_body(1 << 30).await, true)).await;
    assert_eq!(report.status.get(&200), Some(&1), "{:?}", report.errors);
    assert!(report.bytes > 1 << 30, "{} bytes", report.bytes);
    let (report, _) = run(one(&h2_body((1 << 30) + 1).await, true)).await;
    assert_eq!(
        report.errors.get("too_large"),
        Some(&1),
        "{:?}",
        report.errors
    );
    // A gigabyte sent, too.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("big");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    let taker = raw(async |mut s: TcpStream| {
        let (mut buf, mut left) = (vec![0; 1 << 16], (1_u64 << 30) + 1);
        while left > 0 {
            let n = s.read(&mut buf).await.unwrap_or(0) as u64;
            if n == 0 {
                return;
            }
            if left > 1 << 30 {
                let head = String::from_utf8_lossy(&buf).to_lowercase();
                assert!(head.contains("content-length: 1073741824"));
                let body = head.find("\r\n\r\n").unwrap() as u64 + 4;
                left = (1 << 30) - (n - body);
            } else {
                left -= n;
            }
        }
        let _ = s
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
            .await;
    })
    .await;
    let mut send = one(&taker, false);
    send.requests = vec![RequestSpec {
        method: "POST".into(),
        ..RequestSpec::get("/")
    }];
    send.transport.body = loadgen::outgoing::Source::file(&path).ok();
    let (report, _) = run(send).await;
    assert_eq!(report.status.get(&200), Some(&1), "{:?}", report.errors);
    let grown = peak_kib() - before;
    assert!(grown < 64 << 10, "{grown} KiB more");
}

//! The reactor over both engines, beside servers that answer in every way they can.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::*;
use crate::conn::{ConnError, Connector, ErrorKind, Target};

const BOTH: [&[Engine]; 2] = [&[Engine::IoUring], &[Engine::Epoll]];

/// Runs a future on a reactor over this engine.
fn on<T: Send + 'static, F: Future<Output = T> + 'static>(
    engine: &'static [Engine],
    make: impl FnOnce() -> F + Send + 'static,
) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (tx, rx) = oneshot::channel();
        let end = thread(engine, move || async move {
            let _ = tx.send(make().await);
        });
        end.unwrap().await.unwrap().unwrap();
        rx.await.unwrap()
    })
}

/// A server that does this with each connection, after it has read a request.
fn server(act: impl Fn(&mut TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                request.push(byte[0]);
            }
            act(&mut stream);
        }
    });
    url
}

fn way(url: &str) -> Way {
    Way::of(&Connector::new(Target::parse(url).unwrap(), false).unwrap())
}

/// What came of one request: the response, its body, and whether the connection can carry another.
type Outcome = Result<(u16, Vec<u8>, String, bool), ConnError>;

async fn ask(url: String, head: bool, limit: u64, patience: Duration) -> Outcome {
    let deadline = Instant::now() + patience;
    let (mut link, _) = Link::open(&way(&url), deadline).await?;
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let answered = link
        .exchange(request, head, (limit, true), deadline)
        .await?;
    assert_eq!(answered.body_len, answered.body.len() as u64);
    let kind = answered.headers.get("x-kind");
    let kind = kind.map_or("", |v| v.to_str().unwrap()).to_owned();
    Ok((
        answered.status,
        answered.body.to_vec(),
        kind,
        link.is_open(),
    ))
}

/// The same for a server that sends these pieces and then closes, or waits for the peer to.
fn told(pieces: &'static [&'static str], closes: bool, head: bool) -> [Outcome; 2] {
    BOTH.map(|engine| {
        let url = server(move |stream| {
            for (i, piece) in pieces.iter().enumerate() {
                if i > 0 {
                    std::thread::sleep(Duration::from_millis(20));
                }
                stream.write_all(piece.as_bytes()).unwrap();
            }
            if !closes {
                let _ = stream.read(&mut [0]);
            }
        });
        on(engine, move || ask(url, head, 100, Duration::from_secs(5)))
    })
}

#[test]
fn responses_come_whole_however_they_are_sent() {
    let ok = |status, body: &str, kind: &str, open| {
        (status, body.as_bytes().to_vec(), kind.to_owned(), open)
    };
    for (pieces, closes, head, expected) in [
        (
            &["HTTP/1.1 200 OK\r\nx-kind: whole\r\ncontent-length: 5\r\n\r\nhello"][..],
            false,
            false,
            ok(200, "hello", "whole", true),
        ),
        (
            &[
                "HTTP/1.1 2",
                "01 Made\r\nX-Kind: piec",
                "es\r\nContent-Length: 5\r\n\r",
                "\nhel",
                "lo",
            ],
            false,
            false,
            ok(201, "hello", "pieces", true),
        ),
        (
            &[
                "HTTP/1.1 200 OK\r\nx-kind: chunks\r\ntransfer-encoding: chunked\r\n\r\n3\r\nhel\r\n",
                "2;x=y\r\nlo\r\n0\r\n\r\n",
            ],
            false,
            false,
            ok(200, "hello", "chunks", true),
        ),
        (
            &["HTTP/1.1 200 OK\r\nx-kind: to the end\r\n\r\nhel", "lo"],
            true,
            false,
            ok(200, "hello", "to the end", false),
        ),
        (
            &[
                "HTTP/1.1 103 Early\r\nx-kind: no\r\n\r\n",
                "HTTP/1.1 204 None\r\nx-kind: yes\r\n\r\n",
            ],
            false,
            false,
            ok(204, "", "yes", true),
        ),
        (
            &["HTTP/1.1 200 OK\r\nx-kind: head\r\ncontent-length: 5\r\n\r\n"],
            false,
            true,
            ok(200, "", "head", true),
        ),
        (
            &[
                "HTTP/1.1 200 OK\r\nx-kind: last\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi",
            ],
            false,
            false,
            ok(200, "hi", "last", false),
        ),
        (
            &["HTTP/1.1 200 OK\r\nx-kind: more\r\ncontent-length: 2\r\n\r\nhi and more"],
            false,
            false,
            ok(200, "hi", "more", false),
        ),
    ] {
        for got in told(pieces, closes, head) {
            assert_eq!(got.unwrap(), expected, "{pieces:?}");
        }
    }
}

#[test]
fn each_failure_has_its_kind() {
    for (pieces, closes, kind, nothing) in [
        (&[][..], true, ErrorKind::Closed, true),
        (
            &["HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhel"],
            true,
            ErrorKind::Closed,
            false,
        ),
        (&["HTTP/1.1 200 O"], true, ErrorKind::Closed, false),
        (
            &["220 mail.example ESMTP\r\n"],
            false,
            ErrorKind::Protocol,
            false,
        ),
        (
            &["HTTP/1.1 200 OK\r\ncontent-length: 101\r\n\r\n"],
            false,
            ErrorKind::TooLarge,
            false,
        ),
    ] {
        for got in told(pieces, closes, false) {
            let error = got.unwrap_err();
            assert_eq!(
                (error.kind, error.nothing_received),
                (kind, nothing),
                "{pieces:?}"
            );
            assert!(!error.never_sent, "{pieces:?}");
        }
    }
}

#[test]
fn what_takes_too_long_ends_at_its_deadline_and_what_is_refused_was_never_sent() {
    for engine in BOTH {
        let url = server(|stream| {
            let _ = stream.read(&mut [0]);
        });
        let began = Instant::now();
        let error = on(engine, move || {
            ask(url, false, 100, Duration::from_millis(200))
        });
        let error = error.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Timeout, "{error}");
        assert!(began.elapsed() >= Duration::from_millis(200));
        let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", nobody.local_addr().unwrap());
        drop(nobody);
        let error = on(engine, move || ask(url, false, 100, Duration::from_secs(5)));
        let error = error.unwrap_err();
        assert_eq!((error.kind, error.never_sent), (ErrorKind::Refused, true));
    }
}

#[test]
fn a_connection_that_the_peer_closes_meanwhile_is_known_to_be_closed() {
    for engine in BOTH {
        let url = server(|stream| {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        });
        let (before, after) = on(engine, move || async move {
            let deadline = Instant::now() + Duration::from_secs(5);
            let (mut link, _) = Link::open(&way(&url), deadline).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
            let answered = link.exchange(request, false, (9, false), deadline).await;
            let before = answered.unwrap().status;
            while link.is_open() && Instant::now() < deadline {
                sleep_until(Instant::now() + Duration::from_millis(2)).await;
            }
            (before, link.is_open())
        });
        assert_eq!((before, after), (200, false));
    }
}

#[test]
fn tasks_sleep_in_the_order_of_their_instants_and_end_with_the_first() {
    struct Bye(Rc<Cell<bool>>);
    impl Drop for Bye {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    for engine in BOTH {
        let (order, late, dropped) = on(engine, || async {
            let order = Rc::new(RefCell::new(Vec::new()));
            let start = Instant::now();
            for ms in [30, 10, 20] {
                let order = Rc::clone(&order);
                spawn(async move {
                    sleep_until(start + Duration::from_millis(ms)).await;
                    order.borrow_mut().push(ms);
                });
            }
            let gone = Rc::new(Cell::new(false));
            let bye = Bye(Rc::clone(&gone));
            spawn(async move {
                let _bye = bye;
                std::future::pending::<()>().await;
            });
            let until = start + Duration::from_millis(40);
            sleep_until(until).await;
            let order = order.borrow().clone();
            (order, Instant::now() >= until, gone.get())
        });
        assert_eq!(order, [10, 20, 30]);
        assert!(late && !dropped);
    }
}

#[test]
fn a_task_that_wakes_itself_for_ever_keeps_nobody_waiting() {
    for engine in BOTH {
        let url = server(|stream| {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
                .unwrap();
            let _ = stream.read(&mut [0]);
        });
        let got = on(engine, move || async move {
            spawn(async {
                loop {
                    tokio::task::yield_now().await;
                }
            });
            ask(url, false, 9, Duration::from_secs(5)).await
        });
        assert_eq!(got.unwrap().1, b"hi");
    }
}

//! `nines load ab` beside the real ApacheBench: the same flags against one server, then report, standard error, exit
//! code, files and the bytes on the wire are compared; what differs on purpose is written down in the cases.
//!
//! Owns the server that answers in every odd way and the list of cases. Must not know how either program works.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::running::stderr;

/// What the server saw, and how many connections it has open.
#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<String>>,
    connections: AtomicUsize,
    open: AtomicUsize,
}

struct Server {
    port: u16,
    seen: Arc<Seen>,
}

trait Stream: Read + Write {
    /// Says that nothing more comes.
    fn end(&mut self) -> std::io::Result<()>;
}

impl Stream for TcpStream {
    fn end(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Stream for rustls::StreamOwned<rustls::ServerConnection, TcpStream> {
    fn end(&mut self) -> std::io::Result<()> {
        self.conn.send_close_notify();
        self.flush()
    }
}

impl Server {
    fn start(tls: Option<Arc<rustls::ServerConfig>>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its number").port();
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (seen, tls) = (Arc::clone(&shared), tls.clone());
                seen.connections.fetch_add(1, Ordering::SeqCst);
                seen.open.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || {
                    // A client that goes away in the middle is what some cases are about.
                    let _ = connection(socket, tls, &seen);
                    seen.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Server { port, seen }
    }

    /// What was seen since the last call, once all connections are closed.
    fn take(&self) -> (Vec<String>, usize) {
        let until = Instant::now() + Duration::from_secs(5);
        while self.seen.open.load(Ordering::SeqCst) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
        let mut requests = std::mem::take(&mut *self.seen.requests.lock().expect("no panic"));
        requests.sort();
        (requests, self.seen.connections.swap(0, Ordering::SeqCst))
    }
}

fn connection(
    socket: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    seen: &Seen,
) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let raw = socket.try_clone()?;
    let mut stream: Box<dyn Stream> = match tls {
        None => Box::new(socket),
        Some(config) => {
            let session = rustls::ServerConnection::new(config).map_err(std::io::Error::other)?;
            Box::new(rustls::StreamOwned::new(session, socket))
        }
    };
    let mut answered = 0;
    loop {
        // A reset is a close with bytes that nobody read.
        let mut peeked = [0; 16];
        let got = raw.peek(&mut peeked)?;
        if peeked[..got].starts_with(b"GET /reset") {
            return Ok(());
        }
        let Some(request) = request(stream.as_mut())? else {
            return Ok(());
        };
        let n = {
            let mut requests = seen.requests.lock().expect("no panic");
            requests.push(request.clone());
            requests.len()
        };
        answered += 1;
        if !answer(stream.as_mut(), &request, n, answered)? {
            return stream.end();
        }
    }
}

/// One request with its body; none at the end.
fn request(stream: &mut dyn Stream) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 65536];
    loop {
        let got = stream.read(&mut buffer)?;
        if got == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..got]);
        let text = String::from_utf8_lossy(&bytes);
        let Some(end) = text.find("\r\n\r\n") else {
            continue;
        };
        let length = text
            .to_lowercase()
            .split("content-length: ")
            .nth(1)
            .and_then(|rest| rest.split("\r\n").next()?.parse::<usize>().ok())
            .unwrap_or(0);
        if bytes.len() >= end + 4 + length {
            return Ok(Some(text.into_owned()));
        }
    }
}

/// Answers; false when the connection is to be closed. `n` counts requests since the start, `answered` on this connection.
fn answer(
    stream: &mut dyn Stream,
    request: &str,
    n: usize,
    answered: usize,
) -> std::io::Result<bool> {
    let url = request.split(' ').nth(1).unwrap_or("/");
    let path = match url.split_once("://") {
        Some((_, rest)) => &rest[rest.find('/').unwrap_or(0)..],
        None => url,
    };
    let kept = request.contains("Connection: Keep-Alive");
    let mut say = |status: &str, body: &str, stays: bool| {
        let word = if stays { "keep-alive" } else { "close" };
        let head = request.starts_with("HEAD");
        let text = format!(
            "HTTP/1.1 {status}\r\nServer: odd/1.0 (test)\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: {word}\r\n\r\n{}",
            body.len(),
            if head { "" } else { body }
        );
        stream.write_all(text.as_bytes())?;
        Ok(stays)
    };
    match path.split('?').next().unwrap_or("/") {
        "/vary" => say("200 OK", &"x".repeat(10 + n % 2), kept),
        "/404" => say("404 Not Found", "nothing here", kept),
        "/500" => say("500 Internal Server Error", "broken", kept),
        "/big" => say("200 OK", &"y".repeat(100_000), kept),
        "/three" => say("200 OK", "hello", kept && answered < 3),
        "/empty" => Ok(false),
        "/half" => {
            stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 10\r\n\r\nhello")?;
            Ok(false)
        }
        "/bare" => {
            stream.write_all(b"HTTP/1.0 200 OK\n\nno fields")?;
            Ok(false)
        }
        "/longhead" => {
            let text = format!(
                "HTTP/1.0 200 OK\r\nX-Long: {}\r\n\r\nhello",
                "z".repeat(9000)
            );
            stream.write_all(text.as_bytes())?;
            Ok(false)
        }
        "/hang" => {
            let mut gone = [0; 1];
            stream.read(&mut gone).map(|_| false)
        }
        _ => say("200 OK", "hello world", kept),
    }
}

/// Both programs' words of one run.
#[derive(Debug)]
struct Ran {
    out: String,
    err: String,
    code: Option<i32>,
    requests: Vec<String>,
    connections: usize,
    files: Vec<String>,
}

fn run(program: &str, first: &[&str], args: &[String], server: &Server, dir: &Path) -> Ran {
    let output = Command::new(program)
        .args(first)
        .args(args)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let (requests, connections) = server.take();
    let files = ["e.csv", "g.tsv"].map(|name| {
        let path = dir.join(name);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let _ = std::fs::remove_file(&path);
        text
    });
    Ran {
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: stderr(&output),
        code: output.status.code(),
        requests,
        connections,
        files: files.to_vec(),
    }
}

/// The report from `Benchmarking` on (or the table's first row), times replaced by `#`. Left out: remarks on skewed
/// columns, which come and go with the times, and the block that ab does not have.
fn masked(out: &str) -> String {
    let begin = out
        .find("Benchmarking ")
        .or(out.find("<table"))
        .unwrap_or(0);
    let out = out[begin..]
        .split("\nPercentiles with decimals")
        .next()
        .unwrap_or("");
    let timed = [
        "Time taken",
        "Requests per second",
        "Time per request",
        "Transfer rate",
        "Connect:",
        "Processing:",
        "Waiting:",
        "Total:",
        "kb/s sent",
        "kb/s total",
        "%  ",
    ];
    let remark = [
        "WARNING: The median",
        "ERROR: The median",
        "        These results",
        "       deviation apart",
    ];
    let mut text = String::new();
    for line in out
        .lines()
        .filter(|line| !remark.iter().any(|r| line.starts_with(r)))
    {
        let begun = text.len();
        if !timed.iter().any(|t| line.contains(t))
            || line.starts_with("   (Connect")
            || line.contains("   (Connect: ")
        {
            text += line;
        } else {
            let mut number = false;
            let percent = line.contains("%  ");
            for (at, c) in line.char_indices() {
                let digit = c.is_ascii_digit() || (number && c == '.');
                match digit && !(percent && at < 5) && !line[..at].ends_with("colspan=") {
                    true if number => {}
                    true => text.push('#'),
                    false => text.push(c),
                }
                number = digit;
            }
            // Columns are as wide as their numbers; the spaces before them are not compared.
            let mut row = text.split_off(begun);
            while row.contains(" #") || row.contains("  ") {
                row = row.replace(" #", "#").replace("  ", " ");
            }
            text += &row;
        }
        text.push('\n');
    }
    text
}

struct Case {
    args: &'static str,
    url: &'static str,
    /// What the report says instead, on purpose: (ab's text, ours).
    differs: &'static [(&'static str, &'static str)],
}

const fn same(args: &'static str, url: &'static str) -> Case {
    Case {
        args,
        url,
        differs: &[],
    }
}

const PLAIN: &[Case] = &[
    same("-n 1", "/"),
    same("-n 20 -c 4", "/a/b?c=d&e=%20f"),
    same("-n 20 -c 4 -k", "/"),
    same("-n 300 -c 7 -k", "/"),
    same("-n 300 -q -k", "/"),
    same("-n 7 -k", "/three"),
    same("-n 9 -S", "/"),
    same("-n 9 -d", "/"),
    same("-n 9 -v 1", "/"),
    same("-n 2 -v 2", "/404"),
    same("-n 2 -v 4 -k", "/"),
    same("-n 8 -c 2", "/404"),
    same("-n 8 -c 2 -k", "/500"),
    same("-n 9", "/vary"),
    same("-n 9 -k", "/vary"),
    same("-n 9 -l", "/vary"),
    same("-n 6 -c 3 -k", "/big"),
    same("-n 6 -b 4096", "/big"),
    same("-n 4 -i", "/"),
    same("-n 4 -i -k", "/"),
    same("-n 4 -m OPTIONS", "/"),
    same("-n 4 -p body.json -T application/json", "/"),
    same("-n 4 -u body.json -k", "/"),
    same("-n 4 -p body.json -m PATCH", "/"),
    same("-n 4 -p large.bin", "/"),
    same("-n 4 -C a=1 -C b=2", "/"),
    same("-n 4 -A user:pass:word -P proxy:secret", "/"),
    same(
        "-n 4 -H X-One:1 -H User-Agent:mine -H ACCEPT:text/html -H Host:example.test",
        "/",
    ),
    same("-n 4 -B 127.0.0.1", "/"),
    same("-n 4 -X 127.0.0.1:PORT", "/through?x"),
    same("-n 20 -e e.csv -g g.tsv", "/"),
    same("-n 5 -w", "/"),
    same("-n 5 -k -x border=1 -y class=r -z class=c", "/404"),
    same("-n 5 -p body.json -w", "/vary"),
    same("-t 9 -n 12", "/"),
    same("-n 3", "/bare"),
    same("-n 20", "/longhead"),
    same("-n 5", "/reset"),
    same("-n 5 -r", "/reset"),
    same("-n 5 -r -v 1", "/reset"),
    same("-n 5 -s 1", "/hang"),
    // An answer that never came, or not whole, is no success.
    Case {
        args: "-n 3",
        url: "/empty",
        differs: &[(
            "Failed requests:        0\n",
            "Failed requests:        3\n   (Connect: 0, Receive: 0, Length: 0, Exceptions: 3)\n",
        )],
    },
    Case {
        args: "-n 3",
        url: "/half",
        differs: &[
            (
                "Failed requests:        0\n",
                "Failed requests:        3\n   (Connect: 0, Receive: 0, Length: 0, Exceptions: 3)\n",
            ),
            (
                "Document Length:        5 bytes",
                "Document Length:        0 bytes",
            ),
        ],
    },
];

const SECURE: &[Case] = &[
    same("-n 3", "/"),
    same("-n 6 -c 2 -k", "/"),
    same("-n 3 -f TLS1.2", "/"),
    same("-n 3 -f TLS1.3 -k", "/404"),
    same("-n 3 -f TLS1.2 -Z ECDHE-RSA-AES128-GCM-SHA256", "/"),
    same("-n 3 -f TLS1.3 -Z TLS_AES_128_GCM_SHA256", "/"),
    same("-n 3 -I", "/"),
    same("-n 3 -H Host:example.test", "/"),
    same("-n 3 -E identity.pem -p body.json", "/"),
];

const WRONG: &[&str] = &[
    "-n 0 http://127.0.0.1:1/",
    "-n 2 -c 3 http://127.0.0.1:1/",
    "-n 2 -c -1 http://127.0.0.1:1/",
    "-n 2 -c 0 http://127.0.0.1:1/",
    "-p nowhere http://127.0.0.1:1/",
    "-i -p body.json http://127.0.0.1:1/",
    "-h",
    "-k",
    "http://127.0.0.1:1",
    "http://127.0.0.1:1/ -n 3",
    "-n",
    "-n 5 http://127.0.0.1:1/",
    "-n 5 http://no.such.host.invalid/",
    "-Z nothing https://127.0.0.1:1/",
    "-E nowhere https://127.0.0.1:1/",
];

/// What scripts look for in ab's output, as found in public repositories.
const PARSERS: &[(&str, bool)] = &[
    (r"Server Software:\s+(\S+)", true),
    (r"Document Length:\s+(\d+) bytes", true),
    (r"Concurrency Level:\s+(\d+)", true),
    (r"Complete requests:\s+(\d+)", true),
    (
        r"Concurrency Level:\s+\d+[\s\S]*?Complete requests:\s+(\d+)",
        true,
    ),
    (r"Failed requests:\s+(\d+)", true),
    (
        r"\(Connect: (\d+), Receive: (\d+), Length: (\d+), Exceptions: (\d+)\)",
        true,
    ),
    (r"Non-2xx responses:\s+(\d+)", true),
    (r"Keep-Alive requests:\s+(\d+)", true),
    (r"Total transferred:\s+(\d+) bytes", true),
    (r"HTML transferred:\s+(\d+) bytes", true),
    (r"This is ApacheBench, Version (\d+\.\d+)", true),
    (r"Time taken for tests:\s+([\d.]+)\s+seconds", false),
    (r"Requests per second:\s+([\d.]+) \[#/sec\] \(mean\)", false),
    (r"Time per request:\s+([\d.]+)\s+\[ms\]\s+\(mean\)", false),
    (
        r"Time per request:\s+([\d.]+) \[ms\] \(mean, across all concurrent requests\)",
        false,
    ),
    (r"Transfer rate:\s+([\d.]+) \[Kbytes/sec\] received", false),
    (r"Total:\s+(\d+)\s+(\d+)\s+[\d.]+\s+(\d+)\s+(\d+)", false),
    (r"(?m)^\s*50%\s+(\d+)", false),
    (r"(?m)^\s*99%\s+(\d+)", false),
    (r"100%\s+(\d+)\s+\(longest request\)", false),
    (
        r"(?m)^Connect:\s+(\d+)\s+(\d+)\s+([\d.]+)\s+(\d+)\s+(\d+)\n?$",
        false,
    ),
];

/// Both must be equal, or it is a problem.
fn equal<T: PartialEq + std::fmt::Debug>(problems: &mut Vec<String>, what: &str, real: T, ours: T) {
    if real != ours {
        problems.push(format!("{what}\n  ab:   {real:?}\n  ours: {ours:?}"));
    }
}

/// Each parser finds the same number of matches in both, and the same values where they are no times.
fn parsers_agree(problems: &mut Vec<String>, case: &str, real: &str, ours: &str) {
    for (pattern, exact) in PARSERS {
        let regex = regex::Regex::new(pattern).expect("a pattern");
        let found = |text: &str| -> Vec<String> {
            let all = regex.captures_iter(text);
            let groups = |c: regex::Captures<'_>| -> String {
                let words = c.iter().skip(1).flatten();
                words.map(|m| m.as_str().to_owned() + " ").collect()
            };
            all.map(groups).collect()
        };
        let (real, ours) = (found(real), found(ours));
        let what = format!("{case}: {pattern}");
        match exact {
            true => equal(problems, &what, real, ours),
            false => equal(problems, &what, real.len(), ours.len()),
        }
    }
}

fn compare(problems: &mut Vec<String>, case: &Case, server: &Server, scheme: &str, dir: &Path) {
    let port = server.port.to_string();
    let words = case.args.split_whitespace();
    let mut args: Vec<String> = words.map(|a| a.replace("PORT", &port)).collect();
    args.push(format!("{scheme}://127.0.0.1:{port}{}", case.url));
    let name = format!("ab {}", args.join(" "));
    let begun = Instant::now();
    let real = run("ab", &[], &args, server, dir);
    let ours = run(
        env!("CARGO_BIN_EXE_nines"),
        &["load", "ab"],
        &args,
        server,
        dir,
    );
    println!("{:5.2} s  {name}", begun.elapsed().as_secs_f64());
    let mut expected = masked(&real.out);
    for (theirs, own) in case.differs {
        if !expected.contains(theirs) {
            problems.push(format!("{name}: ab does not say {theirs:?}\n{expected}"));
        }
        expected = expected.replace(theirs, own);
    }
    let of = |what: &str| format!("{name}: {what}");
    equal(problems, &of("the report"), expected, masked(&ours.out));
    equal(problems, &of("standard error"), real.err, ours.err);
    equal(problems, &of("the exit code"), real.code, ours.code);
    equal(
        problems,
        &of("the bytes on the wire"),
        real.requests,
        ours.requests,
    );
    if !case.args.contains("-c") {
        equal(
            problems,
            &of("connections"),
            real.connections,
            ours.connections,
        );
    }
    if case.differs.is_empty() {
        parsers_agree(problems, &name, &real.out, &ours.out);
    }
    for (theirs, own) in real.files.iter().zip(&ours.files) {
        let shape = |text: &str| -> Vec<usize> {
            let columns = |line: &str| line.split(['\t', ',']).count();
            text.lines().map(columns).collect()
        };
        equal(
            problems,
            &of("lines and columns"),
            shape(theirs),
            shape(own),
        );
        let heading = |text: &str| text.lines().next().map(str::to_owned);
        equal(problems, &of("the heading"), heading(theirs), heading(own));
        let first = |text: &str| -> Vec<String> {
            let field = |line: &str| line.split(',').next().unwrap_or("").to_owned();
            let lines = text.lines().filter(|_| !text.contains('\t'));
            lines.map(field).collect()
        };
        equal(problems, &of("the first column"), first(theirs), first(own));
    }
}

fn openssl(dir: &Path, args: &str) {
    let output = Command::new("openssl")
        .args(args.split_whitespace())
        .current_dir(dir)
        .output()
        .expect("openssl runs");
    assert!(
        output.status.success(),
        "openssl {args}: {}",
        stderr(&output)
    );
}

fn certificate(dir: &Path) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject;
    openssl(
        dir,
        "req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=example.test",
    );
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect("written");
    std::fs::write(
        dir.join("identity.pem"),
        read("cert.pem") + &read("key.pem"),
    )
    .expect("written");
    let chain = rustls::pki_types::CertificateDer::pem_file_iter(dir.join("cert.pem"))
        .expect("a certificate")
        .collect::<Result<Vec<_>, _>>()
        .expect("a certificate");
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(dir.join("key.pem")).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a configuration");
    Arc::new(config)
}

#[test]
#[ignore = "needs ab (apache2-utils) and openssl"]
fn ab_beside_the_real_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    std::fs::write(dir.join("body.json"), r#"{"a": [1, 2, 3]}"#).expect("written");
    std::fs::write(dir.join("large.bin"), "b".repeat(300_000)).expect("written");
    let mut problems = Vec::new();
    let plain = Server::start(None);
    for case in PLAIN {
        compare(&mut problems, case, &plain, "http", dir);
    }
    let secure = Server::start(Some(certificate(dir)));
    for case in SECURE {
        compare(&mut problems, case, &secure, "https", dir);
    }
    for line in WRONG {
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let real = run("ab", &[], &args, &plain, dir);
        // A name that cannot be resolved is somebody else's host, too.
        let first: &[&str] = match line.contains("invalid") {
            true => &["load", "ab", "--i-own-this-target"],
            false => &["load", "ab"],
        };
        let ours = run(env!("CARGO_BIN_EXE_nines"), first, &args, &plain, dir);
        equal(
            &mut problems,
            &format!("ab {line}: the exit code"),
            real.code,
            ours.code,
        );
        let first = |text: &str| text.lines().next().unwrap_or("").to_owned();
        let what = format!("ab {line}: the message");
        equal(&mut problems, &what, first(&real.err), first(&ours.err));
    }
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
}

//! Tests of ab: command lines, and runs against servers on this machine.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use tokio_util::sync::CancellationToken;

use super::*;

fn args(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// What a run printed and its exit code.
struct Ran {
    out: String,
    err: String,
    code: u8,
}

fn ran(line: &str) -> Ran {
    let (mut out, mut err) = (String::new(), String::new());
    let stop = CancellationToken::new();
    let code = run(
        &args(line),
        &|_| false,
        &stop,
        &mut |place, text| match place {
            Say::Out => out += text,
            Say::Err => err += text,
        },
    );
    Ran { out, err, code }
}

/// A server that answers each connection with `answer(request, n)`, n from 0, and closes it. The handle ends with the
/// n-th connection and returns the requests.
fn serve(
    connections: usize,
    answer: impl Fn(&str, usize) -> Vec<u8> + Send + 'static,
) -> (SocketAddr, std::thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = std::thread::spawn(move || {
        let mut seen = Vec::new();
        for n in 0..connections {
            let (mut socket, _) = listener.accept().unwrap();
            let mut bytes = [0; 4096];
            let got = socket.read(&mut bytes).unwrap();
            seen.push(String::from_utf8_lossy(&bytes[..got]).into_owned());
            socket.write_all(&answer(&seen[n], n)).unwrap();
        }
        seen
    });
    (address, seen)
}

fn hello() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\nServer: test/1 (x)\r\nContent-Length: 5\r\n\r\nhello".to_vec()
}

#[test]
fn flags_are_read_as_ab_reads_them() {
    let o = parse(&args(
        "-n100x -kc 10 -rqS -s 5 -C a=b -A u:p -P q:r -H X-A:1 -b 4096 -X p:81 127.0.0.1:8080/x?y",
    ))
    .unwrap();
    assert_eq!((o.requests, o.concurrency, o.keep_alive), (100, 10, true));
    assert!(o.keep_going && o.quiet && o.no_confidence);
    assert_eq!(
        (o.window, o.proxy.clone()),
        (4096, Some(("p".to_owned(), 81)))
    );
    assert_eq!(
        (o.url.host.as_str(), o.url.port, o.url.path.as_str()),
        ("127.0.0.1", 8080, "/x?y")
    );
    let request = String::from_utf8(request::bytes(&o, b"").unwrap()).unwrap();
    assert_eq!(
        request,
        "GET 127.0.0.1:8080/x?y HTTP/1.0\r\nConnection: Keep-Alive\r\nCookie: a=b\r\nAuthorization: Basic dTpw\r\n\
         Proxy-Authorization: Basic cTpy\r\nX-A:1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: ApacheBench/2.3\r\nAccept: */*\r\n\r\n"
    );
    assert_eq!(parse(&args("-t 3 http://h/")).unwrap().requests, 50_000);
    assert_eq!(parse(&args("-t 3 -n 7 http://h/")).unwrap().requests, 7);
    let six = parse(&args("https://[::1]/")).unwrap().url;
    assert_eq!(
        (six.host.as_str(), six.port, six.authority.as_str()),
        ("::1", 443, "[::1]")
    );
    let post = parse(&args("-p f -m PATCH -T a/b -H host:x http://h/")).unwrap();
    let request = String::from_utf8(request::bytes(&post, b"abc").unwrap()).unwrap();
    assert!(request.starts_with(
        "PATCH / HTTP/1.0\r\nContent-length: 3\r\nContent-type: a/b\r\nhost:x\r\nUser"
    ));
    assert!(request.ends_with("\r\n\r\nabc"));
}

#[test]
fn what_is_wrong_is_said_in_abs_words() {
    let cases = [
        ("-n 0 http://h/", 1, "Invalid number of requests\n"),
        (
            "-n 2 -c 3 http://h/",
            22,
            "ab: Cannot use concurrency level greater than total number of requests\nUsage: ab",
        ),
        (
            "-n 9 -c -1 http://h/",
            22,
            "ab: Invalid Concurrency [Range 0..200000]\n",
        ),
        (
            "-p a -u b http://h/",
            1,
            "Cannot mix PUT with other methods\n",
        ),
        ("-n", 22, "ab: option requires an argument -- n\n"),
        ("-Q http://h/", 22, "ab: illegal option -- Q\n"),
        ("-k", 22, "ab: wrong number of arguments\n"),
        ("http://h/ -k", 22, "ab: wrong number of arguments\n"),
        ("http://h", 22, "ab: invalid URL\n"),
        ("http://h:0/", 22, "ab: invalid URL\n"),
        (
            "-p /none/there http://h/",
            1,
            "ab: Could not open POST data file (/none/there): No such file or directory\n",
        ),
        ("-h", 22, "Usage: ab [options]"),
        (
            "-f SSL3 https://127.0.0.1:1/",
            1,
            "ab: -f SSL3: only TLS1.2",
        ),
        (
            "-Z nope https://127.0.0.1:1/",
            1,
            "error setting ciphersuite list [nope]\n",
        ),
        (
            "-E /none https://127.0.0.1:1/",
            1,
            "unable to get certificate from '/none'\n",
        ),
        ("http://192.0.2.1/", 2, "ab: 192.0.2.1 is not this machine"),
        (
            "-X 192.0.2.1:3128 http://127.0.0.1/",
            2,
            "ab: 192.0.2.1 is not this machine",
        ),
    ];
    for (line, code, said) in cases {
        let ran = ran(line);
        assert_eq!(ran.code, code, "{line}: {}", ran.err);
        assert!(ran.err.starts_with(said), "{line}: {}", ran.err);
    }
    let version = ran("-V");
    assert_eq!((version.code, version.err.as_str()), (0, ""));
    assert!(
        version
            .out
            .starts_with("This is ApacheBench, Version 2.3 <")
    );
    let all = super::options::atoi;
    assert_eq!(
        [all(" 12x"), all("-3"), all("x"), all("99999999999")],
        [12, -3, 0, i64::from(i32::MAX)]
    );
}

#[test]
fn every_flag_is_in_the_help() {
    let help = ran("-h").err;
    for flag in "nctsbBpuTvwixyzCHAPXVkdSqlgermhIZfE".chars() {
        assert!(help.contains(&format!("\n    -{flag} ")), "-{flag}");
    }
}

#[test]
fn requests_are_counted_exactly_and_files_are_written() {
    let (address, seen) = serve(25, |_, _| hello());
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (g, e) = (file("g"), file("e"));
    let ran = ran(&format!("-n 25 -c 4 -g {g} -e {e} http://{address}/p?q=1"));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let seen = seen.join().unwrap();
    let expected = format!(
        "GET /p?q=1 HTTP/1.0\r\nHost: {address}\r\nUser-Agent: ApacheBench/2.3\r\nAccept: */*\r\n\r\n"
    );
    assert!(seen.iter().all(|request| *request == expected), "{seen:?}");
    for line in [
        "Benchmarking 127.0.0.1 (be patient).....done",
        "Server Software:        test/1",
        "Document Path:          /p?q=1",
        "Document Length:        5 bytes",
        "Concurrency Level:      4",
        "Complete requests:      25",
        "Failed requests:        0",
        "HTML transferred:       125 bytes",
        "              min  mean[+/-sd] median   max",
        "Percentiles with decimals (ms)",
    ] {
        assert!(
            ran.out.lines().any(|l| l == line),
            "{line:?} missing in\n{}",
            ran.out
        );
    }
    let rows: Vec<String> = [g, e]
        .iter()
        .map(|f| std::fs::read_to_string(f).unwrap())
        .collect();
    assert_eq!(
        (rows[0].lines().count(), rows[1].lines().count()),
        (26, 102)
    );
    assert!(rows[0].lines().all(|line| line.split('\t').count() == 6));
    assert!(rows[1].lines().nth(101).unwrap().starts_with("100,"));
}

#[test]
fn answers_that_are_not_whole_have_failed() {
    let (address, _) = serve(4, |_, n| match n {
        0 => Vec::new(),
        1 => hello(),
        2 => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello".to_vec(),
        _ => b"HTTP/1.0 503 x\r\n\r\nhello!".to_vec(),
    });
    let ran = ran(&format!("-n 4 http://{address}/"));
    assert_eq!(ran.code, 0);
    for line in [
        "Complete requests:      4",
        "Failed requests:        3",
        "   (Connect: 0, Receive: 0, Length: 1, Exceptions: 2)",
        "Non-2xx responses:      1",
    ] {
        assert!(
            ran.out.lines().any(|l| l == line),
            "{line:?} missing in\n{}",
            ran.out
        );
    }
}

#[test]
fn a_shut_port_ends_the_run_with_the_errno_or_counts_with_r() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let refused = ran(&format!("-n 5 http://{address}/"));
    assert_eq!(
        (refused.code, refused.err.as_str()),
        (111, "apr_socket_recv: Connection refused (111)\n")
    );
    let on = ran(&format!("-r -n 5 http://{address}/"));
    assert_eq!(on.code, 0);
    assert!(
        on.out.contains(
            "Failed requests:        10\n   (Connect: 0, Receive: 5, Length: 0, Exceptions: 5)\n"
        ),
        "{}",
        on.out
    );
}

#[test]
fn silence_ends_the_run_after_s_and_a_stop_reports() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let silent = ran(&format!("-s 1 -n 5 http://{address}/"));
    assert_eq!(
        (silent.code, silent.err.as_str()),
        (
            119,
            "apr_pollset_poll: The timeout specified has expired (70007)\n"
        )
    );
    let stop = CancellationToken::new();
    stop.cancel();
    let mut out = String::new();
    let code = run(
        &args(&format!("-n 5 http://{address}/")),
        &|_| false,
        &stop,
        &mut |_, text| out += text,
    );
    assert_eq!(code, 1);
    assert!(out.contains("Complete requests:      0\n"), "{out}");
}

#[test]
fn kept_connections_are_used_again_until_the_server_closes_them() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        // Three answers a connection, the last of which says that it closes.
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut bytes = [0; 4096];
            for n in 1..=3 {
                if socket.read(&mut bytes).unwrap() == 0 {
                    break;
                }
                let word = if n == 3 { "close" } else { "keep-alive" };
                let text = format!(
                    "HTTP/1.1 200 OK\r\nConnection: {word}\r\nContent-Length: 5\r\n\r\nhello"
                );
                socket.write_all(text.as_bytes()).unwrap();
            }
        }
    });
    let ran = ran(&format!("-k -n 7 http://{address}/"));
    assert_eq!(ran.code, 0);
    assert!(
        ran.out
            .contains("Failed requests:        0\nKeep-Alive requests:    5\n"),
        "{}",
        ran.out
    );
}

#[test]
fn kept_answers_in_chunks_or_without_a_length_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut bytes = [0; 4096];
            for n in 0.. {
                let got = socket.read(&mut bytes).unwrap();
                if got == 0 {
                    break;
                }
                let chunked = bytes.starts_with(b"GET /chunks");
                let kind = if chunked {
                    "Transfer-Encoding: chunked"
                } else {
                    "X-No: length"
                };
                let head = format!("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n{kind}\r\n\r\n");
                socket.write_all(head.as_bytes()).unwrap();
                if !chunked {
                    socket.write_all(b"hello").unwrap();
                    break;
                }
                socket.write_all(b"5\r\nhel").unwrap();
                std::thread::sleep(std::time::Duration::from_millis(n % 3));
                socket.write_all(b"lo\r\n0\r\n\r\n").unwrap();
            }
        }
    });
    let chunks = ran(&format!("-k -n 9 http://{address}/chunks"));
    for line in [
        "Failed requests:        0",
        "Keep-Alive requests:    9",
        "HTML transferred:       135 bytes",
    ] {
        assert!(
            chunks.out.lines().any(|l| l == line),
            "{line:?} missing in\n{}",
            chunks.out
        );
    }
    let closed = ran(&format!("-k -n 3 http://{address}/closed"));
    for line in [
        "Failed requests:        0",
        "Keep-Alive requests:    0",
        "HTML transferred:       15 bytes",
    ] {
        assert!(
            closed.out.lines().any(|l| l == line),
            "{line:?} missing in\n{}",
            closed.out
        );
    }
}

#[test]
fn tables_are_html_and_escaped() {
    let (address, _) = serve(2, |_, _| hello());
    let ran = ran(&format!("-n 2 -x border=1 -y a -z b http://{address}/<&>"));
    assert!(
        ran.out.starts_with("<p>\n This is ApacheBench"),
        "{}",
        ran.out
    );
    for line in [
        "<table border=1>",
        "<tr a><th colspan=2 b>Document Path:</th><td colspan=2 b>/&lt;&amp;&gt;</td></tr>",
        "<tr a><th colspan=2 b>Complete requests:</th><td colspan=2 b>2</td></tr>",
        "</table>",
    ] {
        assert!(
            ran.out.lines().any(|l| l == line),
            "{line:?} missing in\n{}",
            ran.out
        );
    }
}

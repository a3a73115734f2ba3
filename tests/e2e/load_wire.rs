//! `nines load` as its user meets it: how requests travel, what is refused and in which words, Ctrl-C, the terminal left
//! alone, the run on the Load screen.
//!
//! Owns small servers of its own. Must not know how connections are made.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::running::{Agent, nines, stderr, stdout};

/// Answers every request after a while with its own head as body.
fn echo(after: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(stream, after));
        }
    });
    url
}

fn answer(mut stream: TcpStream, after: Duration) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n) = stream.read(&mut buffer)
        && n > 0
    {
        head.extend_from_slice(&buffer[..n]);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        std::thread::sleep(after);
        let basic = String::from_utf8_lossy(&head).contains("authorization: Basic dTpw");
        let status = if basic { 202 } else { 200 };
        let text = format!("HTTP/1.1 {status} OK\r\ncontent-length: 2\r\n\r\nok");
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
        head.clear();
    }
}

fn spawn(args: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_nines"))
        .args(args)
        .env_remove("NINES_URL")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary starts")
}

/// A run that took place: valid, or not on a machine that was too busy to keep the schedule.
fn took_place(code: Option<i32>) -> bool {
    matches!(code, Some(0 | 3))
}

fn interrupt(child: &Child) {
    let sent = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.expect("kill is installed").success());
}

#[test]
fn ctrl_c_drains_and_reports_and_a_second_one_stops_at_once() {
    let url = echo(Duration::from_millis(300));
    let args = ["load", "rate", "--rate", "20", "--duration", "10m", &url];
    let child = spawn(&args);
    std::thread::sleep(Duration::from_millis(1500));
    interrupt(&child);
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
    assert!(took_place(output.status.code()), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(
        text.contains("stopped before its end") && text.contains("200:"),
        "{text}"
    );
    assert!(
        text.contains("unsent 0") && text.contains("errors 0"),
        "what was under way ended: {text}"
    );
    let told = stderr(&output);
    assert!(
        told.starts_with("stopping:") && told.lines().count() == 1,
        "{told:?}"
    );
    assert!(!told.contains('\r') && !told.contains('\x1b') && !text.contains('\x1b'));

    // A server that never answers: the first waits, the second does not.
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}", hanging.local_addr().expect("an address"));
    let child = spawn(&[
        "load",
        "closed",
        "--timeout",
        "5m",
        "--duration",
        "10m",
        &url,
    ]);
    std::thread::sleep(Duration::from_millis(1000));
    interrupt(&child);
    std::thread::sleep(Duration::from_millis(500));
    interrupt(&child);
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(10));
    assert_eq!(output.status.code(), Some(130));
    assert!(stderr(&output).contains("Ctrl-C again"));
}

#[test]
fn options_that_exclude_each_other_are_refused_by_name() {
    let refused = |args: &[&str], words: &[&str]| {
        let mut all = vec!["load", "closed", "--requests", "1"];
        all.extend(args);
        let output = nines(&all);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            stdout(&output)
        );
        let text = stderr(&output);
        assert!(words.iter().all(|w| text.contains(w)), "{args:?}: {text}");
    };
    let http = "http://127.0.0.1:1";
    refused(&["--streams", "4", http], &["--http2"]);
    refused(
        &["--http2", "--streams", "2000", http],
        &["2000 streams", "1 to 1000"],
    );
    refused(&["--cert", "x.pem", http], &["--key"]);
    refused(
        &["--cacert", "/none.pem", "https://127.0.0.1:1"],
        &["/none.pem"],
    );
    refused(
        &["--cacert", "/etc/hostname", http],
        &["https", "the target is http"],
    );
    refused(&["--cacert", "x", "-k", http], &["--cacert", "--insecure"]);
    refused(
        &["--unix-socket", "/x", "--proxy", http, http],
        &["--unix-socket", "--proxy"],
    );
    refused(&["--proxy", "socks5://h:1", http], &["--proxy", "socks5"]);
    refused(
        &["--connect-to", "h:1", "--resolve", "127.0.0.1", http],
        &["--connect-to", "--resolve"],
    );
    refused(
        &["--connect-to", "nonsense", http],
        &["--connect-to", "HOST:PORT"],
    );
    refused(&["--redirect-hosts", http], &["--redirects"]);
    refused(
        &["--pipeline", "4", "--http2", http],
        &["--pipeline", "--http2"],
    );
    refused(
        &["--pipeline", "4", "--cookies", http],
        &["pipeline", "cookies"],
    );
    refused(
        &["--no-keepalive", "--requests-per-connection", "3", http],
        &["--no-keepalive"],
    );
    refused(
        &["--body", "x", "--body-file", "/etc/hostname", http],
        &["--body", "--body-file"],
    );
    refused(&["--body-file", "/none", http], &["/none"]);
    refused(&["--body-file", "/", http], &["not a regular file"]);
    refused(&["--url-weight", "x", http], &["--url-weight", "3=/search"]);
    refused(
        &[
            "--connections",
            "60000",
            "--http2",
            "--streams",
            "100",
            http,
        ],
        &["65,536"],
    );
    let hard = Command::new("sh")
        .args(["-c", "ulimit -n 512 && exec \"$0\" load closed --connections 4000 --requests 1 http://127.0.0.1:1"])
        .arg(env!("CARGO_BIN_EXE_nines"))
        .output()
        .unwrap();
    assert_eq!(hard.status.code(), Some(2));
    let text = stderr(&hard);
    assert!(
        text.contains("4000 connections need 4064 open files") && text.contains("512"),
        "{text}"
    );
}

/// Runs what follows under a filter by which the kernel refuses `io_uring_setup` (number 425 everywhere) with EPERM, as a
/// container's seccomp profile does: `seccomp(2)`.
const REFUSING: &str = r#"
import ctypes, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
step = lambda code, k, jt=0, jf=0: struct.pack("HBBI", code, jt, jf, k)
program = step(0x20, 0) + step(0x15, 425, 0, 1) + step(0x06, 0x00050001) + step(0x06, 0x7FFF0000)
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
filter = Program(len(program) // 8, program)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(filter), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"#;

#[cfg(target_os = "linux")]
#[test]
#[ignore = "needs python3"]
fn a_refusing_kernel_gets_epoll() {
    let server = echo(Duration::ZERO);
    let run = |engine: &str| {
        Command::new("python3")
            .args([
                "-c",
                REFUSING,
                env!("CARGO_BIN_EXE_nines"),
                "load",
                "closed",
            ])
            .args([
                "-c", "2", "-n", "50", "-o", "-", "--engine", engine, &server,
            ])
            .env_remove("NINES_URL")
            .output()
            .unwrap()
    };
    let auto = run("auto");
    let report: serde_json::Value = serde_json::from_slice(&auto.stdout).unwrap();
    let nines = &report["nines"];
    assert_eq!(nines["engine"], "epoll");
    assert_eq!(
        (&nines["responses"], &nines["valid"]),
        (&50.into(), &true.into())
    );
    let named = run("io_uring");
    assert_eq!(named.status.code(), Some(2));
    let text = stderr(&named);
    assert!(
        text.contains("io_uring") && text.contains("not permitted"),
        "{text}"
    );
}

#[test]
fn processors_are_kept_awake_and_the_report_says_so_or_the_run_is_refused() {
    let server = echo(Duration::ZERO);
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("s.yml").display().to_string();
    let phases = "phases: [{duration: 1, arrivalRate: 9}]";
    let flow = "scenarios: [{flow: [{get: {url: /}}]}]";
    std::fs::write(
        &script,
        format!("config: {{target: \"{server}\", {phases}}}\n{flow}\n"),
    )
    .unwrap();
    let json = folder.path().join("r.json").display().to_string();
    let wide_awake = ["--keep-awake", "-o", &json];
    let rate = ["load", "rate", "-R", "20", "-d", "1s", &server];
    let run = ["load", "run", &script];
    let may = std::fs::File::options()
        .write(true)
        .open("/dev/cpu_dma_latency");
    for args in [&rate[..], &run] {
        let output = nines(&[args, &wide_awake].concat());
        let text = stderr(&output);
        if may.is_err() {
            assert_eq!(output.status.code(), Some(2), "{text}");
            let words = [
                "keep the processors awake: /dev/cpu_dma_latency",
                "leave --keep-awake out",
            ];
            assert!(words.iter().all(|w| text.contains(w)), "{text}");
            continue;
        }
        assert!(took_place(output.status.code()), "{text}");
        let report: serde_json::Value =
            serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
        assert_eq!(report["nines"]["client"]["kept_awake"], true);
    }
}

#[test]
fn other_peoples_hosts_need_a_statement() {
    let run = |args: &[&str], setting: Option<&str>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nines"));
        command.args(["load", "rate", "--duration", "50ms", "--timeout", "100ms"]);
        command.args(args).env_remove("NINES_URL");
        match setting {
            Some(hosts) => command.env("NINES_I_OWN_THIS_TARGET", hosts),
            None => command.env_remove("NINES_I_OWN_THIS_TARGET"),
        };
        let output = command.output().unwrap();
        (output.status.code(), stderr(&output))
    };
    // A name that never resolves (RFC 2606): nothing is sent to anybody.
    let far = "http://host.invalid/";
    let (code, text) = run(&["--rate", "101", far], None);
    assert_eq!(code, Some(2));
    assert!(
        text.contains("--i-own-this-target") && text.contains("NINES_I_OWN_THIS_TARGET"),
        "{text}"
    );
    let began = |args: &[&str], setting| took_place(run(args, setting).0);
    assert!(began(&["--rate", "100", far], None));
    assert!(began(&["--rate", "101", "--i-own-this-target", far], None));
    let named = Some("a.test, host.invalid");
    assert!(began(&["--rate", "101", far], named));
    assert!(!began(&["--rate", "101", far], Some("other.invalid")));
    // The other front ends read the same setting.
    let script = tempfile::NamedTempFile::with_suffix(".yml").unwrap();
    let text = format!(
        "config: {{ target: '{far}', phases: [{{ duration: 1, arrivalRate: 101 }}] }}\nscenarios: [{{ flow: [{{ get: {{ url: / }} }}] }}]\n"
    );
    std::fs::write(script.path(), text).unwrap();
    let path = script.path().to_str().unwrap();
    let capacity = "capacity --slo p99<1s --max-rate 200 --max-duration 5s --step 1s";
    let mut search: Vec<&str> = capacity.split(' ').collect();
    search.push(far);
    let others: [&[&str]; 4] = [
        &["ab", "-n", "1", far],
        &["quick", "-c", "1", "-n", "1", far],
        &["run", path],
        &search,
    ];
    for args in others {
        for (hosts, refused) in [("other.invalid", true), ("a.test,host.invalid", false)] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_nines"));
            command.arg("load").args(args).env_remove("NINES_URL");
            let output = command.env("NINES_I_OWN_THIS_TARGET", hosts).output();
            let text = stderr(&output.unwrap());
            let told = text.contains("NINES_I_OWN_THIS_TARGET=host.invalid");
            assert_eq!(told, refused, "{args:?} {hosts}: {text}");
        }
    }
    // What counts is where packets go.
    let near = echo(Duration::ZERO);
    let addr = near.trim_start_matches("http://");
    assert!(began(&["--rate", "101", "--connect-to", addr, far], None));
    let away = ["--rate", "101", "--connect-to", "host.invalid:80", &near];
    assert!(!began(&away, None));
}

#[test]
fn users_passwords_and_weights_reach_the_server() {
    let url = echo(Duration::ZERO);
    let with_user = url.replace("http://", "http://u:p@");
    for args in [vec![with_user.as_str()], vec!["-u", "u:p", url.as_str()]] {
        let mut all = vec![
            "load",
            "closed",
            "--requests",
            "40",
            "--connections",
            "2",
            "--seed",
            "7",
        ];
        all.extend(["--url-weight", "3=/other"]);
        all.extend(&args);
        let output = nines(&all);
        let text = stdout(&output);
        assert!(text.contains("202: 40"), "{text}{}", stderr(&output));
        assert!(!text.contains("u:p"), "no password in the report: {text}");
        assert!(text.contains("/other"), "{text}");
        assert_eq!(stderr(&output), "", "nothing without a terminal");
    }
}

#[test]
fn a_run_is_seen_on_the_load_screen() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), &[]);
    let url = echo(Duration::ZERO);
    let output = nines(&[
        "load",
        "rate",
        "--rate",
        "50",
        "--duration",
        "3s",
        "--run-id",
        "seen-run",
        "--agent",
        &agent.url,
        &url,
    ]);
    assert!(took_place(output.status.code()), "{}", stderr(&output));
    assert!(
        !stderr(&output).contains("do not reach"),
        "{}",
        stderr(&output)
    );
    let screen = nines(&["top", "--once", "--screen", "load", "--url", &agent.url]);
    let text = stdout(&screen);
    assert!(text.contains("seen-run"), "{text}{}", stderr(&screen));
}

//! A started `nines` process that ends with the test.
//!
//! Owns starting, waiting until ready, and stopping by pid. Must not know what is asked of the process.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// Runs the binary to its end.
pub fn nines(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_nines"))
        .args(args)
        .env_remove("NINES_URL")
        .stdin(Stdio::null())
        .output()
        .expect("the binary starts")
}

/// Standard output as text.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// An agent on free ports in its own folder.
pub struct Agent {
    child: Child,
    /// Its base URL.
    pub url: String,
    /// What it has printed since.
    lines: mpsc::Receiver<String>,
}

impl Agent {
    /// Starts one and waits until it says where it answers.
    pub fn start(dir: &std::path::Path, more: &[&str]) -> Agent {
        let data = dir.join("data");
        let mut child = Command::new(env!("CARGO_BIN_EXE_nines"))
            .args([
                "agent",
                "--listen",
                "127.0.0.1:0",
                "--otlp-grpc",
                "127.0.0.1:0",
                "--otlp-http",
                "127.0.0.1:0",
            ])
            .arg("--data-dir")
            .arg(&data)
            .args(more)
            .current_dir(dir)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = child.stderr.take().expect("standard error is piped");
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    return;
                }
            }
        });
        let mut agent = Agent {
            child,
            url: String::new(),
            lines,
        };
        // Warnings may come before.
        let mut first = agent.line();
        while !first.contains(" on http://") {
            first = agent.line();
        }
        let at = first.find("http://").unwrap_or_default();
        agent.url = first[at..].trim().to_owned();
        agent
    }

    /// The most memory that it has had so far, bytes.
    pub fn peak_resident_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("the agent runs");
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        kib.expect("a size in kB") * 1024
    }

    /// The next line it prints.
    pub fn line(&self) -> String {
        self.lines
            .recv_timeout(Duration::from_secs(30))
            .expect("the agent prints a line")
    }

    /// Asks it to end, as `kill` does, and waits until it has.
    pub fn stop(mut self) {
        let sent = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        assert!(sent.expect("kill is installed").success());
        let ended = self.child.wait().expect("the agent ends");
        assert_eq!(ended.code(), Some(0), "the agent ends well");
    }

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().expect("the agent is killed");
        self.child.wait().expect("the agent ends");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A reference backend on free ports, without rate limits.
pub struct Backend {
    child: Child,
    /// Its base URL.
    pub url: String,
}

impl Backend {
    /// Starts one as in the demo and waits until it says where it answers.
    pub fn start() -> Backend {
        Backend::with(&["--demo"])
    }

    /// The same with other flags.
    pub fn with(flags: &[&str]) -> Backend {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nines"))
            .arg("backend")
            .args(flags)
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let stderr = child.stderr.take().expect("standard error is piped");
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // Read on when nobody listens, so that the pipe does not fill.
                let _ = send.send(line);
            }
        });
        let mut backend = Backend {
            child,
            url: String::new(),
        };
        while backend.url.is_empty() {
            let line = lines
                .recv_timeout(Duration::from_secs(30))
                .expect("the backend says where it answers");
            if let Some(at) = line.find("http://") {
                let word = line[at..].split_whitespace().next();
                backend.url = word.unwrap_or_default().to_owned();
            }
        }
        backend
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

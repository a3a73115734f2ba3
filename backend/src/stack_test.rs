//! Tests only (included by two binaries, each of which uses a part): real servers of `backend/stack` in a private directory on free ports, taken down when dropped.

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

pub(crate) struct Stack {
    dir: tempfile::TempDir,
    env: HashMap<String, String>,
}

impl Stack {
    /// Starts some of `nginx`, `haproxy`, `redis`, `postgres`, `rabbitmq` (comma-separated).
    pub(crate) fn up(only: &str) -> Self {
        Self::up_with(only, &[])
    }

    /// The same with more of the script's options.
    pub(crate) fn up_with(only: &str, more: &[&str]) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("nines-parts.")
            .tempdir_in("/tmp")
            .unwrap();
        let base = free_base().to_string();
        let mut words = vec!["up", "--only", only, "--base", &base];
        words.extend(more);
        let done = run(dir.path(), &words);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "backend/stack up failed: {said}");
        let text = std::fs::read_to_string(dir.path().join("env")).unwrap();
        let env = text
            .lines()
            .filter_map(|l| l.split_once('='))
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
            .collect();
        Self { dir, env }
    }

    /// A variable of the stack's file `env`.
    pub(crate) fn variable(&self, name: &str) -> Option<String> {
        self.env.get(name).cloned()
    }

    pub(crate) fn env(&self, name: &str) -> &str {
        &self.env[name]
    }

    pub(crate) fn fault(&self, name: &str) {
        let done = run(self.dir.path(), &["fault", name]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "backend/stack fault {name}: {said}");
    }

    /// Kills one part at once: the session of the pid that the stack wrote down (a shell may stand before the server).
    pub(crate) fn kill(&self, name: &str) {
        let file = std::fs::read_to_string(self.dir.path().join("pids").join(name)).unwrap();
        let leader = file.split_whitespace().next().unwrap();
        let listed = Command::new("ps")
            .args(["-o", "pid=", "-s", leader])
            .output()
            .unwrap();
        let pids = String::from_utf8(listed.stdout).unwrap();
        let pids: Vec<&str> = pids.split_whitespace().collect();
        assert!(pids.contains(&leader), "{name} does not run");
        let done = Command::new("kill")
            .arg("-KILL")
            .args(pids)
            .status()
            .unwrap();
        assert!(done.success(), "kill {name}");
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        run(self.dir.path(), &["down"]);
    }
}

fn run(dir: &Path, words: &[&str]) -> Output {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("stack");
    // Output goes to files: the servers inherit no pipe that a reader would have to wait for.
    let err = dir.join("script.err");
    let status = Command::new(script)
        .args(words)
        .arg("--dir")
        .arg(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&err).unwrap())
        .status()
        .unwrap();
    Output {
        status,
        stdout: Vec::new(),
        stderr: std::fs::read(&err).unwrap_or_default(),
    }
}

/// A port below the ephemeral range from which on sixty are free at this moment.
fn free_base() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..150 {
        let n = std::process::id().wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let base = 10_000 + (n % 300) as u16 * 60;
        if (base..base + 60).all(|p| TcpListener::bind(("127.0.0.1", p)).is_ok()) {
            return base;
        }
    }
    panic!("no free range of ports");
}

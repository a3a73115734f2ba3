//! A file system that is really full: what is acknowledged stays, the rest is refused and said, and it passes by itself.
//!
//! Owns the mount, in a mount namespace of its own, so that nothing of it outlives the test's process, and a sender that
//! remembers what was acknowledged. Must not know how the store writes.

#![allow(clippy::unwrap_used, reason = "in a test a panic is the answer")]
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use client::{Client, ClientError};
use model::{Labels, QueryData};

use super::remote::now_ms;
use super::running::Agent;

/// Set in the process that may mount.
const INSIDE: &str = "NINES_TEST_MOUNTS";
const SERIES: usize = 200;
const STEP_MS: i64 = 10;

/// A small file system of its own; goes with the namespace, or with this.
struct Mount {
    dir: PathBuf,
}

impl Mount {
    fn new(dir: &Path, mebibytes: u32) -> Result<Mount, Output> {
        let output = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={mebibytes}m"),
                "nines-test",
            ])
            .arg(dir)
            .output()
            .expect("mount is installed");
        match output.status.success() {
            true => Ok(Mount { dir: dir.into() }),
            false => Err(output),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}

/// Runs the test named `name` where it may mount: in a namespace of its own. False when this process is that one.
fn in_own_namespace(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return false;
    }
    let allowed = |flags: &str| {
        let tried = Command::new("unshare").args([flags, "true"]).output();
        tried.is_ok_and(|o| o.status.success())
    };
    let flags = ["-m", "-rm"].into_iter().find(|flags| allowed(flags));
    let flags = flags.expect(
        "cannot mount a small file system: be root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone=1)",
    );
    let output = Command::new("unshare")
        .arg(flags)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare is installed");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    print!("{text}");
    true
}

/// Fills the file system with a file.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    for size in [64 << 10, 4 << 10, 256, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
}

/// Sends tick after tick, and remembers what became of each.
struct Sender {
    runtime: tokio::runtime::Runtime,
    base_ms: i64,
    next: i64,
    acknowledged: Vec<i64>,
    refused: Vec<i64>,
    /// Ticks whose answer did not come.
    unknown: Vec<i64>,
}

/// Values that take nine bytes in the log.
fn value(tick: i64, series: usize) -> f64 {
    (tick as f64 + series as f64 / 7.0).sqrt()
}

impl Sender {
    fn tick(&mut self, url: &str) -> Result<(), ClientError> {
        let tick = self.next;
        self.next += 1;
        let all: Vec<_> = (0..SERIES)
            .map(|i| {
                let labels =
                    Labels::from_pairs([("__name__", "ticks".to_owned()), ("i", i.to_string())]);
                (
                    labels,
                    vec![(self.base_ms + tick * STEP_MS, value(tick, i))],
                )
            })
            .collect();
        let client = Client::new(url);
        let answer = self.runtime.block_on(client.remote_write(&all));
        match &answer {
            Ok(_) => self.acknowledged.push(tick),
            Err(ClientError::Refused { .. }) => self.refused.push(tick),
            Err(_) => self.unknown.push(tick),
        }
        answer.map(|_| ())
    }

    fn ticks(&mut self, url: &str, count: usize) {
        for _ in 0..count {
            self.tick(url).unwrap();
        }
    }

    /// Sends until a tick is refused, for half a minute at most.
    fn until_refused(&mut self, url: &str) -> ClientError {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            match self.tick(url) {
                Err(error) => return error,
                Ok(()) => assert!(Instant::now() < deadline, "nothing was refused"),
            }
        }
    }

    /// Every acknowledged tick is there in full, and nothing of a refused one.
    fn check(&self, url: &str) {
        let client = Client::new(url);
        let found = self
            .runtime
            .block_on(client.query("ticks[1h]", now_ms() + 60_000));
        let QueryData::Matrix(found) = found.unwrap() else {
            panic!("no matrix")
        };
        assert_eq!(found.len(), SERIES);
        for series in found {
            let i: usize = series.labels.get("i").unwrap().parse().unwrap();
            let points = &series.points;
            let there: BTreeMap<i64, f64> = points
                .t_ms
                .iter()
                .copied()
                .zip(points.values.iter().copied())
                .collect();
            for tick in &self.acknowledged {
                let at = self.base_ms + tick * STEP_MS;
                assert_eq!(there.get(&at), Some(&value(*tick, i)), "tick {tick} of {i}");
            }
            for tick in &self.refused {
                assert_eq!(
                    there.get(&(self.base_ms + tick * STEP_MS)),
                    None,
                    "tick {tick}"
                );
            }
            let most = self.acknowledged.len() + self.unknown.len();
            assert!(there.len() <= most, "{} of {most}", there.len());
        }
    }

    fn metric(&self, url: &str, name: &str) -> f64 {
        let text = self.runtime.block_on(async {
            let answer = reqwest::get(format!("{url}/metrics")).await.unwrap();
            answer.text().await.unwrap()
        });
        let line = text
            .lines()
            .find(|l| !l.starts_with('#') && l.contains(name));
        let line = line.unwrap_or_else(|| panic!("no {name} in {text}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

/// The agent's next line with these words.
fn said(agent: &Agent, words: &str) -> String {
    loop {
        let line = agent.line();
        if line.contains(words) {
            return line;
        }
    }
}

#[test]
#[ignore = "mounts a file system"]
fn disk_full_refuses_says_so_and_passes() {
    if in_own_namespace("disk_full::disk_full_refuses_says_so_and_passes") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mount = Mount::new(dir.path(), 24)
        .map_err(|o| String::from_utf8_lossy(&o.stderr).into_owned())
        .expect("a tmpfs is mounted: be root, or allow user namespaces");
    let ballast = mount.dir.join("ballast");
    let config = mount.dir.join("agent.yaml");
    std::fs::write(&config, "alerts: {pack: false}\n").unwrap();
    let start = || Agent::start(&mount.dir, &["--config", config.to_str().unwrap()]);
    let mut sender = Sender {
        runtime: tokio::runtime::Runtime::new().unwrap(),
        base_ms: now_ms() - 600_000,
        next: 0,
        acknowledged: Vec::new(),
        refused: Vec::new(),
        unknown: Vec::new(),
    };

    let agent = start();
    sender.ticks(&agent.url, 50);
    assert_eq!(sender.metric(&agent.url, "store_full"), 0.0);

    // It fills up while samples come.
    let filling = {
        let ballast = ballast.clone();
        std::thread::spawn(move || fill(&ballast))
    };
    let error = sender.until_refused(&agent.url);
    filling.join().unwrap();
    let ClientError::Refused {
        kind,
        message,
        status,
    } = &error
    else {
        panic!("{error:?}")
    };
    assert_eq!((*status, kind.as_str()), (503, "unavailable"), "{message}");
    assert!(
        error.is_retryable() && message.contains("no space left"),
        "{message}"
    );
    let line = said(&agent, "refuses samples");
    assert!(line.contains("no space left"), "{line}");
    let refusals = 20;
    for _ in 0..refusals {
        sender.tick(&agent.url).unwrap_err();
    }
    assert_eq!(sender.metric(&agent.url, "store_full"), 1.0);
    assert!(sender.metric(&agent.url, "store_refused_full") > f64::from(refusals));
    sender.check(&agent.url);

    // There is room again: nobody does anything about it.
    std::fs::remove_file(&ballast).unwrap();
    sender.ticks(&agent.url, 50);
    assert_eq!(sender.metric(&agent.url, "store_full"), 0.0);
    said(&agent, "takes samples again");
    sender.check(&agent.url);

    // Killed while it is full, started while it is full.
    fill(&ballast);
    sender.until_refused(&agent.url);
    agent.kill();
    let agent = start();
    sender.check(&agent.url);
    sender.until_refused(&agent.url);
    std::fs::remove_file(&ballast).unwrap();
    sender.ticks(&agent.url, 50);
    sender.check(&agent.url);

    // And once more with room.
    agent.kill();
    let agent = start();
    sender.check(&agent.url);
    sender.ticks(&agent.url, 1);
    println!(
        "{} ticks of {SERIES} series acknowledged and found, {} refused and not found",
        sender.acknowledged.len(),
        sender.refused.len()
    );
    agent.kill();
}

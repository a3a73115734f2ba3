//! The servers: started in a private folder on a private port, measured from /proc, stopped by their own process id.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Outcome;
use crate::http::Client;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Nines,
    Prometheus,
    VictoriaMetrics,
}

impl Which {
    pub const ALL: [Which; 3] = [Which::Nines, Which::Prometheus, Which::VictoriaMetrics];

    pub fn name(self) -> &'static str {
        match self {
            Which::Nines => "nines",
            Which::Prometheus => "prometheus",
            Which::VictoriaMetrics => "victoria-metrics",
        }
    }
}

/// A running server; it is killed, and its folder removed, when this goes.
pub struct Server {
    which: Which,
    child: Child,
    addr: SocketAddr,
    dir: PathBuf,
}

/// A scrape of `target` every `every`.
pub struct Scrape {
    pub target: SocketAddr,
    pub every: &'static str,
}

impl Server {
    pub fn start(which: Which, nines: &Path, scrape: Option<Scrape>) -> Outcome<Server> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let addr: SocketAddr = ([127, 0, 0, 1], port).into();
        let dir = std::env::temp_dir().join(format!("nines-bench-{}-{port}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let mut command = command(which, nines, addr, &dir, scrape)?;
        let log = fs::File::create(dir.join("log"))?;
        let child = command
            .stdout(log.try_clone()?)
            .stderr(Stdio::from(log))
            .spawn()?;
        let mut server = Server {
            which,
            child,
            addr,
            dir,
        };
        server.wait_ready()?;
        Ok(server)
    }

    fn wait_ready(&mut self) -> Outcome<()> {
        let path = match self.which {
            Which::VictoriaMetrics => "/health",
            _ => "/-/ready",
        };
        let begun = Instant::now();
        loop {
            if self.client().and_then(|mut c| c.get(path)).is_ok() {
                return Ok(());
            }
            if begun.elapsed() > Duration::from_secs(30) || self.child.try_wait()?.is_some() {
                let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
                return Err(format!("{} did not become ready:\n{log}", self.which.name()).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn client(&self) -> Outcome<Client> {
        Client::connect(self.addr)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// CPU seconds of the process so far, user and system, all threads.
    pub fn cpu(&self) -> Outcome<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let field = |n: usize| -> f64 {
            after
                .split_whitespace()
                .nth(n)
                .and_then(|v| v.parse().ok())
                .unwrap_or(0.0)
        };
        Ok((field(11) + field(12)) / 100.0)
    }

    pub fn resident(&self) -> Outcome<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))
            .unwrap_or("0 kB");
        Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
    }

    /// Sends one remote write body.
    pub fn write(client: &mut Client, body: &[u8]) -> Outcome<()> {
        let headers = "Content-Type: application/x-protobuf\r\nContent-Encoding: snappy\r\n\
             X-Prometheus-Remote-Write-Version: 0.1.0\r\n";
        client.post("/api/v1/write", headers, body).map(drop)
    }

    /// Makes what was written visible to queries.
    pub fn settle(&self) -> Outcome<()> {
        if self.which == Which::VictoriaMetrics {
            self.client()?.get("/internal/force_flush")?;
        }
        Ok(())
    }

    /// Asks for an orderly end and waits for it. The folder stays until this goes.
    pub fn stop(&mut self) -> Outcome<()> {
        Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn command(
    which: Which,
    nines: &Path,
    addr: SocketAddr,
    dir: &Path,
    scrape: Option<Scrape>,
) -> Outcome<Command> {
    let config = dir.join("config.yaml");
    let data = dir.join("data");
    let scrape_config = |scrape: &Scrape| {
        format!(
            "scrape_configs:\n- job_name: bench\n  scrape_interval: {0}\n  scrape_timeout: {0}\n  static_configs:\n  - targets: ['{1}']\n",
            scrape.every, scrape.target
        )
    };
    let mut command;
    match which {
        Which::Nines => {
            let mut text = format!(
                "listen: {addr}\notlp_grpc: off\notlp_http: off\ndata_dir: {}\nself_interval: off\n\
                 alerts: {{pack: false}}\ncollect:\n  host: {{enabled: false}}\n",
                data.display()
            );
            if let Some(scrape) = &scrape {
                text.push_str(&format!(
                    "  scrape:\n  - job: bench\n    interval: {0}\n    timeout: {0}\n    targets: ['{1}']\n",
                    scrape.every, scrape.target
                ));
            }
            fs::write(&config, text)?;
            command = Command::new(nines);
            command.arg("agent").arg("--config").arg(&config);
        }
        Which::Prometheus => {
            fs::write(&config, scrape.as_ref().map_or("{}".into(), scrape_config))?;
            command = Command::new("prometheus");
            command
                .arg(format!("--config.file={}", config.display()))
                .arg(format!("--storage.tsdb.path={}", data.display()))
                .arg(format!("--web.listen-address={addr}"))
                .args([
                    "--web.enable-remote-write-receiver",
                    "--web.enable-admin-api",
                ]);
        }
        Which::VictoriaMetrics => {
            command = Command::new("victoria-metrics");
            command
                .arg(format!("-storageDataPath={}", data.display()))
                .arg(format!("-httpListenAddr={addr}"))
                .args([
                    "-retentionPeriod=10y",
                    "-search.latencyOffset=0s",
                    "-search.maxUniqueTimeseries=1000000",
                ]);
            if let Some(scrape) = &scrape {
                fs::write(&config, scrape_config(scrape))?;
                command.arg(format!("-promscrape.config={}", config.display()));
            }
        }
    }
    Ok(command)
}

/// Bytes of all files below a folder.
pub fn bytes_below(dir: &Path) -> u64 {
    let mut sum = 0;
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        sum += match entry.metadata() {
            Ok(m) if m.is_dir() => bytes_below(&path),
            Ok(m) => m.len(),
            Err(_) => 0,
        };
    }
    sum
}

//! Targets of a scrape job: static ones and those of `file_sd` files, read again when a file changes.
//!
//! Owns which target tasks run. Must not know how a target is scraped. A file that cannot be read keeps the targets it
//! had, as Prometheus does.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::config::ScrapeJob;
use super::scrape::{self, TargetConfig};
use crate::ingest::Ingest;

/// How often files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// The largest file that is read.
const MAX_FILE_BYTES: u64 = 4 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

/// Runs a job until `shutdown`: one task for each target.
pub(super) async fn run_job(job: ScrapeJob, ingest: Ingest, shutdown: CancellationToken) {
    let fixed: Vec<(String, String)> = job.labels.clone().into_iter().collect();
    let fixed: Vec<TargetConfig> = job
        .targets
        .iter()
        .map(|t| TargetConfig::new(&job, t, &fixed))
        .collect();
    let mut files: Vec<Watched> = job.files.iter().map(|_| Watched::default()).collect();
    let mut running: HashMap<String, Running> = HashMap::new();
    let mut look = tokio::time::interval(LOOK);
    loop {
        for (path, file) in job.files.iter().zip(&mut files) {
            file.refresh(&job, path).await;
        }
        let wanted: Vec<&TargetConfig> = fixed
            .iter()
            .chain(files.iter().flat_map(|f| &f.targets))
            .collect();
        running.retain(|_, r| {
            let keep = wanted.contains(&&r.target);
            if !keep {
                r.gone.cancel();
            }
            keep
        });
        for target in wanted {
            running
                .entry(format!("{} {:?}", target.url, target.labels))
                .or_insert_with(|| {
                    let gone = shutdown.child_token();
                    let run = scrape::run(
                        target.clone(),
                        ingest.clone(),
                        gone.clone(),
                        shutdown.clone(),
                    );
                    Running {
                        target: target.clone(),
                        gone,
                        task: tokio::spawn(run),
                    }
                });
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = look.tick(), if !job.files.is_empty() => {}
        }
    }
    for (_, running) in running {
        let _ = running.task.await;
    }
}

struct Running {
    target: TargetConfig,
    gone: CancellationToken,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Watched {
    stamp: Option<(SystemTime, u64)>,
    targets: Vec<TargetConfig>,
}

// === impl Watched ===

impl Watched {
    async fn refresh(&mut self, job: &ScrapeJob, path: &Path) {
        let Ok(meta) = tokio::fs::metadata(path).await else {
            self.stamp = None;
            return;
        };
        let stamp = meta.modified().ok().map(|at| (at, meta.len()));
        if stamp == self.stamp && stamp.is_some() {
            return;
        }
        if meta.len() > MAX_FILE_BYTES {
            tracing::warn!(path = %path.display(), "the target file is longer than {MAX_FILE_BYTES} bytes; its targets stay as they were");
            self.stamp = stamp;
            return;
        }
        let Ok(text) = tokio::fs::read_to_string(path).await else {
            return;
        };
        self.stamp = stamp;
        match parse(job, path, &text) {
            Ok(targets) => self.targets = targets,
            Err(e) => {
                tracing::warn!(path = %path.display(), error = %e, "the target file cannot be read; its targets stay as they were")
            }
        }
    }
}

/// The targets of a `file_sd` file; JSON when its name ends so, YAML otherwise.
fn parse(job: &ScrapeJob, path: &Path, text: &str) -> Result<Vec<TargetConfig>, String> {
    let groups: Vec<Group> = if path.extension().is_some_and(|e| e == "json") {
        serde_json::from_str(text).map_err(|e| e.to_string())?
    } else {
        serde_saphyr::from_str(text).map_err(|e| e.to_string())?
    };
    let own: Vec<(String, String)> = job.labels.clone().into_iter().collect();
    let mut targets = Vec::new();
    for group in groups {
        let labels: Vec<(String, String)> = own.iter().cloned().chain(group.labels).collect();
        targets.extend(
            group
                .targets
                .iter()
                .map(|t| TargetConfig::new(job, t, &labels)),
        );
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_and_yaml_groups_give_the_same_targets() {
        let job = ScrapeJob {
            job: "j".into(),
            ..ScrapeJob::default()
        };
        let json = r#"[{"targets":["a:1","b:2"],"labels":{"env":"x","__metrics_path__":"/m"}}]"#;
        let yaml = "- targets: ['a:1', 'b:2']\n  labels:\n    env: x\n    __metrics_path__: /m\n";
        let from_json = parse(&job, Path::new("t.json"), json).unwrap();
        assert_eq!(from_json, parse(&job, Path::new("t.yml"), yaml).unwrap());
        assert_eq!(from_json[1].url, "http://b:2/m");
        assert_eq!(
            from_json[1].labels.to_string(),
            r#"{env="x", instance="b:2", job="j"}"#
        );
        let error = parse(&job, Path::new("t.yml"), "- target: [a]\n").unwrap_err();
        assert!(error.contains("line 1"), "{error}");
    }
}

//! `--beside URL` of `nines load rate|closed`: the same load on a second target at the same time, to compare with.
//!
//! Owns its flags, the second plan, and the watch over one or two runs. Must not know how pairs are compared.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use loadgen::compare::SECONDS;
use loadgen::{Plan, Progress};
use tokio::sync::watch::Receiver;

use super::load::{path_at, target};
use super::load_request::{RequestFlags, authorize, refused};
use super::load_series::Writers;
use crate::console::usage;

/// A comparison needs so many measured seconds.
const LEAST: Duration = Duration::from_secs(SECONDS as u64);

/// A second target.
#[derive(Debug, Default, ClapArgs)]
#[command(next_help_heading = "Beside each other")]
pub struct BesideFlags {
    /// Drive this URL at the same time in the same way, such as the old build, and compare with it in pairs of seconds: what
    /// disturbs this machine disturbs both and cancels. What is worse than there breaks the gate. Without a path: the same
    #[arg(long, value_name = "URL", conflicts_with_all = ["shard", "baseline", "connect_to", "unix_socket", "resolve"])]
    beside: Option<String>,

    /// Write the JSON report of the run beside it here
    #[arg(long, value_name = "FILE", requires = "beside")]
    beside_output: Option<PathBuf>,
}

/// The run beside it: its plan, and where its report goes.
pub type Second = (Plan, Option<PathBuf>);

impl BesideFlags {
    /// The plan beside this one, which must not have its own URL's credentials yet.
    pub fn plan(&self, plan: &Plan, request: &RequestFlags) -> anyhow::Result<Option<Second>> {
        let Some(url) = &self.beside else {
            return Ok(None);
        };
        long_enough(plan.duration, "--duration is")?;
        if self
            .beside_output
            .as_ref()
            .is_some_and(|p| p.as_os_str() == "-")
        {
            return Err(usage(
                "--beside-output is a file; standard output has the other run's",
            ));
        }
        let named = |e: anyhow::Error| usage(format!("--beside: {e}"));
        let theirs = target(url).map_err(named)?;
        let mut beside = plan.beside(&theirs.target);
        beside.own_target = request.owns(&beside.target);
        // Targets of a file and what a log holds have paths of their own; a URL that names none means this one's.
        if !plan.in_turn && plan.recorded.is_empty() && names_path(url) {
            for (request, theirs) in beside.requests.iter_mut().zip(theirs.requests) {
                (request.name, request.path) = (theirs.name, theirs.path);
            }
        }
        authorize(&mut beside, url);
        beside.check().map_err(|e| named(refused(e)))?;
        Ok(Some((beside, self.beside_output.clone())))
    }
}

/// Refuses a run that is too short to be compared; `what` is so long.
pub fn long_enough(length: Duration, what: &str) -> anyhow::Result<()> {
    if length >= LEAST {
        return Ok(());
    }
    Err(usage(format!(
        "--beside compares second by second and needs {SECONDS} of them: {what} {:.1} s",
        length.as_secs_f64()
    )))
}

/// Whether anything follows the host.
fn names_path(url: &str) -> bool {
    let (url, _) = loadgen::transport::take_userinfo(url);
    path_at(&url) < url.len()
}

/// Shows the runs' progress and sends their series, until both are over.
pub async fn watch(
    mut seen: [Receiver<Progress>; 2],
    mut writers: Writers,
    mut show: impl FnMut(&[Progress; 2]),
) {
    let mut now = [Progress::default(), Progress::default()];
    let mut open = [true; 2];
    while open != [false; 2] {
        let [first, second] = &mut seen;
        let (run, more) = tokio::select! {
            more = first.changed(), if open[0] => (0, more),
            more = second.changed(), if open[1] => (1, more),
        };
        if more.is_err() {
            open[run] = false;
            continue;
        }
        now[run] = seen[run].borrow_and_update().clone();
        let series = std::mem::take(&mut now[run].series);
        if run == 0 {
            show(&now);
        }
        writers.send(series).await;
    }
    writers.finish().await;
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_url_without_a_path_means_the_other_ones() {
        for (url, named) in [
            ("http://127.0.0.1:8081", false),
            ("http://user:pass@127.0.0.1:8081", false),
            ("127.0.0.1:8081", false),
            ("http://127.0.0.1:8081/", true),
            ("http://[::1]:8081?x=1", true),
        ] {
            assert_eq!(super::names_path(url), named, "{url}");
        }
    }
}

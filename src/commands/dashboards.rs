//! `nines dashboards`: write the Grafana dashboards and provisioning files, or ask a server every query of them.
//!
//! Owns its flags. Must not know what a dashboard shows.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::reach::{Reach, Remote, clean};
use crate::console::{CommandResult, Outcome, block_on, now_ms, print};

/// Flags of `nines dashboards`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Write the files below this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// Ask every query of every panel once; exit code 3 when one fails or has no series
    #[arg(long, conflicts_with = "out")]
    verify: bool,

    /// Window of rates and quantiles in --verify
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1m",
        requires = "verify"
    )]
    window: String,

    #[command(flatten)]
    reach: Reach,

    #[command(flatten)]
    remote: Remote,
}

/// Lists the dashboards, or writes their files.
pub fn run(args: Args) -> CommandResult {
    if args.verify {
        return verify(&args);
    }
    let Some(out) = args.out else {
        for board in dashboards::all() {
            print(&format!(
                "{:<16} {} panels\n",
                board.name,
                board.panels.len()
            ))?;
        }
        print("write the Grafana files with --out DIR\n")?;
        return Ok(Outcome::Good);
    };
    for (path, text) in dashboards::grafana::files() {
        let path = out.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&path, text)?;
        print(&format!("{}\n", path.display()))?;
    }
    Ok(Outcome::Good)
}

fn verify(args: &Args) -> CommandResult {
    crate::console::duration_ms(&args.window)?;
    let client = args.remote.client_or(&args.reach);
    let now = now_ms();
    let (mut asked, mut silent) = (0, 0);
    let result = block_on(async {
        for board in dashboards::all() {
            for panel in &board.panels {
                for query in &panel.queries {
                    asked += 1;
                    let text = query.promql(&args.window);
                    let problem = match client.query(&text, now).await {
                        Ok(data) if data.first_float().is_some() => continue,
                        Ok(_) => "no series".to_owned(),
                        Err(error) if error.is_retryable() => return Err(error.into()),
                        Err(error) => clean(&error.to_string()),
                    };
                    silent += 1;
                    let (board, title) = (&board.name, &panel.title);
                    print(&format!("{board} / {title}: {problem}\n    {text}\n"))?;
                }
            }
        }
        Ok(())
    });
    result?;
    let answered = asked - silent;
    print(&format!("{answered} of {asked} queries have an answer\n"))?;
    let good = silent == 0;
    Ok(if good { Outcome::Good } else { Outcome::Gate })
}

//! `nines dashboards`: write the Grafana dashboards and provisioning files.
//!
//! Owns its flags. Must not know what a dashboard shows.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::console::{CommandResult, Outcome, print};

/// Flags of `nines dashboards`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Write the files below this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Lists the dashboards, or writes their files.
pub fn run(args: Args) -> CommandResult {
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

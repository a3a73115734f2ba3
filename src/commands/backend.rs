//! `nines backend`: run the reference backend until Ctrl-C.
//!
//! Owns its flags. Must not know what the backend does.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use crate::cli::Shared;
use crate::console::{CommandResult, Outcome, block_on, note, print, read_file, stop_token, usage};

/// Flags of `nines backend`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Settings as YAML; docs/backend.md lists them
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where clients connect [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,

    /// Where faults are set and the truth is read [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,

    /// Send spans and logs to this OTLP/gRPC endpoint, such as http://127.0.0.1:4317
    #[arg(long, value_name = "URL")]
    otlp: Option<String>,

    /// Keep the database here instead of in a folder that is removed at the end
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Realistic latencies and no rate limits, as in `nines demo`
    #[arg(long)]
    demo: bool,

    /// Print the settings with every default and stop
    #[arg(long)]
    check: bool,
}

/// Runs until told to stop.
pub fn run(args: Args, shared: Shared) -> CommandResult {
    let mut settings = match &args.config {
        Some(path) => {
            let (name, text) = read_file(path)?;
            serde_saphyr::from_str(&text).map_err(|e| usage(format!("{name}: {}", e.render())))?
        }
        None if args.demo => backend::Settings {
            listen: "127.0.0.1:8080".into(),
            admin: "127.0.0.1:8081".into(),
            ..backend::Settings::demo()
        },
        None => backend::Settings::default(),
    };
    if let Some(listen) = args.listen {
        settings.listen = listen;
    }
    if let Some(admin) = args.admin {
        settings.admin = admin;
    }
    if args.otlp.is_some() {
        settings.otlp_endpoint = args.otlp;
    }
    if args.data_dir.is_some() {
        settings.data_dir = args.data_dir;
    }
    settings.check().map_err(usage)?;
    if args.check {
        print(&super::reach::json(&settings)?)?;
        return Ok(Outcome::Good);
    }
    block_on(async {
        let stop = stop_token();
        let running = backend::start(settings).await?;
        if !shared.quiet {
            note(&format!(
                "backend: http://{} (metrics at /metrics)",
                running.front_addr
            ));
            note(&format!(
                "backend: faults and truth on http://{}/admin; Ctrl-C stops",
                running.admin_addr
            ));
        }
        stop.cancelled().await;
        running.shutdown().await;
        Ok(Outcome::Good)
    })
}

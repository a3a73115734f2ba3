//! `nines backend`: run the reference backend until Ctrl-C.
//!
//! Owns its flags. Must not know what the backend does.

use std::path::PathBuf;

use backend::settings::{Role, Split};
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

    /// Embedded parts, or Redis, PostgreSQL and RabbitMQ behind the same handlers
    #[arg(long, value_enum, value_name = "MODE")]
    mode: Option<Mode>,

    /// Real mode with the addresses in this file (`backend/stack up` writes it: DIR/env) instead of the variables
    /// NINES_REDIS_URL, NINES_PG_PRIMARY, NINES_AMQP_URL, ...
    #[arg(long, value_name = "FILE", conflicts_with = "demo")]
    stack_env: Option<PathBuf>,

    /// Roles of this process, commas between: gateway, user, product, order, payment, notification, task, worker; or all
    #[arg(long, value_name = "ROLES", default_value = "all")]
    role: String,

    /// Where a role that is not of this process is, such as product=http://127.0.0.1:8090; may be given again
    #[arg(long, value_name = "ROLE=URL")]
    peer: Vec<String>,

    /// Where role product answers gRPC [default: a free port]
    #[arg(long, value_name = "ADDR")]
    inventory_listen: Option<String>,

    /// Where role order finds product's gRPC, such as http://127.0.0.1:8095
    #[arg(long, value_name = "URL")]
    inventory: Option<String>,

    /// Realistic latencies and no rate limits, as in `nines demo`
    #[arg(long)]
    demo: bool,

    /// Print the settings with every default and stop
    #[arg(long)]
    check: bool,
}

/// What the backend keeps its data in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Embedded,
    Real,
}

/// The real servers, when the flags ask for them.
fn real(args: &Args) -> anyhow::Result<Option<backend::settings::Real>> {
    if let Some(path) = &args.stack_env {
        if args.mode == Some(Mode::Embedded) {
            return Err(usage(
                "--mode embedded and --stack-env contradict each other",
            ));
        }
        let (name, text) = read_file(path)?;
        let real = backend::settings::Real::from_env_file(&name, &text).map_err(usage)?;
        return Ok(Some(real));
    }
    if args.mode == Some(Mode::Real) {
        let variable = |name: &str| std::env::var(name).ok();
        let real = backend::settings::Real::from_variables(variable).map_err(usage)?;
        return Ok(Some(real));
    }
    Ok(None)
}

/// The role of this name.
fn role(name: &str) -> anyhow::Result<Role> {
    let name = name.trim();
    serde_json::from_value(name.into()).map_err(|_| {
        usage(format!(
            "`{name}` is no role; expected gateway, user, product, order, payment, notification, task, worker or all"
        ))
    })
}

/// The roles of this process and where the others are; `None` when all are here.
fn split(args: &Args) -> anyhow::Result<Option<Split>> {
    if args.role == "all" {
        let extra = !args.peer.is_empty() || args.inventory.is_some();
        if extra {
            return Err(usage(
                "--peer and --inventory need --role: with all roles here there is no peer",
            ));
        }
        return Ok(None);
    }
    let mut split = Split {
        roles: args.role.split(',').map(role).collect::<Result<_, _>>()?,
        inventory_listen: args.inventory_listen.clone().unwrap_or_default(),
        inventory_url: args.inventory.clone(),
        ..Split::default()
    };
    for peer in &args.peer {
        let (name, url) = peer.split_once('=').ok_or_else(|| {
            usage(format!(
                "--peer `{peer}` is not ROLE=URL, such as product=http://127.0.0.1:8090"
            ))
        })?;
        split.peers.insert(role(name)?, url.to_owned());
    }
    Ok(Some(split))
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
    if let Some(real) = real(&args)? {
        settings.real = Some(real);
    } else if args.mode == Some(Mode::Embedded) {
        settings.real = None;
    }
    if let Some(mut split) = split(&args)? {
        // The stack's instances are gateways; another role listens where it is told.
        if let Some(real) = settings
            .real
            .as_mut()
            .filter(|_| !split.roles.contains(&Role::Gateway))
        {
            real.fronts.clear();
        }
        if let Some(set) = settings.split.take() {
            split.peers.extend(set.peers);
        }
        settings.split = Some(split);
    }
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
    let shows_inventory = settings
        .split
        .as_ref()
        .is_some_and(|s| s.roles.contains(&Role::Product));
    block_on(async {
        let stop = stop_token();
        let running = backend::start(settings).await?;
        if !shared.quiet {
            note(&format!(
                "backend: http://{} (metrics at /metrics)",
                running.front_addr
            ));
            if shows_inventory {
                note(&format!(
                    "backend: gRPC Inventory on http://{}",
                    running.inventory_addr
                ));
            }
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

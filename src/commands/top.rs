//! `nines top`: the terminal; one frame, JSON or Markdown without one.
//!
//! Owns its flags. Must not know how screens are drawn.

use clap::Args as ClapArgs;

use super::reach::{Reach, Remote, json};
use crate::console::{CommandResult, Outcome, block_on, duration_ms, print, usage};

/// Flags of `nines top`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// The screen to begin with: a name or a digit
    #[arg(long, default_value = "overview")]
    screen: String,

    /// Print one frame and stop (also without a terminal)
    #[arg(long)]
    once: bool,

    /// Print data instead of a screen
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Width of a printed frame
    #[arg(long, default_value_t = 120)]
    width: u16,

    /// Height of a printed frame
    #[arg(long, default_value_t = 36)]
    height: u16,

    /// dark, light, high-contrast, colour-blind or mono
    #[arg(long, default_value = "dark")]
    theme: String,

    /// Colours: auto, off, 16 or 256
    #[arg(long, default_value = "auto")]
    palette: String,

    /// No character beyond ASCII, whatever the locale says
    #[arg(long)]
    ascii: bool,

    /// All characters, whatever the locale says
    #[arg(long, conflicts_with = "ascii")]
    unicode: bool,

    /// Leave the mouse to the terminal
    #[arg(long)]
    no_mouse: bool,

    /// Do not offer to acknowledge and to silence
    #[arg(long)]
    read_only: bool,

    /// Who acknowledges and silences, unless another name is typed
    #[arg(long, env = "USER", default_value = "", hide_env_values = true)]
    author: String,

    /// Where `x` and `X` write files
    #[arg(long, default_value = ".", value_name = "DIR")]
    export_dir: std::path::PathBuf,

    /// How far back lines, traces and records go
    #[arg(long, default_value = "15m", value_name = "DURATION")]
    range: String,

    /// Window of rates and quantiles
    #[arg(long, default_value = "1m", value_name = "DURATION")]
    window: String,

    /// Ask this often
    #[arg(long, default_value = "1s", value_name = "DURATION")]
    refresh: String,

    #[command(flatten)]
    reach: Reach,

    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The frame as text
    Text,
    /// The data as JSON
    Json,
    /// The data as Markdown
    Md,
}

/// Runs the terminal, or prints.
pub fn run(args: Args) -> CommandResult {
    let screen = tui::Screen::named(&args.screen).ok_or_else(|| {
        usage(format!(
            "--screen {:?} is no screen; try {}",
            args.screen,
            screens()
        ))
    })?;
    let theme = tui::Theme::named(&args.theme).ok_or_else(|| {
        let names: Vec<&str> = tui::Theme::ALL.iter().map(|t| t.name()).collect();
        usage(format!(
            "--theme {:?} is none of {}",
            args.theme,
            names.join(", ")
        ))
    })?;
    let palette = tui::Palette::named(&args.palette).ok_or_else(|| {
        usage(format!(
            "--palette {:?} is none of auto, off, 16, 256",
            args.palette
        ))
    })?;
    duration_ms(&args.window)?;
    let refresh = duration_ms(&args.refresh)?.clamp(100, 3_600_000);
    let (base_url, token) = match &args.remote.source {
        Some(url) => (url, &args.remote.source_token),
        None => (&args.reach.url, &args.reach.token),
    };
    let options = tui::TuiOptions {
        base_url: base_url.clone(),
        token: token.clone(),
        refresh: std::time::Duration::from_millis(refresh.unsigned_abs()),
        theme: theme.from_env(),
        palette,
        ascii: args.ascii,
        locale: !args.unicode,
        no_mouse: args.no_mouse,
        read_only: args.read_only,
        author: args.author.clone(),
        export_dir: args.export_dir.clone(),
        range_ms: duration_ms(&args.range)?.clamp(10_000, 30 * 86_400_000),
        window: args.window.clone(),
        screen,
        ..tui::TuiOptions::default()
    };
    if args.format.is_none() && !args.once && tui::is_terminal() {
        let status = block_on(async { Ok(tui::run(options).await?) })?;
        return Ok(outcome(status));
    }
    let shot = block_on(async { Ok(tui::snapshot(options, screen).await?) })?;
    match args.format.unwrap_or(Format::Text) {
        Format::Text => print(&shot.text(args.width, args.height))?,
        Format::Json => print(&json(&shot.json())?)?,
        Format::Md => print(&shot.markdown())?,
    }
    Ok(outcome(shot.exit_status()))
}

fn outcome(status: tui::ExitStatus) -> Outcome {
    if status.pages {
        Outcome::Gate
    } else {
        Outcome::Good
    }
}

fn screens() -> String {
    let names = tui::Screen::ALL.iter().map(|s| s.title().to_lowercase());
    names.collect::<Vec<_>>().join(", ")
}

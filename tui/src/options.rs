//! What a caller can choose, and what comes back.
//!
//! Owns options, exit status and errors. Must not know the command line.

use std::time::Duration;

use model::slo::{SloAlert, SloStatus};

use crate::palette::Palette;
use crate::screen::Screen;
use crate::theme::Theme;

/// Options of [`crate::run`] and [`crate::snapshot`].
#[derive(Debug, Clone)]
pub struct TuiOptions {
    /// The agent, such as `http://127.0.0.1:9909`.
    pub base_url: String,
    /// Bearer token.
    pub token: Option<String>,
    /// Distance of two fetches; at least 100 ms.
    pub refresh: Duration,
    /// Colours. [`Theme::from_env`] obeys `NO_COLOR`.
    pub theme: Theme,
    /// Which colours the terminal has.
    pub palette: Palette,
    /// Only ASCII characters.
    pub ascii: bool,
    /// Only ASCII characters also where the locale is not UTF-8.
    pub locale: bool,
    /// Leave the mouse to the terminal.
    pub no_mouse: bool,
    /// Hide what changes something on the agent: acknowledging and silencing.
    pub read_only: bool,
    /// Who acknowledges and silences, unless another name is typed.
    pub author: String,
    /// The folder in which exported files are written.
    pub export_dir: std::path::PathBuf,
    /// A line below the tabs, such as `time scale 60x: 5 m is 5 s`.
    pub notice: Option<String>,
    /// Window of rates, as a Prometheus duration.
    pub window: String,
    /// How far back charts look, milliseconds.
    pub range_ms: i64,
    /// The first screen.
    pub screen: Screen,
    /// What makes this program's waits differ from others', such as the process id.
    pub seed: u64,
}

impl Default for TuiOptions {
    fn default() -> Self {
        TuiOptions {
            base_url: "http://127.0.0.1:9909".into(),
            token: None,
            refresh: Duration::from_secs(1),
            theme: Theme::Dark,
            palette: Palette::Auto,
            ascii: false,
            locale: true,
            no_mouse: false,
            read_only: false,
            author: String::new(),
            export_dir: ".".into(),
            notice: None,
            window: "1m".into(),
            range_ms: 15 * 60_000,
            screen: Screen::Overview,
            seed: u64::from(std::process::id()),
        }
    }
}

/// How the objectives stood at the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ExitStatus {
    /// Whether an SLO's page fires.
    pub pages: bool,
}

// === impl ExitStatus ===

impl ExitStatus {
    /// The status of these objectives.
    #[must_use]
    pub fn of(slos: &[SloStatus]) -> Self {
        ExitStatus {
            pages: slos.iter().any(|s| s.alert == SloAlert::Page),
        }
    }

    /// The process' exit code: 3 if any SLO pages, else 0.
    #[must_use]
    pub fn code(self) -> u8 {
        if self.pages { 3 } else { 0 }
    }
}

/// Why there is no screen.
#[derive(Debug, thiserror::Error)]
pub enum TuiError {
    /// Standard output or input is not a terminal that can be drawn on.
    #[error(
        "not a terminal: print one frame with `nines top --once`, or the data with `--format json`"
    )]
    NotATerminal,
    /// The terminal cannot be used.
    #[error("terminal: {0}")]
    Terminal(#[from] std::io::Error),
    /// The agent did not answer.
    #[error(transparent)]
    Agent(#[from] client::ClientError),
}

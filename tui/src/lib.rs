//! The terminal: screens over the agent's API.
//!
//! ```text
//! keys, ticks, answers ─▶ update(App, Event) ─▶ effects ─▶ run: client, terminal
//!                              │
//!                              └─▶ view(App, Frame)
//! ```
//!
//! Owns keys, state, screens and widgets. `update` and `view` are pure: the time comes in events. Must not know how the
//! agent computes an answer; only [`run`] and [`snapshot`] touch a terminal, a clock or the network.

mod app;
mod data;
mod dialog;
mod export;
mod fetch;
#[doc(hidden)]
pub mod fixture;
mod format;
mod heat;
mod keymap;
mod options;
mod output;
mod palette;
mod pen;
mod run;
mod screen;
mod snapshot;
mod sort;
mod theme;
mod view;

pub use app::{App, Effect, Event, Link, Mode, Painted, Pick, Request, update};
pub use data::{Board, Data, Line, LoadRun, PanelData, Percentile, Red, Sampled, Use};
pub use dialog::{Accepted, Dialog, Field, Purpose};
pub use heat::Heat;
pub use keymap::{Action, Binding, KEYMAP, Scope, markdown as keys_markdown};
pub use options::{ExitStatus, TuiError, TuiOptions};
pub use palette::{Palette, locale_is_ascii};
pub use run::{is_terminal, run};
pub use screen::Screen;
pub use snapshot::{Snapshot, snapshot};
pub use sort::Sort;
pub use theme::Theme;
pub use view::{draw, view};

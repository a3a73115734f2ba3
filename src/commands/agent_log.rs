//! Where the agent's own log lines and spans go: lines to standard error, spans to `own_spans`.
//!
//! Owns which lines are shown (`NINES_LOG`). Must not know what is said in them.

use agent::own_spans::OwnSpans;
use tracing_subscriber::filter::{EnvFilter, LevelFilter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::console::usage;

/// Levels by module, as `tracing_subscriber`'s `EnvFilter` reads them.
const VARIABLE: &str = "NINES_LOG";

/// Our own warnings, and errors of whoever.
const USUAL: &str = "error,agent=warn,alerts=warn,store=warn";

/// Shows log lines from now on, and sends the agent's own spans to `own_spans`: the sender is to be shut down at the
/// end. Must be called within a runtime, once.
pub fn start(own_spans: Option<&str>, quiet: bool) -> anyhow::Result<Option<OwnSpans>> {
    let filter = filter(std::env::var(VARIABLE).ok().as_deref(), quiet)?;
    let spans = own_spans.map(OwnSpans::start).transpose()?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false);
    tracing_subscriber::registry()
        .with(spans.as_ref().map(OwnSpans::layer))
        .with(lines.with_filter(filter))
        .try_init()?;
    Ok(spans)
}

fn filter(text: Option<&str>, quiet: bool) -> anyhow::Result<EnvFilter> {
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::ERROR.into());
    match text {
        Some(text) if !text.is_empty() => builder.parse(text).map_err(|e| {
            usage(format!(
                "{VARIABLE} is {text:?}: {e}; write a level (warn), or levels by module (error,agent=info)"
            ))
        }),
        _ if quiet => Ok(builder.parse_lossy("error")),
        _ => Ok(builder.parse_lossy(USUAL)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_read_or_refused() {
        let shown = |text, quiet| filter(text, quiet).map(|f| f.to_string());
        assert!(shown(None, false).unwrap().contains("agent=warn"));
        assert_eq!(shown(Some(""), true).unwrap(), "error");
        assert_eq!(shown(Some("agent=debug"), true).unwrap(), "agent=debug");
        let error = shown(Some("agent=loud"), false).unwrap_err().to_string();
        assert!(error.contains("NINES_LOG is \"agent=loud\""), "{error}");
    }
}

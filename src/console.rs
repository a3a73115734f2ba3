//! What every command shares of the outside world: exit codes, printing, colour, the clock, Ctrl-C, the runtime.
//!
//! Owns the documented exit codes. Must not know any command.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

/// How a command ended. Scripts rely on the numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// 0: good.
    Good,
    /// 1: the tool failed.
    Failed,
    /// 2: the command line or a file it names is wrong.
    Usage,
    /// 3: a gate or an SLO failed.
    Gate,
    /// Another program's exit code that we keep for its users' scripts.
    Other(u8),
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        match outcome {
            Outcome::Good => ExitCode::SUCCESS,
            Outcome::Failed => ExitCode::from(1),
            Outcome::Usage => ExitCode::from(2),
            Outcome::Gate => ExitCode::from(3),
            Outcome::Other(code) => ExitCode::from(code),
        }
    }
}

/// What a command returns: an outcome, or an error to print.
pub type CommandResult = anyhow::Result<Outcome>;

/// An error of usage: a wrong flag, or a file with a mistake. Exit code 2.
#[derive(Debug)]
pub struct UsageError(pub String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// An error of usage, ready for `?`.
pub fn usage(text: impl Into<String>) -> anyhow::Error {
    anyhow::Error::new(UsageError(text.into()))
}

/// A file that the command line names: its name for messages, and its text. A file that cannot be read is an error of
/// usage.
pub fn read_file(path: &std::path::Path) -> anyhow::Result<(String, String)> {
    let name = path.display().to_string();
    let text =
        std::fs::read_to_string(path).map_err(|e| usage(format!("cannot read {name}: {e}")))?;
    Ok((name, text))
}

/// As [`read_file`]; `-` is standard input.
pub fn read_file_or_stdin(path: &std::path::Path) -> anyhow::Result<(String, String)> {
    if path != std::path::Path::new("-") {
        return read_file(path);
    }
    let text = std::io::read_to_string(std::io::stdin().lock())
        .map_err(|e| usage(format!("cannot read standard input: {e}")))?;
    Ok(("standard input".to_owned(), text))
}

/// A duration of the command line, in milliseconds. What is not one is an error of usage.
pub fn duration_ms(text: &str) -> anyhow::Result<i64> {
    model::duration::parse_ms(text).map_err(|e| usage(e.to_string()))
}

/// rustls wants one process-wide provider before the first TLS or HTTP client.
pub fn install_tls_provider() {
    // An error means that one is installed already, which is what we want.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// Writes to standard output. A reader that went away (`| head`) is no error.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Writes a line to standard error; failure to do so has nobody to be told to.
pub fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes text to standard error as it is, without a newline of its own.
pub fn note_raw(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Whether a person looks at standard output and error.
pub fn is_terminal() -> bool {
    let both = std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    both && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// Now, Unix milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Runs a future to its end on a multi-threaded runtime.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

/// A token that is cancelled by Ctrl-C or SIGTERM. A second one ends the process at once, with the exit code that a
/// shell gives to one ended by that signal (130 or 143). Must be called within a runtime.
pub fn stop_token() -> CancellationToken {
    let token = CancellationToken::new();
    let stop = token.clone();
    tokio::spawn(async move {
        let mut terminate =
            match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
                Ok(signal) => signal,
                Err(_) => return,
            };
        let kind = tokio::signal::unix::SignalKind::interrupt();
        let Ok(mut interrupt) = tokio::signal::unix::signal(kind) else {
            return;
        };
        let mut told = async || {
            tokio::select! {
                _ = interrupt.recv() => 130,
                _ = terminate.recv() => 143,
            }
        };
        told().await;
        stop.cancel();
        let code = told().await;
        #[expect(
            clippy::disallowed_methods,
            reason = "whoever asks twice wants no destructor to be waited for"
        )]
        std::process::exit(code);
    });
    token
}

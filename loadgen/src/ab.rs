//! Owns the ab drop-in: ApacheBench's command line, its closed loop of HTTP/1.0 requests, its report, files and exit codes.
//! Must not know the terminal: what is to be printed is handed to the caller, piece by piece.
//!
//! One thread, one poll loop (`ab/client.rs`): first one connection, and once it was answered all the others, as in ab.

mod client;
mod column;
mod files;
mod head;
mod html;
mod options;
mod report;
mod request;
mod secure;
mod tally;
mod wire;

use tokio_util::sync::CancellationToken;

pub use options::{Method, Options, parse};

/// ApacheBench's version whose command line and report are followed.
pub const FOLLOWS: &str = "2.3";

/// Where a piece of output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Say {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// Why a command line or a run ended early: what to say on standard error, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{said}")]
pub struct AbError {
    /// The whole text, its newlines included.
    pub said: String,
    /// 0 for `-V`, 22 for a wrong command line, the errno of a socket error (modulo 256), else 1.
    pub code: u8,
    /// True when `said` belongs on standard output.
    pub on_stdout: bool,
}

impl AbError {
    fn new(code: u8, said: impl Into<String>) -> AbError {
        AbError {
            said: said.into(),
            code,
            on_stdout: false,
        }
    }

    /// A socket error as ab words it: `what: text (number)`; the exit code is the number modulo 256.
    fn system(what: &str, text: &str, number: i32) -> AbError {
        AbError::new((number % 256) as u8, format!("{what}: {text} ({number})\n"))
    }
}

/// Runs ab: reads `args` (without the program's name), sends, reports, writes the files of `-e` and `-g`. `owned` says
/// whether a host off this machine is the user's. Returns the exit code.
///
/// Blocks the calling thread until the run ends or `stop` is cancelled; then what was counted is reported with code 1.
pub fn run(
    args: &[String],
    owned: &dyn Fn(&str) -> bool,
    stop: &CancellationToken,
    say: &mut dyn FnMut(Say, &str),
) -> u8 {
    match whole(args, owned, stop, say) {
        Ok(code) => code,
        Err(error) => {
            let place = if error.on_stdout { Say::Out } else { Say::Err };
            say(place, &error.said);
            error.code
        }
    }
}

fn whole(
    args: &[String],
    owned: &dyn Fn(&str) -> bool,
    stop: &CancellationToken,
    say: &mut dyn FnMut(Say, &str),
) -> Result<u8, AbError> {
    let options = parse(args)?;
    let body = match &options.method {
        Method::Post(path) | Method::Put(path) => read_body(path)?,
        _ => Vec::new(),
    };
    options.may_run(owned)?;
    let security = match options.url.tls {
        true => Some(secure::Security::new(&options)?),
        false => None,
    };
    say(Say::Out, &report::banner(options.html.is_some()));
    let request = request::bytes(&options, &body)?;
    if options.html.is_none() {
        say(Say::Out, &report::beginning(&options));
    }
    if options.verbosity >= 2 {
        say(Say::Out, &request::shown(&options, &request, body.len()));
    }
    let (tally, interrupted) = client::drive(&options, request, security, stop, say)?;
    if !interrupted {
        match options.progress_every() {
            Some(_) => say(Say::Err, &format!("Finished {} requests\n", tally.done)),
            None => say(Say::Out, "..done\n"),
        }
    }
    match &options.html {
        Some(attributes) if !interrupted => {
            say(Say::Out, &html::table(&options, attributes, &tally))
        }
        _ => say(Say::Out, &report::text(&options, &tally)),
    }
    files::write(&options, &tally)?;
    Ok(u8::from(interrupted))
}

fn read_body(path: &str) -> Result<Vec<u8>, AbError> {
    std::fs::read(path).map_err(|e| {
        let why = os_text(&e);
        AbError::new(
            1,
            format!("ab: Could not open POST data file ({path}): {why}\n"),
        )
    })
}

/// The system's words for an error, without Rust's "(os error N)".
fn os_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests;

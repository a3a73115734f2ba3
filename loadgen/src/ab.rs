//! Owns the ab drop-in: ab's command line, a closed loop of HTTP/1.0 requests, ab's report.
//! Must not know the terminal: everything is returned as text.

mod column;
mod options;
mod report;
mod run;

pub use options::{Method, Options, parse};
pub use report::{AbReport, Sample};
pub use run::run;

use crate::LoadError;
use crate::conn::ErrorKind;

/// Why ab's command line or run ended early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AbError {
    /// `-h` or `-V`: the text to print; not a failure.
    #[error("{0}")]
    Info(String),
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// A flag ab has and this does not.
    #[error("take -{flag}: not supported ({why})")]
    Unsupported {
        /// The flag's letter.
        flag: char,
        /// Why, or what to use.
        why: &'static str,
    },
    /// The body file could not be read.
    #[error("read {path:?}: {why}")]
    File {
        /// The file.
        path: String,
        /// The system's message.
        why: String,
    },
    /// A socket failed and `-r` was not given, or ten dials in a row failed.
    #[error("go on after {done} completed requests: {detail}")]
    Aborted {
        /// What failed.
        kind: ErrorKind,
        /// The system's message.
        detail: String,
        /// Requests completed before.
        done: u64,
    },
    /// The target cannot be used.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl AbError {
    /// The process exit code: 0 for help, 22 for usage errors (as ab), the errno for socket errors, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            AbError::Info(_) => 0,
            AbError::Usage(_) | AbError::Unsupported { .. } => 22,
            AbError::Aborted { kind, .. } => match kind {
                ErrorKind::Refused => 111,
                ErrorKind::Reset => 104,
                ErrorKind::Timeout => 119,
                ErrorKind::Unreachable => 113,
                _ => 1,
            },
            AbError::File { .. } | AbError::Load(_) => 1,
        }
    }
}

#[cfg(test)]
mod tests;

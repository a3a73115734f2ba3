//! What can go wrong when the agent starts. Must not know how it is printed.

use std::io;

/// Why the agent did not start. Messages fit after "failed to start the agent:".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AgentError {
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address} for {what}: {reason}; set `{setting}` ({flag}) to another address{off}"
    )]
    Listen {
        /// The address as configured.
        address: String,
        /// What would have listened there.
        what: &'static str,
        /// What the system said, in words.
        reason: String,
        /// The setting to change.
        setting: &'static str,
        /// The flag to change.
        flag: &'static str,
        /// A hint that it can be turned off, or empty.
        off: &'static str,
    },
    /// An address beyond loopback without a token.
    #[error(
        "{address} is reachable from other machines; set `token` (or `token_file`) so that `{setting}` is protected, or listen on 127.0.0.1"
    )]
    Unprotected {
        /// The address as configured.
        address: String,
        /// The setting.
        setting: &'static str,
    },
    /// The store could not be opened.
    #[error("cannot open the data folder: {0}")]
    Store(#[from] store::StoreError),
    /// A setting has a value that cannot be used; the text says which, what was expected and how to fix it.
    #[error("{0}")]
    Config(String),
    /// A file that the configuration names cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A rule file or SLO file is wrong; the text has its place and a fix.
    #[error("{0}")]
    Rules(String),
}

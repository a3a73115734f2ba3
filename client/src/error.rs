//! What can go wrong between us and a server, each with what to do about it.
//!
//! Owns the error enum and its mapping to [`model::SourceError`]. Must not know which call failed.

use std::time::Duration;

use model::SourceError;

/// Who is to answer: an error's advice depends on it, calls do not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Peer {
    /// `nines agent`.
    #[default]
    Agent,
    /// A Prometheus-compatible server that somebody else runs.
    Server,
}

/// Why a call had no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// Nothing listens, the name does not resolve, or TLS fails.
    #[error("cannot reach {base}: {} ({reason})", peer.when_unreachable())]
    Unreachable {
        /// The base URL.
        base: String,
        /// Who should have answered.
        peer: Peer,
        /// The cause in the network's words.
        reason: String,
    },
    /// No answer in time.
    #[error(
        "no answer from {base} within {timeout:?}: narrow the query or the range, or raise the timeout"
    )]
    Timeout {
        /// The base URL.
        base: String,
        /// The time that was allowed.
        timeout: Duration,
    },
    /// The base URL cannot be used.
    #[error("{base:?} is not a base URL ({reason}); write it as http://127.0.0.1:9909")]
    BadUrl {
        /// As given.
        base: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The server wants a token, or another one.
    #[error("{base} refuses the bearer token (or its absence); give {}", peer.token())]
    Unauthorized {
        /// The base URL.
        base: String,
        /// Who refuses it.
        peer: Peer,
    },
    /// The server refused the request and said why.
    #[error("{kind}: {message}")]
    Refused {
        /// Prometheus' error type, such as `bad_data`.
        kind: String,
        /// The server's sentence.
        message: String,
        /// The HTTP status.
        status: u16,
    },
    /// The answer is not what this API answers.
    #[error(
        "{url} answers {status} with something that is not this API's ({reason}); is it `nines agent` or Prometheus?"
    )]
    Protocol {
        /// The whole URL.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What is wrong with the body.
        reason: String,
    },
    /// The answer is longer than we hold in memory.
    #[error("the answer of {url} is longer than {limit} bytes; narrow the query")]
    TooLarge {
        /// The whole URL.
        url: String,
        /// The bound in bytes.
        limit: usize,
    },
}

// === impl Peer ===

impl Peer {
    fn when_unreachable(self) -> &'static str {
        match self {
            Peer::Agent => {
                "is `nines agent` running? start it with `nines agent`, or name another address"
            }
            Peer::Server => "does the server run, and is this its address?",
        }
    }

    fn token(self) -> &'static str {
        match self {
            Peer::Agent => "the token the agent was started with",
            Peer::Server => "one that the server accepts",
        }
    }
}

// === impl ClientError ===

impl ClientError {
    /// Whether the same request may succeed later: no connection, no answer in time, 429 or 5xx (but not a query that
    /// cannot be executed).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            ClientError::Unreachable { .. } | ClientError::Timeout { .. } => true,
            ClientError::Refused { status, .. } | ClientError::Protocol { status, .. } => {
                *status == 429 || *status >= 500
            }
            _ => false,
        }
    }

    /// Whether the server says that it does not have this (404).
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            ClientError::Refused { status: 404, .. } | ClientError::Protocol { status: 404, .. }
        )
    }
}

impl From<ClientError> for SourceError {
    fn from(error: ClientError) -> Self {
        match &error {
            ClientError::Refused { status, .. } if *status < 500 => {
                SourceError::Refused(error.to_string())
            }
            ClientError::BadUrl { .. } | ClientError::Unauthorized { .. } => {
                SourceError::Refused(error.to_string())
            }
            _ => SourceError::Unavailable(error.to_string()),
        }
    }
}

//! The typed client of the agent's API, and of any Prometheus-compatible server.
//!
//! Owns requests, timeouts and errors; paths come from [`model::api::path`]. Must not know how an answer is computed,
//! nor what a caller does with it.

mod buckets;
mod calls;
mod error;
mod http;
mod remote_read;
mod remote_write;
mod search;
mod silences;
mod source;

pub use buckets::{Bucket, BucketSeries};
pub use calls::{Target, Targets};
pub use error::{ClientError, Peer};
pub use http::{Client, DEFAULT_TIMEOUT};
pub use remote_read::RemoteRead;
pub use remote_write::encode as encode_write_request;
pub use search::{LogSearch, TraceSearch};
pub use silences::{NewSilence, Silence, SilenceState};
pub use source::{Evaluate, RemoteSource};

//! Prometheus remote read: samples as they are kept, staleness markers and native histograms included.
//!
//! Owns the request, its headers, and telling "the server has no remote read" from "it refused". The messages are
//! [`model::prompb`]'s. Must not know what is read.

use model::api::path;
use model::prompb::{self, ReadQuery};
use model::sample::SeriesData;

use crate::error::ClientError;
use crate::http::Client;

/// The longest answer that is decompressed, bytes.
const MAX_MESSAGE_BYTES: usize = 1 << 30;

/// What a server says to a remote read.
#[derive(Debug, Clone, PartialEq)]
pub enum RemoteRead {
    /// The series that match, with every point in the bounds.
    Series(Vec<SeriesData>),
    /// More points than asked for.
    TooMany,
    /// This server has no remote read.
    Unsupported,
}

// === impl Client ===

impl Client {
    /// Reads raw samples by remote read, at most `max_points` of them over all series.
    pub async fn remote_read(
        &self,
        query: &ReadQuery,
        max_points: usize,
    ) -> Result<RemoteRead, ClientError> {
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("accept-encoding", "snappy"),
            ("x-prometheus-remote-read-version", "0.1.0"),
        ];
        let url = format!("{}{}", self.base_url(), path::REMOTE_READ);
        let strange = |status: u16, reason: String| ClientError::Protocol {
            url: url.clone(),
            status,
            reason,
        };
        let body = snap::raw::Encoder::new()
            .compress_vec(&prompb::request(query))
            .map_err(|e| strange(0, e.to_string()))?;
        let answer = self
            .exchange_bytes(path::REMOTE_READ, &headers, body)
            .await?;
        if matches!(answer.status, 404 | 405 | 501) {
            return Ok(RemoteRead::Unsupported);
        }
        if answer.status != 200 {
            return Err(ClientError::Refused {
                kind: "remote read".into(),
                message: answer.text(),
                status: answer.status,
            });
        }
        if !answer.content_type.starts_with("application/x-protobuf") {
            // A page of something that answers every path.
            return Ok(RemoteRead::Unsupported);
        }
        let len = snap::raw::decompress_len(&answer.body)
            .map_err(|e| strange(answer.status, e.to_string()))?;
        if len > MAX_MESSAGE_BYTES {
            let limit = MAX_MESSAGE_BYTES;
            return Err(ClientError::TooLarge { url, limit });
        }
        let message = snap::raw::Decoder::new()
            .decompress_vec(&answer.body)
            .map_err(|e| strange(answer.status, e.to_string()))?;
        match prompb::read_response(&message, max_points) {
            Ok(Some(series)) => Ok(RemoteRead::Series(series)),
            Ok(None) => Ok(RemoteRead::TooMany),
            Err(e) => Err(strange(answer.status, e.to_string())),
        }
    }
}

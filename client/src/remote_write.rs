//! Prometheus remote write 1.0: a protobuf `WriteRequest`, compressed as one snappy block.
//!
//! Owns those bytes (<https://prometheus.io/docs/specs/prw/remote_write_spec/>). Must not know what is written.

use model::api::path;
use model::labels::Labels;
use model::prompb;
use model::protobuf::put_bytes;
use model::sample::Value;

use crate::error::ClientError;
use crate::http::Client;

/// Series in one request at most; more are sent as several requests, in order.
const SERIES_PER_REQUEST: usize = 2_000;

/// One series to write: its labels, and (Unix milliseconds, value) ascending.
type Series = (Labels, Vec<(i64, f64)>);

// === impl Client ===

impl Client {
    /// Writes samples. With more series than one request holds, an error may come after some were taken; sending all
    /// again is safe, a server drops what it has.
    pub async fn remote_write(&self, series: &[Series]) -> Result<(), ClientError> {
        self.remote_write_at(path::REMOTE_WRITE, series).await
    }

    /// [`Client::remote_write`] to a receiver at another path, as Mimir's `/api/v1/push`.
    pub async fn remote_write_at(&self, at: &str, series: &[Series]) -> Result<(), ClientError> {
        let headers = [
            ("content-type", "application/x-protobuf"),
            ("content-encoding", "snappy"),
            ("x-prometheus-remote-write-version", "0.1.0"),
        ];
        for part in series.chunks(SERIES_PER_REQUEST) {
            let message = encode(part);
            let body = snap::raw::Encoder::new()
                .compress_vec(&message)
                .map_err(|e| ClientError::Protocol {
                    url: format!("{}{at}", self.base_url()),
                    status: 0,
                    reason: e.to_string(),
                })?;
            self.post_bytes(at, &headers, body).await?;
        }
        Ok(())
    }
}

/// The protobuf `prometheus.WriteRequest` of `series`, not compressed.
#[must_use]
pub fn encode(series: &[Series]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut one = Vec::new();
    for (labels, samples) in series {
        one.clear();
        prompb::put_labels(&mut one, labels);
        for (t_ms, value) in samples {
            prompb::put_point(&mut one, *t_ms, &Value::Float(*value));
        }
        put_bytes(&mut out, 1, &one);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_specification() {
        let labels = Labels::from_pairs([("__name__", "up"), ("a", "b")]);
        let bytes = encode(&[(labels, vec![(300, 1.0), (-1, 2.0)])]);
        let mut expected = vec![0x0a, 59];
        expected.extend([0x0a, 14, 0x0a, 8]);
        expected.extend(b"__name__");
        expected.extend([0x12, 2]);
        expected.extend(b"up");
        expected.extend([0x0a, 6, 0x0a, 1, b'a', 0x12, 1, b'b']);
        expected.extend([
            0x12, 12, 0x09, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0x10, 0xac, 0x02,
        ]);
        expected.extend([0x12, 20, 0x09, 0, 0, 0, 0, 0, 0, 0, 0x40, 0x10]);
        expected.extend([0xff; 9]);
        expected.push(1);
        expected[1] = u8::try_from(expected.len() - 2).unwrap();
        assert_eq!(bytes, expected);
        assert!(encode(&[]).is_empty());
    }
}

//! Reading a request's body: streamed, capped before and after decompression, within the byte budget and a deadline.
//!
//! Owns what a body may be. Must not know what it means.

use std::io::Write;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes};

use crate::budget::{Budget, Lease};

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Not at all.
    Identity,
    /// gzip.
    Gzip,
}

/// What a body may be.
#[derive(Debug, Clone)]
pub struct BodyLimits {
    /// Most bytes, before and after decompression.
    pub bytes: usize,
    /// It must be there within this.
    pub timeout: Duration,
    /// The bytes in flight of the whole agent.
    pub budget: Budget,
}

/// Why a body was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Larger than the limit as sent.
    #[error("the body is larger than {0} bytes")]
    TooLarge(usize),
    /// Larger than the limit once decompressed.
    #[error("the body is larger than {0} bytes once decompressed")]
    Bomb(usize),
    /// Ended early, or the connection broke.
    #[error("the body is truncated: {0}")]
    Truncated(String),
    /// Not gzip, or gzip that ends early.
    #[error("the body is not valid gzip: {0}")]
    Gzip(String),
    /// Too slow.
    #[error("the body did not arrive within {0:?}")]
    Timeout(Duration),
    /// The agent has too much in flight.
    #[error("too many bytes are in flight; try again later")]
    Overloaded,
}

// === impl BodyError ===

impl BodyError {
    /// A short name, for counters.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            BodyError::TooLarge(_) => "body_too_large",
            BodyError::Bomb(_) => "decompressed_too_large",
            BodyError::Truncated(_) => "truncated",
            BodyError::Gzip(_) => "bad_gzip",
            BodyError::Timeout(_) => "timeout",
            BodyError::Overloaded => "overloaded",
        }
    }
}

/// A body in memory and the bytes of the budget that it holds.
#[derive(Debug)]
pub struct Read {
    /// The content, as sent.
    pub bytes: Vec<u8>,
    /// Its share of the budget.
    pub lease: Lease,
}

/// How much of a refused body is read and thrown away before the answer. A connection that closes with bytes unread is
/// reset, and the sender may then never see why; a lingering close, as nginx does it.
const LINGER_BYTES: usize = 16 << 20;
/// And for how long.
const LINGER: Duration = Duration::from_secs(2);

/// Reads a body whole, as sent. Of one that is refused at most another 16 MiB and for at most 2 s; none of one that
/// announces more.
pub async fn read<B>(mut body: B, limits: &BodyLimits) -> Result<Read, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let read = tokio::time::timeout(limits.timeout, read_all(&mut body, limits))
        .await
        .unwrap_or(Err(BodyError::Timeout(limits.timeout)));
    let refused = matches!(read, Err(BodyError::TooLarge(_) | BodyError::Overloaded));
    if refused && body.size_hint().lower() <= LINGER_BYTES as u64 {
        // However it ends, the answer is the refusal.
        let _ = tokio::time::timeout(LINGER, throw_away(&mut body)).await;
    }
    read
}

async fn throw_away<B: Body<Data = Bytes> + Unpin>(body: &mut B) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(bytes) else {
            return;
        };
        left = rest;
    }
}

async fn read_all<B>(body: &mut B, limits: &BodyLimits) -> Result<Read, BodyError>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::fmt::Display,
{
    let mut lease = limits.budget.lease();
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limits.bytes {
        return Err(BodyError::TooLarge(limits.bytes));
    }
    if !lease.grow_to(announced) {
        return Err(BodyError::Overloaded);
    }
    let mut bytes = Vec::with_capacity(announced);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| BodyError::Truncated(e.to_string()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > limits.bytes {
            return Err(BodyError::TooLarge(limits.bytes));
        }
        if !lease.grow_to(bytes.len() + data.len()) {
            return Err(BodyError::Overloaded);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Read { bytes, lease })
}

/// Decompresses what was read; the lease grows with the output.
pub fn decompress(read: Read, encoding: Encoding, limit: usize) -> Result<Read, BodyError> {
    if encoding == Encoding::Identity {
        return Ok(read);
    }
    let Read { bytes, lease } = read;
    let held = bytes.len();
    let sink = Capped {
        out: Vec::with_capacity(held.saturating_mul(4).min(limit)),
        limit,
        held,
        lease,
        refused: None,
    };
    let mut decoder = flate2::write::MultiGzDecoder::new(sink);
    let result = decoder
        .write_all(&bytes)
        .and_then(|()| decoder.try_finish());
    let sink = decoder.get_mut();
    if let Some(refused) = sink.refused.take() {
        return Err(refused);
    }
    result.map_err(|e| BodyError::Gzip(e.to_string()))?;
    let sink = decoder
        .finish()
        .map_err(|e| BodyError::Gzip(e.to_string()))?;
    Ok(Read {
        bytes: sink.out,
        lease: sink.lease,
    })
}

/// Takes decompressed bytes until the limit; so a bomb costs at most the limit.
struct Capped {
    out: Vec<u8>,
    limit: usize,
    held: usize,
    lease: Lease,
    refused: Option<BodyError>,
}

impl Write for Capped {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        let len = self.out.len() + data.len();
        let refused = if len > self.limit {
            Some(BodyError::Bomb(self.limit))
        } else if !self.lease.grow_to(self.held + len) {
            Some(BodyError::Overloaded)
        } else {
            None
        };
        if refused.is_some() {
            self.refused = refused;
            return Err(std::io::Error::other("refused"));
        }
        self.out.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn taken(bytes: Vec<u8>, budget: &Budget) -> Read {
        let mut lease = budget.lease();
        assert!(lease.grow_to(bytes.len()));
        Read { bytes, lease }
    }

    #[test]
    fn a_bomb_is_refused_and_gives_its_bytes_back() {
        let budget = Budget::new(1 << 20);
        let bomb = gzip(&vec![0; 8 << 20]);
        assert!(bomb.len() < 20_000);
        let error = decompress(taken(bomb.clone(), &budget), Encoding::Gzip, 1 << 18).unwrap_err();
        assert_eq!(error, BodyError::Bomb(1 << 18));
        let error = decompress(taken(bomb, &budget), Encoding::Gzip, 8 << 20).unwrap_err();
        assert_eq!(error, BodyError::Overloaded);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn whole_gzip_is_read_and_cut_gzip_is_not() {
        let budget = Budget::new(1 << 20);
        let zipped = gzip(b"hello hello hello");
        let read = decompress(taken(zipped.clone(), &budget), Encoding::Gzip, 100).unwrap();
        assert_eq!(read.bytes, b"hello hello hello");
        for bad in [&zipped[..zipped.len() - 3], b"not gzip at all"] {
            let error = decompress(taken(bad.to_vec(), &budget), Encoding::Gzip, 100).unwrap_err();
            assert!(matches!(error, BodyError::Gzip(_)), "{error:?}");
        }
    }

    #[tokio::test]
    async fn bodies_are_capped_as_sent() {
        let limits = BodyLimits {
            bytes: 10,
            timeout: Duration::from_secs(5),
            budget: Budget::new(100),
        };
        let body = |n: usize| http_body_util::Full::new(Bytes::from(vec![1; n]));
        assert_eq!(read(body(10), &limits).await.unwrap().bytes.len(), 10);
        assert_eq!(
            read(body(11), &limits).await.unwrap_err(),
            BodyError::TooLarge(10)
        );
    }

    #[tokio::test]
    async fn the_rest_of_a_refused_body_is_read_within_bounds() {
        let limits = BodyLimits {
            bytes: 10,
            timeout: Duration::from_secs(5),
            budget: Budget::new(100),
        };
        for (sent, taken) in [(5, 5), (LINGER_BYTES / (1 << 20) * 2, 18)] {
            let count = std::sync::atomic::AtomicUsize::new(0);
            let frames = futures_util::stream::iter(0..sent).map(|_| {
                count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                let bytes = Bytes::from_static(&[0; 1 << 20]);
                Ok::<_, std::convert::Infallible>(hyper::body::Frame::data(bytes))
            });
            let body = http_body_util::StreamBody::new(frames);
            assert_eq!(
                read(body, &limits).await.unwrap_err(),
                BodyError::TooLarge(10)
            );
            assert_eq!(count.into_inner(), taken, "of {sent} MiB");
        }
    }
}

//! Owns decoding of compressed bodies as they arrive: the decoded bytes are counted and thrown away, so that neither a
//! long body nor a bomb costs memory. Must not know connections.

use std::io::Write;

use brotli_decompressor::DecompressorWriter;
use flate2::write::{MultiGzDecoder, ZlibDecoder};
use http::{HeaderMap, header};

use crate::conn::{ConnError, ErrorKind};

/// What `--compressed` asks for.
pub(crate) const ACCEPT: &str = "gzip, br";

/// Counts up to a limit.
struct Count {
    bytes: u64,
    most: u64,
}

impl Write for Count {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        self.bytes += data.len() as u64;
        if self.bytes > self.most {
            return Err(std::io::ErrorKind::FileTooLarge.into());
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// One body being decoded.
pub(crate) struct Decoder {
    kind: Kind,
    /// A part of the body came.
    begun: bool,
}

enum Kind {
    Gzip(MultiGzDecoder<Count>),
    Zlib(ZlibDecoder<Count>),
    Brotli(Box<DecompressorWriter<Count>>),
}

impl Decoder {
    /// For a response with these headers; none when its body is as it is.
    ///
    /// # Errors
    /// `Encoding` when its encoding is none that was asked for.
    pub(crate) fn of(headers: &HeaderMap, most: u64) -> Result<Option<Decoder>, ConnError> {
        let Some(encoding) = headers.get(header::CONTENT_ENCODING) else {
            return Ok(None);
        };
        let count = Count { bytes: 0, most };
        let kind = match encoding.as_bytes().to_ascii_lowercase().as_slice() {
            b"identity" | b"" => return Ok(None),
            b"gzip" | b"x-gzip" => Kind::Gzip(MultiGzDecoder::new(count)),
            b"deflate" => Kind::Zlib(ZlibDecoder::new(count)),
            b"br" => Kind::Brotli(Box::new(DecompressorWriter::new(count, 4096))),
            other => {
                let shown = String::from_utf8_lossy(other).into_owned();
                let why = format!("content-encoding {shown:?} was not asked for");
                return Err(ConnError::new(ErrorKind::Encoding, why));
            }
        };
        Ok(Some(Decoder { kind, begun: false }))
    }

    /// Takes the next part of the body.
    ///
    /// # Errors
    /// `Encoding` when it is broken, `TooLarge` when it becomes too long.
    pub(crate) fn write(&mut self, data: &[u8]) -> Result<(), ConnError> {
        self.begun |= !data.is_empty();
        let written = match &mut self.kind {
            Kind::Gzip(d) => d.write_all(data),
            Kind::Zlib(d) => d.write_all(data),
            Kind::Brotli(d) => d.write_all(data),
        };
        written.map_err(broken)
    }

    /// The length of the whole when decoded, in bytes.
    ///
    /// # Errors
    /// `Encoding` when the end is missing, `TooLarge` when it is too long.
    pub(crate) fn finish(self) -> Result<u64, ConnError> {
        if !self.begun {
            // A body without a byte, as of a HEAD or a 304, is no broken one.
            return Ok(0);
        }
        let count = match self.kind {
            Kind::Gzip(d) => d.finish(),
            Kind::Zlib(d) => d.finish(),
            Kind::Brotli(mut d) => d.close().and_then(|()| {
                let cut = |_| std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
                d.into_inner().map_err(cut)
            }),
        };
        count.map(|c| c.bytes).map_err(broken)
    }
}

fn broken(error: std::io::Error) -> ConnError {
    match error.kind() {
        std::io::ErrorKind::FileTooLarge => {
            ConnError::new(ErrorKind::TooLarge, "the decoded body is too long")
        }
        _ => ConnError::new(ErrorKind::Encoding, format!("the body is broken: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoding: &'static str, body: &[u8], most: u64) -> Result<Option<u64>, ErrorKind> {
        let mut headers = HeaderMap::new();
        headers.insert(
            header::CONTENT_ENCODING,
            http::HeaderValue::from_static(encoding),
        );
        let run = || {
            let Some(mut decoder) = Decoder::of(&headers, most)? else {
                return Ok(None);
            };
            for part in body.chunks(7) {
                decoder.write(part)?;
            }
            decoder.finish().map(Some)
        };
        run().map_err(|e: ConnError| e.kind)
    }

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(data).unwrap();
        out.finish().unwrap()
    }

    /// "hello hello hello hello\n" by the reference encoder.
    const BR: &[u8] = &[
        0x1b, 0x17, 0x00, 0xf8, 0x8d, 0x94, 0x6e, 0xde, 0x44, 0x55, 0x86, 0xd6, 0x0a, 0x20, 0x6c,
        0x6f, 0x4a, 0x11, 0x79, 0xe2, 0x80, 0xae, 0x16,
    ];

    #[test]
    fn both_sizes_are_known_and_bounded() {
        let long = vec![b'a'; 1 << 20];
        let body = gzip(&long);
        assert!(body.len() < 2000);
        assert_eq!(decoded("gzip", &body, 2 << 20), Ok(Some(1 << 20)));
        assert_eq!(decoded("gzip", &body, 1000), Err(ErrorKind::TooLarge));
        assert_eq!(decoded("identity", b"x", 10), Ok(None));
        assert_eq!(decoded("br", BR, 100), Ok(Some(24)));
        assert_eq!(decoded("gzip", b"", 100), Ok(Some(0)));
    }

    #[test]
    fn broken_bodies_are_named() {
        let body = gzip(b"hello hello");
        assert_eq!(
            decoded("gzip", &body[..body.len() - 9], 100),
            Err(ErrorKind::Encoding)
        );
        assert_eq!(
            decoded("gzip", b"this is plain text", 100),
            Err(ErrorKind::Encoding)
        );
        assert_eq!(decoded("br", &[0xff; 40], 100), Err(ErrorKind::Encoding));
        assert_eq!(decoded("br", &BR[..5], 100), Err(ErrorKind::Encoding));
        assert_eq!(decoded("zstd", b"x", 100), Err(ErrorKind::Encoding));
    }
}

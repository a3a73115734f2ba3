//! Owns the bodies of requests: bytes in memory, or a file read in parts as it is sent, so that its size costs no memory.
//! Must not know connections or protocols.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Frame, SizeHint};

/// The most read of a file at once, in bytes.
const PART: usize = 64 << 10;

/// A body to send, any number of times; cheap to clone.
#[derive(Debug, Clone)]
pub struct Source(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Bytes(Bytes),
    File(Arc<File>, u64),
}

impl Source {
    /// The file's contents as they are when sent, in the length they have now.
    ///
    /// # Errors
    /// When the file cannot be opened, or is no regular file.
    pub fn file(path: &Path) -> std::io::Result<Source> {
        let file = File::open(path)?;
        let data = file.metadata()?;
        if !data.is_file() {
            let why = "not a regular file";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, why));
        }
        Ok(Source(Kind::File(Arc::new(file), data.len())))
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match &self.0 {
            Kind::Bytes(bytes) => bytes.len() as u64,
            Kind::File(_, length) => *length,
        }
    }

    /// True for no body at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `most` bytes from `offset` on, none of them beyond the end. Reads of a file block the caller for the
    /// time the page cache takes.
    ///
    /// # Errors
    /// When the file cannot be read or became shorter.
    pub(crate) fn part(&self, offset: u64, most: usize) -> std::io::Result<Bytes> {
        match &self.0 {
            Kind::Bytes(bytes) => {
                let from = (offset as usize).min(bytes.len());
                Ok(bytes.slice(from..(from + most).min(bytes.len())))
            }
            Kind::File(file, length) => {
                let size = (length.saturating_sub(offset)).min(most as u64) as usize;
                let mut part = vec![0; size];
                file.read_exact_at(&mut part, offset)?;
                Ok(part.into())
            }
        }
    }
}

impl From<Bytes> for Source {
    fn from(bytes: Bytes) -> Source {
        Source(Kind::Bytes(bytes))
    }
}

/// A [`Source`] on its way out, for hyper.
#[derive(Debug)]
pub struct Outgoing {
    source: Source,
    offset: u64,
}

impl Outgoing {
    /// What is sent.
    pub(crate) fn into_source(self) -> Source {
        self.source
    }
}

impl From<Source> for Outgoing {
    fn from(source: Source) -> Outgoing {
        Outgoing { source, offset: 0 }
    }
}

impl From<Full<Bytes>> for Outgoing {
    fn from(mut full: Full<Bytes>) -> Outgoing {
        let polled =
            Pin::new(&mut full).poll_frame(&mut Context::from_waker(std::task::Waker::noop()));
        let bytes = match polled {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().unwrap_or_default(),
            _ => Bytes::new(),
        };
        Source::from(bytes).into()
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let part = match &self.source.0 {
            // In memory already: in one piece.
            Kind::Bytes(bytes) => Ok(bytes.clone()),
            Kind::File(..) => self.source.part(self.offset, PART),
        };
        Poll::Ready(Some(part.map(|part| {
            self.offset += part.len() as u64;
            Frame::data(part)
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.offset >= self.source.len()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.source.len() - self.offset)
    }
}

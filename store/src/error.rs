//! What can go wrong in the store. Must not know how a caller reports it.

use std::io;
use std::path::PathBuf;

use crate::wire::Damaged;

/// Why the store refused or failed. Messages fit after "failed to ...:".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk (or the configured write budget) is full. Nothing of the batch was kept; try again when there is room.
    #[error("no space left for {path}; nothing of the batch was kept")]
    Full {
        /// The file that could not grow.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried, a verb.
        action: &'static str,
        /// On which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes on disk are not what was written.
    #[error("{path} is damaged at byte {offset}: {reason}")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// Another process has the store open.
    #[error("{0} is in use by another process")]
    Locked(PathBuf),
    /// A block that retention or compaction has removed, or that never was.
    #[error("no such block")]
    NoSuchBlock,
    /// The caller asked for something that cannot be stored.
    #[error("{0}")]
    Invalid(String),
    /// Text that is not what the format asks for.
    #[error("line {line}: {reason}")]
    Text {
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
}

// === impl StoreError ===

impl StoreError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path },
            _ => StoreError::Io {
                action,
                path,
                source,
            },
        }
    }

    pub(crate) fn corrupt(path: impl Into<PathBuf>, offset: u64, damage: Damaged) -> Self {
        StoreError::Corrupt {
            path: path.into(),
            offset,
            reason: damage.0,
        }
    }

    /// Whether this is a full disk: the one failure that passes by itself.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, StoreError::Full { .. })
    }
}

impl From<StoreError> for model::SourceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Corrupt { .. } => model::SourceError::Corrupt(error.to_string()),
            _ => model::SourceError::Unavailable(error.to_string()),
        }
    }
}

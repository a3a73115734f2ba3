//! Files that are read again every round: kept open, read with `pread` from the start.
//!
//! Owns the buffer and byte-level scanning. Must not know what a file means.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The most that is read of one file.
const MAX_BYTES: usize = 4 << 20;

/// One file that stays open. Opened again after a failure.
pub(super) struct Kept {
    path: PathBuf,
    file: Option<File>,
    buffer: Vec<u8>,
}

// === impl Kept ===

impl Kept {
    pub(super) fn new(path: PathBuf) -> Self {
        Kept {
            path,
            file: None,
            buffer: Vec::new(),
        }
    }

    /// The file's content now, or `None` when it cannot be read.
    pub(super) fn read(&mut self) -> Option<&[u8]> {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let file = self.file.as_ref()?;
        let mut len = 0;
        loop {
            if self.buffer.len() < len + 4096 {
                self.buffer.resize((len + 4096).next_power_of_two(), 0);
            }
            match file.read_at(&mut self.buffer[len..], len as u64) {
                Ok(0) => break,
                Ok(n) => len += n,
                Err(_) => {
                    self.file = None;
                    return None;
                }
            }
            if len >= MAX_BYTES {
                break;
            }
        }
        Some(&self.buffer[..len])
    }
}

/// A file that is read once in a while, whole.
pub(super) fn read_once(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

/// Lines without their ends.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|b| *b == b'\n').filter(|l| !l.is_empty())
}

/// Words separated by spaces or tabs.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|b| *b == b' ' || *b == b'\t')
        .filter(|w| !w.is_empty())
}

/// A whole number; what follows the digits is ignored.
pub(super) fn number(word: &[u8]) -> Option<u64> {
    let digits = word.iter().take_while(|b| b.is_ascii_digit()).count();
    if digits == 0 {
        return None;
    }
    word[..digits].iter().try_fold(0u64, |sum, b| {
        sum.checked_mul(10)?.checked_add(u64::from(b - b'0'))
    })
}

/// A decimal number.
pub(super) fn decimal(word: &[u8]) -> Option<f64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// Text for a label: what is not UTF-8 is replaced, control characters too.
pub(super) fn text(word: &[u8]) -> String {
    String::from_utf8_lossy(word)
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_words() {
        assert_eq!(number(b"42kB"), Some(42));
        assert_eq!(number(b"x"), None);
        assert_eq!(number(b"99999999999999999999"), None);
        assert_eq!(words(b" a\tb  c").count(), 3);
        assert_eq!(text(b"a\x1b[1m\xff"), "a?[1m\u{fffd}");
    }
}

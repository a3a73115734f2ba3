//! The outbox's file: records, each with length and checksum, appended and synced.
//!
//! Owns the format: `u32 length, u32 crc32 (both little endian), JSON`. A torn tail (a crash while appending) is cut
//! off; so is everything after a damaged record, and how much is told. Must not know what records mean.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The longest record, bytes.
const MAX_RECORD: usize = 16 << 20;
const HEADER: usize = 8;

/// An append-only file of records.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    pub(super) bytes: u64,
}

/// What opening found.
pub(super) struct Opened<R> {
    pub(super) journal: Journal,
    pub(super) records: Vec<R>,
    /// Bytes cut off the end.
    pub(super) cut_bytes: u64,
}

// === impl Journal ===

impl Journal {
    pub(super) fn open<R: DeserializeOwned>(path: &Path) -> std::io::Result<Opened<R>> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let mut records = Vec::new();
        let mut at = 0;
        while let Some((record, length)) = read_record(&bytes[at..]) {
            records.push(record);
            at += length;
        }
        let cut_bytes = (bytes.len() - at) as u64;
        if cut_bytes > 0 {
            file.set_len(at as u64)?;
            file.sync_all()?;
        }
        file.seek(SeekFrom::Start(at as u64))?;
        Ok(Opened {
            journal: Journal {
                path: path.to_owned(),
                file,
                bytes: at as u64,
            },
            records,
            cut_bytes,
        })
    }

    /// Appends records and waits until they are on disk.
    pub(super) fn append<R: Serialize>(&mut self, records: &[R]) -> std::io::Result<()> {
        let bytes = encode(records)?;
        if let Err(e) = self
            .file
            .write_all(&bytes)
            .and_then(|()| self.file.sync_data())
        {
            // Half a record must not stand before the next one.
            let _ = self.file.set_len(self.bytes);
            let _ = self.file.seek(SeekFrom::Start(self.bytes));
            return Err(e);
        }
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Puts a new file with just these records in place of the old one.
    pub(super) fn rewrite<R: Serialize>(&mut self, records: &[R]) -> std::io::Result<()> {
        let bytes = encode(records)?;
        let (Some(dir), Some(name)) = (
            self.path.parent(),
            self.path.file_name().and_then(|n| n.to_str()),
        ) else {
            return Err(std::io::Error::other("the journal has no directory"));
        };
        crate::engine::replace_file(dir, name, &bytes)?;
        self.file = OpenOptions::new().read(true).write(true).open(&self.path)?;
        self.file.seek(SeekFrom::End(0))?;
        self.bytes = bytes.len() as u64;
        Ok(())
    }
}

fn encode<R: Serialize>(records: &[R]) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    for record in records {
        let json = serde_json::to_vec(record)?;
        let length = u32::try_from(json.len()).map_err(std::io::Error::other)?;
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&json).to_le_bytes());
        bytes.extend_from_slice(&json);
    }
    Ok(bytes)
}

fn read_record<R: DeserializeOwned>(bytes: &[u8]) -> Option<(R, usize)> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(bytes.get(4..HEADER)?.try_into().ok()?);
    if length > MAX_RECORD {
        return None;
    }
    let json = bytes.get(HEADER..HEADER + length)?;
    if crc32fast::hash(json) != crc {
        return None;
    }
    Some((serde_json::from_slice(json).ok()?, HEADER + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_a_cut_at_every_byte() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut opened = Journal::open::<String>(&path).unwrap();
        let texts = ["one".to_owned(), "two".to_owned(), "three".to_owned()];
        texts
            .iter()
            .for_each(|t| opened.journal.append(&[t]).unwrap());
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let mut opened = Journal::open::<String>(&path).unwrap();
            assert!(texts.starts_with(&opened.records), "{cut}");
            opened.journal.append(&["next"]).unwrap();
            let again = Journal::open::<String>(&path).unwrap();
            assert_eq!(again.records.last().map(String::as_str), Some("next"));
            assert_eq!(again.cut_bytes, 0);
        }
    }

    #[test]
    fn rewrite_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let mut journal = Journal::open::<String>(&path).unwrap().journal;
        journal.append(&["a", "b"]).unwrap();
        journal.rewrite(&["b"]).unwrap();
        journal.append(&["c"]).unwrap();
        assert_eq!(Journal::open::<String>(&path).unwrap().records, ["b", "c"]);
    }
}

//! The write-ahead log: every batch is one checksummed record, written before it is acknowledged.
//!
//! Owns segments, records, and reading them back with their damage (docs/store-format.md, "Log"). Must not know what
//! a record says.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{self, WriteBudget};
use crate::error::StoreError;
use crate::wire::{Damaged, Reader};

const MAGIC: &[u8; 8] = b"NINESWAL";
/// Version 2 brought start times; version 1 is still read, and never appended to.
pub(crate) const VERSION: u32 = 2;
/// Bytes of a segment's header.
pub(crate) const SEGMENT_HEADER: usize = 28;
const RECORD_MAGIC: u8 = 0x9e;
/// Bytes of a record's header.
pub(crate) const RECORD_HEADER: usize = 10;
/// A segment is closed when it has grown past this.
const SEGMENT_BYTES: u64 = 16 << 20;
/// A record of one batch.
pub(crate) const BATCH: u8 = 1;

/// The segment that grows.
#[derive(Debug)]
pub(crate) struct Wal {
    dir: PathBuf,
    path: PathBuf,
    file: Arc<File>,
    seq: u64,
    salt: u32,
    len: u64,
    /// Bytes of the closed segments that still exist.
    closed_bytes: u64,
    /// A failed write could not be undone: the next record begins a new segment.
    broken: bool,
    budget: WriteBudget,
}

/// What a scan of one segment found.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scan {
    pub(crate) records: u64,
    /// Stretches of damaged bytes with good records after them.
    pub(crate) damaged: u64,
    pub(crate) damaged_bytes: u64,
    /// Where the last good record ends; 0 when the header is not one.
    pub(crate) good_end: u64,
    pub(crate) salt: u32,
    /// The version in the header.
    pub(crate) version: u32,
}

pub(crate) fn segment_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("log-{seq:010}.wal"))
}

pub(crate) fn checkpoint_path(dir: &Path, seq: u64) -> PathBuf {
    dir.join(format!("checkpoint-{seq:010}.wal"))
}

// === impl Wal ===

impl Wal {
    /// Begins segment `seq`.
    pub(crate) fn create(dir: &Path, seq: u64, budget: &WriteBudget) -> Result<Self, StoreError> {
        let path = segment_path(dir, seq);
        let salt = fresh_salt();
        let file = create_with_header(&path, seq, salt, budget)?;
        disk::sync_dir(dir)?;
        Ok(Wal {
            dir: dir.to_owned(),
            path,
            file: Arc::new(file),
            seq,
            salt,
            len: SEGMENT_HEADER as u64,
            closed_bytes: 0,
            broken: false,
            budget: budget.clone(),
        })
    }

    /// Goes on with segment `seq` after its last good record; a torn tail is cut off.
    pub(crate) fn resume(
        dir: &Path,
        seq: u64,
        scan: &Scan,
        budget: &WriteBudget,
    ) -> Result<Self, StoreError> {
        let path = segment_path(dir, seq);
        let file = File::options()
            .append(true)
            .open(&path)
            .map_err(|e| StoreError::io("open", &path, e))?;
        file.set_len(scan.good_end)
            .map_err(|e| StoreError::io("cut", &path, e))?;
        Ok(Wal {
            dir: dir.to_owned(),
            path,
            file: Arc::new(file),
            seq,
            salt: scan.salt,
            len: scan.good_end,
            closed_bytes: 0,
            broken: false,
            budget: budget.clone(),
        })
    }

    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Bytes of all segments.
    pub(crate) fn bytes(&self) -> u64 {
        self.closed_bytes + self.len
    }

    pub(crate) fn add_closed_bytes(&mut self, bytes: u64) {
        self.closed_bytes += bytes;
    }

    /// Writes one record. `record` is [`RECORD_HEADER`] bytes of room, then the payload. When this fails nothing of
    /// it is in the log.
    pub(crate) fn append(&mut self, kind: u8, record: &mut [u8]) -> Result<(), StoreError> {
        if self.broken || self.len >= SEGMENT_BYTES {
            self.roll()?;
        }
        seal(kind, self.salt, record);
        match disk::write_all(&self.file, &self.path, record, &self.budget) {
            Ok(()) => {
                self.len += record.len() as u64;
                Ok(())
            }
            Err(error) => {
                self.broken = self.file.set_len(self.len).is_err();
                Err(error)
            }
        }
    }

    /// Closes the segment and begins the next. The closed one is synced.
    pub(crate) fn roll(&mut self) -> Result<(), StoreError> {
        disk::sync(&self.file, &self.path)?;
        let mut next = Wal::create(&self.dir, self.seq + 1, &self.budget)?;
        next.closed_bytes = self.bytes();
        *self = next;
        Ok(())
    }

    /// Removes the segments and checkpoints before `seq`.
    pub(crate) fn remove_before(&mut self, seq: u64) -> Result<(), StoreError> {
        for prefix in ["log-", "checkpoint-"] {
            for (number, path) in disk::numbered(&self.dir, prefix, ".wal")? {
                if number < seq {
                    disk::remove(&path)?;
                }
            }
        }
        let mut kept = 0;
        for (number, path) in disk::numbered(&self.dir, "log-", ".wal")? {
            if number != self.seq {
                kept += fs::metadata(path).map_or(0, |m| m.len());
            }
        }
        self.closed_bytes = kept;
        Ok(())
    }
}

/// Creates a file with a segment's header; no trace of it stays when that fails.
pub(crate) fn create_with_header(
    path: &Path,
    seq: u64,
    salt: u32,
    budget: &WriteBudget,
) -> Result<File, StoreError> {
    let file = disk::create_new(path)?;
    if let Err(error) = disk::write_all(&file, path, &segment_header(seq, salt), budget) {
        disk::remove(path)?;
        return Err(error);
    }
    Ok(file)
}

fn segment_header(seq: u64, salt: u32) -> Vec<u8> {
    header_of(VERSION, seq, salt)
}

fn header_of(version: u32, seq: u64, salt: u32) -> Vec<u8> {
    let mut header = MAGIC.to_vec();
    header.extend_from_slice(&version.to_le_bytes());
    header.extend_from_slice(&salt.to_le_bytes());
    header.extend_from_slice(&seq.to_le_bytes());
    let crc = crc32fast::hash(&header);
    header.extend_from_slice(&crc.to_le_bytes());
    header
}

/// The header of segment 1 with salt 0.
pub(crate) fn header_for_fuzzing() -> Vec<u8> {
    segment_header(1, 0)
}

/// A number that makes a segment's checksums differ from those of any other, so that bytes of one record inside
/// another's payload are never taken for a record.
pub(crate) fn fresh_salt() -> u32 {
    std::hash::RandomState::new().build_hasher().finish() as u32
}

/// Fills in a record's header.
pub(crate) fn seal(kind: u8, salt: u32, record: &mut [u8]) {
    let len = (record.len() - RECORD_HEADER) as u32;
    record[0] = RECORD_MAGIC;
    record[1] = kind;
    record[2..6].copy_from_slice(&len.to_le_bytes());
    let crc = record_crc(kind, salt, &record[RECORD_HEADER..]);
    record[6..10].copy_from_slice(&crc.to_le_bytes());
}

fn record_crc(kind: u8, salt: u32, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(salt);
    hasher.update(&[kind]);
    hasher.update(&(payload.len() as u32).to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

/// Reads a segment's records in order, past damaged stretches. `visit` gets each record's kind and payload.
pub(crate) fn scan(bytes: &[u8], expected_seq: u64, mut visit: impl FnMut(u8, &[u8])) -> Scan {
    let mut scan = Scan::default();
    let Ok((version, salt)) = read_segment_header(bytes, expected_seq) else {
        scan.damaged_bytes = bytes.len() as u64;
        return scan;
    };
    (scan.version, scan.salt) = (version, salt);
    let mut at = SEGMENT_HEADER;
    scan.good_end = at as u64;
    let mut bad_since: Option<usize> = None;
    while at < bytes.len() {
        match read_record(&bytes[at..], salt) {
            Ok((kind, payload)) => {
                visit(kind, payload);
                scan.records += 1;
                if let Some(since) = bad_since.take() {
                    scan.damaged += 1;
                    scan.damaged_bytes += (at - since) as u64;
                }
                at += RECORD_HEADER + payload.len();
                scan.good_end = at as u64;
            }
            Err(_) => {
                bad_since.get_or_insert(at);
                at += 1;
            }
        }
    }
    scan
}

/// The version and the salt.
fn read_segment_header(bytes: &[u8], expected_seq: u64) -> Result<(u32, u32), Damaged> {
    let mut reader = Reader::new(bytes);
    let header = reader.clone().take(SEGMENT_HEADER - 4)?;
    let magic = reader.take(8)?;
    let version = reader.u32()?;
    if magic != MAGIC || !(1..=VERSION).contains(&version) {
        return Err(Damaged("not a log segment of this version"));
    }
    let salt = reader.u32()?;
    if reader.u64()? != expected_seq || reader.u32()? != crc32fast::hash(header) {
        return Err(Damaged("the segment's header is damaged"));
    }
    Ok((version, salt))
}

fn read_record(bytes: &[u8], salt: u32) -> Result<(u8, &[u8]), Damaged> {
    let mut reader = Reader::new(bytes);
    if reader.byte()? != RECORD_MAGIC {
        return Err(Damaged("no record begins here"));
    }
    let kind = reader.byte()?;
    let len = reader.u32()?;
    let crc = reader.u32()?;
    let payload = reader.take(len as usize)?;
    if record_crc(kind, salt, payload) != crc {
        return Err(Damaged("a record's checksum is wrong"));
    }
    Ok((kind, payload))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn segment(payloads: &[&[u8]]) -> Vec<u8> {
        let mut bytes = segment_header(3, 99);
        for payload in payloads {
            let mut record = vec![0; RECORD_HEADER];
            record.extend_from_slice(payload);
            seal(BATCH, 99, &mut record);
            bytes.extend_from_slice(&record);
        }
        bytes
    }

    fn read(bytes: &[u8]) -> (Vec<Vec<u8>>, Scan) {
        let mut all = Vec::new();
        let scan = scan(bytes, 3, |_, p| all.push(p.to_vec()));
        (all, scan)
    }

    #[test]
    fn a_torn_tail_ends_the_log_and_damage_inside_is_skipped() {
        let whole = segment(&[b"one", b"two", b"three"]);
        assert_eq!(
            read(&whole).0,
            [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]
        );
        for cut in SEGMENT_HEADER..whole.len() {
            let (records, scan) = read(&whole[..cut]);
            assert!(records.len() < 3 && scan.good_end <= cut as u64, "{cut}");
            assert_eq!(scan.damaged, 0);
        }
        let mut flipped = whole.clone();
        flipped[SEGMENT_HEADER + 15] ^= 4;
        let (records, scan) = read(&flipped);
        assert_eq!(records, [b"one".to_vec(), b"three".to_vec()]);
        assert_eq!((scan.damaged, scan.damaged_bytes), (1, 13));
    }

    #[test]
    fn version_1_is_read_and_a_later_one_is_not() {
        for (version, readable) in [(0, false), (1, true), (2, true), (3, false)] {
            let scan = scan(&header_of(version, 3, 99), 3, |_, _| {});
            assert_eq!(scan.good_end > 0, readable, "{version}");
            assert_eq!(scan.version, if readable { version } else { 0 });
        }
    }

    proptest! {
        #[test]
        fn a_flipped_byte_only_loses_records(at in any::<usize>(), flip in 1u8..) {
            let payloads: Vec<Vec<u8>> = (0..9u8).map(|i| vec![i; i as usize * 7]).collect();
            let mut bytes = segment(&payloads.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let at = at % bytes.len();
            bytes[at] ^= flip;
            let (records, _) = read(&bytes);
            prop_assert!(records.iter().all(|r| payloads.contains(r)));
            prop_assert!(records.len() >= 8 || at < SEGMENT_HEADER);
        }

        #[test]
        fn scanning_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut with_header = segment(&[]);
            with_header.extend_from_slice(&bytes);
            read(&with_header);
            read(&bytes);
        }
    }

    #[test]
    fn a_full_disk_leaves_the_log_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let budget = WriteBudget::default();
        let mut wal = Wal::create(dir.path(), 3, &budget).unwrap();
        let mut record = vec![7; RECORD_HEADER + 100];
        wal.append(BATCH, &mut record).unwrap();
        budget.set(50);
        assert!(wal.append(BATCH, &mut record).unwrap_err().is_full());
        budget.set(u64::MAX);
        wal.append(BATCH, &mut record).unwrap();
        let bytes = fs::read(wal.path()).unwrap();
        let (records, scan) = read(&bytes);
        assert_eq!((records.len(), scan.good_end), (2, bytes.len() as u64));
    }
}

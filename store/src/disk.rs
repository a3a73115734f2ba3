//! The file layer: every byte the store writes passes here, so that a full disk can be simulated and is always seen.
//!
//! Owns writing, syncing and listing files. Must not know any format.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::StoreError;

/// How many more bytes may be written: a disk quota that tests (and careful operators) can set and change while the
/// store runs. When it runs out, writes fail as on a full disk, in the middle of a write if need be.
#[derive(Debug, Clone)]
pub struct WriteBudget(Arc<AtomicU64>);

impl Default for WriteBudget {
    fn default() -> Self {
        WriteBudget(Arc::new(AtomicU64::new(u64::MAX)))
    }
}

// === impl WriteBudget ===

impl WriteBudget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        WriteBudget(Arc::new(AtomicU64::new(bytes)))
    }

    /// Sets what is left, in bytes. `u64::MAX` means no limit.
    pub fn set(&self, bytes: u64) {
        self.0.store(bytes, Ordering::Relaxed);
    }

    /// Takes as much of `wanted` as there is.
    fn take(&self, wanted: u64) -> u64 {
        let mut granted = 0;
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                if left == u64::MAX {
                    granted = wanted;
                    return None;
                }
                granted = left.min(wanted);
                Some(left - granted)
            });
        granted
    }
}

/// Writes all of `bytes`, or fails; part of them may be in the file then.
pub(crate) fn write_all(
    mut file: &File,
    path: &Path,
    bytes: &[u8],
    budget: &WriteBudget,
) -> Result<(), StoreError> {
    let granted = budget.take(bytes.len() as u64) as usize;
    file.write_all(&bytes[..granted.min(bytes.len())])
        .map_err(|e| StoreError::io("write", path, e))?;
    if granted < bytes.len() {
        return Err(StoreError::Full {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Creates `path` for writing; it must not exist.
pub(crate) fn create_new(path: &Path) -> Result<File, StoreError> {
    File::options()
        .read(true)
        .append(true)
        .create_new(true)
        .open(path)
        .map_err(|e| StoreError::io("create", path, e))
}

/// Forces a file's data to the disk.
pub(crate) fn sync(file: &File, path: &Path) -> Result<(), StoreError> {
    file.sync_data()
        .map_err(|e| StoreError::io("sync", path, e))
}

/// Forces a folder's entries to the disk.
pub(crate) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path)
        .and_then(|d| d.sync_all())
        .map_err(|e| StoreError::io("sync", path, e))
}

/// Creates a folder and those above it.
pub(crate) fn create_dir(path: &Path) -> Result<(), StoreError> {
    fs::create_dir_all(path).map_err(|e| StoreError::io("create", path, e))
}

/// Renames a finished file into place, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), StoreError> {
    fs::rename(from, to).map_err(|e| StoreError::io("rename", from, e))?;
    to.parent().map_or(Ok(()), sync_dir)
}

/// Removes a file; one that is already gone is no error.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path, e)),
        _ => Ok(()),
    }
}

/// Files in `dir` named `<prefix><number><suffix>`, ascending by number.
pub(crate) fn numbered(
    dir: &Path,
    prefix: &str,
    suffix: &str,
) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let entries = fs::read_dir(dir).map_err(|e| StoreError::io("list", dir, e))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| StoreError::io("list", dir, e))?;
        let name = entry.file_name();
        let number = name
            .to_str()
            .and_then(|n| n.strip_prefix(prefix)?.strip_suffix(suffix)?.parse().ok());
        if let Some(number) = number {
            found.push((number, entry.path()));
        }
    }
    found.sort();
    Ok(found)
}

/// Removes what an interrupted write left behind: files ending in `.tmp`.
pub(crate) fn remove_unfinished(dir: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(dir).map_err(|e| StoreError::io("list", dir, e))?;
    for entry in entries.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|e| e == "tmp") {
            remove(&path)?;
        }
    }
    Ok(())
}

/// A folder that belongs to this process until this is dropped.
#[derive(Debug)]
pub(crate) struct DirLock(File);

impl Drop for DirLock {
    /// Closing the file is not enough: a process that was forked at this moment has it open too.
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

/// Takes the folder for this process.
pub(crate) fn lock_dir(dir: &Path) -> Result<DirLock, StoreError> {
    let path = dir.join("lock");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|e| StoreError::io("open", &path, e))?;
    match file.try_lock() {
        Ok(()) => Ok(DirLock(file)),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::Locked(dir.to_owned())),
        Err(fs::TryLockError::Error(e)) => Err(StoreError::io("lock", path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_cuts_a_write_short_and_can_be_refilled() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = create_new(&path).unwrap();
        let budget = WriteBudget::new(5);
        assert!(write_all(&file, &path, b"abc", &budget).is_ok());
        assert!(
            write_all(&file, &path, b"defg", &budget)
                .unwrap_err()
                .is_full()
        );
        assert_eq!(fs::read(&path).unwrap(), b"abcde");
        budget.set(u64::MAX);
        assert!(write_all(&file, &path, b"x", &budget).is_ok());
    }

    #[test]
    fn a_folder_belongs_to_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock_dir(dir.path()).unwrap();
        assert!(matches!(lock_dir(dir.path()), Err(StoreError::Locked(_))));
        drop(held);
        assert!(lock_dir(dir.path()).is_ok());
    }

    #[test]
    fn numbered_files_are_sorted_by_number() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b-10.x", "b-9.x", "b-zz.x", "c-1.x"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let found: Vec<u64> = numbered(dir.path(), "b-", ".x")
            .unwrap()
            .iter()
            .map(|f| f.0)
            .collect();
        assert_eq!(found, [9, 10]);
    }
}

//! Forcing the log to the disk: in the background at most a second after a write, or before an acknowledgement.
//!
//! Owns one thread, which ends with the store, and group commit: of many who wait, one syncs for all who wrote before.
//! Must not know records.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

const EVERY: Duration = Duration::from_millis(900);

#[derive(Debug, Default)]
struct Shared {
    file: Mutex<Option<Arc<File>>>,
    dirty: AtomicBool,
    stopped: Mutex<bool>,
    wake: Condvar,
    failures: AtomicU64,
    /// Records written so far.
    written: AtomicU64,
    /// How many of them are known to be on the disk.
    synced: Mutex<u64>,
}

/// Syncs the newest log file when it has changed.
#[derive(Debug)]
pub(crate) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

// === impl Syncer ===

impl Syncer {
    pub(crate) fn start(file: Arc<File>) -> Self {
        let shared = Arc::new(Shared::default());
        *lock(&shared.file) = Some(file);
        let theirs = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("store-sync".into())
            .spawn(move || theirs.run())
            .ok();
        Syncer { shared, thread }
    }

    /// The log grew, in this file.
    pub(crate) fn wrote(&self, file: &Arc<File>) {
        self.shared.written.fetch_add(1, Ordering::AcqRel);
        if !self.shared.dirty.swap(true, Ordering::AcqRel) {
            *lock(&self.shared.file) = Some(Arc::clone(file));
        }
    }

    /// The log goes on in another file; the one before has been synced.
    pub(crate) fn switched(&self, file: Arc<File>) {
        *lock(&self.shared.file) = Some(file);
    }

    /// Returns when everything written before the call is on the disk.
    pub(crate) fn settle(&self) -> io::Result<()> {
        let shared = &self.shared;
        let mine = shared.written.load(Ordering::Acquire);
        let mut synced = lock(&shared.synced);
        if *synced >= mine {
            return Ok(());
        }
        let upto = shared.written.load(Ordering::Acquire);
        // A file before this one was synced when the log went on in this one.
        let file = lock(&shared.file).clone();
        file.map_or(Ok(()), |f| f.sync_data())?;
        *synced = upto;
        Ok(())
    }

    pub(crate) fn failures(&self) -> u64 {
        self.shared.failures.load(Ordering::Relaxed)
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        *lock(&self.shared.stopped) = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.shared.sync();
    }
}

// === impl Shared ===

impl Shared {
    fn run(&self) {
        let mut stopped = lock(&self.stopped);
        while !*stopped {
            let waited = self.wake.wait_timeout(stopped, EVERY);
            stopped = waited.unwrap_or_else(PoisonError::into_inner).0;
            self.sync();
        }
    }

    fn sync(&self) {
        if self.dirty.swap(false, Ordering::AcqRel) {
            let file = lock(&self.file).clone();
            if file.is_some_and(|f| f.sync_data().is_err()) {
                self.failures.fetch_add(1, Ordering::Relaxed);
                self.dirty.store(true, Ordering::Release);
            }
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settling_covers_what_was_written_before() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let syncer = Syncer::start(Arc::clone(&file));
        syncer.settle().unwrap();
        for expected in 1..4 {
            syncer.wrote(&file);
            syncer.settle().unwrap();
            assert_eq!(*lock(&syncer.shared.synced), expected);
        }
    }
}

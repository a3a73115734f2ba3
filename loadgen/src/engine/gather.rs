//! Owns letting responses gather before the thread of a closed load over tokio waits for them, while its CPU is what
//! limits it: one wake then brings several. Knows no connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Builder;

#[cfg(target_os = "linux")]
use super::lock;
#[cfg(target_os = "linux")]
use crate::fast::batching::{Batching, let_gather};

/// Of the run's only thread.
pub(super) struct Gather {
    /// Requests that ended since the last wait.
    done: AtomicUsize,
    #[cfg(target_os = "linux")]
    batching: std::sync::Mutex<Batching>,
}

impl Gather {
    /// For a closed load of so many requests at once.
    pub(super) fn new(slots: usize) -> Gather {
        #[cfg(not(target_os = "linux"))]
        let _ = slots;
        Gather {
            done: AtomicUsize::new(0),
            #[cfg(target_os = "linux")]
            batching: std::sync::Mutex::new(Batching::new(Some(slots))),
        }
    }

    /// A request ended.
    pub(super) fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets responses gather whenever the thread that is to be built has nothing left to do.
    pub(super) fn before_waits(self: &Arc<Gather>, builder: &mut Builder) {
        #[cfg(target_os = "linux")]
        {
            let gather = Arc::clone(self);
            builder.on_thread_park(move || {
                let mut batching = lock(&gather.batching);
                batching.tick(gather.done.swap(0, Ordering::Relaxed));
                if batching.enough() > 1 {
                    let_gather();
                }
            });
        }
        #[cfg(not(target_os = "linux"))]
        let _ = builder;
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn what_ended_is_counted_up_to_each_wait() {
        let gather = Arc::new(Gather::new(64));
        let mut builder = Builder::new_current_thread();
        gather.before_waits(&mut builder);
        let runtime = builder.build().unwrap();
        runtime.block_on(async {
            gather.done();
            gather.done();
            assert_eq!(gather.done.load(Ordering::Relaxed), 2);
            let here = Arc::clone(&gather);
            let seen = tokio::task::spawn_blocking(move || {
                while here.done.load(Ordering::Relaxed) > 0 {
                    std::thread::yield_now();
                }
            });
            // This thread waits, and the other sees what it did before.
            seen.await.unwrap();
        });
    }
}

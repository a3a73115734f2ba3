//! Owns the tasks of one thread and which of them can go on. A task is woken on its own thread by a number put into a
//! list, from another thread also by a nudge to the event loop. Knows no socket and no clock.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake};

use super::super::driver::Waker;
use super::Task;

thread_local! {
    /// Whose thread this is, and which of its tasks can go on.
    static READY: RefCell<Option<(Arc<Remote>, VecDeque<usize>)>> = const { RefCell::new(None) };
}

/// How other threads wake tasks.
pub(super) struct Remote {
    waker: Waker,
    woken: Mutex<Vec<usize>>,
}

impl Remote {
    pub(super) fn new(waker: Waker) -> Remote {
        Remote {
            waker,
            woken: Mutex::default(),
        }
    }

    fn push(&self, key: usize) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        woken.push(key);
        drop(woken);
        self.waker.wake();
    }
}

/// Wakes one task. One that outlives its task wakes whoever has its number now, for nothing.
struct Bell {
    key: usize,
    remote: Arc<Remote>,
    /// It is in a list already.
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.rung.swap(true, Ordering::AcqRel) {
            return;
        }
        let here = READY.try_with(|ready| match &mut *ready.borrow_mut() {
            Some((remote, list)) if Arc::ptr_eq(remote, &self.remote) => {
                list.push_back(self.key);
                true
            }
            _ => false,
        });
        if !here.unwrap_or(false) {
            self.remote.push(self.key);
        }
    }
}

struct Slot {
    /// Not there while it runs.
    task: Option<Task>,
    bell: Arc<Bell>,
    waker: std::task::Waker,
    /// It has ended.
    free: bool,
}

/// The tasks of this thread.
pub(super) struct Tasks {
    slots: Vec<Slot>,
    free: Vec<usize>,
    remote: Arc<Remote>,
}

impl Tasks {
    /// This thread's from now on.
    pub(super) fn here(remote: &Arc<Remote>) -> Tasks {
        READY.set(Some((Arc::clone(remote), VecDeque::new())));
        Tasks {
            slots: Vec::new(),
            free: Vec::new(),
            remote: Arc::clone(remote),
        }
    }

    /// Adds a task that can go on.
    pub(super) fn add(&mut self, task: Task) -> usize {
        let key = match self.free.pop() {
            Some(key) => {
                let slot = &mut self.slots[key];
                slot.task = Some(task);
                slot.free = false;
                key
            }
            None => {
                let key = self.slots.len();
                let bell = Arc::new(Bell {
                    key,
                    remote: Arc::clone(&self.remote),
                    rung: AtomicBool::new(false),
                });
                self.slots.push(Slot {
                    task: Some(task),
                    waker: Arc::clone(&bell).into(),
                    bell,
                    free: false,
                });
                key
            }
        };
        self.slots[key].bell.wake_by_ref();
        key
    }

    /// Whether it has not ended.
    pub(super) fn lives(&self, key: usize) -> bool {
        self.slots.get(key).is_some_and(|s| !s.free)
    }

    /// Runs each task that can go on, once; false when there was none.
    pub(super) fn run_ready(&mut self) -> bool {
        let mut ran = false;
        let mut woken = self
            .remote
            .woken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let remote = std::mem::take(&mut *woken);
        drop(woken);
        for key in remote {
            ran = true;
            self.poll(key);
        }
        let some = || READY.with_borrow(|r| r.as_ref().map_or(0, |(_, list)| list.len()));
        for _ in 0..some() {
            let next = READY.with_borrow_mut(|r| r.as_mut().and_then(|(_, list)| list.pop_front()));
            let Some(key) = next else { break };
            ran = true;
            self.poll(key);
        }
        ran
    }

    fn poll(&mut self, key: usize) {
        let slot = &mut self.slots[key];
        slot.bell.rung.store(false, Ordering::Release);
        let Some(task) = &mut slot.task else { return };
        let ended = task
            .as_mut()
            .poll(&mut Context::from_waker(&slot.waker))
            .is_ready();
        if ended {
            slot.task = None;
            slot.free = true;
            self.free.push(key);
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.slots.clear();
        READY.set(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    fn remote() -> Arc<Remote> {
        Arc::new(Remote::new(Waker::new().unwrap()))
    }

    /// Ends when it has been polled so often; rings its own bell each time.
    fn counts(to: u32, seen: &Rc<RefCell<Vec<u32>>>) -> Task {
        let seen = Rc::clone(seen);
        let mut n = 0;
        Box::pin(std::future::poll_fn(move |cx| {
            n += 1;
            seen.borrow_mut().push(n);
            if n == to {
                return std::task::Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        }))
    }

    #[test]
    fn tasks_run_when_they_are_woken_and_their_numbers_are_used_again() {
        let seen = Rc::default();
        let mut tasks = Tasks::here(&remote());
        let one = tasks.add(counts(2, &seen));
        assert!(tasks.run_ready() && tasks.lives(one));
        assert!(tasks.run_ready() && !tasks.lives(one));
        assert!(!tasks.run_ready(), "nothing is left");
        assert_eq!(*seen.borrow(), [1, 2]);
        assert_eq!(tasks.add(counts(1, &seen)), one);
        assert!(tasks.run_ready());
        assert_eq!(*seen.borrow(), [1, 2, 1]);
    }

    #[test]
    fn another_thread_wakes_a_task_and_the_loop() {
        let mut tasks = Tasks::here(&remote());
        let (tx, rx) = std::sync::mpsc::channel();
        let mut first = true;
        let key = tasks.add(Box::pin(std::future::poll_fn(move |cx| {
            if std::mem::take(&mut first) {
                tx.send(cx.waker().clone()).unwrap();
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(())
        })));
        assert!(tasks.run_ready() && !tasks.run_ready());
        let waker = rx.recv().unwrap();
        let other = waker.clone();
        std::thread::spawn(move || other.wake()).join().unwrap();
        assert!(tasks.run_ready());
        assert!(!tasks.lives(key));
        waker.wake();
        assert!(tasks.run_ready(), "for nothing");
    }
}

//! Owns a thread that runs futures beside the sockets they wait for: tasks, timers and connections of one event loop,
//! without a lock and without a trip to another thread. What else a future awaits (a channel, tokio's own sockets) wakes
//! it from wherever that happens. Must not know what the tasks do.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::batching::Batching;
use super::driver::Waker;
use super::early::Early;
use super::{Engine, cpu_time};

mod alarms;
mod either;
mod line;
mod lines;
mod link;
mod tasks;
#[cfg(test)]
mod tests;

use either::Either;
use lines::Core;
use tasks::{Remote, Tasks};

pub(crate) use link::{Answered, Link, Way};

/// So often in a row tasks may wake each other before sockets are looked at.
const ROUNDS: usize = 8;

type Task = Pin<Box<dyn Future<Output = ()>>>;

thread_local! {
    static CORE: RefCell<Option<Core>> = const { RefCell::new(None) };
    /// Tasks that a task has started and that have not run yet.
    static STARTED: RefCell<Vec<Task>> = const { RefCell::new(Vec::new()) };
}

/// What a reactor's thread leaves.
pub(crate) struct Ended {
    pub(crate) cpu: Duration,
    pub(crate) engine: &'static str,
}

/// Does something with this thread's reactor; none where there is none.
fn with<T>(act: impl FnOnce(&mut Core) -> T) -> Option<T> {
    let all = CORE.try_with(|core| core.borrow_mut().as_mut().map(act));
    all.ok().flatten()
}

/// Runs `main` and what it starts on this thread, over the first of these engines that the machine has; ends with
/// `main`, dropping every other task.
///
/// # Errors
/// When no engine can be had, or the one in use fails.
fn run(engines: &[Engine], main: impl Future<Output = ()> + 'static) -> io::Result<Ended> {
    let cpu_before = cpu_time();
    // By default the kernel may deliver a timer 50 us late.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    let waker = Waker::new()?;
    let driver = Either::first(engines, &waker)?;
    let engine = driver.name();
    let remote = Arc::new(Remote::new(waker));
    CORE.set(Some(Core::new(driver)));
    let mut tasks = Tasks::here(&remote);
    let first = tasks.add(Box::pin(main));
    let outcome = turn(&mut tasks, first);
    // Their connections close while the reactor is there to close them.
    drop(tasks);
    STARTED.take();
    CORE.set(None);
    outcome.map(|()| Ended {
        cpu: cpu_time().saturating_sub(cpu_before),
        engine,
    })
}

/// Runs what `make` makes on a thread of its own, which also belongs to the tokio runtime that this is called in; what
/// the thread leaves comes when everything on it is over.
///
/// # Errors
/// When there is no thread to be had.
pub(crate) fn thread<F: Future<Output = ()> + 'static>(
    engines: &'static [Engine],
    make: impl FnOnce() -> F + Send + 'static,
) -> io::Result<oneshot::Receiver<io::Result<Ended>>> {
    let runtime = tokio::runtime::Handle::try_current().map_err(io::Error::other)?;
    let (done, end) = oneshot::channel();
    std::thread::Builder::new()
        .name("nines-load".to_owned())
        .spawn(move || {
            let _runtime = runtime.enter();
            let _ = done.send(run(engines, make()));
        })?;
    Ok(end)
}

/// The loop, until the first task ends.
fn turn(tasks: &mut Tasks, first: usize) -> io::Result<()> {
    let broken = || io::Error::other("the reactor of this thread is gone");
    let mut early = Early::default();
    let mut batching = Batching::new(None);
    // The last wait ended by its time.
    let mut woken = false;
    loop {
        with(Core::expire);
        let more = advance(tasks);
        if !tasks.lives(first) {
            return Ok(());
        }
        let before = Instant::now();
        let (left, enough) = with(|core| {
            // Whoever waits for an instant, or for one response, is not kept waiting.
            batching.limit(if core.sleeps() { 1 } else { core.flying() });
            (core.wakes(), batching.enough())
        })
        .ok_or_else(broken)?;
        let left = left.map(|at| at.saturating_duration_since(before));
        let wait = match more {
            true => Some(Duration::ZERO),
            false => left.map(|left| early.shorten(left, woken)),
        };
        with(|core| core.wait(wait, enough)).ok_or_else(broken)??;
        let over = wait.and_then(|w| Instant::now().checked_duration_since(before + w));
        woken = true;
        let mut done = 0;
        while let Some(completed) = with(Core::next).ok_or_else(broken)? {
            woken = false;
            done += usize::from(completed);
            // Whoever waited for this goes on at once.
            advance(tasks);
        }
        if woken && let Some(late) = over {
            early.observe(late, wait.unwrap_or_default());
        }
        batching.tick(done);
    }
}

/// Runs every task that can go on, and those that they start; true when some can go on still, which must not keep the
/// sockets waiting.
fn advance(tasks: &mut Tasks) -> bool {
    for _ in 0..ROUNDS {
        for task in STARTED.take() {
            tasks.add(task);
        }
        if !tasks.run_ready() {
            return false;
        }
    }
    true
}

/// Starts a task on this thread; it runs when the one that starts it waits. Without a reactor here it is dropped.
pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    STARTED.with(|started| started.borrow_mut().push(Box::pin(task)));
}

/// Waits for an instant, within some ten microseconds. To be called on a reactor's thread: elsewhere nobody wakes.
pub(crate) async fn sleep_until(at: Instant) {
    Sleep { at, wakes: None }.await;
}

struct Sleep {
    at: Instant,
    /// Who is woken then.
    wakes: Option<std::task::Waker>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            return Poll::Ready(());
        }
        if !self.wakes.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            self.wakes = Some(cx.waker().clone());
            with(|core| core.wake_at(self.at, cx.waker()));
        }
        Poll::Pending
    }
}

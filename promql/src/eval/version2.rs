//! What Prometheus 2 computes otherwise. Only the differential test, whose Prometheus is of version 2, ever turns it on;
//! outside tests it is always off, at no cost.
//!
//! Owns the switches. Must not know what hangs on them.

/// A difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    /// `rate` and its kin cut a gap at the window's start to the counter's zero before they compare it with the
    /// threshold, not after.
    ZeroFirst,
    /// Windows contain their start.
    ClosedWindows,
}

#[cfg(test)]
thread_local! {
    static ON: std::cell::RefCell<Vec<Difference>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Whether a difference is on.
#[cfg(test)]
pub(crate) fn is_on(difference: Difference) -> bool {
    ON.with_borrow(|on| on.contains(&difference))
}

/// Whether a difference is on: never.
#[cfg(not(test))]
#[inline]
pub(crate) const fn is_on(_: Difference) -> bool {
    false
}

/// Runs `work` with these differences on, in this thread.
#[cfg(test)]
pub(crate) fn with<T>(differences: &[Difference], work: impl FnOnce() -> T) -> T {
    ON.set(differences.to_vec());
    let out = work();
    ON.set(Vec::new());
    out
}

/// How much earlier than its start a window begins, milliseconds.
pub(crate) fn earlier_ms() -> i64 {
    i64::from(is_on(Difference::ClosedWindows))
}

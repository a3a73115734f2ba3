//! Owns the search for the highest rate at which a server keeps its objectives: which rates to try, what a step says,
//! how sure the answer is, and the law fitted to it. Only `run` sends anything; all else is pure.
//!
//! ```text
//! search ──trial──▶ run ──slices──▶ judge ──verdict──▶ search … ──▶ interval, usl ──▶ report
//! ```

mod interval;
mod judge;
mod report;
mod resource;
mod run;
mod search;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
mod usl;

pub use judge::{Judged, Observed, Slice, Verdict, Why, judge};
pub use report::{Answer, StepRow};
pub use resource::{QUERIES, Reading, Resource, saturated};
pub use run::{Options, run};
pub use search::{End, Next, Purpose, Search, Settings, Trial};
pub use usl::{Fit, Point, fit};

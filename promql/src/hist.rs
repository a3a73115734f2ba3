//! Native histograms: arithmetic, resets, quantiles. Must not know queries.

pub(crate) mod accumulate;
pub(crate) mod arith;
pub(crate) mod bucket;
pub(crate) mod quantile;
pub(crate) mod trim;

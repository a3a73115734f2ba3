//! Evaluation: a tree and a source to values. Must not know the text's grammar.

mod aggregate;
mod binary;
mod block;
mod call;
mod dates;
#[cfg(test)]
mod differential_test;
pub(crate) mod engine;
#[cfg(test)]
mod engine_test;
mod extended;
mod group;
mod histfn;
mod info;
mod labelfn;
mod math;
mod notes;
mod over_time;
mod plan;
mod rate;
mod row;
mod run;
mod select;
pub(crate) mod stop;
mod sweep;
pub(crate) mod table;
mod topk;
mod version2;
mod window;

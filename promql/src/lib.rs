//! PromQL: parsing, checking, printing and evaluating, with the semantics of Prometheus 3.
//!
//! Owns the language. Must not know where series come from (that is [`model::Source`]), HTTP, rules or the clock.

mod eval;
mod hist;
mod syntax;

pub use eval::engine::{Engine, Options, Output, QueryError, RangeData, RangeOutput};
pub use eval::stop::Stop;
pub use eval::table::Table;
pub use syntax::ast;
pub use syntax::ast::{Expr, ExprKind, Span};
pub use syntax::diagnose::ParseError;
pub use syntax::functions;
pub use syntax::parse::{parse, parse_series};
pub use syntax::print::format;
pub use syntax::rewrite::{experimental_feature, scale_windows};
pub use syntax::series;

//! The result of a PromQL query, as values.
//!
//! Owns the four result types. Must not know how they are computed, nor their JSON (that is [`crate::api`]).

use crate::labels::Labels;
use crate::sample::{Points, Value};

/// One series of an instant vector.
#[derive(Debug, Clone, PartialEq)]
pub struct VectorElement {
    /// Its labels.
    pub labels: Labels,
    /// The instant, Unix milliseconds.
    pub t_ms: i64,
    /// Its value.
    pub value: Value,
}

/// One series of a range result.
#[derive(Debug, Clone, PartialEq)]
pub struct RangeSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its points, ascending.
    pub points: Points,
}

/// What a query evaluates to.
#[derive(Debug, Clone, PartialEq)]
pub enum QueryData {
    /// A number at an instant (Unix milliseconds).
    Scalar(i64, f64),
    /// A text at an instant (Unix milliseconds).
    String(i64, String),
    /// An instant vector.
    Vector(Vec<VectorElement>),
    /// A range vector, or the result of a range query.
    Matrix(Vec<RangeSeries>),
}

impl QueryData {
    /// Prometheus' name of the type, as in `resultType`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            QueryData::Scalar(..) => "scalar",
            QueryData::String(..) => "string",
            QueryData::Vector(_) => "vector",
            QueryData::Matrix(_) => "matrix",
        }
    }

    /// The first float of the result: of a scalar, of the first vector element, the last point of the first series.
    #[must_use]
    pub fn first_float(&self) -> Option<f64> {
        match self {
            QueryData::Scalar(_, v) => Some(*v),
            QueryData::String(..) => None,
            QueryData::Vector(all) => all.iter().find_map(|e| match e.value {
                Value::Float(v) => Some(v),
                Value::Histogram(_) => None,
            }),
            QueryData::Matrix(all) => all.iter().find_map(|s| s.points.values.last().copied()),
        }
    }
}

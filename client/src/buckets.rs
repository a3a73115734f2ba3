//! Native histograms of a range query, bucket by bucket.
//!
//! Owns the reading of Prometheus' JSON form of them (`[seconds, {"buckets": [[rule, "lower", "upper", "count"]]}]`),
//! in which their schema is lost but their bounds are not. Must not know what a bucket counts.

use model::api::{parse_float, path};
use model::labels::Labels;
use serde::Deserialize;
use serde_json::Value as Json;

use crate::calls::seconds;
use crate::error::ClientError;
use crate::http::Client;

/// One bucket that is not empty.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Its lower bound.
    pub lower: f64,
    /// Its upper bound.
    pub upper: f64,
    /// How much is in it; a rate where the query asks for one.
    pub count: f64,
}

/// One series of native histograms: its labels, and (Unix milliseconds, buckets ascending).
pub type BucketSeries = (Labels, Vec<(i64, Vec<Bucket>)>);

#[derive(Deserialize)]
struct Matrix {
    #[serde(default)]
    result: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    metric: Labels,
    #[serde(default)]
    histograms: Vec<(f64, Histogram)>,
}

#[derive(Deserialize)]
struct Histogram {
    #[serde(default)]
    buckets: Vec<(u8, Json, Json, Json)>,
}

// === impl Client ===

impl Client {
    /// As [`Client::query_range`], but the native histograms of the answer rather than its floats.
    pub async fn query_range_buckets(
        &self,
        text: &str,
        start_ms: i64,
        end_ms: i64,
        step_ms: i64,
    ) -> Result<Vec<BucketSeries>, ClientError> {
        let parameters = [
            ("query", text.to_owned()),
            ("start", seconds(start_ms)),
            ("end", seconds(end_ms)),
            ("step", seconds(step_ms.max(1))),
        ];
        let answer: Matrix = self.post_form(path::QUERY_RANGE, &parameters).await?;
        let rows = answer.result.into_iter().map(|row| {
            let points = row.histograms.into_iter();
            let points = points.map(|(t, h)| {
                let buckets = h.buckets.iter().filter_map(read).collect();
                ((t * 1000.0).round() as i64, buckets)
            });
            (row.metric, points.collect::<Vec<_>>())
        });
        Ok(rows.filter(|(_, points)| !points.is_empty()).collect())
    }
}

fn read((_, lower, upper, count): &(u8, Json, Json, Json)) -> Option<Bucket> {
    let float = |value: &Json| match value {
        Json::String(text) => parse_float(text),
        other => other.as_f64(),
    };
    Some(Bucket {
        lower: float(lower)?,
        upper: float(upper)?,
        count: float(count)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_read_as_prometheus_writes_them() {
        let text = r#"{"resultType":"matrix","result":[{"metric":{"a":"b"},"values":[],
            "histograms":[[1.5,{"count":"3","sum":"2","buckets":[[0,"0.5","1","2.5"],[0,"1","+Inf","0.5"]]}],
            [2,{"count":"0","sum":"0"}]]},{"metric":{},"values":[[1,"2"]]}]}"#;
        let matrix: Matrix = serde_json::from_str(text).unwrap();
        let (_, histogram) = &matrix.result[0].histograms[0];
        let all: Vec<Bucket> = histogram.buckets.iter().filter_map(read).collect();
        assert_eq!(
            all,
            [
                Bucket {
                    lower: 0.5,
                    upper: 1.0,
                    count: 2.5
                },
                Bucket {
                    lower: 1.0,
                    upper: f64::INFINITY,
                    count: 0.5
                },
            ]
        );
        assert!(matrix.result[0].histograms[1].1.buckets.is_empty());
        assert!(matrix.result[1].histograms.is_empty());
    }
}

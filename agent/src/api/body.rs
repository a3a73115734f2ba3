//! The body of a query's answer: small ones whole, large ones a piece at a time, written when the peer has taken the
//! piece before, so that no answer ever lies in memory as text.
//!
//! Owns the envelope and the pieces. Must not know how values are written (that is [`model::api::AnswerText`]).

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::response::Response;
use hyper::body::Frame;
use model::api::AnswerText;
use model::{QueryData, RangeSeries, VectorElement};
use promql::{RangeData, RangeOutput, Table};

use super::respond::json_body;

/// Bytes of a piece, about: what stays in a core's cache until the kernel has it, some 0.1 ms of writing.
const PIECE: usize = 64 << 10;

/// A query's answer on its way out.
pub(super) struct AnswerBody {
    text: AnswerText,
    items: Items,
    /// Items written.
    at: usize,
    /// What comes after the last item; none once it is written.
    tail: Option<String>,
}

enum Items {
    Table(Table),
    Vector(Vec<VectorElement>),
    Matrix(Vec<RangeSeries>),
    /// Written with the head.
    None,
}

// === impl Items ===

impl Items {
    fn len(&self) -> usize {
        match self {
            Items::Table(table) => table.len(),
            Items::Vector(all) => all.len(),
            Items::Matrix(all) => all.len(),
            Items::None => 0,
        }
    }

    fn truncate(&mut self, limit: usize) {
        match self {
            Items::Table(table) => table.truncate(limit),
            Items::Vector(all) => all.truncate(limit),
            Items::Matrix(all) => all.truncate(limit),
            Items::None => {}
        }
    }
}

// === impl AnswerBody ===

impl AnswerBody {
    /// Begins an answer with at most `limit` series.
    pub(super) fn new(output: RangeOutput, limit: Option<usize>) -> Self {
        let mut text = AnswerText::default();
        text.raw("{\"status\":\"success\",\"data\":");
        let mut head = |kind: &str| text.raw(&format!("{{\"resultType\":\"{kind}\",\"result\":["));
        let mut items = match output.data {
            RangeData::Table(table) => {
                head("matrix");
                Items::Table(table)
            }
            RangeData::Data(QueryData::Matrix(all)) => {
                head("matrix");
                Items::Matrix(all)
            }
            RangeData::Data(QueryData::Vector(all)) => {
                head("vector");
                Items::Vector(all)
            }
            RangeData::Data(other) => {
                text.data(&other);
                Items::None
            }
        };
        let mut warnings = output.warnings;
        if let Some(limit) = limit.filter(|limit| *limit < items.len()) {
            items.truncate(limit);
            warnings.push("results truncated due to limit".into());
        }
        let mut tail = String::new();
        if !matches!(items, Items::None) {
            tail.push_str("]}");
        }
        for (name, notes) in [("warnings", warnings), ("infos", output.infos)] {
            if !notes.is_empty() {
                tail.push_str(&format!(",{name:?}:{}", serde_json::json!(notes)));
            }
        }
        tail.push('}');
        AnswerBody {
            text,
            items,
            at: 0,
            tail: Some(tail),
        }
    }

    /// The next piece; none after the last.
    fn piece(&mut self) -> Option<Vec<u8>> {
        self.tail.as_ref()?;
        while self.at < self.items.len() {
            if self.text.len() >= PIECE {
                return Some(self.text.take());
            }
            if self.at > 0 {
                self.text.raw(",");
            }
            match &self.items {
                Items::Table(table) => self.text.row(
                    table.labels(self.at),
                    table.times(),
                    table.floats(self.at),
                    table.histograms(self.at),
                ),
                Items::Vector(all) => {
                    let e = &all[self.at];
                    self.text.element(&e.labels, e.t_ms, &e.value);
                }
                Items::Matrix(all) => self.text.series(&all[self.at].labels, &all[self.at].points),
                Items::None => {}
            }
            self.at += 1;
        }
        self.text.raw(&self.tail.take()?);
        self.items = Items::None;
        Some(self.text.take())
    }

    /// The response; its first piece is written here, so that a small one has a length.
    pub(super) fn into_response(mut self) -> Response {
        let first = self.piece().unwrap_or_default();
        if self.tail.is_none() {
            return json_body(Body::from(first));
        }
        json_body(Body::new(Pieces {
            first: Some(first),
            rest: self,
        }))
    }
}

struct Pieces {
    first: Option<Vec<u8>>,
    rest: AnswerBody,
}

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = self.first.take().or_else(|| self.rest.piece());
        Poll::Ready(next.map(|piece| Ok(Frame::data(Bytes::from(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.rest.tail.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use model::api::{Envelope, query_data_to_json};
    use model::{Labels, Points, Value};

    fn matrix(series: usize, points: i64) -> QueryData {
        let of = |i: usize| {
            let mut all = Points::default();
            (0..points).for_each(|t| all.push_float(t * 15_000 + 1, t as f64 / 3.0));
            RangeSeries {
                labels: Labels::from_pairs([("i", format!("{i:05}"))]),
                points: all,
            }
        };
        QueryData::Matrix((0..series).map(of).collect())
    }

    fn vector(elements: usize) -> QueryData {
        let of = |i: usize| VectorElement {
            labels: Labels::from_pairs([("i", i.to_string())]),
            t_ms: 7,
            value: Value::Float(i as f64),
        };
        QueryData::Vector((0..elements).map(of).collect())
    }

    #[tokio::test]
    async fn an_answer_in_pieces_is_the_answer() {
        for data in [
            QueryData::Scalar(1_500, 2.0),
            QueryData::String(0, "a\"b".into()),
            vector(0),
            vector(3),
            vector(9_000),
            matrix(1, 4),
            matrix(700, 90),
        ] {
            let mut expected = Envelope::success(query_data_to_json(&data));
            expected.warnings = vec!["PromQL warning: \"w\" (1:1)".into()];
            expected.infos = vec!["i".into()];
            let output = RangeOutput {
                data: RangeData::Data(data),
                warnings: expected.warnings.clone(),
                infos: expected.infos.clone(),
            };
            let response = AnswerBody::new(output, None).into_response();
            let bytes = response.into_body().collect().await.unwrap().to_bytes();
            let expected = serde_json::to_string(&expected).unwrap();
            assert!(bytes == expected.as_bytes(), "{}", bytes.len());
        }
    }

    #[tokio::test]
    async fn what_is_cut_is_said() {
        let output = RangeOutput {
            data: RangeData::Data(vector(5)),
            warnings: Vec::new(),
            infos: Vec::new(),
        };
        let response = AnswerBody::new(output, Some(2)).into_response();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(body["data"]["result"].as_array().map(Vec::len), Some(2));
        assert_eq!(body["warnings"][0], "results truncated due to limit");
    }
}

//! Parameters of a request, from the URL and from a form in the body, as Prometheus takes them.
//!
//! Owns their reading: times as seconds or RFC 3339, lengths as seconds or durations. Must not know endpoints.

use axum::extract::{FromRequest, Request};
use axum::http::{Method, header};

use super::respond::ApiError;
use super::state::Api;
use crate::receive::body;

/// Bytes of a form.
const MAX_FORM_BYTES: usize = 4 << 20;
/// The latest time that can be asked for, milliseconds: far enough, and sums of it do not overflow.
const MAX_MS: f64 = 9.0e15;

/// The parameters, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl FromRequest<Api> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let mut all = Params::parse(request.uri().query().unwrap_or("").as_bytes());
        let is_form = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|v| {
                v.as_bytes()
                    .starts_with(b"application/x-www-form-urlencoded")
            });
        if request.method() == Method::POST && is_form {
            let mut limits = api.limits.clone();
            limits.bytes = limits.bytes.min(MAX_FORM_BYTES);
            let read = body::read(request.into_body(), &limits)
                .await
                .map_err(|e| ApiError::bad_data(format!("error parsing form values: {e}")))?;
            let mut form = Params::parse(&read.bytes);
            // As in Go's Request.Form: the body's values come before the URL's.
            form.0.append(&mut all.0);
            all = form;
        }
        Ok(all)
    }
}

// === impl Params ===

impl Params {
    fn parse(encoded: &[u8]) -> Self {
        Params(url::form_urlencoded::parse(encoded).into_owned().collect())
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let first = self.0.iter().find(|(n, _)| n == name);
        first.map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// Every value of a parameter.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.0.iter().filter(move |(n, _)| n == name);
        named.map(|(_, v)| v.as_str())
    }

    /// A time in Unix milliseconds.
    pub(crate) fn time(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        parse_time(text).map(Some).ok_or_else(|| {
            ApiError::parameter(name, format!("cannot parse {text:?} to a valid timestamp"))
        })
    }

    /// A length of time in milliseconds.
    pub(crate) fn duration(&self, name: &str) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let seconds = text
            .parse::<f64>()
            .ok()
            .filter(|s| (s * 1000.0).abs() < MAX_MS);
        let ms = seconds.map(|s| (s * 1000.0).round() as i64);
        ms.or_else(|| model::duration::parse_ms(text).ok())
            .map(Some)
            .ok_or_else(|| {
                ApiError::parameter(name, format!("cannot parse {text:?} to a valid duration"))
            })
    }

    /// A number of things.
    pub(crate) fn count(&self, name: &str) -> Result<Option<usize>, ApiError> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| ApiError::parameter(name, format!("{text:?} is not a number")))
        };
        self.get(name).map(parse).transpose()
    }

    /// A truth value.
    pub(crate) fn flag(&self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.get(name) {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(ApiError::parameter(
                name,
                format!("{other:?} is neither true nor false"),
            )),
        }
    }
}

fn parse_time(text: &str) -> Option<i64> {
    if let Ok(seconds) = text.parse::<f64>() {
        let ms = (seconds * 1000.0).round();
        return (ms.abs() < MAX_MS).then_some(ms as i64);
    }
    model::timestamp::parse_rfc3339(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_lengths() {
        let p = Params::parse(
            b"time=1.5&end=1970-01-01T00%3A00%3A02Z&step=15&s2=1m&bad=x&e=&limit=7&error=true",
        );
        assert_eq!(p.time("time"), Ok(Some(1500)));
        assert_eq!(p.time("end"), Ok(Some(2000)));
        assert_eq!(p.time("e"), Ok(None));
        assert_eq!(p.duration("step"), Ok(Some(15_000)));
        assert_eq!(p.duration("s2"), Ok(Some(60_000)));
        assert_eq!(p.count("limit"), Ok(Some(7)));
        assert_eq!(p.flag("error"), Ok(Some(true)));
        let text = format!("{:?}", p.time("bad").unwrap_err());
        assert!(text.contains("cannot parse") && text.contains("to a valid timestamp"));
        for bad in ["NaN", "1e300", "inf"] {
            assert_eq!(parse_time(bad), None, "{bad}");
        }
    }
}

//! HTTP GET with every bound a collector needs: one deadline, a body limit after decompression, no foreign redirects.
//!
//! Owns the client. Must not know what a body means. Errors never contain a user or a password.

use std::sync::LazyLock;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};

/// An answer.
pub(crate) struct Fetched {
    /// The status code.
    pub(crate) status: u16,
    /// `Content-Type`, or empty.
    pub(crate) content_type: String,
    /// The body, decompressed.
    pub(crate) body: Vec<u8>,
}

/// What to fetch.
#[derive(Default)]
pub(crate) struct Request<'a> {
    /// The URL; a user and password in it become an `Authorization` header.
    pub(crate) url: &'a str,
    /// `Accept`, or empty.
    pub(crate) accept: &'a str,
    /// A bearer token.
    pub(crate) bearer: Option<String>,
    /// The most bytes that the body may have.
    pub(crate) body_limit: usize,
}

static CLIENT: LazyLock<Result<reqwest::Client, String>> = LazyLock::new(|| {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let same_host = reqwest::redirect::Policy::custom(|attempt| {
        let first = attempt.previous().first();
        let foreign = first.is_some_and(|first| {
            first.host_str() != attempt.url().host_str()
                || first.port_or_known_default() != attempt.url().port_or_known_default()
        });
        if foreign || attempt.previous().len() > 5 {
            attempt.stop()
        } else {
            attempt.follow()
        }
    });
    reqwest::Client::builder()
        .redirect(same_host)
        .user_agent(concat!("nines/", env!("CARGO_PKG_VERSION")))
        .pool_max_idle_per_host(1)
        .no_proxy()
        .build()
        .map_err(|e| e.without_url().to_string())
});

/// Fetches within `deadline`, connecting included.
pub(crate) async fn get(request: Request<'_>, deadline: Duration) -> Result<Fetched, String> {
    match tokio::time::timeout(deadline, get_unbounded(request)).await {
        Ok(result) => result,
        Err(_) => Err(format!("no complete answer within {deadline:?}")),
    }
}

async fn get_unbounded(request: Request<'_>) -> Result<Fetched, String> {
    let client = CLIENT.as_ref().map_err(Clone::clone)?;
    let mut url = url::Url::parse(request.url).map_err(|e| format!("the URL is not one: {e}"))?;
    let (user, password) = (url.username().to_owned(), url.password().map(str::to_owned));
    let _ = url.set_username("");
    let _ = url.set_password(None);
    let mut builder = client.get(url).header(
        ACCEPT,
        match request.accept {
            "" => "*/*",
            accept => accept,
        },
    );
    if !user.is_empty() {
        builder = builder.basic_auth(decode(&user), password.as_deref().map(decode));
    }
    if let Some(token) = request.bearer {
        builder = builder.header(AUTHORIZATION, format!("Bearer {}", token.trim()));
    }
    let response = builder.send().await.map_err(describe)?;
    let status = response.status().as_u16();
    let content_type = response
        .headers()
        .get(CONTENT_TYPE)
        .and_then(|v| v.to_str().ok());
    let content_type = content_type.unwrap_or("").to_owned();
    let announced = response.content_length().unwrap_or(0);
    let announced = usize::try_from(announced).unwrap_or(usize::MAX);
    let mut body = Vec::with_capacity(announced.min(request.body_limit));
    let mut chunks = response.bytes_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(describe)?;
        if body.len() + chunk.len() > request.body_limit {
            return Err(format!(
                "the body is longer than {} bytes",
                request.body_limit
            ));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Fetched {
        status,
        content_type,
        body,
    })
}

/// Percent-decodes a user or password.
fn decode(text: &str) -> String {
    let encoded = format!("x={}", text.replace('+', "%2B"));
    url::form_urlencoded::parse(encoded.as_bytes())
        .next()
        .map_or_else(String::new, |(_, v)| v.into_owned())
}

/// The innermost cause, which is what says something ("connection refused").
fn describe(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn errors_say_why_and_hide_the_password() {
        let request = Request {
            url: "http://me:secret@127.0.0.1:1/x",
            body_limit: 10,
            ..Request::default()
        };
        let error = get(request, Duration::from_secs(5)).await.err().unwrap();
        assert!(error.to_lowercase().contains("refused"), "{error}");
        assert!(!error.contains("secret"), "{error}");
        assert_eq!(decode("a%40+b"), "a@+b");
    }
}

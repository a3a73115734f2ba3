//! One request and its answer: the token, timeouts, bounds and the envelope.
//!
//! Owns the HTTP client. Must not know the API's calls.

use std::time::Duration;

use model::api::Envelope;
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::de::DeserializeOwned;

use crate::error::{ClientError, Peer};

/// How long a call may take when the caller does not say.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read, bytes.
const MAX_ANSWER_BYTES: usize = 256 << 20;
/// Characters of a strange answer that an error repeats.
const SHOWN_CHARS: usize = 200;

/// A client of one server. Cheap to clone; connections are kept and shared.
#[derive(Debug, Clone)]
pub struct Client {
    base: String,
    peer: Peer,
    token: Option<String>,
    timeout: Duration,
    headers: header::HeaderMap,
    http: Result<reqwest::Client, String>,
}

/// An answer that is not in the envelope.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub status: u16,
    pub content_type: String,
    pub body: Vec<u8>,
}

// === impl Answer ===

impl Answer {
    /// The start of the body as clean text.
    pub(crate) fn text(&self) -> String {
        shown(&self.body)
    }
}

/// The start of a body without control characters.
fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = text.trim().chars().filter(|c| !c.is_control());
    clean.take(SHOWN_CHARS).collect()
}

// === impl Client ===

impl Client {
    /// A client of the server at `base_url`, such as `http://127.0.0.1:9909` (`http://` may be left out). Never fails:
    /// a URL that cannot be used is reported by the first call.
    #[must_use]
    pub fn new(base_url: impl Into<String>) -> Self {
        let given = base_url.into();
        let trimmed = given.trim().trim_end_matches('/');
        let base = match trimmed.contains("://") {
            true => trimmed.to_owned(),
            false => format!("http://{trimmed}"),
        };
        Client {
            base,
            peer: Peer::default(),
            token: None,
            timeout: DEFAULT_TIMEOUT,
            headers: header::HeaderMap::new(),
            http: build(),
        }
    }

    /// Says who is to answer, which is an agent otherwise.
    #[must_use]
    pub fn with_peer(mut self, peer: Peer) -> Self {
        self.peer = peer;
        self
    }

    /// Sends `token` as bearer token with every call; `None` sends none.
    #[must_use]
    pub fn with_token(mut self, token: Option<String>) -> Self {
        self.token = token.filter(|t| !t.is_empty());
        self
    }

    /// Sends a header with every call, such as the tenant's.
    ///
    /// # Errors
    /// When name or value is not what HTTP allows.
    pub fn with_header(mut self, name: &str, value: &str) -> Result<Self, String> {
        let name = header::HeaderName::try_from(name).map_err(|e| format!("{name:?}: {e}"))?;
        let value = header::HeaderValue::try_from(value)
            .map_err(|e| format!("the value of {name}: {e}"))?;
        self.headers.insert(name, value);
        Ok(self)
    }

    /// Bounds every call, from its start to the last byte of the answer.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The base URL, without a slash at its end.
    #[must_use]
    pub fn base_url(&self) -> &str {
        &self.base
    }

    /// `GET`, with the answer's data.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
    ) -> Result<T, ClientError> {
        let query = form(parameters);
        let url = match query.is_empty() {
            true => format!("{}{path}", self.base),
            false => format!("{}{path}?{query}", self.base),
        };
        let response = self.send(self.request(Method::GET, &url)?).await?;
        self.data(&url, response).await
    }

    /// `POST` of a form, with the answer's data.
    pub(crate) async fn post_form<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
    ) -> Result<T, ClientError> {
        Ok(self.post_form_annotated(path, parameters).await?.0)
    }

    /// The same, with the warnings and remarks that came along.
    pub(crate) async fn post_form_annotated<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
    ) -> Result<(T, Vec<String>), ClientError> {
        let url = format!("{}{path}", self.base);
        let request = self
            .request(Method::POST, &url)?
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form(parameters));
        let response = self.send(request).await?;
        self.annotated(&url, response).await
    }

    /// `POST` of bytes, with nothing wanted back.
    pub(crate) async fn post_bytes(
        &self,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: Vec<u8>,
    ) -> Result<(), ClientError> {
        let url = format!("{}{path}", self.base);
        let mut request = self.request(Method::POST, &url)?.body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.send(request).await?;
        if response.status().is_success() {
            return Ok(());
        }
        self.data::<serde_json::Value>(&url, response)
            .await
            .map(|_| ())
    }

    /// `POST` of bytes, with whatever comes back.
    pub(crate) async fn exchange_bytes(
        &self,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: Vec<u8>,
    ) -> Result<Answer, ClientError> {
        let url = format!("{}{path}", self.base);
        let mut request = self.request(Method::POST, &url)?.body(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.send(request).await?;
        let status = response.status();
        self.authorized(status)?;
        let kind = response.headers().get(header::CONTENT_TYPE);
        let content_type = kind.and_then(|v| v.to_str().ok()).unwrap_or("").to_owned();
        Ok(Answer {
            status: status.as_u16(),
            content_type,
            body: self.body(&url, response).await?,
        })
    }

    /// A call whose answer has no envelope, such as Alertmanager's; `body` is JSON. Errors when the answer is no success.
    pub(crate) async fn plain(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Vec<u8>, ClientError> {
        let url = format!("{}{path}", self.base);
        let mut request = self.request(method, &url)?;
        if let Some(body) = body {
            request = request
                .header(header::CONTENT_TYPE, "application/json")
                .body(body);
        }
        let response = self.send(request).await?;
        let status = response.status();
        self.authorized(status)?;
        let bytes = self.body(&url, response).await?;
        if status.is_success() {
            return Ok(bytes);
        }
        Err(ClientError::Refused {
            kind: "refused".into(),
            message: serde_json::from_slice(&bytes).unwrap_or_else(|_| shown(&bytes)),
            status: status.as_u16(),
        })
    }

    fn request(&self, method: Method, url: &str) -> Result<RequestBuilder, ClientError> {
        let bad = |reason: String| ClientError::BadUrl {
            base: self.base.clone(),
            reason,
        };
        let parsed = url::Url::parse(url).map_err(|e| bad(e.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(bad(format!("the scheme is {}", parsed.scheme())));
        }
        let http = self.http.as_ref().map_err(|reason| bad(reason.clone()))?;
        let request = http.request(method, parsed).timeout(self.timeout);
        let request = request.headers(self.headers.clone());
        Ok(match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        })
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        request.send().await.map_err(|e| self.broken(&e))
    }

    fn broken(&self, error: &reqwest::Error) -> ClientError {
        if error.is_timeout() && !error.is_connect() {
            return ClientError::Timeout {
                base: self.base.clone(),
                timeout: self.timeout,
            };
        }
        ClientError::Unreachable {
            base: self.base.clone(),
            peer: self.peer,
            reason: root_cause(error),
        }
    }

    fn authorized(&self, status: StatusCode) -> Result<(), ClientError> {
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            let (base, peer) = (self.base.clone(), self.peer);
            return Err(ClientError::Unauthorized { base, peer });
        }
        Ok(())
    }

    async fn body(&self, url: &str, mut response: Response) -> Result<Vec<u8>, ClientError> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|e| self.broken(&e))? {
            if bytes.len() + chunk.len() > MAX_ANSWER_BYTES {
                return Err(ClientError::TooLarge {
                    url: url.to_owned(),
                    limit: MAX_ANSWER_BYTES,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    async fn data<T: DeserializeOwned>(
        &self,
        url: &str,
        response: Response,
    ) -> Result<T, ClientError> {
        Ok(self.annotated(url, response).await?.0)
    }

    async fn annotated<T: DeserializeOwned>(
        &self,
        url: &str,
        response: Response,
    ) -> Result<(T, Vec<String>), ClientError> {
        let status = response.status();
        let bytes = self.body(url, response).await?;
        self.authorized(status)?;
        let strange = |reason: String| ClientError::Protocol {
            url: url.split('?').next().unwrap_or(url).to_owned(),
            status: status.as_u16(),
            reason,
        };
        let envelope: Envelope<T> = match serde_json::from_slice(&bytes) {
            Ok(envelope) => envelope,
            Err(_) if !status.is_success() => {
                return Err(strange(shown(&bytes)));
            }
            Err(e) => return Err(strange(e.to_string())),
        };
        if envelope.status == "success" {
            let data = envelope.data;
            let data = data.ok_or_else(|| strange("success without data".into()))?;
            let notes = envelope.warnings.into_iter().chain(envelope.infos);
            return Ok((data, notes.collect()));
        }
        Err(ClientError::Refused {
            kind: envelope.error_type.unwrap_or_else(|| "error".into()),
            message: envelope.error.unwrap_or_default(),
            status: status.as_u16(),
        })
    }
}

fn build() -> Result<reqwest::Client, String> {
    // Someone else may have installed it first; then theirs is used.
    let _already = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .user_agent(concat!("nines/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|e| root_cause(&e))
}

fn form(parameters: &[(&str, String)]) -> String {
    let mut encoder = url::form_urlencoded::Serializer::new(String::new());
    encoder.extend_pairs(parameters);
    encoder.finish()
}

/// The last error of the chain: the one that says "connection refused".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut at = error;
    while let Some(next) = at.source() {
        at = next;
    }
    at.to_string()
}

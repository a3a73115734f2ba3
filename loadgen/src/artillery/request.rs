//! Owns turning a request of a script, its templates filled in, into HTTP: URL, headers, body, redirects.
//! Must not open connections.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::Value;
use url::Url;

use super::script::{BodySpec, Part, RequestStep, Script};
use super::template::{self, Variables, as_text};
use crate::conn::authority;

/// A request ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The URL's, as [`Url::origin`] writes it.
    pub(crate) origin: Arc<str>,
    /// Request line and fields as they go onto the wire, without what is added to each sending and the empty line.
    head: Vec<u8>,
}

/// The longest path with its query, in bytes.
const MAX_PATH: usize = 65_534;
/// Fields that are ours to send.
const OURS: [&str; 2] = ["traceparent", "x-nines-run-id"];

/// Why a request cannot be made: the text counted as its error.
pub(crate) type Unmade = String;

impl Ready {
    /// Whether a request is the same each time it is made: it holds no template and nothing drawn.
    pub(crate) fn is_fixed(step: &RequestStep, script: &Script) -> bool {
        let plain = |pairs: &[(String, Value)]| {
            let plain = |(k, v): &(String, Value)| !k.contains("{{") && template::is_plain(v);
            pairs.iter().all(plain)
        };
        let body = match &step.body {
            BodySpec::None | BodySpec::Bytes(_) => true,
            BodySpec::Json(value) | BodySpec::Text(value) => template::is_plain(value),
            BodySpec::Form(fields) => plain(fields),
            BodySpec::Multipart(_) => false,
        };
        let auth = step.auth.as_ref();
        body && !step.url.contains("{{")
            && !script.target.contains("{{")
            && plain(&step.qs)
            && plain(&script.http.headers)
            && plain(&step.headers)
            && auth.is_none_or(|(a, b)| template::is_plain(a) && template::is_plain(b))
    }

    /// Fills in a request.
    pub(crate) fn make(
        step: &RequestStep,
        script: &Script,
        vars: &dyn Variables,
    ) -> Result<Ready, Unmade> {
        let url = full_url(&template::string(&step.url, vars), &script.target);
        let mut url = Url::parse(&url).map_err(|_| format!("Invalid URL - {url}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!("Invalid URL - {url}"));
        }
        if !step.qs.is_empty() {
            let query = encode(&filled(&step.qs, vars));
            url.set_query(Some(&query));
        }
        url.set_fragment(None);
        let mut ready = Ready {
            method: step.method.clone(),
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            origin: Arc::from(""),
            head: Vec::new(),
        };
        ready.set(&header::USER_AGENT, "nines")?;
        ready.set(&header::CONNECTION, "keep-alive")?;
        if step.gzip {
            ready.set(&header::ACCEPT_ENCODING, "gzip, deflate, br")?;
        }
        ready.add_body(step, script, vars)?;
        for (name, value) in script.http.headers.iter().chain(&step.headers) {
            let Some(value) = template::fill(value, vars).filter(|v| !v.is_null()) else {
                continue;
            };
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| format!("ERR_INVALID_HTTP_TOKEN {name}"))?;
            ready.set(&name, &as_text(Some(&value)))?;
        }
        if let Some((user, pass)) = &step.auth {
            let text = |v| as_text(template::fill(v, vars).as_ref());
            ready.authorize(&text(user), &text(pass))?;
        } else if !ready.url.username().is_empty() {
            let (user, pass) = (ready.url.username().to_owned(), ready.url.password());
            let pass = pass.unwrap_or_default().to_owned();
            ready.authorize(&user, &pass)?;
        }
        ready.write_head()?;
        Ok(ready)
    }

    fn set(&mut self, name: &HeaderName, value: &str) -> Result<(), Unmade> {
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| format!("ERR_INVALID_CHAR in header {name}"))?;
        self.headers.insert(name, value);
        Ok(())
    }

    fn authorize(&mut self, user: &str, pass: &str) -> Result<(), Unmade> {
        let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{pass}"));
        self.set(&header::AUTHORIZATION, &format!("Basic {both}"))
    }

    fn add_body(
        &mut self,
        step: &RequestStep,
        script: &Script,
        vars: &dyn Variables,
    ) -> Result<(), Unmade> {
        match &step.body {
            BodySpec::None => {
                if matches!(self.method, Method::POST | Method::PUT | Method::PATCH) {
                    self.set(&header::CONTENT_LENGTH, "0")?;
                }
            }
            BodySpec::Json(value) => {
                let value = template::fill(value, vars).unwrap_or(Value::Null);
                self.body = value.to_string().into();
                self.set(&header::CONTENT_TYPE, "application/json")?;
            }
            BodySpec::Text(value) => {
                self.body = as_text(template::fill(value, vars).as_ref()).into();
            }
            BodySpec::Bytes(bytes) => self.body = bytes.clone(),
            BodySpec::Form(fields) => {
                self.body = encode(&filled(fields, vars)).into();
                self.set(&header::CONTENT_TYPE, "application/x-www-form-urlencoded")?;
            }
            BodySpec::Multipart(parts) => {
                let boundary = format!("------------------------{:016x}", rand::random::<u64>());
                self.body = multipart(parts, &boundary, &script.directory, vars)?.into();
                let kind = format!("multipart/form-data; boundary={boundary}");
                self.set(&header::CONTENT_TYPE, &kind)?;
            }
        }
        Ok(())
    }

    /// Writes what is the same each time it is sent. A path that has become too long is an error.
    fn write_head(&mut self) -> Result<(), Unmade> {
        self.origin = self.url.origin().ascii_serialization().into();
        let path = &self.url[url::Position::BeforePath..url::Position::AfterQuery];
        if path.len() > MAX_PATH {
            let bytes = path.len();
            let start: String = path.chars().take(60).collect();
            return Err(format!(
                "Invalid URL - {start}... ({bytes} bytes): URI too long"
            ));
        }
        let out = &mut self.head;
        out.clear();
        for part in [self.method.as_str(), " ", path, " HTTP/1.1\r\n"] {
            out.extend_from_slice(part.as_bytes());
        }
        let mut field = |name: &str, value: &[u8]| {
            for part in [name.as_bytes(), b": ", value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        };
        if !self.headers.contains_key(header::HOST) {
            field("host", authority(&self.url).as_bytes());
        }
        for (name, value) in &self.headers {
            if !OURS.contains(&name.as_str()) && name != header::COOKIE {
                field(name.as_str(), value.as_bytes());
            }
        }
        let framed = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING];
        if !self.body.is_empty() && !framed.iter().any(|n| self.headers.contains_key(n)) {
            field("content-length", self.body.len().to_string().as_bytes());
        }
        Ok(())
    }

    /// Writes the request as it goes onto the wire: with `cookie` from the user's jar, or else the script's own, and what
    /// fields `more` adds, each with its CR LF.
    pub(crate) fn write(
        &self,
        out: &mut Vec<u8>,
        cookie: Option<&str>,
        more: impl FnOnce(&mut Vec<u8>),
    ) {
        out.clear();
        out.extend_from_slice(&self.head);
        let own = self.headers.get(header::COOKIE).map(HeaderValue::as_bytes);
        if let Some(cookie) = cookie.map(str::as_bytes).or(own) {
            for part in [b"cookie: ", cookie, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        more(out);
        out.extend_from_slice(b"\r\n");
        let coding = self.headers.get(header::TRANSFER_ENCODING);
        if coding.is_some_and(|c| c.as_bytes().ends_with(b"chunked")) {
            if !self.body.is_empty() {
                out.extend_from_slice(format!("{:x}\r\n", self.body.len()).as_bytes());
                out.extend_from_slice(&self.body);
                out.extend_from_slice(b"\r\n");
            }
            out.extend_from_slice(b"0\r\n\r\n");
        } else {
            out.extend_from_slice(&self.body);
        }
    }

    /// The request that a redirect asks for; none when the response is no redirect.
    pub(crate) fn redirected(&self, status: StatusCode, headers: &HeaderMap) -> Option<Ready> {
        if !matches!(status.as_u16(), 300..=304 | 307 | 308) {
            return None;
        }
        let location = headers.get(header::LOCATION)?;
        let location = String::from_utf8_lossy(location.as_bytes());
        let mut next = self.clone();
        next.url = self.url.join(&location).ok()?;
        next.url.set_fragment(None);
        // As Artillery: only 303 turns a request into a GET, all others keep method and body.
        if status == StatusCode::SEE_OTHER && next.method != Method::HEAD {
            next.method = Method::GET;
            next.body = Bytes::new();
            for name in [header::CONTENT_TYPE, header::CONTENT_LENGTH] {
                next.headers.remove(name);
            }
        }
        let place = |url: &Url| {
            (
                url.host_str().map(str::to_owned),
                url.port_or_known_default(),
            )
        };
        if place(&next.url) != place(&self.url) {
            for name in [header::AUTHORIZATION, header::COOKIE, header::HOST] {
                next.headers.remove(name);
            }
        }
        next.write_head().ok()?;
        Some(next)
    }
}

/// A path goes below the target; anything else stands for itself.
pub(crate) fn full_url(url: &str, target: &str) -> String {
    if url.starts_with('/') {
        format!("{target}{url}")
    } else {
        url.to_owned()
    }
}

fn filled(pairs: &[(String, Value)], vars: &dyn Variables) -> Vec<(String, Value)> {
    let fill = |(k, v): &(String, Value)| {
        let value = template::fill(v, vars)?;
        Some((template::string(k, vars), value))
    };
    pairs.iter().filter_map(fill).collect()
}

/// `a=1&b=x+y`, a list as many pairs of one name.
fn encode(pairs: &[(String, Value)]) -> String {
    let mut out = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in pairs {
        match value {
            Value::Array(items) => {
                for item in items {
                    out.append_pair(name, &as_text(Some(item)));
                }
            }
            Value::Null => {
                out.append_pair(name, "");
            }
            value => {
                out.append_pair(name, &as_text(Some(value)));
            }
        }
    }
    out.finish()
}

fn multipart(
    parts: &[Part],
    boundary: &str,
    directory: &Path,
    vars: &dyn Variables,
) -> Result<Vec<u8>, Unmade> {
    let mut out = Vec::new();
    for part in parts {
        let mut head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"{}\"",
            part.name
        );
        let mut kind = part.content_type.clone();
        let content = match &part.from_file {
            Some(name) => {
                let path = directory.join(template::string(name, vars));
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                head.push_str(&format!("; filename=\"{file}\""));
                kind.get_or_insert_with(|| "application/octet-stream".to_owned());
                std::fs::read(&path).map_err(|_| format!("ENOENT {}", path.display()))?
            }
            None => as_text(template::fill(&part.value, vars).as_ref()).into_bytes(),
        };
        if let Some(kind) = kind {
            head.push_str(&format!("\r\nContent-Type: {kind}"));
        }
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(b"\r\n\r\n");
        out.extend_from_slice(&content);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Ok(out)
}

/// The body as the script sees it: gzip, deflate and brotli undone, at most 64 MiB of it.
pub(crate) fn decoded(headers: &HeaderMap, body: &Bytes) -> Bytes {
    use std::io::Read;
    const MAX: u64 = 64 << 20;
    let encoding = headers.get(header::CONTENT_ENCODING);
    let mut out = Vec::new();
    let read = match encoding.map(HeaderValue::as_bytes) {
        Some(b"gzip" | b"x-gzip") => {
            let decoder = flate2::read::MultiGzDecoder::new(&body[..]);
            decoder.take(MAX).read_to_end(&mut out)
        }
        Some(b"deflate") => {
            let decoder = flate2::read::ZlibDecoder::new(&body[..]);
            decoder.take(MAX).read_to_end(&mut out)
        }
        Some(b"br") => {
            let decoder = brotli_decompressor::Decompressor::new(&body[..], 4096);
            decoder.take(MAX).read_to_end(&mut out)
        }
        _ => return body.clone(),
    };
    match read {
        Ok(_) => out.into(),
        Err(_) => body.clone(),
    }
}

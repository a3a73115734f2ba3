//! Owns turning a request of a script, its templates filled in, into HTTP: URL, headers, body, redirects.
//! Must not open connections.

use std::path::Path;

use base64::Engine as _;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde_json::Value;
use url::Url;

use super::script::{BodySpec, Part, RequestStep, Script};
use super::template::{self, Variables, as_text};

/// A request ready to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Ready {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Why a request cannot be made: the text counted as its error.
pub(crate) type Unmade = String;

impl Ready {
    /// Fills in a request. `cookie` is what the user's jar sends to a URL.
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

    /// Path and query as they go onto the wire. A URL that has become too long for HTTP's own type is an error.
    pub(crate) fn path(&self) -> Result<http::Uri, Unmade> {
        let path = &self.url[url::Position::BeforePath..url::Position::AfterQuery];
        path.parse().map_err(|e| {
            let bytes = path.len();
            let start: String = path.chars().take(60).collect();
            format!("Invalid URL - {start}... ({bytes} bytes): {e}")
        })
    }

    /// The HTTP request, with what the caller adds to the headers.
    pub(crate) fn request(
        &self,
        path: &http::Uri,
        add: &[(HeaderName, HeaderValue)],
    ) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = path.clone();
        *request.headers_mut() = self.headers.clone();
        for (name, value) in add {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        request
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

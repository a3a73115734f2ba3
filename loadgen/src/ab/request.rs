//! Owns the bytes of ab's request: one HTTP/1.0 request, the same for the whole run, header lines in ab's order.
//! Must not know sockets.

use base64::Engine;

use super::{AbError, Method, Options};

/// ab's own limit of the header lines, in bytes.
const MAX_HEAD: usize = 8192;

/// The method's name on the wire.
pub(super) fn method_name(options: &Options) -> &str {
    match (&options.method_name, &options.method) {
        (Some(name), _) => name,
        (None, Method::Get) => "GET",
        (None, Method::Head) => "HEAD",
        (None, Method::Post(_)) => "POST",
        (None, Method::Put(_)) => "PUT",
        (None, Method::Custom(name)) => name,
    }
}

/// The whole request.
///
/// # Errors
/// When the header lines reach 8192 bytes, or a value has a line break that would begin another header.
pub(super) fn bytes(options: &Options, body: &[u8]) -> Result<Vec<u8>, AbError> {
    let url = &options.url;
    let place = match options.proxy {
        Some(_) => &url.full,
        None => &url.path,
    };
    let mut lines = vec![format!("{} {place} HTTP/1.0", method_name(options))];
    if options.keep_alive {
        lines.push("Connection: Keep-Alive".to_owned());
    }
    if let Some(cookie) = &options.cookie {
        lines.push(format!("Cookie: {cookie}"));
    }
    for (proxy, credentials) in &options.credentials {
        let name = if *proxy {
            "Proxy-Authorization"
        } else {
            "Authorization"
        };
        let coded = base64::engine::general_purpose::STANDARD.encode(credentials);
        lines.push(format!("{name}: Basic {coded}"));
    }
    if options.sends_body() {
        lines.push(format!("Content-length: {}", body.len()));
        lines.push(format!("Content-type: {}", options.content_type));
    }
    lines.extend(options.headers.iter().cloned());
    let given = |name: &str| {
        let begins = |line: &String| {
            line.get(..name.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(name))
        };
        options.headers.iter().any(begins)
    };
    if !given("host:") {
        lines.push(format!("Host: {}", url.authority));
    }
    if !given("user-agent:") {
        lines.push(format!("User-Agent: ApacheBench/{}", super::FOLLOWS));
    }
    if !given("accept:") {
        lines.push("Accept: */*".to_owned());
    }
    if let Some(line) = lines.iter().find(|line| line.contains(['\r', '\n'])) {
        let said = format!("ab: {line:?} has a line break; give each header its own -H\n");
        return Err(AbError::new(22, said));
    }
    let head = lines.join("\r\n") + "\r\n\r\n";
    if head.len() >= MAX_HEAD {
        return Err(AbError::new(1, "Request too long\n\n"));
    }
    Ok([head.as_bytes(), body].concat())
}

/// What `-v 2` prints of it before the run: the header lines.
pub(super) fn shown(options: &Options, request: &[u8], body: usize) -> String {
    let head = String::from_utf8_lossy(&request[..request.len() - body]);
    format!(
        "INFO: {} header == \n---\n{head}\n---\n",
        method_name(options)
    )
}

//! Owns reading HAR 1.2 (<http://www.softwareishard.com/blog/har-12-spec/>): what a browser sent becomes one user's flow.
//! Must not know the script's text.

use super::script::{Body, Draft, Request, Scene, Step, method, reads};
use super::secrets::Secrets;
use super::{Imported, LeftOut, Options, Verbs, document};
use crate::artillery::Mistake;
use crate::artillery::fields::{Fields, Read, list, text};
use crate::artillery::tree::{Kind, Node};

/// A pause shorter than this is no thinking, in ms.
const PAUSE_MS: f64 = 100.0;

/// Headers that belong to the connection, to the browser or to an earlier visit.
const NOT_SENT: [&str; 24] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "keep-alive",
    "te",
    "upgrade",
    "expect",
    "proxy-connection",
    "proxy-authorization",
    "accept-encoding",
    "cookie",
    "user-agent",
    "priority",
    "dnt",
    "pragma",
    "cache-control",
    "upgrade-insecure-requests",
    "if-none-match",
    "if-modified-since",
    "traceparent",
    "tracestate",
    "x-nines-run-id",
    "http2-settings",
];

/// One exchange of the recording.
struct Entry<'a> {
    at_ms: f64,
    took_ms: f64,
    page: Option<String>,
    url: url::Url,
    method: String,
    request: Fields<'a>,
    status: f64,
}

/// Makes a script of a HAR file: one scenario, requests in the order in which they began, pauses of at least 0.1 s kept.
///
/// # Errors
/// The first thing that is not as HAR 1.2 has it, with its place; or that nothing is left to send.
pub fn har(name: &str, source: &str, options: &Options) -> Result<Imported, Mistake> {
    let root = document(name, source)?;
    let log = Fields::of(&root, "the HAR file")?.need("log")?;
    let log = Fields::of(log, "log")?;
    let mut left_out = LeftOut::default();
    let mut entries = Vec::new();
    for node in list(log.need("entries")?, "entries")? {
        match entry(node)? {
            Ok(entry) => entries.push(entry),
            Err(why) => left_out.add(why),
        }
    }
    entries.sort_by(|a, b| a.at_ms.total_cmp(&b.at_ms));
    let wanted = match (&options.host, entries.first()) {
        (Some(host), _) => host.clone(),
        (None, Some(first)) => authority(&first.url),
        (None, None) => String::new(),
    };
    let is_wanted = |url: &url::Url| authority(url) == wanted || url.host_str() == Some(&wanted);
    let Some(origin) = entries
        .iter()
        .find(|e| is_wanted(&e.url))
        .map(|e| e.url.clone())
    else {
        let mut hosts: Vec<String> = entries.iter().map(|e| authority(&e.url)).collect();
        hosts.sort();
        hosts.dedup();
        hosts.truncate(20);
        let said = format!("no request over HTTP to {wanted:?} in log.entries");
        return Err(Mistake::at(&log.node.place, said).hint(format!("hosts: {}", hosts.join(", "))));
    };
    let titles = titles(&log)?;
    let mut secrets = Secrets::new()?;
    let mut steps = Vec::new();
    let (mut page, mut ended_ms, mut changing) = (None, None::<f64>, 0);
    for entry in entries {
        if !is_wanted(&entry.url) {
            left_out.add(format!("request to {}", authority(&entry.url)));
            continue;
        }
        if options.verbs == Verbs::Reading && !reads(&entry.method) {
            left_out.add(format!(
                "{} (only reading was asked for)",
                entry.method.to_uppercase()
            ));
            continue;
        }
        let request = match request(&entry, &mut secrets)? {
            Ok(request) => request,
            Err(why) => {
                left_out.add(why);
                continue;
            }
        };
        let pause_ms = ended_ms.map_or(0.0, |ended| entry.at_ms - ended);
        if pause_ms >= PAUSE_MS {
            steps.push(Step::Think((pause_ms / 10.0).round() / 100.0));
        }
        if entry.page.is_some() && entry.page != page {
            let id = entry.page.clone().unwrap_or_default();
            let title = titles.iter().find(|(known, _)| *known == id);
            steps.push(Step::Page(format!(
                "page: {}",
                title.map_or(&id, |(_, t)| t)
            )));
            page = entry.page;
        }
        ended_ms = Some(
            ended_ms
                .unwrap_or(f64::MIN)
                .max(entry.at_ms + entry.took_ms),
        );
        changing += u64::from(!reads(&request.method));
        steps.push(Step::Send(Box::new(request)));
    }
    if !steps.iter().any(|s| matches!(s, Step::Send(_))) {
        return Err(Mistake::at(&log.node.place, "no request is left to send"));
    }
    let draft = Draft {
        about: vec![format!("Imported from {name} by nines load import har.")],
        target: options
            .target
            .clone()
            .unwrap_or_else(|| origin.origin().ascii_serialization()),
        rate: options.rate.unwrap_or(1),
        duration_s: options.duration_s,
        variables: Vec::new(),
        scenarios: vec![Scene {
            name: "recorded".to_owned(),
            weight: 1,
            steps,
        }],
    };
    let mut notes = secrets.notes();
    if changing > 0 {
        notes.push(format!(
            "{changing} requests may change something; --only-get leaves them out"
        ));
    }
    notes.extend(left_out.notes());
    Ok(Imported {
        script: draft.text(),
        requests: draft.requests(),
        notes,
    })
}

/// Host, and port where it is not the scheme's own.
fn authority(url: &url::Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

fn titles(log: &Fields<'_>) -> Read<Vec<(String, String)>> {
    let Some(pages) = log.get("pages") else {
        return Ok(Vec::new());
    };
    let mut titles = Vec::new();
    for page in list(pages, "pages")? {
        let page = Fields::of(page, "a page")?;
        let id = text(page.need("id")?, "id")?;
        let title = page.get("title").map(|t| text(t, "title")).transpose()?;
        titles.push((id.clone(), title.filter(|t| !t.is_empty()).unwrap_or(id)));
    }
    Ok(titles)
}

/// An entry; or why it is left out.
fn entry(node: &Node) -> Read<Result<Entry<'_>, String>> {
    let fields = Fields::of(node, "an entry")?;
    let request = Fields::of(fields.need("request")?, "request")?;
    let url_node = request.need("url")?;
    let url = text(url_node, "url")?;
    let url = match url::Url::parse(&url) {
        Ok(url) => url,
        Err(e) => {
            let said = format!("{:?} is no URL: {e}", short(&url));
            return Err(Mistake::at(&url_node.place, said));
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        return Ok(Err(format!("{}: URL", url.scheme())));
    }
    let verb = text(request.need("method")?, "method")?;
    let Some(method) = method(&verb) else {
        return Ok(Err(format!("method {:?}", short(&verb))));
    };
    let time = fields.need("startedDateTime")?;
    let said = text(time, "startedDateTime")?;
    let at_ms = instant_ms(&said).ok_or_else(|| {
        let why = format!("startedDateTime {:?} is no time", short(&said));
        Mistake::at(&time.place, why).hint("expected ISO 8601, such as 2026-01-31T12:00:00.000Z")
    })?;
    let status = match fields.get("response") {
        Some(node) => number(Fields::of(node, "response")?.get("status")),
        None => 200.0,
    };
    if status == 0.0 {
        return Ok(Err(
            "request without a response (blocked or cancelled)".to_owned()
        ));
    }
    Ok(Ok(Entry {
        at_ms,
        took_ms: number(fields.get("time")),
        page: fields
            .get("pageref")
            .map(|p| text(p, "pageref"))
            .transpose()?,
        url,
        method,
        request,
        status,
    }))
}

/// A number of at least 0; 0 for anything else.
fn number(node: Option<&Node>) -> f64 {
    let value = node.and_then(|n| match &n.kind {
        Kind::Scalar(value) => value.as_f64(),
        _ => None,
    });
    value.filter(|n| n.is_finite()).unwrap_or(0.0).max(0.0)
}

/// Milliseconds since 1970. Fractions finer than a millisecond are cut.
fn instant_ms(text: &str) -> Option<f64> {
    let (head, rest) = text.split_at_checked(19)?;
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(rest.len());
    let (fraction, zone) = rest.split_at(end);
    let zone = match zone {
        "" => "Z".to_owned(),
        // +0200 is found, too.
        z if z.len() == 5 && !z.contains(':') && z.is_ascii() => format!("{}:{}", &z[..3], &z[3..]),
        z => z.to_owned(),
    };
    let seconds = model::timestamp::parse_rfc3339(&format!("{head}{zone}"))?;
    let fraction: f64 = format!("0{fraction}").parse().ok()?;
    Some(seconds as f64 + (fraction * 1000.0).floor())
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// A request; or why it is left out.
fn request(entry: &Entry<'_>, secrets: &mut Secrets) -> Read<Result<Request, String>> {
    let url = &entry.url;
    let plain = &url[url::Position::BeforePath..url::Position::AfterQuery];
    let mut request = Request {
        name: format!(
            "{} {}",
            entry.method.to_uppercase(),
            super::access::fold(url.path())
        ),
        url: secrets.pairs(plain),
        method: entry.method.clone(),
        stay: (300.0..400.0).contains(&entry.status),
        ..Request::default()
    };
    let mut literal = plain.contains("{{");
    for node in entry
        .request
        .get("headers")
        .map_or(Ok(&[][..]), |n| list(n, "headers"))?
    {
        let pair = Fields::of(node, "a header")?;
        let name = text(pair.need("name")?, "name")?;
        let value = text(pair.need("value")?, "value")?;
        let lower = name.to_ascii_lowercase();
        let browser = lower.starts_with(':') || lower.starts_with("sec-");
        // Node refuses what is no ASCII, and so does Artillery.
        let usable = value.is_ascii()
            && http::HeaderName::from_bytes(name.as_bytes()).is_ok()
            && http::HeaderValue::from_str(&value).is_ok();
        if browser || NOT_SENT.contains(&lower.as_str()) || !usable {
            continue;
        }
        literal |= value.contains("{{");
        let value = secrets.header(&name, &value);
        request.headers.push((name, value));
    }
    if let Some(post) = entry.request.get("postData") {
        let post = Fields::of(post, "postData")?;
        let kind = post
            .get("mimeType")
            .map_or(Ok(String::new()), |m| text(m, "mimeType"))?;
        let body = match post.get("text") {
            Some(node) => text(node, "text")?,
            None => String::new(),
        };
        literal |= body.contains("{{");
        if reads(&request.method) && !body.is_empty() {
            return Ok(Err(format!(
                "{} with a body",
                request.method.to_uppercase()
            )));
        }
        if body.is_empty() && kind.starts_with("multipart/") {
            return Ok(Err("multipart body that the file does not hold".to_owned()));
        }
        let form = kind.starts_with("application/x-www-form-urlencoded");
        let params = post
            .get("params")
            .map_or(Ok(&[][..]), |n| list(n, "params"))?;
        request.body = if body.is_empty() && form && !params.is_empty() {
            let mut pairs = url::form_urlencoded::Serializer::new(String::new());
            for node in params {
                let pair = Fields::of(node, "a parameter")?;
                let value = pair
                    .get("value")
                    .map_or(Ok(String::new()), |v| text(v, "value"))?;
                pairs.append_pair(&text(pair.need("name")?, "name")?, &value);
            }
            Body::Text(secrets.pairs(&pairs.finish()))
        } else if body.is_empty() {
            Body::None
        } else if form {
            Body::Text(secrets.pairs(&body))
        } else {
            Body::Text(secrets.json(&body))
        };
        let named = |(name, _): &(String, String)| name.eq_ignore_ascii_case("content-type");
        if !kind.is_empty() && !request.headers.iter().any(named) {
            request.headers.push(("content-type".to_owned(), kind));
        }
    }
    if literal {
        return Ok(Err(
            "request with {{ in it, which a script would take for a template".to_owned(),
        ));
    }
    Ok(Ok(request))
}

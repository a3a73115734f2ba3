//! Owns making a script of an access log: a scenario for each route, as often as it came, ids of paths folded.
//! Must not know log formats ([`crate::targets`] reads them) or the script's text.

use std::collections::HashMap;

use super::script::{Body, Draft, Request, Scene, Step};
use super::secrets::Secrets;
use super::{Imported, LeftOut, Options};
use crate::artillery::Mistake;
use crate::artillery::mistake::{Place, Source};
use crate::targets;

/// Routes that get a scenario of their own.
const MAX_ROUTES: usize = 200;
/// URLs kept of a route; each user draws one.
const MAX_URLS: usize = 100;

/// Makes a script of an access log in the common or combined format. Each route (method and path, ids folded) is a
/// scenario whose weight is how often it came; its URLs are drawn from those seen, in the same proportion.
///
/// # Errors
/// When no line is an entry with GET or HEAD, or no target was given: a log does not name its server.
pub fn access_log(name: &str, source: &str, options: &Options) -> Result<Imported, Mistake> {
    let log = targets::access_log(source).map_err(|e| {
        let place = Place {
            source: Source {
                name: name.to_owned(),
                text: source.to_owned(),
            }
            .into(),
            line: e.line,
            column: 1,
            width: source
                .lines()
                .nth(e.line - 1)
                .map_or(1, |l| l.chars().count()),
        };
        Mistake::at(&place, e.why)
    })?;
    let Some(target) = options.target.clone() else {
        let said = "an access log does not name its server";
        return Err(Mistake::file(name, said).hint("give one: --target http://127.0.0.1:8080"));
    };
    let mut secrets = Secrets::new()?;
    let mut left_out = LeftOut::default();
    let mut routes: HashMap<(String, String), Vec<(String, u32)>> = HashMap::new();
    for request in &log.requests {
        if request.path.contains("{{") {
            left_out.add("URL with {{ in it, which a script would take for a template");
            continue;
        }
        let path = request.path.split(['?', '#']).next().unwrap_or("/");
        let key = (request.method.clone(), fold(path));
        let url = secrets.pairs(&request.path);
        routes.entry(key).or_default().push((url, request.weight));
    }
    if routes.is_empty() {
        let why: Vec<String> = left_out.notes().collect();
        return Err(Mistake::file(name, "no request is left to send").hint(why.join("; ")));
    }
    let weight = |urls: &[(String, u32)]| urls.iter().map(|(_, n)| u64::from(*n)).sum::<u64>();
    let mut routes: Vec<_> = routes.into_iter().collect();
    routes.sort_by(|a, b| weight(&b.1).cmp(&weight(&a.1)).then_with(|| a.0.cmp(&b.0)));
    for ((method, route), _) in routes.drain(MAX_ROUTES.min(routes.len())..) {
        left_out.add(format!(
            "route beyond the {MAX_ROUTES} most frequent, such as {method} {route}"
        ));
    }
    let mut draft = Draft {
        about: vec![format!("Imported from {name} by nines load import log.")],
        target,
        duration_s: options.duration_s,
        ..Draft::default()
    };
    for (number, ((method, route), urls)) in routes.iter().enumerate() {
        let (url, more) = match urls.as_slice() {
            [(only, _)] => (only.clone(), None),
            many => {
                let name = format!("url{}", number + 1);
                (format!("{{{{ {name} }}}}"), Some((name, spread(many))))
            }
        };
        draft.variables.extend(more);
        let title = format!("{method} {route}");
        draft.scenarios.push(Scene {
            name: title.clone(),
            weight: weight(urls),
            steps: vec![Step::Send(Box::new(Request {
                method: method.to_ascii_lowercase(),
                url,
                name: title,
                body: Body::None,
                stay: true,
                ..Request::default()
            }))],
        });
    }
    let last = log.entries.last().map(|(at, _)| at.as_secs_f64());
    let mean = log.entries.len() as f64 / last.unwrap_or_default().max(1.0);
    draft.rate = options.rate.unwrap_or((mean.round() as u32).max(1));
    let mut notes = secrets.notes();
    notes.push(format!(
        "the log's mean rate is {mean:.1} requests a second"
    ));
    if log.skipped_methods > 0 {
        notes.push(format!(
            "left out: {} x method other than GET and HEAD (a log has no bodies)",
            log.skipped_methods
        ));
    }
    if log.skipped_lines > 0 {
        notes.push(format!(
            "left out: {} x line that is no entry",
            log.skipped_lines
        ));
    }
    notes.extend(left_out.notes());
    Ok(Imported {
        script: draft.text(),
        requests: draft.requests(),
        notes,
    })
}

/// At most [`MAX_URLS`] URLs, each as often as its share of the whole; every one once as long as there is room.
fn spread(urls: &[(String, u32)]) -> Vec<String> {
    let mut sorted: Vec<&(String, u32)> = urls.iter().collect();
    sorted.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    sorted.truncate(MAX_URLS);
    let least = sorted.last().map_or(1, |(_, n)| (*n).max(1));
    let total: u64 = sorted
        .iter()
        .map(|(_, n)| u64::from(n.div_ceil(least)))
        .sum();
    let shrink = (total as f64 / MAX_URLS as f64).max(1.0);
    let times = |n: u32| ((f64::from(n.div_ceil(least)) / shrink) as usize).max(1);
    let copies = |(url, n): &&(String, u32)| std::iter::repeat_n(url.clone(), times(*n));
    sorted.iter().flat_map(copies).collect()
}

/// A path with what looks like an id replaced by `{id}`: numbers, UUIDs, long hexadecimal words and long words that mix
/// letters and digits.
pub(super) fn fold(path: &str) -> String {
    let folded: Vec<&str> = path
        .split('/')
        .map(|part| if is_id(part) { "{id}" } else { part })
        .collect();
    folded.join("/")
}

fn is_id(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    if part.is_empty() || digits == 0 {
        return false;
    }
    let hex = part.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    let word = part
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    digits == part.len() || (hex && part.len() >= 8) || (word && part.len() >= 16 && digits >= 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_folded_and_words_stay() {
        let cases = [
            ("/products/12", "/products/{id}"),
            ("/", "/"),
            (
                "/v1/u/3f2504e0-4f89-11d3-9a0c-0305e82c3301/x",
                "/v1/u/{id}/x",
            ),
            ("/blob/deadbeef01", "/blob/{id}"),
            ("/a/facade", "/a/facade"),
            ("/api/v2/oauth2", "/api/v2/oauth2"),
            ("/s/Zx81kQ02mLp4Wt7Y", "/s/{id}"),
            ("/app.3fa9c1.js", "/app.3fa9c1.js"),
            ("/2024/10", "/{id}/{id}"),
        ];
        for (path, expected) in cases {
            assert_eq!(fold(path), expected);
        }
    }

    #[test]
    fn urls_keep_their_proportion_and_their_number_is_bounded() {
        let urls = [("/a".to_owned(), 30), ("/b".to_owned(), 10)];
        assert_eq!(spread(&urls), ["/a", "/a", "/a", "/b"]);
        let many: Vec<_> = (0..5000_u32)
            .map(|n| (format!("/{n}"), 1 + n % 7))
            .collect();
        assert!(spread(&many).len() <= 2 * MAX_URLS);
        let skewed = [("/a".to_owned(), 1_000_000), ("/b".to_owned(), 1)];
        let kept = spread(&skewed);
        assert!(kept.len() <= MAX_URLS + 1 && kept.contains(&"/b".to_owned()));
    }
}

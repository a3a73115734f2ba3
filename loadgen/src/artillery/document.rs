//! Owns XPath 1.0 over XML and CSS selectors over HTML: the value that a capture or match takes. Must not know requests.

use rand::seq::IndexedRandom;
use scraper::{Html, Selector};
use serde_json::{Map, Value};
use sxd_xpath::{Context, Factory};

/// The largest document searched, in bytes.
const MAX_DOCUMENT: usize = 2 << 20;
/// The deepest nesting of XML: the parser's time grows with its square.
const MAX_DEPTH: usize = 500;

/// Which of several elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    At(usize),
    Last,
    Random,
}

/// Whether an XPath can be read.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_xpath(path: &str) -> Result<(), String> {
    match Factory::new().build(path) {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err("it is empty".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a selector can be read.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_selector(selector: &str) -> Result<(), String> {
    Selector::parse(selector)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

/// The text of what an XPath finds: of several nodes the first, as in Artillery.
pub(crate) fn xpath(body: &[u8], path: &str) -> Option<Value> {
    let text = document(body).filter(|text| depth(text) <= MAX_DEPTH)?;
    let package = sxd_document::parser::parse(&text).ok()?;
    let document = package.as_document();
    let found = Factory::new().build(path).ok()??;
    match found.evaluate(&Context::new(), document.root()).ok()? {
        sxd_xpath::Value::Boolean(b) => Some(b.into()),
        sxd_xpath::Value::Number(n) if n.fract() == 0.0 && n.abs() < 1e15 => {
            Some((n as i64).into())
        }
        sxd_xpath::Value::Number(n) => Some(n.into()),
        sxd_xpath::Value::String(s) => Some(s.into()),
        sxd_xpath::Value::Nodeset(nodes) => {
            Some(nodes.document_order_first()?.string_value().into())
        }
    }
}

/// An attribute of the element that a selector finds; without a name all its attributes.
pub(crate) fn selector(body: &[u8], css: &str, attr: Option<&str>, pick: Pick) -> Option<Value> {
    let text = document(body)?;
    let html = Html::parse_document(&text);
    let selector = Selector::parse(css).ok()?;
    let found: Vec<_> = html.select(&selector).collect();
    let element = match pick {
        Pick::At(at) => found.get(at),
        Pick::Last => found.last(),
        Pick::Random => found.choose(&mut rand::rng()),
    }?;
    match attr {
        Some(name) => element.attr(name).map(Value::from),
        None => {
            let pairs = element.value().attrs();
            let pairs = pairs.map(|(name, value)| (name.to_owned(), value.into()));
            Some(Value::Object(pairs.collect::<Map<_, _>>()))
        }
    }
}

/// How deeply elements are nested, at most: tags in comments count, too.
fn depth(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut now, mut most) = (0_usize, 0);
    for (i, pair) in bytes.windows(2).enumerate() {
        match pair {
            b"</" => now = now.saturating_sub(1),
            b"/>" => now = now.saturating_sub(usize::from(i > 0)),
            [b'<', next] if next.is_ascii_alphabetic() || *next == b'_' => now += 1,
            _ => {}
        }
        most = most.max(now);
    }
    most
}

fn document(body: &[u8]) -> Option<String> {
    (body.len() <= MAX_DOCUMENT).then(|| String::from_utf8_lossy(body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn xpaths_find_values() {
        let body = br#"<?xml version="1.0"?>
<shop><item id="4" price="1.5">tea</item><item id="5">rye</item><n>7</n></shop>"#;
        for (path, want) in [
            ("//item[@id='5']", Some(json!("rye"))),
            ("/shop/item[1]/@price", Some(json!("1.5"))),
            ("//item[last()]/text()", Some(json!("rye"))),
            ("count(//item)", Some(json!(2))),
            ("string(//n)", Some(json!("7"))),
            ("//n = 7", Some(json!(true))),
            ("//nix", None),
        ] {
            assert_eq!(xpath(body, path), want, "{path}");
        }
        assert_eq!(xpath(body, "//item/@id"), Some(json!("4")));
        assert_eq!(xpath(b"{}", "//a"), None);
        assert!(check_xpath("//a[").is_err());
        assert!(check_xpath("//a").is_ok());
        let deep = "<a>".repeat(200_000);
        assert_eq!(xpath(deep.as_bytes(), "//b"), None);
        let wide = format!("<r>{}</r>", "<a x='1'><b/></a>".repeat(20_000));
        assert_eq!(xpath(wide.as_bytes(), "count(//b)"), Some(json!(20_000)));
    }

    #[test]
    fn selectors_find_attributes() {
        let body =
            b"<ul><li class=a data-n=1>x<li class=a data-n=2><a href='/q?a=1&amp;b=2'>y</a></ul>";
        let find = |css: &str, attr: Option<&str>, pick| selector(body, css, attr, pick);
        assert_eq!(find("li.a", Some("data-n"), Pick::At(0)), Some(json!("1")));
        assert_eq!(find("li.a", Some("data-n"), Pick::Last), Some(json!("2")));
        assert_eq!(
            find("li > a", Some("href"), Pick::At(0)),
            Some(json!("/q?a=1&b=2"))
        );
        assert!(find("li", Some("data-n"), Pick::Random).is_some());
        assert_eq!(find("li", Some("data-n"), Pick::At(2)), None);
        assert_eq!(
            find("li", None, Pick::At(0)),
            Some(json!({"class": "a", "data-n": "1"}))
        );
        assert!(check_selector("li[").is_err());
    }
}

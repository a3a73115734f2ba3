//! Owns reading what belongs to WebSocket scenarios: `config.ws`, `connect`, `send` and `wait`. Must not run any.

use std::net::IpAddr;
use std::time::Duration;

use super::fields::{Fields, Read, list, number, pairs, text, truth};
use super::flow::{Around, captures, matches};
use super::mistake::Mistake;
use super::script::{Awaited, Connect, WsOptions, WsStep};
use super::tree::{Kind, Node};
use crate::transport::Proxy;

/// `config.ws`.
pub(crate) fn options(node: Option<&Node>, timeout: Duration) -> Read<WsOptions> {
    let mut options = WsOptions {
        headers: Vec::new(),
        subprotocols: Vec::new(),
        timeout,
        insecure: false,
        proxy: None,
    };
    let Some(node) = node else {
        return Ok(options);
    };
    let fields = Fields::of(node, "config.ws")?;
    let known = [
        "headers",
        "subprotocols",
        "timeout",
        "rejectUnauthorized",
        "proxy",
    ];
    fields.allow(&known, &[])?;
    if let Some(node) = fields.get("proxy") {
        options.proxy = Some(proxy(node)?);
    }
    if let Some(node) = fields.get("rejectUnauthorized") {
        options.insecure = !truth(node, "rejectUnauthorized")?;
    }
    if let Some(node) = fields.get("headers") {
        options.headers = pairs(node, "headers")?;
    }
    if let Some(node) = fields.get("subprotocols") {
        options.subprotocols = texts(node, "subprotocols")?;
    }
    if let Some(node) = fields.get("timeout") {
        let seconds = Duration::try_from_secs_f64(number(node, "timeout")?);
        options.timeout = seconds.map_err(|e| Mistake::at(&node.place, e.to_string()))?;
    }
    Ok(options)
}

/// `config.ws.proxy`: the proxy, and the address of ours to come from.
fn proxy(node: &Node) -> Read<(Proxy, Option<IpAddr>)> {
    let fields = Fields::of(node, "config.ws.proxy")?;
    fields.allow(&["url", "localAddress"], &[])?;
    let url = fields.need("url")?;
    let proxy = Proxy::parse(&text(url, "url")?).map_err(|e| Mistake::at(&url.place, e))?;
    let from = match fields.get("localAddress") {
        Some(node) => {
            let address = text(node, "localAddress")?.parse();
            Some(address.map_err(|_| Mistake::at(&node.place, "localAddress is no IP address"))?)
        }
        None => None,
    };
    Ok((proxy, from))
}

fn texts(node: &Node, key: &str) -> Read<Vec<String>> {
    list(node, key)?.iter().map(|n| text(n, key)).collect()
}

/// The `connect` of a scenario's first step.
pub(crate) fn connect(node: &Node, around: &Around<'_>) -> Read<Connect> {
    if !matches!(node.kind, Kind::Map(_)) {
        return Ok(Connect::To(text(node, "connect")?.into()));
    }
    let fields = Fields::of(node, "connect")?;
    let proxy = "it stands under config.ws";
    fields.allow(
        &["target", "headers", "subprotocols", "function"],
        &[("proxy", proxy)],
    )?;
    if let Some(node) = fields.get("function") {
        return Ok(Connect::Function(around.function(node, "function")?));
    }
    Ok(Connect::With {
        target: fields.get("target").map(Node::value),
        headers: fields
            .get("headers")
            .map(|n| pairs(n, "headers"))
            .transpose()?,
        subprotocols: fields
            .get("subprotocols")
            .map(|n| texts(n, "subprotocols"))
            .transpose()?,
    })
}

/// `send` or `wait`. A map with `capture` or `match` has its payload under `payload`, any other is the payload.
pub(crate) fn step(key: &str, node: &Node, around: &Around<'_>) -> Read<WsStep> {
    let fields = match &node.kind {
        Kind::Map(_) => Some(Fields::of(node, "a message")?),
        _ => None,
    };
    let awaits = |f: &Fields<'_>| f.get("capture").is_some() || f.get("match").is_some();
    if let Some(fields) = fields.filter(awaits) {
        fields.allow(&["payload", "capture", "match"], &[])?;
        return Ok(WsStep {
            payload: fields.get("payload").map(Node::value),
            awaited: Some(Awaited {
                capture: captures(fields.get("capture"), around)?,
                matches: matches(fields.get("match"), around)?,
            }),
        });
    }
    if key == "wait" {
        return Err(Mistake::at(
            &node.place,
            "wait has neither \"capture\" nor \"match\"",
        ));
    }
    Ok(WsStep {
        payload: Some(node.value()),
        awaited: None,
    })
}

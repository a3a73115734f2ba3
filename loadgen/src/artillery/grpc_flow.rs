//! Owns reading what belongs to gRPC scenarios: `config.engines.grpc` and `call`. Must not run any.

use std::sync::Arc;

use model::spelling::nearest;
use prost_reflect::DescriptorPool;

use super::fields::{Fields, Read, one_or_more, pairs, span, text};
use super::flow::{Around, captures, matches};
use super::grpc;
use super::mistake::Mistake;
use super::read::{ReadOptions, directory};
use super::script::{GrpcOptions, GrpcStep};
use super::tree::{Kind, Node};

/// `config.engines.grpc`: `.proto` files read at once; without any the server is asked.
pub(crate) fn options(node: Option<&Node>, read: &ReadOptions) -> Read<GrpcOptions> {
    let mut options = GrpcOptions {
        pool: None,
        metadata: Vec::new(),
        reflected: Arc::new(tokio::sync::Mutex::new(DescriptorPool::global())),
    };
    let Some(node) = node.filter(|n| matches!(n.kind, Kind::Map(_))) else {
        return Ok(options);
    };
    let fields = Fields::of(node, "config.engines.grpc")?;
    fields.allow(&["proto", "include", "metadata"], &[])?;
    if let Some(node) = fields.get("metadata") {
        options.metadata = pairs(node, "metadata")?;
    }
    let Some(protos) = fields.get("proto") else {
        return Ok(options);
    };
    let folder = directory(&read.script);
    let paths = |node: &Node, key: &str| -> Read<Vec<std::path::PathBuf>> {
        let each = one_or_more(node)
            .iter()
            .map(|n| Ok(folder.join(text(n, key)?)));
        each.collect()
    };
    let files = paths(protos, "proto")?;
    let mut include = match fields.get("include") {
        Some(node) => paths(node, "include")?,
        None => Vec::new(),
    };
    include.push(folder.clone());
    include.extend(files.iter().filter_map(|f| Some(f.parent()?.to_owned())));
    let compiled = protox::compile(&files, &include).map_err(|e| {
        let place = e.file().map(|f| format!("{f}: ")).unwrap_or_default();
        Mistake::at(&protos.place, format!("{place}{e}"))
    })?;
    let pool = DescriptorPool::from_file_descriptor_set(compiled);
    options.pool = Some(pool.map_err(|e| Mistake::at(&protos.place, e.to_string()))?);
    Ok(options)
}

/// A `call` step.
pub(crate) fn call(node: &Node, around: &Around<'_>) -> Read<GrpcStep> {
    let fields = Fields::of(node, "a call")?;
    let known = [
        "method", "message", "metadata", "timeout", "capture", "match", "name",
    ];
    fields.allow(&known, &[])?;
    let place = fields.need("method")?;
    let method = text(place, "method")?;
    if !method.contains("{{") {
        if !method.trim_start_matches('/').contains('/') {
            let message = format!("method {method:?} is not package.Service/Method");
            return Err(Mistake::at(&place.place, message));
        }
        if let Some(pool) = &around.grpc.pool {
            check(pool, &method, place)?;
        }
    }
    Ok(GrpcStep {
        route: 0,
        method,
        message: fields
            .get("message")
            .map_or_else(|| serde_json::json!({}), Node::value),
        metadata: match fields.get("metadata") {
            Some(node) => pairs(node, "metadata")?,
            None => Vec::new(),
        },
        timeout: fields
            .get("timeout")
            .map(|n| span(n, "timeout"))
            .transpose()?,
        capture: captures(fields.get("capture"), around)?,
        matches: matches(fields.get("match"), around)?,
    })
}

fn check(pool: &DescriptorPool, name: &str, node: &Node) -> Read<()> {
    let Some(method) = grpc::method(pool, name) else {
        let all: Vec<String> = pool
            .services()
            .flat_map(|s| {
                s.methods()
                    .map(|m| format!("{}/{}", s.full_name(), m.name()))
                    .collect::<Vec<_>>()
            })
            .collect();
        let hint = match nearest(name, all.iter().map(String::as_str)) {
            Some(guess) => format!("did you mean {guess:?}? (there are: {})", all.join(", ")),
            None => format!("there are: {}", all.join(", ")),
        };
        let message = format!("no method {name:?} in the .proto files");
        return Err(Mistake::at(&node.place, message).hint(hint));
    };
    if method.is_client_streaming() || method.is_server_streaming() {
        let message = format!("{name} streams; only unary calls are supported");
        return Err(Mistake::at(&node.place, message));
    }
    Ok(())
}

//! Owns asking a gRPC server for the descriptors of a service by reflection (`grpc.reflection.v1`, else `v1alpha`).
//! Must not know users.

use std::collections::BTreeMap;

use http::HeaderMap;
use prost_reflect::DescriptorPool;
use prost_reflect::prost::Message;
use prost_reflect::prost_types::FileDescriptorProto;

use super::grpc::Channel;
use super::net::node_code;

/// The most files one service may need.
const MAX_FILES: usize = 500;

/// `ServerReflectionRequest`; the numbers are those of reflection.proto.
#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(string, optional, tag = "3")]
    file_by_filename: Option<String>,
    #[prost(string, optional, tag = "4")]
    file_containing_symbol: Option<String>,
}

/// `ServerReflectionResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct Told {
    #[prost(message, optional, tag = "4")]
    files: Option<Files>,
    #[prost(message, optional, tag = "7")]
    error: Option<Refusal>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Files {
    #[prost(bytes = "vec", repeated, tag = "1")]
    file_descriptor_proto: Vec<Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Refusal {
    #[prost(string, tag = "2")]
    error_message: String,
}

async fn ask(
    channel: &mut Channel,
    version: &str,
    what: &Ask,
) -> Result<Vec<FileDescriptorProto>, String> {
    let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
    let reply = channel
        .call(&path, &HeaderMap::new(), &what.encode_to_vec())
        .await;
    let reply = reply.map_err(|kind| node_code(kind).to_owned())?;
    let Some(message) = reply.messages.first() else {
        return Err(format!("no reflection (status {})", reply.status));
    };
    let told = Told::decode(message.clone()).map_err(|e| e.to_string())?;
    if let Some(error) = told.error {
        return Err(error.error_message);
    }
    let files = told.files.unwrap_or_default().file_descriptor_proto;
    let read =
        |bytes: Vec<u8>| FileDescriptorProto::decode(bytes.as_slice()).map_err(|e| e.to_string());
    files.into_iter().map(read).collect()
}

/// Adds the files that a service needs.
///
/// # Errors
/// Why the server does not say.
pub(crate) async fn add(
    channel: &mut Channel,
    pool: &mut DescriptorPool,
    service: &str,
) -> Result<(), String> {
    let first = Ask {
        file_by_filename: None,
        file_containing_symbol: Some(service.to_owned()),
    };
    let mut version = "v1";
    let files = match ask(channel, version, &first).await {
        Ok(files) => files,
        Err(_) => {
            version = "v1alpha";
            let asked = ask(channel, version, &first).await;
            asked.map_err(|why| format!("the server does not describe {service}: {why}"))?
        }
    };
    let mut all: BTreeMap<String, FileDescriptorProto> = BTreeMap::new();
    let mut queue = files;
    while let Some(file) = queue.pop() {
        for needed in &file.dependency {
            let known = all.contains_key(needed)
                || pool.get_file_by_name(needed).is_some()
                || queue.iter().any(|f| f.name() == needed);
            if !known {
                let more = Ask {
                    file_by_filename: Some(needed.clone()),
                    file_containing_symbol: None,
                };
                queue.extend(ask(channel, version, &more).await?);
            }
        }
        all.insert(file.name().to_owned(), file);
        if all.len() > MAX_FILES {
            return Err(format!("{service} needs more than {MAX_FILES} files"));
        }
    }
    let fresh = all
        .into_values()
        .filter(|f| pool.get_file_by_name(f.name()).is_none());
    let fresh: Vec<FileDescriptorProto> = fresh.collect();
    pool.add_file_descriptor_protos(fresh)
        .map_err(|e| e.to_string())
}

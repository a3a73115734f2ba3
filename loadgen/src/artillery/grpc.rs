//! Owns unary gRPC calls of a virtual user: its connection, a call from the script's words to the answer's, counted
//! and timed. Must not know the order of steps or where descriptors come from.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, SerializeOptions};
use serde_json::Value;
use tokio::net::TcpStream;

use super::grpc_reflect;
use super::net::node_code;
use super::script::GrpcStep;
use super::template::{self, as_text};
use super::vu::{Failure, Vu, lock};
use crate::conn::{ErrorKind, Target, Timings};
use crate::plan::random_parent;
use crate::stats::{Answer, Sample, micros};
use crate::transport::Transport;

/// The longest answer taken, in bytes.
const MAX_ANSWER: usize = 16 << 20;

/// Names of the status codes, by number.
const CODES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// What a call brought back.
pub(crate) struct Reply {
    pub(crate) status: usize,
    pub(crate) said: String,
    pub(crate) headers: HeaderMap,
    /// Messages, without their frames.
    pub(crate) messages: Vec<Bytes>,
}

/// An open connection, used for one call after the other and for parallel ones.
#[derive(Clone)]
pub(crate) struct Channel {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
    scheme: &'static str,
}

impl Channel {
    /// Connects by HTTP/2.
    pub(crate) async fn open(target: &Target, insecure: bool) -> Result<Channel, ErrorKind> {
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await;
        let stream = stream.map_err(|e| match e.kind() {
            std::io::ErrorKind::ConnectionRefused => ErrorKind::Refused,
            std::io::ErrorKind::ConnectionReset => ErrorKind::Reset,
            _ => ErrorKind::Dns,
        })?;
        let _ = stream.set_nodelay(true);
        let shake = |_| ErrorKind::Protocol;
        let sender = if target.tls {
            let config = crate::tls::client_config(insecure, &Transport::default())
                .map_err(|_| ErrorKind::Tls)?;
            let mut config = (*config).clone();
            config.alpn_protocols = vec![b"h2".to_vec()];
            let name = rustls::pki_types::ServerName::try_from(target.host.clone());
            let name = name.map_err(|_| ErrorKind::Tls)?;
            let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
            let stream = connector.connect(name, stream).await;
            let stream = stream.map_err(|_| ErrorKind::Tls)?;
            let io = TokioIo::new(stream);
            let (sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(shake)?;
            tokio::spawn(driver);
            sender
        } else {
            let io = TokioIo::new(stream);
            let (sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io)
                .await
                .map_err(shake)?;
            tokio::spawn(driver);
            sender
        };
        Ok(Channel {
            sender,
            authority: target.authority.clone(),
            scheme: if target.tls { "https" } else { "http" },
        })
    }

    fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Sends one message to a path and reads all that comes back.
    pub(crate) async fn call(
        &mut self,
        path: &str,
        metadata: &HeaderMap,
        message: &[u8],
    ) -> Result<Reply, ErrorKind> {
        let mut frame = BytesMut::with_capacity(message.len() + 5);
        frame.put_u8(0);
        frame.put_u32(u32::try_from(message.len()).map_err(|_| ErrorKind::TooLarge)?);
        frame.put_slice(message);
        let mut request = Request::new(Full::new(frame.freeze()));
        *request.method_mut() = http::Method::POST;
        let uri = format!("{}://{}{path}", self.scheme, self.authority);
        *request.uri_mut() = uri.parse().map_err(|_| ErrorKind::Protocol)?;
        *request.headers_mut() = metadata.clone();
        let headers = request.headers_mut();
        headers.insert("content-type", HeaderValue::from_static("application/grpc"));
        headers.insert("te", HeaderValue::from_static("trailers"));
        headers
            .entry("user-agent")
            .or_insert(HeaderValue::from_static("nines"));
        let failed = |e: hyper::Error| match e.is_closed() || e.is_canceled() {
            true => ErrorKind::Closed,
            false => ErrorKind::Protocol,
        };
        let response = self.sender.send_request(request).await.map_err(failed)?;
        let (parts, mut body) = response.into_parts();
        let mut headers = parts.headers;
        let mut data = BytesMut::new();
        while let Some(frame) = body.frame().await {
            match frame.map_err(failed)?.into_data() {
                Ok(bytes) => {
                    if data.len() + bytes.len() > MAX_ANSWER {
                        return Err(ErrorKind::TooLarge);
                    }
                    data.extend_from_slice(&bytes);
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        headers.extend(trailers);
                    }
                }
            }
        }
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
        let status = match text("grpc-status") {
            Some(code) => code.parse().unwrap_or(2),
            None if parts.status.is_success() => 2,
            None => 14,
        };
        Ok(Reply {
            status,
            said: text("grpc-message").unwrap_or_default().to_owned(),
            messages: messages(data.freeze()).ok_or(ErrorKind::Protocol)?,
            headers,
        })
    }
}

/// Messages out of their frames; none when a frame is cut off or compressed.
fn messages(mut data: Bytes) -> Option<Vec<Bytes>> {
    let mut all = Vec::new();
    while !data.is_empty() {
        let head = data.get(..5)?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        if head[0] != 0 || data.len() < 5 + length {
            return None;
        }
        let mut message = data.split_to(5 + length);
        all.push(message.split_off(5));
    }
    Some(all)
}

/// A method by `package.Service/Method`.
pub(crate) fn method(pool: &DescriptorPool, name: &str) -> Option<MethodDescriptor> {
    let (service, method) = name.trim_start_matches('/').rsplit_once('/')?;
    let service = pool.get_service_by_name(service)?;
    service.methods().find(|m| m.name() == method)
}

/// What a failed user is counted by.
fn refused(kind: ErrorKind) -> Failure {
    node_code(kind).to_owned()
}

impl Vu {
    async fn channel(&self) -> Result<Channel, ErrorKind> {
        let mut kept = self.grpc.lock().await;
        if let Some(channel) = kept.as_ref().filter(|c| c.is_open()) {
            return Ok(channel.clone());
        }
        let script = &self.shared.script;
        let target = Target::parse(&script.target).map_err(|_| ErrorKind::Dns)?;
        let opened = Channel::open(&target, script.insecure).await?;
        Ok(kept.insert(opened).clone())
    }

    async fn described(&self, name: &str) -> Result<MethodDescriptor, Failure> {
        let options = &self.shared.script.grpc;
        let pool = match &options.pool {
            Some(pool) => pool.clone(),
            None => {
                let service = name
                    .trim_start_matches('/')
                    .rsplit_once('/')
                    .map_or(name, |(s, _)| s);
                let mut known = options.reflected.lock().await;
                if known.get_service_by_name(service).is_none() {
                    let mut channel = self.channel().await.map_err(refused)?;
                    grpc_reflect::add(&mut channel, &mut known, service).await?;
                }
                known.clone()
            }
        };
        method(&pool, name).ok_or_else(|| format!("unknown method {name}"))
    }

    fn metadata(&self, step: &GrpcStep) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        let given = self
            .shared
            .script
            .grpc
            .metadata
            .iter()
            .chain(&step.metadata);
        for (name, value) in given {
            let value = as_text(template::fill(value, self).as_ref());
            let pair = HeaderName::from_bytes(name.to_ascii_lowercase().as_bytes())
                .ok()
                .zip(HeaderValue::from_str(&value).ok());
            let (name, value) =
                pair.ok_or_else(|| format!("ERR_INVALID_CHAR in metadata {name}"))?;
            headers.insert(name, value);
        }
        let parent = random_parent(self.shared.trace_key);
        let parent = String::from_utf8_lossy(&parent);
        for (name, value) in [
            ("traceparent", &*parent),
            ("x-nines-run-id", &self.shared.run_id),
        ] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        Ok(headers)
    }

    /// One unary call.
    pub(crate) async fn grpc_step(
        &self,
        step: &GrpcStep,
        clock: &mut Duration,
    ) -> Result<(), Failure> {
        let shared = &self.shared;
        let name = template::string(&step.method, self);
        let began = self.now();
        let method = self.described(&name).await?;
        // Asking the server what it offers is not part of the call.
        *clock += self.now().saturating_sub(began);
        let filled = template::fill(&step.message, self).unwrap_or(Value::Null);
        let message = DynamicMessage::deserialize(method.input(), filled);
        let message =
            message.map_err(|e| format!("{} does not fit: {e}", method.input().full_name()))?;
        let metadata = self.metadata(step)?;
        let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
        let due = *clock;
        if self.counted {
            shared.count("grpc.requests", 1);
            shared.rate("grpc.request_rate");
            lock(&shared.stats).started(due);
        }
        let sent = Instant::now();
        let exchange = async {
            let mut channel = self.channel().await?;
            channel
                .call(&path, &metadata, &message.encode_to_vec())
                .await
        };
        let got =
            tokio::time::timeout(step.timeout.unwrap_or(shared.script.http.timeout), exchange)
                .await;
        let got = got.unwrap_or(Err(ErrorKind::Timeout));
        let took = sent.elapsed();
        *clock = self.now();
        if self.counted {
            let outcome = got.as_ref().map_err(|kind| *kind).map(|reply| Answer {
                status: 200,
                bytes: reply.messages.iter().map(|m| m.len() as u64 + 5).sum(),
                timings: Timings {
                    first_byte: took,
                    transfer: Duration::ZERO,
                },
            });
            let at = sent.saturating_duration_since(shared.start);
            lock(&shared.stats).record(&Sample {
                route: step.route,
                due,
                picked: at,
                sent: at,
                ended: *clock,
                queued: false,
                opened: None,
                reconnected: false,
                outcome,
            });
        }
        let reply = got.map_err(refused)?;
        let code = CODES.get(reply.status).copied().unwrap_or("UNKNOWN");
        if self.counted {
            shared.count("grpc.responses", 1);
            shared.count(&format!("grpc.codes.{code}"), 1);
            shared.time("grpc.response_time", micros(took) as f64 / 1e3);
        }
        if reply.status != 0 {
            tracing::debug!(code, said = reply.said, "a call failed");
        }
        let body = match reply.messages.first().filter(|_| reply.status == 0) {
            Some(bytes) => json(&method, bytes)?,
            None => Vec::new(),
        };
        match self.capture(&step.capture, &step.matches, &reply.headers, &body) {
            true => Ok(()),
            false => Err("Failed capture or match".to_owned()),
        }
    }
}

/// An answer as JSON, with the fields' names as in the `.proto` file and default values written out.
fn json(method: &MethodDescriptor, bytes: &Bytes) -> Result<Vec<u8>, Failure> {
    let message = DynamicMessage::decode(method.output(), bytes.clone());
    let message =
        message.map_err(|e| format!("{} cannot be read: {e}", method.output().full_name()))?;
    let mut out = serde_json::Serializer::new(Vec::new());
    let options = SerializeOptions::new()
        .use_proto_field_name(true)
        .skip_default_fields(false)
        .stringify_64_bit_integers(false);
    message
        .serialize_with_options(&mut out, &options)
        .map_err(|e| e.to_string())?;
    Ok(out.into_inner())
}

//! Owns the WebSocket of a virtual user: opening it as the scenario says, sending, waiting for an answer, closing.
//! Must not know the order of steps.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message};
use url::Url;

use super::script::{Connect, Scenario, WsStep};
use super::template::{self, as_text};
use super::vu::{Failure, Vu, lock};
use crate::conn::{ErrorKind, Target, Timings};
use crate::dial::tunnel;
use crate::stats::{Answer, Sample};
use crate::transport::Transport;

/// The longest message taken, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Socket = WebSocketStream<Box<dyn Stream>>;
/// Who waits for the next message.
type Waiting = Arc<Mutex<Option<oneshot::Sender<Vec<u8>>>>>;

/// An open WebSocket. What comes while nobody waits is dropped, as in Artillery.
pub(crate) struct OpenSocket {
    sink: SplitSink<Socket, Message>,
    waiting: Waiting,
    reader: JoinHandle<()>,
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// Where a WebSocket goes and with what.
struct Call {
    target: String,
    headers: Vec<(String, String)>,
    subprotocols: Vec<String>,
}

/// An answer: status 101, so many bytes, after so long.
fn answer(bytes: usize, first_byte: Duration) -> Answer {
    Answer {
        status: 101,
        bytes: bytes as u64,
        timings: Timings {
            first_byte,
            transfer: Duration::ZERO,
        },
    }
}

/// Connects, from this address of ours when it is given.
async fn connect(host: &str, port: u16, from: Option<IpAddr>) -> std::io::Result<TcpStream> {
    let Some(from) = from else {
        return TcpStream::connect((host, port)).await;
    };
    let addrs = tokio::net::lookup_host((host, port)).await?;
    let addr = addrs.into_iter().find(|a| a.is_ipv4() == from.is_ipv4());
    let addr = addr.ok_or(std::io::ErrorKind::AddrNotAvailable)?;
    let socket = match from {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(addr).await
}

impl Vu {
    async fn ws_call(&self, scenario: &Scenario) -> Result<Call, Failure> {
        let script = &self.shared.script;
        let text = |value: &Value| as_text(template::fill(value, self).as_ref());
        let mut call = Call {
            target: script.target.clone(),
            headers: Vec::new(),
            subprotocols: script.ws.subprotocols.clone(),
        };
        let mut headers = &script.ws.headers;
        match &scenario.connect {
            None => {}
            Some(Connect::To(target)) => call.target = text(target),
            Some(Connect::With {
                target,
                headers: own,
                subprotocols,
            }) => {
                if let Some(target) = target {
                    call.target = text(target);
                }
                headers = own.as_ref().unwrap_or(headers);
                if let Some(own) = subprotocols {
                    call.subprotocols.clone_from(own);
                }
            }
            Some(Connect::Function(name)) => {
                let given = json!({"target": call.target, "subprotocols": call.subprotocols,
                    "options": {"headers": headers.iter().cloned().collect::<serde_json::Map<_, _>>()}});
                let set = self.connect_function(name, given).await?;
                if let Some(target) = set["target"].as_str() {
                    target.clone_into(&mut call.target);
                }
                let listed = set["subprotocols"].as_array().into_iter().flatten();
                call.subprotocols = listed
                    .filter_map(|p| p.as_str().map(str::to_owned))
                    .collect();
                let pairs = set["options"]["headers"].as_object().into_iter().flatten();
                call.headers = pairs.map(|(k, v)| (k.clone(), as_text(Some(v)))).collect();
                return Ok(call);
            }
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_null()) {
            let value = text(value);
            match name.eq_ignore_ascii_case("sec-websocket-protocol") {
                true => call
                    .subprotocols
                    .extend(value.split(',').map(|p| p.trim().to_owned())),
                false => call.headers.push((name.clone(), value)),
            }
        }
        Ok(call)
    }

    /// Opens the scenario's WebSocket.
    pub(crate) async fn ws_open(
        &self,
        scenario: &Scenario,
        clock: &mut Duration,
    ) -> Result<(), Failure> {
        let call = self.ws_call(scenario).await?;
        let due = *clock;
        lock(&self.shared.stats).started(due);
        let began = Instant::now();
        let opened = tokio::time::timeout(self.shared.script.ws.timeout, self.ws_dial(&call)).await;
        *clock = self.now();
        let opened = opened.unwrap_or_else(|_| Err(("ETIMEDOUT".to_owned(), None)));
        let outcome = match &opened {
            Ok(_) => Ok(answer(0, began.elapsed())),
            Err(_) => Err(ErrorKind::Refused),
        };
        self.ws_record(due, began, outcome);
        match opened {
            Ok(socket) => {
                *self.ws.lock().await = Some(socket);
                Ok(())
            }
            Err((said, code)) => {
                // Artillery counts both what the error says and its code.
                self.count(&format!("errors.{said}"));
                Err(code.unwrap_or(said))
            }
        }
    }

    async fn ws_dial(&self, call: &Call) -> Result<OpenSocket, (String, Option<String>)> {
        let plain = |why: String| (why, None);
        let url =
            Url::parse(&call.target).map_err(|_| plain(format!("Invalid URL: {}", call.target)))?;
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(plain(format!("Invalid URL: {}", call.target)));
        };
        self.allowed(&super::config::as_http_url(&url))
            .map_err(plain)?;
        let host = host.trim_matches(['[', ']']);
        let proxy = self.shared.script.ws.proxy.as_ref();
        let (to, at) = proxy.map_or((host, port), |(p, _)| (p.host.as_str(), p.port));
        let stream = connect(to, at, proxy.and_then(|(_, from)| *from)).await;
        let mut stream = stream.map_err(|e| {
            let code = match e.kind() {
                std::io::ErrorKind::ConnectionRefused => "ECONNREFUSED",
                std::io::ErrorKind::ConnectionReset => "ECONNRESET",
                _ => "ENOTFOUND",
            };
            (format!("connect {code} {to}:{at}"), Some(code.to_owned()))
        })?;
        let _ = stream.set_nodelay(true);
        if let Some((proxy, _)) = proxy {
            let target = Target::parse(&super::config::as_http(&call.target));
            let target = target.map_err(|e| plain(e.to_string()))?;
            let opened = tunnel(&mut stream, &target, proxy).await;
            opened.map_err(|e| plain(e.detail))?;
        }
        let stream: Box<dyn Stream> = match url.scheme() {
            "wss" | "https" => {
                let script = &self.shared.script;
                let insecure = script.insecure || script.ws.insecure;
                let config = crate::tls::client_config(insecure, &Transport::default());
                let config = config.map_err(|e| plain(e.to_string()))?;
                let name = rustls::pki_types::ServerName::try_from(host.to_owned());
                let name = name.map_err(|e| plain(e.to_string()))?;
                let connected = tokio_rustls::TlsConnector::from(config)
                    .connect(name, stream)
                    .await;
                Box::new(connected.map_err(|e| (e.to_string(), Some("ERR_TLS".to_owned())))?)
            }
            _ => Box::new(stream),
        };
        let mut request = call
            .target
            .as_str()
            .into_client_request()
            .map_err(|e| plain(e.to_string()))?;
        let headers = request.headers_mut();
        for (name, value) in &call.headers {
            let pair = HeaderName::from_bytes(name.as_bytes())
                .ok()
                .zip(HeaderValue::from_str(value).ok());
            let (name, value) =
                pair.ok_or_else(|| plain(format!("ERR_INVALID_CHAR in header {name}")))?;
            headers.insert(name, value);
        }
        if !call.subprotocols.is_empty() {
            let list = call.subprotocols.join(", ");
            let value = HeaderValue::from_str(&list).map_err(|e| plain(e.to_string()))?;
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
        }
        if let Ok(id) = HeaderValue::from_str(&self.shared.run_id) {
            headers.insert("x-nines-run-id", id);
        }
        let mut config = WebSocketConfig::default();
        (config.max_message_size, config.max_frame_size) = (Some(MAX_MESSAGE), Some(MAX_MESSAGE));
        let shaken =
            tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await;
        let (socket, _) = shaken.map_err(|e| match e {
            Error::Http(response) => plain(format!(
                "Unexpected server response: {}",
                response.status().as_u16()
            )),
            other => plain(other.to_string()),
        })?;
        let (sink, mut source) = socket.split();
        let waiting = Waiting::default();
        let takes = Arc::clone(&waiting);
        let reader = tokio::spawn(async move {
            while let Some(Ok(message)) = source.next().await {
                if matches!(message, Message::Text(_) | Message::Binary(_))
                    && let Some(waits) = lock(&takes).take()
                {
                    let _ = waits.send(message.into_data().to_vec());
                }
            }
            // Whoever waits learns that nothing more will come.
            lock(&takes).take();
        });
        Ok(OpenSocket {
            sink,
            waiting,
            reader,
        })
    }

    fn ws_record(&self, due: Duration, began: Instant, outcome: Result<Answer, ErrorKind>) {
        let sent = began.saturating_duration_since(self.shared.start);
        lock(&self.shared.stats).record(&Sample {
            route: self.shared.routes.websocket,
            due,
            picked: sent,
            sent,
            ended: self.now(),
            queued: false,
            opened: None,
            reconnected: false,
            outcome,
        });
    }

    /// Sends, waits for an answer, or both.
    pub(crate) async fn ws_step(&self, step: &WsStep, clock: &mut Duration) -> Result<(), Failure> {
        let mut socket = self.ws.lock().await;
        let Some(socket) = socket.as_mut() else {
            return Err("WebSocket is not open".to_owned());
        };
        let awaited = step.awaited.as_ref().map(|awaited| {
            let (tell, heard) = oneshot::channel();
            *lock(&socket.waiting) = Some(tell);
            (awaited, heard)
        });
        if awaited.is_none() {
            lock(&socket.waiting).take();
        } else if socket.reader.is_finished() {
            return Err("WebSocket is not open: readyState 3 (CLOSED)".to_owned());
        }
        let due = *clock;
        let began = Instant::now();
        if let Some(payload) = &step.payload {
            let filled = template::fill(payload, self).unwrap_or(Value::Null);
            let text = match &filled {
                Value::Null => String::new(),
                filled => as_text(Some(filled)),
            };
            self.count("websocket.messages_sent");
            self.shared.rate("websocket.send_rate");
            if let Err(error) = socket.sink.send(Message::text(text)).await {
                return Err(match error {
                    Error::ConnectionClosed | Error::AlreadyClosed | Error::Protocol(_) => {
                        "WebSocket is not open: readyState 3 (CLOSED)".to_owned()
                    }
                    other => other.to_string(),
                });
            }
        }
        let Some((awaited, heard)) = awaited else {
            *clock = self.now();
            return Ok(());
        };
        lock(&self.shared.stats).started(due);
        let heard = tokio::time::timeout(self.shared.script.ws.timeout, heard).await;
        *clock = self.now();
        let data = match heard {
            Ok(Ok(data)) => data,
            Ok(Err(_)) => {
                self.ws_record(due, began, Err(ErrorKind::Closed));
                return Err("response timeout".to_owned());
            }
            Err(_) => {
                self.ws_record(due, began, Err(ErrorKind::Timeout));
                return Err("response timeout".to_owned());
            }
        };
        self.ws_record(due, began, Ok(answer(data.len(), began.elapsed())));
        self.count("websocket.messages_received");
        self.shared.rate("websocket.receive_rate");
        if data.is_empty() {
            return Err("Empty response from WS server".to_owned());
        }
        match self.capture(&awaited.capture, &awaited.matches, &HeaderMap::new(), &data) {
            true => Ok(()),
            false => Err("Failed capture or match".to_owned()),
        }
    }

    /// Says goodbye and waits for the server's, a second at most: a connection that goes before its last messages have
    /// been read would take them with it.
    pub(crate) async fn ws_close(&self) {
        if let Some(mut socket) = self.ws.lock().await.take() {
            let both = async {
                if socket.sink.close().await.is_ok() {
                    let _ = (&mut socket.reader).await;
                }
            };
            let _ = tokio::time::timeout(Duration::from_secs(1), both).await;
        }
    }
}

//! Owns the typed script: what a run needs, checked. Must not know YAML, sockets or clocks.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use prost_reflect::DescriptorPool;
use serde_json::Value;

use super::capture::Extractor;
use super::expr::Expr;
use super::js::Processor;
use super::payload::Payload;
use super::request::Ready;
use crate::transport::Proxy;

/// A script, read and checked. Make one with [`super::read`].
#[derive(Debug, Clone)]
pub struct Script {
    pub(crate) name: String,
    pub(crate) directory: std::path::PathBuf,
    /// The directory of the file that `--config` names, else of the script.
    pub(crate) config_directory: std::path::PathBuf,
    pub(crate) environment: Option<String>,
    /// Environment variables, those of `--dotenv` among them.
    pub(crate) env: Arc<BTreeMap<String, String>>,
    pub(crate) processor: Option<Arc<Processor>>,
    pub(crate) target: String,
    pub(crate) phases: Vec<Phase>,
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) before: Option<Scenario>,
    pub(crate) after: Option<Scenario>,
    /// Each with its values; more than one, and each user draws one.
    pub(crate) variables: Vec<(String, Vec<Value>)>,
    pub(crate) payloads: Vec<Payload>,
    pub(crate) http: HttpOptions,
    pub(crate) ws: WsOptions,
    pub(crate) grpc: GrpcOptions,
    pub(crate) insecure: bool,
    pub(crate) checks: Vec<Check>,
    pub(crate) expect: Option<ExpectOptions>,
    /// How long a response may take that satisfies.
    pub(crate) apdex: Option<Duration>,
    /// What plugins do after each response, in this order.
    pub(crate) after_response: Vec<AfterResponse>,
    pub(crate) endpoints: EndpointOptions,
    /// The plugin `fake-data`.
    pub(crate) fake: Option<super::fake::Options>,
    /// What the user should know before the run.
    pub(crate) notes: Vec<String>,
}

impl Script {
    /// What the user should know before the run.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// How long its phases are together.
    pub fn length(&self) -> Duration {
        self.phases.iter().map(|phase| phase.length).sum()
    }

    /// Where it goes, a WebSocket's URL as that of its HTTP.
    pub fn target_url(&self) -> String {
        super::config::as_http(&self.target)
    }
}

/// A part of the schedule.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Phase {
    pub(crate) name: Option<String>,
    pub(crate) length: Duration,
    pub(crate) kind: PhaseKind,
    pub(crate) max_vusers: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum PhaseKind {
    Pause,
    /// Users a second.
    Rate {
        rate: f64,
        poisson: bool,
    },
    /// Users a second in the first second and in the last.
    Ramp {
        from: f64,
        to: f64,
    },
    /// So many users, evenly.
    Count(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    pub(crate) name: String,
    /// A number, or a template of one.
    pub(crate) weight: Value,
    pub(crate) flow: Vec<Step>,
    pub(crate) hooks: Hooks,
    pub(crate) engine: Engine,
    /// Where the WebSocket goes, when not to the target as it stands.
    pub(crate) connect: Option<Connect>,
}

/// What a scenario speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Http,
    Ws,
    Grpc,
}

/// `config.engines.grpc`.
#[derive(Debug, Clone)]
pub(crate) struct GrpcOptions {
    /// What the `.proto` files say; without any the server is asked.
    pub(crate) pool: Option<DescriptorPool>,
    pub(crate) metadata: Vec<(String, Value)>,
    /// What servers have said so far.
    pub(crate) reflected: Arc<tokio::sync::Mutex<DescriptorPool>>,
}

/// A unary call.
#[derive(Debug, Clone)]
pub(crate) struct GrpcStep {
    /// Which of the script's routes; see [`super::routes::Routes`].
    pub(crate) route: usize,
    /// `package.Service/Method`.
    pub(crate) method: String,
    pub(crate) message: Value,
    pub(crate) metadata: Vec<(String, Value)>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) capture: Vec<Capture>,
    pub(crate) matches: Vec<Match>,
}

/// The `connect` step of a WebSocket scenario.
#[derive(Debug, Clone)]
pub(crate) enum Connect {
    To(Value),
    With {
        target: Option<Value>,
        headers: Option<Vec<(String, Value)>>,
        subprotocols: Option<Vec<String>>,
    },
    /// A JavaScript function says it.
    Function(String),
}

/// `config.ws`.
#[derive(Debug, Clone)]
pub(crate) struct WsOptions {
    pub(crate) headers: Vec<(String, Value)>,
    pub(crate) subprotocols: Vec<String>,
    /// For opening, and for each answer.
    pub(crate) timeout: Duration,
    /// Trust any certificate.
    pub(crate) insecure: bool,
    /// Asked for a tunnel, and the address of ours to come from.
    pub(crate) proxy: Option<(Proxy, Option<std::net::IpAddr>)>,
}

/// A message to send, an answer to wait for, or both.
#[derive(Debug, Clone)]
pub(crate) struct WsStep {
    pub(crate) payload: Option<Value>,
    pub(crate) awaited: Option<Awaited>,
}

/// What the answer must hold.
#[derive(Debug, Clone)]
pub(crate) struct Awaited {
    pub(crate) capture: Vec<Capture>,
    pub(crate) matches: Vec<Match>,
}

/// Names of JavaScript functions around a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) before: Vec<String>,
    pub(crate) after: Vec<String>,
    pub(crate) on_error: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Request(Box<RequestStep>),
    Think {
        time: Value,
        jitter: Option<String>,
    },
    Log(Value),
    /// A WebSocket message.
    Ws(Box<WsStep>),
    /// A gRPC call.
    Grpc(Box<GrpcStep>),
    /// A JavaScript function.
    Function(String),
    Loop(Box<LoopStep>),
    Parallel {
        steps: Vec<Step>,
        limit: usize,
    },
}

#[derive(Debug, Clone)]
pub(crate) struct LoopStep {
    pub(crate) steps: Vec<Step>,
    pub(crate) turns: Turns,
    pub(crate) index_name: String,
    pub(crate) element_name: String,
}

#[derive(Debug, Clone)]
pub(crate) enum Turns {
    /// A number, "a-b" or a template of either; below 0 is for ever.
    Count(Value),
    /// These values.
    Values(Vec<Value>),
    /// The list that this variable holds.
    Variable(String),
    /// For as long as this JavaScript function says so, once at least.
    While(String),
}

#[derive(Debug, Clone)]
pub(crate) struct RequestStep {
    /// Which of the script's routes; see [`super::routes::Routes`].
    pub(crate) route: usize,
    pub(crate) method: http::Method,
    pub(crate) url: String,
    pub(crate) name: Option<String>,
    pub(crate) headers: Vec<(String, Value)>,
    pub(crate) cookie: Vec<(String, Value)>,
    pub(crate) qs: Vec<(String, Value)>,
    pub(crate) body: BodySpec,
    pub(crate) gzip: bool,
    pub(crate) follow: bool,
    pub(crate) auth: Option<(Value, Value)>,
    pub(crate) capture: Vec<Capture>,
    pub(crate) matches: Vec<Match>,
    pub(crate) expect: Vec<Expectation>,
    pub(crate) if_true: Option<Expr>,
    pub(crate) probability: Option<f64>,
    /// Instead of `config.http.timeout`; only hooks set it.
    pub(crate) timeout: Option<Duration>,
    pub(crate) hooks: Hooks,
    /// As it stands in the script, for hooks.
    pub(crate) raw: Arc<Value>,
    /// What it sends, once that is known to be the same each time. A copy that is changed must not use it.
    pub(crate) fixed: OnceLock<Option<Fixed>>,
}

/// A request that is the same each time it is sent.
#[derive(Debug, Clone)]
pub(crate) struct Fixed {
    pub(crate) ready: Arc<Ready>,
    /// What its endpoint is called; none when its figures are not wanted.
    pub(crate) endpoint: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
pub(crate) enum BodySpec {
    None,
    Json(Value),
    Text(Value),
    Bytes(Bytes),
    Form(Vec<(String, Value)>),
    Multipart(Vec<Part>),
}

#[derive(Debug, Clone)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) value: Value,
    pub(crate) from_file: Option<String>,
    pub(crate) content_type: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Capture {
    pub(crate) from: Extractor,
    pub(crate) name: String,
    pub(crate) strict: Option<bool>,
}

#[derive(Debug, Clone)]
pub(crate) struct Match {
    pub(crate) from: Extractor,
    pub(crate) value: Value,
    pub(crate) strict: bool,
}

/// One expectation: its kind as written, and what is expected.
#[derive(Debug, Clone)]
pub(crate) struct Expectation {
    pub(crate) kind: String,
    pub(crate) value: Value,
}

#[derive(Debug, Clone)]
pub(crate) struct HttpOptions {
    pub(crate) timeout: Duration,
    /// Connections shared by all users, per host; none: each user has one of its own.
    pub(crate) pool: Option<usize>,
    pub(crate) headers: Vec<(String, Value)>,
    pub(crate) cookie: Vec<(String, Value)>,
    pub(crate) strict_capture: bool,
    pub(crate) think_jitter: Option<String>,
    pub(crate) extended_metrics: bool,
    /// A cookie may lack a name.
    pub(crate) loose_cookies: bool,
}

/// What a plugin does after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterResponse {
    /// `expect`; when it makes an error of a failure, what follows is not done.
    Expect,
    Apdex,
    /// `metrics-by-endpoint`.
    Endpoint,
}

#[derive(Debug, Clone)]
pub(crate) struct ExpectOptions {
    pub(crate) failures_are_errors: bool,
    pub(crate) default_200: bool,
    pub(crate) only_names: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct EndpointOptions {
    pub(crate) only_names: bool,
    pub(crate) strip_query: bool,
    pub(crate) ignore_unnamed: bool,
    pub(crate) group_dynamic: bool,
    pub(crate) namespace: String,
    pub(crate) show: bool,
}

/// Something that must hold of the figures at the end.
#[derive(Debug, Clone)]
pub(crate) struct Check {
    /// As printed.
    pub(crate) shown: String,
    pub(crate) expression: String,
    /// Failing it fails the run.
    pub(crate) strict: bool,
}

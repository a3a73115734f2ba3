//! The gRPC service `Inventory` (Check, Reserve): messages and service written by hand, no protoc.
//! Must not know HTTP routes; the stock itself is read through `App`.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::server::UnaryService;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::app::App;
use crate::telemetry::{Cx, Kind, Role, attr, fail, parse_traceparent};

/// Question: are `quantity` pieces of a product there?
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StockRequest {
    /// Product.
    #[prost(int64, tag = "1")]
    pub product_id: i64,
    /// Pieces.
    #[prost(int64, tag = "2")]
    pub quantity: i64,
}

/// Answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct StockReply {
    /// Whether they are there (Check) or were taken (Reserve).
    #[prost(bool, tag = "1")]
    pub available: bool,
    /// Pieces left.
    #[prost(int64, tag = "2")]
    pub stock: i64,
    /// Price of one, cents.
    #[prost(int64, tag = "3")]
    pub price_cents: i64,
}

const CHECK: &str = "/nines.inventory.v1.Inventory/Check";
const RESERVE: &str = "/nines.inventory.v1.Inventory/Reserve";

/// The server side.
#[derive(Clone, Debug)]
pub(crate) struct Inventory(pub(crate) Arc<App>);

#[derive(Clone)]
struct Method {
    app: Arc<App>,
    reserve: bool,
}

impl tonic::server::NamedService for Inventory {
    const NAME: &'static str = "nines.inventory.v1.Inventory";
}

impl tower::Service<http::Request<tonic::body::Body>> for Inventory {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        let method = match request.uri().path() {
            CHECK => Some(false),
            RESERVE => Some(true),
            _ => None,
        };
        let app = Arc::clone(&self.0);
        Box::pin(async move {
            let Some(reserve) = method else {
                return Ok(Status::unimplemented("no such method").into_http());
            };
            let codec = ProstCodec::<StockReply, StockRequest>::default();
            Ok(tonic::server::Grpc::new(codec)
                .unary(Method { app, reserve }, request)
                .await)
        })
    }
}

impl UnaryService<StockRequest> for Method {
    type Response = StockReply;
    type Future = BoxFuture<'static, Result<Response<StockReply>, Status>>;

    fn call(&mut self, request: Request<StockRequest>) -> Self::Future {
        let Method { app, reserve } = self.clone();
        Box::pin(async move {
            let text = |k: &str| {
                request
                    .metadata()
                    .get(k)
                    .and_then(|v| v.to_str().ok())
                    .map(str::to_owned)
            };
            let cx = Cx::root(text("x-request-id").unwrap_or_default());
            let remote = text("traceparent").and_then(|t| parse_traceparent(&t));
            let name = if reserve { RESERVE } else { CHECK };
            let span = app
                .telemetry
                .span(&cx, Role::Product, Kind::Server, &name[1..], remote);
            rpc_attributes(&span, reserve);
            let cx = cx.below(&span);
            let StockRequest {
                product_id,
                quantity,
            } = *request.get_ref();
            let answer = app.stock(&cx, product_id, quantity, reserve).await;
            if let Err(e) = &answer {
                fail(&span, "unavailable");
                return Err(Status::unavailable(e.to_string()));
            }
            attr(&span, "rpc.grpc.status_code", 0_i64);
            Ok(Response::new(answer.unwrap_or_default()))
        })
    }
}

/// Asks over the wire; the caller holds the breaker and the deadline.
pub(crate) async fn check(
    app: &App,
    cx: &Cx,
    channel: Channel,
    product_id: i64,
    quantity: i64,
) -> Result<StockReply, Status> {
    let span = app
        .telemetry
        .span(cx, Role::Order, Kind::Client, &CHECK[1..], None);
    rpc_attributes(&span, false);
    let mut request = Request::new(StockRequest {
        product_id,
        quantity,
    });
    if let Some(value) = cx.below(&span).traceparent().and_then(|t| t.parse().ok()) {
        request.metadata_mut().insert("traceparent", value);
    }
    if let Ok(value) = cx.request_id.parse() {
        request.metadata_mut().insert("x-request-id", value);
    }
    let mut grpc = tonic::client::Grpc::new(channel);
    let answer = async {
        grpc.ready()
            .await
            .map_err(|e| Status::unavailable(e.to_string()))?;
        let codec = ProstCodec::<StockRequest, StockReply>::default();
        grpc.unary(request, PathAndQuery::from_static(CHECK), codec)
            .await
    };
    let answer: Result<Response<StockReply>, Status> = answer.await;
    match &answer {
        Ok(_) => attr(&span, "rpc.grpc.status_code", 0_i64),
        Err(status) => {
            attr(&span, "rpc.grpc.status_code", status.code() as i64);
            fail(&span, &format!("{:?}", status.code()).to_lowercase());
        }
    }
    answer.map(Response::into_inner)
}

fn rpc_attributes(span: &tracing::Span, reserve: bool) {
    attr(span, "rpc.system", "grpc");
    attr(span, "rpc.service", "nines.inventory.v1.Inventory");
    attr(
        span,
        "rpc.method",
        if reserve { "Reserve" } else { "Check" },
    );
}

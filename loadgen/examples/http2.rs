//! A closed load over HTTP/2 for `bench/http2`: CONNECTIONS STREAMS SECONDS URL, any certificate trusted. Prints the report.

#![allow(clippy::print_stdout, reason = "it is an example")]

use std::time::Duration;

use loadgen::{Model, Plan, Progress};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [connections, streams, seconds, url] = args.as_slice() else {
        return Err("usage: http2 CONNECTIONS STREAMS SECONDS URL".into());
    };
    let mut plan = Plan::new(url)?;
    plan.model = Model::Closed { requests: None };
    plan.connections = connections.parse()?;
    plan.duration = Duration::from_secs(seconds.parse()?);
    plan.insecure = true;
    plan.transport.http2 = true;
    plan.transport.streams = streams.parse()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (progress, _) = tokio::sync::watch::channel(Progress::default());
    let stop = tokio_util::sync::CancellationToken::new();
    let report = runtime.block_on(loadgen::run(plan, progress, stop))?;
    println!("{}", report.to_json());
    Ok(())
}

//! Drives a URL in a closed loop with the engine named, and writes the JSON report: what `bench/load` runs beside other
//! load generators.
//!
//! Arguments: io_uring, epoll or hyper; URL; connections; seconds; where the report goes; requests in a pipeline (1).

use std::error::Error;
use std::time::Duration;

use loadgen::{Engine, Model, Plan, Progress};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [engine, url, connections, seconds, output, pipeline @ ..] = args.as_slice() else {
        return Err("usage: closed io_uring|epoll|hyper URL CONNECTIONS SECONDS REPORT [N]".into());
    };
    let mut plan = Plan {
        engine: match engine.as_str() {
            "io_uring" => Engine::IoUring,
            "epoll" => Engine::Epoll,
            "hyper" => Engine::Hyper,
            other => return Err(format!("engine {other:?} is not io_uring, epoll or hyper").into()),
        },
        connections: connections.parse()?,
        duration: Duration::from_secs_f64(seconds.parse()?),
        model: Model::Closed { requests: None },
        insecure: true,
        ..Plan::new(url)?
    };
    if let Some(pipeline) = pipeline.first() {
        plan.transport.pipeline = pipeline.parse()?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (progress, _seen) = tokio::sync::watch::channel(Progress::default());
    let report = runtime.block_on(loadgen::run(plan, progress, Default::default()))?;
    report.write_json(std::io::BufWriter::new(std::fs::File::create(output)?))?;
    Ok(())
}

//! Starting, refusing to start, stopping, starting again.

use agent::AgentError;
use agent::config::OrOff;
use prost::Message;

use crate::harness::{config, server_span, start, start_in, traces};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let started = start().await;
    let body = traces("order", vec![server_span(1, 1, "/orders", 201)]).encode_to_vec();
    let request = started
        .http
        .post(started.otlp("/v1/traces"))
        .header("content-type", "application/x-protobuf");
    assert_eq!(request.body(body).send().await.unwrap().status(), 200);
    started.flush().await;
    let before = started.get("/api/nines/v1/self").await;
    assert_eq!(before["data"]["spans"], 1, "{before}");
    assert!(before["data"]["series"].as_u64().unwrap() > 20, "{before}");

    let dir = started.stop().await;
    let started = start_in(dir, |_| {}).await;
    let found = started.get("/api/nines/v1/traces?service=order").await;
    assert_eq!(found["data"][0]["route"], "/orders", "{found}");
    let after = started.get("/api/nines/v1/self").await;
    assert!(
        after["data"]["series"].as_u64() >= before["data"]["series"].as_u64(),
        "{after}"
    );
    started.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_an_error_that_helps() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path());
    config.otlp_grpc = OrOff::On(address.clone());
    let Err(error) = agent::start(config).await else {
        panic!("started on a taken port")
    };
    let text = error.to_string();
    for part in [
        address.as_str(),
        "in use",
        "`otlp_grpc`",
        "--otlp-grpc",
        "off",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_machines_are_not_let_in_without_a_token() {
    let dir = tempfile::tempdir().unwrap();
    let mut open = config(dir.path());
    open.listen = "0.0.0.0:0".into();
    let Err(error) = agent::start(open).await else {
        panic!("started without a token")
    };
    assert!(matches!(error, AgentError::Unprotected { .. }), "{error}");
    assert!(error.to_string().contains("token"), "{error}");
    let mut nowhere = config(dir.path());
    nowhere.listen = "nonsense".into();
    let Err(error) = agent::start(nowhere).await else {
        panic!("started on nonsense")
    };
    assert!(error.to_string().contains("HOST:PORT"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_can_be_off_and_a_folder_has_one_agent() {
    let dir = tempfile::tempdir().unwrap();
    let mut alone = config(dir.path());
    alone.otlp_grpc = OrOff::Off;
    alone.otlp_http = OrOff::Off;
    let agent = agent::start(alone.clone()).await.unwrap();
    assert_eq!((agent.otlp_grpc_addr, agent.otlp_http_addr), (None, None));
    let Err(error) = agent::start(alone).await else {
        panic!("two agents in one folder")
    };
    assert!(
        error.to_string().contains("in use by another process"),
        "{error}"
    );
    assert!(agent.shutdown().await.clean());
}

#[test]
fn an_agent_that_is_dropped_lets_its_runtime_end() {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        // The host collector is on by default: it has a thread of its own.
        let started = runtime.block_on(start());
        drop(started);
        drop(runtime);
        tell.send(()).unwrap();
    });
    let patience = std::time::Duration::from_secs(30);
    told.recv_timeout(patience)
        .expect("the runtime waits for a thread of the agent");
}

//! The Redis cache against real servers: values, their life, the replica, a server killed, frozen and back.

use std::time::{Duration, Instant};

use super::*;
use crate::stack_test::Stack;

const LIMIT_MS: u64 = 200;

async fn connect(stack: &Stack) -> RedisCache {
    let replica = Some(stack.env("NINES_REDIS_REPLICA_URL"));
    RedisCache::connect(stack.env("NINES_REDIS_URL"), replica, LIMIT_MS)
        .await
        .unwrap()
}

/// Calls until one works and returns how long that took; every failure must come within the limit.
async fn recovery(cache: &RedisCache) -> Duration {
    let begin = Instant::now();
    loop {
        let call = Instant::now();
        match cache.get("k").await {
            Ok(_) => return begin.elapsed(),
            Err(e) => assert!(
                call.elapsed() < Duration::from_millis(LIMIT_MS + 100),
                "{e}"
            ),
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "not back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_without_its_password() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let url = format!("redis://:secret@127.0.0.1:{port}");
    let e = RedisCache::connect(&url, None, LIMIT_MS)
        .await
        .err()
        .unwrap();
    assert!(
        e.contains(&format!("Redis primary at 127.0.0.1:{port}")),
        "{e}"
    );
    assert!(
        e.contains("start the server") && !e.contains("secret"),
        "{e}"
    );
    let e = RedisCache::connect("localhost:1:2", None, LIMIT_MS)
        .await
        .err()
        .unwrap();
    assert!(e.contains("redis://host:port"), "{e}");
}

#[tokio::test]
async fn a_server_that_accepts_but_never_answers_is_an_error_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let begin = Instant::now();
    assert!(RedisCache::connect(&url, None, LIMIT_MS).await.is_err());
    assert!(begin.elapsed() < FIRST_CONNECT + Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs redis"]
async fn redis_keeps_values_and_survives_its_servers_faults() {
    let stack = Stack::up("redis");
    let mut cache = connect(&stack).await;

    // Values: any bytes, a life, deletion, purge.
    assert_eq!(cache.get("k").await.unwrap(), None);
    cache.set("k", b"\0\xffv", 60).await.unwrap();
    assert_eq!(
        cache.get("k").await.unwrap().as_deref(),
        Some(&b"\0\xffv"[..])
    );
    cache.set("short", b"1", 1).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(cache.get("short").await.unwrap(), None);
    cache.del("k").await.unwrap();
    cache.del("k").await.unwrap();
    assert_eq!(cache.get("k").await.unwrap(), None);
    cache.set("k", b"", 60).await.unwrap();
    cache.purge().await.unwrap();
    assert_eq!(cache.get("k").await.unwrap(), None);

    // The replica follows, and serves reads while the primary is dead.
    cache.set("k", b"v", 60).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    cache.read_replica = true;
    assert_eq!(cache.get("k").await.unwrap().as_deref(), Some(&b"v"[..]));
    stack.kill("redis");
    assert_eq!(cache.get("k").await.unwrap().as_deref(), Some(&b"v"[..]));
    cache.read_replica = false;

    // Killed: every call fails in time. Back: used within a second, without a restart of ours.
    let begin = Instant::now();
    let e = cache.get("k").await.unwrap_err();
    assert!(
        begin.elapsed() < Duration::from_millis(LIMIT_MS + 100),
        "{e}"
    );
    assert!(e.starts_with("Redis primary at 127.0.0.1:"), "{e}");
    assert!(cache.set("k", b"v", 60).await.is_err() && cache.purge().await.is_err());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(cache.get("k").await.is_err());
    stack.fault("redis-start");
    let took = recovery(&cache).await;
    assert!(took < Duration::from_millis(1500), "{took:?} after a kill");

    // Killed and back while nobody called: the first call after a moment works.
    stack.kill("redis");
    stack.fault("redis-start");
    tokio::time::sleep(Duration::from_millis(1000)).await;
    cache.get("k").await.unwrap();

    // Frozen: time-outs, many at once; then as before.
    stack.fault("redis-freeze");
    let begin = Instant::now();
    let calls = (0..4 * MAX_WAITING).map(|_| cache.get("k"));
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(Result::is_err));
    assert!(
        begin.elapsed() < Duration::from_secs(2),
        "{:?}",
        begin.elapsed()
    );
    stack.fault("redis-thaw");
    let took = recovery(&cache).await;
    assert!(
        took < Duration::from_millis(1500),
        "{took:?} after a freeze"
    );
}

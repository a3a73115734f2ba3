//! The queue against a real broker: topics, confirms, returns counted, dead letters, a broker killed, frozen and back.

use super::*;
use crate::stack_test::Stack;

const QUEUES: [(&str, &[&str]); 3] = [
    ("email", &["order.created"]),
    ("payment", &["order.created", "order.changed"]),
    ("other", &["task.#"]),
];
const LIMIT: u32 = 3;
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

async fn connect(stack: &Stack) -> Rabbit {
    Rabbit::connect(stack.env("NINES_AMQP_URL"), &QUEUES, LIMIT)
        .await
        .unwrap()
}

async fn next(consumer: &mut Consumer) -> Delivery {
    let next = timeout(Duration::from_secs(5), consumer.next());
    next.await
        .expect("a delivery in time")
        .expect("a live connection")
}

async fn silent(consumer: &mut Consumer) -> bool {
    timeout(Duration::from_millis(300), consumer.next())
        .await
        .is_err()
}

/// Waits for the counts: a broker moves dead letters a moment after the return that made them.
async fn depths(rabbit: &Rabbit, queue: &str, expected: (u64, u64)) {
    let begin = Instant::now();
    loop {
        let now = rabbit.depths(queue).await.unwrap();
        if now == expected {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(5), "{queue}: {now:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Publishes until it works and returns how long that took; every failure must come within the limit.
async fn recovery(rabbit: &Rabbit, id: &str) -> Duration {
    let begin = Instant::now();
    loop {
        let call = Instant::now();
        match rabbit.publish("order.created", b"back", id, None).await {
            Ok(()) => return begin.elapsed(),
            Err(e) => assert!(call.elapsed() < WAIT + Duration::from_millis(300), "{e}"),
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "not back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_named_without_its_password() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let url = format!("amqp://guest:secret@127.0.0.1:{port}/%2f");
    let e = Rabbit::connect(&url, &QUEUES, LIMIT).await.err().unwrap();
    assert!(e.contains(&format!("RabbitMQ at 127.0.0.1:{port}")), "{e}");
    assert!(
        e.contains("start the server") && !e.contains("secret"),
        "{e}"
    );
    let e = Rabbit::connect("guest:secret@x", &QUEUES, LIMIT)
        .await
        .err()
        .unwrap();
    assert!(
        e.contains("amqp://user:password@host:port") && !e.contains("secret"),
        "{e}"
    );
}

#[tokio::test]
async fn a_broker_that_accepts_but_never_answers_is_an_error_in_time() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("amqp://guest:guest@{}/%2f", silent.local_addr().unwrap());
    let begin = Instant::now();
    assert!(Rabbit::connect(&url, &QUEUES, LIMIT).await.is_err());
    assert!(begin.elapsed() < WAIT + Duration::from_millis(500));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs rabbitmq"]
async fn rabbitmq_delivers_counts_returns_and_keeps_dead_letters() {
    let stack = Stack::up("rabbitmq");
    let rabbit = connect(&stack).await;
    topics(&rabbit).await;
    returns(&rabbit).await;
    dead_letters(&rabbit).await;
    lost_consumers(&rabbit).await;
    // The same shape again is no error; another one is, and says what to do.
    drop(connect(&stack).await);
    let e = Rabbit::connect(stack.env("NINES_AMQP_URL"), &QUEUES, LIMIT + 1)
        .await
        .err()
        .unwrap();
    assert!(e.contains("queue email") && e.contains("delete it"), "{e}");
    // A queue that is not there is an error of that call alone.
    assert!(rabbit.depths("nowhere").await.is_err());
    assert!(rabbit.consume("nowhere", 1).await.is_err());
    depths(&rabbit, "email", (0, 0)).await;
}

/// Each queue bound to a topic gets the message, with everything about it; nobody bound is no error.
async fn topics(rabbit: &Rabbit) {
    let before = std::time::SystemTime::UNIX_EPOCH
        .elapsed()
        .unwrap()
        .as_millis() as u64;
    rabbit
        .publish("order.created", b"{\"a\":1}", "m-1", Some(TRACEPARENT))
        .await
        .unwrap();
    rabbit
        .publish("task.created.now", b"t", "m-2", None)
        .await
        .unwrap();
    rabbit
        .publish("nobody.listens", b"n", "m-3", None)
        .await
        .unwrap();
    for queue in ["email", "payment", "other"] {
        depths(rabbit, queue, (1, 0)).await;
    }
    for queue in ["email", "payment"] {
        let mut consumer = rabbit.consume(queue, 10).await.unwrap();
        let m = next(&mut consumer).await;
        assert_eq!(
            (m.body.as_slice(), m.topic.as_str()),
            (&b"{\"a\":1}"[..], "order.created")
        );
        assert_eq!((m.message_id.as_str(), m.attempts), ("m-1", 0));
        assert_eq!(m.traceparent.as_deref(), Some(TRACEPARENT));
        assert!((before..before + 60_000).contains(&m.timestamp_ms));
        m.ack().await.unwrap();
        assert!(silent(&mut consumer).await);
    }
    let mut consumer = rabbit.consume("other", 10).await.unwrap();
    let m = next(&mut consumer).await;
    assert_eq!(
        (m.topic.as_str(), m.traceparent.as_deref()),
        ("task.created.now", None)
    );
    m.ack().await.unwrap();
    depths(rabbit, "other", (0, 0)).await;
}

/// A limit of 3: four deliveries, each at once, then the broker makes it a dead letter.
async fn returns(rabbit: &Rabbit) {
    let mut consumer = rabbit.consume("email", 1).await.unwrap();
    rabbit
        .publish("order.created", b"poison", "m-4", Some(TRACEPARENT))
        .await
        .unwrap();
    rabbit
        .publish("order.created", b"good", "m-5", None)
        .await
        .unwrap();
    for attempts in 0..=LIMIT {
        let begin = Instant::now();
        let m = next(&mut consumer).await;
        assert_eq!((m.message_id.as_str(), m.attempts), ("m-4", attempts));
        assert!(
            begin.elapsed() < Duration::from_millis(500),
            "{:?}",
            begin.elapsed()
        );
        m.retry().await.unwrap();
    }
    let good = next(&mut consumer).await;
    assert_eq!((good.message_id.as_str(), good.attempts), ("m-5", 0));
    depths(rabbit, "email", (0, 1)).await;
    good.ack().await.unwrap();
}

/// Dead letters come back as they were, counted from 0, to their own queue only.
async fn dead_letters(rabbit: &Rabbit) {
    let mut email = rabbit.consume("email", 10).await.unwrap();
    rabbit
        .publish("order.created", b"bad", "m-6", None)
        .await
        .unwrap();
    next(&mut email).await.dead().await.unwrap();
    depths(rabbit, "email", (0, 2)).await;
    let (others, _) = rabbit.depths("payment").await.unwrap();
    assert_eq!(rabbit.requeue_dead("email").await.unwrap(), 2);
    for (id, trace) in [("m-4", Some(TRACEPARENT)), ("m-6", None)] {
        let m = next(&mut email).await;
        assert_eq!((m.message_id.as_str(), m.attempts), (id, 0));
        assert_eq!(
            (m.topic.as_str(), m.traceparent.as_deref()),
            ("order.created", trace)
        );
        assert!(m.timestamp_ms > 0);
        m.ack().await.unwrap();
    }
    depths(rabbit, "email", (0, 0)).await;
    assert_eq!(rabbit.depths("payment").await.unwrap(), (others, 0));
    assert_eq!(rabbit.requeue_dead("email").await.unwrap(), 0);
}

/// What a dropped consumer held comes again, counted; the prefetch bounds what it holds.
async fn lost_consumers(rabbit: &Rabbit) {
    for n in 0..5 {
        rabbit
            .publish("task.x", b"x", &format!("x-{n}"), None)
            .await
            .unwrap();
    }
    let mut first = rabbit.consume("other", 2).await.unwrap();
    let _held = (next(&mut first).await, next(&mut first).await);
    assert!(silent(&mut first).await);
    depths(rabbit, "other", (3, 0)).await;
    drop(first);
    depths(rabbit, "other", (5, 0)).await;
    let mut second = rabbit.consume("other", 10).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let m = next(&mut second).await;
        seen.push((m.message_id.clone(), m.attempts));
        m.ack().await.unwrap();
    }
    seen.sort();
    assert_eq!((seen[0].1, seen[1].1, seen[2].1), (1, 1, 0), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs rabbitmq"]
async fn rabbitmq_killed_or_frozen_is_an_error_in_time_and_used_again_when_it_is_back() {
    let stack = Stack::up("rabbitmq");
    let rabbit = connect(&stack).await;
    rabbit
        .publish("order.created", b"kept", "k-1", None)
        .await
        .unwrap();
    let mut consumer = rabbit.consume("email", 1).await.unwrap();
    assert_eq!(next(&mut consumer).await.message_id, "k-1");

    // Killed: the consumer ends, every call fails in time, and soon at once.
    stack.kill("rabbitmq");
    let ended = timeout(WAIT, consumer.next()).await;
    assert!(ended.expect("the consumer ends").is_none());
    let e = rabbit
        .publish("order.created", b"", "k-2", None)
        .await
        .unwrap_err();
    assert!(e.starts_with("RabbitMQ at 127.0.0.1:"), "{e}");
    let begin = Instant::now();
    assert!(
        rabbit
            .publish("order.created", b"", "k-2", None)
            .await
            .is_err()
    );
    assert!(
        begin.elapsed() < Duration::from_millis(500),
        "{:?}",
        begin.elapsed()
    );
    assert!(rabbit.consume("email", 1).await.is_err() && rabbit.depths("email").await.is_err());

    // Back: what was confirmed is there, what was held comes again.
    stack.fault("rabbitmq-stop");
    stack.fault("rabbitmq-start");
    let took = recovery(&rabbit, "k-3").await;
    assert!(took < Duration::from_secs(5), "{took:?} after a kill");
    let mut consumer = rabbit.consume("email", 1).await.unwrap();
    for id in ["k-1", "k-3"] {
        let m = next(&mut consumer).await;
        assert_eq!(m.message_id, id);
        m.ack().await.unwrap();
    }

    // Frozen: time-outs, then the silence ends the connection; thawed: used again, by a new consumer too.
    stack.fault("rabbitmq-freeze");
    let begin = Instant::now();
    assert!(
        rabbit
            .publish("order.created", b"", "k-4", None)
            .await
            .is_err()
    );
    assert!(begin.elapsed() < WAIT + Duration::from_millis(300));
    let silence = Duration::from_secs(2 * u64::from(HEARTBEAT_S) + 3);
    assert!(
        timeout(silence, consumer.next())
            .await
            .expect("silence ends it")
            .is_none()
    );
    for _ in 0..3 {
        assert!(rabbit.depths("email").await.is_err());
    }
    stack.fault("rabbitmq-thaw");
    let took = recovery(&rabbit, "k-5").await;
    assert!(took < Duration::from_secs(5), "{took:?} after a freeze");
    let mut consumer = rabbit.consume("email", 1).await.unwrap();
    loop {
        let m = next(&mut consumer).await;
        let id = m.message_id.clone();
        m.ack().await.unwrap();
        if id == "k-5" {
            break;
        }
        assert_eq!(id, "k-4", "stored although its confirm never came");
    }
}

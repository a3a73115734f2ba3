//! Redis: `INFO ALL` over one kept connection, in as much RESP as that needs.
//!
//! Owns the reading of INFO. Must not know Redis' other commands but AUTH.

use std::collections::HashMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Collector, errors, saturation, utilization};
use crate::collect::record::Recorder;

/// The longest reply that is read.
const MAX_REPLY: usize = 4 << 20;
/// The most commands that are reported one by one.
const MAX_COMMANDS: usize = 100;

pub(super) struct Redis {
    address: Result<String, String>,
    auth: Option<Vec<String>>,
    stream: Option<TcpStream>,
    main_thread: Option<(i64, f64)>,
}

// === impl Redis ===

impl Redis {
    pub(super) fn new(url: &str) -> Self {
        let parsed = url::Url::parse(url)
            .ok()
            .filter(|u| u.scheme() == "redis" && u.host_str().is_some());
        let address = match &parsed {
            Some(u) => Ok(format!(
                "{}:{}",
                u.host_str().unwrap_or(""),
                u.port().unwrap_or(6379)
            )),
            None => Err("the URL is not of the form redis://host:port".to_owned()),
        };
        let auth = parsed.as_ref().and_then(|u| {
            let password = u.password()?.to_owned();
            let user = u.username().to_owned();
            let words = if user.is_empty() {
                vec!["AUTH".into(), password]
            } else {
                vec!["AUTH".into(), user, password]
            };
            Some(words)
        });
        Redis {
            address,
            auth,
            stream: None,
            main_thread: None,
        }
    }

    async fn info(&mut self) -> Result<String, String> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let address = self.address.as_ref().map_err(Clone::clone)?;
                let mut stream = TcpStream::connect(address)
                    .await
                    .map_err(|e| e.to_string())?;
                if let Some(auth) = &self.auth {
                    call(&mut stream, auth).await?;
                }
                stream
            }
        };
        let reply = call(&mut stream, &["INFO".to_owned(), "ALL".to_owned()]).await?;
        self.stream = Some(stream);
        Ok(reply)
    }
}

impl Collector for Redis {
    async fn read(&mut self, r: &mut Recorder, t_ms: i64) -> Result<(), String> {
        let text = self.info().await?;
        let info = parse_info(&text);
        if !info.contains_key("redis_version") {
            return Err("the answer to INFO is not Redis'".into());
        }
        report(r, &info);
        self.use_view(r, &info, t_ms);
        Ok(())
    }
}

impl Redis {
    fn use_view(&mut self, r: &mut Recorder, info: &HashMap<&str, &str>, t_ms: i64) {
        let number = |key: &str| number(info, key);
        if let (Some(used), Some(max)) = (number("used_memory"), number("maxmemory")) {
            utilization(r, "redis", "memory", used, max);
        }
        if let (Some(used), Some(max)) = (number("connected_clients"), number("maxclients")) {
            utilization(r, "redis", "connections", used, max);
        }
        let cpu = number("used_cpu_user_main_thread")
            .zip(number("used_cpu_sys_main_thread"))
            .map(|(u, s)| u + s);
        if let (Some(now), Some((then_ms, before))) = (cpu, self.main_thread) {
            let elapsed = (t_ms - then_ms) as f64 / 1000.0;
            utilization(r, "redis", "main_thread", (now - before).max(0.0), elapsed);
        }
        self.main_thread = cpu.map(|cpu| (t_ms, cpu));
        saturation(
            r,
            "redis",
            "clients",
            "blocked_clients",
            number("blocked_clients").unwrap_or(0.0),
        );
        saturation(
            r,
            "redis",
            "memory",
            "evicted_keys_total",
            number("evicted_keys").unwrap_or(0.0),
        );
        let failed = number("rejected_connections").unwrap_or(0.0)
            + number("total_error_replies").unwrap_or(0.0);
        errors(r, "redis", "requests", failed);
    }
}

const GAUGES: [(&str, &str); 14] = [
    ("connected_clients", "redis_clients_connected"),
    ("blocked_clients", "redis_clients_blocked"),
    ("maxclients", "redis_clients_max"),
    ("used_memory", "redis_memory_used_bytes"),
    ("used_memory_rss", "redis_memory_rss_bytes"),
    ("used_memory_peak", "redis_memory_peak_bytes"),
    ("maxmemory", "redis_maxmemory_bytes"),
    (
        "mem_fragmentation_ratio",
        "redis_memory_fragmentation_ratio",
    ),
    ("uptime_in_seconds", "redis_uptime_seconds"),
    (
        "rdb_changes_since_last_save",
        "redis_rdb_changes_since_last_save",
    ),
    ("instantaneous_ops_per_sec", "redis_commands_per_second"),
    ("connected_slaves", "redis_replicas_connected"),
    ("master_repl_offset", "redis_replication_offset"),
    ("loading", "redis_loading"),
];

const COUNTERS: [(&str, &str); 10] = [
    (
        "total_connections_received",
        "redis_connections_received_total",
    ),
    ("rejected_connections", "redis_connections_rejected_total"),
    ("total_commands_processed", "redis_commands_processed_total"),
    ("evicted_keys", "redis_keys_evicted_total"),
    ("expired_keys", "redis_keys_expired_total"),
    ("keyspace_hits", "redis_keyspace_hits_total"),
    ("keyspace_misses", "redis_keyspace_misses_total"),
    ("total_net_input_bytes", "redis_net_input_bytes_total"),
    ("total_net_output_bytes", "redis_net_output_bytes_total"),
    ("total_error_replies", "redis_error_replies_total"),
];

/// Everything but the uniform view.
fn report(r: &mut Recorder, info: &HashMap<&str, &str>) {
    for (key, name) in GAUGES {
        if let Some(v) = number(info, key) {
            r.gauge(name, &[], v);
        }
    }
    for (key, name) in COUNTERS {
        if let Some(v) = number(info, key) {
            r.counter(name, &[], v);
        }
    }
    if let Some(v) = number(info, "latest_fork_usec") {
        r.gauge("redis_latest_fork_seconds", &[], v / 1e6);
    }
    for (key, name) in [
        ("keyspace_hits", "nines_cache_hits_total"),
        ("keyspace_misses", "nines_cache_misses_total"),
    ] {
        if let Some(v) = number(info, key) {
            r.counter(name, &[("source", "redis")], v);
        }
    }
    let role = info.get("role").copied().unwrap_or("unknown");
    let role = if role == "slave" { "replica" } else { role };
    r.gauge("redis_role", &[("role", role)], 1.0);
    replication(r, info, role);
    let mut commands = 0;
    for (key, value) in info {
        if let Some(db) = key
            .strip_prefix("db")
            .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
        {
            if let Some(keys) = part(value, "keys") {
                r.gauge("redis_db_keys", &[("db", db)], keys);
            }
        } else if let Some(cmd) = key
            .strip_prefix("cmdstat_")
            .filter(|_| commands < MAX_COMMANDS)
        {
            commands += 1;
            let labels = [("cmd", cmd)];
            r.counter(
                "redis_cmd_calls_total",
                &labels,
                part(value, "calls").unwrap_or(0.0),
            );
            r.counter(
                "redis_cmd_time_seconds_total",
                &labels,
                part(value, "usec").unwrap_or(0.0) / 1e6,
            );
            let failed = part(value, "failed_calls").unwrap_or(0.0)
                + part(value, "rejected_calls").unwrap_or(0.0);
            r.counter("redis_cmd_errors_total", &labels, failed);
        }
    }
}

/// A replica says how long ago it heard from its primary; a primary how far behind each replica is.
fn replication(r: &mut Recorder, info: &HashMap<&str, &str>, role: &str) {
    if role == "replica" {
        let up = info.get("master_link_status") == Some(&"up");
        r.gauge("redis_replica_link_up", &[], f64::from(u8::from(up)));
        let since = if up {
            "master_last_io_seconds_ago"
        } else {
            "master_link_down_since_seconds"
        };
        if let Some(v) = number(info, since) {
            r.gauge("redis_replica_silence_seconds", &[], v.max(0.0));
        }
        return;
    }
    let offset = number(info, "master_repl_offset").unwrap_or(0.0);
    for n in 0..16 {
        let Some(value) = info.get(format!("slave{n}").as_str()) else {
            break;
        };
        let text = |key: &str| {
            value
                .split(',')
                .find_map(|p| p.strip_prefix(key)?.strip_prefix('='))
                .unwrap_or("")
        };
        let replica = format!("{}:{}", text("ip"), text("port"));
        let labels = [("replica", replica.as_str())];
        r.gauge(
            "redis_replica_online",
            &labels,
            f64::from(u8::from(text("state") == "online")),
        );
        if let Some(behind) = part(value, "offset") {
            r.gauge(
                "redis_replica_lag_bytes",
                &labels,
                (offset - behind).max(0.0),
            );
        }
        if let Some(lag) = part(value, "lag") {
            r.gauge("redis_replica_lag_seconds", &labels, lag);
        }
    }
}

/// The fields of an INFO reply.
fn parse_info(text: &str) -> HashMap<&str, &str> {
    text.lines()
        .filter(|l| !l.starts_with('#'))
        .filter_map(|l| l.trim_end().split_once(':'))
        .collect()
}

fn number(info: &HashMap<&str, &str>, key: &str) -> Option<f64> {
    info.get(key)?.parse().ok()
}

/// A number in `a=1,b=2`.
fn part(value: &str, key: &str) -> Option<f64> {
    value
        .split(',')
        .find_map(|p| p.strip_prefix(key)?.strip_prefix('='))
        .and_then(|v| v.parse().ok())
}

/// One command; the reply must be a status or a bulk string.
async fn call(stream: &mut TcpStream, words: &[String]) -> Result<String, String> {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream
        .write_all(command.as_bytes())
        .await
        .map_err(|e| e.to_string())?;
    let mut reply = Vec::new();
    loop {
        if let Some(result) = parse_reply(&reply) {
            return result;
        }
        if reply.len() > MAX_REPLY {
            return Err(format!("the reply is longer than {MAX_REPLY} bytes"));
        }
        if stream
            .read_buf(&mut reply)
            .await
            .map_err(|e| e.to_string())?
            == 0
        {
            return Err("the server closed the connection".into());
        }
    }
}

/// A whole reply, or `None` when more bytes are needed.
fn parse_reply(bytes: &[u8]) -> Option<Result<String, String>> {
    let end = bytes.windows(2).position(|w| w == b"\r\n");
    let Some(end) = end else {
        return (bytes.len() > 1024).then(|| Err("the answer is not Redis'".into()));
    };
    let line = String::from_utf8_lossy(bytes.get(1..end).unwrap_or(b"")).into_owned();
    match bytes[0] {
        b'+' => Some(Ok(line)),
        b'-' => Some(Err(line)),
        b'$' => match line.parse::<usize>() {
            Ok(len) if len <= MAX_REPLY => {
                let body = bytes.get(end + 2..end + 2 + len)?;
                Some(Ok(String::from_utf8_lossy(body).into_owned()))
            }
            _ => Some(Err("the reply has a wrong length".into())),
        },
        _ => Some(Err("the answer is not Redis'".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::testing::last;
    use crate::ingest::Ingest;

    #[test]
    fn replies_arrive_in_pieces() {
        assert_eq!(parse_reply(b"$5\r\nab"), None);
        assert_eq!(parse_reply(b"$2\r\nab\r\n"), Some(Ok("ab".into())));
        assert_eq!(
            parse_reply(b"-NOAUTH no\r\n"),
            Some(Err("NOAUTH no".into()))
        );
        assert!(parse_reply(b"HTTP/1.1 400\r\n").is_some_and(|r| r.is_err()));
        assert!(parse_reply(b"$99999999999\r\n").is_some_and(|r| r.is_err()));
    }

    #[test]
    fn info_becomes_series() {
        let text = "# Server\r\nredis_version:7.0.15\r\nrole:master\r\nmaster_repl_offset:500\r\nslave0:ip=127.0.0.1,port=7,state=online,offset=440,lag=1\r\nkeyspace_hits:90\r\nkeyspace_misses:10\r\nused_memory:25\r\nmaxmemory:100\r\ndb0:keys=3,expires=0,avg_ttl=0\r\ncmdstat_get:calls=100,usec=2000000,usec_per_call=1,rejected_calls=1,failed_calls=2\r\n";
        let ingest = Ingest::in_memory(1000);
        let mut r = Recorder::new(&[]);
        r.begin(1);
        report(&mut r, &parse_info(text));
        Redis::new("redis://h").use_view(&mut r, &parse_info(text), 1);
        r.commit(&ingest);
        let value = |name: &str| last(&ingest, name, &[]);
        assert_eq!(value("redis_keyspace_hits_total"), Some(90.0));
        assert_eq!(
            last(&ingest, "nines_cache_misses_total", &[("source", "redis")]),
            Some(10.0)
        );
        assert_eq!(
            last(
                &ingest,
                "redis_replica_lag_bytes",
                &[("replica", "127.0.0.1:7")]
            ),
            Some(60.0)
        );
        assert_eq!(
            last(&ingest, "redis_cmd_time_seconds_total", &[("cmd", "get")]),
            Some(2.0)
        );
        assert_eq!(
            last(&ingest, "redis_cmd_errors_total", &[("cmd", "get")]),
            Some(3.0)
        );
        assert_eq!(last(&ingest, "redis_db_keys", &[("db", "0")]), Some(3.0));
        assert_eq!(
            last(
                &ingest,
                "nines_use_utilization_ratio",
                &[("resource", "memory")]
            ),
            Some(0.25)
        );
    }
}

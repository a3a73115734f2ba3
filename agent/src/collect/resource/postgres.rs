//! PostgreSQL: statistics views over one kept connection, primaries and standbys alike.
//!
//! Owns the statements. Must not know other tables than the server's own.

use tokio_postgres::{Client, NoTls, Row};

use super::lag::{Lag, Look};
use super::{Collector, errors, saturation, utilization};
use crate::collect::record::Recorder;

const ACTIVITY: &str = "select pg_is_in_recovery() as standby, current_setting('max_connections')::float8 as max_connections, \
    extract(epoch from now() - pg_postmaster_start_time())::float8 as uptime, \
    (select coalesce(max(extract(epoch from now() - xact_start)), 0)::float8 from pg_stat_activity where state <> 'idle' and backend_type = 'client backend') as longest, \
    (select count(*)::float8 from pg_stat_activity where wait_event_type = 'Lock') as lock_waiters, \
    (select count(*)::float8 from pg_stat_activity where backend_type = 'client backend') as clients";
const SESSIONS: &str = "select coalesce(state, 'unknown') as state, count(*)::float8 as n from pg_stat_activity where backend_type = 'client backend' group by 1";
const DATABASES: &str = "select datname::text as db, numbackends::float8 as backends, xact_commit::float8, xact_rollback::float8, blks_read::float8, blks_hit::float8, \
    tup_returned::float8, tup_fetched::float8, tup_inserted::float8, tup_updated::float8, tup_deleted::float8, conflicts::float8, temp_files::float8, temp_bytes::float8, \
    deadlocks::float8, pg_database_size(datid)::float8 as size from pg_stat_database where datname is not null and datname not like 'template%' order by datname limit 50";
const LOCKS: &str = "select mode::text as mode, locktype::text as lock_type, granted, count(*)::float8 as n from pg_locks where pid <> pg_backend_pid() group by 1, 2, 3";
const BGWRITER: &str = "select checkpoints_timed::float8, checkpoints_req::float8, buffers_checkpoint::float8, buffers_clean::float8, buffers_backend::float8, \
    buffers_alloc::float8, maxwritten_clean::float8 from pg_stat_bgwriter";
const REPLICATION: &str = "select coalesce(nullif(application_name, ''), client_addr::text, 'unknown') as replica, state::text as state, \
    pg_wal_lsn_diff(pg_current_wal_lsn(), sent_lsn)::float8 as sent, pg_wal_lsn_diff(pg_current_wal_lsn(), flush_lsn)::float8 as flushed, \
    pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::float8 as replayed from pg_stat_replication limit 50";
const WAL: &str = "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as written";
const STANDBY: &str = "select (select count(*) from pg_stat_wal_receiver where status = 'streaming') > 0 as streaming, \
    pg_wal_lsn_diff(coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), '0/0')::int8 as received, \
    pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::int8 as replayed, pg_is_wal_replay_paused() as paused, \
    extract(epoch from now() - pg_last_xact_replay_timestamp())::float8 as age";

pub(super) struct Postgres {
    config: Result<tokio_postgres::Config, String>,
    connected: Option<Client>,
    lag: Lag,
    has_bgwriter: bool,
}

// === impl Postgres ===

impl Postgres {
    pub(super) fn new(url: &str) -> Self {
        // The library's message could repeat the text; the text may hold a password.
        let config = url.parse::<tokio_postgres::Config>();
        let config = config.map_err(|_| {
            "the URL is not of the form postgres://user:password@host:port/database".to_owned()
        });
        let config = config.map(|mut c| {
            c.application_name("nines");
            c
        });
        Postgres {
            config,
            connected: None,
            lag: Lag::default(),
            has_bgwriter: true,
        }
    }

    async fn client(&mut self) -> Result<Client, String> {
        // Handed back by `read` when the round succeeded.
        if let Some(client) = self.connected.take().filter(|c| !c.is_closed()) {
            return Ok(client);
        }
        let config = self.config.as_ref().map_err(Clone::clone)?;
        let (client, connection) = config.connect(NoTls).await.map_err(describe)?;
        tokio::spawn(async move {
            let _ = connection.await;
        });
        client
            .batch_execute("set statement_timeout = 2000; set default_transaction_read_only = on")
            .await
            .map_err(describe)?;
        Ok(client)
    }

    async fn read_all(
        &mut self,
        client: &Client,
        r: &mut Recorder,
        t_ms: i64,
    ) -> Result<(), String> {
        let activity = client.query_one(ACTIVITY, &[]).await.map_err(describe)?;
        let standby = activity.try_get("standby").unwrap_or(false);
        for row in client.query(SESSIONS, &[]).await.map_err(describe)? {
            r.gauge(
                "postgresql_sessions",
                &[("state", text(&row, "state"))],
                float(&row, "n"),
            );
        }
        let mut failed = 0.0;
        for row in client.query(DATABASES, &[]).await.map_err(describe)? {
            database(r, &row);
            failed += float(&row, "deadlocks") + float(&row, "conflicts");
        }
        locks(r, &client.query(LOCKS, &[]).await.map_err(describe)?);
        report_activity(r, &activity, standby);
        errors(r, "postgresql", "transactions", failed);
        if self.has_bgwriter {
            match client.query_one(BGWRITER, &[]).await {
                Ok(row) => bgwriter(r, &row),
                // PostgreSQL 17 moved these columns.
                Err(e) if e.code().is_some() => self.has_bgwriter = false,
                Err(e) => return Err(describe(e)),
            }
        }
        if standby {
            let row = client.query_one(STANDBY, &[]).await.map_err(describe)?;
            self.standby(r, &row, t_ms);
        } else {
            let wal = client.query_one(WAL, &[]).await.map_err(describe)?;
            r.counter(
                "postgresql_wal_written_bytes_total",
                &[],
                float(&wal, "written"),
            );
            for row in client.query(REPLICATION, &[]).await.map_err(describe)? {
                let replica = text(&row, "replica");
                r.gauge(
                    "postgresql_replica_streaming",
                    &[("replica", replica)],
                    f64::from(u8::from(text(&row, "state") == "streaming")),
                );
                for stage in ["sent", "flushed", "replayed"] {
                    r.gauge(
                        "postgresql_replication_data_delay_bytes",
                        &[("replica", replica), ("stage", stage)],
                        float(&row, stage).max(0.0),
                    );
                }
            }
        }
        Ok(())
    }

    fn standby(&mut self, r: &mut Recorder, row: &Row, t_ms: i64) {
        let position = |column: &str| row.try_get::<_, i64>(column).unwrap_or(0);
        let look = Look {
            t_ms,
            streaming: row.try_get("streaming").unwrap_or(false),
            received: position("received"),
            replayed: position("replayed"),
            last_transaction_age: row.try_get::<_, Option<f64>>("age").ok().flatten(),
        };
        if let Some(lag) = self.lag.seconds(look) {
            r.gauge("postgresql_replication_lag_seconds", &[], lag);
            saturation(r, "postgresql", "replication", "seconds_behind", lag);
        }
        r.gauge(
            "postgresql_replication_lag_bytes",
            &[],
            (look.received - look.replayed).max(0) as f64,
        );
        r.gauge(
            "postgresql_replication_streaming",
            &[],
            f64::from(u8::from(look.streaming)),
        );
        r.gauge(
            "postgresql_replication_paused",
            &[],
            f64::from(u8::from(row.try_get("paused").unwrap_or(false))),
        );
    }
}

impl Collector for Postgres {
    async fn read(&mut self, r: &mut Recorder, t_ms: i64) -> Result<(), String> {
        // Dropped (and so disconnected) when the round fails or is given up.
        let client = self.client().await?;
        self.read_all(&client, r, t_ms).await?;
        self.connected = Some(client);
        Ok(())
    }
}

fn report_activity(r: &mut Recorder, row: &Row, standby: bool) {
    let (clients, max) = (float(row, "clients"), float(row, "max_connections"));
    r.gauge("postgresql_in_recovery", &[], f64::from(u8::from(standby)));
    r.gauge("postgresql_connection_max", &[], max);
    r.gauge("postgresql_connection_count", &[], clients);
    r.gauge("postgresql_uptime_seconds", &[], float(row, "uptime"));
    r.gauge(
        "postgresql_longest_transaction_seconds",
        &[],
        float(row, "longest"),
    );
    r.gauge("postgresql_lock_waiters", &[], float(row, "lock_waiters"));
    utilization(r, "postgresql", "connections", clients, max);
    saturation(
        r,
        "postgresql",
        "locks",
        "waiting_sessions",
        float(row, "lock_waiters"),
    );
}

fn database(r: &mut Recorder, row: &Row) {
    let db = text(row, "db");
    let base = [("db", db)];
    r.gauge("postgresql_backends", &base, float(row, "backends"));
    r.gauge("postgresql_db_size_bytes", &base, float(row, "size"));
    let (hit, read) = (float(row, "blks_hit"), float(row, "blks_read"));
    for (name, value) in [
        ("postgresql_commits_total", float(row, "xact_commit")),
        ("postgresql_rollbacks_total", float(row, "xact_rollback")),
        ("postgresql_blks_hit_total", hit),
        ("postgresql_blks_read_total", read),
        ("postgresql_tup_returned_total", float(row, "tup_returned")),
        ("postgresql_tup_fetched_total", float(row, "tup_fetched")),
        ("postgresql_tup_inserted_total", float(row, "tup_inserted")),
        ("postgresql_tup_updated_total", float(row, "tup_updated")),
        ("postgresql_tup_deleted_total", float(row, "tup_deleted")),
        ("postgresql_conflicts_total", float(row, "conflicts")),
        ("postgresql_temp_files_total", float(row, "temp_files")),
        ("postgresql_temp_io_bytes_total", float(row, "temp_bytes")),
        ("postgresql_deadlocks_total", float(row, "deadlocks")),
    ] {
        r.counter(name, &base, value);
    }
}

fn locks(r: &mut Recorder, rows: &[Row]) {
    for row in rows {
        let granted = row.try_get("granted").unwrap_or(true);
        let labels = [
            ("mode", text(row, "mode")),
            ("lock_type", text(row, "lock_type")),
            ("granted", if granted { "true" } else { "false" }),
        ];
        r.gauge("postgresql_database_locks", &labels, float(row, "n"));
    }
}

fn bgwriter(r: &mut Recorder, row: &Row) {
    for (kind, column) in [
        ("timed", "checkpoints_timed"),
        ("requested", "checkpoints_req"),
    ] {
        r.counter(
            "postgresql_bgwriter_checkpoint_count_total",
            &[("type", kind)],
            float(row, column),
        );
    }
    for (source, column) in [
        ("checkpoint", "buffers_checkpoint"),
        ("bgwriter", "buffers_clean"),
        ("backend", "buffers_backend"),
    ] {
        r.counter(
            "postgresql_bgwriter_buffers_writes_total",
            &[("source", source)],
            float(row, column),
        );
    }
    r.counter(
        "postgresql_bgwriter_buffers_allocated_total",
        &[],
        float(row, "buffers_alloc"),
    );
    r.counter(
        "postgresql_bgwriter_maxwritten_total",
        &[],
        float(row, "maxwritten_clean"),
    );
}

fn float(row: &Row, column: &str) -> f64 {
    row.try_get::<_, Option<f64>>(column)
        .ok()
        .flatten()
        .unwrap_or(0.0)
}

fn text<'a>(row: &'a Row, column: &str) -> &'a str {
    row.try_get::<_, Option<&str>>(column)
        .ok()
        .flatten()
        .unwrap_or("")
}

/// The server's own message, else the innermost cause. Neither has the password.
fn describe(error: tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return db.message().to_owned();
    }
    let mut cause: &dyn std::error::Error = &error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

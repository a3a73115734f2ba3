//! PostgreSQL: a pool of the primary and one of the streaming replica, and transactions that are rolled back when
//! they are dropped. Must not know tables' meaning, HTTP, faults or telemetry.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod};
use tokio_postgres::NoTls;
use tokio_postgres::types::{ToSql, Type};

use super::{Cell, DbError, Row, Work};
use crate::clock;

/// Where the primary's log ends, in bytes.
const WRITTEN: &str = "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint";
/// How far the replica has replayed it; NULL on a server that is no replica.
const REPLAYED: &str = "SELECT CASE WHEN pg_is_in_recovery() THEN (coalesce(pg_last_wal_replay_lsn(), '0/0'::pg_lsn) - '0/0'::pg_lsn)::bigint END";
/// Key of the advisory lock that instances take to create and fill tables one at a time.
const SETUP_LOCK: i64 = 0x6e69_6e65;

/// Primary and replica.
#[derive(Debug)]
pub(crate) struct Db {
    primary: Side,
    replica: Side,
    behind: Mutex<Behind>,
    /// Whether the primary answered when it was asked last.
    up: AtomicBool,
}

/// Positions of the primary's log that the replica has not replayed, with the moment at which each was seen. Neither
/// `replay_lag` nor the age of the last replay tells the truth: the one is stale while commits are delayed, the other
/// grows while nothing is written.
#[derive(Debug, Default)]
struct Behind(VecDeque<(Instant, i64)>);

#[derive(Debug)]
struct Side {
    pool: Pool,
    max: usize,
    wait_ms: u64,
}

/// A transaction on a connection of its own; dropped before its end, the connection is closed, which rolls it back.
pub(crate) struct Tx {
    object: Option<Object>,
}

/// Where the servers are and how many connections each pool may hold.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub primary: String,
    /// `None`: reads go to the primary.
    pub replica: Option<String>,
    pub pool_max: usize,
    pub wait_ms: u64,
}

// === impl Db ===

impl Db {
    /// Opens both pools, proves that both servers answer, and creates what tables are missing.
    pub(crate) async fn open(options: &Options, schema: &str) -> Result<Self, DbError> {
        let primary = Side::new(&options.primary, options)?;
        let replica = Side::new(
            options.replica.as_ref().unwrap_or(&options.primary),
            options,
        )?;
        let statements = format!(
            "BEGIN; SELECT pg_advisory_xact_lock({SETUP_LOCK}); {} COMMIT;",
            dialect(schema)
        );
        let conn = primary
            .get()
            .await
            .map_err(|e| unreachable("primary", &options.primary, e))?;
        conn.batch_execute(&statements).await.map_err(failed)?;
        drop(conn);
        if let Some(url) = &options.replica {
            let _answers = replica
                .get()
                .await
                .map_err(|e| unreachable("replica", url, e))?;
        }
        Ok(Db {
            primary,
            replica,
            behind: Mutex::default(),
            up: AtomicBool::new(true),
        })
    }

    /// See [`super::Data::rows`].
    pub(crate) async fn rows(
        &self,
        replica: bool,
        hold_ms: f64,
        sql: &str,
        values: &[Cell],
    ) -> Result<(Vec<Row>, f64), DbError> {
        let side = if replica {
            &self.replica
        } else {
            &self.primary
        };
        let conn = side.get().await?;
        let begin = Instant::now();
        clock::wait_ms(hold_ms).await;
        let rows = query(&conn, sql, values).await?;
        Ok((rows, begin.elapsed().as_secs_f64() * 1000.0))
    }

    /// See [`super::Data::write`].
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        hold_ms: f64,
        work: impl for<'a> FnOnce(&'a mut super::Tx) -> Work<'a, T> + Send + 'static,
    ) -> Result<T, DbError> {
        let conn = self.primary.get().await?;
        conn.batch_execute("BEGIN").await.map_err(failed)?;
        let mut tx = super::Tx::Postgres(Tx { object: Some(conn) });
        let value = work(&mut tx).await;
        let super::Tx::Postgres(mut tx) = tx else {
            return Err(DbError::Closed);
        };
        match value {
            Ok(value) => {
                clock::wait_ms(hold_ms).await;
                tx.end("COMMIT").await?;
                Ok(value)
            }
            Err(e) => {
                // When even this fails, the connection is closed, and the server rolls back.
                let _ = tx.end("ROLLBACK").await;
                Err(e)
            }
        }
    }

    /// See [`super::Data::pools`].
    pub(crate) fn pools(&self) -> [(&'static str, [i64; 4]); 2] {
        [
            ("primary", self.primary.numbers()),
            ("replica", self.replica.numbers()),
        ]
    }

    /// See [`super::Data::resize`].
    pub(crate) fn resize(&self, n: Option<usize>) {
        for side in [&self.primary, &self.replica] {
            let size = n.map_or(side.max, |n| n.clamp(1, side.max));
            if side.pool.status().max_size != size {
                side.pool.resize(size);
            }
        }
    }

    /// Waits until the replica has what the primary has written so far, at most 5 s; whether it has.
    pub(crate) async fn replica_follows(&self) -> Result<bool, DbError> {
        let written = query(&self.primary.get().await?, WRITTEN, &[]).await?;
        let written = written.first().map_or(0, |r| r.int(0));
        for _ in 0..100 {
            let rows = query(&self.replica.get().await?, REPLAYED, &[]).await?;
            match rows.first().map(|r| r.0.first()) {
                Some(Some(Cell::Int(n))) if *n < written => clock::wait_ms(50.0).await,
                _ => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Whether the primary answered at the last look.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Asks both servers how far the log goes: the age, in seconds, of the oldest position that the replica lacks, 0
    /// when it has all. `None`: the replica did not answer within a second.
    pub(crate) async fn look_at_lag(&self) -> Option<f64> {
        let position = async |side: &Side, sql: &str| {
            let look = async {
                let conn = side.get().await.ok()?;
                let rows = query(&conn, sql, &[]).await.ok()?;
                rows.first().and_then(|r| r.0.first().cloned())
            };
            tokio::time::timeout(Duration::from_secs(1), look)
                .await
                .ok()
                .flatten()
        };
        let at = Instant::now();
        let written = position(&self.primary, WRITTEN).await;
        self.up.store(written.is_some(), Ordering::Relaxed);
        let replayed = position(&self.replica, REPLAYED).await?;
        let mut behind = self.behind.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(Cell::Int(written)) = written {
            behind.saw(at, written);
        }
        Some(match replayed {
            Cell::Int(replayed) => behind.lag(Instant::now(), replayed).as_secs_f64(),
            // No replica: nothing is behind.
            _ => 0.0,
        })
    }
}

// === impl Behind ===

impl Behind {
    /// Positions remembered: ten minutes of ten looks a second; beyond that the oldest ones count.
    const MOST: usize = 6000;

    /// The primary's log ended at `written`.
    fn saw(&mut self, at: Instant, written: i64) {
        match self.0.back() {
            Some((_, last)) if *last == written => return,
            // Another server: what was seen of the first one says nothing.
            Some((_, last)) if *last > written => self.0.clear(),
            _ => {}
        }
        if self.0.len() == Self::MOST {
            self.0.pop_back();
        }
        self.0.push_back((at, written));
    }

    /// The replica has replayed up to `replayed`: age of the oldest position beyond that.
    fn lag(&mut self, now: Instant, replayed: i64) -> Duration {
        while self.0.front().is_some_and(|(_, lsn)| *lsn <= replayed) {
            self.0.pop_front();
        }
        let oldest = self.0.front();
        oldest.map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at))
    }
}

// === impl Side ===

impl Side {
    fn new(url: &str, options: &Options) -> Result<Self, DbError> {
        let mut config: tokio_postgres::Config = url
            .parse()
            .map_err(|e| DbError::Postgres(format!("PostgreSQL address is wrong: {e}; expected postgres://user@host:port/database or key=value pairs")))?;
        config.connect_timeout(Duration::from_millis(options.wait_ms.max(100)));
        config.keepalives_idle(Duration::from_secs(10));
        config.application_name("refbackend");
        let manager = Manager::from_config(
            config,
            NoTls,
            ManagerConfig {
                recycling_method: RecyclingMethod::Fast,
            },
        );
        let wait = Some(Duration::from_millis(options.wait_ms));
        let pool = Pool::builder(manager)
            .max_size(options.pool_max)
            .wait_timeout(wait)
            .create_timeout(wait)
            .recycle_timeout(wait)
            .runtime(deadpool_postgres::Runtime::Tokio1)
            .build()
            .map_err(|e| DbError::Postgres(e.to_string()))?;
        Ok(Side {
            pool,
            max: options.pool_max,
            wait_ms: options.wait_ms,
        })
    }

    async fn get(&self) -> Result<Object, DbError> {
        self.pool.get().await.map_err(|e| match e {
            PoolError::Timeout(deadpool_postgres::TimeoutType::Wait) => {
                DbError::PoolTimeout(self.wait_ms)
            }
            PoolError::Backend(e) => failed(e),
            other => DbError::Postgres(other.to_string()),
        })
    }

    fn numbers(&self) -> [i64; 4] {
        let s = self.pool.status();
        let in_use = s.size.saturating_sub(s.available) as i64;
        [
            in_use,
            s.available as i64,
            s.max_size as i64,
            s.waiting as i64,
        ]
    }
}

// === impl Tx ===

impl Tx {
    fn conn(&self) -> Result<&Object, DbError> {
        self.object.as_ref().ok_or(DbError::Closed)
    }

    /// Executes; rows changed.
    pub(crate) async fn exec(&mut self, sql: &str, values: &[Cell]) -> Result<usize, DbError> {
        let conn = self.conn()?;
        let statement = conn.prepare_cached(&dialect(sql)).await.map_err(failed)?;
        let values: Vec<_> = values.iter().map(as_sql).collect();
        Ok(conn.execute(&statement, &values).await.map_err(failed)? as usize)
    }

    /// Rows of a statement.
    pub(crate) async fn rows(&mut self, sql: &str, values: &[Cell]) -> Result<Vec<Row>, DbError> {
        query(self.conn()?, sql, values).await
    }

    /// Waits until no other instance prepares the database.
    pub(crate) async fn alone(&mut self) -> Result<(), DbError> {
        let sql = format!("SELECT pg_advisory_xact_lock({SETUP_LOCK})");
        self.conn()?.batch_execute(&sql).await.map_err(failed)
    }

    /// Lets the ids of `tables` go on behind the rows that were inserted with their ids.
    pub(crate) async fn go_on_behind(&mut self, tables: &[&str]) -> Result<(), DbError> {
        for t in tables {
            let sql = format!(
                "SELECT setval(pg_get_serial_sequence('{t}', 'id'), (SELECT max(id) FROM {t}))"
            );
            self.conn()?.batch_execute(&sql).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn end(&mut self, how: &str) -> Result<(), DbError> {
        self.conn()?.batch_execute(how).await.map_err(failed)?;
        // Goes back to the pool only now that the transaction has ended.
        self.object = None;
        Ok(())
    }
}

impl Drop for Tx {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            drop(Object::take(object));
        }
    }
}

// === statements ===

/// The statement as this engine spells it: `$1` for `?1`, 64-bit numbers, ids that count by themselves.
fn dialect(sql: &str) -> String {
    sql.replace('?', "$")
        .replace(
            "INTEGER PRIMARY KEY",
            "BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY",
        )
        .replace(" INTEGER ", " BIGINT ")
}

fn as_sql(cell: &Cell) -> &(dyn ToSql + Sync) {
    match cell {
        Cell::Null => &None::<String>,
        Cell::Int(n) => n,
        Cell::Text(t) => t,
    }
}

async fn query(conn: &Object, sql: &str, values: &[Cell]) -> Result<Vec<Row>, DbError> {
    let statement = conn.prepare_cached(&dialect(sql)).await.map_err(failed)?;
    let values: Vec<_> = values.iter().map(as_sql).collect();
    let rows = conn.query(&statement, &values).await.map_err(failed)?;
    let cell = |row: &tokio_postgres::Row, i: usize| -> Result<Cell, tokio_postgres::Error> {
        Ok(match *row.columns()[i].type_() {
            Type::INT8 => row
                .try_get::<_, Option<i64>>(i)?
                .map_or(Cell::Null, Cell::Int),
            Type::INT4 => row
                .try_get::<_, Option<i32>>(i)?
                .map_or(Cell::Null, |n| Cell::Int(n.into())),
            _ => row.try_get::<_, Option<String>>(i)?.into(),
        })
    };
    rows.iter()
        .map(|row| {
            (0..row.len())
                .map(|i| cell(row, i))
                .collect::<Result<_, _>>()
                .map(Row)
        })
        .collect::<Result<_, _>>()
        .map_err(failed)
}

/// The server's own words when it has some, for the error's own text is only "db error".
fn failed(e: tokio_postgres::Error) -> DbError {
    let text = e.as_db_error().map_or_else(
        || std::error::Error::source(&e).map_or_else(|| e.to_string(), |s| format!("{e}: {s}")),
        |d| format!("{} ({})", d.message(), d.code().code()),
    );
    DbError::Postgres(format!("PostgreSQL: {text}"))
}

fn unreachable(which: &str, url: &str, e: DbError) -> DbError {
    DbError::Postgres(format!(
        "PostgreSQL {which} at {} does not answer: {e}; start it (`backend/stack up`) or set its address",
        shown(url)
    ))
}

/// An address without its password.
fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        let words = url.split(' ').filter(|w| !w.starts_with("password"));
        return words.collect::<Vec<_>>().join(" ");
    };
    match rest.rsplit_once('@') {
        Some((user, host)) => format!("{scheme}://{}@{host}", user.split(':').next().unwrap_or("")),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_spelt_for_this_engine() {
        assert_eq!(
            dialect("SELECT a FROM t WHERE b = ?1 AND c > ?2"),
            "SELECT a FROM t WHERE b = $1 AND c > $2"
        );
        let table = dialect(
            "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, n INTEGER NOT NULL, x TEXT)",
        );
        assert_eq!(
            table,
            "CREATE TABLE IF NOT EXISTS t(id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, n BIGINT NOT NULL, x TEXT)"
        );
    }

    #[test]
    fn the_lag_is_the_age_of_what_the_replica_lacks() {
        let begin = Instant::now();
        let at = |s: u64| begin + Duration::from_secs(s);
        let mut b = Behind::default();
        b.saw(at(0), 100);
        assert_eq!(b.lag(at(0), 100), Duration::ZERO);
        // An hour of silence is no lag, and does not count when the next write comes.
        b.saw(at(3600), 100);
        assert_eq!(b.lag(at(3600), 100), Duration::ZERO);
        b.saw(at(3601), 150);
        b.saw(at(3602), 200);
        assert_eq!(b.lag(at(3603), 100), Duration::from_secs(2));
        assert_eq!(b.lag(at(3604), 160), Duration::from_secs(2));
        assert_eq!(b.lag(at(3604), 200), Duration::ZERO);
        for n in 0..10_000 {
            b.saw(at(4000 + n), 1000 + n as i64);
        }
        assert_eq!(b.0.len(), Behind::MOST);
        assert_eq!(b.lag(at(20_000), 999), Duration::from_secs(16_000));
        b.saw(at(20_001), 5);
        assert_eq!(b.lag(at(20_002), 5), Duration::ZERO, "another server");
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(shown("postgres://me:secret@h:1/d"), "postgres://me@h:1/d");
        assert_eq!(shown("host=h password=secret user=me"), "host=h user=me");
        assert_eq!(shown("postgres://h/d"), "postgres://h/d");
    }
}

//! SQLite in WAL mode: one writer thread, pooled readers, and a replica file that applies the primary's
//! statements after a delay. Must not know tables' meaning, HTTP or faults.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ToSql, params_from_iter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Cell, DbError, Row, Work};
use crate::clock;

type Statements = Vec<(&'static str, Vec<Cell>)>;
/// A job takes the writer's connection out of its slot and puts it back: a transaction owns it meanwhile.
type Job = Box<dyn FnOnce(&mut Option<Connection>, &mut Feed) + Send>;

/// Primary and replica.
#[derive(Debug)]
pub(crate) struct Db {
    writer: SyncSender<Job>,
    /// Readers of the primary.
    pub primary: Pool,
    /// Readers of the replica.
    pub replica: Pool,
    /// Delay asked of the replica, ms.
    pub lag_ms: Arc<AtomicU64>,
    /// Commit time of the oldest write that the replica lacks, Unix ms; 0: none.
    pub oldest_pending_ms: Arc<AtomicU64>,
}

/// Connections of one file.
#[derive(Debug)]
pub(crate) struct Pool {
    path: PathBuf,
    idle: Arc<Mutex<Vec<Connection>>>,
    free: Arc<Semaphore>,
    held: Mutex<Option<OwnedSemaphorePermit>>,
    max: usize,
    wait_ms: u64,
    waiters: AtomicI64,
}

/// Open transaction; what goes through `exec` reaches the replica too.
pub(crate) struct Tx {
    conn: Connection,
    statements: Statements,
}

struct Feed {
    replica: Connection,
    pending: VecDeque<(u64, u64, Statements)>,
    lag_ms: Arc<AtomicU64>,
    oldest: Arc<AtomicU64>,
}

// === impl Db ===

impl Db {
    /// Opens (and creates) both files in `dir` and starts the writer thread.
    pub(crate) fn open(
        dir: &Path,
        schema: &'static str,
        pool_max: usize,
        wait_ms: u64,
        lag_ms: u64,
    ) -> Result<Self, DbError> {
        let (main, copy) = (dir.join("primary.db"), dir.join("replica.db"));
        let conn = connect(&main)?;
        conn.execute_batch(schema)?;
        let lag_ms = Arc::new(AtomicU64::new(lag_ms));
        let oldest = Arc::new(AtomicU64::new(0));
        // A replica starts from a base backup of the primary, as a real one does.
        let mut replica = connect(&copy)?;
        rusqlite::backup::Backup::new(&conn, &mut replica)?.run_to_completion(
            1000,
            Duration::ZERO,
            None,
        )?;
        let mut feed = Feed {
            replica,
            pending: VecDeque::new(),
            lag_ms: Arc::clone(&lag_ms),
            oldest: Arc::clone(&oldest),
        };
        let (writer, jobs) = sync_channel::<Job>(1024);
        std::thread::Builder::new()
            .name("sqlite-writer".into())
            .spawn(move || run_writer(&jobs, &mut Some(conn), &mut feed))
            .map_err(|_| DbError::Closed)?;
        let primary = Pool::new(main, pool_max, wait_ms);
        let replica = Pool::new(copy, pool_max, wait_ms);
        Ok(Db {
            writer,
            primary,
            replica,
            lag_ms,
            oldest_pending_ms: oldest,
        })
    }

    /// Runs `work` in one transaction on the primary, held open for `hold_ms` more; commits when it returns `Ok`.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        hold_ms: f64,
        work: impl for<'a> FnOnce(&'a mut super::Tx) -> Work<'a, T> + Send + 'static,
    ) -> Result<T, DbError> {
        let (done, result) = oneshot::channel();
        let job: Job = Box::new(move |conn, feed| {
            // The caller may have gone away: its result is then nobody's.
            let _ = done.send(transact(conn, feed, hold_ms, work));
        });
        self.send(job).await?;
        result.await.map_err(|_| DbError::Closed)?
    }

    async fn send(&self, mut job: Job) -> Result<(), DbError> {
        loop {
            match self.writer.try_send(job) {
                Ok(()) => return Ok(()),
                Err(std::sync::mpsc::TrySendError::Full(back)) => job = back,
                Err(std::sync::mpsc::TrySendError::Disconnected(_)) => return Err(DbError::Closed),
            }
            clock::wait_ms(1.0).await;
        }
    }
}

fn transact<T>(
    slot: &mut Option<Connection>,
    feed: &mut Feed,
    hold_ms: f64,
    work: impl for<'a> FnOnce(&'a mut super::Tx) -> Work<'a, T>,
) -> Result<T, DbError> {
    let conn = slot.take().ok_or(DbError::Closed)?;
    if let Err(e) = conn.execute_batch("BEGIN IMMEDIATE") {
        *slot = Some(conn);
        return Err(e.into());
    }
    let mut open = super::Tx::Sqlite(Tx {
        conn,
        statements: Vec::new(),
    });
    // Every statement of this engine is done when it returns, so the work never has to wait.
    let value = work(&mut open)
        .now_or_never()
        .unwrap_or(Err(DbError::Refused("a transaction waited for something")));
    let super::Tx::Sqlite(Tx { conn, statements }) = open else {
        return Err(DbError::Closed);
    };
    let conn = slot.insert(conn);
    if value.is_ok() && hold_ms > 0.0 {
        std::thread::sleep(Duration::from_secs_f64(hold_ms / 1000.0));
    }
    let committed = match value {
        Ok(value) => conn
            .execute_batch("COMMIT")
            .map(|()| value)
            .map_err(DbError::from),
        Err(e) => Err(e),
    };
    match committed {
        Ok(value) => {
            feed.push(statements);
            Ok(value)
        }
        Err(e) => {
            // Fails only when the engine has rolled back by itself.
            let _ = conn.execute_batch("ROLLBACK");
            Err(e)
        }
    }
}

/// All rows of a query.
pub(crate) fn rows(conn: &Connection, sql: &str, values: &[Cell]) -> rusqlite::Result<Vec<Row>> {
    let mut statement = conn.prepare_cached(sql)?;
    let n = statement.column_count();
    let mut rows = statement.query(params_from_iter(values))?;
    let mut all = Vec::new();
    while let Some(row) = rows.next()? {
        let mut cells = Vec::with_capacity(n);
        for i in 0..n {
            cells.push(match row.get_ref(i)? {
                ValueRef::Integer(n) => Cell::Int(n),
                ValueRef::Text(t) => Cell::Text(String::from_utf8_lossy(t).into_owned()),
                _ => Cell::Null,
            });
        }
        all.push(Row(cells));
    }
    Ok(all)
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Cell::Null => ValueRef::Null,
            Cell::Int(n) => ValueRef::Integer(*n),
            Cell::Text(t) => ValueRef::Text(t.as_bytes()),
        }))
    }
}

fn run_writer(jobs: &Receiver<Job>, conn: &mut Option<Connection>, feed: &mut Feed) {
    loop {
        match jobs.recv_timeout(Duration::from_millis(if feed.pending.is_empty() {
            500
        } else {
            5
        })) {
            Ok(job) => job(conn, feed),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        feed.apply_due();
    }
}

// === impl Feed ===

impl Feed {
    fn push(&mut self, statements: Statements) {
        if statements.is_empty() {
            return;
        }
        let now = clock::unix_ms();
        self.pending
            .push_back((now + self.lag_ms.load(Ordering::Relaxed), now, statements));
        self.apply_due();
    }

    fn apply_due(&mut self) {
        let now = clock::unix_ms();
        while self.pending.front().is_some_and(|(due, ..)| *due <= now) {
            let Some((_, _, statements)) = self.pending.pop_front() else {
                break;
            };
            // The same statements in the same order on the same rows cannot fail but for a broken disk; the
            // replica then simply stays behind, as a real one would.
            if let Ok(tx) = self.replica.transaction() {
                for (sql, values) in &statements {
                    let _ = rows(&tx, sql, values);
                }
                let _ = tx.commit();
            }
        }
        self.oldest.store(
            self.pending.front().map_or(0, |(_, at, _)| *at),
            Ordering::Relaxed,
        );
    }
}

// === impl Tx ===

impl Tx {
    /// Executes on the primary now and on the replica later; rows changed.
    pub(crate) fn exec(&mut self, sql: &'static str, values: Vec<Cell>) -> Result<usize, DbError> {
        let n = self.local(sql, &values)?;
        self.statements.push((sql, values));
        Ok(n)
    }

    /// Executes on the primary only.
    pub(crate) fn local(&mut self, sql: &'static str, values: &[Cell]) -> Result<usize, DbError> {
        let mut statement = self.conn.prepare_cached(sql)?;
        Ok(statement.execute(params_from_iter(values))?)
    }

    /// Executes `... RETURNING ...` on the primary now and on the replica later.
    pub(crate) fn insert(
        &mut self,
        sql: &'static str,
        values: Vec<Cell>,
    ) -> Result<Vec<Row>, DbError> {
        let returned = rows(&self.conn, sql, &values)?;
        self.statements.push((sql, values));
        Ok(returned)
    }

    /// Rows as the transaction sees them.
    pub(crate) fn rows(&mut self, sql: &'static str, values: &[Cell]) -> Result<Vec<Row>, DbError> {
        Ok(rows(&self.conn, sql, values)?)
    }
}

// === impl Pool ===

impl Pool {
    fn new(path: PathBuf, max: usize, wait_ms: u64) -> Self {
        let free = Arc::new(Semaphore::new(max));
        Pool {
            path,
            idle: Arc::default(),
            free,
            held: Mutex::new(None),
            max,
            wait_ms,
            waiters: AtomicI64::new(0),
        }
    }

    /// Runs `query` on a pooled connection after holding it for `hold_ms`; gives the time of the query in ms.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        hold_ms: f64,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<(T, f64), DbError> {
        self.waiters.fetch_add(1, Ordering::Relaxed);
        let wait = tokio::time::timeout(
            Duration::from_millis(self.wait_ms),
            Arc::clone(&self.free).acquire_owned(),
        );
        let permit = wait.await;
        self.waiters.fetch_sub(1, Ordering::Relaxed);
        let permit = permit
            .map_err(|_| DbError::PoolTimeout(self.wait_ms))?
            .map_err(|_| DbError::Closed)?;
        let begin = std::time::Instant::now();
        clock::wait_ms(hold_ms).await;
        let (path, idle) = (self.path.clone(), Arc::clone(&self.idle));
        let task = tokio::task::spawn_blocking(move || -> Result<T, DbError> {
            let pooled = idle.lock().unwrap_or_else(|e| e.into_inner()).pop();
            let conn = pooled.map_or_else(|| connect(&path), Ok)?;
            let value = query(&conn);
            idle.lock().unwrap_or_else(|e| e.into_inner()).push(conn);
            drop(permit);
            Ok(value?)
        });
        let value = task.await.map_err(|_| DbError::Closed)??;
        Ok((value, begin.elapsed().as_secs_f64() * 1000.0))
    }

    /// In use, idle, maximum, waiting.
    pub(crate) fn numbers(&self) -> [i64; 4] {
        let held = self
            .held
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let max = (self.max - held) as i64;
        let in_use = (max - self.free.available_permits() as i64).max(0);
        let waiters = self.waiters.load(Ordering::Relaxed).max(0);
        [
            in_use,
            (max - in_use).max(0),
            max,
            if in_use >= max { waiters } else { 0 },
        ]
    }

    /// Lowers the maximum to `n` as far as connections are free now (call again for the rest), or restores it.
    pub(crate) fn resize(&self, n: Option<usize>) {
        let mut held = self.held.lock().unwrap_or_else(|e| e.into_inner());
        let wanted = n.map_or(0, |n| self.max.saturating_sub(n.max(1)));
        let have = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if wanted < have {
            *held = None;
        }
        let have = held.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let take = (wanted - have.min(wanted)).min(self.free.available_permits());
        if take > 0
            && let Ok(more) = Arc::clone(&self.free).try_acquire_many_owned(take as u32)
        {
            match held.as_mut() {
                Some(h) => h.merge(more),
                None => *held = Some(more),
            }
        }
    }
}

fn connect(path: &Path) -> Result<Connection, DbError> {
    let conn = Connection::open(path)?;
    conn.busy_timeout(Duration::from_secs(5))?;
    conn.pragma_update(None, "journal_mode", "WAL")?;
    conn.pragma_update(None, "synchronous", "NORMAL")?;
    conn.set_prepared_statement_cache_capacity(64);
    Ok(conn)
}

//! The seam to the database: rows of cells, one statement text for both engines, transactions as async closures.
//! Must not know tables' meaning, HTTP, faults or telemetry.

pub(crate) mod postgres;
pub(crate) mod sqlite;

use futures_util::future::BoxFuture;

/// Why a database call failed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection became free in time.
    #[error("no database connection within {0} ms")]
    PoolTimeout(u64),
    /// The writer or a reader is gone.
    #[error("database is closed")]
    Closed,
    /// SQLite refused.
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL refused, or could not be reached.
    #[error("{0}")]
    Postgres(String),
    /// The caller's own rule refused; the transaction was rolled back.
    #[error("{0}")]
    Refused(&'static str),
    /// Injected.
    #[error("injected database error")]
    Injected,
}

/// One value of a statement or of a row.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Text(String),
}

/// One row of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Row(pub Vec<Cell>);

/// The database: embedded SQLite files, or PostgreSQL with a streaming replica.
#[derive(Debug)]
pub(crate) enum Data {
    Sqlite(sqlite::Db),
    Postgres(postgres::Db),
}

/// An open transaction.
pub(crate) enum Tx {
    Sqlite(sqlite::Tx),
    Postgres(postgres::Tx),
}

/// What a transaction does: the same code for both engines.
pub(crate) type Work<'a, T> = BoxFuture<'a, Result<T, DbError>>;

// === impl Cell, Row ===

impl From<i64> for Cell {
    fn from(n: i64) -> Self {
        Cell::Int(n)
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Cell::Text(text)
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Cell::Text(text.to_owned())
    }
}

impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Self {
        text.map_or(Cell::Null, Cell::Text)
    }
}

impl Row {
    /// Column `i` as a number; 0 when it is none.
    pub(crate) fn int(&self, i: usize) -> i64 {
        match self.0.get(i) {
            Some(Cell::Int(n)) => *n,
            _ => 0,
        }
    }

    /// Column `i` as text; `None` for NULL and numbers.
    pub(crate) fn text(&self, i: usize) -> Option<&str> {
        match self.0.get(i) {
            Some(Cell::Text(t)) => Some(t),
            _ => None,
        }
    }
}

// === impl Data ===

impl Data {
    /// `db.system.name`.
    pub(crate) fn system(&self) -> &'static str {
        match self {
            Data::Sqlite(_) => "sqlite",
            Data::Postgres(_) => "postgresql",
        }
    }

    /// Rows of a query (parameters are `?1`, `?2`, ...) on the replica or the primary, its connection held for `hold_ms`
    /// before; and the time it took, ms, without the wait for a connection.
    pub(crate) async fn rows(
        &self,
        replica: bool,
        hold_ms: f64,
        sql: &'static str,
        values: Vec<Cell>,
    ) -> Result<(Vec<Row>, f64), DbError> {
        match self {
            Data::Sqlite(db) => {
                let pool = if replica { &db.replica } else { &db.primary };
                pool.read(hold_ms, move |c| sqlite::rows(c, sql, &values))
                    .await
            }
            Data::Postgres(db) => db.rows(replica, hold_ms, sql, &values).await,
        }
    }

    /// Runs `work` in one transaction on the primary, held open for `hold_ms` more; commits when it returns `Ok`.
    pub(crate) async fn write<T: Send + 'static>(
        &self,
        hold_ms: f64,
        work: impl for<'a> FnOnce(&'a mut Tx) -> Work<'a, T> + Send + 'static,
    ) -> Result<T, DbError> {
        match self {
            Data::Sqlite(db) => db.write(hold_ms, work).await,
            Data::Postgres(db) => db.write(hold_ms, work).await,
        }
    }

    /// In use, idle, maximum and waiting, of the primary's and the replica's pool.
    pub(crate) fn pools(&self) -> [(&'static str, [i64; 4]); 2] {
        match self {
            Data::Sqlite(db) => [
                ("primary", db.primary.numbers()),
                ("replica", db.replica.numbers()),
            ],
            Data::Postgres(db) => db.pools(),
        }
    }

    /// Whether the primary answers; an embedded one always does.
    pub(crate) fn is_up(&self) -> bool {
        match self {
            Data::Sqlite(_) => true,
            Data::Postgres(db) => db.is_up(),
        }
    }

    /// Lowers the pools to `n` connections, or restores them.
    pub(crate) fn resize(&self, n: Option<usize>) {
        match self {
            Data::Sqlite(db) => {
                db.primary.resize(n);
                db.replica.resize(n);
            }
            Data::Postgres(db) => db.resize(n),
        }
    }
}

// === impl Tx ===

impl Tx {
    /// Executes; rows changed.
    pub(crate) async fn exec(
        &mut self,
        sql: &'static str,
        values: Vec<Cell>,
    ) -> Result<usize, DbError> {
        match self {
            Tx::Sqlite(tx) => tx.exec(sql, values),
            Tx::Postgres(tx) => tx.exec(sql, &values).await,
        }
    }

    /// Executes a statement about this process' own queue, which no replica needs.
    pub(crate) async fn local(
        &mut self,
        sql: &'static str,
        values: Vec<Cell>,
    ) -> Result<usize, DbError> {
        match self {
            Tx::Sqlite(tx) => tx.local(sql, &values),
            Tx::Postgres(tx) => tx.exec(sql, &values).await,
        }
    }

    /// Inserts (`... RETURNING id`): the new row's id, `None` when a conflict kept it out.
    pub(crate) async fn insert(
        &mut self,
        sql: &'static str,
        values: Vec<Cell>,
    ) -> Result<Option<i64>, DbError> {
        let rows = match self {
            Tx::Sqlite(tx) => tx.insert(sql, values)?,
            Tx::Postgres(tx) => tx.rows(sql, &values).await?,
        };
        Ok(rows.first().map(|r| r.int(0)))
    }

    /// Rows as the transaction sees them.
    pub(crate) async fn rows(
        &mut self,
        sql: &'static str,
        values: Vec<Cell>,
    ) -> Result<Vec<Row>, DbError> {
        match self {
            Tx::Sqlite(tx) => tx.rows(sql, &values),
            Tx::Postgres(tx) => tx.rows(sql, &values).await,
        }
    }

    /// Waits until no other instance prepares the database; an embedded one has no other.
    pub(crate) async fn alone(&mut self) -> Result<(), DbError> {
        match self {
            Tx::Sqlite(_) => Ok(()),
            Tx::Postgres(tx) => tx.alone().await,
        }
    }

    /// Lets the ids of `tables` go on behind rows that were inserted with theirs; SQLite does so by itself.
    pub(crate) async fn go_on_behind(&mut self, tables: &[&str]) -> Result<(), DbError> {
        match self {
            Tx::Sqlite(_) => Ok(()),
            Tx::Postgres(tx) => tx.go_on_behind(tables).await,
        }
    }
}

//! Where cached values are: in this process, or in Redis. Must not know what is cached, breakers or telemetry.

use std::time::Instant;

use bytes::Bytes;

use crate::redis_cache::RedisCache;

/// The cache.
#[derive(Debug)]
pub(crate) enum Cache {
    Memory(Memory),
    Redis(RedisCache),
}

/// Entries in this process.
#[derive(Debug)]
pub(crate) struct Memory {
    entries: moka::future::Cache<String, Entry>,
    began: Instant,
}

/// A cached value and the moment it stops being valid, ms since the start.
#[derive(Clone, Debug)]
struct Entry {
    bytes: Bytes,
    until_ms: u64,
}

// === impl Cache ===

impl std::fmt::Debug for RedisCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RedisCache")
    }
}

impl Cache {
    /// An empty cache in this process of at most `capacity` entries.
    pub(crate) fn memory(capacity: u64) -> Self {
        let entries = moka::future::Cache::builder()
            .max_capacity(capacity)
            .build();
        Cache::Memory(Memory {
            entries,
            began: Instant::now(),
        })
    }

    /// `db.system.name`.
    pub(crate) fn system(&self) -> &'static str {
        match self {
            Cache::Memory(_) => "moka",
            Cache::Redis(_) => "redis",
        }
    }

    /// The value, when there is one that is still valid. The error says why the server did not answer.
    pub(crate) async fn get(&self, key: &str) -> Result<Option<Bytes>, String> {
        match self {
            Cache::Memory(m) => {
                let entry = m.entries.get(key).await;
                Ok(entry.filter(|e| e.until_ms > m.now_ms()).map(|e| e.bytes))
            }
            Cache::Redis(redis) => redis.get(key).await,
        }
    }

    /// Keeps a value for `ttl_s` seconds.
    pub(crate) async fn set(&self, key: &str, bytes: Bytes, ttl_s: u64) -> Result<(), String> {
        match self {
            Cache::Memory(m) => {
                let until_ms = m.now_ms() + ttl_s * 1000;
                let entry = Entry { bytes, until_ms };
                m.entries.insert(key.to_owned(), entry).await;
                Ok(())
            }
            Cache::Redis(redis) => redis.set(key, &bytes, ttl_s).await,
        }
    }

    /// Forgets a value.
    pub(crate) async fn del(&self, key: &str) -> Result<(), String> {
        match self {
            Cache::Memory(m) => {
                m.entries.invalidate(key).await;
                Ok(())
            }
            Cache::Redis(redis) => redis.del(key).await,
        }
    }

    /// Forgets all values.
    pub(crate) async fn purge(&self) -> Result<(), String> {
        match self {
            Cache::Memory(m) => {
                m.entries.invalidate_all();
                Ok(())
            }
            Cache::Redis(redis) => redis.purge().await,
        }
    }
}

// === impl Memory ===

impl Memory {
    fn now_ms(&self) -> u64 {
        self.began.elapsed().as_millis() as u64
    }
}

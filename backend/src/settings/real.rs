//! Addresses of the real servers, and how they are read from the file that `backend/stack up` writes or from the
//! environment. Must not connect to anything.

use serde::{Deserialize, Serialize};

/// Real mode: Redis, PostgreSQL and RabbitMQ in the place of the embedded parts, a real balancer in front.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Real {
    /// Redis primary, `redis://host:port` (`NINES_REDIS_URL`).
    pub redis_url: String,
    /// Redis replica (`NINES_REDIS_REPLICA_URL`); used for reads only with `redis_read_replica`.
    #[serde(default)]
    pub redis_replica_url: Option<String>,
    /// Read the cache from the replica: it may be behind, so stale reads rise.
    #[serde(default)]
    pub redis_read_replica: bool,
    /// PostgreSQL primary, `postgres://user:password@host:port/database` (`NINES_PG_PRIMARY`).
    pub pg_primary: String,
    /// Streaming replica (`NINES_PG_REPLICA`); without one the primary serves its reads.
    #[serde(default)]
    pub pg_replica: Option<String>,
    /// RabbitMQ, `amqp://user:password@host:port/vhost` (`NINES_AMQP_URL`).
    pub amqp_url: String,
    /// One address for each gateway instance that the balancer in front knows (`NINES_STACK_APPS`, commas between).
    /// Empty: one instance at `listen`.
    #[serde(default)]
    pub fronts: Vec<String>,
}

// === impl Real ===

impl Real {
    /// Takes the addresses from variables; the error names every one that is missing.
    pub fn from_variables(value: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let value = |name: &str| value(name).filter(|v| !v.trim().is_empty());
        let needed = ["NINES_REDIS_URL", "NINES_PG_PRIMARY", "NINES_AMQP_URL"];
        let missing: Vec<&str> = needed.into_iter().filter(|n| value(n).is_none()).collect();
        if !missing.is_empty() {
            return Err(format!(
                "real mode lacks {}; start the servers with `backend/stack up` and give the file `env` of its folder, or set these variables",
                missing.join(", ")
            ));
        }
        let text = |name: &str| value(name).unwrap_or_default();
        let fronts = text("NINES_STACK_APPS");
        Ok(Real {
            redis_url: text("NINES_REDIS_URL"),
            redis_replica_url: value("NINES_REDIS_REPLICA_URL"),
            redis_read_replica: false,
            pg_primary: text("NINES_PG_PRIMARY"),
            pg_replica: value("NINES_PG_REPLICA"),
            amqp_url: text("NINES_AMQP_URL"),
            fronts: fronts
                .split(',')
                .map(|a| a.trim().to_owned())
                .filter(|a| !a.is_empty())
                .collect(),
        })
    }

    /// Takes the addresses from lines `NAME=VALUE`, as in the stack's file `env`; `file` is its name in an error.
    pub fn from_env_file(file: &str, text: &str) -> Result<Self, String> {
        let mut pairs = Vec::new();
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value) = line
                .split_once('=')
                .ok_or_else(|| format!("{file}:{}:1: `{line}` is not NAME=VALUE", i + 1))?;
            let name = name.trim().trim_start_matches("export ").trim();
            pairs.push((name, value.trim().trim_matches(['"', '\''])));
        }
        let find = |name: &str| {
            let pair = pairs.iter().rev().find(|(n, _)| *n == name);
            pair.map(|(_, v)| (*v).to_owned())
        };
        Real::from_variables(find).map_err(|e| format!("{file}: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_stack_is_read_and_what_it_lacks_is_named() {
        let text = "# stack\nNINES_REDIS_URL=redis://127.0.0.1:1\nNINES_PG_PRIMARY='postgres://a:b@127.0.0.1:2/app'\n\
            export NINES_AMQP_URL=amqp://127.0.0.1:3/%2f\nNINES_STACK_APPS=127.0.0.1:4,127.0.0.1:5\nOTHER=1\n";
        let real = Real::from_env_file("env", text).unwrap();
        assert_eq!(real.pg_primary, "postgres://a:b@127.0.0.1:2/app");
        assert_eq!(real.fronts, ["127.0.0.1:4", "127.0.0.1:5"]);
        assert_eq!(real.pg_replica, None);
        let error = Real::from_env_file("env", "NINES_REDIS_URL=x\n").unwrap_err();
        assert!(
            error.starts_with("env: real mode lacks NINES_PG_PRIMARY, NINES_AMQP_URL;"),
            "{error}"
        );
        let error = Real::from_env_file("env", "a=1\nnonsense\n").unwrap_err();
        assert_eq!(error, "env:2:1: `nonsense` is not NAME=VALUE");
    }
}

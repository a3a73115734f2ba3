//! The real servers that `backend/stack up` started: their addresses, and breaking one of them.
//!
//! Owns the reading of the folder. Must not know what runs on the servers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use agent::collect::config::{
    CollectConfig, Every, HaproxyConfig, Hidden, NginxConfig, PostgresConfig, RabbitConfig,
    RedisConfig,
};
use anyhow::Context;

use crate::console::{read_file, usage};

/// A running stack.
pub struct Stack {
    dir: PathBuf,
    variables: HashMap<String, String>,
    /// What the backend needs of it.
    pub real: backend::settings::Real,
}

impl Stack {
    /// Reads `DIR/env`.
    pub fn read(dir: &Path) -> anyhow::Result<Stack> {
        let (name, text) = read_file(&dir.join("env"))?;
        let real = backend::settings::Real::from_env_file(&name, &text).map_err(usage)?;
        let variables: HashMap<String, String> = text
            .lines()
            .filter_map(|l| l.split_once('='))
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect();
        for needed in ["NINES_NGINX_URL", "NINES_STACK_SCRIPT"] {
            if !variables.contains_key(needed) {
                return Err(usage(format!(
                    "{name}: lacks {needed}; the demo needs a stack with nginx: `backend/stack up --dir {}`",
                    dir.display()
                )));
            }
        }
        Ok(Stack {
            dir: dir.to_owned(),
            variables,
            real,
        })
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str)
    }

    /// Where clients connect: nginx.
    pub fn front(&self) -> String {
        self.variable("NINES_NGINX_URL")
            .unwrap_or_default()
            .to_owned()
    }

    /// Breaks or mends a server: a fault of `backend/stack fault list`.
    pub async fn fault(&self, name: &str) -> anyhow::Result<()> {
        let script = self.variable("NINES_STACK_SCRIPT").unwrap_or_default();
        let done = tokio::process::Command::new(script)
            .args(["fault", name, "--dir"])
            .arg(&self.dir)
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .status()
            .await
            .with_context(|| format!("cannot run {script}"))?;
        anyhow::ensure!(done.success(), "`{script} fault {name}` failed: {done}");
        Ok(())
    }

    /// The servers as the agent collects them.
    pub fn collect(&self, into: &mut CollectConfig, every: Every) {
        let hidden = |name: &str| self.variable(name).map(|v| Hidden(v.to_owned()));
        for url in ["NINES_REDIS_URL", "NINES_REDIS_REPLICA_URL"]
            .into_iter()
            .filter_map(hidden)
        {
            into.redis.push(RedisConfig {
                url,
                interval: every,
                ..RedisConfig::default()
            });
        }
        for url in ["NINES_PG_PRIMARY", "NINES_PG_REPLICA"]
            .into_iter()
            .filter_map(hidden)
        {
            into.postgres.push(PostgresConfig {
                url,
                interval: every,
                ..PostgresConfig::default()
            });
        }
        into.rabbitmq
            .extend(hidden("NINES_RABBIT_API").map(|url| RabbitConfig {
                url,
                ..RabbitConfig::default()
            }));
        if let Some(status) = self.variable("NINES_NGINX_STATUS") {
            into.nginx.push(NginxConfig {
                status_url: Some(status.to_owned()),
                access_log: self.variable("NINES_NGINX_LOG").map(PathBuf::from),
                interval: every,
                ..NginxConfig::default()
            });
        }
        if let Some(url) = self.variable("NINES_HAPROXY_METRICS") {
            into.haproxy.push(HaproxyConfig {
                url: url.to_owned(),
                ..HaproxyConfig::default()
            });
        }
    }
}

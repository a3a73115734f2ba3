//! The flags of `nines load rate|closed|capacity` that say what is sent, by whose leave and under which name.
//!
//! Owns those flags and the setting that says a target is the user's. Must not know how load is made.

use clap::Args as ClapArgs;
use loadgen::Plan;
use loadgen::conn::Target;
use loadgen::transport::take_userinfo;

use super::load::span;
use crate::console::{note, usage};

/// What each request is, and the run's name.
#[derive(Debug, ClapArgs)]
pub struct RequestFlags {
    /// Give up on a request after
    #[arg(long, default_value = "10s", value_name = "DURATION")]
    timeout: String,

    /// Method
    #[arg(short = 'X', short_alias = 'm', long, default_value = "GET")]
    method: String,

    /// A header, such as 'Accept: text/html'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "HEADER")]
    headers: Vec<String>,

    /// Body of each request
    #[arg(short, long)]
    pub(super) body: Option<String>,

    /// Do not check the server's certificate
    #[arg(short = 'k', long)]
    insecure: bool,

    /// This target is mine: more than 100 requests a second beyond loopback are fine
    #[arg(long)]
    i_own_this_target: bool,

    /// Seed of trace ids, arrivals and templates [default: from the clock]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,

    /// Name of the run [default: random]
    #[arg(long, value_name = "ID")]
    pub(super) run_id: Option<String>,
}

impl RequestFlags {
    /// Sets all of it but the requests themselves.
    pub(super) fn apply(&self, plan: &mut Plan) -> anyhow::Result<()> {
        plan.timeout = span("--timeout", &self.timeout)?;
        plan.insecure = self.insecure;
        plan.own_target = self.owns(&plan.target);
        plan.seed = self.seed.unwrap_or(plan.seed);
        if let Some(run_id) = &self.run_id {
            plan.run_id.clone_from(run_id);
        }
        warn_insecure(self.insecure);
        Ok(())
    }

    /// Whether the user says that this target is theirs.
    pub(super) fn owns(&self, target: &str) -> bool {
        owned(self.i_own_this_target, target)
    }

    /// Sets method, headers and body of the plan's requests.
    pub(super) fn set(&self, plan: &mut Plan, body: Option<&String>) -> anyhow::Result<()> {
        for request in &mut plan.requests {
            request.method = self.method.to_uppercase();
            request.body = body.cloned();
            for header in &self.headers {
                let (name, value) = header.split_once(':').ok_or_else(|| {
                    usage(format!(
                        "--header {header:?} has no colon; write it as 'Name: value'"
                    ))
                })?;
                request
                    .headers
                    .push((name.trim().into(), value.trim().into()));
            }
        }
        Ok(())
    }
}

/// Says that nobody checks who answers.
pub fn warn_insecure(insecure: bool) {
    if insecure {
        note("warning: the server's certificate is not checked");
    }
}

/// Puts user and password of the URL into each request that has no `Authorization` of its own.
pub fn authorize(plan: &mut Plan, url: &str) {
    let Some(value) = take_userinfo(url).1 else {
        return;
    };
    for request in &mut plan.requests {
        let own = |(name, _): &(String, String)| name.eq_ignore_ascii_case("authorization");
        if !request.headers.iter().any(own) {
            let header = ("authorization".to_owned(), value.clone());
            request.headers.push(header);
        }
    }
}

/// Whether the user says that the target is theirs, by flag or by `NINES_I_OWN_THIS_TARGET`.
pub fn owned(flag: bool, target: &str) -> bool {
    flag || Target::parse(target).is_ok_and(|t| owned_host(&t.host))
}

/// Whether `NINES_I_OWN_THIS_TARGET` (hosts, commas between) names this host.
pub fn owned_host(host: &str) -> bool {
    std::env::var("NINES_I_OWN_THIS_TARGET").is_ok_and(|hosts| names(&hosts, host))
}

fn names(hosts: &str, host: &str) -> bool {
    let bare = |text: &str| text.trim().trim_matches(['[', ']']).to_ascii_lowercase();
    hosts.split(',').any(|named| bare(named) == bare(host))
}

/// A plan that may not be run, in the words of the command line.
pub fn refused(error: loadgen::LoadError) -> anyhow::Error {
    let more = match &error {
        loadgen::LoadError::NotYours { host, .. } => {
            format!(": give --i-own-this-target, or set NINES_I_OWN_THIS_TARGET={host} once")
        }
        loadgen::LoadError::Awake(_) => ", or leave --keep-awake out".to_owned(),
        _ => String::new(),
    };
    usage(format!("{error}{more}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_named_whole() {
        assert!(names("a.example, b.example", "b.example"));
        assert!(names("[::2]", "::2") && names("B.Example", "b.example"));
        assert!(!names("b.example", "a.b.example") && !names("true", "a.example"));
        assert!(!names("", "a.example"));
    }
}

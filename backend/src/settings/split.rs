//! Which roles this process has, and where the others are. Must not know how a peer is called.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::telemetry::{ROLES, Role};

/// One process of several. The parts must be real: an embedded database belongs to one process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Split {
    /// Roles of this process.
    pub roles: Vec<Role>,
    /// Roles elsewhere, each at `http://host:port`.
    pub peers: BTreeMap<Role, String>,
    /// Where role `product` answers gRPC (`Inventory`), `host:port`; empty: a free port on loopback.
    pub inventory_listen: String,
    /// Where role `order` finds it, `http://host:port`; not needed when `product` is a role of this process.
    pub inventory_url: Option<String>,
}

// === impl Split ===

impl Split {
    /// Whether this process has a role.
    pub(crate) fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Says what is missing for these roles to do their work.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.roles.is_empty() {
            let names: Vec<_> = ROLES.iter().map(|r| r.name()).collect();
            return Err(format!(
                "split.roles: is empty; expected some of {}",
                names.join(", ")
            ));
        }
        const CALLED: [Role; 5] = [
            Role::User,
            Role::Product,
            Role::Order,
            Role::Payment,
            Role::Task,
        ];
        if self.has(Role::Gateway) {
            let known = |r: &Role| self.has(*r) || self.peers.contains_key(r);
            let missing: Vec<_> = CALLED
                .iter()
                .filter(|r| !known(r))
                .map(|r| r.name())
                .collect();
            if !missing.is_empty() {
                return Err(format!(
                    "split.peers: the gateway does not know where {} is; add `{}: http://host:port`",
                    missing.join(", "),
                    missing[0]
                ));
            }
        }
        if self.has(Role::Order) && !self.has(Role::Product) && self.inventory_url.is_none() {
            return Err("split.inventory_url: role order asks product over gRPC; set http://host:port of its inventory_listen".into());
        }
        let bad = |url: &&String| {
            url.parse::<http::Uri>().map_or(true, |u| {
                u.scheme_str() != Some("http") || u.authority().is_none()
            })
        };
        match self.peers.values().chain(&self.inventory_url).find(bad) {
            Some(url) => Err(format!(
                "split: `{url}` is no address of a peer; expected http://host:port"
            )),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let error = |s: &Split| s.check().unwrap_err();
        assert!(error(&Split::default()).contains("expected some of gateway, user"));
        let mut s = Split {
            roles: vec![Role::Gateway, Role::User, Role::Task],
            ..Split::default()
        };
        assert!(
            error(&s).contains("where product, order, payment is"),
            "{}",
            error(&s)
        );
        for role in [Role::Product, Role::Order, Role::Payment] {
            s.peers.insert(role, "http://127.0.0.1:1".into());
        }
        assert_eq!(s.check(), Ok(()));
        s.peers.insert(Role::Order, "127.0.0.1:1".into());
        assert!(
            error(&s).contains("`127.0.0.1:1` is no address"),
            "{}",
            error(&s)
        );
        let s = Split {
            roles: vec![Role::Order],
            ..Split::default()
        };
        assert!(error(&s).contains("split.inventory_url"));
    }
}

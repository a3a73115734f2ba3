//! Which receivers an alert goes to, and with which others it is grouped.
//!
//! Owns the routes' conditions and the dedup key. Pure. Must not know time.

use model::{Labels, Matcher};

use super::config::{DeliveryConfig, ReceiverKind, RouteConfig};
use crate::notification::{Fnv, Notification};
use crate::silence::parse_matcher;

/// A route, its conditions read.
#[derive(Debug, Clone)]
pub(super) struct Route {
    pub(super) config: RouteConfig,
    matchers: Vec<Matcher>,
}

/// Reads and checks the routes of a configuration; without any, the default ones by severity.
pub(super) fn routes(config: &DeliveryConfig) -> Result<Vec<Route>, String> {
    let mut names = std::collections::BTreeSet::new();
    for receiver in &config.receivers {
        receiver.kind()?;
        if receiver.name.is_empty() || !names.insert(receiver.name.as_str()) {
            return Err(format!(
                "receiver names must be unique and not empty: {:?}",
                receiver.name
            ));
        }
    }
    let known = |name: &String, by: &str| {
        if names.contains(name.as_str()) {
            return Ok(());
        }
        let guess = model::spelling::nearest(name, names.iter().copied());
        let hint = guess.map_or(String::new(), |g| format!("; did you mean {g:?}?"));
        Err(format!(
            "{by} names the receiver {name:?}, which does not exist{hint}"
        ))
    };
    if let Some(name) = &config.fallback {
        known(name, "fallback")?;
    }
    let configs = if config.routes.is_empty() {
        default_routes(config)?
    } else {
        config.routes.clone()
    };
    let mut routes = Vec::new();
    for route in configs {
        for name in &route.receivers {
            known(name, "a route")?;
        }
        let matchers = route.matchers.iter().map(|m| parse_matcher(m));
        routes.push(Route {
            matchers: matchers.collect::<Result<_, _>>()?,
            config: route,
        });
    }
    Ok(routes)
}

/// Critical to every page, warning to every chat.
fn default_routes(config: &DeliveryConfig) -> Result<Vec<RouteConfig>, String> {
    let (mut pages, mut chats) = (Vec::new(), Vec::new());
    for receiver in &config.receivers {
        match receiver.kind()? {
            ReceiverKind::Slack(_) => chats.push(receiver.name.clone()),
            _ => pages.push(receiver.name.clone()),
        }
    }
    let route = |severity: &str, receivers| RouteConfig {
        severity: vec![severity.to_owned()],
        receivers,
        ..RouteConfig::default()
    };
    Ok(vec![route("critical", pages), route("warning", chats)])
}

/// The indexes of the routes that an alert takes.
pub(super) fn matching(routes: &[Route], alert: &Notification) -> Vec<usize> {
    let mut found = Vec::new();
    for (i, route) in routes.iter().enumerate() {
        let severity = &route.config.severity;
        let fits = severity.is_empty() || severity.iter().any(|s| s == alert.severity());
        if fits
            && route
                .matchers
                .iter()
                .all(|m| m.matches_labels(&alert.labels))
        {
            found.push(i);
            if !route.config.go_on {
                break;
            }
        }
    }
    found
}

/// The labels that group an alert on a route: those of `group_by` that it has, or all when it has none.
pub(super) fn group_labels(route: &Route, alert: &Notification) -> Labels {
    let by = &route.config.group_by;
    let labels = alert.labels.retain(|n| by.iter().any(|b| b == n));
    if labels.is_empty() {
        alert.labels.clone()
    } else {
        labels
    }
}

/// The group's key for receivers: depends on the route's receivers and the group's labels only.
pub(super) fn dedup_key(route: &Route, labels: &Labels) -> String {
    let mut hash = Fnv::default();
    for name in &route.config.receivers {
        hash.write(name.as_bytes());
        hash.write(&[0xfe]);
    }
    hash.write(labels.as_packed().as_bytes());
    format!("nines-{:016x}", hash.0)
}

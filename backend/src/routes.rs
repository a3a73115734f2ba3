//! The table of routes: which template a path matches, which role answers it, who may call it.
//! Must not know handlers.

use crate::telemetry::Role;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Anyone.
    Public,
    /// A valid token.
    User,
    /// A token with role admin.
    Admin,
}

/// One route.
#[derive(Debug)]
pub(crate) struct Route {
    /// Method.
    pub method: &'static str,
    /// Template, `{x}` stands for one segment.
    pub template: &'static str,
    /// Who answers.
    pub role: Role,
    /// Who may call.
    pub access: Access,
}

const fn r(method: &'static str, template: &'static str, role: Role, access: Access) -> Route {
    Route {
        method,
        template,
        role,
        access,
    }
}

/// Every route of the front.
pub(crate) const ROUTES: &[Route] = &[
    r("POST", "/api/v1/auth/register", Role::User, Access::Public),
    r("POST", "/api/v1/auth/login", Role::User, Access::Public),
    r("GET", "/api/v1/auth/me", Role::User, Access::User),
    r("GET", "/api/users/{id}", Role::User, Access::User),
    r("GET", "/api/users/{id}/orders", Role::Order, Access::User),
    r("GET", "/api/products", Role::Product, Access::Public),
    r("GET", "/api/products/{id}", Role::Product, Access::Public),
    r("GET", "/api/search", Role::Product, Access::Public),
    r("POST", "/api/orders", Role::Order, Access::User),
    r("GET", "/api/orders/{id}", Role::Order, Access::User),
    r("POST", "/api/payments", Role::Payment, Access::Admin),
    r("GET", "/api/v1/tasks", Role::Task, Access::Public),
    r("POST", "/api/v1/tasks", Role::Task, Access::User),
    r("GET", "/api/v1/tasks/{id}", Role::Task, Access::Public),
    r("PUT", "/api/v1/tasks/{id}", Role::Task, Access::User),
    r("PATCH", "/api/v1/tasks/{id}", Role::Task, Access::User),
    r("DELETE", "/api/v1/tasks/{id}", Role::Task, Access::User),
    r("PUT", "/blobs/{key}", Role::Gateway, Access::User),
    r("GET", "/blobs/{key}", Role::Gateway, Access::Public),
    r("GET", "/static/{file}", Role::Gateway, Access::Public),
    r("GET", "/health", Role::Gateway, Access::Public),
    r("GET", "/health/live", Role::Gateway, Access::Public),
    r("GET", "/health/ready", Role::Gateway, Access::Public),
    r("GET", "/metrics", Role::Gateway, Access::Public),
    r("GET", "/version", Role::Gateway, Access::Public),
];

/// Outcome of a lookup.
#[derive(Debug)]
pub(crate) enum Match<'a> {
    /// The route and its parameter (empty when the template has none).
    Found(&'static Route, &'a str),
    /// The path exists with other methods.
    WrongMethod,
    /// Nothing.
    Unmatched,
}

/// Finds the route of a request.
pub(crate) fn find<'a>(method: &str, path: &'a str) -> Match<'a> {
    let mut seen = false;
    for route in ROUTES {
        if let Some(parameter) = fits(route.template, path) {
            if route.method == method || (method == "HEAD" && route.method == "GET") {
                return Match::Found(route, parameter);
            }
            seen = true;
        }
    }
    if seen {
        Match::WrongMethod
    } else {
        Match::Unmatched
    }
}

fn fits<'a>(template: &str, path: &'a str) -> Option<&'a str> {
    let (mut t, mut p) = (template.split('/'), path.split('/'));
    let mut parameter = "";
    loop {
        match (t.next(), p.next()) {
            (None, None) => return Some(parameter),
            (Some(a), Some(b)) if a.starts_with('{') && !b.is_empty() => parameter = b,
            (Some(a), Some(b)) if a == b => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_match_exactly() {
        assert!(
            matches!(find("GET", "/api/products/123"), Match::Found(r, "123") if r.template == "/api/products/{id}")
        );
        assert!(
            matches!(find("GET", "/api/users/4/orders"), Match::Found(r, "4") if r.role == Role::Order)
        );
        assert!(matches!(
            find("DELETE", "/api/products"),
            Match::WrongMethod
        ));
        assert!(matches!(find("GET", "/api/products/"), Match::Unmatched));
        assert!(matches!(find("GET", "/wp-login.php"), Match::Unmatched));
    }
}

//! Owns a virtual user's cookies: what responses set, and what goes with which request. Must not know scripts.

use std::time::{Duration, SystemTime};

use url::Url;

/// The most cookies kept; the oldest go first.
const MAX: usize = 500;

/// One user's cookies.
#[derive(Debug, Default)]
pub(crate) struct Jar {
    /// A text without a name is a cookie too.
    loose: bool,
    cookies: Vec<Cookie>,
}

#[derive(Debug)]
struct Cookie {
    name: String,
    value: String,
    domain: String,
    /// The domain only, not those below it.
    host_only: bool,
    path: String,
    secure: bool,
    expires: Option<SystemTime>,
}

impl Jar {
    /// An empty one; when `loose`, a text without a name is a cookie too.
    pub(crate) fn new(loose: bool) -> Jar {
        Jar {
            loose,
            cookies: Vec::new(),
        }
    }

    /// Keeps what a `Set-Cookie` header of a response from `url` says. False when it cannot be read.
    pub(crate) fn set(&mut self, header: &str, url: &Url, now: SystemTime) -> bool {
        let mut parts = header.split(';');
        let pair = parts.next().unwrap_or_default();
        let (name, value) = match pair.split_once('=') {
            Some(pair) => pair,
            None if self.loose && !pair.trim().is_empty() => ("", pair),
            None => return false,
        };
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let mut cookie = Cookie {
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
            domain: host.clone(),
            host_only: true,
            path: default_path(url.path()),
            secure: false,
            expires: None,
        };
        if cookie.name.is_empty() && (!self.loose || cookie.value.is_empty()) {
            return false;
        }
        let mut max_age = None;
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = value.trim();
            match key.trim().to_ascii_lowercase().as_str() {
                "domain" if !value.is_empty() => {
                    let domain = value.trim_start_matches('.').to_ascii_lowercase();
                    if !below(&host, &domain) {
                        return false;
                    }
                    (cookie.domain, cookie.host_only) = (domain, false);
                }
                "path" if value.starts_with('/') => cookie.path = value.to_owned(),
                "secure" => cookie.secure = true,
                "max-age" => max_age = value.parse::<i64>().ok(),
                "expires" => cookie.expires = date(value),
                _ => {}
            }
        }
        if let Some(seconds) = max_age {
            let left = Duration::from_secs(seconds.clamp(0, 1 << 32).unsigned_abs());
            cookie.expires = Some(now + left);
        }
        let same = |c: &Cookie| {
            (&c.name, &c.domain, &c.path) == (&cookie.name, &cookie.domain, &cookie.path)
        };
        let at = self.cookies.iter().position(same);
        match (at, cookie.expires.is_none_or(|at| at > now)) {
            // A cookie that is set again keeps its place.
            (Some(at), true) => self.cookies[at] = cookie,
            (Some(at), false) => {
                self.cookies.remove(at);
            }
            (None, true) => {
                if self.cookies.len() >= MAX {
                    self.cookies.remove(0);
                }
                self.cookies.push(cookie);
            }
            (None, false) => {}
        }
        true
    }

    /// The `Cookie` header for a request to `url`; none when there is nothing to send.
    pub(crate) fn header(&self, url: &Url, now: SystemTime) -> Option<String> {
        let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
        let fits = |c: &&Cookie| {
            let domain = c.domain == host || (!c.host_only && below(&host, &c.domain));
            let path = url.path().strip_prefix(c.path.as_str());
            let path = path.is_some_and(|rest| {
                rest.is_empty() || rest.starts_with('/') || c.path.ends_with('/')
            });
            let secure = !c.secure || url.scheme() == "https";
            domain && path && secure && c.expires.is_none_or(|at| at > now)
        };
        let mut fitting: Vec<&Cookie> = self.cookies.iter().filter(fits).collect();
        // Longer paths first, else in order of creation.
        fitting.sort_by_key(|c| std::cmp::Reverse(c.path.len()));
        let pairs: Vec<String> = fitting
            .iter()
            .map(|c| match c.name.as_str() {
                "" => c.value.clone(),
                name => format!("{name}={}", c.value),
            })
            .collect();
        (!pairs.is_empty()).then(|| pairs.join("; "))
    }
}

/// Whether a host is a domain or lies below it.
fn below(host: &str, domain: &str) -> bool {
    host == domain
        || host
            .strip_suffix(domain)
            .is_some_and(|rest| rest.ends_with('.'))
}

fn default_path(path: &str) -> String {
    match path.rfind('/') {
        None | Some(0) => "/".to_owned(),
        Some(at) => path[..at].to_owned(),
    }
}

/// An HTTP date such as `Wed, 21 Oct 2015 07:28:00 GMT`, dashes for blanks allowed.
fn date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let text = text.replace('-', " ");
    let mut words = text.split_whitespace();
    let day: i64 = words.next()?.parse().ok()?;
    let month = words.next()?.to_ascii_lowercase();
    let month = MONTHS.iter().position(|m| month.starts_with(m))? as i64 + 1;
    let mut year: i64 = words.next()?.parse().ok()?;
    if year < 100 {
        year += if year < 70 { 2_000 } else { 1_900 };
    }
    let clock = words.next()?.split(':').map(|n| n.parse::<i64>().ok());
    let clock = clock.collect::<Option<Vec<i64>>>()?;
    let [hour, minute, second] = clock[..] else {
        return None;
    };
    // Days since 1970 by the civil calendar, years beginning in March.
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let of_era = shifted - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second;
    let seconds = u64::try_from(seconds).unwrap_or(0);
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies_go_where_they_belong() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let url = |text: &str| Url::parse(text).unwrap();
        let home = url("http://a.example.com/app/login");
        let mut jar = Jar::default();
        assert!(jar.set("sid=1; HttpOnly", &home, now));
        assert!(jar.set("all=2; Path=/; Domain=.example.com", &home, now));
        assert!(jar.set("tls=3; Path=/; Secure", &home, now));
        assert!(jar.set("old=4; Expires=Wed, 21 Oct 2015 07:28:00 GMT", &home, now));
        assert!(!jar.set("evil=5; Domain=other.com", &home, now));
        assert!(!jar.set("nonsense", &home, now));
        let send = |jar: &Jar, to: &str| jar.header(&url(to), now).unwrap_or_default();
        assert_eq!(send(&jar, "http://a.example.com/app/x"), "sid=1; all=2");
        assert_eq!(send(&jar, "http://a.example.com/apple"), "all=2");
        assert_eq!(send(&jar, "https://b.example.com/"), "all=2");
        assert_eq!(send(&jar, "https://a.example.com/"), "all=2; tls=3");
        assert!(jar.set("all=3; Path=/; Domain=example.com", &home, now));
        assert_eq!(send(&jar, "https://a.example.com/"), "all=3; tls=3");
        assert!(jar.set("sid=9", &home, now));
        assert!(jar.set("all=; Max-Age=0; Path=/; Domain=example.com", &home, now));
        assert_eq!(send(&jar, "http://a.example.com/app"), "sid=9");
        assert_eq!(
            date("Wed, 21-Oct-2015 07:28:00 GMT"),
            date("Wed, 21 Oct 2015 07:28:00 GMT")
        );
        let second = date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(
            second
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs(),
            784_111_777
        );
    }
}

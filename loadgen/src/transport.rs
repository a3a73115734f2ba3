//! Owns how requests travel, apart from what they say: protocol, TLS, the way to the server, the life of a connection,
//! cookies, redirects, compression. Values and the rules between them only; opens nothing.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::conn::Target;
use crate::outgoing::Source;

/// A PEM file's contents.
pub type Pem = Arc<[u8]>;

/// How the requests of a plan travel. The default is HTTP/1.1 with kept connections straight to the URL's host.
#[derive(Debug, Clone)]
pub struct Transport {
    /// HTTP/2: agreed on by ALPN with https, taken for granted with http.
    pub http2: bool,
    /// Requests at once on each HTTP/2 connection (1 to 1000).
    pub streams: usize,
    /// HTTP/1.1 pipelining: requests that a connection has sent and not seen answered, 1 to 1000 (the closed model only).
    pub pipeline: usize,
    /// PEM of the authorities to trust instead of the web's.
    pub ca: Option<Pem>,
    /// PEM of the client's certificate chain and of its key.
    pub identity: Option<(Pem, Pem)>,
    /// Speak this version of TLS only.
    pub tls: Option<TlsVersion>,
    /// Connect to this Unix socket, whatever the URL's host is.
    pub unix_socket: Option<PathBuf>,
    /// Send through this HTTP proxy.
    pub proxy: Option<Proxy>,
    /// Connect here, though URL, `Host` and TLS name stay.
    pub connect_to: Option<(String, u16)>,
    /// The addresses of the host; no name is looked up.
    pub resolve: Vec<IpAddr>,
    /// When the host's name is looked up.
    pub dns: Dns,
    /// Close a connection after so many requests; 1 is no keep-alive.
    pub requests_per_connection: Option<u64>,
    /// Keep cookies, each connection in a jar of its own.
    pub cookies: bool,
    /// Follow so many redirects for one request.
    pub redirects: u32,
    /// Follow them to other hosts, too.
    pub redirect_hosts: bool,
    /// Ask for gzip and br, and decode.
    pub compressed: bool,
    /// The body of every request, instead of its own.
    pub body: Option<Source>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// When a name is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dns {
    /// Once; connections take its addresses in turn.
    #[default]
    Run,
    /// For each connection.
    Connection,
}

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The value of `Proxy-Authorization`.
    pub authorization: Option<String>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the password.
        write!(f, "Proxy({}:{})", self.host, self.port)
    }
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`, the port being 8080 when none is given.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Proxy, String> {
        let url = url::Url::parse(text)
            .map_err(|e| format!("{e}; expected http://[user:password@]host:port"))?;
        if url.scheme() != "http" {
            let scheme = url.scheme();
            return Err(format!(
                "scheme {scheme:?}: only proxies spoken to by plain HTTP are supported, http://host:port"
            ));
        }
        let host = url.host_str().ok_or("no host")?;
        let authorization = (!url.username().is_empty()).then(|| {
            basic(
                &decoded(url.username()),
                &decoded(url.password().unwrap_or("")),
            )
        });
        Ok(Proxy {
            host: bare(host),
            // The URL parser drops 80 as the scheme's own, so what was written decides.
            port: url
                .port()
                .unwrap_or(if explicit_80(text) { 80 } else { 8080 }),
            authorization,
        })
    }
}

fn explicit_80(text: &str) -> bool {
    text.trim_end_matches('/').ends_with(":80")
}

fn decoded(text: &str) -> String {
    let pairs = format!("x={}", text.replace('+', "%2B").replace('&', "%26"));
    url::form_urlencoded::parse(pairs.as_bytes())
        .next()
        .map_or_else(String::new, |(_, v)| v.into_owned())
}

/// A host without the brackets of an IPv6 literal.
pub(crate) fn bare(host: &str) -> String {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned()
}

/// The value of `Authorization` for HTTP's basic scheme.
pub fn basic(user: &str, password: &str) -> String {
    use base64::Engine;
    let pair = format!("{user}:{password}");
    let coded = base64::engine::general_purpose::STANDARD.encode(pair);
    format!("Basic {coded}")
}

/// Takes user and password, if any, out of a URL's text: the URL without them, and the value of `Authorization`.
pub fn take_userinfo(text: &str) -> (String, Option<String>) {
    let Some((scheme, rest)) = text.split_once("://") else {
        return (text.to_owned(), None);
    };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Some((info, host)) = rest[..end].rsplit_once('@') else {
        return (text.to_owned(), None);
    };
    let (user, password) = info.split_once(':').unwrap_or((info, ""));
    let plain = format!("{scheme}://{host}{}", &rest[end..]);
    (plain, Some(basic(&decoded(user), &decoded(password))))
}

impl Default for Transport {
    fn default() -> Transport {
        Transport {
            http2: false,
            streams: 1,
            pipeline: 1,
            ca: None,
            identity: None,
            tls: None,
            unix_socket: None,
            proxy: None,
            connect_to: None,
            resolve: Vec::new(),
            dns: Dns::Run,
            requests_per_connection: None,
            cookies: false,
            redirects: 0,
            redirect_hosts: false,
            compressed: false,
            body: None,
        }
    }
}

impl Transport {
    /// What of it needs more than requests and answers over kept TCP connections, as what such an engine "does not
    /// send". TLS settings and the host's addresses need no more.
    pub(crate) fn detour(&self) -> Option<&'static str> {
        let each = [
            (self.http2, "over HTTP/2"),
            (self.proxy.is_some(), "through a proxy"),
            (self.unix_socket.is_some(), "over a Unix socket"),
            (
                self.requests_per_connection.is_some(),
                "with a number of requests a connection",
            ),
            (self.cookies, "cookies"),
            (self.redirects > 0, "after redirects"),
            (self.compressed, "for compressed bodies"),
            (self.body.is_some(), "a body as it is read from a file"),
        ];
        each.iter().find(|(asked, _)| *asked).map(|(_, name)| *name)
    }

    /// Whether every packet stays on this machine.
    pub fn stays_here(&self, target: &Target) -> bool {
        let here = |host: &str| {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        };
        if self.unix_socket.is_some() {
            return true;
        }
        if let Some(proxy) = &self.proxy {
            return here(&proxy.host) && target.is_loopback();
        }
        match &self.connect_to {
            _ if !self.resolve.is_empty() => self.resolve.iter().all(IpAddr::is_loopback),
            Some((host, _)) => here(host),
            None => target.is_loopback(),
        }
    }

    /// The host that gets the packets, where it is not the URL's.
    pub(crate) fn goes_elsewhere(&self) -> Option<String> {
        let away = self.resolve.iter().find(|ip| !ip.is_loopback());
        let to = self.connect_to.as_ref().map(|(host, _)| host.clone());
        away.map(IpAddr::to_string).or(to)
    }

    /// The first rule broken, with what to change.
    pub(crate) fn fault(&self, target: &Target) -> Option<String> {
        let both = [
            (
                self.unix_socket.is_some() && self.proxy.is_some(),
                "a Unix socket and a proxy",
            ),
            (
                self.unix_socket.is_some() && self.connect_to.is_some(),
                "a Unix socket and connect-to",
            ),
            (
                self.unix_socket.is_some() && !self.resolve.is_empty(),
                "a Unix socket and resolve",
            ),
            (
                self.proxy.is_some() && self.connect_to.is_some(),
                "a proxy and connect-to",
            ),
            (
                self.proxy.is_some() && !self.resolve.is_empty(),
                "a proxy and resolve: the proxy looks the name up",
            ),
            (
                self.connect_to.is_some() && !self.resolve.is_empty(),
                "connect-to and resolve",
            ),
            (
                self.dns == Dns::Connection && !self.resolve.is_empty(),
                "resolve and a lookup for each connection",
            ),
            (
                self.unix_socket.is_some() && self.redirect_hosts,
                "a Unix socket and redirects to other hosts",
            ),
        ];
        if let Some((_, names)) = both.iter().find(|(together, _)| *together) {
            return Some(format!("{names} exclude each other"));
        }
        if self.redirect_hosts && self.redirects == 0 {
            return Some("redirects to other hosts are allowed but none is followed: say how many redirects to follow".to_owned());
        }
        if !self.http2 && self.streams != 1 {
            return Some(
                "streams are HTTP/2's: ask for HTTP/2, or for more connections".to_owned(),
            );
        }
        if !(1..=1000).contains(&self.pipeline) {
            let pipeline = self.pipeline;
            return Some(format!(
                "{pipeline} requests in a pipeline are not 1 to 1000"
            ));
        }
        if self.http2 && self.pipeline > 1 {
            return Some("pipelining is HTTP/1.1's: HTTP/2 has streams".to_owned());
        }
        if !(1..=1000).contains(&self.streams) {
            return Some(format!(
                "{} streams a connection are not 1 to 1000",
                self.streams
            ));
        }
        if self.requests_per_connection == Some(0) {
            return Some("0 requests per connection: ask for at least 1".to_owned());
        }
        let tls_only = [
            (self.ca.is_some(), "an authority's certificate"),
            (self.identity.is_some(), "a client certificate"),
            (self.tls.is_some(), "a TLS version"),
        ];
        if !target.tls
            && let Some((_, name)) = tls_only.iter().find(|(given, _)| *given)
        {
            return Some(format!("{name} is for https, and the target is http"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read() {
        let p = Proxy::parse("http://a%40b:p+w@[::1]:3128").unwrap();
        assert_eq!((p.host.as_str(), p.port), ("::1", 3128));
        assert_eq!(p.authorization, Some(basic("a@b", "p+w")));
        assert!(!format!("{p:?}").contains("Basic"));
        assert_eq!(Proxy::parse("http://proxy").unwrap().port, 8080);
        assert_eq!(Proxy::parse("http://proxy:80/").unwrap().port, 80);
        assert!(Proxy::parse("socks5://x:1").unwrap_err().contains("socks5"));
        assert!(Proxy::parse("proxy:8080").is_err());
    }

    #[test]
    fn passwords_leave_the_url() {
        let (url, auth) = take_userinfo("https://u:p%3A@h:1/x@y?z");
        assert_eq!(
            (url.as_str(), auth),
            ("https://h:1/x@y?z", Some(basic("u", "p:")))
        );
        assert_eq!(
            take_userinfo("http://h/a@b"),
            ("http://h/a@b".to_owned(), None)
        );
    }

    #[test]
    fn what_leaves_this_machine_is_known() {
        let (home, away) = (
            Target::parse("http://localhost:1").unwrap(),
            Target::parse("http://example.com").unwrap(),
        );
        let with = |change: fn(&mut Transport)| {
            let mut t = Transport::default();
            change(&mut t);
            (t.stays_here(&home), t.stays_here(&away))
        };
        assert_eq!(with(|_| {}), (true, false));
        assert_eq!(
            with(|t| t.connect_to = Some(("example.com".into(), 80))),
            (false, false)
        );
        assert_eq!(
            with(|t| t.connect_to = Some(("127.0.0.1".into(), 80))),
            (true, true)
        );
        assert_eq!(
            with(|t| t.resolve = vec!["::1".parse().unwrap()]),
            (true, true)
        );
        assert_eq!(
            with(|t| t.resolve = vec!["::1".parse().unwrap(), "192.0.2.1".parse().unwrap()]),
            (false, false)
        );
        assert_eq!(with(|t| t.unix_socket = Some("/x".into())), (true, true));
        assert_eq!(
            with(|t| t.proxy = Proxy::parse("http://localhost:1").ok()),
            (true, false)
        );
        assert_eq!(
            with(|t| t.proxy = Proxy::parse("http://192.0.2.1:1").ok()),
            (false, false)
        );
    }

    #[test]
    fn what_cannot_go_together_is_refused() {
        let plain = Target::parse("http://localhost").unwrap();
        let fault = |change: fn(&mut Transport)| {
            let mut t = Transport::default();
            change(&mut t);
            t.fault(&plain).unwrap_or_default()
        };
        assert_eq!(fault(|_| {}), "");
        assert!(fault(|t| t.streams = 2).contains("HTTP/2"));
        assert!(fault(|t| (t.http2, t.pipeline) = (true, 2)).contains("streams"));
        assert!(fault(|t| t.pipeline = 0).contains("0 requests in a pipeline"));
        assert!(fault(|t| (t.http2, t.streams) = (true, 1001)).contains("1001 streams"));
        assert!(fault(|t| t.ca = Some([].into())).contains("for https"));
        assert!(fault(|t| t.redirect_hosts = true).contains("how many"));
        assert!(fault(|t| t.requests_per_connection = Some(0)).contains("at least 1"));
        let both = fault(|t| {
            t.unix_socket = Some("/x".into());
            t.proxy = Proxy::parse("http://localhost:1").ok();
        });
        assert!(both.contains("exclude each other"), "{both}");
    }
}

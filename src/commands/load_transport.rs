//! The flags of `nines load rate|closed` that say how requests travel.
//!
//! Owns those flags. Must not know how connections are made.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args as ClapArgs, ValueEnum};
use loadgen::outgoing::Source;
use loadgen::transport::{Dns, Proxy, TlsVersion};
use loadgen::{Plan, RequestSpec};

use crate::console::usage;

/// A body file up to this length is held in memory, in bytes.
const SHORT_BODY: u64 = 1 << 20;

/// How requests travel.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Transport")]
pub struct TransportFlags {
    /// HTTP/2: agreed on by ALPN with https, with http taken for granted (prior knowledge)
    #[arg(long)]
    http2: bool,

    /// Requests at once on each HTTP/2 connection (1 to 1000)
    #[arg(long, value_name = "N", default_value_t = 1, requires = "http2")]
    streams: usize,

    /// HTTP/1.1 pipelining: send so many requests on a connection before the first is answered (`closed` only; 1 to 1000)
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "http2")]
    pipeline: usize,

    /// Trust these authorities (PEM) instead of the web's
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    cacert: Option<PathBuf>,

    /// The client's certificate chain (PEM)
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,

    /// The client certificate's key (PEM, not encrypted)
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,

    /// Speak this version of TLS only
    #[arg(long, value_name = "VERSION")]
    tls: Option<Version>,

    /// Connect to this Unix socket; the URL says Host and path
    #[arg(long, value_name = "PATH", conflicts_with_all = ["proxy", "connect_to", "resolve", "dns"])]
    unix_socket: Option<PathBuf>,

    /// Send through this HTTP proxy, `http://[user:password@]host:port`; https goes through CONNECT
    #[arg(long, value_name = "URL", conflicts_with_all = ["connect_to", "resolve"])]
    proxy: Option<String>,

    /// Connect here, HOST:PORT; Host, TLS name and certificate stay the URL's
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "resolve")]
    connect_to: Option<String>,

    /// The URL's host has this address (as curl's `HOST:PORT:ADDRESS[,ADDRESS]`, or only the addresses)
    #[arg(long, value_name = "ADDRESS", conflicts_with = "dns")]
    resolve: Option<String>,

    /// When the host's name is looked up
    #[arg(long, value_name = "WHEN", default_value = "run")]
    dns: When,

    /// A new connection for each request
    #[arg(long, conflicts_with = "requests_per_connection")]
    no_keepalive: bool,

    /// A new connection after so many requests
    #[arg(long, value_name = "N")]
    requests_per_connection: Option<u64>,

    /// Keep cookies, each connection in a jar of its own
    #[arg(long)]
    cookies: bool,

    /// Follow at most so many redirects for each request, on the URL's host only
    #[arg(long, value_name = "N", default_value_t = 0)]
    redirects: u32,

    /// Follow them to other hosts, too
    #[arg(long, requires = "redirects", conflicts_with = "unix_socket")]
    redirect_hosts: bool,

    /// Ask for gzip and br, decode, and count both sizes
    #[arg(long)]
    compressed: bool,

    /// Another path, and how often beside the URL's 1: 3=/search?q=x; may be repeated
    #[arg(long, value_name = "WEIGHT=PATH", conflicts_with = "targets")]
    url_weight: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Version {
    #[value(name = "1.2")]
    V12,
    #[value(name = "1.3")]
    V13,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum When {
    /// Once; connections take its addresses in turn
    Run,
    /// For each connection
    Connection,
}

impl TransportFlags {
    /// Sets the plan's transport, and what of it is said in each request.
    pub fn apply(&self, plan: &mut Plan) -> anyhow::Result<()> {
        let transport = &mut plan.transport;
        transport.http2 = self.http2;
        transport.streams = self.streams;
        transport.pipeline = self.pipeline;
        transport.ca = self.cacert.as_deref().map(file).transpose()?;
        transport.identity = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((file(cert)?, file(key)?)),
            _ => None,
        };
        transport.tls = self.tls.map(|v| match v {
            Version::V12 => TlsVersion::V12,
            Version::V13 => TlsVersion::V13,
        });
        transport.unix_socket.clone_from(&self.unix_socket);
        let proxy = self.proxy.as_deref().map(Proxy::parse).transpose();
        transport.proxy = proxy.map_err(|e| usage(format!("--proxy: {e}")))?;
        transport.connect_to = self.connect_to.as_deref().map(host_port).transpose()?;
        if let Some(text) = &self.resolve {
            transport.resolve = addresses(text)?;
        }
        transport.dns = match self.dns {
            When::Run => Dns::Run,
            When::Connection => Dns::Connection,
        };
        transport.requests_per_connection = match self.no_keepalive {
            true => Some(1),
            false => self.requests_per_connection,
        };
        transport.cookies = self.cookies;
        transport.redirects = self.redirects;
        transport.redirect_hosts = self.redirect_hosts;
        transport.compressed = self.compressed;
        for text in &self.url_weight {
            let (weight, path) = weight(text)?;
            plan.requests.push(RequestSpec {
                name: path.to_owned(),
                path: path.to_owned(),
                weight,
                ..plan.requests[0].clone()
            });
        }
        Ok(())
    }
}

/// A file's contents as a body: the text of a short one, or what reads it as it is sent.
pub fn body_of(path: &Path) -> anyhow::Result<(Option<String>, Option<Source>)> {
    let failed = |e| usage(format!("cannot read {}: {e}", path.display()));
    let source = Source::file(path).map_err(failed)?;
    if source.len() <= SHORT_BODY
        && let Ok(text) = String::from_utf8(std::fs::read(path).map_err(failed)?)
    {
        return Ok((Some(text), None));
    }
    Ok((None, Some(source)))
}

fn file(path: &Path) -> anyhow::Result<Arc<[u8]>> {
    let read = std::fs::read(path);
    let read = read.map_err(|e| usage(format!("cannot read {}: {e}", path.display())))?;
    Ok(read.into())
}

fn host_port(text: &str) -> anyhow::Result<(String, u16)> {
    let parts = text.rsplit_once(':').and_then(|(host, port)| {
        let plain = !host.contains(':') || (host.starts_with('[') && host.ends_with(']'));
        let port = port.parse::<u16>().ok().filter(|p| *p > 0)?;
        (plain && !host.is_empty()).then(|| (host.to_owned(), port))
    });
    parts.ok_or_else(|| {
        usage(format!(
            "--connect-to {text:?} is not HOST:PORT, such as 10.0.0.7:8443 or [::1]:8443"
        ))
    })
}

/// What comes after curl's `HOST:PORT:`, or the whole.
fn addresses(text: &str) -> anyhow::Result<Vec<IpAddr>> {
    let list = |text: &str| {
        let each = text.split(',');
        let bare = |a: &str| a.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        each.map(bare).collect::<Option<Vec<_>>>()
    };
    let after_port = text.splitn(3, ':').nth(2);
    let found = list(text).or_else(|| list(after_port?));
    found.ok_or_else(|| {
        usage(format!(
            "--resolve {text:?} is neither an address nor HOST:PORT:ADDRESS, such as example.com:443:127.0.0.1"
        ))
    })
}

fn weight(text: &str) -> anyhow::Result<(u32, &str)> {
    let parts = text.split_once('=').and_then(|(weight, path)| {
        let weight = weight.parse::<u32>().ok().filter(|w| *w > 0)?;
        path.starts_with('/').then_some((weight, path))
    });
    parts.ok_or_else(|| {
        usage(format!(
            "--url-weight {text:?} is not such as 3=/search?q=x: a weight of at least 1 and a path"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        assert_eq!(host_port("a.b:80").unwrap(), ("a.b".to_owned(), 80));
        assert_eq!(host_port("[::1]:80").unwrap(), ("[::1]".to_owned(), 80));
        for bad in ["a.b", "::1", ":80", "a:0", "a:b", "::1:80"] {
            assert!(host_port(bad).is_err(), "{bad}");
        }
        let ips = |text| addresses(text).unwrap().len();
        assert_eq!(
            (
                ips("127.0.0.1"),
                ips("h:443:127.0.0.1,[::1]"),
                ips("::1"),
                ips("h:1:::1")
            ),
            (1, 2, 1, 1)
        );
        assert!(addresses("h:443").is_err() && addresses("h:443:x").is_err());
        assert_eq!(weight("3=/a=b").unwrap(), (3, "/a=b"));
        assert!(weight("0=/a").is_err() && weight("/a").is_err() && weight("2=a").is_err());
    }
}

//! Owns ab's command line: flags and URL in, [`Options`] out, ab's own messages for what is wrong.
//! Pure: reads no file and opens no socket.

use std::time::Duration;

use super::AbError;
use super::html::Attributes;

/// The request's method and where its body comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// `-i`.
    Head,
    /// `-p FILE`.
    Post(String),
    /// `-u FILE`.
    Put(String),
    /// `-m NAME`; after `-p` or `-u` their body goes with it.
    Custom(String),
}

/// The URL of the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Address {
    /// https.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port; 80 or 443 when the URL has none.
    pub port: u16,
    /// From the first `/` on, as given.
    pub path: String,
    /// What the `Host` header says.
    pub authority: String,
    /// The whole, as given: a proxy is asked for it.
    pub full: String,
}

/// A parsed ab command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `-n`: requests in all, at least 1.
    pub requests: u64,
    /// `-c`: connections at once, 0 to 200,000.
    pub concurrency: usize,
    /// `-t`: the run's longest duration.
    pub time_limit: Option<Duration>,
    /// `-s`: the run ends with an error when nothing happens on any connection for so long.
    pub timeout: Duration,
    /// `-b`: size of the socket's send and receive buffer, in bytes; 0 is the system's.
    pub window: usize,
    /// `-B`: the local address.
    pub bind: Option<String>,
    /// `-X`: the proxy's host and port.
    pub proxy: Option<(String, u16)>,
    /// `-k`: keep connections open.
    pub keep_alive: bool,
    /// `-p -u -m -i`.
    pub method: Method,
    /// `-m` after `-p` or `-u`: the name to send in place of POST or PUT.
    pub method_name: Option<String>,
    /// `-T`: the body's content type.
    pub content_type: String,
    /// `-C`: the last one given.
    pub cookie: Option<String>,
    /// `-A` and `-P`, in order: whether it is the proxy's, and the credentials.
    pub credentials: Vec<(bool, String)>,
    /// `-H`, in order, as given.
    pub headers: Vec<String>,
    /// `-l`: bodies may differ in length.
    pub variable_length: bool,
    /// `-r`: go on after socket errors.
    pub keep_going: bool,
    /// `-v`: 2 and more print headers and warnings.
    pub verbosity: i64,
    /// `-q`: no progress lines.
    pub quiet: bool,
    /// `-S`: no median, deviation and warnings.
    pub no_confidence: bool,
    /// `-d`: no percentile table.
    pub no_percentiles: bool,
    /// `-w -x -y -z`: the report as an HTML table.
    pub html: Option<Attributes>,
    /// `-e`: CSV file of percentiles.
    pub csv_file: Option<String>,
    /// `-g`: a line for each request; one record per request is kept only then.
    pub gnuplot_file: Option<String>,
    /// `-I`: send no server name with TLS.
    pub no_server_name: bool,
    /// `-Z`: cipher suites, as OpenSSL names them.
    pub ciphers: Option<String>,
    /// `-f`: protocol version.
    pub protocol: Option<String>,
    /// `-E`: a PEM file with the client's certificate chain and key.
    pub certificate: Option<String>,
    /// Where to send.
    pub url: Address,
}

/// Connections at once, at most.
const MAX_CONCURRENCY: i64 = 200_000;
/// What `-t` implies.
const TIMED_REQUESTS: u64 = 50_000;
/// Flags that take a value.
const VALUED: &str = "nctsbTpuvxyzCHPAgXeBmZfE";

/// The list of flags that `-h` prints.
const USAGE: &str = "Usage: ab [options] [http[s]://]hostname[:port]/path
Options are:
    -n requests     Requests in all
    -c concurrency  Connections at once
    -t timelimit    Seconds the run may take; implies -n 50000 (a later -n still counts)
    -s timeout      Seconds without any answer after which the run ends [30]
    -b windowsize   Size of the sockets' send and receive buffers, in bytes
    -B address      Local address of the connections
    -p postfile     POST this file; see -T
    -u putfile      PUT this file; see -T
    -T content-type Content type of the body [text/plain]
    -v verbosity    2: headers and statuses that are not 2xx; 3: every status; 4: as 3
    -w              The report as an HTML table
    -i              HEAD in place of GET
    -x attributes   Attributes of <table>
    -y attributes   Attributes of <tr>
    -z attributes   Attributes of <td> and <th>
    -C attribute    Cookie, such as 'name=value'
    -H attribute    Header line, such as 'Accept-Encoding: gzip' (repeatable)
    -A attribute    Basic credentials, user:password
    -P attribute    Basic credentials for the proxy, user:password
    -X proxy:port   Send through this proxy
    -V              Print the version
    -k              Keep connections open
    -d              No table of percentages
    -S              No median, deviation and warnings
    -q              No progress lines
    -l              Answers may differ in length
    -g filename     Write a line for each request, for gnuplot
    -e filename     Write the percentages as CSV
    -r              Go on after socket errors
    -m method       Method name
    -h              This text
    -I              Send no TLS server name
    -Z ciphersuite  TLS cipher suites, as OpenSSL names them
    -f protocol     TLS1.2, TLS1.3 or ALL
    -E certfile     PEM file with the client's certificate chain and private key
";

/// Reads ab's arguments (without the program name). Flags may be joined (`-kc 10`, `-n100`); numbers are read as C's
/// `atoi` does.
///
/// # Errors
/// [`AbError`] with what ab prints, and its exit code; also for `-h` (22, as in ab) and `-V` (0).
pub fn parse(args: &[String]) -> Result<Options, AbError> {
    let mut options = Options {
        requests: 1,
        concurrency: 1,
        time_limit: None,
        timeout: Duration::from_secs(30),
        window: 0,
        bind: None,
        proxy: None,
        keep_alive: false,
        method: Method::Get,
        method_name: None,
        content_type: "text/plain".to_owned(),
        cookie: None,
        credentials: Vec::new(),
        headers: Vec::new(),
        variable_length: false,
        keep_going: false,
        verbosity: 0,
        quiet: false,
        no_confidence: false,
        no_percentiles: false,
        html: None,
        csv_file: None,
        gnuplot_file: None,
        no_server_name: false,
        ciphers: None,
        protocol: None,
        certificate: None,
        url: Address::default(),
    };
    let mut concurrency = 1;
    let mut args = args.iter();
    let mut rest = Vec::new();
    while let Some(arg) = args.next() {
        let Some(mut letters) = arg.strip_prefix('-').filter(|r| !r.is_empty()) else {
            rest.push(arg);
            break;
        };
        if letters == "-" {
            break;
        }
        while let Some(flag) = letters.chars().next() {
            letters = &letters[flag.len_utf8()..];
            if switch(&mut options, flag)? {
                continue;
            }
            if !VALUED.contains(flag) {
                return Err(wrong(&format!("ab: illegal option -- {flag}")));
            }
            let value = match letters.is_empty() {
                false => letters,
                true => args
                    .next()
                    .ok_or_else(|| wrong(&format!("ab: option requires an argument -- {flag}")))?,
            };
            if flag == 'c' {
                concurrency = atoi(value);
            } else {
                valued(&mut options, flag, value)?;
            }
            break;
        }
    }
    rest.extend(args);
    let [url] = rest.as_slice() else {
        return Err(wrong("ab: wrong number of arguments"));
    };
    options.url = address(url).ok_or_else(|| wrong("ab: invalid URL"))?;
    if !(0..=MAX_CONCURRENCY).contains(&concurrency) {
        return Err(wrong(&format!(
            "ab: Invalid Concurrency [Range 0..{MAX_CONCURRENCY}]"
        )));
    }
    options.concurrency = concurrency.unsigned_abs() as usize;
    if concurrency.unsigned_abs() > options.requests {
        return Err(wrong(
            "ab: Cannot use concurrency level greater than total number of requests",
        ));
    }
    if options.concurrency == 0 {
        return Err(AbError::new(
            22,
            "apr_pollset_poll: Invalid argument (22)\n",
        ));
    }
    Ok(options)
}

/// A wrong command line: ab shows its flags and ends with EINVAL.
fn wrong(said: &str) -> AbError {
    AbError::new(22, format!("{said}\n{USAGE}"))
}

/// A value that ab refuses at once.
fn refused(said: &str) -> AbError {
    AbError::new(1, format!("{said}\n\n"))
}

fn switch(options: &mut Options, flag: char) -> Result<bool, AbError> {
    match flag {
        'k' => options.keep_alive = true,
        'i' => {
            set_method(options, Method::Head, "HEAD")?;
        }
        'l' => options.variable_length = true,
        'r' => options.keep_going = true,
        'q' => options.quiet = true,
        'S' => options.no_confidence = true,
        'd' => options.no_percentiles = true,
        'I' => options.no_server_name = true,
        'w' => {
            options.html.get_or_insert_default();
        }
        'h' => return Err(AbError::new(22, USAGE)),
        'V' => {
            return Err(AbError {
                said: super::report::banner(false),
                code: 0,
                on_stdout: true,
            });
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn valued(options: &mut Options, flag: char, value: &str) -> Result<(), AbError> {
    let text = value.to_owned();
    let seconds = |value| Duration::from_secs(u64::try_from(atoi(value)).unwrap_or(0));
    match flag {
        'n' => {
            options.requests = u64::try_from(atoi(value))
                .ok()
                .filter(|n| *n > 0)
                .ok_or_else(|| refused("Invalid number of requests"))?;
        }
        't' => {
            options.time_limit = Some(seconds(value)).filter(|limit| !limit.is_zero());
            options.requests = TIMED_REQUESTS;
        }
        's' => options.timeout = seconds(value),
        'b' => options.window = usize::try_from(atoi(value)).unwrap_or(0),
        'p' => set_method(options, Method::Post(text), "POST")?,
        'u' => set_method(options, Method::Put(text), "PUT")?,
        'm' => match options.method {
            Method::Post(_) | Method::Put(_) => options.method_name = Some(text),
            _ => options.method = Method::Custom(text),
        },
        'T' => options.content_type = text,
        'H' => options.headers.push(text),
        'C' => options.cookie = Some(text),
        'A' | 'P' => {
            let trimmed = value.trim_start().to_owned();
            options.credentials.push((flag == 'P', trimmed));
        }
        'v' => options.verbosity = atoi(value),
        'X' => {
            let (host, port) = value.split_once(':').unwrap_or((value, "80"));
            let port = u16::try_from(atoi(port)).unwrap_or(0);
            options.proxy = Some((host.to_owned(), port));
        }
        'B' => options.bind = Some(text),
        'x' => options.html.get_or_insert_default().table = text,
        'y' => options.html.get_or_insert_default().row = text,
        'z' => options.html.get_or_insert_default().cell = text,
        'e' => options.csv_file = Some(text),
        'g' => options.gnuplot_file = Some(text),
        'Z' => options.ciphers = Some(text),
        'f' => options.protocol = Some(text),
        _ => options.certificate = Some(text),
    }
    Ok(())
}

fn set_method(options: &mut Options, method: Method, name: &str) -> Result<(), AbError> {
    if options.method != Method::Get {
        return Err(refused(&format!("Cannot mix {name} with other methods")));
    }
    options.method = method;
    Ok(())
}

/// C's `atoi`: leading blanks, a sign, digits; what follows is ignored, and no digits are 0.
pub(super) fn atoi(text: &str) -> i64 {
    let text = text.trim_start();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let end = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    sign * digits[..end].parse().unwrap_or(0).min(i64::from(i32::MAX))
}

/// Reads `[http[s]://]host[:port]/path`; the path must be there, if only as `/`.
fn address(full: &str) -> Option<Address> {
    let (tls, rest) = match (full.strip_prefix("http://"), full.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => (false, full),
    };
    let slash = rest.find('/')?;
    let (place, path) = rest.split_at(slash);
    let bracketed = place.strip_prefix('[');
    let (host, port) = match bracketed {
        Some(inner) => {
            let (host, after) = inner.split_once(']')?;
            (
                host,
                after.strip_prefix(':').or(after.is_empty().then_some(""))?,
            )
        }
        None => place.split_once(':').unwrap_or((place, "")),
    };
    let usual = if tls { 443 } else { 80 };
    let port = match port {
        "" => usual,
        text => text.parse().ok().filter(|port| *port > 0)?,
    };
    let printable = |text: &str| text.chars().all(|c| !c.is_control() && c != ' ');
    if host.is_empty() || !printable(host) || path.contains(['\r', '\n', '\0']) {
        return None;
    }
    let shown = match bracketed {
        Some(_) => format!("[{host}]"),
        None => host.to_owned(),
    };
    Some(Address {
        tls,
        host: host.to_owned(),
        port,
        path: path.to_owned(),
        authority: match port == usual {
            true => shown,
            false => format!("{shown}:{port}"),
        },
        full: full.to_owned(),
    })
}

impl Options {
    /// Whether a body is sent.
    pub fn sends_body(&self) -> bool {
        matches!(self.method, Method::Post(_) | Method::Put(_))
    }

    /// A progress line is due every so many requests; none up to 150 of them or with `-q`.
    pub fn progress_every(&self) -> Option<u64> {
        (!self.quiet && self.requests > 150).then(|| (self.requests / 10).max(100))
    }

    /// The `Host` header given with `-H`, if any.
    pub fn host_header(&self) -> Option<&str> {
        let host = |line: &&String| {
            line.get(..5)
                .is_some_and(|name| name.eq_ignore_ascii_case("host:"))
        };
        self.headers.iter().rev().find(host).map(|h| h[5..].trim())
    }

    /// ab sends as fast as it can: to a host off this machine only when its user says it is theirs.
    pub(super) fn may_run(&self, owned: &dyn Fn(&str) -> bool) -> Result<(), AbError> {
        let proxy = self.proxy.as_ref().map(|(host, _)| host);
        let far = |host: &&String| !is_loopback(host) && !owned(host);
        match [Some(&self.url.host), proxy]
            .into_iter()
            .flatten()
            .find(far)
        {
            Some(host) => Err(AbError::new(
                2,
                format!(
                    "ab: {host} is not this machine, and ab sends as fast as it can: say that the target is yours with nines load ab --i-own-this-target (or NINES_I_OWN_THIS_TARGET={host})\n"
                ),
            )),
            _ => Ok(()),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

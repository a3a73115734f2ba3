//! Owns ab's command line: flags in, [`Options`] out, every unsupported flag refused by name.
//! Pure: reads no file and opens no socket.

use std::time::Duration;

use base64::Engine;
use http::{HeaderName, HeaderValue};

use super::AbError;

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
    /// `-m NAME`, no body.
    Custom(String),
}

/// A parsed ab command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// `-n`: requests in all, 1 or more.
    pub requests: u64,
    /// `-c`: connections at once, 1 to 20,000.
    pub concurrency: usize,
    /// `-t`: the run's longest duration.
    pub time_limit: Option<Duration>,
    /// `-s`: the time allowed for a dial or an exchange.
    pub timeout: Duration,
    /// `-k`: keep connections open.
    pub keep_alive: bool,
    /// `-p -u -m -i`.
    pub method: Method,
    /// `-T`: the body's content type.
    pub content_type: String,
    /// `-H -C -A -P`: headers added, in order.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// `-l`: bodies may differ in length.
    pub variable_length: bool,
    /// `-r`: go on after socket errors.
    pub keep_going: bool,
    /// `-q`: no banner.
    pub quiet: bool,
    /// `-S`: no median and deviation columns.
    pub no_confidence: bool,
    /// `-d`: no percentile table.
    pub no_percentiles: bool,
    /// `-e`: where the caller writes [`super::AbReport::csv`].
    pub csv_file: Option<String>,
    /// `-g`: where the caller writes [`super::AbReport::gnuplot`]; one sample per request is kept only then.
    pub gnuplot_file: Option<String>,
    /// The URL with its scheme.
    pub url: String,
    /// Set by the caller after the user stated that a target off this machine is theirs; [`parse`] leaves it false.
    pub owned: bool,
}

const USAGE: &str = "usage: ab [options] [http[s]://]hostname[:port]/path
  -n requests   -c concurrency   -t seconds (implies -n 50000)   -s timeout in seconds (30)
  -k keep-alive   -p postfile   -u putfile   -T content-type   -m method   -i HEAD
  -H 'Name: value'   -C 'name=value'   -A user:password   -P proxy user:password
  -l lengths may vary   -r go on after socket errors   -v verbosity (0 or 1)
  -q no banner   -S no deviations   -d no percentiles   -e CSV file   -g gnuplot file   -h   -V
";

fn refused(flag: char) -> Option<&'static str> {
    Some(match flag {
        'w' | 'x' | 'y' | 'z' => "HTML tables are not written",
        'X' => "no proxy",
        'b' => "the TCP buffer size is the system's",
        'B' => "the local address is the system's",
        'I' => "the server name is always sent with TLS",
        'Z' | 'f' => "TLS 1.2 and 1.3 with rustls' own suites",
        'E' => "no client certificates",
        _ => return None,
    })
}

/// Reads ab's arguments (without the program name). Flags may be joined (`-kc 10`, `-n100`).
///
/// # Errors
/// [`AbError::Info`] for `-h` and `-V`; [`AbError::Usage`] or [`AbError::Unsupported`] otherwise.
pub fn parse(args: &[String]) -> Result<Options, AbError> {
    let mut options = Options {
        requests: 1,
        concurrency: 1,
        time_limit: None,
        timeout: Duration::from_secs(30),
        keep_alive: false,
        method: Method::Get,
        content_type: "text/plain".to_owned(),
        headers: Vec::new(),
        variable_length: false,
        keep_going: false,
        quiet: false,
        no_confidence: false,
        no_percentiles: false,
        csv_file: None,
        gnuplot_file: None,
        url: String::new(),
        owned: false,
    };
    let mut cookies = Vec::new();
    let mut args = args.iter();
    let mut urls = Vec::new();
    while let Some(arg) = args.next() {
        let Some(mut rest) = arg.strip_prefix('-').filter(|r| !r.is_empty()) else {
            urls.push(arg.clone());
            urls.extend(args.by_ref().cloned());
            break;
        };
        if rest == "-" {
            urls.extend(args.by_ref().cloned());
            break;
        }
        while let Some(flag) = rest.chars().next() {
            rest = &rest[flag.len_utf8()..];
            if let Some(why) = refused(flag) {
                return Err(AbError::Unsupported { flag, why });
            }
            if switch(&mut options, flag)? {
                continue;
            }
            if !"nctspuTHCAPmveg".contains(flag) {
                return Err(AbError::Usage(format!("know option -{flag}\n{USAGE}")));
            }
            let value = if rest.is_empty() {
                args.next()
                    .cloned()
                    .ok_or_else(|| AbError::Usage(format!("read -{flag}: it needs a value")))?
            } else {
                rest.to_owned()
            };
            valued(&mut options, &mut cookies, flag, value)?;
            break;
        }
    }
    if !cookies.is_empty() {
        header(&mut options, 'C', "cookie", &cookies.join("; "))?;
    }
    finish(options, urls)
}

fn switch(options: &mut Options, flag: char) -> Result<bool, AbError> {
    match flag {
        'k' => options.keep_alive = true,
        'i' => set_method(options, Method::Head)?,
        'l' => options.variable_length = true,
        'r' => options.keep_going = true,
        'q' => options.quiet = true,
        'S' => options.no_confidence = true,
        'd' => options.no_percentiles = true,
        'h' => return Err(AbError::Info(USAGE.to_owned())),
        'V' => {
            return Err(AbError::Info(format!(
                "nines ab {}: command line and report of ApacheBench 2.3\n",
                env!("CARGO_PKG_VERSION")
            )));
        }
        _ => return Ok(false),
    }
    Ok(true)
}

fn valued(
    options: &mut Options,
    cookies: &mut Vec<String>,
    flag: char,
    value: String,
) -> Result<(), AbError> {
    match flag {
        'n' => options.requests = number(flag, &value, 1, u64::MAX)?,
        'c' => options.concurrency = number(flag, &value, 1, 20_000)? as usize,
        't' => {
            options.time_limit = Some(Duration::from_secs(number(flag, &value, 1, 31_536_000)?));
            options.requests = 50_000;
        }
        's' => options.timeout = Duration::from_secs(number(flag, &value, 1, 86_400)?),
        'p' => set_method(options, Method::Post(value))?,
        'u' => set_method(options, Method::Put(value))?,
        'm' => {
            if http::Method::from_bytes(value.as_bytes()).is_err() {
                return Err(AbError::Usage(format!("read -m {value:?}: not a method")));
            }
            set_method(options, Method::Custom(value))?;
        }
        'T' => options.content_type = value,
        'H' => {
            let (name, text) = value.split_once(':').ok_or_else(|| {
                AbError::Usage(format!("read -H {value:?}: expected 'Name: value'"))
            })?;
            header(options, flag, name.trim(), text.trim())?;
        }
        'C' => cookies.push(value),
        'A' | 'P' => {
            let name = if flag == 'A' {
                "authorization"
            } else {
                "proxy-authorization"
            };
            let coded = base64::engine::general_purpose::STANDARD.encode(value);
            header(options, flag, name, &format!("Basic {coded}"))?;
        }
        'v' => {
            number(flag, &value, 0, 1)?;
        }
        'e' => options.csv_file = Some(value),
        _ => options.gnuplot_file = Some(value),
    }
    Ok(())
}

fn set_method(options: &mut Options, method: Method) -> Result<(), AbError> {
    if options.method != Method::Get {
        return Err(AbError::Usage(
            "mix -p, -u, -i and -m: give one of them".to_owned(),
        ));
    }
    options.method = method;
    Ok(())
}

fn number(flag: char, text: &str, low: u64, high: u64) -> Result<u64, AbError> {
    text.parse()
        .ok()
        .filter(|n| (low..=high).contains(n))
        .ok_or_else(|| {
            AbError::Usage(format!(
                "read -{flag} {text:?}: expected a whole number from {low} to {high}"
            ))
        })
}

fn header(options: &mut Options, flag: char, name: &str, value: &str) -> Result<(), AbError> {
    let bad = |e: String| AbError::Usage(format!("read -{flag} {name:?}: {e}"));
    let name_ok = HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad(e.to_string()))?;
    let value = HeaderValue::from_str(value).map_err(|e| bad(e.to_string()))?;
    options.headers.push((name_ok, value));
    Ok(())
}

fn finish(mut options: Options, urls: Vec<String>) -> Result<Options, AbError> {
    let [url] = urls.as_slice() else {
        return Err(AbError::Usage(format!(
            "find the URL: wrong number of arguments ({})\n{USAGE}",
            urls.len()
        )));
    };
    options.url = if url.contains("://") {
        url.clone()
    } else {
        format!("http://{url}")
    };
    crate::conn::Target::parse(&options.url)?;
    if options.concurrency as u64 > options.requests {
        return Err(AbError::Usage(
            "use a concurrency level greater than the total number of requests".to_owned(),
        ));
    }
    Ok(options)
}

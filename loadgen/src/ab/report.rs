//! Owns ab's report as text: the same lines, labels and order, then honest percentiles in ms with decimals.
//! Must not know sockets.

use std::fmt::Write;

use super::Options;
use super::column::{Column, whole_ms};
use super::tally::Tally;

const PERCENTS: [u64; 9] = [50, 66, 75, 80, 90, 95, 98, 99, 100];

/// The three lines at the top, as many as ab's.
pub(super) fn banner(html: bool) -> String {
    let (follows, own) = (super::FOLLOWS, env!("CARGO_PKG_VERSION"));
    match html {
        false => format!(
            "This is ApacheBench, Version {follows} <nines {own}>\nThat is: nines load ab, with the command line, requests and report of ApacheBench.\nNot the work of The Apache Software Foundation.\n\n"
        ),
        true => format!(
            "<p>\n This is ApacheBench, Version {follows} <i>&lt;nines {own}&gt;</i><br>\n That is: nines load ab, with the command line, requests and report of ApacheBench.<br>\n Not the work of The Apache Software Foundation.<br>\n</p>\n<p>\n"
        ),
    }
}

/// What is printed when the run begins.
pub(super) fn beginning(options: &Options) -> String {
    let through = match &options.proxy {
        Some((host, port)) => format!("[through {host}:{port}] "),
        None => String::new(),
    };
    let end = match options.progress_every() {
        Some(_) => "\n",
        None => "...",
    };
    format!(
        "Benchmarking {} {through}(be patient){end}",
        options.url.host
    )
}

/// The report.
pub(super) fn text(options: &Options, tally: &Tally) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write(options, tally, &mut out);
    out
}

fn write(options: &Options, tally: &Tally, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\n\nServer Software:        {}", tally.server)?;
    writeln!(out, "Server Hostname:        {}", options.url.host)?;
    writeln!(out, "Server Port:            {}", options.url.port)?;
    if let Some(info) = &tally.tls {
        writeln!(out, "SSL/TLS Protocol:       {info}")?;
    }
    if let Some(key) = &tally.temp_key {
        writeln!(out, "Server Temp Key:        {key}")?;
    }
    if let Some(name) = &tally.tls_name {
        writeln!(out, "TLS Server Name:        {name}")?;
    }
    writeln!(out, "\nDocument Path:          {}", options.url.path)?;
    match options.variable_length {
        true => writeln!(out, "Document Length:        Variable\n")?,
        false => writeln!(out, "Document Length:        {} bytes\n", tally.length)?,
    }
    totals(options, tally, out)?;
    if tally.done > 0 {
        times(options, tally, out)?;
    }
    Ok(())
}

fn totals(options: &Options, tally: &Tally, out: &mut String) -> std::fmt::Result {
    let seconds = tally.elapsed.as_secs_f64();
    writeln!(out, "Concurrency Level:      {}", options.concurrency)?;
    writeln!(out, "Time taken for tests:   {seconds:.3} seconds")?;
    writeln!(out, "Complete requests:      {}", tally.done)?;
    writeln!(out, "Failed requests:        {}", tally.bad)?;
    if tally.bad > 0 {
        writeln!(
            out,
            "   (Connect: {}, Receive: {}, Length: {}, Exceptions: {})",
            tally.failed_connect, tally.failed_receive, tally.failed_length, tally.exceptions
        )?;
    }
    if tally.write_errors > 0 {
        writeln!(out, "Write errors:           {}", tally.write_errors)?;
    }
    if tally.not_2xx > 0 {
        writeln!(out, "Non-2xx responses:      {}", tally.not_2xx)?;
    }
    if options.keep_alive {
        writeln!(out, "Keep-Alive requests:    {}", tally.kept)?;
    }
    writeln!(out, "Total transferred:      {} bytes", tally.received)?;
    if options.sends_body() {
        writeln!(out, "Total body sent:        {}", tally.sent)?;
    }
    writeln!(out, "HTML transferred:       {} bytes", tally.body_received)?;
    if seconds <= 0.0 || tally.done == 0 {
        return Ok(());
    }
    let done = tally.done as f64;
    let each = seconds * 1e3 / done;
    let kbytes = |bytes: u64| bytes as f64 / 1024.0 / seconds;
    let at_once = each * options.concurrency as f64;
    let rate = done / seconds;
    writeln!(out, "Requests per second:    {rate:.2} [#/sec] (mean)")?;
    writeln!(out, "Time per request:       {at_once:.3} [ms] (mean)")?;
    writeln!(
        out,
        "Time per request:       {each:.3} [ms] (mean, across all concurrent requests)"
    )?;
    writeln!(
        out,
        "Transfer rate:          {:.2} [Kbytes/sec] received",
        kbytes(tally.received)
    )?;
    if options.sends_body() {
        let both = kbytes(tally.received + tally.sent);
        writeln!(
            out,
            "                        {:.2} kb/s sent",
            kbytes(tally.sent)
        )?;
        writeln!(out, "                        {both:.2} kb/s total")?;
    }
    Ok(())
}

fn times(options: &Options, tally: &Tally, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\nConnection Times (ms)")?;
    let rows = [
        ("Connect:    ", &tally.connect, "initial connection"),
        ("Processing: ", &tally.processing, "processing"),
        ("Waiting:    ", &tally.waiting, "waiting"),
        ("Total:      ", &tally.total, "total"),
    ];
    if options.no_confidence {
        writeln!(out, "              min   avg   max")?;
        for (label, c, _) in rows {
            let (min, avg, max) = (
                whole_ms(c.least()),
                whole_ms(c.mean()),
                whole_ms(c.greatest()),
            );
            writeln!(out, "{label}{min:>5} {avg:>5}{max:>5}")?;
        }
    } else {
        writeln!(out, "              min  mean[+/-sd] median   max")?;
        for (label, c, _) in rows {
            let (min, mean, max) = (
                whole_ms(c.least()),
                whole_ms(c.mean()),
                whole_ms(c.greatest()),
            );
            let (sd, median) = (c.deviation() / 1e3, whole_ms(c.median()));
            writeln!(
                out,
                "{label}{min:>5} {mean:>4} {sd:>5.1} {median:>6} {max:>7}"
            )?;
        }
        for (_, column, name) in rows {
            warn(column, name, out)?;
        }
    }
    if !options.no_percentiles && tally.done > 1 {
        writeln!(
            out,
            "\nPercentage of the requests served within a certain time (ms)"
        )?;
        for percent in PERCENTS {
            if percent == 100 {
                let longest = whole_ms(tally.total.greatest());
                writeln!(out, " 100%  {longest:>5} (longest request)")?;
            } else {
                let ms = whole_ms(tally.total.at(tally.done * percent / 100));
                writeln!(out, "  {percent}%  {ms:>5}")?;
            }
        }
    }
    decimals(tally, out)
}

/// ab's remark on a skewed column: mean and median, in whole ms, further apart than the deviation.
fn warn(column: &Column, name: &str, out: &mut String) -> std::fmt::Result {
    let apart = whole_ms(column.mean()).abs_diff(whole_ms(column.median())) as f64;
    let sd = column.deviation() / 1e3;
    if apart > 2.0 * sd {
        writeln!(
            out,
            "ERROR: The median and mean for the {name} time are more than twice the standard\n       deviation apart. These results are NOT reliable."
        )
    } else if apart > sd {
        writeln!(
            out,
            "WARNING: The median and mean for the {name} time are not within a normal deviation\n        These results are probably not that reliable."
        )
    } else {
        Ok(())
    }
}

/// The block that ab does not have.
fn decimals(tally: &Tally, out: &mut String) -> std::fmt::Result {
    writeln!(out, "\nPercentiles with decimals (ms)")?;
    writeln!(
        out,
        "  service time of a closed loop: waits before sending are not in it"
    )?;
    let quantiles = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999)];
    for (name, q) in quantiles {
        writeln!(
            out,
            "  {name:<6} {:>10.3}",
            tally.total.quantile(q) as f64 / 1e3
        )?;
    }
    writeln!(
        out,
        "  {:<6} {:>10.3}",
        "max",
        tally.total.greatest() as f64 / 1e3
    )
}

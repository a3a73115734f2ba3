//! Owns what ab counts and its report: the same lines, labels and order, then honest percentiles in ms with decimals.
//! Must not know sockets.

use std::fmt::Write;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

use super::column::Column;
use super::{Method, Options};
use crate::conn::{Exchange, Target};

const PERCENTS: [u8; 9] = [50, 66, 75, 80, 90, 95, 98, 99, 100];

/// The times of one completed request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When it began, since 1970.
    pub started: Duration,
    /// Dial and TLS handshake; zero on a reused connection.
    pub connect: Duration,
    /// From sending to the response's headers.
    pub waiting: Duration,
    /// From sending to the last byte.
    pub processing: Duration,
}

impl Sample {
    fn total(&self) -> Duration {
        self.connect + self.processing
    }
}

/// What a run counted; memory is constant unless `-g` was given.
#[derive(Debug, Clone)]
pub struct AbReport {
    /// The time the run took.
    pub elapsed: Duration,
    /// Requests answered completely.
    pub complete: u64,
    /// Dials that failed.
    pub failed_connect: u64,
    /// Exchanges that failed after the dial.
    pub failed_receive: u64,
    /// Answers whose body length differs from the first one's.
    pub failed_length: u64,
    /// Answers with a status outside 200 to 299.
    pub non_2xx: u64,
    /// Answers after which the connection stayed open.
    pub kept_alive: u64,
    /// Bytes received, headers included.
    pub transferred: u64,
    /// Bytes of bodies received.
    pub html: u64,
    options: Options,
    host: String,
    port: u16,
    path: String,
    server: String,
    request_bytes: u64,
    length: Option<u64>,
    connect: Column,
    processing: Column,
    waiting: Column,
    total: Column,
    samples: Vec<Sample>,
}

impl AbReport {
    pub(super) fn new(
        options: &Options,
        target: &Target,
        request: &Request<Full<Bytes>>,
        body_bytes: usize,
    ) -> AbReport {
        let headers: usize = request
            .headers()
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        let line = request.method().as_str().len() + request.uri().to_string().len() + 12;
        let host = "host: \r\n".len() + target.authority.len() + 2;
        AbReport {
            elapsed: Duration::ZERO,
            complete: 0,
            failed_connect: 0,
            failed_receive: 0,
            failed_length: 0,
            non_2xx: 0,
            kept_alive: 0,
            transferred: 0,
            html: 0,
            options: options.clone(),
            host: target.host.clone(),
            port: target.port,
            path: request.uri().to_string(),
            server: String::new(),
            request_bytes: (line + headers + host + body_bytes) as u64,
            length: None,
            connect: Column::new(),
            processing: Column::new(),
            waiting: Column::new(),
            total: Column::new(),
            samples: Vec::new(),
        }
    }

    pub(super) fn completed(&mut self, sample: &Sample, exchange: &Exchange, kept: bool) {
        self.complete += 1;
        self.transferred += exchange.wire_bytes;
        self.html += exchange.body_len;
        self.kept_alive += u64::from(kept);
        if !exchange.status.is_success() {
            self.non_2xx += 1;
        }
        let length = *self.length.get_or_insert(exchange.body_len);
        if !self.options.variable_length && length != exchange.body_len {
            self.failed_length += 1;
        }
        if self.server.is_empty()
            && let Some(server) = exchange.headers.get(http::header::SERVER)
        {
            self.server = String::from_utf8_lossy(server.as_bytes()).into_owned();
        }
        self.connect.add(sample.connect);
        self.processing.add(sample.processing);
        self.waiting.add(sample.waiting);
        self.total.add(sample.total());
        if self.options.gnuplot_file.is_some() {
            self.samples.push(*sample);
        }
    }

    pub(super) fn failed(&mut self, in_dial: bool) {
        if in_dial {
            self.failed_connect += 1;
        } else {
            self.failed_receive += 1;
        }
    }

    /// Requests that failed in any way.
    pub fn failures(&self) -> u64 {
        self.failed_connect + self.failed_receive + self.failed_length
    }

    /// 0: like ab, failed requests are reported and do not fail the program.
    pub fn exit_code(&self) -> u8 {
        0
    }

    /// The report: ab's lines, then percentiles with decimals.
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        if !self.options.quiet {
            writeln!(
                out,
                "This is nines ab, Version {} (report of ApacheBench 2.3)\n",
                env!("CARGO_PKG_VERSION")
            )?;
            writeln!(out, "Benchmarking {} (be patient).....done", self.host)?;
        }
        writeln!(out, "\n\nServer Software:        {}", self.server)?;
        writeln!(out, "Server Hostname:        {}", self.host)?;
        writeln!(out, "Server Port:            {}\n", self.port)?;
        writeln!(out, "Document Path:          {}", self.path)?;
        if self.options.variable_length {
            writeln!(out, "Document Length:        Variable\n")?;
        } else {
            writeln!(
                out,
                "Document Length:        {} bytes\n",
                self.length.unwrap_or(0)
            )?;
        }
        self.write_totals(out)?;
        if self.complete > 0 {
            self.write_times(out)?;
        }
        Ok(())
    }

    fn write_totals(&self, out: &mut String) -> std::fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        writeln!(out, "Concurrency Level:      {}", self.options.concurrency)?;
        writeln!(out, "Time taken for tests:   {seconds:.3} seconds")?;
        writeln!(out, "Complete requests:      {}", self.complete)?;
        writeln!(out, "Failed requests:        {}", self.failures())?;
        if self.failures() > 0 {
            writeln!(
                out,
                "   (Connect: {}, Receive: {}, Length: {}, Exceptions: 0)",
                self.failed_connect, self.failed_receive, self.failed_length
            )?;
        }
        if self.non_2xx > 0 {
            writeln!(out, "Non-2xx responses:      {}", self.non_2xx)?;
        }
        if self.options.keep_alive {
            writeln!(out, "Keep-Alive requests:    {}", self.kept_alive)?;
        }
        writeln!(out, "Total transferred:      {} bytes", self.transferred)?;
        let sends = matches!(self.options.method, Method::Post(_) | Method::Put(_));
        let sent = self.request_bytes * self.complete;
        if sends {
            writeln!(out, "Total body sent:        {sent}")?;
        }
        writeln!(out, "HTML transferred:       {} bytes", self.html)?;
        if seconds > 0.0 && self.complete > 0 {
            let done = self.complete as f64;
            let each = seconds * 1e3 / done;
            let kbytes = |bytes: u64| bytes as f64 / 1024.0 / seconds;
            writeln!(
                out,
                "Requests per second:    {:.2} [#/sec] (mean)",
                done / seconds
            )?;
            writeln!(
                out,
                "Time per request:       {:.3} [ms] (mean)",
                each * self.options.concurrency as f64
            )?;
            writeln!(
                out,
                "Time per request:       {each:.3} [ms] (mean, across all concurrent requests)"
            )?;
            writeln!(
                out,
                "Transfer rate:          {:.2} [Kbytes/sec] received",
                kbytes(self.transferred)
            )?;
            if sends {
                writeln!(out, "                        {:.2} kb/s sent", kbytes(sent))?;
                writeln!(
                    out,
                    "                        {:.2} kb/s total",
                    kbytes(self.transferred + sent)
                )?;
            }
        }
        Ok(())
    }

    fn write_times(&self, out: &mut String) -> std::fmt::Result {
        writeln!(out, "\nConnection Times (ms)")?;
        let rows = [
            ("Connect:   ", &self.connect),
            ("Processing:", &self.processing),
            ("Waiting:   ", &self.waiting),
            ("Total:     ", &self.total),
        ];
        if self.options.no_confidence {
            writeln!(out, "              min   avg   max")?;
            for (label, c) in rows.iter().filter(|(label, _)| *label != "Waiting:   ") {
                let (min, max) = (c.us.min() as f64 / 1e3, c.quantile_ms(1.0));
                writeln!(out, "{label} {min:>5.0} {:>5.0}{max:>5.0}", c.mean())?;
            }
        } else {
            writeln!(out, "              min  mean[+/-sd] median   max")?;
            for (label, c) in rows {
                let (min, mean, sd) = (c.us.min() as f64 / 1e3, c.mean(), c.deviation());
                let (median, max) = (c.quantile_ms(0.5), c.quantile_ms(1.0));
                writeln!(
                    out,
                    "{label} {min:>5.0} {mean:>4.0} {sd:>5.1} {median:>6.0} {max:>7.0}"
                )?;
            }
        }
        if self.options.no_percentiles || self.complete < 2 {
            return Ok(());
        }
        writeln!(
            out,
            "\nPercentage of the requests served within a certain time (ms)"
        )?;
        for percent in PERCENTS {
            let ms = self.total.quantile_ms(f64::from(percent) / 100.0);
            if percent == 100 {
                writeln!(out, " 100%  {ms:>5.0} (longest request)")?;
            } else {
                writeln!(out, "  {percent}%  {ms:>5.0}")?;
            }
        }
        writeln!(out, "\nPercentiles with decimals (ms)")?;
        writeln!(
            out,
            "  service time of a closed loop: waits before sending are not in it"
        )?;
        for (name, q) in [
            ("p50", 0.5),
            ("p90", 0.9),
            ("p99", 0.99),
            ("p99.9", 0.999),
            ("max", 1.0),
        ] {
            writeln!(out, "  {name:<6} {:>10.3}", self.total.quantile_ms(q))?;
        }
        Ok(())
    }

    /// What `-e` writes: the time within which each percentage from 0 to 99 was served.
    pub fn csv(&self) -> String {
        let mut out = "Percentage served,Time in ms\n".to_owned();
        for percent in 0..100_u8 {
            let ms = match percent {
                0 => self.total.us.min() as f64 / 1e3,
                _ => self.total.quantile_ms(f64::from(percent) / 100.0),
            };
            let _ = writeln!(out, "{percent},{ms:.3}");
        }
        out
    }

    /// What `-g` writes: one tab-separated line per request, fastest first; times in whole ms.
    pub fn gnuplot(&self) -> String {
        let mut out = "starttime\tseconds\tctime\tdtime\tttime\twait\n".to_owned();
        let mut samples = self.samples.clone();
        samples.sort_by_key(Sample::total);
        let ms = |d: Duration| (d.as_micros() + 500) / 1000;
        for s in &samples {
            let seconds = s.started.as_secs();
            let started = clock_text(seconds);
            let _ = writeln!(
                out,
                "{started}\t{seconds}\t{}\t{}\t{}\t{}",
                ms(s.connect),
                ms(s.processing),
                ms(s.total()),
                ms(s.waiting)
            );
        }
        out
    }
}

/// C's `ctime` in UTC: `Sat Nov 21 06:24:33 2026`.
fn clock_text(seconds: u64) -> String {
    let days = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let c =
        model::timestamp::civil_from_ms(i64::try_from(seconds).unwrap_or(0).saturating_mul(1000));
    let day = days[c.weekday as usize % 7];
    let month = months[(c.month as usize).saturating_sub(1) % 12];
    format!(
        "{day} {month} {:02} {:02}:{:02}:{:02} {}",
        c.day, c.hour, c.minute, c.second, c.year
    )
}

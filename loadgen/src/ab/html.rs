//! Owns the report as an HTML table (`-w -x -y -z`): ab's rows, in ab's order.
//! Must not know sockets. What comes from the server or the command line is escaped, but for the attributes themselves.

use super::Options;
use super::column::whole_ms;
use super::tally::Tally;

/// What `-x`, `-y` and `-z` put into the tags.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Of `<table>`.
    pub table: String,
    /// Of `<tr>`.
    pub row: String,
    /// Of `<td>` and `<th>`.
    pub cell: String,
}

impl Default for Attributes {
    fn default() -> Attributes {
        Attributes {
            table: String::new(),
            row: String::new(),
            cell: "bgcolor=white".to_owned(),
        }
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The table.
pub(super) fn table(options: &Options, attributes: &Attributes, tally: &Tally) -> String {
    let (tr, td) = (&attributes.row, &attributes.cell);
    let mut out = format!("\n\n<table {}>\n", attributes.table);
    let mut row = |name: &str, value: String| {
        out += &format!(
            "<tr {tr}><th colspan=2 {td}>{name}:</th><td colspan=2 {td}>{value}</td></tr>\n"
        );
    };
    row("Server Software", escaped(&tally.server));
    row("Server Hostname", escaped(&options.url.host));
    row("Server Port", options.url.port.to_string());
    row("Document Path", escaped(&options.url.path));
    row(
        "Document Length",
        match options.variable_length {
            true => "Variable".to_owned(),
            false => format!("{} bytes", tally.length),
        },
    );
    let seconds = tally.elapsed.as_secs_f64();
    row("Concurrency Level", options.concurrency.to_string());
    row("Time taken for tests", format!("{seconds:.3} seconds"));
    row("Complete requests", tally.done.to_string());
    row("Failed requests", tally.bad.to_string());
    if tally.bad > 0 {
        out += &format!(
            "<tr {tr}><td colspan=4 {td} >   (Connect: {}, Length: {}, Exceptions: {})</td></tr>\n",
            tally.failed_connect, tally.failed_length, tally.exceptions
        );
    }
    let mut row = |name: &str, value: String| {
        out += &format!(
            "<tr {tr}><th colspan=2 {td}>{name}:</th><td colspan=2 {td}>{value}</td></tr>\n"
        );
    };
    if tally.not_2xx > 0 {
        row("Non-2xx responses", tally.not_2xx.to_string());
    }
    if options.keep_alive {
        row("Keep-Alive requests", tally.kept.to_string());
    }
    row("Total transferred", format!("{} bytes", tally.received));
    if options.sends_body() {
        row("Total body sent", tally.sent.to_string());
    }
    row("HTML transferred", format!("{} bytes", tally.body_received));
    if seconds > 0.0 {
        let kb = |bytes: u64| bytes as f64 / 1024.0 / seconds;
        let each = tally.done as f64 / seconds;
        row("Requests per second", format!("{each:.2}"));
        row(
            "Transfer rate",
            format!("{:.2} kb/s received", kb(tally.received)),
        );
        if options.sends_body() {
            let both = tally.received + tally.sent;
            for (bytes, word) in [(tally.sent, "sent"), (both, "total")] {
                out += &format!(
                    "<tr {tr}><td colspan=2 {td}>&nbsp;</td><td colspan=2 {td}>{:.2} kb/s {word}</td></tr>\n",
                    kb(bytes)
                );
            }
        }
    }
    times(&mut out, attributes, tally);
    out + "</table>\n"
}

fn times(out: &mut String, attributes: &Attributes, tally: &Tally) {
    if tally.done == 0 {
        return;
    }
    let (tr, td) = (&attributes.row, &attributes.cell);
    *out += &format!("<tr {tr}><th {td} colspan=4>Connection Times (ms)</th></tr>\n");
    *out += &format!(
        "<tr {tr}><th {td}>&nbsp;</th> <th {td}>min</th>   <th {td}>avg</th>   <th {td}>max</th></tr>\n"
    );
    let three = |c: &super::column::Column| {
        [
            whole_ms(c.least()),
            whole_ms(c.sum()) / c.count().max(1),
            whole_ms(c.greatest()),
        ]
    };
    let (connect, total) = (three(&tally.connect), three(&tally.total));
    let processing = std::array::from_fn(|i| total[i].saturating_sub(connect[i]));
    for (name, [min, avg, max]) in [
        ("Connect", connect),
        ("Processing", processing),
        ("Total", total),
    ] {
        *out += &format!(
            "<tr {tr}><th {td}>{name}:</th><td {td}>{min:>5}</td><td {td}>{avg:>5}</td><td {td}>{max:>5}</td></tr>\n"
        );
    }
}

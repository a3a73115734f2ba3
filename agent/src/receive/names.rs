//! Names of metrics and labels from OpenTelemetry to Prometheus.
//!
//! Owns the translation of the OpenTelemetry specification, "Prometheus and OpenMetrics Compatibility": characters,
//! unit suffixes, `_total`, `_ratio`. Must not know values.

/// What a metric is, as far as its name depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A gauge, or a sum that may fall.
    Gauge,
    /// A monotonic sum.
    Counter,
    /// A histogram or summary.
    Distribution,
}

/// UCUM units and the words that Prometheus uses.
const UNITS: [(&str, &str); 24] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("bit", "bits"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("J", "joules"),
    ("W", "watts"),
    ("Hz", "hertz"),
    ("%", "percent"),
];

/// Units after a slash.
const PER_UNITS: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

/// The Prometheus name of a metric. `http.server.request.duration` in `s` becomes
/// `http_server_request_duration_seconds`.
#[must_use]
pub fn metric_name(name: &str, unit: &str, kind: Kind) -> String {
    let mut tokens: Vec<String> = tokens(name);
    let (main, per) = unit_words(unit);
    for word in [main.clone(), per.clone()].into_iter().flatten() {
        if !tokens.contains(&word) {
            if Some(&word) == per.as_ref() {
                tokens.push("per".to_owned());
            }
            tokens.push(word);
        }
    }
    if kind == Kind::Counter {
        tokens.retain(|t| t != "total");
        tokens.push("total".to_owned());
    }
    if unit == "1" && kind == Kind::Gauge {
        tokens.retain(|t| t != "ratio");
        tokens.push("ratio".to_owned());
    }
    let mut out = tokens.join("_");
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// The unit as Prometheus' metadata has it: `seconds`, or empty.
#[must_use]
pub fn unit_name(unit: &str) -> String {
    match unit_words(unit) {
        (Some(main), Some(per)) => format!("{main}_per_{per}"),
        (Some(main), None) => main,
        _ => String::new(),
    }
}

/// The Prometheus name of a label: `http.route` becomes `http_route`.
#[must_use]
pub fn label_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for c in name.chars() {
        match c {
            _ if c.is_ascii_alphanumeric() => out.push(c),
            _ if out.ends_with('_') => {}
            _ => out.push('_'),
        }
    }
    if out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert_str(0, "key_");
    }
    out
}

fn tokens(name: &str) -> Vec<String> {
    name.split(|c: char| !(c.is_ascii_alphanumeric() || c == ':'))
        .filter(|t| !t.is_empty())
        .map(str::to_owned)
        .collect()
}

fn unit_words(unit: &str) -> (Option<String>, Option<String>) {
    let plain = without_annotations(unit);
    let (main, per) = plain.split_once('/').unwrap_or((&plain, ""));
    (word(main, &UNITS), word(per, &PER_UNITS))
}

fn word(unit: &str, table: &[(&str, &str)]) -> Option<String> {
    let unit = unit.trim();
    if unit.is_empty() || unit == "1" {
        return None;
    }
    let known = table.iter().find(|(u, _)| *u == unit).map(|(_, w)| *w);
    let word = tokens(known.unwrap_or(unit)).join("_");
    (!word.is_empty()).then_some(word)
}

/// `{request}/s` without what is in braces.
fn without_annotations(unit: &str) -> String {
    let mut out = String::new();
    let mut depth = 0u32;
    for c in unit.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            _ if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_specification_and_prometheus_have_them() {
        use Kind::{Counter, Distribution, Gauge};
        for (name, unit, kind, wanted) in [
            (
                "http.server.request.duration",
                "s",
                Distribution,
                "http_server_request_duration_seconds",
            ),
            (
                "system.cpu.time",
                "s",
                Counter,
                "system_cpu_time_seconds_total",
            ),
            (
                "system.cpu.utilization",
                "1",
                Gauge,
                "system_cpu_utilization_ratio",
            ),
            (
                "system.cpu.load_average.1m",
                "{thread}",
                Gauge,
                "system_cpu_load_average_1m",
            ),
            (
                "system.disk.io",
                "By",
                Counter,
                "system_disk_io_bytes_total",
            ),
            (
                "system.disk.operations",
                "{operation}",
                Counter,
                "system_disk_operations_total",
            ),
            ("requests_total", "1", Counter, "requests_total"),
            ("a.rate", "{request}/s", Gauge, "a_rate_per_second"),
            ("speed", "By/s", Gauge, "speed_bytes_per_second"),
            ("memory_bytes", "By", Gauge, "memory_bytes"),
            ("weird--name..x", "", Gauge, "weird_name_x"),
            ("2xx", "", Counter, "_2xx_total"),
            ("fan", "{unclosed", Gauge, "fan"),
            ("é", "é", Gauge, ""),
        ] {
            assert_eq!(metric_name(name, unit, kind), wanted, "{name} in {unit}");
        }
        for (name, wanted) in [
            ("http.route", "http_route"),
            ("a..b", "a_b"),
            ("1a", "key_1a"),
            ("__x", "_x"),
        ] {
            assert_eq!(label_name(name), wanted);
        }
        assert_eq!(unit_name("By/s"), "bytes_per_second");
    }
}

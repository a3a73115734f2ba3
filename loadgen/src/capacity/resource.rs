//! Owns which resource limits: the questions to ask an agent in PromQL, and what follows from its answers. Pure; who
//! asks is not its business.

use std::fmt::Write;

/// What to ask: what the number is, and PromQL with `$window` for the length looked at. Ratios are 0 to 1.
pub const QUERIES: [(&str, &str); 6] = [
    (
        "CPU",
        "avg_over_time(system_cpu_utilization_ratio[$window])",
    ),
    (
        "in use",
        "avg_over_time(nines_use_utilization_ratio[$window])",
    ),
    (
        "memory",
        "avg_over_time(system_memory_utilization_ratio[$window])",
    ),
    (
        "disk busy",
        "rate(system_disk_io_time_seconds_total[$window])",
    ),
    (
        "CPU throttled",
        "rate(container_cpu_throttled_seconds_total[$window])",
    ),
    (
        "stalled",
        "avg_over_time(system_linux_psi_pressure_ratio{window=\"10\",stall_type=\"some\"}[$window])",
    ),
];
/// From here on a resource is named as what saturates.
const SATURATED: f64 = 0.8;
/// Throttling, and waits for memory, hurt much earlier.
const PRESSURE: f64 = 0.2;
/// Some task or other waits for a disk or a processor on many a machine that is well.
const STALLED: f64 = 0.5;

/// By how much a resource must be fuller near the capacity than under light load to be what the load fills.
const ROSE: f64 = 0.1;
/// Pressure wanders on its own: it must be so many times what it is under light load, besides.
const PRESSURE_ROSE: f64 = 2.0;

/// One answer: the question's name, the series' labels without the metric's name, the value.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The first part of a [`QUERIES`] entry.
    pub what: &'static str,
    /// Name and value of each label.
    pub labels: Vec<(String, String)>,
    /// 0 to 1.
    pub value: f64,
}

/// A resource and how full it was.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// Such as `db_pool orders (in use) on 10.0.0.1:8080`.
    pub name: String,
    /// 0 to 1.
    pub value: f64,
    /// The same under light load, at the beginning of the search; none when it is not known.
    pub light: Option<f64>,
    /// Whether this is what saturates: full, and not already so under light load.
    pub saturated: bool,
    /// Whether this is pressure (tasks wait) and not use: what is used up says more, since waits have many causes.
    stalled: bool,
}

impl Resource {
    /// Full, but just as full under light load: something else does that.
    pub fn busy_anyway(&self) -> bool {
        let times = if self.stalled { PRESSURE_ROSE } else { 1.0 };
        self.light
            .is_some_and(|light| self.value < (light + ROSE).max(light * times))
    }

    /// `saturated   95.0 %  db_pool replica (in use) on a:1 (4.0 % under light load)`.
    pub fn line(&self) -> String {
        let word = if self.saturated { "saturated" } else { "" };
        let light = self.light.map_or(String::new(), |light| {
            format!(" ({:.1} % under light load)", light * 100.0)
        });
        format!(
            "{word:9} {:>6.1} %  {}{light}",
            self.value * 100.0,
            self.name
        )
    }
}

/// The resources near the capacity, and beside it under light load: those that the load fills before others; of these the
/// saturated, then what is used before waits (pressure), then the nearest to their limits; at most eight.
pub fn saturated(readings: &[Reading], light: &[Reading]) -> Vec<Resource> {
    let limit = |r: &Reading| match r.what {
        "CPU throttled" => PRESSURE,
        "stalled" if r.label("resource") == Some("memory") => PRESSURE,
        "stalled" => STALLED,
        _ => SATURATED,
    };
    let mut all: Vec<(f64, Resource)> = readings
        .iter()
        .filter(|r| r.value.is_finite() && r.value >= 0.05)
        .map(|r| {
            let near = r.value / limit(r);
            let same = |l: &&Reading| (l.what, &l.labels) == (r.what, &r.labels);
            let light = light.iter().find(same).map(|l| l.value);
            let mut resource = Resource {
                name: name(r),
                value: r.value,
                light: light.filter(|v| v.is_finite()),
                saturated: near >= 1.0,
                stalled: r.what == "stalled",
            };
            resource.saturated &= !resource.busy_anyway();
            (near, resource)
        })
        .collect();
    all.sort_by(|a, b| {
        let rank = |r: &Resource| (r.busy_anyway(), !r.saturated, r.stalled);
        (rank(&a.1).cmp(&rank(&b.1)))
            .then(b.0.total_cmp(&a.0))
            .then_with(|| a.1.name.cmp(&b.1.name))
    });
    all.truncate(8);
    all.into_iter().map(|(_, resource)| resource).collect()
}

impl Reading {
    fn label(&self, name: &str) -> Option<&str> {
        let found = self.labels.iter().find(|(n, _)| n == name);
        found.map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }
}

fn name(reading: &Reading) -> String {
    let get = |name: &str| reading.label(name);
    let named = ["kind", "resource", "device", "cgroup"];
    let mut parts: Vec<&str> = named.iter().filter_map(|n| get(n)).collect();
    parts.dedup();
    let mut out = if parts.is_empty() {
        reading.what.to_owned()
    } else {
        format!("{} ({})", parts.join(" "), reading.what)
    };
    if let Some(instance) = get("instance") {
        let _ = write!(out, " on {instance}");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(what: &'static str, labels: &[(&str, &str)], value: f64) -> Reading {
        Reading {
            what,
            labels: labels
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            value,
        }
    }

    #[test]
    fn the_fullest_resource_comes_first_and_is_named() {
        let pool = [
            ("kind", "db_pool"),
            ("resource", "orders"),
            ("instance", "a:1"),
        ];
        let near = [
            reading("CPU", &[("instance", "host")], 0.41),
            reading("in use", &pool, 0.97),
            reading("CPU throttled", &[("cgroup", "/app")], 0.3),
            reading("memory", &[], f64::NAN),
            reading("disk busy", &[("device", "sda")], 0.01),
        ];
        let all = saturated(&near, &[]);
        let names: Vec<&str> = all.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "/app (CPU throttled)",
                "db_pool orders (in use) on a:1",
                "CPU on host"
            ]
        );
        assert_eq!(
            all.iter().map(|r| r.saturated).collect::<Vec<_>>(),
            [true, true, false]
        );
    }

    #[test]
    fn what_is_full_without_the_load_is_not_what_limits() {
        let cpu = |value| reading("CPU", &[("instance", "host")], value);
        let pool = |value| reading("in use", &[("kind", "db_pool"), ("resource", "a")], value);
        let all = saturated(&[cpu(1.0), pool(0.93)], &[cpu(0.97), pool(0.05)]);
        let names: Vec<(&str, bool)> = all.iter().map(|r| (r.name.as_str(), r.saturated)).collect();
        assert_eq!(
            names,
            [("db_pool a (in use)", true), ("CPU on host", false)]
        );
        assert!(
            all[0]
                .line()
                .contains("93.0 %  db_pool a (in use) (5.0 % under light load)")
        );
    }

    #[test]
    fn waits_do_not_come_before_what_is_used_up() {
        let host = |what, resource, value| {
            let labels = [("resource", resource), ("instance", "host")];
            reading(what, &labels, value)
        };
        let cpu = |value| reading("CPU", &[("instance", "host")], value);
        let pool = |value| reading("in use", &[("kind", "db_pool"), ("resource", "a")], value);
        let io = |value| host("stalled", "io", value);
        let memory = |value| host("stalled", "memory", value);
        // Near the capacity, under light load, and what is named: "!" marks what is called saturated.
        let cases: [(&[Reading], &[Reading], &[&str]); 6] = [
            (
                &[io(0.7), cpu(0.85)],
                &[io(0.02), cpu(0.1)],
                &["!CPU on host", "!io (stalled) on host"],
            ),
            (
                &[io(0.3), pool(0.7)],
                &[io(0.01), pool(0.1)],
                &["db_pool a (in use)", "io (stalled) on host"],
            ),
            // A log that is written all the time: no more under load than before.
            (
                &[io(0.62), pool(0.92)],
                &[io(0.48), pool(0.1)],
                &["!db_pool a (in use)", "io (stalled) on host"],
            ),
            (
                &[io(0.6), cpu(0.5)],
                &[io(0.05), cpu(0.1)],
                &["!io (stalled) on host", "CPU on host"],
            ),
            (
                &[memory(0.25), cpu(0.5)],
                &[memory(0.0), cpu(0.1)],
                &["!memory (stalled) on host", "CPU on host"],
            ),
            (
                &[io(0.9), cpu(0.5)],
                &[],
                &["!io (stalled) on host", "CPU on host"],
            ),
        ];
        for (near, light, want) in cases {
            let all = saturated(near, light);
            let names: Vec<String> = all
                .iter()
                .map(|r| format!("{}{}", if r.saturated { "!" } else { "" }, r.name))
                .collect();
            assert_eq!(names, want);
        }
    }

    #[test]
    fn every_question_is_promql() {
        for (_, text) in QUERIES {
            assert!(text.contains("$window"));
        }
    }
}

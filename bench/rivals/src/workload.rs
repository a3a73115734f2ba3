//! The samples: the mix of the store's bench, and classic histograms of an HTTP service. Every server gets the same.
//!
//! Owns values, labels and their wire forms. Must not know servers.

use std::fmt::Write as _;

/// A small random number generator (splitmix64).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One series' values so far.
pub enum Kind {
    Constant(f64),
    Counter(u64),
    Gauge(i64),
    Noise,
}

impl Kind {
    /// 25 % constant, 40 % integer counters, 25 % two-decimal gauges, 10 % noise.
    pub fn of(series: usize, random: &mut Random) -> Kind {
        match series % 20 {
            0..5 => Kind::Constant(random.below(1000) as f64),
            5..13 => Kind::Counter(random.below(1_000_000)),
            13..18 => Kind::Gauge(random.below(10_000) as i64),
            _ => Kind::Noise,
        }
    }

    pub fn next(&mut self, random: &mut Random) -> f64 {
        match self {
            Kind::Constant(v) => *v,
            Kind::Counter(v) => {
                *v += random.below(100);
                *v as f64
            }
            Kind::Gauge(v) => {
                *v += random.below(201) as i64 - 100;
                *v as f64 / 100.0
            }
            Kind::Noise => random.unit(),
        }
    }
}

pub type Pairs = Vec<(String, String)>;

/// Five labels, ascending.
pub fn mixed_labels(series: usize) -> Pairs {
    let own = |n: &str, v: String| (n.to_owned(), v);
    vec![
        own("__name__", format!("metric_{:03}_total", series / 20 % 200)),
        own("cluster", "eu-west-1a".into()),
        own(
            "instance",
            format!("10.0.{}.{}:9100", series % 20, series / 4000),
        ),
        own("job", "node".into()),
        own("mode", ["system", "user"][series % 2].into()),
    ]
}

/// A bucket of 50 routes x 20 instances x 10 bounds.
pub fn bucket_labels(series: usize) -> Pairs {
    const BOUNDS: [&str; 10] = [
        "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "+Inf",
    ];
    let own = |n: &str, v: String| (n.to_owned(), v);
    vec![
        own("__name__", "http_request_duration_seconds_bucket".into()),
        own("instance", format!("10.0.0.{}:8080", series / 10 % 20)),
        own("job", "web".into()),
        own("le", BOUNDS[series % 10].into()),
        own("route", format!("/api/v1/route-{:02}", series / 200)),
    ]
}

/// The bodies of one scrape each of which holds one sample of `per_body` series.
pub struct Scrapes {
    labels: Vec<Vec<u8>>,
    random: Random,
    values: Values,
    per_body: usize,
}

enum Values {
    Mixed(Vec<Kind>),
    /// Cumulative counts, bucket by bucket.
    Buckets(Vec<f64>),
}

impl Scrapes {
    pub fn mixed(series: usize, per_body: usize) -> Self {
        let mut random = Random(1);
        let kinds = (0..series).map(|i| Kind::of(i, &mut random)).collect();
        let labels = (0..series)
            .map(|i| encode_labels(&mixed_labels(i)))
            .collect();
        Scrapes {
            labels,
            random,
            values: Values::Mixed(kinds),
            per_body,
        }
    }

    pub fn buckets(series: usize, per_body: usize) -> Self {
        let labels = (0..series)
            .map(|i| encode_labels(&bucket_labels(i)))
            .collect();
        Scrapes {
            labels,
            random: Random(2),
            values: Values::Buckets(vec![0.0; series]),
            per_body,
        }
    }

    /// The next scrape as snappy bodies.
    pub fn bodies(&mut self, t_ms: i64) -> Vec<Vec<u8>> {
        let random = &mut self.random;
        let values: Vec<f64> = match &mut self.values {
            Values::Mixed(kinds) => kinds.iter_mut().map(|k| k.next(random)).collect(),
            Values::Buckets(counts) => {
                observe(counts, random);
                counts.clone()
            }
        };
        let mut bodies = Vec::new();
        for (labels, values) in self
            .labels
            .chunks(self.per_body)
            .zip(values.chunks(self.per_body))
        {
            let mut message = Vec::with_capacity(labels.len() * 150);
            for (labels, value) in labels.iter().zip(values) {
                let mut sample = vec![0x09];
                sample.extend_from_slice(&value.to_le_bytes());
                sample.push(0x10);
                varint(&mut sample, t_ms as u64);
                message.push(0x0a);
                varint(&mut message, (labels.len() + 2 + sample.len()) as u64);
                message.extend_from_slice(labels);
                message.extend_from_slice(&[0x12, sample.len() as u8]);
                message.extend_from_slice(&sample);
            }
            bodies.push(
                snap::raw::Encoder::new()
                    .compress_vec(&message)
                    .expect("small enough"),
            );
        }
        bodies
    }
}

/// One scrape later: every bucket holds what those below it do.
fn observe(counts: &mut [f64], random: &mut Random) {
    let mut below = 0.0;
    for (i, count) in counts.iter_mut().enumerate() {
        below = if i % 10 == 0 { 0.0 } else { below } + random.below(9) as f64;
        *count += below;
    }
}

/// The values of [`Scrapes::buckets`], scrape by scrape.
pub fn bucket_values(series: usize) -> impl FnMut() -> Vec<f64> {
    let (mut counts, mut random) = (vec![0.0; series], Random(2));
    move || {
        observe(&mut counts, &mut random);
        counts.clone()
    }
}

fn varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn encode_labels(pairs: &Pairs) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in pairs {
        out.push(0x0a);
        varint(&mut out, (name.len() + value.len() + 4) as u64);
        for (tag, text) in [(0x0a, name), (0x12, value)] {
            out.push(tag);
            varint(&mut out, text.len() as u64);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// `count` bodies of a scrape in Prometheus' text format, a moment apart.
pub fn exposition(series: usize, count: usize) -> Vec<Vec<u8>> {
    let mut random = Random(3);
    let mut kinds: Vec<Kind> = (0..series).map(|i| Kind::of(i, &mut random)).collect();
    (0..count)
        .map(|_| {
            let mut text = String::new();
            let mut last = String::new();
            for (i, kind) in kinds.iter_mut().enumerate() {
                // The series of a metric stand together, as the format demands.
                let metric = i / 100;
                let name = format!("metric_{metric:03}_total");
                if name != last {
                    let _ = write!(text, "# HELP {name} What it counts.\n# TYPE {name} counter\n");
                    last.clone_from(&name);
                }
                let value = kind.next(&mut random);
                let (shard, mode) = (i % 100, ["system", "user"][i % 2]);
                let _ = writeln!(
                    text,
                    "{name}{{cluster=\"eu-west-1a\",mode=\"{mode}\",path=\"/api/v1/items\",shard=\"{shard}\"}} {value}"
                );
            }
            text.into_bytes()
        })
        .collect()
}

//! One scrape target: fetch, parse, append, and end what vanished.
//!
//! Owns the target's series cache and Prometheus' rules: `up` and `scrape_*`, label conflicts, staleness, all or nothing.
//! Must not know where targets come from. Samples carry the instant at which the scrape began.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use model::source::{Exemplar, Metadata};
use model::{Labels, Value, stale_nan};
use tokio_util::sync::CancellationToken;

use super::config::ScrapeJob;
use super::derive::{self, Role};
use super::exposition::{Format, Item, Parser, labels_of};
use super::fetch;
use super::rounds::Rounds;
use crate::ingest::{Ingest, Sample, Target};
use known::Known;
use store::PackedBatch;

mod known;

const ACCEPT: &str =
    "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.6,*/*;q=0.1";

/// Labels of a series longer than this in all fail the scrape.
const MAX_LABELS_BYTES: usize = 16 << 10;

/// How one target is scraped.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TargetConfig {
    pub(super) job: String,
    pub(super) url: String,
    pub(super) discovered: Labels,
    /// `job`, `instance` and the target's own.
    pub(super) labels: Labels,
    pub(super) interval: Duration,
    pub(super) timeout: Duration,
    pub(super) honor_labels: bool,
    pub(super) honor_timestamps: bool,
    pub(super) body_limit: usize,
    pub(super) sample_limit: usize,
    pub(super) bearer_token_file: Option<PathBuf>,
}

// === impl TargetConfig ===

impl TargetConfig {
    /// The target `address` of a job, with the labels of its group. Labels `__scheme__`, `__metrics_path__` and
    /// `__param_...` have their Prometheus meaning; others that begin with `__` are dropped.
    pub(super) fn new(job: &ScrapeJob, address: &str, group: &[(String, String)]) -> Self {
        let own = |name: &str| {
            group
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.as_str())
        };
        let scheme = own("__scheme__").unwrap_or(&job.scheme);
        let path = own("__metrics_path__").unwrap_or(&job.path);
        let params: Vec<String> = group
            .iter()
            .filter_map(|(n, v)| Some((n.strip_prefix("__param_")?, v)))
            .map(|(n, v)| {
                format!(
                    "{n}={}",
                    url::form_urlencoded::byte_serialize(v.as_bytes()).collect::<String>()
                )
            })
            .collect();
        let query = if params.is_empty() {
            String::new()
        } else {
            format!("?{}", params.join("&"))
        };
        let url = if address.contains("://") {
            address.to_owned()
        } else {
            format!("{scheme}://{address}{path}{query}")
        };
        let host = url::Url::parse(&url).ok();
        let instance = host
            .as_ref()
            .and_then(address_of)
            .unwrap_or_else(|| address.to_owned());
        let mut labels =
            Labels::from_pairs([("job", job.job.as_str()), ("instance", &instance)]).to_builder();
        let mut discovered = labels.clone();
        for (n, v) in group {
            discovered.set(n.as_str(), v.as_str());
            if !n.starts_with("__") {
                labels.set(n.as_str(), v.as_str());
            }
        }
        discovered.set("__address__", instance.as_str());
        TargetConfig {
            job: job.job.clone(),
            url,
            discovered: discovered.build(),
            labels: labels.build(),
            interval: job.interval.duration(),
            timeout: job.timeout.duration().min(job.interval.duration()),
            honor_labels: job.honor_labels,
            honor_timestamps: job.honor_timestamps,
            body_limit: job.body_limit_bytes,
            sample_limit: job.sample_limit,
            bearer_token_file: job.bearer_token_file.clone(),
        }
    }

    pub(super) fn row(&self) -> Target {
        Target {
            job: self.job.clone(),
            url: self.url.clone(),
            discovered: self.discovered.clone(),
            labels: self.labels.clone(),
            interval_ms: i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX),
            timeout_ms: i64::try_from(self.timeout.as_millis()).unwrap_or(i64::MAX),
            ..Target::default()
        }
    }
}

/// `host:port` of a URL.
pub(super) fn address_of(url: &url::Url) -> Option<String> {
    Some(format!(
        "{}:{}",
        url.host_str()?,
        url.port_or_known_default()?
    ))
}

/// Scrapes one target until `stop`. When it stops because the target is gone (and not the agent), ends its series.
pub(super) async fn run(
    target: TargetConfig,
    ingest: Ingest,
    gone: CancellationToken,
    shutdown: CancellationToken,
) {
    ingest.report_target(target.row());
    let mut rounds = Rounds::new(&target.url, target.interval, gone.clone()).on_flush(&ingest);
    let mut series = Series::new(&target);
    while let Some(t_ms) = rounds.next().await {
        let begun = Instant::now();
        let fetched = tokio::select! {
            fetched = fetch_body(&target) => fetched,
            () = gone.cancelled() => break,
        };
        let outcome = fetched.and_then(|(format, body)| series.parse(&target, t_ms, format, &body));
        let duration = begun.elapsed().as_secs_f64();
        series.finish(&ingest, t_ms, duration, &outcome);
        ingest.report_target(Target {
            up: Some(outcome.is_ok()),
            last_error: outcome.err().unwrap_or_default(),
            last_ms: t_ms,
            duration_seconds: duration,
            ..target.row()
        });
    }
    if !shutdown.is_cancelled() {
        series.end(&ingest, super::rounds::now_ms());
        ingest.forget_target(&target.job, &target.url);
    }
}

async fn fetch_body(target: &TargetConfig) -> Result<(Format, Vec<u8>), String> {
    let bearer = match &target.bearer_token_file {
        None => None,
        Some(path) => Some(
            tokio::fs::read_to_string(path)
                .await
                .map_err(|e| format!("the token file cannot be read: {e}"))?,
        ),
    };
    let request = fetch::Request {
        url: &target.url,
        accept: ACCEPT,
        bearer,
        body_limit: target.body_limit,
    };
    let fetched = fetch::get(request, target.timeout).await?;
    if fetched.status != 200 {
        return Err(format!(
            "the server answered with status {}",
            fetched.status
        ));
    }
    Ok((Format::of_content_type(&fetched.content_type), fetched.body))
}

/// What is known about a target from the scrapes before, and what the current one says.
pub(super) struct Series {
    known: Known,
    derived: HashMap<Labels, u64>,
    described: HashMap<String, Metadata>,
    new_metadata: Vec<String>,
    round: u64,
    /// Samples of the body.
    points: Vec<Point>,
    /// Samples that follow from it, and ends.
    others: Vec<Sample>,
    batch: PackedBatch,
    roles: Vec<(Role, Labels, f64)>,
    exemplars: Vec<(Labels, Exemplar)>,
    reports: [Labels; 5],
}

/// One sample of the body.
struct Point {
    /// Its place in [`Known`].
    series: u32,
    t_ms: i64,
    value: f64,
}

/// What a parsed scrape held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Scraped {
    samples: usize,
    added: usize,
}

// === impl Series ===

impl Series {
    pub(super) fn new(target: &TargetConfig) -> Self {
        let report = |name: &str| target.labels.with("__name__", name);
        Series {
            known: Known::new(),
            derived: HashMap::new(),
            described: HashMap::new(),
            new_metadata: Vec::new(),
            round: 0,
            points: Vec::new(),
            others: Vec::new(),
            batch: PackedBatch::default(),
            roles: Vec::new(),
            exemplars: Vec::new(),
            reports: [
                report("up"),
                report("scrape_duration_seconds"),
                report("scrape_samples_scraped"),
                report("scrape_samples_post_metric_relabeling"),
                report("scrape_series_added"),
            ],
        }
    }

    /// Reads a whole body into the batch. On an error nothing of it is kept.
    pub(super) fn parse(
        &mut self,
        target: &TargetConfig,
        t_ms: i64,
        format: Format,
        body: &[u8],
    ) -> Result<Scraped, String> {
        self.round += 1;
        self.known.begin();
        let result = self.parse_items(target, t_ms, format, body);
        if result.is_err() {
            self.points.clear();
            self.roles.clear();
            self.exemplars.clear();
        }
        result
    }

    fn parse_items(
        &mut self,
        target: &TargetConfig,
        t_ms: i64,
        format: Format,
        body: &[u8],
    ) -> Result<Scraped, String> {
        let mut scraped = Scraped::default();
        let mut parser = Parser::new(body, format).map_err(|e| e.to_string())?;
        while let Some(item) = parser.next_expecting(self.known.expected()) {
            match item.map_err(|e| e.to_string())? {
                Item::Sample {
                    series,
                    value,
                    t_ms: own,
                    exemplar,
                    line,
                } => {
                    scraped.samples += 1;
                    if scraped.samples > target.sample_limit {
                        return Err(format!(
                            "there are more than {} samples",
                            target.sample_limit
                        ));
                    }
                    let at = |message: String| format!("line {line}, column 1: {message}");
                    let own = own.filter(|_| target.honor_timestamps);
                    self.sample(target, series, value, own, t_ms, &mut scraped)
                        .map_err(at)?;
                    if let (Some(raw), Some(point)) = (exemplar, self.points.last()) {
                        let labels = self.known.get(point.series).labels.clone();
                        let pairs = labels_of(raw.labels).map_err(at)?;
                        let t_ms = raw.t_ms.or(own).unwrap_or(t_ms);
                        let exemplar = Exemplar {
                            labels: Labels::from_pairs(pairs),
                            value: raw.value,
                            t_ms,
                        };
                        self.exemplars.push((labels, exemplar));
                    }
                }
                Item::Type { name, kind } => self.describe(
                    name,
                    |m| &mut m.kind,
                    if kind == "untyped" { "unknown" } else { kind },
                ),
                Item::Help { name, text } => self.describe(
                    name,
                    |m| &mut m.help,
                    &text.replace("\\n", "\n").replace("\\\\", "\\"),
                ),
                Item::Unit { name, unit } => self.describe(name, |m| &mut m.unit, unit),
            }
        }
        Ok(scraped)
    }

    fn sample(
        &mut self,
        target: &TargetConfig,
        series: &str,
        value: f64,
        own: Option<i64>,
        t_ms: i64,
        scraped: &mut Scraped,
    ) -> Result<(), String> {
        let at = match self.known.find(series) {
            Some(at) => at,
            None => {
                let labels = merge(target, labels_of(series)?);
                if labels.as_packed().len() > MAX_LABELS_BYTES {
                    return Err(format!(
                        "the labels are longer than {MAX_LABELS_BYTES} bytes"
                    ));
                }
                scraped.added += 1;
                let role = derive::role(&labels);
                self.known.add(series, labels, role)
            }
        };
        let entry = self.known.get_mut(at);
        entry.tracked = own.is_none();
        if let Some(role) = entry.role {
            self.roles.push((role, entry.labels.clone(), value));
        }
        self.points.push(Point {
            series: at,
            t_ms: own.unwrap_or(t_ms),
            value,
        });
        Ok(())
    }

    fn describe(&mut self, name: &str, field: impl Fn(&mut Metadata) -> &mut String, value: &str) {
        if !self.described.contains_key(name) {
            if self.described.len() >= 10_000 {
                return;
            }
            self.described.insert(name.to_owned(), Metadata::default());
        }
        if let Some(metadata) = self.described.get_mut(name) {
            let slot = field(metadata);
            if slot != value {
                value.clone_into(slot);
                if self.new_metadata.last().is_none_or(|n| n != name) {
                    self.new_metadata.push(name.to_owned());
                }
            }
        }
    }

    /// Appends what was parsed (or, after a failure, the ends of all series) and the report series.
    pub(super) fn finish(
        &mut self,
        ingest: &Ingest,
        t_ms: i64,
        duration: f64,
        outcome: &Result<Scraped, String>,
    ) {
        if outcome.is_err() {
            self.round += 1;
            self.known.fail();
        }
        for name in self.new_metadata.drain(..) {
            if let Some(metadata) = self.described.get(&name) {
                ingest.metadata(&name, metadata.clone());
            }
        }
        let (round, others) = (self.round, &mut self.others);
        for (labels, value) in derive::derive(&self.roles) {
            others.push(Sample::float(labels.clone(), t_ms, value));
            self.derived.insert(labels, round);
        }
        self.roles.clear();
        let mut end = |labels| others.push(Sample::float(labels, t_ms, stale_nan()));
        self.known.end_round(&mut end);
        self.derived.retain(|labels, seen| {
            if *seen != round {
                end(labels.clone());
            }
            *seen == round
        });
        let scraped = outcome.as_ref().copied().unwrap_or_default();
        let up = f64::from(u8::from(outcome.is_ok()));
        let values = [
            up,
            duration,
            scraped.samples as f64,
            scraped.samples as f64,
            scraped.added as f64,
        ];
        for (labels, value) in self.reports.iter().zip(values) {
            others.push(Sample::float(labels.clone(), t_ms, value));
        }
        self.append(ingest);
        if !self.exemplars.is_empty() {
            ingest.exemplars(&self.exemplars);
            self.exemplars.clear();
        }
    }

    /// Appends the scrape as one batch.
    fn append(&mut self, ingest: &Ingest) {
        if ingest.by_id().is_some() && self.append_by_id(ingest) {
            self.learn_ids(ingest);
        } else {
            let body = self
                .points
                .iter()
                .map(|p| Sample::float(self.known.get(p.series).labels.clone(), p.t_ms, p.value));
            let all: Vec<Sample> = body.chain(self.others.drain(..)).collect();
            ingest.append(&all);
        }
        self.points.clear();
        self.others.clear();
    }

    /// Whether it was done: not when a series left the store's memory since the scrape before.
    fn append_by_id(&mut self, ingest: &Ingest) -> bool {
        let batch = &mut self.batch;
        batch.clear();
        for point in &self.points {
            let series = self.known.get(point.series);
            match series.id {
                Some(id) => batch.begin_id(id),
                None if batch.begin_labels(&series.labels) => {}
                None => return false,
            }
            batch.push(point.t_ms, point.value);
        }
        for sample in &self.others {
            if !batch.begin_labels(&sample.labels) {
                return false;
            }
            if let Value::Float(value) = sample.value {
                batch.push(sample.t_ms, value);
            }
        }
        let done = ingest.append_packed(batch).is_some();
        if !done {
            for point in &self.points {
                self.known.get_mut(point.series).id = None;
            }
        }
        done
    }

    /// Asks for the ids of series that have none, once after they were appended by their labels.
    fn learn_ids(&mut self, ingest: &Ingest) {
        let Some(store) = ingest.by_id() else { return };
        let first = self.points.first();
        let all_forgotten = first.is_some_and(|p| self.known.get(p.series).id.is_none());
        if !self.known.grew() && !all_forgotten {
            return;
        }
        for point in &self.points {
            let series = self.known.get_mut(point.series);
            if series.id.is_none() {
                series.id = store.find_id(&series.labels);
            }
        }
    }

    /// Ends every series, the report series too: the target is gone.
    pub(super) fn end(&mut self, ingest: &Ingest, t_ms: i64) {
        let tracked = self.known.tracked();
        let all = tracked.chain(self.derived.keys()).chain(&self.reports);
        let batch: Vec<Sample> = all
            .map(|l| Sample::float(l.clone(), t_ms, stale_nan()))
            .collect();
        ingest.append(&batch);
    }
}

/// The series' labels with the target's: of a conflict the body's label is kept as `exported_...`, or wins with
/// `honor_labels`.
fn merge(target: &TargetConfig, pairs: Vec<(String, String)>) -> Labels {
    let mut builder = target.labels.to_builder();
    for (name, value) in pairs {
        if target.honor_labels || target.labels.get(&name).is_none() || value.is_empty() {
            if target.honor_labels || !value.is_empty() {
                builder.set(name, value);
            }
            continue;
        }
        let mut exported = format!("exported_{name}");
        while builder.get(&exported).is_some() {
            exported.insert_str(0, "exported_");
        }
        builder.set(exported, value);
    }
    builder.build()
}

#[cfg(test)]
mod tests;

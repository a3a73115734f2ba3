//! Owns the comparison of slow traces with typical ones: which traces stand for either, and which operation's own time
//! on the critical path grows between them. Pure.

use std::collections::{BTreeMap, HashMap, HashSet};

use model::critical::{CriticalPath, critical_path};
use model::span::{Span, SpanKind, SpanStatus, TraceId, TraceSummary};

use super::{Cause, Kind, Observed, Symptom, ms, percent};

/// Traces of each sort that are read.
const READ: usize = 24;
/// The slowest so many of the sample are slow.
const SLOW_SHARE: f64 = 0.02;
/// Slow traces must be longer than typical ones by this factor and by [`LEAST_NS`].
const LEAST_RATIO: f64 = 1.5;
const LEAST_NS: f64 = 5e6;

/// Which traces stand for what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chosen {
    /// Near the median of their kind of request.
    pub typical: Vec<TraceId>,
    /// Far beyond it.
    pub slow: Vec<TraceId>,
    /// With a failed span.
    pub failed: Vec<TraceId>,
}

/// Chooses traces to read: slow ones by how far they lie beyond the median of their own kind of request, typical ones of
/// the same kinds, from the good seconds when there are such. `good` says whether a start (Unix ns) is in one.
pub fn choose(
    sample: &[TraceSummary],
    slowest: &[TraceSummary],
    failed: &[TraceSummary],
    good: impl Fn(u64) -> bool,
) -> Chosen {
    type Of<'a> = (&'a str, &'a str);
    let kind =
        |t: &'_ TraceSummary| -> (String, String) { (t.root_service.clone(), t.root_name.clone()) };
    let mut kinds: HashMap<(String, String), Vec<&TraceSummary>> = HashMap::new();
    let any_good = sample.iter().filter(|t| good(t.start_ns)).count() >= 10;
    for t in sample.iter().filter(|t| !any_good || good(t.start_ns)) {
        kinds.entry(kind(t)).or_default().push(t);
    }
    for list in kinds.values_mut() {
        list.sort_by_key(|t| (t.duration_ns, t.trace_id));
    }
    let median = |of: &(String, String)| kinds.get(of).map(|l| l[l.len() / 2].duration_ns);
    let mut seen = HashSet::new();
    let all = slowest
        .iter()
        .chain(sample)
        .filter(|t| seen.insert(t.trace_id));
    let mut beyond: Vec<(u64, &TraceSummary)> = all
        .filter_map(|t| Some((t.duration_ns.checked_sub(median(&kind(t))?)?, t)))
        .filter(|(more, _)| *more > 0)
        .collect();
    beyond.sort_by_key(|(more, t)| (std::cmp::Reverse(*more), t.trace_id));
    let count = ((sample.len() as f64 * SLOW_SHARE) as usize)
        .max(2 * READ)
        .min(beyond.len() / 2 + 1);
    beyond.truncate(count);
    let beyond: Vec<&TraceSummary> = beyond.iter().map(|(_, t)| *t).collect();
    // A trace's length counts what goes on after the answer too: twice as many as needed are read, and of those the ones
    // with the longest roots are kept.
    let slow = spread(&beyond, 2 * READ);
    // Typical ones in the proportion in which their kinds are slow.
    let mut wanted: BTreeMap<Of<'_>, usize> = BTreeMap::new();
    for t in &slow {
        *wanted.entry((&t.root_service, &t.root_name)).or_default() += 1;
    }
    let mut typical = Vec::new();
    for ((service, name), n) in wanted {
        let Some(list) = kinds.get(&(service.to_owned(), name.to_owned())) else {
            continue;
        };
        let n = n.min(list.len());
        let from = (list.len() / 2).saturating_sub(n / 2).min(list.len() - n);
        typical.extend(list[from..from + n].iter().map(|t| t.trace_id));
    }
    let failed: Vec<&TraceSummary> = failed.iter().collect();
    Chosen {
        typical,
        slow: slow.iter().map(|t| t.trace_id).collect(),
        failed: spread(&failed, READ).iter().map(|t| t.trace_id).collect(),
    }
}

/// At most so many of a list, evenly.
fn spread<'a>(list: &[&'a TraceSummary], most: usize) -> Vec<&'a TraceSummary> {
    let n = list.len().min(most);
    (0..n).map(|i| list[i * list.len() / n]).collect()
}

/// What part of the system an operation's own time belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Part {
    /// What kind of thing.
    pub kind: Kind,
    /// Which one.
    pub name: String,
}

/// How one operation's own time on the critical path differs between typical and slow requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Growth {
    /// The span's service.
    pub service: String,
    /// The span's name.
    pub name: String,
    /// Where its own time goes.
    pub part: Part,
    /// Mean own time in a typical request, nanoseconds.
    pub typical_ns: f64,
    /// Mean own time in a slow request, nanoseconds.
    pub slow_ns: f64,
    /// Times that it is on the path of a typical request.
    pub typical_calls: f64,
    /// Times that it is on the path of a slow request.
    pub slow_calls: f64,
}

impl Growth {
    fn more(&self) -> f64 {
        self.slow_ns - self.typical_ns
    }
}

/// One trace with its path.
pub(super) struct Read<'a> {
    pub(super) spans: &'a [Span],
    pub(super) path: CriticalPath,
}

impl Read<'_> {
    fn root(&self) -> Option<&Span> {
        self.path.root.map(|i| &self.spans[i])
    }

    fn id(&self) -> Option<TraceId> {
        self.root().map(|s| s.trace_id)
    }

    /// What a span's own time belongs to.
    fn part(&self, index: usize) -> Part {
        let span = &self.spans[index];
        let calls = |i: &usize| {
            self.path.parents[*i] == Some(index) && self.spans[*i].kind == SpanKind::Server
        };
        let part = |kind, name: &str| Part {
            kind,
            name: name.to_owned(),
        };
        match span.kind {
            SpanKind::Client => {
                if let Some(callee) = (0..self.spans.len()).find(calls) {
                    return part(
                        Kind::Hop,
                        &format!("{} -> {}", span.service, self.spans[callee].service),
                    );
                }
                let peer = peer(span);
                match () {
                    () if is_cache(span) => part(Kind::Cache, peer),
                    () if span
                        .attribute("db.system.name")
                        .or(span.attribute("db.system"))
                        .is_some() =>
                    {
                        part(Kind::Database, peer)
                    }
                    () => part(Kind::Dependency, peer),
                }
            }
            SpanKind::Producer => part(Kind::Queue, peer(span)),
            _ => part(Kind::Service, &span.service),
        }
    }
}

/// What a client span calls, as far as it says.
pub(super) fn peer(span: &Span) -> &str {
    let names = [
        "peer.service",
        "db.system.name",
        "db.system",
        "messaging.destination.name",
        "server.address",
        "rpc.service",
    ];
    names
        .iter()
        .find_map(|n| span.attribute(n))
        .unwrap_or(&span.name)
}

/// Whether a name is that of a cache.
pub(super) fn names_a_cache(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["cache", "redis", "valkey", "moka", "caffeine", "hazelcast"]
        .iter()
        .any(|c| name.contains(c))
}

pub(super) fn is_cache(span: &Span) -> bool {
    let says = ["db.system.name", "db.system", "peer.service"];
    says.iter()
        .filter_map(|n| span.attribute(n))
        .any(names_a_cache)
}

/// Those whose roots exceed the typical root of their kind most, at most [`READ`]; none that does not exceed it.
fn longest<'a>(slow: Vec<Read<'a>>, typical: &[Read<'a>]) -> Vec<Read<'a>> {
    let usual = |root: &Span| {
        let same = typical.iter().filter_map(Read::root);
        let same = same.filter(|t| (&t.service, &t.name) == (&root.service, &root.name));
        super::mean(same.map(|t| t.duration_ns() as f64)).unwrap_or(0.0)
    };
    let mut list: Vec<(f64, Read<'a>)> = slow
        .into_iter()
        .filter_map(|t| {
            let root = t.root()?;
            Some((root.duration_ns() as f64 - usual(root), t))
        })
        .filter(|(more, _)| *more > 0.0)
        .collect();
    list.sort_by(|a, b| b.0.total_cmp(&a.0));
    list.truncate(READ);
    list.into_iter().map(|(_, t)| t).collect()
}

/// Slow against typical requests.
pub(super) struct Tail<'a> {
    pub(super) slow: Vec<Read<'a>>,
    pub(super) failed: Vec<Read<'a>>,
    /// Every operation, the one that grows most first.
    pub(super) growth: Vec<Growth>,
    /// Mean length of a typical and of a slow request, nanoseconds.
    pub(super) lengths: (f64, f64),
    typical: usize,
}

impl<'a> Tail<'a> {
    pub(super) fn of(seen: &'a Observed) -> Tail<'a> {
        let by_id: HashMap<TraceId, &[Span]> = seen
            .traces
            .iter()
            .filter_map(|spans| Some((spans.first()?.trace_id, spans.as_slice())))
            .collect();
        let read = |ids: &[TraceId]| -> Vec<Read<'a>> {
            let found = ids.iter().filter_map(|id| by_id.get(id));
            found
                .map(|spans| Read {
                    spans,
                    path: critical_path(spans),
                })
                .collect()
        };
        let (typical, failed) = (read(&seen.chosen.typical), read(&seen.chosen.failed));
        let slow = longest(read(&seen.chosen.slow), &typical);
        let mut rows: HashMap<(String, String, Part), [f64; 4]> = HashMap::new();
        for (at, list) in [(0, &typical), (1, &slow)] {
            for trace in list {
                for (i, own) in trace.path.exclusive_ns().into_iter().enumerate() {
                    if own == 0 {
                        continue;
                    }
                    let key = (
                        trace.spans[i].service.clone(),
                        trace.spans[i].name.clone(),
                        trace.part(i),
                    );
                    let row = rows.entry(key).or_default();
                    row[at] += own as f64 / list.len() as f64;
                    row[at + 2] += 1.0 / list.len() as f64;
                }
            }
        }
        let mut growth: Vec<Growth> = rows
            .into_iter()
            .map(|((service, name, part), row)| Growth {
                service,
                name,
                part,
                typical_ns: row[0],
                slow_ns: row[1],
                typical_calls: row[2],
                slow_calls: row[3],
            })
            .collect();
        growth.sort_by(|a, b| {
            b.more()
                .total_cmp(&a.more())
                .then_with(|| (&a.service, &a.name).cmp(&(&b.service, &b.name)))
        });
        let length = |list: &[Read<'_>]| {
            super::mean(
                list.iter()
                    .filter_map(|t| Some(t.root()?.duration_ns() as f64)),
            )
            .unwrap_or(0.0)
        };
        Tail {
            lengths: (length(&typical), length(&slow)),
            typical: typical.len(),
            slow,
            failed,
            growth,
        }
    }

    /// Whether slow requests are slow enough beside typical ones to ask why.
    pub(super) fn is_long(&self) -> bool {
        let (typical, slow) = self.lengths;
        self.typical >= 3
            && self.slow.len() >= 3
            && slow > typical * LEAST_RATIO
            && slow - typical > LEAST_NS
    }

    /// The share of the slow requests' further time that a part accounts for.
    pub(super) fn share(&self, of: impl Fn(&Part) -> bool) -> f64 {
        let more = |g: &&Growth| g.more() > 0.0;
        let all: f64 = self.growth.iter().filter(more).map(Growth::more).sum();
        let part: f64 = self
            .growth
            .iter()
            .filter(more)
            .filter(|g| of(&g.part))
            .map(Growth::more)
            .sum();
        if all > 0.0 { part / all } else { 0.0 }
    }

    /// Parts that grow at once though they have nothing to do with each other, and a weight: three or more kinds of
    /// thing, each more than twice as slow, none with most of the growth.
    pub(super) fn spread(&self) -> Option<(String, f64)> {
        if !self.is_long() {
            return None;
        }
        let kinds = [
            Kind::Service,
            Kind::Database,
            Kind::Cache,
            Kind::Dependency,
            Kind::Hop,
            Kind::Queue,
        ];
        let grown: Vec<(Kind, f64, f64, f64)> = kinds
            .into_iter()
            .map(|kind| {
                let of = || self.growth.iter().filter(move |g| g.part.kind == kind);
                let (was, is) = (
                    of().map(|g| g.typical_ns).sum(),
                    of().map(|g| g.slow_ns).sum(),
                );
                (kind, self.share(|p| p.kind == kind), was, is)
            })
            .filter(|(_, share, was, is)| *share > 0.1 && *is > 2.0 * was + 2e6)
            .collect();
        let most = grown.iter().map(|g| g.1).fold(0.0, f64::max);
        if grown.len() < 3 || most > 0.7 {
            return None;
        }
        let each = grown
            .iter()
            .map(|(kind, _, was, is)| format!("{} {} to {}", kind.as_str(), ms(*was), ms(*is)));
        let shares: f64 = grown.iter().map(|g| g.1).sum();
        Some((
            each.collect::<Vec<_>>().join(", "),
            0.95 * shares.min(1.0) * self.excess(),
        ))
    }

    /// How much of a slow request is beyond a typical one, 0 to 1.
    pub(super) fn excess(&self) -> f64 {
        let (typical, slow) = self.lengths;
        ((slow - typical) / slow.max(1.0)).clamp(0.0, 1.0)
    }

    /// What slow requests do longer than typical ones in a run of which no second stands out. Requests differ by
    /// themselves: it is no cause.
    pub(super) fn note(&self) -> Option<String> {
        let most = self
            .growth
            .first()
            .filter(|g| g.more() > 0.0 && self.is_long())?;
        Some(format!(
            "slow requests take {}, typical ones {}; most of it in {} {} ({} against {}). That may be how they always are",
            ms(self.lengths.1),
            ms(self.lengths.0),
            most.service,
            most.name,
            ms(most.slow_ns),
            ms(most.typical_ns)
        ))
    }

    /// A cause for each part that accounts for a quarter or more of the further time, in a run with bad seconds.
    pub(super) fn causes(&self, symptom: &Symptom) -> Vec<Cause> {
        if !self.is_long() || !symptom.stands_out() {
            return Vec::new();
        }
        let mut parts: Vec<Part> = self
            .growth
            .iter()
            .filter(|g| g.more() > 0.0)
            .map(|g| g.part.clone())
            .collect();
        parts.sort();
        parts.dedup();
        let each = parts.into_iter().filter_map(|part| {
            let share = self.share(|p| *p == part);
            (share >= 0.25).then(|| self.cause(part, share))
        });
        each.collect()
    }

    fn cause(&self, part: Part, share: f64) -> Cause {
        let rows: Vec<&Growth> = self
            .growth
            .iter()
            .filter(|g| g.part == part && g.more() > 0.0)
            .collect();
        let sum = |get: fn(&Growth) -> f64| -> f64 { rows.iter().map(|g| get(g)).sum() };
        let (typical, slow) = (sum(|g| g.typical_ns), sum(|g| g.slow_ns));
        let (was_calls, calls) = (sum(|g| g.typical_calls), sum(|g| g.slow_calls));
        let further = self.lengths.1 - self.lengths.0;
        let what = match part.kind {
            Kind::Hop => format!(
                "between {} (the network, a proxy, or a queue before the callee)",
                part.name
            ),
            Kind::Service => format!("in {} itself, outside of the calls it makes", part.name),
            Kind::Database | Kind::Cache | Kind::Dependency | Kind::Queue => {
                format!("waiting for {}", part.name)
            }
            _ => part.name.clone(),
        };
        let headline = format!(
            "{} of the {} by which slow requests exceed typical ones are spent {what}: {} typically, {} when slow",
            percent(share),
            ms(further),
            ms(typical),
            ms(slow)
        );
        let mut evidence: Vec<String> = rows
            .iter()
            .filter(|g| g.more() * 20.0 > slow - typical)
            .take(3)
            .map(|g| {
                format!(
                    "{} {}: {} typically, {} when slow",
                    g.service,
                    g.name,
                    ms(g.typical_ns),
                    ms(g.slow_ns)
                )
            })
            .collect();
        // Calls of the same length as before, only more of them: something upstream made them necessary.
        let each = match was_calls > 0.0 {
            true => typical / was_calls,
            false => slow / calls.max(1e-9),
        };
        let by_number = (calls - was_calls) * each / (slow - typical).max(1.0);
        let oftener = calls > was_calls * 1.5 + 0.2 && by_number > 0.4;
        if oftener {
            evidence.push(format!(
                "called {calls:.1} times in a slow request, {was_calls:.1} times in a typical one"
            ));
        }
        let mut cause = Cause {
            kind: part.kind,
            subject: part.name.clone(),
            headline,
            evidence,
            weight: share * self.excess() * if oftener { 0.7 } else { 1.0 },
            trace: self.example(&part),
        };
        if let Some(text) = self.pause(&part) {
            cause.kind = Kind::Pause;
            cause.weight = (cause.weight * 1.1).min(1.0);
            cause.evidence.insert(0, text);
        }
        cause
    }

    /// The slow trace with most of its time in the part.
    fn example(&self, part: &Part) -> Option<TraceId> {
        let own = |t: &Read<'_>| -> u64 {
            let each = t.path.exclusive_ns().into_iter().enumerate();
            each.filter(|(i, ns)| *ns > 0 && t.part(*i) == *part)
                .map(|(_, ns)| ns)
                .sum()
        };
        self.slow.iter().max_by_key(|t| own(t)).and_then(Read::id)
    }

    /// Whether the waits in a part end together though they begin apart: it stood still and went on with all at once.
    fn pause(&self, part: &Part) -> Option<String> {
        let mut waits: Vec<(u64, u64)> = Vec::new();
        for trace in &self.slow {
            let of = trace
                .path
                .segments
                .iter()
                .filter(|s| trace.part(s.span) == *part);
            waits.extend(
                of.max_by_key(|s| s.duration_ns())
                    .map(|s| (s.from_ns, s.to_ns)),
            );
        }
        waits.sort_by_key(|w| w.1);
        let groups = waits.chunk_by(|a, b| b.1 - a.1 <= 30_000_000);
        let stops: Vec<(u64, u64, usize)> = groups
            .filter_map(|group| {
                let from = group.iter().map(|w| w.0).min()?;
                let last = group.iter().map(|w| w.0).max()?;
                let ends = group.last()?.1 - group.first()?.1;
                let stood =
                    group.len() >= 4 && last - from >= 60_000_000 && last - from >= 4 * ends;
                stood.then_some((from, group.last()?.1, group.len()))
            })
            .collect();
        let in_stops: usize = stops.iter().map(|s| s.2).sum();
        if in_stops * 10 < waits.len() * 6 || stops.is_empty() {
            return None;
        }
        let longest = stops.iter().max_by_key(|s| s.1 - s.0)?;
        Some(format!(
            "it stood still: {in_stops} of {} waits began at different times and ended together, in {} stops of up to {}",
            waits.len(),
            stops.len(),
            ms((longest.1 - longest.0) as f64)
        ))
    }
}

/// Where a failed trace failed first: its deepest failed span on which no failed child hangs.
pub(super) fn origin<'t>(trace: &'t Read<'_>) -> Option<&'t Span> {
    let is_failed = |i: usize| trace.spans[i].status == SpanStatus::Error;
    let failed = (0..trace.spans.len()).filter(|i| is_failed(*i));
    let leaf = |i: &usize| {
        !(0..trace.spans.len())
            .any(|c| is_failed(c) && trace.spans[c].parent_id == trace.spans[*i].span_id)
    };
    failed
        .filter(leaf)
        .map(|i| &trace.spans[i])
        .min_by_key(|s| s.start_ns)
}

//! Logs on disk: appended as received, found by service, severity, text, trace id and time.
//!
//! Owns their blocks' footers (which severities and services a block has) and the search. Must not know HTTP.

use model::log::{LogRecord, Severity};
use model::span::TraceId;
use store::StoreError;
use store::spool::{NewBlock, Part, Segments, SegmentsOptions, SegmentsStats};

use super::{MAX_BLOCK_BYTES, MERGED_BLOCK_BYTES, split, steady};
use crate::receive::log_records;

/// Bytes of content that one search reads at most.
const MAX_BYTES_SEARCHED: u64 = 512 << 20;

/// What to look for; every field that is set must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogQuery {
    /// The record's service.
    pub service: Option<String>,
    /// At least this severe.
    pub severity: Option<Severity>,
    /// A part of the body, whatever the case.
    pub text: Option<String>,
    /// The record's trace.
    pub trace_id: Option<TraceId>,
    /// Earliest, Unix nanoseconds.
    pub start_ns: Option<u64>,
    /// Latest, Unix nanoseconds.
    pub end_ns: Option<u64>,
    /// At most so many, newest first.
    pub limit: usize,
}

/// Kept logs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Logs {
    segments: Segments,
}

// === impl Logs ===

impl Logs {
    /// Opens the segments.
    pub fn open(options: SegmentsOptions) -> Result<Self, StoreError> {
        Segments::open(options).map(|segments| Logs { segments })
    }

    /// Keeps an OTLP logs request (already checked). When it returns, the records survive `kill -9`. Returns how many
    /// resources were too large to keep.
    pub fn append(&self, request: &[u8], now_ns: u64) -> Result<usize, StoreError> {
        let (parts, left_out) = split(request, MAX_BLOCK_BYTES);
        for part in parts {
            let footer = Footer::of(part, now_ns)?;
            if footer.extent.records == 0 {
                continue;
            }
            self.segments.append(&NewBlock {
                bytes: part,
                footer: &footer.encode(),
                items: u32::try_from(footer.extent.records).unwrap_or(u32::MAX),
                min_ns: footer.extent.min_ns,
                max_ns: footer.extent.max_ns,
            })?;
        }
        Ok(left_out)
    }

    /// Keeps records that a collector read.
    pub fn append_records(&self, records: &[LogRecord], now_ns: u64) -> Result<(), StoreError> {
        self.append(&log_records::encode(records), now_ns)
            .map(|_| ())
    }

    /// Records that match, newest first. Reads newest blocks first and stops when older ones cannot matter.
    #[must_use]
    pub fn search(&self, query: &LogQuery) -> Vec<LogRecord> {
        steady(&self.segments, || self.search_once(query))
    }

    fn search_once(&self, query: &LogQuery) -> Vec<LogRecord> {
        let from = query.start_ns.unwrap_or(0);
        let to = query.end_ns.unwrap_or(u64::MAX);
        let text = query.text.as_ref().map(|t| t.to_lowercase());
        let mut out: Vec<LogRecord> = Vec::new();
        let mut bytes = 0;
        let mut blocks = self.segments.blocks_between(from, to);
        blocks.sort_by_key(|b| std::cmp::Reverse(b.max_ns));
        for block in blocks {
            let enough = out.len() >= query.limit
                && out
                    .last()
                    .is_some_and(|oldest| oldest.time_ns > block.max_ns);
            if enough || bytes > MAX_BYTES_SEARCHED {
                break;
            }
            let footer = self.segments.footer(block.id);
            if footer.is_ok_and(|f| !may_match(&f, query)) {
                continue;
            }
            let Ok(content) = self.segments.read(block.id) else {
                continue;
            };
            bytes += content.len() as u64;
            // What is malformed was refused on arrival; a damaged block fails its checksum before.
            let _ = log_records::each_record(&content, block.min_ns, |record| {
                if (from..=to).contains(&record.time_ns) && query.matches(&record, text.as_deref())
                {
                    out.push(record);
                }
            });
            out.sort_by_key(|r| std::cmp::Reverse(r.time_ns));
            out.truncate(query.limit);
        }
        out
    }

    /// Deletes what is past retention, and merges the small blocks of one segment.
    pub fn maintain(&self, now_ns: u64) -> Result<(), StoreError> {
        self.segments.maintain(now_ns)?;
        self.segments
            .merge_small(MERGED_BLOCK_BYTES, &mut merged_footer)
            .map(|_| ())
    }

    /// Forces everything to the disk.
    pub fn flush(&self) -> Result<(), StoreError> {
        self.segments.flush()
    }

    /// The segments' counters.
    #[must_use]
    pub fn stats(&self) -> SegmentsStats {
        self.segments.stats()
    }
}

impl LogQuery {
    fn matches(&self, record: &LogRecord, text: Option<&str>) -> bool {
        self.service.as_ref().is_none_or(|s| *s == record.service)
            && self.severity.is_none_or(|s| record.severity >= s)
            && self.trace_id.is_none_or(|t| record.trace_id == t)
            && text.is_none_or(|t| record.body.to_lowercase().contains(t))
    }
}

/// A mask of severities, then the services, each ended by a zero byte.
struct Footer {
    extent: log_records::Extent,
    severities: u8,
    services: std::collections::BTreeSet<String>,
}

impl Footer {
    fn of(request: &[u8], now_ns: u64) -> Result<Self, StoreError> {
        let invalid = |e: model::protobuf::WireError| StoreError::Invalid(e.to_string());
        let mut footer = Footer {
            extent: log_records::walk(request, now_ns).map_err(invalid)?,
            severities: 0,
            services: std::collections::BTreeSet::new(),
        };
        log_records::each_record(request, now_ns, |record| {
            footer.severities |= 1 << record.severity as u8;
            if !footer.services.contains(&record.service) {
                footer.services.insert(record.service);
            }
        })
        .map_err(invalid)?;
        Ok(footer)
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.severities];
        for service in &self.services {
            out.extend_from_slice(service.as_bytes());
            out.push(0);
        }
        if out.len() > store::spool::MAX_FOOTER_BYTES {
            out.clear();
        }
        out
    }
}

/// The footer of several requests one after another, which are one request; `None` when one of them must stay alone: a
/// record without any time has that of its block.
fn merged_footer(parts: &[Part<'_>]) -> Option<Vec<u8>> {
    let whole: Vec<u8> = parts.iter().flat_map(|p| p.bytes).copied().collect();
    let footer = Footer::of(&whole, u64::MAX).ok()?;
    if footer.extent.max_ns == u64::MAX {
        return None;
    }
    Some(footer.encode()).filter(|bytes| !bytes.is_empty())
}

/// Whether a block with this footer can hold a match; yes when the footer does not say.
fn may_match(footer: &[u8], query: &LogQuery) -> bool {
    let Some((severities, services)) = footer.split_first() else {
        return true;
    };
    let severe = query.severity.is_none_or(|s| severities >> (s as u8) != 0);
    let service = query.service.as_ref().is_none_or(|wanted| {
        services
            .split(|b| *b == 0)
            .any(|service| service == wanted.as_bytes())
    });
    severe && service
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(time_ns: u64, service: &str, severity: Severity, body: &str) -> LogRecord {
        LogRecord {
            time_ns,
            severity,
            service: service.into(),
            body: body.into(),
            ..LogRecord::default()
        }
    }

    #[test]
    fn records_are_found_by_what_they_are_and_survive_reopening() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Logs::open(SegmentsOptions::new(dir.path())).unwrap();
        let logs = open();
        logs.append_records(
            &[
                record(10, "order", Severity::Error, "Payment FAILED"),
                record(20, "user", Severity::Info, "login"),
            ],
            0,
        )
        .unwrap();
        logs.append_records(&[record(15, "user", Severity::Warn, "slow")], 0)
            .unwrap();
        drop(logs);
        let logs = open();
        let times = |query: LogQuery| -> Vec<u64> {
            let query = LogQuery { limit: 10, ..query };
            logs.search(&query).iter().map(|r| r.time_ns).collect()
        };
        assert_eq!(times(LogQuery::default()), [20, 15, 10]);
        let service = Some("user".to_owned());
        assert_eq!(
            times(LogQuery {
                service,
                ..LogQuery::default()
            }),
            [20, 15]
        );
        let severity = Some(Severity::Warn);
        assert_eq!(
            times(LogQuery {
                severity,
                ..LogQuery::default()
            }),
            [15, 10]
        );
        let text = Some("failed".to_owned());
        assert_eq!(
            times(LogQuery {
                text,
                ..LogQuery::default()
            }),
            [10]
        );
        let (start_ns, end_ns) = (Some(11), Some(15));
        assert_eq!(
            times(LogQuery {
                start_ns,
                end_ns,
                ..LogQuery::default()
            }),
            [15]
        );
    }

    #[test]
    fn merged_blocks_hold_the_same_records() {
        use model::protobuf::put_bytes;
        let dir = tempfile::tempdir().unwrap();
        let mut options = SegmentsOptions::new(dir.path());
        options.segment_bytes = 1;
        options.compression = store::spool::Compression::None;
        let logs = Logs::open(options).unwrap();
        let body = "a request took longer than it should have ".repeat(4);
        for n in 1..3_000u64 {
            let severity = [Severity::Info, Severity::Error][usize::from(n % 500 == 0)];
            let service = if n < 100 { "old" } else { "new" };
            logs.append_records(&[record(n, service, severity, &body)], 0)
                .unwrap();
        }
        // A record without any time has that of its block.
        let (mut text, mut timeless, mut request) = (Vec::new(), Vec::new(), Vec::new());
        put_bytes(&mut text, 1, b"no time");
        put_bytes(&mut timeless, 5, &text);
        for number in [2, 2, 1] {
            request.clear();
            put_bytes(&mut request, number, &timeless);
            timeless.clone_from(&request);
        }
        assert_eq!(logs.append(&request, 3_000).unwrap(), 0);
        for n in 3_001..5_000u64 {
            logs.append_records(&[record(n, "new", Severity::Info, &body)], 0)
                .unwrap();
        }
        let queries = [
            LogQuery {
                limit: 10_000,
                ..LogQuery::default()
            },
            LogQuery {
                severity: Some(Severity::Error),
                limit: 100,
                ..LogQuery::default()
            },
            LogQuery {
                service: Some("old".into()),
                start_ns: Some(90),
                limit: 100,
                ..LogQuery::default()
            },
            LogQuery {
                text: Some("no time".into()),
                limit: 1,
                ..LogQuery::default()
            },
        ];
        let found = || -> Vec<Vec<LogRecord>> { queries.iter().map(|q| logs.search(q)).collect() };
        let (before, stats) = (found(), logs.stats());
        assert_eq!(
            before.iter().map(Vec::len).collect::<Vec<_>>(),
            [4_999, 5, 10, 1]
        );
        assert_eq!(before[3][0].time_ns, 3_000);
        for _ in 0..stats.segments {
            logs.maintain(0).unwrap();
        }
        assert!(logs.stats().blocks * 2 < stats.blocks, "{:?}", logs.stats());
        assert!(found() == before);
    }
}

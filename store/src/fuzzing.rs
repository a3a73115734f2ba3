//! Entry points for the fuzz targets in `store/fuzz`: each takes arbitrary bytes where the store reads its files, past
//! the checksums that would keep a fuzzer out. Not an API: anything here may change at any time.

use model::{Matcher, Points, SelectRequest};

use crate::block;
use crate::chunk;
use crate::head::{Head, Replay};
use crate::merge;
use crate::record;
use crate::spool;
use crate::wal;

/// A segment's content after a good header: records are found or skipped.
pub fn log_segment(bytes: &[u8]) {
    let mut segment = wal::header_for_fuzzing();
    segment.extend_from_slice(bytes);
    let scan = wal::scan(&segment, 1, |_, _| {});
    assert!(scan.good_end <= segment.len() as u64);
}

/// A record with a good checksum: whatever it says is taken in, and can be read and cut.
pub fn log_record(bytes: &[u8]) {
    let mut head = Head::new(16);
    let _ = record::read(bytes, &mut Replay::new(&mut head, 1_000));
    let request = SelectRequest {
        matchers: &[Matcher::equal("a", "")],
        start_ms: i64::MIN,
        end_ms: i64::MAX,
        max_points: usize::MAX,
    };
    for slot in head.matching(request.matchers) {
        let series = &mut head.slots[slot as usize];
        let mut runs = Vec::new();
        assert!(
            series
                .collect(request.start_ms, request.end_ms, &mut runs)
                .is_ok()
        );
        let before = merge::merge(runs);
        let mut runs = Vec::new();
        let framed = series.cut();
        assert!(crate::frames::collect(&framed, false, (i64::MIN, i64::MAX), &mut runs).is_ok());
        assert_eq!(merge::merge(runs).t_ms, before.t_ms);
    }
}

/// A chunk: decoded or refused; what decodes has ascending times.
pub fn chunk(bytes: &[u8]) {
    let mut points = Points::default();
    if chunk::decode(bytes, i64::MIN, i64::MAX, &mut points).is_ok() {
        assert!(points.t_ms.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(points.t_ms.len(), points.values.len());
    }
}

/// Parts of a block, each with a good checksum.
pub fn block(bytes: &[u8]) {
    let _ = block::format::open_part(bytes);
    let _ = block::format::Footer::read(bytes, 1 << 20);
    let _ = block::read::read_page(bytes, 10, |_| true);
    let _ = block::index::decode_list(bytes, 1_000);
}

/// A line of an import: read or refused; what is read is whole.
pub fn text(bytes: &[u8]) {
    crate::admin::text_for_fuzzing(bytes);
}

/// A segment block of traces or logs.
pub fn spool(bytes: &[u8]) {
    spool::check_for_fuzzing(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for target in [log_segment, log_record, chunk, block, text, spool] {
                target(&bytes);
            }
        }

        /// Small numbers reach further into the formats than random bytes.
        #[test]
        fn small_bytes_do_not_panic(bytes in proptest::collection::vec(0u8..12, 0..400)) {
            for target in [log_segment, log_record, chunk, block, text, spool] {
                target(&bytes);
            }
        }
    }
}

//! Tests of segments: what was appended is read, after restarts, cuts, flips and deletions too.

use super::*;
use proptest::prelude::*;

fn options(dir: &std::path::Path) -> SegmentsOptions {
    SegmentsOptions::new(dir)
}

fn block(i: u64, content: &[u8]) -> NewBlock<'_> {
    NewBlock {
        bytes: content,
        footer: b"footer",
        items: 2,
        min_ns: i * 100,
        max_ns: i * 100 + 50,
    }
}

fn content(i: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|k| (k * (i + 3) / 7) as u8).collect()
}

#[test]
fn blocks_come_back_newest_first_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let mut settings = options(&dir.path().join(format!("{compression:?}")));
        settings.compression = compression;
        let log = Segments::open(settings.clone()).unwrap();
        let ids: Vec<BlockId> = (0..5)
            .map(|i| log.append(&block(i, &content(i, 10_000))).unwrap())
            .collect();
        let before = log.blocks();
        drop(log);
        let log = Segments::open(settings).unwrap();
        assert_eq!(log.blocks(), before);
        assert_eq!(before.iter().map(|b| b.id).rev().collect::<Vec<_>>(), ids);
        for (i, id) in ids.iter().enumerate() {
            assert_eq!(log.read(*id).unwrap(), content(i as u64, 10_000));
            assert_eq!(&*log.footer(*id).unwrap(), b"footer");
        }
        assert_eq!(log.blocks_between(160, 210).len(), 1);
        assert_eq!(log.blocks_between(150, 250).len(), 2);
        let stats = log.stats();
        assert_eq!((stats.blocks, stats.items, stats.torn_bytes), (5, 10, 0));
        log.append(&block(9, b"more")).unwrap();
        assert_eq!(log.blocks().len(), 6);
    }
}

#[test]
fn retention_deletes_the_oldest_segments() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = options(dir.path());
    settings.compression = Compression::None;
    settings.retention_bytes = Some(1 << 20);
    settings.retention_ms = Some(1);
    let log = Segments::open(settings).unwrap();
    let first = log.append(&block(0, &content(0, 100_000))).unwrap();
    for i in 1..40 {
        log.append(&block(i, &content(i, 100_000))).unwrap();
    }
    let stats = log.stats();
    assert!(stats.bytes <= (1 << 20) + 400_000, "{}", stats.bytes);
    assert_eq!(stats.blocks as u64 + stats.expired.blocks, 40);
    assert!(matches!(log.read(first), Err(StoreError::NoSuchBlock)));
    let expired = log.maintain(2_000_000).unwrap();
    assert!(expired.segments > 0);
    assert_eq!((log.stats().segments, log.blocks().len()), (1, 0));
    let id = log.append(&block(30_000, b"new")).unwrap();
    assert_eq!(log.maintain(2_000_000).unwrap(), Expired::default());
    assert_eq!(log.read(id).unwrap(), b"new");
}

#[test]
fn a_full_disk_is_refused_and_recovered_from() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = options(dir.path());
    settings.compression = Compression::None;
    settings.write_budget = WriteBudget::new(2_000);
    let log = Segments::open(settings.clone()).unwrap();
    log.append(&block(0, &content(0, 1_000))).unwrap();
    assert!(
        log.append(&block(1, &content(1, 1_000)))
            .unwrap_err()
            .is_full()
    );
    settings.write_budget.set(u64::MAX);
    let id = log.append(&block(2, &content(2, 1_000))).unwrap();
    assert_eq!(log.read(id).unwrap(), content(2, 1_000));
    drop(log);
    let log = Segments::open(settings).unwrap();
    assert_eq!((log.blocks().len(), log.stats().damaged_bytes), (2, 0));
}

#[test]
fn footers_past_the_cache_are_read_from_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = options(dir.path());
    settings.footer_cache_bytes = 60;
    let log = Segments::open(settings.clone()).unwrap();
    for i in 0..100 {
        log.append(&block(i, b"x")).unwrap();
    }
    assert!(log.stats().cached_footer_bytes <= 60);
    assert!(
        log.blocks()
            .iter()
            .all(|b| &*log.footer(b.id).unwrap() == b"footer")
    );
    drop(log);
    assert!(
        Segments::open(settings)
            .unwrap()
            .stats()
            .cached_footer_bytes
            <= 60
    );
}

/// Four blocks in one file, and that file.
fn written(dir: &std::path::Path) -> (PathBuf, Vec<Vec<u8>>) {
    let log = Segments::open(options(dir)).unwrap();
    let contents: Vec<Vec<u8>> = (0..4).map(|i| content(i, 500)).collect();
    for (i, c) in contents.iter().enumerate() {
        log.append(&block(i as u64, c)).unwrap();
    }
    (dir.join("seg-0000000001.nseg"), contents)
}

#[test]
fn a_torn_tail_is_cut_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let (path, contents) = written(dir.path());
    let whole = std::fs::read(&path).unwrap();
    for cut in (0..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let log = Segments::open(options(dir.path())).unwrap();
        let blocks = log.blocks();
        for (k, b) in blocks.iter().rev().enumerate() {
            assert_eq!(log.read(b.id).unwrap(), contents[k]);
        }
        let good: u64 = blocks.first().map_or(0, |b| b.id.offset);
        assert!(log.stats().torn_bytes <= cut as u64 - good.min(cut as u64));
        assert!(log.append(&block(9, b"after")).is_ok());
        drop(log);
        for (_, extra) in disk::numbered(dir.path(), "seg-", ".nseg").unwrap() {
            std::fs::remove_file(extra).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_flipped_byte_is_never_returned(at in any::<usize>(), flip in 1u8..) {
        let dir = tempfile::tempdir().unwrap();
        let (path, contents) = written(dir.path());
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        std::fs::write(&path, &bytes).unwrap();
        let log = Segments::open(options(dir.path())).unwrap();
        let blocks = log.blocks();
        let mut good = 0;
        for b in &blocks {
            prop_assert_eq!(&*log.footer(b.id).unwrap(), b"footer");
            if let Ok(read) = log.read(b.id) {
                prop_assert!(contents.contains(&read));
                good += 1;
            }
        }
        prop_assert!(good >= 3 || at < format::SEGMENT_HEADER);
    }
}

/// Joins footers, and refuses groups that hold `alone`.
fn join(parts: &[Part<'_>]) -> Option<Vec<u8>> {
    let alone = parts.iter().any(|p| p.footer == b"alone");
    (!alone).then(|| parts.iter().flat_map(|p| p.footer).copied().collect())
}

/// A log of `count` blocks of 300 bytes in closed segments, and an open one.
fn many_small(settings: &SegmentsOptions, count: u64) -> Segments {
    let log = Segments::open(settings.clone()).unwrap();
    for i in 0..count {
        log.append(&block(i, &content(i, 300))).unwrap();
    }
    log
}

fn small_segments(dir: &std::path::Path) -> SegmentsOptions {
    let mut settings = options(dir);
    settings.compression = Compression::None;
    settings.segment_bytes = 1;
    settings.footer_cache_bytes = 2_000;
    settings
}

/// Everything in the log, oldest first.
fn everything(log: &Segments) -> Vec<u8> {
    let mut blocks = log.blocks();
    blocks.reverse();
    let contents = blocks.iter().map(|b| log.read(b.id).unwrap());
    contents.collect::<Vec<_>>().concat()
}

#[test]
fn small_blocks_of_closed_segments_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let settings = small_segments(dir.path());
    let log = many_small(&settings, 2_000);
    let (before, stats) = (everything(&log), log.stats());
    let (old_names, edition) = (log.blocks(), log.edition());
    let mut merged = 0;
    while let Some(one) = log.merge_small(3_000, &mut join).unwrap() {
        assert!(one.blocks_after * 9 <= one.blocks_before, "{one:?}");
        merged += 1;
    }
    assert_eq!(merged, stats.segments - 1);
    assert_eq!(log.edition(), edition + merged as u64);
    let after = log.stats();
    assert_eq!(everything(&log), before);
    assert_eq!(
        (after.items, after.raw_bytes),
        (stats.items, stats.raw_bytes)
    );
    assert_eq!(
        (after.oldest_ns, after.newest_ns),
        (stats.oldest_ns, stats.newest_ns)
    );
    assert!(
        after.blocks * 3 < stats.blocks && after.bytes < stats.bytes,
        "{after:?}"
    );
    assert!(after.cached_footer_bytes <= 2_000);
    let oldest = log.blocks().pop().unwrap();
    assert_eq!((oldest.min_ns, oldest.max_ns, oldest.items), (0, 950, 20));
    assert_eq!(&*log.footer(oldest.id).unwrap(), b"footer".repeat(10));
    // An old name finds nothing, rather than another block.
    let stale = old_names.last().unwrap().id;
    assert_eq!(
        (stale.segment, stale.offset),
        (oldest.id.segment, oldest.id.offset)
    );
    assert!(matches!(log.read(stale), Err(StoreError::NoSuchBlock)));
    assert!(matches!(log.footer(stale), Err(StoreError::NoSuchBlock)));
    drop(log);
    let log = Segments::open(settings).unwrap();
    assert_eq!((everything(&log), log.stats().damaged_bytes), (before, 0));
    assert_eq!(log.merge_small(3_000, &mut join).unwrap(), None);
}

#[test]
fn what_must_stay_apart_and_what_is_damaged_is_not_merged() {
    let dir = tempfile::tempdir().unwrap();
    let settings = small_segments(dir.path());
    let log = Segments::open(settings.clone()).unwrap();
    for i in 0..2_000 {
        let bytes = content(i, 300);
        let footer: &[u8] = if i < 5 { b"alone" } else { b"footer" };
        log.append(&NewBlock {
            footer,
            ..block(i, &bytes)
        })
        .unwrap();
    }
    let before = everything(&log);
    while log.merge_small(3_000, &mut join).unwrap().is_some() {}
    assert_eq!(everything(&log), before);
    let blocks = log.blocks();
    let alone = blocks.iter().rev().take(5);
    assert!(
        alone
            .clone()
            .all(|b| &*log.footer(b.id).unwrap() == b"alone" && b.items == 2)
    );
    drop(log);

    let dir = tempfile::tempdir().unwrap();
    let settings = small_segments(dir.path());
    drop(many_small(&settings, 2_000));
    let path = dir.path().join("seg-0000000001.nseg");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[200] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    let log = Segments::open(settings).unwrap();
    let before = log.blocks().len();
    let mut settled = 0;
    while let Some(one) = log.merge_small(3_000, &mut join).unwrap() {
        settled += usize::from(one == Merged::default());
    }
    assert_eq!(settled, 1, "the damaged segment stays as it is");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
    assert!(log.blocks().len() < before);
}

#[test]
fn a_full_disk_leaves_small_blocks_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let settings = small_segments(dir.path());
    let log = many_small(&settings, 2_000);
    let before = everything(&log);
    settings.write_budget.set(10_000);
    assert!(log.merge_small(3_000, &mut join).unwrap_err().is_full());
    assert_eq!(everything(&log), before);
    assert!(!dir.path().join("seg-0000000001.tmp").exists());
    settings.write_budget.set(u64::MAX);
    assert!(
        log.merge_small(3_000, &mut join)
            .unwrap()
            .is_some_and(|m| m.blocks_after > 0)
    );
    assert_eq!(everything(&log), before);
}

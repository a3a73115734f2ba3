//! Tests of blocks: what was written is found by matchers and read back; damage is an error.

use super::writer::BlockWriter;
use super::*;
use crate::chunk::{Times, encode_floats};
use crate::disk::WriteBudget;
use crate::merge::merge;
use model::{Labels, MatchOp, Matcher};
use proptest::prelude::*;

fn labels(i: usize) -> Labels {
    let (a, b) = (format!("v{}", i % 7), format!("i{i:04}"));
    Labels::from_pairs([("__name__", "m"), ("a", a.as_str()), ("id", b.as_str())])
}

fn value(i: usize, k: usize) -> f64 {
    match i % 4 {
        0 => 7.5,
        1 => (i * k) as f64,
        2 => ((i * k * k) % 100) as f64 / 100.0,
        _ => (k as f64 + 0.1).sqrt(),
    }
}

fn written(dir: &Path, count: usize) -> PathBuf {
    let footer = Footer {
        seq: 4,
        first_seq: 2,
        log_before: 9,
        ..Footer::default()
    };
    let mut writer = BlockWriter::create(dir, footer, &WriteBudget::default()).unwrap();
    let mut all: Vec<usize> = (0..count).collect();
    all.sort_by_key(|i| labels(*i).as_packed().to_owned());
    for i in all {
        let chunks: Vec<Vec<u8>> = (0..2)
            .map(|c| {
                let times: Vec<i64> = (0..60).map(|k| (c * 60 + k) as i64 * 1000).collect();
                let values: Vec<f64> = (0..60).map(|k| value(i, c * 60 + k)).collect();
                let mut chunk = Vec::new();
                encode_floats(&mut chunk, Times::Listed(&times), &[], &values);
                chunk
            })
            .collect();
        writer.add(&labels(i), &chunks).unwrap();
    }
    writer.finish().unwrap()
}

type Read = Vec<(Labels, Vec<(i64, f64)>)>;

fn read(block: &Block, matchers: &[Matcher], bounds: (i64, i64)) -> Result<Read, StoreError> {
    let cache = Cache::new(1 << 20);
    let mut pages = read::Pages::default();
    let mut all = Vec::new();
    block.visit_matching(matchers, &cache, |entry| {
        let mut runs = Vec::new();
        block.collect(&entry, bounds, &mut pages, Some(&cache), &mut runs)?;
        let points = merge(runs);
        all.push((
            entry.labels,
            points.t_ms.into_iter().zip(points.values).collect(),
        ));
        Ok(())
    })?;
    Ok(all)
}

#[test]
fn a_block_gives_back_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let block = Block::open(&written(dir.path(), 300), 4).unwrap();
    assert_eq!((block.footer.samples, block.footer.series), (36_000, 300));
    assert_eq!((block.footer.min_t, block.footer.max_t), (0, 119_000));
    let all = read(&block, &[], (i64::MIN, i64::MAX)).unwrap();
    assert_eq!(all.len(), 300);
    for i in 0..300 {
        let (_, points) = all.iter().find(|(l, _)| *l == labels(i)).unwrap();
        let expected: Vec<(i64, f64)> = (0..120).map(|k| (k as i64 * 1000, value(i, k))).collect();
        assert_eq!(*points, expected);
    }
    let matcher = |name: &str, op, v: &str| Matcher::new(name, op, v).unwrap();
    let found = |m: &[Matcher]| read(&block, m, (59_000, 60_000)).unwrap();
    let one = found(&[matcher("id", MatchOp::Equal, "i0123")]);
    assert_eq!(
        one[0].1,
        [(59_000, value(123, 59)), (60_000, value(123, 60))]
    );
    assert_eq!(found(&[matcher("id", MatchOp::Regex, "i01.*")]).len(), 100);
    let both = [
        matcher("a", MatchOp::NotEqual, "v0"),
        matcher("id", MatchOp::Regex, "i000[0-6]|i0299"),
    ];
    assert_eq!(found(&both).len(), 7);
    assert_eq!(found(&[matcher("nope", MatchOp::Equal, "x")]).len(), 0);
    assert_eq!(found(&[matcher("nope", MatchOp::Equal, "")]).len(), 300);
}

#[test]
fn an_unfinished_block_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let budget = WriteBudget::new(10);
    let writer = BlockWriter::create(dir.path(), Footer::default(), &budget).unwrap();
    assert!(writer.finish().unwrap_err().is_full());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn a_flipped_byte_is_never_a_number(at in any::<usize>(), flip in 1u8..) {
        let dir = tempfile::tempdir().unwrap();
        let path = written(dir.path(), 20);
        let truth = read(&Block::open(&path, 4).unwrap(), &[], (i64::MIN, i64::MAX)).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] ^= flip;
        std::fs::write(&path, &bytes).unwrap();
        let matchers = [Matcher::equal("__name__", "m"), Matcher::new("id", MatchOp::Regex, "i.*").unwrap()];
        for matchers in [&matchers[..], &[]] {
            let whole = Block::open(&path, 4).and_then(|b| read(&b, matchers, (i64::MIN, i64::MAX)));
            match whole {
                Err(error) => prop_assert!(error.to_string().contains("damaged"), "{}", error),
                Ok(whole) => prop_assert_eq!(&whole, &truth),
            }
        }
    }

    #[test]
    fn opening_anything_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = format::open_part(&bytes);
        let _ = Footer::read(&bytes, 1_000);
    }
}

//! The critical path of a trace: which span the root was waiting for at each instant.
//!
//! Owns the walk. Must not know where spans come from, nor what is made of the answer. The algorithm is the one of
//! CRISP (Zhang et al., "CRISP: Critical Path Analysis of Large-Scale Microservice Architectures", USENIX ATC 2022) and
//! of Jaeger's trace page: from the root's end backwards, the child that finished last is what the parent waited for.

use std::collections::HashMap;

use crate::span::{Span, SpanId, SpanKind};

/// A stretch of the root's time and the span that it was spent in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Index of the span in the list that was given.
    pub span: usize,
    /// Its start, Unix nanoseconds by the root's clock.
    pub from_ns: u64,
    /// Its end, Unix nanoseconds by the root's clock; after `from_ns`.
    pub to_ns: u64,
}

impl Segment {
    /// Length in nanoseconds.
    #[must_use]
    pub fn duration_ns(&self) -> u64 {
        self.to_ns - self.from_ns
    }
}

/// The path and the tree that it was found in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CriticalPath {
    /// Index of the root: the earliest span whose parent is not there. None of an empty trace.
    pub root: Option<usize>,
    /// Disjoint stretches in order of time that cover the root exactly.
    pub segments: Vec<Segment>,
    /// By span: its parent's index, when that is part of the root's tree.
    pub parents: Vec<Option<usize>>,
}

impl CriticalPath {
    /// By span: the nanoseconds of the path that were spent in it and in none of its children. They sum up to the
    /// root's duration.
    #[must_use]
    pub fn exclusive_ns(&self) -> Vec<u64> {
        let mut out = vec![0; self.parents.len()];
        for segment in &self.segments {
            out[segment.span] += segment.duration_ns();
        }
        out
    }
}

/// A span's interval, moved onto its parent's clock and cut to what lies within its parent.
#[derive(Debug, Clone, Copy)]
struct Cut {
    span: usize,
    start: u64,
    end: u64,
}

/// The walk's place in one span: everything from `until` on is told.
struct Place {
    cut: Cut,
    until: u64,
    next: usize,
}

/// Finds the critical path. Spans may come in any order; those outside the root's tree, cycles and duplicates of an id
/// do not matter. Children are cut to their parent's interval. A server span that lies outside its client span although
/// it is shorter is moved into its middle first: the clocks of two hosts differ. Consumers do not delay their producer.
/// O(n log n) time, no recursion.
#[must_use]
pub fn critical_path(spans: &[Span]) -> CriticalPath {
    let mut by_id: HashMap<SpanId, usize> = HashMap::with_capacity(spans.len());
    let key = |i: usize| {
        (
            spans[i].start_ns,
            std::cmp::Reverse(spans[i].end_ns),
            spans[i].span_id.0,
        )
    };
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|i| (key(*i), *i));
    for i in &order {
        by_id.entry(spans[*i].span_id).or_insert(*i);
    }
    let parent = |i: usize| {
        let found = by_id.get(&spans[i].parent_id).copied();
        found.filter(|p| *p != i && !spans[i].parent_id.is_zero())
    };
    let root = order.iter().copied().find(|i| parent(*i).is_none());
    let Some(root) = root.or(order.first().copied()) else {
        return CriticalPath::default();
    };
    let mut children: HashMap<usize, Vec<usize>> = HashMap::new();
    for i in &order {
        if let Some(p) = parent(*i).filter(|_| *i != root) {
            children.entry(p).or_default().push(*i);
        }
    }
    let mut parents = vec![None; spans.len()];
    let mut below: HashMap<usize, Vec<Cut>> = HashMap::new();
    let whole = Cut {
        span: root,
        start: spans[root].start_ns,
        end: spans[root].end_ns.max(spans[root].start_ns),
    };
    // Top down: place each span on its parent's clock and cut it. Each span is entered once: a cycle ends.
    let mut todo = vec![(whole, 0_i64)];
    while let Some((cut, shift)) = todo.pop() {
        let Some(list) = children.remove(&cut.span) else {
            continue;
        };
        let mut cuts = Vec::with_capacity(list.len());
        for child in list {
            let (placed, shift) = place(&spans[cut.span], &spans[child], child, &cut, shift);
            parents[child] = Some(cut.span);
            todo.push((placed, shift));
            if placed.start < placed.end && waits_for(&spans[cut.span], &spans[child]) {
                cuts.push(placed);
            }
        }
        cuts.sort_by_key(|c| {
            (
                c.end,
                std::cmp::Reverse(c.start),
                std::cmp::Reverse(key(c.span)),
            )
        });
        below.insert(cut.span, cuts);
    }
    let mut segments = walk(whole, &below);
    segments.reverse();
    CriticalPath {
        root: Some(root),
        segments,
        parents,
    }
}

/// From the root's end backwards; latest segment first.
fn walk(whole: Cut, below: &HashMap<usize, Vec<Cut>>) -> Vec<Segment> {
    let enter = |cut: Cut| Place {
        cut,
        until: cut.end,
        next: below.get(&cut.span).map_or(0, Vec::len),
    };
    let mut out = Vec::new();
    let mut tell = |span: usize, from_ns: u64, to_ns: u64| {
        if from_ns < to_ns {
            out.push(Segment {
                span,
                from_ns,
                to_ns,
            });
        }
    };
    let mut stack = vec![enter(whole)];
    while let Some(at) = stack.last_mut() {
        let cuts = below.get(&at.cut.span).map_or(&[][..], Vec::as_slice);
        let mut child = None;
        while at.next > 0 && child.is_none() {
            at.next -= 1;
            // A child that ended later overlaps with one that is told already: nobody waited for it.
            child = cuts.get(at.next).filter(|c| c.end <= at.until).copied();
        }
        match child {
            Some(child) => {
                tell(at.cut.span, child.end, at.until);
                at.until = child.start;
                stack.push(enter(child));
            }
            None => {
                tell(at.cut.span, at.cut.start, at.until);
                stack.pop();
            }
        }
    }
    out
}

/// The child on the root's clock, within its parent; and how far its clock is to be moved.
fn place(parent: &Span, child: &Span, index: usize, within: &Cut, shift: i64) -> (Cut, i64) {
    let mut shift = shift;
    let moved = |t: u64, by: i64| t.saturating_add_signed(by);
    let hop = parent.kind == SpanKind::Client && child.kind == SpanKind::Server;
    let (start, end) = (moved(child.start_ns, shift), moved(child.end_ns, shift));
    let inside = within.start <= start && end <= within.end;
    let room = (within.end - within.start).checked_sub(child.duration_ns());
    if let Some(room) = room.filter(|_| hop && !inside) {
        let wanted = within.start + room / 2;
        shift = shift
            .saturating_add_unsigned(wanted)
            .saturating_sub_unsigned(start);
    }
    let (start, end) = (moved(child.start_ns, shift), moved(child.end_ns, shift));
    let start = start.clamp(within.start, within.end);
    let cut = Cut {
        span: index,
        start,
        end: end.clamp(start, within.end),
    };
    (cut, shift)
}

fn waits_for(parent: &Span, child: &Span) -> bool {
    !(child.kind == SpanKind::Consumer && parent.kind != SpanKind::Consumer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn span(id: u8, parent: u8, start_ns: u64, end_ns: u64) -> Span {
        Span {
            span_id: SpanId([id; 8]),
            parent_id: SpanId([parent; 8]),
            start_ns,
            end_ns,
            ..Span::default()
        }
    }

    /// `id: from-to` in order of time.
    fn told(spans: &[Span]) -> String {
        let path = critical_path(spans);
        let each = path.segments.iter().map(|s| {
            let id = spans[s.span].span_id.0[0];
            format!("{id}:{}-{}", s.from_ns, s.to_ns)
        });
        each.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn paths_are_as_drawn() {
        for (what, spans, path) in [
            ("alone", vec![span(1, 0, 0, 10)], "1:0-10"),
            (
                "one child",
                vec![span(1, 0, 0, 10), span(2, 1, 2, 6)],
                "1:0-2 2:2-6 1:6-10",
            ),
            (
                "of two at once the later one",
                vec![span(1, 0, 0, 10), span(2, 1, 1, 5), span(3, 1, 2, 8)],
                "1:0-2 3:2-8 1:8-10",
            ),
            (
                "one after the other, touching",
                vec![span(1, 0, 0, 10), span(2, 1, 0, 5), span(3, 1, 5, 10)],
                "2:0-5 3:5-10",
            ),
            (
                "a grandchild",
                vec![span(1, 0, 0, 10), span(2, 1, 1, 9), span(3, 2, 3, 4)],
                "1:0-1 2:1-3 3:3-4 2:4-9 1:9-10",
            ),
            (
                "a child that outlives its parent is cut",
                vec![span(1, 0, 0, 10), span(2, 1, 5, 20)],
                "1:0-5 2:5-10",
            ),
            (
                "a child outside is left out",
                vec![span(1, 0, 0, 10), span(2, 1, 12, 20)],
                "1:0-10",
            ),
            (
                "zero length",
                vec![span(1, 0, 0, 10), span(2, 1, 5, 5)],
                "1:0-10",
            ),
            (
                "no root: a cycle",
                vec![span(1, 2, 0, 4), span(2, 1, 1, 3)],
                "1:0-1 2:1-3 1:3-4",
            ),
            (
                "an orphan is another trace",
                vec![span(1, 9, 0, 4), span(2, 8, 1, 3)],
                "1:0-4",
            ),
            ("nothing", vec![], ""),
            ("negative", vec![span(1, 0, 9, 3)], ""),
        ] {
            assert_eq!(told(&spans), path, "{what}");
        }
    }

    #[test]
    fn a_server_with_another_clock_is_moved_into_its_client() {
        let mut client = span(2, 1, 2, 8);
        client.kind = SpanKind::Client;
        let mut server = span(3, 2, 102, 106);
        server.kind = SpanKind::Server;
        let inner = span(4, 3, 103, 105);
        let all = [span(1, 0, 0, 10), client, server, inner];
        assert_eq!(told(&all), "1:0-2 2:2-3 3:3-4 4:4-6 3:6-7 2:7-8 1:8-10");
    }

    #[test]
    fn a_consumer_does_not_delay_its_producer() {
        let mut consumer = span(2, 1, 2, 10);
        consumer.kind = SpanKind::Consumer;
        assert_eq!(told(&[span(1, 0, 0, 10), consumer]), "1:0-10");
    }

    #[test]
    fn a_deep_trace_needs_no_deep_stack() {
        let chain: Vec<Span> = (0..200_000_u64)
            .map(|i| Span {
                span_id: SpanId((i + 1).to_be_bytes()),
                parent_id: SpanId(i.to_be_bytes()),
                start_ns: i,
                end_ns: 1_000_000 - i,
                ..Span::default()
            })
            .collect();
        let path = critical_path(&chain);
        let total: u64 = path.segments.iter().map(Segment::duration_ns).sum();
        assert_eq!(total, 1_000_000);
    }

    /// Any trace: parents are any spans, intervals lie anywhere, kinds are mixed.
    fn traces() -> impl Strategy<Value = Vec<Span>> {
        let one = (0_u8..12, 0_u64..1000, 0_u64..400, 0_u8..4);
        proptest::collection::vec(one, 1..12).prop_map(|list| {
            let each = list.into_iter().zip(1_u8..);
            each.map(|((parent, start, length, kind), id)| Span {
                kind: SpanKind::from_otlp(u64::from(kind)),
                ..span(id, parent, 10_000 + start, 10_000 + start + length)
            })
            .collect()
        })
    }

    /// What an elementary interval was spent in, asked from the root down: the slow oracle. No clocks differ.
    fn oracle(spans: &[Span], root: usize, at: u64) -> usize {
        let (mut here, mut low, mut high) = (root, spans[root].start_ns, spans[root].end_ns);
        let mut seen = vec![root];
        loop {
            let mut cuts: Vec<(u64, u64, usize)> = (0..spans.len())
                .filter(|i| spans[*i].parent_id == spans[here].span_id && !seen.contains(i))
                .map(|i| {
                    let start = spans[i].start_ns.clamp(low, high);
                    (start, spans[i].end_ns.clamp(start, high), i)
                })
                .filter(|(start, end, _)| start < end)
                .collect();
            let mut until = high;
            let mut chosen = None;
            while let Some(best) = cuts
                .iter()
                .copied()
                .filter(|(_, end, _)| *end <= until)
                .max_by_key(|(start, end, i)| {
                    (
                        *end,
                        std::cmp::Reverse(*start),
                        std::cmp::Reverse((
                            spans[*i].start_ns,
                            std::cmp::Reverse(spans[*i].end_ns),
                            spans[*i].span_id.0,
                        )),
                    )
                })
            {
                cuts.retain(|c| *c != best);
                until = best.0;
                if best.0 <= at && at < best.1 {
                    chosen = Some(best);
                    break;
                }
            }
            let Some((start, end, child)) = chosen else {
                return here;
            };
            (here, low, high) = (child, start, end);
            seen.push(child);
        }
    }

    proptest! {
        #[test]
        fn segments_cover_the_root_exactly(spans in traces()) {
            let path = critical_path(&spans);
            let root = path.root.unwrap();
            let mut at = spans[root].start_ns;
            for segment in &path.segments {
                prop_assert_eq!(segment.from_ns, at);
                prop_assert!(segment.from_ns < segment.to_ns);
                at = segment.to_ns;
            }
            prop_assert_eq!(at, spans[root].end_ns);
            prop_assert_eq!(path.exclusive_ns().iter().sum::<u64>(), spans[root].duration_ns());
        }

        #[test]
        fn order_shift_and_scale_do_not_matter(mut spans in traces(), by in 0_u64..1000, turn in 0_usize..12) {
            // A span that is moved goes to its client's middle. Each of at most 11 nested moves halves once: with this
            // factor every middle is a whole nanosecond, and the law is exact.
            for s in &mut spans {
                (s.start_ns, s.end_ns) = (s.start_ns << 11, s.end_ns << 11);
            }
            let ids = |spans: &[Span]| -> Vec<(u8, u64, u64)> {
                let path = critical_path(spans);
                path.segments.iter().map(|s| (spans[s.span].span_id.0[0], s.from_ns, s.to_ns)).collect()
            };
            let before = ids(&spans);
            let mut other = spans.clone();
            other.rotate_left(turn % spans.len());
            other.reverse();
            prop_assert_eq!(ids(&other), before.clone());
            for s in &mut other {
                (s.start_ns, s.end_ns) = (s.start_ns * 2 + by, s.end_ns * 2 + by);
            }
            let moved: Vec<_> = ids(&other).into_iter().map(|(id, a, b)| (id, (a - by) / 2, (b - by) / 2)).collect();
            prop_assert_eq!(moved, before);
        }

        #[test]
        fn a_child_off_the_path_may_go(spans in traces()) {
            let path = critical_path(&spans);
            let used = path.exclusive_ns();
            let is_parent = |i: usize| path.parents.contains(&Some(i));
            let idle = (0..spans.len()).find(|i| used[*i] == 0 && path.root != Some(*i) && !is_parent(*i) && path.parents[*i].is_some());
            if let Some(idle) = idle {
                let mut fewer = spans.clone();
                fewer.remove(idle);
                prop_assert_eq!(told(&fewer), told(&spans));
            }
        }

        #[test]
        fn each_instant_is_where_the_root_waits(mut spans in traces()) {
            spans.iter_mut().for_each(|s| s.kind = SpanKind::Internal);
            let path = critical_path(&spans);
            let root = path.root.unwrap();
            prop_assume!(spans.iter().any(|s| s.span_id == spans[root].span_id));
            for segment in &path.segments {
                prop_assert_eq!(oracle(&spans, root, segment.from_ns), segment.span);
                prop_assert_eq!(oracle(&spans, root, segment.to_ns - 1), segment.span);
            }
        }
    }
}

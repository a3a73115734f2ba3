//! Chunks one after another in one piece of memory, walked from either end.
//!
//! Owns the frame: length, chunk, and one byte by which the walk goes back. Must not know series. Never on disk.

use crate::chunk;
use crate::merge::{self, Run};
use crate::wire::{Damaged, Reader, put_varint};

/// The last byte of a frame whose length does not fit in it.
const LONG: u8 = u8::MAX;

/// Bytes that a frame of a chunk shorter than 16 KiB has besides the chunk, at most.
pub(crate) const MAX_FRAME_BYTES: usize = 3;

/// Appends a chunk. Takes no more memory than it needs.
pub(crate) fn append(frames: &mut Vec<u8>, chunk: &[u8]) {
    let len = chunk.len() as u64;
    let length_bytes = (64 - (len | 1).leading_zeros()).div_ceil(7) as usize;
    let whole = length_bytes + chunk.len();
    frames.reserve_exact(whole + 1);
    put_varint(frames, len);
    frames.extend_from_slice(chunk);
    frames.push(u8::try_from(whole).unwrap_or(LONG));
}

/// The chunks, first to last.
pub(crate) struct Frames<'a> {
    reader: Reader<'a>,
}

// === impl Frames ===

impl<'a> Frames<'a> {
    pub(crate) fn new(frames: &'a [u8]) -> Self {
        Frames {
            reader: Reader::new(frames),
        }
    }

    /// The frames that are still to come.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.reader.rest()
    }

    /// The chunks from the first one on that may end at `start` or later, of chunks whose times ascend.
    pub(crate) fn from(frames: &'a [u8], start: i64) -> Self {
        let mut rest = frames;
        while let Some((last, before)) = rest.split_last() {
            let len = *last as usize;
            if *last == LONG || len > before.len() {
                return Frames::new(frames);
            }
            let at = before.len() - len;
            let frame = &mut Reader::new(&before[at..]);
            let header = frame.uvarint().and_then(|_| chunk::read_header(frame));
            if header.is_ok_and(|h| h.max_t < start) {
                return Frames::new(&frames[rest.len()..]);
            }
            rest = &frames[..at];
        }
        Frames::new(frames)
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a [u8], Damaged>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let next = self.reader.bytes();
        let back = self.reader.byte();
        if next.is_err() || back.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(next.and_then(|chunk| back.map(|_| chunk)))
    }
}

/// The chunks that may begin at `end` or earlier, of chunks whose times ascend.
pub(crate) fn until(frames: &[u8], end: i64) -> &[u8] {
    let mut all = Frames::new(frames);
    loop {
        let before = all.rest().len();
        let Some(chunk) = all.next() else {
            return frames;
        };
        let header = chunk.and_then(|c| chunk::read_header(&mut Reader::new(c)));
        if header.is_ok_and(|h| h.min_t > end) {
            return &frames[..frames.len() - before];
        }
    }
}

/// Appends the runs that hold the samples in `start..=end`. With `ascending` the chunks' times ascend from chunk to
/// chunk, so that those before and after need not be looked at.
pub(crate) fn collect(
    frames: &[u8],
    ascending: bool,
    (start, end): (i64, i64),
    runs: &mut Vec<Run>,
) -> Result<(), Damaged> {
    let all = match ascending {
        true => Frames::from(frames, start),
        false => Frames::new(frames),
    };
    for chunk in all {
        let past = merge::decode_into(chunk?, start, end, runs)?;
        if ascending && past {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::{Times, encode_floats};
    use crate::merge::merge;

    #[test]
    fn a_walk_from_the_end_finds_what_one_from_the_front_does() {
        let mut frames = Vec::new();
        let mut t = 0;
        for k in 0..60usize {
            let count = if k % 9 == 4 { 400 } else { 1 + k % 7 };
            let times: Vec<i64> = (0..count as i64).map(|i| t + i * 10).collect();
            let values: Vec<f64> = times.iter().map(|t| (*t as f64).sqrt()).collect();
            let mut chunk = Vec::new();
            encode_floats(&mut chunk, Times::Listed(&times), &[], &values);
            append(&mut frames, &chunk);
            t += count as i64 * 10;
        }
        for start in (-20..t + 30).step_by(35) {
            for end in [start, start + 100, t] {
                let read = |ascending| {
                    let mut runs = Vec::new();
                    collect(&frames, ascending, (start, end), &mut runs).expect("own bytes");
                    merge(runs)
                };
                assert_eq!(read(true), read(false), "{start}..={end}");
                let mut runs = Vec::new();
                let copied = until(Frames::from(&frames, start).rest(), end);
                collect(copied, true, (start, end), &mut runs).expect("own bytes");
                assert_eq!(merge(runs), read(false), "{start}..={end}");
            }
        }
        assert_eq!(Frames::new(&frames).count(), 60);
    }
}

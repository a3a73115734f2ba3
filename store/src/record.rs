//! What one log record says: new series, samples, exemplars, metadata of one batch.
//!
//! Owns the payload of a record (docs/store-format.md, "Batch record"). Must not know files, nor whether what it says
//! is accepted: replay decides again, from the same state, and so decides the same.

use std::sync::Arc;

use model::source::{Exemplar, Metadata};
use model::{Labels, NativeHistogram, STALE_NAN_BITS};

use crate::chunk::histogram;
use crate::wire::{
    Damaged, Reader, as_exact_integer, put_bytes, put_ivarint, put_number, put_varint, zigzag,
};

/// Room that a section keeps from batch to batch: one that introduces many series is the exception.
pub(crate) const KEPT_BYTES: usize = 256 << 10;

const SERIES: u8 = 1;
const FLOATS: u8 = 2;
const HISTOGRAMS: u8 = 3;
const EXEMPLARS: u8 = 4;
const METADATA: u8 = 5;
const STARTED_HISTOGRAMS: u8 = 6;

const SLOT_MASK: u8 = 0b11;
const SLOT_NEXT: u8 = 0;
const SLOT_DELTA: u8 = 1;
const SLOT_SAME: u8 = 2;
const TIME_DELTA: u8 = 0b100;
const VALUE_MASK: u8 = 0b11000;
const VALUE_ZERO: u8 = 0;
const VALUE_INTEGER: u8 = 0b01000;
const VALUE_BITS: u8 = 0b10000;
const VALUE_STALE: u8 = 0b11000;
const START_MASK: u8 = 0b110_0000;
const START_SAME: u8 = 0b010_0000;
const START_DELTA: u8 = 0b100_0000;

const HAS_LAST: u8 = 1;
const OVERFLOW: u8 = 2;

/// A series as the log introduces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) slot: u32,
    pub(crate) last_t: Option<i64>,
    pub(crate) overflow: bool,
    pub(crate) labels: Labels,
}

/// Room for one float sample: its control byte and four varints.
const FLOAT_ROOM: usize = 64;

/// Collects one record's payload. Reused from batch to batch.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    series: Vec<u8>,
    /// Longer than what is in it, so that a sample is written with one look at the room there is.
    floats: Vec<u8>,
    floats_len: usize,
    histograms: Vec<u8>,
    exemplars: Vec<u8>,
    metadata: Vec<u8>,
    last_slot: u32,
    last_t: i64,
    last_start: i64,
    run: u32,
}

// === impl Batch ===

impl Batch {
    /// Slots in the log mean something within one run only: a definition that is lost can then never lend its slot's
    /// samples to another series.
    pub(crate) fn new(run: u32) -> Self {
        let mut batch = Batch {
            run,
            ..Batch::default()
        };
        batch.clear();
        batch
    }

    pub(crate) fn clear(&mut self) {
        self.floats.truncate(KEPT_BYTES);
        self.floats.shrink_to(KEPT_BYTES);
        self.floats_len = 0;
        for section in [
            &mut self.series,
            &mut self.histograms,
            &mut self.exemplars,
            &mut self.metadata,
        ] {
            section.clear();
            section.shrink_to(KEPT_BYTES);
        }
        self.last_slot = u32::MAX;
        self.last_t = 0;
        self.last_start = 0;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes() == 0
    }

    /// About how many bytes the payload takes.
    pub(crate) fn bytes(&self) -> usize {
        self.sections().iter().map(|(_, bytes)| bytes.len()).sum()
    }

    fn sections(&self) -> [(u8, &[u8]); 5] {
        [
            (SERIES, &self.series),
            (FLOATS, &self.floats[..self.floats_len]),
            (EXEMPLARS, &self.exemplars),
            (METADATA, &self.metadata),
            (STARTED_HISTOGRAMS, &self.histograms),
        ]
    }

    pub(crate) fn define(
        &mut self,
        slot: u32,
        last_t: Option<i64>,
        overflow: bool,
        labels: &Labels,
    ) {
        let out = &mut self.series;
        put_varint(out, u64::from(slot));
        let has_last = if last_t.is_some() { HAS_LAST } else { 0 };
        out.push(has_last | if overflow { OVERFLOW } else { 0 });
        if let Some(t) = last_t {
            put_ivarint(out, t);
        }
        put_bytes(out, labels.as_packed().as_bytes());
    }

    #[inline]
    pub(crate) fn float(&mut self, slot: u32, t_ms: i64, start_ms: i64, value: f64) {
        let slot_mode = if slot == self.last_slot.wrapping_add(1) {
            SLOT_NEXT
        } else if slot == self.last_slot {
            SLOT_SAME
        } else {
            SLOT_DELTA
        };
        let time_mode = if t_ms == self.last_t { 0 } else { TIME_DELTA };
        let integer = as_exact_integer(value);
        let value_mode = match integer {
            Some(0) => VALUE_ZERO,
            Some(_) => VALUE_INTEGER,
            None if value.to_bits() == STALE_NAN_BITS => VALUE_STALE,
            None => VALUE_BITS,
        };
        let start_mode = if start_ms == 0 {
            0
        } else if start_ms == self.last_start {
            START_SAME
        } else {
            START_DELTA
        };
        if self.floats.len() < self.floats_len + FLOAT_ROOM {
            self.grow_floats();
        }
        let Some(out) = self.floats[self.floats_len..].first_chunk_mut::<FLOAT_ROOM>() else {
            return;
        };
        out[0] = slot_mode | time_mode | value_mode | start_mode;
        let mut len = 1;
        if slot_mode == SLOT_DELTA {
            place_ivarint(out, &mut len, i64::from(slot) - i64::from(self.last_slot));
        }
        if time_mode == TIME_DELTA {
            place_ivarint(out, &mut len, t_ms.wrapping_sub(self.last_t));
        }
        if start_mode == START_DELTA {
            place_ivarint(out, &mut len, start_ms.wrapping_sub(self.last_start));
            self.last_start = start_ms;
        }
        match value_mode {
            VALUE_INTEGER => place_ivarint(out, &mut len, integer.unwrap_or(0)),
            VALUE_BITS => {
                out[len..len + 8].copy_from_slice(&value.to_bits().to_le_bytes());
                len += 8;
            }
            _ => {}
        }
        self.floats_len += len;
        self.last_slot = slot;
        self.last_t = t_ms;
    }

    #[cold]
    fn grow_floats(&mut self) {
        let len = (self.floats.len() * 2).max(4096);
        self.floats.resize(len, 0);
    }

    pub(crate) fn histogram(
        &mut self,
        slot: u32,
        t_ms: i64,
        start_ms: i64,
        value: &NativeHistogram,
    ) {
        put_varint(&mut self.histograms, u64::from(slot));
        put_ivarint(&mut self.histograms, t_ms);
        put_ivarint(&mut self.histograms, start_ms);
        histogram::encode_one(&mut self.histograms, value, None);
    }

    pub(crate) fn exemplar(&mut self, slot: u32, exemplar: &Exemplar) {
        let out = &mut self.exemplars;
        put_varint(out, u64::from(slot));
        put_ivarint(out, exemplar.t_ms);
        put_number(out, exemplar.value);
        put_bytes(out, exemplar.labels.as_packed().as_bytes());
    }

    pub(crate) fn metadata(&mut self, name: &str, metadata: &Metadata) {
        for text in [name, &metadata.kind, &metadata.help, &metadata.unit] {
            put_bytes(&mut self.metadata, text.as_bytes());
        }
    }

    /// Appends the payload.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        put_varint(out, u64::from(self.run));
        for (tag, bytes) in self.sections() {
            if !bytes.is_empty() {
                out.push(tag);
                put_bytes(out, bytes);
            }
        }
    }
}

/// Writes a signed integer, as [`put_ivarint`] does.
#[inline]
fn place_ivarint(out: &mut [u8; FLOAT_ROOM], len: &mut usize, value: i64) {
    let mut rest = zigzag(value);
    // Four varints and a byte are less than the room: the mask changes nothing and saves a check.
    while rest >= 0x80 {
        out[*len % FLOAT_ROOM] = rest as u8 | 0x80;
        rest >>= 7;
        *len += 1;
    }
    out[*len % FLOAT_ROOM] = rest as u8;
    *len += 1;
}

/// What takes in a record's content, in the order series, floats, exemplars, metadata, histograms.
pub(crate) trait Visitor {
    fn run(&mut self, run: u32);
    fn series(&mut self, definition: Definition);
    fn float(&mut self, slot: u32, t_ms: i64, start_ms: i64, value: f64);
    fn histogram(&mut self, slot: u32, t_ms: i64, start_ms: i64, value: Arc<NativeHistogram>);
    fn exemplar(&mut self, slot: u32, exemplar: Exemplar);
    fn metadata(&mut self, name: String, metadata: Metadata);
}

/// Reads a payload. On damage what came before it has been visited; the record's checksum makes that a matter of
/// crafted files only.
pub(crate) fn read(payload: &[u8], visitor: &mut impl Visitor) -> Result<(), Damaged> {
    let mut reader = Reader::new(payload);
    visitor.run(read_slot(&mut reader)?);
    let mut last_tag = 0;
    while !reader.is_empty() {
        let tag = reader.byte()?;
        if tag <= last_tag || tag > STARTED_HISTOGRAMS {
            return Err(Damaged("unknown or repeated section"));
        }
        last_tag = tag;
        let mut section = Reader::new(reader.bytes()?);
        match tag {
            SERIES => read_series(&mut section, visitor)?,
            FLOATS => read_floats(&mut section, visitor)?,
            HISTOGRAMS | STARTED_HISTOGRAMS => {
                while !section.is_empty() {
                    let (slot, t_ms) = (read_slot(&mut section)?, section.ivarint()?);
                    let started = tag == STARTED_HISTOGRAMS;
                    let start_ms = if started { section.ivarint()? } else { 0 };
                    let value = histogram::decode_one(&mut section, None)?;
                    visitor.histogram(slot, t_ms, start_ms, Arc::new(value));
                }
            }
            EXEMPLARS => read_exemplars(&mut section, visitor)?,
            _ => {
                while !section.is_empty() {
                    let name = section.text()?.to_owned();
                    let (kind, help) = (section.text()?.to_owned(), section.text()?.to_owned());
                    let unit = section.text()?.to_owned();
                    visitor.metadata(name, Metadata { kind, help, unit });
                }
            }
        }
    }
    Ok(())
}

fn read_slot(section: &mut Reader<'_>) -> Result<u32, Damaged> {
    u32::try_from(section.uvarint()?).map_err(|_| Damaged("a series number is too large"))
}

fn read_labels(section: &mut Reader<'_>) -> Result<Labels, Damaged> {
    Labels::from_packed(section.text()?).map_err(|_| Damaged("labels are not packed labels"))
}

fn read_series(section: &mut Reader<'_>, visitor: &mut impl Visitor) -> Result<(), Damaged> {
    while !section.is_empty() {
        let slot = read_slot(section)?;
        let flags = section.byte()?;
        if flags & !(HAS_LAST | OVERFLOW) != 0 {
            return Err(Damaged("unknown series flags"));
        }
        let last_t = if flags & HAS_LAST != 0 {
            Some(section.ivarint()?)
        } else {
            None
        };
        visitor.series(Definition {
            slot,
            last_t,
            overflow: flags & OVERFLOW != 0,
            labels: read_labels(section)?,
        });
    }
    Ok(())
}

fn read_floats(section: &mut Reader<'_>, visitor: &mut impl Visitor) -> Result<(), Damaged> {
    let (mut slot, mut t_ms, mut last_start) = (u32::MAX, 0i64, 0i64);
    while !section.is_empty() {
        let control = section.byte()?;
        if control & !(SLOT_MASK | TIME_DELTA | VALUE_MASK | START_MASK) != 0 {
            return Err(Damaged("unknown sample flags"));
        }
        slot = match control & SLOT_MASK {
            SLOT_NEXT => slot.wrapping_add(1),
            SLOT_SAME => slot,
            SLOT_DELTA => u32::try_from(i64::from(slot).wrapping_add(section.ivarint()?))
                .map_err(|_| Damaged("a series number is out of range"))?,
            _ => return Err(Damaged("unknown sample flags")),
        };
        if control & TIME_DELTA != 0 {
            t_ms = t_ms.wrapping_add(section.ivarint()?);
        }
        let start_ms = match control & START_MASK {
            0 => 0,
            START_SAME => last_start,
            START_DELTA => {
                last_start = last_start.wrapping_add(section.ivarint()?);
                last_start
            }
            _ => return Err(Damaged("unknown sample flags")),
        };
        let value = match control & VALUE_MASK {
            VALUE_ZERO => 0.0,
            VALUE_INTEGER => section.ivarint()? as f64,
            VALUE_STALE => f64::from_bits(STALE_NAN_BITS),
            _ => f64::from_bits(section.u64()?),
        };
        visitor.float(slot, t_ms, start_ms, value);
    }
    Ok(())
}

fn read_exemplars(section: &mut Reader<'_>, visitor: &mut impl Visitor) -> Result<(), Damaged> {
    while !section.is_empty() {
        let slot = read_slot(section)?;
        let t_ms = section.ivarint()?;
        let value = section.number()?;
        let labels = read_labels(section)?;
        let exemplar = Exemplar {
            labels,
            value,
            t_ms,
        };
        visitor.exemplar(slot, exemplar);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Default, PartialEq)]
    struct Seen {
        series: Vec<Definition>,
        floats: Vec<(u32, i64, i64, u64)>,
        histograms: Vec<(u32, i64, i64)>,
        exemplars: Vec<(u32, Exemplar)>,
        metadata: Vec<(String, Metadata)>,
    }

    impl Visitor for Seen {
        fn run(&mut self, run: u32) {
            assert_eq!(run, 77);
        }
        fn series(&mut self, definition: Definition) {
            self.series.push(definition);
        }
        fn float(&mut self, slot: u32, t_ms: i64, start_ms: i64, value: f64) {
            self.floats.push((slot, t_ms, start_ms, value.to_bits()));
        }
        fn histogram(&mut self, slot: u32, t_ms: i64, start_ms: i64, _: Arc<NativeHistogram>) {
            self.histograms.push((slot, t_ms, start_ms));
        }
        fn exemplar(&mut self, slot: u32, exemplar: Exemplar) {
            self.exemplars.push((slot, exemplar));
        }
        fn metadata(&mut self, name: String, metadata: Metadata) {
            self.metadata.push((name, metadata));
        }
    }

    proptest! {
        #[test]
        fn a_batch_round_trips(
            floats in proptest::collection::vec((0u32..50, any::<i64>(), prop_oneof![Just(0), Just(7), any::<i64>()], any::<u64>()), 0..60),
            integers in proptest::collection::vec((any::<u32>(), any::<i32>()), 0..60),
        ) {
            let mut batch = Batch::new(77);
            let mut expected = Seen::default();
            let labels = Labels::from_pairs([("__name__", "up")]);
            batch.define(7, Some(-3), true, &labels);
            expected.series.push(Definition { slot: 7, last_t: Some(-3), overflow: true, labels: labels.clone() });
            for (slot, t, start, bits) in floats {
                batch.float(slot, t, start, f64::from_bits(bits));
                expected.floats.push((slot, t, start, bits));
            }
            for (slot, value) in integers {
                batch.float(slot, 5, 0, f64::from(value));
                expected.floats.push((slot, 5, 0, f64::from(value).to_bits()));
            }
            batch.histogram(1, 2, -3, &NativeHistogram::default());
            expected.histograms.push((1, 2, -3));
            let exemplar = Exemplar { labels, value: 0.25, t_ms: 9 };
            batch.exemplar(7, &exemplar);
            expected.exemplars.push((7, exemplar));
            let metadata = Metadata { kind: "gauge".into(), help: "h".into(), unit: String::new() };
            batch.metadata("up", &metadata);
            expected.metadata.push(("up".into(), metadata));
            let mut out = Vec::new();
            batch.write(&mut out);
            let mut seen = Seen::default();
            prop_assert_eq!(read(&out, &mut seen), Ok(()));
            prop_assert_eq!(seen, expected);
        }

        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [&[77], bytes.as_slice()].concat();
            let _ = read(&bytes, &mut Seen::default());
        }
    }
}

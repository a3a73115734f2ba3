//! Owns HPACK (RFC 7541) for a client: header fields to bytes, with a table kept per connection, and back.
//! Bounded: a block is at most [`MAX_LIST`] when decoded. Must not know frames or streams.

use std::collections::VecDeque;

use super::huffman;

/// The most a decoded header list may take, in bytes, counted as RFC 7541 counts (32 more for each field).
pub(crate) const MAX_LIST: usize = 256 << 10;
/// The table size both sides begin with.
const TABLE: usize = 4096;
/// Name and value.
type Entry = (Box<[u8]>, Box<[u8]>);

/// What a table entry costs besides its text.
const ENTRY: usize = 32;

/// Names, and values where they have one, of the static table (appendix A).
#[rustfmt::skip]
const STATIC: [(&str, &str); 61] = [
    (":authority", ""), (":method", "GET"), (":method", "POST"), (":path", "/"), (":path", "/index.html"),
    (":scheme", "http"), (":scheme", "https"), (":status", "200"), (":status", "204"), (":status", "206"),
    (":status", "304"), (":status", "400"), (":status", "404"), (":status", "500"), ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"), ("accept-language", ""), ("accept-ranges", ""), ("accept", ""),
    ("access-control-allow-origin", ""), ("age", ""), ("allow", ""), ("authorization", ""), ("cache-control", ""),
    ("content-disposition", ""), ("content-encoding", ""), ("content-language", ""), ("content-length", ""),
    ("content-location", ""), ("content-range", ""), ("content-type", ""), ("cookie", ""), ("date", ""), ("etag", ""),
    ("expect", ""), ("expires", ""), ("from", ""), ("host", ""), ("if-match", ""), ("if-modified-since", ""),
    ("if-none-match", ""), ("if-range", ""), ("if-unmodified-since", ""), ("last-modified", ""), ("link", ""),
    ("location", ""), ("max-forwards", ""), ("proxy-authenticate", ""), ("proxy-authorization", ""), ("range", ""),
    ("referer", ""), ("refresh", ""), ("retry-after", ""), ("server", ""), ("set-cookie", ""),
    ("strict-transport-security", ""), ("transfer-encoding", ""), ("user-agent", ""), ("vary", ""), ("via", ""),
    ("www-authenticate", ""),
];

/// Why a header block cannot be read. The connection cannot go on: its table is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Broken encoding, with what is wrong.
    Broken(&'static str),
    /// More than [`MAX_LIST`].
    TooLong,
}

/// Reads header blocks of one connection.
pub(crate) struct Decoder {
    table: VecDeque<Entry>,
    size: usize,
    max: usize,
    name: Vec<u8>,
    value: Vec<u8>,
    /// Raised with each change of the table.
    changes: u64,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder {
            table: VecDeque::new(),
            size: 0,
            max: TABLE,
            name: Vec::new(),
            value: Vec::new(),
            changes: 0,
        }
    }

    /// How often the table changed: a block that left it as it was reads the same while it stays so.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// Calls `each` with every name and value of the block, in order.
    pub(crate) fn decode(
        &mut self,
        block: &[u8],
        each: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), Unreadable> {
        let mut rest = block;
        let (mut total, mut fields) = (0, 0_usize);
        while let Some(&first) = rest.first() {
            if first & 0xe0 == 0x20 {
                let size = integer(&mut rest, 5)?;
                if fields > 0 || size > TABLE {
                    return Err(Unreadable::Broken("a table size that was not offered"));
                }
                self.max = size;
                self.changes += 1;
                self.evict(0);
                continue;
            }
            fields += 1;
            if first & 0x80 != 0 {
                let index = integer(&mut rest, 7)?;
                let (name, value) = self.entry(index)?;
                total += name.len() + value.len() + ENTRY;
                if total > MAX_LIST {
                    return Err(Unreadable::TooLong);
                }
                each(name, value);
                continue;
            }
            let keep = first & 0x40 != 0;
            let index = integer(&mut rest, if keep { 6 } else { 4 })?;
            let mut name = std::mem::take(&mut self.name);
            let mut value = std::mem::take(&mut self.value);
            name.clear();
            value.clear();
            let left = MAX_LIST - total;
            if index == 0 {
                text(&mut rest, &mut name, left)?;
            } else {
                name.extend_from_slice(self.entry(index)?.0);
            }
            text(&mut rest, &mut value, left)?;
            total += name.len() + value.len() + ENTRY;
            if total > MAX_LIST {
                return Err(Unreadable::TooLong);
            }
            each(&name, &value);
            if keep {
                self.insert(&name, &value);
            }
            (self.name, self.value) = (name, value);
        }
        Ok(())
    }

    fn entry(&self, index: usize) -> Result<(&[u8], &[u8]), Unreadable> {
        if let Some((name, value)) = index.checked_sub(1).and_then(|i| STATIC.get(i)) {
            return Ok((name.as_bytes(), value.as_bytes()));
        }
        let dynamic = index.checked_sub(STATIC.len() + 1);
        let entry = dynamic.and_then(|i| self.table.get(i));
        entry
            .map(|(name, value)| (&**name, &**value))
            .ok_or(Unreadable::Broken("an index beyond the table"))
    }

    fn insert(&mut self, name: &[u8], value: &[u8]) {
        let size = name.len() + value.len() + ENTRY;
        self.changes += 1;
        self.evict(size);
        // One larger than the table empties it and is not kept.
        if size <= self.max {
            self.size += size;
            self.table.push_front((name.into(), value.into()));
        }
    }

    /// Makes room for so many bytes.
    fn evict(&mut self, room: usize) {
        while self.size + room > self.max {
            let Some((name, value)) = self.table.pop_back() else {
                return;
            };
            self.size -= name.len() + value.len() + ENTRY;
        }
    }
}

/// Reads an integer whose first octet has so many bits of it (section 5.1); at most 2^28.
fn integer(rest: &mut &[u8], bits: u32) -> Result<usize, Unreadable> {
    const SHORT: Unreadable = Unreadable::Broken("a block that ends too early");
    let (first, mut tail) = rest.split_first().ok_or(SHORT)?;
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & mask;
    if value == mask {
        for shift in (0..).step_by(7) {
            let (octet, after) = tail.split_first().ok_or(SHORT)?;
            tail = after;
            if shift > 21 {
                return Err(Unreadable::Broken("an integer that is too large"));
            }
            value += usize::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                break;
            }
        }
    }
    *rest = tail;
    Ok(value)
}

fn text(rest: &mut &[u8], out: &mut Vec<u8>, most: usize) -> Result<(), Unreadable> {
    let coded = rest.first().is_some_and(|o| o & 0x80 != 0);
    let length = integer(rest, 7)?;
    let Some((raw, tail)) = rest.split_at_checked(length) else {
        return Err(Unreadable::Broken("a text longer than its block"));
    };
    *rest = tail;
    if length > most {
        return Err(Unreadable::TooLong);
    }
    if !coded {
        out.extend_from_slice(raw);
    } else if !huffman::decode(raw, out) {
        return Err(Unreadable::Broken("a broken Huffman code"));
    }
    Ok(())
}

/// How a field may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// In the peer's table, while there is room.
    Whole,
    /// Its name only: the value differs in each request.
    Name,
    /// Never in a table, ours or another's on the way: a secret.
    Never,
}

/// A header field to send, its name in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) name: Box<[u8]>,
    pub(crate) value: Box<[u8]>,
    pub(crate) keep: Keep,
}

/// Writes header blocks of one connection. Entries are added while there is room and never evicted, so that what was
/// written once is written the same way again.
pub(crate) struct Encoder {
    /// In order of insertion.
    table: Vec<Entry>,
    size: usize,
    max: usize,
    /// The peer's settings are known.
    told: bool,
    /// A size to announce at the start of the next block.
    announce: bool,
    /// Raised when cached blocks become wrong.
    epoch: u64,
}

impl Encoder {
    /// Adds nothing to the table before the peer's settings are known.
    pub(crate) fn new() -> Encoder {
        Encoder {
            table: Vec::new(),
            size: 0,
            max: 0,
            told: false,
            announce: false,
            epoch: 0,
        }
    }

    /// The peer's table may hold so many bytes. Once lowered, ours stays low.
    pub(crate) fn limit(&mut self, bytes: usize) {
        let before = if self.told { self.max } else { TABLE };
        let max = bytes.min(before);
        self.told = true;
        self.announce |= max < before;
        if max != self.max {
            self.epoch += 1;
        }
        self.max = max;
    }

    /// Changes whenever a block written before may not be written again as it is.
    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Must come before the first field of each block.
    pub(crate) fn begin(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.announce) {
            // Through 0, so that the peer's table is as empty as ours may be.
            put(0, 5, 0x20, out);
            put(self.max, 5, 0x20, out);
            self.table.clear();
            self.size = 0;
            self.epoch += 1;
        }
    }

    /// Appends one field.
    pub(crate) fn field(&mut self, name: &[u8], value: &[u8], keep: Keep, out: &mut Vec<u8>) {
        let mut known = None;
        for (i, (n, v)) in STATIC.iter().enumerate() {
            if n.as_bytes() == name {
                if !v.is_empty() && v.as_bytes() == value {
                    return put(i + 1, 7, 0x80, out);
                }
                known = known.or(Some(i + 1));
            }
        }
        let count = self.table.len();
        for (i, (n, v)) in self.table.iter().enumerate() {
            if &**n == name {
                let index = STATIC.len() + count - i;
                if &**v == value && keep == Keep::Whole {
                    return put(index, 7, 0x80, out);
                }
                known = known.or(Some(index));
            }
        }
        let size = name.len() + value.len() + ENTRY;
        let wanted = match keep {
            Keep::Whole => true,
            Keep::Name => known.is_none(),
            Keep::Never => false,
        };
        let insert = wanted && self.size + size <= self.max;
        let (bits, mark) = match keep {
            _ if insert => (6, 0x40),
            Keep::Never => (4, 0x10),
            _ => (4, 0),
        };
        put(known.unwrap_or(0), bits, mark, out);
        if known.is_none() {
            put(name.len(), 7, 0, out);
            out.extend_from_slice(name);
        }
        put(value.len(), 7, 0, out);
        out.extend_from_slice(value);
        if insert {
            self.size += size;
            self.table.push((name.into(), value.into()));
            self.epoch += 1;
        }
    }
}

fn put(value: usize, bits: u32, mark: u8, out: &mut Vec<u8>) {
    let most = (1_usize << bits) - 1;
    if value < most {
        out.push(mark | value as u8);
        return;
    }
    out.push(mark | most as u8);
    let mut rest = value - most;
    while rest >= 128 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Unreadable> {
        let mut seen = Vec::new();
        decoder.decode(block, &mut |n, v| {
            seen.push((
                String::from_utf8_lossy(n).into_owned(),
                String::from_utf8_lossy(v).into_owned(),
            ));
        })?;
        Ok(seen)
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: String = text.split_whitespace().collect();
        (0..digits.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap())
            .collect()
    }

    #[test]
    fn the_responses_of_rfc_7541_c_6_are_read() {
        let mut d = Decoder::new();
        d.max = 256;
        let first = hex(
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
        );
        let second = hex("4883 640e ffc1 c0bf");
        let third = hex(
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad 94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 65c0 03ed 4ee5 b106 3d50 07",
        );
        let location = ("location".to_owned(), "https://www.example.com".to_owned());
        let got = read(&mut d, &first).unwrap();
        assert_eq!(
            (&*got[0].1, &*got[1].1, &got[3]),
            ("302", "private", &location)
        );
        let got = read(&mut d, &second).unwrap();
        assert_eq!((&*got[0].1, &got[3]), ("307", &location));
        let got = read(&mut d, &third).unwrap();
        assert_eq!((&*got[0].1, &*got[4].1), ("200", "gzip"));
        assert_eq!(
            got[5].1,
            "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"
        );
        assert_eq!((d.size, d.table.len()), (215, 3));
    }

    #[test]
    fn broken_blocks_are_refused() {
        let broken = |block: &[u8]| read(&mut Decoder::new(), block).unwrap_err();
        for block in [
            &[0x80_u8][..],
            &[0xbe],
            &[0x40, 0x05, b'a'],
            &[0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0x3f, 0xe2, 0x1f],
            &[0x88, 0x20],
            &[0x00, 0x81, 0x00, 0x00],
            &[0x40],
        ] {
            assert!(
                matches!(broken(block), Unreadable::Broken(_)),
                "{block:02x?}"
            );
        }
    }

    #[test]
    fn a_small_block_that_decodes_to_a_lot_is_refused() {
        // One entry of 4,000 bytes, then a reference of one byte each.
        let mut block = vec![0x40, 1, b'a'];
        put(4000, 7, 0, &mut block);
        block.extend(std::iter::repeat_n(b'x', 4000));
        block.extend(std::iter::repeat_n(0xbe, 1000));
        let mut d = Decoder::new();
        assert_eq!(read(&mut d, &block), Err(Unreadable::TooLong));
        assert!(d.size <= TABLE);
    }

    #[test]
    fn what_is_written_is_read_back_and_shrinks() {
        let (mut e, mut d) = (Encoder::new(), Decoder::new());
        let fields = |n: u32| {
            [
                (":method", "GET".to_owned(), Keep::Whole),
                (":path", "/a?b=1".to_owned(), Keep::Whole),
                ("x-nines-run-id", "0123".to_owned(), Keep::Whole),
                ("authorization", "Basic x".to_owned(), Keep::Never),
                ("empty", String::new(), Keep::Whole),
                ("traceparent", format!("00-{n:032x}"), Keep::Name),
            ]
        };
        let mut lengths = Vec::new();
        for n in 0..6 {
            match n {
                1 => e.limit(65_536),
                4 => e.limit(100),
                5 => e.limit(0),
                _ => {}
            }
            let mut block = Vec::new();
            e.begin(&mut block);
            for (name, value, keep) in &fields(n) {
                e.field(name.as_bytes(), value.as_bytes(), *keep, &mut block);
            }
            let expected: Vec<_> = fields(n)
                .iter()
                .map(|(n, v, _)| ((*n).to_owned(), v.clone()))
                .collect();
            assert_eq!(read(&mut d, &block).unwrap(), expected, "{n}");
            assert!(d.size <= e.max || n < 4, "{} {}", d.size, e.max);
            lengths.push(block.len());
        }
        assert!(
            lengths[2] < lengths[0] * 3 / 5 && lengths[2] == lengths[3],
            "{lengths:?}"
        );
        let epoch = e.epoch();
        let mut out = Vec::new();
        e.begin(&mut out);
        e.field(b":method", b"GET", Keep::Whole, &mut out);
        assert_eq!((e.epoch(), &out[..]), (epoch, &[0x82_u8][..]));
    }
}

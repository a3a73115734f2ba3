#!/usr/bin/env python3
"""Reads a store's folder by docs/store-format.md alone and prints every float sample, sorted:
`name{label="value",...}<TAB>time in ms<TAB>bits of the value in hex<TAB>start time in ms`, then `histograms N`.

Owns a second reading of the document: it shares no code with the store, so that a difference is a mistake in one of
them. `tests/run` compares what it prints with what was written. Needs the package `zstandard`.
"""
import pathlib, struct, sys, zlib
import zstandard


class Bytes:
    """The document's primitives."""
    def __init__(self, data): self.data, self.at = data, 0
    def end(self): return self.at >= len(self.data)
    def take(self, n):
        assert 0 <= n <= len(self.data) - self.at, "unexpected end"
        self.at += n
        return self.data[self.at - n:self.at]
    def u8(self): return self.take(1)[0]
    def u16(self): return struct.unpack("<H", self.take(2))[0]
    def u32(self): return struct.unpack("<I", self.take(4))[0]
    def u64(self): return struct.unpack("<Q", self.take(8))[0]
    def uvarint(self):
        value, shift = 0, 0
        while True:
            byte = self.u8()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                assert value < 1 << 64
                return value
    def ivarint(self): return unzigzag(self.uvarint())
    def bytes(self): return self.take(self.uvarint())
    def text(self): return self.bytes().decode("utf-8")
    def number(self):
        n = self.uvarint()
        return float(unzigzag(n >> 1)) if n & 1 == 0 else float_of(self.u64())
    def labels(self):
        inner, out = Bytes(self.bytes()), []
        def piece():
            first = inner.data[inner.at]
            width = 1 if first < 0x80 else 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            code = ord(inner.take(width).decode("utf-8"))
            return inner.take(code if code < 0xD800 else code - 0x800).decode("utf-8")
        while not inner.end():
            name = piece()
            out.append((name, piece()))
        assert out == sorted(set(out)), "labels ascend"
        return tuple(out)


def unzigzag(n): return (n >> 1) ^ -(n & 1)
def wrap(n): return (n + (1 << 63)) % (1 << 64) - (1 << 63)
def bits_of(value): return struct.unpack("<Q", struct.pack("<d", value))[0]
def float_of(bits): return struct.unpack("<d", struct.pack("<Q", bits))[0]


def header(data, magic, versions):
    b = Bytes(data[:28])
    assert b.take(8) == magic and b.u32() in versions
    salt, number = b.u32(), b.u64()
    assert b.u32() == zlib.crc32(data[:24])
    return salt, number


# --- chunks

def histogram(b, before):
    flags = b.u8()
    if not flags & 1:
        layout = [b.ivarint(), b.number()]
        for _ in range(2):
            layout.append([(b.ivarint(), b.uvarint()) for _ in range(b.uvarint())])
        counts = [b.uvarint(), b.uvarint()]
        layout.append([b.number() for _ in range(b.uvarint())])
    else:
        layout, counts, old = before
    b.u8()
    for _ in range(3): b.number()
    buckets = [b.ivarint() if flags & 2 else b.number() for _ in range(sum(counts))]
    return layout, counts, buckets


def words(b, count):
    mask, out = b.u8(), [0] * count
    for plane in range(8):
        if mask >> plane & 1:
            for i, byte in enumerate(b.take(count)): out[i] |= byte << 8 * plane
    return out


def chunk(data):
    """Yields time, start time and bits, or None for a histogram."""
    b = Bytes(data)
    first = b.u8()
    encoding, irregular, starts_follow = first & 15, first & 16, first & 32
    n, t0 = b.uvarint(), b.ivarint()
    span = b.uvarint() if n > 1 else 0
    if irregular:
        times, d = [t0], span // (n - 1)
        for _ in range(n - 1):
            d = wrap(d + b.ivarint())
            times.append(times[-1] + d)
        assert times[-1] == t0 + span
    else:
        assert n == 1 or span % (n - 1) == 0
        times = [t0 + i * (span // (n - 1) if n > 1 else 0) for i in range(n)]
    starts, start = [], t0
    if starts_follow:
        for _ in range(b.uvarint()):
            count = b.uvarint()
            start = wrap(start + b.ivarint())
            starts += [start] * count
        assert len(starts) == n
    starts = starts or [0] * n
    if encoding == 0:
        values = [b.u64()] * n
    elif encoding in (1, 2, 3, 4):
        places = b.u8() if encoding >= 3 else 0
        exceptions, at = {}, 0
        for k in range(b.uvarint()):
            at += b.uvarint() + (1 if k else 0)
            exceptions[at] = b.u64()
        integer = b.ivarint()
        steps = [unzigzag(w) for w in words(b, n - 1)]
        integers, delta = [integer], 0
        for step in steps:
            delta = step if encoding in (1, 3) else delta + step
            integers.append(integers[-1] + delta)
        values = [exceptions.get(i, bits_of(v / 10**places if places else float(v))) for i, v in enumerate(integers)]
    elif encoding == 5:
        values = [b.u64()]
        for word in words(b, n - 1): values.append(values[-1] ^ word)
    elif encoding == 6:
        values, before = [], None
        for _ in range(n):
            before = histogram(b, before)
            values.append(None)
    else:
        assert encoding == 7
        emax, r, z = b.u16(), b.u8(), b.u8()
        stream, at = b.take(len(b.data) - b.at), 0
        def bits(count):
            nonlocal at
            value = 0
            for i in range(count):
                value |= (stream[at >> 3] >> (at & 7) & 1) << i
                at += 1
            return value
        values = []
        for _ in range(n):
            ones = 0
            while bits(1): ones += 1
            e = emax - (ones << r | bits(r))
            values.append(e << 52 | bits(52 - z) << z)
        assert (at + 7) // 8 == len(stream)
    assert b.end() or encoding == 7, "a chunk has bytes left"
    return zip(times, starts, values)


# --- blocks

def block(data, number):
    assert data[:8] == b"NINESBLK" and struct.unpack("<I", data[8:12])[0] in (1, 2)
    assert struct.unpack("<Q", data[12:20])[0] == number
    assert struct.unpack("<I", data[20:24])[0] == zlib.crc32(data[:20])
    tail = data[-24:]
    assert tail[-8:] == b"NINESEND" and struct.unpack("<I", tail[12:16])[0] == zlib.crc32(tail[:12])
    seen = []

    def part(offset, length):
        seen.append((offset, length))
        b = Bytes(data[offset:offset + length])
        assert b.u32() == zlib.crc32(b.data[4:])
        kind, raw = b.u8(), b.u32()
        content = b.take(length - 9)
        if kind: content = zstandard.ZstdDecompressor().decompress(content, max_output_size=raw)
        assert len(content) == raw
        return content

    b = Bytes(part(*struct.unpack("<QI", tail[:12])))
    footer = {name: b.uvarint() for name in ("number", "first", "log_before")}
    first_t, last_t = b.ivarint(), b.ivarint()
    samples, chunks, series = b.uvarint(), b.uvarint(), b.uvarint()
    replaced = [b.uvarint() for _ in range(b.uvarint())]
    reference = lambda: (b.uvarint(), b.uvarint())
    chunk_pages = [reference() for _ in range(b.uvarint())]
    series_pages = [reference() for _ in range(b.uvarint())]
    postings = [(b.text(), reference()) for _ in range(b.uvarint())]
    assert b.end() and footer["number"] == number
    pages, out, all_labels, times = [part(*p) for p in chunk_pages], [], [], []
    for page in series_pages:
        p = Bytes(part(*page))
        while not p.end():
            labels, last = p.labels(), 0
            all_labels.append(labels)
            for _ in range(p.uvarint()):
                chunks -= 1
                start = last + p.ivarint()
                last = start + p.uvarint()
                number, at, length = p.uvarint(), p.uvarint(), p.uvarint()
                got = list(chunk(pages[number][at:at + length]))
                assert (got[0][0], got[-1][0]) == (start, last)
                times += [start, last]
                samples -= len(got)
                out += [(labels, *sample) for sample in got]
    assert (samples, chunks, series) == (0, 0, len(all_labels))
    assert (first_t, last_t) == (min(times), max(times))
    found = {}
    for name, where in postings:
        p = Bytes(part(*where))
        for _ in range(p.uvarint()):
            value, ordinals = p.text(), Bytes(p.bytes())
            ordinal = 0
            while not ordinals.end():
                ordinal += ordinals.uvarint()
                found.setdefault(ordinal, []).append((name, value))
        assert p.end()
    assert [tuple(sorted(found[i])) for i in range(series)] == all_labels, "postings are the labels"
    at = 24
    for offset, length in sorted(seen):
        assert offset == at, "parts follow one another"
        at += length
    assert at == len(data) - 24
    return footer, replaced, out


# --- log

def log(data, number, series):
    salt, found = header(data, b"NINESWAL", (1, 2))
    assert found == number
    b, out = Bytes(data), []
    b.at = 28
    while not b.end():
        assert b.u8() == 0x9E
        kind, length, crc = b.u8(), b.u32(), b.u32()
        payload = b.take(length)
        head = bytes([kind]) + struct.pack("<I", length)
        assert kind == 1 and zlib.crc32(payload, zlib.crc32(head, salt)) == crc
        batch(payload, series, out)
    return out


def batch(payload, series, out):
    b = Bytes(payload)
    run, last = b.uvarint(), 0
    while not b.end():
        tag = b.u8()
        assert last < tag <= 6
        last, s = tag, Bytes(b.bytes())
        if tag == 1:
            while not s.end():
                slot, flags = s.uvarint(), s.u8()
                if flags & 1: s.ivarint()
                series[run, slot] = s.labels()
        elif tag == 2:
            slot, t, start = (1 << 32) - 1, 0, 0
            while not s.end():
                control = s.u8()
                assert control < 0x80 and control & 3 < 3
                slot = {0: lambda: (slot + 1) % (1 << 32), 1: lambda: slot + s.ivarint(), 2: lambda: slot}[control & 3]()
                if control & 4: t = wrap(t + s.ivarint())
                began = 0
                if control >> 5 == 2: start = wrap(start + s.ivarint())
                if control >> 5: began = start
                value = [lambda: bits_of(0.0), lambda: bits_of(float(s.ivarint())), s.u64, lambda: 0x7FF0000000000002][control >> 3 & 3]()
                out.append((series[run, slot], t, began, value))
        elif tag in (3, 6):
            while not s.end():
                slot, t = s.uvarint(), s.ivarint()
                start = s.ivarint() if tag == 6 else 0
                histogram(s, None)
                out.append((series[run, slot], t, start, None))
        elif tag == 4:
            while not s.end(): s.uvarint(), s.ivarint(), s.number(), s.labels()
        else:
            while not s.end(): [s.text() for _ in range(4)]


# --- traces and logs

def segment(data, number):
    """Blocks, and items in them."""
    salt, found = header(data, b"NINESSEG", (1,))
    assert found == number
    b, blocks, items = Bytes(data), 0, 0
    b.at = 28
    while not b.end():
        at = b.at
        assert b.u8() == 0xB1
        kind, stored, raw, footer, count = b.u8(), b.u32(), b.u32(), b.u32(), b.u32()
        earliest, latest, content_crc = b.u64(), b.u64(), b.u32()
        assert earliest <= latest and raw <= 16 << 20 and footer <= 1 << 20
        covered = data[at:b.at]
        assert len(covered) == 38
        crc = b.u32()
        assert zlib.crc32(b.take(footer), zlib.crc32(covered, salt)) == crc
        content = b.take(stored)
        assert zlib.crc32(content) == content_crc
        if kind == 2: content = zstandard.ZstdDecompressor().decompress(content, max_output_size=raw)
        assert kind in (0, 2) and len(content) == raw
        blocks, items = blocks + 1, items + count
    return blocks, items


def numbered(folder, prefix, suffix):
    return sorted((int(p.name[len(prefix):-len(suffix)]), p) for p in folder.glob(f"{prefix}*{suffix}"))


def main(folder):
    folder = pathlib.Path(folder)
    for number, path in numbered(folder, "seg-", ".nseg"):
        print("segment", number, *segment(path.read_bytes(), number), sep="\t")
    if not (folder / "log").exists(): return
    blocks = [block(path.read_bytes(), n) for n, path in numbered(folder / "blocks", "block-", ".nblk")]
    gone = {n for _, replaced, _ in blocks for n in replaced}
    blocks = sorted((b for b in blocks if b[0]["number"] not in gone), key=lambda b: b[0]["first"])
    covered = max((b[0]["log_before"] for b in blocks), default=0)
    samples = [s for _, _, found in blocks for s in found]
    series, checkpoint = {}, numbered(folder / "log", "checkpoint-", ".wal")[-1:]
    for number, path in checkpoint: log(path.read_bytes(), number, series)
    oldest = checkpoint[0][0] if checkpoint else 0
    for number, path in numbered(folder / "log", "log-", ".wal"):
        if number >= oldest:
            found = log(path.read_bytes(), number, series)
            if number >= covered: samples += found
    known, histograms = {}, 0
    for labels, t, start, value in samples: known.setdefault((labels, t), (start, value))
    lines = []
    for (labels, t), (start, value) in known.items():
        histograms += value is None
        name = dict(labels).get("__name__", "")
        inside = ",".join(f'{n}="{v}"' for n, v in labels if n != "__name__")
        if value is not None: lines.append(f"{name}{{{inside}}}\t{t}\t{value:016x}\t{start}")
    print(*sorted(lines), sep="\n")
    print(f"histograms {histograms}")


if __name__ == "__main__":
    main(sys.argv[1])

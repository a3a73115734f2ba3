//! What the HTTP/2 codec does with good, odd and broken bytes.

use super::*;
use crate::h2::hpack::Keep;
use crate::schedule::mix;

/// Everything that was told, in order.
#[derive(Default, PartialEq, Debug)]
struct Log(Vec<String>);

impl Sink for Log {
    const FIELDS: bool = true;

    fn field(&mut self, token: u32, name: &[u8], value: &[u8]) {
        let (name, value) = (
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value),
        );
        self.0.push(format!("{token} {name}: {value}"));
    }

    fn head(&mut self, token: u32, status: u16) {
        self.0.push(format!("{token} head {status}"));
    }

    fn data(&mut self, token: u32, data: &[u8]) {
        self.0.push(format!("{token} data {}", data.len()));
    }

    fn end(&mut self, token: u32, ended: Ended) {
        self.0.push(format!("{token} end {}", ended.body_len));
    }

    fn fail(&mut self, token: u32, failed: Failed) {
        self.0
            .push(format!("{token} failed {}", failed.kind.as_str()));
    }
}

fn get() -> Vec<Field> {
    let field = |name: &str, value: &str| Field {
        name: name.as_bytes().into(),
        value: value.as_bytes().into(),
        keep: Keep::Whole,
    };
    vec![field(":method", "GET"), field(":path", "/")]
}

fn made(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    frame(payload.len(), kind, flags, id, &mut out);
    out.extend_from_slice(payload);
    out
}

/// Two requests under way, and what a server may say to them.
fn talk() -> (Codec, Vec<u8>) {
    let mut codec = Codec::new(1000);
    codec.open(7, Some(0), &get(), None, None);
    codec.open(8, Some(0), &get(), None, None);
    let bytes = [
        made(4, 0, 0, &[0, 3, 0, 0, 0, 2, 0, 4, 0, 0, 0, 9]),
        made(1, 4, 3, &[0x88]),
        made(6, 0, 0, b"12345678"),
        // 103, then 200 with a length, padded.
        made(1, 4, 1, &[0x08, 3, b'1', b'0', b'3']),
        made(1, 4 | 8, 1, &[2, 0x88, 0x0f, 0x0d, 1, b'3', 0, 0]),
        made(0, 8, 3, &[3, b'a', 0, 0, 0]),
        made(0, 1, 1, b"abc"),
        made(250, 9, 3, b"unknown"),
        // Trailers.
        made(1, 1, 3, &[]),
        made(9, 4, 3, &[0x00, 1, b't', 1, b'v']),
    ];
    (codec, bytes.concat())
}

#[test]
fn what_arrives_does_not_depend_on_how_it_is_cut() {
    let expected = [
        "8 head 200",
        "8 data 1",
        "7 data 3",
        "7 end 3",
        "8 t: v",
        "8 end 1",
    ];
    let (mut codec, bytes) = talk();
    let mut whole = Log::default();
    assert_eq!(codec.receive(&bytes, &mut whole), Ok(bytes.len()));
    for line in expected {
        assert!(whole.0.iter().any(|l| l == line), "{line}: {whole:?}");
    }
    assert_eq!(codec.active(), 0);
    assert_eq!(codec.peer_streams(), Some(2));
    for seed in 0..50 {
        let (mut codec, bytes) = talk();
        let (mut log, mut held, mut at) = (Log::default(), Vec::new(), 0);
        while at < bytes.len() {
            let step = 1 + (mix(seed, at as u64, 0) % 30) as usize;
            held.extend_from_slice(&bytes[at..bytes.len().min(at + step)]);
            at += step;
            let used = codec.receive(&held, &mut log).unwrap();
            held.drain(..used);
        }
        assert_eq!(log, whole);
    }
}

#[test]
fn whatever_arrives_is_bounded_and_no_panic() {
    for seed in 0..3000 {
        let (mut codec, mut bytes) = talk();
        let mut log = Log::default();
        // A good conversation with a few bytes changed reaches deeper than noise.
        for i in 0..=seed % 5 {
            let at = (mix(seed, i, 1) % bytes.len() as u64) as usize;
            bytes[at] = mix(seed, i, 2) as u8;
        }
        if let Err(why) = codec.receive(&bytes, &mut log) {
            codec.over(&why, &mut log);
            assert_eq!(codec.active(), 0);
        }
        assert!(codec.out().len() < 1 << 16);
        let ends = |t: &str| {
            let of = |l: &&String| {
                l.starts_with(&format!("{t} end")) || l.starts_with(&format!("{t} failed"))
            };
            log.0.iter().filter(of).count()
        };
        assert!(ends("7") <= 1 && ends("8") <= 1, "{log:?}");
    }
}

#[test]
fn bodies_wait_for_both_windows() {
    let mut codec = Codec::new(1000);
    let mut log = Log::default();
    let settings = made(4, 0, 0, &[0, 4, 0, 0, 0, 10]);
    codec.receive(&settings, &mut log).unwrap();
    codec.written(codec.out().len());
    let body = Source::from(bytes::Bytes::from(vec![1; 25]));
    codec.open(0, None, &get(), None, Some(body));
    let data = |codec: &mut Codec| {
        let mut sizes = Vec::new();
        let (mut rest, all) = (codec.out(), codec.out().len());
        while let Some(head) = rest.get(..9) {
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            if head[3] == 0 {
                sizes.push((length, head[4]));
            }
            rest = &rest[9 + length..];
        }
        codec.written(all);
        sizes
    };
    assert_eq!(data(&mut codec), [(10, 0)]);
    let more = |id: u32, by: u8| made(8, 0, id, &[0, 0, 0, by]);
    codec.receive(&more(1, 12), &mut log).unwrap();
    assert_eq!(data(&mut codec), [(12, 0)]);
    // The window of new streams moves that of this one, too.
    let settings = made(4, 0, 0, &[0, 4, 0, 0, 0, 13]);
    codec.receive(&settings, &mut log).unwrap();
    assert_eq!(data(&mut codec), [(3, 1)]);
    let fault = codec.receive(&made(8, 0, 0, &[0x7f, 255, 255, 255]), &mut log);
    assert_eq!(fault.map_err(|f| f.kind), Err(ErrorKind::Protocol));
}

#[test]
fn long_headers_go_out_in_parts() {
    let mut codec = Codec::new(1000);
    codec.written(codec.out().len());
    let long = Field {
        name: (*b"x").into(),
        value: vec![b'y'; 40_000].into(),
        keep: Keep::Whole,
    };
    codec.open(0, None, &[long], None, None);
    let kinds: Vec<(u8, u8)> = {
        let (mut rest, mut kinds) = (codec.out(), Vec::new());
        while let Some(head) = rest.get(..9) {
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            kinds.push((head[3], head[4]));
            rest = &rest[9 + length..];
        }
        kinds
    };
    assert_eq!(kinds, [(1, 1), (9, 0), (9, 4)]);
}

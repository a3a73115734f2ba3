//! Bytes to the terminal: a frame at a time, in colours that the terminal has.
//!
//! Owns the buffer between drawing and writing, and the rewriting of colour numbers for terminals that know the 16
//! classic codes only. Must not know what is drawn.

use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Collects what is drawn until it is flushed.
#[derive(Debug)]
pub(crate) struct Output<W: Write> {
    inner: W,
    /// Whether colours 0 to 15 are written as 30-37 and 90-97 rather than by number.
    classic: bool,
    waiting: Vec<u8>,
    written: Arc<AtomicU64>,
}

// === impl Output ===

impl<W: Write> Output<W> {
    pub(crate) fn new(inner: W, classic: bool) -> Self {
        Output {
            inner,
            classic,
            waiting: Vec::with_capacity(16 << 10),
            written: Arc::default(),
        }
    }

    /// Bytes written so far, which can be read while the terminal owns this.
    pub(crate) fn written(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.written)
    }
}

impl<W: Write> Write for Output<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        if self.classic {
            self.waiting = classic(&self.waiting);
        }
        let written = self.inner.write_all(&self.waiting);
        self.written.fetch_add(self.waiting.len() as u64, Relaxed);
        self.waiting.clear();
        written?;
        self.inner.flush()
    }
}

/// `bytes` with every `38;5;n` and `48;5;n` of a graphics sequence (CSI … m) as a classic code.
fn classic(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(2).position(|w| w == b"\x1b[") {
        let (before, sequence) = rest.split_at(at);
        out.extend_from_slice(before);
        let inside = &sequence[2..];
        let length = inside
            .iter()
            .take_while(|b| b.is_ascii_digit() || **b == b';')
            .count();
        out.extend_from_slice(b"\x1b[");
        match inside.get(length) {
            Some(b'm') => out.extend_from_slice(&codes(&inside[..length])),
            _ => out.extend_from_slice(&inside[..length]),
        }
        rest = &inside[length..];
    }
    out.extend_from_slice(rest);
    out
}

fn codes(parameters: &[u8]) -> Vec<u8> {
    let all: Vec<&[u8]> = parameters.split(|b| *b == b';').collect();
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<u16>().ok();
    let mut out: Vec<Vec<u8>> = Vec::new();
    let mut i = 0;
    while i < all.len() {
        let colour = match (all[i], all.get(i + 1), all.get(i + 2)) {
            (b"38", Some(&b"5"), Some(n)) => number(n).map(|n| (30, n)),
            (b"48", Some(&b"5"), Some(n)) => number(n).map(|n| (40, n)),
            _ => None,
        };
        match colour {
            Some((base, n)) => {
                let n = nearest(n);
                let code = if n < 8 { base + n } else { base + 52 + n };
                out.push(code.to_string().into_bytes());
                i += 3;
            }
            None => {
                out.push(all[i].to_vec());
                i += 1;
            }
        }
    }
    out.join(&b';')
}

/// The classic colour (0 to 15) that is nearest to one of 256.
fn nearest(n: u16) -> u16 {
    // As xterm has them.
    const CLASSIC: [(i32, i32, i32); 16] = [
        (0, 0, 0),
        (205, 0, 0),
        (0, 205, 0),
        (205, 205, 0),
        (0, 0, 238),
        (205, 0, 205),
        (0, 205, 205),
        (229, 229, 229),
        (127, 127, 127),
        (255, 0, 0),
        (0, 255, 0),
        (255, 255, 0),
        (92, 92, 255),
        (255, 0, 255),
        (0, 255, 255),
        (255, 255, 255),
    ];
    if n < 16 {
        return n;
    }
    let n = i32::from(n.min(255));
    let level = |v: i32| if v == 0 { 0 } else { 55 + 40 * v };
    let (r, g, b) = match n {
        232.. => (8 + 10 * (n - 232), 8 + 10 * (n - 232), 8 + 10 * (n - 232)),
        _ => {
            let n = n - 16;
            (level(n / 36), level(n / 6 % 6), level(n % 6))
        }
    };
    let far = |c: &(i32, i32, i32)| (c.0 - r).pow(2) + (c.1 - g).pow(2) + (c.2 - b).pow(2);
    let best = (0u16..).zip(&CLASSIC).min_by_key(|(_, c)| far(c));
    best.map_or(7, |(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_colours_become_classic_codes() {
        for (given, wanted) in [
            ("a\x1b[38;5;1mb", "a\x1b[31mb"),
            ("\x1b[38;5;12;48;5;0m", "\x1b[94;40m"),
            ("\x1b[1;38;5;226;49m", "\x1b[1;93;49m"),
            (
                "\x1b[0m\x1b[39m\x1b[2J\x1b[3;4H",
                "\x1b[0m\x1b[39m\x1b[2J\x1b[3;4H",
            ),
            ("\x1b[?2026h·\x1b[m", "\x1b[?2026h·\x1b[m"),
            ("\x1b[38;5", "\x1b[38;5"),
            ("\x1b[", "\x1b["),
        ] {
            assert_eq!(
                String::from_utf8(classic(given.as_bytes())).unwrap(),
                wanted
            );
        }
    }

    #[test]
    fn a_frame_is_written_at_once_and_only_when_flushed() {
        #[derive(Default)]
        struct Calls(Vec<Vec<u8>>);
        impl Write for Calls {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.push(bytes.to_vec());
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut out = Output::new(Calls::default(), false);
        out.write_all(b"a").unwrap();
        out.write_all(&[b'b'; 5_000]).unwrap();
        assert!(out.inner.0.is_empty());
        out.flush().unwrap();
        assert_eq!(out.inner.0.len(), 1);
        assert_eq!(out.inner.0[0].len(), 5_001);
    }
}

//! Owns HPACK's Huffman code (RFC 7541, appendix B), decoding only: nothing we send needs it.
//! The code is canonical, so the lengths of its words are the whole table.

use std::sync::LazyLock;

/// Length in bits of each octet's code word; the end-of-string word is the last of 30 bits.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

struct Code {
    /// For each length: one above its last word, left-aligned in 32 bits; its first word; where its octets begin.
    words: Vec<(u32, u64, u32, usize)>,
    /// Octets by length, then value.
    octets: Vec<u8>,
}

static CODE: LazyLock<Code> = LazyLock::new(|| {
    let mut octets: Vec<u8> = (0..=255).collect();
    octets.sort_by_key(|o| LENGTHS[usize::from(*o)]);
    let mut words = Vec::new();
    let (mut next, mut at) = (0_u32, 0);
    for length in 5..=30_u32 {
        let count = LENGTHS.iter().filter(|l| u32::from(**l) == length).count();
        next <<= 1;
        if length == 5 {
            next = 0;
        }
        if count > 0 {
            let end = u64::from(next + count as u32) << (32 - length);
            words.push((length, end, next, at));
        }
        next += count as u32;
        at += count;
    }
    Code { words, octets }
});

/// Appends the decoded text; false when the text is no Huffman code, ends in more than 7 bits of padding or in other
/// bits than ones, or holds the end-of-string word.
pub(crate) fn decode(text: &[u8], out: &mut Vec<u8>) -> bool {
    let code = &*CODE;
    let (mut bits, mut held) = (0_u64, 0_u32);
    let mut rest = text.iter();
    loop {
        while held <= 32 {
            let Some(octet) = rest.next() else { break };
            bits |= u64::from(*octet) << (56 - held);
            held += 8;
        }
        if held == 0 {
            return true;
        }
        let top = bits >> 32;
        let word = code.words.iter().find(|(_, end, _, _)| top < *end);
        let Some((length, _, first, at)) = word.filter(|w| w.0 <= held) else {
            // What is left must be the padding: fewer than 8 ones.
            return held < 8 && bits >> (64 - held) == (1 << held) - 1;
        };
        let value = (top >> (32 - length)) as u32;
        let Some(octet) = code.octets.get(at + (value - first) as usize) else {
            return false;
        };
        out.push(*octet);
        bits <<= length;
        held -= length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(code: &[u8]) -> Option<String> {
        let mut out = Vec::new();
        decode(code, &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn the_examples_of_rfc_7541_appendix_c_are_read() {
        let www = [
            0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
        ];
        assert_eq!(text(&www).as_deref(), Some("www.example.com"));
        assert_eq!(
            text(&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]).as_deref(),
            Some("no-cache")
        );
        let date = [
            0xd0, 0x7a, 0xbe, 0x94, 0x10, 0x54, 0xd4, 0x44, 0xa8, 0x20, 0x05, 0x95, 0x04, 0x0b,
            0x81, 0x66, 0xe0, 0x82, 0xa6, 0x2d, 0x1b, 0xff,
        ];
        assert_eq!(
            text(&date).as_deref(),
            Some("Mon, 21 Oct 2013 20:13:21 GMT")
        );
        assert_eq!(text(&[]).as_deref(), Some(""));
    }

    #[test]
    fn padding_and_the_end_word_are_checked() {
        // '0' is 00000; the padding must be ones, and fewer than eight.
        assert_eq!(text(&[0x07]).as_deref(), Some("0"));
        assert_eq!(text(&[0x00]), None);
        assert_eq!(text(&[0x07, 0xff]), None);
        assert_eq!(text(&[0xff, 0xff, 0xff, 0xff]), None);
    }

    #[test]
    fn every_octet_has_its_word() {
        // Encode by the same canonical rule, written the slow way, and read back.
        let mut order: Vec<usize> = (0..256).collect();
        order.sort_by_key(|o| (LENGTHS[*o], *o));
        let mut words = vec![(0_u64, 0_u8); 256];
        let mut next = 0_u64;
        for (i, octet) in order.iter().enumerate() {
            if i > 0 {
                next = (next + 1) << (LENGTHS[*octet] - LENGTHS[order[i - 1]]);
            }
            words[*octet] = (next, LENGTHS[*octet]);
        }
        for octet in 0..=255_u8 {
            let (word, length) = words[usize::from(octet)];
            let padded = (length as usize).div_ceil(8) * 8;
            let value =
                (word << (padded - length as usize)) | ((1 << (padded - length as usize)) - 1);
            let bytes = &value.to_be_bytes()[8 - padded / 8..];
            let mut out = Vec::new();
            assert!(decode(bytes, &mut out), "{octet}");
            assert_eq!(out, [octet]);
        }
    }
}

//! Owns the outer form of HTTP/2's frames (RFC 9113, 4.1) and the names of its error codes (7). Knows no stream.

use super::{Failed, broken};

pub(super) fn word(bytes: &[u8]) -> Option<u32> {
    let four = bytes.get(..4)?;
    Some(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
}

pub(super) fn frame(length: usize, kind: u8, flags: u8, id: u32, out: &mut Vec<u8>) {
    out.extend_from_slice(&head(length, kind, flags, id));
}

pub(super) fn head(length: usize, kind: u8, flags: u8, id: u32) -> [u8; 9] {
    let l = (length as u32).to_be_bytes();
    let i = id.to_be_bytes();
    [l[1], l[2], l[3], kind, flags, i[0], i[1], i[2], i[3]]
}

/// A DATA or HEADERS payload without its padding.
pub(super) fn unpadded(flags: u8, payload: &[u8]) -> Result<&[u8], Failed> {
    if flags & 8 == 0 {
        return Ok(payload);
    }
    let (pad, rest) = payload
        .split_first()
        .ok_or_else(|| broken("a padded frame without padding"))?;
    let kept = rest.len().checked_sub(usize::from(*pad));
    kept.map(|n| &rest[..n])
        .ok_or_else(|| broken("padding longer than its frame"))
}

/// The names of RFC 9113, section 7.
pub(super) fn code_name(code: u32) -> String {
    const NAMES: [&str; 14] = [
        "NO_ERROR",
        "PROTOCOL_ERROR",
        "INTERNAL_ERROR",
        "FLOW_CONTROL_ERROR",
        "SETTINGS_TIMEOUT",
        "STREAM_CLOSED",
        "FRAME_SIZE_ERROR",
        "REFUSED_STREAM",
        "CANCEL",
        "COMPRESSION_ERROR",
        "CONNECT_ERROR",
        "ENHANCE_YOUR_CALM",
        "INADEQUATE_SECURITY",
        "HTTP_1_1_REQUIRED",
    ];
    NAMES
        .get(code as usize)
        .map_or_else(|| format!("code {code}"), |n| (*n).to_owned())
}

//! Owns histograms as text: HDR V2, deflated, base64, as HdrHistogram's own tools write and read them.
//! Knows nothing of runs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};

use crate::stats::{LONGEST_US, histogram};

/// The histogram without loss, as one from 1 us to 10 minutes whatever it has grown to.
pub(crate) fn encode(h: &Histogram<u64>) -> String {
    let mut whole = histogram();
    let h = match h.high() < LONGEST_US {
        true if whole.add(h).is_ok() => &whole,
        _ => h,
    };
    let mut bytes = Vec::new();
    V2DeflateSerializer::new().serialize(h, &mut bytes).expect(
        "writing to memory does not fail, and our histograms are far below the format's limits",
    );
    STANDARD.encode(bytes)
}

/// Reads what [`encode`], or another HdrHistogram, wrote; the largest text read is 4 MB.
pub(crate) fn decode(text: &str) -> Result<Histogram<u64>, String> {
    if text.len() > 4 << 20 {
        return Err("a histogram of more than 4 MB".to_owned());
    }
    let bytes = STANDARD.decode(text).map_err(|e| e.to_string())?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|e| format!("no HDR histogram: {e:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost() {
        let mut h = crate::stats::histogram();
        for value in [1, 2, 2, 999, 1_000_000, 600_000_000] {
            h.record(value).unwrap();
        }
        assert_eq!(decode(&encode(&h)).unwrap(), h);
        assert_eq!(
            decode(&encode(&crate::stats::histogram())).unwrap().len(),
            0
        );
        assert!(decode("!").is_err() && decode("AAAA").is_err());
    }
}

//! Owns the digests of `crypto`: MD5, SHA-1, SHA-2, and HMAC (RFC 2104) of each. Must not know JavaScript.

use sha2::Digest as _;

/// The digest of this name over the data; none for a name that is not known.
pub(super) fn digest(name: &str, data: &[u8]) -> Option<Vec<u8>> {
    Some(match name {
        "md5" => <md5::Md5 as md5::Digest>::digest(data).to_vec(),
        "sha1" => <sha1::Sha1 as sha1::Digest>::digest(data).to_vec(),
        "sha256" => sha2::Sha256::digest(data).to_vec(),
        "sha384" => sha2::Sha384::digest(data).to_vec(),
        "sha512" => sha2::Sha512::digest(data).to_vec(),
        _ => return None,
    })
}

/// The HMAC under a key.
pub(super) fn hmac(name: &str, key: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    let block = match name {
        "sha384" | "sha512" => 128,
        _ => 64,
    };
    let mut padded = match key.len() > block {
        true => digest(name, key)?,
        false => key.to_vec(),
    };
    padded.resize(block, 0);
    let with = |mask: u8, rest: &[u8]| -> Vec<u8> {
        let masked = padded.iter().map(|b| b ^ mask);
        masked.chain(rest.iter().copied()).collect()
    };
    let inner = digest(name, &with(0x36, data))?;
    digest(name, &with(0x5c, &inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: Option<Vec<u8>>) -> String {
        let bytes = bytes.unwrap_or_default();
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn digests_are_those_of_the_standards() {
        for (name, want) in [
            ("md5", "900150983cd24fb0d6963f7d28e17f72"),
            ("sha1", "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (
                "sha256",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
        ] {
            assert_eq!(hex(digest(name, b"abc")), want, "{name}");
        }
        assert_eq!(digest("crc", b""), None);
        // RFC 4231, test case 2; and a key longer than a block (test case 6).
        assert_eq!(
            hex(hmac("sha256", b"Jefe", b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        let text = b"Test Using Larger Than Block-Size Key - Hash Key First";
        assert_eq!(
            hex(hmac("sha256", &[0xaa; 131], text)),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }
}

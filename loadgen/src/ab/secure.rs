//! Owns ab's TLS: `-f`, `-Z`, `-E`, `-I`, and what the report says of a session, in OpenSSL's words.
//! Must not know sockets. Certificates of servers are not verified, as in ab.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{cipher_suite as suite, default_provider};
use rustls::{ClientConfig, ClientConnection, NamedGroup, SupportedCipherSuite};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::{AbError, Options};
use crate::tls::TrustAny;

/// Each suite with OpenSSL's name for it and the cipher's bits.
const SUITES: [(SupportedCipherSuite, &str, u16); 9] = [
    (
        suite::TLS13_AES_256_GCM_SHA384,
        "TLS_AES_256_GCM_SHA384",
        256,
    ),
    (
        suite::TLS13_CHACHA20_POLY1305_SHA256,
        "TLS_CHACHA20_POLY1305_SHA256",
        256,
    ),
    (
        suite::TLS13_AES_128_GCM_SHA256,
        "TLS_AES_128_GCM_SHA256",
        128,
    ),
    (
        suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        256,
    ),
    (
        suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES256-GCM-SHA384",
        256,
    ),
    (
        suite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        256,
    ),
    (
        suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-CHACHA20-POLY1305",
        256,
    ),
    (
        suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        128,
    ),
    (
        suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256",
        128,
    ),
];

/// What every connection of a run needs for TLS.
pub(super) struct Security {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// The name in the handshake, for the report; none with `-I` or for an address.
    pub(super) shown_name: Option<String>,
}

impl Security {
    /// # Errors
    /// A suite, protocol version, certificate file or server name that cannot be used.
    pub(super) fn new(options: &Options) -> Result<Security, AbError> {
        let versions = versions(options)?;
        let only_13 = versions == [&rustls::version::TLS13];
        let provider = CryptoProvider {
            cipher_suites: chosen(options.ciphers.as_deref(), only_13)?,
            ..default_provider()
        };
        let provider = Arc::new(provider);
        let failed = |e: rustls::Error| AbError::new(1, format!("ab: TLS: {e}\n"));
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&versions)
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAny(provider)));
        let mut config = match &options.certificate {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let (chain, key) = certificate(path)?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|_| unusable_key(path))?
            }
        };
        config.resumption = rustls::client::Resumption::disabled();
        let host = options.host_header().unwrap_or(&options.url.host);
        let without_port = host.rsplit_once(':').map_or(host, |(name, port)| {
            let is_port = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
            if is_port && !name.contains(':') {
                name
            } else {
                host
            }
        });
        let name = ServerName::try_from(without_port.to_owned())
            .map_err(|e| AbError::new(1, format!("ab: TLS server name {host:?}: {e}\n")))?;
        let dns = matches!(name, ServerName::DnsName(_)) && !options.no_server_name;
        config.enable_sni = dns;
        Ok(Security {
            config: Arc::new(config),
            shown_name: dns.then(|| host.to_owned()),
            name,
        })
    }

    /// A new session.
    pub(super) fn session(&self) -> Result<ClientConnection, rustls::Error> {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone())
    }
}

fn versions(options: &Options) -> Result<Vec<&'static rustls::SupportedProtocolVersion>, AbError> {
    let (two, three) = (&rustls::version::TLS12, &rustls::version::TLS13);
    let Some(text) = &options.protocol else {
        return Ok(vec![three, two]);
    };
    let upper = text.to_ascii_uppercase();
    let begins = |name: &str| upper.starts_with(name);
    if begins("TLS1.2") {
        Ok(vec![two])
    } else if begins("TLS1.3") {
        Ok(vec![three])
    } else if begins("SSL") || begins("TLS1") {
        Err(AbError::new(
            1,
            format!(
                "ab: -f {text}: only TLS1.2, TLS1.3 and ALL are supported; older versions are not safe\n"
            ),
        ))
    } else {
        // ab takes every other word for ALL.
        Ok(vec![three, two])
    }
}

/// The suites that an OpenSSL cipher list names, in its order. As in OpenSSL it says nothing about the suites of TLS 1.3
/// unless that is the only version.
fn chosen(list: Option<&str>, only_13: bool) -> Result<Vec<SupportedCipherSuite>, AbError> {
    let all = || SUITES.iter().copied();
    let Some(list) = list else {
        return Ok(all().map(|(suite, ..)| suite).collect());
    };
    let is_13 = |name: &str| name.starts_with("TLS_");
    let mut picked: Vec<&str> = Vec::new();
    for word in list.split([':', ',', ' ']).filter(|w| !w.is_empty()) {
        let (remove, name) = match word.strip_prefix(['!', '-']) {
            Some(name) => (true, name),
            None => (false, word.trim_start_matches('+')),
        };
        let matching: Vec<&str> = all()
            .map(|(_, known, _)| known)
            .filter(|known| is_13(known) == only_13 && fits(name, known))
            .collect();
        picked.retain(|p| !matching.contains(p));
        if !remove {
            picked.extend(matching);
        }
    }
    if picked.is_empty() {
        let names: Vec<&str> = all().map(|(_, name, _)| name).collect();
        return Err(AbError::new(
            1,
            format!(
                "error setting ciphersuite list [{list}]\nab: known suites: {}\n",
                names.join(" ")
            ),
        ));
    }
    let find = |name: &str| all().find(|(_, known, _)| *known == name);
    let mut suites: Vec<_> = match only_13 {
        true => Vec::new(),
        false => all()
            .filter(|(_, name, _)| is_13(name))
            .map(|(suite, ..)| suite)
            .collect(),
    };
    suites.extend(picked.into_iter().filter_map(find).map(|(suite, ..)| suite));
    Ok(suites)
}

/// Whether a word of a cipher list means this suite: its name, or parts of it joined by `+`.
fn fits(word: &str, known: &str) -> bool {
    if word == known || matches!(word, "ALL" | "DEFAULT" | "COMPLEMENTOFDEFAULT" | "HIGH") {
        return true;
    }
    let part = |part: &str| match part {
        "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" | "AEAD" | "TLSv1.2" => true,
        "AES128" | "AES256" | "CHACHA20" | "ECDSA" | "aECDSA" | "RSA" | "aRSA" | "SHA256"
        | "SHA384" => known.contains(part.trim_start_matches('a')),
        "AES" | "AESGCM" => known.contains("AES"),
        _ => false,
    };
    word.split('+').all(part)
}

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn certificate(path: &str) -> Result<Identity, AbError> {
    let none = || AbError::new(1, format!("unable to get certificate from '{path}'\n"));
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|_| none())?
        .collect::<Result<_, _>>()
        .map_err(|_| none())?;
    if chain.is_empty() {
        return Err(none());
    }
    let key = PrivateKeyDer::from_pem_file(path)
        .map_err(|_| AbError::new(1, format!("unable to get private key from '{path}'\n")))?;
    Ok((chain, key))
}

fn unusable_key(path: &str) -> AbError {
    AbError::new(
        1,
        format!("private key does not match the certificate public key in {path}\n"),
    )
}

/// Protocol, suite, bits of the server's key and of the cipher: `TLSv1.3,TLS_AES_256_GCM_SHA384,2048,256`.
pub(super) fn summary(session: &ClientConnection) -> Option<String> {
    let version = match session.protocol_version()? {
        rustls::ProtocolVersion::TLSv1_2 => "TLSv1.2",
        rustls::ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => "unknown",
    };
    let used = session.negotiated_cipher_suite()?.suite();
    let (_, name, bits) = SUITES.iter().find(|(known, ..)| known.suite() == used)?;
    let leaf = session.peer_certificates().and_then(|chain| chain.first());
    let key_bits = leaf.and_then(|c| key_bits(c)).unwrap_or(0);
    Some(format!("{version},{name},{key_bits},{bits}"))
}

/// The key exchange, such as `X25519 253 bits`.
pub(super) fn temp_key(session: &ClientConnection) -> Option<String> {
    let group = session.negotiated_key_exchange_group()?.name();
    Some(match group {
        NamedGroup::X25519 => "X25519 253 bits".to_owned(),
        NamedGroup::secp256r1 => "ECDH prime256v1 256 bits".to_owned(),
        NamedGroup::secp384r1 => "ECDH secp384r1 384 bits".to_owned(),
        other => format!("{other:?}"),
    })
}

/// What `-v 2` prints of a session.
pub(super) fn shown(session: &ClientConnection) -> String {
    let summary = summary(session).unwrap_or_default();
    let mut parts = summary.split(',');
    let (version, name) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    let (_, bits) = (parts.next(), parts.next().unwrap_or(""));
    format!(
        "\nTransport Protocol      :{version}\nCipher Suite Protocol   :{version}\nCipher Suite Name       :{name}\nCipher Suite Cipher Bits:{bits} ({bits})\n"
    )
}

/// The bits of the public key in a certificate (RFC 5280), as OpenSSL counts them.
fn key_bits(certificate: &[u8]) -> Option<usize> {
    let (_, whole, _) = der(certificate)?;
    let (_, mut fields, _) = der(whole)?;
    // An optional version, then serial number, algorithm, issuer, validity, subject.
    if fields.first() == Some(&0xa0) {
        fields = der(fields)?.2;
    }
    for _ in 0..5 {
        fields = der(fields)?.2;
    }
    let (_, key, _) = der(fields)?;
    let (_, algorithm, after) = der(key)?;
    let (_, oid, parameters) = der(algorithm)?;
    let (_, bits, _) = der(after)?;
    const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
    match oid {
        RSA => {
            // One byte says how many bits are unused; then a sequence that begins with the modulus.
            let (_, numbers, _) = der(bits.get(1..)?)?;
            let (_, modulus, _) = der(numbers)?;
            let first = modulus.iter().position(|b| *b != 0)?;
            let digits = &modulus[first..];
            Some(digits.len() * 8 - digits.first()?.leading_zeros() as usize)
        }
        EC => match der(parameters)?.1 {
            [0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7] => Some(256),
            [0x2b, 0x81, 4, 0, 0x22] => Some(384),
            [0x2b, 0x81, 4, 0, 0x23] => Some(521),
            _ => None,
        },
        ED25519 => Some(253),
        _ => None,
    }
}

/// Splits one value of DER off: tag, content, what follows.
fn der(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let count = usize::from(long & 0x7f);
            if !(1..=4).contains(&count) {
                return None;
            }
            let (digits, rest) = rest.split_at_checked(count)?;
            let length = digits.iter().fold(0, |n, b| n << 8 | usize::from(*b));
            (length, rest)
        }
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((*tag, content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str, only_13: bool) -> Vec<&'static str> {
        let name = |s: SupportedCipherSuite| {
            let known = SUITES.iter().find(|(k, ..)| k.suite() == s.suite());
            known.unwrap().1
        };
        chosen(Some(list), only_13)
            .unwrap()
            .into_iter()
            .map(name)
            .collect()
    }

    #[test]
    fn cipher_lists_are_read_as_openssl_reads_them() {
        assert_eq!(chosen(None, false).unwrap().len(), 9);
        let one = names("ECDHE-RSA-AES128-GCM-SHA256", false);
        assert_eq!(one.len(), 4);
        assert_eq!(one[3], "ECDHE-RSA-AES128-GCM-SHA256");
        assert_eq!(names("ALL:!AES128:-CHACHA20", false).len(), 5);
        assert_eq!(names("EECDH+AESGCM", false).len(), 7);
        assert_eq!(
            names("TLS_AES_128_GCM_SHA256", true),
            ["TLS_AES_128_GCM_SHA256"]
        );
        let error = chosen(Some("nope"), false).unwrap_err();
        assert!(
            error
                .said
                .starts_with("error setting ciphersuite list [nope]\n")
        );
        assert_eq!(error.code, 1);
    }

    #[test]
    fn damaged_certificates_have_no_key() {
        for bytes in [
            &b""[..],
            b"\x30",
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x03\x30\x01\x02",
        ] {
            assert_eq!(key_bits(bytes), None);
        }
    }
}

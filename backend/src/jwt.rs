//! HS256 tokens and password digests: sign, verify in constant time, check expiry.
//! Must not know HTTP or the database.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// What a token says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// User id.
    pub sub: i64,
    /// `user` or `admin`.
    pub role: String,
    /// `standard`, `free` or `premium`.
    pub tier: String,
    /// Issued, Unix seconds.
    pub iat: u64,
    /// Expires, Unix seconds.
    pub exp: u64,
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

/// Signs `claims`.
pub fn sign(claims: &Claims, secret: &[u8]) -> String {
    let body = serde_json::to_vec(claims).unwrap_or_default();
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(HEADER),
        URL_SAFE_NO_PAD.encode(body)
    );
    let tag = mac(secret, signed.as_bytes()).finalize().into_bytes();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// The claims of a token, or the reason (a label value) why it is refused.
pub fn verify(token: &str, secret: &[u8], now_s: u64) -> Result<Claims, &'static str> {
    let (signed, tag) = token.rsplit_once('.').ok_or("malformed")?;
    let (header, body) = signed.split_once('.').ok_or("malformed")?;
    let header = URL_SAFE_NO_PAD.decode(header).map_err(|_| "malformed")?;
    let header: serde_json::Value = serde_json::from_slice(&header).map_err(|_| "malformed")?;
    if header.get("alg").and_then(|a| a.as_str()) != Some("HS256") {
        return Err("algorithm");
    }
    let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| "malformed")?;
    mac(secret, signed.as_bytes())
        .verify_slice(&tag)
        .map_err(|_| "signature")?;
    let body = URL_SAFE_NO_PAD.decode(body).map_err(|_| "malformed")?;
    let claims: Claims = serde_json::from_slice(&body).map_err(|_| "malformed")?;
    if now_s >= claims.exp {
        Err("expired")
    } else {
        Ok(claims)
    }
}

/// Digest of a password, salted with the address. A fixture: real services use a slow hash.
pub fn digest(email: &str, password: &str) -> String {
    URL_SAFE_NO_PAD.encode(
        Sha256::new()
            .chain_update(email)
            .chain_update([0])
            .chain_update(password)
            .finalize(),
    )
}

fn mac(secret: &[u8], text: &[u8]) -> Hmac<Sha256> {
    let mut mac =
        <Hmac<Sha256> as Mac>::new_from_slice(secret).expect("HMAC takes keys of any length");
    mac.update(text);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_its_own_and_refuses_the_rest() {
        let claims = Claims {
            sub: 7,
            role: "user".into(),
            tier: "free".into(),
            iat: 1,
            exp: 100,
        };
        let token = sign(&claims, b"s");
        assert_eq!(verify(&token, b"s", 99), Ok(claims));
        assert_eq!(verify(&token, b"s", 100), Err("expired"));
        assert_eq!(verify(&token, b"t", 1), Err("signature"));
        assert_eq!(verify("a.b", b"s", 1), Err("malformed"));
        let none = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), "e30");
        assert_eq!(verify(&none, b"s", 1), Err("algorithm"));
    }
}

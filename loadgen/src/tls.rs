//! Owns the TLS client settings: whom to trust, the client's own certificate, versions, and, when asked for, the
//! verifier that trusts any certificate.
//! Knows nothing of HTTP, plans or reports.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::transport::{TlsVersion, Transport};

/// A client configuration that trusts the web's roots, the transport's own authorities, or, when `insecure`, any
/// certificate at all; with the transport's client certificate and version. ALPN offers the transport's protocol only.
///
/// # Errors
/// A certificate or key that cannot be read or used, with what it should be.
pub(crate) fn client_config(
    insecure: bool,
    transport: &Transport,
) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions: &[&rustls::SupportedProtocolVersion] = match transport.tls {
        None => rustls::ALL_VERSIONS,
        Some(TlsVersion::V12) => &[&rustls::version::TLS12],
        Some(TlsVersion::V13) => &[&rustls::version::TLS13],
    };
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|e| e.to_string())?;
    let builder = if insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(TrustAny(provider)))
    } else {
        let mut roots = RootCertStore::empty();
        match &transport.ca {
            Some(pem) => {
                for cert in certificates(pem, "the authorities' file")? {
                    roots
                        .add(cert)
                        .map_err(|e| format!("an authority cannot be trusted: {e}"))?;
                }
            }
            None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        }
        builder.with_root_certificates(roots)
    };
    let mut config = match &transport.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates(chain, "the client certificate's file")?;
            let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| {
                format!("the key's file holds no private key in PEM (PKCS#8, SEC1 or PKCS#1, not encrypted): {e}")
            })?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| format!("the client certificate and key do not go together: {e}"))?
        }
    };
    let protocol: &[u8] = if transport.http2 { b"h2" } else { b"http/1.1" };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = read.map_err(|e| format!("{what} is not PEM: {e}"))?;
    if all.is_empty() {
        return Err(format!(
            "{what} holds no certificate: expected -----BEGIN CERTIFICATE-----"
        ));
    }
    Ok(all)
}

/// Accepts every certificate but still checks that the peer holds its key.
#[derive(Debug)]
pub(crate) struct TrustAny(pub(crate) Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

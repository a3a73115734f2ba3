//! Owns one TLS session over bytes that somebody else moves: what arrives goes in, plain text and what is to be sent come
//! out. Knows no socket and no HTTP.

use std::io::{self, BufRead, Write};
use std::sync::Arc;

use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;

/// A client's side of a connection.
pub(super) struct Session {
    tls: ClientConnection,
    begun: bool,
    closed: bool,
}

impl Session {
    pub(super) fn new(
        config: &Arc<ClientConfig>,
        name: &ServerName<'static>,
    ) -> Result<Session, rustls::Error> {
        Ok(Session {
            tls: ClientConnection::new(Arc::clone(config), name.clone())?,
            begun: false,
            closed: false,
        })
    }

    /// False before the first call of [`Session::decrypt`].
    pub(super) fn begun(&self) -> bool {
        self.begun
    }

    pub(super) fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// The peer said that it sends no more.
    pub(super) fn peer_closed(&self) -> bool {
        self.closed
    }

    /// Takes what arrived and gives the plain text, piece by piece.
    ///
    /// # Errors
    /// When the peer breaks the protocol or its certificate is not trusted; an alert is then to be sent.
    pub(super) fn decrypt(
        &mut self,
        mut wire: &[u8],
        mut plain: impl FnMut(&[u8]),
    ) -> Result<(), rustls::Error> {
        self.begun = true;
        while !wire.is_empty() {
            if !matches!(self.tls.read_tls(&mut wire), Ok(n) if n > 0) {
                break;
            }
            let state = self.tls.process_new_packets()?;
            self.closed |= state.peer_has_closed();
            let mut left = state.plaintext_bytes_to_read();
            while left > 0 {
                let mut reader = self.tls.reader();
                let Ok(chunk) = reader.fill_buf() else { break };
                let n = chunk.len();
                if n == 0 {
                    break;
                }
                plain(chunk);
                reader.consume(n);
                left = left.saturating_sub(n);
            }
        }
        Ok(())
    }

    /// Puts what the session itself has to say into `out`; false when that is nothing.
    pub(super) fn answer(&mut self, out: &mut Vec<u8>) -> bool {
        out.clear();
        while self.tls.wants_write() {
            // Writing to memory does not fail.
            let _ = self.tls.write_tls(out);
        }
        !out.is_empty()
    }

    /// Replaces the plain text by its records.
    pub(super) fn encrypt(&mut self, text: &mut Vec<u8>) -> io::Result<()> {
        self.tls.writer().write_all(text)?;
        self.answer(text);
        Ok(())
    }
}

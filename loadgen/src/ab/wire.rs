//! Owns one non-blocking connection of ab: opening it from an address with buffers, plain or TLS, read and write.
//! Must not know HTTP.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};

/// A connection.
pub(super) struct Wire {
    stream: TcpStream,
    tls: Option<Box<rustls::ClientConnection>>,
}

/// Begins to connect; ends when [`Wire::connected`] says so.
///
/// # Errors
/// What the system says at once, with the step that failed as ab names it.
pub(super) fn open(
    to: SocketAddr,
    from: Option<IpAddr>,
    buffers: usize,
    tls: Option<rustls::ClientConnection>,
) -> Result<Wire, (&'static str, io::Error)> {
    let at = |step| move |e| (step, e);
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))
        .map_err(at("socket"))?;
    if let Some(from) = from {
        socket
            .bind(&SocketAddr::new(from, 0).into())
            .map_err(at("bind"))?;
    }
    socket
        .set_nonblocking(true)
        .map_err(at("socket nonblock"))?;
    if buffers > 0 {
        socket
            .set_send_buffer_size(buffers)
            .map_err(at("socket send buffer"))?;
        socket
            .set_recv_buffer_size(buffers)
            .map_err(at("socket receive buffer"))?;
    }
    // A large body goes out in pieces; none of them waits for an acknowledgement.
    let _ = socket.set_tcp_nodelay(true);
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(e) if in_progress(&e) => {}
        Err(e) => return Err(("apr_socket_connect()", e)),
    }
    Ok(Wire {
        stream: TcpStream::from_std(socket.into()),
        tls: tls.map(Box::new),
    })
}

fn in_progress(error: &io::Error) -> bool {
    // EINPROGRESS has no stable kind in std; it is 115 on Linux and 36 on macOS and the BSDs.
    error.kind() == io::ErrorKind::WouldBlock || matches!(error.raw_os_error(), Some(115 | 36))
}

impl Wire {
    /// For the poll.
    pub(super) fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// Whether the connection stands; an error when it cannot be made.
    pub(super) fn connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// TLS is used.
    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Goes on with the TLS handshake. True when it is complete.
    ///
    /// # Errors
    /// `WouldBlock` when the peer's turn has come; else why it failed.
    pub(super) fn handshake(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        loop {
            while tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
            if !tls.is_handshaking() {
                return Ok(true);
            }
            if tls.read_tls(&mut self.stream)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Err(e) = tls.process_new_packets() {
                // The peer is told why, as far as it still listens.
                let _ = tls.write_tls(&mut self.stream);
                return Err(io::Error::new(io::ErrorKind::InvalidData, e));
            }
        }
    }

    /// The TLS session, once the handshake is complete.
    pub(super) fn session(&self) -> Option<&rustls::ClientConnection> {
        self.tls.as_deref()
    }

    /// Reads some bytes; 0 is the end.
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.stream.read(into);
        };
        loop {
            match tls.reader().read(into) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                // Closed without saying so: the length check says whether something is missing.
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            tls.read_tls(&mut self.stream)?;
            tls.process_new_packets()
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            while tls.wants_write() {
                tls.write_tls(&mut self.stream)?;
            }
        }
    }

    /// Writes some bytes; how many left, or were taken to be encrypted.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.stream.write(bytes);
        };
        let taken = tls.writer().write(bytes)?;
        self.flush()?;
        Ok(taken)
    }

    /// Sends what is encrypted and still here; true when nothing is left.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        while tls.wants_write() {
            match tls.write_tls(&mut self.stream) {
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Says good-bye; the connection closes when this is dropped.
    pub(super) fn close(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.stream);
        }
    }
}

//! As much HTTP/1.1 as a bench needs: a client on one connection, and a server of ready bodies.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Outcome;

/// One connection to a server.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub fn connect(addr: SocketAddr) -> Outcome<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(120)))?;
        Ok(Client {
            stream: BufReader::new(stream),
        })
    }

    pub fn get(&mut self, path: &str) -> Outcome<Vec<u8>> {
        self.send("GET", path, "", &[])
    }

    pub fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> Outcome<Vec<u8>> {
        self.send("POST", path, headers, body)
    }

    /// The body of a 2xx answer.
    fn send(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) -> Outcome<Vec<u8>> {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: bench\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.stream.get_mut().write_all(&request)?;
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status: u16 = line.split(' ').nth(1).unwrap_or("").parse().unwrap_or(0);
        let (mut length, mut chunked) = (0usize, false);
        loop {
            let mut header = String::new();
            if self.stream.read_line(&mut header)? <= 2 {
                break;
            }
            let header = header.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
            chunked |= header.starts_with("transfer-encoding:") && header.contains("chunked");
        }
        let mut answer = Vec::new();
        if chunked {
            loop {
                let mut size = String::new();
                self.stream.read_line(&mut size)?;
                let size = usize::from_str_radix(size.trim(), 16)?;
                let at = answer.len();
                answer.resize(at + size, 0);
                self.stream.read_exact(&mut answer[at..])?;
                self.stream.read_line(&mut String::new())?;
                if size == 0 {
                    break;
                }
            }
        } else if status != 204 {
            answer.resize(length, 0);
            self.stream.read_exact(&mut answer)?;
        }
        if !(200..300).contains(&status) {
            let text = String::from_utf8_lossy(&answer);
            return Err(format!("{method} {path}: {} {text}", line.trim()).into());
        }
        Ok(answer)
    }
}

/// Serves `bodies` in turn to whoever asks; counts answers.
pub fn serve(bodies: Vec<Vec<u8>>) -> Outcome<(SocketAddr, Arc<AtomicU64>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let served = Arc::new(AtomicU64::new(0));
    let (bodies, count) = (Arc::new(bodies), Arc::clone(&served));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (bodies, count) = (Arc::clone(&bodies), Arc::clone(&count));
            std::thread::spawn(move || answer_all(stream, &bodies, &count));
        }
    });
    Ok((addr, served))
}

fn answer_all(stream: TcpStream, bodies: &[Vec<u8>], count: &AtomicU64) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut any = false;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if line.len() <= 2 {
                break;
            }
            any = true;
        }
        if any {
            let body = &bodies[count.load(Ordering::Relaxed) as usize % bodies.len()];
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            reader.get_mut().write_all(head.as_bytes()).ok()?;
            reader.get_mut().write_all(body).ok()?;
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

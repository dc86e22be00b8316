//! A client that keeps one connection. It does only what HTTP/1.1 requires, so that the server is measured and not the
//! client.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The longest answer, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Connects from another address of this machine.
pub(crate) async fn connect_from(
    client: Ipv4Addr,
    address: SocketAddr,
) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((client, 0).into())?;
    socket.connect(address).await
}

/// A connection that stays open between requests.
pub(crate) struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
}

fn wrong(what: impl Into<String>) -> std::io::Error {
    std::io::Error::other(what.into())
}

impl Connection {
    pub(crate) async fn open(address: &str) -> std::io::Result<Self> {
        Self::over(TcpStream::connect(address).await?)
    }

    /// Opens a connection from another address of this machine.
    pub(crate) async fn open_from(client: Ipv4Addr, address: SocketAddr) -> std::io::Result<Self> {
        Self::over(connect_from(client, address).await?)
    }

    fn over(socket: TcpStream) -> std::io::Result<Self> {
        socket.set_nodelay(true)?;
        Ok(Self { socket, buffer: Vec::with_capacity(64 << 10) })
    }

    /// Sends a request, and reads the answer to its end.
    ///
    /// # Errors
    /// The connection ends early, or the answer is invalid.
    pub(crate) async fn answer(&mut self, request: &[u8]) -> std::io::Result<Answer<'_>> {
        self.socket.write_all(request).await?;
        self.buffer.clear();
        let found = loop {
            if self.buffer.len() > ANSWER_BYTES_MAX {
                return Err(wrong("an answer has no end"));
            }
            self.more().await?;
            if let Some(head) = head(&self.buffer)? {
                break head;
            }
        };
        let end = found.bytes + found.length;
        self.buffer.reserve(end.saturating_sub(self.buffer.len()));
        while self.buffer.len() < end {
            self.more().await?;
        }
        let (head, body) = self.buffer[..end].split_at(found.bytes);
        Ok(Answer { status: found.status, head: text(head)?, body })
    }

    /// Like [`Connection::answer`], for the body of an answer that has to be 200.
    ///
    /// # Errors
    /// The connection ends early, or the answer is invalid or not 200.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> std::io::Result<&[u8]> {
        let Answer { status, head, body } = self.answer(request).await?;
        if status != 200 {
            let first = head.lines().next().unwrap_or_default();
            let body: String = String::from_utf8_lossy(body).chars().take(200).collect();
            return Err(wrong(format!("an answer is not 200: {first} {body}")));
        }
        Ok(body)
    }

    async fn more(&mut self) -> std::io::Result<()> {
        match self.socket.read_buf(&mut self.buffer).await? {
            0 => Err(wrong("the server closed the connection")),
            _ => Ok(()),
        }
    }
}

/// An answer in the buffer of its connection.
pub(crate) struct Answer<'c> {
    pub(crate) status: u16,
    pub(crate) head: &'c str,
    pub(crate) body: &'c [u8],
}

impl Answer<'_> {
    /// The value of a header.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        value(self.head, name)
    }
}

/// What the head of an answer says.
struct Head {
    status: u16,
    /// The head's own length.
    bytes: usize,
    /// The length of the body.
    length: usize,
}

/// Reads the head of an answer; `None`: it is not complete yet.
fn head(buffer: &[u8]) -> std::io::Result<Option<Head>> {
    let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let bytes = end + 4;
    let head = text(&buffer[..bytes])?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    // An answer 304 has no body, whatever its head says.
    let length = match status {
        304 => Some(0),
        _ => value(head, "content-length").and_then(|length| length.parse().ok()),
    };
    let length = length.ok_or_else(|| wrong("an answer does not say its length"))?;
    Ok(Some(Head { status, bytes, length }))
}

fn text(head: &[u8]) -> std::io::Result<&str> {
    std::str::from_utf8(head).map_err(|_| wrong("the head of an answer is no text"))
}

fn value<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// Makes a request for `path`. With `page`, the request is that of a browser.
pub(crate) fn request(path: &str, page: bool) -> Vec<u8> {
    let accept = if page { "text/html" } else { "application/json" };
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\naccept: {accept}\r\n\r\n").into_bytes()
}

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

    /// Sends a request that [`request`] has made, and reads the answer to its end.
    ///
    /// # Errors
    /// The connection ends early, or the answer is invalid or not 200.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> std::io::Result<&[u8]> {
        self.socket.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.buffer.len() > ANSWER_BYTES_MAX {
                return Err(wrong("an answer has no end"));
            }
            if self.socket.read_buf(&mut self.buffer).await? == 0 {
                return Err(wrong("the server closed the connection"));
            }
            if let Some((head, length)) = head(&self.buffer)? {
                self.buffer.reserve(length.saturating_sub(self.buffer.len() - head));
                while self.buffer.len() < head + length {
                    if self.socket.read_buf(&mut self.buffer).await? == 0 {
                        return Err(wrong("the server closed the connection"));
                    }
                }
                return Ok(&self.buffer[head..head + length]);
            }
        }
    }
}

/// The offset of the body, and the body's length; `None`: the head is not complete yet.
fn head(buffer: &[u8]) -> std::io::Result<Option<(usize, usize)>> {
    let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let head = String::from_utf8_lossy(&buffer[..end]);
    if !head.starts_with("HTTP/1.1 200 ") {
        return Err(wrong(format!(
            "an answer is not 200: {} {}",
            head.lines().next().unwrap_or_default(),
            String::from_utf8_lossy(&buffer[end + 4..]).chars().take(200).collect::<String>()
        )));
    }
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        value.trim().parse().ok().filter(|_| name.eq_ignore_ascii_case("content-length"))
    });
    let length = length.ok_or_else(|| wrong("an answer does not say its length"))?;
    Ok(Some((end + 4, length)))
}

/// Makes a request for `path`. With `page`, the request is that of a browser.
pub(crate) fn request(path: &str, page: bool) -> Vec<u8> {
    let accept = if page { "text/html" } else { "application/json" };
    format!("GET {path} HTTP/1.1\r\nhost: bench\r\naccept: {accept}\r\n\r\n").into_bytes()
}

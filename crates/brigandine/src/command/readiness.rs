//! What the running server says of itself: commands ask it for `/readyz`, at the address that it noted in the state
//! directory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::app::{self, RunningServer, Served};
use crate::model;

/// How long the server may take to answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// The most bytes of its answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What commands use of the answer of `/readyz`.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Readiness {
    pub(super) reasons: Vec<String>,
    pub(super) notice: String,
    pub(super) tasks: Vec<String>,
}

/// What keeps the server of `state` from its work, in sentences for people; `None`: nothing does, or there is no server
/// that says so.
pub(super) async fn hindrance(state: &Path) -> Option<String> {
    let server = app::running_server(state).filter(|server| server.address.is_some())?;
    let Readiness { reasons, notice, tasks: _ } = readiness(state, Some(&server)).await;
    let all: Vec<String> =
        reasons.into_iter().chain([notice]).filter(|it| !it.is_empty()).collect();
    (!all.is_empty()).then(|| all.join(" "))
}

/// Asks the server. If it does not answer, that is the reason for which it is not ready.
pub(super) async fn readiness(state: &Path, server: Option<&RunningServer>) -> Readiness {
    let not = |reason: String| Readiness { reasons: vec![reason], ..Readiness::default() };
    let Some(server) = server else {
        let served = app::served(state);
        let state = state.display();
        return not(match served {
            Served::No => format!("No server runs on {state}."),
            Served::Yes | Served::Locked => {
                format!("A server starts or ends on {state}, or `brigandine prune` runs.")
            }
        });
    };
    let Some(address) = server.address else {
        return not("The server does not answer over HTTP: it runs with --one-shot.".to_owned());
    };
    let answer = tokio::time::timeout(PATIENCE, ask(address, &server.secret)).await;
    let answer = answer.unwrap_or_else(|_| {
        Err(std::io::Error::other(format!("no answer in {} s", PATIENCE.as_secs())))
    });
    match answer {
        Ok(readiness) => readiness,
        Err(error) => not(format!("The server does not answer at http://{address}: {error}.")),
    }
}

/// Asks for `/readyz`, with the secret by which the server knows commands: a private one tells its reasons to them.
async fn ask(mut address: SocketAddr, secret: &str) -> std::io::Result<Readiness> {
    match address.ip() {
        IpAddr::V4(any) if any.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(any) if any.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    let mut socket = TcpStream::connect(address).await?;
    // Every server answers for this host, whatever `hosts` says.
    let secret = match secret {
        // A server of an older version, or one that waits to start.
        "" => String::new(),
        secret => format!("authorization: Bearer {secret}\r\n"),
    };
    let request = format!(
        "GET /readyz HTTP/1.0\r\nhost: localhost\r\naccept: application/json\r\n{secret}\r\n"
    );
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    socket.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    serde_json::from_str(body).map_err(|_| {
        let first = head.lines().next().unwrap_or_default();
        std::io::Error::other(format!("it says {}", model::one_line(first, 100)))
    })
}

//! A site over a database with golden contents, asked through a real socket: what is tested is what
//! a client sees, byte by byte.

use std::path::Path;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use super::{Change, Changes, Parts, Site, Token, serve};
use crate::health::Health;
use crate::log::Logs;
use crate::model::{BuildId, Event};
use crate::store::Database;

/// No test may take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A served site.
pub(crate) struct Served {
    pub(crate) state: tempfile::TempDir,
    pub(crate) logs: Logs,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) closing: watch::Sender<bool>,
    address: std::net::SocketAddr,
    server: JoinHandle<()>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A site over the golden contents.
pub(crate) async fn served() -> Served {
    served_with(include_str!("../../tests/data/api/fill.sql"), 100).await
}

/// A site over what `fill` stores.
pub(crate) async fn served_with(fill: &str, connections_max: usize) -> Served {
    let state = tempfile::tempdir().expect("a temporary directory");
    let path = state.path().join("test.db");
    let database =
        Database::open(&path, true, Duration::from_secs(30)).await.expect("the database opens");
    let text = format!("{}\nBEGIN;{fill};COMMIT;", include_str!("../../schema.sql"));
    database
        .exclusive(move |conn: &mut rusqlite::Connection| conn.execute_batch(&text))
        .await
        .expect("the schema and the contents");
    let logs = Logs::new(state.path(), 1 << 20);
    let (events, _) = broadcast::channel(16);
    let (closing, closed) = watch::channel(false);
    let site = Site::new(Parts {
        database,
        events: Box::new({
            let events = events.clone();
            move || events.subscribe()
        }),
        logs: logs.clone(),
        health: Health::unwatched(),
        state: state.path().to_owned(),
        systems: vec!["x86_64-linux".to_owned()],
        closing: closed.clone(),
        token: Some(token(state.path())),
        changes: Box::new(Echo),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(serve(listener, site.router(), connections_max, closed));
    Served { state, logs, events, closing, address, server }
}

/// The token of every served site.
pub(crate) const TOKEN: &str = "0123456789abcdef";

fn token(state: &Path) -> Token {
    use std::os::unix::fs::PermissionsExt;
    let path = state.join("token");
    std::fs::write(&path, TOKEN).expect("the token");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("its mode");
    Token::read(&path).expect("a token")
}

/// Says what it was asked.
struct Echo;

impl Changes for Echo {
    fn cancel(&self, id: BuildId) -> Change<'_> {
        Box::pin(async move { Ok((StatusCode::OK, json!({"cancel": id}))) })
    }

    fn restart(&self, id: BuildId) -> Change<'_> {
        Box::pin(async move { Ok((StatusCode::OK, json!({"restart": id}))) })
    }

    fn evaluate(&self, name: String) -> Change<'_> {
        Box::pin(async move { Ok((StatusCode::ACCEPTED, json!({"evaluate": name}))) })
    }
}

impl Served {
    /// A connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server listens")
    }

    /// Sends `request` and reads until the server closes.
    pub(crate) async fn raw(&self, request: &str) -> String {
        let mut socket = self.connect().await;
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        tokio::time::timeout(LIMIT, socket.read_to_end(&mut answer))
            .await
            .expect("an answer in time")
            .expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Asks for `path` by `method`.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        parse(&self.raw(&request).await)
    }

    /// Asks for `path` as a program does.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    /// Asks for `path` as a browser does.
    pub(crate) async fn page(&self, path: &str) -> Answer {
        self.ask("GET", path, "accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n").await
    }

    /// Puts a file into the state directory.
    pub(crate) fn put(&self, path: &str, contents: &[u8]) {
        let path = self.state.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a folder");
        std::fs::write(path, contents).expect("a file");
    }

    /// Tells the server to end and waits for it.
    pub(crate) async fn close(self) {
        self.closing.send_replace(true);
        tokio::time::timeout(LIMIT, self.server).await.expect("closes in time").expect("no panic");
    }
}

fn parse(answer: &str) -> Answer {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    let mut body = body.to_owned();
    if head.to_lowercase().contains("transfer-encoding: chunked") {
        body = unchunk(&body);
    }
    Answer { status, head: head.to_owned(), body }
}

fn unchunk(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        text.push_str(&rest[..size]);
        body = &rest[size + 2..];
    }
    text
}

#[tokio::test]
async fn fifty_requests_down_one_connection_are_answered_in_order() {
    let served = served().await;
    let mut requests = String::new();
    for n in 0..50 {
        let id = n % 8 + 1;
        let last = if n == 49 { "connection: close\r\n" } else { "" };
        requests.push_str(&format!("GET /build/{id} HTTP/1.1\r\nhost: x\r\n{last}\r\n"));
    }
    let answers = served.raw(&requests).await;
    let ids: Vec<usize> = answers
        .match_indices("\r\n\r\n{\"id\":")
        .filter_map(|(at, _)| answers[at + 10..].split(',').next()?.parse().ok())
        .collect();
    assert_eq!(ids, (0..50).map(|n| n % 8 + 1).collect::<Vec<_>>());
    assert_eq!(answers.matches("content-length: ").count(), 50);
    served.close().await;
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_400() {
    let served = served().await;
    for request in ["nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET /\u{1} HTTP/1.1\r\n\r\n"] {
        let answer = parse(&served.raw(request).await);
        assert_eq!(answer.status, 400, "{request:?}: {}", answer.head);
        assert_eq!(answer.header("content-length"), Some("0"), "{request:?}");
    }
    // A head without an end is cut off by its size, not kept for ever.
    let answer = served.raw(&format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(200_000))).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    served.close().await;
}

#[tokio::test]
async fn connections_above_the_bound_wait_and_are_then_answered() {
    let served = served_with("", 2).await;
    let first = served.connect().await;
    let second = served.connect().await;
    // Both places are taken before the third comes: an answer on each shows it.
    for mut socket in [first, second] {
        socket.write_all(b"GET /jobsets HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
        let mut head = [0; 12];
        socket.read_exact(&mut head).await.expect("an answer");
        assert_eq!(&head, b"HTTP/1.1 200");
        // Dropped here, which frees its place.
    }
    assert_eq!(served.get("/jobsets").await.status, 200);
    served.close().await;
}

#[tokio::test]
async fn closing_answers_open_requests_and_ends_streams() {
    let served = served().await;
    let mut stream = served.connect().await;
    stream.write_all(b"GET /live HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("sent");
    let mut start = vec![0; 300];
    let read = stream.read(&mut start).await.expect("the stream begins");
    assert!(String::from_utf8_lossy(&start[..read]).contains("200 OK"));
    served.close().await;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("the stream ends");
}

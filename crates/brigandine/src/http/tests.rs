//! A site over a database with golden contents, asked through a real socket: what is tested is what
//! a client sees, byte by byte.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinHandle;

use super::{Change, Changes, Parts, Site, Token, closed, serve};
use crate::config::Web;
use crate::health::Health;
use crate::log::Logs;
use crate::model::{BuildId, Event, Unused, UnusedPart};
use crate::store::Database;

/// No test may take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A served site.
pub(crate) struct Served {
    pub(crate) state: tempfile::TempDir,
    pub(crate) logs: Logs,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) closing: watch::Sender<bool>,
    /// A permit for each request that is worked on until the server closes.
    busy: Arc<Semaphore>,
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
    served_with(include_str!("../../tests/data/api/fill.sql"), Web::default()).await
}

/// A site over what `fill` stores.
pub(crate) async fn served_with(fill: &str, web: Web) -> Served {
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
    let busy = Arc::new(Semaphore::new(0));
    let site = Site::new(Parts {
        database,
        events: Box::new({
            let events = events.clone();
            move || events.subscribe()
        }),
        logs: logs.clone(),
        health: Health::unwatched(),
        unused: unused(),
        state: state.path().to_owned(),
        systems: vec!["x86_64-linux".to_owned()],
        closing: closed.clone(),
        token: Some(token(state.path())),
        changes: Box::new(Echo { busy: Arc::clone(&busy), closing: closed.clone() }),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let server = tokio::spawn(serve(listener, site.router(), web, closed));
    Served { state, logs, events, closing, busy, address, server }
}

/// Of each kind one.
fn unused() -> watch::Receiver<Vec<Unused>> {
    let one = |file: &str, what| Unused { file: file.to_owned(), what };
    let differs = UnusedPart::Differs {
        specification: "sample".to_owned(),
        keys: ["interval", "input source"].map(str::to_owned).to_vec(),
    };
    let new = (1..=12).map(|n| format!("new-{n}")).collect();
    let all = vec![
        one("/etc/brigandine/sample.toml", differs),
        one("/etc/brigandine/new.toml", UnusedPart::New(new)),
        one(
            "/etc/brigandine/<wrong>.toml",
            UnusedPart::Wrong("line 3: unknown key `x`".to_owned()),
        ),
    ];
    // What was sent last is there when the sender has gone.
    watch::Sender::new(all).subscribe()
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

/// A jobset whose evaluation is asked for until the server closes.
const BUSY: &str = "busy";

/// Says what it was asked.
struct Echo {
    busy: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

impl Changes for Echo {
    fn cancel(&self, id: BuildId) -> Change<'_> {
        Box::pin(async move { Ok((StatusCode::OK, json!({"cancel": id}))) })
    }

    fn restart(&self, id: BuildId) -> Change<'_> {
        Box::pin(async move { Ok((StatusCode::OK, json!({"restart": id}))) })
    }

    fn evaluate(&self, name: String) -> Change<'_> {
        Box::pin(async move {
            if name == BUSY {
                self.busy.add_permits(1);
                closed(&mut self.closing.clone()).await;
            }
            Ok((StatusCode::ACCEPTED, json!({"evaluate": name})))
        })
    }
}

impl Served {
    /// A connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server listens")
    }

    /// A connection from another address of this machine, and what was sent on it.
    async fn connect_from(&self, last: u8, request: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, last], 0).into()).expect("an address");
        let mut socket = socket.connect(self.address).await.expect("the server listens");
        socket.write_all(request.as_bytes()).await.expect("sent");
        socket
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

const PAGE: &str = "GET /jobsets HTTP/1.1\r\nhost: x\r\n\r\n";
const STREAM: &str = "GET /live HTTP/1.1\r\nhost: x\r\n\r\n";
/// A request whose body does not come; that it is waited for is told by `100 Continue`.
const BODY: &str = "POST /api/v1/build/1/cancel HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
                    content-length: 1\r\n\r\n";

/// The status of the next answer.
async fn status(socket: &mut TcpStream) -> u16 {
    let mut head = [0; 12];
    let read = tokio::time::timeout(LIMIT, socket.read_exact(&mut head)).await;
    read.expect("in time").expect("an answer");
    String::from_utf8_lossy(&head[9..]).parse().expect("a status")
}

/// Reads until the server closes; what came may be anything.
async fn closed_by_server(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LIMIT, socket.read_to_end(&mut rest)).await.expect("in time");
}

impl Served {
    /// A connection whose request is worked on until the server closes.
    async fn busy_from(&self, last: u8) -> TcpStream {
        let request = format!(
            "POST /api/v1/jobset/{BUSY}/evaluate HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
        );
        let socket = self.connect_from(last, &request).await;
        let begun = tokio::time::timeout(LIMIT, self.busy.acquire()).await;
        begun.expect("in time").expect("never closed").forget();
        socket
    }

    /// A connection that follows what changes.
    async fn stream_from(&self, last: u8) -> TcpStream {
        let mut socket = self.connect_from(last, STREAM).await;
        assert_eq!(status(&mut socket).await, 200);
        socket
    }

    /// The status of a page.
    async fn page_from(&self, last: u8) -> u16 {
        status(&mut self.connect_from(last, PAGE).await).await
    }
}

/// A site without contents, with so many connections.
async fn bounded(connections: usize, per_client: Option<usize>) -> Served {
    let web = Web {
        connections: Some(connections),
        connections_per_client: per_client,
        ..Web::default()
    };
    served_with("", web).await
}

#[tokio::test]
async fn a_client_gives_up_its_idle_connections_for_its_new_ones() {
    let served = bounded(2, None).await;
    let mut first = served.connect_from(2, PAGE).await;
    assert_eq!(status(&mut first).await, 200);
    let mut second = served.connect_from(2, PAGE).await;
    assert_eq!(status(&mut second).await, 200);
    // Both are open, and no others may be: the one that has waited for longer is given up.
    assert_eq!(served.page_from(2).await, 200);
    closed_by_server(&mut first).await;
    second.write_all(b"GET /jobsets HTTP/1.1\r\nhost: x\r\n").await.expect("it is open");
    served.close().await;
}

#[tokio::test]
async fn a_client_gives_up_its_slow_requests_for_its_new_ones() {
    let served = bounded(4, None).await;
    let mut slow = Vec::new();
    for request in [BODY, BODY, "GET / HTTP/1.1\r\nhost: ", "G"] {
        let mut socket = served.connect_from(2, request).await;
        if request == BODY {
            assert_eq!(status(&mut socket).await, 100);
        }
        slow.push(socket);
    }
    // The pages stay open, so that each needs a place; they have waited for less long.
    let mut pages = Vec::new();
    for mut socket in slow {
        let mut page = served.connect_from(2, PAGE).await;
        assert_eq!(status(&mut page).await, 200);
        closed_by_server(&mut socket).await;
        pages.push(page);
    }
    served.close().await;
}

#[tokio::test]
async fn a_client_whose_connections_are_all_busy_is_refused_and_others_are_answered() {
    let served = bounded(8, Some(2)).await;
    let mut busy = served.busy_from(2).await;
    let mut stream = served.stream_from(2).await;
    assert_eq!(served.page_from(2).await, 429);
    assert_eq!(served.page_from(3).await, 200);
    // What was under way is not harmed.
    served.closing.send_replace(true);
    assert_eq!(status(&mut busy).await, 202);
    closed_by_server(&mut stream).await;
    served.close().await;
}

#[tokio::test]
async fn when_all_connections_are_taken_the_client_that_has_most_gives_one_up() {
    let served = bounded(4, None).await;
    let mut first = served.stream_from(2).await;
    let mut second = served.stream_from(2).await;
    let _busy = [served.busy_from(2).await, served.busy_from(2).await];
    let _third = served.busy_from(3).await;
    closed_by_server(&mut first).await;
    let _fourth = served.busy_from(3).await;
    closed_by_server(&mut second).await;
    // Two each: neither may take from the other, nor from itself what is busy. One that has none may.
    assert_eq!(served.page_from(2).await, 503);
    assert_eq!(served.page_from(3).await, 503);
    assert_eq!(served.page_from(4).await, 200);
    served.close().await;
}

#[tokio::test]
async fn streams_of_one_client_leave_room_for_pages_and_for_streams_of_others() {
    let served = bounded(8, None).await;
    let mut first = served.stream_from(2).await;
    let _more =
        [served.stream_from(2).await, served.stream_from(2).await, served.stream_from(2).await];
    assert_eq!(status(&mut served.connect_from(2, STREAM).await).await, 503);
    assert_eq!(served.page_from(2).await, 200);
    let _other = served.stream_from(3).await;
    closed_by_server(&mut first).await;
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

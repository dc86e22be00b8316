//! Tests the server as a client: order of answers, bounds, closing.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::Web;
use crate::site::harness::{BUSY, LIMIT, Served, TOKEN, parse, served, served_with};

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
    // A head without an end is refused for its size.
    let answer = served.raw(&format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(200_000))).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    served.close().await;
}

const PAGE: &str = "GET /jobsets HTTP/1.1\r\nhost: x\r\n\r\n";
const STREAM: &str = "GET /live HTTP/1.1\r\nhost: x\r\n\r\n";
/// A request whose body never comes. `100 Continue` tells that the server waits for the body.
const BODY: &str = "POST /api/v1/build/1/cancel HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
                    content-length: 1\r\n\r\n";

/// The status of the next answer.
async fn status(socket: &mut TcpStream) -> u16 {
    let mut head = [0; 12];
    let read = tokio::time::timeout(LIMIT, socket.read_exact(&mut head)).await;
    read.expect("in time").expect("an answer");
    String::from_utf8_lossy(&head[9..]).parse().expect("a status")
}

/// Reads until the server closes the connection, whatever it sends before.
async fn closed_by_server(socket: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(LIMIT, socket.read_to_end(&mut rest)).await.expect("in time");
}

impl Served {
    /// Opens a connection whose request is being answered until the server closes.
    async fn busy_from(&self, last: u8) -> TcpStream {
        let request = format!(
            "POST /api/v1/build/{BUSY}/cancel HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {TOKEN}\r\n\r\n"
        );
        let socket = self.connect_from(last, &request).await;
        let begun = tokio::time::timeout(LIMIT, self.busy.acquire()).await;
        begun.expect("in time").expect("never closed").forget();
        socket
    }

    /// Opens a connection that follows changes.
    async fn stream_from(&self, last: u8) -> TcpStream {
        let mut socket = self.connect_from(last, STREAM).await;
        assert_eq!(status(&mut socket).await, 200);
        socket
    }

    /// Requests a page, and returns its status.
    async fn page_from(&self, last: u8) -> u16 {
        status(&mut self.connect_from(last, PAGE).await).await
    }
}

/// A site without contents, with these bounds of connections.
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
    // Both connections are open, and the bound is two. So the connection that has waited longer is ended.
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
    // The connections of the pages stay open, so each new one needs room. They have waited for less time than the slow
    // ones.
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
    // Open requests are still answered after closing has begun.
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
    // Clients 2 and 3 have two busy connections each, so a third one is refused. Client 4 has none, so one of theirs is
    // ended for it.
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

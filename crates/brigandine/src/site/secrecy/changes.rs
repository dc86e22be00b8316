//! Changes of what is private, as they happen: who is told of them, and what becomes private or public.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{insiders, secretive};
use crate::model::{
    BuildId, BuildStatus, EvaluationId, EvaluationStatus, Event, Specification, SpecificationId,
};
use crate::site::harness::{LIMIT, Served, TOKEN};
use crate::store;

/// A stream of `/live`, and what it has said so far.
struct Stream {
    socket: TcpStream,
    seen: String,
}

impl Stream {
    /// Begins a stream, and reads its first message.
    async fn begin(served: &Served, path: &str, lines: &str) -> Self {
        let mut socket = served.connect().await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{lines}\r\n");
        socket.write_all(request.as_bytes()).await.expect("sent");
        let mut stream = Self { socket, seen: String::new() };
        stream.read(1).await;
        stream
    }

    /// Reads until there were so many messages about changes, or until the end.
    async fn read(&mut self, messages: usize) {
        let mut piece = [0; 4096];
        while self.messages() < messages {
            let read = tokio::time::timeout(LIMIT, self.socket.read(&mut piece)).await;
            let read = read.unwrap_or_else(|_| panic!("no message after {}", self.seen));
            match read.expect("read") {
                0 => return,
                read => self.seen.push_str(&String::from_utf8_lossy(&piece[..read])),
            }
        }
    }

    fn messages(&self) -> usize {
        self.seen.matches("event: change").count()
    }
}

/// A change of a build that belongs to the private specification.
fn changed(id: i64) -> Event {
    Event::Build {
        id: BuildId::new(id),
        job: "zebra-job".to_owned(),
        evaluation: EvaluationId::new(987_650_101),
        specification: SpecificationId::new(987_650_001),
        status: BuildStatus::Succeeded,
    }
}

#[tokio::test]
async fn changes_of_what_is_private_are_told_to_those_who_may_see_it() {
    let served = secretive().await;
    let insider = insiders(&served).await.remove(0);
    let mut strange = Vec::new();
    for path in
        ["/live", "/live?specification=987650001", "/live?builds=987650201", "/live?builds=501"]
    {
        strange.push(Stream::begin(&served, path, "").await);
    }
    let mut own = Stream::begin(&served, "/live?builds=987650201", &insider).await;
    let specification = SpecificationId::new(987_650_001);
    let (id, status) = (EvaluationId::new(987_650_101), EvaluationStatus::Failed);
    for event in [
        changed(987_650_201),
        Event::Looked { specification, failed: true },
        Event::Evaluation { id, specification, status },
        // Told to everybody, and after what came before.
        Event::Notice,
    ] {
        assert!(served.events.send(event).is_ok());
    }
    own.read(3).await;
    assert!(own.messages() >= 3, "{}", own.seen);
    // Every stream has taken every event, and so has made the messages about them.
    let taken = async {
        while !served.events.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, taken).await.expect("in time");
    served.closing.send_replace(true);
    for mut stream in strange {
        stream.read(usize::MAX).await;
        assert_eq!(stream.messages(), 2, "{}", stream.seen);
    }
    served.close().await;
}

#[tokio::test]
async fn changes_of_a_shared_build_are_told_to_those_who_see_it() {
    let served = secretive().await;
    let mut all = Stream::begin(&served, "/live", "").await;
    let mut one = Stream::begin(&served, "/live?builds=501", "").await;
    assert!(served.events.send(changed(501)).is_ok());
    for stream in [&mut all, &mut one] {
        stream.read(2).await;
        assert_eq!(stream.messages(), 2, "{}", stream.seen);
    }
    served.close().await;
}

#[tokio::test]
async fn what_becomes_private_is_hidden_at_once_and_what_becomes_public_is_shown() {
    let served = secretive().await;
    let set = async |private: bool| {
        let done = served.database.write(move |tx| {
            let stored = store::specification(tx, "zebra-spec")?.expect("it is there");
            let specification = Specification { private, ..stored.specification };
            store::put_specification(tx, &specification, true, 1)
        });
        done.await.expect("written");
    };
    for private in [true, false, true] {
        set(private).await;
        let status = if private { 404 } else { 200 };
        for path in ["/build/987650201", "/eval/987650101", "/jobset/zebra-spec"] {
            assert_eq!(served.get(path).await.status, status, "{path}");
        }
        let list = served.get("/api/latestbuilds?nr=50").await.body;
        assert_eq!(list.contains("zebra-job"), !private, "{list}");
    }
    served.close().await;
}

#[tokio::test]
async fn who_defines_a_specification_says_whether_it_is_private_and_clients_of_hydra_leave_it_so() {
    let served = secretive().await;
    let lines = format!("authorization: Bearer {TOKEN}\r\n");
    let status = async |name: &str| served.get(&format!("/jobset/{name}")).await.status;
    let path = "/jobset/zebra-project/zebra-spec";
    let put = r#"{"nixexprinput":"src","nixexprpath":"ci.toml","visible":true,"inputs":{"src":{"type":"git","value":"/srv/x"}}}"#;
    assert_eq!(served.send("PUT", path, &lines, put).await.status, 200);
    assert_eq!(status("zebra-spec").await, 404);
    // Its builds return with it.
    assert_eq!(served.send("DELETE", path, &lines, "").await.status, 200);
    assert_eq!(served.send("PUT", path, &lines, put).await.status, 201);
    assert_eq!(status("zebra-spec").await, 404);
    assert_eq!(served.get("/build/987650201").await.status, 404);
    for (private, seen) in [(true, 404), (false, 200), (true, 404)] {
        let body = format!(
            r#"{{"specification":[{{"name":"fresh","private":{private},"input":[{{"url":"/srv/x"}}]}}]}}"#
        );
        let path = "/api/v1/specifications?replace=true";
        let answer = served.post(path, &lines, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!(status("fresh").await, seen, "{body}");
        let own = served.ask("GET", "/jobset/main/fresh", &lines).await.body;
        assert!(own.contains(&format!("\"visible\":{}", !private)), "{own}");
    }
    served.close().await;
}

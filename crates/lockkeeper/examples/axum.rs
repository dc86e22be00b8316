//! A counter behind HTTP: `GET /` shows it, `POST /increment` adds one.
//!
//! `cargo run -p lockkeeper --example axum` serves on <http://127.0.0.1:3000> until Ctrl-C. With `-- --once` it sends
//! itself some requests and ends.
//!
//! Things to note: handlers share one handle and never lock anything. Concurrent increments share commits, and each
//! increment is stored when its answer is sent. If a client hangs up, the server drops the handler's future, which
//! cancels the call. On shutdown the server is drained first, then the database is closed.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use lockkeeper::{Database, ErrorKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

type Failure = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let once = std::env::args().any(|argument| argument == "--once");
    let path = std::env::temp_dir().join(format!("lockkeeper-axum-{}.db", std::process::id()));
    let db = Database::open(&path).await?;
    db.write(|tx| {
        tx.execute_batch(
            "CREATE TABLE counter (id INTEGER PRIMARY KEY CHECK (id = 1), n INTEGER NOT NULL);
             INSERT INTO counter (id, n) VALUES (1, 0)",
        )
    })
    .await?;
    let router = Router::new()
        .route("/", get(show))
        .route("/increment", post(increment))
        .with_state(db.clone());
    let listener = TcpListener::bind(("127.0.0.1", if once { 0 } else { 3000 })).await?;
    let address = listener.local_addr()?;
    println!("serving {} on http://{address}", path.display());

    // The server ends when the signal has come and every request that had begun was answered.
    let server = axum::serve(listener, router);
    if once {
        server.with_graceful_shutdown(ask_a_few_times(address)).await?;
    } else {
        server.with_graceful_shutdown(ctrl_c()).await?;
    }

    let how = db.close().deadline(Duration::from_secs(5)).await?;
    println!("closed: {how:?}");
    std::fs::remove_file(&path)?;
    Ok(())
}

async fn show(State(db): State<Database>) -> Result<String, (StatusCode, String)> {
    let n: i64 = db
        .read(|snapshot| snapshot.query_row("SELECT n FROM counter", [], |row| row.get(0)))
        // A point read: it runs on this thread if it is cheap enough.
        .short()
        .await
        .map_err(|error| explain(&error))?;
    Ok(format!("{n}\n"))
}

async fn increment(State(db): State<Database>) -> Result<String, (StatusCode, String)> {
    let n: i64 = db
        .write(|tx| tx.query_row("UPDATE counter SET n = n + 1 RETURNING n", [], |row| row.get(0)))
        .deadline(Duration::from_secs(2))
        .await
        .map_err(|error| explain(&error))?;
    Ok(format!("{n}\n"))
}

/// The only place that decides status codes.
fn explain(error: &lockkeeper::Error) -> (StatusCode, String) {
    let status = match error.kind() {
        ErrorKind::Closed | ErrorKind::Canceled => StatusCode::SERVICE_UNAVAILABLE,
        _ if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    (status, format!("{error}\n"))
}

async fn ctrl_c() {
    // If no signal handler can be installed, Ctrl-C ends the process directly. So this waits for ever.
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// The requests of `--once`: eight concurrent increments, then a read of the counter.
async fn ask_a_few_times(address: SocketAddr) {
    let asked: Vec<_> = (0..8).map(|_| tokio::spawn(ask(address, "POST", "/increment"))).collect();
    for answer in asked {
        let answer = answer.await.expect("the task ended").expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let answer = ask(address, "GET", "/").await.expect("an answer");
    println!("GET / answers {:?}", answer.lines().last().unwrap_or_default());
    assert!(answer.ends_with("\r\n\r\n8\n"), "{answer}");
}

async fn ask(address: SocketAddr, method: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

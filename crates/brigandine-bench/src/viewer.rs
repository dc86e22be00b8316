//! `brigandine-bench viewer`: how many bytes an open overview costs while builds start and end.
//!
//! The real server runs builds that wait, at the wanted rate of changes, of many specifications in turn. A client opens
//! the overview and its stream of changes over sockets, and asks for what has changed as the page's script does
//! (`live.js`): at most every [`PAUSE`], and more rarely if the answers are long. It sends the headers of a browser. All
//! bytes in both directions count.
//!
//! To compare, the same is measured with a client that asks for the whole page at each message, uncompressed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use brigandine::model::{self, Event, Specification, SpecificationId};
use brigandine::store::{self, Transaction};
use brigandine::{App, Config, Sandbox, Web, WebConfig};
use serde::Serialize;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use crate::cli::Viewer;
use crate::client::{Answer, Connection};
use crate::measuring;
use crate::output::{Failure, failed, print_json, say};
use crate::server::NO_JOB;

/// As in `live.js`: the least time between two questions, the bytes that answers may cost per millisecond, and the bytes
/// that a question costs besides.
const PAUSE: Duration = Duration::from_millis(400);
const BYTES_PER_MS: f64 = 6.0;
const HEADS: usize = 1000;

/// The most bytes that an open page may cost in a second, and the bytes that are allowed besides for its first question.
const BYTES_PER_S_MAX: f64 = 10_000.0;
const FIRST_BYTES_MAX: f64 = 10_000.0;

/// How long each build takes. Each build has two changes: its start and its end.
const BUILD_S: f64 = 1.0;

/// How long builds run before a measurement begins.
const WARM_UP: Duration = Duration::from_secs(2);

/// How many evaluations each specification has: as many as the overview shows.
const EVALUATIONS: i64 = 24;

/// The headers that a browser sends with each request.
const BROWSER: &str = "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/142.0.0.0 Safari/537.36\r\nAccept-Language: en-US,en;q=0.9\r\n";

/// Measures both clients and prints the figures.
///
/// # Errors
/// The server cannot be started, an answer is wrong, or the open page costs too much.
pub(crate) fn run(arguments: &Viewer) -> Result<(), Failure> {
    let figures = brigandine::runtime()?.block_on(measure(arguments))?;
    if arguments.json {
        print_json(&figures);
    } else {
        figures.print();
    }
    let cost = figures.parts.bytes() as f64;
    if cost > BYTES_PER_S_MAX * arguments.seconds + FIRST_BYTES_MAX {
        return Err(failed(format!(
            "the open page cost {cost} bytes in {} s; at most {BYTES_PER_S_MAX} per second are allowed",
            arguments.seconds
        )));
    }
    Ok(())
}

#[derive(Debug, Serialize)]
struct Figures {
    specifications: u16,
    seconds: f64,
    /// The page as it is opened, uncompressed and with gzip.
    page_bytes: usize,
    page_gzip_bytes: usize,
    /// A client that asks for the whole page.
    whole: Row,
    /// A client that does what the page's script does.
    parts: Row,
}

/// What an open page cost.
#[derive(Debug, Default, Serialize)]
struct Row {
    /// How many builds started or ended per second.
    changes_per_s: f64,
    /// How often the page asked, and how often nothing differed.
    questions: usize,
    same: usize,
    /// Bytes of the stream of changes, of questions, and of answers.
    stream_bytes: usize,
    question_bytes: usize,
    answer_bytes: usize,
}

impl Row {
    fn bytes(&self) -> usize {
        self.stream_bytes + self.question_bytes + self.answer_bytes
    }
}

impl Figures {
    fn print(&self) {
        say(&format!(
            "an overview of {} specifications: {} bytes, {} with gzip; {} s each",
            self.specifications, self.page_bytes, self.page_gzip_bytes, self.seconds
        ));
        let heads = ["changes/s", "questions", "same", "stream", "asked", "answered", "bytes"];
        let heads: String = heads.iter().map(|head| format!("{head:>11}")).collect();
        say(&format!("{:<14}{heads}", "client"));
        for (name, row) in [("whole page", &self.whole), ("its script", &self.parts)] {
            say(&format!(
                "{name:<14}{:>11.1}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}",
                row.changes_per_s,
                row.questions,
                row.same,
                row.stream_bytes,
                row.question_bytes,
                row.answer_bytes,
                row.bytes()
            ));
        }
    }
}

async fn measure(arguments: &Viewer) -> Result<Figures, Failure> {
    let state = tempfile::tempdir()?;
    let mut config = Config::default();
    config.state = state.path().to_owned();
    config.interval = Duration::from_secs(3600);
    config.max_jobs = (f64::from(arguments.changes) / 2.0 * BUILD_S).ceil().max(1.0) as usize;
    config.sandbox = Sandbox::Off;
    let app = App::start(config).await?;
    app.run().await?;
    fill(&app, arguments).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let web = Web::start(listener, &app, WebConfig::default(), None, None);

    app.wake();
    tokio::time::sleep(WARM_UP).await;
    let seconds = Duration::from_secs_f64(arguments.seconds);
    let mut connection = Connection::open(&address.to_string()).await?;
    let plain = request(address, "/", "accept: text/html\r\n");
    let page_bytes = ask(&mut connection, &plain).await?.body.len();
    let gzip = "accept: text/html\r\naccept-encoding: gzip, deflate\r\n";
    let gzip = request(address, "/", gzip);
    let page_gzip_bytes = ask(&mut connection, &gzip).await?.body.len();
    let whole = watch(&app, address, seconds, None).await?;
    // A new connection, because the server may have closed one on which nothing was asked for so long.
    let mut connection = Connection::open(&address.to_string()).await?;
    let page = ask(&mut connection, &plain).await?;
    let version =
        version_of(page.body).ok_or_else(|| failed("the overview does not say its version"))?;
    let parts = watch(&app, address, seconds, Some(version)).await?;
    web.close().await;
    app.shutdown(false).await?;
    Ok(Figures {
        specifications: arguments.specifications,
        seconds: arguments.seconds,
        page_bytes,
        page_gzip_bytes,
        whole,
        parts,
    })
}

/// Stores the specifications, with their past evaluations and the builds that are going to run.
async fn fill(app: &App, arguments: &Viewer) -> Result<(), Failure> {
    let count = i64::from(arguments.specifications);
    let specification = |n: i64| -> Result<Specification, serde_json::Error> {
        serde_json::from_value(json!({
            "name": format!("project-{n}"),
            "description": format!("What the project with the number {n} is about"),
            // So that no input is looked at.
            "enabled": false,
            "inputs": [{
                "name": "source",
                "url": format!("https://example.org/project-{n}.git"),
                "reference": { "branch": "main" },
            }],
            "evaluator": { "kind": "jobs", "file": "brigandine.toml" },
        }))
    };
    let specifications = (1..=count).map(specification).collect::<Result<_, _>>()?;
    app.load(specifications, false).await?;
    // Enough for both measurements and what comes before them, and half as many again.
    let seconds = 2.0 * (arguments.seconds + WARM_UP.as_secs_f64() + 2.0);
    let builds = f64::from(arguments.changes) / 2.0 * seconds * 1.5;
    let each = (builds / count as f64).ceil() as i64;
    let found = app.database().read(store::specifications).await?;
    for chunk in found.chunks(50) {
        let ids: Vec<_> = chunk.iter().map(|found| found.id).collect();
        let now = model::now();
        let filled = app
            .database()
            .write(move |tx| ids.iter().try_for_each(|id| fill_one(tx, *id, each, now)));
        filled.await?;
    }
    Ok(())
}

fn fill_one(
    tx: &Transaction,
    specification: SpecificationId,
    builds: i64,
    now: i64,
) -> rusqlite::Result<()> {
    let seed = specification.get() * 1000;
    for n in 1..EVALUATIONS {
        let evaluation =
            measuring::add_evaluation(tx, specification, seed + n, now - (EVALUATIONS - n) * 5000)?;
        measuring::add_outcome(tx, evaluation, seed + n)?;
    }
    let stamp = format!("now {specification}");
    let begun = store::begin_evaluation(tx, specification, &stamp, &[], "", now)?;
    let store::Begun::New(evaluation) = begun else { return Ok(()) };
    let jobs: Vec<_> = (0..builds).map(|n| job(seed + n)).collect();
    store::register(tx, evaluation, &jobs, "", "", now)?;
    measuring::add_outcome(tx, evaluation, seed)
}

/// A job that takes [`BUILD_S`]. Builds are started by priority, which is drawn, so each starts another specification's.
fn job(seed: i64) -> store::NewJob {
    let system = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let definition = model::Definition {
        version: model::Definition::VERSION,
        name: format!("check-{seed}"),
        command: ["/bin/sh", "-c", &format!("exec sleep {BUILD_S}")].map(str::to_owned).to_vec(),
        system: system.clone(),
        ..model::Definition::default()
    };
    store::NewJob {
        name: definition.name.clone(),
        derivation: format!("{}.drv", definition.name),
        nix_name: definition.name.clone(),
        system,
        priority: i64::try_from(store::mix(seed) % 1000).unwrap_or(0),
        definition: serde_json::to_string(&definition).ok(),
        ..NO_JOB
    }
}

/// Counts the bytes of an open overview: one that shows `version` and takes over what differs, or, for `None`, one that
/// asks for the whole page at each message.
async fn watch(
    app: &App,
    address: SocketAddr,
    time: Duration,
    mut version: Option<String>,
) -> Result<Row, Failure> {
    let (mut page, mut row) = (Connection::open(&address.to_string()).await?, Row::default());
    let mut events = app.events();
    let began = Instant::now();
    let end = tokio::time::Instant::from_std(began + time);
    let mut stream = TcpStream::connect(address).await?;
    let question =
        request(address, "/live", "accept: text/event-stream\r\ncache-control: no-cache\r\n");
    stream.write_all(question.as_bytes()).await?;
    row.stream_bytes += question.len();
    let (mut heard, mut wanted) = (Vec::new(), false);
    let mut free_at = tokio::time::Instant::now();
    loop {
        tokio::select! {
            biased;
            () = tokio::time::sleep_until(end) => break,
            () = tokio::time::sleep_until(free_at), if wanted => {
                wanted = false;
                let headers = match &version {
                    None => "accept: text/html\r\n".to_owned(),
                    Some(version) => format!(
                        "accept: text/html\r\naccept-encoding: gzip, deflate\r\nx-brigandine-parts: 1\r\n\
                         if-none-match: {version}\r\ncache-control: no-cache\r\npragma: no-cache\r\n"
                    ),
                };
                let question = request(address, "/", &headers);
                let answer = ask(&mut page, &question).await?;
                row.questions += 1;
                row.same += usize::from(answer.status == 304);
                row.question_bytes += question.len();
                row.answer_bytes += answer.head.len() + answer.body.len();
                free_at = tokio::time::Instant::now();
                if version.is_some() {
                    let cost = (answer.body.len() + HEADS) as f64 / BYTES_PER_MS;
                    free_at += PAUSE.max(Duration::from_secs_f64(cost / 1000.0));
                    version = answer.value("etag").map(str::to_owned).or(version);
                }
            }
            read = stream.read_buf(&mut heard) => {
                let read = read?;
                if read == 0 {
                    return Err(failed("the stream of changes ended"));
                }
                row.stream_bytes += read;
                // The last message is complete when a blank line has come after it.
                if heard.windows(13).any(|text| text == b"event: change") && heard.ends_with(b"\n\n\r\n") {
                    wanted = true;
                    heard.clear();
                }
            }
        }
    }
    row.changes_per_s = changes(&mut events) as f64 / began.elapsed().as_secs_f64();
    Ok(row)
}

/// How many builds have started or ended since the last time.
fn changes(events: &mut Receiver<Event>) -> u64 {
    let mut count = 0;
    loop {
        match events.try_recv() {
            Ok(Event::Build { .. }) => count += 1,
            Ok(_) => {}
            Err(TryRecvError::Lagged(more)) => count += more,
            Err(TryRecvError::Empty | TryRecvError::Closed) => return count,
        }
    }
}

fn request(address: SocketAddr, path: &str, headers: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: keep-alive\r\n{BROWSER}\
         Referer: http://{address}/\r\n{headers}\r\n"
    )
}

/// Asks for the overview.
///
/// # Errors
/// The connection ends early, or the answer is neither the page nor 304.
async fn ask<'c>(connection: &'c mut Connection, question: &str) -> Result<Answer<'c>, Failure> {
    let answer = connection.answer(question.as_bytes()).await?;
    match answer.status {
        200 | 304 => Ok(answer),
        status => Err(failed(format!("an answer is {status}"))),
    }
}

/// The tag of the version that a whole page shows; `None`: the page does not say it.
fn version_of(page: &[u8]) -> Option<String> {
    let (_, rest) = std::str::from_utf8(page).ok()?.split_once(" data-version=\"")?;
    Some(format!("W/\"{}\"", rest.split('"').next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_asks_as_often_as_the_script_of_a_page() {
        let script = include_str!("../../brigandine/static/live.js");
        for line in [
            format!("const PAUSE = {};", PAUSE.as_millis()),
            format!("const RATE = {BYTES_PER_MS};"),
            format!("const HEADS = {HEADS};"),
        ] {
            assert!(script.contains(&line), "{line}");
        }
    }
}

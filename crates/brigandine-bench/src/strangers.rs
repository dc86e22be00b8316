//! `brigandine-bench strangers`: measures how fast the server answers an honest client while others hold as many
//! connections as the server grants them.
//!
//! The server is the real one, in a process of its own (see `server.rs`), with the default limits. The strangers
//! connect from 127.0.0.2 and the following addresses, one kind of stranger after the other, and do not reconnect. The
//! honest client, 127.0.0.100, requests a page every 20 ms, each over a new connection. If a page has to wait for the
//! previous one, its time counts from its scheduled time, so a stall cannot hide by lowering the rate.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::cli::Strangers;
use crate::client::{Connection, connect_from, request};
use crate::output::{Failure, failed, print_json, say};
use crate::process::Server;
use crate::samples::Samples;
use crate::statistics::{milliseconds, percentile, sorted};
use brigandine::model;
use brigandine::store;

/// The limit for the 99th percentile of the pages, in milliseconds.
const P99_MAX_MS: f64 = 200.0;
/// The limit for the growth of the server's memory.
const GROWTH_MAX_MIB: f64 = 128.0;
/// The time between two pages.
const PAUSE: Duration = Duration::from_millis(20);
/// The client that is measured.
const HONEST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 100);
/// The number of builds in the database, which is enough for pages of the usual size.
const BUILDS: i64 = 10_000;
/// How many requests a stranger sends in a row without reading an answer.
const PIPELINED: usize = 400;

/// The kinds of strangers, by what they do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    /// No strangers.
    None,
    Idle,
    SlowHead,
    SlowBody,
    Pipelined,
    Followers,
}

impl Kind {
    const ALL: [Self; 6] =
        [Self::None, Self::Idle, Self::SlowHead, Self::SlowBody, Self::Pipelined, Self::Followers];

    /// The bytes that a stranger sends first.
    fn opening(self) -> Vec<u8> {
        match self {
            Self::None | Self::Idle => Vec::new(),
            Self::SlowHead => b"GET / HTTP/1.1\r\nhost: bench\r\nx: ".to_vec(),
            Self::SlowBody => b"POST /api/v1/build/1/cancel HTTP/1.1\r\nhost: bench\r\n\
                content-length: 1000000\r\n\r\n"
                .to_vec(),
            Self::Pipelined => request("/", true).repeat(PIPELINED),
            Self::Followers => request("/live", false),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "no strangers",
            Self::Idle => "idle",
            Self::SlowHead => "slow head",
            Self::SlowBody => "slow body",
            Self::Pipelined => "pipelined, not reading",
            Self::Followers => "followers, not reading",
        }
    }
}

#[derive(Debug, Serialize)]
struct Row {
    strangers: Kind,
    /// How many connections of strangers the server had closed at the end.
    closed: usize,
    pages: usize,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    memory_mib: f64,
}

#[derive(Debug, Serialize)]
struct Figures {
    connections: u16,
    clients: u8,
    memory_before_mib: f64,
    memory_peak_mib: f64,
    rows: Vec<Row>,
}

impl Figures {
    /// A message for each limit that was exceeded.
    fn problems(&self) -> Vec<String> {
        let slow = self.rows.iter().filter(|row| row.p99_ms > P99_MAX_MS).map(|row| {
            format!("{}: p99 of {:.0} ms, above {P99_MAX_MS}", row.strangers.name(), row.p99_ms)
        });
        let mut problems: Vec<_> = slow.collect();
        let growth = self.memory_peak_mib - self.memory_before_mib;
        if growth > GROWTH_MAX_MIB {
            problems.push(format!("memory grew by {growth:.0} MiB, above {GROWTH_MAX_MIB}"));
        }
        problems
    }

    fn print(&self) {
        say(&format!(
            "{} connections of {} strangers; memory {:.1} MiB before, {:.1} MiB at most",
            self.connections, self.clients, self.memory_before_mib, self.memory_peak_mib
        ));
        say(&format!(
            "{:<24} {:>7} {:>7} {:>8} {:>8} {:>8} {:>11}",
            "strangers", "closed", "pages", "p50 ms", "p99 ms", "max ms", "memory MiB"
        ));
        for row in &self.rows {
            say(&format!(
                "{:<24} {:>7} {:>7} {:>8.2} {:>8.2} {:>8.2} {:>11.1}",
                row.strangers.name(),
                row.closed,
                row.pages,
                row.p50_ms,
                row.p99_ms,
                row.max_ms,
                row.memory_mib
            ));
        }
    }
}

/// Measures, and prints the figures.
///
/// # Errors
/// A page is not answered, pages are too slow, or the server's memory grows too much.
pub(crate) fn run(arguments: &Strangers) -> Result<(), Failure> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    let needed = u64::from(arguments.connections) + 64;
    if limit.maximum.is_some_and(|maximum| maximum < needed) {
        return Err(failed(format!(
            "{} connections need a limit of open files of {needed} (ulimit -Hn)",
            arguments.connections
        )));
    }
    let temporary = tempfile::tempdir()?;
    let state = temporary.path().join("state");
    store::make_sample(BUILDS, &state, model::now(), &|_| ())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let samples = runtime.block_on(crate::samples::choose(&state))?;
    let server = crate::site::start(&state)?;
    let figures = runtime.block_on(measure(arguments, &server, &pages(&samples)))?;
    server.stop()?;
    if arguments.json {
        print_json(&figures);
    } else {
        figures.print();
    }
    let problems = figures.problems();
    if problems.is_empty() { Ok(()) } else { Err(failed(problems.join("; "))) }
}

/// Requests for pages of all kinds.
pub(crate) fn pages(samples: &Samples) -> Vec<Vec<u8>> {
    let mut paths = vec!["/".to_owned(), "/queue".to_owned()];
    paths.extend(samples.builds.iter().take(20).map(|(id, _)| format!("/build/{id}")));
    paths.extend(samples.evaluations.iter().take(20).map(|id| format!("/eval/{id}")));
    paths.extend(samples.specifications.iter().take(20).map(|name| format!("/jobset/{name}")));
    paths.iter().map(|path| request(path, true)).collect()
}

async fn measure(
    arguments: &Strangers,
    server: &Server,
    pages: &[Vec<u8>],
) -> Result<Figures, Failure> {
    let address: SocketAddr = server.address.parse()?;
    let time = Duration::from_secs_f64(arguments.seconds);
    // The memory that the server needs for its first pages is not counted.
    ask(address, pages, time / 4).await?;
    let memory_before_mib = server.memory_mib("VmRSS");
    let mut rows = Vec::new();
    for kind in Kind::ALL {
        let count = if kind == Kind::None { 0 } else { arguments.connections };
        let mut strangers = Vec::new();
        for number in 0..count {
            let last = 2 + u8::try_from(number % u16::from(arguments.clients)).unwrap_or(0);
            let mut socket = connect_from(Ipv4Addr::new(127, 0, 0, last), address).await?;
            // The result is ignored: writing fails if the server has closed the connection already.
            let _ = socket.write_all(&kind.opening()).await;
            strangers.push(socket);
        }
        let times = tokio::select! {
            times = ask(address, pages, time) => sorted(times?),
            () = drip(&strangers, kind) => unreachable!("it has no end"),
        };
        rows.push(Row {
            strangers: kind,
            closed: strangers.iter().filter(|socket| is_closed(socket)).count(),
            pages: times.len(),
            p50_ms: percentile(&times, 50),
            p99_ms: percentile(&times, 99),
            max_ms: percentile(&times, 100),
            memory_mib: server.memory_mib("VmRSS"),
        });
    }
    Ok(Figures {
        connections: arguments.connections,
        clients: arguments.clients,
        memory_before_mib,
        memory_peak_mib: server.memory_mib("VmHWM"),
        rows,
    })
}

/// Requests pages at a steady rate. Returns how long each took, in milliseconds.
async fn ask(address: SocketAddr, pages: &[Vec<u8>], time: Duration) -> Result<Vec<f64>, Failure> {
    let began = Instant::now();
    let (mut due, mut times) = (began, Vec::new());
    for page in pages.iter().cycle() {
        tokio::time::sleep_until(due.into()).await;
        if times.len() > 1 && began.elapsed() >= time {
            break;
        }
        let mut connection = Connection::open_from(HONEST, address).await?;
        connection.ask(page).await?;
        times.push(milliseconds(due.elapsed()));
        due += PAUSE;
    }
    Ok(times)
}

/// Sends a byte on each connection every second if the kind is slow; otherwise sends nothing.
async fn drip(strangers: &[TcpStream], kind: Kind) {
    let drips = matches!(kind, Kind::SlowHead | Kind::SlowBody);
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for socket in strangers.iter().filter(|_| drips) {
            let _ = socket.try_write(b"x");
        }
    }
}

/// Whether the server has closed a connection. Does not read from it.
fn is_closed(socket: &TcpStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut polled = [PollFd::new(socket, PollFlags::RDHUP)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

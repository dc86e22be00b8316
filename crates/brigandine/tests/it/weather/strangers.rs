//! Hostile clients on the network: whatever some clients send, or do not send, or do not read, the other clients get
//! their answers; and each request gets the answer that HTTP requires.
//!
//! Each client has its own address on this machine: 127.0.0.2 and so on.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit, setrlimit};

use crate::command::serve::address;
use crate::support::{Gate, PATIENCE, PROGRAM, Place, Process, until};

/// The time limit for a page, whatever other clients do.
const PROMPT: Duration = Duration::from_secs(10);
/// The number of the client that behaves well.
const HONEST: u8 = 99;

const PAGE: &str = "GET / HTTP/1.1\r\nhost: x\r\naccept: text/html\r\nconnection: close\r\n\r\n";
const FOLLOWED: &str = "GET /live HTTP/1.1\r\nhost: x\r\n\r\n";

/// A running server and its place.
struct Site {
    place: Place,
    server: Process,
    address: SocketAddr,
}

impl Site {
    /// Starts a server with these keys in `[web]`.
    fn new(web: &str) -> Self {
        Self::at(Place::new(), web, "")
    }

    /// Starts a server in a place that may have a state already. A shell starts it after the commands in `before`.
    fn at(place: Place, web: &str, before: &str) -> Self {
        // The test itself needs a descriptor for each of its connections.
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("a limit");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{before} exec \"$0\" \"$@\"")).arg(PROGRAM);
        command.arg("serve").arg("--state").arg(place.state());
        command.args(["--listen", "127.0.0.1:0", "--sandbox=off"]);
        if !web.is_empty() {
            command.arg("--config").arg(place.write("web.toml", &format!("[web]\n{web}\n")));
        }
        if place.path("specifications.toml").exists() {
            command.arg("--specifications").arg(place.path("specifications.toml"));
        }
        command.stdin(Stdio::null()).env("RUST_LOG", "info");
        let server = Process::start(command);
        let address = address(&server).parse().expect("an address");
        Self { place, server, address }
    }

    /// Opens a connection from 127.0.0.`client`, and sends `sent` on it as far as the server reads it.
    fn open(&self, client: u8, sent: &str) -> TcpStream {
        let from = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, client)), 0);
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &from).expect("an address");
        connect(&socket, &self.address).expect("the server listens");
        let mut socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
        socket.set_write_timeout(Some(PATIENCE)).expect("a limit");
        let _ = socket.write_all(sent.as_bytes());
        socket
    }

    /// Sends a request after which the server closes the connection. Returns the status, head and body of the answer.
    fn ask(&self, client: u8, request: &str) -> (u16, String, Vec<u8>) {
        whole(self.open(client, request))
    }

    fn status(&self, client: u8, request: &str) -> u16 {
        self.ask(client, request).0
    }

    /// Requests pages as the well-behaved client. Each must come within [`PROMPT`].
    fn answers_others(&self) {
        for number in 0..10 {
            let began = Instant::now();
            let socket = self.open(HONEST, PAGE);
            socket.set_read_timeout(Some(PROMPT)).expect("a limit");
            let (status, head, _) = whole(socket);
            assert_eq!(status, 200, "page {number} after {:?}: {head}", began.elapsed());
            assert!(began.elapsed() < PROMPT, "page {number} took {:?}", began.elapsed());
        }
    }

    /// The resident memory of the server's process, in MiB.
    fn resident_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.server.child.id()));
        let status = status.expect("the server runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") / 1024
    }
}

/// Reads an answer to its end. Returns its status, head and body.
fn whole(mut socket: TcpStream) -> (u16, String, Vec<u8>) {
    let mut answer = Vec::new();
    // An error is ignored, because the connection may be cut after the answer. The status is 0 if no answer came.
    let _ = socket.read_to_end(&mut answer);
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, head, answer.split_off((end + 4).min(answer.len())))
}

/// The status of an answer that continues, or whose rest is not read.
fn begun(mut socket: &TcpStream) -> u16 {
    let mut head = [0; 12];
    let read = socket.read_exact(&mut head);
    read.map_or(0, |()| String::from_utf8_lossy(&head[9..]).parse().expect("a status"))
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

/// Waits until the server closes a connection from which nothing is read. Returns whether it did so within the time
/// limit.
fn given_up(socket: &TcpStream) -> bool {
    let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
    let mut waited = [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::empty())];
    poll(&mut waited, Some(&limit)).expect("a poll") == 1
}

/// Opens `count` connections on which `what` is sent: first from one client, then shared among twelve clients. The
/// server must still answer others.
fn others_are_answered_beside(count: usize, what: &str) {
    for clients in [1, 12] {
        let site = Site::new("");
        site.answers_others();
        let before = site.resident_mib();
        let mut open: Vec<TcpStream> = (0..count)
            .map(|number| site.open(2 + u8::try_from(number % clients).expect("few"), what))
            .collect();
        site.answers_others();
        // Each connection sends one more byte.
        for socket in &mut open {
            let _ = socket.write_all(b"x");
        }
        site.answers_others();
        // A new connection from the address of a hostile client is answered too, because the server closes an idle
        // connection of that client to make room.
        until(|| site.status(2, PAGE), |status| *status == 200);
        let grown = site.resident_mib().saturating_sub(before);
        assert!(grown < 160, "{grown} MiB more for {count} connections of {clients} clients");
    }
}

#[test]
fn connections_that_say_nothing_stop_nobody_else() {
    others_are_answered_beside(1100, "");
}

#[test]
fn heads_that_come_slowly_stop_nobody_else() {
    others_are_answered_beside(1100, "GET / HTTP/1.1\r\nhost: x\r\nx-slow: ");
}

#[test]
fn bodies_that_come_slowly_stop_nobody_else() {
    let head = "POST /api/v1/build/1/cancel HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n";
    others_are_answered_beside(1100, head);
}

#[test]
fn requests_whose_answers_are_never_read_stop_nobody_else() {
    let request = "GET / HTTP/1.1\r\nhost: x\r\naccept: text/html\r\n\r\n";
    others_are_answered_beside(1030, &request.repeat(400));
}

#[test]
fn followers_that_never_read_stop_nobody_else() {
    others_are_answered_beside(1100, FOLLOWED);
}

#[test]
fn live_logs_that_are_never_read_stop_nobody_else_and_fill_no_memory() {
    let place = Place::new();
    let repository = place.repository("repository");
    let gate = Gate::new(place.path("gate"));
    let command = format!("yes | head -c 16000000; echo end > '{}'; cat", gate.path().display());
    repository.jobs(&[("chatty", &format!("command = \"{command}\""))]);
    place.specify(&[("spec", &repository, "")]);
    let site = Site::at(place, "client-time = \"2s\"", "");
    assert_eq!(gate.wait(), "end\n");
    for path in ["/build/1/log/raw", "/build/1/log/live?offset=0"] {
        // Measured for each path, because the allocator may keep memory that the earlier followers used.
        let before = site.resident_mib();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let followers: Vec<_> = (0..300_u16)
            .map(|number| site.open(2 + u8::try_from(number % 12).expect("few"), &request))
            .collect();
        site.answers_others();
        // A well-behaved client can follow the log at the same time.
        assert_eq!(begun(&site.open(HONEST, &request)), 200);
        let grown = site.resident_mib().saturating_sub(before);
        assert!(grown < 160, "{grown} MiB more for {path}");
        // The server closes each of these connections, although the build has not ended.
        assert!(followers.iter().all(given_up), "{path}");
    }
    drop(site);
}

#[test]
fn a_client_that_takes_nothing_of_its_answers_is_given_up() {
    let site = Site::new("client-time = \"1s\"");
    for request in [
        "GET / HTTP/1.1\r\nhost: x\r\naccept: text/html\r\n\r\n",
        "GET /static/style.css HTTP/1.1\r\nhost: x\r\n\r\n",
    ] {
        assert!(given_up(&site.open(2, &request.repeat(1000))), "{request}");
    }
}

#[test]
fn a_request_that_does_not_come_in_time_is_told_so() {
    let site = Site::new("client-time = \"1s\"");
    let post = "POST /api/v1/build/1/cancel HTTP/1.1\r\nhost: x\r\n";
    for begun in [
        "G".to_owned(),
        "GET / HTTP/1.1\r\n".to_owned(),
        "GET / HTTP/1.1\r\nhost: x\r\nx-".to_owned(),
        format!("{post}content-length: 1000\r\n\r\n123"),
        format!("{post}transfer-encoding: chunked\r\n\r\n3e8\r\n123"),
    ] {
        let mut slow = site.open(2, &begun);
        slow.set_read_timeout(Some(Duration::from_millis(50))).expect("a limit");
        let began = Instant::now();
        let mut answer = Vec::new();
        // The client sends a byte every 50 ms until it gets an answer.
        while answer.is_empty() && began.elapsed() < PATIENCE {
            let _ = slow.write_all(b"1");
            let _ = slow.read_to_end(&mut answer);
        }
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{begun:?}: {answer}");
        assert!(answer.contains("connection: close"), "{begun:?}: {answer}");
    }
    // An idle connection is closed without a message.
    for sent in ["", "GET /jobsets HTTP/1.1\r\nhost: x\r\n\r\n"] {
        let (_, head, body) = site.ask(2, sent);
        assert!(!head.contains("408") && !String::from_utf8_lossy(&body).contains("408"), "{head}");
    }
}

/// A place whose server has built one job, with a product of 1,000 bytes and a log of `log_bytes` bytes.
fn built(log_bytes: usize) -> Place {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.jobs(&[(
        "job",
        &format!(
            "command = \"seq -w 1 250 | head -c 1000 > it; seq 1 10000000 | head -c {log_bytes}\"\n\
             products = [\"it\"]"
        ),
    )]);
    place.specify(&[("spec", &repository, "")]);
    place.good_one_shot();
    place
}

#[test]
fn who_takes_an_answer_slowly_gets_all_of_it() {
    let site = Site::at(built(8_000_000), "client-time = \"1s\"", "");
    let mut slow =
        site.open(2, "GET /build/1/log/raw HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let (mut bytes, mut buffer, began) = (0, vec![0; 200_000], Instant::now());
    loop {
        let read = slow.read(&mut buffer).expect("the answer goes on");
        if read == 0 {
            break;
        }
        bytes += read;
        // The client is slow on purpose.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(bytes > 8_000_000, "{bytes} bytes after {:?}", began.elapsed());
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table of requests and answers")]
fn what_is_sent_is_answered_as_http_says() {
    let site = Site::new("");
    let long = |bytes: usize| "y".repeat(bytes);
    let get = |path: &str, lines: &str| {
        format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n")
    };
    let post = |lines: &str, body: &str| {
        let path = "/api/v1/build/1/cancel";
        format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{lines}\r\n{body}")
    };
    let mut cases: Vec<(String, u16)> = vec![
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 200),
        ("GET / HTTP/1.0\r\nhost: a b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), 400),
        ("GET http://x/ HTTP/1.1\r\nconnection: close\r\n\r\n".to_owned(), 400),
        (get("http://x/queue", ""), 200),
        (get("/", "host: x\r\n"), 400),
        (get("/", "Host: y\r\n"), 400),
        (get("/", "x y: z\r\n"), 400),
        (get("/", ": z\r\n"), 400),
        (get("/", "x: a\r\n b\r\n"), 400),
        // The limits of a head: its bytes, its lines, its target.
        (get("/", &format!("x: {}\r\n", long(20_000))), 200),
        (get("/", &"x: y\r\n".repeat(98)), 200),
        (get("/", &"x: y\r\n".repeat(99)), 431),
        (get("/", &"x: y\r\n".repeat(5_000)), 431),
        (get(&format!("/?x={}", long(8_000)), ""), 200),
        // Bodies of allowed lengths, then bodies that are too long.
        (post("content-length: 2\r\n", "{}"), 401),
        (post("transfer-encoding: chunked\r\n", "2\r\n{}\r\n0\r\n\r\n"), 401),
        (post("", ""), 401),
        (post("content-length: 1048577\r\n", ""), 413),
        (post("content-length: 99999999999999\r\n", "x"), 413),
        (post("content-length: 1048577\r\nexpect: 100-continue\r\n", ""), 413),
        (post("content-length: 2000000\r\n", &long(2_000_000)), 413),
        (post("content-length: 1000000\r\n", &long(1_000_000)), 401),
        (
            post(
                "transfer-encoding: chunked\r\n",
                &format!("1e8480\r\n{}\r\n0\r\n\r\n", long(2_000_000)),
            ),
            413,
        ),
        (post("content-length: -1\r\n", ""), 400),
        (post("content-length: x\r\n", ""), 400),
        (post("content-length: 1\r\ncontent-length: 2\r\n", "xx"), 400),
        (post("transfer-encoding: gzip\r\n", ""), 400),
        (post("transfer-encoding: chunked\r\n", "nonsense\r\n"), 400),
    ];
    for bytes in [40_000, 70_000, 200_000, 1_000_000] {
        cases.push((get("/", &format!("x: {}\r\n", long(bytes))), 431));
    }
    for bytes in [8_200, 12_000, 20_000, 40_000, 70_000, 200_000, 1_000_000] {
        cases.push((get(&format!("/?x={}", long(bytes)), ""), 414));
        cases.push((get(&format!("/{}", long(bytes)), ""), 414));
    }
    for method in ["FOO", "DELETE", "PUT", "PATCH", "TRACE", "OPTIONS", "get", "POST"] {
        for path in ["/", "/queue", "/build/1", "/api/queue?nr=1"] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            cases.push((request, 405));
        }
    }
    for target in ["CONNECT x:80", "OPTIONS *"] {
        cases.push((format!("{target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"), 405));
    }
    for host in ["", "a b", "x:port", "x:99999", "user@x", "[::1", "a..b", "x/y"] {
        let request = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        cases.push((request, 400));
    }
    for (request, wanted) in cases {
        let (status, head, _) = site.ask(2, &request);
        let shown: String = request.chars().take(200).collect();
        assert_eq!(status, wanted, "{shown:?} ({} bytes): {head}", request.len());
    }
    site.answers_others();
}

#[test]
fn a_request_of_two_lengths_is_the_last_of_its_connection() {
    let site = Site::new("");
    for lines in [
        "content-length: 30\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 30\r\n",
    ] {
        let request = format!(
            "POST /api/v1/build/1/cancel HTTP/1.1\r\nhost: x\r\n{lines}\r\n0\r\n\r\n\
             GET /hidden HTTP/1.1\r\nhost: x\r\n\r\n"
        );
        let (status, head, body) = site.ask(2, &request);
        assert!([400, 401].contains(&status), "{head}");
        assert!(!String::from_utf8_lossy(&body).contains("HTTP/1.1"), "{lines}: a second answer");
    }
}

#[test]
fn a_request_for_another_host_is_refused_and_told_what_to_configure() {
    let ask = |site: &Site, method: &str, host: &str| {
        let request = format!("{method} / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        let (status, _, body) = site.ask(2, &request);
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    let site = Site::new("hosts = [\"ci.example.org\", \"*.example.com\"]");
    for host in [
        "ci.example.org",
        "CI.example.org:8443",
        "a.example.com",
        "localhost",
        "localhost:1",
        "127.0.0.1",
        "127.0.0.1:8080",
        "[::1]",
    ] {
        assert_eq!(ask(&site, "GET", host).0, 200, "{host}");
    }
    for host in ["evil.example", "evil.example:80", "example.com", "ci", "192.0.2.1"] {
        for method in ["GET", "POST", "HEAD"] {
            let (status, body) = ask(&site, method, host);
            assert_eq!(status, 421, "{method} {host}");
            let name = host.split(':').next().expect("a name");
            let told =
                body.contains("[web]") && body.contains(&format!("hosts = [\\\"{name}\\\"]"));
            assert!(told || method == "HEAD", "{body}");
        }
    }
    let absolute =
        "GET http://evil.example/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert_eq!(site.status(2, absolute), 421, "the target counts");
    // Without the key `hosts`, connections over loopback refuse a name that strangers could own.
    let site = Site::new("");
    for (host, wanted) in
        [("evil.example", 421), ("localhost", 200), ("ci", 200), ("10.0.0.1", 200)]
    {
        assert_eq!(ask(&site, "GET", host).0, wanted, "{host}");
    }
}

#[test]
fn clients_behind_a_trusted_proxy_are_counted_one_by_one() {
    let site = Site::new("connections-per-client = 4\ntrusted-proxies = [\"127.0.0.2\"]");
    let follow = |client: u8, header: &str| {
        site.open(client, &format!("GET /live HTTP/1.1\r\nhost: x\r\n{header}\r\n"))
    };
    let mut open = Vec::new();
    let mut statuses = |client: u8, headers: &[&str]| -> Vec<u16> {
        let sockets: Vec<_> = headers.iter().map(|header| follow(client, header)).collect();
        let mut found: Vec<u16> = sockets.iter().map(begun).collect();
        // The answers may come in any order.
        found.sort_unstable();
        open.extend(sockets);
        found
    };
    // Each client behind the proxy may have two streams.
    let first = "x-forwarded-for: 192.0.2.1\r\n";
    assert_eq!(statuses(2, &[first, first, first]), [200, 200, 503]);
    let second = "x-forwarded-for: 192.0.2.1, 192.0.2.2\r\n";
    assert_eq!(statuses(2, &[second, second, second]), [200, 200, 503]);
    let third = "forwarded: for=\"[2001:db8::1]:80\"\r\n";
    let third_too = "forwarded: for=\"[2001:db8::2]:80\"\r\n";
    assert_eq!(statuses(2, &[third, third_too, third]), [200, 200, 503]);
    // A client that is no trusted proxy cannot choose its identity by these headers.
    assert_eq!(statuses(3, &["x-forwarded-for: 192.0.2.7\r\n", first, second]), [200, 200, 503]);
    site.answers_others();
}

#[test]
fn a_low_limit_of_open_files_lowers_the_number_of_connections() {
    for limit in [48, 64, 256] {
        let site = Site::at(Place::new(), "", &format!("ulimit -n {limit};"));
        let mut open: Vec<_> = (0..300_u16)
            .map(|number| site.open(2 + u8::try_from(number % 12).expect("few"), FOLLOWED))
            .collect();
        site.answers_others();
        open.extend((0..300_u16).map(|_| site.open(2, "")));
        site.answers_others();
        drop(open);
    }
}

#[test]
fn a_server_without_descriptors_goes_on_when_it_has_some_again() {
    let site = Site::new("");
    site.answers_others();
    let id = Pid::from_child(&site.server.child);
    let before =
        prlimit(Some(id), Resource::Nofile, Rlimit { current: Some(3), maximum: Some(4096) });
    before.expect("a limit");
    let waiting: Vec<_> = (0..5).map(|_| site.open(HONEST, PAGE)).collect();
    site.server.trace("ulimit -n");
    let more = Rlimit { current: Some(4096), maximum: Some(4096) };
    prlimit(Some(id), Resource::Nofile, more).expect("a limit");
    for socket in waiting {
        assert_eq!(whole(socket).0, 200);
    }
}

#[test]
fn parts_of_downloads_and_finished_logs_are_given_as_asked() {
    let site = Site::at(built(5000), "", "");
    let whole_of = |path: &str| {
        let (status, head, body) =
            site.ask(2, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
        assert_eq!(status, 200, "{path}");
        assert_eq!(header(&head, "content-length"), Some(&*body.len().to_string()), "{path}");
        assert_eq!(header(&head, "accept-ranges"), Some("bytes"), "{path}");
        (header(&head, "etag").expect("a tag").to_owned(), body)
    };
    for path in ["/download/1", "/build/1/log/raw", "/build/1/log/raw?offset=100"] {
        let (tag, body) = whole_of(path);
        let n = body.len();
        let ask = |method: &str, lines: &str| {
            let line = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
            site.ask(2, &format!("{line}{lines}\r\n"))
        };
        for (first, last) in
            [(0, 9), (0, 0), (0, n - 1), (0, n), (5, n * 2), (n - 1, n - 1), (n / 2, n / 2 + 100)]
        {
            let (status, head, part) = ask("GET", &format!("range: bytes={first}-{last}\r\n"));
            let end = (last + 1).min(n);
            assert_eq!((status, &part[..]), (206, &body[first..end]), "{path} {first}-{last}");
            let range = format!("bytes {first}-{}/{n}", end - 1);
            assert_eq!(header(&head, "content-range"), Some(&*range), "{path}");
            assert_eq!(header(&head, "content-length"), Some(&*part.len().to_string()), "{path}");
            assert_eq!(header(&head, "etag"), Some(&*tag), "{path}");
        }
        for (range, wanted) in [("5-", &body[5..]), ("-5", &body[n - 5..]), ("-999999", &body[..])]
        {
            let (status, _, part) = ask("GET", &format!("range: bytes={range}\r\n"));
            assert_eq!((status, &part[..]), (206, wanted), "{path} {range}");
        }
        for range in [format!("{n}-"), format!("{n}-{}", n + 5), "-0".to_owned()] {
            let (status, head, _) = ask("GET", &format!("range: bytes={range}\r\n"));
            assert_eq!(status, 416, "{path} {range}");
            assert_eq!(header(&head, "content-range"), Some(&*format!("bytes */{n}")), "{path}");
        }
        for lines in [
            "range: bytes=a-b\r\n",
            "range: bytes=9-1\r\n",
            "range: lines=0-1\r\n",
            "range: bytes=0-1,5-6\r\n",
            "range: bytes=0-1\r\nif-range: \"other\"\r\n",
        ] {
            let (status, _, all) = ask("GET", lines);
            assert_eq!((status, all.len()), (200, n), "{path} {lines}");
        }
        let same = ask("GET", &format!("range: bytes=0-1\r\nif-range: {tag}\r\n"));
        assert_eq!((same.0, same.2.len()), (206, 2), "{path}");
        let (status, head, nothing) = ask("GET", &format!("if-none-match: {tag}\r\n"));
        assert_eq!((status, nothing.len()), (304, 0), "{path}");
        assert_eq!(header(&head, "etag"), Some(&*tag), "{path}");
        let (status, head, nothing) = ask("HEAD", "range: bytes=0-9\r\n");
        assert_eq!((status, nothing.len()), (200, 0), "{path}");
        assert_eq!(header(&head, "content-length"), Some(&*n.to_string()), "{path}");
        assert_eq!(header(&head, "etag"), Some(&*tag), "{path}");
    }
    assert!(site.place.state().exists());
}

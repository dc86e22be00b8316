//! A site over a database with fixed contents. Tests send requests through a real socket, and see each byte that a
//! client sees.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinHandle;

use super::{router, routes};
use crate::auth::{Auth, Token, digest, new_token};
use crate::config::Web;
use crate::context::{Context, Parts};
use crate::health::Health;
use crate::http::{Base, closed, serve};
use crate::log::Logs;
use crate::measure::Meters;
use crate::model::{
    Action, Actions, Asked, BuildId, Change, Configuration, Event, Grant, Live, Outcome, Setting,
    Specified, Specify, Target, Tasks, Unused, UnusedPart,
};
use crate::store::{self, Database, NewSession, NewToken, Password};

/// The time limit of every wait in a test.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A site that is being served.
pub(crate) struct Served {
    pub(crate) state: tempfile::TempDir,
    pub(crate) database: Database,
    pub(crate) logs: Logs,
    pub(crate) health: Health,
    pub(crate) meters: Arc<Meters>,
    /// What the site is told of the server's tasks.
    pub(crate) tasks: Arc<Mutex<Tasks>>,
    /// What the site is told of specification files.
    pub(crate) unused: watch::Sender<Vec<Unused>>,
    /// What the site is told of its configuration.
    pub(crate) configuration: Arc<Mutex<Configuration>>,
    pub(crate) events: broadcast::Sender<Event>,
    pub(crate) closing: watch::Sender<bool>,
    /// Gets a permit for each request that is being answered until the server closes.
    pub(crate) busy: Arc<Semaphore>,
    /// Every route, as the router spells it.
    pub(crate) routes: Vec<String>,
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

/// Serves a site with the contents of the golden files.
pub(crate) async fn served() -> Served {
    served_with(include_str!("../../tests/data/api/fill.sql"), Web::default()).await
}

/// Serves a site with the contents that `fill` stores.
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
    let (health, tasks) = (Health::unwatched(), Arc::<Mutex<Tasks>>::default());
    let meters = Arc::<Meters>::default();
    let (unused, configuration) = (unused(), Arc::new(Mutex::new(configuration())));
    let context = Context::new(Parts {
        database: database.clone(),
        events: Box::new({
            let events = events.clone();
            move || events.subscribe()
        }),
        logs: logs.clone(),
        health: health.clone(),
        meters: Arc::clone(&meters),
        http_meters: Arc::default(),
        tasks: Box::new({
            let tasks = Arc::clone(&tasks);
            move || tasks.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }),
        unused: unused.subscribe(),
        configuration: Box::new({
            let configuration = Arc::clone(&configuration);
            move || configuration.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }),
        state: state.path().to_owned(),
        systems: vec!["x86_64-linux".to_owned()],
        closing: closed.clone(),
        auth: Auth::new(database.clone(), Some(token(state.path())), web.private, None),
        actions: Box::new(Alone {
            database: database.clone(),
            busy: Arc::clone(&busy),
            closing: closed.clone(),
        }),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let site = routes(context, Base::new(&web.base));
    let server = tokio::spawn(serve(listener, site, Live::new(Arc::new(web)), closed));
    let routes = paths(&format!("{:?}", router().0));
    Served {
        state,
        database,
        logs,
        health,
        meters,
        tasks,
        unused,
        configuration,
        events,
        closing,
        busy,
        routes,
        address,
        server,
    }
}

/// The paths in the text by which axum describes a router: `RouteId(7): "/queue"`.
fn paths(router: &str) -> Vec<String> {
    let ids = router.split("RouteId(").skip(1);
    let paths = ids.filter_map(|text| text.split_once("): \"")?.1.split('"').next());
    let mut paths: Vec<String> = paths
        .filter(|path| path.starts_with('/') && !path.contains("__private"))
        .map(str::to_owned)
        .collect();
    paths.sort();
    paths.dedup();
    assert!(paths.len() > 40, "axum describes routers in another way now: {router}");
    paths
}

/// A configuration whose file has one change that a reload takes and one that it does not.
fn configuration() -> Configuration {
    let setting = |key, running: &str, file: Option<&str>, restart| {
        let (running, file) = (running.to_owned(), file.map(str::to_owned));
        Setting { key, running, file, restart }
    };
    Configuration {
        file: "/etc/brigandine/brigandine.toml".to_owned(),
        settings: vec![
            setting("listen", "127.0.0.1:8080", Some("[::]:80"), true),
            setting("interval", "5m", Some("<1m>"), false),
            setting("build-user", "", None, true),
        ],
        problem: String::new(),
        reload: None,
    }
}

/// One unused part of each kind.
fn unused() -> watch::Sender<Vec<Unused>> {
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
    watch::Sender::new(all)
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

/// The number of a build whose cancellation takes until the server closes.
pub(crate) const BUSY: i64 = 1_000_000;

/// Actions that change the database, and tell no builder.
struct Alone {
    database: Database,
    busy: Arc<Semaphore>,
    closing: watch::Receiver<bool>,
}

impl Actions for Alone {
    fn change(
        &self,
        change: Change,
        targets: Vec<Target>,
        asked: Asked,
    ) -> Action<'_, Vec<(Target, Outcome)>> {
        Box::pin(async move {
            if targets == [Target::Build(BuildId::new(BUSY))] {
                self.busy.add_permits(1);
                closed(&mut self.closing.clone()).await;
                return Ok(vec![(targets[0].clone(), Outcome::Ending(1))]);
            }
            store::carry_out(&self.database, change, targets, asked, &|_| ()).await
        })
    }

    /// As if `odd` stood in a specification file.
    fn specify(&self, change: Specify, even_of_files: bool, asked: Asked) -> Action<'_, Specified> {
        Box::pin(async move {
            if !even_of_files && let Some(name) = change.names().into_iter().find(|it| it == "odd")
            {
                return Ok(Specified::OfFile(name, "/etc/brigandine/odd.toml".to_owned()));
            }
            self.database.write(move |tx| store::specify(tx, &change, &asked)).await
        })
    }
}

impl Served {
    /// Opens a connection.
    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("the server listens")
    }

    /// Opens a connection from another address of this machine, and sends `request` on it.
    pub(crate) async fn connect_from(&self, last: u8, request: &str) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, last], 0).into()).expect("an address");
        let mut socket = socket.connect(self.address).await.expect("the server listens");
        socket.write_all(request.as_bytes()).await.expect("sent");
        socket
    }

    /// Sends `request`, and reads until the server closes the connection.
    pub(crate) async fn raw(&self, request: &str) -> String {
        String::from_utf8_lossy(&self.bytes(request).await).into_owned()
    }

    /// Like [`Served::raw`], as bytes.
    pub(crate) async fn bytes(&self, request: impl AsRef<[u8]>) -> Vec<u8> {
        let mut socket = self.connect().await;
        socket.write_all(request.as_ref()).await.expect("sent");
        let mut answer = Vec::new();
        tokio::time::timeout(LIMIT, socket.read_to_end(&mut answer))
            .await
            .expect("an answer in time")
            .expect("an answer");
        answer
    }

    /// Requests `path` with `method`.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &str) -> Answer {
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        parse(&self.raw(&request).await)
    }

    /// Sends `body` to `path`.
    pub(crate) async fn post(&self, path: &str, headers: &str, body: &str) -> Answer {
        self.send("POST", path, headers, body).await
    }

    /// Requests `path` with `method` and `body`.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &str, body: &str) -> Answer {
        let headers = match body {
            "" => headers.to_owned(),
            body => format!("{headers}content-length: {}\r\n\r\n{body}", body.len()),
        };
        self.ask(method, path, &headers).await
    }

    /// The text of a new token, which ends at a time; 0: never.
    pub(crate) async fn token(&self, name: &str, grant: Grant, expires_at: i64) -> String {
        let text = new_token().expect("random bytes");
        let token = NewToken { name: name.to_owned(), digest: digest(&text), grant, expires_at };
        let put = self.database.write(move |tx| store::put_token(tx, &token, 1)).await;
        assert!(put.expect("stored"));
        text
    }

    /// The secret in the cookie of a session of a new user, which began at this time.
    pub(crate) async fn session(&self, name: &'static str, grant: Grant, at: i64) -> String {
        let secret = new_token().expect("random bytes").split_off("brg_".len());
        let digest = digest(&secret);
        let put = self.database.write(move |tx| {
            store::add_user(tx, name, "digest", &grant, 1)?;
            let user = store::user(tx, name)?.map_or(0, |user| user.id);
            let password = Password { user, digest: "digest".to_owned() };
            let session = NewSession { password, digest, client: String::new() };
            store::begin_session(tx, &session, at)
        });
        assert!(put.await.expect("stored"));
        secret
    }

    /// Requests `path` as a program does.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    /// Requests `path` as a browser does.
    pub(crate) async fn page(&self, path: &str) -> Answer {
        self.ask("GET", path, "accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n").await
    }

    /// Puts a file into the state directory.
    pub(crate) fn put(&self, path: &str, contents: &[u8]) {
        let path = self.state.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("a folder");
        std::fs::write(path, contents).expect("a file");
    }

    /// Tells the server to shut down, and waits until it has ended.
    pub(crate) async fn close(self) {
        self.closing.send_replace(true);
        tokio::time::timeout(LIMIT, self.server).await.expect("closes in time").expect("no panic");
    }
}

/// Splits an answer into its parts.
pub(crate) fn parse(answer: &str) -> Answer {
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

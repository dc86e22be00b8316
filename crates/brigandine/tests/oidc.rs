//! Logins through a real provider of OpenID Connect, which `cargo xtask test --long` installs (step `oidc`).

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::json;

const SECRET: &str = "the secret of a test";

/// A process that is killed when the test ends.
struct Process {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn start(command: &mut Command) -> Self {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let input = child.stdin.take().expect("an input");
        let output = BufReader::new(child.stdout.take().expect("an output"));
        Self { child, input, output }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.output.read_line(&mut line).expect("a line") > 0, "it has ended");
        line.trim_end().to_owned()
    }
}

/// A provider, and a server whose users log in through it.
struct Site {
    provider: Process,
    _server: Process,
    /// `http://127.0.0.1:PORT` and the path below which the server is served.
    address: String,
    directory: tempfile::TempDir,
}

impl Site {
    /// `base`: the path below which a proxy would serve the server.
    fn new(secret: &str, base: &str) -> Self {
        let modules = std::env::var("OIDC_PROVIDER_MODULES").expect(
            "OIDC_PROVIDER_MODULES names the node_modules with oidc-provider; `cargo xtask test --long --only oidc` \
             sets it",
        );
        let directory = tempfile::tempdir().expect("a directory");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/oidc/provider.mjs");
        let mut node = Command::new("node");
        node.arg(script).arg(modules).arg(directory.path().join("users.json"));
        let mut provider = Process::start(&mut node);
        let port = provider.line();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("secret"), secret).expect("a file");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(path("secret"), private).expect("a mode");
        let configuration = format!(
            "[web]\nprivate = true\nbase = \"{base}\"\n\
             [web.oidc]\nissuer = \"http://127.0.0.1:{port}\"\nclient-id = \"brigandine\"\n\
             client-secret-file = \"secret\"\nname = \"Example <SSO>\"\n\
             [[web.oidc.grant]]\nvalue = \"developers\"\nrole = \"builder\"\n\
             [[web.oidc.grant]]\nvalue = \"operators\"\nrole = \"admin\"\n"
        );
        std::fs::write(path("config.toml"), configuration).expect("a file");
        let mut serve = Command::new(env!("CARGO_BIN_EXE_brigandine"));
        serve.args(["serve", "--listen", "127.0.0.1:0", "--sandbox=off", "--config"]);
        serve.arg(path("config.toml")).arg("--state").arg(path("state"));
        let mut server = Process::start(&mut serve);
        let line = server.line();
        let address = line.strip_prefix("listening at ").unwrap_or_else(|| panic!("{line}"));
        let address = format!("{}{base}", address.trim_end_matches('/'));
        writeln!(provider.input, "{address}/login/oidc/callback").expect("a line");
        assert_eq!(provider.line(), "ready");
        let site = Self { provider, _server: server, address, directory };
        site.users(&json!({
            "1": { "preferred_username": "alice", "groups": ["operators", "others"] },
            "2": { "preferred_username": "bob", "groups": "developers" },
            "3": { "preferred_username": "carol", "groups": ["others"] },
            "4": { "groups": ["developers"] },
            "5": { "preferred_username": "alice", "groups": ["developers"] },
            "6": { "preferred_username": "a name\u{202e} with blanks", "groups": ["developers"] },
        }));
        site
    }

    fn users(&self, users: &serde_json::Value) {
        std::fs::write(self.directory.path().join("users.json"), users.to_string())
            .expect("a file");
    }

    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }
}

/// A browser without scripts.
struct Browser {
    agent: ureq::Agent,
    /// The cookies of each server, by name.
    jar: BTreeMap<(String, String), String>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    location: Option<String>,
    body: String,
}

impl Browser {
    fn new() -> Self {
        let config = ureq::Agent::config_builder().max_redirects(0).http_status_as_error(false);
        Self { agent: config.build().into(), jar: BTreeMap::new() }
    }

    /// Requests an address; with a form, posts it.
    fn request(&mut self, address: &str, form: Option<&[(&str, &str)]>) -> Answer {
        let server = address.split('/').nth(2).expect("an authority").to_owned();
        let cookies: Vec<String> = self
            .jar
            .iter()
            .filter(|((of, _), _)| *of == server)
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let cookies = cookies.join("; ");
        let headers =
            [("cookie", &*cookies), ("accept", "text/html"), ("sec-fetch-site", "same-origin")];
        let answer = match form {
            None => {
                let request = self.agent.get(address);
                headers.iter().fold(request, |it, (name, value)| it.header(*name, *value)).call()
            }
            Some(form) => {
                let request = self.agent.post(address);
                let request =
                    headers.iter().fold(request, |it, (name, value)| it.header(*name, *value));
                request.send_form(form.iter().copied())
            }
        };
        let mut answer = answer.unwrap_or_else(|error| panic!("{address}: {error}"));
        for set in answer.headers().get_all("set-cookie") {
            let set = set.to_str().expect("text");
            let (name, value) = set.split(';').next().expect("a pair").split_once('=').expect("=");
            let key = (server.clone(), name.to_owned());
            if set.contains("Max-Age=0") || value.is_empty() {
                self.jar.remove(&key);
            } else {
                self.jar.insert(key, value.to_owned());
            }
        }
        let location = answer.headers().get("location").map(|it| it.to_str().expect("text"));
        let location = location.map(|to| match to.starts_with('/') {
            true => format!("http://{server}{to}"),
            false => to.to_owned(),
        });
        let status = answer.status().as_u16();
        Answer { status, location, body: answer.body_mut().read_to_string().expect("a body") }
    }

    /// Requests an address, and follows redirects until there is none, or one to an address that contains `until`.
    fn follow(&mut self, address: &str, until: &str) -> (String, Answer) {
        let mut address = address.to_owned();
        for _ in 0..12 {
            let answer = self.request(&address, None);
            match &answer.location {
                Some(next) if next.contains(until) => return (next.clone(), answer),
                Some(next) => address.clone_from(next),
                None => return (address, answer),
            }
        }
        panic!("{address} goes round in circles");
    }

    /// Logs in at the provider, and agrees. Returns the address to which it sends the browser back.
    fn at_provider(&mut self, site: &Site, subject: &str) -> String {
        let (mut page, answer) = self.follow(&site.at("/login/oidc?next=%2Fqueue"), "nowhere");
        assert_eq!(answer.status, 200, "{}", answer.body);
        for form in [
            &[("prompt", "login"), ("login", subject), ("password", "x")][..],
            &[("prompt", "consent")],
        ] {
            let posted = self.request(&page, Some(form));
            let next = posted.location.unwrap_or_else(|| panic!("{}", posted.body));
            let (reached, _) = self.follow(&next, "/login/oidc/callback");
            page = reached;
            if page.contains("/login/oidc/callback") {
                break;
            }
        }
        assert!(page.starts_with(&site.at("/login/oidc/callback?code=")), "{page}");
        page
    }

    /// What the page `/login` says of the browser's owner.
    fn account(&mut self, site: &Site) -> String {
        let page = self.request(&site.at("/login"), None).body;
        let main = page.split("<main").nth(1).and_then(|rest| rest.split("</main>").next());
        main.expect("a page").to_owned()
    }
}

#[test]
fn who_logs_in_at_the_provider_has_the_roles_that_it_says_and_comes_back() {
    let site = Site::new(SECRET, "");
    for (subject, name, role) in [("1", "alice", "admin"), ("2", "bob", "builder")] {
        let mut browser = Browser::new();
        let private = browser.request(&site.at("/queue"), None);
        assert_eq!(private.location.as_deref(), Some(&*site.at("/login?next=%2Fqueue")));
        assert!(browser.account(&site).contains("Log in with Example &#60;SSO&#62;"));
        let back = browser.at_provider(&site, subject);
        let (reached, answer) = browser.follow(&back, "nowhere");
        assert_eq!((reached, answer.status), (site.at("/queue"), 200));
        let account = browser.account(&site);
        assert!(account.contains(&format!("<h1>{name}</h1>")), "{account}");
        assert!(account.contains(&format!("You may do what this says: {role}.")), "{account}");
        let session = browser.jar.keys().filter(|(of, _)| site.address.ends_with(of)).count();
        assert_eq!(session, 1, "the cookie of the attempt is gone");
    }
}

#[test]
fn a_code_counts_once_and_only_in_the_browser_that_began() {
    let site = Site::new(SECRET, "");
    let (mut browser, mut other) = (Browser::new(), Browser::new());
    let back = browser.at_provider(&site, "1");
    let stolen = other.request(&back, None);
    assert_eq!(stolen.status, 403);
    assert!(stolen.body.contains("was not begun in this browser"), "{}", stolen.body);
    // The other browser has begun a login of its own: its state is another.
    other.at_provider(&site, "2");
    assert_eq!(other.request(&back, None).status, 403);
    let forged = back.replace("state=", "state=0");
    assert_eq!(browser.request(&forged, None).status, 403);
    assert!(other.account(&site).contains("<h1>Log in</h1>"));
    let attempt = browser.jar.clone();
    assert_eq!(browser.request(&back, None).status, 303);
    // Again, as if the cookie of the attempt had been kept: the provider refuses the code.
    let mut again = Browser { jar: attempt, ..Browser::new() };
    assert_eq!(again.request(&back, None).status, 503);
    assert!(again.account(&site).contains("<h1>Log in</h1>"));
}

#[test]
fn who_has_no_role_or_no_name_is_told_why() {
    let site = Site::new(SECRET, "");
    let refused = |subject: &str, status: u16, why: &str| {
        let mut browser = Browser::new();
        let back = browser.at_provider(&site, subject);
        let answer = browser.request(&back, None);
        assert_eq!(answer.status, status, "{subject}: {}", answer.body);
        assert!(answer.body.contains(why), "{subject}: {}", answer.body);
        assert!(browser.account(&site).contains("<h1>Log in</h1>"), "{subject}");
    };
    refused("3", 403, "nothing that it says of you gives a role here");
    refused("4", 503, "the login through Example &#60;SSO&#62; has failed");
    refused("6", 403, "a name\\u{202e} with blanks");
    let mut alice = Browser::new();
    let back = alice.at_provider(&site, "1");
    assert_eq!(alice.request(&back, None).status, 303);
    refused("5", 403, "there is another user alice here");
    // Somebody who says no at the provider.
    let mut browser = Browser::new();
    let sent = browser.request(&site.at("/login/oidc"), None).location.expect("an address");
    let state =
        sent.split("state=").nth(1).and_then(|rest| rest.split('&').next()).expect("a state");
    let back = site.at(&format!("/login/oidc/callback?error=access_denied&state={state}"));
    let answer = browser.request(&back, None);
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("has not let you log in: access_denied"), "{}", answer.body);
}

#[test]
fn who_loses_all_roles_at_the_provider_loses_the_sessions_at_the_next_login() {
    let site = Site::new(SECRET, "");
    let (mut old, mut new) = (Browser::new(), Browser::new());
    let back = old.at_provider(&site, "2");
    assert_eq!(old.request(&back, None).status, 303);
    assert_eq!(old.request(&site.at("/queue"), None).status, 200);
    site.users(&json!({ "2": { "preferred_username": "bob", "groups": [] } }));
    let back = new.at_provider(&site, "2");
    assert_eq!(new.request(&back, None).status, 403);
    assert_eq!(old.request(&site.at("/queue"), None).status, 303);
}

#[test]
fn below_a_path_the_provider_sends_browsers_back_below_it() {
    let site = Site::new(SECRET, "/ci");
    let mut browser = Browser::new();
    let back = browser.at_provider(&site, "1");
    let (reached, answer) = browser.follow(&back, "nowhere");
    assert_eq!((reached, answer.status), (site.at("/queue"), 200));
}

#[test]
fn a_provider_that_is_gone_or_refuses_stops_no_page_and_is_told() {
    let mut site = Site::new("another secret", "");
    let mut browser = Browser::new();
    let back = browser.at_provider(&site, "1");
    let answer = browser.request(&back, None);
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("the server&#39;s log says why"), "{}", answer.body);
    site.provider.child.kill().expect("killed");
    site.provider.child.wait().expect("it ends");
    let mut browser = Browser::new();
    // The provider's addresses are still known, so the browser is sent there; a code cannot be exchanged any more.
    assert_eq!(browser.request(&back, None).status, 403);
    assert_eq!(browser.request(&site.at("/healthz"), None).status, 200);
    assert!(browser.account(&site).contains("<h1>Log in</h1>"));
}

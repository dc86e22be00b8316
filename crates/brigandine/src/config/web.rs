//! `[web]`: limits of the web server, and the hosts that requests may name.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::oidc;
use super::reader::Table;
use super::shared::{self, set};
use super::value::Refusal;
use crate::model::LoginProvider;

/// The configuration of the web server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// The most connections at the same time. `None`: a default, which the limit of open files may lower without a
    /// warning.
    pub(crate) connections: Option<usize>,
    /// The most connections of one client at the same time; `None`: a quarter of all.
    pub(crate) connections_per_client: Option<usize>,
    /// The time limit for sending a request, and the time limit for taking the next byte of an answer.
    pub(crate) client_time: Duration,
    /// The hosts that requests may name, in lower case; `None`: the default in `http/host.rs`.
    pub(crate) hosts: Option<Vec<String>>,
    /// The proxies whose `X-Forwarded-For` names the client.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// The file with the token that authorizes changes over HTTP; `None`: `token` in the state directory.
    pub(crate) token_file: Option<PathBuf>,
    /// The path below which a proxy serves the server, such as `/ci`; empty: the root.
    pub(crate) base: String,
    /// Whether only those who have a role may read.
    pub(crate) private: bool,
    /// The provider through which people log in.
    pub(crate) oidc: Option<LoginProvider>,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            connections: None,
            connections_per_client: None,
            client_time: Duration::from_secs(30),
            hosts: None,
            trusted_proxies: Vec::new(),
            token_file: None,
            base: String::new(),
            private: false,
            oidc: None,
        }
    }
}

/// Reads the table `[web]`.
pub(super) fn table(top: &Table<'_, '_>, folder: &Path) -> Option<Web> {
    let table = top.table("web", "`[web]`".to_owned())?;
    let count = |key, example| shared::count(&table, key, 1..=100_000, example);
    let times = Duration::from_secs(1)..=Duration::from_secs(600);
    let mut web = Web {
        connections: count("connections", 1024),
        connections_per_client: count("connections-per-client", 256),
        ..Web::default()
    };
    set(&mut web.client_time, table.duration("client-time", times, "30s"));
    web.hosts = hosts(&table);
    web.trusted_proxies = trusted_proxies(&table);
    web.token_file = shared::path(&table, folder, "token-file", "/etc/brigandine/token");
    let base = table.checked("base", "/ci", check_base);
    set(&mut web.base, base.map(|base| base.value.trim_end_matches('/').to_owned()));
    set(&mut web.private, table.boolean("private"));
    web.oidc = oidc::table(&table, folder);
    table.finish();
    Some(web)
}

/// The first parts of the server's own addresses, with which no base may begin: `/api/queue` must not be `/queue` below
/// `/api`.
pub(crate) const OWN_PATHS: [&str; 22] = [
    "api",
    "build",
    "configuration",
    "download",
    "eval",
    "favicon.ico",
    "healthz",
    "job",
    "jobset",
    "jobsets",
    "live",
    "login",
    "logout",
    "metrics",
    "output",
    "project",
    "queue",
    "readyz",
    "robots.txt",
    "search",
    "specifications",
    "static",
];

/// Refuses what is no path, and a path that is the server's own.
fn check_base(base: &str) -> Result<(), Refusal> {
    let help = || {
        "for example \"/ci\"; at most 100 letters, digits, `-`, `.`, `_`, `~` and `/`".to_owned()
    };
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let is_part =
        |part: &str| !part.is_empty() && part.bytes().all(plain) && part != "." && part != "..";
    let path = base.strip_suffix('/').unwrap_or(base);
    let right =
        path.is_empty() || path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_part));
    if !right || base.len() > 100 {
        return Err((format!("`base` is no path: {base:?}"), help()));
    }
    let first = path.split('/').nth(1).unwrap_or_default();
    if OWN_PATHS.contains(&first) {
        return Err((
            format!("`base` begins with `/{first}`, which is an address of the server itself"),
            help(),
        ));
    }
    Ok(())
}

fn hosts(table: &Table<'_, '_>) -> Option<Vec<String>> {
    let names = table.texts("hosts", "ci.example.org")?;
    let mut hosts = Vec::new();
    for name in names {
        let host = name.value.trim_end_matches('.').to_ascii_lowercase();
        match host_problem(&host) {
            None => hosts.push(host),
            Some(help) => {
                let problem = format!("`{}` in `hosts` is no name of a host", name.value);
                table.problem(name.span, problem, help);
            }
        }
    }
    Some(hosts)
}

/// The remedy if `host` is not a name, an address, or `*.` with a name. `None`: `host` is valid.
fn host_problem(host: &str) -> Option<&'static str> {
    let name = host.strip_prefix("*.").unwrap_or(host);
    if host == "*" || name.parse::<IpAddr>().is_ok() {
        return None;
    }
    if name.contains("://") || name.contains('/') {
        return Some("write the name alone, for example \"ci.example.org\"");
    }
    if name.contains(':') || name.contains('[') {
        return Some("leave out the port and brackets, for example \"ci.example.org\" or \"::1\"");
    }
    if name.contains('*') {
        return Some("a `*` stands alone, or before the first dot: \"*.example.org\"");
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let right = !name.is_empty() && name.bytes().all(plain) && !name.split('.').any(str::is_empty);
    (!right).then_some("for example \"ci.example.org\" or \"*.example.org\"")
}

fn trusted_proxies(table: &Table<'_, '_>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in table.texts("trusted-proxies", "127.0.0.1").unwrap_or_default() {
        let network = text.value.parse::<IpNet>().ok();
        match network.or_else(|| text.value.parse::<IpAddr>().ok().map(IpNet::from)) {
            Some(network) => networks.push(network.trunc()),
            None => {
                let problem =
                    format!("`{}` in `trusted-proxies` is no address and no network", text.value);
                table.problem(text.span, problem, "for example \"127.0.0.1\" or \"10.0.0.0/8\"");
            }
        }
    }
    networks
}

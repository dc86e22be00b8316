//! `[web]`: how many clients are served at once, how long a slow one is waited for, and under which names.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::document::Document;
use super::reader::Table;
use super::shared;

/// What the web server was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Web {
    /// Connections at once; the default also keeps to the limit of open files without a word.
    pub(crate) connections: Option<usize>,
    /// Connections at once of one client; a quarter of all when absent.
    pub(crate) connections_per_client: Option<usize>,
    /// A client has this long to send a request, and may take nothing of an answer for this long.
    pub(crate) client_time: Duration,
    /// Names that requests may be addressed to, in small letters; see `http/host.rs` for what passes when absent.
    pub(crate) hosts: Option<Vec<String>>,
    /// Whose word is taken for who the client is.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// The file with the token that allows changes over HTTP.
    pub(crate) token_file: Option<PathBuf>,
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
        }
    }
}

/// Reads the table.
pub(super) fn table(document: &Document<'_>, top: &Table<'_, '_>, folder: &Path) -> Web {
    let default = Web::default();
    let Some(table) = top.table("web", "`[web]`".to_owned()) else { return default };
    let count = |key, example| shared::count(&table, key, 1..=100_000, example);
    let times = Duration::from_secs(1)..=Duration::from_secs(600);
    let web = Web {
        connections: count("connections", 1024),
        connections_per_client: count("connections-per-client", 256),
        client_time: table.duration("client-time", times, "30s").unwrap_or(default.client_time),
        hosts: hosts(document, &table),
        trusted_proxies: trusted_proxies(document, &table),
        token_file: shared::path(document, &table, folder, "token-file", "/etc/brigandine/token"),
    };
    table.finish();
    web
}

fn hosts(document: &Document<'_>, table: &Table<'_, '_>) -> Option<Vec<String>> {
    let names = table.texts("hosts", "ci.example.org")?;
    let mut hosts = Vec::new();
    for name in names {
        let host = name.value.trim_end_matches('.').to_ascii_lowercase();
        match host_problem(&host) {
            None => hosts.push(host),
            Some(help) => {
                let problem = format!("`{}` in `hosts` is no name of a host", name.value);
                document.problem(name.span, problem, help);
            }
        }
    }
    Some(hosts)
}

/// What to write instead, if `host` is neither a name, nor an address, nor a name behind `*.`.
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

fn trusted_proxies(document: &Document<'_>, table: &Table<'_, '_>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for text in table.texts("trusted-proxies", "127.0.0.1").unwrap_or_default() {
        let network = text.value.parse::<IpNet>().ok();
        match network.or_else(|| text.value.parse::<IpAddr>().ok().map(IpNet::from)) {
            Some(network) => networks.push(network.trunc()),
            None => {
                let problem =
                    format!("`{}` in `trusted-proxies` is no address and no network", text.value);
                document.problem(text.span, problem, "for example \"127.0.0.1\" or \"10.0.0.0/8\"");
            }
        }
    }
    networks
}

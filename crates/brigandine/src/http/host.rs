//! Which requests are meant for this server, judged by the host that they name.
//!
//! The owner of a web page can let its host name resolve to this server's address (DNS rebinding), and so read this
//! server through the browser of a visitor. The browser then sends the page's host name in `Host`, and the server
//! refuses the request because of that name.
//!
//! `localhost`, names below it, loopback addresses and the address at which the connection reached the server always
//! pass. `hosts` under `[web]` adds names. Without `hosts`:
//!
//! - connections over loopback that do not come from a trusted proxy may name any address, and any name without a dot,
//!   because the owner of a web page cannot let such a name resolve to this server;
//! - all other connections may name any host, because their network can reach the server anyway.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{Version, header};

use super::error::{HttpError, Result};

/// How a request arrived.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival {
    /// The server's address in the connection.
    pub(super) local: IpAddr,
    /// Whether the connection comes from a trusted proxy.
    pub(super) proxied: bool,
}

/// Checks that a request is meant for this server.
///
/// # Errors
/// 400: the request does not name exactly one host. 421: it names another host.
pub(super) fn check(parts: &Parts, hosts: Option<&[String]>, arrival: Arrival) -> Result<()> {
    let mut lines = parts.headers.get_all(header::HOST).iter();
    let (first, second) = (lines.next(), lines.next());
    if second.is_some() {
        return Err(HttpError::BadRequest("the request has more than one `host`".to_owned()));
    }
    let Some(line) = first else {
        // Clients of HTTP/1.0 need not send `Host` (RFC 9112, 3.2); browsers always do.
        return if parts.version < Version::HTTP_11 {
            Ok(())
        } else {
            Err(HttpError::BadRequest("the request has no `host`".to_owned()))
        };
    };
    let invalid = || HttpError::BadRequest("the request's `host` is no name of a host".to_owned());
    let authority = Authority::try_from(line.as_bytes()).ok();
    let said = authority.as_ref().and_then(name).ok_or_else(invalid)?;
    // If the target is absolute, its host is checked instead of `Host` (RFC 9112, 3.2.2).
    let said = match parts.uri.authority() {
        Some(authority) => name(authority).ok_or_else(invalid)?,
        None => said,
    };
    if passes(&said, hosts, arrival) {
        return Ok(());
    }
    Err(HttpError::Misdirected(format!(
        "this server does not answer for the host {said}; if it should, add it to `hosts` under `[web]` in the \
         server's configuration: hosts = [\"{said}\"]"
    )))
}

/// The host of an authority, in lower case; `None`: the authority is not valid.
fn name(authority: &Authority) -> Option<String> {
    let text = authority.as_str();
    let host = authority.host();
    let port = text.strip_prefix(host)?;
    let port_is_one = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some(port) => port.is_empty() || port.parse::<u16>().is_ok_and(|_| !port.starts_with('+')),
    };
    if !port_is_one {
        return None;
    }
    if let Some(address) = host.strip_prefix('[') {
        let address: std::net::Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some(address.to_string());
    }
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let right = host.len() <= 253 && host.bytes().all(plain) && !host.split('.').any(str::is_empty);
    right.then_some(host)
}

fn passes(said: &str, hosts: Option<&[String]>, arrival: Arrival) -> bool {
    let address = said.parse::<IpAddr>().ok();
    if said == "localhost"
        || said.ends_with(".localhost")
        || address
            .is_some_and(|a| a.to_canonical().is_loopback() || a.to_canonical() == arrival.local)
    {
        return true;
    }
    match hosts {
        Some(hosts) => hosts.iter().any(|host| match host.strip_prefix('*') {
            // `end` is empty for "*", or begins with a dot, as in ".example.org".
            Some(end) => said.len() > end.len() && said.ends_with(end),
            None => same(host, said, address),
        }),
        None if arrival.proxied || !arrival.local.is_loopback() => true,
        None => address.is_some() || !said.contains('.'),
    }
}

/// Whether `host` of the configuration is the host `said` of the request. An address may be written in several ways.
fn same(host: &str, said: &str, address: Option<IpAddr>) -> bool {
    host == said || address.is_some_and(|address| host.parse() == Ok(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::Request;

    /// The status of a request with these `host` lines.
    fn status(lines: &[&str], hosts: Option<&[&str]>, local: &str, proxied: bool) -> u16 {
        let mut request = Request::get("/queue");
        for line in lines {
            request = request.header("host", *line);
        }
        let (parts, ()) = request.body(()).expect("a request").into_parts();
        let hosts: Option<Vec<String>> =
            hosts.map(|hosts| hosts.iter().map(|&host| host.to_owned()).collect());
        let arrival = Arrival { local: local.parse().expect("an address"), proxied };
        match check(&parts, hosts.as_deref(), arrival) {
            Ok(()) => 200,
            Err(refusal) => refusal.parts().0.as_u16(),
        }
    }

    #[test]
    fn loopback_names_and_the_servers_own_address_always_pass() {
        for local in ["127.0.0.1", "192.0.2.7", "::1"] {
            for host in [
                "localhost",
                "LocalHost:8080",
                "a.localhost",
                "127.0.0.1:1",
                "127.9.9.9",
                "[::1]:8",
            ] {
                for hosts in [None, Some(&[][..]), Some(&["ci.example.org"][..])] {
                    assert_eq!(status(&[host], hosts, local, false), 200, "{host} at {local}");
                }
            }
        }
        assert_eq!(status(&["192.0.2.7:80"], Some(&[]), "192.0.2.7", false), 200);
        assert_eq!(status(&["192.0.2.8:80"], Some(&[]), "192.0.2.7", false), 421);
    }

    #[test]
    fn with_hosts_only_these_pass() {
        let hosts = Some(&["ci.example.org", "*.example.com", "::2"][..]);
        for local in ["127.0.0.1", "192.0.2.7"] {
            for proxied in [false, true] {
                for (host, wanted) in [
                    ("ci.example.org", 200),
                    ("CI.Example.Org.:443", 200),
                    ("a.example.com", 200),
                    ("a.b.example.com", 200),
                    ("[0::2]", 200),
                    ("example.com", 421),
                    ("badexample.com", 421),
                    ("evil.example", 421),
                    ("ci.example.org.evil.example", 421),
                    ("ci", 421),
                    ("198.51.100.1", 421),
                ] {
                    assert_eq!(status(&[host], hosts, local, proxied), wanted, "{host} at {local}");
                }
            }
        }
        assert_eq!(status(&["anything.example"], Some(&["*"]), "127.0.0.1", false), 200);
    }

    #[test]
    fn without_hosts_a_strangers_name_does_not_lead_to_loopback() {
        for (host, loopback) in
            [("evil.example", 421), ("ci", 200), ("198.51.100.1", 200), ("[2001:db8::1]", 200)]
        {
            assert_eq!(status(&[host], None, "127.0.0.1", false), loopback, "{host}");
            assert_eq!(status(&[host], None, "::1", false), loopback, "{host}");
            assert_eq!(status(&[host], None, "192.0.2.7", false), 200, "{host}");
            assert_eq!(status(&[host], None, "127.0.0.1", true), 200, "{host}");
        }
    }

    #[test]
    fn what_does_not_name_one_host_is_a_bad_request() {
        for lines in [&[][..], &["x", "x"], &["x", "y"]] {
            assert_eq!(status(lines, None, "127.0.0.1", false), 400, "{lines:?}");
        }
        for host in [
            "",
            " ",
            "a b",
            "a/b",
            "user@x",
            "x:port",
            "x:99999",
            "x:+80",
            "[::1",
            "::1",
            "a..b",
            ".",
            "x,y",
            "ex%61mple",
            "[v1.x]",
            "x:80:80",
            "<x>",
        ] {
            assert_eq!(status(&[host], Some(&["*"]), "127.0.0.1", false), 400, "{host:?}");
        }
        let long = "x".repeat(300);
        assert_eq!(status(&[&long], Some(&["*"]), "127.0.0.1", false), 400);
    }
}

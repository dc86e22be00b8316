//! Addresses of repositories as people and programs may see them.

/// A URL without its password. Of an HTTP URL also without its user, because forges take a token as the user's name.
pub fn redact(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let Some((user, host)) = host.rsplit_once('@') else { return url.to_owned() };
    match user.split_once(':') {
        _ if scheme.to_ascii_lowercase().starts_with("http") => {
            format!("{scheme}://***@{host}{path}")
        }
        Some((user, _)) => format!("{scheme}://{user}:***@{host}{path}"),
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn a_password_in_a_url_is_never_shown() {
        for secret in ["token", "me:secret", "me:a@b", "token:x-oauth-basic", ":secret"] {
            assert_eq!(redact(&format!("https://{secret}@host/x.git")), "https://***@host/x.git");
        }
        assert_eq!(redact("HTTP://token@host"), "HTTP://***@host");
        assert_eq!(redact("ssh://git@host/x.git"), "ssh://git@host/x.git");
        assert_eq!(redact("ssh://git:secret@host/x.git"), "ssh://git:***@host/x.git");
        assert_eq!(redact("https://host/x:y@z.git"), "https://host/x:y@z.git");
        assert_eq!(redact("git@host:x.git"), "git@host:x.git");
    }
}

//! Pages of forges about revisions, by the address of a repository.
//!
//! - FORGE1: an address of a page begins with `https://` and the host of the repository, and has no character that means
//!   something to HTML. It has no user name, password or token, whatever the repository's address has.
//!
//! Which program serves a host is known by the host's name only: nothing is asked over the network. Where the name does
//! not tell, there is no page.

/// How a forge names its pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// GitHub, Gitea and Forgejo: `/OWNER/NAME/commit/REVISION`.
    GitHub,
    /// `/GROUP/…/NAME/-/commit/REVISION`
    GitLab,
    /// `/~OWNER/NAME/commit/REVISION`
    SourceHut,
    /// `/…/NAME.git/commit/?id=REVISION`
    Cgit,
}

/// The page of a revision; `None`: no such page is known.
pub fn commit_page(url: &str, revision: &str) -> Option<String> {
    let (kind, page) = repository(url)?;
    let revision = checked(revision)?;
    Some(match kind {
        Kind::GitHub | Kind::SourceHut => format!("{page}/commit/{revision}"),
        Kind::GitLab => format!("{page}/-/commit/{revision}"),
        Kind::Cgit => format!("{page}/commit/?id={revision}"),
    })
}

/// The page with the revisions that `to` has and `from` has not; `None`: no such page is known.
pub fn range_page(url: &str, from: &str, to: &str) -> Option<String> {
    let (kind, page) = repository(url)?;
    let (from, to) = (checked(from)?, checked(to)?);
    match kind {
        Kind::GitHub => Some(format!("{page}/compare/{from}...{to}")),
        Kind::GitLab => Some(format!("{page}/-/compare/{from}...{to}")),
        Kind::Cgit => Some(format!("{page}/log/?qt=range&q={from}..{to}")),
        Kind::SourceHut => None,
    }
}

/// A full revision in SHA-1 or SHA-256.
fn checked(revision: &str) -> Option<&str> {
    let full = [40, 64].contains(&revision.len());
    (full && revision.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(revision)
}

/// The kind of the forge, and the address of the repository's page without a slash at its end (FORGE1).
fn repository(url: &str) -> Option<(Kind, String)> {
    let (scheme, rest) = url.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let (authority, path) = rest.split_once('/')?;
    // What stands in front of the last `@` are a user name and a password.
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase();
    let host = host.strip_suffix(":443").unwrap_or(&host);
    let (name, port) = host.split_once(':').unwrap_or((host, "1"));
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    if !is_name || port.parse::<u16>().is_err() {
        return None;
    }
    let path = path.trim_end_matches('/');
    let mut parts: Vec<&str> = path.split('/').collect();
    if !parts.iter().all(|part| is_part(part)) {
        return None;
    }
    let kind = kind(name, &parts)?;
    let last = parts.pop()?;
    let bare = last.strip_suffix(".git").filter(|bare| !bare.is_empty()).unwrap_or(last);
    match kind {
        Kind::GitHub | Kind::SourceHut if parts.len() != 1 => return None,
        Kind::SourceHut if !parts[0].starts_with('~') => return None,
        Kind::GitLab if parts.is_empty() => return None,
        Kind::Cgit => parts.push(last),
        Kind::GitHub | Kind::GitLab | Kind::SourceHut => parts.push(bare),
    }
    // Savannah's repositories are fetched from one path and shown at another.
    if name.starts_with("git.savannah.") && ["git", "r"].contains(&parts[0]) {
        parts[0] = "cgit";
    }
    Some((kind, format!("https://{host}/{}", parts.join("/"))))
}

/// Whether a part of a path can stand in a page's address as it is (FORGE1).
fn is_part(part: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+@%".contains(&byte);
    !part.is_empty() && part != "." && part != ".." && part.bytes().all(plain)
}

/// The kind of the forge at a host, by the labels of its name: `gitlab.gnome.org` runs GitLab.
fn kind(host: &str, path: &[&str]) -> Option<Kind> {
    let has = |label: &str| host.split('.').any(|part| part == label);
    Some(match host {
        "codeberg.org" => Kind::GitHub,
        "salsa.debian.org" | "invent.kde.org" | "framagit.org" | "0xacab.org" => Kind::GitLab,
        "git.sr.ht" => Kind::SourceHut,
        "git.kernel.org" | "git.savannah.gnu.org" | "git.savannah.nongnu.org" => Kind::Cgit,
        _ if has("github") || has("gitea") || has("forgejo") => Kind::GitHub,
        _ if has("gitlab") => Kind::GitLab,
        _ if has("cgit") || path[0] == "cgit" => Kind::Cgit,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REVISION: &str = "0123456789abcdef0123456789abcdef01234567";
    const OTHER: &str = "89abcdef0123456789abcdef0123456789abcdef";

    /// Repositories, and what stands before and after the revision in the address of its page.
    const KNOWN: [(&str, &str, &str); 12] = [
        ("github.com/owner/name", "https://github.com/owner/name/commit/", ""),
        ("github.example.com/owner/na.me", "https://github.example.com/owner/na.me/commit/", ""),
        ("codeberg.org/owner/name", "https://codeberg.org/owner/name/commit/", ""),
        ("gitea.com/owner/name", "https://gitea.com/owner/name/commit/", ""),
        ("forgejo.example.org:3000/o/n", "https://forgejo.example.org:3000/o/n/commit/", ""),
        ("gitlab.com/group/sub/name", "https://gitlab.com/group/sub/name/-/commit/", ""),
        ("gitlab.gnome.org/GNOME/gtk", "https://gitlab.gnome.org/GNOME/gtk/-/commit/", ""),
        ("salsa.debian.org/a/b", "https://salsa.debian.org/a/b/-/commit/", ""),
        ("git.sr.ht/~owner/name", "https://git.sr.ht/~owner/name/commit/", ""),
        ("git.example.org/cgit/n", "https://git.example.org/cgit/n/commit/?id=", ""),
        ("cgit.example.org/a/b/c", "https://cgit.example.org/a/b/c/commit/?id=", ""),
        ("git.savannah.gnu.org/git/guix", "https://git.savannah.gnu.org/cgit/guix/commit/?id=", ""),
    ];

    #[test]
    fn a_revision_has_one_page_however_its_repository_is_spelt() {
        let users = ["", "user@", "user:secret@", "oauth2:s3cr%40et@", ":secret@", "a@b:secret@"];
        for (repository, before, after) in KNOWN {
            let (host, path) = repository.split_once('/').expect("a path");
            let hosts = [host.to_owned(), host.to_uppercase()];
            for scheme in ["https", "HTTPS", "Https"] {
                for user in users {
                    for host in &hosts {
                        for port in ["", ":443"] {
                            if !port.is_empty() && host.contains(':') {
                                continue;
                            }
                            for end in ["", "/", "//"] {
                                let url = format!("{scheme}://{user}{host}{port}/{path}{end}");
                                let page = format!("{before}{REVISION}{after}");
                                assert_eq!(commit_page(&url, REVISION), Some(page), "{url}");
                            }
                        }
                    }
                }
            }
            for scheme in ["http", "git", "ssh", "file", "ext", "javascript", "https+x", ""] {
                let url = format!("{scheme}://{repository}");
                assert_eq!(commit_page(&url, REVISION), None, "{url}");
            }
            let scp = format!("git@{}", repository.replacen('/', ":", 1));
            for url in [&*scp, repository, &format!("/{repository}"), &format!("//{repository}")] {
                assert_eq!(commit_page(url, REVISION), None, "{url}");
            }
        }
    }

    #[test]
    fn the_ending_of_a_repository_belongs_to_cgit_alone() {
        for (repository, before, after) in KNOWN {
            let url = format!("https://{repository}.git");
            let page = commit_page(&url, REVISION).expect("a page");
            if before.ends_with("?id=") {
                let before = before.replace("/commit/", ".git/commit/");
                assert_eq!(page, format!("{before}{REVISION}{after}"));
            } else {
                assert_eq!(page, format!("{before}{REVISION}{after}"));
            }
        }
    }

    #[test]
    fn what_is_no_repository_or_no_revision_has_no_page() {
        for url in [
            "https://github.com",
            "https://github.com/",
            "https://github.com/owner",
            "https://github.com/owner/name/more",
            "https://github.com//name",
            "https://github.com/owner/..",
            "https://github.com/owner/name?x=y",
            "https://github.com/owner/name#x",
            "https://github.com/owner/na me",
            "https://github.com\\@evil.example/owner/name",
            "https://github.com@evil.example/owner/name",
            "https://notgithub.com/owner/name",
            "https://github.com:0x/owner/name",
            "https://github.com:/owner/name",
            "https://[::1]/owner/name",
            "https://gitlab.com/name",
            "https://git.sr.ht/owner/name",
            "https://git.example.org/owner/name",
        ] {
            assert_eq!(commit_page(url, REVISION), None, "{url}");
        }
        for revision in ["", "main", "0123456", &REVISION[1..], &format!("{REVISION}\""), "..%2f"] {
            assert_eq!(commit_page("https://github.com/o/n", revision), None, "{revision}");
        }
        assert!(commit_page("https://github.com/o/n", &REVISION.repeat(2)[..64]).is_some());
    }

    /// Checks that the address of a page is made of plain characters, and that the browser goes to the host from which git
    /// fetches `url`.
    fn check_plain(url: &str, page: &str) {
        let rest = page.strip_prefix("https://").unwrap_or_else(|| panic!("{url}: {page}"));
        let (host, path) = rest.split_once('/').expect("a path");
        let plain = |c: char| c.is_ascii_alphanumeric() || "-.:".contains(c);
        assert!(host.chars().all(plain), "{url}: {page}");
        let plain = |c: char| c.is_ascii_alphanumeric() || "-._~+@%/?=&".contains(c);
        assert!(path.chars().all(plain), "{url}: {page}");
        let after = url.split_once("://").expect("a scheme").1;
        let authority = after.split('/').next().expect("a host").to_ascii_lowercase();
        let fetched = authority.rsplit('@').next().expect("a host");
        assert_eq!(host, fetched.strip_suffix(":443").unwrap_or(fetched), "{url}: {page}");
    }

    #[test]
    fn an_address_made_of_anything_is_a_plain_one_of_its_host_or_none() {
        let begins =
            ["https://", "https://", "https://a:secret@", "HTTPS://b@", "http://", "https:", ""];
        let hosts = ["github.com", "gitlab.com", "git.sr.ht", "cgit.example.org", "evil.example"];
        let pieces = [
            "a",
            "b",
            "c",
            "~a",
            ".git",
            "x-1",
            "..",
            ".",
            "%2f",
            "%",
            "?",
            "#",
            "\"",
            "<",
            ">",
            "'",
            "&",
            "\\",
            " ",
            "\n",
            "\0",
            "ü",
            "@",
            ":",
            ":443",
            "//",
            "https://",
            "javascript:",
            "secret",
        ];
        // A linear congruential generator: the same addresses in every run.
        let mut state: u64 = 7;
        let mut roll = |sides: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).expect("31 bits") % sides
        };
        let mut pages = 0;
        for _ in 0..100_000 {
            let mut url = begins[roll(begins.len())].to_owned();
            if roll(5) == 0 {
                url.push_str(pieces[roll(pieces.len())]);
            }
            url.push_str(hosts[roll(hosts.len())]);
            if roll(5) == 0 {
                url.push_str(pieces[roll(pieces.len())]);
            }
            for _ in 0..roll(5) {
                url.push('/');
                for _ in 0..=roll(2) {
                    let among = [6, pieces.len()][roll(2)];
                    url.push_str(pieces[roll(among)]);
                }
            }
            let all = [commit_page(&url, REVISION), range_page(&url, REVISION, OTHER)];
            for page in all.into_iter().flatten() {
                pages += 1;
                check_plain(&url, &page);
            }
        }
        assert!(pages > 1000, "{pages} pages");
    }

    #[test]
    fn a_range_has_a_page_where_the_forge_compares() {
        let range = |url: &str| range_page(url, REVISION, OTHER);
        let both = format!("{REVISION}...{OTHER}");
        assert_eq!(
            range("https://github.com/o/n.git"),
            Some(format!("https://github.com/o/n/compare/{both}"))
        );
        assert_eq!(
            range("https://gitlab.com/g/n"),
            Some(format!("https://gitlab.com/g/n/-/compare/{both}"))
        );
        assert_eq!(
            range("https://cgit.example.org/n.git"),
            Some(format!("https://cgit.example.org/n.git/log/?qt=range&q={REVISION}..{OTHER}"))
        );
        assert_eq!(range("https://git.sr.ht/~o/n"), None);
        assert_eq!(range_page("https://github.com/o/n", "main", OTHER), None);
    }
}

//! Values inside texts: durations, sizes, names, patterns, addresses of repositories. The errors of the checks have no
//! place in the file, because only the callers know it.

use std::time::Duration;

use super::words::shown;
use crate::model::{RESERVED_NAMES, RESERVED_WHY, is_steering};

/// The problem of a value, and the remedy.
pub(crate) type Refusal = (String, String);

fn refuse(message: impl Into<String>, remedy: impl Into<String>) -> Result<(), Refusal> {
    Err((message.into(), remedy.into()))
}

/// Parses seconds, or numbers with units, larger units first: "90", "1h30m", "2 d".
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest, mut last_unit) = (Duration::ZERO, text.trim(), u64::MAX);
    while !rest.is_empty() {
        let (number, letters) = split_number(rest)?;
        let end = letters.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(letters.len());
        let unit = match &letters[..end] {
            "" if letters.is_empty() && last_unit == u64::MAX => {
                return Some(Duration::from_secs(number));
            }
            "ms" => 1,
            "s" | "sec" | "second" | "seconds" => 1_000,
            "m" | "min" | "minute" | "minutes" => 60_000,
            "h" | "hour" | "hours" => 3_600_000,
            "d" | "day" | "days" => 86_400_000,
            _ => return None,
        };
        if unit >= last_unit {
            return None;
        }
        last_unit = unit;
        total = total.checked_add(Duration::from_millis(number.checked_mul(unit)?))?;
        rest = letters[end..].trim_start();
    }
    (last_unit != u64::MAX).then_some(total)
}

/// The number at the beginning of a text, and the rest without leading blanks.
fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim_start()))
}

/// A duration in a form that [`parse_duration`] reads, in the largest unit that divides it.
pub(super) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [(86_400, 'd'), (3600, 'h'), (60, 'm')];
    let unit = units.into_iter().find(|(size, _)| seconds.is_multiple_of(*size));
    let (size, unit) = unit.unwrap_or((1, 's'));
    format!("{}{unit}", seconds / size)
}

/// Parses bytes, or a number with a unit: "4096", "64 MiB", "1GiB", "10 kB".
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim())?;
    let unit = match unit {
        "" | "B" => 1,
        "kB" => 1_000,
        "KiB" | "K" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" | "M" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" | "G" => 1 << 30,
        "TB" => 1_000_000_000_000,
        "TiB" | "T" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// The text with its first letter in lower case.
pub(super) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// Checks a name that becomes part of addresses and file names: letters, digits and `. _ + -`.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let help = "letters, digits, `.`, `_`, `+` and `-`, starting with a letter or digit, at most \
                100 characters";
    if name.is_empty() {
        refuse(format!("the name of {what} is empty"), help)
    } else if name.len() > 100
        || !name.chars().all(allowed)
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        refuse(format!("\"{}\" cannot be the name of {what}", shown(name)), help)
    } else {
        Ok(())
    }
}

/// Checks the name of a project.
pub(crate) fn check_project(name: &str) -> Result<(), Refusal> {
    check_name("a project", name)
}

/// Refuses the names that no specification may have.
pub(super) fn check_not_reserved(name: &str) -> Result<(), Refusal> {
    if !RESERVED_NAMES.contains(&name) {
        return Ok(());
    }
    refuse(format!("\"{name}\" cannot be the name of a specification"), RESERVED_WHY)
}

/// Checks a system, which has the form of `x86_64-linux`.
pub(super) fn check_system(system: &str) -> Result<(), Refusal> {
    check_length("the system", system, SYSTEM_BYTES_MAX)?;
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    match system.split_once('-') {
        Some((machine, kernel)) if part(machine) && part(kernel) => Ok(()),
        _ => refuse(
            format!("\"{}\" is no system", shown(system)),
            "a machine and a kernel, for example \"x86_64-linux\" or \"aarch64-linux\"",
        ),
    }
}

/// The most bytes of each kind of text.
const SYSTEM_BYTES_MAX: usize = 100;
const REF_BYTES_MAX: usize = 250;
const URL_BYTES_MAX: usize = 2000;
const PATTERN_BYTES_MAX: usize = 4096;
const DESCRIPTION_BYTES_MAX: usize = 1000;

/// Refuses a text that is too long for its place.
fn check_length(what: &str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.len() <= bytes_max {
        return Ok(());
    }
    refuse(
        format!("{what} \"{}\" has {} bytes", shown(text), text.len()),
        format!("at most {bytes_max} bytes"),
    )
}

/// Checks a description: one line for people.
pub(super) fn check_description(description: &str) -> Result<(), Refusal> {
    check_length("the description", description, DESCRIPTION_BYTES_MAX)?;
    if description.chars().any(|c| c != '\n' && is_steering(c)) {
        return refuse(
            format!("the description \"{}\" has control characters", shown(description)),
            "write one line of plain text",
        );
    }
    Ok(())
}

/// Checks the address of a repository. git must accept its form. It must not contain anything that git would treat as
/// an option or as a program to run, and no password, because pages show it.
pub(super) fn check_url(url: &str) -> Result<(), Refusal> {
    let examples = "for example \"https://example.org/project.git\", \
                    \"ssh://git@example.org/project.git\" or \"file:///srv/project.git\"";
    if url.is_empty() {
        return refuse("the address of the repository is empty", examples);
    }
    check_length("the address", url, URL_BYTES_MAX)?;
    if url.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return refuse(
            "the address of the repository holds blanks or control characters",
            examples,
        );
    }
    if url.starts_with('-') {
        return refuse("an address that starts with `-` would be an option of git", examples);
    }
    if url.contains("::") && !url.contains("://") {
        return refuse(
            "addresses with `::` make git run a program of their choice, so they are refused",
            examples,
        );
    }
    if let Some((scheme, rest)) = url.split_once("://") {
        if !["https", "http", "ssh", "git", "file"].contains(&scheme) {
            return refuse(format!("\"{}\" addresses are not taken", shown(scheme)), examples);
        }
        let authority = rest.split('/').next().unwrap_or("");
        if scheme == "file" && !rest.starts_with('/') {
            return refuse(
                "a file address needs three slashes and a whole path",
                "for example \"file:///srv/project.git\"",
            );
        }
        if scheme != "file" && authority.is_empty() {
            return refuse("the address of the repository names no host", examples);
        }
        if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) {
            return refuse(
                "the address holds a password, which pages and the API would show",
                "remove it and set up git's credential helper or an ssh key for the server's user",
            );
        }
        return Ok(());
    }
    if url.starts_with('/') {
        return Ok(());
    }
    // `host:path`, the short form of ssh addresses.
    match url.split_once(':') {
        Some((host, path)) if !host.contains('/') && !host.is_empty() && !path.is_empty() => Ok(()),
        _ => refuse(
            "a relative path depends on where the server was started",
            "write the whole path (\"/srv/project.git\") or an address (\"https://…\")",
        ),
    }
}

/// Checks the name of a branch or tag by the rules of `git check-ref-format`.
pub(super) fn check_ref(kind: &str, name: &str) -> Result<(), Refusal> {
    check_length(&format!("the name of the {kind}"), name, REF_BYTES_MAX)?;
    let bad = name.is_empty()
        || name.starts_with(['-', '/', '.'])
        || name.ends_with(['/', '.'])
        || name.ends_with(".lock")
        || name == "@"
        || name.contains("..")
        || name.contains("//")
        || name.contains("/.")
        || name.contains("@{")
        || name.chars().any(|c| c.is_control() || " ~^:?*[\\".contains(c));
    if bad {
        let help = match name.split_once('/') {
            Some(("refs" | "origin", _)) => format!("write the bare name of the {kind}"),
            _ => format!("one {kind} by its bare name, for example \"main\"; no patterns"),
        };
        return refuse(format!("\"{}\" cannot be the name of a {kind}", shown(name)), help);
    }
    for prefix in ["refs/heads/", "refs/tags/", "origin/"] {
        if let Some(bare) = name.strip_prefix(prefix) {
            return refuse(
                format!("a {kind} is named without \"{prefix}\""),
                format!("write \"{}\"", shown(bare)),
            );
        }
    }
    Ok(())
}

/// Checks a full revision: 40 or 64 hexadecimal digits.
pub(super) fn check_revision(revision: &str) -> Result<(), Refusal> {
    let hex = revision.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match (hex, revision.len()) {
        (true, 40 | 64) => Ok(()),
        (true, digits @ 41..) => refuse(
            format!("the revision has {digits} digits, not 40 or 64"),
            "write the whole one; `git rev-parse HEAD` prints it",
        ),
        (true, digits @ 4..) => refuse(
            format!("the revision has {digits} digits, not 40"),
            format!("write the whole one; `git rev-parse {revision}` prints it"),
        ),
        _ => refuse(
            format!("\"{}\" is no revision", shown(revision)),
            "40 hexadecimal digits in small letters (64 where objects are named by SHA-256); for a \
             name use `branch` or `tag`",
        ),
    }
}

/// Checks a path or pattern inside a tree.
pub(super) fn check_pattern(pattern: &str) -> Result<(), Refusal> {
    check_length("the pattern", pattern, PATTERN_BYTES_MAX)?;
    let help = "a path inside the tree, `*` for any part of a name, `**` for any folders: \
                \"src/**\", \"*.c\"";
    let problem = if pattern.is_empty() {
        return refuse("the pattern is empty", help);
    } else if pattern.starts_with('/') {
        "starts at the root of the file system"
    } else if pattern.split('/').any(|part| part == "..") {
        "leads out of the tree"
    } else if pattern.contains('\\') {
        "holds a backslash"
    } else {
        return Ok(());
    };
    refuse(format!("the pattern \"{}\" {problem}", shown(pattern)), help)
}

/// Checks the name of an environment variable that a job may set.
pub(super) fn check_variable(name: &str) -> Result<(), Refusal> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty()
        || !name.bytes().all(allowed)
        || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return refuse(
            format!("\"{}\" cannot be the name of a variable", shown(name)),
            "letters, digits and `_`, not starting with a digit",
        );
    }
    if name == "CI" || name.starts_with("BRIGANDINE_") {
        return refuse(
            format!("`{name}` is set by the server"),
            "choose another name; `CI` and names starting with `BRIGANDINE_` are reserved",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_are_too_long_are_refused_and_shown_in_short() {
        let long = "x".repeat(5000);
        for refused in [
            check_description(&long),
            check_url(&format!("https://h/{long}")),
            check_ref("branch", &long),
            check_pattern(&long),
            check_revision(&"a".repeat(5000)),
            check_system(&format!("{long}-linux")),
            check_name("a job", &long),
            check_description("a\u{1b}[2J"),
        ] {
            let (message, help) = refused.expect_err("too long");
            assert!(message.len() + help.len() < 600, "{message}: {help}");
        }
        assert_eq!(check_description("one line, ümläuts and all"), Ok(()));
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let secs = |n| Some(Duration::from_secs(n));
        for (text, wanted) in [
            ("90", secs(90)),
            ("90s", secs(90)),
            ("1h30m", secs(5400)),
            ("2 d", secs(172_800)),
            ("250ms", Some(Duration::from_millis(250))),
            ("", None),
            ("30m1h", None),
            ("5 parsecs", None),
            ("99999999999999999999d", None),
            ("18446744073709551615d", None),
            ("-1s", None),
        ] {
            assert_eq!(parse_duration(text), wanted, "{text}");
        }
    }

    #[test]
    fn shown_durations_are_read_back() {
        for seconds in [1, 59, 60, 61, 3600, 5400, 86_400, 90_000] {
            let duration = Duration::from_secs(seconds);
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, wanted) in [
            ("4096", Some(4096)),
            ("64 MiB", Some(64 << 20)),
            ("1GiB", Some(1 << 30)),
            ("2 TiB", Some(2 << 40)),
            ("1TB", Some(1_000_000_000_000)),
            ("10 kB", Some(10_000)),
            ("ten", None),
            ("99999999999999999 GiB", None),
        ] {
            assert_eq!(parse_bytes(text), wanted, "{text}");
        }
    }

    #[test]
    fn addresses_that_could_run_a_program_or_show_a_secret_are_refused() {
        for good in [
            "https://example.org/p.git",
            "ssh://git@example.org:22/p.git",
            "git@example.org:p.git",
            "file:///srv/p.git",
            "/srv/p.git",
            "https://[::1]/p.git",
        ] {
            assert_eq!(check_url(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "--upload-pack=touch /tmp/x",
            "--upload-pack=x",
            "ext::sh -c x",
            "ext::x",
            "p.git",
            "../p.git",
            "ftp://example.org/p.git",
            "https://me:secret@example.org/p.git",
            "file://srv/p.git",
            "https:///p.git",
        ] {
            assert!(check_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn refs_follow_gits_rules() {
        for good in ["main", "release/1.0", "v1.0", "feature-x"] {
            assert_eq!(check_ref("branch", good), Ok(()), "{good}");
        }
        for bad in ["", "-x", "a..b", "a b", "a.lock", "refs/heads/main", "origin/main", "a*", "@"]
        {
            assert!(check_ref("branch", bad).is_err(), "{bad}");
        }
    }
}

//! Small values as people write them: lengths of time, sizes, names, patterns, addresses of
//! repositories. Checks answer with a message and a remedy, so that each can be told at its place.

use std::time::Duration;

use super::words::shown;
use crate::model::is_steering;

/// A message and its remedy.
pub(crate) type Refusal = (String, String);

/// Seconds, or numbers with units that grow smaller: "90", "1h30m", "2 d".
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok().map(Duration::from_secs);
    }
    let (mut total, mut rest, mut unit_before) = (Duration::ZERO, text, u64::MAX);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let number: u64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let milliseconds = match &rest[..letters] {
            "ms" => 1,
            "s" | "sec" | "second" | "seconds" => 1_000,
            "m" | "min" | "minute" | "minutes" => 60_000,
            "h" | "hour" | "hours" => 3_600_000,
            "d" | "day" | "days" => 86_400_000,
            _ => return None,
        };
        if milliseconds >= unit_before {
            return None;
        }
        unit_before = milliseconds;
        total = total.checked_add(Duration::from_millis(number.checked_mul(milliseconds)?))?;
        rest = rest[letters..].trim_start();
    }
    (unit_before != u64::MAX).then_some(total)
}

/// A length of time as [`parse_duration`] reads it, in its two largest units.
pub(crate) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration < Duration::from_secs(1) {
        return format!("{}ms", duration.as_millis());
    }
    let parts = [
        (seconds / 86_400, 'd'),
        (seconds / 3600 % 24, 'h'),
        (seconds / 60 % 60, 'm'),
        (seconds % 60, 's'),
    ];
    let first = parts.iter().position(|(n, _)| *n > 0).unwrap_or(3);
    parts[first..]
        .iter()
        .take(2)
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect()
}

/// Bytes, or a number with a unit: "4096", "64 MiB", "1GiB", "10 kB".
pub(crate) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" => 1_000,
        "KiB" | "K" => 1 << 10,
        "MB" => 1_000_000,
        "MiB" | "M" => 1 << 20,
        "GB" => 1_000_000_000,
        "GiB" | "G" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// The message with its first letter small, as ours are.
pub(crate) fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

/// A name that stands in addresses and file names: letters, digits and `. _ + -`.
pub(crate) fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let help = "letters, digits, `.`, `_`, `+` and `-`, starting with a letter or digit, at most \
                100 characters";
    if name.is_empty() {
        Err((format!("the name of {what} is empty"), help.to_owned()))
    } else if name.len() > 100
        || !name.chars().all(allowed)
        || !name.starts_with(|c: char| c.is_ascii_alphanumeric())
    {
        Err((format!("\"{}\" cannot be the name of {what}", shown(name)), help.to_owned()))
    } else {
        Ok(())
    }
}

/// A system as derivations name it: `x86_64-linux`.
pub(crate) fn check_system(system: &str) -> Result<(), Refusal> {
    check_length("the system", system, SYSTEM_BYTES_MAX)?;
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    match system.split_once('-') {
        Some((machine, kernel)) if part(machine) && part(kernel) => Ok(()),
        _ => Err((
            format!("\"{}\" is no system", shown(system)),
            "a machine and a kernel, for example \"x86_64-linux\" or \"aarch64-linux\"".to_owned(),
        )),
    }
}

/// What one of these texts may have, in bytes.
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
    Err((
        format!("{what} \"{}\" has {} bytes", shown(text), text.len()),
        format!("at most {bytes_max} bytes"),
    ))
}

/// One line for people.
pub(crate) fn check_description(description: &str) -> Result<(), Refusal> {
    check_length("the description", description, DESCRIPTION_BYTES_MAX)?;
    if description.chars().any(|c| c != '\n' && is_steering(c)) {
        return Err((
            format!("the description \"{}\" has control characters", shown(description)),
            "write one line of plain text".to_owned(),
        ));
    }
    Ok(())
}

/// The address of a repository, as git takes it, without anything git could take for an option, a
/// program to run or a secret to show.
pub(crate) fn check_url(url: &str) -> Result<(), Refusal> {
    let refuse = |message: &str, help: &str| Err((message.to_owned(), help.to_owned()));
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
            return Err((
                format!("\"{}\" addresses are not taken", shown(scheme)),
                examples.to_owned(),
            ));
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
    // host:path, the short form of ssh
    match url.split_once(':') {
        Some((host, path)) if !host.contains('/') && !host.is_empty() && !path.is_empty() => Ok(()),
        _ => refuse(
            "a relative path depends on where the server was started",
            "write the whole path (\"/srv/project.git\") or an address (\"https://…\")",
        ),
    }
}

/// A branch or tag, by the rules of `git check-ref-format`.
pub(crate) fn check_ref(kind: &str, name: &str) -> Result<(), Refusal> {
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
        return Err((format!("\"{}\" cannot be the name of a {kind}", shown(name)), help));
    }
    for prefix in ["refs/heads/", "refs/tags/", "origin/"] {
        if let Some(bare) = name.strip_prefix(prefix) {
            return Err((
                format!("a {kind} is named without \"{prefix}\""),
                format!("write \"{}\"", shown(bare)),
            ));
        }
    }
    Ok(())
}

/// A whole revision: 40 (or 64) hexadecimal digits.
pub(crate) fn check_revision(revision: &str) -> Result<(), Refusal> {
    let hex = revision.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match (hex, revision.len()) {
        (true, 40 | 64) => Ok(()),
        (true, 41..) => Err((
            format!("the revision has {} digits, not 40 or 64", revision.len()),
            "write the whole one; `git rev-parse HEAD` prints it".to_owned(),
        )),
        (true, 4..) => Err((
            format!("the revision has {} digits, not 40", revision.len()),
            format!("write the whole one; `git rev-parse {revision}` prints it"),
        )),
        _ => Err((
            format!("\"{}\" is no revision", shown(revision)),
            "40 hexadecimal digits in small letters (64 where objects are named by SHA-256); for a \
             name use `branch` or `tag`"
                .to_owned(),
        )),
    }
}

/// A path or pattern inside a tree: relative, and never above it.
pub(crate) fn check_pattern(pattern: &str) -> Result<(), Refusal> {
    check_length("the pattern", pattern, PATTERN_BYTES_MAX)?;
    let help = "a path inside the tree, `*` for any part of a name, `**` for any folders: \
                \"src/**\", \"*.c\"";
    let refuse = |message: String| Err((message, help.to_owned()));
    let said = shown(pattern);
    if pattern.is_empty() {
        refuse("the pattern is empty".to_owned())
    } else if pattern.starts_with('/') {
        refuse(format!("the pattern \"{said}\" starts at the root of the file system"))
    } else if pattern.split('/').any(|part| part == "..") {
        refuse(format!("the pattern \"{said}\" leads out of the tree"))
    } else if pattern.contains('\\') {
        refuse(format!("the pattern \"{said}\" holds a backslash"))
    } else {
        Ok(())
    }
}

/// The name of an environment variable that a job may set.
pub(crate) fn check_variable(name: &str) -> Result<(), Refusal> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    if name.is_empty()
        || !name.bytes().all(allowed)
        || name.starts_with(|c: char| c.is_ascii_digit())
    {
        return Err((
            format!("\"{}\" cannot be the name of a variable", shown(name)),
            "letters, digits and `_`, not starting with a digit".to_owned(),
        ));
    }
    if name == "CI" || name.starts_with("BRIGANDINE_") {
        return Err((
            format!("`{name}` is set by the server"),
            "choose another name; `CI` and names starting with `BRIGANDINE_` are reserved"
                .to_owned(),
        ));
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

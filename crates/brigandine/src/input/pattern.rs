//! Path patterns: which files of a tree a job reads, and which it leaves behind.
//!
//! A pattern is a path relative to the root with `/` between components. `*` stands for any part
//! of one component, `?` for one character, `[abc]` or `[a-z]` (`[!…]`: none of) for one of a set,
//! and a component `**` for any number of components. A pattern that matches a directory matches
//! all that is below it, so `src` and `src/**` say the same.
//!
//! Paths are bytes, which need not be UTF-8: a byte that belongs to no character counts as one that no pattern can
//! name, so `?` and `*` stand for it, and a set only if it says what is not in it.

/// A pattern, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    components: Vec<Component>,
    /// The leading components without wild cards, joined: everything that matches is below.
    prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Component {
    Any,
    Literal(String),
    Wild(Vec<char>),
}

impl Pattern {
    /// Takes a pattern apart. Errors say what is wrong with it.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let trimmed = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
        if trimmed.is_empty() || trimmed == "." {
            return Ok(Self { components: vec![Component::Any], prefix: String::new() });
        }
        if trimmed.starts_with('/') {
            return Err(format!(
                "pattern `{text}` is absolute; patterns start at the root of the tree"
            ));
        }
        let mut components = Vec::new();
        for part in trimmed.split('/') {
            match part {
                "" | "." => return Err(format!("pattern `{text}` has an empty component")),
                ".." => return Err(format!("pattern `{text}` leaves the tree with `..`")),
                "**" => components.push(Component::Any),
                _ if part.contains(['*', '?', '[']) => {
                    let wild: Vec<char> = part.chars().collect();
                    check_sets(&wild)
                        .then_some(())
                        .ok_or_else(|| format!("pattern `{text}` has a `[` without its `]`"))?;
                    components.push(Component::Wild(wild));
                }
                _ => components.push(Component::Literal(part.to_owned())),
            }
        }
        let literal: Vec<&str> = components
            .iter()
            .map_while(|component| match component {
                Component::Literal(text) => Some(text.as_str()),
                Component::Any | Component::Wild(_) => None,
            })
            .collect();
        let prefix = literal.join("/");
        Ok(Self { components, prefix })
    }

    /// The directory or file that holds all that matches; empty for the root.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether `path`, or a directory above it, matches.
    pub(crate) fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let parts: Vec<&[u8]> = path.as_ref().split(|byte| *byte == b'/').collect();
        self.matches_parts(&parts)
    }

    /// As [`Pattern::matches`], for a path that was taken apart.
    pub(super) fn matches_parts(&self, parts: &[&[u8]]) -> bool {
        matches_from(&self.components, parts)
    }

    /// Whether it names one path, and so matches exactly what is at and below its prefix.
    pub(super) fn is_literal(&self) -> bool {
        self.components.iter().all(|component| matches!(component, Component::Literal(_)))
    }
}

fn check_sets(wild: &[char]) -> bool {
    let mut rest = wild;
    while let Some(start) = rest.iter().position(|c| *c == '[') {
        match set(&rest[start..]) {
            Some((_, length)) => rest = &rest[start + length..],
            None => return false,
        }
    }
    true
}

/// Matches components against path parts without ever backtracking over more than the last `**`.
fn matches_from(components: &[Component], parts: &[&[u8]]) -> bool {
    let (mut c, mut p) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match components.get(c) {
            // All of the pattern is used up: what is left of the path is below the match.
            None => return true,
            Some(Component::Any) => {
                if c + 1 == components.len() {
                    // A last `**` needs something to stand for, unless it is the whole pattern.
                    return p < parts.len() || components.len() == 1;
                }
                retry = Some((c + 1, p));
                c += 1;
                continue;
            }
            Some(component) => {
                if parts.get(p).is_some_and(|part| component_matches(component, part)) {
                    c += 1;
                    p += 1;
                    continue;
                }
            }
        }
        match retry {
            Some((component, part)) if part < parts.len() => {
                retry = Some((component, part + 1));
                c = component;
                p = part + 1;
            }
            _ => return false,
        }
    }
}

fn component_matches(component: &Component, part: &[u8]) -> bool {
    match component {
        Component::Any => true,
        Component::Literal(text) => text.as_bytes() == part,
        Component::Wild(wild) => wild_matches(wild, part),
    }
}

/// The first character of a part of a path, and how many bytes it has. A byte that belongs to none is the
/// character that stands for what cannot be read: no pattern is meant to name that.
fn first(part: &[u8]) -> Option<(char, usize)> {
    // No character has more than four bytes.
    let chunk = part[..part.len().min(4)].utf8_chunks().next()?;
    match chunk.valid().chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => Some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

fn wild_matches(wild: &[char], part: &[u8]) -> bool {
    // Places in `wild` count characters, those in `part` bytes.
    let (mut w, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        let next = first(&part[t..]);
        let step = match wild.get(w) {
            None if next.is_none() => return true,
            None => None,
            Some('*') => {
                retry = Some((w + 1, t));
                w += 1;
                continue;
            }
            Some('?') => next.map(|_| 1),
            Some('[') => next.and_then(|(c, _)| {
                let (members, length) = set(&wild[w..])?;
                contains(members, c).then_some(length)
            }),
            Some(expected) => next.is_some_and(|(c, _)| c == *expected).then_some(1),
        };
        if let (Some(step), Some((_, bytes))) = (step, next) {
            w += step;
            t += bytes;
            continue;
        }
        let again = retry.and_then(|(after, from)| Some((after, from, first(&part[from..])?.1)));
        let Some((after, from, skipped)) = again else { return false };
        w = after;
        t = from + skipped;
        retry = Some((after, t));
    }
}

/// The members of the set that `wild` starts with, and how many characters it takes.
fn set(wild: &[char]) -> Option<(&[char], usize)> {
    // A `]` right after the bracket, or after its `!`, is a member.
    let first = if wild.get(1) == Some(&'!') { 2 } else { 1 };
    let end = wild.iter().skip(first + 1).position(|c| *c == ']')? + first + 1;
    Some((&wild[1..end], end + 1))
}

fn contains(members: &[char], c: char) -> bool {
    let (negated, members) = match members {
        ['!', rest @ ..] => (true, rest),
        _ => (false, members),
    };
    let mut found = false;
    let mut rest = members;
    while let Some(first) = rest.first() {
        if let [from, '-', to, ..] = rest {
            found |= (*from..=*to).contains(&c);
            rest = &rest[3..];
        } else {
            found |= *first == c;
            rest = &rest[1..];
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn patterns_match_as_documented() {
        for (pattern, path, expected) in [
            ("src", "src/main.c", true),
            ("src/**", "src/main.c", true),
            ("src/**", "src", false),
            ("src/", "src/a/b.c", true),
            ("src", "srcs/main.c", false),
            ("*.c", "main.c", true),
            ("*.c", "src/main.c", false),
            ("**/*.c", "main.c", true),
            ("**/*.c", "a/b/main.c", true),
            ("**/*.c", "a/b/main.h", false),
            ("a/**/z", "a/z", true),
            ("a/**/z", "a/b/c/z/below", true),
            ("a/**/b/**/c", "a/x/b/y/b/z/c", true),
            ("a/**/b/**/c", "a/x/b/y", false),
            ("**", "anything/at/all", true),
            (".", "anything", true),
            ("?.txt", "a.txt", true),
            ("?.txt", "ab.txt", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[]]x", "]x", true),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "aab", true),
            ("*a*b", "aba", false),
            ("naïve*", "naïveté", true),
        ] {
            let found = Pattern::new(pattern).expect(pattern).matches(path);
            assert_eq!(found, expected, "{pattern} on {path}");
        }
    }

    #[test]
    fn bytes_that_are_no_character_are_matched_as_one_that_no_pattern_names() {
        let found =
            |pattern: &str, path: &[u8]| Pattern::new(pattern).expect(pattern).matches(path);
        for (pattern, path, expected) in [
            ("caf?.txt", &b"caf\xe9.txt"[..], true),
            ("caf*", b"caf\xe9.txt", true),
            ("*.txt", b"caf\xe9.txt", true),
            ("caf??.txt", b"caf\xc3\x28.txt", true),
            ("caf[!a]", b"caf\xff", true),
            ("caf[a-z]", b"caf\xff", false),
            ("**/caf?", b"a\xff/b/caf\xff", true),
            ("a?/x", b"a\xff/x", true),
            ("caf", b"caf\xff", false),
            ("a\nb", b"a\nb", true),
        ] {
            assert_eq!(found(pattern, path), expected, "{pattern} on {path:?}");
        }
    }

    #[test]
    fn patterns_that_leave_the_tree_are_refused() {
        for pattern in ["/etc/passwd", "../x", "a/../b", "a//b", "[abc"] {
            assert!(Pattern::new(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_does_not_take_exponential_time() {
        let pattern = Pattern::new(&"*a".repeat(60)).expect("pattern");
        assert!(!pattern.matches("a".repeat(5000).replace('a', "ab")));
    }
}

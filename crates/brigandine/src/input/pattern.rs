//! Path patterns: which files of a tree a job reads, and which files of a build are kept.
//!
//! A pattern is a path relative to the root with `/` between components. In a component, `*` stands for any number of
//! characters, `?` for one character, `[abc]` or `[a-z]` for one character of a set, and `[!…]` for one character
//! outside of a set. A component `**` stands for any number of components. A pattern that matches a directory matches
//! everything below it, so `src` and `src/**` select the same files.
//!
//! Paths are bytes, which need not be UTF-8. A byte that belongs to no character is treated as a character that no
//! pattern can name: `?`, `*` and `[!…]` match it, other sets do not.

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// The last component is [`Component::Many`], because everything below a match matches too.
    components: Vec<Component>,
    /// The leading components without wild cards, joined with `/`. Everything that matches is at or below this path.
    prefix: String,
    /// `true`: no component has wild cards.
    literal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Component {
    /// `**`: any number of components.
    Many,
    /// One component of any name. At the end of a pattern, `**` becomes this and [`Component::Many`], so it stands for
    /// at least one component.
    One,
    Literal(String),
    Wild(Vec<Token>),
}

/// A part of a component with wild cards.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// `*`
    Many,
    /// `?`
    One,
    Char(char),
    /// The ranges of a set. `true`: the token stands for all other characters.
    Set(Vec<(char, char)>, bool),
}

impl Pattern {
    /// Parses a pattern. Errors say what is wrong with it.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let trimmed = text.strip_prefix("./").unwrap_or(text).trim_end_matches('/');
        if trimmed.is_empty() || trimmed == "." {
            let components = vec![Component::Many];
            return Ok(Self { components, prefix: String::new(), literal: false });
        }
        if trimmed.starts_with('/') {
            return Err(format!(
                "pattern `{text}` is absolute; patterns start at the root of the tree"
            ));
        }
        let mut components = Vec::new();
        for part in trimmed.split('/') {
            components.push(match part {
                "" | "." => return Err(format!("pattern `{text}` has an empty component")),
                ".." => return Err(format!("pattern `{text}` leaves the tree with `..`")),
                "**" => Component::Many,
                _ if part.contains(['*', '?', '[']) => Component::Wild(
                    tokens(part)
                        .ok_or_else(|| format!("pattern `{text}` has a `[` without its `]`"))?,
                ),
                _ => Component::Literal(part.to_owned()),
            });
        }
        let literals: Vec<&str> = components
            .iter()
            .map_while(|component| match component {
                Component::Literal(text) => Some(text.as_str()),
                _ => None,
            })
            .collect();
        let (prefix, literal) = (literals.join("/"), literals.len() == components.len());
        if let [.., last @ Component::Many] = &mut components[..] {
            *last = Component::One;
        }
        components.push(Component::Many);
        Ok(Self { components, prefix, literal })
    }

    /// The path of the directory or file that holds everything that matches; empty for the root.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether `path`, or a directory above it, matches.
    pub(crate) fn matches(&self, path: impl AsRef<[u8]>) -> bool {
        let parts: Vec<&[u8]> = path.as_ref().split(|byte| *byte == b'/').collect();
        self.matches_parts(&parts)
    }

    /// Like [`Pattern::matches`], but takes the components of a path.
    pub(super) fn matches_parts(&self, parts: &[&[u8]]) -> bool {
        let one = |component: &Component, part: &[u8]| match component {
            Component::Many | Component::One => true,
            Component::Literal(text) => text.as_bytes() == part,
            Component::Wild(tokens) => {
                matches(tokens, &Token::Many, part, first_char, |token, c| token.is_for(c))
            }
        };
        matches(&self.components, &Component::Many, parts, first_part, one)
    }

    /// Whether the pattern has no wild cards, and so matches exactly the paths at and below its prefix.
    pub(super) fn is_literal(&self) -> bool {
        self.literal
    }
}

/// Whether a pattern matches a whole text. `first` returns the first item of a text and the item's length. Backtracks
/// only to the last `many`, so the time is at most proportional to the product of both lengths.
fn matches<P: PartialEq, U, I: Copy>(
    pattern: &[P],
    many: &P,
    text: &[U],
    first: impl Fn(&[U]) -> Option<(I, usize)>,
    one: impl Fn(&P, I) -> bool,
) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry = None;
    loop {
        match (pattern.get(p), first(&text[t..])) {
            (None, None) => return true,
            (Some(part), _) if part == many => {
                p += 1;
                retry = Some((p, t));
                continue;
            }
            (Some(part), Some((item, length))) if one(part, item) => {
                p += 1;
                t += length;
                continue;
            }
            _ => {}
        }
        // Try again with one more item for the last `many`.
        let again = retry.and_then(|(after, from)| Some((after, from + first(&text[from..])?.1)));
        let Some((after, from)) = again else { return false };
        (p, t) = (after, from);
        retry = again;
    }
}

fn first_part<'a>(parts: &[&'a [u8]]) -> Option<(&'a [u8], usize)> {
    parts.first().map(|part| (*part, 1))
}

/// The first character of a name, and its length in bytes. A byte that belongs to no character is treated as U+FFFD,
/// which no pattern is meant to name.
fn first_char(part: &[u8]) -> Option<(char, usize)> {
    // No character has more than four bytes.
    let chunk = part[..part.len().min(4)].utf8_chunks().next()?;
    match chunk.valid().chars().next() {
        Some(c) => Some((c, c.len_utf8())),
        None => Some((char::REPLACEMENT_CHARACTER, 1)),
    }
}

/// The tokens of a component. `None`: a `[` has no `]`.
fn tokens(part: &str) -> Option<Vec<Token>> {
    let chars: Vec<char> = part.chars().collect();
    let mut rest = chars.as_slice();
    let mut tokens = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        tokens.push(match first {
            '*' => Token::Many,
            '?' => Token::One,
            '[' => {
                let others = rest.first() == Some(&'!');
                let members = &rest[usize::from(others)..];
                // A `]` at the beginning is a member.
                let end = members.iter().skip(1).position(|c| *c == ']')? + 1;
                rest = &members[end + 1..];
                Token::Set(ranges(&members[..end]), others)
            }
            c => Token::Char(*c),
        });
    }
    Some(tokens)
}

fn ranges(mut members: &[char]) -> Vec<(char, char)> {
    let mut ranges = Vec::new();
    while let [first, after @ ..] = members {
        let (last, rest) = match after {
            ['-', last, rest @ ..] => (last, rest),
            _ => (first, after),
        };
        ranges.push((*first, *last));
        members = rest;
    }
    ranges
}

impl Token {
    /// Whether the token matches this character.
    fn is_for(&self, c: char) -> bool {
        match self {
            Self::Many | Self::One => true,
            Self::Char(expected) => *expected == c,
            Self::Set(ranges, others) => {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&c)) != *others
            }
        }
    }
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

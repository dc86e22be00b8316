//! Words that are near to known ones, and how what was written is shown.

/// Words people write for a key that has another name here.
pub(super) const SYNONYMS: &[(&str, &str)] = &[
    ("artefacts", "products"),
    ("artifacts", "products"),
    ("bind", "listen"),
    ("cmd", "command"),
    ("commit", "revision"),
    ("concurrency", "max-jobs"),
    ("dependencies", "needs"),
    ("depends", "needs"),
    ("deps", "needs"),
    ("environment", "env"),
    ("exec", "command"),
    ("files", "sources"),
    ("git", "url"),
    ("hash", "revision"),
    ("id", "name"),
    ("address", "listen"),
    ("jobset", "specification"),
    ("paths", "sources"),
    ("platform", "systems"),
    ("platforms", "systems"),
    ("poll", "interval"),
    ("port", "listen"),
    ("ref", "branch"),
    ("repo", "url"),
    ("repository", "url"),
    ("requires", "needs"),
    ("rev", "revision"),
    ("run", "command"),
    ("script", "command"),
    ("silence", "max-silent"),
    ("source", "sources"),
    ("title", "name"),
    ("type", "kind"),
    ("uri", "url"),
    ("workers", "max-jobs"),
];

/// Text from a file as it may stand in a message: short, and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut short: String =
        text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().count() > 80 {
        short.push('…');
    }
    short
}

/// The known word that was probably meant.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let folded = word.to_lowercase().replace(['_', ' '], "-");
    let synonym = SYNONYMS.iter().find(|(said, _)| *said == folded).map(|(_, meant)| *meant);
    if let Some(found) = known.iter().find(|k| Some(**k) == synonym) {
        return Some(found);
    }
    if word.len() > 40 {
        return None;
    }
    let limit = if folded.chars().count() <= 4 { 1 } else { 2 };
    known
        .iter()
        .map(|k| (distance(&folded, k), *k))
        .filter(|(distance, k)| *distance <= limit || k.strip_suffix('s') == Some(&folded))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}

/// Edits (insert, remove, replace, swap of neighbours) from one word to the other.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_key_is_found_through_typing_errors_and_synonyms() {
        let known = ["name", "url", "branch", "tag", "revision", "max-silent", "needs"];
        for (word, meant) in [
            ("brnach", Some("branch")),
            ("Branch", Some("branch")),
            ("max_silent", Some("max-silent")),
            ("commit", Some("revision")),
            ("repo", Some("url")),
            ("need", Some("needs")),
            ("colour", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, &known), meant, "{word}");
        }
    }
}

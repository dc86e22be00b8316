//! Finds known words that are similar to a word, and shows text of a file in messages.

/// Names that people use for keys, and the keys that are meant.
const SYNONYMS: &[(&str, &str)] = &[
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

/// Text of a file for a message: at most 80 characters, without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut short: String =
        text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().count() > 80 {
        short.push('…');
    }
    short
}

/// The words in quotes, separated by commas.
pub(super) fn list(words: &[&str], quote: char) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("{quote}{word}{quote}")).collect();
    quoted.join(", ")
}

/// The known word that is most similar to `word`; `None`: no word is similar enough.
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
        .map(|k| (strsim::osa_distance(&folded, k), *k))
        .filter(|(distance, k)| *distance <= limit || k.strip_suffix('s') == Some(&folded))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
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

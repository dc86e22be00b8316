//! `/proc/ID/stat`: a line that tells of a process (proc(5)).

/// The fields from the third one on. The second one is the program's name in parentheses, which may hold anything.
pub(super) fn fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(')').map_or("", |(_, fields)| fields).split_ascii_whitespace()
}

#[cfg(test)]
mod tests {
    use super::fields;

    #[test]
    fn a_name_may_look_like_fields() {
        let stat = "7 (a) T 1 (b) S 42 7 7";
        assert_eq!(fields(stat).collect::<Vec<_>>(), ["S", "42", "7", "7"]);
        assert_eq!(fields("").count(), 0);
    }
}

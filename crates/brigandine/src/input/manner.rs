//! What the configuration of git of the server's user asks for.

/// The filter of large files.
const LFS: &str = "lfs";
const LFS_SETTINGS: [(&str, &str); 4] = [
    ("clean", "git-lfs clean -- %f"),
    ("smudge", "git-lfs smudge -- %f"),
    ("process", "git-lfs filter-process"),
    ("required", "true"),
];

/// What git is told by the configuration of the server's user.
#[derive(Debug, Clone, Default)]
pub(super) struct Manner {
    /// URLs are rewritten, or some kinds of them forbidden.
    pub(super) rewrites: bool,
    /// The settings of every filter: its name, a key and a value.
    filters: Vec<(String, String, String)>,
}

impl Manner {
    /// From `git config --null --list`.
    pub(super) fn read(settings: &[u8]) -> Self {
        let settings = String::from_utf8_lossy(settings);
        let mut found = Self::default();
        for setting in settings.split('\0') {
            let (key, value) = setting.split_once('\n').unwrap_or((setting, "true"));
            found.rewrites |= key.starts_with("protocol.")
                || (key.starts_with("url.") && key.ends_with(".insteadof"));
            let filter = key.strip_prefix("filter.").and_then(|rest| rest.rsplit_once('.'));
            if let Some((name, key)) = filter {
                found.filters.push((name.to_owned(), key.to_owned(), value.to_owned()));
            }
        }
        // As `git lfs install` writes it: a machine that has git-lfs need not have been told twice.
        if !found.filters.iter().any(|(name, ..)| name == LFS) {
            let settings = LFS_SETTINGS.map(|(key, value)| (LFS.into(), key.into(), value.into()));
            found.filters.extend(settings);
        }
        // The last value of a key counts.
        found.filters.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        found.filters.dedup_by(|later, kept| {
            let same = later.0 == kept.0 && later.1 == kept.1;
            if same {
                std::mem::swap(later, kept);
            }
            same
        });
        found
    }

    /// The settings by which the filters in `allowed` are what they are, and all others are none.
    pub(super) fn settings(&self, allowed: &[String]) -> Vec<(String, String)> {
        let value = |name: &String, key: &str, value: &str| {
            let off = if key == "required" { "false" } else { "" };
            if allowed.contains(name) { value.to_owned() } else { off.to_owned() }
        };
        let settings = self.filters.iter();
        settings.map(|(n, k, v)| (format!("filter.{n}.{k}"), value(n, k, v))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_configuration_is_read_past_git() {
        assert!(!Manner::read(b"user.name\nme\0core.autocrlf\ninput\0").rewrites);
        assert!(Manner::read(b"url.https://h/.insteadof\n/srv/\0").rewrites);
        assert!(Manner::read(b"protocol.file.allow\nnever\0").rewrites);
    }

    #[test]
    fn filters_that_may_not_run_are_switched_off_by_name() {
        let settings = b"filter.lfs.process\ngit-lfs filter-process\0filter.lfs.required\ntrue\0\
            filter.a.b=c.smudge\nevil\0filter.a.b=c.required\ntrue\0filter.up.smudge\nfirst\0\
            filter.up.smudge\nlast\0";
        let manner = Manner::read(settings);
        let of = |allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
            manner.settings(&allowed)
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            of(&["lfs"]),
            [
                pair("filter.a.b=c.required", "false"),
                pair("filter.a.b=c.smudge", ""),
                pair("filter.lfs.process", "git-lfs filter-process"),
                pair("filter.lfs.required", "true"),
                pair("filter.up.smudge", ""),
            ]
        );
        let plain = Manner::read(b"user.name\nme\0").settings(&["lfs".to_owned()]);
        assert!(plain.contains(&pair("filter.lfs.process", "git-lfs filter-process")), "{plain:?}");
        assert!(of(&["up"]).contains(&pair("filter.up.smudge", "last")));
    }
}

//! The configuration that git has for the server's user.

use std::collections::BTreeMap;

/// The name of the filter for large files.
const LFS: &str = "lfs";
const LFS_SETTINGS: [(&str, &str); 4] = [
    ("clean", "git-lfs clean -- %f"),
    ("smudge", "git-lfs smudge -- %f"),
    ("process", "git-lfs filter-process"),
    ("required", "true"),
];

/// What the configuration of the server's user tells git.
#[derive(Debug, Clone, Default)]
pub(super) struct Configuration {
    /// `true`: the configuration rewrites URLs, or forbids some protocols.
    pub(super) rewrites: bool,
    /// The settings of every filter: the values by filter name and key.
    filters: BTreeMap<(String, String), String>,
}

impl Configuration {
    /// Parses the output of `git config --null --list`.
    pub(super) fn read(settings: &[u8]) -> Self {
        let settings = String::from_utf8_lossy(settings);
        let mut found = Self::default();
        for setting in settings.split('\0') {
            let (key, value) = setting.split_once('\n').unwrap_or((setting, "true"));
            found.rewrites |= key.starts_with("protocol.")
                || (key.starts_with("url.") && key.ends_with(".insteadof"));
            let filter = key.strip_prefix("filter.").and_then(|rest| rest.rsplit_once('.'));
            if let Some((name, key)) = filter {
                // If a key occurs several times, its last value applies.
                found.filters.insert((name.to_owned(), key.to_owned()), value.to_owned());
            }
        }
        // The settings that `git lfs install` writes, so that git-lfs also works where that command was not run.
        if !found.filters.keys().any(|(name, _)| name == LFS) {
            for (key, value) in LFS_SETTINGS {
                found.filters.insert((LFS.to_owned(), key.to_owned()), value.to_owned());
            }
        }
        found
    }

    /// The settings that keep the `allowed` filters and switch off all others.
    pub(super) fn settings(&self, allowed: &[String]) -> Vec<(String, String)> {
        let value = |name: &String, key: &str, value: &str| {
            let off = if key == "required" { "false" } else { "" };
            if allowed.contains(name) { value.to_owned() } else { off.to_owned() }
        };
        let settings = self.filters.iter();
        settings.map(|((n, k), v)| (format!("filter.{n}.{k}"), value(n, k, v))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_configuration_is_read_past_git() {
        assert!(!Configuration::read(b"user.name\nme\0core.autocrlf\ninput\0").rewrites);
        assert!(Configuration::read(b"url.https://h/.insteadof\n/srv/\0").rewrites);
        assert!(Configuration::read(b"protocol.file.allow\nnever\0").rewrites);
    }

    #[test]
    fn filters_that_may_not_run_are_switched_off_by_name() {
        let settings = b"filter.lfs.process\ngit-lfs filter-process\0filter.lfs.required\ntrue\0\
            filter.a.b=c.smudge\nevil\0filter.a.b=c.required\ntrue\0filter.up.smudge\nfirst\0\
            filter.up.smudge\nlast\0";
        let configuration = Configuration::read(settings);
        let of = |allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
            configuration.settings(&allowed)
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
        let plain = Configuration::read(b"user.name\nme\0").settings(&["lfs".to_owned()]);
        assert!(plain.contains(&pair("filter.lfs.process", "git-lfs filter-process")), "{plain:?}");
        assert!(of(&["up"]).contains(&pair("filter.up.smudge", "last")));
    }
}

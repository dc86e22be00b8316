//! Every setting as text, to compare the files with what runs; and which settings only a restart changes.

use super::server::{Config, Limits, LogFormat, Sandbox};
use super::web::Web;
use crate::model::{Keep, LoginProvider, Setting};
use crate::os::process;
use std::path::Path;
use std::time::Duration;

/// A setting: its key, whether only a restart changes it, and its value as a file would have it.
type Entry = (&'static str, bool, String);

/// The settings of `running`, and those of `file` that differ from them.
pub(crate) fn settings(running: &Config, file: Option<&Config>) -> Vec<Setting> {
    let there = file.map(entries);
    let entry = |(at, (key, restart, value)): (usize, Entry)| {
        let other = there.as_ref().and_then(|there| there.get(at)).map(|(_, _, other)| other);
        let file = other.filter(|other| **other != value).cloned();
        Setting { key, running: value, file, restart }
    };
    entries(running).into_iter().enumerate().map(entry).collect()
}

/// The configuration `new`, with those settings of `running` that only a restart changes.
pub(crate) fn without_restart(new: Config, running: &Config) -> Config {
    let web = Web {
        connections: running.web.connections,
        connections_per_client: running.web.connections_per_client,
        token_file: running.web.token_file.clone(),
        base: running.web.base.clone(),
        private: running.web.private,
        oidc: running.web.oidc.clone(),
        ..new.web
    };
    Config {
        state: running.state.clone(),
        listen: running.listen,
        sandbox: running.sandbox,
        build_user: running.build_user.clone(),
        git_filters: running.git_filters.clone(),
        format: running.format,
        web,
        ..new
    }
}

fn entries(config: &Config) -> Vec<Entry> {
    // The compiler refuses these patterns if a field is missing.
    let Config {
        file: _,
        state,
        listen,
        interval,
        max_jobs,
        specifications,
        replace,
        sandbox,
        build_user,
        git_filters,
        drain,
        format,
        limits,
        keep,
        web,
    } = config;
    let files: Vec<String> = specifications.iter().map(|path| shown(path)).collect();
    let sandbox = match sandbox {
        Sandbox::Off => "off",
        Sandbox::Auto => "auto",
        Sandbox::Require => "require",
    };
    let format = match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let mut all = vec![
        ("state", true, shown(state)),
        ("listen", true, listen.to_string()),
        ("interval", false, time(*interval)),
        ("max-jobs", false, max_jobs.to_string()),
        ("specifications", false, files.join(", ")),
        ("replace", false, replace.to_string()),
        ("sandbox", true, sandbox.to_owned()),
        ("build-user", true, build_user.clone().unwrap_or_default()),
        ("git-filters", true, git_filters.join(", ")),
        ("drain", false, drain.to_string()),
        ("tracing.format", true, format.to_owned()),
    ];
    all.extend(limits_entries(limits));
    let Keep { evaluations, days } = keep;
    all.push(("keep.evaluations", false, number(*evaluations)));
    all.push(("keep.days", false, number(*days)));
    all.extend(web_entries(web));
    all
}

fn limits_entries(limits: &Limits) -> [Entry; 12] {
    let Limits {
        fetch_time,
        evaluation_time,
        evaluation_output,
        build_time,
        build_silence,
        build_log,
        build_grace,
        build: process::Limits { memory, processes, file, disk },
        disk_reserve,
    } = limits;
    [
        ("limits.fetch-time", false, time(*fetch_time)),
        ("limits.evaluation-time", false, time(*evaluation_time)),
        ("limits.evaluation-output", false, size(*evaluation_output)),
        ("limits.build-time", false, time(*build_time)),
        ("limits.build-silence", false, time(*build_silence)),
        ("limits.build-log", false, size(*build_log)),
        ("limits.build-grace", false, time(*build_grace)),
        ("limits.build-memory", false, size(*memory)),
        ("limits.build-processes", false, processes.to_string()),
        ("limits.build-file", false, size(*file)),
        ("limits.build-disk", false, size(*disk)),
        ("limits.disk-reserve", false, disk_reserve.map(size).unwrap_or_default()),
    ]
}

fn web_entries(web: &Web) -> Vec<Entry> {
    let Web {
        connections,
        connections_per_client,
        client_time,
        hosts,
        trusted_proxies,
        token_file,
        base,
        private,
        oidc,
    } = web;
    let proxies: Vec<String> = trusted_proxies.iter().map(ToString::to_string).collect();
    let mut all = vec![
        ("web.connections", true, number(*connections)),
        ("web.connections-per-client", true, number(*connections_per_client)),
        ("web.client-time", false, time(*client_time)),
        ("web.hosts", false, hosts.as_deref().unwrap_or_default().join(", ")),
        ("web.trusted-proxies", false, proxies.join(", ")),
        ("web.token-file", true, token_file.as_deref().map(shown).unwrap_or_default()),
        ("web.base", true, base.clone()),
        ("web.private", true, private.to_string()),
    ];
    all.extend(oidc_entries(oidc.as_ref()));
    all
}

fn oidc_entries(oidc: Option<&LoginProvider>) -> [Entry; 8] {
    let of = |value: fn(&LoginProvider) -> String| oidc.map(value).unwrap_or_default();
    let grants = |oidc: &LoginProvider| -> String {
        let grants: Vec<_> = oidc.grants.iter().map(ToString::to_string).collect();
        grants.join(", ")
    };
    [
        ("web.oidc.issuer", true, of(|oidc| oidc.issuer.clone())),
        ("web.oidc.client-id", true, of(|oidc| oidc.client_id.clone())),
        (
            "web.oidc.client-secret-file",
            true,
            of(|oidc| oidc.secret_file.as_deref().map(shown).unwrap_or_default()),
        ),
        ("web.oidc.name", true, of(|oidc| oidc.name.clone())),
        ("web.oidc.scopes", true, of(|oidc| oidc.scopes.join(", "))),
        ("web.oidc.user-claim", true, of(|oidc| oidc.user_claim.clone())),
        ("web.oidc.role-claim", true, of(|oidc| oidc.role_claim.clone())),
        ("web.oidc.grant", true, of(grants)),
    ]
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A number; empty: none is set.
fn number(number: Option<impl ToString>) -> String {
    number.map(|number| number.to_string()).unwrap_or_default()
}

/// A time in the largest unit that shows it whole.
fn time(time: Duration) -> String {
    let seconds = time.as_secs();
    let unit = [(86_400, "d"), (3600, "h"), (60, "m")]
        .into_iter()
        .find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "s"));
    format!("{}{name}", seconds / unit)
}

/// A number of bytes in the largest unit that shows it whole.
fn size(bytes: u64) -> String {
    let unit = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]
        .into_iter()
        .find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "B"));
    format!("{} {name}", bytes / unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::server;

    /// A file with every key, each with another value than the default.
    const EVERYTHING: &str = r#"
        state = "/srv/ci"
        listen = "[::]:80"
        interval = "90s"
        max-jobs = 4096
        specifications = ["a.toml", "b.toml"]
        replace = true
        sandbox = "require"
        build-user = "builder"
        git-filters = []
        drain = true
        tracing.format = "json"
        [limits]
        fetch-time = "1m"
        evaluation-time = "2m"
        evaluation-output = "3 MiB"
        build-time = "4m"
        build-silence = "5m"
        build-log = "6 MiB"
        build-grace = "7s"
        build-memory = "17 MiB"
        build-processes = 8
        build-file = "9 MiB"
        build-disk = "10 MiB"
        disk-reserve = "11 MiB"
        [keep]
        evaluations = 12
        days = 13
        [web]
        connections = 14
        connections-per-client = 15
        client-time = "16s"
        hosts = ["ci.example.org"]
        trusted-proxies = ["127.0.0.1"]
        token-file = "token"
        base = "/ci"
        private = true
        [web.oidc]
        issuer = "https://sso.example.org/realms/ci"
        client-id = "brigandine"
        client-secret-file = "client-secret"
        name = "Example"
        scopes = ["profile", "email"]
        user-claim = "email"
        role-claim = "roles"
        [[web.oidc.grant]]
        role = "reader"
        [[web.oidc.grant]]
        value = "developers"
        role = "builder"
        in = "main/hello""#;

    #[test]
    fn every_key_of_a_configuration_is_listed_as_it_is_written() {
        let file = server::parse("/etc/brigandine.toml", EVERYTHING).expect("it is right");
        let listed = settings(&Config::default(), Some(&file));
        let same: Vec<_> =
            listed.iter().filter(|entry| entry.file.is_none()).map(|entry| entry.key).collect();
        assert_eq!(same, [""; 0], "the file has their defaults");
        let restart: Vec<_> =
            listed.iter().filter(|entry| entry.restart).map(|entry| entry.key).collect();
        let kept = without_restart(file.clone(), &Config::default());
        let left: Vec<_> = settings(&kept, Some(&file))
            .into_iter()
            .filter(|entry| entry.file.is_some())
            .map(|entry| entry.key)
            .collect();
        assert_eq!(left, restart, "a restart is needed for what a reload leaves as it was");
    }

    #[test]
    fn times_and_sizes_are_written_so_that_a_file_may_have_them() {
        for (seconds, text) in [(0, "0s"), (90, "90s"), (300, "5m"), (5400, "90m"), (86_400, "1d")]
        {
            assert_eq!(time(Duration::from_secs(seconds)), text);
            assert_eq!(crate::config::parse_duration(text), Some(Duration::from_secs(seconds)));
        }
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (64 << 20, "64 MiB"), (3 << 29, "1536 MiB")]
        {
            assert_eq!(size(bytes), text);
        }
    }
}

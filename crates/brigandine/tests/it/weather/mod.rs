//! Difficult surroundings: hostile clients, faulty machines, repositories of every form that git makes; and pages and
//! commands that must report the truth meanwhile. Each test has one situation and its variants.

pub(crate) mod axe;
mod browser;
mod checks;
mod clones;
mod commands;
mod described;
mod disk;
mod documents;
mod git;
mod growth;
mod lengths;
mod lines;
mod logs;
mod machine;
mod mounts;
mod pages;
mod schema;
mod strangers;
mod terminal;

use crate::support::Place;

/// The log of the newest build. Checks that the build succeeded.
fn newest_log(place: &Place) -> String {
    let rows = place.rows("SELECT status, log_path FROM build ORDER BY id DESC LIMIT 1");
    let (status, log) = rows[0].split_once('|').expect("two columns");
    let log = place.stored_log(log);
    assert_eq!(status, "0", "{log}");
    log
}

/// Runs a server whose look or evaluation must fail, and returns the message.
fn refusal(place: &Place) -> String {
    let ended = place.one_shot();
    assert_eq!(ended.status.code(), Some(1), "{}\n{}", ended.stdout, ended.stderr);
    let look = place.rows("SELECT look_error FROM specification").remove(0);
    let evaluation = place.rows("SELECT message FROM evaluation ORDER BY id DESC LIMIT 1");
    if look.is_empty() { evaluation[0].clone() } else { look }
}

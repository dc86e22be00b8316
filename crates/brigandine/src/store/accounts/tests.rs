//! Users and sessions through their whole lives.

use std::path::Path;
use std::time::Duration;

use super::*;
use crate::model::{Grant, Session};
use crate::store::{Database, Transaction};

async fn database() -> Database {
    let database = Database::open(Path::new(":memory:"), true, Duration::from_secs(30)).await;
    let database = database.expect("opens");
    let schema = include_str!("../../../schema.sql");
    let made = database.exclusive(move |connection| connection.execute_batch(schema));
    made.await.expect("the schema");
    database
}

async fn write<T: Send + 'static>(
    database: &Database,
    f: impl FnMut(&Transaction) -> rusqlite::Result<T> + Send + 'static,
) -> T {
    database.write(f).await.expect("the write succeeds")
}

const NOW: i64 = 10_000_000;

fn everywhere(role: Role) -> Grant {
    Grant { scope: Scope::EVERYWHERE, role }
}

async fn add(database: &Database, name: &'static str, role: Role) -> bool {
    write(database, move |tx| add_user(tx, name, "digest", &everywhere(role), NOW)).await
}

#[tokio::test]
async fn the_last_administrator_stays_one() {
    let database = database().await;
    assert!(add(&database, "alice", Role::Admin).await);
    assert!(!add(&database, "alice", Role::Reader).await, "the name is taken");
    assert!(add(&database, "bob", Role::Builder).await);
    let weakened = async |name: &'static str| {
        write(&database, move |tx| {
            Ok([
                set_role(tx, name, &Scope::EVERYWHERE, Some(Role::Builder))?,
                set_role(tx, name, &Scope::EVERYWHERE, None)?,
                set_disabled(tx, name, NOW)?,
                remove_user(tx, name)?,
            ])
        })
        .await
    };
    assert_eq!(weakened("alice").await, [UserChange::LastAdmin; 4]);
    assert_eq!(weakened("carol").await, [UserChange::Missing; 4]);
    // An administrator who is disabled, or who is one in a project only, does not count.
    assert!(add(&database, "carol", Role::Admin).await);
    write(&database, |tx| {
        set_disabled(tx, "carol", NOW)?;
        set_role(tx, "bob", &"main".parse().expect("a scope"), Some(Role::Admin))
    })
    .await;
    assert_eq!(weakened("alice").await, [UserChange::LastAdmin; 4]);
    write(&database, |tx| set_disabled(tx, "carol", 0)).await;
    assert_eq!(weakened("alice").await, [UserChange::Done; 4]);
    assert_eq!(weakened("carol").await, [UserChange::LastAdmin; 4]);
    let names = database.read(users).await.expect("reads");
    let names: Vec<_> = names.iter().map(|user| (&*user.name, user.grants.len())).collect();
    assert_eq!(names, [("bob", 2), ("carol", 1)]);
}

fn new(user: i64, digest: &str, secret: u8) -> NewSession {
    let password = Password { user, digest: digest.to_owned() };
    NewSession { password, digest: [secret; 32], client: "192.0.2.1".to_owned() }
}

async fn begin(database: &Database, new: NewSession, now: i64) -> bool {
    write(database, move |tx| begin_session(tx, &new, now)).await
}

async fn is_there(database: &Database, secret: u8) -> bool {
    let found = database.read(move |s| session(s, &[secret; 32])).await.expect("reads");
    found.is_some()
}

#[tokio::test]
async fn a_session_ends_with_the_password_the_user_and_its_time() {
    let database = database().await;
    add(&database, "root", Role::Admin).await;
    add(&database, "alice", Role::Reader).await;
    let alice = database.read(|s| user(s, "alice")).await.expect("reads").expect("there").id;
    assert!(!begin(&database, new(alice, "another digest", 1), NOW).await);
    let ends: [fn(&Transaction) -> rusqlite::Result<UserChange>; 3] = [
        |tx| set_password(tx, "alice", "digest"),
        |tx| set_disabled(tx, "alice", NOW),
        |tx| set_disabled(tx, "alice", 0),
    ];
    for end in ends {
        assert!(begin(&database, new(alice, "digest", 1), NOW).await);
        assert!(is_there(&database, 1).await);
        write(&database, end).await;
        assert!(!is_there(&database, 1).await);
        write(&database, |tx| set_disabled(tx, "alice", 0)).await;
    }
    write(&database, |tx| set_disabled(tx, "alice", NOW)).await;
    assert!(!begin(&database, new(alice, "digest", 1), NOW).await, "a disabled user");
    write(&database, |tx| set_disabled(tx, "alice", 0)).await;
    // Those that have ended by themselves go with the next login.
    assert!(begin(&database, new(alice, "digest", 1), NOW).await);
    assert!(begin(&database, new(alice, "digest", 2), NOW + Session::IDLE_S).await);
    assert!(!is_there(&database, 1).await && is_there(&database, 2).await);
    write(&database, |tx| remove_user(tx, "alice")).await;
    assert!(!is_there(&database, 2).await);
}

#[tokio::test]
async fn a_user_has_at_most_so_many_sessions() {
    let database = database().await;
    add(&database, "alice", Role::Reader).await;
    for secret in 0..40 {
        assert!(begin(&database, new(1, "digest", secret), NOW + i64::from(secret)).await);
    }
    assert!(!is_there(&database, 7).await && is_there(&database, 8).await);
    let all = database.read(|s| sessions(s, 1)).await.expect("reads");
    assert_eq!(all.len(), 32);
    let (latest, id) = (all[0].used_at, all[0].id);
    assert_eq!(latest, NOW + 39);
    assert_eq!(write(&database, move |tx| end_sessions(tx, 1, Some(id))).await, 1);
    assert_eq!(write(&database, move |tx| end_sessions(tx, 2, None)).await, 0);
    assert_eq!(write(&database, move |tx| end_sessions(tx, 1, None)).await, 31);
}

fn external(name: &str, subject: &str, role: Option<Role>) -> ExternalUser {
    let grants = role.map(everywhere).into_iter().collect();
    ExternalUser { name: name.to_owned(), subject: subject.to_owned(), grants }
}

/// Logs in through a provider, and begins a session with the digest `n`. Returns what became of it.
async fn log_in(database: &Database, user: ExternalUser, n: u8) -> &'static str {
    write(database, move |tx| {
        Ok(match external_login(tx, &user, NOW)? {
            ExternalLogin::Known(password) => {
                let client = "192.0.2.1".to_owned();
                assert!(begin_session(tx, &NewSession { password, digest: [n; 32], client }, NOW)?);
                "known"
            }
            ExternalLogin::NameTaken => "name taken",
            ExternalLogin::Disabled => "disabled",
            ExternalLogin::NoRole => "no role",
        })
    })
    .await
}

async fn grants_of(database: &Database, n: u8) -> Option<(String, Vec<String>)> {
    let found = database.read(move |s| session(s, &[n; 32])).await.expect("reads");
    found.map(|owner| (owner.user, owner.grants.iter().map(Grant::to_string).collect()))
}

#[tokio::test]
async fn a_user_of_a_provider_has_the_name_and_the_roles_of_the_last_login() {
    let database = database().await;
    let log_in = async |name: &str, subject: &str, role, n| {
        log_in(&database, external(name, subject, role), n).await
    };
    assert_eq!(log_in("bob", "https://sso 1", None, 1).await, "no role");
    assert!(database.read(users).await.expect("reads").is_empty(), "strangers are not kept");
    assert_eq!(log_in("bob", "https://sso 1", Some(Role::Builder), 1).await, "known");
    let has = |name: &str, role: &str| Some((name.to_owned(), vec![role.to_owned()]));
    assert_eq!(grants_of(&database, 1).await, has("bob", "builder"));
    // The sessions that have begun follow.
    assert_eq!(log_in("robert", "https://sso 1", Some(Role::Reader), 2).await, "known");
    assert_eq!(grants_of(&database, 1).await, has("robert", "reader"));
    assert_eq!(grants_of(&database, 2).await, has("robert", "reader"));
    assert_eq!(log_in("robert", "https://sso 1", None, 3).await, "no role");
    assert_eq!(grants_of(&database, 1).await, None, "all sessions have ended");
}

#[tokio::test]
async fn nobody_takes_over_a_user_of_the_same_name() {
    let database = database().await;
    assert!(add(&database, "alice", Role::Admin).await);
    let log_in = async |name: &str, subject: &str, n| {
        log_in(&database, external(name, subject, Some(Role::Reader)), n).await
    };
    assert_eq!(log_in("alice", "https://sso 1", 1).await, "name taken");
    assert_eq!(log_in("bob", "https://sso 1", 1).await, "known");
    assert_eq!(log_in("bob", "https://sso 2", 2).await, "name taken", "another user there");
    assert_eq!(log_in("bob", "https://other 1", 2).await, "name taken", "another provider");
    assert_eq!(log_in("alice", "https://sso 1", 2).await, "name taken", "renamed there");
    write(&database, |tx| set_disabled(tx, "bob", NOW)).await;
    assert_eq!(log_in("bob", "https://sso 1", 3).await, "disabled");
    assert_eq!(grants_of(&database, 1).await, None);
    // A user without a password logs in with none, not even with an empty one.
    write(&database, |tx| set_disabled(tx, "bob", 0)).await;
    let found = database.read(|s| Ok((password(s, "bob")?, password(s, "alice")?))).await;
    let (bob, alice) = found.expect("reads");
    assert!(bob.is_none() && alice.is_some());
}

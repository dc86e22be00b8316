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

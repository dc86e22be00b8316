//! Without async: threads that transfer money between accounts, and one that checks the sum.
//!
//! `cargo run -p lockkeeper --example plain_threads`
//!
//! Things to note: the `blocking_` calls; an error type of the program (`with_error`), so that "too poor" reaches the
//! caller as it is, with its transfer undone; a client for the auditor, so that the busy tellers cannot crowd it out;
//! readers that see only whole transfers.

use std::sync::atomic::{AtomicBool, Ordering};

use lockkeeper::{Database, Snapshot, Transaction};

const ACCOUNTS: i64 = 10;
const START: i64 = 100;
const TELLERS: u64 = 4;
const TRANSFERS: u64 = 500;

/// What can go wrong in a transfer.
#[derive(Debug)]
enum Refusal {
    TooPoor { has: i64 },
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Ordinary functions over a snapshot or a transaction. They know nothing of queues and threads.
fn balance(snapshot: &Snapshot, account: i64) -> rusqlite::Result<i64> {
    let sql = "SELECT cents FROM account WHERE id = ?1";
    snapshot.query_row(sql, [account], |row| row.get(0))
}

fn transfer(tx: &Transaction, from: i64, to: i64, cents: i64) -> Result<(), Refusal> {
    let sql = "UPDATE account SET cents = cents + ?2 WHERE id = ?1";
    tx.execute(sql, (to, cents))?;
    tx.execute(sql, (from, -cents))?;
    let left = balance(tx, from)?;
    match left < 0 {
        // Both updates are undone, because the call returns an error.
        true => Err(Refusal::TooPoor { has: left + cents }),
        false => Ok(()),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("lockkeeper-threads-{}.db", std::process::id()));
    let db = Database::blocking_open(&path)?;
    db.blocking_write(|tx| {
        tx.execute_batch("CREATE TABLE account (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL)")?;
        let mut insert = tx.prepare_cached("INSERT INTO account (id, cents) VALUES (?1, ?2)")?;
        for id in 0..ACCOUNTS {
            insert.execute((id, START))?;
        }
        Ok(())
    })?;

    let bank = db.with_error::<Refusal>();
    let open = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let auditor = scope.spawn(|| {
            let audit = db.client("audit");
            let mut audits = 0_u64;
            while open.load(Ordering::Relaxed) {
                let sum: i64 = audit
                    .blocking_read(|s| {
                        s.query_row("SELECT sum(cents) FROM account", [], |row| row.get(0))
                    })
                    .expect("a sum");
                assert_eq!(sum, ACCOUNTS * START, "a reader saw half a transfer");
                audits += 1;
            }
            audits
        });
        let tellers: Vec<_> = (0..TELLERS)
            .map(|teller| {
                let bank = bank.clone();
                scope.spawn(move || work(&bank, teller))
            })
            .collect();
        let refused: u64 = tellers.into_iter().map(|teller| teller.join().expect("a teller")).sum();
        open.store(false, Ordering::Relaxed);
        let audits = auditor.join().expect("the auditor");
        println!("{} transfers, {refused} refused, {audits} audits", TELLERS * TRANSFERS);
    });

    // `bank` is another handle of the same database, so it is closed too.
    db.blocking_close()?;
    std::fs::remove_file(&path)?;
    Ok(())
}

/// Makes transfers; returns how many were refused.
fn work(bank: &Database<Refusal>, teller: u64) -> u64 {
    let mut refused = 0;
    for n in 0..TRANSFERS {
        let from = ((n * 7 + teller * 3) % ACCOUNTS as u64) as i64;
        let to = ((n * 3 + teller * 5 + 1) % ACCOUNTS as u64) as i64;
        let cents = ((n * 13 + teller) % 60) as i64;
        match bank.blocking_write(move |tx| transfer(tx, from, to, cents)) {
            Ok(()) => {}
            Err(error) => match error.into_call() {
                Ok(Refusal::TooPoor { has }) => {
                    assert!(has < cents);
                    refused += 1;
                }
                Ok(Refusal::Sql(error)) => panic!("{error}"),
                Err(error) => panic!("{error:?}"),
            },
        }
    }
    refused
}

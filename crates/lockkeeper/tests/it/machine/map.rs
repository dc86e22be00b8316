//! The map: what each write does to it, and to the tables that hold it.

use std::collections::BTreeMap;

use lockkeeper::{Client, Database, Snapshot, Synchronous, Transaction};

use crate::support::{Dir, Place};

pub(crate) const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS map (k INTEGER PRIMARY KEY, v INTEGER NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS history (
        version INTEGER PRIMARY KEY, op INTEGER NOT NULL UNIQUE
    ) STRICT;";

pub(crate) type Map = BTreeMap<i64, i64>;

/// The map at a version.
pub(crate) type State = (u64, Map);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Write {
    Put(i64, i64),
    Delete(i64),
    /// Refuses when there is no such key.
    Add(i64, i64),
    Swap {
        k: i64,
        old: i64,
        new: i64,
    },
    /// Takes from one key and gives to another; refuses, having taken, when the other is missing.
    Move {
        from: i64,
        to: i64,
        n: i64,
    },
    Clear,
}

/// What a write returns: one number that depends on the state before.
pub(crate) type Result1 = Result<i64, ()>;

impl Write {
    pub(crate) fn on_map(self, map: &mut Map) -> Result1 {
        match self {
            Self::Put(k, v) => Ok(map.insert(k, v).unwrap_or(-1)),
            Self::Delete(k) => Ok(map.remove(&k).unwrap_or(-1)),
            Self::Add(k, n) => {
                let v = map.get_mut(&k).ok_or(())?;
                *v += n;
                Ok(*v)
            }
            Self::Swap { k, old, new } => match map.get_mut(&k) {
                Some(v) if *v == old => {
                    *v = new;
                    Ok(1)
                }
                _ => Ok(0),
            },
            Self::Move { from, to, n } => {
                if !map.contains_key(&to) {
                    return Err(());
                }
                let left = map.get_mut(&from).ok_or(())?;
                *left -= n;
                let left = *left;
                *map.get_mut(&to).ok_or(())? += n;
                Ok(left)
            }
            Self::Clear => {
                let before = map.len();
                map.clear();
                Ok(before as i64)
            }
        }
    }

    pub(crate) fn on_tables(self, tx: &Transaction) -> rusqlite::Result<Option<i64>> {
        let get = |k: i64| {
            tx.prepare_cached("SELECT v FROM map WHERE k = ?1")?
                .query_map([k], |row| row.get::<_, i64>(0))?
                .next()
                .transpose()
        };
        let put = "INSERT INTO map (k, v) VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = ?2";
        let add = "UPDATE map SET v = v + ?2 WHERE k = ?1 RETURNING v";
        Ok(match self {
            Self::Put(k, v) => {
                let before = get(k)?;
                tx.execute(put, [k, v])?;
                Some(before.unwrap_or(-1))
            }
            Self::Delete(k) => {
                let before = get(k)?;
                tx.execute("DELETE FROM map WHERE k = ?1", [k])?;
                Some(before.unwrap_or(-1))
            }
            Self::Add(k, n) => match tx.query_row(add, [k, n], |row| row.get(0)) {
                Err(rusqlite::Error::QueryReturnedNoRows) => None,
                other => Some(other?),
            },
            Self::Swap { k, old, new } => {
                let sql = "UPDATE map SET v = ?3 WHERE k = ?1 AND v = ?2";
                Some(tx.execute(sql, [k, old, new])? as i64)
            }
            Self::Move { from, to, n } => {
                let left = match tx.query_row(add, [from, -n], |row| row.get(0)) {
                    Err(rusqlite::Error::QueryReturnedNoRows) => return Ok(None),
                    other => other?,
                };
                match tx.query_row(add, [to, n], |row| row.get::<_, i64>(0)) {
                    Err(rusqlite::Error::QueryReturnedNoRows) => None,
                    other => other.map(|_| Some(left))?,
                }
            }
            Self::Clear => Some(tx.execute("DELETE FROM map", [])? as i64),
        })
    }
}

/// What closures of this test fail with.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The map did not allow it, at this version.
    Refused(u64),
    Sql {
        _error: rusqlite::Error,
    },
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql { _error: error }
    }
}

pub(crate) fn version(s: &Snapshot) -> rusqlite::Result<u64> {
    s.query_row("SELECT coalesce(max(version), 0) FROM history", [], |row| {
        row.get::<_, i64>(0).map(|version| version as u64)
    })
}

/// Runs a write and numbers it: its version and its result.
pub(crate) fn run_write(tx: &Transaction, op: u64, write: Write) -> Result<(u64, i64), Failure> {
    let version = version(tx)?;
    match write.on_tables(tx)? {
        None => Err(Failure::Refused(version)),
        Some(result) => {
            let sql = "INSERT INTO history (version, op) VALUES (?1, ?2)";
            tx.execute(sql, [version as i64 + 1, op as i64])?;
            Ok((version + 1, result))
        }
    }
}

pub(crate) fn all(s: &Snapshot) -> Result<(u64, Map), Failure> {
    let version = version(s)?;
    let mut statement = s.prepare_cached("SELECT k, v FROM map")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((version, rows.collect::<rusqlite::Result<_>>()?))
}

pub(crate) fn get(s: &Snapshot, k: i64) -> Result<(u64, Option<i64>), Failure> {
    let version = version(s)?;
    let mut statement = s.prepare_cached("SELECT v FROM map WHERE k = ?1")?;
    let value = statement.query_map([k], |row| row.get(0))?.next().transpose()?;
    Ok((version, value))
}

pub(crate) fn open(dir: &Dir, place: Place) -> Database<Failure> {
    let db = dir
        .builder(place)
        .readers(2)
        .readers_max(4)
        .queue_capacity(8)
        .synchronous(Synchronous::Off)
        .checkpoint_wal_bytes(64 << 10)
        .blocking_open()
        .expect("the database opens");
    db.blocking_write(|tx| tx.execute_batch(SCHEMA)).expect("the tables are made");
    db.with_error()
}

pub(crate) fn history(db: &Client<Failure>) -> Vec<(u64, u64)> {
    db.blocking_read(|s| {
        let mut statement = s.prepare("SELECT version, op FROM history ORDER BY version")?;
        let rows = statement.query_map([], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        })?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    })
    .expect("the history can be read")
}

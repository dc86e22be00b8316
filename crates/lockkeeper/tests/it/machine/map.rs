//! The map, and what each write does to the map and to the tables that store it.

use std::collections::BTreeMap;

use lockkeeper::{Client, Database, Snapshot, Synchronous, Transaction};

use crate::support::{Dir, Place};

/// The table `map` stores the map. Other structures must agree with it: a full-text index, an R-Tree, generated
/// columns, a view through which rows are written, and the table `slot`, whose rows take those of `map` with them when
/// they are deleted.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE slot (id INTEGER PRIMARY KEY) STRICT;
    CREATE TABLE map (
        k INTEGER PRIMARY KEY REFERENCES slot ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
        v INTEGER NOT NULL,
        twice INTEGER NOT NULL AS (2 * v) STORED,
        word TEXT NOT NULL AS ('word' || (v + 1000000)) VIRTUAL
    ) STRICT;
    CREATE VIRTUAL TABLE map_text USING fts5 (word, content = 'map', content_rowid = 'k');
    CREATE VIRTUAL TABLE map_box USING rtree (k, low, high);
    CREATE TRIGGER map_inserted AFTER INSERT ON map BEGIN
        INSERT INTO map_text (rowid, word) VALUES (NEW.k, NEW.word);
        INSERT INTO map_box VALUES (NEW.k, NEW.v, NEW.twice - NEW.v);
    END;
    CREATE TRIGGER map_updated AFTER UPDATE ON map BEGIN
        INSERT INTO map_text (map_text, rowid, word) VALUES ('delete', OLD.k, OLD.word);
        INSERT INTO map_text (rowid, word) VALUES (NEW.k, NEW.word);
        UPDATE map_box SET low = NEW.v, high = NEW.v WHERE k = NEW.k;
    END;
    CREATE TRIGGER map_deleted AFTER DELETE ON map BEGIN
        INSERT INTO map_text (map_text, rowid, word) VALUES ('delete', OLD.k, OLD.word);
        DELETE FROM map_box WHERE k = OLD.k;
    END;
    CREATE VIEW pair (k, v) AS SELECT k, v FROM map;
    CREATE TRIGGER pair_inserted INSTEAD OF INSERT ON pair BEGIN
        INSERT INTO map (k, v) VALUES (NEW.k, NEW.v) ON CONFLICT (k) DO UPDATE SET v = NEW.v;
        INSERT INTO slot (id) VALUES (NEW.k) ON CONFLICT DO NOTHING;
    END;
    CREATE TABLE history (
        version INTEGER PRIMARY KEY, op INTEGER NOT NULL UNIQUE
    ) STRICT, WITHOUT ROWID;";

/// The rows of the map according to each of the other structures. Each row must occur as often as there are such
/// structures.
const OTHERS: &str = "
    SELECT map.k, map.v FROM map JOIN map_text ON map_text.rowid = map.k AND map_text = map.word
    UNION ALL SELECT k, CAST (low AS INTEGER) FROM map_box WHERE low = high
    UNION ALL SELECT id, (SELECT twice / 2 FROM map WHERE k = id) FROM slot
    ORDER BY 1, 2";

pub(crate) type Map = BTreeMap<i64, i64>;

/// The map at a version.
pub(crate) type State = (u64, Map);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Write {
    Put(i64, i64),
    Delete(i64),
    /// Fails if the key does not exist.
    Add(i64, i64),
    Swap {
        k: i64,
        old: i64,
        new: i64,
    },
    /// Takes `n` from one key and gives it to another. If the other key does not exist, fails after it has taken.
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
        let put = "INSERT INTO pair (k, v) VALUES (?1, ?2)";
        let add = "UPDATE map SET v = v + ?2 WHERE k = ?1 RETURNING v";
        Ok(match self {
            Self::Put(k, v) => {
                let before = get(k)?;
                tx.execute(put, [k, v])?;
                Some(before.unwrap_or(-1))
            }
            Self::Delete(k) => {
                let before = get(k)?;
                tx.execute("DELETE FROM slot WHERE id = ?1", [k])?;
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
            Self::Clear => Some(tx.execute("DELETE FROM slot", [])? as i64),
        })
    }
}

/// The error type of the closures in this test.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The map refused the write, at this version.
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

/// Runs a write and notes it in `history`. Returns the version and the result.
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
    let map: Map = rows.collect::<rusqlite::Result<_>>()?;
    let mut statement = s.prepare_cached(OTHERS)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let others: Vec<(i64, i64)> = rows.collect::<rusqlite::Result<_>>()?;
    let expected: Vec<(i64, i64)> =
        map.iter().flat_map(|(k, v)| std::iter::repeat_n((*k, *v), 3)).collect();
    assert_eq!(others, expected, "an index, the R-Tree or a parent does not agree with the map");
    Ok((version, map))
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
    let make = |tx: &Transaction| match tx.table_exists(None, "map")? {
        true => Ok(()),
        false => tx.execute_batch(SCHEMA),
    };
    db.blocking_write(make).expect("the tables are made");
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

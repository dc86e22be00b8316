//! What a call's closure does: it runs the call's steps one after another on a view of a transaction.

use std::cell::{Cell, RefCell};

use super::program::{Call, End, Failure, LOST, Op, Seen, Step, code};
use super::view::{Sql, View};
use crate::support::rich::{self, Gives};

/// Runs a call's steps on `view`, which is what its closure does.
pub(crate) fn interpret(
    view: &impl View,
    call: &Call,
    number: i64,
    canceled: bool,
) -> Result<Vec<Seen>, Failure> {
    let notes = Notes::default();
    let steps = || -> Result<(), Failure> {
        if canceled {
            view.execute("INSERT INTO ledger (call) VALUES (?1)", [number])?;
        }
        run_steps(view, &call.steps, number, &notes)
    };
    let result = steps();
    let failed = |code| Failure { seen: notes.seen.borrow().clone(), code };
    match result {
        Err(failure) => Err(failed(failure.code)),
        Ok(()) => match call.end {
            End::Good => Ok(notes.seen.borrow().clone()),
            End::Fail => Err(failed(None)),
            End::Panic => std::panic::panic_any(format!("{:?}", notes.seen.borrow())),
            End::LeakRead => {
                view.leak("SELECT id FROM parent UNION ALL SELECT id FROM child");
                Ok(notes.seen.borrow().clone())
            }
            End::LeakWrite => {
                view.leak("INSERT INTO filler (body) VALUES (x'01'), (x'02') RETURNING id");
                Ok(notes.seen.borrow().clone())
            }
        },
    }
}

/// What a call has seen so far.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) seen: RefCell<Vec<Seen>>,
    /// Whether the transaction is lost. From then on a statement's error depends on when the statement was prepared, so
    /// only the fact that it fails is compared.
    pub(crate) lost: Cell<bool>,
}

pub(crate) fn run_steps(
    view: &impl View,
    steps: &[Step],
    number: i64,
    notes: &Notes,
) -> Result<(), Failure> {
    for step in steps {
        match run_op(view, &step.op, number, notes) {
            Ok(now) => notes.seen.borrow_mut().push(now),
            Err(mut failure) => {
                if notes.lost.get() {
                    failure.code = failure.code.map(|_| LOST);
                }
                let probe = view.rows("SELECT 1", []);
                notes.lost.set(probe.is_err_and(|error| code(&error) == LOST));
                notes.seen.borrow_mut().push(failure.code.map_or(Seen::Undone, Seen::Failed));
                if !step.forgive {
                    return Err(failure);
                }
            }
        }
    }
    Ok(())
}

/// Drops the number of changed rows. After a statement that changes no rows, SQLite returns the number of an earlier
/// statement.
pub(crate) fn not_rows(result: Sql<usize>) -> Sql<usize> {
    result.map(|_| 0)
}

#[expect(clippy::too_many_lines, reason = "one arm for each operation")]
pub(crate) fn run_op(
    view: &impl View,
    op: &Op,
    number: i64,
    notes: &Notes,
) -> Result<Seen, Failure> {
    let name = |name: &i64| format!("name {name}");
    let changed = match op {
        Op::Parent { conflict, id, name: n } => view.execute(
            &format!("INSERT {conflict} INTO parent (id, name) VALUES (?1, ?2)"),
            (id, name(n)),
        )?,
        Op::Parents { conflict, ids, names } => view.execute(
            &format!("INSERT {conflict} INTO parent (id, name) VALUES (?1, ?2), (?3, ?4)"),
            (ids[0], name(&names[0]), ids[1], name(&names[1])),
        )?,
        Op::Rename { id, name: n } => {
            view.execute("UPDATE parent SET name = ?2 WHERE id >= ?1", (id, name(n)))?
        }
        Op::Orphan { id } => view.execute("DELETE FROM parent WHERE id = ?1", [id])?,
        Op::Child { late, now } => {
            view.execute("INSERT INTO child (late, now) VALUES (?1, ?2)", (late, now))?
        }
        Op::Childless => view.execute("DELETE FROM child", [])?,
        Op::DeferKeys => not_rows(view.execute("PRAGMA defer_foreign_keys = ON", []))?,
        Op::Fill { pages } => {
            view.execute("INSERT INTO filler (body) VALUES (zeroblob(?1))", [*pages as i64 * 4000])?
        }
        Op::Empty => view.execute("DELETE FROM filler", [])?,
        Op::Tree { k, v } => view.execute(
            "INSERT INTO tree (k, v) VALUES (?1, ?2)
             ON CONFLICT (k) DO UPDATE SET v = v + excluded.v",
            (format!("key {k}"), v),
        )?,
        Op::Table { drop: false } => not_rows(
            view.execute("CREATE TABLE extra (id INTEGER PRIMARY KEY, body TEXT) STRICT", []),
        )?,
        Op::Table { drop: true } => not_rows(view.execute("DROP TABLE extra", []))?,
        Op::Version(n) => {
            view.script(&format!("PRAGMA user_version = {n}"))?;
            0
        }
        Op::Read(sql) => return Ok(Seen::Rows(view.rows(sql, [])?)),
        Op::LastRow => {
            // The call inserts a row first. Before its first insert, `last_insert_rowid` of the plain connection is
            // that of an earlier call.
            view.execute("INSERT INTO filler (body) VALUES (x'')", [])?;
            return Ok(Seen::Rows(vec![view.last_row().to_string()]));
        }
        Op::Stray(sql) => {
            view.script(sql)?;
            0
        }
        Op::Smuggle(sql) => {
            view.script(&format!(
                "INSERT INTO filler (body) VALUES (x'0a'); {sql};
                 INSERT INTO filler (body) VALUES (x'0b')"
            ))?;
            0
        }
        Op::Lazy { id, between } => {
            // The call forgives what fails in between, and notes it: the judge must see that a statement was stopped.
            let between = Step { op: (**between).clone(), forgive: true };
            let run = || run_steps(view, std::slice::from_ref(&between), number, notes);
            return Ok(Seen::Rows(view.lazily(*id, run)?));
        }
        Op::Savepoint { steps, keep } => {
            view.savepoint(&mut || {
                run_steps(view, steps, number, notes)?;
                match keep {
                    true => Ok(()),
                    false => Err(Failure { seen: Vec::new(), code: None }),
                }
            })?;
            0
        }
        Op::Rich { sql, numbers } => {
            let taken = rusqlite::params_from_iter(rich::taken(sql, numbers));
            match rich::gives(sql) {
                Gives::Rows => return Ok(Seen::Rows(view.rows(sql, taken)?)),
                Gives::Changes => view.execute(sql, taken)?,
                Gives::Nothing => not_rows(view.execute(sql, taken))?,
            }
        }
        Op::Cancel(call) => {
            view.cancel(*call);
            0
        }
        Op::CancelSelf { writing: true } => view.execute(
            "INSERT OR REPLACE INTO tree (k, v)
             WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 2000)
             SELECT 'long ' || n, CASE n WHEN 1 THEN rung(?1) ELSE n END FROM c",
            [number],
        )?,
        Op::CancelSelf { writing: false } => {
            let rows = view.rows(
                "WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 5000)
                 SELECT sum(CASE n WHEN 1 THEN rung(?1) ELSE n END) FROM c",
                [number],
            )?;
            return Ok(Seen::Rows(rows));
        }
    };
    Ok(Seen::Changed(changed))
}

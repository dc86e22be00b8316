//! Forward-only schema versions.
//!
//! The file's header says which program it belongs to (`application_id`) and how many steps were run on it
//! (`user_version`). The writer runs the missing steps before any reader is opened. Each step has a transaction of its
//! own, which also sets the version; so after a crash the file has exactly the steps that its version counts.
//!
//! - MIGR1: the header is checked before anything is changed, WAL mode included. A refused file stays as it was.
//! - MIGR2: the version is read again under the write lock before each step. If two processes start at the same time,
//!   only one of them runs the step.
//! - MIGR3: a step is guarded as calls are: it cannot control transactions, attach files or set PRAGMAs of the connection,
//!   so it cannot commit a part of itself.
//! - MIGR4: for a file that another crate has migrated, the caller's function (`adopt_with`) reads the file and returns
//!   how many steps the file has seen. It is called before anything is changed (MIGR1), and again under the write lock
//!   (MIGR2), in the transaction that writes the header.

mod header;

use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::sync::Arc;

use header::{Header, Seen, own, shown};
use rusqlite::Connection;

use super::open::open_checked;
use super::opener::Opener;
use super::snapshot::Snapshot;
use super::transaction::Transaction;
use crate::config::Callback;
use crate::error::{Error, ErrorKind};
use crate::ffi::Sql;
use crate::place::Role;
use crate::queue::panic_text;

/// The steps from an empty file to today's schema; for [`Builder::migrations`](crate::Builder::migrations).
///
/// Never change or remove a step once a file has seen it; add new steps at the end. Each step runs in a transaction of
/// its own, with foreign keys switched off, so that tables can be rebuilt
/// (<https://www.sqlite.org/lang_altertable.html#otheralter>). Before it is committed, the whole file is checked for
/// violated keys. Because foreign keys are off, `ON DELETE` actions do not run.
///
/// Two lists are equal if their application ids, the names and the SQL of their steps, and their functions are the
/// same. Functions are compared as [`Builder::open_shared`](crate::Builder::open_shared) says.
///
/// # Examples
/// ```
/// use lockkeeper::{Database, Migrations};
///
/// # futures_lite::future::block_on(async {
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("shop.db");
/// let migrations = Migrations::new(i32::from_be_bytes(*b"shop"))
///     .sql("accounts", "CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT")
///     .sql("e-mail", "ALTER TABLE account ADD COLUMN email TEXT")
///     .step("lower-case e-mail", |tx| {
///         tx.execute("UPDATE account SET email = lower(email)", []).map(drop)
///     });
/// let db = Database::builder(&path).migrations(migrations).open().await?;
/// let version: i64 = db.read(|s| s.pragma_query_value(None, "user_version", |row| row.get(0))).await?;
/// assert_eq!(version, 3);
/// # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, PartialEq)]
pub struct Migrations {
    application_id: i32,
    adopt: Adopt,
    steps: Vec<Step>,
}

/// Which files with tables but without an application id count as files of this program.
#[derive(Clone, PartialEq)]
enum Adopt {
    None,
    /// All of them; their `user_version` counts the steps that they have seen.
    ByVersion,
    /// Those for which this function returns how many steps they have seen.
    By(Callback<Judge>),
}

type Judge = dyn Fn(&Snapshot) -> rusqlite::Result<Option<u32>> + Send + Sync;

#[derive(Clone, PartialEq)]
struct Step {
    name: Cow<'static, str>,
    body: Body,
}

#[derive(Clone, PartialEq)]
enum Body {
    Sql(Cow<'static, str>),
    Code(Callback<Code>),
}

type Code = dyn Fn(&Transaction) -> rusqlite::Result<()> + Send + Sync;

fn code<F>(f: F) -> Body
where
    F: Fn(&Transaction) -> rusqlite::Result<()> + Send + Sync + 'static,
{
    Body::Code(Callback::new::<F>(Arc::new(f)))
}

fn judge<F>(f: F) -> Adopt
where
    F: Fn(&Snapshot) -> rusqlite::Result<Option<u32>> + Send + Sync + 'static,
{
    Adopt::By(Callback::new::<F>(Arc::new(f)))
}

// A step that panics leaves nothing behind, because each step runs in a transaction.
impl UnwindSafe for Migrations {}
impl RefUnwindSafe for Migrations {}

impl Migrations {
    /// A list without steps, for files that are marked with `application_id`. The id tells this program's files from
    /// those of other programs. It can be any number but 0; four letters are best, such as
    /// `i32::from_be_bytes(*b"shop")`.
    pub fn new(application_id: i32) -> Self {
        Self { application_id, adopt: Adopt::None, steps: Vec::new() }
    }

    /// Adds a step of one or more statements. The name is for messages.
    pub fn sql(
        mut self,
        name: impl Into<Cow<'static, str>>,
        sql: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.steps.push(Step { name: name.into(), body: Body::Sql(sql.into()) });
        self
    }

    /// Adds a step in Rust, with the same view of the database as a write.
    pub fn step(
        mut self,
        name: impl Into<Cow<'static, str>>,
        f: impl Fn(&Transaction) -> rusqlite::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.steps.push(Step { name: name.into(), body: code(f) });
        self
    }

    /// Also accepts files with tables but without an application id, such as files that `rusqlite_migration` has made,
    /// and takes their `user_version` for the number of steps that they have seen.
    ///
    /// Replaces the function of [`Migrations::adopt_with`], if that was called before.
    pub fn adopt_unmarked(mut self) -> Self {
        self.adopt = Adopt::ByVersion;
        self
    }

    /// Also accepts files with tables but without an application id, such as files that sqlx, refinery, diesel or the
    /// program's own code has migrated. The function `seen` returns how many of these steps the file has seen already.
    /// The steps after those are run, and the file is marked with the application id, so that `seen` is not called for
    /// it when it is opened again.
    ///
    /// `seen` reads the file as a read does. If it returns `None`, the file is not one of this program: it is refused
    /// with [`ErrorKind::ForeignFile`] and left as it was. If it returns more steps than there are, the file is refused
    /// with [`ErrorKind::NewerFile`]; after an error or a panic, with [`ErrorKind::Migration`]. `seen` is called more
    /// than once, the last time under the write lock, because another process may be adopting the file as well. What
    /// other crates keep in the file stays there.
    ///
    /// # Examples
    /// A program that used sqlx, with three migrations, the first two of which are steps here:
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("shop.db");
    /// # let old = rusqlite::Connection::open(&path).unwrap();
    /// # old.execute_batch(
    /// #     "CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, success BOOLEAN NOT NULL);
    /// #      CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT);
    /// #      INSERT INTO _sqlx_migrations VALUES (20240101000000, TRUE)",
    /// # ).unwrap();
    /// # drop(old);
    /// use lockkeeper::{Database, Migrations};
    ///
    /// let migrations = Migrations::new(i32::from_be_bytes(*b"shop"))
    ///     .sql("accounts", "CREATE TABLE account (id INTEGER PRIMARY KEY, name TEXT)")
    ///     .sql("e-mail", "ALTER TABLE account ADD COLUMN email TEXT")
    ///     .adopt_with(|file| {
    ///         if !file.table_exists(None, "_sqlx_migrations")? {
    ///             return Ok(None); // not ours
    ///         }
    ///         let sql = "SELECT count(*) FROM _sqlx_migrations WHERE success";
    ///         file.query_row(sql, [], |row| row.get(0)).map(Some)
    ///     });
    /// let db = Database::builder(&path).migrations(migrations).blocking_open()?;
    /// db.blocking_write(|tx| tx.execute("INSERT INTO account (email) VALUES ('a@b.c')", []))?;
    /// # Ok::<_, lockkeeper::Error>(())
    /// ```
    pub fn adopt_with(
        mut self,
        seen: impl Fn(&Snapshot) -> rusqlite::Result<Option<u32>> + Send + Sync + 'static,
    ) -> Self {
        self.adopt = judge(seen);
        self
    }

    /// Refuses steps without a name, names that appear twice, and the application id 0.
    pub(crate) fn check_list(&self) -> Result<(), Error> {
        let wrong = |detail: String| Err(Error::new(ErrorKind::Config).detail(detail));
        for (index, Step { name, .. }) in self.steps.iter().enumerate() {
            let number = index + 1;
            if name.trim().is_empty() {
                return wrong(format!("step {number} of the migrations has no name; give it one"));
            }
            let before = self.steps[..index].iter().position(|step| step.name == *name);
            if let Some(before) = before {
                return wrong(format!(
                    "steps {} and {number} of the migrations are both named `{name}`; is one of them a copy?",
                    before + 1
                ));
            }
        }
        self.check_id()
    }

    fn check_id(&self) -> Result<(), Error> {
        match self.application_id {
            0 => Err(Error::new(ErrorKind::Config).detail(
                "the application id of the migrations is 0, which every unmarked file has; choose a number",
            )),
            _ => Ok(()),
        }
    }

    /// The version of a file that has seen all steps.
    pub fn version(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }

    /// Refuses a file of another program, or of a newer version of this one (MIGR1).
    fn check_file(&self, conn: &Connection, opener: &Opener) -> Result<(), Error> {
        self.check_id()?;
        let header = Header::read(conn).map_err(own)?;
        match (&self.adopt, header.is_unmarked()) {
            (Adopt::By(_), true) => {
                // The function of `adopt_with` reads through a separate read-only connection, which changes nothing
                // (MIGR4).
                let reader = opener.open(Role::Reader)?;
                reader.link.session.run(Sql::Begin).map_err(own)?;
                let seen = self.seen(&reader, opener);
                reader.link.clean();
                seen.map(drop)
            }
            _ => self.check_header(header, opener).map(drop),
        }
    }

    /// How many steps the file has seen, according to its header; for an unmarked file, according to the function of
    /// `adopt_with`.
    fn seen(&self, file: &Snapshot, opener: &Opener) -> Result<Seen, Error> {
        let header = Header::read(file.link.session.conn()).map_err(own)?;
        let judge = match &self.adopt {
            Adopt::By(judge) if header.is_unmarked() => judge,
            _ => return self.check_header(header, opener),
        };
        let was = file.link.read_only.get();
        file.link.begin_own();
        file.link.begin_call(true, false);
        let judged = catch_unwind(AssertUnwindSafe(|| (judge.f)(file)));
        file.link.end_call();
        file.link.read_only.set(was);
        let name = shown_file(opener);
        match judged {
            Ok(Ok(Some(steps))) if steps > self.version() => Err(newer(opener, steps, self.version())),
            Ok(Ok(Some(steps))) => Ok(Seen { steps: steps as usize, adopt: true }),
            Ok(Ok(None)) => Err(Error::new(ErrorKind::ForeignFile).detail(format!(
                "{name} holds data, but has no application id, and `Migrations::adopt_with` says that it is no file \
                 of this program ({})",
                shown(self.application_id)
            ))),
            Ok(Err(error)) => {
                let detail = format!("{name}: `Migrations::adopt_with` failed: {error}; nothing was changed");
                Err(Error::sqlite_error(ErrorKind::Migration, error).detail(detail))
            }
            Err(panic) => Err(Error::new(ErrorKind::Migration).detail(format!(
                "{name}: `Migrations::adopt_with` panicked: {}; nothing was changed",
                panic_text(&*panic)
            ))),
        }
    }

    /// Refuses a header of another program, or of a newer version of this one.
    fn check_header(&self, header: Header, opener: &Opener) -> Result<Seen, Error> {
        let file = shown_file(opener);
        let foreign = |detail| Err(Error::new(ErrorKind::ForeignFile).detail(detail));
        if header.application_id == 0 {
            let adopted = matches!(self.adopt, Adopt::ByVersion);
            if !adopted && (!header.empty || header.version != 0) {
                return foreign(format!(
                    "{file} holds data, but has no application id, so it was not made by this \
                     program ({}); if it was, use `Migrations::adopt_unmarked` or `adopt_with`",
                    shown(self.application_id)
                ));
            }
        } else if header.application_id != self.application_id {
            return foreign(format!(
                "{file} belongs to the application {}, this program is {}; name another file",
                shown(header.application_id),
                shown(self.application_id)
            ));
        }
        if header.version < 0 || header.version as u32 > self.version() {
            return Err(newer(opener, header.version, self.version()));
        }
        Ok(Seen { steps: header.version as usize, adopt: false })
    }

    /// Refuses a file that is opened read-only and has not seen all steps.
    pub(crate) fn check_version(&self, file: &Snapshot, opener: &Opener) -> Result<(), Error> {
        file.link.session.run(Sql::Begin).map_err(own)?;
        let seen = self.seen(file, opener);
        file.link.clean();
        let seen = seen?.steps;
        if seen == self.steps.len() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Migration).detail(format!(
            "{} has schema version {seen}, this program needs {}, and the file is opened for reading alone; have it \
             opened for writing once",
            shown_file(opener),
            self.version()
        )))
    }

    /// Runs the missing steps, on the writer's connection, between two calls.
    pub(crate) fn run(&self, tx: &Transaction, opener: &Opener) -> Result<(), Error> {
        let conn = tx.link.session.conn();
        if self.is_done(Header::read(conn).map_err(own)?) {
            return Ok(());
        }
        // Before the transaction, because inside one SQLite ignores this PRAGMA.
        conn.execute_batch("PRAGMA foreign_keys = OFF").map_err(own)?;
        let result = self.run_steps(tx, opener);
        conn.execute_batch("PRAGMA foreign_keys = ON").map_err(own)?;
        result
    }

    fn is_done(&self, header: Header) -> bool {
        header.application_id == self.application_id && header.version as u32 == self.version()
    }

    fn run_steps(&self, tx: &Transaction, opener: &Opener) -> Result<(), Error> {
        // Each pass runs one step. Another process may run some of the steps too, so the loop may end sooner.
        for _ in 0..=self.steps.len() + 1 {
            tx.link.session.run(Sql::BeginImmediate).map_err(own)?;
            match self.next_step(tx, opener) {
                Ok(true) => tx.link.session.run(Sql::Commit).map_err(own)?,
                ended => {
                    tx.link.clean();
                    return ended.map(drop);
                }
            }
        }
        Ok(())
    }

    /// Runs the first step that the file has not seen, or marks a file that is being adopted. `false`: nothing was left
    /// to do.
    fn next_step(&self, tx: &Transaction, opener: &Opener) -> Result<bool, Error> {
        let conn = tx.link.session.conn();
        // MIGR2, MIGR4
        let Seen { steps: seen, adopt } = self.seen(tx, opener)?;
        if self.is_done(Header::read(conn).map_err(own)?) {
            return Ok(false);
        }
        let mut version = seen;
        if let (Some(step), false) = (self.steps.get(seen), adopt) {
            step.run(tx, seen + 1)?;
            version += 1;
        }
        let id = self.application_id;
        conn.execute_batch(&format!(
            "PRAGMA user_version = {version}; PRAGMA application_id = {id}"
        ))
        .map_err(own)?;
        Ok(true)
    }
}

/// Opens the first connection, after `migrations` has accepted the file (MIGR1): the writer's, or a reader's if the
/// database is read-only.
pub(crate) fn open_first(
    opener: &Opener,
    migrations: Option<&Migrations>,
) -> Result<Snapshot, Error> {
    let check = |conn: &Connection| match migrations {
        Some(migrations) => migrations.check_file(conn, opener),
        None => Ok(()),
    };
    let role = if opener.config.is_read_only() { Role::Reader } else { Role::Writer };
    open_checked(opener, role, &check)
}

impl fmt::Debug for Migrations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.steps.iter().map(|step| &step.name).collect();
        f.debug_struct("Migrations")
            .field("application_id", &shown(self.application_id))
            .field("adopt", &self.adopt)
            .field("steps", &names)
            .finish()
    }
}

impl fmt::Debug for Adopt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::ByVersion => "ByVersion",
            Self::By(_) => "By(..)",
        })
    }
}

impl Step {
    /// Runs the step in the open transaction. After an error the caller rolls the transaction back.
    fn run(&self, tx: &Transaction, number: usize) -> Result<(), Error> {
        let link = &tx.link;
        let undone = |what: &str, error: Option<rusqlite::Error>| {
            let kind = ErrorKind::Migration;
            let undone = error.map_or(Error::new(kind), |error| Error::sqlite_error(kind, error));
            let name = &self.name;
            undone.detail(format!("step {number} (`{name}`) {what}; the steps before it are kept"))
        };
        // MIGR3
        link.begin_own();
        link.begin_call(false, false);
        let ran = catch_unwind(AssertUnwindSafe(|| match &self.body {
            Body::Sql(sql) => tx.execute_batch(sql),
            Body::Code(code) => (code.f)(tx),
        }));
        link.end_call();
        match ran {
            Ok(Ok(())) if link.is_lost() => {
                return Err(undone("rolled its transaction back", None));
            }
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(undone(&format!("failed: {error}"), Some(error))),
            Err(panic) => {
                return Err(undone(&format!("panicked: {}", panic_text(&*panic)), None));
            }
        }
        let failed = |error| undone("was not checked", Some(error));
        link.restore_keys().map_err(failed)?;
        link.end_temporary();
        match violation(link.session.conn()).map_err(failed)? {
            Some(what) => Err(undone(&what, None)),
            None => Ok(()),
        }
    }
}

/// Names the first row that violates a foreign key; `None`: no foreign key is violated.
fn violation(conn: &Connection) -> rusqlite::Result<Option<String>> {
    let mut check = conn.prepare("PRAGMA foreign_key_check")?;
    let mut rows = check.query([])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let (table, parent): (String, String) = (row.get(0)?, row.get(2)?);
    let which = match row.get::<_, Option<i64>>(1)? {
        Some(id) => format!("the row {id} of `{table}`"),
        None => format!("a row of `{table}`"),
    };
    Ok(Some(format!("leaves {which} without its parent in `{parent}`")))
}

fn shown_file(opener: &Opener) -> String {
    opener.path().map_or_else(|| String::from(":memory:"), |path| path.display().to_string())
}

fn newer(opener: &Opener, version: impl fmt::Display, known: u32) -> Error {
    Error::new(ErrorKind::NewerFile).detail(format!(
        "{} has schema version {version}, this program knows {known}; run the newer program that wrote it, or \
         restore a backup made before",
        shown_file(opener)
    ))
}

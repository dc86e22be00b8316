//! The only `unsafe` of the crate: what rusqlite does not offer.
//!
//! - The library's own statements (`BEGIN IMMEDIATE`, `SAVEPOINT`, ...) live here, outside the
//!   caller's statement cache: the authorizer that denies them to calls runs at prepare time only,
//!   so a call that found one in a shared cache could run it.
//! - `sqlite3_db_status(SQLITE_DBSTATUS_DEFERRED_FKS)` tells whether a call left a deferred
//!   foreign key violated; rusqlite has no wrapper for it.
//! - The statements and blobs of calls belong to the session, which lends them: one that a call forgets is still
//!   finalized. SQLite lists every statement of a connection, those of its virtual tables too, and
//!   nothing tells whose one is; whoever finalizes what it lists frees memory that FTS5 frees again.
//! - Statements that `setup` or an exclusive call leaked through the bare connection are finalized at
//!   closing where it is certain that no virtual table has any.
//! - The header of the WAL is read through the connection's own file; nothing else tells whether the
//!   WAL has started over.
//! - What a connection counts of the rows that it changed, so that a call is told of its own only.
//! - A page that the kernel empties in a forked child tells the child from its parent.
//! - The closure of a call that blocks its caller stays on the caller's stack; nothing in safe Rust lends it to another
//!   thread that lives on.
//! - The update hook is put on and taken off between two calls; rusqlite asks for `&mut Connection`.
//! - The busy handler and the WAL hook carry state, which rusqlite offers from 0.41 on only; and its older builds
//!   share one lock among the page caches of all connections, which SQLite's compile options tell.
#![expect(unsafe_code, reason = "SQLite's C interface; each block says why it is sound")]

use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::mem::{self, ManuallyDrop};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::sync::atomic::{AtomicPtr, AtomicU32};
use std::sync::atomic::{AtomicUsize, Ordering};

use rusqlite::blob::Blob;
use rusqlite::hooks::{Action, AuthContext, Authorization};
use rusqlite::{CachedStatement, Connection, Error, Name, Statement, ffi};

use crate::connection::Guard;
use crate::counters::Counters;
use crate::process;
use crate::queue::Gate;
use crate::record::Recorder;

/// A connection with the library's own statements prepared on it.
///
/// However it ends, `Drop` ends it: the statements are finalized, the connection is closed, and then
/// what its hook points to is freed. In a forked child everything is forgotten instead.
#[derive(Debug)]
pub(crate) struct Session {
    own: Option<Own>,
    lent: RefCell<Places>,
    /// In a box, because lent statements refer to it. Taken out by `Drop` alone.
    conn: ManuallyDrop<Box<Connection>>,
    /// What the update hook points to, while it is on.
    hooked: RefCell<Option<Arc<Recorder>>>,
    /// The schemas have been looked at since the transaction began.
    schemas_seen: Cell<bool>,
    /// What the busy handler and the WAL hook point to, once they are on.
    guarded: Option<Arc<Guard>>,
    /// The process that opened the connection.
    pid: u32,
    /// What tells the connection from every other one; kept with it, under [`MARK`].
    mark: usize,
}

/// Where the statements are that calls use.
#[derive(Debug, Default)]
struct Places {
    /// With a statement each: bounded by what the running call holds or has forgotten.
    used: Vec<NonNull<Place>>,
    /// Empty ones, [`SPARE_PLACES`] at most.
    spare: Vec<NonNull<Place>>,
}

type Place = Option<Kept>;

/// A point read needs one, a loop within a loop two.
const SPARE_PLACES: usize = 8;

// SAFETY: the places belong to this list alone; a `Lent`, which points to one, borrows its session and
// so keeps it on its thread. Statements may move between threads with their connection, see `Prepared`.
unsafe impl Send for Places {}

/// A statement or blob whose lifetime is minded by its session: it is dropped before the connection.
enum Kept {
    Plain(Statement<'static>),
    Cached(CachedStatement<'static>),
    Blob(Blob<'static>),
}

/// A statement that a call uses and its session owns. Dropped: reset, and finalized or put back into the
/// cache; forgotten: finalized or put back at the end of the call.
pub(crate) struct Lent<'c> {
    session: &'c Session,
    place: NonNull<Place>,
}

impl<'c> Lent<'c> {
    pub(crate) fn get(&self) -> &Statement<'c> {
        // SAFETY: the place is ours until `Drop`: it is in `used`, from where only we and `take_back`,
        // which is not called while a call uses its statements, take it. A shorter lifetime is always
        // right for a shared reference.
        match unsafe { self.place.as_ref() } {
            Some(Kept::Plain(statement)) => statement,
            Some(Kept::Cached(statement)) => statement,
            Some(Kept::Blob(_)) | None => unreachable!("a lent place holds a statement"),
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut Statement<'c> {
        // SAFETY: as in `get`, and `self` is borrowed exclusively.
        let statement: &mut Statement<'static> = match unsafe { self.place.as_mut() } {
            Some(Kept::Plain(statement)) => statement,
            Some(Kept::Cached(statement)) => statement,
            Some(Kept::Blob(_)) | None => unreachable!("a lent place holds a statement"),
        };
        // SAFETY: only the lifetime of the borrow of the connection changes, back to what it was when the
        // statement was prepared. Nothing moves a statement with a shorter one into the place: the
        // reference does not leave this crate, which runs methods of the statement on it.
        unsafe { mem::transmute::<&mut Statement<'static>, &mut Statement<'c>>(statement) }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // Its rows may have been forgotten: a statement in the cache that stands on a row keeps its snapshot.
        drop(self.get_mut().raw_query());
        self.session.give_back(self.place);
    }
}

/// A blob that a call uses and its session owns. Dropped, or forgotten when the call ends: closed.
pub(crate) struct LentBlob<'c> {
    session: &'c Session,
    place: NonNull<Place>,
}

impl<'c> LentBlob<'c> {
    pub(crate) fn get(&self) -> &Blob<'c> {
        // SAFETY: as in `Lent::get`.
        match unsafe { self.place.as_ref() } {
            Some(Kept::Blob(blob)) => blob,
            _ => unreachable!("a lent place holds a blob"),
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut Blob<'c> {
        // SAFETY: as in `Lent::get_mut`.
        let blob: &mut Blob<'static> = match unsafe { self.place.as_mut() } {
            Some(Kept::Blob(blob)) => blob,
            _ => unreachable!("a lent place holds a blob"),
        };
        // SAFETY: as in `Lent::get_mut`.
        unsafe { mem::transmute::<&mut Blob<'static>, &mut Blob<'c>>(blob) }
    }

    pub(crate) fn close(mut self) -> Result<(), Error> {
        // SAFETY: as in `Lent::get_mut`; the drop of `self` takes the empty place out of the list.
        match unsafe { self.place.as_mut() }.take() {
            Some(Kept::Blob(blob)) => blob.close(),
            _ => unreachable!("a lent place holds a blob"),
        }
    }
}

impl Drop for LentBlob<'_> {
    fn drop(&mut self) {
        self.session.give_back(self.place);
    }
}

/// The library's own statements.
#[derive(Debug)]
struct Own {
    fixed: [Prepared; TEXTS.len()],
    schemas: Vec<Schema>,
}

/// The schema of the main or an attached file.
#[derive(Debug)]
struct Schema {
    name: CString,
    is_writable: bool,
    /// `PRAGMA schema_version`: another value than before means that the schema has changed.
    version: Prepared,
    /// Reads the schema table, for which SQLite loads a schema that has changed.
    load: Prepared,
    seen: Cell<Option<i64>>,
}

/// What a closure is given to work on, as it takes it.
pub(crate) trait View: 'static {
    type Ref<'v>;
}

/// A closure on the stack of a thread that waits in [`lend`]; for other threads.
pub(crate) struct Borrowed<V: View, E> {
    gate: Arc<Gate>,
    closure: NonNull<()>,
    run: for<'v> unsafe fn(NonNull<()>, V::Ref<'v>) -> Result<(), E>,
}

// SAFETY: the closure behind the pointer is `Send`, which `lend` asks for, and the gate lets one thread at a
// time have it.
unsafe impl<V: View, E> Send for Borrowed<V, E> {}

impl<V: View, E> Borrowed<V, E> {
    /// Runs the closure.
    ///
    /// # Panics
    /// If the thread that lent it does not wait any more: no call runs after it was answered.
    pub(crate) fn run(&self, view: V::Ref<'_>) -> Result<(), E> {
        let _inside = self.gate.enter().expect("a call runs only while its caller waits for it");
        // SAFETY: `run` was made for the type of this closure. The closure is there, and nobody else touches it: `lend`
        // keeps it where it is until its gate is closed, which happens when nobody is inside, and we are.
        unsafe { (self.run)(self.closure, view) }
    }
}

/// The type `T`, lifetimes aside.
pub(crate) fn type_id<T>() -> TypeId {
    trait Ask {
        fn ask(&self) -> TypeId
        where
            Self: 'static;
    }

    impl<T> Ask for PhantomData<T> {
        fn ask(&self) -> TypeId
        where
            Self: 'static,
        {
            TypeId::of::<T>()
        }
    }

    let kind: &dyn Ask = &PhantomData::<T>;
    // SAFETY: only lifetimes change; what is asked is the same for all of them, and reads nothing of a `T`.
    let kind = unsafe { mem::transmute::<&dyn Ask, &(dyn Ask + 'static)>(kind) };
    kind.ask()
}

/// Has `wait` run `f`, on whatever thread, as often as it likes until it returns; gives the value of the last run.
///
/// Neither `f` nor what it returns need outlive this call: however `wait` ends, a run that is under way is waited
/// for, and none begins afterwards. What `wait` answers with `Ok` has been run.
pub(crate) fn lend<V: View, T: Send, E, R>(
    mut f: impl for<'v> FnMut(V::Ref<'v>) -> Result<T, E> + Send,
    wait: impl FnOnce(Borrowed<V, E>) -> Result<(), R>,
) -> Result<T, R> {
    let mut value = None;
    lend_closure::<V, E, _, _>(
        |view: V::Ref<'_>| {
            // That of an earlier run, which was undone.
            value = None;
            value = Some(f(view)?);
            Ok(())
        },
        wait,
    )?;
    Ok(value.expect("a call that was answered has run"))
}

fn lend_closure<V, E, F, R>(mut closure: F, wait: impl FnOnce(Borrowed<V, E>) -> R) -> R
where
    V: View,
    F: for<'v> FnMut(V::Ref<'v>) -> Result<(), E> + Send,
{
    /// Closes the gate before the closure goes, also when `wait` panics.
    struct Close(Arc<Gate>);

    impl Drop for Close {
        fn drop(&mut self) {
            self.0.close();
        }
    }

    /// # Safety
    /// `closure` points to an `F` that nobody else touches meanwhile.
    unsafe fn run<V, E, F>(closure: NonNull<()>, view: V::Ref<'_>) -> Result<(), E>
    where
        V: View,
        F: for<'v> FnMut(V::Ref<'v>) -> Result<(), E>,
    {
        // SAFETY: what the caller vouches for.
        (unsafe { closure.cast::<F>().as_mut() })(view)
    }

    let closure = NonNull::from(&mut closure).cast();
    // This function touches the closure no more: its parameter is dropped after this guard.
    let close = Close(Arc::new(Gate::new()));
    wait(Borrowed { gate: Arc::clone(&close.0), closure, run: run::<V, E, F> })
}

/// Names the library's own statements; the order is that of [`TEXTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sql {
    BeginImmediate,
    Begin,
    Commit,
    Rollback,
    Savepoint,
    Release,
    RollbackTo,
    /// A savepoint of the caller's own, inside the call's.
    Nest,
    Unnest,
    RollbackToNest,
    /// Reads the schema table's first page, which takes the snapshot of a transaction.
    Pin,
    /// Changes when another connection has committed.
    DataVersion,
}

const TEXTS: [&CStr; 12] = [
    c"BEGIN IMMEDIATE",
    c"BEGIN",
    c"COMMIT",
    c"ROLLBACK",
    c"SAVEPOINT lockkeeper_call",
    c"RELEASE lockkeeper_call",
    c"ROLLBACK TO lockkeeper_call",
    c"SAVEPOINT lockkeeper_nested",
    c"RELEASE lockkeeper_nested",
    c"ROLLBACK TO lockkeeper_nested",
    c"SELECT 1 FROM sqlite_schema LIMIT 1",
    c"PRAGMA data_version",
];

/// Two numbers in the header of a WAL that tell one generation of it from the next.
pub(crate) type WalSalts = [u8; 8];

/// Where they are in the header.
const SALTS_OFFSET: i64 = 16;

#[derive(Debug)]
struct Prepared(NonNull<ffi::sqlite3_stmt>);

// SAFETY: rusqlite refuses to open a connection on a SQLite compiled single-threaded, and in the
// other modes a statement may move between threads as long as one thread at a time uses it. A
// `Prepared` is owned by its `Session`, which is not `Sync`, and moves with its connection only.
unsafe impl Send for Prepared {}

impl Prepared {
    fn new(conn: &Connection, sql: &CStr) -> Result<Self, Error> {
        let mut statement = ptr::null_mut();
        // SAFETY: the handle is open as long as `conn` is borrowed; `sql` ends with a NUL, which
        // -1 tells SQLite to look for; both out pointers are valid or null as the C API allows.
        let code = unsafe {
            let flags = ffi::SQLITE_PREPARE_PERSISTENT;
            let (db, text) = (conn.handle(), sql.as_ptr());
            ffi::sqlite3_prepare_v3(db, text, -1, flags, &raw mut statement, ptr::null_mut())
        };
        match NonNull::new(statement) {
            Some(statement) if code == ffi::SQLITE_OK => Ok(Self(statement)),
            _ => Err(failure(conn, code)),
        }
    }

    /// Steps once and resets; the first column of the row, if there is one.
    fn integer(&self) -> Option<i64> {
        // SAFETY: as in `run`; the column is read while the statement stands on its row.
        unsafe {
            let row = ffi::sqlite3_step(self.0.as_ptr()) == ffi::SQLITE_ROW;
            let value = row.then(|| ffi::sqlite3_column_int64(self.0.as_ptr(), 0));
            ffi::sqlite3_reset(self.0.as_ptr());
            value
        }
    }

    /// Steps once and resets; a row that is returned is ignored.
    fn run(&self, conn: &Connection) -> Result<(), Error> {
        // SAFETY: the statement is not finalized before `self` is dropped, and this thread has the
        // session to itself.
        let code = unsafe { ffi::sqlite3_step(self.0.as_ptr()) };
        let result = match code {
            ffi::SQLITE_DONE | ffi::SQLITE_ROW => Ok(()),
            code => Err(failure(conn, code)),
        };
        // SAFETY: as above. The code repeats the error of the step, which `result` already holds.
        unsafe { ffi::sqlite3_reset(self.0.as_ptr()) };
        result
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: `Session` finalizes its statements before it closes or hands out its connection,
        // so the statement is still valid, and nobody uses it afterwards.
        unsafe { ffi::sqlite3_finalize(self.0.as_ptr()) };
    }
}

fn failure(conn: &Connection, code: c_int) -> Error {
    // SAFETY: the handle is open; the message is copied before anything else is called on it.
    let message = unsafe {
        let text = ffi::sqlite3_errmsg(conn.handle());
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    Error::SqliteFailure(ffi::Error::new(code), message)
}

/// The name under which a mark is kept at each connection that the library opened.
const MARK: &CStr = c"lockkeeper";

impl Session {
    /// Takes care of `conn` from now on. The library's own statements are still to be prepared.
    pub(crate) fn new(conn: Connection) -> Self {
        static NEXT_MARK: AtomicUsize = AtomicUsize::new(1);
        let mark = NEXT_MARK.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the handle is open, the name ends with a NUL. The mark is a pointer that nobody follows,
        // and has no destructor. Without memory there is no mark: then `lend` has the session replaced.
        unsafe {
            let pointer = ptr::without_provenance_mut(mark);
            ffi::sqlite3_set_clientdata(conn.handle(), MARK.as_ptr(), pointer, None);
        }
        Self {
            own: None,
            lent: RefCell::default(),
            conn: ManuallyDrop::new(Box::new(conn)),
            hooked: RefCell::new(None),
            schemas_seen: Cell::new(false),
            guarded: None,
            pid: process::id(),
            mark,
        }
    }

    /// Prepares the library's own statements.
    pub(crate) fn prepare(&mut self) -> Result<(), Error> {
        let prepared: Result<Vec<_>, _> =
            TEXTS.iter().map(|sql| Prepared::new(&self.conn, sql)).collect();
        let fixed = prepared?.try_into().expect("one statement per text");
        let mut names = self.conn.prepare("SELECT name FROM pragma_database_list")?;
        let names = names.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
        // The temporary schema is nobody's but this connection's.
        let schemas = names.iter().filter(|name| *name != "temp");
        let schemas =
            schemas.map(|name| Schema::new(&self.conn, name)).collect::<Result<_, _>>()?;
        self.own = Some(Own { fixed, schemas });
        Ok(())
    }

    /// Whether a schema has changed since this was asked in an earlier transaction; if so, SQLite has
    /// loaded it. Takes the snapshot of the transaction.
    pub(crate) fn has_new_schema(&self) -> bool {
        let Some(own) = self.own.as_ref().filter(|_| !self.schemas_seen.get()) else {
            return false;
        };
        let (mut new, mut all) = (false, true);
        for Schema { version, load, seen, .. } in &own.schemas {
            let now = version.integer();
            // What cannot be read now is told by the statement that needs it.
            all &= now.is_some();
            if now.is_some() && now != seen.get() && load.run(&self.conn).is_ok() {
                seen.set(now);
                new = true;
            }
        }
        self.schemas_seen.set(all);
        new
    }

    /// Sets what `last_insert_rowid` tells until a row is inserted.
    pub(crate) fn set_last_insert_rowid(&self, id: i64) {
        // SAFETY: the handle is open, and this thread has the connection to itself.
        unsafe { ffi::sqlite3_set_last_insert_rowid(self.conn.handle(), id) };
    }

    pub(crate) fn conn(&self) -> &Connection {
        &self.conn
    }

    /// For what rusqlite wants to have the connection alone. Whoever has this must leave the connection where it is.
    pub(crate) fn conn_mut(&mut self) -> &mut Connection {
        self.take_back();
        &mut self.conn
    }

    /// Lends the connection itself to `f`. Then `restore` puts its settings right, and the library's statements
    /// are prepared anew.
    ///
    /// An error means that the session must be replaced: they could not be prepared, or `f` has put
    /// another connection in the place of this one, which has none of its settings.
    pub(crate) fn lend<T>(
        &mut self,
        f: impl FnOnce(&mut Connection) -> T,
        restore: impl FnOnce(&mut Self),
    ) -> (T, Result<(), Error>) {
        self.take_back();
        self.own = None;
        self.hook_rows(None);
        let value = f(&mut self.conn);
        // Another connection has another mark or none, also one that was opened where this one had been in
        // memory, and one that another database had.
        // SAFETY: the handle is open, the name ends with a NUL.
        let mark = unsafe { ffi::sqlite3_get_clientdata(self.conn.handle(), MARK.as_ptr()) };
        if mark.addr() != self.mark {
            // Whoever has the connection now may use it for as long as the process lives, and its hooks still
            // point to the guard.
            mem::forget(self.guarded.take());
            return (value, Err(failure(&self.conn, ffi::SQLITE_MISUSE)));
        }
        restore(self);
        (value, self.prepare())
    }

    /// Prepares a statement for a call.
    pub(crate) fn prepare_plain(&self, sql: &str) -> Result<Lent<'_>, Error> {
        Ok(self.keep_plain(self.conn.prepare(sql)?))
    }

    /// Prepares a statement for a call, or takes it from the cache.
    pub(crate) fn prepare_cached(&self, sql: &str) -> Result<Lent<'_>, Error> {
        let statement = self.conn.prepare_cached(sql)?;
        // SAFETY: as in `keep_plain`.
        let statement =
            unsafe { mem::transmute::<CachedStatement<'_>, CachedStatement<'static>>(statement) };
        Ok(Lent { session: self, place: self.keep(Kept::Cached(statement)) })
    }

    /// Keeps a statement of this session's connection for a call.
    pub(crate) fn keep_plain<'c>(&'c self, statement: Statement<'c>) -> Lent<'c> {
        // SAFETY: the statement refers to the connection, which is in a box of its own. It is dropped by its
        // `Lent`, which borrows the session, or by `take_back`: before anybody has the connection
        // exclusively, and before it is closed.
        let statement = unsafe { mem::transmute::<Statement<'_>, Statement<'static>>(statement) };
        Lent { session: self, place: self.keep(Kept::Plain(statement)) }
    }

    /// Opens a blob for a call.
    pub(crate) fn blob_open<D: Name, N: Name>(
        &self,
        schema: D,
        table: N,
        column: N,
        rowid: i64,
        read_only: bool,
    ) -> Result<LentBlob<'_>, Error> {
        let blob = self.conn.blob_open(schema, table, column, rowid, read_only)?;
        // SAFETY: as in `keep_plain`.
        let blob = unsafe { mem::transmute::<Blob<'_>, Blob<'static>>(blob) };
        Ok(LentBlob { session: self, place: self.keep(Kept::Blob(blob)) })
    }

    fn keep(&self, kept: Kept) -> NonNull<Place> {
        let mut places = self.lent.borrow_mut();
        let place = places.spare.pop();
        let place = place.unwrap_or_else(|| NonNull::from(Box::leak(Box::new(None))));
        // SAFETY: a place that is in neither list belongs to who took it out, and is valid.
        unsafe { place.write(Some(kept)) };
        places.used.push(place);
        place
    }

    /// Takes a place out of the list and ends what is in it.
    fn give_back(&self, place: NonNull<Place>) {
        {
            let used = &mut self.lent.borrow_mut().used;
            if let Some(index) = used.iter().rposition(|other| *other == place) {
                used.swap_remove(index);
            }
        }
        self.empty(place);
    }

    /// Drops what is in a place that was taken out of the list, and keeps the place or frees it.
    fn empty(&self, mut place: NonNull<Place>) {
        // SAFETY: a place that is in neither list belongs to who took it out. The list is not borrowed: to end
        // a statement may run code of the caller's, such as the destructor of a function's data.
        drop(unsafe { place.as_mut() }.take());
        let spare = &mut self.lent.borrow_mut().spare;
        match spare.len() < SPARE_PLACES {
            true => spare.push(place),
            // SAFETY: it was made by `Box::leak`, and nothing points to it any more.
            false => drop(unsafe { Box::from_raw(place.as_ptr()) }),
        }
    }

    /// Drops the statements and blobs that calls have forgotten. To be called when no call runs.
    pub(crate) fn take_back(&self) {
        loop {
            let Some(mut place) = self.lent.borrow_mut().used.pop() else { return };
            // SAFETY: no `Lent` is left that points to it but a forgotten one.
            if let Some(Kept::Cached(statement)) = unsafe { place.as_mut() } {
                // As in the drop of `Lent`.
                drop(statement.raw_query());
            }
            self.empty(place);
        }
    }

    /// Runs one of the library's own statements.
    pub(crate) fn run(&self, sql: Sql) -> Result<(), Error> {
        if matches!(sql, Sql::Begin | Sql::BeginImmediate) {
            self.schemas_seen.set(false);
        }
        match &self.own {
            Some(own) => own.fixed[sql as usize].run(&self.conn),
            // The statements could not be prepared again after a `lend`.
            None => Err(failure(&self.conn, ffi::SQLITE_MISUSE)),
        }
    }

    /// `PRAGMA data_version`: another value than before means that another connection committed.
    pub(crate) fn data_version(&self) -> Option<i64> {
        self.own.as_ref().and_then(|own| own.fixed[Sql::DataVersion as usize].integer())
    }

    /// The salts of the main file's WAL; `None`: there is no WAL yet, or it cannot be read.
    ///
    /// They are others whenever the WAL starts over (<https://www.sqlite.org/fileformat2.html>,
    /// section 4.1). To be called between two transactions or after a COMMIT: a commit that starts
    /// the WAL over has written them when it returns.
    pub(crate) fn wal_salts(&self) -> Option<WalSalts> {
        let mut salts: WalSalts = [0; 8];
        let read =
            read_file(&self.conn, ffi::SQLITE_FCNTL_JOURNAL_POINTER, &mut salts, SALTS_OFFSET);
        read.then_some(salts)
    }

    /// Has each changed row told to `recorder`, or to nobody.
    pub(crate) fn hook_rows(&self, recorder: Option<&Arc<Recorder>>) {
        let recorder = recorder.map(Arc::clone);
        let (hook, argument): (RowHook, *mut c_void) = match &recorder {
            Some(recorder) => (Some(on_row), Arc::as_ptr(recorder).cast_mut().cast()),
            None => (None, ptr::null_mut()),
        };
        // SAFETY: the handle is open. The argument stays valid as long as the hook is on: `hooked`
        // keeps the recorder alive until the next call of this function, or until the connection,
        // declared before it, has been closed.
        unsafe { ffi::sqlite3_update_hook(self.conn.handle(), hook, argument) };
        *self.hooked.borrow_mut() = recorder;
    }

    /// Has `guard` asked when a lock must be waited for and, with `wal`, told of each commit.
    pub(crate) fn install(&mut self, guard: &Arc<Guard>, wal: bool) -> Result<(), Error> {
        let argument = Arc::as_ptr(guard).cast_mut().cast::<c_void>();
        // SAFETY: the handle is open. The argument stays valid as long as the handlers are on: `guarded`,
        // declared after the connection, keeps the guard alive until it has been closed; one that was there
        // before is let go only after its handlers were replaced; and `lend` forgets it if the
        // connection was taken away.
        let code = unsafe {
            let db = self.conn.handle();
            let code = ffi::sqlite3_busy_handler(db, Some(on_busy), argument);
            if wal {
                ffi::sqlite3_wal_hook(db, Some(on_wal), argument);
            }
            code
        };
        if let Some(before) = self.guarded.replace(Arc::clone(guard))
            && !Arc::ptr_eq(&before, guard)
        {
            // Without `wal` its WAL hook may still be on.
            mem::forget(before);
        }
        match code {
            ffi::SQLITE_OK => Ok(()),
            code => Err(failure(&self.conn, code)),
        }
    }

    /// Whether a transaction is open, on any of the connection's files: it holds a snapshot or a lock.
    pub(crate) fn in_transaction(&self) -> bool {
        // SAFETY: the handle is open; a null name means all files.
        unsafe { ffi::sqlite3_txn_state(self.conn.handle(), ptr::null()) != ffi::SQLITE_TXN_NONE }
    }

    /// Copies the WALs of all files that can be written back; whether all of the main file's was copied, and nobody
    /// was in the way of the others.
    ///
    /// A file that is attached to be read may have a WAL; asked to copy all, SQLite tries that one too, and fails.
    pub(crate) fn checkpoint(&self, mode: Checkpoint) -> Result<bool, Error> {
        let mut complete = true;
        let schemas = self.own.iter().flat_map(|own| &own.schemas);
        for Schema { name, .. } in schemas.filter(|schema| schema.is_writable) {
            let (mut frames, mut copied) = (-1, -1);
            // SAFETY: the handle is open, the name ends with a NUL, and both out pointers are valid.
            let code = unsafe {
                let (db, name) = (self.conn.handle(), name.as_ptr());
                let (frames, copied) = (&raw mut frames, &raw mut copied);
                ffi::sqlite3_wal_checkpoint_v2(db, name, mode as c_int, frames, copied)
            };
            match code & 0xff {
                ffi::SQLITE_OK => complete &= frames == copied || name.as_c_str() != c"main",
                // Somebody else copies, or writes, and does it when that is done.
                ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => complete = false,
                _ => return Err(failure(&self.conn, code)),
            }
        }
        Ok(complete)
    }

    /// Whether a deferred foreign key is violated at this moment.
    pub(crate) fn has_deferred_violation(&self) -> bool {
        let (mut current, mut highest) = (0, 0);
        // SAFETY: the handle is open and both out pointers are valid.
        let code = unsafe {
            let db = self.conn.handle();
            let op = ffi::SQLITE_DBSTATUS_DEFERRED_FKS;
            ffi::sqlite3_db_status(db, op, &raw mut current, &raw mut highest, 0)
        };
        code == ffi::SQLITE_OK && current != 0
    }

    /// Resets every statement that stands on a row; for what was leaked through the bare connection.
    ///
    /// Among them may be statements of virtual tables whose cursors are open. To reset one is allowed to
    /// whoever has the connection: it stays valid, and its owner resets or finalizes it as usual. The owner
    /// would notice only in the middle of a step; its cursors end here as well, because the statements that
    /// opened them stand on a row themselves.
    pub(crate) fn halt_statements(&self) {
        halt(&self.conn);
    }

    /// The extended code of the last failure on this connection.
    pub(crate) fn last_code(&self) -> c_int {
        // SAFETY: the handle is open.
        unsafe { ffi::sqlite3_extended_errcode(self.conn.handle()) }
    }
}

impl Schema {
    fn new(conn: &Connection, name: &str) -> Result<Self, Error> {
        let quoted = name.replace('"', "\"\"");
        let is_writable = !conn.is_readonly(name)?;
        let prepare = |sql: String| Prepared::new(conn, &CString::new(sql)?);
        Ok(Self {
            name: CString::new(name)?,
            is_writable,
            version: prepare(format!("PRAGMA \"{quoted}\".schema_version"))?,
            load: prepare(format!("SELECT 1 FROM \"{quoted}\".sqlite_schema LIMIT 1"))?,
            seen: Cell::new(None),
        })
    }
}

/// How far a checkpoint goes (<https://www.sqlite.org/c3ref/wal_checkpoint_v2.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Checkpoint {
    /// Waits for nobody.
    Passive = ffi::SQLITE_CHECKPOINT_PASSIVE,
    /// Waits for writers, and for readers of older states.
    Full = ffi::SQLITE_CHECKPOINT_FULL,
    /// And until nobody reads the WAL, so that it can start over.
    Restart = ffi::SQLITE_CHECKPOINT_RESTART,
    /// And cuts it to nothing.
    Truncate = ffi::SQLITE_CHECKPOINT_TRUNCATE,
}

type SqlFunction =
    unsafe extern "C" fn(*mut ffi::sqlite3_context, c_int, *mut *mut ffi::sqlite3_value);

/// Has the SQL functions `changes` and `total_changes` tell a call of its own changes alone.
pub(crate) fn count_by_call(conn: &Connection, counters: &Arc<Counters>) -> Result<(), Error> {
    let functions: [(&CStr, SqlFunction); 2] =
        [(c"changes", changes), (c"total_changes", total_changes)];
    for (name, function) in functions {
        let counters = Arc::into_raw(Arc::clone(counters)).cast_mut().cast();
        // SAFETY: the handle is open and the name ends with a NUL. SQLite calls `forget` for the
        // reference that `into_raw` gave away exactly once: when the function is replaced, when the
        // connection is closed, or when this call fails.
        let code = unsafe {
            let flags = ffi::SQLITE_UTF8 | ffi::SQLITE_INNOCUOUS;
            let (db, name) = (conn.handle(), name.as_ptr());
            let (call, last) = (Some(function), Some(forget as Forget));
            ffi::sqlite3_create_function_v2(db, name, 0, flags, counters, call, None, None, last)
        };
        if code != ffi::SQLITE_OK {
            return Err(failure(conn, code));
        }
    }
    Ok(())
}

type Forget = unsafe extern "C" fn(*mut c_void);

unsafe extern "C" fn forget(counters: *mut c_void) {
    // SAFETY: the pointer came from `Arc::into_raw`, and SQLite calls this once for it.
    drop(unsafe { Arc::from_raw(counters.cast_const().cast::<Counters>()) });
}

unsafe extern "C" fn changes(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: SQLite passes the context of a function that `count_by_call` registered, whose user data is
    // a `Counters` that lives as long as the function; nothing here can panic.
    unsafe {
        let counters = &*ffi::sqlite3_user_data(context).cast_const().cast::<Counters>();
        let db = ffi::sqlite3_context_db_handle(context);
        let (all, last) = (ffi::sqlite3_total_changes64(db), ffi::sqlite3_changes64(db));
        let changes = counters.changes(all.cast_unsigned(), last.cast_unsigned());
        ffi::sqlite3_result_int64(context, changes.cast_signed());
    }
}

unsafe extern "C" fn total_changes(
    context: *mut ffi::sqlite3_context,
    _: c_int,
    _: *mut *mut ffi::sqlite3_value,
) {
    // SAFETY: as in `changes`.
    unsafe {
        let counters = &*ffi::sqlite3_user_data(context).cast_const().cast::<Counters>();
        let all = ffi::sqlite3_total_changes64(ffi::sqlite3_context_db_handle(context));
        ffi::sqlite3_result_int64(context, counters.total(all.cast_unsigned()).cast_signed());
    }
}

/// The first bytes of the main file of `conn`; `None`: it is shorter.
pub(crate) fn first_bytes(conn: &Connection) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    read_file(conn, ffi::SQLITE_FCNTL_FILE_POINTER, &mut bytes, 0).then_some(bytes)
}

/// Reads `bytes` at `offset` of the file that the operation `op` names, by SQLite's own means: to close a
/// descriptor of our own would drop the process's locks on the file. False: they are not there.
fn read_file(conn: &Connection, op: c_int, bytes: &mut [u8], offset: i64) -> bool {
    let mut file: *mut ffi::sqlite3_file = ptr::null_mut();
    let Ok(length) = c_int::try_from(bytes.len()) else { return false };
    // SAFETY: the handle is open, and both operations that are asked for store one pointer into `file`. What it
    // points to belongs to the connection, which this thread has to itself, and which neither closes nor
    // replaces it between the two calls. Its methods are null unless it is open; `xRead`, which every VFS
    // has, writes `length` bytes at most to `bytes`.
    unsafe {
        let argument = (&raw mut file).cast::<c_void>();
        let code = ffi::sqlite3_file_control(conn.handle(), c"main".as_ptr(), op, argument);
        let methods = file.as_ref().and_then(|file| file.pMethods.as_ref());
        match methods.and_then(|methods| methods.xRead) {
            Some(read) if code == ffi::SQLITE_OK => {
                read(file, bytes.as_mut_ptr().cast(), length, offset) == ffi::SQLITE_OK
            }
            _ => false,
        }
    }
}

type RowHook = Option<unsafe extern "C" fn(*mut c_void, c_int, *const c_char, *const c_char, i64)>;

/// SQLite's update hook. Nothing may unwind into C, so a panic ends here: the row goes unnamed.
unsafe extern "C" fn on_row(
    recorder: *mut c_void,
    action: c_int,
    schema: *const c_char,
    table: *const c_char,
    rowid: i64,
) {
    // SAFETY: `hook_rows` passed a pointer to a `Recorder` that outlives the hook, and it is only
    // shared; SQLite passes two names that end with a NUL and live as long as this call.
    let (recorder, schema, table) =
        unsafe { (&*recorder.cast::<Recorder>(), CStr::from_ptr(schema), CStr::from_ptr(table)) };
    let _ = catch_unwind(AssertUnwindSafe(|| recorder.row(action, schema, table, rowid)));
}

/// SQLite's busy handler. Nothing may unwind into C, so a panic ends here, and with it the wait.
unsafe extern "C" fn on_busy(guard: *mut c_void, attempt: c_int) -> c_int {
    // SAFETY: `install` passed a pointer to a `Guard` that outlives the handler, and it is only shared.
    let guard = unsafe { &*guard.cast::<Guard>() };
    catch_unwind(AssertUnwindSafe(|| c_int::from(guard.wait_for_lock(attempt)))).unwrap_or(0)
}

/// SQLite's WAL hook, called after each commit.
unsafe extern "C" fn on_wal(
    guard: *mut c_void,
    _db: *mut ffi::sqlite3,
    schema: *const c_char,
    frames: c_int,
) -> c_int {
    // SAFETY: as in `on_busy`; SQLite passes a name that ends with a NUL and lives as long as this call.
    let (guard, schema) = unsafe { (&*guard.cast::<Guard>(), CStr::from_ptr(schema)) };
    let _ = catch_unwind(AssertUnwindSafe(|| guard.committed(schema, frames)));
    ffi::SQLITE_OK
}

/// Whether all page caches of the process share one lock: two readers are then no faster than one.
pub(crate) fn shares_page_caches() -> bool {
    // SAFETY: the name ends with a NUL and is only read. The function needs no connection.
    unsafe { ffi::sqlite3_compileoption_used(c"ENABLE_MEMORY_MANAGEMENT".as_ptr()) != 0 }
}

impl Drop for Session {
    fn drop(&mut self) {
        if process::id() != self.pid {
            // The connection is the parent's: to close it would touch the file. The hook keeps its target.
            mem::forget(self.own.take());
            mem::forget(self.hooked.take());
            mem::forget(self.guarded.take());
            return;
        }
        self.take_back();
        self.own = None;
        for place in mem::take(&mut self.lent.borrow_mut().spare) {
            // SAFETY: it was made by `Box::leak`, and nothing points to it any more.
            drop(unsafe { Box::from_raw(place.as_ptr()) });
        }
        self.conn.flush_prepared_statement_cache();
        self.disarm();
        // SAFETY: taken once, here; nothing uses the field afterwards.
        let conn = unsafe { ManuallyDrop::take(&mut self.conn) };
        // It disconnects the virtual tables, which finalize their statements, before it looks for others.
        if let Err((conn, _)) = conn.close() {
            // It may have to stay as it is, and its handlers with it.
            mem::forget(self.guarded.take());
            close_leaky(conn);
        }
    }
}

impl Session {
    /// Ends the transaction and takes the hooks off.
    ///
    /// rusqlite has SQLite free its hooks at closing, and SQLite rolls an open transaction back only after
    /// that: it would call the rollback hook that `setup` or an exclusive call may have set.
    fn disarm(&mut self) {
        self.hook_rows(None);
        // They fail only for want of memory, which taking something off does not need.
        let _ = self.conn.authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
        if !self.conn.is_autocommit() && self.conn.execute_batch("ROLLBACK").is_err() {
            self.halt_statements();
            let _ = self.conn.execute_batch("ROLLBACK");
        }
        let _ = self.conn.rollback_hook(None::<fn()>);
        let _ = self.conn.commit_hook(None::<fn() -> bool>);
        let _ = self.conn.update_hook(None::<fn(Action, &str, &str, i64)>);
    }
}

/// See [`Session::halt_statements`].
fn halt(conn: &Connection) {
    let mut statement = ptr::null_mut();
    loop {
        // SAFETY: the handle is open, and this thread has the connection to itself. To reset a statement
        // may finalize others, of its cursors, but never itself, so it is valid when the next is asked for.
        unsafe {
            statement = ffi::sqlite3_next_stmt(conn.handle(), statement);
            if statement.is_null() {
                return;
            }
            if ffi::sqlite3_stmt_busy(statement) != 0 {
                ffi::sqlite3_reset(statement);
            }
        }
    }
}

/// Closes a connection of which something was leaked through the bare connection: a statement, perhaps.
///
/// Closing has failed, and disconnected every virtual table that no statement uses. What is listed now is
/// the leaked ones and, if those use virtual tables, the statements of these as well, which nothing tells
/// apart: then the connection stays as it is, for ever, but pins no snapshot and holds no lock.
fn close_leaky(conn: Connection) {
    halt(&conn);
    if may_use_virtual_tables(&conn) {
        mem::forget(conn);
        return;
    }
    // To look at the statements may have connected virtual tables anew.
    let Err((conn, _)) = conn.close() else { return };
    loop {
        // SAFETY: the handle is open. No virtual table is connected, so each listed statement was leaked:
        // nobody can use it any more.
        unsafe {
            let leaked = ffi::sqlite3_next_stmt(conn.handle(), ptr::null_mut());
            if leaked.is_null() {
                break;
            }
            ffi::sqlite3_finalize(leaked);
        }
    }
    // What is left is no statement: a backup.
    let _ = conn.close().map_err(|(conn, _)| mem::forget(conn));
}

/// Whether a program of one of the listed statements, all at rest, has an instruction on a virtual table.
fn may_use_virtual_tables(conn: &Connection) -> bool {
    let mut statement = ptr::null_mut();
    loop {
        // SAFETY: the handle is open, and this thread has the connection to itself. From here on the statement
        // lists its program instead of running it; the one that it keeps is the one that is listed. Its text is
        // read before the next step.
        unsafe {
            statement = ffi::sqlite3_next_stmt(conn.handle(), statement);
            if statement.is_null() {
                return false;
            }
            // Fails if it had to be prepared again and could not.
            let mut code = ffi::sqlite3_stmt_explain(statement, 1);
            if code == ffi::SQLITE_OK {
                code = ffi::sqlite3_step(statement);
            }
            while code == ffi::SQLITE_ROW {
                let opcode = ffi::sqlite3_column_text(statement, 1);
                if opcode.is_null() || is_of_virtual_table(CStr::from_ptr(opcode.cast())) {
                    break;
                }
                code = ffi::sqlite3_step(statement);
            }
            ffi::sqlite3_reset(statement);
            if code != ffi::SQLITE_DONE {
                return true;
            }
        }
    }
}

/// <https://www.sqlite.org/opcode.html>: `VOpen`, `VUpdate`, ...; others with this letter have a small second one.
fn is_of_virtual_table(opcode: &CStr) -> bool {
    matches!(opcode.to_bytes(), [b'V', b'A'..=b'Z', ..])
}

/// The number of this process; after a fork the child's.
///
/// It is kept in a page that a forked child finds filled with zeros (`MADV_WIPEONFORK`, madvise(2), since
/// Linux 4.14). Where there is no such page, the kernel is asked each time.
#[cfg(target_os = "linux")]
pub(crate) fn process_id() -> u32 {
    /// Stands for a page that could not be had.
    static NONE: AtomicU32 = AtomicU32::new(0);
    /// Null: not asked for yet. A lock instead would never be free in a child whose parent held it.
    static PAGE: AtomicPtr<AtomicU32> = AtomicPtr::new(ptr::null_mut());
    let mut page = PAGE.load(Ordering::Acquire);
    if page.is_null() {
        page = wiped_page().map_or(ptr::from_ref(&NONE).cast_mut(), NonNull::as_ptr);
        // Of two threads that were here at once one loses a page.
        PAGE.store(page, Ordering::Release);
    }
    // SAFETY: `page` is `NONE` or what `wiped_page` returned: aligned, valid for as long as the process lives,
    // zero at first, and only ever used as this atomic.
    let kept = unsafe { &*page };
    match kept.load(Ordering::Relaxed) {
        0 => {
            let id = std::process::id();
            if !ptr::eq(page, &NONE) {
                kept.store(id, Ordering::Relaxed);
            }
            id
        }
        id => id,
    }
}

/// A page of its own, never given back.
#[cfg(target_os = "linux")]
fn wiped_page() -> Option<NonNull<AtomicU32>> {
    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};
    let length = rustix::param::page_size();
    // SAFETY: a new mapping at a place of the kernel's choice changes no memory that is in use; advice and
    // unmapping are for this mapping alone, which nobody else knows yet.
    unsafe {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        let page = mmap_anonymous(ptr::null_mut(), length, access, MapFlags::PRIVATE).ok()?;
        if madvise(page, length, Advice::LinuxWipeOnFork).is_err() {
            let _ = munmap(page, length);
            return None;
        }
        NonNull::new(page.cast())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_known_without_asking_for_it_each_time() {
        for _ in 0..3 {
            assert_eq!(process_id(), std::process::id());
        }
    }
}

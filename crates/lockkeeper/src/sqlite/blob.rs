//! Blobs that a call reads and writes piece by piece.
//!
//! SQLite calls neither the authorizer nor the progress handler nor the update hook for operations on a blob. So each
//! operation makes the checks that a statement makes, and this module reports the table to the change feed and to live
//! queries. The session closes blobs that a call leaks (`ffi/lent.rs`), because a COMMIT fails while a blob is open for
//! writing, and a blob that is open for reading keeps its snapshot open.

use std::io;

use rusqlite::{Connection, Name, Result};

use super::link::Link;
use super::pragma::quoted;
#[cfg(doc)]
use super::snapshot::Snapshot;
use crate::ffi::LentBlob;

/// A blob that is read, or written in place, piece by piece; see [`Snapshot::blob_open`].
///
/// It offers what `rusqlite::blob::Blob` offers. Its size cannot change: make room with `zeroblob(n)` or
/// `rusqlite::blob::ZeroBlob`. A blob that the call leaks is closed when the call ends. If the row is changed by other
/// means while the blob is open, every further operation on the blob fails (`SQLITE_ABORT`).
///
/// # Examples
/// ```
/// # let db = lockkeeper::Database::blocking_open(":memory:")?;
/// use std::io::{Read, Seek, Write};
///
/// let text = db.blocking_write(|tx| {
///     tx.execute_batch("CREATE TABLE file (id INTEGER PRIMARY KEY, data BLOB)")?;
///     tx.execute("INSERT INTO file (data) VALUES (zeroblob(11))", [])?;
///     let mut blob = tx.blob_open("main", "file", "data", tx.last_insert_rowid(), false)?;
///     let mut text = String::new();
///     (|| {
///         write!(blob, "hello world")?;
///         blob.rewind()?;
///         blob.read_to_string(&mut text)
///     })()
///     .map_err(|error: std::io::Error| lockkeeper::rusqlite::Error::ToSqlConversionFailure(error.into()))?;
///     Ok(text)
/// })?;
/// assert_eq!(text, "hello world");
/// # Ok::<_, lockkeeper::Error>(())
/// ```
pub struct Blob<'c>(Inner<'c>);

enum Inner<'c> {
    OfCall {
        blob: LentBlob<'c>,
        link: &'c Link,
        /// The schema and table for the change feed; `None`: the feed has no subscribers, or the blob is read-only.
        told: Option<(String, String)>,
    },
    /// A blob of a bare connection.
    Bare(rusqlite::blob::Blob<'c>),
}

impl<'c> Blob<'c> {
    pub(super) fn open<D: Name, N: Name>(
        link: &'c Link,
        schema: D,
        table: N,
        column: N,
        rowid: i64,
        read_only: bool,
    ) -> Result<Self> {
        link.before_statement(read_only)?;
        let name = schema.as_cstr()?.to_string_lossy().into_owned();
        let of = table.as_cstr()?.to_string_lossy().into_owned();
        link.refresh_schema();
        let blob = link.session.conn().blob_open(schema, table, column, rowid, read_only)?;
        let blob = link.session.keep_blob(blob);
        link.callbacks.note_direct_read(&name, Some(&of));
        let watched = !read_only && link.callbacks.recorder.is_on();
        let told = watched.then(|| spelling(link.session.conn(), &name, &of).unwrap_or((name, of)));
        Ok(Self(Inner::OfCall { blob, link, told }))
    }

    pub(super) fn bare(blob: rusqlite::blob::Blob<'c>) -> Self {
        Self(Inner::Bare(blob))
    }

    fn get(&self) -> &rusqlite::blob::Blob<'c> {
        match &self.0 {
            Inner::OfCall { blob, .. } => blob.get(),
            Inner::Bare(blob) => blob,
        }
    }

    /// The blob, if it may be read now.
    fn reading(&mut self) -> Result<&mut rusqlite::blob::Blob<'c>> {
        self.using(true)
    }

    /// The blob, if it may be written now.
    fn writing(&mut self) -> Result<&mut rusqlite::blob::Blob<'c>> {
        self.using(false)
    }

    fn using(&mut self, read_only: bool) -> Result<&mut rusqlite::blob::Blob<'c>> {
        match &mut self.0 {
            Inner::OfCall { blob, link, told } => {
                link.before_statement(read_only)?;
                if let (false, Some((schema, table))) = (read_only, told) {
                    link.callbacks.recorder.blob_written(schema, table);
                }
                Ok(blob.get_mut())
            }
            Inner::Bare(blob) => Ok(blob),
        }
    }

    /// Moves to the blob of another row of the same table and column, and sets the position to 0.
    ///
    /// # Errors
    /// SQLite's, for a row that is not there or has no blob or text in the column.
    pub fn reopen(&mut self, rowid: i64) -> Result<()> {
        self.reading()?.reopen(rowid)
    }

    /// The number of bytes.
    pub fn size(&self) -> i32 {
        self.get().size()
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.get().len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.get().is_empty()
    }

    /// Closes the blob, as dropping it does, and returns the error, if there is one.
    ///
    /// # Errors
    /// SQLite's; also that of an earlier operation on the blob.
    pub fn close(self) -> Result<()> {
        match self.0 {
            Inner::OfCall { blob, .. } => blob.close(),
            Inner::Bare(blob) => blob.close(),
        }
    }

    /// Reads bytes from `start` on, without regard to the blob's position. Returns the number of bytes that were read.
    ///
    /// # Errors
    /// SQLite's; `BlobSizeError` when `start` is beyond the end.
    pub fn read_at(&mut self, buf: &mut [u8], start: usize) -> Result<usize> {
        self.reading()?.read_at(buf, start)
    }

    /// As [`Blob::read_at`], but it is an error if there are not enough bytes to fill `buf`.
    ///
    /// # Errors
    /// As [`Blob::read_at`].
    pub fn read_at_exact(&mut self, buf: &mut [u8], start: usize) -> Result<()> {
        self.reading()?.read_at_exact(buf, start)
    }

    /// Writes all of `buf` at `start`, without regard to the blob's position.
    ///
    /// # Errors
    /// SQLite's; `BlobSizeError` when `buf` would reach beyond the blob's end; then nothing is written.
    pub fn write_at(&mut self, buf: &[u8], start: usize) -> Result<()> {
        self.writing()?.write_at(buf, start)
    }
}

/// The names of the schema and of the table in the letter case of the change feed; `None`: they cannot be found.
fn spelling(conn: &Connection, schema: &str, table: &str) -> Option<(String, String)> {
    let sql = "SELECT name FROM pragma_database_list WHERE name = ?1 COLLATE NOCASE";
    let schema: String = conn.query_row(sql, [schema], |row| row.get(0)).ok()?;
    let quoted = quoted(&schema, '"');
    let sql = format!("SELECT name FROM {quoted}.sqlite_schema WHERE name = ?1 COLLATE NOCASE");
    let table = conn.query_row(&sql, [table], |row| row.get(0)).ok()?;
    Some((schema, table))
}

impl io::Read for Blob<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.reading().map_err(io::Error::other)?.read(buf)
    }
}

impl io::Write for Blob<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writing().map_err(io::Error::other)?.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl io::Seek for Blob<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.reading().map_err(io::Error::other)?.seek(to)
    }
}

impl std::fmt::Debug for Blob<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blob").field("len", &self.len()).finish_non_exhaustive()
    }
}

//! The writer's connection: how it is opened, opened again, replaced, and given up.

use std::rc::Rc;
use std::sync::Arc;

use super::{Stopped, Writer, current};
use super::{batch::OpenBatch, elision::Trust, publisher::Publisher};
use crate::engine::core::Core;
use crate::error::{Error, ErrorKind};
use crate::place::Role;
use crate::sqlite::instance::{Claim, Claimed};
use crate::sqlite::{migrate, path, preflight};
use crate::sqlite::{snapshot::Snapshot, transaction::Transaction};
use crate::wal::checkpoint::{self, Checkpointer};

impl Writer {
    pub(crate) fn open(core: Arc<Core>) -> Result<Self, Error> {
        let checkpointer = Checkpointer::new(&core.config);
        let publisher = Publisher::new(Arc::clone(&core.feed));
        let mut writer = Self {
            domain: core.domain,
            core,
            tx: None,
            checkpointer,
            publisher,
            batch: OpenBatch::default(),
            trust: Trust::default(),
            commits: 0,
            locked_since: None,
            content_lost: false,
            abandoned: false,
            stopped: Stopped::No,
            made_wal: false,
            claim: None,
        };
        let opener = &writer.core.opener;
        let warnings = preflight::check(&opener.config, &opener.file, &opener.machine)?;
        let _ = writer.core.warnings.set(warnings);
        match Claim::take(&opener.config, &opener.file, &writer.core.writer)? {
            Claimed::Nothing => {}
            Claimed::Own(claim) => writer.claim = Some(claim),
            Claimed::Other(other) => {
                let _ = writer.core.other.set(other);
                return Err(Error::new(ErrorKind::AlreadyOpen));
            }
        }
        if writer.config().is_read_only() && !writer.config().immutable {
            let path = writer.core.opener.file.path();
            writer.made_wal = path.is_some_and(|path| path::is_absent(&path::beside(path, "-wal")));
        }
        match writer.open_file() {
            Ok(()) => Ok(writer),
            Err(error) => {
                writer.disconnect();
                writer.remove_made_wal();
                Err(error)
            }
        }
    }

    fn open_file(&mut self) -> Result<(), Error> {
        let migrations = self.core.migrations.as_ref();
        let conn = migrate::open_first(&self.core.opener, migrations)?;
        let tx = self.adopt(conn);
        self.claim.as_ref().map_or(Ok(()), Claim::confirm)?;
        match &self.core.migrations {
            Some(migrations) if self.core.config.is_read_only() => {
                migrations.check_version(&tx, &self.core.opener)
            }
            Some(migrations) => migrations.run(&tx, &self.core.opener),
            None => Ok(()),
        }
    }

    /// Removes the WAL that opening the file read-only has made, if possible.
    pub(super) fn remove_made_wal(&mut self) {
        if std::mem::take(&mut self.made_wal) && !self.core.opener.file.is_lost() {
            // The WAL stays if another process has the file open, or if this process may not write to the directory.
            let _ = self.core.opener.remove_empty_wal();
        }
    }

    pub(super) fn connect(&mut self) -> Result<Rc<Transaction>, Error> {
        if self.tx.as_ref().is_some_and(|tx| tx.link.is_stale()) {
            self.renew();
        }
        if let Some(tx) = &self.tx {
            return Ok(Rc::clone(tx));
        }
        if self.content_lost {
            return Err(Error::new(ErrorKind::Faulted).detail("the memory database was lost"));
        }
        let conn = self.core.opener.open(Role::Writer)?;
        Ok(self.adopt(conn))
    }

    /// The connection, for a check for commits of other processes (WRITE8). `None`: there is none, and none can be
    /// opened, or may be opened while writes are stopped, because `setup` may write.
    pub(super) fn connect_for_check(&mut self) -> Option<Rc<Transaction>> {
        match self.stopped {
            Stopped::Told => self.tx.clone(),
            Stopped::No | Stopped::Asked => self.connect().ok(),
        }
    }

    /// Makes `conn` the connection of the next calls.
    fn adopt(&mut self, conn: Snapshot) -> Rc<Transaction> {
        // If another file is in the place of the database file by now, the next call gets the error.
        let _ = self.core.opener.file.connected();
        if self.config().immutable {
            // The files beside an immutable file do not belong to it, so they are not compared.
            self.core.opener.file.disconnecting();
        }
        let tx = Rc::new(Transaction::new(conn));
        self.publisher.connected(&tx.link, self.commits);
        current::set(self.domain, &tx);
        self.tx = Some(Rc::clone(&tx));
        tx
    }

    /// Replaces a stale connection. The new one is opened before the old one is closed, so that the old one is never the
    /// last connection to the file. For a memory database, the new one gets the content of the old one.
    fn renew(&mut self) {
        current::clear();
        let Some(old) = self.tx.take() else { return };
        let new = match self.config().is_memory() {
            true => self.core.opener.open_with_content(&old.link),
            false => self.core.opener.open(Role::Writer),
        };
        if new.is_err() {
            // WRITE8: `old` may have served an exclusive call, which may have committed.
            self.publisher.unknown(self.commits);
        }
        match new {
            Ok(new) => drop(self.adopt(new)),
            // Keep the old connection for its content, even though a call has left changes on the connection.
            Err(_) if self.config().is_memory() => {
                old.link.stale.set(false);
                current::set(self.domain, &old);
                self.tx = Some(old);
            }
            // The next call tries again, and gets the error.
            Err(_) => self.core.opener.file.disconnecting(),
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.core.opener.file.disconnecting();
        current::clear();
        self.tx = None;
        self.content_lost = self.config().is_memory();
    }

    /// Deals with the WAL when the file is no longer in its place. No transaction may be open.
    pub(super) fn abandon_file(&mut self, tx: &Transaction) {
        if !std::mem::replace(&mut self.abandoned, true) {
            self.checkpointer.wait_for_copier();
            checkpoint::abandon(tx, &self.core);
        }
    }

    pub(super) fn explain_wal_left(&self, error: rusqlite::Error) -> Error {
        let wal = self.core.opener.file.path().map(|path| path::beside(path, "-wal"));
        let wal = wal.unwrap_or_default();
        Error::of_own(error).detail(format!(
            "the database is closed and what was answered is stored, but {} could not be folded back; \
             keep it beside the file, the next open reads it",
            wal.display(),
        ))
    }
}

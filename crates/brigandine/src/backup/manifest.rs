//! The manifest of a backup: what the backup has, so that a restore can check it.

use super::control::Files;
use super::error::BackupError;
use crate::model::{self, Timestamp, version};
use crate::os::digest::hex;
use crate::os::file::{of, open_regular};
use crate::os::state_dir::MANIFEST;
use crate::store::DatabaseCopy;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::Path;

/// The name of the database in a backup.
pub(super) const DATABASE: &str = "brigandine.db";
/// The layout of the directories and of the manifest that this program makes. A program refuses a greater number.
const FORMAT: u32 = 1;
/// The most bytes of a manifest.
const BYTES_MAX: u64 = 1 << 20;

/// The file of the database in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DatabaseFile {
    /// Its size.
    pub(crate) bytes: u64,
    /// The digest of its bytes.
    pub(crate) sha256: String,
}

/// The manifest of a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The layout of the backup.
    pub(crate) format: u32,
    /// The version and commit of the program that made the backup.
    pub(crate) version: String,
    /// When the backup was begun.
    pub(crate) made_at: Timestamp,
    /// The version of the database's schema.
    pub(crate) schema: usize,
    /// The database.
    pub(crate) database: DatabaseFile,
    /// The number of rows of each table.
    pub(crate) rows: BTreeMap<String, i64>,
    /// The logs of builds and evaluations; `None`: they were left out.
    pub(crate) logs: Option<Files>,
    /// The outputs of builds; `None`: they were left out.
    pub(crate) outputs: Option<Files>,
}

impl Manifest {
    /// The manifest of a backup that has only the database.
    pub(super) fn new(made_at: Timestamp, copy: &DatabaseCopy) -> rusqlite::Result<Self> {
        Ok(Self {
            format: FORMAT,
            version: version().to_owned(),
            made_at,
            schema: copy.schema(),
            database: DatabaseFile { bytes: 0, sha256: String::new() },
            rows: copy.rows()?,
            logs: None,
            outputs: None,
        })
    }

    /// Reads the manifest of a backup.
    ///
    /// # Errors
    /// There is none, it cannot be read, or a newer program made the backup.
    pub(crate) fn read(backup: &Path) -> Result<Self, BackupError> {
        let no_backup = |why: String| BackupError::NoBackup(backup.to_owned(), why);
        let path = backup.join(MANIFEST);
        let mut text = Vec::new();
        let read = open_regular(&path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut text));
        of(&path, read).map_err(|error| no_backup(error.to_string()))?;
        // Read first, because a newer manifest may have other fields.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            version: String,
        }
        let wrong = |error: serde_json::Error| no_backup(format!("{}: {error}", path.display()));
        let head: Head = serde_json::from_slice(&text).map_err(wrong)?;
        if head.format > FORMAT {
            let version = model::one_line(&head.version, 200);
            return Err(BackupError::Newer(backup.to_owned(), version));
        }
        serde_json::from_slice(&text).map_err(wrong)
    }

    /// Writes the manifest into the folder of a backup.
    pub(super) fn write(&self, backup: &Path) -> io::Result<()> {
        let path = backup.join(MANIFEST);
        let text = serde_json::to_vec_pretty(self)?;
        of(&path, std::fs::write(&path, text))
    }

    /// The bytes that a restore needs.
    pub(super) fn bytes(&self) -> u64 {
        let files = [self.logs, self.outputs].into_iter().flatten().map(|files| files.bytes);
        files.fold(self.database.bytes, u64::saturating_add)
    }
}

/// The size and the digest of a database file that no connection has open.
pub(super) fn digest(path: &Path) -> io::Result<DatabaseFile> {
    let mut digest = Sha256::new();
    let file = of(path, open_regular(path))?;
    let bytes = io::copy(&mut io::BufReader::with_capacity(1 << 16, file), &mut digest);
    Ok(DatabaseFile { bytes: of(path, bytes)?, sha256: hex(&digest.finalize()) })
}

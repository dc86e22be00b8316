//! Checks before a file is opened: the version of SQLite, the path, and the kind of file system.
//!
//! Some versions of SQLite and some file systems lose data without an error, so the default is to refuse them. No check
//! opens the database file, because closing a file descriptor of it would drop all locks that SQLite holds on the file.

use std::path::Path;

use super::file::DatabaseFile;
use super::instance;
use super::path;
use crate::config::{Config, NetworkFiles};
use crate::error::{Error, ErrorKind};
use crate::ffi;
use crate::place::{Place, Refusal};

/// Why the WAL's shared memory may not work on a file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Risk {
    /// Other machines may write the same files, but do not see this machine's shared memory.
    Network(String),
    /// Whether shared memory works depends on how the file system is mounted.
    Doubtful(String),
}

/// The properties of SQLite and of the machine against which a file is checked. Tests replace them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Machine {
    pub(crate) sqlite_version: i32,
    pub(crate) shares_page_caches: bool,
    /// The risk of the file system that holds a path; `None`: no risk is known.
    pub(crate) file_system: fn(&Path) -> Option<Risk>,
}

impl Default for Machine {
    /// The properties of this machine.
    fn default() -> Self {
        Self {
            sqlite_version: rusqlite::version_number(),
            shares_page_caches: ffi::shares_page_caches(),
            file_system,
        }
    }
}

/// Finds the file of `config` and checks it before it is opened; returns the warnings of `Database::warnings`.
pub(crate) fn check(
    config: &Config,
    file: &DatabaseFile,
    machine: &Machine,
) -> Result<Vec<String>, Error> {
    let Place::File(named) = &config.place else { return Ok(Vec::new()) };
    // Only a checkpoint can lose commits, and a read-only database makes no checkpoints.
    if !config.is_read_only() {
        check_version(machine.sqlite_version)?;
    }
    let refused = |why| Error::new(ErrorKind::Open).detail(why);
    let path = match (path::resolve(named), &config.vfs) {
        (Ok(path), _) => path,
        // A failure does not matter here, because the VFS may keep its files elsewhere.
        (Err(_), Some(_)) => named.clone(),
        (Err(_), None) if !config.creates() && path::is_absent(named) => return Err(absent(named)),
        (Err(why), None) => return Err(refused(why)),
    };
    if config.vfs.is_none() {
        path::check_length(&path).map_err(refused)?;
    }
    path::check_kind(&path).map_err(refused)?;
    if !config.creates() && config.vfs.is_none() && path::is_absent(&path) {
        return Err(absent(&path));
    }
    if let Some(owner) = path::owner(&path) {
        let (path, owner) = (path.display(), owner.display());
        return Err(refused(format!("{path} is a part of the database {owner}; name that file")));
    }
    let mut parts = path::ENDS.iter().map(|end| path::beside(&path, end));
    if let Some(part) = parts.find(|part| instance::is_open_as(part)) {
        let (path, part) = (path.display(), part.display());
        return Err(refused(format!(
            "this process has {part} open as a database, which SQLite would take for a part of {path}; \
             rename one of them"
        )));
    }
    // An immutable file is read without locks and shared memory, so any file system will do.
    let risk = if config.immutable { None } else { (machine.file_system)(&path) };
    if config.immutable {
        check_still(&path).map_err(refused)?;
    }
    file.found(path);
    judge(config, machine, named, risk)
}

fn absent(path: &Path) -> Error {
    Error::new(ErrorKind::NotFound).detail(format!(
        "{} does not exist, and is not to be created; check the path",
        path.display()
    ))
}

/// Refuses a file whose WAL or journal is not empty: SQLite ignores both when it reads a file as immutable, and could
/// read a state that was never committed.
fn check_still(path: &Path) -> Result<(), Refusal> {
    for end in ["-wal", "-journal"] {
        let beside = path::beside(path, end);
        if std::fs::metadata(&beside).is_ok_and(|file| file.len() > 0) {
            return Err(format!(
                "{} cannot be taken for immutable: {} is not empty, so the file is in use, was left by a crash, or \
                 keeps its journal; open it with `read_only`, or once for writing",
                path.display(),
                beside.display()
            ));
        }
    }
    Ok(())
}

/// The warning for a file that has several names (hard links); `None`: it has one name, or is not there.
pub(crate) fn names(file: &DatabaseFile) -> Option<String> {
    let path = file.path()?;
    let file = std::fs::metadata(path).ok()?;
    #[cfg(unix)]
    let names = std::os::unix::fs::MetadataExt::nlink(&file);
    #[cfg(not(unix))]
    let names = u64::from(file.is_file());
    (names > 1).then(|| format!(
        "{} has {names} names (hard links); opened by two of them, in two processes, it would be damaged, \
         because SQLite names the WAL after the path: keep one name",
        path.display()
    ))
}

/// Refuses a network file system; otherwise returns the warnings for the operator.
fn judge(
    config: &Config,
    machine: &Machine,
    path: &Path,
    risk: Option<Risk>,
) -> Result<Vec<String>, Error> {
    let mut warnings = Vec::new();
    if machine.shares_page_caches {
        warnings.push(String::from(
            "this SQLite was built with SQLITE_ENABLE_MEMORY_MANAGEMENT, with which two readers are \
             no faster than one; link rusqlite 0.41 or newer, or a SQLite without it",
        ));
    }
    let path = path.display();
    match risk {
        None => {}
        Some(Risk::Doubtful(kind)) => warnings.push(format!(
            "{path} is on a file system of the kind {kind}; SQLite's WAL works there only if every \
             process that opens the file runs on this machine and mmap is shared"
        )),
        Some(Risk::Network(kind)) if config.network_files == NetworkFiles::Warn => {
            warnings.push(format!(
                "{path} is on a network file system ({kind}); the file will be damaged as soon as \
                 a second machine opens it"
            ));
        }
        Some(Risk::Network(kind)) => {
            return Err(Error::new(ErrorKind::NetworkFileSystem).detail(format!(
                "{path} is on {kind}, where SQLite's WAL can damage it; put it on a local disk, or, \
                 if only this machine will ever open it, set `network_files(NetworkFiles::Warn)`"
            )));
        }
    }
    Ok(warnings)
}

/// Whether, in this version of SQLite, a checkpoint may race a commit of another process and lose the commit. This is
/// the WAL-reset bug of the versions 3.7.0 to 3.51.2, which was also fixed in 3.50.7 and 3.44.6
/// (<https://www.sqlite.org/wal.html#the_wal_reset_bug>).
fn has_wal_reset_bug(version: i32) -> bool {
    let mended = matches!(version, 3_044_006..3_045_000 | 3_050_007..3_051_000 | 3_051_003..);
    version >= 3_007_000 && !mended
}

fn check_version(version: i32) -> Result<(), Error> {
    if !has_wal_reset_bug(version) {
        return Ok(());
    }
    let (major, minor, patch) = (version / 1_000_000, version / 1000 % 1000, version % 1000);
    Err(Error::new(ErrorKind::SqliteVersion).detail(format!(
        "SQLite {major}.{minor}.{patch} may lose commits when two processes use one file (the \
         WAL-reset bug); link 3.51.3 or newer, 3.50.7 or 3.44.6"
    )))
}

/// The risk of the file system that holds the resolved path `path`; `None`: no risk is known.
#[cfg(target_os = "linux")]
fn file_system(path: &Path) -> Option<Risk> {
    use std::os::unix::fs::MetadataExt;

    let there = if path.exists() { path } else { path.parent()? };
    let magic = u32::try_from(rustix::fs::statfs(there).ok()?.f_type & 0xffff_ffff).ok()?;
    if magic != FUSE {
        return classify(magic, None);
    }
    let device = there.metadata().ok()?.dev();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    classify(magic, mounted_as(&mounts, &device))
}

/// No risk is known on systems other than Linux.
#[cfg(not(target_os = "linux"))]
fn file_system(_path: &Path) -> Option<Risk> {
    None
}

const FUSE: u32 = 0x6573_5546;

/// The risk of a file system, by the magic number of `statfs` (statfs(2)) and, for FUSE, by the type under which it is
/// mounted.
fn classify(magic: u32, mounted_as: Option<&str>) -> Option<Risk> {
    let network = |name: &str| Some(Risk::Network(name.to_owned()));
    match magic {
        0x6969 => network("NFS"),
        0x517b | 0xff53_4d42 | 0xfe53_4d42 => network("SMB"),
        0x7375_7245 => network("Coda"),
        0x5346_414f | 0x6b41_4653 => network("AFS"),
        0x00c3_6400 => network("Ceph"),
        0x0bd0_0bd0 => network("Lustre"),
        0x4750_4653 => network("GPFS"),
        0x7461_636f => network("OCFS2"),
        0x0116_1970 => network("GFS2"),
        0x0102_1997 => Some(Risk::Doubtful(String::from("9p"))),
        FUSE => match mounted_as.unwrap_or("fuse") {
            // `fuseblk` is a local disk in another system's format, such as NTFS.
            "fuseblk" => None,
            "virtiofs" => network("virtiofs"),
            kind if ["sshfs", "glusterfs", "s3fs", "rclone", "ceph", "davfs", "gcsfuse", "nfs"]
                .iter()
                .any(|name| kind.contains(name)) =>
            {
                network(kind)
            }
            kind => Some(Risk::Doubtful(kind.to_owned())),
        },
        _ => None,
    }
}

/// The type of the file system on `device` ("major:minor"), from the text of `/proc/self/mountinfo`
/// (proc_pid_mountinfo(5)).
fn mounted_as<'m>(mounts: &'m str, device: &str) -> Option<&'m str> {
    mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        (before.split(' ').nth(2)? == device).then(|| after.split(' ').next())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::Database;

    #[test]
    fn a37_versions_with_the_wal_reset_bug_are_known() {
        for (version, expected) in [
            (3_006_023, false),
            (3_007_000, true),
            (3_044_005, true),
            (3_044_006, false),
            (3_045_000, true),
            (3_050_006, true),
            (3_050_007, false),
            (3_051_002, true),
            (3_051_003, false),
            (3_054_001, false),
            (4_000_000, false),
        ] {
            assert_eq!(has_wal_reset_bug(version), expected, "{version}");
        }
        assert!(!has_wal_reset_bug(rusqlite::version_number()), "the bundled one");
    }

    #[test]
    fn a37_a_sqlite_with_the_wal_reset_bug_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("app.db");
        let mut builder = Database::builder(&file);
        builder.machine.sqlite_version = 3_051_002;
        let error = builder.blocking_open().expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::SqliteVersion);
        assert!(error.to_string().contains("3.51.2"), "{error}");
        assert!(!file.exists(), "the file was made");
    }

    #[test]
    fn a37_a_network_file_system_is_refused_or_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("app.db");
        let mut builder = Database::builder(&file);
        builder.machine.file_system = |_| Some(Risk::Network(String::from("NFS")));
        let error = builder.clone().blocking_open().expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::NetworkFileSystem);
        assert!(error.to_string().contains("NFS"), "{error}");
        assert!(!file.exists(), "the file was made");
        builder.machine.shares_page_caches = false;
        let db = builder.network_files(NetworkFiles::Warn).blocking_open().expect("opens");
        let warnings = db.warnings();
        assert!(matches!(&warnings[..], [one] if one.contains("NFS")), "{warnings:?}");
        db.blocking_close().expect("closes");
    }

    /// The check looks at the file system of the file to which a link leads, even if that file does not exist yet.
    #[test]
    #[cfg(unix)]
    fn a41_the_file_system_is_judged_of_the_file_however_it_is_named() {
        use std::os::unix::fs::symlink;

        let dir = tempfile::tempdir().expect("a directory");
        let (near, far) = (dir.path().join("near"), dir.path().join("far"));
        for path in [&near, &far] {
            std::fs::create_dir(path).expect("a directory");
        }
        symlink(far.join("app.db"), near.join("link")).expect("a link");
        symlink("link", near.join("second")).expect("a link");
        symlink("../far", near.join("dir")).expect("a link");
        let real = far.canonicalize().expect("it is there").join("app.db");
        for exists in [false, true] {
            for name in
                ["link", "second", "dir/app.db", "../far/app.db", "dir/../far//app.db", "./link"]
            {
                let mut builder = Database::builder(near.join(name));
                builder.machine.file_system =
                    |path| Some(Risk::Network(path.display().to_string()));
                let error = builder.blocking_open().expect_err("refused");
                assert_eq!(error.kind(), ErrorKind::NetworkFileSystem, "{name}: {error}");
                assert!(error.to_string().contains(&*real.to_string_lossy()), "{name}: {error}");
            }
            assert_eq!(real.exists(), exists);
            std::fs::write(&real, []).expect("a file");
        }
    }

    #[test]
    #[cfg(unix)]
    fn a41_a_file_of_several_names_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("app.db");
        Database::blocking_open(&file).expect("opens").blocking_close().expect("closes");
        std::fs::hard_link(&file, dir.path().join("hard.db")).expect("a hard link");
        let mut builder = Database::builder(&file);
        builder.machine.shares_page_caches = false;
        let db = builder.blocking_open().expect("opens");
        assert!(
            matches!(&db.warnings()[..], [one] if one.contains("2 names")),
            "{:?}",
            db.warnings()
        );
        db.blocking_close().expect("closes");
    }

    #[test]
    fn a37_a_local_file_system_is_no_matter() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut builder = Database::builder(dir.path().join("app.db"));
        builder.machine.shares_page_caches = false;
        let db = builder.blocking_open().expect("opens");
        assert_eq!(db.warnings(), Vec::<String>::new());
        db.blocking_close().expect("closes");
    }

    #[test]
    fn a49_a_sqlite_whose_readers_share_one_lock_is_told() {
        let dir = tempfile::tempdir().expect("a directory");
        for shared in [false, true] {
            let mut builder = Database::builder(dir.path().join("app.db"));
            builder.machine.shares_page_caches = shared;
            let db = builder.blocking_open().expect("opens");
            let told = db.warnings().iter().any(|one| one.contains("MEMORY_MANAGEMENT"));
            assert_eq!(told, shared, "{:?}", db.warnings());
            db.blocking_close().expect("closes");
        }
    }

    /// libsqlite3-sys 0.38 sets the option, 0.39 with SQLite 3.54 no longer does.
    #[test]
    fn a49_whether_readers_share_one_lock_is_asked_of_sqlite_itself() {
        let conn = rusqlite::Connection::open_in_memory().expect("opens");
        let mut options = conn.prepare("PRAGMA compile_options").expect("a list");
        let options = options.query_map([], |row| row.get::<_, String>(0)).expect("a list");
        let listed = options.flatten().any(|option| option == "ENABLE_MEMORY_MANAGEMENT");
        assert_eq!(ffi::shares_page_caches(), listed);
        if cfg!(feature = "bundled") {
            assert_eq!(listed, rusqlite::version_number() < 3_054_000);
        }
    }

    #[test]
    fn a37_file_systems_are_told_apart() {
        let network = |name: &str| Some(Risk::Network(name.to_owned()));
        assert_eq!(classify(0xef53, None), None, "ext4");
        assert_eq!(classify(0x0102_1994, None), None, "tmpfs");
        assert_eq!(classify(0x6969, None), network("NFS"));
        assert_eq!(classify(0xff53_4d42, None), network("SMB"));
        assert_eq!(classify(FUSE, Some("fuseblk")), None);
        assert_eq!(classify(FUSE, Some("virtiofs")), network("virtiofs"));
        assert_eq!(classify(FUSE, Some("fuse.sshfs")), network("fuse.sshfs"));
        let mounts = "36 35 98:0 / /mnt rw,noatime master:1 - ext3 /dev/root rw\n\
                      37 35 0:42 / /far rw shared:7 - fuse.sshfs far: rw\n";
        assert_eq!(mounted_as(mounts, "0:42"), Some("fuse.sshfs"));
        assert_eq!(mounted_as(mounts, "0:43"), None);
    }
}

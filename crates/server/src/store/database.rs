//! Opening SQLite files: the pragmas, the layout, and what to do with a broken file.
//!
//! A file that is no database, or is damaged, is renamed to `….damaged-<unix seconds>` beside
//! itself with a warning that names it, and a new one is begun: the platform starts, and
//! nothing is deleted. A full or read-only disk is not damage and is reported as an error.

use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rusqlite_migration::Migrations;

use super::StoreError;

/// Longest wait for another connection's lock. There is one writer per file; only a checkpoint
/// or the first reader's recovery of a log can hold a lock, both for milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// What a commit waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// Until the log is synced: what was committed survives a power cut.
    Synced,
    /// Until the kernel has it: survives the platform's death, not the machine's.
    Written,
}

/// Opens a file for its one writer, creating it or bringing it to the present layout.
pub(crate) fn open_writer(
    path: &Path,
    layout: &Migrations<'_>,
    durability: Durability,
) -> Result<Connection, StoreError> {
    match try_open_writer(path, layout, durability) {
        Err(error) if error.is_damage() => {
            set_aside(path, &error)?;
            try_open_writer(path, layout, durability)
        }
        result => result,
    }
}

/// Makes the file, with what SQLite puts beside it, readable by this user alone: it holds what only
/// keys open. What fails here fails again, with its name, when it is opened.
fn keep_to_ourselves(path: &Path) {
    let mut options = OpenOptions::new();
    let opened = options.read(true).append(true).create(true).mode(0o600).open(path);
    let _ = opened.and_then(|file| file.set_permissions(Permissions::from_mode(0o600)));
}

fn try_open_writer(
    path: &Path,
    layout: &Migrations<'_>,
    durability: Durability,
) -> Result<Connection, StoreError> {
    let failed = |source| StoreError::Database { what: "opening", path: path.into(), source };
    keep_to_ourselves(path);
    let mut connection = Connection::open(path).map_err(failed)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(failed)?;
    connection.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
    let synchronous = match durability {
        Durability::Synced => "full",
        Durability::Written => "normal",
    };
    connection.pragma_update(None, "synchronous", synchronous).map_err(failed)?;
    connection.pragma_update(None, "foreign_keys", true).map_err(failed)?;
    layout.to_latest(&mut connection).map_err(|source| StoreError::Layout { path: path.into(), source })?;
    Ok(connection)
}

/// Opens an existing file for queries. The file is opened for writing as well, because the last
/// connection to leave folds the log into the database; `query_only` refuses statements that
/// would write.
pub(crate) fn open_reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// Checks the whole file; as slow as reading it.
pub(crate) fn check(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Database { what: "checking", path: path.into(), source };
    let verdict: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(failed)?;
    if verdict == "ok" {
        return Ok(());
    }
    let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT);
    Err(failed(rusqlite::Error::SqliteFailure(code, Some(verdict))))
}

/// The file and the two that SQLite keeps beside it.
pub(crate) fn file_family(path: &Path) -> [PathBuf; 3] {
    ["", "-wal", "-shm"].map(|suffix| with_suffix(path, suffix))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Renames a damaged file and its log; never deletes.
pub(crate) fn set_aside(path: &Path, why: &StoreError) -> Result<(), StoreError> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let aside = with_suffix(path, &format!(".damaged-{seconds}"));
    for (from, suffix) in file_family(path).iter().zip(["", "-wal", "-shm"]) {
        match std::fs::rename(from, with_suffix(&aside, suffix)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(StoreError::Directory { what: "the damaged file", path: from.clone(), source });
            }
        }
    }
    tracing::warn!(
        file = %path.display(), aside = %aside.display(), error = %why.chain(),
        "a database is damaged; it was set aside and a new one begun"
    );
    Ok(())
}

/// Whether an error says that the file itself is broken.
pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Whether an error says that there is no space: by its code, or, where SQLite tells of a failed
/// write only, by the file system that it was for.
pub(crate) fn is_full(error: &rusqlite::Error, path: &Path) -> bool {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => true,
        Some(ErrorCode::SystemIoFailure) => {
            let directory = path.parent().unwrap_or(path);
            rustix::fs::statvfs(directory).is_ok_and(|found| found.f_bavail == 0)
        }
        _ => false,
    }
}

/// The same error once more: one failed commit is reported to everyone who was part of it.
pub(crate) fn copy_of(error: &rusqlite::Error) -> rusqlite::Error {
    match error {
        rusqlite::Error::SqliteFailure(code, text) => rusqlite::Error::SqliteFailure(*code, text.clone()),
        other => {
            let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ERROR);
            rusqlite::Error::SqliteFailure(code, Some(other.to_string()))
        }
    }
}

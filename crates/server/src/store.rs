//! The embedded store: SQLite, one writer thread per database.
//!
//! The [`registry`] is what must never be lost: functions, versions, accepted asynchronous
//! calls, SLO counters. The `telemetry` files are what may be: one file per period, so that
//! retention is an unlink. Every write goes through a bounded queue to one thread; callers wait
//! for it only where the interface promises durability. Nothing here knows HTTP, and nothing
//! above reads SQL.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

use std::path::PathBuf;

use fp_core::code::Code;

pub(crate) mod database;
pub mod registry;
pub(crate) mod service_spans;
pub(crate) mod telemetry;
mod writer;

pub use registry::{AsyncCall, AsyncState, Registry, StoredVersion};

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A directory of the store cannot be used.
    #[error("{what} {path:?} cannot be used; check that it exists, is writable and has space")]
    Directory {
        /// What it is for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// A database failed.
    #[error("{what} failed in {path:?}; check the disk's space and health")]
    Database {
        /// What was tried.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// A database was made by another release.
    #[error("{path:?} cannot be brought to this release's layout; it was probably written by a newer one")]
    Layout {
        /// Which file.
        path: PathBuf,
        /// What the migration said.
        source: rusqlite_migration::Error,
    },
    /// A stored value does not read back.
    #[error("{what} {value:?} in {path:?} does not read back; deploy the function again")]
    Value {
        /// Which column.
        what: &'static str,
        /// What it holds.
        value: String,
        /// Which file.
        path: PathBuf,
    },
    /// The version is there already: two deploys of one function ran at once.
    #[error("version {version} of {function} exists already; deploy again")]
    VersionExists {
        /// Which function.
        function: String,
        /// Which version.
        version: u32,
    },
    /// The kernel gave no thread for the writer.
    #[error("the store's writer could not be started; raise the limit on threads (ulimit -u)")]
    Thread {
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The writer has ended: the platform is stopping.
    #[error("the store is closed because the platform is stopping; try again when it is up")]
    Closed,
}

impl StoreError {
    /// Whether a file itself is broken, as against a disk that is full or an order that cannot
    /// be met.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::Database { source, .. } => database::is_damage(source),
            Self::Layout { source: rusqlite_migration::Error::RusqliteError { err, .. }, .. } => {
                database::is_damage(err)
            }
            _ => false,
        }
    }

    /// The error's word: a full disk is told from everything else that can fail.
    pub fn code(&self) -> Code {
        let is_full = match self {
            Self::Closed => return Code::NotReady,
            Self::Database { source, path, .. } => database::is_full(source, path),
            Self::Layout { source: rusqlite_migration::Error::RusqliteError { err, .. }, path } => {
                database::is_full(err, path)
            }
            Self::Directory { source, .. } => is_out_of_space(source),
            Self::Layout { .. } | Self::Value { .. } | Self::VersionExists { .. } | Self::Thread { .. } => {
                false
            }
        };
        if is_full { Code::StorageFull } else { Code::StorageFailed }
    }

    /// The message with those of its sources, for the log.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&error.to_string());
            source = error.source();
        }
        text
    }
}

/// Whether the kernel refused for want of space, the disk's or its owner's quota.
pub(crate) fn is_out_of_space(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use rusqlite::ffi;

    use super::*;

    fn database(code: std::ffi::c_int, path: &str) -> Code {
        let source = rusqlite::Error::SqliteFailure(ffi::Error::new(code), None);
        StoreError::Database { what: "writing", path: path.into(), source }.code()
    }

    fn directory(kind: std::io::ErrorKind) -> Code {
        StoreError::Directory { what: "x", path: "/x".into(), source: kind.into() }.code()
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let here = std::env::temp_dir().display().to_string();
        assert_eq!(database(ffi::SQLITE_FULL, &here), Code::StorageFull);
        let others = [
            ffi::SQLITE_IOERR_WRITE,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_BUSY,
        ];
        for other in others {
            assert_eq!(database(other, &here), Code::StorageFailed, "{other}");
        }
        // /proc/self is a file system without a free block, as a full disk is.
        assert_eq!(database(ffi::SQLITE_IOERR_WRITE, "/proc/self/registry.db"), Code::StorageFull);
        assert_eq!(directory(std::io::ErrorKind::StorageFull), Code::StorageFull);
        assert_eq!(directory(std::io::ErrorKind::QuotaExceeded), Code::StorageFull);
        assert_eq!(directory(std::io::ErrorKind::PermissionDenied), Code::StorageFailed);
        assert_eq!(StoreError::Closed.code(), Code::NotReady);
    }
}

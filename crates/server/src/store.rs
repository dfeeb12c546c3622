//! The embedded store: SQLite, one writer thread per file.

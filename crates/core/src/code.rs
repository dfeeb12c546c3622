//! Error codes: the one list of words that problem documents, records, metrics and
//! `explain code` share. What each means for users is in `docs/errors.md`.

//! How a command ends: the table of exit codes, and the failure that carries one.
//!
//! The numbers are part of the interface (scripts branch on them); `docs/cli.md` prints the
//! same table. Everything that goes wrong becomes a [`Failure`]: a sentence that names the
//! thing, and where there is one a hint that says what to do.

use std::fmt;
use std::process::ExitCode;

use http::StatusCode;

/// The exit codes of every verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Done.
    Ok = 0,
    /// Anything that has no code of its own.
    Other = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The platform does not know the thing.
    NotFound = 3,
    /// The platform understood and refused (409, 413, 422).
    Refused = 4,
    /// No key, or one that may not do this (401, 403).
    Auth = 5,
    /// Nothing answers at the address.
    Unreachable = 6,
    /// The function was run and failed.
    FunctionFailed = 7,
    /// The platform is overloaded or the caller over its quota.
    Shed = 8,
    /// Stopped by a signal before the end.
    Interrupted = 130,
}

impl Exit {
    /// The exit code that stands for an error status of the management API.
    pub(crate) fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            401 | 403 => Self::Auth,
            404 => Self::NotFound,
            409 | 413 | 422 => Self::Refused,
            429 | 503 => Self::Shed,
            _ => Self::Other,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// What is told to the user on stderr when a command cannot do its work.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What went wrong: a fragment that names the thing and the limit.
    pub(crate) message: String,
    /// What to do about it.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// The same with what to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }

    /// A wrong command line that clap could not see.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// A file that cannot be read or written.
    pub(crate) fn file(verb: &str, path: &std::path::Path, error: &std::io::Error) -> Self {
        Self::new(Exit::Other, format!("cannot {verb} {}: {}", path.display(), plain(error)))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Other, plain(&error))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Other, format!("{error:#}"))
    }
}

/// An I/O error without `(os error 13)`, which says nothing that the words do not.
pub(crate) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let words = text.split(" (os error").next().unwrap_or(&text);
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_the_codes_of_the_table() {
        for (status, exit) in [
            (401, Exit::Auth),
            (403, Exit::Auth),
            (404, Exit::NotFound),
            (409, Exit::Refused),
            (413, Exit::Refused),
            (422, Exit::Refused),
            (429, Exit::Shed),
            (503, Exit::Shed),
            (500, Exit::Other),
            (400, Exit::Other),
        ] {
            assert_eq!(Exit::of_status(StatusCode::from_u16(status).expect("a status")), exit, "{status}");
        }
    }

    #[test]
    fn system_errors_are_put_in_plain_words() {
        assert_eq!(plain(&std::io::Error::from_raw_os_error(13)), "permission denied");
    }
}

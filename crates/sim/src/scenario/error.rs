//! Why a scenario cannot be played: one sentence, with the line where there is one.

use std::fmt;

/// A scenario that cannot be played.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScenarioError {
    /// Not TOML, an unknown key, a key that is missing, or a value of the wrong kind.
    #[error("{message}{}", Line(*line))]
    Syntax {
        /// What the parser says.
        message: String,
        /// Where, if it is in the text.
        line: Option<usize>,
    },
    /// A value that makes no sense.
    #[error("{field} {message}{}", Line(*line))]
    Value {
        /// Dotted path of the key.
        field: String,
        /// What is wrong with it, and what to write.
        message: String,
        /// Where, if it is in the text.
        line: Option<usize>,
    },
    /// A key of `function.toml` that is not as it should be.
    #[error("{message}{}", Line(*line))]
    Setting {
        /// Dotted path of the key.
        field: String,
        /// What is wrong with it, and what to write.
        message: String,
        /// Where, if it is in the text.
        line: Option<usize>,
    },
    /// A file that the scenario names and that cannot be used.
    #[error("{field}: {message}{}", Line(*line))]
    File {
        /// Dotted path of the key that names it.
        field: String,
        /// Which file and why.
        message: String,
        /// Where, if it is in the text.
        line: Option<usize>,
    },
    /// A changed value (`key=value`) that cannot be set.
    #[error("cannot set {change}: {message}")]
    Change {
        /// The change as it was written.
        change: String,
        /// Why not.
        message: String,
    },
}

impl ScenarioError {
    pub(crate) fn value(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Value { field: field.into(), message: message.into(), line: None }
    }

    /// The key that it is about.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Value { field, .. } | Self::Setting { field, .. } | Self::File { field, .. } => Some(field),
            Self::Syntax { .. } | Self::Change { .. } => None,
        }
    }

    pub(crate) fn at(mut self, found: Option<usize>) -> Self {
        match &mut self {
            Self::Syntax { line, .. }
            | Self::Value { line, .. }
            | Self::Setting { line, .. }
            | Self::File { line, .. } => *line = line.or(found),
            Self::Change { .. } => {}
        }
        self
    }
}

/// ` (line 3)`, or nothing.
struct Line(Option<usize>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |line| write!(f, " (line {line})"))
    }
}

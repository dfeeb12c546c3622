//! Why a manifest or a settings object is refused: which field, which line, what to write.

use std::fmt;

use crate::code::Code;

/// A manifest or settings that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsError {
    /// Dotted path of the key, `slo.latency.under`; empty when the text as a whole is broken.
    pub field: String,
    /// Line in the manifest; none for JSON.
    pub line: Option<u32>,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The text is not TOML.
    Syntax {
        /// What the parser says.
        message: String,
    },
    /// There is no such key.
    Unknown {
        /// The key that was probably meant.
        nearest: Option<String>,
        /// The keys of this table.
        known: Vec<String>,
    },
    /// A key that must be there is not.
    Missing {
        /// What to write.
        write: &'static str,
    },
    /// The value is not allowed.
    Value {
        /// The value, shortened.
        given: String,
        /// What is allowed.
        allowed: String,
    },
    /// Two keys contradict each other.
    Conflict {
        /// Which and how.
        message: String,
    },
}

impl SettingsError {
    /// The code for an error in a manifest; for the API's `settings` it is
    /// [`Code::InvalidSettings`].
    pub fn code(&self) -> Code {
        match self.fault {
            Fault::Syntax { .. } => Code::InvalidManifest,
            _ if self.line.is_some() => Code::InvalidManifest,
            _ => Code::InvalidSettings,
        }
    }
}

impl std::error::Error for SettingsError {}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = &self.field;
        match &self.fault {
            Fault::Syntax { message } => write!(f, "not valid TOML: {message}")?,
            Fault::Unknown { nearest: Some(nearest), .. } => {
                write!(f, "{field} is not a key; did you mean {nearest}?")?;
            }
            Fault::Unknown { nearest: None, known } => {
                write!(f, "{field} is not a key; the keys here are {}", known.join(", "))?;
            }
            Fault::Missing { write: example } => write!(f, "{field} is missing; {example}")?,
            Fault::Value { given, allowed } => write!(f, "{field} = {given} is not allowed; {allowed}")?,
            Fault::Conflict { message } => write!(f, "{field}: {message}")?,
        }
        match self.line {
            Some(line) => write!(f, " (line {line})"),
            None => Ok(()),
        }
    }
}

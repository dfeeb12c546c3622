//! Scopes: what the holder of a key may do.
//!
//! There are four, and a key has any set of them. `admin` stands for everything in its tenant, so
//! a set that has it has all; the others are independent: a key that deploys cannot read logs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One thing that a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Create, replace and delete functions.
    Deploy,
    /// Run functions through the management API.
    Invoke,
    /// See functions, invocations, logs, traces, metrics and pages.
    Read,
    /// Everything in the tenant, its keys included; in the tenant `default` also the platform.
    Admin,
}

impl Scope {
    /// Every scope, in the order in which sets print.
    pub const ALL: [Self; 4] = [Self::Deploy, Self::Invoke, Self::Read, Self::Admin];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Invoke => "invoke",
            Self::Read => "read",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A text that is no scope, or a set without any.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// A word that no scope has.
    #[error("{text:?} is not a scope; take any of deploy, invoke, read and admin")]
    Unknown {
        /// What was given.
        text: String,
    },
    /// Nothing at all.
    #[error("there is no scope; take any of deploy, invoke, read and admin")]
    Empty,
}

impl FromStr for Scope {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let known = Self::ALL.into_iter().find(|scope| scope.word() == text);
        known.ok_or_else(|| ScopeError::Unknown { text: text.into() })
    }
}

/// A set of scopes.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Everything: what `admin` stands for.
    pub fn all() -> Self {
        Scope::ALL.into_iter().collect()
    }

    /// Whether this may be done; `admin` may do everything.
    pub fn allow(self, scope: Scope) -> bool {
        self.0 & (scope.bit() | Scope::Admin.bit()) != 0
    }

    /// The scopes that the set was made of.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.0 & scope.bit() != 0)
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |bits, scope| bits | scope.bit()))
    }
}

/// `deploy,read`: how sets are stored and printed.
impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, scope) in self.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{scope}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scopes({self})")
    }
}

impl FromStr for Scopes {
    type Err = ScopeError;
    fn from_str(text: &str) -> Result<Self, ScopeError> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let scopes: Self = words.map(Scope::from_str).collect::<Result<_, _>>()?;
        if scopes.is_empty() { Err(ScopeError::Empty) } else { Ok(scopes) }
    }
}

/// A list of words.
impl Serialize for Scopes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Scopes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = Vec::<String>::deserialize(deserializer)?;
        words.join(",").parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(text: &str) -> Scopes {
        text.parse().expect(text)
    }

    #[test]
    fn a_set_allows_what_it_has_and_admin_allows_everything() {
        let some = scopes("read, deploy");
        assert!(some.allow(Scope::Read) && some.allow(Scope::Deploy));
        assert!(!some.allow(Scope::Invoke) && !some.allow(Scope::Admin));
        assert!(Scope::ALL.into_iter().all(|scope| scopes("admin").allow(scope)));
        assert!(!Scope::ALL.into_iter().any(|scope| Scopes::default().allow(scope)));
    }

    #[test]
    fn sets_read_back_as_text_and_as_json() {
        for bits in 1..16u8 {
            let set: Scopes =
                Scope::ALL.into_iter().filter(|scope| bits & (1 << *scope as u8) != 0).collect();
            assert_eq!(scopes(&set.to_string()), set);
            let json = serde_json::to_string(&set).expect("words");
            assert_eq!(serde_json::from_str::<Scopes>(&json).expect("reads back"), set);
        }
        assert_eq!(scopes("admin,deploy").to_string(), "deploy,admin");
    }

    #[test]
    fn what_is_no_scope_is_named() {
        assert_eq!("".parse::<Scopes>(), Err(ScopeError::Empty));
        assert_eq!(" , ".parse::<Scopes>(), Err(ScopeError::Empty));
        let error = "read,write".parse::<Scopes>().expect_err("write is none").to_string();
        assert!(error.starts_with("\"write\" is not a scope"), "{error}");
        assert!("Admin".parse::<Scopes>().is_err());
    }
}

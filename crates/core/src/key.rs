//! Keys as text: `fpk_`, eight characters that name the key, `_`, and the secret.
//!
//! The first half is public (lists, logs and errors show it), the second is 256 random bits that
//! nothing but the holder keeps. Nothing here draws them, and nothing here hashes: the server does
//! both. What is not exactly of this form is no key, so that there is one text per key.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ids::{IdError, is_name};

/// What every key begins with, so that scanners for leaked secrets know one.
const PREFIX: &str = "fpk_";

/// Characters of a key's id: 36^8 of them, so that two of a platform's thousands are hardly ever
/// drawn alike (and then drawn again).
const ID_LEN: usize = 8;

/// Characters of a secret: 32 bytes as base64url without padding.
pub const SECRET_LEN: usize = 43;

const ID_DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";

/// Which key: eight of `0-9 a-z`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; ID_LEN]);

impl KeyId {
    /// An id of a random draw.
    pub fn from_random(mut draw: u64) -> Self {
        Self([(); ID_LEN].map(|()| {
            let digit = ID_DIGITS[(draw % 36) as usize];
            draw /= 36;
            digit
        }))
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("made of ASCII")
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no key. It does not repeat the text: somebody may have pasted a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a key: a key is fpk_, eight of 0-9 a-z, _ and 43 of A-Z a-z 0-9 - _")]
pub struct KeyFormError;

impl FromStr for KeyId {
    type Err = KeyFormError;
    fn from_str(text: &str) -> Result<Self, KeyFormError> {
        let digits: [u8; ID_LEN] = text.as_bytes().try_into().map_err(|_| KeyFormError)?;
        let fits = digits.iter().all(|digit| ID_DIGITS.contains(digit));
        if fits { Ok(Self(digits)) } else { Err(KeyFormError) }
    }
}

/// A key as its holder sends it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PresentedKey<'a> {
    /// Which key it says to be.
    pub id: KeyId,
    /// What proves it.
    pub secret: &'a str,
}

impl<'a> PresentedKey<'a> {
    /// Takes a key apart.
    ///
    /// # Errors
    /// When the text is not of a key's form to the character.
    pub fn parse(text: &'a str) -> Result<Self, KeyFormError> {
        let rest = text.strip_prefix(PREFIX).ok_or(KeyFormError)?;
        let (id, rest) = rest.split_at_checked(ID_LEN).ok_or(KeyFormError)?;
        let secret = rest.strip_prefix('_').filter(|secret| is_secret(secret)).ok_or(KeyFormError)?;
        Ok(Self { id: id.parse()?, secret })
    }
}

fn is_secret(text: &str) -> bool {
    text.len() == SECRET_LEN && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// The whole key. This is the one moment at which it exists as a text here.
impl fmt::Display for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_{}", self.id, self.secret)
    }
}

impl fmt::Debug for PresentedKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}_…", self.id)
    }
}

/// What a key is called by people: the rule of functions' names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyName(String);

impl KeyName {
    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::try_from(text.to_owned())
    }
}

impl TryFrom<String> for KeyName {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        if is_name(&text) { Ok(Self(text)) } else { Err(IdError::Name { noun: "key name", text }) }
    }
}

impl From<KeyName> for String {
    fn from(name: KeyName) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECRET: &str = "AZaz09-_AZaz09-_AZaz09-_AZaz09-_AZaz09-_AZa";

    #[test]
    fn a_key_is_taken_apart_and_put_together() {
        let text = format!("fpk_0a1b2c3d_{SECRET}");
        let key = PresentedKey::parse(&text).expect("a key");
        assert_eq!((key.id.as_str(), key.secret), ("0a1b2c3d", SECRET));
        assert_eq!(key.to_string(), text);
        assert_eq!(format!("{key:?}"), "fpk_0a1b2c3d_…");
    }

    #[test]
    fn what_is_not_a_key_to_the_character_is_none() {
        let wrong = [
            String::new(),
            "fpk_".into(),
            format!("fpk_0a1b2c3d_{SECRET}x"),
            format!("fpk_0a1b2c3d_{}", &SECRET[1..]),
            format!("fpk_0A1b2c3d_{SECRET}"),
            format!("fpk_0a1b2c3d-{SECRET}"),
            format!("FPK_0a1b2c3d_{SECRET}"),
            format!(" fpk_0a1b2c3d_{SECRET}"),
            format!("fpk_0a1b2c3d_{}=", &SECRET[1..]),
            format!("fpk_0a1b2c3_{SECRET}_"),
            format!("fpk_0a1b2cé_{SECRET}"),
        ];
        for text in wrong {
            assert!(PresentedKey::parse(&text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_draw_is_an_id_that_reads_back(draw: u64) {
            let id = KeyId::from_random(draw);
            prop_assert_eq!(id.as_str().parse::<KeyId>(), Ok(id));
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC*") {
            let _ = PresentedKey::parse(&text);
            let _ = PresentedKey::parse(&format!("fpk_{text}"));
        }
    }

    #[test]
    fn names_follow_the_rule_of_names() {
        assert_eq!("ci-2".parse::<KeyName>().expect("a name").as_str(), "ci-2");
        for wrong in ["", "a b", "-a", "é", &"x".repeat(64)] {
            assert!(wrong.parse::<KeyName>().is_err(), "{wrong:?}");
        }
    }
}

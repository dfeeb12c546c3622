//! Identifiers: small validated newtypes, one per noun.
//!
//! Each is made from text (checked) or from raw draws given as arguments, prints the way the
//! wire shows it, and serialises as that text. Nothing here draws randomness or reads a clock:
//! the server passes both in.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a piece of text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// A name that breaks the naming rule.
    #[error(
        "{noun} {text:?} is not a name; use 1 to 63 of A-Z a-z 0-9 _ . - and begin with a letter or digit"
    )]
    Name {
        /// `function name` or `key name`.
        noun: &'static str,
        /// What was given.
        text: String,
    },
    /// A tenant's name is also a label of a host name, which has no case and no dots.
    #[error(
        "tenant {text:?} is not a name for a tenant; use 1 to 63 of a-z 0-9 - and neither begin nor end with -"
    )]
    Tenant {
        /// What was given.
        text: String,
    },
    /// A secret's name that no environment variable could have.
    #[error(
        "secret name {text:?} is not a name; use 1 to {MAX_SECRET_NAME_LEN} of A-Z a-z 0-9 _ and do not begin with a digit"
    )]
    Secret {
        /// What was given.
        text: String,
    },
    /// `instances` and `trigger` would shadow routes of the management API.
    #[error("{text:?} is reserved by the management API; choose another function name")]
    Reserved {
        /// What was given.
        text: String,
    },
    /// Text that should be a fixed number of hexadecimal digits.
    #[error("{text:?} is not {what}")]
    Hex {
        /// What was expected, with its length.
        what: &'static str,
        /// What was given.
        text: String,
    },
}

/// Longest function or tenant name, in bytes: a DNS label, so that a tenant can be a host name.
pub const MAX_NAME_LEN: usize = 63;

/// Longest name of a secret, in bytes: far above what anybody types, and names stand in tables.
pub const MAX_SECRET_NAME_LEN: usize = 127;

pub(crate) fn is_name(text: &str) -> bool {
    let first_is_alphanumeric = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    first_is_alphanumeric
        && text.len() <= MAX_NAME_LEN
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Whether it is a label of a host name in its one way of being written (RFC 1123 section 2.1).
fn is_label(text: &str) -> bool {
    let inside = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=MAX_NAME_LEN).contains(&text.len())
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

macro_rules! text_id {
    ($name:ident) => {
        impl $name {
            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

/// Who owns a thing. Every noun, key, table, metric and event carries one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(Arc<str>);
text_id!(Tenant);

impl Default for Tenant {
    /// The operator's, which is always there and the only one until others are created.
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for Tenant {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        if is_label(text) { Ok(Self(text.into())) } else { Err(IdError::Tenant { text: text.into() }) }
    }
}

/// The name of a function within its tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionName(Arc<str>);
text_id!(FunctionName);

impl FromStr for FunctionName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        if matches!(text, "instances" | "trigger") {
            return Err(IdError::Reserved { text: text.into() });
        }
        if !is_name(text) {
            return Err(IdError::Name { noun: "function name", text: text.into() });
        }
        Ok(Self(text.into()))
    }
}

/// The name of a secret within its tenant: what an environment variable could be called.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SecretName(Arc<str>);
text_id!(SecretName);

impl FromStr for SecretName {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
        let goes_on = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !begins || !goes_on || text.len() > MAX_SECRET_NAME_LEN {
            return Err(IdError::Secret { text: text.chars().take(MAX_SECRET_NAME_LEN).collect() });
        }
        Ok(Self(text.into()))
    }
}

/// The n-th version of a function; the first is 1. Versions are immutable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VersionNumber(pub u32);

impl fmt::Display for VersionNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One worker process; unique within a data directory's life (`faas.instance` on the wire).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "w{}", self.0)
    }
}

impl FromStr for WorkerId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let number = text.strip_prefix('w').and_then(|digits| digits.parse().ok());
        number.map(Self).ok_or(IdError::Hex { what: "a worker id (w and a number)", text: text.into() })
    }
}

impl Serialize for WorkerId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WorkerId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A short text of a known length that takes no memory of its own: an id, on its way into a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ascii<const N: usize>(pub(crate) [u8; N]);

impl<const N: usize> std::ops::Deref for Ascii<N> {
    type Target = str;
    fn deref(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it is made of ASCII")
    }
}

macro_rules! hex_id {
    ($name:ident, $bytes:literal, $what:literal) => {
        impl $name {
            /// The id as it is shown, without taking memory for it.
            pub fn text(&self) -> Ascii<{ $bytes * 2 }> {
                let mut text = [0u8; $bytes * 2];
                encode_hex(&self.0, &mut text);
                Ascii(text)
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.text())
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let bytes = decode_hex::<$bytes>(text);
                bytes.map(Self).ok_or(IdError::Hex { what: $what, text: text.into() })
            }
        }
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

fn encode_hex<'a>(bytes: &[u8], text: &'a mut [u8]) -> &'a str {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    std::str::from_utf8(text).expect("hexadecimal digits are ASCII")
}

/// Accepts lower-case digits only, as the W3C trace context demands.
pub(crate) fn decode_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != N * 2 {
        return None;
    }
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

/// A W3C trace id. Those that we make are time-ordered: the first six bytes are the Unix time
/// in milliseconds, the other ten are random, so that history can find a trace by its period
/// while the right-most seven bytes stay random as trace context level 2 asks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct TraceId(pub [u8; 16]);
hex_id!(TraceId, 16, "a trace id (32 lower-case hexadecimal digits)");

impl TraceId {
    /// A time-ordered id from the wall clock and a random draw.
    pub fn from_parts(unix_ms: u64, random: u128) -> Self {
        let mut bytes = random.to_be_bytes();
        bytes[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        Self(bytes)
    }
}

/// A W3C span id; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SpanId(pub [u8; 8]);
hex_id!(SpanId, 8, "a span id (16 lower-case hexadecimal digits)");

impl SpanId {
    /// An id from a random draw; zero, which W3C forbids, becomes one.
    pub fn from_random(random: u64) -> Self {
        Self(random.max(1).to_be_bytes())
    }
}

/// One logical call: a UUID version 7 (RFC 9562), so ids sort by the time they were made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InvocationId(pub [u8; 16]);

impl InvocationId {
    /// A version 7 UUID from the wall clock and a random draw.
    pub fn from_parts(unix_ms: u64, random: u128) -> Self {
        let mut bytes = TraceId::from_parts(unix_ms, random).0;
        bytes[6] = 0x70 | (bytes[6] & 0x0f);
        bytes[8] = 0x80 | (bytes[8] & 0x3f);
        Self(bytes)
    }

    /// When the id was made, in milliseconds of Unix time.
    pub fn unix_ms(&self) -> u64 {
        self.0[..6].iter().fold(0, |ms, byte| ms << 8 | u64::from(*byte))
    }
}

impl InvocationId {
    /// The id as it is shown, without taking memory for it.
    pub fn text(&self) -> Ascii<36> {
        let mut hex = [0u8; 32];
        let hex = encode_hex(&self.0, &mut hex);
        let mut text = [b'-'; 36];
        for (range, at) in [(0..8, 0), (8..12, 9), (12..16, 14), (16..20, 19), (20..32, 24)] {
            text[at..at + range.len()].copy_from_slice(&hex.as_bytes()[range]);
        }
        Ascii(text)
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

impl fmt::Debug for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InvocationId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let refuse = || IdError::Hex { what: "an invocation id (a UUID)", text: text.into() };
        let dashes = text.len() == 36 && [8, 13, 18, 23].iter().all(|at| text.as_bytes()[*at] == b'-');
        if !dashes {
            return Err(refuse());
        }
        decode_hex(&text.replace('-', "")).map(Self).ok_or_else(refuse)
    }
}

impl Serialize for InvocationId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InvocationId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Cow::<'de, str>::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rule_and_reserved_ones_are_refused() {
        assert!("thumbs".parse::<FunctionName>().is_ok());
        assert!("0a.b_c-d".parse::<FunctionName>().is_ok());
        assert!("a".repeat(63).parse::<FunctionName>().is_ok());
        for bad in ["", "-a", ".a", "a b", "ä", "a/b", &"a".repeat(64)] {
            assert!(matches!(bad.parse::<FunctionName>(), Err(IdError::Name { .. })), "{bad:?}");
        }
        for reserved in ["instances", "trigger"] {
            assert!(matches!(reserved.parse::<FunctionName>(), Err(IdError::Reserved { .. })));
        }
    }

    #[test]
    fn an_invocation_id_is_a_version_7_uuid_that_reads_back() {
        let id = InvocationId::from_parts(0x0123_4567_89ab, u128::MAX);
        assert_eq!(id.to_string(), "01234567-89ab-7fff-bfff-ffffffffffff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(id.unix_ms(), 0x0123_4567_89ab);
        assert!("01234567x89ab-7fff-bfff-ffffffffffff".parse::<InvocationId>().is_err());
        assert!("é1234567-89ab-7fff-bfff-fffffffffff".parse::<InvocationId>().is_err());
    }

    #[test]
    fn hexadecimal_ids_read_back_and_refuse_capitals() {
        let id = TraceId::from_parts(1, 2);
        assert_eq!(id.to_string(), "00000000000100000000000000000002");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("0000000000010000000000000000000A".parse::<TraceId>().is_err());
        assert_eq!(SpanId::from_random(0).to_string(), "0000000000000001");
    }
}

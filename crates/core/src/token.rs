//! JSON web tokens (RFC 7519) and the sets of keys that they are checked with (RFC 7517).
//!
//! The part without cryptography: the form of a token, the choice of keys, the claims. [`Token`]
//! gives its claims out only together with the time and the rules, after the server has checked the
//! signature. What RFC 8725 asks for is kept: the algorithm is one of four that are made with a key
//! pair and must be the key's own, so that neither `none` nor a public key taken for a shared secret
//! opens anything; nothing in a token's header says where its key is; issuer, audience and end of
//! life are always checked.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::settings::JwtAuth;

/// Longest token, in bytes: eight times a long one; headers are at most four times as much.
pub const MAX_TOKEN: usize = 16 << 10;

/// Largest JWK set, in bytes: a hundred RSA keys with their certificates.
pub const MAX_KEY_SET: usize = 256 << 10;

/// Most keys of a set: issuers have two or three, the largest some dozens.
const MOST_KEYS: usize = 100;

/// Keys that a token without `kid` is tried with: each try costs some ten microseconds.
const MOST_TRIES: usize = 8;

/// How far clocks may be apart.
const LEEWAY: Duration = Duration::from_secs(60);

/// How a token is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA, PKCS #1 v1.5, SHA-256.
    Rs256,
    /// RSA, PSS, SHA-256.
    Ps256,
    /// ECDSA with P-256 and SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl Algorithm {
    /// As tokens name it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    fn of(word: &str) -> Option<Self> {
        [Self::Rs256, Self::Ps256, Self::Es256, Self::EdDsa].into_iter().find(|one| one.word() == word)
    }
}

/// Why a token opens nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It has not the form of a signed token.
    #[error("this is not a signed token: {0}")]
    Malformed(&'static str),
    /// Its algorithm is none of the four.
    #[error("tokens signed by {0:?} are not taken, only RS256, PS256, ES256 and EdDSA")]
    Algorithm(String),
    /// It asks for extensions.
    #[error("the token has critical extensions, and none are known here")]
    Critical,
    /// No key of the set is of its `kid` and algorithm.
    #[error("no key of the issuer's set is for this token's kid and algorithm")]
    UnknownKey,
    /// No key has signed it.
    #[error("the token's signature is wrong")]
    Signature,
    /// Its end of life has passed.
    #[error("the token has expired")]
    Expired,
    /// It has none.
    #[error("the token has no exp: it would be good for ever")]
    NoExpiry,
    /// Its time is to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// Somebody else has made it.
    #[error("the token is of another issuer")]
    Issuer,
    /// It was made for somebody else.
    #[error("the token is for another audience")]
    Audience,
}

impl TokenError {
    /// One word for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Algorithm(_) => "algorithm",
            Self::Critical => "critical",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::NoExpiry => "no_expiry",
            Self::NotYetValid => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
        }
    }
}

/// A token whose signature nobody has checked.
#[derive(Debug, Clone)]
pub struct Token<'a> {
    algorithm: Algorithm,
    kid: Option<String>,
    signed: &'a str,
    payload: &'a str,
    signature: Vec<u8>,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

impl<'a> Token<'a> {
    /// Takes a token of the compact form (RFC 7515 section 7.1) apart.
    ///
    /// # Errors
    /// When it is of another form, or signed in a way that is not taken.
    pub fn parse(text: &'a str) -> Result<Self, TokenError> {
        if text.len() > MAX_TOKEN {
            return Err(TokenError::Malformed("it is longer than 16 KiB"));
        }
        let not_three = TokenError::Malformed("it has not three parts with dots between them");
        let (signed, signature) = text.rsplit_once('.').ok_or_else(|| not_three.clone())?;
        let (header, payload) = signed.split_once('.').ok_or_else(|| not_three.clone())?;
        if payload.contains('.') {
            return Err(not_three);
        }
        let decode = |part: &str| {
            URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed("a part is not base64url"))
        };
        let header: Header = serde_json::from_slice(&decode(header)?)
            .map_err(|_| TokenError::Malformed("its header is no JSON object with an alg"))?;
        if header.crit.is_some() {
            return Err(TokenError::Critical);
        }
        let Some(algorithm) = Algorithm::of(&header.alg) else {
            return Err(TokenError::Algorithm(header.alg.chars().take(32).collect()));
        };
        let signature = decode(signature)?;
        Ok(Self { algorithm, kid: header.kid, signed, payload, signature })
    }

    /// How it is signed.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// What is signed.
    pub fn signed(&self) -> &[u8] {
        self.signed.as_bytes()
    }

    /// The signature.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }

    /// The claims, if they are for this function and in force. To be called once the signature has
    /// been checked, and not before. `now` is Unix time.
    ///
    /// # Errors
    /// Which claim is not as it must be.
    pub fn claims(&self, rules: &JwtAuth, now: Duration) -> Result<Map<String, Value>, TokenError> {
        let no_object = TokenError::Malformed("its claims are no JSON object");
        let bytes = URL_SAFE_NO_PAD.decode(self.payload).map_err(|_| no_object.clone())?;
        let claims: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|_| no_object)?;
        if claims.get("iss").and_then(Value::as_str) != Some(&rules.issuer) {
            return Err(TokenError::Issuer);
        }
        let is_for =
            |name: &Value| name.as_str().is_some_and(|name| rules.audience.iter().any(|own| own == name));
        let is_for_us = match claims.get("aud") {
            Some(Value::Array(names)) => names.iter().any(is_for),
            Some(name) => is_for(name),
            None => false,
        };
        if !is_for_us {
            return Err(TokenError::Audience);
        }
        let (now, leeway) = (now.as_secs_f64(), LEEWAY.as_secs_f64());
        match time(&claims, "exp")? {
            None => return Err(TokenError::NoExpiry),
            Some(end) if now >= end + leeway => return Err(TokenError::Expired),
            Some(_) => {}
        }
        match time(&claims, "nbf")? {
            Some(begin) if now + leeway < begin => Err(TokenError::NotYetValid),
            _ => Ok(claims),
        }
    }
}

/// Seconds of Unix time, with a fraction if the issuer likes (RFC 7519 section 2).
fn time(claims: &Map<String, Value>, name: &str) -> Result<Option<f64>, TokenError> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            value.as_f64().map(Some).ok_or(TokenError::Malformed("a time in its claims is no number"))
        }
    }
}

/// A public key, as the arithmetic wants it.
#[derive(Clone, PartialEq, Eq)]
pub enum PublicKey {
    /// Modulus and exponent, big-endian without leading zeros.
    Rsa {
        /// The modulus.
        modulus: Vec<u8>,
        /// The exponent.
        exponent: Vec<u8>,
    },
    /// An uncompressed point of the curve P-256: 4, x, y.
    P256(Vec<u8>),
    /// 32 bytes.
    Ed25519(Vec<u8>),
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rsa { .. } => "Rsa",
            Self::P256(_) => "P256",
            Self::Ed25519(_) => "Ed25519",
        })
    }
}

impl PublicKey {
    /// Whether signatures of this kind are made with its private half.
    fn is_for(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa { .. } => matches!(algorithm, Algorithm::Rs256 | Algorithm::Ps256),
            Self::P256(_) => algorithm == Algorithm::Es256,
            Self::Ed25519(_) => algorithm == Algorithm::EdDsa,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    kid: Option<String>,
    /// The one algorithm that the issuer uses it for, where it says so.
    algorithm: Option<Algorithm>,
    key: PublicKey,
}

/// Why a text is no set of keys. It repeats nothing of the text: a file may hold something else.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Not JSON, or another kind of JSON.
    #[error("it is not a JWK set, an object with a list of \"keys\"")]
    NotASet,
    /// It is larger than is read.
    #[error("it is larger than 256 KiB")]
    TooLarge,
    /// It has more keys than are kept.
    #[error("it has more than {MOST_KEYS} keys")]
    TooMany,
    /// None of its keys is of use.
    #[error("none of its keys is a public key for RS256 or PS256 (2048 bits and more), ES256 or EdDSA")]
    NoneUsable,
}

/// The keys of an issuer that signatures can be checked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a JWK set. Keys for other purposes, of other kinds and of no form are passed over, as
    /// RFC 7517 section 5 asks for.
    ///
    /// # Errors
    /// When it is no such set, or nothing in it is of use.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeySetError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        if bytes.len() > MAX_KEY_SET {
            return Err(KeySetError::TooLarge);
        }
        let set: Set = serde_json::from_slice(bytes).map_err(|_| KeySetError::NotASet)?;
        if set.keys.len() > MOST_KEYS {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<_> = set.keys.iter().filter_map(Key::of).collect();
        if keys.is_empty() { Err(KeySetError::NoneUsable) } else { Ok(Self(keys)) }
    }

    /// The keys that may have signed a token.
    pub fn for_token(&self, token: &Token<'_>) -> impl Iterator<Item = &PublicKey> {
        let may_be = move |key: &&Key| {
            let is_named = token.kid.is_none() || key.kid == token.kid;
            let is_for = key.algorithm.is_none_or(|own| own == token.algorithm);
            is_named && is_for && key.key.is_for(token.algorithm)
        };
        self.0.iter().filter(may_be).take(MOST_TRIES).map(|key| &key.key)
    }
}

impl Key {
    fn of(json: &Value) -> Option<Self> {
        let text = |name: &str| json.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let of_length = |name: &str, length: usize| bytes(name).filter(|bytes| bytes.len() == length);
        let is_for_signatures = text("use").is_none_or(|purpose| purpose == "sig");
        let verifies = json.get("key_ops").is_none_or(|operations| {
            operations.as_array().is_some_and(|all| all.iter().any(|one| one == "verify"))
        });
        if !is_for_signatures || !verifies {
            return None;
        }
        let algorithm = match text("alg") {
            None => None,
            Some(word) => Some(Algorithm::of(word)?),
        };
        let key = match (text("kty")?, text("crv")) {
            ("RSA", _) => PublicKey::Rsa { modulus: modulus(bytes("n")?)?, exponent: unpadded(bytes("e")?) },
            ("EC", Some("P-256")) => {
                PublicKey::P256([vec![4], of_length("x", 32)?, of_length("y", 32)?].concat())
            }
            ("OKP", Some("Ed25519")) => PublicKey::Ed25519(of_length("x", 32)?),
            _ => return None,
        };
        if algorithm.is_some_and(|own| !key.is_for(own)) {
            return None;
        }
        Some(Self { kid: text("kid").map(str::to_owned), algorithm, key })
    }
}

/// Without the zeros that some issuers put before their numbers.
fn unpadded(bytes: Vec<u8>) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes[zeros..].to_vec()
}

/// A modulus of a length that is safe and can be computed with.
fn modulus(bytes: Vec<u8>) -> Option<Vec<u8>> {
    let modulus = unpadded(bytes);
    let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
    (2048..=8192).contains(&bits).then_some(modulus)
}

#[cfg(test)]
mod tests;

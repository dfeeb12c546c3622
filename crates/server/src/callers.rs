//! What the callers of a function are checked with: the secret that they sign with, and the keys of
//! the issuer of their tokens.
//!
//! [`Checks`] belong to one version of one function; those of several that name the same set of keys
//! share it ([`keys::KeySource`]). Secrets are asked for at each call, so that a rotation holds at
//! once. Knows nothing of HTTP but how a set of keys is fetched ([`fetch`]): the gateway asks here
//! with what it has found in the request.

#![cfg_attr(test, expect(clippy::unwrap_used, reason = "a test that cannot go on fails"))]

mod fetch;
mod keys;
mod signature;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use fp_core::settings::{HmacAuth, JwtAuth, KeysFrom};
use fp_core::token::{Algorithm, KeySet, PublicKey, Token, TokenError};
use fp_core::{SecretName, Settings, Tenant};
use parking_lot::Mutex;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde_json::{Map, Value};
use tokio::runtime::Handle;

use self::fetch::{Place, Reach};
use self::keys::KeySource;
pub(crate) use self::signature::Signature;
use crate::clock::Clock;
use crate::secrets::Secrets;

/// Sets of keys beyond which those of functions that are no more are forgotten.
const MANY: usize = 256;

/// What checks are made of. All functions that name one set share what is fetched of it.
#[derive(Debug)]
pub(crate) struct Callers {
    secrets: Arc<Secrets>,
    clock: Clock,
    /// Where sets are fetched: on threads that serve no calls.
    runtime: Handle,
    /// Ports of this machine that nobody fetches from: those of the management.
    guarded_ports: Vec<u16>,
    sources: Mutex<HashMap<Place, Weak<KeySource>>>,
}

impl Callers {
    pub(crate) fn new(secrets: Arc<Secrets>, clock: Clock, runtime: Handle, guarded_ports: Vec<u16>) -> Self {
        Self { secrets, clock, runtime, guarded_ports, sources: Mutex::default() }
    }

    /// What the callers of a function are checked with; none if it lets everybody in. `code` is the
    /// directory of its files.
    pub(crate) fn checks(&self, tenant: &Tenant, settings: &Settings, code: &Path) -> Option<Box<Checks>> {
        if !settings.is_guarded() {
            return None;
        }
        let signatures = settings.auth.hmac.as_ref().map(|hmac| SignatureCheck {
            secrets: self.secrets.clone(),
            tenant: tenant.clone(),
            rules: hmac.clone(),
        });
        let tokens = settings.auth.jwt.as_ref().map(|jwt| TokenCheck {
            keys: self.source(tenant, &jwt.jwks, code),
            clock: self.clock.clone(),
            rules: jwt.clone(),
        });
        Some(Box::new(Checks { signatures, tokens }))
    }

    fn source(&self, tenant: &Tenant, from: &KeysFrom, code: &Path) -> Arc<KeySource> {
        let place = match from {
            KeysFrom::Code(path) => return KeySource::fixed(self::keys::read_file(&code.join(path)), path),
            KeysFrom::Host(path) => Place::File(path.into()),
            KeysFrom::Url(url) => {
                let reach = if *tenant == Tenant::default() {
                    Reach::Operator { guarded_ports: self.guarded_ports.clone() }
                } else {
                    Reach::Public
                };
                Place::Url { url: url.as_str().into(), reach }
            }
        };
        let mut sources = self.sources.lock();
        if let Some(source) = sources.get(&place).and_then(Weak::upgrade) {
            return source;
        }
        if sources.len() >= MANY {
            sources.retain(|_, source| source.strong_count() > 0);
        }
        let source = KeySource::kept(place.clone(), self.clock.clone(), &self.runtime);
        sources.insert(place, Arc::downgrade(&source));
        source
    }

    /// Whether a deploy may name this set of keys; what is among its own files is read.
    ///
    /// # Errors
    /// One sentence: what is wrong, and what to do.
    pub(crate) fn check_keys(tenant: &Tenant, from: &KeysFrom, code: &Path) -> Result<(), String> {
        match from {
            KeysFrom::Code(path) => keys::read_file(&code.join(path))
                .map(|_| ())
                .map_err(|why| format!("the keys in {path} of the function's files are of no use: {why}")),
            KeysFrom::Host(path) if *tenant != Tenant::default() => Err(format!(
                "{path} is a file of the platform's host, which only functions of the tenant default may name; bring the keys along in a file of the function, or name a URL"
            )),
            KeysFrom::Url(url) => {
                fetch::check_url(url).map_err(|why| format!("{url} cannot be fetched: {why}"))
            }
            KeysFrom::Host(_) => Ok(()),
        }
    }
}

/// What the callers of one version are checked with, besides keys of the platform.
#[derive(Debug)]
pub(crate) struct Checks {
    signatures: Option<SignatureCheck>,
    tokens: Option<TokenCheck>,
}

impl Checks {
    /// How bodies must be signed, if that is a way in.
    pub(crate) fn signatures(&self) -> Option<&SignatureCheck> {
        self.signatures.as_ref()
    }

    /// How tokens are checked, if they are a way in.
    pub(crate) fn tokens(&self) -> Option<&TokenCheck> {
        self.tokens.as_ref()
    }
}

/// Why a proof was not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unproven<E> {
    /// It is wrong.
    Wrong(E),
    /// What it is checked with is not there: one sentence.
    Unavailable(String),
}

/// How the bodies of a function's calls are signed.
#[derive(Debug)]
pub(crate) struct SignatureCheck {
    secrets: Arc<Secrets>,
    tenant: Tenant,
    rules: HmacAuth,
}

impl SignatureCheck {
    /// The header that signatures are in, in lower case.
    pub(crate) fn header(&self) -> &str {
        &self.rules.header
    }

    /// Whether the body was signed with the secret as it is now.
    pub(crate) fn check(&self, signature: &Signature, body: &[u8]) -> Result<(), Unproven<()>> {
        let name: &SecretName = &self.rules.secret;
        let Some(secret) = self.secrets.value(&self.tenant, name) else {
            let detail = format!("its callers sign with the secret {name}, which was deleted");
            return Err(Unproven::Unavailable(detail));
        };
        if signature.fits(secret.bytes(), body) { Ok(()) } else { Err(Unproven::Wrong(())) }
    }
}

/// How a function's tokens are checked.
#[derive(Debug)]
pub(crate) struct TokenCheck {
    keys: Arc<KeySource>,
    clock: Clock,
    rules: JwtAuth,
}

impl TokenCheck {
    /// The claims of a token that one of the issuer's keys has signed, that is for this function, and
    /// in force. Waits for the issuer's set of keys when it is being fetched for the first time, or
    /// when the token is signed by a key that is not in it yet; both for some seconds at most.
    pub(crate) async fn check(&self, text: &str) -> Result<Map<String, Value>, Unproven<TokenError>> {
        let token = Token::parse(text).map_err(Unproven::Wrong)?;
        let set = self.keys.current().await.map_err(Unproven::Unavailable)?;
        match signed_by(&set, &token) {
            Err(TokenError::UnknownKey) => {
                let newer = self.keys.newer(&set).await.ok_or(Unproven::Wrong(TokenError::UnknownKey))?;
                signed_by(&newer, &token)
            }
            told => told,
        }
        .map_err(Unproven::Wrong)?;
        let now = Duration::from_micros(self.clock.wall_now_us());
        token.claims(&self.rules, now).map_err(Unproven::Wrong)
    }
}

/// Whether a key of the set has signed the token.
fn signed_by(set: &KeySet, token: &Token<'_>) -> Result<(), TokenError> {
    let mut keys = set.for_token(token).peekable();
    if keys.peek().is_none() {
        return Err(TokenError::UnknownKey);
    }
    if keys.any(|key| has_signed(key, token)) { Ok(()) } else { Err(TokenError::Signature) }
}

fn has_signed(key: &PublicKey, token: &Token<'_>) -> bool {
    let (message, signature) = (token.signed(), token.signature());
    let checked = match (key, token.algorithm()) {
        (PublicKey::Rsa { modulus, exponent }, Algorithm::Rs256) => {
            RsaPublicKeyComponents { n: modulus, e: exponent }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                message,
                signature,
            )
        }
        (PublicKey::Rsa { modulus, exponent }, Algorithm::Ps256) => {
            RsaPublicKeyComponents { n: modulus, e: exponent }.verify(
                &RSA_PSS_2048_8192_SHA256,
                message,
                signature,
            )
        }
        (PublicKey::P256(point), Algorithm::Es256) => {
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
        }
        (PublicKey::Ed25519(bytes), Algorithm::EdDsa) => {
            UnparsedPublicKey::new(&ED25519, bytes).verify(message, signature)
        }
        // The set gives none of these out; and here, too, no key serves another's algorithm.
        _ => return false,
    };
    checked.is_ok()
}

#[cfg(test)]
mod tests;

//! Credentials: what a caller sent to a function, against what the function asks for.
//!
//! [`Bearer`] is what the `Authorization` header holds, [`next`] what is to be looked at, or what is
//! lacking. What a caller presents is always judged: who sends a key or a token that is not in force
//! is refused, also where it could have been let in without. Nothing here knows whether a key, a
//! signature or a token is right: the server asks its rooms.

use crate::settings::{Auth, Settings, Visibility};

/// What keys of the platform begin with.
const KEY_PREFIX: &[u8] = b"fpk_";

/// What the `Authorization` header holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bearer<'a> {
    /// Nothing, or something that is none of the platform's business, such as `Basic`.
    Nothing,
    /// A key of the platform, or what is meant to be one.
    Key(&'a str),
    /// Any other bearer token.
    Token(&'a str),
    /// More than one header, or a bearer's that is no text: it is not known which is meant.
    Unclear,
}

impl<'a> Bearer<'a> {
    /// What all `Authorization` headers of a request say.
    pub fn of(mut values: impl Iterator<Item = &'a [u8]>) -> Self {
        let Some(first) = values.next() else { return Self::Nothing };
        if values.next().is_some() {
            return Self::Unclear;
        }
        let Some(token) = bearer_token(first) else { return Self::Nothing };
        match std::str::from_utf8(token) {
            Ok(text) if token.starts_with(KEY_PREFIX) => Self::Key(text),
            Ok(text) => Self::Token(text),
            Err(_) => Self::Unclear,
        }
    }
}

/// Whether an `Authorization` header holds a key of the platform, which is nobody's business but the
/// platform's: a function that saw it could use it.
pub fn holds_key(value: &[u8]) -> bool {
    bearer_token(value).is_some_and(|token| token.starts_with(KEY_PREFIX))
}

/// What follows `Bearer`, in any case (RFC 9110 section 11.1).
fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let value = value.trim_ascii();
    let (scheme, token) = value.split_at_checked("bearer".len())?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer");
    let is_apart = token.first().is_none_or(u8::is_ascii_whitespace);
    (is_bearer && is_apart).then(|| token.trim_ascii())
}

/// What is known of a caller before anything is proven.
#[derive(Debug, Clone, Copy)]
pub struct Presented<'a> {
    /// What its `Authorization` header holds.
    pub bearer: Bearer<'a>,
    /// It sent the header that the function's signatures are in.
    pub signature: bool,
    /// It is a function of the same tenant, which its connection proves.
    pub is_sibling: bool,
}

/// What is to be done with a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// Nobody is asked anything.
    Enter,
    /// Let in as a function of the tenant.
    EnterAsSibling,
    /// This must be a key of the tenant that may invoke.
    CheckKey(&'a str),
    /// This must be a token in force.
    CheckToken(&'a str),
    /// The body must be signed.
    CheckSignature,
    /// It is refused.
    Refuse(Lack),
}

/// What is wrong with what a caller presents, as far as its form tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// A key is asked for and none came.
    NoKey,
    /// What came is no key.
    NotAKey,
    /// A token is asked for and none came.
    NoToken,
    /// What came is no token.
    NotAToken,
    /// A signature is asked for and none came.
    NoSignature,
}

/// What is to be looked at to let a caller in, or what is lacking.
pub fn next<'a>(settings: &Settings, presented: Presented<'a>) -> Next<'a> {
    if !settings.is_guarded() {
        return Next::Enter;
    }
    let Auth { key, hmac, jwt } = &settings.auth;
    let takes_keys = *key || settings.visibility == Visibility::Private;
    let others = || otherwise(settings, presented);
    match presented.bearer {
        Bearer::Key(text) if takes_keys => Next::CheckKey(text),
        Bearer::Token(text) if jwt.is_some() => Next::CheckToken(text),
        Bearer::Key(_) | Bearer::Unclear if jwt.is_some() => Next::Refuse(Lack::NotAToken),
        Bearer::Unclear if takes_keys => Next::Refuse(Lack::NotAKey),
        Bearer::Token(_) if takes_keys && hmac.is_none() && !presented.is_sibling => {
            Next::Refuse(Lack::NotAKey)
        }
        _ => others(),
    }
}

/// The same where the `Authorization` header is of no use.
fn otherwise<'a>(settings: &Settings, presented: Presented<'_>) -> Next<'a> {
    let Auth { key, hmac, jwt } = &settings.auth;
    if hmac.is_some() && presented.signature {
        return Next::CheckSignature;
    }
    if presented.is_sibling {
        return Next::EnterAsSibling;
    }
    Next::Refuse(if *key || settings.visibility == Visibility::Private {
        Lack::NoKey
    } else if jwt.is_some() {
        Lack::NoToken
    } else {
        Lack::NoSignature
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn settings(auth: serde_json::Value, visibility: &str) -> Settings {
        Settings::from_json(&json!({ "auth": auth, "visibility": visibility })).expect("allowed")
    }

    fn jwt() -> serde_json::Value {
        json!({ "jwks": "jwks.json", "issuer": "i", "audience": "a" })
    }

    fn step<'a>(settings: &Settings, bearer: Bearer<'a>, signature: bool, is_sibling: bool) -> Next<'a> {
        next(settings, Presented { bearer, signature, is_sibling })
    }

    #[test]
    fn the_header_holds_a_key_a_token_or_nothing_of_ours() {
        let of = |values: &[&'static str]| Bearer::of(values.iter().map(|value| value.as_bytes()));
        assert_eq!(of(&[]), Bearer::Nothing);
        assert_eq!(of(&["Basic eDp5"]), Bearer::Nothing);
        assert_eq!(of(&["Bearerx abc"]), Bearer::Nothing);
        assert_eq!(of(&["bEARER  fpk_x "]), Bearer::Key("fpk_x"));
        assert_eq!(of(&["Bearer\tabc"]), Bearer::Token("abc"));
        assert_eq!(of(&["Bearer"]), Bearer::Token(""));
        assert_eq!(of(&["Bearer a", "Bearer a"]), Bearer::Unclear);
        assert_eq!(Bearer::of([&b"Bearer \xff"[..]].into_iter()), Bearer::Unclear);
        assert!(holds_key(b" bearer   fpk_") && !holds_key(b"Basic fpk_") && !holds_key(b"Bearer xfpk_"));
    }

    #[test]
    fn where_nothing_is_asked_nothing_is_looked_at() {
        let open = Settings::default();
        for bearer in [Bearer::Nothing, Bearer::Key("k"), Bearer::Token("t"), Bearer::Unclear] {
            assert_eq!(step(&open, bearer, true, false), Next::Enter);
        }
    }

    #[test]
    fn a_private_function_takes_siblings_and_keys_and_no_third() {
        let private = settings(json!({}), "private");
        assert_eq!(step(&private, Bearer::Nothing, false, true), Next::EnterAsSibling);
        assert_eq!(step(&private, Bearer::Token("theirs"), false, true), Next::EnterAsSibling);
        assert_eq!(step(&private, Bearer::Key("k"), false, true), Next::CheckKey("k"));
        assert_eq!(step(&private, Bearer::Key("k"), false, false), Next::CheckKey("k"));
        assert_eq!(step(&private, Bearer::Nothing, true, false), Next::Refuse(Lack::NoKey));
        assert_eq!(step(&private, Bearer::Token("t"), true, false), Next::Refuse(Lack::NotAKey));
    }

    #[test]
    fn what_is_presented_is_judged_also_of_a_sibling() {
        let tokens = settings(json!({ "jwt": jwt() }), "public");
        assert_eq!(step(&tokens, Bearer::Token("t"), false, true), Next::CheckToken("t"));
        assert_eq!(step(&tokens, Bearer::Key("k"), false, true), Next::Refuse(Lack::NotAToken));
        assert_eq!(step(&tokens, Bearer::Nothing, false, true), Next::EnterAsSibling);
        let signed = settings(json!({ "hmac": { "secret": "S" } }), "public");
        assert_eq!(step(&signed, Bearer::Nothing, true, true), Next::CheckSignature);
        assert_eq!(step(&signed, Bearer::Nothing, false, true), Next::EnterAsSibling);
    }

    #[test]
    fn any_one_of_several_is_enough_and_the_first_asked_for_is_named() {
        let all = settings(json!({ "key": true, "hmac": { "secret": "S" }, "jwt": jwt() }), "public");
        assert_eq!(step(&all, Bearer::Key("k"), true, false), Next::CheckKey("k"));
        assert_eq!(step(&all, Bearer::Token("t"), true, false), Next::CheckToken("t"));
        assert_eq!(step(&all, Bearer::Nothing, true, false), Next::CheckSignature);
        assert_eq!(step(&all, Bearer::Nothing, false, false), Next::Refuse(Lack::NoKey));
        let signed = settings(json!({ "hmac": { "secret": "S" } }), "public");
        assert_eq!(step(&signed, Bearer::Key("k"), true, false), Next::CheckSignature);
        assert_eq!(step(&signed, Bearer::Unclear, false, false), Next::Refuse(Lack::NoSignature));
        let either = settings(json!({ "key": true, "hmac": { "secret": "S" } }), "public");
        assert_eq!(step(&either, Bearer::Token("theirs"), true, false), Next::CheckSignature);
    }

    proptest! {
        /// Without a proof that somebody still has to look at, only siblings enter what is guarded.
        #[test]
        fn no_stranger_enters_by_form_alone(
            key: bool, hmac: bool, token: bool, private: bool, sibling: bool, signature: bool, sent in 0..4
        ) {
            let private = private && !hmac && !token;
            let mut auth = json!({ "key": key });
            if hmac { auth["hmac"] = json!({ "secret": "S" }); }
            if token { auth["jwt"] = jwt(); }
            let settings = settings(auth, if private { "private" } else { "public" });
            let bearer = [Bearer::Nothing, Bearer::Key("k"), Bearer::Token("t"), Bearer::Unclear][sent as usize];
            let open = !(key || hmac || token || private);
            match step(&settings, bearer, signature, sibling) {
                Next::Enter => prop_assert!(open),
                Next::EnterAsSibling => prop_assert!(sibling && !open),
                Next::CheckKey(_) => prop_assert!(key || private),
                Next::CheckToken(_) => prop_assert!(token),
                Next::CheckSignature => prop_assert!(hmac && signature),
                Next::Refuse(_) => prop_assert!(!open),
            }
        }
    }
}

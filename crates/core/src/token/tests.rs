use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::settings::KeysFrom;

fn rules() -> JwtAuth {
    JwtAuth {
        jwks: KeysFrom::Code("jwks.json".into()),
        issuer: "https://issuer.example/".into(),
        audience: vec!["thumbs".into(), "images".into()],
    }
}

fn encoded(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn token(header: &Value, claims: &Value) -> String {
    format!("{}.{}.{}", encoded(header), encoded(claims), URL_SAFE_NO_PAD.encode("signature"))
}

fn good() -> Value {
    json!({ "iss": "https://issuer.example/", "aud": "thumbs", "exp": 1_000, "nbf": 500, "sub": "me" })
}

fn with(claims: &Value, name: &str, value: Value) -> Value {
    let mut changed = claims.clone();
    changed[name] = value;
    changed
}

/// Whether claims are taken at a time in seconds.
fn at(claims: &Value, seconds: f64) -> Result<(), TokenError> {
    let text = token(&json!({ "alg": "ES256" }), claims);
    let parsed = Token::parse(&text).expect("well-formed");
    parsed.claims(&rules(), Duration::from_secs_f64(seconds)).map(|_| ())
}

#[test]
fn a_token_is_taken_apart() {
    let text = token(&json!({ "alg": "RS256", "kid": "1", "typ": "JWT" }), &good());
    let parsed = Token::parse(&text).expect("well-formed");
    assert_eq!((parsed.algorithm(), parsed.kid.as_deref()), (Algorithm::Rs256, Some("1")));
    assert_eq!(parsed.signature(), b"signature");
    assert_eq!(Some(parsed.signed()), text.rsplit_once('.').map(|(signed, _)| signed.as_bytes()));
    let claims = parsed.claims(&rules(), Duration::from_secs(700)).expect("in force");
    assert_eq!(Value::from(claims), good());
}

#[test]
fn neither_none_nor_shared_secrets_nor_what_is_not_known_is_an_algorithm() {
    for alg in ["none", "None", "NONE", "", "HS256", "HS512", "RS1", "rs256", "ES256K", "RS256 "] {
        let text = token(&json!({ "alg": alg }), &good());
        assert_eq!(Token::parse(&text).expect_err(alg).reason(), "algorithm");
    }
    let long = token(&json!({ "alg": "x".repeat(4096) }), &good());
    assert!(Token::parse(&long).expect_err("unknown").to_string().len() < 200);
}

#[test]
fn what_is_not_a_signed_token_is_told() {
    let header = encoded(&json!({ "alg": "ES256" }));
    let unsigned = format!("{header}.{}.", encoded(&good()));
    assert!(Token::parse(&unsigned).is_ok(), "an empty signature fits no key");
    let wrong = [
        String::new(),
        ".".into(),
        "..".into(),
        "a.b".into(),
        format!("{header}.e30.c2ln.c2ln"),
        format!("{header}.e30.c2ln.c2ln.c2ln"),
        format!("{header}=.e30.c2ln"),
        format!("{header}.e30.c2l+"),
        format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode("[]")),
        format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode("{\"alg\":1}")),
        format!("{}.e30.c2ln", URL_SAFE_NO_PAD.encode("\u{feff}{}")),
        format!("{header}.{}.c2ln", "A".repeat(MAX_TOKEN)),
    ];
    for text in wrong {
        assert_eq!(Token::parse(&text).expect_err(&text).reason(), "malformed", "{text}");
    }
    let critical = token(&json!({ "alg": "ES256", "crit": ["b64"], "b64": false }), &good());
    assert_eq!(Token::parse(&critical).expect_err("an extension"), TokenError::Critical);
}

#[test]
fn a_token_lives_from_nbf_to_exp_with_a_minute_on_both_sides() {
    assert_eq!(at(&good(), 439.9), Err(TokenError::NotYetValid));
    assert_eq!(at(&good(), 440.0), Ok(()));
    assert_eq!(at(&good(), 1059.9), Ok(()));
    assert_eq!(at(&good(), 1060.0), Err(TokenError::Expired));
    let fraction = with(&good(), "exp", json!(1000.5));
    assert_eq!((at(&fraction, 1060.4), at(&fraction, 1060.5)), (Ok(()), Err(TokenError::Expired)));
    let mut endless = good();
    endless.as_object_mut().expect("claims").remove("exp");
    assert_eq!(at(&endless, 700.0), Err(TokenError::NoExpiry));
    for odd in [json!("1000"), json!(null), json!([1000]), json!({})] {
        assert_eq!(
            at(&with(&good(), "exp", odd.clone()), 700.0).expect_err("no number").reason(),
            "malformed"
        );
        assert_eq!(at(&with(&good(), "nbf", odd), 700.0).expect_err("no number").reason(), "malformed");
    }
}

#[test]
fn issuer_and_audience_are_compared_to_the_letter() {
    for issuer in [json!("https://issuer.example"), json!(null), json!(["https://issuer.example/"])] {
        assert_eq!(at(&with(&good(), "iss", issuer), 700.0), Err(TokenError::Issuer));
    }
    for audience in [json!("images"), json!(["other", "images"]), json!([7, "thumbs"])] {
        assert_eq!(at(&with(&good(), "aud", audience), 700.0), Ok(()));
    }
    for audience in [json!("thumb"), json!(null), json!([]), json!(["Thumbs"]), json!([["thumbs"]])] {
        assert_eq!(at(&with(&good(), "aud", audience), 700.0), Err(TokenError::Audience));
    }
}

/// The keys of RFC 7517 appendix A.1 and RFC 8037 appendix A.2.
fn set() -> Value {
    json!({ "keys": [
        { "kty": "EC", "crv": "P-256", "use": "sig", "kid": "1",
          "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
          "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM" },
        { "kty": "RSA", "alg": "RS256", "kid": "2011-04-29", "e": "AQAB",
          "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw" },
        { "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" },
    ]})
}

fn parsed(set: &Value) -> Result<KeySet, KeySetError> {
    KeySet::parse(set.to_string().as_bytes())
}

fn fitting(set: &Value, alg: &str, kid: Option<&str>) -> Vec<String> {
    let text = token(&json!({ "alg": alg, "kid": kid }), &good());
    let token = Token::parse(&text).expect("well-formed");
    let set = parsed(set).expect("a set");
    set.for_token(&token).map(|key| format!("{key:?}")).collect()
}

#[test]
fn a_token_is_checked_with_keys_of_its_kid_and_its_kind_only() {
    assert_eq!(fitting(&set(), "ES256", Some("1")), ["P256"]);
    assert_eq!(fitting(&set(), "ES256", None), ["P256"]);
    assert_eq!(fitting(&set(), "RS256", Some("2011-04-29")), ["Rsa"]);
    assert_eq!(fitting(&set(), "EdDSA", None), ["Ed25519"]);
    let none: [&str; 0] = [];
    assert_eq!(fitting(&set(), "ES256", Some("2")), none);
    assert_eq!(fitting(&set(), "ES256", Some("2011-04-29")), none, "another kind of key");
    assert_eq!(fitting(&set(), "PS256", None), none, "the key says RS256");
    assert_eq!(fitting(&set(), "EdDSA", Some("1")), none, "a key without a kid has no such name");
    let many: Vec<_> = std::iter::repeat_n(set()["keys"][2].clone(), 50).collect();
    assert_eq!(fitting(&json!({ "keys": many }), "EdDSA", None).len(), MOST_TRIES);
}

#[test]
fn keys_that_are_of_no_use_are_passed_over_and_a_set_of_them_is_none() {
    let wrong = [
        json!({ "kty": "oct", "k": "AAAA" }),
        json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0xff; 128]), "e": "AQAB" }),
        json!({ "kty": "RSA", "n": "", "e": "AQAB" }),
        json!({ "kty": "RSA", "n": URL_SAFE_NO_PAD.encode([0; 300]), "e": "AQAB" }),
        json!({ "kty": "EC", "crv": "P-384", "x": "AA", "y": "AA" }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }),
        json!({ "kty": "OKP", "crv": "X25519", "x": set()["keys"][2]["x"] }),
        with(&set()["keys"][2], "use", json!("enc")),
        with(&set()["keys"][2], "key_ops", json!(["sign"])),
        with(&set()["keys"][2], "alg", json!("HS256")),
        with(&set()["keys"][2], "alg", json!("ES256")),
        json!("key"),
        json!(null),
    ];
    for key in wrong {
        assert_eq!(parsed(&json!({ "keys": [key] })), Err(KeySetError::NoneUsable), "{key}");
        assert!(parsed(&json!({ "keys": [key, set()["keys"][0]] })).is_ok());
    }
    assert_eq!(parsed(&json!({ "keys": [] })), Err(KeySetError::NoneUsable));
    for other in [json!({}), json!([]), json!({ "keys": {} }), set()["keys"][0].clone()] {
        assert_eq!(parsed(&other), Err(KeySetError::NotASet));
    }
    let secret = KeySet::parse(b"root:x:0:0").expect_err("no set").to_string();
    assert!(!secret.contains("root"), "{secret}");
    assert_eq!(KeySet::parse(&vec![b' '; MAX_KEY_SET + 1]), Err(KeySetError::TooLarge));
    assert_eq!(parsed(&json!({ "keys": vec![1; MOST_KEYS + 1] })), Err(KeySetError::TooMany));
}

#[test]
fn zeros_before_a_modulus_are_no_part_of_it() {
    let padded = URL_SAFE_NO_PAD.encode([vec![0], vec![0xff; 256]].concat());
    let set = parsed(&json!({ "keys": [{ "kty": "RSA", "n": padded, "e": "AAEAAQ" }] })).expect("a key");
    let PublicKey::Rsa { modulus, exponent } = &set.0[0].key else { panic!("{set:?}") };
    assert_eq!((modulus.len(), exponent.as_slice()), (256, &[1, 0, 1][..]));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "[A-Za-z0-9_.=-]{0,80}|\\PC*") {
        if let Ok(token) = Token::parse(&text) {
            let _ = token.claims(&rules(), Duration::from_secs(700));
        }
        let _ = KeySet::parse(text.as_bytes());
    }

    #[test]
    fn no_header_and_no_claims_make_it_panic(header in "\\PC{0,40}", claims in "\\PC{0,40}", now: u32) {
        let text = format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(&claims));
        let _ = Token::parse(&text);
        let text = format!("{}.{}.c2ln", encoded(&json!({ "alg": "EdDSA" })), URL_SAFE_NO_PAD.encode(claims));
        let token = Token::parse(&text).expect("its form is right");
        prop_assert!(token.claims(&rules(), Duration::from_secs(now.into())).is_err());
    }
}

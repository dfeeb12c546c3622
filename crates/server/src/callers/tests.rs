//! Signatures of tokens by the vectors of the RFCs and by keys made here; sets of keys from a real
//! server.

use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// RFC 7515 appendix A.2.
const RFC_RS256_N: &str = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ";
const RFC_RS256: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw";

/// RFC 7515 appendix A.3.
const RFC_ES256: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

/// RFC 8037 appendix A.4.
const RFC_EDDSA: &str = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";

/// A key that was made for this test and thrown away, and what it signed as PS256, good until 2100.
const PS256_N: &str = "jKFpnoPYwNIawZQOIIE1uL9vmFSzNhtR9w0NuPpK3ulk0Z1Qpj8qI0bsbh9dS4SRpT9TLJs-x54uyFXulTx-bKIdR3vgHNRspLz33NW68Iv41OKY8FjLGVBqScD8hc_rw4hq6sTj7wvaPnJxUTC9ggx-nwhPBVisa7h7exLSUu4MEmNbDc3XrXKRf4LgAE_Dr8_tY6pL7gcDBNi5sOl9vUEWRbP5pXDrUPnKUeFMU4Nf53FXVCJmIUjQhm7CcNpJSx1KNFCzVnfi7_-SjFTaeWD0tRIODT33MFi85UV7RxE435sLhMORT0LQjWnki3yPrSVUIjAsholzwT9jE2wtNw";
const PS256: &str = "eyJhbGciOiJQUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLyIsImF1ZCI6InRodW1icyIsImV4cCI6NDEwMjQ0NDgwMCwic3ViIjoicnNhIn0.KgwzdveCRkPGJkxEJeeSqahnR68VAWx23cJd6zlEWPwft2D5SOG9w-HAOLlK_RKYjYPDzn-v_40_xKIBYmspuUdIsuAvbnxqcNSEVnOY6gpR-X3nUPJl3gUFIcYofIip54tYoAmyCPyIYrM4P3uimU4RpXpGxvQNaB-0wsxjQobQNk_tc2-HGMN_asAvwkS-HW1YlyYP9GwNXDP0yCdLwhINl59T6rgYxrGI31HWRRol-pXDm8ztGki70G1QsyxfKUKhXYvoLudPlXxAnOOdVVGRPweRJ3InXknGLxqgvTDJ0kBNIqOva5BFApEDuM1ITCHPAZme289EnnKv_tE2DQ";

fn set(keys: Value) -> KeySet {
    KeySet::parse(serde_json::json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn all_vectors() -> Vec<(KeySet, &'static str)> {
    use serde_json::json;
    vec![
        (set(json!([{ "kty": "RSA", "n": RFC_RS256_N, "e": "AQAB" }])), RFC_RS256),
        (
            set(json!([{
                "kty": "EC", "crv": "P-256",
                "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
            }])),
            RFC_ES256,
        ),
        (
            set(
                json!([{ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }]),
            ),
            RFC_EDDSA,
        ),
        (set(json!([{ "kty": "RSA", "n": PS256_N, "e": "AQAB", "kid": "rsa" }])), PS256),
    ]
}

fn told(set: &KeySet, text: &str) -> Result<(), TokenError> {
    signed_by(set, &Token::parse(text)?)
}

#[test]
fn what_the_rfcs_have_signed_fits_their_keys_and_no_others() {
    let vectors = all_vectors();
    for (place, (own, text)) in vectors.iter().enumerate() {
        assert_eq!(told(own, text), Ok(()), "{text}");
        for (other, (foreign, _)) in vectors.iter().enumerate().filter(|(other, _)| *other != place) {
            assert!(told(foreign, text).is_err(), "{text} by key {other}");
        }
    }
}

#[test]
fn a_token_that_was_changed_anywhere_fits_no_key() {
    for (own, text) in all_vectors() {
        for place in (0..text.len()).step_by(7) {
            let mut changed = text.as_bytes().to_vec();
            // Another letter of the same alphabet, so that mostly it is still a token.
            changed[place] = if changed[place] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(told(&own, &changed).is_err(), "{place} of {text}");
        }
        assert!(told(&own, &format!("{text}A")).is_err());
        let (signed, _) = text.rsplit_once('.').unwrap();
        assert_eq!(told(&own, &format!("{signed}.")), Err(TokenError::Signature), "no signature at all");
    }
}

/// The classic: the public key, which everybody has, as the secret of an HMAC.
#[test]
fn a_public_key_is_not_taken_for_a_shared_secret() {
    let (own, text) = all_vectors().remove(0);
    let payload = text.split('.').nth(1).unwrap();
    for header in [r#"{"alg":"HS256"}"#, r#"{"alg":"RS256","typ":"JWT","alg":"HS256"}"#, r#"{"alg":"none"}"#]
    {
        let signed = format!("{}.{payload}", URL_SAFE_NO_PAD.encode(header));
        for secret in [RFC_RS256_N.as_bytes(), &URL_SAFE_NO_PAD.decode(RFC_RS256_N).unwrap()] {
            let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
            let tag = URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes()));
            assert!(told(&own, &format!("{signed}.{tag}")).is_err(), "{header}");
        }
    }
}

/// A P-256 signature of zeros was good for every message in one well-known library.
#[test]
fn a_signature_of_zeros_fits_nothing() {
    let (own, text) = all_vectors().remove(1);
    let (signed, _) = text.rsplit_once('.').unwrap();
    let zeros = URL_SAFE_NO_PAD.encode([0; 64]);
    assert_eq!(told(&own, &format!("{signed}.{zeros}")), Err(TokenError::Signature));
}

/// Keys that sign.
struct Signer {
    kid: &'static str,
    pair: Ed25519KeyPair,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { kid, pair: Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap() }
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        serde_json::json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x })
    }

    fn token(&self, claims: &Value) -> String {
        let header = serde_json::json!({ "alg": "EdDSA", "kid": self.kid });
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

fn claims(issuer: &str) -> Value {
    serde_json::json!({ "iss": issuer, "aud": "thumbs", "exp": 4_102_444_800_u64, "sub": "me" })
}

#[test]
fn ecdsa_of_a_fresh_key_is_checked_too() {
    let random = SystemRandom::new();
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap();
    let point = pair.public_key().as_ref();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    let set = set(serde_json::json!([{ "kty": "EC", "crv": "P-256", "x": x, "y": y }]));
    let signed = format!("{}.e30", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#));
    let signature = pair.sign(&random, signed.as_bytes()).unwrap();
    assert_eq!(told(&set, &format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))), Ok(()));
}

/// A server that answers every request alike, and counts them.
struct Issuer {
    url: String,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Issuer {
    async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let (answer, asked) = (Arc::<Mutex<String>>::default(), Arc::<AtomicUsize>::default());
        let (said, count) = (answer.clone(), asked.clone());
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                count.fetch_add(1, Ordering::SeqCst);
                let answer = said.lock().clone();
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, answer, asked, task }
    }

    fn says(&self, status: &str, body: &str) {
        let length = body.len();
        *self.answer.lock() =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    }

    fn shows(&self, signers: &[&Signer]) {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        self.says("200 OK", &serde_json::json!({ "keys": keys }).to_string());
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn check(&self) -> TokenCheck {
        let clock = Clock::start();
        let reach = Reach::Operator { guarded_ports: Vec::new() };
        let place = Place::Url { url: self.url.as_str().into(), reach };
        TokenCheck {
            keys: KeySource::kept(place, clock.clone(), &Handle::current()),
            clock,
            rules: JwtAuth {
                jwks: KeysFrom::Url(self.url.clone()),
                issuer: self.url.clone(),
                audience: vec!["thumbs".into()],
            },
        }
    }

    fn claims(&self) -> Value {
        claims(&self.url)
    }
}

fn reason(told: Result<Map<String, Value>, Unproven<TokenError>>) -> &'static str {
    match told {
        Ok(_) => "ok",
        Err(Unproven::Wrong(error)) => error.reason(),
        Err(Unproven::Unavailable(_)) => "unavailable",
    }
}

#[tokio::test]
async fn the_first_call_waits_for_the_keys_and_the_next_ones_do_not_ask() {
    let (issuer, signer) = (Issuer::new().await, Signer::new("a"));
    issuer.shows(&[&signer]);
    let check = issuer.check();
    let token = signer.token(&issuer.claims());
    for _ in 0..3 {
        assert_eq!(check.check(&token).await.unwrap()["sub"], "me");
    }
    assert_eq!(issuer.asked(), 1);
    let mut other = issuer.claims();
    other["aud"] = "others".into();
    assert_eq!(reason(check.check(&signer.token(&other)).await), "audience");
    other = issuer.claims();
    other["exp"] = 1.into();
    assert_eq!(reason(check.check(&signer.token(&other)).await), "expired");
    assert_eq!(reason(check.check("nothing").await), "malformed");
    assert_eq!(issuer.asked(), 1, "none of these are about keys");
}

#[tokio::test]
async fn a_new_key_is_found_at_once_and_an_old_one_is_good_for_nothing_then() {
    let issuer = Issuer::new().await;
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    issuer.shows(&[&old]);
    let check = issuer.check();
    assert_eq!(reason(check.check(&old.token(&issuer.claims())).await), "ok");
    issuer.shows(&[&new]);
    assert_eq!(reason(check.check(&new.token(&issuer.claims())).await), "ok");
    assert_eq!(reason(check.check(&old.token(&issuer.claims())).await), "unknown_key");
}

#[tokio::test]
async fn made_up_keys_cost_the_issuer_next_to_nothing() {
    let (issuer, signer, stranger) = (Issuer::new().await, Signer::new("a"), Signer::new("b"));
    issuer.shows(&[&signer]);
    let check = issuer.check();
    for _ in 0..50 {
        assert_eq!(reason(check.check(&stranger.token(&issuer.claims())).await), "unknown_key");
    }
    assert!((2..=5).contains(&issuer.asked()), "{}", issuer.asked());
    let same_name = Signer::new("a");
    assert_eq!(reason(check.check(&same_name.token(&issuer.claims())).await), "signature");
    assert_eq!(reason(check.check(&signer.token(&issuer.claims())).await), "ok");
}

#[tokio::test]
async fn what_is_read_stays_when_it_cannot_be_read_again() {
    let (issuer, signer, stranger) = (Issuer::new().await, Signer::new("a"), Signer::new("b"));
    issuer.shows(&[&signer]);
    let check = issuer.check();
    assert_eq!(reason(check.check(&signer.token(&issuer.claims())).await), "ok");
    issuer.says("500 Internal Server Error", "");
    assert_eq!(reason(check.check(&stranger.token(&issuer.claims())).await), "unknown_key");
    assert_eq!(reason(check.check(&signer.token(&issuer.claims())).await), "ok");
}

#[tokio::test]
async fn what_was_never_readable_lets_nobody_in_and_is_named() {
    let (issuer, signer) = (Issuer::new().await, Signer::new("a"));
    let huge = format!("{{\"keys\":[\"{}\"]}}", "x".repeat(300 << 10));
    for (status, body, told) in [
        ("404 Not Found", "", "404"),
        ("302 Found", "{}", "302"),
        ("200 OK", "<html>hunter2</html>", "not a JWK set"),
        ("200 OK", "{\"keys\":[]}", "none of its keys"),
        ("200 OK", huge.as_str(), "larger than 256 KiB"),
    ] {
        issuer.says(status, body);
        let check = issuer.check();
        let Err(Unproven::Unavailable(detail)) = check.check(&signer.token(&issuer.claims())).await else {
            panic!("{status} {body} lets somebody in");
        };
        assert!(detail.contains(&issuer.url) && detail.contains(told), "{detail}");
        assert!(!detail.contains("hunter2"), "{detail}");
    }
}

#[tokio::test]
async fn a_tenants_set_is_not_read_from_this_machine() {
    let (issuer, signer) = (Issuer::new().await, Signer::new("a"));
    issuer.shows(&[&signer]);
    let place = Place::Url { url: issuer.url.as_str().into(), reach: Reach::Public };
    let why = place.read().await.unwrap_err();
    assert!(why.contains("may not be reached"), "{why}");
    assert_eq!(issuer.asked(), 0);
}

#[tokio::test]
async fn a_set_in_a_file_is_checked_with_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let signer = Signer::new("a");
    let file = serde_json::json!({ "keys": [signer.jwk()] });
    std::fs::write(directory.path().join("jwks.json"), file.to_string()).unwrap();
    let rules = JwtAuth {
        jwks: KeysFrom::Code("jwks.json".into()),
        issuer: "i".into(),
        audience: vec!["thumbs".into()],
    };
    let read = keys::read_file(&directory.path().join("jwks.json"));
    let check = TokenCheck { keys: KeySource::fixed(read, "jwks.json"), clock: Clock::start(), rules };
    assert_eq!(reason(check.check(&signer.token(&claims("i"))).await), "ok");
    assert_eq!(reason(check.check(&Signer::new("b").token(&claims("i"))).await), "unknown_key");
}

#[test]
fn what_a_deploy_may_name_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let (default, acme) = (Tenant::default(), "acme".parse().unwrap());
    let check = |tenant: &Tenant, from: KeysFrom| Callers::check_keys(tenant, &from, directory.path());
    let missing = check(&default, KeysFrom::Code("jwks.json".into())).unwrap_err();
    assert!(missing.contains("jwks.json") && missing.contains("cannot be read"), "{missing}");
    std::fs::write(directory.path().join("jwks.json"), "{}").unwrap();
    assert!(check(&default, KeysFrom::Code("jwks.json".into())).is_err());
    let host = || KeysFrom::Host("/etc/issuer/jwks.json".into());
    assert!(check(&default, host()).is_ok(), "it may come later");
    assert!(check(&acme, host()).unwrap_err().contains("tenant default"));
    assert!(check(&acme, KeysFrom::Url("https://issuer.example/jwks".into())).is_ok());
    assert!(check(&acme, KeysFrom::Url("https://a:99999/jwks".into())).is_err());
}

//! Who may call a function: private functions, keys, signatures and tokens, each right, wrong,
//! missing, withdrawn and another's, through the real gateway.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use http::{Request, Response};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};

use crate::networks::has_networks;
use crate::platform::{Platform, call, up};

/// For hosts that do not keep tenants apart, such as those without root.
const SHARED: &str = "--allow-weak-isolation-between-tenants";

/// Says what it is told of its caller.
const WHO: &str = "def handler(message, context):\n    return {'auth': context['auth'], 'authorization': message['headers'].get('authorization')}\n";

/// Calls what the query names, as a function of its tenant, and says what came of it.
const FRONT: &str = "import os, urllib.request, urllib.error
def handler(message, context):
    request = urllib.request.Request(os.environ['FUNCTIONSPLATFORM_GATEWAY'] + message['query']['to'])
    for name in ('authorization',):
        if message['headers'].get('x-' + name):
            request.add_header(name, message['headers']['x-' + name])
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return {'status': answer.status, 'text': answer.read().decode()}
    except urllib.error.HTTPError as error:
        return {'status': error.code, 'text': error.read().decode()}
";

/// From GitHub's \"Validating webhook deliveries\".
const GITHUB_SECRET: &str = "It's a Secret to Everybody";
const GITHUB_BODY: &str = "Hello, World!";
const GITHUB_SIGNATURE: &str = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";

fn manage(platform: &Platform, tenant: &str, verb: &str, path: &str, body: &Value) -> Response<Bytes> {
    let mut request = Request::builder().method(verb).uri(path).header("x-tenant", tenant);
    let mut bytes = Bytes::new();
    if !body.is_null() {
        request = request.header("content-type", "application/json");
        bytes = Bytes::from(body.to_string());
    }
    call(platform.api, request.body(bytes).expect("a request"))
}

fn done(answer: Response<Bytes>) -> Value {
    assert!(answer.status().is_success(), "{answer:?}");
    document(&answer)
}

fn document(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn try_create(
    platform: &Platform,
    tenant: &str,
    name: &str,
    event: &str,
    code: &str,
    settings: Value,
) -> Response<Bytes> {
    let body = json!({
        "function_name": name, "event_type": event, "function_code": code, "settings": settings,
    });
    manage(platform, tenant, "POST", "/functions", &body)
}

fn create(platform: &Platform, tenant: &str, name: &str, event: &str, code: &str, settings: Value) {
    done(try_create(platform, tenant, name, event, code, settings));
}

fn create_tenant(platform: &Platform, name: &str) {
    done(manage(platform, "default", "POST", "/tenants", &json!({ "name": name })));
}

fn create_key(platform: &Platform, tenant: &str, scope: &str) -> String {
    let body = json!({ "name": format!("for-{scope}"), "scopes": [scope] });
    let made = done(manage(platform, tenant, "POST", "/keys", &body));
    made["key"].as_str().expect("a key").to_owned()
}

fn set_secret(platform: &Platform, name: &str, value: &str) {
    done(manage(platform, "default", "PUT", &format!("/secrets/{name}"), &json!({ "value": value })));
}

/// A request to the gateway with some headers.
fn ask(platform: &Platform, verb: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response<Bytes> {
    let request = Request::builder().method(verb).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    platform.call(request.body(Bytes::from(body.to_owned())).expect("a request"))
}

fn get(platform: &Platform, path: &str, headers: &[(&str, &str)]) -> Response<Bytes> {
    ask(platform, "GET", path, headers, "")
}

fn with_bearer(platform: &Platform, path: &str, token: &str) -> Response<Bytes> {
    get(platform, path, &[("authorization", &format!("Bearer {token}"))])
}

/// The status, and the code of a problem.
fn told(answer: &Response<Bytes>) -> (u16, String) {
    let code = serde_json::from_slice::<Value>(answer.body()).ok();
    let code = code.and_then(|problem| problem["code"].as_str().map(str::to_owned));
    (answer.status().as_u16(), code.unwrap_or_default())
}

fn is(answer: &Response<Bytes>, status: u16, code: &str) {
    assert_eq!(told(answer), (status, code.to_owned()), "{answer:?}");
    if status == 401 {
        assert!(answer.headers().contains_key("www-authenticate"), "{answer:?}");
    }
}

fn challenge(answer: &Response<Bytes>) -> &str {
    answer.headers()["www-authenticate"].to_str().expect("text")
}

fn number_of_calls(platform: &Platform, function: &str) -> usize {
    platform.api(&format!("/invocations?function={function}"))["items"].as_array().expect("items").len()
}

/// What an answer is made of but for ids and times.
fn gist(answer: &Response<Bytes>) -> (u16, Vec<String>, String) {
    let mut names: Vec<_> = answer.headers().keys().map(ToString::to_string).collect();
    names.sort();
    let mut text = String::from_utf8_lossy(answer.body()).into_owned();
    for path in ["/hidden", "/nothing"] {
        text = text.replace(path, "/PATH");
    }
    (answer.status().as_u16(), names, text)
}

#[test]
fn a_webhook_is_taken_when_its_body_was_signed() {
    let platform = up().start();
    let settings = json!({ "auth": { "hmac": { "secret": "HOOK" } } });
    let early = try_create(&platform, "default", "hook", "http|POST|/hook", WHO, settings.clone());
    is(&early, 422, "secret_missing");
    assert_eq!(document(&early)["field"], "auth.hmac.secret");
    set_secret(&platform, "HOOK", GITHUB_SECRET);
    create(&platform, "default", "hook", "http|POST|/hook", WHO, settings);
    let post = |signature: &[(&str, &str)], body: &str| ask(&platform, "POST", "/hook", signature, body);
    let signed = |signature: &str, body: &str| post(&[("x-hub-signature-256", signature)], body);

    let good = signed(GITHUB_SIGNATURE, GITHUB_BODY);
    assert_eq!(done(good)["auth"], json!({ "kind": "hmac" }));
    assert_eq!(number_of_calls(&platform, "hook"), 1);
    let missing = post(&[], GITHUB_BODY);
    is(&missing, 401, "signature_missing");
    assert!(challenge(&missing).starts_with("HMAC-SHA256"), "{missing:?}");
    is(&signed(GITHUB_SIGNATURE, "Hello, World?"), 401, "signature_invalid");
    is(&signed(GITHUB_SIGNATURE, ""), 401, "signature_invalid");
    is(&signed(&GITHUB_SIGNATURE.replace("e17", "e18"), GITHUB_BODY), 401, "signature_invalid");
    is(&signed("sha256=", GITHUB_BODY), 401, "signature_invalid");
    is(&signed("sha1=757107ea0eb2509fc211221cce984b8a37570b6d", GITHUB_BODY), 401, "signature_invalid");
    let twice = [("x-hub-signature-256", GITHUB_SIGNATURE), ("x-hub-signature-256", GITHUB_SIGNATURE)];
    is(&post(&twice, GITHUB_BODY), 401, "signature_invalid");
    // A key is no way in where none is asked for.
    let key = create_key(&platform, "default", "invoke");
    is(&post(&[("authorization", &format!("Bearer {key}"))], GITHUB_BODY), 401, "signature_missing");
    assert_eq!(number_of_calls(&platform, "hook"), 1, "who is refused is no call");
    assert!(
        platform.api("/functions/hook")["settings"]["auth"]["hmac"]["secret"] == "HOOK",
        "the name may be told"
    );

    // Another secret holds from the next request on, and the old one for none.
    set_secret(&platform, "HOOK", "another");
    is(&signed(GITHUB_SIGNATURE, GITHUB_BODY), 401, "signature_invalid");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"another");
    let digits: String = ring::hmac::sign(&key, b"{}").as_ref().iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(signed(&format!("sha256={digits}"), "{}").status(), 200);
    let in_use = manage(&platform, "default", "DELETE", "/secrets/HOOK", &Value::Null);
    is(&in_use, 409, "secret_in_use");
    done(manage(&platform, "default", "DELETE", "/secrets/HOOK?force=true", &Value::Null));
    let unavailable = signed(&format!("sha256={digits}"), "{}");
    is(&unavailable, 503, "auth_unavailable");
    assert!(unavailable.headers().contains_key("retry-after"));

    let metrics = call(platform.api, Request::get("/metrics").body(Bytes::new()).expect("a request"));
    let metrics = String::from_utf8_lossy(metrics.body()).into_owned();
    let counted = "functionsplatform_callers_refused_total{tenant=\"default\",function=\"hook\",code=\"signature_missing\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn a_key_opens_its_own_tenants_functions_until_it_is_revoked() {
    let platform = up().arg(SHARED).start();
    create_tenant(&platform, "acme");
    create_tenant(&platform, "globex");
    create(&platform, "acme", "who", "http|GET|/who", WHO, json!({ "auth": { "key": true } }));
    create(&platform, "acme", "open", "http|GET|/open", WHO, json!({}));
    let [invoke, read, admin] = ["invoke", "read", "admin"].map(|scope| create_key(&platform, "acme", scope));
    let with = |key: &str| with_bearer(&platform, "/t/acme/who", key);

    let answer = done(with(&invoke));
    assert_eq!(answer["auth"], json!({ "kind": "key", "key": "for-invoke", "id": &invoke[4..12] }));
    assert_eq!(answer["authorization"], Value::Null, "the function does not see the key");
    assert_eq!(with(&admin).status(), 200);
    let missing = get(&platform, "/t/acme/who", &[]);
    is(&missing, 401, "key_missing");
    assert!(challenge(&missing).starts_with("Bearer"), "{missing:?}");
    is(&get(&platform, "/t/acme/who", &[("authorization", "Basic eDp5")]), 401, "key_missing");
    for wrong in ["", "fpk_", "eyJhbGciOiJub25lIn0.e30.", &format!("{invoke}x"), &invoke.to_uppercase()] {
        is(&with(wrong), 401, "key_invalid");
    }
    let other = create_key(&platform, "globex", "admin");
    let operators = create_key(&platform, "default", "admin");
    is(&with(&other), 401, "key_invalid");
    is(&with(&operators), 401, "key_invalid");
    let refused = with(&read);
    is(&refused, 403, "scope_missing");
    assert_eq!(
        (&document(&refused)["scope"], &document(&refused)["key"]),
        (&json!("invoke"), &json!("for-read"))
    );
    let twice = format!("Bearer {invoke}");
    is(
        &get(&platform, "/t/acme/who", &[("authorization", &twice), ("authorization", &twice)]),
        401,
        "key_invalid",
    );

    // A function that asks for none does not get to see one either, and everything else.
    let open = |token: &str| done(with_bearer(&platform, "/t/acme/open", token));
    assert_eq!(open(&invoke), json!({ "auth": null, "authorization": null }));
    assert_eq!(open("theirs"), json!({ "auth": null, "authorization": "Bearer theirs" }));
    let lower = get(&platform, "/t/acme/open", &[("authorization", &format!("bearer  {other}"))]);
    assert_eq!(done(lower)["authorization"], Value::Null);

    let id = &invoke[4..12];
    done(manage(&platform, "acme", "DELETE", &format!("/keys/{id}"), &Value::Null));
    is(&with(&invoke), 401, "key_invalid");
    let body = json!({ "name": "short", "scopes": ["invoke"], "expires": "1s" });
    let short = done(manage(&platform, "acme", "POST", "/keys", &body));
    let short = short["key"].as_str().expect("a key");
    let limit = Instant::now() + Duration::from_secs(30);
    while with(short).status() == 200 {
        assert!(Instant::now() < limit, "it goes on for ever");
    }
    is(&with(short), 401, "key_invalid");
}

#[test]
fn a_private_function_does_not_exist_for_strangers() {
    let platform = up().arg(SHARED).start();
    create_tenant(&platform, "acme");
    create_tenant(&platform, "globex");
    let private = json!({ "visibility": "private" });
    create(&platform, "acme", "hidden", "http|GET|/hidden", WHO, private.clone());
    let [own, other] = ["acme", "globex"].map(|tenant| create_key(&platform, tenant, "invoke"));
    let read = create_key(&platform, "acme", "read");

    let nothing = |verb: &str| ask(&platform, verb, "/t/acme/nothing", &[], "");
    for verb in ["GET", "HEAD", "POST", "OPTIONS"] {
        let stranger = ask(&platform, verb, "/t/acme/hidden", &[], "");
        assert_eq!(gist(&stranger), gist(&nothing(verb)), "{verb}");
    }
    for key in [other.as_str(), "fpk_00000000_no", "theirs", &format!("{own}x")] {
        let stranger = with_bearer(&platform, "/t/acme/hidden", key);
        assert_eq!(gist(&stranger), gist(&nothing("GET")), "{key}");
    }
    let holder = done(with_bearer(&platform, "/t/acme/hidden", &own));
    assert_eq!(holder["auth"]["kind"], "key");
    is(&with_bearer(&platform, "/t/acme/hidden", &read), 403, "scope_missing");
    let bearer = format!("Bearer {own}");
    let posted = ask(&platform, "POST", "/t/acme/hidden", &[("authorization", &bearer)], "");
    assert_eq!(
        (posted.status().as_u16(), posted.headers()["allow"].to_str().expect("text")),
        (405, "GET, HEAD")
    );

    // What is less specific, or has another verb, answers strangers as if it were alone.
    let any = "def handler(message, context):\n    return message['path_params']\n";
    create(&platform, "acme", "any", "http|GET|/{name}", any, json!({}));
    create(&platform, "acme", "post", "http|POST|/hidden", WHO, json!({}));
    assert_eq!(done(get(&platform, "/t/acme/hidden", &[])), json!({ "name": "hidden" }));
    assert_eq!(done(with_bearer(&platform, "/t/acme/hidden", &own))["auth"]["kind"], "key");
    let put = |headers: &[(&str, &str)]| {
        let answer = ask(&platform, "PUT", "/t/acme/hidden", headers, "");
        answer.headers()["allow"].to_str().expect("text").to_owned()
    };
    assert_eq!(put(&[]), "GET, HEAD, POST", "of the public two");

    // The management passes, and says who it is.
    let ran = platform.cli(&["--tenant", "acme", "invoke", "hidden"]);
    assert!(ran.status.success() && ran.stdout.contains("\"api\""), "{ran:?}");
    // Once it is public again there is nothing to hide.
    create(&platform, "acme", "hidden", "http|GET|/hidden", WHO, json!({}));
    assert_eq!(done(get(&platform, "/t/acme/hidden", &[]))["auth"], Value::Null);
    create(&platform, "acme", "hidden", "http|GET|/hidden", WHO, private);
    assert_eq!(done(get(&platform, "/t/acme/hidden", &[])), json!({ "name": "hidden" }));
    // Revoked, a key sees nothing any more.
    done(manage(&platform, "acme", "DELETE", &format!("/keys/{}", &own[4..12]), &Value::Null));
    assert_eq!(done(with_bearer(&platform, "/t/acme/hidden", &own)), json!({ "name": "hidden" }));
}

#[test]
fn functions_of_the_tenant_call_what_is_private_and_others_do_not() {
    let platform = up().arg(SHARED).start();
    if !has_networks(&platform) {
        return;
    }
    create_tenant(&platform, "acme");
    create_tenant(&platform, "globex");
    create(&platform, "acme", "hidden", "http|GET|/hidden", WHO, json!({ "visibility": "private" }));
    create(&platform, "acme", "keyed", "http|GET|/keyed", WHO, json!({ "auth": { "key": true } }));
    for tenant in ["acme", "globex"] {
        create(&platform, tenant, "front", "http|GET|/front", FRONT, json!({}));
    }
    let through = |tenant: &str, to: &str, token: Option<&str>| {
        let token = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = token.iter().map(|token| ("x-authorization", token.as_str())).collect();
        done(get(&platform, &format!("/t/{tenant}/front?to={to}"), &headers))
    };
    for to in ["/hidden", "/keyed"] {
        let own = through("acme", to, None);
        assert_eq!(own["status"], 200, "{own}");
        let answer: Value = serde_json::from_str(own["text"].as_str().expect("text")).expect("JSON");
        assert_eq!(answer["auth"], json!({ "kind": "function", "function": "front" }));
    }
    assert_eq!(through("globex", "/t/acme/hidden", None)["status"], 404);
    assert_eq!(through("globex", "/t/acme/keyed", None)["status"], 401);
    // What is presented is judged, also of the tenant's own.
    assert_eq!(through("acme", "/keyed", Some("fpk_00000000_no"))["status"], 401);
    let key = create_key(&platform, "acme", "invoke");
    let strangers = through("globex", "/t/acme/hidden", Some(&key));
    assert_eq!(strangers["status"], 200, "with a key anybody holds one: {strangers}");
}

/// A server with a set of keys that changes.
struct Issuer {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Issuer {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its own");
        let (answer, asked, over) =
            (Arc::<Mutex<String>>::default(), Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (says, counts, ends) = (answer.clone(), asked.clone(), over.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                counts.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let answer = says.lock().expect("nobody panics with it").clone();
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { address, answer, asked, over, thread: Some(thread) }
    }

    fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    fn says(&self, status: &str, body: &str) {
        let length = body.len();
        *self.answer.lock().expect("nobody panics with it") =
            format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    }

    fn shows(&self, signers: &[&Signer]) {
        let keys: Vec<_> = signers.iter().map(|signer| signer.jwk()).collect();
        self.says("200 OK", &json!({ "keys": keys }).to_string());
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A key pair that signs tokens.
struct Signer {
    kid: &'static str,
    pair: Ed25519KeyPair,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("random bytes");
        Self { kid, pair: Ed25519KeyPair::from_pkcs8(made.as_ref()).expect("made just now") }
    }

    fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.pair.public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": self.kid, "x": x })
    }

    fn signed(&self, header: &Value, claims: &Value) -> String {
        let part = |json: &Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes())))
    }

    fn token(&self, claims: &Value) -> String {
        self.signed(&json!({ "alg": "EdDSA", "kid": self.kid }), claims)
    }
}

fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.expect("after 1970").as_secs()
}

fn claims() -> Value {
    json!({ "iss": "https://issuer.example/", "aud": "thumbs", "exp": now() + 3600, "sub": "me" })
}

fn with(name: &str, value: Value) -> Value {
    let mut changed = claims();
    changed[name] = value;
    changed
}

fn jwt(jwks: &str) -> Value {
    json!({ "auth": { "jwt": { "jwks": jwks, "issuer": "https://issuer.example/", "audience": "thumbs" } } })
}

#[test]
fn a_token_opens_when_its_issuer_has_signed_it_for_this_function_and_now() {
    let platform = up().start();
    let (issuer, signer) = (Issuer::new(), Signer::new("a"));
    issuer.shows(&[&signer]);
    create(&platform, "default", "who", "http|GET|/who", WHO, jwt(&issuer.url()));
    let with_token = |token: &str| with_bearer(&platform, "/who", token);

    let good = signer.token(&claims());
    let answer = done(with_token(&good));
    assert_eq!((&answer["auth"]["kind"], &answer["auth"]["claims"]["sub"]), (&json!("jwt"), &json!("me")));
    assert_eq!(answer["authorization"], format!("Bearer {good}"), "a token is the function's to see");
    let missing = get(&platform, "/who", &[]);
    is(&missing, 401, "token_missing");
    assert_eq!(challenge(&missing), "Bearer realm=\"functionsplatform\"");

    let none = format!(
        "{}.{}.",
        URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
        URL_SAFE_NO_PAD.encode(claims().to_string())
    );
    let hmac = {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"a"}"#),
            URL_SAFE_NO_PAD.encode(claims().to_string())
        );
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, signer.pair.public_key().as_ref());
        let tag = ring::hmac::sign(&key, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    };
    let embedded = {
        let stranger = Signer::new("a");
        let header =
            json!({ "alg": "EdDSA", "kid": "a", "jwk": stranger.jwk(), "jku": "http://127.0.0.1:1/" });
        stranger.signed(&header, &claims())
    };
    for (token, reason) in [
        (signer.token(&with("exp", json!(now() - 120))), "expired"),
        (signer.token(&with("exp", Value::Null)), "malformed"),
        (signer.token(&with("nbf", json!(now() + 600))), "not_yet_valid"),
        (signer.token(&with("iss", json!("https://other.example/"))), "issuer"),
        (signer.token(&with("aud", json!("images"))), "audience"),
        (Signer::new("a").token(&claims()), "signature"),
        (embedded, "signature"),
        (none, "algorithm"),
        (hmac, "algorithm"),
        (signer.signed(&json!({ "alg": "ES256", "kid": "a" }), &claims()), "unknown_key"),
        (signer.signed(&json!({ "alg": "EdDSA", "kid": "a", "crit": ["exp"] }), &claims()), "critical"),
        ("nothing".to_owned(), "malformed"),
        (create_key(&platform, "default", "invoke"), "malformed"),
    ] {
        let answer = with_token(&token);
        is(&answer, 401, "token_invalid");
        assert_eq!(document(&answer)["reason"], reason, "{answer:?}");
        assert!(challenge(&answer).contains("error=\"invalid_token\""), "{answer:?}");
    }
    // Within the minute that clocks may be apart.
    assert_eq!(with_token(&signer.token(&with("exp", json!(now() - 20)))).status(), 200);
    assert_eq!(number_of_calls(&platform, "who"), 2);

    // The issuer's next key is found by the first token that it signs; the withdrawn one is over.
    let next = Signer::new("b");
    issuer.shows(&[&next]);
    assert_eq!(with_token(&next.token(&claims())).status(), 200);
    is(&with_token(&good), 401, "token_invalid");
    let before = issuer.asked.load(Ordering::SeqCst);
    for _ in 0..20 {
        is(&with_token(&Signer::new("made-up").token(&claims())), 401, "token_invalid");
    }
    let asked = issuer.asked.load(Ordering::SeqCst) - before;
    assert!(asked < 6, "made-up keys made the platform ask {asked} times");
}

#[test]
fn keys_that_were_never_readable_let_nobody_in_until_they_are() {
    let platform = up().start();
    let (issuer, signer) = (Issuer::new(), Signer::new("a"));
    issuer.says("404 Not Found", "");
    create(&platform, "default", "who", "http|GET|/who", WHO, jwt(&issuer.url()));
    let token = signer.token(&claims());
    let refused = with_bearer(&platform, "/who", &token);
    is(&refused, 503, "auth_unavailable");
    let detail = document(&refused)["detail"].as_str().expect("text").to_owned();
    assert!(detail.contains("who") && detail.contains(&issuer.url()) && detail.contains("404"), "{detail}");
    assert!(refused.headers().contains_key("retry-after"));
    is(&get(&platform, "/who", &[]), 401, "token_missing");
    issuer.shows(&[&signer]);
    let limit = Instant::now() + Duration::from_secs(60);
    while with_bearer(&platform, "/who", &token).status() == 503 {
        assert!(Instant::now() < limit, "the keys are never read again");
    }
    assert_eq!(with_bearer(&platform, "/who", &token).status(), 200);
    // The management of the platform is nobody's set of keys.
    let own = format!("http://{}/version", platform.api);
    create(&platform, "default", "odd", "http|GET|/odd", WHO, jwt(&own));
    let refused = with_bearer(&platform, "/odd", &token);
    assert!(
        document(&refused)["detail"].as_str().expect("text").contains("may not be reached"),
        "{refused:?}"
    );
}

/// A key that was made for this test and thrown away, and what it signed, good until 2100.
const RSA_N: &str = "jKFpnoPYwNIawZQOIIE1uL9vmFSzNhtR9w0NuPpK3ulk0Z1Qpj8qI0bsbh9dS4SRpT9TLJs-x54uyFXulTx-bKIdR3vgHNRspLz33NW68Iv41OKY8FjLGVBqScD8hc_rw4hq6sTj7wvaPnJxUTC9ggx-nwhPBVisa7h7exLSUu4MEmNbDc3XrXKRf4LgAE_Dr8_tY6pL7gcDBNi5sOl9vUEWRbP5pXDrUPnKUeFMU4Nf53FXVCJmIUjQhm7CcNpJSx1KNFCzVnfi7_-SjFTaeWD0tRIODT33MFi85UV7RxE435sLhMORT0LQjWnki3yPrSVUIjAsholzwT9jE2wtNw";
const RS256: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLyIsImF1ZCI6InRodW1icyIsImV4cCI6NDEwMjQ0NDgwMCwic3ViIjoicnNhIn0.Yn9Tjk5ecsGOy7afUVVWDOlHxbmqzCgiiFeucTE4txyqG4iba8TpO2G2m0Dy1-jqlCP3ciYDb7nvKcJBHiFSyAWkTGyEguv_vTgQvGSgE8JwJAQIzC0WExXtscUSZjJSTzr_0Ac3E1yrS6oVv2XTQtBIvm0-B4iJTkPuaSppAetopEriRpUYwfVTpkzYeYA4bif1CLVW0n87KzO1XcCXlvTFhxn8tlRdltw6hzy_ViMJtjuREUfwcd88ure-UiI1CoOzRt7ZTBzoJZNXHtf4pceL13vtNwm024xllwByYK1y7w_Jw-kOj_6fn3iHe8B1OMVdWmlxaiifJB3AyoncbA";
const PS256: &str = "eyJhbGciOiJQUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlLyIsImF1ZCI6InRodW1icyIsImV4cCI6NDEwMjQ0NDgwMCwic3ViIjoicnNhIn0.KgwzdveCRkPGJkxEJeeSqahnR68VAWx23cJd6zlEWPwft2D5SOG9w-HAOLlK_RKYjYPDzn-v_40_xKIBYmspuUdIsuAvbnxqcNSEVnOY6gpR-X3nUPJl3gUFIcYofIip54tYoAmyCPyIYrM4P3uimU4RpXpGxvQNaB-0wsxjQobQNk_tc2-HGMN_asAvwkS-HW1YlyYP9GwNXDP0yCdLwhINl59T6rgYxrGI31HWRRol-pXDm8ztGki70G1QsyxfKUKhXYvoLudPlXxAnOOdVVGRPweRJ3InXknGLxqgvTDJ0kBNIqOva5BFApEDuM1ITCHPAZme289EnnKv_tE2DQ";

#[test]
fn keys_come_along_in_a_file_of_the_function_and_hold_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).expect("written");
    write("handler.py", WHO);
    write(
        "function.toml",
        "name = \"who\"\nevents = [\"http|GET|/who\"]\n[auth.jwt]\njwks = \"keys.json\"\nissuer = \"https://issuer.example/\"\naudience = [\"thumbs\", \"images\"]\n",
    );
    let data = tempfile::tempdir().expect("a directory");
    let mut platform = up().data_dir(data.path()).start();
    let source = dir.path().to_str().expect("UTF-8");
    let without = platform.cli(&["deploy", source]);
    assert_eq!(without.status.code(), Some(4), "{without:?}");
    assert!(without.stderr.contains("keys.json"), "{without:?}");
    write("keys.json", "{\"keys\": []}");
    assert_eq!(platform.cli(&["deploy", source]).status.code(), Some(4));
    let rsa = json!({ "kty": "RSA", "kid": "rsa", "n": RSA_N, "e": "AQAB" });
    write("keys.json", &json!({ "keys": [rsa] }).to_string());
    let deployed = platform.cli(&["deploy", source]);
    assert!(deployed.status.success(), "{deployed:?}");
    for token in [RS256, PS256] {
        assert_eq!(done(with_bearer(&platform, "/who", token))["auth"]["claims"]["sub"], "rsa");
    }
    is(&with_bearer(&platform, "/who", &RS256.replacen("Yn9", "Yn8", 1)), 401, "token_invalid");
    assert!(platform.stop().success());
    let platform = up().data_dir(data.path()).start();
    assert_eq!(with_bearer(&platform, "/who", PS256).status(), 200);
    is(&get(&platform, "/who", &[]), 401, "token_missing");
}

#[test]
fn each_function_of_an_event_type_asks_for_itself() {
    let platform = up().start();
    let event = "http|GET|/shared";
    create(&platform, "default", "first", event, WHO, json!({ "visibility": "private" }));
    create(&platform, "default", "second", event, WHO, json!({ "auth": { "key": true } }));
    create(&platform, "default", "third", event, WHO, json!({}));
    let counts = || ["first", "second", "third"].map(|name| number_of_calls(&platform, name));
    let wait_for = |wanted: [usize; 3]| {
        let limit = Instant::now() + Duration::from_secs(30);
        while counts() != wanted {
            assert!(Instant::now() < limit, "{:?} instead of {wanted:?}", counts());
        }
    };
    // A stranger does not see the first, is refused by the second, and let in by the third.
    is(&get(&platform, "/shared", &[]), 401, "key_missing");
    wait_for([0, 0, 1]);
    let key = create_key(&platform, "default", "invoke");
    let answer = done(with_bearer(&platform, "/shared", &key));
    assert_eq!(answer["auth"]["kind"], "key");
    wait_for([1, 1, 2]);
}

#[test]
fn the_management_calls_whatever_a_function_asks_of_others_and_says_so() {
    let platform = up().start();
    let settings = json!({ "auth": { "key": true, "jwt": jwt("https://issuer.invalid/")["auth"]["jwt"] } });
    create(&platform, "default", "who", "http|GET|/who", WHO, settings);
    let key = create_key(&platform, "default", "invoke");
    let header = format!("Authorization: Bearer {key}");
    let request = json!({ "http_verb": "GET", "http_path": "/who", "http_header": header, "http_body": "" });
    let invoked = done(manage(&platform, "default", "POST", "/functions/who/invoke", &request));
    assert_eq!(invoked, json!({ "auth": { "kind": "api" }, "authorization": null }));
    let triggered = done(manage(&platform, "default", "POST", "/functions/trigger", &request));
    let id = triggered["container_ids"][0].as_str().expect("an id").to_owned();
    let limit = Instant::now() + Duration::from_secs(30);
    let result = loop {
        let record = platform.api(&format!("/invocations/{id}"));
        if let Some(text) = record["result"].as_str() {
            break serde_json::from_str::<Value>(text).expect("JSON");
        }
        assert!(Instant::now() < limit, "{record}");
    };
    assert_eq!(result, json!({ "auth": { "kind": "api" }, "authorization": null }));
}

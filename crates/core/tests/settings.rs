//! `function.toml` and the API's `settings`: every key, every error with its field and line.

use std::time::Duration;

use bytesize::ByteSize;
use fp_core::quota::Quota;
use fp_core::settings::{
    Auth, Criticality, Fallback, Fault, Handler, HandlerError, Hedge, HmacAuth, Idempotency, IdleTime,
    JwtAuth, KeysFrom, LatencyObjective, Network, OnDisconnect, SettingsError, Slo, Visibility,
};
use fp_core::{Manifest, Settings};
use serde_json::json;

/// The manifest of the interface, without `requirements`.
const EVERYTHING: &str = r#"
name = "thumbs"
handler = "src/app.py:main"
events = ["http|post|/thumbs/{id}"]
python = "3.11"
timeout = "1m 30s"
stream_idle = "10s"
stream_total = "1h"
memory = "256MiB"
tasks = 32
cpu = 1
cpu_limit = 0.5
concurrency = 8
network = "internal"
idempotent = "key"
criticality = "sheddable"
on_disconnect = "finish"
env = { LEVEL = "info", API_TOKEN = { secret = "TOKEN" } }
secrets = ["STRIPE_KEY", "TOKEN", "TOKEN"]
preload = ["numpy", "os.path"]
path = ["lib"]
labels = { team = "media" }
[limits]
body = "1MiB"
response = 2048
logs = "0B"
[scaling]
min = 1
max = 4
idle = "0s"
[latency]
hedge = "30ms"
fallback = { stale = "5m" }
[slo]
availability = 99.9
latency = { under = "250ms", percent = 99 }
window = "7d"
[quota]
rate = "90/min"
burst = 20
concurrency = 5
backlog = 9
[auth]
key = true
hmac = { secret = "WEBHOOK", header = "X-Signature" }
jwt = { jwks = "keys/jwks.json", issuer = "https://issuer.example/", audience = ["thumbs", "images"] }
"#;

#[test]
fn every_key_is_read() {
    let manifest = Manifest::parse(EVERYTHING).expect("valid");
    assert_eq!(manifest.name.as_str(), "thumbs");
    assert_eq!(manifest.handler, Handler { file: "src/app.py".into(), callable: "main".into() });
    assert_eq!(manifest.events[0].to_string(), "http|POST|/thumbs/{id}");
    let settings = manifest.settings;
    assert_eq!(settings.python.as_deref(), Some("3.11"));
    assert_eq!(settings.timeout, Duration::from_secs(90));
    assert_eq!(settings.stream_idle, Duration::from_secs(10));
    assert_eq!(settings.stream_total, Duration::from_secs(3600));
    assert_eq!(settings.memory, ByteSize::mib(256));
    assert_eq!((settings.tasks, settings.concurrency), (32, 8));
    assert_eq!((settings.cpu, settings.cpu_limit), (1.0, Some(0.5)));
    assert_eq!(settings.network, Network::Internal);
    assert_eq!(settings.idempotent, Idempotency::WithKey);
    assert_eq!(settings.criticality, Criticality::Sheddable);
    assert_eq!(settings.on_disconnect, OnDisconnect::Finish);
    assert_eq!(settings.env["LEVEL"], "info");
    assert_eq!(settings.secrets, ["STRIPE_KEY", "TOKEN"].map(|name| name.parse().expect("a name")));
    assert_eq!(settings.secret_env["API_TOKEN"].as_str(), "TOKEN");
    assert_eq!(settings.preload, ["numpy", "os.path"]);
    assert_eq!(settings.path, ["lib"]);
    assert_eq!(settings.labels["team"], "media");
    assert_eq!(settings.limits.body, ByteSize::mib(1));
    assert_eq!(settings.limits.response, ByteSize::kib(2));
    assert_eq!(settings.limits.logs, ByteSize::b(0));
    assert_eq!((settings.scaling.min, settings.scaling.max), (1, 4));
    assert_eq!(settings.scaling.idle, IdleTime::After(Duration::ZERO));
    assert_eq!(settings.latency.hedge, Hedge::After(Duration::from_millis(30)));
    assert_eq!(settings.latency.fallback, Some(Fallback::Stale(Duration::from_secs(300))));
    let latency = LatencyObjective { under: Duration::from_millis(250), percent: 99.0 };
    assert_eq!(settings.slo, Some(Slo { availability: Some(99.9), latency: Some(latency), window_days: 7 }));
    let rate = "90/min".parse().ok();
    let quota = Quota { rate, burst: Some(20), concurrency: Some(5), backlog: Some(9), ..Quota::default() };
    assert_eq!(settings.quota, quota);
    assert_eq!(settings.visibility, Visibility::Public);
    let hmac = HmacAuth { secret: "WEBHOOK".parse().expect("a name"), header: "x-signature".into() };
    let jwt = JwtAuth {
        jwks: KeysFrom::Code("keys/jwks.json".into()),
        issuer: "https://issuer.example/".into(),
        audience: vec!["thumbs".into(), "images".into()],
    };
    assert_eq!(settings.auth, Auth { key: true, hmac: Some(hmac), jwt: Some(jwt) });
}

#[test]
fn what_is_not_said_has_the_default_of_the_interface() {
    let manifest = Manifest::parse("name = \"a\"").expect("valid");
    assert_eq!(manifest.handler.to_string(), "handler.py:handler");
    assert_eq!(manifest.events, []);
    assert_eq!(manifest.settings, Settings::default());
    insta::assert_json_snapshot!(Settings::default().to_json());
}

#[test]
fn the_json_spelling_reads_back() {
    let settings = Manifest::parse(EVERYTHING).expect("valid").settings;
    assert_eq!(Settings::from_json(&settings.to_json()), Ok(settings));
    let mut other = Settings::default();
    assert_eq!(Settings::from_json(&other.to_json()), Ok(other.clone()));
    other.latency.fallback = Some(Fallback::Function("spare".parse().expect("a name")));
    other.latency.hedge = Hedge::Off;
    other.idempotent = Idempotency::Never;
    other.limits.body = ByteSize::b(1001);
    other.visibility = Visibility::Private;
    assert_eq!(Settings::from_json(&other.to_json()), Ok(other));
    assert_eq!(Settings::from_json(&json!({})), Ok(Settings::default()));
}

fn refused(text: &str) -> SettingsError {
    Manifest::parse(&format!("name = \"a\"\n{text}")).expect_err(text)
}

#[test]
fn errors_name_the_field_the_line_and_what_to_write() {
    let errors = [
        "timout = \"5s\"",
        "max = 3",
        "colour = \"red\"",
        "[slo]\navailability = 99\nwindov = \"7d\"",
        "[slo]\nlatency = { under = \"1s\" }",
        "[slo]\n",
        "timeout = \"5 parsecs\"",
        "timeout = 5",
        "timeout = \"2h\"",
        "memory = \"15MiB\"",
        "memory = \"lots\"",
        "tasks = 3",
        "tasks = 4.5",
        "cpu = 0",
        "cpu = nan",
        "concurrency = 1001",
        "network = \"some\"",
        "idempotent = \"yes\"",
        "python = 3.11",
        "python = \"2.7\"",
        "env = { \"A-B\" = \"x\" }",
        "env = { A = 1 }",
        "env = { A = { sekret = \"KEY\" } }",
        "env = { A = { secret = \"A-B\" } }",
        "visibility = \"secret\"",
        "visibilty = \"private\"",
        "visibility = \"private\"\nauth = { hmac = { secret = \"S\" } }",
        "jwt = { jwks = \"jwks.json\" }",
        "[auth]\nkey = \"yes\"",
        "[auth]\nhmca = { secret = \"S\" }",
        "[auth]\nhmac = { secert = \"S\" }",
        "[auth]\nhmac = { secret = \"S\", header = \"Authorization\" }",
        "[auth.jwt]\njwks = \"jwks.json\"\naudience = \"a\"",
        "[auth.jwt]\njwks = \"jwks.json\"\nissuer = \"i\"",
        "[auth.jwt]\njwks = \"../jwks.json\"\nissuer = \"i\"\naudience = \"a\"",
        "[auth.jwt]\njwks = \"jwks.json\"\nissuer = \"i\"\naudience = []",
        "env = { A = { secret = \"KEY\" } }",
        "secrets = \"KEY\"",
        "secrets = [\"1KEY\"]",
        "preload = [\"a b\"]",
        "path = [\n  \"lib\",\n  \"../lib\",\n]",
        "requirements = \"requirements.txt\"",
        "handler = \"/etc/x.py:f\"",
        "events = [\"cron|* * * * *\"]",
        "[limits]\nbody = \"2GiB\"",
        "[scaling]\nmin = 5\nmax = 2",
        "[scaling]\nmax = 0",
        "[scaling]\nidle = \"soon\"",
        "[latency]\nhedge = \"maybe\"",
        "[latency]\nfallback = { stale = \"5m\", function = \"b\" }",
        "[slo]\navailability = 100",
        "[slo]\navailability = 99\nwindow = \"90d\"",
        "[quota]\nrate = \"fast\"",
        "[slo]\navailabilty = 99.9",
        "[slo]\nlatency = { undr = \"250ms\", percent = 99 }",
        "[latency]\nfallback = { stal = \"5m\" }",
        "[quota]\nburst = 5",
        "[quota]\nmemory = \"1GiB\"",
        "[quota]\nconcurrency = 0",
        "limits = 5",
        "name = \"b\"",
        "x = ",
    ];
    let text: Vec<_> = errors.iter().map(|text| format!("{text}\n    {}\n", refused(text))).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn fields_are_dotted_paths_and_json_has_no_lines() {
    let error = refused("[slo]\nlatency = { under = \"x\", percent = 99 }");
    assert_eq!((error.field.as_str(), error.line), ("slo.latency.under", Some(3)));
    assert_eq!(error.code(), fp_core::code::Code::InvalidManifest);
    let error = Settings::from_json(&json!({"limits": {"body": true}})).expect_err("a boolean");
    assert_eq!((error.field.as_str(), error.line), ("limits.body", None));
    assert_eq!(error.code(), fp_core::code::Code::InvalidSettings);
    let error = Settings::from_json(&json!({"name": "b"})).expect_err("not a setting");
    assert!(matches!(error.fault, Fault::Unknown { .. }));
    assert!(Settings::from_json(&json!([])).is_err());
    assert!(Manifest::parse("").expect_err("no name").to_string().starts_with("name is missing"));
}

#[test]
fn handlers_stay_inside_the_directory() {
    assert!("a/b.py:f".parse::<Handler>().is_ok());
    for (text, error) in [
        ("handler.py", HandlerError::Shape),
        ("handler:f", HandlerError::Shape),
        (".py:f", HandlerError::Shape),
        ("/a.py:f", HandlerError::Outside),
        ("a/../b.py:f", HandlerError::Outside),
        ("a.py:", HandlerError::Callable),
        ("a.py:f()", HandlerError::Callable),
    ] {
        assert_eq!(text.parse::<Handler>(), Err(error), "{text}");
    }
}

#[test]
fn idempotency_is_declared_or_follows_from_the_verb() {
    for (declared, verb, has_key, allowed) in [
        (Idempotency::ByVerb, "GET", false, true),
        (Idempotency::ByVerb, "POST", true, false),
        (Idempotency::Always, "POST", false, true),
        (Idempotency::Never, "GET", true, false),
        (Idempotency::WithKey, "POST", true, true),
        (Idempotency::WithKey, "GET", false, false),
    ] {
        assert_eq!(declared.allows(verb, has_key), allowed, "{declared:?} {verb} {has_key}");
    }
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_manifest_or_an_error(text in "[a-z\\[\\]{}=.\"\n0-9 ]{0,60}") {
        let _ = Manifest::parse(&text);
    }
}

#[test]
fn a_schedule_reads_back_and_is_refused_with_its_line() {
    let manifest =
        |schedule: &str| format!("name = \"x\"\n[scaling]\nmax = 8\nschedule = [\n  {schedule}\n]\n");
    let office = "{ cron = \"0 8 * * 1-5\", for = \"10h\", min = 4 }";
    let settings = Manifest::parse(&manifest(office)).expect("valid").settings;
    let json = settings.to_json();
    assert_eq!(json["scaling"]["schedule"], json!([{ "cron": "0 8 * * 1-5", "for": "10h", "min": 4 }]));
    assert_eq!(Settings::from_json(&json).expect("its own"), settings);
    for (schedule, field) in [
        ("{ cron = \"0 25 * * *\", for = \"10h\", min = 4 }", "scaling.schedule[0].cron"),
        ("{ cron = \"0 8 * * *\", for = \"2days\", min = 4 }", "scaling.schedule[0].for"),
        ("{ cron = \"0 8 * * *\", for = \"1h\", min = 9 }", "scaling.schedule[0].min"),
        ("{ cron = \"0 8 * * *\", for = \"1h\" }", "scaling.schedule[0].min"),
        ("{ cron = \"0 8 * * *\", for = \"1h\", min = 1, max = 2 }", "scaling.schedule[0].max"),
    ] {
        let error = Manifest::parse(&manifest(schedule)).expect_err(schedule);
        assert_eq!((error.field.as_str(), error.line), (field, Some(5)), "{error}");
    }
}

//! Before everything on the management listeners: each call leaves a record in the audit log.
//!
//! It stands outside of the guard and of the question who asks, so that what they refuse is noted
//! too, and it notes also a call whose caller left before there was an answer. What tells nothing
//! of anybody's things (health, metrics, the look of pages, the API's own description) is noted only
//! when it was refused.
//!
//! Of a path the secret half of a key is cut out: somebody may have pasted a whole one.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use fp_core::code::Code;
use fp_core::key::SECRET_LEN;
use fp_core::{InvocationId, KeyId, PresentedKey, Tenant};
use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use parking_lot::Mutex;
use percent_encoding::percent_decode_str;

use super::caller::{self, Caller, Suspect, Who};
use super::pages::Port;
use crate::access::{Access, Key};
use crate::app::App;
use crate::audit::{Asker, Kind, Means, Record};

/// The call's id, in every answer of a management listener.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Longest path or foreign word in a record, in characters: longer ones name nothing of ours.
const MAX_TEXT: usize = 300;

/// Who left before there was an answer; the number that nginx gave it.
const LEFT: u16 = 499;

/// Where a listener's calls are noted.
#[derive(Debug, Clone)]
pub(super) struct Desk {
    pub(super) app: Arc<App>,
    /// Which listener it is.
    pub(super) port: Port,
}

/// The other end of the connection that a request came on.
#[derive(Debug, Clone, Copy)]
pub(super) struct PeerAddress(pub(super) SocketAddr);

/// What is learned of a call on its way to its answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trail(Arc<Mutex<Learned>>);

#[derive(Debug, Default)]
struct Learned {
    /// Whose things it is about, and who asks.
    asker: Option<(Tenant, Asker)>,
    acted_on: Option<String>,
}

impl Trail {
    /// Who asks is known.
    pub(super) fn identified(&self, caller: &Caller, headers: &HeaderMap) {
        let asker = match &caller.who {
            Who::Local => asker_of(Means::Loopback, &Tenant::default(), None),
            Who::Key(key) => holder(key, headers),
        };
        self.0.lock().asker = Some((caller.tenant.clone(), asker));
    }

    /// Somebody has begun or ended a session with this key.
    pub(super) fn signed(&self, key: &Key) {
        let mut learned = self.0.lock();
        let asker = asker_of(Means::Session, key.tenant(), Some(key));
        learned.asker = Some((key.tenant().clone(), asker));
    }

    /// Somebody tried to begin a session with what may be a key.
    pub(super) fn claimed(&self, access: &Access, text: &str) {
        let id = PresentedKey::parse(text).ok().map(|presented| presented.id);
        self.0.lock().asker = Some(claimant(id, id.and_then(|id| access.key(id)).as_deref()));
    }

    /// What the call is about, where its path does not say: `function thumbs`.
    pub(super) fn acted_on(&self, noun: &str, name: impl std::fmt::Display) {
        self.0.lock().acted_on = Some(bounded(&format!("{noun} {name}")));
    }
}

fn holder(key: &Key, headers: &HeaderMap) -> Asker {
    let means = if headers.contains_key(AUTHORIZATION) { Means::Bearer } else { Means::Session };
    asker_of(means, key.tenant(), Some(key))
}

/// Somebody with a key that is not in force: they are told to whom it belongs, if it is one of ours.
fn claimant(id: Option<KeyId>, key: Option<&Key>) -> (Tenant, Asker) {
    let tenant = key.map(|key| key.tenant().clone());
    let mut asker =
        Asker { means: Means::NotInForce, key_id: id.map(|id| id.to_string()), ..Asker::default() };
    if let Some(key) = key {
        asker = asker_of(Means::NotInForce, key.tenant(), Some(key));
    }
    (tenant.unwrap_or_default(), asker)
}

fn asker_of(means: Means, tenant: &Tenant, key: Option<&Key>) -> Asker {
    Asker {
        means,
        tenant: Some(tenant.to_string()),
        key_id: key.map(|key| key.id().to_string()),
        key_name: key.map(|key| key.name().to_string()),
    }
}

/// Puts the desk before everything else of a listener.
pub(super) fn noted(router: Router, desk: Desk) -> Router {
    router.layer(middleware::from_fn_with_state(desk, note))
}

async fn note(State(desk): State<Desk>, mut request: Request, next: Next) -> Response {
    let trail = Trail::default();
    let mut call = Call::begin(desk, &request, trail.clone());
    request.extensions_mut().insert(trail);
    let mut response = next.run(request).await;
    call.on_answer(&response);
    response.headers_mut().insert(X_REQUEST_ID, call.id_header());
    response
}

/// A call under way; noted when this goes, whether there was an answer or not.
#[derive(Debug)]
struct Call {
    desk: Desk,
    trail: Trail,
    id: InvocationId,
    at_us: u64,
    began: Duration,
    peer: Option<SocketAddr>,
    forwarded_for: Option<HeaderValue>,
    method: Method,
    path: String,
    /// The route's pattern, if there is one.
    route: Option<MatchedPath>,
    /// What it showed to be let in, to be looked at only if nobody did.
    credentials: HeaderMap,
    status: Option<StatusCode>,
    code: Option<Code>,
}

impl Call {
    fn begin(desk: Desk, request: &Request, trail: Trail) -> Self {
        let headers = request.headers();
        let mut credentials = HeaderMap::new();
        for name in [AUTHORIZATION, COOKIE] {
            for value in headers.get_all(&name) {
                credentials.append(name.clone(), value.clone());
            }
        }
        let at_us = desk.app.clock.wall_now_us();
        Self {
            began: desk.app.clock.now(),
            id: InvocationId::from_parts(at_us / 1000, fastrand::u128(..)),
            at_us,
            peer: request.extensions().get::<PeerAddress>().map(|peer| peer.0),
            forwarded_for: headers.get(X_FORWARDED_FOR).cloned(),
            method: request.method().clone(),
            path: readable(request.uri().path()),
            route: request.extensions().get::<MatchedPath>().cloned(),
            credentials,
            status: None,
            code: None,
            desk,
            trail,
        }
    }

    fn on_answer(&mut self, response: &Response) {
        self.status = Some(response.status());
        self.code = response.extensions().get::<Code>().copied();
    }

    fn id_header(&self) -> HeaderValue {
        HeaderValue::try_from(self.id.to_string()).expect("hexadecimal digits")
    }

    fn kind(&self, is_known: bool) -> Kind {
        let is_call = self.is_call();
        // A function that is run answers with statuses of its own, which refuse nothing here.
        let is_refused =
            self.status.is_some_and(|status| status.is_client_error()) && (!is_call || self.code.is_some());
        if is_refused || !is_known {
            Kind::Refusal
        } else if is_call {
            Kind::Call
        } else if matches!(self.method, Method::GET | Method::HEAD | Method::OPTIONS)
            || matches!(self.path.as_str(), "/login" | "/logout")
        {
            // A session changes nothing of anybody's, and whoever may only read begins as many as they like.
            Kind::Read
        } else {
            Kind::Change
        }
    }

    fn is_call(&self) -> bool {
        let route = self.route.as_ref().map(MatchedPath::as_str);
        matches!(route, Some("/functions/trigger" | "/functions/{name}/invoke"))
    }

    fn record(&self) -> Option<Record> {
        let Learned { asker, acted_on } = std::mem::take(&mut *self.trail.0.lock());
        let is_refused = self.status.is_some_and(|status| status.is_client_error());
        if is_quiet(&self.method, &self.path) && !is_refused {
            return None;
        }
        let kind = self.kind(asker.is_some());
        let (tenant, caller) = asker.unwrap_or_else(|| seeming(&self.desk.app, &self.credentials));
        let route = self.route.as_ref().map(MatchedPath::as_str);
        let took = self.desk.app.clock.now().saturating_sub(self.began);
        Some(Record {
            seq: 0,
            at_us: self.at_us,
            request_id: self.id.to_string(),
            kind,
            tenant: tenant.to_string(),
            caller,
            peer: self.peer.map(|peer| peer.to_string()),
            forwarded_for: self
                .forwarded_for
                .as_ref()
                .map(|text| bounded(&String::from_utf8_lossy(text.as_bytes()))),
            listener: match self.desk.port {
                Port::Api => "api".to_owned(),
                Port::Traces => "traces".to_owned(),
            },
            method: bounded(self.method.as_str()),
            path: self.path.clone(),
            acted_on: acted_on.or_else(|| thing(route?, &self.path)),
            status: self.status.map_or(LEFT, |status| status.as_u16()),
            code: self.code.map(|code| code.word().to_owned()),
            duration_ms: took.as_micros() as f64 / 1e3,
            lost_before: 0,
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(record) = self.record() {
            self.desk.app.audit.note(record);
        }
    }
}

/// What says nothing of anybody's things.
fn is_quiet(method: &Method, path: &str) -> bool {
    let is_shown = matches!(path, "/login") && *method != Method::POST;
    let is_description = path == "/docs" || path == "/openapi.json" || path.starts_with("/docs/");
    let is_probe = matches!(path, "/healthz" | "/readyz" | "/version" | "/metrics");
    is_shown || is_description || is_probe || path == "/favicon.ico" || path.starts_with("/static/")
}

/// Who a request seems to be from that was refused before anybody asked, or because of the answer.
fn seeming(app: &App, credentials: &HeaderMap) -> (Tenant, Asker) {
    let cookie = caller::session_cookie(app.addresses.management_tls);
    match caller::suspect(&app.access, cookie, credentials) {
        Suspect::Holder(key) => (key.tenant().clone(), holder(&key, credentials)),
        Suspect::Claims(id, key) => claimant(id, key.as_deref()),
        Suspect::Nobody => (Tenant::default(), Asker::default()),
    }
}

/// What a path names by its route: `/keys/{id}` names a key.
fn thing(route: &str, path: &str) -> Option<String> {
    let mut before = "";
    for (pattern, segment) in route.split('/').zip(path.split('/')) {
        if pattern.starts_with('{') {
            let noun = before.strip_suffix('s').unwrap_or(before);
            return Some(format!("{noun} {segment}"));
        }
        before = pattern;
    }
    None
}

/// A path as it is shown: percent-decoded, of bounded length, without the secrets of keys.
fn readable(path: &str) -> String {
    bounded(&without_keys(&percent_decode_str(path).decode_utf8_lossy()))
}

fn bounded(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Cuts the secret half out of everything that looks like a key, whole or in part.
fn without_keys(text: &str) -> String {
    let mut rest = text;
    let mut clean = String::with_capacity(text.len());
    while let Some(start) = rest.find("fpk_") {
        let (before, key) = rest.split_at(start);
        let is_of_key = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let end = key.bytes().take_while(|byte| is_of_key(byte)).take(KEY_LEN).count();
        let shown = end.min(KEY_LEN - SECRET_LEN);
        clean.push_str(before);
        clean.push_str(&key[..shown]);
        if shown < end {
            clean.push('…');
        }
        rest = &key[end..];
    }
    clean + rest
}

/// `fpk_`, an id, `_` and a secret.
const KEY_LEN: usize = "fpk_".len() + 8 + 1 + SECRET_LEN;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_somebody_pasted_is_not_kept() {
        let secret = "A".repeat(SECRET_LEN);
        let whole = format!("/keys/fpk_k3j9x0ab_{secret}/x");
        assert_eq!(readable(&whole), "/keys/fpk_k3j9x0ab_…/x");
        assert_eq!(readable(&whole.replace('_', "%5F")), "/keys/fpk_k3j9x0ab_…/x");
        assert_eq!(readable("/keys/fpk_k3j9x0ab_AAA"), "/keys/fpk_k3j9x0ab_…", "a part of one is one too");
        assert_eq!(readable("/keys/k3j9x0ab"), "/keys/k3j9x0ab");
        assert_eq!(readable("/fpk_"), "/fpk_");
        let two = format!("fpk_k3j9x0ab_{secret}fpk_k3j9x0ac_{secret}");
        assert_eq!(without_keys(&two), "fpk_k3j9x0ab_…fpk_k3j9x0ac_…");
    }

    #[test]
    fn what_is_noted_is_bounded() {
        assert_eq!(readable(&"/é".repeat(9_000)).chars().count(), MAX_TEXT + 1);
    }

    #[test]
    fn paths_name_what_they_are_about() {
        assert_eq!(thing("/keys/{id}", "/keys/k3j9x0ab").as_deref(), Some("key k3j9x0ab"));
        assert_eq!(thing("/tenants/{name}/quota", "/tenants/acme/quota").as_deref(), Some("tenant acme"));
        assert_eq!(
            thing("/functions/instances/{id}/logs", "/functions/instances/x/logs").as_deref(),
            Some("instance x")
        );
        assert_eq!(thing("/functions", "/functions"), None);
    }

    #[test]
    fn little_is_left_out() {
        for quiet in ["/healthz", "/metrics", "/static/app.css", "/docs/index.css", "/login"] {
            assert!(is_quiet(&Method::GET, quiet), "{quiet}");
        }
        for noted in ["/", "/functions", "/audit", "/host", "/docsx", "/logout", "/search"] {
            assert!(!is_quiet(&Method::GET, noted), "{noted}");
        }
        assert!(!is_quiet(&Method::POST, "/login"));
    }
}

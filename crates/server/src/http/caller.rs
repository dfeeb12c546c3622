//! Who asks: a key, a session, or whoever reaches a listener that asks for neither.
//!
//! [`authenticate`] stands before every route of the management listeners, so that a route cannot
//! be forgotten: without a key, a listener that wants one answers the few paths of [`is_open`] and
//! nothing else. Handlers take a [`Caller`] and say which scope they need; they see only the things
//! of the caller's tenant, and what is another's is answered as if it did not exist.
//!
//! Once the body of a request is here, it is asked again ([`ask_again`]): bodies take their time, and
//! what let the caller in may have ended meanwhile.
//!
//! A key that came and is not in force is always 401, also where none is needed: whoever sends one
//! believes to be somebody.

use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts, OptionalFromRequestParts, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use fp_core::code::Code;
use fp_core::{KeyId, PresentedKey, Scope, Scopes, Tenant};
use http::header::{AUTHORIZATION, COOKIE, HeaderName, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{Extensions, HeaderMap, Uri};
use serde_json::{Value, json};

use super::audit::Trail;
use super::pages::Port;
use super::problem::Problem;
use super::{login, pages};
use crate::access::{Access, AccessError, Grant, Key};
use crate::app::App;

/// The tenant that the operator acts for.
pub(crate) const X_TENANT: HeaderName = HeaderName::from_static("x-tenant");

/// The cookie that holds a session. Cookies know no ports, so one sign-in serves pages and traces;
/// and the gateway takes it out of what functions see.
pub(crate) const COOKIE_NAME: &str = "functionsplatform_session";

/// Its name where TLS is spoken: browsers take one of this name only over TLS, from the very host, so
/// that none comes from a neighbour below the same domain or from who changes plain HTTP on its way.
const SECURE_COOKIE_NAME: &str = "__Host-functionsplatform_session";

/// The session's cookie on listeners that speak TLS, or do not.
pub(super) fn session_cookie(is_tls: bool) -> &'static str {
    if is_tls { SECURE_COOKIE_NAME } else { COOKIE_NAME }
}

/// Whether a cookie's name is one that a session may have.
pub(super) fn is_session(name: &[u8]) -> bool {
    [COOKIE_NAME, SECURE_COOKIE_NAME].iter().any(|own| own.as_bytes() == name)
}

/// Who a request is from, and for whom they act.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Whose things the request is about.
    pub(crate) tenant: Tenant,
    /// When that tenant began: two of one name differ in it.
    pub(crate) since_us: u64,
    /// Who asks.
    pub(crate) who: Who,
    /// What they may do.
    pub(crate) scopes: Scopes,
    /// Where the call's record hears what it is about.
    trail: Trail,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) enum Who {
    /// Whoever reaches a listener that asks for no key: the machine's own people.
    Local,
    /// The holder of a key.
    Key(Arc<Key>),
}

impl Who {
    /// Whose they are.
    fn home(&self) -> Tenant {
        match self {
            Self::Local => Tenant::default(),
            Self::Key(key) => key.tenant().clone(),
        }
    }

    fn scopes(&self) -> Scopes {
        match self {
            Self::Local => Scopes::all(),
            Self::Key(key) => key.scopes(),
        }
    }
}

impl Caller {
    /// Goes on only with this scope.
    ///
    /// # Errors
    /// `scope_missing` (403), which names the scope and the key.
    pub(crate) fn require(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.allow(scope) { Ok(()) } else { Err(self.lacks(scope, "")) }
    }

    /// Goes on only for the operator: an admin of the tenant `default`, whomever they act for.
    ///
    /// # Errors
    /// `scope_missing` (403).
    pub(crate) fn require_operator(&self) -> Result<(), Problem> {
        if self.is_operator() { Ok(()) } else { Err(self.lacks(Scope::Admin, " in the tenant default")) }
    }

    /// Whether it is the operator who asks.
    pub(crate) fn is_operator(&self) -> bool {
        self.who.home() == Tenant::default() && self.scopes.allow(Scope::Admin)
    }

    /// Whether they see every tenant's at once: the operator, where they act for none.
    pub(crate) fn sees_all(&self) -> bool {
        self.is_operator() && self.tenant == Tenant::default()
    }

    /// Those whose they see.
    pub(crate) fn tenants(&self, app: &App) -> Vec<Tenant> {
        let named = || app.access.tenants().into_iter().map(|tenant| tenant.name);
        let mut tenants = vec![self.tenant.clone()];
        tenants.extend(self.sees_all().then(named).into_iter().flatten());
        tenants
    }

    /// What they were let in by.
    pub(crate) fn grant(&self) -> Grant {
        let key = match &self.who {
            Who::Local => None,
            Who::Key(key) => Some(key.clone()),
        };
        Grant { key, tenant: self.tenant.clone(), since_us: self.since_us }
    }

    /// Tells the call's record what it is about, where its path does not say so.
    pub(crate) fn acted_on(&self, noun: &str, name: impl std::fmt::Display) {
        self.trail.acted_on(noun, name);
    }

    /// What functions that ask who calls them are told of somebody who came this way.
    pub(crate) fn facts(&self) -> Arc<Value> {
        Arc::new(match &self.who {
            Who::Local => json!({ "kind": "api" }),
            Who::Key(key) => json!({ "kind": "api", "key": key.name().as_str(), "id": key.id().as_str() }),
        })
    }

    fn lacks(&self, scope: Scope, place: &str) -> Problem {
        let name = match &self.who {
            Who::Local => "nobody's",
            Who::Key(key) => key.name().as_str(),
        };
        let has = self.scopes;
        let detail = format!("this needs the scope {scope}{place}, and the key {name:?} has {has}");
        Problem::new(Code::ScopeMissing, detail).extra("scope", scope.word()).extra("key", name)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or_else(no_key)
    }
}

/// For the routes that answer everybody, and some more.
impl<S: Send + Sync> OptionalFromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Option<Self>, Problem> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

/// How a listener lets people in.
#[derive(Debug, Clone)]
pub(crate) struct Door {
    pub(crate) app: Arc<App>,
    /// Which listener it is.
    pub(crate) port: Port,
    /// Nobody gets in without a key.
    pub(crate) needs_key: bool,
}

/// Why a request is from nobody that we know.
#[derive(Debug)]
enum Unknown {
    /// No key came, and one is needed.
    Nobody,
    /// The session of the cookie has ended.
    SessionOver,
    /// Anything else, which is wrong on every path.
    Refused(Problem),
}

/// Puts the question before every route and fallback of a listener.
pub(crate) fn authenticated(router: Router, door: Door) -> Router {
    router.layer(middleware::from_fn_with_state(door, authenticate))
}

async fn authenticate(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let trail = request.extensions().get::<Trail>().cloned().unwrap_or_default();
    let cookie = session_cookie(door.app.addresses.management_tls);
    let identified = identify(&door.app.access, door.needs_key, cookie, request.headers());
    let identified = identified.map(|caller| {
        trail.identified(&caller, request.headers());
        Caller { trail, ..caller }
    });
    let (path, headers) = (request.uri().path(), request.headers());
    match identified {
        Ok(caller) if pages::is_page(path) && !caller.scopes.allow(Scope::Read) => {
            pages::forbidden(&door.app, door.port, headers, &caller).await
        }
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            request.extensions_mut().insert(door.app.access.clone());
            request.extensions_mut().insert(door.app.bodies.clone());
            next.run(request).await
        }
        Err(Unknown::Refused(problem)) => problem.into_response(),
        Err(_) if is_open(path) => next.run(request).await,
        Err(unknown) if pages::is_page(path) => {
            let to_login = Redirect::to(&login::link(request.uri())).into_response();
            // A session that has ended must not keep its holder out where no key is needed.
            let is_over = matches!(unknown, Unknown::SessionOver);
            if is_over { login::without_cookie(to_login, cookie) } else { to_login }
        }
        Err(Unknown::SessionOver) => {
            login::without_cookie(not_in_force("the session has ended").into_response(), cookie)
        }
        Err(Unknown::Nobody) => no_key().into_response(),
    }
}

/// Asks once more who is there, when a body has come.
///
/// # Errors
/// When the caller's key or tenant has ended meanwhile.
pub(super) fn ask_again(extensions: &Extensions) -> Result<(), Problem> {
    let (Some(caller), Some(access)) = (extensions.get::<Caller>(), extensions.get::<Arc<Access>>()) else {
        return Ok(());
    };
    access.still_holds(&caller.grant()).map_err(refused)
}

/// Turns the refusal of a change to tenants or keys into an answer.
pub(super) fn refused(error: AccessError) -> Problem {
    if let AccessError::Store(error) | AccessError::RevocationUnwritten(error) = &error {
        tracing::error!(error = %error.chain(), "the registry did not do what it was asked");
    }
    let problem = Problem::new(error.code(), error.to_string());
    if error.code() == Code::KeyInvalid { challenge(problem) } else { problem }
}

/// What is answered to everybody: whether the platform is well, and what the way in needs.
fn is_open(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/version" | "/login" | "/logout" | "/favicon.ico")
        || path.starts_with("/static/")
}

fn identify(access: &Access, needs_key: bool, cookie: &str, headers: &HeaderMap) -> Result<Caller, Unknown> {
    let who = match (bearer(headers).map_err(Unknown::Refused)?, session_of(headers, cookie)) {
        (Some(text), _) => {
            let key = access.check(text);
            Who::Key(key.ok_or_else(|| {
                Unknown::Refused(not_in_force(
                    "the key is none of this platform's, has expired or was revoked",
                ))
            })?)
        }
        (None, Session::One(text)) => Who::Key(access.session(text).ok_or(Unknown::SessionOver)?),
        (None, Session::Several) => return Err(Unknown::SessionOver),
        (None, Session::None) if needs_key => return Err(Unknown::Nobody),
        (None, Session::None) => Who::Local,
    };
    let scopes = who.scopes();
    let caller = Caller { tenant: who.home(), since_us: 0, who, scopes, trail: Trail::default() };
    let tenant = acts_for(access, &caller, headers).map_err(Unknown::Refused)?;
    let since_us = access.tenant_since(&tenant);
    let since_us = since_us.ok_or_else(|| Unknown::Refused(no_tenant(tenant.as_str())))?;
    Ok(Caller { tenant, since_us, ..caller })
}

/// The tenant that `X-Tenant` names, which for all but the operator can only be their own.
fn acts_for(access: &Access, caller: &Caller, headers: &HeaderMap) -> Result<Tenant, Problem> {
    let mut given = headers.get_all(X_TENANT).iter();
    let Some(first) = given.next() else { return Ok(caller.tenant.clone()) };
    if given.next().is_some() {
        return Err(Problem::new(Code::BadRequest, "the request has more than one X-Tenant header"));
    }
    let name = first.to_str().unwrap_or_default();
    let found = access.tenant(name).filter(|tenant| *tenant == caller.tenant || caller.is_operator());
    found.ok_or_else(|| no_tenant(name))
}

fn no_tenant(name: &str) -> Problem {
    refused(AccessError::NoTenant { name: name.to_owned() })
}

/// The key in `Authorization: Bearer …`; other schemes are none of ours.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let Some(first) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Problem::new(Code::BadRequest, "the request has more than one Authorization header"));
    }
    let (scheme, key) = first.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Some(key.trim()));
    }
    Err(not_in_force("the Authorization header holds no key; send it as Bearer fpk_…"))
}

/// Who a request that was refused seems to be from, for its record.
#[derive(Debug)]
pub(super) enum Suspect {
    /// The holder of a key that is in force, by itself or by a session.
    Holder(Arc<Key>),
    /// Somebody with a key or a session that is not: of this id, and of this key, if there is one.
    Claims(Option<KeyId>, Option<Arc<Key>>),
    /// Somebody who showed nothing.
    Nobody,
}

/// Looks at what a request has shown to be let in.
pub(super) fn suspect(access: &Access, cookie: &str, headers: &HeaderMap) -> Suspect {
    if let Some(shown) = headers.get(AUTHORIZATION) {
        let text = shown.to_str().unwrap_or_default().split_once(' ').unwrap_or_default().1.trim();
        let id = PresentedKey::parse(text).ok().map(|presented| presented.id);
        return match access.check(text) {
            Some(key) => Suspect::Holder(key),
            None => Suspect::Claims(id, id.and_then(|id| access.key(id))),
        };
    }
    match session_of(headers, cookie) {
        Session::One(text) => access.session(text).map_or(Suspect::Claims(None, None), Suspect::Holder),
        Session::Several => Suspect::Claims(None, None),
        Session::None => Suspect::Nobody,
    }
}

/// What the cookies say.
#[derive(Debug, PartialEq, Eq)]
enum Session<'a> {
    None,
    One(&'a str),
    /// Somebody else's page has added one: it is not known whose session is meant.
    Several,
}

fn session_of<'a>(headers: &'a HeaderMap, cookie: &str) -> Session<'a> {
    let mut own = cookies(headers).filter(|(name, _)| *name == cookie);
    match (own.next(), own.next()) {
        (None, _) => Session::None,
        (Some((_, text)), None) => Session::One(text),
        (Some(_), Some(_)) => Session::Several,
    }
}

/// The session's text, if there is exactly one.
pub(super) fn session_text<'a>(headers: &'a HeaderMap, cookie: &str) -> Option<&'a str> {
    match session_of(headers, cookie) {
        Session::One(text) => Some(text),
        Session::None | Session::Several => None,
    }
}

fn cookies(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(COOKIE).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='))
}

fn no_key() -> Problem {
    let detail = "this listener answers only to those who hold a key, and the request has none";
    challenge(Problem::new(Code::KeyMissing, detail))
}

fn not_in_force(detail: &'static str) -> Problem {
    challenge(Problem::new(Code::KeyInvalid, detail))
}

fn challenge(problem: Problem) -> Problem {
    problem.header(WWW_AUTHENTICATE, "Bearer realm=\"functionsplatform\"")
}

/// The path and query of a request, for coming back to it.
pub(super) fn place_of(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |place| place.as_str())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::access::tests::Room;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).expect("header text"));
        }
        map
    }

    fn identify(access: &Access, needs_key: bool, headers: &HeaderMap) -> Result<Caller, Unknown> {
        super::identify(access, needs_key, COOKIE_NAME, headers)
    }

    fn status(answer: Result<Caller, Unknown>) -> (u16, String) {
        match answer {
            Ok(caller) => (200, caller.tenant.to_string()),
            Err(Unknown::Nobody) => (401, "nobody".into()),
            Err(Unknown::SessionOver) => (401, "session".into()),
            Err(Unknown::Refused(problem)) => (problem.status().as_u16(), problem.code().to_string()),
        }
    }

    #[tokio::test]
    async fn nobody_is_the_operator_only_where_no_key_is_needed() {
        let room = Room::new().await;
        let local = identify(&room.access, false, &HeaderMap::new()).expect("let in");
        assert!(local.is_operator() && local.require_operator().is_ok());
        assert_eq!(status(identify(&room.access, true, &HeaderMap::new())), (401, "nobody".into()));
    }

    #[tokio::test]
    async fn a_key_that_is_not_in_force_is_never_nobody() {
        let room = Room::new().await;
        let tenant = Tenant::default();
        let text = room.key(&tenant, "admin").await;
        let asked = headers(&[("authorization", &format!("bearer {text}"))]);
        assert_eq!(status(identify(&room.access, false, &asked)), (200, "default".into()));
        let id = room.access.check(&text).expect("in force").id();
        room.access.revoke_key(&tenant, id.as_str()).await.expect("revoked");
        for needs_key in [false, true] {
            let answer = status(identify(&room.access, needs_key, &asked));
            assert_eq!(answer, (401, "key_invalid".into()));
        }
        for odd in ["Basic eDp5", "Bearer", "Bearer ", "fpk_", ""] {
            let answer = status(identify(&room.access, false, &headers(&[("authorization", odd)])));
            assert_eq!(answer, (401, "key_invalid".into()), "{odd:?}");
        }
        let twice = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b")]);
        assert_eq!(status(identify(&room.access, false, &twice)).0, 400);
    }

    #[tokio::test]
    async fn what_ends_while_a_body_comes_has_ended_when_it_is_here() {
        let room = Room::new().await;
        let acme = room.tenant("acme").await;
        let text = room.key(&acme, "admin").await;
        let asked = headers(&[("authorization", &format!("Bearer {text}"))]);
        let let_in = |caller: Caller| {
            let mut extensions = Extensions::new();
            extensions.insert(caller);
            extensions.insert(room.access.clone());
            extensions
        };
        let caller = identify(&room.access, true, &asked).expect("in force");
        let id = room.access.check(&text).expect("in force").id();
        let request = let_in(caller.clone());
        ask_again(&request).expect("nothing has ended");
        room.access.revoke_key(&acme, id.as_str()).await.expect("revoked");
        let problem = ask_again(&request).expect_err("the key has ended");
        assert_eq!((problem.status().as_u16(), problem.code()), (401, Code::KeyInvalid));
        let new = room.new_key(&acme, "admin");
        let made = room.access.create_key_for(new, &caller.grant()).await;
        assert!(matches!(made, Err(AccessError::KeyEnded)), "a revoked key leaves no successor");

        let for_acme = headers(&[("x-tenant", "acme")]);
        let operator = let_in(identify(&room.access, false, &for_acme).expect("let in"));
        ask_again(&operator).expect("nothing has ended");
        room.access.delete_tenant(&acme).await.expect("deleted");
        assert_eq!(ask_again(&operator).expect_err("no tenant").code(), Code::TenantNotFound);
        room.tenant("acme").await;
        assert_eq!(ask_again(&operator).expect_err("another tenant").code(), Code::TenantNotFound);
    }

    #[tokio::test]
    async fn only_the_operator_acts_for_others_and_others_do_not_exist_for_the_rest() {
        let room = Room::new().await;
        let (acme, default) = (room.tenant("acme").await, Tenant::default());
        room.tenant("globex").await;
        let (admin, theirs) = (room.key(&default, "admin").await, room.key(&acme, "admin").await);
        let reader = room.key(&default, "read").await;
        let with = |key: &str, tenant: &str| {
            let authorization = format!("Bearer {key}");
            let asked = headers(&[("authorization", &authorization), ("x-tenant", tenant)]);
            status(identify(&room.access, true, &asked))
        };
        assert_eq!(with(&admin, "acme"), (200, "acme".into()));
        assert_eq!(with(&theirs, "acme"), (200, "acme".into()));
        assert_eq!(with(&reader, "default"), (200, "default".into()));
        let nothing = (404, "tenant_not_found".to_owned());
        for (key, tenant) in
            [(&theirs, "globex"), (&theirs, "default"), (&theirs, "nowhere"), (&reader, "acme")]
        {
            assert_eq!(with(key, tenant), nothing, "{tenant}");
        }
        assert_eq!(with(&admin, "nowhere"), nothing);
        assert_eq!(with(&admin, "A b"), nothing);
        let asked = headers(&[("authorization", &format!("Bearer {theirs}"))]);
        let caller = identify(&room.access, true, &asked).expect("let in");
        assert!(!caller.is_operator(), "an admin of a named tenant is not the operator");
    }

    #[tokio::test]
    async fn what_a_key_may_not_do_is_said_with_its_name() {
        let room = Room::new().await;
        let text = room.key(&Tenant::default(), "deploy").await;
        let asked = headers(&[("authorization", &format!("Bearer {text}"))]);
        let caller = identify(&room.access, true, &asked).expect("let in");
        assert!(caller.require(Scope::Deploy).is_ok());
        let problem = caller.require(Scope::Read).expect_err("it deploys only");
        let document: serde_json::Value = serde_json::from_slice(&problem.to_json()).expect("JSON");
        assert_eq!(problem.status(), 403);
        assert_eq!(document["detail"], "this needs the scope read, and the key \"ci\" has deploy");
        assert_eq!((&document["scope"], &document["key"]), (&"read".into(), &"ci".into()));
        assert!(caller.require_operator().is_err());
    }

    #[tokio::test]
    async fn a_session_stands_for_its_key_and_two_stand_for_none() {
        let room = Room::new().await;
        let acme = room.tenant("acme").await;
        let key = room.access.check(&room.key(&acme, "read").await).expect("in force");
        let session = room.access.sign_in(&key);
        let cookie = format!("theme=dark; {COOKIE_NAME}={session}");
        let asked = headers(&[("cookie", &cookie)]);
        assert_eq!(status(identify(&room.access, true, &asked)), (200, "acme".into()));
        let two = headers(&[("cookie", &cookie), ("cookie", &format!("{COOKIE_NAME}=x"))]);
        assert_eq!(status(identify(&room.access, true, &two)), (401, "session".into()));
        let secure = super::identify(&room.access, true, SECURE_COOKIE_NAME, &asked);
        assert_eq!(status(secure).0, 401, "over TLS only that of the name that none can forge");
        room.access.sign_out(&session);
        for needs_key in [false, true] {
            assert_eq!(status(identify(&room.access, needs_key, &asked)), (401, "session".into()));
        }
    }

    #[test]
    fn little_is_open_to_everybody() {
        for open in ["/healthz", "/readyz", "/version", "/login", "/static/app.css"] {
            assert!(is_open(open), "{open}");
        }
        for closed in ["/", "/functions", "/metrics", "/docs", "/openapi.json", "/healthz/", "/static"] {
            assert!(!is_open(closed), "{closed}");
        }
    }
}

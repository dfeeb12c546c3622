//! Signing in: a key that is typed into a form becomes a session in a cookie.
//!
//! The cookie is a random number that says nothing of the key, and ends with it. It is HttpOnly, so
//! that no script reads it, and SameSite=Strict, so that no other site's page sends it. Programs use
//! the key itself as a bearer and never come here.

use std::sync::Arc;

use askama::Template;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Extension, Router, middleware};
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use serde::Deserialize;

use super::api::extract::ApiForm;
use super::audit::Trail;
use super::caller::{Caller, Who, place_of, session_cookie, session_text};
use super::problem::Problem;
use super::{csrf, guard, pages};
use crate::access::SESSION_LIFE;
use crate::app::App;

/// The page's path.
const PATH: &str = "/login";

/// The routes, for both listeners that have pages.
pub(super) fn router(app: Arc<App>) -> Router {
    let writes = middleware::from_fn(guard::writes);
    Router::new()
        .route(PATH, get(show_login).merge(post(sign_in).route_layer(writes.clone())))
        .route("/logout", post(sign_out).route_layer(writes))
        .with_state(app)
        .layer(middleware::map_response(pages::protect))
}

/// Where the reader wants to go once signed in.
#[derive(Debug, Default, Deserialize)]
struct Wish {
    #[serde(default)]
    next: String,
}

#[derive(Deserialize)]
struct SignIn {
    #[serde(default)]
    key: String,
    #[serde(default)]
    next: String,
    csrf_token: Option<String>,
}

#[derive(Deserialize)]
struct SignOut {
    csrf_token: Option<String>,
}

/// The page. It stands alone: what surrounds other pages is for those who are in.
#[derive(Debug, Template)]
#[template(path = "login.html")]
pub(super) struct LoginPage {
    pub(super) css: &'static str,
    pub(super) csrf_field: &'static str,
    pub(super) csrf_token: String,
    pub(super) next: String,
    /// What was wrong with the last attempt.
    pub(super) fault: Option<&'static str>,
    /// Who is signed in already: the key's name and its tenant.
    pub(super) signed_in: Option<(String, String)>,
    /// The listener lets the reader in without a key.
    pub(super) open: bool,
}

/// A page for the tests of all pages.
#[cfg(test)]
pub(super) fn samples(
    next: &str,
    fault: Option<&'static str>,
    signed_in: Option<(String, String)>,
) -> LoginPage {
    LoginPage { signed_in, next: next.to_owned(), ..page("", fault, None, None) }
}

/// Where the login is, for a reader who wanted something else.
pub(super) fn link(wanted: &Uri) -> String {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    match place_of(wanted) {
        "/" => PATH.to_owned(),
        place => format!("{PATH}?next={}", utf8_percent_encode(place, NON_ALPHANUMERIC)),
    }
}

async fn show_login(
    State(app): State<Arc<App>>,
    wish: Result<Query<Wish>, QueryRejection>,
    caller: Option<Caller>,
    headers: HeaderMap,
) -> Response {
    let next = wish.map(|Query(wish)| wish.next).unwrap_or_default();
    let cookie = session_cookie(app.addresses.management_tls);
    let session = session_text(&headers, cookie);
    let is_over = session.is_some() && caller.is_none();
    // The form comes back without a session that is over.
    let page = page(&next, None, caller.as_ref(), session.filter(|_| !is_over));
    let page = pages::render(StatusCode::OK, &page);
    if is_over { without_cookie(page, cookie) } else { page }
}

fn page(
    next: &str,
    fault: Option<&'static str>,
    caller: Option<&Caller>,
    session: Option<&str>,
) -> LoginPage {
    let signed_in = caller.and_then(|caller| match &caller.who {
        Who::Local => None,
        Who::Key(key) => Some((key.name().to_string(), key.tenant().to_string())),
    });
    LoginPage {
        css: pages::css_link(),
        csrf_field: csrf::FIELD,
        csrf_token: csrf::token(session),
        next: own_place(next).to_owned(),
        fault,
        open: caller.is_some() && signed_in.is_none(),
        signed_in,
    }
}

async fn sign_in(
    State(app): State<Arc<App>>,
    Extension(trail): Extension<Trail>,
    headers: HeaderMap,
    ApiForm(form): ApiForm<SignIn>,
) -> Result<Response, Problem> {
    let is_tls = app.addresses.management_tls;
    let name = session_cookie(is_tls);
    let before = session_text(&headers, name);
    csrf::check(form.csrf_token.as_deref(), before)?;
    let Some(key) = app.access.check(form.key.trim()) else {
        trail.claimed(&app.access, form.key.trim());
        let fault = "This key is none of this platform's, has expired or was revoked.";
        return Ok(pages::render(StatusCode::UNAUTHORIZED, &page(&form.next, Some(fault), None, before)));
    };
    // One sign-in after the other in one browser leaves no session behind that nobody holds.
    if let Some(before) = before {
        app.access.sign_out(before);
    }
    trail.signed(&key);
    let session = app.access.sign_in(&key);
    let seconds = SESSION_LIFE.as_secs();
    let secure = if is_tls { "; Secure" } else { "" };
    let cookie = format!("{name}={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    Ok(with_cookie(Redirect::to(own_place(&form.next)).into_response(), &cookie))
}

async fn sign_out(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    ApiForm(form): ApiForm<SignOut>,
) -> Result<Response, Problem> {
    let cookie = session_cookie(app.addresses.management_tls);
    let session = session_text(&headers, cookie);
    csrf::check(form.csrf_token.as_deref(), session)?;
    if let Some(session) = session {
        app.access.sign_out(session);
    }
    Ok(without_cookie(Redirect::to(PATH).into_response(), cookie))
}

/// A place on this very listener; everything else is its start.
fn own_place(next: &str) -> &str {
    let visible = |byte: u8| byte.is_ascii_graphic() && byte != b'\\';
    // Browsers take tabs and line ends out of an address before they read it.
    let is_own = next.starts_with('/') && !next.starts_with("//") && next.bytes().all(visible);
    if is_own { next } else { "/" }
}

fn with_cookie(mut response: Response, cookie: &str) -> Response {
    let mut value = HeaderValue::from_str(cookie).expect("letters, digits and signs");
    value.set_sensitive(true);
    response.headers_mut().append(SET_COOKIE, value);
    response
}

/// The answer, and the cookie is gone.
pub(super) fn without_cookie(response: Response, name: &str) -> Response {
    let secure = if name == session_cookie(true) { "; Secure" } else { "" };
    with_cookie(response, &format!("{name}=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict{secure}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_login_one_is_where_one_wanted_to_be_and_never_elsewhere() {
        assert_eq!(own_place("/ui/workers?x=1"), "/ui/workers?x=1");
        for elsewhere in [
            "",
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "/a\r\nb",
            "ui",
            "/\t/evil.example",
            "/ /x",
            "/é",
        ] {
            assert_eq!(own_place(elsewhere), "/", "{elsewhere:?}");
        }
        assert_eq!(link(&Uri::from_static("/")), "/login");
        assert_eq!(link(&Uri::from_static("/trace/ab?x=1&y=2")), "/login?next=%2Ftrace%2Fab%3Fx%3D1%26y%3D2");
    }

    #[test]
    fn the_cookie_is_for_no_script_and_no_other_site() {
        let cleared = without_cookie(StatusCode::OK.into_response(), session_cookie(true));
        let cookie = cleared.headers()[SET_COOKIE].to_str().expect("text");
        assert!(
            cookie.contains("; HttpOnly; SameSite=Strict; Secure") && cookie.contains("Max-Age=0"),
            "{cookie}"
        );
        assert!(cookie.starts_with("__Host-"), "{cookie}");
    }
}

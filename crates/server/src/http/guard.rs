//! Who may talk to the management listeners: a web page must not be able to deploy code on a
//! developer's machine.
//!
//! Three checks stand before every route of a protected listener: the Host must be a name that
//! the listener is bound to (421; this stops DNS rebinding), an Origin must be that very host
//! (403), and `Sec-Fetch-Site: cross-site` is refused (403). [`writes`] stands before each route
//! that changes something and takes only content types that a foreign page cannot send without
//! asking, or a form, whose token `http::csrf` checks (415).
//!
//! Answers get headers that keep them from being framed or re-interpreted by other sites.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use fp_core::code::Code;
use http::header::{
    CONTENT_TYPE, HOST, HeaderName, HeaderValue, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use http::{HeaderMap, Method, Uri};
use http_body::Body as _;

use super::problem::Problem;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The content types that a write may have. The first two make a browser ask before it sends
/// them across origins; forms carry a token.
const WRITE_TYPES: [&str; 4] =
    ["application/json", "application/zip", "application/x-www-form-urlencoded", "multipart/form-data"];

/// The host names that a listener answers to.
#[derive(Debug, Clone)]
pub struct Hosts {
    names: Arc<[String]>,
    port: u16,
    /// Names that the operator has added, some with a port of their own.
    added: Arc<[String]>,
    /// Any address is one of ours: the listener is bound to all there are. A page that rebinds a name
    /// to one of them still sends the name.
    any_address: bool,
}

impl Hosts {
    /// The names of a bound address: the address itself, and `localhost` with the loopback
    /// addresses when it is (or includes) loopback.
    pub fn of(bound: SocketAddr) -> Self {
        let ip = bound.ip();
        let mut names = vec![host_text(ip)];
        if ip.is_loopback() || ip.is_unspecified() {
            let loopback = ["127.0.0.1", "[::1]", "localhost"].map(str::to_owned);
            names.extend(loopback.into_iter().filter(|name| *name != host_text(ip)));
        }
        Self {
            names: names.into(),
            port: bound.port(),
            added: Arc::default(),
            any_address: ip.is_unspecified(),
        }
    }

    /// The same with the operator's names.
    pub fn and(self, names: &[String]) -> Self {
        Self { added: names.into(), ..self }
    }

    /// Whether an authority (`name`, `name:port`) is one of these. A port that is named must be
    /// the listener's; none is what clients send for port 80 and what proxies leave out.
    fn accept(&self, authority: &str) -> bool {
        let (name, port) = split_port(authority);
        let port_fits = port.is_none_or(|port| port.parse() == Ok(self.port));
        let is_own = || self.names.iter().any(|own| own.eq_ignore_ascii_case(name));
        let is_added = || self.added.iter().any(|added| added.eq_ignore_ascii_case(name));
        let is_added_with_port = || self.added.iter().any(|added| added.eq_ignore_ascii_case(authority));
        let is_address = || name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        port_fits && (is_own() || is_added() || (self.any_address && is_address())) || is_added_with_port()
    }

    fn list(&self) -> String {
        let own = self.names.iter().map(|name| format!("{name}:{}", self.port));
        let with_port: Vec<_> = own.chain(self.added.iter().cloned()).collect();
        with_port.join(", ")
    }
}

fn host_text(ip: IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    let after_address = authority.rfind(']').map_or(0, |at| at + 1);
    match authority[after_address..].find(':') {
        Some(colon) => {
            let (name, port) = authority.split_at(after_address + colon);
            (name, Some(&port[1..]))
        }
        None => (authority, None),
    }
}

/// Puts the guard before every route and fallback of a listener. Apply it last, after merging.
pub fn protect(router: Router, hosts: Hosts) -> Router {
    router.layer(middleware::from_fn_with_state(hosts, guard))
}

async fn guard(State(hosts): State<Hosts>, request: Request, next: Next) -> Response {
    let verdict = check(&hosts, request.uri(), request.headers());
    let mut response = match verdict {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// The Host, Origin and `Sec-Fetch-Site` checks.
pub(super) fn check(hosts: &Hosts, uri: &Uri, headers: &HeaderMap) -> Result<(), Problem> {
    let authority = requested_authority(uri, headers)?;
    if !hosts.accept(authority) {
        let detail = format!("{authority:?} is not a name of this listener; it answers to {}", hosts.list());
        return Err(Problem::new(Code::ForbiddenHost, detail));
    }
    check_origin(authority, headers)?;
    let crossed = headers.get_all(SEC_FETCH_SITE).iter().any(|site| site.as_bytes() == b"cross-site");
    if crossed {
        let detail = "a browser sent this on behalf of another site (Sec-Fetch-Site: cross-site)";
        return Err(Problem::new(Code::CrossSite, detail));
    }
    Ok(())
}

/// The host that the request is for: HTTP/2 and absolute targets have it in the URI.
fn requested_authority<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Result<&'a str, Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    let header = hosts.next().map(|host| host.to_str().unwrap_or_default());
    let in_uri = uri.authority().map(|authority| authority.as_str());
    match (in_uri.or(header), hosts.next()) {
        (Some(authority), None) => Ok(authority),
        (None, _) => Err(Problem::new(Code::ForbiddenHost, "the request has no Host header")),
        (_, Some(_)) => Err(Problem::new(Code::BadRequest, "the request has more than one Host header")),
    }
}

/// An Origin must be the very host that was asked; `null` never is.
fn check_origin(authority: &str, headers: &HeaderMap) -> Result<(), Problem> {
    for origin in headers.get_all(ORIGIN) {
        let text = origin.to_str().unwrap_or_default();
        let own = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        if !own.is_some_and(|own| own.eq_ignore_ascii_case(authority)) {
            let detail = format!("the Origin {text:?} is not this listener's own");
            return Err(Problem::new(Code::CrossSite, detail));
        }
    }
    Ok(())
}

/// The content-type check: for the routes that change something, once their verb has matched, so
/// that a wrong path or verb is still answered as such.
pub async fn writes(request: Request, next: Next) -> Response {
    match check_content_type(request.method(), request.headers(), request.body().is_end_stream()) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check_content_type(method: &Method, headers: &HeaderMap, no_body: bool) -> Result<(), Problem> {
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    if reads || (*method == Method::DELETE && no_body) {
        return Ok(());
    }
    let media_type = media_type(headers);
    if media_type.as_deref().is_some_and(|given| WRITE_TYPES.contains(&given)) {
        return Ok(());
    }
    Err(unsupported_media_type(media_type.as_deref(), "application/json or application/zip"))
}

/// The request's media type in lower case, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let essence = text.split(';').next().unwrap_or_default().trim();
    Some(essence.to_ascii_lowercase())
}

/// The 415 that names what was given and what is taken.
pub(crate) fn unsupported_media_type(given: Option<&str>, wanted: &str) -> Problem {
    let detail = match given {
        Some(given) => format!("content type {given:?} is not accepted here; send {wanted}"),
        None => format!("the request has no content type; send {wanted}"),
    };
    Problem::new(Code::UnsupportedMediaType, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(bound: &str, headers: &[(&'static str, &str)]) -> u16 {
        let hosts = Hosts::of(bound.parse().expect("an address"));
        let pairs = headers.iter().map(|(name, value)| {
            (HeaderName::from_static(name), HeaderValue::from_str(value).expect("a header value"))
        });
        let mut map = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            map.append(name, value);
        });
        check(&hosts, &Uri::from_static("/"), &map).map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn only_the_names_of_the_bound_address_are_answered() {
        for host in ["127.0.0.1:8000", "localhost:8000", "LocalHost:8000", "[::1]:8000", "localhost"] {
            assert_eq!(verdict("127.0.0.1:8000", &[("host", host)]), 200, "{host}");
        }
        for host in
            ["evil.example:8000", "evil.example", "localhost:9", "localhost.evil.example:8000", "", ":8000"]
        {
            assert_eq!(verdict("127.0.0.1:8000", &[("host", host)]), 421, "{host}");
        }
        assert_eq!(verdict("127.0.0.1:8000", &[]), 421);
        assert_eq!(verdict("10.0.0.7:8000", &[("host", "10.0.0.7:8000")]), 200);
        assert_eq!(verdict("10.0.0.7:8000", &[("host", "localhost:8000")]), 421);
        assert_eq!(verdict("127.0.0.1:8000", &[("host", "localhost:8000"), ("host", "x")]), 400);
    }

    #[test]
    fn a_listener_on_all_addresses_answers_to_them_and_to_the_names_it_was_given() {
        let names = ["admin.example.com".to_owned(), "proxy.example.com:8443".to_owned()];
        let hosts = Hosts::of("0.0.0.0:8000".parse().expect("an address")).and(&names);
        for own in ["192.168.1.5:8000", "[fe80::1]:8000", "admin.example.com", "Admin.Example.com:8000"] {
            assert!(hosts.accept(own), "{own}");
        }
        assert!(hosts.accept("proxy.example.com:8443") && hosts.accept("localhost:8000"));
        for foreign in
            ["evil.example", "192.168.1.5:80", "proxy.example.com", "admin.example.com:8443", "1.2.3"]
        {
            assert!(!hosts.accept(foreign), "{foreign}");
        }
    }

    #[test]
    fn an_authority_in_the_target_counts_before_the_host_header() {
        let hosts = Hosts::of("127.0.0.1:8000".parse().expect("an address"));
        let headers = HeaderMap::from_iter([(HOST, HeaderValue::from_static("127.0.0.1:8000"))]);
        let foreign = check(&hosts, &Uri::from_static("http://evil.example/functions"), &headers);
        assert_eq!(foreign.expect_err("foreign").status(), 421);
    }

    #[test]
    fn a_foreign_origin_is_refused() {
        let with = |origin| verdict("127.0.0.1:8000", &[("host", "localhost:8000"), ("origin", origin)]);
        assert_eq!(with("http://localhost:8000"), 200);
        for origin in ["http://evil.example", "http://localhost:3000", "http://127.0.0.1:8000", "null", ""] {
            assert_eq!(with(origin), 403, "{origin}");
        }
    }

    #[test]
    fn cross_site_fetches_are_refused() {
        let with = |site| verdict("127.0.0.1:8000", &[("host", "localhost:8000"), ("sec-fetch-site", site)]);
        assert_eq!(with("cross-site"), 403);
        assert_eq!(with("same-origin"), 200);
        assert_eq!(with("none"), 200);
    }

    #[test]
    fn writes_need_a_content_type_that_pages_cannot_send_unasked() {
        let check = |method: Method, content_type: Option<&'static str>, no_body| {
            let headers = content_type.map(|text| (CONTENT_TYPE, HeaderValue::from_static(text)));
            check_content_type(&method, &headers.into_iter().collect(), no_body).is_ok()
        };
        assert!(check(Method::POST, Some("application/json"), false));
        assert!(check(Method::POST, Some("Application/JSON; charset=utf-8"), false));
        assert!(check(Method::PUT, Some("application/zip"), false));
        assert!(check(Method::DELETE, None, true));
        assert!(!check(Method::DELETE, None, false));
        assert!(!check(Method::POST, None, true));
        assert!(!check(Method::POST, Some("text/plain"), false));
        assert!(check(Method::GET, None, true));
    }
}

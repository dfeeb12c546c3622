//! What a web page of another site, or a confused client, gets.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};

use crate::exchange::{bare, show, with_body};
use crate::platform::{call, up};

fn with_header(mut request: Request<Bytes>, name: &'static str, value: &str) -> Request<Bytes> {
    let value = HeaderValue::from_str(value).expect("a value");
    request.headers_mut().insert(HeaderName::from_static(name), value);
    request
}

#[test]
fn foreign_pages_and_names_are_refused_on_every_management_port() {
    let platform = up().start();
    for address in [platform.api, platform.traces] {
        let status = |name, value: &str| {
            let path = if address == platform.api { "/functions" } else { "/api/services" };
            call(address, with_header(bare("GET", path), name, value)).status().as_u16()
        };
        assert_eq!(status("host", "evil.example"), 421);
        assert_eq!(status("host", &format!("evil.example:{}", address.port())), 421);
        assert_eq!(status("host", &format!("localhost:{}", address.port())), 200);
        assert_eq!(status("host", &format!("[::1]:{}", address.port())), 200);
        assert_eq!(status("origin", "http://evil.example"), 403);
        assert_eq!(status("origin", "null"), 403);
        assert_eq!(status("origin", &format!("http://{address}")), 200);
        assert_eq!(status("sec-fetch-site", "cross-site"), 403);
        assert_eq!(status("sec-fetch-site", "same-origin"), 200);
    }
}

#[test]
fn refusals_are_problem_documents() {
    let platform = up().start();
    let steps = [
        show(platform.api, with_header(bare("GET", "/functions"), "host", "evil.example:80"))
            .replace(&platform.api.port().to_string(), "PORT"),
        show(platform.api, with_header(bare("GET", "/functions"), "origin", "http://evil.example")),
        show(platform.api, with_header(bare("GET", "/functions"), "sec-fetch-site", "cross-site")),
        show(platform.api, with_body("POST", "/functions", "text/plain", "{}")),
        show(platform.api, with_body("POST", "/functions", "application/x-www-form-urlencoded", "a=1")),
        show(platform.api, bare("POST", "/functions")),
        show(platform.api, with_body("DELETE", "/functions/a", "text/plain", "x")),
        show(platform.api, bare("DELETE", "/functions/a")),
        show(platform.api, bare("PATCH", "/functions")),
        show(platform.api, bare("TRACE", "/invocations")),
        show(platform.api, bare("POST", "/healthz")),
        show(platform.api, bare("GET", "/nothing/here")),
        show(platform.traces, bare("GET", "/nothing/here")),
        show(platform.traces, bare("POST", "/api/traces")),
    ];
    insta::assert_snapshot!(steps.join("\n"));
}

#[test]
fn a_body_over_the_limit_is_refused_with_the_limit() {
    let platform = up().start();
    let body = vec![b' '; (8 << 20) + 1];
    insta::assert_snapshot!(show(platform.api, with_body("POST", "/functions", "application/json", body)));
}

//! What surrounds every page: head, navigation, warnings, foot; and where the other ports are.
//!
//! Dashboard and trace pages live on two ports, so links between them are absolute. They use
//! the host name that the reader came by (the guard has checked it), because behind a tunnel
//! the bound address means nothing to the reader's browser.

use std::net::SocketAddr;

use http::HeaderMap;
use http::header::HOST;
use http::uri::Authority;

use super::assets;
use super::text;
use crate::app::App;
use crate::history::{DiskState, HistoryStatus};
use crate::http::caller::{Caller, Who, session_cookie, session_text};
use crate::http::csrf;

/// Which listener a page is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Port {
    /// The management API's.
    Api,
    /// The traces'.
    Traces,
}

/// A link of the navigation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NavItem {
    pub(super) name: &'static str,
    pub(super) link: String,
    pub(super) current: bool,
}

/// The surroundings of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shell {
    /// The page's name, for the window's title.
    pub(super) title: String,
    /// The navigation's current entry; empty for none.
    pub(super) current: &'static str,
    /// What comes before a path of the API's port; empty on that port.
    pub(super) api: String,
    /// What comes before a path of the traces' port; empty on that port.
    pub(super) traces: String,
    /// The gateway, for lines to try.
    pub(super) gateway: String,
    /// The API, for lines to try.
    pub(super) api_uri: String,
    /// The page shows what changes, and may be refreshed by the script.
    pub(super) live: bool,
    /// Who is signed in, and for whom: the key's name and its tenant; none where no key is needed.
    pub(super) signed_in: Option<(String, String)>,
    pub(super) csrf_field: &'static str,
    pub(super) csrf_token: String,
    /// What the reader must know about the platform.
    pub(super) warnings: Vec<String>,
    /// Words of the foot.
    pub(super) foot: Vec<String>,
    pub(super) css: &'static str,
    pub(super) js: &'static str,
}

impl Shell {
    /// The surroundings for a request that came by `headers` to `port`.
    pub(super) fn of(
        app: &App,
        caller: &Caller,
        headers: &HeaderMap,
        port: Port,
        current: &'static str,
    ) -> Self {
        let addresses = &app.addresses;
        let status = app.history.status();
        let now_us = app.clock.wall_now_us();
        let (own, other) = match port {
            Port::Api => (addresses.api, addresses.traces),
            Port::Traces => (addresses.traces, addresses.api),
        };
        let elsewhere = base(addresses.management_scheme(), headers, own, other);
        let (api, traces) = match port {
            Port::Api => (String::new(), elsewhere),
            Port::Traces => (elsewhere, String::new()),
        };
        Self {
            title: String::new(),
            current,
            api,
            traces,
            gateway: format!("{}://{}", addresses.gateway_scheme(), reachable(addresses.gateway)),
            api_uri: format!("{}://{}", addresses.management_scheme(), reachable(addresses.api)),
            live: true,
            signed_in: signed_in(caller),
            csrf_field: csrf::FIELD,
            csrf_token: csrf::token(session_text(headers, session_cookie(addresses.management_tls))),
            // How much the whole platform keeps says what others do on it.
            warnings: if caller.is_operator() { warnings(&status, now_us) } else { Vec::new() },
            foot: foot(&status, now_us.saturating_sub(app.started_us), caller.is_operator()),
            css: assets::css_link(),
            js: assets::js_link(),
        }
    }

    /// The same with a title.
    pub(super) fn titled(self, title: impl Into<String>) -> Self {
        Self { title: title.into(), ..self }
    }

    /// The same for a page that does not change.
    pub(super) fn still(self) -> Self {
        Self { live: false, ..self }
    }

    /// The navigation.
    pub(super) fn nav(&self) -> [NavItem; 6] {
        let item = |name, base: &str, path| NavItem {
            name,
            link: format!("{base}{path}"),
            current: name == self.current,
        };
        [
            item("Overview", &self.api, "/"),
            item("Invocations", &self.api, "/ui/invocations"),
            item("Traces", &self.traces, "/"),
            item("Query", &self.api, "/ui/query"),
            item("Workers", &self.api, "/ui/workers"),
            item("API", &self.api, "/docs"),
        ]
    }

    /// Where a function's page is.
    pub(super) fn function_link(&self, name: &str) -> String {
        format!("{}/ui/functions/{name}", self.api)
    }

    /// Where an invocation's page is.
    pub(super) fn invocation_link(&self, id: impl std::fmt::Display) -> String {
        format!("{}/ui/invocations/{id}", self.api)
    }

    /// Where a trace's page is.
    pub(super) fn trace_link(&self, id: impl std::fmt::Display) -> String {
        format!("{}/trace/{id}", self.traces)
    }
}

/// `scheme://host:port` of another listener, as the reader reaches it.
fn base(scheme: &str, headers: &HeaderMap, own: SocketAddr, other: SocketAddr) -> String {
    let shares_host = other.ip() == own.ip()
        || other.ip().is_unspecified()
        || (other.ip().is_loopback() && own.ip().is_loopback());
    let authority = headers.get(HOST).and_then(|value| value.to_str().ok()?.parse::<Authority>().ok());
    match authority {
        Some(authority) if shares_host => format!("{scheme}://{}:{}", authority.host(), other.port()),
        _ => format!("{scheme}://{}", reachable(other)),
    }
}

/// An address to connect to: a listener on all addresses is reached by loopback.
fn reachable(bound: SocketAddr) -> SocketAddr {
    match bound {
        SocketAddr::V4(_) if bound.ip().is_unspecified() => ([127, 0, 0, 1], bound.port()).into(),
        SocketAddr::V6(_) if bound.ip().is_unspecified() => {
            (std::net::Ipv6Addr::LOCALHOST, bound.port()).into()
        }
        _ => bound,
    }
}

fn warnings(status: &HistoryStatus, now_us: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    if let DiskState::Off { reason, since_us } = &status.disk {
        let since = text::age(now_us.saturating_sub(*since_us));
        warnings.push(format!("History is not written to disk since {since}: {reason}"));
    }
    if status.dropped > 0 {
        let lost = text::plural(status.dropped, "record");
        warnings.push(format!("{lost} could not be kept on disk since the start; counters are exact."));
    }
    warnings
}

fn signed_in(caller: &Caller) -> Option<(String, String)> {
    match &caller.who {
        Who::Local => None,
        Who::Key(key) => Some((key.name().to_string(), caller.tenant.to_string())),
    }
}

fn foot(status: &HistoryStatus, up_us: u64, with_history: bool) -> Vec<String> {
    let mut parts = vec![
        format!("functionsplatform {}", env!("CARGO_PKG_VERSION")),
        format!("up for {}", text::age(up_us)),
    ];
    if with_history {
        parts.push(format!(
            "history: {} in memory ({}), {} on disk",
            text::plural(status.ring_calls as u64, "call"),
            text::bytes(status.ring_bytes as u64),
            text::bytes(status.disk_bytes)
        ));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came_by(host: &str) -> HeaderMap {
        HeaderMap::from_iter([(HOST, host.parse().expect("a header value"))])
    }

    #[test]
    fn links_to_the_other_port_keep_the_readers_host_name() {
        let api = SocketAddr::from(([127, 0, 0, 1], 8000));
        let traces = SocketAddr::from(([127, 0, 0, 1], 16686));
        assert_eq!(base("http", &came_by("localhost:8000"), api, traces), "http://localhost:16686");
        assert_eq!(base("http", &came_by("[::1]:8000"), api, traces), "http://[::1]:16686");
        assert_eq!(base("http", &HeaderMap::new(), api, traces), "http://127.0.0.1:16686");
        let elsewhere = SocketAddr::from(([10, 0, 0, 1], 16686));
        assert_eq!(base("http", &came_by("localhost:8000"), api, elsewhere), "http://10.0.0.1:16686");
    }

    #[test]
    fn a_listener_on_all_addresses_is_reached_by_loopback() {
        assert_eq!(reachable(([0, 0, 0, 0], 5000).into()).to_string(), "127.0.0.1:5000");
    }

    #[test]
    fn history_that_is_off_is_said() {
        let reason = "no space left on device; free some or set --data-dir".to_owned();
        let status = HistoryStatus {
            disk: DiskState::Off { reason, since_us: 0 },
            dropped: 3,
            ..HistoryStatus::default()
        };
        let warnings = warnings(&status, 60_000_000);
        assert_eq!(
            warnings[0],
            "History is not written to disk since 60 s: no space left on device; free some or set --data-dir"
        );
        assert!(warnings[1].starts_with("3 records"));
    }
}

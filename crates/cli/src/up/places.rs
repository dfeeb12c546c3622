//! Where things are, once the platform is up: addresses and three lines to try.
//!
//! The lines run as printed and answer 2xx. Which functions they call is decided without
//! calling any, and without guessing: only functions whose author says by the label `try` that a
//! bare `curl` of them succeeds, those first whose objective promises most. The rest of the lines
//! ask the platform.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use fp_core::EventType;
use fp_core::event::{PathPattern, Segment, Verb};
use fp_server::access::FreshKey;
use fp_server::app::Addresses;
use fp_server::catalog::Deployed;
use fp_server::config::USUAL_OTLP;
use fp_server::server::Doors;
use owo_colors::OwoColorize;
use serde_json::json;

use crate::client::segment;
use crate::exit::Failure;
use crate::screen;

/// The label of a function that answers 2xx to a GET without parameters and body.
const LABEL: &str = "try";

/// Functions among the lines to try; the rest of the three show what the platform says.
const FUNCTIONS_TO_TRY: usize = 2;

/// Prints addresses and lines to try: on stdout, as they are what `up` has to say.
/// The operator's first key is among it: it is shown here and nowhere else.
pub(crate) fn show(
    json: bool,
    at: Addresses,
    doors: &Doors,
    trust: Option<&Path>,
    first_key: Option<FreshKey>,
    functions: &[Arc<Deployed>],
) -> Result<(), Failure> {
    let gateway = url(at.gateway_scheme(), at.gateway);
    let [api, traces] = [at.api, at.traces].map(|address| url(at.management_scheme(), address));
    if json {
        let names: Vec<_> = functions.iter().map(|function| function.name.to_string()).collect();
        let mut places = json!({
            "gateway": gateway, "api": api, "traces": traces, "functions": names, "pid": std::process::id(),
        });
        if let Some(otlp) = at.otlp {
            places["otlp"] = url(at.management_scheme(), otlp).into();
        }
        if let Some(first_key) = first_key {
            places["key"] = first_key.text.into();
        }
        return screen::line(&places.to_string());
    }
    let what = match functions.len() {
        0 => "no functions yet: `functionsplatform deploy DIR`".to_owned(),
        1 => "1 function".to_owned(),
        count => format!("{count} functions"),
    };
    screen::line(&format!("gateway  {}  {what}", gateway.bold()))?;
    screen::line(&format!("api      {}  dashboard; Swagger UI at /docs", api.bold()))?;
    screen::line(&format!("traces   {}", traces.bold()))?;
    match at.otlp {
        Some(otlp) => {
            let otlp = url(at.management_scheme(), otlp);
            screen::line(&format!("otlp     {}  spans of services around them", otlp.bold()))?;
        }
        None => screen::line(&format!("otlp     none: {USUAL_OTLP} is taken; --otlp-addr names another"))?,
    }
    screen::line("")?;
    if let Some(first_key) = first_key {
        screen::line(&format!(
            "key      {}  the operator's; shown this once, so keep it",
            first_key.text.bold()
        ))?;
        screen::line(
            "         export FUNCTIONSPLATFORM_KEY=… for the command line, or type it in at /login",
        )?;
        screen::line("")?;
    }
    let curl = trust.map_or_else(|| "curl".to_owned(), |path| format!("curl --cacert {}", path.display()));
    for line in lines_to_try(&gateway, &api, &traces, doors, functions) {
        screen::line(&line.replacen("curl", &curl, 1))?;
    }
    screen::line("")?;
    screen::line("stop with Ctrl-C")
}

fn lines_to_try(
    gateway: &str,
    api: &str,
    traces: &str,
    doors: &Doors,
    functions: &[Arc<Deployed>],
) -> [String; 3] {
    let vouched = functions.iter().filter(|function| function.settings.labels.contains_key(LABEL));
    let mut callable: Vec<_> =
        vouched.filter_map(|function| Some((promise(function), plain_path(function)?))).collect();
    callable.sort_by_key(|(promise, _)| Reverse(*promise));
    let calls = callable.iter().take(FUNCTIONS_TO_TRY).map(|(_, path)| format!("curl {gateway}{path}"));
    // Those that answer without a key where one is needed.
    let about = match (doors.api_needs_key, doors.traces_needs_key) {
        (false, false) => ["traces/api/services", "api/functions", "api/healthz"],
        (false, true) => ["api/functions", "api/version", "api/healthz"],
        (true, _) => ["api/version", "api/healthz", "api/readyz"],
    };
    let about = about.map(|place| match place.split_once('/') {
        Some(("traces", path)) => format!("curl {traces}/{path}"),
        Some((_, path)) => format!("curl {api}/{path}"),
        None => String::new(),
    });
    let mut lines = calls.chain(about);
    std::array::from_fn(|_| lines.next().unwrap_or_default())
}

/// The availability objective in millionths; a function without one promises nothing.
fn promise(function: &Deployed) -> u64 {
    let slo = function.settings.slo.as_ref();
    slo.and_then(|slo| slo.availability).map_or(0, |percent| (percent * 1e4) as u64)
}

/// The path of a route that a bare `curl URL` reaches.
fn plain_path(function: &Deployed) -> Option<String> {
    function.events.iter().find_map(|event| {
        let EventType::Http { verb, path } = event;
        let answers_get = matches!(verb, Verb::Any) || *verb == Verb::Exactly("GET".into());
        if answers_get { literal_path(path) } else { None }
    })
}

fn literal_path(pattern: &PathPattern) -> Option<String> {
    let literal = |part: &Segment| match part {
        Segment::Literal(text) => Some(format!("/{}", segment(text))),
        Segment::Param(_) | Segment::Rest(_) => None,
    };
    pattern.segments().iter().map(literal).collect()
}

/// A listener's URL as this machine reaches it.
fn url(scheme: &str, address: SocketAddr) -> String {
    let loopback: IpAddr = match address.ip() {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let ip = if address.ip().is_unspecified() { loopback } else { address.ip() };
    format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
}

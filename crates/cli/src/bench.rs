//! `bench`: load on a URL, and latencies as its callers would see them.
//!
//! The open loop sends at a fixed rate whatever the server does and measures each answer from
//! the moment its request was *meant* to be sent: a server that freezes for ten seconds shows
//! ten seconds, where a closed loop (`--closed`: each connection waits for its answer) hides
//! it. [`pace`] decides when to send, [`report`] keeps the books; both are pure and tested in
//! virtual time. [`load`] carries out what they say.

mod load;
mod pace;
mod report;

use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http::{HeaderMap, HeaderValue, Method, Uri, header};

use crate::exit::{Exit, Failure};
use crate::flags::{Global, wait};
use crate::{client, payload, screen};
use load::{Load, Target};
use pace::Schedule;
use report::Report;

/// As many calls may be waiting for an answer at once: ten seconds of silence at 100/s. Beyond
/// it requests queue here, with their latency counted all the same; many more connections would
/// measure the cost of connections.
const OPEN_LOOP_CONNECTIONS: usize = 1024;

/// What wrk opens by default for one thread, rounded up.
const CLOSED_LOOP_CONNECTIONS: usize = 16;

/// Load a URL and report latencies as its callers would see them
///
/// The open loop sends --rate requests a second whatever the server does, and counts each
/// latency from the moment that the request was meant to be sent. When the load could not be
/// sent (`valid` is false), the figures say nothing about the server.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// The URL
    #[arg(value_name = "URL")]
    url: String,
    /// Requests a second (open loop)
    #[arg(long, value_parser = rate, required_unless_present = "closed", conflicts_with = "closed")]
    rate: Option<f64>,
    /// How long to send
    #[arg(long, value_parser = humantime::parse_duration, default_value = "10s")]
    duration: Duration,
    /// Closed loop: each connection sends its next request when it has its answer
    #[arg(long)]
    closed: bool,
    /// Connections; in the open loop the most there may be [default: 1024 open, 16 closed]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: Option<u32>,
    /// Threads that send [default: one for each 10,000 requests a second, at most one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: Option<u32>,
    /// How long to wait for an answer, from when its request was meant to be sent
    #[arg(long, value_parser = humantime::parse_duration, default_value = "30s")]
    timeout: Duration,
    /// The verb [default: POST with a body, else GET]
    #[arg(short = 'X', long, value_name = "VERB", value_parser = payload::verb)]
    verb: Option<String>,
    /// The body; @FILE reads it from a file, @- from stdin
    #[arg(short = 'd', long, value_name = "BODY")]
    data: Option<String>,
    /// A header, as 'Name: value'; may be given many times
    #[arg(short = 'H', long, value_name = "HEADER")]
    header: Vec<payload::Header>,
}

impl Bench {
    /// Sends the load and prints what was measured. An interrupted run reports what it has.
    pub(crate) fn run(&self, global: &Global) -> Result<Exit, Failure> {
        let load = self.load()?;
        let show_progress = !global.json();
        let (measured, interrupted) = wait(load::run(&load, show_progress))?;
        let report = Report::new(&self.url, &load, &measured);
        match global.json() {
            true => screen::json(&report)?,
            false => screen::text(&report.to_string())?,
        }
        if !report.valid {
            screen::warning(
                "less than 99 % of the load was sent; these figures are the generator's limit, not the server's",
            );
        }
        Ok(if interrupted { Exit::Interrupted } else { Exit::Ok })
    }

    fn load(&self) -> Result<Load, Failure> {
        if self.duration.is_zero() {
            return Err(Failure::usage("--duration is zero; give it some time, such as 10s"));
        }
        let schedule = self.rate.map(|rate| Schedule::new(rate, self.duration));
        let default = if self.closed { CLOSED_LOOP_CONNECTIONS } else { OPEN_LOOP_CONNECTIONS };
        let connections = self.connections.map_or(default, |count| count as usize);
        Ok(Load {
            target: self.target()?,
            schedule,
            duration: self.duration,
            connections,
            threads: self.threads(connections),
            timeout: self.timeout,
        })
    }

    /// One thread sends some 30,000 requests a second; a third of that leaves it idle enough
    /// to be on time.
    fn threads(&self, connections: usize) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let wanted = match (self.threads, self.rate) {
            (Some(threads), _) => threads as usize,
            (None, Some(rate)) => ((rate / 10_000.0).ceil() as usize).clamp(1, cores),
            (None, None) => cores.div_ceil(2),
        };
        wanted.min(connections)
    }

    fn target(&self) -> Result<Target, Failure> {
        let uri: Uri = self.url.parse().map_err(|error| {
            Failure::usage(format!("{:?} is not a URL: {error}", self.url))
                .hint("write it as http://127.0.0.1:5000/path")
        })?;
        let (Some("http"), Some(host)) = (uri.scheme_str(), uri.host()) else {
            return Err(Failure::usage(format!("{:?} is not an http:// URL", self.url))
                .hint("write it as http://127.0.0.1:5000/path"));
        };
        let body = Bytes::from(self.data.as_deref().map(payload::read).transpose()?.unwrap_or_default());
        let default_verb = if self.data.is_some() { "POST" } else { "GET" };
        let verb = self.verb.as_deref().unwrap_or(default_verb);
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let mut headers = HeaderMap::new();
        headers.insert(
            header::HOST,
            HeaderValue::from_str(authority).map_err(|error| Failure::usage(error.to_string()))?,
        );
        for (name, value) in &client::headers(&self.header) {
            headers.insert(name, value.clone());
        }
        Ok(Target {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: uri.port_u16().unwrap_or(80),
            method: Method::from_bytes(verb.as_bytes()).map_err(|error| Failure::usage(error.to_string()))?,
            path: uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .parse()
                .map_err(|error: http::uri::InvalidUri| Failure::usage(error.to_string()))?,
            headers,
            body,
        })
    }
}

/// A rate above zero; a million a second is more than any loopback carries.
fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= 1e6 => Ok(rate),
        _ => Err("a rate is a number of requests a second, above 0 and at most 1000000".into()),
    }
}

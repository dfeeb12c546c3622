//! `explain`: what a word or a decision means.
//!
//! `code` is local and prints the one table of error codes; `route` asks the platform for its
//! routes, puts them into the gateway's own table and says which wins and why. `call`, `timeout` and
//! `scaling` say in sentences what the platform's answers say in numbers, and no more than is there.

mod call;
mod scaling;
mod story;
mod timeout;

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use fp_core::code::{Code, UnknownCode};
use fp_core::route::{self, Route, RouteTable, Routed};
use fp_core::{EventType, FunctionName};
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::flags::{Global, wait};
use crate::list::Listing;
use crate::{payload, screen};

/// Explain an error code, a call or a decision
#[derive(Debug, Args)]
pub(crate) struct Explain {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What an error code means and what to do about it; without a code, all of them
    Code {
        /// The code, as in the field `code` of an error answer
        code: Option<String>,
    },
    /// What happened to a call: where its time went, how it ended and why
    Call {
        /// The invocation's id
        id: String,
    },
    /// Why a call ran out of time: whose limit it was, and what to change
    Timeout {
        /// The invocation's id
        id: String,
    },
    /// The workers of a function: which there are, and why
    Scaling {
        /// The function's name
        name: String,
    },
    /// Which function answers a request, and why
    Route {
        /// The request: `VERB /path`, an event type such as 'http|GET|/cats', or a path (then GET)
        #[arg(required = true, num_args = 1..=2, value_names = ["VERB", "PATH"])]
        request: Vec<String>,
    },
}

impl Explain {
    /// Explains it.
    pub(crate) fn run(&self, global: &Global) -> Result<Exit, Failure> {
        match &self.what {
            What::Code { code: Some(word) } => explain_code(global, word),
            What::Code { code: None } => list_codes(global),
            What::Call { id } => wait(call::explain(global, &Client::new(global)?, id)),
            What::Timeout { id } => wait(timeout::explain(global, &Client::new(global)?, id)),
            What::Scaling { name } => wait(scaling::explain(global, &Client::new(global)?, name)),
            What::Route { request } => {
                let (verb, path) = requested(request).map_err(Failure::usage)?;
                wait(explain_route(global, &verb, &path))
            }
        }
    }
}

fn explain_code(global: &Global, word: &str) -> Result<Exit, Failure> {
    let code: Code = word
        .trim()
        .to_ascii_lowercase()
        .replace('-', "_")
        .parse()
        .map_err(|error: UnknownCode| Failure::new(Exit::NotFound, error.to_string()))?;
    if global.json() {
        screen::json(&as_json(code))?;
        return Ok(Exit::Ok);
    }
    let again = match code.retryable() {
        true => "the same request may succeed later",
        false => "the same request will fail again",
    };
    screen::line(&format!("{}: {}", code.word(), code.title()))?;
    for paragraph in [code.meaning(), code.what_to_do(), &format!("Retry: {again}.")] {
        screen::line(&format!("\n{paragraph}"))?;
    }
    Ok(Exit::Ok)
}

fn list_codes(global: &Global) -> Result<Exit, Failure> {
    if global.json() {
        screen::json(&Code::ALL.map(as_json).to_vec())?;
        return Ok(Exit::Ok);
    }
    let rows = Code::ALL.map(|code| vec![code.word().to_owned(), code.title().to_owned()]);
    screen::table(&["code", "title"], rows.to_vec(), "no codes")?;
    Ok(Exit::Ok)
}

fn as_json(code: Code) -> Value {
    json!({
        "code": code.word(), "title": code.title(), "meaning": code.meaning(),
        "what_to_do": code.what_to_do(), "retryable": code.retryable(),
    })
}

/// The verb and the path that one or two words name, without query string.
fn requested(words: &[String]) -> Result<(String, String), String> {
    let (verb, path) = match words {
        [verb, path] => (verb.as_str(), path.as_str()),
        [word] if word.starts_with('/') => ("GET", word.as_str()),
        [word] => {
            let request = word.strip_prefix("http|").unwrap_or(word);
            request.split_once(['|', ' ']).ok_or_else(|| {
                format!(
                    "{word} names no route; write GET /cats, http|GET|/cats, or a path, which begins with /"
                )
            })?
        }
        _ => return Err("a route is a verb and a path".into()),
    };
    let path = path.trim().split('?').next().unwrap_or_default();
    Ok((payload::verb(verb)?, payload::path(path)?))
}

async fn explain_route(global: &Global, verb: &str, path: &str) -> Result<Exit, Failure> {
    let listing: Listing = Client::new(global)?.get("/functions").await?.read()?;
    let routes = routes(&listing);
    let path = route::normal_path(path).map_err(|error| Failure::usage(error.to_string()))?;
    let winner = match table(&routes)?.find(verb, &path) {
        Route::Found(winner) => winner,
        Route::OtherVerbs(verbs) => return Err(other_verbs(verb, &path, &verbs)),
        Route::Nothing { near } => return Err(nothing(&path, &near)),
    };
    let reason = reason(&winner.event_type, &beaten(&routes, &winner.event_type, verb, &path)?);
    if global.json() {
        let params: BTreeMap<_, _> = winner.params.into_iter().collect();
        screen::json(&json!({
            "event_type": &*winner.event_type, "functions": &*winner.functions, "path_params": params,
            "reason": reason,
        }))?;
        return Ok(Exit::Ok);
    }
    screen::line(&format!("{verb} {path} is answered by {} ({})", winner.functions[0], winner.event_type))?;
    screen::line(&reason)?;
    for (name, value) in &winner.params {
        screen::line(&format!("path_params: {name} = {value:?}"))?;
    }
    if winner.functions.len() > 1 {
        let others = winner.functions[1..].join(", ");
        screen::line(&format!("it was created first and answers; {others} run as well"))?;
    }
    Ok(Exit::Ok)
}

/// An event type and a function that it calls, in the order in which the platform has them.
type Bound = (EventType, FunctionName);

/// What the listing says about routes; what this program cannot read is left out.
fn routes(listing: &Listing) -> Vec<Bound> {
    let bound = |event: &str, function: &Value| {
        Some((event.parse().ok()?, function["function_name"].as_str()?.parse().ok()?))
    };
    let pairs =
        listing.iter().flat_map(|(event, functions)| functions.iter().map(move |function| (event, function)));
    pairs.filter_map(|(event, function)| bound(event, function)).collect()
}

/// The very table that the gateway asks.
fn table<'a>(routes: impl IntoIterator<Item = &'a Bound>) -> Result<RouteTable<String>, Failure> {
    let routed = (0..).zip(routes).map(|(order, (event, name))| Routed {
        name,
        order,
        events: std::slice::from_ref(event),
        function: name.to_string(),
    });
    RouteTable::build(routed).map_err(|conflict| Failure::new(Exit::Other, conflict.to_string()))
}

/// The other event types that would answer if the winner were not there.
fn beaten(routes: &[Bound], winner: &str, verb: &str, path: &str) -> Result<Vec<String>, Failure> {
    let mut beaten = Vec::new();
    for route in routes {
        if let Route::Found(alone) = table([route])?.find(verb, path)
            && &*alone.event_type != winner
            && !beaten.contains(&alone.event_type.to_string())
        {
            beaten.push(alone.event_type.to_string());
        }
    }
    Ok(beaten)
}

fn reason(winner: &str, beaten: &[String]) -> String {
    if beaten.is_empty() {
        return "it is the only route for this verb and path".into();
    }
    let pattern = |event: &str| event.splitn(3, '|').nth(2).unwrap_or_default().to_owned();
    let rule = match beaten.iter().any(|other| pattern(other) != pattern(winner)) {
        true => "a literal segment wins over {param}, that over {*rest}, from the left; then a verb over *",
        false => "a named verb wins over *",
    };
    format!("it wins over {}: {rule}", beaten.join(", "))
}

fn other_verbs(verb: &str, path: &str, verbs: &[String]) -> Failure {
    let allow = verbs.join(", ");
    let message = format!("{path} is known, but not for {verb}: the gateway answers 405, Allow: {allow}");
    Failure::new(Exit::NotFound, message)
}

fn nothing(path: &str, near: &[String]) -> Failure {
    let hint = match near {
        [] => "`functionsplatform list` shows the routes".to_owned(),
        near => format!("near: {}; a trailing slash is significant", near.join(", ")),
    };
    Failure::new(Exit::NotFound, format!("no route matches {path}: the gateway answers 404")).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(events: &[&str], verb: &str, path: &str) -> (String, Vec<String>) {
        let listing = events.iter().map(|event| ((*event).to_owned(), vec![json!({"function_name": "f"})]));
        let routes = routes(&listing.collect());
        let Route::Found(winner) = table(&routes).expect("a table").find(verb, path) else {
            panic!("no route")
        };
        let beaten = beaten(&routes, &winner.event_type, verb, path).expect("tables");
        (winner.event_type.to_string(), beaten)
    }

    #[test]
    fn what_was_beaten_would_have_answered_and_did_not() {
        let events = ["http|GET|/a/b", "http|GET|/a/{x}", "http|POST|/a/{x}", "http|*|/{*rest}"];
        let (winner, mut beaten) = explained(&events, "GET", "/a/b");
        beaten.sort();
        assert_eq!(winner, "http|GET|/a/b");
        assert_eq!(beaten, ["http|*|/{*rest}", "http|GET|/a/{x}"]);
        assert_eq!(explained(&events, "PUT", "/a/b"), ("http|*|/{*rest}".into(), vec![]));
    }

    #[test]
    fn a_route_is_named_as_people_name_it() {
        let of = |words: &[&str]| requested(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        for words in [&["get", "/cats"][..], &["/cats"], &["GET /cats"], &["http|GET|/cats"], &["/cats?n=1"]]
        {
            assert_eq!(of(words), Ok(("GET".to_owned(), "/cats".to_owned())), "{words:?}");
        }
        assert_eq!(of(&["POST /a b"]), Ok(("POST".to_owned(), "/a b".to_owned())));
        for words in [&["cats"][..], &["GET", "cats"], &["GET cats"], &["G(T", "/cats"]] {
            assert!(of(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn the_rule_fits_what_was_beaten() {
        let of = |winner, beaten: &str| reason(winner, &[beaten.to_owned()]);
        assert!(of("http|GET|/a", "http|*|/a").ends_with("a named verb wins over *"));
        assert!(of("http|GET|/a", "http|GET|/{x}").contains("literal"));
    }
}

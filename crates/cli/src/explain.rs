//! `explain`: what a word or a decision means.
//!
//! `code` is local and prints the one table of error codes; `route` asks the platform for its
//! routes and says which wins and why.

use clap::{Args, Subcommand};
use fp_core::code::{Code, UnknownCode};
use fp_core::event::{EventType, PathPattern, Segment, Verb};
use serde_json::{Value, json};

use crate::client::Client;
use crate::exit::{Exit, Failure};
use crate::flags::{Global, wait};
use crate::list::Listing;
use crate::{payload, screen};

/// Explain an error code or a routing decision
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
    /// Which function answers a request, and why
    Route {
        /// The verb of the request
        #[arg(value_parser = payload::verb)]
        verb: String,
        /// Its path, without query string
        #[arg(value_parser = payload::path)]
        path: String,
    },
}

impl Explain {
    /// Explains it.
    pub(crate) fn run(&self, global: &Global) -> Result<Exit, Failure> {
        match &self.what {
            What::Code { code: Some(word) } => explain_code(global, word),
            What::Code { code: None } => list_codes(global),
            What::Route { verb, path } => wait(explain_route(global, verb, path)),
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

async fn explain_route(global: &Global, verb: &str, path: &str) -> Result<Exit, Failure> {
    let listing: Listing = Client::new(global)?.get("/functions").await?.read()?;
    let candidates = candidates(&listing, path);
    let Some(winner) = winner(&candidates, verb) else {
        return Err(no_route(verb, path, &candidates));
    };
    let reason = reason(winner, &candidates, verb);
    if global.json() {
        let considered: Vec<_> = candidates.iter().map(|route| &route.event).collect();
        screen::json(&json!({
            "event_type": winner.event, "functions": winner.functions, "reason": reason, "considered": considered,
        }))?;
        return Ok(Exit::Ok);
    }
    screen::line(&format!("{verb} {path} is answered by {} ({})", winner.functions[0], winner.event))?;
    screen::line(&reason)?;
    if winner.functions.len() > 1 {
        let others = winner.functions[1..].join(", ");
        screen::line(&format!("it was created first and answers; {others} run as well"))?;
    }
    Ok(Exit::Ok)
}

/// A route whose pattern matches the path.
#[derive(Debug)]
struct Candidate {
    event: String,
    verb: Verb,
    pattern: PathPattern,
    functions: Vec<String>,
}

/// The routes that match the path, most specific first: the order of patterns, then one verb
/// before any.
fn candidates(listing: &Listing, path: &str) -> Vec<Candidate> {
    let name = |function: &Value| function["function_name"].as_str().unwrap_or("-").to_owned();
    let of_event = |(event, functions): (&String, &Vec<Value>)| {
        let EventType::Http { verb, path: pattern } = event.parse().ok()?;
        let functions: Vec<_> = functions.iter().map(name).collect();
        (matches(&pattern, path) && !functions.is_empty()).then_some(Candidate {
            event: event.clone(),
            verb,
            pattern,
            functions,
        })
    };
    let mut found: Vec<_> = listing.iter().filter_map(of_event).collect();
    found.sort_by(|a, b| (&a.pattern, &a.verb).cmp(&(&b.pattern, &b.verb)));
    found
}

/// The first candidate for the verb; HEAD falls back to GET.
fn winner<'a>(candidates: &'a [Candidate], verb: &str) -> Option<&'a Candidate> {
    let answers = |wanted: &str| {
        candidates.iter().find(|route| match &route.verb {
            Verb::Exactly(own) => own == wanted,
            Verb::Any => true,
        })
    };
    answers(verb).or_else(|| if verb == "HEAD" { answers("GET") } else { None })
}

fn reason(winner: &Candidate, candidates: &[Candidate], verb: &str) -> String {
    let Some(beaten) = candidates.iter().find(|route| route.event != winner.event) else {
        return "it is the only route that matches this path".into();
    };
    match beaten.pattern == winner.pattern {
        true => format!("it beats {}: {verb} is named and * is any verb that nobody names", beaten.event),
        false => format!(
            "it beats {}: a literal segment wins over {{param}}, that over {{*rest}}, from the left",
            beaten.event
        ),
    }
}

fn no_route(verb: &str, path: &str, candidates: &[Candidate]) -> Failure {
    if candidates.is_empty() {
        return Failure::new(Exit::NotFound, format!("no route matches {path}: the gateway answers 404"))
            .hint("`functionsplatform list` shows the routes; a trailing slash is significant");
    }
    let verbs: Vec<_> = candidates.iter().map(|route| route.verb.to_string()).collect();
    let message =
        format!("{path} is known, but not for {verb}: the gateway answers 405, Allow: {}", verbs.join(", "));
    Failure::new(Exit::NotFound, message)
}

/// Whether a pattern matches a path as it stands in a request.
fn matches(pattern: &PathPattern, path: &str) -> bool {
    let decoded: Vec<_> = path
        .trim_start_matches('/')
        .split('/')
        .map(|part| percent_encoding::percent_decode_str(part).decode_utf8_lossy().into_owned())
        .collect();
    let segments = pattern.segments();
    for (index, segment) in segments.iter().enumerate() {
        match (segment, decoded.get(index)) {
            (Segment::Rest(_), Some(_)) => return decoded[index..].iter().any(|part| !part.is_empty()),
            (Segment::Literal(text), Some(part)) if text == part => {}
            (Segment::Param(_), Some(part)) if !part.is_empty() => {}
            _ => return false,
        }
    }
    segments.len() == decoded.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(events: &[&str]) -> Listing {
        events.iter().map(|event| ((*event).to_owned(), vec![json!({"function_name": event})])).collect()
    }

    fn answered_by(events: &[&str], verb: &str, path: &str) -> Option<String> {
        let candidates = candidates(&listing(events), path);
        winner(&candidates, verb).map(|route| route.event.clone())
    }

    #[test]
    fn the_most_specific_route_wins() {
        let events = ["http|GET|/a/b", "http|GET|/a/{x}", "http|*|/a/{x}", "http|GET|/{*rest}"];
        for (verb, path, event) in [
            ("GET", "/a/b", "http|GET|/a/b"),
            ("GET", "/a/c", "http|GET|/a/{x}"),
            ("POST", "/a/c", "http|*|/a/{x}"),
            ("HEAD", "/z/c", "http|GET|/{*rest}"),
            ("GET", "/a/b/", "http|GET|/{*rest}"),
            ("GET", "/a/%62", "http|GET|/a/b"),
        ] {
            assert_eq!(answered_by(&events, verb, path).as_deref(), Some(event), "{verb} {path}");
        }
        assert_eq!(answered_by(&["http|GET|/a"], "POST", "/a"), None);
    }
}

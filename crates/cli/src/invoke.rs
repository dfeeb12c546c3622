//! `invoke`: a call of one function, by its name.
//!
//! The management API tells which verb and path the function answers, and runs exactly this
//! function: at the gateway the same route may lead to another one first. The call is limited
//! and recorded as any other.

use std::io::Write;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use fp_core::code::Code;
use fp_core::event::{EventType, Segment, Verb};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use crate::client::{self, Client, segment};
use crate::exit::{Exit, Failure};
use crate::{payload, screen};

/// Call a function by its name and print its answer
///
/// Exactly this function runs, also where others share its event type. The body goes to stdout
/// as it is produced. When the function fails, the exit code is 7 and
/// stderr says why.
#[derive(Debug, Args)]
pub(crate) struct Invoke {
    /// The function's name
    name: String,
    /// The body; @FILE reads it from a file, @- from stdin
    #[arg(short = 'd', long, value_name = "BODY")]
    data: Option<String>,
    /// A header, as 'Name: value'; may be given many times
    #[arg(short = 'H', long, value_name = "HEADER")]
    header: Vec<payload::Header>,
    /// The verb, where the function answers any or none [default: POST with a body, else GET]
    #[arg(short = 'X', long, value_name = "VERB", value_parser = payload::verb)]
    verb: Option<String>,
    /// The path with its query string; needed where the function's route has parameters
    #[arg(short = 'P', long, value_name = "PATH", value_parser = payload::path)]
    path: Option<String>,
    /// Print the status line and the headers before the body
    #[arg(short = 'i', long)]
    include: bool,
}

impl Invoke {
    /// Finds the route, calls it, prints the answer.
    pub(crate) async fn run(&self, client: &Client) -> Result<Exit, Failure> {
        let body = self.data.as_deref().map(payload::read).transpose()?;
        let function = client.get(&format!("/functions/{}", segment(&self.name))).await?.read()?;
        let (verb, path) = match first_event(&self.name, &function)? {
            Some(event) => self.target(&event)?,
            // Whatever it is asked by its name, then.
            None => (self.verb(&Verb::Any), self.path.clone().unwrap_or_else(|| "/".into())),
        };
        let lines: Vec<_> = self.header.iter().map(payload::Header::as_line).collect();
        let mut request = json!({"http_verb": verb, "http_path": path, "http_header": lines.join("\n")});
        match body.map(String::from_utf8) {
            None => {}
            Some(Ok(text)) => request["http_body"] = text.into(),
            Some(Err(bytes)) => request["http_body_base64"] = STANDARD.encode(bytes.as_bytes()).into(),
        }
        let route = format!("/functions/{}/invoke", segment(&self.name));
        self.show(client.post_and_stream(&route, &request).await?).await
    }

    fn verb(&self, answered: &Verb) -> String {
        match (answered, &self.verb) {
            (_, Some(wanted)) => wanted.clone(),
            (Verb::Exactly(verb), None) => verb.clone(),
            (Verb::Any, None) => if self.data.is_some() { "POST" } else { "GET" }.into(),
        }
    }

    /// The verb and the path that lead to the function.
    fn target(&self, event: &EventType) -> Result<(String, String), Failure> {
        let EventType::Http { verb, path } = event;
        let verb = self.verb(verb);
        if let Some(path) = &self.path {
            return Ok((verb, path.clone()));
        }
        let literals = path.segments().iter().map(|part| match part {
            Segment::Literal(text) => Some(format!("/{}", segment(text))),
            Segment::Param(_) | Segment::Rest(_) => None,
        });
        let filled: Option<String> = literals.collect();
        filled.map(|path| (verb, path)).ok_or_else(|| {
            Failure::usage(format!("{} answers {path}, which has parameters", self.name))
                .hint("fill them in with --path, such as --path /thumbs/7")
        })
    }

    /// Prints the answer as it comes and judges it.
    async fn show(&self, response: http::Response<hyper::body::Incoming>) -> Result<Exit, Failure> {
        let (head, mut body) = response.into_parts();
        if self.include {
            print_head(head.status, &head.headers)?;
        }
        if is_problem(&head.headers) {
            let whole = body.collect().await.map_err(|error| broken_off(&error))?.to_bytes();
            let Some(code) = code_in(&whole) else {
                screen::bytes(&whole)?;
                return self.judge(head.status);
            };
            let exit = exit_of(head.status, Some(code));
            return Err(Failure { exit, ..client::problem(head.status, &whole) });
        }
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken_off(&error))?;
            if let Some(piece) = frame.data_ref() {
                screen::bytes(piece)?;
            }
        }
        if std::io::IsTerminal::is_terminal(&std::io::stdout()) {
            let _ = std::io::stdout().write_all(b"\n");
        }
        self.judge(head.status)
    }

    /// An answer of the handler's own: what counts is its status.
    fn judge(&self, status: StatusCode) -> Result<Exit, Failure> {
        match exit_of(status, None) {
            Exit::Ok => Ok(Exit::Ok),
            exit => Err(Failure::new(exit, format!("{} answered {status}", self.name))),
        }
    }
}

/// The exit code for an error answer of the gateway. The problem's code tells whose fault it
/// was; without one the answer is the handler's own.
fn exit_of(status: StatusCode, code: Option<Code>) -> Exit {
    match code {
        Some(
            Code::FunctionError
            | Code::Timeout
            | Code::DeadlineExceeded
            | Code::OutOfMemory
            | Code::Crashed
            | Code::StartFailed,
        ) => Exit::FunctionFailed,
        Some(Code::TooLarge) if status.is_server_error() => Exit::FunctionFailed,
        Some(_) => Exit::of_status(status),
        None if status.is_server_error() => Exit::FunctionFailed,
        None => Exit::Ok,
    }
}

/// The code in a problem document.
fn code_in(body: &[u8]) -> Option<Code> {
    let problem: Value = serde_json::from_slice(body).ok()?;
    Code::from_word(problem.get("code")?.as_str()?)
}

/// Problem documents are the platform's way to say that a call did not work (a handler's own
/// have no code of ours and count as its answer).
fn is_problem(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|text| text.starts_with("application/problem+json"))
}

fn first_event(name: &str, function: &Value) -> Result<Option<EventType>, Failure> {
    let list = ["events", "event_types"].iter().find_map(|key| function.get(*key)?.get(0)?.as_str());
    let event = list.or_else(|| function.get("event_type")?.as_str()).map(str::parse).transpose();
    event.map_err(|error| Failure::new(Exit::Other, format!("{name}: {error}")))
}

fn print_head(status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
    screen::text(&format!("HTTP/1.1 {status}\r\n"))?;
    for (name, value) in headers {
        screen::text(&format!("{name}: {}\r\n", String::from_utf8_lossy(value.as_bytes())))?;
    }
    screen::text("\r\n")
}

fn broken_off(error: &hyper::Error) -> Failure {
    Failure::new(Exit::FunctionFailed, format!("the answer broke off: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_follows_the_problems_code() {
        for (status, code, exit) in [
            (500, Some(Code::FunctionError), Exit::FunctionFailed),
            (500, Some(Code::PlatformError), Exit::Other),
            (502, Some(Code::Crashed), Exit::FunctionFailed),
            (502, Some(Code::TooLarge), Exit::FunctionFailed),
            (413, Some(Code::TooLarge), Exit::Refused),
            (503, Some(Code::Shed), Exit::Shed),
            (503, Some(Code::StartFailed), Exit::FunctionFailed),
            (504, Some(Code::Timeout), Exit::FunctionFailed),
            (429, Some(Code::QuotaExceeded), Exit::Shed),
            (404, Some(Code::NoRoute), Exit::NotFound),
            (404, None, Exit::Ok),
            (503, None, Exit::FunctionFailed),
        ] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(exit_of(status, code), exit, "{status} {code:?}");
        }
    }
}

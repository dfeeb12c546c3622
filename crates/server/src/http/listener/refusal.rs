//! The answer to what is no request: hyper refuses it by a bare head, and this is what is sent
//! in its place.

use std::time::Duration;

use fp_core::code::Code;
use fp_core::record::Phases;

use super::{MAX_HEAD_BYTES, MAX_HEADERS};
use crate::http::gateway::answer::{new_correlation_id, server_timing};
use crate::http::problem::Problem;

/// hyper's limit on a request's target.
const MAX_TARGET_BYTES: usize = (u16::MAX - 1) as usize;

/// A problem document in the place of hyper's own head, which has no body. To a HEAD none is sent.
pub(super) fn in_place_of(bare: &[u8], head_only: bool, took: Duration) -> Vec<u8> {
    let bare = String::from_utf8_lossy(bare);
    let problem = problem(bare.get(9..12).unwrap_or_default());
    let (head, body) = problem.into_parts();
    let phases = Phases { route: took.as_nanos() as u64, ..Phases::default() };
    let mut lines: Vec<String> = bare
        .split("\r\n")
        .filter(|line| !line.is_empty() && !line.to_ascii_lowercase().starts_with("content-length:"))
        .map(str::to_owned)
        .collect();
    for (name, value) in &head.headers {
        lines.push(format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())));
    }
    lines.push(format!("content-length: {}", body.len()));
    lines.push(format!("x-correlation-id: {}", new_correlation_id()));
    lines.push(format!("server-timing: {}", String::from_utf8_lossy(server_timing(&phases).as_bytes())));
    let mut answer = lines.join("\r\n").into_bytes();
    answer.extend_from_slice(b"\r\n\r\n");
    if !head_only {
        answer.extend_from_slice(&body);
    }
    answer
}

fn problem(status: &str) -> Problem {
    let problem = match status {
        "414" => {
            let detail =
                format!("the path with its query is longer than {MAX_TARGET_BYTES} bytes; send less in it");
            Problem::new(Code::PathTooLong, detail).extra("limit_bytes", MAX_TARGET_BYTES)
        }
        "431" => {
            let detail = format!(
                "the request's head has more than {MAX_HEADERS} headers or {MAX_HEAD_BYTES} bytes; send fewer or shorter ones"
            );
            Problem::new(Code::HeadersTooLarge, detail).extra("limit_bytes", MAX_HEAD_BYTES)
        }
        _ => {
            let detail =
                "this is no HTTP request: its first line, a header or the length of its body cannot be read";
            Problem::new(Code::BadRequest, detail).hint(
                "Send `VERB /path HTTP/1.1` with the path percent-encoded, and one Content-Length or none.",
            )
        }
    };
    problem.component("listener").phase("route")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: now\r\n\r\n";

    #[test]
    fn a_bare_head_becomes_a_problem_document() {
        let answer = String::from_utf8(in_place_of(BARE, false, Duration::from_micros(12))).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with(
            "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ndate: now\r\n"
        ));
        for line in [
            "content-type: application/problem+json",
            &format!("content-length: {}", body.len()),
            "server-timing: route;dur=0.012, ",
        ] {
            assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
        }
        assert_eq!(head.matches("content-length").count(), 1, "{head}");
        assert!(body.contains("\"code\":\"headers_too_large\""), "{body}");
        let head_only = String::from_utf8(in_place_of(BARE, true, Duration::ZERO)).expect("text");
        assert!(head_only.ends_with("\r\n\r\n") && !head_only.contains("content-length: 0"), "{head_only}");
    }
}

//! Error codes: the one list of words that problem documents, the API and `explain code` share.
//!
//! Every error that the platform can answer with has a [`Code`]; statuses are given at the HTTP
//! edge, which matches on this enum exhaustively. Each code explains itself: what it means, what
//! to do about it and whether the same request may succeed later. `docs/errors.md` is checked
//! against these texts. A failed invocation's code is its outcome's word ([`Code::of`]).
//!
//! Longer than other files because it is one table: a dozen lines for each code, which belong together.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// What went wrong, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "each code documents itself for users in `explanation`")]
pub enum Code {
    AuthUnavailable,
    BadRequest,
    Cancelled,
    Crashed,
    CrossSite,
    DeadlineExceeded,
    EventConflict,
    ForbiddenHost,
    FunctionError,
    HandlerNotLoadable,
    HeadersTooLarge,
    InvalidArchive,
    InvalidBody,
    InvalidDeadline,
    InvalidEvent,
    InvalidManifest,
    InvalidName,
    InvalidPath,
    InvalidSettings,
    IsolationTooWeak,
    KeyInvalid,
    KeyMissing,
    MethodNotAllowed,
    NameReserved,
    NoRoute,
    NotFound,
    NotReady,
    OutOfMemory,
    PathTooLong,
    PlatformError,
    QuotaExceeded,
    RequestTimeout,
    SampledOut,
    ScopeMissing,
    SecretInUse,
    SecretMissing,
    Shed,
    SignatureInvalid,
    SignatureMissing,
    StartFailed,
    StorageFailed,
    StorageFull,
    TenantExists,
    TenantNotFound,
    Timeout,
    TokenInvalid,
    TokenMissing,
    TooLarge,
    Unprocessable,
    UnsupportedEvent,
    UnsupportedMediaType,
}

/// A text that is no code's word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an error code; `explain code` without an argument lists them")]
pub struct UnknownCode {
    /// What was given.
    pub text: String,
}

/// What a code says about itself.
struct Explanation {
    word: &'static str,
    title: &'static str,
    meaning: &'static str,
    what_to_do: &'static str,
    retryable: bool,
}

impl Code {
    /// The word of the interface, in snake case.
    pub fn word(self) -> &'static str {
        self.explanation().word
    }

    /// A short sentence-like name: the `title` of problem documents.
    pub fn title(self) -> &'static str {
        self.explanation().title
    }

    /// What it means, for a user, in two or three sentences.
    pub fn meaning(self) -> &'static str {
        self.explanation().meaning
    }

    /// What to do about it.
    pub fn what_to_do(self) -> &'static str {
        self.explanation().what_to_do
    }

    /// Whether the very same request may succeed when it is sent again later. It says nothing
    /// about whether the handler has run: that is for the caller's idempotency to judge.
    pub fn retryable(self) -> bool {
        self.explanation().retryable
    }

    /// The code of a word as [`word`](Self::word) prints it.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.word() == word)
    }

    /// The code of a failed invocation; none for [`Outcome::Ok`]. Its word is the outcome's.
    pub fn of(outcome: Outcome) -> Option<Self> {
        Some(match outcome {
            Outcome::Ok => return None,
            Outcome::FunctionError => Self::FunctionError,
            Outcome::Timeout => Self::Timeout,
            Outcome::DeadlineExceeded(_) => Self::DeadlineExceeded,
            Outcome::Shed(_) => Self::Shed,
            Outcome::QuotaExceeded => Self::QuotaExceeded,
            Outcome::Cancelled => Self::Cancelled,
            Outcome::OutOfMemory => Self::OutOfMemory,
            Outcome::Crashed => Self::Crashed,
            Outcome::StartFailed => Self::StartFailed,
            Outcome::RequestTooLarge | Outcome::ResponseTooLarge => Self::TooLarge,
            Outcome::PlatformError => Self::PlatformError,
        })
    }

    /// Every code, in the order of their words.
    pub const ALL: [Self; 51] = [
        Self::AuthUnavailable,
        Self::BadRequest,
        Self::Cancelled,
        Self::Crashed,
        Self::CrossSite,
        Self::DeadlineExceeded,
        Self::EventConflict,
        Self::ForbiddenHost,
        Self::FunctionError,
        Self::HandlerNotLoadable,
        Self::HeadersTooLarge,
        Self::InvalidArchive,
        Self::InvalidBody,
        Self::InvalidDeadline,
        Self::InvalidEvent,
        Self::InvalidManifest,
        Self::InvalidName,
        Self::InvalidPath,
        Self::InvalidSettings,
        Self::IsolationTooWeak,
        Self::KeyInvalid,
        Self::KeyMissing,
        Self::MethodNotAllowed,
        Self::NameReserved,
        Self::NoRoute,
        Self::NotFound,
        Self::NotReady,
        Self::OutOfMemory,
        Self::PathTooLong,
        Self::PlatformError,
        Self::QuotaExceeded,
        Self::RequestTimeout,
        Self::SampledOut,
        Self::ScopeMissing,
        Self::SecretInUse,
        Self::SecretMissing,
        Self::Shed,
        Self::SignatureInvalid,
        Self::SignatureMissing,
        Self::StartFailed,
        Self::StorageFailed,
        Self::StorageFull,
        Self::TenantExists,
        Self::TenantNotFound,
        Self::Timeout,
        Self::TokenInvalid,
        Self::TokenMissing,
        Self::TooLarge,
        Self::Unprocessable,
        Self::UnsupportedEvent,
        Self::UnsupportedMediaType,
    ];

    #[expect(clippy::too_many_lines, reason = "a table: one entry per code")]
    fn explanation(self) -> Explanation {
        let entry = |word, retryable, title, meaning, what_to_do| Explanation {
            word,
            title,
            meaning,
            what_to_do,
            retryable,
        };
        match self {
            Self::AuthUnavailable => entry(
                "auth_unavailable",
                true,
                "Callers of this function cannot be checked now",
                "The function asks its callers for a token or a signature, and what these are checked with is \
                 not there: the issuer's set of keys was never readable, or not for a day, or the secret was \
                 deleted. Nobody is let in unchecked. The message names it.",
                "Try again after Retry-After. Whoever deployed the function looks at auth.jwt.jwks in its \
                 function.toml, which the platform must be able to read, or sets the secret again.",
            ),
            Self::BadRequest => entry(
                "bad_request",
                false,
                "The request is malformed",
                "The request could not be read: its syntax, its query string or its JSON is broken. \
                 Nothing was run or changed.",
                "Compare the request with the API document at /openapi.json; `detail` says which part \
                 could not be read.",
            ),
            Self::Cancelled => entry(
                "cancelled",
                true,
                "The caller left before the answer",
                "The connection was closed by its caller while the call was queued or running. The call was \
                 taken out of the queue or interrupted. The status 499 stands in records only, as nobody was \
                 left to receive it.",
                "Look at the caller's own timeout. A function whose work must not be cut off says \
                 on_disconnect = \"finish\".",
            ),
            Self::Crashed => entry(
                "crashed",
                true,
                "The worker died during the call",
                "The process that ran the handler ended without an answer: a fault in a native library, \
                 os._exit, or a signal. Only this call is affected; the worker is replaced.",
                "Read the call's logs, which survive the worker, and look for native code or for calls that \
                 end the process.",
            ),
            Self::CrossSite => entry(
                "cross_site",
                false,
                "The request comes from a foreign web page",
                "A browser sent this request on behalf of a page of another site (a foreign Origin, or \
                 Sec-Fetch-Site: cross-site). The management listeners refuse that, so that no web page can \
                 deploy code on your machine.",
                "Use the dashboard's own address, the CLI or a program without an Origin header.",
            ),
            Self::DeadlineExceeded => entry(
                "deadline_exceeded",
                true,
                "The deadline could not be kept",
                "The time that the caller gave had run out, or could not have been enough. The reason says \
                 where: infeasible (refused at once), expired_in_queue (never started) or expired_running \
                 (interrupted).",
                "Give the call more time, or see in its Server-Timing which phase took it: a long queue asks \
                 for more workers (scaling.max), a long run for a faster handler.",
            ),
            Self::EventConflict => entry(
                "event_conflict",
                false,
                "The event type conflicts with another",
                "Two path patterns that cannot be told apart, such as /a/{x} and /a/{y}, would both match. \
                 The message names the other pattern and its function.",
                "Use the same pattern as the other function (then both run), change one of the two, or delete \
                 the other function.",
            ),
            Self::ForbiddenHost => entry(
                "forbidden_host",
                false,
                "The Host name is not one of this listener's",
                "The management listeners answer only to the host names that they are bound to, which keeps \
                 a web page from reaching them through a name of its own (DNS rebinding).",
                "Use the address that `up` printed, such as http://127.0.0.1:8000.",
            ),
            Self::FunctionError => entry(
                "function_error",
                false,
                "The handler failed",
                "The handler raised an exception, called sys.exit, returned something that cannot be an \
                 answer, or answered with a status of 500 or more. The worker lives on.",
                "Read the call's logs and trace by its invocation id; the exception is in both.",
            ),
            Self::HandlerNotLoadable => entry(
                "handler_not_loadable",
                false,
                "The handler cannot be loaded",
                "A deploy loads the code in a sandboxed worker before it is accepted, and this failed: a \
                 syntax error, a failing import, a missing handler, or a start of over 10 s. The version that \
                 was deployed before stays in service.",
                "Fix the line that the message names; the traceback's last lines are in `traceback`.",
            ),
            Self::HeadersTooLarge => entry(
                "headers_too_large",
                false,
                "The request's headers are too large",
                "The request line and headers together are over the listener's limit, or there are too many of \
                 them.",
                "Send fewer or shorter headers; large cookies are the usual cause.",
            ),
            Self::InvalidArchive => entry(
                "invalid_archive",
                false,
                "The code cannot be taken in",
                "The archive is not a zip file that can be read, or the function's files break a rule: a path \
                 that leads outside, a link, two names that differ in case only, too many files or bytes.",
                "Correct what the message names, or let `functionsplatform deploy DIR` make the archive.",
            ),
            Self::InvalidBody => entry(
                "invalid_body",
                false,
                "The body is not what its content type says",
                "The content type announces JSON or a form, and the body is not one. The handler did not run.",
                "Send valid JSON, or another content type: text/plain and application/octet-stream are passed \
                 on as they are.",
            ),
            Self::InvalidDeadline => entry(
                "invalid_deadline",
                false,
                "A deadline header cannot be read",
                "One of grpc-timeout, X-Request-Timeout, Request-Timeout, x-envoy-expected-rq-timeout-ms and \
                 Connect-Timeout-Ms has a value that is not a time. The message names the header and the \
                 value. The handler did not run.",
                "Write X-Request-Timeout as decimal seconds (2.5) or with a unit (250ms, 2s), grpc-timeout \
                 as up to 8 digits and one of H M S m u n, the others as whole milliseconds.",
            ),
            Self::InvalidEvent => entry(
                "invalid_event",
                false,
                "The event type cannot be read",
                "An event type is written http|VERB|/path, where the path may hold {name} segments and end in \
                 {*rest}. The message says what is wrong with this one.",
                "Correct the event type, for example http|GET|/api/cats/{id}.",
            ),
            Self::InvalidManifest => entry(
                "invalid_manifest",
                false,
                "function.toml cannot be read",
                "The manifest is not valid TOML, has a key that does not exist or a value that is not allowed. \
                 `field` and `line` say where.",
                "Correct the line; docs/function-toml.md lists every key with its values and its default.",
            ),
            Self::InvalidName => entry(
                "invalid_name",
                false,
                "The name breaks the naming rule",
                "Names of functions have 1 to 63 of the characters A-Z a-z 0-9 _ . - and begin with a letter \
                 or a digit.",
                "Choose another name.",
            ),
            Self::InvalidPath => entry(
                "invalid_path",
                false,
                "The path cannot be decoded",
                "The request's path is not UTF-8 once its percent escapes are decoded, or holds a broken \
                 escape.",
                "Encode the path as UTF-8 with %XX escapes.",
            ),
            Self::InvalidSettings => entry(
                "invalid_settings",
                false,
                "A setting is not allowed",
                "A key of `settings` does not exist or has a value that is not allowed. `field` names it; the \
                 message says what was given and what is allowed.",
                "Correct the field; the keys are those of function.toml, listed in docs/function-toml.md.",
            ),
            Self::IsolationTooWeak => entry(
                "isolation_too_weak",
                false,
                "This host does not keep tenants apart",
                "Tenants do not trust each other, so a platform with named ones needs the floor of isolation, as \
                 `isolation = \"strict\"` does. This host lacks a part of it, which the message names.",
                "Give the platform what `functionsplatform doctor` says is missing. If the tenants do trust each \
                 other, start it with --allow-weak-isolation-between-tenants.",
            ),
            Self::KeyInvalid => entry(
                "key_invalid",
                false,
                "The key is not valid",
                "A key or a session came with the request, and it is not one of this platform's, has expired or \
                 was revoked; at the gateway, it may be another tenant's than the function. Which of these is \
                 not told.",
                "Use another key; whoever administers the tenant makes one with `functionsplatform key create`.",
            ),
            Self::KeyMissing => entry(
                "key_missing",
                false,
                "A key is needed",
                "This listener, or this function, answers only to those who hold a key, and none came with the \
                 request. Management listeners beyond loopback always ask for one, those on loopback with \
                 --require-key, functions with auth.key.",
                "Send it as Authorization: Bearer fpk_…; on the command line with --key or FUNCTIONSPLATFORM_KEY; \
                 in a browser at /login.",
            ),
            Self::MethodNotAllowed => entry(
                "method_not_allowed",
                false,
                "The path is known, but not with this verb",
                "A route exists for this path with other verbs, which the Allow header lists.",
                "Use one of the verbs in Allow, or deploy a function on this verb or on http|*|/path.",
            ),
            Self::NameReserved => entry(
                "name_reserved",
                false,
                "The name is reserved",
                "`instances` and `trigger` are routes of the management API under /functions, so no function \
                 can have these names.",
                "Choose another name.",
            ),
            Self::NoRoute => entry(
                "no_route",
                false,
                "No function answers to this path",
                "The gateway has no event type whose pattern matches the path. Paths are case-sensitive and a \
                 trailing slash is significant.",
                "`functionsplatform list` shows what is deployed; `functionsplatform explain route PATH` shows \
                 what a path would reach.",
            ),
            Self::NotFound => entry(
                "not_found",
                false,
                "There is no such thing",
                "The management API knows no function, invocation, worker or route of that name. Records of \
                 invocations are kept for a limited time.",
                "Check the name or id with the list commands (list, list-instances).",
            ),
            Self::NotReady => entry(
                "not_ready",
                true,
                "The platform is starting or stopping",
                "The listener is up, but not all functions of `up` are deployed: they are on their way, or were \
                 refused, and `refused` names them. Or the platform is draining before it stops.",
                "Try again after Retry-After. Where functions were refused, mend them and deploy them again; \
                 /readyz answers 200 once everything is deployed.",
            ),
            Self::OutOfMemory => entry(
                "out_of_memory",
                false,
                "The worker ran out of memory",
                "The handler's process reached the function's memory limit and was ended. Only this call is \
                 affected; the worker is replaced.",
                "Raise `memory` in function.toml, or use less: the invocation's record has the peak.",
            ),
            Self::PathTooLong => entry(
                "path_too_long",
                false,
                "The path is too long",
                "The request's path, with its query string, is longer than any request's may be.",
                "Send what makes it long in the body.",
            ),
            Self::PlatformError => entry(
                "platform_error",
                true,
                "The platform failed",
                "A fault of the platform itself, not of the function or the caller. It is in the platform's own \
                 log under the invocation id.",
                "Try again; if it stays, run `functionsplatform doctor` and report it with the id.",
            ),
            Self::QuotaExceeded => entry(
                "quota_exceeded",
                true,
                "The caller is over its quota",
                "This caller has used up what it was given; others are not affected. It does not count against \
                 the function's objective.",
                "Wait for Retry-After, send less, or have the quota raised.",
            ),
            Self::RequestTimeout => entry(
                "request_timeout",
                true,
                "The request did not arrive in time",
                "The connection was too slow in sending its request's headers or body, so it was cut. The \
                 handler did not run.",
                "Send the request without pauses; large bodies need a line that keeps moving.",
            ),
            Self::SampledOut => entry(
                "sampled_out",
                false,
                "The record was not kept",
                "The invocation took place and is in every counter, but at this rate only a weighted sample of \
                 records goes to disk, and this one was not in it.",
                "Errors, missed objectives, refusals and cold starts are kept first; raise the history limits \
                 in the configuration to keep more.",
            ),
            Self::ScopeMissing => entry(
                "scope_missing",
                false,
                "The key may not do this",
                "The key is valid, but does not have the scope that this needs: deploy, invoke, read or admin. \
                 `scope` names it.",
                "Use a key with this scope, or have one made: a key's scopes do not change.",
            ),
            Self::SecretInUse => entry(
                "secret_in_use",
                false,
                "Functions read this secret",
                "Live functions name this secret in function.toml: without it they would fail at their next \
                 call. `functions` names them.",
                "Deploy them without it or delete them first; or delete it all the same with \
                 `secret delete NAME --force` (`?force=true`).",
            ),
            Self::SecretMissing => entry(
                "secret_missing",
                false,
                "A secret is not there",
                "The function names a secret in function.toml, in secrets or in auth.hmac, that its tenant does \
                 not have.",
                "Set it with `functionsplatform secret set NAME`, which reads the value from its standard \
                 input, and deploy again; or take the name out.",
            ),
            Self::Shed => entry(
                "shed",
                true,
                "Refused because of overload",
                "More calls came than the function's workers and its queue can take, so this one was refused \
                 without being run. The reason says why it was this one: queue_delay (it would have waited longer \
                 than the objective leaves, and others had for a while), queue_full, priority (a call of a \
                 higher class took its place), memory (the platform holds as many bytes of request bodies as it \
                 may), or breaker_open (nearly all of the function's latest calls crashed or timed out, and \
                 single calls find out whether it has recovered). It counts against the function's availability.",
                "Wait for Retry-After. If it happens often, raise scaling.max, make the handler faster, or give \
                 less important calls X-Criticality: sheddable; with breaker_open, read the errors of the calls \
                 that ran.",
            ),
            Self::SignatureInvalid => entry(
                "signature_invalid",
                false,
                "The signature is wrong",
                "The function takes only bodies that were signed with a secret that it shares with its callers, \
                 and the signature that came is not that of this body: another secret, or the body was changed \
                 on its way. The handler did not run.",
                "Send `sha256=` and the hexadecimal HMAC-SHA256 of the body as it goes over the line, and compare \
                 the secret with the one that was set for the function.",
            ),
            Self::SignatureMissing => entry(
                "signature_missing",
                false,
                "A signature is needed",
                "The function takes only bodies that were signed with a secret that it shares with its callers, \
                 and the request has no signature in the header that the message names.",
                "Give whoever sends the webhook the secret: GitHub asks for it where the webhook is set up.",
            ),
            Self::StartFailed => entry(
                "start_failed",
                true,
                "No worker could be started",
                "Starting a worker of this function failed, so its waiting calls were refused instead of left \
                 hanging. The platform tries again with growing pauses.",
                "Read the function's start error on its page or with `functionsplatform logs`; \
                 `functionsplatform doctor` shows whether the host lacks something.",
            ),
            Self::StorageFailed => entry(
                "storage_failed",
                true,
                "The data directory could not be written",
                "What was asked must be written before it is confirmed, and writing failed for another reason \
                 than a full disk: permissions, a read-only file system, a faulty disk or a damaged database. \
                 Nothing was changed. Functions go on answering.",
                "Look into the platform's own log, which has the system's words, and at the data directory's \
                 permissions and disk.",
            ),
            Self::StorageFull => entry(
                "storage_full",
                true,
                "The disk is full",
                "What was asked must be written before it is confirmed, and the data directory has no space \
                 left. Functions go on answering; history is off until there is space.",
                "Free space in the data directory's file system, or lower the history budget.",
            ),
            Self::TenantExists => entry(
                "tenant_exists",
                false,
                "There is such a tenant already",
                "Names of tenants are unique on a platform, and this one is taken. Nothing was changed.",
                "Choose another name, or use the tenant that is there.",
            ),
            Self::TenantNotFound => entry(
                "tenant_not_found",
                false,
                "There is no such tenant",
                "The request is to act for a tenant (X-Tenant, --tenant) or is about one that does not exist, or \
                 that is none of the caller's business: only the operator may act for others.",
                "Leave X-Tenant out: a key acts for its own tenant. The operator's `functionsplatform tenant \
                 list` shows all.",
            ),
            Self::Timeout => entry(
                "timeout",
                true,
                "The function's timeout passed",
                "The handler did not answer within the function's own timeout, so it was interrupted and its \
                 worker replaced.",
                "Raise `timeout` in function.toml if the work is meant to take that long; the trace shows \
                 where the time went.",
            ),
            Self::TokenInvalid => entry(
                "token_invalid",
                false,
                "The token is not valid",
                "A token came with the request, and this function does not take it: it is of another issuer or \
                 for another audience, its time is over or has not begun, none of the issuer's keys has signed \
                 it, or it is no JSON web token. `reason` says which.",
                "Get a new token from the issuer that function.toml names in auth.jwt, for the audience that it \
                 names there.",
            ),
            Self::TokenMissing => entry(
                "token_missing",
                false,
                "A token is needed",
                "The function answers only to those who send a JSON web token of its issuer, and none came with \
                 the request.",
                "Send it as Authorization: Bearer ….",
            ),
            Self::TooLarge => entry(
                "too_large",
                false,
                "The body is over the limit",
                "The request's body (status 413) or the handler's answer (status 502) is larger than the \
                 function allows. `limit_bytes` has the limit.",
                "Raise limits.body or limits.response in function.toml, or stream a large answer from a \
                 generator, which has no such limit.",
            ),
            Self::Unprocessable => entry(
                "unprocessable",
                false,
                "The request is well-formed but wrong",
                "The request could be read, but a field is missing, has the wrong type or a value that is not \
                 allowed. `field` names it.",
                "Correct the field; /openapi.json describes all of them.",
            ),
            Self::UnsupportedEvent => entry(
                "unsupported_event",
                false,
                "This kind of event is not built yet",
                "The event type's kind (the part before the first |) is one that this release does not have. \
                 The only kind is http.",
                "Use an http|VERB|/path event type, or `POST /functions/trigger` from a scheduler of your own.",
            ),
            Self::UnsupportedMediaType => entry(
                "unsupported_media_type",
                false,
                "The content type is not accepted here",
                "The management API takes writes only as application/json, application/zip or a form with the \
                 page's token, because a foreign web page can send the other types without asking.",
                "Set Content-Type: application/json.",
            ),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Code {
    type Err = UnknownCode;
    fn from_str(text: &str) -> Result<Self, UnknownCode> {
        Self::from_word(text).ok_or_else(|| UnknownCode { text: text.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_complete_and_in_the_order_of_its_words() {
        let words: Vec<_> = Code::ALL.iter().map(|code| code.word()).collect();
        assert!(words.windows(2).all(|pair| pair[0] < pair[1]), "{words:?}");
        let last = *Code::ALL.last().expect("not empty");
        assert_eq!(last as usize + 1, Code::ALL.len(), "a code is missing in ALL");
    }

    #[test]
    fn words_read_back_and_are_what_serde_writes() {
        for code in Code::ALL {
            assert_eq!(Code::from_word(code.word()), Some(code));
            assert_eq!(serde_json::to_value(code).expect("a word"), code.word());
        }
        assert!("BadRequest".parse::<Code>().is_err());
    }

    #[test]
    fn every_failed_outcome_has_the_code_of_its_word() {
        for outcome in Outcome::ALL {
            let word = Code::of(outcome).map(Code::word);
            assert_eq!(word, Some(outcome.word()).filter(|word| *word != "ok"));
        }
    }

    #[test]
    fn explanations_are_sentences() {
        for code in Code::ALL {
            assert!(!code.title().ends_with('.'), "{code}: {}", code.title());
            for text in [code.meaning(), code.what_to_do()] {
                assert!(text.ends_with('.') && !text.contains("  "), "{code}: {text}");
            }
        }
    }
}

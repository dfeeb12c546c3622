//! OTLP/HTTP: where services around the functions, and libraries inside them, send their spans.
//!
//! A listener of its own outside, and one in the network of each worker that has one, on which the
//! worker's tenant is known by the connection. Outside, a key says who sends where one is needed.
//! Answers have the encoding of their request, also those that refuse (`google.rpc.Status`). What the
//! platform cannot take at once is answered 503 with `Retry-After`, which exporters heed; metrics and
//! logs of services are not kept, and say so.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Router};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use fp_core::code::Code;
use fp_core::{FunctionName, Scope, ServiceSpan, Tenant};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode, Uri};
use prost::Message as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::caller::{self, Caller, Door};
use super::guard::{self, Hosts, media_type, unsupported_media_type};
use super::pages::Port;
use super::problem::Problem;
use super::whole::{self, Unread};
use crate::app::App;
use crate::otlp::messages::{ExportTraceResponse, Failure, PartialSuccess};
use crate::otlp::{self, Encoding, Received};
use crate::secrets::mask::Mask;

/// Largest request, also once it is unpacked: exporters send 512 spans at once (their default), some
/// hundred kilobytes. Read into spans it takes about five times as much.
const MAX_BYTES: usize = 16 << 20;

/// Requests that are read and stored at once; more wait.
const AT_ONCE: usize = 2;

/// How long: half of what exporters wait for an answer (10 s, `OTEL_EXPORTER_OTLP_TIMEOUT`).
const WAIT: Duration = Duration::from_secs(5);

/// When a sender that was turned away may come again.
const AGAIN: HeaderValue = HeaderValue::from_static("1");

/// What was sent, counted since the start, and how much of it is taken in at once.
#[derive(Debug)]
pub(crate) struct Intake {
    turns: Semaphore,
    kept: AtomicU64,
    rejected: AtomicU64,
    turned_away: AtomicU64,
}

impl Intake {
    /// Spans that were kept, spans that cannot be any, and requests that were turned away for want of
    /// room, of a turn or of a disk.
    pub(super) fn counts(&self) -> [u64; 3] {
        [&self.kept, &self.rejected, &self.turned_away].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Default for Intake {
    fn default() -> Self {
        Self {
            turns: Semaphore::new(AT_ONCE),
            kept: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            turned_away: AtomicU64::new(0),
        }
    }
}

/// Whose spans they are.
#[derive(Debug, Clone)]
struct Sender {
    tenant: Tenant,
    /// The function inside of which they are made, known where its network is its own.
    function: Option<FunctionName>,
}

/// What the OTLP port answers.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let hosts = Hosts::of(app.addresses.otlp.expect("it is served")).and(&app.config.api_hosts);
    let router = routes(app).layer(middleware::from_fn(sender_of_caller));
    let door =
        Door { app: app.clone(), port: Port::Traces, needs_key: app.addresses.otlp_needs_key(&app.config) };
    guard::protect(caller::authenticated(router, door), hosts)
}

/// The same inside the network of a function's worker: whoever sends is known.
pub(crate) fn inner_router(app: &Arc<App>, tenant: Tenant, function: FunctionName) -> Router {
    routes(app).layer(Extension(Sender { tenant, function: Some(function) }))
}

fn routes(app: &Arc<App>) -> Router {
    Router::new()
        .route("/v1/traces", post(take_traces))
        .route("/v1/metrics", post(refuse_kind))
        .route("/v1/logs", post(refuse_kind))
        .fallback(not_here)
        .with_state(app.clone())
}

async fn sender_of_caller(mut request: Request, next: Next) -> Response {
    if let Some(caller) = request.extensions().get::<Caller>() {
        if let Err(problem) = caller.require(Scope::Invoke) {
            return problem.into_response();
        }
        let sender = Sender { tenant: caller.tenant.clone(), function: None };
        request.extensions_mut().insert(sender);
    }
    next.run(request).await
}

async fn not_here(uri: Uri) -> Problem {
    let problem = Problem::new(Code::NotFound, format!("there is no {:?} here", uri.path()));
    problem.component("otlp").hint("Spans are taken at POST /v1/traces.")
}

/// Said with a status that exporters do not try again.
async fn refuse_kind(uri: Uri, headers: HeaderMap) -> Response {
    let encoding = encoding(&headers).unwrap_or(Encoding::Json);
    let text = format!(
        "{} is not taken: this platform keeps the traces of services, not their metrics or logs; \
         set OTEL_METRICS_EXPORTER=none and OTEL_LOGS_EXPORTER=none, or another endpoint for them",
        uri.path()
    );
    Refusal::new(StatusCode::NOT_FOUND, text).answer(encoding)
}

async fn take_traces(
    State(app): State<Arc<App>>,
    Extension(sender): Extension<Sender>,
    request: Request,
) -> Result<Response, Problem> {
    let encoding = encoding(request.headers())?;
    let taken = take(&app, &sender, encoding, request).await;
    let refusal = match taken {
        Ok(received) => return Ok(accepted(encoding, received)),
        Err(refusal) => refusal,
    };
    if refusal.status == StatusCode::SERVICE_UNAVAILABLE {
        app.otlp.turned_away.fetch_add(1, Ordering::Relaxed);
    }
    Ok(refusal.answer(encoding))
}

async fn take(app: &App, sender: &Sender, encoding: Encoding, request: Request) -> Result<Received, Refusal> {
    let is_packed = is_gzip(request.headers())?;
    let (parts, body) = request.into_parts();
    let purse = app.bodies.purse(&sender.tenant);
    let body = whole::read(body, &parts.headers, MAX_BYTES as u64, Some(purse)).await.map_err(unread)?;
    // Whoever let the sender in may have gone meanwhile.
    caller::ask_again(&parts.extensions)
        .map_err(|problem| Refusal::new(problem.status(), "the key is not in force any more"))?;
    let turn = timeout(WAIT, app.otlp.turns.acquire()).await;
    let Ok(Ok(_turn)) = turn else { return Err(Refusal::later("too much is sent at once")) };
    let mask = sender.function.as_ref().and_then(|function| mask_of(app, &sender.tenant, function));
    let reading = tokio::task::spawn_blocking(move || read(&body, is_packed, encoding, mask.as_deref()));
    let stopping = |_| Refusal::later("the platform is stopping");
    let mut received = reading.await.map_err(stopping)??;
    app.otlp.rejected.fetch_add(received.rejected, Ordering::Relaxed);
    let spans = std::mem::take(&mut received.spans);
    let count = spans.len() as u64;
    if count > 0 {
        let kept = app.history.keep_services(&sender.tenant, spans, app.clock.wall_now_us()).await;
        kept.map_err(|error| {
            tracing::warn!(error = %error.chain(), "spans of services cannot be kept");
            Refusal::later("the spans cannot be kept now")
        })?;
    }
    app.otlp.kept.fetch_add(count, Ordering::Relaxed);
    Ok(received)
}

/// What may not be seen of a function's secrets, its libraries do not publish either.
fn mask_of(app: &App, tenant: &Tenant, function: &FunctionName) -> Option<Arc<Mask>> {
    let deployed = app.catalog.get(tenant, function)?;
    deployed.pool.secrets().map(|secrets| secrets.mask())
}

fn read(body: &Bytes, is_packed: bool, encoding: Encoding, mask: Option<&Mask>) -> Result<Received, Refusal> {
    let unpacked = if is_packed && !body.is_empty() { unpack(body)? } else { body.clone() };
    let received = otlp::read_traces(&unpacked, encoding);
    let mut received = received.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
    if let Some(mask) = mask {
        received.spans.iter_mut().for_each(|span| mask_span(mask, span));
    }
    Ok(received)
}

fn mask_span(mask: &Mask, sent: &mut ServiceSpan) {
    mask.boxed(&mut sent.service);
    sent.resource.iter_mut().for_each(|(_, value)| mask.json(value));
    mask.span(&mut sent.span);
}

fn unpack(body: &[u8]) -> Result<Bytes, Refusal> {
    let mut unpacked = Vec::new();
    let read = MultiGzDecoder::new(body).take(MAX_BYTES as u64 + 1).read_to_end(&mut unpacked);
    read.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body is no gzip: {error}")))?;
    if unpacked.len() > MAX_BYTES { Err(too_large()) } else { Ok(unpacked.into()) }
}

fn encoding(headers: &HeaderMap) -> Result<Encoding, Problem> {
    let media_type = media_type(headers);
    match media_type.as_deref() {
        Some("application/x-protobuf") => Ok(Encoding::Protobuf),
        Some("application/json") => Ok(Encoding::Json),
        other => Err(unsupported_media_type(other, "application/x-protobuf or application/json")),
    }
}

fn is_gzip(headers: &HeaderMap) -> Result<bool, Refusal> {
    let given = headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or_default());
    match given.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "identity" | "none") => Ok(false),
        Some("gzip") => Ok(true),
        Some(other) => {
            let text = format!("content encoding {other:?} is not taken; send gzip, or none");
            Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
        }
    }
}

fn unread<E: std::fmt::Display>(unread: Unread<E>) -> Refusal {
    match unread {
        Unread::TooLarge => too_large(),
        Unread::NoRoom => Refusal::later("too many bytes of bodies are held"),
        Unread::Broken(error) => {
            Refusal::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}"))
        }
    }
}

fn too_large() -> Refusal {
    let text = format!("the request is over the limit of {MAX_BYTES} bytes; export fewer spans at once");
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, text)
}

/// Why spans are not taken, as gRPC words it.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }

    /// It may go better in a while.
    fn later(text: &str) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    /// The numbers are those of `google.rpc.Code`.
    fn code(&self) -> i32 {
        match self.status {
            StatusCode::UNAUTHORIZED => 16,
            StatusCode::FORBIDDEN => 7,
            StatusCode::NOT_FOUND => 12,
            StatusCode::PAYLOAD_TOO_LARGE => 8,
            StatusCode::SERVICE_UNAVAILABLE => 14,
            _ => 3,
        }
    }

    fn answer(self, encoding: Encoding) -> Response {
        let code = self.code();
        let body = match encoding {
            Encoding::Protobuf => Failure { code, message: self.text }.encode_to_vec(),
            Encoding::Json => serde_json::json!({ "code": code, "message": self.text }).to_string().into(),
        };
        let mut response = answer(self.status, encoding, body);
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, AGAIN);
        }
        response
    }
}

/// A success, with what its sender should know.
fn accepted(encoding: Encoding, received: Received) -> Response {
    let body = match encoding {
        Encoding::Protobuf => {
            let partial_success = received.complaint.map(|complaint| PartialSuccess {
                rejected_spans: received.rejected.cast_signed(),
                error_message: complaint.into_owned(),
            });
            ExportTraceResponse { partial_success }.encode_to_vec()
        }
        Encoding::Json => in_json(&received).to_string().into(),
    };
    answer(StatusCode::OK, encoding, body)
}

/// As protobuf's JSON has it: 64 bit numbers are texts, and zeros are left out.
fn in_json(received: &Received) -> serde_json::Value {
    let Some(complaint) = &received.complaint else { return serde_json::json!({}) };
    let mut partial = serde_json::json!({ "errorMessage": complaint });
    if received.rejected > 0 {
        partial["rejectedSpans"] = received.rejected.to_string().into();
    }
    serde_json::json!({ "partialSuccess": partial })
}

fn answer(status: StatusCode, encoding: Encoding, body: Vec<u8>) -> Response {
    let media_type = match encoding {
        Encoding::Protobuf => "application/x-protobuf",
        Encoding::Json => "application/json",
    };
    (status, [(CONTENT_TYPE, media_type)], Body::from(body)).into_response()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text).expect("memory");
        packer.finish().expect("memory")
    }

    #[test]
    fn what_unpacks_to_too_much_is_refused() {
        assert_eq!(unpack(&packed(b"{}")).expect("small"), "{}");
        let most = unpack(&packed(&vec![b' '; MAX_BYTES])).expect("the limit itself");
        assert_eq!(most.len(), MAX_BYTES);
        let refusal = unpack(&packed(&vec![b' '; MAX_BYTES + 1])).expect_err("too large");
        assert_eq!(refusal.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(unpack(b"plain").expect_err("no gzip").status, StatusCode::BAD_REQUEST);
    }

    #[test]
    fn answers_have_the_encoding_of_their_request() {
        let received = |rejected, complaint: Option<&'static str>| Received {
            spans: Vec::new(),
            rejected,
            complaint: complaint.map(Into::into),
        };
        assert_eq!(in_json(&received(0, None)).to_string(), "{}");
        assert_eq!(
            in_json(&received(2, Some("bad"))).to_string(),
            r#"{"partialSuccess":{"errorMessage":"bad","rejectedSpans":"2"}}"#
        );
        let refused = Refusal::later("full").answer(Encoding::Protobuf);
        assert_eq!(refused.headers()[CONTENT_TYPE], "application/x-protobuf");
        assert_eq!(refused.headers()[RETRY_AFTER], "1");
        assert!(
            Refusal::new(StatusCode::BAD_REQUEST, "x")
                .answer(Encoding::Json)
                .headers()
                .get(RETRY_AFTER)
                .is_none()
        );
    }

    #[test]
    fn only_gzip_is_unpacked_and_both_types_are_read() {
        let headers = |name: http::HeaderName, value: &'static str| {
            HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
        };
        for (value, packed) in [("gzip", true), ("GZIP", true), ("identity", false)] {
            assert_eq!(is_gzip(&headers(CONTENT_ENCODING, value)).expect(value), packed);
        }
        assert!(is_gzip(&headers(CONTENT_ENCODING, "br")).is_err());
        let read = |value| encoding(&headers(CONTENT_TYPE, value)).ok();
        assert_eq!(read("application/json; charset=utf-8"), Some(Encoding::Json));
        assert_eq!(read("application/x-protobuf"), Some(Encoding::Protobuf));
        assert_eq!(read("text/plain"), None);
    }
}

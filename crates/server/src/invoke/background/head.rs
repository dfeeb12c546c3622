//! What is stored of an accepted request besides its body, and the request that is made of it again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fp_core::ids::SpanId;
use fp_core::record::Trigger;
use fp_core::trace_context::TraceContext;
use fp_core::{InvocationId, Tenant, TraceId};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::invoke::Request;
use crate::invoke::flight::Promise;
use crate::store::AsyncCall;

/// Longest correlation id that is taken over: it is stored with every record.
pub(crate) const MAX_CORRELATION_ID: usize = 200;

/// Verb, path, headers and trace of an accepted request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Head {
    pub(super) verb: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) params: Vec<(String, String)>,
    pub(super) correlation_id: String,
    /// The caller's trace context.
    pub(super) parent: Option<TraceContext>,
    /// The trace that is begun when the caller sent none.
    pub(super) trace_id: TraceId,
    /// The root span of this function's invocation.
    pub(super) span_id: SpanId,
    /// Who calls, for functions that ask; absent in rows of earlier releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) auth: Option<Arc<Value>>,
}

impl Head {
    /// None if it is none of ours.
    pub(super) fn of(call: &AsyncCall) -> Option<Self> {
        serde_json::from_str(&call.head_json).ok()
    }

    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a head has string keys only")
    }

    /// The request, and where it belongs in its trace.
    pub(super) fn open(self, tenant: Tenant, event_type: Arc<str>, body: Bytes, now: Duration) -> Opened {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            let pair = (HeaderName::try_from(name), HeaderValue::from_bytes(value.as_bytes()));
            if let (Ok(name), Ok(value)) = pair {
                headers.append(name, value);
            }
        }
        let request = Request {
            tenant,
            event_type,
            trigger: Trigger::Async,
            verb: self.verb.into(),
            path: self.path.into(),
            query: self.query.into(),
            headers,
            params: self.params,
            body,
            correlation_id: self.correlation_id.into(),
            trace: self.parent,
            link: None,
            time_given: None,
            criticality: None,
            called_by: None,
            caller: 0,
            arrived: now,
            upload: Duration::ZERO,
            auth: self.auth,
        };
        Opened { request, trace_id: self.trace_id, span_id: self.span_id }
    }
}

/// An accepted request as functions get it.
pub(super) struct Opened {
    pub(super) request: Request,
    trace_id: TraceId,
    pub(super) span_id: SpanId,
}

impl Opened {
    /// What the call of this root span was promised.
    pub(super) fn promise(&self, id: InvocationId, span_id: SpanId, accepted_us: u64) -> Promise {
        let headers = &self.request.headers;
        let trace = match &self.request.trace {
            Some(parent) => parent.with_span(span_id),
            None => TraceContext::begin(self.trace_id, span_id, |name| {
                headers.get_all(name).iter().map(HeaderValue::as_bytes)
            }),
        };
        Promise { id, trace, accepted_us }
    }
}

/// The caller's correlation id, or a new one.
pub(super) fn correlation_id(headers: &[(String, String)]) -> String {
    let given = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-correlation-id"));
    let usable = given.filter(|(_, id)| !id.is_empty() && id.len() <= MAX_CORRELATION_ID);
    usable.map_or_else(|| format!("{:032x}", fastrand::u128(..)), |(_, id)| id.clone())
}

/// The caller's trace context.
pub(super) fn trace_of(headers: &[(String, String)]) -> Option<TraceContext> {
    TraceContext::extract(|name| {
        let mine = headers.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name));
        mine.map(|(_, value)| value.as_bytes())
    })
}

//! Spans of services beside the functions: a shop's web server, a worker of a queue, a library
//! inside a handler that exports by itself.
//!
//! They come as OTLP, belong to one tenant, and are in the traces of its calls where their trace
//! ids say so. Unlike calls they are neither counted nor sampled here: who sends them has decided.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::TraceId;
use crate::record::{Link, Span};

/// What a service without a name is called (OpenTelemetry, resource semantic conventions).
pub const UNKNOWN_SERVICE: &str = "unknown_service";

/// What side of an operation a span is on, as OpenTelemetry counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SpanKind {
    /// Within a service.
    #[default]
    Internal,
    /// Answering somebody.
    Server,
    /// Asking somebody.
    Client,
    /// Handing something to a queue.
    Producer,
    /// Taking it from there.
    Consumer,
}

impl SpanKind {
    /// By OTLP's number; what is unspecified or unknown is internal, as the protocol says.
    pub fn from_number(number: i32) -> Self {
        match number {
            2 => Self::Server,
            3 => Self::Client,
            4 => Self::Producer,
            5 => Self::Consumer,
            _ => Self::Internal,
        }
    }

    /// As Jaeger's tag `span.kind` has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Internal => "internal",
            Self::Server => "server",
            Self::Client => "client",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// A span that a service made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceSpan {
    /// The trace that it is part of.
    pub trace_id: TraceId,
    /// `service.name` of its resource; never empty.
    pub service: Box<str>,
    /// The other attributes of its resource.
    pub resource: Vec<(Box<str>, Value)>,
    /// Which side it is on.
    pub kind: SpanKind,
    /// Spans that it has to do with, besides its parent.
    pub links: Vec<Link>,
    /// Name, times, attributes, events. The attributes `otel.scope.name` and `otel.scope.version`
    /// say what made it.
    pub span: Span,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_otlps_numbers_and_jaegers_words() {
        let words = (0..=6).map(|number| SpanKind::from_number(number).word());
        let expected = ["internal", "internal", "server", "client", "producer", "consumer", "internal"];
        assert!(words.eq(expected));
    }
}

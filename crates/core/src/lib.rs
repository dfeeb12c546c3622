//! The pure room: what things are called and how decisions are made.
//!
//! Nouns, codes, policies and SLO mathematics. Everything here is a function of its
//! arguments: time and random draws come in as values, results go out as values.
//! No runtime, no I/O, no clock, no randomness, no `unsafe`; clippy's disallowed lists in
//! `clippy.toml` beside this crate keep it so. The server carries decisions out, the
//! simulator runs the very same code in virtual time.

pub mod breaker;
pub mod code;
pub mod credential;
pub mod deadline;
pub mod decided;
pub mod door;
pub mod event;
pub mod fallback;
#[doc(hidden)]
pub mod fuzz;
pub mod glob;
pub mod hedge;
pub mod ids;
pub mod key;
mod nearest;
pub mod outcome;
pub mod outlier;
pub mod pool;
pub mod query;
pub mod quota;
pub mod record;
pub mod route;
pub mod sampling;
pub mod scope;
pub mod service_span;
pub mod settings;
pub mod share;
pub mod slo;
pub mod token;
pub mod trace_context;

pub use event::EventType;
pub use ids::{FunctionName, InvocationId, SecretName, SpanId, Tenant, TraceId, VersionNumber, WorkerId};
pub use key::{KeyId, KeyName, PresentedKey};
pub use outcome::{Blame, Outcome};
pub use record::Invocation;
pub use scope::{Scope, Scopes};
pub use service_span::ServiceSpan;
pub use settings::{Manifest, Settings};

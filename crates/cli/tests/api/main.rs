//! The management API and Jaeger's query API of a running platform: status and body of every
//! kind of answer, and what the guard refuses.

#[path = "../harness/platform.rs"]
mod platform;

mod calls;
mod exchange;
mod functions;
mod guard;
mod traces;

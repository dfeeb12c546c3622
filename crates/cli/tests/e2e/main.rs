//! The real binary from the outside: starting, answering, stopping, and what it leaves behind
//! (nothing; the harness checks).

#[path = "../harness/platform.rs"]
mod platform;

mod audit;
mod breaking;
mod callers;
mod contract;
mod deadlines;
mod degrading;
mod edge;
mod edge_audit;
mod explaining;
mod fairness;
mod findings;
mod hedging;
mod mishaps;
mod networks;
mod notifying;
mod otlp;
mod preloading;
mod quotas;
mod running;
mod secrets;
mod sharing;
mod starting;
mod stopping;
mod tenants;
mod tls;

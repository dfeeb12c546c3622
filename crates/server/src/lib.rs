//! The async room: the platform's server.
//!
//! Top to bottom: [`http`] → [`invoke`], [`catalog`], [`history`], `notify`, [`slo`] → [`pool`], [`access`], `callers`,
//! [`secrets`], [`bodies`], [`audit`], [`store`] → [`config`], [`clock`], `outbound`. `http` never touches `store`,
//! `pool` or the sandbox; nothing below
//! `http` knows a status code's header. [`Server`] wires the rooms in dependency order, binds
//! early, starts late and drains.

pub mod access;
pub mod app;
pub mod audit;
pub(crate) mod bodies;
pub(crate) mod callers;
pub mod catalog;
pub mod clock;
pub mod config;
#[doc(hidden)]
pub mod fuzz;
pub mod history;
pub mod http;
pub mod invoke;
pub(crate) mod last_good;
pub(crate) mod notify;
pub(crate) mod otlp;
pub(crate) mod outbound;
pub mod pool;
pub(crate) mod quotas;
mod random;
pub mod readiness;
pub mod runtimes;
pub mod secrets;
pub mod server;
pub mod slo;
pub mod store;
pub mod tenants;
pub mod tls;

pub use config::Config;
pub use runtimes::Runtimes;
pub use server::{Server, StartError};

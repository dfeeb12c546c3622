//! What the HTTP edge may ask of the platform: one struct of handles, cloned into each router.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::access::Access;
use crate::audit::Audit;
use crate::bodies::BodyBudget;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::{Config, Permit};
use crate::history::History;
use crate::http::gateway::Gateway;
use crate::http::listener::PerAddress;
use crate::http::otlp::Intake;
use crate::http::pages::Port;
use crate::invoke::Invoker;
use crate::notify::Notifier;
use crate::quotas::Quotas;
use crate::readiness::Readiness;
use crate::slo::SloBook;

/// Addresses that the listeners are bound to, after port 0 was resolved.
#[derive(Debug, Clone, Copy)]
pub struct Addresses {
    /// The gateway.
    pub gateway: SocketAddr,
    /// The management API.
    pub api: SocketAddr,
    /// The trace pages.
    pub traces: SocketAddr,
    /// Where spans of services are taken; none where the usual port was somebody else's.
    pub otlp: Option<SocketAddr>,
    /// The gateway speaks TLS.
    pub gateway_tls: bool,
    /// The management API and the trace pages do.
    pub management_tls: bool,
}

impl Addresses {
    /// `http` or `https` of the gateway.
    pub fn gateway_scheme(&self) -> &'static str {
        if self.gateway_tls { "https" } else { "http" }
    }

    /// The same of the management API and the trace pages.
    pub fn management_scheme(&self) -> &'static str {
        if self.management_tls { "https" } else { "http" }
    }

    /// Whether spans of services are taken only of those who hold a key: as with the other listeners,
    /// and where functions of named tenants are in the host's network, which reach it too.
    pub(crate) fn otlp_needs_key(&self, config: &Config) -> bool {
        let is_reachable = self.otlp.is_some_and(|bound| !bound.ip().is_loopback());
        let strangers = config.tenants.full_network != Permit::default();
        config.require_key || is_reachable || strangers
    }
}

/// The rooms below the HTTP edge.
#[derive(Debug)]
pub struct App {
    /// What `up` was told.
    pub config: Config,
    /// Where things are.
    pub addresses: Addresses,
    /// Time.
    pub clock: Clock,
    /// When the platform started, Unix time in microseconds.
    pub started_us: u64,
    /// Tenants and keys.
    pub access: Arc<Access>,
    /// Who asked for what.
    pub audit: Arc<Audit>,
    /// What tenants may use.
    pub(crate) quotas: Arc<Quotas>,
    /// Functions and routes.
    pub catalog: Arc<Catalog>,
    /// Calls.
    pub invoker: Arc<Invoker>,
    /// How many bytes of bodies are held.
    pub(crate) bodies: Arc<BodyBudget>,
    /// Calls as they come from outside.
    pub(crate) gateway: Arc<Gateway>,
    /// What happened.
    pub history: Arc<History>,
    /// Rates, percentiles and objectives per function.
    pub slo: Arc<SloBook>,
    /// Who is told when an objective is being missed.
    pub(crate) notifier: Arc<Notifier>,
    /// What services send of their traces.
    pub(crate) otlp: Intake,
    /// How many connections each address has.
    pub(crate) connections: Arc<PerAddress>,
    /// Whether everything that `up` was asked for is deployed.
    pub readiness: Readiness,
}

impl App {
    /// Whether a management listener answers only to those who hold a key: always when others than
    /// this machine's own people can reach it.
    pub(crate) fn needs_key(&self, port: Port) -> bool {
        let bound = match port {
            Port::Api => self.addresses.api,
            Port::Traces => self.addresses.traces,
        };
        self.config.require_key || !bound.ip().is_loopback()
    }
}

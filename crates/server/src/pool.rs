//! The workers of one function version: leases, carried out from core's decisions.

/// The workers and the queue of one function version.
#[derive(Debug)]
pub struct VersionPool;

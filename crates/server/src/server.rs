//! Wiring: builds the rooms in dependency order, binds early, starts late, drains.

/// Why the platform did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {}

/// A running platform.
#[derive(Debug)]
pub struct Server;

//! The catalogue: which functions there are, and which answers a path.
//!
//! Readers take a snapshot (one atomic load); deploys and deletes build a new one and swap it.
//! A deploy is accepted after its handler has been loaded in a sandboxed worker; the registry
//! is written before the swap, so that what callers see survives a crash.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use fp_core::settings::Handler;
use fp_core::{EventType, FunctionName, Settings, Tenant, VersionNumber};

use crate::pool::VersionPool;

/// One live version of a function, with its workers.
#[derive(Debug)]
pub struct Deployed {
    /// Whose.
    pub tenant: Tenant,
    /// Which function.
    pub name: FunctionName,
    /// Which version of it.
    pub version: VersionNumber,
    /// Order of creation among all functions: the first created answers a shared event type.
    pub order: u64,
    /// When the function was first created, Unix time in microseconds.
    pub created_us: u64,
    /// When this version was deployed, Unix time in microseconds.
    pub deployed_us: u64,
    /// SHA-256 of the code tree, in hexadecimal.
    pub code_hash: String,
    /// Where the handler is.
    pub handler: Handler,
    /// What calls it.
    pub events: Vec<EventType>,
    /// Everything else.
    pub settings: Arc<Settings>,
    /// Its workers and its queue.
    pub pool: Arc<VersionPool>,
}

/// Code as it arrives.
#[derive(Debug, Clone)]
pub enum Source {
    /// The text of one file (`function_code` of `POST /functions`).
    Inline(String),
    /// A zip archive with the function's directory at its root.
    Archive(Bytes),
    /// A directory on this machine (`up DIR`).
    Directory(PathBuf),
}

/// What to deploy.
#[derive(Debug, Clone)]
pub struct DeployRequest {
    /// Whose.
    pub tenant: Tenant,
    /// The function; the same name again makes a new version.
    pub name: FunctionName,
    /// Where the handler is in the source.
    pub handler: Handler,
    /// What calls it.
    pub events: Vec<EventType>,
    /// Everything else.
    pub settings: Settings,
    /// The code.
    pub source: Source,
}

/// Why a deploy or a delete was refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct CatalogError {
    /// The error's word.
    pub code: String,
    /// What, and what to do.
    pub detail: String,
    /// The field at fault (dotted path), where there is one.
    pub field: Option<String>,
    /// The line at fault, in the handler's file or in function.toml.
    pub line: Option<u32>,
    /// Last lines of the traceback, where the handler could not be loaded.
    pub traceback: Option<String>,
}

/// What a verb and a path lead to.
#[derive(Debug)]
pub enum Route {
    /// These functions, first created first, with the matched pattern's parameters.
    Found(Matched),
    /// The path is known, with other verbs (sorted).
    OtherVerbs(Vec<String>),
    /// Nothing here; event types that are near, for the error answer.
    Nothing {
        /// Up to three event types that are near.
        near: Vec<String>,
    },
}

/// A route that was found.
#[derive(Debug)]
pub struct Matched {
    /// The event type that matched, as text.
    pub event_type: Arc<str>,
    /// Whose it is; never empty; the first answers.
    pub functions: Arc<[Arc<Deployed>]>,
    /// Percent-decoded parameters.
    pub params: Vec<(String, String)>,
}

/// The state of all functions at one moment.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Live versions by tenant and name.
    pub functions: BTreeMap<(Tenant, FunctionName), Arc<Deployed>>,
}

/// Functions and routes.
#[derive(Debug)]
pub struct Catalog;

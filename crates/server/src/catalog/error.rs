//! Why a deploy or a delete is refused, in words that say what to do.
//!
//! Other rooms' errors become one of these here, with the field and the line at fault where they
//! are known.

use std::sync::Arc;

use bytesize::ByteSize;
use fp_core::code::Code;
use fp_core::quota::Spent;
use fp_core::route::Conflict;
use fp_core::settings::show_size;
use fp_core::{FunctionName, Manifest, Tenant};
use fp_sandbox::{Ended, StartError as SandboxStartError};

use super::Catalog;
use super::code_store::{CodeError, Tree};
use crate::quotas::Refused;
use crate::secrets::{FunctionSecrets, SecretsError};
use crate::store::StoreError;

/// Largest manifest, in bytes: a hundred times a long one. Reading it takes memory and time that
/// grow with it.
const MAX_MANIFEST: usize = 256 << 10;

/// Why a deploy or a delete was refused.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct CatalogError {
    /// The error's word.
    pub code: Code,
    /// What, and what to do.
    pub detail: String,
    /// The field at fault (dotted path), where there is one.
    pub field: Option<String>,
    /// The line at fault, in the handler's file or in function.toml.
    pub line: Option<u32>,
    /// Last lines of the traceback, where the handler could not be loaded.
    pub traceback: Option<String>,
    /// The part of a quota that is spent.
    pub spent: Option<Spent>,
}

impl CatalogError {
    pub(super) fn new(code: Code, detail: String) -> Self {
        Self { code, detail, field: None, line: None, traceback: None, spent: None }
    }

    pub(super) fn field(code: Code, field: &str, detail: String) -> Self {
        Self { field: Some(field.to_owned()), ..Self::new(code, detail) }
    }

    /// A module may have raised with a secret in its words.
    pub(super) fn masked(mut self, secrets: Option<&Arc<FunctionSecrets>>) -> Self {
        if let Some(mask) = secrets.map(|secrets| secrets.mask()) {
            mask.string(&mut self.detail);
            self.traceback.iter_mut().for_each(|traceback| mask.string(traceback));
        }
        self
    }

    pub(super) fn from_secrets(error: SecretsError) -> Self {
        tracing::error!(%error, "secrets cannot be kept");
        Self::new(error.code(), error.to_string())
    }

    pub(super) fn no_directory(path: &str) -> Self {
        let detail = format!(
            "there is no directory {path:?} among the function's files; add it or take it out of path"
        );
        Self::field(Code::InvalidSettings, "path", detail)
    }

    pub(super) fn not_found(name: &FunctionName) -> Self {
        Self::new(Code::NotFound, format!("there is no function {name}; `functionsplatform list` shows all"))
    }

    pub(super) fn no_tenant(tenant: &Tenant) -> Self {
        Self::new(Code::TenantNotFound, format!("there is no tenant {:?}", tenant.as_str()))
    }

    pub(super) fn over_code_quota(tenant: &Tenant, wanted: u64, most: ByteSize) -> Self {
        let (wanted, most) = (show_size(ByteSize(wanted)), show_size(most));
        let detail = format!(
            "tenant {} would have {wanted} of code, and its quota \"code\" is {most}; \
             delete functions, make this one smaller, or have quota.code raised",
            tenant.as_str()
        );
        Self { spent: Some(Spent::Code), ..Self::new(Code::QuotaExceeded, detail) }
    }

    pub(super) fn over_quota(refused: &Refused) -> Self {
        let detail = format!("no worker can load the handler: {}", refused.sentence());
        Self { spent: Some(refused.spent()), ..Self::new(Code::QuotaExceeded, detail) }
    }

    /// The manifest of a tenant's function.
    pub(super) fn manifest_of(tree: &Tree, tenant: &Tenant) -> Result<Manifest, Self> {
        let Some(text) = tree.get("function.toml") else {
            let detail = "there is no function.toml at the root; add one with at least name and events";
            return Err(Self::new(Code::InvalidManifest, detail.to_owned()));
        };
        if text.len() > MAX_MANIFEST {
            let detail = format!(
                "function.toml is larger than {} KiB; large values belong into files",
                MAX_MANIFEST >> 10
            );
            return Err(Self::new(Code::InvalidManifest, detail));
        }
        let text = std::str::from_utf8(text).map_err(|_| {
            Self::new(Code::InvalidManifest, "function.toml is not UTF-8; save it as UTF-8".to_owned())
        })?;
        let mut manifest = Manifest::parse(text).map_err(|error| Self {
            field: Some(error.field.clone()).filter(|field| !field.is_empty()),
            line: error.line,
            ..Self::new(Code::InvalidManifest, error.to_string())
        })?;
        let says_network = toml::from_str::<toml::Table>(text).is_ok_and(|all| all.contains_key("network"));
        if !says_network {
            manifest.settings.network = Catalog::default_network(tenant);
        }
        Ok(manifest)
    }

    pub(super) fn from_code(error: CodeError) -> Self {
        Self::new(error.code(), error.to_string())
    }

    pub(super) fn from_store(error: StoreError) -> Self {
        tracing::error!(error = %error.chain(), "the registry did not do what it was asked");
        Self::new(error.code(), error.to_string())
    }

    pub(super) fn from_conflict(conflict: Conflict) -> Self {
        Self::field(Code::EventConflict, "event_type", conflict.to_string())
    }

    fn no_worker(detail: String) -> Self {
        Self::new(Code::StartFailed, format!("{detail}; nothing was deployed, try again"))
    }

    pub(super) fn from_start(error: SandboxStartError) -> Self {
        let detail = error.to_string();
        match error {
            SandboxStartError::LoadFailed { failure, .. } => Self {
                line: failure.line,
                traceback: Some(last_lines(&failure.traceback, 12)),
                field: Some("function_code".to_owned()),
                ..Self::new(Code::HandlerNotLoadable, detail)
            },
            // Nothing that the code did: the launcher died, or this host has no more to give.
            SandboxStartError::Host(_)
            | SandboxStartError::TooMany { .. }
            | SandboxStartError::MemoryShort { .. } => Self::no_worker(detail),
            SandboxStartError::Crashed { exit, .. } if exit.ended == Ended::Lost => Self::no_worker(detail),
            SandboxStartError::Preload(fault) => Self {
                traceback: Some(fault.traceback).filter(|text| !text.is_empty()),
                ..Self::field(Code::InvalidSettings, "preload", detail)
            },
            SandboxStartError::Python(_) => Self::field(Code::InvalidSettings, "python", detail),
            _ => Self::field(Code::HandlerNotLoadable, "function_code", detail),
        }
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fp_sandbox::Exit;

    use super::*;

    #[test]
    fn only_what_the_code_did_is_its_fault() {
        let crashed = |ended| SandboxStartError::Crashed {
            exit: Exit { ended, limit_hit: None },
            output: String::new(),
        };
        let code = |error| CatalogError::from_start(error).code;
        assert_eq!(code(crashed(Ended::Lost)), Code::StartFailed);
        assert_eq!(code(SandboxStartError::TooMany { workers: 1, limit: 64 }), Code::StartFailed);
        assert_eq!(code(SandboxStartError::MemoryShort { output: String::new() }), Code::StartFailed);
        assert_eq!(code(SandboxStartError::Host("no memory".into())), Code::StartFailed);
        assert_eq!(code(crashed(Ended::Code(3))), Code::HandlerNotLoadable);
        let late = SandboxStartError::TimedOut { limit: Duration::from_secs(10), output: String::new() };
        assert_eq!(code(late), Code::HandlerNotLoadable);
    }
}

//! Secrets as functions need them: none may be missing that a live function names, and none goes
//! while one is live, unless that is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fp_core::code::Code;
use fp_core::{FunctionName, SecretName, Settings, Tenant};

use super::{Catalog, CatalogError, WorkerSetup};
use crate::secrets::{MAX_VALUE, SecretValue, SecretView};

/// Secrets of one tenant: as many as keys. All values are in memory, up to 64 KiB each.
const MAX_SECRETS: usize = 1_000;

/// A secret and who reads it.
#[derive(Debug)]
pub struct SecretUse {
    /// What may be told of it.
    pub secret: SecretView,
    /// The live functions that name it, first created first.
    pub functions: Vec<FunctionName>,
}

impl Catalog {
    /// The secrets of a tenant, by name, with the functions that read them.
    pub fn list_secrets(&self, tenant: &Tenant) -> Vec<SecretUse> {
        // One pass over the functions, whatever number of secrets there is.
        let mut readers: BTreeMap<SecretName, Vec<FunctionName>> = BTreeMap::new();
        for function in self.list(tenant) {
            let needed: BTreeSet<_> = function.settings.needed_secrets().collect();
            for secret in needed {
                readers.entry(secret.clone()).or_default().push(function.name.clone());
            }
        }
        let used = |secret: SecretView| {
            let functions = readers.remove(&secret.name).unwrap_or_default();
            SecretUse { secret, functions }
        };
        self.workers.secrets.list(tenant).into_iter().map(used).collect()
    }

    fn readers(&self, tenant: &Tenant, secret: &SecretName) -> Vec<FunctionName> {
        let live = self.list(tenant).into_iter();
        live.filter(|function| function.settings.needed_secrets().any(|name| name == secret))
            .map(|function| function.name.clone())
            .collect()
    }

    /// Keeps a value under a name, the first or a new one, for the tenant that began then
    /// ([`Access::tenant_since`](crate::access::Access::tenant_since)). Goes on when the future is dropped.
    pub async fn set_secret(
        self: &Arc<Self>,
        tenant: &Tenant,
        since_us: u64,
        name: &SecretName,
        value: SecretValue,
    ) -> Result<SecretUse, CatalogError> {
        let (catalog, tenant, name) = (self.clone(), tenant.clone(), name.clone());
        let whole =
            tokio::spawn(async move { catalog.set_secret_whole(tenant, since_us, name, value).await });
        whole.await.expect("setting a secret does not panic")
    }

    async fn set_secret_whole(
        &self,
        tenant: Tenant,
        since_us: u64,
        name: SecretName,
        value: SecretValue,
    ) -> Result<SecretUse, CatalogError> {
        let _one_swap = self.swap.lock().await;
        self.check_tenant(&tenant, since_us)?;
        self.check_value(&tenant, &name, value.bytes())?;
        self.check_number(&tenant, &name)?;
        let now_us = self.workers.clock.wall_now_us();
        let secret = self.workers.secrets.set(&tenant, &name, value, now_us).await;
        let secret = secret.map_err(CatalogError::from_secrets)?;
        Ok(SecretUse { functions: self.readers(&tenant, &name), secret })
    }

    fn check_number(&self, tenant: &Tenant, name: &SecretName) -> Result<(), CatalogError> {
        let secrets = &self.workers.secrets;
        if secrets.has(tenant, name) || secrets.list(tenant).len() < MAX_SECRETS {
            return Ok(());
        }
        let detail = format!(
            "tenant {tenant} has {MAX_SECRETS} secrets, the most that there may be; delete some with `functionsplatform secret delete`"
        );
        Err(CatalogError::field(Code::Unprocessable, "name", detail))
    }

    fn check_value(&self, tenant: &Tenant, name: &SecretName, value: &[u8]) -> Result<(), CatalogError> {
        let refuse = |detail: String| Err(CatalogError::field(Code::Unprocessable, "value", detail));
        if value.is_empty() {
            return refuse(format!("the value of {name} is empty; `secret delete` takes a secret away"));
        }
        if value.len() > MAX_VALUE {
            let (length, most) = (value.len(), MAX_VALUE >> 10);
            return refuse(format!("the value of {name} has {length} bytes, the most is {most} KiB"));
        }
        let in_env = |function: &Settings| function.secret_env.values().any(|secret| secret == name);
        match self.list(tenant).iter().find(|function| in_env(&function.settings)) {
            Some(function) if value.contains(&0) => {
                let function = &function.name;
                refuse(format!("{function} has {name} in its environment, and the value holds a zero byte"))
            }
            _ => Ok(()),
        }
    }

    /// Deletes a secret; one that live functions read only by `force`. Goes on when the future is
    /// dropped.
    pub async fn delete_secret(
        self: &Arc<Self>,
        tenant: &Tenant,
        name: &SecretName,
        force: bool,
    ) -> Result<(), SecretNotDeleted> {
        let (catalog, tenant, name) = (self.clone(), tenant.clone(), name.clone());
        let whole = tokio::spawn(async move { catalog.delete_secret_whole(&tenant, &name, force).await });
        whole.await.expect("deleting a secret does not panic")
    }

    async fn delete_secret_whole(
        &self,
        tenant: &Tenant,
        name: &SecretName,
        force: bool,
    ) -> Result<(), SecretNotDeleted> {
        let _one_swap = self.swap.lock().await;
        let functions = self.readers(tenant, name);
        let secrets = &self.workers.secrets;
        if !functions.is_empty() && !force && secrets.has(tenant, name) {
            return Err(SecretNotDeleted::InUse { functions });
        }
        match secrets.delete(tenant, name).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(SecretNotDeleted::NotFound),
            Err(error) => Err(SecretNotDeleted::Failed(CatalogError::from_secrets(error))),
        }
    }
}

/// Why a secret is still there.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SecretNotDeleted {
    /// It is not.
    #[error("there is no such secret")]
    NotFound,
    /// Live functions read it.
    #[error("live functions read it")]
    InUse {
        /// Which.
        functions: Vec<FunctionName>,
    },
    /// It could not be done.
    #[error(transparent)]
    Failed(CatalogError),
}

impl WorkerSetup {
    /// What a function names must be there, and fit where it is to go.
    pub(super) fn check_secrets(&self, tenant: &Tenant, settings: &Settings) -> Result<(), CatalogError> {
        if let Some(missing) = settings.needed_secrets().find(|name| !self.secrets.has(tenant, name)) {
            let detail = format!(
                "there is no secret {missing}; set it with `functionsplatform secret set {missing}`, which reads the value from its standard input, and deploy again"
            );
            let is_read = settings.secrets.contains(missing);
            let field = if is_read { "secrets" } else { "auth.hmac.secret" };
            return Err(CatalogError::field(Code::SecretMissing, field, detail));
        }
        let mut in_env = settings.secret_env.iter();
        if let Some((variable, name)) = in_env.find(|(_, name)| self.secrets.has_nul(tenant, name)) {
            let detail = format!(
                "secret {name} holds a zero byte, which the variable {variable} cannot; read it with secret_bytes"
            );
            return Err(CatalogError::field(Code::InvalidSettings, "env", detail));
        }
        Ok(())
    }
}

//! The state of all functions at one moment.
//!
//! A snapshot never changes; a deploy or a delete makes the next one, which shares all but the way
//! to what is new with the one before. So a deploy costs the same with ten functions and with ten
//! thousand, and readers never wait.

use std::sync::Arc;

use fp_core::route::{Conflict, Route, RouteTable, Routed};
use fp_core::settings::Visibility;
use fp_core::{FunctionName, Tenant};
use rpds::RedBlackTreeMapSync;

use super::Deployed;
use crate::store::registry::StoredVersion;

/// What one tenant has.
#[derive(Debug, Clone)]
struct Mine {
    functions: RedBlackTreeMapSync<FunctionName, Arc<Deployed>>,
    routes: RouteTable<Arc<Deployed>>,
    /// The routes without those of private functions, once there has been one; most have none, and
    /// with them it is one table.
    public: Option<RouteTable<Arc<Deployed>>>,
}

/// Which functions somebody sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// All of a tenant's.
    All,
    /// Those that everybody sees.
    Public,
}

impl Default for Mine {
    fn default() -> Self {
        Self { functions: RedBlackTreeMapSync::new_sync(), routes: RouteTable::default(), public: None }
    }
}

impl Mine {
    fn insert(&mut self, function: &Arc<Deployed>) -> Result<(), Conflict> {
        let is_private = function.settings.visibility == Visibility::Private;
        if is_private && self.public.is_none() {
            self.public = Some(self.routes.clone());
        }
        let routed = Routed {
            name: &function.name,
            order: function.order,
            events: &function.events,
            function: function.clone(),
        };
        if let Some(public) = self.public.as_mut().filter(|_| !is_private) {
            public.insert(&routed)?;
        }
        self.routes.insert(&routed)
    }

    fn remove(&mut self, function: &Deployed) {
        self.routes.remove(&function.name, &function.events);
        if let Some(public) =
            self.public.as_mut().filter(|_| function.settings.visibility == Visibility::Public)
        {
            public.remove(&function.name, &function.events);
        }
    }
}

/// All functions and routes.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    tenants: RedBlackTreeMapSync<Tenant, Mine>,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self { tenants: RedBlackTreeMapSync::new_sync() }
    }
}

impl Snapshot {
    /// A function by name.
    pub(super) fn get(&self, tenant: &Tenant, name: &FunctionName) -> Option<&Arc<Deployed>> {
        self.tenants.get(tenant)?.functions.get(name)
    }

    /// Every function of every tenant.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Deployed>> {
        self.tenants.values().flat_map(|mine| mine.functions.values())
    }

    /// All functions of a tenant, first created first.
    pub(super) fn of_tenant(&self, tenant: &Tenant) -> Vec<Arc<Deployed>> {
        let mine = self.tenants.get(tenant);
        let mut functions: Vec<_> = mine.iter().flat_map(|mine| mine.functions.values()).cloned().collect();
        functions.sort_by_key(|function| function.order);
        functions
    }

    /// What a verb and a normalised path lead to. What the caller sees is asked only where somebody
    /// sees more than others.
    pub(super) fn route(
        &self,
        tenant: &Tenant,
        verb: &str,
        normal: &str,
        sight: impl FnOnce() -> Sight,
    ) -> Route<Arc<Deployed>> {
        let Some(mine) = self.tenants.get(tenant) else { return Route::Nothing { near: Vec::new() } };
        match &mine.public {
            Some(public) if sight() == Sight::Public => public.find(verb, normal),
            _ => mine.routes.find(verb, normal),
        }
    }

    /// Whether a version's event types fit in with those of the other functions.
    pub(super) fn check(&self, version: &StoredVersion) -> Result<(), Conflict> {
        let empty = RouteTable::default();
        let routes = self.tenants.get(&version.tenant).map_or(&empty, |mine| &mine.routes);
        routes.check(&version.function, &version.events)
    }

    /// Adds a function, or puts a new version of it in its place, and returns the old one. On a
    /// conflict the snapshot is of no use any more: change a clone.
    pub(super) fn put(&mut self, function: Arc<Deployed>) -> Result<Option<Arc<Deployed>>, Conflict> {
        if !self.tenants.contains_key(&function.tenant) {
            self.tenants.insert_mut(function.tenant.clone(), Mine::default());
        }
        let mine = self.tenants.get_mut(&function.tenant).expect("it is there or was made just now");
        let old = mine.functions.get(&function.name).cloned();
        if let Some(old) = &old {
            mine.remove(old);
        }
        mine.insert(&function)?;
        mine.functions.insert_mut(function.name.clone(), function);
        Ok(old)
    }

    /// Takes a tenant out and returns its functions.
    pub(super) fn remove_tenant(&mut self, tenant: &Tenant) -> Vec<Arc<Deployed>> {
        let functions = self.of_tenant(tenant);
        self.tenants.remove_mut(tenant);
        functions
    }

    /// Takes a function out and returns it.
    pub(super) fn remove(&mut self, tenant: &Tenant, name: &FunctionName) -> Option<Arc<Deployed>> {
        let mine = self.tenants.get_mut(tenant)?;
        let old = mine.functions.get(name)?.clone();
        mine.functions.remove_mut(name);
        mine.remove(&old);
        Some(old)
    }
}

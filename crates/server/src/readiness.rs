//! Whether the platform is ready: everything that `up` was asked to deploy is deployed.
//!
//! A function that was refused keeps it from being ready until a later deploy of that name is
//! accepted, or the function is deleted; until then whoever asks is told which it is and why.

use std::collections::BTreeMap;

use fp_core::Tenant;
use parking_lot::Mutex;

/// A function of `up` that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name; its directory's where the manifest has none that can be read.
    pub function: String,
    /// Its directory.
    pub directory: String,
    /// Why, in one sentence.
    pub detail: String,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// `up` is still deploying.
    Deploying,
    /// `up` has gone through all; these were refused and have not been deployed since.
    Refused(Vec<Refused>),
    /// Everything is deployed.
    Ready,
    /// The platform takes no new work.
    Stopping,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Deploying,
    Deployed,
    Stopping,
}

#[derive(Debug, Default)]
struct State {
    stage: Stage,
    refused: BTreeMap<String, Refused>,
}

/// The one place that knows; shared within [`App`](crate::app::App).
#[derive(Debug, Default)]
pub struct Readiness(Mutex<State>);

impl Readiness {
    /// A function of `up` was refused.
    pub fn on_refused(&self, refused: Refused) {
        self.0.lock().refused.insert(refused.function.clone(), refused);
    }

    /// A deploy was accepted, or the function is not wanted any more.
    pub fn on_settled(&self, tenant: &Tenant, function: &str) {
        // What `up` deploys is the operator's.
        if *tenant == Tenant::default() {
            self.0.lock().refused.remove(function);
        }
    }

    /// `up` has gone through everything that it was asked to deploy.
    pub fn on_deployed(&self) {
        self.0.lock().stage = Stage::Deployed;
    }

    /// The platform has begun to stop.
    pub fn on_stop(&self) {
        self.0.lock().stage = Stage::Stopping;
    }

    /// How far it is now.
    pub fn standing(&self) -> Standing {
        let state = self.0.lock();
        match state.stage {
            Stage::Deploying => Standing::Deploying,
            Stage::Deployed if state.refused.is_empty() => Standing::Ready,
            Stage::Deployed => Standing::Refused(state.refused.values().cloned().collect()),
            Stage::Stopping => Standing::Stopping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(function: &str) -> Refused {
        Refused { function: function.into(), directory: format!("/{function}"), detail: "no".into() }
    }

    #[test]
    fn what_was_refused_is_waited_for_and_nothing_else() {
        let readiness = Readiness::default();
        assert_eq!(readiness.standing(), Standing::Deploying);
        readiness.on_refused(refused("a"));
        readiness.on_refused(refused("b"));
        assert_eq!(readiness.standing(), Standing::Deploying);
        readiness.on_deployed();
        assert_eq!(readiness.standing(), Standing::Refused(vec![refused("a"), refused("b")]));
        readiness.on_settled(&Tenant::default(), "other");
        readiness.on_settled(&"acme".parse().expect("a tenant"), "a");
        readiness.on_settled(&Tenant::default(), "a");
        assert_eq!(readiness.standing(), Standing::Refused(vec![refused("b")]));
        readiness.on_settled(&Tenant::default(), "b");
        assert_eq!(readiness.standing(), Standing::Ready);
        readiness.on_stop();
        assert_eq!(readiness.standing(), Standing::Stopping);
    }
}

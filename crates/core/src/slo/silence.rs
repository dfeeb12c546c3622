//! Silences: alerts of which nobody is to be told for a while. They begin and end all the same, and spend
//! the budget.

use serde::{Deserialize, Serialize};

use super::{Indicator, Severity};
use crate::ids::FunctionName;

/// Which alerts are silent, and until when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Of this function; of every one if none is named.
    pub function: Option<FunctionName>,
    /// Of this objective; of every one if none is named.
    pub objective: Option<Indicator>,
    /// Of this urgency; of every one if none is named.
    pub severity: Option<Severity>,
    /// When it ends, Unix time in microseconds.
    pub ends_us: u64,
}

impl Silence {
    /// Whether nobody is to be told of such an alert at this time.
    pub fn covers(
        &self,
        function: &FunctionName,
        objective: Indicator,
        severity: Severity,
        now_us: u64,
    ) -> bool {
        now_us < self.ends_us
            && self.function.as_ref().is_none_or(|own| own == function)
            && self.objective.is_none_or(|own| own == objective)
            && self.severity.is_none_or(|own| own == severity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_is_covered_whatever_it_is_until_the_end() {
        let shop: FunctionName = "shop".parse().expect("a name");
        let cart: FunctionName = "cart".parse().expect("a name");
        let all = Silence { function: None, objective: None, severity: None, ends_us: 10 };
        let covers = |silence: &Silence, function, now| {
            silence.covers(function, Indicator::Latency, Severity::Page, now)
        };
        assert!(covers(&all, &shop, 9) && !covers(&all, &shop, 10));
        let of_shop = Silence { function: Some(shop.clone()), ..all.clone() };
        assert!(covers(&of_shop, &shop, 0) && !covers(&of_shop, &cart, 0));
        let tickets = Silence { severity: Some(Severity::Ticket), ..all.clone() };
        let availability = Silence { objective: Some(Indicator::Availability), ..all };
        assert!(!covers(&tickets, &shop, 0) && !covers(&availability, &shop, 0));
    }
}

//! The view of a function's objective.

use std::time::Duration;

use fp_core::settings::Slo;
use fp_core::slo::{Alert, History, Indicator, Objective};

use super::views::{AlertView, BurnRate, LatencySloView, SloView};

/// Windows that burn rates are shown for: those of the alert conditions.
const BURN_WINDOWS: [(&str, Duration); 7] = [
    ("5m", Duration::from_secs(300)),
    ("30m", Duration::from_secs(1_800)),
    ("1h", Duration::from_secs(3_600)),
    ("2h", Duration::from_secs(7_200)),
    ("6h", Duration::from_secs(21_600)),
    ("1d", Duration::from_secs(86_400)),
    ("3d", Duration::from_secs(259_200)),
];

/// What was counted for a function's objectives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counted<'a> {
    pub(super) availability: &'a History,
    pub(super) latency: &'a History,
}

impl Counted<'_> {
    fn of(&self, indicator: Indicator) -> &History {
        match indicator {
            Indicator::Availability => self.availability,
            Indicator::Latency => self.latency,
        }
    }

    /// How a function's objectives stand at a Unix time.
    pub(super) fn slo_view(&self, slo: &Slo, wall: Duration) -> SloView {
        let objectives = Objective::of(slo);
        let find = |indicator| objectives.iter().find(|objective| objective.indicator == indicator);
        let availability = find(Indicator::Availability);
        let latency = find(Indicator::Latency);
        let window = objectives.first().map(Objective::window).unwrap_or_default();
        let counts = self.availability.sum(wall, window);
        let standing = availability.map(|objective| objective.standing(self.availability, wall));
        let events = counts.good + counts.bad;
        SloView {
            window_days: slo.window_days,
            availability: slo.availability,
            attained: (events > 0).then(|| 100.0 * counts.good as f64 / events as f64),
            good: counts.good,
            bad: counts.bad,
            excluded: counts.excluded,
            cancelled: counts.cancelled,
            budget_left: standing.map(|standing| standing.budget_left),
            budget_seconds_left: standing.map(|standing| standing.budget_left_seconds),
            latency: latency.and_then(|objective| self.latency_view(slo, objective, wall)),
            burn: self.burn_rates(availability, latency, wall),
            alerts: objectives.iter().flat_map(|objective| self.alerts(objective, wall)).collect(),
        }
    }

    fn latency_view(&self, slo: &Slo, objective: &Objective, wall: Duration) -> Option<LatencySloView> {
        let standing = objective.standing(self.latency, wall);
        Some(LatencySloView {
            under_ms: slo.latency.as_ref()?.under.as_secs_f64() * 1_000.0,
            percent: objective.percent,
            attained: standing.attained_percent,
            good: standing.events - standing.bad,
            bad: standing.bad,
            budget_left: standing.budget_left,
        })
    }

    fn burn_rates(
        &self,
        availability: Option<&Objective>,
        latency: Option<&Objective>,
        wall: Duration,
    ) -> Vec<BurnRate> {
        let burn = |objective: Option<&Objective>, window| {
            objective.map(|objective| objective.burn_rate(self.of(objective.indicator), wall, window))
        };
        let rate = |(name, window)| BurnRate {
            window: name,
            availability: burn(availability, window),
            latency: burn(latency, window),
        };
        BURN_WINDOWS.map(rate).into()
    }

    /// The conditions that hold.
    fn alerts(&self, objective: &Objective, wall: Duration) -> Vec<AlertView> {
        let alerts = objective.alerts(self.of(objective.indicator), wall);
        alerts.iter().filter(|alert| alert.firing).map(|alert| alert_view(objective, alert)).collect()
    }
}

fn alert_view(objective: &Objective, alert: &Alert) -> AlertView {
    AlertView {
        objective: objective.indicator.word(),
        severity: alert.row.severity.word(),
        long: window_name(alert.row.long),
        short: window_name(alert.row.short),
        factor: alert.row.factor,
        burn: alert.burn_long,
    }
}

pub(super) fn window_name(window: Duration) -> &'static str {
    let named = BURN_WINDOWS.iter().find(|(_, known)| *known == window);
    named.map_or("?", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_of_the_alert_conditions_has_a_name() {
        for window_days in [7, 28, 30] {
            let objective = Objective { indicator: Indicator::Latency, percent: 99.0, window_days };
            for row in objective.alert_rows() {
                assert_ne!(window_name(row.long), "?");
                assert_ne!(window_name(row.short), "?");
            }
        }
    }
}

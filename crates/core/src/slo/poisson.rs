//! How many rare events are too many to be chance.

/// The smallest k with P(X ≥ k) ≤ `chance` for a Poisson X of mean `mean`; at least 1. The sum
/// is exact for means up to a few hundred, where e^-mean is still a number.
pub(super) fn least_unlikely(mean: f64, chance: f64) -> u64 {
    let mut term = (-mean).exp();
    let mut below = term;
    let mut k = 1;
    while 1.0 - below > chance {
        term *= mean / k as f64;
        below += term;
        k += 1;
    }
    k
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_at_low_traffic() {
        let cases =
            [(99.9, 10.0, 2), (99.9, 100.0, 3), (99.9, 1000.0, 6), (99.0, 10.0, 3), (99.0, 1000.0, 22)];
        for (percent, events, least) in cases {
            let mean = events * (100.0 - percent) / 100.0;
            assert_eq!(least_unlikely(mean, 1e-3), least, "{percent} % of {events}");
        }
        assert_eq!(least_unlikely(0.0, 1e-3), 1);
        assert_eq!(least_unlikely(100.0, 1e-3), 133);
    }
}

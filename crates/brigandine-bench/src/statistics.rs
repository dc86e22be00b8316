//! Durations as milliseconds, and percentiles.

use std::time::Duration;

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

pub(crate) fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_unstable_by(f64::total_cmp);
    values
}

/// A percentile of sorted values. The result is one of the values, or NaN if there are none.
pub(crate) fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

pub(crate) fn median(values: Vec<f64>) -> f64 {
    percentile(&sorted(values), 50)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        let of = |values: &[f64]| [50, 90, 99].map(|percent| percentile(values, percent));
        assert_eq!(of(&hundred), [51.0, 91.0, 100.0]);
        assert_eq!(of(&[7.0]), [7.0; 3]);
        assert!(of(&[]).iter().all(|value| value.is_nan()));
    }
}

//! The statistics that the lab needs.

/// The middle value, or the mean of the two middle values; `None`: there are no values.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// How much the rounds differ: the greatest distance from the median, as a share of the median. For a few rounds this
/// is a better estimate than a standard deviation. 0 for one round.
#[must_use]
pub fn spread(values: &[f64]) -> f64 {
    let Some(middle) = median(values).filter(|middle| *middle != 0.0) else { return 0.0 };
    values
        .iter()
        .filter(|v| v.is_finite())
        .map(|v| (v - middle).abs() / middle.abs())
        .fold(0.0, f64::max)
}

/// Jain's fairness index: 1 if all rates are equal, 1/n if one client has everything.
#[must_use]
pub fn jain(rates: &[f64]) -> f64 {
    let sum: f64 = rates.iter().sum();
    let squares: f64 = rates.iter().map(|rate| rate * rate).sum();
    if squares == 0.0 { 0.0 } else { sum * sum / (rates.len() as f64 * squares) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_ignores_order_and_what_is_no_number() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[f64::NAN, 5.0]), Some(5.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_spread_is_the_widest_distance_from_the_median() {
        assert!((spread(&[90.0, 100.0, 130.0]) - 0.3).abs() < 1e-12);
        assert_eq!(spread(&[7.0]), 0.0);
        assert_eq!(spread(&[]), 0.0);
        assert_eq!(spread(&[0.0, 0.0]), 0.0);
    }

    #[test]
    fn jains_index_goes_from_one_to_one_of_n() {
        assert!((jain(&[5.0; 8]) - 1.0).abs() < 1e-12);
        assert!((jain(&[0.0, 0.0, 0.0, 9.0]) - 0.25).abs() < 1e-12);
        assert_eq!(jain(&[0.0; 3]), 0.0);
    }
}

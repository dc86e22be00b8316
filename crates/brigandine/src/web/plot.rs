//! A plot of one value of each build in a row, as bars over the squares of a strip.

use super::rows::SQUARE;
use super::view::Badge;
use crate::model::BuildId;

/// The height of the highest bar, in pixels.
const HEIGHT: i64 = 48;

/// Bars, the oldest build first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plot {
    pub(super) title: &'static str,
    /// The greatest value, in words.
    pub(super) greatest: String,
    pub(super) bars: Vec<Bar>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bar {
    pub(super) id: BuildId,
    pub(super) badge: Badge,
    /// The value, in words.
    pub(super) value: String,
    pub(super) x: usize,
    pub(super) y: i64,
    pub(super) height: i64,
}

impl Plot {
    /// A bar for each value, at the place of its build; `None`: no build has a value.
    pub(super) fn new(
        title: &'static str,
        values: &[Option<(i64, Badge, BuildId)>],
        words: impl Fn(i64) -> String,
    ) -> Option<Self> {
        let greatest = values.iter().flatten().map(|(value, ..)| *value).max()?;
        let bar = |(at, value): (usize, &Option<(i64, Badge, BuildId)>)| {
            let (value, badge, id) = (*value)?;
            // Every bar can be seen, also that of nothing.
            let height = i128::from(HEIGHT) * i128::from(value) / i128::from(greatest.max(1));
            let height = i64::try_from(height).unwrap_or(HEIGHT).clamp(1, HEIGHT);
            let y = HEIGHT - height;
            Some(Bar { id, badge, value: words(value), x: at * SQUARE, y, height })
        };
        let bars = values.iter().enumerate().filter_map(bar).collect();
        Some(Self { title, greatest: words(greatest), bars })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::BuildStatus;
    use crate::web::view;

    #[test]
    fn the_highest_bar_fills_the_plot_and_every_bar_can_be_seen() {
        let value =
            |value| Some((value, view::build_badge(BuildStatus::Succeeded), BuildId::new(value)));
        let values = [value(0), None, value(1000), value(1)];
        let plot = Plot::new("x", &values, |value| value.to_string()).expect("a plot");
        let bars: Vec<_> = plot.bars.iter().map(|bar| (bar.x, bar.y, bar.height)).collect();
        assert_eq!(bars, [(0, 47, 1), (2 * SQUARE, 0, 48), (3 * SQUARE, 47, 1)]);
        assert_eq!(plot.greatest, "1000");
        assert_eq!(Plot::new("x", &[None], |_| String::new()), None);
        let plot = Plot::new("x", &[value(0)], |value| value.to_string()).expect("a plot");
        assert_eq!((plot.bars[0].y, plot.bars[0].height), (47, 1));
        // Sizes are numbers of bytes, which may be large.
        let large = [value(i64::MAX)];
        assert_eq!(Plot::new("x", &large, |_| String::new()).expect("a plot").bars[0].height, 48);
    }
}

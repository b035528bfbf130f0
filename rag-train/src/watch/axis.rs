//! The vertical axis of a chart: its range, its ticks and their text.

use super::number::short;

/// How values are spaced on the vertical axis.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Scale {
    Linear,
    /// Whole numbers.
    Count,
    /// Parts of one, shown from 0 to 100 %.
    Share,
    /// Positive numbers, by their logarithm.
    Log,
}

impl Scale {
    /// A value as it is written beside the axis.
    pub fn text(self, value: f64) -> String {
        match self {
            Self::Share => format!("{} %", short((1e4 * value).round() / 100.0)),
            _ => short(value),
        }
    }
}

/// The vertical axis.
pub(super) struct Axis {
    log: bool,
    low: f64,
    high: f64,
    /// Values that are written beside the axis.
    pub ticks: Vec<f64>,
}

impl Axis {
    /// An axis for values from `low` to `high`, which begins and ends at a tick.
    pub fn new(scale: Scale, low: f64, high: f64) -> Self {
        let ticks = match scale {
            Scale::Share => (0..=5).map(|fifth| f64::from(fifth) / 5.0).collect(),
            Scale::Linear => linear_ticks(low, high, 0.0),
            Scale::Count => linear_ticks(low, high, 1.0),
            Scale::Log => log_ticks(low, high),
        };
        let (low, high) = (ticks[0], ticks[ticks.len() - 1]);
        // Where the numbers 1, 2, 5 would crowd, powers of ten alone are shown.
        let crowded = scale == Scale::Log && ticks.len() > 7;
        let shown = |tick: &f64| !crowded || (tick.log10() - tick.log10().round()).abs() < 1e-9;
        Self {
            log: scale == Scale::Log,
            low,
            high,
            ticks: ticks.into_iter().filter(shown).collect(),
        }
    }

    /// The height of a value, from 0 at the lowest tick to 1 at the highest.
    pub fn height(&self, value: f64) -> f64 {
        let on = |value: f64| if self.log { value.ln() } else { value };
        (on(value) - on(self.low)) / (on(self.high) - on(self.low))
    }
}

/// About five round numbers that enclose `low` and `high`, at least `finest` apart; from 0 where that is
/// near.
fn linear_ticks(low: f64, high: f64, finest: f64) -> Vec<f64> {
    let low = if (0.0..=high / 2.0).contains(&low) {
        0.0
    } else {
        low
    };
    // A curve that is constant but for rounding lies in the middle of an axis of some height.
    let (low, high) = if high - low > 1e-9 * high.abs() {
        (low, high)
    } else {
        let height = 0.1 * low.abs();
        (low - height, if low == 0.0 { 1.0 } else { low + height })
    };
    let step = nice((high - low) / 4.0).max(finest);
    // A bound that is a tick but for rounding is that tick.
    let (first, last) = ((low / step + 1e-9).floor(), (high / step - 1e-9).ceil());
    let ticks = (last - first) as usize;
    (0..=ticks).map(|i| (first + i as f64) * step).collect()
}

/// The numbers 1, 2, 5 times powers of ten that enclose `low` and `high`, both positive.
fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let numbers: Vec<f64> = decades
        .flat_map(|decade| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(decade)))
        .collect();
    let first = numbers.iter().rposition(|&number| number <= low);
    let last = numbers.iter().position(|&number| number > high);
    numbers[first.unwrap_or(0)..=last.unwrap_or(numbers.len() - 1)].to_vec()
}

/// The smallest of 1, 2, 5 times a power of ten that is not below `width`.
pub(super) fn nice(width: f64) -> f64 {
    if width <= 0.0 {
        return 0.0;
    }
    let power = 10f64.powf(width.log10().floor());
    let digits = [1.0, 2.0, 5.0].into_iter();
    let digit = digits
        .into_iter()
        .find(|digit| digit * power >= width * (1.0 - 1e-9));
    digit.unwrap_or(10.0) * power
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        let near = |found: Vec<f64>, expected: &[f64]| {
            assert_eq!(found.len(), expected.len(), "{found:?}");
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-9, "{found} {expected}");
            }
        };
        near(linear_ticks(0.3, 3.7, 0.0), &[0.0, 1.0, 2.0, 3.0, 4.0]);
        near(linear_ticks(8.3, 9.1, 0.0), &[8.2, 8.4, 8.6, 8.8, 9.0, 9.2]);
        near(linear_ticks(3.0, 5.0, 1.0), &[3.0, 4.0, 5.0]);
        near(linear_ticks(2.0, 2.0, 0.0), &[1.8, 1.9, 2.0, 2.1, 2.2]);
        near(
            linear_ticks(2.0 - 1e-14, 2.0, 0.0),
            &[1.8, 1.9, 2.0, 2.1, 2.2],
        );
        near(linear_ticks(0.0, 0.0, 0.0), &[0.0, 0.5, 1.0]);
        near(
            log_ticks(0.03, 4.0),
            &[0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0],
        );
        near(Axis::new(Scale::Log, 0.03, 4.0).ticks, &[0.1, 1.0]);
    }
}

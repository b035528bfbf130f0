//! How far a number that was measured on some questions would be another on other questions of the same kind.

use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A measured number with its 95 % confidence interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// On all items.
    pub estimate: f64,
    /// The lower end.
    pub low: f64,
    /// The upper end.
    pub high: f64,
}

/// Samples that are drawn.
const SAMPLES: usize = 2000;
/// Of them on either side of the interval: 2.5 %.
const OUTSIDE: usize = SAMPLES / 40;

impl Interval {
    /// The percentile bootstrap (Efron and Tibshirani 1993, chapter 13): 2,000 times as many items as there are are drawn
    /// with replacement, and the middle 95 % of what `statistic` gives for them is the interval.
    ///
    /// An item is what was drawn when the data were made: a question with all that was measured of it. Two systems that
    /// answered the same questions are compared by the interval of their difference, which is narrower than their own:
    ///
    /// ```
    /// use rag_train::evaluate::Interval;
    ///
    /// // Whether each of two systems was right, question by question.
    /// let right: Vec<(bool, bool)> = (0..200).map(|i| (i % 3 > 0, i % 4 > 0)).collect();
    /// let share = |right: usize, of: usize| right as f64 / of as f64;
    /// let first = |some: &[&(bool, bool)]| share(some.iter().filter(|one| one.0).count(), some.len());
    /// let second = |some: &[&(bool, bool)]| share(some.iter().filter(|one| one.1).count(), some.len());
    /// let first_alone = Interval::bootstrap(&right, first, 0)?;
    /// let difference = Interval::bootstrap(&right, |some| second(some) - first(some), 0)?;
    /// assert_eq!(first_alone.estimate, 0.665);
    /// assert!(0.58 < first_alone.low && first_alone.high < 0.75);
    /// assert_eq!(difference.estimate, second(&right.iter().collect::<Vec<_>>()) - 0.665);
    /// # Ok::<(), rag_train::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoExamples`]; [`Error::Number`] where the statistic is not finite, of all items (sample 0) or of a sample.
    pub fn bootstrap<T>(items: &[T], statistic: impl Fn(&[&T]) -> f64, seed: u64) -> Result<Self> {
        if items.is_empty() {
            return Err(Error::NoExamples);
        }
        let measured = |sample: &[&T], row| match statistic(sample) {
            value if value.is_finite() => Ok(value),
            found => Err(Error::Number {
                what: "statistic of bootstrap sample",
                row,
                found,
                expected: "a finite number",
            }),
        };
        let all: Vec<&T> = items.iter().collect();
        let estimate = measured(&all, 0)?;
        let mut random = StdRng::seed_from_u64(seed);
        let mut sample = all;
        let mut values = Vec::with_capacity(SAMPLES);
        for row in 1..=SAMPLES {
            for drawn in &mut sample {
                *drawn = &items[random.random_range(0..items.len())];
            }
            values.push(measured(&sample, row)?);
        }
        values.sort_by(f64::total_cmp);
        Ok(Self {
            estimate,
            low: values[OUTSIDE],
            high: values[SAMPLES - 1 - OUTSIDE],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(sample: &[&f64]) -> f64 {
        sample.iter().copied().sum::<f64>() / sample.len() as f64
    }

    /// Of a mean of many items, the normal distribution's: ± 1.96 standard errors.
    #[test]
    fn of_a_mean_it_is_the_normal_interval() {
        let items: Vec<f64> = (0..400).map(|i| f64::from(i * 37 % 100)).collect();
        let found = Interval::bootstrap(&items, mean, 1).unwrap();
        let centre = mean(&items.iter().collect::<Vec<_>>());
        let squares = items.iter().map(|item| (item - centre).powi(2));
        let half = 1.96 * (squares.sum::<f64>() / 400.0 / 400.0).sqrt();
        assert_eq!(found.estimate, centre);
        for (end, expected) in [(found.low, centre - half), (found.high, centre + half)] {
            assert!((end - expected).abs() < 0.1 * half, "{found:?} {expected}");
        }
    }

    /// Of intervals around samples of a known distribution some 95 % hold what they are of.
    #[test]
    fn it_covers_what_it_should() {
        let mut random = StdRng::seed_from_u64(3);
        let covers = |_: &u64| {
            let items: Vec<f64> = (0..80)
                .map(|_| f64::from(u8::from(random.random_bool(0.4))))
                .collect();
            let found = Interval::bootstrap(&items, mean, random.random()).unwrap();
            found.low <= 0.4 && 0.4 <= found.high
        };
        let covered = (0..200).filter(covers).count();
        assert!((180..=199).contains(&covered), "{covered} of 200");
    }

    #[test]
    fn a_seed_gives_one_interval() {
        let items: Vec<f64> = (0..50).map(|i| f64::from(i).sin()).collect();
        let of = |seed| Interval::bootstrap(&items, mean, seed).unwrap();
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        assert!(of(1).low < of(1).estimate && of(1).estimate < of(1).high);
        let one = Interval::bootstrap(&[2.0], mean, 0).unwrap();
        assert_eq!([one.low, one.estimate, one.high], [2.0; 3]);
    }

    #[test]
    fn nothing_and_no_number_are_refused() {
        assert!(matches!(
            Interval::bootstrap(&[], mean, 0),
            Err(Error::NoExamples)
        ));
        let error = Interval::bootstrap(&[1.0], |_| f64::NAN, 0).unwrap_err();
        assert!(
            error.to_string().contains("bootstrap sample 0 is NaN"),
            "{error}"
        );
    }
}

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The learning rate of each step: a linear rise over the warm-up, then a fall.
///
/// A function of the step alone, so that there is no state to lose.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The highest rate.
    pub peak: f64,
    /// Steps until it is reached.
    pub warmup: usize,
    /// Steps in all.
    pub steps: usize,
    /// How it falls from there.
    pub decay: Decay,
}

/// How the learning rate goes on after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// In a straight line to zero.
    #[default]
    Linear,
    /// Along half a cosine to zero (Loshchilov and Hutter 2017).
    Cosine,
    /// It stays.
    Constant,
}

impl Schedule {
    /// The rate of a step, counted from 0.
    pub fn rate(&self, step: usize) -> f64 {
        let (step, warmup, steps) = (step as f64, self.warmup as f64, self.steps as f64);
        if step < warmup {
            return self.peak * (step + 1.0) / warmup;
        }
        let left = ((steps - step) / (steps - warmup).max(1.0)).clamp(0.0, 1.0);
        self.peak
            * match self.decay {
                Decay::Linear => left,
                Decay::Cosine => 0.5 - 0.5 * (PI * left).cos(),
                Decay::Constant => 1.0,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_falls_and_ends() {
        let rates = |decay| {
            let schedule = Schedule {
                peak: 1.0,
                warmup: 4,
                steps: 12,
                decay,
            };
            let rates: Vec<_> = (0..13).map(|step| schedule.rate(step)).collect();
            assert_eq!(rates[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
            [rates[6], rates[8], rates[12]]
        };
        assert_eq!(rates(Decay::Linear), [0.75, 0.5, 0.0]);
        assert_eq!(rates(Decay::Constant), [1.0; 3]);
        let cosine = rates(Decay::Cosine);
        let expected = [(2.0 + 2f64.sqrt()) / 4.0, 0.5, 0.0];
        for (found, expected) in cosine.into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }
}

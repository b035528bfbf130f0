use serde::{Deserialize, Serialize};

/// The learning rate of each step: a linear rise over the warm-up, then a linear fall to zero.
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
}

impl Schedule {
    /// The rate of a step, counted from 0.
    pub fn rate(&self, step: usize) -> f64 {
        let (step, warmup, steps) = (step as f64, self.warmup as f64, self.steps as f64);
        if step < warmup {
            self.peak * (step + 1.0) / warmup
        } else {
            self.peak * ((steps - step) / (steps - warmup).max(1.0)).clamp(0.0, 1.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_falls_and_ends() {
        let schedule = Schedule {
            peak: 1.0,
            warmup: 4,
            steps: 12,
        };
        let rates: Vec<_> = (0..13).map(|step| schedule.rate(step)).collect();
        assert_eq!(rates[..5], [0.25, 0.5, 0.75, 1.0, 1.0]);
        assert_eq!(rates[8], 0.5);
        assert_eq!(rates[12], 0.0);
    }
}

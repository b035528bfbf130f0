use rag_core::nn::Precision;
use serde::{Deserialize, Serialize};

/// Dynamic loss scaling: small f16 gradients are lifted above zero, and a step whose gradients
/// overflow is skipped and tried again with half the scale (Micikevicius et al. 2018, section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LossScaler {
    scale: f64,
    good_steps: usize,
    skipped: usize,
    fixed: bool,
}

const INITIAL: f64 = 65_536.0;
const LARGEST: f64 = 16_777_216.0;
const GROWTH_INTERVAL: usize = 1_000;

impl LossScaler {
    /// Scales in f16; f32 and bf16 have the range to do without.
    pub fn new(precision: Precision) -> Self {
        let fixed = precision != Precision::F16;
        Self {
            scale: if fixed { 1.0 } else { INITIAL },
            good_steps: 0,
            skipped: 0,
            fixed,
        }
    }

    /// The factor of the loss, by which gradients are divided again.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Steps that were skipped so far.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Learns of a step's gradient norm, and says whether the step is to be taken.
    pub fn accepts(&mut self, norm: f64) -> bool {
        if !norm.is_finite() {
            self.skipped += 1;
            self.good_steps = 0;
            if !self.fixed {
                self.scale = (self.scale / 2.0).max(1.0);
            }
            return false;
        }
        self.good_steps += 1;
        if !self.fixed && self.good_steps.is_multiple_of(GROWTH_INTERVAL) {
            self.scale = (self.scale * 2.0).min(LARGEST);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overflow_halves_the_scale_and_good_steps_double_it() {
        let mut scaler = LossScaler::new(Precision::F16);
        assert!(!scaler.accepts(f64::INFINITY));
        assert_eq!((scaler.scale(), scaler.skipped()), (INITIAL / 2.0, 1));
        for _ in 0..GROWTH_INTERVAL {
            assert!(scaler.accepts(1.0));
        }
        assert_eq!(scaler.scale(), INITIAL);
    }

    #[test]
    fn f32_is_never_scaled() {
        let mut scaler = LossScaler::new(Precision::F32);
        assert!(!scaler.accepts(f64::NAN));
        assert_eq!((scaler.scale(), scaler.skipped()), (1.0, 1));
    }
}

use std::error::Error;

use crate::decode::NextToken;

/// A model whose scores are a hash of everything before, so that a row continued from the wrong parent shows.
///
/// `record.py` computes the same numbers in Python.
pub struct Markov {
    vocabulary: usize,
    /// Added to the scores of the highest token, which the tests let end a sequence.
    end_bias: f32,
    states: Vec<u64>,
    /// Rows of each call so far.
    pub calls: Vec<usize>,
}

impl Markov {
    pub fn new(seed: u64, batch: usize, vocabulary: usize, end_bias: f32) -> Self {
        let states = (0..batch as u64)
            .map(|search| mix(seed.wrapping_mul(1_000_003).wrapping_add(search)))
            .collect();
        Self {
            vocabulary,
            end_bias,
            states,
            calls: Vec::new(),
        }
    }

    fn scores(&self, state: u64) -> Vec<f32> {
        let random = |token: usize| {
            (mix(state.wrapping_add(1000 + token as u64)) >> 40) as f32 / (1 << 24) as f32
        };
        let mut scores: Vec<f32> = (0..self.vocabulary)
            .map(|token| random(token) * 8.0 - 4.0)
            .collect();
        scores[self.vocabulary - 1] += self.end_bias;
        scores
    }
}

impl NextToken for Markov {
    fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    fn next(
        &mut self,
        parents: &[usize],
        tokens: &[u32],
    ) -> Result<Vec<f32>, Box<dyn Error + Send + Sync>> {
        assert_eq!(parents.len(), tokens.len());
        self.calls.push(parents.len());
        let step = |(&parent, &token): (&usize, &u32)| {
            mix(self.states[parent].wrapping_add(u64::from(token) + 1))
        };
        self.states = parents.iter().zip(tokens).map(step).collect();
        Ok(self
            .states
            .iter()
            .flat_map(|&state| self.scores(state))
            .collect())
    }
}

/// The finaliser of SplitMix64.
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

//! Adapters before training.

use burn::{
    module::{LoraAdapter, Param},
    tensor::{Tensor, TensorData},
};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    config::LoraConfig,
    projections::{Adapters, Projection, Projections},
};
use crate::error::Result;

impl LoraConfig {
    /// Adapters before training: B is 0 and A uniform within ±1/√d_input, as in PEFT and, but for the
    /// distribution, the paper. (Burn draws the other factor; a random A bears higher learning rates:
    /// Hayou et al. 2024, arXiv 2406.08447.)
    pub(super) fn start(&self, projections: &Projections) -> Result<Adapters> {
        self.check()?;
        let mut random = StdRng::seed_from_u64(self.seed);
        let start = |projection: &Projection| {
            let [_, d_input] = projection.shape;
            let bound = (d_input as f32).powf(-0.5);
            let a = (0..self.rank * d_input).map(|_| random.random_range(-bound..bound));
            let a = TensorData::new(a.collect::<Vec<f32>>(), [self.rank, d_input]);
            let mut adapter = self.zeros(projection);
            adapter.b = Param::from_tensor(Tensor::from_data(a, &projection.device));
            (projection.id, adapter)
        };
        let selected = projections.select(self.target_modules.as_deref())?;
        Ok(selected.into_iter().map(start).collect())
    }

    /// An adapter that is 0. Burn's `a` is the paper's B, and its `b` the paper's A: it multiplies in
    /// the order of weights that are `[d_input, d_output]`, ours are `[d_output, d_input]`.
    pub(super) fn zeros(&self, projection: &Projection) -> LoraAdapter {
        let [d_output, d_input] = projection.shape;
        let zeros = |shape| Param::from_tensor(Tensor::zeros(shape, &projection.device));
        LoraAdapter {
            a: zeros([d_output, self.rank]),
            b: zeros([self.rank, d_input]),
            scale: self.scale(),
        }
    }
}

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use rag_retrieve::PriorWeights;

use super::tensors::values;
use crate::error::Result;

/// [`PriorWeights`] as parameters: `P(z|x) ∝ exp(α · dense + β · BM25 + γ · rerank)`.
#[derive(Module, Debug)]
pub struct Prior {
    /// α, β, γ.
    weights: Param<Tensor<1>>,
}

impl Prior {
    /// Begins with `weights`.
    pub fn new(weights: PriorWeights, device: &Device) -> Self {
        Self {
            weights: Param::from_tensor(Tensor::from_floats(<[f32; 3]>::from(weights), device)),
        }
    }

    /// The weights as they are now.
    ///
    /// # Errors
    /// Those of the device.
    pub fn weights(&self) -> Result<PriorWeights> {
        let weights = values(self.weights.val())?;
        Ok([weights[0], weights[1], weights[2]].into())
    }

    /// Scores `[batch, n_docs]`, of which log P(z|x) is the log-softmax, of inner products
    /// `[batch, n_docs]` and the `others` that speak for passages, BM25 and a reranker's score,
    /// `[batch, n_docs, 2]`.
    pub fn forward(&self, dense: Tensor<2>, others: Tensor<3>) -> Tensor<2> {
        let all = Tensor::cat(vec![dense.unsqueeze_dim(2), others], 2);
        (all * self.weights.val().unsqueeze::<3>())
            .sum_dim(2)
            .squeeze_dim(2)
    }
}

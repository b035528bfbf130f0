//! The gradient of a batch: of all documents at once, or of a few at a time.

use burn::tensor::Tensor;

use super::{
    constant_memory,
    joint::{Batch, JointModel},
    loss::{Backward, Beliefs, Objective},
    tensors::{gradient, leaf},
};

impl Objective {
    /// Back-propagates the summed losses of a batch. `questions` are the vectors
    /// `[batch, dimension]` of its questions, with the graph of their encoder. `accumulate` is given
    /// losses whose gradients add up to that of the sum.
    ///
    /// With `documents_at_a_time`, a pass without a graph computes every document's share first,
    /// then documents are run again, a few at a time, each weighed by its share (see
    /// `docs/decisions.md`): the same gradient in memory that does not grow with n_docs, for one more
    /// forward pass.
    pub fn backward(
        &self,
        model: &JointModel,
        batch: &Batch,
        questions: Tensor<2>,
        backward: Backward,
        mut accumulate: impl FnMut(Tensor<1>),
    ) -> Beliefs {
        // Of what is frozen there is no gradient.
        let mut accumulate = |loss: Tensor<1>| {
            if loss.is_tracked() {
                accumulate(loss);
            }
        };
        match backward.documents_at_a_time {
            Some(documents) => constant_memory::backward(
                self,
                model,
                batch,
                questions,
                documents,
                backward,
                &mut accumulate,
            ),
            None if self.label_smoothing > 0.0 => {
                let (losses, beliefs) = self.joint(model, batch, questions, None, backward.seed);
                accumulate(losses.total().sum() * backward.weight);
                beliefs
            }
            None => {
                let of = self.forward(model, batch, questions, None, backward.seed);
                let (scores, tokens) = (leaf(&of.scores), leaf(&of.tokens));
                let losses = self.of_tokens(scores.clone(), tokens.clone(), &batch.targets);
                let beliefs = self.beliefs(&losses, &scores, &tokens);
                let mut gradients = (losses.total().sum() * backward.weight).backward();
                let by_token = gradient(&tokens, &mut gradients);
                let by_score = gradient(&scores, &mut gradients);
                // Generator and retriever one after the other: the gradients of the second are not there yet while
                // the activations of the first still are.
                accumulate((of.tokens * by_token).sum());
                accumulate((of.scores * by_score).sum());
                beliefs
            }
        }
    }
}

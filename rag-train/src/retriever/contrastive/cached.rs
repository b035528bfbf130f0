use burn::{module::Module, tensor::Tensor};
use rag_core::nn::Precision;
use rag_retrieve::Encoder;

use super::{
    batch::{ContrastiveBatch, InBatch},
    encoders::BiEncoder,
    micro_batch::MicroBatch,
};

/// Vectors `[texts, dimension]` of all texts, without autodiff.
pub(super) fn embed_all(
    texts: &[MicroBatch],
    encoder: &Encoder,
    precision: Precision,
) -> Tensor<2> {
    let vectors = texts
        .iter()
        .map(|texts| texts.embed(encoder, precision).inner());
    Tensor::cat(vectors.collect(), 0)
}

/// Gradient caching (Gao et al. 2021, arXiv 2101.06983): the gradient of a batch's mean loss, with the
/// activations of one micro-batch in memory at a time.
///
/// All texts are encoded without a graph; the loss of their vectors gives ∂loss/∂vector of each; then
/// each micro-batch is encoded again, with its graph, and `backward` is handed the sum of
/// ⟨vector, ∂loss/∂vector⟩, whose gradient is the micro-batch's share of the batch's. Where questions
/// and passages are one micro-batch each, `backward` is handed the loss itself, and nothing is encoded
/// twice.
pub fn back_propagate(
    model: &BiEncoder,
    batch: &ContrastiveBatch,
    temperature: f64,
    precision: Precision,
    mut backward: impl FnMut(Tensor<1>),
) -> InBatch {
    if let ([questions], [passages]) = (batch.questions.as_slice(), batch.passages.as_slice()) {
        let (loss, found) = batch.loss(
            questions.embed(&model.question, precision),
            passages.embed(model.context(), precision),
            temperature,
        );
        backward(loss);
        return found;
    }
    // Without gradients nothing is recorded, while dropout stays on: `freeze` would turn it off.
    let still = model.clone().no_grad();
    let leaf = |vectors| Tensor::<2>::from_inner(vectors).require_grad();
    let questions = leaf(embed_all(&batch.questions, &still.question, precision));
    let passages = leaf(embed_all(&batch.passages, still.context(), precision));
    let (loss, found) = batch.loss(questions.clone(), passages.clone(), temperature);
    let mut gradients = loss.backward();
    let sides = [
        (&batch.questions, &model.question, questions),
        (&batch.passages, model.context(), passages),
    ];
    for (texts, encoder, vectors) in sides {
        let cached = vectors
            .grad_remove(&mut gradients)
            .expect("the loss depends on every vector");
        let mut start = 0;
        for texts in texts {
            let vectors = texts.embed(encoder, precision);
            let [rows, _] = vectors.dims();
            let gradient = Tensor::from_inner(cached.clone().narrow(0, start, rows));
            start += rows;
            backward((vectors * gradient).sum());
        }
    }
    found
}

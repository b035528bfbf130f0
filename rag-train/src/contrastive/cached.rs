use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use rag_core::{Encoding, TokenBatch, nn::Precision, padded};
use rag_retrieve::Encoder;

use super::{BiEncoder, ContrastiveBatch, InBatch};

/// Texts that are encoded at once.
#[derive(Clone, Debug)]
pub struct MicroBatch {
    tokens: TokenBatch,
    segments: Tensor<2, Int>,
    seed: u64,
}

impl MicroBatch {
    /// Lays out tokenized texts; `seed` is that of their dropout masks.
    pub fn new(texts: &[Encoding], pad: u32, device: &Device, seed: u64) -> Self {
        let ids: Vec<_> = texts.iter().map(|text| &text.ids).collect();
        let segments: Vec<_> = texts.iter().map(|text| &text.segments).collect();
        Self {
            tokens: TokenBatch::new(&ids, pad, device),
            segments: padded(&segments, 0, device),
            seed,
        }
    }

    /// The texts' vectors, `[texts, dimension]`. However often they are encoded, the same states are
    /// dropped: Burn's random numbers belong to the device, which starts from the seed each time.
    pub fn embed(&self, encoder: &Encoder, precision: Precision) -> Tensor<2> {
        self.tokens.ids.device().seed(self.seed);
        encoder.forward(&self.tokens, Some(self.segments.clone()), precision)
    }
}

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

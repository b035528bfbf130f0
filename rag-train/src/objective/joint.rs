use std::ops::Range;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use rag_core::{TokenBatch, marginal::Targets, nn::Precision};
use rag_generate::{
    generator::{Generator, Memory},
    likelihood,
};
use rag_retrieve::Encoder;

use super::prior::Prior;

/// The model that the marginal likelihood trains.
#[derive(Module, Debug)]
pub struct JointModel {
    /// Gives P(z|x), with the passages' vectors.
    pub question_encoder: Encoder,
    /// The passages' encoder where it trains too; `None` where the knowledge base's vectors stay as
    /// they are, as in the paper.
    pub context_encoder: Option<Encoder>,
    /// Weighs what speaks for a passage; `None` for the inner product alone, as in the paper.
    pub prior: Option<Prior>,
    /// Gives P(y|x,z).
    pub generator: Generator,
}

/// Texts as an encoder reads them.
#[derive(Clone, Debug)]
pub struct EncoderInput {
    /// `[rows, length]`.
    pub tokens: TokenBatch,
    /// Segments, `[rows, length]`; all 0 if none.
    pub segments: Option<Tensor<2, Int>>,
}

/// Questions, their retrieved passages and their answers, as tensors.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Questions, `[batch, length]`.
    pub questions: EncoderInput,
    /// Passages packed with their question, `[batch · n_docs, length]`.
    pub contexts: TokenBatch,
    /// Vectors of the passages, `[batch, n_docs, dimension]`, where their encoder does not train.
    pub documents: Tensor<3>,
    /// The passages, `[batch · n_docs, length]`, where their encoder trains.
    pub passages: Option<EncoderInput>,
    /// The scores of the passages beside the inner product, `[batch, n_docs, 2]`: BM25 and a
    /// reranker's score, where the model weighs them.
    pub signals: Option<Tensor<3>>,
    /// The decoder's input ids, `[batch, length]`.
    pub inputs: Tensor<2, Int>,
    /// The ids that it should predict, `[batch, length]`.
    pub targets: Targets,
}

/// The documents that a forward pass runs on.
#[derive(Clone, Copy)]
enum Part {
    Questions,
    Passages,
    Contexts,
}

/// Draws dropout masks that can be drawn again: every forward pass of a part of a batch begins at a
/// random state of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropoutSeed(u64);

impl JointModel {
    /// Vectors of questions, `[batch, dimension]`.
    pub fn question_vectors(
        &self,
        questions: &EncoderInput,
        precision: Precision,
        seed: DropoutSeed,
    ) -> Tensor<2> {
        seed.part(Part::Questions, 0).sow(&self.device());
        questions.forward(&self.question_encoder, precision)
    }

    /// Vectors `[batch, slots, dimension]` of some of each question's passages.
    pub fn passage_vectors(
        &self,
        batch: &Batch,
        slots: Range<usize>,
        precision: Precision,
        seed: DropoutSeed,
    ) -> Tensor<3> {
        let [questions, n_docs, dimension] = batch.documents.dims();
        match (&self.context_encoder, &batch.passages) {
            (Some(encoder), Some(passages)) => {
                seed.part(Part::Passages, slots.start).sow(&self.device());
                let some = passages.slots(n_docs, slots.clone());
                some.forward(encoder, precision)
                    .reshape([questions, slots.len(), dimension])
            }
            _ => batch.documents.clone().narrow(1, slots.start, slots.len()),
        }
    }

    /// Scores `[batch, slots]` of some of each question's passages, of which log P(z|x) is the
    /// log-softmax, from the vectors of questions `[batch, dimension]` and passages
    /// `[batch, slots, dimension]`.
    ///
    /// # Panics
    /// If the model has a prior, and the batch no signals for it.
    pub fn scores(
        &self,
        batch: &Batch,
        slots: Range<usize>,
        questions: Tensor<2>,
        passages: Tensor<3>,
    ) -> Tensor<2> {
        let dense = Batch::score(questions, passages);
        let Some(prior) = &self.prior else {
            return dense;
        };
        let signals = batch.signals.clone();
        let signals = signals.expect("a batch for a model with a prior has its signals");
        prior.forward(dense, signals.narrow(1, slots.start, slots.len()))
    }

    /// log P(v|x,z,y_<i) `[batch, slots, length, vocabulary]` under some of each question's passages.
    pub fn log_probs(
        &self,
        batch: &Batch,
        slots: Range<usize>,
        precision: Precision,
        seed: DropoutSeed,
    ) -> Tensor<4> {
        let memory = self.memory(batch, slots, precision, seed);
        likelihood::log_probs(&self.generator, &memory, batch.inputs.clone(), precision)
    }

    /// log P(y_i|x,z,y_<i) `[batch, slots, length]` of the targets under some of each question's passages, 0 at
    /// padding.
    pub fn target_log_probs(
        &self,
        batch: &Batch,
        slots: Range<usize>,
        precision: Precision,
        seed: DropoutSeed,
    ) -> Tensor<3> {
        let memory = self.memory(batch, slots, precision, seed);
        let (inputs, targets) = (batch.inputs.clone(), &batch.targets);
        likelihood::target_log_probs(&self.generator, &memory, inputs, targets, precision)
    }

    fn memory(
        &self,
        batch: &Batch,
        slots: Range<usize>,
        precision: Precision,
        seed: DropoutSeed,
    ) -> Memory {
        seed.part(Part::Contexts, slots.start).sow(&self.device());
        let contexts = batch.contexts.slots(batch.n_docs(), slots);
        self.generator.encode(&contexts, precision)
    }

    fn device(&self) -> Device {
        self.generator.device()
    }
}

impl Batch {
    /// Inner products `[batch, n_docs]` of question vectors `[batch, dimension]` with passage
    /// vectors `[batch, n_docs, dimension]`.
    pub fn score(questions: Tensor<2>, passages: Tensor<3>) -> Tensor<2> {
        (questions.unsqueeze_dim::<3>(1) * passages)
            .sum_dim(2)
            .squeeze_dim(2)
    }

    /// Passages of each question.
    pub fn n_docs(&self) -> usize {
        self.documents.dims()[1]
    }
}

impl EncoderInput {
    fn forward(&self, encoder: &Encoder, precision: Precision) -> Tensor<2> {
        encoder.forward(&self.tokens, self.segments.clone(), precision)
    }

    fn slots(&self, n_docs: usize, slots: Range<usize>) -> Self {
        Self {
            tokens: self.tokens.slots(n_docs, slots.clone()),
            segments: (self.segments.as_ref())
                .map(|segments| rag_core::slots(segments, n_docs, slots)),
        }
    }
}

impl DropoutSeed {
    /// The seed of a micro-batch of a step of a run.
    pub fn new(run: u64, step: usize, micro_batch: usize) -> Self {
        Self(run).and(step as u64).and(micro_batch as u64)
    }

    fn part(self, part: Part, first: usize) -> Self {
        self.and(part as u64).and(first as u64)
    }

    /// SplitMix64's finalizer, which spreads neighbouring numbers over all bits.
    fn and(self, next: u64) -> Self {
        let mut bits = self
            .0
            .wrapping_add(next)
            .wrapping_add(0x9E37_79B9_7F4A_7C15);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self(bits ^ (bits >> 31))
    }

    fn sow(self, device: &Device) {
        device.seed(self.0);
    }
}

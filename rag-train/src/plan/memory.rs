//! The memory of a step, part by part.

/// Bytes of an f32 number.
pub(super) const F32: u64 = 4;

/// Bytes of the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Of the question encoder.
    pub question_encoder: u64,
    /// Of the passages' encoder.
    pub context_encoder: u64,
    /// Of the generator.
    pub generator: u64,
}

/// Bytes that the backward pass needs, by what made them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActivationMemory {
    /// The questions, in their encoder.
    pub question_encoder: u64,
    /// The passages, in their encoder where it is trained.
    pub context_encoder: u64,
    /// The contexts, in the generator's encoder; those of a decoder alone, in its layers, with their keys and values.
    pub encoder: u64,
    /// The answers, in the generator's decoder, with the keys and values of what an encoder made of the contexts.
    pub decoder: u64,
    /// Logits over the vocabulary, `[batch · n_docs, length, vocabulary]`.
    pub vocabulary: u64,
    /// 16-bit copies of the weights; none in f32.
    pub weight_copies: u64,
    /// The graph's own records, the same for any length and width.
    pub records: u64,
    /// The workspace of the gradient of the loss.
    pub workspace: u64,
}

impl Parameters {
    /// Of all parts together.
    pub fn total(&self) -> u64 {
        self.question_encoder + self.context_encoder + self.generator
    }
}

impl ActivationMemory {
    /// All of it together, as it is when the backward pass begins.
    pub fn total(&self) -> u64 {
        self.rows().iter().map(|(_, bytes)| bytes).sum()
    }

    /// Each part with its name.
    pub(super) fn rows(&self) -> [(&'static str, u64); 8] {
        [
            ("question encoder", self.question_encoder),
            ("context encoder", self.context_encoder),
            ("contexts in the generator", self.encoder),
            ("answers in the generator", self.decoder),
            ("vocabulary", self.vocabulary),
            ("16-bit weights", self.weight_copies),
            ("records of the graph", self.records),
            ("gradient of the loss", self.workspace),
        ]
    }
}

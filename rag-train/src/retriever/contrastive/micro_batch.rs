use burn::tensor::{Device, Int, Tensor};
use rag_core::{Encoding, TokenBatch, nn::Precision, padded};
use rag_retrieve::Encoder;

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

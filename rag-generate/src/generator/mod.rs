//! Contexts to token scores: BART and T5 behind one interface.

mod bart;
mod config;
mod places;
mod t5;

use std::sync::Arc;

use burn::{
    module::Module,
    nn::Embedding,
    tensor::{Device, Int, Tensor},
};
use rag_core::{
    Result, TokenBatch,
    checkpoint::Tensors,
    nn::{
        Attention, KeysValues, Packed, Precision, among_workers, flat_linear, log_softmax,
        padding_bias, store_weights_as, with_precision, word_log_probs,
    },
};

pub use bart::{Bart, BartConfig};
pub use config::GeneratorConfig;
pub use t5::{T5, T5Config};

pub(crate) use places::Places;

/// An encoder-decoder that gives P(y_i|x,z,y_<i).
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Generator {
    /// Lewis et al. 2019.
    Bart(Bart),
    /// Raffel et al. 2020, v1.0 and v1.1.
    T5(T5),
}

/// Encoded contexts as the decoder sees them: computed once for a question, shared by all beams
/// and candidates.
#[derive(Clone, Debug)]
pub struct Memory {
    /// Cross-attention keys and values of each decoder layer, `[contexts, heads, length, d_head]`.
    layers: Vec<KeysValues>,
    /// Hides padding, `[contexts, 1, 1, length]`.
    bias: Tensor<4>,
}

/// Self-attention keys and values of the tokens decoded so far.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    layers: Vec<KeysValues>,
}

impl Generator {
    /// The same generator for answering in `precision`. On the CPU the weights of its linear layers are packed
    /// for bf16 or int8, and what is between the layers stays f32; elsewhere, and in f16, its matrices are stored
    /// in `precision`. Either halves the memory at least.
    ///
    /// # Errors
    /// [`rag_core::Error::Config`] for int8 on another device than the CPU.
    pub fn with_precision(self, precision: Precision) -> Result<Self> {
        let device = self.device();
        with_precision(self, &device, precision, |generator| match generator {
            Self::Bart(model) => Self::Bart(model.pack(precision)),
            Self::T5(model) => Self::T5(model.pack(precision)),
        })
    }

    /// Encodes contexts `[contexts, length]`.
    pub fn encode(&self, contexts: &TokenBatch, precision: Precision) -> Memory {
        among_workers(&self.device(), || match self {
            Self::Bart(model) => model.encode(contexts, precision),
            Self::T5(model) => model.encode(contexts, precision),
        })
    }

    /// Logits `[rows, length, vocabulary]` of the tokens after each of `ids` `[rows, length]`, which
    /// follow what `cache` holds. The rows of a context are adjacent: row r reads context
    /// `r / (rows / contexts)`.
    pub fn decode(
        &self,
        ids: Tensor<2, Int>,
        memory: &Memory,
        cache: &mut Cache,
        precision: Precision,
    ) -> Tensor<3> {
        let places = Places::after(cache.length(), ids.dims()[1], &ids.device());
        let states = self.states(ids, &places, memory, Some(cache), precision);
        self.head(states, precision)
    }

    /// What the decoder makes of `ids` `[rows, length]` at `places`, `[rows, length, d_model]`. Without a cache, nothing
    /// is kept for tokens that follow.
    pub(crate) fn states(
        &self,
        ids: Tensor<2, Int>,
        places: &Places,
        memory: &Memory,
        cache: Option<&mut Cache>,
        precision: Precision,
    ) -> Tensor<3> {
        match self {
            Self::Bart(model) => model.decode(ids, places, memory, cache, precision),
            Self::T5(model) => model.decode(ids, places, memory, cache, precision),
        }
    }

    /// Logits `[rows, length, vocabulary]` of what [`Generator::states`] gives.
    pub(crate) fn head(&self, states: Tensor<3>, precision: Precision) -> Tensor<3> {
        match self {
            Self::Bart(model) => model.head(states, precision),
            Self::T5(model) => model.head(states, precision),
        }
    }

    /// The log-probabilities of `words` `[rows, length, asked]`, of what [`Generator::states`] gives.
    pub(crate) fn word_log_probs(
        &self,
        states: Tensor<3>,
        words: Tensor<3, Int>,
        precision: Precision,
    ) -> Tensor<3> {
        let [rows, length, asked] = words.dims();
        let head = match self {
            Self::Bart(model) => model.unpacked_head(&states),
            Self::T5(model) => model.unpacked_head(&states),
        };
        if precision == Precision::F32
            && let Some(head) = head
        {
            let [.., d_model] = states.dims();
            let states = head.states.reshape([rows * length, d_model]);
            let words = words.clone().reshape([rows * length, asked]);
            let found = word_log_probs(&states, &head.weight, head.bias.as_ref(), &words);
            if let Some(found) = found {
                return found.reshape([rows, length, asked]);
            }
        }
        // Where there are gradients, the logits of every piece would be kept anyway.
        let at_once = match states.device().is_autodiff() {
            true => length,
            false => (ROWS / rows).max(1),
        };
        let found = (0..length).step_by(at_once).map(|first| {
            let count = at_once.min(length - first);
            let logits = self.head(states.clone().narrow(1, first, count), precision);
            log_softmax(logits).gather(2, words.clone().narrow(1, first, count))
        });
        Tensor::cat(found.collect(), 1)
    }

    /// Adds the parameters to a checkpoint, under `prefix`.
    pub fn store(&self, tensors: &mut Tensors, prefix: &str) {
        match self {
            Self::Bart(model) => model.store(tensors, prefix),
            Self::T5(model) => model.store(tensors, prefix),
        }
    }

    /// Words that can be said.
    pub fn vocabulary(&self) -> usize {
        match self {
            Self::Bart(model) => model.vocabulary(),
            Self::T5(model) => model.vocabulary(),
        }
    }

    /// Where the parameters are.
    pub fn device(&self) -> Device {
        match self {
            Self::Bart(model) => model.device(),
            Self::T5(model) => model.device(),
        }
    }
}

/// Rows whose logits are there at once where log-probabilities are asked for.
const ROWS: usize = 256;

/// What a head that is not packed multiplies.
struct UnpackedHead {
    states: Tensor<3>,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
}

/// The head that shares the embeddings' weights.
#[derive(Clone, Debug, Default)]
struct TiedHead(Option<Arc<Packed>>);

impl TiedHead {
    /// Packs the head, and leaves the embeddings in bf16, of which few are read at a time.
    fn pack(embedding: Embedding, precision: Precision) -> (Embedding, Self) {
        let packed = Packed::new(&embedding.weight.val(), precision).map(Arc::new);
        let embedding = store_weights_as(embedding, Precision::Bf16);
        if let Some(packed) = &packed {
            packed.stands_for(&embedding.weight.val());
        }
        (embedding, Self(packed))
    }

    fn unpacked_weight(&self, embedding: &Embedding) -> Option<Tensor<2>> {
        self.0.is_none().then(|| embedding.weight.val())
    }

    fn forward(&self, embedding: &Embedding, states: Tensor<3>, precision: Precision) -> Tensor<3> {
        match &self.0 {
            Some(packed) if packed.serves(&states, &embedding.weight) => {
                packed.linear(states, None)
            }
            _ => flat_linear(states, embedding.weight.val(), None, precision),
        }
    }
}

impl Memory {
    fn new(layers: Vec<KeysValues>, mask: &Tensor<2, Int>) -> Self {
        Self {
            layers,
            bias: padding_bias(mask),
        }
    }

    /// Number of contexts.
    pub fn contexts(&self) -> usize {
        self.bias.dims()[0]
    }

    /// `count` contexts from `first` on, where they are.
    pub fn narrow(&self, first: usize, count: usize) -> Self {
        let of = |tensor: &Tensor<4>| tensor.clone().narrow(0, first, count);
        let layers = self.layers.iter().map(|layer| KeysValues {
            keys: of(&layer.keys),
            values: of(&layer.values),
        });
        Self {
            layers: layers.collect(),
            bias: of(&self.bias),
        }
    }

    /// Keeps the contexts `rows`, in that order.
    pub fn select(&self, rows: &Tensor<1, Int>) -> Self {
        let mut kept = self.clone();
        kept.layers.iter_mut().for_each(|layer| layer.select(rows));
        kept.bias = kept.bias.select(0, rows.clone());
        kept
    }
}

impl Cache {
    /// Tokens decoded so far.
    pub fn length(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.keys.dims()[2])
    }

    /// Row i continues the former row `rows[i]`.
    pub fn select(&mut self, rows: &Tensor<1, Int>) {
        self.layers.iter_mut().for_each(|layer| layer.select(rows));
    }

    /// Keys and values of all tokens so far, of which `next` are the last.
    fn extend(&mut self, layer: usize, next: KeysValues) -> &KeysValues {
        match self.layers.get_mut(layer) {
            Some(known) => known.append(next),
            None => self.layers.push(next),
        }
        &self.layers[layer]
    }
}

/// Attends from the rows `[rows, length, d_model]` to their contexts. The rows of one context are
/// laid out as further queries of it, so that its keys and values need no copies.
fn cross_attend(
    attention: &Attention,
    states: Tensor<3>,
    memory: &Memory,
    layer: usize,
    precision: Precision,
) -> Tensor<3> {
    let [rows, length, d_model] = states.dims();
    let contexts = memory.contexts();
    let queries = states.reshape([contexts, rows / contexts * length, d_model]);
    attention
        .forward(
            queries,
            &memory.layers[layer],
            Some(memory.bias.clone()),
            precision,
        )
        .reshape([rows, length, d_model])
}

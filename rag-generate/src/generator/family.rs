//! The two traits that a family of generators implements: [`Model`] for the weights, [`Family`] for the configuration.
//! The page "Add a generator" in the documentation walks through both.

use std::fmt;

use burn::{
    nn::Embedding,
    tensor::{Int, Tensor},
};
use rag_core::{
    Result, TokenBatch, Tokenizer,
    checkpoint::{Tensors, Weights},
    nn::Precision,
};

use super::{
    head::Head,
    memory::{Cache, Memory},
    places::Places,
    prompt::Prompt,
    sizes::Sizes,
};
use crate::decode::GenerationConfig;

/// The weights of a generator.
///
/// Rows `[rows, length]` of one context are adjacent: row r reads context `r / (rows / contexts)`.
pub trait Model {
    /// Reads contexts `[contexts, length]` once, for all hypotheses and candidates that follow: an encoder-decoder keeps
    /// the cross-attention's keys and values of every decoder layer, a decoder alone those of the prompt.
    fn read(&self, contexts: &TokenBatch, precision: Precision) -> Memory;

    /// The decoder's states `[rows, length, d_model]` of the tokens `ids` `[rows, length]`, which stand at `places` and
    /// read `memory`. With a cache, `ids` follow the tokens that it holds, and are appended to them; without one nothing is
    /// kept.
    ///
    /// Positions count from the start token, which is 0. A decoder alone counts from its prompt's length instead
    /// ([`Places::starting_at`]), and reads the prompt's last token in the place of the start token.
    fn states(
        &self,
        ids: Tensor<2, Int>,
        places: &Places,
        memory: &Memory,
        cache: Option<&mut Cache>,
        precision: Precision,
    ) -> Tensor<3>;

    /// The head, which makes logits of states, and the word embeddings `[vocabulary, d_model]`, whose weights it multiplies
    /// where it is tied.
    fn head(&self) -> (&Head, &Embedding);

    /// See [`Head::set_words`].
    fn set_words(&mut self, words: usize);

    /// Adds all parameters to `tensors`, under `prefix` and the checkpoint's names.
    fn store(&self, tensors: &mut Tensors, prefix: &str);

    /// Fills all parameters from `weights`, by the same names.
    ///
    /// # Errors
    /// Those of [`Weights::fill`].
    fn fill(self, weights: &mut Weights, prefix: &str) -> Result<Self>
    where
        Self: Sized;

    /// Packs every linear layer and the head for answering on the CPU in bf16 or int8.
    #[must_use]
    fn pack(self, precision: Precision) -> Self
    where
        Self: Sized;
}

/// The configuration of a generator, and what follows from it.
pub trait Family: fmt::Debug {
    /// Tokens of the vocabulary, V: rows of the word embeddings.
    fn vocabulary(&self) -> usize;

    /// The token that fills short rows of a batch.
    fn pad(&self) -> u32;

    /// Settings of decoding where a checkpoint has no `generation_config.json`, with the model's special tokens.
    fn generation(&self) -> GenerationConfig;

    /// The longest context in tokens; `None` where positions have no limit.
    fn longest_context(&self) -> Option<usize>;

    /// The longest answer in tokens, start or end token included, after a context of `context` tokens; `None` where
    /// positions have no limit. To an encoder-decoder the context does not matter.
    fn longest_answer(&self, context: usize) -> Option<usize>;

    /// The tokens of a context. Without an implementation of its own, a family reads the text that RAG's paper packs, with
    /// the special tokens that its tokenizer adds to a text.
    ///
    /// # Errors
    /// [`rag_core::Error::Tokenizer`].
    fn prompt(&self, prompt: &Prompt<'_>, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        Ok(tokenizer.encode(&prompt.joined())?.ids)
    }

    /// The class of transformers that opens a decoder alone; `None` for a generator with an encoder.
    fn architecture(&self) -> Option<&'static str> {
        None
    }

    /// Whether the tensor `name` of a checkpoint is a copy of a tied weight, or one that is never read.
    fn is_redundant(&self, name: &str) -> bool;

    /// Where adapters (LoRA) go.
    fn adapters(&self) -> Adapters;

    /// Layers and sizes, for the plan of the memory that training takes.
    fn sizes(&self) -> Sizes<'_>;
}

/// Where PEFT puts adapters, in its own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adapters {
    /// `task_type`, such as `SEQ_2_SEQ_LM`.
    pub task_type: &'static str,
    /// `target_modules` where nothing else is asked for: the last names of the projections of queries and values.
    pub target_modules: &'static [&'static str],
}

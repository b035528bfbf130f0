//! The memory that transformer layers keep for the backward pass, in bytes.
//!
//! Burn's autodiff keeps the operands that a gradient needs and shares them between operations. Read
//! off its operations, block by block, with T tokens, d the size of the states, i of all heads, f of
//! the hidden layer, S the attention scores `[rows, heads, length, memory length]`; w is the bytes of
//! an operand of a matrix product, 4 or 2:
//!
//! ```text
//! linear layer     its input: in f32 the tensor itself, once for all layers that read it; in 16 bits
//!                  a copy for each, and a copy of the weights
//! norm             8 T d      states (centred, in a layer norm) and normalised states
//! dropout          4 T d      the mask, as wide as what it drops
//! attention        4 w T i    queries, keys, values, outputs of the heads
//!   softmax        (8 + w) S  shifted scores, exponentials, weights; with dropout 4 S, the mask
//! feed-forward     2 w T f    inputs of activation and of the last projection; with dropout the mask
//!   tanh GELU      2 w T f    more: the tanh's input, and 1 + tanh
//!   SiLU           w T f      more: the sigmoid
//!   gated          2 w T f    more: both factors
//! ```
//!
//! A decoder alone keeps what [`super::decoder_only`] lists.
//!
//! Additions, reshapes, products with a scalar and sums keep nothing. Left out is what does not grow
//! with the width: masks of padding, token ids, means.
//!
//! On the CPU, where GELU, softmax, layer norm and dropout are one pass each (in f32, which the states
//! are even in 16 bits; [`rag_core::nn::fuses`]):
//!
//! ```text
//! layer norm       4 T d      its input
//! dropout          nothing
//!   softmax        nothing in f32, where all of attention is one operation; in 16 bits (4 + w) S, weights, and
//!                  what the product reads. T5's bias 4 S, once for all layers
//! ```
//!
//! Where activations are recomputed it keeps the results of matrix products and of operations with a
//! constant (a mask, a padding bias), and no others:
//!
//! ```text
//! norm             nothing, until it is computed anew: 12 T d in f32, 8 T d in 16 bits
//! dropout          4 T d      more: what it dropped
//! sublayer         w T d      the last product; let go when the backward pass begins, if dropout
//!                             follows. Without dropout, in 16 bits, 4 T d more
//! attention        4 w T i    as before
//!   softmax        4 S        shifted scores; with dropout 8 S; in 16 bits w S; with T5's bias 4 S
//!                             until the backward pass begins
//! feed-forward     w T f      the first products, also the gate's; with dropout 2 w T f
//! embedding        4 T d      of each table
//! ```
//!
//! and on the CPU:
//!
//! ```text
//! layer norm       4 T d      its result
//! sublayer         4 T d      what it is added to, where norms stand before the sublayers; in 16 bits without dropout
//!                             the last product and its cast too, until the backward pass begins
//! dropout          nothing    more than what it reads: in 16 bits the last product and its cast, (w + 4) T d
//!   softmax        nothing in f32; in 16 bits 4 S, weights. T5's bias as before
//! linear layer     nothing in f32, so that of attention the outputs of the heads are left, w T i, and of the
//!                  feed-forward nothing
//! ```

use rag_core::nn::Precision;

use super::{memory::F32, shape::Stack};
use crate::run::activations::Activations;

/// Texts of one length.
#[derive(Clone, Copy)]
pub(super) struct Texts {
    pub(super) rows: u64,
    pub(super) length: u64,
}

impl Texts {
    pub(super) fn tokens(self) -> u64 {
        self.rows * self.length
    }
}

/// The settings that decide which tensors are kept.
#[derive(Clone, Copy)]
pub(super) struct Keeping {
    pub(super) precision: Precision,
    pub(super) activations: Activations,
    pub(super) moment: Moment,
    /// Whether what stands between matrix products is one pass each.
    pub(super) fused: bool,
}

/// Where activations are recomputed, what is needed is known only when the backward pass begins.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Moment {
    Forward,
    Backward,
}

impl Keeping {
    /// Bytes of a number in a matrix product.
    pub(super) fn width(self) -> u64 {
        match self.precision {
            Precision::F32 => F32,
            Precision::Bf16 | Precision::F16 | Precision::Int8 => 2,
        }
    }

    pub(super) fn recomputes(self) -> bool {
        self.activations == Activations::Recomputed
    }

    /// Inputs of `layers` linear layers which read the same `numbers` f32 numbers.
    pub(super) fn inputs(self, numbers: u64, layers: u64) -> u64 {
        match self.precision {
            Precision::F32 if self.recomputes() => 0,
            Precision::F32 => F32 * numbers * layers.min(1),
            Precision::Bf16 | Precision::F16 | Precision::Int8 => self.width() * numbers * layers,
        }
    }

    /// Whether linear layers and attention are one operation each, too.
    pub(super) fn fused_products(self) -> bool {
        self.fused && self.precision == Precision::F32
    }

    /// Bytes of a number in the mask of a dropout.
    fn mask(self) -> u64 {
        if self.fused { 0 } else { F32 }
    }

    /// Results of linear layers that are read by what is computed from them.
    pub(super) fn products(self, numbers: u64) -> u64 {
        match self.recomputes() && self.fused_products() {
            true => 0,
            false => self.width() * numbers,
        }
    }

    /// Bytes of a score that Burn's own product of queries and keys leaves to a softmax, with a dropout of the weights.
    pub(super) fn softmax(self, dropout: bool) -> u64 {
        let dropout = u64::from(dropout);
        let cast = match self.precision {
            Precision::F32 => 0,
            Precision::Bf16 | Precision::F16 | Precision::Int8 => self.width(),
        };
        match (self.fused, self.recomputes()) {
            (true, _) => F32 + cast,
            (false, true) => F32 + 2 * F32 * dropout + cast,
            (false, false) => 2 * F32 + self.width() + F32 * dropout,
        }
    }

    /// Bytes kept between a sublayer's output of `numbers` numbers and the residual stream.
    fn added(self, numbers: u64, dropout: bool, sum_is_kept: bool) -> u64 {
        if !self.recomputes() {
            return self.mask() * numbers * u64::from(dropout);
        }
        let sum_is_kept = self.fused && sum_is_kept && !dropout;
        if self.fused_products() || sum_is_kept && self.moment == Moment::Backward {
            return 0;
        }
        if self.fused && dropout {
            return (self.width() + F32) * numbers;
        }
        let dropped = 2 * F32 * u64::from(dropout);
        let output = match (dropout, self.moment) {
            (true, Moment::Backward) => 0,
            _ => self.width(),
        };
        let cast = match self.precision {
            Precision::F32 => 0,
            Precision::Bf16 | Precision::F16 | Precision::Int8 if dropout => 0,
            Precision::Bf16 | Precision::F16 | Precision::Int8 => F32,
        };
        (dropped + output + cast) * numbers
    }
}

impl Stack {
    /// All layers, and what stands before and after them, but not the decoder's view of the contexts.
    pub(super) fn reading(&self, texts: Texts, keeping: Keeping) -> u64 {
        let states = texts.tokens() * self.d_model;
        let dropouts = self.outer_dropouts * keeping.mask() * states;
        let norms = self.outer_norms * self.norm(texts, keeping);
        let outside = if keeping.recomputes() {
            2 * dropouts + norms + self.embeddings * F32 * states
        } else {
            dropouts + norms
        };
        let scores = texts.tokens() * self.heads * texts.length;
        let layer = keeping.inputs(states, 3)
            + 2 * keeping.products(texts.tokens() * self.inner)
            + self.attending(texts, texts.length, keeping)
            + self.biased(scores, keeping)
            + self.feed_forward(texts, keeping)
            + 2 * self.norm(texts, keeping);
        let bias = if self.relative && keeping.fused_products() {
            F32 * scores
        } else {
            0
        };
        outside + bias + self.layers * layer
    }

    /// Bytes that the decoder's attention to `memory` adds.
    pub(super) fn looking_back(&self, texts: Texts, memory: Texts, keeping: Keeping) -> u64 {
        let states = texts.tokens() * self.d_model;
        let layer = keeping.inputs(states, 1)
            + 2 * keeping.products(memory.tokens() * self.inner)
            + self.attending(texts, memory.length, keeping)
            + self.norm(texts, keeping);
        // Keys and values of every layer are projected from the encoder's output.
        let projections = 2 * self.layers;
        self.layers * layer + keeping.inputs(memory.tokens() * self.d_model, projections)
    }

    /// With checkpointing: what appears when the backward pass first asks for the states of the last
    /// of `norms` norms. Each needs the states before it, so that all of them are computed anew.
    pub(super) fn recomputed(&self, texts: Texts, norms: u64, keeping: Keeping) -> u64 {
        if !keeping.recomputes() || keeping.fused {
            return 0;
        }
        let states = match keeping.precision {
            Precision::F32 => 3,
            Precision::Bf16 | Precision::F16 | Precision::Int8 => 2,
        };
        norms * states * F32 * texts.tokens() * self.d_model
    }

    /// Queries, the softmax, the heads' outputs and the dropout after them.
    fn attending(&self, texts: Texts, memory_length: u64, keeping: Keeping) -> u64 {
        let scores = texts.tokens() * self.heads * memory_length;
        let softmax = match keeping.fused_products() {
            true => 0,
            false => keeping.softmax(self.dropout.attention),
        };
        let heads = texts.tokens() * self.inner;
        keeping.products(heads)
            + keeping.width() * heads
            + softmax * scores
            + self.added(texts, keeping)
    }

    /// The tensors that a sublayer adds to the states.
    pub(super) fn added(&self, texts: Texts, keeping: Keeping) -> u64 {
        let states = texts.tokens() * self.d_model;
        keeping.added(states, self.dropout.states, self.normalize_before)
    }

    /// Scores before a trained bias is added to them.
    fn biased(&self, scores: u64, keeping: Keeping) -> u64 {
        let kept = keeping.recomputes() && keeping.moment == Moment::Forward;
        if kept && self.relative && !keeping.fused_products() {
            F32 * scores
        } else {
            0
        }
    }

    pub(super) fn feed_forward(&self, texts: Texts, keeping: Keeping) -> u64 {
        let hidden = keeping.products(texts.tokens() * self.hidden);
        let fused = keeping.fused && keeping.precision == Precision::F32;
        let dropout = u64::from(self.dropout.hidden && !fused);
        let kept = if keeping.recomputes() {
            self.ups + 2 * dropout
        } else {
            1 + self.hidden_kept + dropout
        };
        keeping.inputs(texts.tokens() * self.d_model, self.ups)
            + hidden * kept
            + self.added(texts, keeping)
    }

    /// States that a norm needs for a moment where it is computed again.
    pub(super) fn states_of_norm(&self) -> u64 {
        if self.layer_norm { 2 } else { 5 }
    }

    pub(super) fn norm(&self, texts: Texts, keeping: Keeping) -> u64 {
        let kept = match (keeping.recomputes(), keeping.fused) {
            (true, true) => u64::from(self.layer_norm) + u64::from(self.normalize_before),
            (true, false) => 0,
            (false, true) if self.layer_norm => 1,
            (false, _) => 2,
        };
        kept * F32 * texts.tokens() * self.d_model
    }
}

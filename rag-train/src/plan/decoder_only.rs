//! The memory that a decoder alone keeps for the backward pass, in bytes.
//!
//! Prompts and answers go through the same layers; of a prompt the last layer makes keys and values only. In the letters of
//! [`super::layers`], with k the size of all heads of keys, h their number or that of the queries' heads, and S the scores
//! `[rows, heads, length, seen length]`, where an answer sees its prompt and itself:
//!
//! ```text
//! rotation         4 T i/h    cosines and sines, once for all layers; a prompt's, which all rows share, of one row
//!                  w T i      queries or keys as they were rotated
//!   norms of heads 8 T i      heads, and normalised heads; 8 T h more, means and roots, which a narrow head does not hide
//! attention        w T k      values
//!   of prompts     w T i      outputs of the heads. The scores are as in other stacks, and on the CPU in f32 nothing is
//!                             kept of them
//!   of answers     w T i      outputs of the heads
//!     soft cap     4 S        the scores' tanh; of prompts too, whose softmax is then as that of answers
//!     softmax      (8 + w) S  shifted scores, exponentials, weights; on the CPU 4 S, weights, and in 16 bits w S more
//! ```
//!
//! Where activations are recomputed:
//!
//! ```text
//! rotation         8 T i      more: products with cosines and sines, until the backward pass begins; in 16 bits also what
//!                             was rotated, in f32, and what the projection made, (4 + w) T i
//!   norms of heads 4 T h      means; in 16 bits 4 T i more, heads
//! attention
//!   of answers     2 w T i    outputs of the heads for the prompt and for the answer itself, which are added
//!     softmax      4 S        shifted scores, or weights on the CPU; in 16 bits w S more
//! ```
//!
//! Norms, the residual stream and the feed-forward are as in other stacks: on the CPU the input of each norm, 4 T d.

use rag_core::nn::Precision;

use super::{
    layers::{Keeping, Moment, Texts},
    memory::F32,
    shape::Stack,
};

impl Stack {
    /// Prompts in all layers, with the keys and values that answers see.
    pub(super) fn prompting(&self, prompts: Texts, keeping: Keeping) -> u64 {
        let states = prompts.tokens() * self.d_model;
        let softmax = match keeping.fused_products() && !self.capped_scores {
            true => 0,
            false => self.softmax(keeping) * self.scores(prompts, prompts.length),
        };
        let heads = prompts.tokens() * self.inner;
        let whole = keeping.inputs(states, 3)
            + self.keys_values(prompts, keeping)
            + self.rotated(prompts, self.inner, keeping)
            + softmax
            + keeping.width() * heads
            + self.after_heads(prompts, keeping);
        let last = keeping.inputs(states, 2)
            + self.keys_values(prompts, keeping)
            + self.norm(prompts, keeping);
        self.embedded(prompts, keeping)
            + self.angles(prompts.length)
            + self.layers.saturating_sub(1) * whole
            + last
    }

    /// Answers in all layers, beside what is kept of their prompts.
    pub(super) fn answering(&self, answers: Texts, prompts: Texts, keeping: Keeping) -> u64 {
        let outputs = if keeping.recomputes() { 2 } else { 1 };
        let heads = outputs * answers.tokens() * self.inner;
        let scores = self.scores(answers, prompts.length + answers.length);
        let layer = keeping.inputs(answers.tokens() * self.d_model, 3)
            + self.keys_values(answers, keeping)
            + self.rotated(answers, self.inner, keeping)
            + self.softmax(keeping) * scores
            + keeping.width() * heads
            + self.after_heads(answers, keeping);
        self.embedded(answers, keeping)
            + self.angles(answers.tokens())
            + self.layers * layer
            + self.outer_norms * self.norm(answers, keeping)
    }

    /// The norms of a layer, its feed-forward block, and what is added to the states.
    fn after_heads(&self, texts: Texts, keeping: Keeping) -> u64 {
        self.added(texts, keeping)
            + self.feed_forward(texts, keeping)
            + self.layer_norms * self.norm(texts, keeping)
    }

    /// Bytes of a score that is left to a softmax, and to its soft cap.
    fn softmax(&self, keeping: Keeping) -> u64 {
        keeping.softmax(self.dropout.attention) + F32 * u64::from(self.capped_scores)
    }

    fn keys_values(&self, texts: Texts, keeping: Keeping) -> u64 {
        self.rotated(texts, self.key_inner, keeping)
            + keeping.products(texts.tokens() * self.key_inner)
    }

    /// Rotated heads, of `size` numbers a token together, and what leads to them.
    fn rotated(&self, texts: Texts, size: u64, keeping: Keeping) -> u64 {
        let numbers = texts.tokens() * size;
        let heads = texts.tokens() * size / self.d_head();
        let is_wide = keeping.precision == Precision::F32;
        let norms = match (self.head_norms, keeping.recomputes()) {
            (false, _) => 0,
            (true, false) => 2 * F32 * (numbers + heads),
            (true, true) if is_wide => F32 * heads,
            (true, true) => F32 * (numbers + heads),
        };
        let passing = match keeping.recomputes() && keeping.moment == Moment::Forward {
            false => 0,
            true => {
                let cast = if is_wide { 0 } else { F32 * numbers };
                2 * F32 * numbers + cast + keeping.products(numbers)
            }
        };
        keeping.width() * numbers + norms + passing
    }

    /// The cosines and sines of so many tokens.
    fn angles(&self, tokens: u64) -> u64 {
        F32 * tokens * self.d_head()
    }

    /// The embedded tokens, where no norm that keeps its input counts them.
    fn embedded(&self, texts: Texts, keeping: Keeping) -> u64 {
        match keeping.recomputes() && !keeping.fused {
            true => self.embeddings * F32 * texts.tokens() * self.d_model,
            false => 0,
        }
    }

    fn scores(&self, texts: Texts, seen: u64) -> u64 {
        texts.tokens() * self.heads * seen
    }

    fn d_head(&self) -> u64 {
        (self.inner / self.heads.max(1)).max(1)
    }
}

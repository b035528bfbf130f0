//! The transformer blocks that BERT, BART and T5 are made of.
//!
//! Weights keep the layout of the checkpoints, `[d_output, d_input]`. The residual stream,
//! softmax and norms are f32; matrix products run in a [`Precision`].

mod attention;
mod feed_forward;
mod fused;
mod layer_norm;
mod linear;
mod precision;

pub use attention::{Attention, AttentionConfig, KeysValues, MASKED, padding_bias};
pub use feed_forward::{FeedForward, FeedForwardConfig, activation};
pub use fused::{AdamWStep, adamw, dropout, fuses, gelu, log_softmax, softmax};
pub use layer_norm::{LayerNorm, LayerNormConfig};
pub use linear::{Linear, LinearConfig, flat_linear};
pub use precision::{Precision, store_weights_as};

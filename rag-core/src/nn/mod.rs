//! The transformer blocks that BERT, BART, T5 and the Llama family are made of.
//!
//! Weights keep the layout of the checkpoints, `[d_output, d_input]`. The residual stream,
//! softmax and norms are f32; matrix products run in a [`Precision`].

mod activation;
mod attention;
mod feed_forward;
mod grouped_attention;
mod layer_norm;
mod linear;
mod operations;
#[cfg_attr(not(feature = "flex"), path = "packed_without_cpu.rs")]
mod packed;
mod precision;
mod rms_norm;
mod rotary;
mod rows;
mod workers;

pub use activation::{Activation, activation};
pub use attention::{Attention, AttentionConfig, KeysValues, MASKED, padding_bias};
pub use feed_forward::{FeedForward, FeedForwardConfig};
pub use grouped_attention::{GroupedAttention, GroupedAttentionConfig, Seen};
pub use layer_norm::{LayerNorm, LayerNormConfig};
pub use linear::{Linear, LinearConfig, flat_linear};
pub use operations::{
    AdamWStep, LOGITS_AT_ONCE, adamw, dropout, fuses, gelu, keep, log_mixture, log_softmax,
    soft_cap, softmax, word_log_probs,
};
pub use packed::Packed;
pub use precision::{Precision, store_weights_as, with_precision};
pub use rms_norm::{RmsNorm, RmsNormConfig};
pub use rotary::{RopeParameters, Rotary, RotaryConfig, Rotation};
pub use workers::among_workers;

/// Numbers from −2 to 2 that look random, others at each call. Burn's random state is one for all tests of a
/// process, some of which want it for themselves.
#[cfg(all(test, feature = "flex"))]
fn scattered<const D: usize>(shape: [usize; D]) -> burn::tensor::Tensor<D> {
    use std::cell::Cell;

    use burn::tensor::{Device, Tensor, TensorData};

    thread_local! {
        static STATE: Cell<u32> = const { Cell::new(1) };
    }
    let next = || {
        let state = STATE
            .get()
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        STATE.set(state);
        (state >> 8) as f32 / (1 << 22) as f32 - 2.0
    };
    let count = shape.iter().product();
    let numbers: Vec<f32> = std::iter::repeat_with(next).take(count).collect();
    Tensor::from_data(TensorData::new(numbers, shape), &Device::flex())
}

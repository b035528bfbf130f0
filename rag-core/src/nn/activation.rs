use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};

use super::operations::gelu;
use crate::{Error, Result};

/// The non-linearity of a feed-forward block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// x Φ(x) (Hendrycks and Gimpel 2016, arXiv 1606.08415).
    Gelu,
    /// GELU with tanh in the place of Φ.
    GeluApproximate,
    /// max(x, 0).
    Relu,
    /// x σ(x), also called swish.
    Silu,
    /// tanh x.
    Tanh,
}

impl Activation {
    /// Of every element.
    pub fn forward<const D: usize>(self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Gelu => gelu(x),
            Self::GeluApproximate => activation::gelu_approximate(x),
            Self::Relu => activation::relu(x),
            Self::Silu => activation::silu(x),
            Self::Tanh => activation::tanh(x),
        }
    }
}

/// The activation that `config.json` names.
///
/// # Errors
/// [`Error::Config`] for a name that no supported model is published with.
pub fn activation(name: &str) -> Result<Activation> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluApproximate),
        "relu" => Ok(Activation::Relu),
        "silu" | "swish" => Ok(Activation::Silu),
        "tanh" => Ok(Activation::Tanh),
        _ => Err(Error::Config {
            field: "activation".into(),
            found: name.into(),
            expected: "gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu, silu or tanh".into(),
        }),
    }
}

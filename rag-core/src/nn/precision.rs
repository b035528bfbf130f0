use std::str::FromStr;

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{DType, Device, FloatDType, Tensor},
};
use serde::{Deserialize, Serialize};

use super::operations::fuses;
use crate::{Error, Result};

/// The number format of matrix products.
///
/// Parameters stay f32 (masters), and so do the residual stream, softmax, norms and losses: only
/// the operands of matrix products are cast.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the range of f32.
    Bf16,
    /// 16 bits with 10 bits of mantissa and a largest value of 65,504: training wants loss scaling.
    F16,
    /// 8-bit integers, for answering on the CPU only: weights and what meets them are rounded to them, row by
    /// row. All else is f32, but products of attention may be bf16.
    Int8,
}

impl Precision {
    /// The format that a tensor is stored in: f32 for any but the two of 16 bits.
    pub fn of<const D: usize>(tensor: &Tensor<D>) -> Self {
        match tensor.dtype() {
            DType::BF16 => Self::Bf16,
            DType::F16 => Self::F16,
            _ => Self::F32,
        }
    }

    /// Casts one operand of a matrix product.
    pub fn cast<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        tensor.cast(FloatDType::from(self))
    }
}

impl FromStr for Precision {
    type Err = Error;

    /// As it is written in JSON.
    fn from_str(name: &str) -> Result<Self> {
        let known = [Self::F32, Self::Bf16, Self::F16, Self::Int8];
        let named = known
            .into_iter()
            .find(|known| name == format!("{known:?}").to_lowercase());
        named.ok_or_else(|| Error::Config {
            field: "precision".into(),
            found: name.into(),
            expected: "f32, bf16, f16 or int8".into(),
        })
    }
}

impl From<Precision> for FloatDType {
    fn from(precision: Precision) -> Self {
        match precision {
            Precision::F32 | Precision::Int8 => Self::F32,
            Precision::Bf16 => Self::BF16,
            Precision::F16 => Self::F16,
        }
    }
}

/// A module for inference in a precision. On the CPU `pack` packs its linear layers for bf16 or int8, and what is
/// between them stays f32; elsewhere, and in f16, its matrices are stored in `precision`.
///
/// # Errors
/// [`Error::Config`] for int8 on another device than the CPU.
pub fn with_precision<M: Module>(
    module: M,
    device: &Device,
    precision: Precision,
    pack: impl FnOnce(M) -> M,
) -> Result<M> {
    match precision {
        Precision::F32 => Ok(module),
        Precision::Bf16 | Precision::Int8 if fuses(device) && !device.is_autodiff() => {
            Ok(pack(module))
        }
        Precision::Bf16 | Precision::F16 => Ok(store_weights_as(module, precision)),
        Precision::Int8 => Err(Error::Config {
            field: "precision".into(),
            found: "int8".into(),
            expected: "f32, bf16 or f16 on this device; int8 is for the CPU".into(),
        }),
    }
}

/// Stores the matrices of a module in a precision, halving its memory for inference and saving the
/// cast of every product. Vectors (norms, biases) stay f32.
pub fn store_weights_as<M: Module>(module: M, precision: Precision) -> M {
    struct Store(Precision);
    impl ModuleMapper for Store {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if D == 2 {
                param.map(|weights| self.0.cast(weights))
            } else {
                param
            }
        }
    }
    module.map(&mut Store(precision))
}

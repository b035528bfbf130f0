use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{FloatDType, Tensor},
};
use serde::{Deserialize, Serialize};

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
    /// row. All else is f32.
    Int8,
}

impl Precision {
    /// Casts one operand of a matrix product.
    pub fn cast<const D: usize>(self, tensor: Tensor<D>) -> Tensor<D> {
        tensor.cast(FloatDType::from(self))
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

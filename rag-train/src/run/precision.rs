//! Which formats of numbers can be trained.

use rag_core::nn::Precision;

use crate::error::{Error, Result};

/// Parameters train as f32: rounded ones lose what a step changes, and packed ones stay as they are.
pub(crate) fn keeps_f32(part: &'static str, precision: Precision) -> Result<()> {
    match precision {
        Precision::F32 => Ok(()),
        rounded => Err(Error::setting(
            part,
            format!("{rounded:?}").to_lowercase(),
            "f32, as a checkpoint is opened: the format of products is a setting of the training",
        )),
    }
}

/// Gradients want numbers that small steps can change.
pub(crate) fn trains_in(precision: Precision) -> Result<()> {
    match precision {
        Precision::F32 | Precision::Bf16 | Precision::F16 => Ok(()),
        Precision::Int8 => Err(Error::setting("precision", "int8", "f32, bf16 or f16")),
    }
}

use burn::tensor::Tensor;

use crate::error::{Error, Result};

/// The numbers of a tensor, row-major.
pub(crate) fn numbers<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>> {
    tensor
        .try_into_vec_as()
        .map_err(|error| Error::Execution(Box::new(error)))
}

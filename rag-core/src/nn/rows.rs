//! Tensors as matrices.

use burn::tensor::Tensor;

/// Applies a matrix product to all rows of a tensor as one matrix: `[.., d_input]` to `[.., d_output]`.
pub(super) fn by_rows<const D: usize>(
    input: Tensor<D>,
    product: impl FnOnce(Tensor<2>) -> Tensor<2>,
) -> Tensor<D> {
    let mut shape = input.dims();
    let rows = shape[..D - 1].iter().product();
    let output = product(input.reshape([rows, shape[D - 1]]));
    shape[D - 1] = output.dims()[1];
    output.reshape(shape)
}

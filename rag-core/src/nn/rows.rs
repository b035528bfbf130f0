//! Tensors of any rank as matrices of rows.

use burn::tensor::Tensor;

/// The `product` of `input` `[.., d_input]` taken as one matrix `[rows, d_input]`; the result is `[.., d_output]`.
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

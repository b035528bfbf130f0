use burn::tensor::Tensor;

/// Applies `product`, of `[rows, d_input]` to `[rows, d_output]`, to all rows of `input` `[.., d_input]` as one matrix:
/// `[.., d_output]`.
pub fn by_rows<const D: usize>(
    input: Tensor<D>,
    product: impl FnOnce(Tensor<2>) -> Tensor<2>,
) -> Tensor<D> {
    let mut shape = input.dims();
    let rows = shape[..D - 1].iter().product();
    let output = product(input.reshape([rows, shape[D - 1]]));
    shape[D - 1] = output.dims()[1];
    output.reshape(shape)
}

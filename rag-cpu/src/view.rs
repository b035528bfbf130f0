//! Tensors whose rows lie anywhere.

use std::array::from_fn;

use burn::backend::flex::FlexTensor;

/// A tensor in f32 whose last dimension is without gaps, whatever the strides of the others.
pub(crate) struct View<const D: usize> {
    tensor: FlexTensor,
    /// Elements from an index to the next: 0 where a dimension is 1, which broadcasts it.
    pub strides: [usize; D],
}

impl<const D: usize> View<D> {
    pub fn new(mut tensor: FlexTensor) -> Self {
        let layout = tensor.layout();
        let strides = layout.strides();
        if strides[D - 1] != 1 || strides.iter().any(|&stride| stride < 0) {
            tensor = tensor.to_contiguous();
        }
        let layout = tensor.layout();
        let strides = from_fn(|i| match layout.shape()[i] {
            1 => 0,
            _ => layout.strides()[i] as usize,
        });
        Self { tensor, strides }
    }

    pub fn shape(&self) -> [usize; D] {
        from_fn(|i| self.tensor.layout().shape()[i])
    }

    /// The elements from `index` on.
    #[inline(always)]
    pub fn from(&self, index: [usize; D]) -> &[f32] {
        let offset: usize = index
            .iter()
            .zip(self.strides)
            .map(|(i, stride)| i * stride)
            .sum();
        &self.tensor.storage()[self.tensor.layout().start_offset() + offset..]
    }
}

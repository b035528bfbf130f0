//! Between Burn's tensors on the CPU (its backend is named Flex) and slices of f32.

use burn::{
    backend::{
        Flex,
        autodiff::{NodeId, grads::Gradients},
        flex::{FlexTensor, Layout},
    },
    tensor::{Bytes, DType, Device, Shape, Tensor},
};

use crate::matrix::Matrix;

/// Whether a device is the CPU, with or without gradients.
pub fn is_cpu(device: &Device) -> bool {
    *device == Device::flex()
}

/// Whether a tensor is f32 on the CPU, with or without gradients: what the operations of this crate take.
pub fn serves<const D: usize>(x: &Tensor<D>) -> bool {
    x.dtype() == DType::F32 && is_cpu(&x.device())
}

/// The primitive of a tensor on the CPU without gradients, whatever its format.
pub fn inference<const D: usize>(x: Tensor<D>) -> Option<FlexTensor> {
    let plain = is_cpu(&x.device()) && !x.device().is_autodiff();
    plain.then(|| primitive(x))
}

/// The same in f32 and row-major, without gaps.
pub(crate) fn elements<const D: usize>(x: Tensor<D>) -> Option<FlexTensor> {
    let found = inference(x).filter(|x| x.dtype() == DType::F32);
    found.map(contiguous)
}

/// The primitive of a tensor that its caller knows to be on the CPU without gradients.
pub(crate) fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    let tensor = tensor.try_into_primitive::<Flex>();
    tensor.expect("the caller has asked whether the tensor is on the CPU without gradients")
}

/// A tensor of these elements, without gradients.
pub(crate) fn tensor<const D: usize>(elements: Vec<f32>, shape: [usize; D]) -> Tensor<D> {
    Tensor::from_primitive::<Flex>(of_elements(elements, shape.into()))
}

pub(crate) fn of_elements(elements: Vec<f32>, shape: Shape) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(elements),
        Layout::contiguous(shape),
        DType::F32,
    )
}

/// The tensor in f32, row-major, without gaps.
pub(crate) fn contiguous(tensor: FlexTensor) -> FlexTensor {
    match tensor.as_slice::<f32>() {
        Some(_) => tensor,
        None => tensor.to_contiguous(),
    }
}

/// The elements of a [`contiguous`] tensor.
pub(crate) fn slice(contiguous: &FlexTensor) -> &[f32] {
    contiguous.as_slice().unwrap_or_default()
}

/// The elements of a [`contiguous`] tensor, where nobody else holds them.
pub(crate) fn exclusive(contiguous: &mut FlexTensor) -> Option<&mut [f32]> {
    let elements = contiguous.layout().num_elements();
    let at_start = contiguous.layout().start_offset() == 0;
    (contiguous.try_storage_mut()).filter(|all| at_start && all.len() == elements)
}

/// The size of the last dimension.
pub(crate) fn width(x: &FlexTensor) -> usize {
    x.layout().shape().last().copied().unwrap_or(1)
}

/// A [`contiguous`] tensor of two dimensions.
pub(crate) fn matrix(contiguous: &FlexTensor) -> Matrix<'_> {
    let shape = contiguous.layout().shape();
    Matrix::new(slice(contiguous), [shape[0], shape[1]])
}

/// Hands gradients to the parents that want one.
pub(crate) fn register<const N: usize>(
    gradients: &mut Gradients,
    parents: [Option<NodeId>; N],
    found: [Option<FlexTensor>; N],
) {
    for (parent, gradient) in parents.into_iter().zip(found) {
        if let (Some(parent), Some(gradient)) = (parent, gradient) {
            gradients.register::<Flex>(parent, gradient);
        }
    }
}

//! Tensors of a checkpoint on their way into parameters, each read when its parameter is first used.

use std::{collections::VecDeque, path::Path};

use burn::{
    module::{Module, ModuleMapper, Param, ParamId},
    tensor::{Bytes, DType, Shape, Tensor, TensorData},
};
use burn_store::burn_pack;

use super::gguf::Weight;
use crate::error::{Error, Result};

/// A tensor of a checkpoint.
#[derive(Clone, Debug)]
pub(super) enum Stored {
    /// In one of Burn's formats.
    Plain(burn_pack::Tensor),
    /// In the blocks of a GGUF file.
    Blocks(Weight),
}

impl Stored {
    fn shape(&self) -> Shape {
        match self {
            Self::Plain(tensor) => tensor.shape.clone(),
            Self::Blocks(weight) => weight.shape().into(),
        }
    }

    /// Finds the bytes and checks them, so that nothing is left that can fail. A mapped file is not read by that.
    fn open(self) -> std::result::Result<Opened, String> {
        let tensor = match self {
            Self::Blocks(weight) => return Ok(Opened::Blocks(weight)),
            Self::Plain(tensor) => tensor,
        };
        let (_, dtype, shape, _, bytes) = tensor.into_parts().map_err(|error| error.to_string())?;
        if !dtype.is_float() {
            return Err(format!("expected floating-point numbers, found {dtype:?}"));
        }
        match TensorData::try_from_bytes(bytes, shape, dtype) {
            Ok(data) => Ok(Opened::Plain(data)),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A tensor that can be read without failing.
enum Opened {
    Plain(TensorData),
    Blocks(Weight),
}

impl Opened {
    fn read(self) -> TensorData {
        match self {
            Self::Plain(data) => data.convert_dtype(DType::F32),
            Self::Blocks(weight) => {
                let numbers = Bytes::from_elems(weight.to_f32());
                TensorData::from_bytes(numbers, weight.shape(), DType::F32)
            }
        }
    }
}

/// A tensor, and the parameter that it is for.
#[derive(Debug)]
pub(super) struct Found {
    pub id: ParamId,
    /// In the checkpoint.
    pub name: String,
    pub tensor: Stored,
}

/// Fills the parameters of `module` with tensors that stand in the order of its parameters. `folder` is for errors.
pub(super) fn fill<M: Module>(module: M, found: Vec<Found>, folder: &Path) -> Result<M> {
    let mut fill = Fill {
        found: found.into(),
        folder,
        failed: None,
    };
    let module = module.map(&mut fill);
    match (fill.failed, fill.found.pop_front()) {
        (Some(error), _) => Err(error),
        (None, Some(left)) => Err(Error::DamagedWeights {
            path: folder.to_owned(),
            reason: format!("{} is for a parameter of integers", left.name),
        }),
        (None, None) => Ok(module),
    }
}

struct Fill<'a> {
    found: VecDeque<Found>,
    folder: &'a Path,
    failed: Option<Error>,
}

impl Fill<'_> {
    fn filled<const D: usize>(
        &self,
        param: &Param<Tensor<D>>,
        found: Found,
    ) -> Result<Param<Tensor<D>>> {
        let (name, shape) = (found.name, param.lazy_shape());
        if found.tensor.shape() != shape {
            return Err(Error::Shape {
                name,
                expected: shape.to_vec(),
                found: found.tensor.shape().to_vec(),
            });
        }
        let opened = (found.tensor.open()).map_err(|reason| Error::DamagedWeights {
            path: self.folder.to_owned(),
            reason: format!("{name}: {reason}"),
        })?;
        let read = move |device: &_, trains| {
            let tensor = Tensor::from_data(opened.read(), (device, DType::F32));
            tensor.set_require_grad(trains)
        };
        let (device, trains) = (param.lazy_device(), trains(param));
        Ok(Param::uninitialized(param.id, read, device, trains, shape))
    }
}

impl ModuleMapper for Fill<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let found = self.found.pop_front_if(|found| found.id == param.id);
        match found.map(|found| self.filled(&param, found)) {
            Some(Ok(filled)) => return filled,
            Some(Err(error)) => self.failed = self.failed.take().or(Some(error)),
            None => {}
        }
        param
    }
}

/// Whether a parameter trains, also where its device has no gradients. The parameter is not initialised by that.
fn trains<const D: usize>(param: &Param<Tensor<D>>) -> bool {
    let stand_in = Tensor::zeros([1; D], &param.lazy_device());
    let stand_in = param.clone().transform_for_load(stand_in, param.id);
    match param.lazy_device().is_autodiff() {
        true => stand_in.is_require_grad(),
        false => stand_in.train().is_require_grad(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use burn::tensor::Device;

    use super::*;
    use crate::{
        nn::{Linear, LinearConfig},
        parameters::for_each_parameter,
    };

    fn found(linear: &Linear, tensors: [burn_pack::Tensor; 2]) -> Vec<Found> {
        let mut ids = Vec::new();
        for_each_parameter(linear, |parameter| ids.push(parameter.id()));
        let found = ids.into_iter().zip(tensors).map(|(id, tensor)| Found {
            id,
            name: tensor.name.clone(),
            tensor: Stored::Plain(tensor),
        });
        found.collect()
    }

    fn tensor(name: &str, dtype: DType, shape: &[usize]) -> burn_pack::Tensor {
        let bytes = vec![0; shape.iter().product::<usize>() * dtype.size()];
        let bytes = Bytes::from_bytes_vec(bytes);
        burn_pack::Tensor::new(name.into(), dtype, shape.to_vec(), None, bytes)
    }

    fn filled(tensors: [burn_pack::Tensor; 2]) -> Result<Linear> {
        let linear = LinearConfig::new(3, 2).init(&Device::flex());
        let found = found(&linear, tensors);
        fill(linear, found, Path::new("here"))
    }

    #[test]
    fn what_cannot_be_read_is_an_error_before_it_is_used() {
        let weight = |dtype| tensor("weight", dtype, &[2, 3]);
        let bias = tensor("bias", DType::F32, &[2]);
        filled([weight(DType::BF16), bias.clone()]).unwrap();
        let error = filled([weight(DType::I32), bias.clone()]).unwrap_err();
        assert!(error.to_string().contains("weight"), "{error}");
        let short = burn_pack::Tensor::new(
            "weight".into(),
            DType::BF16,
            vec![2, 3],
            None,
            Bytes::from_bytes_vec(vec![0; 10]),
        );
        let error = filled([short, bias.clone()]).unwrap_err();
        assert!(error.to_string().contains("weight"), "{error}");
        let error = filled([weight(DType::F32), tensor("bias", DType::F32, &[3])]).unwrap_err();
        assert!(matches!(error, Error::Shape { name, .. } if name == "bias"));
    }

    #[test]
    fn whether_a_parameter_trains_is_kept() {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let mut linear = LinearConfig::new(3, 2).init(&device);
            linear.weight = linear.weight.set_require_grad(false);
            assert!(!linear.weight.is_initialized());
            let tensors = [
                tensor("weight", DType::BF16, &[2, 3]),
                tensor("bias", DType::F32, &[2]),
            ];
            let found = found(&linear, tensors);
            let linear = fill(linear, found, Path::new("here")).unwrap();
            assert!(!linear.weight.is_initialized());
            let linear = match device.is_autodiff() {
                true => linear,
                false => linear.train(),
            };
            assert!(!linear.weight.is_require_grad());
            assert!(linear.bias.unwrap().is_require_grad());
        }
    }
}

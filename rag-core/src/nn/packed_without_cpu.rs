//! Packed weights in a build without the CPU's kernels: there are none.

use burn::{
    module::Param,
    tensor::{Device, Tensor},
};

use super::precision::Precision;

/// There is none.
#[derive(Debug)]
pub enum Packed {}

#[allow(missing_docs)]
impl Packed {
    pub fn new(_: &Tensor<2>, _: Precision) -> Option<Self> {
        None
    }

    pub fn linear<const D: usize>(&self, _: Tensor<D>, _: Option<Tensor<1>>) -> Tensor<D> {
        match *self {}
    }

    pub fn feed_forward<const D: usize>(
        [up, _]: [&Self; 2],
        _: [Option<&Param<Tensor<1>>>; 2],
        _: &Tensor<D>,
    ) -> Option<Tensor<D>> {
        match *up {}
    }

    pub fn precision(&self) -> Precision {
        match *self {}
    }

    pub fn unpacked(&self, _: &Device) -> Tensor<2> {
        match *self {}
    }

    pub fn stands_for(&self, _: &Tensor<2>) {
        match *self {}
    }

    pub fn serves<const D: usize>(&self, _: &Tensor<D>, _: &Param<Tensor<2>>) -> bool {
        match *self {}
    }
}

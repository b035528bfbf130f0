//! Dropout whose mask is not kept, but drawn again from its seed.

use burn::{
    backend::flex::FlexTensor,
    tensor::{Device, Distribution, Int, Tensor},
};

use crate::{
    math::hashed,
    pass::{Keeps, Pass, apply},
    processor::Processor,
    tasks::each_task,
};

/// Which elements are dropped: element i by a hash of i and the seed.
#[derive(Clone, Copy, Debug)]
pub struct Mask {
    probability: f32,
    seed: [u32; 2],
}

impl Mask {
    /// A mask that drops elements with this probability. Its seed comes from the device's own random state, so that
    /// [`Device::seed`] decides it.
    pub fn draw(probability: f64, device: &Device) -> Self {
        let any = Distribution::Uniform(0.0, f64::from(i32::MAX));
        let drawn = Tensor::<1, Int>::random([2], any, device).into_data();
        let mut numbers = drawn.iter::<i64>().map(|number| number as u32);
        Self {
            probability: probability as f32,
            seed: std::array::from_fn(|_| numbers.next().unwrap_or_default()),
        }
    }
}

/// Drops elements of a tensor that [`serves`](crate::serves), and scales the others by 1 / (1 − probability).
pub fn dropout<const D: usize>(x: Tensor<D>, mask: Mask) -> Tensor<D> {
    apply(x, Dropout(mask))
}

#[derive(Clone, Copy, Debug)]
struct Dropout(Mask);

impl Pass for Dropout {
    const KEEPS: Keeps = Keeps::Nothing;
    const RECOMPUTED: bool = true;

    fn forward(self, processor: Processor, x: FlexTensor) -> FlexTensor {
        each_task(
            processor,
            x,
            1,
            #[inline(always)]
            |first, x| drop_some(x, first, self.0),
        )
    }

    fn gradient(self, processor: Processor, _: Option<FlexTensor>, dy: FlexTensor) -> FlexTensor {
        self.forward(processor, dy)
    }
}

/// Drops elements, of which `x` holds those from index `first` on.
#[inline(always)]
pub(crate) fn drop_some(x: &mut [f32], first: usize, Mask { probability, seed }: Mask) {
    let scale = 1.0 / (1.0 - probability);
    // Compared as signed numbers, which vectors can.
    let limit = ((f64::from(probability) - 0.5) * 2f64.powi(32)) as i32;
    for (i, x) in x.iter_mut().enumerate() {
        let number = hashed((first + i) as u32 ^ seed[0]).wrapping_add(seed[1]);
        let keeps = hashed(number) as i32 >= limit;
        *x = if keeps { *x * scale } else { 0.0 };
    }
}

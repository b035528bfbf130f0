//! Rounding of rows to integers of 8 bits, each row by its largest number (LLM.int8()'s vector-wise quantisation,
//! Dettmers et al. 2022, without its outlier columns).

use pulp::{Simd, WithSimd};

use crate::processor::Processor;

/// The largest integer that a number is rounded to.
pub const LARGEST: f32 = 127.0;

/// Inputs of a weight at most. The sum of so many products of 127 and 127 is below 2³¹.
pub const MOST_INPUTS: usize = i32::MAX as usize / (127 * 127);

/// An integer from -127 to 127 as a kernel reads it.
pub trait Integer: Copy + Send + Sync + 'static {
    /// Integer 0.
    const ZERO: Self;

    /// Stores an integer.
    fn new(integer: i8) -> Self;
}

impl Integer for i8 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn new(integer: i8) -> Self {
        integer
    }
}

/// For kernels that multiply 16 bits.
impl Integer for i16 {
    const ZERO: Self = 0;

    #[inline(always)]
    fn new(integer: i8) -> Self {
        Self::from(integer)
    }
}

/// The integer plus 128, for kernels that multiply unsigned activations.
impl Integer for u8 {
    const ZERO: Self = 0x80;

    #[inline(always)]
    fn new(integer: i8) -> Self {
        integer.cast_unsigned() ^ 0x80
    }
}

/// Rounds a row to integers with the processor's vectors, and returns the scale that they are to be multiplied with: NaN
/// where a number of the row is NaN, infinity where one is infinite, and 0 where all are 0. In these three cases the
/// integers are 0, and what they stand for is NaN, NaN and 0. Integers beyond the row's end become 0.
pub fn quantise<I: Integer>(processor: Processor, numbers: &[f32], integers: &mut [I]) -> f32 {
    processor.run(Row { numbers, integers })
}

/// A row and room for its integers. (A closure of this size is not inlined, and then compiled without the processor's
/// vectors.)
struct Row<'a, I> {
    numbers: &'a [f32],
    integers: &'a mut [I],
}

impl<I: Integer> WithSimd for Row<'_, I> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        /// 1.5 · 2²³: a small number that is added to it leaves its nearest integer in the lowest bits.
        const ROUNDS: f32 = 12_582_912.0;
        let (integers, missing) = self.integers.split_at_mut(self.numbers.len());
        missing.fill(I::ZERO);
        let (largest, any_nan) = largest(self.numbers);
        if any_nan || largest == 0.0 {
            integers.fill(I::ZERO);
            return if any_nan { f32::NAN } else { 0.0 };
        }
        let scale = LARGEST / largest;
        for (integer, number) in integers.iter_mut().zip(self.numbers) {
            *integer = I::new((number * scale + ROUNDS).to_bits() as i8);
        }
        largest / LARGEST
    }
}

/// The largest absolute value of a row, and whether any of its numbers is NaN.
#[inline(always)]
fn largest(numbers: &[f32]) -> (f32, bool) {
    /// Running maxima, as many as the longest vectors take at once, twice.
    const LANES: usize = 32;
    // As integers without the sign, absolute values are in the order of their size, and NaN is above infinity.
    let mut lanes = [0_u32; LANES];
    let chunks = numbers.chunks_exact(LANES);
    let mut most = 0;
    for number in chunks.remainder() {
        most = most.max(number.abs().to_bits());
    }
    for chunk in chunks {
        for (lane, number) in lanes.iter_mut().zip(chunk) {
            *lane = (*lane).max(number.abs().to_bits());
        }
    }
    let most = lanes.iter().fold(most, |most, lane| most.max(*lane));
    (f32::from_bits(most), f32::from_bits(most).is_nan())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_the_nearest_and_have_their_scale() {
        for width in [1, 5, 31, 32, 33, 100] {
            let numbers: Vec<f32> = (0..width)
                .map(|i| ((i * 37 + 5) % 23) as f32 - 11.3)
                .collect();
            for processor in Processor::available() {
                let mut signed = vec![1_i8; width + 3];
                let scale = quantise(processor, &numbers, &mut signed);
                let largest = numbers.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                assert_eq!(scale, largest / 127.0);
                for (integer, number) in signed.iter().zip(&numbers) {
                    let nearest = (number * (127.0 / largest)).round_ties_even();
                    assert_eq!(f32::from(*integer), nearest);
                }
                assert_eq!(signed[width..], [0; 3]);
                let (mut wide, mut offset) = (vec![1_i16; width + 3], vec![1_u8; width + 3]);
                assert_eq!(quantise(processor, &numbers, &mut wide), scale);
                assert_eq!(quantise(processor, &numbers, &mut offset), scale);
                for ((signed, wide), offset) in signed.iter().zip(wide).zip(offset) {
                    assert_eq!(i16::from(*signed), wide);
                    assert_eq!(wide, i16::from(offset) - 128);
                }
            }
        }
    }

    #[test]
    fn rows_that_are_not_finite_have_a_scale_that_is_not() {
        for (number, expected) in [(f32::NAN, f32::NAN), (f32::INFINITY, f32::INFINITY)] {
            for at in [0, 3, 40] {
                let mut numbers = vec![1.0; 41];
                numbers[at] = number;
                for processor in Processor::available() {
                    let mut integers = vec![1_i8; 41];
                    let scale = quantise(processor, &numbers, &mut integers);
                    assert_eq!(scale.to_bits(), expected.to_bits());
                    assert_eq!(integers, [0; 41]);
                }
            }
        }
        for processor in Processor::available() {
            let mut integers = [1_i8; 2];
            assert_eq!(quantise(processor, &[0.0, -0.0], &mut integers), 0.0);
            assert_eq!(integers, [0; 2]);
        }
    }
}

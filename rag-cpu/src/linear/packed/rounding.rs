//! Rounding of f32 to bf16, the upper half of its bits.

use crate::processor::Processor;

/// Rounds each number to the nearest bf16, or to the even one of two that are as near, and writes it as an f32. NaN
/// stays NaN, whatever its mantissa; numbers above the largest bf16 become infinity.
pub fn round_to_bf16(processor: Processor, numbers: &[f32], rounded: &mut [f32]) {
    assert_eq!(numbers.len(), rounded.len(), "room for the numbers");
    processor.vectorise(
        #[inline(always)]
        || {
            for (rounded, number) in rounded.iter_mut().zip(numbers) {
                *rounded = nearest(*number);
            }
        },
    );
}

/// The bits of the nearest bf16 of each number.
pub fn bf16_bits(processor: Processor, numbers: &[f32], bits: &mut [u16]) {
    assert_eq!(numbers.len(), bits.len(), "room for the numbers");
    processor.vectorise(
        #[inline(always)]
        || {
            for (bits, number) in bits.iter_mut().zip(numbers) {
                *bits = (nearest(*number).to_bits() >> 16) as u16;
            }
        },
    );
}

#[inline(always)]
fn nearest(number: f32) -> f32 {
    /// The bits of infinity, above which those of NaN are, without the sign.
    const INFINITY: u32 = 0x7F80_0000;
    /// The highest bit of the mantissa: a NaN whose other set bits are all in the lower half would become infinity.
    const QUIET: u32 = 0x0040_0000;
    let bits = number.to_bits();
    let odd = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7FFF + odd);
    let is_nan = bits & !(1 << 31) > INFINITY;
    let bits = if is_nan { bits | QUIET } else { rounded };
    f32::from_bits(bits & 0xFFFF_0000)
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// Compares all upper halves of f32, with lower halves around the ties and between them.
    #[test]
    fn rounding_is_to_nearest_even_and_keeps_nan() {
        for processor in Processor::available() {
            let mut random = 1_u32;
            for high in 0..=u16::MAX {
                let lows = std::array::from_fn::<u32, 16, _>(|i| match i {
                    0 => 0,
                    1 => 1,
                    2 => 0x7FFF,
                    3 => 0x8000,
                    4 => 0x8001,
                    5 => 0xFFFF,
                    _ => {
                        random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                        random >> 16
                    }
                });
                let numbers = lows.map(|low| f32::from_bits(u32::from(high) << 16 | low));
                let (mut rounded, mut bits) = ([0.0; 16], [0; 16]);
                round_to_bf16(processor, &numbers, &mut rounded);
                bf16_bits(processor, &numbers, &mut bits);
                for ((number, rounded), bits) in numbers.iter().zip(rounded).zip(bits) {
                    assert_eq!(rounded.to_bits(), u32::from(bits) << 16);
                    assert_eq!(number.is_nan(), rounded.is_nan(), "{:x}", number.to_bits());
                    if !number.is_nan() {
                        assert_eq!(bits, bf16::from_f32(*number).to_bits(), "{number:e}");
                    }
                }
            }
        }
    }
}

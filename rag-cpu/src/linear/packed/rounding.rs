//! Rounding of f32 to bf16, the upper half of its bits.

use crate::processor::Processor;

/// The bits of the nearest bf16 of each number, or of the even one of two that are as near. NaN stays NaN, whatever its
/// mantissa, and numbers above the largest bf16 become infinity.
pub fn bf16_bits(processor: Processor, numbers: &[f32], bits: &mut [u16]) {
    assert_eq!(numbers.len(), bits.len(), "room for the numbers");
    processor.run(
        #[inline(always)]
        || {
            for (bits, number) in bits.iter_mut().zip(numbers) {
                *bits = nearest(*number);
            }
        },
    );
}

#[inline(always)]
fn nearest(number: f32) -> u16 {
    /// The bits of infinity; those of NaN are above, without the sign.
    const INFINITY: u32 = 0x7F80_0000;
    /// The highest bit of the mantissa: a NaN whose other bits are all in the lower half would become infinity.
    const QUIET: u32 = 0x0040_0000;
    let bits = number.to_bits();
    let odd = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7FFF + odd);
    let is_nan = bits & !(1 << 31) > INFINITY;
    let bits = if is_nan { bits | QUIET } else { rounded };
    (bits >> 16) as u16
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// All upper halves of f32, with lower halves around the ties and between them.
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
                let mut bits = [0; 16];
                bf16_bits(processor, &numbers, &mut bits);
                for (number, bits) in numbers.iter().zip(bits) {
                    let found = bf16::from_bits(bits);
                    assert_eq!(number.is_nan(), found.is_nan(), "{:x}", number.to_bits());
                    if !number.is_nan() {
                        assert_eq!(bits, bf16::from_f32(*number).to_bits(), "{number:e}");
                    }
                }
            }
        }
    }
}

//! Weights of an output for consecutive inputs, 32 bits of them.

/// Two weights in bf16, for an input in the lower half and for the next input in the upper half.
pub type Pair = u32;

/// Four weights in int8.
pub type Quad = [i8; 4];

/// The weights of a pair.
#[inline(always)]
pub fn halves(pair: Pair) -> [f32; 2] {
    [
        f32::from_bits(pair << 16),
        f32::from_bits(pair & 0xFFFF_0000),
    ]
}

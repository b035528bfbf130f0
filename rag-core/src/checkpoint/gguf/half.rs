//! IEEE half precision.

/// Converts a little-endian IEEE half-precision float to f32, exactly.
pub(super) fn f16(bytes: [u8; 2]) -> f32 {
    let bits = u32::from(u16::from_le_bytes(bytes));
    let sign = (bits & 0x8000) << 16;
    let rest = bits & 0x7fff;
    let magnitude = match rest {
        // Zero and what is smaller than 2^-14: a multiple of 2^-24, exact in f32.
        0..=0x3ff => (rest as f32 * f32::from_bits(0x3380_0000)).to_bits(),
        0x400..=0x7bff => (rest << 13) + ((127 - 15) << 23),
        _ => 0x7f80_0000 | ((rest & 0x3ff) << 13),
    };
    f32::from_bits(sign | magnitude)
}

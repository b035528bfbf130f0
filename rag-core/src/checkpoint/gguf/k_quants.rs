//! Blocks of 256 elements (K-quants): each group has an integer scale, multiplied by one f16 scale of the block.

use super::half::f16;

/// Unpacks the scale and the minimum of each of eight groups: 6 bits each, in 12 bytes.
fn scales(s: &[u8]) -> [(f32, f32); 8] {
    std::array::from_fn(|j| {
        let (scale, minimum) = match j {
            0..4 => (s[j] & 63, s[j + 4] & 63),
            _ => (
                (s[j + 4] & 15) | ((s[j - 4] >> 6) << 4),
                (s[j + 4] >> 4) | ((s[j] >> 6) << 4),
            ),
        };
        (f32::from(scale), f32::from(minimum))
    })
}

/// Dequantizes a Q4_K block: f16 d and dmin, 12 bytes of scales, then 32 bytes for every 64 elements, whose low
/// four bits hold the first 32 of them and whose high four bits the others.
pub(super) fn q4_k(block: &[u8; 144], out: &mut [f32; 256]) {
    let d = f16([block[0], block[1]]);
    let dmin = f16([block[2], block[3]]);
    let scales = scales(&block[4..16]);
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = (d * scales[j].0, dmin * scales[j].1);
        let low = &block[16 + 32 * (j / 2)..][..32];
        for (out, q) in out.iter_mut().zip(low) {
            *out = scale * f32::from((q >> (4 * (j % 2))) & 15) - minimum;
        }
    }
}

/// Dequantizes a Q5_K block: as Q4_K, with 32 bytes of fifth bits before. Bit j of byte l belongs to element 32 j + l.
pub(super) fn q5_k(block: &[u8; 176], out: &mut [f32; 256]) {
    let d = f16([block[0], block[1]]);
    let dmin = f16([block[2], block[3]]);
    let scales = scales(&block[4..16]);
    let high = &block[16..48];
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = (d * scales[j].0, dmin * scales[j].1);
        let low = &block[48 + 32 * (j / 2)..][..32];
        for ((out, q), high) in out.iter_mut().zip(low).zip(high) {
            let q = ((q >> (4 * (j % 2))) & 15) | (((high >> j) & 1) << 4);
            *out = scale * f32::from(q) - minimum;
        }
    }
}

/// Dequantizes a Q6_K block: 128 bytes with the lower four bits of the elements, 64 with the upper two, 16 scales,
/// then f16 d. Each half of the block has four groups of 32 elements: the low four bits of 64 bytes hold the first
/// two groups, the high four bits the last two.
pub(super) fn q6_k(block: &[u8; 210], out: &mut [f32; 256]) {
    let d = f16([block[208], block[209]]);
    let scales = &block[192..208];
    for (j, out) in out.chunks_exact_mut(32).enumerate() {
        let (half, group) = (j / 4, j % 4);
        let low = &block[64 * half + 32 * (group % 2)..][..32];
        let high = &block[128 + 32 * half..][..32];
        for (i, out) in out.iter_mut().enumerate() {
            let scale = d * f32::from(scales[2 * j + i / 16] as i8);
            let q = ((low[i] >> (4 * (group / 2))) & 15) | (((high[i] >> (2 * group)) & 3) << 4);
            *out = scale * (f32::from(q) - 32.0);
        }
    }
}

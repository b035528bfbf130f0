//! Dequantization of tensors, and the blocks of 32 elements.
//!
//! The results equal those of gguf-py's `dequantize` bit for bit: each product and each sum is rounded to f32.

use super::{half::f16, k_quants, tensor_type::TensorType};

/// Dequantizes the blocks in `bytes` into `out`, one f32 an element.
///
/// # Panics
/// If `bytes` are not whole blocks, or hold more or fewer elements than `out`.
pub fn dequantize(kind: TensorType, bytes: &[u8], out: &mut [f32]) {
    let blocks = bytes.len() / kind.bytes();
    assert!(
        bytes.len() == blocks * kind.bytes() && out.len() == blocks * kind.elements(),
        "{} bytes of {} do not hold {} numbers",
        bytes.len(),
        kind.name(),
        out.len()
    );
    match kind {
        TensorType::F32 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f32::from_le_bytes(*bytes);
            }
        }
        TensorType::F16 => {
            for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f16(*bytes);
            }
        }
        TensorType::BF16 => {
            for (out, [low, high]) in out.iter_mut().zip(bytes.as_chunks().0) {
                *out = f32::from_le_bytes([0, 0, *low, *high]);
            }
        }
        TensorType::Q4_0 => each(bytes, out, q4_0),
        TensorType::Q4_1 => each(bytes, out, q4_1),
        TensorType::Q5_0 => each(bytes, out, q5_0),
        TensorType::Q5_1 => each(bytes, out, q5_1),
        TensorType::Q8_0 => each(bytes, out, q8_0),
        TensorType::Q4K => each(bytes, out, k_quants::q4_k),
        TensorType::Q5K => each(bytes, out, k_quants::q5_k),
        TensorType::Q6K => each(bytes, out, k_quants::q6_k),
    }
}

/// Dequantizes one block after another.
fn each<const BYTES: usize, const ELEMENTS: usize>(
    bytes: &[u8],
    out: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; ELEMENTS]),
) {
    let blocks = bytes.as_chunks().0.iter();
    for (bytes, out) in blocks.zip(out.as_chunks_mut().0) {
        block(bytes, out);
    }
}

fn q4_0(block: &[u8; 18], out: &mut [f32; 32]) {
    let d = f16([block[0], block[1]]);
    for (i, q) in block[2..].iter().enumerate() {
        out[i] = d * (f32::from(q & 15) - 8.0);
        out[i + 16] = d * (f32::from(q >> 4) - 8.0);
    }
}

fn q4_1(block: &[u8; 20], out: &mut [f32; 32]) {
    let d = f16([block[0], block[1]]);
    let m = f16([block[2], block[3]]);
    for (i, q) in block[4..].iter().enumerate() {
        out[i] = d * f32::from(q & 15) + m;
        out[i + 16] = d * f32::from(q >> 4) + m;
    }
}

fn q5_0(block: &[u8; 22], out: &mut [f32; 32]) {
    let d = f16([block[0], block[1]]);
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    for (i, q) in block[6..].iter().enumerate() {
        out[i] = d * (fifth_bit(q & 15, high, i) - 16.0);
        out[i + 16] = d * (fifth_bit(q >> 4, high, i + 16) - 16.0);
    }
}

fn q5_1(block: &[u8; 24], out: &mut [f32; 32]) {
    let d = f16([block[0], block[1]]);
    let m = f16([block[2], block[3]]);
    let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    for (i, q) in block[8..].iter().enumerate() {
        out[i] = d * fifth_bit(q & 15, high, i) + m;
        out[i + 16] = d * fifth_bit(q >> 4, high, i + 16) + m;
    }
}

/// Element `i` of a block: four bits in `low`, the fifth one is bit `i` of `high`.
fn fifth_bit(low: u8, high: u32, i: usize) -> f32 {
    f32::from(low | (((high >> i) & 1) as u8) << 4)
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16([block[0], block[1]]);
    for (out, q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(*q as i8) * d;
    }
}

//! Numbers stored in blocks that share a scale: bit for bit what gguf-py's `dequantize` computes, each
//! product and each sum rounded to f32.

use super::k_quants;

/// How the numbers of a tensor are stored. `d` and `m` are f16, `q` small integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, IEEE half precision.
    F16,
    /// The upper halves of 32-bit floats.
    BF16,
    /// 32 numbers d·(q − 8), q of 4 bits.
    Q4_0,
    /// 32 numbers d·q + m, q of 4 bits.
    Q4_1,
    /// 32 numbers d·(q − 16), q of 5 bits.
    Q5_0,
    /// 32 numbers d·q + m, q of 5 bits.
    Q5_1,
    /// 32 numbers d·q, q of 8 bits.
    Q8_0,
    /// 256 numbers in groups of 32, q of 4 bits.
    Q4K,
    /// 256 numbers in groups of 32, q of 5 bits.
    Q5K,
    /// 256 numbers in groups of 16, q of 6 bits.
    Q6K,
}

impl TensorType {
    const ALL: [(u32, Self, &str); 11] = [
        (0, Self::F32, "F32"),
        (1, Self::F16, "F16"),
        (2, Self::Q4_0, "Q4_0"),
        (3, Self::Q4_1, "Q4_1"),
        (6, Self::Q5_0, "Q5_0"),
        (7, Self::Q5_1, "Q5_1"),
        (8, Self::Q8_0, "Q8_0"),
        (12, Self::Q4K, "Q4_K"),
        (13, Self::Q5K, "Q5_K"),
        (14, Self::Q6K, "Q6_K"),
        (30, Self::BF16, "BF16"),
    ];

    pub(super) fn from_id(id: u32) -> Option<Self> {
        let found = Self::ALL.iter().find(|(own, ..)| *own == id);
        found.map(|(_, kind, _)| *kind)
    }

    /// llama.cpp's name of a type.
    pub fn name(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, kind, _)| *kind == self);
        found.map_or("", |(.., name)| name)
    }

    /// The name of a type by its number, also of one that is not read.
    pub(super) fn name_of(id: u32) -> String {
        let name = match id {
            9 => "Q8_1",
            10 => "Q2_K",
            11 => "Q3_K",
            15 => "Q8_K",
            16 => "IQ2_XXS",
            17 => "IQ2_XS",
            18 => "IQ3_XXS",
            19 => "IQ1_S",
            20 => "IQ4_NL",
            21 => "IQ3_S",
            22 => "IQ2_S",
            23 => "IQ4_XS",
            24 => "I8",
            25 => "I16",
            26 => "I32",
            27 => "I64",
            28 => "F64",
            29 => "IQ1_M",
            34 => "TQ1_0",
            35 => "TQ2_0",
            39 => "MXFP4",
            _ => return format!("number {id}"),
        };
        name.to_owned()
    }

    pub(super) fn known() -> String {
        Self::ALL.map(|(.., name)| name).join(", ")
    }

    /// Numbers in a block.
    pub fn elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }
}

/// Writes the numbers of the blocks in `bytes` to `out`.
///
/// # Panics
/// If `bytes` are not whole blocks, or hold more or fewer numbers than `out`.
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

/// The value of an IEEE half.
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

fn fifth_bit(low: u8, high: u32, i: usize) -> f32 {
    f32::from(low | (((high >> i) & 1) as u8) << 4)
}

fn q8_0(block: &[u8; 34], out: &mut [f32; 32]) {
    let d = f16([block[0], block[1]]);
    for (out, q) in out.iter_mut().zip(&block[2..]) {
        *out = f32::from(*q as i8) * d;
    }
}

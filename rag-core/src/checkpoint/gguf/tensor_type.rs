//! The formats in which GGUF stores the elements of a tensor.

/// How the elements of a tensor are stored. `d` and `m` are f16, `q` small integers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TensorType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats, IEEE half precision.
    F16,
    /// The upper halves of 32-bit floats.
    BF16,
    /// 32 elements d·(q − 8), q of 4 bits.
    Q4_0,
    /// 32 elements d·q + m, q of 4 bits.
    Q4_1,
    /// 32 elements d·(q − 16), q of 5 bits.
    Q5_0,
    /// 32 elements d·q + m, q of 5 bits.
    Q5_1,
    /// 32 elements d·q, q of 8 bits.
    Q8_0,
    /// 256 elements in groups of 32, q of 4 bits.
    Q4K,
    /// 256 elements in groups of 32, q of 5 bits.
    Q5K,
    /// 256 elements in groups of 16, q of 6 bits.
    Q6K,
}

impl TensorType {
    /// Number in the file, type, llama.cpp's name.
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

    /// The type with a number of the file.
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

    /// The names of all types that are read.
    pub(super) fn known() -> String {
        Self::ALL.map(|(.., name)| name).join(", ")
    }

    /// Elements of a block.
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

//! Metadata values as the file stores them.

use std::fmt;

/// The types of values, in the order of their numbers in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    Text,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    /// The type with a number of the file.
    pub fn from_id(id: u32) -> Option<Self> {
        use ValueType::*;
        let all = [
            U8, I8, U16, I16, U32, I32, F32, Bool, Text, Array, U64, I64, F64,
        ];
        all.get(id as usize).copied()
    }

    /// Fewest bytes of a value of this type. An empty text still has its length.
    pub fn shortest(self) -> usize {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 | Self::Text => 8,
            Self::Array => 12,
        }
    }
}

/// A value; texts and arrays are borrowed from the file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Flag(bool),
    Text(&'a str),
    Array(Array<'a>),
}

/// An array whose items are not decoded yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Array<'a> {
    /// The items' type.
    pub kind: ValueType,
    /// Items.
    pub length: usize,
    /// The items, one after another.
    pub bytes: &'a [u8],
}

/// Shows the value in an error message, long texts and arrays in short.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 80;
        match self {
            Self::Unsigned(value) => write!(f, "{value}"),
            Self::Signed(value) => write!(f, "{value}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Flag(value) => write!(f, "{value}"),
            Self::Text(text) => {
                let shown: String = text.chars().take(SHOWN).collect();
                write!(f, "{shown:?}")
            }
            Self::Array(array) => write!(f, "an array of {} {:?}", array.length, array.kind),
        }
    }
}

//! The header's description of a tensor: name, shape, type, and where its bytes are.

use super::{cursor::Cursor, error::GgufError, tensor_type::TensorType};

type Result<T> = std::result::Result<T, GgufError>;

/// GGML's tensors have at most four dimensions.
const MOST_DIMENSIONS: usize = 4;

/// A tensor as the header describes it, at least one element large.
#[derive(Clone, Debug)]
pub(super) struct Description<'a> {
    /// llama.cpp's name.
    pub name: &'a str,
    /// Outermost dimension first, as in PyTorch; the file has the reverse.
    pub shape: Vec<usize>,
    /// How the elements are stored.
    pub kind: TensorType,
    /// Where the tensor begins, in bytes from the first tensor.
    pub offset: usize,
    /// Bytes of the tensor.
    pub length: usize,
}

impl<'a> Description<'a> {
    /// Reads the description at the cursor, and moves the cursor behind it.
    pub fn read(cursor: &mut Cursor<'a>) -> Result<Self> {
        let name = cursor.name("a tensor's name")?;
        let dimensions = cursor.u32(name)? as usize;
        if !(1..=MOST_DIMENSIONS).contains(&dimensions) {
            return Err(GgufError::damaged(format!(
                "tensor {name} has {dimensions} dimensions"
            )));
        }
        let mut shape = Vec::with_capacity(dimensions);
        for _ in 0..dimensions {
            let dimension = cursor.u64(name)?;
            shape.push(usize::try_from(dimension).unwrap_or(usize::MAX));
        }
        let columns = shape[0];
        shape.reverse();
        let id = cursor.u32(name)?;
        let kind = TensorType::from_id(id).ok_or_else(|| GgufError::TensorType {
            tensor: name.to_owned(),
            found: TensorType::name_of(id),
            known: TensorType::known(),
        })?;
        let offset = cursor.u64(name)?;
        let rows = (shape[..dimensions - 1].iter())
            .try_fold(1_usize, |rows, dimension| rows.checked_mul(*dimension));
        let length = rows.and_then(|rows| {
            let row = (columns / kind.elements()).checked_mul(kind.bytes())?;
            // Dequantized, the tensor must fit into the address space too.
            rows.checked_mul(columns)?.checked_mul(size_of::<f32>())?;
            rows.checked_mul(row)
        });
        match (length, usize::try_from(offset)) {
            (Some(length), Ok(offset)) if length > 0 && columns.is_multiple_of(kind.elements()) => {
                Ok(Self {
                    name,
                    shape,
                    kind,
                    offset,
                    length,
                })
            }
            _ => Err(GgufError::damaged(format!(
                "tensor {name} has the shape {shape:?} in blocks of {}",
                kind.elements()
            ))),
        }
    }
}

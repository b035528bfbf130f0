use std::{borrow::Cow, ops::Range, sync::Arc};

use half::{f16, slice::HalfFloatSliceExt, vec::HalfFloatVecExt};
use memmap2::Mmap;
use ndarray::{Array1, Array2, ArrayView1, ArrayViewMut1, CowArray, Ix2};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{error::Result, index::error::IndexError};

/// How the numbers of vectors are kept, on disk and in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// Four bytes a number, scores as exact as f32 sums are.
    #[default]
    F32,
    /// Two bytes a number, each rounded to 11 significant bits; scores are still summed in f32.
    F16,
}

impl Storage {
    /// Bytes of one number.
    pub fn width(self) -> usize {
        match self {
            Self::F32 => size_of::<f32>(),
            Self::F16 => size_of::<f16>(),
        }
    }
}

/// The rows that are not deleted, rising; `None` for all.
pub(crate) type Live = Option<Arc<[u32]>>;

/// Vectors, row after row, in memory or mapped from a file, some of which may be deleted. Clones share
/// them.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    elements: Elements,
    dimension: usize,
    /// Those that are there, deleted ones included.
    written: usize,
    live: Live,
}

#[derive(Clone, Debug)]
enum Elements {
    F32(Arc<Vec<f32>>),
    F16(Arc<Vec<f16>>),
    /// Little-endian rows, one after the other.
    Mapped(Arc<Mmap>, Storage),
}

impl Rows {
    /// `vectors: [passages, dimension]` in memory.
    pub(crate) fn new(vectors: Array2<f32>, storage: Storage) -> Result<Self> {
        let (written, dimension) = vectors.dim();
        if dimension == 0 {
            return Err(IndexError::Dimension {
                what: "passage vectors",
                expected: "at least 1".to_owned(),
                found: 0,
            }
            .into());
        }
        let values = row_major(vectors);
        let broken = |row: &[f32]| !row.iter().all(|value| value.is_finite());
        if let Some(row) = values.par_chunks(dimension).position_first(broken) {
            let what = "passage vector";
            return Err(IndexError::NotFinite { what, row }.into());
        }
        let elements = match storage {
            Storage::F32 => Elements::F32(Arc::new(values)),
            Storage::F16 => Elements::F16(Arc::new(halves(&values, dimension)?)),
        };
        Ok(Self {
            elements,
            dimension,
            written,
            live: None,
        })
    }

    /// The little-endian rows of `map`, which holds whole rows only.
    pub(crate) fn mapped(map: Arc<Mmap>, storage: Storage, dimension: usize) -> Self {
        Self {
            written: map.len() / (dimension * storage.width()),
            elements: Elements::Mapped(map, storage),
            dimension,
            live: None,
        }
    }

    /// Of the rows that were written, the `live` ones.
    pub(crate) fn only(&self, live: Live) -> Self {
        Self {
            live,
            ..self.clone()
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.live.as_ref().map_or(self.written, |live| live.len())
    }

    pub(crate) fn dimension(&self) -> usize {
        self.dimension
    }

    pub(crate) fn storage(&self) -> Storage {
        match self.elements {
            Elements::F32(_) => Storage::F32,
            Elements::F16(_) => Storage::F16,
            Elements::Mapped(_, storage) => storage,
        }
    }

    /// The rows of `range`, `[rows, dimension]`: borrowed where f32 is kept and none is deleted.
    pub(crate) fn range(&self, range: Range<usize>) -> CowArray<'_, f32, Ix2> {
        let shape = (range.len(), self.dimension);
        if self.live.is_some() {
            let mut rows = Array2::zeros(shape);
            for (row, values) in range.zip(rows.rows_mut()) {
                self.copy(row, values);
            }
            return rows.into();
        }
        let values = match self.values(range) {
            Cow::Borrowed(values) => CowArray::from(ArrayView1::from(values)),
            Cow::Owned(values) => CowArray::from(Array1::from(values)),
        };
        values
            .into_shape_with_order(shape)
            .expect("as many numbers as rows times dimension")
    }

    /// Writes a row to `to`.
    pub(crate) fn copy(&self, row: usize, mut to: ArrayViewMut1<f32>) {
        let written = self.written_row(row);
        let values = self.values(written..written + 1);
        to.assign(&ArrayView1::from(&*values));
    }

    /// The rows as they are written to disk, some at a time.
    pub(crate) fn encoded(&self, at_a_time: usize) -> impl Iterator<Item = Cow<'_, [u8]>> {
        let at_a_time = if self.live.is_some() { 1 } else { at_a_time };
        (0..self.len()).step_by(at_a_time).map(move |start| {
            let end = self.len().min(start + at_a_time);
            let written = self.written_row(start);
            let elements = written * self.dimension..(written + end - start) * self.dimension;
            match &self.elements {
                Elements::F32(values) => encode(&values[elements], |value| value.to_le_bytes()),
                Elements::F16(values) => encode(&values[elements], |value| value.to_le_bytes()),
                Elements::Mapped(map, storage) => {
                    let width = storage.width();
                    Cow::Borrowed(&map[elements.start * width..elements.end * width])
                }
            }
        })
    }

    /// Where a row stands among those that are written.
    fn written_row(&self, row: usize) -> usize {
        match &self.live {
            Some(live) => live[row] as usize,
            None => row,
        }
    }

    /// The numbers of some of the rows that are written.
    fn values(&self, written: Range<usize>) -> Cow<'_, [f32]> {
        let elements = written.start * self.dimension..written.end * self.dimension;
        match &self.elements {
            Elements::F32(values) => Cow::Borrowed(&values[elements]),
            Elements::F16(values) => Cow::Owned(values[elements].to_f32_vec()),
            Elements::Mapped(map, storage) => {
                let width = storage.width();
                decode(&map[elements.start * width..elements.end * width], *storage)
            }
        }
    }
}

/// The numbers row after row, without a copy where they lie so already.
fn row_major(vectors: Array2<f32>) -> Vec<f32> {
    if !vectors.is_standard_layout() {
        return vectors.iter().copied().collect();
    }
    let len = vectors.len();
    let (mut values, offset) = vectors.into_raw_vec_and_offset();
    values.drain(..offset.unwrap_or(0));
    values.truncate(len);
    values
}

fn halves(values: &[f32], dimension: usize) -> Result<Vec<f16>> {
    let halves = Vec::from_f32_slice(values);
    match halves
        .par_iter()
        .position_first(|half: &f16| half.is_infinite())
    {
        Some(at) => Err(IndexError::HalfRange {
            row: at / dimension,
            value: values[at],
        }
        .into()),
        None => Ok(halves),
    }
}

fn decode(bytes: &[u8], storage: Storage) -> Cow<'_, [f32]> {
    match storage {
        Storage::F32 => match bytemuck::try_cast_slice(bytes) {
            Ok(values) if cfg!(target_endian = "little") => Cow::Borrowed(values),
            _ => numbers(bytes, f32::from_le_bytes).collect(),
        },
        Storage::F16 => match bytemuck::try_cast_slice::<u8, f16>(bytes) {
            Ok(values) if cfg!(target_endian = "little") => Cow::Owned(values.to_f32_vec()),
            _ => numbers(bytes, |bytes| f16::from_le_bytes(bytes).to_f32()).collect(),
        },
    }
}

fn numbers<const N: usize>(
    bytes: &[u8],
    number: impl Fn([u8; N]) -> f32,
) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(move |bytes| number(*bytes))
}

fn encode<T: bytemuck::Pod, const N: usize>(
    values: &[T],
    bytes: impl Fn(T) -> [u8; N],
) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        Cow::Borrowed(bytemuck::cast_slice(values))
    } else {
        values.iter().flat_map(|value| bytes(*value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn decoding_does_not_depend_on_alignment() {
        for storage in [Storage::F32, Storage::F16] {
            let vectors = array![[1.0, -2.0, 0.5], [3.0, 0.0, 7.0]];
            let rows = Rows::new(vectors.clone(), storage).unwrap();
            let bytes: Vec<u8> = rows.encoded(2).flat_map(Cow::into_owned).collect();
            assert_eq!(bytes.len(), 6 * storage.width());
            let shifted = [&[0], bytes.as_slice()].concat();
            for bytes in [&bytes[..], &shifted[1..]] {
                assert_eq!(*decode(bytes, storage), *vectors.as_slice().unwrap());
            }
        }
    }
}
